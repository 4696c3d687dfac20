//! Doubles: a core that does what it is told, a store behind a gate, and a journal of everything that was said.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use tokio::sync::watch;
use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::effect::{Effect, Reply};
use windlass_coordinator_core::input::{ConnId, Input, ReplyTo, Request};
use windlass_coordinator_core::order::Order;
use windlass_coordinator_core::row::{Actor, ActorKind, AuditRow, Change, Rows};
use windlass_coordinator_store::{Expired, Fault, MemoryStore, Retention, Seq, Space, Store, WriterEpoch};
use windlass_protocol::job::Epoch;
use windlass_protocol::message::{CoordinatorMessage, RefuseCode};
use windlass_protocol::{AgentId, AttemptId, BuildId, Digest, Instant64, Now, WallMs};

use crate::desk::{Decide, Fleet, Logs, Meter, Orders};

/// Something that happened, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A core was made, on a store with so many changes; its effects have numbers from this one on.
    Made { durable: usize, from: u64 },
    /// The core decided on the change with this number.
    Change(u64),
    /// The core heard a client.
    Asked,
    /// The core heard an agent.
    Heard,
    /// The core did what was due.
    Timer,
    /// The change with this number is durable.
    Durable(u64),
    /// The effect with this number was said.
    Said(u64),
    /// All agents were sent away.
    DisconnectedAll,
    /// A commit failed.
    Failed,
    /// Space is so now.
    Space(Space),
}

#[derive(Debug)]
pub(super) struct Journal {
    entries: watch::Sender<Vec<Entry>>,
    /// The next number of an effect.
    next: Mutex<u64>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { entries: watch::Sender::new(Vec::new()), next: Mutex::new(1) }
    }
}

impl Journal {
    pub(super) fn note(&self, entry: Entry) {
        self.entries.send_modify(|entries| entries.push(entry));
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.borrow().clone()
    }

    pub(super) async fn wait_for(&self, condition: impl FnMut(&Vec<Entry>) -> bool) {
        self.entries.subscribe().wait_for(condition).await.unwrap();
    }

    fn number(&self) -> u64 {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        *next - 1
    }
}

/// A core whose inputs say what it is to do, a letter each: `c` a change, `s` a message, `l` a log to settle, `f` one to
/// fence, `r` the reply, `x` a refusal, `t` something due now, `n` nothing. A submit is `cr`. Effects are numbered over
/// all cores.
#[derive(Debug)]
pub(super) struct Double {
    journal: Arc<Journal>,
    effects: VecDeque<Effect>,
    due: Option<Instant64>,
}

impl Double {
    pub(super) fn new(journal: &Arc<Journal>, rows: &Rows) -> Self {
        let durable = usize::try_from(rows.meta.last_epoch).unwrap();
        journal.note(Entry::Made { durable, from: *journal.next.lock().unwrap() });
        Self { journal: Arc::clone(journal), effects: VecDeque::new(), due: None }
    }

    fn perform(&mut self, now: Now, plan: &str, reply: Option<ReplyTo>) -> Result<(), Rejected> {
        let (agent, conn) = (AgentId::from_bytes([5; 16]), ConnId(1));
        let attempt = AttemptId::from_bytes([3; 16]);
        for letter in plan.chars() {
            let number = self.journal.number();
            let effect = match letter {
                'c' => {
                    self.journal.note(Entry::Change(number));
                    Effect::Change(Change::Audit(audit(number)))
                }
                's' => {
                    let message = Box::new(CoordinatorMessage::BeatAck { seq: number, beat_ms: 5_000 });
                    Effect::Send { agent, conn, message }
                }
                'l' => Effect::SettleLog { attempt, epoch: Epoch(1), bytes: number, digest: Digest::of(b"") },
                'f' => Effect::FenceLog { attempt, epoch: Epoch(number), sealed: false },
                'r' => match reply {
                    Some(to) => Effect::Reply { to, reply: Reply::Done },
                    None => continue,
                },
                'x' => return Err(Rejected::NotInMemory(BuildId::from_bytes([1; 16]))),
                't' => {
                    self.due = Some(now.mono);
                    continue;
                }
                _ => continue,
            };
            self.effects.push_back(effect);
        }
        Ok(())
    }
}

/// A change that carries its number.
fn audit(number: u64) -> AuditRow {
    let actor = Actor { kind: ActorKind::System, name: String::new() };
    AuditRow { at: WallMs(number), actor, action: String::new(), target: String::new(), detail: String::new() }
}

impl Decide for Double {
    fn handle(&mut self, now: Now, input: Input) -> Result<(), Rejected> {
        match input {
            Input::Request { reply, request, .. } => {
                self.journal.note(Entry::Asked);
                match request {
                    Request::CancelBuild { detail, .. } => self.perform(now, &detail, Some(reply)),
                    _ => self.perform(now, "cr", Some(reply)),
                }
            }
            Input::AgentGone { detail, .. } => {
                self.journal.note(Entry::Heard);
                self.perform(now, &detail, None)
            }
            _ => Ok(()),
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant64> {
        self.due
    }

    fn handle_timeout(&mut self, _now: Now) {
        self.due = None;
        self.journal.note(Entry::Timer);
    }
}

/// Holds commits up until it is opened, or lets single ones through.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    entered: watch::Sender<usize>,
}

#[derive(Debug)]
struct GateState {
    open: bool,
    permits: usize,
}

impl Default for Gate {
    fn default() -> Self {
        let state = Mutex::new(GateState { open: true, permits: 0 });
        Self { state, changed: Condvar::new(), entered: watch::Sender::new(0) }
    }
}

impl Gate {
    pub(super) fn guard(self: &Arc<Self>, store: MemoryStore, journal: Arc<Journal>) -> GatedStore {
        GatedStore { gate: Arc::clone(self), store, journal, durable: 0 }
    }

    pub(super) fn close(&self) {
        self.state.lock().unwrap().open = false;
    }

    pub(super) fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    /// Lets one commit through.
    pub(super) fn permit(&self) {
        self.state.lock().unwrap().permits += 1;
        self.changed.notify_all();
    }

    /// Waits until so many commits have come to the gate.
    pub(super) async fn entered(&self, commits: usize) {
        self.entered.subscribe().wait_for(|entered| *entered >= commits).await.unwrap();
    }

    fn pass(&self) {
        self.entered.send_modify(|entered| *entered += 1);
        let state = self.state.lock().unwrap();
        let mut state = self.changed.wait_while(state, |state| !state.open && state.permits == 0).unwrap();
        state.permits = state.permits.saturating_sub(1);
    }
}

#[derive(Debug)]
pub(super) struct GatedStore {
    gate: Arc<Gate>,
    store: MemoryStore,
    journal: Arc<Journal>,
    durable: usize,
}

impl Store for GatedStore {
    fn claim(&mut self) -> Result<WriterEpoch, Fault> {
        self.store.claim()
    }

    /// The number of durable changes stands where the last epoch does in real rows.
    fn load(&mut self) -> Result<Rows, Fault> {
        let mut rows = self.store.load()?;
        rows.meta.last_epoch = self.durable as u64;
        Ok(rows)
    }

    fn seq(&mut self) -> Result<Seq, Fault> {
        self.store.seq()
    }

    fn commit(&mut self, epoch: WriterEpoch, changes: &[Change]) -> Result<Seq, Fault> {
        self.gate.pass();
        let seq = self.store.commit(epoch, changes)?;
        for change in changes {
            if let Change::Audit(row) = change {
                self.journal.note(Entry::Durable(row.at.0));
                self.durable += 1;
            }
        }
        Ok(seq)
    }

    fn expire(&mut self, epoch: WriterEpoch, retention: Retention) -> Result<Expired, Fault> {
        self.store.expire(epoch, retention)
    }

    fn space(&mut self) -> Space {
        self.store.space()
    }
}

/// Writes down everything that is said to agents, logs and meters.
#[derive(Debug)]
pub(super) struct Recorder(pub(super) Arc<Journal>);

impl Fleet for Recorder {
    fn send(&self, _agent: AgentId, _conn: ConnId, message: Box<CoordinatorMessage>) {
        if let CoordinatorMessage::BeatAck { seq, .. } = *message {
            self.0.note(Entry::Said(seq));
        }
    }

    fn disconnect(&self, _agent: AgentId, _conn: ConnId, _code: RefuseCode, _detail: String) {}

    fn rejected(&self, _agent: AgentId, _conn: ConnId, _rejected: Rejected) {}

    fn disconnect_all(&self, _code: RefuseCode, _detail: String) {
        self.0.note(Entry::DisconnectedAll);
    }
}

impl Logs for Recorder {
    fn settle(&self, _attempt: AttemptId, _epoch: Epoch, bytes: u64, _digest: Digest) {
        self.0.note(Entry::Said(bytes));
    }

    fn fence(&self, _attempt: AttemptId, epoch: Epoch, _sealed: bool) {
        self.0.note(Entry::Said(epoch.0));
    }
}

impl Orders for Recorder {
    fn obtain(&self, _order: Order) {}
}

impl Meter for Recorder {
    fn committed(&self, _changes: usize, _took: std::time::Duration) {}

    fn commit_failed(&self, _fault: &Fault) {
        self.0.note(Entry::Failed);
    }

    fn space(&self, space: Space) {
        self.0.note(Entry::Space(space));
    }

    fn dispatched(&self, _waited: std::time::Duration) {}
    fn reused(&self, _news: &windlass_coordinator_core::effect::ReuseNews) {}
}
