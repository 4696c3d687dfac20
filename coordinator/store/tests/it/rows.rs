//! Rows as the core makes them, small.

use std::collections::VecDeque;
use std::sync::Arc;

use windlass_coordinator_core::row::{
    Actor, ActorKind, AgentRow, ArtifactRow, ArtifactTally, AttemptRow, AttemptState, AuditRow, BuildEvent, BuildRow,
    BuildSource, BuildState, Change, Confined, EventRow, Fired, Firing, IdempotencyRow, JobRow, JobState, Message,
    MetaRow, NotificationRow, NotificationState, OnDeadline, OnUnreachable, PinGone, PinRow, PipelineRow, PoolRow,
    ScheduleRow, TagPolicy, TokenGrant, TokenRow,
};
use windlass_coordinator_core::terms::JoinTerms;
use windlass_pipeline::graph::{Command, Node, NodeKind, Supersede};
use windlass_protocol::job::{Epoch, Source};
use windlass_protocol::{
    AgentId, AnnotationId, ArtifactId, AttemptId, BuildId, Digest, JobId, Namespace, NotificationId, PipelineId,
    ScheduleId, TokenId, Trust, WallMs,
};

/// 16 bytes that rise with `n`, of a kind of their own.
fn id(kind: u8, n: u64) -> [u8; 16] {
    let mut bytes = [kind; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub(crate) fn build_id(n: u64) -> BuildId {
    BuildId::from_bytes(id(1, n))
}

pub(crate) fn job_id(n: u64) -> JobId {
    JobId::from_bytes(id(2, n))
}

pub(crate) fn attempt_id(n: u64) -> AttemptId {
    AttemptId::from_bytes(id(3, n))
}

pub(crate) fn annotation_id(n: u64) -> AnnotationId {
    AnnotationId::from_bytes(id(6, n))
}

pub(crate) fn token_id(n: u64) -> TokenId {
    TokenId::from_bytes(id(4, n))
}

pub(crate) fn agent_id(n: u64) -> AgentId {
    AgentId::from_bytes(id(5, n))
}

pub(crate) fn actor() -> Actor {
    Actor { kind: ActorKind::Token, name: "ci".to_owned() }
}

/// Build `n` of pipeline `web`, with an own definition for every second number.
pub(crate) fn build(n: u64, state: BuildState) -> BuildRow {
    BuildRow {
        id: build_id(n),
        number: n,
        pipeline: "web".to_owned(),
        registered: None,
        state,
        branch: if n.is_multiple_of(2) { "main" } else { "topic" }.to_owned(),
        commit: "HEAD".to_owned(),
        tag: None,
        message: format!("build {n}"),
        origin: Source::Empty,
        source: BuildSource::Api,
        creator: actor(),
        namespace: Namespace::trusted("web"),
        env: vec![("CI".to_owned(), "true".to_owned())],
        pipeline_env: vec![("LANG".to_owned(), "C".to_owned())],
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
        created_at: WallMs(n),
        started_at: None,
        finished_at: state.is_final().then_some(WallMs(1_000 + n)),
        definition: definition(n).0,
    }
}

/// Notification `n` about build `m`, which waits.
pub(crate) fn notification(n: u64, m: u64) -> NotificationRow {
    NotificationRow {
        id: NotificationId::from_bytes(id(9, n)),
        project: "web".to_owned(),
        untrusted: false,
        order: 0,
        build: build_id(m),
        message: Message::Unsent { name: "pigeon".to_owned() },
        state: NotificationState::Pending,
        attempts: 0,
        status: None,
        detail: String::new(),
        created_at: WallMs(n),
        due_at: WallMs(n),
        finished_at: None,
    }
}

/// A registered pipeline that keeps build `n`'s definition.
pub(crate) fn pipeline(name: &str, n: Option<u64>) -> PipelineRow {
    PipelineRow {
        id: PipelineId::from_bytes(id(6, n.unwrap_or_default())),
        name: name.to_owned(),
        description: "for people".to_owned(),
        repository: Some("https://git.example/web".to_owned()),
        default_branch: "trunk".to_owned(),
        file: None,
        definition: n.map(|n| definition(n).0),
        protected_refs: vec!["refs/tags/v*".to_owned()],
        env: vec![("A".to_owned(), "1".to_owned())],
        timeout_ms: Some(60_000),
        created_by: actor(),
        created_at: WallMs(1),
        updated_at: WallMs(2),
    }
}

/// A schedule that makes build `n`.
pub(crate) fn schedule(n: u64) -> ScheduleRow {
    ScheduleRow {
        id: ScheduleId::from_bytes(id(7, n)),
        pipeline: "web".to_owned(),
        cron: "@daily".to_owned(),
        timezone: "Europe/Berlin".to_owned(),
        branch: Some("main".to_owned()),
        commit: "HEAD".to_owned(),
        message: "night".to_owned(),
        env: vec![("A".to_owned(), "1".to_owned())],
        trusted: true,
        confined: Some(Confined { pipeline: Some("web".to_owned()), branch: None }),
        created_by: actor(),
        created_at: WallMs(1),
        next_at: Some(WallMs(n)),
        firing: Some(Firing { build: build_id(n), at: WallMs(n) }),
        last: Some(Fired { at: WallMs(0), build: build_id(n), number: Some(n), cause: None }),
    }
}

/// What setting such a pipeline comes to.
pub(crate) fn registering(name: &str, n: Option<u64>) -> Vec<Change> {
    let text = n.map(definition).map(|(digest, text)| Change::Definition { digest, text });
    text.into_iter().chain([Change::Pipeline(Box::new(pipeline(name, n)))]).collect()
}

pub(crate) fn definition(n: u64) -> (Digest, String) {
    let text = format!("steps: [] # {}", n / 2);
    (Digest::of(text.as_bytes()), text)
}

pub(crate) fn job(n: u64, build: u64, index: u32, attempts: &[u64]) -> JobRow {
    let command = Command { command: "make".to_owned(), queue: "default".to_owned(), ..Command::default() };
    JobRow {
        id: job_id(n),
        build: build_id(build),
        index,
        node: Arc::new(Node { label: "make".to_owned(), ..Node::new(NodeKind::Command(Box::new(command))) }),
        state: if attempts.is_empty() { JobState::Scheduled } else { JobState::Assigned },
        exit_status: None,
        signal: None,
        cause: None,
        soft_failed: false,
        rule_uses: vec![],
        requeues: 0,
        agents_lost: vec![],
        attempts: attempts.iter().map(|n| attempt_id(*n)).collect(),
        unblocked: None,
        uploads: Vec::new(),
        reuse: None,
        fresh: false,
        triggered: Vec::new(),
        cancel_grace_ms: None,
        not_before: None,
        created_at: WallMs(n),
        runnable_at: None,
        started_at: None,
        finished_at: None,
    }
}

pub(crate) fn attempt(n: u64, job: u64, build: u64, state: AttemptState) -> AttemptRow {
    AttemptRow {
        id: attempt_id(n),
        job: job_id(job),
        build: build_id(build),
        number: 1,
        state,
        epoch: Epoch(n),
        agent: agent_id(1),
        agent_name: "a1".to_owned(),
        zone: "local".to_owned(),
        pool: "default".to_owned(),
        assigned_at: WallMs(n),
        boot_id: "boot".to_owned(),
        outcome: None,
        log_complete: false,
        cause: None,
        finished_at: None,
        artifacts: ArtifactTally::default(),
        granted: Epoch(n),
        calls: VecDeque::new(),
        yields: None,
        reused: None,
        weighed: None,
    }
}

pub(crate) fn artifact_id(n: u64) -> ArtifactId {
    ArtifactId::from_bytes(id(6, n))
}

/// The `n`th one; every third has the same bytes, and goes at 100 and `n`.
pub(crate) fn artifact(n: u64, build: u64) -> ArtifactRow {
    ArtifactRow {
        id: artifact_id(n),
        build: build_id(build),
        job: job_id(n),
        attempt: attempt_id(n),
        path: format!("log/{n}"),
        bytes: n,
        digest: Digest::of(&[u8::try_from(n % 3).unwrap_or_default()]),
        sha1: "0a".repeat(20),
        sha256: "0b".repeat(32),
        content_type: "text/plain".to_owned(),
        executable: false,
        namespace: Namespace::overlay("web", &format!("build-{build}")),
        created_at: WallMs(n),
        by: None,
        expires_at: WallMs(100 + n),
    }
}

/// Build `n`'s pin.
pub(crate) fn pin(n: u64, until: Option<u64>) -> PinRow {
    PinRow {
        build: build_id(n),
        pipeline: "web".to_owned(),
        number: n,
        branch: "main".to_owned(),
        namespace: Namespace::trusted("web"),
        name: None,
        by: actor(),
        at: WallMs(n),
        until: until.map(WallMs),
        files: 1,
        bytes: 2,
        gone: PinGone { files: 1, ..PinGone::default() },
        left_out: 0,
    }
}

pub(crate) fn event(build: u64, event: BuildEvent) -> Change {
    Change::Event(EventRow { build: build_id(build), at: WallMs(build), event })
}

pub(crate) fn idempotency(n: u64) -> IdempotencyRow {
    let key = (token_id(1), format!("key-{n}"));
    IdempotencyRow { key, body: Digest::of(b"body"), build: build_id(n), at: WallMs(n) }
}

/// What a submit of build `n` with one job comes to, leased at once: job, attempt and epoch have the same number.
pub(crate) fn submit(n: u64) -> Vec<Change> {
    let (digest, text) = definition(n);
    vec![
        Change::Meta(MetaRow { last_epoch: n }),
        Change::PipelineNumber { pipeline: "web".to_owned(), last: n },
        Change::Definition { digest, text },
        Change::Build(Box::new(build(n, BuildState::Running))),
        Change::Job(Box::new(job(n, n, 0, &[n]))),
        Change::Attempt(Box::new(attempt(n, n, n, AttemptState::Assigned))),
        Change::Idempotency(idempotency(n)),
        event(n, BuildEvent::BuildCreated),
        event(n, BuildEvent::JobChanged { job: job_id(n), state: JobState::Assigned, attempt: Some(attempt_id(n)) }),
        Change::Audit(AuditRow {
            at: WallMs(n),
            actor: actor(),
            action: "build.submit".to_owned(),
            target: build_id(n).to_string(),
            detail: String::new(),
        }),
    ]
}

/// What its result comes to.
pub(crate) fn finish(n: u64) -> Vec<Change> {
    let state = BuildState::Passed;
    let mut done = job(n, n, 0, &[n]);
    done.state = JobState::Passed;
    vec![
        Change::Build(Box::new(build(n, state))),
        Change::Job(Box::new(done)),
        Change::Attempt(Box::new(attempt(n, n, n, AttemptState::Finished))),
        event(n, BuildEvent::BuildFinished { state }),
    ]
}

pub(crate) fn fleet() -> Vec<Change> {
    let pool = PoolRow {
        name: "default".to_owned(),
        zone: "local".to_owned(),
        queues: vec!["default".to_owned()],
        trust: Trust::Trusted,
        tags: TagPolicy::Free(vec![]),
        lease_ms: 60_000,
        beat_ms: 5_000,
        paused: false,
        on_unreachable: OnUnreachable::Wait,
        created_at: WallMs(1),
    };
    let token = TokenRow {
        id: token_id(1),
        secret_hash: Digest::of(b"secret"),
        grant: TokenGrant::Join { pool: "default".to_owned(), max_uses: None, used: 1, terms: JoinTerms::default() },
        note: "n".to_owned(),
        created_by: actor(),
        created_at: WallMs(1),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    };
    vec![Change::Pool(Box::new(pool)), Change::Token(Box::new(token)), Change::Agent(Box::new(agent(1, None)))]
}

pub(crate) fn agent(n: u64, gone: Option<&str>) -> AgentRow {
    AgentRow {
        id: agent_id(n),
        name: format!("a{n}"),
        pool: "default".to_owned(),
        key: Digest::of(&n.to_be_bytes()),
        token: token_id(1),
        machine_id: "m".to_owned(),
        tags: vec![],
        joined_at: WallMs(1),
        draining: false,
        drain_until: None,
        on_deadline: OnDeadline::Requeue,
        last_seen_at: None,
        left: false,
        revoked_at: None,
        gone: gone.map(str::to_owned),
    }
}
