//! `secrets` in all their forms (reference 11.5).

use std::collections::BTreeSet;

use windlass_protocol::limits::SECRETS_PER_JOB_MAX;

use super::attribute::{self, SECRET};
use crate::graph::Secret;
use crate::read::Reader;
use crate::yaml::{Entry, Kind, Map, Node};

/// Variables of the agent that no job may set, without their `BUILDKITE_` (reference 17.4).
const PROTECTED: [&str; 21] = [
    "AGENT_ACCESS_TOKEN",
    "AGENT_DEBUG",
    "AGENT_DEBUG_HTTP",
    "AGENT_ENDPOINT",
    "AGENT_JOB_TIMEOUT_FILE",
    "AGENT_PID",
    "BIN_PATH",
    "BUILD_PATH",
    "CHECKOUT_OVERRIDE_MODE",
    "COMMAND_EVAL",
    "CONFIG_PATH",
    "CONTAINER_COUNT",
    "GIT_SUBMODULE_CLONE_CONFIG",
    "HOOKS_PATH",
    "HOOKS_SHELL",
    "KUBERNETES_EXEC",
    "LOCAL_HOOKS_ENABLED",
    "PLUGINS_ENABLED",
    "PLUGINS_PATH",
    "SHELL",
    "SSH_KEYSCAN",
];

fn is_protected(variable: &str) -> bool {
    let bare = variable.strip_prefix("BUILDKITE_");
    bare.is_some_and(|bare| PROTECTED.contains(&bare) || (bare.starts_with("GIT_") && bare.contains("MIRROR")))
}

/// In order, variables once: the first of the same name stays.
pub(super) fn read(reader: &mut Reader, entry: &Entry) -> Vec<Secret> {
    let mut secrets = Vec::new();
    match &entry.value.kind {
        Kind::List(items) => secrets.extend(items.iter().filter_map(|item| one(reader, item))),
        Kind::Map(map) => {
            for given in map {
                let key = reader.text("secrets", &given.value);
                secrets.extend(key.and_then(|key| secret(reader, key, given.key.clone(), &given.value)));
            }
        }
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_) => {
            reader.wrong_type("secrets", "a list of names, or a mapping of variables to names", &entry.value);
        }
    }
    if secrets.len() > SECRETS_PER_JOB_MAX {
        let message = format!("there are {} secrets; {SECRETS_PER_JOB_MAX} are the most", secrets.len());
        reader.error("too-many", entry.key_span, message);
    }
    merge([secrets])
}

fn one(reader: &mut Reader, node: &Node) -> Option<Secret> {
    let Kind::Map(map) = &node.kind else {
        let key = reader.text("secrets", node)?;
        return secret(reader, key.clone(), key, node);
    };
    detailed(reader, node, map)
}

fn detailed(reader: &mut Reader, node: &Node, map: &Map) -> Option<Secret> {
    attribute::check(reader, map, &SECRET);
    let Some(key) = map.get("key") else {
        reader.error("missing-attribute", node.span, "the secret has no `key`");
        return None;
    };
    let key = reader.text("key", &key.value)?;
    let env = match map.get("environment_variable") {
        Some(entry) => reader.text("environment_variable", &entry.value)?,
        None => key.clone(),
    };
    secret(reader, key, env, node)
}

fn secret(reader: &mut Reader, key: String, env: String, at: &Node) -> Option<Secret> {
    if key.is_empty() || env.is_empty() {
        reader.error("empty-value", at.span, "a secret's name and its variable's are not empty");
        return None;
    }
    if env.contains(['=', '\0']) {
        reader.error("variable-name", at.span, "a variable's name holds neither `=` nor NUL");
        return None;
    }
    if is_protected(&env) {
        reader.error("protected-variable", at.span, format!("a secret must not set `{env}`, which is the agent's own"));
        return None;
    }
    Some(Secret { key, env })
}

/// Lists one after the other, variables once: the first of the same name stays.
pub(crate) fn merge(lists: impl IntoIterator<Item = Vec<Secret>>) -> Vec<Secret> {
    let mut seen = BTreeSet::new();
    lists.into_iter().flatten().filter(|secret| seen.insert(secret.env.clone())).collect()
}
