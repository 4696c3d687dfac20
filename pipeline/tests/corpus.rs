//! The reference corpus: pipelines as they stand in documentation, and scalars with their known forms.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the tests' own helpers fail by panicking and say what is skipped"
)]

#[path = "support/corpus.rs"]
mod support;

use std::fs;
use std::path::Path;

use windlass_pipeline::condition::{self, Context, EntryPoint, ErrorKind, Value};
use windlass_pipeline::normal;
use windlass_pipeline::render::Interpolation;
use windlass_pipeline::yaml;

use crate::support::{corpus, pipelines};

#[test]
fn every_documented_pipeline_is_read_without_an_error_of_yaml() {
    let Some(corpus) = corpus() else { return };
    for folder in ["docs", "schema", "go-pipeline"] {
        let pipelines = pipelines(&corpus.join(folder));
        for (path, text) in &pipelines {
            let parsed = yaml::parse(text);
            assert_eq!(parsed.error, None, "{path}");
            assert!(!parsed.documents.is_empty(), "{path}");
        }
        println!("{folder}: {} pipelines read", pipelines.len());
    }
}

#[test]
fn scalars_of_an_environment_have_the_forms_that_the_agent_gives_them() {
    let Some(corpus) = corpus() else { return };
    let cases: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(corpus.join("env_scalars.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let text = format!("A: {}\n", case["yaml"].as_str().unwrap());
        let parsed = yaml::parse(&text);
        let value = parsed.documents[0].as_map().unwrap().get("A").unwrap().value.natural();
        assert_eq!(value.ok().as_deref(), case["env"].as_str(), "{text}");
    }
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn pairs(object: &serde_json::Value) -> Vec<(String, String)> {
    let members = object.as_object().unwrap();
    members.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// The context of a case, from its raw input.
fn context(case: &serde_json::Value) -> Context {
    let mut context = Context::from_json(&case["context"]).unwrap();
    context.set_pipeline_env(pairs(&case["project_env"]));
    context.set_build_env(pairs(&case["build_env"]));
    context
}

fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Parse => "parse",
        ErrorKind::Validation => "validation",
        ErrorKind::Evaluation => "evaluation",
        ErrorKind::Result => "result",
    }
}

#[test]
fn every_condition_gives_what_the_corpus_says() {
    let Some(corpus) = corpus() else { return };
    let cases = json(&corpus.join("conditional_cases.json"));
    let mut wrong = Vec::new();
    let (mut evaluated, mut validated) = (0, 0);
    for case in cases.as_array().unwrap() {
        let expression = case["expr"].as_str().unwrap();
        let Some(entry) = EntryPoint::named(case["entry_point"].as_str().unwrap()) else {
            assert_eq!(case["error"], "validation", "{case}");
            continue;
        };
        let outcome = if case["op"] == "evaluate" {
            evaluated += 1;
            condition::decide(expression, entry, &context(case)).map(Some)
        } else {
            validated += 1;
            condition::validate(expression, entry).map(|_| None)
        };
        let (result, error) = match &outcome {
            Ok(result) => (*result, None),
            Err(error) => (None, Some(kind(error.kind))),
        };
        if (result, error) != (case["result"].as_bool(), case["error"].as_str()) {
            wrong.push(format!("{expression}: {outcome:?}, not {} {}", case["result"], case["error"]));
        }
    }
    println!("conditions: {evaluated} evaluated, {validated} validated");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(evaluated + validated + 1, cases.as_array().unwrap().len());
}

#[test]
fn variables_and_environment_derive_from_what_is_known_of_a_build() {
    let Some(corpus) = corpus() else { return };
    let cases = json(&corpus.join("conditional_cases.json"));
    for case in cases.as_array().unwrap() {
        let context = context(case);
        let seen: Vec<(String, String)> =
            context.environment().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut expected = pairs(&case["env"]);
        expected.sort();
        assert_eq!(seen, expected, "{case}");
        for (name, expected) in case["vars"].as_object().unwrap() {
            let value = match context.value(name) {
                Value::Null => serde_json::Value::Null,
                Value::Text(text) => text.into(),
                Value::Number(number) => number.into(),
                Value::Bool(value) => value.into(),
                Value::List(items) => items.into(),
            };
            assert_eq!(value, *expected, "{name} in {case}");
        }
    }
    println!("contexts: {} derived", cases.as_array().unwrap().len());
}

/// Numbers by their value, whatever their form; objects whatever their order.
fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (a, b) {
        (Number(a), Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Object(a), Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (a, b) => a == b,
    }
}

#[test]
fn every_document_has_the_normal_form_that_the_agent_uploads() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("go-pipeline");
    let index = fs::read_to_string(folder.join("INDEX.tsv")).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    let mut wrong = Vec::new();
    for row in index.lines().skip(1) {
        let mut columns = row.split('\t');
        let (file, _, kind) = (columns.next().unwrap(), columns.next().unwrap(), columns.next().unwrap());
        let path = folder.join(file);
        let text = fs::read_to_string(&path).unwrap();
        let env = (kind == "interpolate").then(|| json(&path.with_extension("env.json")));
        let variables = env.as_ref().map(|env| pairs(&env["env"])).unwrap_or_default();
        let prefer_variables = env.as_ref().is_some_and(|env| env["prefer_runtime_env"] == true);
        let interpolation = Interpolation { variables: &variables, prefer_variables };
        let normal = normal::upload(&text, env.is_some().then_some(&interpolation)).unwrap();
        assert_eq!(normal.len(), 1, "{file}");
        let found = normal::to_json(&normal[0].document).unwrap();
        let expected = json(&path.with_extension("expected.json"));
        if !same(&found, &expected) {
            wrong.push(format!("{file}: {found}\n not {expected}"));
        }
        let warned = normal[0].warnings.iter().any(|warning| warning.code == "unknown-step");
        if warned != (kind == "parse-with-warning") {
            wrong.push(format!("{file} is {kind}: {:?}", normal[0].warnings));
        }
        *counts.entry(kind.to_owned()).or_insert(0) += 1;
    }
    println!("normal forms: {counts:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_cannot_be_uploaded_at_all_is_refused_by_the_reader() {
    let Some(corpus) = corpus() else { return };
    let index = fs::read_to_string(corpus.join("invalid/INDEX.tsv")).unwrap();
    let mut count = 0;
    for row in index.lines().skip(1) {
        let mut columns = row.split('\t');
        let (file, level) = (columns.next().unwrap(), columns.next().unwrap());
        let text = fs::read_to_string(corpus.join("invalid").join(file)).unwrap();
        assert_eq!(normal::upload(&text, None).is_err(), level == "parse", "{row}");
        count += 1;
    }
    println!("invalid: {count} documents refused at their level");
}

#[test]
fn the_names_that_a_text_refers_to_are_found() {
    let Some(corpus) = corpus() else { return };
    let cases = json(&corpus.join("interpolation_identifiers.json"));
    for case in cases.as_array().unwrap() {
        let found = windlass_pipeline::identifiers(case["input"].as_str().unwrap()).unwrap();
        let expected: Vec<&str> =
            case["identifiers"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        assert_eq!(found, expected, "{case}");
    }
    println!("identifiers: {} texts", cases.as_array().unwrap().len());
}
