//! Pins of builds, for people and their tools: all of a build stays (docs/design/051).

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{NewPin, PinEnd, PinGone, PinRequest, PinRow, Scope};
use windlass_coordinator_store::{PinGround, Pinned};
use windlass_protocol::limits::{PIN_LOOKS_MAX, PINNED_DISK_DIVISOR};
use windlass_protocol::{BuildId, Trust, WallMs};

use super::Ground;
use super::auth::Caller;
use super::blob::blocking;
use super::build::find;
use super::extract::{self, JsonBody, Page, Paging, Query};
use super::problem::{Kind, Problem};
use super::shape::time;
use crate::desk::DeskError;

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
#[serde(deny_unknown_fields, default)]
#[schema(as = NewPin)]
pub(crate) struct PinSaid {
    /// What it is called from now on: a release's name.
    name: Option<String>,
    /// When it ends, as RFC 3339; null, and a new one without it: when somebody undoes it.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    until: Option<Option<String>>,
}

/// A field that is there, be it null.
fn said<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(field).map(Some)
}

impl PinSaid {
    fn end(&self) -> Result<PinEnd, Problem> {
        let text = match &self.until {
            None => return Ok(PinEnd::AsBefore),
            Some(None) => return Ok(PinEnd::Never),
            Some(Some(text)) => text,
        };
        let parsed = humantime::parse_rfc3339_weak(text).ok();
        let since = parsed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
        let at = ms.ok_or_else(|| Problem::invalid("until: a time such as 2027-01-31T08:00:00Z"))?;
        Ok(PinEnd::At(WallMs(at)))
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

/// Which pins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Of this pipeline; of all without it.
    pipeline: Option<String>,
    /// Where the last page ended.
    cursor: Option<String>,
    /// 1 to 500; 50 if it is left out.
    limit: Option<usize>,
}

/// Pins of builds, newest first: of builds that the token may see. A page may have fewer than its limit though more follow.
#[utoipa::path(
    get,
    path = "/api/v1/pins",
    tag = "cache",
    operation_id = "pin_list",
    params(Filter),
    responses((status = 200, description = "A page", body = Page<Pin>)),
)]
pub(crate) async fn list(
    State(ground): State<Ground>,
    caller: Caller,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<Pin>>, Problem> {
    caller.need(&[Scope::CacheRead])?;
    let Filter { pipeline, cursor, limit } = filter;
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
    let said = (body.value.name.clone(), body.value.end()?);
    let (pin, before) = hold(&ground, &caller, rows.build.id, said).await?;
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let before = before.map(|row| Before { name: row.name, until: row.until.map(time) });
    Ok((status, Json(PinAnswer { pin: Pin::of(pin), before })))
}

/// Lets all of a build go when its own time is over; nothing happens where it is not pinned.
#[utoipa::path(
    delete,
    path = "/api/v1/builds/{id}/pin",
    tag = "cache",
    operation_id = "build_unpin",
    params(("id" = String, Path, description = "A build's id, or `latest`")),
    responses((status = 204, description = "It is as any other")),
)]
pub(crate) async fn delete(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.need(&[Scope::CacheWrite])?;
    let build = match id.parse() {
        // A pin may be undone whatever has become of its build.
        Ok(build) => ground.fleet.reader.pin(build).await?.map(|pin| pin.row),
        Err(_) => None,
    };
    let build = match build {
        Some(row) if !caller.sees_place(&row.pipeline, &row.branch) => return Err(Problem::not_found("build", &id)),
        Some(_) if !caller.is_trusted() => {
            let detail = "the build is trusted: this needs a token with the scope `builds:trusted`";
            return Err(Problem::new(Kind::Forbidden, detail));
        }
        Some(row) => row.build,
        None => {
            let (_, rows) = find(&ground, &caller, &id).await?;
            caller.need_trust_of(&rows.build)?;
            rows.build.id
        }
    };
    ground.fleet.desk.request(caller.actor(), Request::Pin(PinRequest::Unpin { build })).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What all pins may hold together, in bytes: a part of the disk, so that builds go on; with a bucket behind it whatever fits there.
async fn room_bytes(ground: &Ground) -> Result<u64, Problem> {
    let store = ground.fleet.store.clone();
    let room = move || match store.origin_name() {
        Some(_) => Ok(u64::MAX),
        None => store.disk_size().map(|bytes| bytes / PINNED_DISK_DIVISOR),
    };
    Ok(blocking(room).await??)
}

/// What of a build's artifacts is gone, as of one commit.
fn gone_of(found: &PinGround, blobs: u64) -> PinGone {
    let tallies = found.rows.attempts.iter().map(|row| &row.artifacts);
    let (files, bytes) = tallies.fold((0_u64, 0_u64), |(files, bytes), tally| {
        (files + u64::from(tally.count), bytes.saturating_add(tally.bytes))
    });
    PinGone { files: files.saturating_sub(found.files), bytes: bytes.saturating_sub(found.bytes), blobs, results: 0 }
}

/// Pins a build. Its blobs are promised first, so that a sweep which is under way spares them. Its rows are looked at before and
/// after: what went between the two went before it was pinned, and is told.
async fn hold(
    ground: &Ground,
    caller: &Caller,
    build: BuildId,
    (name, until): (Option<String>, PinEnd),
) -> Result<(Pinned, Option<PinRow>), Problem> {
    let (reader, room_bytes) = (&ground.fleet.reader, room_bytes(ground).await?);
    let (mut blobs, mut told) = (None, None);
    for _ in 0..PIN_LOOKS_MAX {
        let Some(found) = reader.pin_ground(build).await? else {
            if told.is_some() {
                ground.fleet.desk.request(caller.actor(), Request::Pin(PinRequest::Unpin { build })).await?;
            }
            return Err(Problem::not_found("build", build));
        };
        let absent = match blobs {
            Some(absent) => absent,
            None => ground.sweeper.spare(&found.rows).await.map_err(|why| Problem::new(Kind::Unavailable, why))?,
        };
        blobs = Some(absent);
        let gone = gone_of(&found, absent);
        if let (Some(before), Some(pin)) = (&told, &found.pin)
            && (PinGone { results: 0, ..pin.row.gone }) == gone
            && (pin.row.files, pin.row.bytes) == (found.files, found.bytes)
        {
            return Ok((pin.clone(), Option::clone(before)));
        }
        // What is said once need not be said again: the second time only what is gone is told.
        let (name, until) = if told.is_none() { (name.clone(), until) } else { (None, PinEnd::AsBefore) };
        let new = NewPin { build, name, until, gone, room_bytes, rows: Some(Box::new(found.rows)) };
        match ground.fleet.desk.request(caller.actor(), Request::Pin(PinRequest::Pin(Box::new(new)))).await {
            Ok(Reply::Pinned { before, .. }) => told = Some(told.unwrap_or(before.map(|row| *row))),
            // It has just ended, or is just run again.
            Err(DeskError::Rejected(Rejected::NotInMemory(_))) => {}
            Ok(other) => return Err(Problem::internal(&format!("a pin was answered by {other:?}"))),
            Err(error) => return Err(error.into()),
        }
    }
    match (told, reader.pin(build).await?) {
        (Some(before), Some(pin)) => Ok((pin, before)),
        (Some(_), None) | (None, _) => Err(Problem::new(Kind::Unavailable, "the build changes just now; try again")),
    }
}
