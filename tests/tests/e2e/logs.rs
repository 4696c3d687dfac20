//! Logs: byte for byte, masked, in ranges, live and resumed.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_protocol::Digest;
use windlass_tests::kit::chaos::Dice;
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::sse::Event;
use windlass_tests::kit::{DEADLINE, Fleet, Submit, test};

#[test]
fn a_log_is_the_bytes_that_the_job_wrote_and_any_range_of_them() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let bytes = Dice::new(5).bytes(5 << 20);
        let (dir, client) = (world.shared_dir("files")?, &fleet.client);
        fs::write(dir.join("random"), &bytes)?;
        let script = format!("cat {}", dir.join("random").display());
        let build = fleet.run_to("passed", pipeline([step("cat", &script)])).await?;
        let attempt = build.attempt("cat")?;
        ensure!(attempt.0["log_bytes"] == json!(bytes.len()), "{}", attempt.0);
        ensure!(attempt.0["log_digest"] == json!(Digest::of(&bytes).to_string()), "{}", attempt.0);
        ensure!(client.log(attempt.id()).await? == bytes, "the log is another");
        let path = format!("/attempts/{}/log", attempt.id());
        for (range, from, to) in [
            ("bytes=0-0", 0, 1),
            ("bytes=1234567-1299999", 1_234_567, 1_300_000),
            ("bytes=5242000-", 5_242_000, bytes.len()),
            ("bytes=-100", bytes.len() - 100, bytes.len()),
            ("bytes=5242870-99999999", 5_242_870, bytes.len()),
        ] {
            let part = client.get_range(&path, range).await?.status(206)?;
            ensure!(part.body == bytes.get(from..to).context("a range")?, "{range} is another part");
            let said = part.headers.get("content-range").and_then(|value| value.to_str().ok()).unwrap_or_default();
            ensure!(said == format!("bytes {from}-{}/{}", to - 1, bytes.len()), "{range}: {said}");
        }
        client.get_range(&path, "bytes=5242880-").await?.status(416)?;
        Ok(())
    })
}

#[test]
fn a_secret_is_masked_even_where_it_comes_in_two_writes() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        // Written so that the value itself stands nowhere in the script.
        let script = "printf 'a:%s:\\n' \"$DEPLOY_TOKEN\"; head=${DEPLOY_TOKEN%-5678}; printf 'b:%s' \"$head\"; \
                      sleep 0.5; printf -- '-5678:\\n'; printf 'c:%s:\\n' \"$head\"";
        let secret = "correct-horse-5678";
        let submit = Submit::text(pipeline([step("tell", script)])).with("env", json!({ "DEPLOY_TOKEN": secret }));
        let build = fleet.client.submit(&submit).await?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let log = fleet.log_of(&build, "tell").await?;
        ensure!(log == "a:[REDACTED]:\nb:[REDACTED]:\nc:correct-horse:\n", "{log}");
        for entry in fs::read_dir(world.logs())? {
            let path = entry?.path();
            let said = fs::read(&path)?;
            ensure!(!String::from_utf8_lossy(&said).contains(secret), "{} has the secret", path.display());
        }
        Ok(())
    })
}

#[test]
fn a_step_with_a_terminal_has_one_and_its_bytes_are_exact() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let script = "test -t 1 && echo terminal || echo pipe";
        let steps = [with(step("with", script), "tty", json!(true)), step("without", script)];
        let build = fleet.run_to("passed", pipeline(steps)).await?;
        ensure!(fleet.log_of(&build, "with").await? == "terminal\n", "{:?}", fleet.log_of(&build, "with").await?);
        ensure!(fleet.log_of(&build, "without").await? == "pipe\n");
        Ok(())
    })
}

fn text_of(events: &[Event]) -> Result<String> {
    let mut text = String::new();
    for event in events.iter().filter(|event| event.name != "reset") {
        let json = event.json()?;
        if let Some(part) = json["text"].as_str() {
            ensure!(json["offset"] == json!(text.len()), "offset {} after {} bytes", json["offset"], text.len());
            text.push_str(part);
        }
    }
    Ok(text)
}

#[test]
fn a_watcher_that_comes_back_goes_on_with_the_next_byte() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let go = world.path("go");
        let script = format!(
            "for i in 1 2 3; do echo \"before $i\"; done; {}; for i in 1 2 3; do echo \"after $i\"; done",
            until_exists(&go)
        );
        let build = fleet.running(pipeline([step("tell", &script)]), "tell").await?;
        let attempt = build.attempt("tell")?;
        let path = format!("/attempts/{}/log/stream?offset=0", attempt.id());
        let mut first = fleet.client.events(&path, None).await?;
        let seen = first.up_to(DEADLINE, |event| event.data.contains("before 3")).await?;
        let id = seen.last().and_then(|event| event.id.clone()).context("an event id")?;
        drop(first);
        fs::write(&go, "")?;
        let mut second = fleet.client.events(&path, Some(&id)).await?;
        let rest = second.up_to(DEADLINE, |event| event.data.contains("after 3")).await?;
        let all: Vec<_> = seen.into_iter().chain(rest).collect();
        ensure!(text_of(&all)? == "before 1\nbefore 2\nbefore 3\nafter 1\nafter 2\nafter 3\n", "{all:?}");
        Ok(())
    })
}

#[test]
fn a_builds_events_go_on_after_the_last_one_that_was_seen() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let go = world.path("go");
        let steps = [step("wait", &until_exists(&go)), with(step("then", "true"), "depends_on", json!("wait"))];
        let build = fleet.running(pipeline(steps), "wait").await?;
        let path = format!("/builds/{}/events?until=finished", build.id());
        // One watcher sees everything; another goes away after the first durable event and comes back later.
        let mut whole = fleet.client.events(&path, None).await?;
        let mut brief = fleet.client.events(&path, None).await?;
        whole.next(DEADLINE).await?.context("a snapshot")?;
        brief.next(DEADLINE).await?.context("a snapshot")?;
        fs::write(&go, "")?;
        let seen = brief.up_to(DEADLINE, |event| event.id.is_some()).await?;
        let id = seen.last().and_then(|event| event.id.clone()).context("a durable event")?;
        drop(brief);
        fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let end = |event: &Event| event.name == "end";
        let rest = fleet.client.events(&path, Some(&id)).await?.up_to(DEADLINE, end).await?;
        let durable = |events: &[Event]| events.iter().filter_map(|event| event.id.clone()).collect::<Vec<_>>();
        ensure!(!durable(&rest).contains(&id), "event {id} came again: {rest:?}");
        let all = durable(&whole.up_to(DEADLINE, end).await?);
        let joined: Vec<_> = durable(&seen).into_iter().chain(durable(&rest)).collect();
        ensure!(all == joined && all.len() >= 3, "{all:?} and {joined:?}");
        Ok(())
    })
}
