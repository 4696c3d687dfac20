//! Steps as jobs ask for them: by key, by id, or their own (reference 19.5).

use serde_json::{Value, json};
use windlass_coordinator_core::named::JobName;
use windlass_coordinator_core::row::{AttemptRow, BuildRows, JobRow, StepChange};
use windlass_coordinator_core::standing::StepTally;
use windlass_pipeline::graph::{Command, NodeKind};
use windlass_pipeline::step_notify;
use windlass_protocol::limits::ASK_TEXT_MAX_BYTES;
use windlass_protocol::message::{AskRefused, Told};

use super::No;

/// The jobs of a step; empty names the asking job's own.
pub(super) fn jobs<'a>(rows: &'a BuildRows, attempt: &AttemptRow, step: &str) -> Result<Vec<&'a JobRow>, No> {
    let absent = || No(AskRefused::NotFound, format!("there is no step {step:?} in this build"));
    let called = JobName::of(step);
    let first = rows.jobs.iter().find(|job| if step.is_empty() { job.id == attempt.job } else { called.is_step(job) });
    let first = first.ok_or_else(absent)?;
    // Elements of one step share its place.
    Ok(rows.jobs.iter().filter(|job| job.node.place == first.node.place).collect())
}

/// A step, or one attribute of it.
pub(super) fn get(
    rows: &BuildRows,
    attempt: &AttemptRow,
    step: &str,
    attribute: &str,
    as_json: bool,
) -> Result<Told, No> {
    let jobs = jobs(rows, attempt, step)?;
    let whole = describe(rows, &jobs);
    let value = match attribute {
        "" => whole,
        name => {
            let unknown = || No(AskRefused::Invalid, format!("a step has no attribute {name:?}"));
            whole.get(name).cloned().ok_or_else(unknown)?
        }
    };
    let text = match &value {
        _ if as_json => value.to_string(),
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => {
            let what = if attribute.is_empty() { "a whole step" } else { attribute };
            return Err(No(AskRefused::Invalid, format!("{what} is no plain value: ask with --format json")));
        }
    };
    if text.len() > ASK_TEXT_MAX_BYTES {
        return Err(No(AskRefused::Invalid, format!("{attribute} is longer than {ASK_TEXT_MAX_BYTES} bytes")));
    }
    Ok(Told::Text(text))
}

/// What a job wants an attribute to be.
pub(super) fn change(attribute: &str, value: &str, append: bool) -> Result<StepChange, No> {
    let invalid = |why: String| No(AskRefused::Invalid, why);
    let number =
        |what: &str| value.trim().parse::<i64>().map_err(|_| invalid(format!("{what} is an integer, not {value:?}")));
    let alone = |change| {
        if append {
            Err(invalid(format!("nothing can be added to {attribute}: leave --append out")))
        } else {
            Ok(change)
        }
    };
    match attribute {
        "label" if value.trim().is_empty() => Err(invalid("a label cannot be empty".to_owned())),
        "label" => Ok(StepChange::Label { text: value.to_owned(), append }),
        "priority" => alone(StepChange::Priority(number("priority")?)),
        "parallelism" => {
            let jobs =
                u32::try_from(number("parallelism")?).map_err(|_| invalid("parallelism is 1 or more".to_owned()))?;
            alone(StepChange::Parallelism(jobs))
        }
        "notify" => match step_notify(value) {
            Ok(notify) => Ok(StepChange::Notify { notify, append }),
            Err(errors) => {
                let words: Vec<_> = errors.into_iter().map(|found| found.message).collect();
                Err(invalid(words.join("; ")))
            }
        },
        other => Err(invalid(format!("{other:?} cannot be changed: label, notify, parallelism and priority can be"))),
    }
}

/// Every attribute that can be asked for.
fn describe(rows: &BuildRows, jobs: &[&JobRow]) -> Value {
    let Some(first) = jobs.first() else { return Value::Null };
    let node = &first.node;
    let depends_on: Vec<String> = node
        .depends_on
        .iter()
        .filter_map(|edge| {
            let on =
                rows.jobs.binary_search_by_key(&edge.node, |job| job.index).ok().and_then(|at| rows.jobs.get(at))?;
            Some(on.node.key.clone().unwrap_or_else(|| on.id.to_string()))
        })
        .collect();
    let (kind, command) = match &node.kind {
        NodeKind::Command(command) => ("command", Some(&**command)),
        NodeKind::Wait { .. } => ("wait", None),
        NodeKind::Block(_) => ("block", None),
        NodeKind::Input(_) => ("input", None),
        NodeKind::Trigger(_) => ("trigger", None),
    };
    let tally = StepTally::of(jobs.iter().copied());
    let mut value = json!({
        "id": first.id,
        "key": node.key,
        "label": node.label,
        "type": kind,
        "state": tally.state(),
        "outcome": tally.outcome(),
        "depends_on": depends_on,
        "notify": node.notify,
    });
    if let (Some(command), Some(map)) = (command, value.as_object_mut()) {
        map.extend(of_command(command));
    }
    value
}

fn of_command(command: &Command) -> serde_json::Map<String, Value> {
    let mut agents = vec![format!("queue={}", command.queue)];
    agents.extend(command.tags.iter().map(|(key, value)| format!("{key}={value}")));
    let env: serde_json::Map<_, _> = command.env.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let group = command.concurrency.as_ref();
    let all = [
        ("agents", json!(agents)),
        ("command", json!(command.command)),
        ("env", Value::Object(env)),
        ("concurrency_key", json!(group.map(|group| &group.group))),
        ("concurrency_limit", json!(group.map(|group| group.limit))),
        ("parallelism", json!(command.parallel.map(|(_, total)| total))),
        ("priority", json!(command.priority)),
        ("timeout", json!(command.timeout_ms.map(|ms| ms / 60_000))),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
