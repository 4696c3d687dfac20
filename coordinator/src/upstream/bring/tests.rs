//! Results of a fleet that gives what was asked for, something else, or half of it.

use std::collections::{BTreeMap, VecDeque};
use std::slice;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use windlass_cache::Store;
use windlass_coordinator_core::row::Hosts;
use windlass_pipeline::graph::Command;
use windlass_protocol::job::Source;
use windlass_protocol::limits::REUSE_OVERLAY_MAX_BYTES;

use super::super::Transport;
use super::*;
use crate::api::tests::Bench;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// After it nothing comes, and no end.
const SILENCE: &str = "silence";

/// A question that is not answered at all.
fn silent() -> NotAnswered {
    NotAnswered::Senseless(SILENCE.to_owned())
}

/// What comes of one question for bytes: pieces, the last of which may be why they break off.
type Given = Result<Vec<Result<&'static str, &'static str>>, NotAnswered>;

/// A fleet that answers a lookup so, and questions for bytes one after the other.
#[derive(Debug, Default)]
struct Script {
    results: Mutex<Vec<Value>>,
    given: Mutex<VecDeque<Given>>,
    asked: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Fleet(Arc<Script>);

impl Transport for Fleet {
    fn url(&self) -> &str {
        "https://ci"
    }

    fn ask(&self, path: String, _: Option<Value>, _: usize) -> BoxFuture<'static, Result<Vec<u8>, NotAnswered>> {
        self.0.asked.lock().unwrap().push(path);
        let answer = json!({ "results": *self.0.results.lock().unwrap() }).to_string().into_bytes();
        Box::pin(async { Ok(answer) })
    }

    fn open(&self, path: String) -> BoxFuture<'static, Result<Pieces, NotAnswered>> {
        self.0.asked.lock().unwrap().push(path);
        let given = self.0.given.lock().unwrap().pop_front();
        let given = given.unwrap_or_else(|| Err(NotAnswered::Refused("nothing more is asked for".to_owned())));
        Box::pin(async {
            if given == Err(silent()) {
                return std::future::pending().await;
            }
            let pieces = given?;
            let (is_silent, pieces) = match pieces.split_last() {
                Some((Err(SILENCE), before)) => (true, before.to_vec()),
                _ => (false, pieces),
            };
            let pieces = stream::iter(pieces).map(|piece| piece.map(Bytes::from).map_err(str::to_owned));
            Ok(if is_silent { pieces.chain(stream::pending()).boxed() } else { pieces.boxed() })
        })
    }
}

fn key() -> Digest {
    Digest::of(b"the key there")
}

fn name() -> Digest {
    Digest::of(b"the name here")
}

fn namespace() -> Namespace {
    Namespace::overlay("web", "local")
}

/// A laptop's coordinator, and its fleet.
struct World {
    _bench: Bench,
    bringer: Bringer,
    script: Arc<Script>,
    _data: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let (script, data) = (Arc::new(Script::default()), tempfile::tempdir().unwrap());
        let upstream = Upstream::new(Box::new(Fleet(Arc::clone(&script))), data.path());
        let fleet = &bench.ground.fleet;
        let (desk, store, shelves, logs) =
            (fleet.desk.clone(), fleet.store.clone(), fleet.shelves.clone(), fleet.logs.clone());
        let bringer = Bringer { upstream, desk, store, shelves, logs };
        Self { _bench: bench, bringer, script, _data: data }
    }

    /// The fleet has this result.
    fn has(&self, result: Value) {
        self.script.results.lock().unwrap().push(result);
    }

    /// Bytes come so.
    fn gives(&self, given: impl IntoIterator<Item = Given>) {
        self.script.given.lock().unwrap().extend(given);
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.script.asked.lock().unwrap())
    }

    /// Brings the step's result; what people are told.
    async fn bring(&self) -> Option<String> {
        let nobody = || Err(String::new());
        let subject = KeySubject {
            build: BuildId::from_bytes([1; 16]),
            job: JobId::from_bytes([2; 16]),
            namespace: namespace(),
            pipeline: "web".to_owned(),
            command: Box::new(Command::default()),
            source: Source::Empty,
            env: vec![],
            declared: vec![],
            made_by: BTreeMap::new(),
            secrets: BTreeMap::new(),
            hosts: Hosts { platform: nobody(), system: nobody(), hooks: Err(String::new()) },
            fresh: false,
        };
        let keyed = Keyed {
            key: Digest::of(b"the key here"),
            recipe: Digest::of(b"recipe"),
            source: Source::Empty,
            image: None,
            plugins: BTreeMap::new(),
            system: None,
            hooks: None,
            notes: vec![],
            also: vec![Digest::of(b"another name here"), name()],
        };
        let wanted = Wanted { project: "an app".to_owned(), keys: vec![Digest::of(b"another key there"), key()] };
        self.bringer.bring(&subject, &keyed, &wanted).await
    }

    async fn entry(&self) -> Option<ReuseRow> {
        let look = self.bringer.desk.look(|core| core.readable(&namespace(), name()).cloned());
        look.await.unwrap()
    }

    /// The bytes of an entry's log, if it has one; it has to have ended.
    async fn log(&self, entry: &ReuseRow) -> Option<String> {
        self.bringer.logs.quiet().await;
        let length = self.bringer.logs.len(entry.from.attempt).await.unwrap()?;
        assert!(length.sealed, "it has no end");
        let mut reader = self.bringer.logs.read(entry.from.attempt, 0..u64::MAX).await.unwrap();
        Some(String::from_utf8(reader.read_to_end().await.unwrap()).unwrap())
    }

    fn store(&self) -> &Store {
        &self.bringer.store
    }

    /// Nothing of a result is here, once what ends beside it has ended.
    async fn is_empty(&self) -> bool {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while self.bringer.logs.stats().live_logs > 0 && std::time::Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        self.bringer.logs.quiet().await;
        let shelf = namespace().on(Shelf::Artifacts);
        let logs = self.bringer.logs.stats();
        self.entry().await.is_none()
            && self.store().usage(&shelf).blobs == 0
            && (logs.live_logs, logs.sealed_logs) == (0, 0)
    }
}

fn told_file(text: &str) -> Value {
    json!({
        "path": "out/a", "bytes": text.len(), "digest": Digest::of(text.as_bytes()), "sha1": "0".repeat(40),
        "sha256": "0".repeat(64), "content_type": "text/plain", "executable": true,
    })
}

fn told(files: &[Value], log: bool) -> Value {
    json!({
        "key": key(), "branch": "main", "step_key": "make", "log": log, "files": files,
        "from": {
            "build_id": ID, "number": 7, "pipeline": "app", "job_id": ID, "step": "make",
            "at": "2026-01-02T03:04:05.678Z", "ran_ms": 5,
        },
    })
}

fn gone() -> NotAnswered {
    NotAnswered::NotReached("no route".to_owned())
}

#[tokio::test]
async fn a_result_comes_with_its_files_and_its_log_each_from_where_it_broke_off_and_is_asked_for_once() {
    let world = World::new().await;
    let mut other = told(&[], false);
    other["key"] = json!(Digest::of(b"of nobody"));
    world.has(other);
    world.has(told(&[told_file("made there")], true));
    world.gives([
        Ok(vec![Ok("made"), Err("reset")]),
        Err(gone()),
        Ok(vec![Ok(" th"), Ok("ere")]),
        Ok(vec![Ok("+ ma"), Err("reset")]),
        Err(gone()),
        Ok(vec![Ok("ke\n")]),
    ]);
    assert_eq!(world.bring().await, None);
    let place = format!("/reuse/results/{}", key().to_hex());
    let (file, log) = (format!("{place}/files/{}", Digest::of(b"made there").to_hex()), format!("{place}/log"));
    let asked = [(&file, 0), (&file, 4), (&file, 4), (&log, 0), (&log, 4), (&log, 4)];
    let asked = asked.map(|(path, offset)| format!("{path}?project=an%20app&offset={offset}"));
    assert_eq!(world.asked(), [&["/reuse/lookup".to_owned()][..], &asked].concat());
    let entry = world.entry().await.unwrap();
    assert_eq!(entry.name, ReuseName { namespace: namespace(), key: name() }, "by the name at the key's place");
    assert_eq!(entry.from.fleet.as_deref(), Some("https://ci"));
    let [output] = entry.outputs.as_slice() else { panic!("{:?}", entry.outputs) };
    assert_eq!((output.path.as_str(), output.digest, output.executable), ("out/a", Digest::of(b"made there"), true));
    assert_eq!(world.log(&entry).await.as_deref(), Some("+ make\n"));
    let shelf = namespace().on(Shelf::Artifacts);
    assert!(world.store().contains(&shelf, &output.digest));
    for other in [Namespace::trusted("web"), namespace(), Namespace::overlay("web", "pr:1").on(Shelf::Artifacts)] {
        assert!(!world.store().contains(&other, &output.digest), "{other:?} sees nothing of it");
    }
    assert_eq!((world.bring().await, world.asked()), (None, vec![]), "what is here is asked of nobody");
}

#[tokio::test]
async fn a_file_that_is_here_is_not_fetched_and_one_that_only_others_have_is() {
    for (place, fetched) in [
        (namespace().on(Shelf::Artifacts), false),
        (namespace(), false),
        (Namespace::overlay("web", "pr:1"), true),
        (Namespace::trusted("other"), true),
    ] {
        let world = World::new().await;
        world.store().put(&place, b"made there").unwrap();
        world.has(told(&[told_file("made there")], false));
        world.gives([Ok(vec![Ok("made there")])]);
        assert_eq!((world.bring().await, world.asked().len() == 2), (None, fetched), "{place:?}");
        assert!(world.store().contains(&namespace().on(Shelf::Artifacts), &Digest::of(b"made there")), "{place:?}");
        assert!(world.entry().await.is_some());
    }
}

#[tokio::test]
async fn a_file_that_is_here_with_another_length_than_is_told_is_none() {
    let world = World::new().await;
    world.store().put(&namespace().on(Shelf::Artifacts), b"made there").unwrap();
    let mut file = told_file("made there");
    file["bytes"] = json!(9);
    world.has(told(&[file], false));
    world.gives([Ok(vec![Ok("made ther")])]);
    assert!(world.bring().await.unwrap().contains("cannot be used"));
    assert!(world.entry().await.is_none());
}

#[tokio::test]
async fn what_a_fleet_gives_in_the_place_of_a_file_is_not_taken_and_leaves_nothing() {
    let broken = || Ok(vec![Ok("m"), Err("reset")]);
    let cases: [(&str, Vec<Given>, usize); 6] = [
        ("other bytes", vec![Ok(vec![Ok("made hEre!")])], 1),
        ("more bytes than it says", vec![Ok(vec![Ok("made there"), Ok("!")])], 1),
        ("has only 4 bytes", (0..9).map(|nth| Ok(vec![Ok("made"); usize::from(nth == 0)])).collect(), 4),
        ("reset", (0..9).map(|_| broken()).collect(), 4),
        ("no route", (0..9).map(|_| Err(gone())).collect(), 4),
        ("nothing more is asked for", vec![], 4),
    ];
    for (why, given, tries) in cases {
        let world = World::new().await;
        world.has(told(&[told_file("made there")], true));
        world.gives(given);
        let said = world.bring().await.unwrap();
        assert!(said.contains("build #7, which cannot be used"), "{said}");
        assert!(why == "other bytes" || said.contains(why), "{why}: {said}");
        assert_eq!(world.asked().len(), 1 + tries, "{why}");
        assert!(world.is_empty().await, "{why}");
    }
}

#[tokio::test]
async fn a_result_of_another_key_or_with_a_file_that_cannot_be_is_not_taken() {
    let world = World::new().await;
    assert!(world.bring().await.unwrap().contains("has no result of this key"));
    let mut other = told(&[], false);
    other["key"] = json!(Digest::of(b"of nobody"));
    world.has(other);
    assert!(world.bring().await.unwrap().contains("has no result of this key"));
    let mut file = told_file("made there");
    file["path"] = json!("../a");
    world.has(told(&[file], false));
    assert!(world.bring().await.unwrap().contains("cannot be used"));
    assert!(world.asked().iter().all(|path| path == "/reuse/lookup"));
    assert!(world.is_empty().await);
}

#[tokio::test]
async fn a_step_s_key_that_no_step_could_have_is_left_out_and_the_rest_is_used() {
    for (step_key, kept) in [
        (json!("make"), Some("make".to_owned())),
        (json!("x".repeat(NAME_MAX_BYTES)), Some("x".repeat(NAME_MAX_BYTES))),
        (json!("x".repeat(NAME_MAX_BYTES + 1)), None),
        (json!("a\u{1b}[2J"), None),
        (Value::Null, None),
    ] {
        let world = World::new().await;
        let mut told = told(&[], false);
        told["step_key"] = step_key;
        world.has(told);
        assert_eq!(world.bring().await, None);
        assert_eq!(world.entry().await.unwrap().step_key, kept);
    }
}

#[tokio::test]
async fn a_result_that_is_larger_than_any_of_here_is_not_kept_and_that_is_told() {
    let world = World::new().await;
    let large = "x".repeat(usize::try_from(REUSE_OVERLAY_MAX_BYTES).unwrap() / REUSE_OUTPUTS_MAX + 1);
    world.store().put(&namespace(), large.as_bytes()).unwrap();
    let file = |nth: usize| {
        let mut file = told_file(&large);
        file["path"] = json!(format!("out/{nth}"));
        file
    };
    let files: Vec<Value> = vec![file(0); REUSE_OUTPUTS_MAX - 1].into_iter().chain([file(1)]).collect();
    world.has(told(&files, true));
    let said = world.bring().await.unwrap();
    assert!(said.contains("cannot be used") && said.contains("bytes of results"), "{said}");
    assert!(world.entry().await.is_none());
}

#[tokio::test]
async fn a_log_that_cannot_be_had_to_its_end_spoils_its_result_and_leaves_nothing_and_one_that_is_refused_ends_there() {
    for given in [
        (0..9).map(|_| Ok(vec![Ok("+"), Err("reset")])).collect::<Vec<Given>>(),
        std::iter::once(Ok(vec![Ok("+ make"), Err("reset")])).chain((0..9).map(|_| Err(gone()))).collect(),
    ] {
        let world = World::new().await;
        world.has(told(&[], true));
        world.gives(given);
        let said = world.bring().await.unwrap();
        assert!(said.contains("which cannot be used"), "{said}");
        assert_eq!(world.asked().len(), 1 + usize::try_from(FLEET_FETCH_TRIES).unwrap());
        assert!(world.is_empty().await);
    }
    for (given, log) in [(vec![], None), (vec![Ok(vec![Ok("+ make"), Err("reset")])], Some("+ make"))] {
        let world = World::new().await;
        world.has(told(&[], true));
        world.gives(given);
        assert_eq!(world.bring().await, None);
        let entry = world.entry().await.unwrap();
        assert_eq!(world.log(&entry).await.as_deref(), log);
    }
}

#[tokio::test]
async fn a_fleet_that_falls_silent_is_waited_for_within_bounds_and_nothing_of_what_it_gave_is_left() {
    let (file, tries) = (told_file("made there"), u64::from(FLEET_FETCH_TRIES));
    for (result, given, wait_ms, why) in [
        (told(slice::from_ref(&file), false), Err(silent()), tries * FLEET_ASK_MS, "it did not answer"),
        (told(slice::from_ref(&file), false), Ok(vec![Ok("made"), Err(SILENCE)]), FLEET_FETCH_MS, "within 45 s"),
        (told(&[], true), Err(silent()), tries * FLEET_ASK_MS, "it did not answer"),
        (told(&[], true), Ok(vec![Ok("+ make"), Err(SILENCE)]), FLEET_FETCH_MS, "within 45 s"),
    ] {
        let world = World::new().await;
        world.has(result);
        world.gives((0..9).map(|_| given.clone()));
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        let said = world.bring().await.unwrap();
        let waited = begun.elapsed().as_millis();
        tokio::time::resume();
        assert!(said.contains(why), "{said}");
        assert!((wait_ms.into()..=u128::from(wait_ms) + 100).contains(&waited), "{why}: {waited} ms");
        assert!(world.is_empty().await, "{why}");
    }
}

#[tokio::test]
async fn of_a_log_without_an_end_the_beginning_is_kept() {
    let world = World::new().await;
    let piece: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    let pieces = usize::try_from(FLEET_LOG_MAX_BYTES >> 20).unwrap() + 2;
    world.has(told(&[], true));
    world.gives([Ok([&vec![Ok("y"); 1][..], &vec![Ok(piece); pieces]].concat())]);
    assert_eq!(world.bring().await, None);
    let entry = world.entry().await.unwrap();
    world.bringer.logs.quiet().await;
    let length = world.bringer.logs.len(entry.from.attempt).await.unwrap().unwrap();
    assert_eq!((length.durable, length.sealed), (FLEET_LOG_MAX_BYTES, true));
}

fn file(path: &str) -> File {
    File {
        path: path.to_owned(),
        bytes: 1,
        digest: Digest::of(b"x"),
        sha1: "0".repeat(40),
        sha256: "0".repeat(64),
        content_type: "text/plain".to_owned(),
        executable: false,
    }
}

#[test]
fn a_file_that_no_job_could_have_made_is_not_taken() {
    assert_eq!(outputs(&[file("out/a b"), file("x")]).unwrap().len(), 2);
    assert!(outputs(&vec![file("x"); REUSE_OUTPUTS_MAX]).is_ok());
    let too_many = vec![file("x"); REUSE_OUTPUTS_MAX + 1];
    assert!(outputs(&too_many).is_err());
    for path in ["../x", "/etc/passwd", "a/../../x", "", "a//b", "a\0b", "./x"] {
        assert!(outputs(&[file(path)]).is_err(), "{path:?}");
    }
    for digits in ["zz", "00"] {
        assert!(outputs(&[File { sha256: digits.to_owned(), ..file("x") }]).is_err(), "{digits}");
    }
    assert!(outputs(&[File { content_type: "a\r\nb".to_owned(), ..file("x") }]).is_err());
}

#[test]
fn who_made_it_is_told_as_it_can_be_and_its_log_has_a_name_of_here() {
    let told = From {
        build_id: ID.to_owned(),
        number: 7,
        pipeline: "web".to_owned(),
        job_id: ID.to_owned(),
        step: "make".to_owned(),
        at: "2026-01-02T03:04:05.678Z".to_owned(),
        ran_ms: 5,
    };
    let one = from(&told, "main", "https://ci").unwrap();
    assert_eq!((one.number, one.fleet.as_deref(), one.at.0 % 1_000), (7, Some("https://ci"), 678));
    assert_ne!(one.attempt, from(&told, "main", "https://ci").unwrap().attempt);
    for bad in [
        From { step: "a\x1b[2J".to_owned(), ..told.clone() },
        From { pipeline: "x".repeat(NAME_MAX_BYTES + 1), ..told.clone() },
        From { build_id: "x".to_owned(), ..told.clone() },
        From { at: "yesterday".to_owned(), ..told.clone() },
    ] {
        assert!(from(&bad, "main", "https://ci").is_err(), "{bad:?}");
    }
    for branch in ["a\nb".to_owned(), "x".repeat(NAME_MAX_BYTES + 1)] {
        assert!(from(&told, &branch, "https://ci").is_err(), "{branch:?}");
    }
}
