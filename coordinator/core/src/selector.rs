//! Drains of many agents at once: which are meant, and how many of them may be unavailable meanwhile (F22).

use windlass_protocol::{AgentId, WallMs};

use crate::effect::{AgentState, Effect, Reply};
use crate::error::Rejected;
use crate::input::ReplyTo;
use crate::row::{Actor, OnDeadline, PoolRow};
use crate::state::{Agent, Core};
use crate::terms::NamePattern;

/// Which agents are meant: those to which all of this applies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Of this pool.
    pub pool: Option<String>,
    /// Of pools in this zone.
    pub zone: Option<String>,
    /// Called so.
    pub name: Option<NamePattern>,
    /// With each of these tags.
    pub tags: Vec<(String, String)>,
    /// Of this version of the program, as they said last.
    pub version: Option<String>,
    /// Which joined at least so long ago.
    pub min_age_ms: Option<u64>,
}

impl Selector {
    /// Whether it says nothing, and so means everyone.
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn selects(&self, agent: &Agent, pool: Option<&PoolRow>, wall: WallMs) -> bool {
        let version = agent.hello.as_ref().map(|hello| hello.version.as_str());
        self.pool.as_ref().is_none_or(|name| agent.row.pool == *name)
            && self.zone.as_ref().is_none_or(|zone| pool.is_some_and(|pool| pool.zone == *zone))
            && self.name.as_ref().is_none_or(|pattern| pattern.matches(&agent.row.name))
            && self.tags.iter().all(|tag| agent.row.tags.contains(tag))
            && self.version.as_ref().is_none_or(|asked| version == Some(asked))
            && self.min_age_ms.is_none_or(|ms| agent.row.joined_at.plus_ms(ms) <= wall)
    }
}

/// A drain of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainMany {
    /// Which; it has to say something.
    pub selector: Selector,
    /// In all.
    pub deadline_ms: Option<u64>,
    /// What becomes of what still runs then.
    pub on_deadline: OnDeadline,
    /// So many of the selected agents may be unavailable, those included that are so already; the others go on taking
    /// work, until the same drain is asked for again. At least 1.
    pub max_unavailable: Option<u32>,
}

impl Core {
    /// Drains all that are selected in one commit, or as many of them as may be unavailable.
    pub(crate) fn drain_many(&mut self, to: ReplyTo, actor: &Actor, order: &DrainMany) -> Result<(), Rejected> {
        Self::check_drain(order.deadline_ms)?;
        if order.selector.is_empty() {
            let why = "at least one of pool, zone, name, tags, version and min_age_ms".to_owned();
            return Err(Rejected::Setting { what: "selector", why });
        }
        if order.max_unavailable == Some(0) {
            return Err(Rejected::Setting { what: "max_unavailable", why: "at least 1".to_owned() });
        }
        let (drained, waiting) = self.choose(order);
        self.drain(actor, &drained, order.deadline_ms, order.on_deadline);
        self.book.out.push(Effect::Reply { to, reply: Reply::Drained { drained, waiting } });
        Ok(())
    }

    /// Whom to drain now, and who waits for its turn. Where few may be unavailable, those that drain already keep their
    /// terms, those that are away cost nothing, and of the others the least busy come first.
    fn choose(&self, order: &DrainMany) -> (Vec<AgentId>, Vec<AgentId>) {
        let wall = self.now.wall;
        let selected = self.agents.iter().filter_map(|(id, agent)| {
            let pool = self.pools.get(&agent.row.pool);
            let known = agent.row.gone.is_none() && agent.row.revoked_at.is_none();
            let meant = known && order.selector.selects(agent, pool, wall);
            meant.then(|| (*id, agent, agent.state(pool) == AgentState::Online))
        });
        let Some(most) = order.max_unavailable else { return (selected.map(|(id, _, _)| id).collect(), Vec::new()) };
        let (mut here, away): (Vec<_>, Vec<_>) = selected.partition(|(_, _, online)| *online);
        here.sort_by_key(|(id, agent, _)| (agent.busy(), *id));
        let room = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(away.len()).min(here.len());
        let waiting = here.split_off(room).into_iter().map(|(id, _, _)| id).collect();
        let fresh = away.into_iter().filter(|(_, agent, _)| !agent.row.draining);
        (fresh.chain(here).map(|(id, _, _)| id).collect(), waiting)
    }
}
