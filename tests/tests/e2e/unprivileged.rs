//! Agents that are not root: no users for slots, no control groups; the rest holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::skip::{is_root, skip};
use windlass_tests::kit::{Agent, AgentOptions, Coordinator, DEADLINE, Fleet, JoinToken, World, test, until};

/// Nobody's; no system and no other test has it.
const USER: u32 = 190_001;

/// A fleet whose one agent has no rights beyond its user's.
async fn fleet(world: &World) -> Result<Fleet<'_>> {
    let coordinator = Coordinator::start(world).await?;
    let mut fleet = Fleet::around(world, coordinator, &JoinToken::pool("local", &["default"]), 0).await?;
    let mut options = AgentOptions::new("plain", fleet.coordinator.address(), &fleet.join_token);
    options.user = Some(USER);
    let agent = Agent::start(world, options)?;
    agent.in_state(&fleet.client, "online").await?;
    fleet.agents.push(agent);
    Ok(fleet)
}

/// Runs as root, for whom alone the kit can start somebody else.
fn as_somebody(body: impl AsyncFnOnce(&World, Fleet<'_>) -> Result<()>) -> Result<()> {
    if !is_root() {
        return skip("unprivileged", "only root can start an agent as another user");
    }
    test(async |world| body(world, fleet(world).await?).await)
}

/// Whether a process is there and has not ended.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The process ids that a job wrote into files of this directory, once all are there.
async fn pids(dir: &Path, count: usize) -> Result<Vec<Pid>> {
    until("the job's process ids", DEADLINE, async || {
        let files = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
        let read = |path: &PathBuf| Pid::from_raw(fs::read_to_string(path).ok()?.trim().parse().ok()?);
        let found: Vec<_> = files.iter().filter_map(read).collect();
        Ok((found.len() == count).then_some(found))
    })
    .await
}

async fn gone(pids: &[Pid]) -> Result<()> {
    until("the end of every process", DEADLINE, async || Ok(pids.iter().all(|pid| !lives(*pid)).then_some(()))).await
}

/// A job that starts what gets away from a process group: in a session of its own, and orphaned by its parent.
fn runaway(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "setsid sh -c 'echo $$ > {dir}/session; exec sleep 600' & \
         (setsid sh -c 'echo $$ > {dir}/orphan; trap \"\" TERM; while :; do sleep 1; done' &) ; \
         echo $$ > {dir}/main; echo $PPID > {dir}/supervisor; sleep 600"
    )
}

#[test]
fn an_agent_without_rights_runs_jobs_as_itself_and_wipes_what_they_leave() -> Result<()> {
    as_somebody(async |_, fleet| {
        let script = "id -u; cat /proc/self/status | grep CapEff; mkdir -p a/b; echo x > a/b/c; chmod 000 a; pwd";
        let steps = [step("ok", script), step("bad", "echo no; exit 7")];
        let build = fleet.run_to("failed", pipeline(steps)).await?;
        ensure!(build.job("bad")?.exit_status() == Some(7), "{}", build.brief());
        ensure!(build.job("ok")?.exit_status() == Some(0), "{}", build.brief());
        let log = fleet.log_of(&build, "ok").await?;
        let lines: Vec<_> = log.lines().collect();
        let [user, rights, dir] = lines.as_slice() else { anyhow::bail!("{log}") };
        ensure!(*user == USER.to_string() && rights.ends_with("0000000000000000"), "{log}");
        until("the workspace's end", DEADLINE, async || Ok((!Path::new(dir).exists()).then_some(()))).await?;
        let work = fleet.agents.first().context("an agent")?.data().join("work");
        // The jobs' command and the places' doors stay beside the workspaces, under names of their own.
        until("an empty place of workspaces", DEADLINE, async || {
            let names: std::io::Result<Vec<_>> = fs::read_dir(&work)?.map(|entry| Ok(entry?.file_name())).collect();
            let left = names?.iter().any(|name| !name.to_string_lossy().starts_with('.'));
            Ok((!left).then_some(()))
        })
        .await
    })
}

#[test]
fn a_canceled_job_of_an_agent_without_control_groups_leaves_no_process() -> Result<()> {
    as_somebody(async |world, fleet| {
        let dir = world.shared_dir("pids")?;
        let build = fleet.running(pipeline([step("run", &runaway(&dir))]), "run").await?;
        let pids = pids(&dir, 4).await?;
        ensure!(pids.iter().all(|pid| lives(*pid)), "they run");
        fleet.client.post(&format!("/builds/{}/cancel", build.id()), &json!({})).await?.status(200)?;
        fleet.client.ends(build.id(), "canceled", Duration::from_secs(60)).await?;
        gone(&pids).await
    })
}

#[test]
fn what_outlives_its_supervisor_is_found_and_ended_by_the_agents_next_start() -> Result<()> {
    as_somebody(async |world, mut fleet| {
        let dir = world.shared_dir("pids")?;
        let build = fleet.running(pipeline([step("run", &runaway(&dir))]), "run").await?;
        let pids = pids(&dir, 4).await?;
        let supervisor = fs::read_to_string(dir.join("supervisor"))?.trim().parse().ok().and_then(Pid::from_raw);
        let supervisor = supervisor.context("the supervisor's process id")?;
        let agent = fleet.agents.first_mut().context("an agent")?;
        agent.kill9().await?;
        kill_process(supervisor, Signal::KILL)?;
        until("the supervisor's end", DEADLINE, async || Ok((!lives(supervisor)).then_some(()))).await?;
        ensure!(pids.iter().any(|pid| lives(*pid)), "something outlives it, or this shows nothing");
        agent.restart().await?;
        let build = fleet.client.ends(build.id(), "failed", DEADLINE).await?;
        ensure!(build.job("run")?.cause() == "internal", "{}", build.brief());
        gone(&pids).await?;
        fleet.run_to("passed", pipeline([step("next", "true")])).await?;
        Ok(())
    })
}
