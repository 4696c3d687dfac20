//! The world: one thread, one clock, everything in it, and the loop that moves it from event to event.

use std::collections::BTreeMap;

use windlass_agent_core::Bugs as AgentBugs;
use windlass_coordinator_core::order::Obtained;
use windlass_coordinator_core::policy::Bugs as CoreBugs;
use windlass_coordinator_core::row::{Delivery, Keyed, Unkeyed};
use windlass_protocol::{AttemptId, BuildId, Cause, CauseKind, Instant64, JobId, NotificationId, Now, WallMs};

use super::coordinator::Coordinator;
use super::coverage::Coverage;
use super::host::Host;
use super::logs::Logs;
use super::network::{Network, Parcel};
use super::oracle::Oracle;
use super::random::Random;
use super::receiver::Receiver;
use super::store::Store;
use super::workload::{Action, Workload};

/// The wall clock when a run begins.
pub const WALL_MS: u64 = 1_700_000_000_000;

/// More events than any run that moves on has.
const EVENTS_MAX: u64 = 400_000;

/// What a run is asked to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// Decides everything.
    pub seed: u64,
    /// Deliberate faults of the coordinator's core.
    pub core_bugs: CoreBugs,
    /// Deliberate faults of the agents' cores.
    pub agent_bugs: AgentBugs,
    /// The oracle alone judges: the cores are not asked whether they find themselves sound.
    pub oracle_only: bool,
    /// Keep a line for each event.
    pub traced: bool,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its number, such as `I3`.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
    /// When, in milliseconds of the run.
    pub at_ms: u64,
}

/// Something that will happen.
#[derive(Debug, Clone)]
pub enum Event {
    /// The store's writer is done with its batch.
    Committed {
        /// Of this coordinator.
        generation: u64,
    },
    /// The logs' sync is done.
    LogsSynced {
        /// Of this coordinator.
        generation: u64,
    },
    /// Nobody waits for a log's end any longer than this.
    SettleOver {
        /// Of this coordinator.
        generation: u64,
        /// Whose.
        attempt: AttemptId,
    },
    /// What an ordered build runs is known.
    Filled {
        /// Asked by this coordinator.
        generation: u64,
        /// The build.
        build: BuildId,
        /// What it runs.
        obtained: Result<Box<Obtained>, Cause>,
    },
    /// The shell knows a step's key, or that it has none.
    Keyed {
        /// Asked by this coordinator.
        generation: u64,
        /// The job.
        job: JobId,
        /// Which question.
        ask: u64,
        /// The answer.
        outcome: Result<Box<Keyed>, Unkeyed>,
    },
    /// The shell knows what came of a try of a notification.
    Answered {
        /// Of this coordinator.
        generation: u64,
        /// Which notification.
        id: NotificationId,
        /// Which try.
        attempt: u32,
        /// What.
        delivery: Delivery,
    },
    /// A message is there.
    Arrived(Parcel),
    /// The agent's side sees that a connection is over.
    AgentSeesEnd(u64),
    /// The coordinator's side sees that a connection is over.
    CoordinatorSeesEnd(u64),
    /// A host's dial is decided.
    Dialled {
        /// Which host.
        host: usize,
        /// Its process.
        boot: u64,
        /// Its dial.
        dial: u64,
    },
    /// A partition may be over.
    Healed {
        /// Which host.
        host: usize,
    },
    /// A job does something on a host.
    Job {
        /// Which host.
        host: usize,
        /// Which attempt.
        attempt: AttemptId,
        /// Which preparation of it.
        run: u64,
        /// What.
        step: JobStep,
    },
    /// An agent's process starts.
    AgentStarts {
        /// Which host.
        host: usize,
    },
    /// A host wakes up.
    Wakes {
        /// Which host.
        host: usize,
    },
    /// The coordinator's process starts.
    CoordinatorStarts,
    /// Somebody does something.
    Act(Box<Action>),
    /// Something breaks.
    Trouble,
    /// Nothing breaks any more, and what is broken is mended.
    Mend,
}

/// What a job does by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobStep {
    /// It is ready to start.
    Prepared,
    /// It could not be made ready.
    Unprepared(CauseKind),
    /// Its command starts.
    Begins,
    /// It writes.
    Writes,
    /// It ends as planned.
    Ends,
    /// It ends because it was asked to.
    EndsPolitely,
    /// It is ended.
    Killed,
    /// Its supervisor looks at its deadline.
    Deadline,
}

/// Everything.
#[derive(Debug)]
pub struct World {
    /// As asked.
    pub setup: Setup,
    /// Milliseconds since the run began.
    pub now: u64,
    /// All chance.
    pub random: Random,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    /// The coordinator's process.
    pub coordinator: Coordinator,
    /// What it wrote.
    pub store: Store,
    /// Its logs.
    pub logs: Logs,
    /// The agents' machines.
    pub hosts: Vec<Host>,
    /// Between them.
    pub network: Network,
    /// Clients.
    pub work: Workload,
    /// Those who are told of builds.
    pub receiver: Receiver,
    /// The judge.
    pub oracle: Oracle,
    /// What was reached.
    pub coverage: Coverage,
    /// Things still break.
    pub troubled: bool,
    /// The first that was seen.
    pub violation: Option<Violation>,
    /// One line for each event, if asked for.
    pub trace: Vec<String>,
    /// Preparations so far.
    pub runs: u64,
    /// How many events there were.
    pub handled: u64,
    /// Of everything that happened: two runs of one seed agree on it.
    pub fingerprint: u64,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was reached.
    pub coverage: Coverage,
    /// Events.
    pub events: u64,
    /// Virtual time.
    pub virtual_ms: u64,
    /// Builds that ended.
    pub builds: u64,
    /// See [`World::fingerprint`].
    pub fingerprint: u64,
    /// The invariant that did not hold, if one did not.
    pub violation: Option<Violation>,
    /// See [`World::trace`].
    pub trace: Vec<String>,
}

impl World {
    /// A world before its first event.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let random = Random::new(setup.seed);
        let mut world = Self {
            setup,
            now: 0,
            random,
            events: BTreeMap::new(),
            serial: 0,
            coordinator: Coordinator::default(),
            store: Store::default(),
            logs: Logs::default(),
            hosts: Vec::new(),
            network: Network::default(),
            work: Workload::default(),
            receiver: Receiver::default(),
            oracle: Oracle::default(),
            coverage: Coverage::default(),
            troubled: true,
            violation: None,
            trace: Vec::new(),
            runs: 0,
            handled: 0,
            fingerprint: 0,
        };
        world.start_coordinator();
        world.plan_work();
        world
    }

    /// Runs to the end: until every build has ended after the last trouble, or an invariant does not hold.
    #[must_use]
    pub fn run(mut self) -> Report {
        while self.violation.is_none() && !self.is_over() {
            self.step();
        }
        if self.violation.is_none() {
            self.judge_end();
        }
        Report {
            events: self.handled,
            virtual_ms: self.now,
            builds: self.store.rows.builds.values().filter(|build| build.state.is_final()).count() as u64,
            fingerprint: self.fingerprint,
            coverage: self.coverage,
            violation: self.violation,
            trace: self.trace,
        }
    }

    /// Something happens later.
    pub fn after(&mut self, ms: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + ms, self.serial), event);
    }

    /// An invariant does not hold.
    pub fn violate(&mut self, invariant: &'static str, detail: impl Into<String>) {
        let at_ms = self.now;
        self.violation.get_or_insert_with(|| Violation { invariant, detail: detail.into(), at_ms });
    }

    /// Notes a line, if somebody wants to read it.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.setup.traced {
            let line = format!("{:>9} {}", self.now, line());
            self.trace.push(line);
        }
    }

    /// Mixes a number into the run's fingerprint.
    pub const fn mix(&mut self, number: u64) {
        self.fingerprint = (self.fingerprint.rotate_left(5) ^ number).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    /// The coordinator's clocks.
    #[must_use]
    pub const fn coordinator_now(&self) -> Now {
        Now { mono: Instant64(self.now + self.coordinator.clock_base), wall: WallMs(WALL_MS + self.now) }
    }

    /// A host's clocks.
    #[must_use]
    pub fn host_now(&self, host: usize) -> Now {
        let host = &self.hosts[host];
        Now { mono: Instant64(host.mono(self.now)), wall: WallMs(WALL_MS + self.now + host.wall_ahead_ms) }
    }

    fn step(&mut self) {
        let queued = self.events.first_key_value().map(|((at, _), _)| *at);
        let coordinator = self.coordinator.due();
        let host = self.next_host_timer();
        let times = [queued, coordinator, host.map(|(at, _)| at)];
        let Some(next) = times.into_iter().flatten().min() else {
            self.violate("I10", "nothing will ever happen again");
            return;
        };
        self.now = self.now.max(next);
        self.handled += 1;
        self.mix(self.now);
        if self.handled > EVENTS_MAX {
            self.violate("I10", format!("{EVENTS_MAX} events and no end"));
        }
        if queued.is_some_and(|at| at <= next) {
            if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
        } else if coordinator.is_some_and(|at| at <= next) {
            self.coordinator_timer();
        } else if let Some((_, host)) = host {
            self.host_timer(host);
        }
        self.judge();
    }

    fn next_host_timer(&self) -> Option<(u64, usize)> {
        self.hosts.iter().enumerate().filter_map(|(index, host)| Some((host.due(self.now)?, index))).min()
    }

    fn happen(&mut self, event: Event) {
        self.note(|| format!("{event:?}"));
        match event {
            Event::Committed { generation } => self.committed(generation),
            Event::LogsSynced { generation } => self.logs_synced(generation),
            Event::SettleOver { generation, attempt } => self.settle_over(generation, attempt),
            Event::Filled { generation, build, obtained } => self.filled(generation, build, obtained),
            Event::Keyed { generation, job, ask, outcome } => self.keyed(generation, job, ask, outcome),
            Event::Answered { generation, id, attempt, delivery } => {
                self.answered_delivery(generation, id, attempt, delivery);
            }
            Event::Arrived(parcel) => self.arrived(parcel),
            Event::AgentSeesEnd(conn) => self.agent_sees_end(conn),
            Event::CoordinatorSeesEnd(conn) => self.coordinator_sees_end(conn),
            Event::Dialled { host, boot, dial } => self.dialled(host, boot, dial),
            Event::Healed { host } => self.healed(host),
            Event::Job { host, attempt, run, step } => self.job_step(host, attempt, run, step),
            Event::AgentStarts { host } => self.start_agent(host),
            Event::Wakes { host } => self.wake(host),
            Event::CoordinatorStarts => self.start_coordinator(),
            Event::Act(action) => self.act(*action),
            Event::Trouble => self.trouble(),
            Event::Mend => self.mend(),
        }
    }
}
