//! What an expression can ask about: the variables of reference 15.8 and the environment of 15.7.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::template::Lookup;
use super::variable::{self, FACTS, Holds, LABELS};

/// A variable's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Known and without a value.
    Null,
    /// A string, or one of an enumeration's.
    Text(String),
    /// A number.
    Number(i64),
    /// A boolean.
    Bool(bool),
    /// An array of strings.
    List(Vec<String>),
}

/// The values of one build, and of one step where there is one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Context {
    values: BTreeMap<String, Value>,
    pipeline_env: BTreeMap<String, String>,
    build_env: BTreeMap<String, String>,
}

/// Why a value cannot be part of a context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// No variable has this name.
    #[error("there is no variable `{0}`")]
    Unknown(String),
    /// The variable holds something else.
    #[error("`{name}` takes {expected}")]
    Kind {
        /// Its dotted name.
        name: String,
        /// With its article: "a string".
        expected: &'static str,
    },
}

/// Names that are written otherwise in nested objects, where one key cannot hold both a string and more keys.
const OTHER_NAMES: [(&str, &str); 5] = [
    ("build.pull_request.repository_fork", "build.pull_request.repository.fork"),
    ("build.scm.author_name", "build.scm.author.name"),
    ("build.scm.author_email", "build.scm.author.email"),
    ("build.scm.committer_name", "build.scm.committer.name"),
    ("build.scm.committer_email", "build.scm.committer.email"),
];

impl Context {
    /// Gives a variable its value, or one of the facts that only show in the environment: `build.merge_queue.active`,
    /// `build.pull_request.using_merge_refspec`, `build.triggered_from.*`, `build.rebuilt_from.*`, `pipeline.name`,
    /// `pipeline.use_merge_queue_base_commit_for_git_diff_base`.
    ///
    /// # Errors
    /// The variable does not exist, or holds values of another kind.
    pub fn set(&mut self, name: &str, value: Value) -> Result<(), ContextError> {
        let fact = || FACTS.iter().find(|(known, _)| *known == name).map(|(_, holds)| *holds);
        let holds = variable::holds(name).or_else(fact).ok_or_else(|| ContextError::Unknown(name.to_owned()))?;
        let expected = match (holds, &value) {
            (_, Value::Null)
            | (Holds::Text { .. } | Holds::Enumeration(_), Value::Text(_))
            | (Holds::Number, Value::Number(_))
            | (Holds::Bool, Value::Bool(_))
            | (Holds::List, Value::List(_)) => {
                self.values.insert(name.to_owned(), value);
                return Ok(());
            }
            (Holds::Text { .. } | Holds::Enumeration(_), _) => "a string",
            (Holds::Number, _) => "an integer",
            (Holds::Bool, _) => "true or false",
            (Holds::List, _) => "a list of strings",
        };
        Err(ContextError::Kind { name: name.to_owned(), expected })
    }

    /// The environment that the pipeline sets: the lowest layer.
    pub fn set_pipeline_env(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        self.pipeline_env.extend(variables);
    }

    /// The environment of the build, the document's top-level `env` included: over the pipeline's; the built-in variables
    /// win over both.
    pub fn set_build_env(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        self.build_env.extend(variables);
    }

    /// Reads nested objects: `{"build": {"branch": "main", "pull_request": {"id": "7"}}, "env": {…}}`. Where a key cannot
    /// hold both a string and more keys, dots may stand in a key: `{"repository": "r", "repository.fork": true}`.
    ///
    /// # Errors
    /// A name that the reference does not list, or a value of another kind.
    pub fn from_json(json: &Json) -> Result<Self, ContextError> {
        let mut context = Self::default();
        let Json::Object(top) = json else {
            return Err(ContextError::Kind { name: "the context".to_owned(), expected: "an object" });
        };
        for (name, value) in top {
            match name.as_str() {
                "env" => context.build_env = environment(name, value)?,
                "pipeline_env" => context.pipeline_env = environment(name, value)?,
                _ => context.object(name, value)?,
            }
        }
        Ok(context)
    }

    /// Recursion ends with the longest name: a deeper one is unknown before it is entered.
    fn object(&mut self, path: &str, value: &Json) -> Result<(), ContextError> {
        let kind = |expected| ContextError::Kind { name: path.to_owned(), expected };
        let value = match value {
            Json::Object(members) => {
                let prefix = format!("{path}.");
                let known = variable::VARIABLES.iter().chain(&FACTS).map(|(name, _)| *name);
                if !known.chain(OTHER_NAMES.map(|(other, _)| other)).any(|name| name.starts_with(&prefix)) {
                    return Err(ContextError::Unknown(path.to_owned()));
                }
                return members.iter().try_for_each(|(key, value)| self.object(&format!("{prefix}{key}"), value));
            }
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => Value::Number(number.as_i64().ok_or_else(|| kind("an integer"))?),
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => {
                let texts: Option<Vec<String>> = items.iter().map(|item| Some(item.as_str()?.to_owned())).collect();
                Value::List(texts.ok_or_else(|| kind("a list of strings"))?)
            }
        };
        let name = OTHER_NAMES.iter().find(|(other, _)| *other == path).map_or(path, |(_, name)| *name);
        self.set(name, value)
    }

    /// A variable's value, after all derivations.
    #[must_use]
    pub fn value(&self, name: &str) -> Value {
        let stored = self.values.get(name).cloned().unwrap_or(Value::Null);
        match name {
            "build.source_event" => self.told_by_webhook(stored, "BUILDKITE_GITHUB_EVENT"),
            "build.source_action" => self.told_by_webhook(stored, "BUILDKITE_GITHUB_ACTION"),
            "build.pull_request.label"
                if self.value("build.source_event") != Value::Text("pull_request".to_owned()) =>
            {
                Value::Null
            }
            _ => match (variable::holds(name), stored) {
                (Some(Holds::Text { blank_is_null: true }), Value::Text(text)) if text.trim().is_empty() => Value::Null,
                (_, stored) => stored,
            },
        }
    }

    /// Only a webhook has an event, and tells it in the build's environment.
    fn told_by_webhook(&self, stored: Value, name: &str) -> Value {
        if self.values.get("build.source") != Some(&Value::Text("webhook".to_owned())) {
            return Value::Null;
        }
        match (stored, self.build_env.get(name)) {
            (Value::Null, Some(told)) if !told.trim().is_empty() => Value::Text(told.clone()),
            (stored, _) => stored,
        }
    }

    /// What `env()`, `build.env()` and `$NAME` see: the pipeline's, over it the build's, over both the built-in ones.
    #[must_use]
    pub fn environment(&self) -> Environment {
        let mut seen = BTreeMap::new();
        for (name, value) in self.pipeline_env.iter().chain(&self.build_env) {
            if variable::is_visible(name) {
                seen.insert(name.clone(), value.clone());
            }
        }
        for (name, variable, or_empty) in BUILT_IN {
            match self.shown(variable) {
                Some(value) => seen.insert((*name).to_owned(), value),
                None if *or_empty => seen.insert((*name).to_owned(), String::new()),
                None => seen.remove(*name),
            };
        }
        let pull_request = self.shown("build.pull_request.id").unwrap_or_else(|| "false".to_owned());
        seen.insert("BUILDKITE_PULL_REQUEST".to_owned(), pull_request);
        let refspec = if self.is_set("build.pull_request.using_merge_refspec") { "true" } else { "" };
        seen.insert("BUILDKITE_PULL_REQUEST_USING_MERGE_REFSPEC".to_owned(), refspec.to_owned());
        seen.insert("BUILDKITE_GIT_DIFF_BASE".to_owned(), self.diff_base());
        Environment { seen }
    }

    fn is_set(&self, fact: &str) -> bool {
        self.values.get(fact) == Some(&Value::Bool(true))
    }

    fn diff_base(&self) -> String {
        if !self.is_set("build.merge_queue.active") {
            return String::new();
        }
        let by_commit = self.is_set("pipeline.use_merge_queue_base_commit_for_git_diff_base");
        let base = if by_commit { "build.merge_queue.base_commit" } else { "build.merge_queue.base_branch" };
        self.shown(base).unwrap_or_default()
    }

    /// As it was given: what is blank is null to an expression, and blank in the environment.
    fn shown(&self, variable: &str) -> Option<String> {
        match self.values.get(variable)? {
            Value::Null => None,
            Value::Text(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            Value::List(items) => Some(items.join(",")),
        }
    }
}

/// Built-in variables: name, what they show, and whether they are empty rather than unset without it.
const BUILT_IN: &[(&str, &str, bool)] = &[
    ("BUILDKITE_BRANCH", "build.branch", false),
    ("BUILDKITE_TAG", "build.tag", true),
    ("BUILDKITE_MESSAGE", "build.message", true),
    ("BUILDKITE_COMMIT", "build.commit", false),
    ("BUILDKITE_REPO", "pipeline.repository", false),
    ("BUILDKITE_PIPELINE_SLUG", "pipeline.slug", false),
    ("BUILDKITE_PIPELINE_NAME", "pipeline.name", false),
    ("BUILDKITE_PIPELINE_ID", "pipeline.id", false),
    ("BUILDKITE_ORGANIZATION_SLUG", "organization.slug", false),
    ("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "build.pull_request.base_branch", true),
    ("BUILDKITE_PULL_REQUEST_REPO", "build.pull_request.repository", true),
    (LABELS, "build.pull_request.labels", true),
    ("BUILDKITE_MERGE_QUEUE_BASE_BRANCH", "build.merge_queue.base_branch", true),
    ("BUILDKITE_MERGE_QUEUE_BASE_COMMIT", "build.merge_queue.base_commit", true),
    ("BUILDKITE_TRIGGERED_FROM_BUILD_ID", "build.triggered_from.build_id", true),
    ("BUILDKITE_TRIGGERED_FROM_BUILD_NUMBER", "build.triggered_from.build_number", true),
    ("BUILDKITE_TRIGGERED_FROM_BUILD_PIPELINE_SLUG", "build.triggered_from.pipeline_slug", true),
    ("BUILDKITE_TRIGGERED_FROM_BUILD_JOB_ID", "build.triggered_from.job_id", true),
    ("BUILDKITE_REBUILT_FROM_BUILD_ID", "build.rebuilt_from.build_id", true),
    ("BUILDKITE_REBUILT_FROM_BUILD_NUMBER", "build.rebuilt_from.build_number", true),
];

/// The environment of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    seen: BTreeMap<String, String>,
}

impl Environment {
    /// All variables, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.seen.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Lookup for Environment {
    fn value(&self, name: &str) -> Option<&str> {
        self.seen.get(name).map(String::as_str)
    }
}

/// Names to strings; other scalars in their JSON form.
fn environment(name: &str, json: &Json) -> Result<BTreeMap<String, String>, ContextError> {
    let wrong = |name: &str, expected| ContextError::Kind { name: name.to_owned(), expected };
    let Json::Object(members) = json else { return Err(wrong(name, "an object")) };
    members
        .iter()
        .map(|(key, value)| match value {
            Json::String(text) => Ok((key.clone(), text.clone())),
            Json::Null => Ok((key.clone(), String::new())),
            Json::Bool(_) | Json::Number(_) => Ok((key.clone(), value.to_string())),
            Json::Array(_) | Json::Object(_) => Err(wrong(&format!("{name}.{key}"), "a string")),
        })
        .collect()
}
