//! `windlass pipeline check`: everything that is wrong with files.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use windlass_pipeline::Diagnostic;

use crate::command::run::read_pipeline;
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// A variable that is required and not known here is a warning; at a run it is an error.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn check(arguments: &CheckArguments, ui: &Ui) -> Result<Code, Failure> {
    let (mut files, mut errors, mut warnings) = (Vec::new(), 0, 0);
    for path in &arguments.files {
        let text = read_pipeline(path)?;
        let shown = path.display().to_string();
        let compiled = windlass_pipeline::check(&text, &shown);
        let wrong = compiled.diagnostics.iter().filter(|found| found.is_error()).count();
        errors += wrong;
        warnings += compiled.diagnostics.len() - wrong;
        if arguments.json {
            files.push(json!({ "path": shown, "ok": wrong == 0, "diagnostics": shapes(&compiled.diagnostics) }));
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

/// A diagnostic's own JSON is the interface's.
fn shapes(diagnostics: &[Diagnostic]) -> Vec<serde_json::Value> {
    diagnostics.iter().filter_map(|found| serde_json::to_value(found).ok()).collect()
}

fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
