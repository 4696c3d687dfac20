//! Bounds of a blob store's bucket: what is asked of it at a time, for how long, and what is kept of its answers.

/// One part of an upload: S3 takes none shorter but the last, and ten thousand of them are more than the largest blob.
pub const ORIGIN_PART_BYTES: usize = 8 << 20;

/// What one range asks for at most: a fifth of a second of a slow link, and one request for some thirty chunks.
pub const ORIGIN_RANGE_MAX_BYTES: u64 = 4 << 20;

/// Frames that lie no further apart than this are fetched in one range: what is between costs less than a request.
pub const ORIGIN_GAP_MAX_BYTES: u64 = 64 << 10;

/// What is fetched around a small blob: those of one tree were stored together, and are asked for together.
pub const ORIGIN_BLOCK_BYTES: u64 = 256 << 10;

/// Ranges that are kept in memory: sixteen of the longest.
pub const ORIGIN_CACHE_BYTES: u64 = 64 << 20;

/// What is copied at a time before others have their turn.
pub const ORIGIN_TICK_BYTES: u64 = 64 << 20;

/// Objects that are deleted at a time.
pub const ORIGIN_TICK_DELETES: usize = 256;

/// Between two looks at what is to be copied, where there is more.
pub const ORIGIN_MORE_MS: u64 = 100;

/// Between two looks where there was nothing, or the bucket did not answer.
pub const ORIGIN_EVERY_MS: u64 = 15_000;

/// What one answer of a listing holds: what S3 gives at once.
pub const ORIGIN_LIST_MAX: usize = 1_000;

/// Objects of one store that are known: their table takes a hundred bytes each, and a chunk file holds a whole upload.
pub const ORIGIN_OBJECTS_MAX: usize = 4_000_000;

/// For a connection to the bucket.
pub const ORIGIN_CONNECT_MS: u64 = 5_000;

/// For one request, its answer included: 8 MiB at half a megabyte a second.
pub const ORIGIN_REQUEST_MS: u64 = 20_000;

/// How often a request is tried again, with growing pauses drawn at random.
pub const ORIGIN_RETRIES: usize = 3;

/// When a request and all that is tried again of it ends: somebody may wait for it.
pub const ORIGIN_DEADLINE_MS: u64 = 45_000;

/// For how long nobody asks a bucket that did not answer.
pub const ORIGIN_PAUSE_MS: u64 = 2_000;

/// The same, of one that has not answered for long.
pub const ORIGIN_PAUSE_MAX_MS: u64 = 60_000;

/// A segment in the bucket is written anew once no more than one part in so many counts: what counts has to be fetched for it.
pub const ORIGIN_LIVE_SHARE: u64 = 4;

/// What is freed below the size of the disk that a store was given, as a part of it: room for a while.
pub const ORIGIN_SLACK_SHARE: u64 = 16;

/// A journal is written anew when it has so many times the records that count.
pub const ORIGIN_JOURNAL_SHARE: u64 = 4;

/// A journal shorter than this is left as it is.
pub const ORIGIN_JOURNAL_MIN_BYTES: u64 = 64 << 10;

/// What is kept of a server's words about a request that it did not do: a line of a log.
pub const ORIGIN_WHY_MAX_BYTES: usize = 400;

/// What stays of the cache on the disk of a coordinator with a bucket, where nobody says.
pub const ORIGIN_DISK_BYTES: u64 = 20 << 30;

/// What is read of a file with keys or certificates.
pub const ORIGIN_CREDENTIALS_MAX_BYTES: u64 = 1 << 20;
