//! What agents say of the machines that steps run on.

use windlass_protocol::{AgentId, Digest};

use crate::place::{has_tags, pool_serves};
use crate::queue::Shape;
use crate::row::HostPrint;
use crate::state::Core;

impl Core {
    /// What those agents say that may run such a step, whether they are busy or not.
    pub(super) fn hosts_of(&self, shape: &Shape) -> Vec<HostPrint> {
        let may = self.agents.iter().filter(|(id, agent)| {
            let pool = self.pools.get(&agent.row.pool);
            let serves = pool.is_some_and(|pool| pool_serves(pool, shape));
            serves && agent.hello.is_some() && self.is_awaited(**id) && has_tags(agent, &shape.tags)
        });
        may.map(|(id, agent)| {
            let (system, hooks) = self.print_of(*id);
            HostPrint { agent: agent.row.name.clone(), system, hooks }
        })
        .collect()
    }

    /// What an agent says of its system and its hooks.
    pub(crate) fn print_of(&self, _id: AgentId) -> (Option<Digest>, Option<Digest>) {
        (None, None)
    }
}
