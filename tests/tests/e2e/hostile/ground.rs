//! Where strangers try: a coordinator with a registered repository, an agent for trusted builds, and one for all others.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_protocol::Digest;
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::repository::{git, repository};
use windlass_tests::kit::{
    Agent, AgentOptions, Build, Client, Coordinator, CoordinatorOptions, DEADLINE, Fleet, JoinToken, Submit, World,
};

/// The agent of trusted builds, and that of all others.
pub(super) const TRUSTED: &str = "agent-trusted";
pub(super) const WILD: &str = "agent-wild";

/// A blob that is too large for one record, and has chunks.
pub(super) const LARGE: usize = 3 << 20;

/// All that is there before a stranger comes.
pub(super) struct Ground<'a> {
    pub(super) fleet: Fleet<'a>,
    /// A contributor: may make builds of the pipeline `web`, and use the cache.
    pub(super) stranger: Client,
    /// The repository of the pipeline `web`.
    pub(super) repository: PathBuf,
    /// Where the agents serve others of their zone.
    pub(super) peers: BTreeMap<&'static str, SocketAddr>,
}

/// What a trusted build came to, as far as it must not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) log: String,
    pub(super) artifacts: Vec<(String, String)>,
    pub(super) meta_data: Value,
}

/// What `main` runs: what it checked out, what it is told, and what a cache brings.
fn main_pipeline() -> String {
    let script = "echo \"said: $(cat content) at $(git rev-parse HEAD)\"; cp content out.txt; windlass meta-data set k good; \
                  echo \"said: $(cat deps/f 2>/dev/null || echo no deps)\"";
    let made = with(step("make", script), "artifact_paths", json!("out.txt"));
    let cache = json!({ "paths": ["deps"], "key": "deps-main", "restore_keys": ["deps-"] });
    let cached =
        with(step("cached", "cat deps/f 2>/dev/null || { mkdir -p deps; echo good > deps/f; }"), "cache", cache);
    pipeline([made, cached])
}

impl<'a> Ground<'a> {
    pub(super) async fn start(world: &'a World) -> Result<Self> {
        let more = ["--git-protocol", "file"].map(str::to_owned).to_vec();
        let coordinator = Coordinator::start_with(world, CoordinatorOptions { more, ..Default::default() }).await?;
        let pool = JoinToken::pool("local", &["default", "vault"]);
        let mut fleet = Fleet::around(world, coordinator, &pool, 0).await?;
        let wild = JoinToken::pool("wild", &["default"]).zone("local").with("trust", json!("untrusted"));
        let wild = fleet.client.join_token(&wild).await?;
        let mut peers = BTreeMap::new();
        for (name, token) in [(TRUSTED, fleet.join_token.clone()), (WILD, wild)] {
            let at = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
            let mut options = AgentOptions::new(name, fleet.coordinator.address(), &token);
            options.more = ["--git-protocol", "file", "--tag", "secure=yes"].map(str::to_owned).to_vec();
            options.config = format!("peer_listen = \"{at}\"\n");
            fleet.agents.push(Agent::start(world, options)?);
            peers.insert(name, at);
        }
        let text = main_pipeline();
        let files = [(".windlass/pipeline.yml", text.as_str()), ("content", "good\n")];
        let repository = repository(world, "web.git", &files).await?;
        git(&repository, "git config uploadpack.allowAnySHA1InWant true").await?;
        let body = json!({ "name": "web", "repository": repository.display().to_string(), "protected_refs": ["main", "refs/tags/v*"] });
        fleet.client.post("/pipelines", &body).await?.status(201)?;
        let scopes = ["builds:write", "cache:read", "cache:write"];
        let made = fleet.client.api_token(&scopes, &json!({ "pipeline": "web" })).await?;
        let stranger = fleet.client.token(made["token"].as_str());
        for agent in &fleet.agents {
            agent.in_state(&fleet.client, "online").await?;
        }
        Ok(Self { fleet, stranger, repository, peers })
    }

    pub(super) fn agent(&self, name: &str) -> Result<&Agent<'a>> {
        self.fleet.agents.iter().find(|agent| agent.name() == name).context("the agent")
    }

    pub(super) fn agent_mut(&mut self, name: &str) -> Result<&mut Agent<'a>> {
        self.fleet.agents.iter_mut().find(|agent| agent.name() == name).context("the agent")
    }

    /// A build of the head of `main`, which anybody may ask for; what it came to.
    pub(super) async fn trusted(&self) -> Result<Outcome> {
        let build = self.stranger.submit(&Submit::registered("web")).await?;
        ensure!(build.0["namespace"] == "trusted", "{}", build.0);
        let build = self.fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        self.ran_on(&build, TRUSTED)?;
        let list = self.fleet.client.get(&format!("/builds/{}/artifacts", build.id())).await?.status(200)?.json()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of = |row: &Value| (text(&row["path"]), text(&row["digest"]));
        Ok(Outcome {
            log: said(&self.fleet.log_of(&build, "make").await?),
            artifacts: list["items"].as_array().into_iter().flatten().map(of).collect(),
            meta_data: build.0["meta_data"].clone(),
        })
    }

    /// That all jobs of a build ran on this agent.
    pub(super) fn ran_on(&self, build: &Build, name: &str) -> Result<()> {
        for job in build.jobs() {
            for attempt in job.attempts() {
                ensure!(attempt.agent() == name, "{} ran on {}, not {name}", job.key(), attempt.agent());
            }
        }
        Ok(())
    }

    /// A stranger's build of these steps, in the pipeline `web`.
    pub(super) async fn hostile(&self, steps: impl IntoIterator<Item = Value>) -> Result<Build> {
        let submit = Submit::text(pipeline(steps)).with("pipeline", json!("web"));
        let build = self.stranger.submit(&submit).await?;
        ensure!(build.0["namespace"] != "trusted", "{}", build.0);
        Ok(build)
    }

    /// A trusted build of these steps, in the pipeline `web`.
    pub(super) async fn own(&self, steps: impl IntoIterator<Item = Value>) -> Result<Build> {
        let submit = Submit::text(pipeline(steps)).with("pipeline", json!("web"));
        let build = self.fleet.client.submit(&submit).await?;
        ensure!(build.0["namespace"] == "trusted", "{}", build.0);
        Ok(build)
    }

    /// Puts a blob as trusted content of a project.
    pub(super) async fn put(&self, project: &str, bytes: &[u8]) -> Result<Digest> {
        put(&self.fleet.client, project, bytes).await
    }
}

/// What a job's commands said, without what is said of them.
pub(super) fn said(log: &str) -> String {
    log.lines().filter_map(|line| line.strip_prefix("said: ")).map(|line| format!("{line}\n")).collect()
}

pub(super) async fn put(client: &Client, project: &str, bytes: &[u8]) -> Result<Digest> {
    let digest = Digest::of(bytes);
    let path = format!("/blobs/b3/{}?project={project}", digest.to_hex());
    client.call("PUT", &path, bytes.to_vec()).await?.status(201)?;
    Ok(digest)
}
