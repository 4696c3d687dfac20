//! The units in `dist/systemd`: systemd takes them, and the program takes their command lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use windlass_tests::kit::world::{self, World, repository};

/// The unit's settings by name, the last of each.
fn settings(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.trim(), value.trim())).collect()
}

fn unit(name: &str) -> Result<String> {
    fs::read_to_string(repository().join("dist/systemd").join(name)).with_context(|| name.to_owned())
}

/// The unit with paths of this world in place of the system's.
fn placed(world: &World, text: &str, program: &Path) -> Result<String> {
    let etc = world.path("etc");
    fs::create_dir_all(&etc)?;
    fs::write(etc.join("agent.toml"), "server = [\"ci.example.org:7070\"]\n")?;
    fs::write(etc.join("coordinator.toml"), "listen = \"127.0.0.1:7070\"\nzone_hold_seconds = 60\n")?;
    let text = text.replace("/usr/bin/windlass", &program.display().to_string());
    let text = text.replace("/etc/windlass", &etc.display().to_string());
    Ok(text.replace("/var/lib/windlass", &world.path("state").display().to_string()))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() -> Result<()> {
    world::test(async |world| {
        let program = world.binary_for_all()?;
        for name in ["windlass-agent.service", "windlass-coordinator.service"] {
            let path = world.path(name);
            fs::write(&path, placed(world, &unit(name)?, &program)?)?;
            let mut verify = tokio::process::Command::new("systemd-analyze");
            let said = verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&path).output().await?;
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            ensure!(said.status.success() && text.trim().is_empty(), "{name}: {}\n{text}", said.status);
        }
        Ok(())
    })
}

#[test]
fn the_program_takes_the_command_lines_and_files_of_the_units() -> Result<()> {
    world::test(async |world| {
        let program = world.binary_for_all()?;
        for name in ["windlass-agent.service", "windlass-coordinator.service"] {
            let text = placed(world, &unit(name)?, &program)?;
            let line = *settings(&text).get("ExecStart").context("no ExecStart")?;
            let mut words = line.split(' ');
            let mut command = tokio::process::Command::new(words.next().context("a program")?);
            let checked = command.args(words).arg("--check-config").output().await?;
            ensure!(checked.status.success(), "{line}: {}", String::from_utf8_lossy(&checked.stderr));
        }
        Ok(())
    })
}

#[test]
fn the_agent_s_unit_lets_jobs_end_and_does_not_start_again_what_cannot_work() -> Result<()> {
    let text = unit("windlass-agent.service")?;
    let settings = settings(&text);
    for (name, value) in [
        ("KillMode", "process"),
        ("KillSignal", "SIGTERM"),
        ("TimeoutStopSec", "infinity"),
        ("Restart", "on-failure"),
        ("RestartPreventExitStatus", "2 4"),
        ("OOMPolicy", "continue"),
        ("Delegate", "yes"),
    ] {
        ensure!(settings.get(name) == Some(&value), "{name} is {:?}, not {value}", settings.get(name));
    }
    // What jobs inherit and builds need.
    for name in ["NoNewPrivileges", "ProtectSystem", "PrivateTmp", "PrivateDevices", "RestrictNamespaces", "UMask"] {
        ensure!(!settings.contains_key(name), "{name} is taken from jobs");
    }
    Ok(())
}
