//! The coordinator's shell in the simulation: the real core, the batch that is being made durable, and what waits for
//! it. It keeps the one rule that everything rests on: what a commit holds back is released only after it.

use std::collections::{BTreeMap, VecDeque};

use windlass_coordinator_core::effect::Progress;
use windlass_coordinator_core::input::ReplyTo;
use windlass_coordinator_core::order::{Obtained, Order};
use windlass_coordinator_core::policy::Policy;
use windlass_coordinator_core::row::{Change, KeySubject, Keyed, Unkeyed};
use windlass_coordinator_core::{Core, Effect, Input, Rejected};
use windlass_protocol::job::{Epoch, Source};
use windlass_protocol::limits::LOG_SETTLE_MS;
use windlass_protocol::message::{CoordinatorMessage, RefuseCode, Verdict};
use windlass_protocol::{AgentId, AttemptId, BuildId, Cause, CauseKind, Digest, IdSource, JobId, WallMs};

use super::coverage;
use super::graphs;
use super::logs::{Appended, Wanted};
use super::network::Payload;
use super::world::{Event, WALL_MS, World};

/// The coordinator's process.
#[derive(Debug, Default)]
pub struct Coordinator {
    /// `None` while it is down.
    pub core: Option<Core>,
    /// Its process, or its core since the last failed commit.
    pub generation: u64,
    /// Its monotonic clock, ahead of the run's.
    pub clock_base: u64,
    /// Not yet released.
    out: VecDeque<Effect>,
    /// Being made durable, with what waits for it.
    in_flight: Option<Vec<Effect>>,
    /// Connections that have said hello.
    pub said_hello: BTreeMap<u64, AgentId>,
    /// The next commit fails.
    pub commit_fails: bool,
    /// Added to each commit.
    pub slow_ms: u64,
}

impl Coordinator {
    /// Whether it runs.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.core.is_some()
    }

    /// When its core wants to be called, on the run's clock.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        let due = self.core.as_ref()?.poll_timeout()?;
        Some(due.0.saturating_sub(self.clock_base))
    }

    /// Nothing is on its way to the store: its rows are the core's.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.out.is_empty() && self.in_flight.is_none()
    }

    /// Effects that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.out.len() + self.in_flight.as_ref().map_or(0, Vec::len)
    }
}

impl World {
    /// The process starts from the committed rows.
    pub fn start_coordinator(&mut self) {
        if self.coordinator.is_up() {
            return;
        }
        self.coordinator.generation += 1;
        self.coordinator.clock_base = self.random.below(1 << 40);
        let mut seed = [0_u8; 32];
        for chunk in seed.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.random.number().to_le_bytes());
        }
        let policy = Policy { bugs: self.setup.core_bugs, ..Policy::default() };
        let core = Core::load(self.coordinator_now(), self.store.load(), IdSource::from_seed(seed), policy);
        self.coordinator.core = Some(core);
        self.absorb();
    }

    /// The process, or a core whose commit failed, is gone with everything that was not durable.
    pub fn crash_coordinator(&mut self) {
        let coordinator = &mut self.coordinator;
        if coordinator.core.take().is_none() {
            return;
        }
        coordinator.generation += 1;
        coordinator.out.clear();
        coordinator.said_hello.clear();
        let batch = coordinator.in_flight.take();
        // A crash may come after the store's sync and before anybody heard of it.
        if let Some(batch) = batch.filter(|_| self.random.thousandth(500)) {
            self.make_durable(&batch);
        }
        self.logs.crash();
        self.work.lose_requests();
        let open: Vec<u64> =
            self.network.conns.iter().filter(|(_, conn)| !conn.broken).map(|(conn, _)| *conn).collect();
        for conn in open {
            if let Some(state) = self.network.conns.get_mut(&conn) {
                state.coordinator_open = false;
            }
            self.break_conn(conn, 8_000);
        }
        self.retry_requests();
    }

    /// Hands an input to the core.
    pub fn feed(&mut self, input: Input) {
        let now = self.coordinator_now();
        let Some(core) = &mut self.coordinator.core else { return };
        self.coverage.reach(coverage::core_input(&input));
        self.oracle.heard(&input);
        let (reply, hello) = match &input {
            Input::Request { reply, .. } => (Some(*reply), None),
            Input::AgentHello { conn, .. } => (None, Some(conn.0)),
            _ => (None, None),
        };
        if let Err(rejected) = core.handle(now, input) {
            self.coverage.reach(coverage::core_rejected(&rejected));
            self.note(|| format!("rejected: {rejected}"));
            if let Some(conn) = hello {
                self.refuse_hello(conn, &rejected);
            }
            if let Some(ReplyTo(number)) = reply {
                self.answered(number, Err(rejected));
            }
        }
        self.absorb();
    }

    /// An agent that may not be here is told why, and cut off.
    fn refuse_hello(&mut self, conn: u64, rejected: &Rejected) {
        let code = match rejected {
            Rejected::Join(refused) => refused.code,
            Rejected::NoSuchAgent(_) => RefuseCode::AgentRevoked,
            _ => RefuseCode::Unavailable,
        };
        self.end_connection(conn, code, rejected.to_string());
    }

    fn end_connection(&mut self, conn: u64, code: RefuseCode, detail: String) {
        self.coordinator.said_hello.remove(&conn);
        self.send(conn, Payload::Down(CoordinatorMessage::Refuse { code, detail }));
        self.after(500, Event::CoordinatorSeesEnd(conn));
        self.after(600, Event::AgentSeesEnd(conn));
    }

    pub(super) fn coordinator_timer(&mut self) {
        let now = self.coordinator_now();
        if let Some(core) = &mut self.coordinator.core {
            core.handle_timeout(now);
        }
        self.absorb();
    }

    fn absorb(&mut self) {
        if let Some(core) = &mut self.coordinator.core {
            while let Some(effect) = core.poll_effect() {
                self.coordinator.out.push_back(effect);
            }
        }
        self.pump();
    }

    /// What waits for nothing is released; the rest becomes the next batch if the writer is idle.
    fn pump(&mut self) {
        if self.coordinator.in_flight.is_some() {
            return;
        }
        while let Some(effect) = self.coordinator.out.pop_front() {
            if matches!(effect, Effect::Change(_)) {
                self.coordinator.out.push_front(effect);
                break;
            }
            self.release(effect);
        }
        if self.coordinator.out.is_empty() || self.coordinator.in_flight.is_some() {
            return;
        }
        self.coordinator.in_flight = Some(self.coordinator.out.drain(..).collect());
        let ms = self.random.between(1, 6) + self.coordinator.slow_ms;
        let generation = self.coordinator.generation;
        self.after(ms, Event::Committed { generation });
    }

    pub(super) fn committed(&mut self, generation: u64) {
        if generation != self.coordinator.generation {
            return;
        }
        if std::mem::take(&mut self.coordinator.commit_fails) {
            self.coordinator.in_flight = None;
            self.coverage.reach("fault.commit_failed");
            self.crash_coordinator();
            self.start_coordinator();
            return;
        }
        let Some(batch) = self.coordinator.in_flight.take() else { return };
        self.make_durable(&batch);
        for effect in batch {
            self.release(effect);
        }
        self.pump();
    }

    fn make_durable(&mut self, batch: &[Effect]) {
        self.oracle.begin_commit(&self.store);
        for effect in batch {
            let Effect::Change(change) = effect else { continue };
            self.coverage.reach(coverage::change(change));
            if let Err((invariant, detail)) = self.oracle.committing(change, &self.store, &mut self.coverage) {
                self.violate(invariant, detail);
            }
            match change {
                Change::Build(row) => self.receiver.build_changes(row, &self.store),
                Change::Notification(row) => self.receiver.notification_changes(row),
                _ => {}
            }
            self.store.apply(change.clone());
            if let Change::Build(build) = change {
                self.work.builds.insert(build.id);
            }
        }
        if let Err((invariant, detail)) = self.oracle.end_commit(&self.store).and_then(|()| self.receiver.end_commit())
        {
            self.violate(invariant, detail);
        }
    }

    fn release(&mut self, effect: Effect) {
        self.coverage.reach(coverage::core_effect(&effect));
        match effect {
            Effect::Change(_) => {}
            Effect::Reply { to, reply } => {
                self.coverage.reach(coverage::reply(&reply));
                if let Err((invariant, detail)) = self.oracle.replied(&reply, &self.store) {
                    self.violate(invariant, detail);
                }
                self.answered(to.0, Ok(reply));
            }
            Effect::Send { agent, conn, message } => self.release_message(agent, conn.0, *message),
            Effect::Disconnect { conn, code, detail, .. } => self.end_connection(conn.0, code, detail),
            Effect::SettleLog { attempt, epoch, bytes, digest } => {
                let log = self.logs.by_attempt.entry(attempt).or_default();
                log.wanted = Some(Wanted { epoch, bytes, digest });
                let generation = self.coordinator.generation;
                self.sync_logs();
                // A log that cannot be written is given up at once.
                let broken = self.troubled && self.random.thousandth(10);
                let least = if broken { 1 } else { LOG_SETTLE_MS / 4 };
                let patience = self.random.between(least, if broken { 50 } else { LOG_SETTLE_MS });
                self.after(patience, Event::SettleOver { generation, attempt });
            }
            Effect::Obtain(order) => self.take_order(&order),
            Effect::Key { ask, subject } => self.take_question(ask, &subject),
            Effect::Reuse(news) => self.coverage.reach(coverage::reuse_news(&news)),
            Effect::Deliver(row) => self.send_notification(*row),
            Effect::FenceLog { attempt, epoch, sealed } => self.fence_log(attempt, epoch, sealed),
            Effect::Dispatched { runnable_at } => {
                if runnable_at > WallMs(WALL_MS + self.now) {
                    self.violate("I7", format!("a job is leased before {runnable_at:?}, when it became ready"));
                }
            }
            Effect::Progress(Progress::Attempt { state, job_state, .. }) => {
                self.coverage.reach(coverage::attempt_state(state));
                self.coverage.reach(coverage::job_state(job_state));
            }
            Effect::Progress(Progress::Agent { state, .. }) => self.coverage.reach(coverage::agent_state(state)),
            Effect::Retired(build) => {
                if !self.store.rows.builds.get(&build).is_some_and(|row| row.state.is_final()) {
                    self.violate("I1", format!("build {build} left memory and the store does not have its end"));
                }
            }
        }
    }

    /// The shell finds out what a build runs: sooner, later, twice, or never while things break.
    fn take_order(&mut self, order: &Order) {
        if self.troubled && self.random.thousandth(30) {
            return;
        }
        let obtained = if self.random.thousandth(120) {
            let kinds = [CauseKind::SourceMissing, CauseKind::CheckoutFailed, CauseKind::RefusedByPolicy];
            Err(Cause::new(kinds[self.random.place(kinds.len())], "it was not to be found"))
        } else {
            let number = self
                .random
                .thousandth(200)
                .then(|| self.coordinator.core.as_ref().map_or(1, |core| core.next_number(&order.pipeline.name)));
            Ok(Box::new(Obtained {
                number,
                definition: "steps: triggered".to_owned(),
                graph: graphs::graph(&mut self.random, false, false),
                origin: Source::Empty,
                branch: order.branch.clone(),
                commit: order.commit.clone(),
                verified: !self.random.thousandth(200),
                registration: Box::new(order.pipeline.clone()),
            }))
        };
        let generation = self.coordinator.generation;
        let times = if self.random.thousandth(250) { 2 } else { 1 };
        for _ in 0..times {
            let ms = self.random.between(1, 8_000);
            self.after(ms, Event::Filled { generation, build: order.build, obtained: obtained.clone() });
        }
    }

    pub(super) fn filled(&mut self, generation: u64, build: BuildId, obtained: Result<Box<Obtained>, Cause>) {
        if generation == self.coordinator.generation {
            self.feed(Input::Obtained { build, obtained });
        }
    }

    /// The shell finds out a step's key: sooner or later, or never while things break. Many steps have one key.
    fn take_question(&mut self, ask: u64, subject: &KeySubject) {
        if self.troubled && self.random.thousandth(30) {
            return;
        }
        let outcome = if self.random.thousandth(80) {
            Err(Unkeyed { why: "it was not to be found out".to_owned() })
        } else {
            let kind = u8::try_from(self.random.below(3)).unwrap_or(0);
            Ok(Box::new(Keyed {
                key: Digest::of(&[kind]),
                recipe: Digest::of(b"recipe"),
                source: Source::Empty,
                image: None,
                plugins: BTreeMap::new(),
                system: None,
                hooks: None,
                notes: Vec::new(),
                also: Vec::new(),
            }))
        };
        let (generation, job) = (self.coordinator.generation, subject.job);
        let ms = if self.random.thousandth(20) { 70_000 } else { self.random.between(1, 3_000) };
        self.after(ms, Event::Keyed { generation, job, ask, outcome });
    }

    pub(super) fn keyed(&mut self, generation: u64, job: JobId, ask: u64, outcome: Result<Box<Keyed>, Unkeyed>) {
        if generation == self.coordinator.generation {
            self.feed(Input::Keyed { job, ask, outcome });
        }
    }

    fn release_message(&mut self, agent: AgentId, conn: u64, mut message: CoordinatorMessage) {
        if let CoordinatorMessage::Welcome { verdicts, .. } = &mut message {
            for (attempt, verdict) in verdicts {
                self.coverage.reach(coverage::verdict(verdict));
                if let Verdict::Keep { log_offset, .. } = verdict {
                    *log_offset = self.logs.durable_end(*attempt);
                }
            }
        }
        if let Err((invariant, detail)) = self.oracle.sending(agent, &message, &self.store) {
            self.violate(invariant, detail);
        }
        self.note(|| format!("-> {agent} {message:?}"));
        self.send(conn, Payload::Down(message));
    }

    fn fence_log(&mut self, attempt: AttemptId, epoch: Epoch, sealed: bool) {
        let log = self.logs.by_attempt.entry(attempt).or_default();
        log.fence = log.fence.max(epoch);
        log.sealed |= sealed;
    }

    pub(super) fn chunk_arrived(&mut self, conn: u64, attempt: AttemptId, epoch: Epoch, offset: u64, bytes: &[u8]) {
        match self.logs.append(conn, attempt, epoch, offset, bytes) {
            Appended::Taken => self.sync_logs(),
            Appended::Fenced => {}
            Appended::Gap { end } => {
                self.violate("I4", format!("attempt {attempt}: a chunk at {offset}, the log ends at {end}"));
            }
        }
    }

    fn sync_logs(&mut self) {
        if !std::mem::replace(&mut self.logs.syncing, true) {
            let ms = self.random.between(2, 20) + self.coordinator.slow_ms;
            let generation = self.coordinator.generation;
            self.after(ms, Event::LogsSynced { generation });
        }
    }

    /// One sync for every log: acknowledged, and those that were waited for are settled.
    pub(super) fn logs_synced(&mut self, generation: u64) {
        if generation != self.coordinator.generation {
            return;
        }
        self.logs.syncing = false;
        let (mut acks, mut settled, mut wrong) = (Vec::new(), Vec::new(), None);
        for (attempt, log) in &mut self.logs.by_attempt {
            if !log.pending.is_empty() {
                let from = log.durable.len();
                log.durable.append(&mut log.pending);
                wrong = wrong.or(self.oracle.log_is_true(*attempt, from, &log.durable).err());
                acks.extend(log.conn.map(|conn| (conn, *attempt, log.durable.len() as u64)));
            }
            let answer = log.wanted.as_ref().and_then(|wanted| Some((wanted.epoch, log.settled(wanted)?)));
            if let Some((epoch, answer)) = answer {
                log.wanted = None;
                settled.push((*attempt, epoch, answer));
            }
        }
        if let Some(detail) = wrong {
            self.violate("I4", detail);
        }
        for (conn, attempt, offset) in acks {
            self.send(conn, Payload::Down(CoordinatorMessage::LogAck { attempt, offset }));
        }
        for (attempt, epoch, settled) in settled {
            self.feed(Input::LogSettled { attempt, epoch, settled });
        }
    }

    pub(super) fn settle_over(&mut self, generation: u64, attempt: AttemptId) {
        if generation != self.coordinator.generation {
            return;
        }
        let wanted = self.logs.by_attempt.get_mut(&attempt).and_then(|log| log.wanted.take());
        if let Some(wanted) = wanted {
            let settled = Err("its bytes did not come in time".to_owned());
            self.feed(Input::LogSettled { attempt, epoch: wanted.epoch, settled });
        }
    }
}
