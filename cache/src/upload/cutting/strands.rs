//! What of a large blob is not cut yet: one string of it, or of an archive three, each cut by itself.
//!
//! Where a string is cut depends on its bytes alone, however they came: an upload that goes on in pieces has the chunks of one
//! that came at once.

use windlass_protocol::Digest;
use windlass_protocol::limits::{ARCHIVE_HEADS_PART, ARCHIVE_MAX_RUNS, ARCHIVE_MORE_CHUNKS, CHUNK_AVERAGE_BYTES};

use crate::chunk::cut::Cutter;
use crate::chunk::manifest::{Chunk, ChunkManifest};
use crate::chunk::tar::{Lane, Part, Splitter};
use crate::chunk::weave::Runs;
use crate::error::Error;

/// What one piece may add before it is looked again: a run for every 30 bytes, and chunks of no length to speak of.
const SPARE: usize = 32 << 10;

/// A chunk that was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upload) struct Cut {
    pub(in crate::upload) lane: Lane,
    pub(in crate::upload) digest: Digest,
    pub(in crate::upload) bytes: u32,
}

/// Takes chunks as they are cut off.
pub(in crate::upload) type Take<'a> = &'a mut dyn FnMut(Lane, &[u8]) -> Result<(), Error>;

/// The strings.
#[derive(Debug)]
pub(in crate::upload) struct Strands {
    splitter: Splitter,
    strands: [Strand; 3],
    runs: Runs,
    came: u64,
}

#[derive(Debug)]
struct Strand {
    cutter: Cutter,
    pending: Vec<u8>,
    /// How many of them are cut off already: they go with several at a time.
    cut: usize,
}

impl Default for Strands {
    fn default() -> Self {
        Self::new(CHUNK_AVERAGE_BYTES)
    }
}

impl Strands {
    /// Those of a blob whose chunks are so long on average.
    pub(in crate::upload) fn new(chunk_bytes: usize) -> Self {
        let strand = |lane| {
            let average = if lane == Lane::Files { chunk_bytes } else { chunk_bytes / ARCHIVE_HEADS_PART };
            Strand { cutter: Cutter::new(average), pending: Vec::new(), cut: 0 }
        };
        Self { splitter: Splitter::default(), strands: Lane::ALL.map(strand), runs: Runs::default(), came: 0 }
    }

    /// So many bytes were cut already, and were no archive.
    pub(in crate::upload) fn go_on(&mut self, bytes: u64) {
        if bytes > 0 {
            self.splitter.give_up();
            self.runs.add(Lane::Files, bytes);
            self.came = bytes;
        }
    }

    /// How many bytes came.
    pub(in crate::upload) const fn came(&self) -> u64 {
        self.came
    }

    /// Whether bytes of several lanes came.
    pub(in crate::upload) const fn are_woven(&self) -> bool {
        self.runs.len() > 1
    }

    /// How much is to be pushed at once.
    pub(in crate::upload) const fn piece_bytes(&self) -> usize {
        self.files().cutter.max_bytes()
    }

    const fn files(&self) -> &Strand {
        let [_, _, files] = &self.strands;
        files
    }

    /// Sees that an archive has not more runs and chunks than it may, when it has `chunks`: from there on it is one file.
    pub(in crate::upload) fn allow(&mut self, chunks: usize) {
        let plain = self.came / self.files().cutter.min_bytes() as u64;
        let most = usize::try_from(plain).unwrap_or(usize::MAX).saturating_add(ARCHIVE_MORE_CHUNKS - SPARE);
        if chunks > most || self.runs.len() > ARCHIVE_MAX_RUNS - SPARE {
            self.splitter.give_up();
        }
    }

    /// Takes the next bytes, [`Self::piece_bytes`] at most; cuts off what can be.
    pub(in crate::upload) fn push(&mut self, bytes: &[u8], take: Take<'_>) -> Result<(), Error> {
        self.came += bytes.len() as u64;
        let Self { splitter, strands, runs, .. } = self;
        splitter.push(bytes, &mut |part| tell(strands, runs, part, take))
    }

    /// Cuts off all that is left.
    pub(in crate::upload) fn finish(&mut self, take: Take<'_>) -> Result<(), Error> {
        let Self { splitter, strands, runs, .. } = self;
        splitter.finish(&mut |part| tell(strands, runs, part, take))?;
        for (lane, strand) in Lane::ALL.into_iter().zip(strands) {
            strand.cut(1, lane, take)?;
        }
        Ok(())
    }

    /// The manifest of the whole, of the chunks as they were cut.
    pub(in crate::upload) fn manifest(&self, digest: Digest, mut cuts: Vec<Cut>) -> ChunkManifest {
        cuts.sort_by_key(|cut| cut.lane);
        let count = |lane| cuts.iter().filter(|cut| cut.lane == lane).count();
        let counts = [count(Lane::Heads), count(Lane::Times)];
        let mut end = 0;
        let chunk = |cut: Cut| {
            end += u64::from(cut.bytes);
            Chunk { digest: cut.digest, end }
        };
        let chunks: Vec<Chunk> = cuts.into_iter().map(chunk).collect();
        let weave = self.runs.weave(counts, &chunks);
        ChunkManifest::new(digest, chunks, weave)
    }
}

fn tell(strands: &mut [Strand; 3], runs: &mut Runs, part: Part<'_>, take: Take<'_>) -> Result<(), Error> {
    let [heads, times, files] = strands;
    let (lane, bytes) = match part {
        Part::Apart => return files.cut(1, Lane::Files, take),
        Part::Bytes(lane, bytes) => (lane, bytes),
    };
    let strand = match lane {
        Lane::Heads => heads,
        Lane::Times => times,
        Lane::Files => files,
    };
    runs.add(lane, bytes.len() as u64);
    strand.pending.extend_from_slice(bytes);
    if strand.pending.len() - strand.cut >= strand.cutter.max_bytes() {
        strand.cut(strand.cutter.max_bytes(), lane, take)?;
    }
    Ok(())
}

impl Strand {
    /// Cuts chunks off for as long as `least` bytes are there.
    fn cut(&mut self, least: usize, lane: Lane, take: Take<'_>) -> Result<(), Error> {
        while let Some(rest) = self.pending.get(self.cut..).filter(|rest| rest.len() >= least) {
            let (chunk, _) = rest.split_at(self.cutter.first(rest));
            self.cut += chunk.len();
            take(lane, chunk)?;
        }
        if self.cut >= self.cutter.max_bytes() || self.cut == self.pending.len() {
            self.pending.drain(..self.cut);
            self.cut = 0;
        }
        Ok(())
    }
}
