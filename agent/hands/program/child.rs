//! A bootstrap's children: one at a time, each leading a group of its own, which gets the signal that ends the job.

#![allow(unsafe_code, reason = "the standard library has no signals")]

use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::bootstrap::{Variables, fail};
use crate::phases::Ended;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// The default action of a signal.
const SIG_DFL: usize = 0;

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn kill(process: i32, number: i32) -> i32;
    fn waitid(kind: i32, process: u32, info: *mut u64, options: i32) -> i32;
}

/// `waitid` of one process, until it has ended, without reaping it.
const P_PID: i32 = 1;
const WEXITED: i32 = 4;
const WNOWAIT: i32 = 0x0100_0000;
/// Room for a `siginfo_t`, in whole words.
const INFO_WORDS: usize = 16;

/// Between two looks at whether somebody wants the job to end.
const PAUSE: Duration = Duration::from_millis(100);

/// Somebody wants the job to end.
static CANCELED: AtomicBool = AtomicBool::new(false);
/// The phases have heard of it: what runs from now on is there to clean up.
static HEARD: AtomicBool = AtomicBool::new(false);
/// Who is to hear of it: a process, negative for a group, 0 for none.
static RUNNING: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_terminate(_: i32) {
    CANCELED.store(true, Ordering::SeqCst);
    let running = RUNNING.load(Ordering::SeqCst);
    if running != 0 {
        // SAFETY: `kill` may be called in a handler. A process that is gone meanwhile is not reaped before `RUNNING` is 0
        // again, so its number is nobody else's.
        unsafe { kill(running, SIGTERM) };
    }
}

/// From here on the signal that ends the job goes to what runs.
pub(crate) fn listen() {
    let handler: extern "C" fn(i32) = on_terminate;
    // SAFETY: the handler touches nothing but atomics, and calls nothing but `kill`.
    unsafe { signal(SIGTERM, handler as usize) };
}

/// Whether somebody wants the job to end.
pub(crate) fn is_canceled() -> bool {
    CANCELED.load(Ordering::SeqCst)
}

/// Whether somebody wants the job to end, heard for the first time: nothing that is started before this is said runs on, and
/// what is started after it does.
pub(crate) fn hears_of_cancel() -> bool {
    is_canceled() && !HEARD.swap(true, Ordering::SeqCst)
}

/// Whether somebody wants the job to end and its phases have not heard of it yet.
pub(crate) fn is_unheard() -> bool {
    is_canceled() && !HEARD.load(Ordering::SeqCst)
}

/// Waits for a while; not for what nobody wants any more.
pub(crate) fn pause(ms: u64) {
    let end = Instant::now() + Duration::from_millis(ms);
    while !is_unheard() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(PAUSE));
    }
}

/// The path of the program that runs.
pub(crate) fn this_program() -> PathBuf {
    // The name it was started by: that directory is shown to jobs, wherever `/proc` says that it lies.
    std::env::args_os().next().map(PathBuf::from).unwrap_or_default()
}

/// Gives a command variables and a directory.
pub(crate) fn with<'a>(command: &'a mut Command, variables: &Variables, directory: &Path) -> &'a mut Command {
    let variables =
        variables.iter().map(|(name, value)| (std::ffi::OsStr::from_bytes(name), std::ffi::OsStr::from_bytes(value)));
    command.env_clear().envs(variables).current_dir(directory)
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> io::Result<Ended> {
    wait(start(command)?)
}

/// Starts a command that hears of the job's end.
pub(crate) fn start(command: &mut Command) -> io::Result<Child> {
    // A terminal's foreground group is left as it is: whoever is not in it may not read.
    let grouped = !io::stdin().is_terminal();
    if grouped {
        command.process_group(0);
    }
    let child = command.spawn()?;
    let process = i32::try_from(child.id()).map_err(io::Error::other)?;
    let running = if grouped { -process } else { process };
    RUNNING.store(running, Ordering::SeqCst);
    if is_unheard() {
        // The signal came when nobody was to hear of it: before this one began, or between two of one phase.
        // SAFETY: the child is not reaped yet, so its number is its own.
        unsafe { kill(running, SIGTERM) };
    }
    Ok(child)
}

/// Waits for a command that [`start`] started.
pub(crate) fn wait(mut child: Child) -> io::Result<Ended> {
    let mut info = [0_u64; INFO_WORDS];
    // Until it has ended, and is not reaped: the handler must never name a number that is somebody else's.
    // SAFETY: there is room for what the kernel writes. What goes wrong here the wait below tells.
    while unsafe { waitid(P_PID, child.id(), info.as_mut_ptr(), WEXITED | WNOWAIT) } != 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    RUNNING.store(0, Ordering::SeqCst);
    let status = child.wait()?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => Ended::with(u8::try_from(code).unwrap_or(1)),
        (None, Some(number)) => Ended { status: u8::try_from(128 + number).unwrap_or(255), signal: Some(number) },
        (None, None) => Ended::with(255),
    })
}

/// The end of what could not be started, by the shell's convention.
pub(crate) fn not_started(program: &Path, error: &io::Error) -> Ended {
    fail(&format!("{} cannot be run: {error}", program.display()));
    Ended::with(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// Ends this program as its command ended: by the same signal, where that is possible.
pub(crate) fn die_of(number: i32, otherwise: u8) -> u8 {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    // SAFETY: nothing but this process is named. What cannot be died of leaves the status.
    unsafe {
        if number != SIGKILL {
            signal(number, SIG_DFL);
        }
        if own > 1 {
            kill(own, number);
        }
    }
    otherwise
}
