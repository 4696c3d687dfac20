//! Tokens of both kinds: made once with their secret, listed without, taken back.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use windlass_coordinator_core::effect::AgentState;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{
    Actor, AgentRow, NewToken, OnUnreachable, PoolRow, Scope, TagPolicy, TokenGrant, TokenRow,
};
use windlass_coordinator_core::terms::{JoinTerms, cidr};
use windlass_protocol::host::now;
use windlass_protocol::identity::{ApiToken, IdentityError, JoinToken, secret_hash};
use windlass_protocol::limits::{
    AGENTS_OF_TOKEN_MAX, BEAT_MS, CIDRS_PER_TOKEN_MAX, DETAIL_MAX_BYTES, JOIN_TOKEN_MS, LEASE_DEFAULT_MS,
    NAME_MAX_BYTES,
};
use windlass_protocol::{AgentId, TokenId, Trust, WallMs};

use super::Ground;
use super::auth::{Caller, scope_name};
use super::extract::{self, JsonBody, Page, Paging, Query};
use super::problem::{Kind, Problem};
use super::shape::{moment, time};

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Token {
    #[schema(value_type = String)]
    id: TokenId,
    /// `api` or `join`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    pipeline: Option<String>,
    branch: Option<String>,
    note: String,
    #[schema(value_type = Object)]
    created_by: Actor,
    created_at: String,
    expires_at: Option<String>,
    /// Null where there is no limit.
    uses_left: Option<u32>,
    /// Agents that it has admitted; null for an API token.
    uses: Option<u32>,
    /// It admits nobody before this.
    not_before: Option<String>,
    /// Networks that agents may join from; empty is any.
    allowed_cidrs: Vec<String>,
    /// How its agents may be called: `*` is any characters, `?` one.
    name_pattern: Option<String>,
    /// Coarsely: a crash of the coordinator may forget some minutes of it.
    last_used_at: Option<String>,
    revoked_at: Option<String>,
}

/// A new token; the only time that its secret is told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Created {
    #[serde(flatten)]
    shape: Token,
    /// The whole text, secret and all.
    token: String,
    /// What its maker should know, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'static str>,
}

/// A token with the agents that it admitted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Shown {
    #[serde(flatten)]
    shape: Token,
    /// Newest first, those that are gone among them.
    agents: Vec<Admitted>,
    /// There are more of them than are shown.
    agents_cut: bool,
}

/// An agent that a token admitted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Admitted {
    #[schema(value_type = String)]
    id: AgentId,
    name: String,
    pool: String,
    #[schema(value_type = String)]
    state: AgentState,
    joined_at: String,
    revoked_at: Option<String>,
    /// Why it is no more, such as `replaced`.
    gone: Option<String>,
}

/// What kind of token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum NewTokenBody {
    /// Lets a client use the API.
    Api(NewApi),
    /// Lets agents enrol in a pool.
    Join(NewJoin),
}

/// A new API token.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewApi {
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Scope>,
    pipeline: Option<String>,
    branch: Option<String>,
    /// Never, where it is left out.
    expires_in_s: Option<u64>,
    #[serde(default)]
    note: String,
}

/// A new join token, and its pool if there is none of that name.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewJoin {
    pool: String,
    zone: Option<String>,
    queues: Option<Vec<String>>,
    #[schema(value_type = Option<String>)]
    trust: Option<Trust>,
    #[schema(value_type = Option<Object>)]
    tags: Option<Map<String, Value>>,
    /// `free` (the tags are every agent's, and agents may claim more), `allowed` (agents have those of the tags that
    /// they claim, where `*` allows any value) or `fixed` (the tags are every agent's, and no others).
    tag_policy: Option<Policy>,
    /// Null is any number.
    #[serde(default = "one")]
    uses: Option<u32>,
    /// A day after it begins, where it is left out.
    expires_in_s: Option<u64>,
    /// It never ends; only so, and not beside `expires_in_s`.
    #[serde(default)]
    never_expires: bool,
    /// It admits nobody before this (RFC 3339).
    not_before: Option<String>,
    /// Networks that agents may join from, as the coordinator sees their addresses, such as `10.0.0.0/8`.
    #[serde(default)]
    allowed_cidrs: Vec<String>,
    /// How its agents may be called: `*` is any characters, `?` one.
    name_pattern: Option<String>,
    lease_ms: Option<u64>,
    beat_ms: Option<u64>,
    /// What becomes of the pool's jobs while its zone cannot be reached: `wait` (they are held for the coordinator's
    /// `zone_hold_seconds`; the default) or `replace` (their agents are lost with their leases).
    #[schema(value_type = Option<String>)]
    on_unreachable: Option<OnUnreachable>,
    #[serde(default)]
    note: String,
}

/// Which tags an agent of a pool may claim.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Policy {
    Fixed,
    Allowed,
    Free,
}

/// Takes a token back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Revoke {
    /// And revokes the agents that it admitted.
    and_agents: bool,
}

#[expect(clippy::unnecessary_wraps, reason = "the default of a field where null means something else")]
const fn one() -> Option<u32> {
    Some(1)
}

fn shape(row: TokenRow, last_used: Option<WallMs>) -> Token {
    let mut token = Token {
        id: row.id,
        kind: "api",
        scopes: None,
        pool: None,
        pipeline: None,
        branch: None,
        note: row.note,
        created_by: row.created_by,
        created_at: time(row.created_at),
        expires_at: row.expires_at.map(time),
        uses_left: None,
        uses: None,
        not_before: None,
        allowed_cidrs: Vec::new(),
        name_pattern: None,
        last_used_at: last_used.max(row.last_used_at).map(time),
        revoked_at: row.revoked_at.map(time),
    };
    match row.grant {
        TokenGrant::Api { scopes, pipeline, branch } => {
            token.scopes = Some(scopes.into_iter().map(scope_name).collect());
            (token.pipeline, token.branch) = (pipeline, branch);
        }
        TokenGrant::Join { pool, max_uses, used, terms } => {
            (token.kind, token.pool) = ("join", Some(pool));
            (token.uses_left, token.uses) = (max_uses.map(|max| max.saturating_sub(used)), Some(used));
            token.not_before = terms.not_before.map(time);
            token.allowed_cidrs = terms.allowed_cidrs.iter().map(ToString::to_string).collect();
            token.name_pattern = terms.name_pattern.map(|pattern| pattern.to_string());
        }
    }
    token
}

/// Tokens, newest first; who may not make API tokens sees join tokens only.
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    tag = "tokens",
    operation_id = "token_list",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<Token>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Token>>, Problem> {
    caller.need_everywhere(&[Scope::Admin, Scope::AgentsWrite])?;
    let all = caller.has(Scope::Admin);
    let tokens = ground.fleet.views.tokens().into_iter();
    let tokens = tokens.filter(|row| all || matches!(row.grant, TokenGrant::Join { .. }));
    let shapes = tokens.map(|row| (row.id.to_string(), shape(row.clone(), ground.last_use.of(row.id))));
    Page::of(shapes.collect(), &paging).map(Json)
}

/// One token, with every agent that it admitted.
#[utoipa::path(
    get,
    path = "/api/v1/tokens/{id}",
    tag = "tokens",
    operation_id = "token_show",
    params(("id" = String, Path, description = "A token's public id")),
    responses((status = 200, description = "As it is now", body = Shown)),
)]
pub(crate) async fn show(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Shown>, Problem> {
    caller.need_everywhere(&[Scope::Admin, Scope::AgentsWrite])?;
    let id: TokenId = extract::id("token", &id)?;
    let row = ground.fleet.views.token(id);
    let seen = |row: &TokenRow| caller.has(Scope::Admin) || matches!(row.grant, TokenGrant::Join { .. });
    let row = row.filter(seen).ok_or_else(|| Problem::not_found("token", id))?;
    let mut rows = ground.fleet.reader.agents_of(id, AGENTS_OF_TOKEN_MAX).await?;
    let agents_cut = rows.len() >= AGENTS_OF_TOKEN_MAX;
    let agents = rows.drain(..).map(|row| admitted(&ground, row)).collect();
    Ok(Json(Shown { shape: shape(row, ground.last_use.of(id)), agents, agents_cut }))
}

/// The token that asks, whatever it may do.
#[utoipa::path(
    get,
    path = "/api/v1/tokens/current",
    tag = "tokens",
    operation_id = "token_current",
    responses((status = 200, description = "It, without its secret", body = Token)),
)]
pub(crate) async fn current(State(ground): State<Ground>, caller: Caller) -> Result<Json<Token>, Problem> {
    let row = ground.fleet.views.token(caller.token).ok_or_else(|| Problem::not_found("token", caller.token))?;
    Ok(Json(shape(row, ground.last_use.of(caller.token))))
}

fn admitted(ground: &Ground, row: AgentRow) -> Admitted {
    let live = ground.fleet.views.agent(row.id).filter(|view| view.row.revoked_at.is_none());
    Admitted {
        id: row.id,
        name: row.name,
        pool: row.pool,
        state: live.map_or(AgentState::Gone, |view| view.state),
        joined_at: time(row.joined_at),
        revoked_at: row.revoked_at.map(time),
        gone: row.gone,
    }
}

/// Makes a token.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "tokens",
    operation_id = "token_create",
    request_body = NewTokenBody,
    responses((status = 201, description = "Made; its secret is told this once", body = Created)),
)]
pub(crate) async fn create(
    State(ground): State<Ground>,
    caller: Caller,
    body: JsonBody<NewTokenBody>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    let (id, at) = (new_id()?, now().wall);
    let (new, text) = match body.value {
        NewTokenBody::Api(new) => api(&caller, new, id, at)?,
        NewTokenBody::Join(new) => join(&ground, &caller, new, id, at)?,
    };
    let is_new_pool = new.pool.as_ref().is_some_and(|pool| ground.fleet.views.pool(&pool.name).is_none());
    let warnings = warnings(&new, is_new_pool);
    ground.fleet.desk.create_token(caller.actor(), new).await?;
    let row = ground.fleet.views.token(id).ok_or_else(|| Problem::internal(&"a new token is not there"))?;
    Ok((StatusCode::CREATED, Json(Created { shape: shape(row, None), token: text, warnings })))
}

/// What is allowed, and worth a second thought (F2).
fn warnings(new: &NewToken, is_new_pool: bool) -> Vec<&'static str> {
    let TokenGrant::Join { .. } = &new.grant else { return Vec::new() };
    let mut warnings = Vec::new();
    if new.expires_at.is_none() {
        warnings.push("it never expires: whoever finds it can bring an agent into the pool until it is revoked");
    }
    if is_new_pool && new.pool.as_ref().is_some_and(|pool| pool.trust == Trust::Untrusted) {
        warnings.push(
            "the new pool is for untrusted builds: those of protected branches and of trusted tokens never run there \
             (give it the trust `trusted` for them)",
        );
    }
    warnings
}

/// A new token's public id.
pub(crate) fn new_id() -> Result<TokenId, Problem> {
    super::id::make(|ids| ids.token(now().wall))
}

fn random(error: IdentityError) -> Problem {
    Problem::internal(&error)
}

fn check_note(note: &str) -> Result<(), Problem> {
    if note.len() > NAME_MAX_BYTES || note.chars().any(char::is_control) {
        return Err(Problem::invalid(format!("note: at most {NAME_MAX_BYTES} bytes, without control characters")));
    }
    Ok(())
}

fn end(at: WallMs, seconds: u64) -> WallMs {
    at.plus_ms(seconds.saturating_mul(1_000))
}

fn api(caller: &Caller, new: NewApi, id: TokenId, at: WallMs) -> Result<(NewToken, String), Problem> {
    caller.need_everywhere(&[Scope::Admin])?;
    check_note(&new.note)?;
    if new.scopes.is_empty() {
        return Err(Problem::invalid("scopes: name at least one"));
    }
    if [&new.pipeline, &new.branch].into_iter().flatten().any(|name| name.is_empty() || name.len() > NAME_MAX_BYTES) {
        return Err(Problem::invalid(format!("pipeline, branch: 1 to {NAME_MAX_BYTES} bytes")));
    }
    let token = ApiToken::generate(id).map_err(random)?;
    let mut scopes = new.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let grant = TokenGrant::Api { scopes, pipeline: new.pipeline, branch: new.branch };
    let expires_at = new.expires_in_s.map(|seconds| end(at, seconds));
    let secret_hash = secret_hash(&token.secret);
    Ok((NewToken { id, secret_hash, grant, pool: None, note: new.note, expires_at }, token.expose()))
}

fn join(
    ground: &Ground,
    caller: &Caller,
    new: NewJoin,
    id: TokenId,
    at: WallMs,
) -> Result<(NewToken, String), Problem> {
    caller.need_everywhere(&[Scope::AgentsWrite, Scope::PoolsWrite])?;
    check_note(&new.note)?;
    let held = ground.fleet.views.pool(&new.pool);
    // Making a pool decides on trust and zones.
    caller.need_everywhere(if held.is_some() { &[Scope::AgentsWrite] } else { &[Scope::PoolsWrite] })?;
    if new.uses == Some(0) {
        return Err(Problem::invalid("uses: at least 1, or null for any number"));
    }
    let pool = pool(&new, held, at)?;
    let token = JoinToken::generate(id, ground.fleet.authority.fingerprint()).map_err(random)?;
    let terms = terms(&new)?;
    let begin = terms.not_before.map_or(at, |begin| begin.max(at));
    let expires_at = match (new.never_expires, new.expires_in_s) {
        (true, None) => None,
        (false, Some(seconds)) => Some(end(at, seconds)),
        (false, None) => Some(begin.plus_ms(JOIN_TOKEN_MS)),
        (true, Some(_)) => return Err(Problem::invalid("never_expires and expires_in_s contradict each other")),
    };
    if terms.not_before.zip(expires_at).is_some_and(|(begin, end)| begin >= end) {
        return Err(Problem::invalid("not_before: before the token's end"));
    }
    let grant = TokenGrant::Join { pool: new.pool, max_uses: new.uses, used: 0, terms };
    let secret_hash = secret_hash(&token.secret);
    Ok((NewToken { id, secret_hash, grant, pool: Some(pool), note: new.note, expires_at }, token.expose()))
}

/// What the token asks of an agent beside its secret.
fn terms(new: &NewJoin) -> Result<JoinTerms, Problem> {
    if new.allowed_cidrs.len() > CIDRS_PER_TOKEN_MAX {
        return Err(Problem::invalid(format!("allowed_cidrs: at most {CIDRS_PER_TOKEN_MAX}")));
    }
    let cidrs = new.allowed_cidrs.iter().map(|text| cidr(text));
    let pattern = new.name_pattern.as_deref().map(str::parse).transpose();
    Ok(JoinTerms {
        not_before: new.not_before.as_deref().map(|text| moment("not_before", text)).transpose()?,
        allowed_cidrs: cidrs.collect::<Result<_, _>>().map_err(|e| Problem::invalid(format!("allowed_cidrs: {e}")))?,
        name_pattern: pattern.map_err(|e: String| Problem::invalid(format!("name_pattern: {e}")))?,
    })
}

/// The pool as the client describes it; what it leaves out is as the pool has it.
fn pool(new: &NewJoin, held: Option<PoolRow>, at: WallMs) -> Result<PoolRow, Problem> {
    let tags = new.tags.as_ref().map(tags).transpose()?;
    let (zone, queues) = match (&held, &new.zone, &new.queues) {
        (_, Some(zone), Some(queues)) => (zone.clone(), queues.clone()),
        (Some(held), zone, queues) => {
            (zone.clone().unwrap_or(held.zone.clone()), queues.clone().unwrap_or(held.queues.clone()))
        }
        (None, _, _) => {
            let detail = format!("there is no pool `{}`: give a zone and queues, and it is made", new.pool);
            return Err(Problem::invalid(detail));
        }
    };
    let named = |name: &String| !name.is_empty() && !name.chars().any(char::is_control);
    if !named(&new.pool) || !named(&zone) || queues.is_empty() || !queues.iter().all(named) {
        return Err(Problem::invalid("pool, zone, queues: names without control characters, and at least one queue"));
    }
    let fresh = PoolRow {
        name: new.pool.clone(),
        zone: zone.clone(),
        queues: queues.clone(),
        trust: Trust::Untrusted,
        tags: TagPolicy::Free(Vec::new()),
        lease_ms: LEASE_DEFAULT_MS,
        beat_ms: BEAT_MS,
        paused: false,
        on_unreachable: OnUnreachable::Wait,
        created_at: at,
    };
    let base = held.unwrap_or(fresh);
    let tags = tags.unwrap_or_else(|| base.tags.tags().to_vec());
    let policy = new.tag_policy.unwrap_or(match base.tags {
        TagPolicy::Fixed(_) => Policy::Fixed,
        TagPolicy::Allowed(_) => Policy::Allowed,
        TagPolicy::Free(_) => Policy::Free,
    });
    let lease_ms = new.lease_ms.unwrap_or(base.lease_ms);
    Ok(PoolRow {
        zone,
        queues,
        trust: new.trust.unwrap_or(base.trust),
        tags: match policy {
            Policy::Fixed => TagPolicy::Fixed(tags),
            Policy::Allowed => TagPolicy::Allowed(tags),
            Policy::Free => TagPolicy::Free(tags),
        },
        lease_ms,
        on_unreachable: new.on_unreachable.unwrap_or(base.on_unreachable),
        // A short lease has short beats.
        beat_ms: new.beat_ms.unwrap_or_else(|| base.beat_ms.min(lease_ms / 4)),
        ..base
    })
}

fn tags(tags: &Map<String, Value>) -> Result<Vec<(String, String)>, Problem> {
    let tag = |(name, value): (&String, &Value)| match value {
        Value::String(value) if name.len() + value.len() <= DETAIL_MAX_BYTES && !name.is_empty() => {
            Ok((name.clone(), value.clone()))
        }
        _ => Err(Problem::invalid("tags: names with strings")),
    };
    tags.iter().map(tag).collect()
}

/// Takes a token back.
#[utoipa::path(
    post,
    path = "/api/v1/tokens/{id}/revoke",
    tag = "tokens",
    operation_id = "token_revoke",
    params(("id" = String, Path, description = "A token's public id")),
    request_body = Revoke,
    responses((status = 200, description = "As it is now", body = Token)),
)]
pub(crate) async fn revoke(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody<Revoke>,
) -> Result<Json<Token>, Problem> {
    caller.need_everywhere(&[Scope::Admin, Scope::AgentsWrite])?;
    let id: TokenId = extract::id("token", &id)?;
    let row = ground.fleet.views.token(id).ok_or_else(|| Problem::not_found("token", id))?;
    if matches!(row.grant, TokenGrant::Api { .. }) && !caller.has(Scope::Admin) {
        return Err(Problem::new(Kind::Forbidden, "only a token with the scope `admin` revokes API tokens"));
    }
    let request = Request::RevokeToken { token: id, and_agents: body.value.and_agents };
    ground.fleet.desk.request(caller.actor(), request).await?;
    let row = ground.fleet.views.token(id).ok_or_else(|| Problem::not_found("token", id))?;
    Ok(Json(shape(row, ground.last_use.of(id))))
}
