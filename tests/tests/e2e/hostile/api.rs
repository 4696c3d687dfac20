//! By the API: what a token that makes no trusted builds says to one, and of itself.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_protocol::Digest;
use windlass_tests::kit::pipeline::{pipeline, step, until_exists};
use windlass_tests::kit::repository::git;
use windlass_tests::kit::{DEADLINE, Submit, test};

use super::ground::{Ground, TRUSTED, put, said};

/// Requests that would change what the build runs or knows, or who is trusted.
fn attacks(build: &str, job: &str, attempt: &str, digest: &Digest) -> Vec<(&'static str, String, Value)> {
    let uuid = "0190c1f0-7a3b-7c1d-8e2f-0123456789ab";
    let evil = "steps: [{ command: echo evil }]";
    vec![
        ("POST", format!("/attempts/{attempt}/pipeline"), json!({ "id": uuid, "definition": evil })),
        ("POST", format!("/attempts/{attempt}/pipeline"), json!({ "id": uuid, "definition": evil, "replace": true })),
        ("PUT", format!("/builds/{build}/meta-data"), json!({ "k": "evil" })),
        ("PUT", format!("/builds/{build}/artifacts?path=out.txt&bytes=6&digest={digest}"), json!("evil")),
        ("POST", format!("/uploads?build={build}"), json!({ "digest": digest, "bytes": 1_000_000 })),
        ("POST", format!("/jobs/{job}/unblock"), json!({ "fields": { "k": "evil" } })),
        ("POST", "/secrets".to_owned(), json!({ "key": "K", "value": "evil" })),
        ("POST", "/pipelines".to_owned(), json!({ "name": "evil", "definition": evil })),
        ("PATCH", "/pipelines/web".to_owned(), json!({ "protected_refs": ["*"] })),
        ("POST", "/pipelines/web/schedules".to_owned(), json!({ "cron": "* * * * *" })),
        ("POST", "/tokens".to_owned(), json!({ "kind": "api", "scopes": ["builds:trusted"] })),
        ("POST", "/tokens".to_owned(), json!({ "kind": "join", "pool": "local" })),
        ("POST", "/agents/drain".to_owned(), json!({})),
        ("POST", "/cache/verify".to_owned(), json!(null)),
        ("GET", "/cache/stats".to_owned(), json!(null)),
        ("GET", "/audit".to_owned(), json!(null)),
        ("GET", "/secrets".to_owned(), json!(null)),
        ("PUT", format!("/blobs/b3/{}?project=vault", digest.to_hex()), json!("evil")),
        ("POST", "/blobs/pack?project=vault".to_owned(), json!("evil")),
    ]
}

#[test]
fn a_stranger_s_token_changes_nothing_that_a_trusted_build_runs_or_knows() -> Result<()> {
    test(async |world| {
        let ground = Ground::start(world).await?;
        let before = ground.trusted().await?;
        let go = world.path("go");
        let script =
            format!("windlass meta-data set k good; {}; echo \"said: $(windlass meta-data get k)\"", until_exists(&go));
        let held = ground.own([step("held", &script)]).await?;
        let running =
            |build: &windlass_tests::kit::Build| build.job_is("held", "running") && build.0["meta_data"]["k"] == "good";
        let held = ground.fleet.client.wait(held.id(), "it runs", DEADLINE, running).await?;
        let evil = json!("evil").to_string().into_bytes();
        let digest = Digest::of(&evil);
        let (job, attempt) = (held.job("held")?, held.attempt("held")?);
        for (method, path, body) in attacks(held.id(), job.id(), attempt.id(), &digest) {
            let answer = ground.stranger.call(method, &path, body.to_string().into_bytes()).await?;
            ensure!(answer.status == 403, "{method} {path}: status {} {:?}", answer.status, answer.json());
            answer.problem()?;
        }
        // What it may put is its own: whoever is trusted does not see it.
        ensure!(put(&ground.stranger, "web", &evil).await? == digest);
        let path = format!("/blobs/b3/{}?project=web", digest.to_hex());
        ensure!(ground.stranger.get(&path).await?.status == 200 && ground.fleet.client.get(&path).await?.status == 404);
        lies(&ground).await?;
        fs::write(&go, "")?;
        let held = ground.fleet.client.ends(held.id(), "passed", DEADLINE).await?;
        ground.ran_on(&held, TRUSTED)?;
        ensure!(held.jobs().len() == 1 && held.0["meta_data"] == json!({ "k": "good" }), "{}", held.0);
        ensure!(said(&ground.fleet.log_of(&held, "held").await?) == "good\n", "it was told or given something else");
        ensure!(ground.trusted().await? == before, "a trusted build came to something else");
        Ok(())
    })
}

/// What a stranger says of a build is not believed: none of these is trusted, nor runs where trusted ones do.
async fn lies(ground: &Ground<'_>) -> Result<()> {
    let evil =
        "git checkout -q --detach; echo evil >content; git commit -qam evil; git rev-parse HEAD; git checkout -q main";
    let evil = git(&ground.repository, evil).await?.trim().to_owned();
    let repository = ground.repository.display().to_string();
    let origin = json!({ "repository": repository, "commit": evil, "branch": "main" });
    let own = pipeline([step("evil", "echo evil; false")]);
    for (what, said) in [
        ("a branch", json!({ "branch": "main", "commit": evil })),
        ("a tag", json!({ "branch": "main", "tag": "v1", "commit": evil })),
        ("a tag as a branch", json!({ "branch": "v1", "tag": "v1", "commit": evil })),
        ("an origin", json!({ "branch": "main", "origin": origin })),
        ("variables", json!({ "branch": "main", "env": { "BASH_ENV": "/tmp/evil" } })),
        ("meta-data", json!({ "branch": "main", "meta_data": { "k": "evil" } })),
        ("a message", json!({ "branch": "main", "message": "[evil]" })),
        ("a definition", json!({ "branch": "main", "definition": own })),
    ] {
        let mut submit = Submit::registered("web");
        for (name, value) in said.as_object().context("fields")? {
            submit = submit.with(name, value.clone());
        }
        let build = ground.stranger.submit(&submit).await?;
        ensure!(build.0["namespace"] != "trusted", "{what}: {}", build.0);
        ground.stranger.post(&format!("/builds/{}/cancel", build.id()), &json!({})).await?.status(200)?;
        let build = ground.fleet.client.finished(build.id(), DEADLINE).await?;
        for attempt in build.jobs().iter().flat_map(windlass_tests::kit::Job::attempts) {
            ensure!(attempt.agent() != TRUSTED, "{what}: it ran on {}", attempt.agent());
        }
    }
    Ok(())
}
