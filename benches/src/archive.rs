//! What the next version of an archive brings over a zone's border, beside its length.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::joined::Joined;
use crate::server::Server;
use crate::table::{Table, mb};

/// Names two archives, the first and its next version, with a colon between.
const ARCHIVES: &str = "WINDLASS_ARCHIVES";

/// One version, from a job of one zone to a job of the other: bytes that left the one, and that came into the other.
async fn cross(server: &Server, (near, far): (&str, &str), archive: &Path) -> anyhow::Result<(u64, u64)> {
    let path = archive.to_str().context("an archive's path is text")?;
    ensure!(!path.contains('\''), "{path} cannot be quoted");
    let (_, left) = server.crossed(near).await?;
    let command = format!("cp '{path}' archive.tar; windlass artifact upload archive.tar");
    let build = server.run(json!({ "agents": { "queue": near }, "command": command })).await?;
    let (_, left_after) = server.crossed(near).await?;
    let (came, _) = server.crossed(far).await?;
    let command = format!("windlass artifact download --build {build} archive.tar . && cmp archive.tar '{path}'");
    server.run(json!({ "agents": { "queue": far }, "command": command })).await?;
    let (came_after, _) = server.crossed(far).await?;
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
