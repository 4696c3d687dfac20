//! What a laptop is told of results: what its token's namespace reads, and of everything else the same nothing.

use serde_json::{Value, json};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Output, ReuseName, ReuseRequest, ReuseRow, ReusedFrom, Scope};
use windlass_protocol::job::Source;
use windlass_protocol::limits::{DETAIL_MAX_BYTES, FLEET_KEYS_MAX, NAME_MAX_BYTES};
use windlass_protocol::{AttemptId, BuildId, Digest, JobId, Namespace, Shelf, WallMs};

use super::{Bench, id_of};

/// Gives a namespace a result of this key with one file, which is a program if ci made it.
async fn result(bench: &Bench, namespace: &Namespace, key: &str, text: &str) -> Digest {
    let digest = bench.ground.fleet.store.put(&namespace.on(Shelf::Artifacts), text.as_bytes()).unwrap();
    let output = Output {
        path: "out/a".to_owned(),
        bytes: text.len() as u64,
        digest,
        sha1: "0".repeat(40),
        sha256: "0".repeat(64),
        content_type: "text/plain".to_owned(),
        executable: text.contains("ci"),
    };
    let from = ReusedFrom {
        pipeline: namespace.project.clone(),
        branch: "main".to_owned(),
        build: BuildId::from_bytes([1; 16]),
        number: 1,
        job: JobId::from_bytes([2; 16]),
        attempt: AttemptId::from_bytes([3; 16]),
        step: "make".to_owned(),
        at: WallMs(1),
        ran_ms: 5,
        fleet: None,
    };
    let row = ReuseRow {
        name: ReuseName { namespace: namespace.clone(), key: Digest::of(key.as_bytes()) },
        recipe: Digest::of(b"recipe"),
        source: Source::Empty,
        step_key: Some("make".to_owned()),
        from,
        outputs: vec![output],
        bytes: 0,
        created_at: WallMs(0),
        used_at: WallMs(0),
    };
    bench.ask(Request::Reuse(ReuseRequest::Adopt(Box::new(row)))).await;
    digest
}

async fn lookup(bench: &Bench, token: &str, project: &str, keys: &[&str]) -> super::Answer {
    let keys: Vec<Digest> = keys.iter().map(|key| Digest::of(key.as_bytes())).collect();
    let body = json!({ "project": project, "keys": keys }).to_string();
    bench.call(token, "POST", "/api/v1/reuse/lookup", body).await
}

#[tokio::test]
async fn a_laptop_is_told_of_trusted_results_and_of_its_own_and_gets_their_bytes() {
    let bench = Bench::new().await;
    let token = bench.token(&[Scope::CacheRead], None, None).await;
    let digest = result(&bench, &Namespace::trusted("web"), "trusted", "made by ci").await;
    let own = Namespace::overlay("web", &format!("token:{}", id_of(&token)));
    result(&bench, &own, "own", "made with it").await;
    let told = lookup(&bench, &token, "web", &["none", "trusted", "own"]).await.is(200).json();
    let keys: Vec<&Value> = told["results"].as_array().unwrap().iter().map(|it| &it["key"]).collect();
    assert_eq!(keys, [&json!(Digest::of(b"trusted")), &json!(Digest::of(b"own"))]);
    let one = &told["results"][0];
    assert_eq!((&one["files"][0]["path"], &one["files"][0]["digest"]), (&json!("out/a"), &json!(digest)));
    let programs: Vec<bool> =
        told["results"].as_array().unwrap().iter().map(|it| it["files"][0]["executable"] == true).collect();
    assert_eq!(programs, [true, false]);
    assert_eq!((&one["log"], &one["from"]["number"]), (&json!(false), &json!(1)), "it may read no builds: {one}");
    let place = format!("/api/v1/reuse/results/{}", Digest::of(b"trusted").to_hex());
    let file = format!("{place}/files/{}?project=web", digest.to_hex());
    assert_eq!(bench.call(&token, "GET", &file, "").await.is(200).text(), "made by ci");
    assert_eq!(bench.call(&token, "GET", &format!("{file}&offset=5"), "").await.is(200).text(), "by ci");
    assert_eq!(bench.call(&token, "GET", &format!("{file}&offset=99"), "").await.is(200).text(), "");
    bench.call(&token, "GET", &format!("{place}/log?project=web"), "").await.is(403);
    let reader = bench.token(&[Scope::CacheRead, Scope::BuildsRead], None, None).await;
    let told = lookup(&bench, &reader, "web", &["trusted"]).await.is(200).json();
    assert_eq!(told["results"][0]["log"], json!(true));
    assert_eq!(bench.call(&reader, "GET", &format!("{place}/log?project=web"), "").await.is(200).text(), "");
}

#[tokio::test]
async fn what_is_another_s_and_what_is_nobody_s_are_the_same_answer() {
    let bench = Bench::new().await;
    let token = bench.token(&[Scope::CacheRead, Scope::BuildsRead], None, None).await;
    let trusted = bench.token(&[Scope::CacheRead, Scope::BuildsTrusted], None, None).await;
    let other = Namespace::overlay("web", "token:another");
    let digest = result(&bench, &other, "secret", "a secret").await;
    result(&bench, &Namespace::trusted("api"), "secret", "of another project").await;
    for asks in [&token, &trusted] {
        let absent = lookup(&bench, asks, "web", &["none"]).await.is(200);
        let hidden = lookup(&bench, asks, "web", &["secret"]).await.is(200);
        assert_eq!((absent.body, absent.headers.len()), (hidden.body, hidden.headers.len()));
        for (path, text) in [(format!("files/{}", digest.to_hex()), "result"), ("log".to_owned(), "result")] {
            let at =
                |key: &str| format!("/api/v1/reuse/results/{}/{path}?project=web", Digest::of(key.as_bytes()).to_hex());
            let hidden = bench.call(asks, "GET", &at("secret"), "").await.is(404).json();
            let absent = bench.call(asks, "GET", &at("none"), "").await.is(404).json();
            assert_eq!(hidden["title"], absent["title"]);
            assert!(hidden["detail"].as_str().unwrap().contains(text), "{hidden}");
        }
    }
    // A file of the project is not one of the result's.
    let mine = result(&bench, &Namespace::trusted("web"), "mine", "mine").await;
    let key = Digest::of(b"mine").to_hex();
    bench
        .call(&token, "GET", &format!("/api/v1/reuse/results/{key}/files/{}?project=web", mine.to_hex()), "")
        .await
        .is(200);
    bench
        .call(&token, "GET", &format!("/api/v1/reuse/results/{key}/files/{}?project=web", digest.to_hex()), "")
        .await
        .is(404);
    let only = bench.token(&[Scope::CacheRead], Some("api"), None).await;
    lookup(&bench, &only, "web", &["mine"]).await.is(403);
    let many: Vec<String> = (0..=FLEET_KEYS_MAX).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(lookup(&bench, &token, "web", &many).await.status.is_client_error());
}

#[tokio::test]
async fn keys_are_made_by_the_hooks_that_trusted_agents_have() {
    let mut bench = Bench::new().await;
    let token = bench.token(&[Scope::CacheRead], None, None).await;
    let path = "/api/v1/reuse/terms?name=web";
    let terms = bench.call(&token, "GET", path, "").await.is(200).json();
    assert_eq!(terms, json!({ "project": "web", "epoch": 0, "hooks": [] }));
    bench.agent().await;
    let terms = bench.call(&token, "GET", path, "").await.is(200).json();
    assert_eq!(terms["hooks"], json!([Digest::of(b"hooks")]));
}

#[tokio::test]
async fn the_pipeline_of_a_repository_is_meant_whatever_a_clone_s_directory_is_called() {
    let bench = Bench::new().await;
    let new = json!({ "name": "web", "repository": "https://example.org/org/web.git" });
    bench.post("/api/v1/pipelines", new).await.is(201);
    let token = bench.token(&[Scope::CacheRead], None, None).await;
    let only = bench.token(&[Scope::CacheRead], Some("api"), None).await;
    for (asks, query, project) in [
        (&token, "name=copy&repository=git@example.org:org/web", "web"),
        (&token, "name=copy&repository=git@example.org:org/other", "copy"),
        (&token, "name=copy", "copy"),
        // Who may not see it is not told of it.
        (&only, "name=copy&repository=git@example.org:org/web", "copy"),
    ] {
        let told = bench.call(asks, "GET", &format!("/api/v1/reuse/terms?{query}"), "").await.is(200).json();
        assert_eq!(told["project"], json!(project), "{query}");
    }
    let second = json!({ "name": "nightly", "repository": "https://example.org/org/web.git" });
    bench.post("/api/v1/pipelines", second).await.is(201);
    let query = "name=copy&repository=git@example.org:org/web";
    let told = bench.call(&token, "GET", &format!("/api/v1/reuse/terms?{query}"), "").await.is(200).json();
    assert_eq!(told["project"], json!("copy"), "of two pipelines neither is guessed");
}

#[tokio::test]
async fn a_log_is_for_who_may_read_the_build_and_a_file_for_who_names_its_result() {
    let bench = Bench::new().await;
    result(&bench, &Namespace::trusted("web"), "one", "of one").await;
    let two = result(&bench, &Namespace::trusted("web"), "two", "of two").await;
    let elsewhere = bench.token(&[Scope::CacheRead, Scope::BuildsRead], None, Some("release")).await;
    let told = lookup(&bench, &elsewhere, "web", &["one"]).await.is(200).json();
    assert_eq!(told["results"][0]["log"], json!(false), "its build is of another branch");
    let place = format!("/api/v1/reuse/results/{}", Digest::of(b"one").to_hex());
    bench.call(&elsewhere, "GET", &format!("{place}/log?project=web"), "").await.is(403);
    let file = format!("{place}/files/{}?project=web", two.to_hex());
    bench.call(&elsewhere, "GET", &file, "").await.is(404);
}

#[tokio::test]
async fn what_is_asked_about_repositories_and_images_is_bounded_and_of_the_token_s_pipeline() {
    let bench = Bench::new().await;
    let token = bench.token(&[Scope::CacheRead], None, None).await;
    let only = bench.token(&[Scope::CacheRead], Some("api"), None).await;
    let long = "x".repeat(DETAIL_MAX_BYTES + 1);
    bench.call(&token, "GET", &format!("/api/v1/reuse/terms?name=web&repository={long}"), "").await.is(422);
    let image = async |token: &str, image: &str, platform: &str| {
        let body = json!({ "project": "web", "image": image, "platform": platform }).to_string();
        bench.call(token, "POST", "/api/v1/reuse/images", body).await.status.as_u16()
    };
    assert_eq!(image(&only, "alpine", "linux/amd64").await, 403);
    let long = "x".repeat(NAME_MAX_BYTES + 1);
    assert_eq!([image(&token, &long, "linux/amd64").await, image(&token, "alpine", &long).await], [422, 422]);
}
