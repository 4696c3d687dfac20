//! Matrices and parallel jobs (reference 8), and that no expansion leaves its limits.

#![allow(clippy::panic, reason = "the tests' own helpers fail by panicking")]

use proptest::prelude::*;
use windlass_pipeline::graph::{Command, Graph, NodeKind};
use windlass_pipeline::{check, compile, expand_document, yaml};
use windlass_protocol::limits::{JOBS_PER_BUILD_MAX, MATRIX_JOBS_MAX};

fn graph(text: &str) -> Graph {
    let compiled = compile(text, "pipeline.yml", &[]);
    let rendered = compiled.render(text);
    compiled.graph.unwrap_or_else(|| panic!("{rendered}"))
}

fn commands(graph: &Graph) -> Vec<&Command> {
    let kinds = graph.nodes.iter().map(|node| &node.kind);
    kinds.filter_map(|kind| if let NodeKind::Command(command) = kind { Some(command.as_ref()) } else { None }).collect()
}

fn codes(text: &str) -> Vec<&'static str> {
    compile(text, "p.yml", &[]).diagnostics.iter().map(|found| found.code).collect()
}

#[test]
fn combinations_come_in_the_order_of_the_dimensions_the_last_varying_fastest() {
    let graph = graph(
        "
- command: 'echo {{matrix.os}} {{ matrix.v }}'
  label: '{{matrix.os}}-{{matrix.v}}'
  key: k
  matrix:
    setup: {os: [linux, mac], v: [1, 2]}
    adjustments:
      - with: {os: mac, v: 1}
        skip: broken there
      - with: {v: 9, os: bsd}
        soft_fail: true
      - with: {os: mac, v: 1}
        soft_fail: [{exit_status: 3}]
- {command: after, depends_on: k}
",
    );
    let told: Vec<_> = graph.nodes.iter().map(|node| (node.label.as_str(), node.skip.as_deref())).collect();
    let expected = [
        ("linux-1", None),
        ("linux-2", None),
        ("mac-1", Some("broken there")),
        ("mac-2", None),
        ("bsd-9", None),
        ("after", None),
    ];
    assert_eq!(told, expected);
    assert_eq!(graph.nodes[5].depends_on.len(), 5);
    assert!(graph.nodes[..5].iter().all(|node| node.key.as_deref() == Some("k") && node.place == graph.nodes[0].place));
    let soft: Vec<_> = commands(&graph).iter().map(|command| format!("{:?}", command.soft_fail)).collect();
    assert_eq!(soft[2..5], ["OneOf([3])", "Never", "Always"]);
    assert_eq!(commands(&graph)[4].command, "echo bsd 9");
}

#[test]
fn tokens_are_replaced_everywhere_but_where_the_reference_says() {
    let graph = graph(
        "
- command: '{{matrix}}'
  label: '{{matrix}}'
  agents: {queue: 'q-{{matrix}}', '{{matrix}}': t}
  env: {'{{matrix}}': '{{matrix}}'}
  plugins: [{'p#{{matrix}}': {'{{matrix}}': ['{{matrix}}']}}]
  artifact_paths: '{{matrix}}/*'
  secrets: {E: 'S_{{matrix}}'}
  cache: '{{matrix}}'
  checkout: {flags: {clone: '-b {{matrix}}'}}
  image: 'i:{{matrix}}'
  timeout_in_minutes: '{{matrix}}'
  priority: '{{matrix}}'
  soft_fail: [{exit_status: '{{matrix}}'}]
  retry: {automatic: {limit: '{{matrix}}'}}
  concurrency: '{{matrix}}'
  concurrency_group: '{{matrix}}'
  depends_on: '{{matrix}}'
  resources: {cpus: '{{matrix}}'}
  notify: [{slack: '{{matrix}}'}]
  matrix: [7]
",
    );
    let node = &graph.nodes[0];
    let command = commands(&graph)[0];
    assert_eq!((node.label.as_str(), command.command.as_str(), command.queue.as_str()), ("7", "7", "q-7"));
    assert_eq!(command.tags, [("7".to_owned(), "t".to_owned())]);
    assert_eq!(command.env, [("{{matrix}}".to_owned(), "7".to_owned())]);
    assert_eq!(command.plugins[0].source, "github.com/buildkite-plugins/p-buildkite-plugin#7");
    assert_eq!(command.plugins[0].config.to_string(), "{\"7\":[\"7\"]}");
    assert_eq!((command.artifact_paths[0].as_str(), command.secrets[0].key.as_str()), ("7/*", "S_7"));
    assert_eq!(command.cache.as_ref().map(|cache| cache.paths[0].as_str()), Some("7"));
    assert_eq!(command.checkout.flags.clone.as_deref(), Some("-b 7"));
    assert_eq!((command.image.as_deref(), command.timeout_ms, command.priority), (Some("i:7"), Some(420_000), 7));
    assert_eq!((command.retry[0].limit, command.resources.cpu_millis), (7, 7_000));
    assert_eq!(format!("{:?}", command.soft_fail), "OneOf([7])");
    let concurrency = command.concurrency.as_ref().map(|it| (it.group.as_str(), it.limit));
    assert_eq!(concurrency, Some(("{{matrix}}", 7)));
    assert_eq!(node.unresolved[0].key, "{{matrix}}");
    assert_eq!(node.notify[0].config, "7");
}

#[test]
fn an_impossible_matrix_is_refused() {
    for (matrix, code) in [
        ("{setup: {a: [1]}, adjustments: [{with: {b: 1}}]}", "matrix-adjustment"),
        ("{setup: {a: [1], b: [2]}, adjustments: [{with: {a: 1}}]}", "matrix-adjustment"),
        ("{setup: {a: [1]}, adjustments: [{with: 1}]}", "matrix-adjustment"),
        ("{setup: [1], adjustments: [{with: [1, 2]}]}", "matrix-adjustment"),
        ("{setup: {'a-b': [1]}}", "matrix-dimension"),
        ("{setup: [1], adjust: []}", "unknown-key"),
        ("{setup: {a: [1, 2, 3, 4], b: [1, 2, 3, 4], c: [1, 2, 3, 4]}}", "matrix-size"),
        ("{setup: {a: [1], b: [1], c: [1], d: [1], e: [1], f: [1], g: [1]}}", "matrix-size"),
        ("[1, [2]]", "wrong-type"),
        ("1", "wrong-type"),
    ] {
        let found = codes(&format!("[{{command: x, matrix: {matrix}}}]"));
        assert!(found.contains(&code), "{matrix}: {found:?}");
    }
    let many: Vec<String> = (0..26).map(|n| n.to_string()).collect();
    assert!(codes(&format!("[{{command: x, matrix: [{}]}}]", many.join(", "))).contains(&"matrix-size"));
    assert!(codes(&format!("[{{command: x, matrix: [{}]}}]", "v".repeat(129))).contains(&"matrix-size"));
    let adjustments: Vec<String> = (0..13).map(|n| format!("{{with: {n}}}")).collect();
    let text = format!("[{{command: x, matrix: {{setup: [a], adjustments: [{}]}}}}]", adjustments.join(", "));
    assert!(codes(&text).contains(&"matrix-size"));
    assert!(codes("[{command: 'x {{matrix.a}}', matrix: [b]}]").contains(&"matrix-token"));
    assert!(codes("[{command: 'x {{matrix}}', matrix: {setup: {a: [b]}}}]").contains(&"matrix-token"));
    assert!(codes("[{command: x, matrix: [a], parallelism: 2}]").contains(&"matrix-and-parallelism"));
}

#[test]
fn an_empty_dimension_leaves_what_adjustments_add() {
    let graph = graph("[{command: 'x {{matrix.a}}', matrix: {setup: {a: []}, adjustments: [{with: {a: b}}]}}]");
    assert_eq!(commands(&graph).iter().map(|command| command.command.as_str()).collect::<Vec<_>>(), ["x b"]);
    assert_eq!(codes("[{command: x, matrix: {setup: []}}]"), ["empty-matrix"]);
}

#[test]
fn parallel_triggers_make_several_builds_and_none_takes_the_step_away() {
    let graph = graph("[{trigger: t, label: 'l %n/%t %x', parallelism: 2}, {trigger: u, parallelism: 0}]");
    let labels: Vec<_> = graph.nodes.iter().map(|node| node.label.as_str()).collect();
    assert_eq!(labels, ["l 0/2 %x", "l 1/2 %x"]);
}

#[test]
fn a_document_is_expanded_in_place_for_people() {
    let text = "
x: 1
steps:
  - {command: 'a {{matrix}}', key: k, matrix: [p, q]}
  - group: g
    steps: [{command: b, label: 'l %N', parallelism: 2, env: {A: b}}, wait]
  - {trigger: t, parallelism: 1}
";
    let mut document = yaml::parse(text).documents.remove(0);
    assert_eq!(expand_document(&mut document), []);
    let map = document.as_map().and_then(|map| map.get("steps")).and_then(|entry| entry.value.as_list());
    let steps = map.unwrap_or_default();
    let of = |node: &yaml::Node, key: &str| node.as_map().and_then(|map| map.get(key)).map(|it| it.value.clone());
    let text = |node: &yaml::Node, key: &str| of(node, key).and_then(|value| value.natural().ok());
    assert_eq!(steps.len(), 4);
    assert_eq!((text(&steps[0], "command"), text(&steps[1], "command")), (Some("a p".into()), Some("a q".into())));
    assert!(of(&steps[0], "matrix").is_none() && of(&steps[1], "key").is_some());
    let inner =
        of(&steps[2], "steps").and_then(|steps| steps.as_list().map(<[yaml::Node]>::to_vec)).unwrap_or_default();
    assert_eq!(inner.len(), 3);
    assert_eq!(text(&inner[1], "label"), Some("l 2".into()));
    let env = of(&inner[1], "env").unwrap_or_else(|| panic!("no env"));
    assert_eq!(text(&env, "BUILDKITE_PARALLEL_JOB"), Some("1".into()));
    assert_eq!((text(&env, "BUILDKITE_PARALLEL_JOB_COUNT"), text(&env, "A")), (Some("2".into()), Some("b".into())));
    assert!(of(&inner[0], "parallelism").is_none());
    let bad = yaml::parse("[{command: '{{matrix.x}}', matrix: [a]}]").documents.remove(0);
    assert_eq!(expand_document(&mut bad.clone())[0].code, "matrix-token");
}

/// A step as text; keys are `s0`, `s1`, … by position.
fn step(index: usize, kind: u8, depends: &[u8], extra: u8) -> String {
    let keys: Vec<String> = depends.iter().map(|n| format!("s{}", usize::from(*n) % 24)).collect();
    let depends = if extra.is_multiple_of(3) { String::new() } else { format!(", depends_on: [{}]", keys.join(", ")) };
    let condition = if extra.is_multiple_of(7) { ", branches: topic" } else { "" };
    match kind % 6 {
        0 => format!("{{wait: ~, key: s{index}{depends}{condition}}}"),
        1 => format!("{{block: b, key: s{index}{depends}{condition}}}"),
        2 => format!("{{input: i, key: s{index}{depends}}}"),
        3 => format!("{{command: x, key: s{index}, matrix: [a, b, c]{depends}{condition}}}"),
        4 => format!("{{command: x, key: s{index}, parallelism: {}{depends}}}", extra % 4),
        _ => format!("{{trigger: t, key: s{index}{depends}}}"),
    }
}

fn pipeline() -> impl Strategy<Value = String> {
    let one = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..3), any::<u8>());
    (prop::collection::vec(one, 1..24), any::<u8>(), 0_usize..24).prop_map(|(steps, group, at)| {
        let mut texts: Vec<String> = steps
            .iter()
            .enumerate()
            .map(|(index, (kind, depends, extra))| step(index, *kind, depends, *extra))
            .collect();
        let at = at % texts.len();
        let until = (at + usize::from(group % 5)).min(texts.len());
        let inner: Vec<String> = texts.drain(at..until).collect();
        if !inner.is_empty() {
            texts.insert(at, format!("{{group: g, key: g, steps: [{}]}}", inner.join(", ")));
        }
        format!("[{}]", texts.join(",\n"))
    })
}

/// Takes what waits for nothing until nothing is left; what is left stands in a circle.
fn in_circles(graph: &Graph) -> usize {
    let mut done = vec![false; graph.nodes.len()];
    loop {
        let before = done.iter().filter(|done| **done).count();
        for (index, node) in graph.nodes.iter().enumerate() {
            done[index] |= node.depends_on.iter().all(|edge| done[usize::try_from(edge.node).unwrap_or(usize::MAX)]);
        }
        let after = done.iter().filter(|done| **done).count();
        if after == before {
            return done.len() - after;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_compiles_can_be_run_in_some_order_and_what_cannot_is_refused_as_a_circle(text in pipeline()) {
        let branch = [("BUILDKITE_BRANCH".to_owned(), "main".to_owned())];
        let inputs = windlass_pipeline::Inputs { standard_env: &branch, ..Default::default() };
        let compiled = windlass_pipeline::compile_with(&text, "p.yml", &inputs);
        match compiled.graph {
            Some(graph) => {
                prop_assert_eq!(in_circles(&graph), 0, "{}", text);
                prop_assert!(graph.nodes.len() <= JOBS_PER_BUILD_MAX);
                for node in &graph.nodes {
                    prop_assert!(node.broken.is_none() || node.depends_on.is_empty());
                }
            }
            None => {
                let errors = compiled.diagnostics.iter().filter(|found| found.is_error());
                for error in errors {
                    prop_assert_eq!(error.code, "dependency-cycle", "{}", compiled.render(&text));
                }
            }
        }
    }

    #[test]
    fn expansions_stay_in_their_limits(sizes in prop::collection::vec(0_usize..30, 1..7), parallel in 0_u32..20_000) {
        let dimensions: Vec<String> = sizes
            .iter()
            .enumerate()
            .map(|(index, size)| format!("d{index}: [{}]", vec!["v"; *size].join(", ")))
            .collect();
        let text = format!(
            "[{{command: x, matrix: {{setup: {{{}}}}}}}, {{command: y, parallelism: {parallel}}}]",
            dimensions.join(", ")
        );
        if let Some(graph) = check(&text, "p.yml").graph {
            let jobs: usize = sizes.iter().product();
            prop_assert!(jobs <= MATRIX_JOBS_MAX);
            prop_assert_eq!(graph.nodes.len(), jobs + usize::try_from(parallel).unwrap_or(usize::MAX));
            prop_assert!(graph.nodes.len() <= JOBS_PER_BUILD_MAX);
        }
    }
}
