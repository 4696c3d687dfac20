//! The coordinator killed and away.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_tests::kit::chaos::{Dice, until_final};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists};
use windlass_tests::kit::{DEADLINE, Fleet, JoinToken, Submit, test};

use crate::account::{Account, Lost, sound};

#[test]
fn a_build_passes_while_its_coordinator_is_killed_again_and_again() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 3).await?;
        let account = Account::new(world, 200)?;
        let submit = Submit::text(account.pipeline(&json!({}))).key("once");
        let build = fleet.client.submit(&submit).await?;
        let (client, coordinator) = (fleet.client.clone(), &mut fleet.coordinator);
        let strike = async |_: &mut Dice| coordinator.restart().await;
        let kills = until_final(&client, build.id(), &mut Dice::new(11), (1_000, 2_000), strike).await?;
        ensure!(kills >= 3, "only {kills} kills: the build is too short for this test");
        let build = client.ends(build.id(), "passed", DEADLINE).await?;
        account.check(&client, &build, Lost::None).await?;
        // The same submit is still the same build.
        let again = client.try_submit(&submit).await?.json()?;
        ensure!(again["id"] == json!(build.id()), "the idempotency key was forgotten");
        fleet.coordinator.kill9().await?;
        sound(world, fleet.coordinator.data()).await
    })
}

#[test]
fn submits_that_were_answered_survive_a_kill_at_any_moment() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 1).await?;
        let mut taken = Vec::new();
        let mut dice = Dice::new(23);
        for round in 0..6 {
            let (client, pause) = (fleet.client.clone(), dice.millis(50, 400));
            let submitting = tokio::spawn(async move {
                let mut taken = Vec::new();
                for number in 0.. {
                    let key = format!("{round}-{number}");
                    let submit = Submit::text(pipeline([step("one", "true")])).key(&key);
                    match client.try_submit(&submit).await {
                        Ok(answer) if answer.status == 201 => taken.push((key, answer.json()?)),
                        Ok(answer) => anyhow::bail!("status {}: {:?}", answer.status, answer.json()),
                        // Killed: whether this one was taken, nobody was told.
                        Err(_) => return Ok(taken),
                    }
                }
                Ok(taken)
            });
            tokio::time::sleep(pause).await;
            fleet.coordinator.kill9().await?;
            taken.extend(submitting.await??);
            fleet.coordinator.restart().await?;
        }
        ensure!(taken.len() > 20, "only {} submits: too few to lose one", taken.len());
        for (key, told) in &taken {
            let id = told["id"].as_str().context("an id")?;
            let build = fleet.client.build(id).await.with_context(|| format!("submit {key} was lost"))?;
            ensure!(build.0["number"] == told["number"], "{} and {told}", build.0);
        }
        for (_, told) in &taken {
            fleet.client.ends(told["id"].as_str().context("an id")?, "passed", Duration::from_secs(60)).await?;
        }
        Ok(())
    })
}

#[test]
fn jobs_run_on_and_count_while_their_coordinator_is_away_for_ten_leases() -> Result<()> {
    test(async |world| {
        let pool = JoinToken::pool("local", &["default"]).lease_ms(2_000);
        let mut fleet = Fleet::of(world, &pool, 2).await?;
        let (go, ran) = (world.path("go"), world.shared_file("ran")?);
        let script = |key: &str| {
            step(key, &format!("echo begins; {}; echo {key} >> {}; echo ends", until_exists(&go), ran.display()))
        };
        let build = fleet.client.submit(&Submit::text(pipeline([script("a"), script("b"), script("c")]))).await?;
        let all = |build: &windlass_tests::kit::Build| build.jobs().iter().all(|job| job.state() == "running");
        fleet.client.wait(build.id(), "all running", DEADLINE, all).await?;
        fleet.coordinator.kill9().await?;
        // Ten leases; the first of the jobs end while nobody can be told.
        tokio::time::sleep(Duration::from_secs(2)).await;
        fs::write(&go, "")?;
        tokio::time::sleep(Duration::from_secs(18)).await;
        fleet.coordinator.restart().await?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        for job in build.jobs() {
            ensure!(job.attempts().len() == 1, "{} ran again: {}", job.key(), job.0);
            ensure!(fleet.log_of(&build, job.key()).await? == "begins\nends\n", "the log of {}", job.key());
        }
        ensure!(fs::read_to_string(ran)?.lines().count() == 3, "a command ran twice");
        Ok(())
    })
}

#[test]
fn a_coordinator_that_is_told_to_stop_ends_well_and_its_jobs_go_on() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let go = world.path("go");
        let script = format!("echo begins; {}; echo ends", until_exists(&go));
        let build = fleet.running(pipeline([step("long", &script)]), "long").await?;
        ensure!(fleet.coordinator.term().await? == windlass_tests::kit::Exit::Code(0));
        sound(world, fleet.coordinator.data()).await?;
        fleet.coordinator.restart().await?;
        fs::write(&go, "")?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        ensure!(build.job("long")?.attempts().len() == 1, "{}", build.0);
        Ok(())
    })
}
