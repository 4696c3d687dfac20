//! A stored blob by its parts: its manifest, and one chunk at a time, for whoever has the others already.

use super::manifest::ChunkManifest;
use crate::blob::{Blob, Body};
use crate::error::Fault;

impl Blob {
    /// Which chunks it is made of; `None` of one that is not stored in chunks.
    #[must_use]
    pub const fn manifest(&self) -> Option<&ChunkManifest> {
        match &self.body {
            Body::Chunked(chunked) => Some(&chunked.manifest),
            Body::Memory(_) | Body::File { .. } => None,
        }
    }

    /// The bytes of the chunk at this place, checked; `None` where there is no such place.
    ///
    /// # Errors
    /// [`Fault::Damaged`] where they are not what was stored; the blob is put aside then. [`Fault::Io`] where the disk fails.
    pub fn chunk(&self, nth: usize) -> Result<Option<Vec<u8>>, Fault> {
        let Some((start, bytes)) = self.manifest().and_then(|manifest| manifest.extent(nth)) else { return Ok(None) };
        let mut plain = vec![0; bytes];
        let read = self.read_at(start, &mut plain)?;
        // A chunk is read at once or not at all.
        if read == bytes { Ok(Some(plain)) } else { Err(Fault::Damaged { digest: self.digest }) }
    }
}
