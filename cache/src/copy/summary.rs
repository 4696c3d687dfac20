//! What a copy says of itself and of the segments that it was made of.

use std::collections::BTreeMap;

use super::cursor::{Cursor, Fixed};
use crate::account::Balance;
use crate::chunk::FileNo;

/// How far the segment that grew was read, and what it held up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upto {
    pub(crate) segment: u32,
    pub(crate) end: u64,
    /// Of its bytes up to there: whoever cut it there and wrote on made other ones.
    pub(crate) hash: [u8; 32],
}

/// Of the whole copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) upto: Upto,
    pub(super) clock: u32,
    pub(super) next_file: FileNo,
    pub(super) rows: u64,
    pub(super) aliases: u64,
    pub(super) chunks: u64,
    pub(super) alias_key: Option<[u8; 32]>,
}

/// Of one segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed {
    pub(super) number: u32,
    pub(super) salt: [u8; 32],
    pub(super) end: u64,
    pub(super) balance: Balance,
}

/// Segments by number.
pub(super) type Segments = BTreeMap<u32, Sealed>;

impl Fixed for Summary {
    const BYTES: usize = 113;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.upto.segment.to_le_bytes());
        out.extend_from_slice(&self.upto.end.to_le_bytes());
        out.extend_from_slice(&self.upto.hash);
        out.extend_from_slice(&self.clock.to_le_bytes());
        for number in [self.next_file, self.rows, self.aliases, self.chunks] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(self.alias_key.is_some().into());
        out.extend_from_slice(&self.alias_key.unwrap_or_default());
    }

    fn decode(from: &mut Cursor<'_>) -> Option<Self> {
        let upto = Upto { segment: from.u32()?, end: from.u64()?, hash: from.array()? };
        let (clock, next_file) = (from.u32()?, from.u64()?);
        let (rows, aliases, chunks) = (from.u64()?, from.u64()?, from.u64()?);
        let alias_key = match (from.array()?, from.array()?) {
            ([0], _) => None,
            ([1], key) => Some(key),
            _ => return None,
        };
        Some(Self { upto, clock, next_file, rows, aliases, chunks, alias_key })
    }
}

impl Fixed for Sealed {
    const BYTES: usize = 68;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.salt);
        for number in [self.end, self.balance.live_bytes, self.balance.blobs, self.balance.stale as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn decode(from: &mut Cursor<'_>) -> Option<Self> {
        let (number, salt, end) = (from.u32()?, from.array()?, from.u64()?);
        let (live_bytes, blobs, stale) = (from.u64()?, from.u64()?, usize::try_from(from.u64()?).ok()?);
        Some(Self { number, salt, end, balance: Balance { live_bytes, blobs, stale } })
    }
}
