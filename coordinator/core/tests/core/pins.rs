//! Pins of builds: what they hold stays until they end, within their bounds, whatever clocks and crashes do.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use windlass_coordinator_core::input::{Input, Request};
use windlass_coordinator_core::roots::{Root, roots_of_pinned};
use windlass_coordinator_core::row::*;
use windlass_coordinator_core::{Bugs, Effect, Policy, Rejected, Reply};
use windlass_pipeline::graph::Reuse;
use windlass_protocol::job::{Epoch, Source};
use windlass_protocol::{AgentId, AttemptId, BuildId, Digest, Namespace, WallMs, limits};

use crate::kit::*;

type Right = (AttemptId, Epoch);

const DAY: u64 = 86_400_000;

fn key(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn trusted() -> Namespace {
    Namespace::trusted("app")
}

fn name(text: &str) -> ReuseName {
    ReuseName { namespace: trusted(), key: key(text) }
}

/// A build of one step whose key is asked for.
fn asking(shell: &mut Shell) -> BuildId {
    let step = step_with("a", |command| command.reuse = Some(Reuse::default()));
    shell.submit(graph(vec![step]))
}

/// The questions for keys are answered, all by this one.
fn answer(shell: &mut Shell, text: &str) {
    let asked = shell.take_effects().into_iter().filter_map(|effect| match effect {
        Effect::Key { ask, subject } => Some((ask, subject.job)),
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    assert!(!asked.is_empty());
    let keyed = Keyed {
        key: key(text),
        recipe: key("recipe"),
        source: Source::Tree { digest: key("inputs") },
        image: None,
        plugins: BTreeMap::new(),
        system: None,
        hooks: None,
        notes: Vec::new(),
        also: Vec::new(),
    };
    for (ask, job) in asked {
        shell.input(Input::Keyed { job, ask, outcome: Ok(Box::new(keyed.clone())) }).unwrap();
    }
}

/// A build of one step whose key is this.
fn build_of(shell: &mut Shell, text: &str) -> BuildId {
    let build = asking(shell);
    answer(shell, text);
    build
}

fn upload(shell: &mut Shell, (attempt, epoch): Right, call: u8, bytes: u64) {
    let file = Output {
        path: format!("out/{call}"),
        bytes,
        digest: key("file"),
        sha1: "01".repeat(20),
        sha256: "02".repeat(32),
        content_type: "text/plain".to_owned(),
        executable: false,
    };
    let speech = Speech { attempt, epoch, call: [call; 16], what: Said::AddArtifacts(vec![file]) };
    shell.request(Request::Speak(Box::new(speech))).unwrap();
}

fn finish(shell: &mut Shell, agent: AgentId, offer: Right) {
    let outcome = shell.exit(0);
    shell.report(agent, offer, outcome);
    shell.settle(offer);
}

/// A build that ran, or ended with an earlier result, of a file of so many bytes.
fn built_of(shell: &mut Shell, agent: AgentId, text: &str, bytes: u64) -> BuildId {
    let build = build_of(shell, text);
    for (epoch, spec) in shell.offers(agent) {
        let offer = (spec.attempt, epoch);
        shell.start(agent, offer);
        upload(shell, offer, 1, bytes);
        finish(shell, agent, offer);
    }
    assert!(shell.build(build).state.is_final());
    build
}

fn new(shell: &Shell, build: BuildId) -> NewPin {
    let rows = shell.history.get(&build).cloned().map(Box::new);
    let (gone, room_bytes) = (PinGone::default(), u64::MAX);
    NewPin { build, name: Anew::AsBefore, until: Anew::AsBefore, gone, room_bytes, again: false, rows }
}

fn ask(shell: &mut Shell, new: NewPin) -> Result<Option<PinRow>, Rejected> {
    match shell.request(Request::Pin(PinRequest::Pin(Box::new(new))))? {
        Reply::Pinned { before, .. } => Ok(before.map(|row| *row)),
        other => panic!("{other:?}"),
    }
}

fn pin(shell: &mut Shell, build: BuildId, until: Anew<WallMs>) -> Result<Option<PinRow>, Rejected> {
    let new = NewPin { until, ..new(shell, build) };
    ask(shell, new)
}

fn unpin(shell: &mut Shell, build: BuildId) {
    let before = shell.rows.pins.get(&build).cloned().map(Box::new);
    assert_eq!(shell.request(Request::Pin(PinRequest::Unpin { build })), Ok(Reply::Unpinned { before }));
}

/// All that nobody holds goes.
fn forget(shell: &mut Shell) {
    shell.request(Request::Reuse(ReuseRequest::Forget { unused_since: WallMs(u64::MAX) })).unwrap();
}

fn at(shell: &Shell, from_now_ms: u64) -> Anew<WallMs> {
    Anew::This(shell.now.wall.plus_ms(from_now_ms))
}

#[test]
fn what_a_pinned_build_wrote_or_used_stays_until_no_pin_holds_it() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let wrote = built_of(&mut shell, agent, "k", 5);
    let used = built_of(&mut shell, agent, "k", 5);
    built_of(&mut shell, agent, "other", 5);
    assert_eq!(pin(&mut shell, wrote, Anew::Nothing), Ok(None));
    assert_eq!(pin(&mut shell, used, Anew::Nothing), Ok(None));
    let row = &shell.rows.pins[&wrote];
    assert_eq!((row.files, row.bytes, row.number, row.branch.as_str()), (1, 5, 1, "main"));
    assert_eq!((&row.by, row.until, row.gone), (&actor(), None, PinGone::default()));
    forget(&mut shell);
    assert_eq!(shell.rows.reuse.keys().collect::<Vec<_>>(), [&name("k")], "nobody holds the other");
    shell.restart();
    forget(&mut shell);
    unpin(&mut shell, wrote);
    forget(&mut shell);
    assert!(shell.rows.reuse.contains_key(&name("k")), "the other pin holds it");
    unpin(&mut shell, used);
    unpin(&mut shell, used);
    assert!(shell.rows.pinned_results.is_empty() && shell.rows.reuse.contains_key(&name("k")));
    forget(&mut shell);
    assert!(shell.rows.reuse.is_empty());
    let said: Vec<_> = shell.audits.iter().filter(|act| act.contains("pin")).map(String::as_str).collect();
    assert_eq!(said, ["build.pin", "build.pin", "build.unpin", "build.unpin"], "what changes nothing is no line");
}

#[test]
fn a_build_that_goes_on_is_held_with_all_that_it_makes_from_then_on() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = build_of(&mut shell, "k");
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    upload(&mut shell, offer, 1, 5);
    pin(&mut shell, build, Anew::Nothing).unwrap();
    upload(&mut shell, offer, 2, 7);
    assert_eq!((shell.rows.pins[&build].files, shell.rows.pins[&build].bytes), (2, 12));
    finish(&mut shell, agent, offer);
    forget(&mut shell);
    assert_eq!(shell.rows.pinned_results, BTreeSet::from([(build, key("k"))]));
    assert!(shell.rows.reuse.contains_key(&name("k")));
    // One that ends with an earlier result holds that.
    let second = asking(&mut shell);
    pin(&mut shell, second, Anew::Nothing).unwrap();
    answer(&mut shell, "k");
    assert!(shell.build(second).state.is_final());
    assert!(shell.rows.pinned_results.contains(&(second, key("k"))) && shell.rows.pins[&second].files == 1 + 1);
    // A person adds a file to what is over.
    let (rows, attempt) = (shell.history[&build].clone(), offer.0);
    let artifact = Output {
        path: "notes".to_owned(),
        bytes: 3,
        digest: key("notes"),
        sha1: String::new(),
        sha256: String::new(),
        content_type: String::new(),
        executable: false,
    };
    let put = PutArtifact { build, attempt, artifact, rows: Some(Box::new(rows)) };
    shell.request(Request::PutArtifact(Box::new(put))).unwrap();
    assert_eq!((shell.rows.pins[&build].files, shell.rows.pins[&build].bytes), (3, 15));
}

#[test]
fn a_pinned_build_needs_its_source_and_the_inputs_and_recipes_of_jobs_that_are_over() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = built_of(&mut shell, agent, "k", 5);
    let mut rows = shell.history[&build].clone();
    let jobs = [Root::Tree(key("inputs")), Root::Recipe(key("recipe"))];
    assert_eq!(roots_of_pinned(&rows), jobs);
    rows.build.origin = Source::Tree { digest: key("source") };
    let all: BTreeSet<Root> = roots_of_pinned(&rows).into_iter().collect();
    assert_eq!(all, jobs.into_iter().chain([Root::Tree(key("source"))]).collect());
}

#[test]
fn said_again_it_changes_name_and_end_and_what_is_not_said_stays() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = built_of(&mut shell, agent, "k", 5);
    let called = |shell: &Shell, text: &str| NewPin { name: Anew::This(text.to_owned()), ..new(shell, build) };
    let first = NewPin { until: at(&shell, DAY), ..called(&shell, "v1") };
    assert_eq!(ask(&mut shell, first), Ok(None));
    let row = shell.rows.pins[&build].clone();
    let Anew::This(end) = at(&shell, DAY) else { unreachable!() };
    assert_eq!((row.name.as_deref(), row.until), (Some("v1"), Some(end)));
    assert_eq!(pin(&mut shell, build, Anew::AsBefore), Ok(Some(row.clone())));
    assert_eq!(shell.rows.pins[&build], row);
    shell.now.wall = shell.now.wall.plus_ms(5);
    let renamed = called(&shell, "v2");
    assert_eq!(ask(&mut shell, renamed), Ok(Some(row.clone())));
    assert_eq!((shell.rows.pins[&build].name.as_deref(), shell.rows.pins[&build].until), (Some("v2"), Some(end)));
    assert_eq!(shell.rows.pins[&build].at, row.at, "it is the same pin");
    pin(&mut shell, build, Anew::Nothing).unwrap();
    assert_eq!((shell.rows.pins[&build].name.as_deref(), shell.rows.pins[&build].until), (Some("v2"), None));
    let nameless = NewPin { name: Anew::Nothing, ..new(&shell, build) };
    assert_eq!(ask(&mut shell, nameless).unwrap().unwrap().name.as_deref(), Some("v2"));
    assert_eq!((shell.rows.pins[&build].name.as_deref(), shell.rows.pins[&build].until), (None, None));
    shell.pass(2 * DAY);
    assert!(shell.rows.pins.contains_key(&build), "it has no end any more");
    // What was found to be gone before it was pinned is told again, and is no other pin.
    let gone = PinGone { files: 1, bytes: 5, ..PinGone::default() };
    let new = NewPin { gone, ..new(&shell, build) };
    ask(&mut shell, new).unwrap();
    assert_eq!((shell.rows.pins[&build].files, shell.rows.pins[&build].gone), (0, gone));
}

#[test]
fn a_pin_ends_by_its_time_and_no_clock_that_is_set_ends_it_before() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = built_of(&mut shell, agent, "k", 5);
    let ends = at(&shell, DAY);
    pin(&mut shell, build, ends).unwrap();
    shell.pass(DAY - 1);
    assert!(shell.rows.pins.contains_key(&build));
    shell.pass(1);
    assert!(shell.rows.pins.is_empty() && shell.rows.pinned_results.is_empty());
    assert_eq!(shell.audits.last().map(String::as_str), Some("build.pin_over"));
    // The clock on the wall is set far ahead: a day is a day.
    let ends = at(&shell, DAY);
    pin(&mut shell, build, ends).unwrap();
    shell.now.wall = shell.now.wall.plus_ms(1_000 * DAY);
    shell.pass(DAY - 1);
    assert!(shell.rows.pins.contains_key(&build), "a step of the clock is no day");
    shell.pass(1);
    assert!(shell.rows.pins.is_empty());
    // It is set back: the end that was said is what counts.
    let ends = at(&shell, DAY);
    pin(&mut shell, build, ends).unwrap();
    shell.now.wall = WallMs(shell.now.wall.0 - DAY);
    shell.pass(2 * DAY - 1);
    assert!(shell.rows.pins.contains_key(&build));
    shell.pass(1);
    assert!(shell.rows.pins.is_empty());
    // Nobody was there when it was time.
    let ends = at(&shell, DAY);
    pin(&mut shell, build, ends).unwrap();
    shell.now.wall = shell.now.wall.plus_ms(3 * DAY);
    shell.restart();
    assert!(shell.rows.pins.contains_key(&build));
    shell.pass(1);
    assert!(shell.rows.pins.is_empty());
}

/// A build that has left memory, with so many artifacts.
fn past(shell: &Shell, like: BuildId, n: u64, (files, bytes): (u32, u64)) -> BuildRows {
    let mut rows = shell.history[&like].clone();
    let mut id = [0xee; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    rows.build.id = BuildId::from_bytes(id);
    rows.build.number = 100 + n;
    for job in &mut rows.jobs {
        job.build = rows.build.id;
        job.reuse = None;
    }
    for attempt in &mut rows.attempts {
        attempt.build = rows.build.id;
        attempt.artifacts = ArtifactTally { count: files, bytes };
    }
    rows
}

fn pin_past(
    shell: &mut Shell,
    rows: BuildRows,
    until: Anew<WallMs>,
    room_bytes: u64,
) -> Result<Option<PinRow>, Rejected> {
    let (build, rows) = (rows.build.id, Some(Box::new(rows)));
    let gone = PinGone::default();
    ask(shell, NewPin { build, name: Anew::AsBefore, until, gone, room_bytes, again: false, rows })
}

#[test]
fn pins_that_end_together_end_at_once_with_one_change_each() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let like = built_of(&mut shell, agent, "k", 5);
    let ends = at(&shell, DAY);
    let most = u32::try_from(limits::ARTIFACTS_PER_BUILD_MAX).unwrap();
    for n in 1..=3 {
        let rows = past(&shell, like, n, (most, 1));
        pin_past(&mut shell, rows, ends, u64::MAX).unwrap();
    }
    let Anew::This(wall) = ends else { unreachable!() };
    shell.now.mono = shell.now.mono.plus_ms(DAY);
    shell.now.wall = wall;
    shell.core.handle_timeout(shell.now);
    let changes = std::iter::from_fn(|| shell.core.poll_effect()).filter_map(|effect| match effect {
        Effect::Change(change @ (Change::Pin(_) | Change::PinResult { .. } | Change::PinOver(_))) => Some(change),
        _ => None,
    });
    let changes: Vec<_> = changes.collect();
    assert!(changes.len() == 3 && changes.iter().all(|change| matches!(change, Change::PinOver(_))), "{changes:?}");
}

#[test]
fn a_pin_that_is_over_before_it_is_looked_at_again_stays_over() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = built_of(&mut shell, agent, "k", 5);
    let again = |shell: &Shell| NewPin { again: true, ..new(shell, build) };
    let ends = at(&shell, 5);
    pin(&mut shell, build, ends).unwrap();
    let second = again(&shell);
    assert!(ask(&mut shell, second).unwrap().is_some());
    shell.pass(5);
    let third = again(&shell);
    assert_eq!(ask(&mut shell, third), Err(PinRefused::Over(build).into()));
    assert!(shell.rows.pins.is_empty());
}

#[test]
fn what_cannot_be_pinned_says_why_and_changes_nothing() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let (build, other) = (built_of(&mut shell, agent, "k", 5), built_of(&mut shell, agent, "l", 5));
    let theirs =
        shell.submit_with(graph(vec![step("a")]), |submit| submit.namespace = Namespace::overlay("app", "pr:1"));
    assert_eq!(pin(&mut shell, theirs, Anew::Nothing), Err(PinRefused::Untrusted(theirs).into()));
    let nowhere = NewPin { rows: None, ..new(&shell, build) };
    assert_eq!(ask(&mut shell, nowhere), Err(Rejected::NotInMemory(build)));
    let mut rows = shell.history[&build].clone();
    rows.build.state = BuildState::Running;
    assert_eq!(
        pin_past(&mut shell, rows, Anew::Nothing, u64::MAX),
        Err(Rejected::NotInMemory(build)),
        "read too early"
    );
    let long = "n".repeat(limits::NAME_MAX_BYTES + 1);
    for bad in ["", " v1", "v1\n", "a\u{7}b", &long] {
        let named = NewPin { name: Anew::This(bad.to_owned()), ..new(&shell, build) };
        assert!(matches!(ask(&mut shell, named), Err(Rejected::Setting { what: "name", .. })), "{bad:?}");
    }
    let (now, last) = (shell.now.wall, WallMs(limits::TIME_LAST_MS));
    for bad in [WallMs(0), now, last.plus_ms(1), WallMs(u64::MAX)] {
        let refused = pin(&mut shell, build, Anew::This(bad));
        assert!(matches!(refused, Err(Rejected::Setting { what: "until", .. })), "{bad:?}");
    }
    assert!(shell.rows.pins.is_empty());
    pin(&mut shell, build, Anew::This(last)).unwrap();
    let named = |build| NewPin { name: Anew::This("v1".to_owned()), ..new(&shell, build) };
    let (first, second) = (named(build), named(other));
    ask(&mut shell, first.clone()).unwrap();
    assert_eq!(ask(&mut shell, first), Ok(Some(shell.rows.pins[&build].clone())), "its own name is no other's");
    let taken = PinRefused::NameTaken { name: "v1".to_owned(), number: 1 };
    assert_eq!(ask(&mut shell, second.clone()), Err(taken.into()));
    unpin(&mut shell, build);
    assert_eq!(ask(&mut shell, second), Ok(None));
}

#[test]
fn pins_leave_room_to_builds_in_number_and_bytes() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let like = built_of(&mut shell, agent, "k", 5);
    let refused = |answer: Result<Option<PinRow>, Rejected>| match answer {
        Err(Rejected::Pin(PinRefused::NoRoom { what, would_be, limit })) => (what, would_be - limit),
        other => panic!("{other:?}"),
    };
    let half = limits::PINNED_MAX_BYTES / 2;
    for n in 1..=2 {
        let rows = past(&shell, like, n, (1, half));
        pin_past(&mut shell, rows, Anew::Nothing, u64::MAX).unwrap();
    }
    let rows = past(&shell, like, 3, (1, 1));
    let answer = pin_past(&mut shell, rows.clone(), Anew::Nothing, u64::MAX);
    assert_eq!(refused(answer), ("bytes of one pipeline's pins", 1));
    let mut elsewhere = rows;
    (elsewhere.build.pipeline, elsewhere.build.namespace) = ("api".to_owned(), Namespace::trusted("api"));
    let answer = pin_past(&mut shell, elsewhere.clone(), Anew::Nothing, 2 * half);
    let said = answer.unwrap_err().to_string();
    assert!(said.contains("of all pipelines") && !said.contains(|c: char| c.is_ascii_digit()), "I12: {said}");
    pin_past(&mut shell, elsewhere, Anew::Nothing, 2 * half + 1).unwrap();
    // One that is there is never refused for want of room: it takes none.
    let again = past(&shell, like, 1, (1, half));
    assert!(pin_past(&mut shell, again, Anew::Nothing, 0).unwrap().is_some());
    let pinned: Vec<BuildId> = shell.rows.pins.keys().copied().collect();
    pinned.into_iter().for_each(|build| unpin(&mut shell, build));
    let files = u32::try_from(limits::PINNED_MAX_FILES).unwrap();
    let rows = past(&shell, like, 1, (files + 1, 1));
    let answer = pin_past(&mut shell, rows, Anew::Nothing, u64::MAX);
    assert_eq!(refused(answer), ("artifacts of one pipeline's pins", 1));
    for n in 0..limits::PINS_PER_PIPELINE_MAX as u64 {
        let rows = past(&shell, like, n, (1, 1));
        pin_past(&mut shell, rows, Anew::Nothing, u64::MAX).unwrap();
    }
    let rows = past(&shell, like, 1_000, (1, 1));
    let answer = pin_past(&mut shell, rows, Anew::Nothing, u64::MAX);
    assert_eq!(refused(answer), ("pins of one pipeline", 1));
}

#[test]
fn results_are_held_up_to_half_of_what_a_pipeline_may_have_and_the_others_go_on_in_the_rest() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let third = limits::REUSE_TRUSTED_MAX_BYTES / 3;
    let there = |shell: &Shell, text: &str| shell.rows.reuse.contains_key(&name(text));
    let held = built_of(&mut shell, agent, "a", third);
    let second = built_of(&mut shell, agent, "b", third);
    pin(&mut shell, held, Anew::Nothing).unwrap();
    match pin(&mut shell, second, Anew::Nothing) {
        Err(Rejected::Pin(PinRefused::NoRoom { what: "bytes of results of one pipeline that pins hold", .. })) => {}
        other => panic!("{other:?}"),
    }
    shell.now.wall = shell.now.wall.plus_ms(limits::REUSE_TOUCH_MS);
    built_of(&mut shell, agent, "c", third);
    shell.now.wall = shell.now.wall.plus_ms(limits::REUSE_TOUCH_MS);
    built_of(&mut shell, agent, "d", third);
    let left = ["a", "b", "c", "d"].map(|text| there(&shell, text));
    assert_eq!(left, [true, false, true, true], "what was used longest ago of those that nobody holds");
    // One that a fleet made, and that has no room beside what is held, changes nothing.
    let mut large = shell.rows.reuse[&name("c")].clone();
    large.name = name("e");
    large.outputs[0].bytes = 2 * third + 2;
    let adopted = shell.request(Request::Reuse(ReuseRequest::Adopt(Box::new(large.clone()))));
    assert!(matches!(adopted, Err(Rejected::Limit { .. })), "{adopted:?}");
    assert!(!there(&shell, "e") && there(&shell, "c"));
    // What a build makes that is pinned already is held as far as there is room, and told where there is none.
    let goes_on = build_of(&mut shell, "f");
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    pin(&mut shell, goes_on, Anew::Nothing).unwrap();
    upload(&mut shell, offer, 1, third);
    finish(&mut shell, agent, offer);
    assert!(there(&shell, "f") && there(&shell, "a"));
    assert_eq!((shell.rows.pins[&goes_on].left_out, shell.rows.pinned_results.len()), (1, 1));
    unpin(&mut shell, held);
    pin(&mut shell, goes_on, Anew::AsBefore).unwrap();
    assert_eq!(shell.rows.pins[&goes_on].left_out, 0, "now there is room");
    assert_eq!(shell.rows.pinned_results, BTreeSet::from([(goes_on, key("f"))]));
}

#[test]
fn results_that_find_no_room_or_are_lost_are_counted_by_key_whatever_number_of_jobs_has_it() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let third = limits::REUSE_TRUSTED_MAX_BYTES / 3;
    let full = built_of(&mut shell, agent, "full", third);
    pin(&mut shell, full, Anew::Nothing).unwrap();
    let twins = ["a", "b", "c"].map(|key| step_with(key, |command| command.reuse = Some(Reuse::default())));
    let build = shell.submit(graph(twins.to_vec()));
    answer(&mut shell, "k");
    pin(&mut shell, build, Anew::Nothing).unwrap();
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    upload(&mut shell, offer, 1, third);
    finish(&mut shell, agent, offer);
    assert!(shell.build(build).state.is_final(), "the others use what the first has made");
    assert_eq!(shell.rows.pins[&build].left_out, 1);
    pin(&mut shell, build, Anew::AsBefore).unwrap();
    assert_eq!(shell.rows.pins[&build].left_out, 1);
    forget(&mut shell);
    pin(&mut shell, build, Anew::AsBefore).unwrap();
    let row = &shell.rows.pins[&build];
    assert_eq!((row.left_out, row.gone.results), (0, 1));
}

#[test]
fn the_audit_trail_says_until_when_in_words() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = built_of(&mut shell, agent, "k", 5);
    let new = NewPin {
        name: Anew::This("v1".to_owned()),
        until: Anew::This(WallMs(1_801_382_400_000)),
        ..new(&shell, build)
    };
    ask(&mut shell, new).unwrap();
    pin(&mut shell, build, Anew::Nothing).unwrap();
    let said: Vec<_> = shell.audit_details.iter().filter(|detail| detail.contains("until")).collect();
    assert_eq!(said, ["app #1 as v1 until 2027-01-31T08:00:00Z", "app #1 as v1 until it is undone"]);
}

#[test]
fn what_went_before_is_told_and_a_newer_result_of_the_same_key_takes_a_held_one_s_place() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = built_of(&mut shell, agent, "k", 5);
    forget(&mut shell);
    pin(&mut shell, build, Anew::Nothing).unwrap();
    assert_eq!(shell.rows.pins[&build].gone, PinGone { results: 1, ..PinGone::default() });
    // It is made again by somebody else, and is held from when the pin is said again.
    built_of(&mut shell, agent, "k", 7);
    pin(&mut shell, build, Anew::AsBefore).unwrap();
    forget(&mut shell);
    assert!(shell.rows.reuse.contains_key(&name("k")));
    let step = step_with("a", |command| command.reuse = Some(Reuse::default()));
    let anew = shell.submit_with(graph(vec![step]), |submit| submit.no_reuse = true);
    answer(&mut shell, "k");
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    upload(&mut shell, offer, 1, 9);
    finish(&mut shell, agent, offer);
    let row = &shell.rows.reuse[&name("k")];
    assert_eq!((row.from.build, row.bytes), (anew, 9), "whoever asks for a run wants it");
    forget(&mut shell);
    assert!(shell.rows.reuse.contains_key(&name("k")));
    unpin(&mut shell, build);
}

#[test]
fn a_held_result_that_makes_room_breaks_i15() {
    let story = |bugs: Bugs| {
        let mut shell = Shell::with(Policy { bugs, ..Policy::default() });
        let agent = shell.agent("one", 1);
        let build = built_of(&mut shell, agent, "k", 5);
        pin(&mut shell, build, Anew::Nothing).unwrap();
        forget(&mut shell);
        shell.broken.map(|broken| broken.invariant)
    };
    assert_eq!(story(Bugs::default()), None);
    assert_eq!(story(Bugs { let_go_of_pinned: true, ..Bugs::default() }), Some("I15"));
}

/// What somebody does.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A build of this key, with a file of so many eighths of what a pipeline's results may have.
    Build(u8, u64),
    /// Pin one of the builds, perhaps for so many minutes.
    Pin(prop::sample::Index, Option<u64>),
    Unpin(prop::sample::Index),
    Forget,
    Minutes(u64),
    /// The wall's clock goes so many minutes further, or back.
    Leap(i64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let minutes = proptest::option::of(1..60_u64);
    let step = prop_oneof![
        4 => (0..6_u8, 0..4_u64).prop_map(|(key, eighths)| Step::Build(key, eighths)),
        3 => (any::<prop::sample::Index>(), minutes).prop_map(|(build, minutes)| Step::Pin(build, minutes)),
        1 => any::<prop::sample::Index>().prop_map(Step::Unpin),
        2 => Just(Step::Forget),
        2 => (1..60_u64).prop_map(Step::Minutes),
        1 => (-60..60_i64).prop_map(Step::Leap),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// Pins as somebody would write them down: what each holds, and when it ends by the clock that never steps at the earliest.
#[derive(Debug, Default)]
struct Book {
    held: BTreeMap<BuildId, (BTreeSet<ReuseName>, Option<u64>)>,
}

impl Book {
    /// `lost`: the coordinator started by a clock that had been set.
    fn check(&mut self, shell: &Shell, lost: bool) {
        let mono = shell.now.mono.0;
        // A start knows the wall's clock alone.
        let over = |end: &Option<u64>| end.is_some_and(|end| end <= mono) || (lost && end.is_some());
        self.held.retain(|build, (_, end)| shell.rows.pins.contains_key(build) || !over(end));
        for (build, (names, _)) in &self.held {
            assert!(shell.rows.pins.contains_key(build), "the pin of {build} went before its time");
            for name in names {
                assert!(shell.rows.reuse.contains_key(name), "{name:?} went, and {build} holds it");
            }
        }
        assert!(shell.rows.pins.keys().all(|build| self.held.contains_key(build)), "a pin that nobody made");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// I15: whatever else happens, what a pin holds is there for as long as it stands, and it stands until its time or its undoing.
    #[test]
    fn what_a_pin_holds_is_there_for_as_long_as_it_stands(steps in steps()) {
        let mut shell = Shell::new();
        let agent = shell.agent("one", 1);
        let (mut builds, mut book, mut leapt, mut lost) = (Vec::new(), Book::default(), false, false);
        for step in steps {
            match step {
                Step::Build(key, eighths) => {
                    // It may have been silent for an hour.
                    shell.hello(agent, 1, Vec::new());
                    let bytes = limits::REUSE_TRUSTED_MAX_BYTES / 8 * eighths + 1;
                    builds.push((built_of(&mut shell, agent, &format!("k{key}"), bytes), name(&format!("k{key}"))));
                }
                Step::Pin(index, minutes) if !builds.is_empty() => {
                    let (build, name) = index.get(&builds).clone();
                    let until = minutes.map_or(Anew::Nothing, |minutes| at(&shell, minutes * 60_000));
                    if pin(&mut shell, build, until).is_ok() {
                        let held = shell.rows.pinned_results.contains(&(build, name.key));
                        let end = minutes.map(|minutes| shell.now.mono.0 + minutes * 60_000);
                        book.held.insert(build, (held.then_some(name).into_iter().collect(), end));
                    }
                }
                Step::Unpin(index) if !builds.is_empty() => {
                    let (build, _) = index.get(&builds).clone();
                    unpin(&mut shell, build);
                    book.held.remove(&build);
                }
                Step::Pin(..) | Step::Unpin(_) => {}
                Step::Forget => forget(&mut shell),
                Step::Minutes(minutes) => shell.pass(minutes * 60_000),
                Step::Leap(minutes) => {
                    shell.now.wall = WallMs(shell.now.wall.0.saturating_add_signed(minutes * 60_000));
                    leapt = true;
                }
                Step::Restart => {
                    shell.restart();
                    shell.pass(0);
                    lost |= leapt;
                }
            }
            book.check(&shell, lost);
        }
    }
}

/// What is held comes to half of what a pipeline may have at most, however often it is made anew.
#[test]
fn held_results_that_are_made_anew_leave_the_other_half_to_builds() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let half = limits::REUSE_TRUSTED_MAX_BYTES / 2;
    for text in ["a", "b"] {
        let held = built_of(&mut shell, agent, text, 5);
        pin(&mut shell, held, Anew::Nothing).unwrap();
    }
    for text in ["a", "b"] {
        // Anew, and much larger.
        let step = step_with("a", |command| command.reuse = Some(Reuse::default()));
        let anew = shell.submit_with(graph(vec![step]), |submit| submit.no_reuse = true);
        answer(&mut shell, text);
        let offer = shell.offer(agent);
        shell.start(agent, offer);
        upload(&mut shell, offer, 1, half - 5);
        finish(&mut shell, agent, offer);
        assert!(shell.build(anew).state.is_final());
    }
    // Others go on.
    built_of(&mut shell, agent, "c", 1_000_000);
    assert!(shell.rows.reuse.contains_key(&name("c")), "builds store nothing any more");
}
