//! For tests: `spawner` is the spawner's hidden mode; `agent LAUNCH` stands for an agent that starts the job of a
//! launch file and then does nothing until it is killed.

use std::process::ExitCode;

use windlass_agent_runner::launch::Launch;
use windlass_agent_runner::{Spawner, spawner_from_stdin};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("spawner"), None) => ExitCode::from(u8::try_from(spawner_from_stdin()).unwrap_or(u8::MAX)),
        (Some("agent"), Some(launch)) => agent(&launch).map_or(ExitCode::FAILURE, |never| match never {}),
        _ => ExitCode::FAILURE,
    }
}

fn agent(launch: &str) -> Result<std::convert::Infallible, Box<dyn std::error::Error>> {
    let launch: Launch = serde_json::from_slice(&std::fs::read(launch)?)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let spawner = Spawner::start(&std::env::current_exe()?, &["spawner"])?;
        spawner.launch(&launch).await?;
        std::future::pending().await
    })
}
