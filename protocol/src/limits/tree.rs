//! Bounds of the work on trees: snapshots, layouts, and trees that are restored through a job's own hands.

use super::{HANDS_FRAME_MAX_BYTES, HANDS_PATH_MAX_BYTES};

/// What is added to a stat cache comes to at most this part of it before all is written anew: so a change costs what changed, and
/// reading it costs half more.
pub const STAT_CACHE_LATER_PART: usize = 2;

/// Threads of one snapshot or layout: past a few they wait for the file system's own locks.
pub const TREE_THREADS_MAX: usize = 8;

/// Files that the command in a job lays out in one operation: a round trip is little beside so many.
pub const HANDS_LAY_FILES_MAX: usize = 128;

/// Their bytes: half of a frame, with room for the longest paths.
pub const HANDS_LAY_MAX_BYTES: usize = 1 << 20;

/// Files that an agent remembers for an attempt, of those that it restored: 10 MB of the attempt's account.
pub const KNOWN_FILES_MAX: usize = 100_000;

/// What one of them is held against the account with: its entry, in a table that has room for as many again.
pub const KNOWN_FILE_BYTES: usize = 160;

/// For how long the time of a change does not tell one change from the next: clocks of file systems tick every 1 to 10 ms.
pub const FILE_TICK_MS: i64 = 50;

/// The same where times are whole seconds: some file systems keep every other second.
pub const FILE_TICK_COARSE_MS: i64 = 2_100;

/// Symlink targets and path components in a tree.
pub const TREE_NAME_MAX_BYTES: usize = 4_096;

/// Directories within directories in a tree.
pub const TREE_DEPTH_MAX: usize = 256;

/// Entries of one directory in a tree.
pub const TREE_DIR_MAX_ENTRIES: usize = 1_000_000;

/// One directory's encoding. A million entries with short names fit; such a blob is held in memory whole.
pub const TREE_DIR_MAX_BYTES: u64 = 128 << 20;

/// Entries of one tree, all directories together.
pub const TREE_MAX_ENTRIES: usize = 4_000_000;

const _: () = assert!(
    HANDS_LAY_FILES_MAX * (HANDS_PATH_MAX_BYTES + 32) + HANDS_LAY_MAX_BYTES < HANDS_FRAME_MAX_BYTES,
    "a batch with the longest paths fits a frame"
);
