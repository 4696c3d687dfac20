//! Artifacts that people add to a job of a build: bytes, checked on their way, and then the row that names them.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde::Deserialize;
use utoipa::IntoParams;
use windlass_cache::{Error, Fault, Rejected, Upload};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{ArtifactRow, BuildRows, Output, PutArtifact, Scope};
use windlass_coordinator_store::ArtifactFilter;
use windlass_pipeline::glob::PathQuery;
use windlass_protocol::host::now;
use windlass_protocol::limits::PAGE_MAX_ITEMS;
use windlass_protocol::message::{NewArtifact, Validate as _};
use windlass_protocol::{AttemptId, Digest, Namespace, Shelf};

use super::Ground;
use super::artifact::Artifact;
use super::auth::Caller;
use super::blob::{Sink, blocking, pour, room};
use super::build::{find, with_rows};
use super::extract::Query;
use super::problem::{Kind, Problem};
use super::resumable;
use crate::shelf::ShelfError;

impl From<ShelfError> for Problem {
    fn from(error: ShelfError) -> Self {
        let kind = match error {
            ShelfError::Store(error) => return error.into(),
            ShelfError::Missing(_) | ShelfError::NotAManifest(..) | ShelfError::Stopping => Kind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

/// What is uploaded.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct About {
    /// Its path in the build, with `/`.
    path: String,
    /// `b3:` and 64 hex digits: BLAKE3 of its bytes.
    #[param(value_type = String)]
    digest: Digest,
    /// How many they are.
    bytes: u64,
    /// Of this job, or of this attempt; of the last job that has run if it is left out.
    job: Option<String>,
    /// `application/octet-stream` if it is left out.
    content_type: Option<String>,
    /// Whether it may be executed.
    #[serde(default)]
    executable: bool,
    /// The upload by which its bytes came, all of them; there is no body then.
    upload: Option<String>,
}

/// A blob that is hashed in all ways on its way to the disk.
struct Hashed {
    upload: Upload,
    most: u64,
    sha1: Context,
    sha256: Context,
}

impl Sink for Hashed {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.upload.len() + bytes.len() as u64 > self.most {
            return Err(Rejected::BlobTooLarge.into());
        }
        self.sha1.update(bytes);
        self.sha256.update(bytes);
        self.upload.write(bytes)
    }
}

/// Adds a file to what a job left. The same file of the same path again is the one that is there.
#[utoipa::path(
    put,
    path = "/api/v1/builds/{id}/artifacts",
    tag = "artifacts",
    operation_id = "artifact_put",
    params(("id" = String, Path, description = "A build's id, or `latest`"), About),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "It was there already", body = Artifact),
        (status = 201, description = "It is there, durably", body = Artifact),
    ),
)]
pub(crate) async fn put(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    Query(about): Query<About>,
    body: Body,
) -> Result<(StatusCode, Json<Artifact>), Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    caller.need_trust_of(&rows.build)?;
    let attempt = attempt_of(&rows, about.job.as_deref())?;
    let mut artifact = described(&about)?;
    let executable = about.executable;
    let shown = |row| Json(Artifact::of(row, &rows, &ground.url));
    if let Some(row) = known(&ground, attempt, &rows, (&artifact, executable)).await? {
        return Ok((StatusCode::OK, shown(row)));
    }
    let (build, shelves) = (rows.build.id, &ground.fleet.shelves);
    let on = rows.build.namespace.on(Shelf::Artifacts);
    let _room = room(&ground, &caller)?;
    if let Some(upload) = &about.upload {
        resumable::complete(&ground, &caller, upload, (&on, artifact.digest, artifact.bytes)).await?;
        hash_stored(&ground, &on, &mut artifact).await?;
    } else {
        let space = shelves.reserve(artifact.bytes).await?;
        let upload = ground.fleet.store.begin_put_in(&on, Some(artifact.digest), space)?;
        let (sha1, sha256) = (Context::new(&SHA1_FOR_LEGACY_USE_ONLY), Context::new(&SHA256));
        let hashed = pour(body, Hashed { upload, most: artifact.bytes, sha1, sha256 }).await?;
        if hashed.upload.len() != artifact.bytes {
            return Err(Problem::new(Kind::DigestMismatch, "there are fewer bytes than `bytes` says"));
        }
        artifact.sha1.copy_from_slice(hashed.sha1.finish().as_ref());
        artifact.sha256.copy_from_slice(hashed.sha256.finish().as_ref());
        blocking(move || hashed.upload.finish()).await??;
    }
    // What a build that is over has is counted in its rows: by one after the other.
    let _turn = shelves.turn().await?;
    if let Some(row) = known(&ground, attempt, &rows, (&artifact, executable)).await? {
        return Ok((StatusCode::OK, shown(row)));
    }
    let blobs = vec![(artifact.digest, artifact.bytes)];
    let kept = shelves.keep(&rows.build.namespace, Shelf::Artifacts, blobs).await?;
    let output = Output { executable, ..Output::from(&artifact) };
    let request = |rows| Request::PutArtifact(Box::new(PutArtifact { build, attempt, artifact: output.clone(), rows }));
    with_rows(&ground, &caller, build, request).await?;
    drop(kept);
    shelves.count_kept(1, artifact.bytes);
    let row = known(&ground, attempt, &rows, (&artifact, executable)).await?;
    let row = row.ok_or_else(|| Problem::new(Kind::Unavailable, "it was added, and is gone already"))?;
    Ok((StatusCode::CREATED, shown(row)))
}

/// Reads what was stored a piece at a time, for the names that it has beside its own.
async fn hash_stored(ground: &Ground, on: &Namespace, artifact: &mut NewArtifact) -> Result<(), Problem> {
    let (store, on, digest) = (ground.fleet.store.clone(), on.clone(), artifact.digest);
    let hashing = blocking(move || {
        let (mut sha1, mut sha256) = (Context::new(&SHA1_FOR_LEGACY_USE_ONLY), Context::new(&SHA256));
        let Some(blob) = store.get(&on, &digest)? else { return Err(Fault::Damaged { digest }) };
        blob.copy_to(&mut |bytes| {
            sha1.update(bytes);
            sha256.update(bytes);
            Ok(())
        })?;
        Ok((sha1.finish(), sha256.finish()))
    });
    let (sha1, sha256) = hashing.await??;
    artifact.sha1.copy_from_slice(sha1.as_ref());
    artifact.sha256.copy_from_slice(sha256.as_ref());
    Ok(())
}

/// What is said of a file, as a job would say it.
fn described(about: &About) -> Result<NewArtifact, Problem> {
    let artifact = NewArtifact {
        path: about.path.clone(),
        bytes: about.bytes,
        digest: about.digest,
        sha1: [0; 20],
        sha256: [0; 32],
        content_type: about.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned()),
    };
    artifact.validate().map_err(|invalid| Problem::invalid(invalid.to_string()))?;
    if artifact.content_type.chars().any(char::is_control) {
        return Err(Problem::invalid("content_type: there are control characters in it"));
    }
    Ok(artifact)
}

/// The attempt that is meant: of a job the last one.
fn attempt_of(rows: &BuildRows, job: Option<&str>) -> Result<AttemptId, Problem> {
    let has_run = || rows.jobs.iter().rev().find_map(|job| job.attempts.last().copied());
    let Some(text) = job else {
        return has_run().ok_or_else(|| Problem::new(Kind::Conflict, "no job of the build has run"));
    };
    let mut jobs = rows.jobs.iter();
    let found =
        jobs.find(|job| job.id.to_string() == text || job.attempts.iter().any(|attempt| attempt.to_string() == text));
    let found = found.ok_or_else(|| Problem::not_found("job", text))?;
    let named = found.attempts.iter().find(|attempt| attempt.to_string() == text);
    let attempt = named.or(found.attempts.last()).copied();
    attempt.ok_or_else(|| Problem::new(Kind::Conflict, "the job has not run yet"))
}

/// The same file of the same path, if it is there.
async fn known(
    ground: &Ground,
    attempt: AttemptId,
    rows: &BuildRows,
    (artifact, executable): (&NewArtifact, bool),
) -> Result<Option<ArtifactRow>, Problem> {
    let filter = ArtifactFilter {
        build: rows.build.id,
        attempts: Some([attempt].into()),
        path: Some(PathQuery::new(&artifact.path)),
        at: now().wall,
        before: None,
    };
    let page = ground.fleet.reader.artifacts(filter, None, PAGE_MAX_ITEMS).await?;
    let same =
        |row: &ArtifactRow| row.path == artifact.path && row.digest == artifact.digest && row.executable == executable;
    Ok(page.items.into_iter().find(same))
}
