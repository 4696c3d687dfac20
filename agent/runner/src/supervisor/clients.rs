//! The connections to a supervisor: agents come, go, stop and crash; none of it may hold up the job.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use windlass_protocol::limits::{SUPERVISOR_CLIENTS_MAX, SUPERVISOR_LINE_MAX_BYTES};

use crate::control::{Report, Request, to_line};

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    read: Vec<u8>,
    /// The rest of a line that was half taken: the next one may only follow it.
    unsent: Vec<u8>,
    /// A report was passed over; the state is told again once there is room.
    pub(crate) behind: bool,
}

impl Client {
    pub(crate) fn wants_to_send(&self) -> bool {
        self.behind || !self.unsent.is_empty()
    }

    /// Sends a report if the client keeps up.
    fn report(&mut self, report: &Report) -> io::Result<()> {
        if !self.flush()? {
            self.behind = true;
            return Ok(());
        }
        self.unsent = to_line(report)?;
        self.flush()?;
        Ok(())
    }

    /// Whether nothing is left to send.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads once and hands over whole lines.
    fn requests(&mut self, into: &mut Vec<Request>) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.read.extend_from_slice(&bytes[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
            // A request of a newer agent that is not known here is passed over, as the protocol says.
            into.extend(serde_json::from_slice::<Request>(&self.read[..end]).ok());
            self.read.drain(..=end);
        }
        if self.read.len() > SUPERVISOR_LINE_MAX_BYTES { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }
}

/// All connections; a client that fails in any way is dropped and may come again.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    all: VecDeque<Client>,
}

impl Clients {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.all.iter()
    }

    /// Takes who waits at the door and greets them.
    pub(crate) fn accept(&mut self, listener: &UnixListener, hello: &Report) {
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let mut client = Client { stream, read: Vec::new(), unsent: Vec::new(), behind: false };
            if client.report(hello).is_ok() {
                self.all.push_back(client);
            }
            if self.all.len() > SUPERVISOR_CLIENTS_MAX {
                self.all.pop_front();
            }
        }
    }

    /// Tells everyone.
    pub(crate) fn report(&mut self, report: &Report) {
        self.all.retain_mut(|client| client.report(report).is_ok());
    }

    /// What the `index`-th asks for.
    pub(crate) fn requests(&mut self, index: usize) -> Vec<Request> {
        let mut requests = Vec::new();
        let failed = self.all.get_mut(index).is_some_and(|client| client.requests(&mut requests).is_err());
        if failed {
            self.all.remove(index);
        }
        requests
    }

    /// The `index`-th takes bytes again: it is told the state that it missed.
    pub(crate) fn catch_up(&mut self, index: usize, state: &Report) {
        let failed = self.all.get_mut(index).is_some_and(|client| {
            let caught_up = match client.flush() {
                Ok(true) if client.behind => {
                    client.behind = false;
                    client.report(state)
                }
                other => other.map(|_| ()),
            };
            caught_up.is_err()
        });
        if failed {
            self.all.remove(index);
        }
    }
}
