//! `windlass cache prefetch`: what a build needs is brought to agents before its jobs want it.

use clap::Args;
use futures_util::StreamExt as _;
use indicatif::HumanBytes;
use reqwest::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{find_build, reach};
use crate::client::{Client, ClientError, ServerArguments, segment, shape};
use crate::error::{Code, Failure};
use crate::ui::table::Table;
use crate::ui::{Ui, text};

/// The longest line of an answer: one that names every agent there may be.
const LINE_MAX_BYTES: usize = 1 << 20;

/// Its source, the inputs of its steps, its artifacts and the directories that it saved or had in use come into the caches of the
/// agents that are named by all that is given; without anything, of all that run jobs of its trust. A byte crosses a zone's border
/// once, and the zone's agents have the rest from each other. Ctrl-C ends it; what has come stays.
#[derive(Debug, Args)]
pub(crate) struct PrefetchArguments {
    /// The build's id, PIPELINE/NUMBER, or `latest`: one that waits at a gate, or the last one of its kind.
    build: String,
    /// To agents of this zone.
    #[arg(long)]
    zone: Option<String>,
    /// To agents of this pool.
    #[arg(long)]
    pool: Option<String>,
    /// To the agent of this name; several times for several.
    #[arg(long = "agent", value_name = "NAME")]
    agents: Vec<String>,
    /// Print JSON: how it came out.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// How far it is.
#[derive(Debug, Deserialize)]
struct Shown {
    state: String,
    blobs: u64,
    bytes: u64,
    gone_blobs: u64,
    notes: Vec<String>,
    agents: Vec<Agent>,
    cut: bool,
}

#[derive(Debug, Deserialize)]
struct Agent {
    name: String,
    zone: Option<String>,
    state: String,
    blobs: u64,
    bytes: u64,
    absent: u64,
    why: Option<String>,
}

impl Shown {
    /// What did not come, if anything: why for people.
    fn lacks(&self) -> Option<String> {
        let failed = self.agents.iter().filter(|agent| agent.state != "done").count();
        if self.agents.is_empty() {
            return Some("there is no agent to bring it to".to_owned());
        }
        if failed > 0 {
            return Some(format!("{failed} of {} agents did not bring all of it", self.agents.len()));
        }
        let absent = self.agents.iter().any(|agent| agent.absent > 0);
        (absent || self.gone_blobs > 0).then(|| "some of what the build needs is not kept any more".to_owned())
    }
}

pub(super) async fn run(arguments: &PrefetchArguments, ui: &Ui) -> Result<Code, Failure> {
    let reached = reach::to_read(&arguments.server).await?;
    let watched = watch(reached.client(), arguments, ui).await;
    reached.end().await;
    let raw = watched?;
    let shown: Shown = shape::read(&raw)?;
    if arguments.json {
        ui.data(&raw.to_string());
    } else {
        print(&shown, ui);
    }
    match shown.lacks() {
        Some(what) => Err(Failure::new(Code::Failed, what)),
        None => Ok(Code::Done),
    }
}

/// Follows it to its end; answers the last line.
async fn watch(client: &Client, arguments: &PrefetchArguments, ui: &Ui) -> Result<Value, Failure> {
    let (build, _) = find_build(client, &arguments.build).await?;
    let PrefetchArguments { zone, pool, agents, .. } = arguments;
    let body = json!({ "zone": zone, "pool": pool, "agents": agents });
    let response = client.ask_once(&format!("/builds/{}/prefetch", segment(&build.id)), Some(&body)).await?;
    let bar = ui.byte_bar("bringing", 0);
    let last = follow(client, response, |shown| {
        bar.set_length(shown.bytes.saturating_mul(shown.agents.len() as u64));
        bar.set_position(shown.agents.iter().map(|agent| agent.bytes).sum());
    });
    let last = last.await;
    bar.finish_and_clear();
    last
}

async fn follow(client: &Client, response: Response, mut told: impl FnMut(&Shown)) -> Result<Value, Failure> {
    let (mut pieces, mut held) = (response.bytes_stream(), Vec::new());
    while let Some(piece) = pieces.next().await {
        held.extend_from_slice(&piece.map_err(|source| client.broken(source))?);
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            let garbled = |source| ClientError::Garbled { url: client.url().to_owned(), source };
            let raw: Value = serde_json::from_slice(&line).map_err(garbled)?;
            let shown: Shown = shape::read(&raw)?;
            told(&shown);
            if shown.state == "done" {
                return Ok(raw);
            }
        }
        if held.len() > LINE_MAX_BYTES {
            break;
        }
    }
    let failure = Failure::new(Code::Failed, "the coordinator stopped telling how far it is".to_owned());
    Err(failure.hint("what has come is there; run the command again to bring the rest"))
}

fn print(shown: &Shown, ui: &Ui) {
    if !shown.agents.is_empty() {
        let mut table = Table::new(&["AGENT", "ZONE", "STATE", "BLOBS", "SIZE", "WHY"]);
        for Agent { name, zone, state, blobs, bytes, absent, why } in &shown.agents {
            let missing = (*absent > 0).then(|| format!("{absent} blobs are not kept any more"));
            let why = why.clone().or(missing).unwrap_or_default();
            let zone = zone.as_deref().unwrap_or("-").to_owned();
            let size = HumanBytes(*bytes).to_string();
            table.row(vec![name.clone(), zone, state.clone(), blobs.to_string(), size, why]);
        }
        ui.raw(table.render().as_bytes());
    }
    shown.notes.iter().for_each(|note| ui.say(&text::shown(note)));
    if shown.cut {
        ui.say("there are more agents than these");
    }
    if shown.gone_blobs > 0 {
        ui.say(&format!("{} blobs that the build names are not kept any more", shown.gone_blobs));
    }
    ui.say(&format!("the build needs {} blobs, {}", shown.blobs, HumanBytes(shown.bytes)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(gone_blobs: u64, agents: &[(&str, u64)]) -> Shown {
        let agents = agents.iter().map(|(state, absent)| {
            let agent = json!({ "name": "a", "zone": null, "state": state, "blobs": 1, "bytes": 1, "absent": absent, "why": null });
            serde_json::from_value(agent).unwrap()
        });
        let (state, notes) = ("done".to_owned(), Vec::new());
        Shown { state, blobs: 1, bytes: 1, gone_blobs, notes, agents: agents.collect(), cut: false }
    }

    #[test]
    fn it_is_done_only_where_every_agent_has_all_of_it() {
        assert_eq!(shown(0, &[("done", 0), ("done", 0)]).lacks(), None);
        for lacking in [
            shown(0, &[]),
            shown(0, &[("done", 0), ("not", 0)]),
            shown(0, &[("brings", 0)]),
            shown(0, &[("done", 1)]),
            shown(1, &[("done", 0)]),
        ] {
            assert!(lacking.lacks().is_some(), "{lacking:?}");
        }
    }
}
