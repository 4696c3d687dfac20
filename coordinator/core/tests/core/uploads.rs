//! Uploads: whole or not at all, once, right after their job, and gone when that is run again (reference 7).

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildState, JobState, Upload};
use windlass_coordinator_core::{Rejected, Reply};
use windlass_pipeline::compile;
use windlass_pipeline::graph::Graph;
use windlass_protocol::job::{Epoch, JobSpec};
use windlass_protocol::{AgentId, AttemptId, BuildId, limits};

use crate::kit::*;

use JobState::{Assigned, Failed, Passed, Skipped, Waiting, WaitingFailed};

fn compiled(text: &str) -> Graph {
    let compiled = compile(text, "pipeline.yml", &[]);
    compiled.graph.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics))
}

fn upload_with(attempt: AttemptId, id: &str, text: &str, replace: bool) -> Request {
    let (definition, graph) = (text.to_owned(), compiled(text));
    Request::Upload(Box::new(Upload { attempt, epoch: None, id: id.to_owned(), definition, graph, replace }))
}

fn upload(shell: &mut Shell, attempt: AttemptId, id: &str, text: &str) -> Result<Reply, Rejected> {
    shell.request(upload_with(attempt, id, text, false))
}

/// A build of this text, and the offer of its first step on an agent of one slot.
fn begun(shell: &mut Shell, text: &str) -> (BuildId, AgentId, (AttemptId, Epoch)) {
    let build = shell.submit(compiled(text));
    let agent = shell.agent("one", 1);
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    (build, agent, offer)
}

/// What the agent is told to run, to the end of the build.
fn commands(shell: &mut Shell, agent: AgentId) -> Vec<String> {
    let mut ran = Vec::new();
    loop {
        let offers: Vec<(Epoch, JobSpec)> = shell.offers(agent);
        let [(epoch, spec)] = offers.as_slice() else { return ran };
        ran.push(spec.command.clone());
        shell.run(agent, (spec.attempt, *epoch), 0);
    }
}

fn finish(shell: &mut Shell, agent: AgentId, offer: (AttemptId, Epoch), status: i32) {
    let outcome = shell.exit(status);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
}

const THREE: &str = "steps:\n  - { command: up, key: up }\n  - wait\n  - { command: last, key: last }\n";

#[test]
fn what_is_uploaded_runs_after_its_job_and_before_what_the_wait_holds_back() {
    let mut shell = Shell::new();
    let (build, agent, offer) = begun(&mut shell, THREE);
    upload(&mut shell, offer.0, "u1", "steps:\n  - { command: b, key: b }\n  - wait\n  - { command: c, key: c }\n")
        .unwrap();
    assert_eq!(shell.states(build), [Assigned, Waiting, Waiting, Waiting, Waiting, Waiting]);
    shell.restart();
    shell.hello(agent, 1, vec![held(offer, windlass_protocol::job::Phase::Running)]);
    finish(&mut shell, agent, offer, 0);
    assert_eq!(commands(&mut shell, agent), ["b", "c", "last"]);
    assert_eq!(shell.build(build).state, BuildState::Passed);
    assert_eq!(shell.audits.iter().filter(|action| *action == "build.upload").count(), 1);
}

#[test]
fn a_second_upload_stands_before_the_first_ones_steps() {
    let mut shell = Shell::new();
    let (_, agent, offer) = begun(&mut shell, THREE);
    upload(&mut shell, offer.0, "u1", "steps:\n  - { command: first, key: first }\n").unwrap();
    upload(&mut shell, offer.0, "u2", "steps:\n  - { command: second }\n  - wait\n").unwrap();
    finish(&mut shell, agent, offer, 0);
    assert_eq!(commands(&mut shell, agent), ["second", "first", "last"]);
}

#[test]
fn the_same_upload_again_changes_nothing_and_another_by_its_name_is_refused() {
    let mut shell = Shell::new();
    let (build, _, offer) = begun(&mut shell, THREE);
    let text = "steps:\n  - command: b\n";
    upload(&mut shell, offer.0, "u1", text).unwrap();
    let rows = shell.rows.clone();
    assert_eq!(upload(&mut shell, offer.0, "u1", text), Ok(Reply::Done));
    assert_eq!((&rows.jobs, shell.states(build).len()), (&shell.rows.jobs, 4));
    let other = upload(&mut shell, offer.0, "u1", "steps:\n  - command: c\n");
    assert_eq!(other, Err(Rejected::IdempotencyMismatch));
}

#[test]
fn an_upload_that_repeats_a_key_goes_in_a_circle_or_is_too_large_is_refused_whole() {
    let mut shell = Shell::new();
    let (build, _, offer) = begun(&mut shell, THREE);
    let rows = shell.rows.clone();
    for text in [
        "steps:\n  - { command: b, key: b }\n  - { command: c, key: last }\n".to_owned(),
        "steps:\n  - wait\n  - { command: b, depends_on: last }\n  - wait\n".to_owned(),
        format!("steps:\n{}", "  - command: x\n".repeat(limits::UPLOAD_JOBS_MAX + 1)),
    ] {
        let refused = upload(&mut shell, offer.0, "u1", &text);
        assert!(matches!(refused, Err(Rejected::Graph(_) | Rejected::Limit { .. })), "{refused:?}");
        assert_eq!(rows, shell.rows);
    }
    assert_eq!(shell.states(build).len(), 3);
}

#[test]
fn only_who_holds_a_right_in_a_build_that_goes_on_uploads() {
    let mut shell = Shell::new();
    let (build, agent, offer) = begun(&mut shell, THREE);
    let text = "steps:\n  - command: b\n";
    let mut stale = upload_with(offer.0, "u1", text, false);
    if let Request::Upload(upload) = &mut stale {
        upload.epoch = Some(Epoch(offer.1.0 + 1));
    }
    assert!(matches!(shell.request(stale), Err(Rejected::StaleEpoch { .. })));
    shell.cancel(build);
    assert!(matches!(upload(&mut shell, offer.0, "u1", text), Err(Rejected::Job { .. })));
    let outcome = shell.ended_by(windlass_protocol::CauseKind::Canceled);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
    assert_eq!(upload(&mut shell, offer.0, "u1", text), Err(Rejected::NoLease(offer.0)));
}

#[test]
fn steps_of_a_job_that_fails_do_not_run() {
    let mut shell = Shell::new();
    let (build, agent, offer) = begun(&mut shell, THREE);
    upload(&mut shell, offer.0, "u1", "steps:\n  - command: b\n").unwrap();
    finish(&mut shell, agent, offer, 1);
    assert_eq!(shell.states(build), [Failed, WaitingFailed, WaitingFailed, WaitingFailed]);
}

#[test]
fn steps_of_a_former_attempt_that_have_not_started_go_when_the_job_is_given_out_again() {
    let mut shell = Shell::new();
    let text = "steps:\n  - { command: up, retry: { automatic: true } }\n  - wait\n  - command: last\n";
    let (build, agent, offer) = begun(&mut shell, text);
    let made = "steps:\n  - { command: b, key: b }\n";
    upload(&mut shell, offer.0, "u1", made).unwrap();
    finish(&mut shell, agent, offer, 1);
    assert_eq!(shell.states(build), [Assigned, Waiting, Waiting, Skipped]);
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    upload(&mut shell, offer.0, "u2", made).unwrap();
    finish(&mut shell, agent, offer, 0);
    assert_eq!(commands(&mut shell, agent), ["b", "last"]);
    assert_eq!(shell.build(build).state, BuildState::Passed);
}

#[test]
fn replace_takes_away_what_stands_after_the_job_and_has_not_started() {
    let mut shell = Shell::new();
    let text = "steps:\n  - { command: before, key: before, depends_on: up }\n  - { command: up, key: up }\n  \
                - { command: after, key: after, depends_on: ~ }\n  - wait\n  - { command: last, key: last }\n";
    let build = shell.submit(compiled(text));
    let agent = shell.agent("one", 2);
    let offers = shell.offers(agent);
    let commands: Vec<_> = offers.iter().map(|(_, spec)| spec.command.as_str()).collect();
    assert_eq!(commands, ["up", "after"]);
    let up = (offers[0].1.attempt, offers[0].0);
    shell.start(agent, up);
    shell.request(upload_with(up.0, "u1", "steps:\n  - { command: new, key: last }\n", true)).unwrap();
    assert_eq!(shell.states(build), [Waiting, Assigned, Assigned, Skipped, Skipped, Waiting]);
    finish(&mut shell, agent, up, 0);
    // Who depends on a step that uploaded others waits for those too.
    assert_eq!(shell.states(build), [Waiting, Passed, Assigned, Skipped, Skipped, Assigned]);
}

#[test]
fn a_key_that_an_upload_brings_lets_those_go_on_that_waited_for_it() {
    let mut shell = Shell::new();
    let text = "steps:\n  - { command: up, key: up }\n  - { command: late, depends_on: brought }\n";
    let (build, agent, offer) = begun(&mut shell, text);
    assert_eq!(shell.states(build), [Assigned, Waiting]);
    upload(&mut shell, offer.0, "u1", "steps:\n  - { command: b, key: brought }\n").unwrap();
    finish(&mut shell, agent, offer, 0);
    assert_eq!(commands(&mut shell, agent), ["b", "late"]);
    assert_eq!(shell.build(build).state, BuildState::Passed);
}

#[test]
fn the_environment_of_an_upload_is_that_of_every_job_that_has_not_started() {
    let mut shell = Shell::new();
    let (_, agent, offer) = begun(&mut shell, THREE);
    upload(&mut shell, offer.0, "u1", "env: { A: uploaded }\nsteps:\n  - wait\n").unwrap();
    finish(&mut shell, agent, offer, 0);
    let (_, spec) = shell.offers(agent).remove(0);
    assert!(spec.env.contains(&("A".to_owned(), "uploaded".to_owned())), "{:?}", spec.env);
}
