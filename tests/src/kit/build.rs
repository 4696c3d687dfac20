//! Builds, jobs and attempts as the API shows them.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A build.
#[derive(Debug, Clone)]
pub struct Build(pub Value);

/// One of its jobs.
#[derive(Debug, Clone)]
pub struct Job(pub Value);

/// One of a job's attempts.
#[derive(Debug, Clone)]
pub struct Attempt(pub Value);

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

impl Build {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        text(&self.0, "id")
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> &str {
        text(&self.0, "state")
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.state(), "passed" | "failed" | "canceled" | "skipped" | "not_run")
    }

    /// Its jobs.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        self.0["jobs"].as_array().into_iter().flatten().cloned().map(Job).collect()
    }

    /// The job of a step.
    ///
    /// # Errors
    /// There is none.
    pub fn job(&self, key: &str) -> Result<Job> {
        let found = self.jobs().into_iter().find(|job| job.key() == key);
        found.with_context(|| format!("no job of step {key}: {}", self.brief()))
    }

    /// The last attempt of a step's job.
    ///
    /// # Errors
    /// There is none.
    pub fn attempt(&self, key: &str) -> Result<Attempt> {
        self.job(key)?.last().with_context(|| format!("no attempt of step {key}: {}", self.brief()))
    }

    /// Whether a step's job is in this state.
    #[must_use]
    pub fn job_is(&self, key: &str, state: &str) -> bool {
        self.job(key).is_ok_and(|job| job.state() == state)
    }

    /// For messages: states, causes and attempts, a line a job that has not passed.
    #[must_use]
    pub fn brief(&self) -> String {
        let mut brief = format!("{} ({})", self.state(), self.0["cause"]);
        for job in self.jobs().iter().filter(|job| job.state() != "passed").take(20) {
            let attempts: Vec<_> = job.attempts().iter().map(|a| format!("{}:{}", a.state(), a.0["cause"])).collect();
            // Writing to a string does not fail.
            let _ = write!(
                brief,
                "\n  {} {} exit {} cause {} attempts {attempts:?}",
                job.key(),
                job.state(),
                job.0["exit_status"],
                job.0["cause"]
            );
        }
        brief
    }
}

impl Job {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        text(&self.0, "id")
    }

    /// Its step's key.
    #[must_use]
    pub fn key(&self) -> &str {
        text(&self.0, "step_key")
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> &str {
        text(&self.0, "state")
    }

    /// What its command ended with.
    #[must_use]
    pub fn exit_status(&self) -> Option<i64> {
        self.0["exit_status"].as_i64()
    }

    /// Why it has no result of its own; empty for an ordinary end.
    #[must_use]
    pub fn cause(&self) -> &str {
        text(&self.0["cause"], "kind")
    }

    /// Its attempts, oldest first.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        let mut attempts: Vec<_> = self.0["attempts"].as_array().into_iter().flatten().cloned().map(Attempt).collect();
        attempts.sort_by_key(|attempt| attempt.0["number"].as_u64());
        attempts
    }

    /// Its last attempt.
    #[must_use]
    pub fn last(&self) -> Option<Attempt> {
        self.attempts().pop()
    }
}

impl Attempt {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        text(&self.0, "id")
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> &str {
        text(&self.0, "state")
    }

    /// Why it has no result of its own; empty for an ordinary end.
    #[must_use]
    pub fn cause(&self) -> &str {
        text(&self.0["cause"], "kind")
    }

    /// The rights by which its agent was given it, and by which it is held now.
    ///
    /// # Errors
    /// It has none.
    pub fn rights(&self) -> Result<(u64, u64)> {
        let right = |name: &str| self.0[name].as_u64().filter(|right| *right > 0);
        let rights = right("granted_epoch").zip(right("epoch"));
        rights.with_context(|| format!("an attempt without a right: {}", self.0))
    }

    /// Its agent's name.
    #[must_use]
    pub fn agent(&self) -> &str {
        text(&self.0["agent"], "name")
    }
}
