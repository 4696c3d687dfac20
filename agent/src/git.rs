//! A commit from a repository, in two parts that trust each other in nothing but the objects between them.
//!
//! *Fetching* runs as the agent, with the credentials of the file that it was given, else with what its own git has
//! (helpers, keys), and touches no file of the tree. No secret of them is in what it says, nor in the checkout. *Checking
//! out* runs as the slot's user with a clean environment: filters, submodules and whatever else a hostile tree brings into
//! play have the job's rights and no credentials, so a submodule that needs any is refused, and so is one that names a path
//! of this machine. Hooks never run.

use std::path::{Path, PathBuf};

use tokio::process::Command;
use windlass_agent_runner::launch::User;
use windlass_git::credentials::without_secrets;
use windlass_git::{Bounds, Credentials, GitError};
use windlass_protocol::Cause;
use windlass_protocol::cause::CauseKind;

use crate::environment::PATH;
use crate::error::Fault;
use crate::workspace::Workspace;

/// The agent's git.
#[derive(Debug, Clone, Default)]
pub(crate) struct Git {
    credentials: Credentials,
}

impl Git {
    /// With the credentials of a file.
    ///
    /// # Errors
    /// [`Fault::File`] where there is none, or others may read it.
    pub(crate) fn new(credentials: Option<PathBuf>) -> Result<Self, Fault> {
        let shown = credentials.clone().unwrap_or_default();
        let credentials = Credentials::new(credentials);
        let failed = |source| Fault::File { doing: "git credentials cannot be used:", path: shown, source };
        Ok(Self { credentials: credentials.map_err(failed)? })
    }

    /// Fetches one commit into `dest`, an empty directory of the agent's own. Gives what to check out.
    pub(crate) async fn fetch(
        &self,
        dest: &Path,
        repository: &str,
        commit: &str,
        branch: &str,
    ) -> Result<String, Cause> {
        let secrets =
            self.credentials.secrets().map_err(|e| fail(format!("the agent's git credentials cannot be read: {e}")))?;
        let fetched = self.fetch_told(dest, repository, commit, branch).await;
        fetched.map_err(|cause| Cause::new(cause.kind, without_secrets(&cause.detail, &secrets)))
    }

    async fn fetch_told(&self, dest: &Path, repository: &str, commit: &str, branch: &str) -> Result<String, Cause> {
        if [repository, commit, branch].iter().any(|text| text.starts_with('-') || text.contains('\0')) {
            return Err(fail("the repository, commit or branch is not one".to_owned()));
        }
        let git = async |arguments: &[&str]| run(self.command(dest), arguments).await;
        git(&["init", "--quiet", "--template="]).await?;
        git(&["remote", "add", "origin", repository]).await?;
        let get = ["fetch", "--quiet", "--no-recurse-submodules"];
        let is_commit = commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
        if is_commit {
            let alone = [&get[..], &["--depth=1", "origin", commit]].concat();
            if git(&alone).await.is_err() {
                // Servers that serve no single commits: all branches with their history.
                git(&[&get[..], &["--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"]].concat()).await?;
            }
            return Ok(commit.to_owned());
        }
        let wanted = if branch.is_empty() { "HEAD" } else { branch };
        git(&[&get[..], &["--depth=1", "origin", wanted]].concat()).await?;
        Ok("FETCH_HEAD".to_owned())
    }

    fn command(&self, dest: &Path) -> Command {
        let mut command = agents(dest);
        self.credentials.give(&mut command);
        command
    }
}

/// Lays out what was fetched, which belongs to the slot's user by now.
pub(crate) async fn check_out(workspace: &Workspace, user: Option<User>, target: &str) -> Result<(), Cause> {
    let git = async |arguments: &[&str]| run(jobs(workspace, user), arguments).await;
    git(&["checkout", "--quiet", "--force", "--detach", target]).await?;
    git(&["submodule", "update", "--quiet", "--init", "--recursive", "--force"]).await
}

/// The agent's own git.
fn agents(dest: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dest);
    if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
        // Nobody is there to answer a question.
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
    }
    command
}

/// Git as the job would run it.
fn jobs(workspace: &Workspace, user: Option<User>) -> Command {
    let mut command = Command::new("git");
    command.current_dir(&workspace.checkout).env_clear();
    command
        .env("PATH", PATH)
        .env("HOME", &workspace.home)
        .env("LANG", "C.UTF-8")
        .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

async fn run(command: Command, arguments: &[&str]) -> Result<(), Cause> {
    match windlass_git::run(command, arguments, Bounds::SILENT).await {
        Ok(_) => Ok(()),
        Err(GitError::Refused { said, .. }) if said.contains("No space left on device") => {
            let verb = arguments.first().copied().unwrap_or_default();
            Err(Cause::new(CauseKind::DiskFull, format!("git {verb}: {said}")))
        }
        Err(error) => Err(fail(error.to_string())),
    }
}

fn fail(what: String) -> Cause {
    Cause::new(CauseKind::CheckoutFailed, what)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::own;

    const SLOT: User = User { uid: 64_123, gid: 64_123 };

    struct World {
        dir: tempfile::TempDir,
        workspace: Workspace,
        user: Option<User>,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
            let workspace = Workspace::at(dir.path().join("work"));
            let user = rustix::process::geteuid().is_root().then_some(SLOT);
            for path in [&workspace.root, &workspace.home] {
                fs::DirBuilder::new().mode(0o700).create(path).unwrap();
                own(path, user).unwrap();
            }
            fs::create_dir(&workspace.checkout).unwrap();
            Self { dir, workspace, user }
        }

        fn repository(&self, name: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::create_dir(&path).unwrap();
            sh(&path, "git init -q -b main && echo one >file && git add file && git commit -q -m one");
            path
        }

        async fn lay_out(&self, repository: &Path) -> Result<(), Cause> {
            let Workspace { checkout, .. } = &self.workspace;
            let target = Git::default().fetch(checkout, &repository.display().to_string(), "", "main").await?;
            own(checkout, self.user).unwrap();
            check_out(&self.workspace, self.user, &target).await
        }
    }

    fn sh(dir: &Path, script: &str) {
        let identity = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
        let mut command = std::process::Command::new("sh");
        command.args(["-ec", script]).current_dir(dir).envs(identity.map(|name| (name, "t@example.invalid")));
        assert!(command.status().unwrap().success(), "{script}");
    }

    #[tokio::test]
    async fn a_checkout_belongs_to_the_slot_s_user() {
        let world = World::new();
        world.lay_out(&world.repository("origin")).await.unwrap();
        let file = world.workspace.checkout.join("file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\n");
        if let Some(user) = world.user {
            assert_eq!(fs::metadata(&file).unwrap().uid(), user.uid);
        }
    }

    #[tokio::test]
    async fn a_submodule_that_names_a_path_of_the_machine_is_refused() {
        let world = World::new();
        let (origin, secret) = (world.repository("origin"), world.repository("secret"));
        let add = format!("git -c protocol.file.allow=always submodule --quiet add {} sub", secret.display());
        sh(&origin, &format!("{add} && git commit -q -m sub"));
        let refused = world.lay_out(&origin).await.unwrap_err();
        assert_eq!(refused.kind, CauseKind::CheckoutFailed, "{}", refused.detail);
        assert!(!world.workspace.checkout.join("sub/file").exists());
    }

    #[tokio::test]
    async fn what_looks_like_an_option_is_no_repository() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Git::default().fetch(dir.path(), "--upload-pack=touch x", "", "").await.unwrap_err();
        assert_eq!(refused.kind, CauseKind::CheckoutFailed);
    }
}
