//! What stays on the disk of a segment that is away: its head and records, without the bytes of its blobs.
//!
//! The file `segments/NNNNNNNN.bones` is the segment with the payloads of its blobs left out; nothing is added, for each header
//! says how long what follows it is, and is sealed to its place in the segment. So what a segment says is read without its
//! bucket: it is looked through ([`Bones::to_look_through`], blobs read as zeros), manifests are read, and only a blob's own
//! bytes are asked of the bucket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use windlass_protocol::limits::ORIGIN_BLOCK_BYTES;

use super::Object;
use super::away::Away;
use crate::error::{Fault, OrFault as _};
use crate::segment::record::{Header, Kind, RECORD_HEADER_BYTES};
use crate::segment::{self, HEAD_BYTES};
use crate::vfs::{Vfs, VfsFile};

const BUFFER_BYTES: usize = 1 << 20;

/// Where the bones of this segment lie.
pub(crate) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.bones"))
}

/// The number in the name of a file of bones.
pub(crate) fn number(name: &str) -> Option<u32> {
    segment::number(&format!("{}.seg", name.strip_suffix(".bones")?))
}

/// What is left out: each blob's bytes begin at `start` of the segment, and before them `before` bytes were left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    start: u32,
    before: u32,
}

/// Which bytes are there.
#[derive(Debug, Default)]
struct Map {
    gaps: Vec<Gap>,
    left_out: u64,
    /// Of the whole segment.
    end: u64,
}

impl Map {
    fn left_out_until(&self, nth: usize) -> u64 {
        self.gaps.get(nth).map_or(self.left_out, |gap| u64::from(gap.before))
    }
}

/// A segment without its blobs' bytes.
#[derive(Debug)]
pub(crate) struct Bones {
    number: u32,
    file: Box<dyn VfsFile>,
    /// How long the whole segment is.
    bytes: u64,
    map: OnceLock<Map>,
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Bones {
    /// Opens a segment's; reads nothing of them yet.
    pub(crate) fn open(vfs: &dyn Vfs, dir: &Path, number: u32, bytes: u64) -> io::Result<Self> {
        Ok(Self { number, file: vfs.open_read(&path(dir, number))?, bytes, map: OnceLock::new() })
    }

    /// How long the whole segment is.
    pub(crate) const fn len(&self) -> u64 {
        self.bytes
    }

    /// How many bytes they are.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.file.len().unwrap_or_default()
    }

    /// Whether they are what a segment of this length leaves.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.map().map(|_| ())
    }

    fn map(&self) -> io::Result<&Map> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        let salt = segment::read_salt(&*self.file)?.ok_or_else(|| invalid("bones without a head"))?;
        let mut map = Map { end: HEAD_BYTES, ..Map::default() };
        let mut reader =
            Buffered { file: &*self.file, at: HEAD_BYTES, len: self.file.len()?, buffer: Vec::new(), start: 0 };
        while reader.at < reader.len {
            let mut header = [0; RECORD_HEADER_BYTES];
            reader.take(&mut header)?;
            let header =
                Header::decode(&header, &salt, map.end).ok_or_else(|| invalid("bones with a record that is none"))?;
            map.end += RECORD_HEADER_BYTES as u64;
            let payload = u64::from(header.payload_bytes);
            if header.kind == Kind::Blob {
                let narrow = |n: u64| u32::try_from(n).map_err(|_| invalid("bones of too long a segment"));
                map.gaps.push(Gap { start: narrow(map.end)?, before: narrow(map.left_out)? });
                map.left_out += payload;
            } else {
                reader.at += payload;
            }
            map.end += payload;
        }
        if map.end != self.bytes || reader.at != reader.len {
            return Err(invalid("bones of another segment"));
        }
        map.gaps.shrink_to_fit();
        Ok(self.map.get_or_init(|| map))
    }

    /// Reads what is there at `offset` of the segment, or tells how long what is left out goes on there.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Piece> {
        let map = self.map()?;
        let left = self.bytes.saturating_sub(offset).min(buffer.len() as u64);
        if left == 0 {
            return Ok(Piece::There(0));
        }
        let next = map.gaps.partition_point(|gap| u64::from(gap.start) <= offset);
        if let Some(gap) = next.checked_sub(1).and_then(|nth| map.gaps.get(nth)) {
            let end = u64::from(gap.start) + map.left_out_until(next) - u64::from(gap.before);
            if offset < end {
                return Ok(Piece::LeftOut((end - offset).min(left)));
            }
        }
        let there = map.gaps.get(next).map_or(left, |gap| (u64::from(gap.start) - offset).min(left));
        let there = usize::try_from(there).unwrap_or(usize::MAX);
        let buffer = buffer.get_mut(..there).unwrap_or_default();
        self.file.read_at(offset - map.left_out_until(next), buffer).map(|n| Piece::There(n as u64))
    }

    /// The segment as it is looked through: what is left out reads as zeros.
    pub(crate) fn to_look_through(self: &Arc<Self>) -> Arc<dyn VfsFile> {
        Arc::new(Whole { bones: Arc::clone(self), away: None })
    }

    /// The segment as blobs and manifests are read from it.
    pub(crate) fn to_read(self: &Arc<Self>, away: &Arc<Away>) -> Arc<dyn VfsFile> {
        Arc::new(Whole { bones: Arc::clone(self), away: Some(Arc::clone(away)) })
    }
}

enum Piece {
    There(u64),
    LeftOut(u64),
}

/// A segment of which only the bones are on the disk.
struct Whole {
    bones: Arc<Bones>,
    away: Option<Arc<Away>>,
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} away", self.bones.number)
    }
}

fn read_only() -> io::Error {
    io::ErrorKind::ReadOnlyFilesystem.into()
}

impl VfsFile for Whole {
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = match self.bones.read(offset, buffer)? {
            Piece::There(bytes) => bytes,
            Piece::LeftOut(bytes) => {
                let part = buffer.get_mut(..usize::try_from(bytes).unwrap_or(usize::MAX)).unwrap_or_default();
                match &self.away {
                    None => part.fill(0),
                    Some(away) => {
                        let end = offset + bytes;
                        let blocks = offset / ORIGIN_BLOCK_BYTES * ORIGIN_BLOCK_BYTES
                            ..end.next_multiple_of(ORIGIN_BLOCK_BYTES).min(self.bones.bytes);
                        away.read(Object::Segment(self.bones.number), offset, part, blocks)?;
                    }
                }
                bytes
            }
        };
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bones.bytes)
    }

    fn truncate(&self, _len: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes bones as a segment's bytes come, from its beginning on.
#[derive(Debug)]
pub(crate) struct Boner {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    new: PathBuf,
    dir: PathBuf,
    salt: Option<[u8; 32]>,
    /// What came and is no whole head or header yet.
    pending: Vec<u8>,
    /// How many bytes of the segment were dealt with.
    at: u64,
    /// How many of those that follow are a payload, and whether it stays.
    payload: (u64, bool),
    out: Vec<u8>,
    end: u64,
}

impl Boner {
    /// Of a segment whose bones will lie in `dir`.
    pub(crate) fn new(vfs: &dyn Vfs, dir: &Path, number: u32) -> Result<Self, Fault> {
        let path = path(dir, number);
        let new = path.with_extension("bones-new");
        match vfs.remove(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Fault::io("removing", &new, e)),
            Ok(()) | Err(_) => {}
        }
        let file = vfs.create(&new).or_fault("creating", &new)?;
        let (dir, pending, out) = (dir.to_owned(), Vec::new(), Vec::new());
        Ok(Self { file, path, new, dir, salt: None, pending, at: 0, payload: (0, true), out, end: 0 })
    }

    /// Takes the segment's next bytes.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            if self.payload.0 > 0 {
                let here = usize::try_from(self.payload.0).unwrap_or(usize::MAX).min(bytes.len());
                let (payload, rest) = bytes.split_at(here);
                if self.payload.1 {
                    self.out.extend_from_slice(payload);
                }
                (self.payload.0, self.at, bytes) = (self.payload.0 - here as u64, self.at + here as u64, rest);
                continue;
            }
            let wanted =
                if self.salt.is_none() { usize::try_from(HEAD_BYTES).unwrap_or(0) } else { RECORD_HEADER_BYTES };
            let (part, rest) = bytes.split_at((wanted - self.pending.len()).min(bytes.len()));
            self.pending.extend_from_slice(part);
            bytes = rest;
            if self.pending.len() == wanted {
                self.begin()?;
            }
        }
        if self.out.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// A whole head or header has come.
    fn begin(&mut self) -> Result<(), Fault> {
        let whole = std::mem::take(&mut self.pending);
        let damaged = |what| Fault::io("reading the segment of", &self.path, invalid(what));
        match self.salt {
            None => {
                let salt = segment::salt_in(&whole).ok_or_else(|| damaged("a segment without a head"))?;
                self.salt = Some(salt);
            }
            Some(salt) => {
                let header = Header::decode(&whole, &salt, self.at).ok_or_else(|| damaged("a record that is none"))?;
                self.payload = (u64::from(header.payload_bytes), header.kind != Kind::Blob);
            }
        }
        self.at += whole.len() as u64;
        self.out.extend_from_slice(&whole);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let out = std::mem::take(&mut self.out);
        self.file.write_at(self.end, &out).or_fault("writing", &self.new)?;
        self.end += out.len() as u64;
        Ok(())
    }

    /// All has come: the bones are in place, durably.
    pub(crate) fn finish(mut self, vfs: &dyn Vfs) -> Result<(), Fault> {
        if self.salt.is_none() || self.payload.0 > 0 || !self.pending.is_empty() {
            return Err(Fault::io("reading the segment of", &self.path, invalid("a segment that ends in a record")));
        }
        self.flush()?;
        self.file.sync_data().or_fault("syncing", &self.new)?;
        vfs.rename(&self.new, &self.path).or_fault("renaming", &self.new)?;
        vfs.sync_dir(&self.dir).or_fault("syncing", &self.dir)
    }
}

/// Reads forward, much at a time.
struct Buffered<'a> {
    file: &'a dyn VfsFile,
    at: u64,
    len: u64,
    buffer: Vec<u8>,
    start: u64,
}

impl Buffered<'_> {
    fn take(&mut self, out: &mut [u8]) -> io::Result<()> {
        let end = self.at + out.len() as u64;
        if self.at < self.start || end > self.start + self.buffer.len() as u64 {
            let left = usize::try_from(self.len - self.at).unwrap_or(usize::MAX);
            self.buffer.resize(BUFFER_BYTES.min(left), 0);
            self.start = self.at;
            self.file.read_exact_at(self.at, &mut self.buffer)?;
        }
        let from = usize::try_from(self.at - self.start).unwrap_or(usize::MAX);
        let bytes = self.buffer.get(from..from.saturating_add(out.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }
}
