//! Bounds of action entries: results of steps that are used again (docs/design/030).

/// Keys that are asked for at once; further jobs wait for their turn. Each has a bounded time, so the turn comes.
pub const REUSE_ASKED_MAX: usize = 64;

/// Of them for builds that are not trusted: whatever those name, half is left to the others.
pub const REUSE_ASKED_UNTRUSTED_MAX: usize = 32;

/// Files of one entry: they stand in its row, in memory.
pub const REUSE_OUTPUTS_MAX: usize = 1_000;

/// Entries of one project's trusted builds: a hundred steps of a hundred commits.
pub const REUSE_TRUSTED_MAX: usize = 10_000;

/// Bytes of their outputs: what a large project makes in a week.
pub const REUSE_TRUSTED_MAX_BYTES: u64 = 100 << 30;

/// Entries of one overlay: a pull request's.
pub const REUSE_OVERLAY_MAX: usize = 500;

/// Bytes of their outputs.
pub const REUSE_OVERLAY_MAX_BYTES: u64 = 10 << 30;

/// Entries of all overlays of one project: of the pull requests that are open at once.
pub const REUSE_OVERLAYS_MAX: usize = 5_000;

/// Bytes of their outputs.
pub const REUSE_OVERLAYS_MAX_BYTES: u64 = 50 << 30;

/// Entries of all projects: some kilobytes of memory each.
pub const REUSE_ENTRIES_MAX: usize = 50_000;

/// Files of all entries of all projects: some hundred bytes of memory each.
pub const REUSE_FILES_MAX: usize = 400_000;

/// Entries that are remembered after they went, so that a miss can say so.
pub const REUSE_GONE_MAX: usize = 10_000;

/// How long an entry that nobody uses is kept.
pub const REUSE_UNUSED_MS: u64 = 30 * 86_400_000;

/// How exactly it is known when an entry was used: a hit is no write of its row more often than this.
pub const REUSE_TOUCH_MS: u64 = 3_600_000;

/// Earlier entries that a miss is compared with: those of the last pushes.
pub const REUSE_COMPARED_MAX: usize = 16;

/// Finding out one key: a fetch of what a commit adds takes seconds, and a step that waits longer had better run.
pub const REUSE_KEY_MAX_MS: u64 = 60_000;
