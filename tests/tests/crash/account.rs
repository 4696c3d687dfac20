//! A build of many small steps, each of which writes outside what it did; and the comparison with what the store says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::{Attempt, Build, Client, World};

/// Many steps, and where they write.
pub(crate) struct Account {
    outside: PathBuf,
    steps: usize,
}

impl Account {
    pub(crate) fn new(world: &World, steps: usize) -> Result<Self> {
        Ok(Self { outside: world.shared_file("outside")?, steps })
    }

    fn key(number: usize) -> String {
        format!("step-{number:03}")
    }

    /// What a step writes to its log: lines that differ from step to step, some of them long.
    fn script(&self, key: &str) -> String {
        format!(
            "echo \"$WINDLASS_ATTEMPT_ID $WINDLASS_LEASE_EPOCH {key} begins\" >> {0}; for i in 1 2 3 4; do echo \"{key} line $i\"; \
             printf '%0500d\\n' $i; sleep 0.0$((RANDOM % 5 + 5)); done; echo \"$WINDLASS_ATTEMPT_ID $WINDLASS_LEASE_EPOCH {key} ends\" >> {0}",
            self.outside.display()
        )
    }

    fn log_of(key: &str) -> String {
        (1..=4).map(|i| format!("{key} line {i}\n{i:0500}\n")).collect()
    }

    /// The pipeline; every step has these attributes beside its command.
    pub(crate) fn pipeline(&self, attributes: &Value) -> String {
        let steps = (0..self.steps).map(|number| {
            let key = Self::key(number);
            let mut step = step(&key, &self.script(&key));
            for (name, value) in attributes.as_object().into_iter().flatten() {
                step[name] = value.clone();
            }
            step
        });
        pipeline(steps)
    }

    /// Lines of the file outside: by attempt, by which right its command ran, and how often it began and ended.
    fn written(&self) -> Result<BTreeMap<String, Written>> {
        let mut attempts: BTreeMap<String, Written> = BTreeMap::new();
        for line in fs::read_to_string(&self.outside)?.lines() {
            let [attempt, epoch, key, what] = line.split(' ').collect::<Vec<_>>()[..] else {
                anyhow::bail!("a torn line: {line:?}")
            };
            let epoch: u64 = epoch.parse().with_context(|| format!("no right: {line:?}"))?;
            let written = attempts.entry(attempt.to_owned()).or_default();
            ensure!(written.epoch == 0 || written.epoch == epoch, "{attempt} ran by two rights: {line:?}");
            written.epoch = epoch;
            key.clone_into(&mut written.key);
            match what {
                "begins" => written.begins += 1,
                "ends" => written.ends += 1,
                _ => anyhow::bail!("another line: {line:?}"),
            }
        }
        Ok(attempts)
    }

    /// Compares the file outside with the store. Where attempts may be lost, others took their place.
    pub(crate) async fn check(&self, client: &Client, build: &Build, lost: Lost) -> Result<()> {
        let (jobs, written) = (build.jobs(), self.written()?);
        ensure!(jobs.len() == self.steps, "{} jobs", jobs.len());
        let mut known = BTreeSet::new();
        for job in &jobs {
            ensure!(job.state() == "passed", "{}", build.brief());
            let attempts = job.attempts();
            let passed: Vec<_> = attempts.iter().filter(|attempt| attempt.state() == "finished").collect();
            ensure!(passed.len() == 1, "step {} finished {} times: {}", job.key(), passed.len(), job.0);
            check_rights(&attempts, &written).with_context(|| format!("step {}", job.key()))?;
            if lost == Lost::None {
                ensure!(attempts.len() == 1, "step {} has {} attempts: {}", job.key(), attempts.len(), job.0);
            }
            for attempt in &attempts {
                known.insert(attempt.id().to_owned());
                let found = written.get(attempt.id());
                ensure!(found.is_none_or(|w| w.begins == 1 && w.ends <= 1), "{} ran twice: {found:?}", attempt.id());
                ensure!(found.is_none_or(|w| w.key == job.key()), "{} ran another step", attempt.id());
            }
            let last = passed.first().context("an attempt")?;
            let found = written.get(last.id());
            ensure!(
                found.is_some_and(|w| w.begins == 1 && w.ends == 1),
                "step {} passed, and its command did not run: {found:?}",
                job.key()
            );
            let (wanted, log) = (Self::log_of(job.key()), client.log(last.id()).await?);
            ensure!(
                log == wanted.as_bytes(),
                "the log of {} has {} bytes, not {}: {}",
                job.key(),
                log.len(),
                wanted.len(),
                String::from_utf8_lossy(&log)
            );
            ensure!(last.0["log_bytes"] == json!(wanted.len()), "{}", last.0);
        }
        let rights: BTreeSet<u64> = written.values().map(|written| written.epoch).collect();
        ensure!(rights.len() == written.len(), "one right was given to two attempts: {written:?}");
        let strangers: Vec<_> = written.keys().filter(|attempt| !known.contains(*attempt)).collect();
        ensure!(strangers.is_empty(), "the store knows nothing of what ran: {strangers:?}");
        Ok(())
    }
}

/// Compares the rights of a job's attempts, oldest first, with those that ran.
///
/// The right of an attempt may rise while its command runs: its agent was believed lost, and came back. What the command was
/// told is from then on older than what the store has, but never older than what the store gave its agent; and no attempt
/// of a job began by a right that is not newer than all that the one before it ever had.
fn check_rights(attempts: &[Attempt], written: &BTreeMap<String, Written>) -> Result<()> {
    let mut before = 0;
    for attempt in attempts {
        let (granted, epoch) = attempt.rights()?;
        ensure!(before < granted && granted <= epoch, "{granted} to {epoch} after {before}: {}", attempt.0);
        let ran = written.get(attempt.id()).map(|written| written.epoch);
        ensure!(ran.is_none_or(|ran| (granted..=epoch).contains(&ran)), "it ran by {ran:?}: {}", attempt.0);
        before = epoch;
    }
    Ok(())
}

/// Whether attempts may have been lost with their agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    None,
    Some,
}

#[derive(Debug, Default)]
struct Written {
    key: String,
    epoch: u64,
    begins: u32,
    ends: u32,
}

/// Checks that a data directory that is not in use is sound.
pub(crate) async fn sound(world: &World, data: &Path) -> Result<()> {
    let arguments = ["coordinator".as_ref(), "--check".as_ref(), "--data".as_ref(), data.as_os_str()];
    world.run(arguments, windlass_tests::kit::DEADLINE).await?.code(0)?;
    Ok(())
}
