//! What a supervisor has whatever job it watches over: its place among the machine's processes, what wakes it, and the
//! control groups that a next job may have.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
use windlass_protocol::limits::LOG_CHUNK_MAX_BYTES;

use super::{CLEAN_TRIES, pause};
use crate::cgroup::JobCgroup;
use crate::sys;

#[derive(Debug)]
pub(super) struct Post {
    pub(super) timer: OwnedFd,
    /// Readable when a child has ended.
    pub(super) children: OwnedFd,
    /// For what is read of a job's output.
    pub(super) buffer: Vec<u8>,
    /// Of the job before, with nothing in them.
    pub(super) kept: Option<JobCgroup>,
}

impl Post {
    /// Makes this process a supervisor.
    pub(super) fn take() -> io::Result<Self> {
        // Already leading a session would be odd and no harm.
        let _ = rustix::process::setsid();
        // It may live longer than whoever reads the agent's output.
        sys::detach_streams(true)?;
        sys::ignore_group_signals();
        let children = sys::watch_children()?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { timer, children, buffer: vec![0; LOG_CHUNK_MAX_BYTES], kept: None })
    }

    /// Removes what was kept for a job that does not come.
    pub(super) fn leave(self) {
        let Some(mut kept) = self.kept else { return };
        for _ in 0..CLEAN_TRIES {
            if kept.remove_now() {
                return;
            }
            pause(1);
        }
    }
}
