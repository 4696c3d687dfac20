//! Beats: how late they come from a machine whose processors, disk and link are full (F11).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::joined::Joined;
use crate::limit::percentile;
use crate::server::Server;
use crate::table::Table;

/// How often the agent is to be heard of.
const BEAT: Duration = Duration::from_millis(500);

/// How long the machine is full.
const FULL: Duration = Duration::from_secs(20);

/// How often is looked whether it was heard of.
const LOOK: Duration = Duration::from_millis(10);

/// Names the agent, its pool and its queue.
const NAME: &str = "beating";

pub(crate) async fn lateness(server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let terms = json!({ "lease_ms": 10_000, "beat_ms": BEAT.as_millis() });
    let agent = Joined::start(server, NAME, 4, &terms).await?;
    while heard(server).await?.is_none() {
        tokio::time::sleep(LOOK).await;
    }
    let build = server.submit(&definition()).await?;
    let (until, mut last) = (Instant::now() + FULL, heard(server).await?);
    let (mut late, mut since) = (Vec::new(), Instant::now());
    while Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        let now = heard(server).await?;
        if now != last {
            late.push(since.elapsed().saturating_sub(BEAT));
            (since, last) = (Instant::now(), now);
        }
    }
    late.push(since.elapsed().saturating_sub(BEAT));
    server.cancel(&build).await?;
    drop(agent);
    let (count, p99) = (late.len(), percentile(late, 99).as_secs_f64());
    let what = "lateness of a beat, processors, disk and link full, p99";
    let figure = format!("{:.0} ms of {count} beats", p99 * 1e3);
    table.at_most(what, figure, "1 s".to_owned(), p99, 1.0);
    Ok(())
}

/// When the agent was heard of, as the server says it.
async fn heard(server: &Server) -> anyhow::Result<Option<String>> {
    let agents = server.get("/agents").await?;
    let mine = agents["items"].as_array().into_iter().flatten().find(|agent| agent["name"] == NAME);
    Ok(mine.and_then(|agent| agent["last_seen_at"].as_str()).map(str::to_owned))
}

/// Two spin, one writes and syncs, and the rest go one by one through the last slot and fill the link with their logs.
fn definition() -> String {
    let seconds = FULL.as_secs();
    let spin = format!("timeout {seconds} sh -c 'while :; do :; done' || true");
    let write = "while :; do dd if=/dev/zero of=fill bs=1M count=64 conv=fdatasync 2>/dev/null; done";
    let write = format!("timeout {seconds} sh -c '{write}' || true");
    let mut commands = vec![spin.clone(), spin, write];
    commands.extend(std::iter::repeat_n("head -c 500000000 /dev/urandom".to_owned(), 8));
    let steps: Vec<_> = commands.iter().map(|command| json!({ "command": command })).collect();
    json!({ "agents": { "queue": NAME }, "steps": steps }).to_string()
}
