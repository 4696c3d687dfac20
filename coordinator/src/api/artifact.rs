//! Artifacts: a build's list, and the bytes of each, whole or in part.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use windlass_cache::Blob;
use windlass_coordinator_core::row::{ArtifactRow, BuildRows, Scope};
use windlass_coordinator_store::ArtifactFilter;
use windlass_pipeline::glob::PathQuery;
use windlass_protocol::host::now;
use windlass_protocol::limits::{HTTP_BLOB_PIECE_BYTES, TREE_NAME_MAX_BYTES};
use windlass_protocol::{ArtifactId, AttemptId, BuildId, Digest, JobId, Shelf};

use super::Ground;
use super::auth::Caller;
use super::blob::{begun, blocking, next_piece};
use super::build::{by_id, find};
use super::extract::{self, Page, Query};
use super::problem::Problem;
use super::range::Ranged;
use super::shape::time;

/// RFC 9530.
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Which artifacts to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Those whose path this describes: `*` is any run of characters, `/` too.
    path: Option<String>,
    /// Of this step: key, label, or the id of a job or of an attempt.
    step: Option<String>,
    /// Of earlier attempts too.
    #[serde(default)]
    retried: bool,
    /// Where the last page ended.
    cursor: Option<String>,
    /// 1 to 500; 50 if it is left out.
    limit: Option<usize>,
}

/// A file of a job that outlives it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Artifact {
    #[schema(value_type = String)]
    id: ArtifactId,
    /// With `/`, relative to where the job ran.
    path: String,
    bytes: u64,
    /// `b3:` and 64 hex digits.
    #[schema(value_type = String)]
    digest: Digest,
    /// 64 hex digits.
    sha256: String,
    /// 40 hex digits.
    sha1: String,
    content_type: String,
    /// Whether it may be executed: whoever downloads it gives it that mode.
    executable: bool,
    #[schema(value_type = String)]
    build_id: BuildId,
    #[schema(value_type = String)]
    job_id: JobId,
    /// The attempt's number.
    attempt: u32,
    created_at: String,
    /// Of a pinned build not before its pin ends: in the year 9999 where that has no end.
    expires_at: String,
    /// The person who uploaded it; null where the job did.
    uploaded_by: Option<String>,
    /// Where its bytes are.
    url: String,
}

impl Artifact {
    pub(super) fn of(row: ArtifactRow, rows: &BuildRows, url: &str) -> Self {
        let attempt = rows.attempts.iter().find(|attempt| attempt.id == row.attempt);
        Self {
            id: row.id,
            bytes: row.bytes,
            digest: row.digest,
            build_id: row.build,
            job_id: row.job,
            attempt: attempt.map_or(0, |attempt| attempt.number),
            created_at: time(row.created_at),
            expires_at: time(row.expires_at),
            url: format!("{url}/api/v1/artifacts/{}", row.id),
            uploaded_by: row.by.map(|actor| actor.name),
            path: row.path,
            sha256: row.sha256,
            sha1: row.sha1,
            content_type: row.content_type,
            executable: row.executable,
        }
    }
}

/// Of which attempts artifacts are listed; `None` is of all.
fn attempts(rows: &BuildRows, filter: &Filter) -> Result<Option<BTreeSet<AttemptId>>, Problem> {
    let found = crate::job_desk::attempts_of(rows, filter.step.as_deref().unwrap_or_default(), filter.retried);
    found.ok_or_else(|| Problem::not_found("step", filter.step.as_deref().unwrap_or_default()))
}

/// A build's artifacts, newest first: those of the last attempt of each job, or of all.
#[utoipa::path(
    get,
    path = "/api/v1/builds/{id}/artifacts",
    tag = "artifacts",
    operation_id = "artifact_list",
    params(("id" = String, Path, description = "A build's id, or `latest`"), Filter),
    responses((status = 200, description = "A page", body = Page<Artifact>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<Artifact>>, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let limit = extract::limit(filter.limit)?;
    let cursor = extract::cursor(filter.cursor.as_deref())?;
    if filter.path.as_ref().is_some_and(|path| path.len() > TREE_NAME_MAX_BYTES) {
        return Err(Problem::invalid(format!("path: at most {TREE_NAME_MAX_BYTES} bytes")));
    }
    let (_, rows) = find(&ground, &caller, &id).await?;
    let wanted = ArtifactFilter {
        build: rows.build.id,
        attempts: attempts(&rows, &filter)?,
        path: filter.path.as_deref().map(PathQuery::new),
        at: now().wall,
        before: None,
    };
    let page = ground.fleet.reader.artifacts(wanted, cursor, limit).await?;
    let items = page.items.into_iter().map(|row| Artifact::of(row, &rows, &ground.url)).collect();
    Ok(Json(Page { items, next_cursor: page.next.map(|cursor| cursor.to_string()) }))
}

/// An artifact that the caller may see and whose time is not over, with its build.
async fn known(ground: &Ground, caller: &Caller, text: &str) -> Result<(ArtifactRow, BuildRows), Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let absent = || Problem::not_found("artifact", text);
    let id: ArtifactId = extract::id("artifact", text)?;
    let row = ground.fleet.reader.artifact(id).await?.filter(|row| row.expires_at > now().wall).ok_or_else(absent)?;
    let (_, rows) = by_id(ground, caller, row.build).await?.ok_or_else(absent)?;
    Ok((row, rows))
}

/// What is known of an artifact.
#[utoipa::path(
    get,
    path = "/api/v1/artifacts/{id}/info",
    tag = "artifacts",
    operation_id = "artifact_show",
    params(("id" = String, Path, description = "An artifact's id")),
    responses((status = 200, description = "It", body = Artifact)),
)]
pub(crate) async fn show(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Artifact>, Problem> {
    let (row, rows) = known(&ground, &caller, &id).await?;
    Ok(Json(Artifact::of(row, &rows, &ground.url)))
}

/// An artifact's bytes, or a range of them. A whole one is checked on its way: its last bytes come only if all were right.
#[utoipa::path(
    get,
    path = "/api/v1/artifacts/{id}",
    tag = "artifacts",
    operation_id = "artifact_read",
    params(
        ("id" = String, Path, description = "An artifact's id"),
        ("Range" = Option<String>, Header, description = "`bytes=first-last`"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` that the client has")
    ),
    responses(
        (status = 200, description = "Its bytes; `Repr-Digest` has their SHA-256", body = Vec<u8>,
            content_type = "application/octet-stream"),
        (status = 206, description = "A range of them", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has them"),
    ),
)]
pub(crate) async fn read(
    State(ground): State<Ground>,
    caller: Caller,
    method: Method,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (row, _) = known(&ground, &caller, &id).await?;
    let tag = HeaderValue::from_str(&format!("\"{}\"", row.digest)).map_err(|error| Problem::internal(&error))?;
    if headers.get(IF_NONE_MATCH).is_some_and(|seen| is_among(seen, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    let (store, on, digest) = (ground.fleet.store.clone(), row.namespace.on(Shelf::Artifacts), row.digest);
    let blob = blocking(move || store.get(&on, &digest)).await??;
    let blob = blob.ok_or_else(|| Problem::not_found("artifact", &id))?;
    let total = blob.len();
    let range = Ranged::of(&headers, total, "artifact")?;
    let (start, end) = range.bounds();
    let body = match (method == Method::HEAD, range) {
        (true, _) => Body::empty(),
        (false, Ranged::Whole { .. }) => begun(blob.reader(), next_piece).await?,
        (false, Ranged::Part { .. }) => begun((blob, start, end), next_part).await?,
    };
    let mut response = body.into_response();
    describe(&row, tag, response.headers_mut());
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    range.describe(&mut response);
    Ok(response)
}

/// Whether an `If-None-Match` names this tag.
fn is_among(seen: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(seen), Ok(tag)) = (seen.to_str(), tag.to_str()) else { return false };
    seen.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == "*" || one == tag)
}

/// What is said of the bytes beside them. They are somebody's: a browser saves them, and runs none of them.
fn describe(row: &ArtifactRow, tag: HeaderValue, headers: &mut HeaderMap) {
    let unknown = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(&row.content_type).unwrap_or(unknown));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    headers.insert(ETAG, tag);
    if let Ok(name) = HeaderValue::from_str(&disposition(&row.path)) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    if let Some(digest) = repr_digest(&row.sha256) {
        headers.insert(REPR_DIGEST, digest);
    }
}

/// RFC 6266: the file's own name, in UTF-8 (RFC 8187).
fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    format!("attachment; filename*=UTF-8''{encoded}")
}

/// RFC 9530, of the whole artifact whatever range is sent.
fn repr_digest(sha256: &str) -> Option<HeaderValue> {
    let pairs = (0..sha256.len()).step_by(2).map(|at| u8::from_str_radix(sha256.get(at..at + 2)?, 16).ok());
    let bytes: Vec<u8> = pairs.collect::<Option<_>>()?;
    HeaderValue::from_str(&format!("sha-256=:{}:", STANDARD.encode(bytes))).ok()
}

/// The next bytes of a range, as they lie on the disk.
pub(super) async fn next_part((blob, at, end): (Blob, u64, u64)) -> std::io::Result<Option<(Bytes, (Blob, u64, u64))>> {
    if at >= end {
        return Ok(None);
    }
    let read = tokio::task::spawn_blocking(move || {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(HTTP_BLOB_PIECE_BYTES);
        let mut piece = vec![0; want];
        let read = blob.read_at(at, &mut piece).map_err(std::io::Error::other)?;
        piece.truncate(read);
        Ok::<_, std::io::Error>((Bytes::from(piece), blob))
    });
    let (piece, blob) = read.await.map_err(std::io::Error::other)??;
    if piece.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let next = at + piece.len() as u64;
    Ok(Some((piece, (blob, next, end))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_saved_by_its_own_name_whatever_it_is() {
        for (path, expected) in [("log/a.txt", "a.txt"), ("a b\"c\r\n.txt", "a%20b%22c%0D%0A.txt"), ("ü/é", "%C3%A9")]
        {
            assert_eq!(disposition(path), format!("attachment; filename*=UTF-8''{expected}"), "{path}");
        }
    }

    #[test]
    fn the_digest_of_the_whole_is_written_as_rfc_9530_says() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let shown = repr_digest(empty).unwrap();
        assert_eq!(shown, "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
        assert_eq!(repr_digest("nonsense!"), None);
    }

    #[test]
    fn a_tag_is_found_among_those_that_a_client_has() {
        let tag = HeaderValue::from_static("\"b3:1\"");
        for (seen, yes) in [("\"b3:1\"", true), ("\"x\", W/\"b3:1\"", true), ("*", true), ("\"b3:2\"", false)] {
            assert_eq!(is_among(&HeaderValue::from_static(seen), &tag), yes, "{seen}");
        }
    }
}
