//! Artifacts with real processes: uploaded by one step, downloaded by the next on another agent, and by people.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::{Agent, AgentOptions, DEADLINE, Fleet, JoinToken, test};

#[test]
fn what_one_step_uploads_the_next_one_downloads_on_another_agent() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let token = fleet.client.join_token(&JoinToken::pool("other", &["two"])).await?;
        let other = Agent::start(world, AgentOptions::new("agent-two", fleet.coordinator.address(), &token))?;
        other.in_state(&fleet.client, "online").await?;
        let make = "set -e; mkdir -p log/deep out; echo hello > log/a.txt; seq 100000 > log/deep/numbers.txt; : > log/none; \
                    echo first > out/same; buildkite-agent artifact upload 'log/**/*;out/*'; echo second > out/same; \
                    windlass artifact upload out/same; windlass artifact upload 'log/*.nothing'; \
                    ! windlass artifact upload 'log/[a'; ! windlass artifact upload out/same s3://bucket";
        let take = "set -e; mkdir got got/log; buildkite-agent artifact download 'log/*' got; \
                    windlass artifact download 'out/same' got --step make; windlass artifact download log/a.txt got/log; \
                    [ \"$(cat got/log/a.txt)\" = hello ]; seq 100000 | cmp - got/log/deep/numbers.txt; [ -f got/log/none ]; \
                    [ ! -s got/log/none ]; [ \"$(cat got/out/same)\" = second ]; \
                    [ \"$(buildkite-agent artifact shasum log/a.txt)\" = f572d396fae9206628714fb2ce00f72e94f2258f ]; \
                    [ \"$(buildkite-agent artifact search 'out/*' --format '%p %s\\n')\" = \"$(printf 'out/same 6\\nout/same 7')\" ]; \
                    ! windlass artifact download nothing got; ! windlass artifact download 'log/*' nowhere; \
                    ! windlass artifact search nothing; windlass artifact search nothing --allow-empty-results; \
                    ! windlass artifact shasum 'log/*'; \
                    ! windlass artifact download 'log/*' got --build 0190c1f0-7a3b-7c1d-8e2f-0123456789ab";
        let steps = [step("make", make), json!("wait"), with(step("take", take), "agents", json!({ "queue": "two" }))];
        let build = fleet.run_to("passed", pipeline(steps)).await?;
        ensure!(build.job("make")?.0["artifacts_count"] == json!(5), "{}", build.0);
        let list =
            fleet.client.get(&format!("/builds/{}/artifacts?path=log/*", build.id())).await?.status(200)?.json()?;
        let paths: Vec<_> = list["items"].as_array().into_iter().flatten().map(|item| item["path"].clone()).collect();
        ensure!(paths.len() == 3 && paths.contains(&json!("log/deep/numbers.txt")), "{list}");
        let got = world.path("got");
        fs::create_dir(&got)?;
        let (url, token_file) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
        let token_file = token_file.to_string_lossy().into_owned();
        let run = async |line: &[&str]| {
            let line = [line, &["--server", &url, "--token-file", &token_file]].concat();
            world.run(line, DEADLINE).await
        };
        let there = got.to_string_lossy().into_owned();
        run(&["artifact", "download", "log/*", &there, "--build", build.id()]).await?.code(0)?;
        ensure!(fs::read_to_string(got.join("log/a.txt"))? == "hello\n", "it is there");
        let shasum = run(&["artifact", "shasum", "log/a.txt"]).await?.code(0)?;
        ensure!(shasum.stdout == "f572d396fae9206628714fb2ce00f72e94f2258f\n", "{}", shasum.stdout);
        let listed = run(&["artifact", "ls", "out/*"]).await?.code(0)?;
        ensure!(listed.stdout.lines().count() == 3, "{}", listed.stdout);
        run(&["artifact", "download", "nothing", &there]).await?.code(1)?;
        // The build is over; people still add to it.
        let file = got.join("by-hand.txt");
        fs::write(&file, "by hand\n")?;
        let (file, job) = (file.to_string_lossy().into_owned(), build.job("make")?.0["id"].clone());
        let job = job.as_str().unwrap_or_default();
        run(&["artifact", "upload", &file, "--build", build.id(), "--job", job]).await?.code(0)?;
        run(&["artifact", "upload", &file, "--build", build.id(), "--job", job]).await?.code(0)?;
        let shasum = run(&["artifact", "shasum", "*by-hand.txt", "--sha256", "--build", build.id()]).await?.code(0)?;
        ensure!(shasum.stdout.len() == 65, "{}", shasum.stdout);
        run(&["artifact", "upload", "no-such-file/*", "--build", build.id()]).await?.code(1)?;
        run(&["artifact", "upload", &file]).await?.code(2)?;
        Ok(())
    })
}

#[test]
fn the_paths_of_a_step_are_uploaded_whatever_came_of_it_and_the_next_step_has_them_on_another_agent() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let token = fleet.client.join_token(&JoinToken::pool("other", &["two"])).await?;
        let other = Agent::start(world, AgentOptions::new("agent-two", fleet.coordinator.address(), &token))?;
        other.in_state(&fleet.client, "online").await?;
        let make = "mkdir -p out/deep log plain; echo a > out/a.txt; echo b > out/deep/b.txt; echo c > out/c.bin; \
                    ln -s ../log out/link; echo l > log/l.txt; echo p > plain/p; exit 3";
        let paths = json!(["out/**/*.txt", "plain;log/*;nothing/**"]);
        let make = with(with(step("make", make), "artifact_paths", paths), "soft_fail", json!(true));
        // What is changed after the command is what is uploaded; a step that passes keeps its status.
        let lost = with(step("lost", "echo x > x"), "artifact_paths", json!("x;[bad"));
        let take = "set -e; buildkite-agent artifact download '*' .; [ \"$(cat out/deep/b.txt)\" = b ]; [ ! -e out/c.bin ]; \
                    [ \"$(cat log/l.txt)\" = l ]; [ ! -e plain ]; [ ! -e out/link ]";
        let take = with(step("take", take), "agents", json!({ "queue": "two" }));
        let take = with(with(take, "depends_on", json!(["make", "lost"])), "allow_dependency_failure", json!(true));
        let build = fleet.run(pipeline([make, lost, take])).await?;
        let make = build.job("make")?;
        ensure!(make.exit_status() == Some(3) && make.0["artifacts_count"] == json!(3), "{}", make.0);
        let log = fleet.log_of(&build, "make").await?;
        ensure!(log.contains("Uploading artifacts") && log.contains("\"plain\" is a directory"), "{log}");
        ensure!(build.job("lost")?.exit_status() == Some(1), "an upload that fails fails its step: {}", build.brief());
        ensure!(build.job("take")?.exit_status() == Some(0), "{}", fleet.log_of(&build, "take").await?);
        let list = fleet.client.get(&format!("/builds/{}/artifacts", build.id())).await?.status(200)?.json()?;
        let paths: Vec<_> = list["items"].as_array().into_iter().flatten().map(|item| item["path"].clone()).collect();
        ensure!(paths.len() == 3, "{list}");
        Ok(())
    })
}
