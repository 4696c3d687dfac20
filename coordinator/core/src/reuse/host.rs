//! What agents say of the machines that steps run on.

use windlass_protocol::{AgentId, Digest};

use crate::fingerprint::agreed;
use crate::place::{has_tags, pool_serves};
use crate::queue::Shape;
use crate::row::Hosts;
use crate::state::Core;

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

    /// What an agent says of its system and its hooks; `None` while it is not here.
    pub(crate) fn print_of(&self, id: AgentId) -> Option<(Option<Digest>, Option<Digest>)> {
        let host = &self.agents.get(&id)?.hello.as_ref()?.host;
        Some((host.system_digest(), host.hooks))
    }
}
