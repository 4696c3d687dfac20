//! What one attempt's commands may hold of their agent at once: its memory, and the time of its processors. It is one
//! account, however many commands there are, for a job may call them as it likes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use windlass_protocol::limits::{JOB_CALLS_MAX_BYTES, JOB_CALLS_SPARE_BYTES, JOB_ROOM_MS};

use super::hands::HandsError;
use super::known::KnownFiles;

/// The account of one attempt. It is there as long as its door is.
#[derive(Debug)]
pub(crate) struct Account {
    /// A permit a byte.
    room: Arc<Semaphore>,
    /// One permit: what takes long is done one after the other.
    work: Arc<Semaphore>,
    /// Files that they have restored.
    pub(super) known: KnownFiles,
}

impl Default for Account {
    fn default() -> Self {
        let (room, work) = (Arc::new(Semaphore::new(JOB_CALLS_MAX_BYTES)), Arc::new(Semaphore::new(1)));
        Self { room, work, known: KnownFiles::default() }
    }
}

impl Account {
    /// A share of it that holds nothing yet.
    pub(super) fn share(&self) -> Share {
        Share { room: Arc::clone(&self.room), held: None }
    }

    /// Whether the attempt is still served, for what outlives it.
    pub(super) fn life(&self) -> Life {
        Life(Arc::downgrade(&self.work))
    }

    /// Does what may take longer than a moment, where it keeps nobody else from being served. Who is gone meanwhile gives
    /// the turn back only once it is done.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        doing: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HandsError> {
        // Nobody closes it.
        let turn = Arc::clone(&self.work).acquire_owned().await.map_err(|_| HandsError::Confused)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = doing();
            drop(turn);
            done
        });
        done.await.map_err(|error| HandsError::Unfinished(error.to_string()))
    }
}

/// Tells whether an attempt is still served.
#[derive(Debug, Clone)]
pub(super) struct Life(Weak<Semaphore>);

impl Life {
    pub(super) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// What one command holds.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Holds so many bytes more. Others may give some back: it waits a little for them.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), HandsError> {
        if bytes == 0 {
            return Ok(());
        }
        let count = u32::try_from(bytes).ok().filter(|_| bytes <= JOB_CALLS_MAX_BYTES).ok_or(HandsError::NoRoom)?;
        let more = Arc::clone(&self.room).acquire_many_owned(count);
        let more = tokio::time::timeout(Duration::from_millis(JOB_ROOM_MS), more).await;
        let more = more.map_err(|_| HandsError::NoRoom)?.map_err(|_| HandsError::NoRoom)?;
        self.hold(more);
        Ok(())
    }

    fn hold(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
    }

    /// Holds so many bytes more if plenty is left for others; says whether it does.
    pub(super) fn grow_ahead(&mut self, bytes: usize) -> bool {
        if self.room.available_permits() < JOB_CALLS_SPARE_BYTES.saturating_add(bytes) {
            return false;
        }
        let more = u32::try_from(bytes).map(|count| Arc::clone(&self.room).try_acquire_many_owned(count));
        let Ok(Ok(more)) = more else { return false };
        self.hold(more);
        true
    }

    /// Holds what another one of the same account holds.
    pub(super) fn take_over(&mut self, mut other: Self) {
        match (&mut self.held, other.held.take()) {
            (Some(held), Some(more)) => held.merge(more),
            (held @ None, more) => *held = more,
            (Some(_), None) => {}
        }
    }

    /// Gives so many bytes back.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held {
            drop(held.split(bytes.min(held.num_permits())));
        }
    }

    /// Holds so many bytes from now on.
    pub(super) async fn be(&mut self, bytes: usize) -> Result<(), HandsError> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        self.shrink(held.saturating_sub(bytes));
        self.grow(bytes.saturating_sub(held)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_commands_of_an_attempt_have_one_account_between_them() {
        let account = Account::default();
        let (mut one, mut other) = (account.share(), account.share());
        assert!(matches!(one.grow(JOB_CALLS_MAX_BYTES + 1).await, Err(HandsError::NoRoom)));
        one.be(JOB_CALLS_MAX_BYTES - 10).await.unwrap();
        other.grow(10).await.unwrap();
        assert!(matches!(other.grow(1).await, Err(HandsError::NoRoom)), "time runs by itself here");
        one.shrink(5);
        other.grow(5).await.unwrap();
        let (waited, ()) = tokio::join!(other.grow(100), async { drop(one) });
        waited.unwrap();
        other.be(3).await.unwrap();
        assert_eq!(account.room.available_permits(), JOB_CALLS_MAX_BYTES - 3);
        assert!(!other.grow_ahead(JOB_CALLS_MAX_BYTES - JOB_CALLS_SPARE_BYTES - 2), "half of it is for what has to be");
        assert!(other.grow_ahead(JOB_CALLS_MAX_BYTES - JOB_CALLS_SPARE_BYTES - 3));
        other.be(JOB_CALLS_MAX_BYTES).await.unwrap();
    }

    #[tokio::test]
    async fn what_takes_long_is_done_one_after_the_other_and_keeps_nobody_from_being_served() {
        let account = Arc::new(Account::default());
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        // The runtime of this test has one thread: it would stand still.
        let first = {
            let account = Arc::clone(&account);
            tokio::spawn(async move {
                account
                    .work(move || {
                        begun.send(()).unwrap();
                        ends.recv().unwrap();
                    })
                    .await
            })
        };
        while has_begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        let second = {
            let account = Arc::clone(&account);
            tokio::spawn(async move { account.work(|| 2).await })
        };
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished());
        let life = account.life();
        end.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(second.await.unwrap().unwrap(), 2);
        assert!(!life.is_over());
        drop(account);
        assert!(life.is_over());
    }
}
