//! Pipelines for tests, written as values: JSON is YAML.

use serde_json::{Value, json};

/// A command step; `script` is what its shell sees, dollars and all.
#[must_use]
pub fn step(key: &str, script: &str) -> Value {
    json!({ "key": key, "label": key, "command": script.replace('$', "$$") })
}

/// The same with another attribute.
#[must_use]
pub fn with(mut step: Value, name: &str, value: Value) -> Value {
    step[name] = value;
    step
}

/// A pipeline of these steps.
#[must_use]
pub fn pipeline(steps: impl IntoIterator<Item = Value>) -> String {
    json!({ "steps": steps.into_iter().collect::<Vec<_>>() }).to_string()
}

/// A script that waits until a file exists, and fails if it does not come.
#[must_use]
pub fn until_exists(path: &std::path::Path) -> String {
    format!("for i in $(seq 6000); do [ -e '{0}' ] && break; sleep 0.02; done; [ -e '{0}' ]", path.display())
}
