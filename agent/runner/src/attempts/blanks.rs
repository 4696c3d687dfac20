//! Attempts' directories that wait for a next attempt, with their records in them, emptied: to make and to remove those files
//! would cost a short job more than all that is written into them (docs/design/017).
//!
//! One that waits has the name of what is about to be removed, so that an agent that starts removes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{gone, note_launch, prepare, remove, remove_groups};
use crate::launch::{LaunchRecord, Places, blank};

/// As many as may wait: more than the short jobs that one machine has at once.
const WAITING_MAX: usize = 16;

/// The attempts' directories of one agent.
#[derive(Debug)]
pub struct Blanks {
    jobs: PathBuf,
    waiting: Mutex<Vec<PathBuf>>,
}

impl Blanks {
    /// Those below `jobs`; none waits yet.
    #[must_use]
    pub const fn new(jobs: PathBuf) -> Self {
        Self { jobs, waiting: Mutex::new(Vec::new()) }
    }

    /// The directory of all attempts.
    #[must_use]
    pub fn jobs(&self) -> &Path {
        &self.jobs
    }

    /// As [`prepare`], in a directory that waits, if there is one.
    ///
    /// # Errors
    /// Those of the file system; the attempt's directory must not exist.
    pub fn prepare(&self, record: &LaunchRecord, note: &[u8]) -> io::Result<PathBuf> {
        let Some(waiting) = self.lock().pop() else { return prepare(&self.jobs, record, note) };
        let dir = self.jobs.join(record.attempt.to_string());
        if let Err(error) = renameat_with(CWD, &waiting, CWD, &dir, RenameFlags::NOREPLACE) {
            tracing::debug!(path = %waiting.display(), %error, "attempt_directory_not_used_again");
            remove(&waiting)?;
            return prepare(&self.jobs, record, note);
        }
        note_launch(&dir, record, note)?;
        Ok(dir)
    }

    /// As [`remove`], and keeps the directory for a next attempt. Only for one whose supervisor is done with it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn put(&self, dir: &Path) -> io::Result<()> {
        if self.lock().len() >= WAITING_MAX {
            return remove(dir);
        }
        match self.empty(dir) {
            Ok(Some(waiting)) => self.lock().push(waiting),
            // Its note of control groups stays.
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return remove(dir),
            Err(error) => {
                tracing::debug!(path = %dir.display(), %error, "attempt_directory_not_kept");
                return remove(dir);
            }
        }
        Ok(())
    }

    /// Takes everything of the attempt out of its directory; `None` where control groups of it are left.
    fn empty(&self, dir: &Path) -> io::Result<Option<PathBuf>> {
        let Some(name) = dir.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let places = Places(dir);
        // Whose it is goes first, as in `remove`.
        blank(&places.launch())?;
        if !remove_groups(dir) {
            return Ok(None);
        }
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let (path, is_dir) = (entry.path(), entry.file_type()?.is_dir());
            match entry.file_name().to_str() {
                Some("launch") => {}
                _ if path == places.started() || path == places.outcome() => blank(&path)?,
                _ if is_dir => fs::remove_dir_all(&path)?,
                _ => fs::remove_file(&path)?,
            }
        }
        let waiting = dir.with_file_name(gone(name));
        fs::rename(dir, &waiting)?;
        Ok(Some(waiting))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use windlass_protocol::id::AttemptId;
    use windlass_protocol::job::Epoch;

    use super::*;
    use crate::attempts::{scan, was_launched};
    use crate::launch::{CONTROL_SOCKET, write_first, write_last};

    fn record(number: u8) -> LaunchRecord {
        let attempt = AttemptId::from_bytes([number; 16]);
        LaunchRecord { attempt, epoch: Epoch(1), exclusive: false, workspace: "/w".into() }
    }

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    /// An attempt that left all that one can leave.
    fn used(blanks: &Blanks, number: u8, note: &[u8]) -> PathBuf {
        let dir = blanks.prepare(&record(number), note).unwrap();
        fs::write(dir.join(CONTROL_SOCKET), "").unwrap();
        write_first(&Places(&dir).started(), b"{\"at\":1}").unwrap();
        write_last(&Places(&dir).outcome(), b"{\"an\":\"outcome\"}").unwrap();
        fs::create_dir(Places(&dir).spool()).unwrap();
        fs::write(Places(&dir).spool().join("0"), "log").unwrap();
        fs::write(dir.join("changes"), "SECRET=1").unwrap();
        dir
    }

    #[test]
    fn a_next_attempt_has_the_files_of_the_last_and_nothing_that_was_in_them() {
        let jobs = tempfile::tempdir().unwrap();
        let blanks = Blanks::new(jobs.path().to_owned());
        let first = used(&blanks, 1, b"a long note that has to go");
        let inodes = [inode(&first), inode(&Places(&first).outcome())];
        blanks.put(&first).unwrap();
        assert!(!first.exists());
        let second = blanks.prepare(&record(2), b"short").unwrap();
        assert_eq!([inode(&second), inode(&Places(&second).outcome())], inodes);
        let found = scan(jobs.path()).unwrap();
        assert_eq!((found.found.len(), found.unreadable.len()), (1, 0));
        let found = &found.found[0];
        assert_eq!((found.attempt, found.note.as_slice()), (record(2).attempt, &b"short"[..]));
        assert!(!found.launched && found.started_at.is_none() && found.outcome.is_none());
        assert!(!was_launched(&second));
        let mut names: Vec<_> = fs::read_dir(&second).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["launch", "outcome.json", "started"]);
        write_first(&Places(&second).started(), b"{}").unwrap();
        let twice = write_first(&Places(&second).started(), b"{}").unwrap_err();
        assert_eq!(twice.kind(), io::ErrorKind::AlreadyExists, "a second start is refused as before");
    }

    #[test]
    fn what_a_crash_of_the_machine_left_of_a_record_that_was_filled_in_place_says_nothing() {
        let jobs = tempfile::tempdir().unwrap();
        let blanks = Blanks::new(jobs.path().to_owned());
        let dir = blanks.prepare(&record(1), b"n").unwrap();
        for file in [Places(&dir).started(), Places(&dir).outcome()] {
            fs::write(file, b"{\0\0\0\0\0\0\0").unwrap();
        }
        let found = scan(jobs.path()).unwrap();
        assert_eq!((found.found.len(), found.unreadable.len()), (1, 0));
        assert!(found.found[0].started_at.is_none() && found.found[0].outcome.is_none());
        fs::write(Places(&dir).launch(), b"{\0\0\0\0").unwrap();
        let found = scan(jobs.path()).unwrap();
        assert!(found.found.is_empty() && found.unreadable.is_empty());
    }

    #[test]
    fn those_that_wait_are_bounded_and_gone_after_a_restart() {
        let jobs = tempfile::tempdir().unwrap();
        let blanks = Blanks::new(jobs.path().to_owned());
        let dirs: Vec<_> = (1..=20).map(|number| used(&blanks, number, b"n")).collect();
        dirs.iter().for_each(|dir| blanks.put(dir).unwrap());
        assert_eq!(fs::read_dir(jobs.path()).unwrap().count(), WAITING_MAX);
        let scan = scan(jobs.path()).unwrap();
        assert!(scan.found.is_empty() && scan.unreadable.is_empty());
        assert_eq!(fs::read_dir(jobs.path()).unwrap().count(), 0);
        // Those that waited are gone under its hands.
        assert!(blanks.prepare(&record(30), b"n").unwrap().exists());
    }

    #[test]
    fn the_directory_of_an_attempt_that_is_there_is_nobody_elses() {
        let jobs = tempfile::tempdir().unwrap();
        let blanks = Blanks::new(jobs.path().to_owned());
        let waiting = used(&blanks, 1, b"n");
        fs::create_dir(jobs.path().join(record(2).attempt.to_string())).unwrap();
        blanks.put(&waiting).unwrap();
        assert_eq!(blanks.prepare(&record(2), b"n").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn an_outcome_that_one_write_cannot_hold_is_written_beside_and_moved() {
        let jobs = tempfile::tempdir().unwrap();
        let blanks = Blanks::new(jobs.path().to_owned());
        blanks.put(&used(&blanks, 1, b"n")).unwrap();
        let dir = blanks.prepare(&record(2), b"n").unwrap();
        let before = inode(&Places(&dir).outcome());
        let long = vec![b'x'; 5_000];
        write_last(&Places(&dir).outcome(), &long).unwrap();
        assert_eq!(fs::read(Places(&dir).outcome()).unwrap(), long);
        assert_ne!(inode(&Places(&dir).outcome()), before);
    }
}
