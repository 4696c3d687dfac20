//! Containers and networks of attempts that this agent no longer has, from before a crash or from an engine that was
//! away: found by their labels, and removed as soon as the engine lets us.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Notify;
use windlass_agent_runner::docker::{ContainerError, Engine};
use windlass_protocol::AttemptId;
use windlass_protocol::limits::LEFTOVERS_RETRY_MAX_MS;

/// The first pause before an engine that refused is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Removes leftovers whenever it is told that there may be some.
#[derive(Debug, Default)]
pub(crate) struct Leftovers(Notify);

impl Leftovers {
    /// There may be some.
    pub(crate) fn suspected(&self) {
        self.0.notify_one();
    }

    /// Runs for as long as the agent does. `strangers` have a directory and are not the agent's all the same.
    pub(crate) async fn remove(&self, engine: &Engine, jobs: PathBuf, strangers: BTreeSet<AttemptId>) {
        loop {
            // An attempt's directory is there before its container, and goes after it.
            let keep = |attempt| !strangers.contains(&attempt) && jobs.join(attempt.to_string()).exists();
            let mut pause = RETRY;
            while let Err(error) = engine.reap_leftovers(keep).await.map(told) {
                match error {
                    ContainerError::NoEngine { .. } => tracing::debug!(%error, "leftover_containers_not_removed"),
                    error => tracing::warn!(%error, "leftover_containers_not_removed"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(LEFTOVERS_RETRY_MAX_MS));
            }
            self.0.notified().await;
        }
    }
}

fn told(count: usize) {
    if count > 0 {
        tracing::info!(count, "leftover_containers_removed");
    }
}

/// Attempts whose directory could not be read, so that the agent does not have them; it stays for a person to look at.
pub(crate) fn strangers(jobs: &Path, known: impl Fn(AttemptId) -> bool) -> std::io::Result<BTreeSet<AttemptId>> {
    let mut strangers = BTreeSet::new();
    for entry in std::fs::read_dir(jobs)? {
        let attempt = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        strangers.extend(attempt.filter(|attempt| !known(*attempt)));
    }
    Ok(strangers)
}
