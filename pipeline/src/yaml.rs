//! A YAML document as a tree in which everything knows its place (reference 1.2 and 1.3).
//!
//! Aliases and merges are already resolved by copy, keys are unique text in the order of the file, plain scalars are typed
//! as Buildkite's agent types them. A copy keeps the place of what it was copied from: that is where a mistake is mended.
//! Hostile input is refused within the limits named `PIPELINE_*` (I9).

mod compose;
mod cursor;
mod scalar;

use windlass_protocol::limits::PIPELINE_MAX_BYTES;

use crate::diagnostic::{Diagnostic, Span};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// From its first character to the one after its last.
    pub span: Span,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of value.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `~`, `null`, nothing.
    Null,
    /// `true` or `false`; never `yes` or `on`.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// An integer above those of 64 bits with a sign.
    Unsigned(u64),
    /// A number with a fraction, an exponent, or too large for an integer.
    Float(f64),
    /// An unquoted date or time, in RFC 3339.
    Time(String),
    /// Everything else, and whatever is quoted.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Map),
}

/// A mapping: entries in the file's order, each key once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map {
    entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key as text, whatever scalar was written.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Map {
    /// All entries in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// The entry of this key. Mappings of steps are small, hence no index.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whoever calls this keeps the keys unique.
    pub(crate) fn entries_mut(&mut self) -> &mut Vec<Entry> {
        &mut self.entries
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Node {
    /// What it is, for messages.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Int(_) | Kind::Unsigned(_) => "an integer",
            Kind::Float(_) => "a number",
            Kind::Time(_) => "a date",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// A scalar as text in its natural form, null as the empty one (reference 1.4).
    ///
    /// # Errors
    /// Lists, mappings, dates and integers above 63 bits have none.
    pub fn natural(&self) -> Result<String, NotText> {
        match &self.kind {
            Kind::Null => Ok(String::new()),
            Kind::Bool(value) => Ok(value.to_string()),
            Kind::Int(value) => Ok(value.to_string()),
            Kind::Float(value) => Ok(scalar::float_text(*value)),
            Kind::Text(text) => Ok(text.clone()),
            Kind::Unsigned(_) => Err(NotText::TooLarge),
            Kind::Time(_) => Err(NotText::Date),
            Kind::List(_) | Kind::Map(_) => Err(NotText::Composite),
        }
    }

    /// The text, if it is text and not a scalar of another kind.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            Kind::Null
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Unsigned(_)
            | Kind::Float(_)
            | Kind::Time(_)
            | Kind::List(_)
            | Kind::Map(_) => None,
        }
    }

    /// The mapping, if it is one.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        if let Kind::Map(map) = &self.kind { Some(map) } else { None }
    }

    /// The list, if it is one.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Kind::List(items) = &self.kind { Some(items) } else { None }
    }

    /// Whether nothing is written there.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }
}

/// Why a value cannot be text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotText {
    /// A list or a mapping.
    #[error("a list or a mapping cannot stand here")]
    Composite,
    /// An unquoted date.
    #[error("an unquoted date is not text")]
    Date,
    /// An integer that 63 bits cannot hold.
    #[error("the integer is too large")]
    TooLarge,
}

/// A stream of documents and what was wrong with it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// In order; whole even if a later one could not be read.
    pub documents: Vec<Node>,
    /// Duplicate keys as warnings.
    pub warnings: Vec<Diagnostic>,
    /// What ended the reading.
    pub error: Option<Diagnostic>,
}

/// Reads YAML, or JSON, which is YAML too.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    if text.len() > PIPELINE_MAX_BYTES {
        let error = Diagnostic::error(
            "too-large",
            Span::START,
            format!("the file has {} bytes; {PIPELINE_MAX_BYTES} are the most", text.len()),
        );
        return Parsed { error: Some(error), ..Parsed::default() };
    }
    compose::compose(text)
}
