//! Why the store could not do its work.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::WriterEpoch;

/// The world's doing (or ours). After any of these from a commit, nothing of that commit may be believed: load again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The disk is full, the reserve included. Nothing was committed; what was committed before is safe.
    #[error("the disk is full; what was committed before is safe")]
    DiskFull,
    /// Another writer has taken over; this one must end.
    #[error("another writer has taken over (its epoch is {}, ours {})", held.0, got.0)]
    Fenced {
        /// The writer that counts.
        held: WriterEpoch,
        /// The one that asked.
        got: WriterEpoch,
    },
    /// What is stored cannot be read back. Someone must act.
    #[error("the store is damaged: {detail}")]
    Corrupt {
        /// What and where.
        detail: String,
    },
    /// Reading or writing failed in another way; trying again may help.
    #[error("the store could not {doing}: {detail}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        detail: String,
    },
    /// More events in one commit than their numbers have room for.
    #[error("a commit of {events} events is larger than the store's numbers allow")]
    TooLarge {
        /// How many.
        events: usize,
    },
}

impl Fault {
    pub(crate) fn io(doing: &'static str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull {
            return Self::DiskFull;
        }
        Self::Io { doing, detail: error.to_string() }
    }
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another coordinator has it.
    #[error("{} is in use by another coordinator{}", dir.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The other's process, if it left its number.
        pid: Option<u32>,
    },
    /// It was written by a newer Windlass.
    #[error("{} has schema version {found}, this Windlass knows {known} at most: use a newer one", path.display())]
    NewerSchema {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that we can read.
        known: u32,
    },
    /// There is no store in it.
    #[error("{} holds no store", dir.display())]
    NotThere {
        /// The directory.
        dir: PathBuf,
    },
    /// A file of it says what no Windlass has written.
    #[error("{} is not a file of a Windlass data directory: {detail}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it says.
        detail: String,
    },
    /// The system refused.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store itself failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl OpenError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }

    /// What a person can do about it; `None` where we would only be guessing.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => {
                Some("stop the other coordinator, or give this one a directory of its own with --data")
            }
            Self::NewerSchema { .. } => {
                Some("a backup of the older schema may stand beside it as store.sqlite.v<N>.bak")
            }
            Self::Fault(Fault::DiskFull) => Some("make room on the disk and start again; nothing is lost"),
            Self::Foreign { .. } | Self::Io { .. } | Self::Fault(_) | Self::NotThere { .. } => None,
        }
    }
}
