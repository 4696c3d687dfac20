//! A large blob that is put together from chunks, which come in any order and from anywhere: its manifest says which, and each
//! proves itself by its name. Those that are stored already, for whomever, need not come.
//!
//! It is for who was told the manifest by somebody that may read the blob: that is the proof for each chunk.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_protocol::{Digest, Namespace};

use super::Cutting;
use crate::chunk::frame::Unpacker;
use crate::chunk::manifest::ChunkManifest;
use crate::chunk::reader::ChunkReader;
use crate::error::{Error, Fault, OrFault as _, Rejected};
use crate::store::{Shared, Store};

/// What is hashed before others are served: no more than a few chunks.
const HASHED_AT_ONCE_BYTES: u64 = 1 << 20;

/// A large blob that is put together. Dropped before [`Assembly::finish`] it leaves nothing behind.
#[derive(Debug)]
pub struct Assembly {
    shared: Arc<Shared>,
    manifest: ChunkManifest,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` once it is stored, or could not be.
    cutting: Option<Cutting>,
    /// Where each chunk belongs that has not come.
    absent: HashMap<Digest, Vec<u32>>,
    /// Bytes of them, those that come twice counted once.
    absent_bytes: u64,
    /// What is known of the blob's own digest: that of so many bytes from its beginning.
    hasher: Box<blake3::Hasher>,
    hashed: u64,
    reader: ChunkReader,
    unpacker: Unpacker,
}

impl Store {
    /// Begins a blob that comes in chunks. Those that are stored stay for as long as it lives; what nobody has looked at since
    /// the store was opened is read first.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn assemble(&self, manifest: ChunkManifest) -> Result<Assembly, Fault> {
        self.assemble_where(manifest, |_| true)
    }

    /// The same for somebody of whom only these chunks are believed: each of the others has to come, whoever has it, and until
    /// it does nobody looks whether it is stored (I12).
    ///
    /// # Errors
    /// As [`Self::assemble`].
    pub fn assemble_of(&self, manifest: ChunkManifest, believed: &HashSet<Digest>) -> Result<Assembly, Fault> {
        self.assemble_where(manifest, |chunk| believed.contains(chunk))
    }

    fn assemble_where(&self, manifest: ChunkManifest, believed: impl Fn(&Digest) -> bool) -> Result<Assembly, Fault> {
        let mut cutting = Cutting::new(&self.shared);
        let mut absent: HashMap<Digest, Vec<u32>> = HashMap::new();
        let (mut absent_bytes, mut start) = (0, 0);
        for (nth, chunk) in (0..).zip(manifest.chunks()) {
            if !(believed(&chunk.digest) && cutting.hold(&chunk.digest)?) {
                let places = absent.entry(chunk.digest).or_default();
                absent_bytes += if places.is_empty() { chunk.end - start } else { 0 };
                places.push(nth);
            }
            start = chunk.end;
        }
        let state = State {
            cutting: Some(cutting),
            absent,
            absent_bytes,
            hasher: Box::default(),
            hashed: 0,
            reader: ChunkReader::default(),
            unpacker: Unpacker::default(),
        };
        Ok(Assembly { shared: Arc::clone(&self.shared), manifest, state: Mutex::new(state) })
    }

    /// Whether a blob of so many bytes would leave half of the cap to others.
    #[must_use]
    pub fn has_room_for(&self, bytes: u64) -> bool {
        self.shared.options.capacity_bytes.is_none_or(|cap| bytes <= cap / 2)
    }
}

impl Assembly {
    /// Which chunks the blob is made of.
    #[must_use]
    pub const fn manifest(&self) -> &ChunkManifest {
        &self.manifest
    }

    /// The places of those that have not come, in order; of a chunk that has several, the first.
    #[must_use]
    pub fn missing(&self) -> Vec<u32> {
        let mut missing: Vec<u32> = self.lock().absent.values().filter_map(|places| places.first().copied()).collect();
        missing.sort_unstable();
        missing
    }

    /// Bytes that have not come.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        self.lock().absent_bytes
    }

    /// Whether the chunk of this place has come, or was there.
    #[must_use]
    pub fn has(&self, nth: u32) -> bool {
        let chunk = self.manifest.chunks().get(nth as usize);
        chunk.is_some_and(|chunk| !self.lock().absent.contains_key(&chunk.digest))
    }

    /// Takes the bytes of the chunk of this place. One that has come is passed over.
    ///
    /// # Errors
    /// [`Rejected::WrongDigest`] where they are not what the manifest says; nothing has changed then.
    /// [`Fault::DiskFull`] and others.
    pub fn put(&self, nth: u32, plain: &[u8]) -> Result<(), Error> {
        self.take(nth, plain, None)
    }

    /// The same of a chunk as it is stored elsewhere: a zstd frame that is shorter than it. It is kept so.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_packed(&self, nth: u32, stored: &[u8]) -> Result<(), Error> {
        let bytes = self.manifest.chunk_bytes(nth as usize).unwrap_or_default();
        let (mut plain, mut unpacker) = (Vec::new(), std::mem::take(&mut self.lock().unpacker));
        let unpacked = unpacker.unpack_frame(stored, bytes, &mut plain);
        self.lock().unpacker = unpacker;
        let framed = unpacked.or_fault("unpacking for", &self.shared.chunks_dir())?;
        // What is no frame is no chunk of that name either.
        self.take(nth, if framed { &plain } else { &[] }, Some(stored))
    }

    fn take(&self, nth: u32, plain: &[u8], stored: Option<&[u8]>) -> Result<(), Error> {
        let chunk = self.manifest.chunks().get(nth as usize);
        let actual = Digest::of(plain);
        let long = self.manifest.chunk_bytes(nth as usize) == Some(plain.len());
        let Some(chunk) = chunk.filter(|chunk| chunk.digest == actual && long) else {
            let expected = chunk.map_or(self.manifest.digest(), |chunk| chunk.digest);
            return Err(Rejected::WrongDigest { expected, actual }.into());
        };
        let mut state = self.lock();
        let State { cutting: Some(cutting), absent, absent_bytes, .. } = &mut *state else { return Ok(()) };
        let Some(places) = absent.get(&chunk.digest).map(Vec::len) else { return Ok(()) };
        // Stored meanwhile, or all along, for somebody else: whoever brings it counts on it from now on, once for each place.
        let mut there = true;
        for _ in 0..places {
            there = there && cutting.hold(&chunk.digest)?;
        }
        match stored {
            _ if there => {}
            Some(stored) => cutting.keep_stored(chunk.digest, plain.len(), stored)?,
            None => cutting.keep(chunk.digest, plain)?,
        }
        absent.remove(&chunk.digest);
        *absent_bytes = absent_bytes.saturating_sub(plain.len() as u64);
        self.hash_next(&mut state, nth as usize, plain);
        Ok(())
    }

    /// Hashes a chunk if the blob goes on with it, and all of it, after what was hashed.
    fn hash_next(&self, state: &mut State, nth: usize, plain: &[u8]) {
        let next = self.manifest.span(state.hashed);
        if next.is_some_and(|next| (next.nth, next.at, next.bytes) == (nth, 0, plain.len())) {
            state.hasher.update(plain);
            state.hashed += plain.len() as u64;
        }
    }

    /// The bytes of the chunk of this place, checked; `None` where it has not come, or what came is damaged. Whoever reads
    /// them in their order spares [`Assembly::finish`] reading them again.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn chunk(&self, nth: u32) -> Result<Option<Vec<u8>>, Fault> {
        let mut plain = Vec::new();
        let mut state = self.lock();
        if !self.read(&mut state, nth as usize, &mut plain)? {
            return Ok(None);
        }
        self.hash_next(&mut state, nth as usize, &plain);
        Ok(Some(plain))
    }

    fn read(&self, state: &mut State, nth: usize, plain: &mut Vec<u8>) -> Result<bool, Fault> {
        let Some(chunk) = self.manifest.chunks().get(nth) else { return Ok(false) };
        if state.absent.contains_key(&chunk.digest) {
            return Ok(false);
        }
        let own = state.cutting.as_ref().and_then(|cutting| cutting.own.get(&chunk.digest).zip(cutting.file.as_ref()));
        if let Some((place, file)) = own {
            let mut stored = vec![0; place.stored_bytes as usize];
            file.file.read_exact_at(place.offset, &mut stored).or_fault("reading", &file.path)?;
            let unpacked = state.unpacker.unpack(&mut stored, place.bytes as usize, plain);
            return Ok(unpacked.or_fault("unpacking", &file.path)? && Digest::of(plain) == chunk.digest);
        }
        let Some(place) = self.shared.chunks.table().place(&chunk.digest) else { return Ok(false) };
        let right = state.reader.read(&self.shared, &chunk.digest, &place, plain)?;
        if !right {
            tracing::warn!(chunk = %chunk.digest, "chunk_damaged");
            self.shared.chunks.table().spoil(&chunk.digest, &place);
        }
        Ok(right)
    }

    /// Stores the blob and makes it visible in the namespace, when all chunks have come: their bytes in this order are hashed,
    /// for a manifest may be wrong where each chunk is right.
    ///
    /// # Errors
    /// [`Rejected::Missing`] where chunks have not come: the assembly goes on then. [`Rejected::WrongDigest`] where they do not
    /// make the blob, [`Fault::Damaged`] where one was lost: it has to be begun anew then, as after any other fault.
    pub fn finish(&self, namespace: &Namespace) -> Result<Digest, Error> {
        let digest = self.manifest.digest();
        self.hash()?;
        let mut state = self.lock();
        let Some(cutting) = state.cutting.take() else { return Err(Fault::Damaged { digest }.into()) };
        let actual = Digest::from_hasher(&state.hasher);
        if actual != digest {
            return Err(Rejected::WrongDigest { expected: digest, actual }.into());
        }
        cutting.store(namespace, &self.manifest)?;
        Ok(digest)
    }

    /// Hashes what was not hashed as it came. Between some pieces others are served.
    fn hash(&self) -> Result<(), Error> {
        // Of an archive, a chunk of each lane.
        let mut windows: [(Option<usize>, Vec<u8>); 3] = Default::default();
        loop {
            let mut state = self.lock();
            if !state.absent.is_empty() {
                let mut digests: Vec<Digest> = state.absent.keys().copied().collect();
                digests.sort_unstable();
                return Err(Rejected::Missing { digests }.into());
            }
            let until = state.hashed + HASHED_AT_ONCE_BYTES;
            while state.hashed < until {
                let Some(span) = self.manifest.span(state.hashed) else { return Ok(()) };
                let Some((nth, plain)) = windows.get_mut(span.lane as usize) else { return Ok(()) };
                if nth.replace(span.nth) != Some(span.nth) && !self.read(&mut state, span.nth, plain)? {
                    state.cutting = None;
                    return Err(Fault::Damaged { digest: self.manifest.digest() }.into());
                }
                // A right chunk may have another length than a wrong manifest says.
                let long = self.manifest.chunk_bytes(span.nth) == Some(plain.len());
                let Some(bytes) = plain.get(span.at..span.at + span.bytes).filter(|_| long) else {
                    state.cutting = None;
                    let (expected, actual) = (self.manifest.digest(), Digest::of(plain));
                    return Err(Rejected::WrongDigest { expected, actual }.into());
                };
                state.hasher.update(bytes);
                state.hashed += span.bytes as u64;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
