//! What jobs keep beside their sources: blobs on a namespace's shelves, each for as long as a row names it.
//!
//! A blob comes first, then the row that names it; a row goes first, then the blob. Between the two a blob is nobody's. So
//! that none goes that is about to be named, who names blobs looks at them and commits under the same lock that whoever
//! lets go has to itself; and only what was nobody's in two looks, and was not asked for between them, goes. A crash may leave
//! blobs that nobody names, which the next looks find.

mod named;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, RwLock, Semaphore, SemaphorePermit, watch};
use windlass_cache::manifest::{self, BadManifest};
use windlass_cache::{HeldBlob, Reservation, Store};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Actor, ActorKind, CacheName, CacheRequest};
use windlass_protocol::limits::{
    CACHE_LOOKS_MAX, EXPIRE_ROWS_MAX, SHELF_PIECE_BLOBS, SHELF_SWEEP_MS, STORE_HEADROOM_BYTES,
};
use windlass_protocol::{Digest, Namespace, Shelf};

use self::named::Named;
use crate::desk::{DeskError, DeskHandle};
use crate::views::Reader;

/// The shelves of all namespaces; clones share them.
#[derive(Debug, Clone)]
pub struct Shelves {
    store: Store,
    gate: Arc<RwLock<()>>,
    /// A permit for each manifest that is held in memory.
    manifests: Arc<Semaphore>,
    /// One permit: for what is counted in rows before it is added to them.
    turn: Arc<Semaphore>,
    tally: Arc<Tally>,
}

/// What has happened since the start.
#[derive(Debug, Default)]
struct Tally {
    kept: AtomicU64,
    kept_bytes: AtomicU64,
    released: AtomicU64,
}

/// The same, as it is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShelfCounts {
    /// Blobs that rows were made for.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Blobs that were let go.
    pub released: u64,
}

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// A blob that is to be named is not there, or not of that length.
    #[error("{0} is not stored for this build; send its bytes again")]
    Missing(Digest),
    /// A cache's manifest is none.
    #[error("{0} is no manifest of a cache: {1}")]
    NotAManifest(Digest, BadManifest),
    /// The blob store failed.
    #[error(transparent)]
    Store(#[from] windlass_cache::Error),
    /// The process ends.
    #[error("the coordinator is stopping")]
    Stopping,
}

/// Keeps what was looked at from going, until it is dropped: rows that name it are durable by then.
#[derive(Debug)]
#[must_use = "blobs may go once it is dropped"]
pub struct Kept {
    _gate: OwnedRwLockReadGuard<()>,
}

impl Shelves {
    /// The shelves of a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let manifests = Arc::new(Semaphore::new(CACHE_LOOKS_MAX));
        let turn = Arc::new(Semaphore::new(1));
        Self { store, gate: Arc::default(), manifests, turn, tally: Arc::default() }
    }

    /// What has happened since the start.
    #[must_use]
    pub fn counts(&self) -> ShelfCounts {
        let Tally { kept, kept_bytes, released } = &*self.tally;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ShelfCounts { kept: count(kept), kept_bytes: count(kept_bytes), released: count(released) }
    }

    /// Those of the blobs that have to be sent, by their places: each that is neither on the shelf nor, for the same readers,
    /// anywhere else (I12).
    #[must_use]
    pub fn wanted(&self, namespace: &Namespace, shelf: Shelf, blobs: &[(Digest, u64)]) -> Vec<u32> {
        let on = namespace.on(shelf);
        let (mut asked, mut promised) = (BTreeMap::new(), Vec::new());
        for (place, (digest, bytes)) in (0_u32..).zip(blobs) {
            let there = |namespace: &Namespace| self.store.blob_len(namespace, digest) == Some(*bytes);
            if there(&on) || there(namespace) {
                // Whoever need not send it counts on it until its row is there.
                promised.push(*digest);
            } else {
                asked.entry(*digest).or_insert(place);
            }
        }
        self.store.promise(&promised);
        let mut wanted: Vec<u32> = asked.into_values().collect();
        wanted.sort_unstable();
        wanted
    }

    /// Keeps room for so many bytes beside what running builds need.
    ///
    /// # Errors
    /// [`ShelfError::Store`] with [`windlass_cache::Fault::NoSpace`].
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, ShelfError> {
        let store = self.store.clone();
        let reserving = tokio::task::spawn_blocking(move || store.reserve(bytes, STORE_HEADROOM_BYTES));
        Ok(reserving.await.map_err(|_| ShelfError::Stopping)?.map_err(windlass_cache::Error::from)?)
    }

    /// Waits until nobody else adds to what is counted in rows.
    ///
    /// # Errors
    /// [`ShelfError::Stopping`].
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, ShelfError> {
        self.turn.acquire().await.map_err(|_| ShelfError::Stopping)
    }

    /// Looks at blobs that a row is about to name, and keeps them until the row is durable.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub async fn keep(
        &self,
        namespace: &Namespace,
        shelf: Shelf,
        blobs: Vec<(Digest, u64)>,
    ) -> Result<Kept, ShelfError> {
        let gate = Arc::clone(&self.gate).read_owned().await;
        let (shelves, namespace) = (self.clone(), namespace.clone());
        let looked = tokio::task::spawn_blocking(move || shelves.look(&namespace, shelf, &blobs));
        looked.await.map_err(|_| ShelfError::Stopping)??;
        Ok(Kept { _gate: gate })
    }

    /// As [`Self::keep`], for a cache: its manifest, and all that it names. Also how many files that are, and their bytes.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub async fn keep_cache(
        &self,
        namespace: &Namespace,
        (digest, bytes): (Digest, u64),
    ) -> Result<(Kept, u64, u64), ShelfError> {
        // Nobody closes it.
        let _room = self.manifests.acquire().await.map_err(|_| ShelfError::Stopping)?;
        let (store, on) = (self.store.clone(), namespace.on(Shelf::Caches));
        let reading = tokio::task::spawn_blocking(move || {
            let blob = store.get(&on, &digest).map_err(windlass_cache::Error::from)?;
            let blob = blob.filter(|blob| blob.len() == bytes).ok_or(ShelfError::Missing(digest))?;
            let text = blob.into_vec().map_err(windlass_cache::Error::from)?;
            manifest::blobs(&text).map_err(|bad| ShelfError::NotAManifest(digest, bad))
        });
        let mut blobs = reading.await.map_err(|_| ShelfError::Stopping)??;
        let (files, sum) = (blobs.len() as u64, blobs.iter().map(|(_, bytes)| bytes).sum());
        blobs.push((digest, bytes));
        blobs.sort_unstable();
        blobs.dedup();
        Ok((self.keep(namespace, Shelf::Caches, blobs).await?, files, sum))
    }

    fn look(&self, namespace: &Namespace, shelf: Shelf, blobs: &[(Digest, u64)]) -> Result<(), ShelfError> {
        let on = namespace.on(shelf);
        let mut elsewhere = Vec::new();
        for (digest, bytes) in blobs {
            let at = |namespace: &Namespace| self.store.blob_len(namespace, digest) == Some(*bytes);
            match (at(&on), at(namespace)) {
                (true, _) => {}
                (false, true) => elsewhere.push(*digest),
                (false, false) => return Err(ShelfError::Missing(*digest)),
            }
        }
        // What the readers see as a source may go with it some day.
        match self.store.grant(&on, &elsewhere)?.first() {
            Some(gone) => Err(ShelfError::Missing(*gone)),
            None => Ok(()),
        }
    }

    /// Rows name so much more.
    pub(crate) fn count_kept(&self, blobs: u64, bytes: u64) {
        self.tally.kept.fetch_add(blobs, Ordering::Relaxed);
        self.tally.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Lets go of what is nobody's, again and again, until `stop` turns true.
    pub(crate) async fn tidy(self, (reader, desk): (Reader, DeskHandle), mut stop: watch::Receiver<bool>) {
        let mut nobodys = Vec::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(SHELF_SWEEP_MS)) => {}
                () = crate::http::stopped(&mut stop) => return,
            }
            nobodys = self.sweep((&reader, &desk), nobodys).await;
        }
    }

    /// One look. `before` is what the last one found to be nobody's: what of it still is, unused since, goes. Answers what is
    /// nobody's now and stays.
    pub(crate) async fn sweep(&self, (reader, desk): (&Reader, &DeskHandle), before: Vec<HeldBlob>) -> Vec<HeldBlob> {
        let store = self.store.clone();
        let held = tokio::task::spawn_blocking(move || store.held(|namespace| namespace.shelf().is_some())).await;
        let Ok(held) = held else { return Vec::new() };
        let before: BTreeSet<_> = before.into_iter().collect();
        let (mut stay, mut released, mut named) = (Vec::new(), 0, Named::default());
        // Most of them are read while others may name blobs; what comes meanwhile is read with the lock.
        if let Err(error) = named.read_new(&self.store, reader).await {
            tracing::warn!(error, "shelf_sweep_put_off");
            return stay;
        }
        if let Err(error) = drop_damaged(desk, named.damaged()).await {
            tracing::warn!(%error, "damaged_caches_not_dropped");
        }
        for piece in held.chunks(SHELF_PIECE_BLOBS) {
            match self.sweep_piece(reader, piece, (&before, &mut stay), &mut named).await {
                Ok(gone) => released += gone,
                Err(error) => {
                    tracing::warn!(%error, "shelf_sweep_put_off");
                    break;
                }
            }
        }
        if released > 0 {
            tracing::info!(blobs = released, "shelf_blobs_released");
        }
        stay
    }

    async fn sweep_piece(
        &self,
        reader: &Reader,
        piece: &[HeldBlob],
        (before, stay): (&BTreeSet<HeldBlob>, &mut Vec<HeldBlob>),
        named: &mut Named,
    ) -> Result<usize, String> {
        // Whoever is about to name a blob is done, or has not looked yet.
        let _alone = self.gate.write().await;
        let naming = reader.naming(piece.iter().map(|held| held.digest).collect()).await;
        let naming = naming.map_err(|error| error.to_string())?;
        named.read_new(&self.store, reader).await?;
        let mut going = Vec::new();
        for (held, naming) in piece.iter().zip(naming) {
            if naming.iter().any(|owner| needs(owner, &held.namespace)) || named.needs(held) {
                continue;
            }
            if before.contains(held) { going.push(held.clone()) } else { stay.push(held.clone()) }
        }
        if going.is_empty() {
            return Ok(0);
        }
        let store = self.store.clone();
        let gone = tokio::task::spawn_blocking(move || store.release(&going)).await;
        let gone = gone.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.tally.released.fetch_add(gone as u64, Ordering::Relaxed);
        Ok(gone)
    }
}

/// Has the core let go of caches whose manifests cannot be read, so that others can be saved under their keys.
async fn drop_damaged(desk: &DeskHandle, damaged: Vec<(CacheName, Digest)>) -> Result<(), DeskError> {
    for piece in damaged.chunks(EXPIRE_ROWS_MAX) {
        let request = Request::Cache(Box::new(CacheRequest::Drop { damaged: piece.to_vec() }));
        let actor = Actor { kind: ActorKind::System, name: "retention".to_owned() };
        desk.request(actor, request).await?;
    }
    Ok(())
}

/// Whether a row of this owner is served from that shelf: its own, or the trusted one that an overlay reads too.
fn needs(owner: &Namespace, on: &Namespace) -> bool {
    match on.shelf() {
        Some((of, _)) => owner.reads(&of),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trusted_is_needed_by_every_overlay_and_an_overlay_s_by_itself_alone() {
        let (trusted, one, two) = (Namespace::trusted("p"), Namespace::overlay("p", "1"), Namespace::overlay("p", "2"));
        let on = |namespace: &Namespace| namespace.on(Shelf::Artifacts);
        for (owner, shelf, needed) in [
            (&trusted, on(&trusted), true),
            (&one, on(&trusted), true),
            (&one, on(&one), true),
            (&two, on(&one), false),
            (&trusted, on(&one), false),
            (&Namespace::trusted("q"), on(&trusted), false),
            (&two, trusted.clone(), true),
        ] {
            assert_eq!(needs(owner, &shelf), needed, "{owner} of {shelf}");
        }
    }
}
