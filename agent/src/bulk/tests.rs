//! Fetching from a coordinator that a test plays.

use std::sync::Arc;

use windlass_protocol::job::{Epoch, JobSpec};
use windlass_protocol::limits::FETCH_CHUNKS;
use windlass_protocol::{Digest, Namespace};

use super::Bulk;
use super::kit::{Origin, memory, noise};
use crate::link_kit::{Link, in_time, job};
use crate::right::Right;

struct World {
    origin: Origin,
    bulk: Arc<Bulk>,
    job: JobSpec,
    right: Right,
    _link: Link,
}

impl World {
    fn new() -> Self {
        let mut link = Link::new();
        let job = job();
        let origin = Origin::new(&job.namespace);
        let bulk = Bulk::new(link.bulk.clone(), memory(), link.peers());
        link.hand_over(&origin);
        Self { origin, bulk, job, right: Right::new(Epoch(1), true), _link: link }
    }

    async fn fetch(&self, digests: &[Digest]) {
        let namespace = &self.job.namespace;
        in_time(self.bulk.fetch(&self.job, &self.right, namespace, digests.to_vec())).await.unwrap();
    }

    async fn cached(&self, namespace: &Namespace, digest: Digest) -> Option<Vec<u8>> {
        self.bulk.cached(namespace, digest).await.unwrap().map(|blob| blob.into_vec().unwrap())
    }
}

#[tokio::test]
async fn a_large_blob_comes_in_chunks_and_a_link_that_breaks_costs_none_that_came() {
    let world = World::new();
    let (large, small) = (noise(1, 20 << 20), noise(2, 1_000));
    let digests = [world.origin.put(&large), world.origin.put(&small)];
    world.origin.given().breaks_after = Some(1);
    world.fetch(&digests).await;
    assert_eq!(world.cached(&world.job.namespace, digests[0]).await.as_ref(), Some(&large));
    assert_eq!(world.cached(&world.job.namespace, digests[1]).await.as_ref(), Some(&small));
    let given = world.origin.given();
    let chunks = world.origin.find_chunks(&digests[0]);
    assert_eq!(given.chunks.len(), chunks);
    for place in 0..u32::try_from(FETCH_CHUNKS).unwrap() {
        assert_eq!(given.chunks[&(digests[0], place)], 1, "chunk {place} had come");
    }
    assert!(given.broke);
    assert_eq!(given.manifests, 1, "what it was told it remembers");
}

#[tokio::test]
async fn of_a_newer_version_only_the_chunks_come_that_are_new() {
    let world = World::new();
    let old = noise(1, 8 << 20);
    let mut new = old.clone();
    new.splice(3 << 20..3 << 20, noise(3, 100));
    let [old, new] = [old, new].map(|blob| world.origin.put(&blob));
    world.fetch(&[old]).await;
    world.origin.given().chunks.clear();
    world.fetch(&[new]).await;
    assert!(world.origin.given().chunks.len() <= 3);
    world.origin.given().chunks.clear();
    let other = Namespace::trusted("other");
    in_time(world.bulk.fetch(&world.job, &world.right, &other, vec![new])).await.unwrap();
    assert!(world.bulk.cached(&other, new).await.unwrap().is_some());
    assert_eq!(world.origin.given().chunks.len(), 0, "all of it is here, the coordinator says that it may be read");
}

#[tokio::test]
async fn many_wishes_for_one_blob_at_once_fetch_each_chunk_once() {
    let world = World::new();
    let large = noise(1, 8 << 20);
    let digest = world.origin.put(&large);
    let wishes = (0..6).map(|_| world.fetch(std::slice::from_ref(&digest)));
    futures_util::future::join_all(wishes).await;
    assert_eq!(world.cached(&world.job.namespace, digest).await.as_ref(), Some(&large));
    assert!(world.origin.given().chunks.values().all(|times| *times == 1));
}
