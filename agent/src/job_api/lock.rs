//! Locks between the jobs of one agent (reference 19.8): in memory, gone with the agent, not released when a job ends.
//!
//! A job has its share of them. Where the agent has as many as it keeps, those go first whose jobs have ended.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use windlass_protocol::AttemptId;
use windlass_protocol::limits::{LOCK_KEY_MAX_BYTES, LOCKS_MAX, LOCKS_PER_JOB_MAX};

use super::account::Life;

/// The value of a key whose work is being done.
const DOING: &str = "doing";
/// The value of a key whose work is done.
const DONE: &str = "done";

/// Those who wait are woken by a part of the keys, not by each that changes.
const PARTS: usize = 64;

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
    /// More than one job may have.
    #[error("this job has {LOCKS_PER_JOB_MAX} locks of its agent, and gets no more")]
    TooManyOfOne,
    /// No key.
    #[error("a lock's key has 1 to {LOCK_KEY_MAX_BYTES} bytes")]
    Key,
}

/// Whose lock it is.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) attempt: AttemptId,
    pub(super) life: Life,
}

/// A key that is not free.
#[derive(Debug)]
struct Held {
    value: String,
    owner: Owner,
}

/// All locks of an agent.
#[derive(Debug)]
pub(super) struct Locks {
    held: Mutex<BTreeMap<String, Held>>,
    parts: RandomState,
    changed: [Notify; PARTS],
}

impl Default for Locks {
    fn default() -> Self {
        Self { held: Mutex::default(), parts: RandomState::new(), changed: std::array::from_fn(|_| Notify::new()) }
    }
}

/// A key that was taken just now: free again, unless who asked for it comes to know.
#[derive(Debug)]
#[must_use]
pub(super) struct Taken<'a> {
    locks: &'a Locks,
    key: &'a str,
    value: Option<&'a str>,
}

impl Taken<'_> {
    /// It is known.
    pub(super) fn keep(mut self) {
        self.value = None;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(value) = self.value {
            self.locks.free(self.key, value);
        }
    }
}

impl Locks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, key: &str) -> &Notify {
        let part = self.parts.hash_one(key) % PARTS as u64;
        &self.changed[usize::try_from(part).unwrap_or(0)]
    }

    /// The value of a key; empty where it is free.
    pub(super) fn get(&self, key: &str) -> String {
        self.lock().get(key).map(|held| held.value.clone()).unwrap_or_default()
    }

    /// Takes a free key; else gives the value that it has.
    fn take(&self, key: &str, value: &str, owner: &Owner) -> Result<Result<(), String>, LockError> {
        if key.is_empty() || key.len() > LOCK_KEY_MAX_BYTES {
            return Err(LockError::Key);
        }
        let mut all = self.lock();
        if let Some(held) = all.get(key) {
            return Ok(Err(held.value.clone()));
        }
        if all.values().filter(|held| held.owner.attempt == owner.attempt).count() >= LOCKS_PER_JOB_MAX {
            return Err(LockError::TooManyOfOne);
        }
        let mut freed = Vec::new();
        if all.len() >= LOCKS_MAX {
            freed = all.extract_if(.., |_, held| held.owner.life.is_over()).map(|(key, _)| key).collect();
        }
        let taken = if all.len() >= LOCKS_MAX {
            Err(LockError::TooMany)
        } else {
            all.insert(key.to_owned(), Held { value: value.to_owned(), owner: owner.clone() });
            Ok(Ok(()))
        };
        drop(all);
        for key in freed {
            self.changed(&key).notify_waiters();
        }
        taken
    }

    /// Frees a key that has this value; says which it has else.
    fn free(&self, key: &str, value: &str) -> Option<String> {
        let mut all = self.lock();
        let now = all.get(key).map_or("", |held| held.value.as_str());
        if now != value {
            return Some(now.to_owned());
        }
        all.remove(key);
        drop(all);
        self.changed(key).notify_waiters();
        None
    }

    /// Waits for a key and takes it with this token.
    pub(super) async fn acquire<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        owner: &Owner,
    ) -> Result<Taken<'a>, LockError> {
        loop {
            let changed = self.changed(key).notified();
            if self.take(key, token, owner)?.is_ok() {
                return Ok(Taken { locks: self, key, value: Some(token) });
            }
            changed.await;
        }
    }

    /// Gives a key back.
    pub(super) fn release(&self, key: &str, token: &str) -> Result<(), LockError> {
        if key.is_empty() || key.len() > LOCK_KEY_MAX_BYTES {
            return Err(LockError::Key);
        }
        match self.free(key, token) {
            None if token.is_empty() => Err(LockError::Free),
            None => Ok(()),
            Some(now) if now.is_empty() => Err(LockError::Free),
            Some(now) => Err(LockError::State(now)),
        }
    }

    /// What the caller has of a key's work, if it is to do it; waits while another does it.
    pub(super) async fn begin<'a>(&'a self, key: &'a str, owner: &Owner) -> Result<Option<Taken<'a>>, LockError> {
        loop {
            let changed = self.changed(key).notified();
            match self.take(key, DOING, owner)? {
                Ok(()) => return Ok(Some(Taken { locks: self, key, value: Some(DOING) })),
                Err(now) if now == DONE => return Ok(None),
                Err(now) if now == DOING => changed.await,
                Err(now) => return Err(LockError::State(now)),
            }
        }
    }

    /// The work of a key is done.
    pub(super) fn done(&self, key: &str) -> Result<(), LockError> {
        let mut all = self.lock();
        match all.get_mut(key) {
            Some(held) if held.value == DOING => DONE.clone_into(&mut held.value),
            Some(held) => return Err(LockError::State(held.value.clone())),
            None => return Err(LockError::State(String::new())),
        }
        drop(all);
        self.changed(key).notify_waiters();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Account;
    use super::*;

    fn job(number: u8, account: &Account) -> Owner {
        Owner { attempt: AttemptId::from_bytes([number; 16]), life: account.life() }
    }

    #[tokio::test]
    async fn a_lock_is_held_by_one_and_given_back_by_its_token_only() {
        let (locks, account) = (Arc::new(Locks::default()), Account::default());
        let owner = job(1, &account);
        locks.acquire("a", "one", &owner).await.unwrap().keep();
        assert_eq!(locks.get("a"), "one");
        let (waiting, other, same) = (Arc::clone(&locks), Arc::clone(&locks), owner.clone());
        let second = tokio::spawn(async move { waiting.acquire("a", "two", &same).await.map(Taken::keep) });
        other.acquire("b", "else", &owner).await.unwrap().keep();
        assert_eq!(locks.release("a", "two"), Err(LockError::State("one".into())));
        assert_eq!(locks.release("c", "one"), Err(LockError::Free));
        assert!(!second.is_finished());
        locks.release("a", "one").unwrap();
        second.await.unwrap().unwrap();
        assert_eq!(locks.get("a"), "two");
        assert_eq!(locks.release("c", ""), Err(LockError::Free));
        assert_eq!(locks.release("", ""), Err(LockError::Key));
    }

    #[tokio::test]
    async fn work_is_done_once() {
        let (locks, account) = (Arc::new(Locks::default()), Account::default());
        let owner = job(1, &account);
        assert_eq!(locks.done("a"), Err(LockError::State(String::new())), "nobody does it");
        locks.begin("a", &owner).await.unwrap().unwrap().keep();
        let (waiting, same) = (Arc::clone(&locks), owner.clone());
        let second = tokio::spawn(async move { waiting.begin("a", &same).await.map(|taken| taken.is_some()) });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        locks.done("a").unwrap();
        assert_eq!(second.await.unwrap(), Ok(false));
        assert!(locks.begin("a", &owner).await.unwrap().is_none());
        locks.acquire("b", "token", &owner).await.unwrap().keep();
        assert_eq!(locks.begin("b", &owner).await.unwrap_err(), LockError::State("token".into()));
    }

    #[tokio::test]
    async fn what_nobody_came_to_know_of_is_free_for_the_next() {
        let (locks, account) = (Arc::new(Locks::default()), Account::default());
        let owner = job(1, &account);
        let (begun, taken) = (locks.begin("a", &owner).await.unwrap(), locks.acquire("b", "t", &owner).await.unwrap());
        let (waiting, other) = (Arc::clone(&locks), job(2, &account));
        let next = tokio::spawn(async move {
            waiting.begin("a", &other).await.unwrap().unwrap().keep();
            waiting.acquire("b", "u", &other).await.unwrap().keep();
        });
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        drop((begun, taken));
        next.await.unwrap();
        assert_eq!((locks.get("a").as_str(), locks.get("b").as_str()), (DOING, "u"));
    }

    #[tokio::test]
    async fn a_job_has_its_share_of_an_agent_s_locks_and_leaves_it_to_others_when_it_has_ended() {
        let (locks, gone, account) = (Locks::default(), Account::default(), Account::default());
        let share = async |owner: &Owner, from: usize| {
            for index in from..from + LOCKS_PER_JOB_MAX {
                locks.acquire(&index.to_string(), "t", owner).await.unwrap().keep();
            }
        };
        let first = job(0, &gone);
        share(&first, 0).await;
        assert_eq!(locks.acquire("more", "t", &first).await.unwrap_err(), LockError::TooManyOfOne);
        for number in 1..10 {
            share(&job(number, &account), usize::from(number) * LOCKS_PER_JOB_MAX).await;
        }
        let last = job(10, &account);
        assert_eq!(locks.acquire("more", "t", &last).await.unwrap_err(), LockError::TooMany);
        locks.release("1", "t").unwrap();
        locks.acquire("more", "t", &last).await.unwrap().keep();
        drop(gone);
        assert_eq!(locks.get("0"), "t", "it outlives its job as long as there is room");
        locks.acquire("and more", "t", &last).await.unwrap().keep();
        assert_eq!((locks.get("0").as_str(), locks.get("more").as_str()), ("", "t"));
        assert_eq!(locks.acquire("", "t", &last).await.unwrap_err(), LockError::Key);
    }
}
