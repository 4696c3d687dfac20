//! Where a run runs: on a server that is named, on one of this user's that runs, or on one that this process brings along.
//!
//! A run that uses another's embedded server holds a shared lock in its data directory; the server's process ends only
//! once it has that lock for itself. So a server never goes away under a run, and a run that comes too late sees that
//! the server is going, waits, and starts its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::sync::mpsc;
use tokio::time::Instant;
use windlass_agent_core::Signal;
use windlass_coordinator::upstream::Upstream;
use windlass_coordinator::{Config, Coordinator, StartError};
use windlass_coordinator_store::OpenError;
use windlass_git::Protocols;
use windlass_protocol::limits::CLI_ATTACH_MS;

use crate::client::{Client, ClientError, ServerArguments, Target, choose, wanted_data};
use crate::command::up::Pair;
use crate::command::{coordinator, serve};
use crate::error::{Code, Failure};
use crate::follow;
use crate::place::{self, Announcement, Server};
use crate::ui::Ui;

/// Between two looks for a server that starts or ends beside this run.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The server of a run.
#[derive(Debug)]
pub(super) enum Host {
    /// Somebody else's; the lock says that it is in use.
    Attached { client: Client, _in_use: Option<File> },
    /// Our own.
    Embedded(Box<Embedded>),
}

/// A server that lives in this process.
#[derive(Debug)]
pub(super) struct Embedded {
    pair: Pair,
    announced: Option<Announcement>,
    client: Client,
}

impl Host {
    /// The client for it.
    pub(super) fn client(&self) -> &Client {
        match self {
            Self::Attached { client, .. } => client,
            Self::Embedded(embedded) => &embedded.client,
        }
    }

    /// Whether it lives in this process.
    pub(super) const fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// Ends an embedded server once nobody needs it any more.
    pub(super) async fn close(self, signals: &mut mpsc::Receiver<Signal>, ui: &Ui) -> Result<(), Failure> {
        let Self::Embedded(embedded) = self else { return Ok(()) };
        let alone = embedded.wait_until_alone(signals, ui).await?;
        let Embedded { pair, announced, .. } = *embedded;
        drop(announced);
        match alone {
            Some(_lock) => pair.stop(0, signals).await.map(drop),
            None => {
                pair.quit().await;
                Ok(())
            }
        }
    }

    /// Ends an embedded server without waiting for anything.
    pub(super) async fn leave(self) {
        let Self::Embedded(embedded) = self else { return };
        let Embedded { pair, announced, .. } = *embedded;
        drop(announced);
        pair.quit().await;
    }
}

/// The data directory of a server that is started here.
pub(super) fn data() -> Result<PathBuf, Failure> {
    coordinator::absolute(&wanted_data().unwrap_or_else(|| place::data_dir("up")))
}

/// The server that is named, else one of this user that runs; a named one is not spoken to yet.
pub(super) async fn find(arguments: &ServerArguments) -> Result<Option<Host>, Failure> {
    if arguments.is_named() {
        let Target { client, .. } = arguments.target()?;
        return Ok(Some(Host::Attached { client, _in_use: None }));
    }
    attach(arguments).await
}

/// Finds the server, or starts one.
pub(super) async fn reach(
    arguments: &ServerArguments,
    detach: bool,
    upstream: Option<Upstream>,
    ui: &Ui,
) -> Result<Host, Failure> {
    let data = data()?;
    let deadline = Instant::now() + Duration::from_millis(CLI_ATTACH_MS);
    loop {
        if let Some(host) = find(arguments).await? {
            return Ok(host);
        }
        if detach {
            return Err(Failure::usage("there is no server to leave the build to")
                .hint("start one with `windlass up`, or run without --detach"));
        }
        match start(arguments, &data, upstream.clone(), ui).await? {
            Some(host) => return Ok(host),
            None if Instant::now() > deadline => {
                return Err(Failure::new(
                    Code::Unreachable,
                    format!("another process uses {} and serves nobody", data.display()),
                )
                .hint("end it, or give this run a directory of its own with WINDLASS_DATA"));
            }
            // Another run starts or ends beside us: it will serve us, or leave the directory to us.
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Uses a server of this user that runs, answers, and does not end.
async fn attach(arguments: &ServerArguments) -> Result<Option<Host>, Failure> {
    let servers = place::servers();
    let Some(server) = choose(&servers, wanted_data().as_deref())? else { return Ok(None) };
    let Some(lock) = place::use_server(&server.data) else { return Ok(None) };
    let Target { client, .. } = arguments.local(server)?;
    match client.get("/builds?limit=1").await {
        Ok(_) => Ok(Some(Host::Attached { client, _in_use: Some(lock) })),
        Err(ClientError::Unreachable { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Starts a coordinator and an agent in this process; `None` where another process has the data directory.
async fn start(
    arguments: &ServerArguments,
    data: &Path,
    upstream: Option<Upstream>,
    ui: &Ui,
) -> Result<Option<Host>, Failure> {
    let starting = ui.spinner("starting a coordinator and an agent");
    let mut config = Config::new(std::net::SocketAddr::from(([127, 0, 0, 1], 0)), data.to_owned());
    config.reuse.upstream = upstream;
    let coordinator = match Coordinator::start(config).await {
        Ok(coordinator) => coordinator,
        Err(StartError::Store(OpenError::InUse { .. })) => return Ok(None),
        Err(error) => return Err(coordinator::not_started(&error)),
    };
    // Whoever has a token may submit here, too: no path of this machine is fetched from.
    let protocols = Protocols::default();
    let pair = Pair::with(coordinator, data.to_owned(), serve::default_slots(), protocols, true).await?;
    starting.finish_and_clear();
    let server = Server { url: pair.coordinator.url.clone(), pid: 0, data: data.to_owned() };
    let Target { client, .. } = arguments.local(&server)?;
    let announced = coordinator::announce(&pair.coordinator, data, ui);
    Ok(Some(Host::Embedded(Box::new(Embedded { pair, announced, client }))))
}

impl Embedded {
    /// Waits until no other run uses this server and no build of it is live; from then on nobody can come.
    async fn wait_until_alone(&self, signals: &mut mpsc::Receiver<Signal>, ui: &Ui) -> Result<Option<File>, Failure> {
        let mut told = false;
        loop {
            let Ok(lock) = place::use_lock(&self.pair.data) else { return Ok(None) };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                if !std::mem::replace(&mut told, true) {
                    ui.say("waiting for other runs that use this server; Ctrl-C stops it under them");
                }
                tokio::select! {
                    locked = exclusive(lock) => drop(locked),
                    _ = signals.recv() => return Ok(None),
                }
                continue;
            }
            let Some(build) = self.live_build().await? else { return Ok(Some(lock)) };
            // Others may come again while we wait.
            drop(lock);
            if !std::mem::replace(&mut told, true) {
                ui.say("waiting for other builds on this server; Ctrl-C stops it, and the next run goes on with them");
            }
            tokio::select! {
                ended = follow::wait_for_end(&self.client, &build) => ended?,
                _ = signals.recv() => return Ok(None),
            }
        }
    }

    async fn live_build(&self) -> Result<Option<String>, ClientError> {
        for state in ["running", "scheduled", "failing", "canceling", "creating"] {
            let page = self.client.get(&format!("/builds?state={state}&limit=1")).await?;
            let id = page.pointer("/items/0/id").and_then(serde_json::Value::as_str);
            if let Some(id) = id {
                return Ok(Some(id.to_owned()));
            }
        }
        Ok(None)
    }
}

/// Waits for a lock on a thread that may block.
async fn exclusive(lock: File) -> Option<File> {
    let locked = tokio::task::spawn_blocking(move || flock(&lock, FlockOperation::LockExclusive).map(|()| lock)).await;
    locked.ok().and_then(Result::ok)
}
