//! What a job must not reach: tried by a job that tries.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists};
use windlass_tests::kit::skip::{is_root, skip};
use windlass_tests::kit::{Fleet, test};

/// Each line is tried; what succeeds says so.
fn attempts(agent: &str, coordinator: &str, victim: &str, pid: &str) -> String {
    let tries = [
        ("the other's file", format!("cat {victim}/private")),
        ("the other's directory", format!("ls {victim}")),
        ("the other's home", format!("ls {victim}/../home")),
        ("writing there", format!("touch {victim}/mine")),
        ("moving it away", format!("mv {victim} {victim}.gone")),
        ("workspaces' list", format!("ls {agent}/work")),
        ("the agent's key", format!("cat {agent}/identity/key.pem")),
        ("the agent's certificate", format!("cat {agent}/identity/chain.der")),
        ("the agent's data", format!("ls {agent}/jobs")),
        ("the agent's cache", format!("ls {agent}/cache")),
        ("making the agent's data", format!("touch {agent}/mine")),
        ("the join token", format!("cat {agent}.token")),
        ("the admin token", format!("cat {coordinator}/api-token")),
        ("the coordinator's data", format!("ls {coordinator}")),
        ("the store", format!("cat {coordinator}/store.sqlite")),
        ("the store's log", format!("cat {coordinator}/store.sqlite-wal")),
        ("the store's index", format!("cat {coordinator}/store.sqlite-shm")),
        ("the logs", format!("ls {coordinator}/logs")),
        ("the blobs", format!("ls {coordinator}/cache")),
        ("the CA's key", format!("cat {coordinator}/identity/ca-key.pem")),
        ("the other's memory", format!("cat /proc/{pid}/mem")),
        ("the other's environment", format!("cat /proc/{pid}/environ")),
        ("the other's open files", format!("ls /proc/{pid}/fd/")),
        ("the other's end", format!("kill -9 {pid}")),
        ("its supervisor's end", "kill -9 $PPID".to_owned()),
        ("its supervisor's environment", "cat /proc/$PPID/environ".to_owned()),
        ("becoming root", "setpriv --reuid=0 id -u".to_owned()),
        ("leaving its control group", "sh -c 'echo $$ > /sys/fs/cgroup/cgroup.procs'".to_owned()),
    ];
    let mut script = String::from("set +e\n");
    for (what, command) in tries {
        script.push_str(&format!("if ( {command} ) >/dev/null 2>&1; then echo \"reached: {what}\"; fi\n"));
    }
    script.push_str("sh -c 'ls -l /proc/self/fd'; echo \"user $(id -u)\"; echo tried all\n");
    script
}

#[test]
fn a_job_reaches_neither_another_job_nor_its_agent_nor_the_coordinator() -> Result<()> {
    if !is_root() {
        return skip("isolation", "only root can give each slot a user of its own");
    }
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let agent = fleet.agents.first().context("an agent")?;
        let (told, go) = (world.shared_dir("told")?, world.path("go"));
        // The token lay beside the agent's data with the mode that the kit's umask gave it.
        fs::set_permissions(agent.data().with_extension("token"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let victim = format!(
            "echo private > private; chmod 644 private; sh -c 'echo private | tail -f /dev/null' & echo $! > {0}/pid; pwd > {0}/dir; {1}; \
             kill %1; cat private; ls",
            told.display(),
            until_exists(&go)
        );
        let build = fleet.running(pipeline([step("victim", &victim)]), "victim").await?;
        let read = |name: &str| fs::read_to_string(told.join(name)).map(|text| text.trim().to_owned());
        windlass_tests::kit::until("the victim's place", windlass_tests::kit::DEADLINE, async || {
            Ok(read("dir").is_ok_and(|dir| !dir.is_empty()).then_some(()))
        })
        .await?;
        let script = attempts(
            &agent.data().display().to_string(),
            &fleet.coordinator.data().display().to_string(),
            &read("dir")?,
            &read("pid")?,
        );
        let attack = fleet.run_to("passed", pipeline([step("attack", &script)])).await?;
        let log = fleet.log_of(&attack, "attack").await?;
        ensure!(log.contains("tried all"), "{log}");
        ensure!(!log.contains("reached:"), "{log}");
        ensure!(!log.contains("user 0"), "jobs run as root: {log}");
        fs::write(&go, "")?;
        let build = fleet.client.ends(build.id(), "passed", windlass_tests::kit::DEADLINE).await?;
        ensure!(fleet.log_of(&build, "victim").await?.contains("private\nprivate\n"), "the victim was disturbed");
        Ok(())
    })
}

#[test]
fn nothing_of_a_job_is_left_for_the_next_one() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let leave = "echo mine > left; mkdir -p deep/er; chmod 000 deep; echo x > $HOME/left; pwd";
        let first = fleet.run_to("passed", pipeline([step("first", leave)])).await?;
        let dir = fleet.log_of(&first, "first").await?.trim().to_owned();
        let second = fleet.run_to("passed", pipeline([step("second", "ls -A . $HOME; echo end")])).await?;
        ensure!(!fleet.log_of(&second, "second").await?.contains("left"), "something is left");
        windlass_tests::kit::until("the workspace's end", windlass_tests::kit::DEADLINE, async || {
            Ok((!std::path::Path::new(&dir).exists()).then_some(()))
        })
        .await?;
        Ok(())
    })
}
