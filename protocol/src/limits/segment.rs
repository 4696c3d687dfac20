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

/// A copy of the table is worth writing after so many records: reading them takes half a second at the next start.
pub const COPY_AFTER_RECORDS: u64 = 1 << 18;

/// And after so many bytes that were appended or given back: a segment's worth, which a disk reads in half a second.
pub const COPY_AFTER_BYTES: u64 = 256 << 20;

/// But not before one part in so many of its own length was: of what a large table costs again and again this is the bound.
pub const COPY_SHARE: u64 = 16;

/// Between two looks of an agent whether a copy is worth writing: a copy takes a second or two of a disk.
pub const COPY_EVERY_MS: u64 = 60_000;

/// What of a copy is written before it is synced: others' syncs wait for no more than that.
pub const COPY_PIECE_BYTES: u64 = 8 << 20;

/// Blocks of a copy, each with its checksum, are about so long.
pub const COPY_BLOCK_BYTES: usize = 1 << 20;

/// No block of a copy is longer: what is reserved on the word of one that is read.
pub const COPY_BLOCK_MAX_BYTES: usize = 4 << 20;

/// Rows that change while a copy is written are kept as they were, so many of them: some 90 bytes each. Where more change the copy
/// is given up.
pub const COPY_KEPT_MAX: usize = 500_000;

/// Stale records that are copied under one lock: a millisecond.
pub const COPY_STALE_PIECE: usize = 1 << 16;

/// Segments of which a copy knows lie no further apart: four bytes for each number between are needed to look them up.
pub const COPY_SEGMENTS_SPAN_MAX: u32 = 1 << 22;

/// How many threads find the rows of a copy again: more wait for memory.
pub const COPY_LINK_THREADS: usize = 4;

const _: () = assert!(COPY_BLOCK_BYTES <= COPY_BLOCK_MAX_BYTES / 2, "what is written is read");
