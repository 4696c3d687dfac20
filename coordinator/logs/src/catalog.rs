//! Which logs are not sealed, which segments there are, and which of those nobody needs any more.
//!
//! A segment is *held* by every log that has records in it and is neither sealed nor deleted, and by the mark of every
//! deletion that still has something to say: as long as an older segment with records of that log is on the disk.
//! A segment that nobody holds is removed, unless it is being written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use windlass_protocol::AttemptId;
use windlass_protocol::limits::LOG_OVER_REMEMBERED;

use crate::log::{Log, Phase};
use crate::segment::SegmentFile;

#[derive(Debug, Default)]
pub(crate) struct Catalog {
    logs: BTreeMap<AttemptId, Arc<Log>>,
    segments: BTreeMap<u64, Segment>,
    /// The one that is being written.
    active: Option<u64>,
    /// By attempt: the segment with the mark, and older ones with records that it makes void.
    buried: BTreeMap<AttemptId, (u64, BTreeSet<u64>)>,
    /// Over, lately: nothing is kept of them but that.
    over: BTreeMap<AttemptId, Over>,
    over_order: VecDeque<AttemptId>,
}

/// How a log came to an end that left nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// It ended without a byte.
    Empty,
    Deleted,
}

#[derive(Debug)]
struct Segment {
    file: Arc<SegmentFile>,
    bytes: u64,
    holders: BTreeSet<AttemptId>,
    /// Logs that are sealed and have records here all the same.
    dead: BTreeSet<AttemptId>,
}

impl Catalog {
    pub(crate) fn get(&self, attempt: AttemptId) -> Option<Arc<Log>> {
        self.logs.get(&attempt).cloned()
    }

    pub(crate) fn insert(&mut self, log: Arc<Log>) {
        self.logs.insert(log.attempt, log);
    }

    /// Logs that have not ended.
    pub(crate) fn open_logs(&self) -> Vec<AttemptId> {
        let open = self.logs.values().filter(|log| log.lock().phase == Phase::Open);
        open.map(|log| log.attempt).collect()
    }

    pub(crate) fn log_count(&self) -> usize {
        self.logs.len()
    }

    /// Forgets a log that never got anything, if nobody but this caller holds it.
    pub(crate) fn prune(&mut self, log: &Arc<Log>) {
        let unused = Arc::strong_count(log) == 2 && log.lock().is_blank();
        if unused && self.logs.get(&log.attempt).is_some_and(|known| Arc::ptr_eq(known, log)) {
            self.logs.remove(&log.attempt);
        }
    }

    /// How the log came to an end that left nothing, if it did lately.
    pub(crate) fn over(&self, attempt: AttemptId) -> Option<Over> {
        self.over.get(&attempt).copied()
    }

    /// A log ended without a byte: nobody needs its records.
    pub(crate) fn forget(&mut self, attempt: AttemptId) {
        self.logs.remove(&attempt);
        for segment in self.segments.values_mut() {
            segment.holders.remove(&attempt);
        }
        self.remember(attempt, Over::Empty);
    }

    fn remember(&mut self, attempt: AttemptId, how: Over) {
        if self.over.insert(attempt, how).is_none() {
            self.over_order.push_back(attempt);
        }
        if self.over_order.len() > LOG_OVER_REMEMBERED
            && let Some(oldest) = self.over_order.pop_front()
        {
            self.over.remove(&oldest);
        }
    }

    /// A segment is there; if `active`, it is the one that is written from now on.
    pub(crate) fn add_segment(&mut self, file: Arc<SegmentFile>, bytes: u64, active: bool) {
        let seq = file.seq;
        if active {
            self.active = Some(seq);
        }
        self.segments.insert(seq, Segment { file, bytes, holders: BTreeSet::new(), dead: BTreeSet::new() });
    }

    /// No segment is being written.
    pub(crate) fn close_active(&mut self) {
        self.active = None;
    }

    pub(crate) fn grown(&mut self, seq: u64, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&seq) {
            segment.bytes = bytes;
        }
    }

    /// A log that is not sealed has records in a segment.
    pub(crate) fn hold(&mut self, attempt: AttemptId, seq: u64) {
        if let Some(segment) = self.segments.get_mut(&seq) {
            segment.holders.insert(attempt);
        }
    }

    /// A log is sealed: its records are dead.
    pub(crate) fn release(&mut self, attempt: AttemptId) {
        self.logs.remove(&attempt);
        for segment in self.segments.values_mut() {
            if segment.holders.remove(&attempt) {
                segment.dead.insert(attempt);
            }
        }
    }

    /// Whether some segment on the disk has records of a log.
    pub(crate) fn has_records(&self, attempt: AttemptId) -> bool {
        self.segments.values().any(|s| s.holders.contains(&attempt) || s.dead.contains(&attempt))
    }

    /// A log is deleted, by a mark in segment `home` that must outlive its records elsewhere.
    pub(crate) fn bury(&mut self, attempt: AttemptId, home: u64) {
        self.logs.remove(&attempt);
        self.remember(attempt, Over::Deleted);
        // A mark from before stays needed until this one outlives what both make void.
        let mut covers = self.buried.remove(&attempt).map(|(_, covers)| covers).unwrap_or_default();
        for (seq, segment) in &mut self.segments {
            let had = segment.holders.remove(&attempt) | segment.dead.remove(&attempt);
            if had && *seq != home {
                covers.insert(*seq);
            }
        }
        if !covers.is_empty() {
            self.hold(attempt, home);
            self.buried.insert(attempt, (home, covers));
        }
    }

    /// Segments that nobody holds, and whether a mark elsewhere waits for one of them to be gone for good.
    pub(crate) fn removable(&self) -> (Vec<Arc<SegmentFile>>, bool) {
        let free = |(seq, segment): &(&u64, &Segment)| Some(**seq) != self.active && segment.holders.is_empty();
        let files: Vec<_> = self.segments.iter().filter(free).map(|(_, segment)| Arc::clone(&segment.file)).collect();
        let awaited = files.iter().any(|file| self.buried.values().any(|(_, covers)| covers.contains(&file.seq)));
        (files, awaited)
    }

    /// These segments are gone for good.
    pub(crate) fn removed(&mut self, seqs: &[u64]) {
        for seq in seqs {
            self.segments.remove(seq);
        }
        let mut done = Vec::new();
        for (attempt, (home, covers)) in &mut self.buried {
            covers.retain(|seq| !seqs.contains(seq));
            if covers.is_empty() {
                done.push((*attempt, *home));
            }
        }
        for (attempt, home) in done {
            self.buried.remove(&attempt);
            if let Some(segment) = self.segments.get_mut(&home) {
                segment.holders.remove(&attempt);
            }
        }
    }

    /// How many segments there are, and their bytes.
    pub(crate) fn segment_stats(&self) -> (usize, u64) {
        (self.segments.len(), self.segments.values().map(|segment| segment.bytes).sum())
    }
}
