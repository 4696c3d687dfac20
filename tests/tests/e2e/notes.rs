//! What jobs say to their builds: annotations, changes of steps, uploads with what the job's own process knows, and who
//! they are, proven to others.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::{DEADLINE, Fleet, World, test};

/// What a command of the CLI prints of a fleet.
async fn shown(world: &World, fleet: &Fleet<'_>, line: &[&str]) -> Result<String> {
    let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
    let token = token.to_str().context("a path")?;
    let line = [line, &["--server", &url, "--token-file", token]].concat();
    Ok(world.run(line, DEADLINE).await?.code(0)?.stdout)
}

#[test]
fn a_job_annotates_its_build_and_people_read_it() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let script = "set -e; export MY_TOKEN=hunter2hunter2; buildkite-agent annotate 'All *good*' --style success; \
                      echo 'more with hunter2hunter2' | windlass annotate --append --priority 7; \
                      windlass annotate --context other --scope job 'of the job'; \
                      windlass annotate --context gone x; windlass annotation remove --context gone; \
                      windlass annotate --context other --style error && exit 9; \
                      head -c 1048577 /dev/zero | tr '\\0' x | windlass annotate && exit 9; exit 0";
        let build = fleet.run_to("passed", pipeline([step("write", script)])).await?;
        let id = build.id().to_string();
        let log = String::from_utf8(fleet.client.log(build.attempt("write")?.id()).await?)?;
        ensure!(log.contains("has been redacted") && log.contains("exceeds maximum"), "{log}");
        ensure!(log.contains("there is no annotation `other` whose style could change"), "{log}");
        let shown = shown(world, &fleet, &["build", "show", &id, "--json"]).await?;
        let shown: Value = serde_json::from_str(&shown)?;
        let notes = shown["annotations"].as_array().context("annotations")?;
        let bodies: Vec<_> = notes.iter().map(|note| [&note["body"], &note["style"], &note["scope"]]).collect();
        let first = json!("All *good*more with [REDACTED]\n");
        ensure!(bodies[0] == [&first, &json!("success"), &json!("build")], "{notes:?}");
        ensure!(bodies[1] == [&json!("of the job"), &json!(null), &json!("job")] && notes.len() == 2, "{notes:?}");
        let people = self::shown(world, &fleet, &["build", "show", &id]).await?;
        ensure!(people.contains("2 annotations"), "{people}");
        Ok(())
    })
}

#[test]
fn a_job_changes_its_step_and_ends_another_at_once() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let up = world.shared_file("up")?;
        let change = format!(
            "set -e; windlass step update label 'Seen by all'; echo ' twice' | windlass step update label --append; \
             windlass step get label; windlass step update priority 3 --step later; \
             while [ \"$(cat {0})\" != up ]; do sleep 0.05; done; \
             windlass step cancel --step stubborn --force --force-grace-period-seconds 0",
            up.display()
        );
        let stubborn = format!("trap '' TERM; echo -n up > {}; while :; do sleep 0.1; done", up.display());
        let steps = [
            step("change", &change),
            with(step("stubborn", &stubborn), "soft_fail", json!(true)),
            json!("wait"),
            step("later", "true"),
        ];
        let build = fleet.run_to("passed", pipeline(steps)).await?;
        let job = build.job("change")?;
        ensure!(job.0["label"] == json!("Seen by all twice\n"), "{}", job.0);
        let stopped = build.job("stubborn")?;
        ensure!(stopped.0["state"] == json!("canceled"), "{}", stopped.0);
        Ok(())
    })
}

#[test]
fn an_upload_knows_its_own_process_and_shows_what_it_would_do() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let seen = world.shared_file("seen")?;
        let script = format!(
            "set -e; export WHO=process; \
             printf 'env: {{FROM: \"$WHO\"}}\\nsteps:\\n- {{command: \"echo $FROM $$FROM >> {0}\", key: up}}\\n---\\n\
             - {{command: \"echo again $FROM >> {0}\", key: two}}\\n- {{command: x, key: three, if_changed: \"none/**\"}}\\n' > p.yml; \
             echo p.yml > changed; buildkite-agent pipeline upload --dry-run p.yml --changed-files-path changed; \
             buildkite-agent pipeline upload p.yml --changed-files-path changed",
            seen.display()
        );
        let build = fleet.run_to("passed", pipeline([step("make", &script)])).await?;
        let mut lines: Vec<String> = fs::read_to_string(&seen)?.lines().map(str::to_owned).collect();
        lines.sort();
        ensure!(lines == ["again process", "process process"], "{lines:?}");
        let skipped = build.job("three")?;
        ensure!(skipped.0["state"] == json!("skipped"), "{}", skipped.0);
        let log = String::from_utf8(fleet.client.log(build.attempt("make")?.id()).await?)?;
        ensure!(log.contains("\"key\": \"up\"") && log.contains("no file that it names has changed"), "{log}");
        Ok(())
    })
}
