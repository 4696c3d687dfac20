//! Steps in their normal form, one after the other.

use crate::diagnostic::{Diagnostic, Span};
use crate::yaml::{Entry, Kind, Map, Node, NotText};

/// Why a part does not decode.
#[derive(Debug)]
pub(super) struct Refused {
    span: Span,
    message: String,
}

impl Refused {
    fn new(node: &Node, message: impl Into<String>) -> Self {
        Self { span: node.span, message: message.into() }
    }

    /// At the top level nothing can be sent as it is written.
    pub(super) fn fatal(self, key: &str) -> Box<Diagnostic> {
        Box::new(Diagnostic::error("wrong-type", self.span, format!("`{key}`: {}", self.message)))
    }
}

type Decoded<T> = Result<T, Refused>;

/// Which kind a step is, as far as its normal form differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Command,
    Group,
    /// Wait, block, input, trigger: kept as they are written.
    Plain,
}

/// The value of `steps`.
pub(super) fn steps(node: &Node, warnings: &mut Vec<Diagnostic>) -> Result<Node, Box<Diagnostic>> {
    match &node.kind {
        Kind::Null => Ok(Node { span: node.span, kind: Kind::List(Vec::new()) }),
        Kind::List(items) => list(items, node.span, warnings),
        Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_)
        | Kind::Map(_) => {
            let message = format!("`steps` must be a list, but {} stands here", node.kind_name());
            Err(Box::new(Diagnostic::error("wrong-type", node.span, message)))
        }
    }
}

pub(super) fn list(items: &[Node], span: Span, warnings: &mut Vec<Diagnostic>) -> Result<Node, Box<Diagnostic>> {
    let steps: Result<Vec<Node>, Box<Diagnostic>> = items.iter().map(|item| step(item, warnings)).collect();
    Ok(Node { span, kind: Kind::List(steps?) })
}

fn step(node: &Node, warnings: &mut Vec<Diagnostic>) -> Result<Node, Box<Diagnostic>> {
    let fatal = |span, message: String| Err(Box::new(Diagnostic::error("wrong-type", span, message)));
    let map = match &node.kind {
        Kind::Text(word) => {
            if !matches!(word.as_str(), "wait" | "waiter" | "block" | "input" | "manual") {
                let message = format!("`{}` is not a step; it is sent as it is written", crate::read::shown(word));
                warnings.push(Diagnostic::warning("unknown-step", node.span, message));
            }
            return Ok(node.clone());
        }
        Kind::Map(map) => map,
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::List(_) => {
            return fatal(node.span, format!("a step is a mapping or a word, not {}", node.kind_name()));
        }
    };
    if let Some(entry) = map.get("type")
        && entry.value.as_text().is_none()
    {
        return fatal(entry.value.span, format!("`type` must be text, but {} stands here", entry.value.kind_name()));
    }
    let decoded = match shape(map) {
        Ok(Shape::Command) => command(map),
        Ok(Shape::Group) => return group(map, node.span, warnings),
        Ok(Shape::Plain) => return Ok(node.clone()),
        Err(message) => Err(Refused { span: Span::first_of(node.span), message }),
    };
    match decoded {
        Ok(map) => Ok(Node { span: node.span, kind: Kind::Map(map) }),
        Err(refused) => {
            let message = format!("{}; the step is sent as it is written", refused.message);
            warnings.push(Diagnostic::warning("unknown-step", refused.span, message));
            Ok(node.clone())
        }
    }
}

/// Whether a mapping is a command step, and decodes as one.
pub(crate) fn is_command(map: &Map) -> bool {
    shape(map) == Ok(Shape::Command) && command(map).is_ok()
}

/// The kind by `type`, else by the first of these keys; what is wrong if there is none.
fn shape(map: &Map) -> Result<Shape, String> {
    const NAMES: [(&str, Shape); 10] = [
        ("command", Shape::Command),
        ("commands", Shape::Command),
        ("plugins", Shape::Command),
        ("wait", Shape::Plain),
        ("waiter", Shape::Plain),
        ("block", Shape::Plain),
        ("input", Shape::Plain),
        ("manual", Shape::Plain),
        ("trigger", Shape::Plain),
        ("group", Shape::Group),
    ];
    let found = match map.get("type").and_then(|entry| entry.value.as_text()) {
        Some("script") => Some(Shape::Command),
        Some(word @ ("commands" | "plugins")) => return Err(format!("`{word}` is not a kind of step")),
        Some(word) => {
            let named = NAMES.iter().find(|(name, _)| *name == word).map(|(_, shape)| *shape);
            return named.ok_or_else(|| format!("`{}` is not a kind of step", crate::read::shown(word)));
        }
        None => NAMES.iter().find(|(name, _)| map.get(name).is_some()).map(|(_, shape)| *shape),
    };
    found.ok_or_else(|| "no kind of step has these keys".to_owned())
}

/// The first of several names that is given.
fn first_of<'a>(map: &Map, names: &[&'a str]) -> Option<&'a str> {
    names.iter().find(|name| map.get(name).is_some()).copied()
}

fn command(map: &Map) -> Decoded<Map> {
    let run = first_of(map, &["commands", "command"]);
    let key = first_of(map, &["key", "id", "identifier"]);
    let label = first_of(map, &["label", "name"]);
    let mut out = Map::default();
    for entry in map {
        let name = Some(entry.key.as_str());
        let (key, value) = match entry.key.as_str() {
            _ if name == run => ("command", Some(script(&entry.value)?)),
            "command" | "commands" => continue,
            _ if name == key => ("key", word(&entry.value)?),
            _ if name == label => ("label", word(&entry.value)?),
            "plugins" => ("plugins", plugins(&entry.value)?),
            "secrets" => ("secrets", secrets(&entry.value)?),
            "env" => {
                ("env", environment(&entry.value)?.filter(|node| node.as_map().is_some_and(|map| !map.is_empty())))
            }
            "matrix" => ("matrix", matrix(&entry.value)?),
            "cache" => ("cache", cache(&entry.value)?),
            "checkout" => ("checkout", checkout(&entry.value)?),
            "signature" => ("signature", mapping_or_nothing(&entry.value)?),
            other => (other, Some(entry.value.clone())),
        };
        put(&mut out, key, entry, value);
    }
    if run.is_none() {
        let span = map.iter().next().map_or(Span::START, |entry| entry.key_span);
        let value = text(span, String::new());
        out.entries_mut().push(Entry { key: "command".to_owned(), key_span: span, value });
    }
    Ok(out)
}

/// A renamed key takes the place of another one of that name.
fn put(out: &mut Map, key: &str, entry: &Entry, value: Option<Node>) {
    let Some(value) = value else { return };
    if key != entry.key {
        out.entries_mut().retain(|other| other.key != key);
    }
    out.entries_mut().push(Entry { key: key.to_owned(), key_span: entry.key_span, value });
}

fn group(map: &Map, span: Span, warnings: &mut Vec<Diagnostic>) -> Result<Node, Box<Diagnostic>> {
    let key = first_of(map, &["key", "id", "identifier"]);
    let label = first_of(map, &["group", "label", "name"]);
    let mut out = Map::default();
    let mut children = None;
    for entry in map {
        let name = Some(entry.key.as_str());
        let decoded = match entry.key.as_str() {
            "steps" => {
                children = Some(steps(&entry.value, warnings)?);
                Ok(("steps", children.clone()))
            }
            _ if name == key => word(&entry.value).map(|value| ("key", value)),
            _ if name == label && entry.value.is_null() => Ok(("group", Some(entry.value.clone()))),
            _ if name == label => scalar(&entry.value).map(|value| ("group", Some(value))),
            other => Ok((other, Some(entry.value.clone()))),
        };
        match decoded {
            Ok((key, value)) => put(&mut out, key, entry, value),
            Err(refused) => {
                let message = format!("{}; the group is sent as it is written", refused.message);
                warnings.push(Diagnostic::warning("unknown-step", refused.span, message));
                return Ok(Node { span, kind: Kind::Map(map.clone()) });
            }
        }
    }
    let at = Span::first_of(span);
    for (missing, kind) in [
        ("group", label.is_none().then_some(Kind::Null)),
        ("steps", children.is_none().then(|| Kind::List(Vec::new()))),
    ] {
        let Some(kind) = kind else { continue };
        out.entries_mut().push(Entry { key: missing.to_owned(), key_span: at, value: Node { span: at, kind } });
    }
    Ok(Node { span, kind: Kind::Map(out) })
}

const fn text(span: Span, text: String) -> Node {
    Node { span, kind: Kind::Text(text) }
}

/// A scalar as text; null as the empty one.
fn scalar(node: &Node) -> Decoded<Node> {
    match node.natural() {
        Ok(value) => Ok(text(node.span, value)),
        Err(NotText::Composite) => {
            Err(Refused::new(node, format!("text is wanted, but {} stands here", node.kind_name())))
        }
        Err(other @ (NotText::Date | NotText::TooLarge)) => Err(Refused::new(node, other.to_string())),
    }
}

/// The same; the empty one is as if absent.
fn word(node: &Node) -> Decoded<Option<Node>> {
    Ok(Some(scalar(node)?).filter(|node| node.as_text() != Some("")))
}

/// One scalar, or a list of them.
fn words(node: &Node) -> Decoded<Vec<Node>> {
    match &node.kind {
        Kind::List(items) => items.iter().map(scalar).collect(),
        Kind::Null => Ok(Vec::new()),
        Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_)
        | Kind::Map(_) => Ok(vec![scalar(node)?]),
    }
}

/// A list is joined with newlines.
fn script(node: &Node) -> Decoded<Node> {
    let lines = words(node)?;
    let joined: Vec<&str> = lines.iter().filter_map(Node::as_text).collect();
    Ok(text(node.span, joined.join("\n")))
}

/// A mapping of scalars, as strings; null is as if absent.
pub(super) fn environment(node: &Node) -> Decoded<Option<Node>> {
    let Kind::Map(map) = &node.kind else {
        return if node.is_null() { Ok(None) } else { Err(Refused::new(node, "variables are a mapping")) };
    };
    let mut out = Map::default();
    for entry in map {
        let value = scalar(&entry.value)?;
        out.entries_mut().push(Entry { value, ..entry.clone() });
    }
    Ok(Some(Node { span: node.span, kind: Kind::Map(out) }))
}

fn pair(key: &str, entry: &Entry, value: Node) -> Node {
    let mut map = Map::default();
    map.entries_mut().push(Entry { key: key.to_owned(), key_span: entry.key_span, value });
    Node { span: entry.value.span, kind: Kind::Map(map) }
}

/// A list with one mapping for each plugin; its configuration is null if there is none.
fn plugins(node: &Node) -> Decoded<Option<Node>> {
    let mut out = Vec::new();
    match &node.kind {
        Kind::Null => return Ok(None),
        Kind::Map(map) => out.extend(map.iter().map(plugin)),
        Kind::List(items) => {
            for item in items {
                match &item.kind {
                    Kind::Map(map) => out.extend(map.iter().map(plugin)),
                    Kind::Text(source) => {
                        let nothing = Node { span: item.span, kind: Kind::Null };
                        let entry = Entry { key: source.clone(), key_span: item.span, value: nothing };
                        out.push(plugin(&entry));
                    }
                    _ => return Err(Refused::new(item, "a plugin is text, or a mapping from its source")),
                }
            }
        }
        _ => return Err(Refused::new(node, "plugins are a list or a mapping")),
    }
    Ok((!out.is_empty()).then_some(Node { span: node.span, kind: Kind::List(out) }))
}

fn plugin(entry: &Entry) -> Node {
    let empty = entry.value.as_map().is_some_and(Map::is_empty);
    let kind = if empty { Kind::Null } else { entry.value.kind.clone() };
    pair(&entry.key, entry, Node { span: entry.value.span, kind })
}

/// A list of `{key, environment_variable}`.
pub(super) fn secrets(node: &Node) -> Decoded<Option<Node>> {
    let mut out = Vec::new();
    match &node.kind {
        Kind::Map(map) => {
            for entry in map {
                let name = entry.value.as_text().filter(|name| !name.is_empty() && !entry.key.is_empty());
                let name = name.ok_or_else(|| Refused::new(&entry.value, "a secret has a name"))?;
                out.push(secret(name, Some(&entry.key), entry.value.span));
            }
        }
        Kind::List(items) => {
            for item in items {
                out.push(listed_secret(item)?);
            }
        }
        Kind::Null => return Err(Refused::new(node, "secrets cannot be null")),
        _ => return Err(Refused::new(node, "secrets are a list or a mapping")),
    }
    Ok((!out.is_empty()).then_some(Node { span: node.span, kind: Kind::List(out) }))
}

fn listed_secret(item: &Node) -> Decoded<Node> {
    let (key, variable) = match &item.kind {
        Kind::Text(name) => (Some(name.as_str()), Some(name.as_str())),
        Kind::Map(map) => {
            let of = |key: &str| map.get(key).and_then(|entry| entry.value.as_text());
            (of("key"), of("environment_variable"))
        }
        _ => (None, None),
    };
    match key {
        Some(key) if !key.is_empty() && variable != Some("") => Ok(secret(key, variable, item.span)),
        _ => Err(Refused::new(item, "a secret is a name, or a mapping with `key`")),
    }
}

fn secret(key: &str, variable: Option<&str>, span: Span) -> Node {
    let mut map = Map::default();
    for (name, value) in [("key", Some(key)), ("environment_variable", variable)] {
        let Some(value) = value else { continue };
        map.entries_mut().push(Entry { key: name.to_owned(), key_span: span, value: text(span, value.to_owned()) });
    }
    Node { span, kind: Kind::Map(map) }
}

fn mapping_or_nothing(node: &Node) -> Decoded<Option<Node>> {
    match &node.kind {
        Kind::Null => Ok(None),
        Kind::Map(_) => Ok(Some(node.clone())),
        _ => Err(Refused::new(node, format!("a mapping is wanted, but {} stands here", node.kind_name()))),
    }
}

/// A mapping, as it is written.
pub(super) fn checkout(node: &Node) -> Decoded<Option<Node>> {
    match &node.kind {
        Kind::Bool(value) => {
            let message = format!("a mapping is wanted: write `checkout: {{ skip: {} }}`", !value);
            Err(Refused::new(node, message))
        }
        _ => mapping_or_nothing(node),
    }
}

/// `false` stays, `true` is an empty mapping, paths are a mapping with `paths`.
fn cache(node: &Node) -> Decoded<Option<Node>> {
    let with_paths = |paths: Vec<Node>| {
        let mut map = Map::default();
        let list = Node { span: node.span, kind: Kind::List(paths) };
        map.entries_mut().push(Entry { key: "paths".to_owned(), key_span: node.span, value: list });
        Node { span: node.span, kind: Kind::Map(map) }
    };
    Ok(match &node.kind {
        Kind::Null => None,
        Kind::Bool(false) => Some(node.clone()),
        Kind::Bool(true) => Some(Node { span: node.span, kind: Kind::Map(Map::default()) }),
        Kind::Text(_) | Kind::List(_) => Some(with_paths(words(node)?)),
        Kind::Map(map) => {
            let mut out = Map::default();
            for entry in map {
                let value = if entry.key == "paths" {
                    Node { span: entry.value.span, kind: Kind::List(words(&entry.value)?) }
                } else {
                    entry.value.clone()
                };
                out.entries_mut().push(Entry { value, ..entry.clone() });
            }
            Some(Node { span: node.span, kind: Kind::Map(out) })
        }
        Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) => {
            return Err(Refused::new(node, "a cache is a path, a list of paths, a mapping, or true or false"));
        }
    })
}

/// Elements are text; with nothing but a list of them it is that list.
fn matrix(node: &Node) -> Decoded<Option<Node>> {
    let list = |node: &Node| Ok(Node { span: node.span, kind: Kind::List(words(node)?) });
    match &node.kind {
        Kind::Null => Ok(None),
        Kind::List(_) => list(node).map(Some),
        Kind::Map(map) => {
            let mut out = Map::default();
            for entry in map {
                let value = match (entry.key.as_str(), &entry.value.kind) {
                    ("setup", Kind::List(_)) if map.len() == 1 => return list(&entry.value).map(Some),
                    ("setup", Kind::List(_)) => list(&entry.value)?,
                    ("setup", Kind::Map(dimensions)) => {
                        let mut lists = Map::default();
                        for dimension in dimensions {
                            let value = list(&dimension.value)?;
                            lists.entries_mut().push(Entry { value, ..dimension.clone() });
                        }
                        Node { span: entry.value.span, kind: Kind::Map(lists) }
                    }
                    ("setup", _) => return Err(Refused::new(&entry.value, "a matrix is set up by lists")),
                    ("adjustments", Kind::List(items)) => {
                        let items: Decoded<Vec<Node>> = items.iter().map(adjustment).collect();
                        Node { span: entry.value.span, kind: Kind::List(items?) }
                    }
                    ("adjustments", Kind::Null) => continue,
                    ("adjustments", _) => return Err(Refused::new(&entry.value, "adjustments are a list")),
                    _ => entry.value.clone(),
                };
                out.entries_mut().push(Entry { value, ..entry.clone() });
            }
            Ok(Some(Node { span: node.span, kind: Kind::Map(out) }))
        }
        _ => Err(Refused::new(node, "a matrix is a list or a mapping")),
    }
}

fn adjustment(node: &Node) -> Decoded<Node> {
    let Kind::Map(map) = &node.kind else { return Err(Refused::new(node, "an adjustment is a mapping")) };
    let mut out = Map::default();
    for entry in map {
        let value = match (entry.key.as_str(), &entry.value.kind) {
            ("with", Kind::Map(chosen)) => {
                let mut values = Map::default();
                for one in chosen {
                    values.entries_mut().push(Entry { value: chosen_value(&one.value)?, ..one.clone() });
                }
                Node { span: entry.value.span, kind: Kind::Map(values) }
            }
            ("with", _) => chosen_value(&entry.value)?,
            ("skip", Kind::Null) => continue,
            _ => entry.value.clone(),
        };
        out.entries_mut().push(Entry { value, ..entry.clone() });
    }
    Ok(Node { span: node.span, kind: Kind::Map(out) })
}

fn chosen_value(node: &Node) -> Decoded<Node> {
    match &node.kind {
        Kind::Bool(_) | Kind::Int(_) | Kind::Text(_) => scalar(node),
        _ => Err(Refused::new(node, format!("a chosen value is text, not {}", node.kind_name()))),
    }
}
