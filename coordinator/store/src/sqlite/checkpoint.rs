//! Copies the write-ahead log back into the store, on a connection and a thread of its own.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use windlass_protocol::limits;

use super::encode::fault_of;
use super::{Options, Target};
use crate::fault::Fault;

/// The thread that checkpoints; ends, after a last checkpoint, when this is dropped.
#[derive(Debug)]
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Commits after which a checkpoint is due.
    due_commits: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    commits: u64,
    oldest: Option<Instant>,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until enough commits have come, or one has waited long enough. `false` when it is time to end.
    fn wait(&self) -> bool {
        let longest = Duration::from_millis(limits::CHECKPOINT_MS);
        let mut state = self.lock();
        loop {
            if state.stop {
                return false;
            }
            let waited = state.oldest.map(|oldest| oldest.elapsed());
            if state.commits >= self.due_commits || waited.is_some_and(|waited| waited >= longest) {
                (state.commits, state.oldest) = (0, None);
                return true;
            }
            state = match waited {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(waited) => {
                    let wait = self.changed.wait_timeout(state, longest.saturating_sub(waited));
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Checkpointer {
    pub(super) fn start(target: &Target, options: &Options) -> Result<Self, Fault> {
        let doing = "start checkpoints";
        let conn = target.connect_to_write().map_err(|e| fault_of(doing, e))?;
        conn.execute_batch("PRAGMA synchronous = FULL").map_err(|e| fault_of(doing, e))?;
        let shared = Arc::new(Shared {
            due_commits: options.checkpoint_commits,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        let restart_bytes = options.wal_restart_bytes;
        let run = move || {
            while for_thread.wait() {
                checkpoint(&conn, restart_bytes);
            }
            run_pragma(&conn, "PRAGMA wal_checkpoint(PASSIVE)");
        };
        let spawned = std::thread::Builder::new().name("store-checkpoint".to_owned()).spawn(run);
        let thread = spawned.map_err(|e| Fault::io(doing, &e))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes note of a commit.
    pub(super) fn committed(&self) {
        let mut state = self.shared.lock();
        state.commits += 1;
        let first = state.oldest.is_none();
        if first {
            state.oldest = Some(Instant::now());
        }
        if first || state.commits == self.shared.due_commits {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("store_checkpointer_panicked");
        }
    }
}

/// A checkpoint that disturbs nobody; one that starts the log anew where it has grown too large.
fn checkpoint(conn: &Connection, restart_bytes: u64) {
    let Some(frames) = run_pragma(conn, "PRAGMA wal_checkpoint(PASSIVE)") else { return };
    let bytes = frames.saturating_mul(FRAME_BYTES);
    if bytes > restart_bytes.saturating_mul(limits::WAL_CUT_FACTOR) {
        run_pragma(conn, "PRAGMA wal_checkpoint(TRUNCATE)");
    } else if bytes > restart_bytes {
        // Kept as long as it is: what comes next is written over it.
        run_pragma(conn, "PRAGMA wal_checkpoint(RESTART)");
    }
}

/// A page and its header in the log.
const FRAME_BYTES: u64 = 4_096 + 24;

/// Frames in the log, as the checkpoint reports them; `None` if it failed, which the next one may mend.
fn run_pragma(conn: &Connection, sql: &str) -> Option<u64> {
    match conn.query_row(sql, [], |row| row.get::<_, i64>(1)) {
        Ok(frames) => u64::try_from(frames).ok(),
        Err(error) => {
            tracing::warn!(%error, "store_checkpoint_failed");
            None
        }
    }
}
