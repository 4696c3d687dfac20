//! A coordinator in a process of its own, which can be killed and comes back on its port with its data.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::client::Client;
use super::process::{Exit, Process};
use super::wait::DEADLINE;
use super::world::World;

/// How a coordinator is started.
#[derive(Debug, Clone)]
pub struct CoordinatorOptions {
    /// Its name in logs, and its data directory where `data` says nothing.
    pub name: String,
    /// Its data directory.
    pub data: Option<PathBuf>,
    /// Where it listens.
    pub listen: String,
    /// More arguments.
    pub more: Vec<String>,
}

impl Default for CoordinatorOptions {
    fn default() -> Self {
        Self { name: "coordinator".to_owned(), data: None, listen: "127.0.0.1:0".to_owned(), more: Vec::new() }
    }
}

/// A coordinator.
#[derive(Debug)]
pub struct Coordinator<'a> {
    world: &'a World,
    options: CoordinatorOptions,
    data: PathBuf,
    scheme: String,
    address: SocketAddr,
    process: Process,
}

impl<'a> Coordinator<'a> {
    /// Starts one on loopback and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start(world: &'a World) -> Result<Self> {
        Self::start_with(world, CoordinatorOptions::default()).await
    }

    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_with(world: &'a World, mut options: CoordinatorOptions) -> Result<Self> {
        let data = options.data.clone().unwrap_or_else(|| world.path(&options.name));
        let (process, scheme, address) = launch(world, &options, &data).await?;
        let host = options.listen.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
        options.listen = format!("{host}:{}", address.port());
        Ok(Self { world, options, data, scheme, address, process })
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Its admin token, as the data directory has it.
    ///
    /// # Errors
    /// There is none.
    pub fn token(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.data.join("api-token")).context("the admin token")?;
        Ok(text.trim().to_owned())
    }

    /// The certificate of its own CA.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.data.join("identity/ca.pem")
    }

    /// A client with the admin token, which believes in the coordinator's own CA over HTTPS.
    ///
    /// # Errors
    /// There is no token.
    pub fn client(&self) -> Result<Client> {
        if self.scheme == "https" {
            return Client::with_ca(&self.url(), Some(self.token()?), &std::fs::read(self.ca_file())?);
        }
        Client::new(&self.url(), Some(self.token()?))
    }

    /// Its process.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// How often it, and those before it, have said this in their logs.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn told(&self, what: &str) -> Result<usize> {
        Ok(self.process.stderr()?.matches(what).count())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// It does not go.
    pub async fn kill9(&mut self) -> Result<()> {
        self.process.kill9().await
    }

    /// Comes back on the same port with the same data.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill9().await?;
        (self.process, self.scheme, self.address) = launch(self.world, &self.options, &self.data).await?;
        Ok(())
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Errors
    /// It does not end.
    pub async fn term(&mut self) -> Result<Exit> {
        self.process.signal(Signal::TERM)?;
        self.process.ended(DEADLINE).await
    }
}

async fn launch(world: &World, options: &CoordinatorOptions, data: &Path) -> Result<(Process, String, SocketAddr)> {
    let mut command = world.windlass(["coordinator", "--listen", &options.listen, "--data"])?;
    command.arg(data).args(&options.more);
    let mut process = Process::start(command, &world.logs(), &options.name)?;
    let (scheme, port) = process
        .line("the coordinator's ready line", Duration::from_secs(30), |line| {
            // By name where it listens on every address.
            let (scheme, place) = line.strip_prefix("ready ")?.split_once("://")?;
            Some((scheme.to_owned(), place.rsplit_once(':')?.1.parse::<u16>().ok()?))
        })
        .await?;
    let listen: SocketAddr = options.listen.parse()?;
    let ip = if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listen.ip() };
    Ok((process, scheme, (ip, port).into()))
}
