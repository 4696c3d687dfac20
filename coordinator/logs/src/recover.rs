//! Opening a directory: what a crash left is read back from the segments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use windlass_cache::Vfs;
use windlass_cache::vfs::ensure_dir;
use windlass_protocol::AttemptId;

use crate::catalog::Catalog;
use crate::error::Fault;
use crate::log::{Log, Phase, Run, State};
use crate::record::{self, Header, Kind};
use crate::segment::{SegmentFile, segment_seq};

/// What was found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) catalog: Catalog,
    /// Logs that have ended and are not sealed.
    pub(crate) unsealed: Vec<AttemptId>,
    pub(crate) next_seq: u64,
}

/// Logs as the segments tell, and those that a mark voids with the segment of that mark.
#[derive(Debug, Default)]
struct Found {
    logs: BTreeMap<AttemptId, Arc<Log>>,
    deleted: BTreeMap<AttemptId, u64>,
    /// Of deleted logs: where records of them lie.
    remains: BTreeSet<(AttemptId, u64)>,
}

/// Reads a directory back, and makes durable what is found, for the run before may have ended before its sync.
pub(crate) fn recover(vfs: &dyn Vfs, dir: &Path) -> Result<Recovered, Fault> {
    let (segments_dir, sealed_dir) = (dir.join("segments"), dir.join("sealed"));
    make_dirs(vfs, dir, &[&segments_dir, &sealed_dir])?;
    tidy_sealed(vfs, &sealed_dir)?;
    let mut catalog = Catalog::default();
    let mut found = Found::default();
    let segments = list_segments(vfs, &segments_dir)?;
    let next_seq = segments.last().map_or(1, |seq| seq + 1);
    for (index, seq) in segments.iter().enumerate() {
        let path = crate::segment::segment_path(&segments_dir, *seq);
        let file = vfs.open(&path).map_err(Fault::disk("open", &path))?;
        let segment = Arc::new(SegmentFile { seq: *seq, path, file });
        let bytes = read_segment(&segment, &mut found, index + 1 == segments.len())?;
        catalog.add_segment(segment, bytes, false);
    }
    if !segments.is_empty() {
        vfs.sync_dir(&segments_dir).map_err(Fault::disk("sync", &segments_dir))?;
    }
    let unsealed = fill(vfs, &sealed_dir, &mut catalog, found)?;
    Ok(Recovered { catalog, unsealed, next_seq })
}

/// Makes the folders that are missing, durably.
fn make_dirs(vfs: &dyn Vfs, dir: &Path, folders: &[&Path]) -> Result<(), Fault> {
    ensure_dir(vfs, dir).map_err(Fault::disk("make", dir))?;
    for folder in folders {
        match vfs.create_dir(folder) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Fault::disk("make", folder)(e)),
        }
    }
    vfs.sync_dir(dir).map_err(Fault::disk("sync", dir))
}

/// The numbers of the segments in a folder, rising.
pub(crate) fn list_segments(vfs: &dyn Vfs, segments_dir: &Path) -> Result<Vec<u64>, Fault> {
    let items = vfs.list(segments_dir).map_err(Fault::disk("list", segments_dir))?;
    Ok(items.iter().filter(|item| !item.is_dir).filter_map(|item| segment_seq(&item.name)).collect())
}

/// Drops what was being sealed, and makes the names of what was sealed durable.
fn tidy_sealed(vfs: &dyn Vfs, sealed_dir: &Path) -> Result<(), Fault> {
    let items = vfs.list(sealed_dir).map_err(Fault::disk("list", sealed_dir))?;
    for item in &items {
        if !item.is_dir && item.name.ends_with(".tmp") {
            let path = sealed_dir.join(&item.name);
            vfs.remove(&path).map_err(Fault::disk("remove", &path))?;
        }
    }
    if items.is_empty() {
        return Ok(());
    }
    vfs.sync_dir(sealed_dir).map_err(Fault::disk("sync", sealed_dir))
}

/// Reads a segment; cuts what is torn off the newest; makes the rest durable. Gives its length.
fn read_segment(segment: &Arc<SegmentFile>, found: &mut Found, newest: bool) -> Result<u64, Fault> {
    let walked = segment.walk(|position, header, payload| found.take(segment, position, header, payload))?;
    let torn_bytes = walked.file_bytes - walked.valid_bytes;
    if torn_bytes > 0 && newest {
        segment.file.truncate(walked.valid_bytes).map_err(Fault::disk("cut", &segment.path))?;
        tracing::info!(?segment, torn_bytes, "log_segment_cut");
    } else if torn_bytes > 0 {
        tracing::warn!(?segment, torn_bytes, "log_segment_has_unreadable_bytes");
    }
    segment.file.sync_data().map_err(Fault::disk("sync", &segment.path))?;
    Ok(if newest { walked.valid_bytes } else { walked.file_bytes })
}

impl Found {
    fn take(&mut self, segment: &Arc<SegmentFile>, position: u64, header: &Header, payload: &[u8]) {
        let attempt = header.attempt;
        if header.kind == Kind::Deleted {
            if let Some(log) = self.logs.remove(&attempt) {
                self.remains.extend(log.lock().homes.iter().map(|seq| (attempt, *seq)));
            }
            self.deleted.insert(attempt, segment.seq);
            self.remains.insert((attempt, segment.seq));
            return;
        }
        if self.deleted.contains_key(&attempt) {
            self.remains.insert((attempt, segment.seq));
            return;
        }
        let log = self.logs.entry(attempt).or_insert_with(|| Arc::new(Log::new(attempt)));
        let mut state = log.lock();
        state.homes.insert(segment.seq);
        state.hasher = None;
        match header.kind {
            Kind::Data => take_data(&mut state, segment, position, header),
            Kind::Fence => {
                if let Some((least, ended)) = record::parse_fence(payload) {
                    state.least = state.least.max(least);
                    if ended {
                        state.phase = Phase::Ended { durable: true };
                    }
                }
            }
            Kind::Incomplete => state.incomplete = Some(String::from_utf8_lossy(payload).into_owned()),
            Kind::Deleted => {}
        }
    }
}

fn take_data(state: &mut State, segment: &Arc<SegmentFile>, position: u64, header: &Header) {
    // Below the end it is a repetition, past it bytes before it are lost; see the module `record`.
    if header.offset == state.durable {
        let span = (record::RECORD_HEADER_BYTES as u64) + u64::from(header.len);
        let segment = Arc::clone(segment);
        state.settle(Run { segment, position, span, offset: header.offset, len: u64::from(header.len) });
    }
}

/// Enters what was found into the catalog; gives the logs that have ended and are not sealed.
fn fill(vfs: &dyn Vfs, sealed_dir: &Path, catalog: &mut Catalog, found: Found) -> Result<Vec<AttemptId>, Fault> {
    for (attempt, seq) in &found.remains {
        catalog.hold(*attempt, *seq);
    }
    for (attempt, seq) in &found.deleted {
        catalog.bury(*attempt, *seq);
        finish_deletion(vfs, sealed_dir, *attempt)?;
    }
    let mut unsealed = Vec::new();
    for (attempt, log) in found.logs {
        let mut state = log.lock();
        for seq in &state.homes {
            catalog.hold(attempt, *seq);
        }
        if is_sealed(vfs, sealed_dir, attempt)? {
            catalog.release(attempt);
            continue;
        }
        let ended = state.phase != Phase::Open;
        if state.durable == 0 {
            state.hasher = Some(blake3::Hasher::new());
            state.digest = ended.then(|| windlass_protocol::Digest::of(b""));
        }
        let blank = ended && state.durable == 0 && state.incomplete.is_none();
        drop(state);
        catalog.insert(log);
        if blank {
            catalog.forget(attempt);
        } else if ended {
            unsealed.push(attempt);
        }
    }
    Ok(unsealed)
}

/// A crash came between the mark of a deletion and the removal of the sealed file.
fn finish_deletion(vfs: &dyn Vfs, sealed_dir: &Path, attempt: AttemptId) -> Result<(), Fault> {
    let path = sealed_dir.join(format!("{attempt}.wlog"));
    match vfs.remove(&path) {
        Ok(()) => vfs.sync_dir(sealed_dir).map_err(Fault::disk("sync", sealed_dir)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Fault::disk("remove", &path)(e)),
    }
}

/// Whether a log is sealed. Its name appears only when the file is whole, and the records may be gone in part since:
/// a sealed file that is damaged is never replaced.
fn is_sealed(vfs: &dyn Vfs, sealed_dir: &Path, attempt: AttemptId) -> Result<bool, Fault> {
    let path = sealed_dir.join(format!("{attempt}.wlog"));
    match vfs.open_read(&path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Fault::disk("open", &path)(e)),
    }
}
