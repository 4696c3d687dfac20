//! The making of a workspace, which can be stopped at any time but not in the middle of blocking work: who is told that it
//! has stopped may wipe it, and nothing writes there any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, RwLock};
use windlass_protocol::Cause;

use crate::bulk;

/// What is to be told once it has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// That it ended, canceled.
    Cancel,
    /// That nothing of it is left.
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Working,
    Wanted(Wish),
    Done,
}

/// Between who prepares and who wants it stopped: exactly one of them tells how it ended.
#[derive(Debug)]
pub(crate) struct Preparing {
    state: Mutex<State>,
    wanted: Notify,
}

impl Preparing {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::Working), wanted: Notify::new() }
    }

    /// Wants it stopped; `false` if it is over, and the caller is to tell.
    pub(crate) fn stop(&self, wish: Wish) -> bool {
        let mut state = self.lock();
        match *state {
            State::Done => return false,
            State::Wanted(Wish::Kill) => {}
            State::Working | State::Wanted(Wish::Cancel) => *state = State::Wanted(wish),
        }
        drop(state);
        self.wanted.notify_one();
        true
    }

    /// Waits until somebody wants it stopped.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// It is over; whoever prepares tells, by this wish if there was one.
    pub(crate) fn done(&self) -> Option<Wish> {
        match std::mem::replace(&mut *self.lock(), State::Done) {
            State::Wanted(wish) => Some(wish),
            State::Working | State::Done => None,
        }
    }

    /// Whether it is over.
    pub(crate) fn is_done(&self) -> bool {
        *self.lock() == State::Done
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts blocking work that goes on although nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy(Arc<RwLock<()>>);

impl Busy {
    /// Runs blocking work away from the executor; [`Busy::rest`] waits for it even where this call is dropped.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Cause> + Send + 'static,
    ) -> Result<T, Cause> {
        let busy = Arc::clone(&self.0).read_owned().await;
        bulk::blocking(move || {
            let done = work();
            drop(busy);
            done
        })
        .await
    }

    /// Waits until none of it is left.
    pub(crate) async fn rest(&self) {
        drop(self.0.write().await);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn exactly_one_side_tells_the_end_and_a_kill_outdoes_a_cancel() {
        let preparing = Preparing::new();
        assert!(preparing.stop(Wish::Cancel) && preparing.stop(Wish::Kill) && preparing.stop(Wish::Cancel));
        assert_eq!(preparing.done(), Some(Wish::Kill));
        assert!(!preparing.stop(Wish::Cancel), "it is over: the caller tells");
        let undisturbed = Preparing::new();
        assert_eq!(undisturbed.done(), None);
        assert!(!undisturbed.stop(Wish::Kill));
    }

    #[tokio::test]
    async fn dropped_blocking_work_is_waited_for() {
        let busy = Busy::default();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (go, wait) = mpsc::channel::<()>();
        let (end, ended) = mpsc::channel();
        let work = busy.blocking(move || {
            let _ = begun.send(());
            let _ = wait.recv();
            end.send(()).map_err(|e| bulk::internal(&e))
        });
        tokio::select! {
            biased;
            _ = work => panic!("it cannot end"),
            _ = begins => {}
        }
        let rest = busy.rest();
        let mut rest = std::pin::pin!(rest);
        assert!(futures_util::poll!(rest.as_mut()).is_pending());
        go.send(()).unwrap();
        rest.await;
        ended.try_recv().unwrap();
    }
}
