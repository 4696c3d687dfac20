//! Silence: when an agent is suspect, when it is lost, and what ends with it (F10–F18).

use windlass_protocol::limits;
use windlass_protocol::message::RefuseCode;
use windlass_protocol::{AgentId, CauseKind};

use crate::effect::Effect;
use crate::error::Rejected;
use crate::input::ConnId;
use crate::lease::Remains;
use crate::state::{Core, Phase, Silence};
use crate::timer::Timer;

impl Core {
    /// The agent was heard: everything that it holds by right goes on.
    pub(crate) fn heard(&mut self, id: AgentId) {
        let now = self.now;
        if let Some(agent) = self.agents.get_mut(&id) {
            if agent.silence != Silence::Heard {
                // That deadline was for the end of its lease, not for the beats that are expected now.
                self.timers.clear(Timer::Silence(id));
            }
            agent.heard_at = now.mono;
            agent.heard_wall = Some(now.wall);
            agent.silence = Silence::Heard;
        }
        self.here(id);
        self.watch_silence(id);
    }

    /// Sets the next moment at which silence means something. It is not moved by every beat: when it comes, the last
    /// beat decides.
    pub(crate) fn watch_silence(&mut self, id: AgentId) {
        if self.timers.has(Timer::Silence(id)) || self.policy.bugs.drop_deadline {
            return;
        }
        let Some(agent) = self.agents.get(&id) else { return };
        let wait_ms = match agent.silence {
            Silence::Heard => (3 * self.beat_ms(id)).min(self.lease_ms(id)),
            Silence::Never => self.first_word_ms(id),
            Silence::Suspect => self.lease_ms(id),
            Silence::Lost | Silence::Left => return,
        };
        self.timers.set(Timer::Silence(id), agent.heard_at.plus_ms(wait_ms));
    }

    /// Whether an agent's silence has a deadline, so that what it holds has one.
    pub(crate) fn is_awaited(&self, id: AgentId) -> bool {
        self.agents.get(&id).is_some_and(|agent| match agent.silence {
            Silence::Never | Silence::Heard | Silence::Suspect => true,
            Silence::Lost | Silence::Left => false,
        })
    }

    /// How long an agent may take to speak after a restart: a whole lease, and at least as long as it may be pausing
    /// between two tries to connect.
    fn first_word_ms(&self, id: AgentId) -> u64 {
        self.lease_ms(id).max(limits::RESTART_GRACE_MS)
    }

    /// Three beats are missing, or a whole lease is over.
    pub(crate) fn on_silence(&mut self, id: AgentId) {
        let (mut lease_ms, suspect_ms) = (self.lease_ms(id), 3 * self.beat_ms(id));
        if self.agents.get(&id).is_some_and(|agent| agent.silence == Silence::Never) {
            lease_ms = self.first_word_ms(id);
        }
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let silent_ms = self.now.mono.since_ms(agent.heard_at);
        if agent.silence == Silence::Heard {
            // Even if its lease is over, because this comes late: its neighbours' silence is looked at first.
            if silent_ms >= suspect_ms.min(lease_ms) {
                agent.silence = Silence::Suspect;
                self.refresh(id);
                self.judge_zone(id);
            }
        } else if silent_ms >= lease_ms {
            self.judge_zone(id);
            match self.held_until(id) {
                Some(until) => self.timers.set(Timer::Silence(id), until),
                None => self.lose_agent(id),
            }
        }
        self.watch_silence(id);
    }

    /// Its rights have ended with its lease (F18 names how).
    fn lose_agent(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let detail = match (agent.conn, &agent.gone_detail, agent.silence) {
            (_, _, Silence::Never) => "lease_expired".to_owned(),
            (None, Some(detail), _) => detail.clone(),
            (_, _, _) => "heartbeat_lost".to_owned(),
        };
        agent.silence = Silence::Lost;
        if let Some(conn) = agent.conn.take() {
            let detail = "your lease is over: say hello again".to_owned();
            self.book.out.push(Effect::Disconnect { agent: id, conn, code: RefuseCode::Unavailable, detail });
        }
        self.lose_all(id, CauseKind::AgentLost, &detail, Remains::Unknown);
        self.refresh(id);
        self.away(id);
    }

    /// Ends every right of an agent, but for those whose result is already here.
    pub(crate) fn lose_all(&mut self, id: AgentId, kind: CauseKind, detail: &str, remains: Remains) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.slots.retain(|_, slot| slot.ghost.is_none());
        let held: Vec<_> = agent.slots.keys().copied().collect();
        for attempt in held {
            let finishing = self.leases.get(&attempt).is_some_and(|lease| matches!(lease.phase, Phase::Finishing(_)));
            if !finishing {
                self.lose(attempt, kind, detail, remains);
            }
        }
        self.sum_up(id);
    }

    /// A connection ended. Nothing is lost by that alone: the lease decides.
    pub(crate) fn on_agent_gone(&mut self, id: AgentId, conn: ConnId, detail: &str) -> Result<(), Rejected> {
        let agent = self.agents.get_mut(&id).ok_or(Rejected::NoSuchAgent(id))?;
        if agent.conn != Some(conn) {
            return Err(Rejected::VoidConnection(id));
        }
        agent.conn = None;
        agent.gone_detail = Some(detail.chars().take(256).collect());
        self.refresh(id);
        Ok(())
    }
}
