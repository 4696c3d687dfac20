//! Why a pipeline's text does not come out of its repository.

use std::time::Duration;

use windlass_git::said::may_be_damage;
use windlass_git::{BadRepository, GitError};
use windlass_pipeline::file::NoFile;
use windlass_protocol::limits::PIPELINE_MAX_BYTES;

/// Why there is no text. What git said is in it without credentials (I6).
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// What was named is no repository, or none that may be fetched.
    #[error(transparent)]
    Repository(#[from] BadRepository),
    /// What was named is no branch, tag or ref.
    #[error("`{0}` is no name of a branch, tag or ref")]
    BadReference(String),
    /// What was named is no commit.
    #[error("a commit is a full id of 40 or 64 hex digits, or HEAD")]
    BadCommit,
    /// The pipeline's file is no path within a repository.
    #[error("`{0}` is no path within a repository")]
    BadPath(String),
    /// The repository does not answer, or lets us not in.
    #[error("the repository cannot be fetched: {said}")]
    Unreachable {
        /// What git said.
        said: String,
    },
    /// The repository has no such branch, tag or ref.
    #[error("the repository has no `{0}`")]
    NoSuchReference(String),
    /// The repository has no such commit, or does not give it.
    #[error("the repository has no commit {0}, or does not serve it by itself")]
    NoSuchCommit(String),
    /// The commit has no pipeline.
    #[error("at {commit} {why}")]
    NoFile {
        /// Where it was looked for.
        commit: String,
        /// Why.
        why: NoFile,
    },
    /// The commit has not the file that its pipeline names.
    #[error("{commit} has no file {path}")]
    NoSuchFile {
        /// Where it was looked for.
        commit: String,
        /// The file.
        path: String,
    },
    /// The file is larger than a pipeline may be.
    #[error("{path} has more than {PIPELINE_MAX_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: String,
    },
    /// The file is empty, or not UTF-8.
    #[error("{path} is {what}")]
    NotText {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The repository is larger than a mirror may be.
    #[error("the repository is larger than the coordinator mirrors")]
    RepositoryTooLarge,
    /// Not within a client's patience; the fetch may go on.
    #[error("the repository was not read within {} s; try again", .0.as_secs())]
    TimedOut(Duration),
    /// Too many wait already.
    #[error("too many pipelines are read from repositories at once; try again")]
    Busy,
    /// No space for the mirror.
    #[error("the coordinator's disk is full")]
    StorageFull,
    /// Our fault: git is missing, or a file cannot be written.
    #[error("{doing}: {what}")]
    Fault {
        /// What was tried.
        doing: &'static str,
        /// What went wrong.
        what: String,
    },
}

/// What was tried where a mirror does not say what it holds.
const UNREADABLE: &str = "the mirror of the repository cannot be read";

impl DefinitionError {
    /// Whether it may be the mirror's own fault.
    pub(super) fn may_be_damage(&self) -> bool {
        match self {
            Self::Unreachable { said } => may_be_damage(said),
            Self::Fault { doing, what } => *doing == UNREADABLE && may_be_damage(what),
            _ => false,
        }
    }

    /// Something of ours that went wrong.
    pub(super) fn fault(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::StorageFull,
            _ => Self::Fault { doing, what: error.to_string() },
        }
    }

    /// What a git that fetches, or may fetch, ended with.
    pub(super) fn of_fetch(error: GitError) -> Self {
        match error {
            GitError::NotRun(error) => Self::fault("git cannot be run")(error),
            GitError::TimedOut { after, .. } => Self::TimedOut(after),
            GitError::Refused { said, .. } if said.contains("No space left on device") => Self::StorageFull,
            GitError::Refused { said, .. } if is_past_limit(&said) => Self::RepositoryTooLarge,
            GitError::Refused { said, .. } => Self::Unreachable { said },
            error @ GitError::TooMuch { .. } => Self::Unreachable { said: error.to_string() },
        }
    }

    /// What a git that only looks ended with.
    pub(super) fn of_look(error: GitError) -> Self {
        match error {
            GitError::TimedOut { after, .. } => Self::TimedOut(after),
            GitError::NotRun(error) => Self::fault("git cannot be run")(error),
            error @ GitError::Refused { .. } => Self::Fault { doing: UNREADABLE, what: error.to_string() },
            error @ GitError::TooMuch { .. } => {
                Self::Fault { doing: "the mirror of the repository has too much", what: error.to_string() }
            }
        }
    }
}

/// Whether a write went past the limit of a file: the word of the system, or nothing but that git's writer is gone, for a
/// signal ended it. What else ends it says so before.
fn is_past_limit(said: &str) -> bool {
    let complaints = said.lines().filter(|line| line.starts_with("fatal:") || line.starts_with("error:"));
    said.contains("File too large") || complaints.eq(["fatal: fetch-pack: invalid index-pack output"])
}
