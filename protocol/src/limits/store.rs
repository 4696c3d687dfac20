//! Bounds of the coordinator's store: its reserve, its checkpoints, its pages.

/// Problems that a check of a directory lists in words; the rest is counted.
pub const CHECK_PROBLEMS_MAX: usize = 1_000;

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

/// Between two looks at the free space, beside that of every commit: so old may be what a submit is decided by.
pub const SPACE_PROBE_MS: u64 = 1_000;
