//! A chunk as its bytes lie on disk: a zstd frame by itself where that pays, else the chunk.
//!
//! Which of the two it is follows from the lengths: a frame is always shorter than its chunk. Neither is trusted: whoever
//! unpacks compares the digest.

use std::fmt;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

/// The fastest level: writers are to keep up with disk and link, on two cores that have other work.
const ZSTD_LEVEL: i32 = 1;

/// What of a chunk is compressed to see whether the rest is worth it: its middle.
const SAMPLE_BYTES: usize = 16 << 10;

/// Compression pays where it saves an eighth; else every reader would decompress for nothing.
const fn pays(plain_bytes: usize, packed_bytes: usize) -> bool {
    packed_bytes < plain_bytes - plain_bytes / 8
}

/// Makes frames. Holds what zstd needs from one to the next.
pub(crate) struct Packer {
    zstd: Compressor<'static>,
    packed: Vec<u8>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packer")
    }
}

impl Packer {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { zstd: Compressor::new(ZSTD_LEVEL)?, packed: Vec::new() })
    }

    /// What to store for a chunk.
    pub(crate) fn pack<'a>(&'a mut self, plain: &'a [u8]) -> io::Result<&'a [u8]> {
        let middle = plain.len() / 2;
        let sample = plain.get(middle.saturating_sub(SAMPLE_BYTES / 2)..middle + SAMPLE_BYTES / 2).unwrap_or(plain);
        if sample.len() < plain.len() && !self.compress(sample)? {
            return Ok(plain);
        }
        Ok(if self.compress(plain)? { &self.packed } else { plain })
    }

    /// Compresses and says whether that pays.
    fn compress(&mut self, plain: &[u8]) -> io::Result<bool> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        self.zstd.compress_to_buffer(plain, &mut self.packed)?;
        Ok(pays(plain.len(), self.packed.len()))
    }
}

/// Unpacks frames. Holds what zstd needs from one to the next.
#[derive(Default)]
pub(crate) struct Unpacker {
    zstd: Option<Decompressor<'static>>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unpacker")
    }
}

impl Unpacker {
    /// The chunk of `bytes` bytes that was stored so, into `plain`; `false` where it is none. One that lies as it is changes
    /// places with what was there: nothing is copied.
    ///
    /// Fails only for want of memory.
    pub(crate) fn unpack(&mut self, stored: &mut Vec<u8>, bytes: usize, plain: &mut Vec<u8>) -> io::Result<bool> {
        if stored.len() < bytes {
            return self.unpack_frame(stored, bytes, plain);
        }
        std::mem::swap(stored, plain);
        Ok(plain.len() == bytes)
    }

    /// The chunk of `bytes` bytes that this frame holds, into `plain`; `false` where it is none. Never holds more than that many.
    ///
    /// Fails only for want of memory.
    pub(crate) fn unpack_frame(&mut self, stored: &[u8], bytes: usize, plain: &mut Vec<u8>) -> io::Result<bool> {
        if stored.len() >= bytes {
            return Ok(false);
        }
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(Decompressor::new()?),
        };
        plain.clear();
        plain.resize(bytes, 0);
        Ok(zstd.decompress_to_buffer(stored, plain.as_mut_slice()).is_ok_and(|n| n == bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    fn pack(plain: &[u8]) -> Vec<u8> {
        Packer::new().unwrap().pack(plain).unwrap().to_vec()
    }

    fn unpack(stored: &[u8], bytes: usize) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        Unpacker::default().unpack(&mut stored.to_vec(), bytes, &mut plain).unwrap().then_some(plain)
    }

    #[test]
    fn what_pays_is_compressed_and_what_does_not_lies_as_it_is() {
        let text = b"all work and no play ".repeat(5_000);
        let stored = pack(&text);
        assert!(stored.len() < text.len() / 20);
        assert_eq!(unpack(&stored, text.len()).as_deref(), Some(&text[..]));
        for len in [1, 100, 20_000, 300_000] {
            assert_eq!(pack(&noise(len)), noise(len));
        }
        // The sample says so, though much of it would shrink.
        let mut middle = vec![0; 100_000];
        middle[40_000..60_000].copy_from_slice(&noise(20_000));
        assert_eq!(pack(&middle), middle);
        // The sample promises more than the whole keeps.
        let mut around = noise(100_000);
        around[45_000..55_000].fill(0);
        assert_eq!(pack(&around).len(), pack(&around).len().max(around.len() - around.len() / 8));
    }

    #[test]
    fn a_frame_never_unpacks_to_more_than_the_chunk_that_it_is_said_to_be() {
        let bomb = pack(&vec![0; 1 << 20]);
        assert!(bomb.len() < 200);
        let mut plain = Vec::new();
        for said in [bomb.len() + 1, 4_096, (1 << 20) - 1, (1 << 20) + 1] {
            assert!(!Unpacker::default().unpack_frame(&bomb, said, &mut plain).unwrap());
            assert!(plain.capacity() <= 2 << 20);
        }
        assert!(!Unpacker::default().unpack_frame(&bomb, bomb.len(), &mut plain).unwrap(), "no shorter than its chunk");
        assert!(unpack(&bomb, 10).is_none(), "longer than its chunk");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_and_frames_with_any_bytes_changed_do_no_harm(
            runs in proptest::collection::vec((any::<u8>(), 1_usize..200), 0..60),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let plain: Vec<u8> = runs.iter().flat_map(|(byte, n)| std::iter::repeat_n(*byte, *n)).collect();
            let mut stored = pack(&plain);
            prop_assert_eq!(unpack(&stored, plain.len()), Some(plain.clone()));
            for (at, to) in flips.iter().filter(|_| !plain.is_empty()) {
                let at = at.index(stored.len());
                stored[at] = *to;
            }
            let back = unpack(&stored, plain.len());
            prop_assert!(back.is_none_or(|back| back.len() == plain.len()));
        }
    }
}
