//! Compiling pipelines: so many at once for the whole process, away from the executor.

use tokio::sync::Semaphore;
use tokio::task::JoinError;
use windlass_protocol::limits::COMPILES_MAX;

/// One for the process: what is shared out are its processors and its memory.
static TURNS: Semaphore = Semaphore::const_new(COMPILES_MAX);

/// Runs it when its turn comes.
///
/// # Errors
/// It panicked, or the process ends.
pub(crate) async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    // It is never closed.
    let turn = TURNS.acquire().await.ok();
    tokio::task::spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_run_at_once_than_may() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let works = (0..4 * COMPILES_MAX).map(|_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            in_turn(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
            })
        });
        for done in futures_util::future::join_all(works).await {
            done.unwrap();
        }
        assert!((1..=COMPILES_MAX).contains(&most.load(Ordering::SeqCst)));
    }
}
