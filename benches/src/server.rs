//! A `windlass up` of its own, and the API as a client sees it.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A running pair of coordinator and agent; killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    url: String,
    token: String,
    client: reqwest::Client,
    _data: TempDir,
}

/// `windlass` beside this program.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("windlass");
    ensure!(program.exists(), "{} is missing: build it with the same profile first", program.display());
    Ok(program)
}

impl Server {
    pub(crate) async fn start(slots: u32) -> anyhow::Result<Self> {
        let data = tempfile::tempdir_in(".")?;
        let mut child = Command::new(program()?)
            .args(["up", "--listen", "127.0.0.1:0", "--slots", &slots.to_string(), "--data"])
            .arg(data.path())
            .env("XDG_RUNTIME_DIR", data.path())
            .env("WINDLASS_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let url = line.trim().strip_prefix("ready ").context("it did not say where it is ready")?.to_owned();
        let token = std::fs::read_to_string(data.path().join("api-token"))?.trim().to_owned();
        Ok(Self { child, url, token, client: reqwest::Client::new(), _data: data })
    }

    fn api(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.url)
    }

    /// `HOST:PORT`, for agents as well.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").map_or(&self.url, |(_, address)| address)
    }

    /// What a path says.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.client.get(self.api(path)).bearer_auth(&self.token).send().await?.error_for_status()?.json().await?)
    }

    /// Sends something to a path.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let sent = self.client.post(self.api(path)).bearer_auth(&self.token).json(body).send().await?;
        Ok(sent.error_for_status()?.json().await?)
    }

    /// Cancels a build.
    pub(crate) async fn cancel(&self, build: &Value) -> anyhow::Result<()> {
        let id = build["id"].as_str().context("a build has an id")?;
        self.post(&format!("/builds/{id}/cancel"), &json!({})).await.map(drop)
    }

    /// Submits a pipeline and gives the build.
    pub(crate) async fn submit(&self, definition: &str) -> anyhow::Result<Value> {
        let body = json!({ "pipeline": "bench", "definition": definition, "branch": "main", "message": "measured" });
        let answer = self.client.post(self.api("/builds")).bearer_auth(&self.token).json(&body).send().await?;
        let status = answer.status();
        let build: Value = answer.json().await?;
        ensure!(status.is_success(), "{status}: {build}");
        Ok(build)
    }

    /// Waits for a build's end; fails unless it passed.
    pub(crate) async fn passed(&self, build: &Value) -> anyhow::Result<()> {
        let id = build["id"].as_str().context("a build has an id")?;
        let url = self.api(&format!("/builds/{id}/events?until=finished"));
        let answer = self.client.get(url).bearer_auth(&self.token).send().await?.error_for_status()?;
        let mut events = answer.bytes_stream();
        while let Some(piece) = events.next().await {
            piece?;
        }
        let url = self.api(&format!("/builds/{id}"));
        let build: Value = self.client.get(url).bearer_auth(&self.token).send().await?.json().await?;
        if build["state"] != "passed" {
            let log = self.log(&self.attempt(&build).await?).await?;
            anyhow::bail!("the build ended as {}, and its log says:\n{log}", build["state"]);
        }
        Ok(())
    }

    /// Runs one step to its end; gives the build's id.
    pub(crate) async fn run(&self, step: Value) -> anyhow::Result<String> {
        let build = self.submit(&json!({ "steps": [step] }).to_string()).await?;
        self.passed(&build).await?;
        Ok(build["id"].as_str().context("a build has an id")?.to_owned())
    }

    /// Bytes between the coordinator and a zone so far: to its agents, and from them.
    pub(crate) async fn crossed(&self, zone: &str) -> anyhow::Result<(u64, u64)> {
        let stats = self.get("/cache/stats").await?;
        let zones = stats["zones"].as_array().context("it tells of zones")?;
        let found = zones.iter().find(|found| found["zone"] == zone);
        let count = |way: &str| found.and_then(|found| found[way].as_u64()).unwrap_or_default();
        Ok((count("into_bytes"), count("out_of_bytes")))
    }

    /// The first attempt of a build's first job, once there is one.
    pub(crate) async fn attempt(&self, build: &Value) -> anyhow::Result<String> {
        let id = build["id"].as_str().context("a build has an id")?;
        for _ in 0..1_000 {
            let url = self.api(&format!("/builds/{id}"));
            let build: Value = self.client.get(url).bearer_auth(&self.token).send().await?.json().await?;
            if let Some(attempt) = build["jobs"][0]["attempts"][0]["id"].as_str() {
                return Ok(attempt.to_owned());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::bail!("no attempt began")
    }

    /// A log as text.
    pub(crate) async fn log(&self, attempt: &str) -> anyhow::Result<String> {
        let url = self.api(&format!("/attempts/{attempt}/log"));
        Ok(self.client.get(url).bearer_auth(&self.token).send().await?.error_for_status()?.text().await?)
    }

    /// A log's live stream as raw server-sent events.
    pub(crate) async fn follow(&self, attempt: &str) -> anyhow::Result<reqwest::Response> {
        let url = self.api(&format!("/attempts/{attempt}/log/stream?offset=0"));
        Ok(self.client.get(url).bearer_auth(&self.token).send().await?.error_for_status()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What has ended already needs no end.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Twenty secrets to mask, as every measured job has them.
pub(crate) fn secrets() -> String {
    (0..20).map(|n| format!("  MEASURED_{n}_TOKEN: secret-value-number-{n}-of-twenty\n")).collect()
}
