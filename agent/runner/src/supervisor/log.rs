//! A job's output on its way to the spool: masked, cut at its limit, and kept while the disk is full.

use std::path::Path;

use windlass_protocol::digest::Digest;
use windlass_protocol::limits::MASK_STEP_STATES;
use windlass_protocol::time::WallMs;

use crate::mask::{MaskError, Masker};
use crate::spool::SpoolWriter;

/// The one writer of an attempt's log.
#[derive(Debug)]
pub(crate) struct Log {
    masker: Masker,
    spool: SpoolWriter,
    limit_bytes: u64,
    truncated: bool,
    /// Masked and not yet in the spool: not empty only while the disk refuses.
    pending: Vec<u8>,
    at: WallMs,
}

impl Log {
    pub(crate) fn new(dir: &Path, masker: Masker, limit_bytes: u64) -> Self {
        let spool = SpoolWriter::new(dir);
        Self { masker, spool, limit_bytes, truncated: false, pending: Vec::new(), at: WallMs(0) }
    }

    /// Whether more may be read: the spool has room and the disk takes it.
    pub(crate) fn has_room(&self) -> bool {
        self.pending.is_empty() && (self.truncated || self.spool.has_room())
    }

    /// Whether the disk refused and [`Self::retry`] has to be called.
    pub(crate) fn is_stuck(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes what was read from the job at `at`.
    pub(crate) fn push(&mut self, at: WallMs, bytes: &[u8]) {
        if self.truncated {
            return;
        }
        self.at = at;
        self.masker.push(bytes, &mut self.pending);
        self.cut();
        self.retry();
    }

    /// Takes the last held-back bytes: the stream has ended.
    pub(crate) fn finish(&mut self) {
        if !self.truncated {
            self.masker.finish(&mut self.pending);
            self.cut();
        }
        self.retry();
    }

    fn cut(&mut self) {
        let room = self.limit_bytes.saturating_sub(self.spool.bytes());
        if self.pending.len() as u64 <= room {
            return;
        }
        // It fits: it is less than the length of what is in memory.
        self.pending.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        let mark = format!("\n[windlass: log cut at {} bytes: limit reached]\n", self.limit_bytes);
        self.pending.extend_from_slice(mark.as_bytes());
        self.truncated = true;
    }

    /// Writes what is pending; says whether all of it is in the spool.
    pub(crate) fn retry(&mut self) -> bool {
        let mut written = 0;
        while written < self.pending.len() {
            match self.spool.append(self.at, &self.pending[written..]) {
                Ok(count) => written += count,
                // The bytes stay and nothing more is read from the job: it waits, as it would for a full pipe.
                Err(_) => break,
            }
        }
        self.pending.drain(..written);
        self.pending.is_empty()
    }

    /// Masks `value` in all that is pushed from now on.
    pub(crate) fn redact(&mut self, value: &str) -> Result<bool, MaskError> {
        self.masker.add(value.as_bytes())
    }

    /// Masks `value` in all that is pushed once [`Self::masks`] is what is answered here.
    pub(crate) fn mask(&mut self, value: &str) -> Result<usize, MaskError> {
        self.masker.take(value.as_bytes())
    }

    /// How many of the forms of the values that were taken are masked.
    pub(crate) fn masks(&self) -> usize {
        self.masker.ready()
    }

    /// Whether something that was taken is not masked yet.
    pub(crate) fn is_building(&self) -> bool {
        self.masker.is_building()
    }

    /// Takes one step towards masking it.
    pub(crate) fn build(&mut self) {
        self.masker.go_on(MASK_STEP_STATES);
    }

    pub(crate) fn acked(&mut self, offset: u64) {
        // A segment that cannot be removed now is tried again with the next acknowledgement.
        drop(self.spool.acked(offset));
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.spool.bytes()
    }

    pub(crate) fn digest(&self) -> Digest {
        self.spool.digest()
    }

    pub(crate) fn truncated(&self) -> bool {
        self.truncated || !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SpoolReader;

    #[test]
    fn a_log_past_its_limit_is_cut_exactly_there_and_ends_with_one_mark() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        let mut log = Log::new(&spool, Masker::new(["secret-value"]).unwrap(), 20);
        for piece in ["0123456789", "secret-", "valueXYZ", "more", "and more"] {
            log.push(WallMs(1), piece.as_bytes());
        }
        log.finish();
        let expected = b"0123456789[REDACTED]\n[windlass: log cut at 20 bytes: limit reached]\n";
        let (mut all, mut reader) = (Vec::new(), SpoolReader::open(&spool));
        while let Some(chunk) = reader.next(all.len() as u64, 1_000).unwrap() {
            all.extend_from_slice(&chunk.bytes);
        }
        assert_eq!(all, expected);
        assert!(log.truncated());
        assert_eq!((log.bytes(), log.digest()), (expected.len() as u64, Digest::of(expected)));
    }

    #[test]
    fn a_log_that_ends_exactly_at_its_limit_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::new(&dir.path().join("spool"), Masker::new([""; 0]).unwrap(), 10);
        log.push(WallMs(1), b"0123456789");
        log.finish();
        assert!(!log.truncated());
        assert_eq!(log.bytes(), 10);
    }
}
