//! `windlass pipeline`: what can be known without a build, and the pipelines that the server knows by name.

mod check;
mod eval;
mod graph;
mod registry;
mod render;
mod schedule;

use clap::Subcommand;

use crate::command::list;
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
    /// Register a pipeline with the server.
    Create(Box<registry::CreateArguments>),
    /// Change a registered pipeline, for builds from now on.
    Update(Box<registry::UpdateArguments>),
    /// List registered pipelines.
    List(list::ServerList),
    /// Show a registered pipeline.
    Show(registry::ShowArguments),
    /// Make builds at set times.
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
}

/// Runs one of them.
pub(crate) async fn run(command: &PipelineCommand, ui: &Ui) -> Result<Code, Failure> {
    match command {
        PipelineCommand::Check(arguments) => check::check(arguments, ui).await,
        PipelineCommand::Graph(arguments) => graph::graph(arguments, ui),
        PipelineCommand::Render(arguments) => render::render(arguments, ui),
        PipelineCommand::Eval(arguments) => eval::eval(arguments, ui),
        PipelineCommand::Create(arguments) => registry::create(arguments, ui).await,
        PipelineCommand::Update(arguments) => registry::update(arguments, ui).await,
        PipelineCommand::List(arguments) => registry::list_all(arguments, ui).await,
        PipelineCommand::Show(arguments) => registry::show(arguments, ui).await,
        PipelineCommand::Schedule(command) => schedule::run(command, ui).await,
    }
}
