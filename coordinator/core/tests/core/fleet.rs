//! Fleets: zones that fall silent, agents that drain and agents that are forgotten.

use windlass_coordinator_core::effect::{AgentState, Progress};
use windlass_coordinator_core::explain::{Obstacle, Why};
use windlass_coordinator_core::input::{AgentEvent, Request};
use windlass_coordinator_core::row::{BuildState, Change, JobState, OnDeadline, OnUnreachable, PoolRow};
use windlass_coordinator_core::selector::{DrainMany, Selector};
use windlass_coordinator_core::{Effect, Reply};
use windlass_pipeline::graph::StatusMatch;
use windlass_protocol::job::{Epoch, Outcome, Phase};
use windlass_protocol::message::{CoordinatorMessage, Hello, Verdict};
use windlass_protocol::{AgentId, AttemptId, Cause, CauseKind, Now, WallMs, limits};

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

/// A drain of this one agent, at whose deadline only what says so itself is run again.
fn drain(shell: &mut Shell, agent: AgentId, deadline_ms: Option<u64>) {
    drain_by(shell, agent, deadline_ms, OnDeadline::Cancel);
}

fn drain_by(shell: &mut Shell, agent: AgentId, deadline_ms: Option<u64>, on_deadline: OnDeadline) {
    let request = Request::DrainAgents { agents: vec![agent], deadline_ms, on_deadline };
    assert_eq!(shell.request(request), Ok(Reply::Done));
}

/// The deadlines that it was told since the last time.
fn drains(shell: &mut Shell, agent: AgentId) -> Vec<Option<u64>> {
    let told = std::mem::take(shell.told.entry(agent).or_default());
    let drains = told.into_iter().filter_map(|message| match message {
        CoordinatorMessage::Drain { deadline_ms, .. } => Some(deadline_ms),
        _ => None,
    });
    drains.collect()
}

/// What it was told to end since the last time, and why.
fn canceled(shell: &mut Shell, agent: AgentId) -> Vec<(AttemptId, CauseKind)> {
    let told = std::mem::take(shell.told.entry(agent).or_default());
    let cancels = told.into_iter().filter_map(|message| match message {
        CoordinatorMessage::Cancel { attempt, cause, .. } => Some((attempt, cause.kind)),
        _ => None,
    });
    cancels.collect()
}

#[test]
fn what_still_runs_at_a_drains_deadline_is_ended_and_only_what_is_interruptible_runs_again() {
    let mut shell = Shell::new();
    let one = shell.agent("one", 2);
    let safe = step_with("safe", |command| command.interruptible = true);
    let build = shell.submit(graph(vec![safe, step("deploy")]));
    let rights: Vec<_> = shell.offers(one).into_iter().map(|(epoch, spec)| (spec.attempt, epoch)).collect();
    rights.iter().for_each(|right| shell.start(one, *right));
    drain(&mut shell, one, Some(20_000));
    assert_eq!(drains(&mut shell, one), [Some(20_000)]);
    shell.pass(10_000);
    shell.beat(one, rights.clone());
    shell.pass(9_999);
    assert_eq!(canceled(&mut shell, one), []);
    shell.pass(1);
    assert_eq!(canceled(&mut shell, one), [rights[0], rights[1]].map(|right| (right.0, CauseKind::AgentStopped)));
    assert_eq!(shell.states(build), [JobState::Assigned; 2]);
    let two = shell.agent("two", 2);
    for right in &rights {
        let outcome = shell.ended_by(CauseKind::AgentStopped);
        shell.report(one, *right, outcome);
        shell.settle(*right);
    }
    assert_eq!(shell.states(build), [JobState::Assigned, JobState::Failed]);
    assert_eq!(shell.offers(two).len(), 1);
    assert_eq!(shell.job(build, 1).cause.as_ref().map(|cause| cause.kind), Some(CauseKind::AgentStopped));
}

#[test]
fn an_agent_that_does_not_obey_its_drains_deadline_loses_what_it_runs() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let right = shell.offer(agent);
    shell.start(agent, right);
    drain(&mut shell, agent, Some(0));
    pass_with(&mut shell, &[(agent, right)], limits::CANCEL_GRACE_MS + limits::STOP_ANSWER_MS);
    assert_eq!(shell.states(build), [JobState::Failed]);
    assert_eq!(shell.job(build, 0).cause.as_ref().map(|cause| cause.kind), Some(CauseKind::AgentStopped));
}

#[test]
fn a_drains_deadline_outlives_connections_and_coordinators() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    shell.submit(graph(vec![step("a")]));
    let right = shell.offer(agent);
    shell.start(agent, right);
    drain(&mut shell, agent, Some(50_000));
    shell.pass(10_000);
    shell.disconnect(agent);
    shell.told.clear();
    shell.hello(agent, 1, vec![held(right, Phase::Running)]);
    assert_eq!(drains(&mut shell, agent), [Some(40_000)]);
    shell.pass(10_000);
    shell.restart();
    shell.hello(agent, 1, vec![held(right, Phase::Running)]);
    assert_eq!(drains(&mut shell, agent), [Some(30_000)]);
    pass_with(&mut shell, &[(agent, right)], 30_000);
    assert_eq!(canceled(&mut shell, agent), [(right.0, CauseKind::AgentStopped)]);
    // Away when it came, or when it was told: it hears it again.
    shell.restart();
    shell.hello(agent, 1, vec![held(right, Phase::Running)]);
    assert_eq!(canceled(&mut shell, agent), [(right.0, CauseKind::AgentStopped)]);
}

#[test]
fn a_drain_without_a_deadline_or_one_that_is_called_off_ends_nothing() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    shell.submit(graph(vec![step("a")]));
    let right = shell.offer(agent);
    shell.start(agent, right);
    drain(&mut shell, agent, Some(10_000));
    drain(&mut shell, agent, None);
    pass_with(&mut shell, &[(agent, right)], 20_000);
    drain(&mut shell, agent, Some(10_000));
    shell.request(Request::ResumeAgent { agent }).unwrap();
    pass_with(&mut shell, &[(agent, right)], 20_000);
    assert_eq!(canceled(&mut shell, agent), []);
    assert_eq!(shell.state_of(agent), AgentState::Online);
    let deadline_ms = Some(limits::TIMEOUT_MAX_MS + 1);
    let on_deadline = OnDeadline::Requeue;
    shell.request(Request::DrainAgents { agents: vec![agent], deadline_ms, on_deadline }).unwrap_err();
}

#[test]
fn what_a_drain_ends_runs_again_elsewhere_without_a_retry_but_for_what_must_not_run_twice() {
    let mut shell = Shell::new();
    let one = shell.agent("one", 3);
    let deploy = step_with("deploy", |command| command.exclusive = true);
    let locked = limited("locked", "lock", 1);
    let build = shell.submit(graph(vec![step("test"), deploy, locked]));
    let rights: Vec<_> = shell.offers(one).into_iter().map(|(epoch, spec)| (spec.attempt, epoch)).collect();
    assert_eq!(rights.len(), 3);
    rights.iter().for_each(|right| shell.start(one, *right));
    let two = shell.agent("two", 3);
    drain_by(&mut shell, one, Some(0), OnDeadline::Requeue);
    assert_eq!(drains(&mut shell, one), [Some(0)], "now");
    shell.pass(0);
    let cancels = std::mem::take(shell.told.entry(one).or_default());
    let graces = cancels.into_iter().filter_map(|message| match message {
        CoordinatorMessage::Cancel { grace_ms, .. } => Some(grace_ms),
        _ => None,
    });
    assert_eq!(graces.collect::<Vec<_>>(), [Some(0); 3], "the deadline is the total, graces included");
    assert!(shell.offers(two).is_empty(), "not before it has ended on the first one");
    for right in &rights {
        let outcome = shell.ended_by(CauseKind::AgentStopped);
        shell.report(one, *right, outcome);
        shell.settle(*right);
    }
    assert_eq!(shell.states(build), [JobState::Assigned, JobState::Failed, JobState::Failed]);
    let again = shell.offer(two);
    shell.run(two, again, 0);
    let job = shell.job(build, 0);
    assert_eq!((job.state, job.attempts.len(), job.rule_uses.iter().sum::<u32>()), (JobState::Passed, 2, 0));
}

#[test]
fn a_step_s_own_grace_is_in_its_offer_and_in_every_deadline_that_waits_for_its_end() {
    const GRACE_MS: u64 = 600_000;
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step_with("teardown", |command| command.grace_ms = Some(GRACE_MS))]));
    let (epoch, spec) = shell.offers(agent).pop().unwrap();
    assert_eq!(spec.grace_ms, GRACE_MS);
    let right = (spec.attempt, epoch);
    shell.start(agent, right);
    shell.cancel(build);
    pass_with(&mut shell, &[(agent, right)], GRACE_MS);
    assert_eq!(shell.states(build), [JobState::Canceling]);
    pass_with(&mut shell, &[(agent, right)], limits::STOP_ANSWER_MS);
    assert_eq!(shell.states(build), [JobState::Canceled]);
}

#[test]
fn a_drain_that_waits_ends_nothing_at_its_deadline_and_its_agent_does_not_hear_of_one() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let right = shell.offer(agent);
    shell.start(agent, right);
    drain_by(&mut shell, agent, Some(10_000), OnDeadline::Wait);
    assert_eq!(drains(&mut shell, agent), [None]);
    pass_with(&mut shell, &[(agent, right)], 30_000);
    shell.restart();
    shell.hello(agent, 1, vec![held(right, Phase::Running)]);
    pass_with(&mut shell, &[(agent, right)], 30_000);
    assert_eq!(canceled(&mut shell, agent), []);
    assert_eq!((shell.states(build), shell.state_of(agent)), (vec![JobState::Assigned], AgentState::Draining));
}

/// Drains all that are selected; who does now, and who waits.
fn drain_many(shell: &mut Shell, selector: Selector, max_unavailable: Option<u32>) -> (Vec<AgentId>, Vec<AgentId>) {
    let on_deadline = OnDeadline::Requeue;
    let order = DrainMany { selector, deadline_ms: None, on_deadline, max_unavailable };
    match shell.request(Request::DrainMany(Box::new(order))) {
        Ok(Reply::Drained { drained, waiting }) => (drained, waiting),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_selector_means_those_agents_to_which_all_of_it_applies() {
    let mut shell = Shell::new();
    let token = shell.pool(PoolRow { zone: "lab".to_owned(), ..pool("lab") });
    let old = shell.join(token, "lab-1");
    shell.hello(old, 1, Vec::new());
    for _ in 0..60_000 / 5_000 {
        shell.pass(5_000);
        shell.beat(old, vec![]);
    }
    let (one, two) = (shell.agent("ci-1", 1), shell.agent("ci-2", 1));
    let gpu = Hello { tags: vec![("gpu".to_owned(), "yes".to_owned())], ..greeting("ci-2", 1) };
    shell.hello_with(two, Hello { version: "9.9.9".to_owned(), ..gpu });
    let of = |change: fn(&mut Selector)| {
        let mut selector = Selector::default();
        change(&mut selector);
        selector
    };
    for (selector, meant) in [
        (of(|s| s.pool = Some("main".to_owned())), vec![one, two]),
        (of(|s| s.zone = Some("lab".to_owned())), vec![old]),
        (of(|s| s.name = Some("ci-*".parse().unwrap())), vec![one, two]),
        (of(|s| s.tags = vec![("gpu".to_owned(), "yes".to_owned())]), vec![two]),
        (of(|s| s.version = Some("9.9.9".to_owned())), vec![two]),
        (of(|s| s.min_age_ms = Some(60_000)), vec![old]),
        (
            of(|s| {
                s.pool = Some("main".to_owned());
                s.min_age_ms = Some(60_000);
            }),
            vec![],
        ),
    ] {
        assert_eq!(drain_many(&mut shell, selector.clone(), None), (meant.clone(), vec![]), "{selector:?}");
        for agent in meant {
            assert_eq!(shell.state_of(agent), AgentState::Draining);
            shell.request(Request::ResumeAgent { agent }).unwrap();
        }
    }
    let order = |selector, max_unavailable| {
        let on_deadline = OnDeadline::Requeue;
        Request::DrainMany(Box::new(DrainMany { selector, deadline_ms: None, on_deadline, max_unavailable }))
    };
    shell.request(order(Selector::default(), None)).unwrap_err();
    shell.request(order(of(|s| s.pool = Some("main".to_owned())), Some(0))).unwrap_err();
}

#[test]
fn work_does_not_hop_from_one_draining_agent_to_the_next() {
    let mut shell = Shell::new();
    let agents: Vec<_> = (0..3).map(|n| shell.agent(&format!("agent-{n}"), 1)).collect();
    let build = shell.submit(graph(vec![step("a")]));
    let holder = *agents.iter().find(|agent| !shell.offers(**agent).is_empty()).unwrap();
    // Its offer goes back to the queue in the same commit.
    let selector = Selector { pool: Some("main".to_owned()), ..Selector::default() };
    drain_many(&mut shell, selector, None);
    let attempt = shell.attempts(shell.job_id(build, 0)).last().unwrap().clone();
    let cause = Cause::new(CauseKind::AgentStopped, "it drains");
    shell.says(holder, AgentEvent::Refused(attempt.id, attempt.epoch, cause)).unwrap();
    assert_eq!(shell.states(build), [JobState::Scheduled]);
    assert!(agents.iter().all(|agent| shell.offers(*agent).is_empty()));
}

#[test]
fn no_more_agents_are_drained_than_may_be_unavailable_and_the_idle_ones_come_first() {
    let mut shell = Shell::new();
    let agents: Vec<_> = (0..4).map(|n| shell.agent(&format!("agent-{n}"), 1)).collect();
    shell.submit(graph(vec![step("a")]));
    let busy = *agents.iter().find(|agent| !shell.offers(**agent).is_empty()).unwrap();
    let selector = || Selector { pool: Some("main".to_owned()), ..Selector::default() };
    let (first, rest) = drain_many(&mut shell, selector(), Some(2));
    assert_eq!((first.len(), rest.len()), (2, 2));
    assert!(!first.contains(&busy) && rest.last() == Some(&busy), "{first:?} {rest:?}");
    assert_eq!(drain_many(&mut shell, selector(), Some(2)), (vec![], rest.clone()), "two are unavailable");
    shell.request(Request::ResumeAgent { agent: first[0] }).unwrap();
    let (second, _) = drain_many(&mut shell, selector(), Some(2));
    assert_eq!(second.len(), 1, "one is back");
    // One that is away is unavailable, and costs nothing to drain.
    let mut shell = Shell::new();
    let agents: Vec<_> = (0..3).map(|n| shell.agent(&format!("agent-{n}"), 1)).collect();
    shell.says(agents[1], AgentEvent::Goodbye { reason: "done".to_owned() }).unwrap();
    assert_eq!(drain_many(&mut shell, selector(), Some(1)), (vec![agents[1]], vec![agents[0], agents[2]]));
}

#[test]
fn a_pool_that_replaces_loses_its_agents_with_their_leases_though_their_zone_is_unreachable() {
    let mut shell = Shell::new();
    let token = shell.pool(PoolRow { on_unreachable: OnUnreachable::Replace, ..pool("spot") });
    let spot: Vec<_> = (0..2).map(|n| shell.join(token, &format!("spot-{n}"))).collect();
    spot.iter().for_each(|agent| drop(shell.hello(*agent, 1, Vec::new())));
    let (lost, spots) = (shell.submit(graph(vec![step("x"), step("y")])), spot);
    for agent in &spots {
        let offer = shell.offer(*agent);
        shell.start(*agent, offer);
    }
    let (waits, held_by) = busy_zone(&mut shell, 2);
    shell.pass(LEASE_MS);
    assert_eq!(unreachable(&shell), ["corp"]);
    assert_eq!(shell.states(lost), [JobState::Failed; 2]);
    assert_eq!(shell.states(waits), [JobState::Assigned; 2], "the other pool waits");
    assert_eq!((shell.state_of(spots[0]), shell.state_of(held_by[0].0)), (AgentState::Lost, AgentState::Suspect));
    shell.pass(limits::ZONE_HOLD_MS - LEASE_MS);
    assert_eq!(shell.states(waits), [JobState::Assigned; 2], "as long as if it were alone");
    shell.pass(LEASE_MS);
    assert_eq!(shell.states(waits), [JobState::Failed; 2]);
}

#[test]
fn who_had_left_or_was_lost_is_shown_so_after_a_restart_and_when_it_was_seen_last() {
    let mut shell = Shell::new();
    let (left, lost, here) = (shell.agent("left", 1), shell.agent("lost", 1), shell.agent("here", 1));
    shell.says(left, AgentEvent::Goodbye { reason: "done".to_owned() }).unwrap();
    let seen = shell.now.wall;
    shell.disconnect(lost);
    for _ in 0..LEASE_MS / 5_000 {
        shell.pass(5_000);
        shell.beat(here, vec![]);
    }
    shell.effects.clear();
    shell.restart();
    let states = [left, lost, here].map(|agent| shell.state_of(agent));
    assert_eq!(states, [AgentState::Gone, AgentState::Lost, AgentState::Joining]);
    let told = |id: AgentId| {
        let said = |effect: &Effect| match effect {
            Effect::Progress(Progress::Agent { agent, state }) if *agent == id => Some(*state),
            _ => None,
        };
        shell.effects.iter().filter_map(said).collect::<Vec<_>>()
    };
    assert_eq!([left, lost, here].map(told), states.map(|state| vec![state]), "and views are told");
    let at = |id: AgentId| shell.core.agents().find(|agent| agent.id == id).and_then(|agent| agent.last_seen);
    assert_eq!([left, lost, here].map(at), [Some(seen), Some(seen), None]);
    for agent in [left, lost, here] {
        shell.hello(agent, 1, Vec::new());
        assert_eq!(shell.state_of(agent), AgentState::Online);
    }
    shell.restart();
    assert_eq!(shell.state_of(left), AgentState::Joining, "it was here, and has a lease to come back");
}

#[test]
fn an_agent_that_falls_silent_again_after_a_silence_or_a_restart_is_suspect_three_beats_later() {
    for restart in [false, true] {
        let mut shell = Shell::new();
        let agent = shell.agent("one", 1);
        if restart {
            shell.restart();
        } else {
            shell.pass(15_000);
            assert_eq!(shell.state_of(agent), AgentState::Suspect);
        }
        shell.hello(agent, 1, Vec::new());
        shell.pass(14_999);
        assert_eq!(shell.state_of(agent), AgentState::Online);
        shell.pass(1);
        assert_eq!(shell.state_of(agent), AgentState::Suspect, "restart: {restart}");
    }
}

#[test]
fn what_a_lost_agent_still_held_when_the_coordinator_stopped_has_a_deadline() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let right = shell.offer(agent);
    shell.start(agent, right);
    let outcome = shell.exit(0);
    shell.report(agent, right, outcome);
    // Its result waits for its log when it is lost.
    shell.disconnect(agent);
    shell.pass(LEASE_MS);
    assert_eq!((shell.state_of(agent), shell.states(build)), (AgentState::Lost, vec![JobState::Assigned]));
    shell.restart();
    shell.pass(LEASE_MS);
    assert_eq!(shell.states(build), [JobState::Failed]);
    shell.pass(WEEK_MS);
    assert!(shell.rows.agents.is_empty(), "and nothing of it keeps the agent from being forgotten");
}

const WEEK_MS: u64 = 7 * 86_400_000;

#[test]
fn an_agent_that_is_not_heard_of_for_a_week_is_forgotten_and_may_join_anew() {
    let mut shell = Shell::new();
    let (lost, left) = (shell.agent("lost", 1), shell.agent("left", 1));
    let token = shell.pool(pool("main"));
    let never = shell.join(token, "never");
    shell.disconnect(lost);
    shell.says(left, AgentEvent::Goodbye { reason: "done".to_owned() }).unwrap();
    shell.pass(WEEK_MS - 1);
    assert_eq!(shell.rows.agents.len(), 3);
    shell.pass(1);
    assert!(shell.rows.agents.is_empty(), "{:?}", shell.rows.agents);
    let gone: Vec<_> = shell
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Change(Change::Agent(row)) => row.gone.clone(),
            _ => None,
        })
        .collect();
    assert_eq!(gone, ["not heard of for 7 days"; 3]);
    let again = shell.agent("lost", 1);
    assert!(![lost, left, never].contains(&again));
}

#[test]
fn an_absence_goes_on_over_restarts_and_ends_when_the_agent_comes_back() {
    let mut shell = Shell::new();
    let (back, away) = (shell.agent("back", 1), shell.agent("away", 1));
    shell.pass(0);
    shell.restart();
    for _ in 0..6 {
        shell.pass(WEEK_MS / 7);
        shell.restart();
    }
    shell.hello(back, 1, Vec::new());
    assert_eq!(shell.rows.agents[&back].last_seen_at, None);
    shell.disconnect(back);
    shell.pass(WEEK_MS / 7 + LEASE_MS);
    assert_eq!(shell.rows.agents.keys().collect::<Vec<_>>(), [&back], "{away} was away for a week");
    shell.pass(WEEK_MS);
    assert!(shell.rows.agents.is_empty());
}

/// An agent comes back and holds nothing of what it was given, in this run of its machine.
fn comes_back_in(shell: &mut Shell, agent: AgentId, boot_id: &str) {
    if shell.is_connected(agent) {
        shell.disconnect(agent);
    }
    let name = shell.rows.agents[&agent].name.clone();
    shell.hello_with(agent, Hello { boot_id: boot_id.to_owned(), ..greeting(&name, 1) });
}

#[test]
fn what_an_agent_does_not_hold_after_a_crash_of_its_machine_may_have_started_and_is_not_offered_again() {
    for restart in [false, true] {
        let mut shell = Shell::new();
        let agent = shell.agent("agent", 1);
        let build = shell.submit(graph(vec![step("deploy")]));
        let offer = shell.offer(agent);
        if restart {
            shell.restart();
        }
        comes_back_in(&mut shell, agent, "second boot");
        let job = shell.job(build, 0);
        assert_eq!((job.state, job.cause.as_ref().unwrap().kind), (JobState::Failed, CauseKind::AgentLost));
        assert_eq!(shell.attempts(job.id).last().unwrap().id, offer.0);
        assert!(shell.offers(agent).is_empty());
    }
}

#[test]
fn what_an_agent_does_not_hold_in_the_same_run_of_its_machine_never_started_and_is_offered_again() {
    let mut shell = Shell::new();
    let agent = shell.agent("agent", 1);
    let build = shell.submit(graph(vec![step("deploy")]));
    let (attempt, epoch) = shell.offer(agent);
    shell.restart();
    comes_back_in(&mut shell, agent, "first boot");
    assert_eq!(shell.offer(agent), (attempt, epoch), "by the same right");
    assert_eq!(shell.states(build), [JobState::Assigned]);
}

#[test]
fn an_exclusive_job_waits_for_its_fence_though_its_agent_names_another_run_of_the_machine() {
    let mut shell = Shell::new();
    let one = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step_with("deploy", |command| {
        command.exclusive = true;
        command.retry = vec![retry_cause(CauseKind::AgentLost, 1)];
    })]));
    let offer = shell.offer(one);
    shell.start(one, offer);
    comes_back_in(&mut shell, one, "second boot");
    assert!(shell.offers(one).is_empty(), "a copy of the agent's home may have come, from another machine");
    assert_eq!(shell.states(build), [JobState::Scheduled]);
}

#[test]
fn an_agent_that_refuses_for_want_of_space_gets_nothing_until_it_says_that_it_has_some() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let (attempt, epoch) = shell.offer(agent);
    let cause = Cause::new(CauseKind::DiskFull, "the agent's disk is full");
    shell.says(agent, AgentEvent::Refused(attempt, epoch, cause)).unwrap();
    assert_eq!(shell.state_of(agent), AgentState::Quarantined);
    let why = shell.core.explain(shell.job_id(build, 0));
    assert_eq!(why, Some(Why::NoAgent(vec![(Obstacle::DiskFull, 1)])));
    shell.pass(10_000);
    assert!(shell.offers(agent).is_empty(), "the pause after a refusal is over, and its disk is still full");
    shell.beat(agent, Vec::new());
    assert_eq!(shell.state_of(agent), AgentState::Online);
    assert_eq!(shell.offer(agent).0, attempt, "nothing had started");
}

#[test]
fn a_job_that_its_agent_had_no_room_for_runs_on_another_and_one_that_filled_the_disk_has_failed() {
    let mut shell = Shell::new();
    let full = shell.agent("full", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let right = shell.offer(full);
    let roomy = shell.agent("roomy", 1);
    shell.accept(full, right);
    let outcome = Outcome { started_at: None, ..shell.ended_by(CauseKind::DiskFull) };
    shell.report(full, right, outcome);
    shell.settle(right);
    assert_eq!(shell.state_of(full), AgentState::Quarantined);
    let again = shell.offer(roomy);
    shell.start(roomy, again);
    let outcome = shell.ended_by(CauseKind::DiskFull);
    assert!(outcome.started_at.is_some());
    shell.report(roomy, again, outcome);
    shell.settle(again);
    assert_eq!(shell.states(build), [JobState::Failed]);
    assert_eq!(shell.job(build, 0).cause.as_ref().map(|cause| cause.kind), Some(CauseKind::DiskFull));
}

#[test]
fn the_wait_of_a_job_is_told_once_for_each_attempt_when_it_is_first_leased() {
    let mut shell = Shell::new();
    let retry = step_with("a", |command| command.retry = vec![retry_on(StatusMatch::Any, 1)]);
    shell.submit(graph(vec![retry, after(step("b"), &[0])]));
    let ready = shell.now.wall;
    shell.pass(3_000);
    shell.take_effects();
    let agent = shell.agent("one", 1);
    let waits = |shell: &mut Shell| -> Vec<WallMs> {
        let effects = shell.take_effects().into_iter();
        effects
            .filter_map(|it| if let Effect::Dispatched { runnable_at } = it { Some(runnable_at) } else { None })
            .collect()
    };
    let first = shell.offer(agent);
    assert_eq!(waits(&mut shell), [ready]);
    let cause = Cause::new(CauseKind::Internal, "not now");
    shell.says(agent, AgentEvent::Refused(first.0, first.1, cause)).unwrap();
    shell.pass(10_000);
    let second = shell.offer(agent);
    assert_eq!((second.0, waits(&mut shell)), (first.0, vec![]), "the same attempt, offered again");
    shell.run(agent, second, 1);
    let retried = shell.now.wall;
    let third = shell.offer(agent);
    assert_eq!(waits(&mut shell), [retried], "a retry waits from when it was decided");
    shell.run(agent, third, 0);
    assert_eq!(waits(&mut shell), [shell.now.wall], "and what depends on it from when that was done");
}

#[test]
fn deadlines_that_are_due_together_are_no_more_in_a_commit_than_it_is_to_hold() {
    let mut shell = Shell::new();
    let token = shell.pool(pool("main"));
    for number in 0..limits::TIMERS_PER_COMMIT_MAX + 1 {
        let agent = shell.join(token, &format!("agent-{number}"));
        shell.hello(agent, 1, Vec::new());
    }
    let later = Now { mono: shell.now.mono.plus_ms(LEASE_MS + 1), wall: shell.now.wall.plus_ms(LEASE_MS + 1) };
    shell.now = later;
    let silent = |shell: &Shell| shell.core.agents().filter(|agent| agent.state != AgentState::Online).count();
    shell.core.handle_timeout(later);
    shell.drain();
    assert_eq!(silent(&shell), limits::TIMERS_PER_COMMIT_MAX);
    assert!(shell.core.poll_timeout().is_some_and(|due| due <= later.mono), "the rest is due");
    shell.pass(1);
    assert_eq!(silent(&shell), limits::TIMERS_PER_COMMIT_MAX + 1);
}
