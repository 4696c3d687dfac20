//! `windlass up`: a coordinator and one agent in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;
use windlass_agent_core::Signal;
use windlass_coordinator::{Config, Coordinator};
use windlass_git::{Protocol, Protocols};
use windlass_protocol::Secret;
use windlass_protocol::limits::SLOTS_MAX;

use super::{coordinator, serve};
use crate::error::{Code, Failure};
use crate::place;
use crate::ui::Ui;

/// Run a coordinator and one agent on this machine.
///
/// The first SIGTERM or SIGINT drains for --drain, then cancels what runs; a second one cancels at once.
#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Where it listens, UDP and TCP; port 0 picks one.
    #[arg(long, value_name = "ADDR:PORT", default_value = coordinator::DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// The data directory.
    #[arg(long, value_name = "DIR", env = "WINDLASS_DATA")]
    data: Option<PathBuf>,
    /// Jobs at once; the number of processors by default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(SLOTS_MAX)))]
    slots: Option<u32>,
    /// How long running jobs may finish when it is stopped.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = serve::duration_ms)]
    drain: u64,
    /// A protocol that repositories are fetched by: https, ssh, http, git, or file for paths of this machine. May be given
    /// more than once; https and ssh by default.
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    git_protocol: Vec<Protocol>,
}

/// Runs both until they are stopped.
pub(crate) async fn run(arguments: UpArguments, ui: &Ui) -> Result<Code, Failure> {
    serve::trace("info", ui);
    let data = coordinator::absolute(&arguments.data.unwrap_or_else(|| place::data_dir("up")))?;
    let slots = arguments.slots.unwrap_or_else(serve::default_slots);
    let mut signals = serve::signals()?;
    let protocols = serve::git_protocols(arguments.git_protocol, None)?;
    let mut config = Config::new(arguments.listen, data);
    config.git.protocols = protocols.clone();
    let mut pair = tokio::select! {
        pair = Pair::start(config, slots, protocols) => pair?,
        // Nothing has been taken yet that would have to be drained.
        _ = signals.recv() => return Ok(Code::Done),
    };
    let _announced = coordinator::announce(&pair.coordinator, &pair.data, ui);
    ui.data(&format!("ready {}", pair.coordinator.url));
    tokio::select! {
        _ = signals.recv() => pair.stop(arguments.drain, &mut signals).await,
        end = pair.coordinator.failed() => {
            Err(Failure::new(Code::Failed, format!("the coordinator had to stop: {end:?}")))
        }
        ended = &mut pair.agent => serve::agent_end(joined(ended)),
    }
}

fn joined(
    ended: Result<Result<windlass_agent::Ended, windlass_agent::Fault>, tokio::task::JoinError>,
) -> Result<windlass_agent::Ended, windlass_agent::Fault> {
    ended.unwrap_or_else(|error| {
        Err(windlass_agent::Fault::System { doing: "the agent's task failed", source: std::io::Error::other(error) })
    })
}

/// A coordinator with an agent of its own.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) coordinator: Coordinator,
    pub(crate) data: PathBuf,
    pub(crate) agent: tokio::task::JoinHandle<Result<windlass_agent::Ended, windlass_agent::Fault>>,
    agent_signals: mpsc::Sender<Signal>,
}

impl Pair {
    /// Starts both, and waits until the agent can take jobs.
    pub(crate) async fn start(config: Config, slots: u32, protocols: Protocols) -> Result<Self, Failure> {
        let data = config.data.clone();
        Self::with(coordinator::start(config).await?, data, slots, protocols, false).await
    }

    /// Gives a coordinator its agent, and waits until that can take jobs. `alone` where no other one will come.
    pub(crate) async fn with(
        coordinator: Coordinator,
        data: PathBuf,
        slots: u32,
        protocols: Protocols,
        alone: bool,
    ) -> Result<Self, Failure> {
        // One that has joined needs no token, and none is left lying about.
        let token = match data.join("agent/identity/chain.der").exists() {
            true => None,
            false => {
                let token = coordinator.local_join_token().await.map_err(|e| Failure::of(Code::Failed, &e))?;
                Some(Secret::new(token))
            }
        };
        let agent_config = serve::embedded_agent(&coordinator, &data, slots, token, protocols, alone)?;
        let (agent_signals, signals) = mpsc::channel(8);
        let agent = tokio::spawn(windlass_agent::run(agent_config, signals));
        let mut pair = Self { coordinator, data, agent, agent_signals };
        pair.wait_for_agent().await?;
        Ok(pair)
    }

    async fn wait_for_agent(&mut self) -> Result<(), Failure> {
        tokio::select! {
            () = self.coordinator.agent_online() => Ok(()),
            ended = &mut self.agent => {
                serve::agent_end(joined(ended))?;
                Err(Failure::new(Code::Failed, "the agent left before it could take a job"))
            }
        }
    }

    /// Lets jobs finish for `drain_ms`, then cancels them; a further signal cancels at once.
    pub(crate) async fn stop(mut self, drain_ms: u64, signals: &mut mpsc::Receiver<Signal>) -> Result<Code, Failure> {
        self.tell_agent(Signal::Term).await;
        let drained = tokio::select! {
            ended = &mut self.agent => Some(ended),
            () = tokio::time::sleep(Duration::from_millis(drain_ms)) => None,
            _ = signals.recv() => None,
        };
        let ended = match drained {
            Some(ended) => ended,
            None => {
                self.tell_agent(Signal::Term).await;
                tokio::select! {
                    ended = &mut self.agent => ended,
                    _ = signals.recv() => {
                        self.tell_agent(Signal::Quit).await;
                        (&mut self.agent).await
                    }
                }
            }
        };
        self.coordinator.stop().await;
        serve::agent_end(joined(ended))
    }

    /// Ends both at once; what ran is taken up again at the next start.
    pub(crate) async fn quit(mut self) {
        self.tell_agent(Signal::Quit).await;
        let ended = (&mut self.agent).await;
        tracing::debug!(?ended, "embedded_agent_quit");
        self.coordinator.stop().await;
    }

    async fn tell_agent(&self, signal: Signal) {
        // An agent that has left needs no telling.
        let _ = self.agent_signals.send(signal).await;
    }
}
