//! Agents' links over real QUIC on loopback, before a desk that nobody sits at.

use std::collections::BTreeMap;
use std::time::Duration;

use quinn::{Connection, ConnectionError};
use rustls_pki_types::CertificateDer;
use windlass_cache::{RealFs, StoreOptions};
use windlass_coordinator_core::row::{AgentRow, PoolRow, Rows, TagPolicy};
use windlass_coordinator_logs::Options;
use windlass_coordinator_store::{MemoryStore, Seq};
use windlass_protocol::host::now;
use windlass_protocol::identity::tls::agent_client_config;
use windlass_protocol::identity::{AgentKey, AgentName};
use windlass_protocol::job::Resources;
use windlass_protocol::link::transport::client_config;
use windlass_protocol::link::{FramedSend, bind_client, bind_server, connect};
use windlass_protocol::message::{AgentMessage, Hello};
use windlass_protocol::{TokenId, Trust, WallMs};

use super::*;
use crate::authority::Lives;
use crate::desk::{Inbox, channel};
use crate::views::reader::Offload;

const AGENT: AgentId = AgentId::from_bytes([7; 16]);
const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    board: Switchboard,
    server: Endpoint,
    client: Endpoint,
    key: AgentKey,
    chain: Vec<Vec<u8>>,
    _inbox: Inbox,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(revoked_at: Option<WallMs>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority =
            Arc::new(Authority::open(dir.path(), &["localhost".to_owned()], &[], Lives::default()).unwrap());
        let key = AgentKey::generate().unwrap();
        let name = AgentName { agent: AGENT, pool: "p".to_owned(), zone: "z".to_owned(), trust: Trust::Trusted };
        let chain = authority.issue(&key.csr().unwrap(), &name).unwrap();
        let views = Views::default();
        views.reset(&rows(&key, revoked_at), Seq(0));
        let (desk, inbox) = channel();
        let vfs = Arc::new(RealFs);
        let reader = Reader::new(views.clone(), Arc::new(MemoryStore::new().history()), Offload::Here);
        let issuer = Arc::new(crate::oidc::Issuer::open(dir.path(), "http://w".to_owned()).unwrap());
        let jobs = Arc::new(crate::job_desk::CoreJobDesk::new(desk.clone(), reader.clone(), Arc::clone(&issuer)));
        let ground = Ground {
            desk,
            views: views.clone(),
            reader,
            logs: LogStore::open(vfs.clone(), &dir.path().join("logs"), Options::default()).unwrap(),
            store: Store::open(vfs, &dir.path().join("cache"), StoreOptions::default()).unwrap(),
            authority: Arc::clone(&authority),
            jobs,
        };
        let server = bind_server("127.0.0.1:0".parse().unwrap(), authority.quic().unwrap()).unwrap();
        let board = Switchboard::default();
        let (serving, at) = (board.clone(), server.clone());
        tokio::spawn(async move { serving.serve(at, ground).await });
        Self { board, server, client: bind_client().unwrap(), key, chain, _inbox: inbox, _dir: dir }
    }

    async fn connect(&self, protocol: Protocol) -> Connection {
        let ca = CertificateDer::from(self.chain[1].clone());
        let tls = agent_client_config(&ca, &self.chain, &self.key, protocol.alpn()).unwrap();
        let address = self.server.local_addr().unwrap();
        connect(&self.client, address, protocol, client_config(tls).unwrap()).await.unwrap()
    }

    /// A control connection that has said hello, and its stream, which has to stay open.
    async fn hello(&self) -> (Connection, FramedSend) {
        let connection = self.connect(Protocol::Agent).await;
        let mut send = FramedSend::new(connection.open_bi().await.unwrap().0);
        send.send_message(&AgentMessage::Hello(hello())).await.unwrap();
        (connection, send)
    }
}

fn rows(key: &AgentKey, revoked_at: Option<WallMs>) -> Rows {
    let pool = PoolRow {
        name: "p".to_owned(),
        zone: "z".to_owned(),
        queues: vec![],
        trust: Trust::Trusted,
        tags: TagPolicy::Free(vec![]),
        lease_ms: 60_000,
        beat_ms: 5_000,
        paused: false,
        created_at: WallMs(1),
    };
    let agent = AgentRow {
        id: AGENT,
        name: "a".to_owned(),
        pool: "p".to_owned(),
        key: key.public_key_digest(),
        token: TokenId::from_bytes([1; 16]),
        machine_id: String::new(),
        tags: vec![],
        joined_at: now().wall,
        draining: false,
        drain_until: None,
        last_seen_at: None,
        revoked_at,
        gone: None,
    };
    let (pools, agents) = (BTreeMap::from([("p".to_owned(), pool)]), BTreeMap::from([(AGENT, agent)]));
    Rows { pools, agents, ..Rows::default() }
}

fn hello() -> Hello {
    Hello {
        name: "a".to_owned(),
        version: "1".to_owned(),
        machine_id: String::new(),
        boot_id: String::new(),
        slots: 1,
        capacity: Resources { cpu_millis: 1_000, memory_bytes: 1 << 30 },
        tags: vec![],
        runs_images: false,
        capabilities: vec![],
        held: vec![],
    }
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap();
}

/// The code that the coordinator ends a connection with.
async fn ended_with(connection: &Connection) -> Code {
    match tokio::time::timeout(DEADLINE, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(closed) => Code::from_number(closed.error_code.into_inner()),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_s_newer_control_connection_ends_the_older_one() {
    let world = World::new(None);
    let (first, _stream) = world.hello().await;
    until(|| world.board.connections() == 1).await;
    let (second, _stream) = world.hello().await;
    assert_eq!(ended_with(&first).await, Code::Replaced);
    until(|| world.board.connections() == 1).await;
    assert!(second.close_reason().is_none());
    assert!(world.board.current(AGENT).is_some(), "the newer one is the agent's");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_an_agent_ends_its_bulk_connection_at_once() {
    let world = World::new(None);
    let bulk = world.connect(Protocol::Bulk).await;
    until(|| world.board.lock().bulk.contains_key(&AGENT)).await;
    world.board.disconnect(AGENT, ConnId(1), RefuseCode::AgentRevoked, "revoked".to_owned());
    assert_eq!(ended_with(&bulk).await, Code::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_gets_no_bulk_connection() {
    let world = World::new(Some(WallMs(2)));
    let bulk = world.connect(Protocol::Bulk).await;
    assert_eq!(ended_with(&bulk).await, Code::Revoked);
}
