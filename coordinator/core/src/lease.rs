//! Leases: how a job is given to an agent, how the right is watched, and how it ends without a result (I2, I3).

use windlass_protocol::job::Epoch;
use windlass_protocol::message::CoordinatorMessage;
use windlass_protocol::{AgentId, AttemptId, CauseKind, JobId, limits};

use crate::concurrency::runs_alone;
use crate::effect::{Effect, Progress};
use crate::error::Rejected;
use crate::result::Decision;
use crate::row::{AttemptRow, AttemptState, JobState};
use crate::state::{Core, Lease, Phase, Slot};
use crate::timer::Timer;

/// What is known of an attempt's processes when its right ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remains {
    /// Nothing runs any more.
    Nothing,
    /// They may still run, on an agent that is silent or does not know of them.
    Unknown,
    /// They may still run, on an agent that lives: its slot stays taken until it says otherwise.
    Ghost,
}

impl Core {
    /// Gives a queued job to an agent, by a new epoch. A job whose last attempt never started keeps that attempt.
    pub(crate) fn grant(&mut self, job: JobId, agent: AgentId) {
        let (mono, wall) = (self.now.mono, self.now.wall);
        self.meta.last_epoch += 1;
        self.book.meta = !self.policy.bugs.forget_last_epoch;
        let epoch = Epoch(self.meta.last_epoch);
        if self.jobs[&job].row.attempts.is_empty() {
            self.clear(job);
        }
        let row = &self.jobs[&job].row;
        let (build, last) = (row.build, row.attempts.last().copied());
        let id = self.attempt_for(last, epoch);
        let fresh = last != Some(id);
        let number = u32::try_from(self.jobs[&job].row.attempts.len()).unwrap_or(u32::MAX) + u32::from(fresh);
        let attempt = self.leased(id, job, number, agent, epoch);
        self.attempts.insert(id, attempt);
        self.book.attempts.insert(id);
        if fresh && number > 1 {
            self.forget_uploads(job);
        }
        self.change_job(job, |row| {
            row.state = JobState::Assigned;
            row.not_before = None;
            (row.exit_status, row.signal, row.cause, row.soft_failed) = (None, None, None, false);
            if fresh {
                row.attempts.push(id);
            }
        });
        if fresh {
            let row = &self.jobs[&job].row;
            let runnable_at = row.runnable_at.unwrap_or(row.created_at);
            self.book.out.push(Effect::Dispatched { runnable_at });
        }
        if self.builds[&build].row.started_at.is_none() {
            self.edit_build(build).started_at = Some(wall);
        }
        if let Some(build) = self.builds.get_mut(&build) {
            build.turn = epoch.0;
        }
        self.queue.served(build, epoch.0);
        let resources = self.share_of(job, agent);
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.reserved_for = None;
        }
        self.take_slot(agent, id, Slot { epoch, job, resources, ghost: None, done: false });
        let (phase, started_at, granted_at, stopping) = (Phase::Offered, None, mono, false);
        self.leases.insert(id, Lease { agent, job, epoch, phase, started_at, granted_at, stopping, timer: None });
        self.arm(id);
        self.watch_silence(agent);
        self.offer(id);
        if self.policy.bugs.lease_twice {
            self.grant_again(id, job, epoch);
        }
    }

    /// The row of an attempt that an agent is given. One that never started keeps what it had.
    fn leased(&self, id: AttemptId, job: JobId, number: u32, agent: AgentId, epoch: Epoch) -> AttemptRow {
        let (holder, former) = (&self.agents[&agent].row, self.attempts.get(&id));
        AttemptRow {
            id,
            job,
            build: self.jobs[&job].row.build,
            number,
            state: AttemptState::Assigned,
            epoch,
            agent,
            agent_name: holder.name.clone(),
            zone: self.pools.get(&holder.pool).map(|pool| pool.zone.clone()).unwrap_or_default(),
            pool: holder.pool.clone(),
            assigned_at: self.now.wall,
            boot_id: self.boot_of(agent),
            outcome: None,
            log_complete: false,
            cause: None,
            finished_at: None,
            artifacts: former.map(|former| former.artifacts.clone()).unwrap_or_default(),
            granted: epoch,
            calls: former.map(|former| former.calls.clone()).unwrap_or_default(),
            yields: self.yields_of(job, agent),
            reused: None,
            weighed: self.weighed(job, agent),
        }
    }

    /// A job's last attempt if it never started, or a new one.
    fn attempt_for(&mut self, last: Option<AttemptId>, epoch: Epoch) -> AttemptId {
        match last.filter(|last| !self.attempts[last].state.is_final()) {
            Some(unstarted) => {
                self.book.out.push(Effect::FenceLog { attempt: unstarted, epoch, sealed: false });
                unstarted
            }
            None => {
                if let Some(lost) = last.filter(|last| self.attempts[last].state == AttemptState::Lost) {
                    // It can be adopted no more.
                    self.seal(lost);
                }
                self.ids.attempt(self.now.wall)
            }
        }
    }

    /// The deliberate bug: a second agent gets the same right.
    fn grant_again(&mut self, id: AttemptId, job: JobId, epoch: Epoch) {
        let second = self
            .open
            .values()
            .flatten()
            .map(|(_, agent)| *agent)
            .find(|agent| !self.agents[agent].slots.contains_key(&id));
        if let (Some(agent), Some(spec)) = (second, self.spec(id)) {
            let resources = self.share_of(job, agent);
            self.take_slot(agent, id, Slot { epoch, job, resources, ghost: None, done: false });
            self.send(agent, CoordinatorMessage::Offer { epoch, job: Box::new(spec) });
        }
    }

    /// A live attempt got further.
    pub(crate) fn enter(&mut self, id: AttemptId, phase: Phase) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let finishing = matches!(phase, Phase::Finishing(_));
        lease.phase = phase;
        if finishing || !self.is_ending(id) {
            self.arm(id);
        }
        self.show_progress(id);
    }

    /// Whether an attempt's agent was told to end it.
    fn is_ending(&self, id: AttemptId) -> bool {
        self.leases.get(&id).is_some_and(|lease| {
            lease.stopping || matches!(self.jobs[&lease.job].row.state, JobState::Canceling | JobState::TimingOut)
        })
    }

    /// Sets the deadline that a live attempt's phase asks for.
    pub(crate) fn arm(&mut self, id: AttemptId) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if let Some(old) = lease.timer.take() {
            self.timers.clear(old);
        }
        if self.policy.bugs.drop_deadline {
            return;
        }
        let ending = self.is_ending(id);
        let Some(lease) = self.leases.get(&id) else { return };
        let answer_ms = self.grace_ms(lease.job) + limits::STOP_ANSWER_MS;
        let (timer, ms) = match (&lease.phase, ending) {
            (Phase::Finishing(_), _) => (Timer::Settle(id), limits::LOG_SETTLE_MS),
            (Phase::Unknown, true) => (Timer::Close(id), self.lease_ms(lease.agent) + answer_ms),
            (_, true) => (Timer::Close(id), answer_ms),
            (Phase::Unknown, false) if self.is_awaited(lease.agent) => return,
            (Phase::Unknown, false) => (Timer::Withdraw(id), limits::LEASE_DEFAULT_MS),
            (Phase::Offered, false) => (Timer::Offer(id), limits::OFFER_MS),
            (Phase::Accepted, false) => (Timer::Prepare(id), limits::PREPARE_MS),
            (Phase::Withdrawn, false) => (Timer::Withdraw(id), limits::STOP_ANSWER_MS),
            (Phase::Running, false) => {
                let ran_ms = lease.started_at.map_or(0, |at| self.now.wall.0.saturating_sub(at.0));
                (Timer::Timeout(id), self.timeout_ms(lease.job).saturating_sub(ran_ms) + answer_ms)
            }
        };
        self.timers.set(timer, self.now.mono.plus_ms(ms));
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.timer = Some(timer);
        }
    }

    /// Which run of its machine an agent is in; empty while it is not here.
    pub(crate) fn boot_of(&self, agent: AgentId) -> String {
        let hello = self.agents.get(&agent).and_then(|agent| agent.hello.as_ref());
        hello.map(|hello| hello.boot_id.clone()).unwrap_or_default()
    }

    /// Takes an offer back that the agent has not answered, or not begun.
    pub(crate) fn withdraw(&mut self, id: AttemptId) {
        let Some(lease) = self.leases.get(&id) else { return };
        let (agent, epoch) = (lease.agent, lease.epoch);
        self.send(agent, CoordinatorMessage::Stop { attempt: id, epoch });
        self.enter(id, Phase::Withdrawn);
    }

    /// The agent lives and says nothing about an offer that was taken back: nobody knows whether it runs.
    pub(crate) fn on_withdraw_unanswered(&mut self, id: AttemptId) {
        if self.leases.get(&id).is_some_and(|lease| self.held_until(lease.agent).is_some()) {
            // It cannot answer; its silence has a deadline of its own.
            self.timers.set(Timer::Withdraw(id), self.now.mono.plus_ms(limits::STOP_ANSWER_MS));
            return;
        }
        let remains = match self.leases.get(&id) {
            Some(lease) if !self.is_awaited(lease.agent) => Remains::Unknown,
            Some(_) | None => Remains::Ghost,
        };
        self.lose(id, CauseKind::LeaseLost, "the agent did not say what became of the job", remains);
    }

    /// The right ends and nothing had started: the job goes back to its queue, and keeps its attempt.
    pub(crate) fn requeue(&mut self, id: AttemptId) {
        let Some(lease) = self.drop_lease(id, Remains::Nothing) else { return };
        let job = &self.jobs[&lease.job].row;
        if job.state != JobState::Assigned {
            self.close(id, lease.job, "it was ended before it started");
        } else if job.requeues >= limits::REQUEUE_MAX {
            let cause = Self::cause(CauseKind::Internal, "no agent that was offered the job started it");
            self.end_attempt(id, AttemptState::Lost, cause.clone());
            self.fail_or_retry(lease.job, None, cause);
        } else {
            self.fence_log(id);
            self.change_job(lease.job, |row| {
                row.requeues += 1;
                row.state = JobState::Scheduled;
            });
        }
    }

    /// The right ends before anybody was told of it: the job cannot be run as it is.
    pub(crate) fn fail_unoffered(&mut self, id: AttemptId, why: &str) {
        let Some(lease) = self.drop_lease(id, Remains::Nothing) else { return };
        if self.jobs[&lease.job].row.state != JobState::Assigned {
            self.close(id, lease.job, why);
            return;
        }
        let cause = Self::cause(CauseKind::Internal, why);
        self.end_attempt(id, AttemptState::Lost, cause.clone());
        self.fail_or_retry(lease.job, None, cause);
        self.seal(id);
    }

    /// The right ends, and the command had started or may have: only what was declared safe is tried again (F17).
    pub(crate) fn lose(&mut self, id: AttemptId, kind: CauseKind, detail: &str, remains: Remains) {
        let Some(lease) = self.drop_lease(id, remains) else { return };
        let job = lease.job;
        if remains != Remains::Nothing {
            self.fence(job, lease.agent);
        }
        if self.jobs[&job].row.state != JobState::Assigned {
            self.close(id, job, detail);
            return;
        }
        let agent = lease.agent;
        self.edit_job(job).agents_lost.push(agent);
        let suspected = self.jobs[&job].row.agents_lost.len() >= limits::AGENTS_LOST_MAX as usize;
        let detail = if suspected {
            format!("{detail}; the step has lost {} agents and is suspected of ending them", limits::AGENTS_LOST_MAX)
        } else {
            detail.to_owned()
        };
        let cause = Self::cause(kind, &detail);
        self.end_attempt(id, AttemptState::Lost, cause.clone());
        self.fail_or_retry(job, Some(-1), cause);
        self.fence_log(id);
        if self.jobs[&job].row.state.is_final() {
            self.seal(id);
        }
    }

    /// The right of an attempt that was being ended anyway is over.
    pub(crate) fn close(&mut self, id: AttemptId, job: JobId, detail: &str) {
        let cause = self.jobs[&job].row.cause.clone();
        let cause = cause.unwrap_or_else(|| Self::cause(CauseKind::Canceled, detail));
        self.seal(id);
        if self.jobs[&job].row.state == JobState::TimingOut {
            self.end_attempt(id, AttemptState::Lost, cause.clone());
            self.fail_or_retry(job, None, cause);
        } else {
            self.end_attempt(id, AttemptState::Canceled, cause);
            self.end_canceled(job);
        }
    }

    /// The agent has not ended a job in time: the job ends without it.
    pub(crate) fn on_close_unanswered(&mut self, id: AttemptId) {
        let Some(lease) = self.leases.get(&id) else { return };
        let (job, agent, epoch) = (lease.job, lease.agent, lease.epoch);
        let stopping = lease.stopping && self.jobs[&job].row.state == JobState::Assigned;
        self.send(agent, CoordinatorMessage::Stop { attempt: id, epoch });
        if stopping {
            let detail = "the agent's drain is over, and it did not say that it ended the job";
            self.lose(id, CauseKind::AgentStopped, detail, Remains::Ghost);
            return;
        }
        self.drop_lease(id, Remains::Ghost);
        self.fence(job, agent);
        self.close(id, job, "the agent did not say that it ended");
    }

    /// The command has run for longer than it may, and its agent, whose duty it was, has not ended it.
    pub(crate) fn on_timeout(&mut self, id: AttemptId) {
        let Some(lease) = self.leases.get(&id) else { return };
        let (job, agent, epoch) = (lease.job, lease.agent, lease.epoch);
        let cause = Self::cause(CauseKind::Timeout, &format!("it ran longer than {} s", self.timeout_ms(job) / 1_000));
        let told = cause.clone();
        self.change_job(job, |row| {
            row.state = JobState::TimingOut;
            row.cause = Some(told);
        });
        self.send(agent, CoordinatorMessage::Cancel { attempt: id, epoch, cause, grace_ms: None });
        self.arm(id);
    }

    /// Ends the right itself: the lease, its deadline, its slot.
    pub(crate) fn drop_lease(&mut self, id: AttemptId, remains: Remains) -> Option<Lease> {
        let (lease, now) = (self.leases.remove(&id)?, self.now.mono);
        if let Some(timer) = lease.timer {
            self.timers.clear(timer);
        }
        match remains {
            Remains::Nothing | Remains::Unknown => self.free_slot(lease.agent, id),
            Remains::Ghost => {
                if let Some(slot) = self.agents.get_mut(&lease.agent).and_then(|agent| agent.slots.get_mut(&id)) {
                    slot.ghost = Some(now);
                }
                self.refresh(lease.agent);
            }
        }
        Some(lease)
    }

    /// Holds an exclusive job (or one of a concurrency group) back until what may still run of it has ended by its agent's own clock (I3): when the
    /// last beat's lease is over, and the kill's grace with it.
    pub(crate) fn fence(&mut self, job: JobId, agent: AgentId) {
        if !self.command(job).is_some_and(runs_alone) {
            return;
        }
        let end = self.fence_end(job, agent);
        if let Some(job) = self.jobs.get_mut(&job) {
            job.fence = Some(end);
        }
        if !self.policy.bugs.skip_exclusive_fence {
            let until = self.now.wall.plus_ms(end.since_ms(self.now.mono));
            self.edit_job(job).not_before = Some(until);
        }
    }

    /// When what an agent may still run of a job without a right has ended by its own clock.
    pub(crate) fn fence_end(&self, job: JobId, agent: AgentId) -> windlass_protocol::Instant64 {
        let heard_at = self.agents.get(&agent).map_or(self.now.mono, |agent| agent.heard_at);
        heard_at.plus_ms(self.lease_ms(agent)).max(self.now.mono).plus_ms(self.grace_ms(job))
    }

    /// Nothing of the job runs any more: it need not wait for its fence.
    pub(crate) fn lift_fence(&mut self, id: JobId) {
        self.end_hold(id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.fence.take().is_none() && job.row.not_before.is_none() {
            return;
        }
        self.edit_job(id).not_before = None;
        if self.timers.has(Timer::NotBefore(id)) {
            self.timers.clear(Timer::NotBefore(id));
            self.enqueue(id);
        }
    }

    pub(crate) fn end_attempt(&mut self, id: AttemptId, state: AttemptState, cause: windlass_protocol::Cause) {
        let wall = self.now.wall;
        let row = self.edit_attempt(id);
        row.state = state;
        row.cause = Some(cause);
        row.finished_at = Some(wall);
        if state == AttemptState::Canceled {
            // One that was lost may come back, and say again what it was not answered.
            row.calls.clear();
            row.yields = None;
        }
    }

    /// Whoever held the right until now appends nothing more; a later right may.
    fn fence_log(&mut self, id: AttemptId) {
        let epoch = Epoch(self.attempts[&id].epoch.0 + 1);
        self.book.out.push(Effect::FenceLog { attempt: id, epoch, sealed: false });
    }

    /// The attempt's log is over.
    pub(crate) fn seal(&mut self, id: AttemptId) {
        let epoch = Epoch(self.attempts[&id].epoch.0 + 1);
        self.book.out.push(Effect::FenceLog { attempt: id, epoch, sealed: true });
    }

    /// Whether the agent may speak for the attempt by this right.
    pub(crate) fn check_right(&mut self, agent: AgentId, id: AttemptId, epoch: Epoch) -> Result<(), Rejected> {
        let Some(lease) = self.leases.get(&id) else { return Err(Rejected::NoLease(id)) };
        let held = lease.epoch;
        if self.policy.bugs.skip_epoch_fence {
            return Ok(());
        }
        if held != epoch {
            return Err(Rejected::StaleEpoch { attempt: id, held, got: epoch });
        }
        if lease.agent != agent {
            return Err(Rejected::NotYours { attempt: id, agent });
        }
        Ok(())
    }

    fn show_progress(&mut self, id: AttemptId) {
        let Some(lease) = self.leases.get(&id) else { return };
        let job = &self.jobs[&lease.job].row;
        let (state, shown) = match lease.phase {
            Phase::Accepted => (AttemptState::Accepted, JobState::Accepted),
            Phase::Running => (AttemptState::Running, JobState::Running),
            Phase::Unknown | Phase::Offered | Phase::Withdrawn | Phase::Finishing(_) => return,
        };
        let job_state = if job.state == JobState::Assigned { shown } else { job.state };
        let (build, started_at) = (job.build, lease.started_at);
        let progress = Progress::Attempt { build, job: lease.job, attempt: id, state, job_state, started_at };
        self.book.out.push(Effect::Progress(progress));
    }

    /// A job's attempt has failed: another try if a rule allows it, else the job ends.
    pub(crate) fn fail_or_retry(&mut self, job: JobId, exit_status: Option<i32>, cause: windlass_protocol::Cause) {
        let decision = self.decide(job, exit_status, None, Some(&cause));
        let to = if self.jobs[&job].row.state == JobState::TimingOut { JobState::TimedOut } else { JobState::Failed };
        let forgiven = self.command(job).is_some_and(|command| command.soft_fail.forgives(None));
        let wall = self.now.wall;
        self.change_job(job, |row| {
            (row.exit_status, row.signal, row.cause) = (exit_status, None, Some(cause));
            match decision {
                Decision::No => (row.state, row.soft_failed) = (to, forgiven),
                Decision::Rule(rule) => {
                    if let Some(uses) = row.rule_uses.get_mut(rule) {
                        *uses += 1;
                    }
                    (row.state, row.runnable_at) = (JobState::Scheduled, Some(wall));
                }
                Decision::Free => (row.state, row.runnable_at) = (JobState::Scheduled, Some(wall)),
            }
        });
    }
}
