//! The rows of blobs: 52 bytes each, and beside them what few blobs have.

use std::sync::atomic::{AtomicU32, Ordering};

use windlass_protocol::Digest;

use crate::copy::cursor::{Cursor, Fixed};
use crate::flat;

/// What a row takes in a copy.
pub(crate) const ROW_BYTES: usize = 52;

/// And what is beside it.
pub(crate) const WIDE_BYTES: usize = 40;

/// One stored blob.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) digest: Digest,
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Of a small blob its length, of one in chunks that of its manifest.
    pub(super) bytes: u32,
    /// The set of namespaces that see it, and above that the flags.
    pub(super) set: AtomicU32,
    pub(super) used: AtomicU32,
}

/// The table.
pub(super) type Table = flat::Table<Row>;

impl flat::Row for Row {
    type Key = Digest;

    fn key(&self) -> Digest {
        self.digest
    }
}

impl Clone for Row {
    fn clone(&self) -> Self {
        let atomic = |of: &AtomicU32| AtomicU32::new(of.load(Ordering::Relaxed));
        Self { set: atomic(&self.set), used: atomic(&self.used), ..*self }
    }
}

impl Row {
    pub(super) fn has(&self, flag: u32) -> bool {
        self.set.load(Ordering::Relaxed) & flag != 0
    }

    pub(super) fn raise(&self, flag: u32) {
        if !self.has(flag) {
            self.set.fetch_or(flag, Ordering::Relaxed);
        }
    }

    /// Says whether it was up.
    pub(super) fn lower(&self, flag: u32) -> bool {
        self.set.fetch_and(!flag, Ordering::Relaxed) & flag != 0
    }
}

impl Fixed for Row {
    const BYTES: usize = ROW_BYTES;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.digest.as_bytes());
        for word in [self.segment, self.offset, self.bytes] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.set.load(Ordering::Relaxed).to_le_bytes());
        out.extend_from_slice(&self.used.load(Ordering::Relaxed).to_le_bytes());
    }

    fn decode(from: &mut Cursor<'_>) -> Option<Self> {
        Some(Self {
            digest: from.digest()?,
            segment: from.u32()?,
            offset: from.u32()?,
            bytes: from.u32()?,
            set: AtomicU32::new(from.u32()?),
            used: AtomicU32::new(from.u32()?),
        })
    }
}

/// How long a blob is that is not small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wide {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

/// Which segment says after a blob's own record who sees it, for good; and how many it names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted {
    pub(super) digest: Digest,
    pub(super) segment: u32,
    pub(super) namespaces: u32,
}

impl flat::Row for Wide {
    type Key = Digest;

    fn key(&self) -> Digest {
        self.digest
    }
}

impl flat::Row for Noted {
    type Key = Digest;

    fn key(&self) -> Digest {
        self.digest
    }
}

impl Fixed for Wide {
    const BYTES: usize = WIDE_BYTES;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.digest.as_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
    }

    fn decode(from: &mut Cursor<'_>) -> Option<Self> {
        Some(Self { digest: from.digest()?, bytes: from.u64()? })
    }
}

impl Fixed for Noted {
    const BYTES: usize = WIDE_BYTES;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.digest.as_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.namespaces.to_le_bytes());
    }

    fn decode(from: &mut Cursor<'_>) -> Option<Self> {
        Some(Self { digest: from.digest()?, segment: from.u32()?, namespaces: from.u32()? })
    }
}
