//! `windlass cache gc`: what no build needs goes now, by the coordinator's policies.

use std::time::Duration;

use clap::Args;
use indicatif::HumanBytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::reach;
use crate::client::{Client, ServerArguments, shape};
use crate::error::{Code, Failure};
use crate::ui::Ui;
use crate::ui::table::Table;

/// Between two looks at a sweep that is under way.
const POLL: Duration = Duration::from_millis(200);

/// A coordinator does this by itself every hour. What goes are sources, and what keys of steps are made of, that no build needs
/// which is not over: unused for as long as `cache_policy` says, or used longest ago of a pipeline that has more bytes than
/// it says. Artifacts, logs, caches and results are kept by rules of their own.
#[derive(Debug, Args)]
pub(crate) struct GcArguments {
    /// Say what would go, and let nothing go.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// How a sweep came out.
#[derive(Debug, Deserialize)]
struct Shown {
    state: String,
    dry_run: bool,
    rows: u64,
    of_rows: u64,
    needed: u64,
    blobs: u64,
    bytes: u64,
    gone_blobs: u64,
    swept: Vec<Swept>,
    cut: bool,
    disk_bytes_before: u64,
    disk_bytes_after: Option<u64>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Swept {
    pipeline: String,
    overlay: Option<String>,
    why: String,
    blobs: u64,
    bytes: u64,
}

pub(super) async fn run(arguments: &GcArguments, ui: &Ui) -> Result<Code, Failure> {
    let reached = reach::to_read(&arguments.server).await?;
    let watched = watch(reached.client(), arguments.dry_run, ui).await;
    reached.end().await;
    let raw = watched?;
    let shown: Shown = shape::read(&raw)?;
    if arguments.json {
        ui.data(&raw.to_string());
    } else {
        print(&shown, ui);
    }
    match shown.error {
        Some(error) => Err(Failure::new(Code::Failed, format!("the sweep failed: {error}"))),
        None => Ok(Code::Done),
    }
}

async fn watch(client: &Client, dry_run: bool, ui: &Ui) -> Result<Value, Failure> {
    let mut raw = client.post("/cache/gc", Some(&json!({ "dry_run": dry_run }))).await?;
    let bar = ui.count_bar("sweeping", 0);
    loop {
        let shown: Shown = shape::read(&raw)?;
        if shown.dry_run != dry_run {
            let failure = Failure::new(Code::Refused, "a sweep is under way that is not of this kind".to_owned());
            return Err(failure.hint("wait until it is over: `windlass cache gc` shows it"));
        }
        if shown.state != "running" {
            bar.finish_and_clear();
            return Ok(raw);
        }
        bar.set_length(shown.of_rows.max(shown.rows));
        bar.set_position(shown.rows);
        tokio::time::sleep(POLL).await;
        raw = client.get("/cache/gc").await?;
    }
}

fn print(shown: &Shown, ui: &Ui) {
    let bytes = |bytes: u64| HumanBytes(bytes).to_string();
    if !shown.swept.is_empty() {
        let mut table = Table::new(&["PIPELINE", "OF", "WHY", "BLOBS", "SIZE"]);
        for Swept { pipeline, overlay, why, blobs, bytes: size } in &shown.swept {
            let of = overlay.as_deref().unwrap_or("trusted");
            table.row(vec![pipeline.clone(), of.to_owned(), why.clone(), blobs.to_string(), bytes(*size)]);
        }
        ui.raw(table.render().as_bytes());
        if shown.cut {
            ui.say("there are more than these");
        }
    }
    let (verb, blobs) = (if shown.dry_run { "would go" } else { "went" }, shown.blobs);
    let stored = format!("{} of them stored no more", shown.gone_blobs);
    ui.say(&format!("{blobs} blobs {verb}, {}, {stored}; {} are needed", bytes(shown.bytes), shown.needed));
    if let Some(after) = shown.disk_bytes_after.filter(|_| !shown.dry_run) {
        let before = shown.disk_bytes_before;
        ui.say(&format!("the disk has {} back, {} are in use", bytes(before.saturating_sub(after)), bytes(after)));
    }
}
