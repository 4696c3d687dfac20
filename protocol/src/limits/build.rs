//! Bounds of builds: what makes them, how many there are, and what one may cost the coordinator's core.

use super::GRAPH_MAX_BYTES;

/// What the rows of one build may hold (`docs/design/024-what-a-build-costs.md`): the steps of 10,000 jobs with a kilobyte of
/// variables each, 500 uploads of 20 KiB, all annotations and meta-data are 44 MB; almost three times that.
pub const BUILD_MAX_BYTES: usize = 128 << 20;

/// Deadlines of the coordinator's core that are seen to in one commit: an agent's, a job's or a group's is a few changes, so
/// that inputs that stand behind them wait for milliseconds.
pub const TIMERS_PER_COMMIT_MAX: usize = 256;

/// Jobs of one build.
pub const JOBS_PER_BUILD_MAX: usize = 10_000;

/// Jobs of all builds that have not finished; submits beyond are refused.
pub const LIVE_JOBS_MAX: usize = 2_000_000;

/// Builds that have not finished; submits beyond are refused.
pub const LIVE_BUILDS_MAX: usize = 1_000_000;

/// Registered pipelines; each row is in memory, without its definition.
pub const PIPELINES_MAX: usize = 10_000;

/// Builds in a chain of builds that trigger each other (reference 23).
pub const TRIGGER_DEPTH_MAX: u32 = 10;

/// Builds that are triggered below one, over all levels, while one of them goes on: a loop ends here.
pub const TRIGGERED_BUILDS_MAX: u32 = 1_000;

/// Schedules in all; each row is in memory.
pub const SCHEDULES_MAX: usize = 10_000;

/// Schedules of one pipeline.
pub const SCHEDULES_PER_PIPELINE_MAX: usize = 100;

/// At least so often the clock that people set is looked at for schedules that are due: it may have jumped.
pub const SCHEDULE_CHECK_MS: u64 = 30_000;

const _: () =
    assert!(GRAPH_MAX_BYTES + JOBS_PER_BUILD_MAX * 2_048 < BUILD_MAX_BYTES, "a text that compiles makes a build");
