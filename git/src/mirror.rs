//! Making a bare mirror: it has its name once it is whole.

use std::io;
use std::path::Path;

use tokio::process::Command;

use crate::dir_cache::{DirCache, Held};
use crate::run::{Bounds, GitError, run_holding};

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

/// What every mirror is set to.
const ALWAYS: [(&str, &str); 4] = [
    // Housekeeping ends before its git does, so that whoever has the lock is the only one.
    ("gc.autoDetach", "false"),
    ("maintenance.autoDetach", "false"),
    // A fetch of a few objects is a pack too: one file, which is checked whole, and to which a limit of a file's size holds.
    ("fetch.unpackLimit", "1"),
    // Refs are on the disk before they have their names. Git before 2.36 does not know it.
    ("core.fsync", "all"),
];

/// Makes an empty one for a repository in its place among the others, with more settings; what stood there goes. `git` is a
/// git in a directory.
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
    run_holding(held, git(&new)?, &["init", "--quiet", "--bare", "--template="], init).await?;
    for (key, value) in [("remote.origin.url", repository)].iter().chain(&ALWAYS).chain(more) {
        run_holding(held, git(&new)?, &["config", key, value], init).await?;
    }
    cache.put(held, &new)?;
    Ok(())
}
