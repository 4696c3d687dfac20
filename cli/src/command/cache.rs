//! `windlass cache`: what the fleet's cache holds, and what of it is to stay or to go.

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use reqwest::{Body, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use super::list::{ServerList, list};
use super::reach;
use crate::client::shape;
use crate::client::{ServerArguments, segment};
use crate::error::{Code, Failure};
use crate::ui::table::Table;
use crate::ui::{Ui, text};

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List what builds have saved under keys.
    #[command(name = "ls")]
    List(ListArguments),
    /// Show what the coordinator's store holds, and what crossed each zone's border.
    Stats(StatsArguments),
    // Without a comment here, `--help` shows the arguments' own, longer text.
    #[command(about = "Let a cache stay, whoever needs room")]
    Pin(PinArguments),
    #[command(name = "rm", about = "Remove a cache, a pinned one too")]
    Remove(RemoveArguments),
}

/// Which caches.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only of this pipeline.
    #[arg(long)]
    pipeline: Option<String>,
    #[command(flatten)]
    list: ServerList,
}

/// In which form.
#[derive(Debug, Args)]
pub(crate) struct StatsArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// A pinned cache neither makes room for others nor goes because nobody uses it. At most half of what a pipeline's caches may
/// have together can be pinned, and none that an untrusted build saved.
#[derive(Debug, Args)]
pub(crate) struct PinArguments {
    #[command(flatten)]
    which: Which,
    /// Let it go again when its time is over.
    #[arg(long)]
    undo: bool,
}

/// The next build that saves under its key makes another. Its bytes come back within hours, as far as nobody else has them.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    #[command(flatten)]
    which: Which,
}

/// One cache.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Its id, as `windlass cache ls` shows it.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// A cache, as far as the table shows it.
#[derive(Debug, Deserialize)]
struct Cache {
    id: String,
    pipeline: String,
    overlay: Option<String>,
    key: String,
    files: u64,
    bytes: u64,
    pinned: bool,
    created_at: String,
    used_at: String,
}

/// What the store holds, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Stats {
    blobs: u64,
    blob_bytes: u64,
    trusted_bytes: u64,
    chunks: u64,
    chunk_bytes: u64,
    chunk_disk_bytes: u64,
    disk_bytes: u64,
    hits: u64,
    misses: u64,
    damaged: u64,
    zones: Vec<Zone>,
}

#[derive(Debug, Deserialize)]
struct Zone {
    zone: String,
    into_bytes: u64,
    out_of_bytes: u64,
}

/// Runs one of them.
pub(crate) async fn run(command: CacheCommand, ui: &Ui) -> Result<Code, Failure> {
    match command {
        CacheCommand::List(arguments) => list_caches(&arguments, ui).await,
        CacheCommand::Stats(arguments) => stats(&arguments, ui).await,
        CacheCommand::Pin(PinArguments { which, undo }) => {
            let (method, done) = if undo { (Method::DELETE, "unpinned") } else { (Method::PUT, "pinned") };
            change(&which, method, "/pin", done, ui).await
        }
        CacheCommand::Remove(RemoveArguments { which }) => change(&which, Method::DELETE, "", "removed", ui).await,
    }
}

async fn list_caches(arguments: &ListArguments, ui: &Ui) -> Result<Code, Failure> {
    let ListArguments { pipeline, list: ServerList { listing, server } } = arguments;
    let of = pipeline.as_ref().map(|pipeline| format!("?pipeline={}", segment(pipeline))).unwrap_or_default();
    let reached = reach::to_read(server).await?;
    let found = list(reached.client(), &format!("/caches{of}"), listing.limit()).await;
    reached.end().await;
    listing.show(found?, "caches", &["ID", "PIPELINE", "OF", "KEY", "FILES", "SIZE", "SAVED", "USED", ""], row, ui)?;
    Ok(Code::Done)
}

fn row(item: &Value) -> Result<Vec<String>, Failure> {
    let Cache { id, pipeline, overlay, key, files, bytes, pinned, created_at, used_at } = shape::read(item)?;
    Ok(vec![
        id,
        shown(&pipeline),
        shown(&overlay.unwrap_or_else(|| "trusted".to_owned())),
        shown(&key),
        files.to_string(),
        HumanBytes(bytes).to_string(),
        text::ago(Some(&created_at)),
        text::ago(Some(&used_at)),
        if pinned { "pinned".to_owned() } else { String::new() },
    ])
}

/// Others' text, without what a terminal would obey.
fn shown(text: &str) -> String {
    String::from_utf8_lossy(&text::line(text.as_bytes())).into_owned()
}

async fn stats(arguments: &StatsArguments, ui: &Ui) -> Result<Code, Failure> {
    let reached = reach::to_read(&arguments.server).await?;
    let raw = reached.client().get("/cache/stats").await;
    reached.end().await;
    let raw = raw?;
    if arguments.json {
        ui.data(&raw.to_string());
        return Ok(Code::Done);
    }
    ui.raw(table(&shape::read(&raw)?).render().as_bytes());
    Ok(Code::Done)
}

fn table(stats: &Stats) -> Table {
    let mut table = Table::new(&["", "", ""]);
    let bytes = |bytes: u64| HumanBytes(bytes).to_string();
    let asked = stats.hits + stats.misses;
    let hit = stats.hits.saturating_mul(100).checked_div(asked).map(|percent| format!("{percent}% found"));
    let mut line = |name: &str, value: String, more: String| table.row(vec![name.to_owned(), value, more]);
    line("blobs", stats.blobs.to_string(), format!("{}, each once", bytes(stats.blob_bytes)));
    line("of trusted builds", bytes(stats.trusted_bytes), String::new());
    let packed = format!("{} before compression", bytes(stats.chunk_bytes));
    line("chunks", stats.chunks.to_string(), format!("{} on disk, {packed}", bytes(stats.chunk_disk_bytes)));
    line("disk", bytes(stats.disk_bytes), String::new());
    line("asked for", asked.to_string(), hit.unwrap_or_default());
    line("damaged", stats.damaged.to_string(), String::new());
    for Zone { zone, into_bytes, out_of_bytes } in &stats.zones {
        let crossed = format!("{} in, {} out", bytes(*into_bytes), bytes(*out_of_bytes));
        line(&format!("zone {}", shown(zone)), crossed, String::new());
    }
    table
}

async fn change(which: &Which, method: Method, place: &str, done: &str, ui: &Ui) -> Result<Code, Failure> {
    let client = which.server.target()?.client;
    client.send_bytes(method, &format!("/caches/{}{place}", segment(&which.id)), Body::default()).await?;
    if which.json {
        ui.data(&json!({ "id": which.id, done: true }).to_string());
    } else {
        ui.say(&format!("cache {} is {done}", which.id));
    }
    Ok(Code::Done)
}
