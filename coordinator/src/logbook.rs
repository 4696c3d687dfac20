//! The desk's port to the log store: what it asks is done beside it, the answers come back as inputs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use windlass_coordinator_core::input::Input;
use windlass_coordinator_logs::LogStore;
use windlass_coordinator_store::{Fault, History};
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::LOG_SETTLE_MS;
use windlass_protocol::{AttemptId, Digest};

use crate::desk::{DeskHandle, Logs};

/// Watches logs come to their ends for the desk.
#[derive(Debug, Clone)]
pub struct Logbook {
    logs: LogStore,
    desk: DeskHandle,
    settling: Arc<Mutex<BTreeSet<(AttemptId, Epoch)>>>,
}

impl Logbook {
    /// A port over this store, which answers through this door.
    #[must_use]
    pub fn new(logs: LogStore, desk: DeskHandle) -> Self {
        Self { logs, desk, settling: Arc::default() }
    }
}

/// Which logs a crash left open although nothing more may come of them: it came after the commit of a result (or of a
/// build's deletion) and before the log heard of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOpen {
    /// Their attempts are over.
    pub(crate) ended: Vec<AttemptId>,
    /// The store knows no such attempt any more.
    pub(crate) unknown: Vec<AttemptId>,
}

impl LeftOpen {
    /// Compares open logs with the store. Blocks; nothing may be served yet.
    pub(crate) fn find(logs: &LogStore, history: &dyn History) -> Result<Self, Fault> {
        let mut left = Self::default();
        for attempt in logs.open_logs() {
            match history.attempt(attempt)? {
                None => left.unknown.push(attempt),
                Some(row) if row.state.is_final() => left.ended.push(attempt),
                Some(_) => {}
            }
        }
        Ok(left)
    }

    /// Seals and deletes them. What fails is tried again at the next start.
    pub(crate) async fn close(self, logs: LogStore) {
        if self != Self::default() {
            tracing::info!(ended = self.ended.len(), unknown = self.unknown.len(), "logs_closed_after_crash");
        }
        for attempt in self.ended {
            if let Err(error) = logs.seal(attempt).await {
                tracing::error!(%attempt, %error, "log_not_sealed");
            }
        }
        if let Err(error) = logs.delete(self.unknown).await {
            tracing::error!(%error, "logs_not_deleted");
        }
    }
}

impl Logs for Logbook {
    fn settle(&self, attempt: AttemptId, epoch: Epoch, bytes: u64, digest: Digest) {
        let key = (attempt, epoch);
        if !self.settling.lock().unwrap_or_else(PoisonError::into_inner).insert(key) {
            return;
        }
        let port = self.clone();
        tokio::spawn(async move {
            let waited =
                tokio::time::timeout(Duration::from_millis(LOG_SETTLE_MS), port.logs.settle(attempt, bytes, digest));
            let settled = match waited.await {
                Ok(settled) => settled,
                Err(_) => Err(format!("the agent did not send the log to its end within {LOG_SETTLE_MS} ms")),
            };
            if let Err(why) = &settled {
                tracing::warn!(%attempt, why, "log_incomplete");
                if let Err(error) = port.logs.incomplete(attempt, why).await {
                    tracing::error!(%attempt, %error, "log_not_marked");
                }
            }
            port.settling.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            // A desk that is gone asks again when it is back.
            let _ = port.desk.agent_input(Input::LogSettled { attempt, epoch, settled }).await;
        });
    }

    fn fence(&self, attempt: AttemptId, epoch: Epoch, sealed: bool) {
        let logs = self.logs.clone();
        tokio::spawn(async move {
            if let Err(error) = logs.fence(attempt, epoch, sealed).await {
                tracing::error!(%attempt, %error, "log_not_fenced");
            }
        });
    }
}
