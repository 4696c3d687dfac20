//! Letting go by policy, now: begun by an admin, watched by whoever began it; and what is said of what is gone.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use windlass_cache::{Roots, Store, WhyGone};
use windlass_coordinator_core::row::Scope;
use windlass_protocol::{Digest, Namespace};

use super::Ground;
use super::auth::Caller;
use super::extract::JsonBody;
use super::problem::{Kind, Problem};
use super::shape::time;
use crate::sweeper::{Collection, Outcome};

/// How to sweep.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSweep {
    /// Say what would go, and let nothing go.
    #[serde(default)]
    dry_run: bool,
}

/// A sweep of the cache, as it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheSweep)]
pub(crate) struct Shown {
    /// `none`, `running`, `done` or `failed`.
    state: &'static str,
    dry_run: bool,
    started_at: Option<String>,
    finished_at: Option<String>,
    /// Blobs that were looked at, of about how many; some are looked at twice.
    rows: u64,
    of_rows: u64,
    /// What builds need that are not over, and what tells of results that are there: blobs, as often as they are named.
    needed: u64,
    /// What went, or would: blobs, once for each namespace that saw them.
    blobs: u64,
    bytes: u64,
    /// Of those, what is stored no more.
    gone_blobs: u64,
    gone_bytes: u64,
    /// By namespace and cause, those that lost most first.
    swept: Vec<SweptShown>,
    /// There are more of them than are told.
    cut: bool,
    /// What somebody read at that moment, and what was used after it was chosen to go.
    spared: u64,
    /// What the store took on disk before, and after what is free was given back. Null until it is done.
    disk_bytes_before: u64,
    disk_bytes_after: Option<u64>,
    /// Why it failed.
    error: Option<String>,
}

/// What of one namespace went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheSwept)]
pub(crate) struct SweptShown {
    pipeline: String,
    /// Null: of trusted builds; else of whom.
    overlay: Option<String>,
    /// `size` or `age`.
    why: &'static str,
    blobs: u64,
    bytes: u64,
    gone_blobs: u64,
    gone_bytes: u64,
}

impl Shown {
    fn of(collection: &Collection) -> Self {
        let (told, cut) = collection.told();
        let all = collection.counts.swept.values();
        let sum = |of: fn(&windlass_cache::Swept) -> u64| all.clone().map(of).sum();
        let swept = told.into_iter().map(|(namespace, why, swept)| SweptShown {
            pipeline: namespace.project.clone(),
            overlay: namespace.overlay.clone(),
            why: why.name(),
            blobs: swept.blobs,
            bytes: swept.bytes,
            gone_blobs: swept.gone_blobs,
            gone_bytes: swept.gone_bytes,
        });
        let ended = collection.ended.as_ref();
        let state = match ended.map(|ended| &ended.outcome) {
            None if collection.is_running() => "running",
            None => "none",
            Some(Ok(())) => "done",
            Some(Err(_)) => "failed",
        };
        Self {
            state,
            dry_run: collection.dry,
            started_at: collection.started_at.map(time),
            finished_at: ended.map(|ended| time(ended.at)),
            rows: collection.counts.rows,
            of_rows: collection.counts.of_rows,
            needed: collection.needed,
            blobs: sum(|swept| swept.blobs),
            bytes: sum(|swept| swept.bytes),
            gone_blobs: sum(|swept| swept.gone_blobs),
            gone_bytes: sum(|swept| swept.gone_bytes),
            swept: swept.collect(),
            cut,
            spared: collection.counts.spared.pinned + collection.counts.spared.used,
            disk_bytes_before: collection.disk_bytes_before,
            disk_bytes_after: ended.map(|ended| ended.disk_bytes_after),
            error: ended.and_then(|Outcome { outcome, .. }| outcome.clone().err()),
        }
    }
}

/// Lets go now of what policies say, and gives the disk back what is free; or shows the sweep that is under way.
#[utoipa::path(
    post,
    path = "/api/v1/cache/gc",
    tag = "cache",
    operation_id = "cache_gc",
    request_body = NewSweep,
    responses((status = 200, description = "The sweep, which has begun", body = Shown)),
)]
pub(crate) async fn start(
    State(ground): State<Ground>,
    caller: Caller,
    body: JsonBody<NewSweep>,
) -> Result<Json<Shown>, Problem> {
    caller.need_everywhere(&[Scope::Admin])?;
    Ok(Json(Shown::of(&ground.sweeper.start(body.value.dry_run))))
}

/// The last sweep that somebody asked for, or the one that is under way.
#[utoipa::path(
    get,
    path = "/api/v1/cache/gc",
    tag = "cache",
    operation_id = "cache_collection",
    responses((status = 200, description = "How far it is, or how it came out", body = Shown)),
)]
pub(crate) async fn show(State(ground): State<Ground>, caller: Caller) -> Result<Json<Shown>, Problem> {
    caller.need_everywhere(&[Scope::Admin])?;
    Ok(Json(Shown::of(&ground.sweeper.collection())))
}

/// Why a blob is not there, as far as it is remembered.
pub(super) fn was_here(store: &Store, namespace: &Namespace, digest: &Digest) -> Option<String> {
    let (why, at) = store.gone(namespace, digest)?;
    let why = match why {
        WhyGone::Size => "by size",
        WhyGone::Age => "because nobody used it",
    };
    Some(format!("it was here until {} and was evicted {why}", time(at)))
}

/// A build's source is not there.
pub(super) fn source_missing(store: &Store, namespace: &Namespace, digest: &Digest) -> Problem {
    let detail = match was_here(store, namespace, digest) {
        Some(was_here) => format!("the tree {digest} is not in the cache: {was_here}; upload it again"),
        None => format!("the tree {digest} is not in the cache: upload it first"),
    };
    Problem::new(Kind::SourceMissing, detail)
}

/// Lets all of a tree stay until a build that is about to need it is there. Blocks on the disk.
pub(super) fn keep_source(store: &Store, namespace: &Namespace, digest: &Digest) -> Result<(), Problem> {
    let mut roots = Roots::seen_by(namespace);
    roots.tree(store, digest, false).map_err(|error| Problem::internal(&error))?;
    if roots.absent() == 0 {
        return Ok(());
    }
    let detail = match was_here(store, namespace, digest) {
        Some(was_here) => {
            format!("the build's files are not kept any more: {was_here}; run it again from its directory")
        }
        None => "some of the build's files are not kept any more: run it again from its directory".to_owned(),
    };
    Err(Problem::new(Kind::SourceMissing, detail))
}
