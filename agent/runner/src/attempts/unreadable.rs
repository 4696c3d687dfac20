//! Attempts whose files cannot be read: after an upgrade that changed them, or because a disk has failed. What of one runs
//! goes on all the same, so it is held until its end is verified, and then put aside for a person to look at.

use std::fs::{self, DirBuilder};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::id::AttemptId;
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{SUPERVISOR_HELLO_MS, SUPERVISOR_LINE_MAX_BYTES, UNKILLABLE_MS, UNREADABLE_KEPT_MAX};
use windlass_protocol::time::WallMs;

use super::{FoundAttempt, connect, end_container, end_processes, read_json, read_launch, was_launched};
use crate::control::{Report, Request, to_line};
use crate::docker::name_of;
use crate::launch::{BLANK_BYTES, ContainerRecord, Places, StartedRecord};
use crate::supervisor::boot_now_ms;

/// An attempt whose files cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The attempt: its directory's name.
    pub attempt: AttemptId,
    /// Its directory.
    pub dir: PathBuf,
    /// By which right it is held: what its record's first line says, or else its supervisor; `None` where neither does.
    pub epoch: Option<Epoch>,
    /// When its command started, as far as that is known; else when its directory was last changed.
    pub started_at: WallMs,
    /// What is wrong.
    pub error: String,
}

impl Unreadable {
    /// One whose directory could not be understood.
    pub(super) fn at(attempt: AttemptId, dir: PathBuf, error: &io::Error) -> Self {
        let recorded = read_launch(&dir).ok().flatten().map(|(record, _)| record);
        let recorded = recorded.filter(|record| record.attempt == attempt).map(|record| record.epoch);
        let noted = read_json::<StartedRecord>(&Places(&dir).started()).ok().flatten().map(|started| started.at);
        let said = if recorded.is_some() && noted.is_some() { None } else { hello(&dir, attempt) };
        Self {
            attempt,
            epoch: recorded.or(said.map(|(epoch, _)| epoch)),
            started_at: noted.or(said.map(|(_, at)| at)).unwrap_or_else(|| changed_at(&dir)),
            dir,
            error: error.to_string(),
        }
    }

    /// Ends whatever runs of it, and comes back once that is verified. `engine` is where its container is looked for if
    /// its own record of one cannot be read. Blocks.
    ///
    /// # Errors
    /// `TimedOut` where something does not end, or an engine does not say that its container has; nothing is known to
    /// have ended then, and it is to be tried again.
    pub fn end(&self, engine: &Path) -> io::Result<()> {
        kill(&self.dir)?;
        // What cannot be read names nothing; the attempt's name finds the rest.
        let started = read_json::<StartedRecord>(&Places(&self.dir).started()).ok().flatten();
        let outcome = Places(&self.dir).outcome().symlink_metadata();
        let handed_on = outcome.is_ok_and(|found| found.len() > BLANK_BYTES);
        end_processes(self.attempt, started.as_ref(), handed_on)?;
        let container = read_json::<ContainerRecord>(&Places(&self.dir).container());
        let container = container
            .unwrap_or_else(|_| Some(ContainerRecord { engine: engine.to_owned(), name: name_of(self.attempt) }));
        end_container(container.as_ref(), started.as_ref())
    }

    /// Moves what is left of it below `aside`, where the newest few are kept. Only after [`Self::end`].
    ///
    /// # Errors
    /// Those of the file system; `ResourceBusy` where a spawner that outlived its agent was a moment late and has
    /// launched it meanwhile: then it is to be ended again.
    pub fn put_aside(&self, aside: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        make_room(aside)?;
        let to = aside.join(self.attempt.to_string());
        let was_launched_before = was_launched(&self.dir);
        fs::rename(&self.dir, &to)?;
        if !was_launched_before && was_launched(&to) {
            fs::rename(&to, &self.dir)?;
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "it was launched a moment ago"));
        }
        Ok(())
    }
}

impl From<(FoundAttempt, &io::Error)> for Unreadable {
    /// One whose directory can be read, but not what the agent noted in it, or its log.
    fn from((found, error): (FoundAttempt, &io::Error)) -> Self {
        Self {
            attempt: found.attempt,
            epoch: Some(found.epoch),
            started_at: found.started_at.unwrap_or_else(|| changed_at(&found.dir)),
            dir: found.dir,
            error: error.to_string(),
        }
    }
}

/// What the supervisor says of itself, if it lives.
fn hello(dir: &Path, attempt: AttemptId) -> Option<(Epoch, WallMs)> {
    let stream = connect(dir).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(SUPERVISOR_HELLO_MS))).ok()?;
    let mut line = Vec::new();
    BufReader::new(stream).take(SUPERVISOR_LINE_MAX_BYTES as u64).read_until(b'\n', &mut line).ok()?;
    match serde_json::from_slice(&line).ok()? {
        Report::Hello { attempt: said, epoch, started_at, .. } if said == attempt => Some((epoch, started_at)),
        _ => None,
    }
}

/// Has the supervisor end its job, and waits until nobody listens at its socket any more.
fn kill(dir: &Path) -> io::Result<()> {
    let why = Cause::new(CauseKind::LeaseLost, "the agent could not read the attempt's record");
    let request = to_line(&Request::Kill { cause: why })?;
    let until = boot_now_ms() + UNKILLABLE_MS;
    loop {
        match connect(dir) {
            // Where it does not take the request, it has just gone, or gave way to newer connections.
            Ok(mut stream) => {
                let _ = stream.write_all(&request);
                wait_for_end(&stream, until)?;
            }
            Err(error) if is_nobody(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Nobody listens, there is no socket, or the directory is none.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Waits until the supervisor has closed the connection, whatever it says before.
fn wait_for_end(mut stream: &UnixStream, until: u64) -> io::Result<()> {
    let mut said = [0; 4_096];
    loop {
        let left = until.saturating_sub(boot_now_ms());
        if left == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the attempt's supervisor has not ended it"));
        }
        stream.set_read_timeout(Some(Duration::from_millis(left)))?;
        match stream.read(&mut said) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes the oldest of what was put aside, until there is room for one more.
fn make_room(aside: &Path) -> io::Result<()> {
    let mut kept: Vec<PathBuf> = fs::read_dir(aside)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    // Ids rise with time.
    kept.sort();
    for old in kept.iter().take((kept.len() + 1).saturating_sub(UNREADABLE_KEPT_MAX)) {
        if old.symlink_metadata()?.is_dir() { fs::remove_dir_all(old)? } else { fs::remove_file(old)? }
    }
    Ok(())
}

fn changed_at(dir: &Path) -> WallMs {
    let changed = dir.symlink_metadata().and_then(|found| found.modified()).ok();
    let since = changed.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    WallMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::{prepare, scan};
    use super::*;
    use crate::launch::{CONTROL_SOCKET, LaunchRecord};

    const ENGINE: &str = "/nonexistent/engine.sock";

    fn attempt(number: u8) -> AttemptId {
        AttemptId::from_bytes([number; 16])
    }

    fn noted(jobs: &Path, number: u8) -> PathBuf {
        let workspace = jobs.join("workspace");
        let record = LaunchRecord { attempt: attempt(number), epoch: Epoch(9), exclusive: false, workspace };
        prepare(jobs, &record, b"a note").unwrap()
    }

    #[test]
    fn whatever_is_unreadable_of_one_attempt_is_told_with_its_right_and_hides_no_other() {
        let jobs = tempfile::tempdir().unwrap();
        noted(jobs.path(), 1);
        // Each is (what is broken, the right that is known all the same).
        let started = noted(jobs.path(), 2);
        fs::write(Places(&started).started(), "{\"at\":").unwrap();
        let outcome = noted(jobs.path(), 3);
        fs::write(Places(&outcome).outcome(), "{}").unwrap();
        let record = noted(jobs.path(), 4);
        fs::write(Places(&record).launch(), "not a record\n").unwrap();
        let directory = noted(jobs.path(), 5);
        fs::remove_file(Places(&directory).launch()).unwrap();
        fs::create_dir(Places(&directory).launch()).unwrap();
        fs::write(jobs.path().join(attempt(6).to_string()), "a file").unwrap();
        let anothers = noted(jobs.path(), 7);
        fs::rename(&anothers, jobs.path().join(attempt(8).to_string())).unwrap();
        let scan = scan(jobs.path()).unwrap();
        assert_eq!(scan.found.iter().map(|found| found.attempt).collect::<Vec<_>>(), [attempt(1)]);
        let known: Vec<_> = scan.unreadable.iter().map(|found| (found.attempt, found.epoch.map(|it| it.0))).collect();
        let wanted = [(2, Some(9)), (3, Some(9)), (4, None), (5, None), (6, None), (8, None)];
        assert_eq!(known, wanted.map(|(number, epoch)| (attempt(number), epoch)));
        assert!(scan.unreadable.iter().all(|found| !found.error.is_empty() && found.started_at > WallMs(0)));
    }

    #[test]
    fn what_a_record_does_not_say_its_supervisor_does() {
        let jobs = tempfile::tempdir().unwrap();
        let dir = noted(jobs.path(), 1);
        fs::write(Places(&dir).launch(), "not a record\n").unwrap();
        let door = UnixListener::bind(dir.join(CONTROL_SOCKET)).unwrap();
        let hello = Report::Hello {
            version: 1,
            attempt: attempt(1),
            epoch: Epoch(7),
            supervisor: 1,
            started_at: WallMs(5),
            log_bytes: 0,
        };
        let serving = std::thread::spawn(move || {
            door.accept().unwrap().0.write_all(&to_line(&hello).unwrap()).unwrap();
        });
        let found = scan(jobs.path()).unwrap().unreadable.remove(0);
        assert_eq!((found.epoch, found.started_at), (Some(Epoch(7)), WallMs(5)));
        serving.join().unwrap();
    }

    #[test]
    fn it_has_ended_when_nobody_listens_any_more_and_not_before() {
        let jobs = tempfile::tempdir().unwrap();
        let dir = noted(jobs.path(), 1);
        let door = UnixListener::bind(dir.join(CONTROL_SOCKET)).unwrap();
        let serving = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for _ in 0..2 {
                // The first connection gives way without a word: the supervisor lives all the same.
                let mut line = String::new();
                BufReader::new(door.accept().unwrap().0).read_line(&mut line).unwrap();
                asked.push(line);
            }
            asked
        });
        let (epoch, error) = (Some(Epoch(9)), "broken".to_owned());
        let found = Unreadable { attempt: attempt(1), dir, epoch, started_at: WallMs(1), error };
        found.end(Path::new(ENGINE)).unwrap();
        let asked = serving.join().unwrap();
        assert!(asked.iter().all(|line| line.contains("\"kill\"")), "{asked:?}");
    }

    #[test]
    fn a_container_of_which_no_engine_tells_has_not_ended() {
        let jobs = tempfile::tempdir().unwrap();
        let dir = noted(jobs.path(), 1);
        fs::write(Places(&dir).container(), "broken").unwrap();
        let found = Unreadable::at(attempt(1), dir, &io::Error::other("broken"));
        assert_eq!(found.end(Path::new(ENGINE)).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn what_is_put_aside_is_kept_until_newer_ones_take_its_room() {
        let dir = tempfile::tempdir().unwrap();
        let (jobs, aside) = (dir.path().join("jobs"), dir.path().join("unreadable"));
        fs::create_dir(&jobs).unwrap();
        let last = u8::try_from(UNREADABLE_KEPT_MAX).unwrap() + 2;
        for number in 1..=last {
            let found = Unreadable::at(attempt(number), noted(&jobs, number), &io::Error::other("broken"));
            found.put_aside(&aside).unwrap();
            assert!(!found.dir.exists() && aside.join(attempt(number).to_string()).join("launch").exists());
        }
        assert_eq!(fs::read_dir(&aside).unwrap().count(), UNREADABLE_KEPT_MAX);
        assert!(!aside.join(attempt(2).to_string()).exists() && aside.join(attempt(3).to_string()).exists());
    }
}
