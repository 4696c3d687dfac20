//! `windlass pipeline check`: everything that is wrong with files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::json;
use windlass_coordinator::SERVED;
use windlass_pipeline::{Compiled, Diagnostic, Inputs, compile_with};
use windlass_protocol::limits::POOLS_MAX;

use crate::client::{ServerArguments, shape};
use crate::command::list;
use crate::command::run::read_pipeline;
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// A variable that is required and not known here is a warning; at a run it is an error. What no coordinator of this
/// version runs is told as at a submit: a warning where the step does its own work without it, an error else.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Ask this server which queues its pools serve. Only where it is given: a check asks nobody by itself.
    #[arg(long, value_name = "URL", help_heading = "Server")]
    server: Option<String>,
    /// A file with the API token (or WINDLASS_TOKEN; for a server of this user its own is found).
    #[arg(long, value_name = "FILE", requires = "server", help_heading = "Server")]
    token_file: Option<PathBuf>,
    /// The CA of an HTTPS server, in PEM, where the system does not know it.
    #[arg(long, value_name = "FILE", requires = "server", help_heading = "Server")]
    ca_file: Option<PathBuf>,
    /// Send the token over plain HTTP beyond this machine.
    #[arg(long, requires = "server", help_heading = "Server")]
    insecure_http: bool,
}

pub(super) async fn check(arguments: &CheckArguments, ui: &Ui) -> Result<Code, Failure> {
    let queues = queues(arguments).await?;
    let (mut files, mut errors, mut warnings) = (Vec::new(), 0, 0);
    for path in &arguments.files {
        let text = read_pipeline(path)?;
        let shown = path.display().to_string();
        let compiled = compile(&text, &shown, queues.as_ref());
        let wrong = compiled.diagnostics.iter().filter(|found| found.is_error()).count();
        errors += wrong;
        warnings += compiled.diagnostics.len() - wrong;
        if arguments.json {
            files.push(json!({ "path": shown, "ok": wrong == 0, "diagnostics": shapes(&compiled.diagnostics)? }));
        } else {
            ui.tell(&compiled.render(&text));
        }
    }
    if arguments.json {
        ui.data(&json!({ "files": files }).to_string());
    } else {
        ui.say(&format!(
            "{} checked: {}, {}",
            count(arguments.files.len(), "file"),
            count(errors, "error"),
            count(warnings, "warning")
        ));
    }
    Ok(if errors > 0 { Code::Failed } else { Code::Done })
}

/// `queues` are those that are served, where a server was asked.
fn compile(text: &str, shown: &str, queues: Option<&BTreeSet<String>>) -> Compiled {
    let mut compiled = compile_with(text, shown, &Inputs { open: true, served: Some(SERVED), ..Inputs::default() });
    if let Some(queues) = queues {
        compiled.check_queues(queues);
    }
    compiled
}

/// A pool, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pool {
    queues: Vec<String>,
}

/// The queues of all pools of the server that is asked.
async fn queues(arguments: &CheckArguments) -> Result<Option<BTreeSet<String>>, Failure> {
    if arguments.server.is_none() {
        return Ok(None);
    }
    let server = ServerArguments {
        server: arguments.server.clone(),
        token_file: arguments.token_file.clone(),
        ca_file: arguments.ca_file.clone(),
        insecure_http: arguments.insecure_http,
    };
    let (pools, _) = list(&server.target()?.client, "/pools", POOLS_MAX).await?;
    let mut queues = BTreeSet::new();
    for pool in &pools {
        let pool: Pool = shape::read(pool)?;
        queues.extend(pool.queues);
    }
    Ok(Some(queues))
}

/// A diagnostic's own JSON is the interface's.
fn shapes(diagnostics: &[Diagnostic]) -> Result<Vec<serde_json::Value>, Failure> {
    let shapes: Result<_, _> = diagnostics.iter().map(serde_json::to_value).collect();
    shapes.map_err(|error| Failure::usage(format!("a diagnostic cannot be written as JSON: {error}")))
}

fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
