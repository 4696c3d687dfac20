//! Deliberate bugs, each caught by the invariant that it breaks; without them the same story holds.

use windlass_coordinator_core::input::AgentEvent;
use windlass_coordinator_core::{Bugs, Effect, Policy};
use windlass_protocol::CauseKind;
use windlass_protocol::job::Epoch;
use windlass_protocol::{Namespace, Trust};

use crate::kit::*;

/// Plays a story without a bug and with it: what broke.
fn broken_by(bugs: Bugs, story: fn(&mut Shell)) -> Option<&'static str> {
    let mut sound = Shell::new();
    story(&mut sound);
    let mut shell = Shell::with(Policy { bugs, ..Policy::default() });
    story(&mut shell);
    shell.broken.map(|broken| broken.invariant)
}

#[test]
fn a_job_that_two_agents_get_breaks_i2() {
    let bugs = Bugs { lease_twice: true, ..Bugs::default() };
    let story = |shell: &mut Shell| {
        shell.agent("one", 1);
        shell.agent("two", 1);
        shell.submit(graph(vec![step("a")]));
    };
    assert_eq!(broken_by(bugs, story), Some("I2"));
}

#[test]
fn a_waiting_job_that_survives_its_builds_cancel_breaks_i8() {
    let bugs = Bugs { ignore_cancel: true, ..Bugs::default() };
    let story = |shell: &mut Shell| {
        let build = shell.submit(graph(vec![step("a")]));
        shell.cancel(build);
    };
    assert_eq!(broken_by(bugs, story), Some("I8"));
}

#[test]
fn an_agent_that_gets_a_job_of_another_trust_breaks_i7() {
    let bugs = Bugs { ignore_trust_and_zone: true, ..Bugs::default() };
    let story = |shell: &mut Shell| {
        shell.agent("one", 1);
        shell.submit_with(graph(vec![step("a")]), |submit| submit.namespace = Namespace::overlay("app", "pr:7"));
    };
    assert_eq!(broken_by(bugs, story), Some("I7"));
    assert_eq!(Namespace::overlay("app", "pr:7").trust(), Trust::Untrusted);
}

#[test]
fn a_job_that_does_not_wait_for_its_dependency_breaks_i7() {
    let bugs = Bugs { forget_dependency: true, ..Bugs::default() };
    let story = |shell: &mut Shell| {
        shell.agent("one", 1);
        shell.submit(graph(vec![step("a"), after(step("b"), &[0])]));
        shell.agent("two", 1);
    };
    assert_eq!(broken_by(bugs, story), Some("I7"));
}

#[test]
fn a_job_that_does_not_wait_for_a_dependency_whose_failure_it_forgives_breaks_i7() {
    let bugs = Bugs { forget_dependency: true, ..Bugs::default() };
    let story = |shell: &mut Shell| {
        shell.agent("one", 2);
        shell.submit(graph(vec![step("a"), after_even_if(step("b"), &[0])]));
    };
    assert_eq!(broken_by(bugs, story), Some("I7"));
}

#[test]
fn a_lost_exclusive_job_that_is_leased_at_once_breaks_i3() {
    let bugs = Bugs { skip_exclusive_fence: true, ..Bugs::default() };
    let story = |shell: &mut Shell| {
        let agent = shell.agent("one", 1);
        let deploy = step_with("deploy", |command| {
            command.exclusive = true;
            command.retry = vec![retry_cause(CauseKind::AgentLost, 2)];
        });
        shell.submit(graph(vec![deploy]));
        let offer = shell.offer(agent);
        shell.start(agent, offer);
        shell.pass(LEASE_MS);
        shell.agent("two", 1);
    };
    assert_eq!(broken_by(bugs, story), Some("I3"));
}

#[test]
fn a_lease_without_a_deadline_breaks_i10() {
    let bugs = Bugs { drop_deadline: true, ..Bugs::default() };
    let story = |shell: &mut Shell| {
        shell.agent("one", 1);
        shell.submit(graph(vec![step("a")]));
    };
    assert_eq!(broken_by(bugs, story), Some("I10"));
}

#[test]
fn an_epoch_that_is_not_stored_is_granted_again_after_a_restart() {
    let epochs = |forget_last_epoch| {
        let bugs = Bugs { forget_last_epoch, ..Bugs::default() };
        let mut shell = Shell::with(Policy { bugs, ..Policy::default() });
        let agent = shell.agent("one", 2);
        shell.submit(graph(vec![step("a")]));
        let first = shell.offer(agent);
        shell.start(agent, first);
        shell.restart();
        shell.submit(graph(vec![step("b")]));
        shell.hello(agent, 2, vec![held(first, windlass_protocol::job::Phase::Running)]);
        (first.1, shell.offer(agent).1)
    };
    assert_eq!(epochs(false), (Epoch(1), Epoch(2)));
    assert_eq!(epochs(true), (Epoch(1), Epoch(1)));
}

#[test]
fn a_reply_before_its_commit_stands_before_its_changes() {
    let early = |reply_before_commit| {
        let bugs = Bugs { reply_before_commit, ..Bugs::default() };
        let mut shell = Shell::with(Policy { bugs, ..Policy::default() });
        shell.submit(graph(vec![step("a")]));
        matches!(shell.effects.first(), Some(Effect::Reply { .. }))
    };
    assert!(!early(false));
    assert!(early(true));
}

#[test]
fn a_result_by_a_stale_epoch_is_refused_unless_the_fence_is_skipped() {
    let taken = |skip_epoch_fence| {
        let bugs = Bugs { skip_epoch_fence, ..Bugs::default() };
        let mut shell = Shell::with(Policy { bugs, ..Policy::default() });
        let agent = shell.agent("one", 1);
        shell.submit(graph(vec![step("a")]));
        let (attempt, _) = shell.offer(agent);
        let outcome = shell.exit(0);
        shell.says(agent, AgentEvent::Finished(attempt, Epoch(99), Box::new(outcome))).is_ok()
    };
    assert!(!taken(false));
    assert!(taken(true));
}
