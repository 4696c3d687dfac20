//! Results that are used again, as people see them: the log of who ran, why a step missed, and for how long both are there.

use axum::http::header::RANGE;
use serde_json::{Value, json};
use windlass_cache::{Directory, Entry, Node};
use windlass_coordinator_core::input::{Input, Request};
use windlass_coordinator_core::row::{Keyed, ReuseRequest, Scope, Unkeyed};
use windlass_protocol::host::now;
use windlass_protocol::job::Source;
use windlass_protocol::limits::REUSE_UNUSED_MS;
use windlass_protocol::{AttemptId, Digest, Namespace, WallMs};

use super::{Answer, Bench, DEADLINE, Events, request, text};
use crate::keying::recipe::key_of;
use crate::retention::expire_now;

const STEP: &str = "steps:\n  - command: make\n    label: make\n    key: one\n    reuse: {}\n";

/// A recipe as the coordinator writes it.
pub(super) fn recipe(components: &[(&str, &str)]) -> String {
    let mut lines: Vec<String> = components.iter().map(|(name, value)| format!("{name}\t{value}\n")).collect();
    lines.sort();
    format!("windlass step key 1\n{}", lines.concat())
}

/// A build of the step on this branch; its key is that of the recipe.
async fn build(bench: &mut Bench, branch: &str, recipe: &str) -> Value {
    let body = json!({ "pipeline": "web", "definition": STEP, "branch": branch });
    let build = bench.post("/api/v1/builds", body).await.is(201).json();
    let (ask, subject) = tokio::time::timeout(DEADLINE, bench.asked.recv()).await.expect("a question in time").unwrap();
    let digest = bench.ground.fleet.store.put(&subject.namespace, recipe.as_bytes()).unwrap();
    let keyed = Keyed {
        key: key_of(recipe),
        recipe: digest,
        source: Source::Empty,
        image: None,
        plugins: std::collections::BTreeMap::new(),
        system: None,
        hooks: None,
        notes: vec![],
        also: vec![],
    };
    answer(bench, ask, subject.job, Ok(keyed)).await;
    build
}

async fn answer(bench: &Bench, ask: u64, job: windlass_protocol::JobId, outcome: Result<Keyed, Unkeyed>) {
    let input = Input::Keyed { job, ask, outcome: outcome.map(Box::new) };
    bench.ground.fleet.desk.agent_input(input).await.unwrap();
    // What is asked after it is answered when it is durable.
    bench.ask(Request::Retain { idempotency_before: WallMs(0), tokens_before: WallMs(0) }).await;
}

/// A build that runs and passes with this log.
pub(super) async fn ran(bench: &mut Bench, branch: &str, recipe: &str, log: &[u8]) -> Value {
    let build = build(bench, branch, recipe).await;
    bench.run(0, log).await;
    bench.ended(text(&build["id"])).await
}

/// A build that ends without running.
pub(super) async fn hit(bench: &mut Bench, branch: &str, recipe: &str) -> Value {
    let build = build(bench, branch, recipe).await;
    let ended = bench.ended(text(&build["id"])).await;
    assert!(ended["jobs"][0]["reused_from"].is_object(), "{ended}");
    ended
}

fn attempt(build: &Value) -> AttemptId {
    text(&build["jobs"][0]["attempts"][0]["id"]).parse().unwrap()
}

pub(super) fn log_path(build: &Value) -> String {
    format!("/api/v1/attempts/{}/log", attempt(build))
}

async fn ranged(bench: &Bench, path: &str, range: &str) -> Answer {
    bench.send(request(&bench.admin, "GET", path).header(RANGE, range).body("".into()).unwrap()).await
}

async fn explained(bench: &Bench, token: &str, build: &Value) -> Value {
    let path = format!("/api/v1/jobs/{}/reuse", text(&build["jobs"][0]["id"]));
    bench.call(token, "GET", &path, "").await.is(200).json()
}

/// What an explanation says of the nearest earlier run: component, before, after.
fn differences(told: &Value) -> Vec<(String, Option<String>, Option<String>)> {
    let side = |it: &Value| it.as_str().map(str::to_owned);
    let one = |it: &Value| (text(&it["component"]).to_owned(), side(&it["before"]), side(&it["after"]));
    told["nearest"]["differences"].as_array().unwrap_or_else(|| panic!("{told}")).iter().map(one).collect()
}

#[tokio::test]
async fn the_log_of_a_hit_is_a_line_and_then_the_other_s_bytes_at_moved_offsets() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let key = recipe(&[("command", "make")]);
    let log = b"one\ntwo\n";
    ran(&mut bench, "main", &key, log).await;
    let path = log_path(&hit(&mut bench, "main", &key).await);
    let whole = bench.get(&path).await.is(200);
    let (head, rest) = whole.body.split_at(whole.body.len() - log.len());
    let line = std::str::from_utf8(head).unwrap();
    assert!(line.starts_with("~~~ reused from build #1, step make, ") && line.ends_with(" ago\n"), "{line}");
    assert_eq!((line.lines().count(), rest), (1, &log[..]));
    let (h, total) = (head.len(), whole.body.len());
    let cases = [
        ("bytes=0-2".to_owned(), 0, 3),
        (format!("bytes=4-{}", h - 1), 4, h),
        (format!("bytes={h}-{}", h + 3), h, h + 4),
        (format!("bytes={}-{}", h - 2, h + 1), h - 2, h + 2),
        (format!("bytes={}-", h + 4), h + 4, total),
        ("bytes=-4".to_owned(), total - 4, total),
        (format!("bytes={}-999999", total - 1), total - 1, total),
    ];
    for (range, from, to) in cases {
        let part = ranged(&bench, &path, &range).await.is(206);
        assert_eq!(part.body, whole.body.slice(from..to), "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{total}", to - 1), "{range}");
        assert_eq!(part.header("content-length"), (to - from).to_string(), "{range}");
    }
    let past = ranged(&bench, &path, &format!("bytes={total}-")).await.is(416);
    assert_eq!(past.header("content-range"), format!("bytes */{total}"));
    // By pieces, with their offsets.
    let pieces = bench.get(&format!("{path}?format=ndjson")).await.is(200).text();
    let pieces: Vec<Value> = pieces.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<_> = pieces.iter().map(|piece| (piece["offset"].as_u64().unwrap(), text(&piece["text"]))).collect();
    assert_eq!(shown, [(0, line), (h as u64, "one\ntwo\n")]);
}

#[tokio::test]
async fn whoever_watches_the_log_of_a_hit_goes_on_at_any_offset_of_it() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let key = recipe(&[("command", "make")]);
    ran(&mut bench, "main", &key, b"one\ntwo\n").await;
    let path = log_path(&hit(&mut bench, "main", &key).await);
    let whole = bench.get(&path).await.is(200).text();
    let (stream, h) = (format!("{path}/stream"), whole.len() - 8);
    for from in [0, 3, h - 1, h, h + 4, whole.len()] {
        let last = from.to_string();
        let mut events = Events::open(&bench, &stream, (from > 0).then_some(last.as_str())).await;
        let (mut seen, mut at) = (String::new(), from as u64);
        for sent in events.until("end").await {
            if sent.event == "end" {
                assert_eq!(sent.data["bytes"].as_u64(), Some(whole.len() as u64), "from {from}");
                assert_eq!(sent.data["digest"], Value::Null, "of a log that is put together nobody has the digest");
                break;
            }
            assert_eq!(sent.data["offset"].as_u64(), Some(at), "from {from}");
            seen.push_str(text(&sent.data["text"]));
            at = from as u64 + seen.len() as u64;
            assert_eq!(sent.id, Some(at.to_string()), "whoever comes again goes on after it");
        }
        assert_eq!(seen, whole[from..], "from {from}");
    }
}

#[tokio::test]
async fn a_hit_whose_run_said_nothing_has_the_line_alone_and_ends() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let key = recipe(&[("command", "true")]);
    ran(&mut bench, "main", &key, b"").await;
    let path = log_path(&hit(&mut bench, "main", &key).await);
    let whole = bench.get(&path).await.is(200).text();
    assert!(whole.starts_with("~~~ reused from build #1") && whole.lines().count() == 1, "{whole}");
    let sent = Events::open(&bench, &format!("{path}/stream"), None).await.until("end").await;
    assert_eq!((text(&sent[0].data["text"]), sent.len()), (&*whole, 2));
    assert_eq!(sent[1].data["digest"], json!(Digest::of(whole.as_bytes()).to_string()));
}

#[tokio::test]
async fn whoever_may_not_read_the_build_that_ran_gets_the_line_and_the_reason_alone() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let key = recipe(&[("command", "make"), ("env SECRETISH", "hush")]);
    ran(&mut bench, "main", &key, b"what main says\n").await;
    let topic = hit(&mut bench, "topic", &key).await;
    let only = bench.token(&[Scope::BuildsRead], Some("web"), Some("topic")).await;
    let path = log_path(&topic);
    let shown = bench.call(&only, "GET", &path, "").await.is(200).text();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("~~~ reused from build #1, step make, "), "{shown}");
    assert_eq!(lines[1..], ["its log is not shown: this token may not read that build"]);
    let rest = request(&only, "GET", &path).header(RANGE, format!("bytes={}-", shown.len()));
    bench.send(rest.body("".into()).unwrap()).await.is(416);
    let stream = bench.call(&only, "GET", &format!("{path}/stream?offset=0"), "").await.is(200).text();
    assert!(stream.contains("not shown") && stream.contains("event: end") && !stream.contains("what main"), "{stream}");
    assert!(bench.get(&path).await.is(200).text().ends_with("what main says\n"), "who may read it does");
    // Nor is a miss compared with it.
    let missed = build(&mut bench, "topic", &recipe(&[("command", "make"), ("env SECRETISH", "other")])).await;
    let told = explained(&bench, &only, &missed).await;
    assert_eq!((&told["outcome"], &told["nearest"]), (&json!("miss"), &Value::Null), "{told}");
    assert!(!told.to_string().contains("hush"), "{told}");
    let told = explained(&bench, &bench.admin, &missed).await;
    let expected = [("env SECRETISH".to_owned(), Some("hush".to_owned()), Some("other".to_owned()))];
    assert_eq!(differences(&told), expected);
}

#[tokio::test]
async fn the_log_of_a_run_is_kept_while_a_result_or_a_build_refers_to_it_and_goes_then() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let key = recipe(&[("command", "make")]);
    let first = ran(&mut bench, "main", &key, b"said once\n").await;
    let (ground, source) = (bench.ground.fleet.clone(), attempt(&first));
    let far = |ms: u64| now().wall.plus_ms(1_000 + ms);
    // Its build is over its time; the entry is not.
    expire_now(&ground, far(0), 0).await.unwrap();
    bench.get(&format!("/api/v1/builds/{}", text(&first["id"]))).await.is(404);
    bench.get(&log_path(&first)).await.is(404);
    let second = hit(&mut bench, "main", &key).await;
    assert!(bench.get(&log_path(&second)).await.is(200).text().ends_with("ago\nsaid once\n"));
    // The entry goes; a build that shows the log is there.
    let unused_since = WallMs(u64::MAX);
    bench.ask(Request::Reuse(ReuseRequest::Forget { unused_since })).await;
    expire_now(&ground, far(0), 1 << 40).await.unwrap();
    assert!(bench.get(&log_path(&second)).await.is(200).text().ends_with("ago\nsaid once\n"));
    assert!(ground.logs.len(source).await.unwrap().is_some());
    // And nobody refers to it any more: it goes with the next look after the last one's.
    expire_now(&ground, far(0), 0).await.unwrap();
    expire_now(&ground, far(0), 0).await.unwrap();
    assert!(ground.logs.len(source).await.unwrap().is_none(), "it is gone");
    // An entry that nobody uses takes it along.
    let third = ran(&mut bench, "main", &recipe(&[("command", "again")]), b"said twice\n").await;
    expire_now(&ground, far(0), 0).await.unwrap();
    assert!(ground.logs.len(attempt(&third)).await.unwrap().is_some());
    expire_now(&ground, far(REUSE_UNUSED_MS), 0).await.unwrap();
    assert!(ground.logs.len(attempt(&third)).await.unwrap().is_none());
}

/// A tree of one file in a directory, stored; its root.
fn tree(bench: &Bench, of: &[u8]) -> Digest {
    let (store, web) = (&bench.ground.fleet.store, Namespace::trusted("web"));
    let file = Node::File { digest: Digest::of(of), len: of.len() as u64, mode: 0o644 };
    let directory = |name: &[u8], node: Node| {
        let directory = Directory::new(vec![Entry { name: name.to_vec(), node }]).unwrap();
        store.put(&web, &directory.encode()).unwrap()
    };
    let inner = directory(b"a.c", file);
    directory(b"src", Node::Directory { digest: inner, mode: 0o755 })
}

#[tokio::test]
async fn a_miss_names_the_file_the_variable_and_the_image_that_are_not_as_they_were() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let (old, new) = (tree(&bench, b"int a;"), tree(&bench, b"long a;"));
    let (old, new) = (old.to_string(), new.to_string());
    let of = |inputs: &str, cc: &str, image: &str| {
        recipe(&[("command", "make"), ("env CC", cc), ("image", image), ("inputs", inputs), ("runner", "container")])
    };
    ran(&mut bench, "main", &of(&old, "gcc", "i1"), b"").await;
    let cases = [
        (of(&new, "gcc", "i1"), "file src/a.c"),
        (of(&old, "clang", "i1"), "env CC"),
        (of(&old, "gcc", "i2"), "image"),
    ];
    for (missed, component) in cases {
        let missed = build(&mut bench, "main", &missed).await;
        let told = explained(&bench, &bench.admin, &missed).await;
        assert_eq!(told["outcome"], json!("miss"), "{told}");
        assert_eq!(told["nearest"]["from"]["number"], json!(1), "{told}");
        let found = differences(&told);
        assert_eq!(found.iter().map(|(component, ..)| &**component).collect::<Vec<_>>(), [component], "{told}");
        assert!(found[0].1.is_some() && found[0].1 != found[0].2, "{told}");
        assert_eq!(text(&told["text"]), "no earlier run had its key: 1 difference to build #1");
    }
}

#[tokio::test]
async fn of_several_earlier_runs_the_one_with_most_in_common_is_compared_with() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let of = |a: &str, b: &str, c: &str| recipe(&[("command", "make"), ("env A", a), ("env B", b), ("env C", c)]);
    ran(&mut bench, "main", &of("1", "1", "1"), b"").await;
    ran(&mut bench, "main", &of("2", "2", "2"), b"").await;
    let missed = build(&mut bench, "main", &of("1", "1", "3")).await;
    let told = explained(&bench, &bench.admin, &missed).await;
    assert_eq!(told["nearest"]["from"]["number"], json!(1), "not the newest: {told}");
    assert_eq!(differences(&told), [("env C".to_owned(), Some("1".to_owned()), Some("3".to_owned()))]);
}

#[tokio::test]
async fn a_miss_says_that_its_result_was_here_and_why_it_went() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let key = recipe(&[("command", "make")]);
    ran(&mut bench, "main", &key, b"").await;
    bench.ask(Request::Reuse(ReuseRequest::Forget { unused_since: WallMs(u64::MAX) })).await;
    let missed = build(&mut bench, "main", &key).await;
    let told = explained(&bench, &bench.admin, &missed).await;
    assert_eq!((&told["outcome"], &told["gone"]["why"]), (&json!("miss"), &json!("unused")), "{told}");
    assert!(text(&told["gone"]["at"]).ends_with('Z') && text(&told["text"]).contains("was evicted"), "{told}");
}

#[tokio::test]
async fn a_step_without_a_key_says_why_and_one_that_does_not_ask_for_one_says_so() {
    let mut bench = Bench::new().await;
    let body = json!({ "pipeline": "web", "definition": STEP });
    let wishes = bench.post("/api/v1/builds", body).await.is(201).json();
    assert_eq!(explained(&bench, &bench.admin, &wishes).await["outcome"], json!("keying"));
    let (ask, subject) = bench.asked.recv().await.unwrap();
    answer(&bench, ask, subject.job, Err(Unkeyed { why: "its image has no digest".to_owned() })).await;
    let told = explained(&bench, &bench.admin, &wishes).await;
    assert_eq!((&told["outcome"], &told["key"]), (&json!("unkeyed"), &Value::Null));
    assert_eq!(text(&told["text"]), "it cannot be reused: its image has no digest");
    let plain = bench.build().await;
    assert_eq!(explained(&bench, &bench.admin, &plain).await["outcome"], json!("not_asked"));
}
