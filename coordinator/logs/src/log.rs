//! One log that is not sealed yet: what is accepted, what is durable, where it lies, and who may write.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{LOG_MAX_BYTES, LOG_QUEUE_PER_LOG_MAX_BYTES, LOG_RUN_SPAN_BYTES};
use windlass_protocol::{AttemptId, Digest, WallMs};

use crate::error::Refused;
use crate::segment::SegmentFile;

/// Bytes of a log that were written together. Boundaries of pieces mean nothing; offsets and times do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Of its first byte, in the log.
    pub offset: u64,
    /// When the bytes were read from the job, by the agent's clock.
    pub at: WallMs,
    /// At least one.
    pub bytes: Bytes,
}

impl Piece {
    /// The offset after its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// What of it lies within `from..to`, if anything does.
    pub(crate) fn clip(&self, from: u64, to: u64) -> Option<Self> {
        let (start, end) = (from.max(self.offset), to.min(self.end()));
        if start >= end {
            return None;
        }
        let index = |offset: u64| usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
        Some(Self { offset: start, at: self.at, bytes: self.bytes.slice(index(start)..index(end)) })
    }
}

/// A stretch of a segment that holds a stretch of a log, perhaps with records of others between.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) segment: Arc<SegmentFile>,
    /// Where its first record begins in the segment.
    pub(crate) position: u64,
    /// Bytes of the segment from there to the end of its last record.
    pub(crate) span: u64,
    /// Of its first byte, in the log.
    pub(crate) offset: u64,
    /// Bytes of the log.
    pub(crate) len: u64,
}

impl Run {
    pub(crate) const fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Takes the run that follows in the log, if it lies close behind in the segment.
    fn absorb(&mut self, next: &Self) -> bool {
        let span = (next.position + next.span).saturating_sub(self.position);
        let near = Arc::ptr_eq(&self.segment, &next.segment) && span <= LOG_RUN_SPAN_BYTES;
        if near {
            self.span = span;
            self.len += next.len;
        }
        near
    }
}

/// How a log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It may grow.
    Open,
    /// Nothing more is accepted; with the flag, that is durable and so is every byte.
    Ended { durable: bool },
    /// It is in a sealed file.
    Sealed,
    /// Its retention is over.
    Deleted,
}

/// A log that is not sealed yet.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) attempt: AttemptId,
    /// This log's share of the queue.
    pub(crate) room: Arc<Semaphore>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// What changes about a log.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// Bytes accepted.
    pub(crate) end: u64,
    /// Bytes that no crash takes back.
    pub(crate) durable: u64,
    /// The least right that may write.
    pub(crate) least: Epoch,
    /// Why it lacks something, if it does.
    pub(crate) incomplete: Option<String>,
    /// Over the durable bytes; `None` after a restart, until somebody needs it.
    pub(crate) hasher: Option<blake3::Hasher>,
    /// Of the whole log, once it has ended and is durable.
    pub(crate) digest: Option<Digest>,
    /// Where the durable bytes lie, in order, without a gap.
    pub(crate) runs: Vec<Run>,
    /// Segments that hold records of it.
    pub(crate) homes: BTreeSet<u64>,
    /// The last pieces without a gap, up to `end`: all that are not durable, and some more if somebody watches.
    pub(crate) ring: VecDeque<Piece>,
    ring_bytes: usize,
    pub(crate) watchers: usize,
}

impl Log {
    pub(crate) fn new(attempt: AttemptId) -> Self {
        let state = State {
            phase: Phase::Open,
            end: 0,
            durable: 0,
            least: Epoch(0),
            incomplete: None,
            hasher: Some(blake3::Hasher::new()),
            digest: None,
            runs: Vec::new(),
            homes: BTreeSet::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            watchers: 0,
        };
        let room = Arc::new(Semaphore::new(LOG_QUEUE_PER_LOG_MAX_BYTES as usize));
        Self { attempt, room, state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    /// Never held across anything that waits. Where the catalog is locked too, that lock was taken first.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for this log.
    pub(crate) fn announce(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Hears of every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl State {
    /// Whether nothing is known of it that anybody would miss.
    pub(crate) fn is_blank(&self) -> bool {
        self.is_untouched() && self.watchers == 0
    }

    /// Whether it has no byte and no mark, neither on the disk nor on the way there.
    fn is_untouched(&self) -> bool {
        self.phase == Phase::Open
            && self.end == 0
            && self.least == Epoch(0)
            && self.homes.is_empty()
            && self.incomplete.is_none()
    }

    /// Ends a log that has nothing for the disk; says whether it is one.
    pub(crate) fn end_untouched(&mut self) -> bool {
        let untouched = self.is_untouched();
        if untouched {
            self.phase = Phase::Ended { durable: true };
            self.digest = Some(Digest::of(b""));
        }
        untouched
    }

    /// What is new of a piece, or why it is refused. Bytes that the log has are compared as far as memory holds them.
    pub(crate) fn admit(&self, epoch: Epoch, piece: &Piece, limit_bytes: u64) -> Result<Option<Piece>, Refused> {
        if epoch < self.least {
            return Err(Refused::Fenced { least: self.least });
        }
        if piece.offset > self.end {
            return Err(Refused::Gap { expected: self.end });
        }
        let limit_bytes = limit_bytes.min(LOG_MAX_BYTES);
        if piece.offset.checked_add(piece.bytes.len() as u64).is_none_or(|end| end > limit_bytes) {
            return Err(Refused::TooLong { limit_bytes });
        }
        let differs = |known: &Piece| {
            let ours = known.clip(piece.offset, piece.end());
            ours.is_some_and(|ours| piece.clip(ours.offset, ours.end()).is_none_or(|theirs| theirs.bytes != ours.bytes))
        };
        if piece.offset < self.end && self.ring.iter().any(differs) {
            return Err(Refused::Differs { offset: piece.offset });
        }
        let fresh = piece.clip(self.end, u64::MAX);
        match self.phase {
            Phase::Open => Ok(fresh),
            Phase::Ended { .. } | Phase::Sealed if fresh.is_none() => Ok(None),
            Phase::Ended { .. } | Phase::Sealed | Phase::Deleted => Err(Refused::Ended),
        }
    }

    /// Accepts a piece that begins at the end; watchers may see it from now on.
    pub(crate) fn accept(&mut self, piece: Piece) {
        self.end = piece.end();
        self.ring_bytes += piece.bytes.len();
        self.ring.push_back(piece);
    }

    /// Takes note that the log's next bytes lie at `run`, durably.
    pub(crate) fn settle(&mut self, run: Run) {
        assert_eq!(run.offset, self.durable, "I4: a log's durable bytes have no gap");
        self.durable = run.end();
        self.end = self.end.max(self.durable);
        if !self.runs.last_mut().is_some_and(|last| last.absorb(&run)) {
            self.runs.push(run);
        }
    }

    /// Lets go of pieces that no watcher needs from memory.
    pub(crate) fn trim(&mut self, ring_max_bytes: usize) {
        let keep_bytes = if self.watchers > 0 { ring_max_bytes } else { 0 };
        while self.ring_bytes > keep_bytes && self.ring.front().is_some_and(|piece| piece.end() <= self.durable) {
            self.ring_bytes -= self.ring.pop_front().map_or(0, |piece| piece.bytes.len());
        }
    }

    /// The piece of the ring at `offset`, from there on.
    pub(crate) fn recent(&self, offset: u64) -> Option<Piece> {
        let index = self.ring.partition_point(|piece| piece.end() <= offset);
        self.ring.get(index).filter(|piece| piece.offset <= offset).and_then(|piece| piece.clip(offset, u64::MAX))
    }

    /// The run that holds the durable byte at `offset`.
    pub(crate) fn run_at(&self, offset: u64) -> Option<Run> {
        let index = self.runs.partition_point(|run| run.end() <= offset);
        self.runs.get(index).filter(|run| run.offset <= offset).cloned()
    }

    /// Ends the life in memory: it is sealed or deleted.
    pub(crate) fn retire(&mut self, phase: Phase) {
        self.phase = phase;
        self.runs = Vec::new();
        self.ring = VecDeque::new();
        self.ring_bytes = 0;
        self.hasher = None;
    }
}
