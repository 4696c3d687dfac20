//! Locks between the jobs of one agent (reference 19.8): in memory, gone with the agent, not released when a job ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use windlass_protocol::limits::{LOCK_KEY_MAX_BYTES, LOCKS_MAX};

/// The value of a key whose work is being done.
const DOING: &str = "doing";
/// The value of a key whose work is done.
const DONE: &str = "done";

/// Why a lock is not taken or given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LockError {
    /// It is something else.
    #[error("invalid lock state {0:?}")]
    State(String),
    /// Nobody holds it.
    #[error("already unlocked")]
    Free,
    /// More than an agent keeps.
    #[error("this agent has {LOCKS_MAX} locks, and takes no more")]
    TooMany,
    /// No key.
    #[error("a lock's key has 1 to {LOCK_KEY_MAX_BYTES} bytes")]
    Key,
}

/// All locks of an agent.
#[derive(Debug, Default)]
pub(super) struct Locks {
    values: Mutex<BTreeMap<String, String>>,
    changed: Notify,
}

impl Locks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key; empty where it is free.
    pub(super) fn get(&self, key: &str) -> String {
        self.lock().get(key).cloned().unwrap_or_default()
    }

    /// Sets a key that has the value `old`; else gives the value that it has.
    fn swap(&self, key: &str, old: &str, new: &str) -> Result<Result<(), String>, LockError> {
        if key.is_empty() || key.len() > LOCK_KEY_MAX_BYTES {
            return Err(LockError::Key);
        }
        let mut values = self.lock();
        let now = values.get(key).map_or("", String::as_str);
        if now != old {
            return Ok(Err(now.to_owned()));
        }
        if new.is_empty() {
            values.remove(key);
        } else if values.len() >= LOCKS_MAX && !values.contains_key(key) {
            return Err(LockError::TooMany);
        } else {
            values.insert(key.to_owned(), new.to_owned());
        }
        drop(values);
        self.changed.notify_waiters();
        Ok(Ok(()))
    }

    /// Waits for a key and takes it with this token.
    pub(super) async fn acquire(&self, key: &str, token: &str) -> Result<(), LockError> {
        loop {
            let changed = self.changed.notified();
            if self.swap(key, "", token)?.is_ok() {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Gives a key back.
    pub(super) fn release(&self, key: &str, token: &str) -> Result<(), LockError> {
        match self.swap(key, token, "")? {
            Ok(()) if token.is_empty() => Err(LockError::Free),
            Ok(()) => Ok(()),
            Err(now) if now.is_empty() => Err(LockError::Free),
            Err(now) => Err(LockError::State(now)),
        }
    }

    /// Whether the caller is to do the work of a key; waits while another does it.
    pub(super) async fn begin(&self, key: &str) -> Result<bool, LockError> {
        loop {
            let changed = self.changed.notified();
            match self.swap(key, "", DOING)? {
                Ok(()) => return Ok(true),
                Err(now) if now == DONE => return Ok(false),
                Err(now) if now == DOING => changed.await,
                Err(now) => return Err(LockError::State(now)),
            }
        }
    }

    /// The work of a key is done.
    pub(super) fn done(&self, key: &str) -> Result<(), LockError> {
        self.swap(key, DOING, DONE)?.map_err(LockError::State)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_lock_is_held_by_one_and_given_back_by_its_token_only() {
        let locks = Arc::new(Locks::default());
        locks.acquire("a", "one").await.unwrap();
        assert_eq!(locks.get("a"), "one");
        let (waiting, other) = (Arc::clone(&locks), Arc::clone(&locks));
        let second = tokio::spawn(async move { waiting.acquire("a", "two").await });
        other.acquire("b", "else").await.unwrap();
        assert_eq!(locks.release("a", "two"), Err(LockError::State("one".into())));
        assert_eq!(locks.release("c", "one"), Err(LockError::Free));
        assert!(!second.is_finished());
        locks.release("a", "one").unwrap();
        second.await.unwrap().unwrap();
        assert_eq!(locks.get("a"), "two");
        assert_eq!(locks.release("c", ""), Err(LockError::Free));
    }

    #[tokio::test]
    async fn work_is_done_once() {
        let locks = Arc::new(Locks::default());
        assert_eq!(locks.done("a"), Err(LockError::State(String::new())), "nobody does it");
        assert_eq!(locks.begin("a").await, Ok(true));
        let waiting = Arc::clone(&locks);
        let second = tokio::spawn(async move { waiting.begin("a").await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        locks.done("a").unwrap();
        assert_eq!(second.await.unwrap(), Ok(false));
        assert_eq!(locks.begin("a").await, Ok(false));
        locks.acquire("b", "token").await.unwrap();
        assert_eq!(locks.begin("b").await, Err(LockError::State("token".into())));
    }

    #[tokio::test]
    async fn an_agent_keeps_so_many_locks_and_no_more() {
        let locks = Locks::default();
        for index in 0..LOCKS_MAX {
            locks.acquire(&index.to_string(), "t").await.unwrap();
        }
        assert_eq!(locks.acquire("more", "t").await, Err(LockError::TooMany));
        locks.release("0", "t").unwrap();
        locks.acquire("more", "t").await.unwrap();
        assert_eq!(locks.acquire("", "t").await, Err(LockError::Key));
    }
}
