//! Figures of the whole, each beside its limit measured in the same run.
//!
//! `cargo build --release && cargo run --release -p windlass-benches` prints a table: what was measured, the limit, their
//! ratio and the target. Everything is on: masking with 20 secrets, cgroup, own user, workspace, sealing. Data lies in the
//! directory where it is started. With names of figures (see [`FIGURES`]) only those are measured.

#![allow(clippy::print_stdout, reason = "a table is what this program is for")]

mod archive;
mod assignment;
mod beat;
mod cache;
mod emit;
mod joined;
mod limit;
mod log;
mod pipeline;
mod saved;
mod server;
mod step;
mod table;

use anyhow::Context as _;

use crate::server::Server;
use crate::table::Table;

/// What can be asked for by name.
const FIGURES: [&str; 12] = [
    "steps",
    "step-latency",
    "line-latency",
    "log",
    "beats",
    "assignment",
    "pipeline",
    "small",
    "large",
    "hit",
    "archive",
    "saved",
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|mode| mode == "emit") {
        return emit::run(&arguments[1..]);
    }
    for argument in &arguments {
        anyhow::ensure!(
            FIGURES.contains(&argument.as_str()),
            "{argument} is no figure; there are: {} (none is all)",
            FIGURES.join(", ")
        );
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a provider of cryptography is installed already"))?;
    tokio::runtime::Runtime::new()?.block_on(run(&arguments))
}

async fn run(figures: &[String]) -> anyhow::Result<()> {
    let is_wanted = |figure: &str| figures.is_empty() || figures.iter().any(|wanted| wanted == figure);
    let mut table = Table::default();
    let fdatasync = limit::fdatasync_p50()?;
    println!("fdatasync p50 of this disk: {:.3} ms", fdatasync.as_secs_f64() * 1e3);
    let server = Server::start(2).await.context("windlass up")?;
    if is_wanted("steps") {
        step::throughput(&server, &mut table).await?;
    }
    if is_wanted("step-latency") {
        step::latency(&server, fdatasync, &mut table).await?;
    }
    if is_wanted("line-latency") {
        log::latency(&server, &mut table).await?;
    }
    if is_wanted("log") {
        log::throughput(&server, &mut table).await?;
    }
    if is_wanted("beats") {
        beat::lateness(&server, &mut table).await?;
    }
    if is_wanted("hit") {
        cache::hit(&server, &mut table).await?;
    }
    if is_wanted("large") {
        cache::large(&server, &mut table).await?;
    }
    if is_wanted("archive") {
        archive::next_version(&server, &mut table).await?;
    }
    if is_wanted("saved") {
        saved::after_a_change(&server, &mut table).await?;
    }
    drop(server);
    if is_wanted("assignment") {
        assignment::cost(&mut table)?;
    }
    if is_wanted("small") {
        cache::small(&mut table)?;
    }
    if is_wanted("pipeline") {
        pipeline::reading(&mut table)?;
    }
    println!("{table}");
    Ok(())
}
