//! What the tests of this crate share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_coordinator_logs::{Appended, Event, Fault, Follower, LogStore, Options, Refused};
use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, Digest, WallMs};

/// Where the store lies on a recorded disk.
pub(crate) const DIR: &str = "/data/logs";

/// Small sizes, so that little data meets every boundary.
pub(crate) const SMALL: Options =
    Options { segment_bytes: 2_000, ring_bytes: 300, frame_bytes: 400, log_max_bytes: 1 << 20 };

/// The `n`-th attempt.
pub(crate) fn attempt(n: u8) -> AttemptId {
    AttemptId::from_bytes([n; 16])
}

/// Opens the store of a recorded disk.
pub(crate) fn open(fs: &RecordingFs) -> Result<LogStore, Fault> {
    LogStore::open(Arc::new(fs.clone()), Path::new(DIR), SMALL)
}

/// The byte of log `n` at an offset: no two logs and no two nearby offsets look alike.
pub(crate) fn byte(n: u8, offset: u64) -> u8 {
    let mixed = (offset ^ u64::from(n) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
    u8::try_from(mixed).unwrap()
}

/// Bytes of log `n`.
pub(crate) fn text(n: u8, offset: u64, len: u64) -> Bytes {
    (offset..offset + len).map(|o| byte(n, o)).collect()
}

/// The digest of log `n` at a length.
pub(crate) fn digest(n: u8, len: u64) -> Digest {
    Digest::of(&text(n, 0, len))
}

/// Appends the right bytes at an offset, at a time that tells the offset.
pub(crate) async fn append(store: &LogStore, n: u8, offset: u64, len: u64) -> Result<Appended, Refused> {
    store.append(attempt(n), Epoch(1), offset, WallMs(1_000_000 + offset), text(n, offset, len)).await
}

/// Waits until log `n` is durable to a length.
pub(crate) async fn durable(store: &LogStore, n: u8, len: u64) {
    within(store.settle(attempt(n), len, digest(n, len))).await.unwrap();
}

/// All durable bytes of log `n` from an offset.
pub(crate) async fn read(store: &LogStore, n: u8, from: u64, to: u64) -> Vec<u8> {
    match store.read(attempt(n), from..to).await {
        Ok(mut reader) => reader.read_to_end().await.unwrap(),
        Err(Fault::Unknown { .. }) => Vec::new(),
        Err(fault) => panic!("{fault}"),
    }
}

/// Runs something that must not take long.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("nothing happened for 20 s")
}

/// Follows until an offset or the end; gives the bytes and the end if it came.
pub(crate) async fn follow_to(follower: &mut Follower, offset: u64) -> (Vec<u8>, Option<(u64, Digest)>) {
    let mut bytes = Vec::new();
    while follower.offset() < offset {
        match within(follower.next()).await.unwrap() {
            Event::Bytes(piece) => bytes.extend_from_slice(&piece.bytes),
            Event::End { bytes: len, digest } => return (bytes, Some((len, digest))),
            Event::Reset { offset } => panic!("taken back to {offset}"),
        }
    }
    (bytes, None)
}
