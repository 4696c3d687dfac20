//! The table's copy as what a start builds on: what of the segments it has read, and what the records after it do to the chunks
//! that it counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use windlass_protocol::Digest;

use super::{Numbers, Recovery};
use crate::account::{self, Prefix};
use crate::chunk::FileNo;
use crate::chunk::manifest::ChunkManifest;
use crate::copy::read::Loaded;
use crate::copy::{Opened, Upto, hash_of};
use crate::index::{Change, Entry, Index, Place};
use crate::vfs::VfsFile;

/// The copy.
#[derive(Debug)]
pub(super) struct Base {
    upto: Upto,
    segments: BTreeMap<u32, ([u8; 32], u64)>,
    declared: Vec<u32>,
    recount: bool,
    /// Where manifests lay that the copy counted and that may count no more.
    left: HashMap<Digest, (u32, u64)>,
    /// Blobs in chunks that came after it.
    came: HashSet<Digest>,
    /// Chunk files of which it does not know all.
    new_files: BTreeSet<FileNo>,
    /// What is said to be gone and was so before: by which segment.
    pub(super) voids: HashMap<Prefix, u32>,
}

/// From where on a segment is read.
pub(super) enum From {
    Head,
    After(u64, Numbers),
    /// The copy has read it whole.
    Nothing,
    /// It is not the segment that the copy has read.
    Doubt,
}

impl Base {
    pub(super) fn knows(&self, segment: u32) -> bool {
        segment <= self.upto.segment
    }

    /// A segment that was sealed is known by its salt and its length; of the one that grew all is looked at.
    pub(super) fn from(&self, number: u32, file: &dyn VfsFile, salt: &[u8; 32]) -> io::Result<From> {
        if !self.knows(number) {
            return Ok(From::Head);
        }
        let Some((_, end)) = self.segments.get(&number).filter(|(known, _)| known == salt) else {
            return Ok(From::Doubt);
        };
        if number < self.upto.segment {
            return Ok(if file.len()? == *end { From::Nothing } else { From::Doubt });
        }
        if hash_of(file, *end)? != Some(self.upto.hash) {
            return Ok(From::Doubt);
        }
        Ok(From::After(*end, self.declared.iter().map(|number| (*number, *number)).collect()))
    }

    /// Whether the copy has read the record of a place.
    const fn has_read(&self, place: Place) -> bool {
        let (segment, offset) = match place {
            Place::Small { segment, offset, .. } | Place::Chunked { segment, offset, .. } => (segment, offset),
            Place::Large { segment, .. } => (segment, 0),
        };
        segment < self.upto.segment || segment == self.upto.segment && offset < self.upto.end
    }

    /// A record after the copy is about to change the index.
    pub(super) fn about_to(&mut self, index: &Index, change: &Change) {
        if let Change::Chunks { file, .. } = change {
            self.new_files.insert(*file);
        }
        let Some(digest) = change.digest() else { return };
        if let Change::Put { place: Place::Chunked { .. }, .. } = change {
            self.came.insert(digest);
        }
        match (change, index.get(&digest).map(|entry| entry.place)) {
            (Change::Void { segment, .. }, None) => {
                self.voids.entry(account::prefix(&digest)).or_insert(*segment);
            }
            (_, Some(place @ Place::Chunked { segment, offset, .. })) if self.has_read(place) => {
                self.left.entry(digest).or_insert((segment, offset));
            }
            (_, Some(_) | None) => {}
        }
    }
}

impl Recovery<'_> {
    /// Takes the copy for what the segments say up to where it goes.
    pub(super) fn build_on(&mut self, loaded: Loaded) {
        let Loaded { index, table, next_file, upto, segments, declared, recount } = loaded;
        (self.index, self.table, self.next_file) = (index, table, self.next_file.max(next_file));
        self.base = Some(Base {
            upto,
            segments,
            declared,
            recount,
            left: HashMap::new(),
            came: HashSet::new(),
            new_files: BTreeSet::new(),
            voids: HashMap::new(),
        });
    }

    /// Whether what was built on the copy will be found by a start without it, too: no bytes are damaged, and for each chunk that
    /// somebody counts on a segment says where it lies. Else whoever is told that a blob is stored might rest on less.
    pub(super) fn is_sound(&self) -> bool {
        let unlisted = self.index.accounts().listed_outside(|segment| self.files.contains_key(&segment));
        self.damaged_bytes == 0 && !self.table.counts_in(&unlisted)
    }

    /// How it came about, and where all was given back of other chunk files that is unused, the files of which that is not known.
    pub(super) fn opened(&mut self) -> (Opened, Option<BTreeSet<FileNo>>) {
        let base = self.base.take();
        let opened = Opened {
            from_copy: base.is_some(),
            records: self.records,
            recounted: base.as_ref().is_none_or(|base| base.recount),
        };
        (opened, base.filter(|base| !base.recount).map(|base| base.new_files))
    }

    /// Makes the counts of chunks those of the blobs that are there.
    pub(super) fn settle_chunks(&mut self) -> io::Result<()> {
        if self.base.is_some() && self.count_changes()? {
            self.table.forget_empty();
            return Ok(());
        }
        if let Some(base) = &mut self.base {
            base.recount = true;
        }
        self.table.uncount_all();
        let blobs: Vec<_> = self.index.iter().filter_map(|entry| chunked(&entry)).collect();
        for (digest, segment, offset) in blobs {
            self.count_blob(&digest, segment, offset)?;
        }
        self.table.forget_empty();
        Ok(())
    }

    /// Counts what came after the copy, and counts no more what left. Says whether that is all that is to be counted.
    fn count_changes(&mut self) -> io::Result<bool> {
        let Some(base) = self.base.as_mut().filter(|base| !base.recount) else { return Ok(false) };
        let (left, came) = (std::mem::take(&mut base.left), std::mem::take(&mut base.came));
        for digest in came {
            let new = self.index.get(&digest).filter(|entry| {
                let base = self.base.as_ref();
                base.is_some_and(|base| !base.has_read(entry.place))
            });
            if let Some((digest, segment, offset)) = new.and_then(|entry| chunked(&entry)) {
                self.count_blob(&digest, segment, offset)?;
            }
        }
        for (digest, (segment, offset)) in left {
            let now = self.index.get(&digest).and_then(|entry| chunked(&entry));
            if now == Some((digest, segment, offset)) {
                continue;
            }
            let Some(manifest) = self.manifest(&digest, segment, offset)? else { return Ok(false) };
            self.table.uncount(&manifest);
        }
        Ok(!self.table.lacks_counted())
    }

    fn manifest(&self, digest: &Digest, segment: u32, offset: u64) -> io::Result<Option<ChunkManifest>> {
        let manifest = match self.files.get(&segment) {
            Some(file) => ChunkManifest::read(&**file, offset)?,
            None => None,
        };
        Ok(manifest.filter(|manifest| manifest.digest() == *digest))
    }

    /// Counts what a manifest names. A blob of which a chunk is missing is absent: nobody was told of it, or it was lazy.
    fn count_blob(&mut self, digest: &Digest, segment: u32, offset: u64) -> io::Result<()> {
        let manifest = self.manifest(digest, segment, offset)?;
        if !manifest.is_some_and(|manifest| self.table.count_all(&manifest)) {
            self.index.remove(digest, None);
        }
        Ok(())
    }
}

/// Where the manifest of a blob in chunks lies.
fn chunked(entry: &Entry<'_>) -> Option<(Digest, u32, u64)> {
    match entry.place {
        Place::Chunked { segment, offset, .. } => Some((entry.digest(), segment, offset)),
        Place::Small { .. } | Place::Large { .. } => None,
    }
}
