//! The end of a log's retention.
//!
//! As long as a segment on the disk has records of a deleted log, a mark must say so, or it would rise again at the next
//! start: so the mark is durable before the sealed file goes.

use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;
use windlass_protocol::AttemptId;

use crate::catalog::Over;
use crate::error::Fault;
use crate::log::{Log, Phase};
use crate::queue::{Item, What};
use crate::shared::{Shared, Shelf};

impl Shared {
    /// Removes logs, durably. Blocks.
    pub(crate) fn delete(&self, attempts: &[AttemptId]) -> Result<(), Fault> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let mut marks = Vec::new();
        for attempt in attempts {
            let log = {
                let catalog = self.catalog();
                let log = catalog.get(*attempt);
                let marked = catalog.over(*attempt) == Some(Over::Deleted);
                if marked || log.is_none() && !catalog.has_records(*attempt) {
                    continue;
                }
                log
            };
            let log = log.unwrap_or_else(|| Arc::new(Log::new(*attempt)));
            let (done, wait) = oneshot::channel();
            let before = {
                let mut state = log.lock();
                let before = std::mem::replace(&mut state.phase, Phase::Deleted);
                let item = Item { log: Arc::clone(&log), what: What::Deleted { done }, room: Vec::new() };
                if !self.queue.push(item) {
                    state.phase = before;
                    return Err(Fault::Closing);
                }
                before
            };
            tracing::debug!(%attempt, ?before, "log_deleted");
            log.announce();
            marks.push(wait);
        }
        for mark in marks {
            mark.blocking_recv().map_err(|_| Fault::Closing)?;
        }
        for attempt in attempts {
            let path = self.sealed_path(*attempt);
            match self.vfs.remove(&path) {
                Ok(()) => shelf.unsynced = true,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Fault::disk("remove", &path)(e)),
            }
        }
        self.sync_shelf(&mut shelf)
    }

    /// Makes the names of sealed logs durable, if any changed.
    pub(crate) fn sync_shelf(&self, shelf: &mut Shelf) -> Result<(), Fault> {
        if shelf.unsynced {
            self.vfs.sync_dir(&self.sealed_dir).map_err(Fault::disk("sync", &self.sealed_dir))?;
            shelf.unsynced = false;
        }
        Ok(())
    }
}
