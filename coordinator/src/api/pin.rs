//! Pins of builds, for people and their tools: all of a build stays (docs/design/051).

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Anew, PinGone, PinRequest, PinRow, Scope};
use windlass_coordinator_store::Pinned;
use windlass_protocol::host::now;
use windlass_protocol::{BuildId, Trust, WallMs};

use super::Ground;
use super::auth::Caller;
use super::build::find;
use super::extract::{self, JsonBody, OfPipeline, Page, Paging, Query};
use super::problem::{Kind, Problem};
use super::shape::{moment, time};
use crate::pinning::{PinError, Pinning, Said};

/// A build of which all stays.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pin {
    #[schema(value_type = String)]
    build_id: BuildId,
    build_number: u64,
    pipeline: String,
    branch: String,
    /// What people call it; no other pin of the pipeline has the same.
    name: Option<String>,
    pinned_by: String,
    pinned_at: String,
    /// When it ends by itself; null: when somebody undoes it.
    until: Option<String>,
    /// Artifacts that it holds.
    files: u64,
    /// Their bytes; those that several have alike are stored once.
    bytes: u64,
    /// Results of steps with `reuse` that it holds.
    results: u64,
    /// Results that it does not hold, for want of room among what the pipeline's pins hold.
    results_left_out: u64,
    /// What had gone before it was pinned.
    gone: Gone,
}

/// What a build made or named, and is not kept any more.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PinGone)]
pub(crate) struct Gone {
    /// Artifacts.
    files: u64,
    /// Their bytes.
    bytes: u64,
    /// Blobs of its source, of its steps' inputs and of what their keys are made of.
    blobs: u64,
    /// Results of steps with `reuse` that it wrote or used.
    results: u64,
}

impl Pin {
    fn of(Pinned { row, results }: Pinned) -> Self {
        let PinGone { files, bytes, blobs, results: lost } = row.gone;
        Self {
            build_id: row.build,
            build_number: row.number,
            pipeline: row.pipeline,
            branch: row.branch,
            name: row.name,
            pinned_by: row.by.name,
            pinned_at: time(row.at),
            until: row.until.map(time),
            files: row.files,
            bytes: row.bytes,
            results,
            results_left_out: row.left_out,
            gone: Gone { files, bytes, blobs, results: lost },
        }
    }
}

/// What is said of a pin. What is left out stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPin)]
pub(crate) struct PinSaid {
    /// What it is called from now on: a release's name; null: it has none.
    #[serde(default, deserialize_with = "anew")]
    #[schema(value_type = Option<String>)]
    name: Anew<String>,
    /// When it ends, as RFC 3339; null, and a new one without it: when somebody undoes it.
    #[serde(default, deserialize_with = "anew")]
    #[schema(value_type = Option<String>)]
    until: Anew<String>,
    /// When it ends, in seconds from now; not beside `until`.
    #[serde(default)]
    for_s: Option<u64>,
}

/// A field that is there: null, or a value.
fn anew<'de, D: Deserializer<'de>, T: Deserialize<'de>>(field: D) -> Result<Anew<T>, D::Error> {
    Ok(Option::deserialize(field)?.map_or(Anew::Nothing, Anew::This))
}

impl PinSaid {
    fn words(self, at: WallMs) -> Result<Said, Problem> {
        let until = match (self.until, self.for_s) {
            (until, None) => match until {
                Anew::AsBefore => Anew::AsBefore,
                Anew::Nothing => Anew::Nothing,
                Anew::This(text) => Anew::This(moment("until", &text)?),
            },
            (Anew::AsBefore, Some(0)) => return Err(Problem::invalid("for_s: at least 1")),
            (Anew::AsBefore, Some(seconds)) => Anew::This(at.plus_ms(seconds.saturating_mul(1_000))),
            (Anew::Nothing | Anew::This(_), Some(_)) => return Err(Problem::invalid("until, for_s: one of them")),
        };
        Ok(Said { name: self.name, until })
    }
}

/// What a pin is now, and what was said of it before.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PinAnswer {
    pin: Pin,
    /// Null: the build was not pinned.
    before: Option<Before>,
}

/// What was said of a pin before.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PinBefore)]
pub(crate) struct Before {
    name: Option<String>,
    until: Option<String>,
}

impl Before {
    fn of(row: PinRow) -> Self {
        Self { name: row.name, until: row.until.map(time) }
    }
}

/// What was said of a pin that is undone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnpinAnswer {
    /// Null: the build was not pinned.
    before: Option<Before>,
}

impl From<PinError> for Problem {
    fn from(error: PinError) -> Self {
        match error {
            PinError::NoBuild(build) => Self::not_found("build", build),
            PinError::Changing | PinError::Disk(_) => Self::new(Kind::Unavailable, error.to_string()),
            PinError::Read(error) => error.into(),
            PinError::Desk(error) => error.into(),
        }
    }
}

/// Pins of builds, newest first: of builds that the token may see. A page may have fewer than its limit though more follow.
#[utoipa::path(
    get,
    path = "/api/v1/pins",
    tag = "cache",
    operation_id = "pin_list",
    params(OfPipeline),
    responses((status = 200, description = "A page", body = Page<Pin>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Query(filter): Query<OfPipeline>,
) -> Result<Json<Page<Pin>>, Problem> {
    caller.need(&[Scope::CacheRead])?;
    let OfPipeline { pipeline, cursor, limit } = filter;
    if let Some(asked) = &pipeline {
        caller.need_place(asked, None)?;
    }
    let paging = Paging { cursor, limit };
    let cursor = extract::cursor(paging.cursor.as_deref())?;
    let pipeline = pipeline.or_else(|| caller.pipeline.clone());
    let page = ground.fleet.reader.pins(pipeline, cursor, paging.limit()?).await?;
    let seen = page.items.into_iter().filter(|pin| caller.sees_place(&pin.row.pipeline, &pin.row.branch));
    Ok(Json(Page { items: seen.map(Pin::of).collect(), next_cursor: page.next.map(|cursor| cursor.to_string()) }))
}

/// A build's pin; there is none where nobody has pinned it.
#[utoipa::path(
    get,
    path = "/api/v1/builds/{id}/pin",
    tag = "cache",
    operation_id = "build_pin_show",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    responses((status = 200, description = "It is pinned", body = Pin)),
)]
pub(crate) async fn show(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Pin>, Problem> {
    caller.need(&[Scope::CacheRead])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    let pin = ground.fleet.reader.pin(rows.build.id).await?;
    pin.map(|pin| Json(Pin::of(pin))).ok_or_else(|| Problem::not_found("pin of the build", &id))
}

/// Lets all of a trusted build stay: its rows and logs, its artifacts, its source, its steps' inputs and results, whatever their
/// age; of one that goes on what it makes, too. Said again it changes name and end.
#[utoipa::path(
    put,
    path = "/api/v1/builds/{id}/pin",
    tag = "cache",
    operation_id = "build_pin",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    request_body = PinSaid,
    responses(
        (status = 200, description = "It was pinned before", body = PinAnswer),
        (status = 201, description = "It is pinned; what had gone before that is told", body = PinAnswer),
    ),
)]
pub(crate) async fn put(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody<PinSaid>,
) -> Result<(StatusCode, Json<PinAnswer>), Problem> {
    caller.need(&[Scope::CacheWrite])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    if rows.build.namespace.trust() == Trust::Untrusted && !caller.has(Scope::BuildsRead) {
        return Err(Problem::not_found("build", &id));
    }
    caller.need_trust_of(&rows.build)?;
    let said = body.value.words(now().wall)?;
    let mut pinning = Pinning::begin((&ground.fleet, &ground.sweeper), caller.actor(), rows.build.id).await?;
    let (pin, before) = pinning.hold(said).await?;
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(PinAnswer { pin: Pin::of(pin), before: before.map(Before::of) })))
}

/// Lets all of a build go when its own time is over; nothing happens where it is not pinned.
#[utoipa::path(
    delete,
    path = "/api/v1/builds/{id}/pin",
    tag = "cache",
    operation_id = "build_unpin",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    responses((status = 200, description = "It is as any other", body = UnpinAnswer)),
)]
pub(crate) async fn delete(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<UnpinAnswer>, Problem> {
    caller.need(&[Scope::CacheWrite])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    caller.need_trust_of(&rows.build)?;
    let request = Request::Pin(PinRequest::Unpin { build: rows.build.id });
    match ground.fleet.desk.request(caller.actor(), request).await? {
        Reply::Unpinned { before } => Ok(Json(UnpinAnswer { before: before.map(|row| Before::of(*row)) })),
        other => Err(Problem::internal(&format!("an undone pin was answered by {other:?}"))),
    }
}
