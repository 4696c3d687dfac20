//! Blobs from the coordinator, into the agent's cache or past it, and what jobs keep there, on a connection of their own.
//!
//! A link that breaks is made again, for as long as somebody wants the blobs: a coordinator may be away for a while.
//!
//! | module | owns |
//! | --- | --- |
//! | `fetch`, `flights` | bringing blobs into the agent's cache |
//! | `gathering` | large ones, put together from chunks, whoever wants them |
//! | `from_peers` | what agents of the same zone give |
//! | `bearer` | by what right |
//! | `order` | what is brought ahead of jobs |
//! | `store` | what jobs keep |
//! | `parts` | large blobs of it, by the chunks that are missing |
//! | `pull` | reading one blob from end to end |
//! | `tries` | trying either again, and how it may end |

mod bearer;
mod fetch;
mod flights;
mod from_peers;
mod gathering;
#[cfg(test)]
pub(crate) mod kit;
mod order;
mod parts;
mod pull;
mod store;
#[cfg(test)]
mod tests;
mod tries;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::Connection;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use windlass_cache::{Blob, Directory, Node, Pins, Store};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::{FETCH_ROUNDS_MAX, PARTS_CUTS_MAX};
use windlass_protocol::link::{FramedRecv, FramedSend, LinkError, Protocol};
use windlass_protocol::message::{BulkAsk, FetchBlobs, SignedGrant, Wanted};
use windlass_protocol::{Cause, Digest, Namespace};

use self::bearer::Bearer;
pub(crate) use self::fetch::Wish;
use self::flights::Flights;
pub(crate) use self::gathering::Gathering;
use self::gathering::Gatherings;
pub(crate) use self::order::Warrant;
pub(crate) use self::pull::Taking;
pub(crate) use self::store::{Broken, Feed, Offering};
pub(crate) use self::tries::NotCarried;
use crate::peer::Peers;
use crate::right::Right;
use crate::session::Dial;

/// Between two tries over a link that broke.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why a try to fetch failed.
#[derive(Debug)]
enum Trouble {
    /// Another try would not help.
    Cause(Cause),
    /// The coordinator was reached.
    Link(LinkError),
    /// It was reached, and does not answer as it should.
    Refused(String),
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

/// A grant, when it came, and by which key it was believed then.
type Held = (Arc<SignedGrant>, Instant, Option<[u8; 32]>);

/// Fetches over one connection at a time, made when it is needed.
#[derive(Debug)]
pub(crate) struct Bulk {
    dial: std::sync::Mutex<Dial>,
    /// The connection, and in which era it was made.
    connection: Mutex<Option<(u64, Connection)>>,
    era: AtomicU64,
    store: Store,
    gatherings: Arc<Gatherings>,
    flights: Arc<Flights>,
    peers: Arc<Peers>,
    /// What this agent may show its peers, by whose jobs it is for.
    grants: Mutex<HashMap<Namespace, Held>>,
    /// Whether the coordinator takes large blobs by their chunks.
    takes_parts: AtomicBool,
    /// Offers that are cut.
    cuts: Semaphore,
}

impl Bulk {
    pub(crate) fn new(dial: Dial, store: Store, peers: Arc<Peers>) -> Arc<Self> {
        let gatherings = Gatherings::new(store.clone());
        let (dial, connection, era) = (std::sync::Mutex::new(dial), Mutex::new(None), AtomicU64::default());
        let (flights, grants) = (Arc::default(), Mutex::default());
        let (takes_parts, cuts) = (AtomicBool::default(), Semaphore::new(PARTS_CUTS_MAX));
        Arc::new(Self { dial, connection, era, store, gatherings, flights, peers, grants, takes_parts, cuts })
    }

    /// The agents of the zone.
    pub(crate) fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Uses another certificate from the next connection on. Waits for nothing: a dial may be under way.
    pub(crate) fn redial(&self, dial: Dial) {
        *self.lock() = dial;
    }

    /// Asks for nothing more over a connection of before: where the agent had to connect anew, what that leads to may be gone,
    /// and nobody says so before something is asked. What is under way goes on.
    pub(crate) fn renew(&self) {
        self.era.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Dial> {
        self.dial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings a whole tree into the agent's cache: level by level, and of each only what is missing. It stays while the pins live.
    pub(crate) async fn fetch_tree(&self, job: &JobSpec, right: &Right, root: Digest) -> Result<Vec<Pins>, Cause> {
        let mut held = Vec::new();
        let mut level = BTreeSet::from([root]);
        let mut files = BTreeSet::new();
        let mut seen = BTreeSet::new();
        while !level.is_empty() {
            let wanted: Vec<_> = level.iter().copied().collect();
            self.fetch_held((job, right), wanted.clone(), &mut held).await?;
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
        self.fetch_held((job, right), files.into_iter().collect(), &mut held).await?;
        Ok(held)
    }

    /// Brings blobs and keeps them; those that went while the others came are brought again.
    async fn fetch_held(
        &self,
        (job, right): (&JobSpec, &Right),
        mut digests: Vec<Digest>,
        held: &mut Vec<Pins>,
    ) -> Result<(), Cause> {
        for _ in 0..FETCH_ROUNDS_MAX {
            self.fetch(job, right, &job.namespace, digests.clone()).await?;
            let (store, namespace) = (self.store.clone(), job.namespace.clone());
            let (pins, gone) = blocking(move || {
                let pins = store.pin(&digests);
                digests.retain(|digest| store.blob_len(&namespace, digest).is_none());
                Ok((pins, digests))
            })
            .await?;
            held.push(pins);
            if gone.is_empty() {
                return Ok(());
            }
            tracing::info!(attempt = %job.attempt, blobs = gone.len(), "source_went_while_it_came");
            digests = gone;
        }
        let what = "the source does not stay in the agent's cache: others fill its disk as fast as it comes";
        Err(Cause::new(CauseKind::DiskFull, what))
    }

    async fn directories(&self, namespace: &Namespace, digests: Vec<Digest>) -> Result<Vec<Directory>, Cause> {
        let (store, namespace) = (self.store.clone(), namespace.clone());
        blocking(move || {
            let mut directories = Vec::with_capacity(digests.len());
            for digest in digests {
                let blob =
                    store.get(&namespace, &digest).map_err(|e| Cause::new(CauseKind::Internal, e.to_string()))?;
                let bytes = blob.ok_or_else(|| fetch::missing(&digest))?.into_vec().map_err(|e| internal(&e))?;
                let bad = |e| Cause::new(CauseKind::SourceMissing, format!("{digest} is no directory: {e}"));
                directories.push(Directory::decode(&bytes).map_err(bad)?);
            }
            Ok(directories)
        })
        .await
    }

    /// Asks the coordinator for blobs.
    async fn ask(&self, bearer: Bearer<'_>, wanted: Wanted) -> Result<(FramedSend, FramedRecv), Trouble> {
        self.open(&BulkAsk::Fetch(FetchBlobs { by: bearer.claim(), wanted })).await
    }

    /// Opens a stream with a request.
    async fn open(&self, request: &BulkAsk) -> Result<(FramedSend, FramedRecv), Trouble> {
        let connection = self.connected().await?;
        let (send, recv) = connection.open_bi().await.map_err(LinkError::from)?;
        let (mut send, recv) = (FramedSend::new(send), FramedRecv::new(recv));
        send.send_message(request).await?;
        Ok((send, recv))
    }

    /// A blob of the agent's cache.
    pub(crate) async fn cached(&self, namespace: &Namespace, digest: Digest) -> Result<Option<Blob>, Cause> {
        let (store, namespace) = (self.store.clone(), namespace.clone());
        blocking(move || store.get(&namespace, &digest).map_err(|e| stored(&e.into()))).await
    }

    /// Those of the blobs that the agent's cache does not have for a build.
    pub(crate) async fn lacking(&self, base: &Namespace, mut digests: Vec<Digest>) -> Result<Vec<Digest>, Cause> {
        let (store, base) = (self.store.clone(), base.clone());
        blocking(move || {
            for sibling in fetch::siblings(&base) {
                digests.retain(|digest| store.blob_len(&sibling, digest).is_none());
            }
            Ok(digests)
        })
        .await
    }

    /// A blob of the agent's cache that a build may read, wherever it is kept.
    pub(crate) async fn visible(&self, base: &Namespace, digest: Digest) -> Result<Option<Blob>, Cause> {
        let (store, base) = (self.store.clone(), base.clone());
        blocking(move || {
            for sibling in fetch::siblings(&base) {
                if store.blob_len(&sibling, &digest).is_some()
                    && let Some(blob) = store.get(&sibling, &digest).map_err(|e| stored(&e.into()))?
                {
                    return Ok(Some(blob));
                }
            }
            Ok(None)
        })
        .await
    }

    /// All bytes of a blob of the agent's cache.
    pub(crate) async fn read(&self, blob: Blob) -> Result<Vec<u8>, Cause> {
        blocking(move || blob.into_vec().map_err(|e| stored(&e.into()))).await
    }

    /// One chunk of a blob of the agent's cache.
    pub(crate) async fn read_chunk(&self, blob: &Arc<Blob>, place: u32) -> Result<Option<Vec<u8>>, Cause> {
        let blob = Arc::clone(blob);
        blocking(move || blob.chunk(place as usize).map_err(|e| stored(&e.into()))).await
    }

    async fn connected(&self) -> Result<Connection, Trouble> {
        let mut connection = self.connection.lock().await;
        let era = self.era.load(Ordering::Relaxed);
        let open = connection.as_ref().filter(|(of, open)| *of == era && open.close_reason().is_none());
        if let Some((_, open)) = open {
            return Ok(open.clone());
        }
        let dial = self.lock().clone();
        let made = dial.connection(Protocol::Bulk).await.map_err(|e| Trouble::Away(e.to_string()))?;
        *connection = Some((era, made.clone()));
        Ok(made)
    }
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
