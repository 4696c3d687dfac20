//! Slots: what each takes of its agent, and those whose right has ended while something may still run (I3).

use windlass_protocol::job::{Epoch, Resources};
use windlass_protocol::{AgentId, AttemptId, JobId};

use crate::concurrency::runs_alone;
use crate::state::{Agent, Core, Slot};

impl Core {
    /// Takes a slot.
    pub(crate) fn take_slot(&mut self, id: AgentId, attempt: AttemptId, slot: Slot) {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.slots.insert(attempt, slot);
        }
        self.sum_up(id);
    }

    /// Gives a slot back.
    pub(crate) fn free_slot(&mut self, id: AgentId, attempt: AttemptId) {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.slots.remove(&attempt);
        }
        self.sum_up(id);
    }

    /// The command has ended: the slot has room again, though the result is not yet durable.
    pub(crate) fn finish_slot(&mut self, id: AgentId, attempt: AttemptId) {
        if let Some(slot) = self.agents.get_mut(&id).and_then(|agent| agent.slots.get_mut(&attempt)) {
            slot.done = true;
        }
        self.sum_up(id);
    }

    pub(crate) fn sum_up(&mut self, id: AgentId) {
        if let Some(agent) = self.agents.get_mut(&id) {
            let mut used = Resources::default();
            for slot in agent.slots.values().filter(|slot| !slot.done) {
                used.cpu_millis = used.cpu_millis.saturating_add(slot.resources.cpu_millis);
                used.memory_bytes = used.memory_bytes.saturating_add(slot.resources.memory_bytes);
            }
            agent.used = used;
        }
        self.refresh(id);
    }

    /// The agent has something that it has no right to: a slot stays taken until it is gone, and an exclusive job
    /// waits for that (I3).
    pub(crate) fn haunt(&mut self, id: AgentId, attempt: AttemptId, epoch: Epoch) {
        let Some(row) = self.attempts.get(&attempt) else { return };
        let (job, now) = (row.job, self.now.mono);
        let resources = self.share_of(job, id);
        if let Some(agent) = self.agents.get_mut(&id) {
            let since = agent.slots.get(&attempt).and_then(|slot| slot.ghost).unwrap_or(now);
            agent.slots.insert(attempt, Slot { epoch, job, resources, ghost: Some(since), done: false });
        }
        if self.jobs.get(&job).is_some_and(|job| job.queued.is_some()) {
            self.dequeue(job);
            self.enqueue(job);
        }
    }

    /// An agent that lives and has not said that an earlier attempt of an exclusive job has ended.
    pub(crate) fn haunted_by(&self, job: JobId) -> Option<AgentId> {
        let attempted = self.jobs.get(&job).is_some_and(|job| !job.row.attempts.is_empty());
        if !attempted || !self.command(job).is_some_and(runs_alone) {
            return None;
        }
        let haunted = |agent: &Agent| agent.slots.values().any(|slot| slot.ghost.is_some() && slot.job == job);
        self.agents.iter().find(|(_, agent)| haunted(agent)).map(|(id, _)| *id)
    }

    /// Lifts an exclusive job's fence if it was this attempt that it waited for.
    pub(crate) fn unfence(&mut self, job: JobId, attempt: AttemptId) {
        self.end_hold_of(job, attempt);
        let last = self.jobs.get(&job).and_then(|job| job.row.attempts.last()).copied();
        if last == Some(attempt) && !self.leases.contains_key(&attempt) {
            self.lift_fence(job);
        }
    }
}
