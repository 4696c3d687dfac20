//! What keeps blobs from being evicted, for those alone that somebody needs at this moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use windlass_protocol::Digest;

/// Keeps a blob from being evicted for as long as it lives.
#[derive(Debug, Clone)]
pub(crate) struct Pin(Arc<Pinned>);

#[derive(Debug)]
struct Pinned {
    digest: Digest,
    pins: Arc<Mutex<HashMap<Digest, Weak<Self>>>>,
}

/// The pins of blobs that are stored.
#[derive(Debug, Default)]
pub(super) struct PinTable(Arc<Mutex<HashMap<Digest, Weak<Pinned>>>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pin {
    /// Whether somebody else has it too.
    pub(crate) fn shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = lock(&self.pins);
        // Not that of a blob that was stored again.
        if pins.get(&self.digest).is_some_and(|pin| std::ptr::eq(pin.as_ptr(), self)) {
            pins.remove(&self.digest);
        }
    }
}

impl PinTable {
    /// The blob's pin.
    pub(super) fn pin(&self, digest: &Digest) -> Pin {
        let mut pins = lock(&self.0);
        if let Some(pinned) = pins.get(digest).and_then(Weak::upgrade) {
            return Pin(pinned);
        }
        let pinned = Arc::new(Pinned { digest: *digest, pins: Arc::clone(&self.0) });
        pins.insert(*digest, Arc::downgrade(&pinned));
        Pin(pinned)
    }

    /// Whether somebody has one.
    pub(super) fn pinned(&self, digest: &Digest) -> bool {
        lock(&self.0).get(digest).is_some_and(|pinned| pinned.strong_count() > 0)
    }

    /// Whether this is the blob's pin: one that was removed and stored again has another.
    pub(super) fn is(&self, digest: &Digest, pin: &Pin) -> bool {
        lock(&self.0).get(digest).is_some_and(|pinned| std::ptr::eq(pinned.as_ptr(), Arc::as_ptr(&pin.0)))
    }

    /// The pin of a blob that is removed; it is the blob's no more.
    pub(super) fn take(&self, digest: &Digest) -> Pin {
        let pin = self.pin(digest);
        lock(&self.0).remove(digest);
        pin
    }
}
