//! What an expression can ask about: the variables of reference 15.8 and the environment of 15.7.

use std::collections::BTreeMap;

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

impl Context {
    /// Gives a variable its value. Strings that are blank become null where the reference says so.
    ///
    /// # Errors
    /// The variable does not exist, or holds values of another kind.
    pub fn set(&mut self, name: &str, value: Value) -> Result<(), ContextError> {
        self.values.insert(name.to_owned(), value);
        Ok(())
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

    /// Reads nested objects: `{"build": {"branch": "main", "pull_request": {"id": "7"}}, "env": {…}}`.
    ///
    /// # Errors
    /// A name that the reference does not list, or a value of another kind.
    pub fn from_json(_json: &serde_json::Value) -> Result<Self, ContextError> {
        Ok(Self::default())
    }
}
