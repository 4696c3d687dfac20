//! Agents: who is here, what each has and can take, and what silence means (F10–F18).

use std::collections::BTreeMap;

use windlass_protocol::job::Resources;
use windlass_protocol::message::{CoordinatorMessage, Health, RefuseCode};
use windlass_protocol::{AgentId, AttemptId, CauseKind, Instant64, limits};

use crate::effect::{AgentState, Effect, Progress};
use crate::error::Rejected;
use crate::input::{AgentEvent, ConnId};
use crate::lease::Remains;
use crate::row::{AgentRow, PoolRow};
use crate::state::{Agent, Core, Phase, Silence, Slot};
use crate::timer::Timer;

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
        },
        heard_at: now,
        heard_wall: None,
        silence: Silence::Never,
        gone_detail: None,
        self_draining: false,
        backoff_until: None,
        slots: BTreeMap::new(),
        used: Resources { cpu_millis: 0, memory_bytes: 0 },
        committed: BTreeMap::new(),
        reserved_for: None,
        open_at: None,
        shown: AgentState::Joining,
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
        if state != agent.shown {
            agent.shown = state;
            self.book.out.push(Effect::Progress(Progress::Agent { agent: id, state }));
        }
    }

    /// Takes a slot.
    pub(crate) fn take_slot(&mut self, id: AgentId, attempt: AttemptId, slot: Slot) {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.slots.insert(attempt, slot);
        }
        self.sum_up(id);
    }

    /// Gives a slot back.
    pub(crate) fn free_slot(&mut self, id: AgentId, attempt: AttemptId) {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.slots.remove(&attempt);
        }
        self.sum_up(id);
    }

    /// The command has ended: the slot has room again, though the result is not yet durable.
    pub(crate) fn finish_slot(&mut self, id: AgentId, attempt: AttemptId) {
        if let Some(slot) = self.agents.get_mut(&id).and_then(|agent| agent.slots.get_mut(&attempt)) {
            slot.done = true;
        }
        self.sum_up(id);
    }

    pub(crate) fn sum_up(&mut self, id: AgentId) {
        if let Some(agent) = self.agents.get_mut(&id) {
            let mut used = Resources::default();
            for slot in agent.slots.values().filter(|slot| !slot.done) {
                used.cpu_millis = used.cpu_millis.saturating_add(slot.resources.cpu_millis);
                used.memory_bytes = used.memory_bytes.saturating_add(slot.resources.memory_bytes);
            }
            agent.used = used;
        }
        self.refresh(id);
    }

    /// How long this agent's rights last without a beat.
    pub(crate) fn lease_ms(&self, id: AgentId) -> u64 {
        self.pool_of(id).map_or(limits::LEASE_DEFAULT_MS, |pool| pool.lease_ms)
    }

    /// Between this agent's beats.
    pub(crate) fn beat_ms(&self, id: AgentId) -> u64 {
        self.pool_of(id).map_or(limits::BEAT_MS, |pool| pool.beat_ms)
    }

    pub(crate) fn pool_of(&self, id: AgentId) -> Option<&PoolRow> {
        self.pools.get(&self.agents.get(&id)?.row.pool)
    }

    /// The agent was heard: everything that it holds by right goes on.
    pub(crate) fn heard(&mut self, id: AgentId) {
        let now = self.now;
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.heard_at = now.mono;
            agent.heard_wall = Some(now.wall);
            agent.silence = Silence::Heard;
        }
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
            Silence::Never | Silence::Suspect => self.lease_ms(id),
            Silence::Lost | Silence::Left => return,
        };
        self.timers.set(Timer::Silence(id), agent.heard_at.plus_ms(wait_ms));
    }

    /// Three beats are missing, or a whole lease is over.
    pub(crate) fn on_silence(&mut self, id: AgentId) {
        let (lease_ms, suspect_ms) = (self.lease_ms(id), 3 * self.beat_ms(id));
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let silent_ms = self.now.mono.since_ms(agent.heard_at);
        if silent_ms >= lease_ms {
            self.lose_agent(id);
        } else if silent_ms >= suspect_ms && agent.silence == Silence::Heard {
            agent.silence = Silence::Suspect;
            self.refresh(id);
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

    fn on_started(
        &mut self,
        id: AgentId,
        attempt: AttemptId,
        epoch: windlass_protocol::job::Epoch,
        at: windlass_protocol::WallMs,
    ) -> Result<(), Rejected> {
        self.check_right(id, attempt, epoch)?;
        let wall = self.now.wall;
        let Some(lease) = self.leases.get_mut(&attempt) else { return Err(Rejected::NoLease(attempt)) };
        lease.started_at = Some(at.min(wall));
        if matches!(lease.phase, Phase::Offered | Phase::Accepted) {
            self.enter(attempt, Phase::Running);
        }
        Ok(())
    }

    fn on_refused(
        &mut self,
        id: AgentId,
        attempt: AttemptId,
        epoch: windlass_protocol::job::Epoch,
        _cause: &windlass_protocol::Cause,
    ) -> Result<(), Rejected> {
        self.check_right(id, attempt, epoch)?;
        let until = self.now.mono.plus_ms(self.beat_ms(id));
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.backoff_until = Some(until);
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
    fn on_stopped(
        &mut self,
        id: AgentId,
        attempt: AttemptId,
        epoch: windlass_protocol::job::Epoch,
    ) -> Result<(), Rejected> {
        let result = self.end_stopped(id, attempt, epoch);
        // A result that had come before is told when it is durable itself.
        if !self.leases.get(&attempt).is_some_and(|lease| matches!(lease.phase, Phase::Finishing(_))) {
            self.send(id, CoordinatorMessage::Committed { attempt, epoch });
        }
        result
    }

    fn end_stopped(
        &mut self,
        id: AgentId,
        attempt: AttemptId,
        epoch: windlass_protocol::job::Epoch,
    ) -> Result<(), Rejected> {
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

    /// Lifts an exclusive job's fence if it was this attempt that it waited for.
    pub(crate) fn unfence(&mut self, job: windlass_protocol::JobId, attempt: AttemptId) {
        let last = self.jobs.get(&job).and_then(|job| job.row.attempts.last()).copied();
        if last == Some(attempt) && !self.leases.contains_key(&attempt) {
            self.lift_fence(job);
        }
    }

    fn on_goodbye(&mut self, id: AgentId, conn: ConnId, reason: &str) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.conn = None;
        agent.silence = Silence::Left;
        agent.gone_detail = Some("connection_closed".to_owned());
        self.timers.clear(Timer::Silence(id));
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

    /// Forgets an agent that left for good; its row says so.
    pub(crate) fn forget_agent(&mut self, id: AgentId) {
        self.timers.clear(Timer::Silence(id));
        self.timers.clear(Timer::Backoff(id));
        if let Some(agent) = self.agents.remove(&id) {
            if self.keys.get(&agent.row.key) == Some(&id) {
                self.keys.remove(&agent.row.key);
            }
            if let (Some(busy), Some(open)) = (agent.open_at, self.open.get_mut(&agent.row.pool)) {
                open.remove(&(busy, id));
            }
        }
    }

    fn on_beat(&mut self, id: AgentId, seq: u64, health: Health, held: &[(AttemptId, windlass_protocol::job::Epoch)]) {
        self.heard(id);
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.health = health;
        }
        self.send(id, CoordinatorMessage::BeatAck { seq });
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
    fn drop_unnamed(&mut self, id: AgentId, named: &BTreeMap<AttemptId, windlass_protocol::job::Epoch>) {
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

    /// The agent has something that it has no right to: a slot stays taken until it is gone, and an exclusive job
    /// waits for that (I3).
    pub(crate) fn haunt(&mut self, id: AgentId, attempt: AttemptId, epoch: windlass_protocol::job::Epoch) {
        let Some(row) = self.attempts.get(&attempt) else { return };
        let (job, now) = (row.job, self.now.mono);
        let resources = self.share_of(job, id);
        if let Some(agent) = self.agents.get_mut(&id) {
            let since = agent.slots.get(&attempt).and_then(|slot| slot.ghost).unwrap_or(now);
            agent.slots.insert(attempt, Slot { epoch, job, resources, ghost: Some(since), done: false });
        }
        if self.jobs.get(&job).is_some_and(|job| job.queued.is_some()) {
            self.dequeue(job);
            self.enqueue(job);
        }
    }

    /// An agent that lives and has not said that an earlier attempt of an exclusive job has ended.
    pub(crate) fn haunted_by(&self, job: windlass_protocol::JobId) -> Option<AgentId> {
        let attempted = self.jobs.get(&job).is_some_and(|job| !job.row.attempts.is_empty());
        if !attempted || !self.command(job).is_some_and(|command| command.exclusive) {
            return None;
        }
        let haunted = |agent: &Agent| agent.slots.values().any(|slot| slot.ghost.is_some() && slot.job == job);
        self.agents.iter().find(|(_, agent)| haunted(agent)).map(|(id, _)| *id)
    }
}
