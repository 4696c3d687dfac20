//! An attempt that the agent holds, and the room that it takes.

use std::collections::BTreeMap;

use windlass_protocol::job::{Epoch, Outcome, Phase, Resources};
use windlass_protocol::limits::ENDED_REMEMBERED_MAX;
use windlass_protocol::{AttemptId, Cause, Instant64, WallMs};

use crate::config::AgentConfig;
use crate::input::Terms;
use crate::spool::Spool;

/// Where an attempt stands. Each stage has somebody who ends it: see [`Holding::deadline`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The runner prepares it; its right, or the runner, ends that.
    Preparing,
    /// The runner was told to start it: its command may run.
    Starting,
    /// Its command runs.
    Running,
    /// It was told to end, politely; `by` is when its end must have been verified.
    Canceling { cause: Cause, kill_at: Instant64, by: Instant64 },
    /// It is being killed and will not be reported; `by` is when that must have been verified.
    Killing { by: Instant64 },
    /// Nothing of it runs; its outcome waits to be committed.
    Finished { outcome: Box<Outcome> },
}

/// An attempt that is held.
#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) terms: Terms,
    pub(crate) epoch: Epoch,
    pub(crate) slot: u32,
    pub(crate) stage: Stage,
    pub(crate) started_at: Option<WallMs>,
    pub(crate) right_until: Instant64,
    /// From its start.
    pub(crate) timeout_at: Option<Instant64>,
    pub(crate) spool: Spool,
    /// A kill or cancel was not verified in time.
    pub(crate) unkillable: bool,
}

impl Holding {
    /// How far it came, as the coordinator counts: what may have started has started.
    pub(crate) const fn phase(&self) -> Phase {
        match self.stage {
            Stage::Preparing => Phase::Preparing,
            Stage::Starting | Stage::Running => Phase::Running,
            Stage::Canceling { .. } | Stage::Killing { .. } if self.started_at.is_none() => Phase::Preparing,
            Stage::Canceling { .. } | Stage::Killing { .. } => Phase::Running,
            Stage::Finished { .. } => Phase::Finished,
        }
    }

    /// Whether the end of its right ends it: if its command has not started, or must never run twice.
    pub(crate) const fn ends_with_right(&self) -> bool {
        match self.stage {
            Stage::Preparing => true,
            Stage::Starting | Stage::Running | Stage::Canceling { .. } => self.terms.exclusive,
            Stage::Killing { .. } | Stage::Finished { .. } => false,
        }
    }

    /// Whether a process of it may exist.
    pub(crate) const fn runs(&self) -> bool {
        !matches!(self.stage, Stage::Finished { .. })
    }

    /// When something must be done about it by itself.
    pub(crate) fn deadline(&self) -> Option<Instant64> {
        let stage = match &self.stage {
            Stage::Canceling { by, .. } | Stage::Killing { by } => Some(*by),
            Stage::Running => self.timeout_at,
            Stage::Preparing | Stage::Starting | Stage::Finished { .. } => None,
        };
        let right = self.ends_with_right().then_some(self.right_until);
        stage.into_iter().chain(right).min()
    }

    /// What it takes of the agent's capacity.
    pub(crate) fn takes(&self, config: &AgentConfig) -> Resources {
        needs(self.terms.resources, config)
    }
}

/// A request with its defaults resolved: no processors named is one slot's share.
pub(crate) fn needs(asked: Resources, config: &AgentConfig) -> Resources {
    let share = config.capacity.cpu_millis / u64::from(config.slots.max(1));
    let cpu_millis = if asked.cpu_millis == 0 { share } else { asked.cpu_millis };
    Resources { cpu_millis, memory_bytes: asked.memory_bytes }
}

/// What is held, by attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    pub(crate) held: BTreeMap<AttemptId, Holding>,
}

impl Slots {
    /// The lowest slot that is free, if the request fits beside what runs; else the thing that is missing. What has
    /// ended and waits for its commit takes no room.
    pub(crate) fn place(&self, asked: Resources, config: &AgentConfig) -> Result<u32, &'static str> {
        let free =
            (0..config.slots).find(|slot| self.held.values().all(|holding| holding.slot != *slot || !holding.runs()));
        let slot = free.ok_or("slots")?;
        let (mut need, capacity) = (needs(asked, config), config.capacity);
        for holding in self.held.values().filter(|holding| holding.runs()) {
            let takes = holding.takes(config);
            need.cpu_millis = need.cpu_millis.saturating_add(takes.cpu_millis);
            need.memory_bytes = need.memory_bytes.saturating_add(takes.memory_bytes);
        }
        if need.cpu_millis > capacity.cpu_millis {
            return Err("processors");
        }
        if need.memory_bytes > capacity.memory_bytes {
            return Err("memory");
        }
        Ok(slot)
    }
}

/// The rights of attempts that are over, so that a late repetition of an offer starts nothing; bounded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended {
    by_epoch: BTreeMap<Epoch, AttemptId>,
    epochs: BTreeMap<AttemptId, Epoch>,
}

impl Ended {
    pub(crate) fn note(&mut self, attempt: AttemptId, epoch: Epoch) {
        if self.epochs.get(&attempt).is_some_and(|known| *known >= epoch) {
            return;
        }
        if let Some(older) = self.epochs.insert(attempt, epoch) {
            self.by_epoch.remove(&older);
        }
        self.by_epoch.insert(epoch, attempt);
        while self.by_epoch.len() > ENDED_REMEMBERED_MAX {
            if let Some((_, oldest)) = self.by_epoch.pop_first() {
                self.epochs.remove(&oldest);
            }
        }
    }

    /// The last right by which it was held.
    pub(crate) fn epoch(&self, attempt: AttemptId) -> Option<Epoch> {
        self.epochs.get(&attempt).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.epochs.len()
    }
}
