//! A new connection: what an agent still has is compared with what it should have (F14).

use std::collections::BTreeSet;

use windlass_pipeline::graph::NodeKind;
use windlass_protocol::job::{Epoch, Phase as Told};
use windlass_protocol::message::{CoordinatorMessage, Held, Hello, RefuseCode, Verdict};
use windlass_protocol::{AgentId, AttemptId, CauseKind, Digest, limits};

use crate::concurrency::runs_alone;
use crate::drain::stopped;
use crate::effect::Effect;
use crate::error::Rejected;
use crate::input::ConnId;
use crate::lease::Remains;
use crate::result::matching_rule;
use crate::row::{AttemptState, JobState, JoinRefused, TokenGrant};
use crate::state::{Core, Lease, Phase, Slot};
use crate::token::effective_tags;

fn refused(code: RefuseCode, detail: &str) -> Rejected {
    Rejected::Join(JoinRefused { code, detail: detail.to_owned() })
}

impl Core {
    /// An agent is here, on a new connection.
    pub(crate) fn on_hello(&mut self, id: AgentId, key: Digest, conn: ConnId, hello: Hello) -> Result<(), Rejected> {
        let agent = self.agents.get(&id).ok_or(Rejected::NoSuchAgent(id))?;
        if agent.row.revoked_at.is_some() {
            return Err(refused(RefuseCode::AgentRevoked, "this agent was revoked: join again with a new key"));
        }
        if agent.row.key != key {
            return Err(refused(RefuseCode::Malformed, "the certificate's key is not the key that joined"));
        }
        for (what, value, limit) in [
            ("slots of an agent", u64::from(hello.slots), u64::from(limits::SLOTS_MAX)),
            ("tags of an agent", hello.tags.len() as u64, limits::TAGS_MAX as u64),
            ("bytes of a name", hello.name.len() as u64, limits::NAME_MAX_BYTES as u64),
        ] {
            if value > limit {
                return Err(refused(RefuseCode::Malformed, &format!("{what}: at most {limit}")));
            }
        }
        let pool = self.pools.get(&agent.row.pool).ok_or_else(|| Rejected::NoSuchPool(agent.row.pool.clone()))?;
        let tags = effective_tags(&pool.tags, &hello.tags).map_err(Rejected::Join)?;
        if agent.row.name != hello.name {
            self.check_new_name(id, &hello.name).map_err(Rejected::Join)?;
        }
        let lease_ms = pool.lease_ms;
        if (&agent.row.name, &agent.row.tags) != (&hello.name, &tags) {
            self.book.agents.insert(id);
        }
        let Some(agent) = self.agents.get_mut(&id) else { return Err(Rejected::NoSuchAgent(id)) };
        let old = agent.conn.replace(conn);
        agent.row.name.clone_from(&hello.name);
        self.queue.hold_tags(&agent.row.tags, &tags);
        agent.row.tags = tags;
        agent.session = (agent.session + 1).max(self.now.wall.0);
        (agent.self_draining, agent.gone_detail) = (false, None);
        let session = agent.session;
        let held = hello.held.clone();
        agent.hello = Some(hello);
        if let Some(conn) = old {
            let detail = "a newer connection of the same agent took over".to_owned();
            self.book.out.push(Effect::Disconnect { agent: id, conn, code: RefuseCode::Unavailable, detail });
        }
        self.heard(id);
        self.arm_reserve();
        let beat_ms = self.pace(id);
        self.reconcile(id, &held, |verdicts| CoordinatorMessage::Welcome { session, lease_ms, beat_ms, verdicts });
        self.repeat_drain(id);
        Ok(())
    }

    /// Whether an agent that has joined may be called otherwise from now on. Its old name it keeps in any case: work is
    /// not lost because somebody took it meanwhile.
    fn check_new_name(&self, id: AgentId, name: &str) -> Result<(), JoinRefused> {
        let Some(agent) = self.agents.get(&id) else { return Ok(()) };
        match self.tokens.get(&agent.row.token).map(|token| &token.grant) {
            Some(TokenGrant::Join { terms, .. }) => terms.admit_name(name)?,
            Some(TokenGrant::Api { .. }) | None => {}
        }
        self.check_name_free(&agent.row.pool, name, Some(id))
    }

    fn reconcile(
        &mut self,
        id: AgentId,
        held: &[Held],
        welcome: impl FnOnce(Vec<(AttemptId, Verdict)>) -> CoordinatorMessage,
    ) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.slots.retain(|_, slot| slot.ghost.is_none());
        let had: Vec<AttemptId> = agent.slots.keys().copied().collect();
        let named: BTreeSet<AttemptId> = held.iter().map(|held| held.attempt).collect();
        agent.committed.retain(|attempt, _| named.contains(attempt));
        let verdicts: Vec<_> = held.iter().map(|held| (held.attempt, self.verdict_on(id, held))).collect();
        // What it names by an older right is not what it was given since.
        let by_right: BTreeSet<AttemptId> = verdicts
            .iter()
            .zip(held)
            .filter(|((attempt, verdict), held)| {
                let right = self.leases.get(attempt).map(|lease| lease.epoch);
                matches!(verdict, Verdict::Keep { .. }) || right == Some(held.epoch)
            })
            .map(|((attempt, _), _)| *attempt)
            .collect();
        self.send(id, welcome(verdicts));
        for attempt in had.iter().filter(|attempt| !by_right.contains(attempt)) {
            self.on_not_held(id, *attempt);
        }
        for attempt in &named {
            self.repeat_cancel(*attempt);
        }
        // Its size may have changed with its program.
        for attempt in self.agents[&id].slots.keys().copied().collect::<Vec<_>>() {
            let job = self.agents[&id].slots[&attempt].job;
            let resources = self.share_of(job, id);
            if let Some(slot) = self.agents.get_mut(&id).and_then(|agent| agent.slots.get_mut(&attempt)) {
                slot.resources = resources;
            }
        }
        self.sum_up(id);
    }

    /// What becomes of an attempt that an agent says it has.
    fn verdict_on(&mut self, id: AgentId, held: &Held) -> Verdict {
        let (attempt, epoch) = (held.attempt, held.epoch);
        if let Some(lease) = self.leases.get(&attempt).filter(|lease| lease.agent == id) {
            // A newer right of the same agent is an adoption whose welcome did not arrive.
            let adopted = lease.epoch > epoch && lease.phase != Phase::Offered && !self.is_exclusive(attempt);
            let mine = lease.epoch == epoch || adopted;
            if mine && lease.phase != Phase::Withdrawn {
                let keep = Verdict::Keep { epoch: lease.epoch, log_offset: 0 };
                self.learn(held);
                return keep;
            }
            if lease.epoch == epoch {
                if held.phase != Told::Preparing {
                    let wall = self.now.wall;
                    if let Some(lease) = self.leases.get_mut(&attempt) {
                        lease.started_at = lease.started_at.or(held.started_at).or(Some(wall));
                    }
                }
                return Verdict::Stop;
            }
        }
        if self.is_committed(id, attempt, epoch) {
            return Verdict::Committed;
        }
        if let Some(epoch) = self.adopt(id, held) {
            return Verdict::Keep { epoch, log_offset: 0 };
        }
        // Of what has not started, or has ended, nothing runs and nothing will.
        if held.phase == Told::Running {
            self.haunt(id, attempt, epoch);
        }
        Verdict::Stop
    }

    fn is_exclusive(&self, attempt: AttemptId) -> bool {
        let job = self.attempts.get(&attempt).map(|row| row.job);
        job.and_then(|job| self.command(job)).is_some_and(runs_alone)
    }

    /// Takes over what the agent says about a live attempt of its own.
    fn learn(&mut self, held: &Held) {
        let wall = self.now.wall;
        let Some(lease) = self.leases.get_mut(&held.attempt) else { return };
        if matches!(lease.phase, Phase::Finishing(_)) {
            return;
        }
        let phase = match held.phase {
            Told::Preparing => Phase::Accepted,
            Told::Running | Told::Finished => Phase::Running,
        };
        if phase == Phase::Running {
            lease.started_at = lease.started_at.or(held.started_at).or(Some(wall)).map(|at| at.min(wall));
        }
        if lease.phase != phase {
            self.enter(held.attempt, phase);
        }
    }

    /// A lost attempt that nobody else was given yet goes on by a new right; exclusive ones never.
    fn adopt(&mut self, id: AgentId, held: &Held) -> Option<Epoch> {
        let row = self.attempts.get(&held.attempt)?;
        if row.agent != id || row.epoch != held.epoch || self.is_exclusive(held.attempt) {
            return None;
        }
        let (job, state, cause) = (row.job, row.state, row.cause.clone());
        let waits = &self.jobs.get(&job)?.row;
        if waits.state != JobState::Scheduled || waits.attempts.last() != Some(&held.attempt) {
            return None;
        }
        let agent_lost = cause.as_ref().is_some_and(|cause| cause.kind == CauseKind::AgentLost);
        if state.is_final() && !(state == AttemptState::Lost && agent_lost) {
            return None;
        }
        self.meta.last_epoch += 1;
        self.book.meta = true;
        let epoch = Epoch(self.meta.last_epoch);
        let boot_id = self.boot_of(id);
        let row = self.edit_attempt(held.attempt);
        row.boot_id = boot_id;
        (row.state, row.epoch, row.cause, row.finished_at) = (AttemptState::Assigned, epoch, None, None);
        let rule = match &self.jobs[&job].row.node.kind {
            NodeKind::Command(command) if agent_lost => matching_rule(&command.retry, Some(-1), None, cause.as_ref()),
            _ => None,
        };
        self.change_job(job, |row| {
            row.state = JobState::Assigned;
            if agent_lost {
                row.agents_lost.pop();
                (row.exit_status, row.cause) = (None, None);
            } else {
                row.requeues = row.requeues.saturating_sub(1);
            }
            if let Some(uses) = rule.and_then(|rule| row.rule_uses.get_mut(rule)) {
                *uses = uses.saturating_sub(1);
            }
        });
        let build = self.jobs[&job].row.build;
        if let Some(build) = self.builds.get_mut(&build) {
            build.turn = epoch.0;
        }
        self.queue.served(build, epoch.0);
        let resources = self.share_of(job, id);
        self.take_slot(id, held.attempt, Slot { epoch, job, resources, ghost: None, done: false });
        let (granted_at, phase) = (self.now.mono, Phase::Unknown);
        let lease = Lease { agent: id, job, epoch, phase, started_at: None, granted_at, stopping: false, timer: None };
        self.leases.insert(held.attempt, lease);
        self.book.out.push(Effect::FenceLog { attempt: held.attempt, epoch, sealed: false });
        self.learn(held);
        Some(epoch)
    }

    /// The agent does not have an attempt that it was given: it never took it, or lost it with its memory.
    fn on_not_held(&mut self, id: AgentId, attempt: AttemptId) {
        let Some(lease) = self.leases.get(&attempt) else { return };
        let (job, started) = (lease.job, lease.started_at.is_some());
        let assigned = self.jobs[&lease.job].row.state == JobState::Assigned;
        let given_in = &self.attempts[&attempt].boot_id;
        let rebooted = !given_in.is_empty() && *given_in != self.boot_of(id) && !self.policy.bugs.forget_reboot;
        match lease.phase {
            Phase::Finishing(_) => {}
            // What it wrote down may be lost with the machine's memory, and a started command with it.
            _ if rebooted => {
                let detail = "the agent's machine started anew and the job is lost";
                self.lose(attempt, CauseKind::AgentLost, detail, Remains::Unknown);
            }
            Phase::Accepted | Phase::Running => {
                let detail = "the agent came back without the job";
                self.lose(attempt, CauseKind::AgentLost, detail, Remains::Unknown);
            }
            Phase::Unknown | Phase::Offered | Phase::Withdrawn if started => {
                let detail = "the agent came back without the job";
                self.lose(attempt, CauseKind::AgentLost, detail, Remains::Unknown);
            }
            Phase::Withdrawn => self.requeue(attempt),
            Phase::Unknown | Phase::Offered if assigned && self.may_offer_again(job) && self.still_welcome(id) => {
                // Counted as if it had gone back to its queue: an offer that ends its agent's connection comes to an end.
                self.edit_job(job).requeues += 1;
                self.enter(attempt, Phase::Offered);
                self.offer(attempt);
            }
            Phase::Unknown | Phase::Offered => self.requeue(attempt),
        }
    }

    fn may_offer_again(&self, job: windlass_protocol::JobId) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.row.requeues < limits::REQUEUE_MAX)
    }

    /// Whether an agent that was given something may still begin it.
    fn still_welcome(&self, id: AgentId) -> bool {
        self.agents.get(&id).is_some_and(|agent| agent.is_eligible(self.pools.get(&agent.row.pool)))
    }

    /// An agent that comes back may not have heard that it is to end an attempt.
    fn repeat_cancel(&mut self, attempt: AttemptId) {
        let Some(lease) = self.leases.get(&attempt) else { return };
        let (agent, epoch, job) = (lease.agent, lease.epoch, &self.jobs[&lease.job].row);
        if matches!(lease.phase, Phase::Finishing(_)) {
            return;
        }
        if let (JobState::Canceling | JobState::TimingOut, Some(cause)) = (job.state, job.cause.clone()) {
            let grace_ms = job.cancel_grace_ms.filter(|_| job.state == JobState::Canceling);
            self.send(agent, CoordinatorMessage::Cancel { attempt, epoch, cause, grace_ms });
        } else if lease.stopping {
            self.send(agent, CoordinatorMessage::Cancel { attempt, epoch, cause: stopped(), grace_ms: Some(0) });
        }
    }
}
