//! Following a job's supervisor to the outcome, and burying what has none any more.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use windlass_agent_core::Input;
use windlass_agent_runner::attempts;
use windlass_agent_runner::control::Request;
use windlass_agent_runner::{Event, RunningJob};
use windlass_protocol::host::now;
use windlass_protocol::job::Outcome;
use windlass_protocol::{AttemptId, Cause, Digest};

use super::Ground;
use super::steering::Steered;
use crate::job_api::{Answers, Changes};
use crate::workspace::start_failed;

/// Between two tries of what has to succeed.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Follows an attempt that may run. Fails only for want of descriptors and the like, which others will give back.
pub(super) async fn attach_to(attempt: AttemptId, dir: &Path) -> RunningJob {
    loop {
        match RunningJob::attach(attempt, dir).await {
            Ok(running) => return running,
            Err(error) => tracing::error!(%attempt, %error, "supervisor_not_reached"),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// What a job's watcher is given.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) steered: Steered,
    /// Values to mask, which the job gave.
    pub(super) masks: mpsc::Receiver<Request>,
    pub(super) answers: Answers,
    pub(super) acked: watch::Receiver<u64>,
    pub(super) end: watch::Sender<u64>,
    pub(super) killing: Arc<AtomicBool>,
    pub(super) failed: Arc<AtomicBool>,
}

/// Carries a job's events to the core and requests to its supervisor, until it is over.
pub(super) async fn watch_over(ground: &Ground, mut running: RunningJob, mut watching: Watching) {
    let attempt = running.attempt();
    let steering = running.steering();
    // What the core has not been told yet of the log's length. The sender hears of it after the core: an answer to bytes
    // that the core knows nothing of would be refused, and the bytes in flight would count for ever.
    let mut untold: Option<u64> = None;
    let outcome = loop {
        tokio::select! {
            biased;
            true = watching.steered.changed() => {
                // A supervisor that cannot be reached is gone, or is reached again: the next event tells.
                let _ = watching.steered.tell(&steering).await;
            }
            room = ground.inputs.reserve(), if untold.is_some() => {
                if let (Ok(room), Some(end)) = (room, untold.take()) {
                    room.send(Input::SpoolAt { attempt, end });
                    watching.end.send_replace(end);
                }
            }
            event = running.next_event() => match event {
                Ok(Event::Started { at, log_bytes }) => {
                    let _ = watching.steered.tell_again(&steering).await;
                    untold = Some(log_bytes);
                    tell(ground, Input::Started { attempt, at }).await;
                }
                Ok(Event::Output { log_bytes }) => untold = Some(log_bytes),
                Ok(Event::Masked { ticket, refused }) => watching.answers.heard(ticket, refused),
                Ok(Event::Stuck { processes }) => tracing::error!(%attempt, ?processes, "processes_unkillable"),
                Ok(Event::Finished(outcome)) => break outcome,
                Ok(Event::SupervisorLost) => break bury(ground, attempt).await,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => break failed_outcome(start_failed(&error)),
                Err(error) => {
                    // It may still run: nobody may say otherwise.
                    tracing::error!(%attempt, %error, "supervisor_not_heard");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            },
            Ok(()) = watching.acked.changed() => {
                let offset = *watching.acked.borrow_and_update();
                let _ = steering.acked(offset).await;
            }
            Some(mask) = watching.masks.recv() => {
                // Who waits for it asks again.
                let _ = steering.send(&mask).await;
            }
        }
    };
    let outcome = explained(running.dir(), outcome);
    watching.failed.store(!outcome.passed(), Ordering::Release);
    tell(ground, Input::SpoolAt { attempt, end: outcome.log_bytes }).await;
    watching.end.send_replace(outcome.log_bytes);
    if watching.killing.load(Ordering::Acquire) {
        tell(ground, Input::RunnerGone { attempt }).await;
    } else {
        ended(ground, attempt, outcome).await;
    }
}

/// Ends what is left of an attempt without a supervisor. Until that is verified nothing is told: what may run is held.
async fn bury(ground: &Ground, attempt: AttemptId) -> Outcome {
    loop {
        let jobs = ground.home.jobs();
        let buried = tokio::task::spawn_blocking(move || {
            let found = attempts::find(&jobs.join(attempt.to_string()))?;
            let found = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            attempts::bury(&found, "the job's supervisor died")
        });
        match buried.await.map_err(io::Error::other).flatten() {
            Ok(outcome) => return outcome,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return failed_outcome(start_failed(&error)),
            Err(error) => tracing::error!(%attempt, %error, "attempt_not_buried"),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// An outcome with the cause that the job's bootstrap has told, where nothing else is one.
pub(super) fn explained(dir: &Path, mut outcome: Outcome) -> Outcome {
    if outcome.cause.is_none() && !outcome.passed() {
        match Changes::failure(dir) {
            Ok(cause) => outcome.cause = cause,
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "phase_not_read"),
        }
    }
    outcome
}

pub(super) async fn ended(ground: &Ground, attempt: AttemptId, outcome: Outcome) {
    tell(ground, Input::Ended { attempt, outcome: Box::new(outcome) }).await;
}

pub(super) async fn tell(ground: &Ground, input: Input) {
    // The loop is gone only when the agent leaves; what is on disk tells the next one.
    let _ = ground.inputs.send(input).await;
}

pub(super) fn failed_outcome(cause: Cause) -> Outcome {
    Outcome { cause: Some(cause), ..nothing_ran() }
}

pub(super) fn nothing_ran() -> Outcome {
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
