//! `windlass agents`: the fleet.

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
    /// Let an agent finish what it runs, and give it nothing more.
    Drain(DrainArguments),
    /// Give a drained agent work again.
    Resume(OneArguments),
    /// Cut an agent off, at once and for good.
    Revoke(OneArguments),
}

/// Which agent, and for how long.
#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    one: OneArguments,
    /// Cancel what still runs after this time, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = serve::duration_ms)]
    deadline: Option<u64>,
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
        AgentsCommand::Drain(DrainArguments { one, deadline }) => {
            let body = deadline.map_or_else(|| json!({}), |ms| json!({ "deadline_ms": ms }));
            change(&one, "drain", &body, ui).await
        }
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
