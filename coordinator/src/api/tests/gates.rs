//! Gates over HTTP: what is asked is shown, answers are taken or refused with their field, and the build goes on.

use serde_json::json;
use windlass_coordinator_core::row::Scope;

use super::{Bench, text};

const GATED: &str = r#"
steps:
  - block: Release?
    key: gate
    blocked_state: failed
    fields:
      - text: Version
        key: version
        format: "v[0-9]+"
      - select: Where
        key: where
        multiple: true
        options:
          - { label: Here, value: here }
          - { label: There, value: there }
  - command: make
    key: one
"#;

async fn submitted(bench: &Bench, definition: &str) -> serde_json::Value {
    let body = json!({ "pipeline": "web", "definition": definition });
    bench.post("/api/v1/builds", body).await.is(201).json()
}

#[tokio::test]
async fn a_build_waits_at_its_gate_until_it_is_opened_with_answers() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let build = submitted(&bench, GATED).await;
    assert_eq!((&build["state"], &build["blocked"]), (&json!("failed"), &json!(true)));
    let gate = &build["jobs"][0];
    assert_eq!((&gate["type"], &gate["state"]), (&json!("block"), &json!("blocked")));
    assert_eq!(gate["gate"]["fields"][0]["key"], "version");
    let listed = bench.get("/api/v1/builds?state=blocked").await.is(200).json();
    assert_eq!(listed["items"][0]["id"], build["id"]);
    let path = format!("/api/v1/jobs/{}/unblock", text(&gate["id"]));
    let wrong = bench.post(&path, json!({ "fields": { "version": "7", "where": "here" } })).await.is(422).json();
    assert_eq!(wrong["errors"][0]["field"], "version", "{wrong}");
    let body = json!({ "fields": { "version": "v7", "where": ["there", "here"] } });
    let opened = bench.post(&path, body.clone()).await.is(200).json();
    assert_eq!(opened["state"], "unblocked");
    assert_eq!(opened["unblocked"]["fields"], json!({ "version": "v7", "where": "here\nthere" }));
    assert_eq!(opened["unblocked"]["by"]["kind"], "token");
    assert!(opened["unblocked"]["at"].is_string());
    bench.post(&path, body).await.is(409);
    bench.run(0, b"").await;
    let build = bench.ended(text(&build["id"])).await;
    assert_eq!((&build["state"], &build["blocked"]), (&json!("passed"), &json!(false)));
    assert_eq!(build["meta_data"]["version"], "v7");
    assert_eq!(bench.get("/api/v1/builds?state=blocked").await.is(200).json()["items"], json!([]));
    let audit = bench.get("/api/v1/audit").await.is(200).json();
    let line = audit["items"].as_array().unwrap().iter().find(|line| line["action"] == "job.unblock").unwrap();
    assert_eq!(line["target"], gate["id"]);
}

#[tokio::test]
async fn a_gate_asks_for_the_right_to_write_or_for_membership() {
    let bench = Bench::new().await;
    let read = bench.token(&[Scope::BuildsRead], None, None).await;
    let build = submitted(&bench, "steps:\n  - block: b\n").await;
    let path = format!("/api/v1/jobs/{}/unblock", text(&build["jobs"][0]["id"]));
    bench.call(&read, "POST", &path, "{}").await.is(403);
    let write = bench.token(&[Scope::BuildsWrite], None, None).await;
    let refused = bench.call(&write, "POST", &path, "{}").await.is(403).json();
    assert!(text(&refused["detail"]).contains("builds:trusted"), "the build is trusted: {refused}");
    bench.call(&bench.admin, "POST", &path, "{}").await.is(200);
    let build = submitted(&bench, "steps:\n  - block: b\n    allowed_teams: nobody\n").await;
    let path = format!("/api/v1/jobs/{}/unblock", text(&build["jobs"][0]["id"]));
    let refused = bench.call(&bench.admin, "POST", &path, "{}").await.is(403).json();
    assert!(text(&refused["detail"]).contains("only nobody may"), "{refused}");
}

#[tokio::test]
async fn a_running_job_adds_steps_whole_once_and_decides_conditions_by_its_build() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let build =
        submitted(&bench, "steps:\n  - { command: up, key: up }\n  - wait\n  - { command: last, key: last }\n").await;
    let (attempt, epoch) = bench.start().await;
    let path = format!("/api/v1/attempts/{attempt}/pipeline");
    let steps = "steps:\n  - { command: \"echo $WHO\", key: new }\n  - { command: b, if: build.branch == 'other' }\n";
    let body = json!({ "id": "u1", "definition": steps, "env": { "WHO": "me" } });
    let grown = bench.post(&path, body.clone()).await.is(200).json();
    let states: Vec<_> = grown["jobs"].as_array().unwrap().iter().map(|job| text(&job["state"]).to_owned()).collect();
    assert_eq!(states[3..], ["waiting", "broken"], "{grown}");
    assert_eq!(bench.post(&path, body).await.is(200).json()["jobs"].as_array().unwrap().len(), 5);
    let taken = json!({ "id": "u2", "definition": "steps:\n  - { command: c, key: last }\n" });
    let refused = bench.post(&path, taken).await.is(422).json();
    assert!(text(&refused["detail"]).contains("`last`"), "{refused}");
    bench.finish((attempt, epoch), 0, b"").await;
    let (_, job) = bench.offer().await;
    assert_eq!(job.command, "echo me");
    assert_eq!(job.build.to_string(), text(&build["id"]));
}

#[tokio::test]
async fn meta_data_is_set_read_and_bounded_until_the_build_ends() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let build = submitted(&bench, "steps:\n  - command: a\n").await;
    let path = format!("/api/v1/builds/{}/meta-data", text(&build["id"]));
    let put =
        async |bench: &Bench, body: serde_json::Value| bench.call(&bench.admin, "PUT", &path, body.to_string()).await;
    let all = put(&bench, json!({ "release/tag": "v1", "b": "2" })).await.is(200).json();
    assert_eq!(all, json!({ "b": "2", "release/tag": "v1" }));
    assert_eq!(put(&bench, json!({ "b": "3" })).await.is(200).json()["b"], "3", "the last one counts");
    let one = bench.get(&format!("{path}/release/tag")).await.is(200).json();
    assert_eq!(one, json!({ "key": "release/tag", "value": "v1" }));
    bench.get(&format!("{path}/none")).await.is(404);
    for refused in [json!({ "b": " " }), json!({ "": "x" }), json!({ "b": "x".repeat((100 << 10) + 1) })] {
        put(&bench, refused).await.is(422);
    }
    assert_eq!(bench.get(&path).await.is(200).json(), json!({ "b": "3", "release/tag": "v1" }));
    bench.run(0, b"").await;
    bench.ended(text(&build["id"])).await;
    put(&bench, json!({ "b": "4" })).await.is(409);
    assert_eq!(bench.get(&path).await.is(200).json()["b"], "3", "what was set is kept with the build");
}
