//! Prints what the store does here beside its limits: durable puts and reads of small blobs, existence checks and memory with
//! ten million of them, opening such a store from its segments and from the copy of its table, writing that copy, and compaction. The figures in
//! docs/design/031 and 037 come from it.
//!
//! ```text
//! cargo run --release -p windlass-cache --example store_rates [-- BLOBS [DIRECTORY]]
//! ```
//! Ten million blobs take 2 GB of disk while it runs.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, reason = "a tool that prints figures")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use windlass_cache::{RealFs, Store, StoreOptions};
use windlass_protocol::limits::MEMORY_MAX_BYTES;
use windlass_protocol::{Digest, Namespace};

const SMALL_BYTES: usize = 4_096;
const SMALL_BLOBS: usize = 10_000;
const WRITERS: usize = 64;
const CHECKS: usize = 10_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let blobs = arguments.next().map_or(10_000_000, |text| text.parse().unwrap());
    let within = arguments.next().map(PathBuf::from);
    let fresh = || within.as_ref().map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    println!("| what | here | limit | ratio |\n| --- | --- | --- | --- |");
    small(fresh().path());
    many(fresh().path(), blobs);
    compaction(fresh().path());
}

fn row(what: &str, here: f64, unit: &str, limit: Option<f64>) {
    match limit {
        Some(limit) => println!("| {what} | {here:.1} {unit} | {limit} {unit} | {:.2} |", here / limit),
        None => println!("| {what} | {here:.1} {unit} | | |"),
    }
}

fn open(dir: &Path) -> Store {
    Store::open(Arc::new(RealFs), dir, StoreOptions::default()).unwrap()
}

fn noise(seed: usize, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Puts and reads of 4 KiB: alone by many threads at once, and in one batch.
fn small(dir: &Path) {
    let store = open(dir);
    let name = Namespace::trusted("p");
    let blobs: Vec<Vec<u8>> = (0..2 * SMALL_BLOBS).map(|n| noise(n, SMALL_BYTES)).collect();
    let (alone, batch) = blobs.split_at(SMALL_BLOBS);
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                while let Some(blob) = alone.get(next.fetch_add(1, Ordering::Relaxed)) {
                    store.put(&name, blob).unwrap();
                }
            });
        }
    });
    let rate = |began: Instant| SMALL_BLOBS as f64 / began.elapsed().as_secs_f64();
    row(&format!("durable puts of 4 KiB, {WRITERS} callers"), rate(began), "/s", Some(10_000.0));
    let began = Instant::now();
    store.put_many(&name, batch).unwrap();
    row("durable puts of 4 KiB, one batch", rate(began), "/s", Some(10_000.0));
    drop(store);
    let digests: Vec<Digest> = alone.iter().map(|blob| Digest::of(blob)).collect();
    for (memory, memory_bytes) in [("without a tier in memory", 0), ("with it", MEMORY_MAX_BYTES)] {
        let options = StoreOptions { memory_bytes, ..StoreOptions::default() };
        let store = Store::open(Arc::new(RealFs), dir, options).unwrap();
        for again in ["", ", again", ", once more"] {
            let began = Instant::now();
            for digest in &digests {
                assert_eq!(store.get(&name, digest).unwrap().unwrap().len(), SMALL_BYTES as u64);
            }
            row(&format!("reads of 4 KiB, one thread, {memory}{again}"), rate(began), "/s", None);
        }
    }
}

/// Resident memory in MiB.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4_096.0 / f64::from(1 << 20)
}

/// Existence checks and memory with as many blobs.
fn many(dir: &Path, blobs: usize) {
    let name = Namespace::trusted("p");
    let before = resident();
    let began = Instant::now();
    let store = open(dir);
    for start in (0..blobs).step_by(100_000) {
        let batch: Vec<[u8; 8]> = (start..blobs.min(start + 100_000)).map(|n| n.to_le_bytes()).collect();
        store.put_many(&name, batch).unwrap();
    }
    row(&format!("put {blobs} blobs of 8 bytes"), began.elapsed().as_secs_f64(), "s", None);
    row("memory with them", resident() - before, "MiB", Some(1_024.0));
    let digests = |from: usize| -> Vec<Digest> {
        (0..CHECKS).map(|n| Digest::of(&(from + n * (blobs / CHECKS).max(1)).to_le_bytes())).collect()
    };
    for (what, from, missing) in [("present", 0, 0), ("absent", blobs + 1, CHECKS)] {
        let digests = digests(from);
        let mut times: Vec<f64> = (0..9)
            .map(|_| {
                let began = Instant::now();
                assert_eq!(store.missing(&name, &digests).len(), missing);
                began.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        row(&format!("{CHECKS} existence checks, {what}, the first"), times[0], "ms", Some(20.0));
        times.sort_by(f64::total_cmp);
        row(&format!("{CHECKS} existence checks, {what}, median"), times[4], "ms", Some(20.0));
    }
    drop(store);
    let began = Instant::now();
    let store = Store::open(Arc::new(RealFs), dir, StoreOptions { scan: true, ..StoreOptions::default() }).unwrap();
    row("open that store from its segments", began.elapsed().as_secs_f64(), "s", None);
    assert_eq!(store.stats().blobs, blobs);
    row("memory once opened", resident() - before, "MiB", Some(1_024.0));
    copy(&store, &name);
    row("memory after the copies, peak", peak() - before, "MiB", Some(1_024.0));
    drop(store);
    let began = Instant::now();
    let store = open(dir);
    row("open that store from its copy", began.elapsed().as_secs_f64(), "s", Some(1.0));
    assert!(store.opened().from_copy);
    row("memory once opened from its copy", resident() - before, "MiB", Some(1_024.0));
    let began = Instant::now();
    let tail: Vec<[u8; 9]> = (0..250_000).map(tail_of).collect();
    store.put_many(&name, &tail).unwrap();
    row("put 250,000 more", began.elapsed().as_secs_f64(), "s", None);
    drop(store);
    let began = Instant::now();
    let store = open(dir);
    row("open with 250,000 records after the copy", began.elapsed().as_secs_f64(), "s", Some(1.0));
    assert!(store.opened().from_copy && store.opened().records >= 250_000);
    row("memory after all, peak", peak() - before, "MiB", Some(1_024.0));
}

fn tail_of(n: u64) -> [u8; 9] {
    let mut out = [1; 9];
    out[..8].copy_from_slice(&n.to_le_bytes());
    out
}

/// The most memory that was resident so far, in MiB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
}

/// Copies the table while one thread reads and one writes; what they wait at most.
fn copy(store: &Store, name: &Namespace) {
    let stop = AtomicUsize::new(0);
    let worst = |mut once: Box<dyn FnMut(usize) + '_>| {
        let (mut worst, mut n) = (0.0_f64, 0);
        while stop.load(Ordering::Relaxed) == 0 {
            let began = Instant::now();
            once(n);
            worst = worst.max(began.elapsed().as_secs_f64());
            n += 1;
        }
        (worst * 1e3, n)
    };
    for busy in [false, true] {
        stop.store(usize::from(!busy), Ordering::Relaxed);
        std::thread::scope(|scope| {
            let reads = scope.spawn(|| {
                worst(Box::new(|n| {
                    let digest = Digest::of(&(n % 4_096).to_le_bytes());
                    assert!(store.contains(name, &digest));
                }))
            });
            let writes = scope.spawn(|| {
                let busy = if busy { "busy" } else { "" };
                worst(Box::new(move |n| {
                    store.put(name, format!("{busy} {n}").as_bytes()).unwrap();
                }))
            });
            store.put(name, &[u8::from(busy)]).unwrap();
            let began = Instant::now();
            let copied = store.copy_table().unwrap().unwrap();
            let took = began.elapsed().as_secs_f64();
            stop.store(1, Ordering::Relaxed);
            let with = if busy { "somebody reads and writes" } else { "nobody else" };
            row(&format!("copy the table, {with}"), took, "s", None);
            row("its length", copied.bytes as f64 / 1e6, "MB", None);
            row("longest lock of the copy", copied.longest_pause.as_secs_f64() * 1e3, "ms", None);
            let (reads, writes) = (reads.join().unwrap(), writes.join().unwrap());
            if busy {
                row(&format!("longest of {} existence checks meanwhile", reads.1), reads.0, "ms", None);
                row(&format!("longest of {} durable puts meanwhile", writes.1), writes.0, "ms", None);
            }
        });
    }
}

/// Three quarters of 512 MiB are let go.
fn compaction(dir: &Path) {
    let store = Store::open(Arc::new(RealFs), dir, StoreOptions { segment_bytes: 64 << 20, ..StoreOptions::default() })
        .unwrap();
    let (stay, go) = (Namespace::trusted("stay"), Namespace::trusted("go"));
    for start in (0..8_192).step_by(64) {
        let blobs: Vec<Vec<u8>> = (start..start + 64).map(|n| noise(n, 60_000)).collect();
        store.put_many(&stay, blobs.iter().step_by(4)).unwrap();
        store.put_many(&go, blobs.iter().enumerate().filter(|(n, _)| n % 4 > 0).map(|(_, blob)| blob)).unwrap();
    }
    store.release(&store.held(|name| *name == go)).unwrap();
    let before = store.stats();
    let began = Instant::now();
    let (mut copied_bytes, mut longest) = (0, 0.0_f64);
    loop {
        let call = Instant::now();
        let compacted = store.compact(16 << 20).unwrap();
        longest = longest.max(call.elapsed().as_secs_f64());
        copied_bytes += compacted.copied_bytes;
        if !compacted.more {
            break;
        }
    }
    let took = began.elapsed().as_secs_f64();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let freed = before.disk_bytes - store.stats().disk_bytes;
    row("compaction, bytes looked through", mb(before.disk_bytes) / took, "MB/s", None);
    row("compaction, bytes given back", mb(freed) / took, "MB/s", None);
    row("compaction, bytes written again", mb(copied_bytes) / took, "MB/s", None);
    row("longest call of 16 MiB", longest * 1e3, "ms", None);
}
