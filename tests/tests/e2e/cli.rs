//! What a person sees: `windlass run` and the commands beside it, and their exit codes.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::world::repository;
use windlass_tests::kit::{DEADLINE, Exit, Fleet, JoinToken, Process, World, test, until};

const RUN: Duration = Duration::from_secs(90);

fn project(world: &World, name: &str, definition: &str) -> Result<PathBuf> {
    let dir = world.path(name);
    fs::create_dir_all(dir.join(".windlass"))?;
    fs::write(dir.join(".windlass/pipeline.yml"), definition)?;
    Ok(dir)
}

/// The example as a newcomer has it: not within this repository, whose .gitignore would count.
fn hello(world: &World) -> Result<PathBuf> {
    let dir = world.path("hello");
    let copied =
        std::process::Command::new("cp").arg("-r").arg(repository().join("examples/hello")).arg(&dir).status()?;
    ensure!(copied.success(), "the example cannot be copied");
    Ok(dir)
}

#[test]
fn the_first_example_passes_and_shows_its_log() -> Result<()> {
    test(async |world| {
        let ran = world.run(["run".into(), hello(world)?], RUN).await?.code(0)?;
        let said = format!("{}{}", ran.stdout, ran.stderr);
        for words in ["words  in all", "1-morning.txt: OK", "count words", "most used words"] {
            ensure!(said.contains(words), "no `{words}` in\n{said}");
        }
        ensure!(!said.contains("panicked"), "{said}");
        Ok(())
    })
}

#[test]
fn a_failing_build_exits_with_1_and_says_what_failed() -> Result<()> {
    test(async |world| {
        let dir = project(world, "failing", &pipeline([step("fine", "true"), step("broken", "echo sorry; exit 9")]))?;
        let ran = world.run(["run".into(), dir], RUN).await?.code(1)?;
        let said = format!("{}{}", ran.stdout, ran.stderr);
        ensure!(said.contains("sorry") && said.contains("broken") && said.contains('9'), "{said}");
        Ok(())
    })
}

#[test]
fn a_pipeline_that_cannot_run_exits_with_2_names_the_place_and_runs_nothing() -> Result<()> {
    test(async |world| {
        let ran = world.path("ran");
        let text = format!("steps:\n  - command: touch {}\n  - comand: oops\n", ran.display());
        let dir = project(world, "invalid", &text)?;
        let answer = world.run(["run".into(), dir], RUN).await?.code(2)?;
        ensure!(answer.stderr.contains("pipeline.yml") && answer.stderr.contains('3'), "no place in {}", answer.stderr);
        ensure!(!ran.exists(), "it ran");
        let empty = world.path("empty");
        fs::create_dir(&empty)?;
        world.run(["run".into(), empty], RUN).await?.code(2)?;
        Ok(())
    })
}

#[test]
fn the_machine_readable_output_tells_the_build_from_beginning_to_end() -> Result<()> {
    test(async |world| {
        let dir = project(world, "json", &pipeline([step("speak", "echo one; echo two")]))?;
        let ran = world.run(["run".as_ref(), dir.as_os_str(), "--json".as_ref()], RUN).await?.code(0)?;
        let events: Vec<Value> = ran.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap_or_default()).collect();
        ensure!(names.first() == Some(&"build_created") && names.last() == Some(&"build_finished"), "{names:?}");
        ensure!(names.contains(&"job_started") && names.contains(&"job_finished"), "{names:?}");
        let text: String = events.iter().filter_map(|event| event["text"].as_str()).collect();
        ensure!(text == "one\ntwo\n", "{text:?}");
        ensure!(events.iter().all(|event| event["at"].is_string()), "an event without a time");
        let last = events.last().context("an event")?;
        ensure!(last["build"]["state"] == json!("passed"), "{last}");
        Ok(())
    })
}

#[test]
fn a_second_run_beside_the_first_uses_its_server() -> Result<()> {
    test(async |world| {
        let (go, began) = (world.path("go"), world.path("began"));
        let script = format!("touch {}; {}", began.display(), until_exists(&go));
        let slow = project(world, "slow", &pipeline([step("slow", &script)]))?;
        fs::set_permissions(world.root(), std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
        let mut first = Process::start(world.windlass(["run".into(), slow])?, &world.logs(), "first-run")?;
        until("the first run's step", RUN, async || {
            ensure!(first.runs()?, "the first run ended: {}", first.stderr()?);
            Ok(began.exists().then_some(()))
        })
        .await?;
        let quick = project(world, "quick", &pipeline([step("quick", "echo beside")]))?;
        let second = world.run(["run".into(), quick], RUN).await?.code(0)?;
        ensure!(format!("{}{}", second.stdout, second.stderr).contains("beside"), "{second:?}");
        let listed = world.run(["build", "list", "--json"], DEADLINE).await?.code(0)?;
        ensure!(listed.stdout.contains("\"slow\"") && listed.stdout.contains("\"quick\""), "{}", listed.stdout);
        ensure!(first.runs()?, "the second run ended the first");
        fs::write(&go, "")?;
        ensure!(first.ended(RUN).await? == Exit::Code(0), "{}", first.stderr()?);
        Ok(())
    })
}

#[test]
fn commands_without_a_server_exit_with_3() -> Result<()> {
    test(async |world| {
        for arguments in [vec!["build", "list"], vec!["agents", "list"], vec!["logs", "latest"]] {
            world.run(arguments, DEADLINE).await?.code(3)?;
        }
        world.run(["build", "list", "--server", "http://127.0.0.1:1"], DEADLINE).await?.code(3)?;
        Ok(())
    })
}

#[test]
fn a_run_that_is_interrupted_cancels_its_build_and_leaves_no_process() -> Result<()> {
    test(async |world| {
        let (pid, began) = (world.path("pid"), world.path("began"));
        let script = format!("echo $$ > {}; touch {}; sleep 600", pid.display(), began.display());
        let dir = project(world, "long", &pipeline([step("long", &script)]))?;
        fs::set_permissions(world.root(), std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
        let mut run = Process::start(world.windlass(["run".into(), dir])?, &world.logs(), "run")?;
        until("the step", RUN, async || {
            ensure!(run.runs()?, "the run ended: {}", run.stderr()?);
            Ok(began.exists().then_some(()))
        })
        .await?;
        run.signal(rustix::process::Signal::INT)?;
        ensure!(run.ended(RUN).await? == Exit::Code(130), "{}", run.stderr()?);
        let job: i32 = fs::read_to_string(pid)?.trim().parse()?;
        let job = rustix::process::Pid::from_raw(job).context("a pid")?;
        ensure!(rustix::process::test_kill_process(job).is_err(), "the job lives on");
        // A supervisor that waits for another job learns of the end by its line, and leaves a moment after the run.
        until("the end of every process", DEADLINE, async || Ok(world.processes().is_empty().then_some(()))).await?;
        Ok(())
    })
}

#[test]
fn a_run_that_nobody_takes_says_why_and_an_up_that_waits_for_its_agent_can_be_ended() -> Result<()> {
    test(async |world| {
        let nowhere = with(step("lonely", "true"), "agents", json!({ "queue": "nobody-serves-this" }));
        let dir = project(world, "lonely", &pipeline([nowhere]))?;
        fs::set_permissions(world.root(), std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
        let mut run = Process::start(world.windlass(["run".into(), dir])?, &world.logs(), "lonely")?;
        until("the reason", RUN, async || {
            ensure!(run.runs()?, "the run ended: {}", run.stderr()?);
            Ok(run.stderr()?.contains("no pool serves queue `nobody-serves-this` for trusted builds").then_some(()))
        })
        .await?;
        run.signal(rustix::process::Signal::INT)?;
        ensure!(run.ended(RUN).await? == Exit::Code(130), "{}", run.stderr()?);
        Ok(())
    })
}

#[test]
fn what_a_manual_would_say_is_in_the_help_and_wrong_numbers_are_refused_at_once() -> Result<()> {
    test(async |world| {
        let agent = world.run(["agent", "--help"], DEADLINE).await?.code(0)?;
        ensure!(agent.stdout.contains("SIGTERM") && agent.stdout.contains("Exit 4"), "{}", agent.stdout);
        let up = world.run(["up", "--help"], DEADLINE).await?.code(0)?;
        ensure!(up.stdout.contains("SIGTERM"), "{}", up.stdout);
        let run = world.run(["run", "--help"], DEADLINE).await?.code(0)?;
        ensure!(run.stdout.contains("Ctrl-C"), "{}", run.stdout);
        world.run(["up", "--slots", "0"], DEADLINE).await?.code(2)?;
        let token = ["token", "create", "--pool", "p", "--expires", "0s", "--server", "http://127.0.0.1:1"];
        world.run(token, DEADLINE).await?.code(2)?;
        Ok(())
    })
}

#[test]
fn a_join_token_that_was_cut_is_said_to_be_that_and_a_new_pool_for_untrusted_builds_is_remarked_on() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 0).await?;
        let file = world.path("cut-token");
        fs::write(&file, "wlj_bad\n")?;
        let (address, data) = (fleet.coordinator.address().to_string(), world.path("agent-data"));
        let arguments: [&OsStr; 7] = [
            "agent".as_ref(),
            "--server".as_ref(),
            address.as_ref(),
            "--join-token-file".as_ref(),
            file.as_ref(),
            "--data".as_ref(),
            data.as_ref(),
        ];
        let ran = world.run(arguments, DEADLINE).await?.code(2)?;
        ensure!(ran.stderr.contains("the join token cannot be read"), "{}", ran.stderr);
        ensure!(!ran.stderr.contains("refuses"), "{}", ran.stderr);
        let (url, admin) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
        let create = |pool: &str, trust: &str| {
            let words =
                ["token", "create", "--pool", pool, "--zone", "z", "--queue", "q", "--trust", trust, "--lease", "90s"];
            let mut line: Vec<OsString> = words.map(OsString::from).to_vec();
            line.extend(["--server".into(), url.clone().into(), "--token-file".into(), admin.clone().into()]);
            line
        };
        let plain = world.run(create("pulls", "untrusted"), DEADLINE).await?.code(0)?;
        ensure!(plain.stderr.contains("untrusted builds"), "{}", plain.stderr);
        let trusted = world.run(create("builders", "trusted"), DEADLINE).await?.code(0)?;
        ensure!(!trusted.stderr.contains("untrusted"), "{}", trusted.stderr);
        Ok(())
    })
}

#[test]
fn a_check_tells_damage_from_a_directory_that_is_not_there_or_in_use() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 0).await?;
        let check = |data: &Path| -> [OsString; 4] {
            ["coordinator".into(), "--check".into(), "--data".into(), data.as_os_str().to_owned()]
        };
        world.run(check(&world.path("nothing")), DEADLINE).await?.code(2)?;
        world.run(check(fleet.coordinator.data()), DEADLINE).await?.code(4)?;
        Ok(())
    })
}
