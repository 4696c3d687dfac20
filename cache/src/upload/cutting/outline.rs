//! A large blob that somebody is about to send: cut as a store would cut it, and nothing kept but the names of its chunks.

use windlass_protocol::Digest;
use windlass_protocol::limits::MANIFEST_MAX_CHUNKS;

use super::strands::{Cut, Strands, Take};
use crate::chunk::frame::Packer;
use crate::chunk::manifest::ChunkManifest;
use crate::chunk::tar::Lane;
use crate::error::{Error, Rejected};

/// Is shown a chunk: its lane, how many of that lane came before it, its name, its bytes.
pub(super) type Show<'a> = &'a mut dyn FnMut(Lane, u32, Digest, &[u8]) -> Result<(), Error>;

/// Cuts a blob as it comes. The same bytes are cut the same, however they come.
#[derive(Debug, Default)]
pub struct Outline {
    strands: Strands,
    /// All chunks so far, as they were cut.
    cuts: Vec<Cut>,
    /// Their bytes.
    bytes: u64,
    /// Chunks of each lane so far.
    counts: [u32; 3],
}

impl Outline {
    /// One whose chunks are so long on average.
    pub(crate) fn new(chunk_bytes: usize) -> Self {
        Self { strands: Strands::new(chunk_bytes), ..Self::default() }
    }

    /// Goes on after chunks that were cut before, of what is no archive.
    pub(super) fn go_on(&mut self, cuts: Vec<Cut>) {
        self.bytes = cuts.iter().map(|cut| u64::from(cut.bytes)).sum();
        // No manifest has so many.
        self.counts = [0, 0, u32::try_from(cuts.len()).unwrap_or(u32::MAX)];
        self.cuts = cuts;
        self.strands.go_on(self.bytes);
    }

    /// Takes the next bytes, and shows each chunk that is cut off.
    ///
    /// # Errors
    /// [`Rejected::BlobTooLarge`] where there would be more chunks than a manifest can name; and what `show` says.
    pub fn push(&mut self, mut bytes: &[u8], show: Show<'_>) -> Result<(), Error> {
        // The longest chunk at a time: however much comes at once, little more is held.
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

    /// The chunks that were cut so far; of an archive they have no places yet.
    pub(super) fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Whether it is an archive, as far as it came.
    pub(super) const fn is_woven(&self) -> bool {
        self.strands.are_woven()
    }

    /// How many bytes came.
    pub(super) const fn came(&self) -> u64 {
        self.strands.came()
    }

    /// How many of them are cut.
    pub(super) const fn cut_bytes(&self) -> u64 {
        self.bytes
    }

    /// Nothing more comes: what is left is cut and shown too.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn end(&mut self, show: Show<'_>) -> Result<(), Error> {
        self.with_strands(show, Strands::finish)
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
        let Self { strands, cuts, bytes, counts } = self;
        strands.allow(cuts.len());
        work(strands, &mut |lane, plain| {
            if cuts.len() == MANIFEST_MAX_CHUNKS {
                // Only where chunks are shorter than most.
                return Err(Rejected::BlobTooLarge.into());
            }
            let digest = Digest::of(plain);
            // No chunk is longer than CHUNK_MAX_BYTES.
            cuts.push(Cut { lane, digest, bytes: u32::try_from(plain.len()).unwrap_or(u32::MAX) });
            *bytes += plain.len() as u64;
            let Some(count) = counts.get_mut(lane as usize) else { return Ok(()) };
            let nth = *count;
            *count += 1;
            show(lane, nth, digest, plain)
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_blob_has_more_chunks_than_a_manifest_can_name() {
        let mut outline = Outline::default();
        let cut = Cut { lane: Lane::Files, digest: Digest::of(b"chunk"), bytes: 1 };
        outline.go_on(vec![cut; MANIFEST_MAX_CHUNKS - 1]);
        let mut shown = 0;
        outline.push(b"the last one", &mut |_, _, _, _| Ok(())).unwrap();
        let mut show = |_, nth, _, _: &[u8]| {
            shown = nth;
            Ok(())
        };
        outline.end(&mut show).unwrap();
        assert_eq!(shown as usize, MANIFEST_MAX_CHUNKS - 1);
        outline.push(b"one more", &mut |_, _, _, _| Ok(())).unwrap();
        let ended = outline.end(&mut |_, _, _, _| Ok(()));
        assert!(matches!(ended, Err(Error::Rejected(Rejected::BlobTooLarge))), "{ended:?}");
    }
}
