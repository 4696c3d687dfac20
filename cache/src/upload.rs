//! A blob that is being written, piece by piece.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use windlass_protocol::limits::{BLOB_MAX_BYTES, BLOB_SMALL_MAX_BYTES};
use windlass_protocol::{Digest, Namespace};

use crate::appender::Item;
use crate::error::{Error, Fault, OrFault as _, Rejected};
use crate::store::{Durability, Shared};
use crate::vfs::VfsFile;

/// A blob that is being written. Dropped before [`Upload::finish`] it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    pub(crate) shared: Arc<Shared>,
    pub(crate) namespace: Namespace,
    pub(crate) expected: Option<Digest>,
    /// Boxed: it is two kilobytes, and uploads are held across awaits.
    pub(crate) hasher: Box<blake3::Hasher>,
    pub(crate) small: Vec<u8>,
    pub(crate) large: Option<Temporary>,
    pub(crate) bytes: u64,
}

/// The file of a blob that is too large for memory; removed when dropped, unless it was renamed.
#[derive(Debug)]
pub(crate) struct Temporary {
    shared: Arc<Shared>,
    file: Box<dyn VfsFile>,
    path: PathBuf,
    synced: bool,
    renamed: bool,
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Rejected::BlobTooLarge`], [`Fault::DiskFull`] and others; the upload is of no use then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let total = self.bytes + bytes.len() as u64;
        if total > BLOB_MAX_BYTES {
            return Err(Rejected::BlobTooLarge.into());
        }
        self.hasher.update(bytes);
        if total <= BLOB_SMALL_MAX_BYTES as u64 {
            self.small.extend_from_slice(bytes);
            self.bytes = total;
            return Ok(());
        }
        if self.large.is_none() {
            let begun = Temporary::create(&self.shared)?;
            begun.file.write_at(0, &self.small).or_fault("writing", &begun.path)?;
            self.small = Vec::new();
            self.large = Some(begun);
        }
        if let Some(large) = &self.large {
            large.file.write_at(self.bytes, bytes).or_fault("writing", &large.path)?;
        }
        self.bytes = total;
        Ok(())
    }

    /// How many bytes came so far.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether no byte came so far.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Stores the blob and makes it visible in its namespace, durably.
    ///
    /// # Errors
    /// [`Rejected::WrongDigest`] where the bytes are not the expected ones; then, as after any fault, nothing is stored.
    pub fn finish(mut self) -> Result<Digest, Error> {
        let digest = Digest::from_hasher(&self.hasher);
        if let Some(expected) = self.expected.filter(|expected| *expected != digest) {
            return Err(Rejected::WrongDigest { expected, actual: digest }.into());
        }
        if let Some(large) = self.large.as_mut().filter(|_| !self.shared.stored(&digest)) {
            // Before the lock: a large file takes its time.
            large.sync()?;
        }
        let _writing = self.shared.writing();
        match self.large {
            None => self.shared.commit(&self.namespace, &[Item::Blob { digest, bytes: &self.small }])?,
            Some(large) => {
                if !self.shared.stored(&digest) {
                    large.keep(&digest)?;
                }
                self.shared.commit(&self.namespace, &[Item::Large { digest, bytes: self.bytes }])?;
            }
        }
        Ok(digest)
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::write(self, bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Temporary {
    fn create(shared: &Arc<Shared>) -> Result<Self, Fault> {
        let path = shared.temporary_path();
        let file = shared.vfs.create(&path).or_fault("creating", &path)?;
        Ok(Self { shared: Arc::clone(shared), file, path, synced: false, renamed: false })
    }

    fn sync(&mut self) -> Result<(), Fault> {
        if self.shared.options.durability == Durability::Durable && !self.synced {
            self.file.sync_data().or_fault("syncing", &self.path)?;
            self.synced = true;
        }
        Ok(())
    }

    /// Gives the file its blob's name: bytes first, then the name, each durable before the record that counts on it.
    fn keep(mut self, digest: &Digest) -> Result<(), Fault> {
        let durable = self.shared.options.durability == Durability::Durable;
        // What was stored when it was asked, and is not any more, was not synced before.
        self.sync()?;
        let to = self.shared.large_path(digest);
        self.shared.vfs.rename(&self.path, &to).or_fault("renaming", &self.path)?;
        self.renamed = true;
        if durable {
            let dir = self.shared.large_dir();
            self.shared.vfs.sync_dir(&dir).or_fault("syncing", &dir)?;
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.renamed {
            return;
        }
        if let Err(error) = self.shared.vfs.remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "temporary_left_behind");
        }
    }
}
