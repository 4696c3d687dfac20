//! Which chunk lies where, and how many count on it; in memory, rebuilt from the segments at open.
//!
//! A chunk is counted once for each place in a manifest of a blob that is kept. Beside that it is held, once for each place in an
//! upload that is under way, or in a blob that is kept no more and that somebody still reads. It has a count and no place where its bytes were found wrong: blobs that name it cannot be read until it comes again.

use std::collections::{HashMap, HashSet};

use windlass_protocol::Digest;

use super::listing::Listing;
use super::{ChunkPlace, FileNo};
use crate::chunk::manifest::ChunkManifest;
use crate::copy::cursor::{Cursor, Fixed};
use crate::flat;

/// A chunk: 64 bytes, and some 7 to find it by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    digest: Digest,
    file: FileNo,
    offset: u64,
    stored_bytes: u32,
    /// Of one that has no place none: no chunk is empty.
    bytes: u32,
    /// Places in manifests of blobs that are kept.
    counts: u32,
    /// This process has written or read its bytes.
    proven: bool,
}

/// A chunk file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File {
    file: FileNo,
    /// How long it is.
    bytes: u64,
    /// Its length, less what was given back of it.
    disk_bytes: u64,
    /// Chunks that have their place in it.
    chunks: usize,
}

impl flat::Row for Chunk {
    type Key = Digest;

    fn key(&self) -> Digest {
        self.digest
    }
}

impl flat::Row for File {
    type Key = FileNo;

    fn key(&self) -> FileNo {
        self.file
    }
}

impl Fixed for Chunk {
    const BYTES: usize = 60;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.digest.as_bytes());
        out.extend_from_slice(&self.file.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        for word in [self.stored_bytes, self.bytes, self.counts] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn decode(from: &mut Cursor<'_>) -> Option<Self> {
        Some(Self {
            digest: from.digest()?,
            file: from.u64()?,
            offset: from.u64()?,
            stored_bytes: from.u32()?,
            bytes: from.u32()?,
            counts: from.u32()?,
            proven: false,
        })
    }
}

impl Fixed for File {
    const BYTES: usize = 24;

    fn encode(&self, out: &mut Vec<u8>) {
        for word in [self.file, self.bytes, self.disk_bytes] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn decode(from: &mut Cursor<'_>) -> Option<Self> {
        let (file, bytes, disk_bytes) = (from.u64()?, from.u64()?, from.u64()?);
        (disk_bytes <= bytes).then_some(Self { file, bytes, disk_bytes, chunks: 0 })
    }
}

impl Chunk {
    const fn of(digest: Digest) -> Self {
        Self { digest, file: 0, offset: 0, stored_bytes: 0, bytes: 0, counts: 0, proven: false }
    }

    fn place(&self) -> Option<ChunkPlace> {
        let &Self { file, offset, stored_bytes, bytes, .. } = self;
        (bytes > 0).then_some(ChunkPlace { file, offset, stored_bytes, bytes })
    }

    const fn put(&mut self, place: Option<ChunkPlace>) {
        let place = match place {
            Some(place) => place,
            None => ChunkPlace { file: 0, offset: 0, stored_bytes: 0, bytes: 0 },
        };
        (self.file, self.offset) = (place.file, place.offset);
        (self.stored_bytes, self.bytes) = (place.stored_bytes, place.bytes);
    }
}

/// What an upload learns of a chunk; but for `Absent` it counts on it from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Absent,
    /// It is there, and was right when it was written or read last.
    Proven,
    /// It was there when the store was opened; nobody has looked at it since.
    Unproven(ChunkPlace),
}

/// Bytes that nobody counts on any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Freed {
    pub(crate) file: FileNo,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) chunks: usize,
    pub(crate) plain_bytes: u64,
    pub(crate) disk_bytes: u64,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    chunks: flat::Table<Chunk>,
    files: flat::Table<File>,
    /// By chunk, how often.
    held: HashMap<Digest, u32>,
    placed: usize,
    plain_bytes: u64,
    disk_bytes: u64,
    /// Chunks may be counted for blobs that are kept no more.
    uncertain: bool,
}

impl Table {
    /// Where a chunk lies.
    pub(crate) fn place(&self, digest: &Digest) -> Option<ChunkPlace> {
        self.chunks.get(digest)?.place()
    }

    /// Holds a chunk, where it is there.
    pub(crate) fn hold(&mut self, digest: &Digest) -> Hold {
        let Some(chunk) = self.chunks.get(digest) else { return Hold::Absent };
        let Some(place) = chunk.place() else { return Hold::Absent };
        *self.held.entry(*digest).or_default() += 1;
        if chunk.proven { Hold::Proven } else { Hold::Unproven(place) }
    }

    /// What an upload held, a manifest counts on from now on.
    pub(crate) fn count_held(&mut self, digests: &[Digest]) {
        for digest in digests {
            if let Some(chunk) = self.chunks.get_mut(digest) {
                chunk.counts += 1;
            }
            self.let_go(digest);
        }
    }

    /// A blob is kept no more: somebody may still read it, so its chunks are held.
    pub(crate) fn depart<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>) {
        for digest in digests {
            if let Some(chunk) = self.chunks.get_mut(digest) {
                chunk.counts = chunk.counts.saturating_sub(1);
                *self.held.entry(*digest).or_default() += 1;
            }
        }
    }

    fn let_go(&mut self, digest: &Digest) {
        if let Some(held) = self.held.get_mut(digest) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(digest);
            }
        }
    }

    /// Holds chunks no more, each as often as it is named; answers what nobody counts on then.
    pub(crate) fn release_held<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>) -> Vec<Freed> {
        let mut freed = Vec::new();
        for digest in digests {
            self.let_go(digest);
            freed.extend(self.drop_unneeded(digest));
        }
        freed
    }

    /// Drops a chunk that nobody counts on or holds.
    fn drop_unneeded(&mut self, digest: &Digest) -> Option<Freed> {
        let chunk = self.chunks.get(digest)?;
        (chunk.counts == 0 && !self.held.contains_key(digest)).then(|| self.drop_chunk(digest)).flatten()
    }

    /// The bytes of a chunk were read here and are right.
    pub(crate) fn prove(&mut self, digest: &Digest, place: &ChunkPlace) {
        if self.place(digest).as_ref() == Some(place)
            && let Some(chunk) = self.chunks.get_mut(digest)
        {
            chunk.proven = true;
        }
    }

    /// The bytes of a chunk were read here and are not right.
    pub(crate) fn spoil(&mut self, digest: &Digest, place: &ChunkPlace) {
        if self.place(digest).as_ref() == Some(place) {
            self.put(digest, None);
        }
    }

    /// What of an upload's own chunks has no place yet; of a blob that is stored already, what somebody lacks.
    pub(crate) fn lacking(&self, own: &HashMap<Digest, ChunkPlace>, stored: bool) -> Vec<(Digest, ChunkPlace)> {
        let lacks = |digest: &Digest| match self.chunks.get(digest) {
            Some(chunk) => chunk.place().is_none(),
            None => !stored,
        };
        let mut lacking: Vec<_> =
            own.iter().filter(|(digest, _)| lacks(digest)).map(|(digest, place)| (*digest, *place)).collect();
        lacking.sort_unstable_by_key(|(_, place)| place.offset);
        lacking
    }

    /// Gives the chunks of a file their places, whatever places they had.
    pub(crate) fn adopt(&mut self, listing: &Listing, proven: bool) {
        if listing.chunks.is_empty() {
            return;
        }
        // The same file again is one whose record was moved.
        if self.files.get(&listing.file).is_none() {
            let (file, bytes) = (listing.file, listing.file_bytes);
            self.files.insert(File { file, bytes, disk_bytes: bytes, chunks: 0 });
            self.disk_bytes += listing.file_bytes;
        }
        for (digest, place) in &listing.chunks {
            self.put(digest, Some(*place));
            if let Some(chunk) = self.chunks.get_mut(digest) {
                chunk.proven = proven;
            }
        }
    }

    /// Takes an [`Self::adopt`] back: nothing of the file counts.
    pub(crate) fn disown(&mut self, listing: &Listing) {
        for (digest, place) in &listing.chunks {
            self.spoil(digest, place);
            self.drop_unneeded(digest);
        }
        self.forget_file(listing.file);
    }

    /// Counts on chunks for a manifest.
    ///
    /// Fails, and counts on none, where one has no place.
    pub(crate) fn count<'a>(&mut self, digests: impl Iterator<Item = &'a Digest> + Clone) -> Result<(), Digest> {
        if let Some(absent) = digests.clone().find(|digest| self.place(digest).is_none()) {
            return Err(*absent);
        }
        for digest in digests {
            if let Some(chunk) = self.chunks.get_mut(digest) {
                chunk.counts += 1;
            }
        }
        Ok(())
    }

    /// Whether all chunks of a manifest are there.
    pub(crate) fn has_all(&self, manifest: &ChunkManifest) -> bool {
        manifest.chunks().iter().all(|chunk| self.place(&chunk.digest).is_some())
    }

    /// As [`Self::count`], for all chunks of a manifest; says whether they are all there.
    pub(crate) fn count_all(&mut self, manifest: &ChunkManifest) -> bool {
        self.count(manifest.chunks().iter().map(|chunk| &chunk.digest)).is_ok()
    }

    /// Counts on chunks no more, each as often as it is named; answers what nobody counts on then.
    pub(crate) fn release<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>) -> Vec<Freed> {
        let mut freed = Vec::new();
        for digest in digests {
            let Some(chunk) = self.chunks.get_mut(digest) else { continue };
            chunk.counts = chunk.counts.saturating_sub(1);
            freed.extend(self.drop_unneeded(digest));
        }
        freed
    }

    /// Counts on the chunks of a manifest no more, and drops none: more are to be counted.
    pub(crate) fn uncount(&mut self, manifest: &ChunkManifest) {
        for chunk in manifest.chunks() {
            if let Some(chunk) = self.chunks.get_mut(&chunk.digest) {
                chunk.counts = chunk.counts.saturating_sub(1);
            }
        }
    }

    /// All are to be counted anew.
    pub(crate) fn uncount_all(&mut self) {
        self.chunks.iter_mut().for_each(|chunk| chunk.counts = 0);
        self.uncertain = false;
    }

    /// Whether a manifest may count on a chunk that has no place.
    pub(crate) fn lacks_counted(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.counts > 0 && chunk.bytes == 0)
    }

    /// Whether a manifest counts on a chunk in one of these files.
    pub(crate) fn counts_in(&self, files: &HashSet<FileNo>) -> bool {
        let in_one = |chunk: &Chunk| chunk.counts > 0 && chunk.bytes > 0 && files.contains(&chunk.file);
        !files.is_empty() && self.chunks.iter().any(in_one)
    }

    /// Chunks stay counted for a blob that is kept no more: its manifest could not be read. The next start counts anew.
    pub(crate) const fn doubt(&mut self) {
        self.uncertain = true;
    }

    /// Forgets chunks that have no place and that nobody counts on.
    pub(crate) fn forget_empty(&mut self) {
        let empty = self.chunks.iter().filter(|chunk| chunk.counts == 0 && chunk.bytes == 0);
        for digest in empty.map(|chunk| chunk.digest).collect::<Vec<_>>() {
            self.chunks.remove(&digest);
        }
    }

    /// Drops what no manifest counts on, when all of them were counted; answers which bytes that are.
    pub(crate) fn drop_uncounted(&mut self) -> Vec<Freed> {
        let uncounted: Vec<_> =
            self.chunks.iter().filter(|chunk| chunk.counts == 0).map(|chunk| chunk.digest).collect();
        uncounted.iter().filter_map(|digest| self.drop_chunk(digest)).collect()
    }

    fn drop_chunk(&mut self, digest: &Digest) -> Option<Freed> {
        let place = self.place(digest);
        self.put(digest, None);
        self.chunks.remove(digest);
        place.map(|place| Freed { file: place.file, offset: place.offset, bytes: u64::from(place.stored_bytes) })
    }

    fn put(&mut self, digest: &Digest, place: Option<ChunkPlace>) {
        let before = self.place(digest);
        match self.chunks.get_mut(digest) {
            Some(chunk) => chunk.put(place),
            None => {
                let mut chunk = Chunk::of(*digest);
                chunk.put(place);
                self.chunks.insert(chunk);
            }
        }
        if let Some(before) = before {
            self.placed -= 1;
            self.plain_bytes -= u64::from(before.bytes);
            if let Some(file) = self.files.get_mut(&before.file) {
                file.chunks = file.chunks.saturating_sub(1);
            }
        }
        if let Some(place) = place {
            self.count_place(&place);
        }
    }

    fn count_place(&mut self, place: &ChunkPlace) {
        self.placed += 1;
        self.plain_bytes += u64::from(place.bytes);
        if let Some(file) = self.files.get_mut(&place.file) {
            file.chunks += 1;
        }
    }

    /// Whether a chunk has its place in this file.
    pub(crate) fn uses_file(&self, file: FileNo) -> bool {
        self.files.get(&file).is_some_and(|file| file.chunks > 0)
    }

    /// Whether the file holds a chunk that somebody counts on, or one whose bytes were found wrong.
    pub(crate) fn has_file(&self, file: FileNo) -> bool {
        self.files.get(&file).is_some()
    }

    /// All files, in no order.
    pub(crate) fn file_numbers(&self) -> impl Iterator<Item = FileNo> {
        self.files.iter().map(|file| file.file)
    }

    /// The file has left the disk, and is in the bucket.
    pub(crate) fn moved_away(&mut self, file: FileNo) {
        self.punched(file, u64::MAX);
    }

    /// The file is gone.
    pub(crate) fn forget_file(&mut self, file: FileNo) {
        if let Some(file) = self.files.remove(&file) {
            self.disk_bytes -= file.disk_bytes;
        }
    }

    /// Bytes of a file were given back to the disk.
    pub(crate) fn punched(&mut self, file: FileNo, bytes: u64) {
        if let Some(file) = self.files.get_mut(&file) {
            let bytes = bytes.min(file.disk_bytes);
            file.disk_bytes -= bytes;
            self.disk_bytes -= bytes;
        }
    }

    /// What of a listing still holds.
    pub(crate) fn current(&self, listing: &Listing) -> Listing {
        let holds = |(digest, place): &&(Digest, ChunkPlace)| self.place(digest).as_ref() == Some(place);
        Listing { chunks: listing.chunks.iter().filter(holds).copied().collect(), ..*listing }
    }

    /// What these files hold by now, those that hold nothing left out.
    pub(crate) fn listings(&self, lengths: &HashMap<FileNo, u64>) -> Vec<Listing> {
        let mut chunks: HashMap<FileNo, Vec<(Digest, ChunkPlace)>> = HashMap::new();
        for chunk in self.chunks.iter() {
            if let Some(place) = chunk.place().filter(|place| lengths.contains_key(&place.file)) {
                chunks.entry(place.file).or_default().push((chunk.digest, place));
            }
        }
        let listing = |(file, mut chunks): (FileNo, Vec<(Digest, ChunkPlace)>)| {
            chunks.sort_unstable_by_key(|(_, place)| place.offset);
            Listing { file, file_bytes: lengths.get(&file).copied().unwrap_or_default(), chunks }
        };
        chunks.into_iter().map(listing).collect()
    }

    pub(crate) const fn totals(&self) -> Totals {
        Totals { chunks: self.placed, plain_bytes: self.plain_bytes, disk_bytes: self.disk_bytes }
    }
}

/// What is copied of it, and read back.
impl Table {
    /// From here on it is copied as it is now. Nothing where the counts are not known for sure.
    pub(crate) fn begin_copy(&mut self) -> Option<(usize, usize)> {
        if self.uncertain {
            return None;
        }
        self.chunks.begin_copy();
        self.files.begin_copy();
        Some((self.chunks.len(), self.files.len()))
    }

    pub(crate) fn end_copy(&mut self) {
        self.chunks.end_copy();
        self.files.end_copy();
    }

    pub(crate) fn copy_chunks(&self, shard: usize, out: &mut Vec<u8>) -> bool {
        self.chunks.copy_shard(shard, &mut |chunk| chunk.encode(out))
    }

    pub(crate) fn copy_files(&self, shard: usize, out: &mut Vec<u8>) -> bool {
        self.files.copy_shard(shard, &mut |file| file.encode(out))
    }

    /// For so many chunks.
    pub(crate) fn loading(chunks: usize) -> Self {
        Self { chunks: flat::Table::with_room(chunks), ..Self::default() }
    }

    /// A chunk file from a copy, and whether it is there.
    pub(crate) fn load_file(&mut self, from: &mut Cursor<'_>, there: impl Fn(FileNo, u64) -> bool) -> Option<()> {
        let file = File::decode(from)?;
        if self.files.get(&file.file).is_some() {
            return None;
        }
        if there(file.file, file.bytes) {
            self.disk_bytes += file.disk_bytes;
            self.files.insert(file);
        }
        Some(())
    }

    /// A chunk from a copy, when all files are. One whose file is gone has no place.
    pub(crate) fn load_chunk(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        let mut chunk = Chunk::decode(from)?;
        if let Some(place) = chunk.place() {
            match self.files.get(&place.file) {
                Some(file) if place.offset.checked_add(place.stored_bytes.into())? > file.bytes => return None,
                Some(_) => self.count_place(&place),
                None => chunk.put(None),
            }
        }
        self.chunks.push(chunk);
        Some(())
    }

    /// All were loaded.
    pub(crate) fn loaded(&mut self) {
        self.chunks.link();
    }

    /// All of it, for tests to compare.
    #[cfg(test)]
    pub(crate) fn describe(&self) -> Vec<String> {
        let chunk = |chunk: &Chunk| format!("{:?} {:?} counted {}", chunk.digest, chunk.place(), chunk.counts);
        let mut lines: Vec<_> =
            self.chunks.iter().map(chunk).chain(self.files.iter().map(|f| format!("{f:?}"))).collect();
        lines.push(format!("{:?} {}", self.totals(), self.uncertain));
        lines.sort_unstable();
        lines
    }
}
