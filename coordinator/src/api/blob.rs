//! Blobs over HTTP: bytes by digest, within the namespace of the project and the token (I12).
//!
//! Bytes are streamed both ways, a bounded piece at a time; no thread is held while a client thinks.

use std::io::Read as _;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use windlass_cache::{Blob, BlobReader, Fault, RemoteError, Unpack, Upload};
use windlass_coordinator_core::row::Scope;
use windlass_protocol::limits::{
    BLOB_MAX_BYTES, HTTP_BLOB_PIECE_BYTES, HTTP_BODY_IDLE_MS, MISSING_MAX_DIGESTS, PACK_MAX_BYTES,
};
use windlass_protocol::{Digest, Namespace, Trust};

use super::Ground;
use super::auth::Caller;
use super::extract::{JsonBody, Query};
use super::problem::{Kind, Problem};
use super::submit::check_name;
use crate::room::Seat;

/// Scopes that let one upload.
pub(super) const WRITE: [Scope; 2] = [Scope::CacheWrite, Scope::BuildsWrite];

/// Where a blob is looked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Place {
    /// The project: a pipeline's name.
    project: String,
}

impl Place {
    fn namespace(&self, caller: &Caller) -> Result<Namespace, Problem> {
        namespace_of(caller, &self.project)
    }
}

/// Where a token's blobs of a project are.
pub(super) fn namespace_of(caller: &Caller, project: &str) -> Result<Namespace, Problem> {
    check_name("project", project)?;
    caller.need_place(project, None)?;
    Ok(caller.namespace(project))
}

/// Which blobs are asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// At most 10,000.
    #[schema(value_type = Vec<String>)]
    digests: Vec<Digest>,
}

/// Which of them are to be uploaded.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Missing {
    #[schema(value_type = Vec<String>)]
    missing: Vec<Digest>,
}

/// A blob that is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stored {
    #[schema(value_type = String)]
    digest: Digest,
    bytes: u64,
}

/// The blobs of a pack that are stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Unpacked {
    #[schema(value_type = Vec<String>)]
    digests: Vec<Digest>,
}

fn digest(hex: &str) -> Result<Digest, Problem> {
    Digest::from_hex(hex).map_err(|_| Problem::not_found("blob", hex.chars().take(64).collect::<String>()))
}

/// Runs what blocks on the disk elsewhere.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::internal(&error))
}

async fn find(ground: &Ground, caller: &Caller, place: &Place, hex: &str) -> Result<Blob, Problem> {
    caller.need(&[Scope::CacheRead])?;
    let (namespace, digest) = (place.namespace(caller)?, digest(hex)?);
    let store = ground.fleet.store.clone();
    let blob = blocking(move || store.get(&namespace, &digest)).await??;
    blob.ok_or_else(|| Problem::not_found("blob", digest))
}

fn headed(blob: &Blob, body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.len()));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", blob.digest())) {
        headers.insert(ETAG, tag);
    }
    response
}

/// Whether a blob is there, and how large.
#[utoipa::path(
    head,
    path = "/api/v1/blobs/b3/{hex}",
    tag = "blobs",
    operation_id = "blob_head",
    params(("hex" = String, Path, description = "64 lower-case hex digits of a BLAKE3 digest"), Place),
    responses((status = 200, description = "It is there")),
)]
pub(crate) async fn head(
    State(ground): State<Ground>,
    caller: Caller,
    Path(hex): Path<String>,
    Query(place): Query<Place>,
) -> Result<Response, Problem> {
    let blob = find(&ground, &caller, &place, &hex).await?;
    Ok(headed(&blob, Body::empty()))
}

/// A blob's bytes. The last of them come only if all were right.
#[utoipa::path(
    get,
    path = "/api/v1/blobs/b3/{hex}",
    tag = "blobs",
    operation_id = "blob_get",
    params(("hex" = String, Path, description = "64 lower-case hex digits of a BLAKE3 digest"), Place),
    responses((status = 200, description = "Its bytes", body = Vec<u8>, content_type = "application/octet-stream")),
)]
pub(crate) async fn get(
    State(ground): State<Ground>,
    caller: Caller,
    Path(hex): Path<String>,
    Query(place): Query<Place>,
) -> Result<Response, Problem> {
    let blob = find(&ground, &caller, &place, &hex).await?;
    let mut response = headed(&blob, Body::empty());
    *response.body_mut() = begun(blob.reader(), next_piece).await?;
    Ok(response)
}

/// A body whose first piece is read before anything is answered: what cannot be read is said then, and not by a body that ends early.
pub(super) async fn begun<S, F>(state: S, next: impl Fn(S) -> F + Send + Sync + 'static) -> Result<Body, Problem>
where
    S: Send + 'static,
    F: Future<Output = std::io::Result<Option<(Bytes, S)>>> + Send + 'static,
{
    let unread = |error: std::io::Error| match error.downcast::<Fault>() {
        Ok(fault) => Problem::from(fault),
        Err(error) if error.get_ref().is_some_and(|inner| inner.is::<RemoteError>()) => Problem::no_bucket(&error),
        Err(error) => Problem::internal(&error),
    };
    let Some((first, rest)) = next(state).await.map_err(unread)? else { return Ok(Body::empty()) };
    let first = stream::once(std::future::ready(std::io::Result::Ok(first)));
    Ok(Body::from_stream(first.chain(stream::try_unfold(rest, next))))
}

pub(super) async fn next_piece(mut reader: BlobReader) -> std::io::Result<Option<(Bytes, BlobReader)>> {
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; HTTP_BLOB_PIECE_BYTES];
        let read = reader.read(&mut piece)?;
        piece.truncate(read);
        Ok::<_, std::io::Error>((Bytes::from(piece), reader))
    });
    let (piece, reader) = read.await.map_err(std::io::Error::other)??;
    Ok((!piece.is_empty()).then_some((piece, reader)))
}

/// What a body is poured into, on a blocking thread.
pub(super) trait Sink: Send + 'static {
    fn take(&mut self, bytes: &[u8]) -> Result<(), windlass_cache::Error>;
}

impl Sink for Upload {
    fn take(&mut self, bytes: &[u8]) -> Result<(), windlass_cache::Error> {
        self.write(bytes)
    }
}

impl Sink for Unpack {
    fn take(&mut self, bytes: &[u8]) -> Result<(), windlass_cache::Error> {
        self.push(bytes)
    }
}

pub(super) async fn pour<S: Sink>(body: Body, mut sink: S) -> Result<S, Problem> {
    let mut pieces = body.into_data_stream();
    loop {
        let (gathered, bytes, ended) = gather(&mut pieces).await;
        if bytes > 0 {
            sink = blocking(move || {
                gathered.iter().try_for_each(|piece| sink.take(piece))?;
                Ok::<_, windlass_cache::Error>(sink)
            })
            .await??;
        }
        match ended {
            Ended::NotYet => {}
            Ended::Whole => return Ok(sink),
            Ended::Broken(problem) => return Err(problem),
        }
    }
}

/// Whether more of a body may come.
#[derive(Debug)]
pub(super) enum Ended {
    NotYet,
    Whole,
    /// It stopped before it was whole.
    Broken(Problem),
}

/// Some pieces of a body, how many bytes they are, and whether more may come.
pub(super) async fn gather(pieces: &mut BodyDataStream) -> (Vec<Bytes>, usize, Ended) {
    let broken = |detail| Ended::Broken(Problem::new(Kind::BadRequest, detail));
    let (mut gathered, mut bytes) = (Vec::new(), 0);
    while bytes < HTTP_BLOB_PIECE_BYTES {
        let next = tokio::time::timeout(Duration::from_millis(HTTP_BODY_IDLE_MS), pieces.next()).await;
        match next {
            Ok(Some(Ok(piece))) => {
                bytes += piece.len();
                gathered.push(piece);
            }
            Ok(Some(Err(_))) => return (gathered, bytes, broken("the body ended before it was whole")),
            Ok(None) => return (gathered, bytes, Ended::Whole),
            Err(_) => return (gathered, bytes, broken("the body stopped before it was whole")),
        }
    }
    (gathered, bytes, Ended::NotYet)
}

/// How many bytes a body is said to have.
fn announced_bytes(headers: &axum::http::HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

pub(super) fn room(ground: &Ground, caller: &Caller) -> Result<Seat, Problem> {
    let trust = if caller.is_trusted() { Trust::Trusted } else { Trust::Untrusted };
    let busy = || Problem::new(Kind::Unavailable, "as many uploads as may be are under way; try again");
    ground.uploads.try_enter(trust).ok_or_else(busy)
}

/// Stores a blob under its digest.
#[utoipa::path(
    put,
    path = "/api/v1/blobs/b3/{hex}",
    tag = "blobs",
    operation_id = "blob_put",
    params(("hex" = String, Path, description = "64 lower-case hex digits of a BLAKE3 digest"), Place),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "Stored, durably", body = Stored)),
)]
pub(crate) async fn put(
    State(ground): State<Ground>,
    caller: Caller,
    Path(hex): Path<String>,
    Query(place): Query<Place>,
    headers: axum::http::HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Stored>), Problem> {
    caller.need(&WRITE)?;
    let (namespace, digest) = (place.namespace(&caller)?, digest(&hex)?);
    let announced = announced_bytes(&headers);
    if announced.is_some_and(|bytes| bytes > BLOB_MAX_BYTES) {
        return Err(Problem::new(Kind::TooLarge, format!("a blob has at most {BLOB_MAX_BYTES} bytes")));
    }
    ground.sweeper.check_room(&namespace, announced.unwrap_or_default())?;
    let _room = room(&ground, &caller)?;
    let store = ground.fleet.store.clone();
    let upload = blocking(move || match announced {
        Some(bytes) => store.begin_put_in(&namespace, Some(digest), store.reserve(bytes, 0)?),
        None => store.begin_put(&namespace, Some(digest)),
    });
    let upload = upload.await??;
    let upload = pour(body, upload).await?;
    let bytes = upload.len();
    let digest = blocking(move || upload.finish()).await??;
    Ok((StatusCode::CREATED, Json(Stored { digest, bytes })))
}

/// Which of many blobs are to be uploaded.
#[utoipa::path(
    post,
    path = "/api/v1/blobs/missing",
    tag = "blobs",
    operation_id = "blob_missing",
    params(Place),
    request_body = Asked,
    responses((status = 200, description = "Those that are not there", body = Missing)),
)]
pub(crate) async fn missing(
    State(ground): State<Ground>,
    caller: Caller,
    Query(place): Query<Place>,
    body: JsonBody<Asked>,
) -> Result<Json<Missing>, Problem> {
    caller.need(&[Scope::CacheRead, Scope::CacheWrite, Scope::BuildsWrite])?;
    let namespace = place.namespace(&caller)?;
    let digests = body.value.digests;
    if digests.len() > MISSING_MAX_DIGESTS {
        return Err(Problem::new(Kind::LimitReached, format!("digests: at most {MISSING_MAX_DIGESTS} at once")));
    }
    let store = ground.fleet.store.clone();
    let missing = blocking(move || store.missing(&namespace, &digests)).await?;
    Ok(Json(Missing { missing }))
}

/// Stores the blobs of a pack.
#[utoipa::path(
    post,
    path = "/api/v1/blobs/pack",
    tag = "blobs",
    operation_id = "blob_pack",
    params(Place),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "Stored, durably", body = Unpacked)),
)]
pub(crate) async fn pack(
    State(ground): State<Ground>,
    caller: Caller,
    Query(place): Query<Place>,
    headers: axum::http::HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Unpacked>), Problem> {
    caller.need(&WRITE)?;
    let namespace = place.namespace(&caller)?;
    let announced = announced_bytes(&headers);
    ground.sweeper.check_room(&namespace, announced.unwrap_or_default())?;
    let _room = room(&ground, &caller)?;
    let store = ground.fleet.store.clone();
    let unpack = blocking(move || match announced {
        // More than a pack has are refused when they come.
        Some(bytes) => Ok::<_, Fault>(Unpack::within(&store, &namespace, store.reserve(bytes.min(PACK_MAX_BYTES), 0)?)),
        None => Ok(Unpack::new(&store, &namespace)),
    });
    let unpack = pour(body, unpack.await??).await?;
    let digests = blocking(move || unpack.finish()).await??;
    Ok((StatusCode::CREATED, Json(Unpacked { digests })))
}
