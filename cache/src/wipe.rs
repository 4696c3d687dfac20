//! Takes a directory away with all that a job left in it.
//!
//! Nothing outside is touched: symlinks are removed, not followed, and a file system that is mounted inside is neither
//! entered nor removed. Directories that nobody may enter are opened up first. A chain of directories deeper than any
//! stack is taken apart from the top.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Fault, OrFault as _};

/// How many directories are open at a time; deeper ones move up first.
const DEPTH_MAX: usize = 64;

const OPEN: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// Removes `dest` and all that is in it; content that somebody adds meanwhile makes it fail, not loop.
///
/// It is no error if there is nothing. A symlink or file of that name is removed itself.
///
/// # Errors
/// [`Fault::Io`] with the first thing that could not be removed, such as a mounted file system; the rest is gone.
pub fn wipe(dest: &Path) -> Result<(), Fault> {
    let refuse = |e: Errno| Fault::io("removing", dest, e.into());
    match rustix::fs::unlinkat(CWD, dest, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(refuse(e)),
    }
    let top = open_up(CWD, dest)?;
    let mut wiper = Wiper { top: &top, moved: 0, failed: None };
    wiper.empty(&top, 0).or_fault("reading", dest)?;
    if let Some((what, e)) = wiper.failed {
        let path = dest.join(String::from_utf8_lossy(what.to_bytes()).as_ref());
        return Err(Fault::io("removing", &path, e.into()));
    }
    rustix::fs::rmdir(dest).map_err(refuse)
}

/// Opens the topmost directory; it may lie on a mount of its own.
fn open_up(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Fault> {
    match rustix::fs::openat(dir, path, OPEN, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let handle = rustix::fs::openat(dir, path, OFlags::PATH | OPEN, Mode::empty()).or_fault("opening", path)?;
            unlock(&handle).or_fault("opening up", path)?;
            rustix::fs::openat(dir, path, OPEN, Mode::empty()).or_fault("opening", path)
        }
        opened => {
            let opened = opened.or_fault("opening", path)?;
            // One that may be read, but not written or searched, gives up nothing that is in it.
            match rustix::fs::fchmod(&opened, Mode::RWXU) {
                Ok(()) | Err(Errno::PERM) => Ok(opened),
                Err(e) => Err(Fault::io("opening up", path, e.into())),
            }
        }
    }
}

/// Lets the owner into a directory that is open as a mere path, which follows nothing.
fn unlock(handle: &OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)
}

struct Wiper<'a> {
    top: &'a OwnedFd,
    moved: u64,
    /// The first thing that could not be removed.
    failed: Option<(CString, Errno)>,
}

impl Wiper<'_> {
    /// Empties a directory as far as it goes.
    fn empty(&mut self, dir: &OwnedFd, depth: usize) -> rustix::io::Result<()> {
        // Names first: what is renamed into a directory while it is listed may show up in the list or not.
        loop {
            let names = names(dir)?;
            let moved = self.moved;
            for (name, kind) in &names {
                if let Err(e) = self.remove(dir, name, *kind, depth) {
                    self.failed.get_or_insert((name.clone(), e));
                }
            }
            // Deep directories that moved up here want to be emptied, too.
            if depth > 0 || self.moved == moved || self.failed.is_some() {
                return Ok(());
            }
        }
    }

    fn remove(&mut self, dir: &OwnedFd, name: &CStr, kind: FileType, depth: usize) -> rustix::io::Result<()> {
        if kind != FileType::Directory {
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        if depth >= DEPTH_MAX {
            return self.move_up(dir, name);
        }
        let child = match open_child(dir, name) {
            Err(Errno::ACCESS) => {
                unlock(&open_child_as_path(dir, name)?)?;
                open_child(dir, name)?
            }
            opened => opened?,
        };
        match rustix::fs::fchmod(&child, Mode::RWXU) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(e) => return Err(e),
        }
        self.empty(&child, depth + 1)?;
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            // What is left in it was named before.
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.failed.is_some() => Ok(()),
            removed => removed,
        }
    }

    /// Moves a directory that lies too deep to the top, under a name that is free.
    fn move_up(&mut self, dir: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        loop {
            self.moved += 1;
            let to = format!(".wipe-{}", self.moved);
            match rustix::fs::renameat_with(dir, name, self.top, to, rustix::fs::RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                moved => return moved,
            }
        }
    }
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// Opens a directory without leaving the file system, nor a bind mount of the same one.
fn open_child(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    open_with(dir, name, OPEN)
}

fn open_child_as_path(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    open_with(dir, name, OPEN | OFlags::PATH)
}

fn open_with(dir: &OwnedFd, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        // Old kernels and some sandboxes have no openat2: compare devices, which does not see bind mounts.
        Err(Errno::NOSYS | Errno::PERM) => {
            let child = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            let same = rustix::fs::fstat(&child)?.st_dev == rustix::fs::fstat(dir)?.st_dev;
            if same { Ok(child) } else { Err(Errno::XDEV) }
        }
        opened => opened,
    }
}

/// Whether an error says that a file system is mounted there.
#[must_use]
pub fn is_mounted(error: &Fault) -> bool {
    let busy =
        |source: &io::Error| matches!(source.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::ResourceBusy);
    matches!(error, Fault::Io { source, .. } if busy(source))
}
