//! Blobs whose chunks came in part when a connection broke: they wait a while for their agent to come back, so that nothing comes
//! twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use windlass_cache::{Assembly, ChunkManifest};
use windlass_protocol::limits::{PARTS_REST_MS, PARTS_RESTING_MAX};
use windlass_protocol::{AttemptId, Namespace, Trust};

/// Whose upload it is, and who will see it.
pub(super) type Owner = (AttemptId, Namespace);

/// All of them; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Resting(Arc<Mutex<Blobs>>);

#[derive(Debug, Default)]
struct Blobs {
    /// Those that have waited longest first.
    all: Vec<Blob>,
    /// Somebody lets go of those that nobody comes back for: one, however often they come and go.
    tended: bool,
}

#[derive(Debug)]
struct Blob {
    owner: Owner,
    trust: Trust,
    assembly: Arc<Assembly>,
    since: Instant,
}

impl Resting {
    /// What came of this blob for this owner.
    pub(super) fn take(&self, owner: &Owner, manifest: &ChunkManifest) -> Option<Arc<Assembly>> {
        let mut blobs = lock(&self.0);
        let is_it = |blob: &Blob| blob.owner == *owner && blob.assembly.manifest() == manifest;
        let at = blobs.all.iter().position(is_it)?;
        Some(blobs.all.remove(at).assembly)
    }

    /// Keeps what came; of those of equal trust the one that has waited longest goes for it, where there are too many. It goes by
    /// itself.
    pub(super) fn put(&self, owner: Owner, trust: Trust, assembly: Arc<Assembly>) {
        let mut blobs = lock(&self.0);
        let is_alike = |blob: &Blob| blob.trust == trust;
        let oldest = blobs.all.iter().position(is_alike);
        let full = blobs.all.iter().filter(|blob| is_alike(blob)).count() >= PARTS_RESTING_MAX;
        let gone = oldest.filter(|_| full).map(|at| blobs.all.remove(at));
        blobs.all.push(Blob { owner, trust, assembly, since: Instant::now() });
        let tended = std::mem::replace(&mut blobs.tended, true);
        drop(blobs);
        let_go(gone.into_iter().collect());
        if !tended {
            tokio::spawn(tidy(Arc::downgrade(&self.0)));
        }
    }
}

/// Gives back what they hold: files are removed for it.
fn let_go(gone: Vec<Blob>) {
    if !gone.is_empty() {
        tokio::task::spawn_blocking(move || drop(gone));
    }
}

fn lock(blobs: &Mutex<Blobs>) -> MutexGuard<'_, Blobs> {
    blobs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of those that nobody came back for, until there are none.
async fn tidy(blobs: Weak<Mutex<Blobs>>) {
    let rest = Duration::from_millis(PARTS_REST_MS);
    loop {
        tokio::time::sleep(rest / 4).await;
        let Some(blobs) = blobs.upgrade() else { return };
        let mut blobs = lock(&blobs);
        let gone = blobs.all.extract_if(.., |blob| blob.since.elapsed() >= rest).collect();
        blobs.tended = !blobs.all.is_empty();
        let done = !blobs.tended;
        drop(blobs);
        let_go(gone);
        if done {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use windlass_cache::vfs::recorded::RecordingFs;
    use windlass_cache::{Store, StoreOptions};
    use windlass_protocol::{Digest, Shelf};

    use super::*;

    const REST: Duration = Duration::from_millis(PARTS_REST_MS);

    /// A store into which parts come, and one that has the blobs whole.
    struct Bench {
        here: Store,
        origin: Store,
        resting: Resting,
    }

    impl Bench {
        fn new() -> Self {
            let store = || {
                let options = StoreOptions { chunk_bytes: 16 << 10, ..StoreOptions::default() };
                Store::open(Arc::new(RecordingFs::new()), Path::new("/s"), options).unwrap()
            };
            Self { here: store(), origin: store(), resting: Resting::default() }
        }

        /// The manifest of the blob of this number.
        fn manifest(&self, number: u8) -> ChunkManifest {
            let bytes: Vec<u8> = (0..3_000_u16)
                .flat_map(|nth| *Digest::of(&[&[number][..], &nth.to_le_bytes()].concat()).as_bytes())
                .collect();
            let namespace = Namespace::trusted("p");
            let digest = self.origin.put(&namespace, &bytes).unwrap();
            self.origin.get(&namespace, &digest).unwrap().unwrap().manifest().unwrap().clone()
        }

        /// What came of that blob, which rests from now on.
        fn put(&self, owner: &Owner, trust: Trust, number: u8) -> Weak<Assembly> {
            let assembly = Arc::new(self.here.assemble(self.manifest(number)).unwrap());
            let weak = Arc::downgrade(&assembly);
            self.resting.put(owner.clone(), trust, assembly);
            weak
        }

        fn take(&self, owner: &Owner, number: u8) -> Option<Arc<Assembly>> {
            self.resting.take(owner, &self.manifest(number))
        }
    }

    fn owner(attempt: u8, project: &str) -> Owner {
        (AttemptId::from_bytes([attempt; 16]), Namespace::trusted(project).on(Shelf::Artifacts))
    }

    #[tokio::test]
    async fn what_came_of_a_blob_is_for_its_attempt_its_namespace_and_that_blob_and_once() {
        let bench = Bench::new();
        let mine = owner(1, "p");
        let [first, second] = [1, 2].map(|number| bench.put(&mine, Trust::Trusted, number));
        let caches = (mine.0, Namespace::trusted("p").on(Shelf::Caches));
        for other in [owner(2, "p"), owner(1, "q"), caches] {
            assert!(bench.take(&other, 1).is_none(), "{other:?}");
        }
        assert!(bench.take(&mine, 3).is_none());
        let taken = bench.take(&mine, 2).unwrap();
        assert!(Arc::ptr_eq(&taken, &second.upgrade().unwrap()));
        assert!(bench.take(&mine, 2).is_none());
        assert!(Arc::ptr_eq(&bench.take(&mine, 1).unwrap(), &first.upgrade().unwrap()));
    }

    #[tokio::test]
    async fn where_there_are_too_many_the_one_that_waited_longest_goes_of_the_same_trust_alone() {
        let most = u8::try_from(PARTS_RESTING_MAX).unwrap();
        for (trust, other) in [(Trust::Trusted, Trust::Untrusted), (Trust::Untrusted, Trust::Trusted)] {
            let bench = Bench::new();
            let (others, own) = (owner(1, "p"), owner(2, "p"));
            for number in 0..most {
                bench.put(&others, other, number);
                bench.put(&own, trust, number);
            }
            // One comes back: there is room for another, which is the youngest now.
            assert!(bench.take(&own, 1).is_some());
            bench.put(&own, trust, most);
            bench.put(&own, trust, most + 1);
            bench.put(&own, trust, most + 2);
            let left: Vec<u8> = (0..most + 3).filter(|number| bench.take(&own, *number).is_some()).collect();
            let kept: Vec<u8> = (3..most + 3).collect();
            assert_eq!(left, kept, "{trust:?}");
            assert!((0..most).all(|number| bench.take(&others, number).is_some()), "{trust:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_comes_back_for_goes_by_itself_and_not_before_its_time() {
        let bench = Bench::new();
        let first = bench.put(&owner(1, "p"), Trust::Trusted, 1);
        tokio::time::sleep(REST / 2).await;
        let second = bench.put(&owner(1, "p"), Trust::Untrusted, 2);
        tokio::time::sleep(REST / 2 - Duration::from_secs(1)).await;
        assert!(first.upgrade().is_some());
        tokio::time::sleep(REST / 4 + Duration::from_secs(2)).await;
        assert!(first.upgrade().is_none());
        assert!(second.upgrade().is_some());
        tokio::time::sleep(REST / 2).await;
        assert!(second.upgrade().is_none());
        // Those that come after there were none go as well.
        let third = bench.put(&owner(1, "p"), Trust::Trusted, 3);
        tokio::time::sleep(REST + REST / 4 + Duration::from_secs(1)).await;
        assert!(third.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn however_often_one_comes_and_goes_there_is_one_who_lets_go_and_none_where_nothing_rests() {
        let bench = Bench::new();
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        for round in 0..5 {
            for number in 0..10 {
                bench.put(&owner(1, "p"), Trust::Trusted, number);
                assert!(bench.take(&owner(1, "p"), number).is_some());
            }
            bench.put(&owner(1, "p"), Trust::Trusted, 0);
            tokio::time::sleep(REST / 4 + Duration::from_millis(1)).await;
            assert_eq!(tasks(), 1, "after {round} rounds");
            assert!(bench.take(&owner(1, "p"), 0).is_some());
        }
        tokio::time::sleep(REST).await;
        assert_eq!(tasks(), 0);
    }
}
