//! What the next version of an archive brings over a zone's border, beside its length.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::joined::Joined;
use crate::server::Server;
use crate::table::Table;

/// Names two archives, the first and its next version, with a colon between.
const ARCHIVES: &str = "WINDLASS_ARCHIVES";

/// Bytes between the coordinator and a zone so far: to its agents, and from them.
pub(crate) async fn crossed(server: &Server, zone: &str) -> anyhow::Result<(u64, u64)> {
    let stats = server.get("/cache/stats").await?;
    let zones = stats["zones"].as_array().context("it tells of zones")?;
    let found = zones.iter().find(|found| found["zone"] == zone);
    let count = |way: &str| found.and_then(|found| found[way].as_u64()).unwrap_or_default();
    Ok((count("into_bytes"), count("out_of_bytes")))
}

pub(crate) async fn run(server: &Server, step: Value) -> anyhow::Result<String> {
    let build = server.submit(&json!({ "steps": [step] }).to_string()).await?;
    server.passed(&build).await?;
    Ok(build["id"].as_str().context("a build has an id")?.to_owned())
}

/// One version, from a job of one zone to a job of the other: bytes that left the one, and that came into the other.
async fn cross(server: &Server, (near, far): (&str, &str), archive: &Path) -> anyhow::Result<(u64, u64)> {
    let path = archive.to_str().context("an archive's path is text")?;
    ensure!(!path.contains('\''), "{path} cannot be quoted");
    let (_, left) = crossed(server, near).await?;
    let command = format!("cp '{path}' archive.tar; windlass artifact upload archive.tar");
    let build = run(server, json!({ "agents": { "queue": near }, "command": command })).await?;
    let (_, left_after) = crossed(server, near).await?;
    let (came, _) = crossed(server, far).await?;
    let command = format!("windlass artifact download --build {build} archive.tar . && cmp archive.tar '{path}'");
    run(server, json!({ "agents": { "queue": far }, "command": command })).await?;
    let (came_after, _) = crossed(server, far).await?;
    Ok((left_after - left, came_after - came))
}

/// The next version of an archive that a zone has.
pub(crate) async fn next_version(server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let Some(archives) = std::env::var_os(ARCHIVES) else {
        println!("archives were not measured: {ARCHIVES} names none, as FIRST.tar:SECOND.tar");
        return Ok(());
    };
    let archives: Vec<PathBuf> = std::env::split_paths(&archives).collect();
    let [first, second] = &archives[..] else { anyhow::bail!("{ARCHIVES} names {} and not two", archives.len()) };
    let zones = ("old", "new");
    let _near = Joined::start(server, zones.0, 1, &json!({})).await?;
    let _far = Joined::start(server, zones.1, 1, &json!({})).await?;
    let whole = cross(server, zones, first).await?;
    println!("the first version: {:.1} MB left a zone, {:.1} MB came into another", mb(whole.0), mb(whole.1));
    let bytes = second.metadata().with_context(|| second.display().to_string())?.len();
    let (left, came) = cross(server, zones, second).await?;
    let limit = || format!("its length {:.1} MB", mb(bytes));
    let ratio = |crossed: u64| crossed as f64 / bytes as f64;
    let figure = |crossed: u64| format!("{:.1} MB", mb(crossed));
    table.at_most("next version of an archive, out of the zone that made it", figure(left), limit(), ratio(left), 0.05);
    table.at_most(
        "next version of an archive, into a zone that has the one before",
        figure(came),
        limit(),
        ratio(came),
        0.05,
    );
    Ok(())
}

pub(crate) fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
