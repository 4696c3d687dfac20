//! The agent's data directory: who may use it, and where things are in it.
//!
//! `identity/` (key, certificate, CA; 0700), `jobs/` (one directory an attempt; 0700), `cache/` (0700), `work/` (one
//! workspace an attempt; others may pass through it, each workspace is its job's alone), `lock`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use windlass_protocol::AttemptId;

use crate::error::Fault;

/// An agent's data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct Home {
    root: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes what is missing of the directory and locks it.
    ///
    /// # Errors
    /// [`Fault::Locked`] where another agent uses it, else those of the file system.
    pub fn open(root: &Path) -> Result<Self, Fault> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Fault::File { doing: "cannot prepare", path, source }
        };
        fs::create_dir_all(root).map_err(failed(root))?;
        let root = root.canonicalize().map_err(failed(root))?;
        let lock = lock(&root)?;
        for (name, mode) in [("identity", 0o700), ("jobs", 0o700), ("cache", 0o700), ("work", 0o711)] {
            let path = root.join(name);
            ensure_dir(&path, mode).map_err(failed(&path))?;
        }
        Ok(Self { root, _lock: lock })
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Key and certificates.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// One directory an attempt.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    /// The agent's cache.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// All workspaces.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// What belongs to one attempt's job: `checkout`, its workspace, and `home`.
    #[must_use]
    pub fn workspace_of(&self, attempt: AttemptId) -> PathBuf {
        self.work().join(attempt.to_string())
    }
}

fn ensure_dir(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn lock(root: &Path) -> Result<File, Fault> {
    let path = root.join("lock");
    let failed = |source| Fault::File { doing: "cannot lock", path: path.clone(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        file.read_to_string(&mut holder).map_err(failed)?;
        return Err(Fault::Locked { path: root.to_owned(), holder: holder.trim().to_owned() });
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}
