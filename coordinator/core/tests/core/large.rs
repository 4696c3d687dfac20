//! A large fleet: what a restart of its coordinator costs, and how often it is heard (F12).

use std::collections::BTreeMap;

use windlass_coordinator_core::effect::AgentState;
use windlass_coordinator_core::row::{AgentRow, BuildState, JobState};
use windlass_protocol::job::Phase;
use windlass_protocol::message::CoordinatorMessage;
use windlass_protocol::{AgentId, Digest, IdSource, WallMs, limits};

use crate::kit::*;

const AGENTS: usize = 10_000;
const STEPS_PER_BUILD: usize = 500;
const SECOND_MS: u64 = 1_000;

/// The agents of one pool, which have joined and are not here.
fn joined(shell: &mut Shell) -> Vec<AgentId> {
    let token = shell.pool(pool("main"));
    let first = shell.join(token, "agent-0");
    let row = shell.rows.agents[&first].clone();
    let mut ids = IdSource::from_seed([8; 32]);
    for number in 1..AGENTS {
        let (name, id) = (format!("agent-{number}"), ids.agent(WallMs(START)));
        let key = Digest::of(name.as_bytes());
        shell.rows.agents.insert(id, AgentRow { id, name, key, ..row.clone() });
    }
    shell.restart();
    shell.rows.agents.keys().copied().collect()
}

/// The beat that the agent was told last.
fn told_beat(shell: &Shell, agent: AgentId) -> u64 {
    let beat = |message: &CoordinatorMessage| match message {
        CoordinatorMessage::Welcome { beat_ms, .. } | CoordinatorMessage::BeatAck { beat_ms, .. } => Some(*beat_ms),
        _ => None,
    };
    shell.told[&agent].iter().rev().find_map(beat).unwrap()
}

/// Below `below`, seemingly at random.
fn dice(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

#[test]
fn ten_thousand_agents_outlast_a_restart_without_losing_a_job_and_beat_no_more_often_than_may_be() {
    let mut shell = Shell::new();
    shell.unchecked = true;
    let agents = joined(&mut shell);
    agents.iter().for_each(|agent| drop(shell.hello(*agent, 1, Vec::new())));
    let build = |shell: &mut Shell| shell.submit(graph((0..STEPS_PER_BUILD).map(|n| step(&n.to_string())).collect()));
    let builds: Vec<_> = (0..AGENTS / STEPS_PER_BUILD).map(|_| build(&mut shell)).collect();
    let rights: BTreeMap<_, _> = agents.iter().map(|agent| (*agent, shell.offer(*agent))).collect();
    rights.iter().for_each(|(agent, right)| shell.start(*agent, *right));

    shell.restart();
    shell.told.clear();
    // Each dials again at some moment of the longest pause between two tries, then beats as it is told.
    let (mut random, mut beats) = (7, BTreeMap::<u64, u64>::new());
    let begun = shell.now.wall.0;
    let mut due: BTreeMap<(u64, AgentId), bool> =
        agents.iter().map(|agent| ((dice(&mut random, 30 * SECOND_MS), *agent), false)).collect();
    while let Some(((at, agent), is_here)) = due.pop_first() {
        if at > 90 * SECOND_MS {
            break;
        }
        let elapsed = shell.now.wall.0 - begun;
        shell.pass(at.saturating_sub(elapsed));
        shell.told.remove(&agent);
        if is_here {
            shell.beat(agent, vec![rights[&agent]]);
            *beats.entry(at / SECOND_MS).or_default() += 1;
        } else {
            shell.hello(agent, 1, vec![held(rights[&agent], Phase::Running)]);
        }
        let beat_ms = told_beat(&shell, agent);
        due.insert((at + beat_ms * 9 / 10 + dice(&mut random, beat_ms / 5), agent), true);
        shell.effects.clear();
    }
    let later: u64 = beats.range(60..90).map(|(_, count)| count).sum();
    let most = limits::BEATS_PER_SECOND_MAX * 30;
    assert!(later <= most + most / 20, "{later} beats in 30 s");
    assert!(later >= most / 2, "and they beat: {later}");

    for build in &builds {
        assert!(shell.states(*build).iter().all(|state| *state == JobState::Assigned));
    }
    for (agent, right) in &rights {
        let outcome = shell.exit(0);
        shell.report(*agent, *right, outcome);
        shell.settle(*right);
    }
    for build in builds {
        assert_eq!(shell.build(build).state, BuildState::Passed);
        assert!(shell.jobs(build).iter().all(|job| job.attempts.len() == 1), "none was given out twice");
    }
    shell.core.check().unwrap();
    same_rows(&shell.core.rows(), &shell.rows);
}

#[test]
fn a_small_fleet_beats_as_its_pool_says_and_a_lease_holds_four_beats_of_a_large_one() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    assert_eq!(told_beat(&shell, agent), 5_000);
    shell.unchecked = true;
    let agents = joined(&mut shell);
    agents.iter().for_each(|agent| drop(shell.hello(*agent, 1, Vec::new())));
    shell.beat(agents[0], vec![]);
    let beat_ms = told_beat(&shell, agents[0]);
    assert_eq!(beat_ms, agents.len() as u64 * 1_000 / limits::BEATS_PER_SECOND_MAX);
    // It is suspect by the beat that it was told.
    shell.pass(3 * beat_ms - 1);
    assert_eq!(shell.state_of(agents[0]), AgentState::Online);
    shell.pass(1);
    assert_eq!(shell.state_of(agents[0]), AgentState::Suspect);
}
