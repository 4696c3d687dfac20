//! Chunks: what large blobs are cut into, each stored once however many blobs hold it.
//!
//! | module | owns |
//! | --- | --- |
//! | `alike` | which large blobs of a namespace are alike |
//! | [`cut`] | where a blob is cut |
//! | `frame` | a chunk as its bytes lie on disk |
//! | `listing` | what a chunk file holds, as a record says it |
//! | [`manifest`] | which chunks a blob is made of |
//! | [`serve`] | a stored blob by its parts |
//! | `table` | which chunk lies where, and how many count on it |
//! | `reader` | a chunk read and compared with its name |
//! | [`tar`] | which bytes of an archive are headers, times and files |
//! | `weave` | how the chunks of an archive make it |
//! | `space` | giving back the bytes of chunks that nobody counts on |

pub(crate) mod alike;
pub mod cut;
pub(crate) mod frame;
pub(crate) mod listing;
pub mod manifest;
pub(crate) mod reader;
pub mod serve;
pub(crate) mod space;
pub(crate) mod table;
pub mod tar;
pub(crate) mod weave;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use windlass_protocol::Digest;

use alike::Alikes;
use space::Departing;
use table::Table;

/// The number of a chunk file; none is given twice.
pub(crate) type FileNo = u64;

/// Where a chunk's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkPlace {
    pub(crate) file: FileNo,
    pub(crate) offset: u64,
    /// How many they are on disk. Fewer than `bytes`, and they are a zstd frame; else they are the chunk itself.
    pub(crate) stored_bytes: u32,
    /// How long the chunk is.
    pub(crate) bytes: u32,
}

/// Where the chunk file of this number lies.
pub(crate) fn file_path(dir: &Path, file: FileNo) -> PathBuf {
    dir.join(format!("{file:016x}"))
}

/// The number in a chunk file's name.
pub(crate) fn file_number(name: &str) -> Option<FileNo> {
    let digits = name.len() == 16 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    digits.then(|| FileNo::from_str_radix(name, 16).ok())?
}

/// The chunks of an open store.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// Taken last: no other lock is taken under it.
    table: Mutex<Table>,
    /// Held from finding out what a blob adds until its records were appended: what a manifest counts on comes before it in
    /// the segments, and so is durable when it is.
    registering: Mutex<()>,
    /// Blobs whose uploads end at this moment, one each.
    finishing: Mutex<HashSet<Digest>>,
    finished: Condvar,
    departing: Mutex<Vec<Departing>>,
    alikes: Alikes,
    next_file: AtomicU64,
}

/// The only upload of its blob that ends.
#[derive(Debug)]
pub(crate) struct Finishing<'a> {
    chunks: &'a Chunks,
    digest: Digest,
}

impl Chunks {
    pub(crate) fn new(table: Table, next_file: FileNo) -> Self {
        Self { table: Mutex::new(table), next_file: AtomicU64::new(next_file), ..Self::default() }
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    pub(crate) const fn alikes(&self) -> &Alikes {
        &self.alikes
    }

    pub(crate) fn registering(&self) -> MutexGuard<'_, ()> {
        lock(&self.registering)
    }

    fn departing(&self) -> MutexGuard<'_, Vec<Departing>> {
        lock(&self.departing)
    }

    /// The number that comes next.
    pub(crate) fn peek_file(&self) -> FileNo {
        self.next_file.load(Ordering::Relaxed)
    }

    pub(crate) fn next_file(&self) -> FileNo {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until no other upload of this blob ends.
    pub(crate) fn finishing(&self, digest: Digest) -> Finishing<'_> {
        let mut finishing = lock(&self.finishing);
        while !finishing.insert(digest) {
            finishing = self.finished.wait(finishing).unwrap_or_else(PoisonError::into_inner);
        }
        Finishing { chunks: self, digest }
    }

    /// The same, unless one does at this moment.
    pub(crate) fn try_finishing(&self, digest: Digest) -> Option<Finishing<'_>> {
        lock(&self.finishing).insert(digest).then(|| Finishing { chunks: self, digest })
    }
}

impl Drop for Finishing<'_> {
    fn drop(&mut self) {
        lock(&self.chunks.finishing).remove(&self.digest);
        self.chunks.finished.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
