//! Verifying a directory that nobody has open: `coordinator --check`. Changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use windlass_cache::Vfs;
use windlass_protocol::limits::CHECK_PROBLEMS_MAX;
use windlass_protocol::{AttemptId, Digest};

use crate::error::Fault;
use crate::record::{Header, Kind};
use crate::recover::list_segments;
use crate::sealed::SealedFile;
use crate::segment::{SegmentFile, segment_path};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Segments read.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Logs in segments that are not sealed.
    pub live_logs: u64,
    /// Sealed logs read.
    pub sealed_logs: u64,
    /// Bytes of all logs.
    pub log_bytes: u64,
    /// Bytes at the ends of segments that are no records: what a crash tore, and nobody was told of.
    pub torn_bytes: u64,
    /// What is wrong, in sentences; at most [`CHECK_PROBLEMS_MAX`].
    pub problems: Vec<String>,
    /// Problems beyond those.
    pub more_problems: u64,
}

/// A log that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// Of this attempt.
    pub attempt: AttemptId,
    /// Its durable length.
    pub bytes: u64,
    /// Its digest, where it is sealed.
    pub digest: Option<Digest>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < CHECK_PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.more_problems += 1;
        }
    }
}

/// A log as records tell.
#[derive(Debug, Default)]
struct Seen {
    end: u64,
    /// A record lay past the end.
    gap: bool,
    deleted: bool,
}

/// Reads every segment and every sealed log of a directory and verifies all of it. `tell` hears of each log, so that
/// it can be compared with the store's rows.
///
/// # Errors
/// [`Fault`] where the disk refuses to be read; damage is in the report.
pub fn check(vfs: &dyn Vfs, dir: &Path, mut tell: impl FnMut(&LogSummary)) -> Result<Report, Fault> {
    let mut report = Report::default();
    let mut seen: BTreeMap<AttemptId, Seen> = BTreeMap::new();
    check_segments(vfs, &dir.join("segments"), &mut report, &mut seen)?;
    check_sealed(vfs, &dir.join("sealed"), &mut report, &mut seen, &mut tell)?;
    for (attempt, log) in seen {
        if log.deleted {
            continue;
        }
        if log.gap {
            report.problem(format!("the log of attempt {attempt} goes on past bytes that are missing at {}", log.end));
        }
        report.live_logs += 1;
        report.log_bytes += log.end;
        tell(&LogSummary { attempt, bytes: log.end, digest: None });
    }
    Ok(report)
}

fn check_segments(
    vfs: &dyn Vfs,
    dir: &Path,
    report: &mut Report,
    seen: &mut BTreeMap<AttemptId, Seen>,
) -> Result<(), Fault> {
    let segments = list_segments(vfs, dir)?;
    for (index, seq) in segments.iter().enumerate() {
        let path = segment_path(dir, *seq);
        let file = vfs.open_read(&path).map_err(Fault::disk("open", &path))?;
        let segment = Arc::new(SegmentFile { seq: *seq, path, file });
        let walked = segment.walk(|_, header, _| see(seen, header))?;
        report.segments += 1;
        report.records += walked.records;
        report.torn_bytes += walked.file_bytes - walked.valid_bytes;
        let path = segment.path.display();
        if walked.bad_records > 0 {
            report.problem(format!("{path} has {} records that are not what was written", walked.bad_records));
        }
        if walked.valid_bytes < walked.file_bytes && index + 1 < segments.len() {
            report.problem(format!("{path} cannot be read past byte {}", walked.valid_bytes));
        }
    }
    Ok(())
}

fn see(seen: &mut BTreeMap<AttemptId, Seen>, header: &Header) {
    let log = seen.entry(header.attempt).or_default();
    match header.kind {
        Kind::Data if header.offset == log.end => {
            log.end += u64::from(header.len);
            log.gap = false;
        }
        Kind::Data => log.gap |= header.offset > log.end,
        Kind::Deleted => log.deleted = true,
        Kind::Fence | Kind::Incomplete => {}
    }
}

fn check_sealed(
    vfs: &dyn Vfs,
    dir: &Path,
    report: &mut Report,
    seen: &mut BTreeMap<AttemptId, Seen>,
    tell: &mut impl FnMut(&LogSummary),
) -> Result<(), Fault> {
    for item in vfs.list(dir).map_err(Fault::disk("list", dir))? {
        let path = dir.join(&item.name);
        let name = item.name.strip_suffix(".wlog").and_then(|name| name.parse::<AttemptId>().ok());
        let Some(attempt) = name.filter(|_| !item.is_dir) else {
            if !item.name.ends_with(".tmp") {
                report.problem(format!("{} is not ours", path.display()));
            }
            continue;
        };
        seen.remove(&attempt);
        report.sealed_logs += 1;
        let file = vfs.open_read(&path).map_err(Fault::disk("open", &path))?;
        match SealedFile::open(file, path, attempt).and_then(|file| file.verify().map(|()| file)) {
            Ok(file) => {
                report.log_bytes += file.bytes;
                tell(&LogSummary { attempt, bytes: file.bytes, digest: Some(file.digest) });
            }
            Err(fault @ Fault::Damaged { .. }) => report.problem(fault.to_string()),
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}
