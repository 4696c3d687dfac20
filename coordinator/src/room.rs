//! A bounded number of places at something costly, of which those who are not trusted get a part: however long they hold
//! theirs, somebody trusted finds one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use windlass_protocol::Trust;

/// The places.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    all: Arc<Semaphore>,
    untrusted: Arc<Semaphore>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
#[must_use = "it is somebody else's once it is dropped"]
pub(crate) struct Seat {
    _own: OwnedSemaphorePermit,
    _part: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// So many places, of which so many are for those who are not trusted.
    pub(crate) fn new(places: usize, untrusted: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(places)), untrusted: Arc::new(Semaphore::new(untrusted)) }
    }

    /// Waits for a place; nobody closes it.
    pub(crate) async fn enter(&self, trust: Trust) -> Option<Seat> {
        // Their part first: who waits for it holds nothing of the others'.
        let part = match trust {
            Trust::Untrusted => Some(Arc::clone(&self.untrusted).acquire_owned().await.ok()?),
            Trust::Trusted => None,
        };
        Some(Seat { _own: Arc::clone(&self.all).acquire_owned().await.ok()?, _part: part })
    }

    /// A place, if one is free.
    pub(crate) fn try_enter(&self, trust: Trust) -> Option<Seat> {
        let part = match trust {
            Trust::Untrusted => Some(Arc::clone(&self.untrusted).try_acquire_owned().ok()?),
            Trust::Trusted => None,
        };
        Some(Seat { _own: Arc::clone(&self.all).try_acquire_owned().ok()?, _part: part })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_not_trusted_leaves_places_to_the_others_and_not_the_reverse() {
        let room = Room::new(5, 3);
        let strangers: Vec<_> = std::iter::from_fn(|| room.try_enter(Trust::Untrusted)).collect();
        assert_eq!(strangers.len(), 3);
        let mut next = std::pin::pin!(room.enter(Trust::Untrusted));
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        let trusted: Vec<_> = std::iter::from_fn(|| room.try_enter(Trust::Trusted)).collect();
        assert_eq!(trusted.len(), 2, "who waits for a stranger's place holds none");
        drop(trusted);
        let mut one = std::pin::pin!(room.enter(Trust::Trusted));
        assert!(futures_util::poll!(one.as_mut()).is_ready(), "nor does who is trusted wait for one");
        drop(strangers);
        assert!(next.await.is_some());
        let trusted: Vec<_> = std::iter::from_fn(|| room.try_enter(Trust::Trusted)).collect();
        assert_eq!(trusted.len(), 5, "they may have all");
    }
}
