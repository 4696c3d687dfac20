//! The JSON Schema is checked in, is the one that the tables make, and takes what is sound.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the tests' own helpers fail by panicking and say what is skipped"
)]

#[path = "support/corpus.rs"]
mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use windlass_pipeline::json_schema;
use windlass_pipeline::yaml::{self, Kind, Node};

use crate::support::{corpus, pipelines};

/// Rewrites the checked-in copy where it is set.
const UPDATE: &str = "WINDLASS_UPDATE_SCHEMA";

#[test]
fn the_checked_in_schema_is_the_one_that_the_tables_make() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pipeline.schema.json");
    let mut text = serde_json::to_string_pretty(&json_schema()).unwrap();
    text.push('\n');
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &text).unwrap();
    }
    let held = fs::read_to_string(&path).unwrap_or_default();
    assert!(held == text, "the language has changed: look at it, then run this test with {UPDATE}=1");
}

/// What of a schema we use, and no more: a word that is not known here fails.
fn fits(schema: &Value, root: &Value, value: &Value) -> bool {
    schema.as_object().unwrap().iter().all(|(word, rule)| match word.as_str() {
        "$schema" | "title" | "description" | "definitions" => true,
        "$ref" => fits(root.pointer(rule.as_str().unwrap().trim_start_matches('#')).unwrap(), root, value),
        "anyOf" => rule.as_array().unwrap().iter().any(|one| fits(one, root, value)),
        "enum" => rule.as_array().unwrap().contains(value),
        "type" => {
            let one = [rule.clone()];
            rule.as_array()
                .map_or(one.as_slice(), Vec::as_slice)
                .iter()
                .any(|name| is_of(name.as_str().unwrap(), value))
        }
        "minimum" => value.as_i64().is_none_or(|value| value >= rule.as_i64().unwrap()),
        "maximum" => value.as_i64().is_none_or(|value| value <= rule.as_i64().unwrap()),
        "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(rule, root, item))),
        "required" => {
            let has = |map: &serde_json::Map<String, Value>| {
                rule.as_array().unwrap().iter().all(|key| map.contains_key(key.as_str().unwrap()))
            };
            value.as_object().is_none_or(has)
        }
        "pattern" => value.as_str().is_none_or(|text| matches(rule.as_str().unwrap(), text)),
        "properties" | "additionalProperties" => {
            value.as_object().is_none_or(|map| map.iter().all(|(key, value)| member(schema, root, key, value)))
        }
        other => panic!("the schema uses `{other}`"),
    })
}

fn member(schema: &Value, root: &Value, key: &str, value: &Value) -> bool {
    match (schema.get("properties").and_then(|known| known.get(key)), schema.get("additionalProperties")) {
        (Some(known), _) => fits(known, root, value),
        (None, Some(Value::Bool(allowed))) => *allowed,
        (None, Some(others)) => fits(others, root, value),
        (None, None) => true,
    }
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        other => panic!("the schema uses type `{other}`"),
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern {
        r"\$|\{\{" => text.contains('$') || text.contains("{{"),
        r"^\s*-?[0-9]+\s*$" => text.trim().parse::<i64>().is_ok(),
        other => panic!("the schema uses the pattern `{other}`"),
    }
}

/// A document as an editor sees it.
fn json_of(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => json!(value),
        Kind::Int(value) => json!(value),
        Kind::Unsigned(value) => json!(value),
        Kind::Float(value) => json!(value),
        Kind::Time(text) | Kind::Text(text) => json!(text),
        Kind::List(items) => items.iter().map(json_of).collect(),
        Kind::Map(map) => Value::Object(map.iter().map(|entry| (entry.key.clone(), json_of(&entry.value))).collect()),
    }
}

fn takes(text: &str) -> bool {
    let schema = json_schema();
    yaml::parse(text).documents.iter().all(|document| fits(&schema, &schema, &json_of(document)))
}

#[test]
fn the_schema_takes_each_kind_of_step_and_refuses_what_the_checker_refuses() {
    for text in [
        "[wait, block, input, {command: x, timeout_in_minutes: $T}, {wait: {continue_on_failure: true}}]",
        "{steps: [{group: g, steps: [{trigger: t}]}, {command: x, retry: {automatic: [{exit_status: '*', cause: timeout}]}}]}",
        "{steps: ~, env: {A: 1}, x-anchors: {a: b}}",
        "[{command: x, reuse: {inputs: a}, resources: {cpus: 2}, cache: {paths: p, key: k}, zone: z, tty: true}]",
    ] {
        assert!(takes(text), "{text}");
    }
    for text in [
        "{env: {A: b}}",
        "[{command: x, timeout_in_minutes: 0}]",
        "[{command: x, concurrency_method: random}]",
        "[{command: x, retry: {manual: {allow: true}}}]",
        "[{command: x, matrix: {adjustments: []}}]",
        "[{block: b, fields: [{select: s, key: k, options: []}]}]",
        "[{group: g, steps: []}]",
        "[{group: g, steps: [{group: h, steps: [wait]}]}]",
        "[{command: x, frobnicate: 1}]",
    ] {
        assert!(!takes(text), "{text}");
    }
}

#[test]
fn the_schema_takes_the_reference_corpus() {
    let Some(root) = corpus() else { return };
    // Upstream's schema forbids attributes that a kind of step does not have, too; these pages show some that are ignored.
    let mut refused = Vec::new();
    let mut taken = 0;
    for folder in ["docs", "schema"] {
        for (path, text) in pipelines(&root.join(folder)) {
            let checked = windlass_pipeline::check(&text, "p.yml");
            let ignored = checked
                .diagnostics
                .iter()
                .any(|found| ["unknown-key", "two-kinds", "plugin-settings"].contains(&found.code));
            if takes(&text) {
                taken += 1;
            } else if !ignored {
                refused.push(path);
            }
        }
    }
    println!("the schema takes {taken} pipelines");
    assert!(refused.is_empty(), "{refused:?}");
}
