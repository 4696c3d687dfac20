//! Bounds of secrets, and of what is masked in logs.

/// Shorter secrets are reported and not masked: they would match everywhere (buildkite.md 21.4).
pub const SECRET_MIN_BYTES: usize = 6;

/// Values that one job's log is searched for; the search stays fast and its table small.
pub const SECRETS_PER_JOB_MAX: usize = 1_000;

/// Bytes of all forms of all values that one job's log is searched for: an environment that is full of them, or thirty of
/// [`REDACTION_MAX_BYTES`]. A search for them has 32 MB.
pub const MASK_MAX_BYTES: usize = 1 << 20;

/// States of a search that a supervisor makes between two looks at its deadlines: about a millisecond's.
pub const MASK_STEP_STATES: usize = 32 << 10;

/// Values that one supervisor has been asked to mask and has not yet: one agent asks for one at a time.
pub const MASKS_WAITING_MAX: usize = 64;

/// Patterns of names whose values a job has masked, in one call; people write the reference's dozen.
pub const REDACTED_VARS_MAX: usize = 100;

/// Looks at bytes that matching such patterns may take in one call: some tenths of a second.
pub const REDACTED_VARS_EFFORT_MAX: usize = 64 << 20;

/// A value that a job has masked; as JSON, at worst six bytes for one, it fits a supervisor's line.
pub const REDACTION_MAX_BYTES: usize = 32 << 10;

/// How long an agent waits for a supervisor's word that a value is masked, before it asks again.
pub const MASK_ANSWER_MS: u64 = 5_000;

/// Secrets of a coordinator: all of them are in its memory, sealed.
pub const SECRETS_MAX: usize = 10_000;

/// A secret's value: what can be masked at once, and lies in an environment beside others.
pub const SECRET_MAX_BYTES: usize = REDACTION_MAX_BYTES;

/// Values of one answer to a job that asks for secrets; they fit a frame with room for its form.
pub const SECRETS_ANSWER_MAX_BYTES: usize = 512 << 10;

/// Keys of one request for secrets.
pub const SECRETS_PER_ASK_MAX: usize = 100;
