//! Secrets: setting, listing and removing. A value comes in and never goes out again.

use std::fmt;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Actor, Scope, SecretName, SecretRequest, SecretRow};
use windlass_protocol::Secret;
use windlass_protocol::limits::{SECRET_MAX_BYTES, SECRET_MIN_BYTES};

use super::Ground;
use super::auth::Caller;
use super::extract::{JsonBody, Page, Paging, Query};
use super::problem::{Kind, Problem};
use super::shape::time;

/// A secret, without its value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Secret)]
pub(crate) struct Shown {
    /// Upper case; asked for in whatever case.
    key: String,
    /// Only for builds of this pipeline; null: of any.
    pipeline: Option<String>,
    /// Only for branches that this pattern matches; null: for any.
    branch: Option<String>,
    /// Only for agents in this zone; null: in any.
    zone: Option<String>,
    /// Which of the coordinator's keys seals it.
    key_id: String,
    #[schema(value_type = Object)]
    created_by: Actor,
    created_at: String,
    #[schema(value_type = Object)]
    updated_by: Actor,
    updated_at: String,
}

impl Shown {
    fn of(row: SecretRow) -> Self {
        let SecretName { key, pipeline, branch, zone } = row.name;
        Self {
            key,
            pipeline,
            branch,
            zone,
            key_id: row.sealed.key_id,
            created_by: row.created_by,
            created_at: time(row.created_at),
            updated_by: row.updated_by,
            updated_at: time(row.updated_at),
        }
    }
}

/// A value on its way in: it is in no error and in no Debug.
#[derive(Debug)]
struct Value(Secret<String>);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        // Serde's own words for what is not expected repeat it.
        const NO_TEXT: &str = "value: a string";
        impl<'de> serde::de::Visitor<'de> for Text {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value(Secret::new(text.to_owned())))
            }
            fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Value, E> {
                Err(E::custom(NO_TEXT))
            }
            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Value, E> {
                Err(E::custom(NO_TEXT))
            }
            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Value, E> {
                Err(E::custom(NO_TEXT))
            }
            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Value, E> {
                Err(E::custom(NO_TEXT))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// A secret and its value.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSecret {
    key: String,
    /// At least 6 bytes, so that it can be masked, and no NUL.
    #[schema(value_type = String)]
    value: Value,
    /// Only for builds of this pipeline.
    pipeline: Option<String>,
    /// Only for branches that this pattern matches; `*` is any characters.
    branch: Option<String>,
    /// Only for agents in this zone.
    zone: Option<String>,
}

/// Whom a secret is for, as its name has it.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct For {
    /// As it was set.
    pipeline: Option<String>,
    /// As it was set.
    branch: Option<String>,
    /// As it was set.
    zone: Option<String>,
}

fn name(key: &str, whom: For) -> SecretName {
    SecretName { key: key.to_ascii_uppercase(), pipeline: whom.pipeline, branch: whom.branch, zone: whom.zone }
}

impl Caller {
    /// A restricted token has to do with secrets of its own pipeline and branch alone.
    fn has_to_do_with(&self, name: &SecretName) -> bool {
        self.pipeline.as_ref().is_none_or(|only| name.pipeline.as_ref() == Some(only))
            && self.branch.as_ref().is_none_or(|only| name.branch.as_ref() == Some(only))
    }

    fn need_secret(&self, name: &SecretName) -> Result<(), Problem> {
        self.need(&[Scope::SecretsWrite])?;
        if self.has_to_do_with(name) {
            return Ok(());
        }
        let detail = "the token is restricted: name its own pipeline and branch as those that the secret is for";
        Err(Problem::new(Kind::Forbidden, detail))
    }
}

/// Sets a secret, whether there is one of this name or not.
#[utoipa::path(
    post,
    path = "/api/v1/secrets",
    tag = "secrets",
    operation_id = "secret_set",
    request_body = NewSecret,
    responses((status = 200, description = "Set", body = Shown)),
)]
pub(crate) async fn set(
    State(ground): State<Ground>,
    caller: Caller,
    body: JsonBody<NewSecret>,
) -> Result<Json<Shown>, Problem> {
    let NewSecret { key, value: Value(value), pipeline, branch, zone } = body.value;
    let name = name(&key, For { pipeline, branch, zone });
    caller.need_secret(&name)?;
    let text = value.expose();
    if text.len() < SECRET_MIN_BYTES || text.trim().len() < SECRET_MIN_BYTES {
        let detail = format!("value: at least {SECRET_MIN_BYTES} bytes; a shorter one could not be masked in logs");
        return Err(Problem::invalid(detail));
    }
    if text.len() > SECRET_MAX_BYTES || text.contains('\0') {
        return Err(Problem::invalid(format!("value: at most {SECRET_MAX_BYTES} bytes, without NUL")));
    }
    let sealed = ground.fleet.vault.seal(&name, &value).map_err(|error| Problem::internal(&error))?;
    let request = SecretRequest::Set { name: name.clone(), sealed };
    ground.fleet.desk.request(caller.actor(), Request::Secret(Box::new(request))).await?;
    let row = ground.fleet.views.secret(&name).ok_or_else(|| Problem::not_found("secret", &name))?;
    Ok(Json(Shown::of(row)))
}

/// Secrets without their values, by name.
#[utoipa::path(
    get,
    path = "/api/v1/secrets",
    tag = "secrets",
    operation_id = "secret_list",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<Shown>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Shown>>, Problem> {
    caller.need(&[Scope::SecretsWrite])?;
    let mine = ground.fleet.views.secrets().into_iter().filter(|row| caller.has_to_do_with(&row.name));
    let all = mine.map(|row| (format!("{:020} {}", row.created_at.0, row.name), Shown::of(row)));
    Ok(Json(Page::of(all.collect(), &paging)?))
}

/// Removes a secret. Jobs that have it already keep it.
#[utoipa::path(
    delete,
    path = "/api/v1/secrets/{key}",
    tag = "secrets",
    operation_id = "secret_remove",
    params(("key" = String, Path, description = "In whatever case"), For),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn remove(
    State(ground): State<Ground>,
    caller: Caller,
    Path(key): Path<String>,
    Query(whom): Query<For>,
) -> Result<StatusCode, Problem> {
    let name = name(&key, whom);
    caller.need_secret(&name)?;
    let request = SecretRequest::Remove { name };
    ground.fleet.desk.request(caller.actor(), Request::Secret(Box::new(request))).await?;
    Ok(StatusCode::NO_CONTENT)
}
