//! Every deadline of the core, in one table (I10).

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{AgentId, AttemptId, BuildId, Instant64, JobId};

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// An agent that is not heard of by now is suspect, then lost.
    Silence(AgentId),
    /// An agent that refused an offer gets offers again.
    Backoff(AgentId),
    /// An agent has been away for so long that it is forgotten.
    Absence(AgentId),
    /// A drain has reached its deadline.
    Drain(AgentId),
    /// An offer has not been answered.
    Offer(AttemptId),
    /// The agent took the offer and has not started the command.
    Prepare(AttemptId),
    /// The agent was told to drop an offer and has not answered.
    Withdraw(AttemptId),
    /// The command has run for longer than it may, and its agent has not ended it.
    Timeout(AttemptId),
    /// The agent was told to end the attempt and has not answered.
    Close(AttemptId),
    /// The command has ended, and its log is still not durable to its end.
    Settle(AttemptId),
    /// A job that was held back may be leased.
    NotBefore(JobId),
    /// A build's pin ends.
    Pin(BuildId),
    /// What ran of a job that has ended has surely ended: its slot of a concurrency group is free.
    Hold(JobId),
    /// Jobs of this build have waited too long for an agent, or the build has lived too long.
    Expiry(BuildId),
    /// A schedule may be due.
    Schedules,
    /// The shell has not said what an ordered build runs.
    Order(BuildId),
    /// The shell has not said what a job's key is.
    Key(JobId),
    /// A notification may be due, or one that is on its way has been for too long.
    Notifications,
    /// A job has waited long enough for an agent that has its inputs.
    Patience(JobId),
    /// Jobs that fit nowhere have waited long enough for capacity to be kept for them.
    Reserve,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Instant64, Timer)>,
    at: BTreeMap<Timer, Instant64>,
}

impl Timers {
    /// Sets or moves a deadline.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant64) {
        if let Some(old) = self.at.insert(timer, at) {
            self.due.remove(&(old, timer));
        }
        self.due.insert((at, timer));
    }

    /// Forgets a deadline.
    pub(crate) fn clear(&mut self, timer: Timer) {
        if let Some(old) = self.at.remove(&timer) {
            self.due.remove(&(old, timer));
        }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the next one that is due by `now`.
    pub(crate) fn pop(&mut self, now: Instant64) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }

    /// Whether this deadline is set.
    pub(crate) fn has(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }
}
