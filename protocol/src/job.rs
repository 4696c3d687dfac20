//! What an agent is given to run, and what it answers.

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "the archived twins and resolvers that rkyv derives carry neither docs nor Debug"
)]

use rkyv::{Archive, Deserialize, Serialize};

use crate::cause::Cause;
use crate::digest::Digest;
use crate::id::{AttemptId, BuildId, JobId};
use crate::namespace::Namespace;
use crate::time::WallMs;

/// The right to run an attempt: rises with each grant, over all attempts (I2). 0 is never granted.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[rkyv(derive(Debug))]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// What a job needs of an agent while it runs, and what an agent has in all.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct Resources {
    /// Thousandths of a processor; 0 in a request means the agent's share for one slot.
    pub cpu_millis: u64,
    /// Bytes of memory; 0 in a request means no limit of its own.
    pub memory_bytes: u64,
}

/// Where the files of a job come from.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[rkyv(derive(Debug))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An empty workspace.
    Empty,
    /// A tree in the cache, by the digest of its root directory.
    Tree {
        /// The root directory's digest.
        digest: Digest,
    },
    /// A commit of a repository; agents check it out with git.
    Git {
        /// The URL that git is given.
        repository: String,
        /// A full commit id, or `HEAD` of the branch.
        commit: String,
        /// The branch, for refs that serve no single commits.
        branch: String,
    },
}

/// All that an agent needs to run one attempt. The environment is complete but for what only the agent knows.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct JobSpec {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its number within the job, from 1.
    pub attempt_number: u32,
    /// Its job.
    pub job: JobId,
    /// Its build.
    pub build: BuildId,
    /// The build's number within the pipeline.
    pub build_number: u64,
    /// The pipeline's name.
    pub pipeline: String,
    /// The step's key, if it has one.
    pub step_key: Option<String>,
    /// The step's label, for people.
    pub label: String,
    /// The script: lines joined by newlines, run by one shell.
    pub command: String,
    /// The job's environment in order, later wins.
    pub env: Vec<(String, String)>,
    /// A container image by reference; without one the job is a plain process.
    pub image: Option<String>,
    /// Its files.
    pub source: Source,
    /// Who the job's lookups in the cache are made for.
    pub namespace: Namespace,
    /// Its queue.
    pub queue: String,
    /// From the start of its command; `None` is no limit.
    pub timeout_ms: Option<u64>,
    /// Between the polite signal and the kill.
    pub grace_ms: u64,
    /// What it may use.
    pub resources: Resources,
    /// Its processes must end with its lease (I3).
    pub exclusive: bool,
    /// It may be stopped and run again at any time.
    pub interruptible: bool,
    /// Its output comes through a pseudo-terminal.
    pub tty: bool,
    /// Its workspace stays if it fails, for `windlass shell`.
    pub keep_workspace: bool,
    /// Bytes of log after which it is cut.
    pub log_limit_bytes: u64,
}

/// How far an attempt has come on its agent.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[rkyv(derive(Debug))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Taken; workspace and image are being prepared. The command has not started.
    Preparing,
    /// The command has started.
    Running,
    /// The command has ended and the outcome is known, perhaps not yet believed.
    Finished,
}

/// What came of an attempt, as its agent tells it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[rkyv(derive(Debug))]
pub struct Outcome {
    /// The command's status, 0 to 255; `None` if it never ended by itself or never started.
    pub exit_status: Option<i32>,
    /// The signal that ended it, by number.
    pub signal: Option<i32>,
    /// Why it has no result of its own; `None` for an ordinary end.
    pub cause: Option<Cause>,
    /// When the command started, by the agent's clock; `None` if it did not.
    pub started_at: Option<WallMs>,
    /// When it ended, by the agent's clock.
    pub finished_at: WallMs,
    /// The log's final length, after masking and cutting.
    pub log_bytes: u64,
    /// The log's digest, after masking and cutting.
    pub log_digest: Digest,
    /// The log went past its limit.
    pub log_truncated: bool,
    /// The most memory it used at once, if the machine can tell.
    pub peak_memory_bytes: Option<u64>,
}

impl Outcome {
    /// Whether the command ended by itself with status 0.
    #[must_use]
    pub const fn passed(&self) -> bool {
        matches!(self.exit_status, Some(0)) && self.cause.is_none() && self.signal.is_none()
    }
}
