//! A document as typed steps: what is written, with nothing resolved across steps yet.
//!
//! Kinds of step and attributes of the reference that are not served yet are named in [`attribute`]: to serve one, read it
//! in the file of its kind and take it off that list. None is ever passed over in silence.

mod attribute;
mod command;
mod depends;
mod document;
mod resource;
mod retry;
mod step;

use windlass_protocol::job::Resources;

use crate::diagnostic::Span;
use crate::graph::{ManualRetry, RetryRule, SoftFail, Supersede};

pub(crate) use document::read;

/// One document.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// Its `env`, in order, names once.
    pub(crate) env: Vec<(String, String)>,
    /// What its steps have if they say nothing else.
    pub(crate) defaults: Defaults,
    /// What newer builds do to older ones, if it says.
    pub(crate) supersede: Option<Supersede>,
    /// Its steps in order.
    pub(crate) steps: Vec<Step>,
}

/// What the steps of a document have if they say nothing else.
#[derive(Debug, Default, Clone)]
pub(crate) struct Defaults {
    pub(crate) agents: Option<Agents>,
    pub(crate) image: Option<String>,
    pub(crate) priority: Option<i64>,
    pub(crate) timeout_ms: Option<u64>,
}

/// A query for agents.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Agents {
    pub(crate) queue: Option<String>,
    pub(crate) tags: Vec<(String, String)>,
}

/// A text and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) span: Span,
    pub(crate) key: Option<Named>,
    pub(crate) label: Option<String>,
    /// `None`: the implicit ones (reference 6.1).
    pub(crate) depends_on: Option<Vec<Dependency>>,
    pub(crate) allow_dependency_failure: bool,
    pub(crate) skip: Option<String>,
    pub(crate) kind: StepKind,
}

/// One entry of `depends_on`.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) step: Named,
    pub(crate) allow_failure: bool,
}

/// What a step is.
#[derive(Debug)]
pub(crate) enum StepKind {
    Command(Box<CommandStep>),
    Wait {
        continue_on_failure: bool,
    },
    /// Refused already; kept so that its key is known.
    Unserved,
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
    pub(crate) resources: Resources,
    pub(crate) exclusive: bool,
    pub(crate) interruptible: bool,
    pub(crate) tty: bool,
    pub(crate) zone: Option<String>,
    /// `None` is one job without a place among others; 0 takes the step away.
    pub(crate) parallelism: Option<u32>,
}
