//! Agents and pools: what they are, what they do, draining and revoking them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use windlass_coordinator_core::effect::AgentState;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{PoolRow, Scope, TagPolicy, Usage};
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
    /// Agents that have joined and are not gone.
    agents: usize,
    created_at: String,
}

/// How an agent is drained.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Drain {
    /// What still runs after so long is canceled; without it, it may take its time.
    deadline_ms: Option<u64>,
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
        last_seen_at: live.last_seen.map(time),
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
    let deadline_ms = body.value.deadline_ms;
    change(&ground, &caller, &id, |agent| Request::DrainAgents { agents: vec![agent], deadline_ms }).await
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
            created_at: time(row.created_at),
        };
        (key, pool)
    });
    Page::of(pools.collect(), &paging).map(Json)
}
