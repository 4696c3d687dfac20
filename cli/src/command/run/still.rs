//! A build that stands still: after a while its watcher is told what it waits for, as `windlass build why` says it.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::client::Client;
use crate::client::shape::Job;
use crate::ui::Ui;

/// How long a build may stand before anybody wonders.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it is looked at again.
const AGAIN: Duration = Duration::from_secs(30);

/// Since when a build stands still, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct Still {
    asks_at: Option<Instant>,
    said: String,
}

impl Still {
    /// When the server is to be asked; far away where the build moves.
    pub(super) fn asks_at(&mut self, is_still: bool) -> Instant {
        if !is_still {
            *self = Self::default();
        }
        let far = Instant::now() + Duration::from_secs(86_400);
        if is_still { *self.asks_at.get_or_insert_with(|| Instant::now() + PATIENCE) } else { far }
    }

    /// Says why a job does not start, unless that was said.
    pub(super) async fn say_why(&mut self, client: &Client, job: &Job, ui: &Ui) {
        self.asks_at = Some(Instant::now() + AGAIN);
        let raw = match client.get(&format!("/jobs/{}/why", job.id)).await {
            Ok(raw) => raw,
            Err(error) => return tracing::debug!(%error, "reason_not_told"),
        };
        let text = raw.get("text").and_then(Value::as_str).unwrap_or_default();
        // An agent that could take it now is about to.
        if text.is_empty() || text == self.said || raw.get("kind").and_then(Value::as_str) == Some("soon") {
            return;
        }
        text.clone_into(&mut self.said);
        ui.say(&format!("{} has not started: {text}", job.name()));
    }
}
