//! A blob that was found: its bytes, for as long as somebody holds it.

mod chunked;

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use windlass_protocol::Digest;

use crate::error::Fault;
use crate::index::Pin;
use crate::remote::RemoteError;
use crate::store::Shared;
use crate::vfs::VfsFile;
pub(crate) use chunked::{Chunked, PlainAndFrame};

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
    Memory(Bytes),
    /// A large one; each chunk is checked when it is read.
    Chunked(Chunked),
    /// A large one in a file of its own; checked while it is read through.
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
            Body::Chunked(chunked) => chunked.manifest.blob_bytes(),
            Body::File { bytes, .. } => *bytes,
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads some bytes at `offset`; 0 at the end. They were checked, unless the blob is a large one that was stored whole, by
    /// a version before chunks.
    ///
    /// # Errors
    /// [`Fault::Damaged`] where they are not what was stored; the blob is put aside then. [`Fault::Io`] where the disk fails.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        match &self.body {
            Body::Memory(bytes) => {
                let mut rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
                rest.read(buffer).map_err(|e| self.unreadable(e))
            }
            Body::Chunked(chunked) => chunked.read_at(self, offset, buffer),
            Body::File { file, .. } => file.read_at(offset, buffer).map_err(|e| self.unreadable(e)),
        }
    }

    /// All bytes, checked.
    ///
    /// # Errors
    /// [`Fault::Damaged`] where they are not what the digest says; the blob is put aside then.
    pub fn into_vec(self) -> Result<Vec<u8>, Fault> {
        if let Body::Memory(bytes) = self.body {
            return Ok(bytes.into());
        }
        let mut out = Vec::with_capacity(usize::try_from(self.len()).unwrap_or_default().min(RESERVE_MAX_BYTES));
        self.copy_to(&mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(out)
    }

    /// Hands all bytes to `take`, in order, and checks them.
    ///
    /// # Errors
    /// What `take` answers, [`Fault::Damaged`] where the bytes are not what the digest says: `take` has not had all then, or,
    /// of a blob that was stored whole, wrong ones; and the blob is put aside.
    pub fn copy_to(&self, take: &mut dyn FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        let (file, bytes) = match &self.body {
            Body::Memory(bytes) => return take(bytes),
            Body::Chunked(chunked) => return chunked.copy_to(self, take),
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

    /// Whether the bytes that were read were compared with what they should be by then.
    const fn proves_itself(&self) -> bool {
        match self.body {
            Body::Memory(_) | Body::Chunked(_) => true,
            Body::File { .. } => false,
        }
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
        let n = self.blob.read_at(self.at, buffer).map_err(as_io)?;
        if !self.blob.proves_itself() {
            self.hasher.update(buffer.get(..n).unwrap_or_default());
        }
        self.at += n as u64;
        // The last bytes are given out only with the whole known to be right.
        if n == 0 || self.at >= self.blob.len() {
            self.done = true;
            let right = self.blob.proves_itself() || Digest::from_hasher(&self.hasher) == self.blob.digest;
            if self.at != self.blob.len() || !right {
                self.blob.shared.set_aside(&self.blob.digest, &self.blob.pin);
                return Err(as_io(Fault::Damaged { digest: self.blob.digest }));
            }
        }
        Ok(n)
    }
}

fn as_io(fault: Fault) -> io::Error {
    let kind = match &fault {
        Fault::Damaged { .. } => io::ErrorKind::InvalidData,
        Fault::Io { source, .. } => source.kind(),
        // Whoever says it again says the same.
        Fault::Unavailable { why, .. } => {
            return RemoteError::Unavailable { why: why.clone() }.into();
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, fault)
}
