//! Ending an attempt whose files cannot be read, until that is verified; then putting them aside.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use windlass_agent_core::Input;
use windlass_agent_runner::attempts::Unreadable;

use super::Ground;
use super::follow::tell;
use crate::workspace::wipe_now;

/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// An attempt that is held, and cannot be read.
#[derive(Debug)]
pub(super) struct Ending {
    found: Unreadable,
    task: Option<JoinHandle<()>>,
}

impl Ending {
    pub(super) const fn new(found: Unreadable) -> Self {
        Self { found, task: None }
    }

    /// Ends it, again and again until that is verified, and says so. Asked once more it changes nothing.
    pub(super) fn begin(&mut self, ground: &Arc<Ground>) {
        if self.task.is_some() {
            return;
        }
        let (ground, found) = (Arc::clone(ground), self.found.clone());
        self.task = Some(tokio::spawn(async move {
            while let Err(error) = end(&ground, &found).await {
                // It may still run: nobody may say otherwise.
                tracing::error!(attempt = %found.attempt, %error, "attempt_not_ended");
                tokio::time::sleep(TRY_AGAIN).await;
            }
            tracing::warn!(attempt = %found.attempt, "unreadable_attempt_ended");
            if found.epoch.is_some() {
                tell(&ground, Input::RunnerGone { attempt: found.attempt }).await;
            } else {
                // The core does not know of it.
                put_aside(&ground, found).await;
            }
        }));
    }

    /// Whether it is being ended.
    pub(super) fn goes_on(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// The coordinator knows that it has ended.
    pub(super) fn put_aside(self, ground: &Arc<Ground>) {
        let ground = Arc::clone(ground);
        tokio::spawn(async move { put_aside(&ground, self.found).await });
    }
}

/// Ends it. Its workspace goes at once: the next job of its slot has the same user.
async fn end(ground: &Ground, found: &Unreadable) -> io::Result<()> {
    let (found, workspace) = (found.clone(), ground.home.workspace_of(found.attempt));
    let engine = ground.engine.socket().to_owned();
    let ended = move || {
        found.end(&engine)?;
        wipe_now(&workspace);
        Ok(())
    };
    tokio::task::spawn_blocking(ended).await.map_err(io::Error::other).flatten()
}

async fn put_aside(ground: &Ground, found: Unreadable) {
    let (aside, attempt) = (ground.home.unreadable(), found.attempt);
    let moved = {
        let aside = aside.clone();
        tokio::task::spawn_blocking(move || found.put_aside(&aside)).await.map_err(io::Error::other).flatten()
    };
    match moved {
        Ok(()) => tracing::warn!(%attempt, kept_in = %aside.display(), "unreadable_attempt_put_aside"),
        // It stays where it is, and is ended once more at the next start.
        Err(error) => tracing::error!(%attempt, %error, "unreadable_attempt_not_put_aside"),
    }
}
