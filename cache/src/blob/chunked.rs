//! A blob that lies in chunks: each is read when a byte of it is asked for, and no byte is given out before its chunk was
//! found to be what the manifest names.

use std::sync::{Mutex, PoisonError};

use windlass_protocol::limits::{ORIGIN_GAP_MAX_BYTES, ORIGIN_RANGE_MAX_BYTES};

use super::{Blob, PIECE_BYTES};
use crate::chunk::ChunkPlace;
use crate::chunk::manifest::{ChunkManifest, Span};
use crate::chunk::reader::ChunkReader;
use crate::chunk::tar::Lane;
use crate::error::Fault;

/// The bytes of a chunk, and its frame where it lies in one.
pub(crate) type PlainAndFrame = (Vec<u8>, Option<Vec<u8>>);

/// The body of a blob in chunks.
#[derive(Debug)]
pub(crate) struct Chunked {
    pub(crate) manifest: ChunkManifest,
    /// Boxed: blobs are handed on, and most are small.
    windows: Mutex<Box<Windows>>,
}

/// The chunks that were read last, one of each lane.
#[derive(Debug)]
struct Windows {
    of_lanes: [Window; 3],
    reader: ChunkReader,
}

#[derive(Debug)]
struct Window {
    nth: Option<usize>,
    plain: Vec<u8>,
    /// How far ahead is fetched of what is away: further with each chunk that is asked for after the one before it in its lane.
    ahead_bytes: u64,
    next: usize,
}

impl Windows {
    fn new(manifest: &ChunkManifest, ahead_bytes: u64) -> Self {
        let window = |next| Window { nth: None, plain: Vec::new(), ahead_bytes, next };
        Self { of_lanes: manifest.lane_starts().map(window), reader: ChunkReader::default() }
    }

    const fn of(&mut self, lane: Lane) -> (&mut Window, &mut ChunkReader) {
        let Self { of_lanes: [heads, times, files], reader } = self;
        let window = match lane {
            Lane::Heads => heads,
            Lane::Times => times,
            Lane::Files => files,
        };
        (window, reader)
    }
}

impl Chunked {
    pub(crate) fn new(manifest: ChunkManifest) -> Self {
        let windows = Mutex::new(Box::new(Windows::new(&manifest, 0)));
        Self { manifest, windows }
    }

    /// Fills the buffer, unless the blob ends.
    pub(super) fn read_at(&self, blob: &Blob, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(span) = self.manifest.span(offset + done as u64) else { break };
            let bytes = self.bytes(blob, &mut windows, span)?;
            let n = rest.len().min(bytes.len());
            let (into, _) = rest.split_at_mut(n);
            into.copy_from_slice(bytes.split_at(n).0);
            done += n;
        }
        Ok(done)
    }

    pub(super) fn copy_to(&self, blob: &Blob, take: &mut dyn FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        // Not the shared ones: `take` may read here and there meanwhile.
        let mut windows = Windows::new(&self.manifest, ORIGIN_RANGE_MAX_BYTES);
        let (mut at, mut joined) = (0, Vec::new());
        while let Some(span) = self.manifest.span(at) {
            let bytes = self.bytes(blob, &mut windows, span)?;
            at += bytes.len() as u64;
            // What an archive has of headers is too little to be handed over by itself.
            if joined.is_empty() && self.manifest.chunk_bytes(span.nth) == Some(bytes.len()) {
                take(bytes)?;
                continue;
            }
            joined.extend_from_slice(bytes);
            if joined.len() >= PIECE_BYTES {
                take(&joined)?;
                joined.clear();
            }
        }
        if joined.is_empty() { Ok(()) } else { take(&joined) }
    }

    /// All of one chunk; nothing where there is no such place.
    pub(crate) fn chunk(&self, blob: &Blob, nth: usize) -> Result<Option<PlainAndFrame>, Fault> {
        let Some(lane) = self.manifest.lane(nth) else { return Ok(None) };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let (window, reader) = windows.of(lane);
        self.load(blob, window, reader, nth)?;
        // Whoever asks for chunks asks for each once.
        window.nth = None;
        Ok(Some((std::mem::take(&mut window.plain), reader.frame().map(<[u8]>::to_vec))))
    }

    fn bytes<'a>(&self, blob: &Blob, windows: &'a mut Windows, span: Span) -> Result<&'a [u8], Fault> {
        let (window, reader) = windows.of(span.lane);
        if window.nth != Some(span.nth) {
            self.load(blob, window, reader, span.nth)?;
        }
        window.plain.get(span.at..span.at + span.bytes).ok_or(Fault::Damaged { digest: blob.digest })
    }

    fn load(&self, blob: &Blob, window: &mut Window, reader: &mut ChunkReader, nth: usize) -> Result<(), Fault> {
        window.nth = None;
        let damaged = || {
            blob.shared.set_aside(&blob.digest, &blob.pin);
            Err(Fault::Damaged { digest: blob.digest })
        };
        let Some(chunk) = self.manifest.chunks().get(nth) else { return damaged() };
        let Some(place) = blob.shared.chunks.table().place(&chunk.digest) else { return damaged() };
        let in_order = nth == window.next;
        (window.next, reader.ahead) = (nth + 1, 0);
        if blob.shared.away.as_ref().is_some_and(|away| away.holds_chunk_file(place.file)) {
            reader.ahead = self.ahead(blob, nth, &place, window.ahead_bytes);
            let twice = (window.ahead_bytes.max(chunk_bytes(&place)) * 2).min(ORIGIN_RANGE_MAX_BYTES);
            window.ahead_bytes = if in_order { twice } else { 0 };
        }
        if !reader.read(&blob.shared, &chunk.digest, &place, &mut window.plain)? {
            blob.shared.chunks.table().spoil(&chunk.digest, &place);
            return damaged();
        }
        window.nth = Some(nth);
        Ok(())
    }

    /// Up to where the chunks from this one on lie one behind the other, within so many bytes.
    fn ahead(&self, blob: &Blob, nth: usize, place: &ChunkPlace, bytes: u64) -> u64 {
        let mut end = place.offset + u64::from(place.stored_bytes);
        let table = blob.shared.chunks.table();
        for chunk in self.manifest.chunks().iter().skip(nth + 1) {
            let Some(next) = table.place(&chunk.digest).filter(|next| next.file == place.file) else { break };
            let next_end = next.offset + u64::from(next.stored_bytes);
            let near = next.offset.checked_sub(end).is_some_and(|gap| gap <= ORIGIN_GAP_MAX_BYTES);
            if !near || next_end - place.offset > bytes {
                break;
            }
            end = next_end;
        }
        end
    }
}

const fn chunk_bytes(place: &ChunkPlace) -> u64 {
    place.stored_bytes as u64
}
