//! The handle that the rest of the coordinator holds.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use windlass_cache::Vfs;
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{DETAIL_MAX_BYTES, LOG_CHUNK_MAX_BYTES};
use windlass_protocol::{AttemptId, Digest, WallMs};

use crate::ack::Acks;
use crate::error::{Fault, Refused};
use crate::follow::Follower;
use crate::log::{Log, Phase, Piece};
use crate::queue::{Item, What};
use crate::read::{PieceReader, Source};
use crate::recover::recover;
use crate::seal;
use crate::sealed::cut;
use crate::shared::{Counters, DiskState, Options, Shared};
use crate::writer::Writer;

/// All logs of a coordinator. Clones are the same store; it closes when the last one is dropped, and what was not
/// acknowledged by then may be lost, as in a crash.
#[derive(Debug, Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

#[derive(Debug)]
struct Threads {
    shared: Arc<Shared>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

/// Where a log stands after an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where the next piece is expected.
    pub end: u64,
    /// How many of the bytes were new.
    pub fresh_bytes: u64,
}

/// How long a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLen {
    /// Bytes that no crash takes back.
    pub durable: u64,
    /// Bytes accepted; watchers may have seen them.
    pub live: u64,
    /// Whether it is in a sealed file.
    pub sealed: bool,
    /// Of its bytes, where it has ended and that is known.
    pub digest: Option<Digest>,
    /// Why it lacks something, if it does.
    pub incomplete: Option<String>,
}

/// Figures for metrics and operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Logs that are not sealed.
    pub live_logs: usize,
    /// Segments on the disk, and their bytes.
    pub segments: usize,
    /// Bytes of all segments.
    pub segment_bytes: u64,
    /// Log bytes accepted since the store was opened.
    pub appended_bytes: u64,
    /// Log bytes made durable since then.
    pub durable_bytes: u64,
    /// Group commits since then, one sync each.
    pub commits: u64,
    /// Log bytes that wait to be durable.
    pub queued_bytes: usize,
    /// Logs that wait to be sealed.
    pub seal_backlog: usize,
    /// Logs sealed since the store was opened.
    pub sealed_logs: u64,
    /// Times that sealing failed since then.
    pub seal_failures: u64,
    /// Runs and frames read from files since then.
    pub file_reads: u64,
    /// How the disk does.
    pub disk: DiskState,
}

impl LogStore {
    /// Opens a directory, made where it is missing; reads back what a crash left. Reads all live segments: run it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// [`Fault`] where the disk refuses.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: Options) -> Result<Self, Fault> {
        let recovered = recover(&*vfs, dir)?;
        let shared = Arc::new(Shared::new(vfs, dir, options, recovered.catalog));
        let writer = Writer::new(Arc::clone(&shared), recovered.next_seq);
        let threads = Arc::new(Threads { shared: Arc::clone(&shared), handles: Mutex::new(Vec::new()) });
        threads.start("log-writer", move || writer.run())?;
        shared.seals.sweep();
        for attempt in recovered.unsealed {
            shared.seals.push(attempt);
        }
        let sealer = Arc::clone(&shared);
        threads.start("log-sealer", move || seal::run(&sealer))?;
        Ok(Self { shared, threads })
    }

    /// Adds bytes to a log. Returns when they are accepted (watchers see them), which is before they are durable: that
    /// is told by [`LogStore::acks`]. Waits while the queue is full. Bytes that the log has are dropped, and
    /// acknowledged again if they are durable; of a piece that reaches past the end, the new part is taken.
    ///
    /// # Errors
    /// [`Refused`]; of bytes longer than a chunk, a part may have been accepted before.
    pub async fn append(
        &self,
        attempt: AttemptId,
        epoch: Epoch,
        offset: u64,
        at: WallMs,
        bytes: Bytes,
    ) -> Result<Appended, Refused> {
        let log = self.shared.open_log(attempt).ok_or(Refused::Ended)?;
        let mut appended = Appended { end: offset, fresh_bytes: 0 };
        let mut rest = Piece { offset, at, bytes };
        loop {
            let part = rest.bytes.split_to(rest.bytes.len().min(LOG_CHUNK_MAX_BYTES));
            let piece = Piece { offset: rest.offset, at, bytes: part };
            rest.offset = rest.offset.saturating_add(piece.bytes.len() as u64);
            let one = self.append_piece(&log, epoch, piece).await?;
            appended.end = one.end;
            appended.fresh_bytes += one.fresh_bytes;
            if rest.bytes.is_empty() {
                return Ok(appended);
            }
        }
    }

    async fn append_piece(&self, log: &Arc<Log>, epoch: Epoch, piece: Piece) -> Result<Appended, Refused> {
        let limit_bytes = self.shared.options.log_max_bytes;
        {
            let state = log.lock();
            if state.admit(epoch, &piece, limit_bytes)?.is_none() {
                let (end, durable) = (state.end, state.durable);
                drop(state);
                self.shared.acknowledge(&[(log.attempt, durable)]);
                return Ok(Appended { end, fresh_bytes: 0 });
            }
        }
        let bytes = u32::try_from(piece.bytes.len()).unwrap_or(u32::MAX);
        let closing = |_| Refused::Closing;
        let room = vec![
            Arc::clone(&log.room).acquire_many_owned(bytes).await.map_err(closing)?,
            Arc::clone(&self.shared.room).acquire_many_owned(bytes).await.map_err(closing)?,
        ];
        let mut state = log.lock();
        // Asked again: others may have come first while this one waited for room.
        let Some(fresh) = state.admit(epoch, &piece, limit_bytes)? else {
            return Ok(Appended { end: state.end, fresh_bytes: 0 });
        };
        let item = Item { log: Arc::clone(log), what: What::Data(fresh.clone()), room };
        if !self.shared.queue.push(item) {
            return Err(Refused::Closing);
        }
        let appended = Appended { end: fresh.end(), fresh_bytes: fresh.bytes.len() as u64 };
        state.accept(fresh);
        drop(state);
        Counters::add(&self.shared.counters.appended_bytes, appended.fresh_bytes);
        log.announce();
        Ok(appended)
    }

    /// Refuses, from now on, bytes under rights older than `least`; with `ended` all of them, and the log is sealed in
    /// the background once it is durable. Resolves when that is durable; an end waits for company for some milliseconds,
    /// so that logs that end together share a sync, and one without bytes or marks leaves nothing and needs none. Asking
    /// again changes nothing.
    ///
    /// # Errors
    /// [`Fault::Closing`].
    pub async fn fence(&self, attempt: AttemptId, least: Epoch, ended: bool) -> Result<(), Fault> {
        let Some(log) = self.shared.open_log(attempt) else { return Ok(()) };
        if ended && log.lock().end_untouched() {
            self.shared.catalog().forget(attempt);
            log.announce();
            return Ok(());
        }
        self.mark(&log, |state, done| {
            if state.phase == Phase::Open && ended {
                state.phase = Phase::Ended { durable: false };
            }
            state.least = state.least.max(least);
            let told = matches!(state.phase, Phase::Ended { durable: true } | Phase::Sealed | Phase::Deleted);
            let ended = ended || state.phase == (Phase::Ended { durable: false });
            (!told).then_some(What::Fence { least: state.least, ended, done })
        })
        .await
    }

    /// The log has ended: nothing more is accepted, and it is sealed. As [`LogStore::fence`] with `ended`.
    ///
    /// # Errors
    /// [`Fault::Closing`].
    pub async fn seal(&self, attempt: AttemptId) -> Result<(), Fault> {
        self.fence(attempt, Epoch(0), true).await
    }

    /// Notes that a log lacks something, and why. A log that has ended keeps what it says. Resolves when it is durable.
    ///
    /// # Errors
    /// [`Fault::Closing`].
    pub async fn incomplete(&self, attempt: AttemptId, why: &str) -> Result<(), Fault> {
        let Some(log) = self.shared.open_log(attempt) else { return Ok(()) };
        let why = cut(why, DETAIL_MAX_BYTES).to_owned();
        self.mark(&log, |state, done| {
            if state.phase != Phase::Open {
                return None;
            }
            state.incomplete = Some(why.clone());
            Some(What::Incomplete { why, done })
        })
        .await
    }

    /// Puts a mark behind all that was accepted of a log, and waits until it is durable.
    async fn mark(
        &self,
        log: &Arc<Log>,
        make: impl FnOnce(&mut crate::log::State, oneshot::Sender<()>) -> Option<What> + Send,
    ) -> Result<(), Fault> {
        let room = Arc::clone(&self.shared.control_room).acquire_owned().await.map_err(|_| Fault::Closing)?;
        let (done, wait) = oneshot::channel();
        {
            let mut state = log.lock();
            let Some(what) = make(&mut state, done) else { return Ok(()) };
            if !self.shared.queue.push(Item { log: Arc::clone(log), what, room: vec![room] }) {
                return Err(Fault::Closing);
            }
        }
        log.announce();
        wait.await.map_err(|_| Fault::Closing)
    }

    /// Waits until a log is durable to this length with this digest; the caller sets the deadline.
    ///
    /// # Errors
    /// A sentence, where that can never be: the log is longer, has another digest, or lacks something.
    pub async fn settle(&self, attempt: AttemptId, bytes: u64, digest: Digest) -> Result<(), String> {
        let told = |fault: Fault| fault.to_string();
        let Some(log) = self.shared.open_log(attempt) else {
            let len = self.len(attempt).await.map_err(told)?;
            let (durable, known) = len.map_or((0, Digest::of(b"")), |l| (l.durable, l.digest.unwrap_or(digest)));
            return agree(durable, known, bytes, digest);
        };
        let mut changed = log.subscribe();
        loop {
            changed.mark_unchanged();
            let (end, durable, known) = {
                let state = log.lock();
                if let Some(why) = &state.incomplete {
                    return Err(why.clone());
                }
                if matches!(state.phase, Phase::Deleted) {
                    return Err(format!("the log of attempt {attempt} was deleted"));
                }
                let known = state.digest.or_else(|| state.hasher.as_ref().map(Digest::from_hasher));
                (state.end, state.durable, known)
            };
            if end > bytes {
                return Err(format!("the log is longer than the {bytes} bytes of the result: {end}"));
            }
            if durable == bytes {
                let known = match known {
                    Some(known) => known,
                    None => self.digest_of(&log, durable).await.map_err(told)?,
                };
                return agree(durable, known, bytes, digest);
            }
            changed.changed().await.map_err(|_| Fault::Closing.to_string())?;
        }
    }

    /// The digest of a log's first bytes, read back from the files.
    async fn digest_of(&self, log: &Arc<Log>, end: u64) -> Result<Digest, Fault> {
        let log = Arc::clone(log);
        self.shared
            .blocking(move |shared| {
                let mut source = Source::Live(Arc::clone(&log));
                let mut hasher = blake3::Hasher::new();
                let mut offset = 0;
                while offset < end {
                    for piece in source.fetch(shared, offset, end)? {
                        hasher.update(&piece.bytes);
                        offset = piece.end();
                    }
                }
                let digest = Digest::from_hasher(&hasher);
                let mut state = log.lock();
                if state.durable == end && state.hasher.is_none() && state.phase == Phase::Open {
                    state.hasher = Some(hasher);
                }
                drop(state);
                Ok(digest)
            })
            .await
    }

    /// Reads the durable bytes of a range; what lies past the durable end is left out.
    ///
    /// # Errors
    /// [`Fault::Unknown`] where there is no such log; others where the disk fails.
    pub async fn read(&self, attempt: AttemptId, range: Range<u64>) -> Result<PieceReader, Fault> {
        let source = self.shared.blocking(move |shared| Source::open(shared, attempt)).await?;
        let durable = match &source {
            Source::Live(log) => log.lock().durable,
            Source::Sealed(file) => file.bytes,
        };
        let end = range.end.min(durable);
        let shared = Arc::clone(&self.shared);
        Ok(PieceReader { shared, source, offset: range.start.min(end), end, pieces: VecDeque::new() })
    }

    /// How long a log is; `None` where there is none (one that ended without a byte is forgotten).
    ///
    /// # Errors
    /// [`Fault`] where the disk fails.
    pub async fn len(&self, attempt: AttemptId) -> Result<Option<LogLen>, Fault> {
        if let Some(log) = self.shared.live(attempt) {
            let state = log.lock();
            let (durable, live, digest) = (state.durable, state.end, state.digest);
            return Ok(Some(LogLen { durable, live, sealed: false, digest, incomplete: state.incomplete.clone() }));
        }
        match self.shared.blocking(move |shared| shared.open_sealed(attempt)).await {
            Ok(file) => {
                let (bytes, digest) = (file.bytes, Some(file.digest));
                Ok(Some(LogLen { durable: bytes, live: bytes, sealed: true, digest, incomplete: file.incomplete }))
            }
            Err(Fault::Unknown { .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Watches a log from an offset on; one that does not exist yet is waited for. So is one that ended without a byte
    /// in an earlier run, of which nothing is kept: who knows from the store's rows that a log is empty need not ask.
    ///
    /// # Errors
    /// [`Fault`] where the disk fails.
    pub async fn follow(&self, attempt: AttemptId, from_offset: u64) -> Result<Follower, Fault> {
        let opened = self.shared.blocking(move |shared| Source::open(shared, attempt)).await;
        let source = match opened {
            Ok(source) => source,
            Err(Fault::Unknown { .. }) => Source::Live(self.shared.follow_log(attempt)?),
            Err(fault) => return Err(fault),
        };
        Ok(Follower::new(Arc::clone(&self.shared), source, from_offset))
    }

    /// How far logs are durable, from now on.
    #[must_use]
    pub fn acks(&self) -> Acks {
        let (acks, board) = Acks::new();
        self.shared.add_acks(&board);
        acks
    }

    /// Removes logs for good: their retention is over. Resolves when that is durable.
    ///
    /// # Errors
    /// [`Fault`] where the disk fails; asking again is safe.
    pub async fn delete(&self, attempts: Vec<AttemptId>) -> Result<(), Fault> {
        let store = self.shared.clone();
        self.shared.blocking(move |_| store.delete(&attempts)).await
    }

    /// Attempts whose logs may still grow: neither sealed, nor deleted, nor marked as ended.
    #[must_use]
    pub fn open_logs(&self) -> Vec<AttemptId> {
        self.shared.catalog().open_logs()
    }

    /// Figures for metrics and operators.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (live_logs, (segments, segment_bytes)) = {
            let catalog = self.shared.catalog();
            (catalog.log_count(), catalog.segment_stats())
        };
        let counters = &self.shared.counters;
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            live_logs,
            segments,
            segment_bytes,
            appended_bytes: get(&counters.appended_bytes),
            durable_bytes: get(&counters.durable_bytes),
            commits: get(&counters.commits),
            queued_bytes: self.shared.queue.bytes(),
            seal_backlog: self.shared.seals.backlog(),
            sealed_logs: get(&counters.sealed_logs),
            seal_failures: get(&counters.seal_failures),
            file_reads: get(&counters.file_reads),
            disk: self.shared.disk.borrow().clone(),
        }
    }

    /// How the disk does, now and from now on.
    #[must_use]
    pub fn disk(&self) -> watch::Receiver<DiskState> {
        self.shared.disk.subscribe()
    }

    /// Waits until nothing is left to seal and no segment to remove.
    pub async fn quiet(&self) {
        // The sender lives as long as this handle.
        let mut idle = self.shared.seals.idle();
        let _still_open = idle.wait_for(|idle| *idle).await;
    }

    /// Makes durable what was accepted, and ends the threads; later calls are refused. Sealing goes on at the next
    /// start.
    pub async fn close(self) {
        self.shared.queue.stop(true);
        let threads = Arc::clone(&self.threads);
        drop(self);
        let joined = tokio::task::spawn_blocking(move || threads.end()).await;
        if let Err(e) = joined {
            tracing::warn!(error = %e, "log_store_not_closed");
        }
    }
}

fn agree(durable: u64, known: Digest, bytes: u64, digest: Digest) -> Result<(), String> {
    if durable != bytes {
        return Err(format!("the log has ended with {durable} bytes, the result says {bytes}"));
    }
    if known != digest {
        return Err(format!("the log's {bytes} bytes have digest {known}, the result says {digest}"));
    }
    Ok(())
}

impl Threads {
    fn start(&self, name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), Fault> {
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        let handle = spawned.map_err(Fault::disk("start the thread of", Path::new(name)))?;
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
        Ok(())
    }

    /// Waits for the threads, which were told to end.
    fn end(&self) {
        self.shared.seals.stop();
        let handles = std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner));
        for handle in handles {
            if handle.join().is_err() {
                tracing::error!("log_thread_panicked");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.queue.stop(false);
        self.end();
    }
}
