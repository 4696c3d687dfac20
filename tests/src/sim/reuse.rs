//! What the judge holds results to that are used again: they passed, whoever uses them may read them, and nothing is run whose
//! result is there.

use windlass_coordinator_core::row::{
    AttemptRow, AttemptState, JobRow, JobState, ReuseName, ReuseRow, ReusedFrom, Role,
};
use windlass_protocol::job::Epoch;
use windlass_protocol::{AgentId, BuildId, Digest};

use super::oracle::Verdict;
use super::store::Store;

/// Under which name a job's result would stand, where it runs by its key.
fn name_of(job: &JobRow, store: &Store) -> Option<ReuseName> {
    let keyed = job.reuse.as_ref()?.keyed().filter(|keyed| keyed.role == Role::Runs)?;
    let namespace = store.rows.builds.get(&job.build)?.namespace.clone();
    Some(ReuseName { namespace, key: keyed.keyed.key })
}

/// A job ends with another one's result: nobody had a right to it, and that one passed, where it may be read.
pub(super) fn hit(row: &AttemptRow, from: &ReusedFrom, store: &Store) -> Verdict {
    let broken = |invariant, what: &str| Err((invariant, format!("attempt {} of job {}: {what}", row.id, row.job)));
    if row.epoch != Epoch(0) || row.agent != AgentId::from_bytes([0; 16]) || row.state != AttemptState::Finished {
        return broken("I2", "nobody ran it, and it has a right");
    }
    let (Some(build), Some(source)) = (store.rows.builds.get(&row.build), store.rows.builds.get(&from.build)) else {
        return broken("I14", "it is the result of an unknown build");
    };
    if build.cancel_requested {
        return broken("I8", "it passes in a canceled build");
    }
    if !build.namespace.reads(&source.namespace) {
        return broken("I12", "its build may not read the result that it ends with");
    }
    let attempt = store.rows.attempts.get(&from.attempt);
    if attempt.and_then(|attempt| attempt.outcome.as_ref()).is_none_or(|outcome| !outcome.passed()) {
        return broken("I14", "what it ends with did not pass");
    }
    Ok(())
}

/// A job is given to an agent: its result is not here, and nobody runs for it.
pub(super) fn needed(row: &AttemptRow, store: &Store) -> Verdict {
    let rows = &store.rows;
    let Some(name) = rows.jobs.get(&row.job).and_then(|job| name_of(job, store)) else { return Ok(()) };
    let mut there = rows.reuse.keys().filter(|entry| entry.key == name.key);
    if there.any(|entry| name.namespace.reads(&entry.namespace)) {
        return Err(("I14", format!("job {} is leased, and its result is here", row.job)));
    }
    let runs = |other: &&JobRow| other.id != row.job && other.state == JobState::Assigned;
    let other = rows.jobs.values().filter(runs).find(|other| name_of(other, store).as_ref() == Some(&name));
    match other {
        Some(other) => Err(("I14", format!("jobs {} and {} are leased with one key", row.job, other.id))),
        None => Ok(()),
    }
}

/// An entry is written: its attempt passed, in its own namespace, and all its files were noted before.
pub(super) fn entry(row: &ReuseRow, store: &Store) -> Verdict {
    let from = &row.from;
    let broken = |what: &str| Err(("I5", format!("the entry of attempt {}: {what}", from.attempt)));
    let Some(build) = store.rows.builds.get(&from.build) else { return broken("its build is unknown") };
    if build.namespace != row.name.namespace {
        return Err(("I12", format!("the entry of attempt {} stands where its build is not", from.attempt)));
    }
    let attempt = store.rows.attempts.get(&from.attempt);
    if attempt.and_then(|attempt| attempt.outcome.as_ref()).is_none_or(|outcome| !outcome.passed()) {
        return broken("it did not pass");
    }
    let noted = |path: &str| store.artifacts.values().any(|it| it.attempt == from.attempt && it.path == path);
    match row.outputs.iter().find(|output| !noted(&output.path)) {
        Some(output) => broken(&format!("{} was never noted", output.path)),
        None => Ok(()),
    }
}

/// An entry goes: no pin holds it (I15).
pub(super) fn let_go(name: &ReuseName, store: &Store) -> Verdict {
    let held = |(build, key): &&(BuildId, Digest)| {
        *key == name.key && store.rows.pins.get(build).is_some_and(|pin| pin.namespace == name.namespace)
    };
    match store.rows.pinned_results.iter().find(held) {
        Some((build, key)) => Err(("I15", format!("the result of {key} goes, and the pin of build {build} holds it"))),
        None => Ok(()),
    }
}
