//! Gives files to who works with them.

use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::Path;

use crate::launch::User;

/// Gives a file, or a directory with all that is in it, to a user; links are not followed.
///
/// # Errors
/// Those of the file system; part of it may have been given away then.
pub fn give(path: &Path, user: User) -> io::Result<()> {
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        lchown(&path, Some(user.uid), Some(user.gid))?;
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(())
}
