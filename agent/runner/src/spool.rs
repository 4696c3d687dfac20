//! The log of one attempt on the agent's disk: appended by its supervisor, tailed by offset by the agent.
//!
//! Segment files are named by the offset of their first byte, 16 hex digits. Each holds records: offset, time,
//! length, CRC-32 and the bytes. A record counts once it is whole; a torn tail is one that is still being written.
//! Nothing here is synced: the spool has to outlive the agent's process, not the machine.

mod reader;
mod writer;

pub use reader::{Chunk, SpoolReader};
pub use writer::SpoolWriter;

use std::path::{Path, PathBuf};
use std::{fs, io};

use windlass_protocol::time::WallMs;

/// Offset, time, length and CRC-32 (of the fields before it and the bytes).
const HEADER_BYTES: usize = 24;

/// What stands before a record's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    offset: u64,
    at: WallMs,
    length: u32,
    crc: u32,
}

impl Header {
    fn of(offset: u64, at: WallMs, length: u32, bytes: &[u8]) -> Self {
        let unsealed = Self { offset, at, length, crc: 0 };
        Self { crc: unsealed.checksum(bytes), ..unsealed }
    }

    fn checksum(&self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.offset.to_le_bytes());
        hasher.update(&self.at.0.to_le_bytes());
        hasher.update(&self.length.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..16].copy_from_slice(&self.at.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.length.to_le_bytes());
        out[20..].copy_from_slice(&self.crc.to_le_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (offset, rest) = bytes.split_first_chunk::<8>()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let crc = rest.first_chunk::<4>()?;
        Some(Self {
            offset: u64::from_le_bytes(*offset),
            at: WallMs(u64::from_le_bytes(*at)),
            length: u32::from_le_bytes(*length),
            crc: u32::from_le_bytes(*crc),
        })
    }
}

fn segment_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:016x}"))
}

/// The starts of all segments, in order.
fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let start = name.to_str().filter(|name| name.len() == 16).and_then(|name| u64::from_str_radix(name, 16).ok());
        starts.extend(start);
    }
    starts.sort_unstable();
    Ok(starts)
}

#[cfg(test)]
mod tests;
