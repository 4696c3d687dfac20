//! What an upload makes of its texts (reference 1.2, 7, 11.1, 14): documents in order, changed files, and forms that read
//! as what they were.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the tests' own helpers fail by panicking and say what is skipped"
)]

#[path = "support/corpus.rs"]
mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use windlass_pipeline::condition::Context;
use windlass_pipeline::graph::Graph;
use windlass_pipeline::normal::{
    Changed, Failed, Session, apply_if_changed, has_if_changed, to_json, to_placed_json, to_yaml,
};
use windlass_pipeline::render::Interpolation;
use windlass_pipeline::{Inputs, Severity, compile_with};

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn session(pairs: &[(&str, &str)]) -> Session {
    Session::new(Some(&Interpolation { variables: &variables(pairs), ..Interpolation::default() }))
}

fn commands(session: &mut Session, text: &str) -> Vec<String> {
    let read = session.read(text);
    assert_eq!(read.failed, None, "{text}");
    let json = read.documents.iter().map(|normal| to_json(&normal.document).unwrap());
    json.map(|json| json["steps"][0]["command"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn what_a_document_sets_is_seen_by_later_documents_and_later_files() {
    let mut session = session(&[("A", "process"), ("B", "process")]);
    let first =
        "env: {A: file}\nsteps: [{command: '$A $B $C'}]\n---\nenv: {C: \"$A+\"}\nsteps: [{command: '$A $B $C'}]\n";
    assert_eq!(commands(&mut session, first), ["file process ", "file process file+"]);
    assert_eq!(commands(&mut session, "- command: '$A $B $C'\n"), ["file process file+"]);
    let mut raw = Session::new(None);
    assert_eq!(commands(&mut raw, "- command: 'echo $A $$B'\n"), ["echo $A $$B"], "nothing is put in");
    let prefers = variables(&[("A", "process")]);
    let mut prefers = Session::new(Some(&Interpolation { variables: &prefers, prefer_variables: true }));
    assert_eq!(commands(&mut prefers, "env: {A: file}\nsteps: [{command: $A}]\n"), ["process"]);
}

#[test]
fn documents_before_one_that_fails_are_there() {
    for (text, whole, parsing) in [
        ("- command: a\n---\n- command: b\n---\nsteps: [\n", 2, true),
        ("- command: a\n---\njust words\n", 1, true),
        ("- command: a\n---\n- command: '${B'\n---\n- command: c\n", 1, false),
        ("", 0, true),
    ] {
        let read = session(&[]).read(text);
        assert_eq!(read.documents.len(), whole, "{text}");
        match read.failed {
            Some(Failed::Parsing(errors)) => assert!(parsing && !errors.is_empty(), "{text}"),
            Some(Failed::Interpolation(errors)) => assert!(!parsing && !errors.is_empty(), "{text}"),
            None => panic!("{text} is taken"),
        }
    }
}

/// The steps after `if_changed` was decided, and how many warnings there were.
fn decided(steps: &str, files: Option<&[&str]>) -> (Value, usize) {
    let mut read = Session::new(None).read(&format!("steps:\n{steps}"));
    let document = &mut read.documents[0].document;
    assert!(has_if_changed(document), "{steps}");
    let files: Option<Vec<String>> = files.map(|files| files.iter().map(|file| (*file).to_owned()).collect());
    let warnings = apply_if_changed(document, files.as_deref().map_or(Changed::Unknown, Changed::Files));
    assert!(!has_if_changed(document), "it is always taken away: {steps}");
    assert!(warnings.iter().all(|warning| warning.severity == Severity::Warning));
    (to_json(document).unwrap()["steps"].take(), warnings.len())
}

const UNCHANGED: &str = "no file that it names has changed";

/// The rows of reference 11.1: a step, and whether it is skipped where `src/a.rs` and `docs/a.md` have changed.
#[test]
fn a_step_waits_for_the_files_that_it_names() {
    let rows = [
        ("src/**", false, 0),
        ("\"*.rs\"", true, 0),
        ("[lib/**, docs/*]", false, 0),
        ("[lib/**, docs/*.txt]", true, 0),
        ("{include: '**.rs'}", false, 0),
        ("{include: '**', exclude: 'src/**'}", false, 0),
        ("{include: '**.rs', exclude: [docs/**, src/**]}", true, 0),
        ("~", false, 0),
        ("{exclude: 'src/**'}", false, 1),
        ("{include: ~}", false, 1),
        ("'src/[a'", false, 1),
        ("7", false, 1),
        ("[]", true, 0),
    ];
    for (condition, skipped, warnings) in rows {
        let (steps, told) =
            decided(&format!("- {{command: a, if_changed: {condition}}}\n"), Some(&["src/a.rs", "docs/a.md"]));
        let expected = if skipped { json!(UNCHANGED) } else { Value::Null };
        assert_eq!((&steps[0]["skip"], told), (&expected, warnings), "{condition}");
        let (steps, told) = decided(&format!("- {{command: a, if_changed: {condition}}}\n"), None);
        assert_eq!((&steps[0]["skip"], told), (&Value::Null, 0), "nobody knows, so it runs: {condition}");
    }
}

#[test]
fn groups_triggers_and_skips_of_their_own_are_decided_and_gates_are_not() {
    let text = "- {command: a, skip: mine, if_changed: x}\n\
                - {trigger: t, if_changed: x}\n\
                - {block: b, if_changed: x}\n\
                - {wait: ~, if_changed: x}\n\
                - {group: g, if_changed: x, steps: [{command: b, if_changed: y}, {command: c, if_changed: x}]}\n";
    let (steps, warnings) = decided(text, Some(&["y"]));
    assert_eq!(warnings, 0);
    let skips = [&steps[0], &steps[1], &steps[2], &steps[3], &steps[4]].map(|step| step["skip"].clone());
    assert_eq!(skips, [json!(UNCHANGED), json!(UNCHANGED), Value::Null, Value::Null, json!(UNCHANGED)]);
    assert_eq!(steps[4]["steps"][0]["skip"], Value::Null, "a group's steps are decided on their own");
    assert_eq!(steps[4]["steps"][1]["skip"], json!(UNCHANGED));
}

#[test]
fn a_mistake_that_is_found_in_what_was_sent_names_the_file_s_own_line() {
    let text = "common: &c\n  env: {A: '1'}\nsteps:\n  - command: |\n      one\n      two\n    <<: *c\n    key: a\n\n  - command: b\n    \
                depends_on: [a, nowhere]\n    retry: {automatic: {limit: 99}}\n";
    let read = session(&[]).read(text);
    let sent = to_placed_json(&read.documents[0].document).unwrap();
    let inputs = Inputs { interpolated: true, ..Inputs::default() };
    let lines = |text: &str, inputs: &Inputs<'_>| {
        let found = compile_with(text, "p.yml", inputs).diagnostics;
        let errors = found.into_iter().filter(|found| found.severity == Severity::Error);
        errors.map(|found| (found.span.line, found.code, found.span.column)).collect::<Vec<_>>()
    };
    let own = lines(text, &Inputs::default());
    assert!(!own.is_empty());
    let sent_at = lines(&sent, &inputs);
    let places =
        |all: &[(u32, &'static str, u32)]| all.iter().map(|(line, code, _)| (*line, *code)).collect::<Vec<_>>();
    assert_eq!(places(&sent_at), places(&own), "{sent}");
    // Quotes need room that a line may not have.
    assert!(sent_at.iter().zip(&own).all(|((.., sent), (.., own))| (*own..own + 12).contains(sent)), "{sent}");
}

/// The graph of a text as it is, and of what is sent of it.
fn both(text: &str, pairs: &[(&str, &str)]) -> (Option<Graph>, Vec<Option<Graph>>) {
    let variables = variables(pairs);
    let context = Context::default();
    let own = Inputs { standard_env: &variables, context: Some(&context), ..Inputs::default() };
    let inputs = Inputs { interpolated: true, ..own };
    let own = compile_with(text, "p.yml", &own);
    let read = session(pairs).read(text);
    let sent = read.documents.iter().map(|normal| {
        let sent = to_placed_json(&normal.document).unwrap();
        let value: Value = serde_json::from_str(&sent).unwrap();
        assert_eq!(value, to_json(&normal.document).unwrap(), "white space changes nothing");
        compile_with(&sent, "p.yml", &inputs).graph
    });
    (own.graph, sent.collect())
}

#[test]
fn what_is_sent_comes_to_the_same_graph_as_the_document() {
    let pairs = [("BUILDKITE_BRANCH", "main"), ("WHO", "world")];
    for text in [
        "env: {A: 1.10, B: \"$WHO\"}\nsteps:\n- {command: \"echo $$A ${WHO:-x}\"}\n- wait\n- {commands: [a, b], name: n, id: k}\n",
        "- {command: a, matrix: [x, y], env: {C: '{{matrix}}'}}\n- {block: b, fields: [{text: t, key: k}]}\n- {command: c}\n",
        "steps:\n- group: g\n  key: gg\n  steps:\n  - {command: a, key: a}\n  - {command: b, depends_on: a, if: 'true'}\n- {command: c, depends_on: gg}\n",
        "agents: {queue: q}\nsteps:\n- {command: a, parallelism: 3, retry: {automatic: [{exit_status: 1, limit: 2}]}, soft_fail: [{exit_status: 2}]}\n",
        "steps:\n- {command: a, concurrency: 1, concurrency_group: '$WHO', timeout_in_minutes: 5, priority: 2, branches: 'main'}\n",
        "steps:\n- {command: a, resources: {cpus: 2}, exclusive: true, interruptible: true, tty: true, zone: z, image: i}\n",
        "steps:\n- {command: a, plugins: [docker#v1: {image: x}], artifact_paths: 'a;b', notify: [slack: x]}\n",
        "steps:\n- &a {command: 'x $$$$y \\\\$WHO', label: \"%n\"}\n- {<<: *a, label: 'é \"q\"'}\n",
    ] {
        let (own, sent) = both(text, &pairs);
        assert!(own.is_some(), "{text}");
        assert_eq!(sent, [own], "{text}");
    }
}

#[test]
fn every_document_of_the_corpus_is_sent_as_the_same_graph() {
    let Some(corpus) = support::corpus() else { return };
    let mut compared = 0;
    for (path, text) in
        ["docs", "schema", "go-pipeline"].iter().flat_map(|folder| support::pipelines(&corpus.join(folder)))
    {
        let (Some(own), sent) = both(&text, &[("BUILDKITE_BRANCH", "main")]) else { continue };
        if let [sent] = sent.as_slice() {
            assert_eq!(sent.as_ref(), Some(&own), "{path}");
            compared += 1;
        }
    }
    assert!(compared > 10, "{compared} of them run here");
    println!("{compared} documents compared");
}

#[test]
fn yaml_is_shown_as_people_write_it() {
    let value = json!({
        "env": { "A": "1", "B": "yes", "C": "x: y", "D": "" },
        "steps": [
            { "command": "make test\nmake", "env": {}, "depends_on": ["a", "b"], "key": "k" },
            "wait",
            { "group": null, "steps": [{ "wait": null, "if": "build.branch == 'main'" }] },
        ],
    });
    let expected = "env:\n    A: \"1\"\n    B: yes\n    C: \"x: y\"\n    D: \"\"\nsteps:\n    - command: \"make test\\nmake\"\n      \
                    env: {}\n      depends_on:\n          - a\n          - b\n      key: k\n    - wait\n    - group: null\n      \
                    steps:\n          - wait: null\n            if: \"build.branch == 'main'\"\n";
    assert_eq!(to_yaml(&value), expected);
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~]{0,12}",
        "\\PC{0,8}",
        Just("~".to_owned()),
        Just("0x1f".to_owned()),
        Just("2002-08-15".to_owned()),
        Just("1e3".to_owned()),
        Just(" - a".to_owned()),
        Just("a #b".to_owned()),
        Just("<<".to_owned()),
        Just("a\n\tb\u{2028}\u{7f}\u{85}".to_owned()),
    ];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 40, 5, move |inner| {
        let key = text.clone().prop_filter("a merge is no key", |key| key != "<<");
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn yaml_reads_as_the_json_that_it_was(value in any_json()) {
        let text = to_yaml(&value);
        let parsed = windlass_pipeline::yaml::parse(&text);
        prop_assert!(parsed.error.is_none(), "{text}");
        let read = parsed.documents.first().map(|document| to_json(document).unwrap());
        prop_assert_eq!(read.unwrap_or(Value::Null), value, "{}", text);
    }
}
