//! Reads everything that a store has, segment by segment, while it serves: what is damaged is put aside as it is found.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use windlass_protocol::Digest;
use windlass_protocol::limits::VERIFY_NAMED_MAX;

use super::Report;
use crate::blob::Blob;
use crate::error::{Fault, OrFault as _};
use crate::index::Place;
use crate::segment::{self, Check, Record, holes};
use crate::store::{Durability, Shared, Store};
use crate::vfs::VfsFile;

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Blobs that were read.
    pub blobs: usize,
    /// Blobs that there were when it began.
    pub of_blobs: usize,
    /// Bytes of them that were read.
    pub bytes: u64,
    /// Bytes of them that there were.
    pub of_bytes: u64,
    /// Blobs that were found damaged.
    pub damaged: usize,
}

/// Hears how far a check is, with every piece of a blob; it may take its time, and may end it.
pub type Watch<'a> = &'a mut dyn FnMut(&Progress) -> ControlFlow<()>;

impl Store {
    /// Reads and checks every blob. Damaged ones are put aside and never served; the rest stays available meanwhile.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn verify(&self) -> Result<Report, Fault> {
        self.verify_watched(&mut |_| ControlFlow::Continue(()))
    }

    /// As [`Store::verify`], with somebody who watches.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn verify_watched(&self, watch: Watch<'_>) -> Result<Report, Fault> {
        let shared = &self.shared;
        let (of_blobs, of_bytes, _) = shared.index().totals();
        let progress = Progress { of_blobs, of_bytes, ..Progress::default() };
        let mut walk = Walk { shared, watch, progress, report: Report::default(), ended: false };
        for number in shared.segment_numbers() {
            walk.segment(number)?;
            if walk.ended {
                break;
            }
        }
        let Walk { mut report, progress, ended, .. } = walk;
        let complete = !ended && report.unreachable_blobs == 0;
        (report.blobs, report.bytes, report.complete) = (progress.blobs, progress.bytes, complete);
        // At the start there was more where a segment without a head was set aside.
        report.damaged_bytes = report.damaged_bytes.max(shared.counters.damaged_bytes.load(Ordering::Relaxed));
        report.torn_bytes = shared.counters.torn_bytes.load(Ordering::Relaxed);
        report.damaged.sort();
        report.damaged.dedup();
        Ok(report)
    }

    /// Takes damage out of the segments, so that the next start finds none, and gives back what a lost record kept: for a
    /// store that nobody has used since it was opened, whose index is what its records say. Answers how many bytes it were.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn mend(&self) -> Result<u64, Fault> {
        let shared = &self.shared;
        // What it says of the segments is not so any more.
        shared.remove_copy()?;
        let mut mended = 0;
        for number in shared.segment_numbers() {
            let Some(file) = shared.segment_file(number) else { continue };
            if shared.away.as_ref().is_some_and(|away| away.bones(number).is_some()) {
                // Looked at when the store was opened, and made anew then.
                continue;
            }
            let path = segment::path(&shared.segments_dir(), number);
            let Some(salt) = segment::read_salt(&*file).or_fault("reading", &path)? else { continue };
            let head_bytes = holes::damaged_head_bytes(&*file, &salt).or_fault("reading", &path)?;
            if head_bytes > 0 {
                holes::mend_head(&*file, &salt).or_fault("mending", &path)?;
            }
            let found = holes::holes(&*file, &salt).or_fault("reading", &path)?;
            for hole in &found {
                holes::fill(&*file, &salt, *hole).or_fault("mending", &path)?;
                tracing::warn!(segment = number, offset = hole.0, bytes = hole.1, "segment_mended");
            }
            let bytes = head_bytes + found.iter().map(|(_, bytes)| bytes).sum::<u64>();
            if bytes > 0 && shared.options.durability == Durability::Durable {
                file.sync_data().or_fault("syncing", &path)?;
            }
            mended += bytes;
        }
        Ok(mended)
    }
}

/// A check that is under way.
struct Walk<'a, 'w> {
    shared: &'a Arc<Shared>,
    watch: Watch<'w>,
    progress: Progress,
    report: Report,
    /// Whoever watches has had enough.
    ended: bool,
}

impl Walk<'_, '_> {
    fn segment(&mut self, number: u32) -> Result<(), Fault> {
        // One that is gone was compacted or evicted: what it had is elsewhere, or nobody's.
        let Some(file) = self.shared.segment_file(number) else { return Ok(()) };
        let bones = self.shared.away.as_ref().and_then(|away| away.bones(number));
        let file = bones.map_or(file, |bones| bones.to_look_through());
        let path = segment::path(&self.shared.segments_dir(), number);
        let name = format!("{number:08}.seg");
        let Some(salt) = segment::read_salt(&*file).or_fault("reading", &path)? else {
            let bytes = file.len().or_fault("measuring", &path)?;
            self.report.add_segment(name, bytes);
            return Ok(());
        };
        let mut outcome = Ok(());
        let scanned = segment::scan(&*file, &salt, Check::Headers, &mut |record| {
            if outcome.is_ok() && !self.ended {
                outcome = self.record(number, &record);
            }
        })
        .or_fault("reading", &path)?;
        outcome?;
        let head_bytes = holes::damaged_head_bytes(&*file, &salt).or_fault("reading", &path)?;
        if scanned.damaged_bytes + head_bytes > 0 {
            self.report.add_segment(name, scanned.damaged_bytes + head_bytes);
        }
        Ok(())
    }

    /// Checks the blob that a record stores, if it is the record that counts.
    fn record(&mut self, number: u32, record: &Record) -> Result<(), Fault> {
        let (digest, at) = match record {
            Record::Blob { digest, offset, .. } | Record::Manifest { digest, offset, .. } => (digest, Some(*offset)),
            Record::Large { digest, .. } => (digest, None),
            Record::Namespace { .. }
            | Record::Grant { .. }
            | Record::Void { .. }
            | Record::Release { .. }
            | Record::Chunks(_)
            | Record::Seen { .. }
            | Record::Alias { .. } => return Ok(()),
        };
        let entry = self.shared.index().get(digest).map(|entry| (entry.place, entry.pin()));
        let Some((place, pin)) = entry.filter(|(place, _)| lies(*place) == (number, at)) else { return Ok(()) };
        let end = self.progress.bytes + place.bytes();
        let read = match self.shared.read_disk(digest, place, pin) {
            Err(Fault::Unavailable { .. }) => return self.unreachable(end),
            other => other?,
        };
        let blob = match read {
            // It was let go of meanwhile, or was put aside.
            None if self.shared.index().get(digest).is_some() => return Ok(()),
            blob => blob,
        };
        let whole = match blob {
            None => false,
            Some(blob) => match self.whole(&blob) {
                Ok(whole) => whole,
                Err(Fault::Damaged { .. }) => false,
                Err(Fault::Unavailable { .. }) => return self.unreachable(end),
                Err(other) => return Err(other),
            },
        };
        if self.ended {
            return Ok(());
        }
        // Also of one that broke off.
        (self.progress.blobs, self.progress.bytes) = (self.progress.blobs + 1, end);
        if !whole {
            self.progress.damaged += 1;
            self.report.damaged_blobs += 1;
            if self.report.damaged.len() < VERIFY_NAMED_MAX {
                self.report.damaged.push(*digest);
            }
        }
        self.step(0);
        Ok(())
    }

    /// The bucket did not give a blob. The check goes on: the next ones may be on the disk.
    fn unreachable(&mut self, end: u64) -> Result<(), Fault> {
        self.report.unreachable_blobs += 1;
        (self.progress.blobs, self.progress.bytes) = (self.progress.blobs + 1, end);
        self.step(0);
        Ok(())
    }

    /// Reads a blob through. That it is the one of its name is seen here even where each chunk proves itself.
    fn whole(&mut self, blob: &Blob) -> Result<bool, Fault> {
        let mut hasher = blake3::Hasher::new();
        let read = blob.copy_to(&mut |bytes| {
            hasher.update(bytes);
            self.step(bytes.len());
            // Any error ends the reading; this one is not told.
            if self.ended { Err(Fault::Lost { doing: "a check" }) } else { Ok(()) }
        });
        if self.ended {
            return Ok(true);
        }
        read?;
        let whole = Digest::from_hasher(&hasher) == blob.digest;
        if !whole {
            blob.shared.set_aside(&blob.digest, &blob.pin);
        }
        Ok(whole)
    }

    fn step(&mut self, bytes: usize) {
        self.progress.bytes += bytes as u64;
        self.ended |= (self.watch)(&self.progress).is_break();
    }
}

/// Which record of which segment a blob is in: by where its payload begins, or, where it has a file of its own, any.
const fn lies(place: Place) -> (u32, Option<u64>) {
    match place {
        Place::Small { segment, offset, .. } | Place::Chunked { segment, offset, .. } => (segment, Some(offset)),
        Place::Large { segment, .. } => (segment, None),
    }
}

impl Shared {
    fn segment_numbers(&self) -> Vec<u32> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let mut numbers: Vec<u32> = segments.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    fn segment_file(&self, number: u32) -> Option<Arc<dyn VfsFile>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }
}
