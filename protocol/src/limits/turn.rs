//! Bounds of the loop around the coordinator's core: its inputs, its commits, its effects that wait.

/// Inputs that a shell hands to a core in one turn, so that no source starves timers or the API.
pub const TURN_MAX_INPUTS: usize = 256;

/// Requests that wait for the core; beyond, callers are told to come again (HTTP 503).
pub const CORE_QUEUE_MAX: usize = 4_096;

/// Changes in one commit of the store.
pub const COMMIT_MAX_CHANGES: usize = 50_000;

/// Answers and messages that wait for one commit: behind a slow disk, callers wait at the core's door instead.
pub const BATCH_MAX_HELD: usize = 4 * CORE_QUEUE_MAX;

/// Turns in a row that due timers wait for agents' messages that are already here: the whole queue once, so that no agent
/// is called lost while its beat stands in it, after a disk that stood still.
pub const TIMER_DEFER_TURNS: usize = CORE_QUEUE_MAX / (TURN_MAX_INPUTS / 2);

/// The longest sleep between two looks at the clock: timers of the runtime do not count suspend, ours do.
pub const CLOCK_CHECK_MS: u64 = 1_000;

/// Before the first try to load again after a commit failed; it doubles with every further failure.
pub const RELOAD_PAUSE_MIN_MS: u64 = 100;

/// The longest pause between two tries to load again.
pub const RELOAD_PAUSE_MAX_MS: u64 = 10_000;
