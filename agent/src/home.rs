//! The agent's data directory: who may use it, and where things are in it.
//!
//! `identity/` (key, certificate, CA; 0700), `jobs/` (one directory an attempt; 0700), `cache/` (0700), `work/` (one
//! workspace an attempt; others may pass through it, each workspace is its job's alone), `unreadable/` (attempts that could
//! not be read, for a person to look at; 0700), `lock`.
//!
//! Where the agent is root and its directory lies where slots' users cannot pass (below root's own home, say), `work` is
//! a link to a directory of root's in `/var/tmp`, made anew if it is gone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use windlass_protocol::AttemptId;

use crate::error::Fault;

/// An agent's data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct Home {
    root: PathBuf,
    work: PathBuf,
    _lock: File,
    /// For its end alone.
    temporary: Option<Temporary>,
}

/// A directory that goes with the agent.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = windlass_cache::wipe::wipe(&self.0) {
            tracing::error!(path = %self.0.display(), %error, "temporary_directory_not_removed");
        }
    }
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
        for name in ["identity", "jobs", "cache"] {
            let path = root.join(name);
            ensure_dir(&path, 0o700).map_err(failed(&path))?;
        }
        let path = root.join("work");
        let work = ensure_work(&root, &path).map_err(failed(&path))?;
        Ok(Self { root, work, _lock: lock, temporary: None })
    }

    /// The directory, or one in the system's place for temporary files where it cannot be written: for an agent that
    /// keeps nothing beyond its own life anyway. It is removed with the agent.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_anywhere(root: &Path) -> Result<Self, Fault> {
        match Self::open(root) {
            Err(Fault::File { source, .. }) if is_unwritable(&source) => {}
            other => return other,
        }
        let elsewhere = make_elsewhere(&std::env::temp_dir());
        let elsewhere = elsewhere.map_err(|source| Fault::File {
            doing: "cannot be written, nor can a directory be made in",
            path: std::env::temp_dir(),
            source,
        })?;
        tracing::warn!(data = %root.display(), using = %elsewhere.display(), "data_directory_read_only");
        let temporary = Temporary(elsewhere);
        let mut home = Self::open(&temporary.0)?;
        home.temporary = Some(temporary);
        Ok(home)
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

    /// What could not be read of attempts, once it has ended.
    #[must_use]
    pub fn unreadable(&self) -> PathBuf {
        self.root.join("unreadable")
    }

    /// The agent's cache.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// All workspaces, by a path that jobs can use.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.work.clone()
    }

    /// What belongs to one attempt's job: `checkout`, its workspace, and `home`.
    #[must_use]
    pub fn workspace_of(&self, attempt: AttemptId) -> PathBuf {
        self.work().join(attempt.to_string())
    }
}

pub(crate) fn ensure_dir(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The directory of all workspaces, where every slot's user can pass.
fn ensure_work(root: &Path, path: &Path) -> io::Result<PathBuf> {
    if !geteuid().is_root() || root.ancestors().map(passable).collect::<io::Result<Vec<_>>>()?.into_iter().all(|it| it)
    {
        ensure_dir(path, 0o711)?;
        return Ok(path.to_owned());
    }
    match fs::read_link(path) {
        Ok(elsewhere) if is_roots_own(&elsewhere) => return Ok(elsewhere),
        // Somebody has cleaned up, and the workspaces went with it.
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => fs::remove_dir(path)?,
        Err(error) => return Err(error),
    }
    let elsewhere = make_elsewhere(Path::new("/var/tmp"))?;
    symlink(&elsewhere, path)?;
    Ok(elsewhere)
}

/// Whether everybody may pass through a directory.
fn passable(dir: &Path) -> io::Result<bool> {
    Ok(fs::metadata(dir)?.permissions().mode() & 0o001 != 0)
}

fn is_roots_own(dir: &Path) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir() && found.uid() == 0)
}

fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// A new directory of a name that nobody can have guessed.
fn make_elsewhere(parent: &Path) -> io::Result<PathBuf> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let path = parent.join(format!("windlass-{:016x}", u64::from_le_bytes(bytes)));
    DirBuilder::new().mode(0o711).create(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
    Ok(path)
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
    let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    match noted {
        // The lock is what counts, and an agent whose disk is full still has results to hand in.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => tracing::warn!(%error, "process_id_not_noted"),
        other => other.map_err(failed)?,
    }
    Ok(file)
}
