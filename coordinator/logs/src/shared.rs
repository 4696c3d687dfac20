//! What the store's handles, its writer and its sealer have in common.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Semaphore, watch};
use windlass_cache::Vfs;
use windlass_protocol::AttemptId;
use windlass_protocol::limits::{
    LOG_CONTROL_QUEUE_MAX, LOG_FRAME_BYTES, LOG_MAX_BYTES, LOG_QUEUE_MAX_BYTES, LOG_READS_MAX, LOG_RING_BYTES,
    LOG_SEGMENT_BYTES,
};

use crate::ack::AckBoard;
use crate::catalog::{Catalog, Over};
use crate::error::Fault;
use crate::log::{Log, Phase};
use crate::queue::Queue;
use crate::seal::SealQueue;
use crate::sealed::SealedFile;

/// Sizes that tests make small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A segment is full at this length.
    pub segment_bytes: u64,
    /// Recent bytes of a watched log that stay in memory.
    pub ring_bytes: usize,
    /// Plain bytes of one frame of a sealed log.
    pub frame_bytes: usize,
    /// The longest log.
    pub log_max_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: LOG_SEGMENT_BYTES,
            ring_bytes: LOG_RING_BYTES,
            frame_bytes: LOG_FRAME_BYTES,
            log_max_bytes: LOG_MAX_BYTES,
        }
    }
}

/// How the disk does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DiskState {
    /// It takes what it is given.
    #[default]
    Fine,
    /// It is full: nothing is acknowledged until there is space; nothing is lost.
    Full,
    /// It fails otherwise, with these words; nothing is acknowledged, and it is tried again.
    Failing(String),
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) durable_bytes: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) sealed_logs: AtomicU64,
    pub(crate) seal_failures: AtomicU64,
    pub(crate) file_reads: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// The folder of sealed logs.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// Names changed since its last sync.
    pub(crate) unsynced: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) segments_dir: PathBuf,
    pub(crate) sealed_dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) queue: Queue,
    pub(crate) seals: SealQueue,
    /// Room for bytes in the queue.
    pub(crate) room: Arc<Semaphore>,
    /// Room for marks in the queue.
    pub(crate) control_room: Arc<Semaphore>,
    pub(crate) reads: Arc<Semaphore>,
    /// Held while names in the folder of sealed logs change their meaning: sealing's last step, and deleting.
    pub(crate) shelf: Mutex<Shelf>,
    pub(crate) counters: Counters,
    catalog: Mutex<Catalog>,
    pub(crate) disk: watch::Sender<DiskState>,
    acks: Mutex<Vec<Weak<AckBoard>>>,
}

impl Shared {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, dir: &std::path::Path, options: Options, catalog: Catalog) -> Self {
        Self {
            vfs,
            segments_dir: dir.join("segments"),
            sealed_dir: dir.join("sealed"),
            options,
            queue: Queue::new(),
            seals: SealQueue::new(),
            room: Arc::new(Semaphore::new(LOG_QUEUE_MAX_BYTES as usize)),
            control_room: Arc::new(Semaphore::new(LOG_CONTROL_QUEUE_MAX as usize)),
            reads: Arc::new(Semaphore::new(LOG_READS_MAX)),
            shelf: Mutex::new(Shelf::default()),
            counters: Counters::default(),
            catalog: Mutex::new(catalog),
            disk: watch::Sender::new(DiskState::Fine),
            acks: Mutex::new(Vec::new()),
        }
    }

    /// Locked before any log's own lock, and never across anything slow.
    pub(crate) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_acks(&self, board: &Arc<AckBoard>) {
        let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        acks.retain(|board| board.strong_count() > 0);
        acks.push(Arc::downgrade(board));
    }

    pub(crate) fn acknowledge(&self, news: &[(AttemptId, u64)]) {
        for board in self.acks.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            board.post(news);
        }
    }

    pub(crate) fn close_acks(&self) {
        for board in self.acks.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            board.close();
        }
    }

    pub(crate) fn sealed_path(&self, attempt: AttemptId) -> PathBuf {
        self.sealed_dir.join(format!("{attempt}.wlog"))
    }

    /// The log, made where there is none; `None` where it is sealed or has ended without a byte.
    pub(crate) fn open_log(self: &Arc<Self>, attempt: AttemptId) -> Option<Visit> {
        let log = self.find_log(attempt)?;
        Some(Visit { shared: Arc::clone(self), log })
    }

    fn find_log(&self, attempt: AttemptId) -> Option<Arc<Log>> {
        let mut catalog = self.catalog();
        if let Some(log) = catalog.get(attempt) {
            return Some(log);
        }
        if catalog.over(attempt).is_some() || self.is_sealed(attempt) {
            return None;
        }
        let log = Arc::new(Log::new(attempt));
        catalog.insert(Arc::clone(&log));
        Some(log)
    }

    /// The log for a watcher, made where there is none; where it ended without a byte, one that says so.
    pub(crate) fn follow_log(&self, attempt: AttemptId) -> Result<Arc<Log>, Fault> {
        let mut catalog = self.catalog();
        if let Some(log) = catalog.get(attempt) {
            return Ok(log);
        }
        let log = Arc::new(Log::new(attempt));
        match catalog.over(attempt) {
            None => catalog.insert(Arc::clone(&log)),
            Some(Over::Deleted) => return Err(Fault::Unknown { attempt }),
            Some(Over::Empty) => {
                let mut state = log.lock();
                state.phase = Phase::Ended { durable: true };
                state.digest = Some(windlass_protocol::Digest::of(b""));
            }
        }
        Ok(log)
    }

    /// Whether there is a sealed file. Its name appears only when all of it is durable.
    fn is_sealed(&self, attempt: AttemptId) -> bool {
        self.vfs.open_read(&self.sealed_path(attempt)).is_ok()
    }

    /// The sealed file of a log.
    pub(crate) fn open_sealed(&self, attempt: AttemptId) -> Result<SealedFile, Fault> {
        let path = self.sealed_path(attempt);
        match self.vfs.open_read(&path) {
            Ok(file) => SealedFile::open(file, path, attempt),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Fault::Unknown { attempt }),
            Err(e) => Err(Fault::disk("open", &path)(e)),
        }
    }

    /// A log that is not sealed, if there is one.
    pub(crate) fn live(&self, attempt: AttemptId) -> Option<Arc<Log>> {
        let log = self.catalog().get(attempt)?;
        let live = matches!(log.lock().phase, Phase::Open | Phase::Ended { .. });
        live.then_some(log)
    }

    /// Runs work on files outside of the executor's threads, a bounded number at a time.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| Fault::Closing)?;
        let shared = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let done = work(&shared);
            drop(permit);
            done
        });
        match task.await {
            Ok(done) => done,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => Err(Fault::Closing),
        }
    }
}

/// A caller's hold on a log that may have been made for it: one that got nothing is forgotten again.
#[derive(Debug)]
pub(crate) struct Visit {
    shared: Arc<Shared>,
    log: Arc<Log>,
}

impl std::ops::Deref for Visit {
    type Target = Arc<Log>;

    fn deref(&self) -> &Arc<Log> {
        &self.log
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.log.lock().is_blank() {
            self.shared.catalog().prune(&self.log);
        }
    }
}
