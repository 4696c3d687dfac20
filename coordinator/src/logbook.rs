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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::Bytes;
    use windlass_cache::RealFs;
    use windlass_coordinator_core::row::{ArtifactTally, AttemptRow, AttemptState, Change};
    use windlass_coordinator_logs::Options;
    use windlass_coordinator_store::{MemoryStore, Store as _};
    use windlass_protocol::{AgentId, BuildId, JobId, WallMs};

    use super::*;

    fn row(id: AttemptId, state: AttemptState) -> Change {
        Change::Attempt(Box::new(AttemptRow {
            id,
            job: JobId::from_bytes([2; 16]),
            build: BuildId::from_bytes([3; 16]),
            number: 1,
            state,
            epoch: Epoch(1),
            agent: AgentId::from_bytes([5; 16]),
            agent_name: String::new(),
            zone: String::new(),
            pool: String::new(),
            assigned_at: WallMs(1),
            boot_id: String::new(),
            outcome: None,
            log_complete: false,
            cause: None,
            finished_at: None,
            artifacts: ArtifactTally::default(),
            granted: Epoch(1),
            calls: VecDeque::new(),
            yields: None,
            reused: None,
            weighed: None,
        }))
    }

    #[tokio::test]
    async fn a_log_that_a_crash_left_open_is_sealed_or_deleted_unless_its_attempt_goes_on() {
        let [finished, running, unknown] = [1, 2, 3].map(|byte| AttemptId::from_bytes([byte; 16]));
        let mut store = MemoryStore::new();
        let epoch = store.claim().unwrap();
        store.commit(epoch, &[row(finished, AttemptState::Finished), row(running, AttemptState::Assigned)]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let logs = LogStore::open(Arc::new(RealFs), dir.path(), Options::default()).unwrap();
        for attempt in [finished, running, unknown] {
            logs.append(attempt, Epoch(1), 0, WallMs(1), Bytes::from_static(b"line\n")).await.unwrap();
        }
        let left = LeftOpen::find(&logs, &store.history()).unwrap();
        assert_eq!(left, LeftOpen { ended: vec![finished], unknown: vec![unknown] });
        left.close(logs.clone()).await;
        logs.quiet().await;
        assert_eq!(logs.open_logs(), [running]);
        assert!(logs.len(finished).await.unwrap().unwrap().sealed);
        assert_eq!(logs.len(unknown).await.unwrap(), None);
        logs.append(finished, Epoch(1), 5, WallMs(1), Bytes::from_static(b"more")).await.unwrap_err();
    }
}
