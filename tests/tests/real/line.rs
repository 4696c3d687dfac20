//! A pipeline that is registered out of a repository, and a fleet that builds it with the machine's container engine.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use windlass_tests::kit::engine::{Door, answers, import};
use windlass_tests::kit::repository::repository;
use windlass_tests::kit::skip::skip;
use windlass_tests::kit::{
    Agent, AgentOptions, Build, Coordinator, CoordinatorOptions, DEADLINE, Fleet, JoinToken, Submit, World, test,
};

/// The pipeline's name.
pub(crate) const NAME: &str = "shop";

/// For a whole build of these tests.
pub(crate) const BUILD: Duration = Duration::from_secs(100);

/// A registered pipeline, and who builds it.
pub(crate) struct Line<'a> {
    world: &'a World,
    pub(crate) fleet: Fleet<'a>,
    _door: Door,
}

/// Runs a test that needs an engine.
pub(crate) fn with_engine(body: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        body(world).await
    })
}

impl<'a> Line<'a> {
    /// Makes a repository of these files, registers a pipeline with it and these variables, and starts an agent of the queue
    /// `default`. Jobs reach the engine by `DOCKER_HOST`.
    pub(crate) async fn start(world: &'a World, files: &[(&str, &str)], slots: u32, env: Value) -> Result<Self> {
        let repository = repository(world, "repository", files).await?;
        let door = Door::open(world)?;
        // Zones reach it by their links; the repository is a path of this machine.
        let more = ["--insecure-http", "--git-protocol", "https,file"].map(str::to_owned).to_vec();
        let options = CoordinatorOptions { listen: "0.0.0.0:0".to_owned(), more, ..CoordinatorOptions::default() };
        let coordinator = Coordinator::start_with(world, options).await?;
        let mut fleet = Fleet::around(world, coordinator, &JoinToken::pool("local", &["default"]), 0).await?;
        let mut options = AgentOptions::new("builder", fleet.coordinator.address(), &fleet.join_token);
        options.slots = slots;
        options.more = ["--git-protocol", "https,file"].map(str::to_owned).to_vec();
        let agent = Agent::start(world, options)?;
        agent.in_state(&fleet.client, "online").await?;
        fleet.agents.push(agent);
        let mut env = env;
        env["DOCKER_HOST"] = json!(door.host());
        let body = json!({ "name": NAME, "repository": repository.display().to_string(), "env": env });
        fleet.client.post("/pipelines", &body).await?.status(201)?;
        Ok(Self { world, fleet, _door: door })
    }

    /// Makes a build of what the repository has, with more variables.
    pub(crate) async fn build(&self, env: Value) -> Result<Build> {
        self.fleet.client.submit(&Submit::registered(NAME).with("env", env)).await
    }

    /// Runs a command of the CLI with the coordinator.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Result<()> {
        let (url, token) = (self.fleet.coordinator.url(), self.fleet.coordinator.data().join("api-token"));
        let server = ["--server", &url, "--token-file", &token.display().to_string()];
        self.world.run([arguments, &server].concat(), DEADLINE).await?.code(0)?;
        Ok(())
    }
}
