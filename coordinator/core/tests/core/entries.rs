//! Entries of results that are used again: which of them are written, who reads which, and who is told that one went.

use windlass_coordinator_core::input::{Input, Request};
use windlass_coordinator_core::row::*;
use windlass_coordinator_core::{Effect, Policy};
use windlass_pipeline::graph::Reuse;
use windlass_protocol::job::{Epoch, Phase, Source};
use windlass_protocol::message::Hello;
use windlass_protocol::{AgentId, AttemptId, BuildId, Digest, HostFacts, Namespace, Trust, WallMs, limits};

use crate::kit::*;

type Right = (AttemptId, Epoch);

/// A key that says these of the machine it was found out for.
fn keyed(text: &str, system: Option<&str>, hooks: Option<&str>) -> Keyed {
    Keyed {
        key: Digest::of(text.as_bytes()),
        recipe: Digest::of(b"recipe"),
        source: Source::Tree { digest: Digest::of(b"inputs") },
        image: None,
        plugins: std::collections::BTreeMap::new(),
        system: system.map(|text| Digest::of(text.as_bytes())),
        hooks: hooks.map(|text| Digest::of(text.as_bytes())),
        notes: Vec::new(),
        also: Vec::new(),
    }
}

fn facts(system: &str, hooks: Option<&str>) -> HostFacts {
    let hooks = hooks.map(|text| Digest::of(text.as_bytes()));
    HostFacts { platform: "linux/amd64".to_owned(), system: system.to_owned(), hooks }
}

/// A build of one reusable step in this namespace, whose key is answered so.
fn build(shell: &mut Shell, namespace: Namespace, reuse: Reuse, answer: &Keyed) -> BuildId {
    let step = step_with("a", |command| command.reuse = Some(reuse));
    let build = shell.submit_with(graph(vec![step]), |submit| submit.namespace = namespace);
    let asked = shell.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Key { ask, subject } => Some((ask, subject.job)),
        _ => None,
    });
    let (ask, job) = asked.unwrap();
    shell.input(Input::Keyed { job, ask, outcome: Ok(Box::new(answer.clone())) }).unwrap();
    build
}

fn of(text: &str) -> Keyed {
    keyed(text, None, None)
}

fn part(shell: &Shell, build: BuildId) -> KeyedJob {
    shell.job(build, 0).reuse.as_ref().unwrap().keyed().unwrap().clone()
}

fn trusted() -> Namespace {
    Namespace::trusted("app")
}

fn pull(name: &str) -> Namespace {
    Namespace::overlay("app", name)
}

/// Runs an offered attempt that uploads one file of this text.
fn run(shell: &mut Shell, agent: AgentId, offer: Right, text: &str) {
    run_with(shell, agent, offer, (text, text.len() as u64));
}

/// Runs one that uploads a file of so many bytes.
fn run_sized(shell: &mut Shell, agent: AgentId, offer: Right, bytes: u64) {
    run_with(shell, agent, offer, ("large", bytes));
}

fn run_with(shell: &mut Shell, agent: AgentId, offer: Right, (text, bytes): (&str, u64)) {
    shell.start(agent, offer);
    let file = Output {
        path: "out".to_owned(),
        bytes,
        digest: Digest::of(text.as_bytes()),
        sha1: "01".repeat(20),
        sha256: "02".repeat(32),
        content_type: "text/plain".to_owned(),
        executable: false,
    };
    let (attempt, epoch) = offer;
    let speech = Speech { attempt, epoch, call: *attempt.as_bytes(), what: Said::AddArtifacts(vec![file]) };
    shell.request(Request::Speak(Box::new(speech))).unwrap();
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
}

/// An agent of untrusted builds.
fn wild(shell: &mut Shell) -> AgentId {
    let token = shell.pool(PoolRow { trust: Trust::Untrusted, ..pool("wild") });
    let agent = shell.join(token, "wild");
    shell.hello(agent, 8, Vec::new());
    agent
}

#[test]
fn what_an_agent_made_that_is_not_as_the_key_says_is_not_used_again() {
    let own = facts("gcc: 13", Some("none"));
    let cases = [
        (Some("gcc: 13"), Some("none"), None),
        (None, None, None),
        (Some("gcc: 14"), Some("none"), Some("system")),
        (Some("gcc: 13"), Some("some"), Some("hooks")),
    ];
    for (system, hooks, wrong) in cases {
        let mut shell = Shell::new();
        let agent = shell.agent("one", 1);
        shell.hello_with(agent, Hello { host: own.clone(), ..greeting("one", 1) });
        let id = build(&mut shell, trusted(), Reuse::default(), &keyed("k", system, hooks));
        let offer = shell.offer(agent);
        run(&mut shell, agent, offer, "x");
        match (part(&shell, id).kept, wrong) {
            (Some(Kept::Stored), None) => assert_eq!(shell.rows.reuse.len(), 1),
            (Some(Kept::Not(why)), Some(wrong)) => assert!(why.contains(wrong) && shell.rows.reuse.is_empty(), "{why}"),
            other => panic!("{system:?} {hooks:?}: {other:?}"),
        }
    }
    // One that says nothing of itself made nothing for a key that does.
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let id = build(&mut shell, trusted(), Reuse::default(), &keyed("k", Some("gcc: 13"), None));
    let offer = shell.offer(agent);
    run(&mut shell, agent, offer, "x");
    assert!(matches!(part(&shell, id).kept, Some(Kept::Not(_))) && shell.rows.reuse.is_empty());
}

#[test]
fn what_an_agent_made_that_was_changed_meanwhile_is_not_used_again() {
    let cases =
        [("gcc: 13", Some("none"), None), ("gcc: 14", Some("none"), Some("system")), ("gcc: 13", None, Some("hooks"))];
    for (system, hooks, wrong) in cases {
        let mut shell = Shell::new();
        let agent = shell.agent("one", 1);
        shell.hello_with(agent, Hello { host: facts("gcc: 13", Some("none")), ..greeting("one", 1) });
        let id = build(&mut shell, trusted(), Reuse::default(), &keyed("k", Some("gcc: 13"), Some("none")));
        let offer = shell.offer(agent);
        shell.start(agent, offer);
        let held = vec![held(offer, Phase::Running)];
        shell.hello_with(agent, Hello { host: facts(system, hooks), held, ..greeting("one", 1) });
        let outcome = shell.exit(0);
        shell.report(agent, offer, outcome);
        shell.settle(offer);
        match (part(&shell, id).kept, wrong) {
            (Some(Kept::Stored), None) => {}
            (Some(Kept::Not(why)), Some(wrong)) => assert!(why.contains(wrong), "{why}"),
            other => panic!("{system} {hooks:?}: {other:?}"),
        }
    }
}

#[test]
fn the_share_of_hits_that_run_all_the_same_is_the_one_that_the_step_asks_for() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    build(&mut shell, trusted(), Reuse::default(), &of("k"));
    let offer = shell.offer(agent);
    run(&mut shell, agent, offer, "x");
    shell.unchecked = true;
    let quarter = Reuse { verify_ppm: 250_000, ..Reuse::default() };
    let ids: Vec<BuildId> = (0..400).map(|_| build(&mut shell, trusted(), quarter.clone(), &of("k"))).collect();
    let (mut runs, mut hits) = (0, 0);
    for id in ids {
        match part(&shell, id).role {
            Role::Verifies { .. } => runs += 1,
            Role::Reused(_) => hits += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((60..=140).contains(&runs) && runs + hits == 400, "{runs} of 400 run");
}

#[test]
fn an_overlay_s_own_result_comes_before_its_project_s() {
    let mut shell = Shell::new();
    let (agent, wild) = (shell.agent("one", 1), wild(&mut shell));
    let theirs = build(&mut shell, pull("1"), Reuse::default(), &of("k"));
    let offer = shell.offer(wild);
    let ours = build(&mut shell, trusted(), Reuse::default(), &of("k"));
    let trusted_offer = shell.offer(agent);
    run(&mut shell, wild, offer, "theirs");
    run(&mut shell, agent, trusted_offer, "ours");
    assert_eq!(shell.rows.reuse.len(), 2);
    for (namespace, from) in [(pull("1"), theirs), (pull("2"), ours), (trusted(), ours)] {
        let hit = build(&mut shell, namespace.clone(), Reuse::default(), &of("k"));
        let Role::Reused(used) = part(&shell, hit).role else { panic!("{namespace}: {:?}", part(&shell, hit).role) };
        assert_eq!(used.build, from, "{namespace}");
    }
}

#[test]
fn that_a_result_went_is_told_to_those_alone_who_could_have_read_it() {
    let mut shell = Shell::new();
    let (agent, wild) = (shell.agent("one", 1), wild(&mut shell));
    build(&mut shell, pull("1"), Reuse::default(), &of("theirs"));
    let offer = shell.offer(wild);
    run(&mut shell, wild, offer, "x");
    build(&mut shell, trusted(), Reuse::default(), &of("ours"));
    let offer = shell.offer(agent);
    run(&mut shell, agent, offer, "x");
    let unused_since = WallMs(shell.now.wall.0 + 1);
    shell.request(Request::Reuse(ReuseRequest::Forget { unused_since })).unwrap();
    assert!(shell.rows.reuse.is_empty());
    shell.disconnect(agent);
    shell.disconnect(wild);
    let askers = [trusted(), pull("1"), pull("2"), Namespace::trusted("other")];
    // An overlay's is its own alone; the project's is told to all of it.
    for (key, told) in [("theirs", [false, true, false, false]), ("ours", [true, true, true, false])] {
        for (namespace, told) in askers.iter().zip(told) {
            let missed = build(&mut shell, namespace.clone(), Reuse::default(), &of(key));
            assert_eq!(part(&shell, missed).gone.is_some(), told, "{key}, asked by {namespace}");
        }
    }
}

#[test]
fn a_miss_is_compared_with_what_its_namespace_reads_the_newest_first() {
    let mut shell = Shell::new();
    let (agent, wild) = (shell.agent("one", 1), wild(&mut shell));
    for (namespace, key) in [(trusted(), "t1"), (pull("1"), "p1"), (pull("2"), "p2"), (trusted(), "t2")] {
        let trust = namespace.trust();
        build(&mut shell, namespace, Reuse::default(), &of(key));
        let runner = if trust == Trust::Trusted { agent } else { wild };
        let offer = shell.offer(runner);
        run(&mut shell, runner, offer, key);
        shell.now.wall = shell.now.wall.plus_ms(1);
    }
    let names = ["t1", "p1", "p2", "t2"];
    let earlier = |shell: &mut Shell, namespace: Namespace, key: &str| -> Vec<&str> {
        let id = build(shell, namespace.clone(), Reuse::default(), &of(key));
        let (job, at) = (shell.job(id, 0).clone(), part(shell, id).at);
        let found = shell.core.earlier(&namespace, &job, Digest::of(key.as_bytes()), at);
        let name = |row: &ReuseRow| *names.iter().find(|name| Digest::of(name.as_bytes()) == row.name.key).unwrap();
        found.iter().map(name).collect()
    };
    assert_eq!(earlier(&mut shell, trusted(), "new"), ["t2", "t1"]);
    assert_eq!(earlier(&mut shell, pull("1"), "new"), ["t2", "p1", "t1"]);
    assert_eq!(earlier(&mut shell, pull("2"), "t2"), ["p2", "t1"], "not with its own key");
    assert_eq!(earlier(&mut shell, Namespace::trusted("other"), "new"), [""; 0]);
}

#[test]
fn that_an_entry_was_used_is_noted_once_an_hour_and_keeps_it() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    build(&mut shell, trusted(), Reuse::default(), &of("k"));
    let offer = shell.offer(agent);
    run(&mut shell, agent, offer, "x");
    let used_at = |shell: &Shell| shell.rows.reuse.values().next().unwrap().used_at;
    let made = used_at(&shell);
    for (after_ms, noted) in [(limits::REUSE_TOUCH_MS - 1, false), (1, true), (1, false)] {
        shell.now.wall = shell.now.wall.plus_ms(after_ms);
        let before = used_at(&shell);
        let hit = build(&mut shell, trusted(), Reuse::default(), &of("k"));
        assert!(matches!(part(&shell, hit).role, Role::Reused(_)));
        let now = if noted { shell.now.wall } else { before };
        assert_eq!(used_at(&shell), now, "{after_ms} ms later");
    }
    let unused_since = made.plus_ms(1);
    shell.request(Request::Reuse(ReuseRequest::Forget { unused_since })).unwrap();
    assert_eq!(shell.rows.reuse.len(), 1, "it was used since");
}

#[test]
fn overlays_of_a_project_share_a_bound_and_push_out_nothing_that_is_trusted() {
    let mut shell = Shell::new();
    let (agent, wild) = (shell.agent("one", 1), wild(&mut shell));
    let large = limits::REUSE_OVERLAY_MAX_BYTES;
    let fit = limits::REUSE_OVERLAYS_MAX_BYTES / large;
    build(&mut shell, trusted(), Reuse::default(), &of("ours"));
    let offer = shell.offer(agent);
    run_sized(&mut shell, agent, offer, large);
    for nth in 0..=fit {
        shell.now.wall = shell.now.wall.plus_ms(1);
        build(&mut shell, pull(&nth.to_string()), Reuse::default(), &of(&format!("theirs {nth}")));
        let offer = shell.offer(wild);
        run_sized(&mut shell, wild, offer, large);
    }
    let there = |namespace: &Namespace| shell.rows.reuse.keys().any(|name| name.namespace == *namespace);
    assert!(there(&trusted()));
    let kept: Vec<u64> = (0..=fit).filter(|nth| there(&pull(&nth.to_string()))).collect();
    assert_eq!(kept, (1..=fit).collect::<Vec<_>>(), "the one that was used longest ago makes room");
}

#[test]
fn a_run_that_lasted_longer_than_artifacts_are_kept_leaves_nothing_to_use_again() {
    let policy = Policy { artifact_retention_ms: 60_000, ..Policy::default() };
    for (took_ms, kept) in [(59_999, true), (60_000, false)] {
        let mut shell = Shell::with(policy.clone());
        let agent = shell.agent("one", 1);
        let id = build(&mut shell, trusted(), Reuse::default(), &of("k"));
        let offer = shell.offer(agent);
        shell.now.wall = shell.now.wall.plus_ms(took_ms);
        run(&mut shell, agent, offer, "x");
        assert_eq!(part(&shell, id).kept == Some(Kept::Stored), kept, "{:?}", part(&shell, id).kept);
    }
}

#[test]
fn hooks_are_told_of_agents_of_trusted_pools_each_once_and_no_more_than_are_asked_about() {
    let mut shell = Shell::new();
    let says = |shell: &mut Shell, agent: AgentId, name: &str, hooks: Option<&str>| {
        shell.hello_with(agent, Hello { host: facts("", hooks), ..greeting(name, 1) });
    };
    assert_eq!(shell.core.trusted_hooks(), []);
    let stranger = wild(&mut shell);
    says(&mut shell, stranger, "wild", Some("of a stranger"));
    assert_eq!(shell.core.trusted_hooks(), [], "who serves others' builds says nothing of trusted ones");
    for (name, hooks) in [("a", Some("one")), ("b", Some("two")), ("c", Some("one")), ("d", None)] {
        let agent = shell.agent(name, 1);
        says(&mut shell, agent, name, hooks);
    }
    let mut expected = ["one", "two"].map(|text| Digest::of(text.as_bytes()));
    expected.sort();
    assert_eq!(shell.core.trusted_hooks(), expected);
    for nth in 0..limits::FLEET_HOOKS_MAX {
        let name = format!("more {nth}");
        let agent = shell.agent(&name, 1);
        says(&mut shell, agent, &name, Some(&name));
    }
    assert_eq!(shell.core.trusted_hooks().len(), limits::FLEET_HOOKS_MAX);
}
