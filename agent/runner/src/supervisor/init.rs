//! A container's first process. By it the container's end is certain whatever its engine says or does not say: the kernel
//! lets the first process of a PID namespace end only after every other one in it is gone.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::termios::{OptionalActions, OutputModes, tcgetattr, tcsetattr, tcsetwinsize};
use rustix::time::Timespec;

use super::process::TERMINAL_SIZE;
use crate::launch::InitRecord;

#[derive(Debug)]
pub(crate) struct Init {
    pid: Pid,
    fd: OwnedFd,
    started_ticks: u64,
}

impl Init {
    /// The process `pid`, if it is in the container's control group: an engine in another PID namespace, or on another
    /// machine, counts otherwise than we do.
    pub(crate) fn find(pid: i64, container: &str) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok().filter(|pid| *pid > 0)?)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).ok()?;
        let started_ticks = started_ticks(pid)?;
        let found = Self { pid, fd, started_ticks };
        // Alive after the look: so what was looked at is what the descriptor holds, and not a later bearer of the number.
        (groups.contains(container) && !found.ended()).then_some(found)
    }

    /// The process that was noted, unless it has ended.
    ///
    /// # Errors
    /// Whether it has cannot be known, as for want of descriptors.
    pub(crate) fn again(record: &InitRecord) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(record.pid) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            other => other?,
        };
        let started_ticks = match fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
            Ok(stat) => ticks_of(&stat),
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(started_ticks) = started_ticks else { return Err(io::ErrorKind::InvalidData.into()) };
        let found = Self { pid, fd, started_ticks };
        Ok((found.started_ticks == record.started_ticks && !found.ended()).then_some(found))
    }

    pub(crate) fn record(&self) -> InitRecord {
        InitRecord { pid: self.pid.as_raw_nonzero().get(), started_ticks: self.started_ticks }
    }

    /// Whether nothing of the container runs any more.
    pub(crate) fn ended(&self) -> bool {
        self.ends_within(0)
    }

    /// Waits for its end, at most this long.
    pub(crate) fn ends_within(&self, ms: u64) -> bool {
        let limit = Timespec {
            tv_sec: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ms % 1_000 * 1_000_000).unwrap_or(0),
        };
        poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0)
    }

    /// Sends a signal without the engine; says whether that was allowed, or needed no more.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        matches!(pidfd_send_signal(&self.fd, signal), Ok(()) | Err(rustix::io::Errno::SRCH))
    }

    /// Makes its terminal pass bytes as they are, and gives it our size. Needs the right to look into the process.
    pub(crate) fn set_terminal(&self) -> io::Result<()> {
        let path = format!("/proc/{}/fd/0", self.pid.as_raw_nonzero());
        // Looked at before it is opened: what stands there is up to the image, and opening some devices does something.
        let looked = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        if !is_pseudo_terminal(&rustix::fs::fstat(&looked)?) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the container's input is no terminal"));
        }
        let path = format!("/proc/self/fd/{}", looked.as_raw_fd());
        let terminal = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let mut modes = tcgetattr(&terminal)?;
        modes.output_modes.remove(OutputModes::OPOST);
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
        tcsetwinsize(&terminal, TERMINAL_SIZE)?;
        Ok(())
    }
}

/// Majors 136 to 143: the slave ends of pseudo-terminals (devices.txt).
fn is_pseudo_terminal(stat: &rustix::fs::Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
        && (136..=143).contains(&rustix::fs::major(stat.st_rdev))
}

impl AsFd for Init {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// When a process started, in the kernel's ticks since boot: with its number, a name that is not given twice.
fn started_ticks(pid: Pid) -> Option<u64> {
    ticks_of(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// Whether a look at a process failed because it is no more.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn ticks_of(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything; of the plain fields behind it the start is the twentieth (proc(5): 22).
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_outside_of_the_containers_control_group_is_not_its_first_one() {
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(Init::find(i64::from(other.id()), &"c".repeat(64)).is_none());
        assert!(Init::find(0, "").is_none() && Init::find(-1, "").is_none() && Init::find(i64::MAX, "").is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn the_noted_process_is_found_while_it_lives_and_never_another_under_its_number() {
        let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
        let init = Init::find(i64::from(process.id()), "").unwrap();
        let record = init.record();
        assert!(Init::again(&record).unwrap().is_some_and(|again| again.record() == record));
        let earlier = InitRecord { started_ticks: record.started_ticks - 1, ..record.clone() };
        assert!(Init::again(&earlier).unwrap().is_none(), "its number was given to another");
        assert!(!init.ended() && init.signal(Signal::KILL) && init.ends_within(20_000));
        assert!(Init::again(&record).unwrap().is_none(), "a zombie has ended");
        process.wait().unwrap();
        assert!(init.ended() && init.signal(Signal::KILL), "what is gone needs no signal");
    }
}
