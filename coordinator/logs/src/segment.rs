//! A segment on the disk: its name, its file, and walking through its records.

use std::fmt;
use std::path::{Path, PathBuf};

use windlass_cache::VfsFile;

use crate::error::Fault;
use crate::record::{self, Header, Parsed, RECORD_MAX_BYTES, SEGMENT_HEADER_BYTES};

/// Bytes that a walk reads at a time.
const WALK_BYTES: usize = 1 << 20;

/// An open segment. Readers hold it, so that its bytes stay readable after its name is gone.
pub(crate) struct SegmentFile {
    pub(crate) seq: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn VfsFile>,
}

impl fmt::Debug for SegmentFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentFile({:016x})", self.seq)
    }
}

/// Where segment `seq` lies.
pub(crate) fn segment_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:016x}.wls"))
}

/// The number in a segment's name, if it is one.
pub(crate) fn segment_seq(name: &str) -> Option<u64> {
    let hex = name.strip_suffix(".wls").filter(|hex| hex.len() == 16)?;
    if hex.bytes().any(|b| b.is_ascii_uppercase() || b == b'+') {
        return None;
    }
    u64::from_str_radix(hex, 16).ok()
}

/// What a walk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Walked {
    /// The end of the last record that is whole.
    pub(crate) valid_bytes: u64,
    /// The file's length.
    pub(crate) file_bytes: u64,
    /// Records that are whole.
    pub(crate) records: u64,
    /// Records before `valid_bytes` whose payload is not what was written.
    pub(crate) bad_records: u64,
}

impl SegmentFile {
    /// Hands every whole record, with its position, to `visit`, front to back, until nothing more can be told.
    pub(crate) fn walk(&self, mut visit: impl FnMut(u64, &Header, &[u8])) -> Result<Walked, Fault> {
        let file_bytes = self.file.len().map_err(Fault::disk("measure", &self.path))?;
        let mut walked = Walked { file_bytes, ..Walked::default() };
        let mut window = Window { segment: self, base: 0, bytes: Vec::new() };
        let head = window.at(0, SEGMENT_HEADER_BYTES, file_bytes)?;
        if head.get(..SEGMENT_HEADER_BYTES) != Some(&record::segment_header(self.seq)[..]) {
            return Ok(walked);
        }
        let mut position = SEGMENT_HEADER_BYTES as u64;
        walked.valid_bytes = position;
        let mut bad_behind = 0;
        loop {
            let bytes = window.at(position, RECORD_MAX_BYTES, file_bytes)?;
            match record::parse(bytes, self.seq, position) {
                Parsed::Record(header, payload, total) => {
                    visit(position, &header, payload);
                    position += total as u64;
                    walked.valid_bytes = position;
                    walked.records += 1;
                    walked.bad_records += std::mem::take(&mut bad_behind);
                }
                Parsed::BadPayload(total) => {
                    position += total as u64;
                    bad_behind += 1;
                }
                Parsed::Bad | Parsed::Short(_) => return Ok(walked),
            }
        }
    }

    /// Fills a buffer from `position`.
    pub(crate) fn read(&self, position: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        self.file.read_exact_at(position, buffer).map_err(Fault::disk("read", &self.path))
    }
}

/// A part of a segment in memory that moves forward.
struct Window<'a> {
    segment: &'a SegmentFile,
    base: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// At least `want` bytes from `position` on, or as many as there are before `end`.
    fn at(&mut self, position: u64, want: usize, end: u64) -> Result<&[u8], Fault> {
        let skip = usize::try_from(position - self.base).unwrap_or(usize::MAX).min(self.bytes.len());
        let left = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
        if self.bytes.len() - skip < want.min(left) {
            self.bytes.drain(..skip);
            self.base = position;
            let old = self.bytes.len();
            self.bytes.resize(left.min(WALK_BYTES.max(want)), 0);
            let fresh = self.bytes.get_mut(old..).unwrap_or_default();
            self.segment.read(position + old as u64, fresh)?;
            return Ok(&self.bytes);
        }
        Ok(self.bytes.get(skip..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_would_write_are_segments() {
        assert_eq!(segment_seq("00000000000000ff.wls"), Some(255));
        assert_eq!(segment_path(Path::new("/d"), 255), Path::new("/d/00000000000000ff.wls"));
        for name in ["ff.wls", "00000000000000FF.wls", "+0000000000000ff.wls", "00000000000000ff.tmp"] {
            assert_eq!(segment_seq(name), None, "{name}");
        }
    }
}
