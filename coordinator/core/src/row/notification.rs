//! Notifications: what somebody outside is to hear of a build, and what came of it (docs/design/025).

use serde::{Deserialize, Serialize};
use windlass_protocol::{BuildId, NotificationId, PipelineId, WallMs};

use super::{Actor, BuildSource};

/// One message to one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRow {
    /// Its id: receivers tell repetitions by it.
    pub id: NotificationId,
    /// The build that it tells of.
    pub build: BuildId,
    /// The build's project: it has its share of what may wait.
    #[serde(default)]
    pub project: String,
    /// The build is not trusted: its notifications take no place of those that are.
    #[serde(default)]
    pub untrusted: bool,
    /// Its place among all that wait, in the order of their making: ids follow a clock, which may go back.
    #[serde(default)]
    pub order: u64,
    /// What is told to whom, as it was when it became due.
    pub message: Message,
    /// How far it is.
    pub state: NotificationState,
    /// Tries so far.
    #[serde(default)]
    pub attempts: u32,
    /// The status of the last answer.
    #[serde(default)]
    pub status: Option<u16>,
    /// Why the last try failed, for people.
    #[serde(default)]
    pub detail: String,
    /// When it became due.
    pub created_at: WallMs,
    /// When it is tried next.
    pub due_at: WallMs,
    /// When it was over.
    #[serde(default)]
    pub finished_at: Option<WallMs>,
}

/// How far a notification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationState {
    /// It waits, or is on its way.
    Pending,
    /// Its receiver took it.
    Delivered,
    /// It was given up, or its receiver refused it.
    Failed,
    /// It was never to be sent.
    Refused,
}

impl NotificationState {
    /// Whether nothing more comes of it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Pending => false,
            Self::Delivered | Self::Failed | Self::Refused => true,
        }
    }
}

/// What is told, and to whom. Further services are further kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "service")]
pub enum Message {
    /// An event of a build, as a signed `POST`.
    Webhook {
        /// Where to, as the pipeline says.
        url: String,
        /// What happened.
        event: BuildNews,
        /// The build as it was then.
        facts: Box<BuildFacts>,
    },
    /// The state of a commit, at the server of its repository.
    GithubCommitStatus {
        /// The repository that the pipeline is registered with.
        repository: String,
        /// The full commit id.
        commit: String,
        /// Which of the commit's statuses.
        context: String,
        /// Which state.
        state: CommitState,
        /// For people.
        description: String,
    },
    /// To a service that nothing is sent to, or not for this build: only ever refused.
    Unsent {
        /// As written in the pipeline.
        name: String,
    },
}

impl Message {
    /// The service, as it is written in pipelines.
    #[must_use]
    pub fn service(&self) -> &str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::GithubCommitStatus { .. } => "github_commit_status",
            Self::Unsent { name } => name,
        }
    }

    /// Whose messages share a bounded number of places: a webhook's scheme and host, a status's repository.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Self::Webhook { url, .. } => origin_of(url).to_owned(),
            Self::GithubCommitStatus { repository, .. } => format!("status {repository}"),
            Self::Unsent { name } => name.clone(),
        }
    }

    /// What messages of a target must be sent in their order: those of one URL about one build, those of one commit.
    #[must_use]
    pub fn lane(&self, build: BuildId) -> String {
        match self {
            Self::Webhook { url, .. } => format!("{build} {url}"),
            Self::GithubCommitStatus { commit, .. } => commit.clone(),
            Self::Unsent { .. } => String::new(),
        }
    }
}

/// A URL up to the end of its host and port.
#[must_use]
pub fn origin_of(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(host..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(url.len(), |at| host + at);
    url.get(..end).unwrap_or(url)
}

/// An event of a build, in Buildkite's words (reference 22.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BuildNews {
    /// It was made.
    #[serde(rename = "build.scheduled")]
    Scheduled,
    /// A job of it has started, or one is run again.
    #[serde(rename = "build.running")]
    Running,
    /// A hard failure exists, and jobs may still run.
    #[serde(rename = "build.failing")]
    Failing,
    /// Nothing of it can run until somebody opens a gate.
    #[serde(rename = "build.blocked")]
    Blocked,
    /// It ended.
    #[serde(rename = "build.finished")]
    Finished,
    /// A newer build took its place before it started.
    #[serde(rename = "build.skipped")]
    Skipped,
}

impl BuildNews {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "build.scheduled",
            Self::Running => "build.running",
            Self::Failing => "build.failing",
            Self::Blocked => "build.blocked",
            Self::Finished => "build.finished",
            Self::Skipped => "build.skipped",
        }
    }
}

/// A commit's state, in GitHub's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitState {
    /// It waits or runs.
    Pending,
    /// It passed.
    Success,
    /// It failed.
    Failure,
    /// It came to no result.
    Error,
}

impl CommitState {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
        }
    }
}

/// A build as it was when something happened to it. Neither variables nor meta-data: jobs write those.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFacts {
    /// As in the build.
    pub number: u64,
    /// As in the build.
    pub pipeline: String,
    /// The registered pipeline's.
    #[serde(default)]
    pub pipeline_id: Option<PipelineId>,
    /// The registered pipeline's.
    #[serde(default)]
    pub repository: Option<String>,
    /// In the words of conditions: as the build's, or `blocked`.
    pub state: String,
    /// It waits at a gate.
    pub blocked: bool,
    /// As in the build.
    pub branch: String,
    /// As in the build.
    pub commit: String,
    /// As in the build.
    #[serde(default)]
    pub tag: Option<String>,
    /// As in the build, cut.
    pub message: String,
    /// As in the build.
    pub source: BuildSource,
    /// As in the build.
    pub creator: Actor,
    /// As in the build.
    #[serde(default)]
    pub rebuilt_from: Option<BuildId>,
    /// As in the build.
    pub created_at: WallMs,
    /// As in the build.
    #[serde(default)]
    pub started_at: Option<WallMs>,
    /// As in the build.
    #[serde(default)]
    pub finished_at: Option<WallMs>,
}

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The receiver took it.
    Done {
        /// The answer's status.
        status: u16,
    },
    /// It may go better later.
    Later {
        /// The answer's status, if one came.
        status: Option<u16>,
        /// For people.
        detail: String,
        /// The receiver asks not to be called before.
        after_ms: Option<u64>,
    },
    /// It never will.
    Never {
        /// The answer's status, if one came.
        status: Option<u16>,
        /// For people.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_ends_with_its_host() {
        for (url, origin) in [
            ("https://h.example/a/b?c", "https://h.example"),
            ("http://h:8080?x", "http://h:8080"),
            ("https://h", "https://h"),
            ("nonsense/x", "nonsense"),
        ] {
            assert_eq!(origin_of(url), origin);
        }
    }
}
