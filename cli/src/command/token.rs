//! `windlass token`: tokens for agents that join and for clients of the API.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::{list, say_cut, serve};
use crate::client::shape::{self, Token};
use crate::client::{ServerArguments, segment};
use crate::error::{Code, Failure};
use crate::ui::Ui;
use crate::ui::table::Table;

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it alone is printed on stdout, and never again.
    Create(Box<CreateArguments>),
    /// List tokens, without their secrets.
    List(ListArguments),
    /// Take a token back, at once.
    Revoke(RevokeArguments),
}

/// A join token (with --pool) lets agents join; an API token (with --scope) lets clients in.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["pool", "scope"]))]
pub(crate) struct CreateArguments {
    /// A join token for this pool; the first one makes the pool.
    #[arg(long)]
    pool: Option<String>,
    /// The pool's zone: its network.
    #[arg(long, requires = "pool", conflicts_with = "scope")]
    zone: Option<String>,
    /// A queue that the pool serves.
    #[arg(long, requires = "pool", conflicts_with = "scope")]
    queue: Vec<String>,
    /// What the pool's agents may run.
    #[arg(long, requires = "pool", conflicts_with = "scope")]
    trust: Option<TrustClass>,
    /// A tag of the pool's agents.
    #[arg(long, value_name = "K=V", requires = "pool", conflicts_with = "scope")]
    tag: Vec<String>,
    /// How many agents may join with it; 0 is any number. [default: 1]
    #[arg(long, value_name = "N", requires = "pool", conflicts_with = "scope")]
    uses: Option<u32>,
    /// An API token that may do this, such as builds:read; several with commas.
    #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
    scope: Vec<String>,
    /// Only for this pipeline.
    #[arg(long, requires = "scope", conflicts_with = "pool")]
    pipeline: Option<String>,
    /// Only for this branch.
    #[arg(long, requires = "scope", conflicts_with = "pool")]
    branch: Option<String>,
    /// When it ends, such as 24h. [default: 24h for join tokens, never for API tokens]
    #[arg(long, value_name = "TIME", value_parser = serve::duration_ms)]
    expires: Option<u64>,
    /// What it is for, for people.
    #[arg(long, default_value = "")]
    note: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// What a pool's agents may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TrustClass {
    /// Protected branches.
    Trusted,
    /// Pull requests.
    Untrusted,
}

/// Which tokens.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// How many.
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Which token.
#[derive(Debug, Args)]
pub(crate) struct RevokeArguments {
    /// Its id.
    token: String,
    /// And revoke the agents that joined with it.
    #[arg(long)]
    and_agents: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Runs one of them.
pub(crate) async fn run(command: TokenCommand, ui: &Ui) -> Result<Code, Failure> {
    match command {
        TokenCommand::Create(arguments) => {
            let client = arguments.server.target()?.client;
            let raw = client.post("/tokens", Some(&body(&arguments)?)).await?;
            let token = raw.get("token").and_then(Value::as_str).unwrap_or_default();
            if arguments.json {
                ui.data(&raw.to_string());
            } else {
                ui.data(token);
                ui.say("keep it: it is not shown again");
            }
            Ok(Code::Done)
        }
        TokenCommand::List(arguments) => list_tokens(&arguments, ui).await,
        TokenCommand::Revoke(arguments) => {
            let client = arguments.server.target()?.client;
            let path = format!("/tokens/{}/revoke", segment(&arguments.token));
            let raw = client.post_again(&path, Some(&json!({ "and_agents": arguments.and_agents }))).await?;
            if arguments.json {
                ui.data(&raw.to_string());
            } else {
                ui.say(&format!("token {} is revoked", arguments.token));
            }
            Ok(Code::Done)
        }
    }
}

/// The request's body; what nobody said is left to the server.
fn body(arguments: &CreateArguments) -> Result<Value, Failure> {
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    let text = |text: &Option<String>| text.clone().map(Value::from);
    set("kind", Some(Value::from(if arguments.pool.is_some() { "join" } else { "api" })));
    set("note", Some(Value::from(arguments.note.clone())));
    set("expires_in_s", arguments.expires.map(|ms| Value::from(ms.div_ceil(1_000))));
    if arguments.pool.is_none() {
        set("scopes", Some(Value::from(arguments.scope.clone())));
        set("pipeline", text(&arguments.pipeline));
        set("branch", text(&arguments.branch));
        return Ok(Value::Object(body));
    }
    let mut tags = Map::new();
    for tag in &arguments.tag {
        let (key, value) = super::agent::key_value(tag)?;
        tags.insert(key, Value::from(value));
    }
    set("pool", text(&arguments.pool));
    set("zone", text(&arguments.zone));
    set("queues", (!arguments.queue.is_empty()).then(|| Value::from(arguments.queue.clone())));
    set(
        "trust",
        arguments.trust.map(|trust| match trust {
            TrustClass::Trusted => Value::from("trusted"),
            TrustClass::Untrusted => Value::from("untrusted"),
        }),
    );
    set("tags", (!tags.is_empty()).then_some(Value::Object(tags)));
    set("uses", arguments.uses.map(|uses| if uses == 0 { Value::Null } else { Value::from(uses) }));
    Ok(Value::Object(body))
}

async fn list_tokens(arguments: &ListArguments, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
    let (items, cut) = list(&client, "/tokens", limit).await?;
    if arguments.json {
        ui.data(&json!({ "items": items }).to_string());
    } else {
        let mut table = Table::new(&["ID", "KIND", "FOR", "USES LEFT", "EXPIRES", "NOTE"]);
        for item in &items {
            let token: Token = shape::read(item)?;
            let uses = match (token.kind.as_str(), token.uses_left) {
                ("join", None) => "any".to_owned(),
                (_, uses) => uses.map(|uses| uses.to_string()).unwrap_or_default(),
            };
            let expires = match token.revoked_at {
                Some(_) => "revoked".to_owned(),
                None => token.expires_at.unwrap_or_else(|| "never".to_owned()),
            };
            let purpose = token.scopes.map_or_else(|| token.pool.unwrap_or_default(), |scopes| scopes.join(","));
            table.row(vec![token.id, token.kind, purpose, uses, expires, token.note]);
        }
        ui.raw(table.render().as_bytes());
    }
    say_cut(ui, items.len(), cut);
    Ok(Code::Done)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Create {
        #[command(flatten)]
        arguments: CreateArguments,
    }

    fn made(line: &str) -> Result<Value, String> {
        let words = std::iter::once("create").chain(line.split_whitespace());
        let create = Create::try_parse_from(words).map_err(|error| error.to_string())?;
        body(&create.arguments).map_err(|failure| failure.what)
    }

    #[test]
    fn a_token_is_for_a_pool_or_has_scopes_and_never_both() {
        let join = made("--pool p --zone z --queue a --queue b:c --trust untrusted --tag k=v --uses 0 --expires 90s");
        assert_eq!(
            join.unwrap(),
            json!({"kind": "join", "note": "", "expires_in_s": 90, "pool": "p", "zone": "z", "queues": ["a", "b:c"],
                "trust": "untrusted", "tags": {"k": "v"}, "uses": null})
        );
        let api = made("--scope builds:read,builds:write --pipeline p");
        assert_eq!(
            api.unwrap(),
            json!({"kind": "api", "note": "", "scopes": ["builds:read", "builds:write"], "pipeline": "p"})
        );
        for wrong in ["", "--pool p --scope admin", "--zone z", "--scope admin --queue q", "--pool p --tag kv"] {
            assert!(made(wrong).is_err(), "{wrong}");
        }
    }
}
