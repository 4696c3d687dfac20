//! By what is built: commits of the same repository, and builds that a build makes.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::repository::git;
use windlass_tests::kit::{Build, DEADLINE, Submit, test};

use super::ground::{Ground, TRUSTED, WILD};

/// A pull request that changes everything it can: files, hooks, what git does at a checkout, and what is run.
async fn pull_request(ground: &Ground<'_>) -> Result<String> {
    let text = pipeline([step(
        "evil",
        "cat content; git rev-parse HEAD; echo evil > .git/evil; git config core.hooksPath /tmp; \
         git update-ref refs/heads/main HEAD 2>&1 || true; git push --force origin HEAD:main 2>&1 || echo not pushed",
    )]);
    let script = format!(
        "git checkout -q --detach; echo evil >content; printf '%s' '{text}' >.windlass/pipeline.yml; mkdir -p .windlass/hooks; \
         printf 'echo evil hook\\n' >.windlass/hooks/pre-command; chmod +x .windlass/hooks/pre-command; \
         echo '* filter=evil' >.gitattributes; git add -A; git commit -qm evil; git update-ref refs/pull/7/head HEAD; \
         git rev-parse HEAD; git checkout -q main"
    );
    Ok(git(&ground.repository, &script).await?.trim().to_owned())
}

#[test]
fn a_pull_request_changes_no_checkout_of_a_trusted_build() -> Result<()> {
    test(async |world| {
        let ground = Ground::start(world).await?;
        let before = ground.trusted().await?;
        ensure!(before.log.starts_with("good at "), "{before:?}");
        let evil = pull_request(&ground).await?;
        let pull = ground.stranger.submit(&Submit::registered("web").with("branch", json!("refs/pull/7/head"))).await?;
        ensure!(pull.0["namespace"] == "pr:7" && pull.0["commit"] == json!(evil), "{}", pull.0);
        let pull = ground.fleet.client.finished(pull.id(), DEADLINE).await?;
        ground.ran_on(&pull, WILD)?;
        let log = ground.fleet.log_of(&pull, "evil").await?;
        ensure!(log.contains("evil\n") && log.contains(&evil), "it did run: {log}");
        // Whose branch it is, is not for a job to say.
        ensure!(git(&ground.repository, "git rev-parse main").await?.trim() != evil, "it moved main: {log}");
        ensure!(ground.trusted().await? == before, "main is built of something else");
        // The head of its own ref under the name of the protected one.
        let forged = ground.stranger.submit(&Submit::registered("web").with("commit", json!(evil))).await?;
        ensure!(forged.0["namespace"] != "trusted", "{}", forged.0);
        ground.fleet.client.finished(forged.id(), DEADLINE).await?;
        ensure!(ground.trusted().await? == before, "main is built of something else");
        Ok(())
    })
}

async fn triggered(ground: &Ground<'_>, build: &Build) -> Result<Build> {
    let client = &ground.fleet.client;
    let build = client.finished(build.id(), DEADLINE).await?;
    let id = build.job("ship")?.0["triggered_build"]["id"]
        .as_str()
        .with_context(|| format!("nothing was triggered: {}", build.0))?
        .to_owned();
    client.finished(&id, DEADLINE).await
}

#[test]
fn what_a_pull_request_triggers_is_as_little_trusted_as_itself() -> Result<()> {
    test(async |world| {
        let ground = Ground::start(world).await?;
        let before = ground.trusted().await?;
        let deploy = pipeline([step("deploy", "echo deploys $WHAT")]);
        ground
            .fleet
            .client
            .post("/pipelines", &json!({ "name": "deploy", "definition": deploy }))
            .await?
            .status(201)?;
        let ship = |pipeline: &str| json!({ "trigger": pipeline, "key": "ship", "build": { "env": { "WHAT": "evil" }, "branch": "main" } });
        // Whose token is for one pipeline triggers no other one.
        let refused = ground.hostile([ship("deploy")]).await?;
        let refused = ground.fleet.client.ends(refused.id(), "failed", DEADLINE).await?;
        ensure!(refused.job("ship")?.cause() == "refused_by_policy", "{}", refused.brief());
        let free = ground.fleet.client.api_token(&["builds:write"], &json!({})).await?;
        let free = ground.fleet.client.token(free["token"].as_str());
        let submit = Submit::text(pipeline([ship("deploy")])).with("pipeline", json!("web"));
        for home in [ground.hostile([ship("web")]).await?, free.submit(&submit).await?] {
            let made = triggered(&ground, &home).await?;
            ensure!(made.0["namespace"] != "trusted" && made.0["source"] == "trigger", "{}", made.0);
            ground.ran_on(&made, WILD)?;
        }
        let made = triggered(&ground, &ground.own([ship("deploy")]).await?).await?;
        ensure!(made.0["namespace"] == "trusted" && made.state() == "passed", "one that may: {}", made.0);
        ground.ran_on(&made, TRUSTED)?;
        ensure!(ground.trusted().await? == before, "main is built of something else");
        Ok(())
    })
}
