//! Large blobs over HTTP in as many requests as it takes: after a broken connection the client asks how far it came, and sends
//! the rest. Headers and methods are those of the IETF's draft of resumable uploads; what is uploaded is said in JSON first.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use windlass_cache::{About, Partial, PartialError, PartialState};
use windlass_coordinator_core::row::Scope;
use windlass_protocol::host::now;
use windlass_protocol::{Digest, Namespace, Shelf};

use super::Ground;
use super::auth::Caller;
use super::blob::{Ended, WRITE, blocking, gather, namespace_of, room};
use super::build::find;
use super::extract::{JsonBody, Query};
use super::problem::{Kind, Problem};
use super::shape::time;
use crate::uploads::Turn;

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");

impl From<PartialError> for Problem {
    fn from(error: PartialError) -> Self {
        let kind = match error {
            PartialError::Store(error) => return error.into(),
            PartialError::Busy => Kind::Unavailable,
            PartialError::Small | PartialError::TooLong(_) => Kind::Invalid,
            PartialError::TooMany(_) | PartialError::TooManyBytes(_) => Kind::LimitReached,
        };
        Self::new(kind, error.to_string())
    }
}

/// What the blob is for: one of the two.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Purpose {
    /// A blob of this project.
    project: Option<String>,
    /// An artifact of this build; `PUT /api/v1/builds/{id}/artifacts` with `upload` makes it one.
    build: Option<String>,
}

/// What is uploaded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUpload {
    /// `b3:` and 64 hex digits: BLAKE3 of its bytes.
    #[schema(value_type = String)]
    digest: Digest,
    /// How many they are.
    bytes: u64,
}

/// An upload, as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Upload {
    /// Of its path; none where the blob is there already.
    id: Option<String>,
    #[schema(value_type = String)]
    digest: Digest,
    bytes: u64,
    /// How many of them came.
    offset: u64,
    /// Whether the blob is stored.
    complete: bool,
    /// When it goes if nothing comes.
    expires_at: Option<String>,
}

/// A blob that is stored by its last bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Completed {
    #[schema(value_type = String)]
    digest: Digest,
    bytes: u64,
}

/// Whose uploads a token's are.
pub(super) fn owner(caller: &Caller) -> String {
    format!("token:{}", caller.token)
}

fn absent(id: &str) -> Problem {
    Problem::not_found("upload", id.chars().take(64).collect::<String>())
}

/// Says how far an upload is.
fn headed(mut response: Response, (offset, bytes): (u64, u64), complete: bool) -> Response {
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    headers.insert(UPLOAD_LENGTH, HeaderValue::from(bytes));
    headers.insert(UPLOAD_COMPLETE, HeaderValue::from_static(if complete { "?1" } else { "?0" }));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Where the blob will be seen.
async fn namespace(ground: &Ground, caller: &Caller, purpose: &Purpose) -> Result<Namespace, Problem> {
    match (&purpose.project, &purpose.build) {
        (Some(project), None) => {
            caller.need(&WRITE)?;
            namespace_of(caller, project)
        }
        (None, Some(build)) => {
            caller.need(&[Scope::BuildsWrite])?;
            let (_, rows) = find(ground, caller, build).await?;
            caller.need_trust_of(&rows.build)?;
            Ok(rows.build.namespace.on(Shelf::Artifacts))
        }
        (None, None) | (Some(_), Some(_)) => {
            caller.need(&WRITE)?;
            Err(Problem::invalid("project, build: one of the two says what the blob is for"))
        }
    }
}

/// Begins an upload of a large blob, or finds the one that this token began.
#[utoipa::path(
    post,
    path = "/api/v1/uploads",
    tag = "blobs",
    operation_id = "upload_create",
    params(Purpose),
    request_body = NewUpload,
    responses(
        (status = 200, description = "The blob is there, or its upload was begun before; `offset` says how far it is", body = Upload),
        (status = 201, description = "Begun", body = Upload),
    ),
)]
pub(crate) async fn create(
    State(ground): State<Ground>,
    caller: Caller,
    Query(purpose): Query<Purpose>,
    body: JsonBody<NewUpload>,
) -> Result<Response, Problem> {
    let namespace = namespace(&ground, &caller, &purpose).await?;
    let NewUpload { digest, bytes } = body.value;
    // On a shelf it is nobody's before a row names it: whoever adds an artifact has its bytes.
    if namespace.shelf().is_none() {
        let (store, on) = (ground.fleet.store.clone(), namespace.clone());
        if blocking(move || store.missing(&on, &[digest]).is_empty()).await? {
            let there = Upload { id: None, digest, bytes, offset: bytes, complete: true, expires_at: None };
            return Ok(headed(Json(there).into_response(), (bytes, bytes), true));
        }
    }
    ground.sweeper.check_room(&namespace, bytes)?;
    let about = About { owner: owner(&caller), namespace, digest, bytes };
    let known = ground.fleet.uploads.partials().find(&about).is_some();
    let PartialState { id, offset, expires_at, .. } = ground.fleet.uploads.begin(about).await?;
    let location = HeaderValue::try_from(format!("/api/v1/uploads/{id}")).map_err(|e| Problem::internal(&e))?;
    let expires_at = Some(time(expires_at));
    let upload = Upload { id: Some(id), digest, bytes, offset, complete: false, expires_at };
    let status = if known { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = (status, Json(upload)).into_response();
    response.headers_mut().insert(LOCATION, location);
    Ok(headed(response, (offset, bytes), false))
}

async fn take(ground: &Ground, caller: &Caller, id: &str) -> Result<(Turn, Partial), Problem> {
    caller.need(&WRITE)?;
    ground.fleet.uploads.take(&owner(caller), id).await?.ok_or_else(|| absent(id))
}

/// As [`take`], by who sends nothing: a full disk is no reason to say no.
async fn look(ground: &Ground, caller: &Caller, id: &str) -> Result<(Turn, Partial), Problem> {
    caller.need(&WRITE)?;
    ground.fleet.uploads.look(&owner(caller), id).await?.ok_or_else(|| absent(id))
}

/// How far an upload is. A connection that still sends bytes of it is ended.
#[utoipa::path(
    head,
    path = "/api/v1/uploads/{id}",
    tag = "blobs",
    operation_id = "upload_head",
    params(("id" = String, Path, description = "An upload's id")),
    responses((status = 204, description = "`Upload-Offset` says how many bytes came, `Upload-Length` how many there are")),
)]
pub(crate) async fn head(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (_turn, partial) = look(&ground, &caller, &id).await?;
    let at = (partial.offset(), partial.about().bytes);
    blocking(move || drop(partial)).await?;
    Ok(headed(StatusCode::NO_CONTENT.into_response(), at, false))
}

/// Sends the next bytes of an upload. A connection that still sends bytes of it is ended. With its last bytes a blob of a
/// project is stored.
#[utoipa::path(
    patch,
    path = "/api/v1/uploads/{id}",
    tag = "blobs",
    operation_id = "upload_append",
    params(
        ("id" = String, Path, description = "An upload's id"),
        ("Upload-Offset" = u64, Header, description = "How many bytes come before these; as many as came"),
    ),
    request_body(content = Vec<u8>, content_type = "application/partial-upload"),
    responses(
        (status = 201, description = "Stored, durably", body = Completed),
        (status = 204, description = "Taken; `Upload-Offset` says how many bytes came by now"),
    ),
)]
pub(crate) async fn append(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.need(&WRITE)?;
    ground.fleet.uploads.partials().state(&owner(&caller), &id).ok_or_else(|| absent(&id))?;
    let said = headers.get(&UPLOAD_OFFSET).and_then(|offset| offset.to_str().ok()?.trim().parse::<u64>().ok());
    let said =
        said.ok_or_else(|| Problem::invalid("Upload-Offset: the header says how many bytes come before these"))?;
    let _room = room(&ground, &caller)?;
    let (turn, partial) = take(&ground, &caller, &id).await?;
    let (offset, bytes) = (partial.offset(), partial.about().bytes);
    if said != offset {
        blocking(move || drop(partial)).await?;
        let problem =
            Problem::new(Kind::UploadOffset, format!("{offset} bytes came so far, and not {said}; go on there"));
        return Err(problem.with_header(UPLOAD_OFFSET, HeaderValue::from(offset)));
    }
    let partial = pour(body, turn, partial).await?;
    let offset = partial.offset();
    let waits_for_its_row = partial.about().namespace.shelf().is_some();
    if offset < bytes || waits_for_its_row {
        blocking(move || drop(partial)).await?;
        return Ok(headed(StatusCode::NO_CONTENT.into_response(), (offset, bytes), false));
    }
    let digest = blocking(move || partial.finish()).await??;
    let response = (StatusCode::CREATED, Json(Completed { digest, bytes })).into_response();
    Ok(headed(response, (bytes, bytes), true))
}

/// Gives an upload up.
#[utoipa::path(
    delete,
    path = "/api/v1/uploads/{id}",
    tag = "blobs",
    operation_id = "upload_cancel",
    params(("id" = String, Path, description = "An upload's id")),
    responses((status = 204, description = "Nothing is left of it")),
)]
pub(crate) async fn cancel(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let (_turn, partial) = look(&ground, &caller, &id).await?;
    blocking(move || partial.give_up()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes what comes until it ends, breaks, or another connection goes on. What came stays, whatever follows.
async fn pour(body: Body, mut turn: Turn, mut partial: Partial) -> Result<Partial, Problem> {
    let mut pieces = body.into_data_stream();
    loop {
        let (gathered, bytes, ended) = tokio::select! {
            biased;
            () = turn.over() => {
                blocking(move || drop(partial)).await?;
                return Err(Problem::new(Kind::Conflict, "another connection goes on with this upload"));
            }
            gathered = gather(&mut pieces) => gathered,
        };
        if bytes > 0 {
            partial = blocking(move || {
                gathered.iter().try_for_each(|piece| partial.write(piece, now().wall))?;
                Ok::<_, PartialError>(partial)
            })
            .await??;
        }
        match ended {
            Ended::NotYet => {}
            Ended::Whole => return Ok(partial),
            Ended::Broken(problem) => {
                blocking(move || drop(partial)).await?;
                return Err(problem);
            }
        }
    }
}

/// An artifact's bytes that came before, all of them: stored, and given up to whoever made the row.
pub(super) async fn complete(
    ground: &Ground,
    caller: &Caller,
    id: &str,
    (on, digest, bytes): (&Namespace, Digest, u64),
) -> Result<(), Problem> {
    let (_turn, partial) = take(ground, caller, id).await?;
    let about = partial.about();
    if (&about.namespace, about.digest, about.bytes) != (on, digest, bytes) {
        let problem = Problem::new(Kind::Conflict, "the upload is of something else than `digest` and `bytes` say");
        blocking(move || drop(partial)).await?;
        return Err(problem);
    }
    if partial.offset() != bytes {
        let detail = format!("{} of {bytes} bytes came; go on there", partial.offset());
        let offset = HeaderValue::from(partial.offset());
        blocking(move || drop(partial)).await?;
        return Err(Problem::new(Kind::UploadOffset, detail).with_header(UPLOAD_OFFSET, offset));
    }
    blocking(move || partial.finish()).await??;
    Ok(())
}
