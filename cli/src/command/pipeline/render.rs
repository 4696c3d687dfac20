//! `windlass pipeline render`: a document after interpolation.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use windlass_pipeline::normal::to_json;
use windlass_pipeline::render::{Interpolation, render as render_text};
use windlass_pipeline::secret::{Check, PATTERNS};
use windlass_pipeline::{Diagnostic, diagnostic, expand_document};

use crate::command::run::read_pipeline;
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// Prints JSON with the keys in the document's order. No variable is set but those that are given here.
#[derive(Debug, Args)]
pub(crate) struct RenderArguments {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Variables: a file of lines `NAME=value`; blank ones and those that begin with `#` say nothing.
    #[arg(long, value_name = "FILE", conflicts_with = "env_json")]
    env_file: Option<PathBuf>,
    /// Variables: a file with a JSON object.
    #[arg(long, value_name = "FILE")]
    env_json: Option<PathBuf>,
    /// Write out matrices and parallel jobs too: a step for each job.
    #[arg(long)]
    expand: bool,
    /// Refuse secrets that are written into the pipeline, or put in by a variable.
    #[arg(long)]
    reject_secrets: bool,
    /// One line for each document.
    #[arg(long)]
    json: bool,
}

pub(super) fn render(arguments: &RenderArguments, ui: &Ui) -> Result<Code, Failure> {
    let text = read_pipeline(&arguments.file)?;
    let shown = arguments.file.display().to_string();
    let variables = match (&arguments.env_file, &arguments.env_json) {
        (Some(path), _) => env_lines(path, &read_pipeline(path)?)?,
        (None, Some(path)) => env_object(path, &read_pipeline(path)?)?,
        (None, None) => Vec::new(),
    };
    let refused = || Failure::usage(format!("{shown} cannot be rendered"));
    let rendered = render_text(&text, &Interpolation { variables: &variables, prefer_variables: false });
    let mut rendered = rendered.map_err(|found| {
        ui.tell(&diagnostic::render(&found, &shown, &text));
        refused()
    })?;
    if arguments.expand {
        rendered.warnings.extend(rendered.documents.iter_mut().flat_map(expand_document));
    }
    ui.tell(&diagnostic::render(&rendered.warnings, &shown, &text));
    if rendered.warnings.iter().any(Diagnostic::is_error) {
        return Err(refused());
    }
    if arguments.reject_secrets {
        let check = Check { patterns: &PATTERNS, variables: &variables, allow: false };
        let found: Vec<_> = rendered.documents.iter().flat_map(|document| check.document(document)).collect();
        if !found.is_empty() {
            ui.tell(&diagnostic::render(&found, &shown, &text));
            return Err(refused());
        }
    }
    for document in &rendered.documents {
        let json = to_json(document).map_err(|error| {
            ui.tell(&diagnostic::render(&[error.into()], &shown, &text));
            refused()
        })?;
        print(&json, arguments.json, ui);
    }
    Ok(Code::Done)
}

fn print(json: &Value, one_line: bool, ui: &Ui) {
    if one_line {
        ui.data(&json.to_string());
    } else {
        ui.data(&format!("{json:#}"));
    }
}

/// `NAME=value`, an `export ` before it allowed; a value in quotes loses them, and nothing is expanded.
fn env_lines(path: &Path, text: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let assignment = line.strip_prefix("export ").unwrap_or(line).split_once('=');
        let Some((name, value)) = assignment.filter(|(name, _)| !name.trim().is_empty()) else {
            return Err(Failure::usage(format!("{}:{}: no `NAME=value` stands here", path.display(), index + 1)));
        };
        let unquoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        variables.push((name.trim().to_owned(), unquoted.unwrap_or(value).to_owned()));
    }
    Ok(variables)
}

fn env_object(path: &Path, text: &str) -> Result<Vec<(String, String)>, Failure> {
    let refused = |why: &str| Failure::usage(format!("{}: {why}", path.display()));
    let json: Value = serde_json::from_str(text).map_err(|error| refused(&error.to_string()))?;
    let Value::Object(members) = json else { return Err(refused("an object is wanted")) };
    members
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            Value::Bool(_) | Value::Number(_) => Ok((name, value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => Err(refused(&format!("`{name}` must be text"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_from_lines_and_from_json() {
        let lines = env_lines(Path::new("e"), "# x\n\nA=1\nexport B=\"two words\"\nC='$A'\nD=a=b\nE=\n").unwrap();
        let pairs = [("A", "1"), ("B", "two words"), ("C", "$A"), ("D", "a=b"), ("E", "")];
        assert_eq!(lines, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(env_lines(Path::new("e"), "A=1\nB").unwrap_err().what, "e:2: no `NAME=value` stands here");
        let object = env_object(Path::new("e"), r#"{"B": "x", "A": 1, "C": true}"#).unwrap();
        assert_eq!(object, [("B", "x"), ("A", "1"), ("C", "true")].map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(env_object(Path::new("e"), r#"{"B": []}"#).unwrap_err().what, "e: `B` must be text");
    }
}
