//! `windlass build notifications`: who was told of a build, and what came of it.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::{find_build, list, reach};
use crate::client::shape;
use crate::error::{Code, Failure};
use crate::ui::{Ui, text};

/// Of which build.
#[derive(Debug, Args)]
pub(crate) struct NotificationsArguments {
    /// Its id, PIPELINE/NUMBER, or `latest`.
    #[arg(default_value = "latest")]
    build: String,
    #[command(flatten)]
    list: list::ServerList,
}

/// A notification, as far as the table shows it.
#[derive(Debug, Deserialize)]
struct Notification {
    service: String,
    target: Option<String>,
    event: Option<String>,
    state: String,
    attempts: u32,
    status: Option<u16>,
    detail: Option<String>,
    created_at: String,
}

/// Lists them, newest first.
pub(crate) async fn run(arguments: &NotificationsArguments, ui: &Ui) -> Result<Code, Failure> {
    let reached = reach::to_read(&arguments.list.server).await?;
    let found = async {
        let (build, _) = find_build(reached.client(), &arguments.build).await?;
        let path = format!("/builds/{}/notifications", build.id);
        list(reached.client(), &path, arguments.list.listing.limit()).await
    };
    let found = found.await;
    reached.end().await;
    let columns = ["STATE", "SERVICE", "EVENT", "TARGET", "TRIES", "ANSWER", "AGE", "DETAIL"];
    arguments.list.listing.show(found?, "notifications", &columns, row, ui)?;
    Ok(Code::Done)
}

fn row(item: &Value) -> Result<Vec<String>, Failure> {
    let Notification { service, target, event, state, attempts, status, detail, created_at } = shape::read(item)?;
    Ok(vec![
        state,
        service,
        event.unwrap_or_default(),
        target.unwrap_or_default(),
        attempts.to_string(),
        status.map(|status| status.to_string()).unwrap_or_default(),
        text::ago(Some(&created_at)),
        detail.unwrap_or_default(),
    ])
}
