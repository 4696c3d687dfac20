//! A coordinator and some agents of one pool, online.

use std::time::Duration;

use anyhow::Result;

use super::agent::{Agent, AgentOptions};
use super::build::Build;
use super::client::{Client, JoinToken, Submit};
use super::coordinator::Coordinator;
use super::world::World;

/// A fleet that can take jobs of the queue `default`.
#[derive(Debug)]
pub struct Fleet<'a> {
    /// Its coordinator.
    pub coordinator: Coordinator<'a>,
    /// The API, with the admin token.
    pub client: Client,
    /// A join token of the pool.
    pub join_token: String,
    /// Its agents.
    pub agents: Vec<Agent<'a>>,
}

impl<'a> Fleet<'a> {
    /// One agent with two slots.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start(world: &'a World) -> Result<Self> {
        Self::of(world, &JoinToken::pool("local", &["default"]), 1).await
    }

    /// Agents `agent-1` and so on of a pool, with two slots each.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn of(world: &'a World, pool: &JoinToken, agents: usize) -> Result<Self> {
        let coordinator = Coordinator::start(world).await?;
        Self::around(world, coordinator, pool, agents).await
    }

    /// The same with a coordinator that is there already.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn around(
        world: &'a World,
        coordinator: Coordinator<'a>,
        pool: &JoinToken,
        agents: usize,
    ) -> Result<Self> {
        let client = coordinator.client()?;
        let join_token = client.join_token(pool).await?;
        let start = |n| {
            let name = format!("agent-{n}");
            Agent::start(world, AgentOptions::new(&name, coordinator.address(), &join_token))
        };
        let agents = (1..=agents).map(start).collect::<Result<Vec<_>>>()?;
        for agent in &agents {
            agent.in_state(&client, "online").await?;
        }
        Ok(Self { coordinator, client, join_token, agents })
    }

    /// Runs a pipeline to its end.
    ///
    /// # Errors
    /// It is not taken, or does not end.
    pub async fn run(&self, definition: String) -> Result<Build> {
        let build = self.client.submit(&Submit::text(definition)).await?;
        self.client.finished(build.id(), Duration::from_secs(90)).await
    }

    /// Runs a pipeline to this end.
    ///
    /// # Errors
    /// It ends otherwise.
    pub async fn run_to(&self, state: &str, definition: String) -> Result<Build> {
        let build = self.client.submit(&Submit::text(definition)).await?;
        self.client.ends(build.id(), state, Duration::from_secs(90)).await
    }

    /// Submits a pipeline, and waits until a step of it runs.
    ///
    /// # Errors
    /// It does not come to it.
    pub async fn running(&self, definition: String, key: &str) -> Result<Build> {
        let build = self.client.submit(&Submit::text(definition)).await?;
        let what = format!("step {key} running");
        self.client.wait(build.id(), &what, super::wait::DEADLINE, |build| build.job_is(key, "running")).await
    }

    /// The text of a step's last log.
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn log_of(&self, build: &Build, key: &str) -> Result<String> {
        let log = self.client.log(build.attempt(key)?.id()).await?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }
}
