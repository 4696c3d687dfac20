//! Results that are used again: what a step's key is made of, what came of the question, and the entries themselves
//! (docs/design/030).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_pipeline::graph::Command;
use windlass_protocol::job::{Epoch, Source};
use windlass_protocol::message::NewArtifact;
use windlass_protocol::{AttemptId, BuildId, Digest, JobId, Namespace, WallMs, hex};

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
    /// The job's environment as an offer would have it, each name once.
    pub env: Vec<(String, String)>,
    /// Names of those that may decide its result: that the step or its pipeline sets, or that the step says it reads. Of what
    /// its build was submitted with a job that has a key is given no others.
    pub declared: Vec<String>,
    /// The last attempts of the build's jobs that have one, by attempt: each with its step's key or, without one, its label.
    /// Their artifacts are what the step may use.
    pub made_by: BTreeMap<AttemptId, String>,
    /// The step's secrets by key: each with its version, which changes when it is set, or why it has none.
    pub secrets: BTreeMap<String, Result<String, String>>,
    /// What the agents that may run it say of their machines, as far as they agree.
    pub hosts: Hosts,
    /// It runs whatever earlier results there are: nobody is asked for one.
    pub fresh: bool,
}

/// What the agents that may run a step say of their machines; where they do not agree, or do not say, in what, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// What images run there, such as `linux/amd64`.
    pub platform: Result<String, String>,
    /// Operating system, architecture and the versions that configured commands print: [`HostFacts::system`].
    ///
    /// [`HostFacts::system`]: windlass_protocol::HostFacts::system
    pub system: Result<String, String>,
    /// The agents' hooks.
    pub hooks: Result<Digest, String>,
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
    /// The commits of plugins that its step names otherwise, by their sources as they stand there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plugins: BTreeMap<String, String>,
    /// Of what the agent that runs it must have said of its system ([`Hosts::system`]); `None` where an image decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Digest>,
    /// The same of its hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Digest>,
    /// What people should hear though there is a key: an input that names nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Other names in the job's namespace under which its result may stand: those of what a fleet made of the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Digest>,
}

/// A step has no key, and runs as one that does not ask for reuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unkeyed {
    /// Why, for people.
    pub why: String,
}

/// What came of a job's wish to be reused, from the answer to its key on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobReuse {
    /// It has no key, and runs as any other.
    Unkeyed(Unkeyed),
    /// It has one.
    Keyed(Box<KeyedJob>),
}

impl JobReuse {
    /// The key and its part, if there is one.
    #[must_use]
    pub fn keyed(&self) -> Option<&KeyedJob> {
        match self {
            Self::Keyed(keyed) => Some(keyed),
            Self::Unkeyed(_) => None,
        }
    }
}

/// A job with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedJob {
    /// What decides its result.
    pub keyed: Keyed,
    /// When the key was known.
    pub at: WallMs,
    /// What it does with it.
    pub role: Role,
    /// The job that runs with the same key, while this one waits for its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Box<Followed>>,
    /// That an entry of this key was here before, and why it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<(Gone, WallMs)>,
    /// What became of its own result, once it has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// The job that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// Its build.
    pub build: BuildId,
    /// Its build's number.
    pub number: u64,
    /// The job.
    pub job: JobId,
    /// Its step's label.
    pub step: String,
}

/// What a job does with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It runs, or waits for one that runs with the same key.
    Runs,
    /// It runs whatever there is, because somebody asked for that, or because the build had no room for the entry's files.
    Fresh,
    /// It runs though there is an entry, and is compared with it.
    Verifies {
        /// Of the entry's outputs ([`digest_of`]).
        outputs: Digest,
        /// Whose they are.
        from: Box<ReusedFrom>,
    },
    /// Nothing ran: its result is this one's.
    Reused(Box<ReusedFrom>),
}

/// What became of a result of a step with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// Later steps with this key use it.
    Stored,
    /// They do not: why, for people.
    Not(String),
    /// It was run to be compared, and is what the entry has.
    Same,
    /// It was run to be compared, and is not: the step depends on more than its key says. How, for people.
    Differs(String),
}

/// Whose result it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReusedFrom {
    /// The pipeline.
    pub pipeline: String,
    /// The build's branch: who may read builds of some branches only may read those.
    pub branch: String,
    /// The build; it may be no more.
    pub build: BuildId,
    /// Its number.
    pub number: u64,
    /// The job.
    pub job: JobId,
    /// The attempt that ran: its log is this one's.
    pub attempt: AttemptId,
    /// The step's label then.
    pub step: String,
    /// When it had passed.
    pub at: WallMs,
    /// How long it had run, in milliseconds.
    pub ran_ms: u64,
    /// The fleet that ran it, by its URL, where that is another one: build and job are its own. The attempt is never: it names
    /// the log as it was brought here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
}

/// A file of a result.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Output {
    /// Its path, with `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// SHA-1 of its bytes, in hex.
    pub sha1: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Such as `text/plain`.
    pub content_type: String,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl Output {
    /// Artifacts as files of a result; of `executable` are the places of those that may be executed.
    #[must_use]
    pub fn all(artifacts: &[NewArtifact], executable: &[u32]) -> Vec<Self> {
        let mut all: Vec<Self> = artifacts.iter().map(Self::from).collect();
        for place in executable {
            if let Some(output) = usize::try_from(*place).ok().and_then(|place| all.get_mut(place)) {
                output.executable = true;
            }
        }
        all
    }
}

impl From<&NewArtifact> for Output {
    fn from(artifact: &NewArtifact) -> Self {
        Self {
            path: artifact.path.clone(),
            bytes: artifact.bytes,
            digest: artifact.digest,
            sha1: hex::to(&artifact.sha1),
            sha256: hex::to(&artifact.sha256),
            content_type: artifact.content_type.clone(),
            executable: false,
        }
    }
}

/// Of paths, contents and modes of some outputs, in whatever order they came.
#[must_use]
pub fn digest_of(outputs: &[Output]) -> Digest {
    // No path has a zero byte, and a line begins with its digest.
    let mark = |output: &Output| if output.executable { "x\0" } else { "" };
    let line = |output: &Output| format!("{} {}\0{}", output.digest, output.path, mark(output));
    let mut lines: Vec<String> = outputs.iter().map(line).collect();
    lines.sort();
    Digest::of(lines.concat().as_bytes())
}

/// What an attempt has made that may be used again; kept with it while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Yield {
    /// What its agent said of itself when it was given the job.
    #[serde(default)]
    pub system: Option<Digest>,
    /// The same of its hooks.
    #[serde(default)]
    pub hooks: Option<Digest>,
    /// What it has uploaded.
    #[serde(default)]
    pub outputs: Vec<Output>,
    /// Why it may not be used again: it did what cannot be done again for another build.
    #[serde(default)]
    pub spoiled: Option<String>,
}

/// Which entry. Those of a namespace lie together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReuseName {
    /// Whose: that of the build that ran it.
    pub namespace: Namespace,
    /// The step's key.
    pub key: Digest,
}

/// A result that may be used again. But for its last use it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReuseRow {
    /// Its name.
    pub name: ReuseName,
    /// What its key is made of.
    pub recipe: Digest,
    /// Its inputs.
    pub source: Source,
    /// The step's key, if it had one: with the label it says which step later ones are compared with.
    pub step_key: Option<String>,
    /// Where it comes from.
    pub from: ReusedFrom,
    /// Its files: blobs on the namespace's shelf of artifacts.
    pub outputs: Vec<Output>,
    /// Their bytes.
    pub bytes: u64,
    /// When it was written.
    pub created_at: WallMs,
    /// When it was used last, an hour more or less.
    pub used_at: WallMs,
}

/// Why an entry went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    /// Others needed the bytes.
    Size,
    /// There were too many.
    Count,
    /// Nobody used it for long.
    Unused,
}

impl Gone {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Count => "count",
            Self::Unused => "unused",
        }
    }

    /// For people, after "evicted".
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Size => "by size",
            Self::Count => "by number",
            Self::Unused => "because nobody used it",
        }
    }
}

/// An entry that went: what a miss can still be compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReuseGone {
    /// Its name.
    pub name: ReuseName,
    /// Why.
    pub why: Gone,
    /// When.
    pub at: WallMs,
}

/// What is asked about entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReuseRequest {
    /// Let go of what nobody has used since.
    Forget {
        /// Since then.
        unused_since: WallMs,
    },
    /// An attempt was given what is in no key: its result is not to be used again. Of one that has no key nothing is noted.
    Spoil {
        /// Which.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// Why, for people.
        why: &'static str,
    },
    /// Take what a fleet made as a result of here. Its files are on the namespace's shelf, and its log is among those of here.
    Adopt(Box<ReuseRow>),
    /// Somebody else uses a result.
    Use(ReuseName),
}
