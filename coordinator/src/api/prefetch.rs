//! Bringing what a build needs to agents ahead of its jobs: begun by one request, which it ends with (docs/design/047).

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::interval;
use utoipa::ToSchema;
use windlass_coordinator_core::row::Scope;
use windlass_protocol::limits::{AHEAD_AGENTS_MAX, BROUGHT_EVERY_MS, NAME_MAX_BYTES};
use windlass_protocol::message::BroughtSoFar;
use windlass_protocol::{AgentId, BuildId, Namespace};

use super::Ground;
use super::auth::Caller;
use super::build::find;
use super::extract::JsonBody;
use super::problem::{Kind, Problem};
use crate::fleet::{Order, Standing};
use crate::needs::{Needs, Unknown};

/// To which agents. Who is named by all that is given is meant; without anything all are that run jobs of the build's trust.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NewPrefetch {
    /// Of this zone.
    zone: Option<String>,
    /// Of this pool.
    pool: Option<String>,
    /// Of these names.
    agents: Vec<String>,
}

/// How far it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Prefetch {
    /// `running` or `done`.
    state: &'static str,
    #[schema(value_type = String)]
    build_id: BuildId,
    /// Blobs that the build needs, each once.
    blobs: u64,
    /// Their bytes.
    bytes: u64,
    /// Blobs that it needs and that are not kept any more.
    gone_blobs: u64,
    /// What else people should know.
    notes: Vec<String>,
    agents: Vec<PrefetchAgent>,
    /// There are more agents than are told to bring it.
    cut: bool,
}

/// An agent, and how far it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct PrefetchAgent {
    #[schema(value_type = String)]
    id: AgentId,
    name: String,
    pool: String,
    zone: Option<String>,
    /// `brings`, `done` or `not`.
    state: &'static str,
    /// Blobs that it has by now.
    blobs: u64,
    /// Their bytes.
    bytes: u64,
    /// Blobs and chunks that came for it; what it had already did not come.
    came: u64,
    /// Blobs that nobody gave it.
    absent: u64,
    /// Why it brings nothing, or nothing more.
    why: Option<String>,
}

impl PrefetchAgent {
    fn note(&mut self, so_far: BroughtSoFar) {
        let BroughtSoFar { blobs, bytes, absent, came } = so_far;
        (self.blobs, self.bytes, self.absent, self.came) = (blobs, bytes, absent, came);
    }

    fn end(&mut self, ended: Result<BroughtSoFar, String>) {
        match ended {
            Ok(so_far) => {
                self.note(so_far);
                self.state = "done";
            }
            Err(why) => (self.state, self.why) = ("not", Some(why)),
        }
    }
}

impl From<Unknown> for Problem {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Read(error) => error.into(),
            Unknown::Fault(error) => windlass_cache::Error::from(error).into(),
            Unknown::TooMuch { .. } => Self::invalid(unknown.to_string()),
            Unknown::BadTree(..) => Self::new(Kind::SourceMissing, unknown.to_string()),
            Unknown::Stopping => Self::new(Kind::Unavailable, unknown.to_string()),
        }
    }
}

/// Has agents bring what a build needs into their caches: source, inputs of steps, artifacts and saved directories. It ends with
/// the request's connection.
#[utoipa::path(
    post,
    path = "/api/v1/builds/{id}/prefetch",
    tag = "cache",
    operation_id = "cache_prefetch",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    request_body = NewPrefetch,
    responses((
        status = 200, description = "How far it is, a JSON object in each line, until one whose state is `done`",
        body = Prefetch, content_type = "application/x-ndjson"
    )),
)]
pub(crate) async fn start(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody<NewPrefetch>,
) -> Result<Response, Problem> {
    caller.need(&[Scope::CacheWrite, Scope::BuildsWrite])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    caller.need_trust_of(&rows.build)?;
    check(&body.value)?;
    let turn = Arc::clone(&ground.ahead).try_acquire_owned();
    let turn = turn.map_err(|_| Problem::new(Kind::Unavailable, "others bring what builds need; come again"))?;
    let namespace = rows.build.namespace.clone();
    let needs = Needs::of(&rows, &ground.fleet.reader, &ground.fleet.store).await?;
    let order = Arc::new(needs.order(&namespace));
    let (agents, cut) = chosen(&ground, &body.value, &namespace);
    let Needs { count: blobs, bytes, gone: gone_blobs, mut notes, .. } = needs;
    if agents.is_empty() {
        notes.push("no agent that runs jobs of the build's trust is connected there".to_owned());
    }
    tracing::info!(build = %rows.build.id, blobs, bytes, agents = agents.len(), "bringing_ahead");
    let shown = Prefetch { state: "running", build_id: rows.build.id, blobs, bytes, gone_blobs, notes, agents, cut };
    let (lines, out) = mpsc::channel(1);
    tokio::spawn(run(ground, order, shown, lines, turn));
    let lines = stream::unfold(out, |mut out: mpsc::Receiver<Bytes>| async {
        let line = out.recv().await?;
        Some((Ok::<_, Infallible>(line), out))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn check(asked: &NewPrefetch) -> Result<(), Problem> {
    let names = asked.zone.iter().chain(&asked.pool).chain(&asked.agents);
    let short = names.clone().all(|name| !name.is_empty() && name.len() <= NAME_MAX_BYTES);
    if !short || asked.agents.len() > AHEAD_AGENTS_MAX {
        return Err(Problem::invalid(format!(
            "a name has 1 to {NAME_MAX_BYTES} bytes, and at most {AHEAD_AGENTS_MAX} agents are named"
        )));
    }
    Ok(())
}

/// The agents that are meant, and whether there are more. Those that cannot be told are among them only where they are named:
/// of a zone whoever is there brings it.
fn chosen(ground: &Ground, asked: &NewPrefetch, namespace: &Namespace) -> (Vec<PrefetchAgent>, bool) {
    let named: BTreeSet<&str> = asked.agents.iter().map(String::as_str).collect();
    let mut chosen = Vec::new();
    for view in ground.fleet.views.agents() {
        let row = view.row;
        let zone = ground.fleet.views.pool(&row.pool).map(|pool| pool.zone);
        let meant = asked.pool.as_ref().is_none_or(|pool| *pool == row.pool)
            && asked.zone.as_ref().is_none_or(|wanted| Some(wanted) == zone.as_ref())
            && (named.is_empty() || named.contains(row.name.as_str()));
        let standing = ground.board.standing(row.id, namespace);
        let why = match standing {
            Standing::Ready => None,
            Standing::Away => Some("it is not connected"),
            Standing::Old => Some("its version of windlass cannot be told to"),
            Standing::OtherTrust => Some("it runs jobs of another trust"),
        };
        let tells = match standing {
            Standing::Ready | Standing::Old => true,
            Standing::Away | Standing::OtherTrust => !named.is_empty(),
        };
        if meant && tells {
            let state = if why.is_none() { "brings" } else { "not" };
            let why = why.map(str::to_owned);
            let (id, name, pool) = (row.id, row.name, row.pool);
            chosen.push(PrefetchAgent { id, name, pool, zone, state, blobs: 0, bytes: 0, came: 0, absent: 0, why });
        }
    }
    let known: BTreeSet<String> = chosen.iter().map(|agent| agent.name.clone()).collect();
    for name in named.into_iter().filter(|name| !known.contains(*name)) {
        let (id, name, why) =
            (AgentId::from_bytes([0; 16]), name.to_owned(), Some("there is no such agent".to_owned()));
        let (pool, zone, state) = (String::new(), None, "not");
        chosen.push(PrefetchAgent { id, name, pool, zone, state, blobs: 0, bytes: 0, came: 0, absent: 0, why });
    }
    let cut = chosen.len() > AHEAD_AGENTS_MAX;
    chosen.truncate(AHEAD_AGENTS_MAX);
    (chosen, cut)
}

/// Sees to it until all agents are done, or nobody reads of it any more.
async fn run(
    ground: Ground,
    order: Arc<Order>,
    mut shown: Prefetch,
    lines: mpsc::Sender<Bytes>,
    _turn: OwnedSemaphorePermit,
) {
    let (news, mut heard) = mpsc::channel(AHEAD_AGENTS_MAX);
    // Whoever is dropped ends its order.
    let mut going = JoinSet::new();
    for (at, agent) in shown.agents.iter().enumerate().filter(|(_, agent)| agent.state == "brings") {
        let (ground, order, news, agent) = (ground.clone(), Arc::clone(&order), news.clone(), agent.id);
        going.spawn(async move {
            // Of news that nobody has read yet the next ones say more.
            let told = |so_far| {
                let _unread = news.try_send((at, so_far));
            };
            (at, ground.board.bring(&ground.fleet, agent, &order, told).await)
        });
    }
    let mut tick = interval(Duration::from_millis(BROUGHT_EVERY_MS));
    while !going.is_empty() {
        tokio::select! {
            Some((at, so_far)) = heard.recv() => {
                if let Some(agent) = shown.agents.get_mut(at).filter(|agent| agent.state == "brings") {
                    agent.note(so_far);
                }
            }
            Some(ended) = going.join_next() => match ended {
                Ok((at, ended)) => {
                    if let Some(agent) = shown.agents.get_mut(at) {
                        agent.end(ended);
                    }
                }
                Err(error) => tracing::error!(%error, "order_broke_off"),
            },
            _ = tick.tick() => {
                if let Some(line) = line_of(&shown) && lines.send(line).await.is_err() {
                    return;
                }
            }
            () = lines.closed() => return,
        }
    }
    shown.state = "done";
    if let Some(line) = line_of(&shown) {
        // Whoever has gone needs no end.
        let _ = lines.send(line).await;
    }
}

fn line_of(shown: &Prefetch) -> Option<Bytes> {
    let mut line = serde_json::to_vec(shown).ok()?;
    line.push(b'\n');
    Some(line.into())
}
