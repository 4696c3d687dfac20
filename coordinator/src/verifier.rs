//! The check of every stored byte while the coordinator serves: one at a time, and slow enough that nobody feels it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use windlass_cache::{Progress, Report, Store};
use windlass_protocol::WallMs;
use windlass_protocol::host::now;
use windlass_protocol::limits::VERIFY_BYTES_PER_SECOND;

/// Checks a store; clones share the check that is under way.
#[derive(Debug, Clone)]
pub struct Verifier {
    store: Store,
    check: Arc<Mutex<Check>>,
    stopping: Arc<AtomicBool>,
}

/// A check, as it stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Check {
    pub(crate) started_at: Option<WallMs>,
    pub(crate) progress: Progress,
    /// How it came out; none while it runs.
    pub(crate) ended: Option<Ended>,
}

/// How a check came out.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) at: WallMs,
    pub(crate) outcome: Result<Report, String>,
}

impl Verifier {
    /// Of this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, check: Arc::default(), stopping: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Check> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last check, or the one that is under way.
    pub(crate) fn check(&self) -> Check {
        self.lock().clone()
    }

    /// Begins a check, unless one is under way.
    pub(crate) fn start(&self) -> Check {
        let mut check = self.lock();
        if check.started_at.is_some() && check.ended.is_none() {
            return check.clone();
        }
        *check = Check { started_at: Some(now().wall), ..Check::default() };
        let verifier = self.clone();
        tokio::task::spawn_blocking(move || verifier.run());
        check.clone()
    }

    fn run(&self) {
        let begun = Instant::now();
        let verified = self.store.verify_watched(&mut |progress| {
            self.lock().progress = *progress;
            let due = Duration::from_millis(progress.bytes.saturating_mul(1_000) / VERIFY_BYTES_PER_SECOND);
            if let Some(early) = due.checked_sub(begun.elapsed()) {
                std::thread::sleep(early);
            }
            if self.stopping.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match &verified {
            Ok(report) if report.unreachable_blobs > 0 && report.is_sound() => {
                tracing::warn!(blobs = report.unreachable_blobs, "cache_bucket_not_verified");
            }
            Ok(report) if report.is_sound() => tracing::info!(blobs = report.blobs, "cache_verified"),
            Ok(report) => {
                tracing::warn!(blobs = report.damaged_blobs, bytes = report.damaged_bytes, "cache_damaged");
            }
            Err(error) => tracing::error!(%error, "cache_not_verified"),
        }
        let outcome = verified.map_err(|error| error.to_string());
        self.lock().ended = Some(Ended { at: now().wall, outcome });
    }

    /// Ends the check that is under way when `stop` turns true.
    pub(crate) async fn end_with(self, mut stop: watch::Receiver<bool>) {
        crate::http::stopped(&mut stop).await;
        self.stopping.store(true, Ordering::Relaxed);
    }
}
