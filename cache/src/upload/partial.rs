//! Uploads that outlive their connections, and the process too: whoever comes back goes on where he stopped.
//!
//! ```text
//! DIR/uploads/ID       what an upload has noted (module `journal`)
//! DIR/chunks/part-ID   the chunks that it brought, frames end to end; they become a chunk file when it ends
//! ```
//! Nothing of an upload is counted on before its end: after a power failure it has less, or is gone. Its chunks are read again
//! before it goes on in another process, and it stops at the first that is not right. What never comes back goes after
//! [`UPLOAD_IDLE_MS`].

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_protocol::limits::{
    BLOB_MAX_BYTES, BLOB_SMALL_MAX_BYTES, UPLOAD_IDLE_MS, UPLOAD_NOTE_CHUNKS, UPLOADS_MAX, UPLOADS_MAX_BYTES,
    UPLOADS_PER_OWNER_MAX, UPLOADS_PER_OWNER_MAX_BYTES,
};
use windlass_protocol::{Digest, WallMs, hex};

use super::Upload;
use super::cutting::Cutting;
use super::journal::{self, About, JOURNAL_MAX_BYTES, Journal};
use crate::error::{Error, Fault, OrFault as _, Rejected};
use crate::space::{self, Reservation};
use crate::store::{Shared, Store, check_namespace};
use crate::vfs::VfsFile;

/// Why an upload is not begun, or not gone on with.
#[derive(Debug, thiserror::Error)]
pub enum PartialError {
    /// Somebody sends bytes of it at this moment.
    #[error("bytes of this upload are coming at this moment; try again")]
    Busy,
    /// A blob that is sent whole.
    #[error("a blob of {BLOB_SMALL_MAX_BYTES} bytes or less is sent whole")]
    Small,
    /// More than may wait.
    #[error("{0} uploads wait to be gone on with, and no more may; end some")]
    TooMany(usize),
    /// More bytes than may wait.
    #[error("uploads that wait to be gone on with come to {0} bytes at most; end some")]
    TooManyBytes(u64),
    /// More bytes came than were announced.
    #[error("more bytes came than the {0} that were announced")]
    TooLong(u64),
    /// Storing failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<Fault> for PartialError {
    fn from(fault: Fault) -> Self {
        Self::Store(fault.into())
    }
}

/// An upload, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialState {
    /// Its name: 32 hex digits that nobody can guess.
    pub id: String,
    /// Of which blob, and whose.
    pub about: About,
    /// How many bytes came.
    pub offset: u64,
    /// When it goes if nobody goes on with it.
    pub expires_at: WallMs,
}

/// The uploads of a store that wait to be gone on with. Clones share them; they are of one process, as the store is.
#[derive(Debug, Clone)]
pub struct Partials {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    slots: Mutex<BTreeMap<String, Slot>>,
}

#[derive(Debug)]
struct Slot {
    about: Arc<About>,
    offset: u64,
    touched: WallMs,
    state: State,
}

#[derive(Debug)]
enum State {
    /// In memory, and nobody sends.
    Idle(Box<Live>),
    /// On disk alone: its chunks have to be read before it goes on.
    Cold,
    /// Somebody sends.
    Busy,
}

#[derive(Debug)]
struct Live {
    upload: Upload,
    journal: Box<dyn VfsFile>,
    journal_end: u64,
    /// Chunks that are in the journal.
    noted: usize,
}

impl Partials {
    /// Finds the uploads that earlier processes left, and removes what is too old or not whole.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn open(store: &Store, at: WallMs) -> Result<Self, Fault> {
        let inner = Inner { store: store.clone(), slots: Mutex::default() };
        let shared = &store.shared;
        let dir = shared.uploads_dir();
        match shared.vfs.create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Fault::io("making", &dir, e)),
            Ok(()) | Err(_) => {}
        }
        for item in shared.vfs.list(&dir).or_fault("listing", &dir)? {
            let path = dir.join(&item.name);
            let journal = shared.vfs.open_read(&path).and_then(|file| read_journal(&*file));
            match journal.or_fault("reading", &path)? {
                Some(Journal { about, at: touched, chunks, .. }) if is_id(&item.name) => {
                    let offset = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
                    let slot = Slot { about: Arc::new(about), offset, touched, state: State::Cold };
                    inner.lock().insert(item.name, slot);
                }
                Some(_) | None => shared.vfs.remove(&path).or_fault("removing", &path)?,
            }
        }
        let dir = shared.chunks_dir();
        for item in shared.vfs.list(&dir).or_fault("listing", &dir)? {
            let Some(id) = item.name.strip_prefix("part-") else { continue };
            if !inner.lock().contains_key(id) {
                let path = dir.join(&item.name);
                shared.vfs.remove(&path).or_fault("removing", &path)?;
            }
        }
        let partials = Self { inner: Arc::new(inner) };
        partials.expire(at);
        Ok(partials)
    }

    /// Begins an upload; or finds the one that its owner began of this blob.
    ///
    /// # Errors
    /// [`PartialError::TooMany`], [`PartialError::TooManyBytes`], [`PartialError::Small`], and what storing answers.
    pub fn begin(&self, about: About, at: WallMs) -> Result<PartialState, PartialError> {
        if about.bytes > BLOB_MAX_BYTES {
            return Err(Error::from(Rejected::BlobTooLarge).into());
        }
        if about.bytes <= BLOB_SMALL_MAX_BYTES as u64 {
            return Err(PartialError::Small);
        }
        let shared = &self.inner.store.shared;
        // It gets its number when something is stored: whoever only begins leaves nothing in memory.
        check_namespace(&about.namespace).map_err(Error::from)?;
        let mut slots = self.inner.lock();
        if let Some((id, slot)) = slots.iter_mut().find(|(_, slot)| *slot.about == about) {
            slot.touched = at;
            return Ok(slot.shown(id));
        }
        self.inner.make_room(&mut slots, &about)?;
        let head = journal::encode_head(&about, at).ok_or_else(|| Error::from(Rejected::NamespaceTooLong))?;
        let mut seed = [0; 16];
        let path = shared.uploads_dir();
        getrandom::fill(&mut seed).map_err(|e| Fault::io("naming an upload in", &path, io::Error::other(e)))?;
        let id = hex::to(&seed);
        let path = shared.upload_path(&id);
        let _space = shared.reserve(space::of_blobs(1, head.len()))?;
        let journal = shared.vfs.create(&path).or_fault("creating", &path)?;
        if let Err(e) = journal.write_at(0, &head) {
            self.inner.remove_files(&id);
            return Err(Fault::io("writing to", &path, e).into());
        }
        let cutting = Cutting::in_file(shared, shared.part_path(&id));
        let upload = Upload::begun(shared, (&about.namespace, about.digest), Box::default(), cutting);
        let live = Live { upload, journal, journal_end: head.len() as u64, noted: 0 };
        let state = State::Idle(Box::new(live));
        let slot = Slot { about: Arc::new(about), offset: 0, touched: at, state };
        let shown = slot.shown(&id);
        slots.insert(id, slot);
        Ok(shown)
    }

    /// An upload of this owner.
    #[must_use]
    pub fn state(&self, owner: &str, id: &str) -> Option<PartialState> {
        let slots = self.inner.lock();
        slots.get(id).filter(|slot| slot.about.owner == owner).map(|slot| slot.shown(id))
    }

    /// The upload that an owner began of this blob, if he did.
    #[must_use]
    pub fn find(&self, about: &About) -> Option<PartialState> {
        let slots = self.inner.lock();
        slots.iter().find(|(_, slot)| *slot.about == *about).map(|(id, slot)| slot.shown(id))
    }

    /// Takes an upload of this owner to go on with it, with room for all that is to come. One of another process is read
    /// first, as far as it is right.
    ///
    /// # Errors
    /// [`PartialError::Busy`], and what storing answers.
    pub fn take(&self, owner: &str, id: &str, at: WallMs) -> Result<Option<Partial>, PartialError> {
        self.take_roomless(owner, id, at)?.map(|partial| self.with_room(partial)).transpose()
    }

    /// An upload with room for all that is to come. Where there is none, those that wait and were left longest go for it, if
    /// that helps.
    ///
    /// # Errors
    /// What storing answers; the upload waits then.
    pub fn with_room(&self, partial: Partial) -> Result<Partial, PartialError> {
        let space = self.inner.reserve(space::with_records(partial.left()))?;
        Ok(partial.within(space))
    }

    /// As [`Self::take`], with no room but what [`Partial::within`] gives it, and else what it finds as it goes.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_roomless(&self, owner: &str, id: &str, at: WallMs) -> Result<Option<Partial>, PartialError> {
        let (about, state) = {
            let mut slots = self.inner.lock();
            let Some(slot) = slots.get_mut(id).filter(|slot| slot.about.owner == owner) else { return Ok(None) };
            if matches!(slot.state, State::Busy) {
                return Err(PartialError::Busy);
            }
            slot.touched = at;
            (Arc::clone(&slot.about), std::mem::replace(&mut slot.state, State::Busy))
        };
        let mut partial = Partial { partials: self.clone(), id: id.to_owned(), about, live: None, at, end: End::Later };
        partial.live = Some(match state {
            State::Idle(live) => live,
            State::Cold | State::Busy => Box::new(self.inner.take_up(id, &partial.about)?),
        });
        Ok(Some(partial))
    }

    /// Whether anybody has an upload of this name.
    #[must_use]
    pub fn exists(&self, id: &str) -> bool {
        self.inner.lock().contains_key(id)
    }

    /// Gives an upload of this owner up; says whether there was one that nobody sends bytes of.
    pub fn discard(&self, owner: &str, id: &str) -> bool {
        let mut slots = self.inner.lock();
        let idle = slots.get(id).is_some_and(|slot| slot.about.owner == owner && !slot.busy());
        if idle {
            self.inner.discard(&mut slots, id);
        }
        idle
    }

    /// Removes uploads that nobody went on with for [`UPLOAD_IDLE_MS`]; says how many.
    pub fn expire(&self, at: WallMs) -> usize {
        let mut slots = self.inner.lock();
        let mut old = Vec::new();
        for (id, slot) in slots.iter_mut().filter(|(_, slot)| !slot.busy()) {
            // A clock that was put back must not keep it for ever.
            slot.touched = slot.touched.min(at);
            if slot.touched.plus_ms(UPLOAD_IDLE_MS) <= at {
                old.push(id.clone());
            }
        }
        for id in &old {
            self.inner.discard(&mut slots, id);
        }
        old.len()
    }

    /// How many wait, and how many bytes of them have come.
    #[must_use]
    pub fn waiting(&self) -> (usize, u64) {
        let slots = self.inner.lock();
        (slots.len(), slots.values().map(|slot| slot.offset).sum())
    }
}

impl Slot {
    const fn busy(&self) -> bool {
        matches!(self.state, State::Busy)
    }

    fn shown(&self, id: &str) -> PartialState {
        let (about, expires_at) = ((*self.about).clone(), self.touched.plus_ms(UPLOAD_IDLE_MS));
        PartialState { id: id.to_owned(), about, offset: self.offset, expires_at }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.store.shared
    }

    /// Sees that one more upload may wait; those of its owner that were left longest go for it.
    fn make_room(&self, slots: &mut BTreeMap<String, Slot>, about: &About) -> Result<(), PartialError> {
        loop {
            let bytes = |owner: Option<&str>| {
                let of = slots.values().filter(|slot| owner.is_none_or(|owner| slot.about.owner == owner));
                of.fold((0, about.bytes), |(n, sum), slot| (n + 1, sum.saturating_add(slot.about.bytes)))
            };
            let ((own, own_bytes), (all, all_bytes)) = (bytes(Some(&about.owner)), bytes(None));
            let refused = if own >= UPLOADS_PER_OWNER_MAX {
                PartialError::TooMany(UPLOADS_PER_OWNER_MAX)
            } else if all >= UPLOADS_MAX {
                PartialError::TooMany(UPLOADS_MAX)
            } else if own_bytes > UPLOADS_PER_OWNER_MAX_BYTES {
                PartialError::TooManyBytes(UPLOADS_PER_OWNER_MAX_BYTES)
            } else if all_bytes > UPLOADS_MAX_BYTES {
                PartialError::TooManyBytes(UPLOADS_MAX_BYTES)
            } else {
                return Ok(());
            };
            let Some(id) = left_longest(slots, |slot| slot.about.owner == about.owner) else { return Err(refused) };
            self.discard(slots, &id);
        }
    }

    /// Room for bytes that are to come; uploads that wait, those that were left longest first, go for it. None goes for who
    /// would not have it either way: whoever announces more than the disk has ends nobody's.
    fn reserve(&self, bytes: u64) -> Result<Reservation, Fault> {
        loop {
            match self.shared().reserve(bytes) {
                Err(full @ Fault::NoSpace { .. }) => {
                    let mut slots = self.lock();
                    let Fault::NoSpace { wanted_bytes, left_bytes, .. } = full else { return Err(full) };
                    let waiting = slots
                        .values()
                        .filter(|slot| !slot.busy())
                        .fold(0, |sum: u64, slot| sum.saturating_add(slot.offset));
                    if left_bytes.saturating_add(waiting) < wanted_bytes {
                        return Err(full);
                    }
                    let Some(id) = left_longest(&slots, |slot| slot.offset > 0) else { return Err(full) };
                    self.discard(&mut slots, &id);
                }
                other => return other,
            }
        }
    }

    /// Reads what another process left of an upload, or this one after a fault.
    fn take_up(&self, id: &str, about: &About) -> Result<Live, Fault> {
        let shared = self.shared();
        let path = shared.upload_path(id);
        let file = shared.vfs.open(&path).or_fault("opening", &path)?;
        let journal = read_journal(&*file).or_fault("reading", &path)?;
        let lost = || Fault::io("reading", &path, io::ErrorKind::InvalidData.into());
        let journal = journal.filter(|journal| journal.about == *about).ok_or_else(lost)?;
        let mut hasher = Box::<blake3::Hasher>::default();
        let (cutting, noted) = Cutting::take_up(shared, shared.part_path(id), &journal.chunks, &mut hasher)?;
        let mut journal_end = journal.end;
        if noted < journal.chunks.len() {
            let head = journal::encode_head(about, journal.at).ok_or_else(lost)?;
            let kept = journal.chunks.get(..noted).unwrap_or_default();
            let records = [head, journal::encode_chunks(kept, journal.at)].concat();
            // In this order a crash leaves what it says now, or less. What was noted after it would be taken for what comes next.
            file.write_at(0, &records).or_fault("writing to", &path)?;
            journal_end = records.len() as u64;
            file.truncate(journal_end).or_fault("cutting", &path)?;
        }
        let upload = Upload::begun(shared, (&about.namespace, about.digest), hasher, cutting);
        Ok(Live { upload, journal: file, journal_end, noted })
    }

    fn discard(&self, slots: &mut BTreeMap<String, Slot>, id: &str) {
        // What is in memory goes first: it holds its file.
        drop(slots.remove(id));
        self.remove_files(id);
    }

    fn remove_files(&self, id: &str) {
        let shared = self.shared();
        for path in [shared.part_path(id), shared.upload_path(id)] {
            match shared.vfs.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "upload_left_behind");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// The upload that nobody sends bytes of and that was left longest, of those that `of` takes.
fn left_longest(slots: &BTreeMap<String, Slot>, of: impl Fn(&Slot) -> bool) -> Option<String> {
    let waiting = slots.iter().filter(|(_, slot)| !slot.busy() && of(slot));
    waiting.min_by_key(|(_, slot)| slot.touched).map(|(id, _)| id.clone())
}

fn is_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn read_journal(file: &dyn VfsFile) -> io::Result<Option<Journal>> {
    let len = file.len()?;
    let Some(len) = usize::try_from(len).ok().filter(|_| len <= JOURNAL_MAX_BYTES) else { return Ok(None) };
    let mut bytes = vec![0; len];
    file.read_exact_at(0, &mut bytes)?;
    Ok(Journal::decode(&bytes))
}

/// An upload that somebody goes on with. Dropped, it waits for the next who does.
#[derive(Debug)]
pub struct Partial {
    partials: Partials,
    id: String,
    about: Arc<About>,
    live: Option<Box<Live>>,
    at: WallMs,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It waits.
    Later,
    /// It is stored, or never will be.
    Over,
}

impl Partial {
    /// Of which blob it is.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// With room that was kept for it before.
    #[must_use]
    pub fn within(mut self, space: Reservation) -> Self {
        if let Some(live) = &mut self.live {
            live.upload.space = space;
        }
        self
    }

    /// How many bytes are not written yet, whether they came or not.
    #[must_use]
    pub fn left(&self) -> u64 {
        let written = self.live.as_ref().map_or(0, |live| live.upload.len() - live.upload.unwritten());
        self.about.bytes.saturating_sub(written)
    }

    /// How many bytes came.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.upload.len())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`PartialError::TooLong`], and what storing answers: what came before stays.
    pub fn write(&mut self, bytes: &[u8], at: WallMs) -> Result<(), PartialError> {
        if self.offset() + bytes.len() as u64 > self.about.bytes {
            return Err(PartialError::TooLong(self.about.bytes));
        }
        self.at = at;
        let Some(live) = &mut self.live else { return Err(PartialError::Busy) };
        match live.upload.write(bytes) {
            Ok(()) => {}
            // It was seen before a byte was taken.
            Err(Error::Fault(full @ Fault::NoSpace { .. })) => return Err(full.into()),
            Err(error) => {
                // What is in memory may have half of it.
                self.live = None;
                return Err(error.into());
            }
        }
        if live.unnoted() >= UPLOAD_NOTE_CHUNKS
            && let Err(fault) = live.note(&self.partials.inner.shared().upload_path(&self.id), at)
        {
            self.live = None;
            return Err(fault.into());
        }
        Ok(())
    }

    /// Gives it up: nothing is left of it.
    pub fn give_up(mut self) {
        self.end = End::Over;
    }

    /// Stores the blob, when all of it came. Where its bytes are not what was announced, it is given up.
    ///
    /// # Errors
    /// What storing answers; after a fault it goes on where it was.
    pub fn finish(mut self) -> Result<Digest, Error> {
        let Some(live) = self.live.take() else { return Err(Fault::Lost { doing: "an upload" }.into()) };
        let stored = live.upload.finish();
        if matches!(stored, Ok(_) | Err(Error::Rejected(_))) {
            self.end = End::Over;
        }
        stored
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let inner = &self.partials.inner;
        let mut live = self.live.take();
        if let Some(here) = &mut live {
            here.upload.space = inner.shared().no_reservation();
            if let Err(error) = here.note(&inner.shared().upload_path(&self.id), self.at) {
                tracing::warn!(upload = %self.id, %error, "upload_not_noted");
                live = None;
            }
        }
        let mut slots = inner.lock();
        let Some(slot) = slots.get_mut(&self.id) else { return };
        match (self.end, live) {
            (End::Over, _) => inner.discard(&mut slots, &self.id),
            (End::Later, Some(live)) => {
                slot.offset = live.upload.len();
                slot.touched = self.at;
                slot.state = State::Idle(live);
            }
            (End::Later, None) => {
                // What it still has is seen when it is taken up; till then what is noted counts.
                let path = inner.shared().upload_path(&self.id);
                let noted = inner.shared().vfs.open_read(&path).and_then(|file| read_journal(&*file));
                slot.offset = noted.ok().flatten().map_or(0, |journal| journal.offset());
                slot.state = State::Cold;
            }
        }
    }
}

impl Live {
    fn unnoted(&self) -> usize {
        self.upload.chunks().saturating_sub(self.noted)
    }

    /// Notes the chunks that are not noted yet.
    fn note(&mut self, path: &Path, at: WallMs) -> Result<(), Fault> {
        let chunks = self.upload.noted_since(self.noted);
        if chunks.is_empty() {
            return Ok(());
        }
        let record = journal::encode_chunks(&chunks, at);
        self.journal.write_at(self.journal_end, &record).or_fault("writing to", path)?;
        self.journal_end += record.len() as u64;
        self.noted += chunks.len();
        Ok(())
    }
}
