//! `windlass cache stats`: what the coordinator's store holds, and what crossed each zone's border.

use clap::Args;
use indicatif::HumanBytes;
use serde::Deserialize;

use super::super::reach;
use crate::client::{ServerArguments, shape};
use crate::error::{Code, Failure};
use crate::ui::table::Table;
use crate::ui::{Ui, text};

/// In which form.
#[derive(Debug, Args)]
pub(crate) struct StatsArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
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

/// Shows it.
pub(super) async fn run(arguments: &StatsArguments, ui: &Ui) -> Result<Code, Failure> {
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
        line(&format!("zone {}", text::shown(zone)), crossed, String::new());
    }
    table
}
