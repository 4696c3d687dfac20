//! The bucket behind a store: what any object store has to do for it, and what of the store lies there.
//!
//! | module | owns |
//! | --- | --- |
//! | `away` | which files have a copy in the bucket, and how it is asked |
//! | `bones` | what stays on the disk of a segment that is away: all of it but the bytes of blobs |
//! | `journal` | the durable record of what was copied |
//! | `mover` | copying, dropping and deleting, a bounded piece at a time |
//! | `ranges` | ranges that were fetched, each by one request however many want it |
//! | `rebuild` | a new disk for what is in the bucket |
//! | [`memory`] | a bucket in memory, with faults, for tests |
//!
//! What segments say stays on the disk, so that a store opens, answers and lets go without its bucket; only bytes of blobs and
//! chunks are away. Nobody asks the bucket while holding a lock of the store.

pub(crate) mod away;
pub(crate) mod bones;
pub(crate) mod journal;
pub mod memory;
mod mover;
pub(crate) mod ranges;
pub(crate) mod rebuild;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use windlass_protocol::Digest;
use windlass_protocol::limits::ORIGIN_PAUSE_MS;

use crate::chunk::FileNo;
pub use mover::Tended;

/// A bucket, as far as a store needs one. Calls block, and end in bounded time; they may come from any thread.
///
/// Objects are never written twice with other bytes: their names hold the digest of what they are.
pub trait Remote: Debug + Send + Sync {
    /// Stores an object of `bytes` bytes, which `next` gives in parts of `ORIGIN_PART_BYTES`, the last one shorter. Where `next`
    /// fails nothing is stored. Who hears of success finds the object there.
    ///
    /// # Errors
    /// [`RemoteError`]; the object may be there, or not, where no answer came.
    fn put(&self, key: &str, bytes: u64, next: &mut dyn FnMut() -> io::Result<Vec<u8>>) -> Result<(), RemoteError>;

    /// Exactly these bytes of an object.
    ///
    /// # Errors
    /// [`RemoteError::Missing`] where there is no such object, and others.
    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, RemoteError>;

    /// Deletes an object; one that is not there is none to delete.
    ///
    /// # Errors
    /// [`RemoteError`].
    fn delete(&self, key: &str) -> Result<(), RemoteError>;

    /// Objects whose names begin with `prefix` and come after `after`, sorted: at most `ORIGIN_LIST_MAX`; none follow the last
    /// empty answer.
    ///
    /// # Errors
    /// [`RemoteError`].
    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<RemoteObject>, RemoteError>;
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteObject {
    /// Its name.
    pub key: String,
    /// Its length.
    pub bytes: u64,
}

/// Why a bucket did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// There is no such object.
    #[error("the bucket has no object {key}")]
    Missing {
        /// Its name.
        key: String,
    },
    /// No answer, or one that says to come again: it may be right in a moment.
    #[error("the bucket does not answer: {why}")]
    Unavailable {
        /// What happened.
        why: String,
    },
    /// It says no: somebody has to change something.
    #[error("the bucket refuses: {why}")]
    Refused {
        /// What it said.
        why: String,
    },
}

impl From<RemoteError> for io::Error {
    fn from(error: RemoteError) -> Self {
        let kind = match &error {
            RemoteError::Missing { .. } => io::ErrorKind::NotFound,
            RemoteError::Unavailable { .. } | RemoteError::Refused { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// A store's bucket, and how much stays on the disk.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The bucket; the store's objects are the only ones in it, or below its prefix, or have other names.
    pub remote: Arc<dyn Remote>,
    /// Bytes on the disk past which those leave that were not used for longest.
    pub disk_bytes: u64,
    /// For how long nobody asks again where no answer came.
    pub pause_ms: u64,
}

impl Origin {
    /// With this much on the disk.
    #[must_use]
    pub fn new(remote: Arc<dyn Remote>, disk_bytes: u64) -> Self {
        Self { remote, disk_bytes, pause_ms: ORIGIN_PAUSE_MS }
    }
}

/// What a store has in its bucket, and how often that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OriginStats {
    /// Objects that are recorded.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of those that lie in the bucket alone.
    pub away_bytes: u64,
    /// Bytes of sealed segments and chunk files that have no copy there yet.
    pub waiting_bytes: u64,
    /// Ranges that were fetched.
    pub fetched: u64,
    /// Bytes of them.
    pub fetched_bytes: u64,
    /// Ranges that were in memory.
    pub remembered: u64,
    /// Requests that did not end well.
    pub failed: u64,
    /// Objects that were not there, or were not what was stored.
    pub wrong: u64,
    /// Bytes that were copied there.
    pub copied_bytes: u64,
    /// The last request got no answer.
    pub down: bool,
}

/// A file of the store that can be in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Object {
    Segment(u32),
    Chunks(FileNo),
}

impl Object {
    /// The name of its object: whose it is, what it is, and the digest of its bytes.
    pub(crate) fn key(self, store: &str, digest: &Digest) -> String {
        let digest = digest.to_hex();
        match self {
            Self::Segment(number) => format!("{store}/segments/{number:08x}-{digest}"),
            Self::Chunks(number) => format!("{store}/chunks/{number:016x}-{digest}"),
        }
    }

    /// What a name says, where it is one of this store's.
    pub(crate) fn parse(store: &str, key: &str) -> Option<(Self, Digest)> {
        let (folder, name) = key.strip_prefix(store)?.strip_prefix('/')?.split_once('/')?;
        let (number, digest) = name.split_once('-')?;
        let object = match folder {
            "segments" => Self::Segment(u32::from_str_radix(number, 16).ok()?),
            "chunks" => Self::Chunks(FileNo::from_str_radix(number, 16).ok()?),
            _ => return None,
        };
        let digest = Digest::from_hex(digest).ok()?;
        // One spelling alone.
        (object.key(store, &digest) == key).then_some((object, digest))
    }
}
