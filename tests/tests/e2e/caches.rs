//! Caches by key with real processes: saved in one build, restored in the next on another agent; what is untrusted beside what
//! is trusted; and what a death in the middle leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::{Agent, AgentOptions, Build, DEADLINE, Fleet, JoinToken, Submit, World, test, until};

/// A step with a cache of `deps`, by what is in `lock`.
fn cached(key: &str, lock: &str, script: &str) -> Value {
    let cache = json!({
        "paths": ["deps", "~/.tool"],
        "key": "deps-{{ agent.os }}-{{ checksum \"lock\" }}",
        "restore_keys": ["deps-{{ agent.os }}-"],
    });
    // What stands for the checkout: a hook would do the same, and needs no repository.
    let hook = format!("printf %s '{lock}' > lock");
    let step = with(step(key, script), "cache", cache);
    with(step, "env", json!({ "LOCK": hook }))
}

/// An agent whose hook runs `LOCK` before a step's cache comes.
fn agent<'a>(world: &'a World, name: &str, fleet: &Fleet<'_>, token: &str) -> Result<Agent<'a>> {
    let hooks = world.path("hooks");
    fs::create_dir_all(&hooks)?;
    let hook = hooks.join("post-checkout");
    fs::write(&hook, "eval \"${LOCK:-true}\"\n")?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let mut options = AgentOptions::new(name, fleet.coordinator.address(), token);
    options.more = ["--hooks-path", &hooks.display().to_string()].map(str::to_owned).to_vec();
    Agent::start(world, options)
}

async fn fleet_of_two(world: &World) -> Result<Fleet<'_>> {
    let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 0).await?;
    for (name, queue) in [("one", "default"), ("two", "two")] {
        let token = fleet.client.join_token(&JoinToken::pool(name, &[queue]).zone("local")).await?;
        let agent = agent(world, name, &fleet, &token)?;
        agent.in_state(&fleet.client, "online").await?;
        fleet.agents.push(agent);
    }
    Ok(fleet)
}

fn on(step: Value, queue: &str) -> Value {
    with(step, "agents", json!({ "queue": queue }))
}

fn has(log: &str, words: &str) -> Result<()> {
    ensure!(log.contains(words), "{words:?} is not in the log:\n{log}");
    Ok(())
}

#[test]
fn what_one_build_saves_the_next_one_has_on_another_agent_and_another_key_does_in_its_place() -> Result<()> {
    test(async |world| {
        let fleet = fleet_of_two(world).await?;
        let make = "test ! -e deps; mkdir -p deps/bin ~/.tool; echo one > deps/one; ln -s one deps/link; echo 'echo tool' > deps/bin/t; \
                    chmod 755 deps/bin/t; touch -d 2001-02-03T04:05:06Z deps/one; echo home > ~/.tool/f; echo changed > lock";
        let build = fleet.run_to("passed", pipeline([cached("make", "1", make)])).await?;
        let log = fleet.log_of(&build, "make").await?;
        has(&log, "there is none under \"deps-linux-6b86b273")?;
        has(&log, "Saved cache \"deps, ~/.tool\" under \"deps-linux-6b86b273")?;
        let take = "[ \"$(cat deps/link)\" = one ]; [ \"$(deps/bin/t 2>/dev/null || sh deps/bin/t)\" = tool ]; [ -x deps/bin/t ]; \
                    [ \"$(cat ~/.tool/f)\" = home ]; [ \"$(date -u -r deps/one +%s)\" = 981173106 ]; [ \"$WINDLASS_CACHE_KEY\" ]";
        let build = fleet.run_to("passed", pipeline([on(cached("take", "1", take), "two")])).await?;
        let log = fleet.log_of(&build, "take").await?;
        has(&log, "Restored cache \"deps, ~/.tool\" from \"deps-linux-6b86b273")?;
        has(&log, "is there already")?;
        // Another lock, and a step that fails: it has the older one, and keeps nothing.
        let fails = "[ -e deps/one ]; echo two > deps/two; exit 7";
        let build = fleet.run(pipeline([cached("fails", "2", fails)])).await?;
        ensure!(build.job("fails")?.exit_status() == Some(7), "{}", build.brief());
        let log = fleet.log_of(&build, "fails").await?;
        has(&log, "from \"deps-linux-6b86b273")?;
        ensure!(!log.contains("Saving cache"), "{log}");
        let again = "[ -e deps/one ]; [ ! -e deps/two ]; echo two > deps/two";
        let build = fleet.run_to("passed", pipeline([cached("again", "2", again)])).await?;
        has(&fleet.log_of(&build, "again").await?, "Saved cache \"deps, ~/.tool\" under \"deps-linux-d4735e3a")?;
        Ok(())
    })
}

#[test]
fn commands_save_and_restore_by_a_file_and_what_they_cannot_read_fails_them() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let file = "mkdir -p .buildkite; printf 'caches: [{name: a, cache_key: [v1, {env: WHICH}], target_paths: [out]}]' \
                    > .buildkite/cache.yml; ";
        let save = "set -e; mkdir out; echo kept > out/f; WHICH=x buildkite-agent cache save; \
                    mkdir other; echo other > out/f; WHICH=x windlass cache save --name a; \
                    if buildkite-agent cache save --name none; then exit 91; fi; \
                    if buildkite-agent cache save --nope; then exit 92; fi; \
                    if buildkite-agent cache restore --cache-config-file missing.yml; then exit 93; fi; \
                    buildkite-agent cache";
        let build = fleet.run(pipeline([step("save", &format!("{file}{save}"))])).await?;
        ensure!(build.job("save")?.exit_status() == Some(1), "a group without a command says so: {}", build.brief());
        let log = fleet.log_of(&build, "save").await?;
        for words in [
            "Saved cache \"a\" under \"v1/x\"",
            "is there already",
            "not found in configuration: none",
            "not defined: -nope",
        ] {
            has(&log, words)?;
        }
        let restore = "set -e; echo mine > mine; WHICH=y buildkite-agent cache restore; [ ! -e out ]; mkdir out; echo old > out/old; \
                       WHICH=x buildkite-agent cache restore; [ \"$(cat out/f)\" = kept ]; [ ! -e out/old ]; [ -e mine ]";
        fleet.run_to("passed", pipeline([step("restore", &format!("{file}{restore}"))])).await?;
        Ok(())
    })
}

async fn untrusted(fleet: &Fleet<'_>, definition: String) -> Result<Build> {
    let made = fleet.client.api_token(&["builds:write"], &json!({})).await?;
    let client = fleet.client.token(made["token"].as_str());
    let build = client.submit(&Submit::text(definition)).await?;
    fleet.client.finished(build.id(), DEADLINE).await
}

#[test]
fn what_is_untrusted_reads_what_is_trusted_and_puts_nothing_in_its_place() -> Result<()> {
    test(async |world| {
        let mut fleet = fleet_of_two(world).await?;
        let wild = JoinToken::pool("wild", &["default"]).with("trust", json!("untrusted"));
        let token = fleet.client.join_token(&wild).await?;
        let wild = agent(world, "wild", &fleet, &token)?;
        wild.in_state(&fleet.client, "online").await?;
        fleet.agents.push(wild);
        let good = "mkdir deps ~/.tool; echo good > deps/f";
        fleet.run_to("passed", pipeline([cached("good", "1", good)])).await?;
        let evil = "[ \"$(cat deps/f)\" = good ]; echo evil > deps/f; printf 'caches: [{name: a, cache_key: [k], target_paths: [deps]}]' \
                    > c.yml; buildkite-agent cache save --cache-config-file c.yml; echo 2 > lock";
        let build = untrusted(&fleet, pipeline([cached("evil", "1", evil)])).await?;
        ensure!(build.state() == "passed" && build.0["namespace"] != json!("trusted"), "{}", build.brief());
        let log = fleet.log_of(&build, "evil").await?;
        has(&log, "Saved cache \"a\" under \"k\"")?;
        has(&log, "is there already")?;
        // A key that nobody trusted has: it is its own.
        let build = untrusted(&fleet, pipeline([cached("evil", "3", "echo evil > deps/f")])).await?;
        has(&fleet.log_of(&build, "evil").await?, "Saved cache")?;
        let look = "[ \"$(cat deps/f)\" = good ]; printf 'caches: [{name: a, cache_key: [k], target_paths: [deps]}]' > c.yml; \
                    mv deps kept; buildkite-agent cache restore --cache-config-file c.yml; [ ! -e deps ]; mv kept deps";
        for lock in ["1", "3"] {
            let build = fleet.run(pipeline([on(cached("look", lock, look), "two")])).await?;
            ensure!(build.state() == "passed", "{}", fleet.log_of(&build, "look").await?);
        }
        Ok(())
    })
}

#[test]
fn an_agent_that_dies_while_it_restores_leaves_the_job_what_it_had() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let file = "printf 'caches: [{name: a, cache_key: [k], target_paths: [out]}]' > c.yml; ";
        let save = "mkdir out; for i in $(seq 1500); do echo $i > out/$i; done; \
                    buildkite-agent cache save --cache-config-file c.yml";
        fleet.run_to("passed", pipeline([step("save", &format!("{file}{save}"))])).await?;
        let signals = world.path("signals");
        fs::create_dir(&signals)?;
        // The job's user writes there.
        fs::set_permissions(&signals, fs::Permissions::from_mode(0o777))?;
        let (begun, told) = (signals.join("begun"), signals.join("told"));
        let restore = format!(
            "mkdir out; echo mine > out/mine; buildkite-agent cache restore --cache-config-file c.yml & restore=$!; \
             for i in $(seq 5000); do [ \"$(ls -d .windlass-*/1 out/1 2>/dev/null)\" ] && break; sleep 0.01; done; \
             : > {}; {}; \
             wait $restore || echo \"ended $?\"; [ -e out/mine ] || [ \"$(ls out | wc -l)\" = 1500 ]; ls -a; \
             [ -z \"$(ls -d .windlass-* 2>/dev/null)\" ]",
            begun.display(),
            until_exists(&told)
        );
        let build =
            fleet.client.submit(&Submit::text(pipeline([step("restore", &format!("{file}{restore}"))]))).await?;
        until("the restore has begun", DEADLINE, async || Ok(begun.exists().then_some(()))).await?;
        let agent = fleet.agents.first_mut().ok_or_else(|| anyhow::anyhow!("an agent"))?;
        agent.kill9().await?;
        agent.restart().await?;
        fs::write(&told, "")?;
        let build = fleet.client.finished(build.id(), Duration::from_secs(90)).await?;
        let log = fleet.log_of(&build, "restore").await?;
        ensure!(build.state() == "passed", "{}: {log}", build.brief());
        Ok(())
    })
}
