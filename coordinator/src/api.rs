//! The HTTP API: what clients of `/api/v1` speak.
//!
//! | module | owns |
//! | --- | --- |
//! | `auth` | who asks, and what they may do |
//! | `problem` | every error as problem+json |
//! | `id` | ids that are made here |
//! | `extract` | queries, JSON bodies and pages |
//! | `shape` | what builds, jobs and attempts look like |
//! | `submit`, `definition` | making builds, and where their pipelines come from |
//! | `pipeline`, `schedule` | pipelines by name, and when they build by themselves |
//! | `meta_data`, `annotation` | strings that jobs hand to later ones, and words for people |
//! | `upload` | steps that a running job adds |
//! | `build`, `job` | showing, listing, cancelling, running again |
//! | `event`, `log` | live streams of builds and logs |
//! | `notification` | what others were told of a build |
//! | `agent`, `token`, `audit` | the fleet, who may enter, who did what |
//! | `artifact`, `upload_artifact` | files of jobs |
//! | `secret` | what jobs may know and nobody may see |
//! | `gc` | letting go by policy, now |
//! | `laptop` | what a laptop asks of its fleet's results |
//! | `reuse`, `replay` | why a job ended with an earlier result, and its log |
//! | `verify` | the check of every stored byte |
//! | `blob`, `resumable` | bytes by digest, and large ones in as many requests as it takes |
//! | `oidc` | what verifiers of jobs' tokens read |
//! | `metric` | what operators count |
//! | `openapi` | the document that describes all of this |

#![allow(unused_qualifications, reason = "what utoipa derives and expands to has them")]

mod agent;
mod annotation;
mod artifact;
mod audit;
mod auth;
mod blob;
mod build;
mod cache;
mod cache_stats;
mod definition;
mod event;
mod extract;
mod gc;
mod id;
mod job;
mod laptop;
mod log;
mod meta_data;
pub mod metric;
mod notification;
mod oidc;
mod openapi;
mod pin;
mod pipeline;
mod prefetch;
mod problem;
mod range;
mod replay;
mod resumable;
mod reuse;
mod schedule;
mod secret;
mod shape;
mod submit;
mod token;
mod upload;
mod upload_artifact;
mod verify;
mod weighed;

use std::sync::Arc;

use axum::routing::{delete, get, patch, post, put};
use axum::{Router, middleware};
use tokio::sync::Semaphore;
use windlass_protocol::limits::{AHEAD_AT_ONCE, HTTP_UPLOADS_MAX, HTTP_UPLOADS_UNTRUSTED_MAX};

use self::metric::Metrics;
pub(crate) use self::shape::time;
use crate::config::CachePolicies;
use crate::definitions::Definitions;
use crate::fleet::{self, Switchboard};
use crate::keying::Engine;
use crate::last_use::LastUse;
use crate::oidc::Issuer;
use crate::room::Room;
use crate::sweeper::Sweeper;
use crate::verifier::Verifier;

/// What the API stands on.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Desk, views, builds, logs, blobs, certificates.
    pub fleet: fleet::Ground,
    /// Agents' connections.
    pub board: Switchboard,
    /// Where clients reach this coordinator.
    pub url: String,
    /// What is counted.
    pub metrics: Metrics,
    /// Who vouches for jobs.
    pub issuer: Arc<Issuer>,
    /// Pipelines out of repositories.
    pub definitions: Definitions,
    /// Whether a client may name a repository that no pipeline is registered for.
    pub git_unregistered: bool,
    /// What finds out keys of steps, where anything does.
    pub engine: Option<Engine>,
    pub(crate) last_use: LastUse,
    pub(crate) verifier: Verifier,
    pub(crate) sweeper: Sweeper,
    uploads: Room,
    /// Those who have agents bring blobs ahead.
    ahead: Arc<Semaphore>,
}

impl Ground {
    /// Puts it together.
    #[must_use]
    pub fn new(
        fleet: fleet::Ground,
        board: Switchboard,
        url: String,
        metrics: Metrics,
        definitions: Definitions,
        git_unregistered: bool,
        issuer: Arc<Issuer>,
    ) -> Self {
        let (uploads, verifier) =
            (Room::new(HTTP_UPLOADS_MAX, HTTP_UPLOADS_UNTRUSTED_MAX), Verifier::new(fleet.store.clone()));
        let sweeper =
            Sweeper::new(fleet.store.clone(), fleet.desk.clone(), fleet.reader.clone(), CachePolicies::default());
        Self {
            fleet,
            board,
            url,
            metrics,
            definitions,
            git_unregistered,
            issuer,
            engine: None,
            last_use: LastUse::default(),
            verifier,
            sweeper,
            uploads,
            ahead: Arc::new(Semaphore::new(AHEAD_AT_ONCE)),
        }
    }

    /// With what an operator says of what the cache lets go.
    #[must_use]
    pub fn with_policies(mut self, policies: CachePolicies) -> Self {
        let fleet::Ground { store, desk, reader, .. } = &self.fleet;
        self.sweeper = Sweeper::new(store.clone(), desk.clone(), reader.clone(), policies);
        self
    }
}

/// All routes.
pub fn router(ground: Ground) -> Router {
    let api = Router::new()
        .route("/builds", get(build::list).post(submit::submit))
        .route("/builds/{id}", get(build::show))
        .route("/builds/{id}/cancel", post(build::cancel))
        .route("/builds/{id}/retry", post(build::retry))
        .route("/builds/{id}/rebuild", post(submit::rebuild))
        .route("/builds/{id}/events", get(event::stream))
        .route("/builds/{id}/prefetch", post(prefetch::start))
        .route("/builds/{id}/pin", get(pin::show).put(pin::put).delete(pin::delete))
        .route("/builds/{id}/annotations", get(annotation::list))
        .route("/builds/{id}/notifications", get(notification::list))
        .route("/builds/{id}/artifacts", get(artifact::list).put(upload_artifact::put))
        .route("/artifacts/{id}", get(artifact::read))
        .route("/artifacts/{id}/info", get(artifact::show))
        .route("/builds/{id}/meta-data", get(meta_data::list).put(meta_data::set))
        .route("/builds/{id}/meta-data/{*key}", get(meta_data::show))
        .route("/pipelines", get(pipeline::list).post(pipeline::create))
        .route("/pipelines/{name}", get(pipeline::show).patch(pipeline::update))
        .route("/pipelines/{name}/schedules", get(schedule::list).post(schedule::add))
        .route("/pipelines/{name}/schedules/{id}", delete(schedule::remove))
        .route("/pipelines/{name}/builds/{number}", get(build::show_by_number))
        .route("/jobs/{id}/retry", post(job::retry))
        .route("/jobs/{id}/cancel", post(job::cancel))
        .route("/jobs/{id}/unblock", post(job::unblock))
        .route("/jobs/{id}/why", get(job::why))
        .route("/jobs/{id}/reuse", get(reuse::explain))
        .route("/reuse/terms", get(laptop::terms))
        .route("/reuse/lookup", post(laptop::lookup))
        .route("/reuse/images", post(laptop::image))
        .route("/reuse/results/{key}/files/{hex}", get(laptop::file))
        .route("/reuse/results/{key}/log", get(laptop::log))
        .route("/attempts/{id}/log", get(log::read))
        .route("/attempts/{id}/pipeline", post(upload::pipeline))
        .route("/attempts/{id}/log/stream", get(log::stream))
        .route("/agents", get(agent::list))
        .route("/agents/{id}", get(agent::show))
        .route("/agents/drain", post(agent::drain_many))
        .route("/agents/{id}/drain", post(agent::drain))
        .route("/agents/{id}/resume", post(agent::resume))
        .route("/agents/{id}/revoke", post(agent::revoke))
        .route("/pools", get(agent::pools))
        .route("/tokens", get(token::list).post(token::create))
        .route("/tokens/current", get(token::current))
        .route("/tokens/{id}", get(token::show))
        .route("/tokens/{id}/revoke", post(token::revoke))
        .route("/secrets", get(secret::list).post(secret::set))
        .route("/secrets/{key}", delete(secret::remove))
        .route("/audit", get(audit::list))
        .route("/blobs/b3/{hex}", get(blob::get).head(blob::head).put(blob::put))
        .route("/blobs/missing", post(blob::missing))
        .route("/blobs/pack", post(blob::pack))
        .route("/uploads", post(resumable::create))
        .route("/uploads/{id}", patch(resumable::append).head(resumable::head).delete(resumable::cancel))
        .merge(cache_routes());
    Router::new()
        .nest("/api/v1", api)
        .route("/healthz", get(metric::healthy))
        .route("/readyz", get(metric::ready))
        .route("/metrics", get(metric::metrics))
        .route("/.well-known/openid-configuration", get(oidc::configuration))
        .route("/.well-known/jwks", get(oidc::jwks))
        .route("/openapi.json", get(openapi::document))
        .fallback(nothing)
        .layer(middleware::from_fn(problem::finish))
        .layer(middleware::from_fn_with_state(ground.clone(), metric::count))
        .with_state(ground)
}

/// What of the cache stays and goes, and what it comes to.
fn cache_routes() -> Router<Ground> {
    Router::new()
        .route("/cache/stats", get(cache_stats::show))
        .route("/pins", get(pin::list))
        .route("/caches", get(cache::list))
        .route("/caches/{id}", delete(cache::remove))
        .route("/caches/{id}/pin", put(cache::pin).delete(cache::unpin))
        .route("/cache/gc", get(gc::show).post(gc::start))
        .route("/cache/verify", get(verify::show).post(verify::start))
}

async fn nothing() -> problem::Problem {
    problem::Problem::new(
        problem::Kind::NotFound,
        "no such path; the API begins with /api/v1, and /openapi.json describes it",
    )
}

#[cfg(test)]
pub(crate) mod tests;
