//! Zones: when the agents of one fall silent together, it is the zone that cannot be reached, and they are not yet lost
//! (F15).

use std::collections::BTreeSet;

use windlass_protocol::{AgentId, Instant64, limits};

use crate::row::OnUnreachable;
use crate::state::{Agent, Core, Silence};
use crate::timer::Timer;

/// The agents of one zone, as far as they say something about its reach.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    /// Those that are heard, and those that are not and still have rights.
    pub(crate) present: BTreeSet<AgentId>,
    /// Of them, those that are not heard.
    pub(crate) silent: BTreeSet<AgentId>,
    /// The zone is unreachable: nobody in it is lost before this.
    pub(crate) hold: Option<Instant64>,
}

impl Zone {
    /// Whether so many are silent that the cause is not theirs. An agent is silent for less than a lease before it is
    /// lost, so that those who are silent now have become so within one.
    fn is_quiet(&self) -> bool {
        self.silent.len() >= limits::ZONE_SILENT_MIN && self.silent.len() * 2 > self.present.len()
    }
}

/// What an agent says about its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Bearing {
    /// Nothing.
    #[default]
    Absent,
    /// It can be reached.
    Heard,
    /// It cannot.
    Silent,
}

impl Agent {
    /// What it says about its zone. One that has not been heard since a restart counts while it holds something.
    pub(crate) fn bearing(&self) -> Bearing {
        match self.silence {
            _ if self.row.gone.is_some() || self.row.revoked_at.is_some() => Bearing::Absent,
            Silence::Heard => Bearing::Heard,
            Silence::Suspect => Bearing::Silent,
            Silence::Never if self.slots.values().any(|slot| slot.ghost.is_none()) => Bearing::Silent,
            Silence::Never | Silence::Lost | Silence::Left => Bearing::Absent,
        }
    }
}

impl Core {
    /// Brings an agent's zone in step with it.
    pub(crate) fn place_in_zone(&mut self, id: AgentId, bearing: Bearing) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        if agent.bearing == bearing {
            return;
        }
        agent.bearing = bearing;
        let Some(pool) = self.pools.get(&agent.row.pool) else { return };
        let name = pool.zone.clone();
        let zone = self.zones.entry(name.clone()).or_default();
        match bearing {
            Bearing::Absent => {
                zone.present.remove(&id);
                zone.silent.remove(&id);
            }
            Bearing::Heard => {
                zone.present.insert(id);
                zone.silent.remove(&id);
            }
            Bearing::Silent => {
                zone.present.insert(id);
                zone.silent.insert(id);
            }
        }
        if zone.silent.is_empty() {
            zone.hold = None;
        }
        if zone.present.is_empty() {
            self.zones.remove(&name);
        } else if bearing == Bearing::Heard {
            self.shorten_hold(&name, self.lease_ms(id));
        }
    }

    /// The zone answers again: who does not come back within a lease is lost for reasons of its own.
    fn shorten_hold(&mut self, name: &str, lease_ms: u64) {
        let now = self.now.mono;
        let Some(zone) = self.zones.get_mut(name).filter(|zone| !zone.is_quiet()) else { return };
        let Some(hold) = zone.hold else { return };
        if hold <= now {
            zone.hold = None;
            return;
        }
        let sooner = hold.min(now.plus_ms(lease_ms));
        if sooner == hold {
            return;
        }
        zone.hold = Some(sooner);
        for id in zone.silent.clone() {
            let end = self.agents[&id].heard_at.plus_ms(self.lease_ms(id));
            let end = if self.is_held(id) { end.max(sooner) } else { end };
            self.timers.set(Timer::Silence(id), end);
        }
    }

    /// An agent's silence begins to mean something: whether it is the whole zone's. A zone is held once for as long as
    /// it stays quiet.
    pub(crate) fn judge_zone(&mut self, id: AgentId) {
        let until = self.now.mono.plus_ms(self.policy.zone_hold_ms);
        let Some(zone) = self.pool_of(id).map(|pool| pool.zone.clone()) else { return };
        if let Some(zone) = self.zones.get_mut(&zone).filter(|zone| zone.hold.is_none() && zone.is_quiet()) {
            zone.hold = Some(until);
        }
    }

    /// Whether its pool waits for a zone that is unreachable.
    fn is_held(&self, id: AgentId) -> bool {
        self.pool_of(id).is_some_and(|pool| pool.on_unreachable == OnUnreachable::Wait)
    }

    /// Until when an agent is not lost, because its zone is unreachable and its pool waits for that.
    pub(crate) fn held_until(&self, id: AgentId) -> Option<Instant64> {
        if !self.is_held(id) {
            return None;
        }
        let hold = self.zones.get(&self.pool_of(id)?.zone)?.hold?;
        let silent = self.agents.get(&id)?.bearing == Bearing::Silent;
        (silent && hold > self.now.mono).then_some(hold)
    }
}
