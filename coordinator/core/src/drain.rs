//! Drains: an agent finishes what it has and takes nothing more, until a deadline ends what still runs (F21, F22). The
//! agent holds the deadline too; the coordinator's word counts where the agent has not heard it or does not obey.

use windlass_protocol::message::CoordinatorMessage;
use windlass_protocol::{AgentId, AttemptId, Cause, CauseKind, limits};

use crate::error::Rejected;
use crate::row::JobState;
use crate::state::{Core, Phase};
use crate::timer::Timer;

/// What ends when a drain is over.
pub(crate) fn stopped() -> Cause {
    Cause::new(CauseKind::AgentStopped, "the agent's drain has reached its deadline")
}

impl Core {
    /// Whether a drain may last this long.
    pub(crate) fn check_drain(deadline_ms: Option<u64>) -> Result<(), Rejected> {
        if deadline_ms.is_some_and(|ms| ms > limits::TIMEOUT_MAX_MS) {
            return Err(Rejected::Limit { what: "milliseconds of a drain", limit: limits::TIMEOUT_MAX_MS });
        }
        Ok(())
    }

    /// Takes nothing more; all that are named become ineligible in this one commit (F22). A new drain's deadline takes
    /// the place of an older one's.
    pub(crate) fn drain(&mut self, id: AgentId, deadline_ms: Option<u64>) {
        let wall = self.now.wall;
        if let Some(agent) = self.agents.get_mut(&id) {
            (agent.row.draining, agent.row.drain_until) = (true, deadline_ms.map(|ms| wall.plus_ms(ms)));
            self.book.agents.insert(id);
        }
        self.send(id, CoordinatorMessage::Drain { deadline_ms, leave: false });
        self.watch_drain(id);
        self.refresh(id);
    }

    /// Lets an agent take work again. What the drain's end has already stopped stays so.
    pub(crate) fn resume(&mut self, id: AgentId) {
        if let Some(agent) = self.agents.get_mut(&id) {
            (agent.row.draining, agent.row.drain_until) = (false, None);
            agent.self_draining = false;
            self.book.agents.insert(id);
        }
        self.timers.clear(Timer::Drain(id));
        self.send(id, CoordinatorMessage::Resume);
        self.refresh(id);
    }

    /// Sets the deadline of an agent's drain, if it has one.
    pub(crate) fn watch_drain(&mut self, id: AgentId) {
        self.timers.clear(Timer::Drain(id));
        if let Some(until) = self.agents.get(&id).and_then(|agent| agent.row.drain_until) {
            self.timers.set(Timer::Drain(id), self.mono_of(until));
        }
    }

    /// An agent that drains is on a new connection: it hears it again, with the time that is left.
    pub(crate) fn repeat_drain(&mut self, id: AgentId) {
        let Some(row) = self.agents.get(&id).map(|agent| &agent.row).filter(|row| row.draining) else { return };
        let deadline_ms = row.drain_until.map(|until| until.0.saturating_sub(self.now.wall.0));
        self.send(id, CoordinatorMessage::Drain { deadline_ms, leave: false });
        if deadline_ms == Some(0) {
            self.stop_held(id);
        }
    }

    /// A drain's deadline has come.
    pub(crate) fn on_drain_over(&mut self, id: AgentId) {
        let Some(until) = self.agents.get(&id).and_then(|agent| agent.row.drain_until) else { return };
        if until > self.now.wall {
            self.watch_drain(id);
        } else {
            self.stop_held(id);
        }
    }

    /// Ends what an agent still runs, with its job's grace; whether it is run again is for its step to say (F23).
    fn stop_held(&mut self, id: AgentId) {
        let held: Vec<AttemptId> =
            self.agents.get(&id).map(|agent| agent.slots.keys().copied()).into_iter().flatten().collect();
        for attempt in held {
            let Some(lease) = self.leases.get_mut(&attempt).filter(|lease| lease.agent == id) else { continue };
            if lease.stopping || self.jobs[&lease.job].row.state != JobState::Assigned {
                continue;
            }
            match lease.phase {
                Phase::Finishing(_) | Phase::Withdrawn => {}
                Phase::Offered => self.withdraw(attempt),
                Phase::Unknown | Phase::Accepted | Phase::Running => {
                    lease.stopping = true;
                    let epoch = lease.epoch;
                    self.send(id, CoordinatorMessage::Cancel { attempt, epoch, cause: stopped(), grace_ms: None });
                    self.arm(attempt);
                }
            }
        }
    }
}
