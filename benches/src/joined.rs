//! An agent of a pool, a zone and a queue of its own, all of one name, with a cache that nobody has filled yet.

use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Server, program};

/// Killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Joined {
    child: Child,
    _data: TempDir,
}

impl Joined {
    /// Joins by a token with those terms beside the name.
    pub(crate) async fn start(server: &Server, name: &str, slots: u32, terms: &Value) -> anyhow::Result<Self> {
        let data = tempfile::tempdir_in(".")?;
        let mut body = json!({ "kind": "join", "pool": name, "zone": name, "queues": [name], "trust": "trusted" });
        for (term, value) in terms.as_object().into_iter().flatten() {
            body[term] = value.clone();
        }
        let made = server.post("/tokens", &body).await?;
        let token = data.path().join("join-token");
        std::fs::write(&token, made["token"].as_str().context("a token has a text")?)?;
        let child = Command::new(program()?)
            .args(["agent", "--server", server.address(), "--name", name, "--slots", &slots.to_string()])
            .arg("--join-token-file")
            .arg(&token)
            .arg("--data")
            .arg(data.path().join("agent"))
            .env("WINDLASS_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child, _data: data })
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // What has ended already needs no end.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}
