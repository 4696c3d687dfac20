//! Which files a commit has changed, out of its mirror: what `if_changed` asks (reference 11.1, docs/design/027).

use windlass_git::changed::{With, base, files};
use windlass_protocol::hex;
use windlass_protocol::limits::CHANGED_FILES_MAX;

use super::mirror::Mirror;
use super::reference::Reference;

/// A pipeline whose text has this in it may ask for them.
const ATTRIBUTE: &str = "if_changed";

/// Whether a pipeline may ask which files have changed.
#[must_use]
pub(crate) fn is_asked(text: &str) -> bool {
    text.contains(ATTRIBUTE)
}

/// What the files are compared with, by the variables of a build and of its pipeline beneath, and the default branch.
#[must_use]
pub(crate) fn base_of(env: &[(String, String)], beneath: &[(String, String)], default_branch: &str) -> String {
    let value = |name: &str| {
        let own = env.iter().rev().find(|(known, _)| known == name);
        own.or_else(|| beneath.iter().rev().find(|(known, _)| known == name)).map_or("", |(_, value)| value.as_str())
    };
    base(value("BUILDKITE_GIT_DIFF_BASE"), value("BUILDKITE_PULL_REQUEST_BASE_BRANCH"), default_branch)
}

/// The files by their paths; where nobody can say, why.
pub(super) async fn of(mirror: &Mirror<'_>, base: &str, commit: &str) -> Result<Vec<String>, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let base_commit = commit_of(mirror, base).await?;
    let mut looks = mirror;
    let files = files(&mut looks, &base_commit, commit, With::Commit).await.map_err(|error| said(&error))?;
    if files.len() > CHANGED_FILES_MAX {
        return Err(format!("{} files have changed since {base}; {CHANGED_FILES_MAX} are the most", files.len()));
    }
    Ok(files)
}

/// The commit of a branch of the server (`origin/main`), of a tag, or of its whole id. Other names that git has for commits
/// are not understood: they come from who submits.
async fn commit_of(mirror: &Mirror<'_>, base: &str) -> Result<String, String> {
    if hex::is_commit_id(base) {
        return Ok(base.to_ascii_lowercase());
    }
    let reference = match base.strip_prefix("origin/") {
        Some(branch) => Reference::branch(branch),
        None if base.starts_with("refs/") => Reference::branch(base),
        None => Reference::tag(base),
    };
    let reference = reference.map_err(|error| error.to_string())?;
    let commit = mirror.commit_of(&reference.kept()).await.map_err(|error| error.to_string())?;
    commit.ok_or_else(|| format!("the repository has no {}", reference.as_str()))
}
