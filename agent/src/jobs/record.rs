//! What is written down of an attempt before anything of it is prepared.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use windlass_protocol::host::read_private;
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
        let dir = ground.runner.prepare(spec, epoch, &workspace.root)?;
        let mut bytes = ground.boot.to_vec();
        bytes.extend_from_slice(&place.to_le_bytes());
        bytes.extend_from_slice(&encode(spec).map_err(io::Error::other)?);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join("job"))?;
        file.write_all(&bytes)
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
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (boot, rest) = bytes.split_first_chunk()?;
        let (place, offer) = rest.split_first_chunk()?;
        Some(Self { boot: *boot, place: u32::from_le_bytes(*place), spec: decode(offer).ok()? })
    }
}

/// The record of an attempt; `None` where it was cut short before anything began.
pub(super) fn read_record(dir: &Path, begun: bool) -> io::Result<Option<Record>> {
    let whole = Record::parse(&read_private(&dir.join("job"))?.unwrap_or_default());
    if whole.is_none() && begun {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the record of a started attempt cannot be read"));
    }
    Ok(whole)
}
