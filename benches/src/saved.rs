//! What saving a large directory by key sends after a small change.

use anyhow::ensure;
use serde_json::json;

use crate::joined::Joined;
use crate::server::Server;
use crate::table::{Table, mb};

/// Packages of a directory such as `node_modules`, and files of each: of 64 KiB, 2 GiB together.
const PACKAGES: usize = 64;
const FILES: u64 = 512;
const FILE_BYTES: u64 = 64 << 10;

/// What changes: a byte at the end of one file, and one that is new.
const NEW_BYTES: u64 = 100_000;

/// A directory that a job saves, and the next one restores, changes a little, and saves under another key.
pub(crate) async fn after_a_change(server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let zone = "saved";
    let _agent = Joined::start(server, zone, 1, &json!({})).await?;
    let package = format!("head -c {} /dev/urandom | split -a 3 -b {FILE_BYTES} - $$place/f", FILES * FILE_BYTES);
    let make = format!(
        "set -e; for n in $$(seq {PACKAGES}); do place=node_modules/p$$n; mkdir -p $$place; {package}; done; cp node_modules/p7/faab node_modules/same"
    );
    let step = |command: String, cache| json!({ "agents": { "queue": zone }, "command": command, "cache": cache });
    let (_, none) = server.crossed(zone).await?;
    server.run(step(make, json!({ "paths": ["node_modules"], "key": "first" }))).await?;
    let (_, first) = server.crossed(zone).await?;
    let change = format!(
        "set -e; cmp node_modules/p7/faab node_modules/same; echo x >> node_modules/p7/faab; head -c {NEW_BYTES} /dev/urandom > node_modules/p7/new"
    );
    let cache = json!({ "paths": ["node_modules"], "key": "second", "restore_keys": ["first"] });
    server.run(step(change, cache)).await?;
    let (_, second) = server.crossed(zone).await?;
    let bytes = PACKAGES as u64 * FILES * FILE_BYTES;
    ensure!(first - none >= bytes, "{} of {bytes} bytes left the zone the first time", first - none);
    let (sent, changed) = (second - first, FILE_BYTES + NEW_BYTES);
    println!(
        "saving the directory the first time sent {:.1} MB; the change has {:.3} MB",
        mb(first - none),
        mb(changed)
    );
    let files = PACKAGES as u64 * FILES;
    let what =
        format!("{:.0} MB of {files} files saved by key after two of them changed: bytes out of the zone", mb(bytes));
    let ratio = sent as f64 / bytes as f64;
    table.at_most(&what, format!("{:.2} MB", mb(sent)), format!("its length {:.0} MB", mb(bytes)), ratio, 0.01);
    Ok(())
}
