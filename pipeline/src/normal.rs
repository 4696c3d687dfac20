//! The normal form of a document: what an upload sends (reference 1.4 and 3.2).
//!
//! Steps get their kind, aliases their one name, commands become one text, plugins and secrets lists, environments strings.
//! A step that does not decode, or has no kind, stays as it is written, with a warning. The tree keeps its places, so that
//! interpolation (which comes after) can still point into the file.

mod changed;
mod json;
mod placed;
mod plugin;
mod session;
mod step;
mod to_yaml;

pub use changed::{Changed, apply_if_changed, has_if_changed};
pub use json::{NotJson, to_json};
pub use placed::to_placed_json;
pub use session::{Documents, Failed, Session};
pub use to_yaml::to_yaml;

use crate::diagnostic::{Diagnostic, Span};
use crate::model::unsupported;
use crate::render::Interpolation;
use crate::yaml::{Entry, Kind, Map, Node};

pub(crate) use step::is_command;

/// A document in its normal form.
#[derive(Debug, Clone, PartialEq)]
pub struct Normal {
    /// A mapping with `steps`, and `env` if there is any.
    pub document: Node,
    /// What was not understood and is sent as it is written.
    pub warnings: Vec<Diagnostic>,
}

/// Brings one document into its normal form.
///
/// # Errors
/// It is neither a mapping nor a list, a step is neither a mapping nor text, its `type` is no text, or a part of the top
/// level does not decode.
pub fn normalize(document: &Node) -> Result<Normal, Box<Diagnostic>> {
    let mut warnings = Vec::new();
    let map = match &document.kind {
        Kind::Map(map) => top(map, document.span, &mut warnings)?,
        Kind::List(items) => {
            let mut map = Map::default();
            let list = step::list(items, document.span, &mut warnings)?;
            map.entries_mut().push(Entry { key: "steps".to_owned(), key_span: document.span, value: list });
            map
        }
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_) => {
            return Err(Box::new(unsupported(document)));
        }
    };
    Ok(Normal { document: Node { span: document.span, kind: Kind::Map(map) }, warnings })
}

fn top(map: &Map, span: Span, warnings: &mut Vec<Diagnostic>) -> Result<Map, Box<Diagnostic>> {
    let mut out = Map::default();
    let mut has_steps = false;
    for entry in map {
        let value = match entry.key.as_str() {
            "steps" => {
                has_steps = true;
                Some(step::steps(&entry.value, warnings)?)
            }
            "env" => step::environment(&entry.value).map_err(|refused| refused.fatal("env"))?,
            "secrets" => step::secrets(&entry.value).map_err(|refused| refused.fatal("secrets"))?,
            "checkout" => step::checkout(&entry.value).map_err(|refused| refused.fatal("checkout"))?,
            _ => Some(entry.value.clone()),
        };
        out.entries_mut().extend(value.map(|value| Entry { value, ..entry.clone() }));
    }
    if !has_steps {
        warnings.push(Diagnostic::warning("no-steps", Span::first_of(span), "the pipeline contains no steps"));
        let list = Node { span: Span::first_of(span), kind: Kind::List(Vec::new()) };
        out.entries_mut().push(Entry { key: "steps".to_owned(), key_span: Span::first_of(span), value: list });
    }
    Ok(out)
}

/// Rewrites the sources of plugins in a normal form to where they are found (reference 12.1). After interpolation.
pub fn resolve_plugins(document: &mut Node) {
    plugin::resolve(document);
}

/// Reads, normalises and interpolates all documents of a text, as an upload does.
///
/// # Errors
/// Everything that is wrong with the first document that cannot be uploaded.
pub fn upload(text: &str, interpolation: Option<&Interpolation<'_>>) -> Result<Vec<Normal>, Vec<Diagnostic>> {
    let Documents { documents, failed } = Session::new(interpolation).read(text);
    match failed {
        None => Ok(documents),
        Some(Failed::Parsing(errors) | Failed::Interpolation(errors)) => Err(errors),
    }
}
