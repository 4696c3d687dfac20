//! Blobs: both ways, checked, and invisible outside of their namespace.

use serde_json::json;
use windlass_cache::PackWriter;
use windlass_coordinator_core::row::Scope;
use windlass_protocol::limits::{BLOB_SMALL_MAX_BYTES, MISSING_MAX_DIGESTS};
use windlass_protocol::{Digest, Trust};

use super::{Bench, request};

fn path(digest: &Digest) -> String {
    format!("/api/v1/blobs/b3/{}?project=web", digest.to_hex())
}

#[tokio::test]
async fn a_blob_comes_back_as_it_was_sent_small_and_large() {
    let bench = Bench::new().await;
    for bytes in [Vec::new(), b"small".to_vec(), vec![7; BLOB_SMALL_MAX_BYTES * 20 + 3]] {
        let digest = Digest::of(&bytes);
        let missing = async || {
            let body = json!({ "digests": [digest, digest] });
            bench.post("/api/v1/blobs/missing?project=web", body).await.is(200).json()["missing"].clone()
        };
        assert_eq!(missing().await, json!([digest]));
        bench.get(&path(&digest)).await.is(404);
        let stored = bench.call(&bench.admin, "PUT", &path(&digest), bytes.clone()).await.is(201).json();
        assert_eq!(stored, json!({ "digest": digest, "bytes": bytes.len() }));
        assert_eq!(missing().await, json!([]));
        let got = bench.get(&path(&digest)).await.is(200);
        assert!(got.body == bytes, "{} bytes", bytes.len());
        let head = bench.call(&bench.admin, "HEAD", &path(&digest), "").await.is(200);
        assert_eq!((head.header("content-length"), head.body.len()), (bytes.len().to_string().as_str(), 0));
        assert_eq!(head.header("etag"), format!("\"{digest}\""));
    }
}

#[tokio::test]
async fn bytes_that_are_not_what_they_are_called_are_refused_and_leave_nothing() {
    let bench = Bench::new().await;
    let digest = Digest::of(b"right");
    let refused = bench.call(&bench.admin, "PUT", &path(&digest), "wrong").await.is(422).json();
    assert_eq!(refused["type"], "/problems/digest-mismatch");
    bench.get(&path(&digest)).await.is(404);
    let mut pack = PackWriter::new(Vec::new()).unwrap();
    pack.add(&digest, b"wrong").unwrap();
    let refused = bench.call(&bench.admin, "POST", "/api/v1/blobs/pack?project=web", pack.finish().unwrap()).await;
    assert_eq!(refused.is(422).json()["type"], "/problems/digest-mismatch");
    bench.get(&path(&digest)).await.is(404);
}

#[tokio::test]
async fn a_pack_stores_all_its_blobs_and_one_that_was_cut_is_refused() {
    let bench = Bench::new().await;
    let blobs: Vec<Vec<u8>> = (0..300_u32).map(|n| n.to_le_bytes().repeat(300)).collect();
    let mut pack = PackWriter::new(Vec::new()).unwrap();
    for blob in &blobs {
        pack.add(&Digest::of(blob), blob).unwrap();
    }
    let pack = pack.finish().unwrap();
    let digests: Vec<_> = blobs.iter().map(|blob| Digest::of(blob)).collect();
    let cut = pack[..pack.len() - 1].to_vec();
    let send = async |body: Vec<u8>| bench.call(&bench.admin, "POST", "/api/v1/blobs/pack?project=web", body).await;
    assert_eq!(send(cut).await.is(422).json()["type"], "/problems/pack-invalid");
    assert_eq!(send(pack).await.is(201).json(), json!({ "digests": digests }));
    let body = json!({ "digests": digests });
    assert_eq!(bench.post("/api/v1/blobs/missing?project=web", body).await.is(200).json(), json!({ "missing": [] }));
    assert_eq!(bench.get(&path(&digests[299])).await.is(200).body, blobs[299]);
}

#[tokio::test]
async fn no_token_learns_of_anothers_bytes_nor_of_another_projects() {
    let bench = Bench::new().await;
    let scopes = [Scope::CacheRead, Scope::CacheWrite];
    let (one, other) = (bench.token(&scopes, None, None).await, bench.token(&scopes, None, None).await);
    let (own, trusted) = (Digest::of(b"own"), Digest::of(b"trusted"));
    bench.call(&one, "PUT", &path(&own), "own").await.is(201);
    bench.call(&bench.admin, "PUT", &path(&trusted), "trusted").await.is(201);
    let sees = async |token: &str, path: &str, digest: &Digest| {
        let got = bench.call(token, "GET", path, "").await.status == 200;
        let head = bench.call(token, "HEAD", path, "").await.status == 200;
        let project = path.split_once('?').unwrap().1;
        let body = json!({ "digests": [digest] }).to_string();
        let missing = bench.call(token, "POST", &format!("/api/v1/blobs/missing?{project}"), body).await.is(200).json();
        assert_eq!((got, head), (head, missing == json!({ "missing": [] })), "all three agree");
        got
    };
    assert!(sees(&one, &path(&own), &own).await);
    assert!(sees(&one, &path(&trusted), &trusted).await, "an overlay reads what is trusted");
    assert!(!sees(&other, &path(&own), &own).await);
    assert!(!sees(&bench.admin, &path(&own), &own).await, "what is trusted never reads an overlay");
    let elsewhere = path(&trusted).replace("=web", "=api");
    assert!(!sees(&bench.admin, &elsewhere, &trusted).await);
    let only_api = bench.token(&[Scope::Admin], Some("api"), None).await;
    bench.call(&only_api, "GET", &path(&trusted), "").await.is(403);
    assert!(!sees(&only_api, &elsewhere, &trusted).await);
}

#[tokio::test]
async fn what_asks_for_too_much_is_refused_before_it_is_read() {
    let bench = Bench::new().await;
    let digests = vec![Digest::of(b"x"); MISSING_MAX_DIGESTS + 1];
    let refused = bench.post("/api/v1/blobs/missing?project=web", json!({ "digests": digests })).await.is(422).json();
    assert_eq!(refused["type"], "/problems/limit-reached");
    let huge = request(&bench.admin, "PUT", &path(&Digest::of(b"x"))).header("content-length", u64::MAX);
    assert_eq!(bench.send(huge.body("".into()).unwrap()).await.is(413).json()["type"], "/problems/too-large");
    let room: Vec<_> = std::iter::from_fn(|| bench.ground.uploads.try_enter(Trust::Trusted)).collect();
    let busy = bench.call(&bench.admin, "PUT", &path(&Digest::of(b"x")), "x").await.is(503);
    assert_eq!((busy.header("retry-after"), busy.json()["type"].as_str()), ("1", Some("/problems/unavailable")));
    drop(room);
    bench.call(&bench.admin, "PUT", &path(&Digest::of(b"x")), "x").await.is(201);
}

/// What anybody is told of the store, by way of a page that needs no token.
async fn scraped(bench: &Bench, token: &str) -> Vec<String> {
    let page = bench.call(token, "GET", "/metrics", "").await.is(200).text();
    let lines = page.lines().filter(|line| line.starts_with("windlass_cache") && !line.contains("_requests"));
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    // Those of one family come in no order.
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn whoever_puts_what_another_has_sees_the_same_change_as_whoever_puts_what_nobody_has() {
    let secret = vec![7; BLOB_SMALL_MAX_BYTES * 5];
    let mut told = Vec::new();
    for known in [true, false] {
        let bench = Bench::new().await;
        let stranger = bench.token(&[Scope::CacheRead, Scope::CacheWrite], None, None).await;
        // As much is there either way.
        let theirs = if known { secret.clone() } else { vec![8; secret.len()] };
        let elsewhere = path(&Digest::of(&theirs)).replace("=web", "=vault");
        bench.call(&bench.admin, "PUT", &elsewhere, theirs).await.is(201);
        let before = scraped(&bench, "").await;
        bench.call(&stranger, "PUT", &path(&Digest::of(&secret)), secret.clone()).await.is(201);
        let after = scraped(&bench, "").await;
        assert_ne!(before, after, "what is stored is counted");
        told.push((before, after));
        assert_eq!(scraped(&bench, &stranger).await, scraped(&bench, "").await, "nor is more said to the stranger");
        bench.call(&stranger, "GET", "/api/v1/cache/stats", "").await.is(403);
        let operator = bench.token(&[Scope::CacheRead], None, None).await;
        for token in [&operator, &bench.admin] {
            bench.call(token, "GET", "/api/v1/cache/stats", "").await.is(200);
            let page = scraped(&bench, token).await;
            let stored = format!("windlass_cache_stored_bytes {}", if known { 1 } else { 2 } * secret.len());
            assert!(page.contains(&stored), "{page:?}");
        }
        bench.call("wla_nobody", "GET", "/metrics", "").await.is(401);
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test]
async fn an_overlay_takes_so_many_bytes_and_no_more_whichever_way_they_come() {
    let mut bench = Bench::new().await;
    let policy = windlass_cache::Policy { max_bytes: Some(50_000), max_age_ms: None };
    bench.set_policies(crate::config::CachePolicies { trusted: policy, overlay: policy });
    let stranger = bench.token(&[Scope::CacheRead, Scope::CacheWrite], None, None).await;
    let trusted = bench.token(&[Scope::CacheWrite, Scope::BuildsTrusted], None, None).await;
    let put = async |token: &str, bytes: Vec<u8>| {
        bench.call(token, "PUT", &path(&Digest::of(&bytes)), bytes).await.status.as_u16()
    };
    assert_eq!(put(&stranger, vec![1; 60_000]).await, 201);
    assert_eq!(put(&stranger, vec![2; 41_000]).await, 201, "nobody knew how much would come");
    assert_eq!(put(&stranger, vec![3; 2_000]).await, 422);
    let begin = json!({ "digest": Digest::of(b"large"), "bytes": 200_000 }).to_string();
    bench.call(&stranger, "POST", "/api/v1/uploads?project=web", begin.clone()).await.is(422);
    bench.call(&stranger, "POST", "/api/v1/blobs/pack?project=web", vec![0; 5_000]).await.is(422);
    for n in 0..3 {
        assert_eq!(put(&trusted, vec![n; 60_000]).await, 201, "what is trusted is let go of, and not refused");
    }
    bench.call(&trusted, "POST", "/api/v1/uploads?project=web", begin).await.is(201);
}
