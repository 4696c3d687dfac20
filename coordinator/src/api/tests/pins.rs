//! Pins of builds: all of a pinned build stays, who may say so, and what is told of what had gone.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_cache::RealFs;
use windlass_coordinator_core::Core;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{
    Actor, ActorKind, Anew, ArtifactRow, Change, NewPin, PinGone, PinRequest, PinRow, ReuseRequest, Scope,
};
use windlass_coordinator_store::{History as _, Store as _};
use windlass_protocol::host::now;
use windlass_protocol::message::Told;
use windlass_protocol::{BuildId, Digest, Namespace, WallMs};

use super::artifacts::{add, paths, shelf};
use super::builds::tree;
use super::gc::{DAY, bench, collect, let_go_after_a_day, pass, submit};
use super::reuse::{hit, log_path, ran, recipe};
use super::{Answer, Bench, ONE_STEP, text};
use crate::pinning::{PinError, Pinning, Said};
use crate::retention::expire_now;

/// When what no end ends goes.
const ENDLESS: &str = "9999-12-31T23:59:59.999Z";

fn pin_path(build: &Value) -> String {
    format!("/api/v1/builds/{}/pin", text(&build["id"]))
}

async fn pin(bench: &Bench, build: &Value, said: Value) -> Answer {
    bench.call(&bench.admin, "PUT", &pin_path(build), said.to_string()).await
}

async fn unpin(bench: &Bench, build: &Value) {
    bench.call(&bench.admin, "DELETE", &pin_path(build), "").await.is(200);
}

async fn pins(bench: &Bench) -> Vec<Value> {
    bench.get("/api/v1/pins").await.is(200).json()["items"].as_array().unwrap().clone()
}

fn artifacts(build: &Value) -> String {
    format!("/api/v1/builds/{}/artifacts", text(&build["id"]))
}

/// A build of this tree that ran, left these files and a log.
async fn released(bench: &mut Bench, root: &Digest, files: &[(&str, &[u8])]) -> Value {
    let build = submit(bench, root, ONE_STEP).await;
    let right = bench.start().await;
    for (_, bytes) in files {
        bench.ground.fleet.store.put(&shelf(), bytes).unwrap();
    }
    assert_eq!(add(bench, right, 1, files).await, Told::Done);
    bench.write(right, 0, b"done\n").await;
    bench.finish(right, 0, b"done\n").await;
    bench.ended(text(&build["id"])).await
}

/// Ten years later all that goes by its age has gone: rows, and what lies on shelves.
async fn years_later(bench: &Bench) {
    expire_now(&bench.ground.fleet, WallMs(now().wall.0 + 3_650 * DAY), 90 * DAY).await.unwrap();
    let crate::fleet::Ground { shelves, reader, desk, .. } = &bench.ground.fleet;
    let mut stay = Vec::new();
    for _ in 0..3 {
        stay = shelves.sweep((reader, desk), stay).await;
    }
}

#[tokio::test]
async fn all_of_a_pinned_build_outlives_its_age_and_can_be_built_again_until_the_pin_is_undone() {
    let (mut bench, fs) = bench().await;
    bench.agent().await;
    let web = Namespace::trusted("web");
    let (root, other) = (tree(&bench, &web, &[("a", "one"), ("d/b", "two")]), tree(&bench, &web, &[("a", "other")]));
    let kept = released(&mut bench, &root, &[("out/app", b"the release")]).await;
    let gone = released(&mut bench, &other, &[("out/app", b"another")]).await;
    let answer = pin(&bench, &kept, json!({ "name": "v1.0" })).await.is(201).json();
    assert_eq!(answer["before"], Value::Null);
    assert_eq!((&answer["pin"]["files"], &answer["pin"]["bytes"]), (&json!(1), &json!(11)));
    assert_eq!(answer["pin"]["gone"], json!({ "files": 0, "bytes": 0, "blobs": 0, "results": 0 }));
    for _ in 0..3 {
        pass(&bench, &fs, 7 * DAY);
        collect(&bench, false).await;
    }
    years_later(&bench).await;
    let store = bench.ground.fleet.store.clone();
    let has = |on: &Namespace, bytes: &[u8]| store.blob_len(on, &Digest::of(bytes)).is_some();
    assert_eq!((has(&web, b"one"), has(&web, b"two"), has(&web, b"other")), (true, true, false), "its source");
    assert_eq!((has(&shelf(), b"the release"), has(&shelf(), b"another")), (true, false), "its artifacts");
    bench.get(&format!("/api/v1/builds/{}", text(&gone["id"]))).await.is(404);
    let list = bench.get(&artifacts(&kept)).await.is(200).json();
    assert_eq!((paths(&list), &list["items"][0]["expires_at"]), (vec!["out/app"], &json!(ENDLESS)));
    let whole = bench.get(&format!("/api/v1/artifacts/{}", text(&list["items"][0]["id"]))).await.is(200);
    assert_eq!(&whole.body[..], b"the release");
    assert_eq!(&bench.get(&log_path(&kept)).await.is(200).body[..], b"done\n", "its log");
    let rebuild = format!("/api/v1/builds/{}/rebuild", text(&kept["id"]));
    let again = bench.post(&rebuild, json!({})).await.is(201).json();
    bench.run(0, b"").await;
    bench.ended(text(&again["id"])).await;

    let undo = async || bench.call(&bench.admin, "DELETE", &pin_path(&kept), "").await.is(200).json();
    assert_eq!(undo().await, json!({ "before": { "name": "v1.0", "until": null } }));
    assert_eq!(undo().await, json!({ "before": null }));
    assert_eq!(pins(&bench).await, [] as [Value; 0]);
    years_later(&bench).await;
    assert!(!has(&shelf(), b"the release"));
    bench.get(&format!("/api/v1/builds/{}", text(&kept["id"]))).await.is(404);
    bench.get(&log_path(&kept)).await.is(404);
    pass(&bench, &fs, 7 * DAY);
    pass(&bench, &fs, 7 * DAY);
    collect(&bench, false).await;
    assert!(!has(&web, b"one"), "nothing needs its source");
}

#[tokio::test]
async fn inputs_recipes_results_and_the_log_of_another_build_stay_with_the_pin_of_who_used_them() {
    let (mut bench, fs) = bench().await;
    bench.agent().await;
    let key = recipe(&[("command", "make")]);
    ran(&mut bench, "main", &key, b"made\n").await;
    let used = hit(&mut bench, "main", &key).await;
    let answer = pin(&bench, &used, json!({})).await.is(201).json();
    assert_eq!(answer["pin"]["results"], json!(1));
    for _ in 0..3 {
        pass(&bench, &fs, 7 * DAY);
        collect(&bench, false).await;
    }
    years_later(&bench).await;
    let forget = ReuseRequest::Forget { unused_since: WallMs(u64::MAX) };
    bench.ask(Request::Reuse(forget)).await;
    let store = &bench.ground.fleet.store;
    assert!(store.blob_len(&Namespace::trusted("web"), &Digest::of(key.as_bytes())).is_some(), "the recipe");
    let log = bench.get(&log_path(&used)).await.is(200);
    assert!(log.body.ends_with(b"made\n"), "{}", log.text());
    hit(&mut bench, "main", &key).await;
    let explain = format!("/api/v1/jobs/{}/reuse", text(&used["jobs"][0]["id"]));
    bench.get(&explain).await.is(200);
    let stats = bench.get("/api/v1/cache/stats").await.is(200).json();
    assert_eq!(stats["pins"], json!({ "builds": 1, "files": 0, "bytes": 0, "results": 1 }));
    let metrics = bench.get("/metrics").await.is(200).text();
    assert!(metrics.contains("windlass_pins 1\n") && metrics.contains("windlass_pinned_bytes 0\n"), "{metrics}");
    let desk = &bench.ground.fleet.desk;
    assert_eq!(desk.look(Core::reuse_entries).await.unwrap().count, 1);
    unpin(&bench, &used).await;
    bench.ask(Request::Reuse(ReuseRequest::Forget { unused_since: WallMs(u64::MAX) })).await;
    assert_eq!(desk.look(Core::reuse_entries).await.unwrap().count, 0, "nothing holds its result");
}

#[tokio::test]
async fn said_again_it_tells_what_it_was_and_what_cannot_be_is_refused_with_advice() {
    let (mut bench, _) = bench().await;
    bench.agent().await;
    let root = tree(&bench, &Namespace::trusted("web"), &[("a", "one")]);
    let first = released(&mut bench, &root, &[("x", b"x")]).await;
    let second = released(&mut bench, &root, &[("x", b"x")]).await;
    let until = "2999-01-31T08:00:00.000Z";
    let answer = pin(&bench, &first, json!({ "name": "v1", "until": until })).await.is(201).json();
    assert_eq!((&answer["pin"]["until"], &answer["pin"]["pinned_by"]), (&json!(until), &json!("test")));
    let answer = pin(&bench, &first, json!({})).await.is(200).json();
    assert_eq!((&answer["pin"]["name"], &answer["pin"]["until"]), (&json!("v1"), &json!(until)), "as it was");
    let answer = pin(&bench, &first, json!({ "name": "v2", "until": null })).await.is(200).json();
    assert_eq!(answer["before"], json!({ "name": "v1", "until": until }));
    assert_eq!((&answer["pin"]["name"], &answer["pin"]["until"]), (&json!("v2"), &Value::Null));
    let list = bench.get(&artifacts(&first)).await.is(200).json();
    assert_eq!(list["items"][0]["expires_at"], ENDLESS);
    for (said, name) in [(json!({ "name": null }), Value::Null), (json!({ "name": "v2" }), json!("v2"))] {
        let answer = pin(&bench, &first, said).await.is(200).json();
        assert_eq!((&answer["pin"]["name"], &answer["pin"]["until"]), (&name, &Value::Null));
    }
    // How long from now, by the coordinator's clock.
    let before = now().wall.0;
    let answer = pin(&bench, &first, json!({ "for_s": 3_600 })).await.is(200).json();
    let ends = humantime::parse_rfc3339(text(&answer["pin"]["until"])).unwrap();
    let ends = u64::try_from(ends.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    assert!((before + 3_600_000..=now().wall.0 + 3_600_000).contains(&ends), "{answer}");
    assert_eq!(bench.get(&pin_path(&first)).await.is(200).json(), answer["pin"]);
    bench.get(&pin_path(&second)).await.is(404);
    pin(&bench, &first, json!({ "until": null })).await.is(200);

    let refused = pin(&bench, &second, json!({ "name": "v2" })).await.is(409).json();
    assert_eq!(refused["type"], "/problems/pin-name-taken");
    assert!(text(&refused["detail"]).contains("build #1") && text(&refused["detail"]).contains("another name"));
    for (said, what) in [
        (json!({ "until": "2020-01-01T00:00:00Z" }), "over"),
        (json!({ "until": "tomorrow" }), "2027-01-31"),
        (json!({ "until": null, "for_s": 5 }), "one of them"),
        (json!({ "until": "2999-01-31T08:00:00Z", "for_s": 5 }), "one of them"),
        (json!({ "for_s": 0 }), "at least 1"),
        (json!({ "for_s": u64::MAX }), "9999"),
        (json!({ "name": "" }), "characters"),
        (json!({ "nonsense": 1 }), "nonsense"),
    ] {
        let refused = pin(&bench, &second, said.clone()).await.is(422);
        assert!(refused.text().contains(what), "{said}: {}", refused.text());
    }
    assert_eq!(pins(&bench).await.len(), 1);
    let nobody = json!({ "id": "00000000-0000-7000-8000-000000000000" });
    pin(&bench, &nobody, json!({})).await.is(404);
    bench.call(&bench.admin, "DELETE", &pin_path(&nobody), "").await.is(404);
    let audit = bench.get("/api/v1/audit").await.is(200).json();
    let lines: Vec<_> = audit["items"].as_array().unwrap().iter().map(|line| text(&line["action"])).collect();
    assert_eq!(lines.iter().filter(|action| **action == "build.pin").count(), 6, "{lines:?}");
}

/// What is rebuilt must be whole: what had gone is told, and is no secret until the day it is needed.
#[tokio::test]
async fn what_had_gone_is_told_and_the_rest_is_held() {
    let (mut bench, fs) = bench().await;
    bench.agent().await;
    let root = tree(&bench, &Namespace::trusted("web"), &[("a", "one")]);
    let build = released(&mut bench, &root, &[("x", b"four"), ("y", b"five5")]).await;
    pass(&bench, &fs, 7 * DAY);
    collect(&bench, false).await;
    // Artifacts go after 30 days, their build after 90.
    expire_now(&bench.ground.fleet, WallMs(now().wall.0 + 60 * DAY), 90 * DAY).await.unwrap();
    let answer = pin(&bench, &build, json!({})).await.is(201).json();
    assert_eq!(answer["pin"]["gone"], json!({ "files": 2, "bytes": 9, "blobs": 1, "results": 0 }), "{answer}");
    assert_eq!((&answer["pin"]["files"], &answer["pin"]["bytes"]), (&json!(0), &json!(0)));
    assert_eq!(pins(&bench).await, [answer["pin"].clone()]);
    years_later(&bench).await;
    assert_eq!(&bench.get(&log_path(&build)).await.is(200).body[..], b"done\n");
    // It is brought again: the pin that is said again says so.
    tree(&bench, &Namespace::trusted("web"), &[("a", "one")]);
    let answer = pin(&bench, &build, json!({})).await.is(200).json();
    assert_eq!(answer["pin"]["gone"]["blobs"], json!(0));
    pass(&bench, &fs, 7 * DAY);
    collect(&bench, false).await;
    let again = pin(&bench, &build, json!({})).await.is(200).json();
    assert_eq!(again["pin"]["gone"]["blobs"], json!(0));
}

/// Rows go while nobody holds them yet: between the look at them and the pin.
#[tokio::test]
async fn what_goes_while_a_build_is_being_pinned_is_told() {
    let (mut bench, _) = bench().await;
    bench.agent().await;
    let root = tree(&bench, &Namespace::trusted("web"), &[("a", "one")]);
    let build = released(&mut bench, &root, &[("x", b"four"), ("y", b"five5")]).await;
    let (fleet, sweeper) = (&bench.ground.fleet, &bench.ground.sweeper);
    let actor = || Actor { kind: ActorKind::Token, name: "test".to_owned() };
    let id: BuildId = text(&build["id"]).parse().unwrap();
    let mut pinning = Pinning::begin((fleet, sweeper), actor(), id).await.unwrap();
    let first = pinning.look().await.unwrap().unwrap();
    expire_now(fleet, WallMs(now().wall.0 + 60 * DAY), 90 * DAY).await.unwrap();
    let said = Said { name: Anew::This("v1".to_owned()), ..Said::default() };
    let (pin, before) = pinning.settle(first, said).await.unwrap();
    assert_eq!((pin.row.gone, before), (PinGone { files: 2, bytes: 9, ..PinGone::default() }, None));
    assert_eq!((pin.row.files, pin.row.bytes, pin.row.name.as_deref()), (0, 0, Some("v1")));
    // The build itself goes: there is nothing that a pin could hold.
    unpin(&bench, &build).await;
    let first = pinning.look().await.unwrap().unwrap();
    expire_now(fleet, WallMs(now().wall.0 + 3_650 * DAY), 90 * DAY).await.unwrap();
    let refused = pinning.settle(first, Said::default()).await;
    assert!(matches!(refused, Err(PinError::NoBuild(of)) if of == id), "{refused:?}");
    assert_eq!(pins(&bench).await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_sweep_undoes_a_pin_whose_build_is_no_more() {
    let (mut bench, fs) = bench().await;
    bench.agent().await;
    let build = bench.build().await;
    bench.run(0, b"").await;
    let build = bench.ended(text(&build["id"])).await;
    pin(&bench, &build, json!({})).await.is(201);
    let row = bench.memory.history().pin(text(&build["id"]).parse().unwrap()).unwrap().unwrap().row;
    let mut memory = bench.memory.clone();
    drop(bench);
    let writer = memory.claim().unwrap();
    let stray = PinRow { build: BuildId::from_bytes([7; 16]), ..row };
    memory.commit(writer, &[Change::Pin(Box::new(stray))]).unwrap();
    let mut bench = Bench::over(Arc::new(fs.clone()), memory).await;
    let_go_after_a_day(&mut bench);
    tree(&bench, &Namespace::trusted("web"), &[("a", "one")]);
    pass(&bench, &fs, 7 * DAY);
    collect(&bench, true).await;
    assert_eq!(pins(&bench).await.len(), 2);
    collect(&bench, false).await;
    let left = pins(&bench).await;
    assert_eq!((left.len(), &left[0]["build_id"]), (1, &build["id"]));
}

#[tokio::test]
async fn a_build_that_goes_on_is_pinned_with_what_it_makes_from_then_on() {
    let (mut bench, _) = bench().await;
    bench.agent().await;
    let root = tree(&bench, &Namespace::trusted("web"), &[("a", "one")]);
    let build = submit(&bench, &root, ONE_STEP).await;
    pin(&bench, &build, json!({})).await.is(201);
    let right = bench.start().await;
    bench.ground.fleet.store.put(&shelf(), b"late").unwrap();
    assert_eq!(add(&bench, right, 1, &[("late", b"late")]).await, Told::Done);
    bench.finish(right, 0, b"").await;
    bench.ended(text(&build["id"])).await;
    let all = pins(&bench).await;
    assert_eq!((&all[0]["files"], &all[0]["bytes"]), (&json!(1), &json!(4)));
    years_later(&bench).await;
    assert_eq!(paths(&bench.get(&artifacts(&build)).await.is(200).json()), ["late"]);
}

/// As a token of a release job would be, and others.
#[tokio::test]
async fn pins_are_made_by_who_may_make_trusted_builds_and_seen_by_who_may_see_the_build() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let body = json!({ "pipeline": "web", "branch": "main", "definition": ONE_STEP });
    let build = bench.post("/api/v1/builds", body).await.is(201).json();
    bench.run(0, b"").await;
    bench.ended(text(&build["id"])).await;
    let path = pin_path(&build);
    let release = bench.token(&[Scope::CacheWrite, Scope::BuildsTrusted], Some("web"), Some("main")).await;
    let elsewhere = bench.token(&[Scope::CacheWrite, Scope::BuildsTrusted], Some("api"), None).await;
    let topic = bench.token(&[Scope::CacheWrite, Scope::BuildsTrusted], Some("web"), Some("topic")).await;
    let untrusted = bench.token(&[Scope::CacheWrite, Scope::BuildsWrite], None, None).await;
    let reader = bench.token(&[Scope::CacheRead, Scope::BuildsTrusted], None, None).await;
    for (token, status) in [(&elsewhere, 404), (&topic, 404), (&untrusted, 403), (&reader, 403)] {
        bench.call(token, "PUT", &path, "").await.is(status);
        bench.call(token, "DELETE", &path, "").await.is(status);
    }
    bench.call(&release, "PUT", &path, "").await.is(201);
    for (token, status) in [(&elsewhere, 404), (&topic, 404), (&untrusted, 403), (&reader, 403)] {
        bench.call(token, "DELETE", &path, "").await.is(status);
    }
    let looks = async |pipeline, branch| {
        let token = bench.token(&[Scope::CacheRead], pipeline, branch).await;
        let list = bench.call(&token, "GET", "/api/v1/pins", "").await.is(200).json();
        list["items"].as_array().unwrap().len()
    };
    for (pipeline, branch, seen) in [
        (None, None, 1),
        (Some("web"), None, 1),
        (Some("web"), Some("main"), 1),
        (Some("web"), Some("topic"), 0),
        (None, Some("topic"), 0),
        (Some("api"), None, 0),
    ] {
        assert_eq!(looks(pipeline, branch).await, seen, "{pipeline:?} {branch:?}");
    }
    let api = bench.token(&[Scope::CacheRead], Some("api"), None).await;
    bench.call(&api, "GET", "/api/v1/pins?pipeline=web", "").await.is(403);
    bench.call(&release, "GET", "/api/v1/pins", "").await.is(403);
    bench.call(&release, "DELETE", &path, "").await.is(200);
}

#[tokio::test]
async fn an_untrusted_build_is_not_pinned_and_not_told_to_who_may_not_read_it() {
    let bench = Bench::new().await;
    let theirs = bench.token(&[Scope::BuildsWrite], Some("web"), None).await;
    let body = json!({ "pipeline": "web", "definition": ONE_STEP }).to_string();
    let build = bench.call(&theirs, "POST", "/api/v1/builds", body).await.is(201).json();
    let blind = bench.token(&[Scope::CacheWrite], None, None).await;
    bench.call(&blind, "PUT", &pin_path(&build), "").await.is(404);
    let reads = bench.token(&[Scope::CacheWrite, Scope::BuildsRead], None, None).await;
    for token in [&reads, &bench.admin] {
        let refused = bench.call(token, "PUT", &pin_path(&build), "").await.is(409).json();
        assert_eq!(refused["type"], "/problems/pin-untrusted");
        assert!(text(&refused["detail"]).contains("protected branch"), "{refused}");
    }
    assert_eq!(pins(&bench).await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_pin_outlives_the_coordinator_and_artifacts_that_are_past_their_time_are_served_while_it_stands() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let build = bench.build().await;
    let right = bench.start().await;
    bench.ground.fleet.store.put(&shelf(), b"x").unwrap();
    assert_eq!(add(&bench, right, 1, &[("in time", b"x")]).await, Told::Done);
    bench.finish(right, 0, b"").await;
    bench.ended(text(&build["id"])).await;
    let id: BuildId = text(&build["id"]).parse().unwrap();
    // The same, an hour past its time, and nobody has come by to let it go.
    let mut memory = bench.memory.clone();
    let list = bench.get(&artifacts(&build)).await.is(200).json();
    let row =
        bench.ground.fleet.reader.artifact(text(&list["items"][0]["id"]).parse().unwrap()).await.unwrap().unwrap();
    let mut bytes = *row.id.as_bytes();
    bytes[15] ^= 1;
    let late = windlass_protocol::ArtifactId::from_bytes(bytes);
    let past = ArtifactRow { id: late, path: "past".to_owned(), expires_at: WallMs(now().wall.0 - 3_600_000), ..row };
    drop(bench);
    let writer = memory.claim().unwrap();
    memory.commit(writer, &[Change::Artifact(Box::new(past))]).unwrap();
    let bench = Bench::over(Arc::new(RealFs), memory.clone()).await;
    bench.ground.fleet.store.put(&shelf(), b"x").unwrap();
    let shown = async |bench: &Bench| paths(&bench.get(&artifacts(&build)).await.is(200).json()).len();
    assert_eq!(shown(&bench).await, 1);
    bench.get(&format!("/api/v1/artifacts/{late}")).await.is(404);
    let until = WallMs(now().wall.0 + 3_600_000);
    let rows = bench.ground.fleet.reader.stored_build(id).await.unwrap().map(Box::new);
    let (name, until, room_bytes) = (Anew::This("v1".to_owned()), Anew::This(until), u64::MAX);
    let new = NewPin { build: id, name, until, gone: PinGone::default(), room_bytes, again: false, rows };
    bench.ask(Request::Pin(PinRequest::Pin(Box::new(new)))).await;
    drop(bench);
    let bench = Bench::over(Arc::new(RealFs), memory).await;
    bench.ground.fleet.store.put(&shelf(), b"x").unwrap();
    assert_eq!(shown(&bench).await, 2, "as long as the pin stands");
    assert_eq!(&bench.get(&format!("/api/v1/artifacts/{late}")).await.is(200).body[..], b"x");
    let info = bench.get(&format!("/api/v1/artifacts/{late}/info")).await.is(200).json();
    assert_eq!(info["expires_at"], pins(&bench).await[0]["until"]);
    unpin(&bench, &build).await;
    assert_eq!(shown(&bench).await, 1);
    bench.get(&format!("/api/v1/artifacts/{late}")).await.is(404);
}

/// It is looked at twice: what ends between the two looks is not made anew, without name and end.
#[tokio::test]
async fn a_pin_of_a_moment_does_not_come_back_as_one_that_never_ends() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let build = bench.build().await;
    bench.run(0, b"").await;
    let build = bench.ended(text(&build["id"])).await;
    for ms in 0..60 {
        let until = std::time::SystemTime::now() + std::time::Duration::from_millis(ms % 12 + 1);
        let until = humantime::format_rfc3339_millis(until).to_string();
        let answer = pin(&bench, &build, json!({ "name": "v1", "until": until })).await;
        let left = pins(&bench).await;
        assert!(left.iter().all(|pin| pin["until"] == json!(until)), "{}: {left:?}", answer.text());
        unpin(&bench, &build).await;
    }
}
