//! The audit trail: who did what.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use windlass_coordinator_core::row::{Actor, Scope};

use super::Ground;
use super::auth::Caller;
use super::extract::{self, Page, Paging, Query};
use super::problem::Problem;
use super::shape::time;

/// One line of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Audit)]
pub(crate) struct Line {
    at: String,
    #[schema(value_type = Object)]
    actor: Actor,
    /// As `build.submit` or `token.revoke`.
    action: String,
    /// An id or a name.
    target: String,
    detail: String,
}

/// The audit trail, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    tag = "audit",
    operation_id = "audit_list",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<Line>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Line>>, Problem> {
    caller.need_everywhere(&[Scope::Admin])?;
    let cursor = extract::cursor(paging.cursor.as_deref())?;
    let page = ground.fleet.reader.audit(cursor, paging.limit()?).await?;
    let items = page.items.into_iter().map(|row| Line {
        at: time(row.at),
        actor: row.actor,
        action: row.action,
        target: row.target,
        detail: row.detail,
    });
    Ok(Json(Page { items: items.collect(), next_cursor: page.next.map(|cursor| cursor.to_string()) }))
}
