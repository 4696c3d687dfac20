//! What is stored, where, and who may see it; in memory, rebuilt from the segments at open.
//!
//! Only what is durable gets in here (or, in a lazy store, what was written), so that every answer given from it holds
//! after a crash. Digests are chosen by strangers: the table is keyed (std's `RandomState`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use windlass_protocol::{Digest, Namespace};

/// A namespace's number in this process.
pub(crate) type NamespaceNo = u32;

/// Where a blob's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a segment.
    Small { segment: u32, offset: u64, bytes: u32 },
    /// In a file of its own; `segment` holds the record that says so.
    Large { segment: u32, bytes: u64 },
    /// In chunks; its manifest is in a segment.
    Chunked { segment: u32, offset: u64, bytes: u64 },
}

impl Place {
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Small { bytes, .. } => u64::from(bytes),
            Self::Large { bytes, .. } | Self::Chunked { bytes, .. } => bytes,
        }
    }

    const fn large_bytes(self) -> u64 {
        match self {
            Self::Small { .. } | Self::Chunked { .. } => 0,
            Self::Large { bytes, .. } => bytes,
        }
    }

    pub(crate) const fn segment(self) -> u32 {
        match self {
            Self::Small { segment, .. } | Self::Large { segment, .. } | Self::Chunked { segment, .. } => segment,
        }
    }
}

/// One stored blob.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    /// Sorted.
    seen_by: Vec<NamespaceNo>,
    /// One of them is a project's trusted content.
    trusted: bool,
    used: AtomicU64,
    /// Used since it was written, or since eviction passed by.
    pub(crate) hot: AtomicBool,
    /// Cloned by whoever needs the blob to stay.
    pub(crate) pin: Pin,
}

/// Keeps a blob from being evicted for as long as it lives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pin(Arc<()>);

impl Pin {
    /// Whether both are of the same entry: a blob that was removed and stored again has another.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether somebody else has it too.
    pub(crate) fn shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Entry {
    pub(crate) fn last_used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn pinned(&self) -> bool {
        self.pin.shared()
    }

    pub(crate) fn seen_by(&self) -> &[NamespaceNo] {
        &self.seen_by
    }

    /// Says whether it became trusted content by this.
    fn grant(&mut self, namespace: NamespaceNo, trusted: bool) -> bool {
        let fresh = trusted && !self.trusted;
        self.trusted |= trusted;
        if let Err(at) = self.seen_by.binary_search(&namespace) {
            self.seen_by.insert(at, namespace);
        }
        fresh
    }
}

/// What a durable record changes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Put { digest: Digest, namespace: NamespaceNo, place: Place },
    Grant { digest: Digest, namespace: NamespaceNo },
    Void { digest: Digest },
    Release { digest: Digest, namespace: NamespaceNo },
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: HashMap<Digest, Entry>,
    numbers: HashMap<Namespace, NamespaceNo>,
    names: Vec<Namespace>,
    bytes: u64,
    trusted_bytes: u64,
    large_bytes: u64,
    clock: AtomicU64,
}

impl Index {
    /// The namespace's number, which it gets here if it had none.
    pub(crate) fn intern(&mut self, namespace: &Namespace) -> NamespaceNo {
        if let Some(number) = self.numbers.get(namespace) {
            return *number;
        }
        let number = NamespaceNo::try_from(self.names.len()).unwrap_or(NamespaceNo::MAX);
        self.numbers.insert(namespace.clone(), number);
        self.names.push(namespace.clone());
        number
    }

    pub(crate) fn number(&self, namespace: &Namespace) -> Option<NamespaceNo> {
        self.numbers.get(namespace).copied()
    }

    pub(crate) fn name(&self, number: NamespaceNo) -> Option<&Namespace> {
        self.names.get(number as usize)
    }

    /// The blob, where the namespace may see it: what is its own, and for an overlay what is trusted (I12).
    pub(crate) fn visible(&self, namespace: &Namespace, digest: &Digest) -> Option<&Entry> {
        let entry = self.entries.get(digest)?;
        let seen_by = |namespace: &Namespace| {
            self.number(namespace).is_some_and(|number| entry.seen_by.binary_search(&number).is_ok())
        };
        let seen =
            seen_by(namespace) || namespace.overlay.is_some() && seen_by(&Namespace::trusted(&namespace.project));
        seen.then_some(entry)
    }

    /// The blob, whoever may see it.
    pub(crate) fn get(&self, digest: &Digest) -> Option<&Entry> {
        self.entries.get(digest)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Digest, &Entry)> {
        self.entries.iter()
    }

    /// Which namespaces have been interned, by number.
    pub(crate) fn names(&self) -> &[Namespace] {
        &self.names
    }

    /// Marks a use.
    pub(crate) fn touch(&self, entry: &Entry) {
        entry.used.store(self.tick(), Ordering::Relaxed);
        entry.hot.store(true, Ordering::Relaxed);
    }

    /// The next moment in the order of uses.
    pub(crate) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn apply(&mut self, change: Change) {
        let trusted = match change {
            Change::Put { namespace, .. } | Change::Grant { namespace, .. } => {
                self.name(namespace).is_some_and(|name| name.overlay.is_none())
            }
            Change::Void { .. } | Change::Release { .. } => false,
        };
        match change {
            Change::Put { digest, namespace, place } => {
                let used = AtomicU64::new(self.tick());
                let entry = self.entries.entry(digest).or_insert_with(|| {
                    self.bytes += place.bytes();
                    self.large_bytes += place.large_bytes();
                    let (seen_by, hot, pin) = (Vec::new(), AtomicBool::new(false), Pin::default());
                    Entry { place, seen_by, trusted: false, used, hot, pin }
                });
                entry.place = place;
                if entry.grant(namespace, trusted) {
                    self.trusted_bytes += entry.place.bytes();
                }
            }
            Change::Grant { digest, namespace } => {
                if let Some(entry) = self.entries.get_mut(&digest)
                    && entry.grant(namespace, trusted)
                {
                    self.trusted_bytes += entry.place.bytes();
                }
            }
            Change::Void { digest } => {
                self.remove(&digest);
            }
            Change::Release { digest, namespace } => self.release(&digest, namespace),
        }
    }

    /// Takes a blob from a namespace; the last one takes it away.
    fn release(&mut self, digest: &Digest, namespace: NamespaceNo) {
        let Some(entry) = self.entries.get_mut(digest) else { return };
        entry.seen_by.retain(|other| *other != namespace);
        if entry.seen_by.is_empty() {
            self.remove(digest);
            return;
        }
        let names = &self.names;
        let is_trusted = |number: &NamespaceNo| names.get(*number as usize).is_some_and(|name| name.overlay.is_none());
        if entry.trusted && !entry.seen_by.iter().any(is_trusted) {
            entry.trusted = false;
            self.trusted_bytes -= entry.place.bytes();
        }
    }

    pub(crate) fn remove(&mut self, digest: &Digest) -> Option<Entry> {
        let entry = self.entries.remove(digest)?;
        self.bytes -= entry.place.bytes();
        self.large_bytes -= entry.place.large_bytes();
        if entry.trusted {
            self.trusted_bytes -= entry.place.bytes();
        }
        Some(entry)
    }

    /// Bytes of blobs that have files of their own.
    pub(crate) const fn large_bytes(&self) -> u64 {
        self.large_bytes
    }

    /// Bytes of blobs that are trusted content.
    pub(crate) const fn trusted_bytes(&self) -> u64 {
        self.trusted_bytes
    }

    /// How many blobs, how many bytes of them, and how many namespaces.
    pub(crate) fn totals(&self) -> (usize, u64, usize) {
        (self.entries.len(), self.bytes, self.names.len())
    }
}
