//! Keys of steps out of real registries and repositories: what a tag names now, and what a commit holds.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use windlass_tests::kit::coordinator::CoordinatorOptions;
use windlass_tests::kit::engine::{IMAGE, answers, docker, import};
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::registry::ImageRegistry;
use windlass_tests::kit::repository::{git, repository};
use windlass_tests::kit::skip::skip;
use windlass_tests::kit::world::run;
use windlass_tests::kit::{Build, Coordinator, DEADLINE, Fleet, JoinToken, Submit, World, test, until};

/// A coordinator whose file says this, and the arguments.
async fn coordinator<'a>(world: &'a World, file: &str, more: &[&str]) -> Result<Coordinator<'a>> {
    let config = world.path("coordinator.toml");
    fs::write(&config, file)?;
    let config = config.display().to_string();
    let more = [&["--config", &config], more].concat().into_iter().map(str::to_owned).collect();
    Coordinator::start_with(world, CoordinatorOptions { more, ..CoordinatorOptions::default() }).await
}

async fn explained(fleet: &Fleet<'_>, build: &Build, key: &str) -> Result<Value> {
    let path = format!("/jobs/{}/reuse", build.job(key)?.id());
    fleet.client.get(&path).await?.status(200)?.json()
}

/// Runs a pipeline to its end, and says what became of the step's reuse.
async fn outcome(fleet: &Fleet<'_>, submit: &Submit) -> Result<(Build, Value)> {
    let build = fleet.client.submit(submit).await?;
    let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
    let told = explained(fleet, &build, "make").await?;
    Ok((build, told))
}

#[test]
fn another_image_under_the_same_tag_is_another_key_and_the_job_runs_the_one_that_was_keyed() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let registry = ImageRegistry::start(world).await?;
        let host = format!("127.0.0.1:{}", registry.port());
        let tag = format!("{host}/team/app:1");
        let fleet = coordinator(world, &format!("[reuse]\ninsecure_registries = [\"{host}\"]\n"), &[]).await?;
        let fleet = Fleet::around(world, fleet, &JoinToken::pool("local", &["default"]), 1).await?;
        let push = async |version: &str| {
            let dockerfile = format!("FROM {IMAGE}\nRUN echo {version} > /etc/version\nLABEL windlass-test=keyed\n");
            let mut build = Command::new("sh");
            let script = format!("printf '{dockerfile}' | docker build -q -t {tag} - && docker push -q {tag}");
            build.args(["-c", &script.replace('\n', "\\n")]);
            run("docker push", build, DEADLINE).await?.code(0)
        };
        let make =
            with(with(step("make", "cat /etc/version"), "image", json!(tag)), "reuse", json!({ "inputs": ["x"] }));
        let submit = Submit::text(pipeline([make]));
        push("one").await?;
        let (first, told) = outcome(&fleet, &submit).await?;
        ensure!(told["outcome"] == json!("miss"), "{told}");
        ensure!(fleet.log_of(&first, "make").await?.contains("one"), "the first image");
        let (_, told) = outcome(&fleet, &submit).await?;
        ensure!(told["outcome"] == json!("hit"), "{told}");
        push("two").await?;
        // A tag is believed for some seconds.
        let (third, told) = until("the other image", DEADLINE, async || {
            let (build, told) = outcome(&fleet, &submit).await?;
            Ok((told["outcome"] != json!("hit")).then_some((build, told)))
        })
        .await?;
        ensure!(told["outcome"] == json!("miss"), "{told}");
        ensure!(fleet.log_of(&third, "make").await?.contains("two"), "the image that was keyed runs");
        let differences = told["nearest"]["differences"].as_array().context("differences")?;
        let names: Vec<_> = differences.iter().map(|it| it["component"].clone()).collect();
        ensure!(names == [json!("image")], "{told}");
        docker(&["rmi", "--force", &tag]).await?;
        Ok(())
    })
}

#[test]
fn a_commit_that_changes_no_declared_file_runs_nothing_anew() -> Result<()> {
    test(async |world| {
        let repository = repository(world, "repository", &[("src/a", "a\n"), ("README", "r\n")]).await?;
        let head = async |script: &str| Ok::<_, anyhow::Error>(git(&repository, script).await?.trim().to_owned());
        let first = head("git rev-parse HEAD").await?;
        let coordinator = coordinator(world, "", &["--git-protocol", "file"]).await?;
        // Its agent could check nothing out: the files come out of the cache.
        let fleet = Fleet::around(world, coordinator, &JoinToken::pool("local", &["default"]), 1).await?;
        let place = repository.display().to_string();
        let new = json!({ "name": "web", "repository": place, "default_branch": "main" });
        fleet.client.post("/pipelines", &new).await?.status(201)?;
        let script = "test -x src/a && ! test -e README && ! test -e .git && cat src/a";
        let make = with(step("make", script), "reuse", json!({ "inputs": ["src/**"] }));
        let submit = |commit: &str| {
            let origin = json!({ "repository": place, "commit": commit, "branch": "main" });
            Submit::text(pipeline([make.clone()])).with("pipeline", json!("web")).origin(origin)
        };
        let (_, told) = outcome(&fleet, &submit(&first)).await?;
        ensure!(told["outcome"] == json!("miss") && told["kept"] == json!("stored"), "{told}");
        let second = head("echo more >README; git commit -qam two; git rev-parse HEAD").await?;
        let (_, told) = outcome(&fleet, &submit(&second)).await?;
        ensure!(told["outcome"] == json!("hit"), "{told}");
        let third = head("echo b >src/a; git commit -qam three; git rev-parse HEAD").await?;
        let (build, told) = outcome(&fleet, &submit(&third)).await?;
        ensure!(told["outcome"] == json!("miss"), "{told}");
        let component = &told["nearest"]["differences"][0]["component"];
        ensure!(*component == json!("file src/a"), "{told}");
        ensure!(fleet.log_of(&build, "make").await?.contains("b\n"), "the new file");
        Ok(())
    })
}
