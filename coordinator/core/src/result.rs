//! Results: from a finished command to a job's state, and whether it is tried again (reference 10.1, 10.3–10.5).

use windlass_pipeline::graph::{Command, NodeKind, RetryRule, SignalMatch, SoftFail, StatusMatch};
use windlass_protocol::job::{Epoch, Outcome};
use windlass_protocol::message::CoordinatorMessage;
use windlass_protocol::{AgentId, AttemptId, Cause, CauseKind, JobId, limits};

use crate::effect::Effect;
use crate::error::Rejected;
use crate::lease::Remains;
use crate::row::{AttemptState, JobState};
use crate::state::{Core, Phase};

/// Whether a failed job is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is not.
    No,
    /// By this rule, which is one use poorer.
    Rule(usize),
    /// Because it was declared safe; no rule is used.
    Free,
}

impl RuleInput<'_> {
    /// Whether all of a rule's conditions hold.
    fn matches(&self, rule: &RetryRule) -> bool {
        let status = match &rule.exit_status {
            StatusMatch::Any => self.exit_status.is_some_and(|status| (1..=255).contains(&status)),
            StatusMatch::AnyFailure => self.exit_status != Some(0) || self.cause.is_some(),
            StatusMatch::OneOf(statuses) => self.exit_status.is_some_and(|status| statuses.contains(&status)),
        };
        let signal = match &rule.signal {
            None => true,
            Some(SignalMatch::None) => self.signal.is_none(),
            Some(SignalMatch::OneOf(signals)) => self.signal.is_some_and(|signal| signals.contains(&signal)),
            Some(SignalMatch::NoneOr(signals)) => self.signal.is_none_or(|signal| signals.contains(&signal)),
        };
        let cause = match (&rule.cause, self.cause) {
            (None, _) => true,
            (Some(kinds), Some(cause)) => kinds.contains(&cause.kind),
            (Some(_), None) => rule.or_no_cause,
        };
        status && signal && cause
    }
}

/// What a rule looks at.
struct RuleInput<'a> {
    exit_status: Option<i32>,
    signal: Option<i32>,
    cause: Option<&'a Cause>,
}

/// The first rule that matches an end.
pub(crate) fn matching_rule(
    rules: &[RetryRule],
    exit_status: Option<i32>,
    signal: Option<i32>,
    cause: Option<&Cause>,
) -> Option<usize> {
    let input = RuleInput { exit_status, signal, cause };
    rules.iter().position(|rule| input.matches(rule))
}

impl Core {
    /// An agent says that an attempt has ended.
    pub(crate) fn on_finished(
        &mut self,
        agent: AgentId,
        id: AttemptId,
        epoch: Epoch,
        outcome: Outcome,
    ) -> Result<(), Rejected> {
        if self.is_committed(agent, id, epoch) {
            self.send(agent, CoordinatorMessage::Committed { attempt: id, epoch });
            return Ok(());
        }
        if let Err(rejected) = self.check_right(agent, id, epoch) {
            // Its right has ended: it is to forget the attempt, or it would tell us for ever.
            self.send(agent, CoordinatorMessage::Stop { attempt: id, epoch });
            return Err(rejected);
        }
        let Some(lease) = self.leases.get(&id) else { return Err(Rejected::NoLease(id)) };
        if matches!(lease.phase, Phase::Finishing(_)) {
            return Ok(());
        }
        let (holder, bytes, digest) = (lease.agent, outcome.log_bytes, outcome.log_digest);
        self.book.out.push(Effect::SettleLog { attempt: id, epoch: lease.epoch, bytes, digest });
        self.enter(id, Phase::Finishing(Box::new(outcome)));
        self.finish_slot(holder, id);
        Ok(())
    }

    /// The log of a finished attempt is durable to its end, or will not be.
    pub(crate) fn on_log_settled(&mut self, id: AttemptId, epoch: Epoch, complete: bool) -> Result<(), Rejected> {
        let Some(lease) = self.leases.get(&id) else { return Err(Rejected::NoLease(id)) };
        if lease.epoch != epoch {
            return Err(Rejected::StaleEpoch { attempt: id, held: lease.epoch, got: epoch });
        }
        if !matches!(lease.phase, Phase::Finishing(_)) {
            return Err(Rejected::NoLease(id));
        }
        self.commit_result(id, complete);
        Ok(())
    }

    /// The result is believed: attempt, job and dependents move in one commit (I3).
    pub(crate) fn commit_result(&mut self, id: AttemptId, log_complete: bool) {
        let wall = self.now.wall;
        let Some(lease) = self.drop_lease(id, Remains::Nothing) else { return };
        let Phase::Finishing(outcome) = lease.phase else { return };
        let canceled = self.jobs[&lease.job].row.state == JobState::Canceling;
        let cause = self.jobs[&lease.job].row.cause.clone();
        let row = self.edit_attempt(id);
        row.state = if canceled { AttemptState::Canceled } else { AttemptState::Finished };
        row.cause = if canceled { cause } else { None };
        row.outcome = Some((*outcome).clone());
        row.log_complete = log_complete;
        row.finished_at = Some(wall);
        row.calls.clear();
        self.judge(lease.job, &outcome);
        self.settle_yield(lease.job, id);
        if let Some(agent) = self.agents.get_mut(&lease.agent) {
            agent.committed.insert(id, lease.epoch);
            // Known before its next beat says it, or takes it back.
            agent.health.disk_full |= outcome.cause.as_ref().is_some_and(|cause| cause.kind == CauseKind::DiskFull);
        }
        self.refresh(lease.agent);
        self.send(lease.agent, CoordinatorMessage::Committed { attempt: id, epoch: lease.epoch });
        self.seal(id);
    }

    /// Whether this very result is durable already.
    pub(crate) fn is_committed(&self, agent: AgentId, id: AttemptId, epoch: Epoch) -> bool {
        let told = self.agents.get(&agent).and_then(|agent| agent.committed.get(&id)).copied();
        let row = self.attempts.get(&id).filter(|row| row.outcome.is_some() && row.agent == agent);
        told == Some(epoch) || row.is_some_and(|row| row.epoch == epoch)
    }

    /// What an outcome makes of its job.
    fn judge(&mut self, id: JobId, outcome: &Outcome) {
        let state = self.jobs[&id].row.state;
        let kind = outcome.cause.as_ref().map(|cause| cause.kind);
        let to = match (state, kind) {
            (JobState::Canceling, _) => JobState::Canceled,
            (_, None) if outcome.passed() => JobState::Passed,
            (_, Some(CauseKind::Timeout)) if outcome.exit_status == Some(0) => JobState::Passed,
            (_, Some(CauseKind::Timeout)) => JobState::TimedOut,
            (_, Some(CauseKind::Canceled)) => JobState::Canceled,
            _ => JobState::Failed,
        };
        // What its agent had no room for may find it on another one.
        let elsewhere = matches!(kind, Some(CauseKind::AgentStopped | CauseKind::SpotNotice | CauseKind::DiskFull));
        let unstarted = elsewhere && outcome.started_at.is_none();
        let drained = kind == Some(CauseKind::AgentStopped) && self.is_requeued(id);
        let decision = match to {
            JobState::Failed if (unstarted || drained) && self.may_move(id) => Decision::Free,
            JobState::Failed | JobState::TimedOut => {
                self.decide(id, outcome.exit_status, outcome.signal, outcome.cause.as_ref())
            }
            _ => Decision::No,
        };
        let forgiven = self.command(id).is_some_and(|command| forgives(command, to, outcome.exit_status));
        let wall = self.now.wall;
        self.change_job(id, |row| {
            (row.exit_status, row.signal) = (outcome.exit_status, outcome.signal);
            row.started_at = outcome.started_at.or(row.started_at);
            row.cause = match to {
                JobState::Passed => None,
                JobState::Canceled => row.cause.take().or_else(|| outcome.cause.clone()),
                _ => outcome.cause.clone(),
            };
            match decision {
                Decision::No => (row.state, row.soft_failed) = (to, forgiven),
                Decision::Rule(rule) => {
                    if let Some(uses) = row.rule_uses.get_mut(rule) {
                        *uses += 1;
                    }
                    (row.state, row.runnable_at) = (JobState::Scheduled, Some(wall));
                }
                Decision::Free => {
                    row.requeues += 1;
                    (row.state, row.runnable_at) = (JobState::Scheduled, Some(wall));
                }
            }
        });
    }

    /// Whether a failed job is tried again: the first rule that matches decides; without one, only what is known to be
    /// safe (F17, F23).
    pub(crate) fn decide(
        &self,
        id: JobId,
        exit_status: Option<i32>,
        signal: Option<i32>,
        cause: Option<&Cause>,
    ) -> Decision {
        let Some(command) = self.command(id) else { return Decision::No };
        let row = &self.jobs[&id].row;
        if self.builds[&row.build].row.cancel_requested || row.attempts.len() >= limits::ATTEMPTS_PER_JOB_MAX {
            return Decision::No;
        }
        let kind = cause.map(|cause| cause.kind);
        let lost = matches!(kind, Some(CauseKind::AgentLost | CauseKind::LeaseLost));
        if lost && row.agents_lost.len() >= limits::AGENTS_LOST_MAX as usize {
            return Decision::No;
        }
        let taken_away = matches!(kind, Some(CauseKind::AgentStopped | CauseKind::SpotNotice));
        if taken_away && command.interruptible && row.requeues < limits::REQUEUE_MAX {
            return Decision::Free;
        }
        match matching_rule(&command.retry, exit_status, signal, cause) {
            Some(rule) => {
                let uses = row.rule_uses.get(rule).copied().unwrap_or(0);
                if uses < command.retry[rule].limit.min(limits::RETRY_RULE_LIMIT_MAX) {
                    Decision::Rule(rule)
                } else {
                    Decision::No
                }
            }
            None if lost && command.interruptible => Decision::Free,
            None => Decision::No,
        }
    }

    /// Whether a job whose command had not started goes to another agent by itself (F17).
    fn may_move(&self, id: JobId) -> bool {
        let row = &self.jobs[&id].row;
        row.requeues < limits::REQUEUE_MAX && !self.builds[&row.build].row.cancel_requested
    }

    /// A job's command step.
    pub(crate) fn command(&self, id: JobId) -> Option<&Command> {
        match &self.jobs.get(&id)?.row.node.kind {
            NodeKind::Command(command) => Some(command),
            NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) | NodeKind::Trigger(_) => None,
        }
    }
}

/// Whether an end does not fail the build. A canceled job of a step that forgives anything does not (reference 10.3).
pub(crate) fn forgives(command: &Command, to: JobState, exit_status: Option<i32>) -> bool {
    match to {
        JobState::Failed | JobState::TimedOut => command.soft_fail.forgives(exit_status),
        JobState::Canceled => command.soft_fail != SoftFail::Never,
        _ => false,
    }
}
