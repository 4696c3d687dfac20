//! The writing end of a spool.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use windlass_protocol::digest::Digest;
use windlass_protocol::limits::{LOG_CHUNK_MAX_BYTES, SPOOL_MAX_BYTES, SPOOL_SEGMENT_BYTES};
use windlass_protocol::time::WallMs;

use super::{HEADER_BYTES, Header, segment_path};

/// Appends records; there is one writer for one spool.
#[derive(Debug)]
pub struct SpoolWriter {
    dir: PathBuf,
    /// The last segment; none before the first byte.
    file: Option<File>,
    /// Bytes of whole records in the last segment; what an interrupted write left behind them is written over.
    file_bytes: u64,
    /// Starts of the segments that still exist, the last one being written.
    starts: VecDeque<u64>,
    offset: u64,
    acked: u64,
    hasher: blake3::Hasher,
    record: Vec<u8>,
}

impl SpoolWriter {
    /// An empty spool in `dir`, which is made with the first byte: many jobs write none.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            file: None,
            file_bytes: 0,
            starts: VecDeque::new(),
            offset: 0,
            acked: 0,
            hasher: blake3::Hasher::new(),
            record: Vec::new(),
        }
    }

    /// Appends at most [`LOG_CHUNK_MAX_BYTES`] of `bytes` as one record and says how many. After an error nothing of
    /// them is part of the log, and the same bytes can be tried again.
    ///
    /// # Errors
    /// Those of the file system; a full disk is one.
    pub fn append(&mut self, at: WallMs, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(LOG_CHUNK_MAX_BYTES)];
        if bytes.is_empty() {
            return Ok(0);
        }
        let file = match self.file.take().filter(|_| self.file_bytes < SPOOL_SEGMENT_BYTES) {
            Some(file) => file,
            None => self.begin_segment()?,
        };
        let file = self.file.insert(file);
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.record.clear();
        self.record.extend_from_slice(&Header::of(self.offset, at, length, bytes).to_bytes());
        self.record.extend_from_slice(bytes);
        file.write_all_at(&self.record, self.file_bytes)?;
        self.file_bytes += (HEADER_BYTES + bytes.len()) as u64;
        self.offset += u64::from(length);
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    /// Everything below `offset` is durable elsewhere: segments that lie below it are removed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn acked(&mut self, offset: u64) -> io::Result<()> {
        self.acked = self.acked.max(offset.min(self.offset));
        self.drop_acked()
    }

    fn begin_segment(&mut self) -> io::Result<File> {
        match fs::create_dir(&self.dir) {
            // From a try that failed half-way, or an earlier segment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        self.drop_acked()?;
        let file = new_segment(&self.dir, self.offset)?;
        self.file_bytes = 0;
        self.starts.push_back(self.offset);
        Ok(file)
    }

    fn drop_acked(&mut self) -> io::Result<()> {
        while self.starts.get(1).is_some_and(|next| *next <= self.acked) {
            if let Some(start) = self.starts.pop_front() {
                fs::remove_file(segment_path(&self.dir, start))?;
            }
        }
        Ok(())
    }

    /// Whether more may be read from the job.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.offset - self.acked < SPOOL_MAX_BYTES
    }

    /// The log's length so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.offset
    }

    /// The digest of the log so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_hasher(&self.hasher)
    }
}

fn new_segment(dir: &Path, start: u64) -> io::Result<File> {
    // Truncating matters: a segment of this name may stand there from a try that failed half-way.
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(segment_path(dir, start))
}
