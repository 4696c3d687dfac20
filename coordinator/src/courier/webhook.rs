//! Webhooks: an event of a build in Buildkite's shape, signed (docs/notifications.md).

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};
use windlass_coordinator_core::row::{BuildFacts, BuildNews, Delivery, NotificationRow};
use windlass_protocol::{NotificationId, WallMs};

use super::http::Post;
use super::key::Keys;
use super::never;
use crate::api::time;

/// A webhook's body: the same for each try.
pub(super) fn body(row: &NotificationRow, event: BuildNews, facts: &BuildFacts, url: &str) -> Value {
    let moment = |at: Option<WallMs>| at.map(time);
    let creator = json!({ "kind": facts.creator.kind, "name": facts.creator.name });
    let (web_url, api) = (format!("{url}/builds/{}", row.build), format!("{url}/api/v1"));
    json!({
        "event": event.name(),
        "build": {
            "id": row.build,
            "url": format!("{api}/builds/{}", row.build),
            "web_url": web_url,
            "number": facts.number,
            "state": facts.state,
            "blocked": facts.blocked,
            "message": facts.message,
            "commit": facts.commit,
            "branch": facts.branch,
            "tag": facts.tag,
            "source": facts.source.word(),
            "creator": creator,
            "created_at": time(facts.created_at),
            "scheduled_at": time(facts.created_at),
            "started_at": moment(facts.started_at),
            "finished_at": moment(facts.finished_at),
            "rebuilt_from": facts.rebuilt_from.map(|id| json!({ "id": id })),
        },
        "pipeline": {
            "id": facts.pipeline_id,
            "url": format!("{api}/pipelines/{}", facts.pipeline),
            "name": facts.pipeline,
            "slug": facts.pipeline,
            "repository": facts.repository,
        },
        "sender": creator,
    })
}

/// The request, signed for this moment.
pub(super) fn post(
    url: &str,
    event: BuildNews,
    id: NotificationId,
    body: Value,
    keys: &Keys,
    at: WallMs,
) -> Result<Post, Delivery> {
    let (body, seconds) = (body.to_string().into_bytes(), at.0 / 1_000);
    let texts = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (HeaderName::from_static("webhook-id"), id.to_string()),
        (HeaderName::from_static("webhook-timestamp"), seconds.to_string()),
        (HeaderName::from_static("webhook-signature"), keys.standard(id, seconds, &body)),
        (HeaderName::from_static("x-buildkite-event"), event.name().to_owned()),
        (HeaderName::from_static("x-buildkite-signature"), keys.buildkite(seconds, &body)),
    ];
    let header = |(name, text): (HeaderName, String)| {
        HeaderValue::try_from(text).map(|value| (name, value)).map_err(|_| never("a header has odd characters"))
    };
    let headers = texts.into_iter().map(header).collect::<Result<Vec<_>, _>>()?;
    Ok(Post { url: url.to_owned(), headers, body })
}
