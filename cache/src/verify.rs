//! Checks every byte that is stored, and puts aside what is damaged.

mod walk;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use windlass_protocol::limits::VERIFY_NAMED_MAX;
use windlass_protocol::{Digest, Namespace};

use crate::appender::Item;
use crate::error::{Fault, OrFault as _};
use crate::index::{NamespaceNo, Pin, Place};
use crate::segment::{self, Check, Record};
use crate::store::Shared;
use crate::vfs::Vfs;
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

/// Checks the segments of a store that may be open elsewhere: reads only, takes no lock, changes nothing.
///
/// A last segment that is being written may end in half a record; that is not counted as damage.
///
/// # Errors
/// [`Fault::Io`] where the disk fails.
pub fn verify_segments(vfs: &dyn Vfs, dir: &Path) -> Result<Report, Fault> {
    let dir = dir.join("segments");
    let mut report = Report::default();
    for item in vfs.list(&dir).or_fault("listing", &dir)? {
        let Some(number) = segment::number(&item.name) else { continue };
        let path = segment::path(&dir, number);
        let file = vfs.open_read(&path).or_fault("opening", &path)?;
        let Some(salt) = segment::read_salt(&*file).or_fault("reading", &path)? else {
            report.damaged_bytes += item.len;
            continue;
        };
        let mut blobs = Vec::new();
        let scanned = segment::scan(&*file, &salt, Check::Headers, &mut |record| {
            if let Record::Blob { digest, offset, bytes, .. } = record {
                blobs.push((digest, offset, bytes));
            }
        })
        .or_fault("reading", &path)?;
        report.damaged_bytes += scanned.damaged_bytes;
        for (digest, offset, bytes) in blobs {
            let mut buffer = vec![0; bytes as usize];
            file.read_exact_at(offset, &mut buffer).or_fault("reading", &path)?;
            report.blobs += 1;
            report.bytes += u64::from(bytes);
            if Digest::of(&buffer) != digest {
                report.damaged.push(digest);
            }
        }
    }
    report.damaged.sort();
    report.damaged.dedup();
    (report.damaged_blobs, report.complete) = (report.damaged.len(), true);
    Ok(report)
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
