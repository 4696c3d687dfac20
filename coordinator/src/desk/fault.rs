//! A failed commit: nothing of it is said, and the core is loaded again from what is stored.

use std::time::Duration;

use tokio::time::Instant;
use windlass_coordinator_core::row::Rows;
use windlass_coordinator_store::Fault;
use windlass_protocol::message::RefuseCode;
use windlass_protocol::{Now, limits};

use super::handle::DeskError;
use super::{Decide, Desk, DeskEnd};
use crate::writer::Loaded;

/// Since when and why there is no core, and how often in a row that was so.
#[derive(Debug, Default)]
pub(super) struct Down {
    /// Commits and loads that failed since the last commit that did not.
    failures: u32,
    /// When to load again.
    until: Option<Instant>,
    fault: Option<Fault>,
    /// When the free space was last looked at.
    looked: Option<Instant>,
}

impl Down {
    fn failed(&mut self, fault: Fault) {
        let doubled = limits::RELOAD_PAUSE_MIN_MS.saturating_mul(1 << self.failures.min(16));
        self.until = Some(Instant::now() + Duration::from_millis(doubled.min(limits::RELOAD_PAUSE_MAX_MS)));
        self.failures = self.failures.saturating_add(1);
        self.fault = Some(fault);
    }

    /// A commit was made.
    pub(super) fn recovered(&mut self) {
        (self.failures, self.until, self.fault) = (0, None, None);
    }

    pub(super) fn is_time_to_load(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    /// The load has begun.
    pub(super) fn loading(&mut self) {
        self.until = None;
    }

    /// The free space is known.
    pub(super) fn looked(&mut self) {
        self.looked = Some(Instant::now());
    }

    /// Always, not only while there is little: a disk that others fill is to be known as full before a new build is
    /// taken, not by the commit of one.
    pub(super) fn is_time_to_probe(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= PROBE)
    }

    /// What those are told who ask while there is no core.
    pub(super) fn error(&self) -> DeskError {
        self.fault.as_ref().map_or(DeskError::Unavailable, DeskError::of)
    }

    /// Until there is something to do.
    pub(super) fn sleep(&self) -> Duration {
        match self.until {
            Some(until) => until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)),
            None => PROBE,
        }
    }
}

const PROBE: Duration = Duration::from_millis(limits::SPACE_PROBE_MS);

impl<C: Decide, M: FnMut(Now, Rows) -> C> Desk<C, M> {
    /// Takes back everything that is not durable. Who waits is told to come again; agents are sent away and return.
    pub(super) fn fail(&mut self, fault: Fault) -> Option<DeskEnd> {
        tracing::error!(%fault, waiting = self.waiting.len(), "commit_failed");
        self.ports.meter.commit_failed(&fault);
        self.core = None;
        self.in_flight = None;
        self.batch.discard();
        self.timers_deferred = 0;
        self.refuse_all(&DeskError::of(&fault));
        self.ports
            .fleet
            .disconnect_all(RefuseCode::Unavailable, "the coordinator could not store its decisions".to_owned());
        if matches!(fault, Fault::Fenced { .. }) {
            return Some(DeskEnd::Fenced(fault));
        }
        self.down.failed(fault);
        None
    }

    /// Goes on with what is stored, or tries again later.
    pub(super) fn resume(&mut self, result: Result<Box<Loaded>, Fault>) -> Option<DeskEnd> {
        match result {
            Ok(loaded) => {
                tracing::warn!(seq = loaded.seq.0, builds = loaded.rows.builds.len(), "core_loaded_again");
                self.ports.views.reset(&loaded.rows, loaded.seq);
                self.core = Some((self.make)(self.ports.clock.now(), loaded.rows));
                self.absorb();
                None
            }
            Err(fault @ Fault::Fenced { .. }) => Some(DeskEnd::Fenced(fault)),
            Err(fault) => {
                tracing::error!(%fault, "load_failed");
                self.down.failed(fault);
                None
            }
        }
    }

    /// Nobody waits in vain: every request that was taken is answered.
    fn refuse_all(&mut self, error: &DeskError) {
        for (_, answer) in std::mem::take(&mut self.waiting) {
            let _gone = answer.send(Err(error.clone()));
        }
        for (_, answer) in std::mem::take(&mut self.expiring) {
            let _gone = answer.send(Err(error.clone()));
        }
    }

    /// Ends: what was taken and not served is refused, and the store is closed.
    pub(super) async fn end(mut self, end: DeskEnd) -> DeskEnd {
        tracing::info!(?end, "desk_ended");
        self.refuse_all(&DeskError::ShuttingDown);
        self.sources.refuse_rest();
        self.writer.close().await;
        end
    }
}
