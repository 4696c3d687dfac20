//! What a command step is, with every default resolved (reference 4, 11, 12).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use windlass_protocol::job::Resources;

use super::{ManualRetry, NamedBlob, RetryRule, SoftFail};

/// A command step's attributes, with every default resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Command {
    /// Lines joined by newlines.
    pub command: String,
    /// The step's own variables; names are unique. Beneath them lie the build's, and beneath those `Graph::env`.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// The queue's name; `default` where none is given.
    pub queue: String,
    /// Tags that the agent must have, beside the queue; `*` within a value is any text.
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
    /// How many of its kind may run at a time, across builds (reference 9).
    #[serde(default)]
    pub concurrency: Option<Concurrency>,
    /// Canceled as soon as the build is failing (reference 10.6).
    #[serde(default)]
    pub cancel_on_build_failing: bool,
    /// Globs of files that are uploaded after the command, even if it failed.
    #[serde(default)]
    pub artifact_paths: Vec<String>,
    /// In order; one source may stand there twice (reference 12).
    #[serde(default)]
    pub plugins: Vec<Plugin>,
    /// The step's, then those of the pipeline that it does not set otherwise (reference 11.5).
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Merged key by key with the pipeline's (reference 11.7).
    #[serde(default)]
    pub checkout: Checkout,
    /// Directories that are kept between jobs (reference 11.4), or ours, by key.
    #[serde(default)]
    pub cache: Option<Cache>,
    /// Whether the step's result may come from an earlier run of the same. Ours.
    #[serde(default)]
    pub reuse: Option<Reuse>,
    /// What it needs while it runs.
    #[serde(default)]
    pub resources: Resources,
    /// Never two at a time: its processes end with its lease (I3).
    #[serde(default)]
    pub exclusive: bool,
    /// May be stopped and run again at any time.
    #[serde(default)]
    pub interruptible: bool,
    /// Between its polite signal and its kill, where that is not the coordinator's default. Ours.
    #[serde(default)]
    pub grace_ms: Option<u64>,
    /// Output through a pseudo-terminal.
    #[serde(default)]
    pub tty: bool,
    /// Position among the jobs of `parallelism`, from 0, and their number.
    #[serde(default)]
    pub parallel: Option<(u32, u32)>,
}

/// How many jobs of one group may hold a slot at a time (reference 9.1, 9.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// The group's name, shared by all pipelines.
    pub group: String,
    /// This job's limit, at least 1.
    pub limit: u32,
    /// Who is next.
    #[serde(default)]
    pub method: Method,
}

/// Who is next in a concurrency group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// First made, first run.
    #[default]
    Ordered,
    /// Whoever is ready.
    Eager,
}

/// A plugin as the step names it, its source written out in full (reference 12.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// Where it comes from, with `#version`.
    pub source: String,
    /// A mapping with its keys in the document's order, or null.
    #[serde(default)]
    pub config: Value,
}

/// A secret that a job gets as a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The secret's name.
    pub key: String,
    /// The variable's.
    pub env: String,
}

/// How the source is checked out; `None` and empty is the agent's own way (reference 11.7).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkout {
    /// Not at all.
    #[serde(default)]
    pub skip: Option<bool>,
    /// With submodules.
    #[serde(default)]
    pub submodules: Option<bool>,
    /// With large files.
    #[serde(default)]
    pub lfs: Option<bool>,
    /// Only so many commits.
    #[serde(default)]
    pub depth: Option<u32>,
    /// Flags of git's commands.
    #[serde(default)]
    pub flags: CheckoutFlags,
    /// Only these paths.
    #[serde(default)]
    pub sparse: Vec<String>,
    /// The secret that holds the key by which the repository is fetched.
    #[serde(default)]
    pub ssh_secret: Option<String>,
    /// Whether the commit must be on the branch that its build names.
    #[serde(default)]
    pub commit_verification: Option<CommitVerification>,
}

/// Flags of the commands of a checkout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckoutFlags {
    /// Of `git clone`.
    #[serde(default)]
    pub clone: Option<String>,
    /// Of `git fetch`.
    #[serde(default)]
    pub fetch: Option<String>,
    /// Of `git checkout`.
    #[serde(default)]
    pub checkout: Option<String>,
    /// Of `git clean`.
    #[serde(default)]
    pub clean: Option<String>,
}

/// Whether the commit that is checked out must be on the branch that its build names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitVerification {
    /// It must.
    Strict,
    /// It is told where it is not (of version 3 of Buildkite's agent).
    Warn,
    /// It is not looked at.
    Off,
}

impl CommitVerification {
    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Warn => "warn",
            Self::Off => "off",
        }
    }
}

/// Directories that are kept between jobs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cache {
    /// At least one.
    pub paths: Vec<String>,
    /// The volume's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its size in gigabytes.
    #[serde(default)]
    pub size_gb: Option<u32>,
    /// A template that names the content; with it the cache is ours, without it Buildkite's volume.
    #[serde(default)]
    pub key: Option<String>,
    /// Templates of keys that will do if there is nothing under `key`.
    #[serde(default)]
    pub restore_keys: Vec<String>,
}

/// What an earlier run of the same step must agree on for its result to be taken. Ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reuse {
    /// Globs of the files that it reads; empty: the whole tree.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// Queries of earlier steps' artifacts that it reads; they lie at their paths beside the files.
    #[serde(default)]
    pub artifacts: Vec<String>,
    /// Blobs that it reads; they lie at their paths beside the files. Each path once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<NamedBlob>,
    /// Globs of the files that it makes, uploaded as artifacts after the command.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Names of the variables that it reads, beside those that the pipeline writes itself.
    #[serde(default)]
    pub env: Vec<String>,
    /// Its secrets' versions may stand for them; without this a step that has secrets is never reused.
    #[serde(default)]
    pub secrets: bool,
    /// Of a million hits, how many run all the same and are compared.
    #[serde(default)]
    pub verify_ppm: u32,
}
