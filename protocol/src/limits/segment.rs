//! Bounds of the blob store's segments, and of what keeps them, and the store, small.

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

/// What somebody was told is there stays for so long: a client looks, uploads what is missing, and submits.
pub const PROMISE_MS: u64 = 3_600_000;

/// The same in an agent's cache, whose cap is small: what was found is laid out in seconds, and what goes is fetched again.
pub const PROMISE_LAZY_MS: u64 = 30_000;

/// Between two marks of time in the order of uses: how exactly it is known when a blob was used.
pub const EPOCH_MS: u64 = 5_000;

/// Such marks, 16 bytes each: minutes exactly, and years to a 64th.
pub const EPOCHS_MAX: usize = 4_096;

/// Where there are more they are thinned: between two lies at most such a part of how far they are back.
pub const EPOCH_PARTS: u64 = 64;

/// How long a lazy store that could not get below its cap for what it had promised refuses without looking again.
pub const REFUSE_MS: u64 = 1_000;

/// Rows of the table that a sweep looks at under one lock: a millisecond in which nothing new becomes visible.
pub const SWEEP_ROWS: usize = 4_096;

/// Rows between two looks at whether enough is chosen to go.
pub const SWEEP_LOOK_ROWS: usize = 16;

/// Blobs that a sweep lets go of in one commit: for as long nobody can put.
pub const SWEEP_RELEASE_MAX: usize = 256;

/// Of those, large ones, whose files are removed meanwhile.
pub const SWEEP_RELEASE_LARGE_MAX: usize = 16;

/// Namespaces past their bytes that one sweep sees to, two kilobytes of memory each; the next sweep sees to more.
pub const SWEEP_OVER_MAX: usize = 4_096;

/// Parts into which the order of uses is cut to find what of a namespace was used longest ago.
pub const SWEEP_PARTS: usize = 256;

/// Directories that live builds name: 100 bytes of memory each. With more of them nothing is let go.
pub const SWEEP_DIRECTORIES_MAX: usize = 4_000_000;

/// Jobs that are looked through at once for what they need of the cache: the core does nothing else for about a millisecond.
pub const ROOTS_PAGE_JOBS: usize = 10_000;

/// Between two sweeps by policy.
pub const SWEEP_EVERY_MS: u64 = 3_600_000;

/// Between two pieces of a sweep: others come first.
pub const SWEEP_PAUSE_MS: u64 = 5;

/// Namespaces that a sweep's report names, those that lost most first.
pub const SWEEP_TOLD_MAX: usize = 1_000;

/// Namespaces that statistics name, those with most bytes.
pub const CACHE_LARGEST_TOLD: usize = 20;

/// Bytes that a project's trusted builds may have of sources and of what keys are made of; what they keep on purpose (artifacts,
/// caches, results) has bounds of its own.
pub const POLICY_TRUSTED_BYTES: u64 = 100 << 30;

/// The same of one overlay: a pull request's, a laptop's.
pub const POLICY_OVERLAY_BYTES: u64 = 10 << 30;

/// How long of that what no trusted build used stays: as long as results that nobody uses.
pub const POLICY_TRUSTED_MS: u64 = 30 * 86_400_000;

/// The same of overlays: a week after the last push nobody is there.
pub const POLICY_OVERLAY_MS: u64 = 7 * 86_400_000;

/// Small blobs that a store keeps in memory, what it takes to find them included: the directories that every job of a pipeline asks
/// for come from there.
pub const MEMORY_MAX_BYTES: u64 = 64 << 20;

/// What it takes to find one of them.
pub const MEMORY_ROW_BYTES: u64 = 128;

/// How long they are on average, about: what is reserved to find them by.
pub const MEMORY_BLOB_BYTES: u64 = 4 << 10;

/// Blobs that are remembered after they went, so that whoever misses them is told why: 50 bytes of memory each.
pub const TOMBSTONES_MAX: usize = 100_000;

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
