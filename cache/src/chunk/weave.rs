//! How the chunks of an archive make it: three strings (module `tar`) that are cut apart, and how many bytes of which come next.
//!
//! ```text
//! chunks of heads u32 | chunks of times u32 | for each run, until the archive is whole: its length times 4, plus its lane
//! ```
//! The chunks of files are all others. A run is a number of seven bits a byte, the lowest first, the eighth bit set in all but the
//! last; in as few bytes as it has. No run is empty, none goes on with the lane of the one before it, and there are two at least.

use windlass_protocol::limits::{ARCHIVE_MAX_RUNS, BLOB_MAX_BYTES};

use super::manifest::Chunk;
use super::tar::Lane;

/// How an archive is put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Weave {
    /// How many chunks are of heads, and of times.
    counts: [u32; 2],
    /// Where times and files begin, when all chunks are laid one behind the other.
    starts: [u64; 2],
    runs: Vec<Run>,
}

/// Bytes of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Where they end in the archive.
    end: u64,
    /// Where they begin among the chunks; it says which lane it is.
    laid: u64,
}

/// The runs of an archive that is coming.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Runs {
    runs: Vec<(Lane, u64)>,
}

impl Runs {
    /// So many more bytes of a lane came.
    pub(crate) fn add(&mut self, lane: Lane, bytes: u64) {
        match self.runs.last_mut() {
            _ if bytes == 0 => {}
            Some((last, sum)) if *last == lane => *sum += bytes,
            Some(_) | None => self.runs.push((lane, bytes)),
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.runs.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Lane, u64)> {
        self.runs.iter().copied()
    }

    /// How an archive is put together whose chunks these are, those of heads first; nothing where all bytes are of one lane.
    pub(crate) fn weave(&self, counts: [usize; 2], chunks: &[Chunk]) -> Option<Weave> {
        if self.runs.len() < 2 {
            return None;
        }
        Weave::new(counts, chunks, self.iter())
    }

    /// What stands in place of some runs.
    pub(crate) fn encode(runs: impl Iterator<Item = (Lane, u64)>) -> Vec<u8> {
        let mut out = Vec::new();
        for (lane, bytes) in runs {
            push_number(&mut out, bytes << 2 | lane as u64);
        }
        out
    }

    /// The runs that stand there; nothing where something else does, or more than there may be.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<(Lane, u64)>> {
        let mut runs = Vec::new();
        while !bytes.is_empty() {
            let (number, rest) = take_number(bytes)?;
            let (lane, length) = (*Lane::ALL.get(usize::try_from(number & 3).ok()?)?, number >> 2);
            if length == 0 || length > BLOB_MAX_BYTES || runs.len() == ARCHIVE_MAX_RUNS {
                return None;
            }
            runs.push((lane, length));
            bytes = rest;
        }
        Some(runs)
    }
}

impl Weave {
    fn new(counts: [usize; 2], chunks: &[Chunk], runs: impl Iterator<Item = (Lane, u64)>) -> Option<Self> {
        let heads = counts[0];
        let until = heads.checked_add(counts[1]).filter(|until| *until <= chunks.len())?;
        let end_of = |count: usize| count.checked_sub(1).and_then(|last| chunks.get(last)).map_or(0, |chunk| chunk.end);
        let ends = [end_of(heads), end_of(until), end_of(chunks.len())];
        let mut laid = [0, ends[0], ends[1]];
        let (mut end, mut before, mut placed) = (0, None, Vec::new());
        for (lane, bytes) in runs {
            let at = laid.get_mut(lane as usize)?;
            let of_another = before.replace(lane) != Some(lane);
            placed.push(Run { end: end + bytes, laid: *at });
            (*at, end) = (*at + bytes, end + bytes);
            if !of_another || *at > *ends.get(lane as usize)? {
                return None;
            }
        }
        let count = |count: usize| u32::try_from(count).ok();
        let counts = [count(heads)?, count(counts[1])?];
        (laid == ends && placed.len() > 1).then_some(Self { counts, starts: [ends[0], ends[1]], runs: placed })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + 2 * self.runs.len());
        for count in self.counts {
            out.extend_from_slice(&count.to_le_bytes());
        }
        let mut start = 0;
        let runs = self.runs.iter().map(|run| {
            let bytes = run.end - start;
            start = run.end;
            (self.lane(run.laid), bytes)
        });
        out.extend_from_slice(&Runs::encode(runs));
        out
    }

    /// The one that stands there, of these chunks; nothing where something else does.
    pub(crate) fn decode(bytes: &[u8], chunks: &[Chunk]) -> Option<Self> {
        let (heads, rest) = bytes.split_first_chunk::<4>()?;
        let (times, rest) = rest.split_first_chunk::<4>()?;
        let counts = [u32::from_le_bytes(*heads) as usize, u32::from_le_bytes(*times) as usize];
        Self::new(counts, chunks, Runs::decode(rest)?.into_iter())
    }

    /// Of the byte at `offset` of the archive: its lane, where it lies among the chunks, and how many bytes go on there.
    pub(crate) fn find(&self, offset: u64) -> Option<(Lane, u64, u64)> {
        let nth = self.runs.partition_point(|run| run.end <= offset);
        let run = self.runs.get(nth)?;
        let start = nth.checked_sub(1).and_then(|before| self.runs.get(before)).map_or(0, |run| run.end);
        Some((self.lane(run.laid), run.laid + (offset - start), run.end - offset))
    }

    /// Where the chunks of each lane begin among all.
    pub(crate) const fn lane_starts(&self) -> [usize; 3] {
        let [heads, times] = self.counts;
        [0, heads as usize, heads as usize + times as usize]
    }

    /// No run is empty, so each begins before its lane ends.
    const fn lane(&self, laid: u64) -> Lane {
        let [times, files] = self.starts;
        if laid >= files {
            Lane::Files
        } else if laid >= times {
            Lane::Times
        } else {
            Lane::Heads
        }
    }
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let low = |number: u64| u8::try_from(number & 0x7F).unwrap_or_default();
    while number > 0x7F {
        out.push(low(number) | 0x80);
        number >>= 7;
    }
    out.push(low(number));
}

/// A number, and what follows it; nothing where it is longer than it has to be, or than a number is.
fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (nth, byte) in bytes.iter().take(6).enumerate() {
        number |= u64::from(byte & 0x7F) << (7 * nth);
        if byte & 0x80 == 0 {
            let shortest = nth == 0 || *byte != 0;
            return shortest.then(|| Some((number, bytes.get(nth + 1..)?)))?;
        }
    }
    None
}
