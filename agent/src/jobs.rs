//! Attempts between the core and their runners: one task each, from preparing to outcome.
//!
//! On disk an attempt is `jobs/<attempt>/`, the runner's own. It is there before anything is prepared, and holds a note of
//! ours: which run of the machine took the offer, in which place, and the offer as it came. None of it is synced: after
//! the death of the agent all of it is there, and the control socket, which the spawner makes before it forks, tells what
//! may have started. After one of the machine what is left of an attempt counts as started, and so does what is lost: the
//! hello names the boot (docs/design/014).

mod follow;
mod preamble;
mod record;
mod steering;
mod unreadable;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::Connection;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use windlass_agent_core::{Found, Input, Terms};
use windlass_agent_runner::attempts::{self, FoundAttempt, Unreadable};
use windlass_agent_runner::docker::{ContainerError, Engine};
use windlass_agent_runner::spawner::LaunchError;
use windlass_agent_runner::spool::SpoolReader;
use windlass_agent_runner::{Runner, RunningJob, Slot, Start, StartError};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::host::now;
use windlass_protocol::identity::AgentIdentity;
use windlass_protocol::job::{Epoch, JobSpec, Phase, Source};
use windlass_protocol::{AttemptId, Cause, Instant64};

use self::follow::{Watching, attach_to, ended, explained, failed_outcome, nothing_ran, tell, watch_over};
use self::record::{Record, record};
use self::steering::{Steered, Wishes};
use self::unreadable::Ending;
use crate::environment;
use crate::home::Home;
use crate::host::BootId;
use crate::job_api::{Account, Answers, Changes, Door, JobApi, Masking, Party};
use crate::kept::Kept;
use crate::leftovers::{Leftovers, strangers};
use crate::logs::{self, Sending};
use crate::phases::{Course, Rules};
use crate::preparing::{Busy, Preparing, Wish};
use crate::right::Right;
use crate::secrets::{self, Secrets};
use crate::workspace::{Filled, Sources, Spares, Workspace, io_cause, start_failed, wipe};

/// How long the commands of a job wait for its secrets after a restart of its agent; they wait for their agent a minute.
const SECRETS_AGAIN: Duration = Duration::from_secs(20);

/// What every attempt's task stands on.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) home: Home,
    pub(crate) runner: Runner,
    /// The machine's container engine, which may be there or not.
    pub(crate) engine: Engine,
    pub(crate) leftovers: Leftovers,
    pub(crate) sources: Sources,
    pub(crate) spares: Spares,
    /// Hooks and plugins.
    pub(crate) rules: Rules,
    /// What jobs ask.
    pub(crate) api: JobApi,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) agent: AgentIdentity,
    pub(crate) name: String,
    /// Which run of the machine this is.
    pub(crate) boot: BootId,
    pub(crate) slot_user_base: u32,
}

/// What was found out while a job was prepared.
#[derive(Debug, Default)]
struct Prepared {
    course: Course,
    /// What its bootstrap is to check out, and what its log is to begin with.
    filled: Filled,
}

/// An attempt that the agent has.
#[derive(Debug)]
struct Job {
    spec: Arc<JobSpec>,
    slot: Slot,
    right: Arc<Right>,
    secrets: Secrets,
    workspace: Workspace,
    end: watch::Sender<u64>,
    acked: watch::Sender<u64>,
    /// What its supervisor is to do; there from the moment that there may be one.
    wishes: Option<watch::Sender<Wishes>>,
    killing: Arc<AtomicBool>,
    preparing: Option<Arc<Preparing>>,
    prepared: Arc<OnceLock<Prepared>>,
    sending: Option<AbortHandle>,
    failed: Arc<AtomicBool>,
}

impl Job {
    fn new(ground: &Ground, spec: Arc<JobSpec>, place: u32, right: Right) -> Self {
        Self {
            right: Arc::new(right),
            secrets: Secrets::default(),
            slot: Slot::new(place, ground.slot_user_base),
            workspace: Workspace::at(ground.home.workspace_of(spec.attempt)),
            spec,
            end: watch::Sender::new(0),
            acked: watch::Sender::new(0),
            wishes: None,
            killing: Arc::new(AtomicBool::new(false)),
            preparing: None,
            prepared: Arc::default(),
            sending: None,
            failed: Arc::new(AtomicBool::new(false)),
        }
    }
}

/// What an agent that starts takes up.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// For its core.
    pub(crate) found: Vec<Found>,
    /// Of some attempt nobody can say by which right it was held: what this agent does not name may have started.
    pub(crate) memory_lost: bool,
}

/// All attempts that the agent has.
#[derive(Debug)]
pub(crate) struct Jobs {
    ground: Arc<Ground>,
    table: BTreeMap<AttemptId, Job>,
    /// Those of an earlier run of this agent that cannot be read.
    unreadable: BTreeMap<AttemptId, Ending>,
    /// Being wiped, with the place that each still takes.
    leaving: BTreeMap<AttemptId, (u32, JoinHandle<()>)>,
}

impl Jobs {
    pub(crate) const fn new(ground: Arc<Ground>) -> Self {
        Self { ground, table: BTreeMap::new(), unreadable: BTreeMap::new(), leaving: BTreeMap::new() }
    }

    /// From here on removes containers and networks of attempts that this agent no longer has.
    pub(crate) fn remove_leftovers(&self) -> io::Result<()> {
        let jobs = self.ground.home.jobs();
        let strangers = strangers(&jobs, |attempt| self.table.contains_key(&attempt))?;
        let ground = Arc::clone(&self.ground);
        tokio::spawn(async move { ground.leftovers.remove(&ground.engine, jobs, strangers).await });
        Ok(())
    }

    /// Takes up what an earlier run of this agent left: attaches to what runs, buries what has no supervisor any more, and
    /// holds what cannot be read until it has ended it. One attempt's files keep nobody from the others.
    pub(crate) fn adopt(&mut self) -> io::Result<Adopted> {
        let attempts::Scan { found: readable, mut unreadable } = attempts::scan(&self.ground.home.jobs())?;
        let mut found = Vec::new();
        for attempt in readable {
            match self.adopt_one(&attempt) {
                Ok(Some(one)) => found.push(one),
                Ok(None) => {
                    if let Err(error) = attempts::remove(&attempt.dir) {
                        // Nothing of it runs. The next start tries again.
                        tracing::error!(attempt = %attempt.attempt, %error, "attempt_not_removed");
                    }
                }
                Err(error) => unreadable.push(Unreadable::from((attempt, &error))),
            }
        }
        let mut memory_lost = false;
        for attempt in unreadable {
            match self.hold(attempt) {
                Some(one) => found.push(one),
                None => memory_lost = true,
            }
        }
        self.ground.api.tidy(|name| name.parse().is_ok_and(|attempt| self.table.contains_key(&attempt)))?;
        Ok(Adopted { found, memory_lost })
    }

    /// Holds an attempt of which nothing can be read but its right, until the core has had it ended. One whose right is not
    /// known either cannot be told of: it is ended at once, and `None`.
    fn hold(&mut self, found: Unreadable) -> Option<Found> {
        let (attempt, epoch, started_at) = (found.attempt, found.epoch, found.started_at);
        tracing::error!(%attempt, epoch = epoch.map(|epoch| epoch.0), error = found.error, "attempt_unreadable");
        let mut ending = Ending::new(found);
        if epoch.is_none() {
            ending.begin(&self.ground);
        }
        self.unreadable.insert(attempt, ending);
        Some(Found {
            attempt,
            terms: None,
            epoch: epoch?,
            phase: Phase::Running,
            started_at: Some(started_at),
            outcome: None,
            deadline: None,
            spool_start: 0,
            spool_end: 0,
        })
    }

    fn adopt_one(&mut self, found: &FoundAttempt) -> io::Result<Option<Found>> {
        let Some(Record { boot, place, spec }) = Record::parse(&found.note, found.launched)? else { return Ok(None) };
        let outcome = found.outcome.clone().map(|outcome| explained(&found.dir, outcome));
        if !found.launched && boot == self.ground.boot && attempts::discard_unlaunched(&found.dir)? {
            // The agent died before the launch: the command has not started and never will. The same attempt may be
            // offered again, once its workspace is gone.
            let leaving = tokio::spawn(wipe(self.ground.home.workspace_of(found.attempt)));
            self.leaving.insert(found.attempt, (place, leaving));
            return Ok(Some(never_started(&spec, found.epoch)));
        }
        let phase = match found.phase {
            Phase::Preparing => Phase::Running,
            phase => phase,
        };
        let mut job = Job::new(&self.ground, Arc::new(spec.clone()), place, Right::new(found.epoch, true));
        let mut spool = attempts::spool(&found.dir);
        let spool_start = spool.first()?;
        let spool_end = match &outcome {
            Some(outcome) => outcome.log_bytes,
            None => end_of(&mut spool, spool_start)?,
        };
        job.end.send_replace(spool_end);
        job.acked.send_replace(spool_start);
        job.failed.store(outcome.as_ref().is_some_and(|outcome| !outcome.passed()), Ordering::Release);
        if outcome.is_none() {
            // Where its supervisor is gone, following it finds that out, and buries it.
            self.attach(&mut job, found.dir.clone());
        }
        self.table.insert(found.attempt, job);
        Ok(Some(Found {
            attempt: found.attempt,
            terms: Some(Terms::from(&spec)),
            epoch: found.epoch,
            phase,
            started_at: found.started_at,
            outcome,
            deadline: None,
            spool_start,
            spool_end,
        }))
    }

    /// Where a job runs and as whom. The core's word counts unless an attempt that is still here had that user: one that
    /// was adopted under the number of an earlier run, or one whose files wait to be wiped.
    fn place(&mut self, wanted: u32) -> u32 {
        self.leaving.retain(|_, (_, wiping)| !wiping.is_finished());
        let taken: BTreeSet<u32> = self
            .table
            .values()
            .map(|job| job.slot.index)
            .chain(self.leaving.values().map(|(place, _)| *place))
            .collect();
        std::iter::once(wanted).chain(0..).find(|place| !taken.contains(place)).unwrap_or(wanted)
    }

    fn attach(&self, job: &mut Job, dir: std::path::PathBuf) {
        let (ground, spec, workspace) = (Arc::clone(&self.ground), Arc::clone(&job.spec), job.workspace.clone());
        let (watching, masking) = Self::watching(job);
        let (right, slot, secrets) = (Arc::clone(&job.right), job.slot, job.secrets.clone());
        tokio::spawn(async move {
            again(&ground, &spec, &right, &secrets).await;
            let mut env = variables(&ground, &spec, right.epoch(), slot, &workspace);
            secrets.set(&mut env);
            let door = match open_door(&ground, &spec, right, slot, (masking, secrets), &env).await {
                Ok(door) => Some(door),
                Err(error) => {
                    // Its commands wait and then fail; the job goes on.
                    tracing::error!(attempt = %spec.attempt, %error, "door_not_opened");
                    None
                }
            };
            let running = attach_to(spec.attempt, &dir).await;
            watch_over(&ground, running, watching).await;
            if let Some(door) = door {
                door.close();
            }
        });
    }

    fn watching(job: &mut Job) -> (Watching, Masking) {
        // One at a time, and beside what steers the job: that waits for nothing that the job wants.
        let (masks, queue) = mpsc::channel(1);
        let answers = Answers::default();
        let masking = Masking::new(masks, answers.clone());
        let (wishes, steered) = watch::channel(Wishes::default());
        job.wishes = Some(wishes);
        let watching = Watching {
            steered: Steered::new(steered),
            masks: queue,
            answers,
            acked: job.acked.subscribe(),
            end: job.end.clone(),
            killing: Arc::clone(&job.killing),
            failed: Arc::clone(&job.failed),
        };
        (watching, masking)
    }

    /// Records the offer, then makes its workspace.
    pub(crate) fn prepare(&mut self, slot: u32, epoch: Epoch, spec: Box<JobSpec>) {
        let spec = Arc::new(*spec);
        let place = self.place(slot);
        let mut job = Job::new(&self.ground, Arc::clone(&spec), place, Right::new(epoch, false));
        let earlier = self.leaving.remove(&spec.attempt).map(|(_, wiping)| wiping);
        let preparing = Arc::new(Preparing::new());
        job.preparing = Some(Arc::clone(&preparing));
        let (ground, right, workspace, slot) =
            (Arc::clone(&self.ground), Arc::clone(&job.right), job.workspace.clone(), job.slot);
        let secrets = job.secrets.clone();
        let found = Arc::clone(&job.prepared);
        self.table.insert(spec.attempt, job);
        tokio::spawn(async move {
            if let Some(earlier) = earlier {
                // The same attempt, given up here before: its files have to be gone first. A panic there is no news here.
                let _ = earlier.await;
            }
            let busy = Busy::default();
            let prepared = tokio::select! {
                prepared = ready(&ground, &spec, &right, (&workspace, &secrets), slot, &busy) => {
                    prepared.map(|prepared| drop(found.set(prepared)))
                }
                () = preparing.wanted() => Ok(()),
            };
            busy.rest().await;
            let attempt = spec.attempt;
            match (preparing.done(), prepared) {
                (Some(Wish::Kill), _) => tell(&ground, Input::RunnerGone { attempt }).await,
                (Some(Wish::Cancel), _) => ended(&ground, attempt, nothing_ran()).await,
                (None, Ok(())) => tell(&ground, Input::Prepared { attempt }).await,
                (None, Err(cause)) => ended(&ground, attempt, failed_outcome(cause)).await,
            }
        });
    }

    /// Starts the command, unless its right has ended meanwhile.
    pub(crate) fn start(&mut self, attempt: AttemptId, epoch: Epoch, start_before: Instant64) {
        let Some(job) = self.table.get_mut(&attempt) else { return };
        job.preparing = None;
        let (watching, masking) = Self::watching(job);
        let (ground, spec, slot) = (Arc::clone(&self.ground), Arc::clone(&job.spec), job.slot);
        let (workspace, right) = (job.workspace.clone(), Arc::clone(&job.right));
        let (secrets, prepared) = (job.secrets.clone(), Arc::clone(&job.prepared));
        tokio::spawn(async move {
            if now().mono >= start_before {
                let cause = Cause::new(CauseKind::LeaseLost, "the right to the job ended before its command started");
                return ended(&ground, attempt, failed_outcome(cause)).await;
            }
            let mut env = variables(&ground, &spec, epoch, slot, &workspace);
            secrets.set(&mut env);
            let masked = secrets.values();
            let door = match open_door(&ground, &spec, right, slot, (masking, secrets), &env).await {
                Ok(door) => door,
                Err(error) => {
                    let cause = io_cause(&error, &ground.home.work());
                    return ended(&ground, attempt, failed_outcome(cause)).await;
                }
            };
            let prepared = prepared.get_or_init(Prepared::default);
            let place = Place { epoch, slot, workspace: &workspace, start_before };
            match start(&ground, &spec, prepared, &place, (env, masked)).await {
                Ok(running) => watch_over(&ground, running, watching).await,
                Err(cause) => ended(&ground, attempt, failed_outcome(cause)).await,
            }
            door.close();
        });
    }

    /// Notes a newer right.
    pub(crate) fn adopt_epoch(&self, attempt: AttemptId, epoch: Epoch) {
        let Some(job) = self.table.get(&attempt) else { return };
        job.right.raise(epoch);
        let (right, dir) = (Arc::clone(&job.right), self.ground.home.jobs().join(attempt.to_string()));
        tokio::task::spawn_blocking(move || {
            if let Err(error) = right.write(|epoch| attempts::adopt(&dir, epoch)) {
                // The next hello will name the older right, and be answered with this one again.
                tracing::warn!(%attempt, %error, "right_not_recorded");
            }
        });
    }

    /// Ends it politely.
    pub(crate) fn cancel(&mut self, attempt: AttemptId, cause: Cause, grace_ms: u64) {
        match self.table.get(&attempt) {
            Some(Job { wishes: Some(wishes), .. }) => wishes.send_modify(|wishes| wishes.cancel(cause, grace_ms)),
            Some(job) if job.preparing.as_ref().is_some_and(|preparing| preparing.stop(Wish::Cancel)) => {}
            _ => {
                let ground = Arc::clone(&self.ground);
                tokio::spawn(async move { ended(&ground, attempt, nothing_ran()).await });
            }
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self, attempt: AttemptId) {
        if let Some(ending) = self.unreadable.get_mut(&attempt) {
            return ending.begin(&self.ground);
        }
        let cause = Cause::new(CauseKind::LeaseLost, "the right to the job had ended");
        if let Some(job) = self.table.get(&attempt) {
            job.killing.store(true, Ordering::Release);
        }
        match self.table.get(&attempt) {
            Some(Job { wishes: Some(wishes), .. }) if !wishes.is_closed() => {
                wishes.send_modify(|wishes| wishes.kill(cause));
            }
            Some(job) if job.preparing.as_ref().is_some_and(|preparing| preparing.stop(Wish::Kill)) => {}
            _ => {
                let ground = Arc::clone(&self.ground);
                tokio::spawn(async move { tell(&ground, Input::RunnerGone { attempt }).await });
            }
        }
    }

    /// Attempts that are being killed and whose end was not told yet.
    pub(crate) fn killing(&self) -> BTreeSet<AttemptId> {
        let killing = self.table.iter().filter(|(_, job)| {
            let followed = job.wishes.as_ref().is_some_and(|wishes| !wishes.is_closed());
            let prepared = job.preparing.as_ref().is_some_and(|preparing| !preparing.is_done());
            job.killing.load(Ordering::Acquire) && (followed || prepared)
        });
        let unreadable = self.unreadable.iter().filter(|(_, ending)| ending.goes_on());
        killing.map(|(attempt, _)| *attempt).chain(unreadable.map(|(attempt, _)| *attempt)).collect()
    }

    /// Tells a supervisor the lease's end.
    pub(crate) fn renew(&self, attempt: AttemptId, deadline: Instant64) {
        if let Some(Job { wishes: Some(wishes), .. }) = self.table.get(&attempt) {
            wishes.send_modify(|wishes| wishes.renew(deadline));
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
        if let Some(ending) = self.unreadable.remove(&attempt) {
            return ending.put_aside(&self.ground);
        }
        let Some(mut job) = self.table.remove(&attempt) else { return };
        if let Some(sending) = job.sending.take() {
            sending.abort();
        }
        let wanted = job.spec.keep_workspace && job.failed.load(Ordering::Acquire);
        let place = job.slot.index;
        let ground = Arc::clone(&self.ground);
        let leaving = tokio::task::spawn_blocking(move || {
            if wanted {
                let kept = keep(&ground, &job);
                if let Err(error) = kept {
                    tracing::warn!(%attempt, %error, "kept_workspace_not_described");
                }
            } else {
                ground.spares.put(job.slot, &job.spec.namespace, &job.workspace);
            }
            // Last: what is still there after a crash is found again by it.
            if let Err(error) = ground.runner.forget(attempt) {
                tracing::error!(%attempt, %error, "attempt_not_removed");
            }
            if job.spec.image.is_some() {
                // Its supervisor removed its container, unless the engine was away.
                ground.leftovers.suspected();
            }
        });
        self.leaving.insert(attempt, (place, leaving));
    }
}

/// An attempt whose command did not start before the agent's death, and never will.
fn never_started(spec: &JobSpec, epoch: Epoch) -> Found {
    Found {
        attempt: spec.attempt,
        terms: Some(Terms::from(spec)),
        epoch,
        phase: Phase::Preparing,
        started_at: None,
        outcome: None,
        deadline: None,
        spool_start: 0,
        spool_end: 0,
    }
}

/// Keeps a workspace, with what its job saw.
fn keep(ground: &Ground, job: &Job) -> io::Result<()> {
    keep_from_jobs(&job.workspace.root);
    let (checkout, home) = (&job.workspace.checkout, &job.workspace.home);
    let env = environment::of(&job.spec, &ground.agent, &ground.name, checkout, home);
    Kept { image: job.spec.image.clone(), env }.write(&job.workspace.root)
}

/// The place's next user is the same one: what stays is the agent's from now on.
fn keep_from_jobs(root: &Path) {
    let agent = (rustix::process::geteuid(), rustix::process::getegid());
    if agent.0.is_root()
        && let Err(error) = std::os::unix::fs::lchown(root, Some(agent.0.as_raw()), Some(agent.1.as_raw()))
    {
        tracing::warn!(path = %root.display(), %error, "workspace_not_taken_back");
    }
}

/// The first byte that a spool does not have.
fn end_of(spool: &mut SpoolReader, from: u64) -> io::Result<u64> {
    let mut end = from;
    while let Some(chunk) = spool.next(end, usize::MAX)? {
        end += chunk.bytes.len() as u64;
    }
    Ok(end)
}

fn raise(value: &mut u64, to: u64) -> bool {
    let higher = to > *value;
    *value = (*value).max(to);
    higher
}

/// Records the offer, and makes image and workspace ready.
async fn ready(
    ground: &Arc<Ground>,
    spec: &Arc<JobSpec>,
    right: &Arc<Right>,
    (workspace, secrets): (&Workspace, &Secrets),
    slot: Slot,
    busy: &Busy,
) -> Result<Prepared, Cause> {
    let begun = {
        let (ground, spec, right) = (Arc::clone(ground), Arc::clone(spec), Arc::clone(right));
        let workspace = workspace.clone();
        move || {
            record(&ground, &spec, &right, slot.index, &workspace).map_err(|e| io_cause(&e, &ground.home.jobs()))?;
            // The agent's git works in directories of the agent alone.
            let from_git = matches!(spec.source, Source::Git { .. });
            if !from_git && ground.spares.take(slot, &spec.namespace, &workspace) {
                return Ok(());
            }
            workspace.create(slot.user, &spec.source).map_err(|e| io_cause(&e, &workspace.root))
        }
    };
    busy.blocking(begun).await?;
    // First: who may not have them need not fetch anything else.
    secrets.fetch(&ground.api, spec, right).await?;
    if let Some(image) = &spec.image {
        ground.engine.ensure_image(image).await.map_err(|error| error.cause())?;
    }
    let key = secrets::checkout_key(&ground.api, spec, right).await?;
    let plugins = ground.rules.plugins.lay(spec, workspace, busy).await?;
    let course = if !Course::needs_disk(&ground.rules, &plugins) {
        Course::of(&ground.rules, spec, plugins)?
    } else {
        let (ground, spec) = (Arc::clone(ground), Arc::clone(spec));
        busy.blocking(move || Course::of(&ground.rules, &spec, plugins)).await?
    };
    let filled = ground.sources.fill((spec, right), (workspace, slot.user), busy, &course, key).await?;
    Ok(Prepared { course, filled })
}

/// The whole environment of a job, the way to its agent included.
fn variables(
    ground: &Ground,
    spec: &JobSpec,
    epoch: Epoch,
    slot: Slot,
    workspace: &Workspace,
) -> Vec<(String, String)> {
    let mut env = environment::of(spec, &ground.agent, &ground.name, &workspace.checkout, &workspace.home);
    environment::set_right(&mut env, epoch);
    ground.api.variables(spec, slot, &mut env);
    env.extend(ground.rules.variables());
    env
}

/// Asks for the secrets of a job that an earlier run of this agent started. Without them its commands are served all the
/// same: its log is masked by its supervisor, which has them.
async fn again(ground: &Ground, spec: &JobSpec, right: &Right, secrets: &Secrets) {
    let asking = secrets.fetch(&ground.api, spec, right);
    match tokio::time::timeout(SECRETS_AGAIN, asking).await {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => tracing::warn!(attempt = %spec.attempt, detail = cause.detail, "secrets_not_given_again"),
        Err(_) => tracing::warn!(attempt = %spec.attempt, "secrets_not_given_again_in_time"),
    }
}

/// Opens the door by which the job's commands come.
async fn open_door(
    ground: &Ground,
    spec: &Arc<JobSpec>,
    right: Arc<Right>,
    slot: Slot,
    (masking, secrets): (Masking, Secrets),
    env: &[(String, String)],
) -> io::Result<Door> {
    let dir = ground.home.jobs().join(spec.attempt.to_string());
    let changes = Arc::new(Changes::load(&dir, env.iter().cloned())?);
    let account = Account::default();
    ground.api.open(Party { spec: Arc::clone(spec), right, slot, changes, masking, secrets, account }).await
}

/// Where a job is started, and by which right.
struct Place<'a> {
    epoch: Epoch,
    slot: Slot,
    workspace: &'a Workspace,
    start_before: Instant64,
}

async fn start(
    ground: &Ground,
    spec: &JobSpec,
    prepared: &Prepared,
    place: &Place<'_>,
    (env, secrets): (Vec<(String, String)>, Vec<String>),
) -> Result<RunningJob, Cause> {
    let dir = ground.home.jobs().join(spec.attempt.to_string());
    let Place { epoch, slot, workspace, start_before } = *place;
    let Filled { target, warning } = &prepared.filled;
    let plan = prepared.course.plan(spec, workspace, target.as_deref(), ground.sources.git.protocols());
    let plan = plan.map_err(|error| io_cause(&error, &workspace.checkout))?;
    let (mut shown, mut program) = (ground.api.shown(spec.attempt), None);
    if let Some(plan) = plan {
        let laid = ground.api.plan(spec, slot, &plan);
        program = Some(laid.map_err(|error| io_cause(&error, &ground.home.work()))?);
        shown.extend(prepared.course.shown(&ground.rules));
    }
    let preamble = preamble::of(warning.as_deref(), &env);
    let start = Start {
        job: spec,
        epoch,
        slot,
        workspace: &workspace.checkout,
        env,
        shown,
        program,
        secrets,
        preamble,
        lease_deadline_boot_ms: start_before.0,
    };
    if spec.image.is_some() {
        return match ground.engine.start(&ground.runner, start).await {
            Err(ContainerError::Start(error)) if error.is_doubtful() => Ok(attach_to(spec.attempt, &dir).await),
            other => other.map_err(|error| error.cause()),
        };
    }
    match ground.runner.start(start).await {
        Ok(running) => Ok(running),
        // It may run: nobody may say otherwise before its supervisor, or the absence of one, has.
        Err(StartError::Supervisor(_) | StartError::Launch(LaunchError::Spawner(_))) => {
            Ok(attach_to(spec.attempt, &dir).await)
        }
        Err(error @ (StartError::Directory(_) | StartError::Launch(_))) => Err(start_failed(&error)),
    }
}
