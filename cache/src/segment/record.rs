//! One record of a segment: 64 bytes of header, then the payload.
//!
//! ```text
//! 0  magic "WREC"   4  kind u8, 3 zeros   8  namespace u32   12  payload length u32
//! 16 digest, 32 bytes   48  CRC-32 of the payload   52  zeros   56  seal u64          (all little-endian)
//! ```
//! The seal is a BLAKE3 hash of the header and its offset, keyed with the segment's salt. It is more than a checksum: a
//! blob may hold bytes that look like a record, and after a crash that tore what is around them, recovery must not take
//! them for one, because a record says who may see what (I12).

use windlass_protocol::Digest;

/// The bytes of a record beside its payload.
pub(crate) const RECORD_HEADER_BYTES: usize = 64;

pub(super) const MAGIC: [u8; 4] = *b"WREC";

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A small blob: the payload is its bytes. Its namespace may see it.
    Blob,
    /// A large blob, in a file of its own: the payload is its length. Its namespace may see it. Not written any more but to
    /// move what versions before 029 wrote.
    Large,
    /// A namespace's number in this segment: the payload is its name.
    Namespace,
    /// A namespace may see a blob that is stored already.
    Grant,
    /// What was said of this digest before counts no more: its bytes were found damaged.
    Void,
    /// A namespace sees a blob no more; what nobody sees is not stored any more.
    Release,
    /// What a chunk file holds: the payload is a listing. Where two name a chunk, the later one counts.
    Chunks,
    /// A large blob in chunks: the payload is its manifest. Its namespace may see it.
    Manifest,
    /// Who sees a blob that is stored, all of them: the payload is their numbers. What was said of that before counts no more.
    Seen,
    /// Of which blob a SHA-256 is, wherever its record lies: the payload is the hash.
    Alias,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Blob,
        Self::Large,
        Self::Namespace,
        Self::Grant,
        Self::Void,
        Self::Release,
        Self::Chunks,
        Self::Manifest,
        Self::Seen,
        Self::Alias,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::Blob => 1,
            Self::Large => 2,
            Self::Namespace => 3,
            Self::Grant => 4,
            Self::Void => 5,
            Self::Release => 6,
            Self::Chunks => 7,
            Self::Manifest => 8,
            Self::Seen => 9,
            Self::Alias => 10,
        }
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// The namespace's number in this segment.
    pub(crate) namespace: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) payload_crc: u32,
    pub(crate) digest: Digest,
}

impl Header {
    pub(crate) fn encode(&self, salt: &[u8; 32], offset: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind.code();
        bytes[8..12].copy_from_slice(&self.namespace.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[16..48].copy_from_slice(self.digest.as_bytes());
        bytes[48..52].copy_from_slice(&self.payload_crc.to_le_bytes());
        let seal = seal(&bytes, salt, offset);
        bytes[56..].copy_from_slice(&seal);
        bytes
    }

    /// The header that stands at `offset`, if one does.
    pub(crate) fn decode(bytes: &[u8], salt: &[u8; 32], offset: u64) -> Option<Self> {
        let bytes: &[u8; RECORD_HEADER_BYTES] = bytes.try_into().ok()?;
        if bytes[..4] != MAGIC || bytes[56..] != seal(bytes, salt, offset) {
            return None;
        }
        let u32_at = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        Some(Self {
            kind: *Kind::ALL.iter().find(|kind| kind.code() == bytes[4])?,
            namespace: u32_at(8)?,
            payload_bytes: u32_at(12)?,
            payload_crc: u32_at(48)?,
            digest: Digest::from_bytes(bytes.get(16..48)?.try_into().ok()?),
        })
    }
}

fn seal(header: &[u8; RECORD_HEADER_BYTES], salt: &[u8; 32], offset: u64) -> [u8; 8] {
    let mut sealed = *header;
    sealed[56..].copy_from_slice(&offset.to_le_bytes());
    let hash = blake3::keyed_hash(salt, &sealed);
    let mut seal = [0; 8];
    seal.copy_from_slice(&hash.as_bytes()[..8]);
    seal
}
