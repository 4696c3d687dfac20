//! What a sound pipeline comes to.

#![allow(clippy::panic, reason = "the tests' own helpers fail by panicking")]

use std::fmt::Write as _;

use windlass_pipeline::graph::{
    Command, Feature, Graph, ManualRetry, NodeKind, SignalMatch, SoftFail, StatusMatch, Supersede,
};
use windlass_pipeline::{Compiled, Inputs, compile, compile_with};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::limits::{JOBS_PER_BUILD_MAX, OPTIONS_MAX};

fn graph(text: &str) -> Graph {
    sound(compile(text, "pipeline.yml", &[]), text)
}

fn sound(compiled: Compiled, text: &str) -> Graph {
    let rendered = compiled.render(text);
    compiled.graph.unwrap_or_else(|| panic!("{rendered}"))
}

fn command(graph: &Graph, index: usize) -> &Command {
    match &graph.nodes[index].kind {
        NodeKind::Command(command) => command,
        other => panic!("node {index} is {other:?}"),
    }
}

/// One line a node: index, label, what it waits for (`?` marks a dependency that may fail).
fn shape(graph: &Graph) -> String {
    let mut text = String::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let edges: Vec<String> = node
            .depends_on
            .iter()
            .map(|edge| format!("{}{}", edge.node, if edge.allow_failure { "?" } else { "" }))
            .collect();
        let edges = if edges.is_empty() { "nothing".to_owned() } else { edges.join(" ") };
        let _ = writeln!(text, "{index} {} <- {edges}", node.label);
    }
    text
}

fn pairs(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn implicit_edges_run_from_barrier_to_barrier() {
    let graph = graph(
        "
steps:
  - {command: a}
  - {command: b, depends_on: []}
  - wait
  - {command: c}
  - {command: d, key: d}
  - wait: ~
    continue_on_failure: true
  - {command: e}
  - {command: f, depends_on: [d, {step: d, allow_failure: true}]}
  - {command: g, depends_on: {step: d, allow_failure: true}}
  - waiter
",
    );
    insta::assert_snapshot!(shape(&graph), @"
    0 a <- nothing
    1 b <- nothing
    2 wait <- 0 1
    3 c <- 2
    4 d <- 2
    5 wait <- 2 3? 4?
    6 e <- 5
    7 f <- 4
    8 g <- 4?
    9 wait <- 5 6 7 8
    ");
}

#[test]
fn a_wait_with_dependencies_of_its_own_waits_for_those_and_those_after_it_for_it() {
    let graph = graph(
        "
steps:
  - {command: a, key: a}
  - {command: b}
  - {wait: gate, key: w, depends_on: a, continue_on_failure: true}
  - {command: c}
  - {wait: ~, depends_on: [a, w], continue_on_failure: true}
",
    );
    insta::assert_snapshot!(shape(&graph), @"
    0 a <- nothing
    1 b <- nothing
    2 gate <- 0?
    3 c <- 2
    4 wait <- 0? 2
    ");
}

#[test]
fn parallel_jobs_share_key_and_dependencies_and_number_their_labels() {
    let graph = graph(
        "
steps:
  - {command: a, key: a, label: 'a %n/%N of %t %T 100% %x', parallelism: 2}
  - {command: b, depends_on: a}
  - {command: gone, key: gone, parallelism: 0}
  - {command: c, depends_on: [gone, a], parallelism: 2}
",
    );
    insta::assert_snapshot!(shape(&graph), @"
    0 a 0/1 of 2 2 100% %x <- nothing
    1 a 1/2 of 2 2 100% %x <- nothing
    2 b <- 0 1
    3 c <- 0 1
    4 c <- 0 1
    ");
    assert_eq!(command(&graph, 1).parallel, Some((1, 2)));
    assert_eq!(graph.nodes[1].key.as_deref(), Some("a"));
}

#[test]
fn the_layers_of_the_environment_are_kept_apart() {
    let text = "
env: {A: pipeline, B: pipeline, C: pipeline, N: 0777}
steps: [{command: 'echo $A $X $BRANCH', env: {C: step, D: $A}}]
";
    let (build, standard) = (pairs(&[("B", "build"), ("X", "x")]), pairs(&[("BRANCH", "main")]));
    let inputs = Inputs { build_env: &build, standard_env: &standard, ..Inputs::default() };
    let graph = sound(compile_with(text, "p.yml", &inputs), text);
    let step = command(&graph, 0);
    assert_eq!(step.env, pairs(&[("C", "step"), ("D", "pipeline")]));
    assert_eq!(graph.env, pairs(&[("A", "pipeline"), ("B", "pipeline"), ("C", "pipeline"), ("N", "511")]));
    assert_eq!(step.command, "echo pipeline x main");
}

#[test]
fn the_env_block_is_expanded_in_order_and_seen_by_what_follows() {
    let graph = graph(
        "
env:
  FIRST: one
  $FIRST: two
  THIRD: $FIRST-${one}-$FOURTH
  FOURTH: four
steps:
  - command: [\"echo $THIRD $FOURTH\", ~, \"$$HOME \\\\$PWD\"]
    key: k-$FIRST
  - {command: x, depends_on: k-one, env: {$FIRST: 1, one: 2}}
---
steps: [{command: later $THIRD}]
",
    );
    assert_eq!(command(&graph, 0).command, "echo one-two- four\n\n$HOME $PWD");
    assert_eq!(graph.nodes[0].key.as_deref(), Some("k-one"));
    assert_eq!(command(&graph, 1).env.iter().find(|(name, _)| name == "one").unwrap().1, "1");
    assert_eq!(command(&graph, 2).command, "later one-two-");
}

#[test]
fn a_document_gives_defaults_and_a_step_overrides_them() {
    let graph = graph(
        "
agents: {queue: 'prod-corp:default', os: linux}
image: debian
priority: 3
timeout_in_minutes: 10
supersede: running
steps:
  - {command: a}
  - command: b
    agents: [gpu=*, 'queue=big', ssd]
    image: busybox
    priority: '-1'
    timeout: 1
  - {command: c, agents: {}, timeout_in_minutes: 1000000}
",
    );
    assert_eq!(graph.supersede, Supersede::Running);
    let (a, b, c) = (command(&graph, 0), command(&graph, 1), command(&graph, 2));
    assert_eq!((a.queue.as_str(), &a.tags), ("prod-corp:default", &pairs(&[("os", "linux")])));
    assert_eq!((a.image.as_deref(), a.priority, a.timeout_ms), (Some("debian"), 3, Some(600_000)));
    assert_eq!((b.queue.as_str(), &b.tags), ("big", &pairs(&[("gpu", "*"), ("ssd", "*")])));
    assert_eq!((b.image.as_deref(), b.priority, b.timeout_ms), (Some("busybox"), -1, Some(60_000)));
    assert_eq!((c.queue.as_str(), c.tags.len()), ("default", 0));
    assert_eq!(c.timeout_ms, Some(windlass_protocol::limits::TIMEOUT_MAX_MS));
}

#[test]
fn supersede_takes_booleans_and_words() {
    for (written, expected) in [
        ("false", Supersede::Never),
        ("true", Supersede::Waiting),
        ("waiting", Supersede::Waiting),
        ("running", Supersede::Running),
        ("~", Supersede::Never),
    ] {
        assert_eq!(graph(&format!("supersede: {written}\nsteps: [{{command: x}}]")).supersede, expected, "{written}");
    }
}

#[test]
fn resources_are_read_with_their_units() {
    for (written, cpu_millis, memory_bytes) in [
        ("{cpus: 2}", 2_000, 0),
        ("{cpus: 0.5, memory: 4GiB}", 500, 4 << 30),
        ("{cpus: '1.25', memory: 512MB}", 1_250, 512_000_000),
        ("{memory: 1.5 gib}", 0, 3 << 29),
        ("{memory: 8388608}", 0, 8 << 20),
        ("~", 0, 0),
    ] {
        let graph = graph(&format!("steps: [{{command: x, resources: {written}}}]"));
        let resources = command(&graph, 0).resources;
        assert_eq!((resources.cpu_millis, resources.memory_bytes), (cpu_millis, memory_bytes), "{written}");
    }
}

#[test]
fn retry_rules_keep_their_order_and_conditions() {
    let any = (StatusMatch::AnyFailure, None, None, 2);
    let cases = [
        ("true", vec![any.clone()]),
        ("{}", vec![any.clone()]),
        ("'false'", vec![]),
        (
            "[{exit_status: '*'}, {exit_status: 1, limit: 0}]",
            vec![(StatusMatch::Any, None, None, 2), (StatusMatch::OneOf(vec![1]), None, None, 0)],
        ),
        (
            "{exit_status: [-1, '255'], cause: [agent_lost, spot_notice]}",
            vec![(StatusMatch::OneOf(vec![-1, 255]), None, Some(vec![CauseKind::AgentLost, CauseKind::SpotNotice]), 2)],
        ),
        (
            "{signal: [SIGTERM, kill], limit: 10}",
            vec![(StatusMatch::AnyFailure, Some(SignalMatch::OneOf(vec![15, 9])), None, 10)],
        ),
        ("{signal: none}", vec![(StatusMatch::AnyFailure, Some(SignalMatch::None), None, 2)]),
        ("{signal: '*', signal_reason: '*', cause: '*'}", vec![any]),
        (
            "{signal_reason: agent_stop}",
            vec![(StatusMatch::AnyFailure, None, Some(vec![CauseKind::AgentStopped, CauseKind::SpotNotice]), 2)],
        ),
        (
            "{exit_status: -1, signal_reason: none}",
            vec![(
                StatusMatch::OneOf(vec![-1]),
                None,
                Some(vec![CauseKind::AgentLost, CauseKind::LeaseLost, CauseKind::OutOfMemory]),
                2,
            )],
        ),
    ];
    for (written, expected) in cases {
        let graph = graph(&format!("steps: [{{command: x, retry: {{automatic: {written}}}}}]"));
        let rules = command(&graph, 0).retry.iter().cloned();
        let rules: Vec<_> = rules.map(|rule| (rule.exit_status, rule.signal, rule.cause, rule.limit)).collect();
        assert_eq!(rules, expected, "{written}");
    }
}

#[test]
fn manual_retry_soft_fail_and_skip_take_all_their_forms() {
    let step = |attributes: &str| graph(&format!("steps: [{{command: x, {attributes}}}]"));
    let manual = |attributes: &str| command(&step(attributes), 0).manual_retry.clone();
    let refused = ManualRetry { allowed: false, permit_on_passed: true, reason: None };
    assert_eq!(manual("retry: {manual: false}"), refused);
    assert_eq!(manual("retry: {manual: ~}"), ManualRetry::default());
    let explained = ManualRetry { reason: Some("no".into()), permit_on_passed: false, ..refused };
    assert_eq!(manual("retry: {manual: {allowed: 'false', reason: 'no', permit_on_passed: false}}"), explained);
    for (written, expected) in [
        ("true", SoftFail::Always),
        ("'false'", SoftFail::Never),
        ("[{exit_status: 1}, {exit_status: [2, 3]}, 4]", SoftFail::OneOf(vec![1, 2, 3, 4])),
        ("[{exit_status: 1}, {exit_status: '*'}]", SoftFail::Always),
        ("[]", SoftFail::Never),
    ] {
        assert_eq!(command(&step(&format!("soft_fail: {written}")), 0).soft_fail, expected, "{written}");
    }
    for (written, expected) in
        [("false", None), ("''", None), ("true", Some("skipped by the pipeline")), ("'false'", Some("false"))]
    {
        assert_eq!(step(&format!("skip: {written}")).nodes[0].skip.as_deref(), expected, "{written}");
    }
}

#[test]
fn steps_are_recognised_in_every_form_that_is_served() {
    let graph = graph(
        "
- {type: script, command: a}
- {command: {command: nested, label: n}}
- {commands: [b, c], command: lost}
- {script: s}
- {wait: {continue_on_failure: true}}
- {type: waiter}
- {label: nothing to run}
- {name: named, command: 'first line

    second', tty: true, interruptible: 'true', zone: eu, allow_dependency_failure: true}
",
    );
    let labels: Vec<&str> = graph.nodes.iter().map(|node| node.label.as_str()).collect();
    assert_eq!(labels, ["a", "n", "b", "s", "wait", "wait", "nothing to run", "named"]);
    assert_eq!(command(&graph, 2).command, "b\nc");
    assert_eq!(graph.nodes[4].kind, NodeKind::Wait { continue_on_failure: true });
    let last = command(&graph, 7);
    assert_eq!((last.tty, last.interruptible, last.exclusive, last.zone.as_deref()), (true, true, false, Some("eu")));
    assert!(graph.nodes[7].allow_dependency_failure);
}

#[test]
fn a_graph_reads_back_from_its_json() {
    let graph =
        graph("steps: [{command: a, parallelism: 2, soft_fail: true}, wait, {command: b, retry: {automatic: true}}]");
    let json = serde_json::to_string(&graph).unwrap();
    assert_eq!(serde_json::from_str::<Graph>(&json).unwrap(), graph);
}

#[test]
fn pipelines_that_multiply_beyond_the_limits_are_refused_before_they_are_built() {
    let codes = |text: &str| {
        let compiled = compile(text, "p.yml", &[]);
        assert!(compiled.graph.is_none());
        compiled.diagnostics.iter().map(|diagnostic| diagnostic.code).collect::<Vec<_>>()
    };
    let wide = "steps: [{key: a, command: x, parallelism: 5000}, {command: y, depends_on: a, parallelism: 5000}]";
    assert_eq!(codes(wide), ["too-large"]);
    assert_eq!(codes(&"- {command: x, parallelism: 6000}\n".repeat(2)), ["too-large"]);
    let heavy = format!("steps: [{{command: x, parallelism: 1000, env: {{A: {}}}}}]", "x".repeat(200_000));
    assert_eq!(codes(&heavy), ["too-large"]);
    let doubling: String =
        (1..40).fold("env:\n  A0: xxxxxxxx\n".to_owned(), |text, n| format!("{text}  A{n}: $A{m}$A{m}\n", m = n - 1));
    assert!(codes(&format!("{doubling}steps: [{{command: x}}]")).contains(&"too-large"));
}

/// A step for each number, in one line.
fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect::<Vec<_>>().join("")
}

#[test]
fn texts_that_multiply_in_memory_are_refused_while_they_are_read() {
    // Keys that no step has yet may come with an upload.
    let inputs =
        Inputs { served: Some(&[Feature::UnresolvedDependency, Feature::Input, Feature::Block]), ..Inputs::default() };
    let codes = |text: &str| {
        let compiled = compile_with(text, "p.yml", &inputs);
        assert!(compiled.graph.is_none(), "{text:.80}");
        let errors = compiled.diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
        errors.map(|diagnostic| diagnostic.code).collect::<Vec<_>>()
    };
    let words = format!("steps:\n{}{}- block\n", "- input\n".repeat(20_000), "- wait\n".repeat(20_000));
    assert_eq!(codes(&words), ["too-large"], "merged waits, each after all that was before");
    let mentions = lines(480, |n| format!("{n},"));
    let wide = format!("steps: [{{command: x, parallelism: 9000, depends_on: [{mentions}]}}]");
    assert_eq!(codes(&wide), ["too-large"], "numbers cost something too");
    let tags = lines(40_000, |n| format!("t{n}: 1,"));
    let all = format!("agents: {{{tags}}}\nsteps:\n{}", "- {command: x}\n".repeat(5_000));
    assert!(codes(&all).contains(&"too-large"), "what the document gives each of its steps");
    let named = lines(2_000, |n| format!("k{n},"));
    let everywhere = format!(
        "steps:\n- {{command: x, depends_on: &all [{named}]}}\n{}",
        "- {command: x, depends_on: *all}\n".repeat(400)
    );
    assert_eq!(codes(&everywhere), ["too-large"], "dependencies by alias");
}

#[test]
fn waits_that_a_block_acts_for_share_what_was_before_them() {
    let half = JOBS_PER_BUILD_MAX / 2 - 10;
    let text = format!("steps:\n{}{}- block\n", "- input\n".repeat(half), "- wait\n".repeat(half));
    let graph = graph(&text);
    assert_eq!(graph.nodes.len(), 2 * half + 1);
    assert_eq!(graph.nodes.last().unwrap().depends_on.len(), half);
}

#[test]
fn a_step_named_twice_is_waited_for_once_and_forgiven_only_if_both_say_so() {
    let graph = graph(
        "steps: [{key: a, command: x}, {key: b, command: x}, \
         {command: y, depends_on: [{step: a, allow_failure: true}, b, a, {step: b, allow_failure: true}, b]}]",
    );
    assert_eq!(shape(&graph).lines().last().unwrap(), "2 y <- 0 1");
    assert_eq!(graph.nodes[2].declared.as_ref().unwrap().len(), 2);
}

#[test]
fn a_field_has_only_so_many_options() {
    let options = |count| lines(count, |n| format!("{{label: l, value: v{n}}},"));
    let gate = |count| format!("steps: [{{block: b, fields: [{{select: s, key: k, options: [{}]}}]}}]", options(count));
    assert!(compile(&gate(OPTIONS_MAX), "p.yml", &[]).graph.is_some());
    assert!(compile(&gate(OPTIONS_MAX + 1), "p.yml", &[]).graph.is_none());
}

#[test]
fn ten_thousand_steps_compile() {
    let text = format!("steps:\n{}", "  - {command: make, label: x, env: {A: b}}\n  - wait\n".repeat(5_000));
    assert_eq!(graph(&text).nodes.len(), 10_000);
}

#[test]
fn the_pipeline_that_a_newcomer_runs_first_compiles_without_a_word() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/hello/.windlass/pipeline.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let compiled = compile(&text, ".windlass/pipeline.yml", &[]);
    assert_eq!(compiled.render(&text), "");
    let graph = compiled.graph.unwrap();
    insta::assert_snapshot!(shape(&graph), @"
    0 count words <- nothing
    1 verify checksums <- nothing
    2 lint <- nothing
    3 wait <- 0 1 2
    4 most used words <- 0 1
    ");
    let last = command(&graph, 4);
    assert!(last.command.starts_with("echo \"The $TOP words that \\\"The Well at Ansty\\\""), "{}", last.command);
    assert_eq!(last.timeout_ms, Some(300_000));
}
