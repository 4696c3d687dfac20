//! Which chunk lies where, and how many count on it; in memory, rebuilt from the segments at open.
//!
//! A chunk is counted once for each place in a manifest of a blob that is kept, and once for each in an upload that is under
//! way. It has a count and no place where its bytes were found wrong: blobs that name it cannot be read until it comes again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use windlass_protocol::Digest;

use super::listing::Listing;
use super::{ChunkPlace, FileNo};
use crate::chunk::manifest::ChunkManifest;

#[derive(Debug, Default)]
struct Chunk {
    place: Option<ChunkPlace>,
    counts: u32,
    /// This process has written or read its bytes.
    proven: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct File {
    /// Chunks that have their place in it.
    chunks: usize,
    /// Its length, less what was given back of it.
    disk_bytes: u64,
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
    chunks: HashMap<Digest, Chunk>,
    files: HashMap<FileNo, File>,
    placed: usize,
    plain_bytes: u64,
    disk_bytes: u64,
}

impl Table {
    /// Where a chunk lies.
    pub(crate) fn place(&self, digest: &Digest) -> Option<ChunkPlace> {
        self.chunks.get(digest)?.place
    }

    /// Counts on a chunk, where it is there.
    pub(crate) fn hold(&mut self, digest: &Digest) -> Hold {
        let Some(chunk) = self.chunks.get_mut(digest) else { return Hold::Absent };
        let Some(place) = chunk.place else { return Hold::Absent };
        chunk.counts += 1;
        if chunk.proven { Hold::Proven } else { Hold::Unproven(place) }
    }

    /// The bytes of a chunk were read here and are right.
    pub(crate) fn prove(&mut self, digest: &Digest, place: &ChunkPlace) {
        if let Some(chunk) = self.chunks.get_mut(digest).filter(|chunk| chunk.place.as_ref() == Some(place)) {
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
            Some(chunk) => chunk.place.is_none(),
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
        if let Entry::Vacant(vacant) = self.files.entry(listing.file) {
            vacant.insert(File { chunks: 0, disk_bytes: listing.file_bytes });
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
            if self.chunks.get(digest).is_some_and(|chunk| chunk.counts == 0) {
                self.chunks.remove(digest);
            }
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
            if chunk.counts == 0 {
                freed.extend(self.drop_chunk(digest));
            }
        }
        freed
    }

    /// Drops what no manifest counts on, when all of them were counted.
    pub(crate) fn drop_uncounted(&mut self) {
        let uncounted: Vec<_> =
            self.chunks.iter().filter(|(_, chunk)| chunk.counts == 0).map(|(digest, _)| *digest).collect();
        for digest in &uncounted {
            self.drop_chunk(digest);
        }
    }

    fn drop_chunk(&mut self, digest: &Digest) -> Option<Freed> {
        let place = self.place(digest);
        self.put(digest, None);
        self.chunks.remove(digest);
        place.map(|place| Freed { file: place.file, offset: place.offset, bytes: u64::from(place.stored_bytes) })
    }

    fn put(&mut self, digest: &Digest, place: Option<ChunkPlace>) {
        let chunk = self.chunks.entry(*digest).or_default();
        let before = std::mem::replace(&mut chunk.place, place);
        if let Some(before) = before {
            self.placed -= 1;
            self.plain_bytes -= u64::from(before.bytes);
            if let Some(file) = self.files.get_mut(&before.file) {
                file.chunks -= 1;
            }
        }
        if let Some(place) = place {
            self.placed += 1;
            self.plain_bytes += u64::from(place.bytes);
            if let Some(file) = self.files.get_mut(&place.file) {
                file.chunks += 1;
            }
        }
    }

    /// Whether a chunk has its place in this file.
    pub(crate) fn uses_file(&self, file: FileNo) -> bool {
        self.files.get(&file).is_some_and(|file| file.chunks > 0)
    }

    /// Whether the file holds a chunk that somebody counts on, or one whose bytes were found wrong.
    pub(crate) fn has_file(&self, file: FileNo) -> bool {
        self.files.contains_key(&file)
    }

    /// All files, in no order.
    pub(crate) fn file_numbers(&self) -> impl Iterator<Item = FileNo> {
        self.files.keys().copied()
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
        for (digest, chunk) in &self.chunks {
            if let Some(place) = chunk.place.filter(|place| lengths.contains_key(&place.file)) {
                chunks.entry(place.file).or_default().push((*digest, place));
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
