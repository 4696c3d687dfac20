//! Bounds of what large blobs are cut into.

use super::BLOB_MAX_BYTES;

/// How long the chunks of a large blob are on average, a power of two: measured against 64 to 512 KiB (docs/design/029).
pub const CHUNK_AVERAGE_BYTES: usize = 128 << 10;

/// The longest chunk that a store takes, whatever it cuts at: what a reader holds in memory, plain, and once more as stored.
pub const CHUNK_MAX_BYTES: usize = 2 << 20;

/// Chunks of one blob: the largest blob, cut everywhere at the least length, a quarter of [`CHUNK_AVERAGE_BYTES`]. Its manifest
/// has 75 MB.
pub const MANIFEST_MAX_CHUNKS: usize = (2 << 20) + 1;

/// Files of chunks that one reader of a blob keeps open: a blob whose versions share much is spread over a few.
pub const CHUNK_FILES_OPEN_MAX: usize = 8;

const _: () = assert!(
    MANIFEST_MAX_CHUNKS as u64 > BLOB_MAX_BYTES / (CHUNK_AVERAGE_BYTES as u64 / 4),
    "every blob has a manifest however it is cut"
);

/// The encoded manifest of the largest blob, cut as finely as can be.
pub const MANIFEST_MAX_BYTES: usize = 88 + 36 * MANIFEST_MAX_CHUNKS;
