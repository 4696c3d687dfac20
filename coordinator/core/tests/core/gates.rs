//! Gates: who opens them, with which answers, and what a build is while it waits at one (reference 5.2, 5.3, 16.3).

use std::collections::BTreeMap;

use windlass_coordinator_core::explain::Why;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildState, JobRefused, JobState};
use windlass_coordinator_core::{Rejected, Reply};
use windlass_pipeline::graph::{BlockedState, Choice, Field, FieldKind, Gate, Node, NodeKind};
use windlass_protocol::limits::{self, OPTIONS_MAX};
use windlass_protocol::{BuildId, JobId};

use crate::kit::*;

fn unblock(shell: &mut Shell, job: JobId, answers: &[(&str, &[&str])]) -> Result<Reply, Rejected> {
    let answers = answers.iter().map(|(key, values)| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        ((*key).to_owned(), values)
    });
    let answers: BTreeMap<String, Vec<String>> = answers.collect();
    shell.request(Request::Unblock { job, answers })
}

fn text(key: &str, required: bool, default: Option<&str>, format: Option<&str>) -> Field {
    let (default, format) = (default.map(str::to_owned), format.map(str::to_owned));
    Field { key: key.to_owned(), label: None, hint: None, required, kind: FieldKind::Text { default, format } }
}

fn select(key: &str, required: bool, multiple: bool, default: &[&str]) -> Field {
    let options = ["a", "b", "c"].map(|value| Choice {
        label: value.to_uppercase(),
        value: value.to_owned(),
        hint: None,
        required: false,
    });
    let default = default.iter().map(|value| (*value).to_owned()).collect();
    let kind = FieldKind::Select { options: options.to_vec(), multiple, default };
    Field { key: key.to_owned(), label: None, hint: None, required, kind }
}

fn blocked_state(mut node: Node, state: BlockedState) -> Node {
    if let NodeKind::Block(gate) = &mut node.kind {
        gate.blocked_state = state;
    }
    node
}

fn pass(shell: &mut Shell, agent: windlass_protocol::AgentId, status: i32) {
    let offer = shell.offer(agent);
    shell.run(agent, offer, status);
}

#[test]
fn what_waits_behind_a_block_runs_once_somebody_opens_it_and_learns_who_and_what() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let fields = vec![text("release", true, None, None), text("note", false, None, None)];
    let build = shell.submit(graph(vec![step("a"), after(block("gate", fields), &[0]), after(step("b"), &[1])]));
    let gate = shell.job_id(build, 1);
    let early = unblock(&mut shell, gate, &[]);
    assert_eq!(early, Err(Rejected::Job { job: gate, why: JobRefused::NotReached }));
    pass(&mut shell, agent, 0);
    assert_eq!(shell.states(build), [JobState::Passed, JobState::Blocked, JobState::Waiting]);
    assert_eq!(shell.build(build).blocked, Some(BlockedState::Passed));
    assert_eq!(shell.core.explain(gate), Some(Why::Blocked));
    shell.restart();
    shell.hello(agent, 1, Vec::new());
    assert_eq!(shell.offers(agent).len(), 0);
    unblock(&mut shell, gate, &[("release", &["v1\r\nv2"])]).unwrap();
    let row = shell.job(build, 1).unblocked.clone().unwrap();
    assert_eq!((row.by, row.at), (actor(), shell.now.wall));
    assert_eq!(shell.audits.last().unwrap(), "job.unblock");
    let again = unblock(&mut shell, gate, &[("release", &["v3"])]);
    assert_eq!(again, Err(Rejected::Job { job: gate, why: JobRefused::Unblocked { by: "ada".to_owned() } }));
    let meta_data = &shell.build(build).meta_data;
    assert_eq!(meta_data["release"], "v1\nv2", "line ends are normalised");
    assert_eq!(meta_data["note"], "", "an optional answer that is left out is stored as empty");
    assert_eq!((shell.build(build).state, shell.build(build).blocked), (BuildState::Running, None));
    let (_, spec) = shell.offers(agent).remove(0);
    let unblocker = spec.env.iter().find(|(name, _)| name == "BUILDKITE_UNBLOCKER").unwrap();
    assert_eq!(unblocker.1, "ada");
}

#[test]
fn answers_are_what_the_fields_ask_for_or_are_refused_and_change_nothing() {
    // field, answer, what is stored or why not
    let required = || text("f", true, None, None);
    type Row = (Field, Option<&'static [&'static str]>, Result<&'static str, &'static str>);
    let table: Vec<Row> = vec![
        (required(), Some(&["x"]), Ok("x")),
        (required(), Some(&[""]), Err("it needs a value")),
        (required(), None, Err("it needs a value")),
        (required(), Some(&["x", "y"]), Err("it takes one value")),
        (text("f", true, Some("d"), None), None, Ok("d")),
        (text("f", true, Some("d"), None), Some(&[""]), Err("it needs a value")),
        (text("f", false, None, None), Some(&[]), Ok("")),
        (select("f", true, false, &[]), Some(&["b"]), Ok("b")),
        (select("f", true, false, &[]), Some(&["z"]), Err("`z` is not one of a, b, c")),
        (select("f", true, false, &[]), Some(&["a", "b"]), Err("it takes one value")),
        (select("f", true, false, &["c"]), None, Ok("c")),
        (select("f", true, true, &[]), Some(&["c", "a"]), Ok("a\nc")),
        (select("f", true, true, &[]), Some(&[]), Err("it needs a value")),
        (select("f", false, true, &["a"]), Some(&[""]), Ok("")),
    ];
    for (field, given, expected) in table {
        let mut shell = Shell::new();
        let shown = format!("{field:?} {given:?}");
        let build = shell.submit(graph(vec![block("gate", vec![field])]));
        let gate = shell.job_id(build, 0);
        let answers: Vec<_> = given.map(|values| ("f", values)).into_iter().collect();
        match (unblock(&mut shell, gate, &answers), expected) {
            (Ok(_), Ok(stored)) => assert_eq!(shell.build(build).meta_data["f"], stored, "{shown}"),
            (Err(Rejected::Answer { field, why }), Err(expected)) => {
                assert!(field == "f" && why.contains(expected), "{shown}: {why}");
                assert_eq!(shell.states(build), [JobState::Blocked], "{shown}");
                assert!(shell.build(build).meta_data.is_empty());
            }
            (got, expected) => panic!("{shown}: {got:?}, not {expected:?}"),
        }
    }
}

#[test]
fn many_answers_to_a_question_with_many_options_cost_the_core_little() {
    let options = |count: usize| {
        (0..count).map(|n| Choice { label: String::new(), value: format!("v{n}"), hint: None, required: false })
    };
    let kind = FieldKind::Select { options: options(OPTIONS_MAX).collect(), multiple: true, default: Vec::new() };
    let field = Field { key: "f".to_owned(), label: None, hint: None, required: true, kind };
    let mut shell = Shell::new();
    let build = shell.submit(graph(vec![block("gate", vec![field])]));
    let job = shell.job_id(build, 0);
    let values: Vec<String> = (0..OPTIONS_MAX).map(|n| format!("v{n}")).collect();
    let too_many = Request::Unblock { job, answers: [("f".to_owned(), [&values[..], &values[..1]].concat())].into() };
    assert!(matches!(shell.request(too_many), Err(Rejected::Answer { .. })));
    let unknown = Request::Unblock { job, answers: [("f".to_owned(), vec!["none".to_owned()])].into() };
    let Err(Rejected::Answer { why, .. }) = shell.request(unknown) else { panic!("it was taken") };
    assert!(why.len() < 1_000, "{why}");
    assert_eq!(
        shell.request(Request::Unblock { job, answers: [("f".to_owned(), values.clone())].into() }),
        Ok(Reply::Done)
    );
    assert_eq!(shell.build(build).meta_data["f"], values.join("\n"));
}

#[test]
fn no_format_however_large_costs_the_core_anything() {
    let mut shell = Shell::new();
    let build = shell.submit(graph(vec![block("gate", vec![text("f", false, None, Some("a{1000}{1000}{1000}"))])]));
    let gate = shell.job_id(build, 0);
    unblock(&mut shell, gate, &[("f", &["b"])]).unwrap();
    assert_eq!(shell.build(build).meta_data["f"], "b");
}

#[test]
fn an_answer_to_a_question_that_was_not_asked_or_that_is_too_long_is_refused() {
    let mut shell = Shell::new();
    let build = shell.submit(graph(vec![block("gate", vec![text("f", false, None, None)])]));
    let gate = shell.job_id(build, 0);
    assert!(matches!(unblock(&mut shell, gate, &[("g", &["x"])]), Err(Rejected::Answer { .. })));
    let long = "x".repeat(limits::META_DATA_VALUE_MAX_BYTES + 1);
    assert!(matches!(unblock(&mut shell, gate, &[("f", &[&long])]), Err(Rejected::Limit { .. })));
    unblock(&mut shell, gate, &[("f", &[&long[1..]])]).unwrap();
}

#[test]
fn a_gate_with_teams_is_opened_by_those_whose_name_is_among_them_only() {
    for (team, opens) in [("ada", true), ("bob", false)] {
        let mut shell = Shell::new();
        let gate = Gate { allowed_teams: vec![team.to_owned()], ..Gate::default() };
        let build = shell.submit(graph(vec![Node::new(NodeKind::Block(Box::new(gate)))]));
        let gate = shell.job_id(build, 0);
        let answered = unblock(&mut shell, gate, &[]);
        let refused =
            Err(Rejected::Job { job: gate, why: JobRefused::NotAllowedHere { teams: vec![team.to_owned()] } });
        assert_eq!(answered, if opens { Ok(Reply::Done) } else { refused });
    }
}

#[test]
fn an_input_bars_nobody_and_the_build_waits_for_it() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let input = Node::new(NodeKind::Input(Box::default()));
    let build = shell.submit(graph(vec![input, step("a")]));
    assert_eq!(shell.states(build), [JobState::Blocked, JobState::Assigned]);
    assert_eq!(shell.build(build).blocked, None, "something runs");
    pass(&mut shell, agent, 0);
    assert_eq!(shell.build(build).blocked, Some(BlockedState::Passed));
    let gate = shell.job_id(build, 0);
    unblock(&mut shell, gate, &[]).unwrap();
    assert_eq!(shell.build(build).state, BuildState::Passed);
    assert_eq!(shell.states(build), [JobState::Unblocked, JobState::Passed]);
}

/// A build of one step that passed, then a gate of this state.
fn at_gate(shell: &mut Shell, state: BlockedState) -> BuildId {
    let gate = blocked_state(after(block("gate", Vec::new()), &[0]), state);
    let build = shell.submit(graph(vec![step("a"), gate]));
    let agent = shell.agent("one", 1);
    pass(shell, agent, 0);
    build
}

#[test]
fn a_build_at_a_gate_is_shown_as_the_gate_says_and_can_be_canceled() {
    for state in [BlockedState::Passed, BlockedState::Failed, BlockedState::Running] {
        let mut shell = Shell::new();
        let build = at_gate(&mut shell, state);
        assert_eq!(shell.build(build).blocked, Some(state));
        shell.cancel(build);
        assert_eq!(shell.states(build), [JobState::Passed, JobState::Canceled]);
        assert_eq!((shell.build(build).state, shell.build(build).blocked), (BuildState::Canceled, None));
    }
}

#[test]
fn a_gate_in_a_build_that_has_failed_is_given_up_and_comes_back_with_a_retry() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a"), block("gate", Vec::new()), after(step("b"), &[1])]));
    pass(&mut shell, agent, 1);
    assert_eq!(shell.states(build), [JobState::Failed, JobState::BlockedFailed, JobState::WaitingFailed]);
    assert_eq!(shell.build(build).state, BuildState::Failed);
    let rows = shell.history.get(&build).cloned().map(Box::new);
    shell.request(Request::RetryBuild { build, rows }).unwrap();
    assert_eq!(shell.states(build), [JobState::Assigned, JobState::Blocked, JobState::Waiting]);
    pass(&mut shell, agent, 0);
    let gate = shell.job_id(build, 1);
    unblock(&mut shell, gate, &[]).unwrap();
    pass(&mut shell, agent, 0);
    assert_eq!(shell.build(build).state, BuildState::Passed);
}

#[test]
fn a_gate_that_was_opened_says_that_its_build_failed_until_it_runs_again() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![block("gate", Vec::new()), after(step("a"), &[0])]));
    let gate = shell.job_id(build, 0);
    unblock(&mut shell, gate, &[]).unwrap();
    assert_eq!(shell.states(build), [JobState::Unblocked, JobState::Assigned]);
    pass(&mut shell, agent, 1);
    assert_eq!(shell.states(build), [JobState::UnblockedFailed, JobState::Failed]);
    let rows = shell.history.get(&build).cloned().map(Box::new);
    shell.request(Request::RetryBuild { build, rows }).unwrap();
    assert_eq!(shell.states(build), [JobState::Unblocked, JobState::Assigned]);
}
