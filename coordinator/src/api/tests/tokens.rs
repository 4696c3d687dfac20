//! Tokens, pools and agents through the API.

use serde_json::{Value, json};
use windlass_coordinator_core::row::Scope;
use windlass_coordinator_store::Fault;
use windlass_protocol::identity::{ApiToken, JoinToken};

use super::{Bench, text};

#[tokio::test]
async fn a_new_token_works_shows_its_secret_once_and_not_after_its_revocation() {
    let bench = Bench::new().await;
    let body = json!({ "kind": "api", "scopes": ["builds:read", "cache:read"], "note": "ci", "expires_in_s": 60 });
    let created = bench.post("/api/v1/tokens", body).await.is(201).json();
    let secret = text(&created["token"]).to_owned();
    assert_eq!(secret.parse::<ApiToken>().unwrap().id.to_string(), text(&created["id"]));
    assert_eq!((&created["kind"], &created["scopes"]), (&json!("api"), &json!(["builds:read", "cache:read"])));
    bench.call(&secret, "GET", "/api/v1/builds", "").await.is(200);
    let list = bench.get("/api/v1/tokens").await.is(200);
    assert!(!String::from_utf8_lossy(&list.body).contains(&secret[37..]), "the secret is told once");
    let listed = list.json()["items"][0].clone();
    assert_eq!((&listed["id"], &listed["note"]), (&created["id"], &json!("ci")));
    assert!(listed["last_used_at"].is_string() && listed["expires_at"].is_string(), "{listed}");
    let path = format!("/api/v1/tokens/{}/revoke", text(&created["id"]));
    assert!(bench.post(&path, json!({})).await.is(200).json()["revoked_at"].is_string());
    bench.call(&secret, "GET", "/api/v1/builds", "").await.is(401);
}

#[tokio::test]
async fn the_first_join_token_makes_its_pool_and_one_that_contradicts_it_is_refused() {
    let bench = Bench::new().await;
    let body = json!({
        "kind": "join", "pool": "prod", "zone": "corp", "queues": ["default", "big"], "trust": "trusted",
        "tags": { "os": "linux" }, "uses": null, "expires_in_s": 60, "note": "n", "lease_ms": 2000,
    });
    let created = bench.post("/api/v1/tokens", body.clone()).await.is(201).json();
    let token: JoinToken = text(&created["token"]).parse().unwrap();
    assert_eq!(token.ca, bench.ground.fleet.authority.fingerprint());
    assert_eq!((&created["pool"], &created["uses_left"]), (&json!("prod"), &json!(null)));
    let pools = bench.get("/api/v1/pools").await.is(200).json();
    let pool = &pools["items"][0];
    assert_eq!(
        (&pool["zone"], &pool["queues"], &pool["trust"]),
        (&json!("corp"), &json!(["default", "big"]), &json!("trusted"))
    );
    assert_eq!(
        (&pool["lease_ms"], &pool["beat_ms"], &pool["tags"]),
        (&json!(2000), &json!(500), &json!({ "os": "linux" }))
    );
    // What is left out is as the pool has it.
    let again = bench.post("/api/v1/tokens", json!({ "kind": "join", "pool": "prod" })).await.is(201).json();
    assert_eq!(again["uses_left"], 1);
    for (field, value) in
        [("zone", json!("other")), ("queues", json!(["x"])), ("trust", json!("untrusted")), ("lease_ms", json!(4000))]
    {
        let mut other = body.clone();
        other[field] = value;
        let refused = bench.post("/api/v1/tokens", other).await.is(409).json();
        assert_eq!(refused["type"], "/problems/pool-conflict", "{field}");
    }
}

#[tokio::test]
async fn a_join_token_keeps_its_terms_and_warns_where_it_never_ends() {
    let bench = Bench::new().await;
    let body = |more: Value| {
        let mut body = json!({ "kind": "join", "pool": "p", "zone": "z", "queues": ["default"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let terms = json!({
        "not_before": "2030-01-01T00:00:00Z", "allowed_cidrs": ["10.0.0.0/8", "192.0.2.7"], "name_pattern": "ci-*",
        "uses": null, "tag_policy": "allowed", "tags": { "gpu": "*" }, "note": "image",
    });
    let made = bench.post("/api/v1/tokens", body(terms)).await.is(201).json();
    let warnings = made["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "it ends a day after it begins: {made}");
    assert!(text(&warnings[0]).contains("untrusted builds"), "nobody said what the new pool is for: {made}");
    let shown = bench.get(&format!("/api/v1/tokens/{}", text(&made["id"]))).await.is(200).json();
    for (field, value) in [
        ("not_before", json!("2030-01-01T00:00:00.000Z")),
        ("expires_at", json!("2030-01-02T00:00:00.000Z")),
        ("allowed_cidrs", json!(["10.0.0.0/8", "192.0.2.7/32"])),
        ("name_pattern", json!("ci-*")),
        ("uses_left", Value::Null),
        ("uses", json!(0)),
        ("note", json!("image")),
        ("agents", json!([])),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert_eq!(bench.get("/api/v1/pools").await.is(200).json()["items"][0]["tag_policy"], "allowed");
    let forever = json!({ "kind": "join", "pool": "p", "never_expires": true });
    let forever = bench.post("/api/v1/tokens", forever).await.is(201).json();
    assert_eq!(forever["expires_at"], Value::Null);
    assert!(text(&forever["warnings"][0]).contains("never expires"), "{forever}");
    assert_eq!(forever["warnings"].as_array().unwrap().len(), 1, "the pool is known: {forever}");
    for wrong in [
        json!({ "never_expires": true, "expires_in_s": 60 }),
        json!({ "allowed_cidrs": ["10.0.0.1/8"] }),
        json!({ "name_pattern": "" }),
        json!({ "not_before": "tomorrow" }),
        json!({ "not_before": "2030-01-01T00:00:00Z", "expires_in_s": 60 }),
    ] {
        let refused = bench.post("/api/v1/tokens", body(wrong.clone())).await;
        assert_eq!(refused.status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn a_token_s_page_lists_every_agent_that_it_admitted_and_revoking_it_may_take_them_along() {
    let mut bench = Bench::new().await;
    let agent = bench.agent().await.to_string();
    bench.ground.fleet.views.agent_online().await;
    let tokens = bench.get("/api/v1/tokens").await.is(200).json();
    let id = text(&tokens["items"][0]["id"]).to_owned();
    let path = format!("/api/v1/tokens/{id}");
    let admitted = bench.get(&path).await.is(200).json()["agents"].clone();
    assert_eq!((&admitted[0]["id"], &admitted[0]["state"]), (&json!(agent), &json!("online")));
    bench.post(&format!("{path}/revoke"), json!({})).await.is(200);
    assert_eq!(bench.get(&path).await.is(200).json()["agents"][0]["state"], "online", "its agents stay");
    bench.post(&format!("{path}/revoke"), json!({ "and_agents": true })).await.is(200);
    let shown = bench.get(&path).await.is(200).json();
    assert_eq!((&shown["agents"][0]["state"], &shown["agents_cut"]), (&json!("gone"), &json!(false)));
    assert!(shown["agents"][0]["revoked_at"].is_string(), "{shown}");
    let other = bench.token(&[Scope::AgentsWrite], None, None).await;
    bench.call(&other, "GET", &format!("/api/v1/tokens/{}", super::id_of(&bench.admin)), "").await.is(404);
}

#[tokio::test]
async fn who_may_not_make_pools_makes_join_tokens_of_existing_ones_only() {
    let bench = Bench::new().await;
    let body = json!({ "kind": "join", "pool": "p", "zone": "z", "queues": ["default"] });
    let token = bench.token(&[Scope::AgentsWrite], None, None).await;
    bench.call(&token, "POST", "/api/v1/tokens", body.to_string()).await.is(403);
    bench.post("/api/v1/tokens", body.clone()).await.is(201);
    bench.call(&token, "POST", "/api/v1/tokens", body.to_string()).await.is(201);
    let api = json!({ "kind": "api", "scopes": ["admin"] }).to_string();
    bench.call(&token, "POST", "/api/v1/tokens", api.clone()).await.is(403);
    let path = format!("/api/v1/tokens/{}/revoke", super::id_of(&bench.admin));
    bench.call(&token, "POST", &path, "").await.is(403);
    let listed = bench.call(&token, "GET", "/api/v1/tokens", "").await.is(200).json();
    assert!(listed["items"].as_array().unwrap().iter().all(|token| token["kind"] == "join"), "{listed}");
    let narrow = bench.token(&[Scope::Admin], Some("web"), None).await;
    bench.call(&narrow, "POST", "/api/v1/tokens", api).await.is(403);
}

#[tokio::test]
async fn an_agent_is_shown_drained_resumed_and_revoked() {
    let mut bench = Bench::new().await;
    let id = bench.agent().await.to_string();
    bench.ground.fleet.views.agent_online().await;
    bench.build().await;
    let (attempt, _) = bench.start().await;
    let path = format!("/api/v1/agents/{id}");
    let agent = bench.get(&path).await.is(200).json();
    assert_eq!(
        (&agent["state"], &agent["version"], &agent["name"]),
        (&json!("online"), &json!("1.2.3"), &json!("worker"))
    );
    assert_eq!((&agent["slots"], &agent["slots_used"], &agent["cpus"]), (&json!(2), &json!(1), &json!(2.5)));
    assert_eq!(
        (&agent["zone"], &agent["queues"], &agent["trust"]),
        (&json!("local"), &json!(["default"]), &json!("trusted"))
    );
    assert_eq!(agent["running"], json!([attempt]));
    assert!(agent["last_seen_at"].is_string(), "{agent}");
    assert_eq!(bench.get("/api/v1/agents").await.is(200).json()["items"], json!([agent]));
    for (action, state) in [("drain", "draining"), ("resume", "online"), ("revoke", "gone")] {
        let shown = bench.post(&format!("{path}/{action}"), json!({})).await.is(200).json();
        assert_eq!(shown["state"], state);
    }
    let actions = bench.get("/api/v1/audit?limit=3").await.is(200).json();
    let lines = actions["items"].as_array().unwrap();
    let actions: Vec<_> = lines.iter().map(|line| text(&line["action"])).collect();
    assert_eq!(actions, ["agent.revoke", "agent.resume", "agent.drain"], "newest first");
    assert_eq!((&lines[0]["actor"]["name"], &lines[0]["target"]), (&json!("test"), &json!(id)));
}

#[tokio::test]
async fn a_drain_says_what_becomes_of_what_runs_at_its_deadline() {
    let mut bench = Bench::new().await;
    let id = bench.agent().await.to_string();
    bench.ground.fleet.views.agent_online().await;
    let path = format!("/api/v1/agents/{id}/drain");
    let shown = bench.post(&path, json!({ "deadline_ms": 60_000 })).await.is(200).json();
    assert_eq!(shown["on_deadline"], "requeue", "unless it says otherwise");
    let shown = bench.post(&path, json!({ "deadline_ms": 60_000, "on_deadline": "wait" })).await.is(200).json();
    assert_eq!((&shown["on_deadline"], &shown["state"]), (&json!("wait"), &json!("draining")));
    assert!(shown["drain_until"].is_string(), "{shown}");
    let shown = bench.post(&path, json!({})).await.is(200).json();
    assert_eq!((&shown["on_deadline"], &shown["drain_until"]), (&json!(null), &json!(null)));
    bench.post(&path, json!({ "on_deadline": "wait" })).await.is(422);
    bench.post(&path, json!({ "deadline_ms": 1, "on_deadline": "later" })).await.is(422);
}

#[tokio::test]
async fn many_agents_are_drained_by_a_selector_that_says_something() {
    let mut bench = Bench::new().await;
    let id = bench.agent().await.to_string();
    bench.ground.fleet.views.agent_online().await;
    let drain = |selector| json!({ "selector": selector, "max_unavailable": 1 });
    let path = "/api/v1/agents/drain";
    let nobody = bench.post(path, drain(json!({ "name": "other-*" }))).await.is(200).json();
    assert_eq!(nobody, json!({ "drained": [], "waiting": [] }));
    let done =
        bench.post(path, drain(json!({ "pool": "local", "name": "work*", "zone": "local" }))).await.is(200).json();
    let drained = &done["drained"][0];
    assert_eq!((&drained["id"], &drained["state"]), (&json!(id), &json!("draining")));
    for wrong in [json!({}), json!({ "pol": "local" }), json!({ "name": "" })] {
        bench.post(path, drain(wrong)).await.is(422);
    }
    bench.post(path, json!({ "selector": { "pool": "local" }, "max_unavailable": 0 })).await.is(422);
    bench.post(path, json!({ "selector": { "pool": "local" }, "on_deadline": "wait" })).await.is(422);
}

#[tokio::test]
async fn pages_of_tokens_show_each_once_newest_first() {
    let bench = Bench::new().await;
    for _ in 0..6 {
        bench.token(&[Scope::BuildsRead], None, None).await;
    }
    let (mut seen, mut path) = (Vec::new(), "/api/v1/tokens?limit=3".to_owned());
    let mut sizes = Vec::new();
    loop {
        let page = bench.get(&path).await.is(200).json();
        let items = page["items"].as_array().unwrap();
        sizes.push(items.len());
        seen.extend(items.iter().map(|token| text(&token["id"]).to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/tokens?limit=3&cursor={cursor}");
    }
    assert_eq!(sizes, [3, 3, 1], "the admin's is the seventh");
    assert!(seen.is_sorted_by(|newer, older| newer > older), "{seen:?}");
}

#[tokio::test]
async fn however_often_a_token_is_used_its_last_use_is_one_small_commit_now_and_then() {
    let bench = Bench::new().await;
    let user = bench.token(&[Scope::BuildsRead], None, None).await;
    let before = bench.memory.commits().len();
    for _ in 0..50 {
        bench.call(&user, "GET", "/api/v1/builds", "").await.is(200);
    }
    assert_eq!(bench.memory.commits().len(), before, "no request costs a commit");
    let (uses, desk) = (&bench.ground.last_use, &bench.ground.fleet.desk);
    uses.write(desk).await.unwrap();
    uses.write(desk).await.unwrap();
    assert_eq!(bench.memory.commits()[before..], [1], "one row, once");
    let row = bench.ground.fleet.views.token(super::id_of(&user)).unwrap();
    assert!(row.last_used_at.is_some() && row.last_used_at == uses.of(row.id));
    // What was not written is written the next time.
    while uses.of(row.id) == row.last_used_at {
        bench.call(&user, "GET", "/api/v1/builds", "").await.is(200);
    }
    bench.memory.fail_next(Fault::Io { doing: "commit", detail: "no".to_owned() });
    uses.write(desk).await.unwrap_err();
    let again = async {
        while uses.write(desk).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::DEADLINE, again).await.unwrap();
    let row = bench.ground.fleet.views.token(super::id_of(&user)).unwrap();
    assert_eq!(row.last_used_at, uses.of(row.id));
}
