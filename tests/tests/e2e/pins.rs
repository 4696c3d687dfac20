//! Pins of builds with real processes: a release outlives the time that its artifacts were given, over a crash, and goes after.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::{Coordinator, CoordinatorOptions, DEADLINE, Fleet, JoinToken, World, test, until};

/// Two rounds of the coordinator's retention, and some.
const RETENTION: Duration = Duration::from_secs(150);

/// `windlass cache` with these words; its exit code, and what it printed.
async fn cache(world: &World, fleet: &Fleet<'_>, words: &[&str], code: i32) -> Result<String> {
    let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
    let token = token.to_string_lossy().into_owned();
    let line = [&["cache"], words, &["--server", &url, "--token-file", &token]].concat();
    Ok(world.run(line, DEADLINE).await?.code(code)?.stdout)
}

async fn artifacts(fleet: &Fleet<'_>, build: &str) -> Result<Vec<Value>> {
    let list = fleet.client.get(&format!("/builds/{build}/artifacts")).await?.status(200)?.json()?;
    Ok(list["items"].as_array().context("items")?.clone())
}

/// Waits until retention has come by once more.
async fn retention(fleet: &Fleet<'_>) -> Result<()> {
    let before = fleet.coordinator.told("rows_expired")?;
    until("retention", RETENTION, async || Ok((fleet.coordinator.told("rows_expired")? > before).then_some(()))).await
}

#[test]
fn a_pinned_release_outlives_the_time_of_its_artifacts_and_a_crash_until_the_pin_is_undone() -> Result<()> {
    test(async |world| {
        // The time of an artifact is over as soon as it is there.
        let config = world.path("coordinator.toml");
        fs::write(&config, "artifact_retention_days = 0\n")?;
        let more = vec!["--config".to_owned(), config.display().to_string()];
        let options = CoordinatorOptions { more, ..CoordinatorOptions::default() };
        let coordinator = Coordinator::start_with(world, options).await?;
        let mut fleet = Fleet::around(world, coordinator, &JoinToken::pool("local", &["default"]), 1).await?;
        let make = || with(step("make", "echo the release > app"), "artifact_paths", json!("app"));
        let plain = fleet.run_to("passed", pipeline([make()])).await?;
        ensure!(artifacts(&fleet, plain.id()).await?.is_empty(), "its time is over");

        // It is pinned while it goes on.
        let gate = json!({ "block": "release", "key": "gate" });
        let release = pipeline([make(), gate, with(step("after", "true"), "depends_on", json!("gate"))]);
        let submitted = fleet.client.submit(&windlass_tests::kit::Submit::text(release)).await?;
        let id = submitted.id().to_owned();
        let named = format!("{}/{}", submitted.0["pipeline"].as_str().context("pipeline")?, submitted.0["number"]);
        let told =
            cache(world, &fleet, &["pin", "--build", &named, "--name", "v1.0", "--for", "1h", "--json"], 0).await?;
        let told: Value = serde_json::from_str(&told)?;
        ensure!(told["pin"]["name"] == json!("v1.0") && told["before"].is_null(), "{told}");
        let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
        let token = token.to_string_lossy().into_owned();
        let line = ["build", "show", &named, "--server", &url, "--token-file", &token];
        let shown = world.run(line, DEADLINE).await?.code(0)?.stdout;
        ensure!(shown.contains("  pinned    as v1.0, until "), "{shown}");
        let gate = fleet.client.wait(&id, "its gate", DEADLINE, |build| build.job_is("gate", "blocked")).await?;
        let gate = gate.job("gate")?.id().to_owned();
        fleet.client.post(&format!("/jobs/{gate}/unblock"), &json!({})).await?.status(200)?;
        fleet.client.ends(&id, "passed", Duration::from_secs(90)).await?;
        let held = artifacts(&fleet, &id).await?;
        ensure!(held.len() == 1 && held[0]["expires_at"] == told["pin"]["until"], "{held:?}");

        retention(&fleet).await?;
        fleet.coordinator.kill9().await?;
        fleet.coordinator.restart().await?;
        let path = format!("/artifacts/{}", held[0]["id"].as_str().context("id")?);
        let bytes = fleet.client.get(&path).await?.status(200)?.body;
        ensure!(bytes == b"the release\n", "{}", String::from_utf8_lossy(&bytes));
        let listed: Value = serde_json::from_str(&cache(world, &fleet, &["ls", "--pins", "--json"], 0).await?)?;
        let pin = &listed["items"][0];
        ensure!((&pin["build_id"], &pin["files"], &pin["bytes"]) == (&json!(id), &json!(1), &json!(12)), "{listed}");
        let again = cache(world, &fleet, &["pin", "--build", &id, "--until", "never", "--json"], 0).await?;
        let again: Value = serde_json::from_str(&again)?;
        ensure!(again["pin"]["until"].is_null() && again["before"]["until"] == told["pin"]["until"], "{again}");
        // The build of before is there, and its artifact is not: it is pinned, and that is told.
        let late: Value =
            serde_json::from_str(&cache(world, &fleet, &["pin", "--build", plain.id(), "--json"], 1).await?)?;
        ensure!(late["pin"]["gone"]["files"] == json!(1) && late["pin"]["files"] == json!(0), "{late}");

        cache(world, &fleet, &["pin", "--build", &named, "--undo"], 0).await?;
        cache(world, &fleet, &["pin", "--build", &named, "--undo"], 0).await?;
        fleet.client.get(&path).await?.status(404)?;
        ensure!(artifacts(&fleet, &id).await?.is_empty(), "its own time is long over");
        Ok(())
    })
}
