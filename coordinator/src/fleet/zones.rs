//! Who serves blobs to others of a zone: told to each of its agents, again whenever it changes.
//!
//! A zone is one with each trust by itself: what runs strangers' jobs neither serves nor asks what runs trusted ones. Of a large
//! zone the first agents by id serve, so that all who ask agree on whom; the list that each is told is bounded by that.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use windlass_protocol::identity::AgentIdentity;
use windlass_protocol::limits::{PEERS_MAX, PEERS_TOLD_MS};
use windlass_protocol::message::{CoordinatorMessage, Peer};
use windlass_protocol::{AgentId, Trust};

use super::Switchboard;
use super::conn::Conn;

/// Agents that share a cache.
type Place = (String, Trust);

/// Where agents are, and at which address they serve others.
#[derive(Debug, Default)]
pub(super) struct Zones {
    serving: Mutex<BTreeMap<Place, BTreeMap<AgentId, String>>>,
    changed: Notify,
}

impl Zones {
    /// An agent serves at this address from now on.
    pub(super) fn serve(&self, who: &AgentIdentity, address: String) {
        self.lock().entry(place(who)).or_default().insert(who.agent, address);
        self.changed.notify_one();
    }

    /// An agent serves nobody any more.
    pub(super) fn leave(&self, who: &AgentIdentity) {
        let mut serving = self.lock();
        if let Some(zone) = serving.get_mut(&place(who)) {
            zone.remove(&who.agent);
            if zone.is_empty() {
                serving.remove(&place(who));
            }
        }
        drop(serving);
        self.changed.notify_one();
    }

    /// Somebody has come who has to be told.
    pub(super) fn greet(&self) {
        self.changed.notify_one();
    }

    /// Who serves in each place: the first by id.
    fn lists(&self) -> BTreeMap<Place, Vec<Peer>> {
        let peer = |(agent, address): (&AgentId, &String)| Peer { agent: *agent, address: address.clone() };
        let first = |zone: &BTreeMap<AgentId, String>| zone.iter().take(PEERS_MAX).map(peer).collect();
        self.lock().iter().map(|(place, zone)| (place.clone(), first(zone))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, BTreeMap<AgentId, String>>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn place(who: &AgentIdentity) -> Place {
    (who.zone.clone(), who.trust)
}

/// Tells agents of their peers whenever somebody came or went; those whose list is what they were told hear nothing.
pub(super) async fn tell(board: Switchboard, key: [u8; 32]) {
    loop {
        board.shared.zones.changed.notified().await;
        tokio::time::sleep(Duration::from_millis(PEERS_TOLD_MS)).await;
        let lists = board.shared.zones.lists();
        let conns: Vec<_> = board.lock().by_id.values().cloned().collect();
        for conn in conns {
            let peers = lists.get(&conn.place).cloned().unwrap_or_default();
            tell_one(&conn, key, peers);
        }
    }
}

fn tell_one(conn: &Conn, key: [u8; 32], peers: Vec<Peer>) {
    let mut told = conn.told.lock().unwrap_or_else(PoisonError::into_inner);
    if *told == peers {
        return;
    }
    told.clone_from(&peers);
    drop(told);
    conn.say(CoordinatorMessage::Peers { key, peers });
}
