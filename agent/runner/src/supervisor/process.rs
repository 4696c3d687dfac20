//! Starts a job's main process and collects what came of it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::WaitStatus;
use rustix::termios::Winsize;
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::id::AttemptId;

use super::family::Family;
use super::{End, Watched};
use crate::cgroup::{Cgroups, JobCgroup, Limits};
use crate::launch::ProcessTask;
use crate::shell;
use crate::sys::{self, Plan, Program, Step};

/// Room between a job and its supervisor (measured: 3,460 MB/s against 820 with the default of 64 KiB).
pub(crate) const PIPE_BYTES: usize = 1 << 20;

/// A terminal that is wide enough for compilers and test runners to break no lines.
pub(crate) const TERMINAL_SIZE: Winsize = Winsize { ws_row: 40, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };

/// A job's process and all that it starts.
#[derive(Debug)]
pub(crate) struct Process {
    family: Family,
    memory_limit: u64,
    /// It runs as a user who cannot change its groups.
    keeps: bool,
}

/// The two ends of a job's output.
struct Stream {
    ours: OwnedFd,
    theirs: OwnedFd,
}

fn fault(what: &'static str) -> impl FnOnce(io::Error) -> Cause {
    move |error| Cause::new(CauseKind::Internal, format!("{what}: {error}"))
}

/// The groups that a job's processes will be in: those that the job before left, where they are the same in all that can be
/// told, else new ones.
pub(crate) fn groups(
    attempt: AttemptId,
    task: &ProcessTask,
    cgroups: &Cgroups,
    kept: &mut Option<JobCgroup>,
) -> Result<JobCgroup, Cause> {
    let limits = Limits { memory_bytes: task.memory_bytes, cpu_millis: task.cpu_millis };
    let none = Cgroups::default();
    let cgroups = if task.cgroup { cgroups } else { &none };
    if let Some(mut kept) = kept.take_if(|_| task.cgroup) {
        if kept.begin_again(&limits) {
            return Ok(kept);
        }
        // Nothing is in them.
        kept.remove_now();
    }
    cgroups.create(attempt, &limits).map_err(fault("could not make the job's control group"))
}

impl Process {
    /// Starts the job in its groups; returns it and where its output is read.
    pub(crate) fn start(task: &ProcessTask, mut cgroup: JobCgroup) -> Result<(Self, OwnedFd), Cause> {
        match Self::start_in(task, &cgroup) {
            Ok((mut family, ours)) => {
                family.cgroup = Some(cgroup);
                let keeps = task.user.is_some();
                Ok((Self { family, memory_limit: task.memory_bytes, keeps }, ours))
            }
            Err((what, error)) => {
                cgroup.remove_now();
                Err(fault(what)(error))
            }
        }
    }

    fn start_in(task: &ProcessTask, cgroup: &JobCgroup) -> Result<(Family, OwnedFd), (&'static str, io::Error)> {
        let at = |what: &'static str| move |error: io::Error| (what, error);
        let stream = if task.tty { open_terminal() } else { open_pipe() }.map_err(at("could not make the output"))?;
        let (told, failure) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| ("could not make a pipe", e.into()))?;
        let plan = plan(task, cgroup, &stream, failure).map_err(at("could not prepare the job"))?;
        let birth = cgroup.birth();
        let main = sys::bear(&plan, birth.as_ref().map(AsFd::as_fd)).map_err(at("could not fork"))?;
        drop((plan, stream.theirs));
        let mut failed = Vec::new();
        File::from(told).read_to_end(&mut failed).map_err(at("could not hear of the job's start"))?;
        if let Some((step, error)) = Step::parse(&failed) {
            // It has left; being reaped is all that remains.
            let _ = rustix::process::waitpid(Some(main), rustix::process::WaitOptions::empty());
            return Err((step.what(), error));
        }
        Ok((Family::new(main), stream.ours))
    }

    fn out_of_memory(&self) -> Option<Cause> {
        let cgroup = self.family.cgroup.as_ref()?;
        if cgroup.oom_kills() == 0 {
            return None;
        }
        let peak = cgroup.peak_memory_bytes().map_or_else(String::new, |peak| format!(", peak {peak} bytes"));
        let detail = match self.memory_limit {
            0 => format!("the machine ran out of memory and the kernel ended one of the job's processes{peak}"),
            limit => format!("the kernel ended one of the job's processes: limit {limit} bytes{peak}"),
        };
        Some(Cause::new(CauseKind::OutOfMemory, detail))
    }
}

impl Watched for Process {
    fn collect(&mut self) {
        self.family.reap();
    }

    fn main_ended(&self) -> bool {
        self.family.ended().is_some() || self.family.gone()
    }

    fn gone(&self) -> bool {
        self.family.gone()
    }

    fn terminate(&mut self) {
        self.family.terminate();
    }

    fn kill(&mut self) {
        self.family.kill();
    }

    fn left(&self) -> Vec<u32> {
        self.family.left()
    }

    fn end(&mut self) -> End {
        let status = self.family.ended();
        let passed = status.and_then(WaitStatus::exit_status) == Some(0);
        let cause = if passed { None } else { self.out_of_memory() };
        let peak_memory_bytes = self.family.cgroup.as_ref().and_then(JobCgroup::peak_memory_bytes);
        End {
            exit_status: status.and_then(WaitStatus::exit_status),
            signal: status.and_then(WaitStatus::terminating_signal),
            cause,
            peak_memory_bytes,
        }
    }

    fn clean(&mut self) -> bool {
        self.family.cgroup.as_mut().is_none_or(JobCgroup::remove_now)
    }

    fn keep(&mut self) -> Option<JobCgroup> {
        self.family.cgroup.take_if(|cgroup| self.keeps && cgroup.is_as_new())
    }

    fn cgroups(&self) -> Vec<std::path::PathBuf> {
        self.family.cgroup.as_ref().map(JobCgroup::dirs).unwrap_or_default()
    }
}

fn plan(task: &ProcessTask, cgroup: &JobCgroup, stream: &Stream, failure: OwnedFd) -> io::Result<Plan> {
    let stdin = if task.tty { stream.theirs.try_clone()? } else { OwnedFd::from(File::open("/dev/null")?) };
    Ok(Plan {
        programs: programs(task)?,
        workspace: task.workspace.clone(),
        user: task.user,
        stdin,
        output: stream.theirs.try_clone()?,
        terminal: task.tty,
        tasks: cgroup.tasks()?,
        limit_processes: !cgroup.counts_processes && task.user.is_some(),
        failure,
        supervisor: rustix::process::getpid(),
    })
}

/// What the job becomes: its shell, and before that the program that the shell would only be replaced by.
fn programs(task: &ProcessTask) -> io::Result<Vec<Program>> {
    let program = |argv: &[String], more: &[(String, String)]| {
        let pair = |(name, value): &(String, String)| CString::new(format!("{name}={value}"));
        let argv = argv.iter().map(|word| CString::new(word.as_str())).collect::<Result<_, _>>()?;
        let env = task.env.iter().chain(more).map(pair).collect::<Result<_, _>>()?;
        Ok::<_, io::Error>(Program { argv, env })
    };
    let mut programs = Vec::new();
    if let Some(argv) = shell::plain(&task.argv, &task.env)
        && let (Some(path), Ok(directory)) = (argv.first(), task.workspace.canonicalize())
    {
        programs.push(program(&argv, &shell::variables(path, &directory))?);
    }
    programs.push(program(&task.argv, &[])?);
    Ok(programs)
}

fn open_pipe() -> io::Result<Stream> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    // Not being allowed a larger pipe costs speed only.
    let _ = fcntl_setpipe_size(&ours, PIPE_BYTES);
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok(Stream { ours, theirs })
}

/// A pseudo-terminal that passes bytes as they are. The supervisor leads the session: were it the job, the kernel would
/// throw away what nobody has read yet when the job ends.
fn open_terminal() -> io::Result<Stream> {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{OptionalActions, OutputModes, tcgetattr, tcsetattr, tcsetwinsize};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let mut modes = tcgetattr(&theirs)?;
    modes.output_modes.remove(OutputModes::OPOST);
    tcsetattr(&theirs, OptionalActions::Now, &modes)?;
    tcsetwinsize(&theirs, TERMINAL_SIZE)?;
    rustix::process::ioctl_tiocsctty(&theirs)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok(Stream { ours, theirs })
}
