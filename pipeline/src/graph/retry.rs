//! What becomes of a failed job: retries by rule and by hand, and failures that are forgiven (reference 10.1–10.3).

use serde::{Deserialize, Serialize};
use windlass_protocol::cause::CauseKind;

/// One rule of `retry.automatic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRule {
    /// Which exit statuses; -1 is an agent that was lost.
    pub exit_status: StatusMatch,
    /// Which signals, by number; `None` is any or none.
    #[serde(default)]
    pub signal: Option<SignalMatch>,
    /// Which causes; `None` is any or none. Ours, and what `signal_reason` comes to.
    #[serde(default)]
    pub cause: Option<Vec<CauseKind>>,
    /// Beside the causes listed, an end without any: `signal_reason: none`.
    #[serde(default)]
    pub or_no_cause: bool,
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
    /// Ended by no signal, or by one of these.
    NoneOr(Vec<i32>),
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
