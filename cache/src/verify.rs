//! Checks every byte that is stored, and puts aside what is damaged.

mod walk;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use windlass_protocol::limits::VERIFY_NAMED_MAX;
use windlass_protocol::{Digest, Namespace};

use crate::appender::Item;
use crate::error::Fault;
use crate::index::{NamespaceNo, Pin, Place};
use crate::store::Shared;
pub use walk::{Progress, Watch};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Blobs that were read.
    pub blobs: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Blobs whose bytes are not what their names say; they are put aside. Sorted, the first [`VERIFY_NAMED_MAX`].
    pub damaged: Vec<Digest>,
    /// How many they are.
    pub damaged_blobs: usize,
    /// Blobs that lie in the bucket, which did not answer: nothing is known of them.
    pub unreachable_blobs: usize,
    /// Bytes in segments that belong to no whole record: what those said is not known any more.
    pub damaged_bytes: u64,
    /// Bytes that the start cut off the last segment: of a write that a crash interrupted, which nobody was told of; or they
    /// rotted, which looks the same.
    pub torn_bytes: u64,
    /// Segments with damaged bytes, and how many: the first [`VERIFY_NAMED_MAX`].
    pub segments: Vec<(String, u64)>,
    /// Everything was read; else whoever watched ended it.
    pub complete: bool,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.damaged_blobs == 0 && self.damaged_bytes == 0
    }

    /// What is to be said where the bucket did not give blobs.
    #[must_use]
    pub fn unreachable(&self) -> Option<String> {
        let Self { unreachable_blobs, .. } = self;
        let all = "all else was read";
        (*unreachable_blobs > 0)
            .then(|| format!("{unreachable_blobs} blobs lie in the bucket, which did not give them; {all}"))
    }

    fn add_segment(&mut self, name: String, bytes: u64) {
        self.damaged_bytes += bytes;
        if self.segments.len() < VERIFY_NAMED_MAX {
            self.segments.push((name, bytes));
        }
    }
}

impl Shared {
    /// Takes a damaged blob out of service: its file gets another name, and a record voids what was said of it. `pin` is
    /// that of the bytes that were found wrong: a blob that was stored again meanwhile stays.
    pub(crate) fn set_aside(self: &Arc<Self>, digest: &Digest, pin: &Pin) {
        let _one_at_a_time = self.removal.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_aside_alone(digest, pin);
    }

    /// The same, by whoever has `removal`.
    pub(crate) fn set_aside_alone(self: &Arc<Self>, digest: &Digest, pin: &Pin) {
        let Some(place) = self.index().get(digest).filter(|entry| entry.has_pin(pin)).map(|entry| entry.place) else {
            return;
        };
        tracing::warn!(%digest, "blob_damaged");
        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        if let Place::Large { .. } = place {
            let aside = self.large_dir().join(format!("damaged-{}", digest.to_hex()));
            if let Err(error) = self.vfs.rename(&self.large_path(digest), &aside) {
                tracing::warn!(%digest, %error, "blob_not_put_aside");
            }
        }
        if let Err(error) = self.void(digest).and_then(|()| self.give_back(digest, place, pin.clone())) {
            self.index_mut().remove(digest, None);
            self.chunks.table().doubt();
            tracing::warn!(%digest, %error, "blob_not_voided");
        }
    }

    /// Durably takes back what was said of a blob; it leaves the index at once.
    pub(crate) fn void(&self, digest: &Digest) -> Result<(), Fault> {
        // While the blob is in the index no other record of it can come before this one.
        self.appender.commit(self.nobody(), &[Item::Void { digest: *digest }])
    }

    /// On whose behalf records are written that are of no namespace.
    pub(crate) fn nobody(&self) -> NamespaceNo {
        self.index_mut().intern(&Namespace::trusted(""))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::chunk::manifest::ChunkManifest;
    use crate::store::{Store, StoreOptions};
    use crate::vfs::recorded::RecordingFs;

    /// Its chunks are all there and right, and so is its manifest: only that it is not the blob of its name.
    #[test]
    fn a_blob_that_is_another_one_is_damaged_though_each_part_of_it_proves_itself() {
        let fs = RecordingFs::new();
        let open = || Store::open(Arc::new(fs.clone()), Path::new("/s"), StoreOptions::default()).unwrap();
        let store = open();
        let (namespace, name) = (Namespace::trusted("p"), Digest::of(b"what it is called"));
        let mut bytes = vec![0; 200_000];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let digest = store.put(&namespace, &bytes).unwrap();
        let shared = &store.shared;
        let place = shared.index().get(&digest).unwrap().place;
        let Place::Chunked { segment, offset, .. } = place else { panic!("{place:?}") };
        let right = shared.read_manifest(&digest, segment, offset).unwrap().unwrap();
        let wrong = ChunkManifest::new(name, right.chunks().to_vec(), None);
        let item = Item::Manifest { digest: name, manifest: &wrong.encode(), bytes: wrong.blob_bytes() };
        shared.commit(&namespace, &[item]).unwrap();
        drop(store);
        let store = open();
        assert!(store.get(&namespace, &name).unwrap().is_some());
        let report = store.verify().unwrap();
        assert_eq!((report.damaged, report.blobs), (vec![name], 2));
        assert!(store.get(&namespace, &name).unwrap().is_none(), "it is put aside");
        assert_eq!(store.get(&namespace, &digest).unwrap().unwrap().into_vec().unwrap(), bytes);
        assert_eq!(store.verify().unwrap().damaged, []);
    }
}
