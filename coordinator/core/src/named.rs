//! Which jobs are meant by what people and jobs call them, in builds that are in memory: so that who asks reads those rows
//! alone, and not all of a large build.

use std::collections::BTreeSet;

use windlass_protocol::{AttemptId, BuildId, JobId};

use crate::row::JobRow;
use crate::state::Core;

/// What somebody calls jobs by, read once for all jobs that it is compared with.
#[derive(Debug, Clone, Copy)]
pub struct JobName<'a> {
    text: &'a str,
    job: Option<JobId>,
    attempt: Option<AttemptId>,
}

impl<'a> JobName<'a> {
    /// Reads a name.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        Self { text, job: text.parse().ok(), attempt: text.parse().ok() }
    }

    /// Whether a step's key, a job's id or that of one of its attempts is meant.
    #[must_use]
    pub fn is_step(&self, job: &JobRow) -> bool {
        job.node.key.as_deref() == Some(self.text)
            || self.job == Some(job.id)
            || self.attempt.is_some_and(|attempt| job.attempts.contains(&attempt))
    }

    /// [`Self::is_step`], or its label.
    #[must_use]
    pub fn is_named(&self, job: &JobRow) -> bool {
        job.node.label == self.text || self.is_step(job)
    }
}

impl Core {
    /// All jobs of the first step that is meant, `own`'s where the name is empty; `None` where the build is not in memory.
    #[must_use]
    pub fn jobs_of_step(&self, build: BuildId, name: &str, own: JobId) -> Option<Vec<JobId>> {
        let mut rows = self.rows_of(build)?;
        let called = JobName::of(name);
        let first = rows.find(|job| if name.is_empty() { job.id == own } else { called.is_step(job) });
        let Some(first) = first else { return Some(Vec::new()) };
        // Elements of one step share its place.
        Some(self.rows_of(build)?.filter(|job| job.node.place == first.node.place).map(|job| job.id).collect())
    }

    /// All jobs that are meant; `None` where the build is not in memory.
    #[must_use]
    pub fn jobs_named(&self, build: BuildId, name: &str) -> Option<Vec<JobId>> {
        let called = JobName::of(name);
        Some(self.rows_of(build)?.filter(|job| called.is_named(job)).map(|job| job.id).collect())
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
