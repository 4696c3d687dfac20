//! Jobs that talk back: to their agent, and through it to their coordinator.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::{DEADLINE, Fleet, test, until};

#[test]
fn what_a_job_sets_a_later_one_reads() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let first = "set -e; buildkite-agent meta-data set release v7; echo many words | windlass meta-data set note; \
                     windlass meta-data set-batch a=1 b=2; ! windlass meta-data set blank ' '";
        let second = "set -e; [ \"$(buildkite-agent meta-data get release)\" = v7 ]; \
                      [ \"$(windlass meta-data keys | tr '\\n' ' ')\" = 'a b note release ' ]; \
                      windlass meta-data exists a; s=0; windlass meta-data exists none || s=$?; [ $s = 100 ]; \
                      [ \"$(windlass meta-data get none --default x)\" = x ]; ! windlass meta-data get none; \
                      windlass step get label --step first";
        let steps = [step("first", first), json!("wait"), step("second", second)];
        let build = fleet.run_to("passed", pipeline(steps)).await?;
        ensure!(build.0["meta_data"]["release"] == json!("v7"), "{}", build.0);
        ensure!(build.0["meta_data"]["note"] == json!("many words\n"), "{}", build.0);
        let log = fleet.client.log(build.attempt("second")?.id()).await?;
        let log = String::from_utf8(log)?;
        ensure!(log.contains("no meta-data value exists with key \"none\""), "{log}");
        Ok(())
    })
}

#[test]
fn what_cannot_be_uploaded_says_where_it_is_wrong_and_adds_nothing() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let script = "printf 'steps:\\n- command: a\\n  key: bad\\n' | buildkite-agent pipeline upload && exit 9; \
                      printf 'steps:\\n- { command: a, depends_on: [nowhere] }\\n- {' | windlass pipeline upload && exit 9; \
                      export MY_TOKEN=hunter2hunter2; echo 'steps: [{command: \"echo $MY_TOKEN\"}]' | windlass pipeline upload \
                      && exit 9; windlass secret get a && exit 9; exit 0";
        let build = fleet.run_to("passed", pipeline([step("bad", script)])).await?;
        ensure!(build.jobs().len() == 1, "{}", build.0);
        let log = String::from_utf8(fleet.client.log(build.attempt("bad")?.id()).await?)?;
        for words in [
            "bad",
            "(stdin):4:1: ",
            "the value of the variable `MY_TOKEN` has become part of the pipeline",
            "failed to get secrets: ",
        ] {
            ensure!(log.contains(words), "{words} is not in {log}");
        }
        Ok(())
    })
}

#[test]
fn a_value_that_a_job_has_redacted_is_in_no_later_line() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        // Many times, for the supervisor hears of it beside the output.
        let script = "for i in $(seq 20); do echo -n value-$i-is-secret | buildkite-agent redactor add; \
                      echo value-$i-is-secret; done";
        let build = fleet.run_to("passed", pipeline([step("tell", script)])).await?;
        let log = String::from_utf8(fleet.client.log(build.attempt("tell")?.id()).await?)?;
        ensure!(log == "[REDACTED]\n".repeat(20), "{log}");
        Ok(())
    })
}

#[test]
fn a_job_that_floods_its_mask_is_canceled_and_its_agent_goes_on() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let (up, pids) = (world.shared_file("up")?, world.shared_file("pids")?);
        // Each of as many as are served at once has other values masked, and begins again.
        let script = format!(
            "awk 'BEGIN {{ a = sprintf(\"%8000s\", \"\"); gsub(/ /, \"a\", a); for (k = 1; k <= 64; k++) {{ f = \"v\" k; \
             printf \"{{\" > f; for (i = 1; i <= 40; i++) printf \"%s\\\"k%d\\\":\\\"%d-%d-%s\\\"\", (i > 1 ? \",\" : \"\"), i, k, i, a > f; \
             printf \"}}\" > f; close(f) }} }}'; echo first-value | windlass redactor add; \
             for k in $(seq 64); do (while :; do windlass redactor add --format json v$k 2> /dev/null; done) & echo $! >> {}; \
             done; echo x > {}; wait",
            pids.display(),
            up.display()
        );
        let build = fleet.running(pipeline([step("flood", &script)]), "flood").await?;
        until("the flood has begun", DEADLINE, async || Ok((fs::read_to_string(&up)? == "x\n").then_some(()))).await?;
        fleet.client.post(&format!("/builds/{}/cancel", build.id()), &json!({})).await?.status(200)?;
        // The grace is ten seconds.
        fleet.client.ends(build.id(), "canceled", Duration::from_secs(40)).await?;
        let left = fs::read_to_string(&pids)?;
        ensure!(left.lines().count() == 64, "{left}");
        until("its processes are gone", DEADLINE, async || {
            let is_there = |pid: &str| fs::exists(format!("/proc/{pid}")).unwrap_or(true);
            Ok((!left.lines().any(is_there)).then_some(()))
        })
        .await?;
        // One that could not end a job would take nothing more.
        fleet.run_to("passed", pipeline([step("next", "true")])).await?;
        Ok(())
    })
}

#[test]
fn a_job_cancels_its_build() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let steps =
            [step("end", "buildkite-agent build cancel; sleep 60"), with(step("on", "sleep 60"), "priority", json!(1))];
        fleet.run_to("canceled", pipeline(steps)).await?;
        Ok(())
    })
}

#[test]
fn a_job_goes_on_talking_to_an_agent_that_was_killed_and_started_again() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let (up, go) = (world.shared_file("up")?, world.path("go"));
        let script = format!(
            "windlass env set KEPT=1; echo x > {}; while ! [ -e {} ]; do sleep 0.05; done; \
             [ \"$(windlass env get KEPT)\" = 1 ] && windlass meta-data set late yes",
            up.display(),
            go.display()
        );
        let build = fleet.running(pipeline([step("stay", &script)]), "stay").await?;
        until("the variable is set", DEADLINE, async || Ok((fs::read_to_string(&up)? == "x\n").then_some(()))).await?;
        fleet.agents[0].kill9().await?;
        fleet.agents[0].restart().await?;
        fs::write(&go, "")?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        ensure!(build.0["meta_data"]["late"] == json!("yes"), "{}", build.0);
        Ok(())
    })
}
