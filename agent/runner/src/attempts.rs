//! The attempts' directories: what a starting agent finds of those that its predecessor ran.

mod blanks;
mod unreadable;

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::digest::Digest;
use windlass_protocol::id::AttemptId;
use windlass_protocol::job::{Epoch, Outcome, Phase};
use windlass_protocol::limits::UNKILLABLE_MS;
use windlass_protocol::time::WallMs;

use crate::cgroup::{Cgroups, JobCgroup};
use crate::control::to_line;
use crate::launch::{
    CONTROL_SOCKET, ContainerRecord, LaunchRecord, Places, StartedRecord, is_blank, write_first, write_whole,
};
use crate::spool::SpoolReader;
use crate::supervisor::{boot_now_ms, bury_container};

pub use self::blanks::Blanks;
pub use self::unreadable::Unreadable;

/// Before the name of what is about to be removed.
const GONE: &str = ".gone-";

/// The name of what is about to be removed, and was `name`.
fn gone(name: &OsStr) -> OsString {
    let mut gone = OsString::from(GONE);
    gone.push(name);
    gone
}

/// What is found of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundAttempt {
    /// The attempt.
    pub attempt: AttemptId,
    /// By which right it was launched.
    pub epoch: Epoch,
    /// Its directory.
    pub dir: PathBuf,
    /// What the agent noted of it in [`prepare`].
    pub note: Vec<u8>,
    /// Its workspace.
    pub workspace: PathBuf,
    /// Its processes must end with its lease.
    pub exclusive: bool,
    /// How far it came.
    pub phase: Phase,
    /// When its command started.
    pub started_at: Option<WallMs>,
    /// What came of it, if it has ended.
    pub outcome: Option<Outcome>,
    /// Whether its supervisor lives: then it can be attached to. If not and there is no outcome, it is for [`bury`].
    pub supervised: bool,
    /// Whether it was launched: its command may have started. If not, [`discard_unlaunched`] settles that it never will.
    pub launched: bool,
}

/// Makes an attempt's directory, which nobody else can look into, and notes whose it is and what the agent wants to know
/// of it after a restart.
///
/// # Errors
/// Those of the file system; the directory must not exist.
pub fn prepare(jobs: &Path, record: &LaunchRecord, note: &[u8]) -> io::Result<PathBuf> {
    let dir = jobs.join(record.attempt.to_string());
    DirBuilder::new().mode(0o700).create(&dir)?;
    note_launch(&dir, record, note)?;
    Ok(dir)
}

/// Notes whose a directory is that says nothing of itself.
fn note_launch(dir: &Path, record: &LaunchRecord, note: &[u8]) -> io::Result<()> {
    write_first(&Places(dir).launch(), &with_note(record, note)?)
}

/// Notes that an attempt is held by a newer right.
///
/// # Errors
/// Those of the file system; the earlier note stands then.
pub fn adopt(dir: &Path, epoch: Epoch) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the attempt has no record");
    let (record, note) = read_launch(dir)?.ok_or_else(missing)?;
    write_whole(&Places(dir).launch(), &with_note(&LaunchRecord { epoch, ..record }, &note)?)
}

fn with_note(record: &LaunchRecord, note: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = to_line(record)?;
    bytes.extend_from_slice(note);
    Ok(bytes)
}

/// The record of an attempt and the agent's note; `None` where the directory says nothing of itself.
fn read_launch(dir: &Path) -> io::Result<Option<(LaunchRecord, Vec<u8>)>> {
    let bytes = match fs::read(Places(dir).launch()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    Ok(Some((serde_json::from_slice(&bytes[..end])?, bytes[end + 1..].to_vec())))
}

/// What an agent that starts finds below its `jobs`.
#[derive(Debug, Default)]
pub struct Scan {
    /// Attempts, in the order of their ids.
    pub found: Vec<FoundAttempt>,
    /// Those whose files cannot be read. They may run all the same.
    pub unreadable: Vec<Unreadable>,
}

/// All attempts below `jobs`, for an agent that starts. A directory that says nothing of itself was being made when its
/// predecessor died: it is removed. What is wrong with one attempt keeps nobody from the others.
///
/// # Errors
/// Those of listing `jobs`: then nobody knows what may run.
pub fn scan(jobs: &Path) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for entry in fs::read_dir(jobs)? {
        let dir = entry?.path();
        let Some(attempt) = attempt_of(&dir) else { continue };
        match find(&dir) {
            Ok(Some(found)) if found.attempt == attempt => scan.found.push(found),
            Ok(Some(_)) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, "the record is another attempt's");
                scan.unreadable.push(Unreadable::at(attempt, dir, &error));
            }
            Ok(None) => {
                if let Err(error) = remove(&dir) {
                    // Nothing of it runs. The next start tries again.
                    tracing::error!(path = %dir.display(), %error, "attempt_not_removed");
                }
            }
            Err(error) => scan.unreadable.push(Unreadable::at(attempt, dir, &error)),
        }
    }
    scan.found.sort_by_key(|found| found.attempt);
    scan.unreadable.sort_by_key(|unreadable| unreadable.attempt);
    Ok(scan)
}

/// Whose a path is, if it is one of ours: an attempt's, or what was moved aside of one.
fn attempt_of(dir: &Path) -> Option<AttemptId> {
    let name = dir.file_name()?.to_str()?;
    name.strip_prefix(GONE).unwrap_or(name).parse().ok()
}

/// What is found of one attempt; `None` where its directory is missing, or is only being made.
///
/// # Errors
/// Those of the file system.
pub fn find(dir: &Path) -> io::Result<Option<FoundAttempt>> {
    let places = Places(dir);
    let Some((record, note)) = read_launch(dir)? else { return Ok(None) };
    // Asked before the outcome is read: one that ends in between has left its outcome.
    let (supervised, launched) = (connect(dir).is_ok(), was_launched(dir));
    let started = read_json::<StartedRecord>(&places.started())?;
    let outcome = read_json::<Outcome>(&places.outcome())?;
    let phase = match (&outcome, &started) {
        (Some(_), _) => Phase::Finished,
        (None, Some(_)) => Phase::Running,
        (None, None) => Phase::Preparing,
    };
    Ok(Some(FoundAttempt {
        attempt: record.attempt,
        epoch: record.epoch,
        dir: dir.to_owned(),
        note,
        workspace: record.workspace,
        exclusive: record.exclusive,
        phase,
        started_at: started.as_ref().map(|started| started.at),
        supervised: supervised && outcome.is_none(),
        launched: supervised || launched || started.is_some() || outcome.is_some(),
        outcome,
    }))
}

/// The outcome of an attempt, if its supervisor has written it.
///
/// # Errors
/// Those of the file system, and a file that is no outcome.
pub fn outcome(dir: &Path) -> io::Result<Option<Outcome>> {
    read_json(&Places(dir).outcome())
}

/// The log of an attempt.
#[must_use]
pub fn spool(dir: &Path) -> SpoolReader {
    SpoolReader::open(&Places(dir).spool())
}

/// Ends what an attempt without a supervisor left running, and writes the outcome that its supervisor did not:
/// `why` becomes its cause. (The main process died with the supervisor; what it had started may live, and a container
/// does.)
///
/// # Errors
/// Those of the file system; `TimedOut` where its processes do not end, or an engine does not say that its container
/// has.
pub fn bury(found: &FoundAttempt, why: &str) -> io::Result<Outcome> {
    let started = read_json::<StartedRecord>(&Places(&found.dir).started())?;
    end_processes(found.attempt, started.as_ref(), false)?;
    let container = read_json::<ContainerRecord>(&Places(&found.dir).container())?;
    end_container(container.as_ref(), started.as_ref())?;
    let (log_bytes, log_digest) = log_of(&found.dir)?;
    let outcome = Outcome {
        exit_status: None,
        signal: None,
        cause: Some(Cause::new(CauseKind::Internal, why)),
        started_at: found.started_at,
        finished_at: crate::supervisor::wall_now(),
        log_bytes,
        log_digest,
        log_truncated: false,
        peak_memory_bytes: None,
    };
    write_whole(&Places(&found.dir).outcome(), &serde_json::to_vec(&outcome)?)?;
    Ok(outcome)
}

/// Ends processes that an attempt left, and removes its control groups unless they were handed on: once an attempt has an
/// outcome they may be the next one's, whatever they are called (docs/design/017).
fn end_processes(attempt: AttemptId, started: Option<&StartedRecord>, handed_on: bool) -> io::Result<()> {
    // Those that the supervisor noted, and those of the attempt's name: it may have died before it noted any.
    let groups_of = |started: Option<&StartedRecord>| {
        vec![JobCgroup::from_dirs(started.map_or(&[], |started| &started.cgroups)), Cgroups::detect().left_by(attempt)]
    };
    let mut groups = if handed_on { Vec::new() } else { groups_of(started) };
    let give_up_at = boot_now_ms() + UNKILLABLE_MS;
    loop {
        groups.iter().for_each(JobCgroup::kill);
        let marked = marked_processes(attempt)?;
        for pid in &marked {
            // One that ended meanwhile is what was wanted.
            let _ = kill_process(*pid, Signal::KILL);
        }
        // Each is tried, whatever becomes of the other.
        let left = groups.iter_mut().map(JobCgroup::remove_now).filter(|removed| !removed).count();
        if marked.is_empty() && left == 0 {
            return Ok(());
        }
        if boot_now_ms() >= give_up_at {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "killed processes of the attempt are still there"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends the container that an attempt left, if there is one.
fn end_container(container: Option<&ContainerRecord>, started: Option<&StartedRecord>) -> io::Result<()> {
    let Some(container) = container else { return Ok(()) };
    if bury_container(container, started.and_then(|started| started.init.as_ref())) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the attempt's container is not known to have ended"))
}

/// Length and digest of what is in the spool. The digest is the whole log's only if nothing was freed yet.
fn log_of(dir: &Path) -> io::Result<(u64, Digest)> {
    let (mut reader, mut hasher) = (spool(dir), blake3::Hasher::new());
    let mut from = reader.first()?;
    while let Some(chunk) = reader.next(from, usize::MAX)? {
        hasher.update(&chunk.bytes);
        from += chunk.bytes.len() as u64;
    }
    Ok((from, Digest::from_hasher(&hasher)))
}

/// Processes whose environment names the attempt, for machines without control groups.
fn marked_processes(attempt: AttemptId) -> io::Result<Vec<Pid>> {
    let mark = format!("WINDLASS_ATTEMPT_ID={attempt}");
    let own = std::process::id();
    let mut marked = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let env = match fs::read(entry.path().join("environ")) {
            Ok(env) => env,
            // Without a descriptor to look with, nobody may say that nothing is left.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
                return Err(error);
            }
            // It ended meanwhile, or is another user's.
            Err(_) => continue,
        };
        if pid.unsigned_abs() != own && env.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()) {
            marked.extend(Pid::from_raw(pid));
        }
    }
    Ok(marked)
}

/// Removes an attempt's directory, and control groups that its supervisor could not. Only for one whose supervisor is
/// gone.
///
/// # Errors
/// Those of the file system.
pub fn remove(dir: &Path) -> io::Result<()> {
    // Whose it is goes first: a directory that is left half removed says nothing of itself, and [`scan`] removes it.
    let disowned = fs::remove_file(Places(dir).launch());
    if !remove_groups(dir) {
        // The note of them stays for the agent's next start: by then what holds them is gone.
        return Ok(());
    }
    if remove_small(dir).is_ok() {
        return Ok(());
    }
    match disowned.and_then(|()| fs::remove_dir_all(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
        other => other,
    }
}

/// Removes the directory of an attempt without output, by the names of what is in it.
fn remove_small(dir: &Path) -> io::Result<()> {
    let places = Places(dir);
    for file in [places.started(), places.outcome(), dir.join(CONTROL_SOCKET)] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::remove_dir(dir)
}

/// Removes the control groups that an attempt's supervisor could not, if they are there; says whether none is left. (Those
/// that it noted when it began may be another attempt's by now.)
fn remove_groups(dir: &Path) -> bool {
    match read_json::<Vec<PathBuf>>(&Places(dir).left()) {
        Ok(Some(groups)) => JobCgroup::from_dirs(&groups).remove_now(),
        // A note that cannot be read names nothing that could be removed.
        Ok(None) | Err(_) => true,
    }
}

/// The spawner makes the control socket before it forks anything.
fn was_launched(dir: &Path) -> bool {
    dir.join(CONTROL_SOCKET).symlink_metadata().is_ok()
}

/// Whether nothing was ever launched for an attempt without a supervisor; its directory is gone then. A spawner that
/// outlived its agent does not find it any more.
///
/// # Errors
/// Those of the file system.
pub fn discard_unlaunched(dir: &Path) -> io::Result<bool> {
    let Some(name) = dir.file_name().filter(|_| !was_launched(dir)) else { return Ok(false) };
    let aside = dir.with_file_name(gone(name));
    fs::rename(dir, &aside)?;
    if was_launched(&aside) {
        fs::rename(&aside, dir)?;
        return Ok(false);
    }
    remove(&aside)?;
    Ok(true)
}

/// Connects to an attempt's supervisor; refused if it is gone.
pub(crate) fn connect(dir: &Path) -> io::Result<UnixStream> {
    // Through a descriptor: a socket's path is short, a data directory's may be long.
    let dir = fs::File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{CONTROL_SOCKET}", dir.as_raw_fd()))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(bytes) if is_blank(&bytes) => Ok(None),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(jobs: &Path) -> PathBuf {
        let attempt = AttemptId::from_bytes([7; 16]);
        let workspace = jobs.join("workspace");
        prepare(jobs, &LaunchRecord { attempt, epoch: Epoch(1), exclusive: false, workspace }, b"a\nnote").unwrap()
    }

    fn is_empty(jobs: &Path) -> bool {
        let scan = scan(jobs).unwrap();
        scan.found.is_empty() && scan.unreadable.is_empty()
    }

    #[test]
    fn what_was_noted_and_never_launched_is_discarded_and_what_has_a_supervisors_socket_is_not() {
        let jobs = tempfile::tempdir().unwrap();
        let dir = noted(jobs.path());
        assert!(discard_unlaunched(&dir).unwrap());
        assert!(is_empty(jobs.path()), "nothing is left to be taken for an attempt");
        let dir = noted(jobs.path());
        fs::write(dir.join(CONTROL_SOCKET), "").unwrap();
        assert!(!discard_unlaunched(&dir).unwrap());
        assert_eq!(scan(jobs.path()).unwrap().found.len(), 1);
    }

    #[test]
    fn an_agents_note_is_kept_when_the_right_rises_and_an_empty_record_says_nothing() {
        let jobs = tempfile::tempdir().unwrap();
        let dir = noted(jobs.path());
        adopt(&dir, Epoch(5)).unwrap();
        let found = &scan(jobs.path()).unwrap().found[0];
        assert_eq!((found.epoch, found.note.as_slice(), found.launched), (Epoch(5), &b"a\nnote"[..], false));
        fs::write(Places(&dir).launch(), "").unwrap();
        assert!(is_empty(jobs.path()) && !dir.exists());
    }

    #[test]
    fn a_directory_that_is_half_removed_is_no_attempt() {
        let jobs = tempfile::tempdir().unwrap();
        let dir = noted(jobs.path());
        fs::write(Places(&dir).started(), "").unwrap();
        fs::remove_file(Places(&dir).launch()).unwrap();
        assert!(is_empty(jobs.path()));
        assert!(!dir.exists(), "the rest goes with the scan");
        remove(&dir).unwrap();
    }

    #[test]
    fn a_group_that_cannot_be_removed_yet_keeps_its_note_for_the_next_scan() {
        let jobs = tempfile::tempdir().unwrap();
        let group = jobs.path().join("not-jobs/group");
        fs::create_dir_all(group.join("busy")).unwrap();
        let dir = noted(&{
            let inner = jobs.path().join("jobs");
            fs::create_dir(&inner).unwrap();
            inner
        });
        write_whole(&Places(&dir).left(), &serde_json::to_vec(&[&group]).unwrap()).unwrap();
        remove(&dir).unwrap();
        assert!(group.exists() && Places(&dir).left().exists());
        fs::remove_dir(group.join("busy")).unwrap();
        assert!(is_empty(dir.parent().unwrap()), "it is no attempt any more");
        assert!(!group.exists() && !dir.exists());
    }
}
