//! `plugins`: sources and settings, in order (reference 12.1).

use serde_json::Value;
use windlass_protocol::limits::PLUGINS_MAX;

use crate::diagnostic::Diagnostic;
use crate::graph::Plugin;
use crate::read::{Reader, shown};
use crate::yaml::{Entry, Kind, Node};

pub(super) fn read(reader: &mut Reader, entry: &Entry) -> Vec<Plugin> {
    let mut plugins = Vec::new();
    match &entry.value.kind {
        Kind::Null => {}
        Kind::List(items) => items.iter().for_each(|item| one(reader, item, &mut plugins)),
        Kind::Map(_) => one(reader, &entry.value, &mut plugins),
        Kind::Bool(_) | Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) | Kind::Text(_) => {
            reader.decode(|reader| reader.wrong_type("plugins", "a list of plugins", &entry.value));
        }
    }
    if plugins.len() > PLUGINS_MAX {
        let message = format!("the step has {} plugins; {PLUGINS_MAX} are the most", plugins.len());
        reader.error("too-many", entry.key_span, message);
    }
    plugins
}

fn one(reader: &mut Reader, node: &Node, plugins: &mut Vec<Plugin>) {
    match &node.kind {
        Kind::Text(source) => add(reader, source, Value::Null, node, plugins),
        Kind::Map(map) => {
            for entry in map {
                if !entry.value.is_null() && entry.value.as_map().is_none() && !reader.is_awaited(&entry.value) {
                    let message =
                        format!("the settings of the plugin `{}` are no mapping: its job will fail", shown(&entry.key));
                    let diagnostic = Diagnostic::warning("plugin-settings", entry.value.span, message);
                    reader.findings.push(diagnostic.hint("settings stand deeper than the plugin's name"));
                }
                // No settings are null in the normal form, however they were written.
                let none = entry.value.as_map().is_some_and(|map| map.iter().next().is_none());
                let config = if none { Value::Null } else { json(&entry.value) };
                add(reader, &entry.key, config, node, plugins);
            }
        }
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::List(_) => {
            reader.decode(|reader| {
                reader.wrong_type("plugins", "a plugin's source, or a mapping of it to settings", node);
            });
        }
    }
}

fn add(reader: &mut Reader, source: &str, config: Value, at: &Node, plugins: &mut Vec<Plugin>) {
    if source.is_empty() {
        return reader.error("empty-value", at.span, "a plugin has no source");
    }
    plugins.push(Plugin { source: full_source(source), config });
}

/// A plugin's source as it is fetched: `name#v1` is `github.com/buildkite-plugins/name-buildkite-plugin#v1`.
pub(crate) fn full_source(source: &str) -> String {
    let (location, version) = source.split_once('#').map_or((source, None), |(at, version)| (at, Some(version)));
    if location.starts_with(['/', '.', '\\']) || location.contains(':') {
        return source.to_owned();
    }
    let parts: Vec<&str> = location.split('/').collect();
    let full = match parts.as_slice() {
        [name] => format!("github.com/buildkite-plugins/{name}-buildkite-plugin"),
        [organisation, name] => format!("github.com/{organisation}/{name}-buildkite-plugin"),
        _ => return source.to_owned(),
    };
    version.map_or(full.clone(), |version| format!("{full}#{version}"))
}

/// A value of the document as JSON, keys in order. Numbers that JSON does not have become text.
pub(super) fn json(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => Value::Bool(*value),
        Kind::Int(value) => Value::from(*value),
        Kind::Unsigned(value) => Value::from(*value),
        Kind::Float(value) => serde_json::Number::from_f64(*value)
            .map_or_else(|| Value::String(node.natural().unwrap_or_default()), Value::Number),
        Kind::Time(text) | Kind::Text(text) => Value::String(text.clone()),
        Kind::List(items) => Value::Array(items.iter().map(json).collect()),
        Kind::Map(map) => Value::Object(map.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::full_source;

    #[test]
    fn sources_are_written_out_in_full() {
        for (written, full) in [
            ("docker#v1", "github.com/buildkite-plugins/docker-buildkite-plugin#v1"),
            ("docker", "github.com/buildkite-plugins/docker-buildkite-plugin"),
            ("acme/docker#main", "github.com/acme/docker-buildkite-plugin#main"),
            ("github.com/acme/tools/sub#v2", "github.com/acme/tools/sub#v2"),
            ("./.buildkite/plugins/x", "./.buildkite/plugins/x"),
            ("/opt/x", "/opt/x"),
            ("https://example.org/x.git#v1", "https://example.org/x.git#v1"),
            ("ssh://git@example.org/x.git", "ssh://git@example.org/x.git"),
            ("git@example.org:x.git", "git@example.org:x.git"),
        ] {
            assert_eq!(full_source(written), full);
        }
    }
}
