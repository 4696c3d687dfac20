//! The copy of the table on disk: what the segments say up to some record, so that a start reads only what follows.
//!
//! | module | owns |
//! | --- | --- |
//! | `block` | its bytes: blocks with checksums |
//! | `cursor` | numbers and digests in them |
//! | `summary` | what it says of itself, and of which segments it was made |
//! | `write` | making one of a moment, a part at a time |
//! | `read` | reading it back |
//!
//! The segments are the truth. The copy is written now and then beside them, and is believed only where it is whole and of these
//! segments (design 037); else the segments are read.

mod block;
pub(crate) mod cursor;
pub(crate) mod read;
mod summary;
mod write;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use windlass_protocol::limits::{COPY_AFTER_BYTES, COPY_AFTER_RECORDS, COPY_PIECE_BYTES, COPY_SHARE};

use crate::error::Fault;
use crate::store::Store;
use crate::vfs::VfsFile;
pub(crate) use block::sealed;
pub(crate) use summary::Upto;

/// A copy that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableCopy {
    /// Blobs in it.
    pub rows: usize,
    /// How long it is.
    pub bytes: u64,
    /// For how long others waited for it at most.
    pub longest_pause: Duration,
    /// Records and bytes that had been appended when it began.
    at: (u64, u64),
}

/// How a store came by its table when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opened {
    /// From the copy; else all segments were read.
    pub from_copy: bool,
    /// Records that were read.
    pub records: u64,
    /// Chunks were counted by reading the manifests of all blobs that have some.
    pub recounted: bool,
}

/// When the last copy was made.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Records and bytes that had been appended by then, and bytes that had been given back.
    at: (u64, u64, u64),
    /// How long it is.
    pub(crate) bytes: u64,
    /// It holds all that the store holds, unless something was appended since.
    current: bool,
    /// Segments that are known to be durable, of a lazy store.
    synced: HashSet<u32>,
}

impl Copies {
    /// Of a store that was opened so; one whose segments were read has none, and wants one as soon as it is worth it.
    pub(crate) fn opened(opened: Opened, bytes: u64) -> Self {
        Self { bytes, current: opened.from_copy && opened.records == 0 && !opened.recounted, ..Self::default() }
    }
}

impl Copies {
    /// There is none any more.
    pub(crate) const fn removed(&mut self) {
        (self.bytes, self.current) = (0, false);
    }
}

/// Where the copy lies in the store's directory.
pub(crate) const fn name() -> &'static str {
    "table"
}

/// Where one lies that is being written.
pub(crate) const fn temporary_name() -> &'static str {
    "table.tmp"
}

/// About how long a copy is.
fn estimate(rows: usize, chunks: usize) -> u64 {
    (rows as u64) * 60 + (chunks as u64) * 70 + COPY_PIECE_BYTES
}

/// Of the first bytes of a segment. Nothing where it is not that long.
pub(crate) fn hash_of(file: &dyn VfsFile, end: u64) -> io::Result<Option<[u8; 32]>> {
    if file.len()? < end {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    let (mut at, mut buffer) = (0, vec![0; 1 << 20]);
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..len).unwrap_or_default();
        file.read_exact_at(at, piece)?;
        hasher.update(piece);
        at += len as u64;
    }
    Ok(Some(*hasher.finalize().as_bytes()))
}

impl Store {
    /// Writes a copy of the table, where something changed since the last one: the next start reads it and what was appended
    /// after it. Everybody reads and writes meanwhile. Nothing where that is not possible now: too much changes, or bytes of a
    /// segment are damaged.
    ///
    /// # Errors
    /// [`Fault::NoSpace`] and others: the last copy is still there.
    pub fn copy_table(&self) -> Result<Option<TableCopy>, Fault> {
        self.copy_where(|_, _| true)
    }

    /// The same where it is worth it: when a start would read for half a second longer ([`COPY_AFTER_RECORDS`],
    /// [`COPY_AFTER_BYTES`]).
    ///
    /// # Errors
    /// As [`Store::copy_table`].
    pub fn copy_table_when_due(&self) -> Result<Option<TableCopy>, Fault> {
        self.copy_where(|(records, bytes), copy_bytes| {
            (records >= COPY_AFTER_RECORDS || bytes >= COPY_AFTER_BYTES) && bytes >= copy_bytes / COPY_SHARE
        })
    }

    fn copy_where(&self, due: impl Fn((u64, u64), u64) -> bool) -> Result<Option<TableCopy>, Fault> {
        let shared = &self.shared;
        let mut copies = shared.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let (records, bytes) = shared.appender.appended();
        let dropped = shared.counters.dropped_bytes();
        let since = (records - copies.at.0, (bytes - copies.at.1) + (dropped - copies.at.2));
        if copies.current && since == (0, 0) || !due(since, copies.bytes) {
            return Ok(None);
        }
        let written = shared.write_copy(&mut copies.synced)?;
        if let Some(copy) = &written {
            (copies.at, copies.bytes, copies.current) = ((copy.at.0, copy.at.1, dropped), copy.bytes, true);
            shared.counters.copy_bytes(copy.bytes);
        }
        Ok(written)
    }

    /// How it came by its table.
    #[must_use]
    pub fn opened(&self) -> Opened {
        self.shared.opened
    }
}
