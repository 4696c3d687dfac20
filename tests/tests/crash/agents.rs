//! Agents killed, stopped and late.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_tests::kit::chaos::{Dice, until_final};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::{Attempt, DEADLINE, Fleet, JoinToken, Submit, test, until};

use crate::account::{Account, Lost};

#[test]
fn a_build_passes_while_its_agents_are_killed_again_and_again() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 3).await?;
        let account = Account::new(world, 200)?;
        let build = fleet.client.submit(&Submit::text(account.pipeline(&json!({})))).await?;
        let (client, agents) = (fleet.client.clone(), &mut fleet.agents);
        let strike = async |dice: &mut Dice| {
            let one = usize::try_from(dice.next() % 3)?;
            agents.get_mut(one).context("an agent")?.restart().await
        };
        let kills = until_final(&client, build.id(), &mut Dice::new(17), (400, 1_000), strike).await?;
        ensure!(kills >= 5, "only {kills} kills: the build is too short for this test");
        let build = client.ends(build.id(), "passed", DEADLINE).await?;
        // Their jobs' supervisors live on, so that no attempt is lost.
        account.check(&client, &build, Lost::None).await
    })
}

#[test]
fn a_build_passes_while_everything_is_killed_again_and_again() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 3).await?;
        let account = Account::new(world, 150)?;
        let again = json!({ "retry": { "automatic": [{ "exit_status": -1, "limit": 5 }] } });
        let build = fleet.client.submit(&Submit::text(account.pipeline(&again))).await?;
        let (client, agents, coordinator) = (fleet.client.clone(), &mut fleet.agents, &mut fleet.coordinator);
        let strike = async |dice: &mut Dice| match usize::try_from(dice.next() % 4)? {
            3 => coordinator.restart().await,
            one => agents.get_mut(one).context("an agent")?.restart().await,
        };
        let kills = until_final(&client, build.id(), &mut Dice::new(29), (400, 1_000), strike).await?;
        ensure!(kills >= 5, "only {kills} kills: the build is too short for this test");
        let build = client.ends(build.id(), "passed", DEADLINE).await?;
        account.check(&client, &build, Lost::Some).await
    })
}

#[test]
fn an_agent_that_was_stopped_for_longer_than_its_lease_is_not_believed() -> Result<()> {
    test(async |world| {
        let pool = JoinToken::pool("local", &["default"]).lease_ms(2_000);
        let mut fleet = Fleet::of(world, &pool, 1).await?;
        // The first attempt ends well while its agent is stopped: that end must count for nothing, for by then the
        // second has the right. The second ends well too, later and with another log.
        let (first_go, second_go) = (world.path("go-1"), world.path("go-2"));
        let outside = world.shared_file("outside")?;
        let script = format!(
            "echo $WINDLASS_ATTEMPT_ID $WINDLASS_LEASE_EPOCH >> {}; echo attempt $WINDLASS_ATTEMPT; if [ $WINDLASS_ATTEMPT = 1 ]; then {}; exit 5; else {}; fi; echo end",
            outside.display(),
            until_exists(&first_go),
            until_exists(&second_go)
        );
        let rule = json!({ "automatic": [{ "cause": "agent_lost", "limit": 2 }] });
        let build = fleet.running(pipeline([with(step("one", &script), "retry", rule)]), "one").await?;
        let stale = build.attempt("one")?;
        let token = fleet.join_token.clone();
        let options = windlass_tests::kit::AgentOptions::new("other", fleet.coordinator.address(), &token);
        fleet.agents.first().context("an agent")?.stop()?;
        let other = windlass_tests::kit::Agent::start(world, options)?;
        other.in_state(&fleet.client, "online").await?;
        let lost = |build: &windlass_tests::kit::Build| {
            build.job("one").is_ok_and(|job| job.attempts().len() == 2 && job.state() == "running")
        };
        let build = fleet.client.wait(build.id(), "a second attempt", DEADLINE, lost).await?;
        let attempts = build.job("one")?.attempts();
        let first = attempts.first().context("an attempt")?;
        ensure!(first.id() == stale.id() && first.state() == "lost", "{}", build.0);
        ensure!(first.cause() == "agent_lost" || first.cause() == "lease_lost", "{}", build.0);
        fs::write(&first_go, "")?;
        let agent = fleet.agents.first_mut().context("an agent")?;
        agent.cont()?;
        agent.in_state(&fleet.client, "online").await?;
        // It has told all it had, and runs other things again.
        let probe = fleet.client.submit(&Submit::text(pipeline([step("a", "true"), step("b", "true")]))).await?;
        fleet.client.ends(probe.id(), "passed", DEADLINE).await?;
        let build = fleet.client.build(build.id()).await?;
        ensure!(build.job_is("one", "running"), "the stale agent was believed: {}", build.brief());
        fs::write(&second_go, "")?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let job = build.job("one")?;
        ensure!(job.exit_status() == Some(0) && job.attempts().len() == 2, "{}", build.0);
        ensure!(fleet.log_of(&build, "one").await? == "attempt 2\nend\n", "the logs were mixed");
        // Each ran once, by the right that the store gave it, and the second's is newer than all of the first's.
        let attempts = job.attempts();
        let ran = attempts.iter().map(|one| Ok(format!("{} {}\n", one.id(), one.rights()?.0)));
        ensure!(fs::read_to_string(outside)? == ran.collect::<Result<String>>()?, "{}", build.0);
        let rights = attempts.iter().map(Attempt::rights).collect::<Result<Vec<_>>>()?;
        ensure!(rights[0].1 < rights[1].0, "{rights:?}");
        Ok(())
    })
}

#[test]
fn a_job_whose_agent_was_believed_lost_goes_on_by_a_newer_right_than_it_was_told() -> Result<()> {
    test(async |world| {
        let pool = JoinToken::pool("local", &["default"]).lease_ms(2_000);
        let mut fleet = Fleet::of(world, &pool, 1).await?;
        let (go, outside) = (world.path("go"), world.shared_file("outside")?);
        let tell = format!("echo $WINDLASS_ATTEMPT_ID $WINDLASS_LEASE_EPOCH >> {}", outside.display());
        let rule = json!({ "automatic": [{ "cause": "agent_lost", "limit": 2 }] });
        let one = step("one", &format!("{tell}; {}; {tell}", until_exists(&go)));
        let build = fleet.running(pipeline([with(one, "retry", rule)]), "one").await?;
        let agent = fleet.agents.first_mut().context("an agent")?;
        agent.stop()?;
        let is = |state: &'static str| {
            move |build: &windlass_tests::kit::Build| build.attempt("one").is_ok_and(|attempt| attempt.state() == state)
        };
        fleet.client.wait(build.id(), "a lost attempt", DEADLINE, is("lost")).await?;
        agent.cont()?;
        fleet.client.wait(build.id(), "the same attempt again", DEADLINE, is("running")).await?;
        fs::write(&go, "")?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let attempts = build.job("one")?.attempts();
        ensure!(attempts.len() == 1, "{}", build.0);
        let (granted, epoch) = attempts[0].rights()?;
        ensure!(granted < epoch, "it went on by the same right: {}", build.0);
        let line = format!("{} {granted}\n", attempts[0].id());
        ensure!(fs::read_to_string(outside)? == line.repeat(2), "{}", build.0);
        Ok(())
    })
}

#[test]
fn an_exclusive_job_of_a_stopped_agent_has_ended_before_another_takes_its_place() -> Result<()> {
    test(async |world| {
        let pool = JoinToken::pool("local", &["default"]).lease_ms(2_000);
        let fleet = Fleet::of(world, &pool, 1).await?;
        // Each attempt holds a lock for as long as it lives, and does not go before it must; two at once would be seen.
        let (lock, twice) = (world.shared_file("lock")?, world.path("twice"));
        let (dir, done) = (world.shared_dir("marks")?, world.path("done"));
        let script = format!(
            "trap '' TERM; exec 9<>{}; flock -n 9 || touch {}/twice; touch {}/$WINDLASS_ATTEMPT; {}",
            lock.display(),
            dir.display(),
            dir.display(),
            until_exists(&done)
        );
        let rule = json!({ "automatic": [{ "cause": "agent_lost", "limit": 2 }] });
        let one = with(with(step("one", &script), "retry", rule), "exclusive", json!(true));
        let build = fleet.running(pipeline([one]), "one").await?;
        until("the first mark", DEADLINE, async || Ok(dir.join("1").exists().then_some(()))).await?;
        fleet.agents.first().context("an agent")?.stop()?;
        let options = windlass_tests::kit::AgentOptions::new("other", fleet.coordinator.address(), &fleet.join_token);
        let other = windlass_tests::kit::Agent::start(world, options)?;
        other.in_state(&fleet.client, "online").await?;
        until("the second mark", Duration::from_secs(60), async || Ok(dir.join("2").exists().then_some(()))).await?;
        ensure!(!dir.join("twice").exists() && !twice.exists(), "two held it at once");
        fs::write(&done, "")?;
        fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        Ok(())
    })
}

#[test]
fn an_exclusive_job_whose_record_its_agent_cannot_read_any_more_has_ended_before_it_is_given_out_again() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 1).await?;
        let (lock, dir, done) = (world.shared_file("lock")?, world.shared_dir("marks")?, world.path("done"));
        let script = format!(
            "trap '' TERM; exec 9<>{0}; flock -n 9 || touch {1}/twice; touch {1}/$WINDLASS_ATTEMPT; {2}",
            lock.display(),
            dir.display(),
            until_exists(&done)
        );
        let rule = json!({ "automatic": [{ "cause": "lease_lost", "limit": 2 }] });
        let one = with(with(step("one", &script), "retry", rule), "exclusive", json!(true));
        let build = fleet.running(pipeline([one]), "one").await?;
        until("the first mark", DEADLINE, async || Ok(dir.join("1").exists().then_some(()))).await?;
        let first = build.attempt("one")?.id().to_owned();
        let agent = fleet.agents.first_mut().context("an agent")?;
        agent.kill9().await?;
        // As a version that writes another note would find it; the first line says whose it is, and by which right.
        let record = agent.data().join("jobs").join(&first).join("launch");
        let known = fs::read(&record)?;
        let line = known.split_inclusive(|byte| *byte == b'\n').next().context("a first line")?;
        fs::write(&record, [line, b"something of another version"].concat())?;
        // Nor does a file that is no attempt's keep it from starting.
        fs::write(agent.data().join("jobs/00000000-0000-7000-8000-000000000000"), "not a directory")?;
        agent.restart().await?;
        until("the second mark", Duration::from_secs(60), async || Ok(dir.join("2").exists().then_some(()))).await?;
        ensure!(!dir.join("twice").exists(), "two held it at once");
        ensure!(agent.data().join("unreadable").join(&first).join("launch").exists(), "nothing was kept to look at");
        fs::write(&done, "")?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let attempts = build.job("one")?.attempts();
        let told = attempts.first().context("an attempt")?;
        ensure!(attempts.len() == 2 && told.state() == "lost" && told.cause() == "lease_lost", "{}", build.0);
        Ok(())
    })
}

#[test]
fn a_job_whose_command_had_begun_does_not_run_again_by_itself_when_its_agent_is_lost() -> Result<()> {
    test(async |world| {
        let pool = JoinToken::pool("local", &["default"]).lease_ms(2_000);
        let fleet = Fleet::of(world, &pool, 2).await?;
        let ran = world.shared_file("ran")?;
        let deploy = step("deploy", &format!("echo ran >> {}; sleep 600", ran.display()));
        let build = fleet.running(pipeline([deploy]), "deploy").await?;
        let name = build.attempt("deploy")?.agent().to_owned();
        let holder = fleet.agents.iter().find(|agent| agent.name() == name).context("the agent")?;
        holder.stop()?;
        let build = fleet.client.ends(build.id(), "failed", DEADLINE).await?;
        let job = build.job("deploy")?;
        ensure!(job.cause() == "agent_lost" && job.attempts().len() == 1, "{}", build.brief());
        ensure!(fs::read_to_string(ran)? == "ran\n", "it ran again");
        Ok(())
    })
}
