//! Uploads send the change: artifacts and caches of jobs of which an earlier version is there.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::chaos::Dice;
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::{DEADLINE, Fleet, World, test, until};

const MIB: f64 = 1_048_576.0;

/// Two of the longest chunks, 512 KiB each, and what is said beside: manifests, logs, beats, headers of packets.
const CHANGE: f64 = MIB + 0.5 * MIB;

/// Bytes that the zone's agents sent while a build ran.
async fn sent(fleet: &Fleet<'_>, steps: Value) -> Result<f64> {
    let before = out_of(fleet).await?;
    fleet.run_to("passed", pipeline([steps])).await?;
    Ok(out_of(fleet).await? - before)
}

/// Bytes that all zones have sent; labels come in any order.
async fn out_of(fleet: &Fleet<'_>) -> Result<f64> {
    let text = fleet.client.get("/metrics").await?.status(200)?.body;
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines().filter(|line| line.starts_with("windlass_zone_bytes_total") && line.contains("\"out\""));
    Ok(lines.filter_map(|line| line.rsplit_once("} ")?.1.split_whitespace().next()?.parse::<f64>().ok()).sum())
}

/// A file of so many bytes that do not shrink, from `world`'s own directory.
fn noise(world: &World, name: &str, bytes: usize) -> Result<std::path::PathBuf> {
    let path = world.path(name);
    fs::write(&path, Dice::new(name.len() as u64).bytes(bytes))?;
    Ok(path)
}

fn change(path: &Path, at: u64) -> Result<()> {
    Ok(fs::OpenOptions::new().write(true).open(path)?.write_all_at(b"changed", at)?)
}

#[test]
fn of_an_artifact_and_of_a_cache_that_were_there_before_a_change_alone_is_sent_after_a_restart_too() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let file = noise(world, "large", 64 << 20)?;
        let artifact =
            || with(step("make", &format!("cp {} out.bin", file.display())), "artifact_paths", json!("out.bin"));
        let first = sent(&fleet, artifact()).await?;
        ensure!(first > 64.0 * MIB, "the first version is sent whole: {first}");
        change(&file, 20 << 20)?;
        let second = sent(&fleet, artifact()).await?;
        ensure!(second < CHANGE, "a change cost {second}");
        let before = fleet.coordinator.told("alike_blobs_learnt")?;
        fleet.coordinator.kill9().await?;
        fleet.coordinator.restart().await?;
        // Until it has read what is there, uploads are whole.
        until("what blobs are alike", DEADLINE, async || {
            Ok((fleet.coordinator.told("alike_blobs_learnt")? > before).then_some(()))
        })
        .await?;
        for agent in &fleet.agents {
            agent.in_state(&fleet.client, "online").await?;
        }
        change(&file, 40 << 20)?;
        let third = sent(&fleet, artifact()).await?;
        ensure!(third < CHANGE, "a change after a restart cost {third}");
        // A cache of the same project: its shelf is another one, and the job may read both.
        let save = |key: &str| {
            let cache = json!({ "paths": ["deps"], "key": format!("deps-{key}") });
            let script = format!("rm -rf deps; mkdir deps; cp {} deps/large; seq 1 1000 > deps/small", file.display());
            with(step("save", &script), "cache", cache)
        };
        let saved = sent(&fleet, save("1")).await?;
        ensure!(saved < CHANGE, "what is an artifact already cost {saved}");
        change(&file, 60 << 20)?;
        let again = sent(&fleet, save("2")).await?;
        ensure!(again < CHANGE, "a change of a cache cost {again}");
        // What came so is whole.
        let check = format!("cmp deps/large {}; [ \"$(tail -n 1 deps/small)\" = 1000 ]", file.display());
        let cache = json!({ "paths": ["deps"], "key": "deps-2" });
        fleet.run_to("passed", pipeline([with(step("check", &check), "cache", cache)])).await?;
        Ok(())
    })
}
