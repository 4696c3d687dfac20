//! A stored blob by its parts: its manifest, and one chunk at a time, for whoever has the others already.

use super::manifest::ChunkManifest;
use crate::blob::{Blob, Body, PlainAndFrame};
use crate::error::Fault;

/// A chunk in as few bytes as it is stored in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackedChunk {
    /// A zstd frame, shorter than the chunk.
    Frame(Vec<u8>),
    /// The chunk: it does not shrink.
    Plain(Vec<u8>),
}

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
        Ok(self.read_chunk(nth)?.map(|(plain, _)| plain))
    }

    /// The same in as few bytes as it is stored in, for [`crate::Assembly::put_packed`]; they were checked all the same.
    ///
    /// # Errors
    /// As [`Self::chunk`].
    pub fn packed_chunk(&self, nth: usize) -> Result<Option<PackedChunk>, Fault> {
        let packed = |(plain, frame): PlainAndFrame| match frame {
            Some(frame) => PackedChunk::Frame(frame),
            None => PackedChunk::Plain(plain),
        };
        Ok(self.read_chunk(nth)?.map(packed))
    }

    fn read_chunk(&self, nth: usize) -> Result<Option<PlainAndFrame>, Fault> {
        match &self.body {
            Body::Chunked(chunked) => chunked.chunk(self, nth),
            Body::Memory(_) | Body::File { .. } => Ok(None),
        }
    }
}
