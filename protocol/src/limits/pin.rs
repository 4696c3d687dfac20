//! Bounds of pins of builds (docs/design/051).

use super::{
    ARTIFACTS_PER_BUILD_MAX, ARTIFACTS_PER_BUILD_MAX_BYTES, REUSE_ENTRIES_MAX, REUSE_FILES_MAX, REUSE_TRUSTED_MAX,
    REUSE_TRUSTED_MAX_BYTES,
};

/// Pins of all pipelines: each is a row in memory, and each sweep reads its build.
pub const PINS_MAX: usize = 1_000;

/// Pins of one pipeline: two years of a release each week.
pub const PINS_PER_PIPELINE_MAX: usize = 100;

/// Artifacts that the pins of one pipeline hold: those of ten builds that have as many as one may.
pub const PINNED_MAX_FILES: u64 = 10 * ARTIFACTS_PER_BUILD_MAX as u64;

/// Their bytes: those of two builds that have as many as one may, so that any build can be pinned.
pub const PINNED_MAX_BYTES: u64 = 2 * ARTIFACTS_PER_BUILD_MAX_BYTES;

/// What all pins hold is at most the disk divided by this: builds go on beside them.
pub const PINNED_DISK_DIVISOR: u64 = 2;

/// Results of one pipeline that its pins hold: the other half is what its builds go on with.
pub const PINNED_RESULTS_MAX: usize = REUSE_TRUSTED_MAX / 2;

/// Files of those: half of what all pins may hold, so that no pipeline has all of it.
pub const PINNED_RESULTS_MAX_FILES: usize = PINNED_RESULTS_OF_ALL_MAX_FILES / 2;

/// Bytes of their files.
pub const PINNED_RESULTS_MAX_BYTES: u64 = REUSE_TRUSTED_MAX_BYTES / 2;

/// Results of all pipelines that pins hold.
pub const PINNED_RESULTS_OF_ALL_MAX: usize = REUSE_ENTRIES_MAX / 2;

/// Files of those.
pub const PINNED_RESULTS_OF_ALL_MAX_FILES: usize = REUSE_FILES_MAX / 2;

/// Looks at what a build has, until two of them, before and after its pin, agree: nothing goes between them but what was going.
pub const PIN_LOOKS_MAX: usize = 4;
