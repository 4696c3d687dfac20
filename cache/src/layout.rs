//! Layout: a tree becomes a directory on disk.
//!
//! The tree may be a stranger's. It is read and checked whole before anything is written. Everything is then made relative
//! to open directories, new (`O_EXCL`) and without following symlinks, so that nothing is ever written outside of the
//! destination, whatever the tree holds and whoever else is at work there. Files are copies, never hard links into the
//! cache: a job that changes one does not change the cache. Blocks of zeros in large files become holes.

mod plan;
mod write;

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use windlass_protocol::{Digest, Namespace};

use crate::error::{Error, Fault, OrFault as _, Rejected};
use crate::store::Store;
use plan::Plan;

/// How to lay out.
#[derive(Debug, Clone, Copy, Default)]
pub struct LayoutOptions {
    /// User and group of everything that is laid out; that of the process where there is none.
    pub owner: Option<(u32, u32)>,
    /// Refuse trees with names in one directory that differ in case only.
    pub refuse_case_collisions: bool,
    /// Refuse trees whose files come to more bytes: a small tree can name one large file many times.
    pub max_bytes: Option<u64>,
}

/// What was laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Laid {
    /// Regular files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Symlinks.
    pub symlinks: usize,
    /// Directories, without the destination itself.
    pub directories: usize,
}

/// Lays out the tree `root` in `dest`, which must be empty or not be there.
///
/// What was laid out is there if this fails half-way; [`crate::wipe()`] takes it away.
///
/// # Errors
/// [`Rejected::Missing`] with all blobs that the namespace does not see, [`Rejected::BadTree`] where the tree is not one,
/// [`Rejected::BadPath`] where the destination will not do; all before anything is written. [`Fault::DiskFull`] and other
/// faults of the disk.
pub fn layout(
    store: &Store,
    namespace: &Namespace,
    root: Digest,
    dest: &Path,
    options: &LayoutOptions,
) -> Result<Laid, Error> {
    let (plan, pins) = plan::read(store, namespace, root, options)?;
    prepare(dest)?;
    let open = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let top = rustix::fs::open(dest, open, Mode::empty()).or_fault("opening", dest)?;
    write::write(store, namespace, &plan, &top, dest, options)?;
    drop(pins);
    let Plan { files, bytes, symlinks, directories, .. } = plan;
    Ok(Laid { files, bytes, symlinks, directories })
}

/// Makes the destination where it is missing, and sees that it is empty.
fn prepare(dest: &Path) -> Result<(), Error> {
    let refuse = |reason| Err(Rejected::BadPath { path: dest.to_owned(), reason }.into());
    match fs::create_dir(dest) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(Fault::io("making", dest, e).into()),
    }
    if !fs::symlink_metadata(dest).or_fault("reading", dest)?.is_dir() {
        return refuse("it is not a directory");
    }
    match fs::read_dir(dest).or_fault("reading", dest)?.next() {
        Some(_) => refuse("it is not empty"),
        None => Ok(()),
    }
}
