//! By a job: what it leaves under names that a trusted one asks for, and what it asks for itself.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{step, with};
use windlass_tests::kit::test;
use windlass_tests::kit::{Build, DEADLINE, Fleet};

use super::ground::{Ground, TRUSTED, WILD};

/// Each is tried; what succeeds says so.
fn tries(all: &[(&str, String)]) -> String {
    let mut script = String::from("set +e\n");
    for (what, command) in all {
        script.push_str(&format!("if ( {command} ) >/dev/null 2>&1; then echo \"reached: {what}\"; fi\n"));
    }
    script.push_str("echo tried all\n");
    script
}

/// What a job could get of another build.
fn of(build: &str, step: &str) -> Vec<(&'static str, String)> {
    vec![
        ("its artifact", format!("mkdir -p got; windlass artifact download out.txt got --build {build}")),
        ("its artifacts", format!("mkdir -p got; buildkite-agent artifact download '*' got --build {build}")),
        ("its artifact's sum", format!("windlass artifact shasum out.txt --build {build}")),
        ("what artifacts it has", format!("windlass artifact search '*' --build {build}")),
        ("its meta-data", format!("windlass meta-data get k --build {build}")),
        ("whether it has meta-data", format!("windlass meta-data exists k --build {build}")),
        ("its keys", format!("windlass meta-data keys --build {build}")),
        ("its step", format!("windlass step get state --step {step} --build {build}")),
    ]
}

fn cached(step: Value, key: &str) -> Value {
    with(step, "cache", json!({ "paths": ["deps"], "key": key, "restore_keys": ["deps-", "d"] }))
}

async fn reached_nothing(fleet: &Fleet<'_>, build: &Build, key: &str) -> Result<()> {
    let log = fleet.log_of(build, key).await?;
    let reached = |line: &str| line.starts_with("reached: ");
    ensure!(log.lines().any(|line| line == "tried all") && !log.lines().any(reached), "{log}");
    Ok(())
}

#[test]
fn nothing_that_a_hostile_job_leaves_is_there_for_a_trusted_one() -> Result<()> {
    test(async |world| {
        let ground = Ground::start(world).await?;
        let (fleet, client) = (&ground.fleet, &ground.fleet.client);
        let (value, token) = (world.path("value"), fleet.coordinator.data().join("api-token"));
        std::fs::write(&value, "hunter22-of-the-vault\n")?;
        let (value, token, url) = (value.display().to_string(), token.display().to_string(), fleet.coordinator.url());
        let set = ["secret", "set", "KEY", "--file", &value, "--server", &url, "--token-file", &token];
        world.run(set, DEADLINE).await?.code(0)?;
        let first = ground.own([step("first", "windlass meta-data set k good; true")]).await?;
        let first = client.ends(first.id(), "passed", DEADLINE).await?;
        // The stranger comes first with everything that `main` will ask for.
        let upload = json!({ "steps": [
            { "key": "up", "command": "echo evil", "agents": { "queue": "vault" } },
            { "key": "secret", "command": "echo $$KEY", "secrets": ["KEY"] },
        ] });
        let leave = format!(
            "set -e; mkdir -p deps; echo evil > deps/f; echo evil > out.txt; windlass artifact upload out.txt; \
             windlass meta-data set k evil; printf '%s' '{upload}' | windlass pipeline upload"
        );
        let mut asks: Vec<(&str, String)> = of(first.id(), "first").split_off(4);
        asks.push(("a secret", "windlass secret get KEY".to_owned()));
        asks.push(("a trusted queue", "windlass step update agents queue=vault".to_owned()));
        let evil = ground.hostile([cached(step("evil", &leave), "deps-evil"), step("asks", &tries(&asks))]).await?;
        let left = |build: &Build| {
            ["evil", "asks"].iter().all(|key| build.job_is(key, "passed"))
                && build.job("secret").is_ok_and(|job| job.state() == "failed")
        };
        let evil = client.wait(evil.id(), "what it leaves", DEADLINE, left).await?;
        reached_nothing(fleet, &evil, "asks").await?;
        ground.ran_on(&evil, WILD)?;
        ensure!(evil.job("secret")?.cause() == "secret_missing", "{}", evil.brief());
        ensure!(fleet.log_of(&evil, "evil").await?.contains("Saved cache"), "{}", fleet.log_of(&evil, "evil").await?);
        // What it added for a queue of trusted agents alone has none to run on.
        ensure!(evil.job("up")?.attempts().is_empty(), "{}", evil.0);
        // Whoever is trusted finds nothing of it, however it is asked for.
        let look = cached(
            step("look", &format!("[ ! -e deps ] || echo 'reached: its cache'\n{}", tries(&of(evil.id(), "evil")))),
            "deps-look",
        );
        let trusted = ground.own([look]).await?;
        let trusted = client.finished(trusted.id(), DEADLINE).await?;
        reached_nothing(fleet, &trusted, "look").await?;
        ground.ran_on(&trusted, TRUSTED)?;
        let outcome = ground.trusted().await?;
        ensure!(outcome.log.starts_with("good at ") && outcome.log.ends_with("no deps\n"), "{outcome:?}");
        ensure!(outcome.meta_data == json!({ "k": "good" }) && outcome.artifacts.len() == 1, "{outcome:?}");
        // Nor does another stranger.
        let other = client.api_token(&["builds:write"], &json!({ "pipeline": "web" })).await?;
        let submit = windlass_tests::kit::Submit::text(windlass_tests::kit::pipeline::pipeline([step(
            "other",
            &tries(&of(evil.id(), "evil")),
        )]));
        let other = client.token(other["token"].as_str()).submit(&submit.with("pipeline", json!("web"))).await?;
        let other = client.finished(other.id(), DEADLINE).await?;
        reached_nothing(fleet, &other, "other").await?;
        ensure!(client.build(evil.id()).await?.job("up")?.attempts().is_empty(), "it ran after all");
        Ok(())
    })
}
