//! Segments: append-only files of records, and how they are read back.
//!
//! A segment begins with its head, twice (64 bytes each: magic, salt, CRC-32), so that one bad sector does not take all
//! records with it. Records follow ([`record`]). Only the last segment can be torn: the one before was synced before it
//! was made.

pub(crate) mod holes;
pub(crate) mod record;

use std::io;
use std::path::{Path, PathBuf};

use windlass_protocol::{Digest, Namespace};

use crate::alias::Sha256Digest;
use crate::chunk::listing::Listing;
use crate::chunk::manifest::ChunkManifest;
use crate::vfs::VfsFile;
use record::{Header, Kind, MAGIC, RECORD_HEADER_BYTES};

/// The bytes before the first record.
pub(crate) const HEAD_BYTES: u64 = 128;

const HEAD_COPY_BYTES: usize = 64;
const HEAD_MAGIC: [u8; 8] = *b"WLSEG\x01\0\0";
const WINDOW_BYTES: usize = 256 << 10;

/// Where the segment of this number lies.
pub(crate) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

/// The number in a segment's name.
pub(crate) fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 8)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The head of a new segment.
pub(crate) fn head(salt: &[u8; 32]) -> Vec<u8> {
    let mut copy = [0_u8; HEAD_COPY_BYTES];
    copy[..8].copy_from_slice(&HEAD_MAGIC);
    copy[8..40].copy_from_slice(salt);
    let crc = crc32fast::hash(&copy[..40]);
    copy[40..44].copy_from_slice(&crc.to_le_bytes());
    [copy, copy].concat()
}

/// The salt in a segment's head, if either copy of it is whole.
pub(crate) fn read_salt(file: &dyn VfsFile) -> io::Result<Option<[u8; 32]>> {
    for offset in [0, HEAD_COPY_BYTES as u64] {
        let mut copy = [0; HEAD_COPY_BYTES];
        match file.read_exact_at(offset, &mut copy) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        let crc = crc32fast::hash(&copy[..40]);
        if copy[..8] == HEAD_MAGIC && copy[40..44] == crc.to_le_bytes() {
            return Ok(copy[8..40].try_into().ok());
        }
    }
    Ok(None)
}

/// The same, of its bytes.
pub(crate) fn salt_in(head: &[u8]) -> Option<[u8; 32]> {
    let (copies, _) = head.as_chunks::<HEAD_COPY_BYTES>();
    let whole = |copy: &&[u8; HEAD_COPY_BYTES]| {
        copy[..8] == HEAD_MAGIC && copy[40..44] == crc32fast::hash(&copy[..40]).to_le_bytes()
    };
    copies.iter().take(2).find(whole).and_then(|copy| copy[8..40].try_into().ok())
}

/// A record as it is read back.
#[derive(Debug)]
pub(crate) enum Record {
    Blob { digest: Digest, namespace: u32, offset: u64, bytes: u32 },
    Large { digest: Digest, namespace: u32, bytes: u64 },
    Namespace { number: u32, namespace: Namespace },
    Grant { digest: Digest, namespace: u32 },
    Void { digest: Digest },
    Release { digest: Digest, namespace: u32 },
    Chunks(Listing),
    Manifest { digest: Digest, namespace: u32, offset: u64, bytes: u64, manifest_bytes: u32 },
    Seen { digest: Digest, namespaces: Vec<u32> },
    Alias { digest: Digest, alias: Sha256Digest },
}

impl Record {
    /// Which numbers of namespaces it names.
    pub(crate) fn namespaces(&self) -> &[u32] {
        match self {
            Self::Blob { namespace, .. }
            | Self::Large { namespace, .. }
            | Self::Grant { namespace, .. }
            | Self::Release { namespace, .. }
            | Self::Manifest { namespace, .. } => std::slice::from_ref(namespace),
            Self::Seen { namespaces, .. } => namespaces,
            Self::Namespace { .. } | Self::Void { .. } | Self::Chunks(_) | Self::Alias { .. } => &[],
        }
    }
}

/// Whether the bytes of blobs are checked too, or their headers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// For segments that were synced when the next one was made.
    Headers,
    /// For the last segment, which may be torn.
    Everything,
}

/// Reads a segment's records in order, from any of them on. After bytes that are none it looks for the next one.
pub(crate) struct Scan<'a> {
    window: Window<'a>,
    salt: [u8; 32],
    check: Check,
    at: u64,
    scanned: Scanned,
}

impl<'a> Scan<'a> {
    /// From the record at `at` on; [`HEAD_BYTES`] is where the first one begins.
    pub(crate) fn new(file: &'a dyn VfsFile, salt: &[u8; 32], check: Check, at: u64) -> io::Result<Self> {
        let window = Window { file, len: file.len()?, start: 0, bytes: Vec::new() };
        Ok(Self { window, salt: *salt, check, at, scanned: Scanned { end: at, damaged_bytes: 0 } })
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> io::Result<Option<Record>> {
        while let Some(header) = self.window.slice(self.at, RECORD_HEADER_BYTES)? {
            let header = Header::decode(header, &self.salt, self.at);
            let payload_at = self.at + RECORD_HEADER_BYTES as u64;
            let record = match &header {
                Some(header) => read(&mut self.window, header, payload_at, self.check)?,
                None => None,
            };
            if let (Some(header), Some(record)) = (header, record) {
                self.scanned.damaged_bytes += self.at - self.scanned.end;
                self.scanned.end = payload_at + u64::from(header.payload_bytes);
                self.at = self.scanned.end;
                return Ok(Some(record));
            }
            self.at = self.window.next_magic(self.at + 1)?;
        }
        Ok(None)
    }

    /// What it came to so far.
    pub(crate) const fn scanned(&self) -> Scanned {
        self.scanned
    }
}

/// What a scan came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Where the last whole record ends; what follows is torn.
    pub(crate) end: u64,
    /// Bytes before `end` that belong to no whole record.
    pub(crate) damaged_bytes: u64,
}

/// Reads all of a segment's records in order.
pub(crate) fn scan(
    file: &dyn VfsFile,
    salt: &[u8; 32],
    check: Check,
    visit: &mut dyn FnMut(Record),
) -> io::Result<Scanned> {
    let mut scan = Scan::new(file, salt, check, HEAD_BYTES)?;
    while let Some(record) = scan.next()? {
        visit(record);
    }
    Ok(scan.scanned())
}

fn read(window: &mut Window<'_>, header: &Header, offset: u64, check: Check) -> io::Result<Option<Record>> {
    let &Header { kind, namespace, payload_bytes, payload_crc, digest } = header;
    if offset + u64::from(payload_bytes) > window.len {
        return Ok(None);
    }
    if kind == Kind::Blob && check == Check::Headers {
        return Ok(Some(Record::Blob { digest, namespace, offset, bytes: payload_bytes }));
    }
    let Some(payload) = window.slice(offset, payload_bytes as usize)? else { return Ok(None) };
    if crc32fast::hash(payload) != payload_crc {
        return Ok(None);
    }
    Ok(match kind {
        Kind::Blob => Some(Record::Blob { digest, namespace, offset, bytes: payload_bytes }),
        Kind::Large => {
            let bytes = payload.try_into().ok().map(u64::from_le_bytes);
            bytes.map(|bytes| Record::Large { digest, namespace, bytes })
        }
        Kind::Namespace => decode_namespace(payload)
            .map(|namespace_name| Record::Namespace { number: namespace, namespace: namespace_name }),
        Kind::Grant => Some(Record::Grant { digest, namespace }),
        Kind::Void => Some(Record::Void { digest }),
        Kind::Release => Some(Record::Release { digest, namespace }),
        Kind::Chunks => Listing::decode(payload).map(Record::Chunks),
        Kind::Manifest => {
            let manifest = ChunkManifest::decode(payload).ok().filter(|manifest| manifest.digest() == digest);
            let bytes = manifest.map(|manifest| manifest.blob_bytes());
            let manifest_bytes = payload_bytes;
            bytes.map(|bytes| Record::Manifest { digest, namespace, offset, bytes, manifest_bytes })
        }
        Kind::Alias => payload.try_into().ok().map(|alias| Record::Alias { digest, alias: Sha256Digest(alias) }),
        Kind::Seen => decode_numbers(payload).map(|namespaces| Record::Seen { digest, namespaces }),
    })
}

/// A namespace's name: the project's length (u16), the project, and the overlay after a 1, or nothing after a 0.
pub(crate) fn encode_namespace(namespace: &Namespace) -> Option<Vec<u8>> {
    let project_bytes = u16::try_from(namespace.project.len()).ok()?;
    let mut out = project_bytes.to_le_bytes().to_vec();
    out.extend_from_slice(namespace.project.as_bytes());
    match &namespace.overlay {
        Some(overlay) => {
            out.push(1);
            out.extend_from_slice(overlay.as_bytes());
        }
        None => out.push(0),
    }
    Some(out)
}

/// Numbers of namespaces, little-endian, sorted, each once, one at least.
pub(crate) fn encode_numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn decode_numbers(payload: &[u8]) -> Option<Vec<u32>> {
    let (numbers, []) = payload.as_chunks::<4>() else { return None };
    let numbers: Vec<u32> = numbers.iter().map(|number| u32::from_le_bytes(*number)).collect();
    (!numbers.is_empty() && numbers.is_sorted_by(|a, b| a < b)).then_some(numbers)
}

/// Reads what [`encode_namespace`] made.
pub(crate) fn decode_namespace(payload: &[u8]) -> Option<Namespace> {
    let (len, rest) = payload.split_first_chunk::<2>()?;
    let (project, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    let project = str::from_utf8(project).ok()?;
    match rest.split_first()? {
        (0, []) => Some(Namespace::trusted(project)),
        (1, overlay) => Some(Namespace::overlay(project, str::from_utf8(overlay).ok()?)),
        _ => None,
    }
}

/// A stretch of the file in memory, moved along as the scan goes.
struct Window<'a> {
    file: &'a dyn VfsFile,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes at `offset`, or nothing where the file ends before.
    fn slice(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if offset + len as u64 > self.len {
            return Ok(None);
        }
        let inside = offset >= self.start && offset + len as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            let left = usize::try_from(self.len - offset).unwrap_or(usize::MAX);
            self.bytes.resize(len.max(WINDOW_BYTES).min(left), 0);
            self.start = offset;
            self.file.read_exact_at(offset, &mut self.bytes)?;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(from..from + len))
    }

    /// Where the next bytes stand that a record may begin with; the file's length where there are none.
    fn next_magic(&mut self, from: u64) -> io::Result<u64> {
        let mut at = from;
        while at < self.len {
            let step = usize::try_from(self.len - at).unwrap_or(usize::MAX).min(WINDOW_BYTES / 2);
            let Some(bytes) = self.slice(at, step)? else { break };
            match bytes.windows(MAGIC.len()).position(|window| window == MAGIC) {
                Some(position) => return Ok(at + position as u64),
                None if step <= MAGIC.len() => break,
                None => at += (step - (MAGIC.len() - 1)) as u64,
            }
        }
        Ok(self.len)
    }
}
