//! A zone whose agents all want the same at once: its border sees each byte once, by the link's own counters.
//!
//! `WINDLASS_PEERS_MIB` makes the file larger than the short run's: 1024 is the measured case (docs/design/033).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::exposition::Exposition;
use windlass_tests::kit::net::{Zone, no_zones};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::skip::skip;
use windlass_tests::kit::{
    Agent, AgentOptions, Client, Coordinator, CoordinatorOptions, DEADLINE, JoinToken, Submit, test, until,
};

const AGENTS: usize = 8;

/// What may cross for each byte that is wanted: packets' and QUIC's own bytes, manifests, control and logs.
const MOST: f64 = 1.05;

fn mebibytes() -> Result<usize> {
    std::env::var("WINDLASS_PEERS_MIB").map_or(Ok(64), |text| text.parse().context("WINDLASS_PEERS_MIB"))
}

/// Bytes into the zone so far.
fn crossed(zone: &Zone) -> Result<u64> {
    let path = format!("/sys/class/net/{}/statistics/tx_bytes", zone.link);
    Ok(fs::read_to_string(path)?.trim().parse()?)
}

/// A file of random bytes that jobs can read.
fn make(path: &Path, mebibytes: usize) -> Result<()> {
    let mut random = fs::File::open("/dev/urandom")?;
    let mut file = fs::File::create(path)?;
    let most = (mebibytes as u64) << 20;
    std::io::copy(&mut std::io::Read::take(&mut random, most), &mut file)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    Ok(())
}

/// A step that makes a file an artifact, and one for each agent that takes it when it is told to.
fn steps(file: &Path, go: &Path) -> Vec<Value> {
    let on = |step, queue: &str| with(step, "agents", json!({ "queue": queue }));
    let offer = format!("cp {} big && windlass artifact upload big && rm big", file.display());
    let take = format!(
        "set -e; {}; mkdir got; windlass artifact download big got; cmp got/big {}; rm got/big",
        until_exists(go),
        file.display()
    );
    let mut steps = vec![on(step("offer", &offer), "home"), json!("wait")];
    steps.extend((1..=AGENTS).map(|n| on(step(&format!("take-{n}"), &take), "zone")));
    steps
}

/// Has all agents take a file at once; answers what crossed for each of its bytes, and says how long that took.
#[allow(clippy::print_stderr, reason = "a measurement, for who looks")]
async fn take_all(world: &windlass_tests::kit::World, client: &Client, zone: &Zone, mebibytes: usize) -> Result<f64> {
    let (file, go) = (world.path(&format!("file-{mebibytes}")), world.path(&format!("go-{mebibytes}")));
    make(&file, mebibytes)?;
    let build = client.submit(&Submit::text(pipeline(steps(&file, &go)))).await?;
    let patience = Duration::from_secs(60 + mebibytes as u64);
    let ready =
        |build: &windlass_tests::kit::Build| (1..=AGENTS).all(|n| build.job_is(&format!("take-{n}"), "running"));
    client.wait(build.id(), "all who take", patience, ready).await?;
    let (before, begun) = (crossed(zone)?, Instant::now());
    fs::write(&go, "")?;
    client.ends(build.id(), "passed", patience).await?;
    let bytes = crossed(zone)? - before;
    let ratio = bytes as f64 / (mebibytes << 20) as f64;
    eprintln!(
        "{mebibytes} MiB for {AGENTS} agents: {bytes} bytes crossed, {ratio:.4} of them, in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    fs::remove_file(&file)?;
    Ok(ratio)
}

async fn peer_hits(client: &Client) -> Result<f64> {
    let answer = client.get("/metrics").await?.status(200)?;
    let text = Exposition::parse(&String::from_utf8(answer.body)?)?;
    let hits = text.values("windlass_cache_requests", "_total", &[("tier", "peer"), ("result", "hit")]);
    Ok(hits.iter().sum())
}

#[test]
fn what_eight_agents_of_a_zone_want_at_once_crosses_its_border_once() -> Result<()> {
    if let Some(why) = no_zones()? {
        return skip("peers", &why);
    }
    test(async |world| {
        let zone = &Zone::new("c", 13);
        zone.make().await?;
        let options = CoordinatorOptions {
            listen: "0.0.0.0:0".to_owned(),
            more: vec!["--insecure-http".to_owned()],
            ..CoordinatorOptions::default()
        };
        let mut coordinator = Coordinator::start_with(world, options).await?;
        let client = coordinator.client()?;
        let home = client.join_token(&JoinToken::pool("home", &["home"]).zone("home")).await?;
        let maker = Agent::start(world, AgentOptions::new("maker", coordinator.address(), &home))?;
        maker.in_state(&client, "online").await?;
        let token = client.join_token(&JoinToken::pool("zone", &["zone"]).zone("zone")).await?;
        let mut agents = Vec::new();
        for n in 1..=AGENTS {
            let server = (zone.ours, coordinator.address().port()).into();
            let mut options = AgentOptions::new(&format!("agent-{n}"), server, &token);
            options.slots = 1;
            options.netns = Some(zone.name.clone());
            agents.push(Agent::start(world, options)?);
        }
        for agent in &agents {
            agent.in_state(&client, "online").await?;
        }
        let ratio = take_all(world, &client, zone, mebibytes()?).await?;
        ensure!(ratio <= MOST, "{ratio} times the file crossed");
        until("beats that tell of peers", DEADLINE, async || Ok((peer_hits(&client).await? > 0.0).then_some(())))
            .await?;
        // Whoever was told of whom, and by which key, holds on after the coordinator has started again.
        coordinator.restart().await?;
        for agent in &agents {
            agent.in_state(&client, "online").await?;
        }
        let ratio = take_all(world, &client, zone, 32).await?;
        ensure!(ratio <= MOST, "{ratio} times the file crossed after a restart");
        Ok(())
    })
}
