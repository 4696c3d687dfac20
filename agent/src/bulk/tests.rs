//! Fetching from a coordinator that a test plays.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use windlass_cache::{Directory, Entry, Node};
use windlass_protocol::job::{Epoch, JobSpec};
use windlass_protocol::limits::FETCH_CHUNKS;
use windlass_protocol::message::BroughtSoFar;
use windlass_protocol::{Digest, Namespace, Shelf};

use super::kit::{Origin, granted, memory, noise};
use super::{Bulk, NotCarried, Taking, Warrant};
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
async fn whoever_had_to_connect_anew_asks_nothing_over_the_connection_of_before() {
    let (mut link, job) = (Link::new(), job());
    let (origin, bulk) = (Origin::new(&job.namespace), Bulk::new(link.bulk.clone(), memory(), link.peers()));
    let digest = origin.put(b"small");
    let _ours = bulk.connected().await.unwrap();
    let _silent = link.accepted().await;
    link.hand_over(&origin);
    bulk.renew();
    in_time(bulk.fetch(&job, &Right::new(Epoch(1), true), &job.namespace, vec![digest])).await.unwrap();
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

/// Keeps what it gets, of each time that it begins; some at most.
#[derive(Default)]
struct Took {
    begun: Vec<Vec<u8>>,
    most: Option<usize>,
    ahead: bool,
}

impl Taking for Took {
    type Error = usize;

    async fn begin(&mut self) -> Result<(), usize> {
        self.begun.push(Vec::new());
        Ok(())
    }

    fn reads_ahead(&self) -> bool {
        self.ahead
    }

    async fn take(&mut self, bytes: Bytes) -> Result<(), usize> {
        let taken = self.begun.last_mut().unwrap();
        if self.most.is_some_and(|most| taken.len() + bytes.len() > most) {
            return Err(taken.len());
        }
        taken.extend_from_slice(&bytes);
        Ok(())
    }
}

#[tokio::test]
async fn a_large_blob_is_handed_over_while_it_comes_and_anew_where_that_broke() {
    for ahead in [false, true] {
        let world = World::new();
        let large = noise(1, 20 << 20);
        let digest = world.origin.put(&large);
        world.origin.given().breaks_after = Some(1);
        let mut took = Took { ahead, ..Took::default() };
        let pulled = world.bulk.pull(&world.job, &world.right, (Shelf::Artifacts, digest), &mut took);
        in_time(pulled).await.unwrap();
        let [first, second] = took.begun.as_slice() else { panic!("it began {} times", took.begun.len()) };
        assert!(!first.is_empty() && large.starts_with(first), "{} bytes before the link broke", first.len());
        assert!(*second == large);
        assert!(world.origin.given().broke);
    }
}

#[tokio::test]
async fn whoever_takes_no_more_of_a_blob_is_told_so_and_waits_for_no_more_of_it() {
    for ahead in [false, true] {
        let world = World::new();
        let digest = world.origin.put(&noise(1, 40 << 20));
        let mut took = Took { most: Some(0), ahead, ..Took::default() };
        let pulled = world.bulk.pull(&world.job, &world.right, (Shelf::Artifacts, digest), &mut took);
        let refused = in_time(pulled).await;
        assert!(matches!(refused, Err(NotCarried::Own(0))), "{refused:?}");
        let (came, all) = (world.origin.given().chunks.len(), world.origin.find_chunks(&digest));
        assert!(came < all, "all {all} chunks came");
    }
}

/// Members of an archive as GNU tar writes them: of 20,000 bytes that shrink to half, each with a time.
fn archive(members: usize, time: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..members {
        let mut block = vec![0; 512];
        block[..8].copy_from_slice(format!("{n:08}").as_bytes());
        block[124..136].copy_from_slice(b"00000047040\0");
        block[136..148].copy_from_slice(format!("{:011o}\0", time + n).as_bytes());
        block[148..156].fill(b' ');
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar  \0");
        let sum: usize = block.iter().map(|byte| usize::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend(block);
        out.extend(noise(n, 20_000).iter().map(|byte| byte & 0x0F));
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out
}

#[tokio::test]
async fn of_an_archive_with_all_times_new_the_times_come_and_all_of_it_comes_packed() {
    let world = World::new();
    let (old, new) = (archive(300, 1_700_000_000), archive(300, 1_760_000_000));
    let digests = [&old, &new].map(|blob| world.origin.put(blob));
    world.fetch(&digests[..1]).await;
    let first = std::mem::take(&mut world.origin.given().chunk_bytes);
    assert!(first * 10 < old.len() * 7, "{first} of {} crossed", old.len());
    world.fetch(&digests[1..]).await;
    let second = world.origin.given().chunk_bytes;
    assert!(second * 100 < new.len(), "{second} of {} crossed", new.len());
    for (digest, blob) in digests.iter().zip([&old, &new]) {
        assert!(world.cached(&world.job.namespace, *digest).await.as_ref() == Some(blob));
    }
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

#[tokio::test]
async fn what_is_ordered_comes_once_by_its_grant_and_what_nobody_has_is_counted() {
    let world = World::new();
    let (large, small) = (noise(1, 8 << 20), noise(2, 1_000));
    let (digests, gone) = ([&large, &small].map(|blob| world.origin.put(blob)), Digest::of(b"let go"));
    let file = |name: &str, digest| Entry { name: name.into(), node: Node::File { digest, len: 1, mode: 0o644 } };
    let below = Directory::new(vec![file("large", digests[0]), file("small", digests[1])]).unwrap().encode();
    let node = Node::Directory { digest: world.origin.put(&below), mode: 0o755 };
    let below_it = Entry { name: "below".into(), node };
    let root = Directory::new(vec![below_it, file("gone", gone), file("small", digests[1])]).unwrap().encode();
    let (warrant, (told, seen)) =
        (Warrant::new(granted(&world.job.namespace)), watch::channel(BroughtSoFar::default()));
    let trees = [world.origin.put(&root)];
    let bring = || world.bulk.bring(&warrant, (&trees, &digests), &told);
    let so_far = in_time(bring()).await.unwrap();
    let bytes = [&large, &small, &below, &root].map(|blob| blob.len() as u64).iter().sum();
    let came = 3 + 1 + world.origin.find_chunks(&digests[0]) as u64;
    assert_eq!(so_far, BroughtSoFar { blobs: 4, bytes, absent: 1, came });
    assert_eq!(*seen.borrow(), so_far);
    assert_eq!(world.cached(&world.job.namespace, digests[0]).await.as_ref(), Some(&large));
    assert_eq!(world.cached(&world.job.namespace, digests[1]).await.as_ref(), Some(&small));
    let asked = std::mem::take(&mut world.origin.given().on_behalf);
    assert!(asked > 0, "it shows its grant");
    assert_eq!(world.origin.given().small.values().max(), Some(&1));
    told.send_replace(BroughtSoFar::default());
    let again = in_time(bring()).await.unwrap();
    assert_eq!(again, BroughtSoFar { came: 0, ..so_far });
}

#[test]
fn a_newer_grant_of_an_order_is_for_its_namespace() {
    let (own, other) = (Namespace::overlay("hello", "laptop"), Namespace::overlay("hello", "desk"));
    let warrant = Warrant::new(granted(&own));
    let newer = granted(&own);
    assert!(warrant.renew(newer.clone()));
    assert!(!warrant.renew(granted(&other)));
    assert_eq!(*warrant.grant(), newer);
}
