//! What becomes of builds: once, canceled, retried, out of time, forgiven.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Pid, test_kill_process};
use serde_json::json;
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::{DEADLINE, Fleet, Submit, test, until};

#[test]
fn a_pipeline_runs_in_the_order_of_its_dependencies() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let order = world.shared_file("order")?;
        // Slow to write: one that does not wait for it would come first.
        let note = |key: &str| step(key, &format!("sleep 0.2; echo {key} >> {}", order.display()));
        let steps = [
            note("first"),
            with(note("second"), "depends_on", json!("first")),
            with(note("third"), "depends_on", json!("second")),
            json!("wait"),
            note("last"),
        ];
        let build = fleet.run_to("passed", pipeline(steps)).await?;
        ensure!(fs::read_to_string(order)? == "first\nsecond\nthird\nlast\n", "the order was another");
        ensure!(build.job("last")?.exit_status() == Some(0), "{}", build.0);
        Ok(())
    })
}

#[test]
fn an_idempotency_key_makes_one_build_however_often_it_is_sent() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let submit = Submit::text(pipeline([step("one", "true")])).key("the same");
        let first = fleet.client.submit(&submit).await?;
        let second = fleet.client.try_submit(&submit).await?;
        ensure!(second.status == 201 || second.status == 200, "status {}", second.status);
        ensure!(second.json()?["id"] == json!(first.id()), "the second is another build");
        let other = Submit::text(pipeline([step("two", "true")])).key("the same");
        let refused = fleet.client.try_submit(&other).await?.status(422)?;
        ensure!(refused.problem()?.contains("idempotency"), "{:?}", refused.json());
        let list = fleet.client.get("/builds").await?.status(200)?.json()?;
        ensure!(list["items"].as_array().is_some_and(|items| items.len() == 1), "{list}");
        Ok(())
    })
}

/// A job that would rather stay: it ignores SIGTERM, and has a child in a session of its own that does too.
fn stubborn(pids: &std::path::Path) -> String {
    format!(
        "trap '' TERM; echo $$ >> {0}; setsid sh -c 'trap \"\" TERM; echo $$ >> {0}; while :; do sleep 1; done' & \
         while :; do sleep 1; done",
        pids.display()
    )
}

fn alive(pids: &std::path::Path) -> Result<Vec<Pid>> {
    let text = fs::read_to_string(pids)?;
    let pids = text.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?));
    Ok(pids.filter(|pid| test_kill_process(*pid).is_ok()).collect())
}

#[test]
fn a_canceled_build_ends_its_processes_and_starts_nothing_more() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let (pids, later) = (world.shared_file("pids")?, world.path("later"));
        let steps = [
            step("stay", &stubborn(&pids)),
            with(step("later", &format!("touch {}", later.display())), "depends_on", json!("stay")),
        ];
        let build = fleet.running(pipeline(steps), "stay").await?;
        until("two processes", DEADLINE, async || Ok((alive(&pids)?.len() == 2).then_some(()))).await?;
        fleet.client.post(&format!("/builds/{}/cancel", build.id()), &json!({})).await?.status(200)?;
        // The grace is ten seconds.
        let build = fleet.client.ends(build.id(), "canceled", Duration::from_secs(40)).await?;
        ensure!(alive(&pids)?.is_empty(), "processes live on: {:?}", alive(&pids)?);
        ensure!(build.job("stay")?.state() == "canceled", "{}", build.brief());
        ensure!(build.job("later")?.attempts().is_empty() && !later.exists(), "a canceled build went on");
        Ok(())
    })
}

#[test]
fn retrying_a_build_runs_what_failed_and_what_waited_for_it_alone() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let (good, ran) = (world.path("good"), world.shared_file("ran")?);
        let note = |key: &str, then: &str| step(key, &format!("echo {key} >> {}; {then}", ran.display()));
        let steps = [
            note("well", "true"),
            note("badly", &format!("test -e {}", good.display())),
            with(note("after", "true"), "depends_on", json!("badly")),
        ];
        let build = fleet.run_to("failed", pipeline(steps)).await?;
        ensure!(build.job_is("badly", "failed") && build.job_is("after", "waiting_failed"), "{}", build.brief());
        fs::write(&good, "")?;
        fleet.client.post(&format!("/builds/{}/retry", build.id()), &json!({})).await?.status(200)?;
        let build = fleet.client.wait(build.id(), "passed", DEADLINE, |build| build.state() == "passed").await?;
        let tries = |key: &str| build.job(key).map(|job| job.attempts().len());
        ensure!(tries("well")? == 1 && tries("badly")? == 2 && tries("after")? == 1, "{}", build.0);
        let mut lines: Vec<_> = fs::read_to_string(ran)?.lines().map(str::to_owned).collect();
        lines.sort();
        ensure!(lines == ["after", "badly", "badly", "well"], "{lines:?}");
        Ok(())
    })
}

#[test]
fn a_failure_is_retried_by_itself_as_often_as_its_rule_says() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let rule = json!({ "automatic": [{ "exit_status": 7, "limit": 2 }] });
        let steps =
            [with(step("seven", "exit 7"), "retry", rule.clone()), with(step("eight", "exit 8"), "retry", rule)];
        let build = fleet.run_to("failed", pipeline(steps)).await?;
        ensure!(build.job("seven")?.attempts().len() == 3, "{}", build.0);
        ensure!(build.job("eight")?.attempts().len() == 1, "{}", build.0);
        ensure!(build.job("eight")?.exit_status() == Some(8), "{}", build.0);
        Ok(())
    })
}

#[test]
fn a_soft_failure_fails_no_build_and_is_shown() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let soft = with(step("soft", "exit 3"), "soft_fail", json!([{ "exit_status": 3 }]));
        let build = fleet.run_to("passed", pipeline([soft])).await?;
        let job = build.job("soft")?;
        ensure!(job.0["soft_failed"] == json!(true) && job.exit_status() == Some(3), "{}", build.0);
        let hard = with(step("hard", "exit 4"), "soft_fail", json!([{ "exit_status": 3 }]));
        fleet.run_to("failed", pipeline([hard])).await?;
        Ok(())
    })
}

#[test]
fn a_job_that_dies_by_a_signal_says_which() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let build = fleet.run_to("failed", pipeline([step("die", "kill -USR1 $$; sleep 60")])).await?;
        let job = build.job("die")?;
        let signal = job.0["signal"].to_string();
        ensure!(signal.contains("10") || signal.contains("USR1"), "{}", build.0);
        Ok(())
    })
}

#[test]
fn a_job_past_its_time_is_ended_and_its_cause_says_so() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let pids = world.shared_file("pids")?;
        let script = format!("echo $$ >> {}; sleep 600", pids.display());
        let slow = with(step("slow", &script), "timeout_in_minutes", json!(1));
        let build = fleet.client.submit(&Submit::text(pipeline([slow]))).await?;
        let build = fleet.client.ends(build.id(), "failed", Duration::from_secs(100)).await?;
        let job = build.job("slow")?;
        ensure!(job.state() == "timed_out" && job.cause() == "timeout", "{}", build.brief());
        ensure!(alive(&pids)?.is_empty(), "it lives on");
        Ok(())
    })
}

#[test]
fn a_job_sees_what_it_was_given_and_nothing_of_its_agents_environment() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let env = with(step("env", "env; pwd"), "env", json!({ "FROM_STEP": "a step's" }));
        let submit = Submit::text(pipeline([env])).with("env", json!({ "FROM_BUILD": "a build's" }));
        let build = fleet.client.submit(&submit).await?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let log = fleet.log_of(&build, "env").await?;
        let (job, attempt) = (build.job("env")?, build.attempt("env")?);
        for line in [
            "FROM_STEP=a step's".to_owned(),
            "FROM_BUILD=a build's".to_owned(),
            "WINDLASS=true".to_owned(),
            "CI=true".to_owned(),
            "BUILDKITE=true".to_owned(),
            format!("WINDLASS_BUILD_ID={}", build.id()),
            format!("WINDLASS_JOB_ID={}", job.id()),
            format!("WINDLASS_ATTEMPT_ID={}", attempt.id()),
            format!("BUILDKITE_JOB_ID={}", attempt.id()),
            "WINDLASS_ATTEMPT=1".to_owned(),
            "WINDLASS_QUEUE=default".to_owned(),
            "WINDLASS_ZONE=local".to_owned(),
            "BUILDKITE_STEP_KEY=env".to_owned(),
            "BUILDKITE_AGENT_NAME=agent-1".to_owned(),
        ] {
            ensure!(log.lines().any(|found| found == line), "no line `{line}` in\n{log}");
        }
        for name in ["WINDLASS_LOG=", "XDG_RUNTIME_DIR=", "NO_COLOR=", "WINDLASS_TOKEN="] {
            ensure!(!log.contains(name), "the agent's {name} in\n{log}");
        }
        Ok(())
    })
}
