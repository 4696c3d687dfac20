//! `retry`: which ends of a job are tried again, by rule and by hand (reference 10.1 and 10.2; `cause` is ours).

use windlass_protocol::cause::CauseKind;
use windlass_protocol::limits::RETRY_RULE_LIMIT_MAX;

use super::attribute;
use super::command::exit_statuses;
use crate::diagnostic::Diagnostic;
use crate::graph::{ManualRetry, RetryRule, SignalMatch, StatusMatch};
use crate::read::{Reader, shown};
use crate::suggest::did_you_mean;
use crate::yaml::{Entry, Kind, Map, Node};

/// How often a rule retries that does not say.
const LIMIT_DEFAULT: u32 = 2;

/// Signals by name, with Linux's numbers.
const SIGNALS: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// What Buildkite's reasons are called here. `cancel` is what a timeout leaves; canceled jobs are never retried.
const REASONS: [(&str, &[CauseKind]); 7] = [
    ("cancel", &[CauseKind::Timeout]),
    ("agent_stop", &[CauseKind::AgentStopped, CauseKind::SpotNotice]),
    ("agent_refused", &[CauseKind::RefusedByPolicy]),
    ("agent_incompatible", &[CauseKind::RefusedByPolicy]),
    (
        "process_run_error",
        &[CauseKind::CheckoutFailed, CauseKind::HookFailed, CauseKind::PluginFailed, CauseKind::SecretMissing],
    ),
    ("signature_rejected", &[CauseKind::RefusedByPolicy]),
    ("stack_error", &[CauseKind::ImageMissing, CauseKind::ImagePullFailed, CauseKind::Internal]),
];

/// Both kinds of retry.
#[derive(Debug, Default)]
pub(super) struct Retry {
    pub(super) automatic: Vec<RetryRule>,
    pub(super) manual: ManualRetry,
}

pub(super) fn read(reader: &mut Reader, node: &Node) -> Retry {
    let Some(map) = reader.mapping("retry", "a mapping of `automatic` and `manual`", node) else {
        return Retry::default();
    };
    attribute::check(reader, map, &attribute::RETRY);
    Retry {
        automatic: map.get("automatic").map(|entry| automatic(reader, &entry.value)).unwrap_or_default(),
        manual: map.get("manual").map(|entry| manual(reader, entry)).unwrap_or_default(),
    }
}

fn automatic(reader: &mut Reader, node: &Node) -> Vec<RetryRule> {
    match &node.kind {
        Kind::Null | Kind::Bool(false) => Vec::new(),
        Kind::Bool(true) => vec![default_rule()],
        Kind::Text(text) if text == "true" => vec![default_rule()],
        Kind::Text(text) if text == "false" => Vec::new(),
        Kind::Map(map) => vec![rule(reader, map)],
        Kind::List(items) => items
            .iter()
            .filter_map(|item| match item.as_map() {
                Some(map) => Some(rule(reader, map)),
                None => {
                    reader.wrong_type("automatic", "a list of rules", item);
                    None
                }
            })
            .collect(),
        Kind::Text(_) | Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) => {
            reader.wrong_type("automatic", "`true`, `false`, a rule or a list of rules", node);
            Vec::new()
        }
    }
}

fn default_rule() -> RetryRule {
    RetryRule {
        exit_status: StatusMatch::AnyFailure,
        signal: None,
        cause: None,
        or_no_cause: false,
        limit: LIMIT_DEFAULT,
    }
}

fn rule(reader: &mut Reader, map: &Map) -> RetryRule {
    attribute::check(reader, map, &attribute::AUTOMATIC);
    let exit_status = match map.get("exit_status").filter(|entry| !entry.value.is_null()) {
        None => StatusMatch::AnyFailure,
        Some(entry) => match exit_statuses(reader, &entry.value) {
            Some(Some(statuses)) => StatusMatch::OneOf(statuses),
            Some(None) | None => StatusMatch::Any,
        },
    };
    let most = i64::from(RETRY_RULE_LIMIT_MAX);
    let limit = map
        .get("limit")
        .and_then(|entry| reader.integer("limit", &entry.value, 0, most))
        .and_then(|limit| u32::try_from(limit).ok());
    let reasons = map.get("signal_reason").and_then(|entry| reasons(reader, entry));
    let or_no_cause = reasons.as_ref().is_some_and(|reasons| reasons.or_none);
    let causes = map.get("cause").and_then(|entry| causes(reader, entry));
    RetryRule {
        signal: map.get("signal").and_then(|entry| signals(reader, entry)),
        // A cause that is asked for is not met by an end that has none.
        or_no_cause: or_no_cause && causes.is_none(),
        cause: both(reasons.map(|reasons| reasons.kinds), causes),
        exit_status,
        limit: limit.unwrap_or(LIMIT_DEFAULT),
    }
}

/// All conditions of a rule must match: what both name.
fn both(a: Option<Vec<CauseKind>>, b: Option<Vec<CauseKind>>) -> Option<Vec<CauseKind>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.into_iter().filter(|kind| b.contains(kind)).collect()),
        (Some(only), None) | (None, Some(only)) => Some(only),
        (None, None) => None,
    }
}

/// The words of an attribute that takes one or several; `None` if `*` is among them, or nothing.
fn words(reader: &mut Reader, entry: &Entry) -> Option<Vec<(String, Node)>> {
    if entry.value.is_null() {
        return None;
    }
    let items = entry.value.as_list().unwrap_or(std::slice::from_ref(&entry.value));
    let words: Vec<(String, Node)> =
        items.iter().filter_map(|item| reader.text(&entry.key, item).map(|word| (word, item.clone()))).collect();
    (!words.is_empty() && words.iter().all(|(word, _)| word != "*")).then_some(words)
}

fn signals(reader: &mut Reader, entry: &Entry) -> Option<SignalMatch> {
    let words = words(reader, entry)?;
    let (mut numbers, mut none) = (Vec::new(), false);
    for (word, node) in &words {
        let upper = word.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        if word.eq_ignore_ascii_case("none") {
            none = true;
        } else if let Some((_, number)) = SIGNALS.iter().find(|(name, _)| *name == bare) {
            numbers.push(*number);
        } else if !reader.is_awaited(node) {
            let hint = did_you_mean(bare, SIGNALS.iter().map(|(name, _)| *name));
            let message = format!("`{}` is not the name of a signal", shown(word));
            reader.findings.push(Diagnostic::error("unknown-signal", node.span, message).maybe_hint(hint));
        }
    }
    Some(match (none, numbers.is_empty()) {
        (true, true) => SignalMatch::None,
        (true, false) => SignalMatch::NoneOr(numbers),
        (false, _) => SignalMatch::OneOf(numbers),
    })
}

/// What `signal_reason` comes to.
struct Reasons {
    kinds: Vec<CauseKind>,
    /// An end without any reason will do too.
    or_none: bool,
}

/// Reasons as causes. `none` is an end with no reason: of its own accord, by a lost agent (reference 10.4), or by what the
/// machine did to the process.
fn reasons(reader: &mut Reader, entry: &Entry) -> Option<Reasons> {
    let words = words(reader, entry)?;
    let mut reasons = Reasons { kinds: Vec::new(), or_none: false };
    for (word, node) in &words {
        if word == "none" {
            reasons.or_none = true;
            reasons.kinds.extend([CauseKind::AgentLost, CauseKind::LeaseLost, CauseKind::OutOfMemory]);
        } else if let Some((_, causes)) = REASONS.iter().find(|(name, _)| name == word) {
            reasons.kinds.extend_from_slice(causes);
        } else if !reader.is_awaited(node) {
            let hint = did_you_mean(word, REASONS.iter().map(|(name, _)| *name).chain(["none"]));
            let message = format!("`{}` is not a `signal_reason`", shown(word));
            reader.findings.push(Diagnostic::error("unknown-reason", node.span, message).maybe_hint(hint));
        }
    }
    Some(reasons)
}

fn causes(reader: &mut Reader, entry: &Entry) -> Option<Vec<CauseKind>> {
    let words = words(reader, entry)?;
    let mut kinds = Vec::new();
    for (word, node) in &words {
        if let Ok(kind) = word.parse() {
            kinds.push(kind);
        } else {
            let hint = did_you_mean(word, CauseKind::ALL.iter().map(|kind| kind.name()));
            let message = format!("`{}` is not a cause", shown(word));
            reader.findings.push(Diagnostic::error("unknown-cause", node.span, message).maybe_hint(hint));
        }
    }
    Some(kinds)
}

fn manual(reader: &mut Reader, entry: &Entry) -> ManualRetry {
    let Kind::Map(map) = &entry.value.kind else {
        let allowed = if entry.value.is_null() { Some(true) } else { reader.flag(entry) };
        return ManualRetry { allowed: allowed.unwrap_or(true), ..ManualRetry::default() };
    };
    attribute::check(reader, map, &attribute::MANUAL);
    ManualRetry {
        allowed: map.get("allowed").and_then(|entry| reader.flag(entry)).unwrap_or(true),
        permit_on_passed: map.get("permit_on_passed").and_then(|entry| reader.flag(entry)).unwrap_or(true),
        reason: map.get("reason").and_then(|entry| reader.text("reason", &entry.value)).filter(|text| !text.is_empty()),
    }
}
