//! A job's files: laid out from a tree or checked out with git (see [`git`]) before it, wiped after it.
//!
//! `work/<attempt>/checkout` is the workspace, `work/<attempt>/home` the job's home; both belong to the slot's user, and
//! the directory above lets nobody else in.

mod spares;

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use windlass_agent_runner::launch::User;
use windlass_cache::{LayoutOptions, Store, layout};
use windlass_git::SshKey;
use windlass_protocol::Cause;
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::{JobSpec, Source};

use crate::bulk::{Bulk, internal, stored};
use crate::git::{Git, Verification, Who, Wish};
use crate::phases::Course;
use crate::preparing::Busy;
use crate::right::Right;
use crate::stock::Trees;

pub(crate) use self::spares::Spares;

/// Where an attempt's job lives.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    /// All of it; what is wiped.
    pub(crate) root: PathBuf,
    /// Its files, and where its command starts.
    pub(crate) checkout: PathBuf,
    /// Its `HOME`.
    pub(crate) home: PathBuf,
}

impl Workspace {
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { checkout: root.join("checkout"), home: root.join("home"), root }
    }

    /// Where its plugins are, which it reads and does not own.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.root.join("plugins")
    }

    /// Makes the directories, the job's alone. A checkout is the agent's while its git works there, which trusts no
    /// directory of another user; [`own`] gives it away.
    pub(crate) fn create(&self, user: Option<User>, source: &Source) -> std::io::Result<()> {
        for dir in [&self.root, &self.checkout, &self.home] {
            DirBuilder::new().mode(0o700).create(dir)?;
            let later = matches!(source, Source::Git { .. }) && dir == &self.checkout;
            if let Some(user) = user.filter(|_| !later) {
                chown(dir, Some(user.uid), Some(user.gid))?;
            }
        }
        Ok(())
    }
}

/// What preparing a workspace stands on.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) store: Store,
    pub(crate) bulk: Arc<Bulk>,
    pub(crate) git: Git,
    /// Those that were brought.
    pub(crate) trees: Trees,
}

impl Sources {
    /// Fills a workspace, as far as its job's course wants it. A repository is fetched with the step's own key, if it has one.
    pub(crate) async fn fill(
        &self,
        (job, right): (&JobSpec, &Right),
        (workspace, user): (&Workspace, Option<User>),
        busy: &Busy,
        course: &Course,
        key: Option<Arc<SshKey>>,
    ) -> Result<Filled, Cause> {
        let nothing = || Ok(Filled::default());
        match &job.source {
            Source::Empty => nothing(),
            Source::Tree { .. } if !course.brings_files() => nothing(),
            Source::Tree { digest } => {
                let began = Instant::now();
                let held = self.bulk.fetch_tree(job, right, *digest).await?;
                let took = began.elapsed();
                let (store, namespace, root) = (self.store.clone(), job.namespace.clone(), *digest);
                let dest = workspace.checkout.clone();
                let options =
                    LayoutOptions { owner: user.map(|user| (user.uid, user.gid)), ..LayoutOptions::default() };
                let laid = busy
                    .blocking(move || layout(&store, &namespace, root, &dest, &options).map_err(|e| stored(&e)))
                    .await?;
                drop(held);
                self.trees.note(digest, laid.bytes, took);
                nothing()
            }
            Source::Git { repository, commit, branch } => {
                let (mut target, mut warning) = (None, None);
                if course.brings_files() {
                    let mut wish = Wish::of(job, repository, commit, branch);
                    wish.who = key.map_or(Who::Agent, Who::Key);
                    let how = Verification::of(job)?;
                    target = Some(self.git.fetch(&workspace.checkout, &wish).await?);
                    warning = self.git.verify(&workspace.root.join("verify"), &wish, how).await?;
                }
                let checkout = workspace.checkout.clone();
                busy.blocking(move || own(&checkout, user).map_err(|e| io_cause(&e, &checkout))).await?;
                match target {
                    Some(target) if !course.defers_checkout(job) => {
                        self.git.check_out(workspace, user, &target, job).await?;
                        Ok(Filled { target: None, warning })
                    }
                    target => Ok(Filled { target, warning }),
                }
            }
        }
    }
}

/// What came of filling a workspace.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    /// What is left to be checked out by the job.
    pub(crate) target: Option<String>,
    /// What people should read of it in the job's log.
    pub(crate) warning: Option<String>,
}

/// Removes a workspace with all that a job may have left there.
pub(crate) async fn wipe(root: PathBuf) {
    let shown = root.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || wipe_now(&root)).await {
        tracing::error!(path = %shown.display(), %error, "workspace_not_wiped");
    }
}

/// [`wipe`], for callers that may block.
pub(crate) fn wipe_now(root: &Path) {
    if remove_empty(root).is_ok() {
        return;
    }
    if let Err(error) = windlass_cache::wipe::wipe(root) {
        tracing::error!(path = %root.display(), %error, "workspace_not_wiped");
    }
}

/// Removes a workspace in which there is nothing, as many jobs leave it. Follows no link.
fn remove_empty(root: &Path) -> std::io::Result<()> {
    let Workspace { root, checkout, home } = Workspace::at(root.to_owned());
    [checkout, home, root].iter().try_for_each(std::fs::remove_dir)
}

pub(crate) fn io_cause(error: &std::io::Error, path: &Path) -> Cause {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => CauseKind::DiskFull,
        _ => CauseKind::Internal,
    };
    Cause::new(kind, format!("{}: {error}", path.display()))
}

/// Gives a checkout to the slot's user.
pub(crate) fn own(path: &Path, user: Option<User>) -> std::io::Result<()> {
    user.map_or(Ok(()), |user| windlass_agent_runner::owner::give(path, user))
}

/// A cause for what the runner could not do.
pub(crate) fn start_failed(error: &impl std::fmt::Display) -> Cause {
    internal(&format!("the job could not be started: {error}"))
}

#[cfg(test)]
mod tests;
