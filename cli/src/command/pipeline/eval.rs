//! `windlass pipeline eval`: the expression of an `if`, true or false.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use windlass_pipeline::condition::{Context, EntryPoint, Error, ErrorKind, decide};

use crate::command::run::read_pipeline;
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// Prints `true` or `false`; an expression that is none, or cannot be evaluated, ends with 2.
#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    /// The expression.
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    expression: String,
    /// What it can ask for: JSON with `build`, `pipeline`, `organization`, `step`, `env`; what is left out is null.
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
    /// Where the expression stands; in a notification an error is false, and a blank one true.
    #[arg(long, value_enum, default_value_t = Entry::BuildCondition)]
    entry_point: Entry,
}

/// The entry points by the names that they have everywhere.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Entry {
    /// `if` of a step or a group.
    BuildCondition,
    /// The same with a step's variables.
    BuildConditionWithStep,
    /// `if` of the build's `notify`.
    BuildNotification,
    /// `if` of a step's `notify`.
    StepNotification,
}

pub(super) fn eval(arguments: &EvalArguments, ui: &Ui) -> Result<Code, Failure> {
    let context = match &arguments.context {
        Some(path) => context(path)?,
        None => Context::default(),
    };
    let entry = match arguments.entry_point {
        Entry::BuildCondition => EntryPoint::BuildCondition,
        Entry::BuildConditionWithStep => EntryPoint::BuildConditionWithStep,
        Entry::BuildNotification => EntryPoint::BuildNotification,
        Entry::StepNotification => EntryPoint::StepNotification,
    };
    match decide(&arguments.expression, entry, &context) {
        Ok(holds) => {
            ui.data(if holds { "true" } else { "false" });
            Ok(Code::Done)
        }
        Err(error) => {
            ui.tell(&quote(&arguments.expression, &error));
            Err(Failure::usage(format!("{} error: {}", kind(error.kind), error.message)).hint_if(error.hint))
        }
    }
}

fn context(path: &Path) -> Result<Context, Failure> {
    let json = serde_json::from_str(&read_pipeline(path)?)
        .map_err(|error| Failure::of(Code::Usage, &error).hint(format!("{} must be JSON", path.display())))?;
    Context::from_json(&json).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

const fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Parse => "parse",
        ErrorKind::Validation => "validation",
        ErrorKind::Evaluation => "evaluation",
        ErrorKind::Result => "result",
    }
}

/// The line of the expression in which the error stands, and a caret under its place.
fn quote(expression: &str, error: &Error) -> String {
    let start = expression.floor_char_boundary(error.span.start);
    let end = expression.floor_char_boundary(error.span.end).max(start);
    let begin = expression[..start].rfind('\n').map_or(0, |at| at + 1);
    let line = expression[begin..].lines().next().unwrap_or_default();
    let printable = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let before = expression[begin..start].chars().count();
    let width = expression[start..end].chars().take_while(|c| *c != '\n').count().max(1);
    format!("  {}\n  {}{}\n", printable(line), " ".repeat(before), "^".repeat(width))
}

#[cfg(test)]
mod tests {
    use windlass_pipeline::condition::validate;

    use super::*;

    #[test]
    fn the_caret_stands_under_what_is_wrong() {
        let quoted = |text: &str| quote(text, &validate(text, EntryPoint::BuildCondition).unwrap_err());
        assert_eq!(quoted("build.brunch == \"x\""), "  build.brunch == \"x\"\n  ^^^^^^^^^^^^\n");
        assert_eq!(quoted("true &&\n  \"é\" == 1"), "    \"é\" == 1\n           ^\n");
        assert_eq!(quoted("true ||"), "  true ||\n         ^\n");
    }
}
