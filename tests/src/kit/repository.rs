//! Git repositories that a test makes, with programs and hooks in them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::wait::DEADLINE;
use super::world::{World, run};

/// Writes a program, such as a hook, for all to read and run.
///
/// # Errors
/// It cannot be written.
pub fn program(dir: &Path, name: &str, script: &str) -> Result<()> {
    fs::create_dir_all(dir)?;
    let path = dir.join(name);
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Runs a script that uses git, with a configuration of its own.
///
/// # Errors
/// It fails.
pub async fn git(dir: &Path, script: &str) -> Result<String> {
    let config = "export HOME=$(mktemp -d); trap 'rm -rf \"$HOME\"' EXIT; git config --global user.name t; \
                  git config --global user.email t@example.invalid; git config --global init.defaultBranch main; \
                  git config --global protocol.file.allow always";
    let mut bash = Command::new("bash");
    bash.args(["-ec", &format!("{config}; {script}")]).current_dir(dir);
    Ok(run("git", bash, DEADLINE).await?.code(0)?.stdout)
}

/// A repository with these files, one commit on `main`, and the tag `v1`.
///
/// # Errors
/// It cannot be made.
pub async fn repository(world: &World, name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let dir = world.path(name);
    for (path, text) in files {
        let path = dir.join(path);
        let parent = path.parent().context("a folder")?;
        let file = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        program(parent, file, text)?;
    }
    git(&dir, "git init -q; git add -A; git commit -qm first; git tag v1").await?;
    Ok(dir)
}
