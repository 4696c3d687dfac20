//! JSON as YAML: what `pipeline upload --dry-run --format yaml` shows. It reads as what it was.

use serde_json::Value;

use crate::yaml::{self, Kind};

/// Columns that each level goes in.
const INDENT: usize = 4;

/// One document, without a marker at its beginning.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut out),
        _ => out.push_str(&scalar(value)),
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// A list or mapping that is not empty, its first line at the place where the text ends. Recursion ends at
/// `PIPELINE_DEPTH_MAX`.
fn block(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 {
                    out.push_str(&pad);
                }
                out.push_str(&text(key));
                out.push(':');
                below(value, indent, out);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(&pad);
                }
                out.push_str("- ");
                if is_block(item) {
                    block(item, indent + 2, out);
                } else {
                    out.push_str(&scalar(item));
                    out.push('\n');
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn below(value: &Value, indent: usize, out: &mut String) {
    if is_block(value) {
        out.push('\n');
        out.push_str(&" ".repeat(indent + INDENT));
        block(value, indent + INDENT, out);
    } else {
        out.push(' ');
        out.push_str(&scalar(value));
        out.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// As it is, where it is read as this text and nothing else; otherwise between quotes, as JSON has it, which YAML reads too.
fn text(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || " _-./@+=".contains(c);
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        && !text.ends_with(' ')
        && text.chars().all(harmless)
        && matches!(yaml::parse(text).documents.as_slice(), [only] if matches!(&only.kind, Kind::Text(read) if read == text));
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}
