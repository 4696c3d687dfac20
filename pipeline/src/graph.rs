//! The step graph: what a checked pipeline comes to, and all that the coordinator knows of it.
//!
//! A graph is plain data, stored with its build. Nodes stand in the document's order, edges point to earlier or later
//! nodes by index and never form a cycle (the checker's promise). Implicit edges (reference 6.1) are already written out.

use serde::{Deserialize, Serialize};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::Resources;

/// A pipeline as the coordinator runs it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Graph {
    /// One for each job that will exist, in the document's order; at most `limits::JOBS_PER_BUILD_MAX`.
    pub nodes: Vec<Node>,
    /// What a newer build of the same pipeline and branch does to this one.
    #[serde(default)]
    pub supersede: Supersede,
}

/// What a newer build of the same pipeline and branch does to older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Supersede {
    /// Nothing.
    #[default]
    Never,
    /// Older builds of which no job has started are skipped.
    Waiting,
    /// Those, and running ones are canceled, with cause `superseded`.
    Running,
}

/// A step, or one element of its matrix or parallelism.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The step's key, unique in the build but for the elements of one step.
    pub key: Option<String>,
    /// For people; the command's first line where the step has no label.
    pub label: String,
    /// What it waits for.
    pub depends_on: Vec<Edge>,
    /// All failed dependencies count as passed; canceled ones do not (reference 6.4).
    #[serde(default)]
    pub allow_dependency_failure: bool,
    /// Not to be run, and why.
    #[serde(default)]
    pub skip: Option<String>,
    /// What it is.
    pub kind: NodeKind,
}

/// One dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Index into [`Graph::nodes`].
    pub node: u32,
    /// Its failure counts as passing; its cancellation does not.
    #[serde(default)]
    pub allow_failure: bool,
}

/// The kinds of step that exist so far. Gates (block, input, trigger, group) come with the rest of the language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A script that an agent runs.
    Command(Box<Command>),
    /// A barrier; no agent runs it. Which failures it forgives is written on its edges (reference 6.3).
    Wait {
        /// As written, for people.
        continue_on_failure: bool,
    },
}

/// A command step's attributes, with every default resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Command {
    /// Lines joined by newlines.
    pub command: String,
    /// Pipeline and step variables, merged in the reference's order (17.1); names are unique.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// The queue's name; `default` where none is given.
    pub queue: String,
    /// Tags that the agent must have, beside the queue; `*` as value is any.
    #[serde(default)]
    pub tags: Vec<(String, String)>,
    /// Only agents of this zone.
    #[serde(default)]
    pub zone: Option<String>,
    /// A container image by reference.
    #[serde(default)]
    pub image: Option<String>,
    /// The step's timeout, else the pipeline's; `None` is the coordinator's default.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// In order; the first that matches decides (reference 10.1).
    #[serde(default)]
    pub retry: Vec<RetryRule>,
    /// Whether `build retry` may run it again (reference 10.2).
    #[serde(default)]
    pub manual_retry: ManualRetry,
    /// Which failures do not fail the build (reference 10.3).
    #[serde(default)]
    pub soft_fail: SoftFail,
    /// Higher first.
    #[serde(default)]
    pub priority: i64,
    /// What it needs while it runs.
    #[serde(default)]
    pub resources: Resources,
    /// Never two at a time: its processes end with its lease (I3).
    #[serde(default)]
    pub exclusive: bool,
    /// May be stopped and run again at any time.
    #[serde(default)]
    pub interruptible: bool,
    /// Output through a pseudo-terminal.
    #[serde(default)]
    pub tty: bool,
    /// Position among the elements of the step, from 0, and their number.
    #[serde(default)]
    pub parallel: Option<(u32, u32)>,
}

/// One rule of `retry.automatic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRule {
    /// Which exit statuses; -1 is an agent that was lost.
    pub exit_status: StatusMatch,
    /// Which signals, by number; `None` is any or none.
    #[serde(default)]
    pub signal: Option<SignalMatch>,
    /// Which causes; `None` is any or none. Ours.
    #[serde(default)]
    pub cause: Option<Vec<CauseKind>>,
    /// How often this rule may retry a job, 0 to 10.
    pub limit: u32,
}

/// Which exit statuses a rule matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusMatch {
    /// Written `"*"`: 1 to 255.
    Any,
    /// Left out: every status but 0, -1 included, and ends without a status.
    AnyFailure,
    /// One of these.
    OneOf(Vec<i32>),
}

/// Which signals a rule matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalMatch {
    /// Ended by no signal.
    None,
    /// One of these numbers.
    OneOf(Vec<i32>),
}

/// Whether a person may retry a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManualRetry {
    /// At all.
    pub allowed: bool,
    /// Also when it passed.
    pub permit_on_passed: bool,
    /// Shown if not allowed.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Default for ManualRetry {
    fn default() -> Self {
        Self { allowed: true, permit_on_passed: true, reason: None }
    }
}

/// Which failures do not fail the build.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SoftFail {
    /// None.
    #[default]
    Never,
    /// Every failure, signals and lost agents included.
    Always,
    /// These exit statuses.
    OneOf(Vec<i32>),
}

impl SoftFail {
    /// Whether an end with this status (`None`: no status of its own) is forgiven.
    #[must_use]
    pub fn forgives(&self, exit_status: Option<i32>) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::OneOf(statuses) => exit_status.is_some_and(|status| statuses.contains(&status)),
        }
    }
}
