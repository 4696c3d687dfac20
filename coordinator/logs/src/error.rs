//! What can go wrong with a log: the caller's doing ([`Refused`]) and the disk's ([`Fault`]).

use std::io;
use std::path::{Path, PathBuf};

use windlass_protocol::AttemptId;
use windlass_protocol::job::Epoch;

/// The caller's doing; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Bytes before these are missing.
    #[error("bytes are missing before this piece: the log goes on at offset {expected}")]
    Gap {
        /// Where the log goes on.
        expected: u64,
    },
    /// The right to write has passed to a newer epoch (I3).
    #[error("the right to write this log has passed to epoch {}", least.0)]
    Fenced {
        /// The least epoch that may write.
        least: Epoch,
    },
    /// The log has ended.
    #[error("the log has ended and takes nothing more")]
    Ended,
    /// Other bytes stand at this offset already (I4).
    #[error("other bytes stand at offset {offset} already")]
    Differs {
        /// Where the piece began.
        offset: u64,
    },
    /// The log would be too long.
    #[error("the log would be longer than {limit_bytes} bytes")]
    TooLong {
        /// The limit.
        limit_bytes: u64,
    },
    /// The store is closing.
    #[error("the log store is closing")]
    Closing,
}

/// Ours or the disk's doing.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The disk refused.
    #[error("could not {what} {path}")]
    Disk {
        /// The verb.
        what: &'static str,
        /// Of which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Bytes on the disk are not what was written.
    #[error("{path} is damaged at byte {position}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// There is no such log.
    #[error("there is no log of attempt {attempt}")]
    Unknown {
        /// Of this attempt.
        attempt: AttemptId,
    },
    /// The store was closed meanwhile.
    #[error("the log store is closing")]
    Closing,
}

impl Fault {
    /// For `map_err`: says what was tried, and on what.
    pub(crate) fn disk(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk { what, path, source }
    }

    /// Whether space is what is missing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if is_full(source))
    }
}

/// Whether space (or quota) is what is missing.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
