//! A build's life, from submit to its end.

use windlass_coordinator_core::Effect;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildState, Change, JobState};
use windlass_protocol::message::CoordinatorMessage;

use crate::kit::*;

#[test]
fn a_submit_with_an_idle_agent_leases_in_the_same_batch_and_changes_precede_what_is_said() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    shell.take_effects();
    let build = shell.submit(graph(vec![step("test")]));
    let effects = shell.take_effects();
    let last_change = effects.iter().rposition(|effect| matches!(effect, Effect::Change(_))).unwrap();
    let first_word = effects.iter().position(|effect| !matches!(effect, Effect::Change(_))).unwrap();
    assert!(last_change < first_word, "{effects:#?}");
    let has = |wanted: fn(&Change) -> bool| {
        effects.iter().filter(|effect| matches!(effect, Effect::Change(change) if wanted(change))).count()
    };
    assert_eq!(has(|change| matches!(change, Change::Build(_))), 1);
    assert_eq!(has(|change| matches!(change, Change::Job(job) if job.state == JobState::Assigned)), 1);
    assert_eq!(has(|change| matches!(change, Change::Attempt(_))), 1);
    assert_eq!(has(|change| matches!(change, Change::Meta(_))), 1);
    assert_eq!(shell.offers(agent).len(), 1);
    assert_eq!(shell.build(build).state, BuildState::Running);
}

#[test]
fn a_one_step_build_passes_in_two_commits_and_leaves_memory() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("test")]));
    let offer = shell.offer(agent);
    shell.take_effects();
    shell.start(agent, offer);
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    let changes = |shell: &Shell| shell.effects.iter().filter(|it| matches!(it, Effect::Change(_))).count();
    assert_eq!(changes(&shell), 0, "accepting, starting and settling are volatile: {:#?}", shell.effects);
    shell.settle(offer);
    assert_eq!(shell.build(build).state, BuildState::Passed);
    assert_eq!(shell.states(build), [JobState::Passed]);
    assert_eq!(shell.core.live_builds(), 0);
    let told = &shell.told[&agent];
    assert!(matches!(told.last(), Some(CoordinatorMessage::Committed { .. })), "{told:?}");
    let attempt = &shell.attempts(shell.job_id(build, 0))[0];
    assert!(attempt.log_complete);
}

#[test]
fn steps_wait_for_what_they_depend_on_and_barriers_open_by_themselves() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 4);
    let nodes = vec![step("a"), step("b"), after(wait(), &[0, 1]), after(step("c"), &[2])];
    let build = shell.submit(graph(nodes));
    let offers = shell.offers(agent);
    assert_eq!(offers.len(), 2);
    shell.run(agent, (offers[0].1.attempt, offers[0].0), 0);
    assert_eq!(shell.offers(agent).len(), 0);
    shell.run(agent, (offers[1].1.attempt, offers[1].0), 0);
    let last = shell.offer(agent);
    shell.run(agent, last, 0);
    assert_eq!(shell.states(build), [JobState::Passed; 4]);
    assert_eq!(shell.build(build).state, BuildState::Passed);
}

#[test]
fn a_failure_fails_the_build_and_what_depends_on_it_never_runs() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let nodes = vec![step("a"), after(step("b"), &[0]), after_even_if(step("c"), &[1]), after(step("d"), &[1])];
    let build = shell.submit(graph(nodes));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 3);
    assert_eq!(shell.build(build).state, BuildState::Failing);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    let expected = [JobState::Failed, JobState::WaitingFailed, JobState::Passed, JobState::WaitingFailed];
    assert_eq!(shell.states(build), expected);
    assert_eq!(shell.build(build).state, BuildState::Failed);
    assert_eq!(shell.job(build, 0).exit_status, Some(3));
}

#[test]
fn a_canceled_build_ends_what_waits_at_once_and_what_runs_when_its_agent_says_so() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a"), step("b"), after(step("c"), &[0])]));
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    shell.cancel(build);
    assert_eq!(shell.states(build), [JobState::Canceling, JobState::Canceled, JobState::Canceled]);
    assert_eq!(shell.build(build).state, BuildState::Canceling);
    assert!(matches!(shell.told[&agent].last(), Some(CoordinatorMessage::Cancel { .. })));
    let outcome = shell.ended_by(windlass_protocol::CauseKind::Canceled);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
    assert_eq!(shell.build(build).state, BuildState::Canceled);
    assert_eq!(shell.states(build), [JobState::Canceled; 3]);
    let again = shell.request(Request::CancelBuild { build, detail: String::new() });
    assert!(again.is_err(), "{again:?}");
}

#[test]
fn a_silent_agent_is_lost_after_its_lease_and_its_job_fails_unless_a_rule_retries_it() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    let rule = retry_cause(windlass_protocol::CauseKind::AgentLost, 1);
    let build = shell.submit(graph(vec![step("a"), step_with("b", |command| command.retry = vec![rule])]));
    let offers = shell.offers(agent);
    for (epoch, spec) in &offers {
        shell.start(agent, (spec.attempt, *epoch));
    }
    shell.pass(LEASE_MS - 1);
    assert_eq!(shell.states(build), [JobState::Assigned, JobState::Assigned]);
    shell.pass(1);
    assert_eq!(shell.states(build), [JobState::Failed, JobState::Scheduled]);
    assert_eq!(shell.job(build, 0).exit_status, Some(-1));
    assert_eq!(shell.job(build, 0).cause.as_ref().unwrap().kind, windlass_protocol::CauseKind::AgentLost);
    let other = shell.agent("two", 1);
    let offer = shell.offer(other);
    shell.run(other, offer, 0);
    assert_eq!(shell.states(build), [JobState::Failed, JobState::Passed]);
    assert_eq!(shell.build(build).state, BuildState::Failed);
}
