//! What people read when a pipeline is wrong.

use windlass_pipeline::{Inputs, check, compile, compile_with};

/// Everything that is said about a text, and whether it would run.
fn said(text: &str) -> String {
    let inputs = Inputs { served: Some(&[]), ..Inputs::default() };
    let compiled = compile_with(text, "pipeline.yml", &inputs);
    let errors = compiled.diagnostics.iter().any(windlass_pipeline::Diagnostic::is_error);
    assert_eq!(compiled.graph.is_none(), errors, "a graph exists just if there is no error");
    compiled.render(text)
}

#[test]
fn an_unknown_dependency_points_at_its_line_and_suggests_a_name() {
    insta::assert_snapshot!(said("steps:\n  - key: test\n    command: make\n  - key: deploy\n    depends_on: tests\n    command: x\n"), @"
    pipeline.yml:5:17: error: step `deploy` depends on `tests`, which is not in this pipeline [unknown-dependency]
     5 |     depends_on: tests
       |                 ^^^^^
      hint: did you mean `test`?
    ");
}

#[test]
fn steps_that_wait_for_each_other_are_told_as_a_circle() {
    insta::assert_snapshot!(said("
steps:
  - {key: a, command: x, depends_on: [c]}
  - {key: b, command: x, depends_on: a}
  - {key: c, command: x, depends_on: [{step: b}]}
  - {key: self, command: x, depends_on: self}
"), @"
    pipeline.yml:3:39: error: steps wait for each other: `a` → `c` → `b` → `a` [dependency-cycle]
     3 |   - {key: a, command: x, depends_on: [c]}
       |                                       ^
    pipeline.yml:6:41: error: `self` depends on itself [dependency-cycle]
     6 |   - {key: self, command: x, depends_on: self}
       |                                         ^^^^
    ");
}

#[test]
fn a_circle_through_a_wait_is_found_although_nobody_wrote_its_edges() {
    insta::assert_snapshot!(said("
steps:
  - {key: first, command: x, depends_on: last}
  - wait
  - {key: last, command: x}
"), @"
    pipeline.yml:3:42: error: steps wait for each other: `first` → `last` → the wait on line 4 → `first` [dependency-cycle]
     3 |   - {key: first, command: x, depends_on: last}
       |                                          ^^^^
    ");
}

#[test]
fn gates_and_conditions_that_are_not_served_stop_the_pipeline() {
    insta::assert_snapshot!(said("
steps:
  - block: Release?
  - input
  - {trigger: other}
  - group: g
    steps: [{command: x, if: \"true\"}]
"), @r#"
    pipeline.yml:3:5: error: steps of kind `block` are not served yet [not-served]
     3 |   - block: Release?
       |     ^^^^^
      hint: nothing runs: running past it could do harm
    pipeline.yml:4:5: error: steps of kind `input` are not served yet [not-served]
     4 |   - input
       |     ^^^^^
      hint: nothing runs: running past it could do harm
    pipeline.yml:5:6: error: steps of kind `trigger` are not served yet [not-served]
     5 |   - {trigger: other}
       |      ^^^^^^^
      hint: nothing runs: running past it could do harm
    pipeline.yml:6:5: error: steps of kind `group` are not served yet [not-served]
     6 |   - group: g
       |     ^^^^^
      hint: nothing runs: running past it could do harm
    pipeline.yml:7:26: error: `if` is not served yet [not-served]
     7 |     steps: [{command: x, if: "true"}]
       |                          ^^
      hint: the step would run otherwise than it says; take the attribute out to run it regardless
    "#);
}

#[test]
fn attributes_that_say_when_or_how_to_run_and_are_not_served_stop_the_pipeline() {
    insta::assert_snapshot!(said("
steps:
  - command: deploy
    branches: main
    plugins: [{docker#v5: ~}]
    matrix: [1, 2]
    concurrency: 1
    concurrency_group: g
    if_changed: a
    secrets: [S]
  - {command: deploy, block: sure?}
  - {wait: ~, if: \"false\"}
"), @r#"
    pipeline.yml:4:5: error: `branches` is not served yet [not-served]
     4 |     branches: main
       |     ^^^^^^^^
      hint: the step would run otherwise than it says; take the attribute out to run it regardless
    pipeline.yml:5:5: error: `plugins` is not served yet [not-served]
     5 |     plugins: [{docker#v5: ~}]
       |     ^^^^^^^
      hint: the step would run otherwise than it says; take the attribute out to run it regardless
    pipeline.yml:6:5: error: `matrix` is not served yet [not-served]
     6 |     matrix: [1, 2]
       |     ^^^^^^
      hint: the step would run otherwise than it says; take the attribute out to run it regardless
    pipeline.yml:7:5: error: `concurrency` is not served yet [not-served]
     7 |     concurrency: 1
       |     ^^^^^^^^^^^
      hint: the step would run otherwise than it says; take the attribute out to run it regardless
    pipeline.yml:8:5: error: `concurrency` is not served yet [not-served]
     8 |     concurrency_group: g
       |     ^^^^^^^^^^^^^^^^^
      hint: the step would run otherwise than it says; take the attribute out to run it regardless
    pipeline.yml:9:5: warning: it is not known here which files have changed: the step runs [if-changed-unknown]
     9 |     if_changed: a
       |     ^^^^^^^^^^
    pipeline.yml:10:5: error: `secrets` is not served yet [not-served]
     10 |     secrets: [S]
        |     ^^^^^^^
      hint: the step would run otherwise than it says; take the attribute out to run it regardless
    pipeline.yml:11:23: warning: a step is one thing: this is a command step, and its `block` is ignored [two-kinds]
     11 |   - {command: deploy, block: sure?}
        |                       ^^^^^
      hint: make two steps of it
    pipeline.yml:12:15: error: `if` is not served yet [not-served]
     12 |   - {wait: ~, if: "false"}
        |               ^^
      hint: the step would run otherwise than it says; take the attribute out to run it regardless
    "#);
}

#[test]
fn who_cannot_be_told_yet_and_what_cannot_be_asked_yet_is_said_at_its_place() {
    let text = "
notify: [{webhook: 'https://h', if: pipeline.started_failing}, {slack: '#r', if: build.fixed == true}]
steps:
  - group: g
    notify: [{webhook: 'https://h'}, github_commit_status]
    steps: [{command: x, notify: [github_check, {webhook: u}, {pigeon: 1}]}]
";
    let compiled = compile_with(text, "pipeline.yml", &Inputs::default());
    let found: Vec<_> = compiled.diagnostics.iter().map(|it| (it.span.line, it.span.column, it.code)).collect();
    let wanted = [
        (2, 37, "variable-not-known"),
        (2, 65, "service-not-served"),
        (2, 82, "variable-not-known"),
        (5, 15, "service-not-served"),
        (6, 35, "service-not-served"),
        (6, 50, "service-level"),
        (6, 64, "unknown-service"),
    ];
    assert_eq!(found, wanted);
    assert!(compiled.graph.is_some());
}

#[test]
fn what_can_be_done_without_is_ignored_with_a_warning() {
    insta::assert_snapshot!(said("
notify: [{email: a@b.c}]
steps:
  - {command: x, artifact_paths: 'a/*', cache: node_modules, cancel_on_build_failing: true, reuse: true}
  - {command: x, artifact_paths: [], cache: false, plugins: [], if: ~, branches: ''}
"), @"
    pipeline.yml:2:11: warning: Windlass does not deliver to `email` yet [service-not-served]
     2 | notify: [{email: a@b.c}]
       |           ^^^^^
    pipeline.yml:4:18: warning: `artifact_paths` is not served yet: ignored [not-served]
     4 |   - {command: x, artifact_paths: 'a/*', cache: node_modules, cancel_on_build_failing: true, reuse: true}
       |                  ^^^^^^^^^^^^^^
    pipeline.yml:4:41: warning: a `cache` without `key` is not served: ignored [not-served]
     4 |   - {command: x, artifact_paths: 'a/*', cache: node_modules, cancel_on_build_failing: true, reuse: true}
       |                                         ^^^^^
      hint: it is a volume of Buildkite's hosted agents; with a `key` it is kept for every agent
    pipeline.yml:4:62: warning: `cancel_on_build_failing` is not served yet: ignored [not-served]
     4 |   - {command: x, artifact_paths: 'a/*', cache: node_modules, cancel_on_build_failing: true, reuse: true}
       |                                                              ^^^^^^^^^^^^^^^^^^^^^^^
    pipeline.yml:4:93: warning: `reuse` is not served yet: ignored [not-served]
     4 |   - {command: x, artifact_paths: 'a/*', cache: node_modules, cancel_on_build_failing: true, reuse: true}
       |                                                                                             ^^^^^
    ");
}

#[test]
fn what_a_step_s_reuse_says_is_checked_each_with_its_place() {
    insta::assert_snapshot!(told_of_reuse("
steps:
  - command: x
    reuse:
      inptus: src/**
      inputs: [/etc/hosts, ../a, ok, './b', '[c']
      env: [A, 'B=1']
      verify: often
  - {command: x, reuse: {verify: 100.5%}}
  - {command: x, reuse: yes please}
  - {command: x, reuse: {verify: 0.0001%, inputs: ~}, secrets: [S], cache: {paths: p, key: k}}
  - {command: x, reuse: {secrets: true}, secrets: [S], cache: p}
"), @"
    5:7 Error unknown-key: `inptus` is not an attribute of `reuse` (did you mean `inputs`?)
    6:16 Error reuse-path: `/etc/hosts` lies outside the source: `inputs` are paths within it (what is outside decides the result by the image, or by the fingerprint of the pool's machines)
    6:28 Error reuse-path: `../a` lies outside the source: `inputs` are paths within it (what is outside decides the result by the image, or by the fingerprint of the pool's machines)
    6:45 Error glob: `[c` is not a glob: the `[` is not closed
    7:12 Error variable-name: `B=1` is not the name of a variable (only names stand here; values are set by the step's `env`)
    8:15 Error wrong-type: `verify` must be a share of the hits such as `1%` or `0.01%`, but text stands here
    9:34 Error out-of-range: `verify` must be from 0% to 100%
    10:25 Error wrong-type: `reuse` must be `true`, or a mapping of `inputs`, `artifacts`, `blobs`, `outputs`, `env`, `secrets` and `verify`, but text stands here
    11:18 Warning never-reused: the step is never reused: it has `secrets` (with `secrets: true` in `reuse` their versions count, and a new version runs it anew)
    11:18 Warning never-reused: the step is never reused: it restores a `cache`, of which nothing is in its key (leave out one of the two)
    ");
}

#[test]
fn what_is_wrong_with_a_blob_that_a_step_names_is_told_at_its_place() {
    let digest = format!("b3:{}", "0f".repeat(32));
    let blob = |path: &str| format!("        - {{path: {path}, digest: {digest}}}\n");
    let paths =
        ["/etc/x", "a//b", "tools/x", "./tools/x", "tools", "tools/x/y", "Makefile", "gen/a.c", "src/new", "toolsmith"];
    let listed: String = paths.into_iter().map(blob).collect();
    let told = told_of_reuse(&format!(
        "steps:
  - command: x
    reuse:
      inputs: [Makefile, src/**]
      artifacts: gen/a.c
      blobs:
{listed}        - {{path: p, digest: 0f0f}}
        - {{digest: {digest}, mode: 755}}
        - {{path: q}}
        - r
"
    ));
    insta::assert_snapshot!(told, @"
    7:18 Error reuse-path: `/etc/x` is not the path of a file within the source (a blob lies beside the inputs, at a path such as `tools/compiler.tar`)
    8:18 Error reuse-path: `a//b` is not the path of a file within the source (a blob lies beside the inputs, at a path such as `tools/compiler.tar`)
    10:18 Error reuse-path: the blob `tools/x` cannot lie where the blob `tools/x` lies
    11:18 Error reuse-path: the blob `tools` cannot lie where the blob `tools/x` lies
    12:18 Error reuse-path: the blob `tools/x/y` cannot lie where the blob `tools/x` lies
    13:18 Error reuse-path: the blob `Makefile` cannot lie where one of `inputs` lies
    14:18 Error reuse-path: the blob `gen/a.c` cannot lie where one of `artifacts` lies
    17:29 Error reuse-digest: `0f0f` is not the digest of a blob (it is `b3:` or `sha256:` and 64 hex digits, as `b3sum` and `sha256sum` print them)
    18:11 Error missing-attribute: the blob has no `path`
    18:89 Error unknown-key: `mode` is not an attribute of a blob
    19:11 Error missing-attribute: the blob has no `digest`
    20:11 Error wrong-type: `blobs` must be a list of mappings of `path`, `digest` and `executable`, but text stands here
    ");
    let many = format!("steps: [{{command: x, reuse: {{blobs: [{}]}}}}]", vec!["{}"; 201].join(", "));
    insta::assert_snapshot!(told_of_reuse(&many), @"1:30 Error too-many: `reuse` names more than 200 blobs");
    // Each of a matrix's jobs has its own.
    let matrix = "steps: [{command: 'x {{matrix}}', matrix: [0f, e0], reuse: {blobs: [{path: 't/{{matrix}}', digest: 'b3:{{matrix}}'}]}}]";
    let long = |text: &str| text.replace("0f", &"0f".repeat(32)).replace("e0", &"e0".repeat(32));
    let graph = compile(&long(matrix), "p.yml", &[]).graph.map(|graph| serde_json::to_value(graph).unwrap());
    let blob = graph.as_ref().and_then(|graph| graph.pointer("/nodes/1/kind/command/reuse/blobs/0/digest"));
    assert_eq!(blob.and_then(serde_json::Value::as_str), Some(long("b3:e0").as_str()), "{graph:?}");
    // What only the run knows is not judged before.
    let open = "steps: [{command: x, reuse: {blobs: [{path: a, digest: '${D}'}, {path: '$P', digest: '$D'}]}}]";
    assert!(check(open, "p.yml").diagnostics.iter().all(|it| !it.code.starts_with("reuse-")));
}

/// But for what is told of every step that is not served.
fn told_of_reuse(text: &str) -> String {
    let compiled = compile_with(text, "pipeline.yml", &Inputs::default());
    let told = compiled.diagnostics.iter().filter(|it| it.code != "not-served");
    let line = |it: &windlass_pipeline::Diagnostic| {
        let hint = it.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}:{} {:?} {}: {}{hint}", it.span.line, it.span.column, it.severity, it.code, it.message)
    };
    told.map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_cache_s_key_is_a_template_that_a_job_can_fill_in() {
    let told = |cache: &str| said(&format!("steps: [{{command: x, cache: {{paths: p, {cache}}}}}]\n"));
    let good = r#"key: 'a-{{ checksum "lock" }}-{{agent.os}}', restore_keys: ['a-']"#;
    assert!(!told(good).contains("cache-key"), "{}", told(good));
    for (cache, why) in [
        (r#"key: '{{ checksum lock }}'"#, "not in quotes"),
        (r#"key: '{{ .Branch }}'"#, "`.Branch` is unknown"),
        (r#"key: a, restore_keys: ['{{']"#, "`{{` has no `}}`"),
        ("key: a, restore_keys: [a, b, c, d, e, f, g, h, i, j, k]", "more than 10 `restore_keys`"),
    ] {
        let told = told(cache);
        assert!(told.contains("[cache-key]") && told.contains(why), "{told}");
    }
}

#[test]
fn misspelt_attributes_are_told_and_those_of_our_own_are_errors() {
    insta::assert_snapshot!(said("
supercede: running
x-anchors: {a: b}
steps:
  - {command: x, depend_on: a, envs: {A: b}, frobnicate: 1}
  - {command: x, exclusiv: true, pty: true, zones: a}
  - {command: x, resources: {cpu: 1}}
"), @"
    pipeline.yml:2:1: error: `supercede` is not an attribute of a pipeline [unknown-key]
     2 | supercede: running
       | ^^^^^^^^^
      hint: did you mean `supersede`?
    pipeline.yml:5:18: warning: `depend_on` is not an attribute of a command step; it is ignored [unknown-key]
     5 |   - {command: x, depend_on: a, envs: {A: b}, frobnicate: 1}
       |                  ^^^^^^^^^
      hint: did you mean `depends_on`?
    pipeline.yml:5:32: warning: `envs` is not an attribute of a command step; it is ignored [unknown-key]
     5 |   - {command: x, depend_on: a, envs: {A: b}, frobnicate: 1}
       |                                ^^^^
      hint: did you mean `env`?
    pipeline.yml:5:46: warning: `frobnicate` is not an attribute of a command step; it is ignored [unknown-key]
     5 |   - {command: x, depend_on: a, envs: {A: b}, frobnicate: 1}
       |                                              ^^^^^^^^^^
    pipeline.yml:6:18: error: `exclusiv` is not an attribute of a command step [unknown-key]
     6 |   - {command: x, exclusiv: true, pty: true, zones: a}
       |                  ^^^^^^^^
      hint: did you mean `exclusive`?
    pipeline.yml:6:34: error: `pty` is not an attribute of a command step [unknown-key]
     6 |   - {command: x, exclusiv: true, pty: true, zones: a}
       |                                  ^^^
      hint: did you mean `tty`?
    pipeline.yml:6:45: error: `zones` is not an attribute of a command step [unknown-key]
     6 |   - {command: x, exclusiv: true, pty: true, zones: a}
       |                                             ^^^^^
      hint: did you mean `zone`?
    pipeline.yml:7:30: error: `cpu` is not an attribute of `resources` [unknown-key]
     7 |   - {command: x, resources: {cpu: 1}}
       |                              ^^^
      hint: did you mean `cpus`?
    ");
}

#[test]
fn values_of_the_wrong_type_or_out_of_range_are_told_all_at_once() {
    insta::assert_snapshot!(said("
agents: fast
env: [A]
supersede: sometimes
steps:
  - command: {a: b}
    label: [l]
    timeout_in_minutes: 0
    priority: high
    parallelism: 20000
    soft_fail: 3
    exclusive: maybe
"), @"
    pipeline.yml:2:9: error: `agents` must be a mapping of tags, or a list of `tag=value`, but text stands here [wrong-type]
     2 | agents: fast
       |         ^^^^
    pipeline.yml:3:6: error: `env` must be a mapping of names to values, but a list stands here [wrong-type]
     3 | env: [A]
       |      ^^^
    pipeline.yml:4:12: error: `supersede` must be `false`, `waiting` or `running`, but text stands here [wrong-type]
     4 | supersede: sometimes
       |            ^^^^^^^^^
    pipeline.yml:6:14: error: `command` must be text, but a mapping stands here [wrong-type]
     6 |   - command: {a: b}
       |              ^^^^^^
    pipeline.yml:7:12: error: `label` must be text, but a list stands here [wrong-type]
     7 |     label: [l]
       |            ^^^
    pipeline.yml:8:25: error: `timeout_in_minutes` must be at least 1 [out-of-range]
     8 |     timeout_in_minutes: 0
       |                         ^
    pipeline.yml:9:15: error: `priority` must be an integer, but text stands here [wrong-type]
     9 |     priority: high
       |               ^^^^
    pipeline.yml:10:18: error: `parallelism` must be from 0 to 10000 [out-of-range]
     10 |     parallelism: 20000
        |                  ^^^^^
    pipeline.yml:11:16: error: `soft_fail` must be `true`, `false` or a list of `exit_status`, but an integer stands here [wrong-type]
     11 |     soft_fail: 3
        |                ^
    pipeline.yml:12:16: error: `exclusive` must be `true` or `false`, but text stands here [wrong-type]
     12 |     exclusive: maybe
        |                ^^^^^
    ");
}

#[test]
fn wrong_values_deep_in_a_step_are_told_at_their_place() {
    insta::assert_snapshot!(said("
steps:
  - command: x
    skip: 5
    env: {A: 2002-08-15, '': x, B: 12345678901234567890}
    retry: {automatic: {limit: 11, signal: SIGTRM, cause: agent-lost, status: 1}, manual: {allow: true}}
    resources: {cpus: lots, memory: 4}
    depends_on: {a: b}
    agents: {queue: '*'}
  - 5
  - waitt
"), @"
    pipeline.yml:4:11: error: `skip` must be `true`, `false` or a reason, but an integer stands here [wrong-type]
     4 |     skip: 5
       |           ^
    pipeline.yml:5:14: error: `A` must be text, but a date stands here [wrong-type]
     5 |     env: {A: 2002-08-15, '': x, B: 12345678901234567890}
       |              ^^^^^^^^^^
      hint: put it in quotes to make it text
    pipeline.yml:5:26: error: a variable's name is not empty and holds neither `=` nor NUL [variable-name]
     5 |     env: {A: 2002-08-15, '': x, B: 12345678901234567890}
       |                          ^^
    pipeline.yml:5:36: error: `B` is an integer that 63 bits cannot hold [wrong-type]
     5 |     env: {A: 2002-08-15, '': x, B: 12345678901234567890}
       |                                    ^^^^^^^^^^^^^^^^^^^^
      hint: put it in quotes to make it text
    pipeline.yml:6:32: error: `limit` must be from 0 to 10 [out-of-range]
     6 |     retry: {automatic: {limit: 11, signal: SIGTRM, cause: agent-lost, status: 1}, manual: {allow: true}}
       |                                ^^
    pipeline.yml:6:44: error: `SIGTRM` is not the name of a signal [unknown-signal]
     6 |     retry: {automatic: {limit: 11, signal: SIGTRM, cause: agent-lost, status: 1}, manual: {allow: true}}
       |                                            ^^^^^^
      hint: did you mean `TERM`?
    pipeline.yml:6:59: error: `agent-lost` is not a cause [unknown-cause]
     6 |     retry: {automatic: {limit: 11, signal: SIGTRM, cause: agent-lost, status: 1}, manual: {allow: true}}
       |                                                           ^^^^^^^^^^
      hint: did you mean `agent_lost`?
    pipeline.yml:6:71: error: `status` is not an attribute of a rule of `automatic` [unknown-key]
     6 |     retry: {automatic: {limit: 11, signal: SIGTRM, cause: agent-lost, status: 1}, manual: {allow: true}}
       |                                                                       ^^^^^^
    pipeline.yml:6:92: error: `allow` is not an attribute of `retry.manual` [unknown-key]
     6 |     retry: {automatic: {limit: 11, signal: SIGTRM, cause: agent-lost, status: 1}, manual: {allow: true}}
       |                                                                                            ^^^^^
      hint: did you mean `allowed`?
    pipeline.yml:7:23: error: `cpus` must be a number such as `2` or `0.5`, but text stands here [wrong-type]
     7 |     resources: {cpus: lots, memory: 4}
       |                       ^^^^
    pipeline.yml:7:37: error: `memory` must be from 4194304 bytes (4MiB) to 1125899906842624 (1024TiB) [out-of-range]
     7 |     resources: {cpus: lots, memory: 4}
       |                                     ^
      hint: a number alone is bytes; did you mean `4GiB`?
    pipeline.yml:8:17: error: `depends_on` must be a step's key, or a list of them, but a mapping stands here [wrong-type]
     8 |     depends_on: {a: b}
       |                 ^^^^^^
    pipeline.yml:9:21: error: a queue is named exactly; without `queue` the step goes to `default` [empty-value]
     9 |     agents: {queue: '*'}
       |                     ^^^
    pipeline.yml:10:5: error: a step is a mapping or one of the words `wait`, `block`, `input`, not an integer [wrong-type]
     10 |   - 5
        |     ^
    pipeline.yml:11:5: error: `waitt` is not a step [unknown-step]
     11 |   - waitt
        |     ^^^^^
      hint: did you mean `wait`?
    ");
}

#[test]
fn keys_follow_the_rules_of_the_reference() {
    insta::assert_snapshot!(said("
steps:
  - {command: x, key: a b}
  - {command: x, key: 0190046e-e199-453b-a302-a21a4d649d31}
  - {command: x, key: ''}
  - {command: x, key: same}
  - {command: x, id: same}
"), @"
    pipeline.yml:3:23: error: ` ` cannot stand in a key [step-key]
     3 |   - {command: x, key: a b}
       |                       ^^^
      hint: letters, digits and `_` `-` `:` `.` `,` can
    pipeline.yml:4:23: error: a key must not look like a UUID: those are the ids of steps [step-key]
     4 |   - {command: x, key: 0190046e-e199-453b-a302-a21a4d649d31}
       |                       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    pipeline.yml:5:23: error: a key is empty [step-key]
     5 |   - {command: x, key: ''}
       |                       ^^
    pipeline.yml:7:22: error: two steps have the key `same` [duplicate-step-key]
     7 |   - {command: x, id: same}
       |                      ^^^^
      hint: the first one is on line 6
    ");
}

#[test]
fn interpolation_errors_point_into_the_text() {
    insta::assert_snapshot!(said("
steps:
  - command: |
      echo fine
      echo ${TOKEN?give me one} and ${A+b}
  - command: echo ${NEEDED?}
    label: 'closing ${brace'
"), @"
    pipeline.yml:5:37: error: `+` is no operator; there are `:-`, `-`, `?` and `:` [interpolation-syntax]
     5 |       echo ${TOKEN?give me one} and ${A+b}
       |                                     ^^^^^^
      hint: write `$$` for a `$` that the shell should see
    pipeline.yml:6:19: error: $NEEDED: not set [required-variable]
     6 |   - command: echo ${NEEDED?}
       |                   ^^^^^^^^^^
      hint: set `NEEDED` for the build, or write a default: `${NEEDED:-…}`
    pipeline.yml:7:21: error: the closing `}` is missing [interpolation-syntax]
     7 |     label: 'closing ${brace'
       |                     ^^^^^^^
      hint: write `$$` for a `$` that the shell should see
    ");
}

#[test]
fn a_check_without_an_environment_lets_unknown_variables_pass() {
    let text = "
steps:
  - {key: \"a-$X\", command: 'echo ${NEEDED?}', priority: $N, timeout_in_minutes: '${T:-5}', exclusive: '$E'}
  - {command: x, depends_on: \"a-$X\"}
";
    let checked = check(text, "pipeline.yml");
    assert!(checked.graph.is_some());
    insta::assert_snapshot!(checked.render(text), @r#"
    pipeline.yml:3:34: warning: the variable `NEEDED` must be set when this runs [required-variable]
     3 |   - {key: "a-$X", command: 'echo ${NEEDED?}', priority: $N, timeout_in_minutes: '${T:-5}', exclusive: '$E'}
       |                                  ^^^^^^^^^^
    "#);
}

#[test]
fn yaml_errors_have_their_place() {
    insta::assert_snapshot!(said("steps:\n  - command: \"a\n"), @r#"
    pipeline.yml:2:14: error: while scanning a quoted scalar, found unexpected end of stream [yaml-syntax]
     2 |   - command: "a
       |              ^
    "#);
    insta::assert_snapshot!(said("steps: &a [*a]\n"), @"
    pipeline.yml:1:12: error: the alias contains itself [infinite-recursion]
     1 | steps: &a [*a]
       |            ^^
    ");
    insta::assert_snapshot!(said("steps: [{? [a] : b}]\n"), @"
    pipeline.yml:1:12: error: a key must be a scalar, not a list or a mapping [complex-key]
     1 | steps: [{? [a] : b}]
       |            ^
    ");
    insta::assert_snapshot!(said("a: &x 1\nsteps: []\n---\nsteps: [{command: *x}]\n"), @"
    pipeline.yml:4:19: error: the alias names an anchor of an earlier document [unknown-anchor]
     4 | steps: [{command: *x}]
       |                   ^^
    ");
    insta::assert_snapshot!(said("steps: [{<<: 5, command: x}]\n"), @"
    pipeline.yml:1:14: error: `<<` takes a mapping, or a list of mappings [wrong-merge]
     1 | steps: [{<<: 5, command: x}]
       |              ^
    ");
    insta::assert_snapshot!(said("steps: [{command: a, command: b}]\n"), @"
    pipeline.yml:1:22: warning: the key `command` stands twice in this mapping; the last one counts [duplicate-key]
     1 | steps: [{command: a, command: b}]
       |                      ^^^^^^^
      hint: the first one is on line 1
    ");
    insta::assert_snapshot!(said(""), @"
    pipeline.yml:1:1: error: the file is empty [no-document]
     1 | 
       | ^
      hint: write `steps:` with a list of steps
    ");
    insta::assert_snapshot!(said("just text"), @"
    pipeline.yml:1:1: error: a pipeline is a mapping with `steps`, or a list of steps, not text [unsupported-document]
     1 | just text
       | ^^^^^^^^^
    ");
}

#[test]
fn a_diagnostic_in_json_has_the_members_that_the_interface_names() {
    let compiled = compile("steps: [{comand: x}]", "p.yml", &[]);
    let json = serde_json::to_string_pretty(&compiled.diagnostics).unwrap();
    insta::assert_snapshot!(json, @r#"
    [
      {
        "severity": "error",
        "code": "unknown-step",
        "message": "no kind of step has these keys",
        "hint": "did you mean `command`?",
        "line": 1,
        "column": 10,
        "end_line": 1,
        "end_column": 16
      }
    ]
    "#);
}

#[test]
fn what_is_said_about_one_pipeline_is_bounded_and_still_an_error() {
    let text = format!("steps:\n{}", "  - {command: x, frobnicate: 1}\n".repeat(900) + "  - {command: x, if: a}\n");
    let compiled = compile(&text, "p.yml", &[]);
    assert!(compiled.graph.is_none());
    let last = compiled.diagnostics.last().unwrap();
    assert_eq!((compiled.diagnostics.len(), last.code, last.is_error()), (501, "too-many-problems", true));
    assert_eq!(last.message, "401 more problems were found and are not shown");
}

#[test]
fn names_near_to_what_was_meant_are_looked_for_only_while_somebody_reads_them() {
    let steps: String = (0..2_000).map(|n| format!("  - {{key: abcdefghijk{n}, command: x}}\n")).collect();
    let misses: Vec<String> = (0..20_000).map(|n| format!("abcdefghijkl{n}")).collect();
    let text = format!("steps:\n{steps}  - {{command: x, depends_on: [{}]}}\n", misses.join(", "));
    let compiled = compile(&text, "p.yml", &[]);
    let hinted = compiled.diagnostics.iter().filter(|diagnostic| diagnostic.hint.is_some()).count();
    assert_eq!((compiled.diagnostics.len(), hinted), (501, 50));
}
