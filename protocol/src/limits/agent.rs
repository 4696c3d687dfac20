//! Bounds of an agent: its own loop, its disk, and its way to the coordinator.

/// Free space below which an agent takes no work, however large its disk (F49: 5 % or 2 GiB).
pub const DISK_REFUSE_BYTES: u64 = 2 << 30;

/// Files that can still be made on an agent's disk below which it takes no work, however many it has: two large source
/// trees.
pub const DISK_REFUSE_FILES: u64 = 50_000;

/// Between two looks at how an agent's machine does.
pub const HEALTH_MS: u64 = 2_000;

/// What an agent's loop has not taken in yet: messages, events of jobs, signals.
pub const AGENT_INPUTS_MAX: usize = 1_024;

/// Messages that wait for an agent's control stream; more, and the connection is given up.
pub const AGENT_OUTBOX_MAX: usize = 1_024;

/// Beats in flight without an answer; one more, and the agent takes the connection for dead and dials anew.
pub const BEATS_UNANSWERED_MAX: usize = 4;

/// From an agent's hello to its welcome; a coordinator that loads a full store needs seconds.
pub const HELLO_ANSWER_MS: u64 = 15_000;

/// From the end of a pause to a connection or its failure, by the agent's core; the link's own handshake limit is shorter.
pub const DIAL_MS: u64 = 20_000;

/// The first ceiling of an agent's pause before it dials again; it doubles (F12).
pub const RECONNECT_MIN_MS: u64 = 100;

/// The last ceiling of an agent's pause before it dials again (F12).
pub const RECONNECT_MAX_MS: u64 = 30_000;

/// What a coordinator grants everyone to come back after its own restart, if a lease is shorter: the longest pause
/// between two tries, and one try.
pub const RESTART_GRACE_MS: u64 = RECONNECT_MAX_MS + DIAL_MS;
