//! What jobs say to their own builds: annotations and changes of steps, by their right, each call once.

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{
    Annotate, Annotation, AnnotationStyle, BuildEvent, JobState, Said, Speech, StepChange,
};
use windlass_coordinator_core::{Rejected, Reply};
use windlass_pipeline::compile;
use windlass_pipeline::graph::{Graph, NodeKind, Notify};
use windlass_protocol::job::{Epoch, JobSpec, Phase};
use windlass_protocol::message::CoordinatorMessage;
use windlass_protocol::{AgentId, AttemptId, BuildId, JobId, limits};

use crate::kit::*;

use JobState::{Assigned, Canceling, Limited, Scheduled, Waiting};

fn compiled(text: &str) -> Graph {
    let compiled = compile(text, "pipeline.yml", &[]);
    compiled.graph.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics))
}

/// A build of this text whose first step runs.
fn begun(text: &str) -> (Shell, BuildId, AgentId, (AttemptId, Epoch)) {
    let mut shell = Shell::new();
    let build = shell.submit(compiled(text));
    let agent = shell.agent("one", 1);
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    (shell, build, agent, offer)
}

fn said(shell: &mut Shell, by: (AttemptId, Epoch), call: &str, what: Said) -> Result<Reply, Rejected> {
    let call = windlass_protocol::call::derived([0; 16], call.as_bytes());
    let speech = Speech { attempt: by.0, epoch: by.1, call, what };
    shell.request(Request::Speak(Box::new(speech)))
}

fn words(context: &str, text: &str) -> Annotate {
    Annotate {
        context: context.to_owned(),
        own: false,
        style: None,
        priority: None,
        text: (!text.is_empty()).then(|| text.to_owned()),
        append: false,
    }
}

fn added(context: &str, text: &str) -> Annotate {
    Annotate { append: true, ..words(context, text) }
}

fn annotate(shell: &mut Shell, by: (AttemptId, Epoch), call: &str, what: Annotate) -> Result<Reply, Rejected> {
    said(shell, by, call, Said::Annotate(what))
}

/// What is written beside a build: name, style, priority, text.
fn notes(shell: &Shell, build: BuildId) -> Vec<(String, Option<AnnotationStyle>, u8, String)> {
    let shown = |note: &Annotation| {
        let text = shell.texts.get(&note.id).cloned().unwrap_or_default();
        assert_eq!(text.len(), note.bytes, "the row says how long its text is");
        (note.context.clone(), note.style, note.priority, text)
    };
    shell.build(build).annotations.iter().map(shown).collect()
}

fn note(
    context: &str,
    style: Option<AnnotationStyle>,
    priority: u8,
    text: &str,
) -> (String, Option<AnnotationStyle>, u8, String) {
    (context.to_owned(), style, priority, text.to_owned())
}

const ONE: &str = "steps:\n  - { command: a, key: a }\n";

#[test]
fn an_annotation_is_written_replaced_added_to_restyled_and_removed() {
    let (mut shell, build, agent, by) = begun(ONE);
    let styled = |style, what: Annotate| Annotate { style: Some(style), ..what };
    let at = |priority, what: Annotate| Annotate { priority: Some(priority), ..what };
    let (warning, error) = (AnnotationStyle::Warning, AnnotationStyle::Error);
    // What is said, and what stands there then: the rows of reference 19.3.
    let rows = [
        (words("default", "one"), note("default", None, 3, "one")),
        (styled(warning, at(9, added("default", " two"))), note("default", Some(warning), 9, "one two")),
        (added("default", " three"), note("default", Some(warning), 9, "one two three")),
        (styled(error, words("default", "")), note("default", Some(error), 9, "one two three")),
        (words("default", "anew"), note("default", None, 3, "anew")),
    ];
    for (number, (what, expected)) in rows.into_iter().enumerate() {
        assert_eq!(annotate(&mut shell, by, &format!("call-{number}"), what), Ok(Reply::Done));
        assert_eq!(notes(&shell, build), [expected], "after call {number}");
    }
    let nothing = annotate(&mut shell, by, "style", styled(error, words("other", "")));
    assert!(matches!(nothing, Err(Rejected::Answer { .. })), "{nothing:?}");
    annotate(&mut shell, by, "other", Annotate { own: true, ..words("default", "of the job") }).unwrap();
    assert_eq!(notes(&shell, build).len(), 2, "a job's own annotation is another one");
    shell.restart();
    shell.hello(agent, 1, vec![held(by, Phase::Running)]);
    assert_eq!(notes(&shell, build).len(), 2);
    let gone = Said::RemoveAnnotation { context: "default".to_owned(), own: false };
    said(&mut shell, by, "gone", gone.clone()).unwrap();
    said(&mut shell, by, "gone again", gone).unwrap();
    assert_eq!(notes(&shell, build), [note("default", None, 3, "of the job")]);
    assert_eq!(shell.texts.len(), 1, "its text went with it");
    let changed = shell.events.iter().filter(|event| matches!(event, BuildEvent::Annotated { .. })).count();
    let removed = shell.events.iter().filter(|event| matches!(event, BuildEvent::AnnotationRemoved { .. })).count();
    assert_eq!((changed, removed), (6, 1));
}

#[test]
fn a_call_that_comes_again_is_heard_once_even_after_a_restart_and_other_calls() {
    let (mut shell, build, agent, by) = begun(ONE);
    annotate(&mut shell, by, "first", added("default", "x")).unwrap();
    shell.restart();
    shell.hello(agent, 1, vec![held(by, Phase::Running)]);
    for number in 0..limits::CALLS_PER_ATTEMPT_MAX - 1 {
        annotate(&mut shell, by, &format!("call-{number}"), added("default", ".")).unwrap();
    }
    assert_eq!(annotate(&mut shell, by, "first", added("default", "x")), Ok(Reply::Done));
    let text = &notes(&shell, build)[0].3;
    assert_eq!(text.matches('x').count(), 1);
    assert_eq!(shell.rows.attempts[&by.0].calls.len(), limits::CALLS_PER_ATTEMPT_MAX, "what is remembered is bounded");
    shell.run(agent, by, 0);
    let attempts = shell.attempts(shell.job_id(build, 0));
    assert_eq!(attempts[0].calls.len(), 0, "what has ended says nothing again");
}

#[test]
fn a_call_of_an_attempt_that_was_believed_lost_is_heard_once_when_it_comes_back_by_its_new_right() {
    let text = "steps:\n  - command: a\n    retry: { automatic: [{ cause: agent_lost, limit: 2 }] }\n";
    let (mut shell, build, agent, by) = begun(text);
    annotate(&mut shell, by, "first", added("default", "x")).unwrap();
    shell.pass(LEASE_MS + 1);
    assert_eq!(shell.states(build), [Scheduled], "its agent is lost");
    assert!(matches!(annotate(&mut shell, by, "second", added("default", "y")), Err(Rejected::NoLease(_))));
    shell.hello(agent, 1, vec![held(by, Phase::Running)]);
    let row = shell.rows.attempts[&by.0].clone();
    assert!(row.granted == by.1 && row.epoch > by.1, "it goes on by a newer right: {row:?}");
    let now = (by.0, row.epoch);
    assert!(matches!(annotate(&mut shell, by, "second", added("default", "y")), Err(Rejected::StaleEpoch { .. })));
    for call in ["first", "second", "second"] {
        annotate(&mut shell, now, call, added("default", "y")).unwrap();
    }
    assert_eq!(notes(&shell, build)[0].3, "xy");
}

#[test]
fn a_job_cancels_by_its_right_alone_and_once() {
    let text = "steps:\n  - { command: a, key: a }\n  - { command: b, key: b }\n  - { command: c, key: c }\n";
    let (mut shell, build, agent, by) = begun(text);
    let other = shell.submit(compiled(ONE));
    let ids = |shell: &Shell, build, indexes: &[usize]| -> Vec<JobId> {
        indexes.iter().map(|index| shell.job_id(build, *index)).collect()
    };
    let cancel = |jobs| Said::CancelJobs { jobs, grace_ms: None };
    let stale = (by.0, Epoch(by.1.0 + 1));
    for what in [Said::CancelBuild, cancel(ids(&shell, build, &[1]))] {
        let refused = said(&mut shell, stale, "stale", what);
        assert!(matches!(refused, Err(Rejected::StaleEpoch { .. })), "{refused:?}");
    }
    let mixed = [ids(&shell, build, &[1]), ids(&shell, other, &[0])].concat();
    let refused = said(&mut shell, by, "stranger", cancel(mixed));
    assert!(matches!(refused, Err(Rejected::JobNotInMemory(_))), "{refused:?}");
    assert_eq!(shell.states(build), [Assigned, Scheduled, Scheduled], "nothing that is refused has changed anything");
    let one = cancel(ids(&shell, build, &[1]));
    said(&mut shell, by, "one", one.clone()).unwrap();
    assert_eq!(shell.states(build), [Assigned, JobState::Canceled, Scheduled]);
    // Somebody runs it again meanwhile: the call that comes again must not cancel that.
    let job = shell.job_id(build, 1);
    shell.request(Request::RetryJob { job, rows: None }).unwrap();
    said(&mut shell, by, "one", one).unwrap();
    assert_eq!(shell.states(build), [Assigned, Scheduled, Scheduled]);
    said(&mut shell, by, "all", Said::CancelBuild).unwrap();
    assert_eq!(said(&mut shell, by, "all", Said::CancelBuild), Ok(Reply::Done), "the same call has the same answer");
    assert_eq!(shell.states(build), [Canceling, JobState::Canceled, JobState::Canceled]);
    assert_eq!(shell.audits.iter().filter(|action| *action == "build.cancel").count(), 1);
    assert!(matches!(annotate(&mut shell, by, "late", words("default", "x")), Err(Rejected::Job { .. })));
    shell.run(agent, by, 1);
    let late = said(&mut shell, by, "all", Said::CancelBuild);
    assert!(matches!(late, Err(Rejected::NoLease(_))), "{late:?}");
}

#[test]
fn only_who_holds_the_right_is_heard_and_what_is_refused_changes_nothing() {
    let (mut shell, build, agent, by) = begun(ONE);
    let stale = (by.0, Epoch(by.1.0 + 1));
    assert!(matches!(annotate(&mut shell, stale, "a", words("default", "x")), Err(Rejected::StaleEpoch { .. })));
    let large = "x".repeat(limits::ANNOTATION_MAX_BYTES);
    annotate(&mut shell, by, "large", words("0", &large)).unwrap();
    let more = annotate(&mut shell, by, "more", added("0", "x"));
    assert!(matches!(more, Err(Rejected::Limit { what: "bytes of an annotation", .. })), "{more:?}");
    let long = "é".repeat(limits::ANNOTATION_CONTEXT_MAX_CHARS + 1);
    assert!(matches!(annotate(&mut shell, by, "long", words(&long, "x")), Err(Rejected::Limit { .. })));
    for number in 1..limits::ANNOTATIONS_MAX_BYTES / limits::ANNOTATION_MAX_BYTES {
        annotate(&mut shell, by, &format!("large-{number}"), words(&number.to_string(), &large)).unwrap();
    }
    let full = annotate(&mut shell, by, "full", words("one more", "x"));
    assert!(matches!(full, Err(Rejected::Limit { what: "bytes of a build's annotations", .. })), "{full:?}");
    annotate(&mut shell, by, "smaller", words("1", "x")).unwrap();
    annotate(&mut shell, by, "full", words("one more", "x")).unwrap();
    for number in notes(&shell, build).len()..limits::ANNOTATIONS_PER_BUILD_MAX {
        annotate(&mut shell, by, &format!("small-{number}"), words(&format!("small {number}"), "x")).unwrap();
    }
    let many = annotate(&mut shell, by, "many", words("too many", "x"));
    assert!(matches!(many, Err(Rejected::Limit { what: "annotations of one build", .. })), "{many:?}");
    shell.run(agent, by, 0);
    assert!(matches!(annotate(&mut shell, by, "late", words("default", "x")), Err(Rejected::NoLease(_))));
}

fn change(shell: &mut Shell, by: (AttemptId, Epoch), job: JobId, change: StepChange) -> Result<Reply, Rejected> {
    let call = format!("{change:?}");
    said(shell, by, &call, Said::UpdateStep { job, change })
}

fn priority(shell: &Shell, build: BuildId, index: usize) -> i64 {
    match &shell.job(build, index).node.kind {
        NodeKind::Command(command) => command.priority,
        _ => panic!("no command"),
    }
}

#[test]
fn a_label_is_set_and_added_to_for_all_jobs_of_the_step() {
    let (mut shell, build, _, by) =
        begun("steps:\n  - { command: a, key: a }\n  - { command: b, key: b, parallelism: 2, label: B }\n");
    let job = shell.job_id(build, 2);
    let labels = |shell: &Shell| shell.jobs(build).iter().map(|job| job.node.label.clone()).collect::<Vec<_>>();
    change(&mut shell, by, job, StepChange::Label { text: "Bs %N/%t".to_owned(), append: false }).unwrap();
    assert_eq!(labels(&shell), ["a", "Bs 1/2", "Bs 2/2"]);
    let add = || StepChange::Label { text: "!".to_owned(), append: true };
    change(&mut shell, by, job, add()).unwrap();
    change(&mut shell, by, job, add()).unwrap();
    assert_eq!(labels(&shell), ["a", "Bs 1/2!", "Bs 2/2!"], "the same call is heard once");
    let long = "x".repeat(limits::STEP_LABEL_MAX_BYTES);
    let refused = change(&mut shell, by, job, StepChange::Label { text: long, append: true });
    assert!(matches!(refused, Err(Rejected::Limit { .. })));
    let own = shell.job_id(build, 0);
    change(&mut shell, by, own, StepChange::Label { text: "A".to_owned(), append: false }).unwrap();
    assert_eq!(labels(&shell), ["A", "Bs 1/2!", "Bs 2/2!"]);
    assert!(shell.audits.iter().any(|action| action == "step.update"));
}

#[test]
fn a_step_whose_priority_rises_is_next() {
    let text = "steps:\n  - { command: a, key: a }\n  - { command: b, key: b }\n  - { command: c, key: c }\n  - wait\n";
    let (mut shell, build, agent, by) = begun(text);
    assert_eq!(shell.states(build), [Assigned, Scheduled, Scheduled, Waiting]);
    let (job, barrier) = (shell.job_id(build, 2), shell.job_id(build, 3));
    change(&mut shell, by, job, StepChange::Priority(5)).unwrap();
    assert_eq!((priority(&shell, build, 1), priority(&shell, build, 2)), (0, 5));
    let refused = change(&mut shell, by, barrier, StepChange::Priority(6));
    assert!(matches!(refused, Err(Rejected::Answer { .. })));
    shell.run(agent, by, 0);
    let offers: Vec<(Epoch, JobSpec)> = shell.offers(agent);
    assert_eq!(offers[0].1.command, "c");
}

#[test]
fn a_step_that_waits_for_its_group_stands_there_by_its_new_priority() {
    let limited = "concurrency: 1, concurrency_group: g, concurrency_method: eager";
    let text = format!(
        "steps:\n  - {{ command: a, key: a }}\n  - {{ command: b, {limited} }}\n  - {{ command: c, {limited} }}\n  - {{ command: d, {limited} }}\n"
    );
    let (mut shell, build, agent, by) = begun(&text);
    assert_eq!(shell.states(build), [Assigned, Scheduled, Limited, Limited]);
    let last = shell.job_id(build, 3);
    change(&mut shell, by, last, StepChange::Priority(1)).unwrap();
    shell.run(agent, by, 0);
    let next = shell.offer(agent);
    shell.run(agent, next, 0);
    let offers: Vec<(Epoch, JobSpec)> = shell.offers(agent);
    assert_eq!(offers[0].1.command, "d", "the later one has the higher priority");
}

#[test]
fn who_hears_of_a_step_is_set_and_added_to() {
    let (mut shell, build, _, by) = begun(ONE);
    let job = shell.job_id(build, 0);
    let one = |name: &str| Notify { service: name.to_owned(), config: serde_json::Value::Null, condition: None };
    let of = |notify: Vec<Notify>, append| StepChange::Notify { notify, append };
    change(&mut shell, by, job, of(vec![one("github_check")], false)).unwrap();
    change(&mut shell, by, job, of(vec![one("slack")], true)).unwrap();
    assert_eq!(shell.job(build, 0).node.notify, [one("github_check"), one("slack")]);
    change(&mut shell, by, job, of(vec![one("slack")], false)).unwrap();
    assert_eq!(shell.job(build, 0).node.notify, [one("slack")]);
    let many = vec![one("slack"); limits::NOTIFY_LIST_MAX];
    assert!(matches!(change(&mut shell, by, job, of(many, true)), Err(Rejected::Limit { .. })));
}

#[test]
fn a_step_gets_more_jobs_and_whatever_waits_for_it_waits_for_them_too() {
    let text = "steps:\n  - { command: a, key: a }\n  - { command: b, key: b, parallelism: 2, depends_on: a }\n  - wait\n  - { command: c, key: c }\n";
    let (mut shell, build, agent, by) = begun(text);
    let job = shell.job_id(build, 1);
    let fewer = change(&mut shell, by, job, StepChange::Parallelism(1));
    assert!(matches!(fewer, Err(Rejected::Answer { .. })), "{fewer:?}");
    let many = u32::try_from(limits::UPLOAD_JOBS_MAX + 3).unwrap();
    assert!(matches!(change(&mut shell, by, job, StepChange::Parallelism(many)), Err(Rejected::Limit { .. })));
    change(&mut shell, by, job, StepChange::Parallelism(4)).unwrap();
    assert_eq!(shell.jobs(build).len(), 7);
    shell.restart();
    shell.hello(agent, 1, vec![held(by, Phase::Running)]);
    shell.run(agent, by, 0);
    let mut ran = Vec::new();
    loop {
        let offers: Vec<(Epoch, JobSpec)> = shell.offers(agent);
        let [(epoch, spec)] = offers.as_slice() else { break };
        let variable = |name: &str| {
            spec.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
        };
        ran.push((spec.command.clone(), variable("BUILDKITE_PARALLEL_JOB"), variable("BUILDKITE_PARALLEL_JOB_COUNT")));
        shell.run(agent, (spec.attempt, *epoch), 0);
    }
    let b = |index: &str| ("b".to_owned(), index.to_owned(), "4".to_owned());
    assert_eq!(ran[..4], [b("0"), b("1"), b("2"), b("3")]);
    assert_eq!(ran[4].0, "c", "it waited for all of them");
    assert_eq!(shell.build(build).state, windlass_coordinator_core::row::BuildState::Passed);
}

#[test]
fn a_job_that_is_canceled_with_less_grace_hears_of_it_and_of_still_less() {
    let (mut shell, build, agent, by) = begun(ONE);
    let job = shell.job_id(build, 0);
    let cancel = |grace_ms| Request::CancelJob { job, grace_ms };
    let graces = |shell: &Shell| {
        let told = shell.told[&agent].iter().filter_map(|message| match message {
            CoordinatorMessage::Cancel { grace_ms, .. } => Some(*grace_ms),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    shell.request(cancel(None)).unwrap();
    shell.request(cancel(Some(9_000))).unwrap();
    shell.request(cancel(Some(9_000))).unwrap();
    assert_eq!(shell.states(build), [Canceling]);
    assert_eq!(graces(&shell), [None, Some(9_000)], "nothing is said that changes nothing");
    shell.restart();
    shell.hello(agent, 1, vec![held(by, Phase::Running)]);
    assert_eq!(graces(&shell).last(), Some(&Some(9_000)), "an agent that comes back hears the same again");
}
