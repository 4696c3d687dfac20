//! All processes of a job: the main one and whatever it starts, however it tries to get away.
//!
//! The supervisor is the subreaper of its descendants, so an orphan, a double-forked daemon or a process in a session
//! of its own becomes its child. "No child left" therefore proves that nothing of the job is left.

use std::collections::BTreeMap;
use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};

use crate::cgroup::JobCgroup;

/// Scans for new processes before the kill; a fork bomb that outruns them meets the next try.
const STOP_ROUNDS: usize = 32;

#[derive(Debug)]
pub(crate) struct Family {
    main: Pid,
    ended: Option<WaitStatus>,
    gone: bool,
    pub(crate) cgroup: Option<JobCgroup>,
}

impl Family {
    pub(crate) const fn new(main: Pid) -> Self {
        Self { main, ended: None, gone: false, cgroup: None }
    }

    /// Takes in what ended.
    pub(crate) fn reap(&mut self) {
        while !self.gone {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.main => self.ended = Some(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return,
                Err(_) => self.gone = true,
            }
        }
    }

    /// How the main process ended, if it has.
    pub(crate) const fn ended(&self) -> Option<WaitStatus> {
        self.ended
    }

    /// Whether nothing of the job is left.
    pub(crate) const fn gone(&self) -> bool {
        self.gone
    }

    /// Asks the job's process group to end.
    pub(crate) fn terminate(&self) {
        if self.ended.is_none() {
            // A group that ended meanwhile is what was wanted.
            let _ = kill_process_group(self.main, Signal::TERM);
            // A stopped job could not hear it.
            let _ = kill_process_group(self.main, Signal::CONT);
        }
    }

    /// Ends everything; what is left shows after the next [`Self::reap`].
    pub(crate) fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        // Stopped first, so that nothing is born behind the scan.
        let mut stopped: Vec<Pid> = Vec::new();
        for _ in 0..STOP_ROUNDS {
            let fresh: Vec<Pid> = descendants().into_iter().filter(|pid| !stopped.contains(pid)).collect();
            if fresh.is_empty() {
                break;
            }
            for pid in fresh {
                let _ = kill_process(pid, Signal::STOP);
                stopped.push(pid);
            }
        }
        for pid in stopped {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Those that are left.
    pub(crate) fn left(&self) -> Vec<u32> {
        descendants().into_iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()).collect()
    }
}

/// Every process below this one, by their parents. Zombies count: a leader that ended may have threads with children.
fn descendants() -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in parentheses may hold anything, also parentheses; the fields after the last one are plain.
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        if let Some(parent) = fields.nth(1).and_then(|parent| parent.parse::<i32>().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![rustix::process::getpid().as_raw_nonzero().get()];
    while let Some(parent) = open.pop() {
        for pid in children.remove(&parent).unwrap_or_default() {
            open.push(pid);
            found.extend(Pid::from_raw(pid));
        }
    }
    found
}
