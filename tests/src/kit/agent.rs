//! An agent in a process of its own, which can be killed, stopped, continued and told to leave.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::process::Signal;
use tokio::process::Command;

use super::client::Client;
use super::process::{Exit, Process};
use super::wait::{DEADLINE, until};
use super::world::{World, binary};

/// The first slot's user of the first agent; beyond what systems and people use.
const SLOT_USERS: u32 = 200_000;

/// Users for each agent's slots.
const USERS_PER_AGENT: u32 = 64;

/// How an agent is started.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// Its name.
    pub name: String,
    /// The coordinator.
    pub server: Option<SocketAddr>,
    /// A join token.
    pub join_token: String,
    /// Jobs at once.
    pub slots: u32,
    /// What it calls itself, if not by its name here.
    pub called: Option<String>,
    /// More of its environment.
    pub env: Vec<(String, String)>,
    /// In this network namespace.
    pub netns: Option<String>,
    /// As this user and group, without any other right; needs root. Else as who runs the test.
    pub user: Option<u32>,
    /// Its data directory; its name's in the world by default.
    pub data: Option<PathBuf>,
    /// More arguments.
    pub more: Vec<String>,
    /// More lines of its file.
    pub config: String,
}

impl AgentOptions {
    /// An agent with a name, a token and two slots.
    #[must_use]
    pub fn new(name: &str, server: SocketAddr, join_token: &str) -> Self {
        Self {
            name: name.to_owned(),
            server: Some(server),
            join_token: join_token.to_owned(),
            slots: 2,
            ..Self::default()
        }
    }
}

/// An agent.
#[derive(Debug)]
pub struct Agent<'a> {
    world: &'a World,
    options: AgentOptions,
    data: PathBuf,
    process: Process,
}

impl<'a> Agent<'a> {
    /// Starts one; it may not be online yet.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(world: &'a World, options: AgentOptions) -> Result<Self> {
        let data = options.data.clone().unwrap_or_else(|| world.path(&options.name));
        std::fs::write(world.path(&format!("{}.token", options.name)), &options.join_token)?;
        let users = SLOT_USERS + world.next_number() * USERS_PER_AGENT;
        std::fs::write(
            world.path(&format!("{}.toml", options.name)),
            format!("slot_user_base = {users}\n{}", options.config),
        )?;
        if let Some(user) = options.user {
            std::fs::create_dir(&data)?;
            for path in [&data, &world.path(&format!("{}.token", options.name))] {
                chown(path, Some(user), Some(user))?;
            }
        }
        let process = launch(world, &options, &data)?;
        Ok(Self { world, options, data, process })
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Its process.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until the coordinator shows it in a state.
    ///
    /// # Errors
    /// It does not come to it.
    pub async fn in_state(&self, client: &Client, state: &str) -> Result<()> {
        let what = format!("agent {} {state}", self.options.name);
        until(&what, DEADLINE, async || {
            let agents = client.agents().await?;
            let found = agents.iter().any(|agent| agent["name"] == self.options.name && agent["state"] == state);
            Ok(found.then_some(()))
        })
        .await
    }

    /// SIGKILL to the agent alone; its jobs' supervisors live on.
    ///
    /// # Errors
    /// It does not go.
    pub async fn kill9(&mut self) -> Result<()> {
        self.process.kill9().await
    }

    /// Starts it again on the same data.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill9().await?;
        self.process = launch(self.world, &self.options, &self.data)?;
        Ok(())
    }

    /// SIGSTOP: it is there, and does nothing.
    ///
    /// # Errors
    /// It is gone.
    pub fn stop(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It is gone.
    pub fn cont(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// SIGTERM: drain.
    ///
    /// # Errors
    /// It is gone.
    pub fn term(&self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// How it ended.
    ///
    /// # Errors
    /// It runs beyond the deadline.
    pub async fn ended(&mut self) -> Result<Exit> {
        self.process.ended(DEADLINE).await
    }
}

fn launch(world: &World, options: &AgentOptions, data: &Path) -> Result<Process> {
    let mut command = match (&options.netns, options.user) {
        (None, None) => Command::new(binary()?),
        (None, Some(user)) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups"]);
            command.args(["--inh-caps=-all", "--no-new-privs"]).arg(world.binary_for_all()?);
            command
        }
        (Some(name), _) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", name]).arg(binary()?);
            command
        }
    };
    let called = options.called.as_ref().unwrap_or(&options.name);
    command.args(["agent", "--name", called, "--slots", &options.slots.to_string()]);
    if let Some(server) = options.server {
        command.args(["--server", &server.to_string()]);
    }
    command.arg("--data").arg(data);
    command.arg("--join-token-file").arg(world.path(&format!("{}.token", options.name)));
    command.arg("--config").arg(world.path(&format!("{}.toml", options.name)));
    command.args(&options.more);
    world.dress(&mut command);
    command.envs(options.env.iter().map(|(name, value)| (name, value)));
    Process::start(command, &world.logs(), &options.name)
}
