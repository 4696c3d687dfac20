//! `windlass pipeline eval`: the expression of an `if`, true or false.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Code, Failure};
use crate::ui::Ui;

/// Prints `true` or `false`.
#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    /// The expression.
    #[arg(value_name = "EXPR")]
    expression: String,
    /// The values that it can ask for: nested objects `build`, `pipeline`, `organization`, `step`, `env`.
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
}

pub(super) fn eval(arguments: &EvalArguments, _ui: &Ui) -> Result<Code, Failure> {
    Err(Failure::usage(format!("`{}` cannot be evaluated yet", arguments.expression)))
}
