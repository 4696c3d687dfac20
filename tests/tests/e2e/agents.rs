//! How agents leave: after one job, when told to, when told twice.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_tests::kit::pipeline::{pipeline, step, until_exists};
use windlass_tests::kit::{Agent, AgentOptions, Coordinator, DEADLINE, Exit, Fleet, JoinToken, Submit, test};

#[test]
fn an_agent_for_one_job_runs_one_and_leaves() -> Result<()> {
    test(async |world| {
        let coordinator = Coordinator::start(world).await?;
        let client = coordinator.client()?;
        let token = client.join_token(&JoinToken::pool("local", &["default"])).await?;
        let build = client.submit(&Submit::text(pipeline([step("a", "true"), step("b", "true")]))).await?;
        let once = |name: &str| {
            let mut options = AgentOptions::new(name, coordinator.address(), &token);
            options.more = vec!["--once".to_owned()];
            Agent::start(world, options)
        };
        ensure!(once("first")?.ended().await? == Exit::Code(0));
        let half = client.build(build.id()).await?;
        let passed = half.jobs().iter().filter(|job| job.state() == "passed").count();
        ensure!(passed == 1 && !half.is_final(), "{}", half.0);
        ensure!(once("second")?.ended().await? == Exit::Code(0));
        client.ends(build.id(), "passed", DEADLINE).await?;
        Ok(())
    })
}

#[test]
fn an_agent_that_is_told_to_leave_finishes_its_job_first_and_takes_no_other() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let go = world.path("go");
        let last = step("last", &format!("{}; echo done", until_exists(&go)));
        let build = fleet.running(pipeline([last]), "last").await?;
        let agent = fleet.agents.first_mut().context("an agent")?;
        agent.term()?;
        agent.in_state(&fleet.client, "draining").await?;
        let other = fleet.client.submit(&Submit::text(pipeline([step("other", "true")]))).await?;
        fs::write(&go, "")?;
        fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        ensure!(agent.ended().await? == Exit::Code(0), "{}", agent.process().stderr()?);
        let other = fleet.client.build(other.id()).await?;
        ensure!(other.job("other")?.attempts().is_empty(), "a leaving agent took a job: {}", other.0);
        Ok(())
    })
}

#[test]
fn an_agent_that_is_told_twice_cancels_its_job_and_leaves() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let build = fleet.running(pipeline([step("long", "sleep 600")]), "long").await?;
        let agent = fleet.agents.first_mut().context("an agent")?;
        agent.term()?;
        agent.in_state(&fleet.client, "draining").await?;
        agent.term()?;
        ensure!(agent.ended().await? == Exit::Code(0), "{}", agent.process().stderr()?);
        let build = fleet.client.finished(build.id(), DEADLINE).await?;
        ensure!(build.state() == "failed" && build.job("long")?.cause() == "agent_stopped", "{}", build.brief());
        Ok(())
    })
}

#[test]
fn an_agent_drained_by_an_operator_takes_nothing_until_it_is_resumed() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let agents = fleet.client.agents().await?;
        let id = agents.first().and_then(|agent| agent["id"].as_str()).context("an agent")?.to_owned();
        fleet.client.post(&format!("/agents/{id}/drain"), &json!({})).await?.status(200)?;
        let agent = fleet.agents.first().context("an agent")?;
        agent.in_state(&fleet.client, "draining").await?;
        let build = fleet.client.submit(&Submit::text(pipeline([step("later", "true")]))).await?;
        ensure!(fleet.client.build(build.id()).await?.job("later")?.attempts().is_empty());
        fleet.client.post(&format!("/agents/{id}/resume"), &json!({})).await?.status(200)?;
        fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        Ok(())
    })
}

#[test]
fn a_step_that_needs_more_than_any_agent_has_waits_and_one_that_fits_runs_beside_it() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let big = windlass_tests::kit::pipeline::with(step("big", "true"), "resources", json!({ "cpus": 4_000 }));
        let build = fleet.client.submit(&Submit::text(pipeline([big, step("small", "true")]))).await?;
        let build = fleet.client.wait(build.id(), "the small one", DEADLINE, |b| b.job_is("small", "passed")).await?;
        ensure!(build.job("big")?.attempts().is_empty(), "{}", build.0);
        Ok(())
    })
}
