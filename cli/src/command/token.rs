//! `windlass token`: tokens for agents that join and for clients of the API.

use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::{list, serve};
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
    List(list::ServerList),
    /// Show a token, with every agent that it admitted.
    Show(ShowArguments),
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
    /// What an agent may claim of tags: no others (fixed), those given with --tag, where the value * is any (allowed),
    /// or any beside them (free). [default: free]
    #[arg(long, value_name = "POLICY", requires = "pool", conflicts_with = "scope")]
    tag_policy: Option<TagPolicy>,
    /// How long an agent of the pool that is not heard of keeps its right to a job, such as 30s. [default: the pool's, or 60s]
    #[arg(long, value_name = "TIME", requires = "pool", conflicts_with = "scope", value_parser = serve::duration_ms)]
    lease: Option<u64>,
    /// How often an agent of the pool is heard of, at most a quarter of its lease. [default: the pool's, or 5s]
    #[arg(long, value_name = "TIME", requires = "pool", conflicts_with = "scope", value_parser = serve::duration_ms)]
    beat: Option<u64>,
    /// What becomes of the pool's jobs while its zone cannot be reached: they are held for a while (wait), or their agents
    /// are lost with their leases (replace). [default: wait]
    #[arg(long, value_name = "POLICY", requires = "pool", conflicts_with = "scope")]
    on_unreachable: Option<OnUnreachable>,
    /// How many agents may join with it; `unlimited` (or 0) is any number, for images. [default: 1]
    #[arg(long, value_name = "N", requires = "pool", conflicts_with = "scope", value_parser = uses)]
    uses: Option<u32>,
    /// A network that agents may join from, such as 10.0.0.0/8; several times for several. [default: any]
    #[arg(long, value_name = "CIDR", requires = "pool", conflicts_with = "scope")]
    allow_cidr: Vec<String>,
    /// How agents that join with it may be called, such as 'ci-*'. [default: anyhow]
    #[arg(long, value_name = "PATTERN", requires = "pool", conflicts_with = "scope")]
    name_pattern: Option<String>,
    /// Nobody joins with it before this: a time such as 2026-01-31T08:00:00Z, or from now, such as 2h.
    #[arg(long, value_name = "TIME", requires = "pool", conflicts_with = "scope", value_parser = not_before)]
    not_before: Option<String>,
    /// An API token that may do this, such as builds:read; several with commas.
    #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
    scope: Vec<String>,
    /// Only for this pipeline.
    #[arg(long, requires = "scope", conflicts_with = "pool")]
    pipeline: Option<String>,
    /// Only for this branch.
    #[arg(long, requires = "scope", conflicts_with = "pool")]
    branch: Option<String>,
    /// When it ends, such as 24h, or never. [default: 24h for join tokens, never for API tokens]
    #[arg(long, value_name = "TIME", value_parser = expires)]
    expires: Option<Expires>,
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

/// What an agent may claim of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TagPolicy {
    Fixed,
    Allowed,
    Free,
}

/// What becomes of a pool's jobs while its zone cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnUnreachable {
    Wait,
    Replace,
}

/// When a token ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expires {
    AfterMs(u64),
    Never,
}

fn expires(text: &str) -> Result<Expires, String> {
    match text {
        "never" => Ok(Expires::Never),
        _ => match serve::duration_ms(text)? {
            0 => Err("more than nothing, or never".to_owned()),
            ms => Ok(Expires::AfterMs(ms)),
        },
    }
}

fn uses(text: &str) -> Result<u32, String> {
    if text == "unlimited" { Ok(0) } else { text.parse().map_err(|_| "a number, or unlimited".to_owned()) }
}

/// A time as RFC 3339 has it; what is no duration goes to the server as it is, which says what is wrong with it.
fn not_before(text: &str) -> Result<String, String> {
    let Ok(from_now) = humantime::parse_duration(text) else { return Ok(text.to_owned()) };
    let at = SystemTime::now().checked_add(from_now).ok_or("too far in the future")?;
    Ok(humantime::format_rfc3339_seconds(at).to_string())
}

/// Which token.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// Its id.
    token: String,
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
            for warning in raw.get("warnings").and_then(Value::as_array).into_iter().flatten() {
                ui.warn(warning.as_str().unwrap_or_default());
            }
            if arguments.json {
                ui.data(&raw.to_string());
            } else {
                ui.data(token);
                ui.say("keep it: it is not shown again");
            }
            Ok(Code::Done)
        }
        TokenCommand::List(arguments) => list_tokens(&arguments, ui).await,
        TokenCommand::Show(arguments) => show_token(&arguments, ui).await,
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
    match arguments.expires {
        Some(Expires::AfterMs(ms)) => set("expires_in_s", Some(Value::from(ms.div_ceil(1_000)))),
        // An API token never ends unless it is told to.
        Some(Expires::Never) => set("never_expires", arguments.pool.is_some().then(|| Value::from(true))),
        None => {}
    }
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
    set("lease_ms", arguments.lease.map(Value::from));
    set("beat_ms", arguments.beat.map(Value::from));
    set("tags", (!tags.is_empty()).then_some(Value::Object(tags)));
    let policy = arguments.tag_policy.map(|policy| match policy {
        TagPolicy::Fixed => Value::from("fixed"),
        TagPolicy::Allowed => Value::from("allowed"),
        TagPolicy::Free => Value::from("free"),
    });
    set("tag_policy", policy);
    let unreachable = arguments.on_unreachable.map(|policy| match policy {
        OnUnreachable::Wait => Value::from("wait"),
        OnUnreachable::Replace => Value::from("replace"),
    });
    set("on_unreachable", unreachable);
    set("allowed_cidrs", (!arguments.allow_cidr.is_empty()).then(|| Value::from(arguments.allow_cidr.clone())));
    set("name_pattern", text(&arguments.name_pattern));
    set("not_before", text(&arguments.not_before));
    set("uses", arguments.uses.map(|uses| if uses == 0 { Value::Null } else { Value::from(uses) }));
    Ok(Value::Object(body))
}

async fn list_tokens(arguments: &list::ServerList, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let found = list(&client, "/tokens", arguments.listing.limit()).await?;
    let columns = ["ID", "KIND", "FOR", "USES LEFT", "EXPIRES", "ONLY", "NOTE"];
    let row = |item: &Value| {
        let token: Token = shape::read(item)?;
        let (uses, only) = (uses_left(&token), terms(&token));
        let expires = match token.revoked_at {
            Some(_) => "revoked".to_owned(),
            None => token.expires_at.unwrap_or_else(|| "never".to_owned()),
        };
        let purpose = token.scopes.map_or_else(|| token.pool.unwrap_or_default(), |scopes| scopes.join(","));
        Ok(vec![token.id, token.kind, purpose, uses, expires, only, token.note])
    };
    arguments.listing.show(found, "tokens", &columns, row, ui)?;
    Ok(Code::Done)
}

fn uses_left(token: &Token) -> String {
    match (token.kind.as_str(), token.uses_left) {
        ("join", None) => "unlimited".to_owned(),
        (_, uses) => uses.map(|uses| uses.to_string()).unwrap_or_default(),
    }
}

/// What a token asks for beside its secret, in few words.
fn terms(token: &Token) -> String {
    let mut terms: Vec<String> = Vec::new();
    terms.extend(token.not_before.as_ref().map(|at| format!("after {at}")));
    terms.extend((!token.allowed_cidrs.is_empty()).then(|| format!("from {}", token.allowed_cidrs.join(","))));
    terms.extend(token.name_pattern.as_ref().map(|pattern| format!("named {pattern}")));
    terms.join("; ")
}

async fn show_token(arguments: &ShowArguments, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let raw = client.get(&format!("/tokens/{}", segment(&arguments.token))).await?;
    if arguments.json {
        ui.data(&raw.to_string());
        return Ok(Code::Done);
    }
    let token: Token = shape::read(&raw)?;
    let expires = token.expires_at.clone().unwrap_or_else(|| "never".to_owned());
    let purpose = token.scopes.as_ref().map_or_else(|| token.pool.clone().unwrap_or_default(), |it| it.join(","));
    for (name, value) in [
        ("token", token.id.clone()),
        ("kind", token.kind.clone()),
        ("for", purpose),
        ("note", token.note.clone()),
        ("uses left", uses_left(&token)),
        ("only", terms(&token)),
        ("expires", expires),
        ("revoked", token.revoked_at.clone().unwrap_or_default()),
    ] {
        if !value.is_empty() {
            ui.data(&format!("{name:<10} {value}"));
        }
    }
    let mut table = Table::new(&["AGENT", "STATE", "JOINED", "ID"]);
    for agent in &token.agents {
        let state = agent.gone.as_ref().map_or_else(|| agent.state.clone(), |why| format!("{} ({why})", agent.state));
        table.row(vec![agent.name.clone(), state, agent.joined_at.clone(), agent.id.clone()]);
    }
    if !token.agents.is_empty() {
        ui.raw(table.render().as_bytes());
    }
    if token.agents_cut {
        ui.say(&format!("the newest {} agents are shown; there are more", token.agents.len()));
    }
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
        let image = made(
            "--pool p --uses unlimited --expires never --allow-cidr 10.0.0.0/8 --allow-cidr 192.0.2.7 --name-pattern ci-* \
             --not-before 2030-01-31T08:00:00Z --tag-policy allowed --tag gpu=* --note image",
        );
        assert_eq!(
            image.unwrap(),
            json!({"kind": "join", "note": "image", "never_expires": true, "pool": "p", "tags": {"gpu": "*"},
                "tag_policy": "allowed", "allowed_cidrs": ["10.0.0.0/8", "192.0.2.7"], "name_pattern": "ci-*",
                "not_before": "2030-01-31T08:00:00Z", "uses": null})
        );
        assert!(
            humantime::parse_rfc3339(made("--pool p --not-before 2h").unwrap()["not_before"].as_str().unwrap()).is_ok()
        );
        let api = made("--scope builds:read,builds:write --pipeline p");
        assert_eq!(
            api.unwrap(),
            json!({"kind": "api", "note": "", "scopes": ["builds:read", "builds:write"], "pipeline": "p"})
        );
        for wrong in [
            "",
            "--pool p --scope admin",
            "--zone z",
            "--scope admin --queue q",
            "--pool p --tag kv",
            "--scope admin --allow-cidr ::/0",
            "--pool p --uses some",
        ] {
            assert!(made(wrong).is_err(), "{wrong}");
        }
    }
}
