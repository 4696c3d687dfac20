//! What every store promises, run over each of them.

use std::sync::Arc;

use windlass_coordinator_core::row::{
    Actor, ActorKind, AgentRow, Annotation, AnnotationStyle, AttemptRow, AttemptState, BuildEvent, BuildRow,
    BuildState, CacheName, CacheRow, Change, Gone, HoldRow, LineageRow, NotificationRow, Output, PinRow, ReuseGone,
    ReuseName, ReuseRow, ReusedFrom, ScheduleRow, Sealed, SecretName, SecretRow,
};
use windlass_coordinator_store::{
    ArtifactFilter, BuildFilter, EventSeq, Expired, Fault, History, MemoryStore, Options, Page, Retention, Seq,
    SqliteStore, Store, WriterEpoch, open,
};
use windlass_pipeline::glob::PathQuery;
use windlass_pipeline::graph::{BlockedState, Edge};
use windlass_protocol::job::Source;
use windlass_protocol::{Digest, Namespace, Trust, WallMs, limits};

use crate::rows::{
    agent, agent_id, annotation_id, artifact, artifact_id, attempt, attempt_id, build, build_id, definition, event,
    finish, fleet, idempotency, job, job_id, notification, pin, pipeline, registering, schedule, submit, token_id,
};

/// One store that can be closed and opened again, with its history.
trait Bench {
    fn open(&mut self) -> (Box<dyn Store>, Arc<dyn History>);
}

struct Memory(MemoryStore);

impl Bench for Memory {
    fn open(&mut self) -> (Box<dyn Store>, Arc<dyn History>) {
        (Box::new(self.0.clone()), Arc::new(self.0.history()))
    }
}

struct Sqlite(tempfile::TempDir);

impl Bench for Sqlite {
    fn open(&mut self) -> (Box<dyn Store>, Arc<dyn History>) {
        let options = Options { reserve_bytes: 4_096, low_bytes: 0, ..Options::default() };
        let (store, history): (SqliteStore, _) = open(self.0.path(), &options).unwrap();
        (Box::new(store), Arc::new(history))
    }
}

macro_rules! suite {
    ($($name:ident)*) => {
        mod memory { $(#[test] fn $name() { super::$name(&mut super::Memory(super::MemoryStore::new())); })* }
        mod sqlite { $(#[test] fn $name() { super::$name(&mut super::Sqlite(tempfile::tempdir().unwrap())); })* }
    };
}

suite! {
    what_was_committed_is_loaded_after_opening_again
    finished_builds_leave_what_is_loaded_and_come_back_when_retried
    gone_agents_are_not_loaded
    notifications_are_loaded_while_they_wait_listed_by_build_and_let_go_when_they_are_over
    only_the_writer_that_claimed_last_may_commit
    commits_are_numbered_without_gaps_and_an_empty_one_takes_no_number
    history_gives_a_whole_build_by_id_number_job_and_attempt
    history_gives_some_jobs_with_what_they_depend_on_and_nothing_else
    builds_are_listed_newest_first_by_filter_in_pages_without_gap_or_repetition
    slots_that_outlive_their_jobs_are_loaded_until_they_are_over
    schedules_and_counts_of_triggered_builds_are_loaded_until_they_are_over
    secrets_are_replaced_by_name_and_loaded_until_they_are_gone
    caches_are_numbered_once_and_read_from_a_number_on_until_they_are_gone
    results_that_are_used_again_keep_their_blobs_and_their_log_for_as_long_as_somebody_refers_to_them
    a_registered_pipeline_is_loaded_and_its_definition_is_kept_as_long_as_somebody_names_it
    a_token_is_loaded_until_it_is_over
    events_are_numbered_by_commit_and_place_and_can_be_resumed
    the_audit_trail_is_paged_newest_first
    a_token_s_agents_are_found_newest_first_those_that_are_gone_among_them
    annotations_are_put_added_to_and_read_in_their_order_and_go_with_their_build
    retention_deletes_whole_finished_builds_in_pieces_and_nothing_else
    retention_deletes_agents_long_gone_and_old_lines_of_the_audit_trail
    the_last_of_several_changes_of_a_row_counts
    artifacts_are_listed_newest_first_by_filter_and_found_by_id_and_by_blob
    artifacts_go_when_their_time_is_over_and_with_their_build
    nothing_of_a_pinned_build_goes_by_its_age_and_all_of_it_does_once_the_pin_is_over
    artifacts_of_a_build_that_is_pinned_and_let_go_again_and_again_go_when_it_is_free
    pins_are_listed_newest_first_and_loaded_until_they_are_over
}

/// A claimed store.
fn claimed(bench: &mut dyn Bench) -> (Box<dyn Store>, Arc<dyn History>, WriterEpoch) {
    let (mut store, history) = bench.open();
    let epoch = store.claim().unwrap();
    (store, history, epoch)
}

fn a_token_s_agents_are_found_newest_first_those_that_are_gone_among_them(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    store.commit(epoch, &fleet()).unwrap();
    let other = AgentRow { token: token_id(2), ..agent(4, None) };
    let rows = [agent(2, Some("replaced")), agent(3, None), other.clone()];
    store.commit(epoch, &rows.clone().map(|row| Change::Agent(Box::new(row)))).unwrap();
    let [gone, third, _] = rows;
    assert_eq!(history.agents_of(token_id(1), 10).unwrap(), [third.clone(), gone, agent(1, None)]);
    assert_eq!(history.agents_of(token_id(1), 1).unwrap(), [third]);
    assert_eq!(history.agents_of(token_id(2), 10).unwrap(), [other]);
    assert_eq!(history.agents_of(token_id(9), 10).unwrap(), []);
}

fn what_was_committed_is_loaded_after_opening_again(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    store.commit(epoch, &fleet()).unwrap();
    store.commit(epoch, &submit(1)).unwrap();
    store.commit(epoch, &submit(2)).unwrap();
    let before = store.load().unwrap();
    drop((store, history));
    let (mut store, _) = bench.open();
    let rows = store.load().unwrap();
    assert_eq!(rows, before);
    assert_eq!((rows.meta.last_epoch, rows.pipeline_numbers["web"]), (2, 2));
    assert_eq!((rows.builds.len(), rows.jobs.len(), rows.attempts.len()), (2, 2, 2));
    assert_eq!((rows.pools.len(), rows.tokens.len(), rows.agents.len(), rows.idempotency.len()), (1, 1, 1, 2));
    assert_eq!(rows.idempotency[&idempotency(2).key], idempotency(2));
    assert_eq!(rows.jobs[&job_id(1)], job(1, 1, 0, &[1]));
}

fn schedules_and_counts_of_triggered_builds_are_loaded_until_they_are_over(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    let counted = |made| LineageRow { root: build_id(1), made };
    let rows = [schedule(1), schedule(2)];
    store.commit(epoch, &rows.clone().map(|row| Change::Schedule(Box::new(row)))).unwrap();
    store.commit(epoch, &[Change::Lineage(counted(1)), Change::Lineage(counted(2))]).unwrap();
    let fired = ScheduleRow { next_at: None, firing: None, ..schedule(2) };
    store.commit(epoch, &[Change::Schedule(Box::new(fired.clone()))]).unwrap();
    drop((store, history));
    let (mut store, _, epoch) = claimed(bench);
    let loaded = store.load().unwrap();
    assert_eq!(loaded.schedules.into_values().collect::<Vec<_>>(), [schedule(1), fired]);
    assert_eq!(loaded.lineages.into_values().collect::<Vec<_>>(), [counted(2)]);
    let over = [Change::ScheduleOver(schedule(1).id), Change::LineageOver(build_id(1))];
    store.commit(epoch, &over).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((loaded.schedules.len(), loaded.lineages.len()), (1, 0));
}

fn a_registered_pipeline_is_loaded_and_its_definition_is_kept_as_long_as_somebody_names_it(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    let kept = |n| history.definition(definition(n).0).unwrap().is_some();
    store.commit(epoch, &registering("web", Some(2))).unwrap();
    store.commit(epoch, &registering("api", Some(4))).unwrap();
    store.commit(epoch, &registering("bare", None)).unwrap();
    let pipelines = store.load().unwrap().pipelines;
    assert_eq!(
        pipelines.into_values().collect::<Vec<_>>(),
        [pipeline("api", Some(4)), pipeline("bare", None), pipeline("web", Some(2))]
    );
    // The last build that ran a definition is deleted; a pipeline keeps it still.
    store.commit(epoch, &submit(4)).unwrap();
    store.commit(epoch, &finish(4)).unwrap();
    assert_eq!(store.expire(epoch, retention(2_000, 0, 9)).unwrap().definitions, []);
    assert!(kept(4));
    // A pipeline gives its definition up; a build has it still.
    store.commit(epoch, &submit(6)).unwrap();
    store.commit(epoch, &registering("web", Some(6))).unwrap();
    assert_eq!((kept(2), kept(6)), (false, true), "nobody names the old one any more");
    store.commit(epoch, &registering("web", Some(6))).unwrap();
    assert!(kept(6), "set again to what it was");
    store.commit(epoch, &registering("web", None)).unwrap();
    assert!(kept(6), "build 6 runs it");
    store.commit(epoch, &finish(6)).unwrap();
    assert_eq!(store.expire(epoch, retention(2_000, 0, 9)).unwrap().definitions, [definition(6).0]);
    assert_eq!((kept(4), kept(6)), (true, false));
}

fn finished_builds_leave_what_is_loaded_and_come_back_when_retried(bench: &mut dyn Bench) {
    let (mut store, _, epoch) = claimed(bench);
    store.commit(epoch, &submit(1)).unwrap();
    store.commit(epoch, &submit(2)).unwrap();
    store.commit(epoch, &finish(1)).unwrap();
    let rows = store.load().unwrap();
    assert_eq!(rows.builds.keys().copied().collect::<Vec<_>>(), [build_id(2)]);
    assert!(!rows.jobs.contains_key(&job_id(1)) && !rows.attempts.contains_key(&attempt_id(1)));
    store.commit(epoch, &[Change::Build(Box::new(build(1, BuildState::Running)))]).unwrap();
    let rows = store.load().unwrap();
    assert!(rows.builds.contains_key(&build_id(1)) && rows.attempts.contains_key(&attempt_id(1)));
}

fn gone_agents_are_not_loaded(bench: &mut dyn Bench) {
    let (mut store, _, epoch) = claimed(bench);
    store.commit(epoch, &[Change::Agent(Box::new(agent(1, None))), Change::Agent(Box::new(agent(2, None)))]).unwrap();
    store.commit(epoch, &[Change::Agent(Box::new(agent(1, Some("left"))))]).unwrap();
    assert_eq!(store.load().unwrap().agents.into_values().collect::<Vec<_>>(), [agent(2, None)]);
}

fn only_the_writer_that_claimed_last_may_commit(bench: &mut dyn Bench) {
    let (mut store, _, first) = claimed(bench);
    store.commit(first, &submit(1)).unwrap();
    let second = store.claim().unwrap();
    assert!(second > first);
    let before = store.load().unwrap();
    for epoch in [first, WriterEpoch(0), WriterEpoch(second.0 + 1)] {
        let fenced = Err(Fault::Fenced { held: second, got: epoch });
        assert_eq!(store.commit(epoch, &submit(2)), fenced);
        assert_eq!(store.commit(epoch, &[]), fenced);
        let retention = retention(0, 0, 1);
        assert!(matches!(store.expire(epoch, retention), Err(Fault::Fenced { .. })));
    }
    assert_eq!(store.load().unwrap(), before);
    store.commit(second, &submit(2)).unwrap();
}

fn commits_are_numbered_without_gaps_and_an_empty_one_takes_no_number(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    assert_eq!(store.seq(), Ok(Seq(0)));
    assert_eq!(store.commit(epoch, &submit(1)), Ok(Seq(1)));
    assert_eq!(store.commit(epoch, &[]), Ok(Seq(1)));
    assert_eq!(history.seq(), Ok(Seq(1)));
    drop((store, history));
    let (mut store, history, epoch) = claimed(bench);
    assert_eq!((store.seq(), store.commit(epoch, &submit(2))), (Ok(Seq(1)), Ok(Seq(2))));
    assert_eq!(history.seq(), Ok(Seq(2)));
}

fn history_gives_a_whole_build_by_id_number_job_and_attempt(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    let mut changes = submit(1);
    // Written out of order: a build's jobs are given in the order of its graph.
    changes.extend([Change::Job(Box::new(job(12, 1, 2, &[]))), Change::Job(Box::new(job(11, 1, 1, &[])))]);
    store.commit(epoch, &changes).unwrap();
    store.commit(epoch, &submit(2)).unwrap();
    let found = history.build(build_id(1)).unwrap().unwrap();
    assert_eq!(found.build, build(1, BuildState::Running));
    assert_eq!(found.jobs, [job(1, 1, 0, &[1]), job(11, 1, 1, &[]), job(12, 1, 2, &[])]);
    assert_eq!(found.attempts.iter().map(|attempt| attempt.id).collect::<Vec<_>>(), [attempt_id(1)]);
    assert_eq!(history.build(build_id(9)), Ok(None));
    assert_eq!(history.build_by_number("web", 2), Ok(Some(build_id(2))));
    assert_eq!(history.build_by_number("other", 2), Ok(None));
    assert_eq!((history.job_build(job_id(11)), history.job_build(job_id(99))), (Ok(Some(build_id(1))), Ok(None)));
    assert_eq!(history.attempt(attempt_id(2)).unwrap().unwrap().job, job_id(2));
    assert_eq!(history.attempt(attempt_id(99)), Ok(None));
    let (digest, text) = definition(1);
    assert_eq!(history.definition(digest), Ok(Some(text)));
    assert_eq!(history.definition(Digest::of(b"none")), Ok(None));
}

/// All builds of a filter, read in pages of `limit`.
fn listed(history: &dyn History, filter: &BuildFilter, limit: usize) -> Vec<u64> {
    let (mut numbers, mut cursor) = (Vec::new(), None);
    loop {
        let page = history.builds(filter, cursor, limit).unwrap();
        assert!(page.items.len() <= limit && page.items.iter().all(|build| filter.matches(build)));
        numbers.extend(page.items.iter().map(|build| build.number));
        match page.next {
            Some(next) => cursor = Some(next.to_string().parse().unwrap()),
            None => return numbers,
        }
    }
}

fn builds_are_listed_newest_first_by_filter_in_pages_without_gap_or_repetition(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    for n in 1..=10 {
        store.commit(epoch, &submit(n)).unwrap();
    }
    for n in [2, 3, 4, 9] {
        store.commit(epoch, &finish(n)).unwrap();
    }
    let waits = BuildRow { blocked: Some(BlockedState::Passed), ..build(7, BuildState::Running) };
    store.commit(epoch, &[Change::Build(Box::new(waits))]).unwrap();
    let web = || Some("web".to_owned());
    let main = || Some("main".to_owned());
    let cases = [
        (BuildFilter::default(), vec![10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (BuildFilter { pipeline: web(), ..BuildFilter::default() }, vec![10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (BuildFilter { pipeline: Some("other".to_owned()), ..BuildFilter::default() }, vec![]),
        (BuildFilter { branch: main(), ..BuildFilter::default() }, vec![10, 8, 6, 4, 2]),
        (BuildFilter { state: Some(BuildState::Passed), ..BuildFilter::default() }, vec![9, 4, 3, 2]),
        (BuildFilter { state: Some(BuildState::Running), ..BuildFilter::default() }, vec![10, 8, 7, 6, 5, 1]),
        (BuildFilter { blocked: true, ..BuildFilter::default() }, vec![7]),
        (BuildFilter { blocked: true, branch: main(), ..BuildFilter::default() }, vec![]),
        (BuildFilter { pipeline: web(), state: Some(BuildState::Passed), branch: main(), blocked: false }, vec![4, 2]),
    ];
    for (filter, expected) in cases {
        for limit in [1, 2, 3, 500] {
            assert_eq!(listed(&*history, &filter, limit), expected, "{filter:?} in pages of {limit}");
        }
    }
}

fn slots_that_outlive_their_jobs_are_loaded_until_they_are_over(bench: &mut dyn Bench) {
    let (mut store, _, epoch) = claimed(bench);
    let hold = HoldRow {
        job: job_id(1),
        attempt: attempt_id(1),
        trust: Trust::Untrusted,
        group: "deploy".to_owned(),
        limit: 2,
        until: WallMs(99),
    };
    store.commit(epoch, &[Change::Hold(hold.clone())]).unwrap();
    let later = HoldRow { until: WallMs(100), ..hold };
    store.commit(epoch, &[Change::Hold(later.clone())]).unwrap();
    let job = later.job;
    assert_eq!(store.load().unwrap().holds.into_values().collect::<Vec<_>>(), [later]);
    store.commit(epoch, &[Change::HoldOver(job)]).unwrap();
    assert!(store.load().unwrap().holds.is_empty());
}

fn a_token_is_loaded_until_it_is_over(bench: &mut dyn Bench) {
    let (mut store, _, epoch) = claimed(bench);
    store.commit(epoch, &fleet()).unwrap();
    let token = *store.load().unwrap().tokens.keys().next().unwrap();
    store.commit(epoch, &[Change::TokenOver(token)]).unwrap();
    let left = store.load().unwrap();
    assert!(left.tokens.is_empty() && !left.agents.is_empty());
    // What is over is over.
    store.commit(epoch, &[Change::TokenOver(token)]).unwrap();
}

fn secrets_are_replaced_by_name_and_loaded_until_they_are_gone(bench: &mut dyn Bench) {
    let (mut store, _, epoch) = claimed(bench);
    let actor = Actor { kind: ActorKind::User, name: "ada".to_owned() };
    let row = |zone: Option<&str>, bytes: &str| SecretRow {
        name: SecretName { key: "KEY".to_owned(), pipeline: None, branch: None, zone: zone.map(str::to_owned) },
        sealed: Sealed { key_id: "k".to_owned(), nonce: "00".to_owned(), bytes: bytes.to_owned() },
        created_by: actor.clone(),
        created_at: WallMs(1),
        updated_by: actor.clone(),
        updated_at: WallMs(2),
    };
    let changes = [row(None, "1"), row(Some("eu"), "2"), row(None, "3")].map(|row| Change::Secret(Box::new(row)));
    store.commit(epoch, &changes).unwrap();
    let loaded = store.load().unwrap().secrets;
    assert_eq!(loaded.into_values().collect::<Vec<_>>(), [row(None, "3"), row(Some("eu"), "2")]);
    store.commit(epoch, &[Change::SecretGone(Box::new(row(None, "").name))]).unwrap();
    assert_eq!(store.load().unwrap().secrets.into_values().collect::<Vec<_>>(), [row(Some("eu"), "2")]);
}

fn caches_are_numbered_once_and_read_from_a_number_on_until_they_are_gone(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    let row = |key: &str, used_at: u64| CacheRow {
        name: CacheName { namespace: Namespace::trusted("web"), scope: Digest::of(b"paths"), key: key.to_owned() },
        manifest: Digest::of(key.as_bytes()),
        manifest_bytes: 7,
        files: 1,
        bytes: 9,
        build: build_id(1),
        job: job_id(1),
        created_at: WallMs(1),
        used_at: WallMs(used_at),
        pinned: false,
    };
    let changes = [row("a", 1), row("b", 1), row("c", 1), row("a", 2)].map(|row| Change::Cache(Box::new(row)));
    store.commit(epoch, &changes).unwrap();
    let loaded = store.load().unwrap().caches;
    assert_eq!(loaded.into_values().collect::<Vec<_>>(), [row("a", 2), row("b", 1), row("c", 1)]);
    let keys = |found: &[(u64, CacheRow)]| found.iter().map(|(_, row)| row.name.key.clone()).collect::<Vec<_>>();
    let all = history.caches(0, 10).unwrap();
    assert_eq!(keys(&all), ["a", "b", "c"], "used again it keeps its number");
    assert_eq!(keys(&history.caches(all[0].0, 1).unwrap()), ["b"]);
    let newest = history.newest_caches(Some("web".to_owned()), None, 2).unwrap();
    assert_eq!(newest.items.iter().map(|(_, row)| &*row.name.key).collect::<Vec<_>>(), ["c", "b"]);
    let rest = history.newest_caches(Some("web".to_owned()), newest.next, 2).unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    assert!(history.newest_caches(Some("we".to_owned()), None, 2).unwrap().items.is_empty());
    assert_eq!(history.newest_caches(None, None, 9).unwrap().items.len(), 3);
    assert_eq!(history.cache(all[1].0).unwrap().map(|row| row.name.key).as_deref(), Some("b"));
    assert_eq!(history.cache(99).unwrap(), None);
    // The last number is not given again: who has seen it sees what comes after.
    let last = all[2].0;
    store.commit(epoch, &[Change::CacheGone(Box::new(row("c", 1).name))]).unwrap();
    store.commit(epoch, &[Change::Cache(Box::new(row("d", 1)))]).unwrap();
    assert_eq!(keys(&history.caches(last, 10).unwrap()), ["d"]);
    assert_eq!(store.load().unwrap().caches.len(), 3);
}

fn results_that_are_used_again_keep_their_blobs_and_their_log_for_as_long_as_somebody_refers_to_them(
    bench: &mut dyn Bench,
) {
    let (mut store, history, epoch) = claimed(bench);
    let from = |n: u64| ReusedFrom {
        pipeline: "web".to_owned(),
        branch: "main".to_owned(),
        build: build_id(n),
        number: n,
        job: job_id(n * 10),
        attempt: attempt_id(n * 10),
        step: "a".to_owned(),
        at: WallMs(1),
        ran_ms: 5,
        fleet: None,
    };
    let row = |n: u64, blob: &str, used_at: u64| ReuseRow {
        name: ReuseName { namespace: Namespace::trusted("web"), key: Digest::of(b"key") },
        recipe: Digest::of(b"recipe"),
        source: Source::Empty,
        step_key: None,
        from: from(n),
        outputs: vec![Output {
            path: "out".to_owned(),
            bytes: 1,
            digest: Digest::of(blob.as_bytes()),
            sha1: String::new(),
            sha256: String::new(),
            content_type: String::new(),
            executable: false,
        }],
        bytes: 1,
        created_at: WallMs(1),
        used_at: WallMs(used_at),
    };
    let ended = |n: u64, reused: Option<ReusedFrom>| {
        let made = BuildRow { finished_at: Some(WallMs(n)), ..build(n, BuildState::Passed) };
        let tried = AttemptRow { reused: reused.map(Box::new), ..attempt(n * 10, n * 10, n, AttemptState::Finished) };
        [
            Change::Build(Box::new(made)),
            Change::Job(Box::new(job(n * 10, n, 0, &[n * 10]))),
            Change::Attempt(Box::new(tried)),
        ]
    };
    store.commit(epoch, &ended(1, None)).unwrap();
    store.commit(epoch, &[Change::Reuse(Box::new(row(1, "x", 1))), Change::Reuse(Box::new(row(1, "x", 2)))]).unwrap();
    assert_eq!(store.load().unwrap().reuse.into_values().collect::<Vec<_>>(), [row(1, "x", 2)]);
    let naming = |blob: &str| history.naming(Digest::of(blob.as_bytes())).unwrap().len();
    assert_eq!((naming("x"), naming("y")), (1, 0));
    store.commit(epoch, &ended(2, Some(from(1)))).unwrap();
    // The build that ran it goes, and the log stays: for the entry, then for the build that was spared the work.
    let gone = |store: &mut dyn Store, before: u64| store.expire(epoch, retention(before, 0, 9)).unwrap().attempts;
    assert_eq!(gone(&mut *store, 2), []);
    store.commit(epoch, &[Change::Reuse(Box::new(row(3, "y", 3)))]).unwrap();
    assert_eq!((naming("x"), naming("y")), (0, 1), "another result took its place");
    assert_eq!(gone(&mut *store, 2), []);
    assert_eq!(gone(&mut *store, 3), [attempt_id(20)]);
    assert_eq!(gone(&mut *store, 3), [attempt_id(10)]);
    let tomb = ReuseGone { name: row(3, "y", 3).name, why: Gone::Size, at: WallMs(9) };
    let name = || Box::new(row(3, "y", 3).name);
    store.commit(epoch, &[Change::ReuseOver(name()), Change::ReuseGone(Box::new(tomb.clone()))]).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(
        (loaded.reuse.len(), loaded.reuse_gone.into_values().collect::<Vec<_>>(), naming("y")),
        (0, vec![tomb], 0)
    );
    store.commit(epoch, &[Change::ReuseGoneOver(name())]).unwrap();
    assert!(store.load().unwrap().reuse_gone.is_empty());
}

fn annotations_are_put_added_to_and_read_in_their_order_and_go_with_their_build(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    store.commit(epoch, &submit(1)).unwrap();
    store.commit(epoch, &submit(2)).unwrap();
    let note = |n: u64, priority, bytes| Annotation {
        id: annotation_id(n),
        context: format!("c{n}"),
        job: None,
        style: Some(AnnotationStyle::Info),
        priority,
        bytes,
        by: job_id(1),
        created_at: WallMs(n),
        updated_at: WallMs(n),
    };
    let text = |n: u64, of: u64, text: &str, append| Change::AnnotationText {
        annotation: annotation_id(n),
        build: build_id(of),
        text: text.to_owned(),
        append,
    };
    let with = |n, annotations| Change::Build(Box::new(BuildRow { annotations, ..build(n, BuildState::Running) }));
    let notes = vec![note(1, 3, 3), note(2, 10, 6), note(3, 3, 0)];
    let changes = [with(1, notes.clone()), text(1, 1, "old", false), text(2, 1, "one", true), text(2, 1, "two", true)];
    store.commit(epoch, &changes).unwrap();
    store.commit(epoch, &[with(2, vec![note(9, 3, 5)]), text(9, 2, "other", false), text(1, 1, "new", false)]).unwrap();
    let shown = |of| {
        let found = history.annotations(build_id(of)).unwrap();
        found.into_iter().map(|(note, text)| (note.context, text)).collect::<Vec<_>>()
    };
    let pair = |context: &str, text: &str| (context.to_owned(), text.to_owned());
    assert_eq!(shown(1), [pair("c2", "onetwo"), pair("c1", "new"), pair("c3", "")]);
    assert_eq!(store.load().unwrap().builds[&build_id(1)].annotations, notes, "their texts are not in memory");
    store.commit(epoch, &[with(1, vec![note(2, 10, 6)]), Change::AnnotationGone(annotation_id(1))]).unwrap();
    assert_eq!(shown(1), [pair("c2", "onetwo")]);
    store.commit(epoch, &[with(1, vec![note(1, 3, 0), note(2, 10, 6)])]).unwrap();
    assert_eq!(shown(1), [pair("c2", "onetwo"), pair("c1", "")], "a text that is gone does not come back");
    store.commit(epoch, &finish(1)).unwrap();
    store.expire(epoch, retention(2_000, 0, 9)).unwrap();
    assert_eq!((shown(1), shown(2)), (vec![], vec![pair("c9", "other")]));
    // The same ids again: nothing of them is left.
    store.commit(epoch, &submit(3)).unwrap();
    store.commit(epoch, &[with(3, vec![note(2, 3, 0)])]).unwrap();
    assert_eq!(shown(3), [pair("c2", "")]);
}

fn events_are_numbered_by_commit_and_place_and_can_be_resumed(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    let one = store.commit(epoch, &submit(1)).unwrap();
    let mut mixed = vec![event(2, BuildEvent::BuildCreated)];
    mixed.extend(finish(1));
    let two = store.commit(epoch, &mixed).unwrap();
    let all = history.events(build_id(1), EventSeq::default(), 100).unwrap();
    let numbers: Vec<_> = all.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [EventSeq::new(one, 0), EventSeq::new(one, 1), EventSeq::new(two, 1)]);
    assert_eq!(all[2].row.event, BuildEvent::BuildFinished { state: BuildState::Passed });
    assert_eq!(history.events(build_id(1), numbers[0], 1).unwrap(), all[1..2]);
    assert_eq!(history.events(build_id(1), numbers[2], 9).unwrap(), []);
    assert_eq!(history.events(build_id(2), EventSeq::end_of(one), 9).unwrap().len(), 1);
}

fn the_audit_trail_is_paged_newest_first(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    for n in 1..=5 {
        store.commit(epoch, &submit(n)).unwrap();
    }
    let first = history.audit(None, 3).unwrap();
    assert_eq!(first.items.iter().map(|line| line.at.0).collect::<Vec<_>>(), [5, 4, 3]);
    let second = history.audit(first.next, 3).unwrap();
    assert_eq!(second.items.iter().map(|line| line.at.0).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(second.next, None);
}

fn retention_deletes_whole_finished_builds_in_pieces_and_nothing_else(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    for n in 1..=6 {
        store.commit(epoch, &submit(n)).unwrap();
    }
    for n in [1, 2, 3, 6] {
        store.commit(epoch, &finish(n)).unwrap();
    }
    // Builds 1, 2 and 3 ended before 1,004; 4 and 5 have not; 6 ended later. 2 and 3 share a text, 1 has one alone.
    let retention = retention(1_004, 5, 2);
    let first = store.expire(epoch, retention).unwrap();
    assert_eq!((first.builds, first.more), (vec![build_id(1), build_id(2)], true));
    assert_eq!(first.attempts, [attempt_id(1), attempt_id(2)]);
    assert_eq!(first.definitions, [definition(1).0], "the text of 2 is still named by 3");
    let second = store.expire(epoch, retention).unwrap();
    assert_eq!((second.builds, second.definitions, second.more), (vec![build_id(3)], vec![definition(3).0], false));
    assert_eq!(listed(&*history, &BuildFilter::default(), 10), [6, 5, 4]);
    assert_eq!(history.events(build_id(1), EventSeq::default(), 9), Ok(vec![]));
    assert_eq!((history.job_build(job_id(1)), history.attempt(attempt_id(1))), (Ok(None), Ok(None)));
    assert!(history.events(build_id(6), EventSeq::default(), 9).unwrap().len() == 3);
    let left = store.load().unwrap().idempotency.into_values().map(|row| row.at.0).collect::<Vec<_>>();
    assert_eq!(left, [5, 6]);
}

/// Agents and the audit trail are kept.
fn retention(builds: u64, idempotency: u64, max_builds: usize) -> Retention {
    Retention {
        builds_before: WallMs(builds),
        idempotency_before: WallMs(idempotency),
        agents_before: WallMs(0),
        audit_before: WallMs(0),
        artifacts_at: WallMs(0),
        notifications_before: WallMs(0),
        max_builds,
    }
}

/// An agent that was last seen then, and is gone or is not.
fn seen(n: u64, at: u64, gone: Option<&str>) -> Change {
    Change::Agent(Box::new(AgentRow { last_seen_at: Some(WallMs(at)), ..agent(n, gone) }))
}

fn retention_deletes_agents_long_gone_and_old_lines_of_the_audit_trail(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    for n in 1..=6 {
        store.commit(epoch, &submit(n)).unwrap();
    }
    store.commit(epoch, &[seen(1, 10, None), seen(2, 20, Some("left")), seen(3, 10, Some("left"))]).unwrap();
    // One that is forgotten and comes again is not gone.
    store.commit(epoch, &[seen(4, 10, Some("left")), seen(5, 10, Some("left"))]).unwrap();
    store.commit(epoch, &[seen(5, 10, None)]).unwrap();
    let page = history.audit(None, 2).unwrap();
    let retention = Retention { agents_before: WallMs(20), audit_before: WallMs(3), ..retention(0, 0, 1) };
    let expired = store.expire(epoch, retention).unwrap();
    assert_eq!((expired.agents, expired.audit_lines, expired.more), (2, 2, false), "agents 3 and 4, lines 1 and 2");
    let again = store.expire(epoch, retention).unwrap();
    assert_eq!((again.agents, again.audit_lines), (0, 0), "they are no more");
    assert_eq!(store.load().unwrap().agents.into_keys().collect::<Vec<_>>(), [agent_id(1), agent_id(5)]);
    let left = history.audit(None, 9).unwrap().items;
    assert_eq!(left.iter().map(|line| line.at.0).collect::<Vec<_>>(), [6, 5, 4, 3]);
    let rest = history.audit(page.next, 9).unwrap();
    assert_eq!(rest.items.iter().map(|line| line.at.0).collect::<Vec<_>>(), [4, 3], "pages go on where they were");
}

fn everything(build: u64) -> ArtifactFilter {
    ArtifactFilter { build: build_id(build), attempts: None, path: None, at: WallMs(0), before: None }
}

fn numbers(history: &dyn History, filter: &ArtifactFilter, limit: usize) -> Vec<u64> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = history.artifacts(filter, after, limit).unwrap();
        assert!(page.items.len() <= limit);
        found.extend(page.items.iter().map(|row| row.bytes));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

fn artifacts_are_listed_newest_first_by_filter_and_found_by_id_and_by_blob(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    let all: Vec<_> = (1..=7).map(|n| artifact(n, 1 + n % 2)).collect();
    store.commit(epoch, &all.iter().map(|row| Change::Artifact(Box::new(row.clone()))).collect::<Vec<_>>()).unwrap();
    for limit in [1, 2, 9] {
        assert_eq!(numbers(&*history, &everything(2), limit), [7, 5, 3, 1], "in pages of {limit}");
    }
    let none = numbers(&*history, &everything(3), 9);
    assert_eq!(none, [0; 0]);
    for (filter, expected) in [
        (ArtifactFilter { attempts: Some([attempt_id(5), attempt_id(1)].into()), ..everything(2) }, vec![5, 1]),
        (ArtifactFilter { attempts: Some([].into()), ..everything(2) }, vec![]),
        (ArtifactFilter { path: Some(PathQuery::new("log/*")), ..everything(2) }, vec![7, 5, 3, 1]),
        (ArtifactFilter { path: Some(PathQuery::new("log/5")), ..everything(2) }, vec![5]),
        (ArtifactFilter { at: WallMs(103), ..everything(2) }, vec![7, 5]),
        (ArtifactFilter { before: Some(artifact_id(5)), ..everything(2) }, vec![3, 1]),
        (ArtifactFilter { before: Some(artifact_id(99)), ..everything(2) }, vec![]),
    ] {
        for limit in [1, 9] {
            assert_eq!(numbers(&*history, &filter, limit), expected, "{filter:?}");
        }
    }
    assert_eq!(history.artifact(artifact_id(4)), Ok(Some(all[3].clone())));
    assert_eq!(history.artifact(artifact_id(8)), Ok(None));
    // Every third has the same bytes, in the namespace of its build.
    let owners = history.naming(all[0].digest).unwrap();
    assert_eq!(owners, [all[0].namespace.clone(), all[3].namespace.clone()].into());
    assert_eq!(history.naming(Digest::of(b"nobody's")), Ok([].into()));
    drop(store);
    let (_, history) = bench.open();
    assert_eq!(numbers(&*history, &everything(2), 9), [7, 5, 3, 1], "after opening again");
}

fn artifacts_go_when_their_time_is_over_and_with_their_build(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    for n in 1..=2 {
        store.commit(epoch, &submit(n)).unwrap();
        store.commit(epoch, &finish(n)).unwrap();
    }
    let all: Vec<_> = (1..=6).map(|n| Change::Artifact(Box::new(artifact(n, 1 + n % 2)))).collect();
    store.commit(epoch, &all).unwrap();
    let expired = store.expire(epoch, Retention { artifacts_at: WallMs(102), ..retention(0, 0, 1) }).unwrap();
    assert_eq!((expired.artifacts, expired.builds.len()), (2, 0), "whose time is over by then");
    assert_eq!(
        (numbers(&*history, &everything(1), 9), numbers(&*history, &everything(2), 9)),
        (vec![6, 4], vec![5, 3])
    );
    let expired = store.expire(epoch, Retention { max_builds: 9, ..retention(1_002, 0, 1) }).unwrap();
    assert_eq!(expired.builds, [build_id(1)]);
    assert_eq!((numbers(&*history, &everything(1), 9), numbers(&*history, &everything(2), 9)), (vec![], vec![5, 3]));
}

fn pin_of(row: PinRow) -> Change {
    Change::Pin(Box::new(row))
}

fn nothing_of_a_pinned_build_goes_by_its_age_and_all_of_it_does_once_the_pin_is_over(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    for n in 1..=3 {
        store.commit(epoch, &submit(n)).unwrap();
        store.commit(epoch, &finish(n)).unwrap();
    }
    let all: Vec<_> = (1..=6).map(|n| Change::Artifact(Box::new(artifact(n, 1 + n % 2)))).collect();
    store.commit(epoch, &all).unwrap();
    store.commit(epoch, &[pin_of(pin(2, None))]).unwrap();
    // It has one more from then on.
    store.commit(epoch, &[Change::Artifact(Box::new(artifact(7, 2)))]).unwrap();
    let ever = Retention { artifacts_at: WallMs(u64::MAX), ..retention(u64::MAX, 0, 9) };
    let expired = store.expire(epoch, Retention { max_builds: 1, ..ever }).unwrap();
    assert_eq!((expired.artifacts, expired.builds), (3, vec![build_id(1)]));
    let expired = store.expire(epoch, ever).unwrap();
    assert_eq!((expired.artifacts, expired.builds, expired.more), (0, vec![build_id(3)], false));
    assert!(!expired.attempts.contains(&attempt_id(2)), "its log stays");
    assert_eq!(history.build(build_id(2)).unwrap().unwrap().jobs.len(), 1);
    let late = ArtifactFilter { at: WallMs(1 << 60), ..everything(2) };
    assert_eq!(numbers(&*history, &late, 2), [7, 5, 3, 1], "they are there, whatever time it is");
    assert_eq!(history.artifact(artifact_id(5)).unwrap().unwrap().expires_at, PinRow::ENDLESS);
    let ground = history.pin_ground(build_id(2)).unwrap().unwrap();
    assert_eq!((ground.files, ground.bytes, ground.pin.unwrap().row), (4, 16, pin(2, None)));
    assert!(history.pin_ground(build_id(1)).unwrap().is_none());
    // With an end, they are there until it; who has an end of his own that is later, until that.
    store.commit(epoch, &[pin_of(pin(2, Some(104)))]).unwrap();
    let ends = |n| history.artifact(artifact_id(n)).unwrap().map(|row| row.expires_at.0);
    assert_eq!((ends(3), ends(5), ends(7)), (Some(104), Some(105), Some(107)));
    assert_eq!(store.expire(epoch, ever).unwrap(), Expired::default(), "whoever ends it says so");
    drop((store, history));
    let (mut store, history) = bench.open();
    let epoch = store.claim().unwrap();
    assert_eq!(store.expire(epoch, ever).unwrap(), Expired::default());
    store.commit(epoch, &[Change::PinOver(build_id(2))]).unwrap();
    let ends = |n| history.artifact(artifact_id(n)).unwrap().map(|row| row.expires_at.0);
    assert_eq!((ends(3), ends(5)), (Some(103), Some(105)));
    let expired = store.expire(epoch, Retention { artifacts_at: WallMs(105), ..retention(0, 0, 9) }).unwrap();
    assert_eq!((expired.artifacts, numbers(&*history, &everything(2), 9)), (3, vec![7]));
    let expired = store.expire(epoch, ever).unwrap();
    assert_eq!((expired.builds, expired.attempts), (vec![build_id(2)], vec![attempt_id(2)]));
    assert_eq!(history.build(build_id(2)), Ok(None));
}

/// What goes until nothing more is to go.
fn goes(store: &mut dyn Store, epoch: WriterEpoch, retention: Retention) -> u64 {
    let mut artifacts = 0;
    for _ in 0..9 {
        let expired = store.expire(epoch, retention).unwrap();
        assert!(expired.artifacts <= limits::EXPIRE_ROWS_MAX);
        artifacts += expired.artifacts as u64;
        if !expired.more {
            return artifacts;
        }
    }
    panic!("{artifacts} went, and there are more");
}

fn artifacts_of_a_build_that_is_pinned_and_let_go_again_and_again_go_when_it_is_free(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    let many = limits::EXPIRE_ROWS_MAX as u64 / 2 + 7;
    for n in [1, 2] {
        store.commit(epoch, &submit(n)).unwrap();
    }
    let all = (1..=2 * many).map(|n| Change::Artifact(Box::new(artifact(n, 1 + n % 2))));
    store.commit(epoch, &all.collect::<Vec<_>>()).unwrap();
    let over = Retention { artifacts_at: WallMs(u64::MAX), ..retention(0, 0, 9) };
    let held = |n| history.pin_ground(build_id(n)).unwrap().unwrap().files;
    store.commit(epoch, &[pin_of(pin(2, None))]).unwrap();
    assert_eq!(goes(&mut *store, epoch, over), many);
    assert_eq!((held(1), held(2)), (0, many));
    // Pinned again before what the first pin had moved is back, and while a part of it is.
    for pieces in [0, 1] {
        store.commit(epoch, &[Change::PinOver(build_id(2))]).unwrap();
        for _ in 0..pieces {
            store.expire(epoch, retention(0, 0, 9)).unwrap();
        }
        store.commit(epoch, &[pin_of(pin(2, None))]).unwrap();
        assert_eq!((goes(&mut *store, epoch, over), held(2)), (0, many));
    }
    // One that was added while nobody had pinned it has its own end.
    store.commit(epoch, &[Change::PinOver(build_id(2))]).unwrap();
    store.commit(epoch, &[Change::Artifact(Box::new(artifact(2 * many + 2, 2)))]).unwrap();
    let all_but_the_last = Retention { artifacts_at: WallMs(100 + 2 * many), ..over };
    assert_eq!(goes(&mut *store, epoch, all_but_the_last), many);
    assert_eq!((held(2), goes(&mut *store, epoch, over)), (1, 1));
}

fn pins_are_listed_newest_first_and_loaded_until_they_are_over(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    let elsewhere = PinRow { pipeline: "api".to_owned(), ..pin(9, None) };
    let rows: Vec<PinRow> = (1..=3).map(|n| pin(n, None)).chain([elsewhere]).collect();
    store.commit(epoch, &rows.iter().cloned().map(pin_of).collect::<Vec<_>>()).unwrap();
    let held = |n: u64, key: &[u8]| Change::PinResult { build: build_id(n), key: Digest::of(key) };
    store.commit(epoch, &[held(1, b"a"), held(1, b"b"), held(2, b"a"), held(1, b"a")]).unwrap();
    let listed = |pipeline: Option<&str>, limit: usize| -> Vec<(u64, u64)> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = history.pins(pipeline, after, limit).unwrap();
            assert!(page.items.len() <= limit);
            found.extend(page.items.iter().map(|pin| (pin.row.number, pin.results)));
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    for limit in [1, 2, 9] {
        assert_eq!(listed(None, limit), [(9, 0), (3, 0), (2, 1), (1, 2)]);
        assert_eq!(listed(Some("web"), limit), [(3, 0), (2, 1), (1, 2)]);
    }
    // It keeps its place whatever is said of it.
    let named = PinRow { name: Some("v1".to_owned()), ..pin(1, Some(7)) };
    store.commit(epoch, &[pin_of(named.clone())]).unwrap();
    assert_eq!(listed(None, 9), [(9, 0), (3, 0), (2, 1), (1, 2)]);
    assert_eq!(history.pin(build_id(1)).unwrap().map(|pin| (pin.row, pin.results)), Some((named.clone(), 2)));
    store.commit(epoch, &[Change::PinOver(build_id(2)), Change::PinOver(build_id(5))]).unwrap();
    assert_eq!(history.pin(build_id(2)), Ok(None));
    drop(store);
    let (mut store, history) = bench.open();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.pins.into_keys().collect::<Vec<_>>(), [build_id(1), build_id(3), build_id(9)]);
    let keys = [b"a", b"b"].map(|key| (build_id(1), Digest::of(key)));
    assert_eq!(loaded.pinned_results, keys.into());
    let epoch = store.claim().unwrap();
    store.commit(epoch, &[pin_of(pin(2, None))]).unwrap();
    let newest = history.pins(None, None, 1).unwrap().items.pop().unwrap();
    assert_eq!((newest.row.number, newest.results), (2, 0), "pinned again, it holds nothing of before");
}

fn notifications_are_loaded_while_they_wait_listed_by_build_and_let_go_when_they_are_over(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    store.commit(epoch, &submit(1)).unwrap();
    store.commit(epoch, &finish(1)).unwrap();
    let change = |row: NotificationRow| Change::Notification(Box::new(row));
    let all: Vec<_> = (1..=5).map(|n| notification(n, 1 + n % 2)).collect();
    store.commit(epoch, &all.iter().cloned().map(change).collect::<Vec<_>>()).unwrap();
    let over = NotificationRow { finished_at: Some(WallMs(50)), ..all[2].clone() };
    store.commit(epoch, &[change(over.clone())]).unwrap();
    let ids = |page: Page<NotificationRow>| page.items.iter().map(|row| row.id.as_bytes()[7]).collect::<Vec<_>>();
    let first = history.notifications(build_id(2), None, 2).unwrap();
    assert_eq!((first.items[1].clone(), first.next.is_some()), (over.clone(), true));
    let next = history.notifications(build_id(2), first.next, 2).unwrap();
    assert_eq!((ids(first), ids(next)), (vec![5, 3], vec![1]));
    drop((store, history));
    let (mut store, history) = bench.open();
    let epoch = store.claim().unwrap();
    let waiting: Vec<_> = store.load().unwrap().notifications.into_values().collect();
    assert_eq!(waiting, [all[0].clone(), all[1].clone(), all[3].clone(), all[4].clone()]);
    let retention = |before| Retention { notifications_before: WallMs(before), ..retention(0, 0, 1) };
    assert_eq!(store.expire(epoch, retention(50)).unwrap().notifications, 0);
    assert_eq!(store.expire(epoch, retention(51)).unwrap().notifications, 1);
    assert_eq!(ids(history.notifications(build_id(2), None, 9).unwrap()), [5, 1]);
    // A build takes those along that are over; one that waits is still to be sent.
    store.commit(epoch, &[change(NotificationRow { finished_at: Some(WallMs(99)), ..all[1].clone() })]).unwrap();
    let expired = store.expire(epoch, self::retention(2_000, 0, 9)).unwrap();
    assert_eq!(expired.builds, [build_id(1)]);
    assert_eq!(ids(history.notifications(build_id(1), None, 9).unwrap()), [4]);
}

fn history_gives_some_jobs_with_what_they_depend_on_and_nothing_else(bench: &mut dyn Bench) {
    let (mut store, history, epoch) = claimed(bench);
    let mut changes = submit(1);
    let mut needs = job(13, 1, 3, &[7, 6]);
    Arc::make_mut(&mut needs.node).depends_on = vec![Edge { node: 0, allow_failure: false }];
    changes.extend([job(11, 1, 1, &[]), needs.clone(), job(12, 1, 2, &[])].map(|job| Change::Job(Box::new(job))));
    changes.extend([6, 7].map(|n| Change::Attempt(Box::new(attempt(n, 13, 1, AttemptState::Lost)))));
    store.commit(epoch, &changes).unwrap();
    store.commit(epoch, &submit(2)).unwrap();
    let found = history.some_jobs(build_id(1), &[job_id(13), job_id(11), job_id(2), job_id(99)]).unwrap().unwrap();
    assert_eq!(found.build, build(1, BuildState::Running));
    assert_eq!(found.jobs, [job(1, 1, 0, &[1]), job(11, 1, 1, &[]), needs], "what it depends on, and in order");
    let attempts: Vec<_> = found.attempts.iter().map(|attempt| attempt.id).collect();
    assert_eq!(attempts, [attempt_id(6), attempt_id(7)], "not those of what it depends on");
    let alone = history.some_jobs(build_id(2), &[]).unwrap().unwrap();
    assert_eq!((alone.build.number, alone.jobs, alone.attempts), (2, vec![], vec![]));
    assert_eq!(history.some_jobs(build_id(9), &[job_id(1)]), Ok(None));
}

fn the_last_of_several_changes_of_a_row_counts(bench: &mut dyn Bench) {
    let (mut store, _, epoch) = claimed(bench);
    let mut changes = submit(1);
    changes.extend(finish(1));
    changes.push(Change::Build(Box::new(build(1, BuildState::Failing))));
    store.commit(epoch, &changes).unwrap();
    assert_eq!(store.load().unwrap().builds[&build_id(1)].state, BuildState::Failing);
}
