//! Uploads: a running job adds steps to its build (reference 7).

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildRow, Scope, Upload};
use windlass_pipeline::graph::Graph;
use windlass_protocol::AttemptId;

use super::Ground;
use super::auth::Caller;
use super::build::{shown, some};
use super::extract::{self, JsonBody};
use super::problem::Problem;
use super::shape::Build;
use super::submit::{graph_of, variables};
use crate::compiling;
use crate::facts::Variables;
use crate::job_desk::compile_in;

/// Steps to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSteps {
    /// A UUID that the client made: the same upload again changes nothing.
    id: String,
    /// The pipeline's text.
    definition: String,
    /// The file's name, for diagnostics.
    #[serde(default = "unnamed")]
    definition_path: String,
    /// Steps after the job's own that have not started go first.
    #[serde(default)]
    replace: bool,
    /// The job's variables, as interpolation is to see them.
    #[serde(default)]
    #[schema(value_type = Object)]
    env: Map<String, Value>,
}

fn unnamed() -> String {
    "pipeline.yml".to_owned()
}

/// Adds steps right after the job's own; all of them, or none.
#[utoipa::path(
    post,
    path = "/api/v1/attempts/{id}/pipeline",
    tag = "jobs",
    operation_id = "upload_pipeline",
    params(("id" = String, Path, description = "The attempt that uploads; it must run")),
    request_body = NewSteps,
    responses((status = 200, description = "The build as it is now", body = Build)),
)]
pub(crate) async fn pipeline(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody<NewSteps>,
) -> Result<Json<Build>, Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let absent = || Problem::not_found("attempt", &id);
    let attempt: AttemptId = extract::id("attempt", &id)?;
    let row = ground.fleet.reader.attempt(attempt).await?.ok_or_else(absent)?;
    let rows = some(&ground, &caller, row.build, Vec::new()).await?.ok_or_else(absent)?;
    caller.need_trust_of(&rows.build)?;
    let NewSteps { id, definition, definition_path, replace, env } = body.value;
    let (build, env) = (rows.build, variables(env)?);
    let build_id = build.id;
    let compiled = compiling::in_turn(move || {
        let graph = compile(&definition, &definition_path, &env, &build)?;
        Ok::<_, Problem>(Upload { attempt, epoch: None, id, definition, graph, replace })
    });
    let upload = compiled.await.map_err(|error| Problem::internal(&error))??;
    ground.fleet.desk.request(caller.actor(), Request::Upload(Box::new(upload))).await?;
    Ok(Json(shown(&ground, build_id).await?))
}

fn compile(text: &str, file: &str, env: &[(String, String)], build: &BuildRow) -> Result<Graph, Problem> {
    graph_of(compile_in(text, file, Variables::Are(env), build).map_err(|error| Problem::internal(&error))?)
}
