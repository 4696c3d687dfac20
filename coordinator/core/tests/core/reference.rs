//! The reference's tables of states, row by row: each job state (16.1) is reached, and a build's state follows from its
//! jobs' by the first rule that fits (16.3).

use windlass_coordinator_core::Effect;
use windlass_coordinator_core::effect::Progress;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildEvent, BuildState, JobState};
use windlass_pipeline::graph::{
    BlockedState, Broken, Dependency, Gate, Node, NodeKind, SoftFail, StatusMatch, Supersede, Trigger,
};
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
        (Broken, "configuration excludes it", Stage::of(vec![broken(), nobody()]).reached(0)),
        (Expired, "never taken in time", Stage::of(vec![nobody(), gate()]).passes(limits::JOB_EXPIRY_MS).reached(0)),
    ];
    let named: std::collections::BTreeSet<JobState> = rows.iter().map(|row| row.0).chain(ELSEWHERE).collect();
    assert_eq!(named.len(), 22, "a state without a row: all that there are are {named:?}");
    for (state, meaning, reached) in &rows {
        assert!(reached.contains(state), "{state:?}: {meaning}; reached {reached:?}");
        assert!(!reached.iter().any(|other| ELSEWHERE.contains(other)), "nobody is told of {reached:?}");
    }
}

fn at_a_gate(blocked_state: BlockedState) -> Stage {
    let gate = Node {
        key: Some("gate".to_owned()),
        ..Node::new(NodeKind::Block(Box::new(Gate { blocked_state, ..Gate::default() })))
    };
    Stage::of(vec![step("a"), after(gate, &[0])]).run(&[0])
}

/// A build that a newer one replaced, and the newer one.
fn superseded() -> [Stage; 2] {
    [0, 1].map(|which| {
        let mut stage = Stage::of(Vec::new());
        let mut submit = || {
            let mut nodes = graph(vec![nobody()]);
            nodes.supersede = Supersede::Waiting;
            stage.shell.submit_with(nodes, |submit| submit.branch = "main".to_owned())
        };
        let builds = [submit(), submit()];
        Stage { build: builds[which], ..stage }
    })
}

/// A build that had failed and is run again.
fn again() -> Stage {
    let mut stage = Stage::of(vec![step("a")]).run(&[1]);
    assert_eq!(stage.state().0, BuildState::Failed);
    let rows = Some(Box::new(stage.shell.history[&stage.build].clone()));
    stage.shell.request(Request::RetryBuild { build: stage.build, rows }).unwrap();
    stage
}

fn skipped() -> Node {
    Node { skip: Some("no".to_owned()), ..step("s") }
}

fn broken() -> Node {
    Node { broken: Some(Broken::If), ..step("b") }
}

fn soft() -> Node {
    step_with("soft", |command| command.soft_fail = SoftFail::Always)
}

fn tried(limit: u32) -> Node {
    step_with("again", move |command| command.retry = vec![retry_on(StatusMatch::Any, limit)])
}

/// To a pipeline that does not exist.
fn astray() -> Node {
    let trigger = Trigger { pipeline: "nowhere".to_owned(), ..Trigger::default() };
    Node::new(NodeKind::Trigger(Box::new(trigger)))
}

fn orphan() -> Node {
    let later = Dependency { key: "later".to_owned(), allow_failure: false };
    Node { unresolved: vec![later], ..step("orphan") }
}

/// A job that is canceled one by one fails no build where its step fails softly, and what waits for it never runs.
fn kept_back() -> Stage {
    let soft = step_with("soft", |command| {
        (command.soft_fail, command.queue) = (SoftFail::Always, "nobody".to_owned());
    });
    let stage = Stage::of(vec![soft, after(step("b"), &[0])]).ask(cancel_job(0));
    assert_eq!(stage.shell.states(stage.build), [JobState::Canceled, JobState::WaitingFailed]);
    stage
}

/// One row of the table: the rule with what is special about this case of it, the state, whether the build is shown as
/// blocked, and how it comes to it.
type Row = (&'static str, BuildState, Option<BlockedState>, Stage);

/// What rules 1 to 3 say.
fn as_a_whole() -> Vec<Row> {
    use BuildState::{Canceled, Canceling, NotRun, Scheduled, Skipped};
    let failed = || Stage::of(vec![step("a"), nobody()]).run(&[1]);
    let [older, newer] = superseded();
    vec![
        (
            "1: canceled, while a job runs",
            Canceling,
            None,
            Stage::of(vec![step("a"), nobody()]).start().ask(cancel_build),
        ),
        ("1: canceled, nothing runs", Canceled, None, Stage::of(vec![nobody(), gate()]).ask(cancel_build)),
        ("1: goes before rule 4", Canceled, None, failed().ask(cancel_build)),
        ("2: replaced before it started", Skipped, None, older),
        ("2: the one that replaces it", Scheduled, None, newer),
        ("3: no jobs at all", NotRun, None, Stage::of(Vec::new())),
        ("3: all skipped or broken, waits aside", NotRun, None, Stage::of(vec![skipped(), wait(), broken()])),
    ]
}

/// What rule 4 says.
fn under_way() -> Vec<Row> {
    use BuildState::{Failing, Running, Scheduled};
    vec![
        ("4: no job has started", Scheduled, None, Stage::of(vec![nobody(), skipped()])),
        ("4: a job runs", Running, None, Stage::of(vec![step("a")]).start()),
        ("4: one has run, another may still", Running, None, Stage::of(vec![step("a"), nobody()]).run(&[0])),
        ("4: a soft failure does not count", Running, None, Stage::of(vec![soft(), nobody()]).run(&[1])),
        ("4: nor one that is tried again", Running, None, Stage::of(vec![tried(1)]).run(&[1])),
        ("4: goes before rule 5", Running, None, Stage::of(vec![step("a"), gate()]).start()),
        ("4: failed", Failing, None, Stage::of(vec![step("a"), nobody()]).run(&[1])),
        ("4: tried often enough", Failing, None, Stage::of(vec![tried(1), nobody()]).run(&[1, 1])),
        ("4: timed out", Failing, None, Stage::of(vec![step("a"), nobody()]).ended_by(CauseKind::Timeout)),
        ("4: canceled one by one", Failing, None, Stage::of(vec![nobody(), nobody()]).ask(cancel_job(0))),
        ("4: a broken trigger", Failing, None, Stage::of(vec![astray(), nobody()])),
        ("at its end: run again", Running, None, again()),
    ]
}

/// What rules 5 and 6 say.
fn at_rest() -> Vec<Row> {
    use BuildState::{Failed, Passed, Running};
    let gated = |state| (Running, Some(state), at_a_gate(state));
    let mut rows: Vec<Row> = [BlockedState::Passed, BlockedState::Failed, BlockedState::Running]
        .into_iter()
        .map(gated)
        .map(|(state, blocked, stage)| ("5: a gate waits", state, blocked, stage))
        .collect();
    rows.extend([
        ("5: with a hard failure", Failed, None, Stage::of(vec![step("a"), gate()]).run(&[1])),
        ("6: a hard failure", Failed, None, Stage::of(vec![step("a"), skipped()]).run(&[1])),
        ("6: tried often enough", Failed, None, Stage::of(vec![tried(1)]).run(&[1, 1])),
        ("6: timed out", Failed, None, Stage::of(vec![step("a")]).ended_by(CauseKind::Timeout)),
        ("6: expired", Failed, None, Stage::of(vec![nobody()]).passes(limits::JOB_EXPIRY_MS)),
        ("6: canceled one by one", Failed, None, Stage::of(vec![nobody()]).ask(cancel_job(0))),
        ("6: a broken trigger", Failed, None, Stage::of(vec![astray()])),
        ("6: an unknown dependency", Failed, None, Stage::of(vec![step("a"), orphan()]).run(&[0])),
        ("6: no failure", Passed, None, Stage::of(vec![step("a"), broken()]).run(&[0])),
        ("6: soft ones only", Passed, None, Stage::of(vec![soft()]).run(&[1])),
        ("6: after a gate", Passed, None, at_a_gate(BlockedState::Failed).ask(unblock(1))),
        ("6: run again, and passed", Passed, None, again().run(&[0])),
        ("6: waiting_failed does not count by itself", Passed, None, kept_back()),
    ]);
    rows
}

#[test]
fn a_build_s_state_follows_from_its_jobs_by_the_first_rule_that_fits() {
    let rows: Vec<Row> = [as_a_whole(), under_way(), at_rest()].into_iter().flatten().collect();
    for (rule, state, blocked, stage) in &rows {
        assert_eq!(stage.state(), (*state, *blocked), "reference 16.3, rule {rule}");
        let row = stage.shell.build(stage.build);
        assert_eq!(row.finished_at.is_some(), state.is_final(), "reference 16.2, {rule}");
    }
    // All states of 16.2; `creating` is over within the commit that makes the build.
    let seen: std::collections::BTreeSet<BuildState> = rows.iter().map(|row| row.1).collect();
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn a_gate_behind_a_failure_is_out_of_reach() {
    let failed = Stage::of(vec![step("a"), gate()]).run(&[1]);
    assert_eq!(failed.shell.states(failed.build)[1], JobState::BlockedFailed, "reference 16.3, rule 5");
}
