//! A connection's life: hello, welcome with its verdicts, beats and their answers.

use windlass_protocol::job::{Epoch, Phase};
use windlass_protocol::limits::{LEASE_MAX_MS, LEASE_MIN_MS};
use windlass_protocol::message::{AgentMessage, CoordinatorMessage, Held, Hello, RefuseCode, Verdict};
use windlass_protocol::stock::Fetched;
use windlass_protocol::{AttemptId, Instant64, Now};

use super::AgentCore;
use crate::effect::{Effect, Exit};
use crate::error::Rejected;
use crate::input::ConnId;
use crate::link::{Link, Pauses};
use crate::slot::Stage;

impl AgentCore {
    pub(super) fn connected(&mut self, now: Instant64, conn: ConnId) -> Result<(), Rejected> {
        match self.link {
            Link::Dialling { .. } => {}
            Link::Greeting { .. } | Link::Up { .. } => return Err(Rejected::OutOfTurn("a connection")),
        }
        self.link = Link::Greeting { conn, hello_at: now };
        let hello = self.hello();
        self.effects.push_back(Effect::Say { conn, message: Box::new(AgentMessage::Hello(hello)) });
        Ok(())
    }

    fn hello(&self) -> Hello {
        let held = self.slots.held.iter().map(|(attempt, holding)| Held {
            attempt: *attempt,
            epoch: holding.epoch,
            phase: holding.phase(),
            started_at: holding.started_at,
        });
        let dropped = self.dropped.iter().map(|(attempt, dropped)| Held {
            attempt: *attempt,
            epoch: dropped.epoch,
            phase: if dropped.started_at.is_some() { Phase::Finished } else { Phase::Preparing },
            started_at: dropped.started_at,
        });
        Hello {
            name: self.config.name.clone(),
            version: self.config.version.clone(),
            machine_id: self.config.machine_id.clone(),
            boot_id: self.config.boot_id.clone(),
            slots: self.config.slots,
            capacity: self.config.capacity,
            tags: self.config.tags.clone(),
            runs_images: self.config.runs_images,
            capabilities: self.config.capabilities.clone(),
            host: self.config.host.clone(),
            held: held.chain(dropped).collect(),
        }
    }

    pub(super) fn connection_lost(&mut self, now: Instant64, conn: ConnId) -> Result<(), Rejected> {
        match self.link.conn() {
            Some(current) if current != conn => Err(Rejected::VoidConnection(conn)),
            Some(_) | None => {
                self.redial(now, false);
                Ok(())
            }
        }
    }

    /// Gives up the connection, if there is one, and asks for another.
    pub(super) fn redial(&mut self, now: Instant64, renew_first: bool) {
        for holding in self.slots.held.values_mut() {
            holding.spool.sending = false;
        }
        let after_ms = self.pauses.next(&mut self.jitter);
        self.link = Link::Dialling { until: Pauses::dial_until(now, after_ms) };
        self.effects.push_back(Effect::Reconnect { after_ms, renew_first });
    }

    pub(super) fn message(&mut self, now: Now, conn: ConnId, message: CoordinatorMessage) -> Result<(), Rejected> {
        if self.link.conn() != Some(conn) {
            return Err(Rejected::VoidConnection(conn));
        }
        match message {
            CoordinatorMessage::Welcome { session, lease_ms, beat_ms, verdicts } => {
                self.welcome(now, session, (lease_ms, beat_ms), &verdicts)
            }
            CoordinatorMessage::Refuse { code, .. } => {
                self.refused(now.mono, code);
                Ok(())
            }
            _ if self.link.welcomed().is_none() => Err(Rejected::OutOfTurn("a message before the welcome")),
            CoordinatorMessage::BeatAck { seq, beat_ms } => {
                self.renewal.pace(beat_ms);
                self.beat_answered(seq);
                Ok(())
            }
            CoordinatorMessage::Offer { epoch, job } => self.offer(now.mono, epoch, job),
            CoordinatorMessage::Cancel { attempt, epoch, cause, grace_ms } => {
                self.cancel_message(now.mono, attempt, epoch, cause, grace_ms)
            }
            CoordinatorMessage::Stop { attempt, epoch } => self.stop(now.mono, attempt, epoch),
            CoordinatorMessage::Committed { attempt, epoch } => self.committed(now.mono, attempt, epoch),
            CoordinatorMessage::LogAck { attempt, offset } => self.log_acked(attempt, offset),
            CoordinatorMessage::Drain { deadline_ms, leave } => {
                self.drain_ordered(now.mono, deadline_ms, leave);
                Ok(())
            }
            CoordinatorMessage::Resume => {
                self.resume();
                Ok(())
            }
            CoordinatorMessage::Certificate { chain } => {
                self.effects.push_back(Effect::InstallCertificate { chain });
                Ok(())
            }
            // Blobs are the shell's business.
            CoordinatorMessage::Peers { .. } | CoordinatorMessage::Knows { .. } => Ok(()),
        }
    }

    fn refused(&mut self, now: Instant64, code: RefuseCode) {
        if code.permanent() {
            self.kill_all(now);
            self.leave(Exit::Refused(code));
        } else {
            self.redial(now, code == RefuseCode::CertificateExpired);
        }
    }

    fn welcome(
        &mut self,
        now: Now,
        session: u64,
        (lease_ms, beat_ms): (u64, u64),
        verdicts: &[(AttemptId, Verdict)],
    ) -> Result<(), Rejected> {
        let Link::Greeting { conn, hello_at } = self.link else { return Err(Rejected::OutOfTurn("a welcome")) };
        self.link = Link::Up { conn, session };
        self.pauses.reset();
        self.drain.before = self.drain.ordered.take().or(self.drain.before);
        let lease_ms = lease_ms.clamp(LEASE_MIN_MS, LEASE_MAX_MS);
        self.renewal.begin(now.mono, hello_at, lease_ms, beat_ms);
        for (attempt, verdict) in verdicts {
            match *verdict {
                Verdict::Keep { epoch, log_offset } => self.keep(*attempt, epoch, log_offset),
                Verdict::Committed => self.drop_committed(now.mono, *attempt),
                Verdict::Stop => self.stop_held(now.mono, *attempt),
            }
        }
        for (attempt, dropped) in self.dropped.clone() {
            self.say_stopped(attempt, dropped);
        }
        if self.drain.signals.is_some() || self.drain.quit_by.is_some() {
            self.say(AgentMessage::Draining);
        }
        if self.stock != (Vec::new(), Fetched::default()) {
            self.say_stock();
        }
        self.beat_due(now.mono);
        Ok(())
    }

    pub(super) fn say_stock(&mut self) {
        let (inputs, fetched) = self.stock.clone();
        self.say(AgentMessage::Stock { inputs, fetched });
    }

    fn keep(&mut self, attempt: AttemptId, epoch: Epoch, log_offset: u64) {
        if let Some(dropped) = self.dropped.get_mut(&attempt) {
            dropped.epoch = dropped.epoch.max(epoch);
        }
        let Some(holding) = self.slots.held.get_mut(&attempt) else { return };
        if matches!(holding.stage, Stage::Killing { .. }) {
            holding.epoch = holding.epoch.max(epoch);
            return;
        }
        let adopted = epoch > holding.epoch;
        holding.epoch = holding.epoch.max(epoch);
        holding.spool.acked(log_offset.min(holding.spool.end));
        let (epoch, started_at) = (holding.epoch, holding.started_at);
        let finished = match &holding.stage {
            Stage::Finished { outcome } => Some(outcome.as_ref().clone()),
            Stage::Preparing | Stage::Starting | Stage::Running | Stage::Canceling { .. } | Stage::Killing { .. } => {
                None
            }
        };
        if adopted {
            self.effects.push_back(Effect::Adopt { attempt, epoch });
        }
        self.extend(attempt, self.renewal.right_until());
        self.send_log(attempt);
        if let Some(outcome) = finished {
            self.say(AgentMessage::Finished { attempt, epoch, outcome });
        } else if let Some(at) = started_at {
            // It may have started after the hello had said otherwise.
            self.say(AgentMessage::Started { attempt, epoch, at });
        }
    }

    /// Its right reaches further; the supervisor of an exclusive one hears of it.
    pub(super) fn extend(&mut self, attempt: AttemptId, until: Instant64) {
        let Some(holding) = self.slots.held.get_mut(&attempt) else { return };
        if until <= holding.right_until {
            return;
        }
        holding.right_until = until;
        let supervised = match holding.stage {
            Stage::Starting | Stage::Running | Stage::Canceling { .. } => holding.terms.exclusive,
            Stage::Preparing | Stage::Killing { .. } | Stage::Finished { .. } => false,
        };
        if supervised {
            self.effects.push_back(Effect::RenewLease { attempt, deadline: until });
        }
    }

    fn beat_answered(&mut self, seq: u64) {
        let Some(sent) = self.renewal.answered(seq) else { return };
        let until = sent.at.plus_ms(self.renewal.lease_ms);
        for (attempt, epoch) in sent.held {
            if self.slots.held.get(&attempt).is_some_and(|holding| holding.epoch == epoch) {
                self.extend(attempt, until);
            }
        }
    }

    /// Sends a beat if it is time; gives the connection up if too many have no answer.
    pub(super) fn beat_due(&mut self, now: Instant64) {
        if self.link.welcomed().is_none() || self.renewal.next_beat > now {
            return;
        }
        if self.renewal.is_silent() {
            self.redial(now, false);
            return;
        }
        let held: Vec<_> = self.slots.held.iter().map(|(attempt, holding)| (*attempt, holding.epoch)).collect();
        let pause_ms = self.jitter.around(self.renewal.beat_ms).max(1);
        let seq = self.renewal.sent(now, held.clone(), pause_ms);
        let health = self.health;
        self.say(AgentMessage::Beat { seq, health, held });
    }
}
