//! Pauses between tries, and when to give up.

use std::time::Duration;

use tokio::time::Instant;
use windlass_protocol::limits::{API_PATIENCE_MS, API_RETRY_MAX_MS, API_RETRY_MIN_MS};

use super::ClientError;

/// Doubling pauses until patience is at its end.
#[derive(Debug)]
pub(super) struct Backoff {
    since: Option<Instant>,
    pause_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { since: None, pause_ms: API_RETRY_MIN_MS }
    }
}

impl Backoff {
    /// Waits before the next try; gives the error back once it has lasted too long.
    pub(super) async fn wait(&mut self, error: ClientError) -> Result<(), ClientError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= Duration::from_millis(API_PATIENCE_MS) {
            return Err(error);
        }
        tracing::debug!(%error, pause_ms = self.pause_ms, "request_repeated");
        tokio::time::sleep(Duration::from_millis(self.pause_ms)).await;
        self.pause_ms = (self.pause_ms * 2).min(API_RETRY_MAX_MS);
        Ok(())
    }

    /// It went well: the next trouble is a new one.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}
