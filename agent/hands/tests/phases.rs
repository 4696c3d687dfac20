//! The order of a job's phases and the status that they give it, as the reference's tables have them (18.4, 18.7).

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test")]

use windlass_hands::phases::{Act, Ended, Phases, Scope, World, uploaded};
use windlass_hands::plan::{Fault, Files, Git, Plan, Plugin};

/// Everything is there, but for the paths that end so.
#[derive(Debug, Clone)]
struct There {
    missing: Vec<&'static str>,
    artifacts: bool,
    cache: bool,
    skips: bool,
}

impl World for There {
    fn is_hook(&self, path: &[u8]) -> bool {
        let path = std::str::from_utf8(path).unwrap();
        !self.missing.iter().any(|end| path.ends_with(end))
    }

    fn has_artifact_paths(&self) -> bool {
        self.artifacts
    }

    fn has_cache(&self) -> bool {
        self.cache
    }

    fn skips_checkout(&self) -> bool {
        self.skips
    }
}

const ALL: There = There { missing: Vec::new(), artifacts: true, cache: false, skips: false };

const NAMES: [&str; 10] = [
    "environment",
    "pre-checkout",
    "checkout",
    "post-checkout",
    "pre-command",
    "command",
    "post-command",
    "pre-artifact",
    "post-artifact",
    "pre-exit",
];

/// An agent with every hook in two directories, two plugins and a vendored one between them.
fn plan() -> Plan {
    let plugin = |name: &str, vendored| Plugin {
        name: name.into(),
        directory: format!("/plugins/{name}").into(),
        vendored,
        environment: Vec::new(),
    };
    let hooks = ["first", "second"].into_iter().flat_map(|dir| NAMES.map(|name| (name, format!("/{dir}/{name}"))));
    Plan {
        agent_hooks: hooks.map(|(name, path)| (name.into(), path.into())).collect(),
        repository_hooks: true,
        plugins: vec![plugin("p1", false), plugin("v", true), plugin("p2", false)],
        checkout: b"/checkout".to_vec(),
        files: Files::Fetched(b"FETCH_HEAD".to_vec()),
        command: b"true".to_vec(),
        git: Git::default(),
    }
}

fn shown(act: &Act) -> String {
    match act {
        Act::Hook { name, scope: Scope::Agent, path } => {
            let dir = String::from_utf8_lossy(path).split('/').nth(1).unwrap().to_owned();
            format!("{dir} {name}")
        }
        Act::Hook { name, scope: Scope::Repository, .. } => format!("repo {name}"),
        Act::Hook { name, scope: Scope::Plugin(at), .. } => format!("{} {name}", ["p1", "v", "p2"][*at]),
        Act::Checkout => "CHECKOUT".to_owned(),
        Act::Restore => "RESTORE".to_owned(),
        Act::Command => "COMMAND".to_owned(),
        Act::Save => "SAVE".to_owned(),
        Act::Upload => "UPLOAD".to_owned(),
    }
}

/// Runs all; what is named fails with its status.
fn run(plan: &Plan, world: &There, fails: &[(&str, u8)]) -> (Vec<String>, u8, Option<Fault>) {
    let mut phases = Phases::new(plan);
    let mut ran = Vec::new();
    while let Some(act) = phases.next(world) {
        let name = shown(&act);
        let status = fails.iter().find(|(failing, _)| *failing == name).map_or(0, |(_, status)| *status);
        ran.push(name);
        assert!(ran.len() < 100, "it does not end: {ran:?}");
        phases.ended(Ended::with(status));
    }
    let (ended, failure) = phases.verdict();
    (ran, ended.status, failure.and_then(|failure| failure.fault))
}

#[test]
fn all_hooks_run_in_the_reference_s_order() {
    let wanted = [
        // environment: agent, plugins; vendored ones after the checkout.
        "first environment",
        "second environment",
        "p1 environment",
        "p2 environment",
        // pre-checkout: agent, plugins.
        "first pre-checkout",
        "second pre-checkout",
        "p1 pre-checkout",
        "p2 pre-checkout",
        // checkout: the first kind that exists.
        "p1 checkout",
        "p2 checkout",
        // post-checkout: plugins in reverse, repository, agent.
        "p2 post-checkout",
        "p1 post-checkout",
        "repo post-checkout",
        "first post-checkout",
        "second post-checkout",
        "v environment",
        // pre-command: agent, repository, plugins, vendored.
        "first pre-command",
        "second pre-command",
        "repo pre-command",
        "p1 pre-command",
        "p2 pre-command",
        "v pre-command",
        // command: the first kind that exists, all plugins of it.
        "p1 command",
        "p2 command",
        "v command",
        // post-command: plugins in reverse, repository, agent.
        "v post-command",
        "p2 post-command",
        "p1 post-command",
        "repo post-command",
        "first post-command",
        "second post-command",
        // Artifacts: agent, repository, plugins.
        "first pre-artifact",
        "second pre-artifact",
        "repo pre-artifact",
        "p1 pre-artifact",
        "p2 pre-artifact",
        "v pre-artifact",
        "UPLOAD",
        "first post-artifact",
        "second post-artifact",
        "repo post-artifact",
        "p1 post-artifact",
        "p2 post-artifact",
        "v post-artifact",
        // pre-exit: plugins in reverse, repository, agent.
        "v pre-exit",
        "p2 pre-exit",
        "p1 pre-exit",
        "repo pre-exit",
        "first pre-exit",
        "second pre-exit",
    ];
    assert_eq!(run(&plan(), &ALL, &[]), (wanted.map(str::to_owned).to_vec(), 0, None));
}

/// A plan without the hooks of these names in the agent.
fn without(mut plan: Plan, names: &[&str]) -> Plan {
    plan.agent_hooks.retain(|(name, _)| !names.iter().any(|other| other.as_bytes() == name));
    plan
}

#[test]
fn the_first_kind_of_checkout_and_command_hooks_is_all_that_runs() {
    let of = |plan: &Plan, world: &There, word: &str| {
        let ran = run(plan, world, &[]).0.into_iter();
        ran.filter(|name| name.to_lowercase() == word || name.ends_with(&format!(" {word}"))).collect::<Vec<_>>()
    };
    let no_plugins = There { missing: vec!["/plugins/p1/hooks/checkout", "/plugins/p2/hooks/checkout"], ..ALL };
    assert_eq!(of(&plan(), &no_plugins, "checkout"), ["first checkout", "second checkout"]);
    assert_eq!(of(&without(plan(), &["checkout"]), &no_plugins, "checkout"), ["CHECKOUT"]);
    let laid = Plan { files: Files::Laid, ..plan() };
    assert_eq!(of(&laid, &ALL, "checkout"), [""; 0], "a tree that was sent is what was asked for");
    let empty = Plan { files: Files::None, ..plan() };
    assert_eq!(of(&empty, &ALL, "checkout"), ["p1 checkout", "p2 checkout"]);
    let skips = There { skips: true, ..ALL };
    assert_eq!(of(&plan(), &skips, "checkout"), [""; 0]);
    assert_eq!(of(&plan(), &skips, "pre-checkout").len(), 4, "what is around it runs all the same");
    let no_plugins = There { missing: vec!["p1/hooks/command", "p2/hooks/command", "v/hooks/command"], ..ALL };
    assert_eq!(of(&plan(), &no_plugins, "command"), ["repo command"]);
    let neither = There { missing: vec!["/hooks/command"], ..ALL };
    assert_eq!(of(&plan(), &neither, "command"), ["first command", "second command"]);
    assert_eq!(of(&without(plan(), &["command"]), &neither, "command"), ["COMMAND"]);
    let off = Plan { repository_hooks: false, ..plan() };
    assert!(run(&off, &ALL, &[]).0.iter().all(|name| !name.starts_with("repo ")));
}

#[test]
fn after_a_command_that_failed_no_outputs_are_uploaded_and_artifacts_are() {
    let paths = "log/*;out/app;out/**";
    assert_eq!(uploaded(paths, "out/app;out/**", true), paths);
    assert_eq!(uploaded(paths, "out/app;out/**", false), "log/*");
    assert_eq!(uploaded("out/app", "out/app", false), "");
    assert_eq!(uploaded(paths, "", false), paths, "an older coordinator names no outputs");
}

#[test]
fn without_artifact_paths_no_artifact_hook_runs() {
    let ran = run(&plan(), &There { artifacts: false, ..ALL }, &[]).0;
    assert!(ran.iter().all(|name| !name.contains("artifact") && name != "UPLOAD"), "{ran:?}");
}

/// What fails; the status; what fails of the kinds that are causes; the last that ran of its phases and the first after.
type Row = (&'static [(&'static str, u8)], u8, Option<Fault>, &'static str, &'static str);

#[test]
fn a_failure_has_the_status_and_leaves_out_what_the_reference_says() {
    let plain = without(plan(), &["command", "checkout"]);
    let world = There { missing: vec!["/hooks/command", "/hooks/checkout"], ..ALL };
    let table: [Row; 16] = [
        (&[("first environment", 3)], 3, Some(Fault::Hook), "first environment", "v pre-exit"),
        (&[("p1 environment", 4)], 4, Some(Fault::Hook), "p1 environment", "v pre-exit"),
        (&[("second pre-checkout", 5)], 5, Some(Fault::Hook), "second pre-checkout", "v pre-exit"),
        (&[("CHECKOUT", 6)], 6, Some(Fault::Checkout), "CHECKOUT", "v pre-exit"),
        (&[("repo post-checkout", 7)], 7, Some(Fault::Hook), "repo post-checkout", "v pre-exit"),
        (&[("v environment", 8)], 8, Some(Fault::Hook), "v environment", "v pre-exit"),
        // No command and no post-command, but what files there are.
        (&[("repo pre-command", 9)], 9, Some(Fault::Hook), "repo pre-command", "first pre-artifact"),
        (&[("repo pre-command", 9), ("UPLOAD", 2)], 9, Some(Fault::Hook), "UPLOAD", "v pre-exit"),
        (&[("COMMAND", 10)], 10, None, "COMMAND", "v post-command"),
        (&[("p1 post-command", 11)], 11, Some(Fault::Hook), "p1 post-command", "first pre-artifact"),
        (&[("COMMAND", 10), ("p1 post-command", 11)], 11, Some(Fault::Hook), "p1 post-command", "first pre-artifact"),
        (&[("UPLOAD", 12)], 12, None, "UPLOAD", "v pre-exit"),
        (&[("repo pre-artifact", 13)], 13, Some(Fault::Hook), "repo pre-artifact", "v pre-exit"),
        (&[("COMMAND", 10), ("UPLOAD", 12)], 10, None, "UPLOAD", "v pre-exit"),
        (&[("p1 post-command", 11), ("UPLOAD", 12)], 12, None, "UPLOAD", "v pre-exit"),
        (&[("COMMAND", 10), ("repo pre-exit", 14)], 14, Some(Fault::Hook), "repo pre-exit", ""),
    ];
    for (fails, status, fault, last, then) in table {
        let (ran, got, cause) = run(&plain, &world, fails);
        assert_eq!((got, cause), (status, fault), "{fails:?}: {ran:?}");
        let at = ran.iter().position(|name| name == last).unwrap_or_else(|| panic!("{fails:?}: {ran:?}"));
        assert_eq!(ran.get(at + 1).map_or("", String::as_str), then, "{fails:?}: {ran:?}");
    }
}

#[test]
fn a_cache_comes_before_the_command_s_hooks_and_is_kept_of_what_passes_and_never_fails_a_job() {
    let plain = without(plan(), &["command", "checkout"]);
    let world = There { missing: vec!["/hooks/command", "/hooks/checkout"], cache: true, ..ALL };
    let (ran, status, _) = run(&plain, &world, &[("RESTORE", 1), ("SAVE", 9)]);
    assert_eq!(status, 0);
    let after = |what: &str| ran.get(ran.iter().position(|name| name == what).unwrap() + 1).map(String::as_str);
    assert_eq!((after("v environment"), after("RESTORE")), (Some("RESTORE"), Some("first pre-command")), "{ran:?}");
    assert_eq!((after("second post-command"), after("SAVE")), (Some("SAVE"), Some("first pre-artifact")), "{ran:?}");
    for fails in ["COMMAND", "repo post-command", "repo pre-command"] {
        let (ran, status, _) = run(&plain, &world, &[(fails, 3)]);
        assert_eq!(status, 3);
        assert!(!ran.contains(&"SAVE".to_owned()), "{fails}: {ran:?}");
    }
    let (ran, ..) = run(&plain, &There { cache: false, ..world }, &[]);
    assert!(!ran.contains(&"RESTORE".to_owned()) && !ran.contains(&"SAVE".to_owned()), "{ran:?}");
}

#[test]
fn a_failing_command_hook_is_the_command() {
    let (ran, status, fault) = run(&plan(), &ALL, &[("p1 command", 21)]);
    assert_eq!((status, fault), (21, None), "its failure is no phase's");
    assert!(!ran.contains(&"p2 command".to_owned()) && ran.contains(&"repo post-command".to_owned()), "{ran:?}");
}

#[test]
fn a_canceled_job_starts_nothing_but_what_cleans_up() {
    let plain = without(plan(), &["command", "checkout"]);
    let world = There { missing: vec!["/hooks/command", "/hooks/checkout"], ..ALL };
    for (during, then, status) in [
        ("first environment", "v pre-exit", 1),
        ("CHECKOUT", "v pre-exit", 1),
        ("first pre-command", "v pre-exit", 1),
        ("COMMAND", "v post-command", 1),
    ] {
        let mut phases = Phases::new(&plain);
        let mut ran = Vec::new();
        while let Some(act) = phases.next(&world) {
            ran.push(shown(&act));
            if shown(&act) == during {
                phases.cancel();
            }
            phases.ended(Ended::default());
        }
        let at = ran.iter().position(|name| name == during).unwrap();
        assert_eq!(ran[at + 1], then, "{ran:?}");
        assert_eq!(phases.verdict().0.status, status, "a canceled job never passes");
    }
}

#[test]
fn a_plan_is_read_as_it_was_written_and_nothing_else_is_one() {
    let mut whole = plan();
    whole.plugins[0].environment = vec![b"A=1".to_vec(), b"B=\n".to_vec()];
    for files in [Files::None, Files::Laid, Files::CheckedOut, Files::Fetched(b"abc".to_vec())] {
        let plan = Plan { files, ..whole.clone() };
        let bytes = plan.encode().unwrap();
        assert_eq!(Plan::decode(&bytes).unwrap(), plan);
        for cut in 0..bytes.len() {
            assert!(Plan::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Plan::decode(&[bytes.as_slice(), b"x"].concat()).is_err());
    }
}
