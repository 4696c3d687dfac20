//! The desk's port to the log store: what it asks is done beside it, the answers come back as inputs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use windlass_coordinator_core::input::Input;
use windlass_coordinator_logs::LogStore;
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
