//! A build's durable events, for its watchers.

use serde::{Deserialize, Serialize};
use windlass_protocol::{AnnotationId, AttemptId, BuildId, JobId, WallMs};

use super::{BuildState, JobState};

/// A durable event of a build, for its watchers; numbered by the commit that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// The build.
    pub build: BuildId,
    /// When.
    pub at: WallMs,
    /// What.
    pub event: BuildEvent,
}

/// What happened to a build, durably. Rows are as they were then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum BuildEvent {
    /// It was made.
    BuildCreated,
    /// Its state changed, and it has not ended.
    BuildChanged {
        /// To this.
        state: BuildState,
    },
    /// It ended.
    BuildFinished {
        /// So.
        state: BuildState,
    },
    /// A job's durable state changed, and it has not ended.
    JobChanged {
        /// The job.
        job: JobId,
        /// To this.
        state: JobState,
        /// Its last attempt, if it has one.
        attempt: Option<AttemptId>,
    },
    /// An annotation was made, or changed.
    Annotated {
        /// Which.
        annotation: AnnotationId,
        /// Its name.
        context: String,
        /// The job that it is about.
        job: Option<JobId>,
    },
    /// An annotation was taken away.
    AnnotationRemoved {
        /// Which.
        annotation: AnnotationId,
        /// Its name.
        context: String,
        /// The job that it was about.
        job: Option<JobId>,
    },
    /// A job was run although its result was there, and came to another one.
    ReuseDiffers {
        /// The job.
        job: JobId,
        /// How, for people.
        detail: String,
    },
    /// A job ended (it may be retried).
    JobFinished {
        /// The job.
        job: JobId,
        /// So.
        state: JobState,
        /// Its last attempt, if it had one.
        attempt: Option<AttemptId>,
    },
}
