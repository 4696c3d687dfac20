//! Bounds of what large blobs are cut into.

use super::BLOB_MAX_BYTES;

/// How long the chunks of a large blob are on average, a power of two: measured against 64 to 512 KiB (docs/design/029).
pub const CHUNK_AVERAGE_BYTES: usize = 128 << 10;

/// The longest chunk that a store takes, whatever it cuts at: what a reader holds in memory, plain, and once more as stored.
pub const CHUNK_MAX_BYTES: usize = 2 << 20;

/// Chunks of one blob: the largest blob, cut everywhere at the least length, a quarter of [`CHUNK_AVERAGE_BYTES`], and what an
/// archive has beyond that. Its manifest has 98 MB.
pub const MANIFEST_MAX_CHUNKS: usize = (2 << 20) + 1 + ARCHIVE_MORE_CHUNKS;

/// Chunks that an archive has beyond those of a blob of its length, cut at the least; from there on it is cut as any blob. The
/// headers of two million files come to it.
pub const ARCHIVE_MORE_CHUNKS: usize = 256 << 10;

/// How many times an archive's manifest says that bytes go on with another kind: some four for each file, so half a million files.
/// What follows is cut as one file.
pub const ARCHIVE_MAX_RUNS: usize = 2 << 20;

/// Headers of an archive that are cut apart from its files: past half a million of them it is no archive that anybody keeps.
pub const TAR_HEADS_MAX_BYTES: u64 = 1 << 30;

/// The longest pax header, or long name, that is read: it is held in memory until it is whole.
pub const TAR_NOTES_MAX_BYTES: u64 = 64 << 10;

/// Files of an archive from this length on begin a chunk of their own: what is in front of one then moves none of its cuts.
pub const ARCHIVE_APART_BYTES: u64 = CHUNK_AVERAGE_BYTES as u64;

/// How many times shorter than others the chunks of headers are: whoever changes one file sends few of its neighbours' headers.
pub const ARCHIVE_HEADS_PART: usize = 8;

/// Files of chunks that one reader of a blob keeps open: a blob whose versions share much is spread over a few.
pub const CHUNK_FILES_OPEN_MAX: usize = 8;

const _: () = assert!(
    MANIFEST_MAX_CHUNKS as u64 > BLOB_MAX_BYTES / (CHUNK_AVERAGE_BYTES as u64 / 4),
    "every blob has a manifest however it is cut"
);

/// What a manifest says of how the chunks of an archive are put together: for each run a length of up to 64 GiB, seven bits a byte.
pub const ARCHIVE_MAX_BYTES: usize = 8 + 6 * ARCHIVE_MAX_RUNS;

/// The encoded manifest of the largest blob, cut as finely as can be.
pub const MANIFEST_MAX_BYTES: usize = 88 + 36 * MANIFEST_MAX_CHUNKS + ARCHIVE_MAX_BYTES;
