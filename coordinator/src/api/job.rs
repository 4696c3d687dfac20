//! Jobs: running one again, cancelling one, and why one waits. An attempt's id stands for its job.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::explain::{Why, settled};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildRows, JobRow, JobState, Scope};
use windlass_pipeline::graph::{Gate, Misfit, NodeKind};
use windlass_protocol::{AttemptId, JobId};

use super::Ground;
use super::auth::Caller;
use super::build::{some, with_rows};
use super::extract::{self, JsonBody};
use super::problem::Problem;
use super::shape::{Attempts, Job};
use super::weighed::Weighed;

/// Why a job does not run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Why)]
pub(crate) struct Reason {
    #[schema(value_type = String)]
    job_id: JobId,
    #[schema(value_type = String)]
    state: JobState,
    /// `not_waiting dependencies unknown_key blocked ordered triggered limited keying follows fenced no_pool no_agent warmer_agent soon ended`.
    kind: &'static str,
    /// One sentence for people.
    text: String,
    /// Labels of steps that it waits for.
    dependencies: Vec<String>,
    /// What keeps agents of its queue from it, and how many of them.
    obstacles: Vec<Obstacle>,
    /// Of a job that an agent was given: why that one, by its last attempt.
    weighed: Option<Weighed>,
}

/// What keeps agents from a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Obstacle {
    reason: String,
    agents: usize,
}

/// A job that the caller may see, with its build and what it depends on.
pub(super) async fn find(ground: &Ground, caller: &Caller, text: &str) -> Result<(JobId, BuildRows), Problem> {
    let absent = || Problem::not_found("job", text);
    let mut job: JobId = extract::id("job", text)?;
    let mut build = ground.fleet.reader.job_build(job).await?;
    if build.is_none() {
        let attempt: AttemptId = extract::id("job", text)?;
        if let Some(attempt) = ground.fleet.reader.attempt(attempt).await? {
            (job, build) = (attempt.job, Some(attempt.build));
        }
    }
    let rows = some(ground, caller, build.ok_or_else(absent)?, vec![job]).await?.ok_or_else(absent)?;
    Ok((job, rows))
}

fn shown(id: JobId, rows: &BuildRows) -> Result<Job, Problem> {
    let row = rows.jobs.iter().find(|job| job.id == id).ok_or_else(|| Problem::not_found("job", id))?;
    Ok(Job::of(row, rows, &Attempts::of(rows)))
}

async fn shown_now(ground: &Ground, id: JobId, before: &BuildRows) -> Result<Json<Job>, Problem> {
    let found = ground.fleet.reader.some_jobs(before.build.id, vec![id]).await?;
    let rows = found.ok_or_else(|| Problem::not_found("job", id))?;
    shown(id, &rows).map(Json)
}

/// Runs one job again.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{id}/retry",
    tag = "jobs",
    operation_id = "job_retry",
    params(("id" = String, Path, description = "A job's id, or one of its attempts'")),
    responses((status = 200, description = "As it is now", body = Job)),
)]
pub(crate) async fn retry(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Job>, Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let (job, rows) = find(&ground, &caller, &id).await?;
    with_rows(&ground, &caller, rows.build.id, |rows| Request::RetryJob { job, rows }).await?;
    shown_now(&ground, job, &rows).await
}

/// Ends one job.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{id}/cancel",
    tag = "jobs",
    operation_id = "job_cancel",
    params(("id" = String, Path, description = "A job's id, or one of its attempts'")),
    responses((status = 200, description = "As it is now", body = Job)),
)]
pub(crate) async fn cancel(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Job>, Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let (job, rows) = find(&ground, &caller, &id).await?;
    ground.fleet.desk.request(caller.actor(), Request::CancelJob { job, grace_ms: None }).await?;
    shown_now(&ground, job, &rows).await
}

/// Answers to a gate's questions.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answers {
    /// By the fields' keys: a string, or a list of them for a choice of several. What is left out takes its default.
    #[serde(default)]
    #[schema(value_type = Object)]
    fields: BTreeMap<String, Given>,
}

/// One answer.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string, or a list of strings")]
enum Given {
    One(String),
    Several(Vec<String>),
}

/// Opens a gate: a block or an input step. The answers become the build's meta-data.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{id}/unblock",
    tag = "jobs",
    operation_id = "job_unblock",
    params(("id" = String, Path, description = "A job's id")),
    request_body = Answers,
    responses((status = 200, description = "As it is now", body = Job)),
)]
pub(crate) async fn unblock(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody<Answers>,
) -> Result<Json<Job>, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let (job, rows) = find(&ground, &caller, &id).await?;
    let row = rows.jobs.iter().find(|row| row.id == job);
    // Where teams are named, membership takes the place of the right to write (reference 5.2); the core looks at that.
    let gate = row.and_then(|row| gate_of(&row.node.kind));
    let teams = gate.is_some_and(|gate| !gate.allowed_teams.is_empty());
    if !teams {
        caller.need(&[Scope::BuildsWrite])?;
        // The answers become meta-data, which its jobs see.
        caller.need_trust_of(&rows.build)?;
    }
    let answers = body.value.fields.into_iter().map(|(key, given)| match given {
        Given::One(value) => (key, vec![value]),
        Given::Several(values) => (key, values),
    });
    let answers: BTreeMap<_, _> = answers.collect();
    if let Some(gate) = gate.cloned() {
        let given = answers.clone();
        let checked = tokio::task::spawn_blocking(move || gate.check_formats(&given)).await;
        let checked = checked.map_err(|error| Problem::internal(&error))?;
        checked.map_err(|Misfit { field, why }| Problem::from(&Rejected::Answer { field, why }))?;
    }
    let request = Request::Unblock { job, answers };
    ground.fleet.desk.request(caller.actor(), request).await?;
    shown_now(&ground, job, &rows).await
}

const fn gate_of(kind: &NodeKind) -> Option<&Gate> {
    match kind {
        NodeKind::Block(gate) | NodeKind::Input(gate) => Some(gate),
        NodeKind::Command(_) | NodeKind::Wait { .. } | NodeKind::Trigger(_) => None,
    }
}

/// Why a job does not run.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/why",
    tag = "jobs",
    operation_id = "job_why",
    params(("id" = String, Path, description = "A job's id, or one of its attempts'")),
    responses((status = 200, description = "As it is now", body = Reason)),
)]
pub(crate) async fn why(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Reason>, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let (job_id, rows) = find(&ground, &caller, &id).await?;
    let why = ground.fleet.desk.look(move |core| core.explain(job_id)).await?;
    let row = rows.jobs.iter().find(|job| job.id == job_id).ok_or_else(|| Problem::not_found("job", &id))?;
    let last = rows.attempts.iter().filter(|attempt| attempt.job == job_id).max_by_key(|attempt| attempt.number);
    let mut reason = Reason {
        job_id,
        state: row.state,
        kind: "ended",
        text: settled(row, &rows.jobs),
        dependencies: vec![],
        obstacles: vec![],
        weighed: last.and_then(Weighed::of),
    };
    let Some(why) = why else { return Ok(Json(reason)) };
    reason.text = why.to_string();
    reason.kind = match why {
        Why::NotWaiting(state) => {
            // The core knows volatile progress that no row has.
            let now = JobRow { state, ..row.clone() };
            (reason.state, reason.text) = (state, settled(&now, &rows.jobs));
            if state.is_final() { "ended" } else { "not_waiting" }
        }
        Why::Dependencies(labels) => {
            reason.dependencies = labels;
            "dependencies"
        }
        Why::Unknown(keys) => {
            reason.dependencies = keys;
            "unknown_key"
        }
        Why::Blocked => "blocked",
        Why::Ordered(_) => "ordered",
        Why::Triggered(..) => "triggered",
        Why::Limited { .. } => "limited",
        Why::Keying => "keying",
        Why::Follows { .. } => "follows",
        Why::Fenced(_) => "fenced",
        Why::NoPool { .. } => "no_pool",
        Why::NoAgent(obstacles) => {
            let shape = |(reason, agents): (windlass_coordinator_core::explain::Obstacle, usize)| Obstacle {
                reason: reason.to_string(),
                agents,
            };
            reason.obstacles = obstacles.into_iter().map(shape).collect();
            "no_agent"
        }
        Why::Warmer { .. } => "warmer_agent",
        Why::Soon => "soon",
    };
    Ok(Json(reason))
}
