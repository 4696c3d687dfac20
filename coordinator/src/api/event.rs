//! A build's events as they happen, resumable by their numbers.
//!
//! First comes a snapshot without a number, then what is durable, numbered, with volatile progress between. A client
//! that comes back names the last number it saw and misses nothing.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};
use windlass_coordinator_core::effect::Progress;
use windlass_coordinator_core::row::{BuildEvent, BuildRows, BuildState, JobState, Scope};
use windlass_coordinator_store::{EventSeq, StoredEvent};
use windlass_protocol::host::now;
use windlass_protocol::limits::{HTTP_KEEP_ALIVE_MS, WATCHER_BUFFER_MAX};
use windlass_protocol::{BuildId, JobId};

use super::Ground;
use super::annotation::AnnotationName;
use super::auth::Caller;
use super::build::find;
use super::extract::Query;
use super::log::json;
use super::problem::Problem;
use super::shape::{Attempts, Build, Job, time};
use crate::views::{Notice, ReadError, Watch};

/// Notices that one reading of the build serves; so few in tests that the borders fall everywhere.
const GATHERED_MAX: usize = if cfg!(test) { 2 } else { WATCHER_BUFFER_MAX };

/// Between two readings of a build for one watcher, unless it is over: nobody sees the difference, and a build of many short
/// steps would be read more often than it is written.
const PAUSE: Duration = Duration::from_millis(10);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How a build is followed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Ask {
    /// `finished`: the stream ends with `event: end` when the build has ended.
    until: Option<Until>,
}

/// When a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Until {
    /// When the build has ended.
    Finished,
}

/// One thing that happened, with what it happened to, as that is now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventShape {
    /// `snapshot build_created build_changed build_finished job_changed job_finished annotation_changed
    /// annotation_removed reuse_differs`, and volatile `job_started job_progress`.
    event: &'static str,
    at: String,
    #[schema(value_type = String)]
    build_id: BuildId,
    /// What the event is about went into this state: the job's, else the build's.
    #[schema(value_type = String)]
    state: Standing,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Job>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<Build>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotation: Option<AnnotationName>,
}

/// A build's or a job's.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(crate) enum Standing {
    Build(BuildState),
    Job(JobState),
}

/// The number after which a client goes on.
pub(crate) fn last_event_id<T: std::str::FromStr>(headers: &HeaderMap) -> Result<Option<T>, Problem> {
    let Some(text) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let parsed = text.to_str().ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| Problem::invalid("Last-Event-ID: the id of an event of this stream"))
}

/// Comments that keep proxies from ending a quiet stream.
pub(crate) fn keep_alive() -> KeepAlive {
    KeepAlive::new().interval(Duration::from_millis(HTTP_KEEP_ALIVE_MS))
}

/// Follows a build.
#[utoipa::path(
    get,
    path = "/api/v1/builds/{id}/events",
    tag = "builds",
    operation_id = "event_stream",
    params(
        ("id" = String, Path, description = "A build's id, or `latest`"),
        Ask,
        ("Last-Event-ID" = Option<String>, Header, description = "Goes on after the event with this id")
    ),
    responses(
        (
            status = 200, description = "Server-Sent Events; the first is a snapshot",
            body = EventShape,
            content_type = "text/event-stream"
        )
    ),
)]
pub(crate) async fn stream(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    Query(ask): Query<Ask>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let after = last_event_id::<EventSeq>(&headers)?;
    let (seq, rows) = find(&ground, &caller, &id).await?;
    let resumed = after.unwrap_or_else(|| EventSeq::end_of(seq));
    let watch = ground.fleet.reader.watch(rows.build.id, resumed);
    let mut following = Following {
        url: ground.url.clone(),
        build: rows.build.id,
        until: ask.until,
        ground,
        watch,
        ready: VecDeque::new(),
        next_read: Instant::now(),
        over: false,
    };
    following.snapshot(&rows);
    // What is already over, and already told, has nothing more to tell.
    if rows.build.state.is_final() && following.ends() && following.is_told(resumed).await? {
        following.end(rows.build.state);
    }
    let events = stream::unfold(following, Following::next);
    Ok(Sse::new(events).keep_alive(keep_alive()).into_response())
}

struct Following {
    ground: Ground,
    url: String,
    build: BuildId,
    until: Option<Until>,
    watch: Watch,
    ready: VecDeque<Event>,
    next_read: Instant,
    /// Nothing follows what is ready.
    over: bool,
}

impl Following {
    fn ends(&self) -> bool {
        self.until == Some(Until::Finished)
    }

    async fn is_told(&self, after: EventSeq) -> Result<bool, ReadError> {
        Ok(self.ground.fleet.reader.events_since(self.build, after).await?.is_empty())
    }

    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        while self.ready.is_empty() && !self.over {
            if let Err(error) = self.gather().await {
                // The stream ends without `end`: the client comes again and names the last number it saw.
                tracing::warn!(build = %self.build, %error, "event_stream_broken");
                return None;
            }
        }
        let event = self.ready.pop_front()?;
        Some((Ok(event), self))
    }

    /// Waits for a notice and takes what else is there, and what comes until a while after the last reading, then reads once
    /// for all of them: the jobs that they are about, or the whole build where one of them shows it.
    async fn gather(&mut self) -> Result<(), ReadError> {
        let mut notices = vec![self.watch.next().await?];
        while notices.len() < GATHERED_MAX && !notices.last().is_some_and(is_urgent) {
            match timeout_at(self.next_read, self.watch.next()).await {
                Ok(notice) => notices.push(notice?),
                Err(_) => break,
            }
        }
        self.next_read = Instant::now() + PAUSE;
        let Some(rows) = self.rows_for(&notices).await? else {
            // Its retention is over.
            self.over = true;
            return Ok(());
        };
        let attempts = Attempts::of(&rows);
        let mut finished = None;
        for notice in notices {
            match notice {
                Notice::Reset => self.snapshot(&rows),
                Notice::Event(event) => {
                    finished = matches!(event.row.event, BuildEvent::BuildFinished { .. }).then_some(event.seq);
                    self.durable(&event, &rows, &attempts);
                }
                Notice::Progress(progress) => self.volatile(&progress, &rows, &attempts),
            }
        }
        // An end that is followed by something was taken back: the build was run again.
        if let Some(last) = finished.filter(|_| self.ends() && rows.build.state.is_final())
            && self.is_told(last).await?
        {
            self.end(rows.build.state);
        }
        Ok(())
    }

    async fn rows_for(&self, notices: &[Notice]) -> Result<Option<BuildRows>, ReadError> {
        let reader = &self.ground.fleet.reader;
        let mut jobs = BTreeSet::new();
        for notice in notices {
            match job_named(notice) {
                Subject::Whole => return Ok(reader.build(self.build).await?.map(|(_, rows)| rows)),
                Subject::Job(job) => drop(jobs.insert(job)),
                Subject::Build => {}
            }
        }
        reader.some_jobs(self.build, jobs.into_iter().collect()).await
    }

    fn snapshot(&mut self, rows: &BuildRows) {
        let shape = EventShape {
            event: "snapshot",
            at: time(now().wall),
            build_id: self.build,
            state: Standing::Build(rows.build.state),
            job: None,
            build: Some(Build::whole(rows, &self.url)),
            annotation: None,
        };
        self.ready.push_back(Event::default().event(shape.event).data(json(&shape)));
    }

    fn durable(&mut self, stored: &StoredEvent, rows: &BuildRows, attempts: &Attempts<'_>) {
        let (event, state, job) = match &stored.row.event {
            BuildEvent::BuildCreated => ("build_created", Standing::Build(BuildState::Creating), None),
            BuildEvent::BuildChanged { state } => ("build_changed", Standing::Build(*state), None),
            BuildEvent::BuildFinished { state } => ("build_finished", Standing::Build(*state), None),
            BuildEvent::JobChanged { job, state, .. } => ("job_changed", Standing::Job(*state), Some(*job)),
            BuildEvent::JobFinished { job, state, .. } => ("job_finished", Standing::Job(*state), Some(*job)),
            BuildEvent::ReuseDiffers { job, .. } => {
                let state = rows.jobs.iter().find(|row| row.id == *job).map(|row| row.state);
                ("reuse_differs", state.map_or(Standing::Build(rows.build.state), Standing::Job), Some(*job))
            }
            BuildEvent::Annotated { .. } => ("annotation_changed", Standing::Build(rows.build.state), None),
            BuildEvent::AnnotationRemoved { .. } => ("annotation_removed", Standing::Build(rows.build.state), None),
        };
        let finished = matches!(stored.row.event, BuildEvent::BuildFinished { .. });
        let shape = EventShape {
            event,
            at: time(stored.row.at),
            build_id: self.build,
            state,
            job: job.and_then(|id| job_of(id, rows, attempts)),
            build: finished.then(|| Build::whole(rows, &self.url)),
            annotation: annotation_of(&stored.row.event),
        };
        self.ready.push_back(Event::default().event(event).id(stored.seq.to_string()).data(json(&shape)));
    }

    fn volatile(&mut self, progress: &Progress, rows: &BuildRows, attempts: &Attempts<'_>) {
        let Progress::Attempt { job, job_state, .. } = *progress else { return };
        let event = if job_state == JobState::Running { "job_started" } else { "job_progress" };
        let shape = EventShape {
            event,
            at: time(now().wall),
            build_id: self.build,
            state: Standing::Job(job_state),
            job: job_of(job, rows, attempts),
            build: None,
            annotation: None,
        };
        self.ready.push_back(Event::default().event(event).data(json(&shape)));
    }

    fn end(&mut self, state: BuildState) {
        self.ready.push_back(Event::default().event("end").data(json(&serde_json::json!({ "state": state }))));
        self.over = true;
    }
}

/// What has to be read to show a notice.
enum Subject {
    /// The build without its jobs.
    Build,
    Job(JobId),
    /// The build with all of them.
    Whole,
}

const fn job_named(notice: &Notice) -> Subject {
    match notice {
        Notice::Reset => Subject::Whole,
        Notice::Event(stored) => match stored.row.event {
            BuildEvent::BuildFinished { .. } => Subject::Whole,
            BuildEvent::BuildCreated
            | BuildEvent::BuildChanged { .. }
            | BuildEvent::Annotated { .. }
            | BuildEvent::AnnotationRemoved { .. } => Subject::Build,
            BuildEvent::JobChanged { job, .. }
            | BuildEvent::JobFinished { job, .. }
            | BuildEvent::ReuseDiffers { job, .. } => Subject::Job(job),
        },
        Notice::Progress(Progress::Attempt { job, .. }) => Subject::Job(*job),
        Notice::Progress(Progress::Agent { .. }) => Subject::Build,
    }
}

/// What somebody may be waiting for.
const fn is_urgent(notice: &Notice) -> bool {
    matches!(job_named(notice), Subject::Whole)
}

fn annotation_of(event: &BuildEvent) -> Option<AnnotationName> {
    match event {
        BuildEvent::Annotated { annotation, context, job }
        | BuildEvent::AnnotationRemoved { annotation, context, job } => {
            Some(AnnotationName::new(*annotation, context, *job))
        }
        BuildEvent::BuildCreated
        | BuildEvent::BuildChanged { .. }
        | BuildEvent::BuildFinished { .. }
        | BuildEvent::JobChanged { .. }
        | BuildEvent::ReuseDiffers { .. }
        | BuildEvent::JobFinished { .. } => None,
    }
}

fn job_of(id: JobId, rows: &BuildRows, attempts: &Attempts<'_>) -> Option<Job> {
    let row = rows.jobs.iter().find(|job| job.id == id)?;
    Some(Job::of(row, rows, attempts))
}
