//! `windlass pipeline`: what can be known without a build.

mod check;
mod eval;
mod graph;
mod render;

use clap::Subcommand;

use crate::error::{Code, Failure};
use crate::ui::Ui;

/// What to do with pipelines.
#[derive(Debug, Subcommand)]
pub(crate) enum PipelineCommand {
    /// Check files; exit 1 if one of them has errors.
    Check(check::CheckArguments),
    /// Show what waits for what.
    Graph(graph::GraphArguments),
    /// Print a file's document with its variables put in.
    Render(render::RenderArguments),
    /// Evaluate the expression of an `if`.
    Eval(eval::EvalArguments),
}

/// Runs one of them.
pub(crate) async fn run(command: &PipelineCommand, ui: &Ui) -> Result<Code, Failure> {
    match command {
        PipelineCommand::Check(arguments) => check::check(arguments, ui).await,
        PipelineCommand::Graph(arguments) => graph::graph(arguments, ui),
        PipelineCommand::Render(arguments) => render::render(arguments, ui),
        PipelineCommand::Eval(arguments) => eval::eval(arguments, ui),
    }
}
