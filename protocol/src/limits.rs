//! Every bound of the system, each with the reason for its number (I9).
//!
//! A limit that a pool, a pipeline or a flag can change has its default here and its maximum beside it.

#[path = "limits/action.rs"]
mod action;
#[path = "limits/ask.rs"]
mod ask;
#[path = "limits/build.rs"]
mod build;
#[path = "limits/chunk.rs"]
mod chunk;
#[path = "limits/git.rs"]
mod git;
#[path = "limits/intake.rs"]
mod intake;
#[path = "limits/notify.rs"]
mod notify;
#[path = "limits/origin.rs"]
mod origin;
#[path = "limits/peer.rs"]
mod peer;
#[path = "limits/place.rs"]
mod place;
#[path = "limits/reuse.rs"]
mod reuse;
#[path = "limits/segment.rs"]
mod segment;
#[path = "limits/tree.rs"]
mod tree;

pub use self::action::*;
pub use self::ask::*;
pub use self::build::*;
pub use self::chunk::*;
pub use self::git::*;
pub use self::intake::*;
pub use self::notify::*;
pub use self::origin::*;
pub use self::peer::*;
pub use self::place::*;
pub use self::reuse::*;
pub use self::segment::*;
pub use self::tree::*;

/// One frame on a control stream. An offer with a 256 KiB command and 256 KiB of environment fits; nothing else is large.
pub const FRAME_MAX_BYTES: u32 = 1 << 20;

/// The bytes of a frame beside its payload: length and CRC-32, four each.
pub const FRAME_HEADER_BYTES: usize = 8;

/// One piece of a log on the wire: large enough for full link speed, small enough that a line waits behind few of them.
pub const LOG_CHUNK_MAX_BYTES: usize = 256 << 10;

/// A log's default limit; what goes past it is cut with a mark.
pub const LOG_DEFAULT_LIMIT_BYTES: u64 = 1 << 30;

/// Unacknowledged bytes of one log that an agent keeps on disk before it stops reading the job's output.
pub const SPOOL_MAX_BYTES: u64 = 256 << 20;

/// One file of an agent's log spool: what is acknowledged is freed in pieces of this size.
pub const SPOOL_SEGMENT_BYTES: u64 = 8 << 20;

/// Shorter secrets are reported and not masked: they would match everywhere (buildkite.md 21.4).
pub const SECRET_MIN_BYTES: usize = 6;

/// Values that one job's log is searched for; the search stays fast and its table small.
pub const SECRETS_PER_JOB_MAX: usize = 1_000;

/// Bytes of all forms of all values that one job's log is searched for: an environment that is full of them, or thirty of
/// [`REDACTION_MAX_BYTES`]. A search for them has 32 MB.
pub const MASK_MAX_BYTES: usize = 1 << 20;

/// States of a search that a supervisor makes between two looks at its deadlines: about a millisecond's.
pub const MASK_STEP_STATES: usize = 32 << 10;

/// Values that one supervisor has been asked to mask and has not yet: one agent asks for one at a time.
pub const MASKS_WAITING_MAX: usize = 64;

/// A launch of a job on its way to the spawner: an environment and a command at their limits, as JSON.
pub const LAUNCH_MAX_BYTES: usize = 4 << 20;

/// Supervisors that a spawner gives a next job when they are done with one; more leave after their job.
pub const SUPERVISORS_KEPT_MAX: usize = 64;

/// Without a launch for so long, supervisors that wait for a job are let go: a pause between builds costs a few forks.
pub const SUPERVISOR_IDLE_MS: u64 = 30_000;

/// Jobs of one supervisor before it leaves: what any of them may have left in its memory does not add up.
pub const SUPERVISOR_JOBS_MAX: u32 = 1_000;

/// How long a spawner waits for a supervisor to take a launch, before it forks another one.
pub const RELAY_SEND_MS: u64 = 2_000;

/// One line between an agent and a job's supervisor; the longest carries a secret to mask.
pub const SUPERVISOR_LINE_MAX_BYTES: usize = 256 << 10;

/// How long an agent that starts waits for a supervisor's first line where an attempt's own record cannot be read: it is said
/// at once by one that lives.
pub const SUPERVISOR_HELLO_MS: u64 = 1_000;

/// Directories of attempts that could not be read, which an agent keeps for a person to look at: enough to see what they
/// have in common. Each may hold a whole log.
pub const UNREADABLE_KEPT_MAX: usize = 8;

/// Connections to one supervisor: the agent, one that it lost, and somebody who looks; the oldest gives way.
pub const SUPERVISOR_CLIENTS_MAX: usize = 4;

/// Processes and threads of one job: more than any build tool starts, fewer than the machine's ids.
pub const JOB_PROCESSES_MAX: u64 = 16_384;

/// Open files of each of a job's processes: what language runtimes and databases in tests ask for.
pub const JOB_OPEN_FILES_MAX: u64 = 65_536;

/// How long killed processes may take to be gone before the attempt is reported as one that cannot be killed (F26).
pub const UNKILLABLE_MS: u64 = 60_000;

/// How long a finished job's last output waits for space on a full disk before its log is given up.
pub const SPOOL_STUCK_MS: u64 = 60_000;

/// One answer of the container engine to a supervisor; an inspected container is a few KiB.
pub const ENGINE_ANSWER_MAX_BYTES: usize = 4 << 20;

/// Between two looks of an agent whether its container engine is there.
pub const ENGINE_LOOK_MS: u64 = 5_000;

/// How long an agent waits for one answer to whether it is.
pub const ENGINE_PING_MS: u64 = 5_000;

/// Looks without an answer after which it is not: one that is upgraded stops for 15 s.
pub const ENGINE_MISSED_MAX: u32 = 4;

/// How long a supervisor waits for one answer of the container engine.
pub const ENGINE_ANSWER_MS: u64 = 30_000;

/// The longest pause before a container engine that went away is asked again: a person would look about as often.
pub const ENGINE_RETRY_MAX_MS: u64 = 5_000;

/// An image's `/etc/passwd`, in its archive: thousands of users.
pub const PASSWD_MAX_BYTES: usize = 1 << 20;

/// The longest pause before an agent tries again to remove containers that it no longer has: they take space, no more.
pub const LEFTOVERS_RETRY_MAX_MS: u64 = 60_000;

/// How long a container that is known to have ended waits for its engine to tell with what status. An engine that is
/// upgraded stops for 15 s and takes some more to start; below [`UNKILLABLE_MS`], for nothing is left to be killed.
pub const ENGINE_GONE_MS: u64 = 50_000;

/// How long an engine may take to notice that a container has ended, before it is asked.
pub const ENGINE_NOTICE_MS: u64 = 2_000;

/// How long removing a container may take: deleting what a job wrote outside of its workspace is part of it.
pub const ENGINE_REMOVE_MS: u64 = 20_000;

/// The same where the engine did not answer before: enough for one that is well again, and little for one that hangs.
pub const ENGINE_REMOVE_UNWELL_MS: u64 = 1_000;

/// Free space below which an agent takes no work, however large its disk (F49: 5 % or 2 GiB).
pub const DISK_REFUSE_BYTES: u64 = 2 << 30;

/// Files that can still be made on an agent's disk below which it takes no work, however many it has: two large source
/// trees.
pub const DISK_REFUSE_FILES: u64 = 50_000;

/// Between two looks at how an agent's machine does.
pub const HEALTH_MS: u64 = 2_000;

/// What an agent's loop has not taken in yet: messages, events of jobs, signals.
pub const AGENT_INPUTS_MAX: usize = 1_024;

/// Messages that wait for an agent's control stream; more, and the connection is given up.
pub const AGENT_OUTBOX_MAX: usize = 1_024;

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

/// Problems that a check of a directory lists in words; the rest is counted.
pub const CHECK_PROBLEMS_MAX: usize = 1_000;

/// Beats between agent and coordinator; the coordinator may tell larger ones as the fleet grows (F10, F12).
pub const BEAT_MS: u64 = 5_000;

/// Beats a second that one coordinator is to hear: with more agents each beats less often, down to a quarter of its lease
/// (F12). One beat costs it some 20 microseconds.
pub const BEATS_PER_SECOND_MAX: u64 = 1_000;

/// A lease's default length: suspect after a quarter, lost at the end (F10).
pub const LEASE_DEFAULT_MS: u64 = 60_000;

/// The shortest lease that a pool may ask for. Shorter ones would lose agents to a busy disk.
pub const LEASE_MIN_MS: u64 = 1_000;

/// The longest lease that a pool may ask for (F10).
pub const LEASE_MAX_MS: u64 = 24 * 3_600_000;

/// An offer that is neither accepted nor refused within this long is taken back (F16).
pub const OFFER_MS: u64 = 5_000;

/// From accepting to starting: workspace and image (F16: 60 s and the image's time).
pub const PREPARE_MS: u64 = 600_000;

/// From a finished command to a log that is durable to its end; then it is marked incomplete.
pub const LOG_SETTLE_MS: u64 = 120_000;

/// From asking an agent to end an attempt to giving up on its answer, beside the job's own grace.
pub const STOP_ANSWER_MS: u64 = 30_000;

/// Between a job's polite signal and its kill, by default (Buildkite's `cancel-grace-period`).
pub const CANCEL_GRACE_MS: u64 = 10_000;

/// The longest grace that a step may ask for: an hour tears down a large test environment, and a cancel still ends (I8).
pub const STEP_GRACE_MAX_MS: u64 = 3_600_000;

/// How long a job waits for an agent before it expires: 30 days (buildkite.md 10.5).
pub const JOB_EXPIRY_MS: u64 = 30 * 86_400_000;

/// How long a build may exist in all, whatever else happens; every state has a deadline (I10).
pub const BUILD_EXPIRY_MS: u64 = 60 * 86_400_000;

/// A job without a timeout of its own or of its pipeline.
pub const TIMEOUT_DEFAULT_MS: u64 = 24 * 3_600_000;

/// The longest timeout that a step may ask for.
pub const TIMEOUT_MAX_MS: u64 = 7 * 86_400_000;

/// An agent that is not heard of for this long, and holds nothing, is forgotten: longer than a machine is off over a
/// holiday, and about when the grace of its certificate ends.
pub const AGENT_FORGET_MS: u64 = 7 * 86_400_000;

/// How often a job whose command had not started moves to another agent by itself.
pub const REQUEUE_MAX: u32 = 10;

/// How often one retry rule may retry (buildkite.md 10.1).
pub const RETRY_RULE_LIMIT_MAX: u32 = 10;

/// A step that has lost this many agents is suspected of killing them and is not retried (F17).
pub const AGENTS_LOST_MAX: u32 = 3;

/// How often it is looked whether room must be kept for large jobs, while some wait.
pub const RESERVE_CHECK_MS: u64 = 30_000;

/// Fewer silent agents say nothing about their zone: two machines may well fail together (F15).
pub const ZONE_SILENT_MIN: usize = 3;

/// How long the jobs of a zone whose agents fell silent together are held before they are lost (F15).
pub const ZONE_HOLD_MS: u64 = 600_000;

/// From when on a large job that fits nowhere holds back smaller ones (F56).
pub const RESERVE_AFTER_MS: u64 = 120_000;

/// Attempts that an agent may hold for each of its slots, those included whose commands have ended and whose logs are
/// not yet durable: enough to hide one sync, few enough to bound its spools.
pub const HELD_PER_SLOT_MAX: usize = 4;

/// Attempts of one job in all, by rules and by hand.
pub const ATTEMPTS_PER_JOB_MAX: usize = 100;

/// Jobs of one build.
pub const JOBS_PER_BUILD_MAX: usize = 10_000;

/// Jobs of all builds that have not finished; submits beyond are refused.
pub const LIVE_JOBS_MAX: usize = 2_000_000;

/// Builds that have not finished; submits beyond are refused.
pub const LIVE_BUILDS_MAX: usize = 1_000_000;

/// Agents that one coordinator serves.
pub const AGENTS_MAX: usize = 20_000;

/// Pools that one coordinator knows.
pub const POOLS_MAX: usize = 1_000;

/// Tokens of both kinds that are not past.
pub const TOKENS_MAX: usize = 10_000;

/// Registered pipelines; each row is in memory, without its definition.
pub const PIPELINES_MAX: usize = 10_000;

/// Builds in a chain of builds that trigger each other (reference 23).
pub const TRIGGER_DEPTH_MAX: u32 = 10;

/// Builds that are triggered below one, over all levels, while one of them goes on: a loop ends here.
pub const TRIGGERED_BUILDS_MAX: u32 = 1_000;

/// Schedules in all; each row is in memory.
pub const SCHEDULES_MAX: usize = 10_000;

/// Schedules of one pipeline.
pub const SCHEDULES_PER_PIPELINE_MAX: usize = 100;

/// At least so often the clock that people set is looked at for schedules that are due: it may have jumped.
pub const SCHEDULE_CHECK_MS: u64 = 30_000;

/// From when a build is ordered until its definition is there; a large repository may have to be fetched for it.
pub const ORDER_MS: u64 = 600_000;

/// Orders that are filled at a time.
pub const ORDERS_AT_ONCE_MAX: usize = 16;

/// Queues that one pool serves.
pub const QUEUES_PER_POOL_MAX: usize = 100;

/// Tags of one agent or one step's query.
pub const TAGS_MAX: usize = 64;

/// Named abilities of one agent.
pub const CAPABILITIES_MAX: usize = 64;

/// Attempts that one agent has: its slots, and results that wait while the coordinator is away.
pub const HELD_MAX: usize = 4_096;

/// Slots of one agent.
pub const SLOTS_MAX: u32 = 512;

/// A name of a pipeline, pool, zone, queue, tag or branch.
pub const NAME_MAX_BYTES: usize = 200;

/// A step's command.
pub const COMMAND_MAX_BYTES: usize = 256 << 10;

/// A job's whole environment: names and values.
pub const ENV_MAX_BYTES: usize = 256 << 10;

/// Variables of a job's environment: each costs 16 bytes of an offer beside its own, and an offer fits in a frame.
pub const ENV_VARS_MAX: usize = 16_384;

/// A container image by reference: host, path, tag and digest.
pub const IMAGE_REF_MAX_BYTES: usize = 1_024;

/// A repository's URL.
pub const URL_MAX_BYTES: usize = 4 << 10;

/// A build's message (buildkite.md 17.2).
pub const MESSAGE_MAX_BYTES: usize = 64 << 10;

/// A detail in a cause or a refusal.
pub const DETAIL_MAX_BYTES: usize = 4 << 10;

/// A pipeline's text.
pub const PIPELINE_MAX_BYTES: usize = 4 << 20;

/// Values of a pipeline's file with its aliases copied out: a hundred for each of the most jobs a build may have.
pub const PIPELINE_NODES_MAX: usize = 100 * JOBS_PER_BUILD_MAX;

/// Text of a pipeline's file with its aliases copied out, and text that interpolation may make: an alias bomb ends here.
pub const PIPELINE_EXPANDED_MAX_BYTES: usize = 8 * PIPELINE_MAX_BYTES;

/// Lists and mappings within each other; readers walk them by recursion.
pub const PIPELINE_DEPTH_MAX: usize = 64;

/// Pipelines that a coordinator compiles at once; others wait for their turn.
pub const COMPILES_MAX: usize = 2;

/// Documents in one pipeline file (buildkite.md 23: uploads per build).
pub const PIPELINE_DOCUMENTS_MAX: usize = 500;

/// What is said about one pipeline; more helps nobody.
pub const PIPELINE_DIAGNOSTICS_MAX: usize = 500;

/// The expression of one `if`: the longest that people write are a tenth of it, and ten thousand must be read quickly.
pub const CONDITION_MAX_BYTES: usize = 16 << 10;

/// Operators, brackets, templates and groups of a regular expression within each other; readers walk them by recursion.
pub const CONDITION_DEPTH_MAX: usize = 48;

/// Text that one expansion within an expression may make: the largest message of a build many times over.
pub const CONDITION_TEXT_MAX_BYTES: usize = 1 << 20;

/// Bytes that are looked at to find where templates end, over one expression; nested and broken ones are looked at again.
pub const CONDITION_SCAN_MAX_BYTES: usize = 1 << 20;

/// How often a regular expression repeats something by number, repetitions within each other multiplied (as RE2 has it).
pub const REGEX_REPEATS_MAX: u32 = 1_000;

/// A regular expression's program in memory.
pub const REGEX_MAX_BYTES: usize = 1 << 20;

/// The programs of all formats of one gate together. A match takes as many steps as a program has states for each byte of
/// the answer: with the next limit, a fraction of a second for all of them.
pub const GATE_REGEX_MAX_BYTES: usize = 256 << 10;

/// An answer that has to match a format: what people type into one line, many times over.
pub const FORMATTED_ANSWER_MAX_BYTES: usize = 4 << 10;

/// Different formats of the fields of one pipeline: more than anybody writes, and seconds at most to try them all.
pub const FORMATS_MAX: usize = 200;

/// Steps back in one match, times the bytes that each may look at again: under a second (buildkite.md 15.5).
pub const REGEX_EFFORT_MAX: usize = 1 << 28;

/// A pattern of paths or branches, its alternatives written out.
pub const GLOB_MAX_BYTES: usize = 4 << 10;

/// Braces of a pattern of paths within each other; readers walk them by recursion.
pub const GLOB_DEPTH_MAX: usize = 16;

/// Dependencies of all jobs of one build: wide steps that wait for each other multiply.
pub const EDGES_PER_BUILD_MAX: usize = 50 * JOBS_PER_BUILD_MAX;

/// Options of a select field, and values that are chosen at first.
pub const OPTIONS_MAX: usize = 1_000;

/// Visits of steps while the dependencies of a build are found: what is waited for through merged steps and uploads.
pub const LINK_VISITS_MAX: usize = 20 * EDGES_PER_BUILD_MAX;

/// Commands and variables of all jobs of one build together: it is stored, and held in memory while the build runs.
pub const GRAPH_MAX_BYTES: usize = 64 << 20;

/// A step's key, in characters (buildkite.md 3.3).
pub const STEP_KEY_MAX_CHARS: usize = 100;

/// The reason why a step is skipped, in characters (buildkite.md 23).
pub const SKIP_REASON_MAX_CHARS: usize = 70;

/// Dimensions of a matrix (buildkite.md 23).
pub const MATRIX_DIMENSIONS_MAX: usize = 6;

/// Values of one dimension of a matrix (buildkite.md 23).
pub const MATRIX_VALUES_MAX: usize = 25;

/// A value or a dimension's name of a matrix (buildkite.md 23).
pub const MATRIX_VALUE_MAX_BYTES: usize = 128;

/// Adjustments of a matrix (buildkite.md 23).
pub const MATRIX_ADJUSTMENTS_MAX: usize = 12;

/// Jobs of one matrix (buildkite.md 23).
pub const MATRIX_JOBS_MAX: usize = 50;

/// A concurrency group's name, in characters (buildkite.md 23).
pub const CONCURRENCY_GROUP_MAX_CHARS: usize = 200;

/// Teams that may open one gate (buildkite.md 23).
pub const ALLOWED_TEAMS_MAX: usize = 100;

/// Questions of one gate: more than anybody answers.
pub const FIELDS_MAX: usize = 100;

/// Entries of one `notify`: each may become a delivery with every event.
pub const NOTIFY_LIST_MAX: usize = 100;

/// Plugins of one step: each is fetched and has hooks that run.
pub const PLUGINS_MAX: usize = 100;

/// The least memory a step may ask for: less than this is a number whose unit was forgotten, and no process starts in it.
pub const STEP_MEMORY_MIN_BYTES: u64 = 4 << 20;

/// The most memory a step may ask for: 1 PiB, beyond any machine.
pub const STEP_MEMORY_MAX_BYTES: u64 = 1 << 50;

/// The most processors a step may ask for, in thousandths: beyond any machine.
pub const STEP_CPU_MAX_MILLIS: u64 = 10_000_000;

/// A body of an API request that is not a blob.
pub const BODY_MAX_BYTES: usize = 8 << 20;

/// An idempotency key.
pub const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;

/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_MS: u64 = 24 * 3_600_000;

/// How long finished builds, their logs and events are kept by default.
pub const RETENTION_MS: u64 = 90 * 86_400_000;

/// An agent's certificate (F4).
pub const CERT_LIFE_MS: u64 = 24 * 3_600_000;

/// How long after its end a certificate of a known key may still renew, and nothing else.
pub const CERT_RENEW_GRACE_MS: u64 = 7 * 86_400_000;

/// Between two looks whether a standing connection's certificate has ended: clocks are set, and machines sleep.
pub const CERT_LOOK_MS: u64 = 60_000;

/// How far an agent's clock may stand behind the coordinator's: certificates begin so much earlier.
pub const CERT_SKEW_MS: u64 = 5 * 60_000;

/// A CA's certificate: longer than any fleet keeps its tokens, for the fingerprint in them never changes.
pub const CA_LIFE_MS: u64 = 20 * 365 * 86_400_000;

/// The longest life of a server's certificate that may be asked for: clients refuse longer ones.
pub const SERVER_CERT_LIFE_MAX_MS: u64 = 398 * 86_400_000;

/// The certificate of the coordinator's own servers; it makes a new one at each start and at two thirds of it.
pub const SERVER_CERT_LIFE_MS: u64 = 90 * 86_400_000;

/// A request for a certificate: ours have 200 bytes, and only their key counts.
pub const CSR_MAX_BYTES: usize = 4 << 10;

/// A certificate that is read: two names of 200 bytes, each byte as three, and what stands around them.
pub const CERT_MAX_BYTES: usize = 8 << 10;

/// Certificates of one chain: leaf and CA, and room for two between.
pub const CHAIN_MAX: usize = 4;

/// A document that proves where an agent runs; those of clouds have 2 to 6 KiB (F7).
pub const EVIDENCE_MAX_BYTES: usize = 16 << 10;

/// Agents that a token's page shows, newest first: a token of an image admits any number over the years.
pub const AGENTS_OF_TOKEN_MAX: usize = 10_000;

/// Networks that one join token names: sites and offices, not machines.
pub const CIDRS_PER_TOKEN_MAX: usize = 64;

/// The shortest life of an agent's certificate that may be asked for: renewing takes a moment, and times in certificates
/// are whole seconds.
pub const CERT_LIFE_MIN_MS: u64 = 10_000;

/// The longest pause between two looks at whether a certificate of the coordinator's own servers is due: a machine that
/// slept is on time again after it, and it costs nothing.
pub const SERVER_CERT_CHECK_MS: u64 = 30_000;

/// Between two looks at the operator's certificate files: programs that renew them need not know of us, and wait no
/// longer than for a reload by hand.
pub const TLS_FILES_CHECK_MS: u64 = 10_000;

/// How long a peer that is refused may take to acknowledge why; after it the connection is closed in any case, so that a
/// revoked agent is gone within a second.
pub const REFUSAL_DELIVERY_MS: u64 = 500;

/// The longest pause between two tries to join a fleet (F12).
pub const JOIN_PAUSE_MAX_MS: u64 = 30_000;

/// The first pause between two tries to join; it doubles.
pub const JOIN_PAUSE_MIN_MS: u64 = 250;

/// A join token's default life (F2).
pub const JOIN_TOKEN_MS: u64 = 24 * 3_600_000;

/// Blobs that one existence query may name.
pub const MISSING_MAX_DIGESTS: usize = 10_000;

/// Blobs that one fetch asks for: 32 bytes each, so that the request fits a quarter of a frame.
pub const FETCH_MAX_DIGESTS: usize = 8_000;

/// Symlink targets and path components in a tree.
pub const TREE_NAME_MAX_BYTES: usize = 4_096;

/// Directories within directories in a tree.
pub const TREE_DEPTH_MAX: usize = 256;

/// Entries of one directory in a tree.
pub const TREE_DIR_MAX_ENTRIES: usize = 1_000_000;

/// The largest blob: image layers and archives of builds stay below, and a length that lies is found out early.
pub const BLOB_MAX_BYTES: u64 = 64 << 30;

/// Bytes that a group commit gathers before it hands them to the disk.
pub const COMMIT_BUFFER_BYTES: usize = 1 << 20;

/// Blobs in one pack, as many as one existence query may name.
pub const PACK_MAX_BLOBS: usize = MISSING_MAX_DIGESTS;

/// Bytes of all blobs in one pack: a minute of a slow link; more go into the next pack.
pub const PACK_MAX_BYTES: u64 = 256 << 20;

/// One directory's encoding. A million entries with short names fit; such a blob is held in memory whole.
pub const TREE_DIR_MAX_BYTES: u64 = 128 << 20;

/// Entries of one tree, all directories together.
pub const TREE_MAX_ENTRIES: usize = 4_000_000;

/// Inputs that a shell hands to a core in one turn, so that no source starves timers or the API.
pub const TURN_MAX_INPUTS: usize = 256;

/// Requests that wait for the core; beyond, callers are told to come again (HTTP 503).
pub const CORE_QUEUE_MAX: usize = 4_096;

/// Changes in one commit of the store.
pub const COMMIT_MAX_CHANGES: usize = 50_000;

/// Messages that wait for one agent's control stream at the coordinator; more, and the connection is ended.
pub const CONTROL_OUTBOX_MAX: usize = 4_096;

/// From a connection's handshake to its hello.
pub const HELLO_MS: u64 = 10_000;

/// Handshakes that a coordinator takes through at once; others wait in QUIC's own queue.
pub const HANDSHAKES_MAX: usize = 256;

/// Fetches of blobs that one agent may have open at once.
pub const FETCHES_PER_AGENT_MAX: usize = 16;

/// Fetches of all agents that are being answered at once: each holds a thread for blocking work, of which there are 512.
pub const FETCHES_MAX: usize = 128;

/// An agent that takes nothing of a fetch for this long is not waited for: others want its thread.
pub const FETCH_STALL_MS: u64 = 20_000;

/// Connections without a certificate that are open at once: each lives at most [`HELLO_MS`].
pub const ENROLLING_MAX: usize = 512;

/// HTTP connections at once: watchers mostly.
pub const HTTP_CONNECTIONS_MAX: usize = 8_192;

/// From accepting an HTTP connection to having a request's headers.
pub const HTTP_HEADERS_MS: u64 = 15_000;

/// Between two comments on a quiet event stream: proxies end connections after a minute without a byte, some after 30 s.
pub const HTTP_KEEP_ALIVE_MS: u64 = 15_000;

/// From one piece of an uploaded blob to the next; then the upload is given up.
pub const HTTP_BODY_IDLE_MS: u64 = 30_000;

/// Blobs and packs that are uploaded over HTTP at once; each holds a piece of [`COMMIT_BUFFER_BYTES`] or less.
pub const HTTP_UPLOADS_MAX: usize = 256;

/// Bytes of a blob that are gathered for, or read by, one call on a blocking thread.
pub const HTTP_BLOB_PIECE_BYTES: usize = 256 << 10;

/// Between two looks for builds past their retention.
pub const RETENTION_EVERY_MS: u64 = 60_000;

/// How long the row of an agent that is gone is kept after it was last seen: a quarter, as builds are, which name it.
pub const GONE_AGENTS_MS: u64 = 90 * 86_400_000;

/// How long the row of a token that can do nothing more is kept: as agents' rows and builds, whose makers it names.
pub const PAST_TOKENS_MS: u64 = 90 * 86_400_000;

/// Tokens that one round of retention forgets, in one commit.
pub const TOKENS_FORGOTTEN_MAX: usize = 1_000;

/// How long a line of the audit trail is kept: auditors ask for a year, and come some weeks after its end.
pub const AUDIT_MS: u64 = 400 * 86_400_000;

/// Between two writes of when tokens were last used: one small commit, and all that a crash forgets of it.
pub const LAST_USE_EVERY_MS: u64 = 300_000;

/// How often a submit is compiled again because another build got its number first; each time, one other went through.
pub const NUMBER_TRIES_MAX: u32 = 32;

/// How often a submit is decided again because its pipeline was registered otherwise meanwhile: people change it, and seldom.
pub const REGISTRATION_TRIES_MAX: u32 = 4;

/// Queues that metrics name, those that wait longest first; the rest is one series. Names come from pipelines, so that a
/// client could make as many as it has jobs.
pub const METRIC_QUEUES_MAX: usize = 500;

/// Events that a watcher may lag behind before it is served from the store or the file.
pub const WATCHER_BUFFER_MAX: usize = 1_024;

/// Space that the store holds back, so that running builds can still commit when the disk is full: many thousand
/// results of a few kilobytes each.
pub const STORE_RESERVE_BYTES: u64 = 64 << 20;

/// Free space below which new builds are refused, and beside the reserve below which the reserve is not made again.
pub const STORE_LOW_BYTES: u64 = 32 << 20;

/// Commits after which the write-ahead log is copied back: a few megabytes, so that it stays in the page cache.
pub const CHECKPOINT_COMMITS: u64 = 128;

/// How long a commit waits at most for the write-ahead log to be copied back.
pub const CHECKPOINT_MS: u64 = 2_000;

/// A write-ahead log past this size is started anew, at the price of one short pause of the writer.
pub const WAL_RESTART_BYTES: u64 = 4 << 20;

/// A write-ahead log has this many times its restart size from the beginning, zeroed: a sync of bytes that a file has already
/// costs a third of one that makes it longer. It grows by some 40 KB a commit at most until the next look at it.
pub const WAL_BYTES_FACTOR: u64 = 4;

/// A write-ahead log past this many times its restart size, which a reader kept from restarting, is cut.
pub const WAL_CUT_FACTOR: u64 = 16;

/// How long SQLite waits for a lock that another connection of ours holds: longer than any checkpoint takes.
pub const STORE_BUSY_MS: u64 = 10_000;

/// Connections that read history at once: readers are bound by the disk, not by their number.
pub const HISTORY_READERS_MAX: usize = 4;

/// Items of one page of a list.
pub const PAGE_MAX_ITEMS: usize = 500;

/// Rows that one piece of retention deletes beyond its first build, so that commits do not wait long behind it.
pub const EXPIRE_ROWS_MAX: usize = 5_000;

/// Beats in flight without an answer; one more, and the agent takes the connection for dead and dials anew.
pub const BEATS_UNANSWERED_MAX: usize = 4;

/// From an agent's hello to its welcome; a coordinator that loads a full store needs seconds.
pub const HELLO_ANSWER_MS: u64 = 15_000;

/// From the end of a pause to a connection or its failure, by the agent's core; the link's own handshake limit is shorter.
pub const DIAL_MS: u64 = 20_000;

/// The first ceiling of an agent's pause before it dials again; it doubles (F12).
pub const RECONNECT_MIN_MS: u64 = 100;

/// The last ceiling of an agent's pause before it dials again (F12).
pub const RECONNECT_MAX_MS: u64 = 30_000;

/// What a coordinator grants everyone to come back after its own restart, if a lease is shorter: the longest pause
/// between two tries, and one try.
pub const RESTART_GRACE_MS: u64 = RECONNECT_MAX_MS + DIAL_MS;

/// Within this long of the first, a second signal cancels and a third ends at once (F19).
pub const SIGNAL_LADDER_MS: u64 = 600_000;

/// How long an agent that ends at once still sends results and logs (F19).
pub const QUIT_FLUSH_MS: u64 = 5_000;

/// From a kill to its verification; later, the agent says that it cannot kill and takes nothing more (F26).
pub const KILL_VERIFY_MS: u64 = 10_000;

/// Ended attempts whose epochs an agent remembers, so that a late repetition of an offer starts nothing.
pub const ENDED_REMEMBERED_MAX: usize = 1_024;

/// A connection on which nothing was heard for this long is given up: two keep-alives and some may be lost.
pub const LINK_IDLE_MS: u32 = 20_000;

/// How often a quiet connection is kept alive; also keeps the state of firewalls on the way.
pub const LINK_KEEP_ALIVE_MS: u64 = 6_000;

/// A handshake, both ways; a slow link between continents needs one second.
pub const LINK_HANDSHAKE_MS: u64 = 10_000;

/// Handshakes that wait to be taken up; beyond, packets are dropped and clients try again.
pub const LINK_INCOMING_MAX: usize = 4_096;

/// Bytes in flight on one connection: 300 MB/s over 100 ms.
pub const LINK_WINDOW_BYTES: u32 = 32 << 20;

/// Bytes in flight on one stream: one stream may use half of its connection.
pub const LINK_STREAM_WINDOW_BYTES: u32 = 16 << 20;

/// Bytes in flight from somebody who is not known yet: one request to join.
pub const LINK_ENROL_WINDOW_BYTES: u32 = 64 << 10;

/// Streams of each kind at once on one connection: a log for each slot, twice.
pub const LINK_STREAMS_MAX: u32 = 1_024;

/// A receiver acknowledges after so many packets. Medians on loopback: 897 MB/s with every second packet, 922 with 10,
/// 822 with 24, 287 with BBR; between continents fewer acknowledgements spare the way back.
pub const LINK_ACK_EVERY: u32 = 10;

/// The largest packet that is tried for: Ethernet's 1,500 less the headers of IPv6 and UDP.
pub const LINK_MTU_MAX_BYTES: u16 = 1_452;

/// The kernel's buffers of a UDP socket: some 20 ms at 300 MB/s.
pub const LINK_SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// A blob is read from disk in such pieces.
pub const LINK_BLOB_PIECE_BYTES: usize = 256 << 10;

/// Answers and messages that wait for one commit: behind a slow disk, callers wait at the core's door instead.
pub const BATCH_MAX_HELD: usize = 4 * CORE_QUEUE_MAX;

/// Turns in a row that due timers wait for agents' messages that are already here: the whole queue once, so that no agent
/// is called lost while its beat stands in it, after a disk that stood still.
pub const TIMER_DEFER_TURNS: usize = CORE_QUEUE_MAX / (TURN_MAX_INPUTS / 2);

/// The longest sleep between two looks at the clock: timers of the runtime do not count suspend, ours do.
pub const CLOCK_CHECK_MS: u64 = 1_000;

/// Before the first try to load again after a commit failed; it doubles with every further failure.
pub const RELOAD_PAUSE_MIN_MS: u64 = 100;

/// The longest pause between two tries to load again.
pub const RELOAD_PAUSE_MAX_MS: u64 = 10_000;

/// Between two looks at the free space, beside that of every commit: so old may be what a submit is decided by.
pub const SPACE_PROBE_MS: u64 = 1_000;

/// From dialling an API to a connection; a slow link between continents needs one second.
pub const API_CONNECT_MS: u64 = 10_000;

/// The answer to one request of a client; a submit behind a slow disk takes seconds.
pub const API_ANSWER_MS: u64 = 60_000;

/// A stream on which a client hears nothing for this long, comments included, is made anew.
pub const API_STREAM_SILENT_MS: u64 = 60_000;

/// The first pause of a client before it asks again; it doubles.
pub const API_RETRY_MIN_MS: u64 = 50;

/// The longest pause of a client before it asks again: a person who watches a restart waits no longer than this.
pub const API_RETRY_MAX_MS: u64 = 2_000;

/// How long a client waits for a coordinator that restarts: an upgrade with a migration has time.
pub const API_PATIENCE_MS: u64 = 120_000;

/// One Server-Sent Event: the snapshot of a build with the most jobs, some KiB each.
pub const API_EVENT_MAX_BYTES: usize = 64 << 20;

/// Logs that one client follows at once, each with a connection of its own; others wait their turn.
pub const CLI_LOGS_MAX: usize = 64;

/// News of a build that wait to be shown; a terminal that is slower makes the streams wait.
pub const CLI_NEWS_MAX: usize = 256;

/// An unfinished line that is held back until its end comes; a longer one is shown in pieces.
pub const CLI_LINE_MAX_BYTES: usize = 64 << 10;

/// One body of an upload, held in memory: large enough that round trips do not count, small enough to be sent again.
pub const CLI_PACK_BYTES: u64 = 16 << 20;

/// How often a directory that changes while it is read is read again.
pub const CLI_SNAPSHOT_TRIES: u32 = 5;

/// How long a run waits for another's server that starts or ends beside it.
pub const CLI_ATTACH_MS: u64 = 60_000;

/// How long a read waits until what it saw is published; longer means that the loop stands still.
pub const PUBLISH_WAIT_MS: u64 = 5_000;

/// One frame between an agent and the command in a job: its hello carries arguments and environment, to which the kernel
/// gives 2 MiB of an ordinary stack.
pub const HANDS_FRAME_MAX_BYTES: usize = (2 << 20) + (64 << 10);

/// Arguments, and variables, of one call: a glob that a shell expanded over a large tree.
pub const HANDS_ARGUMENTS_MAX: usize = 64 << 10;

/// Bytes that are read or written by one operation of the command in a job: large enough that round trips do not count.
pub const HANDS_CHUNK_BYTES: usize = 256 << 10;

/// A path in an operation of the command in a job: the kernel's own limit.
pub const HANDS_PATH_MAX_BYTES: usize = 4_096;

/// Directory entries in one answer of the command in a job: with the longest names, a quarter of a frame.
pub const HANDS_ENTRIES_MAX: usize = 1_024;

/// Files and directories that the command in a job holds open: one for each level of a walk, and a few files.
pub const HANDS_HANDLES_MAX: usize = TREE_DEPTH_MAX + 64;

/// Tries of what a checkout has from the network, before it has failed: the longest wait together is half a minute.
pub const CHECKOUT_TRIES_MAX: u32 = 6;

/// How long a job waits for a mirror or a plugin that another one fetches (the reference's `git-mirrors-lock-timeout`).
pub const GIT_LOCK_MS: u64 = 300_000;

/// Before a checkout's second try; doubled before each further one.
pub const CHECKOUT_WAIT_MS: u64 = 1_000;

/// How long a command in a job waits for an agent that is away, being upgraded.
pub const HANDS_PATIENCE_MS: u64 = 60_000;

/// Between two tries of a command in a job to reach its agent.
pub const HANDS_RETRY_MS: u64 = 200;

/// Commands of one job that its agent serves at once, those that wait for a lock included; others wait at its door.
pub const JOB_CONNECTIONS_MAX: usize = 64;

/// Connections that wait at a place's door when it is given to its next attempt: more than the kernel keeps waiting.
pub const JOB_BACKLOG_MAX: usize = 65_536;

/// What all commands of one job may hold of their agent's memory at once: what they were called with, what they have read, and
/// lists of files. The largest call takes a third, and an ordinary one a five-hundredth.
pub const JOB_CALLS_MAX_BYTES: usize = 64 << 20;

/// How long a command waits for the job's others to give memory back; less than it has to say how it was called.
pub const JOB_ROOM_MS: u64 = 5_000;

/// One answer of the command in a job: [`HANDS_CHUNK_BYTES`], or [`HANDS_ENTRIES_MAX`] with the longest names.
pub const HANDS_ANSWER_MAX_BYTES: usize = 512 << 10;

/// From a connection of a job to how it was called; the program says it at once.
pub const JOB_HELLO_MS: u64 = 10_000;

/// What one command in a job reads whole: an input of variables or of values to mask, as JSON.
pub const JOB_INPUT_MAX_BYTES: usize = 4 << 20;

/// Patterns of names whose values a job has masked, in one call; people write the reference's dozen.
pub const REDACTED_VARS_MAX: usize = 100;

/// Looks at bytes that matching such patterns may take in one call: some tenths of a second.
pub const REDACTED_VARS_EFFORT_MAX: usize = 64 << 20;

/// What a command says beside its result about files that it leaves out; the others are counted.
pub const ARTIFACT_NOTES_MAX: usize = 100;

/// A value that a job has masked; as JSON, at worst six bytes for one, it fits a supervisor's line.
pub const REDACTION_MAX_BYTES: usize = 32 << 10;

/// How long an agent waits for a supervisor's word that a value is masked, before it asks again.
pub const MASK_ANSWER_MS: u64 = 5_000;

/// Locks that jobs of one agent hold at once, or have marked as done.
pub const LOCKS_MAX: usize = 10_000;

/// Those of them that are one job's: as many as it could name, and no more than others can do without.
pub const LOCKS_PER_JOB_MAX: usize = 1_000;

/// A lock's key.
pub const LOCK_KEY_MAX_BYTES: usize = 1_024;

/// A key of a build's meta-data: names that people write are a tenth of it.
pub const META_DATA_KEY_MAX_BYTES: usize = 1 << 10;

/// A value of a build's meta-data (buildkite.md 23).
pub const META_DATA_VALUE_MAX_BYTES: usize = 100 << 10;

/// Keys of a build's meta-data: one for each job of a large build.
pub const META_DATA_KEYS_MAX: usize = 10_000;

/// A build's meta-data in all: it stands in the build's row, which is written with each change of the build, and all of its
/// keys are one answer to a job.
pub const META_DATA_MAX_BYTES: usize = 768 << 10;

/// Jobs of one upload (buildkite.md 23).
pub const UPLOAD_JOBS_MAX: usize = 500;

/// Uploads of one build (buildkite.md 23).
pub const UPLOADS_PER_BUILD_MAX: usize = 500;

const _: () = assert!(3 * BEAT_MS < LEASE_DEFAULT_MS, "an agent is suspect before it is lost");
const _: () = assert!(LEASE_MIN_MS <= LEASE_DEFAULT_MS && LEASE_DEFAULT_MS <= LEASE_MAX_MS);
const _: () = assert!(COMMAND_MAX_BYTES + ENV_MAX_BYTES < FRAME_MAX_BYTES as usize / 2 * 2, "an offer fits in a frame");
const _: () = assert!(LOG_CHUNK_MAX_BYTES < FRAME_MAX_BYTES as usize, "a log chunk fits in a frame");
const _: () = assert!(JOBS_PER_BUILD_MAX * 3 < COMMIT_MAX_CHANGES, "a submit fits in a commit");
const _: () = assert!(TOKENS_MAX * 2 < COMMIT_MAX_CHANGES, "the uses of all tokens fit in a commit");
const _: () = assert!(LOG_QUEUE_PER_LOG_MAX_BYTES as usize >= LOG_CHUNK_MAX_BYTES, "a chunk fits in its log's share");
const _: () = assert!(LOG_QUEUE_PER_LOG_MAX_BYTES < LOG_QUEUE_MAX_BYTES, "no log fills the queue alone");
const _: () = assert!(LOG_COMMIT_MAX_BYTES as u64 * 2 <= LOG_SEGMENT_BYTES, "a commit fits in a segment");
const _: () = assert!(LINK_KEEP_ALIVE_MS * 3 < LINK_IDLE_MS as u64, "two lost keep-alives end no connection");
const _: () = assert!(SLOTS_MAX * 2 <= LINK_STREAMS_MAX, "each slot's log has a stream, and the one before it too");
const _: () =
    assert!(EVIDENCE_MAX_BYTES + CSR_MAX_BYTES < LINK_ENROL_WINDOW_BYTES as usize / 2, "a request to join fits");
const _: () = assert!(
    ARTIFACTS_FOUND_MAX * (TREE_NAME_MAX_BYTES + URL_MAX_BYTES + NAME_MAX_BYTES + 256) < FRAME_MAX_BYTES as usize,
    "an answer with the longest paths fits a frame"
);
const _: () = assert!(STORE_MAX_BLOBS * 48 < FRAME_MAX_BYTES as usize, "an offer of blobs fits a frame");
const _: () = assert!(HANDS_ENTRIES_MAX * 264 < HANDS_FRAME_MAX_BYTES, "an answer with the longest names fits a frame");
const _: () =
    assert!(HANDS_ENTRIES_MAX * 264 < HANDS_ANSWER_MAX_BYTES && HANDS_CHUNK_BYTES * 2 <= HANDS_ANSWER_MAX_BYTES);
const _: () = assert!(META_DATA_MAX_BYTES + META_DATA_KEYS_MAX * 16 < FRAME_MAX_BYTES as usize, "all keys fit a frame");
const _: () = assert!(JOB_ROOM_MS < JOB_HELLO_MS, "a command that finds no room is told so");
const _: () = assert!(REDACTION_MAX_BYTES * 6 + 1_024 < SUPERVISOR_LINE_MAX_BYTES, "a value to mask fits a line");

/// What is kept of what git says on its errors: the first lines say what is wrong, and a server may send any number of them.
pub const GIT_SAID_MAX_BYTES: u64 = 64 << 10;

/// Secrets of a coordinator: all of them are in its memory, sealed.
pub const SECRETS_MAX: usize = 10_000;

/// A secret's value: what can be masked at once, and lies in an environment beside others.
pub const SECRET_MAX_BYTES: usize = REDACTION_MAX_BYTES;

/// Values of one answer to a job that asks for secrets; they fit a frame with room for its form.
pub const SECRETS_ANSWER_MAX_BYTES: usize = 512 << 10;

/// Keys of one request for secrets.
pub const SECRETS_PER_ASK_MAX: usize = 100;

/// A client's wait for a pipeline's text out of its repository: longer than any fetch of what changed, shorter than a
/// proxy's patience. A first fetch that takes longer goes on without the client, who asks again.
pub const DEFINITION_WAIT_MS: u64 = 60_000;

/// Those that wait for texts out of repositories: each holds a request and a task. More are told to come again.
pub const DEFINITION_READERS_MAX: usize = 64;
