//! Bounds of what is asked of a container engine, and how long it is waited for.

/// One answer of the container engine to a supervisor; an inspected container is a few KiB.
pub const ENGINE_ANSWER_MAX_BYTES: usize = 4 << 20;

/// Between two looks of an agent whether its container engine is there.
pub const ENGINE_LOOK_MS: u64 = 5_000;

/// How long an agent waits for one answer to whether it is.
pub const ENGINE_PING_MS: u64 = 5_000;

/// Looks without an answer after which it is not: one that is upgraded stops for 15 s.
pub const ENGINE_MISSED_MAX: u32 = 4;

/// How long a supervisor waits for one answer of the container engine.
pub const ENGINE_ANSWER_MS: u64 = 30_000;

/// The longest pause before a container engine that went away is asked again: a person would look about as often.
pub const ENGINE_RETRY_MAX_MS: u64 = 5_000;

/// An image's `/etc/passwd`, in its archive: thousands of users.
pub const PASSWD_MAX_BYTES: usize = 1 << 20;

/// The longest pause before an agent tries again to remove containers that it no longer has: they take space, no more.
pub const LEFTOVERS_RETRY_MAX_MS: u64 = 60_000;

/// How long a container that is known to have ended waits for its engine to tell with what status. An engine that is
/// upgraded stops for 15 s and takes some more to start; below [`UNKILLABLE_MS`](super::UNKILLABLE_MS), for nothing is left to be killed.
pub const ENGINE_GONE_MS: u64 = 50_000;

/// How long an engine may take to notice that a container has ended, before it is asked.
pub const ENGINE_NOTICE_MS: u64 = 2_000;

/// How long removing a container may take: deleting what a job wrote outside of its workspace is part of it.
pub const ENGINE_REMOVE_MS: u64 = 20_000;

/// The same where the engine did not answer before: enough for one that is well again, and little for one that hangs.
pub const ENGINE_REMOVE_UNWELL_MS: u64 = 1_000;
