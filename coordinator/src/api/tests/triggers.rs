//! Triggers and schedules through the API: definitions that the server keeps, and those in repositories.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use windlass_coordinator_core::row::Scope;

use super::{Bench, text};

const TRIGGER: &str = "steps:\n  - trigger: deploy\n    key: ship\n    build:\n      env: { WHERE: prod }\n      \
                       meta_data: { version: '7' }\n";

/// The build that the one job of a build made, once it is made.
async fn made(bench: &Bench, build: &str) -> Value {
    for _ in 0..400 {
        let shown = bench.get(&format!("/api/v1/builds/{build}")).await.is(200).json();
        let job = &shown["jobs"][0];
        assert!(job["cause"].is_null(), "{job}");
        if let Some(id) = job["triggered_build"]["id"].as_str() {
            return bench.get(&format!("/api/v1/builds/{id}")).await.is(200).json();
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("nothing was triggered");
}

#[tokio::test]
async fn a_trigger_runs_the_definition_that_the_server_keeps_and_the_page_says_what_is_waited_for() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let definition = "steps:\n  - command: echo $WHERE $FROM $BUILDKITE_TRIGGERED_FROM_BUILD_NUMBER\n    \
                      if: build.source == 'trigger_job' && build.number == 1\n";
    let body = json!({ "name": "deploy", "default_branch": "trunk", "definition": definition, "env": { "FROM": "r" } });
    bench.post("/api/v1/pipelines", body).await.is(201);
    let parent = bench.post("/api/v1/builds", json!({ "pipeline": "web", "definition": TRIGGER })).await.is(201).json();
    let id = text(&parent["id"]).to_owned();
    let child = made(&bench, &id).await;
    assert_eq!((&child["source"], &child["branch"], &child["number"]), (&json!("trigger"), &json!("trunk"), &json!(1)));
    assert_eq!(child["creator"], json!({ "kind": "build", "name": "web #1" }));
    assert_eq!((&child["meta_data"]["version"], &child["env"]), (&json!("7"), &json!({ "WHERE": "prod" })));
    let from = &child["triggered_from"];
    assert_eq!(
        (&from["build_id"], &from["pipeline"], &from["job_id"]),
        (&parent["id"], &json!("web"), &parent["jobs"][0]["id"])
    );
    let shown = bench.get(&format!("/api/v1/builds/{id}")).await.is(200).json();
    assert_eq!((&shown["jobs"][0]["state"], &shown["state"]), (&json!("running"), &json!("running")));
    assert_eq!(shown["jobs"][0]["waiting_for"], "build #1 of `deploy`");
    let job = text(&shown["jobs"][0]["id"]);
    let why = bench.get(&format!("/api/v1/jobs/{job}/why")).await.is(200).json();
    assert_eq!(why["kind"], "triggered");
    let (epoch, spec) = bench.offer().await;
    assert_eq!(spec.command, "echo prod r 1");
    bench.says(windlass_coordinator_core::input::AgentEvent::Accepted(spec.attempt, epoch)).await;
    bench.finish((spec.attempt, epoch), 0, b"").await;
    assert_eq!(bench.ended(&id).await["state"], "passed");
}

#[tokio::test]
async fn a_trigger_whose_pipeline_cannot_run_fails_with_the_cause_of_it() {
    let bench = Bench::new().await;
    bench.post("/api/v1/pipelines", json!({ "name": "empty" })).await.is(201);
    // Nothing was known of the build when it was checked; now something is missing.
    let open = "steps:\n  - command: ${NEEDED?}\n";
    bench.post("/api/v1/pipelines", json!({ "name": "open", "definition": open })).await.is(201);
    for (pipeline, kind, word) in [
        ("nowhere", "source_missing", "registered"),
        ("empty", "source_missing", "--definition"),
        ("open", "source_missing", "NEEDED"),
    ] {
        let definition = format!("steps:\n  - trigger: {pipeline}\n");
        let body = json!({ "pipeline": "web", "definition": definition });
        let build = bench.post("/api/v1/builds", body).await.is(201).json();
        let ended = bench.ended(text(&build["id"])).await;
        let cause = &ended["jobs"][0]["cause"];
        assert_eq!((&ended["state"], &cause["kind"]), (&json!("failed"), &json!(kind)), "{pipeline}");
        assert!(text(&cause["detail"]).contains(word), "{cause}");
    }
}

fn git(dir: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(arguments);
    assert!(command.output().unwrap().status.success(), "{arguments:?}");
}

#[tokio::test]
async fn a_triggers_build_is_read_from_its_repository_and_trusted_where_the_commit_is() {
    let bench = Bench::new().await;
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q", "-b", "trunk"]);
    std::fs::create_dir(dir.path().join(".windlass")).unwrap();
    std::fs::write(dir.path().join(".windlass/pipeline.yml"), "steps:\n  - command: make\n    key: from-git\n")
        .unwrap();
    git(dir.path(), &["add", "."]);
    git(dir.path(), &["commit", "-q", "-m", "one"]);
    git(dir.path(), &["branch", "topic"]);
    let repository = format!("file://{}", dir.path().display());
    let body = json!({ "name": "deploy", "repository": repository, "default_branch": "trunk" });
    bench.post("/api/v1/pipelines", body).await.is(201);
    for (branch, namespace) in [("trunk", Some("trusted")), ("topic", None)] {
        let definition = format!("steps:\n  - trigger: deploy\n    build: {{ branch: {branch} }}\n");
        let body = json!({ "pipeline": "web", "definition": definition });
        let build = bench.post("/api/v1/builds", body).await.is(201).json();
        let child = made(&bench, text(&build["id"])).await;
        assert_eq!(child["jobs"][0]["step_key"], "from-git");
        let commit = text(&child["commit"]);
        assert!(commit.len() == 40 && child["origin"]["commit"] == commit, "it is pinned: {child}");
        match namespace {
            Some(name) => assert_eq!(child["namespace"], name),
            None => assert_eq!(text(&child["namespace"]), format!("commit:{commit}")),
        }
    }
    // What an untrusted build triggers is not trusted, whatever it names.
    let token = bench.token(&[Scope::BuildsWrite], None, None).await;
    let body = json!({ "pipeline": "web", "definition": "steps:\n  - trigger: deploy\n" }).to_string();
    let build = bench.call(&token, "POST", "/api/v1/builds", body).await.is(201).json();
    let child = made(&bench, text(&build["id"])).await;
    assert!(text(&child["namespace"]).starts_with("trigger:web/token:"), "{child}");
    // A branch that is not there.
    let definition = "steps:\n  - trigger: deploy\n    build: { branch: gone }\n";
    let build =
        bench.post("/api/v1/builds", json!({ "pipeline": "web", "definition": definition })).await.is(201).json();
    let ended = bench.ended(text(&build["id"])).await;
    assert_eq!(ended["jobs"][0]["cause"]["kind"], "source_missing", "{ended}");
}

#[tokio::test]
async fn schedules_are_made_listed_and_taken_away() {
    let bench = Bench::new().await;
    let path = "/api/v1/pipelines/nightly/schedules";
    bench.post(path, json!({ "cron": "@daily" })).await.is(404);
    bench.post("/api/v1/pipelines", json!({ "name": "nightly" })).await.is(201);
    let body = json!({
        "cron": "30 2 * * *", "timezone": "Europe/Berlin", "branch": "main", "message": "night", "env": { "A": "1" },
    });
    let made = bench.post(path, body).await.is(201).json();
    for (field, value) in [
        ("pipeline", json!("nightly")),
        ("cron", json!("30 2 * * *")),
        ("timezone", json!("Europe/Berlin")),
        ("branch", json!("main")),
        ("commit", json!("HEAD")),
        ("message", json!("night")),
        ("env", json!({ "A": "1" })),
        ("last", Value::Null),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    assert!(text(&made["next_at"]).ends_with(":30:00.000Z"), "{made}");
    let other = bench.post(path, json!({ "cron": "@daily" })).await.is(201).json();
    assert_eq!((&other["timezone"], &other["message"]), (&json!("UTC"), &json!("scheduled: @daily")));
    let list = bench.get(path).await.is(200).json();
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["id"]), (2, &other["id"]));
    for (wrong, field) in [
        (json!({ "cron": "* * * *" }), "five fields"),
        (json!({ "cron": "@daily", "timezone": "Mars/Olympus" }), "time zone"),
        (json!({ "cron": "0 0 31 2 *" }), "never comes"),
        (json!({ "cron": "@daily", "env": { "A": 1 } }), "env.A"),
        (json!({ "timezone": "UTC" }), "cron"),
    ] {
        let refused = bench.post(path, wrong).await.is(422).json();
        assert!(text(&refused["detail"]).contains(field), "{refused}");
    }
    let one = format!("{path}/{}", text(&made["id"]));
    bench.call(&bench.admin, "DELETE", &one, "").await.is(204);
    bench.call(&bench.admin, "DELETE", &one, "").await.is(404);
    let elsewhere = format!("/api/v1/pipelines/other/schedules/{}", text(&other["id"]));
    bench.call(&bench.admin, "DELETE", &elsewhere, "").await.is(404);
    assert_eq!(bench.get(path).await.is(200).json()["items"].as_array().unwrap().len(), 1);
}
