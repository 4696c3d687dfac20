//! The model log service of the coordinator: durable bytes, bytes that a crash takes, and who waits for an end.

use std::collections::BTreeMap;

use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, Digest};

/// One attempt's log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Synced.
    pub durable: Vec<u8>,
    /// Appended, not yet synced: a crash takes them.
    pub pending: Vec<u8>,
    /// The connection that the last bytes came on: acknowledgements go there.
    pub conn: Option<u64>,
    /// Rights below it append nothing.
    pub fence: Epoch,
    /// Nothing is appended any more.
    pub sealed: bool,
    /// Somebody waits for this length and digest.
    pub wanted: Option<Wanted>,
}

/// An end that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// By which right it was asked.
    pub epoch: Epoch,
    /// The length.
    pub bytes: u64,
    /// The digest.
    pub digest: Digest,
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Taken (perhaps in part: what was there before is skipped).
    Taken,
    /// The right is too old, or the log is sealed.
    Fenced,
    /// It begins beyond the log's end.
    Gap {
        /// The log's end.
        end: u64,
    },
}

/// All logs.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    /// By attempt.
    pub by_attempt: BTreeMap<AttemptId, Log>,
    /// A sync is on its way.
    pub syncing: bool,
}

impl Logs {
    /// Appends a chunk.
    pub fn append(&mut self, conn: u64, attempt: AttemptId, epoch: Epoch, offset: u64, bytes: &[u8]) -> Appended {
        let log = self.by_attempt.entry(attempt).or_default();
        if log.sealed || epoch < log.fence {
            return Appended::Fenced;
        }
        let end = (log.durable.len() + log.pending.len()) as u64;
        if offset > end {
            return Appended::Gap { end };
        }
        let known = usize::try_from(end - offset).unwrap_or(usize::MAX);
        log.pending.extend_from_slice(bytes.get(known..).unwrap_or_default());
        log.conn = Some(conn);
        Appended::Taken
    }

    /// The first byte that is not durable.
    #[must_use]
    pub fn durable_end(&self, attempt: AttemptId) -> u64 {
        self.by_attempt.get(&attempt).map_or(0, |log| log.durable.len() as u64)
    }

    /// The coordinator's process is gone: bytes that were not synced, waiters and fences with it.
    pub fn crash(&mut self) {
        self.syncing = false;
        for log in self.by_attempt.values_mut() {
            log.pending.clear();
            (log.conn, log.wanted, log.fence) = (None, None, Epoch(0));
        }
    }
}

impl Log {
    /// Whether the wait is over, and how; `None` while bytes are missing.
    #[must_use]
    pub fn settled(&self, wanted: &Wanted) -> Option<Result<(), String>> {
        let end = self.durable.len() as u64;
        if end < wanted.bytes {
            return None;
        }
        if end > wanted.bytes {
            return Some(Err(format!("{end} bytes, {} were told", wanted.bytes)));
        }
        let agrees = Digest::of(&self.durable) == wanted.digest;
        Some(if agrees { Ok(()) } else { Err("another digest".to_owned()) })
    }
}
