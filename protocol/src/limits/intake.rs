//! Bounds of what the blob store takes in, and of what it promises about it.

use super::{BLOB_MAX_BYTES, CHUNK_MAX_BYTES, DISK_REFUSE_BYTES, FETCHES_MAX, HTTP_UPLOADS_MAX};

/// Free space that blobs leave to everything else on their disk: logs, commits and jobs go on in it for a while.
pub const CACHE_FLOOR_BYTES: u64 = 256 << 20;

/// On a small disk the floor is this part of it, as that below which an agent takes no work, so that a store of a test or of a small
/// machine takes anything at all.
pub const CACHE_FLOOR_PART: u64 = 20;

/// Free space that an agent's cache leaves to everything else on its disk: below it the agent would take no work
/// ([`DISK_REFUSE_BYTES`]), with a full cache and nobody to use it.
pub const AGENT_FLOOR_BYTES: u64 = DISK_REFUSE_BYTES;

/// What an agent's cache lets go of at a time while others fill its disk: a moment's work, and few passes over the table.
pub const FLOOR_PIECE_BYTES: u64 = 1 << 30;

/// A segment that grows goes too where it has this much: a smaller one would be written anew for nothing.
pub const FLOOR_SEGMENT_MIN_BYTES: u64 = 1 << 20;

/// What the fastest disk of an agent takes in a millisecond: the room above the floor lasts at least so long, and nobody looks at it
/// before.
pub const FLOOR_FILL_BYTES_PER_MS: u64 = 4 << 20;

/// Between two looks at the room that an agent's cache leaves, where there is next to none.
pub const FLOOR_LOOK_MIN_MS: u64 = 50;

/// Between two looks where there is plenty, and between two tries that gave back nothing.
pub const FLOOR_LOOK_MAX_MS: u64 = 10_000;

/// Times that blobs of a tree are brought again that went while others came: an agent whose disk is filled as fast as they come
/// says so.
pub const FETCH_ROUNDS_MAX: usize = 4;

/// What an upload of unknown length reserves at a time: few looks at the disk, and no more held back than a moment writes.
pub const SPACE_STEP_BYTES: u64 = 8 << 20;

/// What is reserved for a small blob beside its bytes: its record's header, and that of its namespace.
pub const SPACE_RECORD_BYTES: u64 = 1_024;

/// Blobs up to this are sent again whole after a broken connection: a second of a slow link.
pub const RESUMABLE_MIN_BYTES: u64 = 8 << 20;

/// Uploads of one owner that wait to be gone on with: a client sends a few at a time. The one that was left longest goes for
/// another.
pub const UPLOADS_PER_OWNER_MAX: usize = 16;

/// Uploads of everybody that wait to be gone on with: each may hold a chunk or two in memory, half a megabyte.
pub const UPLOADS_MAX: usize = 256;

/// Bytes that the uploads of one owner are announced to have: two of the largest blobs.
pub const UPLOADS_PER_OWNER_MAX_BYTES: u64 = 2 * BLOB_MAX_BYTES;

/// The same of everybody.
pub const UPLOADS_MAX_BYTES: u64 = 16 * BLOB_MAX_BYTES;

/// What an upload writes before the disk is told to keep it, beside what comes next: its end waits for little more than this, and
/// small ones cost one sync as before.
pub const UPLOAD_SYNC_BYTES: u64 = 32 << 20;

/// How long an upload waits to be gone on with: a laptop that was closed in the evening goes on in the morning.
pub const UPLOAD_IDLE_MS: u64 = 16 * 3_600_000;

/// Chunks after which an upload notes what it has: a killed process loses 8 MiB of it.
pub const UPLOAD_NOTE_CHUNKS: usize = 64;

/// How long whoever goes on with an upload waits for the connection before his to let go of it.
pub const UPLOAD_HANDOVER_MS: u64 = 10_000;

/// Of the uploads over HTTP that are taken at once, those of tokens that are not trusted: a client may hold back its bytes.
pub const HTTP_UPLOADS_UNTRUSTED_MAX: usize = 192;

/// Of the fetches that are answered at once, those of agents that run what is not trusted: one may take nothing for a while.
pub const FETCHES_UNTRUSTED_MAX: usize = 96;

/// A step of the wall's clock that is no correction: whoever keeps time is off by seconds.
pub const CLOCK_LEAP_MS: u64 = 3_600_000;

/// How long nothing goes by its age after one: somebody sees it within a working day.
pub const CLOCK_LEAP_REST_MS: u64 = 86_400_000;

/// Damaged blobs and segments that a check names; it counts the others. Their names come to half a megabyte.
pub const VERIFY_NAMED_MAX: usize = 10_000;

/// What a check of a store that serves reads in a second: a tenth of an ordinary disk, so that builds do not feel it.
pub const VERIFY_BYTES_PER_SECOND: u64 = 64 << 20;

const _: () = assert!(HTTP_UPLOADS_UNTRUSTED_MAX < HTTP_UPLOADS_MAX && FETCHES_UNTRUSTED_MAX < FETCHES_MAX);
const _: () = assert!(SPACE_STEP_BYTES > CHUNK_MAX_BYTES as u64 && RESUMABLE_MIN_BYTES < BLOB_MAX_BYTES);

/// So many times of what its policy lets it keep an overlay may have between two sweeps, which spare what was promised: beyond, it
/// takes nothing more.
pub const OVERLAY_BYTES_FACTOR: u64 = 2;
