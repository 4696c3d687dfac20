//! Who serves blobs in this agent's zone, and which of them fetches what from the coordinator.
//!
//! Each agent picks the one with the highest weight for a chunk (rendezvous hashing): all that were told the same pick the same,
//! and when one goes only what it would have fetched is fetched by others. An agent that serves counts itself in, so whoever is
//! asked fetches by itself or waits for one of a higher weight: nobody waits in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use windlass_protocol::limits::PEER_REST_MS;
use windlass_protocol::message::Peer;
use windlass_protocol::{AgentId, Digest};

/// An agent of the zone that serves others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) agent: AgentId,
    pub(crate) address: SocketAddr,
    seed: u64,
}

/// What the coordinator has told of the zone, and what came of asking.
#[derive(Debug)]
pub(crate) struct Zone {
    own: AgentId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    key: Option<[u8; 32]>,
    members: Vec<Arc<Member>>,
    /// Who is not asked, until when.
    resting: BTreeMap<AgentId, Instant>,
}

/// Those who may be asked at some time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Candidates(Vec<(u64, Option<Arc<Member>>)>);

impl Zone {
    /// Of an agent that was told nothing yet.
    pub(crate) fn new(own: AgentId) -> Self {
        Self { own, state: Mutex::default() }
    }

    /// The coordinator tells who there is, and by which key grants are believed.
    pub(crate) fn replace(&self, key: [u8; 32], peers: &[Peer]) {
        let member = |peer: &Peer| {
            let address = peer.address.parse().ok()?;
            Some(Arc::new(Member { agent: peer.agent, address, seed: seed(peer.agent) }))
        };
        let members: Vec<_> = peers.iter().filter_map(member).collect();
        tracing::debug!(peers = members.len(), "peers_told");
        let mut state = self.lock();
        let known: BTreeSet<AgentId> = members.iter().map(|member| member.agent).collect();
        state.resting.retain(|agent, _| known.contains(agent));
        (state.key, state.members) = (Some(key), members);
    }

    /// By which key grants are believed.
    pub(crate) fn key(&self) -> Option<[u8; 32]> {
        self.lock().key
    }

    /// Nobody asks this agent for a while.
    pub(crate) fn rest(&self, agent: AgentId) {
        self.lock().resting.insert(agent, Instant::now() + Duration::from_millis(PEER_REST_MS));
    }

    /// Who may be asked now, but for those.
    pub(crate) fn candidates(&self, passed: &BTreeSet<AgentId>) -> Candidates {
        let mut state = self.lock();
        let now = Instant::now();
        state.resting.retain(|_, until| *until > now);
        let asked = |member: &&Arc<Member>| {
            member.agent == self.own || !(passed.contains(&member.agent) || state.resting.contains_key(&member.agent))
        };
        let candidate = |member: &Arc<Member>| (member.seed, (member.agent != self.own).then(|| Arc::clone(member)));
        Candidates(state.members.iter().filter(asked).map(candidate).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Candidates {
    /// Who fetches a blob or a chunk; `None` is this agent itself.
    pub(crate) fn owner(&self, digest: &Digest) -> Option<&Arc<Member>> {
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        let digest = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        self.0.iter().max_by_key(|(seed, _)| mix(seed ^ digest)).and_then(|(_, member)| member.as_ref())
    }

    /// Whether there is nobody but this agent.
    pub(crate) fn are_none(&self) -> bool {
        self.0.iter().all(|(_, member)| member.is_none())
    }
}

/// Ids are times for a good part: hashed, they say nothing of each other.
fn seed(agent: AgentId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *Digest::of(agent.as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The finalizer of SplitMix64: every bit of the input changes half of the output's.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> AgentId {
        AgentId::from_bytes([n; 16])
    }

    fn zone(own: u8, members: std::ops::Range<u8>) -> Zone {
        let zone = Zone::new(id(own));
        let peers: Vec<_> = members.map(|n| Peer { agent: id(n), address: format!("10.0.0.{n}:7071") }).collect();
        zone.replace([0; 32], &peers);
        zone
    }

    fn owners(zone: &Zone, own: u8, passed: &[u8]) -> Vec<AgentId> {
        let candidates = zone.candidates(&passed.iter().copied().map(id).collect());
        let owner = |n: u32| candidates.owner(&Digest::of(&n.to_le_bytes())).map_or(id(own), |member| member.agent);
        (0..4_000).map(owner).collect()
    }

    #[test]
    fn all_agents_of_a_zone_pick_the_same_and_each_has_its_share() {
        let expected = owners(&zone(1, 1..9), 1, &[]);
        for own in 2..9 {
            assert_eq!(owners(&zone(own, 1..9), own, &[]), expected);
        }
        assert_eq!(owners(&zone(99, 1..9), 99, &[]), expected, "one that does not serve asks those who do");
        for n in 1..9 {
            let share = expected.iter().filter(|owner| **owner == id(n)).count();
            assert!((400..600).contains(&share), "agent {n} has {share} of 4000");
        }
    }

    #[test]
    fn when_one_goes_only_what_it_had_changes_hands() {
        let zone = zone(1, 1..9);
        let before = owners(&zone, 1, &[]);
        let after = owners(&zone, 1, &[5]);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == id(5));
            assert_ne!(*after, id(5));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_passed_over_is_asked_again_after_a_rest() {
        let zone = zone(1, 1..4);
        let before = owners(&zone, 1, &[]);
        zone.rest(id(3));
        assert!(!owners(&zone, 1, &[]).contains(&id(3)));
        tokio::time::advance(Duration::from_millis(PEER_REST_MS + 1)).await;
        assert_eq!(owners(&zone, 1, &[]), before);
    }

    #[test]
    fn an_agent_that_is_alone_asks_nobody_else() {
        assert!(zone(1, 1..2).candidates(&BTreeSet::new()).are_none());
        assert!(Zone::new(id(1)).candidates(&BTreeSet::new()).are_none());
        assert!(!zone(1, 2..3).candidates(&BTreeSet::new()).are_none());
    }
}
