//! Secrets from the command that sets them to the job that has them, and nowhere else (I6).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::{Agent, AgentOptions, DEADLINE, Fleet, JoinToken, Submit, World, test};

/// Said in a command, so that it is found wherever a job leaves a trace.
const CONTROL: &str = "a-word-that-is-found";

const PLAIN: &str = "hunter22-plain-value";
const OTHER: &str = "hunter33-two\nlines-of-it";

/// How many files below a directory hold these bytes.
fn holding(dir: &Path, bytes: &[u8]) -> Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            // What ends while it is looked at holds nothing any more.
            found += holding(&entry.path(), bytes).unwrap_or(0);
        } else if kind.is_file() {
            let held = fs::read(entry.path()).unwrap_or_default();
            found += usize::from(held.windows(bytes.len()).any(|window| window == bytes));
        }
    }
    Ok(found)
}

/// That no file of coordinator and agents holds a value, and that the control is found by the same search.
fn nowhere(fleet: &Fleet<'_>, world: &World) -> Result<()> {
    for dir in [fleet.coordinator.data(), fleet.agents[0].data()] {
        ensure!(holding(dir, CONTROL.as_bytes())? > 0, "the search finds nothing in {}", dir.display());
    }
    for dir in [fleet.coordinator.data(), fleet.agents[0].data(), &world.logs()] {
        for value in [PLAIN, OTHER, "hunter33-two", "lines-of-it", "hunter22"] {
            ensure!(holding(dir, value.as_bytes())? == 0, "{value} is in {}", dir.display());
        }
    }
    Ok(())
}

async fn set(fleet: &Fleet<'_>, world: &World, key: &str, value: &str, more: &[&str]) -> Result<()> {
    let (file, token) = (world.path("value"), world.path("admin"));
    fs::write(&file, format!("{value}\n"))?;
    fs::write(&token, fleet.coordinator.token()?)?;
    let (file, token, url) = (file.display().to_string(), token.display().to_string(), fleet.coordinator.url());
    let command = ["secret", "set", key, "--file", &file, "--server", &url, "--token-file", &token];
    let said = world.run([&command[..], more].concat(), DEADLINE).await?.code(0)?;
    ensure!(!said.stdout.contains("hunter") && !said.stderr.contains("hunter"), "{}", said.stderr);
    Ok(())
}

#[test]
fn a_secret_is_in_the_job_that_may_have_it_and_nowhere_else() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        set(&fleet, world, "plain", PLAIN, &["--pipeline", "web", "--branch", "main"]).await?;
        set(&fleet, world, "OTHER", OTHER, &["--zone", "local"]).await?;
        let go = world.path("go");
        let script = format!(
            "echo {CONTROL} ${{#MINE}}; echo \"it is $MINE\"; buildkite-agent secret get other | wc -c\n\
             buildkite-agent secret get Other; printf '%s' \"$MINE\" >in-workspace; rm in-workspace\n\
             buildkite-agent meta-data set k \"x $MINE y\"\n\
             echo \"steps: [{{ command: 'echo $MINE' }}]\" | buildkite-agent pipeline upload --allow-secrets || echo refused $?\n\
             buildkite-agent secret get absent || echo absent $?\n{}",
            until_exists(&go)
        );
        let show = with(step("show", &script), "secrets", json!({ "MINE": "PLAIN" }));
        let submit =
            || Submit::text(pipeline([show.clone()])).with("pipeline", json!("web")).with("branch", json!("main"));
        let build = fleet.client.submit(&submit()).await?;
        let build = fleet.client.wait(build.id(), "it runs", DEADLINE, |build| build.job_is("show", "running")).await?;
        fleet.client.log_holds(build.attempt("show")?.id(), "absent 1", DEADLINE).await?;
        nowhere(&fleet, world)?;
        fs::write(&go, "")?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let log = fleet.log_of(&build, "show").await?;
        ensure!(!log.contains("hunter") && !log.contains("lines-of-it"), "{log}");
        for words in [format!("{CONTROL} {}", PLAIN.len()), "it is [REDACTED]".to_owned(), "refused 1".to_owned()] {
            ensure!(log.contains(&words), "{words}: {log}");
        }
        ensure!(log.contains(&format!("{}\n", OTHER.len() + 1)), "the job had the other one whole: {log}");
        let shown = fleet.client.get(&format!("/builds/{}", build.id())).await?.status(200)?.json()?;
        ensure!(
            shown["meta_data"]["k"] == "x [REDACTED] y" && shown["jobs"].as_array().map(Vec::len) == Some(1),
            "{shown}"
        );
        nowhere(&fleet, world).or_else(|error| {
            // Of the agent's traces the attempt's own are gone with it.
            if error.to_string().contains("the search finds nothing") { Ok(()) } else { Err(error) }
        })
    })
}

#[test]
fn who_may_not_have_a_secret_does_not_start() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        set(&fleet, world, "KEY", PLAIN, &["--branch", "main"]).await?;
        let wild = JoinToken::pool("wild", &["default"]).with("trust", json!("untrusted"));
        let wild = fleet.client.join_token(&wild).await?;
        let wild = Agent::start(world, AgentOptions::new("wild", fleet.coordinator.address(), &wild))?;
        wild.in_state(&fleet.client, "online").await?;
        let made = fleet.client.api_token(&["builds:write"], &json!({})).await?;
        let stranger = fleet.client.token(made["token"].as_str());
        let asks = with(step("asks", "echo started"), "secrets", json!(["KEY"]));
        let gets = step("gets", "buildkite-agent secret get KEY && echo got it");
        for (client, branch, kinds) in
            [(&stranger, "main", ["secret_missing", ""]), (&fleet.client, "topic", ["secret_missing", ""])]
        {
            let submit = Submit::text(pipeline([asks.clone(), gets.clone()])).with("branch", json!(branch));
            let build = client.submit(&submit).await?;
            let build = fleet.client.ends(build.id(), "failed", DEADLINE).await?;
            for (key, kind) in ["asks", "gets"].iter().zip(kinds) {
                ensure!(build.job(key)?.cause() == kind, "{key} of {branch}: {}", build.brief());
            }
            ensure!(fleet.log_of(&build, "asks").await?.is_empty(), "the command started");
            ensure!(!fleet.log_of(&build, "gets").await?.contains("got it"), "{}", build.brief());
        }
        Ok(())
    })
}

#[test]
fn a_coordinator_does_not_start_under_another_key_and_changes_it_when_told() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        set(&fleet, world, "KEY", PLAIN, &[]).await?;
        fleet.coordinator.term().await?;
        let (data, new) = (fleet.coordinator.data().to_owned(), world.path("new.key"));
        fs::write(&new, "5a".repeat(32))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        let listen = fleet.coordinator.address().to_string();
        let start = ["coordinator", "--listen", &listen, "--data"].map(std::ffi::OsStr::new);
        let start = [&start[..], &[data.as_os_str(), "--secrets-key-file".as_ref(), new.as_os_str()]].concat();
        let refused = world.run(start.clone(), Duration::from_secs(30)).await?.code(1)?;
        ensure!(refused.stderr.contains("--secrets-old-key-file"), "{}", refused.stderr);
        ensure!(!refused.stderr.contains("5a5a"), "{}", refused.stderr);
        let old = data.join("secrets.key");
        let more = ["--secrets-key-file".as_ref(), new.as_os_str(), "--secrets-old-key-file".as_ref(), old.as_os_str()];
        let more = more.map(|word| word.to_string_lossy().into_owned()).to_vec();
        let options = windlass_tests::kit::CoordinatorOptions { data: Some(data), listen, more, ..Default::default() };
        fleet.coordinator = windlass_tests::kit::Coordinator::start_with(world, options).await?;
        fs::remove_file(&old)?;
        let show = with(step("show", "echo ${#KEY}"), "secrets", json!(["KEY"]));
        let build = fleet.run_to("passed", pipeline([show])).await?;
        ensure!(fleet.log_of(&build, "show").await? == format!("{}\n", PLAIN.len()), "{}", build.brief());
        Ok(())
    })
}
