//! A blob that lies in chunks: each is read when a byte of it is asked for, and no byte is given out before its chunk was
//! found to be what the manifest names.

use std::io::Read as _;
use std::sync::{Mutex, PoisonError};

use windlass_protocol::limits::{ORIGIN_GAP_MAX_BYTES, ORIGIN_RANGE_MAX_BYTES};

use super::Blob;
use crate::chunk::ChunkPlace;
use crate::chunk::manifest::ChunkManifest;
use crate::chunk::reader::ChunkReader;
use crate::error::Fault;

/// The body of a blob in chunks.
#[derive(Debug)]
pub(crate) struct Chunked {
    pub(crate) manifest: ChunkManifest,
    window: Mutex<Window>,
}

/// The chunk that was read last.
#[derive(Debug, Default)]
struct Window {
    nth: Option<usize>,
    plain: Vec<u8>,
    reader: ChunkReader,
    /// How far ahead is fetched of what is away: further with each chunk that is asked for after the one before it.
    ahead_bytes: u64,
    next: usize,
}

impl Chunked {
    pub(crate) fn new(manifest: ChunkManifest) -> Self {
        Self { manifest, window: Mutex::default() }
    }

    pub(super) fn read_at(&self, blob: &Blob, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some((nth, start)) = self.manifest.find(offset) else { return Ok(0) };
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        self.load(blob, &mut window, nth)?;
        let inside = usize::try_from(offset - start).ok().and_then(|at| window.plain.get(at..));
        inside.unwrap_or_default().read(buffer).map_err(|e| blob.unreadable(e))
    }

    pub(super) fn copy_to(&self, blob: &Blob, take: &mut dyn FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        // Not the shared one: `take` may read here and there meanwhile.
        let mut window = Window { ahead_bytes: ORIGIN_RANGE_MAX_BYTES, ..Window::default() };
        for nth in 0..self.manifest.chunks().len() {
            self.load(blob, &mut window, nth)?;
            take(&window.plain)?;
        }
        Ok(())
    }

    fn load(&self, blob: &Blob, window: &mut Window, nth: usize) -> Result<(), Fault> {
        if window.nth == Some(nth) {
            return Ok(());
        }
        window.nth = None;
        let damaged = || {
            blob.shared.set_aside(&blob.digest, &blob.pin);
            Err(Fault::Damaged { digest: blob.digest })
        };
        let Some(chunk) = self.manifest.chunks().get(nth) else { return damaged() };
        let Some(place) = blob.shared.chunks.table().place(&chunk.digest) else { return damaged() };
        let in_order = nth == window.next;
        (window.next, window.reader.ahead) = (nth + 1, 0);
        if blob.shared.away.as_ref().is_some_and(|away| away.holds_chunk_file(place.file)) {
            window.reader.ahead = self.ahead(blob, nth, &place, window.ahead_bytes);
            let twice = (window.ahead_bytes.max(chunk_bytes(&place)) * 2).min(ORIGIN_RANGE_MAX_BYTES);
            window.ahead_bytes = if in_order { twice } else { 0 };
        }
        if !window.reader.read(&blob.shared, &chunk.digest, &place, &mut window.plain)? {
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
