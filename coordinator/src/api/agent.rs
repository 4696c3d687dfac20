//! Agents and pools: what they are, what they do, draining and revoking them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use windlass_coordinator_core::effect::{AgentState, Reply};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{OnDeadline, OnUnreachable, PoolRow, Scope, TagPolicy, Usage};
use windlass_coordinator_core::selector::{DrainMany, Selector};
use windlass_protocol::message::Health;
use windlass_protocol::{AgentId, AttemptId, Trust, WallMs};

use super::Ground;
use super::auth::Caller;
use super::extract::{self, JsonBody, Page, Paging, Query};
use super::problem::Problem;
use super::shape::time;
use crate::views::AgentView;

/// An agent. What is volatile is as the coordinator last heard.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Agent {
    #[schema(value_type = String)]
    id: AgentId,
    name: String,
    pool: String,
    zone: Option<String>,
    queues: Vec<String>,
    #[schema(value_type = Option<String>)]
    trust: Option<Trust>,
    #[schema(value_type = String)]
    state: AgentState,
    #[schema(value_type = Object)]
    tags: serde_json::Map<String, Value>,
    version: Option<String>,
    slots: u32,
    slots_used: u32,
    cpus: f64,
    memory_bytes: u64,
    disk_free_bytes: u64,
    /// It takes no jobs for want of disk space, or of files that can be made; `quarantined` while so.
    disk_full: bool,
    /// It takes no jobs because processes of an earlier one do not end; `quarantined` while so.
    cannot_kill: bool,
    /// Ids of the attempts that it holds.
    #[schema(value_type = Vec<String>)]
    running: Vec<AttemptId>,
    /// When its drain's deadline is, if it drains and has one.
    drain_until: Option<String>,
    /// What becomes then of what it still runs.
    #[schema(value_type = Option<String>)]
    on_deadline: Option<OnDeadline>,
    last_seen_at: Option<String>,
    joined_at: String,
    revoked_at: Option<String>,
}

/// A pool: like agents in one zone and one trust class.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pool {
    name: String,
    zone: String,
    queues: Vec<String>,
    #[schema(value_type = String)]
    trust: Trust,
    /// `fixed`, `allowed` or `free`.
    tag_policy: &'static str,
    #[schema(value_type = Object)]
    tags: serde_json::Map<String, Value>,
    lease_ms: u64,
    beat_ms: u64,
    paused: bool,
    /// What becomes of its jobs while its zone cannot be reached: `wait` or `replace`.
    #[schema(value_type = String)]
    on_unreachable: OnUnreachable,
    /// Agents that have joined and are not gone.
    agents: usize,
    created_at: String,
}

/// How an agent is drained.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Drain {
    /// In all, graces included; 0 is now. Without it, what runs may take its time.
    deadline_ms: Option<u64>,
    /// What becomes then of what still runs: `requeue` (it is ended and run again elsewhere, but for steps that are
    /// `exclusive` or of a concurrency group, and have started; the default), `cancel` (it is ended, and only what says
    /// so itself is run again: `interruptible`, `retry`) or `wait` (it takes its time).
    #[schema(value_type = Option<String>)]
    on_deadline: Option<OnDeadline>,
}

/// How many agents are drained in one commit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainManyBody {
    #[serde(default)]
    selector: AgentSelector,
    /// As for one agent.
    deadline_ms: Option<u64>,
    /// As for one agent.
    #[schema(value_type = Option<String>)]
    on_deadline: Option<OnDeadline>,
    /// So many of the selected agents may be unavailable, those included that are so already. The others go on taking
    /// work, and are answered as `waiting`: ask again when some are back.
    max_unavailable: Option<u32>,
}

/// Which agents are meant: those to which all of this applies. It has to say something.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AgentSelector {
    pool: Option<String>,
    zone: Option<String>,
    /// A pattern: `*` is any characters, `?` one.
    name: Option<String>,
    /// Each of these.
    #[schema(value_type = Object)]
    tags: BTreeMap<String, String>,
    /// Of the agents' program.
    version: Option<String>,
    /// They joined at least so long ago.
    min_age_ms: Option<u64>,
}

/// What a drain of many has done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DrainedAgents {
    /// Drained now.
    drained: Vec<Agent>,
    /// Meant too, and still taking work, since too many are unavailable.
    waiting: Vec<Agent>,
}

/// What only the core knows of an agent.
#[derive(Debug, Clone, Default)]
struct Live {
    usage: Usage,
    health: Health,
    version: Option<String>,
    last_seen: Option<WallMs>,
    running: Vec<AttemptId>,
}

/// Of all agents; empty while the core is loaded again.
async fn live(ground: &Ground) -> BTreeMap<AgentId, Live> {
    let look = ground.fleet.desk.look(|core| {
        let agents = core.agents().map(|agent| {
            let live = Live {
                usage: agent.usage,
                health: agent.health,
                version: agent.version.map(str::to_owned),
                last_seen: agent.last_seen,
                running: agent.running,
            };
            (agent.id, live)
        });
        agents.collect()
    });
    look.await.unwrap_or_default()
}

fn tags(tags: &[(String, String)]) -> serde_json::Map<String, Value> {
    tags.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect()
}

fn shape(view: &AgentView, live: Live, pool: Option<&PoolRow>) -> Agent {
    let row = &view.row;
    let cpu_millis = u32::try_from(live.usage.capacity.cpu_millis).unwrap_or(u32::MAX);
    Agent {
        id: row.id,
        name: row.name.clone(),
        pool: row.pool.clone(),
        zone: pool.map(|pool| pool.zone.clone()),
        queues: pool.map(|pool| pool.queues.clone()).unwrap_or_default(),
        trust: pool.map(|pool| pool.trust),
        state: if row.revoked_at.is_some() { AgentState::Gone } else { view.state },
        tags: tags(&row.tags),
        version: live.version,
        slots: live.usage.slots,
        slots_used: live.usage.slots_used,
        cpus: f64::from(cpu_millis) / 1_000.0,
        memory_bytes: live.usage.capacity.memory_bytes,
        disk_free_bytes: live.health.disk_free_bytes,
        disk_full: live.health.disk_full,
        cannot_kill: live.health.cannot_kill,
        running: live.running,
        drain_until: row.drain_until.map(time),
        on_deadline: row.drain_until.map(|_| row.on_deadline),
        last_seen_at: live.last_seen.or(row.last_seen_at).map(time),
        joined_at: time(row.joined_at),
        revoked_at: row.revoked_at.map(time),
    }
}

async fn shown(ground: &Ground, id: AgentId) -> Result<Agent, Problem> {
    let view = ground.fleet.views.agent(id).ok_or_else(|| Problem::not_found("agent", id))?;
    let live = live(ground).await.remove(&id).unwrap_or_default();
    let pool = ground.fleet.views.pool(&view.row.pool);
    Ok(shape(&view, live, pool.as_ref()))
}

/// Agents that are not gone, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/agents",
    tag = "agents",
    operation_id = "agent_list",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<Agent>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Agent>>, Problem> {
    caller.need_everywhere(&[Scope::AgentsRead])?;
    let mut live = live(&ground).await;
    let pools: BTreeMap<_, _> = ground.fleet.views.pools().into_iter().map(|pool| (pool.name.clone(), pool)).collect();
    let agents = ground.fleet.views.agents().into_iter().map(|view| {
        let live = live.remove(&view.row.id).unwrap_or_default();
        (view.row.id.to_string(), shape(&view, live, pools.get(&view.row.pool)))
    });
    Page::of(agents.collect(), &paging).map(Json)
}

/// One agent.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}",
    tag = "agents",
    operation_id = "agent_show",
    params(("id" = String, Path, description = "An agent's id")),
    responses((status = 200, description = "As it is now", body = Agent)),
)]
pub(crate) async fn show(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Agent>, Problem> {
    caller.need_everywhere(&[Scope::AgentsRead])?;
    shown(&ground, extract::id("agent", &id)?).await.map(Json)
}

/// Lets an agent finish what it has and take nothing more.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{id}/drain",
    tag = "agents",
    operation_id = "agent_drain",
    params(("id" = String, Path, description = "An agent's id")),
    request_body = Drain,
    responses((status = 200, description = "As it is now", body = Agent)),
)]
pub(crate) async fn drain(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody<Drain>,
) -> Result<Json<Agent>, Problem> {
    let Drain { deadline_ms, on_deadline } = body.value;
    let on_deadline = deadline_rule(deadline_ms, on_deadline)?;
    let request = |agent| Request::DrainAgents { agents: vec![agent], deadline_ms, on_deadline };
    change(&ground, &caller, &id, request).await
}

/// What becomes of what runs at a deadline; without one, there is nothing to say of it.
fn deadline_rule(deadline_ms: Option<u64>, rule: Option<OnDeadline>) -> Result<OnDeadline, Problem> {
    match (deadline_ms, rule) {
        (None, Some(_)) => Err(Problem::invalid("on_deadline: give deadline_ms too, or leave it out")),
        (_, rule) => Ok(rule.unwrap_or_default()),
    }
}

/// Lets all selected agents finish what they have and take nothing more, in one commit: work does not hop from one to the
/// next.
#[utoipa::path(
    post,
    path = "/api/v1/agents/drain",
    tag = "agents",
    operation_id = "agent_drain_many",
    request_body = DrainManyBody,
    responses((status = 200, description = "Who drains, and who waits for its turn", body = DrainedAgents)),
)]
pub(crate) async fn drain_many(
    State(ground): State<Ground>,
    caller: Caller,
    body: JsonBody<DrainManyBody>,
) -> Result<Json<DrainedAgents>, Problem> {
    caller.need_everywhere(&[Scope::AgentsWrite])?;
    let DrainManyBody { selector, deadline_ms, on_deadline, max_unavailable } = body.value;
    let on_deadline = deadline_rule(deadline_ms, on_deadline)?;
    let name = selector.name.as_deref().map(str::parse).transpose();
    let selector = Selector {
        pool: selector.pool,
        zone: selector.zone,
        name: name.map_err(|e: String| Problem::invalid(format!("selector.name: {e}")))?,
        tags: selector.tags.into_iter().collect(),
        version: selector.version,
        min_age_ms: selector.min_age_ms,
    };
    let order = DrainMany { selector, deadline_ms, on_deadline, max_unavailable };
    let Reply::Drained { drained, waiting } =
        ground.fleet.desk.request(caller.actor(), Request::DrainMany(Box::new(order))).await?
    else {
        return Err(Problem::internal(&"a drain of many is answered otherwise"));
    };
    let mut live = live(&ground).await;
    let mut shapes = |ids: Vec<AgentId>| -> Vec<Agent> {
        let views = ids.into_iter().filter_map(|id| ground.fleet.views.agent(id));
        views
            .map(|view| {
                let live = live.remove(&view.row.id).unwrap_or_default();
                shape(&view, live, ground.fleet.views.pool(&view.row.pool).as_ref())
            })
            .collect()
    };
    Ok(Json(DrainedAgents { drained: shapes(drained), waiting: shapes(waiting) }))
}

/// Lets a draining agent take work again.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{id}/resume",
    tag = "agents",
    operation_id = "agent_resume",
    params(("id" = String, Path, description = "An agent's id")),
    responses((status = 200, description = "As it is now", body = Agent)),
)]
pub(crate) async fn resume(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Agent>, Problem> {
    change(&ground, &caller, &id, |agent| Request::ResumeAgent { agent }).await
}

/// Makes an agent's key worth nothing, at once.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{id}/revoke",
    tag = "agents",
    operation_id = "agent_revoke",
    params(("id" = String, Path, description = "An agent's id")),
    responses((status = 200, description = "As it is now", body = Agent)),
)]
pub(crate) async fn revoke(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Agent>, Problem> {
    change(&ground, &caller, &id, |agent| Request::RevokeAgent { agent }).await
}

async fn change(
    ground: &Ground,
    caller: &Caller,
    text: &str,
    request: impl FnOnce(AgentId) -> Request,
) -> Result<Json<Agent>, Problem> {
    caller.need_everywhere(&[Scope::AgentsWrite])?;
    let id = extract::id("agent", text)?;
    ground.fleet.desk.request(caller.actor(), request(id)).await?;
    shown(ground, id).await.map(Json)
}

/// Pools, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/pools",
    tag = "agents",
    operation_id = "agent_pools",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<Pool>)),
)]
pub(crate) async fn pools(
    State(ground): State<Ground>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Pool>>, Problem> {
    caller.need_everywhere(&[Scope::AgentsRead])?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for agent in ground.fleet.views.agents() {
        *counts.entry(agent.row.pool).or_default() += 1;
    }
    let pools = ground.fleet.views.pools().into_iter().map(|row| {
        let tag_policy = match &row.tags {
            TagPolicy::Fixed(_) => "fixed",
            TagPolicy::Allowed(_) => "allowed",
            TagPolicy::Free(_) => "free",
        };
        let key = format!("{:016}-{}", row.created_at.0, row.name);
        let pool = Pool {
            tags: tags(row.tags.tags()),
            agents: counts.get(&row.name).copied().unwrap_or(0),
            name: row.name,
            zone: row.zone,
            queues: row.queues,
            trust: row.trust,
            tag_policy,
            lease_ms: row.lease_ms,
            beat_ms: row.beat_ms,
            paused: row.paused,
            on_unreachable: row.on_unreachable,
            created_at: time(row.created_at),
        };
        (key, pool)
    });
    Page::of(pools.collect(), &paging).map(Json)
}
