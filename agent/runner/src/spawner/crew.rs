//! The supervisors that a spawner has forked, and which of them wait for a next job (docs/design/017).

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use windlass_protocol::limits::SUPERVISORS_KEPT_MAX;

use crate::cgroup::JobCgroup;
use crate::relay::{self, Heard};

/// A supervisor that may take another job.
#[derive(Debug)]
struct Member {
    pid: u32,
    line: UnixStream,
    /// The control groups that it keeps while it waits; `None` while it works.
    waiting: Option<Vec<PathBuf>>,
}

/// All of them. Dropped, those that wait leave.
#[derive(Debug, Default)]
pub(super) struct Crew(Vec<Member>);

impl Crew {
    /// Whether there is anybody.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A line for one more; `None` where there are as many as are kept: that one leaves after its job.
    pub(super) fn line(&self) -> io::Result<Option<(UnixStream, UnixStream)>> {
        if self.0.len() < SUPERVISORS_KEPT_MAX { relay::pair().map(Some) } else { Ok(None) }
    }

    /// Takes one in, which has a job now.
    pub(super) fn add(&mut self, pid: u32, line: UnixStream) {
        self.0.push(Member { pid, line, waiting: None });
    }

    /// Hands a launch to one that waits, and says which; `None` where none does.
    pub(super) fn hand_over(&mut self, launch: &[u8], listener: &UnixListener) -> Option<u32> {
        self.listen();
        while let Some(index) = self.0.iter().rposition(|member| member.waiting.is_some()) {
            // The most recent: its memory is warm, and those that are too many are not kept busy by turns.
            let mut member = self.0.swap_remove(index);
            match relay::hand_over(&member.line, launch, listener) {
                Ok(()) => {
                    let pid = member.pid;
                    member.waiting = None;
                    self.0.push(member);
                    return Some(pid);
                }
                // It died while it waited, or somebody stopped it: then it leaves once its line's end lets it.
                Err(_) => remove_groups(&member),
            }
        }
        None
    }

    /// Lets those go that wait.
    pub(super) fn dismiss(&mut self) {
        self.listen();
        self.0.retain(|member| member.waiting.is_none());
    }

    /// Hears who waits and who is gone.
    fn listen(&mut self) {
        self.0.retain_mut(|member| match relay::hear(member.line.as_fd()) {
            Heard::Nothing => true,
            Heard::Waiting(groups) => {
                member.waiting = Some(groups);
                true
            }
            Heard::Gone => {
                remove_groups(member);
                false
            }
        });
    }
}

/// Those of one that died while it waited: nobody else knows of them. What is in use stays.
fn remove_groups(member: &Member) {
    if let Some(groups) = &member.waiting {
        JobCgroup::from_dirs(groups).remove_now();
    }
}
