//! Events to trees: anchors, aliases, merges, duplicate keys, limits.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as Place, Tag};
use windlass_protocol::limits::{
    PIPELINE_DEPTH_MAX, PIPELINE_DIAGNOSTICS_MAX, PIPELINE_DOCUMENTS_MAX, PIPELINE_EXPANDED_MAX_BYTES,
    PIPELINE_NODES_MAX,
};

use super::cursor::Cursor;
use super::{Entry, Kind, Map, Node, Parsed, scalar};
use crate::diagnostic::{Diagnostic, Span};

/// Entries of a mapping that are looked through one by one to find a repeated key.
const SEARCHED_MAX: usize = 16;

/// What a subtree costs when it is copied.
#[derive(Debug, Clone, Copy)]
struct Weight {
    nodes: usize,
    bytes: usize,
    height: usize,
}

impl Weight {
    const fn scalar(bytes: usize) -> Self {
        Self { nodes: 1, bytes, height: 1 }
    }

    const fn hold(&mut self, child: Self) {
        self.nodes = self.nodes.saturating_add(child.nodes);
        self.bytes = self.bytes.saturating_add(child.bytes);
        if child.height >= self.height {
            self.height = child.height + 1;
        }
    }
}

/// What an anchor stands for.
enum Anchor {
    /// The subtree it names is still being read.
    Open,
    /// Ready to be copied.
    Done { node: Node, weight: Weight },
}

/// A list or mapping whose end has not come yet.
struct Frame {
    start: Place,
    anchor: usize,
    weight: Weight,
    holds: Holds,
}

enum Holds {
    List(Vec<Node>),
    Map { pairs: Vec<Pair>, key: Option<Key> },
}

enum Pair {
    Entry(Entry),
    Merge(Node),
}

enum Key {
    Merge,
    Named { text: String, span: Span },
}

#[derive(Default)]
struct Composer<'a> {
    cursor: Cursor<'a>,
    parsed: Parsed,
    anchors: BTreeMap<usize, Anchor>,
    frames: Vec<Frame>,
    nodes: usize,
    bytes: usize,
}

type Composed = Result<(), Box<Diagnostic>>;

pub(super) fn compose(text: &str) -> Parsed {
    let tabless;
    let text = if is_json(text) {
        // Tabs are white space in JSON; the scanner knows them as an indentation error. One for one keeps the columns.
        tabless = without_tabs(text);
        tabless.as_str()
    } else {
        text
    };
    let mut composer = Composer { cursor: Cursor::new(text), ..Composer::default() };
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let outcome = match next {
            Ok((event, place)) => composer.take(event, place),
            Err(error) => {
                // The scanner looks ahead and has a bound of its own.
                let code = if error.info().contains("recursion limit") { "too-deep" } else { "yaml-syntax" };
                Err(Box::new(Diagnostic::error(code, point(*error.marker()), error.info())))
            }
        };
        if let Err(error) = outcome {
            composer.parsed.error = Some(*error);
            break;
        }
    }
    composer.parsed
}

/// Spaces for tabs, but for those in strings.
fn without_tabs(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    text.chars()
        .map(|character| {
            let tab = character == '\t' && !quoted;
            if character == '"' && !escaped {
                quoted = !quoted;
            }
            escaped = character == '\\' && quoted && !escaped;
            if tab { ' ' } else { character }
        })
        .collect()
}

fn is_json(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '['])
}

impl Composer<'_> {
    fn take(&mut self, event: Event<'_>, place: Place) -> Composed {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.open_document(place),
            Event::Alias(id) => self.alias(id, place),
            Event::Scalar(text, style, anchor, tag) => {
                let merge = style == ScalarStyle::Plain && text == "<<" && self.expects_key();
                let kind = typed(text.into_owned(), style, tag.as_deref());
                let weight = Weight::scalar(bytes_of(&kind));
                if merge {
                    return self.merge_key();
                }
                let node = Node { span: self.cursor.scalar_span(place, style), kind };
                self.charge(weight, place)?;
                self.remember(anchor, &node, weight, place)?;
                self.put(node, weight, place)
            }
            Event::SequenceStart(anchor, _) => self.open(anchor, place, Holds::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(anchor, place, Holds::Map { pairs: Vec::new(), key: None }),
            Event::SequenceEnd | Event::MappingEnd => self.close(place),
        }
    }

    fn open_document(&mut self, place: Place) -> Composed {
        self.anchors.clear();
        self.frames.clear();
        if self.parsed.documents.len() >= PIPELINE_DOCUMENTS_MAX {
            return refuse("too-large", place, format!("more than {PIPELINE_DOCUMENTS_MAX} documents in one file"));
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame { holds: Holds::Map { key: None, .. }, .. }))
    }

    fn merge_key(&mut self) -> Composed {
        if let Some(Frame { holds: Holds::Map { key, .. }, .. }) = self.frames.last_mut() {
            *key = Some(Key::Merge);
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, place: Place, holds: Holds) -> Composed {
        if self.expects_key() {
            return refuse("complex-key", place, "a key must be a scalar, not a list or a mapping");
        }
        if self.frames.len() >= PIPELINE_DEPTH_MAX {
            return refuse(
                "too-deep",
                place,
                format!("lists and mappings are nested deeper than {PIPELINE_DEPTH_MAX}"),
            );
        }
        if anchor > 0 {
            self.anchors.insert(anchor, Anchor::Open);
        }
        self.frames.push(Frame { start: place, anchor, weight: Weight::scalar(0), holds });
        Ok(())
    }

    fn alias(&mut self, id: usize, place: Place) -> Composed {
        let (node, weight) = match self.anchors.get(&id) {
            Some(Anchor::Done { node, weight }) => (node, *weight),
            Some(Anchor::Open) => return refuse("infinite-recursion", place, "the alias contains itself"),
            None => return refuse("unknown-anchor", place, "the alias names an anchor of an earlier document"),
        };
        // Asked before the copy is made: an alias bomb must not be built to be found out.
        if self.frames.len() + weight.height > PIPELINE_DEPTH_MAX {
            return refuse(
                "too-deep",
                place,
                format!("aliases nest lists and mappings deeper than {PIPELINE_DEPTH_MAX}"),
            );
        }
        self.room_for(weight, place)?;
        let node = node.clone();
        self.charge(weight, place)?;
        self.put(node, weight, place)
    }

    fn room_for(&self, weight: Weight, place: Place) -> Composed {
        if self.nodes.saturating_add(weight.nodes) > PIPELINE_NODES_MAX {
            return refuse(
                "too-large",
                place,
                format!("with its aliases the file has more than {PIPELINE_NODES_MAX} values"),
            );
        }
        if self.bytes.saturating_add(weight.bytes) > PIPELINE_EXPANDED_MAX_BYTES {
            let message = format!("with its aliases the file has more than {PIPELINE_EXPANDED_MAX_BYTES} bytes");
            return refuse("too-large", place, message);
        }
        Ok(())
    }

    /// Counts what is about to be kept.
    fn charge(&mut self, weight: Weight, place: Place) -> Composed {
        self.room_for(weight, place)?;
        self.nodes += weight.nodes;
        self.bytes += weight.bytes;
        Ok(())
    }

    /// Keeps a copy for the aliases to come.
    fn remember(&mut self, anchor: usize, node: &Node, weight: Weight, place: Place) -> Composed {
        if anchor > 0 {
            self.charge(weight, place)?;
            self.anchors.insert(anchor, Anchor::Done { node: node.clone(), weight });
        }
        Ok(())
    }

    /// Puts a whole node where it belongs.
    fn put(&mut self, node: Node, weight: Weight, place: Place) -> Composed {
        let Some(frame) = self.frames.last_mut() else {
            self.parsed.documents.push(node);
            return Ok(());
        };
        frame.weight.hold(weight);
        match &mut frame.holds {
            Holds::List(items) => items.push(node),
            Holds::Map { pairs, key } => match key.take() {
                None => *key = Some(Key::Named { text: key_text(&node, place)?, span: node.span }),
                Some(Key::Merge) => pairs.push(Pair::Merge(node)),
                Some(Key::Named { text, span }) => {
                    pairs.push(Pair::Entry(Entry { key: text, key_span: span, value: node }));
                }
            },
        }
        Ok(())
    }

    fn close(&mut self, place: Place) -> Composed {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let mut weight = frame.weight;
        let span = span(Place::new(frame.start.start, place.end));
        let node = match frame.holds {
            Holds::List(items) => Node { span, kind: Kind::List(items) },
            Holds::Map { pairs, .. } => {
                let merges = pairs.iter().any(|pair| matches!(pair, Pair::Merge(_)));
                let node = Node { span, kind: Kind::Map(self.resolve(pairs)?) };
                if merges {
                    // Less than its parts: what lost against another key is gone.
                    weight = weigh(&node);
                }
                node
            }
        };
        // Its parts were charged one by one.
        self.charge(Weight::scalar(0), place)?;
        self.remember(frame.anchor, &node, weight, place)?;
        self.put(node, weight, place)
    }

    /// Merges and duplicate keys: what stands in the mapping wins over what is merged, an earlier merge over a later one,
    /// of equal keys the last one at the first one's position.
    fn resolve(&mut self, pairs: Vec<Pair>) -> Result<Map, Box<Diagnostic>> {
        if pairs.len() <= SEARCHED_MAX && pairs.iter().all(|pair| matches!(pair, Pair::Entry(_))) {
            return Ok(self.small(pairs));
        }
        let mut own: BTreeMap<String, usize> = BTreeMap::new();
        for pair in &pairs {
            if let Pair::Entry(entry) = pair {
                *own.entry(entry.key.clone()).or_default() += 1;
            }
        }
        let mut at: BTreeMap<String, usize> = BTreeMap::new();
        let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
        for pair in pairs {
            match pair {
                Pair::Entry(entry) => match at.get(&entry.key) {
                    Some(&index) => {
                        self.warn_of(&entry, &entries[index]);
                        entries[index] = entry;
                    }
                    None => {
                        at.insert(entry.key.clone(), entries.len());
                        entries.push(entry);
                    }
                },
                Pair::Merge(node) => {
                    for entry in merged(node)? {
                        if !own.contains_key(&entry.key) && !at.contains_key(&entry.key) {
                            at.insert(entry.key.clone(), entries.len());
                            entries.push(entry);
                        }
                    }
                }
            }
        }
        Ok(Map { entries })
    }
}

impl Composer<'_> {
    /// A mapping without merges, small enough to look through: nearly all are.
    fn small(&mut self, pairs: Vec<Pair>) -> Map {
        let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let Pair::Entry(entry) = pair else { continue };
            match entries.iter().position(|earlier| earlier.key == entry.key) {
                Some(index) => {
                    self.warn_of(&entry, &entries[index]);
                    entries[index] = entry;
                }
                None => entries.push(entry),
            }
        }
        Map { entries }
    }

    fn warn_of(&mut self, later: &Entry, earlier: &Entry) {
        if self.parsed.warnings.len() < PIPELINE_DIAGNOSTICS_MAX {
            self.parsed.warnings.push(duplicate(later, earlier));
        }
    }
}

/// What a tree costs. Recursion ends at `PIPELINE_DEPTH_MAX`.
fn weigh(node: &Node) -> Weight {
    let mut weight = Weight::scalar(bytes_of(&node.kind));
    match &node.kind {
        Kind::List(items) => items.iter().for_each(|item| weight.hold(weigh(item))),
        Kind::Map(map) => {
            for entry in map {
                weight.hold(Weight::scalar(entry.key.len()));
                weight.hold(weigh(&entry.value));
            }
        }
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_) => {}
    }
    weight
}

fn duplicate(later: &Entry, earlier: &Entry) -> Diagnostic {
    let message = format!("the key `{}` stands twice in this mapping; the last one counts", later.key);
    Diagnostic::warning("duplicate-key", later.key_span, message)
        .hint(format!("the first one is on line {}", earlier.key_span.line))
}

/// The entries that a `<<` brings in, the ones that win first.
fn merged(node: Node) -> Result<Vec<Entry>, Box<Diagnostic>> {
    let wrong = |span| Box::new(Diagnostic::error("wrong-merge", span, "`<<` takes a mapping, or a list of mappings"));
    match node.kind {
        Kind::Map(map) => Ok(map.entries),
        Kind::List(items) => {
            let mut entries = Vec::new();
            for item in items {
                let Kind::Map(map) = item.kind else { return Err(wrong(item.span)) };
                entries.extend(map.entries);
            }
            Ok(entries)
        }
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_) => Err(wrong(node.span)),
    }
}

fn key_text(node: &Node, place: Place) -> Result<String, Box<Diagnostic>> {
    let refused = |message: &str| Err(Box::new(Diagnostic::error("complex-key", span(place), message)));
    match &node.kind {
        Kind::Null => Ok("null".to_owned()),
        Kind::Unsigned(value) => Ok(value.to_string()),
        Kind::Time(text) => Ok(text.clone()),
        Kind::List(_) | Kind::Map(_) => refused("a key must be a scalar, not a list or a mapping"),
        Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Text(_) => {
            node.natural().or_else(|_| refused("a key must be a scalar"))
        }
    }
}

fn typed(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Kind {
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    match (core, tag, style) {
        (Some("int" | "float" | "bool" | "null" | "timestamp"), ..) | (None, None, ScalarStyle::Plain) => {
            scalar::special(&text).unwrap_or(Kind::Text(text))
        }
        _ => Kind::Text(text),
    }
}

fn bytes_of(kind: &Kind) -> usize {
    match kind {
        Kind::Text(text) | Kind::Time(text) => text.len(),
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::List(_)
        | Kind::Map(_) => 0,
    }
}

fn refuse(code: &'static str, place: Place, message: impl Into<String>) -> Composed {
    Err(Box::new(Diagnostic::error(code, span(place), message)))
}

pub(super) fn span(place: Place) -> Span {
    let (start, end) = (point(place.start), point(place.end));
    Span { end_line: end.line, end_column: end.column, ..start }
}

fn point(marker: Marker) -> Span {
    let line = u32::try_from(marker.line().max(1)).unwrap_or(u32::MAX);
    let column = u32::try_from(marker.col() + 1).unwrap_or(u32::MAX);
    Span { line, column, end_line: line, end_column: column }
}
