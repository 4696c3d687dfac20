//! `windlass cache ls|pin|rm`: what builds have saved under keys, and what of it stays.

use clap::Args;
use indicatif::HumanBytes;
use reqwest::{Body, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::list::{ServerList, list};
use super::super::reach;
use crate::client::{ServerArguments, segment, shape};
use crate::error::{Code, Failure};
use crate::ui::{Ui, text};

/// Which caches.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only of this pipeline.
    #[arg(long)]
    pipeline: Option<String>,
    #[command(flatten)]
    list: ServerList,
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

/// Lists them.
pub(super) async fn list_caches(arguments: &ListArguments, ui: &Ui) -> Result<Code, Failure> {
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
        pipeline,
        overlay.unwrap_or_else(|| "trusted".to_owned()),
        key,
        files.to_string(),
        HumanBytes(bytes).to_string(),
        text::ago(Some(&created_at)),
        text::ago(Some(&used_at)),
        if pinned { "pinned".to_owned() } else { String::new() },
    ])
}

/// Lets one stay, or no longer.
pub(super) async fn pin(PinArguments { which, undo }: &PinArguments, ui: &Ui) -> Result<Code, Failure> {
    let (method, done) = if *undo { (Method::DELETE, "unpinned") } else { (Method::PUT, "pinned") };
    change(which, method, "/pin", done, ui).await
}

/// Removes one.
pub(super) async fn remove(RemoveArguments { which }: &RemoveArguments, ui: &Ui) -> Result<Code, Failure> {
    change(which, Method::DELETE, "", "removed", ui).await
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
