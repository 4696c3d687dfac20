//! What waits for the writer: pieces and marks, in the order in which they were accepted.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use windlass_protocol::AttemptId;
use windlass_protocol::job::Epoch;

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
    stop: Stop,
}

impl Queue {
    pub(crate) fn new() -> Self {
        let inner = Inner { items: VecDeque::new(), bytes: 0, stop: Stop::No };
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
        inner.bytes += item.bytes();
        inner.items.push_back(item);
        if inner.items.len() == 1 {
            self.wake.notify_all();
        }
        true
    }

    /// What to write next: all that waits, up to `max_bytes` (one item at least). `None` when it is time to end.
    pub(crate) fn take(&self, max_bytes: usize) -> Option<Vec<Item>> {
        let mut inner = self.lock();
        while inner.items.is_empty() && inner.stop == Stop::No {
            inner = self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
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
