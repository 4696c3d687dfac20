//! Plugins as a job's agent sees them: where each is found, what it is called, and the variables of its hooks (reference 12).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::graph;

/// A plugin as `BUILDKITE_PLUGINS` names it, in the step's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Where it comes from, without its version.
    pub location: String,
    /// A tag, a branch or a commit; the default branch where none is given.
    pub version: Option<String>,
    /// Its settings.
    pub config: Map<String, Value>,
}

/// Where the files of a plugin are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the job's own checkout, at this path below it.
    Vendored(String),
    /// In a repository.
    Repository {
        /// As git is given it.
        url: String,
        /// A directory in it; empty for all of it.
        directory: String,
    },
}

/// Why a text names no plugins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// It is no list in JSON.
    #[error("plugins are a list, in JSON: {0}")]
    List(String),
    /// An item is neither a source nor a mapping of sources to settings.
    #[error("a plugin is a source, or a mapping of sources to settings")]
    Item,
    /// Settings are something else than a mapping.
    #[error("the settings of the plugin `{0}` are no mapping")]
    Settings(String),
    /// It says nothing of where it is found.
    #[error("the plugin `{0}` names no repository")]
    Location(String),
}

/// A step's plugins as its job hears of them in `BUILDKITE_PLUGINS`: `[{"source": {…}}]`, settings in the step's order.
#[must_use]
pub fn text(plugins: &[graph::Plugin]) -> String {
    let one =
        |plugin: &graph::Plugin| Value::Object([(plugin.source.clone(), plugin.config.clone())].into_iter().collect());
    Value::Array(plugins.iter().map(one).collect()).to_string()
}

/// The same plugins, each at the commit that is known for its source: settings and order stay.
#[must_use]
pub fn at_commits(plugins: &[graph::Plugin], commits: &BTreeMap<String, String>) -> Vec<graph::Plugin> {
    let at_commit = |plugin: &graph::Plugin| {
        let mut plugin = plugin.clone();
        if let Some(commit) = commits.get(&plugin.source) {
            let location = plugin.source.split_once('#').map_or(plugin.source.as_str(), |(location, _)| location);
            plugin.source = format!("{location}#{commit}");
        }
        plugin
    };
    plugins.iter().map(at_commit).collect()
}

impl Plugin {
    /// Those that a text names: `[{"source": {…}}, "source"]`.
    ///
    /// # Errors
    /// [`PluginError`].
    pub fn list(json: &str) -> Result<Vec<Self>, PluginError> {
        let items: Vec<Value> = serde_json::from_str(json).map_err(|error| PluginError::List(error.to_string()))?;
        let mut plugins = Vec::new();
        for item in items {
            match item {
                Value::String(source) => plugins.push(Self::of(&source, Map::new())),
                Value::Object(sources) => {
                    for (source, config) in sources {
                        let config = match config {
                            Value::Null => Map::new(),
                            Value::Object(config) => config,
                            _ => return Err(PluginError::Settings(source)),
                        };
                        plugins.push(Self::of(&source, config));
                    }
                }
                _ => return Err(PluginError::Item),
            }
        }
        Ok(plugins)
    }

    fn of(source: &str, config: Map<String, Value>) -> Self {
        let (location, version) = match source.split_once('#') {
            Some((location, version)) => (location, Some(version.to_owned())),
            None => (source, None),
        };
        Self { location: location.to_owned(), version: version.filter(|version| !version.is_empty()), config }
    }

    /// Its source, as it was written.
    #[must_use]
    pub fn source(&self) -> String {
        self.version.as_ref().map_or_else(|| self.location.clone(), |version| format!("{}#{version}", self.location))
    }

    /// What people call it: the last part of its location in lower case, without `-buildkite-plugin`.
    #[must_use]
    pub fn name(&self) -> String {
        let last = self.location.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or_default();
        let name: String = last.trim_start_matches('.').to_lowercase().chars().map(plain).collect();
        let name = name.strip_suffix("-buildkite-plugin-git").unwrap_or(&name);
        name.strip_suffix("-buildkite-plugin").unwrap_or(name).to_owned()
    }

    /// A name for a directory: its source with a dash for whatever is neither letter nor digit.
    #[must_use]
    pub fn id(&self) -> String {
        self.source().chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
    }

    /// Where its files are.
    ///
    /// # Errors
    /// [`PluginError::Location`].
    pub fn place(&self) -> Result<Place, PluginError> {
        let none = || PluginError::Location(self.source());
        if self.location.starts_with(['.', '\\']) {
            return Ok(Place::Vendored(self.location.clone()));
        }
        if self.location.starts_with('/') {
            return Ok(Place::Repository { url: self.location.clone(), directory: String::new() });
        }
        let (scheme, rest) = match self.location.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            // `git@host:path`, which is git's own form.
            None if self.location.contains(':') => {
                return Ok(Place::Repository { url: self.location.clone(), directory: String::new() });
            }
            None => ("https", self.location.as_str()),
        };
        if scheme == "file" {
            return Ok(Place::Repository { url: self.location.clone(), directory: String::new() });
        }
        let parts: Vec<&str> = rest.split('/').collect();
        let host = parts.first().map(|host| host.rsplit('@').next().unwrap_or_default()).unwrap_or_default();
        let taken = match host {
            "github.com" | "bitbucket.org" => 3,
            "gitlab.com" => parts.len(),
            _ => parts.iter().position(|part| has_git_suffix(part)).map_or(parts.len(), |at| at + 1),
        };
        let (repository, directory) = parts.split_at_checked(taken).ok_or_else(none)?;
        if repository.len() < 2 || repository.iter().any(|part| part.is_empty()) {
            return Err(none());
        }
        if directory.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return Err(none());
        }
        Ok(Place::Repository { url: format!("{scheme}://{}", repository.join("/")), directory: directory.join("/") })
    }

    /// The variables of its hooks, and what is wrong with its settings where they end early.
    #[must_use]
    pub fn environment(&self) -> (Vec<(String, String)>, Option<String>) {
        let name = upper(&self.name());
        let config = Value::Object(self.config.clone());
        let mut variables = vec![
            ("BUILDKITE_PLUGIN_NAME".to_owned(), name.clone()),
            ("BUILDKITE_PLUGIN_CONFIGURATION".to_owned(), config.to_string()),
        ];
        let flat = flatten(&format!("BUILDKITE_PLUGIN_{name}"), &config, &mut variables);
        (variables, flat.err())
    }
}

/// Adds `PREFIX_KEY=value` for every scalar. A null ends it; what was made stays (reference 12.2).
fn flatten(prefix: &str, value: &Value, variables: &mut Vec<(String, String)>) -> Result<(), String> {
    match value {
        Value::Null => return Err(format!("{prefix} is null, which no variable can be")),
        Value::Bool(value) => variables.push((prefix.to_owned(), value.to_string())),
        Value::Number(value) => variables.push((prefix.to_owned(), value.to_string())),
        Value::String(value) => variables.push((prefix.to_owned(), value.clone())),
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                flatten(&format!("{prefix}_{at}"), item, variables)?;
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                flatten(&format!("{prefix}_{}", upper(key)), item, variables)?;
            }
        }
    }
    Ok(())
}

fn plain(letter: char) -> char {
    if letter.is_ascii_lowercase() || letter.is_ascii_digit() { letter } else { '-' }
}

fn upper(key: &str) -> String {
    let dashes = |letter: char| if letter == '-' || letter.is_whitespace() { '_' } else { letter };
    key.to_uppercase().chars().map(dashes).collect()
}

fn has_git_suffix(part: &str) -> bool {
    part.strip_suffix(".git").is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(source: &str, config: Value) -> Plugin {
        let Value::Object(config) = config else { panic!("settings are a mapping") };
        Plugin::of(source, config)
    }

    #[test]
    fn names_are_the_last_part_without_what_all_have() {
        for (source, name) in [
            ("github.com/buildkite-plugins/docker-compose-buildkite-plugin#a34fa34", "docker-compose"),
            ("github.com/buildkite-plugins/docker-compose-buildkite-plugin.git#v1", "docker-compose"),
            ("ssh://git@example.org/My_Org/Tool.buildkite.plugin", "tool"),
            ("./.buildkite/plugins/llamas", "llamas"),
            ("/opt/.hidden", "hidden"),
            ("file:///opt/test-plugin", "test-plugin"),
            ("git@example.org:tools/x-buildkite-plugin.git", "x"),
            ("github.com/a/b/sub dir", "sub-dir"),
        ] {
            assert_eq!(plugin(source, serde_json::json!({})).name(), name, "{source}");
        }
    }

    #[test]
    fn places_are_repositories_with_their_directories() {
        for (source, url, directory) in [
            ("github.com/a/b-buildkite-plugin#v1", "https://github.com/a/b-buildkite-plugin", ""),
            ("github.com/a/b/sub/dir#v1", "https://github.com/a/b", "sub/dir"),
            ("bitbucket.org/a/b/sub", "https://bitbucket.org/a/b", "sub"),
            ("gitlab.com/group/deeper/b", "https://gitlab.com/group/deeper/b", ""),
            ("ssh://git@github.com/a/b/sub", "ssh://git@github.com/a/b", "sub"),
            ("https://git.example.org/x/y.git/sub#v", "https://git.example.org/x/y.git", "sub"),
            ("https://git.example.org/x/y", "https://git.example.org/x/y", ""),
            ("git@example.org:x/y.git", "git@example.org:x/y.git", ""),
            ("file:///opt/x/sub#v", "file:///opt/x/sub", ""),
            ("/opt/x", "/opt/x", ""),
        ] {
            let wanted = Place::Repository { url: url.to_owned(), directory: directory.to_owned() };
            assert_eq!(plugin(source, serde_json::json!({})).place(), Ok(wanted), "{source}");
        }
        let vendored = plugin("./.buildkite/plugins/x", serde_json::json!({})).place();
        assert_eq!(vendored, Ok(Place::Vendored("./.buildkite/plugins/x".to_owned())));
        for bad in ["github.com/a", "https://github.com//b/c", "", "github.com/a/b/../../c", "https://x", "x//y.git"] {
            let refused = plugin(bad, serde_json::json!({})).place();
            assert!(matches!(refused, Err(PluginError::Location(_))), "{bad}: {refused:?}");
        }
    }

    #[test]
    fn settings_become_variables_by_the_reference_s_rules() {
        let table = [
            (serde_json::json!({}), vec![]),
            (serde_json::json!({ "image": "node" }), vec![("IMAGE", "node")]),
            (serde_json::json!({ "env": ["A", "B"] }), vec![("ENV_0", "A"), ("ENV_1", "B")]),
            (serde_json::json!({ "opt": { "a-b": true } }), vec![("OPT_A_B", "true")]),
            (serde_json::json!({ "a": [{ "b": 1.50, "c d": -2 }] }), vec![("A_0_B", "1.5"), ("A_0_C_D", "-2")]),
            (serde_json::json!({ "a.b/c": "", "a__b": "x" }), vec![("A.B/C", ""), ("A__B", "x")]),
            (serde_json::json!({ "none": [], "nothing": {} }), vec![]),
            (serde_json::json!({ "x": [["a"], ["b", "c"]] }), vec![("X_0_0", "a"), ("X_1_0", "b"), ("X_1_1", "c")]),
        ];
        for (config, wanted) in table {
            let (variables, wrong) = plugin("docker#v1", config.clone()).environment();
            let wanted: Vec<_> = wanted
                .iter()
                .map(|(key, value)| (format!("BUILDKITE_PLUGIN_DOCKER_{key}"), (*value).to_owned()))
                .collect();
            assert_eq!(variables[2..], wanted, "{config}");
            assert_eq!(variables[0], ("BUILDKITE_PLUGIN_NAME".to_owned(), "DOCKER".to_owned()));
            assert_eq!(variables[1], ("BUILDKITE_PLUGIN_CONFIGURATION".to_owned(), config.to_string()));
            assert_eq!(wrong, None);
        }
    }

    #[test]
    fn a_null_ends_the_variables_and_what_was_made_stays() {
        let (variables, wrong) =
            plugin("a-b#v1", serde_json::json!({ "x": 1, "y": { "z": null }, "w": 2 })).environment();
        assert_eq!(variables[2..], [("BUILDKITE_PLUGIN_A_B_X".to_owned(), "1".to_owned())]);
        assert_eq!(wrong.as_deref(), Some("BUILDKITE_PLUGIN_A_B_Y_Z is null, which no variable can be"));
    }

    #[test]
    fn a_list_is_read_in_order_and_what_is_none_is_refused() {
        let listed = Plugin::list(r#"[{"b#v1": {"z": 1}, "c": null}, "a#", {"b#v1": {}}]"#).unwrap();
        let sources: Vec<_> = listed.iter().map(Plugin::source).collect();
        assert_eq!(sources, ["b#v1", "c", "a", "b#v1"]);
        assert_eq!(listed[0].id(), "b-v1");
        assert_eq!(Plugin::list(r#"[{"x": [1]}]"#), Err(PluginError::Settings("x".to_owned())));
        assert_eq!(Plugin::list("[1]"), Err(PluginError::Item));
        assert!(matches!(Plugin::list("{}"), Err(PluginError::List(_))));
    }
}
