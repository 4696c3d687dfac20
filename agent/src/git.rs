//! A commit from a repository, in two parts that trust each other in nothing but the objects between them.
//!
//! | module | owns |
//! | --- | --- |
//! | `wish` | what is fetched for a job, and the ways to it |
//! | `mirror` | this agent's mirrors, from which jobs get copies |
//! | `verify` | whether a commit is on its branch |
//! | `checkout` | laying out what was fetched, as the job |
//! | `tries` | what may be a network's fault |
//!
//! *Fetching* runs as the agent, with the credentials of the file that it was given, else with what its own git has
//! (helpers, keys), or with the step's own key and nothing else; it touches no file of the tree. No secret of them is in what
//! it says, nor in the checkout. *Checking out* runs as the slot's user with a clean environment: filters, submodules and
//! whatever else a hostile tree brings into play have the job's rights and no credentials, so a submodule that needs any is
//! refused, and so is one that names a path of this machine. Hooks never run. Both go only by the protocols that the agent's
//! operator allows.

mod checkout;
mod mirror;
mod tries;
mod verify;
mod wish;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::process::Command;
use windlass_git::credentials::without_secrets;
use windlass_git::dir_cache::{Held, Limits};
use windlass_git::{BadRepository, Bounds, Credentials, GitError, Identity, Protocols, SshKey, settings};
use windlass_protocol::Cause;
use windlass_protocol::cause::CauseKind;

use self::tries::{Tries, is_transient, may_be_damage};
pub(crate) use self::verify::Verification;
pub(crate) use self::wish::Wish;
use self::wish::{BRANCHES, fetch_words};
use crate::bounded::Bounded;
use crate::error::Fault;
use crate::workspace::wipe_now;

/// Who a fetch is to a server.
#[derive(Debug, Clone, Default)]
pub(crate) enum Who {
    /// The agent, with its operator's credentials.
    #[default]
    Agent,
    /// Whoever has the step's key.
    Key(Arc<SshKey>),
    /// Nobody.
    Nobody,
}

/// The agent's git.
#[derive(Debug, Clone, Default)]
pub(crate) struct Git {
    credentials: Credentials,
    protocols: Protocols,
    /// Where it keeps a mirror of each repository.
    mirrors: Option<Bounded>,
}

impl Git {
    /// With the credentials of a file, by these protocols, and mirrors in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`Fault::File`] where there is none, or others may read it.
    pub(crate) fn new(
        credentials: Option<PathBuf>,
        protocols: Protocols,
        mirrors: Option<(PathBuf, Limits)>,
    ) -> Result<Self, Fault> {
        let shown = credentials.clone().unwrap_or_default();
        let credentials = Credentials::new(credentials);
        let failed = |source| Fault::File { doing: "git credentials cannot be used:", path: shown, source };
        let credentials = credentials.map_err(failed)?;
        let mirrors = mirrors.map(|(path, limits)| mirror::cache(path, limits)).transpose()?;
        Ok(Self { credentials, protocols, mirrors })
    }

    /// By which protocols it fetches.
    pub(crate) const fn protocols(&self) -> &Protocols {
        &self.protocols
    }

    /// Fetches into `dest`, an empty directory of the agent's own. Gives what to check out.
    pub(crate) async fn fetch(&self, dest: &Path, wish: &Wish) -> Result<String, Cause> {
        let mut secrets =
            self.credentials.secrets().map_err(|e| fail(format!("the agent's git credentials cannot be read: {e}")))?;
        if let Who::Key(key) = &wish.who {
            secrets.extend(key.secrets());
        }
        let fetched = self.fetch_told(dest, wish).await;
        fetched.map_err(|cause| Cause::new(cause.kind, without_secrets(&cause.detail, &secrets)))
    }

    async fn fetch_told(&self, dest: &Path, wish: &Wish) -> Result<String, Cause> {
        let texts = [&wish.repository, &wish.commit, &wish.branch].into_iter().chain(&wish.refspec);
        if texts.into_iter().any(|text| text.starts_with('-') || text.contains('\0')) {
            return Err(fail("the repository, commit, branch or refspec is not one".to_owned()));
        }
        self.protocols.check(&wish.repository).map_err(|bad| refused(&bad))?;
        let git = async |arguments: &[&str]| run(self.command(dest, &wish.who), arguments).await;
        git(&["init", "--quiet", "--template="]).await?;
        git(&["remote", "add", "origin", &wish.repository]).await?;
        if let Some(target) = self.fetch_from_mirror(dest, wish).await? {
            return Ok(target);
        }
        let mut tries = Tries::default();
        while let Err(cause) = self.fetch_any(dest, wish).await {
            tries.again(cause).await?;
        }
        Ok(wish.target())
    }

    /// By the first way that brings what is wanted.
    async fn fetch_any(&self, dest: &Path, wish: &Wish) -> Result<(), Cause> {
        let mut last = fail("there is no way to fetch it".to_owned());
        for way in wish.ways() {
            match run(self.command(dest, &wish.who), &fetch_words(wish, &way, "origin")).await {
                Ok(()) if !wish.is_commit() || self.has(dest, &wish.commit).await => return Ok(()),
                Ok(()) => last = fail(format!("git fetch: {} has no commit {}", wish.repository, wish.commit)),
                Err(cause) if is_transient(&cause) || cause.kind == CauseKind::DiskFull => return Err(cause),
                Err(cause) => last = cause,
            }
        }
        Err(last)
    }

    /// Whether a commit is there.
    async fn has(&self, dest: &Path, commit: &str) -> bool {
        run(self.command(dest, &Who::Nobody), &["cat-file", "-e", &format!("{commit}^{{commit}}")]).await.is_ok()
    }

    /// Clones a version of a repository into an empty directory of the agent's own, without its `.git`; the commit.
    pub(crate) async fn clone_for_all(
        &self,
        dest: &Path,
        url: &str,
        version: Option<&str>,
        who: Who,
    ) -> Result<String, Cause> {
        let version = version.unwrap_or("HEAD");
        let mut wish = Wish { repository: url.to_owned(), who: who.clone(), depth: Some(1), ..Wish::default() };
        wish.commit = version.to_owned();
        if !wish.is_commit() {
            // A tag or a branch, whatever has the name.
            wish.refspec = vec![version.to_owned()];
        }
        let target = match self.fetch(dest, &wish).await {
            Ok(target) => target,
            // The first digits of a commit: all of them are needed to find it.
            Err(_) if version.len() >= 7 && version.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                run(self.command(dest, &who), &["fetch", "--quiet", "--tags", "origin", BRANCHES]).await?;
                version.to_owned()
            }
            Err(cause) => return Err(cause),
        };
        // Filters are named by a tree, and defined by configuration: nobody has none, so there is nothing to run.
        let isolated = self.command(dest, &Who::Nobody);
        run(isolated, &["checkout", "--quiet", "--force", "--detach", &target]).await?;
        let commit = std::fs::read_to_string(dest.join(".git/HEAD")).map_err(|e| fail(format!("git checkout: {e}")))?;
        let git_dir = dest.join(".git");
        tokio::task::spawn_blocking(move || wipe_now(&git_dir)).await.map_err(|e| fail(e.to_string()))?;
        Ok(commit.trim().to_owned())
    }

    /// A git of the agent's own.
    fn command(&self, dest: &Path, who: &Who) -> Command {
        let mut command = Command::new("git");
        // What it says is read, to tell a network's fault from an answer.
        command.current_dir(dest).env("LC_ALL", "C");
        let identity = match who {
            Who::Agent => Identity::Operator(&self.credentials),
            Who::Key(key) => Identity::Key(key),
            Who::Nobody => Identity::Nobody,
        };
        settings::settle(&mut command, &self.protocols, identity);
        command
    }
}

async fn run<S: AsRef<str>>(command: Command, arguments: &[S]) -> Result<(), Cause> {
    run_in(None, command, arguments).await
}

/// With the lock of what it works in, if that has one.
async fn run_in<S: AsRef<str>>(held: Option<&Held>, command: Command, arguments: &[S]) -> Result<(), Cause> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let ended = match held {
        Some(held) => windlass_git::run_holding(held, command, &arguments, Bounds::SILENT).await,
        None => windlass_git::run(command, &arguments, Bounds::SILENT).await,
    };
    ended.map(drop).map_err(cause_of)
}

fn cause_of(error: GitError) -> Cause {
    match error {
        GitError::Refused { verb, said, .. } if said.contains("No space left on device") => {
            Cause::new(CauseKind::DiskFull, format!("git {verb}: {said}"))
        }
        error => fail(error.to_string()),
    }
}

/// Before git hears of it.
fn refused(bad: &BadRepository) -> Cause {
    match bad {
        BadRepository::Protocol { .. } => {
            let hint =
                "an agent's operator can allow more with --git-protocol; `file` is a path of the agent's machine";
            Cause::new(CauseKind::RefusedByPolicy, format!("{bad}; {hint}"))
        }
        BadRepository::Malformed | BadRepository::Option | BadRepository::Password => fail(bad.to_string()),
    }
}

fn fail(what: String) -> Cause {
    Cause::new(CauseKind::CheckoutFailed, what)
}

#[cfg(test)]
mod tests;
