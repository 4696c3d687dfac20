//! A build's meta-data: strings by key, which jobs and gates set and later steps read (reference 19.2).

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::Scope;

use super::Ground;
use super::auth::Caller;
use super::build::find;
use super::extract::JsonBody;
use super::problem::Problem;

/// One value.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetaData {
    key: String,
    value: String,
}

/// All of a build's meta-data.
#[utoipa::path(
    get,
    path = "/api/v1/builds/{id}/meta-data",
    tag = "builds",
    operation_id = "meta_data_list",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    responses((status = 200, description = "Values by key", body = BTreeMap<String, String>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<BTreeMap<String, String>>, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    Ok(Json(rows.build.meta_data))
}

/// One value of a build's meta-data.
#[utoipa::path(
    get,
    path = "/api/v1/builds/{id}/meta-data/{key}",
    tag = "builds",
    operation_id = "meta_data_show",
    params(
        ("id" = String, Path, description = "A build's id, or `latest`"),
        ("key" = String, Path, description = "May hold slashes")
    ),
    responses((status = 200, description = "It", body = MetaData)),
)]
pub(crate) async fn show(
    State(ground): State<Ground>,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<MetaData>, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let (_, mut rows) = find(&ground, &caller, &id).await?;
    let value = rows.build.meta_data.remove(&key).ok_or_else(|| Problem::not_found("meta-data", &key))?;
    Ok(Json(MetaData { key, value }))
}

/// Sets values of a build that has not ended, all or none.
#[utoipa::path(
    put,
    path = "/api/v1/builds/{id}/meta-data",
    tag = "builds",
    operation_id = "meta_data_set",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    request_body = BTreeMap<String, String>,
    responses((status = 200, description = "All values by key", body = BTreeMap<String, String>)),
)]
pub(crate) async fn set(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody<BTreeMap<String, String>>,
) -> Result<Json<BTreeMap<String, String>>, Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    caller.need_trust_of(&rows.build)?;
    let request = Request::SetMetaData { build: rows.build.id, values: body.value };
    ground.fleet.desk.request(caller.actor(), request).await?;
    let (_, rows) = find(&ground, &caller, &rows.build.id.to_string()).await?;
    Ok(Json(rows.build.meta_data))
}
