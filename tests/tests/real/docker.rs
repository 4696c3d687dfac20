//! Steps in containers of a real engine.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::process::Command;
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::skip::skip;
use windlass_tests::kit::world::run;
use windlass_tests::kit::{DEADLINE, Fleet, World, test};

/// The image of these tests: busybox and nothing else.
const IMAGE: &str = "windlass-test/busybox:e2e";

async fn docker(arguments: &[&str]) -> Result<windlass_tests::kit::Ran> {
    let mut docker = Command::new("docker");
    docker.args(arguments);
    run("docker", docker, DEADLINE).await
}

fn engine() -> bool {
    std::process::Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success())
}

/// Makes the image of what Debian ships.
async fn import(world: &World) -> Result<()> {
    let script = "set -e; mkdir -p img/bin img/tmp img/etc; cp \"$(command -v busybox)\" img/bin/busybox; \
                  for a in sh cat echo ls id env pwd test touch sleep uname true false grep wc; do ln -s busybox img/bin/$a; done; \
                  echo 'root:x:0:0:root:/:/bin/sh' > img/etc/passwd; tar -C img -c . | docker import - ";
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("{script}{IMAGE}")]).current_dir(world.root());
    run("docker import", bash, DEADLINE).await?.code(0)?;
    Ok(())
}

#[test]
fn a_step_with_an_image_runs_in_it_and_leaves_no_container() -> Result<()> {
    if !engine() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let fleet = Fleet::start(world).await?;
        let inside = with(
            step("inside", "test ! -e /etc/debian_version && echo inside; echo made > made; pwd"),
            "image",
            json!(IMAGE),
        );
        let build = fleet.run_to("passed", pipeline([inside])).await?;
        let log = fleet.log_of(&build, "inside").await?;
        ensure!(log.starts_with("inside\n"), "{log}");
        let place = log.lines().nth(1).context("a place")?;
        let work = fleet.agents.first().context("an agent")?.data().join("work");
        ensure!(place.starts_with(&work.display().to_string()), "the workspace is at {place}, not as on the host");
        let attempt = build.attempt("inside")?;
        let left = docker(&["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.Labels}}"]).await?.code(0)?;
        ensure!(!left.stdout.contains(attempt.id()), "a container is left: {}", left.stdout);
        Ok(())
    })
}

#[test]
fn a_step_whose_image_is_not_to_be_had_fails_with_its_cause() -> Result<()> {
    if !engine() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let absent = with(step("absent", "true"), "image", json!("localhost:1/nobody/has-this:ever"));
        let build = fleet.run_to("failed", pipeline([absent])).await?;
        let cause = build.job("absent")?.cause().to_owned();
        ensure!(cause == "image_pull_failed" || cause == "image_missing", "{}", build.brief());
        Ok(())
    })
}

#[test]
fn a_canceled_step_leaves_no_container() -> Result<()> {
    if !engine() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let fleet = Fleet::start(world).await?;
        let long = with(step("long", "sleep 600"), "image", json!(IMAGE));
        let build = fleet.running(pipeline([long]), "long").await?;
        let attempt = build.attempt("long")?;
        fleet.client.post(&format!("/builds/{}/cancel", build.id()), &json!({})).await?.status(200)?;
        fleet.client.ends(build.id(), "canceled", DEADLINE).await?;
        let left = docker(&["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.Labels}}"]).await?.code(0)?;
        ensure!(!left.stdout.contains(attempt.id()), "a container is left: {}", left.stdout);
        Ok(())
    })
}

#[test]
fn the_command_works_in_an_image_that_has_nothing_at_all() -> Result<()> {
    if !engine() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let scratch = "windlass-test/scratch:e2e";
        let script = format!("mkdir empty; touch empty/nothing; tar -C empty -c nothing | docker import - {scratch}");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(world.root());
        run("docker import", bash, DEADLINE).await?.code(0)?;

        let fleet = Fleet::start(world).await?;
        let script = "set -e; buildkite-agent env set A=1; [ \"$(windlass env get A)\" = 1 ]; echo some-secret >s; \
                      windlass redactor add s; cat s; windlass meta-data set busybox yes; \
                      while ! windlass meta-data exists scratch; do sleep 0.1; done";
        let stays = with(step("stays", script), "image", json!(IMAGE));
        let build = fleet.running(pipeline([stays]), "stays").await?;
        // The job's door and program, in a container of another image: beside them it has nothing.
        let attempt = build.attempt("stays")?.id().to_owned();
        let work = fleet.agents.first().context("an agent")?.data().join("work").canonicalize()?;
        let (programs, door) = (work.join(".bin"), work.join(".doors").join(&attempt).join("in"));
        let mount = |path: &std::path::Path| format!("{0}:{0}:ro", path.display());
        let socket = format!("WINDLASS_JOB_SOCKET={}/job.sock", door.display());
        let entry = format!("{}/windlass", programs.display());
        let (programs, door) = (mount(&programs), mount(&door));
        let bare = ["run", "--rm", "--network", "none", "-v", &programs, "-v", &door, "-e", &socket, "--user", "1234"];
        let call = async |line: &[&str]| docker(&[&bare[..], &["--entrypoint", &entry, scratch], line].concat()).await;
        let got = call(&["meta-data", "get", "busybox"]).await?.code(0)?;
        ensure!(got.stdout == "yes\n", "{got:?}");
        call(&["meta-data", "exists", "nothing"]).await?.code(100)?;
        call(&["meta-data", "set", "scratch", "yes"]).await?.code(0)?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let log = fleet.log_of(&build, "stays").await?;
        ensure!(log.contains("[REDACTED]\n") && !log.contains("some-secret"), "{log}");
        ensure!(build.0["meta_data"]["busybox"] == json!("yes"), "{}", build.0);
        Ok(())
    })
}
