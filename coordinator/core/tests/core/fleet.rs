//! Fleets: zones that fall silent, agents that drain and agents that are forgotten.

use windlass_coordinator_core::effect::AgentState;
use windlass_coordinator_core::input::AgentEvent;
use windlass_coordinator_core::row::{BuildState, JobState};
use windlass_protocol::job::{Epoch, Phase};
use windlass_protocol::message::Verdict;
use windlass_protocol::{AgentId, AttemptId, CauseKind, limits};

use crate::kit::*;

type Right = (AttemptId, Epoch);

/// A zone of this many agents, each with a running step of one build.
fn busy_zone(shell: &mut Shell, count: usize) -> (windlass_protocol::BuildId, Vec<(AgentId, Right)>) {
    let agents: Vec<_> = (0..count).map(|n| shell.agent(&format!("agent-{n}"), 1)).collect();
    let build = shell.submit(graph((0..count).map(|n| step(&format!("step-{n}"))).collect()));
    let held = agents.into_iter().map(|agent| {
        let offer = shell.offer(agent);
        shell.start(agent, offer);
        (agent, offer)
    });
    let held = held.collect();
    (build, held)
}

fn unreachable(shell: &Shell) -> Vec<&str> {
    shell.core.unreachable_zones().collect()
}

/// Time passes in which only these beat.
fn pass_with(shell: &mut Shell, beating: &[(AgentId, Right)], ms: u64) {
    for _ in 0..ms / 5_000 {
        shell.pass(5_000);
        for (agent, right) in beating {
            shell.beat(*agent, vec![*right]);
        }
    }
}

#[test]
fn a_zone_that_falls_silent_as_a_whole_is_held_and_its_jobs_go_on_when_it_comes_back() {
    let mut shell = Shell::new();
    let (build, held_by) = busy_zone(&mut shell, 5);
    pass_with(&mut shell, &held_by[..2], 3 * 5_000);
    assert_eq!(unreachable(&shell), ["corp"]);
    pass_with(&mut shell, &held_by[..2], limits::ZONE_HOLD_MS - 10_000);
    assert_eq!(shell.states(build), [JobState::Assigned; 5]);
    assert_eq!(shell.state_of(held_by[4].0), AgentState::Suspect);
    for (agent, right) in &held_by[2..] {
        let verdicts = shell.hello(*agent, 1, vec![held(*right, Phase::Running)]);
        assert!(matches!(verdicts[..], [(_, Verdict::Keep { epoch, .. })] if epoch == right.1), "{verdicts:?}");
    }
    assert!(unreachable(&shell).is_empty());
    for (agent, right) in &held_by {
        let outcome = shell.exit(0);
        shell.report(*agent, *right, outcome);
        shell.settle(*right);
    }
    assert_eq!(shell.build(build).state, BuildState::Passed);
}

#[test]
fn a_zone_is_held_no_longer_than_the_policy_says() {
    let mut shell = Shell::new();
    let (build, held_by) = busy_zone(&mut shell, 3);
    shell.pass(15_000 + limits::ZONE_HOLD_MS - 1);
    assert_eq!(shell.states(build), [JobState::Assigned; 3]);
    shell.pass(1);
    assert_eq!(shell.states(build), [JobState::Failed; 3]);
    assert_eq!(shell.job(build, 0).cause.as_ref().map(|cause| cause.kind), Some(CauseKind::AgentLost));
    assert_eq!(shell.state_of(held_by[0].0), AgentState::Lost);
}

#[test]
fn two_silent_agents_or_half_of_a_zone_are_lost_by_their_own_leases() {
    for (count, silent) in [(2, 2), (6, 3)] {
        let mut shell = Shell::new();
        let (build, held_by) = busy_zone(&mut shell, count);
        pass_with(&mut shell, &held_by[silent..], LEASE_MS);
        assert!(unreachable(&shell).is_empty());
        let failed = shell.states(build).iter().filter(|state| **state == JobState::Failed).count();
        assert_eq!((failed, silent), (silent, silent), "{count} agents");
    }
}

#[test]
fn when_a_zone_answers_again_who_stays_silent_is_lost_a_lease_later() {
    let mut shell = Shell::new();
    let (build, held_by) = busy_zone(&mut shell, 3);
    shell.pass(120_000);
    assert_eq!(unreachable(&shell), ["corp"]);
    for (agent, right) in &held_by[1..] {
        shell.hello(*agent, 1, vec![held(*right, Phase::Running)]);
    }
    pass_with(&mut shell, &held_by[1..], LEASE_MS - 5_000);
    assert_eq!(shell.states(build), [JobState::Assigned; 3]);
    pass_with(&mut shell, &held_by[1..], 5_000);
    assert_eq!(shell.states(build), [JobState::Failed, JobState::Assigned, JobState::Assigned]);
}

#[test]
fn a_coordinator_that_comes_back_to_an_unreachable_zone_holds_it_too() {
    let mut shell = Shell::new();
    let (build, held_by) = busy_zone(&mut shell, 3);
    shell.restart();
    shell.pass(LEASE_MS);
    assert_eq!(unreachable(&shell), ["corp"]);
    shell.pass(limits::ZONE_HOLD_MS - 1);
    assert_eq!(shell.states(build), [JobState::Assigned; 3]);
    let (agent, right) = held_by[0];
    shell.hello(agent, 1, vec![held(right, Phase::Running)]);
    shell.beat(agent, vec![right]);
    shell.pass(1);
    assert_eq!(shell.states(build), [JobState::Assigned, JobState::Failed, JobState::Failed]);
}

#[test]
fn an_offer_into_a_zone_that_cannot_answer_waits_with_it() {
    let mut shell = Shell::new();
    let agents: Vec<_> = (0..3).map(|n| shell.agent(&format!("agent-{n}"), 1)).collect();
    let build = shell.submit(graph(vec![step("a")]));
    let offered = agents.iter().find_map(|agent| shell.offers(*agent).pop().map(|offer| (*agent, offer)));
    let (agent, (epoch, spec)) = offered.unwrap();
    shell.pass(limits::ZONE_HOLD_MS);
    assert_eq!(shell.states(build), [JobState::Assigned]);
    shell.hello(agent, 1, Vec::new());
    let again = shell.offer(agent);
    assert_eq!((again.0, again.1 > epoch), (spec.attempt, true));
    shell.says(agent, AgentEvent::Accepted(again.0, again.1)).unwrap();
}
