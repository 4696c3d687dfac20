//! Moves files between disk and bucket: copies what is sealed, drops from the disk what was not read for longest, deletes what
//! counts no more. One at a time, a bounded piece at a time.
//!
//! | a crash after | leaves |
//! | --- | --- |
//! | an upload | an object that no record names: deleted by the first look after the next start |
//! | its record, and bones | a file that is here and there |
//! | the file's removal | a file that is there; or here again, where the removal was not durable |
//! | an object's deletion | a record without object, of a file that counts no more: deleted once more |

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use windlass_protocol::limits::{ORIGIN_PART_BYTES, ORIGIN_SLACK_SHARE, ORIGIN_TICK_DELETES};
use windlass_protocol::{Digest, Namespace};

use super::away::{Away, lock};
use super::bones::{self, Boner, Bones};
use super::journal::{Copied, Entry, Journal};
use super::{Object, OriginStats, RemoteError};
use crate::error::{Fault, OrFault as _};
use crate::index::Place;
use crate::segment;
use crate::store::{Shared, Store};
use crate::vfs::VfsFile;

/// What a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tended {
    /// Files that were copied to the bucket.
    pub copied: usize,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Files that left the disk.
    pub dropped: usize,
    /// What they took there.
    pub dropped_bytes: u64,
    /// Objects that were deleted.
    pub deleted: usize,
    /// There is more to do.
    pub more: bool,
}

/// What whoever moves files has.
#[derive(Debug)]
pub(crate) struct Moving {
    journal: Journal,
    /// The bucket was found to be the store's, and to hold nothing that is not known.
    greeted: bool,
    /// The journal's last record was none: an object that it does not name may be of a file that had left the disk.
    torn: bool,
    /// Segments that are gone, and the one that grew then: their copies stay until what was said of them again has one, too.
    gone: BTreeMap<u32, u32>,
}

impl Moving {
    pub(super) const fn new(journal: Journal, torn: bool) -> Self {
        Self { journal, greeted: false, torn, gone: BTreeMap::new() }
    }
}

impl Store {
    /// Copies to the bucket what has no copy there, `budget_bytes` and a file more at most; drops from the disk what the store has
    /// no room for, and deletes what counts no more. For a thread of its own: it waits for the bucket.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] where the bucket does not answer: what was done stays done. [`Fault::Io`] where the disk fails.
    pub fn tend_origin(&self, budget_bytes: u64) -> Result<Tended, Fault> {
        let shared = &self.shared;
        let Some(away) = shared.away.as_ref().filter(|away| !away.without_bucket()) else {
            return Ok(Tended::default());
        };
        let mut moving = lock(&away.moving);
        let mut tended = Tended::default();
        if away.is_down() {
            // Also where there is nothing to do: others wait for it to answer.
            let (key, said) = away.marker();
            match away.ask(|remote| remote.get(&key, 0..said.len() as u64)) {
                Ok(_) | Err(RemoteError::Missing { .. }) => {}
                Err(error) => return Err(shared.fault("greeting the bucket of", &error)),
            }
        }
        if !moving.greeted {
            let torn = moving.torn;
            shared.greet(away, &mut moving.journal, torn)?;
            moving.greeted = true;
        }
        shared.copy_files(away, &mut moving.journal, budget_bytes, &mut tended)?;
        shared.drop_files(away, budget_bytes, &mut tended)?;
        shared.delete_objects(away, &mut moving, &mut tended)?;
        if moving.journal.is_long(away.coldest().len()) {
            let copies = away.coldest().into_iter().map(|(object, copy)| (object, copy.copied)).collect();
            moving.journal = Journal::write(&*shared.vfs, &shared.dir, away.id(), &copies, away.next_numbers())?;
        }
        Ok(tended)
    }

    /// What the store has in its bucket; nothing where it has none.
    #[must_use]
    pub fn origin_stats(&self) -> Option<OriginStats> {
        let away = self.shared.away.as_ref()?;
        let files = self.shared.uncopied(away);
        let waiting_bytes = files.iter().map(|object| self.shared.object_bytes(*object)).sum();
        Some(OriginStats { waiting_bytes, ..away.stats() })
    }

    /// The folder of the store's objects in its bucket; nothing where it has none.
    #[must_use]
    pub fn origin_name(&self) -> Option<&str> {
        self.shared.away.as_deref().map(Away::name)
    }
}

impl Shared {
    /// Whether a chunk lies in a bucket that does not answer.
    pub(crate) fn out_of_reach(&self, chunk: &Digest) -> bool {
        let Some(away) = self.away.as_ref().filter(|away| away.is_down()) else { return false };
        let place = self.chunks.table().place(chunk);
        place.is_some_and(|place| away.holds_chunk_file(place.file))
    }

    /// Which of the blobs lie in a bucket that does not answer, all of one or a part.
    pub(crate) fn unreached(&self, namespace: &Namespace, digests: &[Digest]) -> BTreeSet<Digest> {
        let Some(away) = self.away.as_ref().filter(|away| away.is_down()) else { return BTreeSet::new() };
        let places: Vec<(Digest, Place)> = {
            let index = self.index();
            let viewer = index.viewer(namespace);
            digests.iter().filter_map(|digest| Some((*digest, index.visible_to(viewer, digest)?.place))).collect()
        };
        let unreached = |(digest, place): &(Digest, Place)| match *place {
            Place::Small { segment, .. } => away.bones(segment).is_some(),
            Place::Large { .. } => false,
            Place::Chunked { segment, offset, .. } => {
                // What the disk does not give is found out by whoever reads it.
                let manifest = self.read_manifest(digest, segment, offset).ok().flatten();
                manifest.is_some_and(|manifest| manifest.chunks().iter().any(|chunk| self.out_of_reach(&chunk.digest)))
            }
        };
        places.into_iter().filter(unreached).map(|(digest, _)| digest).collect()
    }

    fn fault(&self, doing: &'static str, error: &RemoteError) -> Fault {
        error.fault(doing, &self.dir)
    }

    /// Sees that the bucket is the store's, and that it has what is recorded and nothing else.
    fn greet(&self, away: &Away, journal: &mut Journal, torn: bool) -> Result<(), Fault> {
        let doing = "greeting the bucket of";
        let (key, said) = away.marker();
        let found = away.ask(|remote| match remote.get(&key, 0..said.len() as u64) {
            Err(RemoteError::Missing { .. }) => Ok(None),
            other => other.map(Some),
        });
        // Of a first start; what came of it may be wrong.
        let right = found.map_err(|e| self.fault(doing, &e))?.as_deref() == Some(said.as_bytes());
        if !right && away.coldest().is_empty() {
            let mut part = Some(said.clone().into_bytes());
            let put = |remote: &dyn super::Remote| {
                remote.put(&key, said.len() as u64, &mut || {
                    part.take().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
                })
            };
            away.ask(put).map_err(|e| self.fault(doing, &e))?;
        }
        away.check_marker().map_err(|e| self.fault(doing, &e))?;
        let listed = away.ask(|remote| super::rebuild::listed(remote, away.name()));
        let mut unseen: BTreeMap<Object, super::away::Copy> = away.coldest().into_iter().collect();
        for (object, found) in listed.map_err(|e| self.fault(doing, &e))? {
            match away.state_of(object) {
                Some(copy) if copy.copied == found => drop(unseen.remove(&object)),
                // Of a segment whose record was lost: what it says may be all that is left of it.
                _ if self.counters.damaged_bytes.load(Ordering::Relaxed) > 0 => {}
                None if torn && !self.is_here(object) => {
                    tracing::warn!(?object, "origin_record_found");
                    journal.append(&Entry::Copied(object, found))?;
                }
                _ => {
                    let key = away.key(object, &found.digest);
                    away.ask(|remote| remote.delete(&key))
                        .map_err(|e| self.fault("deleting from the bucket of", &e))?;
                    tracing::info!(key, "origin_orphan_deleted");
                }
            }
        }
        for (object, copy) in unseen {
            if !copy.local && self.counts(object) {
                tracing::error!(?object, bytes = copy.copied.bytes, "origin_object_missing");
            } else {
                // Deleted before, or to be copied again.
                away.apply(&Entry::Gone(object));
            }
        }
        Ok(())
    }

    fn is_here(&self, object: Object) -> bool {
        self.object_file(object).is_ok_and(|file| file.is_some())
    }

    /// Whether anything counts on the file.
    fn counts(&self, object: Object) -> bool {
        match object {
            Object::Segment(number) => self.has_segment(number),
            Object::Chunks(number) => self.chunks.table().has_file(number),
        }
    }

    fn has_segment(&self, number: u32) -> bool {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).contains_key(&number)
    }

    /// Files that have no copy and are not written any more, segments first, the oldest first.
    fn uncopied(&self, away: &Away) -> Vec<Object> {
        let active = self.appender.active_number();
        let segments: Vec<u32> = self.segments.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        let index = self.index();
        let sealed = segments.into_iter().filter(|n| Some(*n) != active && !index.accounts().is_damaged(*n));
        let mut objects: Vec<_> = sealed.map(Object::Segment).collect();
        drop(index);
        objects.extend(self.chunks.table().file_numbers().map(Object::Chunks));
        objects.retain(|object| away.state_of(*object).is_none());
        objects.sort_unstable();
        objects
    }

    fn object_file(&self, object: Object) -> Result<Option<Arc<dyn VfsFile>>, Fault> {
        match object {
            Object::Segment(number) => {
                Ok(self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned())
            }
            Object::Chunks(number) => {
                let path = self.chunk_path(number);
                match self.vfs.open_read(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                    other => other.or_fault("opening", &path).map(|file| Some(file.into())),
                }
            }
        }
    }

    fn object_bytes(&self, object: Object) -> u64 {
        self.object_file(object).ok().flatten().and_then(|file| file.len().ok()).unwrap_or_default()
    }

    fn copy_files(&self, away: &Away, journal: &mut Journal, budget: u64, tended: &mut Tended) -> Result<(), Fault> {
        for object in self.uncopied(away) {
            if tended.copied_bytes >= budget {
                tended.more = true;
                return Ok(());
            }
            // One that was let go of meanwhile needs no copy.
            let Some(file) = self.object_file(object)? else { continue };
            let Some(copied) = self.copy_file(away, object, &*file)? else { continue };
            journal.append(&Entry::Copied(object, copied))?;
            away.apply(&Entry::Copied(object, copied));
            away.count_copied(copied.bytes);
            (tended.copied, tended.copied_bytes) = (tended.copied + 1, tended.copied_bytes + copied.bytes);
        }
        Ok(())
    }

    /// Copies a file to the bucket; nothing where it changed on the way, as one does of which a range is given back.
    fn copy_file(&self, away: &Away, object: Object, file: &dyn VfsFile) -> Result<Option<Copied>, Fault> {
        let failed = |e| Fault::io("reading a copy's bytes in", &self.dir, e);
        let bytes = file.len().map_err(failed)?;
        let mut parts = Parts { file, at: 0, bytes, hasher: blake3::Hasher::new() };
        while parts.next().map_err(failed)?.is_some() {}
        let digest = Digest::from_hasher(&parts.hasher);
        let mut parts = Parts { file, at: 0, bytes, hasher: blake3::Hasher::new() };
        let key = away.key(object, &digest);
        let mut failure = None;
        let put = |remote: &dyn super::Remote| {
            let put = remote.put(&key, bytes, &mut || {
                let part = parts.next().and_then(|part| part.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()));
                let changed = || parts.at == bytes && Digest::from_hasher(&parts.hasher) != digest;
                match part {
                    Ok(_) if changed() => failure = Some(None),
                    Ok(part) => return Ok(part),
                    Err(e) => failure = Some(Some(e)),
                }
                Err(io::ErrorKind::InvalidData.into())
            });
            // That the disk failed is not the bucket's fault.
            if failure.is_some() { Ok(()) } else { put }
        };
        away.ask(put).map_err(|e| self.fault("copying to the bucket of", &e))?;
        match failure {
            None => Ok(Some(Copied { bytes, digest })),
            Some(None) => Ok(None),
            Some(Some(e)) => Err(failed(e)),
        }
    }

    /// Bytes that have to leave the disk: what it has past its size, or what the floor lacks.
    fn excess_bytes(&self, away: &Away) -> Result<u64, Fault> {
        let Some(origin) = away.origin() else { return Ok(0) };
        let (here, limit) = (self.disk_bytes(), origin.disk_bytes);
        let space = self.vfs.space(&self.dir).or_fault("measuring the space of", &self.dir)?;
        // Twice the floor: uploads that are refused at the floor would come too early.
        let lacking =
            self.options.floor_bytes.saturating_mul(2).min(space.total_bytes / 8).saturating_sub(space.free_bytes);
        let past = if here > limit { here - limit + limit / ORIGIN_SLACK_SHARE } else { 0 };
        Ok(past.max(lacking))
    }

    fn drop_files(&self, away: &Arc<Away>, budget: u64, tended: &mut Tended) -> Result<(), Fault> {
        let excess = self.excess_bytes(away)?;
        if excess == 0 {
            return Ok(());
        }
        let mut read_back = 0;
        for (object, copy) in away.coldest() {
            if tended.dropped_bytes >= excess {
                return Ok(());
            }
            if !copy.local || !self.counts(object) {
                continue;
            }
            if read_back >= budget {
                tended.more = true;
                return Ok(());
            }
            read_back += copy.copied.bytes;
            let there = match away.digest_there(object, &copy.copied) {
                Err(RemoteError::Missing { .. }) => None,
                other => Some(other.map_err(|e| self.fault("reading back from the bucket of", &e))?),
            };
            if there != Some(copy.copied.digest) {
                away.check_marker().map_err(|e| self.fault("reading back from the bucket of", &e))?;
                tracing::error!(?object, "origin_copy_wrong");
                let key = away.key(object, &copy.copied.digest);
                away.ask(|remote| remote.delete(&key)).map_err(|e| self.fault("deleting from the bucket of", &e))?;
                away.apply(&Entry::Gone(object));
                continue;
            }
            let before = self.disk_bytes();
            match object {
                Object::Chunks(number) => self.drop_chunk_file(away, number)?,
                Object::Segment(number) => self.drop_segment_file(away, number, copy.copied.bytes)?,
            }
            let bytes = before.saturating_sub(self.disk_bytes());
            if bytes > 0 {
                (tended.dropped, tended.dropped_bytes) = (tended.dropped + 1, tended.dropped_bytes + bytes);
            }
        }
        Ok(())
    }

    fn drop_chunk_file(&self, away: &Away, number: u64) -> Result<(), Fault> {
        // Before it goes: who does not find it looks there.
        away.left(Object::Chunks(number));
        let path = self.chunk_path(number);
        match self.vfs.remove(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.or_fault("removing", &path)?,
        }
        self.chunks.table().moved_away(number);
        Ok(())
    }

    fn drop_segment_file(&self, away: &Arc<Away>, number: u32, bytes: u64) -> Result<(), Fault> {
        let Some(file) = self.object_file(Object::Segment(number))? else { return Ok(()) };
        let dir = self.segments_dir();
        let failed = |e| Fault::io("reading", &segment::path(&dir, number), e);
        let mut boner = Boner::new(&*self.vfs, &dir, number)?;
        let mut parts = Parts { file: &*file, at: 0, bytes, hasher: blake3::Hasher::new() };
        while let Some(part) = parts.next().map_err(failed)? {
            boner.take(&part)?;
        }
        boner.finish(&*self.vfs)?;
        let path = bones::path(&dir, number);
        let bones = Arc::new(Bones::open(&*self.vfs, &dir, number, bytes).or_fault("opening", &path)?);
        bones.check().or_fault("reading", &path)?;
        // Whoever compacts it has begun with the file as it was, and will remove what is there then.
        let _not_compacting = lock(&self.compacting);
        let _one_at_a_time = lock(&self.removal);
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let Some(here) = segments.get_mut(&number) else {
            drop(segments);
            return self.vfs.remove(&path).or_fault("removing", &path);
        };
        *here = bones.to_read(away);
        away.put_bones(number, bones);
        drop(segments);
        let path = segment::path(&dir, number);
        self.vfs.remove(&path).or_fault("removing", &path)
    }

    /// Deletes copies of what counts no more.
    fn delete_objects(&self, away: &Away, moving: &mut Moving, tended: &mut Tended) -> Result<(), Fault> {
        if self.counters.damaged_bytes.load(Ordering::Relaxed) > 0 {
            // What was lost may have said that they count.
            return Ok(());
        }
        let uncopied: Vec<u32> = self.uncopied(away).into_iter().filter_map(segment_of).collect();
        let active = self.appender.active_number();
        for (object, copy) in away.coldest() {
            if self.counts(object) {
                continue;
            }
            if let Object::Segment(number) = object {
                let grew = *moving.gone.entry(number).or_insert(active.unwrap_or_default());
                if Some(grew) == active || uncopied.iter().any(|n| *n <= grew) {
                    continue;
                }
            }
            if tended.deleted == ORIGIN_TICK_DELETES {
                tended.more = true;
                return Ok(());
            }
            let key = away.key(object, &copy.copied.digest);
            away.ask(|remote| remote.delete(&key)).map_err(|e| self.fault("deleting from the bucket of", &e))?;
            away.apply(&Entry::Gone(object));
            if let Object::Segment(number) = object {
                moving.gone.remove(&number);
            }
            tended.deleted += 1;
        }
        Ok(())
    }
}

const fn segment_of(object: Object) -> Option<u32> {
    match object {
        Object::Segment(number) => Some(number),
        Object::Chunks(_) => None,
    }
}

/// A file's bytes, a part at a time.
struct Parts<'a> {
    file: &'a dyn VfsFile,
    at: u64,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Parts<'_> {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = usize::try_from(self.bytes - self.at).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        let mut part = vec![0; left.min(ORIGIN_PART_BYTES)];
        self.file.read_exact_at(self.at, &mut part)?;
        self.at += part.len() as u64;
        self.hasher.update(&part);
        Ok(Some(part))
    }
}
