//! The one binary `windlass`: every mode of it. Only [`ui`] prints, only [`error`] knows exit codes.

mod client;
mod command;
mod error;
mod fleets;
mod follow;
mod lines;
mod place;
mod show;
mod size;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;

use crate::command::Arguments;
use crate::ui::Ui;

/// The hidden mode in which this program forks supervisors; it must begin before any thread does.
const SPAWNER: &str = "__spawner";

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|mode| mode == SPAWNER) {
        return u8::try_from(windlass_agent_runner::spawner_from_stdin()).map_or(ExitCode::FAILURE, ExitCode::from);
    }
    let arguments = Arguments::parse();
    let ui = Ui::new();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        ui.warn("another provider of cryptography was installed first");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ui.fail(&error::Failure::system("the runtime cannot be started", &error)),
    };
    let result = runtime.block_on(Box::pin(command::dispatch(arguments, &ui)));
    // What still blocks (a read of a terminal) must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(code) => code.into(),
        Err(failure) => ui.fail(&failure),
    }
}
