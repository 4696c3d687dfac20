//! Concurrency groups: so many at once over all builds, in turn, and never before what held a slot has ended.

use windlass_coordinator_core::explain::Why;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildState, JobState};
use windlass_coordinator_core::{Bugs, Policy};
use windlass_pipeline::graph::{Concurrency, Method, Node, NodeKind, StatusMatch};
use windlass_protocol::job::Phase;
use windlass_protocol::message::Verdict;
use windlass_protocol::{BuildId, CauseKind, Namespace};

use crate::kit::*;

use JobState::{Assigned, Failed, Limited, Passed, Scheduled};

fn eager(label: &str, limit: u32, priority: i64) -> Node {
    step_with(label, |command| {
        command.concurrency = Some(Concurrency { group: "g".to_owned(), limit, method: Method::Eager });
        command.priority = priority;
    })
}

/// Every job's state over several builds.
fn states(shell: &Shell, builds: &[BuildId]) -> Vec<JobState> {
    builds.iter().flat_map(|build| shell.states(*build)).collect()
}

#[test]
fn a_group_of_one_runs_its_jobs_in_the_order_of_their_builds() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 4);
    let builds: Vec<_> = (0..3).map(|_| shell.submit(graph(vec![limited("a", "g", 1)]))).collect();
    assert_eq!(states(&shell, &builds), [Assigned, Limited, Limited]);
    let last = shell.job_id(builds[2], 0);
    let why = Why::Limited { group: "g".to_owned(), holding: 1, ahead: 1 };
    assert_eq!(shell.core.explain(last), Some(why));
    for done in 0..3 {
        let offer = shell.offer(agent);
        shell.run(agent, offer, 0);
        let state = |at: usize| match at.cmp(&(done + 1)) {
            std::cmp::Ordering::Less => Passed,
            std::cmp::Ordering::Equal => Assigned,
            std::cmp::Ordering::Greater => Limited,
        };
        assert_eq!(states(&shell, &builds), [state(0), state(1), state(2)]);
    }
}

#[test]
fn who_enters_late_and_was_made_first_goes_first() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let first = shell.submit(graph(vec![step("before"), after(limited("a", "g", 1), &[0])]));
    let second = shell.submit(graph(vec![limited("b", "g", 1)]));
    let third = shell.submit(graph(vec![limited("c", "g", 1)]));
    assert_eq!(shell.states(second), [Scheduled], "nobody is in the group before it");
    assert_eq!(shell.states(third), [Limited]);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!((shell.states(first)[1], shell.states(second)[0]), (Limited, Assigned), "a slot is not taken back");
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!((shell.states(first)[1], shell.states(third)[0]), (Assigned, Limited));
}

#[test]
fn a_job_of_a_larger_limit_counts_who_holds_and_who_waits_before_it() {
    let mut shell = Shell::new();
    shell.agent("one", 9);
    let builds: Vec<_> =
        [1, 1, 3, 3, 2].into_iter().map(|limit| shell.submit(graph(vec![limited("a", "g", limit)]))).collect();
    // One holds; the second waits; the third sees 1 + 1 < 3; the fourth 2 + 1; the fifth 2 + 2.
    assert_eq!(states(&shell, &builds), [Assigned, Limited, Assigned, Limited, Limited]);
}

#[test]
fn eager_jobs_look_at_holders_only_and_go_by_priority() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 9);
    let holder = shell.submit(graph(vec![eager("h", 1, 0)]));
    let low = shell.submit(graph(vec![eager("l", 1, 0)]));
    let high = shell.submit(graph(vec![eager("u", 1, 5)]));
    let wide = shell.submit(graph(vec![eager("w", 2, -1)]));
    let all = [holder, low, high, wide];
    assert_eq!(states(&shell, &all), [Assigned, Limited, Limited, Assigned]);
    let offers = shell.offers(agent);
    for (epoch, spec) in offers {
        shell.run(agent, (spec.attempt, epoch), 0);
    }
    assert_eq!(states(&shell, &all), [Passed, Limited, Assigned, Passed]);
}

#[test]
fn groups_of_other_names_and_other_trust_are_others() {
    let mut shell = Shell::new();
    shell.agent("one", 9);
    shell.submit(graph(vec![limited("a", "g", 1)]));
    let other = shell.submit(graph(vec![limited("a", "h", 1)]));
    let untrusted = shell.submit_with(graph(vec![limited("a", "g", 1)]), |submit| {
        submit.namespace = Namespace::overlay("app", "pr:1");
    });
    assert_eq!((shell.states(other)[0], shell.states(untrusted)[0]), (Assigned, Scheduled));
}

#[test]
fn a_slot_is_kept_over_a_retry_and_over_a_restart() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let mut node = limited("a", "g", 1);
    if let NodeKind::Command(command) = &mut node.kind {
        command.retry = vec![retry_on(StatusMatch::Any, 1)];
    }
    let first = shell.submit(graph(vec![node]));
    let second = shell.submit(graph(vec![limited("b", "g", 1)]));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 1);
    assert_eq!(states(&shell, &[first, second]), [Assigned, Limited]);
    shell.restart();
    assert_eq!(states(&shell, &[first, second]), [Assigned, Limited]);
    let offer = (shell.attempts(shell.job_id(first, 0))[1].id, shell.attempts(shell.job_id(first, 0))[1].epoch);
    shell.hello(agent, 1, vec![held(offer, Phase::Running)]);
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
    assert_eq!(states(&shell, &[first, second]), [Passed, Assigned]);
}

#[test]
fn the_slot_of_a_lost_holder_is_free_only_when_its_processes_have_surely_ended() {
    for restarts in [false, true] {
        let mut shell = Shell::new();
        let one = shell.agent("one", 1);
        let first = shell.submit(graph(vec![limited("a", "g", 1)]));
        let offer = shell.offer(one);
        shell.start(one, offer);
        let second = shell.submit(graph(vec![limited("b", "g", 1)]));
        shell.pass(LEASE_MS);
        assert_eq!(shell.build(first).state, BuildState::Failed, "the holder's build has left memory");
        assert_eq!(shell.states(second), [Limited]);
        assert_eq!(shell.rows.holds.len(), 1);
        if restarts {
            shell.restart();
            assert_eq!(shell.states(second), [Limited]);
        }
        shell.pass(shell.policy.grace_ms - 100);
        assert_eq!(shell.states(second), [Limited]);
        shell.pass(200);
        assert_eq!(shell.states(second), [Scheduled]);
        assert!(shell.rows.holds.is_empty());
    }
}

#[test]
fn the_slot_of_a_lost_holder_is_free_once_its_agent_says_that_nothing_runs() {
    let mut shell = Shell::new();
    let one = shell.agent("one", 1);
    shell.submit(graph(vec![limited("a", "g", 1)]));
    let offer = shell.offer(one);
    shell.start(one, offer);
    let second = shell.submit(graph(vec![limited("b", "g", 1)]));
    let job = shell.rows.attempts[&offer.0].job;
    shell.request(Request::CancelJob { job, grace_ms: None }).unwrap();
    // It does not answer the cancel in time; then it does.
    shell.beat(one, vec![offer]);
    for _ in 0..10 {
        shell.pass(5_000);
        shell.beat(one, vec![offer]);
    }
    assert_eq!(shell.states(second), [Limited]);
    assert_eq!(shell.rows.holds.len(), 1);
    shell.says(one, windlass_coordinator_core::input::AgentEvent::Stopped(offer.0, offer.1)).unwrap();
    assert_eq!(shell.states(second), [Assigned]);
}

#[test]
fn a_holder_that_is_run_again_by_hand_keeps_the_slot_that_still_is_its_own() {
    let mut shell = Shell::new();
    let one = shell.agent("one", 1);
    let first = shell.submit(graph(vec![limited("a", "g", 1)]));
    let offer = shell.offer(one);
    shell.start(one, offer);
    let second = shell.submit(graph(vec![limited("b", "g", 1)]));
    shell.pass(LEASE_MS);
    let rows = shell.history.get(&first).cloned().map(Box::new);
    shell.request(Request::RetryBuild { build: first, rows }).unwrap();
    assert_eq!(states(&shell, &[first, second]), [Scheduled, Limited]);
    assert!(shell.rows.holds.is_empty());
    let two = shell.agent("two", 1);
    assert_eq!(shell.offers(two).len(), 0, "what ran of it may still run");
    shell.pass(shell.policy.grace_ms + 100);
    assert_eq!(shell.offers(two).len(), 1);
    assert_eq!(states(&shell, &[first, second]), [Assigned, Limited]);
}

#[test]
fn nobody_adopts_what_ran_in_a_group() {
    let mut shell = Shell::new();
    let one = shell.agent("one", 1);
    let mut node = limited("a", "g", 1);
    if let NodeKind::Command(command) = &mut node.kind {
        command.retry = vec![retry_cause(CauseKind::AgentLost, 1)];
    }
    shell.submit(graph(vec![node]));
    let offer = shell.offer(one);
    shell.start(one, offer);
    shell.pass(LEASE_MS);
    assert!(matches!(shell.hello(one, 1, vec![held(offer, Phase::Running)])[..], [(_, Verdict::Stop)]));
}

#[test]
fn a_waiting_job_that_is_canceled_or_expires_leaves_its_group() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    shell.submit(graph(vec![limited("a", "g", 1)]));
    let second = shell.submit(graph(vec![limited("b", "g", 1)]));
    let third = shell.submit(graph(vec![limited("c", "g", 1)]));
    shell.cancel(second);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 1);
    assert_eq!((shell.states(second)[0], shell.states(third)[0]), (JobState::Canceled, Assigned));
    assert_eq!(shell.history.values().filter(|rows| rows.jobs[0].state == Failed).count(), 1);
}

#[test]
fn a_slot_that_is_given_before_the_fence_breaks_an_invariant() {
    let states = |slot_before_fence| {
        let bugs = Bugs { slot_before_fence, ..Bugs::default() };
        let mut shell = Shell::with(Policy { bugs, ..Policy::default() });
        let one = shell.agent("one", 1);
        shell.submit(graph(vec![limited("a", "g", 1)]));
        let offer = shell.offer(one);
        shell.start(one, offer);
        let second = shell.submit(graph(vec![limited("b", "g", 1)]));
        shell.pass(LEASE_MS);
        shell.states(second)[0]
    };
    assert_eq!((states(false), states(true)), (Limited, Scheduled));
}
