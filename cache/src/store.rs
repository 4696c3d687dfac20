//! The blob store: bytes once, visible only where they were brought or granted.
//!
//! ```text
//! DIR/lock                 held while the store is open
//! DIR/table                copy of the table in memory, and how far it read the segments (module `copy`)
//! DIR/segments/NNNNNNNN.seg  records: small blobs, manifests of larger ones, and who may see what (module `segment`)
//! DIR/chunks/HEX           chunks of larger blobs, a file for those that an upload brought; counts only with its record
//! DIR/chunks/tmp-N         uploads that are under way
//! DIR/chunks/part-ID       those that may be gone on with, and what they have noted in DIR/uploads/ID (`upload::partial`)
//! DIR/large/HEX            larger blobs that versions before chunks stored, a file each; counts only with its record
//! DIR/large/damaged-HEX    put aside, never served
//! DIR/segments/NNNNNNNN.bones  a segment whose blobs' bytes lie in the bucket (`remote`)
//! DIR/origin/journal       what has a copy in the bucket
//! ```
//! What a call acknowledged is durable ([`Durability::Durable`]): the bytes first, their name, then the record, each
//! synced before the next, and only then the index in memory that answers are given from.

mod open;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use windlass_protocol::limits::{
    BLOB_SMALL_MAX_BYTES, CACHE_FLOOR_BYTES, CHUNK_AVERAGE_BYTES, COMMIT_BUFFER_BYTES, MEMORY_MAX_BYTES,
    NAME_MAX_BYTES, PROMISE_LAZY_MS, PROMISE_MS, SEGMENT_MAX_BYTES, SPACE_STEP_BYTES,
};
use windlass_protocol::{Digest, Namespace};

use crate::alias::{Sha256, Sha256Digest};
use crate::appender::{Appender, Item, Segments, Ticket};
use crate::blob::{Blob, Body, Chunked};
use crate::census::{Kind, Questions};
use crate::chunk::manifest::ChunkManifest;
use crate::chunk::{self, Chunks, FileNo};
use crate::compact::Leaving;
use crate::copy::{Copies, Opened};
use crate::error::{Error, Fault, OrFault as _, Rejected};
use crate::index::{Index, NamespaceNo, Pin, Place, Usage};
use crate::memory::{Memory, MemoryUse};
use crate::remote::away::Away;
use crate::remote::{Object, Origin};
use crate::space::{self, Account, Reservation};
use crate::tombstone::Tombstones;
use crate::upload::Upload;
use crate::vfs::{Held, Vfs};

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// It survives a power failure.
    #[default]
    Durable,
    /// It survives the process; after a power failure blobs may be missing (never wrong). For what can be fetched again.
    Lazy,
}

/// How a store behaves.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Bytes on disk past which a lazy store evicts what was not used for longest; where what it promised does not let it, it
    /// refuses. A durable one lets go by policy alone ([`Store::sweep`]).
    pub capacity_bytes: Option<u64>,
    /// Free space that is left to others; of a small disk a part of it. Where the disk has no more, blobs are refused.
    pub floor_bytes: u64,
    /// How large a segment grows.
    pub segment_bytes: u64,
    /// How long the chunks of large blobs are on average. Blobs that were cut otherwise stay readable and share nothing with
    /// new ones.
    pub chunk_bytes: usize,
    /// Whether blobs that are stored from now on can be asked for by their SHA-256 ([`Store::by_sha256`]): 96 bytes more on disk
    /// for each, and a second hash of all bytes.
    pub sha256: bool,
    /// Reads all segments when it is opened, and does not believe the copy of the table: for who looks for damage.
    pub scan: bool,
    /// How long what somebody was told is there stays, whoever needs room.
    pub promise_ms: u64,
    /// Small blobs that are kept in memory, in bytes; 0 keeps none.
    pub memory_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Durable,
            capacity_bytes: None,
            floor_bytes: CACHE_FLOOR_BYTES,
            segment_bytes: SEGMENT_MAX_BYTES,
            chunk_bytes: CHUNK_AVERAGE_BYTES,
            sha256: false,
            scan: false,
            promise_ms: PROMISE_MS,
            memory_bytes: MEMORY_MAX_BYTES,
        }
    }
}

impl StoreOptions {
    /// For an agent's cache: not synced, at most `capacity_bytes` on disk.
    #[must_use]
    pub fn lazy(capacity_bytes: u64) -> Self {
        Self {
            durability: Durability::Lazy,
            capacity_bytes: Some(capacity_bytes),
            floor_bytes: CACHE_FLOOR_BYTES,
            // Small blobs leave a segment at a time: sixteen of them make a cap that means something.
            segment_bytes: (capacity_bytes / 16).clamp(1 << 20, SEGMENT_MAX_BYTES),
            chunk_bytes: CHUNK_AVERAGE_BYTES,
            sha256: false,
            scan: false,
            promise_ms: PROMISE_LAZY_MS,
            memory_bytes: MEMORY_MAX_BYTES,
        }
    }
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Blobs.
    pub blobs: usize,
    /// Their bytes, each blob once.
    pub blob_bytes: u64,
    /// Bytes on disk: segments whole, large blobs, and the table's copy.
    pub disk_bytes: u64,
    /// Chunks of large blobs, each once.
    pub chunks: usize,
    /// Their bytes, before compression.
    pub chunk_bytes: u64,
    /// What their files take on disk.
    pub chunk_disk_bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Bytes of disk that uploads were promised and have not written yet.
    pub reserved_bytes: u64,
    /// Namespaces that have something.
    pub namespaces: usize,
    /// Blobs that were put aside since the store was opened.
    pub damaged: u64,
    /// Bytes in segments that belong to no whole record, found at open.
    pub damaged_bytes: u64,
    /// Blobs that were evicted since the store was opened.
    pub evicted: u64,
    /// Bytes of segments that were given back since the store was opened.
    pub compacted_bytes: u64,
    /// Bytes of the blobs that are trusted content of some project, each once; the rest is seen by overlays only.
    pub trusted_bytes: u64,
    /// What trusted namespaces see, each by itself, all together. Unlike the others, this and `overlays` say nothing of what
    /// one namespace has to whoever writes into another (I12).
    pub trusted: Usage,
    /// The same of overlays.
    pub overlays: Usage,
    /// Blobs that were asked for since the store was opened, by name, and were there for who asked.
    pub hits: u64,
    /// Those that were not.
    pub misses: u64,
    /// Of small blobs that were read, which needed no disk.
    pub memory: MemoryUse,
}

/// The blob store. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) options: StoreOptions,
    pub(crate) index: Arc<RwLock<Index>>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) appender: Appender,
    pub(crate) chunks: Chunks,
    pub(crate) memory: Memory,
    pub(crate) counters: Counters,
    pub(crate) account: Account,
    pub(crate) copies: Mutex<Copies>,
    pub(crate) opened: Opened,
    /// Until when a lazy store refuses, because of what it promised.
    pub(crate) refusing_until_ms: AtomicU64,
    /// What was let go by policy.
    pub(crate) tombstones: Mutex<Tombstones>,
    /// One at a time puts aside, evicts or compacts.
    pub(crate) removal: Mutex<()>,
    /// The segment that is compacted, from one piece to the next.
    pub(crate) compacting: Mutex<Option<Leaving>>,
    /// Held for reading by who writes, until what was written is in the index; for writing by who lets go. So nobody counts
    /// on bytes that are about to go.
    pub(crate) releasing: RwLock<()>,
    /// What lies in the store's bucket, where it has one.
    pub(crate) away: Option<Arc<Away>>,
    next_temporary: AtomicU64,
    _lock: Box<dyn Held>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) damaged: AtomicU64,
    pub(crate) damaged_bytes: AtomicU64,
    /// Cut off the last segment at open.
    pub(crate) torn_bytes: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) compacted_bytes: AtomicU64,
    /// Of segments that were removed.
    dropped_bytes: AtomicU64,
    /// Of the table's copy.
    copy_bytes: AtomicU64,
    pub(crate) questions: Questions,
}

impl Counters {
    pub(crate) fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn dropped(&self, bytes: u64) {
        self.dropped_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn copy_bytes(&self, bytes: u64) {
        self.copy_bytes.store(bytes, Ordering::Relaxed);
    }

    /// A blob was asked for by name.
    fn asked(&self, namespace: &Namespace, found: bool) {
        self.questions.count(Kind::of(namespace), u64::from(found), u64::from(!found));
    }
}

/// Blobs that stay for as long as this lives.
#[derive(Debug)]
#[must_use = "blobs are kept only while it lives"]
pub struct Pins {
    _pins: Vec<Pin>,
}

impl Store {
    /// Opens the store in `dir`, or makes it. It is closed when its last clone, blob, reader and upload is dropped.
    ///
    /// Reads the copy of the table and what the segments say after it. Where there is none, or a doubt about it: all segments'
    /// headers, and the last segment whole. What a crash tore off its end is cut.
    ///
    /// # Errors
    /// [`Fault::InUse`] where another process has it, [`Fault::Io`] where the disk fails.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: StoreOptions) -> Result<Self, Fault> {
        Self::open_before(vfs, dir, options, None)
    }

    /// As [`Store::open`], with a bucket behind it. The bucket need not answer: what lies there alone cannot be read then.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Fault::Unavailable`] where what is on the disk of files that are away is damaged, and the bucket does
    /// not answer.
    pub fn open_before(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: StoreOptions,
        origin: Option<Origin>,
    ) -> Result<Self, Fault> {
        let shared = open::open(vfs, dir, options, origin)?;
        // Of what was there before nobody knows when it was used: it counts as used now.
        shared.note_time();
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether files lie in a bucket that the store was opened without.
    #[must_use]
    pub fn lacks_its_bucket(&self) -> bool {
        self.shared.away.as_ref().is_some_and(|away| away.without_bucket() && away.stats().away_bytes > 0)
    }

    /// Stores bytes and makes them visible in the namespace.
    ///
    /// # Errors
    /// [`Fault::NoSpace`], [`Fault::DiskFull`] and others: nothing of it is visible then.
    pub fn put(&self, namespace: &Namespace, bytes: &[u8]) -> Result<Digest, Error> {
        if bytes.len() > BLOB_SMALL_MAX_BYTES {
            let mut upload = self.begin_put(namespace, None)?;
            upload.write(bytes)?;
            return upload.finish();
        }
        let digest = Digest::of(bytes);
        let alias = self.shared.options.sha256.then(|| Sha256Digest::of(bytes));
        let _space = self.shared.reserve(space::of_blobs(1, bytes.len()))?;
        let _writing = self.shared.writing();
        self.shared.commit_blob(namespace, (digest, bytes), alias.as_ref())?;
        Ok(digest)
    }

    /// Stores many blobs; small ones share one sync. Answers their digests in order.
    ///
    /// # Errors
    /// As [`Store::put`]. Blobs before the one that failed may be stored; each is whole or absent.
    pub fn put_many<B: AsRef<[u8]>>(
        &self,
        namespace: &Namespace,
        blobs: impl IntoIterator<Item = B>,
    ) -> Result<Vec<Digest>, Error> {
        let mut digests = Vec::new();
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        let mut ticket = Ticket::default();
        let mut writing = Some(self.shared.writing());
        let mut space = self.shared.no_reservation();
        for blob in blobs {
            let bytes = blob.as_ref();
            if bytes.len() > BLOB_SMALL_MAX_BYTES {
                // It takes the lock by itself.
                if !batch.is_empty() {
                    ticket = self.shared.append_blobs(namespace, &batch)?;
                    (batch_bytes, batch) = (0, Vec::new());
                }
                self.shared.appender.wait(ticket)?;
                writing = None;
                digests.push(self.put(namespace, bytes)?);
                continue;
            }
            writing.get_or_insert_with(|| self.shared.writing());
            space.ensure(space::of_blobs(batch.len() + 1, batch_bytes + bytes.len()), SPACE_STEP_BYTES)?;
            let digest = Digest::of(bytes);
            digests.push(digest);
            batch_bytes += bytes.len();
            batch.push((digest, blob));
            if batch_bytes >= COMMIT_BUFFER_BYTES {
                ticket = self.shared.append_blobs(namespace, &batch)?;
                space.spend(space::of_blobs(batch.len(), batch_bytes));
                (batch_bytes, batch) = (0, Vec::new());
            }
        }
        if !batch.is_empty() {
            ticket = self.shared.append_blobs(namespace, &batch)?;
        }
        self.shared.appender.wait(ticket)?;
        drop(writing);
        self.shared.evict_where_full()?;
        Ok(digests)
    }

    /// As [`Store::put_many`] with small blobs whose digests were checked, and room that was kept for them before.
    pub(crate) fn put_hashed(&self, namespace: &Namespace, batch: &[(Digest, Vec<u8>)]) -> Result<(), Error> {
        let writing = self.shared.writing();
        let ticket = self.shared.append_blobs(namespace, batch)?;
        self.shared.appender.wait(ticket)?;
        drop(writing);
        Ok(self.shared.evict_where_full()?)
    }

    /// Keeps room on the disk for blobs of so many bytes that are to come, and leaves `floor_bytes` to others, or the store's
    /// own floor where that is more.
    ///
    /// # Errors
    /// [`Fault::NoSpace`].
    pub fn reserve(&self, bytes: u64, floor_bytes: u64) -> Result<Reservation, Fault> {
        let floor_bytes = floor_bytes.max(self.shared.options.floor_bytes);
        self.shared.reserve_above(space::with_records(bytes), floor_bytes)
    }

    /// Begins a blob that comes in pieces. With `expected`, other bytes are refused at the end. Room for it is kept as it
    /// comes.
    ///
    /// # Errors
    /// [`Rejected::NamespaceTooLong`].
    pub fn begin_put(&self, namespace: &Namespace, expected: Option<Digest>) -> Result<Upload, Error> {
        self.begin_put_in(namespace, expected, self.shared.no_reservation())
    }

    /// As [`Store::begin_put`], in room that was kept for it before.
    ///
    /// # Errors
    /// [`Rejected::NamespaceTooLong`].
    pub fn begin_put_in(
        &self,
        namespace: &Namespace,
        expected: Option<Digest>,
        space: Reservation,
    ) -> Result<Upload, Error> {
        check_namespace(namespace)?;
        Ok(Upload {
            shared: Arc::clone(&self.shared),
            namespace: namespace.clone(),
            expected,
            hasher: Box::default(),
            small: Vec::new(),
            large: None,
            alias: self.shared.options.sha256.then(Box::<Sha256>::default),
            bytes: 0,
            space,
        })
    }

    /// The blob, where the namespace may see it. A small one is checked here, a large one while it is read.
    ///
    /// A damaged one is put aside and is absent from then on.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn get(&self, namespace: &Namespace, digest: &Digest) -> Result<Option<Blob>, Fault> {
        let (place, pin) = {
            let index = self.shared.index();
            let found = index.visible(namespace, digest);
            self.shared.counters.asked(namespace, found.is_some());
            let Some(entry) = found else { return Ok(None) };
            index.touch(entry);
            (entry.place, entry.pin())
        };
        self.shared.read(digest, place, pin)
    }

    /// Whether the namespace sees the blob. If so, it stays for `promise_ms` at least.
    #[must_use]
    pub fn contains(&self, namespace: &Namespace, digest: &Digest) -> bool {
        let index = self.shared.index();
        let found = index.visible(namespace, digest);
        self.shared.counters.asked(namespace, found.is_some());
        found.map(|entry| index.promise(entry)).is_some()
    }

    /// Lets those of the blobs that are there stay for `promise_ms` at least; says how many they are. It counts as no
    /// request for them.
    pub fn promise(&self, digests: &[Digest]) -> usize {
        let index = self.shared.index();
        digests.iter().filter_map(|digest| index.get(digest)).map(|entry| index.promise(entry)).count()
    }

    /// Those that the namespace does not see, in the order given, each once; the others stay for `promise_ms` at least. Those among
    /// them that lie in a bucket which does not answer: whoever has them may bring them again.
    #[must_use]
    pub fn missing(&self, namespace: &Namespace, digests: &[Digest]) -> Vec<Digest> {
        let unreached = self.shared.unreached(namespace, digests);
        let index = self.shared.index();
        let viewer = index.viewer(namespace);
        // Each is looked at once: asked for ten thousand times in one request, it would show by the time that takes whether
        // somebody else has it.
        let (mut seen, mut hits, mut misses) = (BTreeSet::new(), 0, 0);
        let missing = |digest: &&Digest| {
            if !seen.insert(**digest) {
                return false;
            }
            let found = index.visible_to(viewer, digest);
            hits += u64::from(found.is_some());
            misses += u64::from(found.is_none());
            if let Some(entry) = found.filter(|_| !unreached.contains(*digest)) {
                index.promise(entry);
                return false;
            }
            true
        };
        let missing = digests.iter().filter(missing).copied().collect();
        self.shared.counters.questions.count(Kind::of(namespace), hits, misses);
        missing
    }

    /// Makes stored blobs visible in the namespace; answers those that are not stored at all.
    ///
    /// For the coordinator alone, for what a result carries; never on a stranger's word (I12).
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn grant(&self, namespace: &Namespace, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let _writing = self.shared.writing();
        let (stored, absent): (Vec<_>, Vec<_>) = digests.iter().copied().partition(|digest| self.shared.stored(digest));
        let items: Vec<_> = stored.into_iter().map(|digest| Item::Grant { digest }).collect();
        self.shared.commit(namespace, &items)?;
        Ok(absent)
    }

    /// Keeps those of the blobs that are there from being evicted.
    pub fn pin(&self, digests: &[Digest]) -> Pins {
        let index = self.shared.index();
        Pins { _pins: digests.iter().filter_map(|digest| Some(index.get(digest)?.pin())).collect() }
    }

    /// What a namespace sees by itself.
    #[must_use]
    pub fn usage(&self, namespace: &Namespace) -> Usage {
        let index = self.shared.index();
        index.number(namespace).map(|number| index.usage(number)).unwrap_or_default()
    }

    /// What the store holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let ((blobs, blob_bytes, namespaces), trusted_bytes, (trusted, overlays)) = {
            let index = self.shared.index();
            (index.totals(), index.trusted_bytes(), index.usage_by_trust())
        };
        let chunks = self.shared.chunks.table().totals();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let asked = self.shared.counters.questions.sum();
        Stats {
            blobs,
            blob_bytes,
            disk_bytes: self.shared.disk_bytes(),
            chunks: chunks.chunks,
            chunk_bytes: chunks.plain_bytes,
            chunk_disk_bytes: chunks.disk_bytes,
            segments: self.shared.segments.read().unwrap_or_else(PoisonError::into_inner).len(),
            reserved_bytes: self.shared.account.reserved_bytes(),
            namespaces,
            damaged: count(&self.shared.counters.damaged),
            damaged_bytes: count(&self.shared.counters.damaged_bytes),
            evicted: count(&self.shared.counters.evicted),
            compacted_bytes: count(&self.shared.counters.compacted_bytes),
            trusted_bytes,
            trusted,
            overlays,
            hits: asked.hits,
            misses: asked.misses,
            memory: self.shared.memory.used(),
        }
    }
}

impl Shared {
    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the time is, for what was used before and will be used after.
    pub(crate) fn note_time(&self) -> u64 {
        let now_ms = self.vfs.monotonic_ms();
        self.index().note_time(now_ms);
        now_ms
    }

    /// Uses with lower numbers than this are no promise any more.
    pub(crate) fn promise_cut(&self) -> u32 {
        let now_ms = self.note_time();
        now_ms.checked_sub(self.options.promise_ms).map_or(0, |at_ms| self.index().cut(at_ms))
    }

    /// Keeps others from letting go of anything, for as long as it lives. Not to be taken twice by one thread.
    pub(crate) fn writing(&self) -> RwLockReadGuard<'_, ()> {
        self.note_time();
        self.releasing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody's blob of this name is stored.
    pub(crate) fn stored(&self, digest: &Digest) -> bool {
        self.index().get(digest).is_some()
    }

    pub(crate) fn commit(self: &Arc<Self>, namespace: &Namespace, items: &[Item<'_>]) -> Result<(), Error> {
        let number = self.number(namespace)?;
        self.appender.commit(number, items)?;
        Ok(self.evict_where_full()?)
    }

    /// A small blob, with its SHA-256 where that is computed.
    pub(crate) fn commit_blob(
        self: &Arc<Self>,
        namespace: &Namespace,
        (digest, bytes): (Digest, &[u8]),
        alias: Option<&Sha256Digest>,
    ) -> Result<(), Error> {
        let blob = [self.item(digest, bytes)];
        let items: Vec<_> = blob.into_iter().chain(alias.map(|alias| Item::Alias { digest, alias })).collect();
        self.commit(namespace, &items)
    }

    fn append_blobs<B: AsRef<[u8]>>(&self, namespace: &Namespace, batch: &[(Digest, B)]) -> Result<Ticket, Error> {
        let number = self.number(namespace)?;
        let computed = batch.iter().filter(|_| self.options.sha256);
        let aliases: Vec<_> = computed.map(|(digest, bytes)| (*digest, Sha256Digest::of(bytes.as_ref()))).collect();
        let blobs = batch.iter().map(|(digest, bytes)| self.item(*digest, bytes.as_ref()));
        let aliases = aliases.iter().map(|(digest, alias)| Item::Alias { digest: *digest, alias });
        let items: Vec<_> = blobs.chain(aliases).collect();
        Ok(self.appender.append(number, &items)?)
    }

    /// A small blob to append: once more where it lies out of reach.
    fn item<'a>(&self, digest: Digest, bytes: &'a [u8]) -> Item<'a> {
        let away = self.away.as_ref().filter(|away| away.is_down());
        let again = away.is_some_and(|away| match self.index().get(&digest).map(|entry| entry.place) {
            Some(Place::Small { segment, .. }) => away.bones(segment).is_some(),
            Some(Place::Large { .. } | Place::Chunked { .. }) | None => false,
        });
        if again { Item::Moved { digest, bytes } } else { Item::Blob { digest, bytes } }
    }

    pub(crate) fn number(&self, namespace: &Namespace) -> Result<NamespaceNo, Rejected> {
        if let Some(number) = self.index().number(namespace) {
            return Ok(number);
        }
        check_namespace(namespace)?;
        Ok(self.index_mut().intern(namespace))
    }

    pub(crate) fn segments_dir(&self) -> PathBuf {
        self.dir.join("segments")
    }

    pub(crate) fn large_dir(&self) -> PathBuf {
        self.dir.join("large")
    }

    pub(crate) fn large_path(&self, digest: &Digest) -> PathBuf {
        self.large_dir().join(digest.to_hex())
    }

    pub(crate) fn chunks_dir(&self) -> PathBuf {
        self.dir.join("chunks")
    }

    pub(crate) fn uploads_dir(&self) -> PathBuf {
        self.dir.join("uploads")
    }

    /// What an upload that waits to be gone on with has noted.
    pub(crate) fn upload_path(&self, id: &str) -> PathBuf {
        self.uploads_dir().join(id)
    }

    /// The chunks that it brought.
    pub(crate) fn part_path(&self, id: &str) -> PathBuf {
        self.chunks_dir().join(format!("part-{id}"))
    }

    pub(crate) fn chunk_path(&self, file: FileNo) -> PathBuf {
        chunk::file_path(&self.chunks_dir(), file)
    }

    pub(crate) fn temporary_path(&self) -> PathBuf {
        self.chunks_dir().join(format!("tmp-{}", self.next_temporary.fetch_add(1, Ordering::Relaxed)))
    }

    /// Bytes on disk: segments whole, large blobs, and the table's copy.
    pub(crate) fn disk_bytes(&self) -> u64 {
        // One lock at a time: others take them in the other order.
        let segments: Vec<_> = self.segments.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let segment_bytes: u64 = segments.iter().filter_map(|file| file.len().ok()).sum();
        let segment_bytes = segment_bytes.saturating_sub(self.away.as_ref().map_or(0, |away| away.spared_bytes()));
        let chunk_bytes = self.chunks.table().totals().disk_bytes;
        let copy_bytes = self.counters.copy_bytes.load(Ordering::Relaxed);
        segment_bytes + chunk_bytes + copy_bytes + self.index().large_bytes()
    }

    /// A blob's bytes from where they lie; `None` where they are not what the name says, or the blob is gone.
    pub(crate) fn read(self: &Arc<Self>, digest: &Digest, place: Place, pin: Pin) -> Result<Option<Blob>, Fault> {
        self.read_through(Some(&self.memory), digest, place, pin)
    }

    /// [`Self::read`], whatever is in memory.
    pub(crate) fn read_disk(self: &Arc<Self>, digest: &Digest, place: Place, pin: Pin) -> Result<Option<Blob>, Fault> {
        self.read_through(None, digest, place, pin)
    }

    fn read_through(
        self: &Arc<Self>,
        memory: Option<&Memory>,
        digest: &Digest,
        mut place: Place,
        pin: Pin,
    ) -> Result<Option<Blob>, Fault> {
        loop {
            if let Some(body) = self.body(memory, digest, place)? {
                return Ok(Some(Blob { digest: *digest, body, shared: Arc::clone(self), pin }));
            }
            // It may have moved since, and the segment is gone that it was in.
            match self.index().get(digest).filter(|entry| entry.has_pin(&pin)).map(|entry| entry.place) {
                Some(moved) if moved != place => place = moved,
                Some(_) => break,
                None => return Ok(None),
            }
        }
        self.set_aside(digest, &pin);
        Ok(None)
    }

    /// What lies there, where it is the blob.
    fn body(&self, memory: Option<&Memory>, digest: &Digest, place: Place) -> Result<Option<Body>, Fault> {
        match place {
            Place::Small { segment, offset, bytes } => {
                if let Some(bytes) = memory.and_then(|memory| memory.get(digest)) {
                    return Ok(Some(Body::Memory(bytes)));
                }
                let right = |bytes: &Vec<u8>| Digest::of(bytes) == *digest;
                let mut found = self.read_small(segment, offset, bytes)?.filter(right);
                if let Some(away) = self.away.as_ref().filter(|away| found.is_none() && away.bones(segment).is_some()) {
                    let range = offset..offset + u64::from(bytes);
                    let distrusted = away.distrust(Object::Segment(segment), &range);
                    distrusted
                        .map_err(|e| e.fault("fetching", &crate::segment::path(&self.segments_dir(), segment)))?;
                    found = self.read_small(segment, offset, bytes)?.filter(right);
                }
                let found = found.map(Bytes::from);
                if let (Some(memory), Some(bytes)) = (memory, &found) {
                    memory.keep(*digest, bytes.clone());
                }
                Ok(found.map(Body::Memory))
            }
            Place::Chunked { segment, offset, bytes, .. } => {
                let manifest = self.read_manifest(digest, segment, offset)?.filter(|m| m.blob_bytes() == bytes);
                let whole = manifest.filter(|manifest| self.chunks.table().has_all(manifest));
                Ok(whole.map(|manifest| Body::Chunked(Chunked::new(manifest))))
            }
            Place::Large { bytes, .. } => {
                let path = self.large_path(digest);
                match self.vfs.open_read(&path) {
                    Ok(file) if file.len().or_fault("measuring", &path)? == bytes => {
                        Ok(Some(Body::File { file, bytes }))
                    }
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Fault::io("opening", &path, e)),
                    Ok(_) | Err(_) => Ok(None),
                }
            }
        }
    }

    /// The manifest of a large blob; `None` where none lies there that is of this blob.
    pub(crate) fn read_manifest(
        &self,
        digest: &Digest,
        segment: u32,
        offset: u64,
    ) -> Result<Option<ChunkManifest>, Fault> {
        let file = self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&segment).cloned();
        let Some(file) = file else { return Ok(None) };
        let path = crate::segment::path(&self.segments_dir(), segment);
        let manifest = ChunkManifest::read(&*file, offset).or_fault("reading", &path)?;
        Ok(manifest.filter(|manifest| manifest.digest() == *digest))
    }

    /// The bytes of a small blob, unchecked; `None` where the segment ends before them or is gone.
    pub(crate) fn read_small(&self, segment: u32, offset: u64, bytes: u32) -> Result<Option<Vec<u8>>, Fault> {
        let file = self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&segment).cloned();
        let Some(file) = file else { return Ok(None) };
        if let Some(away) = &self.away {
            away.touch(Object::Segment(segment));
        }
        let mut buffer = vec![0; bytes as usize];
        match file.read_exact_at(offset, &mut buffer) {
            Ok(()) => Ok(Some(buffer)),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::NotFound) => Ok(None),
            Err(e) => Err(Fault::io("reading", &crate::segment::path(&self.segments_dir(), segment), e)),
        }
    }
}

pub(crate) fn check_namespace(namespace: &Namespace) -> Result<(), Rejected> {
    let overlay_bytes = namespace.overlay.as_ref().map_or(0, String::len);
    let project_bytes = namespace.shelf().map_or(namespace.project.len(), |(owner, _)| owner.project.len());
    if project_bytes > NAME_MAX_BYTES || overlay_bytes > NAME_MAX_BYTES {
        return Err(Rejected::NamespaceTooLong);
    }
    Ok(())
}
