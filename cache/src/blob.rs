//! A blob that was found: its bytes, for as long as somebody holds it.

use std::io::{self, Read};
use std::sync::Arc;

use windlass_protocol::Digest;

use crate::error::Fault;
use crate::index::Pin;
use crate::store::Shared;
use crate::vfs::VfsFile;

/// A blob that was found. While it is held, the blob is not evicted.
#[derive(Debug)]
pub struct Blob {
    pub(crate) digest: Digest,
    pub(crate) body: Body,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pin: Pin,
}

#[derive(Debug)]
pub(crate) enum Body {
    /// A small blob; checked when it was read.
    Memory(Vec<u8>),
    /// A large one; checked while it is read through.
    File { file: Box<dyn VfsFile>, bytes: u64 },
}

impl Blob {
    /// The blob's name.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.body {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::File { bytes, .. } => *bytes,
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads some bytes at `offset`; 0 at the end. A part of a large blob is not checked against the digest.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.read_raw(offset, buffer).map_err(|e| self.unreadable(e))
    }

    fn read_raw(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.body {
            Body::Memory(bytes) => {
                let mut rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
                rest.read(buffer)
            }
            Body::File { file, .. } => file.read_at(offset, buffer),
        }
    }

    /// All bytes, checked.
    ///
    /// # Errors
    /// [`Fault::Damaged`] where they are not what the digest says; the blob is put aside then.
    pub fn into_vec(self) -> Result<Vec<u8>, Fault> {
        if let Body::Memory(bytes) = self.body {
            return Ok(bytes);
        }
        let mut out = Vec::with_capacity(usize::try_from(self.len()).unwrap_or_default().min(RESERVE_MAX_BYTES));
        self.copy_to(&mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(out)
    }

    /// Hands all bytes to `take`, in order; at the end they are checked.
    ///
    /// # Errors
    /// What `take` answers, [`Fault::Damaged`] where the bytes are not what the digest says: `take` has had wrong ones
    /// then, and the blob is put aside.
    pub fn copy_to(&self, take: &mut dyn FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        let (file, bytes) = match &self.body {
            Body::Memory(bytes) => return take(bytes),
            Body::File { file, bytes } => (file, *bytes),
        };
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; PIECE_BYTES];
        let mut at = 0;
        loop {
            let n = file.read_at(at, &mut buffer).map_err(|e| self.unreadable(e))?;
            let piece = buffer.get(..n).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            hasher.update(piece);
            take(piece)?;
            at += n as u64;
        }
        if at != bytes || Digest::from_hasher(&hasher) != self.digest {
            self.shared.set_aside(&self.digest, &self.pin);
            return Err(Fault::Damaged { digest: self.digest });
        }
        Ok(())
    }

    /// A reader of all bytes. Its last read fails, and the blob is put aside, where they are not what the digest says.
    #[must_use]
    pub fn reader(self) -> BlobReader {
        BlobReader { blob: self, at: 0, hasher: Box::default(), done: false }
    }

    fn unreadable(&self, e: io::Error) -> Fault {
        Fault::io("reading", &self.shared.large_path(&self.digest), e)
    }
}

const PIECE_BYTES: usize = 256 << 10;

/// What is reserved on the word of a length alone; more comes as the bytes do.
const RESERVE_MAX_BYTES: usize = 16 << 20;

/// Reads a blob from its beginning to its end and checks it on the way.
#[derive(Debug)]
pub struct BlobReader {
    blob: Blob,
    at: u64,
    hasher: Box<blake3::Hasher>,
    done: bool,
}

impl BlobReader {
    /// How many bytes the blob has in all.
    #[must_use]
    pub fn blob_len(&self) -> u64 {
        self.blob.len()
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.done {
            return Ok(0);
        }
        let n = self.blob.read_raw(self.at, buffer)?;
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        self.at += n as u64;
        // The last bytes are given out only with the whole known to be right.
        if n == 0 || self.at >= self.blob.len() {
            self.done = true;
            if self.at != self.blob.len() || Digest::from_hasher(&self.hasher) != self.blob.digest {
                self.blob.shared.set_aside(&self.blob.digest, &self.blob.pin);
                return Err(io::Error::new(io::ErrorKind::InvalidData, Fault::Damaged { digest: self.blob.digest }));
            }
        }
        Ok(n)
    }
}
