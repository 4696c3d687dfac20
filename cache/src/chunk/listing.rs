//! What a chunk file holds: the payload of a record in a segment, for the file itself is nothing but frames.
//!
//! ```text
//! file number u64 | file length u64 | for each chunk, in order: digest 32 bytes, offset u64, stored u32, length u32
//! ```
//! All numbers are little-endian. Chunks that the file holds and nobody counts on may be left out.

use windlass_protocol::Digest;
use windlass_protocol::limits::CHUNK_MAX_BYTES;

use super::{ChunkPlace, FileNo};

const HEAD_BYTES: usize = 16;
const CHUNK_BYTES: usize = 48;

/// What a chunk file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) file: FileNo,
    /// How long the file is.
    pub(crate) file_bytes: u64,
    /// Sorted by offset.
    pub(crate) chunks: Vec<(Digest, ChunkPlace)>,
}

impl Listing {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + CHUNK_BYTES * self.chunks.len());
        out.extend_from_slice(&self.file.to_le_bytes());
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        for (digest, place) in &self.chunks {
            out.extend_from_slice(digest.as_bytes());
            out.extend_from_slice(&place.offset.to_le_bytes());
            out.extend_from_slice(&place.stored_bytes.to_le_bytes());
            out.extend_from_slice(&place.bytes.to_le_bytes());
        }
        out
    }

    pub(crate) const fn encoded_bytes(&self) -> u64 {
        (HEAD_BYTES + CHUNK_BYTES * self.chunks.len()) as u64
    }

    /// `None` where the bytes are no listing, or one of chunks that overlap or reach past the file.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (file, rest) = bytes.split_first_chunk::<8>()?;
        let (file_bytes, rest) = rest.split_first_chunk::<8>()?;
        let (file, file_bytes) = (u64::from_le_bytes(*file), u64::from_le_bytes(*file_bytes));
        let (entries, []) = rest.as_chunks::<CHUNK_BYTES>() else { return None };
        let mut chunks = Vec::with_capacity(entries.len());
        let mut end = 0;
        for entry in entries {
            let (digest, rest) = entry.split_first_chunk::<32>()?;
            let (offset, rest) = rest.split_first_chunk::<8>()?;
            let (stored, rest) = rest.split_first_chunk::<4>()?;
            let offset = u64::from_le_bytes(*offset);
            let (stored_bytes, bytes) = (u32::from_le_bytes(*stored), u32::from_le_bytes(rest.try_into().ok()?));
            if offset < end || stored_bytes == 0 || stored_bytes > bytes || bytes as usize > CHUNK_MAX_BYTES {
                return None;
            }
            end = offset.checked_add(u64::from(stored_bytes)).filter(|end| *end <= file_bytes)?;
            chunks.push((Digest::from_bytes(*digest), ChunkPlace { file, offset, stored_bytes, bytes }));
        }
        Some(Self { file, file_bytes, chunks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let place = |offset, stored_bytes, bytes| ChunkPlace { file: 7, offset, stored_bytes, bytes };
        let chunks = vec![(Digest::of(b"a"), place(0, 10, 20)), (Digest::of(b"b"), place(12, 5, 5))];
        Listing { file: 7, file_bytes: 17, chunks }
    }

    #[test]
    fn the_encoding_is_frozen() {
        let mut golden = b"\x07\0\0\0\0\0\0\0\x11\0\0\0\0\0\0\0".to_vec();
        golden.extend_from_slice(Digest::of(b"a").as_bytes());
        golden.extend_from_slice(b"\0\0\0\0\0\0\0\0\x0a\0\0\0\x14\0\0\0");
        golden.extend_from_slice(Digest::of(b"b").as_bytes());
        golden.extend_from_slice(b"\x0c\0\0\0\0\0\0\0\x05\0\0\0\x05\0\0\0");
        assert_eq!(listing().encode(), golden);
        assert_eq!(Listing::decode(&golden), Some(listing()));
    }

    #[test]
    fn hostile_listings_are_refused() {
        let changed = |change: fn(&mut Listing)| {
            let mut listing = listing();
            change(&mut listing);
            Listing::decode(&listing.encode())
        };
        assert_eq!(changed(|listing| listing.file_bytes = 16), None, "past the file");
        assert_eq!(changed(|listing| listing.chunks[1].1.offset = 9), None, "overlapping");
        assert_eq!(changed(|listing| listing.chunks.swap(0, 1)), None, "not in order");
        assert_eq!(changed(|listing| listing.chunks[1].1.offset = u64::MAX), None, "past all numbers");
        assert_eq!(changed(|listing| listing.chunks[0].1.stored_bytes = 0), None, "of nothing");
        assert_eq!(changed(|listing| listing.chunks[0].1.bytes = 9), None, "longer than its chunk");
        assert_eq!(changed(|listing| listing.chunks[0].1.bytes = 3 << 20), None, "longer than any chunk");
        let whole = listing().encode();
        for cut in (0..whole.len()).filter(|cut| *cut != HEAD_BYTES && *cut != HEAD_BYTES + CHUNK_BYTES) {
            assert_eq!(Listing::decode(&whole[..cut]), None, "cut at {cut}");
        }
    }
}
