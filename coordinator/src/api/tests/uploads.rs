//! Uploads in as many requests as it takes: gone on with where they stopped, by whoever began them and nobody else.

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use windlass_coordinator_core::row::Scope;
use windlass_protocol::Digest;

use super::{Answer, Bench, request};

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed << 32 | 0x9E37_79B9;
    let next = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

async fn create(bench: &Bench, token: &str, place: &str, blob: &[u8]) -> Answer {
    let body = json!({ "digest": Digest::of(blob), "bytes": blob.len() }).to_string();
    bench.call(token, "POST", &format!("/api/v1/uploads?{place}"), body).await
}

fn path(upload: &Value) -> String {
    format!("/api/v1/uploads/{}", upload["id"].as_str().unwrap())
}

async fn append(bench: &Bench, token: &str, path: &str, offset: u64, body: impl Into<Body>) -> Answer {
    let head = request(token, "PATCH", path).header("upload-offset", offset);
    bench.send(head.header("content-type", "application/partial-upload").body(body.into()).unwrap()).await
}

/// A body that breaks off after these bytes.
fn broken(bytes: &[u8]) -> Body {
    let pieces = [Ok(Bytes::copy_from_slice(bytes)), Err(std::io::Error::other("the connection broke"))];
    Body::from_stream(futures_util::stream::iter(pieces))
}

#[tokio::test]
async fn after_a_broken_connection_the_client_learns_how_far_it_came_and_sends_the_rest() {
    let bench = Bench::new().await;
    let blob = noise(1, 600_000);
    let begun = create(&bench, &bench.admin, "project=web", &blob).await.is(201);
    let upload = begun.json();
    assert_eq!(begun.header("location"), path(&upload));
    assert_eq!((begun.header("upload-offset"), begun.header("upload-length")), ("0", "600000"));
    let path = path(&upload);
    append(&bench, &bench.admin, &path, 0, broken(&blob[..250_000])).await.is(400);
    let head = bench.call(&bench.admin, "HEAD", &path, "").await.is(204);
    assert_eq!((head.header("upload-offset"), head.header("upload-complete")), ("250000", "?0"));
    assert_eq!(head.header("cache-control"), "no-store");
    // Who forgot the id begins again, and finds it.
    let again = create(&bench, &bench.admin, "project=web", &blob).await.is(200).json();
    assert_eq!((&again["id"], &again["offset"], &again["complete"]), (&upload["id"], &json!(250_000), &json!(false)));
    let wrong = append(&bench, &bench.admin, &path, 0, blob.clone()).await.is(409);
    assert_eq!(
        (wrong.header("upload-offset"), wrong.json()["type"].as_str()),
        ("250000", Some("/problems/upload-offset"))
    );
    let some = append(&bench, &bench.admin, &path, 250_000, blob[250_000..300_000].to_vec()).await.is(204);
    assert_eq!((some.header("upload-offset"), some.header("upload-complete")), ("300000", "?0"));
    let digest = Digest::of(&blob);
    bench.get(&format!("/api/v1/blobs/b3/{}?project=web", digest.to_hex())).await.is(404);
    let stored = append(&bench, &bench.admin, &path, 300_000, blob[300_000..].to_vec()).await.is(201);
    assert_eq!(stored.json(), json!({ "digest": digest, "bytes": 600_000 }));
    assert_eq!((stored.header("upload-offset"), stored.header("upload-complete")), ("600000", "?1"));
    let got = bench.get(&format!("/api/v1/blobs/b3/{}?project=web", digest.to_hex())).await.is(200);
    assert!(got.body == blob);
    bench.call(&bench.admin, "HEAD", &path, "").await.is(404);
    let there = create(&bench, &bench.admin, "project=web", &blob).await.is(200).json();
    assert_eq!((&there["id"], &there["complete"], &there["offset"]), (&Value::Null, &json!(true), &json!(600_000)));
}

#[tokio::test]
async fn an_upload_is_of_its_token_alone_and_tells_nobody_else_anything() {
    let bench = Bench::new().await;
    let (one, other) =
        (bench.token(&[Scope::CacheWrite], None, None).await, bench.token(&[Scope::CacheWrite], None, None).await);
    let blob = noise(1, 100_000);
    let upload = create(&bench, &one, "project=web", &blob).await.is(201).json();
    let path = path(&upload);
    append(&bench, &one, &path, 0, broken(&blob[..50_000])).await.is(400);
    for token in [&other, &bench.admin] {
        bench.call(token, "HEAD", &path, "").await.is(404);
        append(&bench, token, &path, 50_000, blob[50_000..].to_vec()).await.is(404);
        bench.call(token, "DELETE", &path, "").await.is(404);
        let own = create(&bench, token, "project=web", &blob).await.is(201).json();
        assert_eq!(own["offset"], 0, "bytes of another are no beginning of one's own");
    }
    bench.call(&one, "HEAD", &path, "").await.is(204);
    append(&bench, &one, &path, 50_000, blob[50_000..].to_vec()).await.is(201);
    let seen = create(&bench, &other, "project=web", &blob).await.is(200).json();
    assert_eq!(seen["complete"], false, "what another's overlay has is not there");
    bench.call(&bench.token(&[Scope::CacheRead], None, None).await, "HEAD", &path, "").await.is(403);
    let elsewhere = bench.token(&[Scope::CacheWrite], Some("api"), None).await;
    create(&bench, &elsewhere, "project=web", &blob).await.is(403);
}

#[tokio::test]
async fn a_new_connection_takes_the_upload_from_one_that_hangs() {
    let bench = Bench::new().await;
    let blob = noise(1, 500_000);
    let upload = create(&bench, &bench.admin, "project=web", &blob).await.is(201).json();
    let path = path(&upload);
    let (send, mut pieces) = mpsc::channel::<Bytes>(1);
    let body =
        Body::from_stream(futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx)).map(Ok::<_, std::io::Error>));
    let hangs = append(&bench, &bench.admin, &path, 0, body);
    let goes_on = async {
        send.send(Bytes::copy_from_slice(&blob[..300_000])).await.unwrap();
        // The first has its turn before the second asks for one; how much of it was taken by then is no matter.
        send.send(Bytes::from_static(b"")).await.unwrap();
        let head = bench.call(&bench.admin, "HEAD", &path, "").await.is(204);
        let offset: u64 = head.header("upload-offset").parse().unwrap();
        let from = usize::try_from(offset).unwrap();
        append(&bench, &bench.admin, &path, offset, blob[from..].to_vec()).await.is(201);
    };
    let (hung, ()) = tokio::join!(hangs, goes_on);
    assert_eq!(hung.is(409).json()["type"], "/problems/conflict");
}

#[tokio::test]
async fn bytes_that_are_not_what_they_were_called_are_refused_and_given_up() {
    let bench = Bench::new().await;
    let (blob, other) = (noise(1, 100_000), noise(2, 100_000));
    let upload = create(&bench, &bench.admin, "project=web", &blob).await.is(201).json();
    let refused = append(&bench, &bench.admin, &path(&upload), 0, other).await.is(422).json();
    assert_eq!(refused["type"], "/problems/digest-mismatch");
    bench.call(&bench.admin, "HEAD", &path(&upload), "").await.is(404);
    let upload = create(&bench, &bench.admin, "project=web", &blob).await.is(201).json();
    append(&bench, &bench.admin, &path(&upload), 0, [&blob[..], b"more"].concat()).await.is(422);
    bench.call(&bench.admin, "DELETE", &path(&upload), "").await.is(204);
    bench.call(&bench.admin, "DELETE", &path(&upload), "").await.is(404);
    create(&bench, &bench.admin, "project=web", b"small").await.is(422);
    create(&bench, &bench.admin, "", &blob).await.is(422);
    create(&bench, &bench.admin, "project=web&build=latest", &blob).await.is(422);
    let upload = create(&bench, &bench.admin, "project=web", &blob).await.is(201).json();
    let unsaid = request(&bench.admin, "PATCH", &path(&upload));
    bench.send(unsaid.body(Body::from("x")).unwrap()).await.is(422);
}

#[tokio::test]
async fn a_disk_without_room_refuses_before_a_byte_is_taken_and_loses_nothing() {
    let bench = Bench::new().await;
    let store = bench.ground.fleet.store.clone();
    let kept = noise(1, 100_000);
    let of = |blob: &[u8]| format!("/api/v1/blobs/b3/{}?project=web", Digest::of(blob).to_hex());
    bench.call(&bench.admin, "PUT", &of(&kept), kept.clone()).await.is(201);
    // Others take all but a little of what is there.
    let Err(windlass_cache::Fault::NoSpace { left_bytes, .. }) = store.reserve(u64::MAX / 2, 0) else {
        panic!("a disk without end");
    };
    let held = store.reserve(left_bytes / 257 * 256 - (1 << 30), 0).unwrap();
    let huge = request(&bench.admin, "PUT", &of(b"huge")).header("content-length", 60_u64 << 30);
    let refused = bench.send(huge.body(Body::empty()).unwrap()).await.is(507);
    assert_eq!(refused.json()["type"], "/problems/storage-full");
    let body = json!({ "digest": Digest::of(b"huge"), "bytes": 60_u64 << 30 }).to_string();
    let upload = bench.call(&bench.admin, "POST", "/api/v1/uploads?project=web", body).await.is(201).json();
    append(&bench, &bench.admin, &path(&upload), 0, "x").await.is(507);
    bench.get(&of(&kept)).await.is(200);
    drop(held);
    assert_eq!(store.stats().reserved_bytes, 0);
}

#[tokio::test]
async fn an_artifact_is_made_of_an_upload_once_all_of_it_came() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let build = bench.build().await;
    bench.start().await;
    let blob = noise(1, 300_000);
    let id = build["id"].as_str().unwrap();
    let upload = create(&bench, &bench.admin, &format!("build={id}"), &blob).await.is(201).json();
    let place = format!(
        "/api/v1/builds/{id}/artifacts?path=a.bin&digest={}&bytes=300000&upload={}",
        Digest::of(&blob),
        upload["id"].as_str().unwrap()
    );
    let put = async || bench.call(&bench.admin, "PUT", &place, "").await;
    append(&bench, &bench.admin, &path(&upload), 0, blob[..100_000].to_vec()).await.is(204);
    let early = put().await.is(409);
    assert_eq!(
        (early.header("upload-offset"), early.json()["type"].as_str()),
        ("100000", Some("/problems/upload-offset"))
    );
    append(&bench, &bench.admin, &path(&upload), 100_000, blob[100_000..].to_vec()).await.is(204);
    let other = place.replace(&Digest::of(&blob).to_string(), &Digest::of(b"other").to_string());
    assert_eq!(bench.call(&bench.admin, "PUT", &other, "").await.is(409).json()["type"], "/problems/conflict");
    let artifact = put().await.is(201).json();
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &blob);
    assert_eq!(artifact["sha256"], windlass_protocol::hex::to(sha256.as_ref()));
    put().await.is(200);
    let got = bench.get(&format!("/api/v1/artifacts/{}", artifact["id"].as_str().unwrap())).await.is(200);
    assert!(got.body == blob);
    bench.call(&bench.admin, "HEAD", &path(&upload), "").await.is(404);
}

#[tokio::test]
async fn an_admin_has_every_byte_checked_and_what_is_damaged_is_named_and_served_no_more() {
    let bench = Bench::new().await;
    let (right, wrong) = (noise(1, 200_000), noise(2, 200_000));
    let of = |blob: &[u8]| format!("/api/v1/blobs/b3/{}?project=web", Digest::of(blob).to_hex());
    assert_eq!(bench.get("/api/v1/cache/verify").await.is(200).json()["state"], "none");
    for blob in [&right, &wrong] {
        bench.call(&bench.admin, "PUT", &of(blob), blob.clone()).await.is(201);
    }
    let chunks = bench._dir.path().join("cache/chunks/0000000000000001");
    let mut bytes = std::fs::read(&chunks).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(&chunks, bytes).unwrap();
    assert_eq!(bench.call(&bench.admin, "POST", "/api/v1/cache/verify", "").await.is(200).json()["state"], "running");
    let done = loop {
        let shown = bench.get("/api/v1/cache/verify").await.is(200).json();
        if shown["state"] != "running" {
            break shown;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&done["state"], &done["blobs"], &done["damaged_blobs"]), (&json!("done"), &json!(2), &json!(1)));
    assert_eq!((&done["damaged"], &done["complete"]), (&json!([Digest::of(&wrong)]), &json!(true)));
    bench.get(&of(&wrong)).await.is(404);
    assert!(bench.get(&of(&right)).await.is(200).body == right);
    bench.call(&bench.admin, "PUT", &of(&wrong), wrong.clone()).await.is(201);
    assert!(bench.get(&of(&wrong)).await.is(200).body == wrong, "it can come again");
}
