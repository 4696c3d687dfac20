//! Carrying blobs to the coordinator or from it, tried again while it is away.

use std::time::Duration;

use tokio::time::Instant;
use windlass_protocol::Shelf;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::{ASK_PATIENCE_MS, CACHE_PATIENCE_MS};
use windlass_protocol::link::LinkError;

use super::{PAUSE_MAX, PAUSE_MIN, Trouble};

/// Why blobs are not where they were to go, whichever way that was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotCarried<E> {
    /// They could not be read, or not be taken.
    #[error(transparent)]
    Own(E),
    /// The coordinator does not take them, or does not have them.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached for too long.
    #[error("the coordinator cannot be reached: {0}")]
    Away(String),
}

/// Why one try did not do it.
pub(super) enum Tried<E> {
    Again(String),
    Not(NotCarried<E>),
}

impl<E> From<Trouble> for Tried<E> {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Cause(cause) => Self::Not(NotCarried::Refused(cause.to_string())),
            Trouble::Link(error) => Self::Again(error.to_string()),
            Trouble::Away(why) | Trouble::Refused(why) => Self::Again(why),
        }
    }
}

impl<E> From<LinkError> for Tried<E> {
    fn from(error: LinkError) -> Self {
        Self::Again(error.to_string())
    }
}

/// How long somebody has waited.
pub(super) struct Patience {
    begun: Instant,
    pause: Duration,
    most: Duration,
}

impl Patience {
    /// A job can go on without a cache, and not without its artifacts.
    pub(super) fn of(shelf: Shelf) -> Self {
        let most = match shelf {
            Shelf::Artifacts => ASK_PATIENCE_MS,
            Shelf::Caches => CACHE_PATIENCE_MS,
        };
        Self { begun: Instant::now(), pause: PAUSE_MIN, most: Duration::from_millis(most) }
    }

    /// Waits for another try, unless it is enough.
    pub(super) async fn again<E>(&mut self, job: &JobSpec, tried: Tried<E>) -> Result<(), NotCarried<E>> {
        let why = match tried {
            Tried::Not(error) => return Err(error),
            Tried::Again(why) => why,
        };
        if self.begun.elapsed() + self.pause >= self.most {
            return Err(NotCarried::Away(why));
        }
        tracing::info!(attempt = %job.attempt, why, "blobs_wait");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}
