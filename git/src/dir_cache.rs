//! Directories that are made once, used under locks, and removed for room, the least recently used first.
//!
//! Of an entry `NAME` there are beside it `.lock-NAME`, whose time is that of its last use, `.new-NAME~N` while it is made,
//! and `.old-NAME~N` while it is removed. A lock is the system's (`flock`): it ends with whoever held it, so that a crash
//! leaves none, and it holds between all processes that have the directory. What is locked is never removed. A program that
//! works on an entry has the lock too ([`Held::as_input`]): one that outlives its agent is waited for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use windlass_protocol::limits::GIT_LOCK_MS;

/// Between two looks at a lock that somebody has.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

const LOCK: &str = ".lock-";
const NEW: &str = ".new-";
const OLD: &str = ".old-";

/// What may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files.
    pub bytes: u64,
    /// Entries.
    pub count: usize,
}

/// A directory of such directories.
#[derive(Debug, Clone)]
pub struct DirCache {
    path: PathBuf,
    limits: Limits,
    owns: fn(&str) -> bool,
}

/// How an entry is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By many, who only read.
    Shared,
    /// By one, who may make or change it.
    Exclusive,
}

/// A lock on an entry, which may be there or not.
#[derive(Debug)]
pub struct Held {
    name: String,
    file: File,
}

impl Held {
    /// The lock as the input of a program that works on the entry, with nothing to read in it: the entry is locked until that
    /// has ended too, however whoever started it ends.
    ///
    /// # Errors
    /// Those of the system.
    pub fn as_input(&self) -> io::Result<Stdio> {
        self.file.try_clone().map(Stdio::from)
    }
}

/// An entry that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its name.
    pub name: String,
    /// What its files had.
    pub bytes: u64,
}

/// One that is kept so far.
struct Entry {
    used: SystemTime,
    name: String,
    bytes: u64,
}

impl DirCache {
    /// In this directory. `owns` tells the names of entries from whatever else lies there, which is left alone.
    #[must_use]
    pub const fn new(path: PathBuf, limits: Limits, owns: fn(&str) -> bool) -> Self {
        Self { path, limits, owns }
    }

    /// Where they are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where an entry is, if it is.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Waits for an entry's lock; it counts as used now.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] where somebody has it for longer than `GIT_LOCK_MS`, and those of the file system.
    pub async fn lock(&self, name: &str, mode: Mode) -> io::Result<Held> {
        let give_up_at = tokio::time::Instant::now() + Duration::from_millis(GIT_LOCK_MS);
        loop {
            if let Some(held) = self.try_lock(name, mode)? {
                held.file.set_modified(SystemTime::now())?;
                return Ok(held);
            }
            if tokio::time::Instant::now() >= give_up_at {
                let what = format!("somebody has held {} for {} s", self.place(name).display(), GIT_LOCK_MS / 1_000);
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    /// The lock, if it can be had now.
    fn try_lock(&self, name: &str, mode: Mode) -> io::Result<Option<Held>> {
        let path = self.lock_of(name);
        let operation = match mode {
            Mode::Shared => FlockOperation::NonBlockingLockShared,
            Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            match flock(&file, operation) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if is_at(&file, &path)? {
                return Ok(Some(Held { name: name.to_owned(), file }));
            }
        }
    }

    /// A new directory, its owner's alone, to make an entry in.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begin(&self, held: &Held) -> io::Result<PathBuf> {
        let path = self.aside(NEW, &held.name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Puts what was made into the entry's place; what stood there goes. The lock is an exclusive one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn put(&self, held: &Held, new: &Path) -> io::Result<()> {
        self.remove(held)?;
        fs::rename(new, self.place(&held.name))
    }

    /// Removes an entry. The lock is an exclusive one, and stays.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self, held: &Held) -> io::Result<()> {
        let old = self.aside(OLD, &held.name);
        match fs::rename(self.place(&held.name), &old) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => remove_all(&old),
        }
    }

    /// Removes what a death left half made or half removed, and then entries until the rest is within bounds. What is locked
    /// stays. Looks at every file: for a thread that may block.
    ///
    /// # Errors
    /// Those of the file system; what could be removed is.
    pub fn trim(&self) -> io::Result<Vec<Removed>> {
        let mut entries = self.entries()?;
        entries.sort_by(|a, b| (a.used, &a.name).cmp(&(b.used, &b.name)));
        let (mut bytes, mut count) = (entries.iter().map(|entry| entry.bytes).sum::<u64>(), entries.len());
        let mut removed = Vec::new();
        for entry in entries {
            if bytes <= self.limits.bytes && count <= self.limits.count {
                break;
            }
            let Some(held) = self.try_lock(&entry.name, Mode::Exclusive)? else { continue };
            self.remove(&held)?;
            fs::remove_file(self.lock_of(&entry.name))?;
            (bytes, count) = (bytes.saturating_sub(entry.bytes), count - 1);
            removed.push(Removed { name: entry.name, bytes: entry.bytes });
        }
        Ok(removed)
    }

    /// All entries. On the way what is left over goes.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in fs::read_dir(&self.path)? {
            let found = found?;
            let name = found.file_name().to_string_lossy().into_owned();
            let left = [NEW, OLD].into_iter().find_map(|kind| name.strip_prefix(kind)?.rsplit_once('~'));
            if let Some((of, _)) = left {
                if let Some(held) = self.try_lock(of, Mode::Exclusive)? {
                    remove_all(&found.path())?;
                    self.forget_lock(held)?;
                }
            } else if let Some(of) = name.strip_prefix(LOCK) {
                // Of what could not be made.
                if let Some(held) = self.try_lock(of, Mode::Exclusive)? {
                    self.forget_lock(held)?;
                }
            } else if (self.owns)(&name) && found.file_type()?.is_dir() {
                let used = fs::metadata(self.lock_of(&name)).or_else(|_| found.metadata());
                // It may be gone meanwhile.
                let Ok(bytes) = size_of(&found.path()) else { continue };
                let used = used.and_then(|used| used.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                entries.push(Entry { used, name, bytes });
            }
        }
        Ok(entries)
    }

    /// Removes the lock of what is not there.
    fn forget_lock(&self, held: Held) -> io::Result<()> {
        if self.place(&held.name).exists() { Ok(()) } else { remove_file(&self.lock_of(&held.name)) }
    }

    fn lock_of(&self, name: &str) -> PathBuf {
        self.path.join(format!("{LOCK}{name}"))
    }

    fn aside(&self, kind: &str, name: &str) -> PathBuf {
        self.path.join(format!("{kind}{name}~{}", next_number()))
    }
}

/// Whether a file is still what its path names. Who removed an entry removed its lock too, and the next one has another.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (ours, there) = (file.metadata()?, fs::metadata(path));
    Ok(there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}

/// A number that nothing else of this process has, nor of another.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) + (u64::from(std::process::id()) << 32)
}

/// Removes a directory with all that is in it; one that is not there is removed already.
fn remove_all(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes of all files of a directory.
///
/// # Errors
/// Those of the file system.
pub fn size_of(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                bytes += entry.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &Path, bytes: u64, count: usize) -> DirCache {
        DirCache::new(dir.to_owned(), Limits { bytes, count }, |name| name.starts_with("e-"))
    }

    async fn put(cache: &DirCache, name: &str, bytes: usize, second: u64) {
        let held = cache.lock(name, Mode::Exclusive).await.unwrap();
        let new = cache.begin(&held).unwrap();
        fs::write(new.join("file"), vec![0; bytes]).unwrap();
        cache.put(&held, &new).unwrap();
        held.file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn removed(cache: &DirCache) -> Vec<String> {
        cache.trim().unwrap().into_iter().map(|removed| removed.name).collect()
    }

    #[tokio::test]
    async fn what_was_not_used_for_longest_goes_first_by_bytes_and_by_count() {
        let dir = tempfile::tempdir().unwrap();
        let all = cache(dir.path(), 1_000, 3);
        for (second, name) in ["e-a", "e-b", "e-c"].into_iter().enumerate() {
            put(&all, name, 300, 10 + second as u64).await;
        }
        fs::create_dir(dir.path().join("others")).unwrap();
        assert_eq!(removed(&all), [""; 0]);
        drop(all.lock("e-a", Mode::Shared).await.unwrap());
        put(&all, "e-d", 300, 20).await;
        assert_eq!(removed(&all), ["e-b"], "e-a was used since");
        assert_eq!(removed(&cache(dir.path(), 1_000, 2)), ["e-c"]);
        assert_eq!(removed(&cache(dir.path(), 299, 9)), ["e-d", "e-a"]);
        assert_eq!(names(dir.path()), ["others"], "no lock is left, and what is not ours is");
    }

    #[tokio::test]
    async fn what_is_in_use_stays_and_what_a_death_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let none = cache(dir.path(), 0, 0);
        put(&none, "e-a", 1, 10).await;
        let used = none.lock("e-a", Mode::Shared).await.unwrap();
        let more = none.lock("e-a", Mode::Shared).await.unwrap();
        let making = none.lock("e-b", Mode::Exclusive).await.unwrap();
        let new = none.begin(&making).unwrap();
        for left in [".new-e-c~1", ".old-e-a~1", ".old-e-c~2"] {
            fs::create_dir(dir.path().join(left)).unwrap();
        }
        fs::write(dir.path().join(".lock-e-x"), "").unwrap();
        assert_eq!(removed(&none), [""; 0]);
        let left = new.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(names(dir.path()), [".lock-e-a", ".lock-e-b", &left, ".old-e-a~1", "e-a"]);
        drop((used, more, making));
        assert_eq!(removed(&none), ["e-a"]);
        removed(&none);
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_whose_file_was_removed_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), 0, 0);
        let first = cache.lock("e-a", Mode::Exclusive).await.unwrap();
        let waiting = cache.lock("e-a", Mode::Exclusive);
        tokio::pin!(waiting);
        let soon = tokio::time::timeout(Duration::from_secs(1), &mut waiting).await;
        assert!(soon.is_err(), "somebody has it");
        let path = dir.path().join(".lock-e-a");
        assert!(is_at(&first.file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&first.file, &path).unwrap());
        let other = File::create(&path).unwrap();
        assert!(!is_at(&first.file, &path).unwrap() && is_at(&other, &path).unwrap());
        drop(first);
        let second = waiting.await.unwrap();
        assert!(cache.try_lock("e-a", Mode::Exclusive).unwrap().is_none(), "there is one lock and it is held");
        drop(second);
        let _held = cache.lock("e-a", Mode::Exclusive).await.unwrap();
        let late = cache.lock("e-a", Mode::Exclusive).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
