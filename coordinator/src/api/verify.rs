//! The check of every stored byte: begun by an admin, watched by whoever began it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use windlass_coordinator_core::row::Scope;
use windlass_protocol::Digest;

use super::Ground;
use super::auth::Caller;
use super::problem::Problem;
use super::shape::time;
use crate::verifier::{Check, Ended};

/// A check, as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Verification {
    /// `none`, `running`, `done` or `failed`.
    state: &'static str,
    started_at: Option<String>,
    finished_at: Option<String>,
    /// Blobs that were read, of how many.
    blobs: usize,
    of_blobs: usize,
    /// Their bytes, of how many.
    bytes: u64,
    of_bytes: u64,
    /// Blobs that were found damaged, and are served no more; the first 10,000 by name, when it is done.
    damaged_blobs: usize,
    #[schema(value_type = Vec<String>)]
    damaged: Vec<Digest>,
    /// Bytes of segments that cannot be read: what they said is gone with the next start.
    damaged_bytes: u64,
    /// The segments with such bytes.
    segments: Vec<DamagedSegment>,
    /// Whether everything was read.
    complete: bool,
    /// Why it failed.
    error: Option<String>,
}

/// A segment with bytes that cannot be read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DamagedSegment {
    file: String,
    bytes: u64,
}

impl Verification {
    fn of(check: Check) -> Self {
        let Check { started_at, progress, ended } = check;
        let mut shown = Self {
            state: if started_at.is_some() { "running" } else { "none" },
            started_at: started_at.map(time),
            finished_at: None,
            blobs: progress.blobs,
            of_blobs: progress.of_blobs,
            bytes: progress.bytes,
            of_bytes: progress.of_bytes,
            damaged_blobs: progress.damaged,
            damaged: Vec::new(),
            damaged_bytes: 0,
            segments: Vec::new(),
            complete: false,
            error: None,
        };
        let Some(Ended { at, outcome }) = ended else { return shown };
        shown.finished_at = Some(time(at));
        match outcome {
            Ok(report) => {
                shown.state = "done";
                shown.error = report.unreachable();
                (shown.damaged, shown.damaged_bytes) = (report.damaged, report.damaged_bytes);
                let segments = report.segments.into_iter().map(|(file, bytes)| DamagedSegment { file, bytes });
                (shown.segments, shown.complete) = (segments.collect(), report.complete);
            }
            Err(error) => (shown.state, shown.error) = ("failed", Some(error)),
        }
        shown
    }
}

/// Begins a check of every stored byte; or shows the one that is under way. What is damaged is put aside as it is found.
#[utoipa::path(
    post,
    path = "/api/v1/cache/verify",
    tag = "cache",
    operation_id = "cache_verify",
    responses((status = 200, description = "The check, which has begun", body = Verification)),
)]
pub(crate) async fn start(State(ground): State<Ground>, caller: Caller) -> Result<Json<Verification>, Problem> {
    caller.need_everywhere(&[Scope::Admin])?;
    Ok(Json(Verification::of(ground.verifier.start())))
}

/// The last check, or the one that is under way.
#[utoipa::path(
    get,
    path = "/api/v1/cache/verify",
    tag = "cache",
    operation_id = "cache_verification",
    responses((status = 200, description = "How far it is, or how it came out", body = Verification)),
)]
pub(crate) async fn show(State(ground): State<Ground>, caller: Caller) -> Result<Json<Verification>, Problem> {
    caller.need_everywhere(&[Scope::Admin])?;
    Ok(Json(Verification::of(ground.verifier.check())))
}
