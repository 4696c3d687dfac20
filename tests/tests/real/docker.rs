//! Steps in containers of a real engine. Engines that die or hang are tested with the runner, on engines of their own.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::process::Command;
use windlass_tests::kit::engine::{IMAGE, answers, docker, import};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::skip::skip;
use windlass_tests::kit::world::run;
use windlass_tests::kit::{Agent, AgentOptions, DEADLINE, Fleet, JoinToken, Ran, Submit, World, test, until};

#[test]
fn a_step_with_an_image_runs_in_it_and_leaves_no_container() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let fleet = Fleet::start(world).await?;
        let inside = with(
            step("inside", "test ! -e /etc/debian_version && echo inside; echo made > made; pwd"),
            "image",
            json!(IMAGE),
        );
        let build = fleet.run_to("passed", pipeline([inside])).await?;
        let log = fleet.log_of(&build, "inside").await?;
        ensure!(log.starts_with("inside\n"), "{log}");
        let place = log.lines().nth(1).context("a place")?;
        let work = fleet.agents.first().context("an agent")?.data().join("work");
        ensure!(place.starts_with(&work.display().to_string()), "the workspace is at {place}, not as on the host");
        let attempt = build.attempt("inside")?;
        let left = docker(&["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.Labels}}"]).await?.code(0)?;
        ensure!(!left.stdout.contains(attempt.id()), "a container is left: {}", left.stdout);
        Ok(())
    })
}

#[test]
fn hooks_of_a_step_with_an_image_run_in_its_container() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let make = "set -e; export HOME=$PWD/home; git config --global user.name t; git config --global user.email t@example.invalid; \
                    git config --global init.defaultBranch main; mkdir -p hooks repo/.buildkite/hooks tool-buildkite-plugin/hooks; \
                    echo 'export FROM_AGENT=agent; test -e /etc/debian_version || echo in the container' >hooks/environment; \
                    echo 'echo \"left $FROM_REPO $BUILDKITE_COMMAND_EXIT_STATUS\"' >hooks/pre-exit; \
                    echo 'export FROM_REPO=repo; touch by-hook' >repo/.buildkite/hooks/pre-command; \
                    echo 'echo \"$FROM_AGENT $FROM_REPO $BUILDKITE_PLUGIN_TOOL_X\"; ls; exit 5' >tool-buildkite-plugin/hooks/command; \
                    for r in repo tool-buildkite-plugin; do git -C $r init -q; git -C $r add -A; git -C $r commit -qm one; done";
        let mut bash = Command::new("bash");
        bash.args(["-c", make]).current_dir(world.root());
        run("bash", bash, DEADLINE).await?.code(0)?;
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 0).await?;
        let mut options = AgentOptions::new("agent", fleet.coordinator.address(), &fleet.join_token);
        let hooks = world.path("hooks").display().to_string();
        // Repository and plugin are paths of this machine.
        options.more = ["--git-protocol", "https,file", "--hooks-path", &hooks].map(str::to_owned).to_vec();
        let agent = Agent::start(world, options)?;
        agent.in_state(&fleet.client, "online").await?;
        fleet.agents.push(agent);
        let source = world.path("tool-buildkite-plugin").display().to_string();
        let inside =
            with(with(step("inside", "true"), "image", json!(IMAGE)), "plugins", json!([{ source: { "x": 1 } }]));
        let origin =
            json!({ "repository": world.path("repo").display().to_string(), "commit": "HEAD", "branch": "main" });
        let build = fleet.client.submit(&Submit::text(pipeline([inside])).origin(origin)).await?;
        let build = fleet.client.ends(build.id(), "failed", DEADLINE).await?;
        let log = fleet.log_of(&build, "inside").await?;
        ensure!(log.contains("\nin the container\n"), "{log}");
        ensure!(log.contains("\nagent repo 1\nby-hook\n"), "{log}");
        ensure!(log.contains("\nleft repo 5\n"), "{log}");
        ensure!(build.job("inside")?.exit_status() == Some(5), "{}", build.brief());
        Ok(())
    })
}

#[test]
fn a_step_with_an_image_has_its_cache_which_a_process_saved_and_keeps_one_of_its_own() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let fleet = Fleet::start(world).await?;
        let cache = |key: &str| json!({ "paths": ["deps"], "key": key });
        let make = with(step("make", "mkdir -p deps/d; echo one > deps/d/f; ln -s d deps/l"), "cache", cache("one"));
        fleet.run_to("passed", pipeline([make])).await?;
        let inside = "test ! -e /etc/debian_version; test \"$(cat deps/l/f)\" = one; echo inside > deps/new";
        let take = with(with(step("take", inside), "image", json!(IMAGE)), "cache", cache("one"));
        let other = "test ! -e deps; /bin/busybox mkdir deps; echo inside > deps/f";
        let other = with(with(step("other", other), "image", json!(IMAGE)), "cache", cache("two"));
        fleet.run_to("passed", pipeline([take, other])).await?;
        let check = with(step("check", "[ \"$(cat deps/f)\" = inside ]; [ ! -e deps/new ]"), "cache", cache("two"));
        fleet.run_to("passed", pipeline([check])).await?;
        Ok(())
    })
}

#[test]
fn a_step_whose_image_is_not_to_be_had_fails_with_its_cause() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let absent = with(step("absent", "true"), "image", json!("localhost:1/nobody/has-this:ever"));
        let build = fleet.run_to("failed", pipeline([absent])).await?;
        let cause = build.job("absent")?.cause().to_owned();
        ensure!(cause == "image_pull_failed" || cause == "image_missing", "{}", build.brief());
        Ok(())
    })
}

#[test]
fn an_agent_that_was_there_before_its_engine_takes_steps_with_an_image_once_it_has_come() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 0).await?;
        let socket = world.path("engine.sock");
        let mut options = AgentOptions::new("early", fleet.coordinator.address(), &fleet.join_token);
        options.env = vec![("DOCKER_HOST".to_owned(), format!("unix://{}", socket.display()))];
        fleet.agents.push(Agent::start(world, options)?);
        fleet.agents[0].in_state(&fleet.client, "online").await?;
        let inside = with(step("inside", "test ! -e /etc/debian_version && echo inside"), "image", json!(IMAGE));
        let build = fleet.client.submit(&Submit::text(pipeline([inside, step("plain", "true")]))).await?;
        let build =
            fleet.client.wait(build.id(), "the plain step", DEADLINE, |it| it.job_is("plain", "passed")).await?;
        ensure!(build.job("inside")?.attempts().is_empty(), "nobody could run it: {}", build.brief());
        let why = fleet.client.get(&format!("/jobs/{}/why", build.job("inside")?.id())).await?.json()?;
        ensure!(why.to_string().contains("unable to run images"), "{why}");
        std::os::unix::fs::symlink("/var/run/docker.sock", &socket)?;
        let build = fleet.client.ends(build.id(), "passed", Duration::from_secs(60)).await?;
        ensure!(fleet.log_of(&build, "inside").await? == "inside\n", "{}", build.brief());
        Ok(())
    })
}

#[test]
fn a_canceled_step_leaves_no_container() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let fleet = Fleet::start(world).await?;
        let long = with(step("long", "sleep 600"), "image", json!(IMAGE));
        let build = fleet.running(pipeline([long]), "long").await?;
        let attempt = build.attempt("long")?;
        fleet.client.post(&format!("/builds/{}/cancel", build.id()), &json!({})).await?.status(200)?;
        fleet.client.ends(build.id(), "canceled", DEADLINE).await?;
        let left = docker(&["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.Labels}}"]).await?.code(0)?;
        ensure!(!left.stdout.contains(attempt.id()), "a container is left: {}", left.stdout);
        Ok(())
    })
}

#[test]
fn the_command_works_in_an_image_that_has_nothing_at_all() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let scratch = "windlass-test/scratch:e2e";
        let script = format!("mkdir empty; touch empty/nothing; tar -C empty -c nothing | docker import - {scratch}");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(world.root());
        run("docker import", bash, DEADLINE).await?.code(0)?;

        let fleet = Fleet::start(world).await?;
        let script = "set -e; buildkite-agent env set A=1; [ \"$(windlass env get A)\" = 1 ]; echo some-secret >s; \
                      windlass redactor add s; cat s; windlass meta-data set busybox yes; \
                      while ! windlass meta-data exists scratch; do sleep 0.1; done; \
                      windlass artifact download nothing . --step stays; test -f nothing";
        let stays = with(step("stays", script), "image", json!(IMAGE));
        let build = fleet.running(pipeline([stays]), "stays").await?;
        // The job's door and program, in a container of another image: beside them it has nothing.
        let attempt = build.attempt("stays")?.id().to_owned();
        let work = fleet.agents.first().context("an agent")?.data().join("work").canonicalize()?;
        let (programs, door) = (work.join(".bin"), work.join(".doors").join(&attempt).join("in"));
        let mount = |path: &std::path::Path| format!("{0}:{0}:ro", path.display());
        let socket = format!("WINDLASS_JOB_SOCKET={}/job.sock", door.display());
        let entry = format!("{}/windlass", programs.display());
        let (programs, door) = (mount(&programs), mount(&door));
        let bare = ["run", "--rm", "--network", "none", "-v", &programs, "-v", &door, "-e", &socket, "--user", "1234"];
        let call = async |line: &[&str]| docker(&[&bare[..], &["--entrypoint", &entry, scratch], line].concat()).await;
        let got = call(&["meta-data", "get", "busybox"]).await?.code(0)?;
        ensure!(got.stdout == "yes\n", "{got:?}");
        call(&["meta-data", "exists", "nothing"]).await?.code(100)?;
        call(&["artifact", "upload", "--literal", "nothing"]).await?.code(0)?;
        call(&["meta-data", "set", "scratch", "yes"]).await?.code(0)?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let log = fleet.log_of(&build, "stays").await?;
        ensure!(log.contains("[REDACTED]\n") && !log.contains("some-secret"), "{log}");
        ensure!(build.0["meta_data"]["busybox"] == json!("yes"), "{}", build.0);
        Ok(())
    })
}

#[test]
fn an_exclusive_container_of_a_stopped_agent_has_ended_before_another_takes_its_place() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let pool = JoinToken::pool("local", &["default"]).lease_ms(2_000);
        let fleet = Fleet::of(world, &pool, 1).await?;
        // Each attempt leaves a trail in its workspace for as long as it lives, and does not go before it must. Both
        // read the same clock, the machine's.
        let script = "trap '' TERM; while :; do read -r up idle </proc/uptime; echo $up >>trail; \
                      test -e done && exit 0; sleep 0.02; done";
        let rule = json!({ "automatic": [{ "cause": "agent_lost", "limit": 2 }] });
        let one = with(with(with(step("one", script), "retry", rule), "exclusive", json!(true)), "image", json!(IMAGE));
        let build = fleet.running(pipeline([one]), "one").await?;
        let stopped = fleet.agents.first().context("an agent")?;
        let trail = |agent: &Agent<'_>, attempt: &str| agent.data().join("work").join(attempt).join("checkout/trail");
        let first = trail(stopped, build.attempt("one")?.id());
        until("the first trail", DEADLINE, async || Ok(first.exists().then_some(()))).await?;
        stopped.stop()?;
        let options = AgentOptions::new("other", fleet.coordinator.address(), &fleet.join_token);
        let other = Agent::start(world, options)?;
        other.in_state(&fleet.client, "online").await?;
        let again = |build: &windlass_tests::kit::Build| {
            build.job("one").is_ok_and(|job| job.attempts().len() == 2 && job.state() == "running")
        };
        let build = fleet.client.wait(build.id(), "a second attempt", Duration::from_secs(60), again).await?;
        let second = trail(&other, build.attempt("one")?.id());
        until("the second trail", DEADLINE, async || Ok(second.exists().then_some(()))).await?;
        let times = |path: &std::path::Path| -> Result<Vec<f64>> {
            // The last line may be half written.
            let text = std::fs::read_to_string(path)?;
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            whole.lines().map(|line| line.parse().context("a time")).collect()
        };
        let begun = until("the second's first word", DEADLINE, async || Ok(times(&second)?.first().copied())).await?;
        let last = times(&first)?.last().copied().context("the first's last word")?;
        ensure!(last < begun, "the first ran at {last}, the second from {begun}");
        std::fs::write(second.with_file_name("done"), "")?;
        fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        ensure!(times(&first)?.last().copied() == Some(last), "the first ran on beside the second");
        Ok(())
    })
}

/// Kills an attempt's supervisor, as its socket names it.
async fn kill_supervisor(agent: &Agent<'_>, attempt: &str) -> Result<()> {
    let stream = UnixStream::connect(agent.data().join("jobs").join(attempt).join("control.sock"))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let hello: serde_json::Value = serde_json::from_str(&line)?;
    let pid = hello["supervisor"].as_i64().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    rustix::process::kill_process(pid.context("a supervisor")?, rustix::process::Signal::KILL)?;
    let place = agent.data().join("jobs").join(attempt).join("control.sock");
    until("the supervisor's end", DEADLINE, async || Ok(UnixStream::connect(&place).is_err().then_some(()))).await
}

#[test]
fn containers_of_an_agent_that_crashed_are_removed_and_those_of_another_one_run_on() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 2).await?;
        let steps = ["one", "two", "three", "four"].map(|key| {
            let wait = until_exists(std::path::Path::new("done"));
            with(step(key, &format!("touch up; {wait}")), "image", json!(IMAGE))
        });
        let build = fleet.client.submit(&Submit::text(pipeline(steps))).await?;
        let all = |build: &windlass_tests::kit::Build| build.jobs().iter().all(|job| job.state() == "running");
        let build = fleet.client.wait(build.id(), "four running steps", DEADLINE, all).await?;
        let of = |name: &str| -> Vec<_> {
            build.jobs().iter().filter_map(windlass_tests::kit::Job::last).filter(|a| a.agent() == name).collect()
        };
        let (crashed, others) = (of("agent-1"), of("agent-2"));
        ensure!(crashed.len() == 2 && others.len() == 2, "{}", build.brief());
        let agent = fleet.agents.first_mut().context("an agent")?;
        agent.kill9().await?;
        // Of one it knows nothing any more, of the other it does.
        for attempt in &crashed {
            kill_supervisor(agent, attempt.id()).await?;
        }
        let forgotten = crashed.first().context("an attempt")?;
        std::fs::remove_dir_all(agent.data().join("jobs").join(forgotten.id()))?;
        let left = async || -> Result<String> {
            let format = "{{.Names}} {{.State}}";
            Ok(docker(&["ps", "-a", "--no-trunc", "--format", format]).await?.code(0)?.stdout)
        };
        let there = left().await?;
        ensure!(crashed.iter().chain(&others).all(|a| there.contains(&format!("{} running", a.id()))), "{there}");
        agent.restart().await?;
        until("the end of what the crash left", DEADLINE, async || {
            let left = left().await?;
            let networks = docker(&["network", "ls", "--no-trunc", "--format", "{{.Name}}"]).await?.code(0)?.stdout;
            Ok((!crashed.iter().any(|a| left.contains(a.id()) || networks.contains(a.id()))).then_some(()))
        })
        .await?;
        let there = left().await?;
        ensure!(others.iter().all(|a| there.contains(&format!("{} running", a.id()))), "another agent's: {there}");
        let other = fleet.agents.get(1).context("an agent")?;
        for attempt in &others {
            std::fs::write(other.data().join("work").join(attempt.id()).join("checkout/done"), "")?;
        }
        let passed = |build: &windlass_tests::kit::Build| {
            let ended = |id: &str| {
                build
                    .jobs()
                    .iter()
                    .filter_map(windlass_tests::kit::Job::last)
                    .any(|a| a.id() == id && a.state() == "finished" && a.cause().is_empty())
            };
            others.iter().all(|attempt| ended(attempt.id()))
        };
        fleet.client.wait(build.id(), "the other agent's steps to pass", DEADLINE, passed).await?;
        Ok(())
    })
}

/// A directory with a pipeline.
fn project(world: &World, name: &str, definition: &str) -> Result<std::path::PathBuf> {
    let dir = world.path(name);
    std::fs::create_dir_all(dir.join(".windlass"))?;
    std::fs::write(dir.join(".windlass/pipeline.yml"), definition)?;
    Ok(dir)
}

/// `windlass shell latest STEP`, with a script for its shell; at a terminal if asked.
async fn shell(world: &World, step: &str, script: &str, terminal: bool) -> Result<Ran> {
    let program = windlass_tests::kit::world::binary()?;
    let line = format!("{} shell latest {step}", program.display());
    let line = if terminal { format!("script -qec '{line}' /dev/null") } else { line };
    let mut bash = Command::new("bash");
    world.dress(&mut bash);
    bash.env("SHELL", "/bin/sh").env("SCRIPT", script).args(["-c", &format!("printf '%s\\n' \"$SCRIPT\" | {line}")]);
    run("windlass shell", bash, DEADLINE).await
}

#[test]
fn a_shell_is_in_the_image_of_a_kept_step_with_its_variables_and_leaves_nothing() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let odd = "two\nlines $HOME 'quoted'";
        let inside = with(
            with(step("inside", "echo made >made; exit 3"), "image", json!(IMAGE)),
            "env",
            json!({ "ODD": odd.replace('$', "$$") }),
        );
        let outside = step("outside", "echo made >made; exit 3");
        let dir = project(world, "project", &pipeline([inside, outside]))?;
        world.run(["run".as_ref(), "--keep".as_ref(), dir.as_os_str()], Duration::from_secs(90)).await?.code(1)?;
        let script = "test -e /etc/debian_version || echo inside; cat made; pwd; echo \"$ODD\"; test -t 0 || echo no terminal; exit 9";
        let ran = shell(world, "inside", script, false).await?.code(9)?;
        let lines: Vec<&str> = ran.stdout.lines().collect();
        ensure!(lines.first() == Some(&"inside") && lines.get(1) == Some(&"made"), "{ran:?}");
        ensure!(lines.get(2).is_some_and(|pwd| pwd.ends_with("/checkout")), "{ran:?}");
        ensure!(ran.stdout.contains(odd) && lines.last() == Some(&"no terminal"), "{ran:?}");
        let ran =
            shell(world, "inside", "test -t 0 && test -t 1 && echo a $((20 + 22)) terminal; exit 8", true).await?;
        ensure!(ran.stdout.contains("a 42 terminal"), "{ran:?}");
        ran.code(8)?;
        // A step without an image stays as it was.
        let ran =
            shell(world, "outside", "test -e /etc/debian_version && echo outside; cat made; exit 7", false).await?;
        ensure!(ran.stdout == "outside\nmade\n", "{ran:?}");
        ran.code(7)?;
        let left = docker(&["ps", "-aq", "--filter", "label=windlass.shell"]).await?.code(0)?;
        ensure!(left.stdout.is_empty(), "a shell's container is left: {}", left.stdout);
        Ok(())
    })
}

#[test]
fn without_an_engine_a_run_says_so_only_where_a_step_needs_one_and_that_step_is_refused() -> Result<()> {
    test(async |world| {
        let here = step("here", "echo here");
        let within = with(step("within", "echo within"), "image", json!(IMAGE));
        let socket = format!("unix://{}", world.path("no-docker.sock").display());
        for (name, steps, code) in [("plain", vec![here.clone()], 0), ("images", vec![here, within], 1)] {
            let dir = project(world, name, &pipeline(steps))?;
            let mut command = world.windlass(["run".as_ref(), dir.as_os_str()])?;
            // As people run it: what an operator follows names the socket in any case.
            command.env("DOCKER_HOST", &socket).env_remove("WINDLASS_LOG");
            let ran = run("windlass run", command, Duration::from_secs(60)).await?.code(code)?;
            let all = format!("{}{}", ran.stdout, ran.stderr);
            let said = all.contains("no Docker answers") || all.contains("no-docker.sock");
            ensure!(said == (name == "images"), "{all}");
            ensure!(all.contains("here"), "{all}");
            ensure!(name == "plain" || all.contains("start it there"), "the hint is missing: {all}");
        }
        Ok(())
    })
}
