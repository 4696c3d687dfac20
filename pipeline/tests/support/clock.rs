//! The time that a piece of work takes of a processor: what else the machine does is not part of it.

use std::time::{Duration, Instant};

/// The least of three runs.
pub(crate) fn best(mut work: impl FnMut()) -> Duration {
    (0..3)
        .map(|_| {
            let (began, wall) = (processor(), Instant::now());
            work();
            match (began, processor()) {
                (Some(began), Some(ended)) => ended.saturating_sub(began),
                _ => wall.elapsed(),
            }
        })
        .min()
        .unwrap_or_default()
}

/// What this thread has run so far, where the system tells it.
fn processor() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
