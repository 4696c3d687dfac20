//! The container engine's API as far as a supervisor needs it: HTTP/1.0 over its socket, so that an answer ends with
//! its connection and nothing has to be told about pieces.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use windlass_protocol::limits::{ENGINE_ANSWER_MAX_BYTES, ENGINE_ANSWER_MS};

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
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

impl Engine {
    pub(crate) fn new(socket: &Path) -> Self {
        Self(socket.to_owned())
    }

    /// Sends a request; its answer is read from what is returned.
    pub(crate) fn send(&self, method: &str, path: &str) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.0)?;
        let limit = Some(Duration::from_millis(ENGINE_ANSWER_MS));
        stream.set_read_timeout(limit)?;
        stream.set_write_timeout(limit)?;
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Length: 0\r\n\r\n")?;
        Ok(stream)
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn call(&self, method: &str, path: &str) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        self.send(method, path)?.take(ENGINE_ANSWER_MAX_BYTES).read_to_end(&mut bytes)?;
        Answer::parse(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body_and_anything_else_is_refused() {
        let answer = Answer::parse(b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n{\"message\":\"no such\"}").unwrap();
        assert_eq!((answer.status, answer.message()), (404, "no such".to_owned()));
        for bytes in [&b""[..], b"HTTP/1.0 200 OK\r\n", b"\r\n\r\n", b"HTTP/1.0 many OK\r\n\r\n"] {
            assert!(Answer::parse(bytes).is_err());
        }
    }
}
