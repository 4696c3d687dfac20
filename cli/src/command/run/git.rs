//! What git knows of a directory: branch, commit, message.

use std::path::Path;
use std::process::{Command, Stdio};

use windlass_protocol::limits::{DETAIL_MAX_BYTES, MESSAGE_MAX_BYTES};

/// What a build says of its source; empty where there is no git.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) branch: String,
    pub(super) commit: String,
    pub(super) message: String,
    /// Where it was cloned from.
    pub(super) repository: Option<String>,
}

/// Asks git; a directory without one has none of it.
pub(super) fn facts(dir: &Path) -> Facts {
    let Some(log) = git(dir, &["log", "-1", "--format=%H%n%B"]) else { return Facts::default() };
    let (commit, message) = log.split_once('\n').unwrap_or((&log, ""));
    let message = message.trim();
    let end = message.floor_char_boundary(MESSAGE_MAX_BYTES);
    Facts {
        branch: git(dir, &["symbolic-ref", "--quiet", "--short", "HEAD"]).unwrap_or_default().trim().to_owned(),
        commit: commit.to_owned(),
        message: message.get(..end).unwrap_or_default().to_owned(),
        repository: git(dir, &["config", "--get", "remote.origin.url"])
            .map(|url| url.trim().to_owned())
            .filter(|url| !url.is_empty() && url.len() <= DETAIL_MAX_BYTES),
    }
}

fn git(dir: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(arguments)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
