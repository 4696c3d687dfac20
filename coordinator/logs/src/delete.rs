//! The end of a log's retention.
//!
//! As long as a segment on the disk has records of a deleted log, a mark must say so, or it would rise again at the next
//! start: so the mark is durable before the sealed file goes.

use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;
use windlass_protocol::AttemptId;

use crate::error::Fault;
use crate::log::{Log, Phase};
use crate::queue::{Item, What};
use crate::shared::Shared;

impl Shared {
    /// Removes logs, durably. Blocks.
    pub(crate) fn delete(&self, attempts: &[AttemptId]) -> Result<(), Fault> {
        let _shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let mut marks = Vec::new();
        for attempt in attempts {
            let log = {
                let catalog = self.catalog();
                let log = catalog.get(*attempt);
                if log.is_none() && !catalog.has_records(*attempt) {
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
        let mut removed = false;
        for attempt in attempts {
            let path = self.sealed_path(*attempt);
            match self.vfs.remove(&path) {
                Ok(()) => removed = true,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Fault::disk("remove", &path)(e)),
            }
        }
        if removed {
            self.vfs.sync_dir(&self.sealed_dir).map_err(Fault::disk("sync", &self.sealed_dir))?;
        }
        Ok(())
    }
}
