//! The format of a segment: what lies on the disk, byte by byte.
//!
//! A segment is a file `segments/SEQ.wls` (SEQ: 16 hex digits), shared by all logs. All numbers are little-endian.
//!
//! ```text
//! header, 24 bytes:  magic "WLSEG\0\0\x01" | seq u64 | zero u32 | crc32 of the 20 bytes before
//! record, 52 bytes:  magic "WLR1" | kind u8 | zero [u8; 3] | attempt [u8; 16] | offset u64 | at_ms u64 | len u32
//!                    | crc32 of the payload | crc32 of the 48 bytes before, seq and the record's position
//!         payload:   len bytes
//! ```
//!
//! | kind | offset | payload |
//! | --- | --- | --- |
//! | 1 data | of its first byte in the log | log bytes, 1 to [`LOG_CHUNK_MAX_BYTES`] |
//! | 2 fence | 0 | least epoch u64, ended u8 (0 or 1) |
//! | 3 incomplete | 0 | why, UTF-8, at most [`DETAIL_MAX_BYTES`] |
//! | 4 deleted | 0 | nothing |
//!
//! Invariants:
//! - Records follow each other without a gap. A header tells where the next one is only if its own checksum, which
//!   covers segment and position, is right: bytes that a job prints are never taken for a record.
//! - A segment is written by one run of the coordinator, front to back, and never again after that. The one before is
//!   synced before the next is made, so only the newest can be torn.
//! - Per log, data records taken in order of (segment, position), each where the last ended, are the log. A record
//!   that lies wholly below the end is a repetition (its batch was written again after a failed sync) and is skipped;
//!   one past the end follows lost bytes that nobody was told of, and is skipped too.
//!
//! Assumed of the medium: a sync that returned has made bytes (or names) safe; unsynced writes may arrive in any order,
//! in part, or as zeros; a file's length never exceeds what was written to it.

use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{DETAIL_MAX_BYTES, LOG_CHUNK_MAX_BYTES};
use windlass_protocol::{AttemptId, WallMs};

/// The first bytes of a segment; the last one is the format's version.
pub const SEGMENT_MAGIC: [u8; 8] = *b"WLSEG\0\0\x01";
/// Bytes of a segment before its first record.
pub const SEGMENT_HEADER_BYTES: usize = 24;
/// The first bytes of a record.
pub const RECORD_MAGIC: [u8; 4] = *b"WLR1";
/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 52;
/// Bytes of the largest record.
pub const RECORD_MAX_BYTES: usize = RECORD_HEADER_BYTES + LOG_CHUNK_MAX_BYTES;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Fence,
    Incomplete,
    Deleted,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Fence => 2,
            Self::Incomplete => 3,
            Self::Deleted => 4,
        }
    }

    /// The kind, if a payload of this length suits it.
    fn of(code: u8, len: usize) -> Option<Self> {
        let kind = match code {
            1 => Self::Data,
            2 => Self::Fence,
            3 => Self::Incomplete,
            4 => Self::Deleted,
            _ => return None,
        };
        let fits = match kind {
            Self::Data => (1..=LOG_CHUNK_MAX_BYTES).contains(&len),
            Self::Fence => len == 9,
            Self::Incomplete => len <= DETAIL_MAX_BYTES,
            Self::Deleted => len == 0,
        };
        fits.then_some(kind)
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) attempt: AttemptId,
    pub(crate) offset: u64,
    pub(crate) at: WallMs,
    pub(crate) len: u32,
    payload_crc: u32,
}

/// What stands at a position of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// A whole record, and its bytes with header.
    Record(Header, &'a [u8], usize),
    /// A record whose payload is not what was written, and its bytes with header.
    BadPayload(usize),
    /// No record: nothing is known of what follows.
    Bad,
    /// The slice ends within a record (or there is none): this many bytes are wanted.
    Short(usize),
}

/// The 24 bytes that a segment begins with.
pub(crate) fn segment_header(seq: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(&SEGMENT_MAGIC);
    header[8..16].copy_from_slice(&seq.to_le_bytes());
    let crc = crc32fast::hash(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn header_crc(first: &[u8], seq: u64, position: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(first);
    hasher.update(&seq.to_le_bytes());
    hasher.update(&position.to_le_bytes());
    hasher.finalize()
}

/// Appends a record whose payload is `parts`, one after the other, to what will be written at `base` of segment `seq`.
///
/// Lengths are the caller's to keep: see the table above.
pub(crate) fn encode<'a>(
    out: &mut Vec<u8>,
    (seq, base): (u64, u64),
    (kind, attempt): (Kind, AttemptId),
    (offset, at): (u64, WallMs),
    parts: impl Iterator<Item = &'a [u8]>,
) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
    let mut crc = crc32fast::Hasher::new();
    for part in parts {
        crc.update(part);
        out.extend_from_slice(part);
    }
    let len = u32::try_from(out.len() - start - RECORD_HEADER_BYTES).unwrap_or(u32::MAX);
    let mut header = [0_u8; RECORD_HEADER_BYTES];
    header[..4].copy_from_slice(&RECORD_MAGIC);
    header[4] = kind.code();
    header[8..24].copy_from_slice(attempt.as_bytes());
    header[24..32].copy_from_slice(&offset.to_le_bytes());
    header[32..40].copy_from_slice(&at.0.to_le_bytes());
    header[40..44].copy_from_slice(&len.to_le_bytes());
    header[44..48].copy_from_slice(&crc.finalize().to_le_bytes());
    let crc = header_crc(&header[..48], seq, base + start as u64);
    header[48..].copy_from_slice(&crc.to_le_bytes());
    out[start..start + RECORD_HEADER_BYTES].copy_from_slice(&header);
}

/// Reads what stands at `position` of segment `seq`, of which `bytes` is as much as is at hand.
pub(crate) fn parse(bytes: &[u8], seq: u64, position: u64) -> Parsed<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else {
        return Parsed::Short(RECORD_HEADER_BYTES);
    };
    if head[..4] != RECORD_MAGIC || header_crc(&head[..48], seq, position) != u32_at(head, 48) || head[5..8] != [0; 3] {
        return Parsed::Bad;
    }
    let len = u32_at(head, 40);
    let plain_len = usize::try_from(len).unwrap_or(usize::MAX);
    let Some(kind) = Kind::of(head[4], plain_len) else { return Parsed::Bad };
    let mut attempt = [0; 16];
    attempt.copy_from_slice(&head[8..24]);
    let header = Header {
        kind,
        attempt: AttemptId::from_bytes(attempt),
        offset: u64_at(head, 24),
        at: WallMs(u64_at(head, 32)),
        len,
        payload_crc: u32_at(head, 44),
    };
    let total = RECORD_HEADER_BYTES + plain_len;
    let Some(payload) = rest.get(..plain_len) else { return Parsed::Short(total) };
    let fits = header.offset.checked_add(u64::from(len)).is_some();
    if !fits || crc32fast::hash(payload) != header.payload_crc {
        return Parsed::BadPayload(total);
    }
    Parsed::Record(header, payload, total)
}

/// The payload of a fence.
pub(crate) fn fence_payload(least: Epoch, ended: bool) -> [u8; 9] {
    let mut payload = [0; 9];
    payload[..8].copy_from_slice(&least.0.to_le_bytes());
    payload[8] = u8::from(ended);
    payload
}

/// Reads the payload of a fence.
pub(crate) fn parse_fence(payload: &[u8]) -> Option<(Epoch, bool)> {
    match payload.split_first_chunk::<8>()? {
        (epoch, [ended @ (0 | 1)]) => Some((Epoch(u64::from_le_bytes(*epoch)), *ended == 1)),
        _ => None,
    }
}

/// A little-endian number within bytes that are known to be long enough (0 where they are not).
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b))
}

/// A little-endian number within bytes that are known to be long enough (0 where they are not).
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: AttemptId = AttemptId::from_bytes(*b"0123456789abcdef");

    fn record() -> Vec<u8> {
        let mut out = Vec::new();
        let parts = [b"hel".as_slice(), b"lo\n"];
        encode(&mut out, (7, 24), (Kind::Data, ATTEMPT), (10, WallMs(1000)), parts.into_iter());
        out
    }

    #[test]
    fn a_record_has_the_documented_bytes() {
        let bytes = record();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../tests/golden/record.hex").trim());
        let header: String = segment_header(7).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(header, include_str!("../tests/golden/segment_header.hex").trim());
    }

    #[test]
    fn a_record_is_read_back_and_only_where_it_was_written() {
        let bytes = record();
        let Parsed::Record(header, payload, total) = parse(&bytes, 7, 24) else { panic!("no record") };
        assert_eq!((header.attempt, header.offset, header.at, payload), (ATTEMPT, 10, WallMs(1000), &b"hello\n"[..]));
        assert_eq!(total, bytes.len());
        assert_eq!(parse(&bytes, 7, 25), Parsed::Bad, "at another position");
        assert_eq!(parse(&bytes, 8, 24), Parsed::Bad, "in another segment");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = record();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(parse(&bad, 7, 24), Parsed::Record(..)), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(matches!(parse(&bytes[..len], 7, 24), Parsed::Short(_)), "cut at {len}");
        }
    }

    #[test]
    fn a_fence_is_read_back_strictly() {
        assert_eq!(parse_fence(&fence_payload(Epoch(5), true)), Some((Epoch(5), true)));
        assert_eq!(parse_fence(&[0, 0, 0, 0, 0, 0, 0, 0, 2]), None);
        assert_eq!(parse_fence(&[0; 8]), None);
    }
}
