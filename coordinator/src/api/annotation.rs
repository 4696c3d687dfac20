//! A build's annotations: what its jobs wrote beside it, for people (reference 19.3).

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use windlass_coordinator_core::row::{Annotation as Row, AnnotationStyle, Scope as TokenScope};
use windlass_protocol::{AnnotationId, JobId};

use super::Ground;
use super::auth::Caller;
use super::build::find;
use super::extract::Page;
use super::problem::Problem;
use super::shape::time;

/// What an annotation is about.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AnnotationScope)]
pub(crate) enum Scope {
    /// The whole build.
    Build,
    /// One job of it.
    Job,
}

/// Which annotation an event is about.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct AnnotationName {
    #[schema(value_type = String)]
    pub(crate) id: AnnotationId,
    /// Unique among those of the build, or of the job.
    pub(crate) context: String,
    pub(crate) scope: Scope,
    /// The job that it is about.
    #[schema(value_type = Option<String>)]
    pub(crate) job_id: Option<JobId>,
}

impl AnnotationName {
    /// Of the annotation of this id.
    pub(crate) fn new(id: AnnotationId, context: &str, job_id: Option<JobId>) -> Self {
        let scope = if job_id.is_some() { Scope::Job } else { Scope::Build };
        Self { id, context: context.to_owned(), scope, job_id }
    }
}

/// Words about a build.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Annotation {
    #[serde(flatten)]
    name: AnnotationName,
    /// `success`, `info`, `warning` or `error`; null is plain.
    #[schema(value_type = Option<String>)]
    style: Option<AnnotationStyle>,
    /// 1 to 10; 10 is shown first, and of equal ones the older.
    priority: u8,
    /// Markdown (CommonMark with GitHub's extensions), as the job wrote it: whoever shows it as HTML has to clean it.
    body: String,
    /// The job that wrote it last.
    #[schema(value_type = String)]
    written_by: JobId,
    created_at: String,
    updated_at: String,
}

impl Annotation {
    fn of(row: Row, body: String) -> Self {
        Self {
            name: AnnotationName::new(row.id, &row.context, row.job),
            style: row.style,
            priority: row.priority,
            body,
            written_by: row.by,
            created_at: time(row.created_at),
            updated_at: time(row.updated_at),
        }
    }
}

/// All of a build's annotations, in the order in which they are shown: they are few, and 8 MiB at most.
#[utoipa::path(
    get,
    path = "/api/v1/builds/{id}/annotations",
    tag = "builds",
    operation_id = "annotation_list",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    responses((status = 200, description = "All of them", body = Page<Annotation>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Page<Annotation>>, Problem> {
    caller.need(&[TokenScope::BuildsRead])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    let found = ground.fleet.reader.annotations(rows.build.id).await?;
    let items = found.into_iter().map(|(row, text)| Annotation::of(row, text)).collect();
    Ok(Json(Page { items, next_cursor: None }))
}
