//! Agents' connections: who may speak, what they say, and what is said to them.
//!
//! | module | owns |
//! | --- | --- |
//! | `conn` | one control connection and the rights that were given over it |
//! | `control` | hello, messages, renewing certificates |
//! | `intake` | log streams |
//! | `ask` | what jobs ask |
//! | `bulk`, `blobs`, `shelve`, `parts` | fetching and storing blobs, by the right to an attempt or a grant |
//! | `resting` | blobs whose chunks came in part |
//! | `ahead` | having agents bring blobs ahead of jobs |
//! | `zones` | who serves blobs to others of a zone |
//! | `enrol` | joining with a token |
//! | `traffic` | bytes of each zone |
//!
//! An agent's zone, queue and trust come from its row, which its certificate names; nothing that it says changes them.

mod ahead;
mod ask;
mod blobs;
mod bulk;
mod conn;
mod control;
mod enrol;
mod intake;
mod parts;
mod resting;
mod shelve;
#[cfg(test)]
mod tests;
mod traffic;
mod zones;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::{Connection, Endpoint};
use tokio::sync::Semaphore;
use windlass_cache::Store;
use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::input::ConnId;
use windlass_coordinator_logs::LogStore;
use windlass_protocol::AgentId;
use windlass_protocol::limits::{
    ENROLLING_MAX, FETCHES_MAX, FETCHES_UNTRUSTED_MAX, HANDSHAKES_MAX, PARTS_MAX, PARTS_UNTRUSTED_MAX, STORES_MAX,
    STORES_UNTRUSTED_MAX,
};
use windlass_protocol::link::{Accepted, Code, Protocol, accept};
use windlass_protocol::message::{CacheUse, CoordinatorMessage, RefuseCode};

pub(crate) use self::ahead::{Order, Part, Standing};
use self::conn::Conn;
use self::resting::Resting;
use self::traffic::Traffic;
pub use self::traffic::ZoneBytes;
use self::zones::Zones;
use crate::authority::Authority;
use crate::desk::{DeskHandle, Fleet};
use crate::job_desk::JobDesk;
use crate::room::Room;
use crate::shelf::Shelves;
use crate::uploads::Uploads;
use crate::vault::Vault;
use crate::views::{Reader, Views};

/// What the fleet stands on.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The core's door.
    pub desk: DeskHandle,
    /// Agents, pools and tokens.
    pub views: Views,
    /// Builds.
    pub reader: Reader,
    /// Logs.
    pub logs: LogStore,
    /// Blobs.
    pub store: Store,
    /// Those that are on their way in more than one piece.
    pub uploads: Uploads,
    /// What jobs keep of them.
    pub shelves: Shelves,
    /// Certificates.
    pub authority: Arc<Authority>,
    /// Who answers jobs.
    pub jobs: Arc<dyn JobDesk>,
    /// What seals secrets.
    pub vault: Arc<Vault>,
}

/// All agents' connections; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Switchboard {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    conns: Mutex<Conns>,
    next: AtomicU64,
    refused: AtomicU64,
    rooms: Rooms,
    traffic: Traffic,
    zones: Zones,
    resting: Resting,
    /// What agents' caches did, all together.
    used: Mutex<CacheUse>,
}

/// What all agents together may ask for at once.
#[derive(Debug)]
struct Rooms {
    fetches: Room,
    stores: Room,
    parts: Room,
    enrolling: Semaphore,
}

impl Default for Rooms {
    fn default() -> Self {
        let fetches = Room::new(FETCHES_MAX, FETCHES_UNTRUSTED_MAX);
        let stores = Room::new(STORES_MAX, STORES_UNTRUSTED_MAX);
        let parts = Room::new(PARTS_MAX, PARTS_UNTRUSTED_MAX);
        Self { fetches, stores, parts, enrolling: Semaphore::new(ENROLLING_MAX) }
    }
}

#[derive(Debug, Default)]
struct Conns {
    by_id: BTreeMap<ConnId, Arc<Conn>>,
    by_agent: BTreeMap<AgentId, ConnId>,
    bulk: BTreeMap<AgentId, Connection>,
}

impl Switchboard {
    /// Serves an endpoint until it is closed.
    pub async fn serve(&self, endpoint: Endpoint, ground: Ground) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        tokio::spawn(self.clone().pass_acks_on(ground.logs.clone()));
        tokio::spawn(parts::learn(ground.store.clone()));
        tokio::spawn(zones::tell(self.clone(), Arc::clone(&ground.authority), ground.views.revoked()));
        while let Some(incoming) = endpoint.accept().await {
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let (board, ground) = (self.clone(), ground.clone());
            tokio::spawn(async move {
                let accepted = accept(incoming).await;
                drop(permit);
                match accepted {
                    Ok(accepted) => board.welcome(accepted, &ground).await,
                    Err(error) => {
                        board.count_refused();
                        tracing::debug!(%error, "handshake_failed");
                    }
                }
            });
        }
    }

    async fn welcome(&self, accepted: Accepted, ground: &Ground) {
        let Accepted { connection, protocol, peer } = accepted;
        let _counted = peer.as_ref().map(|peer| self.shared.traffic.meter(&peer.zone, &connection));
        match (protocol, peer) {
            (Protocol::Enrol, _) => match self.shared.rooms.enrolling.try_acquire() {
                Ok(_permit) => enrol::serve(self, &connection, ground).await,
                Err(_) => {
                    self.count_refused();
                    connection.close(Code::Refused.number(), b"too many join at once; come again");
                }
            },
            (Protocol::Agent, Some(peer)) => control::serve(self, connection, peer, ground).await,
            (Protocol::Bulk, Some(peer)) => bulk::serve(self, connection, &peer, ground).await,
            // `accept` has refused it already.
            (Protocol::Agent | Protocol::Bulk, None) => self.count_refused(),
            // No such name is offered here.
            (Protocol::Peer, _) => self.count_refused(),
        }
    }

    /// Tells agents what has become durable of their logs.
    async fn pass_acks_on(self, logs: LogStore) {
        let mut acks = logs.acks();
        while let Some(news) = acks.next().await {
            let conns: Vec<_> = self.lock().by_id.values().cloned().collect();
            for conn in conns {
                for (attempt, offset) in conn.held_among(&news) {
                    conn.say(CoordinatorMessage::LogAck { attempt, offset });
                }
            }
        }
    }

    /// Takes up a control connection; an agent has one, and its newest counts.
    fn register(&self, conn: Arc<Conn>) {
        let mut conns = self.lock();
        let older = conns.by_agent.insert(conn.agent, conn.id).and_then(|older| conns.by_id.get(&older).cloned());
        conns.by_id.insert(conn.id, conn);
        drop(conns);
        if let Some(older) = older {
            older.connection.close(Code::Replaced.number(), b"a newer connection takes its place");
        }
    }

    /// Takes up a bulk connection; an agent has one, and its newest counts.
    fn register_bulk(&self, agent: AgentId, connection: Connection) {
        if let Some(older) = self.lock().bulk.insert(agent, connection) {
            older.close(Code::Replaced.number(), b"a newer connection takes its place");
        }
    }

    fn unregister_bulk(&self, agent: AgentId, connection: &Connection) {
        let mut conns = self.lock();
        if conns.bulk.get(&agent).is_some_and(|known| known.stable_id() == connection.stable_id()) {
            conns.bulk.remove(&agent);
        }
    }

    /// Forgets a control connection; says whether it was its agent's last one.
    fn unregister(&self, conn: &Conn) -> bool {
        let mut conns = self.lock();
        conns.by_id.remove(&conn.id);
        let last = conns.by_agent.get(&conn.agent) == Some(&conn.id);
        if last {
            conns.by_agent.remove(&conn.agent);
        }
        last
    }

    fn next_conn(&self) -> ConnId {
        ConnId(self.shared.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The agent's current control connection.
    fn current(&self, agent: AgentId) -> Option<Arc<Conn>> {
        let conns = self.lock();
        conns.by_id.get(conns.by_agent.get(&agent)?).cloned()
    }

    fn of(&self, conn: ConnId) -> Option<Arc<Conn>> {
        self.lock().by_id.get(&conn).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Conns> {
        self.shared.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_refused(&self) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Handshakes, messages and streams that were refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Bytes of each zone that an agent has connected from.
    #[must_use]
    pub fn zone_bytes(&self) -> BTreeMap<String, ZoneBytes> {
        self.shared.traffic.totals()
    }

    /// How agents came by what their jobs wanted, since the start.
    #[must_use]
    pub fn cache_use(&self) -> CacheUse {
        *self.shared.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_use(&self, more: CacheUse) {
        let mut used = self.shared.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.disk_hits = used.disk_hits.saturating_add(more.disk_hits);
        used.disk_misses = used.disk_misses.saturating_add(more.disk_misses);
        used.peer_hits = used.peer_hits.saturating_add(more.peer_hits);
        used.peer_misses = used.peer_misses.saturating_add(more.peer_misses);
        used.peer_failures = used.peer_failures.saturating_add(more.peer_failures);
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().by_id.len()
    }
}

impl Fleet for Switchboard {
    fn send(&self, _agent: AgentId, conn: ConnId, message: Box<CoordinatorMessage>) {
        if let Some(conn) = self.of(conn) {
            conn.note_rights(&message);
            conn.say(*message);
        }
    }

    fn disconnect(&self, agent: AgentId, conn: ConnId, code: RefuseCode, detail: String) {
        tracing::info!(%agent, ?code, detail, "agent_disconnected");
        if code.permanent()
            && let Some(bulk) = self.lock().bulk.remove(&agent)
        {
            bulk.close(Code::Revoked.number(), b"the agent is no longer served");
        }
        if let Some(conn) = self.of(conn) {
            conn.refuse(code, detail);
        }
    }

    fn rejected(&self, agent: AgentId, conn: ConnId, rejected: Rejected) {
        self.count_refused();
        tracing::debug!(%agent, conn = conn.0, %rejected, "message_rejected");
        if let (Some(code), Some(conn)) = (unwelcome(&rejected), self.of(conn)) {
            conn.refuse(code, rejected.to_string());
        }
    }

    fn disconnect_all(&self, code: RefuseCode, detail: String) {
        let conns: Vec<_> = self.lock().by_id.values().cloned().collect();
        for conn in conns {
            conn.refuse(code, detail.clone());
        }
    }
}

/// Whether a rejection means that the agent is not served on this connection: its hello was refused. Any other one is
/// about a single message.
const fn unwelcome(rejected: &Rejected) -> Option<RefuseCode> {
    match rejected {
        Rejected::Join(refused) => Some(refused.code),
        Rejected::NoSuchAgent(_) => Some(RefuseCode::AgentRevoked),
        Rejected::NoSuchPool(_) | Rejected::Limit { .. } => Some(RefuseCode::PoolFull),
        Rejected::NotInMemory(_)
        | Rejected::JobNotInMemory(_)
        | Rejected::BuildEnded { .. }
        | Rejected::Job { .. }
        | Rejected::Answer { .. }
        | Rejected::IdempotencyMismatch
        | Rejected::NumberTaken { .. }
        | Rejected::PipelineChanged(_)
        | Rejected::IdTaken(_)
        | Rejected::NoOrder(_)
        | Rejected::NotUnderWay(_)
        | Rejected::NotAsked(_)
        | Rejected::Graph(_)
        | Rejected::PipelineExists(_)
        | Rejected::NoSuchPipeline(_)
        | Rejected::NoSuchSchedule(_)
        | Rejected::Setting { .. }
        | Rejected::PoolConflict { .. }
        | Rejected::NoSuchToken(_)
        | Rejected::Secret(_)
        | Rejected::Pin(_)
        | Rejected::VoidConnection(_)
        | Rejected::NoLease(_)
        | Rejected::StaleEpoch { .. }
        | Rejected::NotYours { .. } => None,
    }
}
