//! The spawner's own side: one thread, no runtime. It reads launches and forks supervisors.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use windlass_protocol::limits::{LAUNCH_MAX_BYTES, SUPERVISOR_IDLE_MS};

use super::Answer;
use super::crew::Crew;
use crate::cgroup::Cgroups;
use crate::launch::CONTROL_SOCKET;
use crate::supervisor;
use crate::sys::{self, Forked};

/// Exit statuses of the spawner: the agent went; or it could not begin or go on.
const DONE: i32 = 0;
const FAILED: i32 = 1;

/// Serves launches from standard input, which is a socket, until the agent is gone. For the binary's hidden mode, to be
/// called before any thread exists; the result is the exit status.
#[must_use]
pub fn spawner_from_stdin() -> i32 {
    match io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => spawner_main(socket),
        Err(_) => FAILED,
    }
}

/// Serves launches from `socket` until its other end is gone; the result is the exit status.
#[must_use]
pub fn spawner_main(socket: OwnedFd) -> i32 {
    // A fork copies only the calling thread; with others about, their locks would stay held for ever.
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return FAILED;
    }
    sys::ignore_group_signals();
    sys::ignore_children();
    // Its own session: a terminal's Ctrl-C is for the agent. It may lead one already.
    let _ = rustix::process::setsid();
    if rustix::process::chdir("/").is_err() || sys::detach_streams(false).is_err() {
        return FAILED;
    }
    let cgroups = Cgroups::detect();
    warm_up();
    let mut stream = UnixStream::from(socket);
    let mut crew = Crew::default();
    loop {
        let launch = match await_launch(&stream, &mut crew).and_then(|()| read_launch(&mut stream)) {
            Ok(Some(launch)) => launch,
            Ok(None) => return DONE,
            Err(_) => return FAILED,
        };
        let answer = match start(&launch, &cgroups, &stream, &mut crew) {
            Ok(supervisor) => Answer::Launched { supervisor },
            Err(error) => Answer::Failed { what: error.to_string() },
        };
        if write_answer(&mut stream, &answer).is_err() {
            return FAILED;
        }
    }
}

/// Lets the libraries look at the processor once, here: each forked supervisor would do it again, and in a virtual
/// machine every such look is a trap.
fn warm_up() {
    let text = [b'x'; 8 << 10];
    std::hint::black_box((blake3::hash(&text), crc32fast::hash(&text)));
}

/// Waits for what the agent says next; supervisors that wait for a job meanwhile are let go after a while.
fn await_launch(stream: &UnixStream, crew: &mut Crew) -> io::Result<()> {
    let seconds = i64::try_from(SUPERVISOR_IDLE_MS / 1_000).map_err(io::Error::other)?;
    let patience = Timespec { tv_sec: seconds, tv_nsec: 0 };
    while !crew.is_empty() {
        match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&patience)) {
            Ok(0) => crew.dismiss(),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Fails when the stream is of no more use; `None` once the agent is gone.
fn read_launch(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LAUNCH_MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(body))
}

fn write_answer(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let body = serde_json::to_vec(answer)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(&body)
}

/// What the spawner itself has to know of a launch; the rest is for its supervisor.
#[derive(Deserialize)]
struct Place {
    dir: PathBuf,
}

fn start(launch: &[u8], cgroups: &Cgroups, agent: &UnixStream, crew: &mut Crew) -> io::Result<u32> {
    let Place { dir } = serde_json::from_slice(launch)?;
    let listener = listen(&dir)?;
    if let Some(pid) = crew.hand_over(launch, &listener) {
        return Ok(pid);
    }
    let (ours, theirs) = crew.line()?.unzip();
    match sys::fork()? {
        Forked::Parent(pid) => {
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            if let Some(ours) = ours {
                crew.add(pid, ours);
            }
            Ok(pid)
        }
        Forked::Child => {
            // The agent, and those who wait, must see the spawner's end close when the spawner ends, whatever jobs go on.
            drop((std::mem::take(crew), ours));
            let closed = sys::close_inherited(agent.as_fd());
            let status = catch_unwind(AssertUnwindSafe(|| match (closed, serde_json::from_slice(launch)) {
                (Ok(()), Ok(launch)) => supervisor::run(launch, listener, cgroups, theirs),
                (Err(_), _) | (_, Err(_)) => FAILED,
            }));
            sys::leave(status.unwrap_or(FAILED));
        }
    }
}

/// Binds the attempt's control socket. Through a descriptor, because a socket's path is short and a data directory's
/// may be long.
fn listen(dir: &Path) -> io::Result<UnixListener> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let path = dir;
    let dir = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{CONTROL_SOCKET}", dir.as_raw_fd()))?;
    // An agent that starts anew moves a directory aside, and then looks for the socket. We make the socket, and then look
    // whether the directory is still there: one of the two sees the other.
    let (held, there) = (dir.metadata()?, std::fs::metadata(path)?);
    if (held.dev(), held.ino()) != (there.dev(), there.ino()) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the attempt was given up meanwhile"));
    }
    Ok(listener)
}
