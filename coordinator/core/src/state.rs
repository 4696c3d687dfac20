//! The core's data, and its face: inputs in, effects and deadlines out.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use windlass_pipeline::condition::Conditions;
use windlass_protocol::job::{Epoch, Outcome, Resources};
use windlass_protocol::message::{Health, Hello};
use windlass_protocol::stock::{Fetched, InputName};
use windlass_protocol::{
    AgentId, AttemptId, BuildId, Cause, Digest, IdSource, Instant64, JobId, Now, TokenId, WallMs, limits,
};

use crate::account::Account;
use crate::concurrency::Groups;
use crate::deps::Standing;
use crate::effect::{AgentState, Effect};
use crate::error::Rejected;
use crate::input::{ConnId, Input};
use crate::logbook::Logbook;
use crate::order::Orderer;
use crate::outbox::Outbox;
use crate::patience::Patience;
use crate::pin::Pins;
use crate::policy::Policy;
use crate::queue::{Queue, ShapeId, Ticket};
use crate::reuse::Reuses;
use crate::row::{
    AgentRow, AttemptRow, BuildRow, CacheName, CacheRow, HoldRow, IdempotencyRow, JobRow, LineageRow, MetaRow,
    PipelineRow, PoolRow, Rows, SecretName, SecretRow, TokenRow,
};
use crate::schedule::Schedules;
use crate::stock::{Inputs, Stocks};
use crate::subject::{Heard, Subject};
use crate::timer::{Timer, Timers};
use crate::zone::{Bearing, Zone};

/// Decides which agent runs what.
#[derive(Debug)]
pub struct Core {
    pub(crate) ids: IdSource,
    pub(crate) policy: Policy,
    pub(crate) now: Now,
    pub(crate) meta: MetaRow,
    pub(crate) numbers: BTreeMap<String, u64>,
    /// Registered ones by name.
    pub(crate) pipelines: BTreeMap<String, PipelineRow>,
    pub(crate) builds: BTreeMap<BuildId, Build>,
    /// Boxed, so that the tree's nodes stay small: a million jobs are looked up often.
    pub(crate) jobs: BTreeMap<JobId, Box<Job>>,
    pub(crate) attempts: BTreeMap<AttemptId, AttemptRow>,
    pub(crate) leases: BTreeMap<AttemptId, Lease>,
    pub(crate) pools: BTreeMap<String, PoolRow>,
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    pub(crate) tokens: BTreeMap<TokenId, TokenRow>,
    pub(crate) secrets: BTreeMap<SecretName, SecretRow>,
    pub(crate) caches: BTreeMap<CacheName, CacheRow>,
    /// Results that may be used again, and who has or asks for their keys.
    pub(crate) reuse: Reuses,
    /// Builds of which all stays.
    pub(crate) pins: Pins,
    pub(crate) idempotency: BTreeMap<(TokenId, String), IdempotencyRow>,
    /// Agents by key.
    pub(crate) keys: BTreeMap<Digest, AgentId>,
    /// Live builds by pipeline and branch, for superseding.
    pub(crate) branches: BTreeMap<(String, String), BTreeSet<BuildId>>,
    pub(crate) zones: BTreeMap<String, Zone>,
    /// What agents have of the large inputs of jobs.
    pub(crate) stocks: Stocks,
    /// Agents of each pool that can take a job now, least busy first.
    pub(crate) open: BTreeMap<String, BTreeSet<(u32, AgentId)>>,
    /// Agents whose room has grown since they were last offered work.
    pub(crate) freed: BTreeSet<AgentId>,
    pub(crate) queue: Queue,
    pub(crate) groups: Groups,
    /// All schedules.
    pub(crate) schedules: Schedules,
    /// Builds that are to be made, and whose they are.
    pub(crate) orders: BTreeMap<BuildId, Orderer>,
    /// How many builds were triggered below one.
    pub(crate) lineages: BTreeMap<BuildId, LineageRow>,
    /// Triggered builds in memory by the build above them all.
    pub(crate) families: BTreeMap<BuildId, BTreeSet<BuildId>>,
    /// Slots of groups that outlive their jobs.
    pub(crate) holds: BTreeMap<JobId, HoldRow>,
    /// Notifications that wait.
    pub(crate) outbox: Outbox,
    pub(crate) timers: Timers,
    pub(crate) book: Logbook,
    /// Jobs whose dependents are to be looked at, with what they were before.
    pub(crate) ripple: BTreeMap<JobId, Standing>,
    pub(crate) effects: VecDeque<Effect>,
}

/// A build in memory.
#[derive(Debug)]
pub(crate) struct Build {
    pub(crate) row: BuildRow,
    pub(crate) jobs: Vec<JobId>,
    /// For each job, by index, the jobs that have an edge to it, with the edge's place among theirs.
    pub(crate) dependents: Vec<Vec<(u32, u32)>>,
    pub(crate) tally: Tally,
    /// What the jobs of steps and groups come to that somebody hears of.
    pub(crate) subjects: BTreeMap<Subject, Heard>,
    /// The conditions of its notifications that were asked before.
    pub(crate) conditions: Conditions,
    /// The last epoch granted to it: its turn among builds.
    pub(crate) turn: u64,
    /// What its rows hold.
    pub(crate) account: Account,
}

/// What a build's state follows from; kept in step with its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Jobs that have not ended.
    pub(crate) open: u32,
    /// Of those, the ones whose dependencies are not over.
    pub(crate) waiting: u32,
    /// Of those, the gates that wait for a person.
    pub(crate) blocked: u32,
    /// Hard failures.
    pub(crate) hard: u32,
    /// Jobs that are no waits.
    pub(crate) steps: u32,
    /// Of those, the ones that were not to be run.
    pub(crate) idle: u32,
}

/// A job in memory.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) row: JobRow,
    /// Dependencies that have not ended.
    pub(crate) waits: u32,
    /// Dependencies that failed and are not forgiven.
    pub(crate) bad: u32,
    /// Its dependencies were proved to be over when it became ready, and again when it was first leased; a dependency
    /// that is run again by hand later takes nothing back (I7).
    pub(crate) cleared: bool,
    /// Where it is queued.
    pub(crate) queued: Option<(ShapeId, Ticket)>,
    /// When the processes of its last exclusive attempt have surely ended.
    pub(crate) fence: Option<Instant64>,
    /// What it needs that may be large, where somebody has asked: names are hashes, and most fleets tell of nothing.
    pub(crate) inputs: OnceCell<Inputs>,
    /// How long it waits for an agent that has that.
    pub(crate) patience: Patience,
}

/// What is known of a live attempt beside its row; volatile.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) agent: AgentId,
    pub(crate) job: JobId,
    pub(crate) epoch: Epoch,
    pub(crate) phase: Phase,
    /// Its command is known to have started.
    pub(crate) started_at: Option<WallMs>,
    pub(crate) granted_at: Instant64,
    /// Its agent was told to end it, because the agent's drain is over.
    pub(crate) stopping: bool,
    /// The deadline that is set for it.
    pub(crate) timer: Option<Timer>,
}

/// How far a live attempt has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Leased before a restart; its agent has not been heard since.
    Unknown,
    /// Offered.
    Offered,
    /// Taken by the agent.
    Accepted,
    /// The command has started.
    Running,
    /// The offer was taken back; the agent's answer is awaited.
    Withdrawn,
    /// The command has ended; its log is awaited.
    Finishing(Box<Outcome>),
}

/// An agent in memory.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) row: AgentRow,
    pub(crate) conn: Option<ConnId>,
    pub(crate) session: u64,
    pub(crate) hello: Option<Hello>,
    pub(crate) health: Health,
    /// When it was last heard; after a restart, the restart.
    pub(crate) heard_at: Instant64,
    pub(crate) heard_wall: Option<WallMs>,
    pub(crate) silence: Silence,
    /// What it was told to leave between beats.
    pub(crate) told_beat_ms: Option<u64>,
    /// How its last connection ended.
    pub(crate) gone_detail: Option<String>,
    /// It said that it takes nothing more.
    pub(crate) self_draining: bool,
    /// It refused an offer and gets none before this.
    pub(crate) backoff_until: Option<Instant64>,
    /// What takes its slots.
    pub(crate) slots: BTreeMap<AttemptId, Slot>,
    pub(crate) used: Resources,
    /// Results of its that are durable and that it may not have heard of.
    pub(crate) committed: BTreeMap<AttemptId, Epoch>,
    /// The line that it is kept for (F56).
    pub(crate) reserved_for: Option<ShapeId>,
    /// What it has of the large inputs of jobs.
    pub(crate) stock: BTreeSet<InputName>,
    /// What it had brought when that was last compared.
    pub(crate) fetched: Fetched,
    /// Where it stands in [`Core::open`].
    pub(crate) open_at: Option<u32>,
    /// The state that views were last told.
    pub(crate) shown: Option<AgentState>,
    /// How its zone counts it.
    pub(crate) bearing: Bearing,
}

/// Whether an agent is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Not since it joined, or since a restart.
    Never,
    /// In time.
    Heard,
    /// Not for three beats.
    Suspect,
    /// Not for a whole lease.
    Lost,
    /// It said goodbye.
    Left,
}

/// A slot that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) epoch: Epoch,
    pub(crate) job: JobId,
    pub(crate) resources: Resources,
    /// Since when its right has ended, while the agent has not said that nothing runs.
    pub(crate) ghost: Option<Instant64>,
    /// The command has ended and the result is not yet durable: it takes no room any more.
    pub(crate) done: bool,
}

impl Core {
    /// Takes one input. A rejected one has changed nothing.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), Rejected> {
        self.advance(now);
        let result = match input {
            Input::Request { reply, actor, request } => self.on_request(reply, &actor, request),
            Input::AgentHello { agent, key, conn, hello } => self.on_hello(agent, key, conn, *hello),
            Input::Agent { agent, conn, event } => self.on_agent_event(agent, conn, event),
            Input::AgentGone { agent, conn, detail } => self.on_agent_gone(agent, conn, &detail),
            Input::Obtained { build, obtained } => self.on_obtained(build, obtained.map(|obtained| *obtained)),
            Input::Keyed { job, ask, outcome } => self.on_keyed(job, ask, outcome.map(|keyed| *keyed)),
            Input::Delivered { id, attempt, delivery } => self.on_delivered(id, attempt, delivery),
            Input::LogSettled { attempt, epoch, settled } => self.on_log_settled(attempt, epoch, settled.is_ok()),
        };
        self.conclude();
        result
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Core::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant64> {
        self.timers.next()
    }

    /// Does what is due, but no more than one commit is to hold: where more is due, [`Core::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Now) {
        self.advance(now);
        for _ in 0..limits::TIMERS_PER_COMMIT_MAX {
            let Some(timer) = self.timers.pop(self.now.mono) else { break };
            self.on_timer(timer);
            // One that ends a whole large build is enough.
            if self.book.jobs.len() >= limits::JOBS_PER_BUILD_MAX {
                break;
            }
        }
        self.conclude();
    }

    /// The rows, as a store that applied every change would have them.
    #[must_use]
    pub fn rows(&self) -> Rows {
        Rows {
            meta: self.meta,
            pipeline_numbers: self.numbers.clone(),
            pipelines: self.pipelines.clone(),
            builds: self.builds.iter().map(|(id, build)| (*id, build.row.clone())).collect(),
            jobs: self.jobs.iter().map(|(id, job)| (*id, job.row.clone())).collect(),
            attempts: self.attempts.clone(),
            pools: self.pools.clone(),
            agents: self.agents.iter().map(|(id, agent)| (*id, agent.row.clone())).collect(),
            tokens: self.tokens.clone(),
            holds: self.holds.clone(),
            schedules: self.schedules.rows.clone(),
            lineages: self.lineages.clone(),
            secrets: self.secrets.clone(),
            notifications: self.outbox.rows(),
            caches: self.caches.clone(),
            reuse: self.reuse.entries.clone(),
            reuse_gone: self.reuse.gone.clone(),
            pins: self.pins.rows.clone(),
            pinned_results: self.pins.results.clone(),
            idempotency: self.idempotency.clone(),
        }
    }

    fn advance(&mut self, now: Now) {
        self.now = Now { mono: self.now.mono.max(now.mono), wall: now.wall };
    }

    /// Follows every consequence of an input, then writes down what changed.
    pub(crate) fn conclude(&mut self) {
        loop {
            self.settle();
            self.dispatch();
            // What is given out again may have taken back what it uploaded.
            if !self.ripple.is_empty() {
                continue;
            }
            self.settle_builds();
            // The end of a build may be the end of a job that waited for it.
            if self.book.touched.is_empty() {
                break;
            }
        }
        self.forget_lineages();
        self.notify_of_subjects();
        self.send_due();
        self.flush();
    }

    pub(crate) fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Silence(agent) => self.on_silence(agent),
            Timer::Backoff(agent) => self.on_backoff_over(agent),
            Timer::Absence(agent) => self.on_absence(agent),
            Timer::Drain(agent) => self.on_drain_over(agent),
            Timer::Offer(attempt) | Timer::Prepare(attempt) => self.withdraw(attempt),
            Timer::Withdraw(attempt) => self.on_withdraw_unanswered(attempt),
            Timer::Timeout(attempt) => self.on_timeout(attempt),
            Timer::Close(attempt) => self.on_close_unanswered(attempt),
            Timer::Settle(attempt) => self.commit_result(attempt, false),
            Timer::Pin(build) => self.on_pin_due(build),
            Timer::Hold(job) => self.on_hold_due(job),
            Timer::NotBefore(job) => self.on_not_before(job),
            Timer::Expiry(build) => self.on_expiry(build),
            Timer::Schedules => self.on_schedules(),
            Timer::Order(build) => self.on_order_overdue(build),
            Timer::Key(job) => self.on_key_overdue(job),
            Timer::Notifications => self.on_notifications_due(),
            Timer::Reserve => self.on_reserve(),
            Timer::Patience(job) => self.on_patience(job),
        }
    }

    /// The row of a job in memory, to be changed and written.
    #[expect(clippy::expect_used, reason = "callers hold ids of jobs in memory; another is our own mistake")]
    pub(crate) fn edit_job(&mut self, id: JobId) -> &mut JobRow {
        self.book.jobs.insert(id);
        &mut self.jobs.get_mut(&id).expect("a job in memory").row
    }

    /// The row of a build in memory, to be changed and written.
    #[expect(clippy::expect_used, reason = "callers hold ids of builds in memory; another is our own mistake")]
    pub(crate) fn edit_build(&mut self, id: BuildId) -> &mut BuildRow {
        self.book.builds.insert(id);
        &mut self.builds.get_mut(&id).expect("a build in memory").row
    }

    /// The row of an attempt in memory, to be changed and written.
    #[expect(clippy::expect_used, reason = "callers hold ids of attempts in memory; another is our own mistake")]
    pub(crate) fn edit_attempt(&mut self, id: AttemptId) -> &mut AttemptRow {
        self.book.attempts.insert(id);
        self.attempts.get_mut(&id).expect("an attempt in memory")
    }

    /// Says something to an agent, if it is connected.
    pub(crate) fn send(&mut self, agent: AgentId, message: windlass_protocol::message::CoordinatorMessage) {
        if let Some(conn) = self.agents.get(&agent).and_then(|agent| agent.conn) {
            self.book.out.push(Effect::Send { agent, conn, message: Box::new(message) });
        }
    }

    /// When an instant of the wall clock comes, by the other clock.
    pub(crate) fn mono_of(&self, wall: WallMs) -> Instant64 {
        self.now.mono.plus_ms(wall.0.saturating_sub(self.now.wall.0))
    }

    /// A cause whose detail fits.
    pub(crate) fn cause(kind: windlass_protocol::CauseKind, detail: &str) -> Cause {
        let end = detail.floor_char_boundary(limits::DETAIL_MAX_BYTES);
        Cause::new(kind, detail.get(..end).unwrap_or_default())
    }
}
