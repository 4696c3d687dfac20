//! Newer builds of a branch take the place of older ones, if those said so.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{step, until_exists};
use windlass_tests::kit::{Build, DEADLINE, Fleet, Submit, test};

/// A build of two steps, one after the other, of which the first waits for a file.
fn definition(supersede: Value, go: &std::path::Path) -> String {
    let mut second = step("second", "true");
    second["depends_on"] = json!("first");
    json!({ "supersede": supersede, "steps": [step("first", &until_exists(go)), second] }).to_string()
}

async fn submit(fleet: &Fleet<'_>, definition: &str, branch: &str) -> Result<Build> {
    fleet.client.submit(&Submit::text(definition).with("branch", json!(branch))).await
}

async fn runs(fleet: &Fleet<'_>, build: &Build) -> Result<Build> {
    fleet.client.wait(build.id(), "its first step running", DEADLINE, |build| build.job_is("first", "running")).await
}

#[test]
fn a_newer_build_of_the_branch_cancels_a_running_one_and_leaves_other_branches_alone() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let go = world.path("go");
        let text = definition(json!("running"), &go);
        let other = runs(&fleet, &submit(&fleet, &text, "topic").await?).await?;
        let older = runs(&fleet, &submit(&fleet, &text, "main").await?).await?;
        let newer = submit(&fleet, &text, "main").await?;
        let older = fleet.client.ends(older.id(), "canceled", DEADLINE).await?;
        ensure!(older.0["cause"]["kind"] == json!("superseded"), "{}", older.0);
        for key in ["first", "second"] {
            let job = older.job(key)?;
            ensure!(job.cause() == "superseded", "{key}: {}", job.0);
        }
        // Its processes are gone: the newer one has its slot.
        runs(&fleet, &newer).await?;
        ensure!(fleet.client.build(other.id()).await?.job_is("first", "running"), "another branch was touched");
        std::fs::write(&go, "")?;
        for build in [newer, other] {
            fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        }
        Ok(())
    })
}

#[test]
fn a_newer_build_skips_a_waiting_one_and_lets_a_running_one_finish() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let go = world.path("go");
        let text = definition(json!("waiting"), &go);
        let running = runs(&fleet, &submit(&fleet, &text, "main").await?).await?;
        // The other slot is taken by a build that nobody replaces; what comes now has to wait.
        let fixed = runs(&fleet, &submit(&fleet, &definition(json!(false), &go), "main").await?).await?;
        let (waiting, other) = (submit(&fleet, &text, "main").await?, submit(&fleet, &text, "topic").await?);
        let newest = submit(&fleet, &text, "main").await?;
        let skipped = fleet.client.ends(waiting.id(), "skipped", DEADLINE).await?;
        ensure!(skipped.0["cause"]["kind"] == json!("superseded"), "{}", skipped.0);
        ensure!(skipped.job("first")?.attempts().is_empty(), "it had begun: {}", skipped.0);
        std::fs::write(&go, "")?;
        for build in [running, fixed, other, newest] {
            fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        }
        Ok(())
    })
}
