//! The link over real sockets on loopback: who is let in, and what a peer that sends nonsense can do.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use windlass_protocol::frame::{self, BadFrame};
use windlass_protocol::id::AgentId;
use windlass_protocol::id::AttemptId;
use windlass_protocol::identity::{AgentKey, AgentName, Ca, Chain, Standing, tls};
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{
    CERT_LIFE_MS, FRAME_MAX_BYTES, LINK_BLOB_PIECE_BYTES, LINK_MTU_MAX_BYTES, LOG_CHUNK_MAX_BYTES,
};
use windlass_protocol::link::endpoint::peer_chain;
use windlass_protocol::link::error::ALERT_UNKNOWN_CA;
use windlass_protocol::link::{
    Accepted, Code, FramedRecv, FramedSend, LinkError, Protocol, accept, ask, bind_client, bind_known_server,
    bind_server, connect, transport,
};
use windlass_protocol::message::log::parse_chunk;
use windlass_protocol::message::{BlobHeader, LogHeader};
use windlass_protocol::{Secret, Trust, WallMs};

const DEADLINE: Duration = Duration::from_secs(20);

fn now() -> WallMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    WallMs(u64::try_from(since.as_millis()).unwrap())
}

/// A server that hands every accepted or failed connection to the test.
struct Server {
    address: SocketAddr,
    taken: mpsc::Receiver<Result<Accepted, LinkError>>,
    _endpoint: Endpoint,
}

impl Server {
    fn start(ca: &Ca) -> Self {
        let certificate = ca.issue_server(&[], &[], WallMs(now().0 - 60_000), CERT_LIFE_MS).unwrap();
        let config = tls::quic_server_config(&certificate, ca.certificate_der()).unwrap();
        let config = transport::server_config(config).unwrap();
        let endpoint = bind_server("127.0.0.1:0".parse().unwrap(), config).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (to_test, taken) = mpsc::channel(16);
        let listening = endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = listening.accept().await {
                let to_test = to_test.clone();
                tokio::spawn(async move {
                    let _ = to_test.send(accept(incoming).await).await;
                });
            }
        });
        Self { address, taken, _endpoint: endpoint }
    }

    async fn next(&mut self) -> Result<Accepted, LinkError> {
        timeout(DEADLINE, self.taken.recv()).await.expect("a connection within the deadline").unwrap()
    }
}

struct Agent {
    endpoint: Endpoint,
    key: AgentKey,
    chain: Chain,
    ca: Vec<u8>,
}

impl Agent {
    fn of(ca: &Ca, not_before: WallMs) -> Self {
        let key = AgentKey::generate().unwrap();
        let name = AgentName {
            agent: AgentId::from_bytes([7; 16]),
            pool: "linux/big".to_owned(),
            zone: "prod-corp".to_owned(),
            trust: Trust::Trusted,
        };
        let chain = ca.issue_agent(&key.csr().unwrap(), &name, not_before, CERT_LIFE_MS).unwrap();
        Self { endpoint: bind_client().unwrap(), key, chain, ca: ca.certificate_der().to_vec() }
    }

    async fn connect(&self, address: SocketAddr, protocol: Protocol) -> Result<Connection, LinkError> {
        let ca = self.ca.clone().into();
        let config = tls::agent_client_config(&ca, &self.chain, &self.key, protocol.alpn()).unwrap();
        connect(&self.endpoint, address, protocol, transport::client_config(config).unwrap()).await
    }
}

/// An agent's and the server's end of one connection.
async fn pair(ca: &Ca, protocol: Protocol) -> (Server, Agent, Connection, Accepted) {
    let mut server = Server::start(ca);
    let agent = Agent::of(ca, WallMs(now().0 - 60_000));
    let ours = agent.connect(server.address, protocol).await.unwrap();
    let theirs = server.next().await.unwrap();
    (server, agent, ours, theirs)
}

#[tokio::test]
async fn an_agent_is_known_by_its_certificate() {
    let ca = Ca::create(now()).unwrap();
    for protocol in [Protocol::Agent, Protocol::Bulk] {
        let (_server, agent, ours, theirs) = pair(&ca, protocol).await;
        assert_eq!(theirs.protocol, protocol);
        let peer = theirs.peer.unwrap();
        assert_eq!((peer.pool.as_str(), peer.zone.as_str(), peer.trust), ("linux/big", "prod-corp", Trust::Trusted));
        assert_eq!(peer.public_key_digest, agent.key.public_key_digest());
        assert_eq!(peer.standing(now()), Standing::Valid);
        assert_eq!(peer_chain(&ours)[1], *ca.certificate_der());
    }
}

#[test]
fn a_peer_of_a_server_that_died_is_told_so_by_the_next_one() {
    let (ca, secret) = (Ca::create(now()).unwrap(), Secret::new("the same for both".to_owned()));
    let serve = |address: SocketAddr| {
        let certificate = ca.issue_server(&[], &[], WallMs(now().0 - 60_000), CERT_LIFE_MS).unwrap();
        let config = tls::quic_server_config(&certificate, ca.certificate_der()).unwrap();
        bind_known_server(address, transport::server_config(config).unwrap(), &secret).unwrap()
    };
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (first, second, client) = (runtime(), runtime(), runtime());
    let (address, taken) = {
        let endpoint = first.block_on(async { serve("127.0.0.1:0".parse().unwrap()) });
        let address = endpoint.local_addr().unwrap();
        (address, first.spawn(async move { (accept(endpoint.accept().await.unwrap()).await.unwrap(), endpoint) }))
    };
    let agent = client.block_on(async { Agent::of(&ca, WallMs(now().0 - 60_000)) });
    let ours = client.block_on(agent.connect(address, Protocol::Agent)).unwrap();
    let held = first.block_on(taken).unwrap();
    // It dies as a killed process does: without a word.
    drop(first);
    drop(held);
    let _endpoint = second.block_on(async { serve(address) });
    client.block_on(async {
        ours.open_uni().await.unwrap().write_all(b"are you there?").await.unwrap();
        let told = timeout(Duration::from_secs(5), ours.closed()).await.expect("told within the deadline");
        assert!(matches!(told, ConnectionError::Reset), "{told}");
    });
}

#[tokio::test]
async fn an_expired_agent_gets_in_and_is_flagged_as_renewing_only() {
    let ca = Ca::create(WallMs(now().0 - 10 * CERT_LIFE_MS)).unwrap();
    let mut server = Server::start(&ca);
    let agent = Agent::of(&ca, WallMs(now().0 - CERT_LIFE_MS - 60_000));
    let _ours = agent.connect(server.address, Protocol::Agent).await.unwrap();
    let peer = server.next().await.unwrap().peer.unwrap();
    assert_eq!(peer.standing(now()), Standing::RenewOnly);

    let long_gone = Agent::of(&ca, WallMs(now().0 - 9 * CERT_LIFE_MS));
    let _ours = long_gone.connect(server.address, Protocol::Agent).await;
    assert!(matches!(server.next().await, Err(LinkError::Handshake { .. })));
}

#[tokio::test]
async fn an_agent_of_another_ca_is_refused_on_both_sides() {
    let (ca, other) = (Ca::create(now()).unwrap(), Ca::create(now()).unwrap());
    let mut server = Server::start(&ca);
    let mut stranger = Agent::of(&other, WallMs(now().0 - 60_000));
    let refused = stranger.connect(server.address, Protocol::Agent).await;
    assert!(
        matches!(refused, Err(LinkError::Handshake { .. })),
        "the stranger does not believe the server: {refused:?}"
    );
    assert!(matches!(server.next().await, Err(LinkError::Handshake { .. })));
    // Even if it believes the server, the server does not believe it.
    stranger.ca = ca.certificate_der().to_vec();
    if let Ok(connection) = stranger.connect(server.address, Protocol::Agent).await {
        let error = LinkError::from(timeout(DEADLINE, connection.closed()).await.unwrap());
        assert!(matches!(error, LinkError::Handshake { .. }), "{error}");
    }
    assert!(matches!(server.next().await, Err(LinkError::Handshake { .. })));
}

#[tokio::test]
async fn a_client_without_certificate_may_only_enrol() {
    let ca = Ca::create(now()).unwrap();
    let mut server = Server::start(&ca);
    let endpoint = bind_client().unwrap();
    let config = |protocol: Protocol| {
        let mut config = tls::enrol_client_config(ca.fingerprint()).unwrap();
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        transport::client_config(config).unwrap()
    };
    for protocol in [Protocol::Agent, Protocol::Bulk] {
        let connection = connect(&endpoint, server.address, protocol, config(protocol)).await.unwrap();
        assert!(matches!(server.next().await, Err(LinkError::NoCertificate)));
        let error = LinkError::from(timeout(DEADLINE, connection.closed()).await.unwrap());
        assert!(matches!(error, LinkError::Closed { code: Code::NoCertificate, .. }), "{error}");
    }
    let connection = connect(&endpoint, server.address, Protocol::Enrol, config(Protocol::Enrol)).await.unwrap();
    let theirs = server.next().await.unwrap();
    assert_eq!((theirs.protocol, theirs.peer.is_none()), (Protocol::Enrol, true));
    let answering = tokio::spawn(async move {
        let (send, recv) = theirs.connection.accept_bi().await.unwrap();
        let request: BlobHeader = FramedRecv::new(recv).recv_message().await.unwrap().unwrap();
        let mut send = FramedSend::new(send);
        send.send_message(&request).await.unwrap();
        send.finish().unwrap();
        send.delivered().await.unwrap();
    });
    let question = BlobHeader::Found { bytes: 5 };
    let answer: BlobHeader = timeout(DEADLINE, ask(&connection, &question)).await.unwrap().unwrap();
    assert_eq!(answer, question);
    answering.await.unwrap();
}

#[tokio::test]
async fn a_joining_agent_sends_nothing_to_a_server_of_another_ca() {
    let (ca, other) = (Ca::create(now()).unwrap(), Ca::create(now()).unwrap());
    let mut server = Server::start(&other);
    let endpoint = bind_client().unwrap();
    let config = transport::client_config(tls::enrol_client_config(ca.fingerprint()).unwrap()).unwrap();
    let refused = connect(&endpoint, server.address, Protocol::Enrol, config).await;
    assert!(
        matches!(refused, Err(LinkError::Handshake { by_peer: false, alert: ALERT_UNKNOWN_CA, .. })),
        "{refused:?}"
    );
    // There was never a connection on which a request could have come.
    let told = server.next().await;
    assert!(matches!(told, Err(LinkError::Handshake { by_peer: true, alert: ALERT_UNKNOWN_CA, .. })), "{told:?}");
}

#[tokio::test]
async fn a_peer_of_another_version_is_told_so() {
    let ca = Ca::create(now()).unwrap();
    let mut server = Server::start(&ca);
    let endpoint = bind_client().unwrap();
    let mut config = tls::enrol_client_config(ca.fingerprint()).unwrap();
    config.alpn_protocols = vec![b"windlass/99".to_vec()];
    let config = transport::client_config(config).unwrap();
    let refused = connect(&endpoint, server.address, Protocol::Enrol, config).await;
    assert!(matches!(refused, Err(LinkError::NoCommonVersion)), "{refused:?}");
    assert!(matches!(server.next().await, Err(LinkError::NoCommonVersion)));
}

#[tokio::test]
async fn an_oversized_frame_ends_its_stream_and_nothing_else() {
    let ca = Ca::create(now()).unwrap();
    let (_server, _agent, ours, theirs) = pair(&ca, Protocol::Agent).await;
    let mut flipped = Vec::new();
    frame::encode(&[5; 100], &mut flipped).unwrap();
    flipped[50] ^= 1;
    let oversized = [(FRAME_MAX_BYTES + 1).to_le_bytes(), [0; 4]].concat();
    for (bytes, want_size) in [(oversized, true), (flipped, false)] {
        let mut raw = ours.open_uni().await.unwrap();
        raw.write_all(&bytes).await.unwrap();
        let mut recv = FramedRecv::new(timeout(DEADLINE, theirs.connection.accept_uni()).await.unwrap().unwrap());
        for _ in 0..2 {
            match timeout(DEADLINE, recv.recv()).await.unwrap() {
                Err(LinkError::BadFrame(BadFrame::TooLarge { .. })) => assert!(want_size),
                Err(LinkError::BadFrame(BadFrame::Checksum { .. })) => assert!(!want_size),
                other => panic!("{other:?}"),
            }
        }
        let told = timeout(DEADLINE, raw.stopped()).await.unwrap().unwrap();
        assert_eq!(told, Some(Code::BadFrame.number()));
    }
    // The same connection still serves.
    let mut send = FramedSend::new(ours.open_uni().await.unwrap());
    send.send(Bytes::from_static(b"still here")).await.unwrap();
    let mut recv = FramedRecv::new(theirs.connection.accept_uni().await.unwrap());
    assert_eq!(timeout(DEADLINE, recv.recv()).await.unwrap().unwrap().unwrap().as_slice(), b"still here");
}

#[tokio::test]
async fn a_frame_of_another_type_stops_the_stream_with_a_code() {
    let ca = Ca::create(now()).unwrap();
    let (_server, _agent, ours, theirs) = pair(&ca, Protocol::Agent).await;
    let mut send = FramedSend::new(ours.open_uni().await.unwrap());
    send.send(Bytes::from_static(b"not a log header")).await.unwrap();
    let mut recv = FramedRecv::new(theirs.connection.accept_uni().await.unwrap());
    let got = timeout(DEADLINE, recv.recv_message::<LogHeader>()).await.unwrap();
    assert!(matches!(got, Err(LinkError::BadMessage(_))), "{got:?}");
    let told = timeout(DEADLINE, send.delivered()).await.unwrap();
    assert!(matches!(told, Err(LinkError::Stopped { code: Code::BadMessage })), "{told:?}");

    // One of the right shape that says what nobody may say: epoch 0 is never granted.
    let mut send = FramedSend::new(ours.open_uni().await.unwrap());
    let senseless = LogHeader { attempt: AttemptId::from_bytes([1; 16]), epoch: Epoch(0), offset: 0 };
    send.send_message(&senseless).await.unwrap();
    let mut recv = FramedRecv::new(theirs.connection.accept_uni().await.unwrap());
    let got = timeout(DEADLINE, recv.recv_message::<LogHeader>()).await.unwrap();
    assert!(matches!(got, Err(LinkError::Invalid(_))), "{got:?}");
    let told = timeout(DEADLINE, send.delivered()).await.unwrap();
    assert!(matches!(told, Err(LinkError::Stopped { code: Code::BadMessage })), "{told:?}");
}

#[tokio::test]
async fn frames_of_every_size_arrive_though_the_receiver_keeps_being_interrupted() {
    let ca = Ca::create(now()).unwrap();
    let (_server, _agent, ours, theirs) = pair(&ca, Protocol::Agent).await;
    let sizes: Vec<usize> = [0, 1, 7, 1_200, 16 << 10, (16 << 10) + 1, 300_000, FRAME_MAX_BYTES as usize].repeat(3);
    let sent = sizes.clone();
    let sending = tokio::spawn(async move {
        let mut send = FramedSend::new(ours.open_uni().await.unwrap());
        for (number, size) in sent.into_iter().enumerate() {
            send.send(Bytes::from(vec![u8::try_from(number).unwrap(); size])).await.unwrap();
        }
        send.finish().unwrap();
        send.delivered().await.unwrap();
        ours
    });
    let mut recv = FramedRecv::new(theirs.connection.accept_uni().await.unwrap());
    let mut interrupted = 0;
    for (number, size) in sizes.into_iter().enumerate() {
        let payload = loop {
            tokio::select! {
                biased;
                got = recv.recv() => break got.unwrap().unwrap(),
                () = tokio::task::yield_now() => interrupted += 1,
            }
        };
        assert_eq!(payload.as_slice(), vec![u8::try_from(number).unwrap(); size], "frame {number}");
        assert!(size == 0 || payload.as_ptr().addr().is_multiple_of(16));
    }
    assert!(timeout(DEADLINE, recv.recv()).await.unwrap().unwrap().is_none());
    assert!(interrupted > 0, "the test interrupts");
    sending.await.unwrap();
}

#[tokio::test]
async fn a_send_that_was_abandoned_halfway_lets_nothing_follow() {
    let ca = Ca::create(now()).unwrap();
    let (_server, _agent, ours, theirs) = pair(&ca, Protocol::Agent).await;
    let mut send = FramedSend::new(ours.open_uni().await.unwrap());
    // More than the receiver's window, so that the send cannot end while nobody reads.
    let piece = Bytes::from(vec![1; FRAME_MAX_BYTES as usize]);
    let mut sent = 0;
    while timeout(Duration::from_millis(200), send.send(piece.clone())).await.is_ok() {
        sent += 1;
        assert!(sent < 100, "the window is bounded");
    }
    let next = timeout(DEADLINE, send.send(Bytes::new())).await.expect("an answer, not a wait");
    assert!(matches!(next, Err(LinkError::Interrupted)), "{next:?}");
    assert!(matches!(send.finish(), Err(LinkError::Interrupted)));
    let mut recv = FramedRecv::new(theirs.connection.accept_uni().await.unwrap());
    let ended = loop {
        match timeout(DEADLINE, recv.recv()).await.unwrap() {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(ended, Err(LinkError::Reset { code: Code::Canceled })), "{ended:?}");
}

#[tokio::test]
async fn log_chunks_and_blobs_travel_beside_messages() {
    let ca = Ca::create(now()).unwrap();
    let (_server, _agent, ours, theirs) = pair(&ca, Protocol::Bulk).await;
    let blob: Arc<Vec<u8>> = Arc::new((0..3_000_000_u32).flat_map(u32::to_le_bytes).collect());
    let chunk = Bytes::from(vec![3; LOG_CHUNK_MAX_BYTES]);
    let (sent_blob, sent_chunk) = (blob.clone(), chunk.clone());
    let sending = tokio::spawn(async move {
        let mut send = FramedSend::new(ours.open_uni().await.unwrap());
        let bytes = sent_blob.len() as u64;
        for _ in 0..2 {
            send.send_message(&BlobHeader::Found { bytes }).await.unwrap();
            send.send_raw(Bytes::copy_from_slice(&sent_blob)).await.unwrap();
        }
        send.send_log_chunk(77, WallMs(5), sent_chunk).await.unwrap();
        send.send_message(&BlobHeader::Found { bytes: 10 }).await.unwrap();
        send.send_raw(Bytes::from_static(b"short")).await.unwrap();
        send.finish().unwrap();
        send.delivered().await.unwrap();
    });
    let mut recv = FramedRecv::new(theirs.connection.accept_uni().await.unwrap());
    for _ in 0..2 {
        let header: BlobHeader = recv.recv_message().await.unwrap().unwrap();
        assert_eq!(header, BlobHeader::Found { bytes: blob.len() as u64 });
        let got = timeout(DEADLINE, received(&mut recv, blob.len() as u64)).await.unwrap().unwrap();
        assert!(got == *blob);
    }
    let payload = recv.recv().await.unwrap().unwrap();
    let parsed = parse_chunk(&payload).unwrap();
    assert_eq!((parsed.offset, parsed.at, parsed.bytes), (77, WallMs(5), &chunk[..]));
    let _: BlobHeader = recv.recv_message().await.unwrap().unwrap();
    let short = received(&mut recv, 10).await;
    assert!(matches!(short, Err(LinkError::Short { missing: 5 })), "{short:?}");
    sending.await.unwrap();
}

#[tokio::test]
async fn raw_bytes_that_have_come_are_received_together_and_the_end_after_them_is_still_told() {
    let ca = Ca::create(now()).unwrap();
    let (_server, _agent, ours, theirs) = pair(&ca, Protocol::Bulk).await;
    let blob: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut send = FramedSend::new(ours.open_uni().await.unwrap());
    send.send_raw(Bytes::from(blob.clone())).await.unwrap();
    send.finish().unwrap();
    let mut recv = FramedRecv::new(theirs.connection.accept_uni().await.unwrap());
    // All of it is in this end's QUIC by then.
    send.delivered().await.unwrap();
    let mut got = Vec::new();
    for wanted in [10, LINK_BLOB_PIECE_BYTES, 300_000 - 10 - LINK_BLOB_PIECE_BYTES] {
        let missing = if got.is_empty() { 10 } else { (blob.len() - got.len()) as u64 };
        let piece = recv.recv_raw(missing).await.unwrap();
        assert_eq!(piece.len(), wanted);
        got.extend_from_slice(&piece);
    }
    assert!(got == blob);
    let short = recv.recv_raw(1).await;
    assert!(matches!(short, Err(LinkError::Short { missing: 1 })), "{short:?}");
}

/// A way between one client and a server that takes packets up to a length and drops the others without a word.
struct Narrow {
    address: SocketAddr,
    takes: Arc<AtomicUsize>,
}

impl Narrow {
    async fn to(server: SocketAddr, takes: usize) -> Self {
        let (near, far) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        far.connect(server).await.unwrap();
        let (address, takes) = (near.local_addr().unwrap(), Arc::new(AtomicUsize::new(takes)));
        let most = Arc::clone(&takes);
        tokio::spawn(async move {
            let (mut there, mut back, mut client) = ([0; 65_536], [0; 65_536], None);
            loop {
                let fits = |bytes: &usize| *bytes <= most.load(Ordering::Relaxed);
                tokio::select! {
                    Ok((bytes, from)) = near.recv_from(&mut there) => {
                        client = Some(from);
                        if fits(&bytes) {
                            let _ = far.send(&there[..bytes]).await;
                        }
                    }
                    Ok(bytes) = far.recv(&mut back) => {
                        if let Some(client) = client.filter(|_| fits(&bytes)) {
                            let _ = near.send_to(&back[..bytes], client).await;
                        }
                    }
                }
            }
        });
        Self { address, takes }
    }
}

/// Sends a blob and waits until all of it was acknowledged.
async fn carry(from: &Connection, to: &Connection) {
    let blob = Bytes::from(vec![7; 1 << 20]);
    let mut send = FramedSend::new(from.open_uni().await.unwrap());
    send.send_raw(blob.clone()).await.unwrap();
    send.finish().unwrap();
    let mut recv = FramedRecv::new(to.accept_uni().await.unwrap());
    assert!(received(&mut recv, blob.len() as u64).await.unwrap() == blob);
    send.delivered().await.unwrap();
}

/// Carries blobs both ways until both ends send packets of such a length.
async fn until_packets_have(from: &Connection, to: &Connection, length: RangeInclusive<u16>) {
    let settled = async {
        while ![from, to].iter().all(|end| length.contains(&end.stats().path.current_mtu)) {
            carry(from, to).await;
            carry(to, from).await;
        }
    };
    let settled = timeout(DEADLINE, settled).await;
    assert!(settled.is_ok(), "{:?}", [from, to].map(|end| end.stats().path.current_mtu));
}

#[tokio::test]
async fn packets_are_as_long_as_their_way_takes_and_shorter_again_when_it_takes_less() {
    let ca = Ca::create(now()).unwrap();
    let mut server = Server::start(&ca);
    let agent = Agent::of(&ca, WallMs(now().0 - 60_000));
    let way = Narrow::to(server.address, usize::MAX).await;
    let ours = agent.connect(way.address, Protocol::Bulk).await.unwrap();
    let theirs = server.next().await.unwrap().connection;
    until_packets_have(&ours, &theirs, LINK_MTU_MAX_BYTES - 20..=LINK_MTU_MAX_BYTES).await;
    way.takes.store(1_472, Ordering::Relaxed);
    until_packets_have(&ours, &theirs, 1_200..=1_472).await;

    let ethernet = Narrow::to(server.address, 1_472).await;
    let ours = agent.connect(ethernet.address, Protocol::Bulk).await.unwrap();
    let theirs = server.next().await.unwrap().connection;
    until_packets_have(&ours, &theirs, 1_440..=1_472).await;
}

async fn received(recv: &mut FramedRecv, bytes: u64) -> Result<Vec<u8>, LinkError> {
    let mut got = Vec::new();
    while (got.len() as u64) < bytes {
        got.extend_from_slice(&recv.recv_raw(bytes - got.len() as u64).await?);
    }
    Ok(got)
}

/// The end of a connection is one packet: while others wait to be acknowledged it must not wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_is_let_in_and_sent_away_at_once_hears_why() {
    let ca = Ca::create(now()).unwrap();
    for _ in 0..200 {
        let (_server, _agent, ours, theirs) = pair(&ca, Protocol::Bulk).await;
        theirs.connection.close(Code::Refused.number(), b"not you");
        let heard = timeout(DEADLINE, ours.closed()).await.unwrap();
        assert!(matches!(heard, ConnectionError::ApplicationClosed(_)), "{heard:?}");
    }
}
