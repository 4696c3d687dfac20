//! The reading end of a spool, in another process than the writer's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use windlass_protocol::limits::LOG_CHUNK_MAX_BYTES;
use windlass_protocol::time::WallMs;

use super::{HEADER_BYTES, Header, segment_path, segments};

/// A piece of a log, as it was read from the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Of its first byte, in the log.
    pub offset: u64,
    /// When its bytes were read from the job.
    pub at: WallMs,
    /// Masked; at least one.
    pub bytes: Vec<u8>,
}

/// Reads forward; jumping to any offset that is still kept is possible and costs a scan of one segment.
#[derive(Debug)]
pub struct SpoolReader {
    dir: PathBuf,
    segment: Option<Segment>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    start: u64,
    file: File,
    /// Where the buffer's first byte stands in the file.
    buffer_at: u64,
    /// Bytes of the buffer that are parsed.
    parsed: usize,
    /// Log offset of the next record.
    next: u64,
}

/// Room for one record of the largest size.
const BUFFER_BYTES: usize = HEADER_BYTES + LOG_CHUNK_MAX_BYTES;

impl SpoolReader {
    /// A reader of the spool in `dir`, which may still be empty.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), segment: None, buffer: Vec::new() }
    }

    /// The first offset that is still kept.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn first(&self) -> io::Result<u64> {
        match segments(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            other => Ok(other?.first().copied().unwrap_or(0)),
        }
    }

    /// The next bytes from `from` on, at most `max_bytes` and of one record, or `None` if none are there yet.
    ///
    /// # Errors
    /// Those of the file system; `NotFound` where the bytes were acknowledged and are gone.
    pub fn next(&mut self, from: u64, max_bytes: usize) -> io::Result<Option<Chunk>> {
        if self.segment.as_ref().is_none_or(|segment| segment.next > from) {
            self.seek(from)?;
        }
        loop {
            let Some(header) = self.peek()? else {
                if self.advance_segment()? {
                    continue;
                }
                return Ok(None);
            };
            let length = header.length as usize;
            let end = header.offset + u64::from(header.length);
            if end <= from {
                self.skip(length, end);
                continue;
            }
            let within = usize::try_from(from - header.offset).map_err(io::Error::other)?;
            let take = (length - within).min(max_bytes.max(1));
            let Some(segment) = &self.segment else { return Ok(None) };
            let begin = segment.parsed + HEADER_BYTES + within;
            let bytes = self.buffer[begin..begin + take].to_vec();
            if within + take == length {
                self.skip(length, end);
            }
            return Ok(Some(Chunk { offset: from, at: header.at, bytes }));
        }
    }

    fn skip(&mut self, length: usize, end: u64) {
        if let Some(segment) = &mut self.segment {
            segment.parsed += HEADER_BYTES + length;
            segment.next = end;
        }
    }

    fn seek(&mut self, from: u64) -> io::Result<()> {
        self.segment = None;
        let starts = match segments(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let Some(first) = starts.first() else { return Ok(()) };
        let Some(start) = starts.iter().rev().find(|start| **start <= from) else {
            let gone = format!("log bytes from {from} are no longer kept, the first kept one is {first}");
            return Err(io::Error::new(io::ErrorKind::NotFound, gone));
        };
        self.enter(*start)
    }

    fn enter(&mut self, start: u64) -> io::Result<()> {
        let file = File::open(segment_path(&self.dir, start))?;
        self.buffer.clear();
        self.segment = Some(Segment { start, file, buffer_at: 0, parsed: 0, next: start });
        Ok(())
    }

    /// Enters the segment that begins where this one ended, if there is one.
    fn advance_segment(&mut self) -> io::Result<bool> {
        let Some((start, next)) = self.segment.as_ref().map(|segment| (segment.start, segment.next)) else {
            return Ok(false);
        };
        if next == start || !segment_path(&self.dir, next).exists() {
            return Ok(false);
        }
        self.enter(next)?;
        Ok(true)
    }

    /// The header of the next whole record.
    fn peek(&mut self) -> io::Result<Option<Header>> {
        for refilled in [false, true] {
            let Some(segment) = &self.segment else { return Ok(None) };
            let rest = &self.buffer[segment.parsed..];
            if let Some(header) = Header::parse(rest) {
                let whole = HEADER_BYTES.saturating_add(header.length as usize);
                if let Some(bytes) = rest.get(HEADER_BYTES..whole)
                    && header.offset == segment.next
                    && header.length > 0
                    && header.checksum(bytes) == header.crc
                {
                    return Ok(Some(header));
                }
            }
            if refilled || !self.refill()? {
                break;
            }
        }
        Ok(None)
    }

    /// Reads again from the first byte that is not parsed: a record that was torn may be whole by now.
    fn refill(&mut self) -> io::Result<bool> {
        let Some(segment) = &mut self.segment else { return Ok(false) };
        segment.buffer_at += segment.parsed as u64;
        segment.parsed = 0;
        self.buffer.resize(BUFFER_BYTES, 0);
        let mut filled = 0;
        while filled < BUFFER_BYTES {
            match segment.file.read_at(&mut self.buffer[filled..], segment.buffer_at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.buffer.truncate(filled);
        Ok(filled >= HEADER_BYTES)
    }
}
