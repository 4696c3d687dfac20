//! Who serves blobs to others of a zone: told to each of its agents, again whenever it changes.
//!
//! A zone is one with each trust by itself: what runs strangers' jobs neither serves nor asks what runs trusted ones. Of a large
//! zone the first agents by id serve, so that all who ask agree on whom; the list that each is told is bounded by that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use windlass_protocol::limits::{PEERS_MAX, PEERS_TOLD_MS};
use windlass_protocol::message::{CacheZone, CoordinatorMessage, Peer};
use windlass_protocol::{AgentId, Digest};

use super::Switchboard;
use super::conn::Conn;
use crate::authority::Authority;

/// Which agents serve others of their zone, and at which address.
#[derive(Debug, Default)]
pub(super) struct Zones {
    serving: Mutex<BTreeMap<CacheZone, BTreeMap<AgentId, String>>>,
    changed: Notify,
}

impl Zones {
    /// An agent serves at this address from now on.
    pub(super) fn serve(&self, zone: CacheZone, agent: AgentId, address: String) {
        self.lock().entry(zone).or_default().insert(agent, address);
        self.changed.notify_one();
    }

    /// An agent serves nobody any more.
    pub(super) fn leave(&self, zone: &CacheZone, agent: AgentId) {
        let mut serving = self.lock();
        if let Some(agents) = serving.get_mut(zone) {
            agents.remove(&agent);
            if agents.is_empty() {
                serving.remove(zone);
            }
        }
        drop(serving);
        self.changed.notify_one();
    }

    /// Somebody has come who has to be told.
    pub(super) fn greet(&self) {
        self.changed.notify_one();
    }

    /// Who serves in each: the first by id.
    fn lists(&self) -> BTreeMap<CacheZone, Vec<Peer>> {
        let peer = |(agent, address): (&AgentId, &String)| Peer { agent: *agent, address: address.clone() };
        let first = |agents: &BTreeMap<AgentId, String>| agents.iter().take(PEERS_MAX).map(peer).collect();
        self.lock().iter().map(|(zone, agents)| (zone.clone(), first(agents))).collect()
    }

    /// Whether nobody serves anywhere.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CacheZone, BTreeMap<AgentId, String>>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells agents of their peers whenever somebody came or went, and at once when an agent was revoked, for then grants are
/// believed by another key; those that were told the same hear nothing.
pub(super) async fn tell(board: Switchboard, authority: Arc<Authority>, mut revoked: watch::Receiver<Digest>) {
    loop {
        tokio::select! {
            () = board.shared.zones.changed.notified() => {
                tokio::time::sleep(Duration::from_millis(PEERS_TOLD_MS)).await;
            }
            changed = revoked.changed() => if changed.is_err() { return },
        }
        let revoked = *revoked.borrow_and_update();
        let key = match authority.grant_key(&revoked) {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(%error, "peers_not_told");
                continue;
            }
        };
        let lists = board.shared.zones.lists();
        let conns: Vec<_> = board.lock().by_id.values().cloned().collect();
        for conn in conns {
            let peers = lists.get(&conn.zone).cloned().unwrap_or_default();
            tell_one(&conn, key, peers);
        }
    }
}

fn tell_one(conn: &Conn, key: [u8; 32], peers: Vec<Peer>) {
    let mut told = conn.told.lock().unwrap_or_else(PoisonError::into_inner);
    // Who was never told of anybody needs no key.
    let news = (key, peers.clone());
    if told.as_ref() == Some(&news) || told.is_none() && peers.is_empty() {
        return;
    }
    *told = Some(news);
    drop(told);
    conn.say(CoordinatorMessage::Peers { key, peers });
}

#[cfg(test)]
mod tests {
    use windlass_protocol::Trust;

    use super::*;

    fn agent(number: u8) -> AgentId {
        AgentId::from_bytes([number; 16])
    }

    fn zone(name: &str, trust: Trust) -> CacheZone {
        CacheZone { zone: name.to_owned(), trust }
    }

    #[test]
    fn each_zone_and_each_trust_has_a_list_of_its_own_which_is_bounded() {
        let zones = Zones::default();
        let (eu, wild, us) = (zone("eu", Trust::Trusted), zone("eu", Trust::Untrusted), zone("us", Trust::Trusted));
        for number in (0..100).rev() {
            zones.serve(eu.clone(), agent(number), format!("10.0.0.{number}:9"));
        }
        zones.serve(wild.clone(), agent(1), "10.0.1.1:9".to_owned());
        zones.serve(us.clone(), agent(2), "10.0.2.2:9".to_owned());
        let lists = zones.lists();
        let first: Vec<_> = lists[&eu].iter().map(|peer| peer.agent.as_bytes()[0]).collect();
        assert_eq!(first, (0..64).collect::<Vec<u8>>(), "the same for all who ask");
        assert_eq!((lists[&wild].len(), lists[&us].len()), (1, 1));
        zones.leave(&eu, agent(0));
        zones.leave(&us, agent(2));
        assert_eq!(zones.lists()[&eu].last().unwrap().agent.as_bytes()[0], 64);
        assert!(!zones.lists().contains_key(&us));
    }
}
