//! Why something ended without a result of its own.

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "the archived twins and resolvers that rkyv derives carry neither docs nor Debug"
)]

use std::fmt;
use std::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};

macro_rules! cause_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $retryable:literal;)*) => {
        /// The kinds of cause; names and meaning are fixed by the interface.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
            serde::Serialize, serde::Deserialize,
        )]
        #[rkyv(derive(Debug))]
        #[serde(rename_all = "snake_case")]
        pub enum CauseKind { $($(#[$doc])* $variant,)* }

        impl CauseKind {
            /// All kinds, in the interface's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in JSON and in `retry.automatic[].cause`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether another try can be expected to end otherwise.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }
        }

        impl FromStr for CauseKind {
            type Err = NotACause;

            fn from_str(text: &str) -> Result<Self, NotACause> {
                match text {
                    $($name => Ok(Self::$variant),)*
                    _ => Err(NotACause { text: text.chars().take(64).collect() }),
                }
            }
        }
    };
}

cause_kinds! {
    /// The agent was declared lost.
    AgentLost = "agent_lost", true;
    /// The agent lives, its right to the job had ended.
    LeaseLost = "lease_lost", true;
    /// The agent was stopped while it ran the job.
    AgentStopped = "agent_stopped", true;
    /// The machine's owner took it back with notice.
    SpotNotice = "spot_notice", true;
    /// The memory limit ended the job.
    OutOfMemory = "out_of_memory", false;
    /// The agent's disk was full.
    DiskFull = "disk_full", true;
    /// The job ran longer than it may.
    Timeout = "timeout", false;
    /// Somebody canceled it.
    Canceled = "canceled", false;
    /// A newer build of the branch took its place.
    Superseded = "superseded", false;
    /// No agent took it in time.
    Expired = "expired", false;
    /// The image does not exist where it was looked for.
    ImageMissing = "image_missing", false;
    /// The image could not be fetched.
    ImagePullFailed = "image_pull_failed", true;
    /// The repository could not be checked out.
    CheckoutFailed = "checkout_failed", true;
    /// The source tree is not in the cache.
    SourceMissing = "source_missing", false;
    /// An artifact that the step needs does not exist.
    ArtifactMissing = "artifact_missing", false;
    /// A hook failed.
    HookFailed = "hook_failed", false;
    /// A plugin could not be prepared.
    PluginFailed = "plugin_failed", false;
    /// A secret that the step asks for does not exist.
    SecretMissing = "secret_missing", false;
    /// Something it depends on failed.
    DependencyFailed = "dependency_failed", false;
    /// No pool serves its queue.
    NoSuchQueue = "no_such_queue", false;
    /// A policy forbids it.
    RefusedByPolicy = "refused_by_policy", false;
    /// Our own fault.
    Internal = "internal", true;
}

/// A text that names no kind of cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a cause")]
pub struct NotACause {
    /// What was given, cut to 64 characters.
    pub text: String,
}

impl fmt::Display for CauseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a job or attempt ended without a result of its own.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[rkyv(derive(Debug))]
pub struct Cause {
    /// The kind, for rules and programs.
    pub kind: CauseKind,
    /// One sentence for people; never holds a secret (I6).
    pub detail: String,
}

impl Cause {
    /// A cause with its sentence.
    #[must_use]
    pub fn new(kind: CauseKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_its_own_name_back_in_text_and_json() {
        for kind in CauseKind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert!("agent-lost".parse::<CauseKind>().is_err());
    }
}
