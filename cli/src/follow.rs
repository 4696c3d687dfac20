//! Following a build: its events and the logs of its attempts, brought into one order.
//!
//! A job's start is told before its log, its end after the end of its log, the build's end last; and of a job that waited for
//! others nothing is told before their ends are, although it may run while their logs are still on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use windlass_protocol::limits::{CLI_LOGS_MAX, CLI_NEWS_MAX};

use crate::client::shape::{self, Attempt, Build, Job, Piece};
use crate::client::{Client, ClientError, Place, Stream};
use crate::lines::Lines;

/// Who is told.
pub(crate) trait Show {
    /// Something changed; `jobs` are all of the build, as far as they are known.
    fn changed(&mut self, jobs: &mut dyn Iterator<Item = &Job>);
    /// An attempt at a job has started.
    fn started(&mut self, job: &Job, raw: &Value, attempt: &Attempt);
    /// An attempt wrote these bytes, which were never told before.
    fn log(&mut self, job: &Job, attempt: &Attempt, wrote: Wrote<'_>);
    /// An attempt's log is whole.
    fn log_ended(&mut self, job: &Job, attempt: &Attempt);
    /// A job has ended, and its logs are told.
    fn finished(&mut self, job: &Job, raw: &Value);
}

/// A piece of a log, without what was told before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrote<'a> {
    /// Where its bytes begin.
    pub(crate) offset: u64,
    /// When they were written.
    pub(crate) at: &'a str,
    /// The bytes; a character may be cut.
    pub(crate) bytes: &'a [u8],
}

/// A build as it was heard of so far.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    jobs: Vec<Followed>,
    by_id: BTreeMap<String, usize>,
    by_attempt: BTreeMap<String, usize>,
    /// Jobs that nothing is told of yet: what they waited for has ended, and its end is still to be told.
    held: BTreeSet<usize>,
    open_logs: usize,
    ended: bool,
}

#[derive(Debug)]
struct Followed {
    job: Job,
    raw: Value,
    logs: BTreeMap<String, Lines>,
    open_logs: usize,
    started: BTreeSet<String>,
    finish_told: bool,
}

impl Follow {
    /// Takes a whole build; answers the attempts whose logs are to be followed from now on.
    pub(crate) fn build(&mut self, build: &Value, show: &mut dyn Show) -> Result<Vec<String>, ClientError> {
        let mut new = Vec::new();
        for job in build.get("jobs").and_then(Value::as_array).into_iter().flatten() {
            new.extend(self.take(job.clone(), show)?);
        }
        show.changed(&mut self.jobs.iter().map(|followed| &followed.job));
        Ok(new)
    }

    /// Takes a job; answers the attempts whose logs are to be followed from now on.
    pub(crate) fn job(&mut self, job: &Value, show: &mut dyn Show) -> Result<Vec<String>, ClientError> {
        let new = self.take(job.clone(), show)?;
        show.changed(&mut self.jobs.iter().map(|followed| &followed.job));
        Ok(new)
    }

    fn take(&mut self, raw: Value, show: &mut dyn Show) -> Result<Vec<String>, ClientError> {
        let job: Job = shape::read(&raw)?;
        let index = match self.by_id.get(&job.id) {
            Some(index) => *index,
            None => {
                self.by_id.insert(job.id.clone(), self.jobs.len());
                self.jobs.push(Followed {
                    job: Job::default(),
                    raw: Value::Null,
                    logs: BTreeMap::new(),
                    open_logs: 0,
                    started: BTreeSet::new(),
                    finish_told: false,
                });
                self.jobs.len() - 1
            }
        };
        if let Some(followed) = self.jobs.get_mut(index) {
            (followed.job, followed.raw) = (job, raw);
        }
        Ok(self.tell(index, show))
    }

    /// Tells what is new of a job, and of those that were held back for it; answers the attempts whose logs are to be followed
    /// from now on.
    fn tell(&mut self, index: usize, show: &mut dyn Show) -> Vec<String> {
        let (mut new, mut next) = (Vec::new(), vec![index]);
        while let Some(index) = next.pop() {
            if self.is_held(index) {
                self.held.insert(index);
                continue;
            }
            self.held.remove(&index);
            let Some(followed) = self.jobs.get_mut(index) else { continue };
            let fresh = followed.begin(show);
            self.open_logs += fresh.len();
            self.by_attempt.extend(fresh.iter().map(|attempt| (attempt.clone(), index)));
            new.extend(fresh);
            // A retry that takes an ended job back holds nobody either.
            if followed.settle(show) || !followed.job.is_final() {
                next.extend(self.held.iter().rev());
            }
        }
        new
    }

    /// Whether a job that this one waited for has ended, and its end is not told.
    fn is_held(&self, index: usize) -> bool {
        let on = self.jobs.get(index).into_iter().flat_map(|followed| &followed.job.depends_on);
        on.filter_map(|id| self.jobs.get(*self.by_id.get(id)?)).any(|on| on.job.is_final() && !on.finish_told)
    }

    /// Takes a piece of a log.
    pub(crate) fn log(&mut self, attempt: &str, piece: &Piece, show: &mut dyn Show) {
        let Some(followed) = self.by_attempt.get(attempt).and_then(|index| self.jobs.get_mut(*index)) else { return };
        followed.start(attempt, show);
        let bytes = piece.bytes();
        let Some(lines) = followed.logs.get_mut(attempt) else { return };
        let fresh = lines.fresh(piece.offset, &bytes);
        if fresh.is_empty() {
            return;
        }
        let offset = piece.offset + (bytes.len() - fresh.len()) as u64;
        if let Some(attempt) = followed.job.attempts.iter().find(|known| known.id == attempt) {
            show.log(&followed.job, attempt, Wrote { offset, at: &piece.at, bytes: fresh });
        }
    }

    /// A log is whole; answers the attempts whose logs are to be followed from now on.
    pub(crate) fn log_ended(&mut self, attempt: &str, show: &mut dyn Show) -> Vec<String> {
        let Some(index) = self.by_attempt.get(attempt).copied() else { return Vec::new() };
        let Some(followed) = self.jobs.get_mut(index) else { return Vec::new() };
        self.open_logs = self.open_logs.saturating_sub(1);
        followed.open_logs = followed.open_logs.saturating_sub(1);
        if let Some(attempt) = followed.job.attempts.iter().find(|known| known.id == attempt) {
            show.log_ended(&followed.job, attempt);
        }
        self.tell(index, show)
    }

    /// Whether nothing of the build can run until somebody opens a gate.
    pub(crate) fn waits_at_a_gate(&self) -> bool {
        let mut blocked = false;
        for job in self.jobs.iter().map(|followed| &followed.job).filter(|job| !job.is_final()) {
            blocked |= job.state == "blocked";
            if !matches!(job.state.as_str(), "blocked" | "waiting") {
                return false;
            }
        }
        blocked && !self.ended
    }

    /// A job that waits for an agent while nothing of the build is with one.
    pub(crate) fn waits_for_an_agent(&self) -> Option<&Job> {
        let jobs = || self.jobs.iter().map(|followed| &followed.job).filter(|job| job.is_command() && !job.is_final());
        let waits = |job: &&Job| job.state == "scheduled";
        let is_still =
            !self.ended && jobs().all(|job| waits(&job) || matches!(job.state.as_str(), "waiting" | "blocked"));
        jobs().find(waits).filter(|_| is_still)
    }

    /// The build has ended: no more events.
    pub(crate) const fn end(&mut self) {
        self.ended = true;
    }

    /// Whether everything was told.
    pub(crate) fn is_over(&self) -> bool {
        self.ended && self.open_logs == 0 && self.held.is_empty()
    }
}

impl Followed {
    /// Tells a start once.
    fn start(&mut self, attempt: &str, show: &mut dyn Show) {
        if self.started.contains(attempt) {
            return;
        }
        if let Some(found) = self.job.attempts.iter().find(|known| known.id == attempt) {
            self.started.insert(attempt.to_owned());
            show.started(&self.job, &self.raw, found);
        }
    }

    /// Tells the starts of attempts; answers those whose logs are to be followed from now on.
    fn begin(&mut self, show: &mut dyn Show) -> Vec<String> {
        let mut new = Vec::new();
        for attempt in self.job.attempts.clone() {
            if self.job.is_command() && !self.logs.contains_key(&attempt.id) {
                self.logs.insert(attempt.id.clone(), Lines::default());
                self.open_logs += 1;
                new.push(attempt.id.clone());
            }
            if attempt.started_at.is_some() || attempt.state == "running" {
                self.start(&attempt.id, show);
            }
        }
        new
    }

    /// Tells an end once, when the logs are told, and says whether it did.
    fn settle(&mut self, show: &mut dyn Show) -> bool {
        if !self.job.is_final() {
            // A retry takes an ended job back.
            self.finish_told = false;
        } else if self.open_logs == 0 && !self.finish_told {
            self.finish_told = true;
            show.finished(&self.job, &self.raw);
            return true;
        }
        false
    }
}

/// What comes in from the streams.
#[derive(Debug)]
enum News {
    Build(Value),
    Job(Value),
    Ended,
    Log(String, Piece),
    LogEnded(String),
    Failed(ClientError),
}

/// A build that is followed over the network.
#[derive(Debug)]
pub(crate) struct Watch {
    client: Client,
    follow: Follow,
    news: mpsc::Receiver<News>,
    send: mpsc::Sender<News>,
    room: Arc<Semaphore>,
}

impl Watch {
    /// Begins to follow a build.
    pub(crate) fn new(client: &Client, build: &str) -> Self {
        let (send, news) = mpsc::channel(CLI_NEWS_MAX);
        let stream = client.stream(Place::Events(format!("/builds/{build}/events?until=finished")));
        tokio::spawn(events(stream, send.clone()));
        let room = Arc::new(Semaphore::new(CLI_LOGS_MAX));
        Self { client: client.clone(), follow: Follow::default(), news, send, room }
    }

    /// See [`Follow::waits_at_a_gate`].
    pub(crate) fn waits_at_a_gate(&self) -> bool {
        self.follow.waits_at_a_gate()
    }

    /// See [`Follow::waits_for_an_agent`].
    pub(crate) fn waits_for_an_agent(&self) -> Option<&Job> {
        self.follow.waits_for_an_agent()
    }

    /// Tells the next news; `false` once everything was told. May be dropped and called again.
    pub(crate) async fn step(&mut self, show: &mut dyn Show) -> Result<bool, ClientError> {
        if self.follow.is_over() {
            return Ok(false);
        }
        // A sender of ours is kept, so that there is always something to come.
        let Some(news) = self.news.recv().await else { return Ok(false) };
        let new = match news {
            News::Build(build) => self.follow.build(&build, show)?,
            News::Job(job) => self.follow.job(&job, show)?,
            News::Ended => {
                self.follow.end();
                Vec::new()
            }
            News::Log(attempt, piece) => {
                self.follow.log(&attempt, &piece, show);
                Vec::new()
            }
            News::LogEnded(attempt) => self.follow.log_ended(&attempt, show),
            News::Failed(error) => return Err(error),
        };
        for attempt in new {
            tokio::spawn(log(self.client.clone(), attempt, Arc::clone(&self.room), self.send.clone()));
        }
        Ok(true)
    }
}

/// Brings a build's events. Whoever listens no more ends it.
async fn events(mut stream: Stream, news: mpsc::Sender<News>) {
    loop {
        let event = match stream.next().await {
            Ok(event) => event,
            Err(error) => {
                let _gone = news.send(News::Failed(error)).await;
                return;
            }
        };
        if event.name == "end" {
            let _gone = news.send(News::Ended).await;
            return;
        }
        let told = match serde_json::from_str(&event.data).map(sort) {
            Ok(Some(told)) => told,
            Ok(None) => continue,
            Err(source) => News::Failed(ClientError::Garbled { url: "the server".to_owned(), source }),
        };
        if news.send(told).await.is_err() {
            return;
        }
    }
}

/// What an event's data is about: a whole build, a job, or nothing that is shown.
fn sort(mut data: Value) -> Option<News> {
    if data.get("jobs").is_some() {
        return Some(News::Build(data));
    }
    if data.get("attempts").is_some() {
        return Some(News::Job(data));
    }
    let job = data.get_mut("job").filter(|job| job.get("attempts").is_some()).map(Value::take);
    let build = data.get_mut("build").filter(|build| build.get("jobs").is_some()).map(Value::take);
    job.map(News::Job).or_else(|| build.map(News::Build))
}

/// Brings an attempt's log.
async fn log(client: Client, attempt: String, room: Arc<Semaphore>, news: mpsc::Sender<News>) {
    // It is never closed.
    let Ok(_permit) = room.acquire_owned().await else { return };
    let mut stream = log_stream(&client, &attempt, 0);
    loop {
        let told = match next_piece(&mut stream).await {
            Ok(Some(piece)) => News::Log(attempt.clone(), piece),
            Ok(None) => News::LogEnded(attempt.clone()),
            Err(error) => News::Failed(error),
        };
        let last = !matches!(told, News::Log(..));
        if news.send(told).await.is_err() || last {
            return;
        }
    }
}

/// Follows one log from an offset on.
pub(crate) fn log_stream(client: &Client, attempt: &str, offset: u64) -> Stream {
    client.stream(Place::Log { path: format!("/attempts/{attempt}/log/stream"), offset })
}

/// The next piece of a log; `None` at its end.
pub(crate) async fn next_piece(stream: &mut Stream) -> Result<Option<Piece>, ClientError> {
    loop {
        let event = match stream.next().await {
            Ok(event) => event,
            // An attempt that ended before it wrote anything has no log.
            Err(ClientError::Problem(problem)) if problem.status == 404 => return Ok(None),
            Err(error) => return Err(error),
        };
        match event.name.as_str() {
            "end" => return Ok(None),
            name => {
                let piece: Piece = serde_json::from_str(&event.data)
                    .map_err(|source| ClientError::Garbled { url: "the server".to_owned(), source })?;
                if name == "reset" {
                    stream.rewind(piece.offset);
                } else if piece.length > 0 {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// Waits for a build's end without showing anything.
pub(crate) async fn wait_for_end(client: &Client, build: &str) -> Result<(), ClientError> {
    let mut stream = client.stream(Place::Events(format!("/builds/{build}/events?until=finished")));
    while stream.next().await?.name != "end" {}
    Ok(())
}

/// A build as the server has it now.
pub(crate) async fn fetch(client: &Client, build: &str) -> Result<(Build, Value), ClientError> {
    let raw = client.get(&format!("/builds/{build}")).await?;
    Ok((shape::read(&raw)?, raw))
}

#[cfg(test)]
mod tests;
