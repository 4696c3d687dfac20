//! Which jobs are meant by what people and jobs call them, in builds that are in memory: so that who asks reads those rows
//! alone, and not all of a large build.

use std::collections::BTreeSet;

use windlass_protocol::{AttemptId, BuildId, JobId};

use crate::row::JobRow;
use crate::state::Core;

/// Whether a step's key, a job's id or that of one of its attempts is meant.
#[must_use]
pub fn is_step(job: &JobRow, name: &str) -> bool {
    job.node.key.as_deref() == Some(name)
        || job.id.to_string() == name
        || job.attempts.iter().any(|attempt| attempt.to_string() == name)
}

/// [`is_step`], or its label.
#[must_use]
pub fn is_named(job: &JobRow, name: &str) -> bool {
    job.node.label == name || is_step(job, name)
}

impl Core {
    /// All jobs of the first step that is meant, `own`'s where the name is empty; `None` where the build is not in memory.
    #[must_use]
    pub fn jobs_of_step(&self, build: BuildId, name: &str, own: JobId) -> Option<Vec<JobId>> {
        let mut rows = self.rows_of(build)?;
        let first = rows.find(|job| if name.is_empty() { job.id == own } else { is_step(job, name) });
        let Some(first) = first else { return Some(Vec::new()) };
        // Elements of one step share its place.
        Some(self.rows_of(build)?.filter(|job| job.node.place == first.node.place).map(|job| job.id).collect())
    }

    /// All jobs that are meant; `None` where the build is not in memory.
    #[must_use]
    pub fn jobs_named(&self, build: BuildId, name: &str) -> Option<Vec<JobId>> {
        Some(self.rows_of(build)?.filter(|job| is_named(job, name)).map(|job| job.id).collect())
    }

    /// The last attempt of each job of a build; `None` where it is not in memory.
    #[must_use]
    pub fn last_attempts(&self, build: BuildId) -> Option<BTreeSet<AttemptId>> {
        Some(self.rows_of(build)?.filter_map(|job| job.attempts.last().copied()).collect())
    }

    fn rows_of(&self, build: BuildId) -> Option<impl Iterator<Item = &JobRow>> {
        Some(self.builds.get(&build)?.jobs.iter().filter_map(|id| self.jobs.get(id)).map(|job| &job.row))
    }
}
