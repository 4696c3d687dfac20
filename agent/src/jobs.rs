//! Attempts between the core and their runners: one task each, from preparing to outcome.
//!
//! On disk an attempt is `jobs/<attempt>/`: the runner's own files, `job` (which boot of the machine took the offer, and
//! the offer as it came; durable before anything is prepared) and `starting`, which stands there before anything is
//! started. So a restarted agent never takes a started command for one that was not: after a crash of the agent
//! `starting` tells, after one of the machine the boot does, and every attempt of an earlier boot counts as started.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quinn::Connection;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use windlass_agent_core::{Found, Input};
use windlass_agent_runner::attempts::{self, FoundAttempt};
use windlass_agent_runner::control::Request;
use windlass_agent_runner::docker::Engine;
use windlass_agent_runner::launch::User;
use windlass_agent_runner::{Event, Runner, RunningJob, Slot, Start};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::host::{now, read_private};
use windlass_protocol::identity::AgentIdentity;
use windlass_protocol::job::{Epoch, JobSpec, Outcome, Phase};
use windlass_protocol::limits::JOB_REQUESTS_MAX;
use windlass_protocol::message::{decode, encode};
use windlass_protocol::{AttemptId, Cause, Digest, Instant64};

use crate::bulk::blocking;
use crate::environment;
use crate::home::Home;
use crate::logs::{self, Sending};
use crate::workspace::{Sources, Workspace, start_failed, wipe};

/// The kernel's boot id, as text.
const BOOT_BYTES: usize = 36;

/// What every attempt's task stands on.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) home: Home,
    pub(crate) runner: Runner,
    /// The machine's container engine, if one answered when the agent started.
    pub(crate) engine: Option<Engine>,
    pub(crate) sources: Sources,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) agent: AgentIdentity,
    pub(crate) name: String,
    pub(crate) slot_user_base: u32,
}

/// An attempt that the agent has.
#[derive(Debug)]
struct Job {
    spec: Arc<JobSpec>,
    slot: Slot,
    workspace: Workspace,
    end: watch::Sender<u64>,
    acked: watch::Sender<u64>,
    requests: Option<mpsc::Sender<Request>>,
    killing: Arc<AtomicBool>,
    preparing: Option<AbortHandle>,
    sending: Option<AbortHandle>,
    failed: Arc<AtomicBool>,
}

impl Job {
    fn new(ground: &Ground, spec: Arc<JobSpec>, slot: u32) -> Self {
        Self {
            slot: Slot::new(slot, ground.slot_user_base),
            workspace: Workspace::at(ground.home.workspace_of(spec.attempt)),
            spec,
            end: watch::Sender::new(0),
            acked: watch::Sender::new(0),
            requests: None,
            killing: Arc::new(AtomicBool::new(false)),
            preparing: None,
            sending: None,
            failed: Arc::new(AtomicBool::new(false)),
        }
    }
}

/// All attempts that the agent has.
#[derive(Debug)]
pub(crate) struct Jobs {
    ground: Arc<Ground>,
    table: BTreeMap<AttemptId, Job>,
}

impl Jobs {
    pub(crate) const fn new(ground: Arc<Ground>) -> Self {
        Self { ground, table: BTreeMap::new() }
    }

    /// Removes containers and networks of attempts that this agent no longer has.
    pub(crate) async fn reap(&self) {
        let Some(engine) = &self.ground.engine else { return };
        let keep: Vec<AttemptId> = self.table.keys().copied().collect();
        match engine.reap_leftovers(&keep).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "leftover_containers_removed"),
            Err(error) => tracing::warn!(%error, "leftover_containers_not_removed"),
        }
    }

    /// Takes up what an earlier run of this agent left: attaches to what runs, buries what has no supervisor any more.
    pub(crate) fn adopt(&mut self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for (slot, attempt) in attempts::scan(&self.ground.home.jobs())?.into_iter().enumerate() {
            match self.adopt_one(u32::try_from(slot).unwrap_or(0), &attempt) {
                Ok(Some(one)) => found.push(one),
                Ok(None) => attempts::remove(&attempt.dir)?,
                Err(error) => {
                    // Its directory stays for a person to look at; the coordinator will hear that it is not held.
                    tracing::error!(attempt = %attempt.attempt, %error, "attempt_unreadable");
                }
            }
        }
        Ok(found)
    }

    fn adopt_one(&mut self, slot: u32, found: &FoundAttempt) -> io::Result<Option<Found>> {
        let begun = found.supervised || found.dir.join("starting").exists();
        let Some((boot, spec)) = read_record(&found.dir, begun)? else { return Ok(None) };
        let mut outcome = found.outcome.clone();
        let mut phase = found.phase;
        let started = begun || boot != boot_id()?;
        if started && !found.supervised && outcome.is_none() {
            outcome = Some(attempts::bury(found, "the job's supervisor died while the agent was away")?);
            phase = Phase::Finished;
        } else if started && phase == Phase::Preparing {
            phase = Phase::Running;
        }
        let mut job = Job::new(&self.ground, Arc::new(spec.clone()), slot);
        let spool = attempts::spool(&found.dir);
        let spool_start = if started { spool.first()? } else { 0 };
        let spool_end = outcome.as_ref().map_or(spool_start, |outcome| outcome.log_bytes);
        job.end.send_replace(spool_end);
        job.acked.send_replace(spool_start);
        if found.supervised && outcome.is_none() {
            self.attach(&mut job, found.dir.clone());
        }
        self.table.insert(found.attempt, job);
        Ok(Some(Found {
            job: Box::new(spec),
            epoch: found.epoch,
            phase,
            started_at: found.started_at,
            outcome,
            deadline: None,
            spool_start,
            spool_end,
        }))
    }

    fn attach(&self, job: &mut Job, dir: std::path::PathBuf) {
        let (ground, spec) = (Arc::clone(&self.ground), Arc::clone(&job.spec));
        let watching = Self::watching(job);
        tokio::spawn(async move {
            match RunningJob::attach(spec.attempt, &dir).await {
                Ok(running) => watch_over(&ground, running, watching).await,
                Err(error) => ended(&ground, spec.attempt, failed_outcome(start_failed(&error))).await,
            }
        });
    }

    fn watching(job: &mut Job) -> Watching {
        let (requests, queue) = mpsc::channel(JOB_REQUESTS_MAX);
        job.requests = Some(requests);
        Watching {
            requests: queue,
            acked: job.acked.subscribe(),
            end: job.end.clone(),
            killing: Arc::clone(&job.killing),
            failed: Arc::clone(&job.failed),
        }
    }

    /// Records the offer, then makes its workspace.
    pub(crate) fn prepare(&mut self, slot: u32, epoch: Epoch, spec: Box<JobSpec>) {
        let spec = Arc::new(*spec);
        let mut job = Job::new(&self.ground, Arc::clone(&spec), slot);
        let (ground, workspace, user) = (Arc::clone(&self.ground), job.workspace.clone(), job.slot.user);
        let task = tokio::spawn(async move {
            let recorded = {
                let (ground, spec, workspace) = (Arc::clone(&ground), Arc::clone(&spec), workspace.clone());
                blocking(move || record(&ground, &spec, epoch, &workspace).map_err(|e| start_failed(&e))).await
            };
            let prepared = match recorded {
                Ok(()) => ready(&ground, &spec, epoch, &workspace, user).await,
                Err(cause) => Err(cause),
            };
            match prepared {
                Ok(()) => tell(&ground, Input::Prepared { attempt: spec.attempt }).await,
                Err(cause) => ended(&ground, spec.attempt, failed_outcome(cause)).await,
            }
        });
        job.preparing = Some(task.abort_handle());
        self.table.insert(job.spec.attempt, job);
    }

    /// Starts the command, unless its right has ended meanwhile.
    pub(crate) fn start(&mut self, attempt: AttemptId, epoch: Epoch, start_before: Instant64) {
        let Some(job) = self.table.get_mut(&attempt) else { return };
        job.preparing = None;
        let watching = Self::watching(job);
        let (ground, spec, slot) = (Arc::clone(&self.ground), Arc::clone(&job.spec), job.slot);
        let workspace = job.workspace.clone();
        tokio::spawn(async move {
            if now().mono >= start_before {
                let cause = Cause::new(CauseKind::LeaseLost, "the right to the job ended before its command started");
                return ended(&ground, attempt, failed_outcome(cause)).await;
            }
            match start(&ground, &spec, epoch, slot, &workspace, start_before).await {
                Ok(running) => watch_over(&ground, running, watching).await,
                Err(cause) => ended(&ground, attempt, failed_outcome(cause)).await,
            }
        });
    }

    /// Notes a newer right.
    pub(crate) fn adopt_epoch(&self, attempt: AttemptId, epoch: Epoch) {
        let dir = self.ground.home.jobs().join(attempt.to_string());
        if let Err(error) = attempts::adopt(&dir, epoch) {
            // The next hello will name the older right, and be answered with this one again.
            tracing::warn!(%attempt, %error, "right_not_recorded");
        }
    }

    /// Ends it politely.
    pub(crate) fn cancel(&mut self, attempt: AttemptId, cause: Cause, grace_ms: u64) {
        if let Some(cause) = self.abort_preparing(attempt, cause) {
            self.request(attempt, Request::Cancel { cause, grace_ms });
        } else {
            let (ground, outcome) = (Arc::clone(&self.ground), Outcome { cause: None, ..nothing_ran() });
            tokio::spawn(async move { ended(&ground, attempt, outcome).await });
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self, attempt: AttemptId) {
        let cause = Cause::new(CauseKind::LeaseLost, "the right to the job had ended");
        if let Some(job) = self.table.get(&attempt) {
            job.killing.store(true, Ordering::Release);
        }
        let gone = match self.table.get(&attempt) {
            None => true,
            Some(job) => job.requests.as_ref().is_none_or(mpsc::Sender::is_closed) && job.preparing.is_none(),
        };
        match self.abort_preparing(attempt, cause) {
            Some(cause) if !gone => self.request(attempt, Request::Kill { cause }),
            _ => {
                let ground = Arc::clone(&self.ground);
                tokio::spawn(async move { tell(&ground, Input::RunnerGone { attempt }).await });
            }
        }
    }

    /// Stops the making of a workspace; gives the cause back if there was none to stop.
    fn abort_preparing(&mut self, attempt: AttemptId, cause: Cause) -> Option<Cause> {
        match self.table.get_mut(&attempt).and_then(|job| job.preparing.take()) {
            Some(task) => {
                task.abort();
                None
            }
            None => Some(cause),
        }
    }

    /// Tells a supervisor the lease's end.
    pub(crate) fn renew(&self, attempt: AttemptId, deadline: Instant64) {
        self.request(attempt, Request::Lease { deadline_boot_ms: deadline.0 });
    }

    fn request(&self, attempt: AttemptId, request: Request) {
        let Some(requests) = self.table.get(&attempt).and_then(|job| job.requests.as_ref()) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = requests.try_send(request) {
            tracing::error!(%attempt, "supervisor_stuck");
        }
    }

    /// Sends its log on this connection from here on.
    pub(crate) fn send_log(&mut self, connection: Connection, attempt: AttemptId, epoch: Epoch, from: u64) {
        let dir = self.ground.home.jobs().join(attempt.to_string());
        let Some(job) = self.table.get_mut(&attempt) else { return };
        if let Some(earlier) = job.sending.take() {
            earlier.abort();
        }
        job.acked.send_if_modified(|acked| raise(acked, from));
        let sending = Sending {
            attempt,
            epoch,
            from,
            end: job.end.subscribe(),
            acked: job.acked.subscribe(),
            spool: attempts::spool(&dir),
        };
        job.sending = Some(tokio::spawn(logs::send(connection, sending)).abort_handle());
    }

    /// Ends the stream of its log.
    pub(crate) fn stop_log(&mut self, attempt: AttemptId) {
        if let Some(sending) = self.table.get_mut(&attempt).and_then(|job| job.sending.take()) {
            sending.abort();
        }
    }

    /// Bytes below are durable elsewhere.
    pub(crate) fn trim_log(&self, attempt: AttemptId, below: u64) {
        if let Some(job) = self.table.get(&attempt) {
            job.acked.send_if_modified(|acked| raise(acked, below));
        }
    }

    /// Drops everything of it but a workspace that its build wants kept.
    pub(crate) fn forget(&mut self, attempt: AttemptId) {
        let Some(job) = self.table.remove(&attempt) else { return };
        if let Some(sending) = job.sending {
            sending.abort();
        }
        let dir = self.ground.home.jobs().join(attempt.to_string());
        let keep = job.spec.keep_workspace && job.failed.load(Ordering::Acquire);
        tokio::spawn(async move {
            if !keep {
                wipe(job.workspace.root).await;
            }
            // Last: what is still there after a crash is found again by it.
            let removed = tokio::task::spawn_blocking(move || attempts::remove(&dir)).await;
            if let Ok(Err(error)) = removed {
                tracing::error!(%attempt, %error, "attempt_not_removed");
            }
        });
    }
}

fn raise(value: &mut u64, to: u64) -> bool {
    let higher = to > *value;
    *value = (*value).max(to);
    higher
}

fn record(ground: &Ground, spec: &JobSpec, epoch: Epoch, workspace: &Workspace) -> io::Result<()> {
    let dir = ground.runner.prepare(spec, epoch, &workspace.root)?;
    let mut bytes = boot_id()?.to_vec();
    bytes.extend_from_slice(&encode(spec).map_err(io::Error::other)?);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join("job"))?;
    file.write_all(&bytes)?;
    // One sync: ext4, XFS and btrfs persist the names that lead to a new file with the file. A record that is cut short
    // was never started from, because `starting` comes after it.
    file.sync_all()
}

/// What [`record`] wrote; `None` where it was cut short before anything began.
fn read_record(dir: &Path, begun: bool) -> io::Result<Option<([u8; BOOT_BYTES], JobSpec)>> {
    let record = read_private(&dir.join("job"))?.unwrap_or_default();
    let whole = record.split_first_chunk::<BOOT_BYTES>().and_then(|(boot, offer)| Some((*boot, decode(offer).ok()?)));
    if whole.is_none() && begun {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the record of a started attempt cannot be read"));
    }
    Ok(whole)
}

/// Which boot of the machine this is.
fn boot_id() -> io::Result<[u8; BOOT_BYTES]> {
    let text = fs::read("/proc/sys/kernel/random/boot_id")?;
    text.first_chunk().copied().ok_or_else(|| io::Error::other("the kernel tells no boot id"))
}

/// Makes image and workspace ready.
async fn ready(
    ground: &Ground,
    spec: &JobSpec,
    epoch: Epoch,
    workspace: &Workspace,
    user: Option<User>,
) -> Result<(), Cause> {
    if let Some(image) = &spec.image {
        let engine = ground.engine.as_ref().ok_or_else(no_engine)?;
        engine.ensure_image(image).await.map_err(|error| error.cause())?;
    }
    ground.sources.prepare(spec, epoch, workspace, user).await
}

fn no_engine() -> Cause {
    Cause::new(CauseKind::Internal, "the step needs an image, and no container engine answers on this agent")
}

async fn start(
    ground: &Ground,
    spec: &JobSpec,
    epoch: Epoch,
    slot: Slot,
    workspace: &Workspace,
    start_before: Instant64,
) -> Result<RunningJob, Cause> {
    let dir = ground.home.jobs().join(spec.attempt.to_string());
    mark_starting(&dir).map_err(|e| start_failed(&e))?;
    let env = environment::of(spec, &ground.agent, &ground.name, &workspace.checkout, &workspace.home);
    let start = Start {
        job: spec,
        epoch,
        slot,
        workspace: &workspace.checkout,
        env,
        secrets: Vec::new(),
        preamble: String::new(),
        lease_deadline_boot_ms: start_before.0,
    };
    if spec.image.is_some() {
        let engine = ground.engine.as_ref().ok_or_else(no_engine)?;
        return engine.start(&ground.runner, start).await.map_err(|error| error.cause());
    }
    ground.runner.start(start).await.map_err(|e| start_failed(&e))
}

fn mark_starting(dir: &Path) -> io::Result<()> {
    fs::File::create(dir.join("starting")).map(drop)
}

/// What a job's watcher is given.
#[derive(Debug)]
struct Watching {
    requests: mpsc::Receiver<Request>,
    acked: watch::Receiver<u64>,
    end: watch::Sender<u64>,
    killing: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
}

/// Carries a job's events to the core and requests to its supervisor, until it is over.
async fn watch_over(ground: &Ground, mut running: RunningJob, mut watching: Watching) {
    let attempt = running.attempt();
    let steering = running.steering();
    let outcome = loop {
        tokio::select! {
            biased;
            Some(request) = watching.requests.recv() => {
                // A supervisor that cannot be reached is gone: the next event tells.
                let _ = steering.send(&request).await;
            }
            event = running.next_event() => match event {
                Ok(Event::Started { at, log_bytes }) => {
                    watching.end.send_replace(log_bytes);
                    tell(ground, Input::Started { attempt, at }).await;
                }
                Ok(Event::Output { log_bytes }) => {
                    watching.end.send_replace(log_bytes);
                    // Volatile: a full queue is told the next time, or at the end.
                    let _ = ground.inputs.try_send(Input::SpoolAt { attempt, end: log_bytes });
                }
                Ok(Event::Stuck { processes }) => tracing::error!(%attempt, ?processes, "processes_unkillable"),
                Ok(Event::Finished(outcome)) => break outcome,
                Ok(Event::SupervisorLost) => break bury(ground, attempt).await,
                Err(error) => break failed_outcome(start_failed(&error)),
            },
            Ok(()) = watching.acked.changed() => {
                let offset = *watching.acked.borrow_and_update();
                let _ = steering.acked(offset).await;
            }
        }
    };
    watching.failed.store(!outcome.passed(), Ordering::Release);
    watching.end.send_replace(outcome.log_bytes);
    if watching.killing.load(Ordering::Acquire) {
        tell(ground, Input::RunnerGone { attempt }).await;
    } else {
        tell(ground, Input::SpoolAt { attempt, end: outcome.log_bytes }).await;
        ended(ground, attempt, outcome).await;
    }
}

async fn bury(ground: &Ground, attempt: AttemptId) -> Outcome {
    let jobs = ground.home.jobs();
    let buried = tokio::task::spawn_blocking(move || {
        let found = attempts::scan(&jobs)?.into_iter().find(|found| found.attempt == attempt);
        let found = found.ok_or_else(|| io::Error::other("its directory is gone"))?;
        attempts::bury(&found, "the job's supervisor died")
    });
    match buried.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => failed_outcome(start_failed(&error)),
        Err(error) => failed_outcome(start_failed(&error)),
    }
}

async fn ended(ground: &Ground, attempt: AttemptId, outcome: Outcome) {
    tell(ground, Input::Ended { attempt, outcome: Box::new(outcome) }).await;
}

async fn tell(ground: &Ground, input: Input) {
    // The loop is gone only when the agent leaves; what is on disk tells the next one.
    let _ = ground.inputs.send(input).await;
}

fn failed_outcome(cause: Cause) -> Outcome {
    Outcome { cause: Some(cause), ..nothing_ran() }
}

fn nothing_ran() -> Outcome {
    Outcome {
        exit_status: None,
        signal: None,
        cause: None,
        started_at: None,
        finished_at: now().wall,
        log_bytes: 0,
        log_digest: Digest::of(b""),
        log_truncated: false,
        peak_memory_bytes: None,
    }
}
