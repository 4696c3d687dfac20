//! The loop around the core: inputs in, commits, and only then effects out.
//!
//! Everything that the core decides passes through here in its order. What it says waits until the changes before it are
//! durable; meanwhile the next batch grows. If a commit fails, nothing of it is said: whoever waits is told to come
//! again, agents are disconnected, and the core is loaded anew from what is stored.

mod batch;
mod fault;
mod handle;
mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use windlass_coordinator_core::effect::{Effect, Reply, ReuseNews};
use windlass_coordinator_core::input::{ConnId, Input, ReplyTo, Request};
use windlass_coordinator_core::order::Order;
use windlass_coordinator_core::row::{KeySubject, NotificationRow, Rows};
use windlass_coordinator_core::{Core, Policy, Rejected};
use windlass_coordinator_store::{Expired, Fault, Retention, Space};
use windlass_protocol::job::Epoch;
use windlass_protocol::message::{CoordinatorMessage, RefuseCode};
use windlass_protocol::{AgentId, AttemptId, Cause, CauseKind, Digest, IdSource, Instant64, Now, limits};

use self::batch::{Batch, Release};
use self::fault::Down;
pub use self::handle::{DeskError, DeskHandle, Inbox, channel};
use self::turn::{Sources, Turn};
use crate::clock::Clock;
use crate::views::Views;
use crate::writer::{Done, Loaded, Outcome, Work, Writer};

/// What decides: the core, or a double of it in tests.
pub trait Decide: Send {
    /// Takes one input.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    fn handle(&mut self, now: Now, input: Input) -> Result<(), Rejected>;
    /// The next thing to do, in order.
    fn poll_effect(&mut self) -> Option<Effect>;
    /// When [`Decide::handle_timeout`] is to be called next.
    fn poll_timeout(&self) -> Option<Instant64>;
    /// Does what is due.
    fn handle_timeout(&mut self, now: Now);
}

/// The connections to agents. No call may block; a connection whose queue is full is ended, its agent comes again.
pub trait Fleet: Debug + Send + Sync {
    /// Says something on a connection; if it is gone, that has been or will be told by `AgentGone`.
    fn send(&self, agent: AgentId, conn: ConnId, message: Box<CoordinatorMessage>);
    /// Says why, then ends a connection.
    fn disconnect(&self, agent: AgentId, conn: ConnId, code: RefuseCode, detail: String);
    /// The core refused what came on this connection.
    fn rejected(&self, agent: AgentId, conn: ConnId, rejected: Rejected);
    /// Ends every connection: the core is loaded again and knows none of them.
    fn disconnect_all(&self, code: RefuseCode, detail: String);
}

/// The logs of attempts. No call may block.
pub trait Logs: Debug + Send + Sync {
    /// Watches a log until it is durable to this length with this digest, or `LOG_SETTLE_MS` is over; the answer is
    /// [`Input::LogSettled`]. Asking again changes nothing.
    fn settle(&self, attempt: AttemptId, epoch: Epoch, bytes: u64, digest: Digest);
    /// Takes no more bytes under rights older than `epoch`; with `sealed` none at all, and the log is to be sealed.
    fn fence(&self, attempt: AttemptId, epoch: Epoch, sealed: bool);
}

/// Builds that the core orders. No call may block.
pub trait Orders: Debug + Send + Sync {
    /// Finds out what a build is to run; the answer is [`Input::Obtained`]. Asking again changes nothing.
    fn obtain(&self, order: Order);
}

/// Keys of steps. No call may block.
pub trait Keys: Debug + Send + Sync {
    /// Finds out what decides a step's result; the answer is [`Input::Keyed`] with this number.
    fn key(&self, ask: u64, subject: KeySubject);
}

/// Notifications that are due. No call may block.
pub trait Deliveries: Debug + Send + Sync {
    /// Sends one, once; the answer is [`Input::Delivered`].
    fn deliver(&self, row: NotificationRow);
}

/// What the desk works with.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Connections to agents.
    pub fleet: Arc<dyn Fleet>,
    /// Logs of attempts.
    pub logs: Arc<dyn Logs>,
    /// Builds that the core orders.
    pub orders: Arc<dyn Orders>,
    /// Keys of steps.
    pub keys: Arc<dyn Keys>,
    /// Notifications that are due.
    pub deliveries: Arc<dyn Deliveries>,
    /// What clients see.
    pub views: Views,
    /// Is told of every commit, for metrics.
    pub meter: Arc<dyn Meter>,
}

/// Counts what the desk does.
pub trait Meter: Debug + Send + Sync {
    /// A commit of so many changes took so long.
    fn committed(&self, changes: usize, took: Duration);
    /// A commit failed, and the core is loaded again.
    fn commit_failed(&self, fault: &Fault);
    /// Space got low, or enough again.
    fn space(&self, space: Space);
    /// A job waited so long from being ready to being leased, durably.
    fn dispatched(&self, waited: Duration);
    /// What came of a step's wish to be reused, durably.
    fn reused(&self, news: &ReuseNews);
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMeter;

impl Meter for NoMeter {
    fn committed(&self, _changes: usize, _took: Duration) {}
    fn commit_failed(&self, _fault: &Fault) {}
    fn space(&self, _space: Space) {}
    fn dispatched(&self, _waited: Duration) {}
    fn reused(&self, _news: &ReuseNews) {}
}

/// Knows no keys, and says nothing: steps run once it is too late for them.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKeys;

impl Keys for NoKeys {
    fn key(&self, _ask: u64, _subject: KeySubject) {}
}

/// Sends nothing: what is due waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDeliveries;

impl Deliveries for NoDeliveries {
    fn deliver(&self, _row: NotificationRow) {}
}

/// How the desk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeskEnd {
    /// It was asked to, and everything it had taken is durable.
    Stopped,
    /// Another writer has taken the store over: this process must end.
    Fenced(Fault),
    /// The thread that writes is gone.
    WriterGone,
}

/// What answers a request.
type Answer = oneshot::Sender<Result<Reply, DeskError>>;

/// A piece of retention that somebody waits for.
type Expiring = (Retention, oneshot::Sender<Result<Expired, DeskError>>);

/// The task that owns the core.
pub struct Desk<C, M> {
    /// `None` while it is loaded again.
    core: Option<C>,
    make: M,
    ports: Ports,
    writer: Writer,
    sources: Sources<C>,
    batch: Batch,
    /// Said when the commit under way is durable; `None` where none is.
    in_flight: Option<Vec<Release>>,
    waiting: BTreeMap<ReplyTo, Answer>,
    next_reply: u64,
    expiring: VecDeque<Expiring>,
    expiring_now: Option<oneshot::Sender<Result<Expired, DeskError>>>,
    space: Space,
    down: Down,
    timers_deferred: usize,
}

impl<C, M> Debug for Desk<C, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("batch", &self.batch).field("down", &self.down).finish_non_exhaustive()
    }
}

impl Decide for Core {
    fn handle(&mut self, now: Now, input: Input) -> Result<(), Rejected> {
        Self::handle(self, now, input)
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        Self::poll_effect(self)
    }

    fn poll_timeout(&self) -> Option<Instant64> {
        Self::poll_timeout(self)
    }

    fn handle_timeout(&mut self, now: Now) {
        Self::handle_timeout(self, now);
    }
}

/// Makes real cores, each with ids of its own: what an earlier one gave away and lost is never given again.
///
/// # Errors
/// What the system says where it has no randomness to give.
pub fn core_maker(policy: Policy) -> Result<impl FnMut(Now, Rows) -> Core, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(move |now: Now, rows| {
        let ids = IdSource::from_seed(seed);
        seed = *Digest::of(&seed).as_bytes();
        Core::load(now, rows, ids, policy.clone())
    })
}

impl<C: Decide, M: FnMut(Now, Rows) -> C> Desk<C, M> {
    /// A desk over a store that was just claimed and loaded. `make` is called now, and after each failed commit.
    pub fn new(inbox: Inbox<C>, writer: Writer, loaded: Loaded, mut make: M, ports: Ports) -> Self {
        ports.views.reset(&loaded.rows, loaded.seq);
        let core = make(ports.clock.now(), loaded.rows);
        let mut desk = Self {
            core: Some(core),
            make,
            ports,
            writer,
            sources: Sources::new(inbox),
            batch: Batch::default(),
            in_flight: None,
            waiting: BTreeMap::new(),
            next_reply: 0,
            expiring: VecDeque::new(),
            expiring_now: None,
            space: Space::default(),
            down: Down::default(),
            timers_deferred: 0,
        };
        desk.absorb();
        desk
    }

    /// Works until it is stopped or may not go on.
    pub async fn run(mut self) -> DeskEnd {
        loop {
            if !self.start_work() {
                return self.end(DeskEnd::WriterGone).await;
            }
            if self.sources.stopping && self.writer.is_idle() {
                return self.end(DeskEnd::Stopped).await;
            }
            let (room, sleep) = (!self.batch.is_full(), self.sleep());
            match self.sources.next_turn(&mut self.writer, room, sleep).await {
                Turn::Done(Some(done)) => {
                    if let Some(end) = self.finish(done) {
                        return self.end(end).await;
                    }
                }
                Turn::Done(None) => return self.end(DeskEnd::WriterGone).await,
                Turn::Inputs | Turn::Timer => {}
            }
            self.serve_inputs();
            self.serve_timers();
        }
    }

    /// Starts what the writer is to do next, if it is idle. `false` if the writer is gone.
    fn start_work(&mut self) -> bool {
        if !self.writer.is_idle() {
            return true;
        }
        if self.core.is_none() {
            if self.sources.stopping || !self.down.is_time_to_load() {
                return true;
            }
            self.down.loading();
            return self.writer.start(Work::Load);
        }
        // A piece of retention is bounded, and goes first only when another commit has been made since the last one.
        if let Some((retention, answer)) = self.expiring.pop_front_if(|_| self.batch.may_expire()) {
            self.expiring_now = Some(answer);
            return self.writer.start(Work::Expire(retention));
        }
        if self.batch.has_changes() {
            let (changes, releases) = self.batch.take();
            self.in_flight = Some(releases);
            return self.writer.start(Work::Commit(changes));
        }
        !self.down.is_time_to_probe() || self.writer.start(Work::Probe)
    }

    /// Takes what the writer has done. `Some` if the desk may not go on.
    fn finish(&mut self, done: Done) -> Option<DeskEnd> {
        self.note_space(done.space);
        match done.outcome {
            Outcome::Committed { changes, result: Ok(seq), took } => {
                self.ports.meter.committed(changes.len(), took);
                self.down.recovered();
                self.ports.views.publish(seq, &changes);
                for release in self.in_flight.take().unwrap_or_default() {
                    self.release(release);
                }
                for release in self.batch.take_early() {
                    self.release(release);
                }
                None
            }
            Outcome::Committed { result: Err(fault), .. } => self.fail(fault),
            Outcome::Loaded(result) => self.resume(result),
            Outcome::Expired(result) => {
                self.batch.expired();
                let fenced = result.as_ref().err().filter(|fault| matches!(fault, Fault::Fenced { .. })).cloned();
                if let Some(answer) = self.expiring_now.take() {
                    let _gone = answer.send(result.map_err(|fault| DeskError::of(&fault)));
                }
                fenced.map(DeskEnd::Fenced)
            }
            Outcome::Probed => None,
        }
    }

    fn note_space(&mut self, space: Space) {
        if space != self.space {
            self.ports.meter.space(space);
            self.space = space;
        }
        self.down.looked();
    }

    /// Hands inputs to the core, in order, as long as the batch has room.
    fn serve_inputs(&mut self) {
        while !self.batch.is_full() {
            let Some(taken) = self.sources.taken.pop_front() else { break };
            match taken {
                turn::Taken::Asked(asked) => self.serve_request(asked),
                turn::Taken::Agent(input) => self.serve_agent(*input),
                turn::Taken::Expire(expiring) => self.expiring.push_back(expiring),
                turn::Taken::Look(look) => {
                    if let Some(core) = &self.core {
                        look(core);
                    }
                }
            }
        }
    }

    fn serve_request(&mut self, asked: handle::Asked) {
        let handle::Asked { actor, request, answer } = asked;
        if answer.is_closed() {
            return;
        }
        let Some(core) = &mut self.core else {
            let _gone = answer.send(Err(self.down.error()));
            return;
        };
        if self.space == Space::Low && matches!(request, Request::Submit(_)) {
            let _gone = answer.send(Err(DeskError::StorageFull));
            return;
        }
        let reply = ReplyTo(self.next_reply);
        self.next_reply += 1;
        self.waiting.insert(reply, answer);
        let handled = core.handle(self.ports.clock.now(), Input::Request { reply, actor, request });
        self.absorb();
        if let Err(rejected) = handled {
            self.say(Release::Refuse(reply, rejected));
        }
    }

    fn serve_agent(&mut self, input: Input) {
        let whom = match &input {
            Input::AgentHello { agent, conn, .. } | Input::Agent { agent, conn, .. } => Some((*agent, *conn)),
            Input::AgentGone { .. }
            | Input::LogSettled { .. }
            | Input::Obtained { .. }
            | Input::Delivered { .. }
            | Input::Keyed { .. }
            | Input::Request { .. } => None,
        };
        let input = self.while_there_is_room(input);
        let Some(core) = &mut self.core else {
            if let Some((agent, conn)) = whom {
                let detail = "the coordinator is loading its store again".to_owned();
                self.ports.fleet.disconnect(agent, conn, RefuseCode::Unavailable, detail);
            }
            return;
        };
        let handled = core.handle(self.ports.clock.now(), input);
        self.absorb();
        match (handled, whom) {
            (Ok(()), _) => {}
            (Err(rejected), Some((agent, conn))) => self.say(Release::RejectAgent(agent, conn, rejected)),
            (Err(rejected), None) => tracing::debug!(%rejected, "input_rejected"),
        }
    }

    /// On a disk that is nearly full no new builds are made, those that were ordered neither.
    fn while_there_is_room(&self, input: Input) -> Input {
        match input {
            Input::Obtained { build, obtained: Ok(_) } if self.space == Space::Low => {
                let cause = Cause::new(CauseKind::DiskFull, DeskError::StorageFull.to_string());
                Input::Obtained { build, obtained: Err(cause) }
            }
            other => other,
        }
    }

    /// Lets the core do what is due, after the messages that are already here (see `TIMER_DEFER_TURNS`).
    fn serve_timers(&mut self) {
        let now = self.ports.clock.now();
        let Some(core) = self.core.as_mut().filter(|core| core.poll_timeout().is_some_and(|due| due <= now.mono))
        else {
            return;
        };
        if self.batch.is_full() {
            return;
        }
        if self.sources.agents_waiting() && self.timers_deferred < limits::TIMER_DEFER_TURNS {
            self.timers_deferred += 1;
            return;
        }
        self.timers_deferred = 0;
        core.handle_timeout(now);
        self.absorb();
    }

    /// Takes what the core wants done: changes into the batch, the rest behind them.
    fn absorb(&mut self) {
        while let Some(effect) = self.core.as_mut().and_then(Decide::poll_effect) {
            match effect {
                Effect::Change(change) => self.batch.change(change),
                other => self.say(Release::Effect(other)),
            }
        }
    }

    /// Says something now if nothing before it still has to become durable, else when it has.
    fn say(&mut self, release: Release) {
        if let Some(release) = self.batch.say(release, self.in_flight.is_some()) {
            self.release(release);
        }
    }

    fn release(&mut self, release: Release) {
        match release {
            Release::Effect(effect) => self.release_effect(effect),
            Release::Refuse(to, rejected) => self.answer(to, Err(DeskError::Rejected(rejected))),
            Release::RejectAgent(agent, conn, rejected) => self.ports.fleet.rejected(agent, conn, rejected),
        }
    }

    fn release_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { to, reply } => self.answer(to, Ok(reply)),
            Effect::Send { agent, conn, message } => self.ports.fleet.send(agent, conn, message),
            Effect::Disconnect { agent, conn, code, detail } => self.ports.fleet.disconnect(agent, conn, code, detail),
            Effect::SettleLog { attempt, epoch, bytes, digest } => {
                self.ports.logs.settle(attempt, epoch, bytes, digest);
            }
            Effect::Obtain(order) => self.ports.orders.obtain(*order),
            Effect::Deliver(row) => self.ports.deliveries.deliver(*row),
            Effect::FenceLog { attempt, epoch, sealed } => self.ports.logs.fence(attempt, epoch, sealed),
            Effect::Dispatched { runnable_at } => {
                let waited_ms = self.ports.clock.now().wall.0.saturating_sub(runnable_at.0);
                self.ports.meter.dispatched(Duration::from_millis(waited_ms));
            }
            Effect::Key { ask, subject } => self.ports.keys.key(ask, *subject),
            Effect::Reuse(news) => {
                if let ReuseNews::Differs { build, job, detail } = &news {
                    // Somebody must act: the step reads what it does not declare.
                    tracing::warn!(%build, %job, detail, "reuse_differs");
                }
                self.ports.meter.reused(&news);
            }
            Effect::Progress(progress) => self.ports.views.progress(&progress),
            Effect::Retired(build) => self.ports.views.retire(build),
            // Taken by `absorb`, which is the only one that hands effects on.
            Effect::Change(change) => self.batch.change(change),
        }
    }

    /// Answers a request; nobody may be there any more.
    fn answer(&mut self, to: ReplyTo, reply: Result<Reply, DeskError>) {
        match self.waiting.remove(&to) {
            Some(answer) => {
                let _gone = answer.send(reply);
            }
            None => tracing::error!(to = to.0, "request_answered_twice"),
        }
    }

    /// How long nothing is due.
    fn sleep(&self) -> Duration {
        let now = self.ports.clock.now().mono;
        let due = self.core.as_ref().and_then(Decide::poll_timeout).map_or(u64::MAX, |due| due.since_ms(now));
        let due = if self.batch.is_full() { u64::MAX } else { due };
        Duration::from_millis(due.min(limits::CLOCK_CHECK_MS)).min(self.down.sleep())
    }
}

#[cfg(test)]
mod tests;
