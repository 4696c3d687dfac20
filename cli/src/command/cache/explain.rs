//! `windlass cache explain`: why a step's result was there, or was not.

use clap::Args;
use serde_json::Value;

use super::super::{find_build, find_job, reach};
use crate::client::shape::{self, Explained};
use crate::client::{Client, ServerArguments};
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// A step of a build.
#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The build's id, PIPELINE/NUMBER, or `latest`.
    build: String,
    /// The step by key, label or id.
    step: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Tells it.
pub(super) async fn run(arguments: &ExplainArguments, ui: &Ui) -> Result<Code, Failure> {
    let reached = reach::to_read(&arguments.server).await?;
    let found = find(reached.client(), arguments).await;
    reached.end().await;
    let (name, raw) = found?;
    if arguments.json {
        ui.data(&raw.to_string());
    } else {
        show(&name, &shape::read(&raw)?, ui);
    }
    Ok(Code::Done)
}

async fn find(client: &Client, arguments: &ExplainArguments) -> Result<(String, Value), Failure> {
    let (build, _) = find_build(client, &arguments.build).await?;
    let job = find_job(&build, &arguments.step)?;
    let raw = client.get(&format!("/jobs/{}/reuse", job.id)).await?;
    Ok((job.name(), raw))
}

fn show(name: &str, explained: &Explained, ui: &Ui) {
    ui.data(&format!("{name}: {}", explained.outcome.replace('_', " ")));
    ui.data(&format!("  {}", explained.text));
    if let Some(key) = &explained.key {
        ui.data(&format!("  key   {key}"));
    }
    for note in &explained.notes {
        ui.data(&format!("  note  {note}"));
    }
    if let Some(gone) = &explained.gone {
        ui.data(&format!("  was here until {}", gone.at));
    }
    let Some(nearest) = &explained.nearest else { return };
    ui.data(&format!("  nearest: build #{} ({}), key {}", nearest.from.number, nearest.from.at, nearest.key));
    for difference in &nearest.differences {
        ui.data(&format!("    {}", difference.component));
        for (mark, value) in [("-", &difference.before), ("+", &difference.after)] {
            if let Some(value) = value {
                ui.data(&format!("      {mark} {}", value.replace('\n', "\\n")));
            }
        }
    }
    if nearest.cut {
        ui.data("    … and more");
    }
}
