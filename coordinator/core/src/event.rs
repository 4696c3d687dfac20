//! Events: what an agent says after its hello.

use std::collections::BTreeMap;

use windlass_protocol::job::Epoch;
use windlass_protocol::message::{CoordinatorMessage, Health, RefuseCode};
use windlass_protocol::{AgentId, AttemptId, Cause, CauseKind, WallMs};

use crate::effect::Effect;
use crate::error::Rejected;
use crate::input::{AgentEvent, ConnId};
use crate::lease::Remains;
use crate::state::{Core, Phase, Silence};
use crate::timer::Timer;

impl Core {
    /// Anything that an agent says after its hello.
    pub(crate) fn on_agent_event(&mut self, id: AgentId, conn: ConnId, event: AgentEvent) -> Result<(), Rejected> {
        let agent = self.agents.get_mut(&id).ok_or(Rejected::NoSuchAgent(id))?;
        if agent.conn != Some(conn) {
            return Err(Rejected::VoidConnection(id));
        }
        match event {
            AgentEvent::Beat { seq, health, held } => {
                self.on_beat(id, seq, health, &held);
                Ok(())
            }
            AgentEvent::Stock { inputs, fetched } => {
                self.on_stock(id, &inputs, fetched);
                Ok(())
            }
            AgentEvent::Accepted(attempt, epoch) => {
                self.check_right(id, attempt, epoch)?;
                if self.leases.get(&attempt).is_some_and(|lease| lease.phase == Phase::Offered) {
                    self.enter(attempt, Phase::Accepted);
                }
                Ok(())
            }
            AgentEvent::Refused(attempt, epoch, cause) => self.on_refused(id, attempt, epoch, &cause),
            AgentEvent::Started(attempt, epoch, at) => self.on_started(id, attempt, epoch, at),
            AgentEvent::Finished(attempt, epoch, outcome) => self.on_finished(id, attempt, epoch, *outcome),
            AgentEvent::Stopped(attempt, epoch) => self.on_stopped(id, attempt, epoch),
            AgentEvent::Draining => {
                agent.self_draining = true;
                self.refresh(id);
                Ok(())
            }
            AgentEvent::Resumed => {
                agent.self_draining = false;
                self.refresh(id);
                Ok(())
            }
            AgentEvent::Goodbye { reason } => {
                self.on_goodbye(id, conn, &reason);
                Ok(())
            }
        }
    }

    fn on_beat(&mut self, id: AgentId, seq: u64, health: Health, held: &[(AttemptId, Epoch)]) {
        self.heard(id);
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.health = health;
            if let Some(hello) = &mut agent.hello {
                hello.runs_images = health.runs_images;
            }
        }
        let beat_ms = self.pace(id);
        self.send(id, CoordinatorMessage::BeatAck { seq, beat_ms });
        let named: BTreeMap<_, _> = held.iter().copied().collect();
        self.drop_unnamed(id, &named);
        for (&attempt, &epoch) in &named {
            let live = self.leases.get(&attempt).is_some_and(|lease| lease.agent == id && lease.epoch >= epoch);
            if live {
                continue;
            }
            if self.is_committed(id, attempt, epoch) {
                self.send(id, CoordinatorMessage::Committed { attempt, epoch });
            } else {
                self.haunt(id, attempt, epoch);
                self.send(id, CoordinatorMessage::Stop { attempt, epoch });
            }
        }
        self.sum_up(id);
    }

    /// What the agent held and names no more has ended without a word: it is lost; ghosts are gone.
    fn drop_unnamed(&mut self, id: AgentId, named: &BTreeMap<AttemptId, Epoch>) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.committed.retain(|attempt, _| named.contains_key(attempt));
        let missing: Vec<_> =
            agent.slots.iter().filter(|(attempt, _)| !named.contains_key(attempt)).map(|(a, s)| (*a, *s)).collect();
        for (attempt, slot) in missing {
            if slot.ghost.is_some() {
                self.free_slot(id, attempt);
                self.unfence(slot.job, attempt);
                continue;
            }
            let phase = self.leases.get(&attempt).map(|lease| &lease.phase);
            if matches!(phase, Some(Phase::Accepted | Phase::Running)) {
                let detail = "the agent no longer knows of the job";
                self.lose(attempt, CauseKind::AgentLost, detail, Remains::Unknown);
            }
        }
    }

    fn on_started(&mut self, id: AgentId, attempt: AttemptId, epoch: Epoch, at: WallMs) -> Result<(), Rejected> {
        self.check_right(id, attempt, epoch)?;
        let wall = self.now.wall;
        let Some(lease) = self.leases.get_mut(&attempt) else { return Err(Rejected::NoLease(attempt)) };
        lease.started_at = Some(at.min(wall));
        if matches!(lease.phase, Phase::Offered | Phase::Accepted) {
            self.enter(attempt, Phase::Running);
        }
        Ok(())
    }

    fn on_refused(&mut self, id: AgentId, attempt: AttemptId, epoch: Epoch, cause: &Cause) -> Result<(), Rejected> {
        self.check_right(id, attempt, epoch)?;
        let until = self.now.mono.plus_ms(self.beat_ms(id));
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.backoff_until = Some(until);
            // Known before its next beat says it, or takes it back.
            agent.health.disk_full |= cause.kind == CauseKind::DiskFull;
        }
        self.timers.set(Timer::Backoff(id), until);
        self.requeue(attempt);
        self.refresh(id);
        Ok(())
    }

    /// An agent that refused gets offers again.
    pub(crate) fn on_backoff_over(&mut self, id: AgentId) {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.backoff_until = None;
        }
        self.refresh(id);
    }

    /// Nothing of an attempt runs any more on this agent. It remembers that until it hears that the end is durable:
    /// else a restart of ours could take what had started for what had not (I3).
    fn on_stopped(&mut self, id: AgentId, attempt: AttemptId, epoch: Epoch) -> Result<(), Rejected> {
        let result = self.end_stopped(id, attempt, epoch);
        // A result that had come before is told when it is durable itself.
        if !self.leases.get(&attempt).is_some_and(|lease| matches!(lease.phase, Phase::Finishing(_))) {
            self.send(id, CoordinatorMessage::Committed { attempt, epoch });
        }
        result
    }

    fn end_stopped(&mut self, id: AgentId, attempt: AttemptId, epoch: Epoch) -> Result<(), Rejected> {
        let slot = self.agents.get(&id).and_then(|agent| agent.slots.get(&attempt)).copied();
        if let Some(slot) = slot.filter(|slot| slot.ghost.is_some()) {
            self.free_slot(id, attempt);
            self.unfence(slot.job, attempt);
            return Ok(());
        }
        self.check_right(id, attempt, epoch)?;
        let Some(lease) = self.leases.get(&attempt) else { return Err(Rejected::NoLease(attempt)) };
        match (&lease.phase, lease.started_at) {
            (Phase::Finishing(_), _) => {}
            // An agent says that a command has started before it says that nothing runs.
            (Phase::Withdrawn | Phase::Offered | Phase::Accepted, None) => self.requeue(attempt),
            _ => self.lose(attempt, CauseKind::LeaseLost, "the agent's own right had ended", Remains::Nothing),
        }
        Ok(())
    }

    fn on_goodbye(&mut self, id: AgentId, conn: ConnId, reason: &str) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.conn = None;
        agent.silence = Silence::Left;
        agent.gone_detail = Some("connection_closed".to_owned());
        self.timers.clear(Timer::Silence(id));
        self.away(id);
        let detail = "goodbye".to_owned();
        self.book.out.push(Effect::Disconnect { agent: id, conn, code: RefuseCode::Unavailable, detail });
        let ghosts: Vec<_> =
            self.agents[&id].slots.iter().filter(|(_, slot)| slot.ghost.is_some()).map(|(a, s)| (*a, s.job)).collect();
        for (attempt, job) in ghosts {
            self.free_slot(id, attempt);
            self.unfence(job, attempt);
        }
        for attempt in self.agents[&id].slots.keys().copied().collect::<Vec<_>>() {
            if self.leases.get(&attempt).is_some_and(|lease| lease.phase == Phase::Offered) {
                self.requeue(attempt);
            }
        }
        let detail = format!("connection_closed: {reason}");
        self.lose_all(id, CauseKind::AgentStopped, &detail, Remains::Nothing);
        self.refresh(id);
    }
}
