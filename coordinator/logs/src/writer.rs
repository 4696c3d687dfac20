//! The writer: one thread that makes what waits durable, with one sync for all logs, again and again.

use std::sync::Arc;

use windlass_protocol::limits::{LOG_CHUNK_MAX_BYTES, LOG_COMMIT_MAX_BYTES};
use windlass_protocol::{AttemptId, Digest, WallMs};

use crate::error::{Fault, is_full};
use crate::log::{Log, Phase, Piece, Run};
use crate::queue::{Item, What};
use crate::record::{self, Kind, SEGMENT_HEADER_BYTES};
use crate::segment::{SegmentFile, segment_path};
use crate::shared::{Counters, DiskState, Shared};

/// Between two tries at a disk that refused. Space comes back in seconds at best.
const RETRY_MS: u64 = 100;

#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Option<Active>,
    next_seq: u64,
    buffer: Vec<u8>,
}

/// The segment that is being written.
#[derive(Debug)]
struct Active {
    segment: Arc<SegmentFile>,
    /// Bytes that are durable in it.
    len: u64,
    /// Whether its name is durable.
    named: bool,
}

/// Where a record of a batch went, and which items it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    first: usize,
    items: usize,
    position: u64,
    span: u64,
    bytes: u64,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, next_seq: u64) -> Self {
        Self { shared, active: None, next_seq, buffer: Vec::new() }
    }

    /// Works until the queue is stopped.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while let Some(mut batch) = shared.queue.take(LOG_COMMIT_MAX_BYTES) {
            // Stable: what one log waits for stays in order, and lies together on the disk.
            batch.sort_by_key(Item::attempt);
            if !self.commit(batch) {
                break;
            }
        }
        shared.queue.clear();
        shared.close_acks();
    }

    /// Tries until the batch is durable; false if the store closes before.
    fn commit(&mut self, batch: Vec<Item>) -> bool {
        loop {
            match self.write(&batch) {
                Ok(places) => {
                    self.note(DiskState::Fine);
                    self.publish(batch, &places);
                    return true;
                }
                Err(fault) => {
                    self.note_fault(&fault);
                    if !self.shared.queue.pause(RETRY_MS) {
                        return false;
                    }
                }
            }
        }
    }

    fn note_fault(&self, fault: &Fault) {
        let cause = std::error::Error::source(fault).map_or_else(String::new, |source| format!(": {source}"));
        self.note(if fault.is_full() { DiskState::Full } else { DiskState::Failing(format!("{fault}{cause}")) });
    }

    fn note(&self, now: DiskState) {
        if *self.shared.disk.borrow() == now {
            return;
        }
        match &now {
            DiskState::Fine => tracing::info!("log_disk_recovered"),
            DiskState::Full => tracing::error!("log_disk_full"),
            DiskState::Failing(why) => tracing::error!(%why, "log_disk_failed"),
        }
        self.shared.disk.send_replace(now);
    }

    /// Writes and syncs a batch, and the name of its segment where that is new.
    fn write(&mut self, batch: &[Item]) -> Result<Vec<Place>, Fault> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let written = self.write_with(&mut buffer, batch);
        self.buffer = buffer;
        written
    }

    fn write_with(&mut self, buffer: &mut Vec<u8>, batch: &[Item]) -> Result<Vec<Place>, Fault> {
        let active = self.active()?;
        let (segment, len, named) = (Arc::clone(&active.segment), active.len, active.named);
        if len == 0 {
            buffer.extend_from_slice(&record::segment_header(segment.seq));
        }
        let places = encode_batch(buffer, segment.seq, len, batch);
        match segment.file.write_at(len, buffer) {
            Ok(()) => {}
            // What was written of it is written over by the next try.
            Err(e) if is_full(&e) => return Err(Fault::disk("write to", &segment.path)(e)),
            Err(e) => return Err(self.abandon("write to", e)),
        }
        if let Err(e) = segment.file.sync_data() {
            return Err(self.abandon("sync", e));
        }
        if !named && let Err(e) = self.shared.vfs.sync_dir(&self.shared.segments_dir) {
            return Err(self.abandon("sync the folder of", e));
        }
        self.active = Some(Active { segment, len: len + buffer.len() as u64, named: true });
        Ok(places)
    }

    /// The segment to write to: the current one while it has room, else a new one.
    fn active(&mut self) -> Result<&mut Active, Fault> {
        let full = |active: &Active| active.len >= self.shared.options.segment_bytes;
        if self.active.as_ref().is_none_or(full) {
            let path = segment_path(&self.shared.segments_dir, self.next_seq);
            let file = self.shared.vfs.create(&path).map_err(Fault::disk("create", &path))?;
            let segment = Arc::new(SegmentFile { seq: self.next_seq, path, file });
            self.next_seq += 1;
            self.shared.catalog().add_segment(Arc::clone(&segment), 0, true);
            self.shared.seals.sweep();
            return Ok(self.active.insert(Active { segment, len: 0, named: false }));
        }
        self.active.as_mut().ok_or(Fault::Closing)
    }

    /// Gives up the current segment, of which nothing is known after its last commit: the kernel may have dropped
    /// pages. The batch goes into a new one.
    fn abandon(&mut self, what: &'static str, error: std::io::Error) -> Fault {
        let Some(active) = self.active.take() else { return Fault::Closing };
        if let Err(e) = active.segment.file.truncate(active.len) {
            tracing::warn!(segment = ?active.segment, error = %e, "log_segment_not_cut");
        }
        self.shared.catalog().close_active();
        Fault::disk(what, &active.segment.path)(error)
    }

    /// Tells everybody what is durable now.
    fn publish(&self, batch: Vec<Item>, places: &[Place]) {
        let Some(active) = &self.active else { return };
        let seq = active.segment.seq;
        let mut logs: Vec<Arc<Log>> = batch.iter().map(|item| Arc::clone(&item.log)).collect();
        logs.dedup_by(|a, b| Arc::ptr_eq(a, b));
        {
            let mut catalog = self.shared.catalog();
            catalog.grown(seq, active.len);
            for log in &logs {
                catalog.hold(log.attempt, seq);
            }
        }
        let mut news: Vec<(AttemptId, u64)> = Vec::new();
        for place in places {
            let items = batch.get(place.first..place.first + place.items).unwrap_or_default();
            if let Some(durable) = settle(items, place, &active.segment) {
                news.push(durable);
            }
        }
        for log in &logs {
            let mut state = log.lock();
            state.homes.insert(seq);
            state.trim(self.shared.options.ring_bytes);
            drop(state);
        }
        Counters::add(&self.shared.counters.commits, 1);
        Counters::add(&self.shared.counters.durable_bytes, places.iter().map(|place| place.bytes).sum());
        self.shared.acknowledge(&news);
        for item in batch {
            self.finish(item, seq);
        }
        for log in logs {
            log.announce();
        }
    }

    /// What follows from an item that is durable.
    fn finish(&self, item: Item, seq: u64) {
        let Item { log, what, room } = item;
        // Nobody waits any more where sending fails.
        match what {
            What::Data(_) => {}
            What::Fence { ended, done, .. } => {
                if ended {
                    self.end(&log);
                }
                let _gone = done.send(());
            }
            What::Incomplete { done, .. } => {
                let _gone = done.send(());
            }
            What::Deleted { done } => {
                self.shared.catalog().bury(log.attempt, seq);
                log.lock().retire(Phase::Deleted);
                self.shared.seals.sweep();
                let _gone = done.send(());
            }
        }
        drop(room);
    }

    /// A log has ended and all of it is durable: it may be sealed, or forgotten where it holds nothing.
    fn end(&self, log: &Arc<Log>) {
        let mut state = log.lock();
        if state.phase != (Phase::Ended { durable: false }) {
            return;
        }
        state.phase = Phase::Ended { durable: true };
        state.digest = state.hasher.as_ref().map(Digest::from_hasher);
        let blank = state.end == 0 && state.incomplete.is_none();
        drop(state);
        if blank {
            self.shared.catalog().forget(log.attempt);
            self.shared.seals.sweep();
        } else {
            self.shared.seals.push(log.attempt);
        }
    }
}

/// Notes in a log where its next bytes lie; gives how far it is durable.
fn settle(items: &[Item], place: &Place, segment: &Arc<SegmentFile>) -> Option<(AttemptId, u64)> {
    let first = items.first()?;
    let What::Data(piece) = &first.what else { return None };
    let mut state = first.log.lock();
    if state.phase == Phase::Deleted {
        return None;
    }
    if let Some(hasher) = &mut state.hasher {
        for piece in items.iter().filter_map(data) {
            hasher.update(&piece.bytes);
        }
    }
    let segment = Arc::clone(segment);
    let (position, span) = (place.position, place.span);
    state.settle(Run { segment, position, span, offset: piece.offset, len: place.bytes });
    Some((first.log.attempt, state.durable))
}

const fn data(item: &Item) -> Option<&Piece> {
    match &item.what {
        What::Data(piece) => Some(piece),
        What::Fence { .. } | What::Incomplete { .. } | What::Deleted { .. } => None,
    }
}

/// Lays a batch out as records; pieces of one log that were read in the same millisecond become one.
fn encode_batch(buffer: &mut Vec<u8>, seq: u64, base: u64, batch: &[Item]) -> Vec<Place> {
    debug_assert!(base > 0 || buffer.len() == SEGMENT_HEADER_BYTES, "a segment begins with its header");
    let mut places = Vec::new();
    let mut first = 0;
    while let Some(item) = batch.get(first) {
        let start = buffer.len();
        let (items, bytes) = match &item.what {
            What::Data(piece) => {
                let (items, bytes) = alike(batch.get(first..).unwrap_or_default(), piece);
                let parts = batch.get(first..first + items).unwrap_or_default().iter().filter_map(data);
                let parts = parts.map(|piece| &piece.bytes[..]);
                let what = (Kind::Data, item.attempt());
                record::encode(buffer, (seq, base), what, (piece.offset, piece.at), parts);
                (items, bytes)
            }
            What::Fence { least, ended, .. } => {
                let payload = record::fence_payload(*least, *ended);
                encode_mark(buffer, (seq, base), (Kind::Fence, item.attempt()), &payload)
            }
            What::Incomplete { why, .. } => {
                encode_mark(buffer, (seq, base), (Kind::Incomplete, item.attempt()), why.as_bytes())
            }
            What::Deleted { .. } => encode_mark(buffer, (seq, base), (Kind::Deleted, item.attempt()), &[]),
        };
        let span = (buffer.len() - start) as u64;
        places.push(Place { first, items, position: base + start as u64, span, bytes: bytes as u64 });
        first += items;
    }
    places
}

fn encode_mark(buffer: &mut Vec<u8>, at: (u64, u64), what: (Kind, AttemptId), payload: &[u8]) -> (usize, usize) {
    record::encode(buffer, at, what, (0, WallMs(0)), std::iter::once(payload));
    (1, 0)
}

/// How many items, from the first on, go into one record, and their bytes.
fn alike(batch: &[Item], first: &Piece) -> (usize, usize) {
    let Some(log) = batch.first().map(|item| &item.log) else { return (0, 0) };
    let mut bytes = 0;
    let mut items = 0;
    for piece in batch.iter().take_while(|item| Arc::ptr_eq(&item.log, log)).map_while(data) {
        if items > 0 && (piece.at != first.at || bytes + piece.bytes.len() > LOG_CHUNK_MAX_BYTES) {
            break;
        }
        bytes += piece.bytes.len();
        items += 1;
    }
    (items, bytes)
}
