//! Random walks: whatever comes, in whatever order, every invariant holds, every refusal changes nothing, the rows give
//! the same core again, and when the world falls silent every build ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use windlass_coordinator_core::input::{AgentEvent, ConnId, Input, ReplyTo, Request};
use windlass_coordinator_core::row::{JobState, Keyed, NewToken, OnDeadline, TokenGrant, Unkeyed};
use windlass_coordinator_core::{Core, Effect, Rejected};
use windlass_pipeline::graph::{Broken, Dependency, Graph, NodeKind, Reuse, SoftFail, StatusMatch, Supersede};
use windlass_protocol::job::{Epoch, JobSpec, Outcome, Phase, Resources, Source};
use windlass_protocol::limits;
use windlass_protocol::message::{CoordinatorMessage, Health, Held, Hello, Verdict};
use windlass_protocol::{AgentId, AttemptId, BuildId, Cause, CauseKind, Digest, IdSource, JobId, Namespace, WallMs};

use crate::kit::*;

/// One thing to do, and two numbers to choose by.
type Step = (u8, u16, u16);

/// What an agent has, as an agent's core would keep it.
#[derive(Debug, Clone)]
struct Have {
    epoch: Epoch,
    phase: Phase,
    outcome: Option<Outcome>,
}

/// A core, its shell, and agents that behave, more or less.
struct World {
    shell: Shell,
    agents: Vec<AgentId>,
    have: BTreeMap<AgentId, BTreeMap<AttemptId, Have>>,
    inbox: BTreeMap<AgentId, VecDeque<CoordinatorMessage>>,
    up: BTreeMap<AgentId, bool>,
    to_settle: Vec<(AttemptId, Epoch)>,
    to_key: Vec<(u64, JobId)>,
    old_words: Vec<(AgentId, AgentEvent)>,
    builds: Vec<BuildId>,
    jobs: Vec<JobId>,
    slots: u32,
    seen: BTreeSet<JobState>,
}

impl World {
    fn new() -> Self {
        let mut shell = Shell::new();
        let token = shell.pool(pool("main"));
        let agents: Vec<_> = ["one", "two", "three"].iter().map(|name| shell.join(token, name)).collect();
        let up = agents.iter().map(|agent| (*agent, false)).collect();
        let mut world = Self {
            shell,
            agents,
            have: BTreeMap::new(),
            inbox: BTreeMap::new(),
            up,
            to_settle: Vec::new(),
            to_key: Vec::new(),
            old_words: Vec::new(),
            builds: Vec::new(),
            jobs: Vec::new(),
            slots: 2,
            seen: BTreeSet::new(),
        };
        world.listen();
        world
    }

    fn step(&mut self, (what, a, b): Step) {
        let agent = self.agents[usize::from(a) % self.agents.len()];
        match what % 28 {
            0 | 1 => self.submit(a, b),
            2 => self.cancel_something(a, b),
            3 => self.retry_something(a, b),
            4 | 5 => self.hello(agent, b.is_multiple_of(16)),
            6 => self.hang_up(agent),
            7..=11 => self.hear(agent, b),
            12..=16 => self.work(agent, b),
            17 => self.settle(b),
            18 => self.beat(agent, b.is_multiple_of(32)),
            19 => self.shell.pass(u64::from(b) * 4),
            20 => self.operate(agent, b),
            21 => self.repeat_old(b),
            22 => self.nonsense(a, b),
            23 | 24 => self.unblock_something(a),
            25 | 26 => self.find_keys(b),
            _ if b.is_multiple_of(4) => self.restart(),
            _ => self.all_is_well(),
        }
        self.listen();
    }

    /// An input that may be refused; if it is, nothing has changed and nothing was said but a word to who is stale.
    fn try_input(&mut self, input: Input) -> Result<(), Rejected> {
        let before = self.shell.rows.clone();
        self.listen();
        let shown = format!("{input:?}");
        let result = self.shell.input(input);
        if let Err(rejected) = &result {
            assert_eq!(before, self.shell.rows, "{rejected:?} changed something");
            let stale =
                matches!(rejected, Rejected::StaleEpoch { .. } | Rejected::NoLease(_) | Rejected::NotYours { .. });
            for effect in &self.shell.effects {
                let stop = matches!(effect, Effect::Send { message, .. } if matches!(
                    **message,
                    CoordinatorMessage::Stop { .. } | CoordinatorMessage::Committed { .. }
                ));
                assert!(stale && stop, "{shown}: {rejected:?} did {:#?}", self.shell.effects);
            }
        }
        result
    }

    fn request(&mut self, request: Request) -> Result<(), Rejected> {
        let before = self.shell.rows.clone();
        self.listen();
        let result = self.shell.request(request);
        if let Err(rejected) = &result {
            assert_eq!(before, self.shell.rows, "{rejected:?} changed something");
            assert!(self.shell.effects.is_empty(), "{rejected:?} did {:?}", self.shell.effects);
        }
        result.map(drop)
    }

    /// Answers what was asked for keys, a few times with none; many jobs have one key.
    fn find_keys(&mut self, b: u16) {
        for (ask, job) in std::mem::take(&mut self.to_key) {
            let keyed = Keyed {
                key: Digest::of(&[u8::try_from(b % 3).unwrap_or(0)]),
                recipe: Digest::of(b"recipe"),
                source: Source::Empty,
                image: None,
                plugins: BTreeMap::new(),
                system: None,
                hooks: None,
                notes: Vec::new(),
                also: Vec::new(),
            };
            let none = Unkeyed { why: "so".to_owned() };
            let outcome = if b.is_multiple_of(7) { Err(none) } else { Ok(Box::new(keyed)) };
            let _stale = self.try_input(Input::Keyed { job, ask, outcome });
        }
    }

    /// Takes what the core said to agents and to the log.
    fn listen(&mut self) {
        self.seen.extend(self.shell.rows.jobs.values().map(|job| job.state));
        for effect in self.shell.take_effects() {
            match effect {
                Effect::Send { agent, message, .. } if self.up[&agent] => {
                    self.inbox.entry(agent).or_default().push_back(*message);
                }
                Effect::Disconnect { agent, .. } if !self.shell.is_connected(agent) => {
                    self.up.insert(agent, false);
                    self.inbox.remove(&agent);
                }
                Effect::SettleLog { attempt, epoch, .. } => self.to_settle.push((attempt, epoch)),
                Effect::Key { ask, subject } => self.to_key.push((ask, subject.job)),
                _ => {}
            }
        }
    }

    fn submit(&mut self, a: u16, b: u16) {
        let count = u32::from(a % 6) + 1;
        let mut nodes = Vec::new();
        for index in 0..count {
            let bits = b.rotate_left(index * 3) ^ a.rotate_left(index);
            let mut node = step_with(&format!("s{index}"), |command| {
                command.exclusive = bits.is_multiple_of(5);
                command.interruptible = bits.is_multiple_of(7);
                command.priority = i64::from(bits % 3);
                if bits.is_multiple_of(4) {
                    command.retry = vec![retry_on(StatusMatch::AnyFailure, u32::from(bits % 3))];
                }
                if bits.is_multiple_of(11) {
                    command.soft_fail = SoftFail::Always;
                }
                if bits % 3 == 1 {
                    command.timeout_ms = Some(5_000);
                }
                if bits.is_multiple_of(17) {
                    command.resources = Resources { cpu_millis: 2_000, memory_bytes: 0 };
                }
            });
            if bits % 13 == 2 {
                node =
                    limited(&format!("s{index}"), ["g", "h"][usize::from(bits >> 5 & 1)], 1 + u32::from(bits >> 6 & 1));
            }
            if bits % 13 == 3
                && let NodeKind::Command(command) = &mut node.kind
            {
                command.cancel_on_build_failing = true;
            }
            if bits & 5 == 5
                && let NodeKind::Command(command) = &mut node.kind
            {
                let verify_ppm = if bits & 64 == 0 { 0 } else { 300_000 };
                command.reuse = Some(Reuse { verify_ppm, ..Reuse::default() });
            }
            if bits % 13 == 4 {
                node = block(&format!("s{index}"), Vec::new());
            }
            if bits % 29 == 5 {
                node.unresolved = vec![Dependency { key: "later".to_owned(), allow_failure: false }];
            }
            if bits % 29 == 6 {
                node.broken = Some(Broken::If);
            }
            if bits.is_multiple_of(6) {
                node = wait();
            }
            if bits.is_multiple_of(19) {
                node.skip = Some("not today".to_owned());
            }
            if index > 0 && bits & 8 != 0 {
                let before = u32::from(bits >> 4) % index;
                node = if bits & 16 == 0 { after(node, &[before]) } else { after_even_if(node, &[before]) };
            }
            nodes.push(node);
        }
        let supersede =
            [Supersede::Never, Supersede::Never, Supersede::Waiting, Supersede::Running][usize::from(b % 4)];
        let branch = ["main", "", "feature"][usize::from(a % 3)];
        let untrusted = b.is_multiple_of(31);
        let build = self.shell.submit_with(Graph { nodes, supersede, ..Graph::default() }, |submit| {
            submit.branch = branch.to_owned();
            if untrusted {
                submit.namespace = Namespace::overlay("app", "pr:1");
            }
        });
        self.builds.push(build);
        self.jobs.extend(self.shell.jobs(build).iter().map(|job| job.id).collect::<Vec<_>>());
    }

    fn cancel_something(&mut self, a: u16, b: u16) {
        let Some(build) = pick(&self.builds, a) else { return };
        let Some(job) = pick(&self.jobs, a) else { return };
        let request = if b.is_multiple_of(2) {
            Request::CancelBuild { build, detail: "enough".to_owned() }
        } else {
            Request::CancelJob { job, grace_ms: None }
        };
        let _ = self.request(request);
    }

    fn unblock_something(&mut self, a: u16) {
        let gates = self.shell.rows.jobs.values().filter(|job| job.state == JobState::Blocked);
        let gates: Vec<JobId> = gates.map(|job| job.id).collect();
        let Some(job) = pick(&gates, a).or_else(|| pick(&self.jobs, a)) else { return };
        let _ = self.request(Request::Unblock { job, answers: BTreeMap::new() });
    }

    fn retry_something(&mut self, a: u16, b: u16) {
        let Some(build) = pick(&self.builds, a) else { return };
        let Some(job) = pick(&self.jobs, a) else { return };
        let of = |id: BuildId, shell: &Shell| shell.history.get(&id).cloned().map(Box::new);
        let request = if b.is_multiple_of(2) {
            Request::RetryBuild { build, rows: of(build, &self.shell) }
        } else {
            let home = self.shell.history.values().find(|rows| rows.jobs.iter().any(|row| row.id == job));
            Request::RetryJob { job, rows: home.cloned().map(Box::new) }
        };
        let _ = self.request(request);
    }

    fn hello(&mut self, agent: AgentId, amnesia: bool) {
        if amnesia {
            self.have.remove(&agent);
        }
        let have = self.have.entry(agent).or_default().clone();
        let told = have.iter().map(|(attempt, have)| Held {
            attempt: *attempt,
            epoch: have.epoch,
            phase: have.phase,
            started_at: Some(self.shell.now.wall),
        });
        let told: Vec<_> = told.collect();
        self.listen();
        self.up.insert(agent, true);
        self.inbox.remove(&agent);
        let hello = Hello { held: told, ..greeting("agent", self.slots) };
        let hello = Hello { name: self.shell.rows.agents[&agent].name.clone(), ..hello };
        let _ = self.shell.hello_with(agent, hello);
    }

    fn hang_up(&mut self, agent: AgentId) {
        if self.up[&agent] && self.shell.is_connected(agent) {
            self.shell.disconnect(agent);
        }
        self.up.insert(agent, false);
        self.inbox.remove(&agent);
    }

    /// The agent takes one message.
    fn hear(&mut self, agent: AgentId, b: u16) {
        let Some(message) = self.inbox.get_mut(&agent).and_then(VecDeque::pop_front) else { return };
        match message {
            CoordinatorMessage::Welcome { verdicts, .. } => {
                for (attempt, verdict) in verdicts {
                    self.obey(agent, attempt, verdict);
                }
            }
            CoordinatorMessage::Offer { epoch, job } => self.take_offer(agent, epoch, &job, b),
            CoordinatorMessage::Cancel { attempt, epoch, cause, grace_ms: _ } => {
                let have = self.have.entry(agent).or_default();
                match have.get_mut(&attempt).filter(|have| have.epoch == epoch && have.outcome.is_none()) {
                    Some(have) => {
                        let outcome = Outcome { exit_status: None, cause: Some(cause), ..self.shell.exit(0) };
                        (have.phase, have.outcome) = (Phase::Finished, Some(outcome));
                    }
                    None => self.say(agent, AgentEvent::Stopped(attempt, epoch)),
                }
            }
            CoordinatorMessage::Stop { attempt, epoch } => {
                let have = self.have.entry(agent).or_default();
                if have.get(&attempt).is_some_and(|have| have.epoch == epoch) {
                    have.remove(&attempt);
                }
                if !b.is_multiple_of(8) {
                    self.say(agent, AgentEvent::Stopped(attempt, epoch));
                }
            }
            CoordinatorMessage::Committed { attempt, epoch } => {
                let have = self.have.entry(agent).or_default();
                if have.get(&attempt).is_some_and(|have| have.epoch == epoch) {
                    have.remove(&attempt);
                }
            }
            _ => {}
        }
    }

    fn obey(&mut self, agent: AgentId, attempt: AttemptId, verdict: Verdict) {
        let have = self.have.entry(agent).or_default();
        match verdict {
            Verdict::Keep { epoch, .. } => {
                if let Some(have) = have.get_mut(&attempt) {
                    have.epoch = epoch;
                }
            }
            Verdict::Committed => drop(have.remove(&attempt)),
            Verdict::Stop => {
                if let Some(have) = have.remove(&attempt) {
                    self.say(agent, AgentEvent::Stopped(attempt, have.epoch));
                }
            }
        }
    }

    fn take_offer(&mut self, agent: AgentId, epoch: Epoch, job: &JobSpec, b: u16) {
        let attempt = job.attempt;
        match b % 10 {
            0 => {
                let cause = Cause::new(CauseKind::DiskFull, "no room");
                self.say(agent, AgentEvent::Refused(attempt, epoch, cause));
            }
            1 => {}
            _ => {
                let have = Have { epoch, phase: Phase::Preparing, outcome: None };
                self.have.entry(agent).or_default().insert(attempt, have);
                self.say(agent, AgentEvent::Accepted(attempt, epoch));
            }
        }
    }

    /// Something that the agent holds gets further.
    fn work(&mut self, agent: AgentId, b: u16) {
        let outcome = match b % 9 {
            0 => self.shell.exit(1),
            1 => Outcome { exit_status: None, signal: Some(9), ..self.shell.exit(0) },
            2 => self.shell.ended_by(CauseKind::Timeout),
            3 => Outcome { started_at: None, ..self.shell.ended_by(CauseKind::AgentStopped) },
            4 => self.shell.ended_by(CauseKind::SpotNotice),
            _ => self.shell.exit(0),
        };
        let wall = self.shell.now.wall;
        let held = self.have.entry(agent).or_default();
        let keys: Vec<_> = held.keys().copied().collect();
        let Some(attempt) = pick(&keys, b) else { return };
        let Some(have) = held.get_mut(&attempt) else { return };
        let epoch = have.epoch;
        let event = match have.phase {
            Phase::Preparing if !b.is_multiple_of(12) => {
                have.phase = Phase::Running;
                AgentEvent::Started(attempt, epoch, wall)
            }
            Phase::Preparing | Phase::Running => {
                (have.phase, have.outcome) = (Phase::Finished, Some(outcome.clone()));
                AgentEvent::Finished(attempt, epoch, Box::new(outcome))
            }
            Phase::Finished => AgentEvent::Finished(attempt, epoch, Box::new(have.outcome.clone().unwrap_or(outcome))),
        };
        self.say(agent, event);
    }

    fn say(&mut self, agent: AgentId, event: AgentEvent) {
        self.old_words.push((agent, event.clone()));
        if self.up[&agent] {
            let conn = self.shell.conn(agent);
            let _ = self.try_input(Input::Agent { agent, conn, event });
        }
    }

    fn beat(&mut self, agent: AgentId, sick: bool) {
        if !self.up[&agent] || !self.shell.is_connected(agent) {
            return;
        }
        let held = self.have.entry(agent).or_default().iter().map(|(attempt, have)| (*attempt, have.epoch)).collect();
        let health = Health { disk_full: sick, ..Health::default() };
        let conn = self.shell.conn(agent);
        let event = AgentEvent::Beat { seq: 1, health, held };
        self.try_input(Input::Agent { agent, conn, event }).unwrap();
    }

    fn settle(&mut self, b: u16) {
        let Some(pair) = pick(&self.to_settle, b) else { return };
        self.to_settle.retain(|other| *other != pair);
        let settled = if b.is_multiple_of(5) { Err("cut".to_owned()) } else { Ok(()) };
        let _ = self.try_input(Input::LogSettled { attempt: pair.0, epoch: pair.1, settled });
    }

    fn operate(&mut self, agent: AgentId, b: u16) {
        match b % 6 {
            0 => {
                let deadline_ms = b.is_multiple_of(4).then(|| u64::from(b));
                let on_deadline = [OnDeadline::Requeue, OnDeadline::Cancel, OnDeadline::Wait][usize::from(b / 6 % 3)];
                self.request(Request::DrainAgents { agents: vec![agent], deadline_ms, on_deadline }).unwrap();
            }
            1 | 2 => self.request(Request::ResumeAgent { agent }).unwrap(),
            3 => self.say(agent, AgentEvent::Draining),
            4 => self.say(agent, AgentEvent::Resumed),
            _ => {
                if self.have.get(&agent).is_none_or(BTreeMap::is_empty) {
                    self.say(agent, AgentEvent::Goodbye { reason: "done".to_owned() });
                }
            }
        }
    }

    /// A few minutes in which everybody beats and nothing else happens.
    fn all_is_well(&mut self) {
        for _ in 0..40 {
            self.shell.pass(5_000);
            self.listen();
            for agent in self.agents.clone() {
                self.beat(agent, false);
            }
        }
    }

    /// A message from long ago arrives once more.
    fn repeat_old(&mut self, b: u16) {
        let Some((agent, event)) = pick(&self.old_words, b) else { return };
        if self.up[&agent] && !matches!(event, AgentEvent::Goodbye { .. } | AgentEvent::Stopped(..)) {
            let conn = self.shell.conn(agent);
            let _ = self.try_input(Input::Agent { agent, conn, event });
        }
    }

    fn nonsense(&mut self, a: u16, b: u16) {
        let mut ids = IdSource::from_seed([77; 32]);
        let at = WallMs(u64::from(a));
        let agent = self.agents[usize::from(a) % self.agents.len()];
        let input = match b % 6 {
            0 => Input::Agent { agent: ids.agent(at), conn: ConnId(1), event: AgentEvent::Draining },
            1 => Input::Agent { agent, conn: ConnId(0), event: AgentEvent::Draining },
            2 => Input::LogSettled { attempt: ids.attempt(at), epoch: Epoch(1), settled: Ok(()) },
            3 => Input::AgentGone { agent, conn: ConnId(0), detail: String::new() },
            4 => Input::AgentHello {
                agent,
                key: Digest::of(b"forged"),
                conn: ConnId(9_999_999),
                hello: Box::new(greeting("forged", 1)),
            },
            _ => {
                let grant = TokenGrant::join("nowhere".to_owned(), None);
                let (secret_hash, note) = (Digest::of(b""), String::new());
                let new = NewToken { id: ids.token(at), secret_hash, grant, pool: None, note, expires_at: None };
                let request = Request::CreateToken(Box::new(new));
                Input::Request { reply: ReplyTo(u64::MAX), actor: actor(), request }
            }
        };
        self.try_input(input).unwrap_err();
    }

    fn restart(&mut self) {
        self.shell.restart();
        self.inbox.clear();
        self.to_settle.clear();
        for up in self.up.values_mut() {
            *up = false;
        }
    }

    /// What a core from the same rows does from here on, as far as people can see it.
    fn dispatches_like_its_rows(&mut self) {
        for agent in self.agents.clone() {
            // An agent's health is volatile.
            self.hello(agent, false);
            self.beat(agent, false);
            self.hang_up(agent);
        }
        let mut copy = Shell::new();
        copy.now = self.shell.now;
        copy.rows = self.shell.rows.clone();
        copy.history = self.shell.history.clone();
        copy.core = Core::load(copy.now, copy.rows.clone(), IdSource::from_seed([3; 32]), copy.policy.clone());
        copy.drain();
        same_rows(&copy.core.rows(), &self.shell.rows);
        for shell in [&mut copy, &mut self.shell] {
            shell.pass(limits::ZONE_HOLD_MS + limits::LOG_SETTLE_MS + 2 * LEASE_MS);
        }
        let states = |shell: &Shell| -> Vec<_> { shell.rows.jobs.values().map(|job| (job.id, job.state)).collect() };
        if states(&copy) != states(&self.shell) {
            // A result that was being settled is lost with the core; then they may differ.
            return;
        }
        for shell in [&mut copy, &mut self.shell] {
            for agent in &self.agents {
                shell.hello(*agent, 3, Vec::new());
            }
        }
        let given = |shell: &Shell| -> Vec<_> {
            let live = shell.rows.attempts.values().filter(|row| !row.state.is_final());
            live.map(|row| (row.job, row.agent, row.epoch)).collect::<BTreeSet<_>>().into_iter().collect()
        };
        assert_eq!(given(&copy), given(&self.shell), "the rows dispatch otherwise");
    }

    /// Everybody falls silent: every build ends, by deadlines alone (I10).
    fn everything_ends(&mut self) {
        for agent in self.agents.clone() {
            self.hang_up(agent);
        }
        self.shell.pass(limits::JOB_EXPIRY_MS * 3);
        let left: Vec<_> = self.shell.rows.jobs.values().filter(|job| !job.state.is_final()).collect();
        assert!(self.shell.rows.builds.is_empty(), "these never ended: {left:#?}");
        assert_eq!(self.shell.core.queued_jobs(), 0);
        assert!(self.shell.rows.holds.is_empty());
        assert!(self.shell.core.queues().is_empty());
    }
}

fn pick<T: Clone>(from: &[T], by: u16) -> Option<T> {
    if from.is_empty() { None } else { from.get(usize::from(by) % from.len()).cloned() }
}

fn cases() -> u32 {
    std::env::var("WINDLASS_WALKS").ok().and_then(|text| text.parse().ok()).unwrap_or(192)
}

fn walk(steps: &[Step]) -> World {
    let mut world = World::new();
    for step in steps {
        world.step(*step);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_invariants_hold_and_in_the_end_every_build_ends(
        steps in proptest::collection::vec(any::<Step>(), 1..250)
    ) {
        walk(&steps).everything_ends();
    }

    #[test]
    fn the_rows_give_the_same_core_again(steps in proptest::collection::vec(any::<Step>(), 1..150)) {
        walk(&steps).dispatches_like_its_rows();
    }
}

#[test]
fn a_long_walk_reaches_every_state_that_a_job_can_be_stored_in() -> Result<(), TestCaseError> {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let steps = proptest::collection::vec(any::<Step>(), 250).new_tree(&mut runner).unwrap().current();
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.everything_ends();
        seen.append(&mut world.seen);
        seen.extend(world.shell.history.values().flat_map(|rows| rows.jobs.iter().map(|job| job.state)));
    }
    let reachable = [
        JobState::Waiting,
        JobState::WaitingFailed,
        JobState::Blocked,
        JobState::BlockedFailed,
        JobState::Unblocked,
        JobState::UnblockedFailed,
        JobState::Limited,
        JobState::Broken,
        JobState::Scheduled,
        JobState::Assigned,
        JobState::Passed,
        JobState::Failed,
        JobState::Canceling,
        JobState::Canceled,
        JobState::TimingOut,
        JobState::TimedOut,
        JobState::Skipped,
        JobState::Expired,
    ];
    for state in reachable {
        prop_assert!(seen.contains(&state), "{state:?} was never reached, only {seen:?}");
    }
    Ok(())
}
