//! Gives back what segments hold that counts no more: the rest of a segment is said again at the end of the last one, and then
//! it goes. A bounded piece at a time, while everybody reads and writes.
//!
//! | the segment that goes says | said again |
//! | --- | --- |
//! | a blob, which lies there | the blob, and who sees it where that is more than one |
//! | anything of a blob that lies elsewhere | who sees it, unless a later segment says it |
//! | a blob that lies elsewhere | who sees it, where its own record was written again and a crash came before that |
//! | anything of a blob that is gone | that it is gone, as long as older segments hold a stale record of it |
//! | whose name a SHA-256 is | the same, while the blob is there |
//! | what a chunk file holds | what it holds by now |
//!
//! All of it is how things are already, so a crash in between undoes nothing. The segment goes after all of it is durable. One
//! that is gone counts as older until that is durable, too.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use windlass_protocol::Digest;
use windlass_protocol::limits::{COMPACT_DEAD_SHARE, COMPACT_PIECE_BYTES, ORIGIN_LIVE_SHARE};

use crate::account::{self, Prefix};
use crate::alias::Sha256Digest;
use crate::appender::{Bytes, Item, Restated};
use crate::chunk::listing::Listing;
use crate::error::{Fault, OrFault as _};
use crate::index::{Pin, Place};
use crate::remote::bones;
use crate::segment::{self, Check, HEAD_BYTES, Record, Scan};
use crate::store::{Durability, Shared, Store};
use crate::vfs::VfsFile;

/// What a call gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Segments that are gone.
    pub segments: usize,
    /// Bytes that they had, less those that were written again.
    pub freed_bytes: u64,
    /// Bytes that were written again.
    pub copied_bytes: u64,
    /// There is more to give back.
    pub more: bool,
}

/// A segment that is about to go.
#[derive(Debug)]
pub(crate) struct Leaving {
    number: u32,
    file: Arc<dyn VfsFile>,
    salt: [u8; 32],
    /// Records before this were said again.
    at: u64,
    copied_bytes: u64,
    /// Of one that is away: blobs of the piece that comes next, by where they lie.
    staged: Option<HashMap<u64, Vec<u8>>>,
}

impl Leaving {
    /// Bytes of a blob, out of the file as it was when this began; nothing where it ends before them.
    fn read(&self, path: &Path, offset: u64, bytes: u32) -> Result<Option<Vec<u8>>, Fault> {
        let mut buffer = vec![0; bytes as usize];
        match self.file.read_exact_at(offset, &mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            other => other.or_fault("reading", path).map(|()| Some(buffer)),
        }
    }
}

/// What a piece of a segment says.
#[derive(Debug, Default)]
struct Piece {
    end: u64,
    /// Nothing follows.
    last: bool,
    damaged: bool,
    puts: Vec<(Digest, Place)>,
    others: BTreeSet<Digest>,
    listings: Vec<Listing>,
    aliases: BTreeMap<Digest, Sha256Digest>,
}

impl Store {
    /// Gives back what segments hold that counts no more, those first of which the least counts. Looks through segments of
    /// `budget_bytes` together and a piece more at most, and goes on there with the next call.
    ///
    /// A segment is left alone in which three quarters count, that grows, or in which bytes are damaged.
    ///
    /// # Errors
    /// [`Fault`]: what was to go is still there.
    pub fn compact(&self, budget_bytes: u64) -> Result<Compacted, Fault> {
        let shared = &self.shared;
        let mut compacting = shared.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut compacted = Compacted::default();
        let mut looked_through = 0;
        while looked_through < budget_bytes {
            let going_on = compacting.take().filter(|leaving| shared.segment(leaving.number).is_some());
            let Some(mut leaving) = going_on.map_or_else(|| shared.worst_segment(), |leaving| Ok(Some(leaving)))?
            else {
                return Ok(compacted);
            };
            // Before the locks: the bucket takes its time.
            shared.stage(&mut leaving)?;
            let before = leaving.at;
            let _one_at_a_time = shared.removal.lock().unwrap_or_else(PoisonError::into_inner);
            let _writing = shared.writing();
            let done = shared.restate_piece(&mut leaving)?;
            looked_through += (leaving.at - before).max(1);
            match done {
                Done::Piece => *compacting = Some(leaving),
                Done::All => {
                    compacted.copied_bytes += leaving.copied_bytes;
                    let freed = shared.drop_segment(&leaving)?;
                    shared.counters.compacted_bytes.fetch_add(freed, Ordering::Relaxed);
                    compacted.freed_bytes += freed;
                    compacted.segments += 1;
                }
                Done::Damaged => {}
            }
        }
        compacted.more = true;
        Ok(compacted)
    }
}

/// How far a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Piece,
    All,
    /// It stays.
    Damaged,
}

impl Shared {
    fn segment(&self, number: u32) -> Option<Arc<dyn VfsFile>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// The segment of which the least counts, where that is little enough.
    fn worst_segment(&self) -> Result<Option<Leaving>, Fault> {
        let mut worst = self.least_live(&HashMap::new())?;
        if worst.is_none() {
            // What says that blobs are gone may be needed for removed segments alone, which a crash could bring back.
            let tombs = self.index().accounts().tombs_of_removed();
            worst = if tombs.is_empty() { None } else { self.least_live(&tombs)? };
            if worst.is_some() {
                self.appender.settle_removals()?;
            }
        }
        worst.map_or(Ok(None), |number| self.leaving(number))
    }

    /// The same, if so many bytes of each segment did not count either.
    fn least_live(&self, less: &HashMap<u32, u64>) -> Result<Option<u32>, Fault> {
        let active = self.appender.active_number();
        let segments: Vec<_> = {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            let whole = segments.iter().filter(|(number, _)| Some(**number) != active);
            whole.map(|(number, file)| (*number, Arc::clone(file))).collect()
        };
        let mut worst: Option<(u128, u32)> = None;
        for (number, file) in segments {
            let path = segment::path(&self.segments_dir(), number);
            let bytes = file.len().or_fault("measuring", &path)?.saturating_sub(HEAD_BYTES);
            let index = self.index();
            let live_bytes = index.accounts().live_bytes(number).min(bytes);
            let live_bytes = live_bytes.saturating_sub(less.get(&number).copied().unwrap_or_default());
            if index.accounts().is_damaged(number) || (bytes - live_bytes) < bytes / COMPACT_DEAD_SHARE {
                continue;
            }
            let away = self.away.as_ref().filter(|away| away.bones(number).is_some());
            if away.is_some_and(|away| live_bytes > 0 && (live_bytes > bytes / ORIGIN_LIVE_SHARE || away.is_down())) {
                continue;
            }
            let live_share = (u128::from(live_bytes) << 32) / u128::from(bytes.max(1));
            worst = worst.into_iter().chain([(live_share, number)]).min();
        }
        Ok(worst.map(|(_, number)| number))
    }

    /// Begins with a segment; nothing where it is gone or has no head.
    pub(crate) fn leaving(&self, number: u32) -> Result<Option<Leaving>, Fault> {
        // All that it says is in the index from here on, or was undone.
        self.appender.settle()?;
        let Some(file) = self.segment(number) else { return Ok(None) };
        let bones = self.away.as_ref().and_then(|away| away.bones(number));
        let staged = bones.as_ref().map(|_| HashMap::new());
        let file = bones.map_or(file, |bones| bones.to_look_through());
        let path = segment::path(&self.segments_dir(), number);
        let Some(salt) = segment::read_salt(&*file).or_fault("reading", &path)? else {
            self.index_mut().accounts_mut().damage(number);
            return Ok(None);
        };
        Ok(Some(Leaving { number, file, salt, at: HEAD_BYTES, copied_bytes: 0, staged }))
    }

    /// Says all of a segment again that counts, and drops it. Whoever calls has `removal`.
    pub(crate) fn empty_segment(self: &Arc<Self>, mut leaving: Leaving) -> Result<(), Fault> {
        loop {
            match self.restate_piece(&mut leaving)? {
                Done::Piece => {}
                Done::All => return self.drop_segment(&leaving).map(|_| ()),
                Done::Damaged => return Ok(()),
            }
        }
    }

    /// Says a piece again of what counts, durably.
    ///
    /// Whoever calls has `removal`, and in a durable store `releasing` for reading.
    fn restate_piece(self: &Arc<Self>, leaving: &mut Leaving) -> Result<Done, Fault> {
        let piece = self.piece(leaving)?;
        if piece.damaged {
            tracing::warn!(segment = leaving.number, "segment_damaged");
            self.index_mut().accounts_mut().damage(leaving.number);
            return Ok(Done::Damaged);
        }
        self.move_listings(&piece.listings)?;
        let mut blobs = Vec::new();
        let mut others = piece.others;
        let (lying_there, unstated) = self.lying_there(&piece.puts);
        others.extend(unstated);
        for (digest, place, pin) in lying_there {
            let Some(bytes) = self.moved_bytes(leaving, &digest, place)? else {
                self.set_aside_alone(&digest, &pin);
                others.insert(digest);
                continue;
            };
            leaving.copied_bytes += match &bytes {
                Bytes::Blob(bytes) | Bytes::Manifest(bytes) => bytes.len() as u64,
                Bytes::Large => 0,
            };
            others.remove(&digest);
            blobs.push(Restated { digest, moved: Some((place, bytes)), stale: false });
        }
        blobs.extend(others.into_iter().map(|digest| Restated { digest, moved: None, stale: false }));
        let stale = self.stale_before(leaving.number, &blobs);
        for blob in &mut blobs {
            blob.stale = stale.contains(&account::prefix(&blob.digest));
        }
        let (ticket, gone) = self.appender.restate(leaving.number, self.nobody(), &blobs, &piece.aliases)?;
        self.appender.wait(ticket)?;
        let tombs: HashMap<Prefix, u32> =
            gone.iter().map(|(digest, segment)| (account::prefix(digest), *segment)).collect();
        if !tombs.is_empty() {
            self.index_mut().accounts_mut().entomb(&tombs, leaving.number);
        }
        leaving.at = piece.end;
        Ok(if piece.last { Done::All } else { Done::Piece })
    }

    fn piece(&self, leaving: &Leaving) -> Result<Piece, Fault> {
        let path = segment::path(&self.segments_dir(), leaving.number);
        let segment = leaving.number;
        let mut scan =
            Scan::new(&*leaving.file, &leaving.salt, Check::Headers, leaving.at).or_fault("reading", &path)?;
        let mut piece = Piece::default();
        while scan.scanned().end - leaving.at < COMPACT_PIECE_BYTES {
            let Some(record) = scan.next().or_fault("reading", &path)? else {
                piece.last = true;
                break;
            };
            match record {
                Record::Blob { digest, offset, bytes, .. } => {
                    piece.puts.push((digest, Place::Small { segment, offset, bytes }));
                }
                Record::Large { digest, bytes, .. } => piece.puts.push((digest, Place::Large { segment, bytes })),
                Record::Manifest { digest, offset, bytes, manifest_bytes, .. } => {
                    piece.puts.push((digest, Place::Chunked { segment, offset, bytes, manifest_bytes }));
                }
                Record::Grant { digest, .. }
                | Record::Void { digest }
                | Record::Release { digest, .. }
                | Record::Seen { digest, .. } => {
                    piece.others.insert(digest);
                }
                Record::Alias { digest, alias } => {
                    piece.aliases.insert(digest, alias);
                }
                Record::Chunks(listing) => piece.listings.push(listing),
                Record::Namespace { .. } => {}
            }
        }
        let bytes = leaving.file.len().or_fault("measuring", &path)?;
        piece.end = scan.scanned().end;
        piece.damaged = scan.scanned().damaged_bytes > 0 || piece.last && piece.end < bytes;
        Ok(piece)
    }

    /// Those of the blobs that lie there, and those that do not and for which these records say who sees them.
    fn lying_there(&self, puts: &[(Digest, Place)]) -> (Vec<(Digest, Place, Pin)>, Vec<Digest>) {
        let index = self.index();
        let (mut lying_there, mut unstated) = (Vec::new(), Vec::new());
        for (digest, place) in puts {
            match index.get(digest) {
                Some(entry) if entry.place == *place => lying_there.push((*digest, *place, entry.pin())),
                Some(entry) if entry.unstated() => unstated.push(*digest),
                Some(_) | None => {}
            }
        }
        (lying_there, unstated)
    }

    /// What the record of a blob holds; nothing where it is damaged.
    fn moved_bytes(&self, leaving: &mut Leaving, digest: &Digest, place: Place) -> Result<Option<Bytes>, Fault> {
        match place {
            Place::Small { segment, offset, bytes } => {
                let bytes = match &mut leaving.staged {
                    // What was not fetched was found wrong, twice.
                    Some(staged) => staged.remove(&offset),
                    None => leaving.read(&segment::path(&self.segments_dir(), segment), offset, bytes)?,
                };
                Ok(bytes.filter(|bytes| Digest::of(bytes) == *digest).map(Bytes::Blob))
            }
            Place::Chunked { segment, offset, .. } => {
                Ok(self.read_manifest(digest, segment, offset)?.map(|manifest| Bytes::Manifest(manifest.encode())))
            }
            Place::Large { .. } => Ok(Some(Bytes::Large)),
        }
    }

    /// Fetches the blobs of the next piece that lie there, where the segment is away.
    fn stage(self: &Arc<Self>, leaving: &mut Leaving) -> Result<(), Fault> {
        if leaving.staged.is_none() {
            return Ok(());
        }
        let mut staged = HashMap::new();
        for (digest, place, pin) in self.lying_there(&self.piece(leaving)?.puts).0 {
            if let Place::Small { offset, .. } = place
                && let Some(blob) = self.read(&digest, place, pin)?
            {
                staged.insert(offset, blob.into_vec()?);
            }
        }
        leaving.staged = Some(staged);
        Ok(())
    }

    /// Which of the blobs have stale records in older segments.
    fn stale_before(&self, segment: u32, blobs: &[Restated]) -> HashSet<Prefix> {
        let wanted = blobs.iter().map(|blob| account::prefix(&blob.digest)).collect();
        let mut found = HashSet::new();
        let older = self.index().accounts().stale_before(segment);
        for older in older {
            // A segment at a time: others wait for the index.
            self.index().accounts().find_stale(older, &wanted, &mut found);
        }
        found
    }

    /// Says again what chunk files hold.
    fn move_listings(&self, listings: &[Listing]) -> Result<(), Fault> {
        if listings.is_empty() {
            return Ok(());
        }
        let ticket = {
            let _in_order = self.chunks.registering();
            let current: Vec<_> = {
                let table = self.chunks.table();
                listings.iter().map(|listing| table.current(listing)).collect()
            };
            let encoded: Vec<_> = current
                .iter()
                .filter(|listing| !listing.chunks.is_empty())
                .map(|listing| (listing.file, listing.encode()))
                .collect();
            let items: Vec<_> = encoded.iter().map(|(file, listing)| Item::Chunks { file: *file, listing }).collect();
            self.appender.append(self.nobody(), &items)?
        };
        self.appender.wait(ticket)
    }

    /// Removes a segment that says nothing any more; answers how many bytes that gives back.
    fn drop_segment(&self, leaving: &Leaving) -> Result<u64, Fault> {
        let number = leaving.number;
        let bones = self.away.as_ref().filter(|away| away.bones(number).is_some());
        let path = match bones {
            Some(_) => bones::path(&self.segments_dir(), number),
            None => segment::path(&self.segments_dir(), number),
        };
        let blobs = self.index().accounts().blobs(number);
        if blobs > 0 {
            // A record of theirs is damaged that was whole before.
            tracing::warn!(segment = number, blobs, "segment_not_compacted");
            self.index_mut().accounts_mut().damage(number);
            return Ok(0);
        }
        let bytes = leaving.file.len().or_fault("measuring", &path)?;
        self.vfs.remove(&path).or_fault("removing", &path)?;
        self.counters.dropped(bytes);
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let Some(away) = bones {
            away.take_bones(number);
        }
        {
            let mut index = self.index_mut();
            index.accounts_mut().remove(number);
            if self.options.durability == Durability::Lazy {
                index.accounts_mut().forget(&[number]);
            }
        }
        Ok(bytes.saturating_sub(leaving.copied_bytes))
    }
}

#[cfg(test)]
mod tests {
    use windlass_protocol::Namespace;

    use super::*;
    use crate::store::StoreOptions;
    use crate::vfs::recorded::RecordingFs;

    fn open(fs: &RecordingFs) -> Store {
        let options = StoreOptions { segment_bytes: 1_000, ..StoreOptions::default() };
        Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap()
    }

    #[test]
    fn a_grant_that_the_index_does_not_know_yet_moves_with_its_blob() {
        let fs = RecordingFs::new();
        let (one, two) = (Namespace::trusted("one"), Namespace::trusted("two"));
        let store = open(&fs);
        let digest = store.put(&one, &[1; 700]).unwrap();
        store.put(&one, &[2; 700]).unwrap();
        let shared = &store.shared;
        let leaving = shared.leaving(0).unwrap().unwrap();
        let two_no = shared.number(&two).unwrap();
        let granted = shared.appender.append(two_no, &[Item::Grant { digest }]).unwrap();
        assert!(!store.contains(&two, &digest), "it is not durable yet");
        shared.empty_segment(leaving).unwrap();
        shared.appender.wait(granted).unwrap();
        for store in [store, open(&RecordingFs::on(&fs.live_image()))] {
            assert!(store.contains(&two, &digest) && store.contains(&one, &digest));
            assert!(store.shared.segment(0).is_none(), "the segment went");
        }
    }

    #[test]
    fn who_looked_before_a_blob_moved_reads_it_where_it_is_now() {
        let store = open(&RecordingFs::new());
        let one = Namespace::trusted("one");
        for bytes in [vec![1; 700], vec![3; 70_000]] {
            let digest = store.put(&one, &bytes).unwrap();
            store.put(&one, &[2; 700]).unwrap();
            let (place, pin) = {
                let index = store.shared.index();
                let entry = index.get(&digest).unwrap();
                (entry.place, entry.pin())
            };
            let leaving = store.shared.leaving(place.segment()).unwrap().unwrap();
            store.shared.empty_segment(leaving).unwrap();
            let blob = store.shared.read(&digest, place, pin).unwrap().expect("it is there");
            assert_eq!(blob.into_vec().unwrap(), bytes);
        }
        assert_eq!(store.stats().damaged, 0);
    }
}
