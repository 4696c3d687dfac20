//! A large blob that somebody is about to send: cut as a store would cut it, and nothing kept but the names of its chunks.

use std::mem;

use windlass_protocol::Digest;
use windlass_protocol::limits::MANIFEST_MAX_CHUNKS;

use super::strands::{Cut, Strands, Take};
use crate::chunk::frame::Packer;
use crate::chunk::manifest::ChunkManifest;
use crate::chunk::tar::Lane;
use crate::error::{Error, Rejected};

/// Is shown a chunk: its lane, how many of that lane came before it, its name, its bytes.
pub(super) type Show<'a> = &'a mut dyn FnMut(Lane, u32, Digest, &[u8]);

/// Cuts a blob as it comes. The same bytes are cut the same, however they come.
#[derive(Debug, Default)]
pub struct Outline {
    strands: Strands,
    cuts: Vec<Cut>,
    /// Chunks of each lane so far.
    counts: [u32; 3],
}

impl Outline {
    /// Takes the next bytes, and shows each chunk that is cut off.
    ///
    /// # Errors
    /// [`Rejected::BlobTooLarge`] where there would be more chunks than a manifest can name.
    pub fn push(&mut self, mut bytes: &[u8], show: Show<'_>) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(self.strands.piece_bytes()));
            bytes = rest;
            self.with_strands(show, |strands, take| strands.push(piece, take))?;
        }
        Ok(())
    }

    /// How many chunks were cut so far.
    #[must_use]
    pub const fn chunks(&self) -> usize {
        self.cuts.len()
    }

    /// Nothing more comes: what is left is cut and shown too.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn end(&mut self, show: Show<'_>) -> Result<(), Error> {
        self.with_strands(show, |strands, take| strands.finish(take))
    }

    /// The manifest of the blob, which has this name, once it has ended.
    #[must_use]
    pub fn manifest(self, digest: Digest) -> ChunkManifest {
        self.strands.manifest(digest, self.cuts)
    }

    fn with_strands(
        &mut self,
        show: Show<'_>,
        work: impl FnOnce(&mut Strands, Take<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut strands = mem::take(&mut self.strands);
        strands.allow(self.cuts.len());
        let Self { cuts, counts, .. } = self;
        let worked = work(&mut strands, &mut |lane, plain| {
            if cuts.len() == MANIFEST_MAX_CHUNKS {
                return Err(Rejected::BlobTooLarge.into());
            }
            let digest = Digest::of(plain);
            // No chunk is longer than CHUNK_MAX_BYTES.
            cuts.push(Cut { lane, digest, bytes: u32::try_from(plain.len()).unwrap_or(u32::MAX) });
            if let Some(count) = counts.get_mut(lane as usize) {
                show(lane, *count, digest, plain);
                *count += 1;
            }
            Ok(())
        });
        self.strands = strands;
        worked
    }
}

/// Makes of chunks what a store would keep of them, which is what crosses a link ([`crate::Assembly::put_packed`]).
#[derive(Debug)]
pub struct ChunkPacker(Packer);

impl ChunkPacker {
    /// Holds what zstd needs from one chunk to the next.
    ///
    /// # Errors
    /// Only for want of memory.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Packer::new()?))
    }

    /// A zstd frame that is shorter than the chunk, or the chunk itself.
    ///
    /// # Errors
    /// Only for want of memory.
    pub fn pack<'a>(&'a mut self, plain: &'a [u8]) -> std::io::Result<&'a [u8]> {
        self.0.pack(plain)
    }
}
