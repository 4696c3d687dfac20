//! The link's own rate on loopback, for later reference: one uni stream of 256 KiB frames, both ends in this process.
//! Rounds are interleaved and the median is shown, since a shared machine is not quiet.
//!
//! `cargo run --release -p windlass-protocol --features link --example link_rate`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for people")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use quinn::{AckFrequencyConfig, Connection, Endpoint, TransportConfig, VarInt};
use tokio::runtime::Runtime;
use windlass_protocol::id::AgentId;
use windlass_protocol::identity::{AgentKey, AgentName, Ca, tls};
use windlass_protocol::limits::LINK_WINDOW_BYTES;
use windlass_protocol::link::{FramedRecv, FramedSend, Protocol, accept, bind_client, bind_server, connect, transport};
use windlass_protocol::{Trust, WallMs};

const FRAME_BYTES: usize = 256 << 10;
const RUN: Duration = Duration::from_secs(1);
const ROUNDS: usize = 9;

fn variants() -> Vec<(&'static str, TransportConfig)> {
    let wide = || {
        let mut config = transport::transport_config();
        config.receive_window(VarInt::from_u32(LINK_WINDOW_BYTES));
        config
    };
    let acks = |every: u32| {
        let mut config = wide();
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(every));
        config.ack_frequency_config(Some(acks));
        config
    };
    let mut bbr = wide();
    bbr.congestion_controller_factory(Arc::new(quinn::congestion::BbrConfig::default()));
    let mut no_acks = wide();
    no_acks.ack_frequency_config(None);
    vec![
        ("as it is", wide()),
        ("quinn's own acknowledgements", no_acks),
        ("an acknowledgement every 10", acks(10)),
        ("every 24", acks(24)),
        ("every 64", acks(64)),
        ("BBR", bbr),
        ("quinn's defaults", TransportConfig::default()),
    ]
}

async fn pair(config: TransportConfig) -> (Endpoint, Endpoint, Connection, Connection) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let before = WallMs(u64::try_from(now.as_millis()).unwrap() - 60_000);
    let ca = Ca::create(before).unwrap();
    let (life, config) = (3_600_000, Arc::new(config));
    let certificate = ca.issue_server(&[], &[], before, life).unwrap();
    let server = tls::quic_server_config(&certificate, ca.certificate_der()).unwrap();
    let mut server = transport::server_config(server).unwrap();
    server.transport_config(config.clone());
    let server = bind_server("127.0.0.1:0".parse().unwrap(), server).unwrap();
    let key = AgentKey::generate().unwrap();
    let (pool, zone) = ("p".to_owned(), "z".to_owned());
    let name = AgentName { agent: AgentId::from_bytes([1; 16]), pool, zone, trust: Trust::Trusted };
    let chain = ca.issue_agent(&key.csr().unwrap(), &name, before, life).unwrap();
    let client = tls::agent_client_config(ca.certificate_der(), &chain, &key, Protocol::Bulk.alpn()).unwrap();
    let mut client = transport::client_config(client).unwrap();
    client.transport_config(config);
    let endpoint = bind_client().unwrap();
    let address = server.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(connect(&endpoint, address, Protocol::Bulk, client), async {
        accept(server.accept().await.unwrap()).await
    });
    (server, endpoint, ours.unwrap(), theirs.unwrap().connection)
}

async fn rate(config: TransportConfig) -> f64 {
    let (_server, _endpoint, ours, theirs) = pair(config).await;
    let sending = tokio::spawn(async move {
        let mut send = FramedSend::new(ours.open_uni().await.unwrap());
        let frame = Bytes::from(vec![0xA5; FRAME_BYTES]);
        let start = Instant::now();
        while start.elapsed() < RUN {
            send.send(frame.clone()).await.unwrap();
        }
        send.finish().unwrap();
        send.delivered().await.unwrap();
        ours
    });
    let mut recv = FramedRecv::new(theirs.accept_uni().await.unwrap());
    let (start, mut bytes) = (Instant::now(), 0_usize);
    while let Some(frame) = recv.recv().await.unwrap() {
        bytes += frame.len();
    }
    let seconds = start.elapsed().as_secs_f64();
    drop(sending.await.unwrap());
    f64::from(u32::try_from(bytes >> 10).unwrap()) * 1_024.0 / 1e6 / seconds
}

fn main() {
    let mut rates = vec![Vec::new(); variants().len()];
    for _ in 0..ROUNDS {
        for (rates, (_, config)) in rates.iter_mut().zip(variants()) {
            rates.push(Runtime::new().unwrap().block_on(rate(config)));
        }
    }
    for (mut rates, (name, _)) in rates.into_iter().zip(variants()) {
        rates.sort_by(f64::total_cmp);
        println!("{name:<30} median {:>5.0} MB/s, {:.0} to {:.0}", rates[ROUNDS / 2], rates[0], rates[ROUNDS - 1]);
    }
}
