//! What waits for the writer: pieces and marks, in the order in which they were accepted.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use windlass_protocol::AttemptId;
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::LOG_END_WAIT_MS;

use crate::log::{Log, Piece};

/// One thing to make durable.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) log: Arc<Log>,
    pub(crate) what: What,
    /// Room in the queue, given back when it is durable.
    pub(crate) room: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(crate) enum What {
    Data(Piece),
    Fence { least: Epoch, ended: bool, done: oneshot::Sender<()> },
    Incomplete { why: String, done: oneshot::Sender<()> },
    Deleted { done: oneshot::Sender<()> },
}

impl Item {
    pub(crate) fn attempt(&self) -> AttemptId {
        self.log.attempt
    }

    fn bytes(&self) -> usize {
        match &self.what {
            What::Data(piece) => piece.bytes.len(),
            What::Fence { .. } | What::Incomplete { .. } | What::Deleted { .. } => 0,
        }
    }

    /// Whether it may wait for others to share a sync with: only sealing comes after the end of a log.
    const fn is_patient(&self) -> bool {
        matches!(self.what, What::Fence { ended: true, .. })
    }
}

/// How far the writer may still go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    No,
    /// Write what waits, then end.
    Drained,
    /// End; what waits was never acknowledged.
    Now,
}

#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Debug)]
struct Inner {
    items: VecDeque<Item>,
    bytes: usize,
    /// When the writer is to begin although all that waits is patient; `None`: at once.
    patient_until: Option<Instant>,
    stop: Stop,
}

/// When the writer is to begin.
enum Due {
    Now,
    In(Duration),
    Never,
}

impl Inner {
    fn due(&self) -> Due {
        match self.patient_until {
            _ if self.items.is_empty() => Due::Never,
            None => Due::Now,
            Some(until) => match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => Due::Now,
                wait => Due::In(wait),
            },
        }
    }
}

impl Queue {
    pub(crate) fn new() -> Self {
        let inner = Inner { items: VecDeque::new(), bytes: 0, patient_until: None, stop: Stop::No };
        Self { inner: Mutex::new(inner), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item, unless the store is closing. Its room was acquired before, so the queue is bounded.
    pub(crate) fn push(&self, item: Item) -> bool {
        let mut inner = self.lock();
        if inner.stop != Stop::No {
            return false;
        }
        let (is_first, was_patient) = (inner.items.is_empty(), inner.patient_until.is_some());
        if !item.is_patient() {
            inner.patient_until = None;
        } else if is_first {
            inner.patient_until = Some(Instant::now() + Duration::from_millis(LOG_END_WAIT_MS));
        }
        inner.bytes += item.bytes();
        inner.items.push_back(item);
        if is_first || (was_patient && inner.patient_until.is_none()) {
            self.wake.notify_all();
        }
        true
    }

    /// What to write next: all that waits, up to `max_bytes` (one item at least). `None` when it is time to end.
    pub(crate) fn take(&self, max_bytes: usize) -> Option<Vec<Item>> {
        let mut inner = self.lock();
        while inner.stop == Stop::No {
            inner = match inner.due() {
                Due::Now => break,
                Due::In(wait) => self.wake.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0,
                Due::Never => self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
        if inner.items.is_empty() || inner.stop == Stop::Now {
            return None;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(item) = inner.items.front() {
            let item_bytes = item.bytes();
            if bytes + item_bytes > max_bytes && !batch.is_empty() {
                break;
            }
            bytes += item_bytes;
            batch.extend(inner.items.pop_front());
        }
        inner.bytes -= bytes;
        // What was left behind for want of room waited long enough.
        inner.patient_until = None;
        Some(batch)
    }

    /// Waits before another try; false when it is time to end instead.
    pub(crate) fn pause(&self, for_ms: u64) -> bool {
        let (inner, _) = self
            .wake
            .wait_timeout_while(self.lock(), Duration::from_millis(for_ms), |inner| inner.stop == Stop::No)
            .unwrap_or_else(PoisonError::into_inner);
        inner.stop == Stop::No
    }

    /// Accepts nothing more; `drain` what waits, or drop it.
    pub(crate) fn stop(&self, drain: bool) {
        let mut inner = self.lock();
        inner.stop = inner.stop.max(if drain { Stop::Drained } else { Stop::Now });
        self.wake.notify_all();
    }

    /// Drops what is left, so that whoever waits for it hears of the end.
    pub(crate) fn clear(&self) {
        self.stop(false);
        let items = std::mem::take(&mut self.lock().items);
        drop(items);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(byte: u8, ended: bool) -> Item {
        let what = What::Fence { least: Epoch(1), ended, done: oneshot::channel().0 };
        Item { log: Arc::new(Log::new(AttemptId::from_bytes([byte; 16]))), what, room: Vec::new() }
    }

    fn order(batch: Option<Vec<Item>>) -> Vec<u8> {
        batch.unwrap().iter().map(|item| item.attempt().as_bytes()[0]).collect()
    }

    #[test]
    fn ends_of_logs_wait_for_company_and_what_somebody_waits_for_takes_them_along() {
        let queue = Queue::new();
        let began = Instant::now();
        assert!(queue.push(item(1, true)) && queue.push(item(2, true)));
        assert_eq!(order(queue.take(1)), [1, 2], "ends alone are written, together");
        assert!(began.elapsed() >= Duration::from_millis(LOG_END_WAIT_MS), "and not at once");
        let patient = Instant::now();
        assert!(queue.push(item(3, true)) && queue.push(item(4, false)) && queue.push(item(5, true)));
        assert!(matches!(queue.lock().due(), Due::Now), "somebody waits for the fourth");
        assert_eq!(order(queue.take(1)), [3, 4, 5]);
        assert!(queue.push(item(6, true)));
        assert!(matches!(queue.lock().due(), Due::In(_)));
        queue.stop(true);
        assert_eq!(order(queue.take(1)), [6], "an end of the store waits for nobody");
        assert!(patient.elapsed() < Duration::from_secs(5) && queue.take(1).is_none());
    }
}
