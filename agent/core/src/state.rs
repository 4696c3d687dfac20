//! The machine: what is held, the link, the drain, and the clock that moves them.

mod attempt;
mod leaving;
mod session;

use std::collections::{BTreeMap, VecDeque};

use windlass_protocol::job::{Epoch, Phase};
use windlass_protocol::message::{AgentMessage, Health};
use windlass_protocol::stock::{Fetched, Stocked};
use windlass_protocol::{AttemptId, CauseKind, HostFacts, Instant64, Now, WallMs};

use crate::config::AgentConfig;
use crate::drain::Drain;
use crate::effect::Effect;
use crate::error::Rejected;
use crate::input::{Found, Input, Terms};
use crate::jitter::Jitter;
use crate::link::{Link, Pauses};
use crate::renew::Renewal;
use crate::slot::{Ended, Holding, Slots, Stage};
use crate::spool::Spool;

/// Decides what an agent runs. Owns no socket, file, clock or process.
#[derive(Debug, Clone)]
pub struct AgentCore {
    pub(crate) config: AgentConfig,
    pub(crate) slots: Slots,
    pub(crate) ended: Ended,
    /// Attempts of which nothing runs and nothing is reported, until the coordinator knows that durably: one that had
    /// started and was forgotten too soon would be taken for one that never did, and run again (I3).
    pub(crate) dropped: BTreeMap<AttemptId, Dropped>,
    pub(crate) link: Link,
    pub(crate) pauses: Pauses,
    pub(crate) renewal: Renewal,
    pub(crate) drain: Drain,
    pub(crate) health: Health,
    /// What the machine has of the large inputs of jobs, and what it has brought.
    pub(crate) stock: (Vec<Stocked>, Fetched),
    /// Jobs taken since the start (for `--once`).
    pub(crate) taken: u64,
    pub(crate) jitter: Jitter,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) left: bool,
}

/// An attempt of which nothing runs and nothing will be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) epoch: Epoch,
    pub(crate) started_at: Option<WallMs>,
}

/// Where an attempt stands on its agent, for views and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StageName {
    /// Being prepared.
    Preparing,
    /// Told to start.
    Starting,
    /// Its command runs.
    Running,
    /// Told to end.
    Canceling,
    /// Being killed.
    Killing,
    /// Ended; its outcome waits to be committed.
    Finished,
}

impl AgentCore {
    /// An agent that starts, with what it found of an earlier run of its own. Its first effect is to connect.
    #[must_use]
    pub fn new(now: Now, config: AgentConfig, found: Vec<Found>) -> Self {
        let mut core = Self {
            jitter: Jitter::new(config.seed),
            health: Health { runs_images: config.runs_images, ..Health::default() },
            stock: (Vec::new(), Fetched::default()),
            config,
            slots: Slots::default(),
            ended: Ended::default(),
            dropped: BTreeMap::new(),
            link: Link::Dialling { until: now.mono },
            pauses: Pauses::default(),
            renewal: Renewal::new(),
            drain: Drain::default(),
            taken: 0,
            effects: VecDeque::new(),
            left: false,
        };
        for one in found {
            core.readopt(now, one);
        }
        core.redial(now.mono, false);
        core
    }

    /// Takes one input.
    ///
    /// # Errors
    /// [`Rejected`] where it makes no sense now: it is dropped, and nothing else stops.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), Rejected> {
        if self.left {
            return Err(Rejected::Left);
        }
        // Rights that have ended end before anything else is believed, whatever order a woken machine hands things in.
        self.expire(now);
        let result = self.dispatch(now, input);
        self.settle(now.mono);
        result
    }

    /// The next thing to do, until there is none.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` only after the agent has left.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant64> {
        if self.left {
            return None;
        }
        let beat = self.link.welcomed().map(|_| self.renewal.next_beat);
        let held = self.slots.held.values().filter_map(Holding::deadline);
        let drain = self.drain_cancel_at().into_iter().chain(self.drain.quit_by);
        self.link.deadline().into_iter().chain(beat).chain(held).chain(drain).min()
    }

    /// What its next hello says of its machine.
    pub fn set_host(&mut self, host: HostFacts) {
        self.config.host = host;
    }

    /// Does what time alone asks for.
    pub fn handle_timeout(&mut self, now: Now) {
        if !self.left {
            self.expire(now);
            self.settle(now.mono);
        }
    }

    /// What is held, with its right and stage.
    pub fn held(&self) -> impl Iterator<Item = (AttemptId, Epoch, StageName)> + '_ {
        self.slots.held.iter().map(|(attempt, holding)| (*attempt, holding.epoch, holding.stage_name()))
    }

    fn dispatch(&mut self, now: Now, input: Input) -> Result<(), Rejected> {
        match input {
            Input::Connected { conn } => self.connected(now.mono, conn),
            Input::ConnectionLost { conn } => self.connection_lost(now.mono, conn),
            Input::Message { conn, message } => self.message(now, conn, message),
            Input::Prepared { attempt } => self.prepared(attempt),
            Input::Started { attempt, at } => self.started(now.mono, attempt, at),
            Input::Ended { attempt, outcome } => self.ended(attempt, outcome),
            Input::RunnerGone { attempt } => self.runner_gone(attempt),
            Input::SpoolAt { attempt, end } => self.spool_at(attempt, end),
            Input::Signal(signal) => {
                self.signal(now.mono, signal);
                Ok(())
            }
            Input::HealthSample(health) => {
                self.health = Health { cannot_kill: self.health.cannot_kill, ..health };
                self.config.runs_images = health.runs_images;
                Ok(())
            }
            Input::Stock { inputs, fetched } => {
                self.stock = (inputs, fetched);
                // Else it is said after the welcome.
                if self.link.welcomed().is_some() {
                    self.say_stock();
                }
                Ok(())
            }
            Input::CertificateDue { csr } => self
                .say(AgentMessage::Renew { csr })
                .then_some(())
                .ok_or(Rejected::OutOfTurn("a certificate's renewal")),
        }
    }

    /// Everything that is due: first rights, then stages, then the drain, then beats, then the link.
    fn expire(&mut self, now: Now) {
        let due: Vec<AttemptId> = self
            .slots
            .held
            .iter()
            .filter(|(_, holding)| holding.deadline().is_some_and(|deadline| deadline <= now.mono))
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in due {
            self.attempt_due(now.mono, attempt);
        }
        self.drain_due(now.mono);
        self.beat_due(now.mono);
        if self.link.deadline().is_some_and(|deadline| deadline <= now.mono) {
            self.redial(now.mono, false);
        }
    }

    /// Says it if the coordinator listens; whether it does.
    pub(crate) fn say(&mut self, message: AgentMessage) -> bool {
        let Some(conn) = self.link.welcomed() else { return false };
        self.effects.push_back(Effect::Say { conn, message: Box::new(message) });
        true
    }

    fn readopt(&mut self, now: Now, found: Found) {
        let (attempt, epoch) = (found.attempt, found.epoch);
        let Some(terms) = found.terms else { return self.hold_unreadable(now, &found) };
        let lapsed = found.outcome.as_ref().and_then(|outcome| outcome.cause.as_ref());
        let lapsed = lapsed.is_some_and(|cause| cause.kind == CauseKind::LeaseLost);
        if lapsed || (found.phase == Phase::Preparing && found.outcome.is_none()) {
            // Its command never started and never will, or it was killed without a result.
            self.ended.note(attempt, epoch);
            self.dropped.insert(attempt, Dropped { epoch, started_at: found.started_at });
            return;
        }
        let timeout_at = terms.timeout_ms.map(|timeout_ms| {
            let ran_ms = found.started_at.map_or(0, |at| now.wall.0.saturating_sub(at.0));
            now.mono.plus_ms(timeout_ms.saturating_sub(ran_ms))
        });
        let stage = match (found.outcome, found.started_at) {
            (Some(outcome), _) => Stage::Finished { outcome: Box::new(outcome) },
            (None, Some(_)) => Stage::Running,
            (None, None) => Stage::Starting,
        };
        let holding = Holding {
            epoch,
            slot: self.free_slot(),
            stage,
            started_at: found.started_at,
            right_until: found.deadline.unwrap_or(now.mono),
            timeout_at,
            spool: Spool { acked: found.spool_start, end: found.spool_end, sending: false },
            unkillable: false,
            terms,
        };
        self.taken += 1;
        self.slots.held.insert(attempt, holding);
    }

    /// Nothing is known of it but its right: it is ended, and until that is verified it is held and nothing else taken,
    /// for what it takes of the machine, and whose user it has, is not known either.
    fn hold_unreadable(&mut self, now: Now, found: &Found) {
        if self.config.bugs.forgets_unreadable {
            return;
        }
        let holding = Holding {
            terms: Terms::unknown(self.config.capacity),
            epoch: found.epoch,
            slot: self.free_slot(),
            stage: Stage::Running,
            // What may have started has started.
            started_at: found.started_at.or(Some(now.wall)),
            right_until: now.mono,
            timeout_at: None,
            // What was let go of its log cannot be sent again, should it still grow.
            spool: Spool { acked: found.spool_start, end: found.spool_start, sending: false },
            unkillable: true,
        };
        self.taken += 1;
        self.slots.held.insert(found.attempt, holding);
        self.kill(now.mono, found.attempt);
        self.quarantine();
    }

    /// The lowest number that no holding has; a restart with fewer slots may go past the configured ones.
    fn free_slot(&self) -> u32 {
        (0..u32::MAX).find(|slot| self.slots.held.values().all(|holding| holding.slot != *slot)).unwrap_or(u32::MAX)
    }
}

impl Holding {
    pub(crate) const fn stage_name(&self) -> StageName {
        match self.stage {
            Stage::Preparing => StageName::Preparing,
            Stage::Starting => StageName::Starting,
            Stage::Running => StageName::Running,
            Stage::Canceling { .. } => StageName::Canceling,
            Stage::Killing { .. } => StageName::Killing,
            Stage::Finished { .. } => StageName::Finished,
        }
    }
}
