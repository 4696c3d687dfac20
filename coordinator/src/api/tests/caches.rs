//! Caches: noted once all that their manifests name is there, held for as long as they are, and let go after.

use std::sync::Arc;

use windlass_cache::RealFs;
use windlass_cache::manifest::{Step, Writer};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Actor, ActorKind, CacheName, CacheRequest, CacheRow, Change, Scope};
use windlass_coordinator_store::Store as _;
use windlass_protocol::job::Epoch;
use windlass_protocol::message::{Ask, AskRefused, Asked, CacheQuery, FoundCache, NewCache, Told};
use windlass_protocol::{AttemptId, BuildId, Digest, JobId, Namespace, Shelf, WallMs};

use super::{Bench, id_of};

type Right = (AttemptId, Epoch);

fn shelf() -> Namespace {
    Namespace::trusted("web").on(Shelf::Caches)
}

async fn told(bench: &Bench, (attempt, epoch): Right, what: Asked) -> Told {
    let ask = Ask { attempt, epoch, call: [1; 16], what, body_bytes: 0 };
    bench.ground.fleet.jobs.ask(ask, Vec::new()).await
}

async fn save(bench: &Bench, right: Right, key: &str, manifest: &[u8]) -> Result<FoundCache, AskRefused> {
    let (scope, key, digest) = (Digest::of(b"paths"), key.to_owned(), Digest::of(manifest));
    let new = NewCache { scope, key, manifest: digest, manifest_bytes: manifest.len() as u64 };
    match told(bench, right, Asked::SaveCache(Box::new(new))).await {
        Told::Cache(Some(found)) => Ok(*found),
        Told::Refused { code, .. } => Err(code),
        other => panic!("{other:?}"),
    }
}

async fn find(bench: &Bench, right: Right, key: &str) -> Option<FoundCache> {
    let query = CacheQuery { scope: Digest::of(b"paths"), key: key.to_owned(), restore_keys: Vec::new() };
    match told(bench, right, Asked::FindCache(Box::new(query))).await {
        Told::Cache(found) => found.map(|found| *found),
        other => panic!("{other:?}"),
    }
}

/// A manifest of a directory with these files.
fn manifest(files: &[&[u8]]) -> Vec<u8> {
    let mut writer = Writer::new(1).unwrap();
    writer.push(&Step::Directory { name: Vec::new(), mode: 0o755, changed: 0 }).unwrap();
    for (at, text) in files.iter().enumerate() {
        let (name, digest) = (format!("f{at}").into_bytes(), Digest::of(text));
        let file = Step::File { name, mode: 0o644, changed: 0, bytes: text.len() as u64, digest };
        writer.push(&file).unwrap();
    }
    writer.push(&Step::End).unwrap();
    writer.finish().unwrap()
}

#[tokio::test]
async fn a_cache_is_noted_once_all_of_it_is_there() {
    let (bench, right) = Bench::running().await;
    let store = bench.ground.fleet.store.clone();
    let text = manifest(&[b"one", b"two"]);
    assert_eq!(save(&bench, right, "k", &text).await, Err(AskRefused::NotFound), "no manifest");
    store.put(&shelf(), &text).unwrap();
    store.put(&shelf(), b"one").unwrap();
    assert_eq!(save(&bench, right, "k", &text).await, Err(AskRefused::NotFound), "no second file");
    store.put(&Namespace::trusted("other").on(Shelf::Caches), b"two").unwrap();
    assert_eq!(save(&bench, right, "k", &text).await, Err(AskRefused::NotFound), "another's is no help");
    store.put(&shelf(), b"no manifest").unwrap();
    assert_eq!(save(&bench, right, "k", b"no manifest").await, Err(AskRefused::Invalid));
    assert_eq!(find(&bench, right, "k").await, None);
    // A source of the same readers need not be sent.
    store.put(&Namespace::trusted("web"), b"two").unwrap();
    let saved = save(&bench, right, "k", &text).await.unwrap();
    assert_eq!((saved.files, saved.bytes), (2, 6 + text.len() as u64), "counted here");
    assert_eq!(store.blob_len(&shelf(), &Digest::of(b"two")), Some(3));
    let other = manifest(&[b"one"]);
    store.put(&shelf(), &other).unwrap();
    assert_eq!(save(&bench, right, "k", &other).await.unwrap().manifest, Digest::of(&text), "the first one stands");
    assert_eq!(find(&bench, right, "k").await.map(|found| found.manifest), Some(Digest::of(&text)));
    bench.finish(right, 0, b"").await;
}

#[tokio::test]
async fn what_a_cache_names_stays_until_it_goes_and_one_that_comes_during_a_look_is_seen() {
    let (bench, right) = Bench::running().await;
    let (store, shelves) = (bench.ground.fleet.store.clone(), bench.ground.fleet.shelves.clone());
    let (reader, desk) = (bench.ground.fleet.reader.clone(), bench.ground.fleet.desk.clone());
    let text = manifest(&[b"named"]);
    for bytes in [text.as_slice(), b"named", b"nobody's"] {
        store.put(&shelf(), bytes).unwrap();
    }
    let has = |bytes: &[u8]| store.blob_len(&shelf(), &Digest::of(bytes)).is_some();
    let first = shelves.sweep((&reader, &desk), Vec::new()).await;
    assert_eq!(first.len(), 3, "nothing is named yet");
    save(&bench, right, "k", &text).await.unwrap();
    let second = shelves.sweep((&reader, &desk), first).await;
    assert_eq!((has(b"named"), has(&text), has(b"nobody's"), second.len()), (true, true, false, 0));
    let request = Request::Cache(Box::new(CacheRequest::Forget { unused_since: WallMs(u64::MAX) }));
    let actor = Actor { kind: ActorKind::System, name: "retention".to_owned() };
    bench.ground.fleet.desk.request(actor, request).await.unwrap();
    assert_eq!(find(&bench, right, "k").await, None);
    let third = shelves.sweep((&reader, &desk), Vec::new()).await;
    assert_eq!((third.len(), has(b"named")), (2, true), "rows go before blobs");
    shelves.sweep((&reader, &desk), third).await;
    assert_eq!((has(b"named"), has(&text)), (false, false));
    bench.finish(right, 0, b"").await;
}

#[tokio::test]
async fn an_entry_whose_manifest_cannot_be_read_goes_and_holds_up_nothing() {
    let (bench, right) = Bench::running().await;
    let (store, shelves) = (bench.ground.fleet.store.clone(), bench.ground.fleet.shelves.clone());
    let (reader, desk) = (bench.ground.fleet.reader.clone(), bench.ground.fleet.desk.clone());
    for bytes in [&b"no manifest"[..], b"nobody's"] {
        store.put(&shelf(), bytes).unwrap();
    }
    // As one that was written by another version: it was read when it was saved.
    let (scope, (attempt, epoch)) = (Digest::of(b"paths"), right);
    let save = |key: &str, text: &[u8]| CacheRequest::Save {
        attempt,
        epoch,
        scope,
        key: key.to_owned(),
        manifest: Digest::of(text),
        manifest_bytes: 1,
        files: 1,
        bytes: 1,
    };
    let actor = || Actor { kind: ActorKind::System, name: "t".to_owned() };
    for (key, text) in [("bad", &b"no manifest"[..]), ("gone", b"gone")] {
        desk.request(actor(), Request::Cache(Box::new(save(key, text)))).await.unwrap();
    }
    let good = manifest(&[b"named"]);
    for bytes in [good.as_slice(), b"named"] {
        store.put(&shelf(), bytes).unwrap();
    }
    desk.request(actor(), Request::Cache(Box::new(save("good", &good)))).await.unwrap();
    let first = shelves.sweep((&reader, &desk), Vec::new()).await;
    assert_eq!(first.len(), 2, "what the damaged one named, and nobody's: {first:?}");
    for (key, there) in [("bad", false), ("gone", false), ("good", true)] {
        assert_eq!(find(&bench, right, key).await.is_some(), there, "{key}");
    }
    // That it was read counts as asked for, until the next look.
    let second = shelves.sweep((&reader, &desk), first).await;
    shelves.sweep((&reader, &desk), second).await;
    let has = |bytes: &[u8]| store.blob_len(&shelf(), &Digest::of(bytes)).is_some();
    assert_eq!((has(b"nobody's"), has(b"no manifest"), has(b"named")), (false, false, true));
    bench.finish(right, 0, b"").await;
}

#[tokio::test]
async fn people_list_pin_and_remove_what_their_token_is_for() {
    let (bench, right) = Bench::running().await;
    let store = bench.ground.fleet.store.clone();
    for key in ["one", "two"] {
        let text = manifest(&[key.as_bytes()]);
        for bytes in [text.as_slice(), key.as_bytes()] {
            store.put(&shelf(), bytes).unwrap();
        }
        save(&bench, right, key, &text).await.unwrap();
    }
    let keys = |page: &serde_json::Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| format!("{} {}", item["key"].as_str().unwrap(), item["pinned"])).collect()
    };
    let reader = bench.token(&[Scope::CacheRead], Some("web"), None).await;
    let list = bench.call(&reader, "GET", "/api/v1/caches", "").await.is(200).json();
    assert_eq!(keys(&list), ["two false", "one false"]);
    assert_eq!((&list["items"][0]["pipeline"], &list["items"][0]["files"]), (&"web".into(), &1.into()));
    let first = bench.call(&reader, "GET", "/api/v1/caches?limit=1", "").await.is(200).json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = bench.call(&reader, "GET", &format!("/api/v1/caches?limit=1&cursor={cursor}"), "").await.is(200).json();
    assert_eq!((keys(&first), keys(&rest)), (vec!["two false".to_owned()], vec!["one false".to_owned()]));
    let stranger = bench.token(&[Scope::CacheRead, Scope::CacheWrite, Scope::BuildsTrusted], Some("api"), None).await;
    let theirs = bench.call(&stranger, "GET", "/api/v1/caches", "").await.is(200).json();
    assert_eq!(keys(&theirs), [""; 0]);
    bench.call(&stranger, "GET", "/api/v1/caches?pipeline=web", "").await.is(403);

    let one = format!("/api/v1/caches/{}", list["items"][1]["id"].as_str().unwrap());
    let pin = format!("{one}/pin");
    bench.call(&stranger, "DELETE", &one, "").await.is(404);
    let untrusted = bench.token(&[Scope::CacheWrite], None, None).await;
    bench.call(&untrusted, "PUT", &pin, "").await.is(403);
    let writer = bench.token(&[Scope::CacheWrite, Scope::BuildsTrusted], Some("web"), None).await;
    bench.call(&writer, "PUT", &pin, "").await.is(204);
    bench.call(&writer, "PUT", "/api/v1/caches/99/pin", "").await.is(404);
    let list = bench.call(&reader, "GET", "/api/v1/caches?pipeline=web", "").await.is(200).json();
    assert_eq!(keys(&list), ["two false", "one true"]);
    bench.call(&writer, "DELETE", &pin, "").await.is(204);
    bench.call(&writer, "DELETE", &one, "").await.is(204);
    assert_eq!(find(&bench, right, "one").await, None);
    let all = bench.token(&[Scope::CacheRead], None, None).await;
    let stats = bench.call(&all, "GET", "/api/v1/cache/stats", "").await.is(200).json();
    assert!(stats["blobs"].as_u64() >= Some(4) && stats["zones"].is_array(), "{stats}");
    bench.finish(right, 0, b"").await;
}

/// A key says what somebody works on.
#[tokio::test]
async fn caches_of_untrusted_builds_are_shown_to_who_may_read_those_builds_and_to_nobody_else() {
    let bench = Bench::new().await;
    let build: BuildId = bench.build().await["id"].as_str().unwrap().parse().unwrap();
    let blind = bench.token(&[Scope::CacheRead, Scope::CacheWrite], Some("web"), None).await;
    let reads = bench.token(&[Scope::CacheRead, Scope::BuildsRead], Some("web"), None).await;
    let branch = bench.ground.fleet.reader.build(build).await.unwrap().unwrap().1.build.branch;
    let same = bench.token(&[Scope::CacheRead, Scope::BuildsRead], Some("web"), Some(&branch)).await;
    let other = bench.token(&[Scope::CacheRead, Scope::BuildsRead], Some("web"), Some("release")).await;
    let elsewhere = bench.token(&[Scope::CacheRead, Scope::BuildsRead], Some("api"), None).await;
    let own = Namespace::overlay("web", &format!("token:{}", id_of(&blind)));
    // Rows come as they would have from jobs, before the coordinator starts again.
    let mut memory = bench.memory.clone();
    drop(bench);
    let writer = memory.claim().unwrap();
    let of = |namespace: Namespace, key: &str, build: BuildId| {
        let name = CacheName { namespace, scope: Digest::of(b"paths"), key: key.to_owned() };
        let (manifest, at) = (Digest::of(key.as_bytes()), WallMs(1));
        let (files, bytes, manifest_bytes, pinned) = (1, 1, 1, false);
        let job = JobId::from_bytes([1; 16]);
        let row =
            CacheRow { name, manifest, manifest_bytes, files, bytes, build, job, created_at: at, used_at: at, pinned };
        Change::Cache(Box::new(row))
    };
    let gone = BuildId::from_bytes([9; 16]);
    let rows = [
        of(Namespace::trusted("web"), "trusted", gone),
        of(own, "own", gone),
        of(Namespace::overlay("web", "pr:1"), "of a build", build),
        of(Namespace::overlay("web", "pr:2"), "of one that is gone", gone),
    ];
    memory.commit(writer, &rows).unwrap();
    let bench = Bench::over(Arc::new(RealFs), memory).await;
    let shown = async |token: &str| -> Vec<String> {
        let list = bench.call(token, "GET", "/api/v1/caches", "").await.is(200).json();
        list["items"].as_array().unwrap().iter().map(|item| item["key"].as_str().unwrap().to_owned()).collect()
    };
    let all = ["of one that is gone", "of a build", "own", "trusted"];
    assert_eq!(shown(&reads).await, all);
    assert_eq!(shown(&blind).await, all[2..]);
    assert_eq!(shown(&same).await, [all[1], all[3]]);
    assert_eq!(shown(&other).await, all[3..]);
    assert_eq!(shown(&elsewhere).await, [""; 0]);
    let list = bench.call(&reads, "GET", "/api/v1/caches", "").await.is(200).json();
    let theirs = format!("/api/v1/caches/{}", list["items"][1]["id"].as_str().unwrap());
    bench.call(&blind, "DELETE", &theirs, "").await.is(404);
    bench.call(&blind, "PUT", &format!("{theirs}/pin"), "").await.is(404);
}
