//! A command step's attributes (reference 4, 10, 11).

use windlass_protocol::limits::{
    COMMAND_MAX_BYTES, ENV_MAX_BYTES, JOBS_PER_BUILD_MAX, NAME_MAX_BYTES, STEP_GRACE_MAX_MS, TAGS_MAX, TIMEOUT_MAX_MS,
};

use super::step::{first, name};
use super::{
    Agents, CommandStep, Named, attribute, cache, checkout, concurrency, plugin, resource, retry, reuse, secret,
};
use crate::diagnostic::{Diagnostic, Span};
use crate::graph::{Checkout, SoftFail};
use crate::read::{Reader, shown};
use crate::yaml::{Entry, Kind, Map, Node};

const MINUTE_MS: u64 = 60_000;

/// Exit statuses that can be named; -1 is an agent that was lost.
pub(super) const STATUS_RANGE: (i64, i64) = (-1, 255);

pub(super) fn read(reader: &mut Reader, span: Span, map: &Map) -> CommandStep {
    let retry = map.get("retry").map(|entry| retry::read(reader, &entry.value)).unwrap_or_default();
    let step = CommandStep {
        command: reader.decode(|reader| command(reader, span, map)),
        env: match map.get("env") {
            Some(entry) => reader.decode(|reader| variables(reader, "env", &entry.value)),
            None => Vec::new(),
        },
        agents: agents(reader, map, &["agents", "agent_query_rules"]),
        image: map.get("image").and_then(|entry| image(reader, entry)),
        timeout_ms: timeout(reader, map),
        retry: retry.automatic,
        manual_retry: retry.manual,
        soft_fail: map.get("soft_fail").and_then(|entry| soft_fail(reader, &entry.value)).unwrap_or_default(),
        priority: map.get("priority").and_then(|entry| priority(reader, entry)),
        concurrency: concurrency::read(reader, map),
        cancel_on_build_failing: flag(reader, map, "cancel_on_build_failing"),
        artifact_paths: artifact_paths(reader, map),
        plugins: map.get("plugins").map(|entry| plugin::read(reader, entry)).unwrap_or_default(),
        secrets: match map.get("secrets") {
            Some(entry) => reader.decode(|reader| secret::read(reader, entry)),
            None => Vec::new(),
        },
        checkout: match map.get("checkout") {
            Some(entry) => reader.decode(|reader| checkout::read(reader, entry)),
            None => Checkout::default(),
        },
        cache: map.get("cache").map(|entry| cache::read(reader, entry)).unwrap_or_default(),
        reuse: map.get("reuse").and_then(|entry| reuse::read(reader, entry)),
        resources: map.get("resources").map(|entry| resource::read(reader, &entry.value)).unwrap_or_default(),
        exclusive: flag(reader, map, "exclusive"),
        interruptible: flag(reader, map, "interruptible"),
        grace_ms: map.get("cancel_grace_period").and_then(|entry| grace(reader, entry)),
        tty: flag(reader, map, "tty"),
        zone: map
            .get("zone")
            .filter(|entry| !entry.value.is_null())
            .and_then(|entry| name(reader, "zone", &entry.value)),
        parallelism: map.get("parallelism").and_then(|entry| parallelism(reader, entry)),
    };
    reuse::check(reader, map, &step);
    step
}

/// Globs, in a list or separated by `;`.
fn artifact_paths(reader: &mut Reader, map: &Map) -> Vec<String> {
    let Some(entry) = first(reader, map, &["artifact_paths", "artifacts"]) else { return Vec::new() };
    let given = reader.texts(&entry.key, &entry.value);
    let paths = given.iter().flat_map(|text| text.split(';')).map(str::trim).filter(|path| !path.is_empty());
    paths.map(str::to_owned).collect()
}

fn flag(reader: &mut Reader, map: &Map, key: &str) -> bool {
    map.get(key).and_then(|entry| reader.flag(entry)).unwrap_or(false)
}

/// A list is one script, its items the lines.
fn command(reader: &mut Reader, span: Span, map: &Map) -> String {
    let Some(entry) = first(reader, map, &["commands", "command", "script"]) else {
        if map.get("plugins").is_none() {
            missing(reader, span);
        }
        return String::new();
    };
    let lines: Option<Vec<String>> = match &entry.value.kind {
        Kind::List(items) => items.iter().map(|item| reader.text(&entry.key, item)).collect(),
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_)
        | Kind::Map(_) => reader.text(&entry.key, &entry.value).map(|line| vec![line]),
    };
    let Some(lines) = lines else { return String::new() };
    let command = lines.join("\n");
    if command.trim().is_empty() && map.get("plugins").is_none() {
        missing(reader, entry.key_span);
    }
    if command.len() > COMMAND_MAX_BYTES {
        let message = format!("the command has {} bytes; {COMMAND_MAX_BYTES} are the most", command.len());
        reader.error("too-long", entry.key_span, message);
    }
    if command.contains('\0') {
        reader.error("nul-character", entry.key_span, "a command cannot hold a NUL character");
    }
    command
}

fn missing(reader: &mut Reader, span: Span) {
    reader.findings.push(
        Diagnostic::warning("missing-command", span, "the step has no command and will fail when it runs")
            .hint("write `command: …`, or `wait: ~` if it should only wait"),
    );
}

/// A mapping of names to scalars, in order.
pub(super) fn variables(reader: &mut Reader, what: &str, node: &Node) -> Vec<(String, String)> {
    let Some(map) = reader.mapping(what, "a mapping of names to values", node) else { return Vec::new() };
    let mut variables = Vec::with_capacity(map.len());
    let mut bytes = 0;
    for entry in map {
        let named = !entry.key.is_empty() && !entry.key.contains(['=', '\0']);
        if !named {
            reader.error(
                "variable-name",
                entry.key_span,
                "a variable's name is not empty and holds neither `=` nor NUL",
            );
        }
        let Some(value) = reader.text(&shown(&entry.key), &entry.value) else { continue };
        if value.contains('\0') {
            reader.error("nul-character", entry.value.span, "a variable's value cannot hold a NUL character");
        }
        bytes += entry.key.len() + value.len();
        variables.push((entry.key.clone(), value));
    }
    if bytes > ENV_MAX_BYTES {
        reader.error("too-long", node.span, format!("`{what}` has {bytes} bytes; {ENV_MAX_BYTES} are the most"));
    }
    variables
}

/// A mapping of tags to values, or a list of `tag=value` (reference 11.3).
pub(super) fn agents(reader: &mut Reader, map: &Map, names: &[&str]) -> Option<Agents> {
    let entry = first(reader, map, names)?;
    let mut agents = Agents::default();
    match &entry.value.kind {
        Kind::Null => return None,
        Kind::Map(rules) => {
            for rule in rules {
                let value = reader.text(&shown(&rule.key), &rule.value);
                add_rule(reader, &mut agents, &rule.key, value.as_deref(), &rule.value);
            }
        }
        Kind::List(rules) => {
            for rule in rules {
                let Some(text) = reader.text(&entry.key, rule) else { continue };
                match text.split_once('=') {
                    Some((tag, value)) => add_rule(reader, &mut agents, tag.trim(), Some(value.trim()), rule),
                    None => add_rule(reader, &mut agents, text.trim(), Some("*"), rule),
                }
            }
        }
        Kind::Bool(_) | Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) | Kind::Text(_) => {
            reader.wrong_type(&entry.key, "a mapping of tags, or a list of `tag=value`", &entry.value);
            return None;
        }
    }
    if agents.tags.len() > TAGS_MAX {
        reader.error("too-many", entry.key_span, format!("`{}` names more than {TAGS_MAX} tags", entry.key));
    }
    Some(agents)
}

fn add_rule(reader: &mut Reader, agents: &mut Agents, tag: &str, value: Option<&str>, at: &Node) {
    let Some(value) = value else { return };
    if tag.is_empty() {
        return reader.error("empty-value", at.span, "a tag has no name");
    }
    if tag.len() > NAME_MAX_BYTES || value.len() > NAME_MAX_BYTES {
        return reader.error(
            "too-long",
            at.span,
            format!("a tag's name and value have at most {NAME_MAX_BYTES} bytes"),
        );
    }
    if tag == "queue" {
        if value.is_empty() || value == "*" {
            let message = "a queue is named exactly; without `queue` the step goes to `default`";
            return reader.error("empty-value", at.span, message);
        }
        agents.queue = Some(Named { text: value.to_owned(), span: at.span });
        return;
    }
    let value = if value.is_empty() { "*" } else { value };
    agents.tags.push((tag.to_owned(), value.to_owned()));
}

pub(super) fn image(reader: &mut Reader, entry: &Entry) -> Option<String> {
    if entry.value.is_null() {
        return None;
    }
    reader.name("image", &entry.value, NAME_MAX_BYTES * 2)
}

pub(super) fn priority(reader: &mut Reader, entry: &Entry) -> Option<i64> {
    if entry.value.is_null() {
        return None;
    }
    reader.integer("priority", &entry.value, i64::from(i32::MIN), i64::from(i32::MAX))
}

/// Minutes as written, milliseconds as kept; longer ones than may be are cut, and that is told (reference 10.5).
pub(super) fn timeout(reader: &mut Reader, map: &Map) -> Option<u64> {
    let entry = first(reader, map, &["timeout_in_minutes", "timeout"])?;
    if entry.value.is_null() {
        return None;
    }
    let minutes = reader.integer(&entry.key, &entry.value, 1, i64::MAX)?;
    let timeout_ms = u64::try_from(minutes).ok()?.saturating_mul(MINUTE_MS);
    if timeout_ms > TIMEOUT_MAX_MS {
        let most = TIMEOUT_MAX_MS / MINUTE_MS;
        let message = format!("a step may run {most} minutes at most; `{}` is cut to that", entry.key);
        reader.warning("timeout-cut", entry.value.span, message);
    }
    Some(timeout_ms.min(TIMEOUT_MAX_MS))
}

/// Seconds as written, milliseconds as kept; 0 kills at once.
fn grace(reader: &mut Reader, entry: &Entry) -> Option<u64> {
    if entry.value.is_null() {
        return None;
    }
    let most = i64::try_from(STEP_GRACE_MAX_MS / 1_000).unwrap_or(i64::MAX);
    let seconds = reader.integer("cancel_grace_period", &entry.value, 0, most)?;
    u64::try_from(seconds).ok().map(|seconds| seconds * 1_000)
}

/// 0 takes the step away (reference 4).
pub(crate) fn parallelism(reader: &mut Reader, entry: &Entry) -> Option<u32> {
    if entry.value.is_null() {
        return None;
    }
    let most = i64::try_from(JOBS_PER_BUILD_MAX).unwrap_or(i64::MAX);
    reader.integer("parallelism", &entry.value, 0, most).and_then(|count| u32::try_from(count).ok())
}

/// Reference 10.3; lists of statuses are taken too.
pub(super) fn soft_fail(reader: &mut Reader, node: &Node) -> Option<SoftFail> {
    let items = match &node.kind {
        Kind::Null | Kind::Bool(false) => return Some(SoftFail::Never),
        Kind::Bool(true) => return Some(SoftFail::Always),
        Kind::Text(text) if text == "true" => return Some(SoftFail::Always),
        Kind::Text(text) if text == "false" => return Some(SoftFail::Never),
        Kind::List(items) => items,
        Kind::Text(_) | Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) | Kind::Map(_) => {
            reader.wrong_type("soft_fail", "`true`, `false` or a list of `exit_status`", node);
            return None;
        }
    };
    let mut statuses = Vec::new();
    for item in items {
        let status = match &item.kind {
            Kind::Map(map) => {
                attribute::check(reader, map, &attribute::SOFT_FAIL);
                map.get("exit_status").map(|entry| &entry.value)
            }
            Kind::Int(_) => Some(item),
            Kind::Null
            | Kind::Bool(_)
            | Kind::Unsigned(_)
            | Kind::Float(_)
            | Kind::Time(_)
            | Kind::Text(_)
            | Kind::List(_) => None,
        };
        let Some(status) = status else {
            reader.wrong_type("soft_fail", "a list of `exit_status: N`", item);
            continue;
        };
        match exit_statuses(reader, status)? {
            None => return Some(SoftFail::Always),
            Some(named) => statuses.extend(named),
        }
    }
    Some(if statuses.is_empty() { SoftFail::Never } else { SoftFail::OneOf(statuses) })
}

/// `"*"` (`None`), one status, or a list of them. The outer `None`: none of these.
pub(super) fn exit_statuses(reader: &mut Reader, node: &Node) -> Option<Option<Vec<i32>>> {
    if node.as_text() == Some("*") {
        return Some(None);
    }
    let items = node.as_list().unwrap_or(std::slice::from_ref(node));
    let (least, most) = STATUS_RANGE;
    let statuses = items
        .iter()
        .filter_map(|item| reader.integer("exit_status", item, least, most))
        .filter_map(|status| i32::try_from(status).ok())
        .collect();
    Some(Some(statuses))
}
