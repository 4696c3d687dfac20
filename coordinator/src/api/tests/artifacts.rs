//! Artifacts: what jobs note is listed, served whole and in part, found by other jobs that may read it, and let go in time.

use serde_json::{Value, json};
use windlass_coordinator_core::row::Scope;
use windlass_coordinator_store::Retention;
use windlass_protocol::job::Epoch;
use windlass_protocol::message::{ArtifactQuery, Ask, AskRefused, Asked, NewArtifact, Told};
use windlass_protocol::{AttemptId, BuildId, Digest, Namespace, Shelf, WallMs};

use super::{Bench, request, text};

fn artifact(path: &str, bytes: &[u8]) -> NewArtifact {
    NewArtifact {
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        digest: Digest::of(bytes),
        sha1: [0xA1; 20],
        sha256: [0x0B; 32],
        content_type: "text/html; charset=utf-8".to_owned(),
    }
}

/// The shelf of the pipeline's trusted builds.
pub(super) fn shelf() -> Namespace {
    Namespace::trusted("web").on(Shelf::Artifacts)
}

async fn told(bench: &Bench, (attempt, epoch): (AttemptId, Epoch), call: u8, what: Asked) -> Told {
    let ask = Ask { attempt, epoch, call: [call; 16], what, body_bytes: 0 };
    bench.ground.fleet.jobs.ask(ask, Vec::new()).await
}

pub(super) async fn add(bench: &Bench, right: (AttemptId, Epoch), call: u8, files: &[(&str, &[u8])]) -> Told {
    let artifacts = files.iter().map(|(path, bytes)| artifact(path, bytes)).collect();
    told(bench, right, call, Asked::AddArtifacts { artifacts }).await
}

async fn found(
    bench: &Bench,
    right: (AttemptId, Epoch),
    path: &str,
    build: Option<BuildId>,
) -> Result<Vec<String>, AskRefused> {
    let query = ArtifactQuery { build, path: path.to_owned(), step: String::new(), retried: false, before: None };
    match told(bench, right, 99, Asked::FindArtifacts(Box::new(query))).await {
        Told::Artifacts(found) => Ok(found.into_iter().map(|found| found.artifact.path).collect()),
        Told::Refused { code, .. } => Err(code),
        other => panic!("{other:?}"),
    }
}

pub(super) fn paths(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| text(&item["path"])).collect()
}

/// A build whose one job runs, with its right.
async fn running(bench: &mut Bench) -> (Value, (AttemptId, Epoch)) {
    let build = bench.build().await;
    let right = bench.start().await;
    (build, right)
}

#[tokio::test]
async fn what_a_job_notes_is_listed_and_served_whole_and_in_part() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let (build, right) = running(&mut bench).await;
    let (small, large) = (&b"<p>hello"[..], &vec![7_u8; 300_000][..]);
    assert!(matches!(
        add(&bench, right, 1, &[("log/a.html", small)]).await,
        Told::Refused { code: AskRefused::NotFound, .. }
    ));
    for bytes in [small, large] {
        bench.ground.fleet.store.put(&shelf(), bytes).unwrap();
    }
    assert_eq!(add(&bench, right, 2, &[("log/a.html", small), ("big \"1\".bin", large)]).await, Told::Done);
    assert_eq!(add(&bench, right, 2, &[("log/a.html", small), ("big \"1\".bin", large)]).await, Told::Done, "once");
    let wrong_length = NewArtifact { bytes: 9, ..artifact("x", small) };
    let refused = told(&bench, right, 3, Asked::AddArtifacts { artifacts: vec![wrong_length] }).await;
    assert!(matches!(refused, Told::Refused { code: AskRefused::NotFound, .. }), "{refused:?}");
    let base = format!("/api/v1/builds/{}/artifacts", text(&build["id"]));
    let list = bench.get(&base).await.is(200).json();
    assert_eq!(paths(&list), ["big \"1\".bin", "log/a.html"], "newest first");
    let first = bench.get(&format!("{base}?limit=1")).await.is(200).json();
    let next = bench.get(&format!("{base}?limit=1&cursor={}", text(&first["next_cursor"]))).await.is(200).json();
    assert_eq!((paths(&first), paths(&next)), (vec!["big \"1\".bin"], vec!["log/a.html"]));
    assert_eq!(next["next_cursor"], Value::Null);
    for (query, expected) in [("path=log/*", 1), ("step=one", 2), ("path=nothing", 0), ("retried=true", 2)] {
        assert_eq!(paths(&bench.get(&format!("{base}?{query}")).await.is(200).json()).len(), expected, "{query}");
    }
    bench.get(&format!("{base}?step=nowhere")).await.is(404);
    bench.get(&format!("{base}?nonsense=1")).await.is(422);
    let item = &list["items"][1];
    assert_eq!((&item["digest"], &item["attempt"]), (&json!(Digest::of(small).to_string()), &json!(1)));
    assert_eq!((&item["job_id"], &item["bytes"]), (&build["jobs"][0]["id"], &json!(8)));
    assert!(text(&item["expires_at"]) > text(&item["created_at"]), "{item}");
    let path = format!("/api/v1/artifacts/{}", text(&item["id"]));
    assert_eq!(bench.get(&format!("{path}/info")).await.is(200).json(), *item);
    let whole = bench.get(&path).await.is(200);
    assert_eq!(&whole.body[..], small);
    assert_eq!(whole.header("repr-digest"), "sha-256=:CwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCws=:");
    assert_eq!(whole.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(whole.header("content-disposition"), "attachment; filename*=UTF-8''a.html");
    assert_eq!(whole.header("content-security-policy"), "sandbox; default-src 'none'");
    assert_eq!((whole.header("content-length"), whole.header("accept-ranges")), ("8", "bytes"));
    let tag = whole.header("etag").to_owned();
    let ranged =
        |range: &str, path: &str| request(&bench.admin, "GET", path).header("range", range).body("".into()).unwrap();
    let part = bench.send(ranged("bytes=3-5", &path)).await.is(206);
    assert_eq!((&part.body[..], part.header("content-range")), (&b"hel"[..], "bytes 3-5/8"));
    assert_eq!(part.header("repr-digest"), whole.header("repr-digest"), "of the whole");
    bench.send(ranged("bytes=9-", &path)).await.is(416);
    let large_path = format!("/api/v1/artifacts/{}", text(&list["items"][0]["id"]));
    let part = bench.send(ranged("bytes=-200000", &large_path)).await.is(206);
    assert_eq!((part.body.len(), part.header("content-range")), (200_000, "bytes 100000-299999/300000"));
    let seen = request(&bench.admin, "GET", &path).header("if-none-match", tag).body("".into()).unwrap();
    assert!(bench.send(seen).await.is(304).body.is_empty());
    let head = bench.call(&bench.admin, "HEAD", &large_path, "").await.is(200);
    assert_eq!((head.body.len(), head.header("content-length")), (0, "300000"));
    let job = bench.get(&format!("/api/v1/builds/{}", text(&build["id"]))).await.is(200).json();
    assert_eq!(job["jobs"][0]["artifacts_count"], json!(2));
}

#[tokio::test]
async fn files_that_may_be_executed_are_told_to_whoever_asks_for_modes() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let (build, right) = running(&mut bench).await;
    bench.ground.fleet.store.put(&shelf(), b"x").unwrap();
    let artifacts = vec![artifact("a", b"x"), artifact("tool", b"x"), artifact("z", b"x")];
    let what = Asked::AddFiles { artifacts, executable: vec![1] };
    assert_eq!(told(&bench, right, 1, what).await, Told::Done);
    assert_eq!(add(&bench, right, 2, &[("old", b"x")]).await, Told::Done, "an agent of before");
    let query = || {
        let path = "*".to_owned();
        Box::new(ArtifactQuery { build: None, path, step: String::new(), retried: false, before: None })
    };
    let Told::Files(files) = told(&bench, right, 3, Asked::FindFiles(query())).await else { panic!("no files") };
    let paths: Vec<_> = files.found.iter().map(|found| found.artifact.path.as_str()).collect();
    assert_eq!((paths, files.executable.as_slice()), (vec!["old", "z", "tool", "a"], &[2][..]));
    let Told::Artifacts(found) = told(&bench, right, 4, Asked::FindArtifacts(query())).await else { panic!("none") };
    assert_eq!(found, files.found, "an agent of before hears what it always heard");
    let base = format!("/api/v1/builds/{}/artifacts", text(&build["id"]));
    let list = bench.get(&base).await.is(200).json();
    let told: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["executable"] == true).collect();
    assert_eq!(told, [false, false, true, false]);
    // A person's file is another one where its mode is.
    let place = format!("{base}?path=mine&digest={}&bytes=1", Digest::of(b"x"));
    let put = async |more: &str| bench.call(&bench.admin, "PUT", &format!("{place}{more}"), "x").await;
    assert_eq!(put("").await.is(201).json()["executable"], json!(false));
    assert_eq!(put("&executable=true").await.is(201).json()["executable"], json!(true));
    put("&executable=true").await.is(200);
}

#[tokio::test]
async fn who_may_not_see_the_build_sees_none_of_its_artifacts() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let (build, right) = running(&mut bench).await;
    bench.ground.fleet.store.put(&shelf(), b"x").unwrap();
    assert_eq!(add(&bench, right, 1, &[("x", b"x")]).await, Told::Done);
    let base = format!("/api/v1/builds/{}/artifacts", text(&build["id"]));
    let id = text(&bench.get(&base).await.is(200).json()["items"][0]["id"]).to_owned();
    let elsewhere = bench.token(&[Scope::BuildsRead], Some("other"), None).await;
    let agents = bench.token(&[Scope::AgentsRead], None, None).await;
    for path in [base, format!("/api/v1/artifacts/{id}"), format!("/api/v1/artifacts/{id}/info")] {
        bench.call(&elsewhere, "GET", &path, "").await.is(404);
        bench.call(&agents, "GET", &path, "").await.is(403);
    }
    bench.get("/api/v1/artifacts/nonsense").await.is(404);
    let reader = bench.token(&[Scope::BuildsRead], Some("web"), None).await;
    bench.call(&reader, "GET", &format!("/api/v1/artifacts/{id}"), "").await.is(200);
}

#[tokio::test]
async fn a_job_finds_what_its_namespace_may_read_and_nobody_else_s() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let (first, one) = running(&mut bench).await;
    bench.ground.fleet.store.put(&shelf(), b"x").unwrap();
    assert_eq!(add(&bench, one, 1, &[("log/x", b"x"), ("log/x", b"x"), ("y", b"x")]).await, Told::Done);
    assert_eq!(found(&bench, one, "*", None).await, Ok(vec!["y".to_owned(), "log/x".to_owned(), "log/x".to_owned()]));
    let (_, two) = running(&mut bench).await;
    let first: BuildId = text(&first["id"]).parse().unwrap();
    assert_eq!(found(&bench, two, "log/*", None).await, Ok(Vec::new()), "its own build has none");
    assert_eq!(found(&bench, two, "log/*", Some(first)).await.map(|found| found.len()), Ok(2));
    let body = json!({ "pipeline": "other", "definition": super::ONE_STEP });
    bench.finish(one, 0, b"").await;
    let other = bench.post("/api/v1/builds", body).await.is(201).json();
    let three = bench.start().await;
    assert_eq!(found(&bench, three, "log/*", Some(first)).await, Err(AskRefused::NotFound), "another pipeline's");
    // Nor can it name bytes that it never had.
    let refused = add(&bench, three, 2, &[("stolen", b"x")]).await;
    assert!(matches!(refused, Told::Refused { code: AskRefused::NotFound, .. }), "{refused:?}");
    let list = bench.get(&format!("/api/v1/builds/{}/artifacts", text(&other["id"]))).await.is(200).json();
    assert_eq!(paths(&list), [""; 0]);
}

#[tokio::test]
async fn what_is_a_source_of_the_namespace_is_not_sent_again_and_stays_for_as_long_as_the_artifact() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let (_, right) = running(&mut bench).await;
    let (store, shelves) = (bench.ground.fleet.store.clone(), bench.ground.fleet.shelves.clone());
    let (trusted, digest) = (Namespace::trusted("web"), Digest::of(b"source"));
    assert_eq!(shelves.wanted(&trusted, Shelf::Artifacts, &[(digest, 6), (digest, 6)]), [0], "once");
    store.put(&trusted, b"source").unwrap();
    assert_eq!(shelves.wanted(&trusted, Shelf::Artifacts, &[(digest, 6)]), [0_u32; 0]);
    let other = Namespace::trusted("other");
    assert_eq!(shelves.wanted(&other, Shelf::Artifacts, &[(digest, 6)]), [0], "nobody learns of another's content");
    assert_eq!(add(&bench, right, 1, &[("copy", b"source")]).await, Told::Done);
    let held = store.held(|namespace| *namespace == trusted);
    store.release(&held).unwrap();
    assert_eq!(store.blob_len(&shelf(), &digest), Some(6), "the shelf has it by itself");
    bench.finish(right, 0, b"").await;
}

#[tokio::test]
async fn an_artifact_whose_time_is_over_goes_and_then_its_bytes_unless_another_names_them() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let (build, right) = running(&mut bench).await;
    let (store, shelves) = (bench.ground.fleet.store.clone(), bench.ground.fleet.shelves.clone());
    let (reader, desk) = (bench.ground.fleet.reader.clone(), bench.ground.fleet.desk.clone());
    let overlay = Namespace::overlay("web", "pr:1").on(Shelf::Artifacts);
    for (namespace, bytes) in [(&overlay, &b"named"[..]), (&shelf(), b"named"), (&shelf(), b"nobody's")] {
        store.put(namespace, bytes).unwrap();
    }
    assert_eq!(add(&bench, right, 1, &[("a", b"named")]).await, Told::Done);
    let has = |bytes: &[u8]| store.blob_len(&shelf(), &Digest::of(bytes)).is_some();
    let first = shelves.sweep((&reader, &desk), Vec::new()).await;
    assert_eq!(first.len(), 2, "the overlay's copy, and what no row names: {first:?}");
    assert!(has(b"nobody's"), "it may be named in a moment");
    // Somebody who asks for it in between keeps it for one more look.
    drop(store.get(&shelf(), &Digest::of(b"nobody's")).unwrap());
    let second = shelves.sweep((&reader, &desk), first).await;
    assert_eq!((second.len(), has(b"nobody's"), has(b"named")), (1, true, true));
    assert!(shelves.sweep((&reader, &desk), second).await.is_empty());
    assert_eq!((has(b"nobody's"), has(b"named")), (false, true));
    assert_eq!(shelves.counts().released, 1, "the overlay's copy was not the last one");
    let row = &bench.get(&format!("/api/v1/builds/{}/artifacts", text(&build["id"]))).await.is(200).json()["items"][0];
    let path = format!("/api/v1/artifacts/{}", text(&row["id"]));
    let retention = Retention {
        builds_before: WallMs(0),
        idempotency_before: WallMs(0),
        agents_before: WallMs(0),
        audit_before: WallMs(0),
        artifacts_at: WallMs(u64::MAX >> 2),
        notifications_before: WallMs(0),
        max_builds: 1,
    };
    assert_eq!(bench.ground.fleet.desk.expire(retention).await.unwrap().artifacts, 1);
    bench.get(&path).await.is(404);
    let last = shelves.sweep((&reader, &desk), Vec::new()).await;
    assert!(has(b"named"), "rows go before blobs");
    shelves.sweep((&reader, &desk), last).await;
    assert!(!has(b"named"));
    assert_eq!(store.stats().blobs, 0);
}

#[tokio::test]
async fn a_person_adds_a_file_to_a_job_once_with_its_digest_and_by_name() {
    let mut bench = Bench::new().await;
    let build = bench.build().await;
    let base = format!("/api/v1/builds/{}/artifacts", text(&build["id"]));
    let place = |path: &str, bytes: &[u8], more: &str| {
        format!("{base}?path={path}&digest={}&bytes={}{more}", Digest::of(bytes), bytes.len())
    };
    let put = async |bench: &Bench, token: &str, place: &str, body: &[u8]| {
        bench.call(token, "PUT", place, body.to_vec()).await
    };
    let admin = bench.admin.clone();
    put(&bench, &admin, &place("a", b"hello\n", ""), b"hello\n").await.is(409);
    bench.agent().await;
    let right = bench.start().await;
    let reader = bench.token(&[Scope::BuildsRead], None, None).await;
    put(&bench, &reader, &place("a", b"hello\n", ""), b"hello\n").await.is(403);
    let stranger = bench.token(&[Scope::BuildsWrite], None, None).await;
    put(&bench, &stranger, &place("a", b"hello\n", ""), b"hello\n").await.is(403);
    let added =
        put(&bench, &admin, &place("log/a", b"hello\n", "&content_type=text/plain"), b"hello\n").await.is(201).json();
    assert_eq!(added["sha1"], json!("f572d396fae9206628714fb2ce00f72e94f2258f"));
    assert_eq!((&added["path"], &added["attempt"]), (&json!("log/a"), &json!(1)));
    assert!(added["uploaded_by"].is_string(), "{added}");
    let again = put(&bench, &admin, &place("log/a", b"hello\n", ""), b"").await.is(200).json();
    assert_eq!(again["id"], added["id"], "once");
    assert_eq!(&bench.get(&format!("/api/v1/artifacts/{}", text(&added["id"]))).await.is(200).body[..], b"hello\n");
    for (wrong, body) in [
        (place("b", b"other", ""), &b"hello"[..]),
        (place("b", b"hello", ""), b"hell"),
        (place("../b", b"hello", ""), b"hello"),
        (place("b", b"hello", "&nonsense=1"), b"hello"),
    ] {
        put(&bench, &admin, &wrong, body).await.is(422);
    }
    put(&bench, &admin, &place("b", b"hello", ""), b"hello world").await.is(413);
    put(&bench, &admin, &place("b", b"hello", "&job=0190c1f0-7a3b-7c1d-8e2f-0123456789ab"), b"hello").await.is(404);
    bench.finish(right, 0, b"").await;
    bench.ended(text(&build["id"])).await;
    let job = format!("&job={}", text(&build["jobs"][0]["id"]));
    put(&bench, &admin, &place("late", b"late", &job), b"late").await.is(201);
    let list = bench.get(&base).await.is(200).json();
    assert_eq!(paths(&list), ["late", "log/a"], "after its end too");
    let shown = bench.get(&format!("/api/v1/builds/{}", text(&build["id"]))).await.is(200).json();
    assert_eq!(shown["jobs"][0]["artifacts_count"], json!(2));
    let audit = bench.get("/api/v1/audit").await.is(200).json();
    let lines = audit["items"].as_array().unwrap().iter().filter(|line| line["action"] == json!("artifact.upload"));
    assert_eq!(lines.count(), 2, "{audit}");
}
