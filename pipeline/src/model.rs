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
mod reuse;
pub(crate) mod secret;
mod step;
mod trigger;

use windlass_protocol::job::Resources;
use windlass_protocol::limits::{EDGES_PER_BUILD_MAX, GRAPH_MAX_BYTES, JOBS_PER_BUILD_MAX};

use crate::diagnostic::Span;
use crate::graph::{
    Checkout, Concurrency, Gate, ManualRetry, Notify, Place, Plugin, RetryRule, Reuse, Secret, SoftFail, Supersede,
};
use crate::read::Reader;
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
    /// Jobs that the steps so far become.
    pub(crate) jobs: usize,
    /// Bytes of all elements so far, each counted once for all its parallel jobs.
    pub(crate) bytes: usize,
    /// Dependencies that steps and groups declare so far.
    pub(crate) mentions: usize,
    /// It was told that there is too much of something; what follows is not read.
    pub(crate) too_large: bool,
}

impl Pipeline {
    /// Adds a step to what there is so far.
    pub(crate) fn add(&mut self, step: Step) {
        self.jobs = self.jobs.saturating_add(step.jobs());
        self.bytes += step.elements.iter().map(|element| element.bytes).sum::<usize>();
        self.steps.push(step);
    }

    /// Whether what was read so far is more than a build may be: told once, at `span`, before more of it is copied.
    pub(crate) fn is_too_large(&mut self, reader: &mut Reader, span: Span) -> bool {
        if self.too_large {
            return true;
        }
        let too_much = if self.jobs > JOBS_PER_BUILD_MAX || self.groups.len() > JOBS_PER_BUILD_MAX {
            format!("the pipeline has over {JOBS_PER_BUILD_MAX} jobs; {JOBS_PER_BUILD_MAX} are the most")
        } else if self.bytes > GRAPH_MAX_BYTES {
            format!("the jobs have over {GRAPH_MAX_BYTES} bytes of commands, variables and settings")
        } else if self.mentions > EDGES_PER_BUILD_MAX {
            format!("the steps name over {EDGES_PER_BUILD_MAX} dependencies")
        } else {
            return false;
        };
        reader.error("too-large", span, too_much);
        self.too_large = true;
        true
    }
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

impl Step {
    /// How many jobs it becomes.
    pub(crate) fn jobs(&self) -> usize {
        self.elements.iter().map(Element::jobs).fold(0, usize::saturating_add)
    }
}

/// A step as one combination of its matrix has it.
#[derive(Debug)]
pub(crate) struct Element {
    pub(crate) label: Option<String>,
    pub(crate) skip: Option<String>,
    pub(crate) notify: Vec<Notify>,
    pub(crate) matrix: Vec<(String, String)>,
    /// What it costs each of its jobs: its text, and something for each value.
    pub(crate) bytes: usize,
    pub(crate) kind: StepKind,
}

impl Element {
    /// How many jobs run at once for it, if it says so.
    pub(crate) fn parallel(&self) -> Option<u32> {
        match &self.kind {
            StepKind::Command(command) => command.parallelism,
            StepKind::Trigger(trigger) => trigger.parallelism,
            StepKind::Wait { .. } | StepKind::Block(_) | StepKind::Input(_) => None,
        }
    }

    /// How many jobs it becomes.
    pub(crate) fn jobs(&self) -> usize {
        self.parallel().map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX))
    }
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
    pub(crate) grace_ms: Option<u64>,
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
