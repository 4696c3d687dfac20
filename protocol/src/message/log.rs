//! Log bytes on the wire: raw, because they are many.
//!
//! A unidirectional stream begins with one framed [`LogHeader`]; then come chunks, each one frame whose payload is
//! `offset: u64 LE`, `at_ms: u64 LE` and the bytes. Offsets follow each other without a gap within a stream.

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "the archived twins and resolvers that rkyv derives carry neither docs nor Debug"
)]

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::AttemptId;
use crate::job::Epoch;
use crate::limits::LOG_CHUNK_MAX_BYTES;
use crate::time::WallMs;

/// Whose log a stream carries, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct LogHeader {
    /// The attempt.
    pub attempt: AttemptId,
    /// By which right.
    pub epoch: Epoch,
    /// The first chunk's offset.
    pub offset: u64,
}

/// Bytes of a chunk's payload before the log's own.
pub const CHUNK_PREFIX_BYTES: usize = 16;

/// A piece of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogChunk<'a> {
    /// Of its first byte, in the log.
    pub offset: u64,
    /// When the bytes were read from the job, by the agent's clock.
    pub at: WallMs,
    /// At least one, at most [`LOG_CHUNK_MAX_BYTES`].
    pub bytes: &'a [u8],
}

/// A payload that is no chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log chunk of {bytes} bytes is not between 1 and {LOG_CHUNK_MAX_BYTES}, or its offset overflows")]
pub struct BadChunk {
    /// Log bytes in it (0 if even its prefix is short).
    pub bytes: usize,
}

/// The 16 bytes before a chunk's own.
#[must_use]
pub fn chunk_prefix(offset: u64, at: WallMs) -> [u8; CHUNK_PREFIX_BYTES] {
    let mut prefix = [0_u8; CHUNK_PREFIX_BYTES];
    prefix[..8].copy_from_slice(&offset.to_le_bytes());
    prefix[8..].copy_from_slice(&at.0.to_le_bytes());
    prefix
}

/// Reads a frame's payload as a chunk.
///
/// # Errors
/// [`BadChunk`] where it is empty, too long or too short.
pub fn parse_chunk(payload: &[u8]) -> Result<LogChunk<'_>, BadChunk> {
    let short = BadChunk { bytes: 0 };
    let (offset, rest) = payload.split_first_chunk::<8>().ok_or(short)?;
    let (at, bytes) = rest.split_first_chunk::<8>().ok_or(short)?;
    let offset = u64::from_le_bytes(*offset);
    let fits = offset.checked_add(bytes.len() as u64).is_some();
    if bytes.is_empty() || bytes.len() > LOG_CHUNK_MAX_BYTES || !fits {
        return Err(BadChunk { bytes: bytes.len() });
    }
    Ok(LogChunk { offset, at: WallMs(u64::from_le_bytes(*at)), bytes })
}
