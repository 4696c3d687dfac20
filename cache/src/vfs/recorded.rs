//! A file system in memory that remembers every operation and can build every disk that a crash could leave.
//!
//! How a crash test uses it:
//! 1. run a workload on a [`RecordingFs`], noting [`RecordingFs::op_count`] whenever something was acknowledged;
//! 2. for each [`RecordingFs::crash_images`] of each `at` in `0..=op_count`, open what is under test on
//!    [`RecordingFs::on`] that image, and check all that was acknowledged up to `at`;
//! 3. for each sync, [`RecordingFs::drop_sync`] it, and expect that some image of step 2 now fails: else that sync is
//!    not needed, or not tested.

mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirItem, Held, Space, Vfs, VfsFile};

pub use image::{CrashImage, Image};

/// A file's identity, whatever its name.
pub type FileId = usize;

/// One operation, in the order in which they came.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the arguments of the calls of the same name")]
pub enum Op {
    /// [`Vfs::create`]
    Create { path: PathBuf, file: FileId },
    /// [`Vfs::create_dir`]
    CreateDir { path: PathBuf },
    /// [`Vfs::rename`]
    Rename { from: PathBuf, to: PathBuf, file: FileId },
    /// [`Vfs::remove`]
    Remove { path: PathBuf, file: FileId },
    /// [`VfsFile::write_at`]; where it failed for lack of space, what was written of it
    Write { file: FileId, offset: u64, bytes: Arc<[u8]> },
    /// [`VfsFile::truncate`]
    Truncate { file: FileId, len: u64 },
    /// [`VfsFile::punch`]
    Punch { file: FileId, offset: u64, len: u64 },
    /// [`VfsFile::sync_data`]; `sync` counts syncs of both kinds from 0
    SyncData { file: FileId, sync: usize },
    /// [`Vfs::sync_dir`]; `sync` counts syncs of both kinds from 0
    SyncDir { path: PathBuf, sync: usize },
}

impl fmt::Debug for Op {
    /// One short line; of a write how much and where, not what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { path, file } => write!(f, "create #{file} {}", path.display()),
            Self::CreateDir { path } => write!(f, "create_dir {}", path.display()),
            Self::Rename { from, to, file } => write!(f, "rename #{file} {} to {}", from.display(), to.display()),
            Self::Remove { path, file } => write!(f, "remove #{file} {}", path.display()),
            Self::Write { file, offset, bytes } => write!(f, "write #{file} {} bytes at {offset}", bytes.len()),
            Self::Truncate { file, len } => write!(f, "truncate #{file} to {len}"),
            Self::Punch { file, offset, len } => write!(f, "punch #{file} {len} bytes at {offset}"),
            Self::SyncData { file, sync } => write!(f, "sync {sync} of bytes of #{file}"),
            Self::SyncDir { path, sync } => write!(f, "sync {sync} of names in {}", path.display()),
        }
    }
}

/// A file system in memory that records what is done to it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct RecordingFs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What was there before the first operation, all of it durable; file `n` of it is `FileId` n.
    base: Image,
    /// Live contents by file id; removed files stay readable through open handles.
    contents: Vec<Vec<u8>>,
    names: BTreeMap<PathBuf, FileId>,
    dirs: BTreeSet<PathBuf>,
    ops: Vec<Op>,
    syncs: usize,
    dropped: BTreeSet<usize>,
    locks: BTreeSet<PathBuf>,
    /// Bytes that all live files may hold together; beyond, `StorageFull`.
    capacity: Option<u64>,
    /// Calls that fail, by the index of the operation that they would have been.
    failures: BTreeMap<usize, ErrorKind>,
    /// What its clock shows.
    clock_ms: u64,
}

impl RecordingFs {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that holds `image`, all of it durable.
    #[must_use]
    pub fn on(image: &Image) -> Self {
        let mut state = State { base: image.clone(), dirs: image.dirs.clone(), ..State::default() };
        for (id, (path, bytes)) in image.files.iter().enumerate() {
            state.names.insert(path.clone(), id);
            state.contents.push(bytes.clone());
        }
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass: its clock stands still otherwise.
    pub fn pass_ms(&self, ms: u64) {
        self.lock_state().clock_ms += ms;
    }

    /// How many operations there were. Something acknowledged now must survive crashes at this count and later.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.lock_state().ops.len()
    }

    /// The operations so far.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.lock_state().ops.clone()
    }

    /// How many syncs there were, of data and of directories.
    #[must_use]
    pub fn sync_count(&self) -> usize {
        self.lock_state().syncs
    }

    /// Makes the sync call of this number (from 0, both kinds counted together) do nothing; works before it comes as
    /// well as after.
    pub fn drop_sync(&self, sync: usize) {
        self.lock_state().dropped.insert(sync);
    }

    /// Makes all syncs that were dropped work again.
    pub fn restore_syncs(&self) {
        self.lock_state().dropped.clear();
    }

    /// Limits what all files may hold together; a write past it writes what fits and fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock_state().capacity = bytes;
    }

    /// Lets the operation that would get index `op` fail once with `kind`, and not happen.
    pub fn fail_at(&self, op: usize, kind: ErrorKind) {
        self.lock_state().failures.insert(op, kind);
    }

    /// The disk as the running process sees it: everything kept.
    #[must_use]
    pub fn live_image(&self) -> Image {
        let state = self.lock_state();
        let content = |id: &FileId| state.contents.get(*id).cloned().unwrap_or_default();
        Image {
            dirs: state.dirs.clone(),
            files: state.names.iter().map(|(path, id)| (path.clone(), content(id))).collect(),
        }
    }

    /// Every disk that a crash after the first `at` operations could leave, each once, as far as [`image`] models it.
    #[must_use]
    pub fn crash_images(&self, at: usize) -> Vec<CrashImage> {
        let state = self.lock_state();
        let ops = state.ops.get(..at).unwrap_or(&state.ops);
        image::crash_images(&state.base, ops, &state.dropped)
    }

    fn name_of(&self, path: &Path) -> io::Result<FileId> {
        self.lock_state().names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn handle(&self, file: FileId, writable: bool) -> Box<dyn VfsFile> {
        Box::new(RecordedFile { fs: self.clone(), file, writable })
    }
}

impl State {
    /// Records an operation, or fails as a test asked it to.
    fn record(&mut self, op: Op) -> io::Result<()> {
        if let Some(kind) = self.failures.remove(&self.ops.len()) {
            return Err(kind.into());
        }
        self.ops.push(op);
        Ok(())
    }

    fn next_sync(&mut self) -> usize {
        self.syncs += 1;
        self.syncs - 1
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().ok_or(ErrorKind::InvalidInput)?;
        if parent.parent().is_none() || self.dirs.contains(parent) { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }

    fn taken(&self, path: &Path) -> bool {
        path.parent().is_none() || self.names.contains_key(path) || self.dirs.contains(path)
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.contents.get(*id)).map(|c| c.len() as u64).sum()
    }

    fn content(&mut self, file: FileId) -> io::Result<&mut Vec<u8>> {
        self.contents.get_mut(file).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Vfs for RecordingFs {
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.lock_state();
        state.parent_exists(path)?;
        if state.taken(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = state.contents.len();
        state.record(Op::Create { path: path.to_owned(), file })?;
        state.contents.push(Vec::new());
        state.names.insert(path.to_owned(), file);
        drop(state);
        Ok(self.handle(file, true))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(self.handle(self.name_of(path)?, true))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(self.handle(self.name_of(path)?, false))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.name_of(from)?;
        let mut state = self.lock_state();
        state.parent_exists(to)?;
        state.record(Op::Rename { from: from.to_owned(), to: to.to_owned(), file })?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let file = self.name_of(path)?;
        let mut state = self.lock_state();
        state.record(Op::Remove { path: path.to_owned(), file })?;
        state.names.remove(path);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        if state.taken(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.parent_exists(path)?;
        state.record(Op::CreateDir { path: path.to_owned() })?;
        state.dirs.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        let state = self.lock_state();
        if !state.dirs.contains(dir) && dir.parent().is_some() {
            return Err(ErrorKind::NotFound.into());
        }
        let here = |path: &&PathBuf| path.parent() == Some(dir);
        let name = |path: &Path| path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let len = |path: &PathBuf| {
            state.names.get(path).and_then(|id| state.contents.get(*id)).map_or(0, |content| content.len() as u64)
        };
        let files = state.names.keys().filter(here).map(|p| DirItem { name: name(p), is_dir: false, len: len(p) });
        let dirs = state.dirs.iter().filter(here).map(|p| DirItem { name: name(p), is_dir: true, len: 0 });
        let mut items: Vec<_> = files.chain(dirs).collect();
        items.sort();
        Ok(items)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        let sync = state.next_sync();
        state.record(Op::SyncDir { path: dir.to_owned(), sync })
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let state = self.lock_state();
        let total_bytes = state.capacity.unwrap_or(u64::MAX);
        Ok(Space { total_bytes, free_bytes: total_bytes.saturating_sub(state.used()) })
    }

    fn monotonic_ms(&self) -> u64 {
        self.lock_state().clock_ms
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Held>> {
        let mut state = self.lock_state();
        state.parent_exists(path)?;
        if !state.locks.insert(path.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        drop(state);
        Ok(Box::new(RecordedLock { fs: self.clone(), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct RecordedLock {
    fs: RecordingFs,
    path: PathBuf,
}

impl Held for RecordedLock {}

impl Drop for RecordedLock {
    fn drop(&mut self) {
        self.fs.lock_state().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct RecordedFile {
    fs: RecordingFs,
    file: FileId,
    writable: bool,
}

impl RecordedFile {
    fn writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl VfsFile for RecordedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.writable()?;
        let mut state = self.fs.lock_state();
        let grows_by = (offset + bytes.len() as u64).saturating_sub(state.content(self.file)?.len() as u64);
        let room = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
        let fits = bytes.len() - usize::try_from(grows_by.saturating_sub(room)).unwrap_or(usize::MAX).min(bytes.len());
        let written = bytes.get(..fits).unwrap_or_default();
        if !written.is_empty() {
            state.record(Op::Write { file: self.file, offset, bytes: written.into() })?;
            image::write(state.content(self.file)?, offset, written);
        }
        if fits < bytes.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.fs.lock_state();
        let content = state.content(self.file)?;
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.fs.lock_state().content(self.file)?.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        let mut state = self.fs.lock_state();
        state.record(Op::Truncate { file: self.file, len })?;
        image::truncate(state.content(self.file)?, len);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.writable()?;
        let mut state = self.fs.lock_state();
        state.record(Op::Punch { file: self.file, offset, len })?;
        image::punch(state.content(self.file)?, offset, len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.fs.lock_state();
        let sync = state.next_sync();
        state.record(Op::SyncData { file: self.file, sync })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::ensure_dir;

    /// What may stand at `/d/f` after each crash of: make a file, write, sync it, sync its directory, write again.
    fn survivors(dropped: Option<usize>) -> Vec<BTreeSet<Option<Vec<u8>>>> {
        let fs = RecordingFs::new();
        let path = Path::new("/d/f");
        ensure_dir(&fs, Path::new("/d")).unwrap(); // 0: make, 1: sync 0
        let file = fs.create(path).unwrap(); // 2
        file.write_at(0, b"abcd").unwrap(); // 3
        file.sync_data().unwrap(); // 4: sync 1
        fs.sync_dir(Path::new("/d")).unwrap(); // 5: sync 2
        file.write_at(4, b"efgh").unwrap(); // 6
        if let Some(sync) = dropped {
            fs.drop_sync(sync);
        }
        let at = |n: usize| fs.crash_images(n).into_iter().map(|c| c.image.files.get(path).cloned()).collect();
        (0..=fs.op_count()).map(at).collect()
    }

    fn set(contents: &[Option<&[u8]>]) -> BTreeSet<Option<Vec<u8>>> {
        contents.iter().map(|c| c.map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn bytes_and_names_are_safe_once_synced_and_may_be_lost_or_torn_before() {
        let survivors = survivors(None);
        assert_eq!(survivors[2], set(&[None]));
        assert_eq!(survivors[3], set(&[None, Some(b"")]));
        let torn: &[Option<&[u8]>] = &[None, Some(b""), Some(b"abcd"), Some(b"ab"), Some(b"\0\0\0\0"), Some(b"\0\0cd")];
        assert_eq!(survivors[4], set(torn));
        assert_eq!(survivors[5], set(&[None, Some(b"abcd")]), "the bytes are safe, their name is not");
        assert_eq!(survivors[6], set(&[Some(b"abcd")]));
        let tail: &[Option<&[u8]>] =
            &[Some(b"abcd"), Some(b"abcdefgh"), Some(b"abcdef"), Some(b"abcd\0\0\0\0"), Some(b"abcd\0\0gh")];
        assert_eq!(survivors[7], set(tail));
    }

    #[test]
    fn a_dropped_sync_settles_nothing() {
        assert!(survivors(Some(0))[6].contains(&None), "without its directory's name the file is gone");
        assert!(survivors(Some(1))[6].contains(&Some(b"\0\0cd".to_vec())));
        assert!(survivors(Some(2))[6].contains(&None));
    }

    #[test]
    fn a_rename_or_remove_that_was_not_synced_may_not_have_happened() {
        let fs = RecordingFs::new();
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        fs.create(a).unwrap().write_at(0, b"x").unwrap();
        fs.open(a).unwrap().sync_data().unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        fs.rename(a, b).unwrap();
        let names = |at| -> BTreeSet<Vec<PathBuf>> {
            fs.crash_images(at).iter().map(|c| c.image.files.keys().cloned().collect()).collect()
        };
        assert_eq!(names(fs.op_count()), BTreeSet::from([vec![a.to_owned()], vec![b.to_owned()]]));
        fs.sync_dir(Path::new("/")).unwrap();
        assert_eq!(names(fs.op_count()), BTreeSet::from([vec![b.to_owned()]]));
        fs.remove(b).unwrap();
        assert_eq!(names(fs.op_count()), BTreeSet::from([vec![b.to_owned()], vec![]]));
    }

    #[test]
    fn a_full_disk_keeps_what_fitted_and_a_failure_that_was_asked_for_happens_once() {
        let fs = RecordingFs::new();
        let file = fs.create(Path::new("/f")).unwrap();
        fs.set_capacity(Some(3));
        assert_eq!(file.write_at(0, b"abcdef").unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(fs.live_image().files[Path::new("/f")], b"abc");
        fs.fail_at(fs.op_count(), ErrorKind::Other);
        assert!(file.sync_data().is_err());
        assert!(file.sync_data().is_ok());
        assert!(fs.open_read(Path::new("/f")).unwrap().write_at(0, b"x").is_err());
    }
}
