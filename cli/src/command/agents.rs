//! `windlass agents`: the fleet.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{list, serve};
use crate::client::shape::{self, Agent};
use crate::client::{Client, ServerArguments};
use crate::error::{Code, Failure};
use crate::ui::{Ui, text};

/// Agents that a name is looked for among.
const AGENTS_SEARCHED_MAX: usize = windlass_protocol::limits::AGENTS_MAX;

/// What to do with agents.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// List agents.
    List(list::ServerList),
    /// Let an agent, or all that are selected, finish what they run, and give them nothing more.
    Drain(DrainArguments),
    /// Give a drained agent work again.
    Resume(OneArguments),
    /// Cut an agent off, at once and for good.
    Revoke(OneArguments),
}

/// Which agents, and for how long.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(SELECTORS))]
pub(crate) struct DrainArguments {
    /// Its id, or its name if no other agent has it.
    #[arg(conflicts_with_all = &SELECTORS[1..])]
    agent: Option<String>,
    /// All agents of this pool; with further conditions, those that meet all of them.
    #[arg(long)]
    pool: Option<String>,
    /// All agents of this zone.
    #[arg(long)]
    zone: Option<String>,
    /// All agents with names like this: `*` is any characters, `?` one.
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// All agents with this tag; several times for several.
    #[arg(long, value_name = "K=V")]
    tag: Vec<String>,
    /// All agents of this version of windlass.
    #[arg(long = "agent-version", value_name = "VERSION")]
    version: Option<String>,
    /// All agents that joined at least so long ago, such as 12h.
    #[arg(long, value_name = "TIME", value_parser = serve::duration_ms)]
    older_than: Option<u64>,
    /// Drain so many at most that, with those that are away already, this many are unavailable; the others wait until it
    /// is asked for again.
    #[arg(long, value_name = "N", conflicts_with = "agent", value_parser = clap::value_parser!(u32).range(1..))]
    max_unavailable: Option<u32>,
    /// When what still runs is not waited for any longer, such as 10m; 0s is now.
    #[arg(long, value_name = "TIME", value_parser = serve::duration_ms)]
    deadline: Option<u64>,
    /// What becomes then of what still runs: it is run again elsewhere, but for exclusive steps that have started
    /// (requeue), only ended (cancel), or left to take its time (wait). [default: requeue]
    #[arg(long, value_name = "WHAT", requires = "deadline")]
    on_deadline: Option<OnDeadline>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// What says which agents are drained.
const SELECTORS: [&str; 7] = ["agent", "pool", "zone", "name", "tag", "version", "older_than"];

/// What becomes of what runs at a drain's deadline.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OnDeadline {
    Requeue,
    Cancel,
    Wait,
}

/// Which agent.
#[derive(Debug, Args)]
pub(crate) struct OneArguments {
    /// Its id, or its name if no other agent has it.
    agent: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Runs one of them.
pub(crate) async fn run(command: AgentsCommand, ui: &Ui) -> Result<Code, Failure> {
    match command {
        AgentsCommand::List(arguments) => list_agents(&arguments, ui).await,
        AgentsCommand::Drain(arguments) => drain(arguments, ui).await,
        AgentsCommand::Resume(one) => change(&one, "resume", &json!({}), ui).await,
        AgentsCommand::Revoke(one) => change(&one, "revoke", &json!({}), ui).await,
    }
}

async fn list_agents(arguments: &list::ServerList, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let found = list(&client, "/agents", arguments.listing.limit()).await?;
    let columns = ["NAME", "STATE", "ZONE", "POOL", "QUEUES", "SLOTS", "SEEN", "ID"];
    let row = |item: &Value| {
        let agent: Agent = shape::read(item)?;
        let slots = format!("{}/{}", agent.slots_used.unwrap_or_default(), agent.slots.unwrap_or_default());
        let (zone, seen) = (agent.zone.unwrap_or_default(), text::ago(agent.last_seen_at.as_deref()));
        Ok(vec![agent.name, agent.state, zone, agent.pool, agent.queues.join(","), slots, seen, agent.id])
    };
    arguments.listing.show(found, "agents", &columns, row, ui)?;
    Ok(Code::Done)
}

async fn drain(arguments: DrainArguments, ui: &Ui) -> Result<Code, Failure> {
    let mut body = serde_json::Map::new();
    if let Some(ms) = arguments.deadline {
        body.insert("deadline_ms".to_owned(), ms.into());
    }
    if let Some(rule) = arguments.on_deadline {
        let rule = match rule {
            OnDeadline::Requeue => "requeue",
            OnDeadline::Cancel => "cancel",
            OnDeadline::Wait => "wait",
        };
        body.insert("on_deadline".to_owned(), rule.into());
    }
    if let Some(agent) = arguments.agent {
        let one = OneArguments { agent, json: arguments.json, server: arguments.server };
        return change(&one, "drain", &body.into(), ui).await;
    }
    let tags = arguments.tag.iter().map(|tag| super::agent::key_value(tag));
    let tags: BTreeMap<String, String> = tags.collect::<Result<_, _>>()?;
    let selector = json!({
        "pool": arguments.pool,
        "zone": arguments.zone,
        "name": arguments.name,
        "tags": tags,
        "version": arguments.version,
        "min_age_ms": arguments.older_than,
    });
    body.insert("selector".to_owned(), selector);
    if let Some(most) = arguments.max_unavailable {
        body.insert("max_unavailable".to_owned(), most.into());
    }
    let client = arguments.server.target()?.client;
    let raw = client.post_again("/agents/drain", Some(&body.into())).await?;
    if arguments.json {
        ui.data(&raw.to_string());
        return Ok(Code::Done);
    }
    let named = |key: &str| -> Result<Vec<String>, Failure> {
        let items = raw[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let agents = items.iter().map(shape::read::<Agent>).collect::<Result<Vec<_>, _>>()?;
        Ok(agents.into_iter().map(|agent| agent.name).collect())
    };
    let (drained, waiting) = (named("drained")?, named("waiting")?);
    match (drained.as_slice(), waiting.as_slice()) {
        ([], []) => ui.say("no agent that can be drained is meant by that"),
        ([], _) => ui.say("no further agent may be unavailable now"),
        (drained, _) => ui.say(&format!("draining {}: {}", drained.len(), drained.join(", "))),
    }
    if !waiting.is_empty() {
        ui.say(&format!("waiting for their turn, {}: {}", waiting.len(), waiting.join(", ")));
    }
    Ok(Code::Done)
}

async fn change(arguments: &OneArguments, verb: &str, body: &Value, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let id = find(&client, &arguments.agent).await?;
    let raw = client.post_again(&format!("/agents/{id}/{verb}"), Some(body)).await?;
    if arguments.json {
        ui.data(&raw.to_string());
    } else {
        let agent: Agent = shape::read(&raw)?;
        ui.say(&format!("agent {} is {}", agent.name, agent.state));
    }
    Ok(Code::Done)
}

/// The id of an agent that is named by id or name.
async fn find(client: &Client, word: &str) -> Result<String, Failure> {
    let (items, _) = list(client, "/agents", AGENTS_SEARCHED_MAX).await?;
    let agents: Vec<Agent> = items.iter().map(shape::read).collect::<Result<_, _>>()?;
    if let Some(agent) = agents.iter().find(|agent| agent.id == word) {
        return Ok(agent.id.clone());
    }
    let named: Vec<&Agent> = agents.iter().filter(|agent| agent.name == word).collect();
    match named.as_slice() {
        [agent] => Ok(agent.id.clone()),
        [] => Err(Failure::usage(format!("there is no agent `{word}`")).hint("`windlass agents list` shows them")),
        several => {
            let ids: Vec<&str> = several.iter().map(|agent| agent.id.as_str()).collect();
            Err(Failure::usage(format!("{} agents are called `{word}`", several.len()))
                .hint(format!("name one by its id: {}", ids.join(", "))))
        }
    }
}
