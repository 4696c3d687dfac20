//! `windlass cache verify`: of a coordinator that serves through its API, of one that does not run on its data directory.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_cache::{Fault, Frozen, RealFs, Report, Store, StoreOptions, Vfs};

use crate::client::{Client, ServerArguments};
use crate::command::reach;
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// Between two looks at a check that is under way.
const POLL: Duration = Duration::from_millis(500);

/// Reads everything that is stored and compares it with its names. A coordinator that serves does it slowly, and puts aside
/// what is damaged: it is absent from then on, and can come again. With --data the directory of one that does not run is
/// looked at, and nothing is changed without --repair. Ends with 1 where something is damaged.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Drop what is damaged from the data directory, and mend its segments. A coordinator that serves drops it in any case.
    #[arg(long)]
    repair: bool,
    /// The data directory of a coordinator or an agent that does not run.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// How a check came out.
#[derive(Debug, Default, Deserialize)]
struct Shown {
    state: String,
    blobs: usize,
    bytes: u64,
    of_bytes: u64,
    damaged_blobs: usize,
    damaged: Vec<String>,
    damaged_bytes: u64,
    segments: Vec<Segment>,
    complete: bool,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Segment {
    file: String,
    bytes: u64,
}

pub(super) async fn run(arguments: VerifyArguments, ui: &Ui) -> Result<Code, Failure> {
    let VerifyArguments { repair, data, json, server } = arguments;
    let raw = match data {
        Some(data) => offline(&data, repair, ui).await?,
        None => {
            let reached = reach::to_read(&server).await?;
            let watched = online(reached.client(), ui).await;
            reached.end().await;
            watched?
        }
    };
    let shown: Shown = serde_json::from_value(raw.clone())
        .map_err(|error| Failure::system("the answer cannot be read", &std::io::Error::other(error)))?;
    if json {
        ui.data(&raw.to_string());
    } else {
        print(&shown, ui);
    }
    if let Some(error) = shown.error {
        return Err(Failure::new(Code::Failed, format!("the check failed: {error}")));
    }
    if !shown.complete {
        return Err(Failure::new(Code::Failed, "the check ended before everything was read".to_owned()));
    }
    let sound = shown.damaged_blobs == 0 && shown.damaged_bytes == 0;
    let verdict = match (sound, repair) {
        (true, _) => "everything is what it should be",
        (false, true) => "what was damaged is dropped, and can come again",
        (false, false) => "there is damage",
    };
    ui.say(&format!("{} blobs, {} bytes: {verdict}", shown.blobs, shown.bytes));
    Ok(if sound { Code::Done } else { Code::Failed })
}

fn print(shown: &Shown, ui: &Ui) {
    for digest in &shown.damaged {
        ui.data(&format!("blob {digest}: damaged"));
    }
    if shown.damaged.len() < shown.damaged_blobs {
        ui.data(&format!("{} more damaged blobs", shown.damaged_blobs - shown.damaged.len()));
    }
    for Segment { file, bytes } in &shown.segments {
        ui.data(&format!("segment {file}: {bytes} bytes cannot be read"));
    }
}

async fn online(client: &Client, ui: &Ui) -> Result<Value, Failure> {
    let mut raw = client.post_again("/cache/verify", None).await?;
    let bar = ui.byte_bar("verifying", 0);
    loop {
        let shown: Shown = serde_json::from_value(raw.clone())
            .map_err(|error| Failure::system("the answer cannot be read", &std::io::Error::other(error)))?;
        if shown.state != "running" {
            bar.finish_and_clear();
            return Ok(raw);
        }
        progress(&bar, shown.bytes, shown.of_bytes);
        tokio::time::sleep(POLL).await;
        raw = client.get("/cache/verify").await?;
    }
}

fn progress(bar: &ProgressBar, bytes: u64, of_bytes: u64) {
    bar.set_length(of_bytes.max(bytes));
    bar.set_position(bytes);
}

async fn offline(data: &Path, repair: bool, ui: &Ui) -> Result<Value, Failure> {
    let dir = data.join("cache");
    if !dir.join("segments").is_dir() {
        let failure = Failure::usage(format!("{} holds no cache", data.display()));
        return Err(failure.hint("give the data directory of a coordinator or an agent"));
    }
    let dir = std::path::absolute(&dir).map_err(|e| Failure::system("the directory cannot be resolved", &e))?;
    let bar = ui.byte_bar("verifying", 0);
    let shown = bar.clone();
    let checked = tokio::task::spawn_blocking(move || check(&dir, repair, &shown)).await;
    bar.finish_and_clear();
    let checked = checked.map_err(|e| Failure::system("the check ended", &std::io::Error::other(e)))?;
    let report = checked.map_err(|fault| match fault {
        Fault::InUse { .. } => {
            Failure::of(Code::Refused, &fault).hint("leave --data out: a coordinator that serves checks it itself")
        }
        fault => Failure::of(Code::Failed, &fault),
    })?;
    Ok(as_json(&report))
}

fn check(dir: &Path, repair: bool, bar: &ProgressBar) -> Result<Report, Fault> {
    let disk: Arc<dyn Vfs> = if repair { Arc::new(RealFs) } else { Arc::new(Frozen::new(Arc::new(RealFs))) };
    // Damage is found by reading the segments.
    let store = Store::open(disk, dir, StoreOptions { scan: true, ..StoreOptions::default() })?;
    let report = store.verify_watched(&mut |now| {
        progress(bar, now.bytes, now.of_bytes);
        ControlFlow::Continue(())
    })?;
    if repair {
        store.mend()?;
    }
    Ok(report)
}

/// As the API says it.
fn as_json(report: &Report) -> Value {
    let segments: Vec<Value> =
        report.segments.iter().map(|(file, bytes)| json!({ "file": file, "bytes": bytes })).collect();
    json!({
        "state": "done",
        "blobs": report.blobs,
        "of_blobs": report.blobs,
        "bytes": report.bytes,
        "of_bytes": report.bytes,
        "damaged_blobs": report.damaged_blobs,
        "damaged": report.damaged,
        "damaged_bytes": report.damaged_bytes,
        "segments": segments,
        "complete": report.complete,
        "error": report.unreachable(),
    })
}
