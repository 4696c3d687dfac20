//! Blobs from the coordinator, into the agent's cache or past it, and what jobs keep there, on a connection of their own.
//!
//! A link that breaks is made again, for as long as somebody wants the blobs: a coordinator may be away for a while.

mod store;

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use tokio::sync::{Mutex, mpsc};
use windlass_cache::{Blob, Directory, Intake, Node, Store};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::FETCH_MAX_DIGESTS;
use windlass_protocol::link::{FramedRecv, FramedSend, LinkError, Protocol};
use windlass_protocol::message::{BlobHeader, BulkAsk, FetchBlobs};
use windlass_protocol::{Cause, Digest, Namespace};

pub(crate) use self::store::{Broken, Feed, NotStored, Offering, Taking};
use crate::right::Right;
use crate::session::Dial;

/// Pieces of blobs between the link and the disk: what the link brings while a segment is written.
const PIECES_MAX: usize = 64;

/// Between two tries over a link that broke.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Tries without a single blob more that reached the coordinator: it does not want to serve this.
const REFUSALS_MAX: u32 = 10;

/// Why a try to fetch failed.
#[derive(Debug)]
enum Trouble {
    /// Another try would not help.
    Cause(Cause),
    /// The coordinator was reached.
    Link(LinkError),
    /// It was not.
    Away(String),
}

impl From<Cause> for Trouble {
    fn from(cause: Cause) -> Self {
        Self::Cause(cause)
    }
}

impl From<LinkError> for Trouble {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// Fetches over one connection at a time, made when it is needed.
#[derive(Debug)]
pub(crate) struct Bulk {
    dial: std::sync::Mutex<Dial>,
    connection: Mutex<Option<Connection>>,
    store: Store,
}

impl Bulk {
    pub(crate) fn new(dial: Dial, store: Store) -> Arc<Self> {
        Arc::new(Self { dial: std::sync::Mutex::new(dial), connection: Mutex::new(None), store })
    }

    /// Uses another certificate from the next connection on. Waits for nothing: a dial may be under way.
    pub(crate) fn redial(&self, dial: Dial) {
        *self.lock() = dial;
    }

    fn lock(&self) -> MutexGuard<'_, Dial> {
        self.dial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings a whole tree into the agent's cache: level by level, and of each only what is missing.
    pub(crate) async fn fetch_tree(&self, job: &JobSpec, right: &Right, root: Digest) -> Result<(), Cause> {
        let mut level = BTreeSet::from([root]);
        let mut files = BTreeSet::new();
        let mut seen = BTreeSet::new();
        while !level.is_empty() {
            let wanted: Vec<_> = level.iter().copied().collect();
            self.fetch(job, right, &job.namespace, wanted.clone()).await?;
            seen.append(&mut level);
            for directory in self.directories(&job.namespace, wanted).await? {
                for entry in directory.entries() {
                    match &entry.node {
                        Node::File { digest, .. } => {
                            files.insert(*digest);
                        }
                        Node::Directory { digest, .. } if !seen.contains(digest) => {
                            level.insert(*digest);
                        }
                        Node::Directory { .. } | Node::Symlink { .. } => {}
                    }
                }
            }
        }
        self.fetch(job, right, &job.namespace, files.into_iter().collect()).await
    }

    async fn directories(&self, namespace: &Namespace, digests: Vec<Digest>) -> Result<Vec<Directory>, Cause> {
        let (store, namespace) = (self.store.clone(), namespace.clone());
        blocking(move || {
            let mut directories = Vec::with_capacity(digests.len());
            for digest in digests {
                let blob =
                    store.get(&namespace, &digest).map_err(|e| Cause::new(CauseKind::Internal, e.to_string()))?;
                let bytes = blob.ok_or_else(|| missing(&digest))?.into_vec().map_err(|e| internal(&e))?;
                let bad = |e| Cause::new(CauseKind::SourceMissing, format!("{digest} is no directory: {e}"));
                directories.push(Directory::decode(&bytes).map_err(bad)?);
            }
            Ok(directories)
        })
        .await
    }

    /// Brings those of the blobs that are missing here. What the coordinator does not have is `source_missing`. A link
    /// that breaks is made again, for as long as the right to the attempt lasts: a coordinator may be away for a while.
    /// They come into the cache for `namespace`.
    pub(crate) async fn fetch(
        &self,
        job: &JobSpec,
        right: &Right,
        namespace: &Namespace,
        digests: Vec<Digest>,
    ) -> Result<(), Cause> {
        let mut fewest = usize::MAX;
        let mut refusals = 0;
        let mut pause = PAUSE_MIN;
        loop {
            let (store, into, wanted) = (self.store.clone(), namespace.clone(), digests.clone());
            let missing = blocking(move || Ok(store.missing(&into, &wanted))).await?;
            if missing.len() < fewest {
                (fewest, refusals, pause) = (missing.len(), 0, PAUSE_MIN);
            }
            match self.fetch_missing(job, right, namespace, &missing).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Cause(cause)) => return Err(cause),
                Err(Trouble::Away(why)) => tracing::info!(attempt = %job.attempt, why, "source_waits"),
                Err(Trouble::Link(error)) => {
                    refusals += 1;
                    if refusals >= REFUSALS_MAX {
                        let what = format!("the source could not be fetched from the coordinator: {error}");
                        return Err(internal(&what));
                    }
                    tracing::info!(attempt = %job.attempt, %error, "source_cut_short");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn fetch_missing(
        &self,
        job: &JobSpec,
        right: &Right,
        namespace: &Namespace,
        missing: &[Digest],
    ) -> Result<(), Trouble> {
        for part in missing.chunks(FETCH_MAX_DIGESTS) {
            let (attempt, epoch) = (job.attempt, right.epoch());
            let request = FetchBlobs { build: job.build, attempt, epoch, digests: part.to_vec() };
            self.fetch_part(namespace, request).await?;
        }
        Ok(())
    }

    async fn fetch_part(&self, namespace: &Namespace, request: FetchBlobs) -> Result<(), Trouble> {
        let digests = request.digests.clone();
        let (mut send, mut recv) = self.ask(BulkAsk::Fetch(request)).await?;
        send.finish()?;
        let (pieces, queue) = mpsc::channel(PIECES_MAX);
        let (store, namespace) = (self.store.clone(), namespace.clone());
        let writer = tokio::task::spawn_blocking(move || write(&store, &namespace, queue));
        let received = receive(&mut recv, &digests, pieces).await;
        let written = writer.await.map_err(|e| internal(&e))?;
        // What the disk says explains why the link was given up, not the other way round.
        written?;
        received
    }

    /// Opens a stream with a request.
    async fn ask(&self, request: BulkAsk) -> Result<(FramedSend, FramedRecv), Trouble> {
        let connection = self.connected().await?;
        let (send, recv) = connection.open_bi().await.map_err(LinkError::from)?;
        let (mut send, recv) = (FramedSend::new(send), FramedRecv::new(recv));
        send.send_message(&request).await?;
        Ok((send, recv))
    }

    /// A blob of the agent's cache.
    pub(crate) async fn cached(&self, namespace: &Namespace, digest: Digest) -> Result<Option<Blob>, Cause> {
        let (store, namespace) = (self.store.clone(), namespace.clone());
        blocking(move || store.get(&namespace, &digest).map_err(|e| stored(&e.into()))).await
    }

    async fn connected(&self) -> Result<Connection, Trouble> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_ref().filter(|open| open.close_reason().is_none()) {
            return Ok(open.clone());
        }
        let dial = self.lock().clone();
        let made = dial.connection(Protocol::Bulk).await.map_err(|e| Trouble::Away(e.to_string()))?;
        *connection = Some(made.clone());
        Ok(made)
    }
}

enum Piece {
    Begin { digest: Digest, bytes: u64 },
    Bytes(Bytes),
}

async fn receive(recv: &mut FramedRecv, digests: &[Digest], pieces: mpsc::Sender<Piece>) -> Result<(), Trouble> {
    let stopped = |_| internal(&"the cache stopped writing");
    for digest in digests {
        let header = recv.recv_message::<BlobHeader>().await?.ok_or(LinkError::Short { missing: 1 })?;
        let BlobHeader::Found { bytes } = header else { return Err(missing(digest).into()) };
        pieces.send(Piece::Begin { digest: *digest, bytes }).await.map_err(stopped)?;
        let mut left = bytes;
        while left > 0 {
            let piece = recv.recv_raw(left).await?;
            left -= piece.len() as u64;
            pieces.send(Piece::Bytes(piece)).await.map_err(stopped)?;
        }
    }
    Ok(())
}

/// Writes what comes. Wrong bytes are refused by name; where it is cut short, what is whole is kept.
fn write(store: &Store, namespace: &Namespace, mut queue: mpsc::Receiver<Piece>) -> Result<(), Cause> {
    let mut intake = Intake::new(store, namespace);
    while let Some(piece) = queue.blocking_recv() {
        let taken = match piece {
            Piece::Begin { digest, bytes } => intake.begin(digest, bytes),
            Piece::Bytes(bytes) => intake.push(&bytes),
        };
        taken.map_err(|e| stored(&e))?;
    }
    intake.finish().map(drop).map_err(|e| stored(&e))
}

fn missing(digest: &Digest) -> Cause {
    Cause::new(CauseKind::SourceMissing, format!("{digest} of the source is not in the cache for this build"))
}

pub(crate) fn internal(error: &impl ToString) -> Cause {
    Cause::new(CauseKind::Internal, error.to_string())
}

/// What a cache's error means for a job.
pub(crate) fn stored(error: &windlass_cache::Error) -> Cause {
    let kind = match error {
        windlass_cache::Error::Fault(fault) if fault.is_full() => CauseKind::DiskFull,
        windlass_cache::Error::Rejected(_) | windlass_cache::Error::Fault(_) => CauseKind::Internal,
    };
    Cause::new(kind, error.to_string())
}

/// Runs blocking work away from the executor.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Cause> + Send + 'static,
) -> Result<T, Cause> {
    tokio::task::spawn_blocking(work).await.map_err(|e| internal(&e))?
}
