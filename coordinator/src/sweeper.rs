//! Lets go by policy of what nothing live needs: every hour, and when an admin asks; one sweep at a time, in small pieces.
//!
//! What stands on a shelf is not touched: rows say of it what stays (`shelf`). Of the rest everything is marked first that builds
//! need which are not over or pinned, and what tells of results that are there; the mark is a use, so a build that is made
//! meanwhile needs none: its client was just told that its blobs are there. If anything cannot be read that may name something,
//! nothing goes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use windlass_cache::{Roots, Store, Sweep, SweepCounts, Swept, WhyGone};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::roots::{Root, roots_of_pinned};
use windlass_coordinator_core::row::{Actor, ActorKind, BuildRows, PinRequest};
use windlass_protocol::host::now;
use windlass_protocol::limits::{
    COMPACT_TICK_BYTES, EPOCH_MS, PAGE_MAX_ITEMS, REUSE_RECIPE_MAX_BYTES, SWEEP_EVERY_MS, SWEEP_PAUSE_MS,
    SWEEP_TOLD_MAX,
};
use windlass_protocol::{BuildId, Digest, Namespace, WallMs};

use crate::config::{CachePolicies, OverlayFull};
use crate::desk::DeskHandle;
use crate::keying::recipe::{Recipe, SYSTEM};
use crate::views::{ReadError, Reader};

/// Sweeps a store; clones share the sweep that is under way.
#[derive(Debug, Clone)]
pub struct Sweeper {
    store: Store,
    desk: DeskHandle,
    reader: Reader,
    policies: CachePolicies,
    shown: Arc<Mutex<Collection>>,
    /// One permit: whoever sweeps has it.
    turn: Arc<Semaphore>,
    stopping: Arc<AtomicBool>,
    totals: Arc<Totals>,
}

/// What went since the start.
#[derive(Debug, Default)]
struct Totals {
    size_blobs: AtomicU64,
    size_bytes: AtomicU64,
    age_blobs: AtomicU64,
    age_bytes: AtomicU64,
}

/// The last sweep that somebody asked for, or the one that is under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collection {
    pub(crate) started_at: Option<WallMs>,
    pub(crate) dry: bool,
    pub(crate) counts: SweepCounts,
    /// Blobs that live builds and results need, each as often as they name it.
    pub(crate) needed: u64,
    pub(crate) disk_bytes_before: u64,
    /// How it came out; none while it runs.
    pub(crate) ended: Option<Outcome>,
}

/// How a sweep came out.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) at: WallMs,
    pub(crate) disk_bytes_after: u64,
    pub(crate) outcome: Result<(), String>,
}

impl Collection {
    pub(crate) const fn is_running(&self) -> bool {
        self.started_at.is_some() && self.ended.is_none()
    }

    /// What went of each namespace, those that lost most first; and whether there are more than are told.
    pub(crate) fn told(&self) -> (Vec<(&Namespace, WhyGone, Swept)>, bool) {
        let mut told: Vec<_> = self.counts.swept.iter().map(|((of, why), swept)| (of, *why, *swept)).collect();
        told.sort_by_key(|(of, why, swept)| (std::cmp::Reverse(swept.bytes), *of, *why));
        let cut = told.len() > SWEEP_TOLD_MAX;
        told.truncate(SWEEP_TOLD_MAX);
        (told, cut)
    }
}

impl Sweeper {
    /// Of this store, by these policies.
    #[must_use]
    pub fn new(store: Store, desk: DeskHandle, reader: Reader, policies: CachePolicies) -> Self {
        let turn = Arc::new(Semaphore::new(1));
        let (shown, stopping, totals) = (Arc::default(), Arc::default(), Arc::default());
        Self { store, desk, reader, policies, shown, turn, stopping, totals }
    }

    /// Refuses what a namespace has no room for.
    pub(crate) fn check_room(&self, namespace: &Namespace, bytes: u64) -> Result<(), OverlayFull> {
        self.policies.check_room(&self.store, namespace, bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Collection> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last sweep that somebody asked for, or the one that is under way.
    pub(crate) fn collection(&self) -> Collection {
        self.lock().clone()
    }

    /// What went since the start by cause: blobs of namespaces, and their bytes.
    pub(crate) fn totals(&self) -> BTreeMap<WhyGone, (u64, u64)> {
        let of = |blobs: &AtomicU64, bytes: &AtomicU64| (blobs.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
        let Totals { size_blobs, size_bytes, age_blobs, age_bytes } = &*self.totals;
        BTreeMap::from([(WhyGone::Size, of(size_blobs, size_bytes)), (WhyGone::Age, of(age_blobs, age_bytes))])
    }

    /// Begins a sweep and then gives the disk back what is free, unless one that was asked for is under way.
    pub(crate) fn start(&self, dry: bool) -> Collection {
        let mut shown = self.lock();
        if shown.is_running() {
            return shown.clone();
        }
        let disk_bytes_before = self.store.stats().disk_bytes;
        *shown = Collection { started_at: Some(now().wall), dry, disk_bytes_before, ..Collection::default() };
        let sweeper = self.clone();
        tokio::spawn(async move {
            let mut outcome = sweeper.sweep(dry, true).await;
            if outcome.is_ok() && !dry {
                outcome = sweeper.compact().await;
            }
            let disk_bytes_after = sweeper.store.stats().disk_bytes;
            sweeper.lock().ended = Some(Outcome { at: now().wall, disk_bytes_after, outcome });
        });
        shown.clone()
    }

    /// Sweeps every hour until `stop` turns true.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            let due = tokio::time::sleep(Duration::from_millis(SWEEP_EVERY_MS));
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    // So that it is known when things were used although nothing is written.
                    () = tokio::time::sleep(Duration::from_millis(EPOCH_MS * 12)) => self.store.note_epoch(),
                    () = crate::http::stopped(&mut stop) => {
                        self.stopping.store(true, Ordering::Relaxed);
                        return;
                    }
                }
            }
            let stopping = crate::http::stopped(&mut stop);
            tokio::select! {
                swept = self.sweep(false, false) => {
                    if let Err(error) = swept {
                        tracing::warn!(error, "cache_sweep_put_off");
                    }
                }
                () = stopping => {
                    self.stopping.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// One sweep. What it does is shown where somebody asked for it.
    pub(crate) async fn sweep(&self, dry: bool, shown: bool) -> Result<(), String> {
        let _turn = self.turn.acquire().await.map_err(|error| error.to_string())?;
        let policies = self.policies;
        let mut sweep = self.store.begin_sweep(now().wall, dry, |namespace| policies.policy(namespace));
        let mut roots = Marking { store: self.store.clone(), roots: Roots::default() };
        if sweep.is_over() {
            self.show(shown, &sweep, 0);
            return Ok(());
        }
        roots = self.mark(roots, dry).await?;
        let needed = roots.roots.marked();
        self.show(shown, &sweep, needed);
        let sweeper = self.clone();
        let swept = tokio::task::spawn_blocking(move || {
            let outcome = sweeper.go(&mut sweep, shown, needed);
            sweeper.count(&sweep);
            outcome
        });
        swept.await.map_err(|error| error.to_string())?
    }

    fn go(&self, sweep: &mut Sweep, shown: bool, needed: u64) -> Result<(), String> {
        loop {
            let more = self.store.sweep(sweep).map_err(|error| error.to_string())?;
            self.show(shown, sweep, needed);
            if !more {
                return Ok(());
            }
            if self.stopping.load(Ordering::Relaxed) {
                return Err("the coordinator is stopping".to_owned());
            }
            std::thread::sleep(Duration::from_millis(SWEEP_PAUSE_MS));
        }
    }

    fn show(&self, shown: bool, sweep: &Sweep, needed: u64) {
        if shown {
            let mut collection = self.lock();
            collection.counts = sweep.counts().clone();
            collection.needed = needed;
        }
    }

    fn count(&self, sweep: &Sweep) {
        if sweep.is_dry() {
            return;
        }
        for ((namespace, why), swept) in &sweep.counts().swept {
            let (blobs, bytes) = match why {
                WhyGone::Size => (&self.totals.size_blobs, &self.totals.size_bytes),
                WhyGone::Age => (&self.totals.age_blobs, &self.totals.age_bytes),
            };
            blobs.fetch_add(swept.blobs, Ordering::Relaxed);
            bytes.fetch_add(swept.bytes, Ordering::Relaxed);
            tracing::info!(%namespace, why = why.name(), blobs = swept.blobs, bytes = swept.bytes, "cache_evicted");
        }
    }

    /// Marks what must stay.
    async fn mark(&self, marking: Marking, dry: bool) -> Result<Marking, String> {
        let marking = self.mark_builds(marking).await?;
        let marking = self.mark_results(marking).await?;
        self.mark_pinned(marking, dry).await
    }

    /// Marks what builds need that are not over.
    async fn mark_builds(&self, mut marking: Marking) -> Result<Marking, String> {
        let mut after = None;
        loop {
            let looked = self.desk.look(move |core| core.roots_of_builds(after)).await;
            let (page, next) = looked.map_err(|error| error.to_string())?;
            marking = marking.mark(page).await?;
            match next {
                Some(_) => after = next,
                None => return Ok(marking),
            }
        }
    }

    /// Marks what tells of results that are there.
    async fn mark_results(&self, mut marking: Marking) -> Result<Marking, String> {
        let mut after = None;
        loop {
            let looked = self.desk.look(move |core| core.roots_of_results(after.as_ref())).await;
            let (page, next) = looked.map_err(|error| error.to_string())?;
            marking = marking.mark(page).await?;
            match next {
                Some(_) => after = next,
                None => return Ok(marking),
            }
        }
    }

    /// Marks what pinned builds need. One that is pinned meanwhile was promised first ([`Sweeper::spare`]). A pin whose build is no
    /// more, which only damage leaves behind, is undone.
    async fn mark_pinned(&self, mut marking: Marking, dry: bool) -> Result<Marking, String> {
        let unread = |error: ReadError| error.to_string();
        let mut after = None;
        loop {
            let page = self.reader.pins(None, after, PAGE_MAX_ITEMS).await.map_err(unread)?;
            for pin in page.items {
                // One at a time: a build has up to ten thousand jobs.
                match self.reader.stored_build(pin.row.build).await.map_err(unread)? {
                    Some(rows) => marking = marking.mark(roots_of_pinned(&rows)).await?,
                    None if dry => {}
                    None => self.undo(pin.row.build).await?,
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(marking),
            }
        }
    }

    async fn undo(&self, build: BuildId) -> Result<(), String> {
        tracing::warn!(%build, "pin_without_build");
        let actor = Actor { kind: ActorKind::System, name: "retention".to_owned() };
        let undone = self.desk.request(actor, Request::Pin(PinRequest::Unpin { build })).await;
        undone.map(drop).map_err(|error| error.to_string())
    }

    /// Lets what a build names stay for a while, as far as its namespace sees it: until it is pinned, from when on every sweep
    /// finds it. How many blobs it names that are not here any more, each as often as it names them.
    ///
    /// # Errors
    /// In words, where the disk fails.
    pub(crate) async fn spare(&self, rows: &BuildRows) -> Result<u64, String> {
        let marking = Marking { store: self.store.clone(), roots: Roots::seen_by(&rows.build.namespace) };
        let marked = marking.mark(roots_of_pinned(rows)).await?;
        Ok(marked.roots.absent())
    }

    /// Gives the disk back what counts no more.
    async fn compact(&self) -> Result<(), String> {
        let sweeper = self.clone();
        let compacting = tokio::task::spawn_blocking(move || {
            loop {
                let compacted = sweeper.store.compact(COMPACT_TICK_BYTES).map_err(|error| error.to_string())?;
                if !compacted.more || sweeper.stopping.load(Ordering::Relaxed) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(SWEEP_PAUSE_MS));
            }
        });
        compacting.await.map_err(|error| error.to_string())?
    }
}

/// What was marked so far.
struct Marking {
    store: Store,
    roots: Roots,
}

impl Marking {
    async fn mark(mut self, page: Vec<Root>) -> Result<Self, String> {
        let marked = tokio::task::spawn_blocking(move || {
            for root in page {
                match root {
                    Root::Tree(digest) => self.roots.tree(&self.store, &digest, false),
                    Root::Inputs(digest) => self.roots.tree(&self.store, &digest, true),
                    Root::Recipe(digest) => self.recipe(&digest),
                }
                .map_err(|error| error.to_string())?;
            }
            Ok(self)
        });
        marked.await.map_err(|error| error.to_string())?
    }

    /// A recipe, and the text that it names.
    fn recipe(&mut self, digest: &Digest) -> Result<(), windlass_cache::RootsError> {
        self.roots.blob(&self.store, digest);
        let text = self.store.peek(digest, REUSE_RECIPE_MAX_BYTES as u64)?;
        let recipe = text
            .map(|text| Recipe::decode(&text))
            .and_then(|decoded| decoded.map_err(|error| tracing::warn!(%digest, %error, "recipe_senseless")).ok());
        if let Some(Ok(system)) = recipe.as_ref().and_then(|recipe| recipe.get(SYSTEM)).map(Digest::from_hex) {
            self.roots.blob(&self.store, &system);
        }
        Ok(())
    }
}
