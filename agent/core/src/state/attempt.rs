//! An attempt's life on its agent: from the offer to the commit of what came of it.

use windlass_protocol::job::{Epoch, JobSpec, Outcome};
use windlass_protocol::limits::KILL_VERIFY_MS;
use windlass_protocol::message::AgentMessage;
use windlass_protocol::{AttemptId, Cause, CauseKind, Instant64, WallMs};

use super::{AgentCore, Dropped};
use crate::effect::Effect;
use crate::error::Rejected;
use crate::input::Terms;
use crate::slot::{Holding, Stage};
use crate::spool::Spool;

impl AgentCore {
    pub(super) fn offer(&mut self, now: Instant64, epoch: Epoch, job: Box<JobSpec>) -> Result<(), Rejected> {
        let attempt = job.attempt;
        if let Some(holding) = self.slots.held.get(&attempt) {
            let held = holding.epoch;
            return self.offered_again(attempt, held, epoch);
        }
        if let Some(held) = self.ended.epoch(attempt).filter(|held| *held >= epoch) {
            return Err(Rejected::StaleEpoch { attempt, held, got: epoch });
        }
        // A newer right for what was dropped here: the coordinator knows that it ended.
        self.drop_committed(now, attempt);
        let placed = self.refusal(now, &job).map_or_else(|| self.place(&job), Err);
        let slot = match placed {
            Ok(slot) => slot,
            Err(cause) => {
                self.say(AgentMessage::Refused { attempt, epoch, cause });
                return Ok(());
            }
        };
        let holding = Holding {
            terms: Terms::from(job.as_ref()),
            epoch,
            slot,
            stage: Stage::Preparing,
            started_at: None,
            right_until: self.renewal.right_until(),
            timeout_at: None,
            spool: Spool::default(),
            unkillable: false,
        };
        self.taken += 1;
        self.slots.held.insert(attempt, holding);
        self.effects.push_back(Effect::Prepare { slot, epoch, job });
        self.say(AgentMessage::Accepted { attempt, epoch });
        Ok(())
    }

    /// The same offer once more changes nothing; a newer right for the same attempt is taken over.
    fn offered_again(&mut self, attempt: AttemptId, held: Epoch, epoch: Epoch) -> Result<(), Rejected> {
        if epoch < held {
            return Err(Rejected::StaleEpoch { attempt, held, got: epoch });
        }
        let Some(holding) = self.slots.held.get_mut(&attempt) else { return Ok(()) };
        if matches!(holding.stage, Stage::Killing { .. }) {
            let cause = Cause::new(CauseKind::LeaseLost, "the agent is still ending this attempt");
            self.say(AgentMessage::Refused { attempt, epoch, cause });
            return Ok(());
        }
        holding.epoch = epoch;
        let (started_at, stage) = (holding.started_at, holding.stage.clone());
        if epoch > held {
            self.effects.push_back(Effect::Adopt { attempt, epoch });
            self.extend(attempt, self.renewal.right_until());
            self.send_log(attempt);
        }
        self.say(AgentMessage::Accepted { attempt, epoch });
        if let Some(at) = started_at {
            self.say(AgentMessage::Started { attempt, epoch, at });
        }
        if let Stage::Finished { outcome } = stage {
            self.say(AgentMessage::Finished { attempt, epoch, outcome: *outcome });
        }
        Ok(())
    }

    /// Why nothing is taken now, whatever it is.
    fn refusal(&self, now: Instant64, job: &JobSpec) -> Option<Cause> {
        if self.drain.is_on() || (self.config.once && self.taken > 0) {
            return Some(Cause::new(CauseKind::AgentStopped, "the agent takes nothing more"));
        }
        if self.health.cannot_kill {
            return Some(Cause::new(CauseKind::Internal, "the agent could not end an earlier job's processes"));
        }
        if self.health.disk_full {
            return Some(Cause::new(CauseKind::DiskFull, "the agent's disk is full"));
        }
        if job.image.is_some() && !self.config.runs_images {
            return Some(Cause::new(CauseKind::RefusedByPolicy, "the agent runs no images"));
        }
        if self.renewal.right_until() <= now && !self.config.bugs.outlives_right {
            return Some(Cause::new(CauseKind::LeaseLost, "the offer came after its right had ended"));
        }
        None
    }

    fn place(&self, job: &JobSpec) -> Result<u32, Cause> {
        self.slots.place(job.resources, &self.config).map_err(|missing| {
            Cause::new(CauseKind::Internal, format!("the agent has not enough {missing} beside what it holds"))
        })
    }

    pub(super) fn prepared(&mut self, attempt: AttemptId) -> Result<(), Rejected> {
        let holding = self.slots.held.get_mut(&attempt).ok_or(Rejected::NotHeld(attempt))?;
        match holding.stage {
            Stage::Preparing => {}
            // It is being ended: the runner hears that, too.
            Stage::Canceling { .. } | Stage::Killing { .. } => return Ok(()),
            Stage::Starting | Stage::Running | Stage::Finished { .. } => {
                return Err(Rejected::OutOfStage { attempt, what: "prepared" });
            }
        }
        holding.stage = Stage::Starting;
        let start_before = if self.config.bugs.outlives_right { Instant64(u64::MAX) } else { holding.right_until };
        let epoch = holding.epoch;
        self.effects.push_back(Effect::Start { attempt, epoch, start_before });
        Ok(())
    }

    pub(super) fn started(&mut self, now: Instant64, attempt: AttemptId, at: WallMs) -> Result<(), Rejected> {
        let holding = self.slots.held.get_mut(&attempt).ok_or(Rejected::NotHeld(attempt))?;
        match holding.stage {
            Stage::Starting => holding.stage = Stage::Running,
            Stage::Running | Stage::Canceling { .. } => {}
            // Said although it is being killed: what has started must not be taken for what has not.
            Stage::Killing { .. } => {}
            Stage::Preparing | Stage::Finished { .. } => {
                return Err(Rejected::OutOfStage { attempt, what: "started" });
            }
        }
        holding.started_at = Some(at);
        holding.timeout_at = holding.terms.timeout_ms.map(|timeout_ms| now.plus_ms(timeout_ms));
        let epoch = holding.epoch;
        self.say(AgentMessage::Started { attempt, epoch, at });
        Ok(())
    }

    pub(super) fn ended(&mut self, attempt: AttemptId, mut outcome: Box<Outcome>) -> Result<(), Rejected> {
        let holding = self.slots.held.get_mut(&attempt).ok_or(Rejected::NotHeld(attempt))?;
        let lapsed = outcome.cause.as_ref().is_some_and(|cause| cause.kind == CauseKind::LeaseLost);
        match &holding.stage {
            Stage::Killing { .. } => return self.runner_gone(attempt),
            Stage::Finished { .. } => return Err(Rejected::OutOfStage { attempt, what: "ended" }),
            Stage::Canceling { cause, .. } => outcome.cause = Some(cause.clone()),
            Stage::Preparing | Stage::Starting | Stage::Running if lapsed => {
                // Its supervisor, or its runner, ended it with its right: there is nothing to report.
                self.drop_ended(attempt);
                return Ok(());
            }
            Stage::Preparing | Stage::Starting | Stage::Running => {}
        }
        holding.unkillable = false;
        holding.started_at = outcome.started_at.or(holding.started_at);
        holding.spool.grew(outcome.log_bytes);
        holding.stage = Stage::Finished { outcome: outcome.clone() };
        let epoch = holding.epoch;
        self.quarantine();
        if !holding_is_sent(self.slots.held.get(&attempt)) {
            self.send_log(attempt);
        }
        let said = self.say(AgentMessage::Finished { attempt, epoch, outcome: *outcome });
        if said && self.config.bugs.forgets_before_commit {
            self.forget(attempt);
        }
        Ok(())
    }

    pub(super) fn runner_gone(&mut self, attempt: AttemptId) -> Result<(), Rejected> {
        let holding = self.slots.held.get(&attempt).ok_or(Rejected::NotHeld(attempt))?;
        match holding.stage {
            Stage::Killing { .. } => self.drop_ended(attempt),
            Stage::Preparing | Stage::Starting | Stage::Running | Stage::Canceling { .. } | Stage::Finished { .. } => {
                return Err(Rejected::OutOfStage { attempt, what: "gone" });
            }
        }
        Ok(())
    }

    /// Nothing of it runs and nothing is reported. It is said to be stopped, now and at every welcome, until the
    /// coordinator answers that this is durable.
    fn drop_ended(&mut self, attempt: AttemptId) {
        let Some(holding) = self.slots.held.remove(&attempt) else { return };
        let epoch = holding.epoch;
        self.ended.note(attempt, epoch);
        let dropped = Dropped { epoch, started_at: holding.started_at };
        self.dropped.insert(attempt, dropped);
        if holding.spool.sending {
            self.effects.push_back(Effect::StopLog { attempt });
        }
        self.quarantine();
        self.say_stopped(attempt, dropped);
    }

    /// Says that nothing of it runs; but first, if it had started, that it had: it may have started after a hello that
    /// said otherwise, and what is taken for never started is run again.
    pub(super) fn say_stopped(&mut self, attempt: AttemptId, dropped: Dropped) {
        let epoch = dropped.epoch;
        if let Some(at) = dropped.started_at {
            self.say(AgentMessage::Started { attempt, epoch, at });
        }
        self.say(AgentMessage::Stopped { attempt, epoch });
    }

    fn forget(&mut self, attempt: AttemptId) {
        let Some(holding) = self.slots.held.remove(&attempt) else { return };
        self.ended.note(attempt, holding.epoch);
        if holding.spool.sending {
            self.effects.push_back(Effect::StopLog { attempt });
        }
        self.effects.push_back(Effect::ForgetAttempt { attempt });
        self.quarantine();
    }

    pub(super) fn cancel_message(
        &mut self,
        now: Instant64,
        attempt: AttemptId,
        epoch: Epoch,
        cause: Cause,
        grace_ms: Option<u64>,
    ) -> Result<(), Rejected> {
        let holding = self.slots.held.get(&attempt).ok_or(Rejected::NotHeld(attempt))?;
        if epoch < holding.epoch {
            return Err(Rejected::StaleEpoch { attempt, held: holding.epoch, got: epoch });
        }
        if !self.config.bugs.ignores_stop {
            let own_ms = holding.terms.grace_ms;
            self.begin_cancel(now, attempt, &cause, grace_ms.map_or(own_ms, |ms| ms.min(own_ms)));
        }
        Ok(())
    }

    /// Ends it with this grace; one that is being canceled keeps its cause and gets the shorter grace of the two.
    pub(super) fn begin_cancel(&mut self, now: Instant64, attempt: AttemptId, cause: &Cause, grace_ms: u64) {
        let Some(holding) = self.slots.held.get_mut(&attempt) else { return };
        let kill_at = now.plus_ms(grace_ms);
        let cause = match &holding.stage {
            Stage::Preparing | Stage::Starting | Stage::Running => cause.clone(),
            Stage::Canceling { cause, kill_at: earlier, .. } if kill_at < *earlier => cause.clone(),
            Stage::Canceling { .. } | Stage::Killing { .. } | Stage::Finished { .. } => return,
        };
        holding.stage = Stage::Canceling { cause: cause.clone(), kill_at, by: kill_at.plus_ms(KILL_VERIFY_MS) };
        self.effects.push_back(Effect::Cancel { attempt, cause, grace_ms });
    }

    pub(super) fn stop(&mut self, now: Instant64, attempt: AttemptId, epoch: Epoch) -> Result<(), Rejected> {
        let Some(holding) = self.slots.held.get_mut(&attempt) else {
            let mut dropped = Dropped { epoch, started_at: None };
            if let Some(known) = self.dropped.get_mut(&attempt) {
                known.epoch = known.epoch.max(epoch);
                dropped = *known;
            }
            self.say_stopped(attempt, dropped);
            return Ok(());
        };
        if epoch < holding.epoch {
            return Err(Rejected::StaleEpoch { attempt, held: holding.epoch, got: epoch });
        }
        holding.epoch = epoch;
        self.stop_held(now, attempt);
        Ok(())
    }

    pub(super) fn stop_held(&mut self, now: Instant64, attempt: AttemptId) {
        let Some(holding) = self.slots.held.get(&attempt) else { return };
        match holding.stage {
            Stage::Finished { .. } => self.drop_ended(attempt),
            Stage::Killing { .. } => {}
            Stage::Preparing | Stage::Starting | Stage::Running | Stage::Canceling { .. } => {
                if !self.config.bugs.ignores_stop {
                    self.kill(now, attempt);
                }
            }
        }
    }

    pub(super) fn kill(&mut self, now: Instant64, attempt: AttemptId) {
        let Some(holding) = self.slots.held.get_mut(&attempt) else { return };
        holding.stage = Stage::Killing { by: now.plus_ms(KILL_VERIFY_MS) };
        self.effects.push_back(Effect::Kill { attempt });
    }

    pub(super) fn kill_all(&mut self, now: Instant64) {
        let running: Vec<AttemptId> =
            self.slots.held.iter().filter(|(_, holding)| holding.runs()).map(|(attempt, _)| *attempt).collect();
        for attempt in running {
            self.kill(now, attempt);
        }
    }

    pub(super) fn committed(&mut self, now: Instant64, attempt: AttemptId, epoch: Epoch) -> Result<(), Rejected> {
        let held = self.slots.held.get(&attempt).map(|holding| holding.epoch);
        let held = held.or_else(|| self.dropped.get(&attempt).map(|dropped| dropped.epoch));
        let held = held.ok_or(Rejected::NotHeld(attempt))?;
        if epoch < held {
            return Err(Rejected::StaleEpoch { attempt, held, got: epoch });
        }
        self.drop_committed(now, attempt);
        Ok(())
    }

    pub(super) fn drop_committed(&mut self, now: Instant64, attempt: AttemptId) {
        if self.dropped.remove(&attempt).is_some() {
            self.effects.push_back(Effect::ForgetAttempt { attempt });
            return;
        }
        match self.slots.held.get(&attempt).map(Holding::runs) {
            Some(false) => self.forget(attempt),
            // A result that this agent never told: whatever runs here is not believed.
            Some(true) => self.stop_held(now, attempt),
            None => {}
        }
    }

    pub(super) fn spool_at(&mut self, attempt: AttemptId, end: u64) -> Result<(), Rejected> {
        let holding = self.slots.held.get_mut(&attempt).ok_or(Rejected::NotHeld(attempt))?;
        if holding.spool.grew(end) {
            self.send_log(attempt);
        }
        Ok(())
    }

    pub(super) fn log_acked(&mut self, attempt: AttemptId, offset: u64) -> Result<(), Rejected> {
        let holding = self.slots.held.get_mut(&attempt).ok_or(Rejected::NotHeld(attempt))?;
        let end = holding.spool.end;
        if offset > end {
            return Err(Rejected::BeyondLog { attempt, offset, end });
        }
        if holding.spool.acked(offset) {
            self.effects.push_back(Effect::TrimLog { attempt, below: offset });
        }
        Ok(())
    }

    /// Opens a stream for its log on the current connection, in place of one under an older right.
    pub(super) fn send_log(&mut self, attempt: AttemptId) {
        let Some(conn) = self.link.welcomed() else { return };
        let Some(holding) = self.slots.held.get_mut(&attempt) else { return };
        let mut from_offset = holding.spool.acked;
        if self.config.bugs.sends_log_from_own_offset {
            from_offset = holding.spool.end;
        }
        let epoch = holding.epoch;
        if std::mem::replace(&mut holding.spool.sending, true) {
            self.effects.push_back(Effect::StopLog { attempt });
        }
        self.effects.push_back(Effect::SendLog { conn, attempt, epoch, from_offset });
    }

    /// Its right, its time or its verification is over.
    pub(super) fn attempt_due(&mut self, now: Instant64, attempt: AttemptId) {
        let Some(holding) = self.slots.held.get_mut(&attempt) else { return };
        if holding.ends_with_right() && holding.right_until <= now {
            if self.config.bugs.outlives_right {
                holding.right_until = Instant64(u64::MAX);
            } else {
                self.kill(now, attempt);
            }
            return;
        }
        match &mut holding.stage {
            Stage::Running => {
                let grace_ms = holding.terms.grace_ms;
                let cause = Cause::new(CauseKind::Timeout, "the job ran longer than it may");
                self.begin_cancel(now, attempt, &cause, grace_ms);
            }
            Stage::Canceling { by, .. } | Stage::Killing { by } => {
                *by = now.plus_ms(KILL_VERIFY_MS);
                holding.unkillable = true;
                let again = match &holding.stage {
                    Stage::Canceling { cause, .. } => Effect::Cancel { attempt, cause: cause.clone(), grace_ms: 0 },
                    Stage::Preparing
                    | Stage::Starting
                    | Stage::Running
                    | Stage::Killing { .. }
                    | Stage::Finished { .. } => Effect::Kill { attempt },
                };
                self.effects.push_back(again);
                self.quarantine();
            }
            Stage::Preparing | Stage::Starting | Stage::Finished { .. } => {}
        }
    }

    /// While something cannot be killed, nothing is taken (F26).
    pub(super) fn quarantine(&mut self) {
        self.health.cannot_kill = self.slots.held.values().any(|holding| holding.unkillable);
    }
}

fn holding_is_sent(holding: Option<&Holding>) -> bool {
    holding.is_none_or(|holding| holding.spool.sending || holding.spool.flushed())
}
