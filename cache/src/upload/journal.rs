//! What an upload that outlives its process has noted: whose it is, and which chunks it has.
//!
//! ```text
//! record: length of the payload u32 | CRC-32 of it u32 | payload                          (all little-endian)
//! first payload:   magic "WLUPL\x01\0\0" | wall clock ms u64 | digest 32 | bytes u64
//!                  | owner's length u16 | owner | namespace's length u16 | namespace, as in a segment
//! later payloads:  wall clock ms u64 | for each chunk: digest 32 | length u32 | stored u32 | offset u64
//! ```
//! `stored` is 0 where the chunk was in the store already. Nothing here is synced, and nothing is believed: whoever goes on
//! with the upload reads each chunk and stops at the first that is not what its name says.

use windlass_protocol::limits::{CHUNK_MAX_BYTES, MANIFEST_MAX_CHUNKS};
use windlass_protocol::{Digest, Namespace, WallMs};

use crate::segment;

const MAGIC: [u8; 8] = *b"WLUPL\x01\0\0";
const RECORD_HEAD_BYTES: usize = 8;
const CHUNK_BYTES: usize = 48;

/// No journal is longer: the largest blob in its most chunks, each noted alone.
pub(crate) const JOURNAL_MAX_BYTES: u64 = (MANIFEST_MAX_CHUNKS * (CHUNK_BYTES + 16) + (1 << 20)) as u64;

/// Of which blob an upload is, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Who may go on with it: an owner never learns of another's.
    pub owner: String,
    /// Where the blob will be seen.
    pub namespace: Namespace,
    /// What it will be.
    pub digest: Digest,
    /// How long it will be.
    pub bytes: u64,
}

/// A chunk that an upload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) digest: Digest,
    pub(crate) bytes: u32,
    /// Where it lies in the upload's own file, and in how many bytes; not if it was in the store before.
    pub(crate) own: Option<(u64, u32)>,
}

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) about: About,
    pub(crate) chunks: Vec<Noted>,
    /// When it was written last.
    pub(crate) at: WallMs,
    /// Where its last whole record ends.
    pub(crate) end: u64,
}

impl Journal {
    /// How many bytes of the blob its chunks are.
    pub(crate) fn offset(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// As far as it is whole; nothing where it does not begin as one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, mut rest) = record(bytes)?;
        let (about, at) = decode_head(first)?;
        let mut journal = Self { about, chunks: Vec::new(), at, end: (bytes.len() - rest.len()) as u64 };
        while let Some((payload, after)) = record(rest) {
            let Some((at, chunks)) = decode_chunks(payload) else { break };
            if journal.chunks.len() + chunks.len() > MANIFEST_MAX_CHUNKS {
                break;
            }
            journal.chunks.extend(chunks);
            journal.at = at;
            rest = after;
            journal.end = (bytes.len() - rest.len()) as u64;
        }
        Some(journal)
    }
}

/// The first record of a journal; nothing where a name is too long for one.
pub(crate) fn encode_head(about: &About, at: WallMs) -> Option<Vec<u8>> {
    let namespace = segment::encode_namespace(&about.namespace)?;
    let mut payload = MAGIC.to_vec();
    payload.extend_from_slice(&at.0.to_le_bytes());
    payload.extend_from_slice(about.digest.as_bytes());
    payload.extend_from_slice(&about.bytes.to_le_bytes());
    for name in [about.owner.as_bytes(), &namespace] {
        payload.extend_from_slice(&u16::try_from(name.len()).ok()?.to_le_bytes());
        payload.extend_from_slice(name);
    }
    Some(sealed(&payload))
}

/// The record of more chunks.
pub(crate) fn encode_chunks(chunks: &[Noted], at: WallMs) -> Vec<u8> {
    let mut payload = at.0.to_le_bytes().to_vec();
    for Noted { digest, bytes, own } in chunks {
        let (offset, stored_bytes) = own.unwrap_or_default();
        payload.extend_from_slice(digest.as_bytes());
        payload.extend_from_slice(&bytes.to_le_bytes());
        payload.extend_from_slice(&stored_bytes.to_le_bytes());
        payload.extend_from_slice(&offset.to_le_bytes());
    }
    sealed(&payload)
}

fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// The first record's payload, and what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
    let (len, crc) = head.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    (crc == crc32fast::hash(payload).to_le_bytes()).then_some((payload, rest))
}

fn decode_head(payload: &[u8]) -> Option<(About, WallMs)> {
    let rest = payload.strip_prefix(&MAGIC)?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    let (bytes, rest) = rest.split_first_chunk::<8>()?;
    let (owner, rest) = name(rest)?;
    let (namespace, []) = name(rest)? else { return None };
    let about = About {
        owner: str::from_utf8(owner).ok()?.to_owned(),
        namespace: segment::decode_namespace(namespace)?,
        digest: Digest::from_bytes(*digest),
        bytes: u64::from_le_bytes(*bytes),
    };
    Some((about, WallMs(u64::from_le_bytes(*at))))
}

fn name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))
}

fn decode_chunks(payload: &[u8]) -> Option<(WallMs, Vec<Noted>)> {
    let (at, rest) = payload.split_first_chunk::<8>()?;
    let (entries, []) = rest.as_chunks::<CHUNK_BYTES>() else { return None };
    let mut chunks = Vec::with_capacity(entries.len());
    for entry in entries {
        let (digest, rest) = entry.split_first_chunk::<32>()?;
        let (bytes, rest) = rest.split_first_chunk::<4>()?;
        let (stored, rest) = rest.split_first_chunk::<4>()?;
        let (bytes, stored_bytes) = (u32::from_le_bytes(*bytes), u32::from_le_bytes(*stored));
        let offset = u64::from_le_bytes(rest.try_into().ok()?);
        let past = offset.checked_add(u64::from(stored_bytes)).is_none();
        if bytes == 0 || bytes as usize > CHUNK_MAX_BYTES || stored_bytes > bytes || past {
            return None;
        }
        let own = (stored_bytes > 0).then_some((offset, stored_bytes));
        chunks.push(Noted { digest: Digest::from_bytes(*digest), bytes, own });
    }
    Some((WallMs(u64::from_le_bytes(*at)), chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        let (owner, namespace) = ("token:7".to_owned(), Namespace::overlay("p", "pr:1"));
        About { owner, namespace, digest: Digest::of(b"blob"), bytes: 100_000 }
    }

    fn chunk(n: u8, own: Option<(u64, u32)>) -> Noted {
        Noted { digest: Digest::of(&[n]), bytes: 1_000, own }
    }

    #[test]
    fn a_journal_says_what_was_noted_as_far_as_it_is_whole() {
        let head = encode_head(&about(), WallMs(5)).unwrap();
        let chunks = [chunk(1, Some((0, 900))), chunk(2, None), chunk(3, Some((900, 1_000)))];
        let (one, two) = (encode_chunks(&chunks[..2], WallMs(6)), encode_chunks(&chunks[2..], WallMs(7)));
        let whole = [head.clone(), one.clone(), two.clone()].concat();
        for cut in 0..=whole.len() {
            let (noted, at, end) = match cut {
                _ if cut < head.len() => {
                    assert_eq!(Journal::decode(&whole[..cut]), None);
                    continue;
                }
                _ if cut < head.len() + one.len() => (0, 5, head.len()),
                _ if cut < whole.len() => (2, 6, head.len() + one.len()),
                _ => (3, 7, whole.len()),
            };
            let journal = Journal::decode(&whole[..cut]).unwrap();
            assert_eq!((journal.about, &journal.chunks[..]), (about(), &chunks[..noted]));
            assert_eq!((journal.at, journal.end), (WallMs(at), end as u64));
        }
        assert_eq!(Journal::decode(&whole).unwrap().offset(), 3_000);
    }

    #[test]
    fn hostile_journals_are_refused() {
        let head = encode_head(&about(), WallMs(5)).unwrap();
        for bad in [
            Noted { bytes: 0, ..chunk(1, None) },
            Noted { bytes: (2 << 20) + 1, ..chunk(1, None) },
            chunk(1, Some((0, 1_001))),
            chunk(1, Some((u64::MAX, 1))),
        ] {
            let journal = Journal::decode(&[head.clone(), encode_chunks(&[bad], WallMs(6))].concat()).unwrap();
            assert_eq!(journal.chunks, [], "{bad:?}");
        }
        let mut flipped = head;
        flipped[20] ^= 1;
        assert_eq!(Journal::decode(&flipped), None);
        let long = About { owner: "x".repeat(70_000), ..about() };
        assert_eq!(encode_head(&long, WallMs(5)), None);
    }
}
