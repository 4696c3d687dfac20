//! Which attributes there are, of what shape, and what is said about those that are not known or misspelt.
//!
//! One table for each mapping of the language. Readers take their known keys from here, and the JSON Schema is made of it, so
//! that neither can drift from the other.

#[cfg(test)]
mod reference;
mod step;
#[cfg(test)]
mod tests;
mod value;

use crate::diagnostic::Diagnostic;
use crate::read::{Reader, shown};
use crate::suggest::nearest;
use crate::yaml::{Entry, Map};

pub(crate) use step::{BLOCK, COMMAND, GROUP, INPUT, TOP, TRIGGER, WAIT};
pub(crate) use value::{
    ADJUSTMENT, AUTOMATIC, BLOB, BUILD, CACHE, CHECKOUT, DEPENDENCY, FLAGS, IF_CHANGED, MANUAL, MATRIX, NOTIFY, OPTION,
    RESOURCES, RETRY, REUSE, SECRET, SELECT_FIELD, SLACK, SOFT_FAIL, SPARSE, TEXT_FIELD,
};

/// The attributes of one kind of mapping.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its name in the schema.
    pub(crate) name: &'static str,
    /// For messages, with its article.
    pub(crate) of: &'static str,
    /// What an unknown key is.
    pub(crate) unknown: Unknown,
    /// In the reference's order.
    pub(crate) rows: &'static [Row],
}

/// What becomes of a key that a table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// Told, and ignored, as upstream does.
    Ignored,
    /// Refused: left out it would change what the rest says, or upstream refuses it.
    Refused,
    /// Kept: it may mean something to somebody else.
    Kept,
}

/// One attribute.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name, then its other names; the first that is given wins.
    pub(crate) names: &'static [&'static str],
    /// What may stand there.
    pub(crate) shape: Shape,
    /// For editors.
    pub(crate) doc: &'static str,
    /// Windlass's own.
    pub(crate) ours: bool,
    /// The mapping makes no sense without it.
    pub(crate) required: bool,
}

/// What may stand as a value. Null may stand anywhere but where the attribute is required.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// A scalar, taken as text.
    Text,
    /// A boolean, or either in quotes.
    Flag,
    /// An integer within bounds, or one in quotes.
    Integer(i64, i64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A mapping of names to scalars.
    Variables,
    /// A mapping of names to anything.
    AnyMap,
    /// A list.
    List(&'static Self),
    /// A list that has something in it.
    Some(&'static Self),
    /// A mapping of names to values of one shape.
    MapOf(&'static Self),
    /// A mapping with its own table.
    Map(&'static Table),
    /// One of several shapes.
    Either(&'static [Self]),
    /// The steps of a pipeline, or of a group.
    Steps { groups: bool },
}

/// A text, or several.
pub(crate) const TEXTS: Shape = Shape::Either(&[Shape::Text, Shape::List(&Shape::Text)]);

impl Table {
    /// Every name, other names too.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().flat_map(|row| row.names.iter().copied())
    }

    fn has(&self, key: &str) -> bool {
        self.rows.iter().any(|row| row.names.contains(&key))
    }
}

/// What Buildkite does not have: no other system's file has these names by chance, so a near miss is a mistake.
fn is_ours(name: &str) -> bool {
    [&TOP, &COMMAND].iter().any(|table| table.rows.iter().any(|row| row.ours && row.names.contains(&name)))
}

/// Says what there is to say about every key of a mapping that its table does not have.
pub(crate) fn check(reader: &mut Reader, map: &Map, table: &Table) {
    check_but(reader, map, table, |_| false);
}

/// The same, but for keys of which more is said elsewhere.
pub(crate) fn check_but(reader: &mut Reader, map: &Map, table: &Table, told: impl Fn(&str) -> bool) {
    for entry in map.iter().filter(|entry| !table.has(&entry.key) && !told(&entry.key)) {
        unknown(reader, entry, table);
    }
}

fn unknown(reader: &mut Reader, entry: &Entry, table: &Table) {
    let looked_at = if reader.findings.wants_hints() { usize::MAX } else { 0 };
    // Ours are always looked for: a near miss of them is an error, not only advice.
    let ours = [&TOP, &COMMAND].into_iter().flat_map(|table| table.rows.iter().filter(|row| row.ours));
    let ours = ours.flat_map(|row| row.names.iter().copied());
    let step = table.unknown == Unknown::Ignored || std::ptr::eq(table, &TOP);
    let near = nearest(&entry.key, table.names().take(looked_at).chain(ours.filter(|_| step)));
    let (key, of) = (shown(&entry.key), table.of);
    let hint = near.map(|name| format!("did you mean `{name}`?"));
    let missed = near.is_some_and(is_ours) && step;
    if is_ours(&entry.key) || missed || table.unknown == Unknown::Refused {
        let message = format!("`{key}` is not an attribute of {of}");
        reader.findings.push(Diagnostic::error("unknown-key", entry.key_span, message).maybe_hint(hint));
    } else if table.unknown == Unknown::Ignored || near.is_some() {
        let message = format!("`{key}` is not an attribute of {of}; it is ignored");
        reader.findings.push(Diagnostic::warning("unknown-key", entry.key_span, message).maybe_hint(hint));
    }
}

/// Shorthand for the tables.
const fn row(names: &'static [&'static str], shape: Shape, doc: &'static str) -> Row {
    Row { names, shape, doc, ours: false, required: false }
}

/// One that a mapping makes no sense without.
const fn required(names: &'static [&'static str], shape: Shape, doc: &'static str) -> Row {
    Row { names, shape, doc, ours: false, required: true }
}

/// One of Windlass's own that must be there.
const fn needed(names: &'static [&'static str], shape: Shape, doc: &'static str) -> Row {
    Row { names, shape, doc, ours: true, required: true }
}

/// One of Windlass's own.
const fn ours(names: &'static [&'static str], shape: Shape, doc: &'static str) -> Row {
    Row { names, shape, doc, ours: true, required: false }
}
