//! `notify` of pipelines, groups and steps (reference 13).

use windlass_protocol::limits::NOTIFY_LIST_MAX;

use super::attribute::{self, NOTIFY, SLACK};
use super::condition;
use super::plugin::json;
use crate::condition::EntryPoint;
use crate::diagnostic::{Diagnostic, Findings, Span};
use crate::graph::{Feature, Notify, SERVICES};
use crate::read::{Reader, shown};
use crate::suggest::did_you_mean;
use crate::yaml::{self, Entry, Kind, Node};

/// Where a list of notifications stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Build,
    Group,
    Step,
}

pub(super) fn read(reader: &mut Reader, entry: &Entry, level: Level) -> Vec<Notify> {
    let items = reader.list("notify", "a list", &entry.value);
    let mut all = Vec::new();
    for item in items {
        one(reader, item, level, &mut all);
        // One item may name many services: each is an entry of its own.
        if all.len() > NOTIFY_LIST_MAX {
            let message = format!("`notify` has more than {NOTIFY_LIST_MAX} entries; each service is one");
            reader.error("too-many", entry.value.span, message);
            return Vec::new();
        }
    }
    all
}

/// Reads the `notify` of a step alone, as a running job gives it (reference 19.5): a list, in JSON or YAML.
///
/// # Errors
/// Everything that is wrong with it.
pub fn of_step(text: &str) -> Result<Vec<Notify>, Vec<Diagnostic>> {
    let parsed = yaml::parse(text);
    let mut reader = Reader::new(Findings::default(), false);
    parsed.error.into_iter().for_each(|error| reader.findings.push(error));
    let value = parsed.documents.into_iter().next().unwrap_or(Node { span: Span::START, kind: Kind::Null });
    let entry = Entry { key: "notify".to_owned(), key_span: Span::START, value };
    let all = read(&mut reader, &entry, Level::Step);
    if reader.findings.has_errors() { Err(reader.findings.settle()) } else { Ok(all) }
}

fn one(reader: &mut Reader, node: &Node, level: Level, all: &mut Vec<Notify>) {
    if let Some(name) = node.as_text() {
        service(reader, name, node.span, level);
        let known = SERVICES.iter().find(|service| service.name == name);
        if known.is_some_and(|service| !service.bare) {
            reader.error("missing-attribute", node.span, format!("`{name}` does not say whom to tell"));
        }
        return all.push(Notify { service: name.to_owned(), config: serde_json::Value::Null, condition: None });
    }
    let Some(map) = node.as_map() else {
        return reader.wrong_type("notify", "a list of services", node);
    };
    let entry = match level {
        Level::Build | Level::Group => EntryPoint::BuildNotification,
        Level::Step => EntryPoint::StepNotification,
    };
    let condition = map.get("if").and_then(|given| condition::of_notification(reader, given, entry));
    let before = all.len();
    for given in map.iter().filter(|given| given.key != "if") {
        service(reader, &given.key, given.key_span, level);
        if given.key == "slack"
            && let Some(slack) = given.value.as_map()
        {
            attribute::check(reader, slack, &SLACK);
            if slack.get("channels").is_none() {
                reader.error("missing-attribute", given.key_span, "`slack` names no `channels`");
            }
        }
        all.push(Notify { service: given.key.clone(), config: json(&given.value), condition: condition.clone() });
        if all.len() > NOTIFY_LIST_MAX {
            return;
        }
    }
    if all.len() == before {
        reader.error("missing-attribute", node.span, "the entry of `notify` names no service");
    }
}

fn service(reader: &mut Reader, name: &str, span: Span, level: Level) {
    let place = match level {
        Level::Build => "a build",
        Level::Group => "a group",
        Level::Step => "a step",
    };
    let Some(known) = SERVICES.iter().find(|service| service.name == name) else {
        let hint = did_you_mean(name, NOTIFY.names().filter(|known| *known != "if"));
        let message = format!("`{}` is not a service that can be notified; nothing will be delivered", shown(name));
        return reader.findings.push(Diagnostic::warning("unknown-service", span, message).maybe_hint(hint));
    };
    let fits = match level {
        Level::Build | Level::Group => known.build,
        Level::Step => known.step,
    };
    if !fits {
        reader.warning("service-level", span, format!("`{name}` is not told of {place}; nothing will be delivered"));
    } else if known.served && level == Level::Group && name == "webhook" {
        reader.warning("service-not-served", span, "Windlass does not tell a `webhook` of a group yet");
    } else if known.served {
        reader.uses(Feature::Notify, span);
    } else {
        reader.warning("service-not-served", span, format!("Windlass does not deliver to `{name}` yet"));
    }
}
