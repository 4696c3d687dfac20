//! Disks that are full for a while: the coordinator's and an agent's, each a real ext4 of its own.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use windlass_tests::kit::chaos::Dice;
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::skip::{is_root, skip};
use windlass_tests::kit::{
    Agent, AgentOptions, Coordinator, CoordinatorOptions, DEADLINE, Fleet, JoinToken, Submit, test, until,
};

/// Room for the store's reserve and for some work beside it.
const DISK_MEBIBYTES: u64 = 256;

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
        let Some(disk) = world.ext4_disk("disk", DISK_MEBIBYTES).await? else {
            return skip("full-disk", "there are no loop devices for a file system of our own");
        };
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

/// An agent's disk: small, so that it is filled in a moment.
const AGENT_DISK_MEBIBYTES: u64 = 64;

/// What the job writes while the disk is full: more than its pipe holds, so that its writes must wait.
const WRITTEN_BYTES: usize = 6 << 20;

/// The agent as the API shows it.
async fn agent(fleet: &Fleet<'_>) -> Result<serde_json::Value> {
    let agents = fleet.client.agents().await?;
    agents.into_iter().find(|agent| agent["name"] == "small").context("the agent")
}

#[test]
fn an_agent_with_a_full_disk_makes_its_job_wait_loses_no_byte_and_takes_nothing_until_there_is_space() -> Result<()> {
    if !is_root() {
        return skip("full-disk", "only root can mount a small file system");
    }
    test(async |world| {
        let Some(disk) = world.ext4_disk("disk", AGENT_DISK_MEBIBYTES).await? else {
            return skip("full-disk", "there are no loop devices for a file system of our own");
        };
        let coordinator = Coordinator::start(world).await?;
        let pool = JoinToken::pool("local", &["default"]).lease_ms(4_000);
        let mut fleet = Fleet::around(world, coordinator, &pool, 0).await?;
        let mut options = AgentOptions::new("small", fleet.coordinator.address(), &fleet.join_token);
        options.data = Some(disk.join("agent"));
        fleet.agents.push(Agent::start(world, options)?);
        fleet.agents[0].in_state(&fleet.client, "online").await?;
        let (go, told) = (world.path("go"), world.shared_dir("told")?);
        let output = world.path("output");
        let bytes = Dice::new(7).bytes(WRITTEN_BYTES / 2).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        fs::write(&output, &bytes)?;
        let script = format!(
            "echo begins; {}; cat {}; touch {}/written; echo ends",
            until_exists(&go),
            output.display(),
            told.display()
        );
        let build = fleet.running(pipeline([step("one", &script)]), "one").await?;
        fleet.client.log_holds(build.attempt("one")?.id(), "begins", DEADLINE).await?;
        let filler = disk.join("filler");
        fill(&filler)?;
        fs::write(&go, "")?;
        fleet.agents[0].in_state(&fleet.client, "quarantined").await?;
        let shown = agent(&fleet).await?;
        ensure!(shown["disk_full"] == true && shown["disk_free_bytes"].as_u64() < Some(1 << 20), "{shown}");
        let other = fleet.client.submit(&Submit::text(pipeline([step("other", "true")]))).await?;
        let job = fleet.client.build(other.id()).await?.job("other")?.id().to_owned();
        let why = fleet.client.get(&format!("/jobs/{job}/why")).await?.status(200)?.json()?;
        ensure!(why["obstacles"][0]["reason"] == "out of disk space", "{why}");
        // An agent that comes back to a full disk still has its job.
        fleet.agents[0].restart().await?;
        fleet.agents[0].in_state(&fleet.client, "quarantined").await?;
        let during = fleet.client.build(build.id()).await?;
        ensure!(!told.join("written").exists() && during.job_is("one", "running"), "{}", during.brief());
        ensure!(fleet.client.build(other.id()).await?.job("other")?.attempts().is_empty(), "it took a job");
        fs::remove_file(&filler).context("the filler")?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        ensure!(told.join("written").exists());
        let log = fleet.log_of(&build, "one").await?;
        ensure!(log == format!("begins\n{bytes}ends\n"), "{} bytes, not {}", log.len(), bytes.len() + 12);
        fleet.client.ends(other.id(), "passed", DEADLINE).await?;
        fleet.agents[0].in_state(&fleet.client, "online").await?;
        Ok(())
    })
}
