//! Small blobs that are on their way from the coordinator: each is asked for once, however many wait for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use windlass_protocol::{Digest, Namespace};

/// What is on its way, by who may read it.
#[derive(Debug, Default)]
pub(super) struct Flights {
    coming: Mutex<BTreeSet<(Namespace, Digest)>>,
    changed: Notify,
}

/// Blobs that nobody else asks for as long as this lives.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Arc<Flights>,
    namespace: Namespace,
    digests: Vec<Digest>,
}

impl Flights {
    /// Those of the blobs that nobody asks for; from now on the caller does.
    pub(super) fn claim(self: &Arc<Self>, namespace: &Namespace, digests: &[Digest]) -> Flight {
        let mut coming = self.lock();
        let free = digests.iter().copied().filter(|digest| coming.insert((namespace.clone(), *digest)));
        let digests = free.collect();
        drop(coming);
        Flight { flights: Arc::clone(self), namespace: namespace.clone(), digests }
    }

    /// Waits until nobody asks for any of the blobs.
    pub(super) async fn settled(&self, namespace: &Namespace, digests: &[Digest]) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on nothing is missed.
            changed.as_mut().enable();
            let coming = digests.iter().any(|digest| self.lock().contains(&(namespace.clone(), *digest)));
            if !coming {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Namespace, Digest)>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    pub(super) fn digests(&self) -> &[Digest] {
        &self.digests
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut coming = self.flights.lock();
        for digest in &self.digests {
            coming.remove(&(self.namespace.clone(), *digest));
        }
        drop(coming);
        self.flights.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_blob_is_asked_for_by_one_and_by_the_next_when_that_one_gave_up() {
        let flights = Arc::new(Flights::default());
        let namespace = Namespace::trusted("p");
        let [one, two, three] = [1, 2, 3].map(|n: u8| Digest::of(&[n]));
        let first = flights.claim(&namespace, &[one, two]);
        let second = flights.claim(&namespace, &[one, two, three]);
        assert_eq!((first.digests(), second.digests()), (&[one, two][..], &[three][..]));
        assert_eq!(flights.claim(&Namespace::trusted("q"), &[one]).digests(), [one], "others may read other things");
        let both = [one, two];
        let mut waiting = std::pin::pin!(flights.settled(&namespace, &both));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(first);
        waiting.await;
        assert_eq!(flights.claim(&namespace, &[one, three]).digests(), [one]);
    }
}
