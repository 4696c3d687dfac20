//! What is said of a placement: which agents were weighed for a job, and by what (docs/design/036).
//!
//! Nothing is decided here. It is written down only where there was something to weigh, so that other jobs cost nothing.

use std::collections::BTreeSet;

use windlass_protocol::{AgentId, JobId, limits};

use crate::patience::Patience;
use crate::queue::ShapeId;
use crate::row::{Candidate, Weighed};
use crate::state::Core;
use crate::stock::Inputs;

impl Core {
    /// What speaks for this agent and for others, as they are before it has the job. Nothing where no agent has told of any
    /// of the job's inputs.
    pub(crate) fn weighed(&self, id: JobId, chosen: AgentId) -> Option<Box<Weighed>> {
        let job = self.jobs.get(&id).filter(|_| !self.stocks.is_empty())?;
        let (line, _) = job.queued?;
        let trust = self.queue.shape(line)?.trust;
        // What agents of the other trust class have is not to be learnt by asking.
        let told = |agent| self.pool_of(agent).is_some_and(|pool| pool.trust == trust);
        let inputs = self.inputs_of(id).map(|name| name.filter(|name| self.stocks.holders(name).any(told)));
        let input_bytes = self.stocks.known_bytes(&inputs);
        if input_bytes == 0 {
            return None;
        }
        let waited_ms = match job.patience {
            Patience::Unasked => 0,
            Patience::Until { since, .. } => self.now.mono.since_ms(since),
            Patience::Over { waited_ms } => waited_ms,
        };
        let mut weighed = Weighed { input_bytes, waited_ms, ..Weighed::default() };
        let mut seen = BTreeSet::from([chosen]);
        weighed.candidates.extend(self.candidate(&inputs, chosen, true));
        let mut others: Vec<_> = self.free_for(line).filter(|agent| seen.insert(*agent)).collect();
        others.sort_by_key(|agent| (self.missing_ms(&inputs, *agent), *agent));
        let holders = inputs.iter().flatten().flat_map(|name| self.stocks.holders(name));
        others.extend(holders.filter(|agent| seen.insert(*agent) && self.could_take(*agent, line)));
        for agent in others {
            match self.candidate(&inputs, agent, self.can_take(agent, line)) {
                Some(candidate) if weighed.candidates.len() < limits::WEIGHED_MAX => weighed.candidates.push(candidate),
                Some(_) => weighed.others += 1,
                None => {}
            }
        }
        Some(Box::new(weighed))
    }

    /// Agents that can take a line's head now, as many as placement compares.
    fn free_for(&self, line: ShapeId) -> impl Iterator<Item = AgentId> {
        let pools = self
            .queue
            .shape(line)
            .into_iter()
            .flat_map(move |shape| self.pools.values().filter(move |pool| crate::place::pool_serves(pool, shape)));
        pools.flat_map(move |pool| {
            let open = self.open.get(&pool.name).into_iter().flatten().map(|(_, agent)| *agent);
            open.filter(move |agent| self.can_take(*agent, line)).take(limits::PLACE_CANDIDATES_MAX)
        })
    }

    fn candidate(&self, inputs: &Inputs, id: AgentId, free: bool) -> Option<Candidate> {
        let agent = self.agents.get(&id)?;
        let zone = self.pools.get(&agent.row.pool).map(|pool| pool.zone.clone()).unwrap_or_default();
        let missing_bytes = self.missing_bytes(inputs, id);
        Some(Candidate {
            agent: id,
            name: agent.row.name.clone(),
            zone_bytes_per_second: self.stocks.rate_of(&zone).saturating_mul(1_000),
            zone,
            missing_bytes,
            missing_ms: self.missing_ms(inputs, id),
            jobs: agent.busy(),
            free,
        })
    }
}
