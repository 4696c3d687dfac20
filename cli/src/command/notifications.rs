//! `windlass build notifications`: who was told of a build, and what came of it.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::{find_build, list, reach, say_cut};
use crate::client::ServerArguments;
use crate::client::shape;
use crate::error::{Code, Failure};
use crate::ui::table::Table;
use crate::ui::{Ui, text};

/// Of which build.
#[derive(Debug, Args)]
pub(crate) struct NotificationsArguments {
    /// Its id, PIPELINE/NUMBER, or `latest`.
    #[arg(default_value = "latest")]
    build: String,
    /// How many.
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
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
    let reached = reach::to_read(&arguments.server).await?;
    let found = async {
        let (build, _) = find_build(reached.client(), &arguments.build).await?;
        let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
        list(reached.client(), &format!("/builds/{}/notifications", build.id), limit).await
    };
    let found = found.await;
    reached.end().await;
    let (items, cut) = found?;
    if arguments.json {
        ui.data(&json!({ "items": items }).to_string());
    } else if items.is_empty() {
        ui.say("no notifications");
    } else {
        let mut table = Table::new(&["STATE", "SERVICE", "EVENT", "TARGET", "TRIES", "ANSWER", "AGE", "DETAIL"]);
        for item in &items {
            let Notification { service, target, event, state, attempts, status, detail, created_at } =
                shape::read(item)?;
            table.row(vec![
                state,
                shown(&service),
                shown(&event.unwrap_or_default()),
                shown(&target.unwrap_or_default()),
                attempts.to_string(),
                status.map(|status| status.to_string()).unwrap_or_default(),
                text::ago(Some(&created_at)),
                shown(&detail.unwrap_or_default()),
            ]);
        }
        ui.raw(table.render().as_bytes());
    }
    say_cut(ui, items.len(), cut);
    Ok(Code::Done)
}

/// What a pipeline or a receiver wrote, as a terminal may show it: nothing in it moves the cursor.
fn shown(text: &str) -> String {
    String::from_utf8_lossy(&text::line(text.as_bytes())).into_owned()
}
