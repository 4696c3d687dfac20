//! The tables of reference 6.3 and 16.3, row by row.

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildState, JobState};
use windlass_pipeline::graph::{Broken, Dependency, Edge, Node, NodeKind, SoftFail};
use windlass_protocol::{AgentId, BuildId, CauseKind, limits};

use crate::kit::*;

/// How the step that others depend on ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Passes,
    SoftFails,
    Broken,
    Skipped,
    Submitted,
    Waits,
    Fails,
    TimesOut,
    Expires,
    NeverRuns,
    Canceled,
}

/// How the edge to it looks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Plain,
    AllowFailure,
    AllowDependencyFailure,
}

fn dependency(end: End) -> Vec<Node> {
    match end {
        End::SoftFails => vec![step_with("d", |command| command.soft_fail = SoftFail::Always)],
        End::Broken => vec![Node { broken: Some(Broken::If), ..step("d") }],
        End::Skipped => vec![Node { skip: Some("not today".to_owned()), ..step("d") }],
        End::Submitted | End::Waits => vec![block("d", Vec::new())],
        // What it depends on stands after it, and fails.
        End::NeverRuns => vec![after(step("d"), &[1]), step("before")],
        End::Passes | End::Fails | End::TimesOut | End::Expires | End::Canceled => vec![step("d")],
    }
}

fn play(shell: &mut Shell, build: BuildId, end: End) {
    let agent = |shell: &mut Shell| shell.agent("one", 1);
    let run = |shell: &mut Shell, agent: AgentId, status: i32| {
        let offer = shell.offer(agent);
        shell.run(agent, offer, status);
    };
    let job = shell.job_id(build, 0);
    match end {
        End::Broken | End::Skipped | End::Waits => {}
        End::Submitted => drop(shell.request(Request::Unblock { job, answers: Default::default() }).unwrap()),
        End::Canceled => drop(shell.request(Request::CancelJob { job, grace_ms: None }).unwrap()),
        End::Expires => shell.pass(limits::JOB_EXPIRY_MS),
        End::TimesOut => {
            let agent = agent(shell);
            let offer = shell.offer(agent);
            shell.start(agent, offer);
            let outcome = shell.ended_by(CauseKind::Timeout);
            shell.report(agent, offer, outcome);
            shell.settle(offer);
        }
        End::Passes | End::SoftFails | End::Fails | End::NeverRuns => {
            let agent = agent(shell);
            run(shell, agent, i32::from(end != End::Passes));
        }
    }
}

#[test]
fn a_dependents_state_follows_from_what_it_depends_on_row_by_row() {
    use End::*;
    use JobState::{Assigned, Blocked, BlockedFailed, Passed, Scheduled, Waiting, WaitingFailed};
    // end, way, state of a command, a wait and a gate that depend on it. A command is ready where an agent may have it.
    let table = [
        (Passes, Way::Plain, [Scheduled, Passed, Blocked]),
        (SoftFails, Way::Plain, [Scheduled, Passed, Blocked]),
        (Broken, Way::Plain, [Scheduled, Passed, Blocked]),
        (Skipped, Way::Plain, [Scheduled, Passed, Blocked]),
        (Submitted, Way::Plain, [Scheduled, Passed, Blocked]),
        (Waits, Way::Plain, [Waiting, Waiting, Waiting]),
        (Waits, Way::AllowFailure, [Waiting, Waiting, Waiting]),
        (Fails, Way::Plain, [WaitingFailed, WaitingFailed, BlockedFailed]),
        (Fails, Way::AllowFailure, [Scheduled, Passed, Blocked]),
        (Fails, Way::AllowDependencyFailure, [Scheduled, Passed, Blocked]),
        (TimesOut, Way::Plain, [WaitingFailed, WaitingFailed, BlockedFailed]),
        (TimesOut, Way::AllowFailure, [Scheduled, Passed, Blocked]),
        (TimesOut, Way::AllowDependencyFailure, [Scheduled, Passed, Blocked]),
        (Expires, Way::Plain, [WaitingFailed, WaitingFailed, BlockedFailed]),
        (Expires, Way::AllowFailure, [Scheduled, Passed, Blocked]),
        (Expires, Way::AllowDependencyFailure, [Scheduled, Passed, Blocked]),
        (NeverRuns, Way::Plain, [WaitingFailed, WaitingFailed, BlockedFailed]),
        (NeverRuns, Way::AllowFailure, [Scheduled, Passed, Blocked]),
        (NeverRuns, Way::AllowDependencyFailure, [Scheduled, Passed, Blocked]),
        (Canceled, Way::Plain, [WaitingFailed, WaitingFailed, BlockedFailed]),
        (Canceled, Way::AllowFailure, [WaitingFailed, WaitingFailed, BlockedFailed]),
        (Canceled, Way::AllowDependencyFailure, [WaitingFailed, WaitingFailed, BlockedFailed]),
    ];
    for (end, way, states) in table {
        for (kind, expected) in states.into_iter().enumerate() {
            let mut shell = Shell::new();
            let mut nodes = dependency(end);
            let last = nodes.len();
            let mut node = [step("x"), wait(), block("x", Vec::new())][kind].clone();
            node.depends_on = vec![Edge { node: 0, allow_failure: way == Way::AllowFailure }];
            node.allow_dependency_failure = way == Way::AllowDependencyFailure;
            nodes.push(node);
            // Keeps the build from its end.
            nodes.push(step_with("other", |command| command.queue = "nobody".to_owned()));
            nodes.push(Node::new(NodeKind::Input(Box::default())));
            let build = shell.submit(graph(nodes));
            play(&mut shell, build, end);
            let got = match shell.states(build)[last] {
                Assigned => Scheduled,
                got => got,
            };
            // With the deadline of a queued job everything else has expired too, and a failed build has no open gates.
            let expected = match (end, expected) {
                (Expires, Blocked) => BlockedFailed,
                (_, expected) => expected,
            };
            assert_eq!(got, expected, "{end:?} {way:?}, dependent {kind}");
        }
    }
}

#[test]
fn chains_of_waits_end_as_the_reference_says() {
    let wait_on = |continue_on_failure| Node::new(NodeKind::Wait { continue_on_failure });
    let edge = |node, allow_failure| Edge { node, allow_failure };
    // A; wait; B; wait continue_on_failure; C, with A failed: C does not run.
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let second = Node { depends_on: vec![edge(1, false), edge(2, true)], ..wait_on(true) };
    let nodes = vec![step("a"), after(wait_on(false), &[0]), after(step("b"), &[1]), second, after(step("c"), &[3])];
    let build = shell.submit(graph(nodes));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 1);
    assert_eq!(shell.states(build)[1..], [JobState::WaitingFailed; 4]);
    assert_eq!(shell.build(build).state, BuildState::Failed);
    // With only waits that continue, everything runs.
    let first = Node { depends_on: vec![edge(0, true)], ..wait_on(true) };
    let second = Node { depends_on: vec![edge(1, false), edge(2, true)], ..wait_on(true) };
    let nodes = vec![step("a"), first, after(step("b"), &[1]), second, after(step("c"), &[3])];
    let build = shell.submit(graph(nodes));
    for status in [1, 1, 0] {
        let offer = shell.offer(agent);
        shell.run(agent, offer, status);
    }
    use JobState::{Failed, Passed};
    assert_eq!(shell.states(build), [Failed, Passed, Failed, Passed, Passed]);
    assert_eq!(shell.build(build).state, BuildState::Failed);
}

fn unresolved(label: &str, key: &str) -> Node {
    Node { unresolved: vec![Dependency { key: key.to_owned(), allow_failure: true }], ..step(label) }
}

#[test]
fn a_step_that_waits_for_a_key_that_nobody_brings_fails_the_build_when_nothing_else_can_run() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a"), unresolved("b", "later"), after_even_if(step("c"), &[1])]));
    assert_eq!(shell.states(build)[1], JobState::Waiting);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    let row = shell.job(build, 1);
    assert_eq!(row.state, JobState::WaitingFailed);
    let cause = row.cause.clone().unwrap();
    assert_eq!((cause.kind, cause.detail.contains("`later`")), (CauseKind::DependencyFailed, true));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(shell.states(build), [JobState::Passed, JobState::WaitingFailed, JobState::Passed]);
    assert_eq!(shell.build(build).state, BuildState::Failed);
}

#[test]
fn a_gate_that_may_be_opened_keeps_unknown_keys_waiting() {
    let mut shell = Shell::new();
    let build = shell.submit(graph(vec![block("gate", Vec::new()), unresolved("b", "later")]));
    assert_eq!(shell.states(build), [JobState::Blocked, JobState::Waiting]);
    let job = shell.job_id(build, 0);
    shell.request(Request::Unblock { job, answers: Default::default() }).unwrap();
    assert_eq!(shell.states(build), [JobState::UnblockedFailed, JobState::WaitingFailed]);
    assert_eq!(shell.build(build).state, BuildState::Failed);
}

#[test]
fn a_build_of_which_nothing_was_to_be_run_is_not_run() {
    let gone = || Node { broken: Some(Broken::Branches), ..step("a") };
    let skipped = || Node { skip: Some("no".to_owned()), ..step("b") };
    let merged = || Node { broken: Some(Broken::Merged), ..wait() };
    for nodes in [vec![], vec![gone()], vec![skipped(), wait(), gone()], vec![gone(), merged()]] {
        let mut shell = Shell::new();
        let build = shell.submit(graph(nodes));
        assert_eq!(shell.build(build).state, BuildState::NotRun);
    }
    let mut shell = Shell::new();
    let both = Node { broken: Some(Broken::If), ..skipped() };
    let build = shell.submit(graph(vec![both]));
    assert_eq!(shell.states(build), [JobState::Broken], "a condition outranks `skip` (reference 6.5)");
}

#[test]
fn steps_that_ask_for_it_end_when_the_build_turns_failing() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 3);
    let ends = |label| step_with(label, |command| command.cancel_on_build_failing = true);
    let nodes = vec![step("a"), ends("runs"), step("goes on"), after(ends("waits"), &[2]), after(step("z"), &[2])];
    let build = shell.submit(graph(nodes));
    let offers = shell.offers(agent);
    let offers: Vec<_> = offers.into_iter().map(|(epoch, spec)| (spec.attempt, epoch)).collect();
    offers.iter().for_each(|offer| shell.start(agent, *offer));
    shell.report(agent, offers[0], shell.exit(1));
    shell.settle(offers[0]);
    use JobState::{Assigned, Canceled, Canceling, Failed, Passed, Waiting};
    assert_eq!(shell.states(build), [Failed, Canceling, Assigned, Canceled, Waiting]);
    assert_eq!(shell.build(build).state, BuildState::Failing);
    shell.report(agent, offers[1], shell.ended_by(CauseKind::Canceled));
    shell.settle(offers[1]);
    shell.report(agent, offers[2], shell.exit(0));
    shell.settle(offers[2]);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(shell.states(build), [Failed, Canceled, Passed, Canceled, Passed]);
    assert_eq!(shell.build(build).state, BuildState::Failed, "not canceled");
}

#[test]
fn a_soft_failure_or_a_retry_ends_nothing() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    let ends = step_with("ends", |command| command.cancel_on_build_failing = true);
    let soft = step_with("soft", |command| command.soft_fail = SoftFail::Always);
    let build = shell.submit(graph(vec![soft, ends]));
    let offers = shell.offers(agent);
    let offer = (offers[0].1.attempt, offers[0].0);
    shell.run(agent, offer, 1);
    assert_eq!(shell.states(build), [JobState::Failed, JobState::Assigned]);
}
