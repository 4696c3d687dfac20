//! `windlass build unblock`, and what `windlass run` does when its build waits at a gate.

use std::collections::BTreeSet;
use std::io::BufRead as _;

use clap::Args;
use serde_json::{Map, Value, json};
use windlass_pipeline::graph::{Field, FieldKind, Gate};

use super::{find_build, quote};
use crate::client::shape::{Build, Job};
use crate::client::{Client, ServerArguments};
use crate::error::{Code, Failure};
use crate::follow;
use crate::ui::Ui;

/// A gate of a build, and the answers to its questions.
#[derive(Debug, Args)]
pub(crate) struct UnblockArguments {
    /// The build's id, PIPELINE/NUMBER, or `latest`.
    #[arg(default_value = "latest")]
    build: String,
    /// The step by key, label or id; where several wait.
    step: Option<String>,
    /// An answer, by the field's key; once more for another value of the same field.
    #[arg(long, value_name = "K=V")]
    field: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Opens it.
pub(crate) async fn run(arguments: &UnblockArguments, ui: &Ui) -> Result<Code, Failure> {
    let fields = fields(&arguments.field)?;
    let client = arguments.server.target()?.client;
    let (build, _) = find_build(&client, &arguments.build).await?;
    let job = pick(&build, arguments.step.as_deref())?;
    let raw = open(&client, job, &fields).await?;
    if arguments.json {
        ui.data(&raw.to_string());
    } else {
        ui.say(&format!("{} of build {} is open", job.name(), build.name()));
        ui.data(&job.id);
    }
    Ok(Code::Done)
}

async fn open(client: &Client, job: &Job, fields: &Map<String, Value>) -> Result<Value, Failure> {
    Ok(client.post(&format!("/jobs/{}/unblock", job.id), Some(&json!({ "fields": fields }))).await?)
}

/// `k=v` by key; several values of one key become a list.
fn fields(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut fields = Map::new();
    for pair in pairs {
        let (key, value) = super::agent::key_value(pair)?;
        match fields.get_mut(&key) {
            None => drop(fields.insert(key, Value::String(value))),
            Some(Value::Array(values)) => values.push(Value::String(value)),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    Ok(fields)
}

/// Gates that wait for somebody.
fn waiting(build: &Build) -> Vec<&Job> {
    build.jobs.iter().filter(|job| job.gate.is_some() && job.state == "blocked").collect()
}

/// The gate that is meant: the one that is named, else the only one that waits.
fn pick<'a>(build: &'a Build, step: Option<&str>) -> Result<&'a Job, Failure> {
    let waiting = waiting(build);
    let named: Vec<&Job> = match step {
        Some(step) => build.jobs.iter().filter(|job| job.gate.is_some() && job.is_named(step)).collect(),
        None => waiting.clone(),
    };
    let names = |jobs: &[&Job]| jobs.iter().take(20).map(|job| quote(&job.name())).collect::<Vec<_>>().join(", ");
    match named.as_slice() {
        [job] => Ok(job),
        [] if waiting.is_empty() => {
            Err(Failure::new(Code::Refused, format!("build {} waits at no gate", build.name())))
        }
        [] => Err(Failure::usage(format!("build {} has no such gate", build.name()))
            .hint(format!("it waits at {}", names(&waiting)))),
        several => Err(Failure::usage(format!("build {} waits at {} gates", build.name(), several.len()))
            .hint(format!("name one: {}", names(several)))),
    }
}

/// The gates that a run has come to.
#[derive(Debug)]
pub(super) struct Gates {
    /// A person is there to answer.
    asks: bool,
    told: BTreeSet<String>,
}

impl Gates {
    pub(super) const fn new(asks: bool) -> Self {
        Self { asks, told: BTreeSet::new() }
    }

    /// The build waits: asks the person who is there, else says how the gates are opened, each once.
    pub(super) async fn at(&mut self, client: &Client, build: &Build, ui: &Ui) -> Result<(), Failure> {
        let (build, _) = follow::fetch(client, &build.id).await?;
        for job in waiting(&build) {
            if !self.told.insert(job.id.clone()) {
                continue;
            }
            let Some(gate) = &job.gate else { continue };
            let answered = if self.asks { ask(job, gate, ui).await? } else { None };
            match answered {
                Some(fields) => match open(client, job, &fields).await {
                    Ok(_) => return Ok(()),
                    Err(failure) => {
                        ui.warn(&failure.what);
                        ui.hint(&command(&build, job, gate));
                    }
                },
                None => {
                    ui.say(&format!("the build waits at {}", job.title()));
                    ui.hint(&command(&build, job, gate));
                }
            }
        }
        Ok(())
    }
}

/// How a gate is opened from elsewhere.
fn command(build: &Build, job: &Job, gate: &Gate) -> String {
    let asked = gate.fields.iter().filter(|field| field.required && !has_default(field));
    let fields: String = asked.map(|field| format!(" --field {}=…", field.key)).collect();
    format!("open it with `windlass build unblock {} {}{fields}`", quote(&build.name()), quote(&job.name()))
}

fn has_default(field: &Field) -> bool {
    match &field.kind {
        FieldKind::Text { default, .. } => default.is_some(),
        FieldKind::Select { default, .. } => !default.is_empty(),
    }
}

/// Asks on the terminal; `None` where the person would rather not say.
async fn ask(job: &Job, gate: &Gate, ui: &Ui) -> Result<Option<Map<String, Value>>, Failure> {
    ui.say(&format!("the build waits at {}", job.title()));
    if let Some(prompt) = &gate.prompt {
        ui.say(prompt);
    }
    let mut fields = Map::new();
    for field in &gate.fields {
        let Some(line) = line(&question(field), ui).await? else { return Ok(None) };
        if !line.is_empty() {
            fields.insert(field.key.clone(), answer(field, &line));
        }
    }
    let Some(sure) = line(&format!("{}? [y/N]", gate.submit), ui).await? else { return Ok(None) };
    Ok(matches!(sure.as_str(), "y" | "Y" | "yes").then_some(fields))
}

fn question(field: &Field) -> String {
    let label = field.label.as_deref().unwrap_or(&field.key);
    let (options, default) = match &field.kind {
        FieldKind::Text { default, .. } => (String::new(), default.clone().unwrap_or_default()),
        FieldKind::Select { options, multiple, default } => {
            let values: Vec<&str> = options.iter().map(|option| option.value.as_str()).collect();
            let many = if *multiple { ", several with commas" } else { "" };
            (format!(" ({}{many})", values.join(", ")), default.join(","))
        }
    };
    let default = if default.is_empty() { default } else { format!(" [{default}]") };
    format!("{label}{options}{default}:")
}

fn answer(field: &Field, line: &str) -> Value {
    match &field.kind {
        FieldKind::Select { multiple: true, .. } => line.split(',').map(|value| Value::from(value.trim())).collect(),
        FieldKind::Select { .. } | FieldKind::Text { .. } => Value::from(line),
    }
}

/// One line of the person's; `None` at the end of input.
async fn line(question: &str, ui: &Ui) -> Result<Option<String>, Failure> {
    ui.say(question);
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|bytes| (bytes > 0).then_some(line))
    });
    match read.await {
        Ok(Ok(line)) => Ok(line.map(|line| line.trim_end_matches(['\r', '\n']).to_owned())),
        Ok(Err(error)) => Err(Failure::system("cannot read the answer".to_owned(), &error)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(id: &str, state: &str) -> Job {
        let gate = Some(Gate::default());
        Job { id: id.to_owned(), step_key: Some(id.to_owned()), state: state.to_owned(), gate, ..Job::default() }
    }

    #[test]
    fn the_only_gate_that_waits_is_meant_and_of_several_one_is_to_be_named() {
        let build = |jobs| Build { pipeline: "p".to_owned(), number: 1, jobs, ..Build::default() };
        let one = build(vec![gate("a", "unblocked"), gate("b", "blocked"), Job::default()]);
        assert_eq!(pick(&one, None).unwrap().id, "b");
        assert_eq!(pick(&one, Some("a")).unwrap().id, "a");
        assert_eq!(pick(&one, Some("x")).unwrap_err().hint.unwrap(), "it waits at b");
        let two = build(vec![gate("a", "blocked"), gate("b", "blocked")]);
        assert_eq!(pick(&two, None).unwrap_err().hint.unwrap(), "name one: a, b");
        assert_eq!(pick(&two, Some("b")).unwrap().id, "b");
        assert!(matches!(pick(&build(vec![gate("a", "blocked_failed")]), None).unwrap_err().code, Code::Refused));
    }

    #[test]
    fn values_of_one_field_become_a_list() {
        let pairs = ["a=1", "b=x=y", "a=2", "a=3"].map(str::to_owned);
        assert_eq!(Value::Object(fields(&pairs).unwrap()), json!({ "a": ["1", "2", "3"], "b": "x=y" }));
        assert!(fields(&["nothing".to_owned()]).is_err());
    }
}
