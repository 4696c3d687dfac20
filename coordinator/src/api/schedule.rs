//! Schedules of registered pipelines: listing, making, taking away.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Actor, Fired, NewSchedule, ScheduleRow};
use windlass_coordinator_core::trigger::confined;
use windlass_protocol::host::now;
use windlass_protocol::{BuildId, ScheduleId};

use super::Ground;
use super::auth::Caller;
use super::extract::{self, JsonBody, Page, Paging, Query};
use super::pipeline::{LOOK, find, may_write};
use super::problem::Problem;
use super::shape::{CauseShape, time};
use super::submit::variables;

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Schedule {
    #[schema(value_type = String)]
    id: ScheduleId,
    pipeline: String,
    /// Five fields, or one of `@hourly @daily @weekly @monthly @yearly`.
    cron: String,
    /// The IANA zone that they are meant in.
    timezone: String,
    /// Null: the pipeline's default branch.
    branch: Option<String>,
    commit: String,
    message: String,
    env: BTreeMap<String, String>,
    #[schema(value_type = Object)]
    created_by: Actor,
    created_at: String,
    /// Null: never again.
    next_at: Option<String>,
    /// What came of the last time; null before the first.
    last: Option<Last>,
}

/// What came of one of a schedule's times.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Last {
    /// The schedule's time; the build may have been made later.
    at: String,
    #[schema(value_type = String)]
    build_id: BuildId,
    /// Null: it could not be made.
    number: Option<u64>,
    /// Why it could not be made.
    cause: Option<CauseShape>,
}

/// A schedule to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewScheduleBody {
    cron: String,
    /// `UTC` where it is left out.
    #[serde(default = "utc")]
    timezone: String,
    branch: Option<String>,
    /// `HEAD` where it is left out.
    commit: Option<String>,
    message: Option<String>,
    /// Names and string values.
    #[serde(default)]
    #[schema(value_type = Object)]
    env: Map<String, Value>,
}

fn utc() -> String {
    "UTC".to_owned()
}

impl Schedule {
    fn of(row: ScheduleRow) -> Self {
        Self {
            id: row.id,
            pipeline: row.pipeline,
            cron: row.cron,
            timezone: row.timezone,
            branch: row.branch,
            commit: row.commit,
            message: row.message,
            env: row.env.into_iter().collect(),
            created_by: row.created_by,
            created_at: time(row.created_at),
            next_at: row.next_at.map(time),
            last: row.last.map(Last::of),
        }
    }
}

impl Last {
    fn of(fired: Fired) -> Self {
        let cause = fired.cause.as_ref().map(Into::into);
        Self { at: time(fired.at), build_id: fired.build, number: fired.number, cause }
    }
}

/// A pipeline's schedules, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{name}/schedules",
    tag = "pipelines",
    operation_id = "schedule_list",
    params(("name" = String, Path, description = "The pipeline"), Paging),
    responses((status = 200, description = "A page", body = Page<Schedule>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Path(name): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Schedule>>, Problem> {
    caller.need(LOOK)?;
    find(&ground, &caller, &name)?;
    let rows = ground.fleet.views.schedules(&name).into_iter();
    Page::of(rows.map(|row| (row.id.to_string(), Schedule::of(row))).collect(), &paging).map(Json)
}

/// Makes a schedule. Its builds are trusted if the token may make trusted ones and their source is vouched for.
#[utoipa::path(
    post,
    path = "/api/v1/pipelines/{name}/schedules",
    tag = "pipelines",
    operation_id = "schedule_add",
    params(("name" = String, Path, description = "The pipeline")),
    request_body = NewScheduleBody,
    responses((status = 201, description = "Made", body = Schedule)),
)]
pub(crate) async fn add(
    State(ground): State<Ground>,
    caller: Caller,
    Path(name): Path<String>,
    body: JsonBody<NewScheduleBody>,
) -> Result<(StatusCode, Json<Schedule>), Problem> {
    may_write(&caller, &name)?;
    find(&ground, &caller, &name)?;
    let NewScheduleBody { cron, timezone, branch, commit, message, env } = body.value;
    let id = super::id::make(|ids| ids.schedule(now().wall))?;
    let new = NewSchedule {
        id,
        pipeline: name,
        message: message.unwrap_or_else(|| format!("scheduled: {cron}")),
        cron,
        timezone,
        branch,
        commit: commit.unwrap_or_else(|| "HEAD".to_owned()),
        env: variables(env)?,
        trusted: caller.is_trusted(),
        confined: confined(caller.pipeline.as_deref(), None),
    };
    ground.fleet.desk.request(caller.actor(), Request::AddSchedule(Box::new(new))).await?;
    let row = ground.fleet.views.schedule(id).ok_or_else(|| Problem::internal(&"a new schedule is not there"))?;
    Ok((StatusCode::CREATED, Json(Schedule::of(row))))
}

/// Takes a schedule away; builds that it made go on.
#[utoipa::path(
    delete,
    path = "/api/v1/pipelines/{name}/schedules/{id}",
    tag = "pipelines",
    operation_id = "schedule_remove",
    params(
        ("name" = String, Path, description = "The pipeline"),
        ("id" = String, Path, description = "A schedule's id")
    ),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn remove(
    State(ground): State<Ground>,
    caller: Caller,
    Path((name, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    may_write(&caller, &name)?;
    let schedule: ScheduleId = extract::id("schedule", &id)?;
    let row = ground.fleet.views.schedule(schedule).filter(|row| row.pipeline == name);
    row.ok_or_else(|| Problem::not_found("schedule", schedule))?;
    ground.fleet.desk.request(caller.actor(), Request::RemoveSchedule { schedule }).await?;
    Ok(StatusCode::NO_CONTENT)
}
