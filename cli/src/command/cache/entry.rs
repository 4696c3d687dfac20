//! `windlass cache ls|rm`, and `pin` of a cache: what builds have saved under keys, and what of it stays.

use clap::Args;
use indicatif::HumanBytes;
use reqwest::{Body, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::list::{ServerList, list};
use super::super::reach;
use crate::client::{Client, ServerArguments, segment, shape};
use crate::error::{Code, Failure};
use crate::ui::{Ui, text};

/// Which caches.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only of this pipeline.
    #[arg(long)]
    pub(super) pipeline: Option<String>,
    /// List builds that are pinned instead: of which all stays.
    #[arg(long)]
    pub(super) pins: bool,
    #[command(flatten)]
    pub(super) list: ServerList,
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
    let ListArguments { pipeline, pins: _, list: ServerList { listing, server } } = arguments;
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
pub(super) async fn pin(client: &Client, id: &str, undo: bool, json: bool, ui: &Ui) -> Result<Code, Failure> {
    let (method, done) = if undo { (Method::DELETE, "unpinned") } else { (Method::PUT, "pinned") };
    change(client, Act { id, method, place: "/pin", done }, json, ui).await
}

/// Removes one.
pub(super) async fn remove(RemoveArguments { which }: &RemoveArguments, ui: &Ui) -> Result<Code, Failure> {
    let client = which.server.target()?.client;
    change(&client, Act { id: &which.id, method: Method::DELETE, place: "", done: "removed" }, which.json, ui).await
}

/// What is done to a cache.
struct Act<'a> {
    id: &'a str,
    method: Method,
    /// What follows the cache in the path.
    place: &'a str,
    /// What the cache is afterwards, in a word.
    done: &'a str,
}

async fn change(client: &Client, act: Act<'_>, json: bool, ui: &Ui) -> Result<Code, Failure> {
    let Act { id, method, place, done } = act;
    client.send_bytes(method, &format!("/caches/{}{place}", segment(id)), Body::default()).await?;
    if json {
        ui.data(&json!({ "id": id, done: true }).to_string());
    } else {
        ui.say(&format!("cache {id} is {done}"));
    }
    Ok(Code::Done)
}
