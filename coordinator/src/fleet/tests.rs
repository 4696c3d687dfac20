//! Agents' links over real QUIC on loopback, before a desk that nobody sits at.

use std::collections::BTreeMap;
use std::time::Duration;

use quinn::{Connection, ConnectionError};
use rustls_pki_types::CertificateDer;
use windlass_cache::{RealFs, StoreOptions};
use windlass_coordinator_core::row::{AgentRow, Change, OnDeadline, OnUnreachable, PoolRow, Rows, TagPolicy};
use windlass_coordinator_logs::Options;
use windlass_coordinator_store::{MemoryStore, Seq};
use windlass_protocol::host::now;
use windlass_protocol::identity::tls::agent_client_config;
use windlass_protocol::identity::{AgentIdentity, AgentKey, AgentName};
use windlass_protocol::job::{Epoch, Resources};
use windlass_protocol::link::transport::client_config;
use windlass_protocol::link::{FramedRecv, FramedSend, LinkError, bind_client, bind_server, connect};
use windlass_protocol::message::{
    AgentMessage, AskGrant, BlobHeader, BulkAsk, Claim, FetchBlobs, Grant, Hello, Peer, SignedGrant, Wanted,
};
use windlass_protocol::{AttemptId, BuildId, Digest, Namespace, Shelf, TokenId, Trust, WallMs};

use super::*;
use crate::authority::Lives;
use crate::desk::{Inbox, channel};
use crate::job_desk::CoreJobDesk;
use crate::vault::{KeySources, Vault};
use crate::views::reader::Offload;

const AGENT: AgentId = AgentId::from_bytes([7; 16]);
const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    board: Switchboard,
    server: Endpoint,
    client: Endpoint,
    key: AgentKey,
    chain: Vec<Vec<u8>>,
    authority: Arc<Authority>,
    store: Store,
    views: Views,
    _inbox: Inbox,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(revoked_at: Option<WallMs>) -> Self {
        Self::with(revoked_at, Lives::default().agent_ms)
    }

    /// The agent's first certificate lasts so long, and later ones as usual.
    fn with(revoked_at: Option<WallMs>, first_ms: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |lives| Arc::new(Authority::open(dir.path(), &["localhost".to_owned()], &[], lives).unwrap());
        let first = open(Lives { agent_ms: first_ms, ..Lives::default() });
        let authority = open(Lives::default());
        let key = AgentKey::generate().unwrap();
        let name = AgentName { agent: AGENT, pool: "p".to_owned(), zone: "z".to_owned(), trust: Trust::Trusted };
        let chain = first.issue(&key.csr().unwrap(), &name).unwrap();
        let views = Views::default();
        views.reset(&rows(&key, revoked_at), Seq(0));
        let (desk, inbox) = channel();
        let vfs = Arc::new(RealFs);
        let reader = Reader::new(views.clone(), Arc::new(MemoryStore::new().history()), Offload::Here);
        let store = Store::open(vfs.clone(), &dir.path().join("cache"), StoreOptions::default()).unwrap();
        let shelves = Shelves::new(store.clone());
        let uploads = Uploads::open(&store).unwrap();
        let vault = Arc::new(Vault::open(dir.path(), &KeySources::default(), [].iter()).unwrap());
        let issuer = Arc::new(crate::oidc::Issuer::open(dir.path(), "http://w".to_owned()).unwrap());
        let jobs = Arc::new(CoreJobDesk {
            desk: desk.clone(),
            reader: reader.clone(),
            shelves: shelves.clone(),
            url: String::new(),
            vault: Arc::clone(&vault),
            issuer,
        });
        let kept = store.clone();
        let shown = views.clone();
        let ground = Ground {
            desk,
            views: views.clone(),
            reader,
            logs: LogStore::open(vfs, &dir.path().join("logs"), Options::default()).unwrap(),
            store,
            uploads,
            shelves,
            authority: Arc::clone(&authority),
            jobs,
            vault,
        };
        let server = bind_server("127.0.0.1:0".parse().unwrap(), authority.quic().unwrap()).unwrap();
        let board = Switchboard::default();
        let (serving, at) = (board.clone(), server.clone());
        tokio::spawn(async move { serving.serve(at, ground).await });
        let client = bind_client().unwrap();
        Self { board, server, client, key, chain, authority, store: kept, views: shown, _inbox: inbox, _dir: dir }
    }

    async fn connect(&self, protocol: Protocol) -> Connection {
        let ca = CertificateDer::from(self.chain[1].clone());
        let tls = agent_client_config(&ca, &self.chain, &self.key, protocol.alpn()).unwrap();
        let address = self.server.local_addr().unwrap();
        connect(&self.client, address, protocol, client_config(tls).unwrap()).await.unwrap()
    }

    /// A control connection that has said hello, and its stream, which has to stay open.
    async fn hello(&self) -> (Connection, FramedSend) {
        let (connection, send, _) = self.talk().await;
        (connection, send)
    }

    async fn talk(&self) -> (Connection, FramedSend, FramedRecv) {
        let connection = self.connect(Protocol::Agent).await;
        let (send, recv) = connection.open_bi().await.unwrap();
        let mut send = FramedSend::new(send);
        send.send_message(&AgentMessage::Hello(hello())).await.unwrap();
        (connection, send, FramedRecv::new(recv))
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
        on_unreachable: OnUnreachable::Wait,
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
        on_deadline: OnDeadline::Requeue,
        last_seen_at: None,
        left: false,
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
        host: windlass_protocol::HostFacts::default(),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_breaks_a_rule_is_refused_with_the_rule_and_for_good() {
    let world = World::new(None);
    let connection = world.connect(Protocol::Agent).await;
    let (send, recv) = connection.open_bi().await.unwrap();
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    send.send_message(&AgentMessage::Hello(Hello { slots: 0, ..hello() })).await.unwrap();
    let said = tokio::time::timeout(DEADLINE, recv.recv_message::<CoordinatorMessage>()).await.unwrap();
    let (code, detail) = match said.unwrap().unwrap() {
        CoordinatorMessage::Refuse { code, detail } => (code, detail),
        other => panic!("{other:?}"),
    };
    assert_eq!((code, code.permanent()), (RefuseCode::Malformed, true));
    assert!(detail.contains("hello.slots") && detail.contains("1 to 512"), "{detail}");
    assert_eq!(ended_with(&connection).await, Code::Refused);
}

/// Seconds are what a certificate can say.
const SHORT_MS: u64 = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_s_connection_ends_with_its_certificate_and_says_why() {
    let world = World::with(None, SHORT_MS);
    let end = AgentIdentity::from_certificate(&world.chain[0]).unwrap().not_after;
    let (connection, _stream, mut said) = world.talk().await;
    let said = tokio::time::timeout(DEADLINE, said.recv_message::<CoordinatorMessage>()).await.unwrap();
    let code = match said.unwrap().unwrap() {
        CoordinatorMessage::Refuse { code, .. } => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code, RefuseCode::CertificateExpired);
    assert!(now().wall > end, "it was ended before its certificate");
    ended_with(&connection).await;
    until(|| world.board.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_renewed_in_time_keeps_the_connection_and_no_bulk_connection_outlives_its_own() {
    let world = World::with(None, SHORT_MS);
    let (connection, mut send, mut said) = world.talk().await;
    let bulk = world.connect(Protocol::Bulk).await;
    send.send_message(&AgentMessage::Renew { csr: world.key.csr().unwrap() }).await.unwrap();
    let renewed = tokio::time::timeout(DEADLINE, said.recv_message::<CoordinatorMessage>()).await.unwrap();
    assert!(matches!(renewed.unwrap().unwrap(), CoordinatorMessage::Certificate { .. }));
    assert_eq!(ended_with(&bulk).await, Code::Refused);
    let end = AgentIdentity::from_certificate(&world.chain[0]).unwrap().not_after;
    assert!(now().wall > end && connection.close_reason().is_none());
    assert_eq!(world.board.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_reads_nothing_is_ended_all_the_same() {
    let world = World::new(None);
    let (connection, _stream, _unread) = world.talk().await;
    until(|| world.board.current(AGENT).is_some()).await;
    let conn = world.board.current(AGENT).unwrap();
    // More than the stream's window takes, and less than the outbox.
    for _ in 0..100 {
        conn.say(CoordinatorMessage::Certificate { chain: vec![vec![0; 1_000_000]] });
    }
    conn.refuse(RefuseCode::AgentRevoked, "revoked".to_owned());
    assert_eq!(ended_with(&connection).await, Code::Refused);
}

/// What answers a request for blobs first.
async fn ask(bulk: &Connection, request: &BulkAsk) -> Result<Option<BlobHeader>, LinkError> {
    let (send, recv) = bulk.open_bi().await?;
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    send.send_message(request).await?;
    tokio::time::timeout(DEADLINE, recv.recv_message()).await.unwrap()
}

fn fetch(grant: SignedGrant, digest: Digest) -> BulkAsk {
    let by = Claim::Grant(Box::new(grant));
    BulkAsk::Fetch(FetchBlobs { by, wanted: Wanted::Parts(vec![digest]) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_shows_what_its_namespace_sees_and_none_is_given_without_a_lease() {
    let world = World::new(None);
    let bulk = world.connect(Protocol::Bulk).await;
    let (app, other) = (Namespace::trusted("app"), Namespace::trusted("other"));
    let kept = world.store.put(&app.on(Shelf::Artifacts), b"an artifact").unwrap();
    let grant = |agent: AgentId, namespace: &Namespace, zone: &str, expires_at: WallMs| {
        let (zone, trust, namespace) = (zone.to_owned(), Trust::Trusted, namespace.clone());
        world.authority.grant(Grant { agent, zone, trust, namespace, expires_at }, &nobody()).unwrap()
    };
    let soon = now().wall.plus_ms(60_000);
    let good = grant(AGENT, &app, "z", soon);
    assert_eq!(ask(&bulk, &fetch(good.clone(), kept)).await.unwrap(), Some(BlobHeader::Found { bytes: 11 }));
    let elsewhere = fetch(grant(AGENT, &other, "z", soon), kept);
    assert_eq!(ask(&bulk, &elsewhere).await.unwrap(), Some(BlobHeader::Absent), "as if nobody had it");
    let mut forged = grant(AGENT, &other, "z", soon);
    forged.grant.namespace = app.clone();
    let unknown = AgentId::from_bytes([99; 16]);
    let late = WallMs(now().wall.0 - 120_000);
    for (what, grant) in [
        ("forged", forged),
        ("of an agent that is not known", grant(unknown, &app, "z", soon)),
        ("of another zone", grant(AGENT, &app, "y", soon)),
        ("late", grant(AGENT, &app, "z", late)),
    ] {
        let refused = ask(&bulk, &fetch(grant, kept)).await;
        assert!(matches!(refused, Err(LinkError::Reset { code: Code::Refused })), "{what}: {refused:?}");
    }
    let (build, attempt) = (BuildId::from_bytes([3; 16]), AttemptId::from_bytes([1; 16]));
    let asked = ask(&bulk, &BulkAsk::Grant(AskGrant { build, attempt, epoch: Epoch(1) })).await;
    assert!(matches!(asked, Err(LinkError::Reset { code: Code::Refused })), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_serves_is_told_to_its_zone_and_is_gone_from_it_with_its_connection() {
    let world = World::new(None);
    let (connection, mut send, mut said) = world.talk().await;
    send.send_message(&AgentMessage::Serves { address: "10.0.0.7:9".to_owned() }).await.unwrap();
    let told = tokio::time::timeout(DEADLINE, said.recv_message::<CoordinatorMessage>()).await.unwrap();
    let (key, peers) = match told.unwrap().unwrap() {
        CoordinatorMessage::Peers { key, peers } => (key, peers),
        other => panic!("{other:?}"),
    };
    assert_eq!(key, world.authority.grant_key(&nobody()).unwrap());
    assert_eq!(peers, [Peer { agent: AGENT, address: "10.0.0.7:9".to_owned() }]);
    connection.close(Code::Done.number(), b"");
    until(|| world.board.shared.zones.is_empty()).await;
}

/// What stands for no agent that is revoked.
fn nobody() -> Digest {
    Digest::of(b"")
}

async fn told(said: &mut FramedRecv) -> [u8; 32] {
    let told = tokio::time::timeout(DEADLINE, said.recv_message::<CoordinatorMessage>()).await.unwrap();
    match told.unwrap().unwrap() {
        CoordinatorMessage::Peers { key, .. } => key,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_agent_is_revoked_no_peer_believes_the_grants_of_before() {
    let world = World::new(None);
    let bulk = world.connect(Protocol::Bulk).await;
    let (_connection, mut send, mut said) = world.talk().await;
    send.send_message(&AgentMessage::Serves { address: "10.0.0.7:9".to_owned() }).await.unwrap();
    let before = told(&mut said).await;
    let app = Namespace::trusted("app");
    let kept = world.store.put(&app, b"a blob").unwrap();
    let expires_at = now().wall.plus_ms(60_000);
    let grant = Grant { agent: AGENT, zone: "z".to_owned(), trust: Trust::Trusted, namespace: app, expires_at };
    let old = world.authority.grant(grant.clone(), &nobody()).unwrap();
    assert_eq!(ask(&bulk, &fetch(old.clone(), kept)).await.unwrap(), Some(BlobHeader::Found { bytes: 6 }));

    let mut other = rows(&AgentKey::generate().unwrap(), Some(now().wall)).agents.remove(&AGENT).unwrap();
    other.id = AgentId::from_bytes([98; 16]);
    world.views.publish(Seq(1), &[Change::Agent(Box::new(other))]);
    let after = told(&mut said).await;
    assert_ne!(before, after, "no peer takes what the other one was given");
    let refused = ask(&bulk, &fetch(old, kept)).await;
    assert!(matches!(refused, Err(LinkError::Reset { code: Code::Refused })), "{refused:?}");
    let revoked = *world.views.revoked().borrow();
    assert_eq!(after, world.authority.grant_key(&revoked).unwrap());
    let new = world.authority.grant(grant, &revoked).unwrap();
    assert_eq!(ask(&bulk, &fetch(new, kept)).await.unwrap(), Some(BlobHeader::Found { bytes: 6 }));
}
