//! Waiting for an agent that has a job's large inputs, where that costs less than to bring them (docs/design/036): at most half
//! of what bringing them takes, once, and never for long.

use windlass_protocol::{AgentId, Instant64, JobId, limits};

use crate::queue::ShapeId;
use crate::state::Core;
use crate::timer::Timer;

/// How far a queued job's patience goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Patience {
    /// No agent was passed over for it yet.
    #[default]
    Unasked,
    /// It waits for a warmer agent.
    Until {
        /// Since then.
        since: Instant64,
        /// Until then at most.
        until: Instant64,
    },
    /// It has waited, and takes whoever is free.
    Over {
        /// For so long.
        waited_ms: u64,
    },
}

impl Core {
    /// Whether a job leaves this agent, which could take it, to others, because an agent that is busy has more of its inputs.
    pub(crate) fn waits_for_warmer(&self, id: JobId, here: AgentId, line: ShapeId) -> bool {
        let Some(job) = self.jobs.get(&id).filter(|_| !self.stocks.is_empty()) else { return false };
        if matches!(job.patience, Patience::Over { .. }) {
            return false;
        }
        let inputs = self.inputs_of(id);
        let cost_ms = self.missing_ms(&inputs, here);
        if cost_ms < limits::PLACE_WAIT_MIN_MS {
            return false;
        }
        let mut holders = inputs.iter().flatten().flat_map(|name| self.stocks.holders(name));
        holders.any(|other| {
            other != here && self.could_take(other, line) && self.missing_ms(&inputs, other) <= cost_ms / 2
        })
    }

    /// Whether an agent takes work and could have this line's jobs, were it idle.
    pub(crate) fn could_take(&self, id: AgentId, line: ShapeId) -> bool {
        let (Some(agent), Some(shape)) = (self.agents.get(&id), self.queue.shape(line)) else { return false };
        let pool = self.pools.get(&agent.row.pool);
        pool.is_some_and(|pool| crate::place::pool_serves(pool, shape))
            && agent.is_eligible(pool)
            && agent.could_run(shape)
            && agent.reserved_for.is_none_or(|reserved| reserved == line)
    }

    /// An agent was passed over for this job: its patience begins, if it had not.
    pub(crate) fn begin_patience(&mut self, id: JobId, here: AgentId) {
        if self.jobs.get(&id).is_none_or(|job| job.patience != Patience::Unasked) {
            return;
        }
        let wait_ms = (self.missing_ms(&self.inputs_of(id), here) / 2).min(limits::PLACE_WAIT_MAX_MS);
        let since = self.now.mono;
        let until = since.plus_ms(wait_ms);
        self.timers.set(Timer::Patience(id), until);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.patience = Patience::Until { since, until };
        }
    }

    /// It has waited long enough: whoever is free may take it.
    pub(crate) fn on_patience(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Patience::Until { since, .. } = job.patience {
            job.patience = Patience::Over { waited_ms: self.now.mono.since_ms(since) };
        }
        if let Some((line, _)) = job.queued {
            self.queue.try_again(line);
            let Some(shape) = self.queue.shape(line) else { return };
            let pools = self.pools.values().filter(|pool| crate::place::pool_serves(pool, shape));
            let open = pools.filter_map(|pool| self.open.get(&pool.name)).flatten();
            self.freed.extend(open.take(limits::PLACE_CANDIDATES_MAX).map(|(_, agent)| *agent));
        }
    }

    /// A job that leaves its line is patient again when it comes back.
    pub(crate) fn end_patience(&mut self, id: JobId) {
        self.timers.clear(Timer::Patience(id));
        if let Some(job) = self.jobs.get_mut(&id) {
            job.patience = Patience::Unasked;
        }
    }
}
