//! What is said of a pipeline before anything of it runs, with a server and without.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::world::Ran;
use windlass_tests::kit::{Coordinator, CoordinatorOptions, DEADLINE, Fleet, JoinToken, test};

/// One step for each thing that is found.
const FOUND: &str = "steps:\n  - command: a\n    agents: {queue: bgi}\n  - command: b\n    cache: vendor\n";

/// What a check found: severity, code and line of each, and its hint.
fn found(ran: &Ran) -> Result<Vec<(String, String, u64, String)>> {
    let shown: Value = serde_json::from_str(&ran.stdout)?;
    let all = shown["files"][0]["diagnostics"].as_array().context("diagnostics")?;
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let each = |one: &Value| {
        (text(one, "severity"), text(one, "code"), one["line"].as_u64().unwrap_or_default(), text(one, "hint"))
    };
    Ok(all.iter().map(each).collect())
}

#[test]
fn a_check_tells_what_is_not_served_and_with_a_server_which_queues_no_pool_serves() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::of(world, &JoinToken::pool("local", &["default", "big"]), 0).await?;
        fs::write(world.path("p.yml"), FOUND)?;
        let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token").display().to_string());
        let alone = ["pipeline", "check", "--json", "p.yml"];
        let asking = [&alone[..], &["--server", &url, "--token-file", &token]].concat();
        let hint = "it is a volume of Buildkite's hosted agents; with a `key` it is kept for every agent".to_owned();
        let unserved = ("warning".to_owned(), "not-served".to_owned(), 5, hint);
        let ran = world.run(alone, DEADLINE).await?.code(0)?;
        ensure!(found(&ran)? == [unserved.clone()], "{}", ran.stdout);
        let ran = world.run(asking.clone(), DEADLINE).await?.code(1)?;
        let queue = ("error".to_owned(), "no-such-queue".to_owned(), 3, "did you mean `big`?".to_owned());
        ensure!(found(&ran)? == [queue, unserved.clone()], "{}", ran.stdout);
        let ran = world.run([&["pipeline", "check", "p.yml"], &asking[4..]].concat(), DEADLINE).await?.code(1)?;
        for words in ["p.yml:3:", "p.yml:5:", "agents: {queue: bgi}", "cache: vendor", "1 error, 1 warning"] {
            ensure!(ran.stderr.contains(words), "no `{words}` in\n{}", ran.stderr);
        }
        // A pool is enough; its agents may come later.
        fleet.client.join_token(&JoinToken::pool("other", &["bgi"])).await?;
        let ran = world.run(asking, DEADLINE).await?.code(0)?;
        ensure!(found(&ran)? == [unserved], "{}", ran.stdout);
        Ok(())
    })
}

#[test]
fn a_run_is_checked_with_what_its_pipeline_s_registration_adds() -> Result<()> {
    test(async |world| {
        let dir = world.path("shop");
        fs::create_dir_all(dir.join(".windlass"))?;
        let text = "steps:\n  - command: echo to ${TARGET?} of ${BUILDKITE_PIPELINE_DEFAULT_BRANCH?} no ${BUILDKITE_BUILD_NUMBER?}\n    \
                    if: pipeline.default_branch == \"trunk\"\n";
        fs::write(dir.join(".windlass/pipeline.yml"), text)?;
        // Where a run brings its own server along, it finds the data of this one.
        let data = Some(world.path("home/.local/share/windlass/up"));
        let options = CoordinatorOptions { data, ..CoordinatorOptions::default() };
        let coordinator = Coordinator::start_with(world, options).await?;
        let pool = JoinToken::pool("fleet", &["default"]);
        let mut fleet = Fleet::around(world, coordinator, &pool, 1).await?;
        let run = async || world.run(["run".into(), dir.clone()], DEADLINE * 3).await;
        let refused = run().await?.code(2)?;
        ensure!(refused.stderr.contains("TARGET") && refused.stderr.contains("pipeline.yml:2:"), "{}", refused.stderr);
        let body = json!({ "name": "shop", "default_branch": "trunk", "env": { "TARGET": "prod" } });
        fleet.client.post("/pipelines", &body).await?.status(201)?;
        let taken = run().await?.code(0)?;
        ensure!(format!("{}{}", taken.stdout, taken.stderr).contains("to prod of trunk no 1"), "{taken:?}");
        // Of a server that does not run yet nobody knows what is registered with it: it decides.
        for agent in &mut fleet.agents {
            agent.kill9().await?;
        }
        fleet.coordinator.term().await?;
        let own = run().await?.code(0)?;
        ensure!(format!("{}{}", own.stdout, own.stderr).contains("to prod of trunk no 2"), "{own:?}");
        let other = world.path("other");
        fs::rename(&dir, &other)?;
        let refused = world.run(["run".into(), other], DEADLINE).await?.code(2)?;
        ensure!(refused.stderr.contains("TARGET"), "{}", refused.stderr);
        Ok(())
    })
}
