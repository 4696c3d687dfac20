//! What jobs say to their own builds, and what is kept of it: annotations, and changes of steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_pipeline::graph::Notify;
use windlass_protocol::job::Epoch;
use windlass_protocol::{AnnotationId, AttemptId, JobId, WallMs};

use super::Output;

/// Words about a build, for people (reference 19.3). Its text is a row of its own, which the core never reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// Its id.
    pub id: AnnotationId,
    /// Its name: unique among those of the build, or of the job that it is about.
    pub context: String,
    /// The job that it is about; `None`: the build.
    #[serde(default)]
    pub job: Option<JobId>,
    /// How it looks; `None`: plain.
    #[serde(default)]
    pub style: Option<AnnotationStyle>,
    /// 1 to 10; 10 is shown first, and of equal ones the older.
    pub priority: u8,
    /// Of its text.
    pub bytes: usize,
    /// Who wrote it last.
    pub by: JobId,
    /// When it was made.
    pub created_at: WallMs,
    /// When it was changed last.
    pub updated_at: WallMs,
}

/// How an annotation looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnotationStyle {
    /// Green.
    Success,
    /// Blue.
    Info,
    /// Yellow.
    Warning,
    /// Red.
    Error,
}

/// What a job says to its own build, by its right. The same call again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speech {
    /// Whose.
    pub attempt: AttemptId,
    /// By which right.
    pub epoch: Epoch,
    /// Of its command, made anew for each ([`windlass_protocol::call`]).
    pub call: [u8; 16],
    /// What.
    pub what: Said,
}

/// What a job may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Write an annotation.
    Annotate(Annotate),
    /// Take one away; none is nothing to do.
    RemoveAnnotation {
        /// Which.
        context: String,
        /// It is about the job itself.
        own: bool,
    },
    /// Take a token that says who it is; it is only noted here.
    TakeToken {
        /// For whom, how long, and under which number.
        detail: String,
    },
    /// Change an attribute of a step.
    UpdateStep {
        /// One of the step's jobs, of the same build.
        job: JobId,
        /// What.
        change: StepChange,
    },
    /// Set some of the build's meta-data, all or none; what is there under the same keys is replaced. Neither keys nor
    /// values may be blank (reference 19.2).
    SetMetaData(BTreeMap<String, String>),
    /// Note what the job has uploaded, all or none. The shell has seen the blobs, and keeps them until this is durable.
    AddArtifacts(Vec<Output>),
    /// Cancel the build; one that is being canceled is.
    CancelBuild,
    /// Cancel those of the build's jobs that have not ended.
    CancelJobs {
        /// Which.
        jobs: Vec<JobId>,
        /// Between the polite signal and the kill, where that is to be less than the jobs' own.
        grace_ms: Option<u64>,
    },
}

impl Said {
    /// Whether it is heard of a build that was canceled: what a job uploads in its grace time is often what says why
    /// (reference 18.8), and what is to end may end sooner.
    pub(crate) const fn outlasts_cancel(&self) -> bool {
        match self {
            Self::AddArtifacts(_) | Self::CancelBuild | Self::CancelJobs { .. } => true,
            Self::Annotate(_)
            | Self::RemoveAnnotation { .. }
            | Self::TakeToken { .. }
            | Self::UpdateStep { .. }
            | Self::SetMetaData(_) => false,
        }
    }

    /// Why what was said keeps an attempt's result from being used again, for people: nobody would say it for another build.
    pub(crate) const fn spoils(&self) -> Option<&'static str> {
        match self {
            // They are what a result is made of.
            Self::AddArtifacts(_) => None,
            Self::CancelBuild | Self::CancelJobs { .. } => Some("it canceled jobs"),
            Self::Annotate(_) | Self::RemoveAnnotation { .. } => Some("it wrote annotations"),
            Self::TakeToken { .. } => Some("it took a token of its identity"),
            Self::UpdateStep { .. } => Some("it changed a step"),
            Self::SetMetaData(_) => Some("it set meta-data"),
        }
    }
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotate {
    /// The annotation's name.
    pub context: String,
    /// It is about the job itself.
    pub own: bool,
    /// Plain, where a text takes the place of another and names none.
    pub style: Option<AnnotationStyle>,
    /// 1 to 10.
    pub priority: Option<u8>,
    /// The text; `None`: only the style changes.
    pub text: Option<String>,
    /// The text is added to what is there.
    pub append: bool,
}

/// What a step's attribute becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepChange {
    /// Its label; `%n` and the like become its jobs' numbers.
    Label {
        /// The text.
        text: String,
        /// It is added to what is there.
        append: bool,
    },
    /// Its priority, for what has not been leased.
    Priority(i64),
    /// Who hears of it.
    Notify {
        /// Whom.
        notify: Vec<Notify>,
        /// Beside those who do already.
        append: bool,
    },
    /// As many jobs; never fewer than there are.
    Parallelism(u32),
}
