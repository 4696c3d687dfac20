//! A blob that lies in chunks: each is read when a byte of it is asked for, and no byte is given out before its chunk was
//! found to be what the manifest names.

use std::io::Read as _;
use std::sync::{Mutex, PoisonError};

use super::Blob;
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
        let mut window = Window::default();
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
        if !window.reader.read(&blob.shared, &chunk.digest, &place, &mut window.plain)? {
            blob.shared.chunks.table().spoil(&chunk.digest, &place);
            return damaged();
        }
        window.nth = Some(nth);
        Ok(())
    }
}
