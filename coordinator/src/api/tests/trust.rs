//! Trust that is earned: by what the coordinator itself saw of a commit, never by what a client says of it.

use std::path::Path;

use serde_json::{Value, json};
use windlass_coordinator_core::row::Scope;

use super::builds::repository;
use super::{Answer, Bench, ONE_STEP, text};

/// A pipeline with a repository, and a client whose token is trusted in nothing.
struct World {
    bench: Bench,
    dir: tempfile::TempDir,
    repository: String,
    /// On `main`, which is protected.
    main: String,
    client: String,
}

impl World {
    async fn new() -> Self {
        let (bench, dir) = (Bench::new().await, tempfile::tempdir().unwrap());
        let (repository, main) = repository(&dir.path().join("web.git"), ONE_STEP);
        let refs = ["main", "release/*", "refs/tags/v*"];
        let body = json!({ "name": "web", "repository": repository, "protected_refs": refs });
        bench.post("/api/v1/pipelines", body).await.is(201);
        let client = bench.token(&[Scope::BuildsWrite], None, None).await;
        Self { bench, dir, repository, main, client }
    }

    fn sh(&self, script: &str) -> String {
        sh(&self.dir.path().join("web.git"), script)
    }

    /// Commits another pipeline here, gives the commit.
    fn commit(&self, text: &str) -> String {
        self.sh(&format!("printf '%s' '{text}' >buildkite.yml; git commit -q -a -m more; git rev-parse HEAD"))
    }

    async fn submit(&self, mut body: Value) -> Answer {
        body["pipeline"] = json!("web");
        self.bench.call(&self.client, "POST", "/api/v1/builds", body.to_string()).await.is(201)
    }

    #[track_caller]
    fn is_trusted(answer: &Answer) {
        let build = answer.json();
        assert_eq!((text(&build["namespace"]), answer.header("windlass-untrusted")), ("trusted", ""), "{build}");
        assert!(build["untrusted"].is_null(), "{build}");
    }

    #[track_caller]
    fn is_untrusted(answer: &Answer, why: &str) {
        let build = answer.json();
        assert!(text(&build["namespace"]).starts_with("token:"), "{build}");
        assert!(answer.header("windlass-untrusted").contains(why), "{}", answer.header("windlass-untrusted"));
        // It is kept with the build.
        let kept = text(&build["untrusted"]);
        assert!(!kept.is_empty() && kept.contains(answer.header("windlass-untrusted")), "{build}");
    }
}

fn sh(dir: &Path, script: &str) -> String {
    let identity = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    let mut command = std::process::Command::new("sh");
    command.args(["-ec", script]).current_dir(dir).envs(identity.map(|name| (name, "t@example.invalid")));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_commit_of_a_protected_ref_is_trusted_whoever_submits_it() {
    let world = World::new().await;
    world.sh("git tag v1; git branch release/1");
    for body in [
        json!({}),
        json!({ "branch": "main" }),
        json!({ "branch": "main", "commit": world.main }),
        json!({ "commit": world.main, "message": "the first" }),
        json!({ "branch": "release/1", "commit": world.main }),
        json!({ "branch": "main", "tag": "v1" }),
        json!({ "origin": { "repository": world.repository, "commit": world.main, "branch": "main" } }),
    ] {
        let answer = world.submit(body.clone()).await;
        World::is_trusted(&answer);
        assert_eq!(answer.json()["commit"], json!(world.main), "{body}");
    }
}

#[tokio::test]
async fn what_a_client_says_earns_nothing() {
    let world = World::new().await;
    world.sh("git tag v1; git checkout -q -b topic");
    let topic = world.commit("steps: [{ command: evil }]");
    let (other, elsewhere) = repository(&world.dir.path().join("other.git"), "steps: [{ command: evil }]");
    let main = &world.main;
    let origin = |branch: &str| json!({ "repository": world.repository, "commit": main, "branch": branch });
    for (body, why) in [
        // A forged branch, and a forged tag.
        (json!({ "branch": "main", "commit": topic }), "is not in refs/heads/main"),
        (json!({ "commit": topic }), "is not in refs/heads/main"),
        (json!({ "branch": "main", "tag": "v1", "commit": topic }), "is not in refs/tags/v1"),
        (json!({ "branch": "topic" }), "refs/heads/topic is not protected"),
        (json!({ "branch": "topic", "commit": main }), "refs/heads/topic is not protected"),
        // A verified commit under another branch's name.
        (json!({ "branch": "release/1", "origin": origin("main") }), "a branch that is not the origin's"),
        // What nobody has reviewed, beside a verified commit.
        (json!({ "branch": "main", "commit": main, "env": { "BASH_ENV": "evil" } }), "env"),
        (json!({ "branch": "main", "commit": main, "meta_data": { "k": "v" } }), "meta_data"),
        (json!({ "branch": "main", "commit": main, "message": "[deploy]" }), "a message"),
        (json!({ "branch": "main", "commit": main, "steps": { "keys": ["one"] } }), "steps"),
        // Another repository under the pipeline's name.
        (
            json!({ "branch": "main", "origin": { "repository": other, "commit": elsewhere, "branch": "main" } }),
            "not the one that the pipeline is registered with",
        ),
        // A definition beside a verified commit.
        (json!({ "branch": "main", "commit": main, "definition": "steps: [{ command: evil }]" }), ""),
        (json!({ "branch": "main", "definition": "steps: [{ command: evil }]", "origin": origin("main") }), ""),
    ] {
        World::is_untrusted(&world.submit(body).await, why);
    }
    let trusted = world.bench.token(&[Scope::BuildsTrusted], None, None).await;
    let body = json!({ "pipeline": "web", "branch": "main", "commit": topic }).to_string();
    let build = world.bench.call(&trusted, "POST", "/api/v1/builds", body).await.is(201).json();
    assert_eq!(build["namespace"], "trusted", "a token may say so");
}

#[tokio::test]
async fn a_pull_request_has_an_overlay_of_its_own() {
    let world = World::new().await;
    world.sh("git config uploadpack.allowAnySHA1InWant true; git checkout -q --detach");
    let evil = world.commit("steps: [{ command: evil }]");
    world.sh("git update-ref refs/pull/7/head HEAD; git checkout -q main");
    let pull = world.submit(json!({ "branch": "refs/pull/7/head" })).await.json();
    assert_eq!((&pull["namespace"], &pull["commit"]), (&json!("pr:7"), &json!(evil)));
    World::is_untrusted(&world.submit(json!({ "branch": "main", "commit": evil })).await, "is not in refs/heads/main");
    let more = json!({ "branch": "refs/pull/7/head", "env": { "A": "1" } });
    World::is_untrusted(&world.submit(more).await, "env");
}

#[tokio::test]
async fn what_was_verified_stays_so_and_is_looked_at_again_when_it_is_made_again() {
    let world = World::new().await;
    let bad = world.commit("steps: [{ command: bad }]");
    world.sh("git tag v1");
    let by_branch = world.submit(json!({ "branch": "main" })).await;
    let by_tag = world.submit(json!({ "tag": "v1", "branch": "v1" })).await;
    for answer in [&by_branch, &by_tag] {
        World::is_trusted(answer);
    }
    let rebuild = async |answer: &Answer| {
        let path = format!("/api/v1/builds/{}/rebuild", text(&answer.json()["id"]));
        world.bench.call(&world.client, "POST", &path, "").await.is(201)
    };
    World::is_trusted(&rebuild(&by_branch).await);
    world.sh("git config uploadpack.allowAnySHA1InWant true; git reset -q --hard HEAD~1; git tag -f v1");
    // Between verifying and running the ref moved: the build is what was verified.
    let path = format!("/api/v1/builds/{}", text(&by_branch.json()["id"]));
    let kept = world.bench.get(&path).await.is(200).json();
    assert_eq!((&kept["namespace"], &kept["commit"]), (&json!("trusted"), &json!(bad)));
    World::is_untrusted(&rebuild(&by_branch).await, "is not in refs/heads/main");
    World::is_untrusted(&rebuild(&by_tag).await, "is not in refs/");
    World::is_trusted(&world.submit(json!({ "branch": "main" })).await);
}
