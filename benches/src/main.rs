//! Figures of the whole, each beside its limit measured in the same run.
//!
//! `cargo build --release && cargo run --release -p windlass-benches` prints a table: what was measured, the limit, their
//! ratio and the target. Everything is on: masking with 20 secrets, cgroup, own user, workspace, sealing.

#![allow(clippy::print_stdout, reason = "a table is what this program is for")]

mod assignment;
mod emit;
mod limit;
mod log;
mod server;
mod step;
mod table;

use anyhow::Context as _;

use crate::server::Server;
use crate::table::Table;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|mode| mode == "emit") {
        return emit::run(&arguments[1..]);
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a provider of cryptography is installed already"))?;
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let mut table = Table::default();
    let fdatasync = limit::fdatasync_p50()?;
    println!("fdatasync p50 of this disk: {:.3} ms", fdatasync.as_secs_f64() * 1e3);
    let server = Server::start(2).await.context("windlass up")?;
    step::throughput(&server, &mut table).await?;
    step::latency(&server, fdatasync, &mut table).await?;
    log::latency(&server, &mut table).await?;
    log::throughput(&server, &mut table).await?;
    server.stop()?;
    assignment::cost(&mut table)?;
    println!("{table}");
    Ok(())
}
