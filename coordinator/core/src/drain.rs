//! Drains: an agent finishes what it has and takes nothing more, until a deadline ends what still runs (F21, F22). The
//! agent holds the deadline too; the coordinator's word counts where the agent has not heard it or does not obey. An
//! agent that may take its time past the deadline is not told of it.

use windlass_protocol::message::CoordinatorMessage;
use windlass_protocol::{AgentId, AttemptId, Cause, CauseKind, JobId, WallMs, limits};

use crate::concurrency::runs_alone;
use crate::error::Rejected;
use crate::row::{Actor, JobState, OnDeadline};
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

    /// Agents take nothing more; all become ineligible in this one commit, before what any of them is told can free a
    /// job (F22). A new drain's deadline takes the place of an older one's.
    pub(crate) fn drain(
        &mut self,
        actor: &Actor,
        agents: &[AgentId],
        deadline_ms: Option<u64>,
        on_deadline: OnDeadline,
    ) {
        let until = deadline_ms.map(|ms| self.now.wall.plus_ms(ms));
        for id in agents {
            if let Some(agent) = self.agents.get_mut(id) {
                (agent.row.draining, agent.row.drain_until, agent.row.on_deadline) = (true, until, on_deadline);
                self.book.agents.insert(*id);
            }
            self.refresh(*id);
        }
        for id in agents {
            self.tell_drain(*id);
            self.watch_drain(*id);
            self.audit(actor, "agent.drain", &id.to_string(), "");
        }
    }

    /// Says that it drains, with the time that is left; how much that is.
    fn tell_drain(&mut self, id: AgentId) -> Option<u64> {
        let deadline_ms = self.drain_end(id).map(|until| until.0.saturating_sub(self.now.wall.0));
        self.send(id, CoordinatorMessage::Drain { deadline_ms, leave: false });
        deadline_ms
    }

    /// When what an agent still runs is ended, if its drain ends anything.
    fn drain_end(&self, id: AgentId) -> Option<WallMs> {
        let row = &self.agents.get(&id)?.row;
        match row.on_deadline {
            OnDeadline::Requeue | OnDeadline::Cancel => row.drain_until,
            OnDeadline::Wait => None,
        }
    }

    /// Whether what a job's agent was told to end, and has ended, is run again elsewhere: by the operator's word, and not
    /// where that would do harm (DESIGN, Leases).
    pub(crate) fn is_requeued(&self, job: JobId) -> bool {
        let attempt = self.jobs.get(&job).and_then(|job| job.row.attempts.last());
        let agent = attempt.and_then(|id| self.attempts.get(id)).and_then(|row| self.agents.get(&row.agent));
        let ordered = agent.is_some_and(|agent| {
            let row = &agent.row;
            row.draining && row.drain_until.is_some() && row.on_deadline == OnDeadline::Requeue
        });
        ordered && !self.command(job).is_some_and(runs_alone)
    }

    /// Lets an agent take work again. What the drain's end has already stopped stays so.
    pub(crate) fn resume(&mut self, id: AgentId) {
        if let Some(agent) = self.agents.get_mut(&id) {
            (agent.row.draining, agent.row.drain_until, agent.row.on_deadline) = (false, None, OnDeadline::default());
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
        if let Some(until) = self.drain_end(id) {
            self.timers.set(Timer::Drain(id), self.mono_of(until));
        }
    }

    /// An agent that drains is on a new connection: it hears it again, with the time that is left.
    pub(crate) fn repeat_drain(&mut self, id: AgentId) {
        if !self.agents.get(&id).is_some_and(|agent| agent.row.draining) {
            return;
        }
        if self.tell_drain(id) == Some(0) {
            self.stop_held(id);
        }
    }

    /// A drain's deadline has come.
    pub(crate) fn on_drain_over(&mut self, id: AgentId) {
        let Some(until) = self.drain_end(id) else { return };
        if until > self.now.wall {
            self.watch_drain(id);
        } else {
            self.stop_held(id);
        }
    }

    /// Ends what an agent still runs, without any grace, since the deadline is the total (F21).
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
                    self.send(id, CoordinatorMessage::Cancel { attempt, epoch, cause: stopped(), grace_ms: Some(0) });
                    self.arm(attempt);
                }
            }
        }
    }
}
