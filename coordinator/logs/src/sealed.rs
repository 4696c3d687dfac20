//! The format of a sealed log: one file `sealed/ATTEMPT.wlog`, which can be read from the middle.
//!
//! All numbers are little-endian.
//!
//! ```text
//! header, 28 bytes:   magic "WLOG\0\0\0\x01" | attempt [u8; 16] | crc32 of the 24 bytes before
//! frame:              times | data           (as many as the index says, without a gap)
//!   times:            for each record a varint of its length and a zigzag varint of its time in ms less the one before
//!                     (less 0 for the frame's first)
//!   data:             the log's bytes: one zstd frame, or plain where that is hardly longer
//! index, 40 a frame:  plain offset u64 | file offset u64 | times bytes u32 | data bytes u32 | plain bytes u32
//!                     | records u32 | encoding u32 (0 plain, 1 zstd) | crc32 of times and data
//! why:                what it lacks, UTF-8, nothing if it is complete
//! footer, 84 bytes:   index offset u64 | frames u32 | why bytes u32 | plain bytes u64 | BLAKE3 of the log [u8; 32]
//!                     | attempt [u8; 16] | crc32 of index, why and the 72 bytes before | magic "WLOGEND\x01"
//! ```
//!
//! Invariants: every byte of the file belongs to exactly one of these parts; frames are in order and without a gap, in
//! the log as in the file; a frame holds at least one record and at most [`LOG_FRAME_RECORDS_MAX`], and at most
//! [`FRAME_PLAIN_MAX_BYTES`]. The file is written under another name, synced, and only then given its name: a file with
//! this name is whole, or its disk is damaged.

use std::path::PathBuf;

use bytes::Bytes;
use windlass_cache::VfsFile;
use windlass_protocol::limits::{DETAIL_MAX_BYTES, LOG_CHUNK_MAX_BYTES, LOG_FRAME_RECORDS_MAX, LOG_FRAMES_MAX};
use windlass_protocol::{AttemptId, Digest, WallMs};

use crate::error::Fault;
use crate::log::Piece;
use crate::record::{u32_at, u64_at};

/// The first bytes of a sealed log; the last one is the format's version.
pub const SEALED_MAGIC: [u8; 8] = *b"WLOG\0\0\0\x01";
/// The last bytes of a sealed log.
pub const END_MAGIC: [u8; 8] = *b"WLOGEND\x01";
/// Bytes before the first frame.
pub const SEALED_HEADER_BYTES: usize = 28;
/// Bytes of the index for each frame.
pub const INDEX_ENTRY_BYTES: usize = 40;
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 84;
/// Plain bytes of one frame: what is gathered stays below a frame's target until one more piece comes.
pub const FRAME_PLAIN_MAX_BYTES: usize = 2 << 20;
/// Bytes of a frame's times: two varints a record, of at most 3 and 10 bytes.
const TIMES_MAX_BYTES: usize = LOG_FRAME_RECORDS_MAX * 13;
/// zstd's worst case for a full frame, roughly: 1/256 more and a little.
const DATA_MAX_BYTES: usize = FRAME_PLAIN_MAX_BYTES + FRAME_PLAIN_MAX_BYTES / 128 + 1024;
/// The fastest level: what is won by more is little for text, and two cores have other work.
const ZSTD_LEVEL: i32 = 1;

const _: () = assert!(LOG_CHUNK_MAX_BYTES < 1 << 21, "a record's length fits in three bytes of a varint");

/// One frame, as the index tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) plain_offset: u64,
    file_offset: u64,
    times_bytes: u32,
    data_bytes: u32,
    pub(crate) plain_bytes: u32,
    records: u32,
    compressed: bool,
    crc: u32,
}

impl Frame {
    pub(crate) fn plain_end(&self) -> u64 {
        self.plain_offset + u64::from(self.plain_bytes)
    }

    fn file_end(&self) -> u64 {
        self.file_offset + u64::from(self.times_bytes) + u64::from(self.data_bytes)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.plain_offset.to_le_bytes());
        out.extend_from_slice(&self.file_offset.to_le_bytes());
        let encoding = u32::from(self.compressed);
        for n in [self.times_bytes, self.data_bytes, self.plain_bytes, self.records, encoding, self.crc] {
            out.extend_from_slice(&n.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let compressed = match u32_at(bytes, 32) {
            0 => false,
            1 => true,
            _ => return None,
        };
        let frame = Self {
            plain_offset: u64_at(bytes, 0),
            file_offset: u64_at(bytes, 8),
            times_bytes: u32_at(bytes, 16),
            data_bytes: u32_at(bytes, 20),
            plain_bytes: u32_at(bytes, 24),
            records: u32_at(bytes, 28),
            compressed,
            crc: u32_at(bytes, 36),
        };
        let within = |n: u32, max: usize| n > 0 && usize::try_from(n).is_ok_and(|n| n <= max);
        let sane = within(frame.times_bytes, TIMES_MAX_BYTES)
            && within(frame.data_bytes, DATA_MAX_BYTES)
            && within(frame.plain_bytes, FRAME_PLAIN_MAX_BYTES)
            && within(frame.records, LOG_FRAME_RECORDS_MAX)
            && frame.records <= frame.plain_bytes
            && (compressed || frame.data_bytes == frame.plain_bytes);
        sane.then_some(frame)
    }
}

fn usize_of(n: impl TryInto<usize>) -> usize {
    n.try_into().unwrap_or(usize::MAX)
}

fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Appends an unsigned LEB128 number.
fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    loop {
        let low = u8::try_from(n & 0x7F).unwrap_or_default();
        n >>= 7;
        if n == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Takes an unsigned LEB128 number in its shortest form off the front.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7F);
        if shift == 63 && low > 1 || shift > 0 && byte == 0 {
            return None;
        }
        n |= low << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// Zigzag over wrapping differences: every step from one time to another has exactly one form.
const fn zigzag(from: u64, to: u64) -> u64 {
    let step = to.wrapping_sub(from);
    (step << 1) ^ (0_u64.wrapping_sub(step >> 63))
}

const fn unzigzag(from: u64, step: u64) -> u64 {
    from.wrapping_add((step >> 1) ^ (0_u64.wrapping_sub(step & 1)))
}

/// Gathers pieces into frames and writes a sealed log, front to back; the caller syncs and names the file.
#[derive(Debug)]
pub(crate) struct SealedWriter<'a> {
    file: &'a dyn VfsFile,
    attempt: AttemptId,
    frame_bytes: usize,
    position: u64,
    plain: Vec<u8>,
    times: Vec<u8>,
    records: usize,
    last_at: u64,
    plain_offset: u64,
    frames: Vec<Frame>,
    hasher: blake3::Hasher,
}

impl<'a> SealedWriter<'a> {
    pub(crate) fn new(file: &'a dyn VfsFile, attempt: AttemptId, frame_bytes: usize) -> std::io::Result<Self> {
        let mut header = Vec::with_capacity(SEALED_HEADER_BYTES);
        header.extend_from_slice(&SEALED_MAGIC);
        header.extend_from_slice(attempt.as_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        file.write_at(0, &header)?;
        Ok(Self {
            file,
            attempt,
            frame_bytes,
            position: header.len() as u64,
            plain: Vec::new(),
            times: Vec::new(),
            records: 0,
            last_at: 0,
            plain_offset: 0,
            frames: Vec::new(),
            hasher: blake3::Hasher::new(),
        })
    }

    /// Adds the log's next bytes.
    pub(crate) fn push(&mut self, piece: &Piece) -> std::io::Result<()> {
        self.hasher.update(&piece.bytes);
        for part in piece.bytes.chunks(LOG_CHUNK_MAX_BYTES) {
            put_varint(&mut self.times, part.len() as u64);
            put_varint(&mut self.times, zigzag(self.last_at, piece.at.0));
            self.last_at = piece.at.0;
            self.plain.extend_from_slice(part);
            self.records += 1;
            if self.plain.len() >= self.frame_bytes || self.records == LOG_FRAME_RECORDS_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let packed = zstd::bulk::compress(&self.plain, ZSTD_LEVEL)?;
        // It pays where an eighth is saved; else every reader would decompress for nothing.
        let compressed = packed.len() < self.plain.len() - self.plain.len() / 8;
        let data = if compressed { &packed } else { &self.plain };
        let mut stored = std::mem::take(&mut self.times);
        let times_bytes = stored.len();
        stored.extend_from_slice(data);
        self.file.write_at(self.position, &stored)?;
        self.frames.push(Frame {
            plain_offset: self.plain_offset,
            file_offset: self.position,
            times_bytes: u32_of(times_bytes),
            data_bytes: u32_of(data.len()),
            plain_bytes: u32_of(self.plain.len()),
            records: u32_of(self.records),
            compressed,
            crc: crc32fast::hash(&stored),
        });
        self.position += stored.len() as u64;
        self.plain_offset += self.plain.len() as u64;
        self.plain.clear();
        (self.records, self.last_at) = (0, 0);
        Ok(())
    }

    /// Writes what is left, index and footer; gives the log's length and digest.
    pub(crate) fn finish(mut self, why: Option<&str>) -> std::io::Result<(u64, Digest)> {
        self.flush()?;
        let why = cut(why.unwrap_or_default(), DETAIL_MAX_BYTES);
        let digest = Digest::from_hasher(&self.hasher);
        let mut tail = Vec::with_capacity(self.frames.len() * INDEX_ENTRY_BYTES + why.len() + FOOTER_BYTES);
        for frame in &self.frames {
            frame.encode(&mut tail);
        }
        tail.extend_from_slice(why.as_bytes());
        tail.extend_from_slice(&self.position.to_le_bytes());
        tail.extend_from_slice(&u32_of(self.frames.len()).to_le_bytes());
        tail.extend_from_slice(&u32_of(why.len()).to_le_bytes());
        tail.extend_from_slice(&self.plain_offset.to_le_bytes());
        tail.extend_from_slice(digest.as_bytes());
        tail.extend_from_slice(self.attempt.as_bytes());
        tail.extend_from_slice(&crc32fast::hash(&tail).to_le_bytes());
        tail.extend_from_slice(&END_MAGIC);
        self.file.write_at(self.position, &tail)?;
        Ok((self.plain_offset, digest))
    }
}

/// The longest part of a text that fits and ends between characters.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// A sealed log that is open for reading: its index is in memory, its frames are not.
#[derive(Debug)]
pub(crate) struct SealedFile {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    frames: Vec<Frame>,
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
    pub(crate) incomplete: Option<String>,
}

impl SealedFile {
    /// Reads footer, index and header, and believes nothing that does not fit together.
    pub(crate) fn open(file: Box<dyn VfsFile>, path: PathBuf, attempt: AttemptId) -> Result<Self, Fault> {
        let damaged = |position: u64, what: &'static str| Fault::Damaged { path: path.clone(), position, what };
        let file_bytes = file.len().map_err(Fault::disk("measure", &path))?;
        let least = (SEALED_HEADER_BYTES + FOOTER_BYTES) as u64;
        if file_bytes < least {
            return Err(damaged(file_bytes, "it ends before its footer"));
        }
        let footer_at = file_bytes - FOOTER_BYTES as u64;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(footer_at, &mut footer).map_err(Fault::disk("read", &path))?;
        let mut header = [0; SEALED_HEADER_BYTES];
        file.read_exact_at(0, &mut header).map_err(Fault::disk("read", &path))?;
        if header[..8] != SEALED_MAGIC || u32_at(&header, 24) != crc32fast::hash(&header[..24]) {
            return Err(damaged(0, "its header is not that of a sealed log of this version"));
        }
        if footer[76..] != END_MAGIC || header[8..24] != footer[56..72] || &header[8..24] != attempt.as_bytes() {
            return Err(damaged(footer_at, "its footer is not that of this sealed log"));
        }
        let (index_at, frame_count, why_bytes) = (u64_at(&footer, 0), u32_at(&footer, 8), u32_at(&footer, 12));
        let (frame_count, why_bytes) = (usize_of(frame_count), usize_of(why_bytes));
        if frame_count > LOG_FRAMES_MAX || why_bytes > DETAIL_MAX_BYTES {
            return Err(damaged(footer_at, "its footer is out of bounds"));
        }
        let tail_bytes = frame_count * INDEX_ENTRY_BYTES + why_bytes;
        if index_at.checked_add(tail_bytes as u64) != Some(footer_at) {
            return Err(damaged(footer_at, "its footer does not agree with its length"));
        }
        let mut tail = vec![0; tail_bytes];
        file.read_exact_at(index_at, &mut tail).map_err(Fault::disk("read", &path))?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&tail);
        crc.update(&footer[..72]);
        if crc.finalize() != u32_at(&footer, 72) {
            return Err(damaged(index_at, "its index is not what was written"));
        }
        let bytes = u64_at(&footer, 16);
        let (index, why) = tail.split_at(frame_count * INDEX_ENTRY_BYTES);
        let frames = parse_index(index, index_at, bytes).ok_or_else(|| damaged(index_at, "its index is wrong"))?;
        let why = std::str::from_utf8(why).map_err(|_| damaged(index_at, "its text is not UTF-8"))?;
        let incomplete = (!why.is_empty()).then(|| why.to_owned());
        let mut digest = [0; 32];
        digest.copy_from_slice(&footer[24..56]);
        Ok(Self { file, path, frames, bytes, digest: Digest::from_bytes(digest), incomplete })
    }

    /// The pieces of the frame that holds the byte at `offset`, whole.
    pub(crate) fn frame_at(&self, offset: u64) -> Result<Vec<Piece>, Fault> {
        let index = self.frames.partition_point(|frame| frame.plain_end() <= offset);
        match self.frames.get(index) {
            Some(frame) => self.read_frame(frame),
            None => Ok(Vec::new()),
        }
    }

    fn read_frame(&self, frame: &Frame) -> Result<Vec<Piece>, Fault> {
        let damaged = |what| Fault::Damaged { path: self.path.clone(), position: frame.file_offset, what };
        let mut stored = vec![0; usize_of(frame.file_end() - frame.file_offset)];
        self.file.read_exact_at(frame.file_offset, &mut stored).map_err(Fault::disk("read", &self.path))?;
        if crc32fast::hash(&stored) != frame.crc {
            return Err(damaged("a frame is not what was written"));
        }
        let data = stored.split_off(usize_of(frame.times_bytes));
        let plain_bytes = usize_of(frame.plain_bytes);
        let plain = if frame.compressed {
            zstd::bulk::decompress(&data, plain_bytes).map_err(|_| damaged("a frame does not decompress"))?
        } else {
            data
        };
        if plain.len() != plain_bytes {
            return Err(damaged("a frame decompresses to another length"));
        }
        pieces(&stored, Bytes::from(plain), frame).ok_or_else(|| damaged("a frame's times are wrong"))
    }

    /// Reads all of it and compares it with its digest.
    pub(crate) fn verify(&self) -> Result<(), Fault> {
        let mut hasher = blake3::Hasher::new();
        for frame in &self.frames {
            for piece in self.read_frame(frame)? {
                hasher.update(&piece.bytes);
            }
        }
        if Digest::from_hasher(&hasher) == self.digest {
            Ok(())
        } else {
            Err(Fault::Damaged { path: self.path.clone(), position: 0, what: "its bytes do not have its digest" })
        }
    }
}

/// Decodes a whole sealed log from memory, strictly: for tests, tools and fuzzing.
///
/// # Errors
/// [`Fault::Damaged`] for whatever no [`LogStore`](crate::LogStore) would have written.
pub fn decode(bytes: &[u8]) -> Result<Vec<Piece>, Fault> {
    let mut attempt = [0; 16];
    if let Some(stored) = bytes.get(8..24) {
        attempt.copy_from_slice(stored);
    }
    let file = Box::new(InMemory(bytes.to_vec()));
    let sealed = SealedFile::open(file, PathBuf::from("memory"), AttemptId::from_bytes(attempt))?;
    let mut pieces = Vec::new();
    for frame in &sealed.frames {
        pieces.extend(sealed.read_frame(frame)?);
    }
    sealed.verify()?;
    Ok(pieces)
}

/// Bytes in memory, as a file that can only be read.
#[derive(Debug)]
struct InMemory(Vec<u8>);

impl VfsFile for InMemory {
    fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.0.get(usize_of(offset)..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn truncate(&self, _: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }

    fn punch(&self, _: u64, _: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }
}

fn parse_index(index: &[u8], index_at: u64, bytes: u64) -> Option<Vec<Frame>> {
    let mut frames = Vec::with_capacity(index.len() / INDEX_ENTRY_BYTES);
    let (mut plain_offset, mut file_offset) = (0, SEALED_HEADER_BYTES as u64);
    for entry in index.chunks_exact(INDEX_ENTRY_BYTES) {
        let frame = Frame::decode(entry)?;
        if (frame.plain_offset, frame.file_offset) != (plain_offset, file_offset) {
            return None;
        }
        (plain_offset, file_offset) = (frame.plain_end(), frame.file_end());
        frames.push(frame);
    }
    ((plain_offset, file_offset) == (bytes, index_at)).then_some(frames)
}

fn pieces(mut times: &[u8], mut plain: Bytes, frame: &Frame) -> Option<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(usize_of(frame.records));
    let (mut offset, mut at) = (frame.plain_offset, 0);
    for _ in 0..frame.records {
        let len = take_varint(&mut times)?;
        at = unzigzag(at, take_varint(&mut times)?);
        if len == 0 || len > plain.len() as u64 {
            return None;
        }
        pieces.push(Piece { offset, at: WallMs(at), bytes: plain.split_to(usize_of(len)) });
        offset += len;
    }
    (times.is_empty() && plain.is_empty()).then_some(pieces)
}
