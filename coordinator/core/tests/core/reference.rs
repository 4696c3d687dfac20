//! The reference's tables of states, row by row: each job state (16.1) is reached, and a build's state follows from its
//! jobs' by the first rule that fits (16.3).

use windlass_coordinator_core::Effect;
use windlass_coordinator_core::effect::Progress;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildEvent, BuildState, JobState};
use windlass_pipeline::graph::{BlockedState, Broken, Gate, Node, NodeKind, SoftFail, Supersede};
use windlass_protocol::{AgentId, AttemptId, BuildId, CauseKind, limits};

use crate::kit::*;

/// A core with an agent of two slots, and the build that a row is about.
struct Stage {
    shell: Shell,
    agent: AgentId,
    build: BuildId,
}

type Offer = (AttemptId, windlass_protocol::job::Epoch);

impl Stage {
    fn of(nodes: Vec<Node>) -> Self {
        let mut shell = Shell::new();
        let agent = shell.agent("one", 2);
        shell.take_effects();
        let build = shell.submit(graph(nodes));
        Self { shell, agent, build }
    }

    fn offered(&mut self) -> Vec<Offer> {
        self.shell.offers(self.agent).into_iter().map(|(epoch, spec)| (spec.attempt, epoch)).collect()
    }

    fn run(mut self, statuses: &[i32]) -> Self {
        for status in statuses {
            let offer = self.offered()[0];
            self.shell.run(self.agent, offer, *status);
        }
        self
    }

    fn start(mut self) -> Self {
        for offer in self.offered() {
            self.shell.start(self.agent, offer);
        }
        self
    }

    fn ended_by(mut self, kind: CauseKind) -> Self {
        let offer = self.offered()[0];
        self.shell.start(self.agent, offer);
        let outcome = self.shell.ended_by(kind);
        self.shell.report(self.agent, offer, outcome);
        self.shell.settle(offer);
        self
    }

    fn ask(mut self, request: impl FnOnce(&Shell, BuildId) -> Request) -> Self {
        let request = request(&self.shell, self.build);
        self.shell.request(request).unwrap();
        self
    }

    fn passes(mut self, ms: u64) -> Self {
        self.shell.pass(ms);
        self
    }

    /// All states that the job of this index was ever told to be in, durable and volatile, and the one that it is in.
    fn reached(mut self, index: usize) -> Vec<JobState> {
        let job = self.shell.job_id(self.build, index);
        let told = self.shell.events.iter().filter_map(|event| match event {
            BuildEvent::JobChanged { job: id, state, .. } | BuildEvent::JobFinished { job: id, state, .. } => {
                (*id == job).then_some(*state)
            }
            _ => None,
        });
        let mut states: Vec<JobState> = told.collect();
        let last = self.shell.job(self.build, index).state;
        states.extend(self.shell.take_effects().into_iter().filter_map(|effect| match effect {
            Effect::Progress(Progress::Attempt { job: id, job_state, .. }) => (id == job).then_some(job_state),
            _ => None,
        }));
        states.push(last);
        states
    }

    fn state(&self) -> (BuildState, Option<BlockedState>) {
        let row = self.shell.build(self.build);
        (row.state, row.blocked)
    }
}

fn cancel_job(index: usize) -> impl Fn(&Shell, BuildId) -> Request {
    move |shell, build| Request::CancelJob { job: shell.job_id(build, index), grace_ms: None }
}

fn cancel_build(_: &Shell, build: BuildId) -> Request {
    Request::CancelBuild { build, detail: "enough".to_owned() }
}

fn unblock(index: usize) -> impl Fn(&Shell, BuildId) -> Request {
    move |shell, build| Request::Unblock { job: shell.job_id(build, index), answers: Default::default() }
}

fn nobody() -> Node {
    step_with("nobody", |command| command.queue = "nobody".to_owned())
}

fn gate() -> Node {
    block("gate", Vec::new())
}

/// The states of reference 16.1 that are not reached here: `pending` and `limiting` are over within the commit that makes
/// them; platforms' quotas and stack controllers do not exist; `finished` is `passed` or `failed` in our words.
const ELSEWHERE: [JobState; 2] = [JobState::Pending, JobState::Limiting];

#[test]
fn every_job_state_of_the_reference_is_reached_as_its_row_says() {
    use JobState::*;
    let quick = || step_with("quick", |command| command.timeout_ms = Some(1_000));
    let rows: [(JobState, &str, Vec<JobState>); 20] = [
        (Waiting, "dependencies not yet done", Stage::of(vec![step("a"), after(step("b"), &[0])]).reached(1)),
        (
            WaitingFailed,
            "a dependency failed, will not run",
            Stage::of(vec![step("a"), after(step("b"), &[0]), nobody()]).run(&[1]).reached(1),
        ),
        (Blocked, "waiting for a person", Stage::of(vec![gate()]).reached(0)),
        (
            BlockedFailed,
            "cannot be reached because of a failure",
            Stage::of(vec![step("a"), after(gate(), &[0]), nobody()]).run(&[1]).reached(1),
        ),
        (Unblocked, "submitted", Stage::of(vec![gate(), nobody()]).ask(unblock(0)).reached(0)),
        (
            UnblockedFailed,
            "submitted, then the build failed",
            Stage::of(vec![gate(), after(step("a"), &[0])]).ask(unblock(0)).run(&[1]).reached(0),
        ),
        (Limited, "waiting for a slot", Stage::of(vec![limited("a", "g", 1), limited("b", "g", 1)]).reached(1)),
        (Scheduled, "ready for an agent", Stage::of(vec![nobody()]).reached(0)),
        (Assigned, "given to an agent", Stage::of(vec![step("a")]).reached(0)),
        (Accepted, "taken by it", Stage::of(vec![step("a")]).start().reached(0)),
        (Running, "the start call arrived", Stage::of(vec![step("a")]).start().reached(0)),
        (Passed, "finished", Stage::of(vec![step("a"), nobody()]).run(&[0]).reached(0)),
        (Failed, "finished", Stage::of(vec![step("a"), nobody()]).run(&[7]).reached(0)),
        (Canceling, "", Stage::of(vec![step("a")]).start().ask(cancel_job(0)).reached(0)),
        (Canceled, "", Stage::of(vec![nobody(), step("a")]).ask(cancel_job(0)).reached(0)),
        (
            TimingOut,
            "",
            Stage::of(vec![quick(), nobody()]).start().passes(1_000 + limits::CANCEL_GRACE_MS + 60_000).reached(0),
        ),
        (TimedOut, "", Stage::of(vec![step("a"), nobody()]).ended_by(CauseKind::Timeout).reached(0)),
        (Skipped, "by `skip`", Stage::of(vec![Node { skip: Some("no".to_owned()), ..step("a") }, nobody()]).reached(0)),
        (
            Broken,
            "configuration excludes it",
            Stage::of(vec![Node { broken: Some(windlass_pipeline::graph::Broken::If), ..step("a") }, nobody()])
                .reached(0),
        ),
        (Expired, "never taken in time", Stage::of(vec![nobody(), gate()]).passes(limits::JOB_EXPIRY_MS).reached(0)),
    ];
    for (state, meaning, reached) in &rows {
        assert!(reached.contains(state), "{state:?}: {meaning}; reached {reached:?}");
        assert!(!reached.iter().any(|other| ELSEWHERE.contains(other)), "nobody is told of {reached:?}");
    }
}

/// A build's end stays where it is looked for.
fn is(stage: Stage, state: BuildState, rule: &str) {
    assert_eq!(stage.state().0, state, "reference 16.3, {rule}");
}

#[test]
fn a_canceled_build_is_canceling_while_a_job_runs_and_canceled_then() {
    let running = Stage::of(vec![step("a"), nobody()]).start().ask(cancel_build);
    is(running, BuildState::Canceling, "rule 1");
    is(Stage::of(vec![nobody(), gate()]).ask(cancel_build), BuildState::Canceled, "rule 1, nothing runs");
    // Even where something had failed before.
    let failed = Stage::of(vec![step("a"), nobody()]).run(&[1]).ask(cancel_build);
    is(failed, BuildState::Canceled, "rule 1 goes before rule 4");
}

#[test]
fn a_build_that_a_newer_one_replaces_before_it_starts_is_skipped() {
    let mut stage = Stage::of(Vec::new());
    let mut submit = || {
        let mut nodes = graph(vec![nobody()]);
        nodes.supersede = Supersede::Waiting;
        stage.shell.submit_with(nodes, |submit| submit.branch = "main".to_owned())
    };
    let (older, newer) = (submit(), submit());
    assert_eq!(stage.shell.build(older).state, BuildState::Skipped, "reference 16.3, rule 2");
    assert_eq!(stage.shell.build(newer).state, BuildState::Scheduled);
}

#[test]
fn a_build_s_state_follows_from_its_jobs_by_the_first_rule_that_fits() {
    use BuildState::{Failed, Failing, NotRun, Passed, Running, Scheduled};
    let skipped = || Node { skip: Some("no".to_owned()), ..step("s") };
    let broken = || Node { broken: Some(Broken::If), ..step("b") };
    let soft = || step_with("soft", |command| command.soft_fail = SoftFail::Always);
    let again = |limit| {
        step_with("again", move |command| {
            command.retry = vec![retry_on(windlass_pipeline::graph::StatusMatch::Any, limit)];
        })
    };
    for (rule, state, stage) in [
        ("rule 3: no jobs at all", NotRun, Stage::of(Vec::new())),
        ("rule 3: every job skipped or broken, waits aside", NotRun, Stage::of(vec![skipped(), wait(), broken()])),
        ("rule 4: no job has started", Scheduled, Stage::of(vec![nobody(), skipped()])),
        ("rule 4: a job runs", Running, Stage::of(vec![step("a")]).start()),
        ("rule 4: one has run, another may still", Running, Stage::of(vec![step("a"), nobody()]).run(&[0])),
        ("rule 4: a hard failure exists", Failing, Stage::of(vec![step("a"), nobody()]).run(&[1])),
        ("rule 4: a soft one does not count", Running, Stage::of(vec![soft(), nobody()]).run(&[1])),
        ("rule 4: nor one that is tried again", Running, Stage::of(vec![again(1)]).run(&[1])),
        ("rule 6: not any more when it was tried enough", Failed, Stage::of(vec![again(1)]).run(&[1, 1])),
        ("rule 4: timed out", Failing, Stage::of(vec![step("a"), nobody()]).ended_by(CauseKind::Timeout)),
        ("rule 4: canceled one by one", Failing, Stage::of(vec![nobody(), nobody()]).ask(cancel_job(0))),
        ("rule 6: all done, a hard failure", Failed, Stage::of(vec![step("a"), skipped()]).run(&[1])),
        ("rule 6: all done, none", Passed, Stage::of(vec![step("a"), broken()]).run(&[0])),
        ("rule 6: soft failures only", Passed, Stage::of(vec![soft()]).run(&[1])),
        (
            "rule 6: waiting_failed does not count by itself",
            Passed,
            Stage::of(vec![soft(), after(step("b"), &[0])]).run(&[1, 0]),
        ),
    ] {
        is(stage, state, rule);
    }
}

#[test]
fn a_build_at_a_gate_is_shown_as_its_blocked_state_says() {
    let at = |state| {
        let gate = Gate { blocked_state: state, ..Gate::default() };
        Node { key: Some("gate".to_owned()), ..Node::new(NodeKind::Block(Box::new(gate))) }
    };
    for blocked in [BlockedState::Passed, BlockedState::Failed, BlockedState::Running] {
        let stage = Stage::of(vec![step("a"), after(at(blocked), &[0])]).run(&[0]);
        assert_eq!(stage.state(), (BuildState::Running, Some(blocked)), "reference 16.3, rule 5");
    }
    let running = Stage::of(vec![step("a"), gate()]).start();
    assert_eq!(running.state(), (BuildState::Running, None), "rule 4 goes before rule 5");
    let failed = Stage::of(vec![step("a"), gate()]).run(&[1]);
    assert_eq!(failed.state().0, BuildState::Failed, "rule 5: with hard failures it is failed");
    assert_eq!(failed.shell.states(failed.build)[1], JobState::BlockedFailed);
}

#[test]
fn a_job_that_is_run_again_takes_its_build_back() {
    let mut stage = Stage::of(vec![step("a")]).run(&[1]);
    assert_eq!(stage.state().0, BuildState::Failed);
    let build = stage.build;
    let rows = stage.shell.history[&build].clone();
    stage.shell.request(Request::RetryBuild { build, rows: Some(Box::new(rows)) }).unwrap();
    let row = stage.shell.build(build);
    assert_eq!((row.state, row.finished_at), (BuildState::Running, None), "reference 16.3, at its end");
    is(stage.run(&[0]), BuildState::Passed, "rule 6");
}
