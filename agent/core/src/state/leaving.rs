//! Taking nothing more, and leaving: signals, the coordinator's drain, `--once`.

use windlass_protocol::limits::QUIT_FLUSH_MS;
use windlass_protocol::message::AgentMessage;
use windlass_protocol::{AttemptId, Cause, CauseKind, Instant64};

use super::AgentCore;
use crate::drain::{Order, Rung};
use crate::effect::{Effect, Exit};
use crate::input::Signal;
use crate::slot::Stage;

impl AgentCore {
    pub(super) fn signal(&mut self, now: Instant64, signal: Signal) {
        let was_on = self.drain.is_on();
        let rung = match signal {
            Signal::Term | Signal::Int => self.drain.climb(now),
            Signal::Quit => Rung::Quit,
        };
        match rung {
            Rung::Finish => self.cancel_held(now, true, u64::MAX),
            Rung::Cancel => self.cancel_held(now, false, u64::MAX),
            Rung::Quit => {
                self.cancel_held(now, false, 0);
                self.drain.quit_by.get_or_insert(now.plus_ms(QUIT_FLUSH_MS));
            }
        }
        if !was_on {
            self.say(AgentMessage::Draining);
        }
    }

    pub(super) fn drain_ordered(&mut self, now: Instant64, deadline_ms: Option<u64>, leave: bool) {
        let before = self.drain.before.take();
        let until = deadline_ms.map(|ms| now.plus_ms(ms)).or_else(|| before.and_then(|order| order.until));
        let leave = leave || before.is_some_and(|order| order.leave);
        self.drain.ordered = Some(Order { until, leave });
        self.cancel_held(now, true, until.map_or(u64::MAX, |until| until.since_ms(now)));
        self.say(AgentMessage::Draining);
    }

    /// The coordinator's drain is over; the owner's signals stay.
    pub(super) fn resume(&mut self) {
        if self.drain.ordered.take().is_some() && !self.drain.is_on() {
            self.say(AgentMessage::Resumed);
        }
    }

    /// Cancels what runs, or only what may be stopped at any time (F23), with each job's grace but at most this one.
    fn cancel_held(&mut self, now: Instant64, only_interruptible: bool, grace_max_ms: u64) {
        let cause = Cause::new(CauseKind::AgentStopped, "the agent is being stopped");
        let wanted: Vec<(AttemptId, u64)> = self
            .slots
            .held
            .iter()
            .filter(|(_, holding)| !only_interruptible || holding.terms.interruptible)
            .map(|(attempt, holding)| (*attempt, holding.terms.grace_ms.min(grace_max_ms)))
            .collect();
        for (attempt, grace_ms) in wanted {
            self.begin_cancel(now, attempt, &cause, grace_ms);
        }
    }

    /// The deadline is the total, graces included (F21): when the first cancel must begin.
    pub(super) fn drain_cancel_at(&self) -> Option<Instant64> {
        let until = self.drain.ordered.and_then(|order| order.until)?;
        let waiting = self.slots.held.values().filter(|holding| match holding.stage {
            Stage::Preparing | Stage::Starting | Stage::Running => true,
            Stage::Canceling { .. } | Stage::Killing { .. } | Stage::Finished { .. } => false,
        });
        waiting.map(|holding| Instant64(until.0.saturating_sub(holding.terms.grace_ms))).min()
    }

    pub(super) fn drain_due(&mut self, now: Instant64) {
        let Some(until) = self.drain.ordered.and_then(|order| order.until) else { return };
        let cause = Cause::new(CauseKind::AgentStopped, "the agent's drain has reached its deadline");
        let due: Vec<(AttemptId, u64)> = self
            .slots
            .held
            .iter()
            .filter(|(_, holding)| now.plus_ms(holding.terms.grace_ms) >= until)
            .map(|(attempt, holding)| (*attempt, holding.terms.grace_ms.min(until.since_ms(now))))
            .collect();
        for (attempt, grace_ms) in due {
            self.begin_cancel(now, attempt, &cause, grace_ms);
        }
    }

    /// Leaves if it is time. Called after every event.
    pub(super) fn settle(&mut self, now: Instant64) {
        if self.left {
            return;
        }
        if self.drain.quit_by.is_some_and(|by| by <= now) {
            self.kill_all(now);
            let nothing_runs = self.slots.held.values().all(|holding| !holding.runs());
            if nothing_runs {
                self.say_goodbye();
            }
            self.leave(Exit::Quit);
            return;
        }
        let done = self.drain.leaves() || (self.config.once && self.taken > 0);
        if done && self.slots.held.is_empty() && self.dropped.is_empty() {
            self.say_goodbye();
            self.leave(Exit::Drained);
        }
    }

    fn say_goodbye(&mut self) {
        let reason = if self.config.once { "it was to run one job" } else { "it was told to leave" };
        self.say(AgentMessage::Goodbye { reason: reason.to_owned() });
    }

    pub(super) fn leave(&mut self, exit: Exit) {
        self.left = true;
        self.effects.push_back(Effect::Leave { exit });
    }
}
