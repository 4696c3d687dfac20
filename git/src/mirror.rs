//! Making a bare mirror: it has its name once it is whole.

use std::io;
use std::path::Path;

use tokio::process::Command;

use crate::dir_cache::{DirCache, Held};
use crate::run::{Bounds, GitError, run};

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    /// The disk refuses it.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// Git does.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// What every mirror is set to. Housekeeping ends before its git does, so that whoever has the lock is the only one.
const ALWAYS: [(&str, &str); 2] = [("gc.autoDetach", "false"), ("maintenance.autoDetach", "false")];

/// Makes an empty one for a repository in its place among the others, with more settings. `git` is a git in a directory.
///
/// # Errors
/// [`NotMade`].
pub async fn make(
    cache: &DirCache,
    held: &Held,
    git: impl Fn(&Path) -> Result<Command, io::Error>,
    repository: &str,
    more: &[(&str, &str)],
) -> Result<(), NotMade> {
    let new = cache.begin(held)?;
    let init = Bounds { output_max_bytes: 1, ..Bounds::SILENT };
    run(git(&new)?, &["init", "--quiet", "--bare", "--template="], init).await?;
    for (key, value) in [("remote.origin.url", repository)].iter().chain(&ALWAYS).chain(more) {
        run(git(&new)?, &["config", key, value], init).await?;
    }
    cache.put(held, &new)?;
    Ok(())
}
