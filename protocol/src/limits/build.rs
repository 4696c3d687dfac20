//! Bounds of what one build, and one commit, may cost the coordinator's core.

use super::{GRAPH_MAX_BYTES, JOBS_PER_BUILD_MAX};

/// What the rows of one build may hold (`docs/design/024-what-a-build-costs.md`): the steps of 10,000 jobs with a kilobyte of
/// variables each, 500 uploads of 20 KiB, all annotations and meta-data are 44 MB; almost three times that.
pub const BUILD_MAX_BYTES: usize = 128 << 20;

/// Deadlines of the coordinator's core that are seen to in one commit: an agent's, a job's or a group's is a few changes, so
/// that inputs that stand behind them wait for milliseconds.
pub const TIMERS_PER_COMMIT_MAX: usize = 256;

const _: () =
    assert!(GRAPH_MAX_BYTES + JOBS_PER_BUILD_MAX * 2_048 < BUILD_MAX_BYTES, "a text that compiles makes a build");
