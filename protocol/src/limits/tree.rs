//! Bounds of the work on trees: snapshots and layouts.

/// Threads of one snapshot or layout: past a few they wait for the file system's own locks.
pub const TREE_THREADS_MAX: usize = 8;
