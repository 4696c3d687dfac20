//! Laying out what was fetched, as the slot's user: filters, submodules and whatever else a tree brings into play run here.

use tokio::process::Command;
use windlass_agent_runner::launch::User;
use windlass_git::settings;
use windlass_protocol::Cause;
use windlass_protocol::job::JobSpec;

use super::{Git, Tries, run};
use crate::environment::PATH;
use crate::phases::variable;
use crate::workspace::Workspace;

impl Git {
    /// Lays out what was fetched, which belongs to the slot's user by now, as the job wishes (reference 11.7).
    pub(crate) async fn check_out(
        &self,
        workspace: &Workspace,
        user: Option<User>,
        target: &str,
        spec: &JobSpec,
    ) -> Result<(), Cause> {
        let git = async |arguments: &[&str]| run(self.jobs(workspace, user), arguments).await;
        let sparse: Vec<&str> = variable(spec, "BUILDKITE_GIT_SPARSE_CHECKOUT_PATHS")
            .split([',', '\n'])
            .map(str::trim)
            .filter(|path| !path.is_empty())
            .collect();
        if !sparse.is_empty() {
            git(&[&["sparse-checkout", "set", "--no-cone", "--"], &sparse[..]].concat()).await?;
        }
        git(&["checkout", "--quiet", "--force", "--detach", target]).await?;
        let submodules = !matches!(variable(spec, "BUILDKITE_GIT_SUBMODULES"), "false" | "0") && sparse.is_empty();
        if submodules {
            let update = ["submodule", "update", "--quiet", "--init", "--recursive", "--force"];
            let mut tries = Tries::default();
            while let Err(cause) = git(&update).await {
                tries.again(cause).await?;
            }
        }
        if matches!(variable(spec, "BUILDKITE_GIT_LFS_ENABLED"), "true" | "1") {
            git(&["lfs", "install", "--local"]).await?;
            git(&["lfs", "pull"]).await?;
        }
        Ok(())
    }

    /// Git as the job would run it.
    fn jobs(&self, workspace: &Workspace, user: Option<User>) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&workspace.checkout).env_clear();
        command
            .env("PATH", PATH)
            .env("HOME", &workspace.home)
            // What it says is read, to tell a network's fault from an answer.
            .env("LC_ALL", "C.UTF-8")
            .envs(settings::ALWAYS)
            .env(settings::ALLOWED, self.protocols.elsewhere().variable())
            .env(settings::SSH_COMMAND, settings::SSH);
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}
