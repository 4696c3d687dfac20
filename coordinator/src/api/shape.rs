//! What clients are shown, in the interface's words: JSON shapes, made of rows.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use windlass_coordinator_core::row::{
    Actor, AttemptRow, AttemptState, BuildRow, BuildRows, BuildSource, BuildState, JobReuse, JobRow, JobState,
    ReusedFrom, Role, TriggeredFrom, Unblocked,
};
use windlass_pipeline::graph::{BlockedState, Command, Gate, NodeKind};
use windlass_protocol::job::Source;
use windlass_protocol::limits::TIME_LAST_MS;
use windlass_protocol::{AttemptId, BuildId, Cause, CauseKind, Digest, JobId, WallMs};

use super::problem::Problem;

/// RFC 3339 with milliseconds, UTC; an agent's clock may be anywhere.
pub(crate) fn time(at: WallMs) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.0.min(TIME_LAST_MS))).to_string()
}

/// A moment that a client has written as RFC 3339, in this field.
pub(super) fn moment(field: &str, text: &str) -> Result<WallMs, Problem> {
    let parsed = humantime::parse_rfc3339_weak(text).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let ms = parsed.and_then(|since| u64::try_from(since.as_millis()).ok());
    ms.map(WallMs).ok_or_else(|| Problem::invalid(format!("{field}: a time such as 2027-01-31T08:00:00Z")))
}

fn maybe_time(at: Option<WallMs>) -> Option<String> {
    at.map(time)
}

/// Why something ended without a result of its own.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Cause)]
pub(crate) struct CauseShape {
    #[schema(value_type = String)]
    kind: CauseKind,
    detail: String,
    /// Whether another try can be expected to end otherwise.
    retryable: bool,
}

impl From<&Cause> for CauseShape {
    fn from(cause: &Cause) -> Self {
        Self { kind: cause.kind, detail: cause.detail.clone(), retryable: cause.kind.retryable() }
    }
}

/// A build. In lists it comes without its jobs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Build {
    #[schema(value_type = String)]
    pub(crate) id: BuildId,
    /// From 1, per pipeline.
    number: u64,
    pipeline: String,
    /// While it waits at a block, what the block's `blocked_state` says.
    #[schema(value_type = String)]
    pub(crate) state: BuildState,
    /// It waits at a block.
    blocked: bool,
    branch: String,
    commit: String,
    tag: Option<String>,
    message: String,
    /// `{"tree"}`, `{"repository","commit","branch"}`, or null for an empty workspace.
    #[schema(value_type = Option<Object>)]
    origin: Value,
    #[schema(value_type = String)]
    source: BuildSource,
    #[schema(value_type = Object)]
    creator: Actor,
    /// `trusted`, or the overlay's name.
    namespace: String,
    /// Why it is not trusted; null where it is.
    untrusted: Option<String>,
    #[schema(value_type = Object)]
    env: Map<String, Value>,
    meta_data: BTreeMap<String, String>,
    keep_workspace: bool,
    /// Every step runs, whatever earlier results there are.
    no_reuse: bool,
    annotations_count: usize,
    /// Notifications that were made of it, whatever became of them.
    notifications_count: u32,
    /// Notifications that found no room: one build has 1,000.
    notifications_left_out: u32,
    #[schema(value_type = Option<String>)]
    rebuilt_from: Option<BuildId>,
    /// The build and job that made it; null if a trigger step did not.
    triggered_from: Option<Above>,
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    /// Left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jobs: Option<Vec<Job>>,
    web_url: String,
    cause: Option<CauseShape>,
}

/// One step of a build, or one element of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Job {
    #[schema(value_type = String)]
    pub(crate) id: JobId,
    step_key: Option<String>,
    label: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[schema(value_type = String)]
    pub(crate) state: JobState,
    exit_status: Option<i32>,
    signal: Option<i32>,
    cause: Option<CauseShape>,
    soft_failed: bool,
    /// How often it was run again.
    retries: usize,
    attempts: Vec<Attempt>,
    parallel_index: Option<u32>,
    parallel_total: Option<u32>,
    #[schema(value_type = Option<Object>)]
    matrix: Option<Value>,
    /// Ids of jobs of the same build.
    #[schema(value_type = Vec<String>)]
    depends_on: Vec<JobId>,
    /// For people: what it waits for; null if it does not.
    waiting_for: Option<String>,
    queue: Option<String>,
    zone: Option<String>,
    /// What a person is asked, where it is a gate.
    #[schema(value_type = Option<Object>)]
    gate: Option<Gate>,
    /// Who opened the gate, when, and the answers.
    unblocked: Option<UnblockedShape>,
    /// The build that it made last, where it is a trigger; earlier ones name it in their `triggered_from`.
    triggered_build: Option<Made>,
    /// Of the group that its step is in.
    group_key: Option<String>,
    /// Nothing ran: whose result it is.
    reused_from: Option<Reused>,
    /// The digest of all that decides its result, where its step asks for reuse and has one.
    #[schema(value_type = Option<String>)]
    reuse_key: Option<Digest>,
    artifacts_count: u32,
    created_at: String,
    runnable_at: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
}

/// Whose result a job ended with.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ReusedFrom)]
pub(crate) struct Reused {
    /// It may be no more.
    #[schema(value_type = String)]
    build_id: BuildId,
    number: u64,
    pipeline: String,
    #[schema(value_type = String)]
    job_id: JobId,
    #[schema(value_type = String)]
    attempt_id: AttemptId,
    /// The step's label there.
    step: String,
    /// When it had passed.
    at: String,
    /// How long it had run.
    ran_ms: u64,
    /// The fleet that ran it, by its URL; null where that was here.
    fleet: Option<String>,
}

impl Reused {
    /// Of a job, if nothing ran for it.
    fn of(row: &JobRow) -> Option<Self> {
        match &row.reuse.as_ref()?.keyed()?.role {
            Role::Reused(from) => Some(Self::new(from)),
            Role::Runs | Role::Fresh | Role::Verifies { .. } => None,
        }
    }

    /// Its build's number.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn new(from: &ReusedFrom) -> Self {
        Self {
            build_id: from.build,
            number: from.number,
            pipeline: from.pipeline.clone(),
            job_id: from.job,
            attempt_id: from.attempt,
            step: from.step.clone(),
            at: time(from.at),
            ran_ms: from.ran_ms,
            fleet: from.fleet.clone(),
        }
    }
}

/// Where a triggered build comes from.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TriggeredFrom)]
pub(crate) struct Above {
    #[schema(value_type = String)]
    build_id: BuildId,
    number: u64,
    pipeline: String,
    #[schema(value_type = String)]
    job_id: JobId,
}

/// A build that a trigger made.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TriggeredBuild)]
pub(crate) struct Made {
    #[schema(value_type = String)]
    id: BuildId,
    number: u64,
    pipeline: String,
}

/// How a gate was opened.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Unblocked)]
pub(crate) struct UnblockedShape {
    #[schema(value_type = Object)]
    by: Actor,
    at: String,
    fields: BTreeMap<String, String>,
}

impl From<&Unblocked> for UnblockedShape {
    fn from(unblocked: &Unblocked) -> Self {
        let fields = unblocked.answers.iter().cloned().collect();
        Self { by: unblocked.by.clone(), at: time(unblocked.at), fields }
    }
}

/// One run of a job's command.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Attempt {
    #[schema(value_type = String)]
    id: AttemptId,
    /// From 1, per job.
    number: u32,
    /// Its right: rises whenever it is given again, over all attempts of all jobs.
    epoch: u64,
    /// The right by which its agent was given it. `epoch` is newer where the agent was believed lost and came back.
    granted_epoch: u64,
    #[schema(value_type = String)]
    state: AttemptState,
    exit_status: Option<i32>,
    signal: Option<i32>,
    cause: Option<CauseShape>,
    /// `{id, name, zone, pool}`; null where nothing ran.
    #[schema(value_type = Option<Object>)]
    agent: Value,
    started_at: Option<String>,
    finished_at: Option<String>,
    /// Of the log after masking; null until the attempt has ended, and where nothing ran: the log is another attempt's then.
    log_bytes: Option<u64>,
    log_digest: Option<String>,
    log_truncated: bool,
}

fn origin(source: &Source) -> Value {
    match source {
        Source::Empty => Value::Null,
        Source::Tree { digest } => json!({ "tree": digest.to_string() }),
        Source::Git { repository, commit, branch } => {
            json!({ "repository": repository, "commit": commit, "branch": branch })
        }
    }
}

impl Build {
    /// A build without its jobs, as lists show it.
    pub(crate) fn bare(row: &BuildRow, url: &str) -> Self {
        Self {
            id: row.id,
            number: row.number,
            pipeline: row.pipeline.clone(),
            state: match row.blocked {
                None => row.state,
                Some(BlockedState::Passed) => BuildState::Passed,
                Some(BlockedState::Failed) => BuildState::Failed,
                Some(BlockedState::Running) => BuildState::Running,
            },
            blocked: row.blocked.is_some(),
            branch: row.branch.clone(),
            commit: row.commit.clone(),
            tag: row.tag.clone(),
            message: row.message.clone(),
            origin: origin(&row.origin),
            source: row.source,
            creator: row.creator.clone(),
            namespace: row.namespace.short_name().to_owned(),
            untrusted: row.untrusted.clone(),
            env: row.env.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect(),
            meta_data: row.meta_data.clone(),
            keep_workspace: row.keep_workspace,
            no_reuse: row.no_reuse,
            notifications_count: row.notified,
            notifications_left_out: row.not_notified,
            annotations_count: row.annotations.len(),
            rebuilt_from: row.rebuilt_from,
            triggered_from: row.triggered_from.as_ref().map(Above::of),
            created_at: time(row.created_at),
            started_at: maybe_time(row.started_at),
            finished_at: maybe_time(row.finished_at),
            jobs: None,
            web_url: format!("{url}/builds/{}", row.id),
            cause: row.cause.as_ref().map(Into::into),
        }
    }

    /// A build with its jobs and their attempts.
    pub(crate) fn whole(rows: &BuildRows, url: &str) -> Self {
        let attempts = Attempts::of(rows);
        let jobs = rows.jobs.iter().map(|job| Job::of(job, rows, &attempts)).collect();
        Self { jobs: Some(jobs), ..Self::bare(&rows.build, url) }
    }
}

/// A build's attempts by job, so that a large build is walked once.
pub(crate) struct Attempts<'a>(BTreeMap<JobId, Vec<&'a AttemptRow>>);

impl<'a> Attempts<'a> {
    /// Of all jobs of a build.
    pub(crate) fn of(rows: &'a BuildRows) -> Self {
        let mut by_job: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for attempt in &rows.attempts {
            by_job.entry(attempt.job).or_default().push(attempt);
        }
        for attempts in by_job.values_mut() {
            attempts.sort_by_key(|attempt| attempt.number);
        }
        Self(by_job)
    }
}

impl Job {
    /// One job of a build.
    pub(crate) fn of(row: &JobRow, rows: &BuildRows, attempts: &Attempts<'_>) -> Self {
        let own = attempts.0.get(&row.id).map(Vec::as_slice).unwrap_or_default();
        let (kind, command) = match &row.node.kind {
            NodeKind::Command(command) => ("command", Some(command)),
            NodeKind::Wait { .. } => ("wait", None),
            NodeKind::Block(_) => ("block", None),
            NodeKind::Input(_) => ("input", None),
            NodeKind::Trigger(_) => ("trigger", None),
        };
        let parallel = match &row.node.kind {
            NodeKind::Command(command) => command.parallel,
            NodeKind::Trigger(trigger) => trigger.parallel,
            NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) => None,
        };
        let zone = own.last().filter(|attempt| attempt.reused.is_none()).map(|attempt| attempt.zone.clone());
        Self {
            id: row.id,
            step_key: row.node.key.clone(),
            label: row.node.label.clone(),
            kind,
            state: row.state,
            exit_status: row.exit_status,
            signal: row.signal,
            cause: row.cause.as_ref().map(Into::into),
            soft_failed: row.soft_failed,
            retries: own.len().max(row.triggered.len()).saturating_sub(1),
            attempts: own.iter().map(|attempt| Attempt::of(attempt, row)).collect(),
            parallel_index: parallel.map(|(index, _)| index),
            parallel_total: parallel.map(|(_, total)| total),
            matrix: matrix(row),
            depends_on: dependencies(row, rows).map(|job| job.id).collect(),
            waiting_for: waiting_for(row, rows),
            queue: command.map(|command| command.queue.clone()),
            zone: zone.or_else(|| command.and_then(|command| command.zone.clone())),
            gate: match &row.node.kind {
                NodeKind::Block(gate) | NodeKind::Input(gate) => Some((**gate).clone()),
                NodeKind::Command(_) | NodeKind::Wait { .. } | NodeKind::Trigger(_) => None,
            },
            unblocked: row.unblocked.as_ref().map(Into::into),
            triggered_build: Made::of(row),
            group_key: group_key(row, rows),
            reused_from: Reused::of(row),
            reuse_key: row.reuse.as_ref().and_then(JobReuse::keyed).map(|keyed| keyed.keyed.key),
            artifacts_count: own.last().map_or(0, |attempt| attempt.artifacts.count),
            created_at: time(row.created_at),
            runnable_at: maybe_time(row.runnable_at),
            started_at: maybe_time(row.started_at),
            finished_at: maybe_time(row.finished_at),
        }
    }
}

fn dependencies<'a>(row: &'a JobRow, rows: &'a BuildRows) -> impl Iterator<Item = &'a JobRow> {
    // The rows of some jobs have gaps between them.
    let place = |node| rows.jobs.binary_search_by_key(&node, |job| job.index).ok();
    row.node.depends_on.iter().filter_map(move |edge| rows.jobs.get(place(edge.node)?))
}

/// The chosen values of a matrix by dimension; of an anonymous one the value alone.
fn matrix(row: &JobRow) -> Option<Value> {
    match row.node.matrix.as_slice() {
        [] => None,
        [(name, value)] if name.is_empty() => Some(Value::String(value.clone())),
        values => Some(values.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect()),
    }
}

fn group_key(row: &JobRow, rows: &BuildRows) -> Option<String> {
    let group = usize::try_from(row.node.place.group?).ok()?;
    rows.build.groups.get(group)?.key.clone()
}

/// Labels that are named before the rest is counted.
const NAMED_MAX: usize = 3;

fn waiting_for(row: &JobRow, rows: &BuildRows) -> Option<String> {
    let wishes = |command: &Command| command.reuse.is_some() && row.reuse.is_none();
    let followed = row.reuse.as_ref().and_then(JobReuse::keyed).and_then(|keyed| keyed.follows.as_ref());
    let followed = followed.map(|it| format!("the result of {} in build #{}, which runs", it.step, it.number));
    match (row.state, &row.node.kind) {
        (JobState::Scheduled, NodeKind::Command(command)) if wishes(command) => {
            Some("its key, for a result that is here already".to_owned())
        }
        (JobState::Scheduled, NodeKind::Command(_)) if followed.is_some() => followed,
        (JobState::Scheduled, NodeKind::Command(command)) => Some(format!("an agent of queue `{}`", command.queue)),
        (JobState::Pending | JobState::Waiting, _) => {
            let open: Vec<_> = dependencies(row, rows).filter(|job| !job.state.is_final()).collect();
            let named: Vec<_> = open.iter().take(NAMED_MAX).map(|job| job.node.label.as_str()).collect();
            let rest = open.len().saturating_sub(NAMED_MAX);
            match (named.is_empty(), rest) {
                (true, _) => None,
                (false, 0) => Some(named.join(", ")),
                (false, rest) => Some(format!("{} and {rest} more", named.join(", "))),
            }
        }
        (JobState::Blocked, _) => Some("somebody who unblocks it".to_owned()),
        (JobState::Limited, NodeKind::Command(command)) => {
            let group = command.concurrency.as_ref()?;
            Some(format!("a slot of concurrency group `{}`", group.group))
        }
        (JobState::Running, NodeKind::Trigger(trigger)) => {
            let made = row.triggered.last().and_then(|last| last.number);
            Some(match made {
                Some(number) => format!("build #{number} of `{}`", trigger.pipeline),
                None => format!("the definition of `{}`", trigger.pipeline),
            })
        }
        _ => None,
    }
}

impl Above {
    fn of(row: &TriggeredFrom) -> Self {
        Self { build_id: row.build, number: row.number, pipeline: row.pipeline.clone(), job_id: row.job }
    }
}

impl Made {
    fn of(row: &JobRow) -> Option<Self> {
        let NodeKind::Trigger(trigger) = &row.node.kind else { return None };
        let last = row.triggered.last()?;
        Some(Self { id: last.build, number: last.number?, pipeline: trigger.pipeline.clone() })
    }
}

impl Attempt {
    fn of(row: &AttemptRow, job: &JobRow) -> Self {
        let outcome = row.outcome.as_ref();
        // Where nothing ran, the log is another one's.
        let ran = outcome.filter(|_| row.reused.is_none());
        let live_start = job.started_at.filter(|_| row.state == AttemptState::Running);
        Self {
            id: row.id,
            number: row.number,
            epoch: row.epoch.0,
            granted_epoch: row.granted.0,
            state: row.state,
            exit_status: outcome.and_then(|outcome| outcome.exit_status),
            signal: outcome.and_then(|outcome| outcome.signal),
            cause: row.cause.as_ref().or_else(|| outcome?.cause.as_ref()).map(Into::into),
            agent: match &row.reused {
                Some(_) => Value::Null,
                None => json!({
                    "id": row.agent.to_string(), "name": row.agent_name, "zone": row.zone, "pool": row.pool,
                }),
            },
            started_at: maybe_time(outcome.and_then(|outcome| outcome.started_at).or(live_start)),
            finished_at: maybe_time(row.finished_at),
            log_bytes: ran.map(|outcome| outcome.log_bytes),
            log_digest: ran.map(|outcome| outcome.log_digest.to_string()),
            log_truncated: outcome.is_some_and(|outcome| outcome.log_truncated),
        }
    }
}
