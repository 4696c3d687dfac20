//! Builds that nobody submits: those of trigger steps, and those of schedules, over restarts.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::{DEADLINE, Fleet, test, until};

/// Tells the server of a pipeline whose definition it keeps.
async fn register(fleet: &Fleet<'_>, name: &str, definition: String) -> Result<()> {
    let body = json!({ "name": name, "definition": definition });
    fleet.client.post("/pipelines", &body).await?.status(201).map(drop)
}

/// The build that a trigger step made.
fn made(build: &Value, key: &str) -> Result<String> {
    let jobs = build["jobs"].as_array().context("no jobs")?;
    let job = jobs.iter().find(|job| job["step_key"] == key).context("no such step")?;
    Ok(job["triggered_build"]["id"].as_str().with_context(|| format!("{key} made nothing: {job}"))?.to_owned())
}

#[test]
fn a_trigger_waits_for_its_build_over_a_crash_and_another_does_not_wait() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let (go, order) = (world.path("go"), world.shared_file("order")?);
        let note = |key: &str, script: &str| step(key, &format!("{script}; echo {key} $WHERE >> {}", order.display()));
        register(&fleet, "deploy", pipeline([note("deploy", &until_exists(&go))])).await?;
        let steps = [
            json!({ "trigger": "deploy", "key": "ship", "build": { "env": { "WHERE": "prod" } } }),
            json!({ "trigger": "deploy", "key": "go-on", "async": true, "build": { "env": { "WHERE": "test" } } }),
            with(note("then", "true"), "depends_on", json!("ship")),
            with(note("soon", "true"), "depends_on", json!("go-on")),
        ];
        let build = fleet.client.submit(&windlass_tests::kit::Submit::text(pipeline(steps))).await?;
        // It waits for nothing but the start of the other build; which of both builds is made first is not said.
        let goes_on =
            |build: &windlass_tests::kit::Build| build.job_is("go-on", "passed") && made(&build.0, "ship").is_ok();
        let seen = fleet.client.wait(build.id(), "both builds", DEADLINE, goes_on).await?;
        ensure!(seen.job("ship")?.state() == "running", "{}", seen.brief());
        let (waited, other) = (made(&seen.0, "ship")?, made(&seen.0, "go-on")?);
        fleet.coordinator.kill9().await?;
        fleet.coordinator.restart().await?;
        fs::write(&go, "")?;
        let ended = fleet.client.ends(build.id(), "passed", Duration::from_secs(90)).await?;
        ensure!(made(&ended.0, "ship")? == waited, "the restart made another build");
        let child = fleet.client.ends(&waited, "passed", DEADLINE).await?;
        ensure!(child.0["source"] == "trigger" && child.0["creator"]["kind"] == "build", "{}", child.0);
        ensure!(child.0["triggered_from"]["build_id"] == json!(build.id()), "{}", child.0);
        fleet.client.ends(&other, "passed", DEADLINE).await?;
        let order = fs::read_to_string(order)?;
        let place = |line: &str| order.lines().position(|other| other.trim() == line).context(order.clone());
        ensure!(place("deploy prod")? < place("then")?, "it did not wait: {order}");
        ensure!(order.lines().count() == 4 && place("deploy test").is_ok(), "{order}");
        let list = fleet.client.get("/builds?pipeline=deploy").await?.status(200)?.json()?;
        ensure!(list["items"].as_array().is_some_and(|items| items.len() == 2), "{list}");
        Ok(())
    })
}

#[test]
fn a_canceled_build_takes_along_the_one_that_it_waits_for() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        register(&fleet, "deploy", pipeline([step("deploy", "sleep 600")])).await?;
        let steps = [json!({ "trigger": "deploy", "key": "ship" })];
        let build = fleet.client.submit(&windlass_tests::kit::Submit::text(pipeline(steps))).await?;
        let child = until("a triggered build", DEADLINE, async || {
            Ok(made(&fleet.client.build(build.id()).await?.0, "ship").ok())
        });
        let child = child.await?;
        fleet.client.wait(&child, "its command", DEADLINE, |build| build.job_is("deploy", "running")).await?;
        fleet.client.post(&format!("/builds/{}/cancel", build.id()), &json!({})).await?.status(200)?;
        fleet.client.ends(build.id(), "canceled", DEADLINE).await?;
        let child = fleet.client.ends(&child, "canceled", Duration::from_secs(40)).await?;
        ensure!(child.0["cause"]["kind"] == "canceled", "{}", child.0);
        Ok(())
    })
}

/// Minutes of the clock.
fn minute() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 60)
}

#[test]
fn a_schedules_time_that_passes_while_nobody_is_there_is_made_up_once() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        register(&fleet, "nightly", pipeline([step("one", "echo $BUILDKITE_SOURCE $WHY")])).await?;
        let body = json!({ "cron": "* * * * *", "timezone": "Europe/Berlin", "env": { "WHY": "time" } });
        let schedule = fleet.client.post("/pipelines/nightly/schedules", &body).await?.status(201)?.json()?;
        ensure!(schedule["next_at"].is_string(), "{schedule}");
        let made_in = minute()?;
        fleet.coordinator.kill9().await?;
        let list = async |fleet: &Fleet<'_>| {
            let list = fleet.client.get("/builds?pipeline=nightly").await?.status(200)?.json()?;
            Ok::<_, anyhow::Error>(list["items"].as_array().cloned().unwrap_or_default())
        };
        // The time itself is what is waited for.
        until("the minute", Duration::from_secs(70), async || Ok((minute()? > made_in).then_some(()))).await?;
        fleet.coordinator.restart().await?;
        let builds = until("a build", DEADLINE, async || Ok(Some(list(&fleet).await?).filter(|it| !it.is_empty())));
        let builds = builds.await?;
        ensure!(builds.len() == 1 && builds[0]["source"] == "schedule", "{builds:?}");
        let id = builds[0]["id"].as_str().context("no id")?.to_owned();
        let ended = fleet.client.ends(&id, "passed", DEADLINE).await?;
        ensure!(fleet.log_of(&ended, "one").await?.contains("schedule time"), "{}", ended.0);
        // Again, with the time behind it: nothing comes of a restart.
        fleet.coordinator.kill9().await?;
        fleet.coordinator.restart().await?;
        let shown = fleet.client.get("/pipelines/nightly/schedules").await?.status(200)?.json()?;
        let last = &shown["items"][0]["last"];
        let late = builds.len() != list(&fleet).await?.len() && last["number"] == 1;
        ensure!(!late && last["build_id"] == json!(id), "{shown}");
        Ok(())
    })
}
