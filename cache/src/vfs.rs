//! The seam between our own files and the disk: append-only files and flat directories, nothing more.
//!
//! Store and logs write through [`Vfs`] only, so that [`recorded::RecordingFs`] can build every disk that a crash could
//! leave and recovery can be checked on each. What the trait promises is what POSIX promises and no more: bytes are safe
//! once [`VfsFile::sync_data`] has returned, names once [`Vfs::sync_dir`] of their directory has.

pub mod frozen;
pub mod recorded;

mod real;

use std::fmt::Debug;
use std::io;
use std::path::Path;

pub use real::RealFs;

/// Room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub total_bytes: u64,
    /// What a process without privileges can still write.
    pub free_bytes: u64,
}

/// A file system, as far as our own files need one. Paths are absolute; all calls may come from any thread.
pub trait Vfs: Debug + Send + Sync {
    /// Makes a new file for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;

    /// Opens a file that exists for reading and writing.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;

    /// Opens a file that exists for reading; writes to it fail.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;

    /// Gives a file another name, replacing what had it. Durable after [`Vfs::sync_dir`] of both directories.
    ///
    /// # Errors
    /// `NotFound` where there is no such file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Durable after [`Vfs::sync_dir`].
    ///
    /// # Errors
    /// `NotFound` where there is no such file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes one directory. Durable after [`Vfs::sync_dir`] of its parent.
    ///
    /// # Errors
    /// `AlreadyExists`, or `NotFound` where the parent is missing.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// What a directory holds, sorted by name.
    ///
    /// # Errors
    /// `NotFound` where there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>>;

    /// Makes the names in a directory durable: every create, rename and remove before this call.
    ///
    /// # Errors
    /// What the disk reports; what was durable before still is, nothing is known of the rest.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How much room the disk of a directory has.
    ///
    /// # Errors
    /// `NotFound` where there is no such directory.
    fn space(&self, dir: &Path) -> io::Result<Space>;

    /// Milliseconds of a clock that never steps back and counts suspend; meaningful within one boot.
    fn monotonic_ms(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
        seconds.unwrap_or_default() * 1_000 + nanos.unwrap_or_default() / 1_000_000
    }

    /// Takes a lock that no other process can take until it is dropped; makes the file where it is missing.
    ///
    /// # Errors
    /// `WouldBlock` where somebody has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Held>>;
}

/// An open file. Reads and writes name their offsets; there is no cursor to share.
pub trait VfsFile: Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`, growing the file where needed.
    ///
    /// # Errors
    /// `StorageFull` and others; any part of the bytes may have been written then.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads some bytes at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// What the disk reports.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the disk reports.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds no byte.
    ///
    /// # Errors
    /// What the disk reports.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|n| n == 0)
    }

    /// Cuts the file, or grows it with zeros.
    ///
    /// # Errors
    /// What the disk reports.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Turns a range into zeros and gives its space back; the length stays.
    ///
    /// # Errors
    /// `Unsupported` where the file system cannot.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes bytes and length durable: every write, cut and punch before this call.
    ///
    /// # Errors
    /// What the disk reports. Nothing may be concluded from a later success: the kernel may have dropped the pages.
    fn sync_data(&self) -> io::Result<()>;

    /// Fills the buffer from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` where the file ends before.
    fn read_exact_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(offset, buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    offset += n as u64;
                    buffer = buffer.get_mut(n..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }
}

/// A lock that ends when it is dropped.
pub trait Held: Debug + Send + Sync {}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirItem {
    /// The name alone. Names that are not UTF-8 are never ours and are left out of lists.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// A file's length; 0 for directories.
    pub len: u64,
}

/// Makes a directory and those above it that are missing, durably.
///
/// Each level is made durable before the next is made, so that a directory that exists has durable ancestors, whatever
/// was interrupted before; the last level's parent is synced even where it existed, for that very reason.
///
/// # Errors
/// What the disk reports.
pub fn ensure_dir(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    match vfs.create_dir(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = dir.parent().ok_or(e)?;
            ensure_dir(vfs, parent)?;
            vfs.create_dir(dir)?;
        }
        Err(e) => return Err(e),
    }
    match dir.parent() {
        Some(parent) => vfs.sync_dir(parent),
        None => Ok(()),
    }
}
