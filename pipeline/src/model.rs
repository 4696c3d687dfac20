//! A document as typed steps: what is written, with nothing resolved across steps yet.
//!
//! [`attribute`] says which attributes there are and of what shape. A step with a matrix is read once for each of its
//! combinations, with the tokens replaced, so that every attribute may hold them.

pub(crate) mod attribute;
pub(crate) mod cache;
mod changed;
pub(crate) mod checkout;
mod command;
mod concurrency;
pub(crate) mod condition;
mod depends;
mod document;
mod gate;
mod group;
mod notify;
pub(crate) mod plugin;
mod resource;
mod retry;
pub(crate) mod secret;
mod step;
mod trigger;

use windlass_protocol::job::Resources;

use crate::diagnostic::Span;
use crate::graph::{
    Checkout, Concurrency, Gate, ManualRetry, Notify, Place, Plugin, RetryRule, Reuse, Secret, SoftFail, Supersede,
};
use crate::yaml::Node;

pub(crate) use cache::CacheChoice;
pub(crate) use changed::{IfChanged, read as if_changed};
pub(crate) use command::parallelism;
pub(crate) use document::{read, unsupported};
pub use notify::of_step as step_notify;
pub(crate) use step::Kind as StepWord;
pub(crate) use step::infer_quietly;

/// What all documents of a pipeline come to.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    /// Top-level `env`, in order, names once.
    pub(crate) env: Vec<(String, String)>,
    /// What newer builds do to older ones, if it says.
    pub(crate) supersede: Option<Supersede>,
    /// Who hears of the build.
    pub(crate) notify: Vec<Notify>,
    /// The steps in order, those of groups among them.
    pub(crate) steps: Vec<Step>,
    /// The groups in order.
    pub(crate) groups: Vec<Group>,
    /// Steps and groups of the top level so far.
    pub(crate) positions: u32,
}

/// What the steps of a document have if they say nothing else.
#[derive(Debug, Default, Clone)]
pub(crate) struct Defaults {
    pub(crate) agents: Option<Agents>,
    pub(crate) image: Option<String>,
    pub(crate) priority: Option<i64>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) checkout: Checkout,
    pub(crate) cache: CacheChoice,
}

/// A query for agents.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Agents {
    pub(crate) queue: Option<Named>,
    pub(crate) tags: Vec<(String, String)>,
}

/// A text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// A step's or a group's key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) named: Named,
    /// Written with an old name of the attribute.
    pub(crate) old_name: bool,
}

/// An `if` that was read.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    /// `None`: what is wrong was told.
    pub(crate) parsed: Option<crate::condition::Condition>,
    pub(crate) source: Named,
    pub(crate) at: Node,
}

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) span: Span,
    pub(crate) place: Place,
    pub(crate) key: Option<Key>,
    /// `None`: the implicit ones (reference 6.1).
    pub(crate) depends_on: Option<Vec<Dependency>>,
    pub(crate) allow_dependency_failure: bool,
    pub(crate) condition: Option<Condition>,
    pub(crate) branches: Option<Vec<String>>,
    pub(crate) if_changed: Option<IfChanged>,
    /// One, or one for each combination of its matrix.
    pub(crate) elements: Vec<Element>,
    /// The kind of all of them.
    pub(crate) kind: StepWord,
}

/// A step as one combination of its matrix has it.
#[derive(Debug)]
pub(crate) struct Element {
    pub(crate) label: Option<String>,
    pub(crate) skip: Option<String>,
    pub(crate) notify: Vec<Notify>,
    pub(crate) matrix: Vec<(String, String)>,
    /// Of all its text.
    pub(crate) bytes: usize,
    pub(crate) kind: StepKind,
}

/// A group; its steps name it by index in their places.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) span: Span,
    pub(crate) place: Place,
    pub(crate) key: Option<Key>,
    pub(crate) label: Option<String>,
    pub(crate) depends_on: Option<Vec<Dependency>>,
    pub(crate) allow_dependency_failure: bool,
    pub(crate) condition: Option<Condition>,
    pub(crate) if_changed: Option<IfChanged>,
    pub(crate) skip: Option<String>,
    pub(crate) notify: Vec<Notify>,
}

/// One entry of `depends_on`.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) step: Named,
    pub(crate) allow_failure: bool,
}

impl Dependency {
    pub(crate) fn to_graph(&self) -> crate::graph::Dependency {
        crate::graph::Dependency { key: self.step.text.clone(), allow_failure: self.allow_failure }
    }
}

/// What a step is.
#[derive(Debug)]
pub(crate) enum StepKind {
    Command(Box<CommandStep>),
    Wait { continue_on_failure: bool },
    Block(Box<Gate>),
    Input(Box<Gate>),
    Trigger(Box<TriggerStep>),
}

/// A command step's attributes as written.
#[derive(Debug, Default)]
pub(crate) struct CommandStep {
    pub(crate) command: String,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) agents: Option<Agents>,
    pub(crate) image: Option<String>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) retry: Vec<RetryRule>,
    pub(crate) manual_retry: ManualRetry,
    pub(crate) soft_fail: SoftFail,
    pub(crate) priority: Option<i64>,
    pub(crate) concurrency: Option<Concurrency>,
    pub(crate) cancel_on_build_failing: bool,
    pub(crate) artifact_paths: Vec<String>,
    pub(crate) plugins: Vec<Plugin>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) checkout: Checkout,
    pub(crate) cache: CacheChoice,
    pub(crate) reuse: Option<Reuse>,
    pub(crate) resources: Resources,
    pub(crate) exclusive: bool,
    pub(crate) interruptible: bool,
    pub(crate) tty: bool,
    pub(crate) zone: Option<String>,
    /// `None` is one job without a place among others; 0 takes the step away.
    pub(crate) parallelism: Option<u32>,
}

/// A trigger step's attributes as written.
#[derive(Debug, Default)]
pub(crate) struct TriggerStep {
    pub(crate) pipeline: String,
    pub(crate) branch: Option<String>,
    pub(crate) commit: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) meta_data: Vec<(String, String)>,
    pub(crate) r#async: bool,
    pub(crate) soft_fail: SoftFail,
    pub(crate) parallelism: Option<u32>,
}
