//! Between a spawner and the supervisors that it has forked: one that is done with its job says that it waits for a next one,
//! and is handed it with the listener of the attempt's control socket.
//!
//! Either end is told of the other's death by the line's end, and by nothing else: a supervisor that waits leaves with its
//! spawner, one with a job goes on without it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv,
    recvmsg, sendmsg,
};
use windlass_protocol::limits::{LAUNCH_MAX_BYTES, RELAY_SEND_MS};

use crate::launch::Launch;

/// A supervisor that waits says so in one line of at most this many bytes: the paths of its control groups.
const WAITING_MAX_BYTES: usize = 16 << 10;

/// The two ends of a line: the spawner's and the supervisor's.
pub(crate) fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (spawners, supervisors) = UnixStream::pair()?;
    // The spawner serves others too, and a supervisor that somebody stopped must not hold it up.
    spawners.set_write_timeout(Some(Duration::from_millis(RELAY_SEND_MS)))?;
    Ok((spawners, supervisors))
}

/// Hands a launch over, as it came, with its listener.
///
/// # Errors
/// Those of the socket; the supervisor will not start it then.
pub(crate) fn hand_over(line: &UnixStream, launch: &[u8], listener: &UnixListener) -> io::Result<()> {
    let length = u32::try_from(launch.len()).map_err(io::Error::other)?.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let parts = [IoSlice::new(&length), IoSlice::new(launch)];
    let sent = sendmsg(line, &parts, &mut control, SendFlags::NOSIGNAL)?;
    // The descriptor went with the first byte.
    let mut line = line;
    line.write_all(length.get(sent..).unwrap_or_default())?;
    line.write_all(launch.get(sent.saturating_sub(length.len())..).unwrap_or_default())
}

/// Waits for a next job; `None` once the spawner wants none of this supervisor any more.
///
/// # Errors
/// Those of the socket, and what is no launch.
pub(crate) fn next(line: &UnixStream) -> io::Result<Option<(Launch, UnixListener)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(line, &mut [IoSliceMut::new(&mut length)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message.bytes,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    if got == 0 {
        return Ok(None);
    }
    let listener = descriptor(&mut control).map(UnixListener::from);
    let mut line = line;
    line.read_exact(length.get_mut(got..).unwrap_or_default())?;
    let length = u32::from_le_bytes(length) as usize;
    let Some(listener) = listener.filter(|_| length <= LAUNCH_MAX_BYTES) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut launch = vec![0; length];
    line.read_exact(&mut launch)?;
    Ok(Some((serde_json::from_slice(&launch)?, listener)))
}

fn descriptor(control: &mut RecvAncillaryBuffer<'_>) -> Option<OwnedFd> {
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

/// Says that this supervisor waits for a next job, and keeps these control groups for it.
///
/// # Errors
/// Those of the socket; the spawner is gone then.
pub(crate) fn wait(line: &UnixStream, groups: &[PathBuf]) -> io::Result<()> {
    let mut text = serde_json::to_vec(groups)?;
    text.push(b'\n');
    if text.len() > WAITING_MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut line = line;
    line.write_all(&text)
}

/// What the spawner hears of a supervisor without waiting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing: it is at work.
    Nothing,
    /// It waits for a next job, and keeps these control groups.
    Waiting(Vec<PathBuf>),
    /// It is gone, or makes no sense.
    Gone,
}

/// Listens to a supervisor without waiting.
pub(crate) fn hear(line: BorrowedFd<'_>) -> Heard {
    let mut text = [0; WAITING_MAX_BYTES];
    loop {
        return match recv(line, &mut text, RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::AGAIN) => Heard::Nothing,
            Err(_) | Ok((_, 0)) => Heard::Gone,
            Ok((_, count)) => waiting(text.get(..count).unwrap_or_default()).map_or(Heard::Gone, Heard::Waiting),
        };
    }
}

/// It was written at once, and so it comes at once.
fn waiting(text: &[u8]) -> Option<Vec<PathBuf>> {
    serde_json::from_slice(text.strip_suffix(b"\n")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(dir: &std::path::Path) -> UnixListener {
        UnixListener::bind(dir.join("socket")).unwrap()
    }

    fn launch(preamble: &str) -> Launch {
        use crate::launch::{ContainerTask, Task};
        Launch {
            attempt: windlass_protocol::AttemptId::from_bytes([1; 16]),
            epoch: windlass_protocol::job::Epoch(1),
            dir: "/".into(),
            task: Task::Container(ContainerTask {
                container: String::new(),
                network: None,
                engine: "/".into(),
                secrets: Vec::new(),
                memory_bytes: 0,
                tty: false,
            }),
            secrets: Vec::new(),
            preamble: preamble.to_owned(),
            timeout_ms: None,
            grace_ms: 0,
            lease_deadline_boot_ms: None,
            log_limit_bytes: 0,
        }
    }

    #[test]
    fn a_launch_of_any_size_comes_with_its_own_listener() {
        let dir = tempfile::tempdir().unwrap();
        let (spawners, supervisors) = pair().unwrap();
        for size in [0, 1 << 20] {
            let path = dir.path().join(size.to_string());
            let listener = UnixListener::bind(&path).unwrap();
            let text = "x".repeat(size);
            let body = serde_json::to_vec(&launch(&text)).unwrap();
            let (line, sent) = (spawners.try_clone().unwrap(), body.clone());
            let sending = std::thread::spawn(move || hand_over(&line, &sent, &listener).unwrap());
            let (got, theirs) = next(&supervisors).unwrap().unwrap();
            sending.join().unwrap();
            assert_eq!(got.preamble.len(), size);
            assert_eq!(theirs.local_addr().unwrap().as_pathname(), Some(path.as_path()));
        }
        drop(spawners);
        assert!(next(&supervisors).unwrap().is_none(), "it is wanted no more");
    }

    #[test]
    fn a_launch_that_is_cut_short_or_comes_without_a_listener_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (spawners, supervisors) = pair().unwrap();
        (&spawners).write_all(&[2, 0, 0, 0, b'{', b'}']).unwrap();
        assert_eq!(next(&supervisors).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (spawners, supervisors) = pair().unwrap();
        let body = serde_json::to_vec(&launch("")).unwrap();
        let parts = [IoSlice::new(&[255, 0, 0, 0]), IoSlice::new(&body[..20])];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let listener = listener(dir.path());
        let descriptors = [listener.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&spawners, &parts, &mut control, SendFlags::empty()).unwrap();
        drop(spawners);
        assert_eq!(next(&supervisors).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_supervisor_is_heard_when_it_waits_and_when_it_is_gone() {
        let (spawners, supervisors) = pair().unwrap();
        assert_eq!(hear(spawners.as_fd()), Heard::Nothing);
        let groups = vec![PathBuf::from("/a"), PathBuf::from("/b")];
        wait(&supervisors, &groups).unwrap();
        assert_eq!(hear(spawners.as_fd()), Heard::Waiting(groups));
        assert_eq!(hear(spawners.as_fd()), Heard::Nothing, "said once");
        drop(supervisors);
        assert_eq!(hear(spawners.as_fd()), Heard::Gone);
        let (spawners, supervisors) = pair().unwrap();
        (&supervisors).write_all(b"nonsense").unwrap();
        assert_eq!(hear(spawners.as_fd()), Heard::Gone);
    }

    #[test]
    fn a_supervisor_that_somebody_stopped_holds_the_spawner_up_for_a_bounded_time() {
        let dir = tempfile::tempdir().unwrap();
        let (spawners, _supervisors) = pair().unwrap();
        spawners.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let large = vec![b'x'; LAUNCH_MAX_BYTES];
        let error = hand_over(&spawners, &large, &listener(dir.path())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
