//! A disk that is looked at and never changed: reads and locks are real, writes succeed and are forgotten.
//!
//! A store that is opened on it does to itself in memory what it would do on the disk: what it then says of damage is what a
//! repair would find.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{DirItem, Held, Space, Vfs, VfsFile};

/// Another file system, whose files stay as they are.
#[derive(Debug, Clone)]
pub struct Frozen(Arc<dyn Vfs>);

impl Frozen {
    /// Of this one.
    #[must_use]
    pub fn new(of: Arc<dyn Vfs>) -> Self {
        Self(of)
    }
}

impl Vfs for Frozen {
    fn create(&self, _path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(FrozenFile(None)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(FrozenFile(Some(self.0.open_read(path)?))))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.0.open_read(path)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        self.0.list(dir)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.0.space(dir)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.monotonic_ms()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Held>> {
        self.0.lock(path)
    }
}

/// A file that stays as it is; one that was made here has nothing in it.
#[derive(Debug)]
struct FrozenFile(Option<Box<dyn VfsFile>>);

impl VfsFile for FrozenFile {
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.as_ref().map_or(Ok(0), |file| file.read_at(offset, buffer))
    }

    fn len(&self) -> io::Result<u64> {
        self.0.as_ref().map_or(Ok(0), |file| file.len())
    }

    fn truncate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
