//! The sealer: one thread that packs logs that have ended, a few at a time, and removes segments that nobody needs.
//!
//! It gives way to the writer: between two logs it waits until little is queued, but never for long, so that segments
//! do not pile up under constant load.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use windlass_protocol::AttemptId;
use windlass_protocol::limits::LOG_SEAL_BATCH;

use crate::error::Fault;
use crate::log::{Log, Phase};
use crate::read::Source;
use crate::sealed::SealedWriter;
use crate::shared::{Counters, Shared};

/// Between two tries at logs that could not be sealed.
const RETRY_MS: u64 = 1_000;
/// How long a log that waits to be sealed gives way to the writer, at most.
const YIELD_MS: u64 = 20;
/// Bytes in the writer's queue below which nobody needs to give way.
const CALM_BYTES: usize = 1 << 20;

/// Logs that wait to be sealed: one id each, no more than there are logs.
#[derive(Debug)]
pub(crate) struct SealQueue {
    inner: Mutex<Inner>,
    wake: Condvar,
    idle: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<AttemptId>,
    sweep: bool,
    busy: usize,
    stop: bool,
}

impl SealQueue {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::new(Inner::default()), wake: Condvar::new(), idle: watch::Sender::new(true) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, attempt: AttemptId) {
        let mut inner = self.lock();
        inner.waiting.push_back(attempt);
        self.idle.send_replace(false);
        drop(inner);
        self.wake.notify_all();
    }

    /// Some segment may have become free.
    pub(crate) fn sweep(&self) {
        let mut inner = self.lock();
        inner.sweep = true;
        self.idle.send_replace(false);
        drop(inner);
        self.wake.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_all();
    }

    pub(crate) fn backlog(&self) -> usize {
        let inner = self.lock();
        inner.waiting.len() + inner.busy
    }

    /// Whether there is nothing to seal and no segment to look at; changes are heard.
    pub(crate) fn idle(&self) -> watch::Receiver<bool> {
        self.idle.subscribe()
    }

    /// The next logs to seal, perhaps none where only segments are to be looked at; `None` when it is time to end.
    fn take(&self) -> Option<Vec<AttemptId>> {
        let mut inner = self.lock();
        inner.busy = 0;
        while inner.waiting.is_empty() && !inner.sweep && !inner.stop {
            self.idle.send_replace(true);
            inner = self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.stop {
            return None;
        }
        inner.sweep = false;
        let n = inner.waiting.len().min(LOG_SEAL_BATCH);
        inner.busy = n;
        Some(inner.waiting.drain(..n).collect())
    }

    fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Waits; false when it is time to end instead.
    fn pause(&self, for_ms: u64) -> bool {
        let wait = Duration::from_millis(for_ms);
        let (inner, _) =
            self.wake.wait_timeout_while(self.lock(), wait, |i| !i.stop).unwrap_or_else(PoisonError::into_inner);
        !inner.stop
    }
}

/// A sealed log that has no name yet.
struct Packed {
    log: Arc<Log>,
    temporary: PathBuf,
}

/// Works until the queue is stopped.
pub(crate) fn run(shared: &Arc<Shared>) {
    while let Some(attempts) = shared.seals.take() {
        let mut packed = Vec::new();
        let mut again = Vec::new();
        for attempt in attempts {
            let Some(log) = shared.catalog().get(attempt) else { continue };
            if shared.queue.bytes() > CALM_BYTES && !shared.seals.pause(YIELD_MS) {
                return;
            }
            match pack_or_tidy(shared, &log) {
                Ok(Some(temporary)) => packed.push(Packed { log, temporary }),
                Ok(None) => {}
                Err(fault) => {
                    report(shared, attempt, &fault);
                    // Damage does not heal: the log stays as it is, readable as far as it is good.
                    if !matches!(fault, Fault::Damaged { .. }) {
                        again.push(attempt);
                    }
                }
            }
        }
        let attempts: Vec<AttemptId> = packed.iter().map(|p| p.log.attempt).collect();
        if let Err(fault) = name_all(shared, packed) {
            for attempt in &attempts {
                report(shared, *attempt, &fault);
            }
            again.extend(attempts);
        }
        if let Err(fault) = sweep(shared) {
            tracing::warn!(%fault, "log_segments_not_removed");
            shared.seals.sweep();
            if !shared.seals.pause(RETRY_MS) {
                return;
            }
        }
        if !again.is_empty() && !shared.seals.pause(RETRY_MS) {
            return;
        }
        for attempt in again {
            shared.seals.push(attempt);
        }
    }
}

fn report(shared: &Shared, attempt: AttemptId, fault: &Fault) {
    Counters::add(&shared.counters.seal_failures, 1);
    tracing::warn!(%attempt, %fault, "log_not_sealed");
}

/// [`pack`], with nothing left lying where it came to nothing.
fn pack_or_tidy(shared: &Shared, log: &Arc<Log>) -> Result<Option<PathBuf>, Fault> {
    let packed = pack(shared, log);
    if !matches!(packed, Ok(Some(_))) {
        // What cannot be removed now is at the next try, or at the next start.
        let _left = shared.vfs.remove(&temporary_path(shared, log));
    }
    if log.lock().phase == Phase::Deleted { Ok(None) } else { packed }
}

fn temporary_path(shared: &Shared, log: &Log) -> PathBuf {
    shared.sealed_dir.join(format!("{}.tmp", log.attempt))
}

/// Writes a log's sealed file under a temporary name and syncs it; `None` where the log is gone.
fn pack(shared: &Shared, log: &Arc<Log>) -> Result<Option<PathBuf>, Fault> {
    let (end, why, known) = {
        let state = log.lock();
        if state.phase != (Phase::Ended { durable: true }) {
            return Ok(None);
        }
        (state.durable, state.incomplete.clone(), state.digest)
    };
    let temporary = temporary_path(shared, log);
    match shared.vfs.remove(&temporary) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Fault::disk("remove", &temporary)(e)),
    }
    let file = shared.vfs.create(&temporary).map_err(Fault::disk("create", &temporary))?;
    let write = |e| Fault::disk("write to", &temporary)(e);
    let mut writer = SealedWriter::new(&*file, log.attempt, shared.options.frame_bytes).map_err(write)?;
    let mut source = Source::Live(Arc::clone(log));
    let mut offset = 0;
    while offset < end {
        if shared.seals.is_stopped() {
            return Ok(None);
        }
        for piece in source.fetch(shared, offset, end)? {
            offset = piece.end();
            writer.push(&piece).map_err(write)?;
        }
    }
    let (_, digest) = writer.finish(why.as_deref()).map_err(write)?;
    if known.is_some_and(|known| known != digest) {
        let what = "the log's bytes are not those that were accepted";
        return Err(Fault::Damaged { path: temporary, position: 0, what });
    }
    file.sync_data().map_err(Fault::disk("sync", &temporary))?;
    log.lock().digest = Some(digest);
    log.announce();
    Ok(Some(temporary))
}

/// Gives sealed logs their names, durably and with one sync, and lets go of their records.
fn name_all(shared: &Shared, packed: Vec<Packed>) -> Result<(), Fault> {
    if packed.is_empty() {
        return Ok(());
    }
    let mut shelf = shared.shelf.lock().unwrap_or_else(PoisonError::into_inner);
    let mut named = Vec::new();
    for Packed { log, temporary } in packed {
        if log.lock().phase == (Phase::Ended { durable: true }) {
            let path = shared.sealed_path(log.attempt);
            shared.vfs.rename(&temporary, &path).map_err(Fault::disk("rename", &temporary))?;
            shelf.unsynced = true;
            named.push(log);
        } else {
            shared.vfs.remove(&temporary).map_err(Fault::disk("remove", &temporary))?;
        }
    }
    shared.sync_shelf(&mut shelf)?;
    Counters::add(&shared.counters.sealed_logs, named.len() as u64);
    for log in named {
        let mut catalog = shared.catalog();
        catalog.release(log.attempt);
        log.lock().retire(Phase::Sealed);
        drop(catalog);
        log.announce();
    }
    Ok(())
}

/// Removes segments that nobody holds.
pub(crate) fn sweep(shared: &Shared) -> Result<(), Fault> {
    loop {
        let (files, awaited) = shared.catalog().removable();
        if files.is_empty() {
            return Ok(());
        }
        for file in &files {
            match shared.vfs.remove(&file.path) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Fault::disk("remove", &file.path)(e)),
            }
        }
        // A segment that comes back after a crash is only removed again, unless the mark that voids it went meanwhile.
        if awaited {
            shared.vfs.sync_dir(&shared.segments_dir).map_err(Fault::disk("sync", &shared.segments_dir))?;
        }
        let seqs: Vec<u64> = files.iter().map(|file| file.seq).collect();
        shared.catalog().removed(&seqs);
    }
}
