//! Results that are used again: what a step's key is made of, what came of the question, and the entries themselves
//! (docs/design/030).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_pipeline::graph::Command;
use windlass_protocol::job::Source;
use windlass_protocol::{AttemptId, BuildId, Digest, JobId, Namespace};

/// A step whose key is asked for: all that the core knows of it. What it does not know (trees, images, artifacts) the shell
/// looks up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySubject {
    /// The build.
    pub build: BuildId,
    /// The job.
    pub job: JobId,
    /// Where its lookups happen; the trust of its result with it.
    pub namespace: Namespace,
    /// The pipeline.
    pub pipeline: String,
    /// The step: with its command, image, plugins, secrets, checkout, queue, tags and what it says of its reuse
    /// ([`Command::reuse`] is there).
    pub command: Box<Command>,
    /// The build's own source, before anything is left out.
    pub source: Source,
    /// The job's environment as an offer would have it, later wins, each name once. The step's own variables are in
    /// [`Command::env`] too; of the others only those that the step declares may decide its result, and only those are given
    /// to a job that has a key.
    pub env: Vec<(String, String)>,
    /// The last attempts of the build's jobs that have one, by attempt: each with its step's key or, without one, its label.
    /// Their artifacts are what the step may use.
    pub made_by: BTreeMap<AttemptId, String>,
    /// The step's secrets by key: each with its version, which changes when it is set, or why it has none.
    pub secrets: BTreeMap<String, Result<String, String>>,
    /// What the agents that may run it have reported of themselves. Without an image they have to agree.
    pub hosts: Vec<HostPrint>,
}

/// What an agent says of its machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPrint {
    /// Its name, for people.
    pub agent: String,
    /// Operating system, architecture and the versions that configured commands print; `None` where it does not say.
    pub system: Option<Digest>,
    /// Its hooks; `None` where it does not say.
    pub hooks: Option<Digest>,
}

/// What decides a step's result, all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyed {
    /// BLAKE3 of the recipe.
    pub key: Digest,
    /// The blob in the job's namespace that says what the key is made of, a line each: never a secret's value (I6).
    pub recipe: Digest,
    /// The declared inputs, and nothing else.
    pub source: Source,
    /// The image, by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What the agent that runs it must have reported ([`HostPrint::system`]); `None` where an image decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Digest>,
    /// The same of its hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Digest>,
}

/// A step has no key, and runs as one that does not ask for reuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unkeyed {
    /// Why, for people.
    pub why: String,
}
