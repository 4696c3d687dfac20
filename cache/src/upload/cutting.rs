//! A large blob as it comes: cut into chunks, those that are not stored yet written to a file of their own.

mod assembly;
mod chunk_file;
mod outline;
mod strands;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use windlass_protocol::limits::MANIFEST_MAX_CHUNKS;
use windlass_protocol::{Digest, Namespace};

use super::journal::Noted;
use crate::appender::{Item, Ticket};
use crate::chunk::ChunkPlace;
use crate::chunk::frame::Packer;
use crate::chunk::listing::Listing;
use crate::chunk::manifest::ChunkManifest;
use crate::chunk::reader::ChunkReader;
use crate::chunk::table::{Freed, Hold, Table};
use crate::chunk::tar::Lane;
use crate::error::{Error, Fault, OrFault as _};
use crate::index::NamespaceNo;
use crate::space::Reservation;
use crate::store::Shared;
pub use assembly::Assembly;
use chunk_file::ChunkFile;
pub use outline::{ChunkPacker, Outline};
use strands::Cut;

/// A large blob that is being written. Dropped before its end it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Cutting {
    shared: Arc<Shared>,
    /// What is not cut yet, and the names of what is.
    outline: Outline,
    /// Chunks in the blob's own file.
    own: HashMap<Digest, ChunkPlace>,
    /// Chunks that were there and that this upload counts on, each as often as it came.
    held: Vec<Digest>,
    /// Chunks that are stored where nobody reaches them now: this upload brings them again.
    again: HashSet<Digest>,
    file: Option<ChunkFile>,
    /// Where its file is made and kept, for an upload that outlives its process.
    kept_at: Option<PathBuf>,
    packer: Option<Packer>,
    reader: ChunkReader,
    /// A chunk that is read to see whether it is right.
    proof: Vec<u8>,
}

impl Cutting {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            outline: Outline::new(shared.options.chunk_bytes),
            own: HashMap::new(),
            held: Vec::new(),
            again: HashSet::new(),
            file: None,
            kept_at: None,
            packer: None,
            reader: ChunkReader::default(),
            proof: Vec::new(),
        }
    }

    /// As [`Self::new`], with a file of this name that stays where the upload does not end.
    pub(crate) fn in_file(shared: &Arc<Shared>, path: PathBuf) -> Self {
        let mut cutting = Self::new(shared);
        cutting.kept_at = Some(path);
        cutting
    }

    /// Goes on with what was noted of an upload: its file at `path`, and chunks of the store. Each is read, and hashed; the
    /// first that is not right, or not there any more, ends it. Answers how many are.
    pub(crate) fn take_up(
        shared: &Arc<Shared>,
        path: PathBuf,
        chunks: &[Noted],
        hasher: &mut blake3::Hasher,
    ) -> Result<(Self, usize), Fault> {
        let file = match shared.vfs.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            other => Some(ChunkFile::of(shared, other.or_fault("opening", &path)?, path.clone())),
        };
        let mut cutting = Self::in_file(shared, path);
        cutting.file = file;
        let mut cuts = Vec::new();
        for chunk in chunks.iter().take(MANIFEST_MAX_CHUNKS) {
            if !cutting.take_chunk(chunk)? {
                break;
            }
            hasher.update(&cutting.proof);
            cuts.push(Cut { lane: Lane::Files, digest: chunk.digest, bytes: chunk.bytes });
        }
        let taken = cuts.len();
        cutting.outline.go_on(cuts);
        if let Some(file) = &mut cutting.file {
            file.end =
                cutting.own.values().map(|place| place.offset + u64::from(place.stored_bytes)).max().unwrap_or(0);
            // A chunk file has the length that its record says.
            file.file.truncate(file.end).or_fault("cutting", &file.path)?;
        }
        Ok((cutting, taken))
    }

    /// Reads a chunk that was noted into `proof` and counts on it; says whether it is there and right.
    fn take_chunk(&mut self, noted: &Noted) -> Result<bool, Fault> {
        let Noted { digest, bytes, own } = noted;
        let known = self.own.get(digest).copied();
        if known.is_none() && self.hold(digest)? {
            let place = self.shared.chunks.table().place(digest).filter(|place| place.bytes == *bytes);
            if let Some(place) = place
                && self.reader.read(&self.shared, digest, &place, &mut self.proof)?
            {
                return Ok(true);
            }
            self.held.pop();
            self.shared.release_chunks(&[*digest])?;
        }
        let noted_place = own.map(|(offset, stored_bytes)| ChunkPlace { file: 0, offset, stored_bytes, bytes: *bytes });
        let (Some(place), Some(file)) = (known.or(noted_place), &self.file) else { return Ok(false) };
        let right = self.reader.read_in((&*file.file, &file.path), digest, &place, &mut self.proof)?;
        if right {
            self.own.insert(*digest, place);
        }
        Ok(right)
    }

    /// How many bytes came.
    pub(crate) const fn bytes(&self) -> u64 {
        self.outline.came()
    }

    /// How many chunks were cut.
    pub(crate) const fn chunks(&self) -> usize {
        self.outline.chunks()
    }

    /// What to note of the chunks after the first so many. Nothing of an archive: it begins anew in another process.
    pub(crate) fn noted_since(&self, first: usize) -> Vec<Noted> {
        if self.outline.is_woven() {
            return Vec::new();
        }
        let note = |Cut { digest, bytes, .. }: &Cut| {
            let own = self.own.get(digest).map(|place| (place.offset, place.stored_bytes));
            Noted { digest: *digest, bytes: *bytes, own }
        };
        self.outline.cuts().iter().skip(first).map(note).collect()
    }

    /// How many bytes came and are not cut yet.
    pub(crate) const fn pending_bytes(&self) -> u64 {
        self.outline.came() - self.outline.cut_bytes()
    }

    /// Takes the next bytes; of the room that was kept for them it spends what is written.
    pub(crate) fn write(&mut self, bytes: &[u8], space: &mut Reservation) -> Result<(), Error> {
        let mut outline = std::mem::take(&mut self.outline);
        let pushed = outline.push(bytes, &mut |_, _, digest, plain| {
            self.add(digest, plain)?;
            space.spend(plain.len() as u64);
            Ok(())
        });
        self.outline = outline;
        pushed
    }

    /// Counts on a chunk that was cut: one that is there, or that is written now.
    fn add(&mut self, digest: Digest, plain: &[u8]) -> Result<(), Error> {
        if self.own.contains_key(&digest) || self.hold(&digest)? {
            return Ok(());
        }
        self.keep(digest, plain)
    }

    /// Writes a chunk that is not stored.
    fn keep(&mut self, digest: Digest, plain: &[u8]) -> Result<(), Error> {
        let dir = self.shared.chunks_dir();
        let packer = match &mut self.packer {
            Some(packer) => packer,
            none => none.insert(Packer::new().or_fault("compressing for", &dir)?),
        };
        let stored = packer.pack(plain).or_fault("compressing for", &dir)?.to_vec();
        self.keep_stored(digest, plain.len(), &stored)
    }

    /// Writes a chunk of so many bytes that is not stored, as it is to lie on the disk.
    fn keep_stored(&mut self, digest: Digest, plain_bytes: usize, stored: &[u8]) -> Result<(), Error> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(ChunkFile::create(&self.shared, self.kept_at.clone())?),
        };
        let offset = file.append(stored)?;
        // No chunk is longer than CHUNK_MAX_BYTES.
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let place = ChunkPlace { file: 0, offset, stored_bytes: length(stored.len()), bytes: length(plain_bytes) };
        self.own.insert(digest, place);
        Ok(())
    }

    /// Counts on a chunk that is stored; says whether it is. What nobody has looked at since the store was opened is read
    /// first: an acknowledgement must not rest on bytes that are not there any more.
    fn hold(&mut self, digest: &Digest) -> Result<bool, Fault> {
        if self.again.contains(digest) || self.shared.out_of_reach(digest) {
            self.again.insert(*digest);
            return Ok(false);
        }
        let hold = self.shared.chunks.table().hold(digest);
        let place = match hold {
            Hold::Absent => return Ok(false),
            Hold::Proven => {
                self.held.push(*digest);
                return Ok(true);
            }
            Hold::Unproven(place) => place,
        };
        self.held.push(*digest);
        let read = match self.reader.read(&self.shared, digest, &place, &mut self.proof) {
            Err(Fault::Unavailable { .. }) => None,
            other => Some(other?),
        };
        if read == Some(true) {
            self.shared.chunks.table().prove(digest, &place);
            return Ok(true);
        }
        self.held.pop();
        if read.is_none() {
            self.again.insert(*digest);
        } else {
            tracing::warn!(chunk = %digest, "chunk_damaged");
            self.shared.chunks.table().spoil(digest, &place);
        }
        self.shared.release_chunks(&[*digest])?;
        Ok(false)
    }

    /// Stores the blob and makes it visible in the namespace: its chunks first, each durable before the records that count on
    /// them.
    pub(crate) fn finish(mut self, namespace: &Namespace, digest: Digest) -> Result<(), Error> {
        let mut outline = std::mem::take(&mut self.outline);
        // Nothing more comes: what is left is cut too.
        outline.end(&mut |_, _, digest, plain| self.add(digest, plain))?;
        let manifest = outline.manifest(digest);
        self.store(namespace, &manifest)
    }

    /// The same of a blob whose chunks are all there, own ones and held ones.
    fn store(mut self, namespace: &Namespace, manifest: &ChunkManifest) -> Result<(), Error> {
        let digest = manifest.digest();
        let shared = Arc::clone(&self.shared);
        if let Some(file) = self.file.as_mut().filter(|_| !shared.stored(&digest)) {
            // Before the locks: a large file takes its time.
            file.sync()?;
        }
        let one_at_a_time = shared.chunks.finishing(digest);
        let writing = shared.writing();
        self.commit(namespace, manifest)?;
        if let Some(file) = &mut self.file {
            file.kept = false;
        }
        drop((writing, one_at_a_time));
        shared.sweep()?;
        Ok(shared.evict_where_full()?)
    }

    fn commit(&mut self, namespace: &Namespace, manifest: &ChunkManifest) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let number = shared.number(namespace)?;
        let stored = shared.stored(&manifest.digest());
        let lacking = self.lacking(stored);
        if let Some(file) = self.file.as_mut().filter(|_| !lacking.is_empty()) {
            file.name()?;
        }
        let (ticket, unused) = self.register(number, manifest, stored)?;
        shared.appender.wait(ticket)?;
        shared.chunks.alikes().note((number, namespace.overlay.is_none()), manifest);
        Ok(shared.free(unused)?)
    }

    /// Appends the records; answers what of the own file nobody needs.
    fn register(
        &mut self,
        namespace: NamespaceNo,
        manifest: &ChunkManifest,
        stored: bool,
    ) -> Result<(Ticket, Vec<Freed>), Fault> {
        let digest = manifest.digest();
        let shared = Arc::clone(&self.shared);
        let _in_order = shared.chunks.registering();
        let listing = self.listing(stored);
        {
            let mut table = shared.chunks.table();
            table.adopt(&listing, true);
            // The held ones are counted already; here it is seen that they are still there.
            let counted = if stored { Ok(()) } else { self.count(&mut table, manifest) };
            if let Err(chunk) = counted {
                table.disown(&listing);
                return Err(Fault::Damaged { digest: chunk });
            }
        }
        let chunks = listing.encode();
        let encoded = manifest.encode();
        let mut items = Vec::new();
        if !listing.chunks.is_empty() {
            items.push(Item::Chunks { file: listing.file, listing: &chunks });
        }
        items.push(if stored {
            Item::Grant { digest }
        } else {
            Item::Manifest { digest, manifest: &encoded, bytes: manifest.blob_bytes() }
        });
        let appended = shared.appender.append(namespace, &items);
        if appended.is_err() {
            let mut table = shared.chunks.table();
            if !stored {
                table.release(manifest.chunks().iter().map(|c| &c.digest).filter(|c| self.own.contains_key(c)));
            }
            table.disown(&listing);
        }
        let ticket = appended?;
        if !stored {
            // The manifest counts on them from now on.
            shared.chunks.table().count_held(&std::mem::take(&mut self.held));
        }
        let unused = self.unused(&listing);
        if let Some(file) = self.file.as_mut().filter(|_| !listing.chunks.is_empty()) {
            file.recorded = true;
        }
        Ok((ticket, unused))
    }

    /// Chunks of the own file that have no place yet, or none that is reached.
    fn lacking(&self, stored: bool) -> Vec<(Digest, ChunkPlace)> {
        let mut lacking = self.shared.chunks.table().lacking(&self.own, stored);
        let there: HashSet<Digest> = lacking.iter().map(|(digest, _)| *digest).collect();
        let again = self.again.iter().filter(|digest| !there.contains(digest));
        lacking.extend(again.filter_map(|digest| Some((*digest, *self.own.get(digest)?))));
        lacking.sort_unstable_by_key(|(_, place)| place.offset);
        lacking
    }

    /// What the own file adds to the store.
    fn listing(&self, stored: bool) -> Listing {
        let Some((number, file)) = self.file.as_ref().and_then(|file| Some((file.number?, file))) else {
            return Listing { file: 0, file_bytes: 0, chunks: Vec::new() };
        };
        let mut chunks = self.lacking(stored);
        for (_, place) in &mut chunks {
            place.file = number;
        }
        Listing { file: number, file_bytes: file.end, chunks }
    }

    fn count(&self, table: &mut Table, manifest: &ChunkManifest) -> Result<(), Digest> {
        if let Some(lost) = self.held.iter().find(|held| table.place(held).is_none()) {
            return Err(*lost);
        }
        table.count(manifest.chunks().iter().map(|chunk| &chunk.digest).filter(|digest| self.own.contains_key(digest)))
    }

    /// Ranges of the own file that are in no listing: others stored the same meanwhile.
    fn unused(&self, listing: &Listing) -> Vec<Freed> {
        if listing.chunks.len() == self.own.len() || listing.chunks.is_empty() {
            return Vec::new();
        }
        let used: HashSet<u64> = listing.chunks.iter().map(|(_, place)| place.offset).collect();
        let unused = self.own.values().filter(|place| !used.contains(&place.offset));
        unused
            .map(|place| Freed { file: listing.file, offset: place.offset, bytes: u64::from(place.stored_bytes) })
            .collect()
    }
}

impl Drop for Cutting {
    fn drop(&mut self) {
        if let Err(error) = self.shared.release_chunks(&self.held) {
            tracing::warn!(%error, "chunks_left_behind");
        }
    }
}
