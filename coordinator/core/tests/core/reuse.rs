//! Step reuse: who asks for keys, who runs, who waits, whose result is used, and what is never used.

use std::collections::BTreeMap;

use windlass_coordinator_core::effect::ReuseNews;
use windlass_coordinator_core::explain::Why;
use windlass_coordinator_core::input::{Input, Request};
use windlass_coordinator_core::row::*;
use windlass_coordinator_core::{Bugs, Effect, Policy, Rejected};
use windlass_pipeline::graph::{Node, Reuse, Secret, StatusMatch};
use windlass_protocol::job::{Epoch, Phase, Source};
use windlass_protocol::{AgentId, AttemptId, BuildId, Digest, JobId, Namespace, Trust, WallMs, limits};

use crate::kit::*;

type Right = (AttemptId, Epoch);

/// A step that may be used again.
fn reusable(label: &str) -> Node {
    step_with(label, |command| command.reuse = Some(Reuse::default()))
}

fn keyed(text: &str) -> Keyed {
    Keyed {
        key: Digest::of(text.as_bytes()),
        recipe: Digest::of(b"recipe"),
        source: Source::Tree { digest: Digest::of(b"inputs") },
        image: None,
        plugins: BTreeMap::new(),
        system: None,
        hooks: None,
        notes: Vec::new(),
        also: Vec::new(),
    }
}

/// The questions that the core has asked since the last time.
fn asked(shell: &mut Shell) -> Vec<(u64, KeySubject)> {
    let effects = shell.take_effects().into_iter();
    effects.filter_map(|it| if let Effect::Key { ask, subject } = it { Some((ask, *subject)) } else { None }).collect()
}

fn news(shell: &mut Shell) -> Vec<ReuseNews> {
    let effects = shell.take_effects().into_iter();
    effects.filter_map(|it| if let Effect::Reuse(news) = it { Some(news) } else { None }).collect()
}

/// Answers all questions with this key.
fn answer(shell: &mut Shell, text: &str) {
    for (ask, subject) in asked(shell) {
        let outcome = Ok(Box::new(keyed(text)));
        shell.input(Input::Keyed { job: subject.job, ask, outcome }).unwrap();
    }
}

/// A build of one reusable step, whose key is known.
fn build(shell: &mut Shell, text: &str) -> BuildId {
    build_in(shell, text, Namespace::trusted("app"))
}

fn build_in(shell: &mut Shell, text: &str, namespace: Namespace) -> BuildId {
    let build = shell.submit_with(graph(vec![reusable("a")]), |submit| submit.namespace = namespace);
    answer(shell, text);
    build
}

fn state(shell: &Shell, build: BuildId) -> JobState {
    shell.job(build, 0).state
}

fn part(shell: &Shell, build: BuildId) -> KeyedJob {
    shell.job(build, 0).reuse.as_ref().unwrap().keyed().unwrap().clone()
}

fn file(path: &str, text: &str) -> Output {
    Output {
        path: path.to_owned(),
        bytes: text.len() as u64,
        digest: Digest::of(text.as_bytes()),
        sha1: "01".repeat(20),
        sha256: "02".repeat(32),
        content_type: "text/plain".to_owned(),
        executable: false,
    }
}

fn say(shell: &mut Shell, (attempt, epoch): Right, what: Said) {
    let call = *attempt.as_bytes();
    shell.request(Request::Speak(Box::new(Speech { attempt, epoch, call, what }))).unwrap();
}

/// Runs an offered attempt that uploads a file.
fn run_with(shell: &mut Shell, agent: AgentId, offer: Right, path: &str, text: &str) {
    run_with_file(shell, agent, offer, file(path, text));
}

fn run_with_file(shell: &mut Shell, agent: AgentId, offer: Right, file: Output) {
    shell.start(agent, offer);
    say(shell, offer, Said::AddArtifacts(vec![file]));
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
}

#[test]
fn a_second_build_ends_with_the_first_one_s_result_and_runs_nothing() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    let first = build(&mut shell, "k");
    let offer = shell.offer(agent);
    run_with(&mut shell, agent, offer, "out/a.txt", "a");
    assert_eq!(part(&shell, first).kept, Some(Kept::Stored));
    shell.artifacts.clear();
    let second = build(&mut shell, "k");
    assert_eq!(shell.build(second).state, BuildState::Passed);
    assert!(shell.build(second).started_at.is_some());
    assert!(shell.offers(agent).is_empty());
    let Role::Reused(from) = part(&shell, second).role else { panic!("{:?}", part(&shell, second)) };
    assert_eq!((from.build, from.attempt, from.number), (first, offer.0, 1));
    let attempt = shell.attempts(shell.job_id(second, 0)).pop().unwrap();
    assert_eq!(attempt.reused.as_deref(), Some(&*from));
    assert_eq!((attempt.state, attempt.epoch, attempt.artifacts.count), (AttemptState::Finished, Epoch(0), 1));
    let rows: Vec<_> = shell.artifacts.iter().map(|row| (row.path.as_str(), row.attempt, row.digest)).collect();
    assert_eq!(rows, [("out/a.txt", attempt.id, Digest::of(b"a"))]);
}

#[test]
fn a_job_that_asks_for_its_key_stands_in_no_line_and_says_so() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let id = shell.submit_with(graph(vec![reusable("a")]), |submit| {
        submit.env = vec![("SECRETISH".to_owned(), "1".to_owned())];
    });
    let job = shell.job_id(id, 0);
    assert_eq!(shell.core.explain(job), Some(Why::Keying));
    assert!(shell.offers(agent).is_empty());
    let (ask, subject) = asked(&mut shell).pop().unwrap();
    assert!(subject.env.contains(&("SECRETISH".to_owned(), "1".to_owned())) && subject.declared.is_empty());
    shell.input(Input::Keyed { job, ask, outcome: Ok(Box::new(keyed("k"))) }).unwrap();
    let (_, spec) = shell.offers(agent).pop().unwrap();
    assert_eq!(spec.source, Source::Tree { digest: Digest::of(b"inputs") }, "only what is declared");
    assert!(!spec.env.iter().any(|(name, _)| name == "SECRETISH"), "nobody declared it");
    let again = shell.input(Input::Keyed { job, ask, outcome: Ok(Box::new(keyed("k"))) });
    assert_eq!(again, Err(Rejected::NotAsked(job)));
}

#[test]
fn a_key_that_is_not_found_out_makes_an_ordinary_step_that_says_why() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    let late = shell.submit(graph(vec![reusable("a")]));
    for _ in 0..limits::REUSE_KEY_MAX_MS / 5_000 {
        shell.pass(5_000);
        shell.beat(agent, Vec::new());
    }
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(shell.build(late).state, BuildState::Passed);
    assert!(matches!(&shell.job(late, 0).reuse, Some(JobReuse::Unkeyed(it)) if it.why.contains("60 s")));
    asked(&mut shell);
    let none = shell.submit(graph(vec![reusable("a")]));
    let (ask, subject) = asked(&mut shell).pop().unwrap();
    let outcome = Err(Unkeyed { why: "it has no image".to_owned() });
    shell.input(Input::Keyed { job: subject.job, ask, outcome }).unwrap();
    assert_eq!(state(&shell, none), JobState::Assigned);
    assert!(shell.rows.reuse.is_empty());
}

#[test]
fn questions_are_bounded_and_each_comes_to_its_turn() {
    let mut shell = Shell::new();
    let nodes = (0..limits::REUSE_ASKED_MAX + 3).map(|n| reusable(&format!("s{n}"))).collect();
    shell.submit(graph(nodes));
    let out = asked(&mut shell);
    assert_eq!(out.len(), limits::REUSE_ASKED_MAX);
    let (ask, first) = &out[0];
    shell.input(Input::Keyed { job: first.job, ask: *ask, outcome: Ok(Box::new(keyed("k"))) }).unwrap();
    assert_eq!(asked(&mut shell).len(), 1);
    shell.pass(limits::REUSE_KEY_MAX_MS);
    assert_eq!(asked(&mut shell).len(), 2);
}

#[test]
fn whoever_has_thousands_of_steps_that_nobody_answers_for_keeps_nobody_else_waiting() {
    let mut shell = Shell::new();
    let pull = |n: usize| Namespace::overlay("app", &format!("pr:{n}"));
    let many = || graph((0..500).map(|n| reusable(&format!("s{n}"))).collect());
    shell.submit_with(many(), |submit| submit.namespace = pull(1));
    let hostile = asked(&mut shell);
    assert_eq!(hostile.len(), limits::REUSE_ASKED_UNTRUSTED_MAX, "places are left to who is trusted");
    let trusted = shell.submit_with(graph(vec![reusable("a")]), |submit| submit.namespace = Namespace::trusted("app"));
    let out = asked(&mut shell);
    assert_eq!(out.iter().map(|(_, subject)| subject.build).collect::<Vec<_>>(), [trusted], "at once");
    // Of strangers, whoever has fewer questions out comes first.
    let other = shell.submit_with(graph(vec![reusable("a")]), |submit| submit.namespace = pull(2));
    let (ask, first) = &hostile[0];
    shell.input(Input::Keyed { job: first.job, ask: *ask, outcome: Ok(Box::new(keyed("k"))) }).unwrap();
    let next: Vec<_> = asked(&mut shell).into_iter().map(|(_, subject)| subject.build).collect();
    assert_eq!(next, [other]);
}

#[test]
fn of_two_identical_steps_one_runs_and_the_other_waits_in_no_line() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 4);
    let (first, second) = (build(&mut shell, "k"), build(&mut shell, "k"));
    let offer = shell.offer(agent);
    assert_eq!((state(&shell, first), state(&shell, second)), (JobState::Assigned, JobState::Scheduled));
    let why = shell.core.explain(shell.job_id(second, 0));
    assert_eq!(why, Some(Why::Follows { number: 1, step: "a".to_owned() }));
    let other = build(&mut shell, "another");
    assert_eq!(state(&shell, other), JobState::Assigned);
    shell.offers(agent);
    shell.run(agent, offer, 0);
    assert_eq!((state(&shell, first), state(&shell, second)), (JobState::Passed, JobState::Passed));
    assert!(shell.offers(agent).is_empty());
}

#[test]
fn nobody_waits_for_a_step_that_no_agent_has() {
    let mut shell = Shell::new();
    let far = step_with("a", |command| {
        command.reuse = Some(Reuse::default());
        command.queue = "far".to_owned();
    });
    let stuck = shell.submit(graph(vec![far]));
    answer(&mut shell, "k");
    let agent = shell.agent("one", 1);
    let near = build(&mut shell, "k");
    assert_eq!((state(&shell, stuck), state(&shell, near)), (JobState::Scheduled, JobState::Assigned));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!((state(&shell, stuck), state(&shell, near)), (JobState::Passed, JobState::Passed));
}

#[test]
fn a_failure_is_inherited_by_nobody_and_one_of_those_that_waited_runs() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 4);
    let builds = [build(&mut shell, "k"), build(&mut shell, "k"), build(&mut shell, "k")];
    let states = |shell: &Shell| builds.map(|build| state(shell, build));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 1);
    assert_eq!(states(&shell), [JobState::Failed, JobState::Assigned, JobState::Scheduled]);
    let offer = shell.offer(agent);
    shell.cancel(builds[1]);
    assert_eq!(
        states(&shell),
        [JobState::Failed, JobState::Canceling, JobState::Assigned],
        "as soon as it is canceled"
    );
    let last = shell.offer(agent);
    let outcome = shell.ended_by(windlass_protocol::CauseKind::Canceled);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
    shell.run(agent, last, 0);
    assert_eq!(states(&shell), [JobState::Failed, JobState::Canceled, JobState::Passed]);
    assert_eq!(shell.rows.reuse.len(), 1);
}

#[test]
fn when_the_one_that_runs_is_lost_another_takes_its_place() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let (first, second) = (build(&mut shell, "k"), build(&mut shell, "k"));
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    let other = shell.agent("two", 1);
    assert!(shell.offers(other).is_empty());
    for _ in 0..14 {
        shell.pass(5_000);
        shell.beat(other, Vec::new());
    }
    assert_eq!((state(&shell, first), state(&shell, second)), (JobState::Failed, JobState::Assigned));
    let offer = shell.offer(other);
    shell.run(other, offer, 0);
    assert_eq!(state(&shell, second), JobState::Passed);
}

#[test]
fn a_retry_is_waited_for_no_more_than_anybody_else_and_uses_what_there_is_by_then() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let again = step_with("a", |command| {
        command.reuse = Some(Reuse::default());
        command.retry = vec![retry_on(StatusMatch::Any, 2)];
    });
    let first = shell.submit(graph(vec![again]));
    answer(&mut shell, "k");
    let second = build(&mut shell, "k");
    let offer = shell.offer(agent);
    shell.run(agent, offer, 1);
    // Builds take turns: the second one is served now, and the first waits for it.
    assert_eq!((state(&shell, first), state(&shell, second)), (JobState::Scheduled, JobState::Assigned));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!((state(&shell, first), state(&shell, second)), (JobState::Passed, JobState::Passed));
    assert_eq!(shell.attempts(shell.job_id(first, 0)).len(), 2);
}

#[test]
fn what_is_untrusted_uses_what_is_trusted_and_never_the_other_way() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    let token = shell.pool(PoolRow { trust: Trust::Untrusted, ..pool("wild") });
    let wild = shell.join(token, "wild");
    shell.hello(wild, 4, Vec::new());
    let (one, two) = (Namespace::overlay("app", "1"), Namespace::overlay("app", "2"));
    let evil = build_in(&mut shell, "k", one.clone());
    let offer = shell.offer(wild);
    run_with(&mut shell, wild, offer, "out", "evil");
    assert_eq!(part(&shell, evil).kept, Some(Kept::Stored));
    let (other, ours) = (build_in(&mut shell, "k", two.clone()), build(&mut shell, "k"));
    assert_eq!((state(&shell, other), state(&shell, ours)), (JobState::Assigned, JobState::Assigned));
    let own = build_in(&mut shell, "k", one);
    assert_eq!(state(&shell, own), JobState::Passed, "its own");
    let offer = shell.offer(agent);
    run_with(&mut shell, agent, offer, "out", "good");
    let third = build_in(&mut shell, "k", Namespace::overlay("app", "3"));
    assert_eq!(state(&shell, third), JobState::Passed);
    let Role::Reused(from) = part(&shell, third).role else { panic!() };
    assert_eq!(from.build, ours);
    let elsewhere = build_in(&mut shell, "k", Namespace::trusted("other"));
    assert_eq!(state(&shell, elsewhere), JobState::Assigned, "another project");
}

#[test]
fn an_overlay_s_job_in_its_line_uses_the_trusted_result_that_comes_meanwhile() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let pull = build_in(&mut shell, "k", Namespace::overlay("app", "1"));
    let ours = build(&mut shell, "k");
    assert_eq!((state(&shell, pull), state(&shell, ours)), (JobState::Scheduled, JobState::Assigned));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(state(&shell, pull), JobState::Passed);
}

#[test]
#[should_panic(expected = "reads nothing of")]
fn an_entry_that_is_read_by_whoever_has_its_key_breaks_i12() {
    let bugs = Bugs { read_any_entry: true, ..Bugs::default() };
    let mut shell = Shell::with(Policy { bugs, ..Policy::default() });
    let token = shell.pool(PoolRow { trust: Trust::Untrusted, ..pool("wild") });
    let wild = shell.join(token, "wild");
    shell.hello(wild, 1, Vec::new());
    build_in(&mut shell, "k", Namespace::overlay("app", "1"));
    let offer = shell.offer(wild);
    shell.run(wild, offer, 0);
    build(&mut shell, "k");
}

#[test]
fn two_leases_of_one_key_break_i14() {
    let bugs = Bugs { follow_nobody: true, ..Bugs::default() };
    let mut shell = Shell::with(Policy { bugs, ..Policy::default() });
    build(&mut shell, "k");
    build(&mut shell, "k");
    assert_eq!(shell.broken, None);
    shell.agent("one", 1);
    assert_eq!(shell.broken.map(|broken| broken.invariant), Some("I14"));
}

#[test]
fn an_attempt_that_spoke_of_its_build_leaves_nothing_to_use_again() {
    let meta = Said::SetMetaData(BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    let first = build(&mut shell, "k");
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    say(&mut shell, offer, meta);
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
    assert_eq!(part(&shell, first).kept, Some(Kept::Not("it set meta-data".to_owned())));
    let second = build(&mut shell, "k");
    assert_eq!(state(&shell, second), JobState::Assigned);
    let (attempt, epoch) = shell.offer(agent);
    let spoil = |epoch| Request::Reuse(ReuseRequest::Spoil { attempt, epoch, why: "it read meta-data" });
    assert!(shell.request(spoil(Epoch(99))).is_err());
    shell.request(spoil(epoch)).unwrap();
    shell.run(agent, (attempt, epoch), 0);
    assert_eq!(part(&shell, second).kept, Some(Kept::Not("it read meta-data".to_owned())));
    assert!(shell.rows.reuse.is_empty());
}

#[test]
fn a_log_that_is_not_whole_and_too_many_files_leave_nothing_to_use_again() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    let first = build(&mut shell, "k");
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    let (attempt, epoch) = offer;
    shell.input(Input::LogSettled { attempt, epoch, settled: Err("no".to_owned()) }).unwrap();
    assert_eq!(part(&shell, first).kept, Some(Kept::Not("its log is not whole".to_owned())));
    let second = build(&mut shell, "k");
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    let files = (0..=limits::REUSE_OUTPUTS_MAX).map(|n| file(&n.to_string(), "x")).collect();
    say(&mut shell, offer, Said::AddArtifacts(files));
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
    assert!(matches!(part(&shell, second).kept, Some(Kept::Not(why)) if why.contains("more than 1000 files")));
}

#[test]
fn a_restart_keeps_entries_keys_and_who_waits_for_whom() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 4);
    let (first, second) = (build(&mut shell, "k"), build(&mut shell, "k"));
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    say(&mut shell, offer, Said::AddArtifacts(vec![file("out", "x")]));
    let third = shell.submit(graph(vec![reusable("a")]));
    shell.take_effects();
    shell.restart();
    answer(&mut shell, "k");
    assert_eq!(state(&shell, third), JobState::Scheduled, "asked again, and it waits");
    let follows = Some(Why::Follows { number: 1, step: "a".to_owned() });
    assert_eq!(shell.core.explain(shell.job_id(second, 0)), follows);
    shell.hello(agent, 4, vec![held(offer, Phase::Running)]);
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
    assert_eq!([first, second, third].map(|build| state(&shell, build)), [JobState::Passed; 3]);
    shell.restart();
    let later = build(&mut shell, "k");
    assert_eq!(state(&shell, later), JobState::Passed);
    assert_eq!(shell.attempts(shell.job_id(later, 0))[0].artifacts.count, 1, "uploaded before the restart");
}

#[test]
fn a_build_without_reuse_runs_and_its_result_takes_the_place_of_the_former() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    build(&mut shell, "k");
    let offer = shell.offer(agent);
    run_with(&mut shell, agent, offer, "out", "old");
    let fresh = shell.submit_with(graph(vec![reusable("a")]), |submit| submit.no_reuse = true);
    answer(&mut shell, "k");
    let offer = shell.offer(agent);
    run_with(&mut shell, agent, offer, "out", "new");
    assert_eq!(part(&shell, fresh).kept, Some(Kept::Stored));
    let entry = shell.rows.reuse.values().next().unwrap();
    assert_eq!((entry.from.build, entry.outputs[0].digest), (fresh, Digest::of(b"new")));
}

#[test]
fn who_runs_a_passed_job_again_by_hand_has_it_run() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    let step = || {
        step_with("a", |command| {
            command.reuse = Some(Reuse::default());
            command.manual_retry.permit_on_passed = true;
            command.manual_retry.allowed = true;
        })
    };
    shell.submit(graph(vec![step()]));
    answer(&mut shell, "k");
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    let second = shell.submit(graph(vec![step()]));
    answer(&mut shell, "k");
    assert_eq!(shell.build(second).state, BuildState::Passed);
    let (job, rows) = (shell.job_id(second, 0), Some(Box::new(shell.history[&second].clone())));
    shell.request(Request::RetryJob { job, rows }).unwrap();
    answer(&mut shell, "k");
    assert_eq!(state(&shell, second), JobState::Assigned);
}

#[test]
fn a_hit_gives_files_with_the_modes_that_the_run_gave_them() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    build(&mut shell, "k");
    let offer = shell.offer(agent);
    run_with_file(&mut shell, agent, offer, Output { executable: true, ..file("out", "x") });
    let second = build(&mut shell, "k");
    assert_eq!(state(&shell, second), JobState::Passed);
    let modes: Vec<_> = shell.artifacts.iter().map(|row| (row.build == second, row.executable)).collect();
    assert_eq!(modes, [(false, true), (true, true)]);
}

#[test]
fn a_share_of_hits_is_run_all_the_same_and_a_difference_is_told() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    let step = |ppm| step_with("a", |command| command.reuse = Some(Reuse { verify_ppm: ppm, ..Reuse::default() }));
    build(&mut shell, "k");
    let offer = shell.offer(agent);
    run_with(&mut shell, agent, offer, "out", "x");
    let differs = || Kept::Differs(String::new());
    let program = Output { executable: true, ..file("out", "x") };
    for (made, kept) in [(file("out", "x"), Kept::Same), (file("out", "y"), differs()), (program, differs())] {
        let id = shell.submit(graph(vec![step(1_000_000)]));
        answer(&mut shell, "k");
        let offer = shell.offer(agent);
        shell.take_effects();
        run_with_file(&mut shell, agent, offer, made);
        let found = part(&shell, id).kept.unwrap();
        assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&kept), "{found:?}");
        let told = news(&mut shell);
        let alarm = told.iter().any(|it| matches!(it, ReuseNews::Differs { build, .. } if *build == id));
        assert_eq!(alarm, kept != Kept::Same, "{told:?}");
    }
    assert!(shell.events.iter().any(|event| matches!(event, BuildEvent::ReuseDiffers { .. })));
    assert_eq!(shell.rows.reuse.values().next().unwrap().outputs[0].digest, Digest::of(b"x"), "the entry stays");
    let none = shell.submit(graph(vec![step(0)]));
    answer(&mut shell, "k");
    assert_eq!(shell.build(none).state, BuildState::Passed);
}

#[test]
fn entries_are_bounded_and_one_that_went_is_remembered() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    let third = limits::REUSE_TRUSTED_MAX_BYTES / 3;
    for key in ["a", "b", "c", "d"] {
        build(&mut shell, key);
        let offer = shell.offer(agent);
        shell.start(agent, offer);
        say(&mut shell, offer, Said::AddArtifacts(vec![Output { bytes: third, ..file("out", key) }]));
        let outcome = shell.exit(0);
        shell.report(agent, offer, outcome);
        shell.settle(offer);
        shell.now.wall = shell.now.wall.plus_ms(1);
    }
    let there = |shell: &Shell, key: &str| {
        let name = ReuseName { namespace: Namespace::trusted("app"), key: Digest::of(key.as_bytes()) };
        shell.rows.reuse.contains_key(&name)
    };
    assert_eq!(["a", "b", "c", "d"].map(|key| there(&shell, key)), [false, true, true, true]);
    let missed = build(&mut shell, "a");
    assert!(matches!(part(&shell, missed).gone, Some((Gone::Size, _))));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert!(there(&shell, "a") && shell.rows.reuse_gone.is_empty(), "it is here again");
    let unused_since = WallMs(shell.now.wall.0 + 1);
    shell.request(Request::Reuse(ReuseRequest::Forget { unused_since })).unwrap();
    assert!(shell.rows.reuse.is_empty());
    let missed = build(&mut shell, "a");
    assert!(matches!(part(&shell, missed).gone, Some((Gone::Unused, _))));
}

#[test]
fn steps_that_lie_behind_a_hit_go_on_and_their_questions_name_what_it_left() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 2);
    build(&mut shell, "k");
    let offer = shell.offer(agent);
    run_with(&mut shell, agent, offer, "out", "x");
    let id = shell.submit(graph(vec![reusable("a"), after(reusable("b"), &[0])]));
    answer(&mut shell, "k");
    let hit: JobId = shell.job_id(id, 0);
    assert_eq!(shell.states(id), [JobState::Passed, JobState::Scheduled]);
    let (_, subject) = asked(&mut shell).pop().unwrap();
    let left = shell.attempts(hit).pop().unwrap().id;
    assert_eq!(subject.made_by, BTreeMap::from([(left, "a".to_owned())]));
}

#[test]
fn a_job_whose_agent_comes_back_with_it_asks_for_its_key_no_more() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let again = step_with("a", |command| {
        command.reuse = Some(Reuse::default());
        command.interruptible = true;
    });
    let id = shell.submit(graph(vec![again, step("b")]));
    answer(&mut shell, "k");
    let other = shell.agent("two", 1);
    let (mine, theirs) = match shell.offers(agent).pop() {
        Some((epoch, spec)) if spec.label == "a" => ((spec.attempt, epoch), shell.offer(other)),
        first => {
            let second = shell.offers(other).pop().unwrap();
            let first = first.unwrap();
            ((second.1.attempt, second.0), (first.1.attempt, first.0))
        }
    };
    let (silent, speaker) = if shell.rows.attempts[&mine.0].agent == agent { (agent, other) } else { (other, agent) };
    shell.start(silent, mine);
    shell.start(speaker, theirs);
    for _ in 0..14 {
        shell.pass(5_000);
        shell.beat(speaker, vec![theirs]);
    }
    assert_eq!(state(&shell, id), JobState::Scheduled, "lost, and in its line again");
    let (job, change) = (shell.job_id(id, 0), StepChange::Label { text: "new".to_owned(), append: false });
    say(&mut shell, theirs, Said::UpdateStep { job, change });
    assert_eq!(shell.core.explain(job), Some(Why::Keying), "its step has changed");
    shell.hello(silent, 1, vec![held(mine, Phase::Running)]);
    assert_eq!(state(&shell, id), JobState::Assigned);
}

#[test]
fn a_secret_has_a_version_for_trusted_builds_alone_and_another_one_when_it_is_set_again() {
    let mut shell = Shell::new();
    let set = |shell: &mut Shell, zone: Option<&str>| {
        let zone = zone.map(str::to_owned);
        let name = SecretName { key: "TOKEN".to_owned(), pipeline: None, branch: None, zone };
        let sealed = Sealed { key_id: "k".to_owned(), nonce: "00".to_owned(), bytes: "11".to_owned() };
        shell.request(Request::Secret(Box::new(SecretRequest::Set { name, sealed }))).unwrap();
        shell.now.wall = shell.now.wall.plus_ms(1);
    };
    let version = |shell: &mut Shell, namespace: Namespace| {
        let step = step_with("a", |command| {
            command.reuse = Some(Reuse { secrets: true, ..Reuse::default() });
            command.secrets = vec![Secret { key: "TOKEN".to_owned(), env: "TOKEN".to_owned() }];
        });
        shell.submit_with(graph(vec![step]), |submit| submit.namespace = namespace);
        asked(shell).pop().unwrap().1.secrets.remove("TOKEN").unwrap()
    };
    let trusted = || Namespace::trusted("app");
    assert!(version(&mut shell, trusted()).is_err(), "there is none");
    set(&mut shell, None);
    let first = version(&mut shell, trusted()).unwrap();
    assert_eq!(version(&mut shell, trusted()), Ok(first.clone()));
    assert!(version(&mut shell, Namespace::overlay("app", "1")).unwrap_err().contains("untrusted"));
    set(&mut shell, None);
    assert_ne!(version(&mut shell, trusted()), Ok(first));
    set(&mut shell, Some("east"));
    assert!(version(&mut shell, trusted()).unwrap_err().contains("zone"));
}

#[test]
fn what_live_builds_and_results_need_of_the_cache_is_told_and_of_builds_that_are_over_nothing() {
    use windlass_coordinator_core::roots::Root;
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let (inputs, recipe) = (Digest::of(b"inputs"), Digest::of(b"recipe"));
    let source = Source::Tree { digest: Digest::of(b"source") };
    let submit = |shell: &mut Shell| {
        let build =
            shell.submit_with(graph(vec![reusable("a"), reusable("b")]), |submit| submit.origin = source.clone());
        answer(shell, "k");
        build
    };
    assert_eq!((shell.core.roots_of_builds(None), shell.core.roots_of_results(None)), ((vec![], None), (vec![], None)));
    let first = submit(&mut shell);
    let all = vec![Root::Tree(Digest::of(b"source")), Root::Tree(inputs), Root::Recipe(recipe)];
    let sorted = |(mut roots, next): (Vec<Root>, Option<BuildId>)| {
        roots.sort();
        assert_eq!(next, None);
        roots
    };
    let mut wanted = all.clone();
    wanted.sort();
    assert_eq!(sorted(shell.core.roots_of_builds(None)), wanted, "before it runs");
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    assert_eq!(sorted(shell.core.roots_of_builds(None)), wanted, "while it runs");
    assert_eq!(shell.core.roots_of_builds(Some(first)), (vec![], None), "after it comes none");
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
    assert_eq!(state(&shell, first), JobState::Passed);
    assert_eq!(shell.core.roots_of_builds(None), (vec![], None), "it is over: both steps have one key");
    let kept = vec![Root::Recipe(recipe), Root::Inputs(inputs)];
    assert_eq!(shell.core.roots_of_results(None), (kept, None), "its result is there");
    let name = ReuseName { namespace: Namespace::trusted("app"), key: keyed("k").key };
    assert_eq!(shell.core.roots_of_results(Some(&name)), (vec![], None));
}
