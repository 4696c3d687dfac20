//! How fast logs become durable, beside the disk's own rate of sequential writes with fdatasync in the same run; and
//! how long a line takes to a watcher. `cargo run --release -p windlass-coordinator-logs --example append_rate [DIR]`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a tool that prints figures and may fail"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use windlass_cache::{RealFs, Vfs};
use windlass_coordinator_logs::{Event, LogStore, Options};
use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, WallMs};

const TOTAL_BYTES: usize = 512 << 20;
const LINES: u32 = 5_000;

fn attempt(n: u8) -> AttemptId {
    AttemptId::from_bytes([n; 16])
}

/// MB/s of writing to one file and syncing it after every `sync_bytes`.
fn disk_rate(dir: &Path, sync_bytes: usize) -> f64 {
    let file = RealFs.create(&dir.join("plain")).unwrap();
    let block = vec![b'x'; sync_bytes];
    let start = Instant::now();
    for n in 0..TOTAL_BYTES / sync_bytes {
        file.write_at((n * sync_bytes) as u64, &block).unwrap();
        file.sync_data().unwrap();
    }
    let rate = TOTAL_BYTES as f64 / 1e6 / start.elapsed().as_secs_f64();
    RealFs.remove(&dir.join("plain")).unwrap();
    rate
}

/// MB/s from append to durable, of `logs` logs at once, in pieces of `piece_bytes`.
async fn append_rate(dir: &Path, logs: u8, piece_bytes: usize) -> (f64, u64) {
    let store = LogStore::open(Arc::new(RealFs), &dir.join("logs"), Options::default()).unwrap();
    let piece: Bytes = (0..piece_bytes).map(|n| b"a line of a log\n"[n % 16]).collect();
    let each = TOTAL_BYTES / usize::from(logs) / piece_bytes;
    let mut acks = store.acks();
    let start = Instant::now();
    for n in 0..logs {
        let (store, piece) = (store.clone(), piece.clone());
        tokio::spawn(async move {
            for i in 0..each {
                let offset = (i * piece.len()) as u64;
                store.append(attempt(n), Epoch(0), offset, WallMs(i as u64 / 100), piece.clone()).await.unwrap();
            }
        });
    }
    let total = (each * piece_bytes) as u64;
    let mut durable = vec![0; usize::from(logs)];
    while durable.iter().any(|bytes| *bytes < total) {
        for (id, offset) in acks.next().await.unwrap() {
            durable[usize::from(id.as_bytes()[0])] = offset;
        }
    }
    let rate = (total * u64::from(logs)) as f64 / 1e6 / start.elapsed().as_secs_f64();
    let commits = store.stats().commits;
    drop(store);
    std::fs::remove_dir_all(dir.join("logs")).unwrap();
    (rate, commits)
}

/// Milliseconds from append to a watcher and from append to durable at 1,000 lines/s: p50 and p99 of each.
async fn latencies(dir: &Path) -> [f64; 4] {
    let store = LogStore::open(Arc::new(RealFs), &dir.join("logs"), Options::default()).unwrap();
    let mut watcher = store.follow(attempt(1), 0).await.unwrap();
    let mut acks = store.acks();
    let sent = Arc::new(std::sync::Mutex::new(Vec::<Instant>::new()));
    let line = Bytes::from(vec![b'x'; 80]);
    let watching = tokio::spawn({
        let sent = Arc::clone(&sent);
        async move {
            let mut took = Vec::new();
            while took.len() < LINES as usize {
                let Event::Bytes(piece) = watcher.next().await.unwrap() else { break };
                took.push(sent.lock().unwrap()[usize::try_from(piece.offset / 80).unwrap()].elapsed());
            }
            took
        }
    });
    let acking = tokio::spawn({
        let sent = Arc::clone(&sent);
        async move {
            let mut took = Vec::new();
            while took.len() < LINES as usize {
                let durable = acks.next().await.unwrap()[&attempt(1)];
                let sent = sent.lock().unwrap();
                took.extend(sent[took.len()..usize::try_from(durable / 80).unwrap()].iter().map(Instant::elapsed));
            }
            took
        }
    });
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    for n in 0..LINES {
        tick.tick().await;
        sent.lock().unwrap().push(Instant::now());
        store.append(attempt(1), Epoch(0), u64::from(n) * 80, WallMs(0), line.clone()).await.unwrap();
    }
    let mut figures = [0.0; 4];
    for (i, took) in [watching.await.unwrap(), acking.await.unwrap()].iter_mut().enumerate() {
        took.sort();
        figures[2 * i] = took[took.len() / 2].as_secs_f64() * 1e3;
        figures[2 * i + 1] = took[took.len() * 99 / 100].as_secs_f64() * 1e3;
    }
    drop(store);
    std::fs::remove_dir_all(dir.join("logs")).unwrap();
    figures
}

#[tokio::main]
async fn main() {
    let base = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let dir = tempfile::tempdir_in(base).unwrap();
    for round in 0..2 {
        for sync_bytes in [1 << 20, 8 << 20] {
            let rate = disk_rate(dir.path(), sync_bytes);
            println!("round {round}: disk, write + fdatasync of {} MiB: {rate:.0} MB/s", sync_bytes >> 20);
        }
        for (logs, piece_bytes) in [(1, 4 << 10), (1, 64 << 10), (1, 256 << 10), (8, 4 << 10), (8, 64 << 10)] {
            let (rate, commits) = append_rate(dir.path(), logs, piece_bytes).await;
            let kib = piece_bytes >> 10;
            println!("round {round}: {logs} logs in {kib} KiB pieces, durable: {rate:.0} MB/s, {commits} syncs");
        }
        let [p50, p99, durable_p50, durable_p99] = latencies(dir.path()).await;
        println!(
            "round {round}: 1,000 lines/s: watcher p50 {p50:.2} p99 {p99:.2} ms, durable p50 {durable_p50:.2} p99 {durable_p99:.2} ms"
        );
    }
}
