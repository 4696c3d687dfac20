//! Hooks of agent, repository and plugins around real jobs: their order, what they carry on, what a failing one does, and
//! what a hostile one cannot do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{pipeline, step, until_exists, with};
use windlass_tests::kit::repository::{git, program as hook, repository};
use windlass_tests::kit::skip::{is_root, skip};
use windlass_tests::kit::{Agent, AgentOptions, Build, DEADLINE, Fleet, JoinToken, Submit, World, test, until};

const NAMES: [&str; 10] = [
    "environment",
    "pre-checkout",
    "checkout",
    "post-checkout",
    "pre-command",
    "command",
    "post-command",
    "pre-artifact",
    "post-artifact",
    "pre-exit",
];

/// One agent with more arguments. Its repositories and plugins are paths of this machine.
async fn fleet<'a>(world: &'a World, more: &[&str]) -> Result<Fleet<'a>> {
    let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 0).await?;
    let mut options = AgentOptions::new("agent", fleet.coordinator.address(), &fleet.join_token);
    let more = ["--git-protocol", "https,file"].into_iter().chain(more.iter().copied());
    options.more = more.map(str::to_owned).collect();
    let agent = Agent::start(world, options)?;
    agent.in_state(&fleet.client, "online").await?;
    fleet.agents.push(agent);
    Ok(fleet)
}

async fn finished(fleet: &Fleet<'_>, definition: String, repository: &Path) -> Result<Build> {
    let origin = json!({ "repository": repository.display().to_string(), "commit": "HEAD", "branch": "main" });
    let build = fleet.client.submit(&Submit::text(definition).origin(origin)).await?;
    fleet.client.finished(build.id(), DEADLINE).await
}

/// The lines that say what runs, without their marks.
fn headers(log: &str) -> Vec<String> {
    let headers = log.lines().filter_map(|line| line.strip_prefix("~~~ "));
    let headers = headers.filter_map(|line| match line.strip_prefix("Running ") {
        Some(what) => Some(what.trim_end_matches(" hook").to_owned()),
        None => (line == "Preparing working directory").then(|| "checkout".to_owned()),
    });
    headers.collect()
}

/// What all hooks of the test below say, in order: the reference's table (18.4).
const ORDER: [&str; 28] = [
    "agent environment",
    "plugin one environment",
    "plugin two environment",
    "agent pre-checkout",
    "plugin one pre-checkout",
    "plugin two pre-checkout",
    "checkout",
    "plugin two post-checkout",
    "plugin one post-checkout",
    "repository post-checkout",
    "agent post-checkout",
    "plugin v environment",
    "agent pre-command",
    "repository pre-command",
    "plugin one pre-command",
    "plugin two pre-command",
    "plugin v pre-command",
    "commands",
    "plugin v post-command",
    "plugin two post-command",
    "plugin one post-command",
    "repository post-command",
    "agent post-command",
    "plugin v pre-exit",
    "plugin two pre-exit",
    "plugin one pre-exit",
    "repository pre-exit",
    "agent pre-exit",
];

/// What the variable `CHAIN` holds after these.
fn chain(headers: &[&str]) -> String {
    let scope =
        |name: &str| name.replace("repository ", "repo:").replace("plugin v ", "vendored:").replace("plugin ", "");
    let hooks = headers.iter().filter(|name| name.contains(' ')).map(|name| scope(name).replace(' ', ":"));
    hooks.map(|hook| format!(" {hook}")).collect()
}

#[test]
fn hooks_run_in_the_reference_s_order_and_each_sees_what_those_before_it_changed() -> Result<()> {
    test(async |world| {
        let (agent_hooks, names) =
            (world.path("agent-hooks"), NAMES.iter().filter(|name| !["checkout", "command"].contains(name)));
        let mut files = Vec::new();
        let script = |scope: &str, name: &str| format!("export CHAIN=\"$CHAIN {scope}:{name}\"\n");
        for name in names.clone() {
            hook(&agent_hooks, name, &script("agent", name))?;
        }
        // The last of all shows what came of it.
        hook(
            &agent_hooks,
            "pre-exit",
            "echo \"CHAIN$CHAIN agent:pre-exit\"; echo \"status $BUILDKITE_COMMAND_EXIT_STATUS\"",
        )?;
        for (scope, below) in [("repo", ".buildkite/hooks"), ("vendored", "tools/v/hooks")] {
            files.extend(names.clone().map(|name| (format!("{below}/{name}"), script(scope, name))));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let repo = repository(world, "repo", &files).await?;
        let plugin = |name: &'static str| NAMES.map(|hook| (format!("hooks/{hook}"), script(name, hook)));
        let mut sources = Vec::new();
        for name in ["one", "two"] {
            let files: Vec<_> = plugin(name)
                .into_iter()
                .filter(|(path, _)| !path.ends_with("/checkout") && !path.ends_with("/command"))
                .collect();
            let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            sources.push(format!(
                "{}#v1",
                repository(world, &format!("{name}-buildkite-plugin"), &files).await?.display()
            ));
        }
        let fleet = fleet(world, &["--hooks-path", &agent_hooks.display().to_string()]).await?;
        let plugins = json!([{ &sources[0]: { "key": "a b" } }, "./tools/v", { &sources[1]: null }]);
        let all = with(step("all", "echo \"chain$CHAIN\"; exit 3"), "plugins", plugins);
        let build = finished(&fleet, pipeline([all]), &repo).await?;
        let log = fleet.log_of(&build, "all").await?;
        ensure!(headers(&log) == ORDER, "{:#?}\n{log}", headers(&log));
        ensure!(log.contains(&format!("\nchain{}\n", chain(&ORDER[..17]))), "{log}");
        ensure!(log.contains(&format!("\nCHAIN{}\n", chain(&ORDER))), "{log}");
        ensure!(log.contains("\nstatus 3\n"), "{log}");
        let job = build.job("all")?;
        ensure!(
            job.exit_status() == Some(3) && job.cause().is_empty(),
            "a failing command is no failing phase: {}",
            build.brief()
        );
        Ok(())
    })
}

/// Hooks that fail where the variable `FAIL` says so.
fn failing(scope: &str, name: &str) -> String {
    format!("[ \"$FAIL\" != '{scope} {name}' ] || exit 7\n")
}

#[test]
fn a_hook_that_fails_ends_its_phase_with_its_status_and_the_job_with_its_cause() -> Result<()> {
    test(async |world| {
        let agent_hooks = world.path("agent-hooks");
        for name in ["environment", "pre-checkout", "post-checkout", "pre-command", "post-command", "pre-exit"] {
            hook(&agent_hooks, name, &failing("agent", name))?;
        }
        let script = |name: &str| failing("repository", name);
        let (pre, post, exit) = (script("pre-command"), script("post-command"), script("pre-exit"));
        let files = [
            (".buildkite/hooks/pre-command", pre.as_str()),
            (".buildkite/hooks/post-command", post.as_str()),
            (".buildkite/hooks/pre-exit", exit.as_str()),
        ];
        let repo = repository(world, "repo", &files).await?;
        let fleet = fleet(world, &["--hooks-path", &agent_hooks.display().to_string()]).await?;
        // Where it fails; what of the command, of its post-command and of both pre-exit hooks runs.
        let table = [
            ("agent environment", "pre-exit"),
            ("agent pre-checkout", "pre-exit"),
            ("agent post-checkout", "pre-exit"),
            ("agent pre-command", "pre-exit"),
            ("repository pre-command", "pre-exit"),
            ("repository post-command", "commands post-command pre-exit"),
            ("agent post-command", "commands post-command pre-exit"),
            ("repository pre-exit", "commands post-command pre-exit"),
            ("agent pre-exit", "commands post-command pre-exit"),
        ];
        let steps =
            table.map(|(fails, _)| with(step(&fails.replace(' ', "_"), "echo ran"), "env", json!({ "FAIL": fails })));
        let build = finished(&fleet, pipeline(steps), &repo).await?;
        for (fails, runs) in table {
            let key = fails.replace(' ', "_");
            let (job, log) = (build.job(&key)?, fleet.log_of(&build, &key).await?);
            let headers = headers(&log);
            ensure!(job.exit_status() == Some(7) && job.cause() == "hook_failed", "{key}: {}\n{log}", build.brief());
            let runs_command = headers.contains(&"commands".to_owned()) && log.contains("\nran\n");
            ensure!(runs_command == runs.contains("commands"), "{key}: {log}");
            let after = headers.iter().any(|name| name.ends_with("post-command"));
            ensure!(after == runs.contains("post-command"), "{key}: {log}");
            ensure!(headers.iter().any(|name| name.ends_with("pre-exit")), "{key}: {log}");
            let last = headers.last().map(String::as_str);
            ensure!(
                last == Some("agent pre-exit") || (fails == "repository pre-exit" && last == Some(fails)),
                "{key}: {log}"
            );
            ensure!(log.contains(&format!("The {fails} hook exited with status 7")), "{key}: {log}");
        }
        Ok(())
    })
}

#[test]
fn what_hooks_change_is_carried_but_for_what_is_protected() -> Result<()> {
    test(async |world| {
        let agent_hooks = world.path("agent-hooks");
        hook(
            &agent_hooks,
            "environment",
            "export ADDED='two words' HOOK_TOKEN=verysecretvalue BUILDKITE_PLUGINS_PATH=/elsewhere\nunset GIVEN\nexport EMPTY=\nLOCAL=1\n",
        )?;
        // What is no shell script is run, and sets variables by the command.
        hook(
            &agent_hooks,
            "pre-command",
            "#!/usr/bin/perl\nsystem('buildkite-agent', 'env', 'set', 'BY_PERL=yes') == 0 or exit 1;\n",
        )?;
        hook(
            &agent_hooks,
            "post-command",
            "#!/bin/sh\n[ -n \"$HOOK_TOKEN\" ] && [ $BUILDKITE_COMMAND_EXIT_STATUS = 0 ] && exit 0\nexit 9",
        )?;
        let repo =
            repository(world, "repo", &[(".buildkite/hooks/pre-command", "cd sub\n"), ("sub/script.sh", "echo no\n")])
                .await?;
        let fleet = fleet(world, &["--hooks-path", &agent_hooks.display().to_string()]).await?;
        let show = "echo \"[$ADDED] [${GIVEN-unset}] [${EMPTY-unset}] [${LOCAL-unset}] [$BY_PERL] $(basename $PWD)\"; \
                    echo \"$BUILDKITE_PLUGINS_PATH\"; echo $HOOK_TOKEN; buildkite-agent env get ADDED; git rev-parse HEAD; echo $BUILDKITE_COMMIT";
        let steps = [with(step("show", show), "env", json!({ "GIVEN": "x" })), step("script", "script.sh")];
        let build = finished(&fleet, pipeline(steps), &repo).await?;
        let log = fleet.log_of(&build, "show").await?;
        ensure!(build.state() == "passed", "{}\n{log}", build.brief());
        ensure!(log.contains("\n[two words] [unset] [] [unset] [yes] sub\n"), "{log}");
        ensure!(!log.contains("verysecretvalue"), "a secret of a hook is shown: {log}");
        ensure!(!log.contains("\n/elsewhere\n") && log.contains("BUILDKITE_PLUGINS_PATH is protected"), "{log}");
        ensure!(log.contains("\n[REDACTED]\ntwo words\n"), "{log}");
        let tail: Vec<&str> = log.lines().skip_while(|line| *line != "two words").skip(1).take(2).collect();
        ensure!(tail.len() == 2 && tail[0].len() == 40 && tail[0] == tail[1], "the commit is resolved: {tail:?}");
        ensure!(fleet.log_of(&build, "script").await?.contains("\nno\n"), "a script of the repository is run");
        Ok(())
    })
}

#[test]
fn plugins_bring_commands_and_settings_and_are_cloned_once() -> Result<()> {
    test(async |world| {
        let command = "echo \"runs for $BUILDKITE_PLUGIN_GREETER_NAMES_1 ${BUILDKITE_PLUGIN_GREETER_LOUD} $BUILDKITE_PLUGIN_NAME\"; \
                       echo \"$BUILDKITE_PLUGIN_CONFIGURATION\"; pwd >place; echo \"${0##*/}\"";
        let source = repository(world, "greeter-buildkite-plugin", &[("hooks/command", command)]).await?;
        let broken = world.path("none-buildkite-plugin");
        let fleet = fleet(world, &["--plugins-path", &world.path("plugins").display().to_string()]).await?;
        let config = json!({ "names": ["a", "b"], "loud": true });
        let plugins = |source: &Path| json!([{ format!("{}#v1", source.display()): config.clone() }]);
        let greet = |key: &str| json!({ "key": key, "label": key, "plugins": plugins(&source) });
        let steps = [
            greet("greet"),
            greet("again"),
            json!({ "key": "broken", "label": "broken", "plugins": plugins(&broken) }),
        ];
        let build = fleet.run(pipeline(steps)).await?;
        for key in ["greet", "again"] {
            let log = fleet.log_of(&build, key).await?;
            ensure!(build.job(key)?.state() == "passed", "{}\n{log}", build.brief());
            ensure!(log.contains("\nruns for b true GREETER\n{\"names\":[\"a\",\"b\"],\"loud\":true}\n"), "{log}");
            ensure!(headers(&log) == ["plugin greeter command"], "{log}");
        }
        ensure!(build.job("broken")?.cause() == "plugin_failed", "{}", build.brief());
        let kept =
            fs::read_dir(world.path("plugins"))?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
        let kept: Vec<String> = kept.collect::<Result<_>>()?;
        let kept: Vec<&String> = kept.iter().filter(|name| !name.starts_with('.')).collect();
        ensure!(kept.len() == 1 && kept[0].contains("greeter-buildkite-plugin-v1."), "{kept:?}");
        Ok(())
    })
}

#[test]
fn an_agent_that_refuses_plugins_and_local_hooks_runs_none() -> Result<()> {
    test(async |world| {
        let repo = repository(world, "repo", &[(".buildkite/hooks/pre-command", "echo reached\n")]).await?;
        let fleet = fleet(world, &["--no-local-hooks"]).await?;
        let plain = step("plain", "echo \"$BUILDKITE_LOCAL_HOOKS_ENABLED\"");
        let tries = with(step("tries", "true"), "env", json!({ "BUILDKITE_LOCAL_HOOKS_ENABLED": "true" }));
        let refused = with(step("refused", "true"), "plugins", json!(["./x"]));
        let build = finished(&fleet, pipeline([plain, tries, refused]), &repo).await?;
        ensure!(fleet.log_of(&build, "plain").await? == "false\n", "{}", fleet.log_of(&build, "plain").await?);
        ensure!(!fleet.log_of(&build, "tries").await?.contains("reached"), "a job turned its agent's hooks on");
        ensure!(build.job("refused")?.cause() == "refused_by_policy", "{}", build.brief());
        Ok(())
    })
}

#[test]
fn a_hook_of_the_agent_that_others_can_write_ends_every_job() -> Result<()> {
    test(async |world| {
        let agent_hooks = world.path("agent-hooks");
        hook(&agent_hooks, "environment", "echo hooked\n")?;
        let fleet = fleet(world, &["--hooks-path", &agent_hooks.display().to_string()]).await?;
        let build = fleet.run_to("passed", pipeline([step("before", "true")])).await?;
        ensure!(fleet.log_of(&build, "before").await?.contains("hooked"), "it runs");
        fs::set_permissions(agent_hooks.join("environment"), fs::Permissions::from_mode(0o777))?;
        let build = fleet.run_to("failed", pipeline([step("after", "echo reached")])).await?;
        let job = build.job("after")?;
        ensure!(job.cause() == "hook_failed" && job.exit_status().is_none(), "{}", build.brief());
        Ok(())
    })
}

#[test]
fn a_hostile_hook_of_a_repository_has_its_jobs_rights_and_no_more() -> Result<()> {
    if !is_root() {
        return skip("hostile_hook", "only root can give each slot a user of its own");
    }
    test(async |world| {
        let agent_hooks = world.path("agent-hooks");
        hook(&agent_hooks, "environment", "export FROM_AGENT=yes\n")?;
        let (go, plugins) = (world.path("go"), world.path("plugins"));
        let data = world.path("agent");
        let doors = data.join("work").join(".doors");
        let tries: BTreeMap<&str, String> = [
            ("the agent's hook", format!("echo evil >>{}/environment", agent_hooks.display())),
            ("another hook of the agent", format!("echo evil >{}/pre-exit", agent_hooks.display())),
            ("the agent's hooks", format!("mv {0} {0}.gone", agent_hooks.display())),
            ("a plugin", format!("touch {0}/*/hooks/x || touch {0}/x", plugins.display())),
            ("the in-job program", "cp /bin/true \"$BUILDKITE_BIN_PATH/windlass-bootstrap\"".to_owned()),
            ("its own plan", format!("echo evil >>{}/$WINDLASS_ATTEMPT_ID/plan", doors.display())),
            ("its own plan's place", format!("rm {}/$WINDLASS_ATTEMPT_ID/plan", doors.display())),
            ("other doors", format!("ls {}", doors.display())),
            ("another's plan", format!("cat {}/$(cat {}/id)/plan", doors.display(), world.path("told").display())),
            (
                "another's variables",
                format!(
                    "for n in 0 1 2 3; do s={}/slot-$n/job.sock; [ $s != $WINDLASS_JOB_SOCKET ] && \
                     WINDLASS_JOB_SOCKET=$s timeout 5 buildkite-agent env set EVIL=1 && exit 0; done; exit 1",
                    doors.display()
                ),
            ),
            ("another's bootstrap", "for p in /proc/[0-9]*; do grep -q windlass-bootstrap $p/cmdline && [ ! -O $p ] && cat $p/environ && exit 0; done; exit 1".to_owned()),
            ("the agent's jobs", format!("ls {}/jobs", data.display())),
        ]
        .into();
        let tries: String = tries
            .iter()
            .map(|(what, try_it)| format!("( {try_it} ) >/dev/null 2>&1 && echo \"reached: {what}\"\n"))
            .collect();
        // What it may: see that its own plan and the others' doors are where they are looked for.
        let control = format!(
            "[ -s {0}/$WINDLASS_ATTEMPT_ID/plan ] && [ -S {0}/slot-0/job.sock ] && echo control\n",
            doors.display()
        );
        let hostile = format!(
            "{control}{tries}echo \"hook user $(id -u)\"\necho tried all\nexport PATH=/evil:$PATH LD_PRELOAD=\n"
        );
        let repo = repository(world, "repo", &[(".buildkite/hooks/pre-command", hostile.as_str())]).await?;
        let told = world.shared_dir("told")?;
        let source = repository(world, "quiet-buildkite-plugin", &[("hooks/pre-exit", "true\n")]).await?;
        let more =
            ["--hooks-path", &agent_hooks.display().to_string(), "--plugins-path", &plugins.display().to_string()]
                .map(str::to_owned);
        let fleet = fleet(world, &more.each_ref().map(String::as_str)).await?;
        let wait = format!("echo $WINDLASS_ATTEMPT_ID >{}/id; {}", told.display(), until_exists(&go));
        let victim = with(
            step("victim", &format!("{wait}; buildkite-agent env get; env")),
            "plugins",
            json!([format!("{}#v1", source.display())]),
        );
        let victim = fleet.running(pipeline([victim]), "victim").await?;
        until("the victim's name", DEADLINE, async || {
            Ok(fs::metadata(told.join("id")).is_ok_and(|found| found.len() > 1).then_some(()))
        })
        .await?;
        let attack = finished(&fleet, pipeline([step("attack", "echo \"job user $(id -u)\"")]), &repo).await?;
        let log = fleet.log_of(&attack, "attack").await?;
        ensure!(log.contains("control\n") && log.contains("tried all"), "{}\n{log}", attack.brief());
        ensure!(!log.contains("reached:"), "{log}");
        let user = |of: &str| log.lines().find_map(|line| line.strip_prefix(&format!("{of} user ")).map(str::to_owned));
        ensure!(user("hook").is_some() && user("hook") == user("job") && user("hook").as_deref() != Some("0"), "{log}");
        fs::write(&go, "")?;
        let victim = fleet.client.ends(victim.id(), "passed", DEADLINE).await?;
        let log = fleet.log_of(&victim, "victim").await?;
        ensure!(log.contains("FROM_AGENT=yes") && !log.contains("EVIL"), "{log}");
        ensure!(
            fs::read_to_string(agent_hooks.join("environment"))? == "export FROM_AGENT=yes\n",
            "the hook was changed"
        );
        Ok(())
    })
}

#[test]
fn a_canceled_job_still_cleans_up() -> Result<()> {
    test(async |world| {
        let agent_hooks = world.path("agent-hooks");
        hook(&agent_hooks, "pre-exit", "echo \"cleaned up ${BUILDKITE_JOB_CANCELLED-}\"\n")?;
        let fleet = fleet(world, &["--hooks-path", &agent_hooks.display().to_string()]).await?;
        let build = fleet.running(pipeline([step("long", "echo begun; sleep 600 & wait")]), "long").await?;
        fleet.client.log_holds(build.attempt("long")?.id(), "begun\n", DEADLINE).await?;
        fleet.client.post(&format!("/builds/{}/cancel", build.id()), &json!({})).await?.status(200)?;
        let build = fleet.client.ends(build.id(), "canceled", DEADLINE).await?;
        let log = fleet.log_of(&build, "long").await?;
        ensure!(log.contains("\ncleaned up true\n"), "{log}");
        Ok(())
    })
}

#[test]
fn hooks_go_on_while_their_agent_is_restarted() -> Result<()> {
    test(async |world| {
        let agent_hooks = world.path("agent-hooks");
        hook(&agent_hooks, "pre-command", "export CARRIED=on\n")?;
        hook(&agent_hooks, "post-command", "echo \"after $CARRIED $BUILDKITE_COMMAND_EXIT_STATUS\"; exit 4\n")?;
        let mut fleet = fleet(world, &["--hooks-path", &agent_hooks.display().to_string()]).await?;
        let (go, pid) = (world.path("go"), world.shared_file("pid")?);
        let script = format!("echo $$ >{}; echo begun; {}", pid.display(), until_exists(&go));
        let build = fleet.running(pipeline([step("long", &script)]), "long").await?;
        fleet.client.log_holds(build.attempt("long")?.id(), "begun\n", DEADLINE).await?;
        fleet.agents[0].kill9().await?;
        // Its command ends while nobody is there to hear what the next hook changes.
        fs::write(&go, "")?;
        let command = Path::new("/proc").join(fs::read_to_string(&pid)?.trim());
        until("the command's end", DEADLINE, async || Ok((!command.exists()).then_some(()))).await?;
        fleet.agents[0].restart().await?;
        let build = fleet.client.ends(build.id(), "failed", DEADLINE).await?;
        let (job, log) = (build.job("long")?, fleet.log_of(&build, "long").await?);
        ensure!(log.contains("\nafter on 0\n"), "{log}");
        ensure!(job.exit_status() == Some(4) && job.cause() == "hook_failed", "{}", build.brief());
        Ok(())
    })
}

/// A step that shows what is there.
fn listing(key: &str, checkout: Value) -> Value {
    with(step(key, "ls; git log --oneline 2>/dev/null | wc -l; ls sub 2>/dev/null | wc -l"), "checkout", checkout)
}

#[test]
fn a_step_says_how_its_source_is_checked_out() -> Result<()> {
    test(async |world| {
        let inner = repository(world, "inner", &[("inside", "x\n")]).await?;
        let repo = repository(world, "repo", &[("file", "1\n"), ("dir/deep", "2\n")]).await?;
        git(&repo, "echo 2 >file; git commit -qam second; echo 3 >file; git commit -qam third").await?;
        let _ = inner;
        let checkout_hook = "echo by hook >hooked\n";
        let source = repository(world, "clone-buildkite-plugin", &[("hooks/checkout", checkout_hook)]).await?;
        let fleet = fleet(world, &["--git-mirrors-path", &world.path("mirrors").display().to_string()]).await?;
        let steps = [
            listing("plain", json!({})),
            listing("skip", json!({ "skip": true })),
            listing("deep", json!({ "depth": 2 })),
            listing("whole", json!({ "flags": { "fetch": "-v" } })),
            listing("sparse", json!({ "sparse": { "paths": ["dir"] } })),
            with(listing("hooked", json!({})), "plugins", json!([format!("{}#v1", source.display())])),
            with(listing("flags", json!({ "flags": { "checkout": "--no-such-flag" } })), "soft_fail", json!(true)),
        ];
        let build = finished(&fleet, pipeline(steps), &repo).await?;
        let mut seen = BTreeMap::new();
        for key in ["plain", "skip", "deep", "whole", "sparse", "hooked"] {
            let log = fleet.log_of(&build, key).await?;
            ensure!(build.job(key)?.state() == "passed", "{key}: {}\n{log}", build.brief());
            // What the command says is last, with nothing of ours after it.
            let lines: Vec<String> =
                log.lines().rev().take_while(|line| !line.starts_with("\x1b[90m")).map(str::to_owned).collect();
            seen.insert(key, lines.into_iter().rev().collect::<Vec<_>>().join(" "));
        }
        let wanted = BTreeMap::from([
            ("plain", "dir file 1 0"),
            ("skip", "0 0"),
            ("deep", "dir file 2 0"),
            ("whole", "dir file 3 0"),
            ("sparse", "dir 1 0"),
            ("hooked", "hooked 0 0"),
        ]);
        let seen: BTreeMap<_, _> = seen.iter().map(|(key, text)| (*key, text.as_str())).collect();
        ensure!(seen == wanted, "{seen:#?}");
        let flags = build.job("flags")?;
        ensure!(
            flags.cause() == "checkout_failed" && flags.exit_status().is_some_and(|status| status > 0),
            "{}",
            build.brief()
        );
        let mirrors =
            fs::read_dir(world.path("mirrors"))?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        ensure!(
            mirrors.filter(|name| name.ends_with(".git") && !name.starts_with('.')).count() == 1,
            "one mirror for one repository"
        );
        Ok(())
    })
}
