//! Bringing ahead with real processes: what a build needs crosses into a zone before its jobs, and not again at the job.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::{Agent, AgentOptions, DEADLINE, Fleet, JoinToken, World, test, until};

const MEBIBYTES: u64 = 6;

/// Bytes into a zone so far.
async fn crossed(fleet: &Fleet<'_>, zone: &str) -> Result<u64> {
    let stats = fleet.client.get("/cache/stats").await?.status(200)?.json()?;
    let zones = stats["zones"].as_array().context("zones")?;
    let of = zones.iter().find(|it| it["zone"] == json!(zone));
    Ok(of.and_then(|it| it["into_bytes"].as_u64()).unwrap_or_default())
}

/// `windlass cache prefetch` of a build; its exit code, and what it says.
async fn prefetch(world: &World, fleet: &Fleet<'_>, build: &str, more: &[&str], code: i32) -> Result<Value> {
    let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
    let token = token.to_string_lossy().into_owned();
    let line = [&["cache", "prefetch", build, "--json", "--server", &url, "--token-file", &token], more].concat();
    let ran = world.run(line, Duration::from_secs(60)).await?.code(code)?;
    Ok(serde_json::from_str(&ran.stdout)?)
}

#[test]
fn what_a_build_needs_comes_before_its_jobs_and_to_nobody_who_may_not_have_it() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let far = fleet.client.join_token(&JoinToken::pool("far", &["far"])).await?;
        let wild = JoinToken::pool("wild", &["far"]).zone("far").with("trust", json!("untrusted"));
        let wild = fleet.client.join_token(&wild).await?;
        for (name, token) in [("far-1", &far), ("far-2", &far), ("stranger", &wild)] {
            let mut options = AgentOptions::new(name, fleet.coordinator.address(), token);
            options.config = "peer_listen = \"127.0.0.1:0\"\n".to_owned();
            let agent = Agent::start(world, options)?;
            agent.in_state(&fleet.client, "online").await?;
            fleet.agents.push(agent);
        }
        // A build that waits at a gate: its source, and what its first step made, are for agents far away.
        let dir = world.path("project");
        fs::create_dir_all(dir.join(".windlass"))?;
        fs::write(dir.join("large"), random(MEBIBYTES << 20)?)?;
        let make = format!("head -c {} /dev/urandom > out.bin; windlass artifact upload out.bin", MEBIBYTES << 20);
        let take = "set -e; wc -c large; windlass artifact download out.bin .; wc -c out.bin";
        let take = with(step("take", take), "agents", json!({ "queue": "far" }));
        let steps = pipeline([step("make", &make), json!({ "block": "release", "key": "gate" }), take]);
        fs::write(dir.join(".windlass/pipeline.yml"), steps)?;
        let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
        let (place, token) = (dir.to_string_lossy().into_owned(), token.to_string_lossy().into_owned());
        let line = ["run", &place, "--detach", "--json", "--server", &url, "--token-file", &token];
        let ran = world.run(line, Duration::from_secs(60)).await?.code(0)?;
        let told: Value = serde_json::from_str(ran.stdout.lines().last().context("a build")?)?;
        let id = told["build"]["id"].as_str().or(told["id"].as_str()).context("a build's id")?.to_owned();
        fleet.client.wait(&id, "the gate", Duration::from_secs(60), |build| build.0["blocked"] == json!(true)).await?;
        let before = crossed(&fleet, "far").await?;
        let told = prefetch(world, &fleet, &id, &["--zone", "far"], 0).await?;
        let agents = told["agents"].as_array().context("agents")?;
        let far = |agent: &Value| agent["name"] == json!("far-1") || agent["name"] == json!("far-2");
        ensure!(agents.len() == 2 && agents.iter().all(far), "a stranger brings nothing: {told}");
        let done = |agent: &Value| agent["state"] == json!("done") && agent["bytes"] == told["bytes"];
        ensure!(agents.iter().all(done), "{told}");
        ensure!(told["bytes"].as_u64() >= Some((2 * MEBIBYTES) << 20), "{told}");
        let brought = crossed(&fleet, "far").await? - before;
        // Once for both, and what is said beside it.
        ensure!(brought > (2 * MEBIBYTES) << 20 && brought < (3 * MEBIBYTES) << 20, "{brought} bytes crossed ahead");
        // Again, and nothing comes.
        let told =
            prefetch(world, &fleet, &id, &["--agent", "far-1", "--agent", "stranger", "--agent", "nobody"], 1).await?;
        let of = |name: &str| told["agents"].as_array().and_then(|all| all.iter().find(|it| it["name"] == json!(name)));
        ensure!(of("far-1").is_some_and(|it| it["state"] == json!("done") && it["came"] == json!(0)), "{told}");
        for name in ["stranger", "nobody"] {
            ensure!(of(name).is_some_and(|it| it["state"] == json!("not") && it["why"].is_string()), "{told}");
        }
        // At the job hardly anything crosses: log, offers, beats.
        let before = crossed(&fleet, "far").await?;
        let gate = fleet.client.build(&id).await?.job("gate")?.id().to_owned();
        fleet.client.post(&format!("/jobs/{gate}/unblock"), &json!({})).await?.status(200)?;
        fleet.client.ends(&id, "passed", Duration::from_secs(60)).await?;
        let at_the_job = crossed(&fleet, "far").await? - before;
        println!("{brought} bytes crossed ahead, {at_the_job} at the job");
        ensure!(at_the_job < 256 << 10, "{at_the_job} bytes crossed at the job");
        Ok(())
    })
}

#[test]
fn an_agent_without_room_or_that_drains_brings_nothing_and_says_why() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let small = fleet.client.join_token(&JoinToken::pool("small", &["small"])).await?;
        let mut options = AgentOptions::new("small", fleet.coordinator.address(), &small);
        options.config = "cache = \"16MiB\"\n".to_owned();
        let agent = Agent::start(world, options)?;
        agent.in_state(&fleet.client, "online").await?;
        fleet.agents.push(agent);
        let make = format!("head -c {} /dev/urandom > out.bin; windlass artifact upload out.bin", 12 << 20);
        let build = fleet.run_to("passed", pipeline([step("make", &make)])).await?;
        let told = prefetch(world, &fleet, build.id(), &["--pool", "small"], 1).await?;
        let why = told["agents"][0]["why"].as_str().unwrap_or_default();
        ensure!(told["agents"][0]["state"] == json!("not") && why.contains("no room"), "{told}");
        let agents = fleet.client.agents().await?;
        let id = agents.iter().find(|it| it["name"] == json!("agent-1")).context("agent-1")?["id"].clone();
        let id = id.as_str().context("its id")?;
        fleet.client.post(&format!("/agents/{id}/drain"), &json!({})).await?;
        until("the agent knows", DEADLINE, async || {
            let told = prefetch(world, &fleet, build.id(), &["--pool", "local"], 1).await;
            Ok(told.ok().filter(|told| {
                told["agents"].as_array().is_some_and(Vec::is_empty) || told["agents"][0]["why"] == json!("it drains")
            }))
        })
        .await?;
        Ok(())
    })
}

fn random(bytes: u64) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    std::io::copy(&mut std::io::Read::take(fs::File::open("/dev/urandom")?, bytes), &mut out)?;
    Ok(out)
}
