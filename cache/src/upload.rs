//! A blob that is being written, piece by piece.

mod cutting;
pub(crate) mod journal;
pub mod partial;

use std::io::{self, Write};
use std::sync::Arc;

use windlass_protocol::limits::{BLOB_MAX_BYTES, BLOB_SMALL_MAX_BYTES, SPACE_STEP_BYTES};
use windlass_protocol::{Digest, Namespace};

use crate::alias::Sha256;
use crate::appender::Item;
use crate::error::{Error, Rejected};
use crate::space::{self, Reservation};
use crate::store::Shared;
use cutting::Cutting;
pub use cutting::{Assembly, ChunkPacker, Outline};
use journal::Noted;

/// A blob that is being written. Dropped before [`Upload::finish`] it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    pub(crate) shared: Arc<Shared>,
    pub(crate) namespace: Namespace,
    pub(crate) expected: Option<Digest>,
    /// Boxed: it is two kilobytes, and uploads are held across awaits.
    pub(crate) hasher: Box<blake3::Hasher>,
    pub(crate) small: Vec<u8>,
    pub(crate) large: Option<Box<Cutting>>,
    /// Where the SHA-256 is computed, too.
    pub(crate) alias: Option<Box<Sha256>>,
    pub(crate) bytes: u64,
    /// Kept for what is still to come, and for what came and is not written yet.
    pub(crate) space: Reservation,
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Rejected::BlobTooLarge`], [`crate::Fault::NoSpace`] and others; the upload is of no use then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let total = self.bytes + bytes.len() as u64;
        if total > BLOB_MAX_BYTES {
            return Err(Rejected::BlobTooLarge.into());
        }
        self.space.ensure(space::with_records(self.unwritten() + bytes.len() as u64), SPACE_STEP_BYTES)?;
        self.hasher.update(bytes);
        if let Some(alias) = &mut self.alias {
            alias.update(bytes);
        }
        if total <= BLOB_SMALL_MAX_BYTES as u64 {
            self.small.extend_from_slice(bytes);
            self.bytes = total;
            return Ok(());
        }
        let small = std::mem::take(&mut self.small);
        let large = self.large.get_or_insert_with(|| Box::new(Cutting::new(&self.shared)));
        large.write(&small, &mut self.space)?;
        large.write(bytes, &mut self.space)?;
        self.bytes = total;
        Ok(())
    }

    /// One that has come so far as `large` and `hasher` say, and cannot be small.
    fn begun(
        shared: &Arc<Shared>,
        (namespace, expected): (&Namespace, Digest),
        hasher: Box<blake3::Hasher>,
        large: Cutting,
    ) -> Self {
        let (shared, namespace) = (Arc::clone(shared), namespace.clone());
        let (bytes, space) = (large.bytes(), shared.no_reservation());
        let large = Some(Box::new(large));
        Self {
            shared,
            namespace,
            expected: Some(expected),
            hasher,
            small: Vec::new(),
            large,
            alias: None,
            bytes,
            space,
        }
    }

    /// Bytes that came and are not written yet.
    fn unwritten(&self) -> u64 {
        self.small.len() as u64 + self.large.as_ref().map_or(0, |large| large.pending_bytes())
    }

    /// How many chunks of it there are.
    fn chunks(&self) -> usize {
        self.large.as_ref().map_or(0, |large| large.chunks())
    }

    /// Its chunks after the first so many.
    fn noted_since(&self, first: usize) -> Vec<Noted> {
        self.large.as_ref().map(|large| large.noted_since(first)).unwrap_or_default()
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
        let alias = self.alias.take().map(|alias| alias.finish());
        match self.large.take() {
            None => {
                let _writing = self.shared.writing();
                self.shared.commit_blob(&self.namespace, (digest, &self.small), alias.as_ref())?;
            }
            Some(large) => {
                large.finish(&self.namespace, digest)?;
                if let Some(alias) = &alias {
                    let _writing = self.shared.writing();
                    self.shared.commit(&self.namespace, &[Item::Alias { digest, alias }])?;
                }
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
