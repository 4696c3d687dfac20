//! What an offer may hold: refused before a job is made of it; and a job that no agent can be told of costs nobody an agent.

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{JobState, Submit, Upload};
use windlass_coordinator_core::{Policy, Rejected, Reply};
use windlass_pipeline::graph::{Graph, Group, Node};
use windlass_protocol::job::Source;
use windlass_protocol::message::validate::Validate as _;
use windlass_protocol::{CauseKind, limits};

use crate::kit::*;

fn submit(shell: &mut Shell, graph: Graph, change: impl FnOnce(&mut Submit)) -> Result<Reply, Rejected> {
    shell.request(Request::Submit(Box::new(submission(graph, change))))
}

fn variable(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

#[test]
fn what_no_agent_could_be_told_is_refused_when_it_is_submitted() {
    type Change = fn(&mut Submit);
    let label = |label: &str| Node { label: label.to_owned(), ..step("one") };
    let of_command = |change: fn(&mut windlass_pipeline::graph::Command)| step_with("one", change);
    let table: Vec<(&str, Node, Change)> = vec![
        ("a NUL in the message", step("one"), |submit| submit.message = "a\0b".to_owned()),
        ("a line's end in the branch", step("one"), |submit| submit.branch = "a\nb".to_owned()),
        ("a NUL in the tag", step("one"), |submit| submit.tag = Some("a\0".to_owned())),
        ("a long tag", step("one"), |submit| submit.tag = Some("a".repeat(300))),
        ("a NUL in the commit", step("one"), |submit| submit.commit = "a\0".to_owned()),
        ("a NUL in a variable", step("one"), |submit| submit.env.push(variable("A", "\0"))),
        ("a variable without a name", step("one"), |submit| submit.env.push(variable("", "a"))),
        ("a NUL in a variable of the pipeline", step("one"), |submit| submit.graph.env.push(variable("A", "\0"))),
        ("more variables than an offer holds", step("one"), |submit| {
            submit.env.extend((0..limits::ENV_VARS_MAX).map(|number| variable(&format!("A{number}"), "")));
        }),
        (
            "a command and a message that fit alone",
            step_with("one", |it| it.command = "c".repeat(200 << 10)),
            |submit| {
                submit.message = "m".repeat(60 << 10);
            },
        ),
        ("a NUL in a label", label("a\0b"), |_| {}),
        ("a long label", label(&"l".repeat(limits::MESSAGE_MAX_BYTES + 1)), |_| {}),
        ("a NUL in a command", of_command(|it| it.command = "a\0".to_owned()), |_| {}),
        ("a NUL in a step's variable", of_command(|it| it.env.push(variable("A", "\0"))), |_| {}),
        ("an image of two lines", of_command(|it| it.image = Some("a\nb".to_owned())), |_| {}),
        ("an empty image", of_command(|it| it.image = Some(String::new())), |_| {}),
        ("a repository that is an option", step("one"), |submit| {
            submit.origin =
                Source::Git { repository: "-x".to_owned(), commit: "HEAD".to_owned(), branch: String::new() };
        }),
    ];
    for (what, node, change) in table {
        let mut shell = Shell::new();
        let refused = submit(&mut shell, graph(vec![node]), change);
        let why = refused.as_ref().err();
        let told = matches!(why, Some(Rejected::Answer { .. } | Rejected::Limit { .. } | Rejected::Graph(_)));
        assert!(told, "{what}: {refused:?}");
        assert!(!why.unwrap().to_string().contains('\0'), "{what}");
        assert!(shell.rows.builds.is_empty(), "{what}");
    }
    let group = Group { label: Some("a\0".to_owned()), ..Group::default() };
    let mut node = step("one");
    node.place.group = Some(0);
    let refused = submit(&mut Shell::new(), Graph { groups: vec![group], ..graph(vec![node]) }, |_| {});
    assert!(matches!(refused, Err(Rejected::Graph(_))), "{refused:?}");
}

#[test]
fn what_is_just_within_its_limits_is_offered_and_keeps_every_rule_of_an_offer() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let node = step_with("one", |command| command.command = "c".repeat(170 << 10));
    submit(&mut shell, graph(vec![node]), |submit| {
        submit.message = format!("first\nsecond {}", "m".repeat(60 << 10));
        submit.env.extend((0..400).map(|number| variable(&format!("A{number}"), "value\nof two lines")));
    })
    .unwrap();
    let (_, spec) = shell.offers(agent).remove(0);
    spec.validate().unwrap();
}

#[test]
fn variables_of_an_upload_are_refused_where_a_job_that_waits_has_no_room_for_them() {
    let mut shell = Shell::new();
    let text = format!("steps:\n- command: one\n  key: one\n- command: {}\n  depends_on: one\n", "c".repeat(100 << 10));
    let build = shell.submit(windlass_pipeline::compile(&text, "pipeline.yml", &[]).graph.unwrap());
    let agent = shell.agent("one", 1);
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    let upload = |bytes: usize| {
        let graph = Graph { env: vec![variable("A", "a".repeat(bytes))], ..Graph::default() };
        let (id, definition) = (format!("of {bytes}"), String::new());
        Request::Upload(Box::new(Upload { attempt: offer.0, epoch: None, id, definition, graph, replace: false }))
    };
    let refused = shell.request(upload(200 << 10));
    assert!(matches!(refused, Err(Rejected::Limit { .. })), "{refused:?}");
    shell.request(upload(100 << 10)).unwrap();
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
    let (_, spec) = shell.offers(agent).remove(0);
    spec.validate().unwrap();
    assert_eq!(shell.states(build), [JobState::Passed, JobState::Assigned]);
}

#[test]
fn a_job_that_no_agent_can_be_told_of_fails_and_nobody_hears_of_it() {
    let mut shell = Shell::new();
    let build = shell.submit(graph(vec![step("one")]));
    // What the server adds may have grown since.
    let env = vec![variable("A", "a".repeat(limits::ENV_MAX_BYTES))];
    shell.policy = Policy { env, ..Policy::default() };
    shell.restart();
    let agent = shell.agent("one", 1);
    assert_eq!(shell.offers(agent).len(), 0);
    let job = &shell.history[&build].jobs[0];
    assert_eq!(job.state, JobState::Failed);
    let cause = job.cause.clone().unwrap();
    assert!(cause.kind == CauseKind::Internal && cause.detail.contains("job.env"), "{cause}");
    shell.policy = Policy::default();
    shell.restart();
    let after = shell.submit(graph(vec![step("two")]));
    shell.hello(agent, 1, Vec::new());
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(shell.history[&after].jobs[0].state, JobState::Passed);
}

#[test]
fn an_offer_that_its_agent_never_takes_is_not_repeated_at_every_hello_for_ever() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("one")]));
    shell.offer(agent);
    let mut offers = 1;
    for _ in 0..3 * limits::REQUEUE_MAX {
        // As if each offer ended the connection.
        shell.disconnect(agent);
        shell.hello(agent, 1, Vec::new());
        offers += shell.offers(agent).len();
        if !shell.rows.builds.contains_key(&build) {
            break;
        }
    }
    assert!(offers <= limits::REQUEUE_MAX as usize + 1, "{offers} offers");
    let job = &shell.history[&build].jobs[0];
    assert_eq!((job.state, job.cause.as_ref().map(|cause| cause.kind)), (JobState::Failed, Some(CauseKind::Internal)));
}
