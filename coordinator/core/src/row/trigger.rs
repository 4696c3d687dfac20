//! Builds that other builds make, and how they hang together.

use serde::{Deserialize, Serialize};
use windlass_protocol::{BuildId, JobId};

/// A build that a trigger job makes, or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Triggered {
    /// Its id, which is settled before it is made: it is made once.
    pub build: BuildId,
    /// Its number, from when it is made.
    #[serde(default)]
    pub number: Option<u64>,
}

/// Which job a build comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggeredFrom {
    /// The build.
    pub build: BuildId,
    /// Its number.
    pub number: u64,
    /// Its pipeline.
    pub pipeline: String,
    /// The job.
    pub job: JobId,
    /// From 1: which of the job's builds it is; a job that is run again makes another one.
    pub ordinal: u32,
    /// Builds above it.
    pub depth: u32,
    /// The build above all of them, which nobody triggered.
    pub root: BuildId,
}

/// What a token was restricted to that made a build, or the first of its ancestors: what it triggers is too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confined {
    /// Only this pipeline.
    #[serde(default)]
    pub pipeline: Option<String>,
    /// Only this branch.
    #[serde(default)]
    pub branch: Option<String>,
}

impl Confined {
    /// Whether builds of this pipeline and branch may be made.
    #[must_use]
    pub fn allows(&self, pipeline: &str, branch: &str) -> bool {
        self.pipeline.as_deref().is_none_or(|only| only == pipeline)
            && self.branch.as_deref().is_none_or(|only| only == branch)
    }
}

/// How many builds were triggered below one that nobody triggered; kept while one of them has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageRow {
    /// The build above all.
    pub root: BuildId,
    /// Builds below it, those that have ended among them.
    pub made: u32,
}
