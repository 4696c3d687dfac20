//! A job's files: laid out from a tree or checked out with git before it, wiped after it.
//!
//! `work/<attempt>/checkout` is the workspace, `work/<attempt>/home` the job's home; both belong to the slot's user, and
//! the directory above lets nobody else in.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use windlass_agent_runner::launch::User;
use windlass_cache::{LayoutOptions, Store, layout};
use windlass_protocol::Cause;
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::{Epoch, JobSpec, Source};

use crate::bulk::{Bulk, blocking, internal, stored};

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

    /// Makes the directories, the job's alone. A checkout is the agent's while its git works there, which trusts no
    /// directory of another user; [`own`] gives it away.
    fn create(&self, user: Option<User>, source: &Source) -> std::io::Result<()> {
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
    pub(crate) bulk: std::sync::Arc<Bulk>,
}

impl Sources {
    /// Makes the workspace and fills it.
    pub(crate) async fn prepare(
        &self,
        job: &JobSpec,
        epoch: Epoch,
        workspace: &Workspace,
        user: Option<User>,
    ) -> Result<(), Cause> {
        workspace.create(user, &job.source).map_err(|e| io_cause(&e, &workspace.root))?;
        match &job.source {
            Source::Empty => Ok(()),
            Source::Tree { digest } => {
                self.bulk.fetch_tree(job, epoch, *digest).await?;
                let (store, namespace, root) = (self.store.clone(), job.namespace.clone(), *digest);
                let dest = workspace.checkout.clone();
                let options =
                    LayoutOptions { owner: user.map(|user| (user.uid, user.gid)), ..LayoutOptions::default() };
                blocking(move || layout(&store, &namespace, root, &dest, &options).map_err(|e| stored(&e))).await?;
                Ok(())
            }
            Source::Git { repository, commit, branch } => {
                check_out(&workspace.checkout, repository, commit, branch).await?;
                let (checkout, user) = (workspace.checkout.clone(), user);
                blocking(move || own(&checkout, user).map_err(|e| io_cause(&e, &checkout))).await
            }
        }
    }
}

/// Removes a workspace with all that a job may have left there.
pub(crate) async fn wipe(root: PathBuf) {
    let shown = root.clone();
    let wiped = tokio::task::spawn_blocking(move || windlass_cache::wipe::wipe(&root)).await;
    match wiped {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(path = %shown.display(), %error, "workspace_not_wiped"),
        Err(error) => tracing::error!(path = %shown.display(), %error, "workspace_not_wiped"),
    }
}

fn io_cause(error: &std::io::Error, path: &Path) -> Cause {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull => CauseKind::DiskFull,
        _ => CauseKind::Internal,
    };
    Cause::new(kind, format!("{}: {error}", path.display()))
}

/// Fetches one commit, with the credentials that the agent's own git has (its helpers and keys), never the job's.
async fn check_out(dest: &Path, repository: &str, commit: &str, branch: &str) -> Result<(), Cause> {
    let fail = |what: String| Cause::new(CauseKind::CheckoutFailed, what);
    if [repository, commit, branch].iter().any(|text| text.starts_with('-') || text.contains('\0')) {
        return Err(fail("the repository, commit or branch is not one".to_owned()));
    }
    git(dest, &["init", "--quiet"]).await?;
    git(dest, &["remote", "add", "origin", repository]).await?;
    let is_commit = commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    let by_commit = match is_commit {
        true => git(dest, &["fetch", "--quiet", "--depth=1", "origin", commit]).await,
        false => Err(fail("no full commit id was given".to_owned())),
    };
    let target = match by_commit {
        Ok(()) => commit,
        // Servers that serve no single commits: the branch with its history, or all of them.
        Err(_) if is_commit => {
            git(dest, &["fetch", "--quiet", "origin", "+refs/heads/*:refs/remotes/origin/*", "--tags"]).await?;
            commit
        }
        Err(_) => {
            let wanted = if branch.is_empty() { "HEAD" } else { branch };
            git(dest, &["fetch", "--quiet", "--depth=1", "origin", wanted]).await?;
            "FETCH_HEAD"
        }
    };
    git(dest, &["checkout", "--quiet", "--force", "--detach", target]).await?;
    git(dest, &["submodule", "update", "--quiet", "--init", "--recursive", "--force"]).await
}

async fn git(dest: &Path, arguments: &[&str]) -> Result<(), Cause> {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always", "-c", "core.hooksPath=/dev/null", "-C"])
        .arg(dest)
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| Cause::new(CauseKind::CheckoutFailed, format!("git cannot be run: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(1_000).collect();
    let verb = arguments.first().copied().unwrap_or_default();
    Err(Cause::new(CauseKind::CheckoutFailed, format!("git {verb}: {said}")))
}

/// Gives a checkout to the slot's user; links are not followed.
fn own(path: &Path, user: Option<User>) -> std::io::Result<()> {
    let Some(user) = user else { return Ok(()) };
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        std::os::unix::fs::lchown(&path, Some(user.uid), Some(user.gid))?;
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// A cause for what the runner could not do.
pub(crate) fn start_failed(error: &impl std::fmt::Display) -> Cause {
    internal(&format!("the job could not be started: {error}"))
}
