//! Checks every byte that is stored.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use windlass_protocol::{Digest, Namespace};

use crate::appender::Item;
use crate::blob::Blob;
use crate::error::{Fault, OrFault as _};
use crate::index::{NamespaceNo, Pin, Place};
use crate::segment::{self, Check, Record};
use crate::store::{Shared, Store};
use crate::vfs::Vfs;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Blobs that were read.
    pub blobs: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Blobs whose bytes are not what their names say; they are put aside. Sorted.
    pub damaged: Vec<Digest>,
    /// Bytes in segments that belong to no whole record.
    pub damaged_bytes: u64,
}

impl Store {
    /// Reads and checks every blob. Damaged ones are put aside and never served; the rest stays available meanwhile.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn verify(&self) -> Result<Report, Fault> {
        let shared = &self.shared;
        let all: Vec<Digest> = shared.index().iter().map(|entry| entry.digest()).collect();
        let mut report =
            Report { damaged_bytes: shared.counters.damaged_bytes.load(Ordering::Relaxed), ..Report::default() };
        for digest in all {
            let found = shared.index().get(&digest).map(|entry| (entry.place, entry.pin()));
            let Some((place, pin)) = found else { continue };
            let whole = match shared.read(&digest, place, pin)? {
                None => false,
                Some(blob) => match whole(&blob) {
                    Ok(whole) => whole,
                    Err(Fault::Damaged { .. }) => false,
                    Err(other) => return Err(other),
                },
            };
            report.blobs += 1;
            report.bytes += place.bytes();
            if !whole {
                report.damaged.push(digest);
            }
        }
        report.damaged.sort();
        Ok(report)
    }
}

/// Reads a blob through. That it is the one of its name is seen here even where each chunk proves itself.
fn whole(blob: &Blob) -> Result<bool, Fault> {
    let mut hasher = blake3::Hasher::new();
    blob.copy_to(&mut |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    let whole = Digest::from_hasher(&hasher) == blob.digest;
    if !whole {
        blob.shared.set_aside(&blob.digest, &blob.pin);
    }
    Ok(whole)
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
