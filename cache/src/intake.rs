//! Blobs that come one after the other, each with its name and length before its bytes: small ones share a write and a
//! sync, large ones are written as they come. Nothing is held of a large one.

use windlass_protocol::limits::{BLOB_SMALL_MAX_BYTES, COMMIT_BUFFER_BYTES, SPACE_STEP_BYTES};
use windlass_protocol::{Digest, Namespace};

use crate::error::{Error, Rejected};
use crate::space::{self, Reservation};
use crate::store::Store;
use crate::upload::Upload;

/// Puts blobs into a store as they come, and refuses those that are not what their names say.
#[derive(Debug)]
pub struct Intake {
    store: Store,
    namespace: Namespace,
    /// Kept for the blobs to come.
    space: Reservation,
    current: Option<Current>,
    /// What is still to come of it.
    left: u64,
    /// Small blobs that were checked and wait for their common write.
    batch: Vec<(Digest, Vec<u8>)>,
    batch_bytes: usize,
    done: Vec<Digest>,
}

#[derive(Debug)]
enum Current {
    Small(Digest, Vec<u8>),
    Large(Upload),
}

impl Intake {
    /// Begins with nothing.
    #[must_use]
    pub fn new(store: &Store, namespace: &Namespace) -> Self {
        Self::within(store, namespace, store.shared.no_reservation())
    }

    /// As [`Intake::new`], in room that was kept for all of the blobs before.
    #[must_use]
    pub fn within(store: &Store, namespace: &Namespace, space: Reservation) -> Self {
        let (store, namespace) = (store.clone(), namespace.clone());
        Self { store, namespace, space, current: None, left: 0, batch: Vec::new(), batch_bytes: 0, done: Vec::new() }
    }

    /// The next blob, whose bytes follow. What is missing of the one before it is given up with it.
    ///
    /// # Errors
    /// [`Rejected::WrongDigest`] of an empty one, [`crate::Fault::NoSpace`] where there is no room for all of it, and what
    /// storing answers.
    pub fn begin(&mut self, digest: Digest, len: u64) -> Result<(), Error> {
        let (waiting, waiting_bytes) = (self.batch.len(), self.batch_bytes);
        let small = usize::try_from(len).ok().filter(|len| *len <= BLOB_SMALL_MAX_BYTES);
        self.current = Some(match small {
            Some(len) => {
                self.space.ensure(space::of_blobs(waiting + 1, waiting_bytes + len), SPACE_STEP_BYTES)?;
                Current::Small(digest, Vec::with_capacity(len))
            }
            None => {
                let bytes = space::with_records(len);
                self.space.ensure(bytes.saturating_add(space::of_blobs(waiting, waiting_bytes)), 0)?;
                let own = self.space.split(bytes);
                Current::Large(self.store.begin_put_in(&self.namespace, Some(digest), own)?)
            }
        });
        self.left = len;
        if len == 0 { self.end() } else { Ok(()) }
    }

    /// The next bytes of the blob. More than its length are passed over.
    ///
    /// # Errors
    /// [`Rejected::WrongDigest`] with its last bytes, and what storing answers.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let bytes = bytes.get(..usize::try_from(self.left).unwrap_or(usize::MAX)).unwrap_or(bytes);
        match &mut self.current {
            Some(Current::Small(_, gathered)) => gathered.extend_from_slice(bytes),
            Some(Current::Large(upload)) => upload.write(bytes)?,
            None => return Ok(()),
        }
        self.left -= bytes.len() as u64;
        if self.left == 0 { self.end() } else { Ok(()) }
    }

    /// Answers the digests of all whole blobs, in the order in which they were whole, once they are stored.
    ///
    /// # Errors
    /// What storing answers.
    pub fn finish(mut self) -> Result<Vec<Digest>, Error> {
        self.flush()?;
        Ok(self.done)
    }

    fn end(&mut self) -> Result<(), Error> {
        match self.current.take() {
            Some(Current::Small(expected, bytes)) => self.add(expected, bytes),
            Some(Current::Large(upload)) => {
                self.done.push(upload.finish()?);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn add(&mut self, expected: Digest, bytes: Vec<u8>) -> Result<(), Error> {
        let actual = Digest::of(&bytes);
        if actual != expected {
            return Err(Rejected::WrongDigest { expected, actual }.into());
        }
        self.done.push(actual);
        self.batch_bytes += bytes.len();
        self.batch.push((actual, bytes));
        if self.batch_bytes < 8 * COMMIT_BUFFER_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.store.put_hashed(&self.namespace, &self.batch)?;
        self.space.spend(space::of_blobs(self.batch.len(), self.batch_bytes));
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }
}
