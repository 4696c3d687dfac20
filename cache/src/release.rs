//! Lets go of blobs that nobody names any more, namespace by namespace: the last one takes the bytes away.
//!
//! The chunks of a large blob go that no other blob holds, at once or when their last reader is done; the bytes of a small one
//! when their segment is compacted. A crash may leave chunks that no record counts on; opening the store gives
//! them back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use windlass_protocol::limits::SWEEP_ROWS;
use windlass_protocol::{Digest, Namespace};

use crate::appender::Item;
use crate::error::Error;
use crate::index::{Pin, Place, Walk};
use crate::store::Store;

/// A blob that a namespace sees by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldBlob {
    /// The namespace.
    pub namespace: Namespace,
    /// The blob.
    pub digest: Digest,
    /// When it was used last, in an order of its own: the same again says that nobody has asked for it since.
    pub used: u64,
}

/// A blob that is about to be let go.
struct Leaving {
    nth: usize,
    digest: Digest,
    place: Place,
    pin: Pin,
}

/// What was let go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Released {
    /// Its place among those that were to be.
    pub(crate) nth: usize,
    /// The blob's bytes.
    pub(crate) bytes: u64,
    /// It is stored no more.
    pub(crate) gone: bool,
}

impl Store {
    /// All blobs that namespaces of this kind see by themselves, in no order. Nobody waits for longer than some thousand of
    /// them take; what is stored meanwhile may be left out.
    #[must_use]
    pub fn held(&self, of: impl Fn(&Namespace) -> bool) -> Vec<HeldBlob> {
        let (mut held, mut cursor) = (Vec::new(), Walk::default());
        let mut wanted: Vec<bool> = Vec::new();
        loop {
            let index = self.shared.index();
            wanted.extend(index.names().iter().skip(wanted.len()).map(&of));
            let more = index.walk(&mut cursor, SWEEP_ROWS, |entry| {
                let seen_by = entry.seen_by().iter().filter(|number| wanted.get(**number as usize) == Some(&true));
                held.extend(seen_by.filter_map(|number| {
                    let namespace = index.name(*number)?.clone();
                    Some(HeldBlob { namespace, digest: entry.digest(), used: entry.last_used().into() })
                }));
            });
            if !more {
                return held;
            }
        }
    }

    /// The length of a blob that the namespace sees. It counts as no request for it.
    #[must_use]
    pub fn blob_len(&self, namespace: &Namespace, digest: &Digest) -> Option<u64> {
        self.shared.index().visible(namespace, digest).map(|entry| entry.place.bytes())
    }

    /// Takes blobs from a namespace, durably; those that it does not see by itself are passed over. A blob that no other
    /// namespace sees is stored no more; who holds it reads it to its end. Those that were used since `used` stay.
    ///
    /// Answers how many blobs are stored no more.
    ///
    /// # Errors
    /// [`crate::Fault::Io`] where the disk fails: blobs may be gone from the namespace, and come back with the next start.
    pub fn release(&self, held: &[HeldBlob]) -> Result<usize, Error> {
        let released = self.release_each(held)?;
        Ok(released.iter().filter(|released| released.gone).count())
    }

    /// As [`Self::release`]; answers what was let go.
    pub(crate) fn release_each(&self, held: &[HeldBlob]) -> Result<Vec<Released>, Error> {
        let shared = &self.shared;
        let _alone = shared.releasing.write().unwrap_or_else(PoisonError::into_inner);
        let mut leaving: BTreeMap<&Namespace, Vec<Leaving>> = BTreeMap::new();
        {
            let index = shared.index();
            for (nth, HeldBlob { namespace, digest, used }) in held.iter().enumerate() {
                let entry = index.get(digest).filter(|entry| u64::from(entry.last_used()) == *used);
                let (Some(entry), Some(number)) = (entry, index.number(namespace)) else { continue };
                if entry.seen_by().contains(&number) {
                    let blob = Leaving { nth, digest: *digest, place: entry.place, pin: entry.pin() };
                    leaving.entry(namespace).or_default().push(blob);
                }
            }
        }
        for (namespace, blobs) in &leaving {
            let items: Vec<_> = blobs.iter().map(|blob| Item::Release { digest: blob.digest }).collect();
            shared.commit(namespace, &items)?;
        }
        let (mut released, mut seen) = (Vec::new(), BTreeSet::new());
        for Leaving { nth, digest, place, pin } in leaving.into_values().flatten() {
            let gone = !shared.stored(&digest) && seen.insert(digest);
            if gone {
                // Those after one that fails stay counted.
                shared.give_back(&digest, place, pin).inspect_err(|_| shared.chunks.table().doubt())?;
            }
            released.push(Released { nth, bytes: place.bytes(), gone });
        }
        // One that several namespaces let go has no reader left only now.
        shared.sweep()?;
        Ok(released)
    }
}
