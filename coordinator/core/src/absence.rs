//! Absence: an agent that is lost or has left is kept for a while, in case it comes back, and then forgotten.

use windlass_protocol::{AgentId, limits};

use crate::state::{Core, Silence};
use crate::timer::Timer;

impl Core {
    /// An agent is lost or has left: its row says which, and since when.
    pub(crate) fn away(&mut self, id: AgentId) {
        let wall = self.now.wall;
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let seen = agent.heard_wall.unwrap_or(wall);
        if agent.row.last_seen_at.is_none() {
            agent.row.last_seen_at = Some(seen);
            agent.row.left = agent.silence == Silence::Left;
            self.book.agents.insert(id);
        }
        self.watch_absence(id);
    }

    /// An agent is here.
    pub(crate) fn here(&mut self, id: AgentId) {
        if let Some(agent) = self.agents.get_mut(&id)
            && agent.row.last_seen_at.take().is_some()
        {
            agent.row.left = false;
            self.book.agents.insert(id);
        }
        self.timers.clear(Timer::Absence(id));
    }

    /// After a start, an agent that had been here has one lease to come back (F12); one that was lost or had left goes
    /// on being so.
    pub(crate) fn watch_return(&mut self, id: AgentId) {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.silence = match agent.row.last_seen_at {
                None => Silence::Never,
                Some(_) if agent.row.left => Silence::Left,
                Some(_) => Silence::Lost,
            };
        }
        self.watch_silence(id);
        self.watch_absence(id);
        self.refresh(id);
    }

    /// Sets the moment at which an agent that is not here is forgotten.
    pub(crate) fn watch_absence(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get(&id) else { return };
        let since = agent.row.last_seen_at.unwrap_or(self.now.wall);
        self.timers.set(Timer::Absence(id), self.mono_of(since.plus_ms(limits::AGENT_FORGET_MS)));
    }

    /// An agent has not been heard of for as long as one is kept. What it still holds has a deadline of its own.
    pub(crate) fn on_absence(&mut self, id: AgentId) {
        let wall = self.now.wall;
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let here = agent.conn.is_some() || matches!(agent.silence, Silence::Heard | Silence::Suspect);
        if here {
            return;
        }
        let early = agent.row.last_seen_at.is_some_and(|at| wall < at.plus_ms(limits::AGENT_FORGET_MS));
        if early {
            self.watch_absence(id);
        } else if agent.slots.is_empty() {
            agent.row.gone = Some("not heard of for 7 days".to_owned());
            self.book.agents.insert(id);
            self.book.departed.insert(id);
        } else {
            self.timers.set(Timer::Absence(id), self.now.mono.plus_ms(limits::LOG_SETTLE_MS));
        }
    }
}
