//! Starts a job's container, which the agent has made, and collects what came of it.
//!
//! Its output does not pass through the engine: the container writes into a FIFO of the attempt's, mounted into it. So
//! both streams keep their order and every byte, the job waits where nobody reads, and an engine that is busy loses
//! nothing.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::limits::ENGINE_ANSWER_MAX_BYTES;

use super::engine::{Answer, Engine, head_end};
use super::process::PIPE_BYTES;
use super::{End, Watched};
use crate::launch::ContainerTask;

#[derive(Debug)]
pub(crate) struct Container {
    task: ContainerTask,
    engine: Engine,
    /// The engine answers on it when the container has ended.
    waiting: Option<UnixStream>,
    answer: Vec<u8>,
    ended: bool,
    /// The engine broke off and does not say what became of the container.
    lost: bool,
    killed: bool,
}

impl Container {
    /// Starts the container; returns it and where its output is read.
    pub(crate) fn start(task: &ContainerTask, fifo: &Path) -> Result<(Self, OwnedFd), Cause> {
        let fault =
            |what: &'static str| move |error: io::Error| Cause::new(CauseKind::Internal, format!("{what}: {error}"));
        // Both ends, so that the container never waits for a reader and an absent writer is not an end.
        let output = rustix::fs::open(fifo, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| fault("could not open the job's output")(error.into()))?;
        // Not being allowed a larger pipe costs speed only.
        let _ = rustix::pipe::fcntl_setpipe_size(&output, PIPE_BYTES);
        let engine = Engine::new(&task.engine);
        let mut container = Self {
            task: task.clone(),
            engine,
            waiting: None,
            answer: Vec::new(),
            ended: false,
            lost: false,
            killed: false,
        };
        container.start_waiting().map_err(fault("the container engine does not answer"))?;
        let started = container.engine.call("POST", &container.path("start"));
        let refused = match started {
            Ok(answer) if answer.status < 300 => return Ok((container, output)),
            Ok(answer) => Cause::new(CauseKind::Internal, format!("the container did not start: {}", answer.message())),
            Err(error) => fault("the container engine did not start the container")(error),
        };
        container.clean();
        Err(refused)
    }

    fn path(&self, verb: &str) -> String {
        format!("/containers/{}/{verb}", self.task.container)
    }

    /// Asks to be told of the end, before the start, so that no end is missed.
    fn start_waiting(&mut self) -> io::Result<()> {
        let mut stream = self.engine.send("POST", &self.path("wait?condition=next-exit"))?;
        let mut byte = [0];
        while head_end(&self.answer).is_none() {
            stream.read_exact(&mut byte)?;
            self.answer.extend_from_slice(&byte);
            if self.answer.len() as u64 > ENGINE_ANSWER_MAX_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        stream.set_nonblocking(true)?;
        self.waiting = Some(stream);
        Ok(())
    }

    /// The wait is over: it was answered, or the engine broke off and is asked what is the case.
    fn wait_ended(&mut self) {
        self.waiting = None;
        let answered = Answer::parse(&self.answer).is_ok_and(|answer| answer.json()["StatusCode"].is_i64());
        if answered {
            self.ended = true;
            return;
        }
        match self.engine.call("GET", &self.path("json")) {
            Ok(answer) if answer.json()["State"]["Running"] == true => {
                self.answer.clear();
                if self.start_waiting().is_ok() {
                    return;
                }
                self.lost = true;
            }
            Ok(_) => {}
            Err(_) => self.lost = true,
        }
        self.ended = true;
    }

    fn signal(&self, signal: &str) {
        // A container that ended meanwhile is what was wanted; a busy engine is asked again.
        drop(self.engine.call("POST", &self.path(&format!("kill?signal={signal}"))));
    }

    fn remove(&self, path: &str) -> bool {
        match self.engine.call("DELETE", path) {
            Ok(answer) => answer.status < 300 || answer.status == 404,
            // What an engine that does not answer still holds is found by its labels later.
            Err(_) => true,
        }
    }
}

impl Watched for Container {
    fn collect(&mut self) {
        let mut bytes = [0; 4_096];
        while let Some(stream) = &mut self.waiting {
            match stream.read(&mut bytes) {
                Ok(0) => self.wait_ended(),
                Ok(count) => self.answer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.wait_ended(),
            }
        }
    }

    fn main_ended(&self) -> bool {
        self.ended
    }

    fn gone(&self) -> bool {
        // A container's processes end with its first one.
        self.ended
    }

    fn terminate(&mut self) {
        self.signal("SIGTERM");
    }

    fn kill(&mut self) {
        self.killed = true;
        self.signal("SIGKILL");
    }

    fn left(&self) -> Vec<u32> {
        Vec::new()
    }

    fn end(&mut self) -> End {
        if self.lost {
            let detail = "the container engine went away while the job ran";
            return End { cause: Some(Cause::new(CauseKind::Internal, detail)), ..End::default() };
        }
        let state = match self.engine.call("GET", &self.path("json")) {
            Ok(answer) if answer.status == 200 => answer.json()["State"].clone(),
            Ok(answer) => return unknown(&answer.message()),
            Err(error) => return unknown(&error.to_string()),
        };
        let status = state["ExitCode"].as_i64().and_then(|status| i32::try_from(status).ok());
        let out_of_memory = state["OOMKilled"] == true && status != Some(0);
        let cause = out_of_memory.then(|| {
            let limit = self.task.memory_bytes;
            let detail = format!("the kernel ended one of the container's processes: limit {limit} bytes");
            Cause::new(CauseKind::OutOfMemory, detail)
        });
        let (exit_status, signal) = if self.killed { (None, Some(9)) } else { (status, None) };
        End { exit_status, signal, cause, peak_memory_bytes: None }
    }

    fn clean(&mut self) -> bool {
        let container = self.remove(&format!("/containers/{}?force=1&v=1", self.task.container));
        container && self.task.network.as_ref().is_none_or(|network| self.remove(&format!("/networks/{network}")))
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.waiting.as_ref().map(AsFd::as_fd)
    }
}

fn unknown(what: &str) -> End {
    let cause = Cause::new(CauseKind::Internal, format!("the container engine does not tell how it ended: {what}"));
    End { cause: Some(cause), ..End::default() }
}
