//! The coordinator's disk full for a while.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::skip::{is_root, skip};
use windlass_tests::kit::{Coordinator, CoordinatorOptions, DEADLINE, Fleet, JoinToken, Submit, test, until};

/// Room for the store's reserve and for some work beside it.
const DISK_MEBIBYTES: u32 = 256;

/// Writes until nothing more fits.
fn fill(path: &Path) -> Result<()> {
    let mut file = fs::File::create(path)?;
    for size in [1 << 20, 4 << 10, 1] {
        let piece = vec![b'x'; size];
        while file.write_all(&piece).is_ok() {}
    }
    Ok(())
}

#[test]
fn a_full_disk_refuses_new_builds_keeps_running_ones_and_heals_when_there_is_space() -> Result<()> {
    if !is_root() {
        return skip("full-disk", "only root can mount a small file system");
    }
    test(async |world| {
        let disk = world.small_disk("disk", DISK_MEBIBYTES).await?;
        let options = CoordinatorOptions { data: Some(disk.join("data")), ..CoordinatorOptions::default() };
        let coordinator = Coordinator::start_with(world, options).await?;
        let mut fleet = Fleet::around(world, coordinator, &JoinToken::pool("local", &["default"]), 1).await?;
        let go = world.path("go");
        let script = format!("echo begins; {}; echo ends", until_exists(&go));
        let steps = [step("one", &script), with(step("two", "echo two"), "depends_on", serde_json::json!("one"))];
        let build = fleet.running(pipeline(steps), "one").await?;
        let filler = disk.join("filler");
        fill(&filler)?;
        let small = Submit::text(pipeline([step("small", "true")]));
        let refused = until("a refused submit", DEADLINE, async || {
            let answer = fleet.client.try_submit(&small).await?;
            Ok((answer.status != 201).then_some(answer))
        })
        .await?;
        ensure!(refused.status == 507 || refused.status == 503, "status {}", refused.status);
        let problem = refused.problem()?;
        ensure!(problem.contains("storage") || problem.contains("disk"), "{problem}: {:?}", refused.json());
        // What runs may end, out of reserved space, or wait; it must not fail.
        fs::write(&go, "")?;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let during = fleet.client.build(build.id()).await?;
        ensure!(during.state() != "failed", "{}", during.brief());
        ensure!(fleet.coordinator.process().runs()?, "the coordinator ended");
        fs::remove_file(&filler).context("the filler")?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        ensure!(fleet.log_of(&build, "one").await? == "begins\nends\n", "the log has a hole");
        ensure!(fleet.log_of(&build, "two").await? == "two\n", "the log has a hole");
        until("submits again", DEADLINE, async || {
            Ok((fleet.client.try_submit(&small).await?.status == 201).then_some(()))
        })
        .await?;
        fleet.coordinator.restart().await?;
        let again = fleet.client.build(build.id()).await?;
        ensure!(again.state() == "passed", "{}", again.brief());
        Ok(())
    })
}
