//! What is written down of an attempt before anything of it is prepared.

use std::io;

use windlass_protocol::job::JobSpec;
use windlass_protocol::message::{decode, encode};

use super::Ground;
use crate::host::BootId;
use crate::right::Right;
use crate::workspace::Workspace;

/// Writes an offer down, in its place. It outlives the agent, not the machine (see the module above).
pub(super) fn record(
    ground: &Ground,
    spec: &JobSpec,
    right: &Right,
    place: u32,
    workspace: &Workspace,
) -> io::Result<()> {
    right.record(|epoch| {
        let mut note = ground.boot.to_vec();
        note.extend_from_slice(&place.to_le_bytes());
        note.extend_from_slice(&encode(spec).map_err(io::Error::other)?);
        ground.runner.prepare(spec, epoch, &workspace.root, &note).map(drop)
    })
}

/// What [`record`] wrote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) boot: BootId,
    pub(super) place: u32,
    pub(super) spec: JobSpec,
}

impl Record {
    /// Reads the note of an attempt; `None` where a crash of the machine cut it short before anything was launched.
    pub(super) fn parse(note: &[u8], launched: bool) -> io::Result<Option<Self>> {
        let whole = Self::of(note);
        if whole.is_none() && launched {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the record of a started attempt cannot be read"));
        }
        Ok(whole)
    }

    fn of(note: &[u8]) -> Option<Self> {
        let (boot, rest) = note.split_first_chunk()?;
        let (place, offer) = rest.split_first_chunk()?;
        Some(Self { boot: *boot, place: u32::from_le_bytes(*place), spec: decode(offer).ok()? })
    }
}
