//! Documents after interpolation, as they are written otherwise: what `windlass pipeline render` shows.

use windlass_protocol::limits::PIPELINE_EXPANDED_MAX_BYTES;

use crate::diagnostic::{Diagnostic, Findings, Span};
use crate::interpolate::tree::{Environment, Walk};
use crate::model::unsupported;
use crate::yaml::{self, Entry, Kind, Map, Node};

/// What is done with variables.
#[derive(Debug, Clone, Copy, Default)]
pub struct Interpolation<'a> {
    /// What expansions see.
    pub variables: &'a [(String, String)],
    /// A variable that is set already wins over the document's `env` block.
    pub prefer_variables: bool,
}

/// Documents whose variables are put in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rendered {
    /// Mappings, in order; a bare list of steps is one under `steps`.
    pub documents: Vec<Node>,
    /// What deserves a look.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a text and puts its variables in.
///
/// # Errors
/// Everything that is wrong with it, as far as it is read: that its steps make sense is not asked here.
pub fn render(text: &str, interpolation: &Interpolation<'_>) -> Result<Rendered, Vec<Diagnostic>> {
    let parsed = yaml::parse(text);
    let mut findings = Findings::default();
    parsed.warnings.into_iter().chain(parsed.error).for_each(|found| findings.push(found));
    if parsed.documents.is_empty() && !findings.has_errors() {
        findings.push(Diagnostic::error("no-document", Span::START, "the file is empty"));
    }
    let mut documents: Vec<Node> = Vec::new();
    for document in parsed.documents {
        match document.kind {
            Kind::Map(_) => documents.push(document),
            Kind::List(_) => documents.push(under_steps(document)),
            Kind::Null
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Unsigned(_)
            | Kind::Float(_)
            | Kind::Time(_)
            | Kind::Text(_) => {
                findings.push(unsupported(&document));
            }
        }
    }
    expand(text, &mut documents, interpolation, &mut findings);
    if findings.has_errors() {
        return Err(findings.settle());
    }
    Ok(Rendered { documents, warnings: findings.settle() })
}

fn under_steps(list: Node) -> Node {
    let span = list.span;
    let mut map = Map::default();
    map.entries_mut().push(Entry { key: "steps".to_owned(), key_span: Span::first_of(span), value: list });
    Node { span, kind: Kind::Map(map) }
}

fn expand(source: &str, documents: &mut [Node], interpolation: &Interpolation<'_>, findings: &mut Findings) {
    let mut environment = Environment::new(interpolation.variables, false);
    environment.prefer_known(interpolation.prefer_variables);
    let mut room = PIPELINE_EXPANDED_MAX_BYTES;
    for document in documents {
        Walk { source, environment: &mut environment, room: &mut room, findings }.document(document);
    }
}
