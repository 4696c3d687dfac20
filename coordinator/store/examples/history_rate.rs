//! Measures what a watcher's reading costs: a whole build against a few of its jobs.
//!
//! `cargo run --release -p windlass-coordinator-store --example history_rate`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement reads the clock, prints, and fails by panicking"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_coordinator_core::row::*;
use windlass_coordinator_store::{History, Options, Store, open};
use windlass_pipeline::graph::{Command, Edge, Node, NodeKind, Supersede};
use windlass_protocol::job::{Epoch, Source};
use windlass_protocol::{AgentId, AttemptId, BuildId, Digest, IdSource, JobId, Namespace, WallMs};

const JOBS: u32 = 2_000;
const ROUNDS: u32 = 200;

fn build(id: BuildId) -> BuildRow {
    BuildRow {
        id,
        number: 1,
        pipeline: "web".to_owned(),
        registered: None,
        state: BuildState::Running,
        branch: "main".to_owned(),
        commit: "HEAD".to_owned(),
        tag: None,
        message: "a change".to_owned(),
        origin: Source::Empty,
        source: BuildSource::Api,
        creator: Actor { kind: ActorKind::Token, name: "ci".to_owned() },
        namespace: Namespace::trusted("web"),
        env: vec![("CI".to_owned(), "true".to_owned())],
        pipeline_env: Vec::new(),
        meta_data: BTreeMap::new(),
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
    }
}

/// Each job depends on the first, and has run once.
fn job(build: BuildId, id: JobId, index: u32, attempt: AttemptId) -> JobRow {
    let command = Command { command: "make test".to_owned(), queue: "default".to_owned(), ..Command::default() };
    let first = Edge { node: 0, allow_failure: false };
    JobRow {
        id,
        build,
        index,
        node: Arc::new(Node {
            key: Some(format!("step-{index}")),
            label: format!("Step {index}"),
            depends_on: if index == 0 { vec![] } else { vec![first] },
            ..Node::new(NodeKind::Command(Box::new(command)))
        }),
        state: JobState::Assigned,
        exit_status: None,
        signal: None,
        cause: None,
        soft_failed: false,
        rule_uses: vec![],
        requeues: 0,
        agents_lost: vec![],
        attempts: vec![attempt],
        unblocked: None,
        uploads: Vec::new(),
        reuse: None,
        fresh: false,
        triggered: Vec::new(),
        cancel_grace_ms: None,
        not_before: None,
        created_at: WallMs(1),
        runnable_at: Some(WallMs(1)),
        started_at: None,
        finished_at: None,
    }
}

fn attempt(build: BuildId, job: JobId, id: AttemptId, epoch: u64) -> AttemptRow {
    AttemptRow {
        id,
        job,
        build,
        number: 1,
        state: AttemptState::Assigned,
        epoch: Epoch(epoch),
        agent: AgentId::from_bytes([5; 16]),
        agent_name: "agent".to_owned(),
        zone: "corp".to_owned(),
        pool: "main".to_owned(),
        boot_id: String::new(),
        assigned_at: WallMs(1),
        outcome: None,
        log_complete: false,
        cause: None,
        finished_at: None,
        artifacts: ArtifactTally::default(),
        granted: Epoch(epoch),
        calls: VecDeque::new(),
        yields: None,
        reused: None,
        weighed: None,
    }
}

fn measure(what: &str, mut read: impl FnMut(u32)) {
    read(0);
    let begun = Instant::now();
    for round in 0..ROUNDS {
        read(round);
    }
    let each: Duration = begun.elapsed() / ROUNDS;
    println!("{what:<44} {:>10.1} µs", each.as_secs_f64() * 1e6);
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, history) = open(dir.path(), &Options::default()).unwrap();
    let epoch = store.claim().unwrap();
    let mut ids = IdSource::from_seed([1; 32]);
    let at = WallMs(1_800_000_000_000);
    let id = ids.build(at);
    let mut changes = vec![Change::Build(Box::new(build(id)))];
    let mut jobs = Vec::new();
    for index in 0..JOBS {
        let (job_id, attempt_id) = (ids.job(at), ids.attempt(at));
        jobs.push(job_id);
        changes.push(Change::Job(Box::new(job(id, job_id, index, attempt_id))));
        changes.push(Change::Attempt(Box::new(attempt(id, job_id, attempt_id, u64::from(index) + 1))));
    }
    store.commit(epoch, &changes).unwrap();
    println!("a build of {JOBS} jobs");
    measure("the whole build", |_| assert!(history.build(id).unwrap().is_some()));
    for count in [0, 1, 2, 8, 64] {
        let what = format!("{count} of its jobs, with what they depend on");
        measure(&what, |round| {
            let from = usize::try_from(round).unwrap();
            assert!(history.some_jobs(id, &jobs[from..from + count]).unwrap().is_some());
        });
    }
}
