//! A shell in a kept job's image. The engine makes the container as it made the job's; Docker's own program carries the
//! terminal, its size and its signals, and this one removes what it leaves.

use std::io::IsTerminal as _;
use std::path::Path;

use tokio::process::Command;
use windlass_agent::kept::Kept;
use windlass_agent_core::Signal;
use windlass_agent_runner::docker::shell::{Shell, remove};
use windlass_agent_runner::docker::{Connection, ContainerError};
use windlass_protocol::AttemptId;

use crate::command::serve;
use crate::error::{Code, Failure};
use crate::place;

/// Leads into a container of the job's image until its shell ends.
pub(super) async fn enter(kept: &Kept, image: &str, attempt: &str, checkout: &Path) -> Result<Code, Failure> {
    let attempt: AttemptId =
        attempt.parse().map_err(|_| Failure::usage(format!("the server calls `{attempt}` an attempt's id")))?;
    let engine = Connection::new(&place::engine_socket(None));
    let terminal = std::io::stdin().is_terminal();
    let shell = Shell { attempt, image, env: &kept.env, workspace: checkout, terminal };
    let mut signals = serve::signals()?;
    let container = shell.make(&engine).await.map_err(|error| failure(&error))?;
    let mut docker = Command::new("docker");
    docker.arg("--host").arg(format!("unix://{}", engine.socket().display()));
    docker.args(["start", "--attach", "--interactive", &container]);
    let ended = attached(docker, &mut signals).await;
    // The shell's end is what people should hear of; an engine that went away has told them already.
    let removed = remove(&engine, &container).await.map_err(|error| failure(&error));
    let code = ended?;
    removed.map(|()| code)
}

/// Stands beside Docker's program. Interrupts are for who sits in the shell; to be told to end is for both.
async fn attached(mut docker: Command, signals: &mut tokio::sync::mpsc::Receiver<Signal>) -> Result<Code, Failure> {
    let mut docker = docker.spawn().map_err(|error| {
        Failure::system("the program `docker` cannot be run, which leads into the container", &error)
            .hint("install Docker's command line")
    })?;
    loop {
        tokio::select! {
            status = docker.wait() => {
                let status = status.map_err(|error| Failure::system("the shell's end cannot be waited for", &error))?;
                let number = status.code().and_then(|code| u8::try_from(code).ok());
                return Ok(number.map_or(Code::Failed, Code::Shell));
            }
            Some(signal) = signals.recv() => match signal {
                Signal::Int => {}
                Signal::Term | Signal::Quit => {
                    docker.kill().await.map_err(|error| Failure::system("the shell cannot be left", &error))?;
                    return Ok(Code::Interrupted);
                }
            },
        }
    }
}

fn failure(error: &ContainerError) -> Failure {
    Failure::of(Code::Failed, error).hint_if(error.hint().map(str::to_owned))
}
