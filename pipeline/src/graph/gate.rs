//! Block and input steps: what a person is asked (reference 5.2, 5.3).

use serde::{Deserialize, Serialize};

/// What a person is shown and asked before the build goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Text of the dialog.
    #[serde(default)]
    pub prompt: Option<String>,
    /// Text of the button.
    pub submit: String,
    /// The questions, in order; answers become the build's meta-data under their keys.
    #[serde(default)]
    pub fields: Vec<Field>,
    /// What the build's state is shown as while it waits here.
    #[serde(default)]
    pub blocked_state: BlockedState,
    /// Slugs or ids of teams of which only members may answer; empty: who may write.
    #[serde(default)]
    pub allowed_teams: Vec<String>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            prompt: None,
            submit: "Continue".to_owned(),
            fields: Vec::new(),
            blocked_state: BlockedState::Passed,
            allowed_teams: Vec::new(),
        }
    }
}

/// What the state of a build is shown as while it waits at a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockedState {
    /// The default.
    #[default]
    Passed,
    /// As if it had failed; who triggered it goes on waiting.
    Failed,
    /// As if it ran.
    Running,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The answer's name in the build's meta-data; unique in its gate.
    pub key: String,
    /// For people.
    #[serde(default)]
    pub label: Option<String>,
    /// More for people.
    #[serde(default)]
    pub hint: Option<String>,
    /// Whether an empty answer is refused.
    pub required: bool,
    /// How it is answered.
    pub kind: FieldKind,
}

/// How a question is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// With any text.
    Text {
        /// What stands there at first.
        #[serde(default)]
        default: Option<String>,
        /// A regular expression that the whole answer must match.
        #[serde(default)]
        format: Option<String>,
    },
    /// With one of several values, or some.
    Select {
        /// At least one.
        options: Vec<Choice>,
        /// Whether several may be chosen; they are stored joined by newlines.
        #[serde(default)]
        multiple: bool,
        /// Values that are chosen at first.
        #[serde(default)]
        default: Vec<String>,
    },
}

/// One value that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// For people.
    pub label: String,
    /// What is stored.
    pub value: String,
    /// More for people.
    #[serde(default)]
    pub hint: Option<String>,
    /// It must be among what is chosen.
    #[serde(default)]
    pub required: bool,
}
