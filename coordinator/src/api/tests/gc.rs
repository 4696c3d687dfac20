//! Letting go by policy: what live builds need stays for however long, the rest goes and says so.

use serde_json::{Value, json};
use windlass_cache::Policy;
use windlass_protocol::limits::EPOCH_MS;
use windlass_protocol::{Digest, Namespace, Shelf};

use super::builds::tree;
use super::{Bench, ONE_STEP, text};
use crate::config::CachePolicies;

pub(super) const DAY: u64 = 86_400_000;

/// A bench whose cache lets go of what nobody used for a day, and its clock.
pub(super) async fn bench() -> (Bench, windlass_cache::vfs::recorded::RecordingFs) {
    let (mut bench, fs) = Bench::timed().await;
    let_go_after_a_day(&mut bench);
    (bench, fs)
}

pub(super) fn let_go_after_a_day(bench: &mut Bench) {
    let day = Policy { max_bytes: None, max_age_ms: Some(DAY) };
    bench.set_policies(CachePolicies { trusted: day, overlay: day });
}

/// Time passes, and is seen to.
pub(super) fn pass(bench: &Bench, fs: &windlass_cache::vfs::recorded::RecordingFs, ms: u64) {
    fs.pass_ms(EPOCH_MS);
    bench.ground.fleet.store.note_epoch();
    fs.pass_ms(ms);
}

/// A sweep, at its end.
pub(super) async fn collect(bench: &Bench, dry_run: bool) -> Value {
    let mut shown = bench.post("/api/v1/cache/gc", json!({ "dry_run": dry_run })).await.is(200).json();
    while shown["state"] == "running" {
        tokio::task::yield_now().await;
        shown = bench.get("/api/v1/cache/gc").await.is(200).json();
    }
    assert_eq!((&shown["state"], &shown["dry_run"]), (&json!("done"), &json!(dry_run)), "{shown}");
    shown
}

pub(super) async fn submit(bench: &Bench, root: &Digest, definition: &str) -> Value {
    let body = json!({ "pipeline": "web", "definition": definition, "origin": { "tree": root } });
    bench.post("/api/v1/builds", body).await.is(201).json()
}

#[tokio::test]
async fn a_build_that_waits_for_weeks_finds_all_of_its_source_and_what_nobody_needs_goes() {
    let (bench, fs) = bench().await;
    let (web, store) = (Namespace::trusted("web"), bench.ground.fleet.store.clone());
    let none = bench.get("/api/v1/cache/gc").await.is(200).json();
    assert_eq!((&none["state"], &none["started_at"]), (&json!("none"), &Value::Null));
    let live = tree(&bench, &web, &[("a", "one"), ("d/b", "two")]);
    let over = tree(&bench, &web, &[("a", "one"), ("c", "three")]);
    let shelved = store.put(&web.on(Shelf::Artifacts), b"an artifact").unwrap();
    let waits = submit(&bench, &live, "steps:\n  - block: Go?\n  - command: make\n").await;
    let ended = submit(&bench, &over, "steps:\n  - wait\n").await;
    bench.ended(text(&ended["id"])).await;
    for _ in 0..4 {
        pass(&bench, &fs, 7 * DAY);
        let would = collect(&bench, true).await;
        assert!(store.blob_len(&web, &live).is_some());
        let went = collect(&bench, false).await;
        assert_eq!((&would["blobs"], &would["swept"]), (&went["blobs"], &went["swept"]));
        for bytes in [&b"one"[..], b"two"] {
            assert!(store.blob_len(&web, &Digest::of(bytes)).is_some());
        }
        assert!(store.blob_len(&web, &live).is_some());
        assert_eq!(store.blob_len(&web, &Digest::of(b"three")), None);
        assert_eq!(store.blob_len(&web, &over), None);
        assert!(store.blob_len(&web.on(Shelf::Artifacts), &shelved).is_some(), "rows say what stays there");
        assert_eq!(went["needed"], 4, "{went}");
    }
    let metrics = bench.get("/metrics").await.is(200).text();
    assert!(metrics.contains("windlass_cache_evicted_blobs_total{why=\"age\"} 2"), "{metrics}");
    // Once it is over it goes too.
    bench.post(&format!("/api/v1/builds/{}/cancel", text(&waits["id"])), json!({})).await.is(200);
    bench.ended(text(&waits["id"])).await;
    pass(&bench, &fs, 7 * DAY);
    let went = collect(&bench, false).await;
    assert_eq!((&went["blobs"], &went["needed"]), (&json!(4), &json!(0)), "{went}");
    assert_eq!(went["swept"][0]["why"], "age");
    assert_eq!((&went["swept"][0]["pipeline"], &went["swept"][0]["overlay"]), (&json!("web"), &Value::Null));
}

#[tokio::test]
async fn what_is_made_again_of_files_that_are_gone_is_refused_and_says_when_they_went() {
    let (mut bench, fs) = bench().await;
    let web = Namespace::trusted("web");
    let root = tree(&bench, &web, &[("a", "one")]);
    bench.agent().await;
    let build = submit(&bench, &root, ONE_STEP).await;
    let (id, job) = (text(&build["id"]).to_owned(), text(&build["jobs"][0]["id"]).to_owned());
    bench.run(1, b"").await;
    bench.ended(&id).await;
    pass(&bench, &fs, 7 * DAY);
    // Whatever is asked for again stays, all of it.
    bench.post(&format!("/api/v1/builds/{id}/retry"), json!({})).await.is(200);
    collect(&bench, false).await;
    assert_eq!(bench.ground.fleet.store.blob_len(&web, &Digest::of(b"one")), Some(3));
    bench.run(1, b"").await;
    bench.ended(&id).await;
    pass(&bench, &fs, 7 * DAY);
    collect(&bench, false).await;
    for path in [format!("builds/{id}/retry"), format!("jobs/{job}/retry"), format!("builds/{id}/rebuild")] {
        let refused = bench.post(&format!("/api/v1/{path}"), json!({})).await.is(422).json();
        assert_eq!(refused["type"], "/problems/source-missing", "{path}");
        let detail = text(&refused["detail"]);
        assert!(detail.contains("was here until") && detail.contains("because nobody used it"), "{detail}");
    }
    // With a part of it only somebody else's, it is as absent as before (I12).
    tree(&bench, &Namespace::trusted("other"), &[("a", "one")]);
    bench.ground.fleet.store.put(&web, &bench.ground.fleet.store.peek(&root, 1 << 20).unwrap().unwrap()).unwrap();
    bench.post(&format!("/api/v1/builds/{id}/retry"), json!({})).await.is(422);
    tree(&bench, &web, &[("a", "one")]);
    bench.post(&format!("/api/v1/builds/{id}/retry"), json!({})).await.is(200);
}
