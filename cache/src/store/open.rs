//! Opens a store: reads what the segments say, and tidies what a crash left.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use windlass_protocol::Digest;
use windlass_protocol::limits::SEGMENT_LENGTH_MAX_BYTES;

use super::{Counters, Durability, Shared, StoreOptions};
use crate::appender::{Active, Appender};
use crate::chunk::manifest::ChunkManifest;
use crate::chunk::table::Table;
use crate::chunk::{self, Chunks, FileNo, space};
use crate::error::{Fault, OrFault as _};
use crate::index::{Change, Entry, Index, NamespaceNo, Place};
use crate::segment::{self, Check, HEAD_BYTES, Record, Scanned, holes};
use crate::space::Account;
use crate::tombstone::Tombstones;
use crate::vfs::{Vfs, VfsFile, ensure_dir};

pub(super) fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: StoreOptions) -> Result<Shared, Fault> {
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
    let mut recovery = Recovery::new(&large, &chunk_files);
    let (active, next_number) = recovery.read_segments(&*vfs, &segments_dir, options.durability)?;
    recovery.count_chunks().or_fault("reading", &segments_dir)?;
    let Recovery { mut index, files, damaged_bytes, torn_bytes, mut table, numbered, next_file, .. } = recovery;
    tidy(&*vfs, &large_dir, &large, &index, damaged_bytes > 0)?;
    let names: Vec<String> = chunk_files.into_keys().collect();
    space::tidy(&*vfs, &chunks_dir, (&names, &numbered), &mut table, damaged_bytes > 0)?;
    index.accounts_mut().keep_listings(|file| table.uses_file(file));
    if damaged_bytes > 0 {
        tracing::warn!(dir = %dir.display(), bytes = damaged_bytes, "segment_bytes_damaged");
    }
    let (index, segments) = (Arc::new(RwLock::new(index)), Arc::new(RwLock::new(files)));
    let appender = Appender::new(
        (Arc::clone(&vfs), segments_dir),
        (options.durability, options.segment_bytes.min(SEGMENT_LENGTH_MAX_BYTES)),
        (Arc::clone(&index), Arc::clone(&segments)),
        (active, next_number),
    );
    let tombstones = Tombstones::read(&*vfs, dir);
    let counters = Counters::default();
    counters.damaged_bytes.store(damaged_bytes, Ordering::Relaxed);
    counters.torn_bytes.store(torn_bytes, Ordering::Relaxed);
    Ok(Shared {
        vfs,
        dir: dir.to_owned(),
        options,
        index,
        segments,
        appender,
        chunks: Chunks::new(table, next_file),
        counters,
        account: Account::default(),
        refusing_until_ms: AtomicU64::new(0),
        tombstones: Mutex::new(tombstones),
        removal: Mutex::default(),
        compacting: Mutex::default(),
        releasing: RwLock::default(),
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

/// What the segments say, as far as they are read.
struct Recovery<'a> {
    index: Index,
    large: &'a BTreeMap<String, u64>,
    /// Chunk files by number, with their lengths.
    numbered: BTreeMap<FileNo, u64>,
    table: Table,
    /// One past every number of a chunk file that was ever seen.
    next_file: FileNo,
    files: HashMap<u32, Arc<dyn VfsFile>>,
    damaged_bytes: u64,
    torn_bytes: u64,
}

impl<'a> Recovery<'a> {
    fn new(large: &'a BTreeMap<String, u64>, chunk_files: &BTreeMap<String, u64>) -> Self {
        let numbered: BTreeMap<FileNo, u64> =
            chunk_files.iter().filter_map(|(name, bytes)| Some((chunk::file_number(name)?, *bytes))).collect();
        let next_file = numbered.keys().last().map_or(0, |last| last.saturating_add(1));
        let (index, table, files) = (Index::replaying(), Table::default(), HashMap::new());
        Self { index, large, numbered, table, next_file, files, damaged_bytes: 0, torn_bytes: 0 }
    }

    /// Counts what each manifest names. A blob of which a chunk is missing is absent: nobody was told of it, or it was lazy.
    fn count_chunks(&mut self) -> io::Result<()> {
        let chunked = |entry: Entry<'_>| match entry.place {
            Place::Chunked { segment, offset, .. } => Some((entry.digest(), segment, offset)),
            Place::Small { .. } | Place::Large { .. } => None,
        };
        let blobs: Vec<_> = self.index.iter().filter_map(chunked).collect();
        for (digest, segment, offset) in blobs {
            let manifest = match self.files.get(&segment) {
                Some(file) => ChunkManifest::read(&**file, offset)?,
                None => None,
            };
            if !manifest.is_some_and(|manifest| manifest.digest() == digest && self.table.count_all(&manifest)) {
                self.index.remove(&digest, None);
            }
        }
        Ok(())
    }

    /// Reads all segments in order; answers the last one, to be written on, and the number of the next.
    fn read_segments(
        &mut self,
        vfs: &dyn Vfs,
        dir: &Path,
        durability: Durability,
    ) -> Result<(Option<Active>, u32), Fault> {
        let items = vfs.list(dir).or_fault("listing", dir)?;
        let numbers: Vec<u32> = items.iter().filter_map(|item| segment::number(&item.name)).collect();
        let taken = items.iter().filter_map(|item| segment::number(item.name.trim_end_matches(".damaged"))).max();
        let next_number = taken.map_or(0, |n| n + 1);
        let mut active = None;
        for (nth, &number) in numbers.iter().enumerate() {
            let last = nth + 1 == numbers.len();
            let path = segment::path(dir, number);
            let file: Arc<dyn VfsFile> = vfs.open(&path).or_fault("opening", &path)?.into();
            let Some(salt) = segment::read_salt(&*file).or_fault("reading", &path)? else {
                self.set_segment_aside(vfs, &path, &*file, last)?;
                continue;
            };
            let check = if last { Check::Everything } else { Check::Headers };
            let (scanned, declared) = self.read_segment(number, &*file, &salt, check).or_fault("reading", &path)?;
            self.damaged_bytes += scanned.damaged_bytes;
            if scanned.damaged_bytes > 0 {
                self.index.accounts_mut().damage(number);
            }
            if last {
                if file.len().or_fault("measuring", &path)? < HEAD_BYTES {
                    // A crash came while it was made: its head is written whole before anything follows it.
                    holes::mend_head(&*file, &salt).or_fault("writing", &path)?;
                }
                self.torn_bytes = file.len().or_fault("measuring", &path)?.saturating_sub(scanned.end);
                cut(&*file, scanned.end, durability).or_fault("cutting", &path)?;
                active = Some(Active { number, file: Arc::clone(&file), salt, end: scanned.end, declared });
            }
            self.files.insert(number, file);
        }
        self.index.replayed();
        Ok((active, next_number))
    }

    fn read_segment(
        &mut self,
        segment: u32,
        file: &dyn VfsFile,
        salt: &[u8; 32],
        check: Check,
    ) -> io::Result<(Scanned, HashSet<NamespaceNo>)> {
        // Numbers in a segment are those of the process that wrote it.
        let mut numbers: HashMap<u32, NamespaceNo> = HashMap::new();
        let (index, large, table) = (&mut self.index, self.large, &mut self.table);
        let (numbered, next_file) = (&self.numbered, &mut self.next_file);
        let scanned = segment::scan(file, salt, check, &mut |record| {
            let seen_by = |number: u32| numbers.get(&number).copied();
            let change = match record {
                Record::Namespace { number, namespace } => {
                    numbers.insert(number, index.intern(&namespace));
                    None
                }
                Record::Blob { digest, namespace, offset, bytes } => {
                    let place = Place::Small { segment, offset, bytes };
                    seen_by(namespace).map(|namespace| Change::Put { digest, namespace, place })
                }
                Record::Large { digest, namespace, bytes } => {
                    let there = large.get(&digest.to_hex()) == Some(&bytes);
                    let place = Place::Large { segment, bytes };
                    seen_by(namespace).filter(|_| there).map(|namespace| Change::Put { digest, namespace, place })
                }
                Record::Grant { digest, namespace } => {
                    seen_by(namespace).map(|namespace| Change::Grant { digest, namespace })
                }
                Record::Manifest { digest, namespace, offset, bytes, manifest_bytes } => {
                    let place = Place::Chunked { segment, offset, bytes, manifest_bytes };
                    seen_by(namespace).map(|namespace| Change::Put { digest, namespace, place })
                }
                Record::Chunks(listing) => {
                    *next_file = (*next_file).max(listing.file.saturating_add(1));
                    (numbered.get(&listing.file) == Some(&listing.file_bytes)).then(|| {
                        table.adopt(&listing, false);
                        Change::Chunks { file: listing.file, segment, listing_bytes: listing.encoded_bytes() }
                    })
                }
                Record::Seen { digest, namespaces } => {
                    // Where a crash took one's name, it has not been acted on either.
                    let seen: Option<Vec<_>> = namespaces.into_iter().map(seen_by).collect();
                    seen.map(|mut seen| {
                        seen.sort_unstable();
                        Change::Seen { digest, seen_by: seen.into(), segment }
                    })
                }
                Record::Alias { digest, alias } => Some(Change::Alias { digest, alias, segment }),
                Record::Void { digest } => Some(Change::Void { digest, segment }),
                Record::Release { digest, namespace } => {
                    seen_by(namespace).map(|namespace| Change::Release { digest, namespace, segment })
                }
            };
            if let Some(change) = change {
                index.apply(&change);
            }
        })?;
        // A number counts as declared where this process gives it the same meaning.
        let declared = numbers.into_iter().filter(|(there, here)| there == here).map(|(_, here)| here).collect();
        Ok((scanned, declared))
    }

    /// A segment without a head: one whose making a crash interrupted, or a damaged one. Nothing is thrown away.
    fn set_segment_aside(&mut self, vfs: &dyn Vfs, path: &Path, file: &dyn VfsFile, last: bool) -> Result<(), Fault> {
        let bytes = file.len().or_fault("measuring", path)?;
        if last && bytes <= HEAD_BYTES {
            return vfs.remove(path).or_fault("removing", path);
        }
        self.damaged_bytes += bytes;
        let mut aside = path.as_os_str().to_owned();
        aside.push(".damaged");
        vfs.rename(path, &PathBuf::from(aside)).or_fault("renaming", path)
    }
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
