//! What jobs and people upload: rows that are noted once, within limits (I3, I9); of a job by whoever holds the right to the
//! attempt, and of a person by whoever may write builds.

use windlass_protocol::{AttemptId, BuildId, JobId, Namespace, limits};

use crate::error::Rejected;
use crate::row::{Actor, ArtifactRow, ArtifactTally, AttemptRow, Output, PutArtifact};
use crate::state::Core;

impl Core {
    /// Notes what a job has uploaded.
    pub(crate) fn add_artifacts(&mut self, attempt: AttemptId, artifacts: Vec<Output>) -> Result<(), Rejected> {
        let (job, build) = (self.attempts[&attempt].job, self.attempts[&attempt].build);
        let bytes = artifacts.iter().fold(0_u64, |sum, artifact| sum.saturating_add(artifact.bytes));
        check_artifacts(&self.attempts[&attempt].artifacts, self.attempts_of(build), artifacts.len(), bytes)?;
        let tally = &mut self.edit_attempt(attempt).artifacts;
        count(tally, artifacts.len(), bytes);
        self.yield_outputs(attempt, &artifacts);
        let namespace = self.builds[&build].row.namespace.clone();
        let place = Place { build, job, attempt, namespace, by: None };
        artifacts.into_iter().for_each(|artifact| self.note_output(&place, artifact));
        Ok(())
    }

    /// Notes what a person has uploaded for a job, whose build may be over.
    pub(crate) fn put_artifact(&mut self, actor: &Actor, put: PutArtifact) -> Result<(), Rejected> {
        let PutArtifact { build, attempt, artifact, rows } = put;
        let why = || "no attempt of the build's jobs".to_owned();
        let unknown = || Rejected::Answer { field: "job".to_owned(), why: why() };
        let (job, namespace) = match (self.builds.get(&build), rows) {
            (Some(known), _) => {
                let row = self.attempts.get(&attempt).filter(|row| row.build == build).ok_or_else(unknown)?;
                check_artifacts(&row.artifacts, self.attempts_of(build), 1, artifact.bytes)?;
                let (job, namespace) = (row.job, known.row.namespace.clone());
                count(&mut self.edit_attempt(attempt).artifacts, 1, artifact.bytes);
                (job, namespace)
            }
            (None, None) => return Err(Rejected::NotInMemory(build)),
            (None, Some(rows)) => {
                let known = rows.attempts.iter().find(|row| row.id == attempt).ok_or_else(unknown)?;
                check_artifacts(&known.artifacts, rows.attempts.iter(), 1, artifact.bytes)?;
                let mut row = known.clone();
                count(&mut row.artifacts, 1, artifact.bytes);
                let job = row.job;
                self.book.old_attempts.push(row);
                (job, rows.build.namespace)
            }
        };
        self.audit(actor, "artifact.upload", &build.to_string(), &format!("{} {}", artifact.path, artifact.digest));
        let place = Place { build, job, attempt, namespace, by: Some(actor.clone()) };
        self.note_output(&place, artifact);
        Ok(())
    }

    pub(crate) fn note_output(&mut self, place: &Place, output: Output) {
        self.count_pinned(place.build, output.bytes);
        let created_at = self.now.wall;
        let id = self.ids.artifact(created_at);
        self.book.artifacts.push(ArtifactRow {
            id,
            build: place.build,
            job: place.job,
            attempt: place.attempt,
            path: output.path,
            bytes: output.bytes,
            digest: output.digest,
            sha1: output.sha1,
            sha256: output.sha256,
            content_type: output.content_type,
            executable: output.executable,
            namespace: place.namespace.clone(),
            created_at,
            expires_at: created_at.plus_ms(self.policy.artifact_retention_ms),
            by: place.by.clone(),
        });
    }

    /// The attempts of all jobs of a build in memory.
    pub(crate) fn attempts_of(&self, build: BuildId) -> impl Iterator<Item = &AttemptRow> {
        let jobs = self.builds.get(&build).into_iter().flat_map(|build| &build.jobs);
        jobs.flat_map(|job| &self.jobs[job].row.attempts).filter_map(|id| self.attempts.get(id))
    }
}

/// Whose an artifact is.
pub(crate) struct Place {
    pub(crate) build: BuildId,
    pub(crate) job: JobId,
    pub(crate) attempt: AttemptId,
    pub(crate) namespace: Namespace,
    pub(crate) by: Option<Actor>,
}

fn count(tally: &mut ArtifactTally, more: usize, bytes: u64) {
    tally.count = tally.count.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
    tally.bytes = tally.bytes.saturating_add(bytes);
}

/// Whether there may be so many more, of an attempt and of all of its build.
pub(crate) fn check_artifacts<'a>(
    own: &ArtifactTally,
    all: impl Iterator<Item = &'a AttemptRow>,
    count: usize,
    bytes: u64,
) -> Result<(), Rejected> {
    let (all, all_bytes) = AttemptRow::artifacts_of(all);
    let count = count as u64;
    for (what, value, limit) in [
        ("artifacts of one job", u64::from(own.count) + count, limits::ARTIFACTS_PER_JOB_MAX as u64),
        ("bytes of one job's artifacts", own.bytes.saturating_add(bytes), limits::ARTIFACTS_PER_JOB_MAX_BYTES),
        ("artifacts of one build", all + count, limits::ARTIFACTS_PER_BUILD_MAX as u64),
        ("bytes of one build's artifacts", all_bytes.saturating_add(bytes), limits::ARTIFACTS_PER_BUILD_MAX_BYTES),
    ] {
        if value > limit {
            return Err(Rejected::Limit { what, limit });
        }
    }
    Ok(())
}
