//! What a laptop asks of its fleet: by what keys are made here, which results there are under its keys, and their bytes
//! (docs/design/041).
//!
//! Each question is of one project, and is answered with what the token's namespace reads of it. A result that is absent
//! and one that is another's are the same answer, found out by the same look (I12).

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Output, PipelineRow, ReuseRequest, ReuseRow, Scope};
use windlass_coordinator_logs::{Fault, PieceReader};
use windlass_protocol::limits::{FLEET_KEYS_MAX, FLEET_LOG_MAX_BYTES, NAME_MAX_BYTES, REUSE_OUTPUTS_MAX};
use windlass_protocol::{Digest, Shelf, Trust};

use super::Ground;
use super::artifact::next_part;
use super::auth::Caller;
use super::blob::{begun, blocking, namespace_of, next_piece};
use super::extract::{JsonBody, Query};
use super::problem::{Kind, Problem};
use super::shape::Reused;
use super::submit::check_name;

/// What is known of a laptop's directory.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Whose {
    /// What its pipeline is called there.
    name: String,
    /// Where its repository comes from.
    repository: Option<String>,
}

/// What keys of a project's steps are made of here, beside what the source and the step say.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Terms {
    /// The pipeline that is meant: the one that is registered with the repository, else the name as it was given.
    project: String,
    epoch: u64,
    /// Of the hooks of agents that run trusted builds; each may be in a key.
    #[schema(value_type = Vec<String>)]
    hooks: Vec<Digest>,
}

/// Which keys, of which project.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lookup {
    project: String,
    /// At most 64.
    #[schema(value_type = Vec<String>)]
    keys: Vec<Digest>,
}

/// The results that there are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Results {
    /// In the order of the keys. At most so many that their files are a thousand, but one.
    results: Vec<Reusable>,
}

/// A result that may be used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reusable {
    #[schema(value_type = String)]
    key: Digest,
    from: Reused,
    branch: String,
    step_key: Option<String>,
    /// Whether the token may read its log.
    log: bool,
    files: Vec<File>,
}

/// A file of a result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct File {
    path: String,
    bytes: u64,
    #[schema(value_type = String)]
    digest: Digest,
    sha1: String,
    sha256: String,
    content_type: String,
    /// Whether it may be executed.
    executable: bool,
}

impl From<&Output> for File {
    fn from(output: &Output) -> Self {
        let Output { path, bytes, digest, sha1, sha256, content_type, executable } = output.clone();
        Self { path, bytes, digest, sha1, sha256, content_type, executable }
    }
}

/// Which bytes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Piece {
    /// The project.
    project: String,
    /// Where to begin.
    #[serde(default)]
    offset: u64,
}

/// Which image.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageAsked {
    project: String,
    /// As a step names it.
    image: String,
    /// Such as `linux/amd64`.
    platform: String,
}

/// What it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImageFound {
    /// Of the platform's manifest: `sha256:…`.
    digest: String,
    /// Of its config, which keys have.
    config: String,
}

/// By what keys are made here.
#[utoipa::path(
    get,
    path = "/api/v1/reuse/terms",
    tag = "reuse",
    operation_id = "reuse_terms",
    params(Whose),
    responses((status = 200, description = "As it is now", body = Terms)),
)]
pub(crate) async fn terms(
    State(ground): State<Ground>,
    caller: Caller,
    Query(whose): Query<Whose>,
) -> Result<Json<Terms>, Problem> {
    caller.need(&[Scope::CacheRead])?;
    check_name("name", &whose.name)?;
    if whose.repository.as_ref().is_some_and(|text| text.len() > windlass_protocol::limits::DETAIL_MAX_BYTES) {
        return Err(Problem::invalid("repository: it is too long"));
    }
    let seen = |row: &PipelineRow| caller.pipeline.as_ref().is_none_or(|only| *only == row.name);
    let all = ground.fleet.views.pipelines().into_iter().filter(seen);
    let project = project_of(all, &whose);
    let hooks = ground.fleet.desk.look(|core| core.trusted_hooks()).await?;
    let epoch = ground.engine.as_ref().map_or(0, crate::keying::Engine::epoch);
    Ok(Json(Terms { project, epoch, hooks }))
}

/// The pipeline of that repository, if there is one, or one of that name among several.
fn project_of(all: impl Iterator<Item = PipelineRow>, whose: &Whose) -> String {
    let wanted = whose.repository.as_deref().map(place_of);
    let same = |row: &PipelineRow| row.repository.as_deref().map(place_of) == wanted;
    let mut of_it: Vec<String> = all.filter(|row| wanted.is_some() && same(row)).map(|row| row.name).collect();
    match of_it.len() {
        1 => of_it.remove(0),
        _ => whose.name.clone(),
    }
}

/// Where a repository is, however it is reached: `host/path` without what the same place is written with.
fn place_of(text: &str) -> String {
    let text = text.trim().trim_end_matches('/');
    let text = text.strip_suffix(".git").unwrap_or(text);
    let (rest, has_scheme) = match text.split_once("://") {
        Some((_, rest)) => (rest, true),
        None => (text, false),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let rest = match authority.split_once('@') {
        Some((user, _)) => rest.get(user.len() + 1..).unwrap_or_default(),
        None => rest,
    };
    let (host, path) = match (has_scheme, rest.split_once('/'), rest.split_once(':')) {
        (false, _, Some((host, path))) if !host.contains('/') => (host, path),
        (true, Some((host, path)), _) => (host, path),
        _ => return rest.to_owned(),
    };
    format!("{}/{}", host.to_lowercase(), path.trim_start_matches('/'))
}

/// Which of these keys have results.
#[utoipa::path(
    post,
    path = "/api/v1/reuse/lookup",
    tag = "reuse",
    operation_id = "reuse_lookup",
    request_body = Lookup,
    responses((status = 200, description = "Those that the token's namespace reads", body = Results)),
)]
pub(crate) async fn lookup(
    State(ground): State<Ground>,
    caller: Caller,
    body: JsonBody<Lookup>,
) -> Result<Json<Results>, Problem> {
    caller.need(&[Scope::CacheRead])?;
    let Lookup { project, keys } = body.value;
    let namespace = namespace_of(&caller, &project)?;
    if keys.len() > FLEET_KEYS_MAX {
        return Err(Problem::new(Kind::LimitReached, format!("keys: at most {FLEET_KEYS_MAX} at once")));
    }
    let found = ground.fleet.desk.look(move |core| {
        let rows = keys.into_iter().filter_map(|key| core.readable(&namespace, key)).cloned();
        let mut files = 0;
        let fits = |row: &ReuseRow| {
            let first = files == 0;
            files += row.outputs.len().max(1);
            first || files <= REUSE_OUTPUTS_MAX
        };
        rows.take_while(fits).collect::<Vec<_>>()
    });
    let found = found.await?;
    for row in &found {
        // Written down once an hour: what laptops use stays as what builds use.
        ground.fleet.desk.request(caller.actor(), Request::Reuse(ReuseRequest::Use(row.name.clone()))).await?;
    }
    let results = found.iter().map(|row| Reusable {
        key: row.name.key,
        from: Reused::new(&row.from),
        branch: row.from.branch.clone(),
        step_key: row.step_key.clone(),
        log: reads_log(&caller, row),
        files: row.outputs.iter().map(File::from).collect(),
    });
    Ok(Json(Results { results: results.collect() }))
}

fn reads_log(caller: &Caller, row: &ReuseRow) -> bool {
    caller.has(Scope::BuildsRead) && caller.sees_place(&row.from.pipeline, &row.from.branch)
}

/// The result under a key, as far as the token's namespace reads it.
async fn result(ground: &Ground, caller: &Caller, project: &str, key: &str) -> Result<ReuseRow, Problem> {
    caller.need(&[Scope::CacheRead])?;
    let namespace = namespace_of(caller, project)?;
    let absent = || Problem::not_found("result", key.chars().take(64).collect::<String>());
    let digest = Digest::from_hex(key).map_err(|_| absent())?;
    let row = ground.fleet.desk.look(move |core| core.readable(&namespace, digest).cloned()).await?;
    row.ok_or_else(absent)
}

fn streamed(body: Body, bytes: u64) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    response
}

/// A file of a result. From its beginning its bytes are checked on their way: the last come only if all were right.
#[utoipa::path(
    get,
    path = "/api/v1/reuse/results/{key}/files/{hex}",
    tag = "reuse",
    operation_id = "reuse_file",
    params(
        ("key" = String, Path, description = "A key's 64 hex digits"),
        ("hex" = String, Path, description = "64 hex digits of the file's BLAKE3 digest"),
        Piece
    ),
    responses((status = 200, description = "Its bytes", body = Vec<u8>, content_type = "application/octet-stream")),
)]
pub(crate) async fn file(
    State(ground): State<Ground>,
    caller: Caller,
    Path((key, hex)): Path<(String, String)>,
    Query(piece): Query<Piece>,
) -> Result<Response, Problem> {
    let row = result(&ground, &caller, &piece.project, &key).await?;
    let named = row.outputs.iter().find(|output| output.digest.to_hex() == hex).map(|output| output.digest);
    let absent = || Problem::not_found("file", hex.chars().take(64).collect::<String>());
    let digest = named.ok_or_else(absent)?;
    let (store, on) = (ground.fleet.store.clone(), row.name.namespace.on(Shelf::Artifacts));
    let blob = blocking(move || store.get(&on, &digest)).await??.ok_or_else(absent)?;
    let (total, start) = (blob.len(), piece.offset.min(blob.len()));
    let body = match start {
        0 => begun(blob.reader(), next_piece).await?,
        start => begun((blob, start, total), next_part).await?,
    };
    Ok(streamed(body, total - start))
}

/// The log of a result, for who may read that build.
#[utoipa::path(
    get,
    path = "/api/v1/reuse/results/{key}/log",
    tag = "reuse",
    operation_id = "reuse_log",
    params(("key" = String, Path, description = "A key's 64 hex digits"), Piece),
    responses((status = 200, description = "Its bytes, of a very long one the first", body = Vec<u8>,
        content_type = "application/octet-stream")),
)]
pub(crate) async fn log(
    State(ground): State<Ground>,
    caller: Caller,
    Path(key): Path<String>,
    Query(piece): Query<Piece>,
) -> Result<Response, Problem> {
    let row = result(&ground, &caller, &piece.project, &key).await?;
    if !reads_log(&caller, &row) {
        return Err(Problem::new(Kind::Forbidden, "the token may not read the build whose log this is"));
    }
    let len = ground.fleet.logs.len(row.from.attempt).await?.map_or(0, |len| len.durable).min(FLEET_LOG_MAX_BYTES);
    let start = piece.offset.min(len);
    if start == len {
        return Ok(streamed(Body::empty(), 0));
    }
    let reader = ground.fleet.logs.read(row.from.attempt, start..len).await?;
    let next = async |mut reader: PieceReader| {
        let piece = reader.next().await?;
        Ok::<_, Fault>(piece.map(|piece| (piece.bytes, reader)))
    };
    Ok(streamed(Body::from_stream(stream::try_unfold(reader, next)), len - start))
}

/// What an image's name stands for now, as steps of the project have it.
#[utoipa::path(
    post,
    path = "/api/v1/reuse/images",
    tag = "reuse",
    operation_id = "reuse_image",
    request_body = ImageAsked,
    responses((status = 200, description = "It", body = ImageFound)),
)]
pub(crate) async fn image(
    State(ground): State<Ground>,
    caller: Caller,
    body: JsonBody<ImageAsked>,
) -> Result<(StatusCode, Json<ImageFound>), Problem> {
    caller.need(&[Scope::CacheRead])?;
    let ImageAsked { project, image, platform } = body.value;
    namespace_of(&caller, &project)?;
    if image.len() > NAME_MAX_BYTES || platform.len() > NAME_MAX_BYTES {
        return Err(Problem::invalid(format!("image, platform: at most {NAME_MAX_BYTES} bytes")));
    }
    // With the operator's credentials for who is trusted alone, as for builds.
    let trust = if caller.is_trusted() { Trust::Trusted } else { Trust::Untrusted };
    let engine = ground.engine.as_ref().ok_or_else(|| Problem::new(Kind::Unavailable, "no registry is asked here"))?;
    let found = engine.image(&image, &platform, trust).await;
    let (digest, config) = found.map_err(|why| Problem::new(Kind::NotFound, why))?;
    Ok((StatusCode::OK, Json(ImageFound { digest, config })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_the_same_by_whatever_way_it_is_reached() {
        for text in [
            "https://github.com/org/app",
            "https://GitHub.com/org/app.git",
            "https://user:token@github.com/org/app/",
            "ssh://git@github.com/org/app.git",
            "git@github.com:org/app.git",
        ] {
            assert_eq!(place_of(text), "github.com/org/app", "{text}");
        }
        assert_eq!(place_of("/srv/git/app.git"), "/srv/git/app");
        assert_ne!(place_of("https://github.com/org/App"), place_of("https://github.com/org/app"));
    }
}
