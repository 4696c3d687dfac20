//! Registered pipelines through the API, and builds of them.

use serde_json::{Value, json};
use windlass_coordinator_core::row::Scope;

use super::{Bench, ONE_STEP, text};

const PIPELINES: &str = "/api/v1/pipelines";

async fn patch(bench: &Bench, name: &str, body: Value) -> super::Answer {
    bench.call(&bench.admin, "PATCH", &format!("{PIPELINES}/{name}"), body.to_string()).await
}

#[tokio::test]
async fn a_registered_pipeline_is_shown_changed_and_listed_newest_first() {
    let bench = Bench::new().await;
    let body = json!({
        "name": "web", "repository": "https://git.example/web", "default_branch": "trunk", "description": "shop",
        "definition": ONE_STEP, "protected_refs": ["trunk", "refs/tags/v*"], "env": { "A": "1", "B": "2" },
        "timeout_in_minutes": 30,
    });
    let made = bench.post(PIPELINES, body).await.is(201).json();
    for (field, value) in [
        ("name", json!("web")),
        ("repository", json!("https://git.example/web")),
        ("default_branch", json!("trunk")),
        ("file", Value::Null),
        ("definition", json!(ONE_STEP)),
        ("protected_refs", json!(["trunk", "refs/tags/v*"])),
        ("env", json!({ "A": "1", "B": "2" })),
        ("timeout_in_minutes", json!(30)),
        ("created_by", json!({ "kind": "token", "name": "test" })),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    let change = json!({
        "definition": null, "file": "ci/pipeline.yml", "protected_refs": [], "env": { "A": null, "C": "3" },
        "timeout_in_minutes": null,
    });
    let changed = patch(&bench, "web", change).await.is(200).json();
    assert_eq!((&changed["definition"], &changed["definition_digest"]), (&Value::Null, &Value::Null));
    assert_eq!((&changed["file"], &changed["env"]), (&json!("ci/pipeline.yml"), &json!({ "B": "2", "C": "3" })));
    assert_eq!((&changed["protected_refs"], &changed["timeout_in_minutes"]), (&json!(["trunk"]), &Value::Null));
    assert_eq!(changed["repository"], made["repository"], "what was not said stays");
    assert_eq!(bench.get(&format!("{PIPELINES}/web")).await.is(200).json(), changed);
    bench.post(PIPELINES, json!({ "name": "api", "definition": ONE_STEP })).await.is(201);
    let list = bench.get(PIPELINES).await.is(200).json();
    let names: Vec<&str> = list["items"].as_array().unwrap().iter().map(|item| text(&item["name"])).collect();
    assert_eq!(names, ["api", "web"]);
    assert!(list["items"][0].get("definition").is_none() && list["items"][0]["definition_digest"].is_string());
    let audit = bench.get("/api/v1/audit").await.is(200).json();
    let done: Vec<_> = audit["items"].as_array().unwrap().iter().map(|line| text(&line["action"])).collect();
    assert!(done.starts_with(&["pipeline.create", "pipeline.update", "pipeline.create"]), "{done:?}");
}

#[tokio::test]
async fn what_cannot_be_said_of_a_pipeline_is_refused_with_its_place() {
    let bench = Bench::new().await;
    bench.post(PIPELINES, json!({ "name": "web" })).await.is(201);
    let again = bench.post(PIPELINES, json!({ "name": "web" })).await.is(409).json();
    assert_eq!(again["type"], "/problems/pipeline-exists");
    let broken = patch(&bench, "web", json!({ "definition": "steps:\n  - comand: make\n" })).await.is(422).json();
    assert_eq!((&broken["type"], &broken["errors"][0]["line"]), (&json!("/problems/pipeline-invalid"), &json!(2)));
    // What only a build can tell is let pass.
    patch(&bench, "web", json!({ "definition": "steps:\n  - command: ${X?}\n    if: build.branch == 'a'\n" }))
        .await
        .is(200);
    for (wrong, field) in [
        (json!({ "repository": "--upload-pack=x" }), "repository"),
        (json!({ "repository": "https://ada:secret@git.example/web" }), "repository"),
        (json!({ "protected_refs": ["!main"] }), "protected_refs"),
        (json!({ "protected_refs": ["a{"] }), "protected_refs"),
        (json!({ "file": "../x" }), "file"),
        (json!({ "env": { "A": 1 } }), "env"),
        (json!({ "env": { "A=": "1" } }), "env"),
        (json!({ "name": "other" }), "name"),
        (json!({ "reposytory": "x" }), "reposytory"),
    ] {
        let refused = patch(&bench, "web", wrong.clone()).await.is(422).json();
        assert!(text(&refused["detail"]).contains(field) && !text(&refused["detail"]).contains("secret"), "{refused}");
    }
    assert_eq!(patch(&bench, "none", json!({})).await.is(404).json()["type"], "/problems/not-found");
    bench.post(PIPELINES, json!({ "description": "nameless" })).await.is(422);
    bench.post(PIPELINES, json!({ "name": "a/b" })).await.is(422);
}

#[tokio::test]
async fn a_build_of_a_registered_pipeline_needs_nothing_but_its_name() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let definition = "steps:\n  - command: echo $FROM $BUILDKITE_PIPELINE_DEFAULT_BRANCH\n    key: one\n    \
                      if: build.branch == pipeline.default_branch\n";
    let body = json!({
        "name": "web", "repository": "https://git.example/web", "default_branch": "trunk", "definition": definition,
        "env": { "FROM": "registry" },
    });
    bench.post(PIPELINES, body).await.is(201);
    let build = bench.post("/api/v1/builds", json!({ "pipeline": "web" })).await.is(201).json();
    assert_eq!(
        build["origin"],
        json!({ "repository": "https://git.example/web", "commit": "HEAD", "branch": "trunk" })
    );
    assert_eq!((&build["branch"], &build["commit"]), (&json!("trunk"), &json!("HEAD")));
    let (_, job) = bench.offer().await;
    assert_eq!(job.command, "echo registry trunk", "the condition held, and both variables were known");
    // Another branch, whose condition does not hold; and what is sent goes before what is kept.
    let topic = bench.post("/api/v1/builds", json!({ "pipeline": "web", "branch": "topic" })).await.is(201).json();
    assert_eq!((&topic["jobs"][0]["state"], &topic["origin"]["branch"]), (&json!("broken"), &json!("topic")));
    let body = json!({ "pipeline": "web", "definition": "steps:\n  - command: own\n    key: own\n" });
    let own = bench.post("/api/v1/builds", body).await.is(201).json();
    assert_eq!(own["jobs"][0]["step_key"], "own");
    // Where it is not registered, it is as it was.
    let bare = bench.post("/api/v1/builds", json!({ "pipeline": "other" })).await.is(422).json();
    assert_eq!(bare["type"], "/problems/pipeline-invalid");
}

#[tokio::test]
async fn a_token_of_one_pipeline_sees_and_changes_that_one() {
    let bench = Bench::new().await;
    bench.post(PIPELINES, json!({ "name": "web" })).await.is(201);
    bench.post(PIPELINES, json!({ "name": "api" })).await.is(201);
    let own = bench.token(&[Scope::PipelinesWrite], Some("web"), None).await;
    let list = bench.call(&own, "GET", PIPELINES, "").await.is(200).json();
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["name"]), (1, &json!("web")));
    let change = json!({ "description": "mine" }).to_string();
    // What trusted builds run is not said by who may not make one.
    for taken in [
        json!({ "env": { "BASH_ENV": "/tmp/x" } }),
        json!({ "protected_refs": ["**"] }),
        json!({ "repository": "https://example.org/mine" }),
        json!({ "default_branch": "mine" }),
        json!({ "definition": super::ONE_STEP }),
        json!({ "file": "mine.yml" }),
    ] {
        let refused = bench.call(&own, "PATCH", "/api/v1/pipelines/web", taken.to_string()).await.is(403).json();
        assert!(refused["detail"].as_str().unwrap().contains("builds:trusted"), "{refused}");
    }
    bench.call(&own, "PATCH", "/api/v1/pipelines/web", change.clone()).await.is(200);
    bench.call(&own, "PATCH", "/api/v1/pipelines/api", change.clone()).await.is(403);
    bench.call(&own, "GET", "/api/v1/pipelines/api", "").await.is(404);
    bench.call(&own, "POST", PIPELINES, json!({ "name": "new" }).to_string()).await.is(403);
    let branch = bench.token(&[Scope::PipelinesWrite], None, Some("main")).await;
    bench.call(&branch, "PATCH", "/api/v1/pipelines/web", change).await.is(403);
}
