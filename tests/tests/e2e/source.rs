//! What a build runs on: a directory as it is, a commit of a repository.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::process::Command;
use windlass_tests::kit::git::GitServer;
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::world::run;
use windlass_tests::kit::{Agent, AgentOptions, DEADLINE, Fleet, JoinToken, Submit, World, test};

const RUN: Duration = Duration::from_secs(90);

/// Prints names, kinds, executable bits, link targets and contents, in bytewise order.
const LIST: &str = "find . -mindepth 1 -not -path './.windlass*' -print0 | LC_ALL=C sort -z | while IFS= read -r -d '' f; do \
    if [ -L \"$f\" ]; then printf 'link %q -> %q\\n' \"$f\" \"$(readlink \"$f\")\"; \
    elif [ -d \"$f\" ]; then printf 'dir %q\\n' \"$f\"; \
    elif [ -x \"$f\" ]; then printf 'program %q %s\\n' \"$f\" \"$(b2sum <\"$f\" | cut -c1-16)\"; \
    else printf 'file %q %s\\n' \"$f\" \"$(b2sum <\"$f\" | cut -c1-16)\"; fi; done";

fn odd_tree(dir: &Path) -> Result<()> {
    for sub in ["empty", "deep/er/still", ".hidden", ".windlass"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    for (name, text) in [
        ("plain", "plain\n"),
        ("with space", "a"),
        ("new\nline", "b"),
        ("-dash", "c"),
        ("ünï-☃", "d"),
        ("quote'\"$`\\", "e"),
        ("deep/er/still/file", ""),
        (".hidden/x", "f"),
        ("tool", "#!/bin/sh\necho runs\n"),
    ] {
        fs::write(dir.join(name), text)?;
    }
    let latin = std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9");
    fs::write(dir.join::<&std::ffi::OsStr>(latin), "g")?;
    fs::write(dir.join("large"), windlass_tests::kit::chaos::Dice::new(9).bytes(300_000))?;
    fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o755))?;
    symlink("plain", dir.join("to-plain"))?;
    symlink("deep/er", dir.join("to-dir"))?;
    symlink("nowhere at all", dir.join("dangling"))?;
    Ok(())
}

async fn listed(dir: &Path) -> Result<String> {
    let mut bash = Command::new("bash");
    bash.args(["-e", "-c", LIST]).current_dir(dir).env("LANG", "C.UTF-8").env_remove("LC_ALL");
    Ok(run("bash", bash, DEADLINE).await?.code(0)?.stdout)
}

#[test]
fn a_directory_arrives_as_it_is_but_for_what_git_ignores() -> Result<()> {
    test(async |world| {
        let dir = world.path("odd");
        fs::create_dir(&dir)?;
        odd_tree(&dir)?;
        let list = json!({ "steps": [{ "key": "list", "command": LIST.replace('$', "$$") }] });
        fs::write(dir.join(".windlass/pipeline.yml"), list.to_string())?;
        fs::write(dir.join(".gitignore"), "ignored*\n")?;
        let wanted = listed(&dir).await?;
        ensure!(wanted.lines().count() > 18, "{wanted}");
        fs::write(dir.join("ignored.log"), "not to be sent")?;
        fs::create_dir(dir.join("ignored-dir"))?;
        fs::write(dir.join("ignored-dir/x"), "nor this")?;
        let ran = world.run(["run".as_ref(), dir.as_os_str(), "--json".as_ref()], RUN).await?.code(0)?;
        let mut log = String::new();
        for line in ran.stdout.lines() {
            let event: serde_json::Value = serde_json::from_str(line)?;
            log.push_str(event["text"].as_str().unwrap_or_default());
        }
        ensure!(log == wanted, "arrived:\n{log}\nsent:\n{wanted}");
        Ok(())
    })
}

async fn git(world: &World, dir: &Path, arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(dir).args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]);
    git.args(arguments);
    let home = world.path("home");
    git.env_clear().env("PATH", std::env::var("PATH")?).env("HOME", home);
    Ok(run("git", git, DEADLINE).await?.code(0)?.stdout.trim().to_owned())
}

#[test]
fn a_commit_of_a_repository_is_checked_out() -> Result<()> {
    test(async |world| {
        let (work, bare) = (world.path("work"), world.path("bare.git"));
        fs::create_dir(&work)?;
        git(world, &work, &["init", "-q"]).await?;
        fs::write(work.join("file"), "first\n")?;
        git(world, &work, &["add", "."]).await?;
        git(world, &work, &["commit", "-q", "-m", "first"]).await?;
        let first = git(world, &work, &["rev-parse", "HEAD"]).await?;
        fs::write(work.join("file"), "second\n")?;
        git(world, &work, &["commit", "-q", "-a", "-m", "second"]).await?;
        git(world, world.root(), &["clone", "-q", "--bare", "work", "bare.git"]).await?;
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 0).await?;
        // A second one, of another queue, fetches by what agents fetch by where nobody says otherwise.
        let usual = fleet.client.join_token(&JoinToken::pool("usual", &["usual"]).zone("local")).await?;
        for (name, token, protocols) in [("files", &fleet.join_token, Some("https,file")), ("usual", &usual, None)] {
            let mut options = AgentOptions::new(name, fleet.coordinator.address(), token);
            options.more = protocols.into_iter().flat_map(|it| ["--git-protocol".to_owned(), it.to_owned()]).collect();
            fleet.agents.push(Agent::start(world, options)?);
        }
        for agent in &fleet.agents {
            agent.in_state(&fleet.client, "online").await?;
        }
        let submit = |commit: &str| {
            let origin = json!({ "repository": bare.display().to_string(), "commit": commit, "branch": "main" });
            Submit::text(pipeline([step("show", "cat file; git rev-parse HEAD")])).origin(origin)
        };
        let build = fleet.client.submit(&submit(&first)).await?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        ensure!(fleet.log_of(&build, "show").await? == format!("first\n{first}\n"), "another commit was checked out");
        let build = fleet.client.submit(&submit("HEAD")).await?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        ensure!(fleet.log_of(&build, "show").await?.starts_with("second\n"), "the branch's head is another");
        let absent = fleet.client.submit(&submit(&"0123456789abcdef".repeat(3)[..40])).await?;
        let absent = fleet.client.finished(absent.id(), DEADLINE).await?;
        ensure!(absent.state() == "failed" && absent.job("show")?.cause() == "checkout_failed", "{}", absent.brief());
        let elsewhere = with(step("never", "true"), "agents", json!({ "queue": "usual" }));
        let origin = json!({ "repository": bare.display().to_string(), "commit": first, "branch": "main" });
        let refused = fleet.client.submit(&Submit::text(pipeline([elsewhere])).origin(origin)).await?;
        let refused = fleet.client.finished(refused.id(), DEADLINE).await?;
        let job = refused.job("never")?;
        ensure!(refused.state() == "failed" && job.cause() == "refused_by_policy", "{}", refused.brief());
        ensure!(refused.0.to_string().contains("--git-protocol"), "no hint: {}", refused.0);
        Ok(())
    })
}

/// The password of the private server, with characters that a URL has to encode.
const PASSWORD: &str = "s3cret/of@the-agent";

#[test]
fn a_private_repository_is_checked_out_with_the_agents_credential_which_no_job_gets() -> Result<()> {
    test(async |world| {
        let work = world.path("work");
        fs::create_dir_all(world.path("served"))?;
        fs::create_dir(&work)?;
        git(world, &work, &["init", "-q"]).await?;
        fs::write(work.join("file"), "private\n")?;
        git(world, &work, &["add", "."]).await?;
        git(world, &work, &["commit", "-q", "-m", "first"]).await?;
        let commit = git(world, &work, &["rev-parse", "HEAD"]).await?;
        git(world, world.root(), &["clone", "-q", "--bare", "work", "served/private.git"]).await?;
        // `ci:` and the password, as HTTP's basic authentication has it.
        let server = GitServer::start(&world.path("served"), "Basic Y2k6czNjcmV0L29mQHRoZS1hZ2VudA==").await?;
        let credentials = |name: &str, password: &str| -> Result<String> {
            let path = world.path(name);
            fs::write(&path, format!("http://ci:{password}@{}\n", server.address()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Ok(path.display().to_string())
        };
        let (right, wrong) =
            (credentials("right", "s3cret%2Fof%40the-agent")?, credentials("wrong", "wr0ng-passw0rd")?);
        let mut fleet = Fleet::of(world, &JoinToken::pool("local", &["default"]), 0).await?;
        for (name, queue, file) in [("with", "default", &right), ("without", "elsewhere", &wrong)] {
            let token = fleet.client.join_token(&JoinToken::pool(queue, &[queue]).zone("local")).await;
            let token = if queue == "default" { fleet.join_token.clone() } else { token? };
            let mut options = AgentOptions::new(name, fleet.coordinator.address(), &token);
            options.more = ["--git-credentials", file, "--git-protocol", "http"].map(str::to_owned).to_vec();
            fleet.agents.push(Agent::start(world, options)?);
        }
        for agent in &fleet.agents {
            agent.in_state(&fleet.client, "online").await?;
        }
        // What a curious job looks at: the file, its own git, the checkout, and everybody's environment.
        let looks = format!(
            "set +e; cat file; git rev-parse HEAD; cat '{right}' 2>&1; GIT_TERMINAL_PROMPT=0 git fetch origin 2>&1; \
             printf 'protocol=http\\nhost={}\\n\\n' | GIT_TERMINAL_PROMPT=0 git credential fill 2>&1; \
             cat .git/config; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; env; true",
            server.address()
        );
        let submit = |step: serde_json::Value| {
            let origin = json!({ "repository": server.url("private.git"), "commit": commit, "branch": "main" });
            Submit::text(pipeline([step])).origin(origin)
        };
        let build = fleet.client.submit(&submit(step("looks", &looks))).await?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let said = fleet.log_of(&build, "looks").await?;
        ensure!(said.starts_with(&format!("private\n{commit}\n")), "{said}");
        let secrets = [PASSWORD, "s3cret%2Fof%40the-agent", "Y2k6czNjcmV0L29mQHRoZS1hZ2VudA=="];
        ensure!(!secrets.iter().any(|secret| said.contains(secret)), "the job found the credential: {said}");
        if windlass_tests::kit::skip::is_root() {
            ensure!(said.contains("Permission denied"), "{said}");
        }
        let before = server.refused();
        let elsewhere = with(step("never", "true"), "agents", json!({ "queue": "elsewhere" }));
        let failed = fleet.client.submit(&submit(elsewhere)).await?;
        let failed = fleet.client.finished(failed.id(), DEADLINE).await?;
        let job = failed.job("never")?;
        ensure!(failed.state() == "failed" && job.cause() == "checkout_failed", "{}", failed.brief());
        ensure!(server.refused() > before, "the server was not asked");
        let shown = fleet.client.get(&format!("/builds/{}", failed.id())).await?.status(200)?.body;
        let shown = String::from_utf8_lossy(&shown).into_owned();
        ensure!(!shown.contains("wr0ng-passw0rd") && shown.contains("private.git"), "{shown}");
        ensure!(fs::read_to_string(&wrong)?.contains("wr0ng-passw0rd"), "git has changed the agent's file");
        Ok(())
    })
}

#[test]
fn a_build_of_a_tree_that_is_not_there_fails_with_its_cause_or_is_refused() -> Result<()> {
    test(async |world| {
        let fleet = Fleet::start(world).await?;
        let absent = windlass_protocol::Digest::of(b"nobody ever brought this").to_string();
        let submit = Submit::text(pipeline([step("never", "true")])).origin(json!({ "tree": absent }));
        let answer = fleet.client.try_submit(&submit).await?;
        if answer.status != 201 {
            ensure!(answer.status == 422 || answer.status == 404, "status {}", answer.status);
            answer.problem()?;
            return Ok(());
        }
        let id = answer.json()?["id"].as_str().context("an id")?.to_owned();
        let build = fleet.client.finished(&id, DEADLINE).await?;
        ensure!(build.state() == "failed" && build.job("never")?.cause() == "source_missing", "{}", build.brief());
        Ok(())
    })
}
