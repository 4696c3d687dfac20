//! Watchers and readers over a store in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use windlass_coordinator_core::effect::{AgentState, Progress};
use windlass_coordinator_core::row::{
    Actor, ActorKind, AgentRow, ArtifactTally, AttemptRow, AttemptState, BuildEvent, BuildRow, BuildSource, BuildState,
    Change, EventRow, JobRow, JobState, OnDeadline,
};
use windlass_coordinator_store::{EventSeq, MemoryStore, Seq, Store, WriterEpoch};
use windlass_pipeline::graph::{Node, NodeKind, Supersede};
use windlass_protocol::job::{Epoch, Source};
use windlass_protocol::{AgentId, AttemptId, BuildId, Digest, JobId, Namespace, TokenId, WallMs, limits};

use super::{Notice, Offload, ReadError, Reader, Views, Watch};

const BUILD: BuildId = BuildId::from_bytes([1; 16]);
const JOB: JobId = JobId::from_bytes([2; 16]);
const ATTEMPT: AttemptId = AttemptId::from_bytes([3; 16]);

/// A store, and views that publish what it commits.
struct Bench {
    store: MemoryStore,
    epoch: WriterEpoch,
    views: Views,
    reader: Reader,
}

impl Bench {
    fn new() -> Self {
        let mut store = MemoryStore::new();
        let epoch = store.claim().unwrap();
        let views = Views::default();
        let reader = Reader::new(views.clone(), Arc::new(store.history()), Offload::Here);
        Self { store, epoch, views, reader }
    }

    fn store(&mut self, changes: &[Change]) -> Seq {
        self.store.commit(self.epoch, changes).unwrap()
    }

    fn commit(&mut self, changes: &[Change]) -> Seq {
        let seq = self.store(changes);
        self.views.publish(seq, changes);
        seq
    }
}

fn event(state: BuildState) -> Change {
    Change::Event(EventRow { build: BUILD, at: WallMs(1), event: BuildEvent::BuildChanged { state } })
}

fn build() -> Change {
    Change::Build(Box::new(BuildRow {
        id: BUILD,
        number: 1,
        pipeline: "web".to_owned(),
        registered: None,
        state: BuildState::Running,
        branch: String::new(),
        commit: String::new(),
        tag: None,
        message: String::new(),
        origin: Source::Empty,
        source: BuildSource::Api,
        creator: Actor { kind: ActorKind::System, name: String::new() },
        namespace: Namespace::trusted("web"),
        env: vec![],
        pipeline_env: vec![],
        meta_data: std::collections::BTreeMap::new(),
        supersede: Supersede::Never,
        groups: Vec::new(),
        notify: Vec::new(),
        notified: 0,
        not_notified: 0,
        blocked: None,
        unblocker: None,
        keep_workspace: false,
        no_reuse: false,
        annotations: Vec::new(),
        rebuilt_from: None,
        triggered_from: None,
        confined: None,
        untrusted: None,
        cause: None,
        cancel_requested: false,
        created_at: WallMs(1),
        started_at: None,
        finished_at: None,
        definition: Digest::of(b""),
    }))
}

fn job(state: JobState) -> Change {
    let kind = NodeKind::Wait { continue_on_failure: false };
    let node = Node::new(kind);
    Change::Job(Box::new(JobRow {
        id: JOB,
        build: BUILD,
        index: 0,
        node: node.into(),
        state,
        exit_status: None,
        signal: None,
        cause: None,
        soft_failed: false,
        rule_uses: vec![],
        requeues: 0,
        agents_lost: vec![],
        attempts: vec![ATTEMPT],
        unblocked: None,
        uploads: Vec::new(),
        reuse: None,
        fresh: false,
        triggered: Vec::new(),
        cancel_grace_ms: None,
        not_before: None,
        created_at: WallMs(1),
        runnable_at: None,
        started_at: None,
        finished_at: None,
    }))
}

fn attempt(state: AttemptState) -> Change {
    Change::Attempt(Box::new(AttemptRow {
        id: ATTEMPT,
        job: JOB,
        build: BUILD,
        number: 1,
        state,
        epoch: Epoch(1),
        agent: AgentId::from_bytes([5; 16]),
        agent_name: String::new(),
        zone: String::new(),
        pool: String::new(),
        assigned_at: WallMs(1),
        boot_id: String::new(),
        outcome: None,
        log_complete: false,
        cause: None,
        finished_at: None,
        artifacts: ArtifactTally::default(),
        granted: Epoch(1),
        calls: VecDeque::new(),
        yields: None,
        reused: None,
        weighed: None,
    }))
}

fn running() -> Progress {
    Progress::Attempt {
        build: BUILD,
        job: JOB,
        attempt: ATTEMPT,
        state: AttemptState::Running,
        job_state: JobState::Running,
        started_at: Some(WallMs(7)),
    }
}

/// What a watcher is told next, or `None` if it has to wait.
async fn next(watch: &mut Watch) -> Option<Notice> {
    tokio::time::timeout(Duration::ZERO, watch.next()).await.ok().map(Result::unwrap)
}

/// The numbers of all events that a watcher is told until it has to wait.
async fn numbers(watch: &mut Watch) -> Vec<EventSeq> {
    let mut numbers = Vec::new();
    while let Some(notice) = next(watch).await {
        if let Notice::Event(event) = notice {
            numbers.push(event.seq);
        }
    }
    numbers
}

#[tokio::test]
async fn a_watcher_is_told_each_event_once_from_the_store_and_then_live() {
    let mut bench = Bench::new();
    let first = bench.commit(&[event(BuildState::Scheduled), event(BuildState::Running)]);
    let mut watch = bench.reader.watch(BUILD, EventSeq::default());
    let second = bench.commit(&[event(BuildState::Failing)]);
    assert_eq!(
        numbers(&mut watch).await,
        [EventSeq::new(first, 0), EventSeq::new(first, 1), EventSeq::new(second, 0)],
        "the last one is in the store and in the channel, and is told once"
    );
    let third = bench.commit(&[event(BuildState::Failed)]);
    assert_eq!(numbers(&mut watch).await, [EventSeq::new(third, 0)]);
    let mut resumed = bench.reader.watch(BUILD, EventSeq::new(first, 1));
    assert_eq!(numbers(&mut resumed).await, [EventSeq::new(second, 0), EventSeq::new(third, 0)]);
}

#[tokio::test]
async fn a_slow_watcher_is_told_to_read_again_and_misses_no_event() {
    let mut bench = Bench::new();
    bench.commit(&[event(BuildState::Scheduled)]);
    let mut watch = bench.reader.watch(BUILD, EventSeq::default());
    assert_eq!(numbers(&mut watch).await.len(), 1);
    let missed = limits::WATCHER_BUFFER_MAX * 2 + 10;
    for _ in 0..missed {
        bench.commit(&[event(BuildState::Running)]);
    }
    assert_eq!(next(&mut watch).await, Some(Notice::Reset));
    let told = numbers(&mut watch).await;
    assert_eq!(told.len(), missed);
    assert!(told.is_sorted_by(|one, two| one < two));
}

#[tokio::test]
async fn other_builds_events_are_not_told_and_unwatched_builds_keep_nothing() {
    let mut bench = Bench::new();
    let mut watch = bench.reader.watch(BuildId::from_bytes([9; 16]), EventSeq::default());
    bench.commit(&[event(BuildState::Running)]);
    assert_eq!(next(&mut watch).await, None);
    drop(watch);
    let _other = bench.reader.watch(BUILD, EventSeq::default());
    assert_eq!(bench.views.read().watchers.keys().copied().collect::<Vec<_>>(), [BUILD]);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_saw_more_than_is_published_waits_until_it_is() {
    let mut bench = Bench::new();
    let changes = [build(), job(JobState::Assigned)];
    let seq = bench.store(&changes);
    assert_eq!(bench.reader.build(BUILD).await, Err(ReadError::Unavailable), "nobody publishes it");
    let reader = bench.reader.clone();
    let reading = tokio::spawn(async move { reader.build(BUILD).await });
    tokio::task::yield_now().await;
    assert!(!reading.is_finished());
    bench.views.publish(seq, &changes);
    let (_, rows) = reading.await.unwrap().unwrap().unwrap();
    assert_eq!(rows.jobs.len(), 1);
}

#[tokio::test]
async fn progress_is_laid_over_live_attempts_and_goes_with_them() {
    let mut bench = Bench::new();
    bench.commit(&[build(), job(JobState::Assigned), attempt(AttemptState::Assigned)]);
    bench.views.progress(&running());
    let (_, rows) = bench.reader.build(BUILD).await.unwrap().unwrap();
    assert_eq!((rows.jobs[0].state, rows.jobs[0].started_at), (JobState::Running, Some(WallMs(7))));
    assert_eq!(rows.attempts[0].state, AttemptState::Running);
    let stored = bench.reader.stored_build(BUILD).await.unwrap().unwrap();
    assert_eq!(stored.jobs[0].state, JobState::Assigned, "what the core is given has no progress in it");

    bench.commit(&[job(JobState::Canceling)]);
    let (_, rows) = bench.reader.build(BUILD).await.unwrap().unwrap();
    assert_eq!((rows.jobs[0].state, rows.attempts[0].state), (JobState::Canceling, AttemptState::Running));
    bench.commit(&[job(JobState::Canceled), attempt(AttemptState::Canceled)]);
    let (_, rows) = bench.reader.build(BUILD).await.unwrap().unwrap();
    assert_eq!((rows.jobs[0].state, rows.attempts[0].state), (JobState::Canceled, AttemptState::Canceled));
    bench.views.progress(&running());
    bench.views.retire(BUILD);
    assert!(format!("{:?}", bench.views.read().overlay).contains("{}"));
}

#[tokio::test]
async fn after_a_reset_progress_is_forgotten_and_watchers_are_told() {
    let mut bench = Bench::new();
    let seq = bench.commit(&[build(), job(JobState::Assigned), attempt(AttemptState::Assigned)]);
    bench.views.progress(&running());
    let mut watch = bench.reader.watch(BUILD, EventSeq::end_of(seq));
    assert_eq!(next(&mut watch).await, None);
    // A commit whose failure was reported, and which is there all the same.
    let lost = bench.store(&[event(BuildState::Failing)]);
    let rows = bench.store.load().unwrap();
    bench.views.reset(&rows, lost);
    assert_eq!(next(&mut watch).await, Some(Notice::Reset));
    assert_eq!(numbers(&mut watch).await, [EventSeq::new(lost, 0)]);
    let (_, rows) = bench.reader.build(BUILD).await.unwrap().unwrap();
    assert_eq!(rows.jobs[0].state, JobState::Assigned);
}

#[tokio::test]
async fn agents_are_shown_with_their_volatile_state_until_they_are_gone() {
    let mut bench = Bench::new();
    let id = AgentId::from_bytes([5; 16]);
    let row = |gone: Option<&str>| AgentRow {
        id,
        name: "a".to_owned(),
        pool: "p".to_owned(),
        key: Digest::of(b""),
        token: TokenId::from_bytes([4; 16]),
        machine_id: String::new(),
        tags: vec![],
        joined_at: WallMs(1),
        draining: false,
        drain_until: None,
        on_deadline: OnDeadline::Requeue,
        last_seen_at: None,
        left: false,
        revoked_at: None,
        gone: gone.map(str::to_owned),
    };
    let online = Progress::Agent { agent: id, state: AgentState::Online };
    bench.views.progress(&online);
    assert_eq!(bench.views.agent(id), None, "not durable, not shown");
    bench.commit(&[Change::Agent(Box::new(row(None)))]);
    assert_eq!(bench.views.agent(id).unwrap().state, AgentState::Joining);
    bench.views.progress(&online);
    assert_eq!(bench.views.agents()[0].state, AgentState::Online);
    bench.commit(&[Change::Agent(Box::new(row(Some("left"))))]);
    assert_eq!((bench.views.agents(), bench.views.agent(id)), (vec![], None));
}
