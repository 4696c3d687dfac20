//! Registered pipelines: showing, listing, registering, changing.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Actor, PipelineChange, PipelineRow, Scope};
use windlass_coordinator_core::served::SERVED;
use windlass_pipeline::{Inputs, compile_with};
use windlass_protocol::host::now;
use windlass_protocol::{Digest, PipelineId};

use super::Ground;
use super::auth::Caller;
use super::extract::{JsonBody, Page, Paging, Query};
use super::problem::{Kind, Problem};
use super::shape::time;
use super::submit::{check_name, check_repository, graph_of};
use crate::definitions::Protected;
use crate::facts::UNNAMED;

/// Who may look: whoever may see builds, or registers.
pub(crate) const LOOK: &[Scope] = &[Scope::BuildsRead, Scope::PipelinesWrite];

/// A registered pipeline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pipeline {
    #[schema(value_type = String)]
    id: PipelineId,
    name: String,
    description: String,
    /// What git is given; null: builds bring their own source.
    repository: Option<String>,
    default_branch: String,
    /// Where the definition stands in the source; null: where it is always looked for.
    file: Option<String>,
    /// Of the definition that the server keeps, which goes before the source's; null: it keeps none.
    #[schema(value_type = Option<String>)]
    definition_digest: Option<Digest>,
    /// The text of it; left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<String>,
    /// Globs of branches, or of whole refs such as `refs/tags/v*`, whose commits are trusted.
    protected_refs: Vec<String>,
    #[schema(value_type = Object)]
    env: Map<String, Value>,
    /// Of command steps that say none.
    timeout_in_minutes: Option<u64>,
    #[schema(value_type = Object)]
    created_by: Actor,
    created_at: String,
    updated_at: String,
}

impl Pipeline {
    fn of(row: PipelineRow, definition: Option<String>) -> Self {
        Self {
            id: row.id,
            description: row.description.clone(),
            repository: row.repository.clone(),
            default_branch: row.default_branch.clone(),
            file: row.file.clone(),
            definition_digest: row.definition,
            definition,
            protected_refs: if row.protected_refs.is_empty() {
                vec![row.default_branch.clone()]
            } else {
                row.protected_refs.clone()
            },
            env: row.env.into_iter().map(|(name, value)| (name, Value::String(value))).collect(),
            timeout_in_minutes: row.timeout_ms.map(|ms| ms.div_ceil(60_000)),
            created_by: row.created_by,
            created_at: time(row.created_at),
            updated_at: time(row.updated_at),
            name: row.name,
        }
    }
}

/// What is said of a pipeline. What is left out stays as it is, null takes away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// To register one; it stays.
    name: Option<String>,
    description: Option<String>,
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    repository: Option<Option<String>>,
    /// `main` where nothing was ever said.
    default_branch: Option<String>,
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    file: Option<Option<String>>,
    /// The pipeline's text, for the server to keep; it is checked now.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    definition: Option<Option<String>>,
    /// The file's name, for diagnostics.
    definition_path: Option<String>,
    /// Globs of branches, or of whole refs such as `refs/tags/v*`, whose commits are trusted. Empty: the default branch.
    protected_refs: Option<Vec<String>>,
    /// Names with strings; a name with null is taken away, others stay.
    #[schema(value_type = Object)]
    env: Map<String, Value>,
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<u64>)]
    timeout_in_minutes: Option<Option<u64>>,
}

/// A field that is there, be it null.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(field: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(field).map(Some)
}

impl Settings {
    /// For the core; the definition is checked as it would be for a build of which nothing is known.
    fn change(self) -> Result<PipelineChange, Problem> {
        if let Some(Some(text)) = &self.definition {
            let file = self.definition_path.as_deref().unwrap_or(UNNAMED);
            let inputs = Inputs { open: true, served: Some(SERVED), ..Inputs::default() };
            graph_of(compile_with(text, file, &inputs))?;
        }
        if let Some(patterns) = &self.protected_refs {
            Protected::parse(patterns).map_err(|error| Problem::invalid(format!("protected_refs: {error}")))?;
        }
        for repository in self.repository.iter().flatten() {
            check_repository("repository", repository)?;
        }
        Ok(PipelineChange {
            description: self.description,
            repository: self.repository,
            default_branch: self.default_branch,
            file: self.file,
            definition: self.definition,
            protected_refs: self.protected_refs,
            env: self.env.into_iter().map(variable).collect::<Result<_, _>>()?,
            timeout_ms: self.timeout_in_minutes.map(|minutes| minutes.map(|minutes| minutes.saturating_mul(60_000))),
        })
    }
}

fn variable((name, value): (String, Value)) -> Result<(String, Option<String>), Problem> {
    match value {
        _ if name.is_empty() || name.contains(['=', '\0']) => {
            Err(Problem::invalid("env: a name is not empty and has neither `=` nor NUL"))
        }
        Value::Null => Ok((name, None)),
        Value::String(value) if !value.contains('\0') => Ok((name, Some(value))),
        _ => Err(Problem::invalid(format!("env.{name}: a string without NUL, or null"))),
    }
}

/// Registered pipelines, newest first, without their definitions.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines",
    tag = "pipelines",
    operation_id = "pipeline_list",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<Pipeline>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Pipeline>>, Problem> {
    caller.need(LOOK)?;
    let seen = ground.fleet.views.pipelines().into_iter();
    let seen = seen.filter(|row| caller.pipeline.as_ref().is_none_or(|only| *only == row.name));
    Page::of(seen.map(|row| (row.id.to_string(), Pipeline::of(row, None))).collect(), &paging).map(Json)
}

/// One registered pipeline, with the definition that the server keeps.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{name}",
    tag = "pipelines",
    operation_id = "pipeline_show",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "As it is now", body = Pipeline)),
)]
pub(crate) async fn show(
    State(ground): State<Ground>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Pipeline>, Problem> {
    caller.need(LOOK)?;
    shown(&ground, find(&ground, &caller, &name)?).await.map(Json)
}

/// Registers a pipeline.
#[utoipa::path(
    post,
    path = "/api/v1/pipelines",
    tag = "pipelines",
    operation_id = "pipeline_create",
    request_body = Settings,
    responses((status = 201, description = "Registered", body = Pipeline)),
)]
pub(crate) async fn create(
    State(ground): State<Ground>,
    caller: Caller,
    body: JsonBody<Settings>,
) -> Result<(StatusCode, Json<Pipeline>), Problem> {
    caller.need(&[Scope::PipelinesWrite])?;
    let settings = body.value;
    let name = settings.name.clone().ok_or_else(|| Problem::invalid("name: say the pipeline's name"))?;
    check_name("name", &name)?;
    may_write(&caller, &name)?;
    vouched(&caller, &settings)?;
    let id = super::id::make(|ids| ids.pipeline(now().wall))?;
    let change = Box::new(checked(settings).await?);
    ground.fleet.desk.request(caller.actor(), Request::CreatePipeline { id, name: name.clone(), change }).await?;
    let pipeline = shown(&ground, find(&ground, &caller, &name)?).await?;
    Ok((StatusCode::CREATED, Json(pipeline)))
}

/// Changes a registered pipeline, for builds that are made from now on.
#[utoipa::path(
    patch,
    path = "/api/v1/pipelines/{name}",
    tag = "pipelines",
    operation_id = "pipeline_update",
    params(("name" = String, Path, description = "Its name")),
    request_body = Settings,
    responses((status = 200, description = "As it is now", body = Pipeline)),
)]
pub(crate) async fn update(
    State(ground): State<Ground>,
    caller: Caller,
    Path(name): Path<String>,
    body: JsonBody<Settings>,
) -> Result<Json<Pipeline>, Problem> {
    may_write(&caller, &name)?;
    find(&ground, &caller, &name)?;
    if body.value.name.as_ref().is_some_and(|other| *other != name) {
        return Err(Problem::invalid("name: a pipeline keeps its name, in which its builds are numbered"));
    }
    vouched(&caller, &body.value)?;
    let change = Box::new(checked(body.value).await?);
    ground.fleet.desk.request(caller.actor(), Request::UpdatePipeline { name: name.clone(), change }).await?;
    shown(&ground, find(&ground, &caller, &name)?).await.map(Json)
}

/// Off the loop: a large definition takes a while.
async fn checked(settings: Settings) -> Result<PipelineChange, Problem> {
    let change = tokio::task::spawn_blocking(move || settings.change()).await;
    change.map_err(|error| Problem::internal(&error))?
}

/// What is said of a pipeline is said for all of its branches.
pub(crate) fn may_write(caller: &Caller, name: &str) -> Result<(), Problem> {
    caller.need(&[Scope::PipelinesWrite])?;
    caller.need_place(name, None)?;
    if caller.branch.is_some() {
        let detail = "the token is restricted to one branch, and this concerns all of them";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    Ok(())
}

/// What decides what trusted builds run, and which builds are trusted, is said only by who may make such builds.
fn vouched(caller: &Caller, settings: &Settings) -> Result<(), Problem> {
    let says = [
        ("repository", settings.repository.is_some()),
        ("default_branch", settings.default_branch.is_some()),
        ("file", settings.file.is_some()),
        ("definition", settings.definition.is_some()),
        ("protected_refs", settings.protected_refs.is_some()),
        ("env", !settings.env.is_empty()),
    ];
    match says.iter().find(|(_, said)| *said).filter(|_| !caller.is_trusted()) {
        None => Ok(()),
        Some((name, _)) => {
            let detail = format!(
                "{name}: it decides what trusted builds run, so the token needs the scope `builds:trusted` too"
            );
            Err(Problem::new(Kind::Forbidden, detail))
        }
    }
}

/// A registered pipeline that the caller may see; any other is as if it were not there.
pub(crate) fn find(ground: &Ground, caller: &Caller, name: &str) -> Result<PipelineRow, Problem> {
    let seen = caller.pipeline.as_deref().is_none_or(|only| only == name);
    let row = ground.fleet.views.pipeline(name).filter(|_| seen);
    let cut: String = name.chars().take(64).collect();
    row.ok_or_else(|| Problem::not_found("registered pipeline", cut))
}

async fn shown(ground: &Ground, row: PipelineRow) -> Result<Pipeline, Problem> {
    let definition = match row.definition {
        Some(digest) => ground.fleet.reader.definition(digest).await?,
        None => None,
    };
    Ok(Pipeline::of(row, definition))
}
