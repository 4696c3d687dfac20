//! The language as a JSON Schema, for editors. Made of the tables that the readers use.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::model::attribute::{BLOCK, COMMAND, GROUP, INPUT, Row, Shape, TOP, TRIGGER, Table, Unknown, WAIT};

/// Text that is something else only when variables and tokens are put in.
const AWAITED: &str = r"\$|\{\{";

/// The schema, draft 7, which every editor knows.
#[must_use]
pub fn json_schema() -> Value {
    let mut definitions = BTreeMap::new();
    for table in [&TOP, &COMMAND, &WAIT, &BLOCK, &INPUT, &TRIGGER, &GROUP] {
        define(table, &mut definitions);
    }
    let scalar = json!({ "enum": ["wait", "waiter", "block", "input", "manual"] });
    let nested = |keys: &[&str], table: &Table| -> Vec<Value> {
        let one = |key: &&str| {
            let properties = json!({ *key: reference(table.name) });
            json!({ "type": "object", "properties": properties, "required": [key], "additionalProperties": false })
        };
        keys.iter().map(one).collect()
    };
    let mut steps = vec![scalar];
    steps.extend([&COMMAND, &WAIT, &BLOCK, &INPUT, &TRIGGER].map(|table| reference(table.name)));
    steps.extend(nested(&["command", "commands", "script"], &COMMAND));
    steps.extend(nested(&["wait", "waiter"], &WAIT));
    steps.extend(nested(&["block"], &BLOCK));
    steps.extend(nested(&["input"], &INPUT));
    steps.extend(nested(&["trigger"], &TRIGGER));
    definitions.insert("step", json!({ "anyOf": steps }));
    definitions.insert("step_or_group", json!({ "anyOf": [reference("step"), reference(GROUP.name)] }));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A Windlass pipeline",
        "description": "The language of Buildkite's pipelines, and Windlass's additions.",
        "anyOf": [
            reference(TOP.name),
            { "type": "array", "items": reference("step_or_group") },
        ],
        "definitions": definitions,
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{name}") })
}

fn define(table: &'static Table, definitions: &mut BTreeMap<&'static str, Value>) {
    if definitions.contains_key(table.name) {
        return;
    }
    // Its place is taken before its rows are looked at: a table may be reached from itself.
    definitions.insert(table.name, Value::Null);
    let mut properties = Map::new();
    for row in table.rows {
        for name in row.names {
            properties.insert((*name).to_owned(), property(row, definitions));
        }
    }
    let required: Vec<&str> =
        table.rows.iter().filter(|row| row.required).filter_map(|row| row.names.first().copied()).collect();
    let mut definition = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": table.unknown == Unknown::Kept,
    });
    if !required.is_empty() {
        definition["required"] = json!(required);
    }
    definitions.insert(table.name, definition);
}

fn property(row: &Row, definitions: &mut BTreeMap<&'static str, Value>) -> Value {
    let mut value = shape(&row.shape, definitions);
    if !row.required || matches!(row.shape, Shape::Steps { groups: true }) {
        value = json!({ "anyOf": [value, { "type": "null" }] });
    }
    let doc = if row.ours { format!("{} (Windlass's own.)", row.doc) } else { row.doc.to_owned() };
    value["description"] = json!(doc);
    value
}

fn shape(shape: &Shape, definitions: &mut BTreeMap<&'static str, Value>) -> Value {
    let awaited = || json!({ "type": "string", "pattern": AWAITED });
    match shape {
        Shape::Text => json!({ "type": ["string", "number", "boolean", "null"] }),
        Shape::Flag => json!({ "anyOf": [{ "type": "boolean" }, { "enum": ["true", "false"] }, awaited()] }),
        Shape::Integer(least, most) => {
            let mut integer = json!({ "type": "integer", "minimum": least });
            if *most != i64::MAX {
                integer["maximum"] = json!(most);
            }
            json!({ "anyOf": [integer, { "type": "string", "pattern": r"^\s*-?[0-9]+\s*$" }, awaited()] })
        }
        Shape::Word(words) => json!({ "anyOf": [{ "enum": words }, awaited()] }),
        Shape::Variables => {
            let scalar = json!({ "type": ["string", "number", "boolean", "null"] });
            json!({ "type": "object", "additionalProperties": scalar })
        }
        Shape::AnyMap => json!({ "type": "object" }),
        Shape::List(of) => json!({ "type": "array", "items": self::shape(of, definitions) }),
        Shape::Some(of) => json!({ "type": "array", "items": self::shape(of, definitions), "minItems": 1 }),
        Shape::MapOf(of) => json!({ "type": "object", "additionalProperties": self::shape(of, definitions) }),
        Shape::Map(table) => {
            define(table, definitions);
            reference(table.name)
        }
        Shape::Either(shapes) => {
            let all: Vec<Value> = shapes.iter().map(|one| self::shape(one, definitions)).collect();
            json!({ "anyOf": all })
        }
        Shape::Steps { groups: true } => json!({ "type": "array", "items": reference("step_or_group") }),
        Shape::Steps { groups: false } => json!({ "type": "array", "items": reference("step"), "minItems": 1 }),
    }
}
