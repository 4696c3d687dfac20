//! Manifests: which chunks a large blob is made of, in order.
//!
//! ```text
//! 0  magic "WLMAN\x01\0\0"   8  digest of the blob, 32 bytes   40  its length u64   48  chunks u32   52  zeros u32
//! 56 for each chunk: digest 32 bytes, length u32
//! end  BLAKE3 of all that goes before, 32 bytes                                            (all little-endian)
//! ```
//! A manifest says of which blob it is, and proves each of its chunks by name. It does not say where they lie. That the chunks
//! in this order make the blob was seen by whoever wrote it: who takes manifests from strangers has to see for himself.

use std::io;

use windlass_protocol::Digest;
use windlass_protocol::limits::{BLOB_MAX_BYTES, CHUNK_MAX_BYTES, MANIFEST_MAX_CHUNKS};

use crate::error::BadChunkManifest;
use crate::vfs::VfsFile;

const MAGIC: [u8; 8] = *b"WLMAN\x01\0\0";

/// What stands before the chunks.
const HEAD_BYTES: usize = 56;

const CHUNK_BYTES: usize = 36;
const CHECK_BYTES: usize = 32;

/// Which chunks a blob is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkManifest {
    digest: Digest,
    chunks: Vec<Chunk>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// Where it ends in the blob; it begins where the one before it ends.
    pub end: u64,
}

impl ChunkManifest {
    pub(crate) const fn new(digest: Digest, chunks: Vec<Chunk>) -> Self {
        Self { digest, chunks }
    }

    /// Of which blob.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// How long the blob is.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.chunks.last().map_or(0, |chunk| chunk.end)
    }

    /// Its chunks, in order.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Where a chunk begins in the blob, and how long it is.
    #[must_use]
    pub fn extent(&self, nth: usize) -> Option<(u64, usize)> {
        let start = self.start(nth);
        let bytes = self.chunks.get(nth)?.end - start;
        usize::try_from(bytes).ok().map(|bytes| (start, bytes))
    }

    /// Which chunk holds the byte at `offset`, and where that one begins.
    pub(crate) fn find(&self, offset: u64) -> Option<(usize, u64)> {
        let nth = self.chunks.partition_point(|chunk| chunk.end <= offset);
        (nth < self.chunks.len()).then(|| (nth, self.start(nth)))
    }

    /// Where a chunk begins in the blob.
    fn start(&self, nth: usize) -> u64 {
        nth.checked_sub(1).and_then(|before| self.chunks.get(before)).map_or(0, |chunk| chunk.end)
    }

    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + CHUNK_BYTES * self.chunks.len() + CHECK_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(self.digest.as_bytes());
        out.extend_from_slice(&self.blob_bytes().to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.chunks.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let mut start = 0;
        for chunk in &self.chunks {
            out.extend_from_slice(chunk.digest.as_bytes());
            out.extend_from_slice(&u32::try_from(chunk.end - start).unwrap_or(u32::MAX).to_le_bytes());
            start = chunk.end;
        }
        let check = Digest::of(&out);
        out.extend_from_slice(check.as_bytes());
        out
    }

    /// Reads the one that lies at `offset`, if one does.
    pub(crate) fn read(file: &dyn VfsFile, offset: u64) -> io::Result<Option<Self>> {
        let read = |len: usize| {
            let mut bytes = vec![0; len];
            match file.read_exact_at(offset, &mut bytes) {
                Ok(()) => Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(e) => Err(e),
            }
        };
        let Some(head) = read(HEAD_BYTES)? else { return Ok(None) };
        let len = head.first_chunk().and_then(Self::encoded_bytes);
        // The length is looked at before it is believed: it was not checked yet.
        let Some(len) = len.filter(|len| file.len().is_ok_and(|end| offset + *len as u64 <= end)) else {
            return Ok(None);
        };
        Ok(read(len)?.and_then(|bytes| Self::decode(&bytes).ok()))
    }

    /// How long a manifest is that begins so; nothing where none does.
    fn encoded_bytes(head: &[u8; HEAD_BYTES]) -> Option<usize> {
        let chunks = u32::from_le_bytes(head.get(48..52)?.try_into().ok()?) as usize;
        (head.starts_with(&MAGIC) && chunks <= MANIFEST_MAX_CHUNKS)
            .then_some(HEAD_BYTES + CHUNK_BYTES * chunks + CHECK_BYTES)
    }

    /// Reads one. There is one encoding for each, and nothing is reserved on its word alone.
    ///
    /// # Errors
    /// [`BadChunkManifest`], whatever the bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadChunkManifest> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(BadChunkManifest::Truncated);
        };
        if !head.starts_with(&MAGIC) || head[52..] != [0; 4] {
            return Err(BadChunkManifest::Version);
        }
        let expected = Self::encoded_bytes(head).ok_or(BadChunkManifest::TooManyChunks)?;
        match bytes.len().cmp(&expected) {
            std::cmp::Ordering::Less => return Err(BadChunkManifest::Truncated),
            std::cmp::Ordering::Greater => return Err(BadChunkManifest::TrailingBytes),
            std::cmp::Ordering::Equal => {}
        }
        let Some((entries, check)) = rest.split_last_chunk::<CHECK_BYTES>() else {
            return Err(BadChunkManifest::Truncated);
        };
        let body = bytes.get(..bytes.len() - CHECK_BYTES).unwrap_or_default();
        if check != Digest::of(body).as_bytes() {
            return Err(BadChunkManifest::Check);
        }
        let (entries, _) = entries.as_chunks::<CHUNK_BYTES>();
        let (digest, said) = parse_head(head);
        let mut chunks = Vec::with_capacity(entries.len());
        let mut end = 0;
        for entry in entries {
            let (name, len) = parse_chunk(entry);
            if len == 0 || len as usize > CHUNK_MAX_BYTES {
                return Err(BadChunkManifest::ChunkLength);
            }
            end += u64::from(len);
            chunks.push(Chunk { digest: name, end });
        }
        if end != said || end > BLOB_MAX_BYTES {
            return Err(BadChunkManifest::BlobLength);
        }
        Ok(Self { digest, chunks })
    }
}

fn parse_head(head: &[u8; HEAD_BYTES]) -> (Digest, u64) {
    let (mut digest, mut len) = ([0; 32], [0; 8]);
    digest.copy_from_slice(&head[8..40]);
    len.copy_from_slice(&head[40..48]);
    (Digest::from_bytes(digest), u64::from_le_bytes(len))
}

fn parse_chunk(entry: &[u8; CHUNK_BYTES]) -> (Digest, u32) {
    let (mut digest, mut len) = ([0; 32], [0; 4]);
    digest.copy_from_slice(&entry[..32]);
    len.copy_from_slice(&entry[32..]);
    (Digest::from_bytes(digest), u32::from_le_bytes(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest(lengths: &[u64]) -> ChunkManifest {
        let mut end = 0;
        let chunks = lengths.iter().map(|len| {
            end += len;
            Chunk { digest: Digest::of(&len.to_le_bytes()), end }
        });
        ChunkManifest::new(Digest::of(b"blob"), chunks.collect())
    }

    /// With its check made right again.
    fn changed(lengths: &[u64], change: impl Fn(&mut Vec<u8>)) -> Result<ChunkManifest, BadChunkManifest> {
        let mut bytes = manifest(lengths).encode();
        bytes.truncate(bytes.len() - CHECK_BYTES);
        change(&mut bytes);
        let check = Digest::of(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        ChunkManifest::decode(&bytes)
    }

    #[test]
    fn the_encoding_is_frozen() {
        let mut golden = b"WLMAN\x01\0\0".to_vec();
        golden.extend_from_slice(Digest::of(b"blob").as_bytes());
        golden.extend_from_slice(b"\x07\x01\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        golden.extend_from_slice(Digest::of(&256_u64.to_le_bytes()).as_bytes());
        golden.extend_from_slice(b"\0\x01\0\0");
        golden.extend_from_slice(Digest::of(&7_u64.to_le_bytes()).as_bytes());
        golden.extend_from_slice(b"\x07\0\0\0");
        let check = Digest::of(&golden);
        golden.extend_from_slice(check.as_bytes());
        assert_eq!(manifest(&[256, 7]).encode(), golden);
        assert_eq!(ChunkManifest::decode(&golden), Ok(manifest(&[256, 7])));
    }

    #[test]
    fn a_byte_is_found_in_the_chunk_that_holds_it() {
        let manifest = manifest(&[10, 1, 5]);
        let at = |offset| manifest.find(offset);
        assert_eq!((at(0), at(9), at(10), at(11)), (Some((0, 0)), Some((0, 0)), Some((1, 10)), Some((2, 11))));
        assert_eq!((at(15), at(16), at(u64::MAX)), (Some((2, 11)), None, None));
        assert_eq!(ChunkManifest::new(Digest::of(b""), Vec::new()).find(0), None);
    }

    #[test]
    fn hostile_manifests_are_refused_each_for_its_reason() {
        let whole = manifest(&[3, 4]).encode();
        for cut in 0..whole.len() {
            assert_eq!(ChunkManifest::decode(&whole[..cut]), Err(BadChunkManifest::Truncated), "cut at {cut}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                assert!(ChunkManifest::decode(&flipped).is_err(), "bit {bit} at {at}");
            }
        }
        assert_eq!(ChunkManifest::decode(&[&whole[..], &[0]].concat()), Err(BadChunkManifest::TrailingBytes));
        let version = |bytes: &mut Vec<u8>| bytes[5] = 2;
        assert_eq!(changed(&[3, 4], version), Err(BadChunkManifest::Version));
        assert_eq!(changed(&[3, 4], |bytes| bytes[52] = 1), Err(BadChunkManifest::Version));
        let count = |count: u32| changed(&[3, 4], move |bytes| bytes[48..52].copy_from_slice(&count.to_le_bytes()));
        assert_eq!(count(u32::MAX), Err(BadChunkManifest::TooManyChunks));
        assert_eq!(count(u32::try_from(MANIFEST_MAX_CHUNKS).unwrap()), Err(BadChunkManifest::Truncated));
        assert_eq!((count(3), count(1)), (Err(BadChunkManifest::Truncated), Err(BadChunkManifest::TrailingBytes)));
        assert_eq!(changed(&[3, 0], |_| {}), Err(BadChunkManifest::ChunkLength));
        assert_eq!(changed(&[3, CHUNK_MAX_BYTES as u64 + 1], |_| {}), Err(BadChunkManifest::ChunkLength));
        assert_eq!(changed(&[3, 4], |bytes| bytes[40] = 8), Err(BadChunkManifest::BlobLength));
        let many = vec![CHUNK_MAX_BYTES as u64; 1 + usize::try_from(BLOB_MAX_BYTES).unwrap() / CHUNK_MAX_BYTES];
        assert_eq!(changed(&many, |_| {}), Err(BadChunkManifest::BlobLength), "longer than any blob");
        assert!(changed(&many[1..], |_| {}).is_ok());
    }

    proptest! {
        #[test]
        fn any_manifest_comes_back(lengths in proptest::collection::vec(1_u64..CHUNK_MAX_BYTES as u64, 0..50)) {
            let manifest = manifest(&lengths);
            prop_assert_eq!(manifest.blob_bytes(), lengths.iter().sum::<u64>());
            prop_assert_eq!(ChunkManifest::decode(&manifest.encode()), Ok(manifest));
        }
    }
}
