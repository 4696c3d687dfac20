//! Appends records to the last segment; one sync serves everybody who waits (group commit).
//!
//! Writing happens under one lock, in order. Syncing happens outside it: the first who waits leads, those who come while
//! a sync runs are served by the next one. The index learns of records after their sync, in their order; in a lazy
//! store at once.

mod restate;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use windlass_protocol::Digest;
use windlass_protocol::limits::COMMIT_BUFFER_BYTES;

use crate::alias::Sha256Digest;
use crate::chunk::FileNo;
use crate::error::{Fault, OrFault as _};
use crate::index::{Change, Index, NamespaceNo, Place};
use crate::segment::record::{Header, Kind, RECORD_HEADER_BYTES};
use crate::segment::{self, HEAD_BYTES};
use crate::store::Durability;
use crate::vfs::{Vfs, VfsFile};
pub(crate) use restate::{Bytes, Restated};

/// Of records that are of no blob.
pub(crate) const NO_DIGEST: Digest = Digest::from_bytes([0; 32]);

/// What to append, on behalf of a namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Item<'a> {
    /// A small blob; where it is stored already, a grant, or nothing, stands for it.
    Blob { digest: Digest, bytes: &'a [u8] },
    /// A small blob again, out of a segment that goes away.
    Moved { digest: Digest, bytes: &'a [u8] },
    /// The record of a large blob in a file of its own, again.
    MovedLarge { digest: Digest, bytes: u64 },
    /// What a chunk file holds that is in place and durable; or, where it moves, what it holds by now.
    Chunks { file: FileNo, listing: &'a [u8] },
    /// A large blob whose chunks are in place, and said to be so by records before this one.
    Manifest { digest: Digest, manifest: &'a [u8], bytes: u64 },
    /// Its manifest again.
    MovedManifest { digest: Digest, manifest: &'a [u8], bytes: u64 },
    /// A blob that is stored becomes visible.
    Grant { digest: Digest },
    /// Who sees a blob, all of them, sorted.
    Seen { digest: Digest, seen_by: &'a [NamespaceNo] },
    /// Of which blob a SHA-256 is.
    Alias { digest: Digest, alias: &'a Sha256Digest },
    /// A blob is damaged, or gone. It leaves the index at once.
    Void { digest: Digest },
    /// The namespace sees a blob no more. Nobody else writes meanwhile (`Shared::releasing`).
    Release { digest: Digest },
}

/// A position in the order of appends; [`Appender::wait`] for it to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Ticket(u64);

/// The segment that grows.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) salt: [u8; 32],
    pub(crate) end: u64,
    /// Namespaces that have a record in it.
    pub(crate) declared: HashSet<NamespaceNo>,
}

/// How far the last segment goes at a moment.
#[derive(Debug)]
pub(crate) struct Position {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) end: u64,
    pub(crate) declared: HashSet<NamespaceNo>,
    /// Appended since the store was opened.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct Writer {
    active: Option<Active>,
    next_number: u32,
    /// Appended since the store was opened, and what it read at the start after its copy.
    records: u64,
    bytes: u64,
    appended: Ticket,
    /// Everything up to here is durable.
    synced: Ticket,
    /// What the index will learn after the next sync.
    unsynced: Vec<Change>,
    /// What it will learn when the sync ends that runs now.
    syncing: Arc<Vec<Change>>,
    /// Blobs that were written and are not in the index yet.
    in_flight: HashSet<Digest>,
    poisoned: bool,
}

#[derive(Debug, Default)]
struct Gate {
    synced: Ticket,
    syncing: bool,
    poisoned: bool,
}

/// Segments of the store that are open.
pub(crate) type Segments = RwLock<HashMap<u32, Arc<dyn VfsFile>>>;

#[derive(Debug)]
pub(crate) struct Appender {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    durability: Durability,
    segment_bytes: u64,
    index: Arc<RwLock<Index>>,
    segments: Arc<Segments>,
    writer: Mutex<Writer>,
    gate: Mutex<Gate>,
    turn: Condvar,
}

/// Records that go to the disk in one write.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Change>,
    declares: HashSet<NamespaceNo>,
    records: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Appender {
    pub(crate) fn new(
        (vfs, dir): (Arc<dyn Vfs>, PathBuf),
        (durability, segment_bytes): (Durability, u64),
        (index, segments): (Arc<RwLock<Index>>, Arc<Segments>),
        (active, next_number): (Option<Active>, u32),
        (records, bytes): (u64, u64),
    ) -> Self {
        let writer = Writer {
            active,
            next_number,
            records,
            bytes,
            appended: Ticket::default(),
            synced: Ticket::default(),
            unsynced: Vec::new(),
            syncing: Arc::default(),
            in_flight: HashSet::new(),
            poisoned: false,
        };
        Self {
            vfs,
            dir,
            durability,
            segment_bytes,
            index,
            segments,
            writer: Mutex::new(writer),
            gate: Mutex::default(),
            turn: Condvar::new(),
        }
    }

    /// The number of the segment that grows.
    pub(crate) fn active_number(&self) -> Option<u32> {
        lock(&self.writer).active.as_ref().map(|active| active.number)
    }

    /// Lets the segment of a lazy store that grows grow no more, so that it can go, unless it has less than `least_bytes`. Says
    /// whether it had.
    pub(crate) fn retire(&self, least_bytes: u64) -> bool {
        let mut writer = lock(&self.writer);
        let lazy = self.durability == Durability::Lazy;
        writer.active.take_if(|active| lazy && active.end >= least_bytes).is_some()
    }

    /// How far the last segment goes; nothing where there is none.
    pub(crate) fn position(&self) -> Option<Position> {
        let writer = lock(&self.writer);
        let Active { number, file, end, declared, .. } = writer.active.as_ref()?;
        let (number, file, end, declared) = (*number, Arc::clone(file), *end, declared.clone());
        Some(Position { number, file, end, declared, records: writer.records, bytes: writer.bytes })
    }

    /// Records and bytes that a start without a newer copy would read, as far as they came since the last one.
    pub(crate) fn appended(&self) -> (u64, u64) {
        let writer = lock(&self.writer);
        (writer.records, writer.bytes)
    }

    /// Appends and waits until it is durable.
    pub(crate) fn commit(&self, namespace: NamespaceNo, items: &[Item<'_>]) -> Result<(), Fault> {
        let ticket = self.append(namespace, items)?;
        self.wait(ticket)
    }

    /// Appends. Nothing of it is visible before a [`Self::wait`] for the ticket has returned, unless the store is lazy.
    pub(crate) fn append(&self, namespace: NamespaceNo, items: &[Item<'_>]) -> Result<Ticket, Fault> {
        let mut writer = lock(&self.writer);
        if writer.poisoned {
            return Err(self.poisoned());
        }
        let before = writer.appended;
        let mut batch = Batch::default();
        for item in items {
            let Some(item) = self.needed(&writer, namespace, *item) else { continue };
            self.encode(&mut writer, &mut batch, namespace, item)?;
            if batch.bytes.len() >= COMMIT_BUFFER_BYTES {
                self.flush(&mut writer, &mut batch)?;
            }
        }
        self.flush(&mut writer, &mut batch)?;
        // What was in the index already is durable: whoever brought nothing new waits for nobody.
        Ok(if writer.appended == before { Ticket::default() } else { writer.appended })
    }

    /// What of an item is not on the disk yet.
    fn needed<'a>(&self, writer: &Writer, namespace: NamespaceNo, item: Item<'a>) -> Option<Item<'a>> {
        if let Item::Alias { digest, alias } = item {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            // While the blob is there, compaction keeps what says so.
            let known = index.get(&digest).is_some() && index.aliases().get(alias) == Some(digest);
            return (!known).then_some(item);
        }
        let (Item::Blob { digest, .. } | Item::Manifest { digest, .. } | Item::Grant { digest }) = item else {
            return Some(item);
        };
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = index.get(&digest) {
            // Whoever brings what is there is told so.
            index.promise(entry);
        }
        match (index.get(&digest), index.name(namespace)) {
            (Some(_), Some(name)) if index.visible(name, &digest).is_some() => None,
            (Some(_), _) => Some(Item::Grant { digest }),
            (None, _) if writer.in_flight.contains(&digest) => Some(Item::Grant { digest }),
            (None, _) => Some(item),
        }
    }

    fn encode(
        &self,
        writer: &mut Writer,
        batch: &mut Batch,
        namespace: NamespaceNo,
        item: Item<'_>,
    ) -> Result<(), Fault> {
        let (large_bytes, numbers);
        let (kind, digest, payload): (Kind, Digest, &[u8]) = match item {
            Item::Blob { digest, bytes } | Item::Moved { digest, bytes } => (Kind::Blob, digest, bytes),
            Item::MovedLarge { digest, bytes } => {
                large_bytes = bytes.to_le_bytes();
                (Kind::Large, digest, &large_bytes)
            }
            Item::Grant { digest } => (Kind::Grant, digest, &[]),
            Item::Seen { digest, seen_by } => {
                numbers = segment::encode_numbers(seen_by);
                (Kind::Seen, digest, &numbers)
            }
            Item::Alias { digest, alias } => (Kind::Alias, digest, &alias.0),
            Item::Void { digest } => (Kind::Void, digest, &[]),
            Item::Release { digest } => (Kind::Release, digest, &[]),
            Item::Chunks { listing, .. } => (Kind::Chunks, NO_DIGEST, listing),
            Item::Manifest { digest, manifest, .. } | Item::MovedManifest { digest, manifest, .. } => {
                (Kind::Manifest, digest, manifest)
            }
        };
        let mut names = vec![(namespace, self.name(namespace))];
        if let Item::Seen { seen_by, .. } = item {
            names.extend(seen_by.iter().filter(|number| **number != namespace).map(|n| (*n, self.name(*n))));
        }
        let names_bytes: usize = names.iter().map(|(_, name)| RECORD_HEADER_BYTES + name.len()).sum();
        let need = (RECORD_HEADER_BYTES + names_bytes + payload.len()) as u64;
        let active = self.room_for(writer, batch, need)?;
        for (namespace, name) in names {
            if !active.declared.contains(&namespace) && batch.declares.insert(namespace) {
                push(active, batch, (Kind::Namespace, namespace, NO_DIGEST), &name);
            }
        }
        let offset = push(active, batch, (kind, namespace, digest), payload);
        let segment = active.number;
        batch.changes.extend(match item {
            Item::Blob { .. } | Item::Moved { .. } => {
                let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                Some(Change::Put { digest, namespace, place: Place::Small { segment, offset, bytes } })
            }
            Item::MovedLarge { bytes, .. } => {
                Some(Change::Put { digest, namespace, place: Place::Large { segment, bytes } })
            }
            Item::Manifest { bytes, .. } | Item::MovedManifest { bytes, .. } => {
                let manifest_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                let place = Place::Chunked { segment, offset, bytes, manifest_bytes };
                Some(Change::Put { digest, namespace, place })
            }
            Item::Grant { .. } => Some(Change::Grant { digest, namespace }),
            Item::Seen { seen_by, .. } => Some(Change::Seen { digest, seen_by: seen_by.into(), segment }),
            Item::Release { .. } => Some(Change::Release { digest, namespace, segment }),
            Item::Chunks { file, listing } => {
                Some(Change::Chunks { file, segment, listing_bytes: listing.len() as u64 })
            }
            Item::Alias { alias, .. } => Some(Change::Alias { digest, alias: *alias, segment }),
            Item::Void { .. } => {
                self.publish(&[Change::Void { digest, segment }]);
                None
            }
        });
        Ok(())
    }

    fn name(&self, namespace: NamespaceNo) -> Vec<u8> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.name(namespace).and_then(segment::encode_namespace).unwrap_or_default()
    }

    /// The active segment, a new one where the old one has no room.
    fn room_for<'w>(&self, writer: &'w mut Writer, batch: &mut Batch, need: u64) -> Result<&'w Active, Fault> {
        let fits =
            |active: &Active| active.end + batch.bytes.len() as u64 + need <= self.segment_bytes.max(need + HEAD_BYTES);
        if !writer.active.as_ref().is_some_and(fits) {
            self.flush(writer, batch)?;
            self.rotate(writer)?;
        }
        writer.active.as_ref().ok_or_else(|| self.poisoned())
    }

    fn flush(&self, writer: &mut Writer, batch: &mut Batch) -> Result<(), Fault> {
        let batch = std::mem::take(batch);
        if batch.bytes.is_empty() {
            return Ok(());
        }
        let Some(active) = &mut writer.active else { return Err(self.poisoned()) };
        if let Err(e) = active.file.write_at(active.end, &batch.bytes) {
            // What was written of it must not be found by a scan behind what is written next.
            writer.poisoned |= active.file.truncate(active.end).is_err();
            return Err(Fault::io("writing to", &segment::path(&self.dir, active.number), e));
        }
        active.end += batch.bytes.len() as u64;
        active.declared.extend(batch.declares);
        writer.bytes += batch.bytes.len() as u64;
        writer.records += batch.records;
        writer.appended.0 += 1;
        match self.durability {
            Durability::Durable => {
                writer.in_flight.extend(batch.changes.iter().filter_map(put_digest));
                writer.unsynced.extend(batch.changes);
            }
            Durability::Lazy => self.publish(&batch.changes),
        }
        Ok(())
    }

    fn rotate(&self, writer: &mut Writer) -> Result<(), Fault> {
        let unsynced = self.durability == Durability::Durable && writer.synced < writer.appended;
        if let Some(active) = writer.active.as_ref().filter(|_| unsynced) {
            let synced = active.file.sync_data().or_fault("syncing", &segment::path(&self.dir, active.number));
            writer.poisoned |= synced.is_err();
            synced?;
        }
        let number = writer.next_number;
        writer.next_number += 1;
        let path = segment::path(&self.dir, number);
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|e| Fault::io("salting", &path, io::Error::other(e)))?;
        let file: Arc<dyn VfsFile> = self.vfs.create(&path).or_fault("creating", &path)?.into();
        let begun = file.write_at(0, &segment::head(&salt)).and_then(|()| match self.durability {
            Durability::Durable => self.sync_names(),
            Durability::Lazy => Ok(()),
        });
        if let Err(e) = begun {
            if let Err(again) = self.vfs.remove(&path) {
                tracing::warn!(path = %path.display(), error = %again, "segment_left_behind");
            }
            return Err(Fault::io("beginning", &path, e));
        }
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&file));
        writer.active = Some(Active { number, file, salt, end: HEAD_BYTES, declared: HashSet::new() });
        Ok(())
    }

    /// Makes sure that segments that were removed do not come back with a crash.
    pub(crate) fn settle_removals(&self) -> Result<(), Fault> {
        self.sync_names().or_fault("syncing", &self.dir)
    }

    /// Makes the names of segments durable, and that those have none that were removed.
    fn sync_names(&self) -> io::Result<()> {
        let index = || self.index.write().unwrap_or_else(PoisonError::into_inner);
        // One that goes meanwhile may or may not be gone for good.
        let removed = index().accounts().removed();
        self.vfs.sync_dir(&self.dir)?;
        index().accounts_mut().forget(&removed);
        Ok(())
    }

    /// Returns when everything up to `ticket` is durable and visible.
    pub(crate) fn wait(&self, ticket: Ticket) -> Result<(), Fault> {
        if self.durability == Durability::Lazy {
            return Ok(());
        }
        let mut gate = lock(&self.gate);
        loop {
            if gate.synced >= ticket {
                return Ok(());
            }
            if gate.poisoned {
                return Err(self.poisoned());
            }
            if gate.syncing {
                gate = self.turn.wait(gate).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            gate.syncing = true;
            drop(gate);
            let outcome = self.sync();
            gate = lock(&self.gate);
            gate.syncing = false;
            self.turn.notify_all();
            match outcome {
                Ok(upto) => gate.synced = upto,
                Err(e) => {
                    gate.poisoned = true;
                    return Err(e);
                }
            }
        }
    }

    fn sync(&self) -> Result<Ticket, Fault> {
        let mut writer = lock(&self.writer);
        let Some(active) = &writer.active else { return Ok(writer.appended) };
        let (file, number) = (Arc::clone(&active.file), active.number);
        let upto = writer.appended;
        // Whoever restates what was said has to know of it before the index does.
        let changes = Arc::new(std::mem::take(&mut writer.unsynced));
        writer.syncing = Arc::clone(&changes);
        drop(writer);
        if let Err(e) = file.sync_data() {
            lock(&self.writer).poisoned = true;
            return Err(Fault::io("syncing", &segment::path(&self.dir, number), e));
        }
        self.publish(&changes);
        let mut writer = lock(&self.writer);
        writer.synced = writer.synced.max(upto);
        writer.syncing = Arc::default();
        for digest in changes.iter().filter_map(put_digest) {
            writer.in_flight.remove(&digest);
        }
        Ok(upto)
    }

    fn publish(&self, changes: &[Change]) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            index.apply(change);
        }
    }

    fn poisoned(&self) -> Fault {
        Fault::Poisoned { path: self.dir.clone() }
    }
}

fn put_digest(change: &Change) -> Option<Digest> {
    match change {
        Change::Put { digest, .. } => Some(*digest),
        Change::Grant { .. }
        | Change::Seen { .. }
        | Change::Void { .. }
        | Change::Release { .. }
        | Change::Chunks { .. }
        | Change::Alias { .. } => None,
    }
}

/// Adds a record to the batch; tells where its payload will lie.
fn push(active: &Active, batch: &mut Batch, (kind, namespace, digest): (Kind, u32, Digest), payload: &[u8]) -> u64 {
    let offset = active.end + batch.bytes.len() as u64;
    let payload_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let header = Header { kind, namespace, payload_bytes, payload_crc: crc32fast::hash(payload), digest };
    batch.bytes.extend_from_slice(&header.encode(&active.salt, offset));
    batch.bytes.extend_from_slice(payload);
    batch.records += 1;
    offset + RECORD_HEADER_BYTES as u64
}
