//! Artifacts of jobs: noted once their bytes are on the shelf, and found again by the jobs that may read them (reference 20.3).

use std::collections::BTreeSet;

use windlass_coordinator_core::named::JobName;
use windlass_coordinator_core::row::{ArtifactRow, AttemptRow, BuildRows, JobRow, Output, Said};
use windlass_coordinator_store::ArtifactFilter;
use windlass_pipeline::glob::PathQuery;
use windlass_protocol::host::now;
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::ARTIFACTS_FOUND_MAX;
use windlass_protocol::message::{ArtifactQuery, AskRefused, FoundArtifact, FoundFiles, NewArtifact, Told};
use windlass_protocol::{AttemptId, BuildId, Shelf, hex};

use super::{CoreJobDesk, No, absent};
use crate::shelf::ShelfError;

impl From<ShelfError> for No {
    fn from(error: ShelfError) -> Self {
        let code = match &error {
            // The bytes are sent again, and this is asked again.
            ShelfError::Missing(_) => AskRefused::NotFound,
            ShelfError::Store(windlass_cache::Error::Fault(fault)) if fault.is_full() => AskRefused::Conflict,
            ShelfError::NotAManifest(..) => AskRefused::Invalid,
            ShelfError::Store(_) | ShelfError::Stopping => AskRefused::Unavailable,
        };
        Self(code, error.to_string())
    }
}

impl CoreJobDesk {
    /// Notes what the attempt has uploaded. Its blobs stay from before the look at them until the rows are durable.
    pub(super) async fn add_artifacts(
        &self,
        attempt: &AttemptRow,
        (epoch, call): (Epoch, [u8; 16]),
        artifacts: Vec<Output>,
    ) -> Result<Told, No> {
        let build = self.build_row(attempt.build).await?;
        let blobs: Vec<_> = artifacts.iter().map(|artifact| (artifact.digest, artifact.bytes)).collect();
        let (count, bytes) = (blobs.len() as u64, blobs.iter().map(|(_, bytes)| bytes).sum());
        let kept = self.shelves.keep(&build.namespace, Shelf::Artifacts, blobs).await?;
        let told = self.say(attempt, epoch, call, Said::AddArtifacts(artifacts)).await?;
        drop(kept);
        self.shelves.count_kept(count, bytes);
        Ok(told)
    }

    /// Artifacts of the attempt's build, or of another that it may read.
    pub(super) async fn find_artifacts(&self, attempt: &AttemptRow, query: ArtifactQuery) -> Result<FoundFiles, No> {
        let build = self.with_artifacts(attempt, query.build).await?;
        let attempts = self.attempts_asked(build, &query.step, query.retried).await?;
        let unknown = || No(AskRefused::NotFound, format!("there is no step {:?} in build {build}", query.step));
        let filter = ArtifactFilter {
            build,
            attempts: attempts.ok_or_else(unknown)?,
            path: Some(PathQuery::new(&query.path)),
            at: now().wall,
            before: query.before,
        };
        let page = self.reader.artifacts(filter, None, ARTIFACTS_FOUND_MAX).await?;
        let executable = (0..).zip(&page.items).filter_map(|(place, row)| row.executable.then_some(place)).collect();
        let found = page.items.into_iter().map(|row| self.found(row)).collect::<Option<Vec<_>>>();
        let unreadable = || No(AskRefused::Unavailable, "an artifact's row cannot be read".to_owned());
        Ok(FoundFiles { found: found.ok_or_else(unreadable)?, executable })
    }

    /// [`attempts_of`] a build; of one that goes on no more is read than what is named.
    async fn attempts_asked(
        &self,
        build: BuildId,
        step: &str,
        retried: bool,
    ) -> Result<Option<Option<BTreeSet<AttemptId>>>, No> {
        if step.is_empty() {
            let last = if retried { None } else { self.desk.look(move |core| core.last_attempts(build)).await? };
            if retried || last.is_some() {
                return Ok(Some(last));
            }
        }
        let name = step.to_owned();
        let jobs = self.desk.look(move |core| core.jobs_named(build, &name)).await?;
        let rows = self.rows_of(build, jobs.filter(|_| !step.is_empty())).await?;
        Ok(attempts_of(&rows, step, retried))
    }

    /// As [`Self::readable`], and for an overlay also what its pipeline's trusted builds made: it reads their shelf (I12).
    async fn with_artifacts(&self, attempt: &AttemptRow, build: Option<BuildId>) -> Result<BuildId, No> {
        let Some(other) = build.filter(|build| *build != attempt.build) else { return Ok(attempt.build) };
        let (own, row) = (self.build_row(attempt.build).await?, self.build_row(other).await?);
        let may = own.pipeline == row.pipeline && own.namespace.reads(&row.namespace);
        if may { Ok(other) } else { Err(absent(other)) }
    }

    fn found(&self, row: ArtifactRow) -> Option<FoundArtifact> {
        let url = format!("{}/api/v1/artifacts/{}", self.url, row.id);
        let artifact = NewArtifact {
            sha1: bytes_of(&row.sha1)?,
            sha256: bytes_of(&row.sha256)?,
            path: row.path,
            bytes: row.bytes,
            digest: row.digest,
            content_type: row.content_type,
        };
        Some(FoundArtifact { id: row.id, job: row.job, created_at: row.created_at, url, artifact })
    }
}

fn bytes_of<const N: usize>(digits: &str) -> Option<[u8; N]> {
    hex::from(digits)?.try_into().ok()
}

/// Of which attempts artifacts are looked for: the last one of each job, or of all, of one step or of all.
///
/// The inner `None` is all attempts of all jobs; the outer one says that there is no such step.
pub(crate) fn attempts_of(rows: &BuildRows, step: &str, retried: bool) -> Option<Option<BTreeSet<AttemptId>>> {
    if retried && step.is_empty() {
        return Some(None);
    }
    let called = JobName::of(step);
    let jobs: Vec<&JobRow> = rows.jobs.iter().filter(|job| step.is_empty() || called.is_named(job)).collect();
    if jobs.is_empty() && !step.is_empty() {
        return None;
    }
    let of =
        |job: &&JobRow| if retried { job.attempts.clone() } else { job.attempts.last().copied().into_iter().collect() };
    Some(Some(jobs.iter().flat_map(of).collect()))
}

#[cfg(test)]
mod tests {
    use windlass_protocol::Namespace;

    use super::*;

    #[test]
    fn only_a_namespace_itself_and_the_trusted_one_below_it_are_read() {
        let (trusted, one, two) = (Namespace::trusted("p"), Namespace::overlay("p", "1"), Namespace::overlay("p", "2"));
        for (reader, made, may) in [
            (&trusted, &trusted, true),
            (&one, &one, true),
            (&one, &trusted, true),
            (&trusted, &one, false),
            (&one, &two, false),
            (&Namespace::trusted("q"), &trusted, false),
        ] {
            assert_eq!(reader.reads(made), may, "{reader} {made}");
        }
    }

    #[test]
    fn a_digest_in_hex_is_read_back_and_nothing_else_is() {
        assert_eq!(bytes_of::<2>("0aff"), Some([10, 255]));
        for bad in ["", "0a", "0afff", "0g11", "é11"] {
            assert_eq!(bytes_of::<2>(bad), None, "{bad}");
        }
    }
}
