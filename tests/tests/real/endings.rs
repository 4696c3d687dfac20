//! Steps that do not simply pass, on real agents: soft failures, retries, and a cancel that their containers obey.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use windlass_protocol::limits::CANCEL_GRACE_MS;
use windlass_tests::kit::engine::found;
use windlass_tests::kit::{Agent, AgentOptions, Build, DEADLINE, JoinToken, until};

use crate::line::{BUILD, Line, with_engine};

const ENDINGS: &str = r#"
steps:
  - {key: soft, command: exit 3, soft_fail: [{exit_status: 3}]}
  - {key: on, command: echo on, depends_on: soft}
  - key: flaky
    command: "echo try $$BUILDKITE_RETRY_COUNT; [ $$BUILDKITE_RETRY_COUNT = 2 ] || exit 42"
    retry: {automatic: [{exit_status: 42, limit: 2}]}
  - key: other
    command: exit 43
    retry: {automatic: [{exit_status: 42, limit: 2}]}
    soft_fail: true
  - key: lost
    image: windlass-test/busybox:e2e
    checkout: {skip: true}
    agents: {queue: fragile}
    command: "echo try $$BUILDKITE_RETRY_COUNT; [ $$BUILDKITE_RETRY_COUNT = 1 ] || sleep 600"
    retry: {automatic: [{cause: agent_lost, limit: 1}]}
"#;

const LONG: &str = r#"
image: windlass-test/busybox:e2e
checkout: {skip: true}
steps:
  - {key: obedient, command: echo begun; sleep 600}
  - {key: stubborn, command: "trap '' TERM; echo begun; while true; do sleep 1; done"}
  - {key: later, command: echo never, depends_on: obedient}
"#;

/// What of an attempt is left in the engine.
async fn left(attempt: &str) -> Result<Vec<String>> {
    found(&format!("label=windlass.attempt={attempt}")).await
}

/// Exit statuses of a step's attempts, oldest first, null where there is none.
fn statuses(build: &Build, key: &str) -> Result<Vec<Value>> {
    Ok(build.job(key)?.attempts().iter().map(|attempt| attempt.0["exit_status"].clone()).collect())
}

#[test]
fn failures_are_soft_or_tried_again_by_status_and_by_cause() -> Result<()> {
    with_engine(async |world| {
        let line = Line::start(world, &[(".buildkite/pipeline.yml", ENDINGS)], 4, json!({})).await?;
        let client = &line.fleet.client;
        let token = client.join_token(&JoinToken::pool("fragile", &["fragile"]).zone("local").lease_ms(2_000)).await?;
        let fragile = |name: &str| {
            let mut options = AgentOptions::new(name, line.fleet.coordinator.address(), &token);
            options.slots = 1;
            Agent::start(world, options)
        };
        let mut first = fragile("first")?;
        let build = line.build(json!({})).await?;
        let seen = client.wait(build.id(), "the step", BUILD, |it| it.job_is("lost", "running")).await?;
        client.log_holds(seen.attempt("lost")?.id(), "try 0\n", DEADLINE).await?;
        first.kill9().await?;
        let second = fragile("second")?;
        let build = client.ends(build.id(), "passed", BUILD).await?;

        ensure!(build.job("soft")?.0["soft_failed"] == json!(true), "{}", build.brief());
        ensure!(build.job("on")?.state() == "passed", "{}", build.brief());
        ensure!(statuses(&build, "flaky")? == [json!(42), json!(42), json!(0)], "{}", build.brief());
        ensure!(line.fleet.log_of(&build, "flaky").await?.contains("try 2\n"), "{}", build.brief());
        ensure!(statuses(&build, "other")? == [json!(43)], "another status is not tried again: {}", build.brief());

        let tries = build.job("lost")?.attempts();
        let causes: Vec<(&str, &str)> = tries.iter().map(|it| (it.cause(), it.agent())).collect();
        ensure!(causes == [("agent_lost", "first"), ("", "second")], "{}", build.brief());
        ensure!(line.fleet.log_of(&build, "lost").await?.contains("try 1\n"), "{}", build.brief());
        // The first one's supervisor lives on without its agent, and an ordinary job with it (docs/design/004): when the agent
        // is back, it is told that the job was given away.
        ensure!(left(tries[0].id()).await?.len() == 2, "the first try ended by itself");
        first.restart().await?;
        for attempt in &tries {
            until("its container's end", DEADLINE, async || Ok(left(attempt.id()).await?.is_empty().then_some(())))
                .await?;
        }
        drop(second);
        Ok(())
    })
}

#[test]
fn the_containers_of_a_canceled_build_are_gone_within_the_grace() -> Result<()> {
    with_engine(async |world| {
        let line = Line::start(world, &[(".buildkite/pipeline.yml", LONG)], 2, json!({})).await?;
        let client = &line.fleet.client;
        let build = line.build(json!({})).await?;
        let both = |it: &Build| it.job_is("obedient", "running") && it.job_is("stubborn", "running");
        let build = client.wait(build.id(), "both steps", BUILD, both).await?;
        let attempts = [build.attempt("obedient")?, build.attempt("stubborn")?];
        for attempt in &attempts {
            client.log_holds(attempt.id(), "begun\n", DEADLINE).await?;
            ensure!(left(attempt.id()).await?.len() == 2, "a container and its network");
        }
        let begun = Instant::now();
        line.cli(&["build", "cancel", build.id()]).await?;
        let gone = async |attempt: &str| {
            until("a container's end", BUILD, async || Ok(left(attempt).await?.is_empty().then_some(()))).await
        };
        gone(attempts[0].id()).await?;
        let obedient = begun.elapsed();
        gone(attempts[1].id()).await?;
        let stubborn = begun.elapsed();
        println!("gone after a cancel: a container that obeys {obedient:?}, one that does not {stubborn:?}");
        let grace = Duration::from_millis(CANCEL_GRACE_MS);
        ensure!(obedient < grace, "{obedient:?}");
        // What it takes to kill and remove one, on a machine that builds beside it.
        ensure!(stubborn >= grace / 2 && stubborn < grace + Duration::from_secs(5), "{stubborn:?}");
        let build = client.ends(build.id(), "canceled", BUILD).await?;
        ensure!(build.job("later")?.attempts().is_empty(), "{}", build.brief());
        Ok(())
    })
}
