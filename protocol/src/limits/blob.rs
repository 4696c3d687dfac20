//! Bounds of blobs, and of questions about many.

/// Blobs that one existence query may name.
pub const MISSING_MAX_DIGESTS: usize = 10_000;

/// Blobs that one fetch asks for: 32 bytes each, so that the request fits a quarter of a frame.
pub const FETCH_MAX_DIGESTS: usize = 8_000;

/// The largest blob: image layers and archives of builds stay below, and a length that lies is found out early.
pub const BLOB_MAX_BYTES: u64 = 64 << 30;

/// Bytes that a group commit gathers before it hands them to the disk.
pub const COMMIT_BUFFER_BYTES: usize = 1 << 20;

/// Blobs in one pack, as many as one existence query may name.
pub const PACK_MAX_BLOBS: usize = MISSING_MAX_DIGESTS;

/// Bytes of all blobs in one pack: a minute of a slow link; more go into the next pack.
pub const PACK_MAX_BYTES: u64 = 256 << 20;
