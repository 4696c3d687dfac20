//! Bounds of logs, from a job's output over an agent's spool to the coordinator's segments.

/// One piece of a log on the wire: large enough for full link speed, small enough that a line waits behind few of them.
pub const LOG_CHUNK_MAX_BYTES: usize = 256 << 10;

/// A log's default limit; what goes past it is cut with a mark.
pub const LOG_DEFAULT_LIMIT_BYTES: u64 = 1 << 30;

/// Unacknowledged bytes of one log that an agent keeps on disk before it stops reading the job's output.
pub const SPOOL_MAX_BYTES: u64 = 256 << 20;

/// One file of an agent's log spool: what is acknowledged is freed in pieces of this size.
pub const SPOOL_SEGMENT_BYTES: u64 = 8 << 20;

/// How long a finished job's last output waits for space on a full disk before its log is given up.
pub const SPOOL_STUCK_MS: u64 = 60_000;

/// Unacknowledged log bytes in flight for one attempt: a few round trips between continents at full link speed.
pub const LOG_IN_FLIGHT_MAX_BYTES: u64 = 16 << 20;

/// Log bytes that the coordinator holds in memory until they are durable, of all logs; beyond, appends wait. A fifth of
/// a second of a slow disk.
pub const LOG_QUEUE_MAX_BYTES: u32 = 64 << 20;

/// The same for one log, so that one that roars does not make the others wait.
pub const LOG_QUEUE_PER_LOG_MAX_BYTES: u32 = 8 << 20;

/// Log bytes that one sync makes durable: enough that the sync's own time does not count, few milliseconds of writing.
pub const LOG_COMMIT_MAX_BYTES: usize = 8 << 20;

/// Fences, seals and marks that wait for the log writer; beyond, callers wait.
pub const LOG_CONTROL_QUEUE_MAX: u32 = 4_096;

/// A segment that all running logs share. Small enough that a log that runs for days holds little of others'.
pub const LOG_SEGMENT_BYTES: u64 = 64 << 20;

/// How much of a segment one entry of the index in memory covers: what reading one piece from the middle costs.
pub const LOG_RUN_SPAN_BYTES: u64 = 256 << 10;

/// Recent bytes of one watched log kept in memory for all its watchers; who lags behind it reads the file.
pub const LOG_RING_BYTES: usize = 1 << 20;

/// Plain bytes of one frame of a sealed log: what reading one byte from the middle decompresses.
pub const LOG_FRAME_BYTES: usize = 256 << 10;

/// Records of one frame of a sealed log, so that the times of tiny writes stay bounded too.
pub const LOG_FRAME_RECORDS_MAX: usize = 16_384;

/// Frames of one sealed log: one of [`LOG_MAX_BYTES`] in full frames, and as many again that are short of records.
pub const LOG_FRAMES_MAX: usize = 1 << 20;

/// A log that is longer than this is refused, whatever limit its agent was told.
pub const LOG_MAX_BYTES: u64 = 16 << 30;

/// How long the end of a log waits for others to share its sync with. Nobody waits for it but the sealer, and at a hundred
/// ends a second it saves most of their syncs.
pub const LOG_END_WAIT_MS: u64 = 20;

/// Logs that are sealed with one sync of their directory.
pub const LOG_SEAL_BATCH: usize = 32;

/// Reads of log files at a time; each holds about 1 MiB and a thread.
pub const LOG_READS_MAX: usize = 16;

/// Logs that ended without a byte or were deleted, and are remembered to refuse what comes late.
pub const LOG_OVER_REMEMBERED: usize = 65_536;

/// From a finished command to a log that is durable to its end; then it is marked incomplete.
pub const LOG_SETTLE_MS: u64 = 120_000;

const _: () = assert!(LOG_QUEUE_PER_LOG_MAX_BYTES as usize >= LOG_CHUNK_MAX_BYTES, "a chunk fits in its log's share");
const _: () = assert!(LOG_QUEUE_PER_LOG_MAX_BYTES < LOG_QUEUE_MAX_BYTES, "no log fills the queue alone");
const _: () = assert!(LOG_COMMIT_MAX_BYTES as u64 * 2 <= LOG_SEGMENT_BYTES, "a commit fits in a segment");
