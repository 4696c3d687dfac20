//! The container engine's API as far as a supervisor needs it: HTTP/1.0 over its socket, so that an answer ends with
//! its connection and nothing has to be told about pieces. Nothing here waits longer than it is told to: an engine may
//! hang as well as die.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::time::Timespec;
use windlass_protocol::limits::ENGINE_ANSWER_MAX_BYTES;

use super::boot_now_ms;

/// Where the engine listens.
#[derive(Debug)]
pub(crate) struct Engine(PathBuf);

/// An answer: its status and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Self> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the container engine's answer is not HTTP");
        let end = head_end(bytes).ok_or_else(bad)?;
        let status = bytes.split(|byte| *byte == b' ').nth(1).and_then(|word| std::str::from_utf8(word).ok());
        let status = status.and_then(|word| word.trim().parse().ok()).ok_or_else(bad)?;
        Ok(Self { status, body: bytes[end..].to_vec() })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What went wrong, in the engine's words.
    pub(crate) fn message(&self) -> String {
        let json = self.json();
        json["message"].as_str().map_or_else(|| format!("status {}", self.status), str::to_owned)
    }
}

/// Where the head of an answer ends, once it is there.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// A request that is sent and whose answer comes when it comes.
#[derive(Debug)]
pub(crate) struct Exchange {
    stream: UnixStream,
    answer: Vec<u8>,
    until: Option<u64>,
}

impl Exchange {
    /// What came of it, if that is known: an answer, a connection that broke, or silence past its time.
    pub(crate) fn advance(&mut self, now: u64) -> Option<io::Result<Answer>> {
        let mut bytes = [0; 4_096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Some(Answer::parse(&self.answer)),
                Ok(count) if self.answer.len() + count > ENGINE_ANSWER_MAX_BYTES => {
                    return Some(Err(io::ErrorKind::InvalidData.into()));
                }
                Ok(count) => self.answer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let late = self.until.is_some_and(|until| now >= until);
                    return late.then(|| Err(io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Ends its patience at a moment, unless that ended earlier already.
    pub(crate) fn limit(&mut self, until: u64) {
        self.until = Some(self.until.map_or(until, |earlier| earlier.min(until)));
    }

    pub(crate) const fn until(&self) -> Option<u64> {
        self.until
    }

    /// Waits until there is something to read, or its time is over.
    fn rest(&self) -> io::Result<()> {
        let left = self.until.map(|until| until.saturating_sub(boot_now_ms()));
        if left == Some(0) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = left.map(|ms| Timespec {
            tv_sec: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ms % 1_000 * 1_000_000).unwrap_or(0),
        });
        match poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the head and not a byte more; an answer that is no success is the error.
    fn head(&mut self) -> io::Result<()> {
        let mut byte = [0];
        while head_end(&self.answer).is_none() {
            match self.stream.read(&mut byte) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.answer.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.rest()?,
                Err(error) => return Err(error),
            }
            if self.answer.len() > ENGINE_ANSWER_MAX_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        match Answer::parse(&self.answer)?.status {
            101 | 200..=299 => Ok(()),
            status => Err(io::Error::other(format!("the container engine answers with status {status}"))),
        }
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Engine {
    pub(crate) fn new(socket: &Path) -> Self {
        Self(socket.to_owned())
    }

    /// Sends a request whose answer is awaited until `until`, or for ever.
    pub(crate) fn ask(&self, method: &str, path: &str, until: Option<u64>) -> io::Result<Exchange> {
        // Not std's: its connect waits for as long as a hung engine lets others wait before us.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(self.0.as_path())?)?;
        let mut stream = UnixStream::from(socket);
        // A fresh socket's buffer takes far more than this.
        let request = format!("{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        Ok(Exchange { stream, answer: Vec::new(), until })
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn call(&self, method: &str, path: &str, limit_ms: u64) -> io::Result<Answer> {
        let mut exchange = self.ask(method, path, Some(boot_now_ms() + limit_ms))?;
        loop {
            if let Some(result) = exchange.advance(boot_now_ms()) {
                return result;
            }
            exchange.rest()?;
        }
    }

    /// Sends a request whose answer begins at once and goes on for long: waits for its head alone.
    pub(crate) fn begin(&self, method: &str, path: &str, limit_ms: u64) -> io::Result<Exchange> {
        let mut exchange = self.ask(method, path, Some(boot_now_ms() + limit_ms))?;
        exchange.head()?;
        exchange.until = None;
        Ok(exchange)
    }

    /// The same where what follows the head is no answer but a stream of bytes.
    pub(crate) fn stream(&self, method: &str, path: &str, limit_ms: u64) -> io::Result<UnixStream> {
        self.begin(method, path, limit_ms).map(|exchange| exchange.stream)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body_and_anything_else_is_refused() {
        let answer = Answer::parse(b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n{\"message\":\"no such\"}").unwrap();
        assert_eq!((answer.status, answer.message()), (404, "no such".to_owned()));
        for bytes in [&b""[..], b"HTTP/1.0 200 OK\r\n", b"\r\n\r\n", b"HTTP/1.0 many OK\r\n\r\n"] {
            assert!(Answer::parse(bytes).is_err());
        }
    }

    #[test]
    fn an_engine_that_says_nothing_is_given_up_in_time_and_one_that_is_not_there_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine");
        let engine = Engine::new(&path);
        assert_eq!(engine.call("GET", "/_ping", 60_000).unwrap_err().kind(), io::ErrorKind::NotFound);
        // The kernel takes the connection; nobody ever answers it.
        let _silent = UnixListener::bind(&path).unwrap();
        for call in [engine.call("GET", "/_ping", 20).map(drop), engine.begin("GET", "/_ping", 20).map(drop)] {
            assert_eq!(call.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    }

    #[test]
    fn a_stream_begins_with_the_first_byte_behind_the_head() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine");
        let door = UnixListener::bind(&path).unwrap();
        let serving = std::thread::spawn(move || {
            let mut stream = door.accept().unwrap().0;
            assert!(stream.read(&mut [0; 4_096]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nfirst").unwrap();
        });
        let stream = Engine::new(&path).stream("POST", "/attach", 20_000).unwrap();
        serving.join().unwrap();
        stream.set_nonblocking(false).unwrap();
        let mut text = String::new();
        let mut stream = stream;
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first");
    }
}
