//! Step reuse with real processes: what ran once is not run again, what was not declared is not there, and nobody uses what he
//! may not read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_protocol::Digest;
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::{Agent, AgentOptions, Build, DEADLINE, Fleet, JoinToken, Submit, World, test, until};

const RUN: Duration = Duration::from_secs(90);

/// A directory in which every job leaves a line.
fn tally(world: &World) -> Result<PathBuf> {
    let dir = world.path("tally");
    fs::create_dir(&dir)?;
    // The jobs' user writes there.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
    Ok(dir)
}

fn count(dir: &Path) -> Result<usize> {
    Ok(fs::read_dir(dir)?.count())
}

/// A script that is counted.
fn counted(dir: &Path, script: &str) -> String {
    format!("mktemp {}/run.XXXXXX >/dev/null; {script}", dir.display())
}

fn reusable(key: &str, script: &str, reuse: Value) -> Value {
    with(step(key, script), "reuse", reuse)
}

/// `windlass run` of a directory on the fleet, to its end; the build as it is then.
async fn run_dir(world: &World, fleet: &Fleet<'_>, dir: &Path, more: &[&str]) -> Result<Build> {
    let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
    let (dir, token) = (dir.to_string_lossy().into_owned(), token.to_string_lossy().into_owned());
    let line = [&["run", &dir, "--server", &url, "--token-file", &token, "--json"], more].concat();
    let ran = world.run(line, RUN).await?.code(0)?;
    let last: Value = serde_json::from_str(ran.stdout.lines().last().context("events")?)?;
    fleet.client.build(last["build"]["id"].as_str().context("a build's id")?).await
}

async fn explained(fleet: &Fleet<'_>, build: &Build, key: &str) -> Result<Value> {
    let path = format!("/jobs/{}/reuse", build.job(key)?.id());
    fleet.client.get(&path).await?.status(200)?.json()
}

fn ran_ms(build: &Build) -> Result<i64> {
    let at = |name: &str| -> Result<i64> {
        let text = build.0[name].as_str().context("a time")?;
        let time = humantime_ms(text).with_context(|| format!("{name}: {text}"))?;
        Ok(time)
    };
    Ok(at("finished_at")? - at("created_at")?)
}

/// Milliseconds within a day of a time such as `2026-01-02T03:04:05.678Z`.
fn humantime_ms(text: &str) -> Option<i64> {
    let clock = text.split('T').nth(1)?.trim_end_matches('Z');
    let mut parts = clock.split(':');
    let (hours, minutes): (i64, i64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let seconds: f64 = parts.next()?.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, reason = "milliseconds of a minute")]
    Some((hours * 60 + minutes) * 60_000 + (seconds * 1_000.0).round() as i64)
}

fn project(world: &World, tally: &Path) -> Result<PathBuf> {
    let dir = world.path("project");
    fs::create_dir_all(dir.join(".windlass"))?;
    fs::create_dir_all(dir.join("in"))?;
    fs::write(dir.join("in/a.txt"), "one\n")?;
    fs::write(dir.join("notes.md"), "nobody reads this\n")?;
    let make = counted(tally, "echo making; cat in/a.txt > out.txt; ls > listing; [ ! -e notes.md ]");
    let reuse = json!({ "inputs": ["in/**"], "outputs": ["out.txt", "listing"] });
    let take = "windlass artifact download out.txt got/ && cat got/out.txt";
    let steps = [reusable("make", &make, reuse), json!("wait"), step("take", &format!("mkdir got; {take}"))];
    fs::write(dir.join(".windlass/pipeline.yml"), pipeline(steps).replace('$', "$$"))?;
    Ok(dir)
}

#[test]
fn a_second_run_of_a_directory_runs_nothing_anew_until_a_declared_file_changes() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let tally = tally(world)?;
        let dir = project(world, &tally)?;
        let first = run_dir(world, &fleet, &dir, &[]).await?;
        ensure!(first.state() == "passed" && count(&tally)? == 1, "{}", explained(&fleet, &first, "make").await?);
        ensure!(explained(&fleet, &first, "make").await?["kept"] == json!("stored"), "it is kept");
        // A file that the step does not declare is not there, and changes nothing.
        fs::write(dir.join("notes.md"), "and nobody will\n")?;
        let second = run_dir(world, &fleet, &dir, &[]).await?;
        let told = explained(&fleet, &second, "make").await?;
        ensure!(second.state() == "passed" && count(&tally)? == 1, "it ran again: {told}");
        ensure!(told["outcome"] == json!("hit") && told["from"]["number"] == json!(1), "{told}");
        ensure!(second.job("make")?.0["reused_from"]["build_id"] == json!(first.id()), "{}", second.0);
        let log = fleet.log_of(&second, "make").await?;
        ensure!(log.starts_with("~~~ reused from build #1, step make, ") && log.contains("making\n"), "{log}");
        let range =
            fleet.client.get_range(&format!("/attempts/{}/log", second.attempt("make")?.id()), "bytes=4-9").await?;
        ensure!(range.status == 206 && range.body == b"reused", "{range:?}");
        let log = fleet.log_of(&second, "take").await?;
        ensure!(log.contains("one\n"), "the next step has the file: {log}");
        ensure!(second.job("make")?.0["artifacts_count"] == json!(2), "{}", second.0);
        // A declared file counts, and is named.
        fs::write(dir.join("in/a.txt"), "two\n")?;
        let third = run_dir(world, &fleet, &dir, &[]).await?;
        let told = explained(&fleet, &third, "make").await?;
        ensure!(third.state() == "passed" && count(&tally)? == 2, "{told}");
        let changed: Vec<_> = told["nearest"]["differences"].as_array().into_iter().flatten().collect();
        ensure!(changed.iter().any(|it| it["component"].as_str().is_some_and(|it| it.contains("in/a.txt"))), "{told}");
        let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
        let token = token.to_string_lossy().into_owned();
        let line = ["cache", "explain", third.id(), "make", "--server", &url, "--token-file", &token];
        let shown = world.run(line, DEADLINE).await?.code(0)?.stdout;
        ensure!(shown.contains("make: miss") && shown.contains("in/a.txt"), "{shown}");
        // Whoever asks for it has everything run.
        let fourth = run_dir(world, &fleet, &dir, &["--no-reuse"]).await?;
        ensure!(fourth.0["no_reuse"] == json!(true) && count(&tally)? == 3, "{}", fourth.0);
        let fifth = run_dir(world, &fleet, &dir, &[]).await?;
        ensure!(fifth.job("make")?.0["reused_from"]["build_id"] == json!(fourth.id()), "the newest: {}", fifth.0);
        for (result, least) in [("hit", 2.0), ("miss", 3.0)] {
            let name = format!("windlass_reuse_total{{result=\"{result}\"}}");
            let seen = fleet.client.metric(&name).await?;
            ensure!(seen >= least, "{name} is {seen}");
        }
        Ok(())
    })
}

#[test]
fn a_program_that_a_reused_step_built_is_one_for_later_steps_for_people_and_as_an_input() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let tally = tally(world)?;
        let make = counted(
            &tally,
            "mkdir out; printf '#!/bin/sh\\necho it runs\\n' > out/tool; chmod 755 out/tool; echo t > out/t",
        );
        let uses = json!({ "artifacts": "out/*", "outputs": ["said"] });
        let steps = || {
            pipeline([
                reusable("make", &make, json!({ "outputs": ["out/*"] })),
                json!("wait"),
                step("take", "set -e; windlass artifact download 'out/*' .; [ ! -x out/t ]; ./out/tool"),
                reusable("uses", "set -e; [ ! -x out/t ]; ./out/tool > said", uses.clone()),
            ])
        };
        let first = fleet.run_to("passed", steps()).await?;
        let second = fleet.run_to("passed", steps()).await?;
        ensure!(count(&tally)? == 1 && !second.job("uses")?.0["reused_from"].is_null(), "{}", second.0);
        for build in [&first, &second] {
            let log = fleet.log_of(build, "take").await?;
            ensure!(log.contains("it runs"), "{log}");
        }
        let got = world.path("got");
        fs::create_dir(&got)?;
        let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
        let (there, token) = (got.to_string_lossy().into_owned(), token.to_string_lossy().into_owned());
        let reach = ["--build", second.id(), "--server", &url, "--token-file", &token];
        world.run([&["artifact", "download", "out/*", &there][..], &reach].concat(), DEADLINE).await?.code(0)?;
        let runs = |name: &str| -> Result<bool> {
            Ok(fs::metadata(got.join("out").join(name))?.permissions().mode() & 0o100 != 0)
        };
        ensure!(runs("tool")? && !runs("t")?, "people have the modes too");
        // What a person adds keeps its mode.
        let mine = got.join("out/tool").to_string_lossy().into_owned();
        world.run([&["artifact", "upload", &mine][..], &reach].concat(), DEADLINE).await?.code(0)?;
        let path = format!("/builds/{}/artifacts?path=*got/out/tool", second.id());
        let list = fleet.client.get(&path).await?.status(200)?.json()?;
        ensure!(list["items"][0]["executable"] == json!(true), "{list}");
        Ok(())
    })
}

#[test]
fn a_blob_that_was_uploaded_lies_where_a_step_names_it_and_decides_whether_it_runs() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let tally = tally(world)?;
        let upload = async |text: &str| {
            let digest = Digest::of(text.as_bytes());
            let path = format!("/blobs/b3/{}?project=test", digest.to_hex());
            let sent = fleet.client.put_bytes(&path, "application/octet-stream", text.as_bytes().to_vec()).await?;
            ensure!(sent.status == 201 || sent.status == 200, "{sent:?}");
            anyhow::Ok(digest)
        };
        let one = upload("#!/bin/sh\necho tool one\n").await?;
        let two = upload("#!/bin/sh\necho tool two\n").await?;
        let with = |digest: &Digest| {
            let blobs = json!([{ "path": "tools/say", "digest": digest, "executable": true }]);
            pipeline([reusable(
                "say",
                &counted(&tally, "./tools/say > said; cat said"),
                json!({ "blobs": blobs, "outputs": "said" }),
            )])
        };
        let first = fleet.run_to("passed", with(&one)).await?;
        let log = fleet.log_of(&first, "say").await?;
        ensure!(log.contains("tool one") && count(&tally)? == 1, "{log}");
        let second = fleet.run_to("passed", with(&one)).await?;
        let told = explained(&fleet, &second, "say").await?;
        ensure!(second.job("say")?.0["reused_from"]["build_id"] == json!(first.id()) && count(&tally)? == 1, "{told}");
        // Another blob is another step, and the difference has its name.
        let third = fleet.run_to("passed", with(&two)).await?;
        let told = explained(&fleet, &third, "say").await?;
        ensure!(fleet.log_of(&third, "say").await?.contains("tool two") && count(&tally)? == 2, "{told}");
        let changed = told["nearest"]["differences"].as_array().into_iter().flatten();
        let mut components = changed.filter_map(|it| it["component"].as_str());
        ensure!(components.any(|it| it == "blob tools/say"), "{told}");
        // One that nobody has: no key, and the step runs without it.
        let absent = Digest::of(b"nobody's");
        let fourth = fleet.run_to("failed", with(&absent)).await?;
        let told = explained(&fleet, &fourth, "say").await?.to_string();
        ensure!(told.contains(&format!("the blob `tools/say`, {absent}, is not in the cache of this build")), "{told}");
        ensure!(count(&tally)? == 3, "{told}");
        Ok(())
    })
}

#[test]
fn a_hit_takes_milliseconds_from_its_submit_to_its_end() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let tally = tally(world)?;
        let make = counted(&tally, "head -c 104857600 /dev/urandom > out");
        let text = pipeline([reusable("make", &make, json!({ "outputs": ["out"] }))]);
        fleet.run_to("passed", text.clone()).await?;
        let mut took = Vec::new();
        for _ in 0..10 {
            took.push(ran_ms(&fleet.run_to("passed", text.clone()).await?)?);
        }
        took.sort_unstable();
        println!("a hit of 100 MiB, from submit to final state: median {} ms, most {} ms", took[5], took[9]);
        ensure!(count(&tally)? == 1, "it ran again");
        ensure!(took[5] < 1_000, "{took:?}");
        Ok(())
    })
}

#[test]
fn of_two_builds_at_once_one_runs_the_step_and_a_failure_is_not_inherited() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 2).await?;
        let (tally, go) = (tally(world)?, world.path("go"));
        let slow = counted(&tally, &format!("{}; echo done > out", until_exists(&go)));
        let text = pipeline([reusable("slow", &slow, json!({ "outputs": ["out"] }))]);
        let first = fleet.running(text.clone(), "slow").await?;
        let second = fleet.client.submit(&Submit::text(text)).await?;
        let waits =
            |build: &Build| build.0["jobs"][0]["waiting_for"].as_str().is_some_and(|it| it.contains("result of"));
        fleet.client.wait(second.id(), "the second one waiting for the first", DEADLINE, waits).await?;
        fs::write(&go, "")?;
        for build in [&first, &second] {
            fleet.client.ends(build.id(), "passed", RUN).await?;
        }
        ensure!(count(&tally)? == 1, "it ran twice");
        // The first one to run fails; whoever waited for it runs, and passes.
        let (once, go) = (world.path("tally/once"), world.path("go2"));
        let fails = format!("if mkdir {}; then {}; exit 3; fi", once.display(), until_exists(&go));
        let text = pipeline([reusable("fails", &fails, json!({}))]);
        let first = fleet.running(text.clone(), "fails").await?;
        let second = fleet.client.submit(&Submit::text(text)).await?;
        fleet.client.wait(second.id(), "the second one waiting for the first", DEADLINE, waits).await?;
        fs::write(&go, "")?;
        let first = fleet.client.ends(first.id(), "failed", RUN).await?;
        let second = fleet.client.ends(second.id(), "passed", RUN).await?;
        ensure!(first.job("fails")?.exit_status() == Some(3), "{}", first.brief());
        ensure!(second.job("fails")?.0["reused_from"].is_null(), "it ran: {}", second.0);
        Ok(())
    })
}

#[test]
fn what_is_untrusted_uses_what_is_trusted_and_nobody_trusted_uses_what_is_not() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let tally = tally(world)?;
        let wild = JoinToken::pool("wild", &["default"]).with("trust", json!("untrusted"));
        let token = fleet.client.join_token(&wild).await?;
        let wild = Agent::start(world, AgentOptions::new("wild", fleet.coordinator.address(), &token))?;
        wild.in_state(&fleet.client, "online").await?;
        fleet.agents.push(wild);
        let text = |key: &str| {
            pipeline([reusable(key, &counted(&tally, &format!("echo {key} > out")), json!({ "outputs": ["out"] }))])
        };
        let made = fleet.client.api_token(&["builds:write"], &json!({ "branch": "feature" })).await?;
        let stranger = fleet.client.token(made["token"].as_str());
        let submit = async |key: &str| {
            let build = stranger.submit(&Submit::text(text(key)).with("branch", json!("feature"))).await?;
            fleet.client.ends(build.id(), "passed", RUN).await
        };
        // What a stranger made is its own.
        submit("evil").await?;
        let own = submit("evil").await?;
        ensure!(!own.job("evil")?.0["reused_from"].is_null() && count(&tally)? == 1, "{}", own.0);
        let ours = fleet.run_to("passed", text("evil")).await?;
        ensure!(ours.job("evil")?.0["reused_from"].is_null() && count(&tally)? == 2, "I12: {}", ours.0);
        // What is trusted it uses, and does not read the log of a build that it may not read.
        let good = fleet.run_to("passed", text("good")).await?;
        let used = submit("good").await?;
        ensure!(used.job("good")?.0["reused_from"]["build_id"] == json!(good.id()), "{}", used.0);
        ensure!(count(&tally)? == 3, "it ran");
        let log = stranger.log(used.attempt("good")?.id()).await?;
        let log = String::from_utf8_lossy(&log).into_owned();
        ensure!(log.contains("reused from") && log.contains("its log is not shown"), "{log}");
        Ok(())
    })
}

#[test]
fn a_result_outlives_a_restart_and_a_job_that_reads_meta_data_leaves_none() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let tally = tally(world)?;
        let plain = pipeline([reusable("plain", &counted(&tally, "echo plain"), json!({}))]);
        let reads = counted(&tally, "windlass meta-data get k --default none");
        let reads = pipeline([reusable("reads", &reads, json!({}))]);
        fleet.run_to("passed", plain.clone()).await?;
        let read = fleet.run_to("passed", reads.clone()).await?;
        let told = explained(&fleet, &read, "reads").await?;
        ensure!(told["kept"] == json!("not_stored") && told["kept_why"] == json!("it read meta-data"), "{told}");
        fleet.coordinator.kill9().await?;
        fleet.coordinator.restart().await?;
        until("the agent is back", DEADLINE, async || {
            let agents = fleet.client.agents().await.unwrap_or_default();
            Ok(agents.iter().any(|agent| agent["state"] == json!("online")).then_some(()))
        })
        .await?;
        let again = fleet.run_to("passed", plain).await?;
        ensure!(!again.job("plain")?.0["reused_from"].is_null() && count(&tally)? == 2, "{}", again.0);
        fleet.run_to("passed", reads).await?;
        ensure!(count(&tally)? == 3, "it did not run again");
        Ok(())
    })
}
