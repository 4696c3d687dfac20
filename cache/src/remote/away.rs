//! Which files of a store have a copy in its bucket, which are there alone, and how it is asked for their bytes.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use windlass_protocol::Digest;
use windlass_protocol::limits::{ORIGIN_PART_BYTES, ORIGIN_PAUSE_MAX_MS};

use super::bones::{self, Bones};
use super::journal::{Copied, Entry, Journal, Said};
use super::ranges::Ranges;
use super::{Object, Origin, OriginStats, Remote, RemoteError, mover, rebuild};
use crate::error::{Fault, OrFault as _};
use crate::vfs::Vfs;

/// A file's copy, and whether the file is on the disk, too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copy {
    pub(crate) copied: Copied,
    pub(crate) local: bool,
}

/// What is known of the bucket.
#[derive(Debug, Default)]
struct State {
    copies: BTreeMap<Object, Copy>,
    /// Of segments that are away.
    bones: HashMap<u32, Arc<Bones>>,
    /// When a file was read last, in an order of its own; those that were not since the start are not here.
    used: HashMap<Object, u64>,
    clock: u64,
    next: (u32, u64),
}

/// Nobody asks until then.
#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    failures: u32,
}

#[derive(Debug, Default)]
struct Counters {
    fetched: AtomicU64,
    fetched_bytes: AtomicU64,
    remembered: AtomicU64,
    failed: AtomicU64,
    wrong: AtomicU64,
    copied_bytes: AtomicU64,
}

/// The bucket of an open store.
#[derive(Debug)]
pub(crate) struct Away {
    origin: Option<Origin>,
    /// The store's name in the bucket, as it is and in hexadecimal.
    id: [u8; 16],
    name: String,
    state: Mutex<State>,
    ranges: Ranges,
    pause: Mutex<Pause>,
    counters: Counters,
    /// Whoever moves files has it; the journal is his.
    pub(super) moving: Mutex<mover::Moving>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A store's id as its objects' names begin.
pub(super) fn hex(id: [u8; 16]) -> String {
    id.iter().fold(String::with_capacity(32), |mut out, byte| {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

impl Away {
    /// What the store's journal says; nothing where it has none and no bucket. A store's first bucket gives it an id.
    ///
    /// A journal that is damaged is written anew from the names of the objects.
    pub(crate) fn open(vfs: &dyn Vfs, dir: &Path, origin: Option<Origin>) -> Result<Option<Arc<Self>>, Fault> {
        let (journal, said) = match (Journal::open(vfs, dir)?, &origin) {
            (Some((_, said)), Some(origin)) if said.damaged => Self::mend(vfs, dir, said, &*origin.remote)?,
            (Some((_, said)), None) if said.damaged => {
                let why = "the journal of what is there is damaged, and no bucket is configured".to_owned();
                return Err(Fault::Unavailable { doing: "asking for the objects of", path: dir.to_owned(), why });
            }
            (Some(known), _) => known,
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                let mut store = [0; 16];
                getrandom::fill(&mut store).map_err(|e| Fault::io("naming", dir, io::Error::other(e)))?;
                let said = Said { store, copies: BTreeMap::new(), next: (0, 0), damaged: false, torn: false, end: 0 };
                (Journal::write(vfs, dir, &store, &said.copies, said.next)?, said)
            }
        };
        let local = |copied| Copy { copied, local: true };
        let copies = said.copies.into_iter().map(|(object, copied)| (object, local(copied))).collect();
        let state = State { copies, next: said.next, ..State::default() };
        Ok(Some(Arc::new(Self {
            origin,
            id: said.store,
            name: hex(said.store),
            state: Mutex::new(state),
            ranges: Ranges::default(),
            pause: Mutex::default(),
            counters: Counters::default(),
            moving: Mutex::new(mover::Moving::new(journal, said.torn)),
        })))
    }

    fn mend(vfs: &dyn Vfs, dir: &Path, mut said: Said, remote: &dyn Remote) -> Result<(Journal, Said), Fault> {
        tracing::warn!(dir = %dir.display(), "origin_journal_damaged");
        let doing = "asking for the objects of";
        for (object, copied) in rebuild::listed(remote, &hex(said.store)).map_err(|e| e.fault(doing, dir))? {
            said.copies.insert(object, copied);
            match object {
                Object::Segment(number) => said.next.0 = said.next.0.max(number.saturating_add(1)),
                Object::Chunks(number) => said.next.1 = said.next.1.max(number.saturating_add(1)),
            }
        }
        said.damaged = false;
        Ok((Journal::write(vfs, dir, &said.store, &said.copies, said.next)?, said))
    }

    pub(super) fn state_of(&self, object: Object) -> Option<Copy> {
        lock(&self.state).copies.get(&object).copied()
    }

    pub(super) const fn id(&self) -> &[u8; 16] {
        &self.id
    }

    pub(super) const fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Whether nothing can be asked of the bucket.
    pub(crate) const fn without_bucket(&self) -> bool {
        self.origin.is_none()
    }

    /// One past the numbers of all segments and chunk files that were copied.
    pub(crate) fn next_numbers(&self) -> (u32, u64) {
        lock(&self.state).next
    }

    /// At open: which chunk files are in the bucket, by number, with their lengths, besides those on the disk.
    pub(crate) fn settle_chunk_files(&self, numbered: &mut BTreeMap<u64, u64>) {
        let mut state = lock(&self.state);
        for (object, copy) in &mut state.copies {
            if let Object::Chunks(number) = object {
                copy.local = numbered.contains_key(number);
                numbered.entry(*number).or_insert(copy.copied.bytes);
            }
        }
    }

    /// At open: which segments are in the bucket and not on the disk.
    pub(crate) fn settle_segments(&self, on_disk: &[u32]) -> Vec<(u32, u64)> {
        let mut state = lock(&self.state);
        let mut away = Vec::new();
        for (object, copy) in &mut state.copies {
            if let Object::Segment(number) = object {
                copy.local = on_disk.contains(number);
                if !copy.local {
                    away.push((*number, copy.copied.bytes));
                }
            }
        }
        away
    }

    /// What is on the disk of a segment that is away; where that is damaged it is made anew from the bucket.
    pub(crate) fn open_bones(&self, vfs: &dyn Vfs, dir: &Path, number: u32, bytes: u64) -> Result<Arc<Bones>, Fault> {
        let path = bones::path(dir, number);
        let open = || Bones::open(vfs, dir, number, bytes).and_then(|bones| bones.check().map(|()| Arc::new(bones)));
        let damaged = match open() {
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => e,
            other => return other.or_fault("reading", &path),
        };
        tracing::warn!(number, error = %damaged, "origin_bones_damaged");
        let doing = "making anew what is here of a segment, by the bucket of";
        let Some((copy, origin)) = self.state_of(Object::Segment(number)).zip(self.origin.as_ref()) else {
            let why = "no bucket is configured".to_owned();
            return Err(Fault::Unavailable { doing, path, why });
        };
        rebuild::fetch_bones(vfs, dir, (&*origin.remote, &self.name), number, &copy.copied)?;
        open().or_fault(doing, &path)
    }

    /// Whether the chunk file lies in the bucket alone.
    pub(crate) fn holds_chunk_file(&self, number: u64) -> bool {
        lock(&self.state).copies.get(&Object::Chunks(number)).is_some_and(|copy| !copy.local)
    }

    /// The bones of a segment that is away.
    pub(crate) fn bones(&self, number: u32) -> Option<Arc<Bones>> {
        lock(&self.state).bones.get(&number).cloned()
    }

    /// A segment is away from now on.
    pub(crate) fn put_bones(&self, number: u32, bones: Arc<Bones>) {
        let mut state = lock(&self.state);
        state.bones.insert(number, bones);
        if let Some(copy) = state.copies.get_mut(&Object::Segment(number)) {
            copy.local = false;
        }
    }

    /// A segment that was away counts no more.
    pub(crate) fn take_bones(&self, number: u32) {
        lock(&self.state).bones.remove(&number);
    }

    /// By how much the segments that are away are shorter on the disk.
    pub(crate) fn spared_bytes(&self) -> u64 {
        let bones: Vec<_> = lock(&self.state).bones.values().cloned().collect();
        bones.iter().map(|bones| bones.len().saturating_sub(bones.disk_bytes())).sum()
    }

    /// A file was read.
    pub(crate) fn touch(&self, object: Object) {
        let mut state = lock(&self.state);
        state.clock += 1;
        let clock = state.clock;
        state.used.insert(object, clock);
    }

    /// All copies, those first that were not read for longest, and of those the oldest.
    pub(super) fn coldest(&self) -> Vec<(Object, Copy)> {
        let state = lock(&self.state);
        let mut copies: Vec<_> = state.copies.iter().map(|(object, copy)| (*object, *copy)).collect();
        copies.sort_by_key(|(object, _)| state.used.get(object).copied().unwrap_or_default());
        copies
    }

    pub(super) fn apply(&self, entry: &Entry) {
        let mut state = lock(&self.state);
        match *entry {
            Entry::Copied(object, copied) => {
                state.copies.insert(object, Copy { copied, local: true });
                match object {
                    Object::Segment(number) => state.next.0 = state.next.0.max(number.saturating_add(1)),
                    Object::Chunks(number) => state.next.1 = state.next.1.max(number.saturating_add(1)),
                }
            }
            Entry::Gone(object) => {
                state.copies.remove(&object);
                state.used.remove(&object);
                drop(state);
                self.ranges.forget(object, &(0..u64::MAX));
            }
        }
    }

    /// The file is in the bucket alone from now on.
    pub(super) fn left(&self, object: Object) {
        if let Some(copy) = lock(&self.state).copies.get_mut(&object) {
            copy.local = false;
        }
    }

    pub(super) fn key(&self, object: Object, digest: &Digest) -> String {
        object.key(&self.name, digest)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The object that says whose the others are.
    pub(super) fn marker(&self) -> (String, String) {
        (format!("{}/store", self.name), format!("windlass store {}\n", self.name))
    }

    /// Asks the bucket, unless it did not answer a moment ago.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&dyn Remote) -> Result<T, RemoteError>) -> Result<T, RemoteError> {
        let Some(origin) = &self.origin else {
            return Err(RemoteError::Refused { why: "no bucket is configured".to_owned() });
        };
        if lock(&self.pause).until.is_some_and(|until| Instant::now() < until) {
            return Err(RemoteError::Unavailable { why: "it did not answer a moment ago".to_owned() });
        }
        let answer = ask(&*origin.remote);
        let mut pause = lock(&self.pause);
        match &answer {
            Ok(_) | Err(RemoteError::Missing { .. }) => *pause = Pause::default(),
            Err(RemoteError::Unavailable { .. } | RemoteError::Refused { .. }) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                let rest_ms = origin.pause_ms.saturating_mul(1 << pause.failures.min(16)).min(ORIGIN_PAUSE_MAX_MS);
                pause.failures = pause.failures.saturating_add(1);
                pause.until = Some(Instant::now() + Duration::from_millis(rest_ms));
            }
        }
        answer
    }

    /// Whether the last request got no answer.
    pub(crate) fn is_down(&self) -> bool {
        self.origin.is_none() || lock(&self.pause).failures > 0
    }

    /// Fills `buffer` from `offset` of a file that is away; what is fetched for it is `ask`, which holds that.
    pub(crate) fn read(
        &self,
        object: Object,
        offset: u64,
        buffer: &mut [u8],
        ask: Range<u64>,
    ) -> Result<(), RemoteError> {
        let Some(copy) = self.state_of(object) else {
            return Err(RemoteError::Missing { key: format!("{object:?}") });
        };
        self.touch(object);
        let key = self.key(object, &copy.copied.digest);
        let wanted = offset..offset + buffer.len() as u64;
        let ask = ask.start.min(wanted.start)..ask.end.min(copy.copied.bytes).max(wanted.end);
        let fetch = |range: Range<u64>| {
            let bytes = self.ask(|remote| remote.get(&key, range.clone()))?;
            if bytes.len() as u64 != range.end - range.start {
                return Err(RemoteError::Unavailable { why: format!("a part of {key} came, and not all of it") });
            }
            self.counters.fetched.fetch_add(1, Ordering::Relaxed);
            self.counters.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(bytes)
        };
        let ((bytes, at), remembered) = self.ranges.get(object, &wanted, ask, fetch)?;
        if remembered {
            self.counters.remembered.fetch_add(1, Ordering::Relaxed);
        }
        let found = bytes.get(at..at.saturating_add(buffer.len()));
        buffer.copy_from_slice(found.ok_or(RemoteError::Missing { key })?);
        Ok(())
    }

    /// Fills `buffer` from `offset` of a chunk file that is away; bytes up to `ahead` will be asked for soon.
    pub(crate) fn read_chunk(
        &self,
        number: u64,
        (offset, ahead): (u64, u64),
        buffer: &mut [u8],
    ) -> Result<(), RemoteError> {
        let end = offset + buffer.len() as u64;
        self.read(Object::Chunks(number), offset, buffer, offset..end.max(ahead))
    }

    /// What came of a range, or that nothing came, was wrong: it is fetched anew. Nothing is said to be lost by a bucket that is not
    /// the store's, or by one that does not answer.
    pub(crate) fn distrust(&self, object: Object, range: &Range<u64>) -> Result<(), RemoteError> {
        self.counters.wrong.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(?object, offset = range.start, "origin_bytes_wrong");
        self.ranges.forget(object, range);
        self.check_marker()
    }

    /// Whether the bucket is the store's.
    pub(super) fn check_marker(&self) -> Result<(), RemoteError> {
        let (key, said) = self.marker();
        let found = match self.ask(|remote| remote.get(&key, 0..said.len() as u64)) {
            Err(RemoteError::Missing { .. }) => None,
            other => Some(other?),
        };
        if found.as_deref() == Some(said.as_bytes()) {
            return Ok(());
        }
        Err(RemoteError::Refused { why: format!("it is not this store's: it has no {key}") })
    }

    /// The digest of an object's bytes, as the bucket gives them.
    pub(super) fn digest_there(&self, object: Object, copied: &Copied) -> Result<Digest, RemoteError> {
        let key = self.key(object, &copied.digest);
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < copied.bytes {
            let end = (at + ORIGIN_PART_BYTES as u64).min(copied.bytes);
            let bytes = self.ask(|remote| remote.get(&key, at..end))?;
            hasher.update(&bytes);
            if bytes.len() as u64 != end - at {
                // It is shorter than what was sent: another digest.
                break;
            }
            at = end;
        }
        Ok(Digest::from_hasher(&hasher))
    }

    pub(super) fn count_copied(&self, bytes: u64) {
        self.counters.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What the bucket has, and how it was asked.
    pub(crate) fn stats(&self) -> OriginStats {
        let state = lock(&self.state);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let away = state.copies.values().filter(|copy| !copy.local).map(|copy| copy.copied.bytes).sum();
        OriginStats {
            objects: state.copies.len(),
            bytes: state.copies.values().map(|copy| copy.copied.bytes).sum(),
            away_bytes: away,
            waiting_bytes: 0,
            fetched: count(&self.counters.fetched),
            fetched_bytes: count(&self.counters.fetched_bytes),
            remembered: count(&self.counters.remembered),
            failed: count(&self.counters.failed),
            wrong: count(&self.counters.wrong),
            copied_bytes: count(&self.counters.copied_bytes),
            down: self.origin.is_some() && lock(&self.pause).failures > 0,
        }
    }
}

impl RemoteError {
    /// What it means for who needed it.
    pub(crate) fn fault(&self, doing: &'static str, path: &Path) -> Fault {
        Fault::Unavailable { doing, path: path.to_owned(), why: self.to_string() }
    }
}
