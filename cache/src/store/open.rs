//! Opens a store: reads the table's copy and what the segments say after it, and tidies what a crash left.

mod base;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use windlass_protocol::Digest;
use windlass_protocol::limits::SEGMENT_LENGTH_MAX_BYTES;

use super::{Counters, Durability, Shared, StoreOptions};
use crate::appender::{Active, Appender};
use crate::chunk::table::Table;
use crate::chunk::{self, Chunks, FileNo, space};
use crate::copy::read::{Found, Loaded};
use crate::copy::{self, Copies};
use crate::error::{Fault, OrFault as _};
use crate::index::{Change, Index, NamespaceNo, Place};
use crate::memory::Memory;
use crate::remote::Origin;
use crate::remote::away::Away;
use crate::remote::bones::{self, Bones};
use crate::segment::{self, Check, HEAD_BYTES, Record, Scan, Scanned, holes};
use crate::space::Account;
use crate::tombstone::Tombstones;
use crate::vfs::{Vfs, VfsFile, ensure_dir};
use base::{Base, From};

pub(super) fn open(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: StoreOptions,
    origin: Option<Origin>,
) -> Result<Shared, Fault> {
    let (segments_dir, large_dir, chunks_dir) = (dir.join("segments"), dir.join("large"), dir.join("chunks"));
    ensure_dir(&*vfs, dir).or_fault("making", dir)?;
    for dir in [&segments_dir, &large_dir, &chunks_dir] {
        match vfs.create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Fault::io("making", dir, e)),
            Ok(()) | Err(_) => {}
        }
    }
    // Also where they existed: a process that was killed may have made them and not come to this.
    vfs.sync_dir(dir).or_fault("syncing", dir)?;
    let lock_path = dir.join("lock");
    let lock = vfs.lock(&lock_path).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => Fault::InUse { path: dir.to_owned() },
        _ => Fault::io("locking", &lock_path, e),
    })?;
    let (large, chunk_files) = (list_files(&*vfs, &large_dir)?, list_files(&*vfs, &chunks_dir)?);
    let away = Away::open(&*vfs, dir, origin)?;
    let recovery = recover(&*vfs, dir, (&large, &chunk_files), away.as_ref(), options)?;
    let (mut recovery, active, next_number, copy_bytes) = recovery;
    let (opened, new_files) = recovery.opened();
    let Recovery { mut index, files, damaged_bytes, torn_bytes, read_bytes, mut table, numbered, next_file, .. } =
        recovery;
    tidy(&*vfs, &large_dir, &large, &index, damaged_bytes > 0)?;
    let names: Vec<String> = chunk_files.into_keys().collect();
    let damaged = damaged_bytes > 0;
    space::tidy(&*vfs, &chunks_dir, (&names, &numbered), &mut table, (damaged, new_files.as_ref()))?;
    for file in numbered.keys().filter(|file| away.as_ref().is_some_and(|away| away.holds_chunk_file(**file))) {
        table.moved_away(*file);
    }
    index.accounts_mut().keep_listings(|file| table.uses_file(file));
    if damaged {
        tracing::warn!(dir = %dir.display(), bytes = damaged_bytes, "segment_bytes_damaged");
    }
    let (index, segments) = (Arc::new(RwLock::new(index)), Arc::new(RwLock::new(files)));
    let appender = Appender::new(
        (Arc::clone(&vfs), segments_dir),
        (options.durability, options.segment_bytes.min(SEGMENT_LENGTH_MAX_BYTES)),
        (Arc::clone(&index), Arc::clone(&segments)),
        (active, next_number),
        (opened.records, read_bytes),
    );
    let tombstones = Tombstones::read(&*vfs, dir);
    let counters = Counters::default();
    counters.damaged_bytes.store(damaged_bytes, Ordering::Relaxed);
    counters.torn_bytes.store(torn_bytes, Ordering::Relaxed);
    counters.copy_bytes(copy_bytes);
    Ok(Shared {
        vfs,
        dir: dir.to_owned(),
        options,
        index,
        segments,
        appender,
        chunks: Chunks::new(table, next_file),
        counters,
        memory: Memory::new(options.memory_bytes),
        account: Account::default(),
        copies: Mutex::new(Copies::opened(opened, copy_bytes)),
        opened,
        refusing_until_ms: AtomicU64::new(0),
        tombstones: Mutex::new(tombstones),
        removal: Mutex::default(),
        compacting: Mutex::default(),
        releasing: RwLock::default(),
        away,
        next_temporary: AtomicU64::new(0),
        _lock: lock,
    })
}

/// Files by name, with their lengths.
fn list_files(vfs: &dyn Vfs, dir: &Path) -> Result<BTreeMap<String, u64>, Fault> {
    let items = vfs.list(dir).or_fault("listing", dir)?;
    Ok(items.into_iter().filter(|item| !item.is_dir).map(|item| (item.name, item.len)).collect())
}

/// Removes uploads that never ended, and files without a record: nobody was told of them.
///
/// Where segments are damaged their records may be what was lost, so files without one stay.
fn tidy(vfs: &dyn Vfs, dir: &Path, large: &BTreeMap<String, u64>, index: &Index, damaged: bool) -> Result<(), Fault> {
    for name in large.keys() {
        let orphan = |digest: Digest| index.get(&digest).is_none() && !damaged;
        if name.starts_with("tmp-") || Digest::from_hex(name).is_ok_and(orphan) {
            let path = dir.join(name);
            vfs.remove(&path).or_fault("removing", &path)?;
        }
    }
    Ok(())
}

/// What was recovered, the segment to be written on, the number of the next, and how long the table's copy is.
type Recovered<'a> = (Recovery<'a>, Option<Active>, u32, u64);

/// Reads the table's copy and what follows it; where there is none, or a doubt about it, all segments.
fn recover<'a>(
    vfs: &dyn Vfs,
    dir: &Path,
    (large, chunk_files): (&'a BTreeMap<String, u64>, &BTreeMap<String, u64>),
    away: Option<&Arc<Away>>,
    options: StoreOptions,
) -> Result<Recovered<'a>, Fault> {
    let segments_dir = dir.join("segments");
    let mut segments = Segments::find(vfs, &segments_dir, away)?;
    let mut recovery = Recovery::new(large, chunk_files, away);
    let found = Found { segments: &segments.numbers, large, chunk_files: &recovery.numbered };
    let (copy_bytes, loaded) = read_copy(vfs, dir, found);
    if let Some(loaded) = loaded.filter(|_| !options.scan) {
        recovery.build_on(loaded);
        if let Some(active) = recovery.read_segments(vfs, (&segments_dir, &segments), options.durability)? {
            recovery.settle_chunks().or_fault("reading", &segments_dir)?;
            if recovery.is_sound() {
                return Ok((recovery, active, segments.next, copy_bytes));
            }
        }
        tracing::warn!(dir = %dir.display(), "table_copy_not_believed");
        // What was set aside is not looked at again, and its records are lost all the same.
        let aside_bytes = recovery.aside_bytes;
        recovery = Recovery::new(large, chunk_files, away);
        recovery.damaged_bytes = aside_bytes;
        segments.look_again(vfs, &segments_dir)?;
    }
    let read = recovery.read_segments(vfs, (&segments_dir, &segments), options.durability)?;
    let active = read.unwrap_or_default();
    recovery.settle_chunks().or_fault("reading", &segments_dir)?;
    Ok((recovery, active, segments.next, copy_bytes))
}

/// The table's copy and how long it is. One that cannot be read is none.
fn read_copy(vfs: &dyn Vfs, dir: &Path, found: Found<'_>) -> (u64, Option<Loaded>) {
    match vfs.remove(&dir.join(copy::temporary_name())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "temporary_left_behind");
        }
        Ok(()) | Err(_) => {}
    }
    let path = dir.join(copy::name());
    let read = vfs.open_read(&path).and_then(|file| Ok((file.len()?, copy::read::read(&*file, found)?)));
    match read {
        Ok((bytes, loaded)) => {
            if loaded.is_none() {
                tracing::warn!(path = %path.display(), "table_copy_not_believed");
            }
            (bytes, loaded)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (0, None),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "table_copy_not_read");
            (0, None)
        }
    }
}

/// Which segments there are.
struct Segments {
    /// In order.
    numbers: Vec<u32>,
    /// The number of the next one.
    next: u32,
    /// Those of them that lie in the bucket, by what is here of them.
    away: BTreeMap<u32, Arc<Bones>>,
}

impl Segments {
    fn find(vfs: &dyn Vfs, dir: &Path, away: Option<&Arc<Away>>) -> Result<Self, Fault> {
        let items = vfs.list(dir).or_fault("listing", dir)?;
        let mut numbers: Vec<u32> = items.iter().filter_map(|item| segment::number(&item.name)).collect();
        let taken = items.iter().filter_map(|item| segment::number(item.name.trim_end_matches(".damaged"))).max();
        let bones: Vec<u32> = items.iter().filter_map(|item| bones::number(&item.name)).collect();
        let copied = away.map_or(0, |away| away.next_numbers().0);
        let next = taken.max(bones.iter().max().copied()).map_or(0, |n| n + 1).max(copied);
        let away = find_away(vfs, dir, away, &numbers, &bones)?;
        numbers.extend(away.keys());
        numbers.sort_unstable();
        Ok(Self { numbers, next, away })
    }

    /// Forgets those that whoever began to read them has set aside.
    fn look_again(&mut self, vfs: &dyn Vfs, dir: &Path) -> Result<(), Fault> {
        let items = vfs.list(dir).or_fault("listing", dir)?;
        let there: BTreeSet<u32> = items.iter().filter_map(|item| segment::number(&item.name)).collect();
        let Self { numbers, away, .. } = self;
        numbers.retain(|number| there.contains(number) || away.contains_key(number));
        Ok(())
    }
}

/// Segments that lie in the bucket, by what is here of them; removes what is here of others.
fn find_away(
    vfs: &dyn Vfs,
    dir: &Path,
    away: Option<&Arc<Away>>,
    numbers: &[u32],
    bones: &[u32],
) -> Result<BTreeMap<u32, Arc<Bones>>, Fault> {
    let Some(away) = away else {
        if bones.is_empty() {
            return Ok(BTreeMap::new());
        }
        let why = "the record of what is there is gone".to_owned();
        return Err(Fault::Unavailable { doing: "looking for the bucket of", path: dir.to_owned(), why });
    };
    let mut found = BTreeMap::new();
    for (number, bytes) in away.settle_segments(numbers) {
        if bones.contains(&number) {
            found.insert(number, away.open_bones(vfs, dir, number, bytes)?);
        }
    }
    for number in bones.iter().filter(|number| !found.contains_key(number)) {
        let path = bones::path(dir, *number);
        vfs.remove(&path).or_fault("removing", &path)?;
    }
    Ok(found)
}

/// What the segments say, as far as they are read.
struct Recovery<'a> {
    index: Index,
    large: &'a BTreeMap<String, u64>,
    /// Chunk files by number, with their lengths.
    numbered: BTreeMap<FileNo, u64>,
    table: Table,
    /// One past every number of a chunk file that was ever seen.
    next_file: FileNo,
    away: Option<Arc<Away>>,
    files: HashMap<u32, Arc<dyn VfsFile>>,
    damaged_bytes: u64,
    /// Of them those of segments that were set aside.
    aside_bytes: u64,
    torn_bytes: u64,
    /// Records that were read, and their bytes.
    records: u64,
    read_bytes: u64,
    /// The copy on which it builds.
    base: Option<Base>,
}

/// Numbers in a segment are those of the process that wrote it.
type Numbers = HashMap<u32, NamespaceNo>;

impl<'a> Recovery<'a> {
    fn new(large: &'a BTreeMap<String, u64>, chunk_files: &BTreeMap<String, u64>, away: Option<&Arc<Away>>) -> Self {
        let mut numbered: BTreeMap<FileNo, u64> =
            chunk_files.iter().filter_map(|(name, bytes)| Some((chunk::file_number(name)?, *bytes))).collect();
        let mut next_file = numbered.keys().last().map_or(0, |last| last.saturating_add(1));
        if let Some(away) = away {
            away.settle_chunk_files(&mut numbered);
            next_file = next_file.max(away.next_numbers().1);
        }
        Self {
            index: Index::replaying(),
            large,
            numbered,
            table: Table::default(),
            next_file,
            away: away.cloned(),
            files: HashMap::new(),
            damaged_bytes: 0,
            aside_bytes: 0,
            torn_bytes: 0,
            records: 0,
            read_bytes: 0,
            base: None,
        }
    }

    /// Reads all segments in order, of those that the copy knows only what follows it; answers the last one, if it is to be
    /// written on. Nothing where there is a doubt about the copy.
    fn read_segments(
        &mut self,
        vfs: &dyn Vfs,
        (dir, segments): (&Path, &Segments),
        durability: Durability,
    ) -> Result<Option<Option<Active>>, Fault> {
        let mut active = None;
        for &number in &segments.numbers {
            let bones = segments.away.get(&number);
            let last = segments.numbers.last() == Some(&number) && bones.is_none();
            let path = bones.map_or_else(|| segment::path(dir, number), |_| bones::path(dir, number));
            let file: Arc<dyn VfsFile> = match bones {
                Some(bones) => bones.to_look_through(),
                None => vfs.open(&path).or_fault("opening", &path)?.into(),
            };
            let Some(salt) = segment::read_salt(&*file).or_fault("reading", &path)? else {
                if bones.is_some() {
                    return Err(Fault::io("reading", &path, io::ErrorKind::InvalidData.into()));
                }
                if self.base.as_ref().is_some_and(|base| base.knows(number)) {
                    return Ok(None);
                }
                self.set_segment_aside(vfs, &path, &*file, last)?;
                continue;
            };
            let from = match &self.base {
                None => From::Head,
                Some(base) => base.from(number, &*file, &salt).or_fault("reading", &path)?,
            };
            let (at, numbers) = match from {
                From::Head => (HEAD_BYTES, Numbers::new()),
                From::After(at, numbers) => (at, numbers),
                From::Nothing => {
                    self.keep(number, file, bones);
                    continue;
                }
                From::Doubt => return Ok(None),
            };
            let check = if last { Check::Everything } else { Check::Headers };
            let read = self.read_segment(number, (&*file, &salt), (check, at), numbers).or_fault("reading", &path)?;
            let Some((scanned, declared)) = read else { return Ok(None) };
            self.read_bytes += scanned.end - at;
            self.damaged_bytes += scanned.damaged_bytes;
            if scanned.damaged_bytes > 0 {
                self.index.accounts_mut().damage(number);
            }
            if last {
                self.torn_bytes = end_at(&*file, &salt, scanned.end, durability).or_fault("cutting", &path)?;
                active = Some(Active { number, file: Arc::clone(&file), salt, end: scanned.end, declared });
            }
            self.keep(number, file, bones);
        }
        self.index.replayed();
        if let Some(base) = &self.base {
            self.index.accounts_mut().retomb(&base.voids);
        }
        Ok(Some(active))
    }

    /// Blobs are read from this segment: where it lies in the bucket, from there.
    fn keep(&mut self, number: u32, file: Arc<dyn VfsFile>, bones: Option<&Arc<Bones>>) {
        let file = match (bones, &self.away) {
            (Some(bones), Some(away)) => {
                away.put_bones(number, Arc::clone(bones));
                bones.to_read(away)
            }
            (Some(_) | None, _) => file,
        };
        self.files.insert(number, file);
    }

    /// Reads a segment's records from `at` on. Nothing where there is a doubt about the copy.
    fn read_segment(
        &mut self,
        segment: u32,
        (file, salt): (&dyn VfsFile, &[u8; 32]),
        (check, at): (Check, u64),
        mut numbers: Numbers,
    ) -> io::Result<Option<(Scanned, HashSet<NamespaceNo>)>> {
        // What the copy has read of this segment may say what a number means.
        let goes_on = at > HEAD_BYTES;
        let mut scan = Scan::new(file, salt, check, at)?;
        while let Some(record) = scan.next()? {
            self.records += 1;
            if goes_on && record.namespaces().iter().any(|number| !numbers.contains_key(number)) {
                return Ok(None);
            }
            if let Some(change) = self.change(segment, record, &mut numbers) {
                if let Some(base) = &mut self.base {
                    base.about_to(&self.index, &change);
                }
                self.index.apply(&change);
            }
        }
        // A number counts as declared where this process gives it the same meaning.
        let declared = numbers.into_iter().filter(|(there, here)| there == here).map(|(_, here)| here).collect();
        Ok(Some((scan.scanned(), declared)))
    }

    /// What a record changes.
    fn change(&mut self, segment: u32, record: Record, numbers: &mut Numbers) -> Option<Change> {
        let seen_by = |number: u32, numbers: &Numbers| numbers.get(&number).copied();
        match record {
            Record::Namespace { number, namespace } => {
                numbers.insert(number, self.index.intern(&namespace));
                None
            }
            Record::Blob { digest, namespace, offset, bytes } => {
                let place = Place::Small { segment, offset, bytes };
                seen_by(namespace, numbers).map(|namespace| Change::Put { digest, namespace, place })
            }
            Record::Large { digest, namespace, bytes } => {
                let there = self.large.get(&digest.to_hex()) == Some(&bytes);
                let place = Place::Large { segment, bytes };
                let namespace = seen_by(namespace, numbers).filter(|_| there);
                namespace.map(|namespace| Change::Put { digest, namespace, place })
            }
            Record::Grant { digest, namespace } => {
                seen_by(namespace, numbers).map(|namespace| Change::Grant { digest, namespace })
            }
            Record::Manifest { digest, namespace, offset, bytes, manifest_bytes } => {
                let place = Place::Chunked { segment, offset, bytes, manifest_bytes };
                seen_by(namespace, numbers).map(|namespace| Change::Put { digest, namespace, place })
            }
            Record::Chunks(listing) => {
                self.next_file = self.next_file.max(listing.file.saturating_add(1));
                (self.numbered.get(&listing.file) == Some(&listing.file_bytes)).then(|| {
                    self.table.adopt(&listing, false);
                    Change::Chunks { file: listing.file, segment, listing_bytes: listing.encoded_bytes() }
                })
            }
            Record::Seen { digest, namespaces } => {
                // Where a crash took one's name, it has not been acted on either.
                let seen: Option<Vec<_>> = namespaces.into_iter().map(|number| seen_by(number, numbers)).collect();
                seen.map(|mut seen| {
                    seen.sort_unstable();
                    Change::Seen { digest, seen_by: seen.into(), segment }
                })
            }
            Record::Alias { digest, alias } => Some(Change::Alias { digest, alias, segment }),
            Record::Void { digest } => Some(Change::Void { digest, segment }),
            Record::Release { digest, namespace } => {
                seen_by(namespace, numbers).map(|namespace| Change::Release { digest, namespace, segment })
            }
        }
    }

    /// A segment without a head: one whose making a crash interrupted, or a damaged one. Nothing is thrown away.
    fn set_segment_aside(&mut self, vfs: &dyn Vfs, path: &Path, file: &dyn VfsFile, last: bool) -> Result<(), Fault> {
        let bytes = file.len().or_fault("measuring", path)?;
        if last && bytes <= HEAD_BYTES {
            return vfs.remove(path).or_fault("removing", path);
        }
        self.damaged_bytes += bytes;
        self.aside_bytes += bytes;
        let mut aside = path.as_os_str().to_owned();
        aside.push(".damaged");
        vfs.rename(path, &PathBuf::from(aside)).or_fault("renaming", path)
    }
}

/// Makes the last segment one that can be written on from `end`; says how many bytes were torn off.
fn end_at(file: &dyn VfsFile, salt: &[u8; 32], end: u64, durability: Durability) -> io::Result<u64> {
    if file.len()? < HEAD_BYTES {
        // A crash came while it was made: its head is written whole before anything follows it.
        holes::mend_head(file, salt)?;
    }
    let torn_bytes = file.len()?.saturating_sub(end);
    cut(file, end, durability)?;
    Ok(torn_bytes)
}

/// Cuts what a crash tore off the end, and makes sure of the rest: what a killed process wrote and did not sync is served
/// from now on, so it has to be durable from now on.
fn cut(file: &dyn VfsFile, end: u64, durability: Durability) -> io::Result<()> {
    if file.len()? > end {
        file.truncate(end)?;
    }
    match durability {
        Durability::Durable => file.sync_data(),
        Durability::Lazy => Ok(()),
    }
}
