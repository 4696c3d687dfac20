//! Making builds: a pipeline is found, compiled and narrowed, its source looked for, and the core asked.

mod draft;
mod graph;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{PipelineRow, Scope};
use windlass_protocol::host::now;
use windlass_protocol::limits::{IDEMPOTENCY_KEY_MAX_BYTES, NUMBER_TRIES_MAX, REGISTRATION_TRIES_MAX};
use windlass_protocol::{BuildId, Digest, Trust};

use self::draft::{Draft, Remembered, again, draft, pipeline_of};
pub(crate) use self::draft::{check_name, check_repository, variables};
pub(crate) use self::graph::graph_of;
use self::source::Found;
use super::Ground;
use super::auth::Caller;
use super::build::{find, shown};
use super::extract::JsonBody;
use super::problem::{Kind, Problem};
use super::shape::Build;
use crate::compiling;
use crate::definitions::changed;
use crate::desk::DeskError;
use crate::facts::says_number;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says why a build that was read from a repository is not trusted.
const UNTRUSTED: HeaderName = HeaderName::from_static("windlass-untrusted");

/// What a client asks to be built.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBuild {
    /// Its pipeline's name; a repository's name where it is left out.
    pipeline: Option<String>,
    /// The pipeline's text; without it, it is read from the source: the tree, or the repository's commit.
    definition: Option<String>,
    /// The file's name, for diagnostics.
    definition_path: Option<String>,
    /// `{"tree"}` or `{"repository","commit","branch"}`; without it the workspace is empty.
    #[schema(value_type = Option<Object>)]
    origin: Option<Origin>,
    #[serde(default)]
    branch: String,
    #[serde(default)]
    commit: String,
    tag: Option<String>,
    #[serde(default)]
    message: String,
    /// Names and string values; part of every job's environment.
    #[serde(default)]
    #[schema(value_type = Object)]
    env: Map<String, Value>,
    #[serde(default)]
    meta_data: BTreeMap<String, String>,
    /// Keep failed jobs' workspaces.
    #[serde(default)]
    keep_workspace: bool,
    /// Run every step, whatever earlier results there are.
    #[serde(default)]
    no_reuse: bool,
    /// `cli` or `api`.
    #[serde(default)]
    source: Caused,
    /// Only some of the steps.
    steps: Option<Steps>,
}

/// Where the files come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "origin: {\"tree\": \"b3:…\"} or {\"repository\", \"commit\", \"branch\"}"
)]
pub(crate) enum Origin {
    Tree { tree: Digest },
    Git { repository: String, commit: String, branch: Option<String> },
}

/// What made the build.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Caused {
    Cli,
    #[default]
    Api,
}

/// Some of a pipeline's steps.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Steps {
    /// Keys, or labels of steps without one.
    keys: Vec<String>,
    /// And what they depend on.
    #[serde(default)]
    with_dependencies: bool,
}

/// Makes a build.
#[utoipa::path(
    post,
    path = "/api/v1/builds",
    tag = "builds",
    operation_id = "submit_submit",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body make one build")),
    request_body = NewBuild,
    responses(
        (
            status = 201,
            description = "Made",
            body = Build,
            headers(("Windlass-Untrusted" = String, description = "Why what was read from a repository is not trusted; \
                absent where it is, and where the client sent the definition"))
        ),
        (status = 200, description = "The idempotency key had made it before", body = Build)
    ),
)]
pub(crate) async fn submit(
    State(ground): State<Ground>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody<NewBuild>,
) -> Result<Response, Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let idempotency = idempotency(&headers, &caller, &body.bytes)?;
    let pipeline = pipeline_of(&body.value, &caller)?;
    let plan = |registered| {
        let draft = draft(body.value.clone(), pipeline.clone(), registered, &caller, idempotency.clone())?;
        caller.need_place(&draft.pipeline, Some(&draft.branch))?;
        Ok(draft)
    };
    make(&ground, &caller, &pipeline, plan).await
}

/// Makes a build again, of the same pipeline's text and source.
#[utoipa::path(
    post,
    path = "/api/v1/builds/{id}/rebuild",
    tag = "builds",
    operation_id = "submit_rebuild",
    params(
        ("id" = String, Path, description = "A build's id, or `latest`"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body make one build")
    ),
    responses((status = 201, description = "Made", body = Build)),
)]
pub(crate) async fn rebuild(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    let old = rows.build;
    let text = ground.fleet.reader.definition(old.definition).await?;
    let text = text.ok_or_else(|| Problem::new(Kind::Conflict, "the build's pipeline is not kept any more"))?;
    // A build never gains trust by being made again: what an untrusted one runs, somebody untrusted wrote.
    let namespace = match old.namespace.trust() {
        Trust::Untrusted if caller.is_trusted() => old.namespace.clone(),
        Trust::Untrusted | Trust::Trusted => caller.namespace(&old.pipeline),
    };
    let idempotency = idempotency(&headers, &caller, format!("rebuild {}", old.id).as_bytes())?;
    let plan = |registered| Ok(again(&caller, &old, &text, &namespace, registered, idempotency.clone()));
    make(&ground, &caller, &old.pipeline, plan).await
}

/// The client's key with the digest of what it asks for.
fn idempotency(headers: &HeaderMap, caller: &Caller, body: &[u8]) -> Result<Option<Remembered>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_MAX_BYTES);
    let bad = || Problem::invalid(format!("Idempotency-Key: 1 to {IDEMPOTENCY_KEY_MAX_BYTES} ASCII characters"));
    Ok(Some(((caller.token, key.ok_or_else(bad)?.to_owned()), Digest::of(body))))
}

/// Makes a build by the pipeline's registration, and again by another one where it was changed meanwhile: whom a build is
/// trusted by, and what it runs, is decided by the registration that it is made under (docs/design/027).
async fn make(
    ground: &Ground,
    caller: &Caller,
    pipeline: &str,
    plan: impl Fn(Option<PipelineRow>) -> Result<Draft, Problem>,
) -> Result<Response, Problem> {
    let mut registered = ground.fleet.views.pipeline(pipeline);
    for _ in 0..REGISTRATION_TRIES_MAX {
        match make_by(ground, caller, plan(registered)?).await? {
            Some(response) => return Ok(response),
            // As the core has it, which may be ahead of what is shown.
            None => {
                let name = pipeline.to_owned();
                registered = ground.fleet.desk.look(move |core| core.pipeline(&name).cloned()).await?;
            }
        }
    }
    Err(Problem::new(Kind::Unavailable, "the pipeline's registration is being changed; try again"))
}

/// Finds pipeline and source, compiles, asks the core, and shows what came of it; `None` where the pipeline is registered
/// otherwise by now.
///
/// A pipeline that says its build's number is compiled with the one that is next, and submitted for that one: where
/// another submit of the pipeline was first, it is compiled again (docs/design/011).
async fn make_by(ground: &Ground, caller: &Caller, draft: Draft) -> Result<Option<Response>, Problem> {
    let mut draft = draft;
    if draft.definition.is_none() {
        draft.definition = source::kept(ground, draft.registered.as_ref()).await?;
    }
    if draft.definition.as_ref().is_some_and(|definition| changed::is_asked(&definition.text)) {
        draft.changed = source::changed_in(ground, &draft).await;
    }
    let (draft, why) = source::from_repository(ground, caller, draft).await?;
    let store = ground.fleet.store.clone();
    let found = blocking(move || source::resolve(&store, draft)).await?;
    let (id, found) = (super::id::make(|ids| ids.build(now().wall))?, Arc::new(found));
    for _ in 0..NUMBER_TRIES_MAX {
        let number = next_number(ground, &found).await?;
        let (creator, text) = (caller.actor(), Arc::clone(&found));
        let graph = compiling::in_turn(move || graph::compile(&text, &creator.name, id, number));
        let graph = graph.await.map_err(|error| Problem::internal(&error))??;
        let submit = Box::new(found.submit(id, number, graph, caller));
        let (id, existing) = match ground.fleet.desk.request(caller.actor(), Request::Submit(submit)).await {
            Ok(Reply::Submitted { build, existing }) => (build, existing),
            Ok(
                Reply::Done
                | Reply::Secrets(_)
                | Reply::Cache(_)
                | Reply::Token { .. }
                | Reply::Joined { .. }
                | Reply::Pinned { .. }
                | Reply::Unpinned { .. }
                | Reply::Drained { .. },
            ) => {
                return Err(Problem::internal(&"a submit was answered with something else"));
            }
            Err(DeskError::Rejected(Rejected::NumberTaken { .. })) => continue,
            Err(DeskError::Rejected(Rejected::PipelineChanged(_))) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut response = made(ground, id, existing).await?;
        if let Some(why) = why.and_then(|why| HeaderValue::try_from(why).ok()) {
            response.headers_mut().insert(UNTRUSTED, why);
        }
        return Ok(Some(response));
    }
    Err(Problem::new(Kind::Unavailable, "too many builds of this pipeline are submitted at once; try again"))
}

async fn made(ground: &Ground, id: BuildId, existing: bool) -> Result<Response, Problem> {
    let build = shown(ground, id).await?;
    let status = if existing { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = (status, Json(build)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/builds/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::internal(&error))?
}

/// The number to compile for; `None` where the pipeline does not say it.
async fn next_number(ground: &Ground, found: &Found) -> Result<Option<u64>, Problem> {
    if !says_number(&found.definition.text) {
        return Ok(None);
    }
    let pipeline = found.draft.pipeline.clone();
    Ok(Some(ground.fleet.desk.look(move |core| core.next_number(&pipeline)).await?))
}
