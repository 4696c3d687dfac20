//! Agents of one zone before a coordinator that a test plays, over real QUIC on loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::Endpoint;
use windlass_protocol::host::now;
use windlass_protocol::job::{Epoch, JobSpec};
use windlass_protocol::link::{FramedRecv, FramedSend, LinkError, accept, bind_server};
use windlass_protocol::message::{BlobHeader, Claim, FetchBlobs, Grant, Peer, SignedGrant, Wanted};
use windlass_protocol::{Digest, Namespace, Secret, Trust, WallMs};

use super::*;
use crate::bulk::Bulk;
use crate::bulk::kit::{Origin, grant_key, memory, noise};
use crate::link_kit::{Agent, Link, in_time, job};
use crate::right::Right;

struct Zoned {
    bulk: Arc<Bulk>,
    at: SocketAddr,
    shown: Shown,
}

struct World {
    link: Link,
    origin: Origin,
    agents: Vec<Zoned>,
    job: JobSpec,
    right: Right,
}

const PLACE: (&str, Trust) = ("z", Trust::Trusted);

impl World {
    /// A zone of so many agents, told of each other.
    fn of(agents: u8) -> Self {
        let mut link = Link::new();
        let job = job();
        let origin = Origin::new(&job.namespace);
        let agents: Vec<_> = (1..=agents).map(|number| Zoned::start(link.agent(number, PLACE))).collect();
        link.hand_over(&origin);
        let world = Self { link, origin, agents, job, right: Right::new(Epoch(1), true) };
        world.tell(&[]);
        world
    }

    /// Tells all agents of all, and of others.
    fn tell(&self, others: &[(u8, SocketAddr)]) {
        let own = self.agents.iter().map(|agent| Peer { agent: agent.id(), address: agent.at.to_string() });
        let others = others.iter().map(|(number, at)| Peer { agent: id(*number), address: at.to_string() });
        let mut peers: Vec<_> = own.chain(others).collect();
        peers.sort();
        for agent in &self.agents {
            agent.bulk.peers().told(grant_key().public().unwrap(), &peers);
        }
    }

    async fn fetch(&self, agent: usize, digests: &[Digest]) {
        let (bulk, namespace) = (&self.agents[agent].bulk, &self.job.namespace);
        in_time(bulk.fetch(&self.job, &self.right, namespace, digests.to_vec())).await.unwrap();
    }

    /// Waits until a chunk of a blob has come from the coordinator.
    async fn fetched_some(&self, blob: Digest) {
        in_time(async {
            while !self.origin.given().chunks.keys().any(|(of, _)| *of == blob) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn cached(&self, agent: usize, digest: Digest) -> Option<Vec<u8>> {
        let blob = self.agents[agent].bulk.cached(&self.job.namespace, digest).await.unwrap()?;
        Some(blob.into_vec().unwrap())
    }
}

impl Zoned {
    fn start(agent: Agent) -> Self {
        let endpoint = bind_server("127.0.0.1:0".parse().unwrap(), agent.shown.server.clone()).unwrap();
        let at = endpoint.local_addr().unwrap();
        let peers = Peers::new(agent.shown.clone(), Some(endpoint));
        let bulk = Bulk::new(agent.bulk, memory(), Arc::clone(&peers));
        peers.serve(&bulk);
        Self { bulk, at, shown: agent.shown }
    }

    fn id(&self) -> AgentId {
        self.shown.named.agent
    }

    fn counts(&self) -> windlass_protocol::message::CacheUse {
        self.bulk.peers().tally.counts()
    }
}

fn id(number: u8) -> AgentId {
    AgentId::from_bytes([number; 16])
}

/// A peer whose answers a test gives: it is handed every request.
fn played<F>(world: &World, number: u8, mut answer: impl FnMut(FramedSend, Wanted) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let shown = world.link.agent(number, PLACE).shown;
    let endpoint = bind_server("127.0.0.1:0".parse().unwrap(), shown.server).unwrap();
    let at = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(accepted) = accept(incoming).await else { continue };
            while let Ok((send, recv)) = accepted.connection.accept_bi().await {
                let request: FetchBlobs = FramedRecv::new(recv).recv_message().await.unwrap().unwrap();
                tokio::spawn(answer(FramedSend::new(send), request.wanted));
            }
        }
    });
    at
}

fn many(origin: &Origin) -> (Digest, Vec<Digest>) {
    let large = origin.put(&noise(1, 8 << 20));
    let small = (0..200).map(|n| origin.put(&noise(n, 1_000 + n))).collect();
    (large, small)
}

#[tokio::test]
async fn a_byte_that_a_whole_zone_wants_at_once_crosses_its_border_once() {
    let world = World::of(5);
    let (large, small) = many(&world.origin);
    let all = [&small[..], &[large]].concat();
    let wishes = (0..5).map(|agent| world.fetch(agent, &all));
    futures_util::future::join_all(wishes).await;
    for agent in 0..5 {
        assert_eq!(world.cached(agent, large).await.unwrap(), noise(1, 8 << 20));
        for (n, digest) in small.iter().enumerate() {
            assert_eq!(world.cached(agent, *digest).await.unwrap(), noise(n, 1_000 + n));
        }
    }
    let given = world.origin.given();
    assert_eq!(given.chunks.len(), world.origin.find_chunks(&large));
    assert!(given.chunks.values().all(|times| *times == 1));
    assert_eq!(given.small.len(), small.len());
    assert!(given.small.values().all(|times| *times == 1));
    assert!(given.manifests <= 5, "{} manifests for 5 agents", given.manifests);
    for agent in &world.agents {
        let counts = agent.counts();
        assert!(counts.peer_hits > 0 && counts.peer_failures == 0, "{counts:?}");
    }
}

#[tokio::test]
async fn an_agent_that_comes_later_gets_all_from_its_zone() {
    let world = World::of(2);
    let (large, small) = many(&world.origin);
    let all = [&small[..], &[large]].concat();
    world.fetch(0, &all).await;
    let first = world.origin.given().chunks.len();
    world.fetch(1, &all).await;
    // What the second fetches by itself is its own share.
    assert!(world.origin.given().chunks.values().filter(|times| **times == 2).count() <= first);
    assert!(world.agents[1].counts().peer_hits > 0);
    assert_eq!(world.cached(1, large).await.unwrap(), noise(1, 8 << 20));
}

#[tokio::test]
async fn a_lying_peer_is_not_believed_and_is_passed_over() {
    let world = World::of(1);
    let (large, small) = many(&world.origin);
    let liar = played(&world, 9, |mut send, wanted| async move {
        let count = match &wanted {
            Wanted::Parts(digests) => digests.len(),
            Wanted::Chunks { places, .. } => places.len(),
            Wanted::Whole(_) => panic!("{wanted:?}"),
        };
        for _ in 0..count {
            // Chunks have another length, and are not believed for that; small blobs have other bytes.
            let _ = send.send_message(&BlobHeader::Found { bytes: 1_000 }).await;
            let _ = send.send_raw(vec![7; 1_000].into()).await;
        }
    });
    world.tell(&[(9, liar)]);
    world.fetch(0, &[&small[..], &[large]].concat()).await;
    assert_eq!(world.cached(0, large).await.unwrap(), noise(1, 8 << 20));
    assert_eq!(world.cached(0, small[3]).await.unwrap(), noise(3, 1_003));
    let counts = world.agents[0].counts();
    assert_eq!((counts.peer_hits, counts.peer_failures), (0, 1), "asked once, and left alone from then on");
}

#[tokio::test]
async fn chunks_with_the_right_length_and_other_bytes_are_not_believed() {
    let world = World::of(1);
    let (large, _) = many(&world.origin);
    let manifest =
        world.origin.store.get(&world.origin.namespace, &large).unwrap().unwrap().manifest().unwrap().clone();
    let liar = played(&world, 9, move |mut send, wanted| {
        let manifest = manifest.clone();
        async move {
            match wanted {
                Wanted::Chunks { places, .. } => {
                    for place in places {
                        let bytes = manifest.chunk_bytes(place as usize).unwrap();
                        let _ = send.send_message(&BlobHeader::Found { bytes: bytes as u64 }).await;
                        let _ = send.send_raw(vec![7; bytes].into()).await;
                    }
                }
                _ => {
                    let _ = send.send_message(&BlobHeader::Elsewhere).await;
                }
            }
        }
    });
    world.tell(&[(9, liar)]);
    world.fetch(0, &[large]).await;
    assert_eq!(world.cached(0, large).await.unwrap(), noise(1, 8 << 20));
    assert_eq!(world.agents[0].counts().peer_failures, 1);
}

#[tokio::test]
async fn a_peer_that_is_silent_or_gone_is_passed_over_in_time() {
    let world = World::of(1);
    let (large, small) = many(&world.origin);
    let silent = played(&world, 9, |send, _| async move {
        let _open = send;
        std::future::pending::<()>().await;
    });
    let gone = bind_server("127.0.0.1:0".parse().unwrap(), world.agents[0].shown.server.clone()).unwrap();
    let nobody = gone.local_addr().unwrap();
    drop(gone);
    world.tell(&[(9, silent), (10, nobody)]);
    world.fetch(0, &[&small[..], &[large]].concat()).await;
    assert_eq!(world.cached(0, large).await.unwrap(), noise(1, 8 << 20));
    assert!(world.agents[0].counts().peer_failures >= 2, "{:?}", world.agents[0].counts());
}

#[tokio::test]
async fn who_says_that_he_is_another_agent_is_not_asked() {
    let world = World::of(1);
    let (large, _) = many(&world.origin);
    let stranger = played(&world, 9, |_, wanted| async move { panic!("{wanted:?}") });
    world.tell(&[(8, stranger)]);
    world.fetch(0, &[large]).await;
    assert!(world.agents[0].counts().peer_failures >= 1);
}

/// What an agent is answered that asks the first one.
async fn ask(world: &World, asker: &Agent, request: &FetchBlobs) -> Result<Option<BlobHeader>, LinkError> {
    let endpoint: Endpoint = windlass_protocol::link::bind_client().unwrap();
    let at = world.agents[0].at;
    let connection = in_time(connect(&endpoint, at, Protocol::Peer, asker.shown.client.clone())).await?;
    let (send, recv) = connection.open_bi().await?;
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    send.send_message(request).await?;
    in_time(recv.recv_message()).await
}

fn granted(asker: &Agent, namespace: &Namespace, expires_at: WallMs) -> SignedGrant {
    let named = &asker.shown.named;
    let (agent, zone, trust) = (named.agent, named.zone.clone(), named.trust);
    grant_key().sign(Grant { agent, zone, trust, namespace: namespace.clone(), expires_at }).unwrap()
}

#[tokio::test]
async fn only_agents_of_the_same_zone_and_trust_are_served_by_a_grant_of_their_own_in_its_time() {
    let world = World::of(1);
    let (_, small) = many(&world.origin);
    world.fetch(0, &small).await;
    let asked = async |asker: &Agent, by: Claim| {
        ask(&world, asker, &FetchBlobs { by, wanted: Wanted::Parts(vec![small[0]]) }).await
    };
    let by = |grant: SignedGrant| Claim::Grant(Box::new(grant));
    let (soon, namespace) = (now().wall.plus_ms(60_000), &world.job.namespace);
    let friend = world.link.agent(20, PLACE);
    let good = granted(&friend, namespace, soon);
    let found = asked(&friend, by(good.clone())).await.unwrap();
    assert_eq!(found, Some(BlobHeader::Found { bytes: 1_000 }));

    for (number, place) in [(21, ("other", Trust::Trusted)), (22, ("z", Trust::Untrusted))] {
        let stranger = world.link.agent(number, place);
        let refused = asked(&stranger, by(granted(&stranger, namespace, soon))).await;
        let closed = matches!(refused, Err(LinkError::Closed { code: Code::Refused, .. }));
        assert!(closed, "{place:?}: {refused:?}");
    }
    let lease = Claim::Lease { build: world.job.build, attempt: world.job.attempt, epoch: Epoch(1) };
    let late = granted(&friend, namespace, WallMs(now().wall.0 - 120_000));
    let of_another = granted(&world.link.agent(23, PLACE), namespace, soon);
    let mut forged = good;
    forged.grant.namespace = Namespace::trusted("secret");
    for bad in [lease, by(late), by(of_another), by(forged)] {
        let refused = asked(&friend, bad.clone()).await;
        assert!(matches!(refused, Err(LinkError::Reset { code: Code::Refused })), "{bad:?}: {refused:?}");
    }
    // Another namespace's blob is not there, whoever has it.
    let elsewhere = granted(&friend, &Namespace::trusted("other"), soon);
    let request = FetchBlobs { by: by(elsewhere), wanted: Wanted::Parts(vec![small[0]]) };
    world.origin.given().small.clear();
    let answered = ask(&world, &friend, &request).await;
    assert_ne!(answered.ok().flatten(), Some(BlobHeader::Found { bytes: 1_000 }));
}

#[tokio::test]
async fn a_peer_that_asks_for_a_chunk_that_no_blob_has_ends_nothing_that_others_wait_for() {
    let world = World::of(1);
    let (large, _) = many(&world.origin);
    let friend = world.link.agent(20, PLACE);
    let by = Claim::Grant(Box::new(granted(&friend, &world.job.namespace, now().wall.plus_ms(60_000))));
    let request = |places| FetchBlobs { by: by.clone(), wanted: Wanted::Chunks { blob: large, places } };
    // The agent begins to gather it in the peer's place.
    let first = ask(&world, &friend, &request(vec![0])).await.unwrap();
    assert!(matches!(first, Some(BlobHeader::Found { .. } | BlobHeader::Waiting)), "{first:?}");
    world.fetched_some(large).await;
    let manifests = world.origin.given().manifests;
    let hostile = ask(&world, &friend, &request(vec![u32::MAX])).await.unwrap();
    assert_eq!(hostile, Some(BlobHeader::Elsewhere));
    let again = ask(&world, &friend, &request(vec![1])).await.unwrap();
    assert!(matches!(again, Some(BlobHeader::Found { .. } | BlobHeader::Waiting)), "{again:?}");
    assert_eq!(world.origin.given().manifests, manifests, "it was not begun anew");
}

#[tokio::test]
async fn a_grant_of_a_coordinator_that_has_another_key_now_is_asked_for_anew() {
    let world = World::of(2);
    let (large, small) = many(&world.origin);
    world.fetch(0, &small).await;
    // The second one was told of the new key, and the first one's grant is of the old one.
    let other =
        windlass_protocol::identity::GrantKey::derive(&Secret::new("another".to_owned()), &Digest::of(b"")).unwrap();
    let peers: Vec<_> =
        world.agents.iter().map(|agent| Peer { agent: agent.id(), address: agent.at.to_string() }).collect();
    world.agents[1].bulk.peers().told(other.public().unwrap(), &peers);
    world.fetch(0, &[large]).await;
    assert_eq!(world.cached(0, large).await.unwrap(), noise(1, 8 << 20));
    assert_eq!(world.agents[0].counts().peer_failures, 0, "it is not the peer's fault");
    world.tell(&[]);
    world.agents[1].bulk.peers().told(grant_key().public().unwrap(), &peers);
    let more = world.origin.put(&noise(77, 4 << 20));
    let before = world.agents[0].counts().peer_hits;
    world.fetch(0, &[more]).await;
    assert!(world.agents[0].counts().peer_hits > before);
}

#[test]
fn an_agent_tells_the_address_that_leads_to_its_coordinator_unless_that_is_this_machine() {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(advertised(None, at("127.0.0.1:7070"), 9), None);
    assert_eq!(advertised(None, at("[::1]:7070"), 9), None);
    assert_eq!(advertised(None, at("[::ffff:127.0.0.1]:7070"), 9), None);
    assert_eq!(advertised(Some(at("10.0.0.7:9")), at("127.0.0.1:7070"), 9).as_deref(), Some("10.0.0.7:9"));
    assert_eq!(advertised(Some(at("0.0.0.0:9")), at("127.0.0.1:7070"), 9), None);
}
