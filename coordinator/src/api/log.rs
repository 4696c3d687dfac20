//! Logs: ranges of their bytes, and live streams.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::sse::{Event as SseEvent, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use windlass_coordinator_core::row::{AttemptRow, Scope};
use windlass_coordinator_logs::{Event, Fault, Follower, Piece, PieceReader};
use windlass_protocol::{AttemptId, Digest};

use super::Ground;
use super::auth::Caller;
use super::build::some;
use super::event::{keep_alive, last_event_id};
use super::extract::{self, Query};
use super::problem::Problem;
use super::range::Ranged;
use super::replay::Shown;
use super::shape::time;

/// How a log is written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// The bytes.
    #[default]
    Raw,
    /// The bytes, as text.
    Text,
    /// A JSON object a piece, with its time.
    Ndjson,
}

/// How a log is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Ask {
    /// `raw`, `text` or `ndjson`.
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// Where a stream begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct From {
    /// Of the first byte; `Last-Event-ID` goes before it.
    offset: Option<u64>,
}

/// Bytes of a log that were written together.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogPiece {
    offset: u64,
    /// In bytes.
    length: usize,
    at: String,
    /// Where the bytes are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Base64, where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

impl LogPiece {
    fn of(piece: &Piece) -> Self {
        let (text, data) = match std::str::from_utf8(&piece.bytes) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(&piece.bytes))),
        };
        Self { offset: piece.offset, length: piece.bytes.len(), at: time(piece.at), text, data }
    }
}

/// An attempt that the caller may see.
async fn find(ground: &Ground, caller: &Caller, text: &str) -> Result<AttemptRow, Problem> {
    let absent = || Problem::not_found("attempt", text);
    let id: AttemptId = extract::id("attempt", text)?;
    let attempt = ground.fleet.reader.attempt(id).await?.ok_or_else(absent)?;
    some(ground, caller, attempt.build, Vec::new()).await?.ok_or_else(absent)?;
    Ok(attempt)
}

/// A range of a log's durable bytes.
#[utoipa::path(
    get,
    path = "/api/v1/attempts/{id}/log",
    tag = "logs",
    operation_id = "log_read",
    params(
        ("id" = String, Path, description = "An attempt's id"),
        Ask,
        ("Range" = Option<String>, Header, description = "`bytes=first-last`")
    ),
    responses(
        (status = 200, description = "Durable bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "A range of them", body = Vec<u8>, content_type = "application/octet-stream")
    ),
)]
pub(crate) async fn read(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    Query(ask): Query<Ask>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let attempt = find(&ground, &caller, &id).await?;
    let shown = Shown::of(&ground, &caller, &attempt).await?;
    let own = match shown.attempt {
        Some(attempt) => ground.fleet.logs.len(attempt).await?.map_or(0, |len| len.durable),
        None => 0,
    };
    let total = shown.before() + own;
    let range = Ranged::of(&headers, total, "log")?;
    let (start, end) = range.bounds();
    let body = bytes_of(&ground, shown, (start, end, own), ask.format).await?;
    let mut response = body.into_response();
    let content = match ask.format {
        Format::Raw => "application/octet-stream",
        Format::Text => "text/plain; charset=utf-8",
        Format::Ndjson => "application/x-ndjson",
    };
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    if ask.format != Format::Ndjson {
        out.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    }
    range.describe(&mut response);
    Ok(response)
}

/// A range of a log, of which the attempt whose bytes are shown has so many.
async fn bytes_of(
    ground: &Ground,
    shown: Shown,
    (start, end, own): (u64, u64, u64),
    format: Format,
) -> Result<Body, Problem> {
    let before = shown.before();
    let mut head = shown.head_from(start).filter(|_| start < end);
    if let Some(head) = &mut head {
        let most = usize::try_from(end - start).unwrap_or(usize::MAX).min(head.bytes.len());
        head.bytes.truncate(most);
    }
    let range = start.saturating_sub(before)..end.saturating_sub(before);
    let pieces = match shown.attempt.filter(|_| !range.is_empty()) {
        Some(attempt) => match ground.fleet.logs.read(attempt, range).await {
            // Nothing was written yet, or nothing ever.
            Err(Fault::Unknown { .. }) if own == 0 => None,
            other => Some(other?),
        },
        None => None,
    };
    let stream = stream::try_unfold((head, pieces, shown), move |rest| next_bytes(rest, format));
    Ok(Body::from_stream(stream))
}

/// What of a range is still to be sent.
type Rest = (Option<Piece>, Option<PieceReader>, Shown);

async fn next_bytes((head, mut pieces, shown): Rest, format: Format) -> Result<Option<(Bytes, Rest)>, Fault> {
    let piece = match (head, &mut pieces) {
        (Some(head), _) => head,
        (None, Some(pieces)) => match pieces.next().await? {
            Some(piece) => shown.moved(piece),
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let bytes = match format {
        Format::Raw | Format::Text => piece.bytes,
        Format::Ndjson => {
            let mut line = serde_json::to_vec(&LogPiece::of(&piece)).unwrap_or_default();
            line.push(b'\n');
            line.into()
        }
    };
    Ok(Some((bytes, (None, pieces, shown))))
}

/// A log as it grows.
#[utoipa::path(
    get,
    path = "/api/v1/attempts/{id}/log/stream",
    tag = "logs",
    operation_id = "log_stream",
    params(
        ("id" = String, Path, description = "An attempt's id"),
        From,
        ("Last-Event-ID" = Option<String>, Header, description = "Goes on after the event with this id")
    ),
    responses(
        (
            status = 200, description = "Server-Sent Events: pieces, `reset`, `end`",
            body = LogPiece,
            content_type = "text/event-stream"
        )
    ),
)]
pub(crate) async fn stream(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let attempt = find(&ground, &caller, &id).await?;
    let offset = last_event_id(&headers)?.or(from.offset).unwrap_or(0);
    let shown = Shown::of(&ground, &caller, &attempt).await?;
    let source = match shown.attempt {
        // A log that ended without a byte is not remembered, and would be waited for in vain.
        Some(id) if attempt.state.is_final() && ground.fleet.logs.len(id).await?.is_none() => None,
        other => other,
    };
    let mut events: VecDeque<SseEvent> = shown.head_from(offset).iter().map(bytes_event).collect();
    let Some(source) = source else {
        if offset > shown.before() {
            events.push_back(reset(shown.before()));
        }
        events.push_back(end(shown.before(), Some(Digest::of(&shown.head))));
        let events = stream::iter(events.into_iter().map(Ok::<_, Infallible>));
        return Ok(Sse::new(events).into_response());
    };
    let follower = ground.fleet.logs.follow(source, offset.saturating_sub(shown.before())).await?;
    let first = stream::iter(events.into_iter().map(Ok::<_, Infallible>));
    let events = first.chain(stream::unfold(Some((follower, shown)), next_event));
    Ok(Sse::new(events).keep_alive(keep_alive()).into_response())
}

fn bytes_event(piece: &Piece) -> SseEvent {
    SseEvent::default().id(piece.end().to_string()).data(json(&LogPiece::of(piece)))
}

type Following = Option<(Follower, Shown)>;

async fn next_event(following: Following) -> Option<(Result<SseEvent, Infallible>, Following)> {
    let (mut follower, shown) = following?;
    match follower.next().await {
        Ok(Event::Bytes(piece)) => Some((Ok(bytes_event(&shown.moved(piece))), Some((follower, shown)))),
        Ok(Event::Reset { offset }) => Some((Ok(reset(offset + shown.before())), Some((follower, shown)))),
        Ok(Event::End { bytes, digest }) => {
            // Of a log that is put together nobody has the digest.
            let digest = shown.head.is_empty().then_some(digest);
            Some((Ok(end(bytes + shown.before(), digest)), None))
        }
        Err(fault) => {
            // The stream ends without `end`: the client comes again where it was.
            tracing::warn!(%fault, "log_stream_broken");
            None
        }
    }
}

fn reset(offset: u64) -> SseEvent {
    SseEvent::default().event("reset").id(offset.to_string()).data(json(&json!({ "offset": offset })))
}

fn end(bytes: u64, digest: Option<Digest>) -> SseEvent {
    let data = json!({ "bytes": bytes, "digest": digest.map(|digest| digest.to_string()) });
    SseEvent::default().event("end").id(bytes.to_string()).data(json(&data))
}

/// Our shapes are always JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
