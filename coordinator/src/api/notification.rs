//! A build's notifications: what others were told of it, and what came of that (docs/notifications.md).

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Serialize;
use utoipa::ToSchema;
use windlass_coordinator_core::row::{Message, NotificationRow, NotificationState, Scope, origin_of};
use windlass_protocol::{BuildId, NotificationId};

use super::Ground;
use super::auth::Caller;
use super::build::find;
use super::extract::{self, Page, Paging};
use super::problem::Problem;
use super::shape::time;

/// One message to one receiver.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Notification {
    #[schema(value_type = String)]
    id: NotificationId,
    #[schema(value_type = String)]
    build_id: BuildId,
    /// As in `notify`: `webhook`, `github_commit_status`, or one that is not served.
    service: String,
    /// Where to: a webhook's scheme and host (the rest may be a secret), a status's repository.
    target: Option<String>,
    /// What is told: `build.finished`, or the status as `context: state`.
    event: Option<String>,
    /// `pending`, `delivered`, `failed` or `refused`.
    #[schema(value_type = String)]
    state: NotificationState,
    /// Tries so far.
    attempts: u32,
    /// The HTTP status of the last answer.
    status: Option<u16>,
    /// Why the last try failed, or why it was never sent.
    detail: Option<String>,
    created_at: String,
    /// When it is tried next; null once it is over.
    next_attempt_at: Option<String>,
    finished_at: Option<String>,
}

impl From<NotificationRow> for Notification {
    fn from(row: NotificationRow) -> Self {
        let (target, event) = match &row.message {
            Message::Webhook { url, event, .. } => (Some(origin_of(url).to_owned()), Some(event.name().to_owned())),
            Message::GithubCommitStatus { repository, context, state, .. } => {
                (Some(repository.clone()), Some(format!("{context}: {}", state.name())))
            }
            Message::Unsent { .. } => (None, None),
        };
        Self {
            id: row.id,
            build_id: row.build,
            service: row.message.service().to_owned(),
            target,
            event,
            state: row.state,
            attempts: row.attempts,
            status: row.status,
            detail: Some(row.detail).filter(|detail| !detail.is_empty()),
            created_at: time(row.created_at),
            next_attempt_at: (!row.state.is_final()).then(|| time(row.due_at)),
            finished_at: row.finished_at.map(time),
        }
    }
}

/// A build's notifications, newest first. They are kept for 30 days.
#[utoipa::path(
    get,
    path = "/api/v1/builds/{id}/notifications",
    tag = "builds",
    operation_id = "notification_list",
    params(("id" = String, Path, description = "A build's id, or `latest`"), Paging),
    responses((status = 200, description = "A page", body = Page<Notification>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Notification>>, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let (limit, cursor) = (paging.limit()?, extract::cursor(paging.cursor.as_deref())?);
    let (_, rows) = find(&ground, &caller, &id).await?;
    let page = ground.fleet.reader.notifications(rows.build.id, cursor, limit).await?;
    let items = page.items.into_iter().map(Notification::from).collect();
    Ok(Json(Page { items, next_cursor: page.next.map(|next| next.to_string()) }))
}
