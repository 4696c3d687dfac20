//! What waits for what once gates, groups and conditions are there (reference 5, 6.1, 6.2).

#![allow(clippy::panic, clippy::unwrap_used, reason = "the tests' own helpers fail by panicking")]

use std::fmt::Write as _;

use windlass_pipeline::condition::{Context, Value};
use windlass_pipeline::graph::{Feature, Field, FieldKind, Gate, Graph, InsertError, NodeKind};
use windlass_pipeline::{Inputs, compile, compile_with};

/// Compiles for a build of branch `main`.
fn graph(text: &str) -> Graph {
    let branch = [("BUILDKITE_BRANCH".to_owned(), "main".to_owned())];
    let mut context = Context::default();
    context.set("build.branch", Value::Text("main".to_owned())).unwrap();
    let inputs = Inputs { standard_env: &branch, context: Some(&context), ..Inputs::default() };
    let compiled = compile_with(text, "pipeline.yml", &inputs);
    let rendered = compiled.render(text);
    compiled.graph.unwrap_or_else(|| panic!("{rendered}"))
}

/// One line a node: index, label, what it waits for (`?` marks a dependency that may fail), and what became of it.
fn shape(graph: &Graph) -> String {
    let mut text = String::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let edges: Vec<String> = node
            .depends_on
            .iter()
            .map(|edge| format!("{}{}", edge.node, if edge.allow_failure { "?" } else { "" }))
            .chain(node.unresolved.iter().map(|missing| format!("`{}`", missing.key)))
            .collect();
        let waits = if edges.is_empty() { "nothing".to_owned() } else { edges.join(" ") };
        let fate = node.broken.map(|broken| format!(" ({broken:?})").to_lowercase()).unwrap_or_default();
        let skip = node.skip.as_ref().map(|why| format!(" (skip: {why})")).unwrap_or_default();
        let _ = writeln!(text, "{index} {} <- {waits}{fate}{skip}", node.label);
    }
    text
}

#[test]
fn a_block_is_a_barrier_and_an_input_is_none() {
    insta::assert_snapshot!(shape(&graph("
- {command: a}
- input: ask
- {command: b}
- block: release
- {command: c}
- {trigger: other}
- wait
")), @"
    0 a <- nothing
    1 ask <- nothing
    2 b <- nothing
    3 release <- 0 1 2
    4 c <- 3
    5 other <- 3
    6 wait <- 3 4 5
    ");
}

#[test]
fn a_wait_beside_a_block_is_merged_away_unless_it_survived_a_condition() {
    insta::assert_snapshot!(shape(&graph("
- {command: a}
- {wait: ~, continue_on_failure: true}
- wait
- block: release
- wait
- {command: b}
- {wait: ~, if: 'build.branch == \"main\"'}
- block: again
- {command: c}
")), @"
    0 a <- nothing
    1 wait <- nothing (merged)
    2 wait <- nothing (merged)
    3 release <- 0
    4 wait <- nothing (merged)
    5 b <- 3
    6 wait <- 3 5
    7 again <- 6
    8 c <- 7
    ");
}

#[test]
fn a_barrier_that_a_condition_takes_away_makes_no_edges() {
    insta::assert_snapshot!(shape(&graph("
- {command: a}
- {wait: ~, if: 'build.branch == \"topic\"'}
- {command: b}
- {block: gone, branches: topic}
- {command: c, if: 'false'}
- wait
- {command: d}
")), @"
    0 a <- nothing
    1 wait <- nothing (if)
    2 b <- nothing
    3 gone <- nothing (branches)
    4 c <- nothing (if)
    5 wait <- 0 2 4
    6 d <- 5
    ");
}

#[test]
fn what_a_condition_took_away_stands_between_nobody() {
    insta::assert_snapshot!(shape(&graph("
- {command: a}
- wait
- {command: gone, if: 'false'}
- block: release
")), @"
    0 a <- nothing
    1 wait <- nothing (merged)
    2 gone <- nothing (if)
    3 release <- 0 2
    ");
}

#[test]
fn who_names_a_merged_wait_waits_for_what_it_would_have_waited_for() {
    insta::assert_snapshot!(shape(&graph("
- {command: a}
- {wait: ~, key: w, continue_on_failure: true}
- block: release
- {command: b, depends_on: w}
")), @"
    0 a <- nothing
    1 wait <- nothing (merged)
    2 release <- 0
    3 b <- 0?
    ");
}

#[test]
fn a_group_is_one_step_outside_and_a_scope_of_its_own_inside() {
    insta::assert_snapshot!(shape(&graph("
- {command: a}
- wait
- group: g
  key: g
  steps:
    - {command: b}
    - wait
    - {command: c}
    - {command: free, depends_on: ~}
- {command: d}
- {command: after, depends_on: g}
- wait
- {command: e}
")), @"
    0 a <- nothing
    1 wait <- 0
    2 b <- 1
    3 wait <- 2 1
    4 c <- 3 1
    5 free <- 1
    6 d <- 1
    7 after <- 2 3 4 5
    8 wait <- 1 2 3 4 5 6 7
    9 e <- 8
    ");
}

#[test]
fn a_groups_dependencies_skip_and_condition_are_those_of_its_steps() {
    let graph = graph(
        "
- {command: a, key: a}
- group: g
  depends_on: a
  allow_dependency_failure: true
  skip: not now
  steps:
    - {command: b}
    - {command: c, depends_on: [], skip: own reason}
- group: off
  if: build.branch != 'main'
  steps: [{command: d, if: 'true'}]
",
    );
    insta::assert_snapshot!(shape(&graph), @"
    0 a <- nothing
    1 b <- 0? (skip: not now)
    2 c <- 0? (skip: own reason)
    3 d <- nothing (if)
    ");
    assert_eq!(graph.group_of(&graph.nodes[2]).and_then(|group| group.label.as_deref()), Some("g"));
    assert_eq!(graph.group_of(&graph.nodes[0]), None);
}

#[test]
fn a_wait_that_goes_on_forgives_the_steps_since_the_last_barrier_and_not_the_barrier() {
    insta::assert_snapshot!(shape(&graph("
- {command: a}
- wait
- {group: g, steps: [{command: b}]}
- {wait: ~, continue_on_failure: true}
- {command: c}
")), @"
    0 a <- nothing
    1 wait <- 0
    2 b <- 1
    3 wait <- 1 2?
    4 c <- 3
    ");
}

#[test]
fn a_key_that_no_step_has_is_kept_for_a_later_upload() {
    let graph = graph("[{command: a, depends_on: [later, {step: soon, allow_failure: true}]}]");
    assert_eq!(shape(&graph), "0 a <- `later` `soon`\n");
    assert!(graph.nodes[0].unresolved[1].allow_failure);
    assert!(graph.requires().contains(&Feature::UnresolvedDependency));
}

#[test]
fn circles_through_groups_and_blocks_are_found() {
    for text in [
        "[{group: g, key: g, steps: [{command: a, depends_on: g}]}]",
        "[{group: g, depends_on: last, steps: [{command: a}]}, wait, {command: b, key: last}]",
        "[{command: a, depends_on: last}, block, {command: b, key: last}]",
        "[{command: a, depends_on: g, key: a}, {group: g, key: g, depends_on: a, steps: [{command: b}]}]",
    ] {
        let compiled = compile(text, "p.yml", &[]);
        let codes: Vec<_> = compiled.diagnostics.iter().map(|found| found.code).collect();
        assert!(codes.contains(&"dependency-cycle"), "{text}: {codes:?}");
    }
}

#[test]
fn a_graph_says_what_must_be_served_for_it() {
    let graph = graph(
        "
notify: [{webhook: u}]
steps:
  - block
  - input
  - {trigger: t}
  - {group: g, steps: [{command: a, if: 'false'}]}
  - {command: b, branches: topic, concurrency: 1, concurrency_group: g, plugins: [p], secrets: [S],
     checkout: {skip: true, ssh_secret: K, commit_verification: strict}}
  - {command: '{{matrix}}', matrix: [a], artifact_paths: a, cache: a, reuse: true, cancel_on_build_failing: true}
  - {command: c, depends_on: later, cache: {paths: p, key: k}}
",
    );
    assert_eq!(graph.requires(), Feature::ALL.iter().copied().collect());
    assert_eq!(simple().requires(), std::collections::BTreeSet::new());
}

fn simple() -> Graph {
    graph(
        "
env: {A: b}
steps:
  - {command: a, retry: {automatic: true}, parallelism: 2}
  - wait
  - {command: b, soft_fail: true, skip: true, notify: [{slack: c}]}
",
    )
}

/// Puts steps after the step with this label, as its `uploads`th upload.
fn insert(graph: &mut Graph, label: &str, uploads: u32, text: &str) -> Result<u32, InsertError> {
    let at = graph.nodes.iter().position(|node| node.label == label).unwrap();
    let first = u32::try_from(graph.nodes.len()).unwrap();
    *graph = graph.clone().with(u32::try_from(at).unwrap(), uploads, self::graph(text))?;
    Ok(first)
}

#[test]
fn an_upload_stands_right_after_its_step_and_a_later_barrier_waits_for_it() {
    let mut graph = graph("[{command: up}, {command: a}, wait, {command: b}]");
    assert_eq!(insert(&mut graph, "up", 0, "[{command: c}, {command: free, depends_on: []}]"), Ok(4));
    insta::assert_snapshot!(shape(&graph), @"
    0 up <- nothing
    1 a <- nothing
    2 wait <- 0 4 5 1
    3 b <- 2
    4 c <- 0
    5 free <- nothing
    ");
    insert(&mut graph, "c", 0, "[{command: deep, env: {A: b}}]").unwrap();
    insert(&mut graph, "up", 1, "{env: {E: f}, steps: [{command: second}]}").unwrap();
    insta::assert_snapshot!(shape(&graph), @"
    0 up <- nothing
    1 a <- nothing
    2 wait <- 0 4 6 5 7 1
    3 b <- 2
    4 c <- 0
    5 free <- nothing
    6 deep <- 4
    7 second <- 0
    ");
    assert_eq!(graph.env, [("E".to_owned(), "f".to_owned())]);
}

#[test]
fn an_uploaded_barrier_bars_what_follows_in_the_outer_text() {
    let mut graph = graph("[{command: up}, {command: a}, wait, {command: b}]");
    insert(&mut graph, "up", 0, "[{command: c}, wait, {command: d}]").unwrap();
    insta::assert_snapshot!(shape(&graph), @"
    0 up <- nothing
    1 a <- 5
    2 wait <- 5 6 1
    3 b <- 2
    4 c <- 0
    5 wait <- 0 4
    6 d <- 5 0
    ");
}

#[test]
fn depending_on_a_step_means_what_it_uploaded_too_and_a_missing_key_may_come() {
    let mut graph = graph("[{command: up, key: up}, {command: a, depends_on: up}, {command: b, depends_on: late}]");
    insert(
        &mut graph,
        "up",
        0,
        "[{command: c, key: late}, {command: d, depends_on: up}, {group: g, steps: [{command: e}]}]",
    )
    .unwrap();
    insta::assert_snapshot!(shape(&graph), @"
    0 up <- nothing
    1 a <- 0 3 4 5
    2 b <- 3
    3 c <- 0
    4 d <- 0
    5 e <- 0
    ");
    assert!(!graph.requires().contains(&Feature::UnresolvedDependency));
}

#[test]
fn an_upload_from_within_a_group_stays_in_it_and_a_group_of_the_same_name_joins_it() {
    let mut graph =
        graph("[{group: g, key: g, steps: [{command: up}, wait, {command: a}]}, {command: z, depends_on: g}]");
    insert(
        &mut graph,
        "up",
        0,
        "[{group: g, key: g, steps: [{command: b}, {command: c}]}, {command: d}, {group: h, steps: [{command: e}]}]",
    )
    .unwrap();
    insta::assert_snapshot!(shape(&graph), @"
    0 up <- nothing
    1 wait <- 0 4 5 6 7
    2 a <- 1
    3 z <- 0 4 5 6 7 1 2
    4 b <- 0
    5 c <- 0
    6 d <- 0
    7 e <- 0
    ");
    let labels: Vec<_> = graph.groups.iter().filter_map(|group| group.label.as_deref()).collect();
    assert_eq!(labels, ["g", "h"]);
}

#[test]
fn an_upload_that_cannot_be_leaves_the_graph_as_it_was() {
    let mut graph = graph("[{command: up, key: up}, {command: a, key: a, depends_on: late}]");
    let before = graph.clone();
    let duplicate = insert(&mut graph, "up", 0, "[{command: b, key: a}]");
    assert_eq!(duplicate, Err(InsertError::DuplicateKey("a".to_owned())));
    let cycle = insert(&mut graph, "up", 0, "[{command: b, key: late, depends_on: a}]");
    assert!(matches!(cycle, Err(InsertError::Cycle(_))), "{cycle:?}");
    assert_eq!(graph.clone().with(9, 0, Graph::default()), Err(InsertError::NoUploader));
    let many = insert(&mut graph, "up", 0, "[{command: b, parallelism: 9999}]");
    assert_eq!(many, Err(InsertError::Limit { what: "jobs of one build", limit: 10_000 }));
    assert_eq!(graph, before);
}

#[test]
fn a_graph_that_an_earlier_version_stored_still_loads() {
    let stored = include_str!("data/graph-1.json");
    let graph: Graph = serde_json::from_str(stored).unwrap();
    assert_eq!(shape(&graph), "0 make <- nothing\n1 wait <- 0\n");
    let NodeKind::Command(command) = &graph.nodes[0].kind else { panic!("no command") };
    assert_eq!((command.queue.as_str(), command.retry.len(), command.concurrency.is_none()), ("default", 1, true));
    assert!(!command.retry[0].or_no_cause);
    assert!(graph.requires().is_empty());
    assert_eq!(graph.with(0, 0, Graph::default()), Err(InsertError::NoPlaces));
}

#[test]
fn a_graph_of_everything_is_the_same_after_it_was_stored() {
    let all = graph("
notify: [{github_commit_status: {context: c}, if: 'build.branch == \"a\"'}]
steps:
  - {block: b, fields: [{text: t, key: k, default: d}, {select: s, key: l, multiple: true, options: [{label: l, value: v}]}]}
  - {input: i}
  - {trigger: t, async: true, soft_fail: [{exit_status: 1}], build: {env: {A: b}}}
  - {group: g, key: g, depends_on: [x], notify: [{slack: c}], steps: [{command: a, branches: topic}]}
  - {command: '{{matrix.a}}', matrix: {setup: {a: [b]}}, plugins: [{p: {z: [1, {y: ~}]}}], cache: {paths: p, key: k}, reuse: true}
  - {command: c, concurrency: 1, concurrency_group: g, retry: {automatic: {signal: [none, KILL]}}, checkout: {depth: 1}, secrets: [S]}
");
    let json = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<Graph>(&json).unwrap(), all);
}

/// What is wrong with a gate that has these formats.
fn said_of_formats<'a>(formats: impl IntoIterator<Item = &'a str>, open: bool) -> Vec<(String, u32)> {
    let mut text = "steps:\n- block: gate\n  fields:\n".to_owned();
    for (number, format) in formats.into_iter().enumerate() {
        let _ = writeln!(text, "  - {{text: t, key: k{number}, format: '{format}'}}");
    }
    let diagnostics = match open {
        true => windlass_pipeline::check(&text, "pipeline.yml").diagnostics,
        false => compile(&text, "pipeline.yml", &[]).diagnostics,
    };
    diagnostics.iter().filter(|it| it.is_error()).map(|it| (it.code.to_owned(), it.span.line)).collect()
}

#[test]
fn a_format_that_would_look_around_or_back_or_be_too_large_is_refused_where_it_stands() {
    for format in ["(?=a)a", r"(a)\1", "(?:(?=[^c]*)a)*", "a{1000}{1000}{1000}", "[ab]*a[ab]{12000}", "("] {
        assert_eq!(said_of_formats(["v[0-9]+", format], false), [("bad-format".to_owned(), 5)], "{format}");
    }
    assert_eq!(said_of_formats(["^v[0-9]+$", r"[\w.+-]+@[a-z.]+", r"\d{4}-\d\d-\d\d"], false), []);
    // Only a build knows what stands there.
    assert_eq!(said_of_formats(["(${PREFIX}"], true), []);
}

#[test]
fn all_formats_of_a_gate_share_its_room_and_a_pipeline_has_so_many_different_ones() {
    let large = "[ab]{1000}";
    assert_eq!(said_of_formats([large], false), []);
    assert!(!said_of_formats(std::iter::repeat_n(large, 100), false).is_empty(), "each alone would fit");
    let many: Vec<String> = (0..100).map(|number| format!("a{number}")).collect();
    assert_eq!(said_of_formats(many.iter().map(String::as_str), false), []);
}

#[test]
fn an_answer_matches_its_format_as_a_whole_and_is_short() {
    let text = |format: &str| FieldKind::Text { default: Some("v7".to_owned()), format: Some(format.to_owned()) };
    let field =
        |format: &str| Field { key: "f".to_owned(), label: None, hint: None, required: false, kind: text(format) };
    let long = format!("v{}", "1".repeat(5_000));
    for (format, given, wanted) in [
        ("v[0-9]+", Some(&["v12"][..]), None),
        ("v[0-9]+", Some(&["v12x"]), Some("it does not match `v[0-9]+`")),
        ("v[0-9]+", Some(&["xv12"]), Some("it does not match `v[0-9]+`")),
        ("v[0-9]+", Some(&["v1\nv2"]), Some("it does not match `v[0-9]+`")),
        ("v[0-9]+", Some(&[""]), None),
        ("v[0-9]+", Some(&["a", "b"]), None),
        ("v[0-9]+", None, None),
        ("[0-9]+", None, Some("it does not match `[0-9]+`")),
        ("a|b", Some(&["ab"]), Some("it does not match `a|b`")),
        ("v[0-9]+", Some(&[long.as_str()]), Some("it has more than 4096 bytes")),
        ("(", Some(&["x"]), Some("`(` is not a regular expression that can be used")),
    ] {
        let gate = Gate { fields: vec![field(format)], ..Gate::default() };
        let values = given.map(|values| ("f".to_owned(), values.iter().map(|it| (*it).to_owned()).collect()));
        let misfit = gate.check_formats(&values.into_iter().collect()).err();
        assert_eq!(misfit.map(|misfit| misfit.why).as_deref(), wanted, "{format} {given:?}");
    }
}
