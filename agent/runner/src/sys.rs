//! Fork, exec and signals: the only unsafe code of the crate. Called in the spawner and in supervisors, which have one
//! thread and no runtime, and never in the agent.

#![allow(unsafe_code, reason = "fork, clone3, execve and signal masks have no safe form")]

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use windlass_protocol::limits::{JOB_OPEN_FILES_MAX, JOB_PROCESSES_MAX};

use crate::launch::User;

mod birth;

pub(crate) use birth::bear;

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Forked {
    Child,
    Parent(Pid),
}

/// Forks.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: this process has one thread, so the child has a consistent heap and no lock held by others.
    forked(i64::from(unsafe { libc::fork() }))
}

fn forked(result: i64) -> io::Result<Forked> {
    match i32::try_from(result).map_err(io::Error::other)? {
        0 => Ok(Forked::Child),
        pid => Pid::from_raw(pid).filter(|_| pid > 0).map(Forked::Parent).ok_or_else(io::Error::last_os_error),
    }
}

/// Ends this process without running anything that was registered by the process it was forked from.
pub(crate) fn leave(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Lets the kernel reap this process's children.
pub(crate) fn ignore_children() {
    set_signal(libc::SIGCHLD, libc::SIG_IGN);
}

/// Signals that people and service managers send to a whole group: they are for the agent, which decides.
pub(crate) fn ignore_group_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGTSTP, libc::SIGTTOU] {
        set_signal(signal, libc::SIG_IGN);
    }
}

fn set_signal(signal: i32, action: libc::sighandler_t) {
    // SAFETY: only SIG_IGN and SIG_DFL are passed; no handler can run. A signal that cannot be set stays as it is.
    unsafe { libc::signal(signal, action) };
}

/// A descriptor that becomes readable whenever a child ends. Children become this process's to reap again.
pub(crate) fn watch_children() -> io::Result<OwnedFd> {
    set_signal(libc::SIGCHLD, libc::SIG_DFL);
    // SAFETY: the set is initialised by `sigemptyset` before it is used, and outlives the calls.
    let fd = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn reset_signals() {
    // The kernel's own structure, all zero: the default action. The C library refuses two numbers that it uses itself,
    // and they are inherited across exec as the others are.
    let default = [0_u64; 4];
    for signal in 1..=64_i32 {
        // SAFETY: the structure is as large as the kernel's on all 64-bit Linux, outlives the call, and sets no handler.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), size_of::<u64>())
        };
    }
    // SAFETY: as in `watch_children`.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// A program to become.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its path, then its arguments.
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
}

/// Everything that a child needs between fork and exec, made before the fork.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Tried in order until one can be started: a plain program, then the shell that would have become it.
    pub(crate) programs: Vec<Program>,
    pub(crate) workspace: PathBuf,
    pub(crate) user: Option<User>,
    pub(crate) stdin: OwnedFd,
    pub(crate) output: OwnedFd,
    /// The output is a terminal: the job's group becomes its foreground.
    pub(crate) terminal: bool,
    /// `tasks` files of v1 control groups, open for writing.
    pub(crate) tasks: Vec<OwnedFd>,
    /// Without a control group that counts them, processes are limited per user.
    pub(crate) limit_processes: bool,
    /// Closed by a successful exec; otherwise it carries a step and an error number.
    pub(crate) failure: OwnedFd,
    pub(crate) supervisor: Pid,
}

/// Where a child failed before its exec; the number is what goes through the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Session = 1,
    Streams = 2,
    Cgroup = 3,
    Limits = 4,
    User = 5,
    Workspace = 6,
    Supervisor = 7,
    Program = 8,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Session,
        Self::Streams,
        Self::Cgroup,
        Self::Limits,
        Self::User,
        Self::Workspace,
        Self::Supervisor,
        Self::Program,
    ];

    /// What a child told through its failure pipe; `None` if it told nothing, which means that it runs.
    pub(crate) fn parse(told: &[u8]) -> Option<(Self, io::Error)> {
        let (step, errno) = told.split_first()?;
        let step = Self::ALL.into_iter().find(|known| *known as u8 == *step)?;
        Some((step, io::Error::from_raw_os_error(i32::from_le_bytes(*errno.first_chunk()?))))
    }

    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Session => "could not make a session for the job",
            Self::Streams => "could not connect the job's output",
            Self::Cgroup => "could not enter the job's control group",
            Self::Limits => "could not set the job's limits",
            Self::User => "could not become the job's user",
            Self::Workspace => "could not enter the workspace",
            Self::Supervisor => "the supervisor was gone before the job started",
            Self::Program => "could not start the shell",
        }
    }
}

/// Becomes the job. Only ever returns by leaving.
fn become_job(plan: &Plan) -> ! {
    let (step, error) = match prepare(plan) {
        Err(failed) => failed,
        Ok(()) => (Step::Program, exec(plan)),
    };
    let mut told = [0; 5];
    told[0] = step as u8;
    told[1..].copy_from_slice(&error.raw_os_error().unwrap_or(libc::EIO).to_le_bytes());
    if let Ok(fd) = plan.failure.try_clone() {
        // Nobody is left to tell if this fails; the exit status still says that it did not start.
        drop(std::fs::File::from(fd).write_all(&told));
    }
    leave(127)
}

fn prepare(plan: &Plan) -> Result<(), (Step, io::Error)> {
    let at = |step: Step| move |error: rustix::io::Errno| (step, io::Error::from(error));
    if plan.terminal {
        rustix::process::setpgid(None, None).map_err(at(Step::Session))?;
        let group = rustix::process::getpid();
        rustix::termios::tcsetpgrp(&plan.output, group).map_err(at(Step::Session))?;
    } else {
        rustix::process::setsid().map_err(at(Step::Session))?;
    }
    for (fd, target) in [(&plan.stdin, 0), (&plan.output, 1), (&plan.output, 2)] {
        duplicate(fd.as_fd(), target).map_err(|error| (Step::Streams, error))?;
    }
    for tasks in &plan.tasks {
        // "0" is this thread itself: the kernel then need not wait as it does for a foreign process.
        rustix::io::write(tasks, b"0").map_err(at(Step::Cgroup))?;
    }
    set_limits(plan.limit_processes).map_err(at(Step::Limits))?;
    if let Some(user) = plan.user {
        become_user(user).map_err(at(Step::User))?;
    }
    rustix::process::chdir(&plan.workspace).map_err(at(Step::Workspace))?;
    // After the change of user, which clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Supervisor))?;
    if rustix::process::getppid() != Some(plan.supervisor) {
        return Err((Step::Supervisor, io::Error::from_raw_os_error(libc::ESRCH)));
    }
    close_on_exec_from(3);
    reset_signals();
    Ok(())
}

fn duplicate(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: the source is open; 0, 1 and 2 are this process's own streams, which nothing else owns.
    if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `/dev/null` this process's standard input; with `all`, its output and errors too.
pub(crate) fn detach_streams(all: bool) -> io::Result<()> {
    let nothing = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let targets = if all { 0..3 } else { 0..1 };
    targets.into_iter().try_for_each(|target| duplicate(nothing.as_fd(), target))
}

/// Closes, in a forked child, a descriptor whose owner lives on in the parent: `/dev/null` takes its number, so that
/// the owner's type stays sound here too.
pub(crate) fn close_inherited(fd: BorrowedFd<'_>) -> io::Result<()> {
    let nothing = std::fs::File::open("/dev/null")?;
    // SAFETY: both are open; the number stays open and owned by whom it was.
    if unsafe { libc::dup3(nothing.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_limits(limit_processes: bool) -> rustix::io::Result<()> {
    let set = |resource, most: u64| {
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
    };
    set(Resource::Core, 0)?;
    set(Resource::Nofile, JOB_OPEN_FILES_MAX)?;
    if limit_processes {
        set(Resource::Nproc, JOB_PROCESSES_MAX)?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // A machine that runs out of memory should end a job, not the agent. Not being allowed to say so is no failure.
    drop(std::fs::write("/proc/self/oom_score_adj", "300"));
    Ok(())
}

fn become_user(user: User) -> rustix::io::Result<()> {
    use rustix::process::{Gid, Uid};
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(&[gid])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

fn close_on_exec_from(first: u32) {
    // Ours are all opened so; this is for what the agent's own parent may have left open. Kernels before 5.11 refuse.
    // SAFETY: nothing is closed here, only marked.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Replaces this program; returns only with the last one's error.
fn exec(plan: &Plan) -> io::Error {
    let pointers = |strings: &[CString]| {
        strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect::<Vec<_>>()
    };
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for program in &plan.programs {
        let (argv, env) = (pointers(&program.argv), pointers(&program.env));
        let Some(path) = program.argv.first() else { continue };
        // SAFETY: both arrays end with null and point to strings that outlive the call.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
        error = io::Error::last_os_error();
    }
    error
}
