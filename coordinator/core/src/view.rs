//! What the shell may see of the core, for pages and metrics; all of it volatile.

use std::collections::BTreeMap;

use windlass_protocol::job::Resources;
use windlass_protocol::message::Health;
use windlass_protocol::{AgentId, AttemptId, WallMs};

use crate::effect::AgentState;
use crate::input::ConnId;
use crate::row::{AgentRow, PoolRow, Usage};
use crate::state::Core;

/// An agent as it is now.
#[derive(Debug, Clone)]
pub struct AgentView<'a> {
    /// Its id.
    pub id: AgentId,
    /// Its durable row.
    pub row: &'a AgentRow,
    /// Its pool.
    pub pool: Option<&'a PoolRow>,
    /// Its state.
    pub state: AgentState,
    /// What it has and has given away.
    pub usage: Usage,
    /// How its machine does.
    pub health: Health,
    /// Its current connection.
    pub conn: Option<ConnId>,
    /// The version of its program, once heard.
    pub version: Option<&'a str>,
    /// When it was last heard; `None` if it never was, or was here before the core was loaded and has not been heard since.
    pub last_seen: Option<WallMs>,
    /// The attempts that it holds by right.
    pub running: Vec<AttemptId>,
}

/// A queue as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueView {
    /// Jobs that wait for an agent.
    pub depth: usize,
    /// Since when the oldest of them waits.
    pub oldest: Option<WallMs>,
}

impl Core {
    /// All agents that are not gone for good.
    pub fn agents(&self) -> impl Iterator<Item = AgentView<'_>> {
        self.agents.iter().map(|(id, agent)| {
            let (slots, capacity) =
                agent.hello.as_ref().map_or((0, Resources::default()), |hello| (hello.slots, hello.capacity));
            let pool = self.pools.get(&agent.row.pool);
            let running = agent.slots.iter().filter(|(_, slot)| slot.ghost.is_none()).map(|(attempt, _)| *attempt);
            AgentView {
                id: *id,
                row: &agent.row,
                pool,
                state: agent.state(pool),
                usage: Usage { slots, slots_used: agent.busy(), capacity, used: agent.used },
                health: agent.health,
                conn: agent.conn,
                version: agent.hello.as_ref().map(|hello| hello.version.as_str()),
                last_seen: agent.heard_wall.or(agent.row.last_seen_at),
                running: running.collect(),
            }
        })
    }

    /// Every queue in which jobs wait.
    #[must_use]
    pub fn queues(&self) -> BTreeMap<String, QueueView> {
        let depths = self.queue.depths().into_iter();
        depths.map(|(queue, (depth, oldest))| (queue, QueueView { depth, oldest })).collect()
    }

    /// Zones whose agents fell silent together: their jobs are held for a while (F15).
    pub fn unreachable_zones(&self) -> impl Iterator<Item = &str> {
        let held = self.zones.iter().filter(|(_, zone)| zone.hold.is_some_and(|until| until > self.now.mono));
        held.map(|(name, _)| name.as_str())
    }

    /// The number that the pipeline's next build gets. Whoever acts on it names it in the submit, since another may come
    /// first.
    #[must_use]
    pub fn next_number(&self, pipeline: &str) -> u64 {
        self.numbers.get(pipeline).copied().unwrap_or(0) + 1
    }

    /// How many jobs wait for an agent.
    #[must_use]
    pub const fn queued_jobs(&self) -> usize {
        self.queue.len()
    }

    /// How many builds are in memory.
    #[must_use]
    pub fn live_builds(&self) -> usize {
        self.builds.len()
    }
}
