//! Agents: who is here, and which of them takes work (F10).

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::job::Resources;
use windlass_protocol::message::{CacheUse, Health};
use windlass_protocol::stock::Fetched;
use windlass_protocol::{AgentId, Instant64, limits};

use crate::effect::{AgentState, Effect, Progress};
use crate::row::{AgentRow, PoolRow};
use crate::state::{Agent, Core, Silence};
use crate::timer::Timer;
use crate::zone::Bearing;

/// An agent that has joined and has not been heard.
pub(crate) const fn new_agent(row: AgentRow, now: Instant64) -> Agent {
    Agent {
        row,
        conn: None,
        session: 0,
        hello: None,
        health: Health {
            disk_free_bytes: 0,
            disk_total_bytes: 0,
            memory_available_bytes: 0,
            load_millis: 0,
            disk_full: false,
            cannot_kill: false,
            runs_images: false,
            cache: CacheUse { disk_hits: 0, disk_misses: 0, peer_hits: 0, peer_misses: 0, peer_failures: 0 },
        },
        heard_at: now,
        heard_wall: None,
        silence: Silence::Never,
        told_beat_ms: None,
        gone_detail: None,
        self_draining: false,
        backoff_until: None,
        slots: BTreeMap::new(),
        used: Resources { cpu_millis: 0, memory_bytes: 0 },
        committed: BTreeMap::new(),
        reserved_for: None,
        stock: BTreeSet::new(),
        fetched: Fetched { bytes: 0, ms: 0 },
        open_at: None,
        shown: None,
        bearing: Bearing::Absent,
    }
}

impl Agent {
    /// Its state, for people and for placement.
    pub(crate) fn state(&self, pool: Option<&PoolRow>) -> AgentState {
        match self.silence {
            _ if self.row.gone.is_some() || self.row.revoked_at.is_some() => AgentState::Gone,
            Silence::Left => AgentState::Gone,
            Silence::Lost => AgentState::Lost,
            Silence::Suspect => AgentState::Suspect,
            Silence::Never => AgentState::Joining,
            Silence::Heard if self.health.cannot_kill || self.health.disk_full => AgentState::Quarantined,
            Silence::Heard if self.row.draining || self.self_draining => AgentState::Draining,
            Silence::Heard if pool.is_some_and(|pool| pool.paused) => AgentState::Paused,
            Silence::Heard => AgentState::Online,
        }
    }

    /// Whether it is offered anything at all.
    pub(crate) fn is_eligible(&self, pool: Option<&PoolRow>) -> bool {
        self.conn.is_some() && self.backoff_until.is_none() && self.state(pool) == AgentState::Online
    }

    /// Slots that are taken.
    pub(crate) fn busy(&self) -> u32 {
        u32::try_from(self.slots.values().filter(|slot| !slot.done).count()).unwrap_or(u32::MAX)
    }

    /// Where it stands among the open agents of its pool, if it does.
    fn opening(&self, pool: Option<&PoolRow>) -> Option<u32> {
        let slots = self.hello.as_ref().map_or(0, |hello| hello.slots);
        let most = limits::HELD_PER_SLOT_MAX.saturating_mul(usize::try_from(slots).unwrap_or(usize::MAX));
        let busy = self.busy();
        (busy < slots && self.slots.len() < most && self.is_eligible(pool)).then_some(busy)
    }
}

impl Core {
    /// Brings the index of open agents in step with an agent, and tells views if its state changed.
    pub(crate) fn refresh(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let pool = self.pools.get(&agent.row.pool);
        let opening = agent.opening(pool);
        let state = agent.state(pool);
        let bearing = agent.bearing();
        if opening != agent.open_at {
            let open = self.open.entry(agent.row.pool.clone()).or_default();
            if let Some(busy) = agent.open_at.take() {
                open.remove(&(busy, id));
            }
            if let Some(busy) = opening {
                open.insert((busy, id));
                agent.open_at = Some(busy);
            }
        }
        if opening.is_some() {
            self.freed.insert(id);
        }
        if agent.shown != Some(state) {
            agent.shown = Some(state);
            self.book.out.push(Effect::Progress(Progress::Agent { agent: id, state }));
        }
        self.place_in_zone(id, bearing);
    }

    /// How long this agent's rights last without a beat.
    pub(crate) fn lease_ms(&self, id: AgentId) -> u64 {
        self.pool_of(id).map_or(limits::LEASE_DEFAULT_MS, |pool| pool.lease_ms)
    }

    /// Between this agent's beats, as it was told last.
    pub(crate) fn beat_ms(&self, id: AgentId) -> u64 {
        let told = self.agents.get(&id).and_then(|agent| agent.told_beat_ms);
        told.unwrap_or_else(|| self.pool_of(id).map_or(limits::BEAT_MS, |pool| pool.beat_ms))
    }

    /// What an agent is to leave between beats now: what its pool says, or more where so many agents are here that their
    /// beats would be too many (F12), but always so little that a lease holds four.
    pub(crate) fn pace(&mut self, id: AgentId) -> u64 {
        let here = self.zones.values().map(|zone| zone.present.len() as u64).sum::<u64>();
        let (lease_ms, beat_ms) =
            self.pool_of(id).map_or((limits::LEASE_DEFAULT_MS, limits::BEAT_MS), |pool| (pool.lease_ms, pool.beat_ms));
        let paced = (here * 1_000 / limits::BEATS_PER_SECOND_MAX).min(lease_ms / 4).max(beat_ms);
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.told_beat_ms = Some(paced);
        }
        paced
    }

    pub(crate) fn pool_of(&self, id: AgentId) -> Option<&PoolRow> {
        self.pools.get(&self.agents.get(&id)?.row.pool)
    }

    /// Forgets an agent that left for good; its row says so.
    pub(crate) fn forget_agent(&mut self, id: AgentId) {
        self.timers.clear(Timer::Silence(id));
        self.timers.clear(Timer::Backoff(id));
        self.timers.clear(Timer::Drain(id));
        self.timers.clear(Timer::Absence(id));
        self.place_in_zone(id, Bearing::Absent);
        self.forget_stock(id);
        if let Some(agent) = self.agents.remove(&id) {
            self.queue.hold_tags(&agent.row.tags, &[]);
            if self.keys.get(&agent.row.key) == Some(&id) {
                self.keys.remove(&agent.row.key);
            }
            if let (Some(busy), Some(open)) = (agent.open_at, self.open.get_mut(&agent.row.pool)) {
                open.remove(&(busy, id));
            }
        }
    }
}
