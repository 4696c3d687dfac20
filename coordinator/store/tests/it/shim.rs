//! An SQLite VFS that stands between SQLite and the disk: it records every write and sync, and can refuse writes.
//!
//! It wraps the system's VFS; from the record [`Recording::image_at`] builds what a crash could leave of each file.
#![allow(
    unsafe_code,
    reason = "SQLite takes a file system only as a table of C functions; nothing here leaves the tests"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::ffi;

/// One thing that happened to a file, in order.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Write {
        path: PathBuf,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        path: PathBuf,
        len: usize,
    },
    /// What was written before `from`: a write that came while the sync ran may have missed it.
    Sync {
        path: PathBuf,
        from: usize,
    },
    Delete {
        path: PathBuf,
    },
    /// The test's own mark: what was acknowledged up to here.
    Acknowledged(u64),
}

#[derive(Debug, Default)]
struct State {
    ops: Mutex<Vec<Op>>,
    /// Writes fail for want of space while this exists.
    full_while: Mutex<Option<PathBuf>>,
    /// The wrapped VFS, as an address.
    inner: usize,
}

impl State {
    fn note(&self, op: Op) {
        self.ops.lock().unwrap().push(op);
    }

    fn is_full(&self) -> bool {
        self.full_while.lock().unwrap().as_ref().is_some_and(|path| path.exists())
    }
}

/// A registered VFS. It stays registered: SQLite may use it as long as the process lives.
#[derive(Debug, Clone)]
pub(crate) struct Shim {
    name: String,
    state: Arc<State>,
}

impl Shim {
    /// Registers a VFS under a name that no other test uses.
    pub(crate) fn register(name: &str) -> Self {
        let c_name = CString::new(name).unwrap().into_raw();
        // SAFETY: asks for the default VFS, which lives as long as the process.
        let inner = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
        assert!(!inner.is_null());
        let state = Arc::new(State { inner: inner as usize, ..State::default() });
        // SAFETY: `inner` is a valid VFS; the copy changes only what is ours, and is leaked, as registering demands.
        unsafe {
            let mut vfs = *inner;
            vfs.zName = c_name;
            vfs.pNext = std::ptr::null_mut();
            vfs.szOsFile = c_int::try_from(size_of::<File>()).unwrap() + (*inner).szOsFile;
            vfs.pAppData = Arc::into_raw(Arc::clone(&state)).cast_mut().cast();
            vfs.iVersion = 1;
            vfs.xOpen = Some(open);
            vfs.xDelete = Some(delete);
            vfs.xAccess = Some(access);
            vfs.xFullPathname = Some(full_pathname);
            let registered = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0);
            assert_eq!(registered, ffi::SQLITE_OK);
        }
        Self { name: name.to_owned(), state }
    }

    pub(crate) fn name(&self) -> String {
        self.name.clone()
    }

    /// From now on writes fail for want of space while `path` exists.
    pub(crate) fn fail_writes_while(&self, path: Option<PathBuf>) {
        *self.state.full_while.lock().unwrap() = path;
    }

    pub(crate) fn acknowledged(&self, number: u64) {
        self.state.note(Op::Acknowledged(number));
    }

    pub(crate) fn recording(&self) -> Recording {
        Recording { ops: self.state.ops.lock().unwrap().clone() }
    }
}

/// What happened, for building disks.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    pub(crate) ops: Vec<Op>,
}

/// One file on the way: what is safe, and what a crash may still take, in order.
#[derive(Debug, Clone, Default)]
struct Disk {
    safe: Vec<u8>,
    loose: Vec<(usize, Op)>,
}

impl Disk {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write { offset, bytes, .. } => {
                let end = offset + bytes.len();
                if self.safe.len() < end {
                    self.safe.resize(end, 0);
                }
                self.safe[*offset..end].copy_from_slice(bytes);
            }
            Op::Truncate { len, .. } => self.safe.resize(*len, 0),
            Op::Sync { .. } | Op::Delete { .. } | Op::Acknowledged(_) => {}
        }
    }
}

impl Recording {
    /// The same run on a disk whose syncs do nothing.
    pub(crate) fn without_syncs(mut self) -> Self {
        for op in &mut self.ops {
            if let Op::Sync { from, .. } = op {
                *from = 0;
            }
        }
        self
    }

    /// Writes into `dir` what a crash after the first `ops` operations leaves: all that was synced, and of the rest
    /// each write for which `survives` says so. What had been acknowledged by then is returned.
    pub(crate) fn image_at(&self, ops: usize, dir: &Path, mut survives: impl FnMut() -> bool) -> Option<u64> {
        let mut disks: BTreeMap<PathBuf, Disk> = BTreeMap::new();
        let mut acknowledged = None;
        for (place, op) in self.ops[..ops].iter().enumerate() {
            match op {
                Op::Write { path, .. } | Op::Truncate { path, .. } => {
                    disks.entry(path.clone()).or_default().loose.push((place, op.clone()));
                }
                Op::Sync { path, from } => {
                    let disk = disks.entry(path.clone()).or_default();
                    let (synced, loose) = std::mem::take(&mut disk.loose).into_iter().partition(|(at, _)| at < from);
                    disk.loose = loose;
                    let synced: Vec<(usize, Op)> = synced;
                    synced.iter().for_each(|(_, op)| disk.apply(op));
                }
                Op::Delete { path } => drop(disks.remove(path)),
                Op::Acknowledged(number) => acknowledged = Some(*number),
            }
        }
        for (path, mut disk) in disks {
            for (_, op) in std::mem::take(&mut disk.loose) {
                if survives() {
                    disk.apply(&op);
                }
            }
            std::fs::write(dir.join(path.file_name().unwrap()), disk.safe).unwrap();
        }
        acknowledged
    }
}

/// What SQLite holds for one open file: our head, and the wrapped VFS's file right behind it.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    state: *const State,
    /// Leaked per open; `None` for files without a name.
    path: *const PathBuf,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The wrapped file behind ours.
///
/// # Safety
/// `file` was opened by [`open`].
unsafe fn inner(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: SQLite allocated `szOsFile` bytes: our head and the wrapped VFS's file.
    unsafe { file.cast::<File>().add(1).cast() }
}

/// Calls a method of the wrapped file.
macro_rules! forward {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: the wrapped file is open, and its VFS has all methods of version 2.
        unsafe {
            let inner = inner($file);
            let method = (*(*inner).pMethods).$method.unwrap();
            method(inner $(, $argument)*)
        }
    }};
}

/// Our state, and the file's path if it is one that we record.
fn recorded(file: *mut ffi::sqlite3_file) -> Option<(&'static State, PathBuf)> {
    // SAFETY: `open` filled both; neither is ever freed.
    unsafe {
        let file = &*file.cast::<File>();
        if file.path.is_null() { None } else { Some((&*file.state, (*file.path).clone())) }
    }
}

/// The state and the wrapped VFS behind ours.
unsafe fn vfs_state(vfs: *mut ffi::sqlite3_vfs) -> (&'static State, *mut ffi::sqlite3_vfs) {
    // SAFETY: `pAppData` is the leaked `Arc` of `register`.
    let state = unsafe { &*(*vfs).pAppData.cast::<State>() };
    (state, state.inner as *mut ffi::sqlite3_vfs)
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a zeroed file of `szOsFile` bytes and a name that outlives it.
    unsafe {
        let (state, wrapped) = vfs_state(vfs);
        let ours = file.cast::<File>();
        (*ours).base.pMethods = std::ptr::null();
        let done = (*wrapped).xOpen.unwrap()(wrapped, name, inner(file), flags, out_flags);
        if done != ffi::SQLITE_OK {
            return done;
        }
        (*ours).state = state;
        (*ours).path = if name.is_null() {
            std::ptr::null()
        } else {
            Box::into_raw(Box::new(PathBuf::from(CStr::from_ptr(name).to_str().unwrap())))
        };
        (*ours).base.pMethods = &raw const METHODS;
        done
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: as in `open`.
    unsafe {
        let (state, wrapped) = vfs_state(vfs);
        state.note(Op::Delete { path: PathBuf::from(CStr::from_ptr(name).to_str().unwrap()) });
        (*wrapped).xDelete.unwrap()(wrapped, name, sync_dir)
    }
}

unsafe extern "C" fn access(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: as in `open`.
    unsafe {
        let (_, wrapped) = vfs_state(vfs);
        (*wrapped).xAccess.unwrap()(wrapped, name, flags, out)
    }
}

unsafe extern "C" fn full_pathname(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    bytes: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: as in `open`.
    unsafe {
        let (_, wrapped) = vfs_state(vfs);
        (*wrapped).xFullPathname.unwrap()(wrapped, name, bytes, out)
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xClose)
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, out: *mut c_void, bytes: c_int, offset: i64) -> c_int {
    forward!(file, xRead, out, bytes, offset)
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, bytes: c_int, offset: i64) -> c_int {
    if let Some((state, path)) = recorded(file) {
        if state.is_full() {
            return ffi::SQLITE_FULL;
        }
        // SAFETY: SQLite gives `bytes` bytes at `from`.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(bytes).unwrap()) };
        state.note(Op::Write { path, offset: usize::try_from(offset).unwrap(), bytes: bytes.to_vec() });
    }
    forward!(file, xWrite, from, bytes, offset)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    if let Some((state, path)) = recorded(file) {
        state.note(Op::Truncate { path, len: usize::try_from(len).unwrap() });
    }
    forward!(file, xTruncate, len)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let from = recorded(file).map(|(state, path)| (state, path, state.ops.lock().unwrap().len()));
    let done = forward!(file, xSync, flags);
    if let Some((state, path, from)) = from {
        state.note(Op::Sync { path, from });
    }
    done
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    forward!(file, xFileSize, out)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    forward!(file, xCheckReservedLock, out)
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    forward!(file, xFileControl, op, argument)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    forward!(file, xShmMap, page, bytes, extend, out)
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    forward!(file, xShmLock, offset, n, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    forward!(file, xShmBarrier);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    forward!(file, xShmUnmap, delete)
}
