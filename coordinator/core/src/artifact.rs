//! What jobs upload: rows that are noted by whoever holds the right to the attempt, once, within limits (I3, I9).

use windlass_protocol::message::NewArtifact;
use windlass_protocol::{AttemptId, BuildId, hex, limits};

use crate::error::Rejected;
use crate::row::ArtifactRow;
use crate::state::Core;

impl Core {
    /// Notes what a job has uploaded.
    pub(crate) fn add_artifacts(&mut self, attempt: AttemptId, artifacts: Vec<NewArtifact>) -> Result<(), Rejected> {
        let (job, build) = (self.attempts[&attempt].job, self.attempts[&attempt].build);
        let bytes = artifacts.iter().fold(0_u64, |sum, artifact| sum.saturating_add(artifact.bytes));
        self.check_artifacts(build, attempt, artifacts.len(), bytes)?;
        let (created_at, namespace) = (self.now.wall, self.builds[&build].row.namespace.clone());
        let expires_at = created_at.plus_ms(self.policy.artifact_retention_ms);
        let tally = &mut self.edit_attempt(attempt).artifacts;
        tally.count = tally.count.saturating_add(u32::try_from(artifacts.len()).unwrap_or(u32::MAX));
        tally.bytes = tally.bytes.saturating_add(bytes);
        for artifact in artifacts {
            let id = self.ids.artifact(created_at);
            self.book.artifacts.push(ArtifactRow {
                id,
                build,
                job,
                attempt,
                path: artifact.path,
                bytes: artifact.bytes,
                digest: artifact.digest,
                sha1: hex::to(&artifact.sha1),
                sha256: hex::to(&artifact.sha256),
                content_type: artifact.content_type,
                namespace: namespace.clone(),
                created_at,
                expires_at,
            });
        }
        Ok(())
    }

    fn check_artifacts(&self, build: BuildId, attempt: AttemptId, count: usize, bytes: u64) -> Result<(), Rejected> {
        let own = &self.attempts[&attempt].artifacts;
        let jobs = self.builds[&build].jobs.iter();
        let attempts = jobs.flat_map(|job| &self.jobs[job].row.attempts).filter_map(|id| self.attempts.get(id));
        let (all, all_bytes) = attempts.fold((0_u64, 0_u64), |(count, bytes), row| {
            (count + u64::from(row.artifacts.count), bytes.saturating_add(row.artifacts.bytes))
        });
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
}
