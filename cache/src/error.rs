//! What can go wrong, in two families: the caller's doing, and ours or the world's.

use std::io;
use std::path::{Path, PathBuf};

use windlass_protocol::Digest;
use windlass_protocol::limits::{BLOB_MAX_BYTES, CHUNK_MAX_BYTES, MANIFEST_MAX_CHUNKS, PACK_MAX_BLOBS, PACK_MAX_BYTES};

use crate::remote::RemoteError;

/// Either family, where a call can end in both.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's doing.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Ours, or the world's.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// The caller's doing: what was wrong and where. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Bytes that are not what they were announced as.
    #[error("the bytes are {actual}, not {expected} as announced; send them again")]
    WrongDigest {
        /// What was announced.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A blob past the limit.
    #[error("a blob of more than {BLOB_MAX_BYTES} bytes cannot be stored")]
    BlobTooLarge,
    /// A namespace whose names are past their limit.
    #[error("a namespace's name is too long")]
    NamespaceTooLong,
    /// Bytes that are not a directory.
    #[error("a tree's directory{} is not valid: {reason}", of(.digest.as_ref()))]
    BadTree {
        /// The directory, where known.
        digest: Option<Digest>,
        /// What is wrong with it.
        reason: BadTree,
    },
    /// Bytes that are not a pack of blobs.
    #[error("the pack is not valid: {0}")]
    BadPack(BadPack),
    /// What is to be snapshot is not a directory, or what a tree is to be laid out in is.
    #[error("{path}: {reason}")]
    BadPath {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Blobs that a tree names and that are not visible here.
    #[error("{} blobs of the tree are missing, the first is {}", .digests.len(), first(.digests))]
    Missing {
        /// All of them, sorted, each once.
        digests: Vec<Digest>,
    },
    /// A file changed between being hashed and being read.
    #[error("{path} changed while it was read; take the snapshot again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// Why bytes are not a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each one's message says it")]
pub enum BadTree {
    #[error("not a directory of a version that is known here")]
    Version,
    #[error("it ends early")]
    Truncated,
    #[error("bytes follow its end")]
    TrailingBytes,
    #[error("an entry of a kind that is not known")]
    UnknownKind,
    #[error("a mode with bits beyond 0777")]
    Mode,
    #[error("an empty name")]
    EmptyName,
    #[error("a name that is `.` or `..`")]
    DotName,
    #[error("a name with a slash or a NUL")]
    NameByte,
    #[error("a name that is too long")]
    NameTooLong,
    #[error("names that are not sorted")]
    Unsorted,
    #[error("a name that comes twice")]
    Duplicate,
    #[error("names that differ in case only")]
    CaseCollision,
    #[error("a symlink's target that is empty, too long or has a NUL")]
    Target,
    #[error("too many entries")]
    TooManyEntries,
    #[error("directories nested too deeply")]
    TooDeep,
    #[error("too many bytes")]
    TooLarge,
    #[error("a file whose blob has another length")]
    Length,
}

/// Why bytes are not a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPack {
    /// It does not begin as one.
    #[error("not a pack of a version that is known here")]
    Version,
    /// It ends within a blob, or without its end mark.
    #[error("it ends early")]
    Truncated,
    /// Something follows its end mark.
    #[error("bytes follow its end")]
    TrailingBytes,
    /// More blobs than a pack may hold.
    #[error("it holds more than {PACK_MAX_BLOBS} blobs")]
    TooManyBlobs,
    /// More bytes than a pack may hold.
    #[error("it holds more than {PACK_MAX_BYTES} bytes")]
    TooLarge,
    /// A byte that no writer of packs puts there.
    #[error("a mark that is not known")]
    Mark,
}

/// Why bytes are not a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChunkManifest {
    /// It does not begin as one.
    #[error("not a manifest of a version that is known here")]
    Version,
    /// It ends before its last chunk, or without its check.
    #[error("it ends early")]
    Truncated,
    /// Something follows its check.
    #[error("bytes follow its end")]
    TrailingBytes,
    /// More chunks than any blob has.
    #[error("it names more than {MANIFEST_MAX_CHUNKS} chunks")]
    TooManyChunks,
    /// A chunk without bytes, or with more than any has.
    #[error("a chunk of no bytes, or of more than {CHUNK_MAX_BYTES}")]
    ChunkLength,
    /// Chunks that together are not the blob, or a blob that is too large.
    #[error("its chunks are not as long as its blob, or that has more than {BLOB_MAX_BYTES} bytes")]
    BlobLength,
    /// Bytes that are not what was written.
    #[error("its bytes are not what its check says")]
    Check,
    /// What it says of an archive does not fit its chunks.
    #[error("it does not say how its chunks make an archive")]
    Weave,
}

/// Ours, or the world's: what was tried. What was acknowledged before is safe.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No space; what was being written is not there, everything else is.
    #[error("the disk is full: {doing} {}; nothing that was stored before is lost", .path.display())]
    DiskFull {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// There is no room for what was to be stored; nothing of it was taken.
    #[error(
        "the disk of {} has no room for {wanted_bytes} bytes: {left_bytes} are left beside its floor, what other uploads \
         were promised, and what people were told is there; nothing that was stored before is lost",
        .path.display()
    )]
    NoSpace {
        /// The store's directory.
        path: PathBuf,
        /// What was asked for.
        wanted_bytes: u64,
        /// What there was for it.
        left_bytes: u64,
    },
    /// The disk said no.
    #[error("{doing} {}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the store in {} is open in another process", .path.display())]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// A sync failed before, so nothing is known of what was written last; only opening the store anew tells.
    #[error("the store in {} takes no more writes since a sync failed; restart to recover it", .path.display())]
    Poisoned {
        /// The store's directory.
        path: PathBuf,
    },
    /// A stored blob's bytes are not what its name says; it was put aside.
    #[error("{digest} is damaged on disk and was put aside; fetch or upload it again")]
    Damaged {
        /// The blob.
        digest: Digest,
    },
    /// The store's bucket did not give what was asked of it; nothing is lost by that, and it may in a moment.
    #[error("{doing} {}: {why}; nothing that was stored is lost, try again", .path.display())]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the bucket said, or that it said nothing.
        why: String,
    },
    /// A thread ended without an answer.
    #[error("{doing} ended without an answer")]
    Lost {
        /// What was being done.
        doing: &'static str,
    },
}

impl Fault {
    /// Whether there was no room, for what was to be stored or for what was being written.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        match self {
            Self::NoSpace { .. } | Self::DiskFull { .. } => true,
            Self::Io { .. }
            | Self::InUse { .. }
            | Self::Poisoned { .. }
            | Self::Damaged { .. }
            | Self::Unavailable { .. }
            | Self::Lost { .. } => false,
        }
    }

    /// An error of the disk, full disks told apart.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        if let Some(error) = source.get_ref().and_then(|inner| inner.downcast_ref::<RemoteError>()) {
            return error.fault(doing, path);
        }
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { doing, path: path.to_owned() }
            }
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }
}

/// `result` with what was being done, for `map_err` that would repeat itself.
pub(crate) trait OrFault<T> {
    fn or_fault(self, doing: &'static str, path: &Path) -> Result<T, Fault>;
}

impl<T> OrFault<T> for io::Result<T> {
    fn or_fault(self, doing: &'static str, path: &Path) -> Result<T, Fault> {
        self.map_err(|e| Fault::io(doing, path, e))
    }
}

impl<T> OrFault<T> for rustix::io::Result<T> {
    fn or_fault(self, doing: &'static str, path: &Path) -> Result<T, Fault> {
        self.map_err(|e| Fault::io(doing, path, e.into()))
    }
}

fn of(digest: Option<&Digest>) -> String {
    digest.map(|d| format!(" {d}")).unwrap_or_default()
}

fn first(digests: &[Digest]) -> String {
    digests.first().map(ToString::to_string).unwrap_or_default()
}
