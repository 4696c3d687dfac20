//! A spool on its way to a coordinator that the test plays, over real connections.

use std::path::Path;

use tokio::task::JoinHandle;
use windlass_agent_runner::spool::SpoolWriter;
use windlass_protocol::WallMs;
use windlass_protocol::link::FramedRecv;
use windlass_protocol::message::log::parse_chunk;

use super::*;
use crate::link_kit::{Link, in_time};

const ATTEMPT: AttemptId = AttemptId::from_bytes([3; 16]);

/// Bytes of which each piece tells where it is.
fn log_bytes(count: usize) -> Vec<u8> {
    (0_u64..).flat_map(|n| format!("{n:015}\n").into_bytes()).take(count).collect()
}

/// A log in a spool, and what steers its sending.
struct Log {
    dir: tempfile::TempDir,
    end: watch::Sender<u64>,
    acked: watch::Sender<u64>,
}

impl Log {
    fn of(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = SpoolWriter::new(&dir.path().join("spool"));
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[spool.append(WallMs(5), rest).unwrap()..];
        }
        Self { dir, end: watch::Sender::new(bytes.len() as u64), acked: watch::Sender::new(0) }
    }

    fn spool(&self) -> SpoolReader {
        SpoolReader::open(Path::new(&self.dir.path().join("spool")))
    }

    /// Sends it from here on.
    fn send(&self, connection: Connection, from: u64) -> JoinHandle<()> {
        let (end, acked) = (self.end.subscribe(), self.acked.subscribe());
        let sending = Sending { attempt: ATTEMPT, epoch: Epoch(4), from, end, acked, spool: self.spool() };
        tokio::spawn(send(connection, sending))
    }
}

/// What a coordinator is sent on one stream.
struct Taking {
    stream: FramedRecv,
    at: u64,
    bytes: Vec<u8>,
}

impl Taking {
    async fn begin(connection: &Connection) -> Self {
        let mut stream = FramedRecv::new(in_time(connection.accept_uni()).await.unwrap());
        let header: LogHeader = in_time(stream.recv_message()).await.unwrap().unwrap();
        assert_eq!((header.attempt, header.epoch), (ATTEMPT, Epoch(4)));
        Self { stream, at: header.offset, bytes: Vec::new() }
    }

    /// Takes chunks until it has come to this offset; each must follow the one before.
    async fn until(&mut self, offset: u64) {
        while self.at < offset {
            let frame = in_time(self.stream.recv()).await.unwrap().unwrap();
            let chunk = parse_chunk(&frame).unwrap();
            assert_eq!((chunk.offset, chunk.at), (self.at, WallMs(5)), "no gap, nothing twice");
            self.bytes.extend_from_slice(chunk.bytes);
            self.at += chunk.bytes.len() as u64;
        }
        assert_eq!(self.at, offset);
    }

    /// Whether nothing more comes, although there is time for it.
    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(100), self.stream.recv()).await.is_err()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_is_in_flight_than_the_limit_and_acknowledgements_out_of_order_change_nothing() {
    let limit = LOG_IN_FLIGHT_MAX_BYTES;
    let bytes = log_bytes(usize::try_from(limit).unwrap() + 3 * LOG_CHUNK_MAX_BYTES);
    let (log, mut link) = (Log::of(&bytes), Link::new());
    let (ours, theirs) = link.pair().await;
    let sending = log.send(ours, 0);
    let mut taking = Taking::begin(&theirs).await;
    taking.until(limit).await;
    assert!(taking.is_quiet().await, "the limit is in flight");
    let chunk = LOG_CHUNK_MAX_BYTES as u64;
    log.acked.send_replace(2 * chunk);
    taking.until(limit + 2 * chunk).await;
    // One that was overtaken: less is durable, as far as it knows. Nothing is sent again, and nothing more.
    log.acked.send_replace(chunk);
    assert!(taking.is_quiet().await);
    log.acked.send_replace(limit);
    taking.until(bytes.len() as u64).await;
    assert!(taking.bytes == bytes, "the bytes are others");
    assert!(!sending.is_finished(), "more may come");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_in_the_middle_ends_the_sending_and_the_next_one_goes_on_where_it_is_told() {
    let bytes = log_bytes(9 * LOG_CHUNK_MAX_BYTES + 77);
    let (log, mut link) = (Log::of(&bytes), Link::new());
    let (ours, theirs) = link.pair().await;
    let sending = log.send(ours, 0);
    let mut first = Taking::begin(&theirs).await;
    first.until(2 * LOG_CHUNK_MAX_BYTES as u64).await;
    theirs.close(0_u32.into(), b"gone");
    in_time(sending).await.unwrap();
    // The coordinator has made less durable than it had been sent, and that not at the end of a chunk.
    let durable = LOG_CHUNK_MAX_BYTES as u64 + 123;
    log.acked.send_replace(durable);
    let (ours, theirs) = link.pair().await;
    let _sending = log.send(ours, durable);
    let mut second = Taking::begin(&theirs).await;
    assert_eq!(second.at, durable);
    second.until(bytes.len() as u64).await;
    let kept = &first.bytes[..usize::try_from(durable).unwrap()];
    assert!([kept, &second.bytes].concat() == bytes, "the log has a hole, or something twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_core_was_not_told_of_is_not_sent_and_the_end_of_all_ends_the_sending() {
    let bytes = log_bytes(1_000);
    let (log, mut link) = (Log::of(&bytes), Link::new());
    log.end.send_replace(300);
    let (ours, theirs) = link.pair().await;
    let sending = log.send(ours, 100);
    let mut taking = Taking::begin(&theirs).await;
    taking.until(300).await;
    assert!(taking.is_quiet().await, "the spool has more");
    log.end.send_replace(1_000);
    taking.until(1_000).await;
    assert!(taking.bytes == bytes[100..]);
    drop(log);
    in_time(sending).await.unwrap();
}
