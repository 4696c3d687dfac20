//! What a check tells that upstream finds only at run time: queues, artifacts, services, conditions.

use std::collections::BTreeSet;

use windlass_pipeline::check;

/// Severity, code and place of everything that is said.
fn said(text: &str) -> Vec<String> {
    let found = check(text, "p.yml").diagnostics;
    found.iter().map(|it| format!("{} {} {}:{}", it.severity, it.code, it.span.line, it.span.column)).collect()
}

#[test]
fn a_download_that_no_step_can_satisfy_is_told() {
    let line = |steps: &str| said(&format!("- {{command: 'buildkite-agent artifact download {steps}}}\n"));
    assert_eq!(line("out/a.txt .'"), ["warning artifact-not-uploaded 1:4"]);
    assert_eq!(line("out/a.txt .', artifact_paths: 'out/*.txt'"), Vec::<String>::new());
    assert_eq!(line("out/a.log .', artifact_paths: 'out/*.txt'"), ["warning artifact-not-uploaded 1:4"]);
    assert_eq!(line("--step x \"out/*\" .', artifact_paths: 'other'"), Vec::<String>::new());
    assert_eq!(line("a . --build 7'"), Vec::<String>::new());
    assert_eq!(line("a .'}\n- {command: 'buildkite-agent artifact upload a'"), Vec::<String>::new());
    assert_eq!(line("a .'}\n- {command: 'make | buildkite-agent pipeline upload'"), Vec::<String>::new());
    let plugin = |config: &str| said(&format!("- {{command: x, plugins: [{{artifacts#v1: {config}}}]}}\n"));
    assert_eq!(plugin("{download: a}"), ["warning artifact-not-uploaded 1:4"]);
    assert_eq!(plugin("{download: [{from: a, to: b}]}"), ["warning artifact-not-uploaded 1:4"]);
    assert_eq!(plugin("{download: a, build: b}"), Vec::<String>::new());
    assert_eq!(plugin("{upload: a, download: a}"), Vec::<String>::new());
}

#[test]
fn a_queue_that_nobody_serves_is_an_error_where_it_is_named_first() {
    let text = "
agents: {queue: small}
steps:
  - {command: a}
  - {command: b, agents: ['queue=lagre']}
  - {command: c, agents: {queue: $Q}}
  - {command: d, agents: {os: linux}}
  - {command: e, agents: [queue=lagre]}
  - {wait: ~}
";
    let mut compiled = check(text, "p.yml");
    compiled.check_queues(&BTreeSet::from(["small".to_owned(), "large".to_owned()]));
    let found: Vec<_> = compiled
        .diagnostics
        .iter()
        .map(|it| (it.code, it.message.as_str(), it.hint.as_deref(), it.span.line))
        .collect();
    assert_eq!(
        found,
        [
            ("no-such-queue", "no pool serves the queue `lagre`", Some("did you mean `large`?"), 5),
            ("no-such-queue", "no pool serves the queue `default`", None, 7),
        ]
    );
    assert!(compiled.graph.is_none());
}

#[test]
fn services_are_told_that_do_not_fit_or_are_not_served() {
    let text = "
notify: [{webhook: u}, {slak: c}, {slack: c, if: 'build.state == \"failed\"'}, {webhook: u, if: 'nothing'}]
steps:
  - {command: a, notify: [{email: a@b.c}, github_commit_status, {slack: c, if: 'step.outcome == \"hard_failed\"'}]}
";
    assert_eq!(
        said(text),
        [
            "warning unknown-service 2:25",
            "warning service-not-served 2:36",
            "warning condition 2:96",
            "warning service-level 4:28",
            "warning service-not-served 4:66",
        ]
    );
}

#[test]
fn conditions_are_checked_at_their_place_and_not_decided() {
    let text = "
- {command: a, if: build.branch == 1}
- {command: b, if: \"build.brunch == 'main'\"}
- {command: c, if: $CONDITION}
- {command: d, if: build.branch == 'x', branches: main}
- {group: g, if: '1', steps: [wait]}
- {command: e, if: ' '}
";
    assert_eq!(
        said(text),
        [
            "error condition 2:36",
            "error condition 3:21",
            "warning condition 4:20",
            "warning branches-and-if 5:41",
            "error condition 6:19",
        ]
    );
}

#[test]
fn a_step_that_nearly_is_one_is_an_error_and_another_passes_a_check() {
    assert_eq!(said("[{comand: a}, waitt, {type: comand}]").len(), 3);
    assert!(said("[{comand: a}, waitt, {type: comand}]").iter().all(|it| it.starts_with("error unknown-step")));
    assert!(said("[{llama: a}, catawumpus, {type: mystery}]").iter().all(|it| it.starts_with("warning unknown-step")));
    assert_eq!(said("[{command: {command: a}}]"), ["warning nested-step 1:3"]);
}

#[test]
fn each_service_of_an_item_of_notify_is_an_entry_that_counts() {
    let item = |count: usize| {
        let services: Vec<_> = (0..count).map(|n| format!("s{n}: x")).collect();
        format!("notify: [{{if: build.branch == 'main', {}}}]", services.join(", "))
    };
    let too_many = |text: &str| said(text).iter().any(|said| said.contains("too-many"));
    for (count, is_over) in [(100, false), (101, true)] {
        let item = item(count);
        assert_eq!(too_many(&format!("{item}\nsteps: [{{command: x}}]\n")), is_over, "build {count}");
        assert_eq!(too_many(&format!("steps: [{{command: x, {item}}}]\n")), is_over, "step {count}");
        assert_eq!(too_many(&format!("steps: [{{group: g, {item}, steps: [{{command: x}}]}}]\n")), is_over, "group");
    }
}
