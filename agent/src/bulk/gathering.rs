//! Large blobs that are being put together here, whoever wants them: each chunk is fetched once, however many wait for it.
//!
//! A gathering outlives the try, and for a while the job, that began it: what has come need not come again.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OnceCell};
use tokio::task::JoinError;
use tokio::time::Instant;
use windlass_cache::{Assembly, ChunkManifest, Error, Fault, Store};
use windlass_protocol::limits::{GATHERING_REST_MS, GATHERINGS_MAX};
use windlass_protocol::{Cause, Digest, Namespace};

use super::{blocking, stored};

/// One large blob.
#[derive(Debug)]
pub(crate) struct Gathering {
    assembly: Assembly,
    coming: Mutex<BTreeSet<u32>>,
    changed: Notify,
}

/// Chunks that nobody else fetches for as long as this lives.
#[derive(Debug)]
pub(crate) struct Claimed {
    gathering: Arc<Gathering>,
    places: BTreeSet<u32>,
}

impl Gathering {
    /// Which chunks the blob is made of.
    pub(crate) const fn manifest(&self) -> &ChunkManifest {
        self.assembly.manifest()
    }

    /// The chunks that have not come.
    pub(crate) fn missing(&self) -> Vec<u32> {
        self.assembly.missing()
    }

    /// Those of the chunks that have not come and that nobody fetches; from now on the caller does.
    pub(crate) fn claim(self: &Arc<Self>, places: &[u32]) -> Claimed {
        let mut coming = self.lock();
        let free = places.iter().copied().filter(|place| !self.assembly.has(*place) && coming.insert(*place));
        let places = free.collect();
        drop(coming);
        Claimed { gathering: Arc::clone(self), places }
    }

    /// Takes a chunk.
    pub(crate) async fn put(self: &Arc<Self>, place: u32, bytes: Bytes) -> Result<(), Error> {
        let this = Arc::clone(self);
        heard(tokio::task::spawn_blocking(move || this.note(this.assembly.put(place, &bytes))).await)
    }

    /// Takes a chunk as it is stored elsewhere.
    pub(crate) async fn put_packed(self: &Arc<Self>, place: u32, frame: Bytes) -> Result<(), Error> {
        let this = Arc::clone(self);
        heard(tokio::task::spawn_blocking(move || this.note(this.assembly.put_packed(place, &frame))).await)
    }

    /// Tells who waits; whoever brought the chunk may have gone away meanwhile.
    fn note(&self, put: Result<(), Error>) -> Result<(), Error> {
        self.changed.notify_waiters();
        put
    }

    /// The bytes of a chunk, if it has come.
    pub(crate) async fn chunk(self: &Arc<Self>, place: u32) -> Result<Option<Vec<u8>>, Cause> {
        let this = Arc::clone(self);
        blocking(move || this.assembly.chunk(place).map_err(|e| stored(&e.into()))).await
    }

    /// The bytes of the chunks from this place on, as far as they have come and are right, in their order: as many as have `most`
    /// bytes together.
    pub(crate) async fn chunks_from(self: &Arc<Self>, first: u32, most: usize) -> Result<Vec<Bytes>, Cause> {
        let this = Arc::clone(self);
        blocking(move || {
            let (mut chunks, mut bytes) = (Vec::new(), 0);
            for place in first.. {
                if bytes >= most {
                    break;
                }
                let Some(chunk) = this.assembly.chunk(place).map_err(|e| stored(&e.into()))? else { break };
                bytes += chunk.len();
                chunks.push(chunk.into());
            }
            Ok(chunks)
        })
        .await
    }

    /// Waits until a chunk has come.
    pub(crate) async fn arrived(&self, place: u32) {
        self.until(|| self.assembly.has(place)).await;
    }

    /// Waits until a chunk has come, or nobody fetches it any more.
    pub(crate) async fn settled(&self, place: u32) {
        self.until(|| self.assembly.has(place) || !self.lock().contains(&place)).await;
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on nothing is missed.
            changed.as_mut().enable();
            if holds() {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claimed {
    /// Which they are, in order.
    pub(crate) fn places(&self) -> Vec<u32> {
        self.places.iter().copied().collect()
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut coming = self.gathering.lock();
        for place in &self.places {
            coming.remove(place);
        }
        drop(coming);
        self.gathering.changed.notify_waiters();
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Gatherings {
    store: Store,
    open: Mutex<HashMap<Digest, Slot>>,
}

#[derive(Debug)]
struct Slot {
    cell: Arc<OnceCell<Arc<Gathering>>>,
    used: Instant,
    /// Whose right to the blob the coordinator has confirmed.
    proven: BTreeSet<Namespace>,
}

/// What a thread has done.
fn heard(put: Result<Result<(), Error>, JoinError>) -> Result<(), Error> {
    put.unwrap_or_else(|error| Err(Fault::Io { doing: "write", path: PathBuf::new(), source: error.into() }.into()))
}

impl Gatherings {
    /// None yet; those that nobody asks for end by themselves.
    pub(crate) fn new(store: Store) -> Arc<Self> {
        let gatherings = Arc::new(Self { store, open: Mutex::default() });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(rest(Arc::downgrade(&gatherings)));
        }
        gatherings
    }

    /// The gathering of a blob of which the coordinator told `namespace` the manifest; begun where there is none. `None` where
    /// there are too many.
    pub(crate) async fn begin(
        &self,
        namespace: &Namespace,
        manifest: ChunkManifest,
    ) -> Result<Option<Arc<Gathering>>, Cause> {
        let Some(cell) = self.slot(namespace, manifest.digest()) else { return Ok(None) };
        let (store, digest) = (self.store.clone(), manifest.digest());
        let begun = cell.get_or_try_init(|| async {
            let assembly = blocking(move || store.assemble(manifest).map_err(|e| stored(&e.into()))).await?;
            Ok(Arc::new(Gathering { assembly, coming: Mutex::default(), changed: Notify::new() }))
        });
        match begun.await {
            Ok(gathering) => Ok(Some(Arc::clone(gathering))),
            Err(cause) => {
                self.end(digest);
                Err(cause)
            }
        }
    }

    fn slot(&self, namespace: &Namespace, digest: Digest) -> Option<Arc<OnceCell<Arc<Gathering>>>> {
        let mut open = self.lock();
        if open.len() >= GATHERINGS_MAX && !open.contains_key(&digest) {
            // The one that has rested longest, of those that nobody works on.
            let idle = open.iter().filter(|(_, slot)| slot.idle()).min_by_key(|(_, slot)| slot.used);
            let digest = idle.map(|(digest, _)| *digest)?;
            open.remove(&digest);
        }
        let fresh = || Slot { cell: Arc::default(), used: Instant::now(), proven: BTreeSet::new() };
        let slot = open.entry(digest).or_insert_with(fresh);
        slot.used = Instant::now();
        slot.proven.insert(namespace.clone());
        Some(Arc::clone(&slot.cell))
    }

    /// The gathering of a blob that `namespace` may read, as far as the coordinator has confirmed that here.
    pub(crate) fn of(&self, namespace: &Namespace, digest: &Digest) -> Option<Arc<Gathering>> {
        let mut open = self.lock();
        let slot = open.get_mut(digest).filter(|slot| slot.proven.contains(namespace))?;
        slot.used = Instant::now();
        slot.cell.get().cloned()
    }

    /// Stores a blob that has come, for a namespace, and ends its gathering.
    pub(crate) async fn finish(&self, namespace: &Namespace, gathering: &Arc<Gathering>) -> Result<(), Cause> {
        let (this, namespace, store) = (Arc::clone(gathering), namespace.clone(), self.store.clone());
        let digest = gathering.manifest().digest();
        let finished = blocking(move || {
            // Another job of the same namespace may have had the same wish.
            if store.contains(&namespace, &digest) {
                return Ok(());
            }
            match this.assembly.finish(&namespace) {
                // Stored already for another namespace, whose job came first: all of it is there.
                Err(Error::Fault(Fault::Damaged { .. })) => {
                    let again = store.assemble(this.manifest().clone()).map_err(|e| stored(&e.into()))?;
                    again.finish(&namespace).map(drop).map_err(|e| stored(&e))
                }
                other => other.map(drop).map_err(|e| stored(&e)),
            }
        });
        let finished = finished.await;
        self.end(digest);
        finished
    }

    /// Ends a gathering: what has come is given up with its last user, unless it was stored.
    pub(crate) fn end(&self, digest: Digest) {
        self.lock().remove(&digest);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Whether nobody works on it.
    fn idle(&self) -> bool {
        self.cell.get().is_some_and(|gathering| Arc::strong_count(gathering) == 1)
    }
}

/// Ends what nobody has asked for in a while.
async fn rest(gatherings: Weak<Gatherings>) {
    let rest = Duration::from_millis(GATHERING_REST_MS);
    loop {
        tokio::time::sleep(rest / 4).await;
        let Some(gatherings) = gatherings.upgrade() else { return };
        gatherings.lock().retain(|_, slot| !slot.idle() || slot.used.elapsed() < rest);
    }
}
