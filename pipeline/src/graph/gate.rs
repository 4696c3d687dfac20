//! Block and input steps: what a person is asked (reference 5.2, 5.3).

use std::collections::BTreeMap;

use regex::RegexBuilder;
use serde::{Deserialize, Serialize};
use windlass_protocol::limits::{FORMATTED_ANSWER_MAX_BYTES, GATE_REGEX_MAX_BYTES};

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

/// A format that is no regular expression, or one that takes too much: it needs to look around or back, or is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a regular expression that can be used")]
pub struct BadFormat;

/// An answer that does not fit its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The field's key.
    pub field: String,
    /// Why not.
    pub why: String,
}

impl Gate {
    /// Whether answers match the formats of their fields. That is the part of looking at answers that takes time (a fraction
    /// of a second at most): it is not for who must not be kept waiting.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check_formats(&self, given: &BTreeMap<String, Vec<String>>) -> Result<(), Misfit> {
        let formats = self.fields.iter().filter(|field| field.format().is_some()).count();
        for field in &self.fields {
            let FieldKind::Text { default, format: Some(format) } = &field.kind else { continue };
            let values = given.get(&field.key).map(Vec::as_slice);
            // Several values are refused for that.
            let Some(value) = typed(default.as_deref(), values).filter(|value| !value.is_empty()) else { continue };
            let misfit = |why: String| Misfit { field: field.key.clone(), why };
            if value.len() > FORMATTED_ANSWER_MAX_BYTES {
                return Err(misfit(format!("it has more than {FORMATTED_ANSWER_MAX_BYTES} bytes")));
            }
            match matches(format, &value, formats) {
                Ok(true) => {}
                Ok(false) => return Err(misfit(format!("it does not match `{format}`"))),
                Err(bad) => return Err(misfit(format!("`{format}` {bad}"))),
            }
        }
        Ok(())
    }
}

/// What a text field is answered with: line ends normalised, the default where nothing was given; `None` for several values.
#[must_use]
pub fn typed(default: Option<&str>, given: Option<&[String]>) -> Option<String> {
    match given {
        Some([]) => Some(String::new()),
        Some([value]) => Some(value.replace("\r\n", "\n").replace('\r', "\n")),
        Some(_) => None,
        None => Some(default.unwrap_or_default().to_owned()),
    }
}

/// Whether all of a text matches a format, as HTML's `pattern` has it, in a gate with so many `formats`, which share its
/// room. Expressions that need to look around or back are refused: nobody has time for more than a walk along the text.
pub(crate) fn matches(format: &str, text: &str, formats: usize) -> Result<bool, BadFormat> {
    let room = GATE_REGEX_MAX_BYTES / formats.max(1);
    let built = RegexBuilder::new(&format!(r"\A(?:{format})\z")).size_limit(room).dfa_size_limit(room).build();
    built.map(|regex| regex.is_match(text)).map_err(|_| BadFormat)
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

impl Field {
    /// The regular expression that an answer must match.
    #[must_use]
    pub fn format(&self) -> Option<&str> {
        match &self.kind {
            FieldKind::Text { format, .. } => format.as_deref(),
            FieldKind::Select { .. } => None,
        }
    }
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
