//! Where the blobs of a snapshot can be read: directories in memory, files on disk.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use windlass_protocol::limits::{BLOB_SMALL_MAX_BYTES, COMMIT_BUFFER_BYTES};
use windlass_protocol::{Digest, Namespace};

use super::listing::OPEN;
use crate::error::{Error, Fault, OrFault as _, Rejected};
use crate::store::Store;

/// Every blob of a snapshot and where to read it.
#[derive(Debug)]
pub struct SnapshotSource {
    root: PathBuf,
    blobs: HashMap<Digest, Place>,
    /// Names of the files' blobs in the order of the tree, so that neighbours are stored beside each other.
    order: Vec<Digest>,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    /// A file, relative to the root; of several equal ones the first.
    Disk {
        path: PathBuf,
        len: u64,
    },
}

impl SnapshotSource {
    pub(super) fn new(root: &Path, blobs: usize) -> Self {
        Self { root: root.to_owned(), blobs: HashMap::with_capacity(blobs), order: Vec::with_capacity(blobs) }
    }

    pub(super) fn add_file(&mut self, digest: Digest, (parent, name): (&[u8], &[u8]), len: u64) {
        if let Slot::Vacant(slot) = self.blobs.entry(digest) {
            slot.insert(Place::Disk { path: Path::new(OsStr::from_bytes(parent)).join(OsStr::from_bytes(name)), len });
            self.order.push(digest);
        }
    }

    /// Directories stay readable whatever happens on disk, so they win over a file with the same bytes.
    pub(super) fn add_directory(&mut self, digest: Digest, encoded: Vec<u8>) {
        if self.blobs.insert(digest, Place::Memory(encoded)).is_none() {
            self.order.push(digest);
        }
    }

    /// How many blobs the tree has, each once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Whether there is none; never so for a snapshot, which has its root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// All blobs with their lengths, each once, sorted.
    #[must_use]
    pub fn digests(&self) -> Vec<(Digest, u64)> {
        let mut all: Vec<_> = self.blobs.iter().map(|(digest, place)| (*digest, place.len())).collect();
        all.sort_unstable();
        all
    }

    /// A blob's length; `None` where the tree has no such blob.
    #[must_use]
    pub fn blob_len(&self, digest: &Digest) -> Option<u64> {
        self.blobs.get(digest).map(Place::len)
    }

    /// A blob's bytes; `None` where the tree has no such blob.
    ///
    /// # Errors
    /// [`Rejected::Changed`] where the file is gone or has another length; more is found out while it is read.
    pub fn open(&self, digest: &Digest) -> Result<Option<SourceReader<'_>>, Error> {
        let (bytes, path) = match self.blobs.get(digest) {
            None => return Ok(None),
            Some(Place::Memory(bytes)) => (Bytes::Memory(bytes), None),
            Some(Place::Disk { path, len }) => {
                let path = self.root.join(path);
                let file = match rustix::fs::open(&path, OPEN, Mode::empty()).map_err(io::Error::from) {
                    Ok(file) => File::from(file),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Rejected::Changed { path }.into()),
                    Err(e) => return Err(Fault::io("opening", &path, e).into()),
                };
                let meta = file.metadata().or_fault("reading", &path)?;
                if !meta.is_file() || meta.len() != *len {
                    return Err(Rejected::Changed { path }.into());
                }
                (Bytes::Disk(file), Some(path))
            }
        };
        Ok(Some(SourceReader { bytes, path, digest: *digest, hasher: Box::default(), checked: false }))
    }

    /// All bytes of a blob, checked; `None` where the tree has no such blob.
    ///
    /// # Errors
    /// [`Rejected::Changed`] where the file is no longer what it was.
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let Some(mut reader) = self.open(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|e| reader.explain(e))?;
        Ok(Some(bytes))
    }

    /// Brings into a store what it does not have; answers how many bytes that were.
    ///
    /// # Errors
    /// [`Rejected::Changed`] where a file is no longer what it was, and what storing answers.
    pub fn store(&self, store: &Store, namespace: &Namespace) -> Result<u64, Error> {
        let mut stored = 0;
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        for digest in store.missing(namespace, &self.order) {
            let len = self.blob_len(&digest).unwrap_or_default();
            stored += len;
            if len > BLOB_SMALL_MAX_BYTES as u64 {
                self.store_large(store, namespace, &digest)?;
                continue;
            }
            let bytes = self.read(&digest)?.unwrap_or_default();
            batch_bytes += bytes.len();
            batch.push(bytes);
            if batch_bytes >= 8 * COMMIT_BUFFER_BYTES {
                store.put_many(namespace, std::mem::take(&mut batch))?;
                batch_bytes = 0;
            }
        }
        store.put_many(namespace, batch)?;
        Ok(stored)
    }

    fn store_large(&self, store: &Store, namespace: &Namespace, digest: &Digest) -> Result<(), Error> {
        let Some(mut reader) = self.open(digest)? else { return Ok(()) };
        let mut upload = store.begin_put(namespace, Some(*digest))?;
        let mut buffer = vec![0; COMMIT_BUFFER_BYTES];
        loop {
            let n = reader.read(&mut buffer).map_err(|e| reader.explain(e))?;
            let piece = buffer.get(..n).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            upload.write(piece)?;
        }
        upload.finish()?;
        Ok(())
    }
}

impl Place {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk { len, .. } => *len,
        }
    }
}

#[derive(Debug)]
enum Bytes<'a> {
    Memory(&'a [u8]),
    Disk(File),
}

/// Reads a blob of a snapshot. Where its file is no longer what it was, the last read fails.
#[derive(Debug)]
pub struct SourceReader<'a> {
    bytes: Bytes<'a>,
    path: Option<PathBuf>,
    digest: Digest,
    hasher: Box<blake3::Hasher>,
    checked: bool,
}

impl SourceReader<'_> {
    /// What a failed read means: [`Rejected::Changed`], or a fault of the disk.
    #[must_use]
    pub fn explain(&self, error: io::Error) -> Error {
        let path = self.path.clone().unwrap_or_default();
        match error.kind() {
            io::ErrorKind::InvalidData => Rejected::Changed { path }.into(),
            _ => Fault::io("reading", &path, error).into(),
        }
    }
}

impl Read for SourceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.bytes {
            Bytes::Memory(bytes) => return bytes.read(buffer),
            Bytes::Disk(file) => file.read(buffer)?,
        };
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        if n == 0 && !buffer.is_empty() && !self.checked {
            self.checked = true;
            if Digest::from_hasher(&self.hasher) != self.digest {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the file changed since the snapshot"));
            }
        }
        Ok(n)
    }
}
