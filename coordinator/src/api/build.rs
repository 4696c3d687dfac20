//! Builds: showing, listing, cancelling, running again what failed.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use utoipa::IntoParams;
use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildRows, BuildState, Scope};
use windlass_coordinator_store::{BuildFilter, Seq};
use windlass_protocol::job::Source;
use windlass_protocol::{BuildId, JobId};

use super::Ground;
use super::auth::Caller;
use super::blob::blocking;
use super::extract::{self, Page, Query};
use super::gc;
use super::problem::{Kind, Problem};
use super::shape::Build;
use crate::desk::DeskError;

/// Which builds to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Of this pipeline.
    pipeline: Option<String>,
    /// In this state. `blocked`: those that wait at a gate, whatever state they are shown in; each is also listed under
    /// the state that it would be in without its gate (`running` or `scheduled`).
    state: Option<String>,
    /// Of this branch.
    branch: Option<String>,
    /// Where the last page ended.
    cursor: Option<String>,
    /// 1 to 500; 50 if it is left out.
    limit: Option<usize>,
}

impl Filter {
    /// For the store, within what the token may see.
    fn resolve(&self, caller: &Caller) -> Result<BuildFilter, Problem> {
        let (state, blocked) = match self.state.as_deref() {
            Some("blocked") => (None, true),
            Some(name) => (Some(state(name)?), false),
            None => (None, false),
        };
        let (pipeline, branch) = (self.pipeline.as_deref(), self.branch.as_deref());
        if let Some(pipeline) = pipeline.or(caller.pipeline.as_deref()) {
            caller.need_place(pipeline, branch)?;
        }
        if let (Some(only), Some(asked)) = (caller.branch.as_deref(), branch)
            && only != asked
        {
            return Err(Problem::new(Kind::Forbidden, format!("the token is only for branch `{only}`")));
        }
        Ok(BuildFilter {
            pipeline: caller.pipeline.clone().or_else(|| self.pipeline.clone()),
            state,
            blocked,
            branch: caller.branch.clone().or_else(|| self.branch.clone()),
        })
    }
}

fn state(name: &str) -> Result<BuildState, Problem> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).map_err(|_| {
        Problem::invalid(
            "state: one of creating scheduled running failing passed failed canceling canceled skipped not_run blocked",
        )
    })
}

async fn build_id(ground: &Ground, caller: &Caller, text: &str) -> Result<BuildId, Problem> {
    if text != "latest" {
        return extract::id("build", text);
    }
    let filter = Filter::default().resolve(caller)?;
    let newest = ground.fleet.reader.builds(filter, None, 1).await?;
    newest.items.first().map(|build| build.id).ok_or_else(|| Problem::not_found("build", text))
}

/// A build that the caller may see, by id or as `latest`.
pub(crate) async fn find(ground: &Ground, caller: &Caller, text: &str) -> Result<(Seq, BuildRows), Problem> {
    let id = build_id(ground, caller, text).await?;
    by_id(ground, caller, id).await?.ok_or_else(|| Problem::not_found("build", text))
}

/// A build that the caller may see; any other is as if it were not there.
pub(crate) async fn by_id(ground: &Ground, caller: &Caller, id: BuildId) -> Result<Option<(Seq, BuildRows)>, Problem> {
    let found = ground.fleet.reader.build(id).await?;
    Ok(found.filter(|(_, rows)| caller.sees(&rows.build)))
}

/// A build that the caller may see, with these of its jobs and what they depend on, and nothing else: what it costs does not
/// grow with the build.
pub(crate) async fn some(
    ground: &Ground,
    caller: &Caller,
    id: BuildId,
    jobs: Vec<JobId>,
) -> Result<Option<BuildRows>, Problem> {
    let found = ground.fleet.reader.some_jobs(id, jobs).await?;
    Ok(found.filter(|rows| caller.sees(&rows.build)))
}

/// The id of a build that the caller may change.
async fn named(ground: &Ground, caller: &Caller, text: &str) -> Result<BuildId, Problem> {
    let absent = || Problem::not_found("build", text);
    let id = build_id(ground, caller, text).await?;
    some(ground, caller, id, Vec::new()).await?.map(|rows| rows.build.id).ok_or_else(absent)
}

/// A build as it is now.
pub(crate) async fn shown(ground: &Ground, id: BuildId) -> Result<Build, Problem> {
    let found = ground.fleet.reader.build(id).await?;
    let (_, rows) = found.ok_or_else(|| Problem::not_found("build", id))?;
    Ok(Build::whole(&rows, &ground.url))
}

/// Builds, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/builds",
    tag = "builds",
    operation_id = "build_list",
    params(Filter),
    responses((status = 200, description = "A page", body = Page<Build>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<Build>>, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let limit = extract::limit(filter.limit)?;
    let cursor = extract::cursor(filter.cursor.as_deref())?;
    let filter = filter.resolve(&caller)?;
    let page = ground.fleet.reader.builds(filter, cursor, limit).await?;
    let items = page.items.iter().map(|row| Build::bare(row, &ground.url)).collect();
    Ok(Json(Page { items, next_cursor: page.next.map(|cursor| cursor.to_string()) }))
}

/// A build with its jobs.
#[utoipa::path(
    get,
    path = "/api/v1/builds/{id}",
    tag = "builds",
    operation_id = "build_show",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    responses((status = 200, description = "As it is now", body = Build)),
)]
pub(crate) async fn show(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Build>, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    Ok(Json(Build::whole(&rows, &ground.url)))
}

/// A build by its pipeline and number.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{name}/builds/{number}",
    tag = "builds",
    operation_id = "build_show_by_number",
    params(("name" = String, Path, description = "The pipeline"), ("number" = u64, Path, description = "From 1")),
    responses((status = 200, description = "As it is now", body = Build)),
)]
pub(crate) async fn show_by_number(
    State(ground): State<Ground>,
    caller: Caller,
    Path((pipeline, number)): Path<(String, String)>,
) -> Result<Json<Build>, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let absent = || Problem::not_found("build", format!("{pipeline}/{number}"));
    let number: u64 = number.parse().map_err(|_| absent())?;
    let id = ground.fleet.reader.build_by_number(&pipeline, number).await?.ok_or_else(absent)?;
    let (_, rows) = by_id(&ground, &caller, id).await?.ok_or_else(absent)?;
    Ok(Json(Build::whole(&rows, &ground.url)))
}

/// Ends a build: nothing of it starts any more.
#[utoipa::path(
    post,
    path = "/api/v1/builds/{id}/cancel",
    tag = "builds",
    operation_id = "build_cancel",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    responses((status = 200, description = "As it is now", body = Build)),
)]
pub(crate) async fn cancel(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Build>, Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let (build, actor) = (named(&ground, &caller, &id).await?, caller.actor());
    let detail = format!("canceled by {}", actor.name);
    ground.fleet.desk.request(actor, Request::CancelBuild { build, detail }).await?;
    Ok(Json(shown(&ground, build).await?))
}

/// Runs again what failed, in the same build.
#[utoipa::path(
    post,
    path = "/api/v1/builds/{id}/retry",
    tag = "builds",
    operation_id = "build_retry",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    responses((status = 200, description = "As it is now", body = Build)),
)]
pub(crate) async fn retry(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Build>, Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let build = named(&ground, &caller, &id).await?;
    with_rows(&ground, &caller, build, |rows| Request::RetryBuild { build, rows }).await?;
    Ok(Json(shown(&ground, build).await?))
}

/// Asks the core for something that needs a build's rows where the build has left memory.
pub(crate) async fn with_rows(
    ground: &Ground,
    caller: &Caller,
    build: BuildId,
    request: impl Fn(Option<Box<BuildRows>>) -> Request,
) -> Result<(), Problem> {
    let desk = &ground.fleet.desk;
    match desk.request(caller.actor(), request(None)).await {
        Err(DeskError::Rejected(Rejected::NotInMemory(_) | Rejected::JobNotInMemory(_))) => {
            let rows = ground.fleet.reader.stored_build(build).await?;
            let rows = rows.ok_or_else(|| Problem::not_found("build", build))?;
            if let Source::Tree { digest } = rows.build.origin {
                // Nobody needed it since the build was over.
                let (store, namespace) = (ground.fleet.store.clone(), rows.build.namespace.clone());
                blocking(move || gc::keep_source(&store, &namespace, &digest)).await??;
            }
            desk.request(caller.actor(), request(Some(Box::new(rows)))).await?;
        }
        answered => drop(answered?),
    }
    Ok(())
}
