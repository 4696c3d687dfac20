//! What a coordinator that ran a build tells a scraper.

use std::ffi::OsStr;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_tests::kit::exposition::Exposition;
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::{DEADLINE, Fleet, Submit, test, until};

/// What the interface promises, as OpenMetrics names families: type, then label names in order.
const PROMISED: [(&str, &str, &[&str]); 9] = [
    ("windlass_jobs", "gauge", &["pool", "state"]),
    ("windlass_queue_oldest_seconds", "gauge", &["queue"]),
    ("windlass_dispatch_seconds", "histogram", &[]),
    ("windlass_agents", "gauge", &["pool", "state"]),
    ("windlass_cache_bytes", "gauge", &["namespace_kind", "tier"]),
    ("windlass_cache_requests", "counter", &["result", "tier"]),
    ("windlass_zone_bytes", "counter", &["direction", "zone"]),
    ("windlass_log_bytes", "counter", &[]),
    ("windlass_store_commit_seconds", "histogram", &[]),
];

async fn scrape(fleet: &Fleet<'_>) -> Result<Exposition> {
    let answer = fleet.client.token(None).get("/metrics").await?.status(200)?;
    let kind = answer.headers.get("content-type").context("a content type")?.to_str()?;
    ensure!(kind == "application/openmetrics-text; version=1.0.0; charset=utf-8", "{kind}");
    Exposition::parse(std::str::from_utf8(&answer.body)?)
}

#[test]
fn every_promised_metric_is_served_with_its_type_labels_and_a_value_that_is_true() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let before = scrape(&fleet).await?;
        let tree = world.path("tree");
        fs::create_dir_all(tree.join(".windlass"))?;
        fs::write(tree.join("file"), "some content\n")?;
        fs::write(tree.join(".windlass/pipeline.yml"), pipeline([step("one", "cat file"), step("two", "echo two")]))?;
        let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
        let arguments: [&OsStr; 6] =
            ["run".as_ref(), tree.as_ref(), "--server".as_ref(), url.as_ref(), "--token-file".as_ref(), token.as_ref()];
        world.run(arguments, DEADLINE).await?.code(0)?;
        let nowhere = pipeline([json!({ "command": "true", "agents": { "queue": "nobody" } })]);
        fleet.client.submit(&Submit::text(nowhere)).await?;
        let page = scrape(&fleet).await?;
        for (name, kind, labels) in PROMISED {
            let family = page.families.get(name).with_context(|| format!("{name} is not served"))?;
            ensure!(family.kind == kind && !family.samples.is_empty(), "{name}: {family:?}");
            for sample in family.samples.iter().filter(|sample| sample.suffix != "_bucket") {
                ensure!(sample.labels.keys().eq(labels.iter()), "{name}: {sample:?}");
            }
        }
        let strangers: Vec<_> = page.families.keys().filter(|name| !name.starts_with("windlass_")).collect();
        ensure!(strangers.is_empty(), "{strangers:?}");
        let one = |family: &str, suffix: &str, labels: &[(&str, &str)]| -> Result<f64> {
            let values = page.values(family, suffix, labels);
            ensure!(values.len() == 1, "{family}{suffix} {labels:?}: {values:?}");
            Ok(values[0])
        };
        ensure!(one("windlass_dispatch_seconds", "_count", &[])? == 2.0, "an attempt each");
        ensure!(one("windlass_dispatch_seconds", "_sum", &[])? < 10.0, "an agent was idle all the time");
        ensure!(one("windlass_store_commit_seconds", "_count", &[])? >= 4.0);
        ensure!(one("windlass_log_bytes", "_total", &[])? == 17.0);
        ensure!(one("windlass_queue_oldest_seconds", "", &[("queue", "nobody")])? >= 0.0);
        ensure!(one("windlass_agents", "", &[("state", "online"), ("pool", "local")])? == 1.0);
        ensure!(one("windlass_cache_bytes", "", &[("namespace_kind", "trusted")])? > 13.0);
        ensure!(one("windlass_cache_bytes", "", &[("namespace_kind", "overlay")])? == 0.0);
        let asked = |result: &str| one("windlass_cache_requests", "_total", &[("result", result), ("tier", "origin")]);
        ensure!(asked("miss")? >= 1.0, "what was uploaded had been asked for");
        ensure!(asked("hit")? >= 2.0, "the agent fetched the tree and the file");
        let crossed = |page: &Exposition, direction: &str| {
            let labels = [("zone", "local"), ("direction", direction)];
            page.values("windlass_zone_bytes", "_total", &labels).first().copied().unwrap_or(0.0)
        };
        for direction in ["in", "out"] {
            ensure!(crossed(&page, direction) > crossed(&before, direction), "{direction}");
        }
        ensure!(crossed(&page, "out") > 17.0, "the logs came from there");
        Ok(())
    })
}

#[test]
fn counters_of_a_zone_never_fall_when_its_agents_leave() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        // Each direction by its name: the page gives the samples of a family in any order.
        let bytes = |page: &Exposition| -> Result<[f64; 2]> {
            let one = |direction| {
                let labels = [("zone", "local"), ("direction", direction)];
                page.values("windlass_zone_bytes", "_total", &labels).first().copied().context("no count")
            };
            Ok([one("in")?, one("out")?])
        };
        let before = bytes(&scrape(&fleet).await?)?;
        fleet.agents.first_mut().context("an agent")?.kill9().await?;
        fleet.agents.clear();
        until("the end of its connections", DEADLINE, async || {
            let page = scrape(&fleet).await?;
            Ok((page.values("windlass_agent_connections", "", &[]) == [0.0]).then_some(()))
        })
        .await?;
        let after = bytes(&scrape(&fleet).await?)?;
        ensure!(after.iter().zip(&before).all(|(after, before)| after >= before), "{before:?}, then {after:?}");
        Ok(())
    })
}
