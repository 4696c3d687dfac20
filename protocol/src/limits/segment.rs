//! Bounds of the blob store's segments, and of what keeps them small.

use super::COMMIT_BUFFER_BYTES;

/// A segment of the blob store: few enough files to keep open, small enough to rewrite in a second.
pub const SEGMENT_MAX_BYTES: u64 = 256 << 20;

/// The longest segment, whatever a store is told: places in it are kept in four bytes, and a manifest may come on top.
pub const SEGMENT_LENGTH_MAX_BYTES: u64 = 3 << 30;

/// A segment is written anew once one part in so many of it counts no more: on disk is at most a third more than what counts,
/// and what comes back costs three times as many bytes at worst.
pub const COMPACT_DEAD_SHARE: u64 = 4;

/// What of a segment is written anew under one lock and with one sync; whoever lets go of blobs waits for as long.
pub const COMPACT_PIECE_BYTES: u64 = 4 << 20;

/// What the coordinator looks through at a time: a fifth of a second of a slow disk.
pub const COMPACT_TICK_BYTES: u64 = 16 << 20;

/// Between two such looks where there is more to give back: a third of the disk at most is used for it.
pub const COMPACT_MORE_MS: u64 = 500;

/// Between two looks where there was nothing.
pub const COMPACT_EVERY_MS: u64 = 60_000;

/// A blob up to this size goes into a segment; larger ones are cut into chunks, where a file and its sync cost little beside
/// them.
pub const BLOB_SMALL_MAX_BYTES: usize = 64 << 10;

const _: () = assert!(COMPACT_PIECE_BYTES >= COMMIT_BUFFER_BYTES as u64, "a piece is worth a sync");
