//! The step graph: what a checked pipeline comes to, and all that the coordinator knows of it.
//!
//! A graph is plain data, stored with its build. Edges point to earlier or later nodes by index and never form a cycle (the
//! checker's promise). Implicit edges (reference 6.1) are already written out, defaults are resolved, conditions decided: a
//! step that its `if` or `branches` takes away is here as [`Broken`], since its job exists in that state. Graphs that
//! were stored by earlier versions still load. Why it is made so: `docs/design/008-the-graph-of-gates.md`.

mod blob;
mod command;
mod feature;
mod gate;
mod insert;
mod link;
mod notify;
mod place;
mod retry;
mod trigger;

use serde::{Deserialize, Serialize};

pub use blob::{BlobName, NamedBlob, NotABlobName};
pub use command::{
    Cache, Checkout, CheckoutFlags, Command, CommitVerification, Concurrency, Method, Plugin, Reuse, Secret,
};
pub use feature::Feature;
pub(crate) use gate::matches;
pub use gate::{BadFormat, BlockedState, Choice, Field, FieldKind, Gate, Misfit, typed};
pub use insert::InsertError;
pub(crate) use link::{LinkGroup, LinkKind, LinkStep, Linked, StepEdge, link};
pub use notify::{Notify, SERVICES, Service};
pub use place::Place;
pub use retry::{ManualRetry, RetryRule, SignalMatch, SoftFail, StatusMatch};
pub use trigger::Trigger;

/// A pipeline, or one upload, as the coordinator runs it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Graph {
    /// One for each job that will exist, in the document's order; at most `limits::JOBS_PER_BUILD_MAX`. What is uploaded
    /// later is appended: an index never changes.
    pub nodes: Vec<Node>,
    /// What a newer build of the same pipeline and branch does to this one.
    #[serde(default)]
    pub supersede: Supersede,
    /// The groups, in the document's order; nodes name them by index.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// The top-level `env`: variables of the whole build, beneath the build's own and the steps' (reference 2, 17.1).
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Who hears of the build (reference 13).
    #[serde(default)]
    pub notify: Vec<Notify>,
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
    /// What it waits for, implicit edges and those of its group included.
    pub depends_on: Vec<Edge>,
    /// All failed dependencies count as passed; canceled ones do not (reference 6.4).
    #[serde(default)]
    pub allow_dependency_failure: bool,
    /// Not to be run, and why: its job is `skipped`.
    #[serde(default)]
    pub skip: Option<String>,
    /// Taken away, and why: its job is `broken`. It outranks `skip` (reference 6.5).
    #[serde(default)]
    pub broken: Option<Broken>,
    /// Where its step stands; the elements of one step share it.
    #[serde(default)]
    pub place: Place,
    /// The node whose job uploaded it.
    #[serde(default)]
    pub uploaded_by: Option<u32>,
    /// `depends_on` as declared, by key; `None`: the implicit edges. What later uploads need to find its edges anew.
    #[serde(default)]
    pub declared: Option<Vec<Dependency>>,
    /// Those of `declared` that no step has yet: it waits as long as an upload may still bring them (reference 6.2).
    #[serde(default)]
    pub unresolved: Vec<Dependency>,
    /// It has an `if` or `branches` of its own: such a wait is kept beside a block (reference 5.1).
    #[serde(default)]
    pub conditional: bool,
    /// The chosen values of its matrix, in the order of its dimensions; an anonymous dimension has the empty name.
    #[serde(default)]
    pub matrix: Vec<(String, String)>,
    /// Who hears of the step (reference 13).
    #[serde(default)]
    pub notify: Vec<Notify>,
    /// What it is.
    pub kind: NodeKind,
}

impl Node {
    /// A node that waits for nothing, without key, label or place.
    #[must_use]
    pub fn new(kind: NodeKind) -> Self {
        Self {
            key: None,
            label: String::new(),
            depends_on: Vec::new(),
            allow_dependency_failure: false,
            skip: None,
            broken: None,
            place: Place::default(),
            uploaded_by: None,
            declared: None,
            unresolved: Vec::new(),
            conditional: false,
            matrix: Vec::new(),
            notify: Vec::new(),
            kind,
        }
    }

    /// What of a node decides edges, its own and others', without what it runs or asks: as large as they are, and no larger.
    #[must_use]
    pub fn outline(&self) -> Self {
        let kind = match &self.kind {
            NodeKind::Command(_) => NodeKind::Command(Box::default()),
            NodeKind::Wait { continue_on_failure } => NodeKind::Wait { continue_on_failure: *continue_on_failure },
            NodeKind::Block(_) => NodeKind::Block(Box::default()),
            NodeKind::Input(_) => NodeKind::Input(Box::default()),
            NodeKind::Trigger(_) => NodeKind::Trigger(Box::default()),
        };
        Self {
            key: self.key.clone(),
            depends_on: self.depends_on.clone(),
            allow_dependency_failure: self.allow_dependency_failure,
            broken: self.broken,
            place: self.place.clone(),
            uploaded_by: self.uploaded_by,
            declared: self.declared.clone(),
            unresolved: self.unresolved.clone(),
            conditional: self.conditional,
            ..Self::new(kind)
        }
    }
}

/// Why a step is not part of its build although it stands in the pipeline. Dependents go on as if it had passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Broken {
    /// Its `if`, or its group's, is false.
    If,
    /// Its `branches` leave the build's branch out.
    Branches,
    /// A later upload took its place, or the job that uploaded it was run again (reference 7).
    Replaced,
    /// A wait right beside a block, which acts alone (reference 5.1).
    Merged,
}

impl Broken {
    /// For people.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::If => "its `if` is false",
            Self::Branches => "its `branches` leave this branch out",
            Self::Replaced => "a later upload took its place",
            Self::Merged => "the block beside it waits in its place",
        }
    }
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

/// A dependency by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// A step's or a group's key, or the id of a step.
    pub key: String,
    /// Its failure counts as passing; its cancellation does not.
    #[serde(default)]
    pub allow_failure: bool,
}

/// A group of steps: no job of its own; it passes when all of its steps do (reference 5.5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Group {
    /// Unique among the keys of steps too: who depends on it waits for all of its steps.
    pub key: Option<String>,
    /// For people.
    #[serde(default)]
    pub label: Option<String>,
    /// Where it stands in the top level's scope.
    #[serde(default)]
    pub place: Place,
    /// The node whose job uploaded it.
    #[serde(default)]
    pub uploaded_by: Option<u32>,
    /// `depends_on` as declared, by key; already part of its steps' edges.
    #[serde(default)]
    pub declared: Option<Vec<Dependency>>,
    /// Already part of its steps' edges.
    #[serde(default)]
    pub allow_dependency_failure: bool,
    /// Who hears of the group.
    #[serde(default)]
    pub notify: Vec<Notify>,
}

/// The kinds of step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A script that an agent runs.
    Command(Box<Command>),
    /// A barrier; no agent runs it. Which failures it forgives is written on its edges (reference 6.3).
    Wait {
        /// As written, for people and for finding its edges anew.
        continue_on_failure: bool,
    },
    /// A barrier that a person opens.
    Block(Box<Gate>),
    /// Questions to a person; no barrier.
    Input(Box<Gate>),
    /// A build of another pipeline.
    Trigger(Box<Trigger>),
}

impl Graph {
    /// The group that a node is in.
    #[must_use]
    pub fn group_of(&self, node: &Node) -> Option<&Group> {
        usize::try_from(node.place.group?).ok().and_then(|index| self.groups.get(index))
    }
}
