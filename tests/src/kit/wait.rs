//! Waiting with a deadline: on a condition that is looked at again and again, or on a future.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// For anything that takes a moment on an idle machine; two cores that build beside it need more.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(15);

/// Looks until there is something to see.
///
/// # Errors
/// `what` did not come before the deadline, or looking failed.
pub async fn until<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(seen) = look().await.with_context(|| format!("while waiting for {what}"))? {
            return Ok(seen);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {deadline:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A future's end before a deadline.
///
/// # Errors
/// It took longer.
pub async fn within<T>(what: &str, deadline: Duration, future: impl Future<Output = T>) -> Result<T> {
    match tokio::time::timeout(deadline, Box::pin(future)).await {
        Ok(done) => Ok(done),
        Err(_) => bail!("{what}: not within {deadline:?}"),
    }
}
