//! Caches by key, for people: listing, pinning, removing (docs/design/026, 035).

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{CacheRequest, CacheRow, Scope};
use windlass_protocol::{BuildId, Digest, JobId, Trust};

use super::Ground;
use super::auth::Caller;
use super::build::by_id;
use super::extract::{self, OfPipeline, Page, Paging, Query};
use super::problem::{Kind, Problem};
use super::shape::time;

/// What a build saved under a key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Cache {
    /// What pinning and removing name it by.
    id: String,
    pipeline: String,
    /// Null: of trusted builds, which all builds of the pipeline read; else of whom.
    overlay: Option<String>,
    key: String,
    /// Files in it.
    files: u64,
    /// Their bytes; those that several caches have alike are stored once.
    bytes: u64,
    /// It stays, whoever needs room.
    pinned: bool,
    #[schema(value_type = String)]
    manifest: Digest,
    /// The build that saved it, which may be no more.
    #[schema(value_type = String)]
    build_id: BuildId,
    #[schema(value_type = String)]
    job_id: JobId,
    created_at: String,
    /// An hour more or less.
    used_at: String,
}

impl Cache {
    fn of((number, row): (u64, CacheRow)) -> Self {
        let CacheRow { name, manifest, manifest_bytes: _, files, bytes, build, job, created_at, used_at, pinned } = row;
        Self {
            id: number.to_string(),
            pipeline: name.namespace.project,
            overlay: name.namespace.overlay,
            key: name.key,
            files,
            bytes,
            pinned,
            manifest,
            build_id: build,
            job_id: job,
            created_at: time(created_at),
            used_at: time(used_at),
        }
    }
}

/// What builds have saved under keys, newest first: of untrusted ones what the token may read the builds of. A page may have fewer
/// than its limit though more follow.
#[utoipa::path(
    get,
    path = "/api/v1/caches",
    tag = "cache",
    operation_id = "cache_list",
    params(OfPipeline),
    responses((status = 200, description = "A page", body = Page<Cache>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Query(filter): Query<OfPipeline>,
) -> Result<Json<Page<Cache>>, Problem> {
    caller.need(&[Scope::CacheRead])?;
    let OfPipeline { pipeline, cursor, limit } = filter;
    if let Some(asked) = &pipeline {
        caller.need_place(asked, None)?;
    }
    let paging = Paging { cursor, limit };
    let cursor = extract::cursor(paging.cursor.as_deref())?;
    let pipeline = pipeline.or_else(|| caller.pipeline.clone());
    let page = ground.fleet.reader.newest_caches(pipeline, cursor, paging.limit()?).await?;
    let mut items = Vec::new();
    for (number, row) in page.items {
        if is_shown(&ground, &caller, &row).await? {
            items.push(Cache::of((number, row)));
        }
    }
    Ok(Json(Page { items, next_cursor: page.next.map(|cursor| cursor.to_string()) }))
}

/// Whether the caller may know of a cache of its pipeline: of what trusted builds saved, of its own, and of those that builds
/// saved which it may read. A key says what somebody works on (I12).
async fn is_shown(ground: &Ground, caller: &Caller, row: &CacheRow) -> Result<bool, Problem> {
    let namespace = &row.name.namespace;
    if namespace.overlay.is_none() || *namespace == caller.namespace(&namespace.project) {
        return Ok(true);
    }
    if !caller.has(Scope::BuildsRead) {
        return Ok(false);
    }
    // Of a build that is no more nobody knows the branch.
    Ok(caller.branch.is_none() || by_id(ground, caller, row.build).await?.is_some())
}

/// A cache that the caller may change: of its pipeline, one that it may know of, and what trusted builds read only if it may make
/// such builds.
async fn find(ground: &Ground, caller: &Caller, id: &str) -> Result<CacheRow, Problem> {
    caller.need(&[Scope::CacheWrite])?;
    let number: u64 = extract::id("cache", id)?;
    let absent = || Problem::not_found("cache", number);
    let row = ground.fleet.reader.cache(number).await?.ok_or_else(absent)?;
    let namespace = &row.name.namespace;
    let foreign = caller.pipeline.as_ref().is_some_and(|only| *only != namespace.project);
    if foreign || !is_shown(ground, caller, &row).await? {
        return Err(absent());
    }
    if namespace.trust() == Trust::Trusted && !caller.is_trusted() {
        let detail = "trusted builds read the cache: this needs a token with the scope `builds:trusted`";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    Ok(row)
}

async fn request(ground: &Ground, caller: &Caller, request: CacheRequest) -> Result<StatusCode, Problem> {
    ground.fleet.desk.request(caller.actor(), Request::Cache(Box::new(request))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a cache stay, whoever needs room. Of a pipeline's caches half can be pinned, and none of untrusted builds.
#[utoipa::path(
    put,
    path = "/api/v1/caches/{id}/pin",
    tag = "cache",
    operation_id = "cache_pin",
    params(("id" = String, Path, description = "A cache's id")),
    responses((status = 204, description = "It stays")),
)]
pub(crate) async fn pin(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let name = find(&ground, &caller, &id).await?.name;
    request(&ground, &caller, CacheRequest::Pin { name, pinned: true }).await
}

/// Lets a cache go again when its time is over.
#[utoipa::path(
    delete,
    path = "/api/v1/caches/{id}/pin",
    tag = "cache",
    operation_id = "cache_unpin",
    params(("id" = String, Path, description = "A cache's id")),
    responses((status = 204, description = "It is as any other")),
)]
pub(crate) async fn unpin(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let name = find(&ground, &caller, &id).await?.name;
    request(&ground, &caller, CacheRequest::Pin { name, pinned: false }).await
}

/// Removes a cache, a pinned one too: the next build that saves under its key makes another.
#[utoipa::path(
    delete,
    path = "/api/v1/caches/{id}",
    tag = "cache",
    operation_id = "cache_remove",
    params(("id" = String, Path, description = "A cache's id")),
    responses((status = 204, description = "It is gone; its bytes follow within hours")),
)]
pub(crate) async fn remove(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let CacheRow { name, manifest, .. } = find(&ground, &caller, &id).await?;
    request(&ground, &caller, CacheRequest::Remove { name, manifest }).await
}
