//! Whether a commit is on the branch that its build names: `checkout.commit_verification` (reference 11.7, 18.3).

use std::path::Path;

use windlass_git::dir_cache::Held;
use windlass_git::{Bounds, GitError};
use windlass_protocol::Cause;
use windlass_protocol::job::JobSpec;

use super::{Git, Tries, Wish, cause_of, fail, run, run_in};
use crate::phases::variable;
use crate::workspace::wipe_now;

/// The ref by which a branch is looked at that was asked for just now.
const SEEN: &str = "refs/windlass/verified";

/// How a step wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Not at all.
    Off,
    /// It is told where it is not.
    Warn,
    /// The job fails where it is not.
    Strict,
}

impl Verification {
    /// Of a job. What cannot be meant fails it: it stands for a rule.
    pub(crate) fn of(spec: &JobSpec) -> Result<Self, Cause> {
        match variable(spec, "BUILDKITE_GIT_COMMIT_VERIFICATION") {
            "" | "off" => Ok(Self::Off),
            "warn" => Ok(Self::Warn),
            "strict" => Ok(Self::Strict),
            _ => Err(fail("BUILDKITE_GIT_COMMIT_VERIFICATION is neither strict, warn nor off".to_owned())),
        }
    }
}

impl Wish {
    /// Whether there is something to verify: a commit that is said to be on a branch (reference 18.3). By what the coordinator
    /// knows of the build alone: no variable that a client or a step sets takes a claim away.
    pub(super) fn is_claim(&self) -> bool {
        self.is_commit() && !self.branch.is_empty() && !self.is_tag && !self.is_pull_request
    }
}

impl Git {
    /// Looks whether the commit is on its branch, as the server has that now; what is to be told in the job's log, if
    /// anything. `scratch` is a path beside the checkout at which there is nothing.
    pub(crate) async fn verify(&self, scratch: &Path, wish: &Wish, how: Verification) -> Result<Option<String>, Cause> {
        if how == Verification::Off || !wish.is_claim() {
            return Ok(None);
        }
        let found = match self.mirrors_for(wish) {
            Some(cache) => {
                let mirror = self.mirror(cache, &wish.repository).await?;
                match self.is_on_branch(&mirror.dir, Some(&mirror.held), wish).await {
                    Err(failure) => match self.heal(cache, &mirror, wish, failure).await {
                        Ok(()) => self.is_on_branch(&mirror.dir, Some(&mirror.held), wish).await,
                        Err(cause) => Err(cause),
                    },
                    found => found,
                }
            }
            None => {
                let looked = self.look_aside(scratch, wish).await;
                let scratch = scratch.to_owned();
                tokio::task::spawn_blocking(move || wipe_now(&scratch)).await.map_err(|e| fail(e.to_string()))?;
                looked
            }
        };
        let why = match (found, how) {
            (Ok(true), _) => return Ok(None),
            (Ok(false), _) => format!("the commit {} is not on {}", wish.commit, wish.reference()),
            (Err(cause), Verification::Strict) => return Err(cause),
            (Err(cause), _) => {
                format!("it is not known whether {} is on {}: {}", wish.commit, wish.reference(), cause.detail)
            }
        };
        if how == Verification::Strict {
            Err(fail(format!("{why} (commit_verification: strict)")))
        } else {
            Ok(Some(why))
        }
    }

    /// Looks in a repository of commits alone, which nobody else sees.
    async fn look_aside(&self, scratch: &Path, wish: &Wish) -> Result<bool, Cause> {
        std::fs::create_dir(scratch).map_err(|error| crate::workspace::io_cause(&error, scratch))?;
        let git = async |arguments: &[&str]| run(self.command(scratch, &wish.who), arguments).await;
        git(&["init", "--quiet", "--bare", "--template="]).await?;
        git(&["remote", "add", "origin", &wish.repository]).await?;
        self.is_on_branch(scratch, None, wish).await
    }

    async fn is_on_branch(&self, dir: &Path, held: Option<&Held>, wish: &Wish) -> Result<bool, Cause> {
        let branch = format!("+{}:{SEEN}", wish.reference());
        let mut words = vec!["fetch", "--quiet", "--no-recurse-submodules", "--no-tags"];
        // A mirror holds contents: what it lacks of them nobody would bring later.
        if self.mirrors_for(wish).is_none() {
            words.push("--filter=tree:0");
        }
        words.extend(["origin", &branch]);
        let mut tries = Tries::default();
        while let Err(cause) = run_in(held, self.command(dir, &wish.who), &words).await {
            if cause.detail.contains("couldn't find remote ref") {
                return Ok(false);
            }
            tries.again(cause).await?;
        }
        if !self.has_at_hand(dir, &wish.commit).await? {
            return Ok(false);
        }
        self.says(dir, &["merge-base", "--is-ancestor", &wish.commit, SEEN]).await
    }

    async fn has_at_hand(&self, dir: &Path, commit: &str) -> Result<bool, Cause> {
        self.says(dir, &["rev-parse", "--quiet", "--verify", &format!("{commit}^{{commit}}")]).await
    }

    /// What git says by its status. Nothing is fetched for it.
    async fn says(&self, dir: &Path, arguments: &[&str]) -> Result<bool, Cause> {
        let mut command = self.command(dir, &super::Who::Nobody);
        command.env("GIT_NO_LAZY_FETCH", "1");
        match windlass_git::run(command, arguments, Bounds::SILENT).await {
            Ok(_) => Ok(true),
            Err(GitError::Refused { status: Some(1), .. }) => Ok(false),
            Err(error) => Err(cause_of(error)),
        }
    }
}
