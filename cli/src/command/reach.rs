//! A server for a command that only reads: one that runs, else the history that runs on this machine left behind.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use windlass_coordinator::{Config, Coordinator, StartError};
use windlass_coordinator_store::OpenError;
use windlass_protocol::limits::CLI_ATTACH_MS;

use super::coordinator;
use crate::client::{Client, ServerArguments, Target, choose, wanted_data};
use crate::error::Failure;
use crate::place::{self, Server};

/// Between two looks for a server that starts or ends beside this command.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A server that is there as long as this is.
#[derive(Debug)]
pub(crate) struct Reached {
    target: Target,
    /// An embedded server does not end under us.
    _in_use: Option<File>,
    /// A coordinator of our own, over what earlier runs left.
    own: Option<Coordinator>,
}

impl Reached {
    /// The client for it.
    pub(crate) const fn client(&self) -> &Client {
        &self.target.client
    }

    /// Its data directory, if it is on this machine.
    pub(crate) fn data(&self) -> Option<&Path> {
        self.target.data.as_deref()
    }

    /// Lets it go.
    pub(crate) async fn end(self) {
        if let Some(coordinator) = self.own {
            coordinator.stop().await;
        }
    }
}

/// A server to read from.
pub(crate) async fn to_read(arguments: &ServerArguments) -> Result<Reached, Failure> {
    if arguments.is_named() {
        return Ok(Reached { target: arguments.target()?, _in_use: None, own: None });
    }
    let deadline = Instant::now() + Duration::from_millis(CLI_ATTACH_MS);
    loop {
        let servers = place::servers();
        if let Some(server) = choose(&servers, wanted_data().as_deref())?
            && let Some(lock) = place::use_server(&server.data)
        {
            return Ok(Reached { target: arguments.local(server)?, _in_use: Some(lock), own: None });
        }
        let data = wanted_data().unwrap_or_else(|| place::data_dir("up"));
        // Nothing ever ran here: then this is the usual error.
        if !data.join("api-token").exists() {
            return Ok(Reached { target: arguments.target()?, _in_use: None, own: None });
        }
        match own(arguments, data).await? {
            Some(reached) => return Ok(reached),
            None if Instant::now() > deadline => {
                return Ok(Reached { target: arguments.target()?, _in_use: None, own: None });
            }
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// A coordinator without agents over a data directory; `None` where another process has it.
async fn own(arguments: &ServerArguments, data: PathBuf) -> Result<Option<Reached>, Failure> {
    let config = Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), data.clone());
    let coordinator = match Coordinator::start(config).await {
        Ok(coordinator) => coordinator,
        Err(StartError::Store(OpenError::InUse { .. })) => return Ok(None),
        Err(error) => return Err(coordinator::not_started(&error)),
    };
    let target = arguments.local(&Server { url: coordinator.url.clone(), pid: 0, data })?;
    Ok(Some(Reached { target, _in_use: None, own: Some(coordinator) }))
}
