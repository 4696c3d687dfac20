//! The data directory: one coordinator at a time, a format that is known, and space held in reserve.
//!
//! | file | what |
//! | --- | --- |
//! | `lock` | held with `flock` while a coordinator runs; holds its process number |
//! | `format` | the layout's version |
//! | `reserve` | bytes that a full disk can still give to running builds |
//! | `store.sqlite` | the store |

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};

use crate::fault::OpenError;

/// The layout that this version writes.
pub const FORMAT: u32 = 1;

/// Others may pass through the directory.
const DIR_MODE: u32 = 0o711;

/// Its files are the coordinator's alone.
const FILE_MODE: u32 = 0o600;

/// What stands before the version in `format`.
const FORMAT_PREFIX: &str = "windlass-data ";

/// A data directory that this process holds.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held until dropped.
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, takes its lock and reads its format.
    ///
    /// # Errors
    /// [`OpenError::InUse`], [`OpenError::NewerSchema`], or what the system says.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        make_dir(path).map_err(|e| OpenError::io("make the directory", path, e))?;
        let lock = take_lock(path)?;
        keep_to_ourselves(path).map_err(|e| OpenError::io("take the rights of others from", path, e))?;
        let format = path.join("format");
        match read_format(&format)? {
            Some(found) if found > FORMAT => {
                return Err(OpenError::NewerSchema { path: format, found, known: FORMAT });
            }
            Some(_) => {}
            None => {
                write_whole(&format, format!("{FORMAT_PREFIX}{FORMAT}\n").as_bytes())
                    .map_err(|e| OpenError::io("write", &format, e))?;
                sync_dir(path).map_err(|e| OpenError::io("sync", path, e))?;
            }
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the directory: others may pass, for an agent's workspaces may lie below, and see nothing.
fn make_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(DIR_MODE).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

/// Leaves nobody else any right to the directory's files, those of earlier versions among them: a job that runs beside the
/// coordinator must not read other builds' variables.
fn keep_to_ourselves(dir: &Path) -> io::Result<()> {
    let narrow = |path: &Path, found: &fs::Metadata, mode: u32| match found.permissions().mode() & 0o7_777 {
        held if held & !mode == 0 => Ok(()),
        held => match fs::set_permissions(path, fs::Permissions::from_mode(held & mode)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                // Somebody else's: whoever gave it to us has to decide.
                tracing::warn!(path = %path.display(), mode = format!("{held:o}"), "others_can_read_the_data");
                Ok(())
            }
            other => other,
        },
    };
    narrow(dir, &fs::metadata(dir)?, DIR_MODE)?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.symlink_metadata() {
            Ok(found) if found.is_file() => narrow(&path, &found, FILE_MODE)?,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes an empty file that nobody else can read, if there is none.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path).map(drop)
}

/// Takes the lock and leaves our process number in it.
fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let open = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&path);
    let mut lock = open.map_err(|e| OpenError::io("open", &path, e))?;
    if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        return Err(refused_lock(dir, &path, &mut lock, error));
    }
    let written = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
    written.map_err(|e| OpenError::io("write", &path, e))?;
    Ok(lock)
}

fn refused_lock(dir: &Path, path: &Path, lock: &mut File, error: rustix::io::Errno) -> OpenError {
    if error != rustix::io::Errno::WOULDBLOCK {
        return OpenError::io("lock", path, error.into());
    }
    let mut text = String::new();
    let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    OpenError::InUse { dir: dir.to_owned(), pid }
}

/// Takes the lock of a directory that is only read, so that nothing changes under the reader; makes nothing.
pub(crate) fn lock_to_read(dir: &Path) -> Result<Option<File>, OpenError> {
    let path = dir.join("lock");
    let mut lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("open", &path, error)),
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(lock)),
        Err(error) => Err(refused_lock(dir, &path, &mut lock, error)),
    }
}

/// The version in `format`; `None` where there is no such file, or an empty one that a crash left behind.
pub(crate) fn read_format(path: &Path) -> Result<Option<u32>, OpenError> {
    let text = match fs::read_to_string(path) {
        Ok(text) if text.is_empty() => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("read", path, error)),
    };
    let version = text.strip_prefix(FORMAT_PREFIX).and_then(|rest| rest.trim_end().parse().ok());
    let foreign = || OpenError::Foreign { path: path.to_owned(), detail: text.chars().take(80).collect() };
    version.map(Some).ok_or_else(foreign)
}

/// Writes a small file and makes its bytes durable; its name is the caller's to sync.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Bytes that a process without privileges can still write on a path's disk.
///
/// # Errors
/// What the system says.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Space held back, so that running builds can still commit when the disk is full.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    low_bytes: u64,
    free_bytes: fn(&Path) -> io::Result<u64>,
    held: bool,
}

impl Reserve {
    /// Takes the reserve if there is room for it; a disk without room is a reason to refuse builds, not to stay down.
    pub(crate) fn new(dir: &Path, bytes: u64, low_bytes: u64, free_bytes: fn(&Path) -> io::Result<u64>) -> Self {
        let path = dir.join("reserve");
        let held = fs::metadata(&path).is_ok_and(|found| found.len() == bytes);
        let mut reserve = Self { path, bytes, low_bytes, free_bytes, held };
        reserve.mend();
        reserve
    }

    /// Gives the space back to the disk. `false` if it was given already.
    pub(crate) fn release(&mut self) -> bool {
        if !self.held {
            return false;
        }
        match fs::remove_file(&self.path) {
            Ok(()) => {
                tracing::error!(bytes = self.bytes, "store_reserve_released");
                self.held = false;
                true
            }
            Err(error) => {
                tracing::error!(%error, "store_reserve_not_released");
                false
            }
        }
    }

    /// Takes the reserve again where there is room.
    fn mend(&mut self) {
        if self.held || self.free() < self.bytes.saturating_add(self.low_bytes) {
            return;
        }
        match self.allocate() {
            Ok(()) => {
                tracing::info!(bytes = self.bytes, "store_reserve_taken");
                self.held = true;
            }
            Err(error) => {
                tracing::warn!(%error, "store_reserve_not_taken");
                if let Err(error) = fs::remove_file(&self.path) {
                    tracing::warn!(%error, "store_reserve_not_removed");
                }
            }
        }
    }

    fn allocate(&self) -> io::Result<()> {
        let mut file = File::create(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            Ok(()) => {}
            // Not every file system can: then the bytes are written.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let copied = io::copy(&mut io::repeat(0).take(self.bytes), &mut file)?;
                debug_assert_eq!(copied, self.bytes);
            }
            Err(error) => return Err(error.into()),
        }
        file.sync_all()
    }

    fn free(&self) -> u64 {
        let dir = self.path.parent().unwrap_or(&self.path);
        (self.free_bytes)(dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "free_space_unknown");
            0
        })
    }

    /// Whether there is enough, after taking the reserve again if there is room for it.
    pub(crate) fn is_low(&mut self) -> bool {
        self.mend();
        !self.held || self.free() < self.low_bytes
    }

    /// Whether a failed write can be put down to a full disk: what SQLite calls an I/O error then is one.
    pub(crate) fn disk_is_full(&self) -> bool {
        self.free() < FULL_BYTES
    }
}

/// Less free space than this after a failed write is a full disk: one piece of SQLite's shared memory file and a page.
const FULL_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_the_first_ones_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        match DataDir::open(dir.path()) {
            Err(OpenError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        assert!(matches!(lock_to_read(dir.path()), Err(OpenError::InUse { .. })));
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn what_others_could_read_of_the_directory_they_cannot_any_more_and_pass_through_it_all_the_same() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("made/data");
        drop(DataDir::open(&dir).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7_777;
        assert_eq!((mode(&dir), mode(&dir.join("lock"))), (0o711, 0o600));
        for name in ["store.sqlite", "store.sqlite-shm", "store.sqlite.v1.bak"] {
            fs::write(dir.join(name), "old").unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::create_dir(dir.join("agent")).unwrap();
        for path in [&dir, &dir.join("agent")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        drop(DataDir::open(&dir).unwrap());
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), if path.is_dir() { 0o755 } else { 0o600 }, "{}", path.display());
        }
        assert_eq!(mode(&dir), 0o711);
    }

    #[test]
    fn a_newer_format_and_a_foreign_one_are_refused_and_an_empty_one_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("format"), "windlass-data 2\n").unwrap();
        match DataDir::open(dir.path()) {
            Err(OpenError::NewerSchema { found: 2, known: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
        fs::write(dir.path().join("format"), "something else").unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(OpenError::Foreign { .. })));
        fs::write(dir.path().join("format"), "").unwrap();
        DataDir::open(dir.path()).unwrap();
        assert_eq!(read_format(&dir.path().join("format")).unwrap(), Some(1));
    }

    #[test]
    fn the_reserve_is_real_space_that_can_be_given_back_once_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let mut reserve = Reserve::new(dir.path(), 1 << 20, 0, free_bytes);
        assert!(!reserve.is_low());
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap());
        assert!(blocks * 512 >= 1 << 20, "{blocks} blocks");
        assert!(reserve.release() && !path.exists());
        assert!(!reserve.release(), "it can be given only once");
        assert!(!reserve.is_low() && path.exists(), "taken again, since there is room");
    }

    #[test]
    fn without_room_beside_it_the_reserve_is_not_taken_and_space_is_low() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(dir.path(), 1 << 20, 1 << 20, |_| Ok((2 << 20) - 1));
        assert!(reserve.is_low());
        assert!(!dir.path().join("reserve").exists());
    }
}
