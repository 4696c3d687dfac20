//! Every path and every scope: who may, and who may not.

use std::collections::BTreeSet;

use serde_json::json;
use windlass_coordinator_core::row::Scope;

use super::{Bench, ONE_STEP, text};

const ALL: [Scope; 13] = [
    Scope::BuildsRead,
    Scope::BuildsWrite,
    Scope::BuildsTrusted,
    Scope::PipelinesWrite,
    Scope::AgentsRead,
    Scope::AgentsWrite,
    Scope::PoolsWrite,
    Scope::CacheRead,
    Scope::CacheWrite,
    Scope::ImagesRead,
    Scope::ImagesWrite,
    Scope::SecretsWrite,
    Scope::Admin,
];

const READ: &[Scope] = &[Scope::BuildsRead, Scope::BuildsWrite, Scope::BuildsTrusted];
const WRITE: &[Scope] = &[Scope::BuildsWrite, Scope::BuildsTrusted];
const LOOK: &[Scope] = &[Scope::BuildsRead, Scope::BuildsWrite, Scope::BuildsTrusted, Scope::PipelinesWrite];
const AGENTS: &[Scope] = &[Scope::AgentsRead, Scope::AgentsWrite, Scope::PoolsWrite];
const STORE: &[Scope] = &[Scope::CacheWrite, Scope::BuildsWrite, Scope::BuildsTrusted];
const KNOW: &[Scope] = &[Scope::CacheRead, Scope::CacheWrite, Scope::BuildsWrite, Scope::BuildsTrusted];

/// Each path with who may beside `admin`, and whether tokens of one pipeline may.
const TABLE: [(&str, &str, &[Scope], bool); 77] = [
    ("GET", "/api/v1/builds", READ, true),
    ("POST", "/api/v1/builds", WRITE, true),
    ("GET", "/api/v1/builds/{id}", READ, true),
    ("POST", "/api/v1/builds/{id}/cancel", WRITE, true),
    ("POST", "/api/v1/builds/{id}/retry", WRITE, true),
    ("POST", "/api/v1/builds/{id}/rebuild", WRITE, true),
    ("GET", "/api/v1/builds/{id}/events", READ, true),
    // The build is trusted.
    ("POST", "/api/v1/builds/{id}/prefetch", &[Scope::BuildsTrusted], true),
    // It takes `cache:write` and, of a trusted build, `builds:trusted`.
    ("GET", "/api/v1/builds/{id}/pin", &[Scope::CacheRead], true),
    ("PUT", "/api/v1/builds/{id}/pin", &[], true),
    ("DELETE", "/api/v1/builds/{id}/pin", &[], true),
    ("GET", "/api/v1/builds/{id}/artifacts", READ, true),
    // Files of a trusted build, too.
    ("PUT", "/api/v1/builds/{id}/artifacts", &[Scope::BuildsTrusted], true),
    ("GET", "/api/v1/builds/{id}/annotations", READ, true),
    ("GET", "/api/v1/builds/{id}/notifications", READ, true),
    ("GET", "/api/v1/artifacts/{id}", READ, true),
    ("GET", "/api/v1/artifacts/{id}/info", READ, true),
    ("GET", "/api/v1/builds/{id}/meta-data", READ, true),
    ("GET", "/api/v1/builds/{id}/meta-data/{key}", READ, true),
    // The build of the test is trusted: what it knows is said by trusted tokens alone.
    ("PUT", "/api/v1/builds/{id}/meta-data", &[Scope::BuildsTrusted], true),
    ("GET", "/api/v1/pipelines", LOOK, true),
    ("POST", "/api/v1/pipelines", &[Scope::PipelinesWrite], true),
    ("GET", "/api/v1/pipelines/{name}", LOOK, true),
    ("PATCH", "/api/v1/pipelines/{name}", &[Scope::PipelinesWrite], true),
    ("GET", "/api/v1/pipelines/{name}/schedules", LOOK, true),
    ("POST", "/api/v1/pipelines/{name}/schedules", &[Scope::PipelinesWrite], true),
    ("DELETE", "/api/v1/pipelines/{name}/schedules/{id}", &[Scope::PipelinesWrite], true),
    ("GET", "/api/v1/pipelines/{name}/builds/{number}", READ, true),
    ("POST", "/api/v1/jobs/{id}/retry", WRITE, true),
    ("POST", "/api/v1/jobs/{id}/cancel", WRITE, true),
    // The build that is tried is trusted.
    ("POST", "/api/v1/jobs/{id}/unblock", &[Scope::BuildsTrusted], true),
    ("GET", "/api/v1/jobs/{id}/why", READ, true),
    ("GET", "/api/v1/jobs/{id}/reuse", READ, true),
    ("GET", "/api/v1/reuse/terms", &[Scope::CacheRead], true),
    ("POST", "/api/v1/reuse/lookup", &[Scope::CacheRead], true),
    ("POST", "/api/v1/reuse/images", &[Scope::CacheRead], true),
    ("GET", "/api/v1/reuse/results/{key}/files/{hex}", &[Scope::CacheRead], true),
    ("GET", "/api/v1/reuse/results/{key}/log", &[Scope::CacheRead], true),
    ("POST", "/api/v1/attempts/{id}/pipeline", WRITE, true),
    ("GET", "/api/v1/attempts/{id}/log", READ, true),
    ("GET", "/api/v1/attempts/{id}/log/stream", READ, true),
    ("GET", "/api/v1/agents", AGENTS, false),
    ("GET", "/api/v1/agents/{id}", AGENTS, false),
    ("POST", "/api/v1/agents/drain", &[Scope::AgentsWrite], false),
    ("POST", "/api/v1/agents/{id}/drain", &[Scope::AgentsWrite], false),
    ("POST", "/api/v1/agents/{id}/resume", &[Scope::AgentsWrite], false),
    ("POST", "/api/v1/agents/{id}/revoke", &[Scope::AgentsWrite], false),
    ("GET", "/api/v1/pools", AGENTS, false),
    ("GET", "/api/v1/tokens", &[Scope::AgentsWrite], false),
    ("POST", "/api/v1/tokens", &[], false),
    // Whoever has one may look at it.
    ("GET", "/api/v1/tokens/current", &ALL, true),
    ("GET", "/api/v1/tokens/{id}", &[Scope::AgentsWrite], false),
    ("POST", "/api/v1/tokens/{id}/revoke", &[], false),
    ("GET", "/api/v1/audit", &[], false),
    ("GET", "/api/v1/cache/stats", &[Scope::CacheRead], false),
    ("GET", "/api/v1/pins", &[Scope::CacheRead], true),
    ("GET", "/api/v1/caches", &[Scope::CacheRead], true),
    ("DELETE", "/api/v1/caches/{id}", &[Scope::CacheWrite], true),
    ("PUT", "/api/v1/caches/{id}/pin", &[Scope::CacheWrite], true),
    ("DELETE", "/api/v1/caches/{id}/pin", &[Scope::CacheWrite], true),
    ("GET", "/api/v1/secrets", &[Scope::SecretsWrite], true),
    ("POST", "/api/v1/secrets", &[Scope::SecretsWrite], true),
    ("DELETE", "/api/v1/secrets/{key}", &[Scope::SecretsWrite], true),
    ("GET", "/api/v1/blobs/b3/{hex}", &[Scope::CacheRead], true),
    ("HEAD", "/api/v1/blobs/b3/{hex}", &[Scope::CacheRead], true),
    ("PUT", "/api/v1/blobs/b3/{hex}", STORE, true),
    ("POST", "/api/v1/blobs/missing", KNOW, true),
    ("POST", "/api/v1/blobs/pack", STORE, true),
    ("GET", "/api/v1/cache/gc", &[], false),
    ("POST", "/api/v1/cache/gc", &[], false),
    ("GET", "/api/v1/cache/verify", &[], false),
    ("POST", "/api/v1/cache/verify", &[], false),
    ("POST", "/api/v1/uploads", STORE, true),
    ("HEAD", "/api/v1/uploads/{id}", STORE, true),
    ("PATCH", "/api/v1/uploads/{id}", STORE, true),
    ("DELETE", "/api/v1/uploads/{id}", STORE, true),
    ("GET", "/api/v1/builds/latest", READ, true),
];

/// The path with ids that are there, and a body that means something.
fn concrete(build: &serde_json::Value, token: &str, method: &str, path: &str) -> (String, String) {
    let job = text(&build["jobs"][0]["id"]);
    let nobody = "00000000-0000-7000-8000-000000000000";
    let id = match path.split('/').nth(3).unwrap() {
        "builds" => text(&build["id"]),
        "jobs" => job,
        "tokens" => token,
        _ => nobody,
    };
    let hex = windlass_protocol::Digest::of(b"").to_hex();
    let place = match (method, path) {
        (_, path) if path.contains("blobs") || path.ends_with("/uploads") => "?project=web".to_owned(),
        (_, path) if path.contains("/reuse/results") => "?project=web".to_owned(),
        (_, path) if path.ends_with("/reuse/terms") => "?name=web".to_owned(),
        ("PUT", path) if path.ends_with("/artifacts") => format!("?path=a&bytes=0&digest=b3:{hex}"),
        _ => String::new(),
    };
    let path =
        path.replace("{id}", id).replace("{name}", "web").replace("{number}", "1").replace("{hex}", &hex).replace(
            "{key}",
            if path.contains("/secrets/") {
                "A"
            } else if path.contains("/reuse/") {
                &hex
            } else {
                "a/b"
            },
        );
    let body = match path.as_str() {
        "/api/v1/builds" => json!({ "pipeline": "web", "branch": "main", "definition": ONE_STEP }).to_string(),
        "/api/v1/pipelines" => json!({ "name": "web" }).to_string(),
        upload if upload.ends_with("/pipeline") => json!({ "id": "u", "definition": ONE_STEP }).to_string(),
        schedules if schedules.ends_with("/schedules") && method == "POST" => json!({ "cron": "@daily" }).to_string(),
        "/api/v1/secrets" => json!({ "key": "A", "value": "hunter22" }).to_string(),
        "/api/v1/tokens" => json!({ "kind": "api", "scopes": ["admin"] }).to_string(),
        "/api/v1/uploads" => json!({ "digest": format!("b3:{hex}"), "bytes": 1 << 20 }).to_string(),
        "/api/v1/reuse/lookup" => json!({ "project": "web", "keys": [] }).to_string(),
        "/api/v1/reuse/images" => json!({ "project": "web", "image": "a", "platform": "x" }).to_string(),
        "/api/v1/cache/gc" if method == "POST" => json!({ "dry_run": true }).to_string(),
        pin if pin.ends_with("/pin") => json!({}).to_string(),
        "/api/v1/blobs/missing" => json!({ "digests": [] }).to_string(),
        "/api/v1/blobs/pack" => "WLPACK\u{1}\0\0".to_owned(),
        _ => String::new(),
    };
    (format!("{path}{place}"), body)
}

/// The status, without reading what may be an endless stream.
async fn status(bench: &Bench, token: &str, method: &str, (path, body): (String, String)) -> u16 {
    use tower::ServiceExt as _;
    let request = super::request(token, method, &path).body(axum::body::Body::from(body)).unwrap();
    bench.router.clone().oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn every_path_is_open_to_its_scopes_and_to_no_other() {
    let bench = Bench::new().await;
    let body = json!({ "pipeline": "web", "branch": "main", "definition": ONE_STEP });
    let build = bench.post("/api/v1/builds", body).await.is(201).json();
    let victim = super::id_of(&bench.token(&[Scope::BuildsRead], None, None).await).to_string();
    for (method, path, may, _) in TABLE {
        let asked = concrete(&build, &victim, method, path);
        assert_eq!(status(&bench, "", method, asked.clone()).await, 401, "{method} {path} without a token");
        for scope in ALL {
            let token = bench.token(&[scope], None, None).await;
            let status = status(&bench, &token, method, asked.clone()).await;
            let expected = may.contains(&scope) || scope == Scope::Admin;
            assert_eq!(status != 403, expected, "{method} {path} with {scope:?}: {status}");
            assert!(![401, 405, 500].contains(&status), "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn a_token_of_one_pipeline_or_branch_sees_and_touches_nothing_else() {
    let bench = Bench::new().await;
    let body = json!({ "pipeline": "web", "branch": "main", "definition": ONE_STEP });
    let build = bench.post("/api/v1/builds", body).await.is(201).json();
    for (pipeline, branch) in [(Some("api"), None), (None, Some("topic"))] {
        let token = bench.token(&[Scope::Admin], pipeline, branch).await;
        for (method, path, _, restricted) in TABLE {
            let asked = concrete(&build, "00000000-0000-7000-8000-000000000000", method, path);
            let status = status(&bench, &token, method, asked).await;
            let expected: &[u16] = match path {
                _ if !restricted => &[403],
                "/api/v1/builds" if method == "GET" => &[200],
                "/api/v1/builds" => &[403],
                "/api/v1/tokens/current" | "/api/v1/reuse/terms" => &[200],
                "/api/v1/reuse/lookup" if pipeline.is_none() => &[200],
                "/api/v1/reuse/images" if pipeline.is_none() => &[503],
                path if path.contains("/reuse/") && !path.starts_with("/api/v1/jobs") => {
                    if pipeline.is_none() {
                        &[404]
                    } else {
                        &[403]
                    }
                }
                "/api/v1/pipelines" | "/api/v1/secrets" | "/api/v1/caches" | "/api/v1/pins" if method == "GET" => {
                    &[200]
                }
                "/api/v1/secrets" | "/api/v1/secrets/{key}" => &[403],
                "/api/v1/pipelines" => &[403],
                path if path.starts_with("/api/v1/pipelines/{name}") && !["GET", "HEAD"].contains(&method) => &[403],
                path if path.contains("blobs") && pipeline.is_none() => &[200, 201, 404],
                "/api/v1/uploads" if pipeline.is_none() => &[200, 201],
                path if path.contains("blobs") || path.ends_with("/uploads") => &[403],
                _ => &[404],
            };
            assert!(expected.contains(&status), "{method} {path} of {pipeline:?} {branch:?}: {status}");
        }
        let list = bench.call(&token, "GET", "/api/v1/builds", "").await.is(200).json();
        assert_eq!(list["items"], json!([]));
        bench.call(&token, "GET", "/api/v1/builds?pipeline=web&branch=main", "").await.is(403);
    }
    let own = bench.token(&[Scope::BuildsRead], Some("web"), Some("main")).await;
    let list = bench.call(&own, "GET", "/api/v1/builds", "").await.is(200).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_needs_no_token_asks_for_none() {
    let bench = Bench::new().await;
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        bench.call("", "GET", path, "").await.is(200);
    }
}

/// What the document describes is what this table tries.
pub(super) fn described() -> BTreeSet<(String, String)> {
    let paths = TABLE.iter().filter(|(_, path, ..)| !path.ends_with("latest"));
    paths.map(|(method, path, ..)| (method.to_lowercase(), (*path).to_owned())).collect()
}
