//! The agent's own hooks: which there are, and whether nobody but the operator can have written them.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use windlass_protocol::Cause;
use windlass_protocol::cause::CauseKind;

/// The names of hooks that jobs run (reference 18.4).
const NAMES: [&str; 10] = [
    "environment",
    "pre-checkout",
    "checkout",
    "post-checkout",
    "pre-command",
    "command",
    "post-command",
    "pre-artifact",
    "post-artifact",
    "pre-exit",
];

/// Why hooks are not run, and so no job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    /// The operator named a place that is not there, or cannot be looked at.
    #[error("the agent's hooks cannot be read: {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others than the operator may have written it.
    #[error(
        "{} could have been written by others than root and the agent's user ({why}); the agent's hooks are not run, nor \
         any job",
        path.display()
    )]
    Writable {
        /// The file, or a directory above it.
        path: PathBuf,
        /// Whose it is, or its mode.
        why: String,
    },
}

impl HookError {
    /// The cause with which a job ends.
    pub(crate) fn cause(&self) -> Cause {
        Cause::new(CauseKind::HookFailed, self.to_string())
    }
}

/// Where the agent's hooks are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hooks {
    paths: Vec<PathBuf>,
}

impl Hooks {
    /// In these directories, the first one's first.
    pub(crate) const fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    /// The directories.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The hooks that there are, by name, in the order of their directories. Looked up for each job: an operator may change
    /// them while the agent runs.
    pub(crate) fn list(&self) -> Result<Vec<(&'static str, PathBuf)>, HookError> {
        let mut found = Vec::new();
        for dir in &self.paths {
            check(dir)?;
            for name in NAMES {
                let path = dir.join(name);
                match fs::metadata(&path) {
                    Ok(file) if file.is_file() => {
                        check(&path)?;
                        found.push((name, path));
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(source) => return Err(HookError::Unreadable { path, source }),
                }
            }
        }
        Ok(found)
    }
}

/// That nobody but root and the agent's user can have put this there: neither by its path nor by where that leads.
pub(crate) fn check(path: &Path) -> Result<(), HookError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| HookError::Unreadable { path, source }
    };
    let real = path.canonicalize().map_err(unreadable(path))?;
    for part in path.ancestors().chain(real.ancestors()).filter(|part| !part.as_os_str().is_empty()) {
        let found = fs::metadata(part).map_err(unreadable(part))?;
        if let Some(why) = writable(&found) {
            return Err(HookError::Writable { path: part.to_owned(), why });
        }
    }
    Ok(())
}

/// [`check`] of a file or directory alone, whose directories are the agent's own.
pub(crate) fn check_alone(path: &Path) -> Result<(), HookError> {
    let found = fs::symlink_metadata(path);
    let found = found.map_err(|source| HookError::Unreadable { path: path.to_owned(), source })?;
    match writable(&found).filter(|_| !found.is_symlink()) {
        Some(why) => Err(HookError::Writable { path: path.to_owned(), why }),
        None => Ok(()),
    }
}

fn writable(found: &Metadata) -> Option<String> {
    let (owner, mode) = (found.uid(), found.permissions().mode() & 0o7777);
    if owner != 0 && owner != geteuid().as_raw() {
        return Some(format!("it belongs to user {owner}"));
    }
    // In a sticky directory nobody renames or removes what is another's.
    let kept = found.is_dir() && mode & 0o1000 != 0;
    (mode & 0o022 != 0 && !kept).then(|| format!("its mode is {mode:04o}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn put(path: &Path, mode: u32) {
        fs::write(path, "true\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn hooks_are_listed_by_name_in_the_order_of_their_directories() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for hooks in [&first, &second] {
            fs::create_dir(hooks).unwrap();
            put(&hooks.join("environment"), 0o755);
            put(&hooks.join("agent-startup"), 0o755);
        }
        put(&second.join("pre-exit"), 0o644);
        fs::create_dir(first.join("command")).unwrap();
        let found = Hooks::new(vec![first.clone(), second.clone()]).list().unwrap();
        let wanted = [
            ("environment", first.join("environment")),
            ("environment", second.join("environment")),
            ("pre-exit", second.join("pre-exit")),
        ];
        assert_eq!(found, wanted);
        assert_eq!(Hooks::default().list().unwrap(), []);
    }

    #[test]
    fn a_hook_that_others_may_write_stops_all() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = dir.path().join("hooks");
        fs::create_dir(&hooks).unwrap();
        let list = || Hooks::new(vec![hooks.clone()]).list().map_err(|error| error.to_string());
        put(&hooks.join("environment"), 0o755);
        assert_eq!(list().unwrap().len(), 1);
        put(&hooks.join("environment"), 0o757);
        assert!(list().unwrap_err().contains("its mode is 0757"), "{:?}", list());
        put(&hooks.join("environment"), 0o755);
        fs::set_permissions(&hooks, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(list().unwrap_err().contains("hooks could have been written"), "{:?}", list());
        fs::set_permissions(&hooks, fs::Permissions::from_mode(0o755)).unwrap();
        // A link of root's that leads to somebody's file.
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        put(&elsewhere.join("hook"), 0o755);
        symlink(elsewhere.join("hook"), hooks.join("pre-exit")).unwrap();
        assert_eq!(list().unwrap().len(), 2);
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o733)).unwrap();
        assert!(list().is_err());
        if geteuid().is_root() {
            fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o755)).unwrap();
            chown(elsewhere.join("hook"), Some(64_123), None).unwrap();
            assert!(list().unwrap_err().contains("belongs to user 64123"), "{:?}", list());
        }
        let missing = Hooks::new(vec![dir.path().join("none")]).list();
        assert!(matches!(missing, Err(HookError::Unreadable { .. })), "an operator's rule that is not there");
    }
}
