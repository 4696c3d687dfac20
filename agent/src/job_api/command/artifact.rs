//! `artifact upload|search|download|shasum` (reference 19.1, 20).

mod download;
mod query;

use windlass_pipeline::content_type::content_type;
use windlass_protocol::call::part;
use windlass_protocol::limits::{ARTIFACT_MAX_BYTES, ARTIFACTS_PER_ASK_MAX};
use windlass_protocol::message::{AskRefused, Asked, NewArtifact, Told};
use windlass_protocol::{Digest, Shelf};

pub(super) use self::download::download;
pub(super) use self::query::{search, shasum};
use super::outgoing::{FileError, Files, Outgoing};
use super::{Call, Fail, fatal, untold};
use crate::bulk::NotCarried;
use crate::job_api::artifact::{Chosen, FindError, Options, find};
use crate::job_api::hands::HandsError;
use crate::job_api::hashes::Hashes;

/// The variable that names another place for artifacts.
const DESTINATION: &str = "BUILDKITE_ARTIFACT_UPLOAD_DESTINATION";

/// A file whose bytes are known.
struct Hashed {
    chosen: Chosen,
    artifact: NewArtifact,
    outgoing: Outgoing,
}

impl AsRef<Outgoing> for Hashed {
    fn as_ref(&self) -> &Outgoing {
        &self.outgoing
    }
}

/// `artifact upload PATHS`: uploads what patterns describe, each file once.
///
/// This is also what `artifact_paths` of a step come to: whoever runs a job's phases runs this command after the command
/// phase, whatever came of that, in the directory where it ended and in the job's environment, as
/// `windlass artifact upload "PATHS"` with the patterns joined by `;`. Its status is the phase's (reference 18.7, 20.2).
pub(super) async fn upload(call: &mut Call<'_>) -> Result<(), Fail> {
    call.own_job()?;
    let Some(patterns) = call.argument(0).map(str::to_owned) else { return Err(call.misused().await) };
    check_destination(call)?;
    let options = Options {
        literal: call.line.is_on("literal"),
        follow: call.line.is_on("glob-resolve-follow-symlinks"),
        skip_links: call.line.is_on("upload-skip-symlinks"),
    };
    let delimiter = call.line.text("delimiter").to_owned();
    let found = match find((&mut *call.hands, &call.party.account), &patterns, &delimiter, options).await {
        Ok(found) => found,
        Err(FindError::Hands(error)) => return Err(error.into()),
        Err(error) => return Err(fatal(format!("failed to upload artifacts: {error}"))),
    };
    for note in &found.notes {
        call.note("warning", note).await?;
    }
    let all = found.files.len();
    if all == 0 {
        return call.note("notice", &format!("No files matched paths: {patterns}")).await;
    }
    call.note("notice", &format!("Found {all} files that match {patterns:?}")).await?;
    let files: Vec<Chosen> = found.files.into_iter().collect();
    let mut failed = 0;
    for (number, batch) in (0_u64..).zip(files.chunks(ARTIFACTS_PER_ASK_MAX)) {
        failed += upload_batch(call, number, batch).await?;
    }
    match failed {
        0 => call.note("notice", "Artifact uploads completed successfully").await,
        failed => Err(fatal(format!("failed to upload artifacts: {failed} of {all} could not be uploaded"))),
    }
}

/// Artifacts are the coordinator's to keep. Another place is refused, not passed over.
fn check_destination(call: &Call<'_>) -> Result<(), Fail> {
    let variable = call.hands.environment.get(DESTINATION).map(String::as_str);
    match call.argument(1).or(variable).filter(|place| !place.trim().is_empty()) {
        None => Ok(()),
        Some(place) => Err(fatal(format!(
            "failed to upload artifacts: invalid upload destination: {place:?}. Artifacts are kept by the coordinator. Did you \
             forget to surround your artifact upload pattern in double quotes?"
        ))),
    }
}

/// Uploads some files: hashes them all, stores what of them is missing, and has them noted. Answers how many failed.
async fn upload_batch(call: &mut Call<'_>, number: u64, batch: &[Chosen]) -> Result<usize, Fail> {
    let content_type_given = call.line.text("content-type").to_owned();
    let (mut hashed, mut failed) = (Vec::with_capacity(batch.len()), 0);
    for chosen in batch {
        match hash(call, chosen, &content_type_given).await {
            Ok(file) => hashed.push(file),
            Err(error) => failed += one_failed(call, chosen, error).await?,
        }
    }
    // What nobody names yet may be let go of before it is named, though hardly ever: then it is sent again.
    for again in [true, false] {
        failed += store(call, &mut hashed).await?;
        if hashed.is_empty() {
            return Ok(failed);
        }
        let artifacts = hashed.iter().map(|file| file.artifact.clone()).collect();
        let executable =
            (0..).zip(&hashed).filter_map(|(place, file)| file.chosen.executable.then_some(place)).collect();
        match call.ask_as(part(call.hands.call, number), Asked::AddFiles { artifacts, executable }, &[]).await? {
            Told::Done => break,
            Told::Refused { code: AskRefused::NotFound, .. } if again => {}
            other => return Err(untold("failed to upload artifacts", other)),
        }
    }
    for file in &hashed {
        let NewArtifact { path, bytes, .. } = &file.artifact;
        call.note("notice", &format!("Successfully uploaded artifact {path:?} ({bytes} bytes)")).await?;
    }
    Ok(failed)
}

/// Says that a file failed. Where the command's program is gone, nobody would hear of it.
async fn one_failed(call: &mut Call<'_>, chosen: &Chosen, error: FileError) -> Result<usize, Fail> {
    if let FileError::Hands(error @ (HandsError::Gone(_) | HandsError::Bad(_) | HandsError::Confused)) = error {
        return Err(error.into());
    }
    call.note("error", &format!("Error uploading artifact {:?}: {error}", chosen.path)).await?;
    Ok(1)
}

/// Stores what of the files is missing; those that cannot be read any more go from the list, and are counted.
async fn store(call: &mut Call<'_>, files: &mut Vec<Hashed>) -> Result<usize, Fail> {
    let mut failed = 0;
    while !files.is_empty() {
        let blobs: Vec<(Digest, u64)> = files.iter().map(|file| (file.artifact.digest, file.artifact.bytes)).collect();
        let (party, bulk) = (call.party, &call.shared.bulk);
        let mut from = Files { hands: &mut *call.hands, files };
        match bulk.store(&party.spec, &party.right, (Shelf::Artifacts, &blobs), &mut from).await {
            Ok(()) => break,
            Err(NotCarried::Own((place, error))) => {
                let file = files.remove(place);
                failed += one_failed(call, &file.chosen, error).await?;
            }
            Err(error @ (NotCarried::Refused(_) | NotCarried::Away(_))) => {
                let why = match error {
                    NotCarried::Refused(why) => why,
                    NotCarried::Away(why) => format!("the coordinator cannot be reached: {why}"),
                    NotCarried::Own(_) => String::new(),
                };
                return Err(fatal(format!("failed to upload artifacts: {why}")));
            }
        }
    }
    Ok(failed)
}

/// Reads a file through the job's hands: all its digests in one pass.
async fn hash(call: &mut Call<'_>, chosen: &Chosen, given: &str) -> Result<Hashed, FileError> {
    let (through, file) = ((&mut *call.hands, &call.party.account), chosen.file.clone().into_bytes());
    let (outgoing, hashed) = Outgoing::read(through, file, ARTIFACT_MAX_BYTES, Hashes::of_artifact()).await?;
    let (sha1, sha256) = hashed.of_artifact.unwrap_or_default();
    let artifact = NewArtifact {
        path: chosen.path.clone(),
        bytes: outgoing.bytes,
        digest: outgoing.digest,
        sha1,
        sha256,
        content_type: if given.is_empty() { content_type(&chosen.path).to_owned() } else { given.to_owned() },
    };
    Ok(Hashed { chosen: chosen.clone(), artifact, outgoing })
}
