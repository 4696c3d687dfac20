//! What a git that was killed leaves in a repository.

use std::path::Path;
use std::{fs, io};

/// Takes away the lock files of a bare repository. Only while no other git works in it. Blocks.
///
/// # Errors
/// Those of the file system.
pub fn clear(dir: &Path) -> io::Result<()> {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            // Objects are named by their content and have no locks.
            if is_dir && entry.file_name() != "objects" {
                open.push(entry.path());
            } else if !is_dir && entry.path().extension().is_some_and(|extension| extension == "lock") {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_go_wherever_they_are_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("refs/heads")).unwrap();
        fs::create_dir_all(path("objects/ab")).unwrap();
        for name in ["config.lock", "refs/heads/main.lock", "refs/heads/main", "objects/ab/c.lock"] {
            fs::write(path(name), "").unwrap();
        }
        clear(dir.path()).unwrap();
        let there = |name: &str| path(name).exists();
        assert!(!there("config.lock") && !there("refs/heads/main.lock"));
        assert!(there("refs/heads/main") && there("objects/ab/c.lock"));
    }
}
