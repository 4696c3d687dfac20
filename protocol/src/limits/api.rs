//! Bounds of the HTTP API.

/// A body of an API request that is not a blob.
pub const BODY_MAX_BYTES: usize = 8 << 20;

/// An idempotency key.
pub const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;

/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_MS: u64 = 24 * 3_600_000;

/// HTTP connections at once: watchers mostly.
pub const HTTP_CONNECTIONS_MAX: usize = 8_192;

/// From accepting an HTTP connection to having a request's headers.
pub const HTTP_HEADERS_MS: u64 = 15_000;

/// Between two comments on a quiet event stream: proxies end connections after a minute without a byte, some after 30 s.
pub const HTTP_KEEP_ALIVE_MS: u64 = 15_000;

/// From one piece of an uploaded blob to the next; then the upload is given up.
pub const HTTP_BODY_IDLE_MS: u64 = 30_000;

/// Blobs and packs that are uploaded over HTTP at once; each holds a piece of
/// [`COMMIT_BUFFER_BYTES`](super::COMMIT_BUFFER_BYTES) or less.
pub const HTTP_UPLOADS_MAX: usize = 256;

/// Bytes of a blob that are gathered for, or read by, one call on a blocking thread.
pub const HTTP_BLOB_PIECE_BYTES: usize = 256 << 10;

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

/// The last moment that RFC 3339 can name, in milliseconds since 1970: the end of the year 9999.
pub const TIME_LAST_MS: u64 = 253_402_300_799_999;
