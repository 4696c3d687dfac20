//! What agents say of the machines that steps run on.

use windlass_protocol::{AgentId, Digest, Trust, limits};

use crate::fingerprint::agreed;
use crate::place::{has_tags, pool_serves};
use crate::queue::Shape;
use crate::row::Hosts;
use crate::state::{Agent, Core};

impl Core {
    /// What those agents say that may run such a step, whether they are busy or not.
    pub(super) fn hosts_of(&self, shape: &Shape) -> Hosts {
        let said = self.agents.iter().filter_map(|(id, agent)| {
            let pool = self.pools.get(&agent.row.pool);
            let serves = pool.is_some_and(|pool| pool_serves(pool, shape));
            let may = serves && self.is_awaited(*id) && has_tags(agent, &shape.tags);
            agent.hello.as_ref().filter(|_| may).map(|hello| (agent.row.name.as_str(), &hello.host))
        });
        agreed(said)
    }

    /// The hooks of agents that serve trusted builds, each once, of a bounded number: keys of their steps have one of them.
    #[must_use]
    pub fn trusted_hooks(&self) -> Vec<Digest> {
        let trusted = |agent: &&Agent| self.pools.get(&agent.row.pool).is_some_and(|pool| pool.trust == Trust::Trusted);
        let said = self.agents.values().filter(trusted).filter_map(|agent| agent.hello.as_ref()?.host.hooks);
        let each: std::collections::BTreeSet<Digest> = said.collect();
        each.into_iter().take(limits::FLEET_HOOKS_MAX).collect()
    }

    /// What an agent says of its system and its hooks; `None` while it is not here.
    pub(crate) fn print_of(&self, id: AgentId) -> Option<(Option<Digest>, Option<Digest>)> {
        let host = &self.agents.get(&id)?.hello.as_ref()?.host;
        Some((host.system_digest(), host.hooks))
    }
}
