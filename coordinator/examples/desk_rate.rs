//! Measures commits: the disk's own sync, the store alone, and the whole desk with one and with 64 clients waiting.
//!
//! `cargo run --release -p windlass-coordinator --example desk_rate -- DIR` (a directory on the disk to be measured).
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_coordinator::clock::SystemClock;
use windlass_coordinator::desk::{
    Desk, DeskHandle, Fleet, Logs, NoDeliveries, NoKeys, NoMeter, Orders, Ports, channel, core_maker,
};
use windlass_coordinator::views::Views;
use windlass_coordinator::writer::Writer;
use windlass_coordinator_core::input::ConnId;
use windlass_coordinator_core::order::Order;
use windlass_coordinator_core::row::{Actor, ActorKind, AuditRow, Change, NewToken, Scope, TokenGrant};
use windlass_coordinator_core::{Policy, Rejected, Request};
use windlass_coordinator_store::{Options, Store, open};
use windlass_protocol::job::Epoch;
use windlass_protocol::message::{CoordinatorMessage, RefuseCode};
use windlass_protocol::{AgentId, AttemptId, Digest, TokenId, WallMs};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let dir = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from).join("windlass-desk-rate");
    std::fs::create_dir_all(&dir)?;
    let measured = measure(&dir);
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn measure(dir: &Path) -> Outcome<()> {
    row("fdatasync after 512 B", &mut syncs(dir, 2_000)?, 1);
    let (mut store, history) = open(&dir.join("store"), &Options::default())?;
    let epoch = store.claim()?;
    for rows in [1, 64] {
        let changes: Vec<_> = (0..rows).map(audit).collect();
        let mut times = Vec::new();
        for _ in 0..2_000 {
            let begun = Instant::now();
            store.commit(epoch, &changes)?;
            times.push(begun.elapsed());
        }
        row(&format!("store, {rows} rows a commit"), &mut times, rows);
    }
    drop((store, history));
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(through_the_desk(dir))
}

async fn through_the_desk(dir: &Path) -> Outcome<()> {
    let (store, _history) = open(&dir.join("desk"), &Options::default())?;
    let (writer, loaded) = Writer::threaded(Box::new(store))?;
    let (handle, inbox) = channel();
    let nobody = Arc::new(Nobody);
    let (fleet, logs, orders) = (nobody.clone(), nobody.clone(), nobody);
    let (clock, meter) = (Arc::new(SystemClock), Arc::new(NoMeter));
    let deliveries = Arc::new(NoDeliveries);
    let ports =
        Ports { clock, fleet, logs, orders, keys: Arc::new(NoKeys), deliveries, views: Views::default(), meter };
    let running = tokio::spawn(Desk::new(inbox, writer, loaded, core_maker(Policy::default())?, ports).run());
    for (clients, requests) in [(1_u64, 2_000_u64), (64, 100)] {
        let begun = Instant::now();
        let asking: Vec<_> =
            (0..clients).map(|client| tokio::spawn(ask(handle.clone(), clients * 1_000 + client, requests))).collect();
        let mut times = Vec::new();
        for client in asking {
            times.extend(client.await??);
        }
        let each = begun.elapsed() / u32::try_from(times.len())?;
        row(&format!("desk, {clients} waiting"), &mut times, clients);
        println!("{:28} {:>9.0} requests/s, each durable", "", 1.0 / each.as_secs_f64());
    }
    handle.stop();
    println!("{:?}", running.await?);
    Ok(())
}

/// Makes tokens, one after the other: two rows each, and no more work for the core than that.
async fn ask(
    handle: DeskHandle,
    client: u64,
    requests: u64,
) -> Result<Vec<Duration>, windlass_coordinator::desk::DeskError> {
    let mut times = Vec::new();
    for n in 0..requests {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&client.to_be_bytes());
        id[8..].copy_from_slice(&n.to_be_bytes());
        let token = NewToken {
            id: TokenId::from_bytes(id),
            secret_hash: Digest::of(&id),
            grant: TokenGrant::Api { scopes: vec![Scope::BuildsRead], pipeline: None, branch: None },
            pool: None,
            note: String::new(),
            expires_at: None,
        };
        let begun = Instant::now();
        handle.request(actor(), Request::CreateToken(Box::new(token))).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn syncs(dir: &Path, count: usize) -> Outcome<Vec<Duration>> {
    let mut file = File::create(dir.join("syncs"))?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn row(what: &str, times: &mut [Duration], things: u64) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 1_000].as_secs_f64() * 1e6;
    println!("{what:28} p50 {:>7.0} us  p99 {:>7.0} us  ({things} at a time)", at(500), at(990));
}

fn actor() -> Actor {
    Actor { kind: ActorKind::Token, name: "bench".to_owned() }
}

fn audit(n: u64) -> Change {
    let (action, target) = ("build.submit".to_owned(), "0190c1f0-7a3b-7c1d-8e2f-0123456789ab".to_owned());
    Change::Audit(AuditRow { at: WallMs(n), actor: actor(), action, target, detail: String::new() })
}

/// No agents, no logs.
#[derive(Debug)]
struct Nobody;

impl Fleet for Nobody {
    fn send(&self, _agent: AgentId, _conn: ConnId, _message: Box<CoordinatorMessage>) {}
    fn disconnect(&self, _agent: AgentId, _conn: ConnId, _code: RefuseCode, _detail: String) {}
    fn rejected(&self, _agent: AgentId, _conn: ConnId, _rejected: Rejected) {}
    fn disconnect_all(&self, _code: RefuseCode, _detail: String) {}
}

impl Orders for Nobody {
    fn obtain(&self, _order: Order) {}
}

impl Logs for Nobody {
    fn settle(&self, _attempt: AttemptId, _epoch: Epoch, _bytes: u64, _digest: Digest) {}
    fn fence(&self, _attempt: AttemptId, _epoch: Epoch, _sealed: bool) {}
}
