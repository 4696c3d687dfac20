//! Everything that is refused is refused as problem+json, with a type that stays.

use std::fmt::Write as _;

use serde_json::json;
use windlass_coordinator_core::row::{Scope, TokenGrant};
use windlass_protocol::WallMs;
use windlass_protocol::limits::BODY_MAX_BYTES;

use super::{Answer, Bench, ONE_STEP, redacted, request};

/// A problem as text, once it is sure that it is one.
fn problem(answer: &Answer) -> String {
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let document = answer.json();
    assert_eq!(document["status"], answer.status.as_u16());
    assert!(document["type"].as_str().unwrap().starts_with("/problems/"));
    redacted(document)
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let bench = Bench::new().await;
    let missing_tree = json!({ "tree": format!("b3:{}", "0".repeat(64)) });
    let builds = "/api/v1/builds";
    let cases: Vec<(&str, &str, String)> = vec![
        ("GET", "/nowhere", String::new()),
        ("GET", "/api/v1/nowhere", String::new()),
        ("DELETE", "/api/v1/builds", String::new()),
        ("GET", "/api/v1/builds/not-an-id", String::new()),
        ("GET", "/api/v1/builds/latest", String::new()),
        ("GET", "/api/v1/builds/00000000-0000-7000-8000-000000000000", String::new()),
        ("GET", "/api/v1/pipelines/web/builds/1", String::new()),
        ("GET", "/api/v1/builds?limit=0", String::new()),
        ("GET", "/api/v1/builds?limit=x", String::new()),
        ("GET", "/api/v1/builds?cursor=x", String::new()),
        ("GET", "/api/v1/builds?state=odd", String::new()),
        ("GET", "/api/v1/builds?colour=blue", String::new()),
        ("POST", builds, "{".to_owned()),
        ("POST", builds, json!({ "pipelin": "web" }).to_string()),
        ("POST", builds, json!({ "definition": ONE_STEP }).to_string()),
        ("POST", builds, json!({ "pipeline": "a/b", "definition": ONE_STEP }).to_string()),
        ("POST", builds, json!({ "pipeline": "web" }).to_string()),
        ("POST", builds, json!({ "pipeline": "web", "definition": "steps:\n  - comand: make\n" }).to_string()),
        ("POST", builds, json!({ "pipeline": "web", "definition": ONE_STEP, "origin": missing_tree }).to_string()),
        ("POST", builds, json!({ "pipeline": "web", "definition": ONE_STEP, "env": { "A": 1 } }).to_string()),
        ("POST", builds, json!({ "pipeline": "web", "definition": ONE_STEP, "origin": { "tree": "x" } }).to_string()),
        (
            "POST",
            builds,
            json!({ "definition": ONE_STEP, "origin": { "repository": "--upload-pack=x", "commit": "HEAD" } })
                .to_string(),
        ),
        ("POST", builds, json!({ "pipeline": "web", "definition": ONE_STEP, "branch": "b".repeat(201) }).to_string()),
        ("GET", "/api/v1/attempts/00000000-0000-7000-8000-000000000000/log", String::new()),
        ("POST", "/api/v1/jobs/00000000-0000-7000-8000-000000000000/retry", String::new()),
        ("POST", "/api/v1/agents/00000000-0000-7000-8000-000000000000/drain", String::new()),
        ("GET", "/api/v1/blobs/b3/xyz?project=web", String::new()),
        ("GET", "/api/v1/blobs/b3/xyz", String::new()),
        ("POST", "/api/v1/tokens", json!({ "kind": "api", "scopes": ["everything"] }).to_string()),
        ("POST", "/api/v1/tokens", json!({ "kind": "api", "scopes": [] }).to_string()),
        ("POST", "/api/v1/tokens", json!({ "kind": "join", "pool": "new" }).to_string()),
    ];
    let mut all = String::new();
    for (method, path, body) in cases {
        let answer = bench.call(&bench.admin, method, path, body.clone()).await;
        let cut: String = body.chars().take(90).collect();
        writeln!(all, "{method} {path} {cut}\n{}\n", problem(&answer)).unwrap();
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn tokens_that_do_not_count_are_refused_each_for_its_reason() {
    let bench = Bench::new().await;
    let api = || TokenGrant::Api { scopes: vec![Scope::Admin], pipeline: None, branch: None };
    let past = bench.token_with(api(), Some(WallMs(1))).await;
    let revoked = bench.token_with(api(), None).await;
    let id = super::id_of(&revoked);
    bench.post(&format!("/api/v1/tokens/{id}/revoke"), json!({})).await.is(200);
    let grant = TokenGrant::join("local".to_owned(), None);
    let join = bench.token_with(grant, None).await;
    let forged = windlass_protocol::identity::ApiToken::generate(super::id_of(&bench.admin)).unwrap().expose();
    let stranger = windlass_protocol::identity::ApiToken::generate(super::super::token::new_id().unwrap()).unwrap();
    let mut mistyped = bench.admin.clone();
    mistyped.replace_range(60..61, if &mistyped[60..61] == "a" { "b" } else { "a" });
    let real_join = windlass_protocol::identity::JoinToken::generate(
        super::super::token::new_id().unwrap(),
        bench.ground.fleet.authority.fingerprint(),
    );
    let mut all = String::new();
    for (what, header) in [
        ("none", None),
        ("another scheme", Some("Basic d2hvOmFtSQ==".to_owned())),
        ("not a token", Some("Bearer hello".to_owned())),
        ("a join token's text", Some(format!("Bearer {}", real_join.unwrap().expose()))),
        ("mistyped", Some(format!("Bearer {mistyped}"))),
        ("another secret", Some(format!("Bearer {forged}"))),
        ("unknown", Some(format!("Bearer {}", stranger.expose()))),
        ("past", Some(format!("Bearer {past}"))),
        ("revoked", Some(format!("Bearer {revoked}"))),
        ("of the other kind", Some(format!("Bearer {join}"))),
    ] {
        let mut asked = request("", "GET", "/api/v1/builds");
        if let Some(header) = &header {
            asked = asked.header("authorization", header);
        }
        let answer = bench.send(asked.body("".into()).unwrap()).await.is(401);
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{what}");
        let document = problem(&answer);
        let secret = header.as_ref().and_then(|header| header.get(50..90));
        assert!(secret.is_none_or(|secret| !document.contains(secret)), "{what} is repeated");
        writeln!(all, "{what}: {}", answer.json()["detail"].as_str().unwrap()).unwrap();
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn a_body_past_its_limit_is_413_and_a_long_key_422() {
    let bench = Bench::new().await;
    let body = vec![b' '; BODY_MAX_BYTES + 1];
    let answer = bench.call(&bench.admin, "POST", "/api/v1/builds", body).await.is(413);
    assert!(problem(&answer).contains("/problems/too-large"));
    let long = request(&bench.admin, "POST", "/api/v1/builds").header("idempotency-key", "k".repeat(256));
    let body = json!({ "pipeline": "web", "definition": ONE_STEP }).to_string();
    assert!(problem(&bench.send(long.body(body.into()).unwrap()).await.is(422)).contains("/problems/invalid"));
}

#[tokio::test]
async fn a_full_disk_is_507_for_new_builds_and_a_stopped_core_503() {
    let bench = Bench::new().await;
    let id = bench.build().await["id"].as_str().unwrap().to_owned();
    assert_eq!(bench.call("", "GET", "/readyz", "").await.is(200).text(), "ok\n");
    bench.memory.set_low(true);
    // The desk looks at the space with every commit.
    bench.post("/api/v1/tokens", json!({ "kind": "api", "scopes": ["builds:read"] })).await.is(201);
    let ready = bench.call("", "GET", "/readyz", "").await.is(200).text();
    assert!(ready.contains("store_space_low"), "{ready}");
    let body = json!({ "pipeline": "web", "definition": ONE_STEP });
    assert!(problem(&bench.post("/api/v1/builds", body.clone()).await.is(507)).contains("/problems/storage-full"));
    bench.post(&format!("/api/v1/builds/{id}/cancel"), json!({})).await.is(200);
    bench.ground.fleet.desk.stop();
    let mut answer = bench.post("/api/v1/builds", body.clone()).await;
    // The desk ends at its next turn.
    while answer.status == 507 {
        answer = bench.post("/api/v1/builds", body.clone()).await;
    }
    let answer = answer.is(503);
    assert_eq!(answer.header("retry-after"), "1");
    assert!(problem(&answer).contains("/problems/unavailable"));
    bench.call("", "GET", "/readyz", "").await.is(503);
    bench.call("", "GET", "/healthz", "").await.is(200);
}
