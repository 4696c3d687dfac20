//! `windlass cache stats`: what the coordinator's store holds, and what crossed each zone's border.

use clap::Args;
use indicatif::HumanBytes;
use serde::Deserialize;

use super::super::reach;
use crate::client::{ServerArguments, shape};
use crate::error::{Code, Failure};
use crate::ui::Ui;
use crate::ui::table::Table;

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
    seen_bytes: u64,
    trusted_bytes: u64,
    chunked_bytes: u64,
    chunks: u64,
    chunk_bytes: u64,
    chunk_disk_bytes: u64,
    disk_bytes: u64,
    damaged: u64,
    evicted: Vec<Evicted>,
    kinds: Vec<Kind>,
    largest: Vec<Namespace>,
    tiers: Vec<Tier>,
    reuse: Reuse,
    /// A coordinator of before tells of none.
    #[serde(default)]
    pins: Pins,
    zones: Vec<Zone>,
}

#[derive(Debug, Deserialize)]
struct Evicted {
    why: String,
    blobs: u64,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Kind {
    holds: String,
    of: String,
    namespaces: u64,
    blobs: u64,
    bytes: u64,
    hits: u64,
    misses: u64,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    pipeline: String,
    overlay: Option<String>,
    holds: String,
    blobs: u64,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Tier {
    tier: String,
    hits: u64,
    misses: u64,
    failed: u64,
}

#[derive(Debug, Deserialize)]
struct Reuse {
    hits: u64,
    misses: u64,
    saved_ms: u64,
    entries: u64,
    entry_bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
struct Pins {
    builds: u64,
    files: u64,
    bytes: u64,
    results: u64,
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

fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// How much of a whole something is.
fn share(part: u64, of: u64) -> Option<u64> {
    part.saturating_mul(100).checked_div(of)
}

fn found(hits: u64, misses: u64) -> String {
    share(hits, hits + misses).map(|percent| format!("{percent}% found")).unwrap_or_default()
}

fn table(stats: &Stats) -> Table {
    let mut table = Table::new(&["", "", ""]);
    let mut line = |name: &str, value: String, more: String| table.row(vec![name.to_owned(), value, more]);
    line("blobs", stats.blobs.to_string(), format!("{}, each once", size(stats.blob_bytes)));
    line("of trusted builds", size(stats.trusted_bytes), String::new());
    let once =
        stats.seen_bytes.saturating_sub(stats.blob_bytes) + stats.chunked_bytes.saturating_sub(stats.chunk_bytes);
    let of = stats.seen_bytes.max(stats.blob_bytes);
    let more = share(once, of).map(|percent| format!("{percent}% of {}", size(of))).unwrap_or_default();
    line("stored once for several", size(once), more);
    let packed = share(stats.chunk_disk_bytes, stats.chunk_bytes).map(|percent| format!(", {percent}% of their bytes"));
    let packed = format!("{} on disk{}", size(stats.chunk_disk_bytes), packed.unwrap_or_default());
    line("chunks", stats.chunks.to_string(), packed);
    line("disk", size(stats.disk_bytes), String::new());
    line("damaged", stats.damaged.to_string(), String::new());
    for Evicted { why, blobs, bytes } in &stats.evicted {
        line(&format!("evicted by {why}"), format!("{blobs} blobs"), size(*bytes));
    }
    for Kind { holds, of, namespaces, blobs, bytes, hits, misses } in &stats.kinds {
        if *blobs + hits + misses > 0 {
            let more = format!("{} in {namespaces} namespaces; {}", size(*bytes), found(*hits, *misses));
            let more = more.trim_end_matches("; ").to_owned();
            line(&format!("{holds} of {of} builds"), format!("{blobs} blobs"), more);
        }
    }
    for Tier { tier, hits, misses, failed } in &stats.tiers {
        let failed = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
        let asked = format!("{} asked for", hits + misses);
        line(&format!("tier {tier}"), asked, format!("{}{failed}", found(*hits, *misses)));
    }
    let Reuse { hits, misses, saved_ms, entries, entry_bytes } = &stats.reuse;
    line("results", entries.to_string(), size(*entry_bytes));
    let saved = indicatif::HumanDuration(std::time::Duration::from_millis(*saved_ms)).to_string();
    line("steps reused", format!("{hits} of {}", hits + misses), format!("{saved} saved"));
    let Pins { builds, files, bytes, results } = &stats.pins;
    if *builds > 0 {
        let held = format!("{files} artifacts, {}, {results} results", size(*bytes));
        line("pinned builds", builds.to_string(), held);
    }
    for Zone { zone, into_bytes, out_of_bytes } in &stats.zones {
        let crossed = format!("{} in, {} out", size(*into_bytes), size(*out_of_bytes));
        line(&format!("zone {zone}"), crossed, String::new());
    }
    for Namespace { pipeline, overlay, holds, blobs, bytes } in &stats.largest {
        let of = overlay.as_deref().map(|overlay| format!(" of {overlay}")).unwrap_or_default();
        let name = format!("{pipeline}{of}: {holds}");
        line(&name, format!("{blobs} blobs"), size(*bytes));
    }
    table
}
