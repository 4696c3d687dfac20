//! Manifests: which chunks a large blob is made of, and how.
//!
//! ```text
//! 0  magic "WLMAN\x01\0\0", of an archive "WLMAN\x02\0\0"
//! 8  digest of the blob, 32 bytes   40  its length u64   48  chunks u32   52  bytes of what is at the end of an archive's u32, or 0
//! 56 for each chunk: digest 32 bytes, length u32
//! of an archive: how many chunks are of heads u32, of times u32, and its runs (module `weave`)
//! end  BLAKE3 of all that goes before, 32 bytes                                            (all little-endian)
//! ```
//! A manifest says of which blob it is, and proves each of its chunks by name. It does not say where they lie. That the chunks,
//! put together so, make the blob was seen by whoever wrote it: who takes manifests from strangers has to see for himself.
//!
//! The chunks of most blobs are the blob, one behind the other. Those of an archive are three strings, one behind the other, and
//! its runs say how many bytes of which come next. A version that knows nothing of archives takes such a manifest for damage.

use std::io;

use windlass_protocol::Digest;
use windlass_protocol::limits::{ARCHIVE_MAX_BYTES, BLOB_MAX_BYTES, CHUNK_MAX_BYTES, MANIFEST_MAX_CHUNKS};

use super::tar::Lane;
use super::weave::Weave;
use crate::error::BadChunkManifest;
use crate::vfs::VfsFile;

/// Of most blobs.
const MAGIC: [u8; 8] = *b"WLMAN\x01\0\0";

/// Of archives.
const MAGIC_ARCHIVE: [u8; 8] = *b"WLMAN\x02\0\0";

/// What stands before the chunks.
const HEAD_BYTES: usize = 56;

const CHUNK_BYTES: usize = 36;
const CHECK_BYTES: usize = 32;

/// Which chunks a blob is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkManifest {
    digest: Digest,
    chunks: Vec<Chunk>,
    /// How they make the blob, where they are not simply it.
    weave: Option<Weave>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// Where it ends, when all are laid one behind the other; it begins where the one before it ends.
    pub end: u64,
}

/// Bytes of a blob that stand together in one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which chunk.
    pub nth: usize,
    /// Where in it they begin.
    pub at: usize,
    /// How many they are.
    pub bytes: usize,
    /// What they are: those of one kind come in the order of their chunks.
    pub lane: Lane,
}

impl ChunkManifest {
    pub(crate) const fn new(digest: Digest, chunks: Vec<Chunk>, weave: Option<Weave>) -> Self {
        Self { digest, chunks, weave }
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

    /// Its chunks, in the order in which their places are counted.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Whether its chunks are not simply the blob: then only who knows of that may be given it.
    #[must_use]
    pub const fn is_woven(&self) -> bool {
        self.weave.is_some()
    }

    /// How long a chunk is.
    #[must_use]
    pub fn chunk_bytes(&self, nth: usize) -> Option<usize> {
        let bytes = self.chunks.get(nth)?.end - self.start(nth);
        usize::try_from(bytes).ok()
    }

    /// Of which kind the bytes of a chunk are.
    #[must_use]
    pub fn lane(&self, nth: usize) -> Option<Lane> {
        let [_, times, files] = self.lane_starts();
        let lane = match nth {
            _ if nth >= files => Lane::Files,
            _ if nth >= times => Lane::Times,
            _ => Lane::Heads,
        };
        (nth < self.chunks.len()).then_some(lane)
    }

    /// The place of a chunk of which so many of its kind come before it.
    #[must_use]
    pub fn place(&self, lane: Lane, nth: u32) -> Option<u32> {
        let first = u32::try_from(*self.lane_starts().get(lane as usize)?).ok()?;
        let place = first.checked_add(nth)?;
        (self.lane(place as usize) == Some(lane)).then_some(place)
    }

    /// The first chunk of each lane.
    pub(crate) fn lane_starts(&self) -> [usize; 3] {
        self.weave.as_ref().map_or([0; 3], Weave::lane_starts)
    }

    /// Where the byte at `offset` of the blob lies, with those behind it that lie behind it there too.
    #[must_use]
    pub fn span(&self, offset: u64) -> Option<Span> {
        let (lane, laid, run_bytes) = match &self.weave {
            None => (Lane::Files, offset, u64::MAX),
            Some(weave) => weave.find(offset)?,
        };
        let nth = self.chunks.partition_point(|chunk| chunk.end <= laid);
        let left = self.chunks.get(nth)?.end - laid;
        let at = usize::try_from(laid - self.start(nth)).ok()?;
        let bytes = usize::try_from(left.min(run_bytes)).ok()?;
        Some(Span { nth, at, bytes, lane })
    }

    /// Where a chunk begins, when all are laid one behind the other.
    fn start(&self, nth: usize) -> u64 {
        nth.checked_sub(1).and_then(|before| self.chunks.get(before)).map_or(0, |chunk| chunk.end)
    }

    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let weave = self.weave.as_ref().map(Weave::encode).unwrap_or_default();
        let mut out = Vec::with_capacity(HEAD_BYTES + CHUNK_BYTES * self.chunks.len() + weave.len() + CHECK_BYTES);
        out.extend_from_slice(if self.is_woven() { &MAGIC_ARCHIVE } else { &MAGIC });
        out.extend_from_slice(self.digest.as_bytes());
        out.extend_from_slice(&self.blob_bytes().to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.chunks.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&u32::try_from(weave.len()).unwrap_or(u32::MAX).to_le_bytes());
        let mut start = 0;
        for chunk in &self.chunks {
            out.extend_from_slice(chunk.digest.as_bytes());
            out.extend_from_slice(&u32::try_from(chunk.end - start).unwrap_or(u32::MAX).to_le_bytes());
            start = chunk.end;
        }
        out.extend_from_slice(&weave);
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
        let (chunks, weave) = counts(head);
        let versioned = if weave == 0 { head.starts_with(&MAGIC) } else { head.starts_with(&MAGIC_ARCHIVE) };
        (versioned && chunks <= MANIFEST_MAX_CHUNKS && weave <= ARCHIVE_MAX_BYTES)
            .then_some(HEAD_BYTES + CHUNK_BYTES * chunks + weave + CHECK_BYTES)
    }

    /// Reads one. There is one encoding for each, and nothing is reserved on its word alone.
    ///
    /// # Errors
    /// [`BadChunkManifest`], whatever the bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadChunkManifest> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(BadChunkManifest::Truncated);
        };
        let (_, weave_bytes) = counts(head);
        if !head.starts_with(if weave_bytes == 0 { &MAGIC } else { &MAGIC_ARCHIVE }) {
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
        let (entries, weave) = entries.split_at(entries.len() - weave_bytes);
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
        let weave = match weave {
            [] => None,
            weave => Some(Weave::decode(weave, &chunks).ok_or(BadChunkManifest::Weave)?),
        };
        Ok(Self { digest, chunks, weave })
    }
}

/// How many chunks there are, and bytes of what is at the end of an archive's.
fn counts(head: &[u8; HEAD_BYTES]) -> (usize, usize) {
    let (mut chunks, mut weave) = ([0; 4], [0; 4]);
    chunks.copy_from_slice(&head[48..52]);
    weave.copy_from_slice(&head[52..]);
    (u32::from_le_bytes(chunks) as usize, u32::from_le_bytes(weave) as usize)
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
    use crate::chunk::weave::Runs;

    fn manifest(lengths: &[u64]) -> ChunkManifest {
        let mut end = 0;
        let chunks = lengths.iter().map(|len| {
            end += len;
            Chunk { digest: Digest::of(&len.to_le_bytes()), end }
        });
        ChunkManifest::new(Digest::of(b"blob"), chunks.collect(), None)
    }

    /// One of an archive: a chunk of 10 bytes of heads, one of 2 of times, two of 5 and 3 of files.
    fn woven() -> ChunkManifest {
        let chunks = manifest(&[10, 2, 5, 3]).chunks;
        let mut runs = Runs::default();
        for (lane, bytes) in
            [(Lane::Heads, 4), (Lane::Times, 1), (Lane::Heads, 4), (Lane::Files, 7), (Lane::Heads, 2), (Lane::Times, 1)]
        {
            runs.add(lane, bytes);
        }
        runs.add(Lane::Files, 1);
        let weave = runs.weave([1, 1], &chunks);
        assert!(weave.is_some());
        ChunkManifest::new(Digest::of(b"blob"), chunks, weave)
    }

    /// With its check made right again.
    fn changed(lengths: &[u64], change: impl Fn(&mut Vec<u8>)) -> Result<ChunkManifest, BadChunkManifest> {
        changed_of(&manifest(lengths), change)
    }

    fn changed_of(manifest: &ChunkManifest, change: impl Fn(&mut Vec<u8>)) -> Result<ChunkManifest, BadChunkManifest> {
        let mut bytes = manifest.encode();
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
    fn the_encoding_of_an_archive_is_frozen() {
        let mut golden = b"WLMAN\x02\0\0".to_vec();
        golden.extend_from_slice(Digest::of(b"blob").as_bytes());
        golden.extend_from_slice(b"\x14\0\0\0\0\0\0\0\x04\0\0\0\x0f\0\0\0");
        for len in [10_u8, 2, 5, 3] {
            golden.extend_from_slice(Digest::of(&u64::from(len).to_le_bytes()).as_bytes());
            golden.extend_from_slice(&[len, 0, 0, 0]);
        }
        golden.extend_from_slice(b"\x01\0\0\0\x01\0\0\0\x10\x05\x10\x1e\x08\x05\x06");
        let check = Digest::of(&golden);
        golden.extend_from_slice(check.as_bytes());
        assert_eq!(woven().encode(), golden);
        assert_eq!(ChunkManifest::decode(&golden), Ok(woven()));
    }

    #[test]
    fn a_byte_is_found_in_the_chunk_that_holds_it() {
        let at = |manifest: &ChunkManifest, offset| {
            manifest.span(offset).map(|Span { nth, at, bytes, .. }| (nth, at, bytes))
        };
        let plain = manifest(&[10, 1, 5]);
        for (offset, span) in [
            (0, Some((0, 0, 10))),
            (9, Some((0, 9, 1))),
            (10, Some((1, 0, 1))),
            (15, Some((2, 4, 1))),
            (16, None),
            (u64::MAX, None),
        ] {
            assert_eq!(at(&plain, offset), span, "{offset}");
        }
        assert_eq!(ChunkManifest::new(Digest::of(b""), Vec::new(), None).span(0), None);
        let of_archive = [
            (0, Some((0, 0, 4))),
            (3, Some((0, 3, 1))),
            (4, Some((1, 0, 1))),
            (5, Some((0, 4, 4))),
            (9, Some((2, 0, 5))),
            (14, Some((3, 0, 2))),
            (16, Some((0, 8, 2))),
            (18, Some((1, 1, 1))),
            (19, Some((3, 2, 1))),
            (20, None),
        ];
        for (offset, span) in of_archive {
            assert_eq!(at(&woven(), offset), span, "{offset}");
        }
    }

    #[test]
    fn hostile_manifests_of_archives_are_refused() {
        let whole = woven().encode();
        for cut in 0..whole.len() {
            assert!(ChunkManifest::decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
        // Without its check the runs are the last 7 bytes, the counts the 8 before them.
        let runs = whole.len() - CHECK_BYTES - 7;
        let with = |at: usize, byte: u8| changed_of(&woven(), move |bytes| bytes[at] = byte);
        assert_eq!(with(5, 1), Err(BadChunkManifest::Version), "as the first version would take it");
        for (what, at, byte) in [
            ("a lane that is none", runs, 0x13),
            ("a run without bytes", runs, 0x00),
            ("a run of the lane before it", runs + 1, 0x04),
            ("more of a lane than it has", runs + 3, 0x26),
            ("less of it", runs + 3, 0x1a),
            ("a number that does not end", runs + 6, 0x86),
            ("more chunks of heads", runs - 8, 2),
            ("more than there are", runs - 8, 200),
            ("no chunk of times", runs - 4, 0),
        ] {
            assert_eq!(with(at, byte), Err(BadChunkManifest::Weave), "{what}");
        }
        let longer = |bytes: &mut Vec<u8>| {
            // The same number in one byte more.
            bytes.splice(runs..=runs, [0x90, 0x00]);
            bytes[52] = 0x10;
        };
        assert_eq!(changed_of(&woven(), longer), Err(BadChunkManifest::Weave));
        let one_lane = |bytes: &mut Vec<u8>| {
            let end = bytes.len() - 15;
            bytes.splice(end.., [0, 0, 0, 0, 0, 0, 0, 0, 20 << 2 | 2]);
            bytes[52] = 9;
        };
        assert_eq!(changed_of(&woven(), one_lane), Err(BadChunkManifest::Weave), "that is a blob like others");
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
