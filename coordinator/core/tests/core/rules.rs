//! Rules of leases, retries, placement and fairness, one by one.

use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::effect::AgentState;
use windlass_coordinator_core::explain::{Obstacle, Why, settled};
use windlass_coordinator_core::input::{AgentEvent, Request};
use windlass_coordinator_core::row::{AttemptState, BuildState, JobState, OnDeadline};
use windlass_pipeline::graph::{SoftFail, StatusMatch, Supersede};
use windlass_protocol::job::{Outcome, Phase, Resources};
use windlass_protocol::message::{CoordinatorMessage, Health, Hello, Verdict};
use windlass_protocol::{Cause, CauseKind, limits};

use crate::kit::*;

#[test]
fn a_coordinator_that_comes_back_waits_a_whole_lease_before_it_calls_anyone_lost() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    shell.pass(LEASE_MS - 1);
    shell.restart();
    shell.pass(LEASE_MS - 1);
    assert_eq!(shell.states(build), [JobState::Assigned]);
    let verdicts = shell.hello(agent, 1, vec![held(offer, Phase::Running)]);
    assert!(matches!(verdicts[..], [(_, Verdict::Keep { epoch, .. })] if epoch == offer.1), "{verdicts:?}");
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
    assert_eq!(shell.build(build).state, BuildState::Passed);
}

#[test]
fn an_offer_that_never_arrived_is_repeated_by_the_same_epoch_when_the_agent_comes_back() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    shell.submit(graph(vec![step("a")]));
    let offer = shell.offer(agent);
    shell.disconnect(agent);
    shell.hello(agent, 1, Vec::new());
    assert_eq!(shell.offer(agent), offer);
}

#[test]
fn a_refused_offer_goes_to_another_agent_by_the_next_epoch_and_keeps_its_attempt() {
    let mut shell = Shell::new();
    let one = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let (attempt, epoch) = shell.offer(one);
    let two = shell.agent("two", 1);
    shell.says(one, AgentEvent::Refused(attempt, epoch, Cause::new(CauseKind::DiskFull, "no room"))).unwrap();
    let again = shell.offer(two);
    assert_eq!(again.0, attempt);
    assert!(again.1 > epoch);
    assert_eq!(shell.job(build, 0).requeues, 1);
    assert_eq!(shell.attempts(shell.job_id(build, 0)).len(), 1);
}

#[test]
fn an_agent_that_comes_back_before_its_job_was_given_away_goes_on_by_a_new_epoch() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let rule = retry_cause(CauseKind::AgentLost, 1);
    let build = shell.submit(graph(vec![step_with("a", |command| command.retry = vec![rule])]));
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    shell.pass(LEASE_MS);
    assert_eq!(shell.states(build), [JobState::Scheduled]);
    assert_eq!(shell.attempts(shell.job_id(build, 0))[0].state, AttemptState::Lost);
    let verdicts = shell.hello(agent, 1, vec![held(offer, Phase::Running)]);
    let [(_, Verdict::Keep { epoch, .. })] = verdicts[..] else { panic!("{verdicts:?}") };
    assert!(epoch > offer.1);
    let outcome = shell.exit(0);
    let stale = shell.says(agent, AgentEvent::Finished(offer.0, offer.1, Box::new(outcome.clone())));
    assert!(matches!(stale, Err(Rejected::StaleEpoch { .. })), "{stale:?}");
    shell.report(agent, (offer.0, epoch), outcome);
    shell.settle((offer.0, epoch));
    assert_eq!(shell.build(build).state, BuildState::Passed);
    assert_eq!(shell.job(build, 0).rule_uses, [0]);
}

#[test]
fn a_lost_exclusive_job_waits_for_its_fence_and_is_never_adopted() {
    let mut shell = Shell::new();
    let one = shell.agent("one", 1);
    let deploy = step_with("deploy", |command| {
        command.exclusive = true;
        command.retry = vec![retry_cause(CauseKind::AgentLost, 2)];
    });
    let build = shell.submit(graph(vec![deploy]));
    let offer = shell.offer(one);
    shell.start(one, offer);
    shell.pass(LEASE_MS);
    let two = shell.agent("two", 1);
    assert_eq!(shell.offers(two).len(), 0);
    assert!(matches!(shell.core.explain(shell.job_id(build, 0)), Some(Why::Fenced(_))));
    assert!(matches!(shell.hello(one, 1, vec![held(offer, Phase::Running)])[..], [(_, Verdict::Stop)]));
    shell.says(one, AgentEvent::Stopped(offer.0, offer.1)).unwrap();
    assert_eq!(shell.offers(two).len() + shell.offers(one).len(), 1, "nothing runs any more, so it need not wait");
}

#[test]
fn a_step_that_loses_three_agents_is_suspected_and_not_retried() {
    let mut shell = Shell::new();
    let build = shell.submit(graph(vec![step_with("a", |command| command.interruptible = true)]));
    for name in ["one", "two", "three"] {
        let agent = shell.agent(name, 1);
        let offer = shell.offer(agent);
        shell.start(agent, offer);
        shell.pass(LEASE_MS);
    }
    assert_eq!(shell.states(build), [JobState::Failed]);
    assert!(shell.job(build, 0).cause.as_ref().unwrap().detail.contains("suspected"));
    assert_eq!(shell.job(build, 0).agents_lost.len(), limits::AGENTS_LOST_MAX as usize);
}

#[test]
fn retry_rules_decide_in_order_each_with_its_own_count() {
    // rules, ends, number of attempts, last state
    let any = |limit| retry_on(StatusMatch::Any, limit);
    let failure = |limit| retry_on(StatusMatch::AnyFailure, limit);
    let one_of = |status, limit| retry_on(StatusMatch::OneOf(vec![status]), limit);
    let table = [
        (vec![], vec![1], JobState::Failed),
        (vec![any(1)], vec![1, 0], JobState::Passed),
        (vec![any(1)], vec![1, 2], JobState::Failed),
        (vec![one_of(3, 0), any(2)], vec![3], JobState::Failed),
        (vec![one_of(3, 1), any(2)], vec![3, 1, 1, 1], JobState::Failed),
        (vec![one_of(3, 1), failure(1)], vec![3, 3], JobState::Failed),
        (vec![one_of(0, 3)], vec![0], JobState::Passed),
    ];
    for (rules, ends, state) in table {
        let mut shell = Shell::new();
        let agent = shell.agent("one", 1);
        let shown = format!("{rules:?} {ends:?}");
        let build = shell.submit(graph(vec![step_with("a", |command| command.retry = rules)]));
        for status in &ends {
            let offer = shell.offer(agent);
            shell.run(agent, offer, *status);
        }
        assert_eq!(shell.states(build), [state], "{shown}");
        assert_eq!(shell.attempts(shell.job_id(build, 0)).len(), ends.len(), "{shown}");
        assert_eq!(shell.core.live_builds(), 0, "{shown}");
    }
}

#[test]
fn soft_failures_pass_the_build_and_let_dependents_run() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let soft = step_with("a", |command| command.soft_fail = SoftFail::OneOf(vec![3]));
    let build = shell.submit(graph(vec![soft, after(step("b"), &[0])]));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 3);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(shell.states(build), [JobState::Failed, JobState::Passed]);
    assert!(shell.job(build, 0).soft_failed);
    assert_eq!(shell.build(build).state, BuildState::Passed);
}

#[test]
fn a_timed_out_command_that_still_exits_with_zero_has_passed() {
    for (exit_status, state) in
        [(Some(0), JobState::Passed), (Some(143), JobState::TimedOut), (None, JobState::TimedOut)]
    {
        let mut shell = Shell::new();
        let agent = shell.agent("one", 1);
        let build = shell.submit(graph(vec![step("a")]));
        let offer = shell.offer(agent);
        shell.start(agent, offer);
        let outcome = Outcome { exit_status, ..shell.ended_by(CauseKind::Timeout) };
        shell.report(agent, offer, outcome);
        shell.settle(offer);
        assert_eq!(shell.states(build), [state], "{exit_status:?}");
    }
}

#[test]
fn an_agent_that_does_not_end_a_job_in_time_loses_it() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step_with("a", |command| command.timeout_ms = Some(1_000))]));
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    let answer_ms = limits::CANCEL_GRACE_MS + limits::STOP_ANSWER_MS;
    let mut left = 1_000 + answer_ms;
    while left > 0 {
        shell.pass(left.min(1_000));
        shell.beat(agent, vec![offer]);
        left = left.saturating_sub(1_000);
    }
    assert_eq!(shell.states(build), [JobState::TimingOut]);
    for _ in 0..answer_ms / 1_000 {
        shell.pass(1_000);
        shell.beat(agent, vec![offer]);
    }
    assert_eq!(shell.states(build), [JobState::TimedOut]);
    let next = shell.submit(graph(vec![step("b")]));
    assert_eq!(shell.states(next), [JobState::Scheduled], "the slot stays taken while the agent holds the job");
    shell.beat(agent, Vec::new());
    assert_eq!(shell.states(next), [JobState::Assigned]);
}

#[test]
fn a_log_that_never_settles_is_marked_and_the_result_counts() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.disconnect(agent);
    shell.pass(limits::LOG_SETTLE_MS);
    assert_eq!(shell.build(build).state, BuildState::Passed);
    assert!(!shell.attempts(shell.job_id(build, 0))[0].log_complete);
    let verdicts = shell.hello(agent, 1, vec![held(offer, Phase::Finished)]);
    assert!(matches!(verdicts[..], [(_, Verdict::Committed | Verdict::Stop)]), "{verdicts:?}");
}

#[test]
fn builds_take_turns_within_a_priority_and_higher_priorities_come_first() {
    let mut shell = Shell::new();
    let slow = shell.submit(graph(vec![step("a0"), step("a1"), step("a2")]));
    let quick = shell.submit(graph(vec![step("b0"), step("b1")]));
    let urgent = shell.submit(graph(vec![step_with("c0", |command| command.priority = 1)]));
    let agent = shell.agent("one", 1);
    let mut order = Vec::new();
    for _ in 0..6 {
        let offers = shell.offers(agent);
        order.push(offers[0].1.label.clone());
        shell.run(agent, (offers[0].1.attempt, offers[0].0), 0);
    }
    assert_eq!(order, ["c0", "a0", "b0", "a1", "b1", "a2"]);
    for build in [slow, quick, urgent] {
        assert_eq!(shell.build(build).state, BuildState::Passed);
    }
}

#[test]
fn resources_are_packed_and_a_large_step_is_not_starved() {
    let mut shell = Shell::new();
    let large = |command: &mut windlass_pipeline::graph::Command| {
        command.resources = Resources { cpu_millis: 2_000, memory_bytes: 0 };
    };
    let agent = shell.agent("one", 2);
    shell.submit(graph(vec![step("small")]));
    let mut running = shell.offer(agent);
    let big = shell.submit(graph(vec![step_with("big", large)]));
    assert_eq!(shell.states(big), [JobState::Scheduled]);
    let mut rounds = 0;
    while shell.states(big) == [JobState::Scheduled] {
        rounds += 1;
        assert!(rounds < 60, "the large step starves");
        shell.submit(graph(vec![step("small")]));
        let next = shell.offers(agent);
        shell.pass(5_000);
        let held: Vec<_> = std::iter::once(running).chain(next.iter().map(|(e, s)| (s.attempt, *e))).collect();
        shell.beat(agent, held.clone());
        shell.run(agent, running, 0);
        if let Some(next) = held.get(1) {
            running = *next;
            shell.start(agent, running);
        } else if let [(epoch, spec)] = &shell.offers(agent)[..] {
            running = (spec.attempt, *epoch);
        }
    }
    assert!(rounds > 10, "it waited for its reservation: {rounds}");
}

#[test]
fn agents_that_are_silent_draining_sick_or_unfit_get_nothing_and_explain_says_why() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let needs_tag = step_with("gpu", |command| command.tags = vec![("gpu".to_owned(), "*".to_owned())]);
    let build = shell.submit(graph(vec![needs_tag]));
    let job = shell.job_id(build, 0);
    assert_eq!(shell.core.explain(job), Some(Why::NoAgent(vec![(Obstacle::Tags, 1)])));
    shell.pass(15_000);
    assert_eq!(shell.state_of(agent), AgentState::Suspect);
    assert_eq!(shell.core.explain(job), Some(Why::NoAgent(vec![(Obstacle::Agent(AgentState::Suspect), 1)])));
    let health = Health { disk_full: true, ..Health::default() };
    shell.says(agent, AgentEvent::Beat { seq: 1, health, held: Vec::new() }).unwrap();
    assert_eq!(shell.state_of(agent), AgentState::Quarantined);
    shell.beat(agent, Vec::new());
    shell
        .request(Request::DrainAgents { agents: vec![agent], deadline_ms: None, on_deadline: OnDeadline::Wait })
        .unwrap();
    assert_eq!(shell.state_of(agent), AgentState::Draining);
    let tags = vec![("gpu".to_owned(), "a100".to_owned())];
    shell.hello_with(agent, Hello { tags, ..greeting("one", 1) });
    assert_eq!(shell.offers(agent).len(), 0, "it still drains");
    shell.request(Request::ResumeAgent { agent }).unwrap();
    assert_eq!(shell.offers(agent).len(), 1);
    let nowhere = shell.submit(graph(vec![step_with("x", |command| command.queue = "other".to_owned())]));
    let why = shell.core.explain(shell.job_id(nowhere, 0)).unwrap();
    assert_eq!(why.to_string(), "no pool serves queue `other` for trusted builds");
}

#[test]
fn a_job_that_does_not_wait_tells_how_it_ended_and_one_that_never_ran_by_whose_fault() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let nodes = vec![step("a"), after(step("b"), &[0]), after(step("c"), &[1]), step("d")];
    let build = shell.submit(graph(nodes));
    let text = |shell: &Shell, job: usize| {
        let jobs: Vec<_> = shell.jobs(build).into_iter().cloned().collect();
        settled(&jobs[job], &jobs)
    };
    let offer = shell.offer(agent);
    shell.run(agent, offer, 7);
    assert_eq!(text(&shell, 0), "it failed with exit status 7");
    assert_eq!(text(&shell, 1), "it did not run: a failed");
    assert_eq!(text(&shell, 2), "it did not run: b did not run either");
    shell.cancel(build);
    assert_eq!(text(&shell, 3), "it is being canceled: enough");
}

#[test]
fn newer_builds_of_a_branch_supersede_older_ones_that_ask_for_it() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let of = |supersede| windlass_pipeline::graph::Graph { supersede, ..graph(vec![step("a")]) };
    let running = shell.submit(of(Supersede::Running));
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    let waiting = shell.submit(of(Supersede::Waiting));
    assert_eq!(shell.build(running).state, BuildState::Canceling);
    let other = shell.submit_with(of(Supersede::Waiting), |submit| submit.branch = "feature".to_owned());
    assert_eq!(shell.build(waiting).state, BuildState::Scheduled);
    shell.submit(of(Supersede::Never));
    assert_eq!(shell.build(waiting).state, BuildState::Skipped);
    assert_eq!(shell.states(waiting), [JobState::Skipped]);
    assert_eq!(shell.build(other).state, BuildState::Scheduled);
    assert_eq!(shell.build(waiting).cause.as_ref().unwrap().kind, CauseKind::Superseded);
}

#[test]
fn a_retry_by_hand_takes_an_ended_build_back_and_what_waited_on_the_failure_runs() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a"), after(step("b"), &[0])]));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 1);
    assert_eq!(shell.states(build), [JobState::Failed, JobState::WaitingFailed]);
    assert!(matches!(shell.request(Request::RetryBuild { build, rows: None }), Err(Rejected::NotInMemory(_))));
    let rows = Some(Box::new(shell.history[&build].clone()));
    shell.request(Request::RetryBuild { build, rows }).unwrap();
    assert_eq!(shell.states(build), [JobState::Assigned, JobState::Waiting]);
    assert_eq!(shell.build(build).state, BuildState::Running);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(shell.build(build).state, BuildState::Passed);
    let job = shell.job_id(build, 0);
    assert_eq!(shell.attempts(job).len(), 2);
}

#[test]
fn a_dependency_that_is_run_again_by_hand_takes_nothing_back_from_what_it_let_run() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a"), after_even_if(step("b"), &[0])]));
    let first = shell.offer(agent);
    shell.run(agent, first, 1);
    let second = shell.offer(agent);
    shell.start(agent, second);
    let job = shell.job_id(build, 0);
    shell.request(Request::RetryJob { job, rows: None }).unwrap();
    assert_eq!(shell.states(build), [JobState::Scheduled, JobState::Assigned]);
    shell.pass(LEASE_MS);
    assert_eq!(shell.states(build), [JobState::Scheduled, JobState::Failed]);
}

#[test]
fn jobs_that_nobody_takes_expire_and_fail_their_build() {
    let mut shell = Shell::new();
    let build = shell.submit(graph(vec![step("a"), after(step("b"), &[0])]));
    shell.pass(limits::JOB_EXPIRY_MS - 1);
    assert_eq!(shell.states(build), [JobState::Scheduled, JobState::Waiting]);
    shell.pass(1);
    assert_eq!(shell.states(build), [JobState::Expired, JobState::WaitingFailed]);
    assert_eq!(shell.build(build).state, BuildState::Failed);
}

#[test]
fn the_job_gets_its_builds_variables_and_later_layers_win() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let node = step_with("a", |command| command.env = vec![pair("WHO", "step"), pair("CI", "no")]);
    shell.submit_with(graph(vec![node]), |submit| submit.env = vec![pair("WHO", "build"), pair("MORE", "build")]);
    let spec = shell.offers(agent).remove(0).1;
    let value = |name: &str| spec.env.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    assert_eq!(value("WHO"), ["step"]);
    assert_eq!(value("MORE"), ["build"]);
    assert_eq!(value("CI"), ["true"]);
    assert_eq!(value("BUILDKITE_BUILD_NUMBER"), ["1"]);
    assert_eq!(value("WINDLASS_ATTEMPT_ID"), [spec.attempt.to_string()]);
}

#[test]
fn a_goodbye_gives_back_what_had_not_been_taken() {
    let mut shell = Shell::new();
    let one = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let offer = shell.offer(one);
    shell.says(one, AgentEvent::Goodbye { reason: "upgrade".to_owned() }).unwrap();
    assert_eq!(shell.states(build), [JobState::Scheduled]);
    assert_eq!(shell.state_of(one), AgentState::Gone);
    shell.hello(one, 1, Vec::new());
    let again = shell.offer(one);
    assert_eq!((again.0, again.1 > offer.1), (offer.0, true));
    assert!(!shell.told[&one].iter().any(|message| matches!(message, CoordinatorMessage::Stop { .. })));
}
