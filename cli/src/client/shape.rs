//! The interface's JSON shapes, as far as commands look into them. What is printed with `--json` is the server's own.

use serde::Deserialize;
use serde_json::Value;

use super::ClientError;

/// A build.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Build {
    pub(crate) id: String,
    pub(crate) number: u64,
    pub(crate) pipeline: String,
    pub(crate) state: String,
    pub(crate) blocked: bool,
    pub(crate) branch: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) source: String,
    pub(crate) creator: Option<Creator>,
    pub(crate) created_at: Option<String>,
    pub(crate) started_at: Option<String>,
    pub(crate) finished_at: Option<String>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) annotations_count: usize,
    pub(crate) notifications_count: u32,
    pub(crate) untrusted: Option<String>,
    pub(crate) cause: Option<Cause>,
}

/// Who made a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Creator {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// A job.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) step_key: Option<String>,
    pub(crate) label: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) exit_status: Option<i64>,
    pub(crate) signal: Option<Value>,
    pub(crate) cause: Option<Cause>,
    pub(crate) soft_failed: bool,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) depends_on: Vec<String>,
    pub(crate) parallel_index: Option<u64>,
    pub(crate) parallel_total: Option<u64>,
    pub(crate) waiting_for: Option<Value>,
    pub(crate) triggered_build: Option<TriggeredBuild>,
    pub(crate) reused_from: Option<ReusedFrom>,
    pub(crate) gate: Option<Gate>,
    pub(crate) started_at: Option<String>,
    pub(crate) finished_at: Option<String>,
}

/// The build that a trigger step made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct TriggeredBuild {
    pub(crate) pipeline: String,
    pub(crate) number: u64,
}

/// Whose result a job ended with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ReusedFrom {
    pub(crate) pipeline: String,
    pub(crate) number: u64,
    pub(crate) at: String,
    pub(crate) fleet: Option<String>,
}

/// The token that a request is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct TokenShown {
    pub(crate) id: String,
    pub(crate) note: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) pipeline: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) expires_at: Option<String>,
}

/// Why a job ended with an earlier result, or did not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Explained {
    pub(crate) outcome: String,
    pub(crate) text: String,
    pub(crate) key: Option<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) gone: Option<Gone>,
    pub(crate) nearest: Option<Nearest>,
}

/// A result that was here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Gone {
    pub(crate) at: String,
}

/// The earlier result that has most in common with a step's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Nearest {
    pub(crate) from: ReusedFrom,
    pub(crate) key: String,
    pub(crate) differences: Vec<Difference>,
    pub(crate) cut: bool,
}

/// Something that is not what it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Difference {
    pub(crate) component: String,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

/// What a person is asked at a gate; the pipeline's own shape.
pub(crate) use windlass_pipeline::graph::Gate;

/// A try at a job.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Attempt {
    pub(crate) id: String,
    pub(crate) number: u64,
    pub(crate) state: String,
    pub(crate) exit_status: Option<i64>,
    pub(crate) signal: Option<Value>,
    pub(crate) cause: Option<Cause>,
    pub(crate) agent: Option<AgentOf>,
    pub(crate) started_at: Option<String>,
    pub(crate) finished_at: Option<String>,
}

/// The agent of an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct AgentOf {
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) pool: String,
}

/// Why something ended without a result of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Cause {
    pub(crate) kind: String,
    pub(crate) detail: Option<String>,
}

/// An agent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Agent {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) pool: String,
    pub(crate) zone: Option<String>,
    pub(crate) queues: Vec<String>,
    pub(crate) state: String,
    pub(crate) slots: Option<u64>,
    pub(crate) slots_used: Option<u64>,
    pub(crate) last_seen_at: Option<String>,
}

/// A secret, without its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct SecretShown {
    pub(crate) key: String,
    pub(crate) pipeline: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) updated_by: Option<Creator>,
    pub(crate) updated_at: Option<String>,
}

impl SecretShown {
    /// Whose jobs get it.
    pub(crate) fn whom(&self) -> String {
        let parts = [("pipeline", &self.pipeline), ("branch", &self.branch), ("zone", &self.zone)];
        let parts: Vec<_> =
            parts.iter().filter_map(|(what, value)| Some(format!("{what} {}", value.as_deref()?))).collect();
        if parts.is_empty() { "all trusted builds".to_owned() } else { parts.join(", ") }
    }
}

/// A token, without its secret.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) scopes: Option<Vec<String>>,
    pub(crate) pool: Option<String>,
    pub(crate) note: String,
    pub(crate) expires_at: Option<String>,
    pub(crate) uses_left: Option<u64>,
    pub(crate) not_before: Option<String>,
    pub(crate) allowed_cidrs: Vec<String>,
    pub(crate) name_pattern: Option<String>,
    pub(crate) revoked_at: Option<String>,
    pub(crate) agents: Vec<Admitted>,
    pub(crate) agents_cut: bool,
}

/// An agent that a token admitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Admitted {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) joined_at: String,
    pub(crate) gone: Option<String>,
}

/// A registered pipeline.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Pipeline {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) repository: Option<String>,
    pub(crate) default_branch: String,
    pub(crate) file: Option<String>,
    pub(crate) definition_digest: Option<String>,
    pub(crate) protected_refs: Vec<String>,
    pub(crate) env: serde_json::Map<String, Value>,
    pub(crate) timeout_in_minutes: Option<u64>,
    pub(crate) created_at: String,
}

impl Pipeline {
    /// Where its definition comes from, in few words.
    pub(crate) fn definition(&self) -> String {
        match (&self.definition_digest, &self.file) {
            (Some(_), _) => "kept by the server".to_owned(),
            (None, Some(file)) => file.clone(),
            (None, None) => "in the source".to_owned(),
        }
    }
}

/// A schedule of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Schedule {
    pub(crate) id: String,
    pub(crate) cron: String,
    pub(crate) timezone: String,
    pub(crate) branch: Option<String>,
    pub(crate) next_at: Option<String>,
    pub(crate) last: Option<Fired>,
}

/// What came of one of a schedule's times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Fired {
    pub(crate) number: Option<u64>,
    pub(crate) cause: Option<Cause>,
}

/// A piece of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) at: String,
    pub(crate) text: Option<String>,
    pub(crate) data: Option<String>,
}

impl Job {
    /// What people call it: its key or label, and its place among its step's elements.
    pub(crate) fn name(&self) -> String {
        let name = [&self.step_key, &self.label].into_iter().flatten().find(|name| !name.is_empty());
        self.numbered(name.map_or("step", String::as_str))
    }

    /// Its label, else its key.
    pub(crate) fn title(&self) -> String {
        let name = [&self.label, &self.step_key].into_iter().flatten().find(|name| !name.is_empty());
        self.numbered(name.map_or("step", String::as_str))
    }

    fn numbered(&self, name: &str) -> String {
        let line = name.lines().next().unwrap_or_default();
        let mut shown: String = line.chars().filter(|c| !c.is_control()).collect();
        if let (Some(index), Some(total)) = (self.parallel_index, self.parallel_total) {
            shown.push_str(&format!(" {}/{total}", index + 1));
        }
        shown
    }

    /// Whether an agent runs it.
    pub(crate) fn is_command(&self) -> bool {
        self.kind == "command"
    }

    /// Whether it does something that takes its time.
    pub(crate) fn is_work(&self) -> bool {
        self.is_command() || self.kind == "trigger"
    }

    /// Whether it has ended, for now.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self.state.as_str(),
            "passed"
                | "failed"
                | "canceled"
                | "timed_out"
                | "skipped"
                | "broken"
                | "expired"
                | "waiting_failed"
                | "blocked_failed"
                | "unblocked"
                | "unblocked_failed"
        )
    }

    /// Whether a word that a user gave names it.
    pub(crate) fn is_named(&self, word: &str) -> bool {
        self.id == word
            || self.step_key.as_deref() == Some(word)
            || self.label.as_deref() == Some(word)
            || self.name() == word
            || self.attempts.iter().any(|attempt| attempt.id == word)
    }
}

impl Build {
    /// `pipeline/number`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.pipeline, self.number)
    }
}

impl Piece {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        use base64::Engine as _;
        match (&self.text, &self.data) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(data)) => base64::engine::general_purpose::STANDARD.decode(data).unwrap_or_default(),
            (None, None) => Vec::new(),
        }
    }
}

/// Reads a shape out of an answer.
pub(crate) fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, ClientError> {
    T::deserialize(value).map_err(|source| ClientError::Garbled { url: "the server".to_owned(), source })
}
