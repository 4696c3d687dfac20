//! Starts a job's container, which the agent has made, and collects what came of it.
//!
//! Its command waits for a word of ours before it starts, so that nothing runs whose first process is not known here,
//! and nothing after its lease. Without a terminal its output does not pass through the engine: the container writes into
//! a FIFO of the attempt's. Both streams keep their order and every byte, the job waits where nobody reads, and an
//! engine that is busy or dead loses nothing. A terminal is the engine's, and so is its output.
//!
//! An engine may die, come back or hang at any time. The end of the container is its first process's end (see `init`);
//! only where that process cannot be seen is it the engine's word. Until then the job has not ended.

mod removal;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use serde_json::Value;
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::limits::{
    ENGINE_ANSWER_MS, ENGINE_GONE_MS, ENGINE_NOTICE_MS, ENGINE_REMOVE_MS, ENGINE_REMOVE_UNWELL_MS, ENGINE_RETRY_MAX_MS,
};

pub(crate) use self::removal::bury;
use self::removal::remove;
use super::engine::{Answer, Engine, Exchange};
use super::init::Init;
use super::process::PIPE_BYTES;
use super::{End, Watched, boot_now_ms};
use crate::launch::{ContainerTask, InitRecord, Places};

/// The first pause before an engine that went away is asked again.
const RETRY_MS: u64 = 50;

/// How the end of the container is heard of.
#[derive(Debug)]
enum Hearing {
    /// The engine answers when it has ended.
    Waiting(Exchange),
    /// The engine is asked what is the case.
    Asking(Exchange),
    /// It did not know, or did not answer; it is asked again then.
    Pausing { until: u64 },
    /// It is over.
    Told(Told),
}

/// What the engine said of the end.
#[derive(Debug)]
enum Told {
    /// The container's `State`.
    State(Value),
    /// It knows of no such container.
    Removed,
    /// Nothing, for long.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Container {
    task: ContainerTask,
    engine: Engine,
    /// `None` where the engine's processes cannot be seen from here.
    init: Option<Init>,
    /// Where the command hears that it may start. Stays open: a FIFO that everybody left forgets what is in it.
    go: OwnedFd,
    /// What it is to hear; `None` once it was said.
    word: Option<&'static str>,
    hearing: Hearing,
    pause_ms: u64,
    /// A signal on its way through the engine.
    order: Option<Exchange>,
    /// When the first process was seen to have ended.
    dead_at: Option<u64>,
    /// What the engine said to who waited, before it was asked for the rest.
    status: Option<i64>,
    /// The engine broke off while the container ran.
    broke: bool,
    killed: bool,
    /// A terminal's output after the first one broke.
    output: Option<OwnedFd>,
}

/// A container that runs, and whose command waits.
struct Begun {
    init: Option<Init>,
    go: OwnedFd,
    word: &'static str,
    waiting: Exchange,
    output: OwnedFd,
}

impl Container {
    /// Starts the container, whose command waits for [`Watched::go`]; returns it and where its output is read.
    pub(crate) fn start(task: &ContainerTask, places: &Places<'_>) -> Result<(Self, OwnedFd), Cause> {
        let engine = Engine::new(&task.engine);
        match Self::begin(task, &engine, places) {
            Ok(Begun { init, go, word, waiting, output }) => {
                let container = Self {
                    task: task.clone(),
                    engine,
                    init,
                    go,
                    word: Some(word),
                    hearing: Hearing::Waiting(waiting),
                    pause_ms: RETRY_MS,
                    order: None,
                    dead_at: None,
                    status: None,
                    broke: false,
                    killed: false,
                    output: None,
                };
                Ok((container, output))
            }
            // Its command never heard that it may start, and never will: whatever the engine made of the request, nothing
            // of the job runs. What is not removed here is found by its labels.
            Err(cause) => {
                remove(&engine, task, ENGINE_REMOVE_UNWELL_MS);
                Err(cause)
            }
        }
    }

    fn begin(task: &ContainerTask, engine: &Engine, places: &Places<'_>) -> Result<Begun, Cause> {
        let fault =
            |what: &'static str| move |error: io::Error| Cause::new(CauseKind::Internal, format!("{what}: {error}"));
        let path = |verb: &str| format!("/containers/{}/{verb}", task.container);
        let go = open_fifo(places.go()).map_err(fault("could not open the job's FIFO"))?;
        // Both before the start, so that neither the end nor a byte is missed.
        let waiting = engine
            .begin("POST", &path("wait?condition=next-exit"), ENGINE_ANSWER_MS)
            .map_err(fault("the container engine does not answer"))?;
        let output = if task.tty {
            attach(engine, task, ENGINE_ANSWER_MS)
                .map_err(fault("the container engine does not hand over the terminal"))?
        } else {
            open_output(places).map_err(fault("could not open the job's output"))?
        };
        match engine.call("POST", &path("start"), ENGINE_ANSWER_MS) {
            Ok(answer) if answer.status < 400 => {}
            Ok(answer) => return Err(refused(&answer)),
            Err(error) => return Err(fault("the container engine did not start the container")(error)),
        }
        let answer = engine
            .call("GET", &path("json"), ENGINE_ANSWER_MS)
            .map_err(fault("the container engine went away while it started the container"))?;
        let pid = answer.json()["State"]["Pid"].as_i64().unwrap_or(0);
        let init = Init::find(pid, &task.container);
        // Without the right to set the terminal from here, the image's own `stty` is asked.
        let set = || init.as_ref().is_some_and(|init| init.set_terminal().is_ok());
        let word = match task.tty {
            false => "pipe\n",
            true if set() => "terminal\n",
            true => "stty\n",
        };
        Ok(Begun { init, go, word, waiting, output })
    }

    fn path(&self, verb: &str) -> String {
        format!("/containers/{}/{verb}", self.task.container)
    }

    /// Takes one step in what is heard of the end; says whether there was one.
    fn hear(&mut self, now: u64) -> bool {
        let heard = match &mut self.hearing {
            Hearing::Told(_) => return false,
            Hearing::Pausing { until } if now < *until => None,
            Hearing::Pausing { .. } => {
                self.ask(now);
                return true;
            }
            Hearing::Waiting(exchange) => exchange.advance(now).map(|result| (true, result)),
            Hearing::Asking(exchange) => exchange.advance(now).map(|result| (false, result)),
        };
        match heard {
            None if self.is_late(now) => self.hearing = Hearing::Told(Told::Nothing),
            None => return false,
            Some((true, result)) => self.waited(now, result),
            Some((false, result)) => self.answered(now, result),
        }
        true
    }

    /// Whether nobody waits for the engine any longer: it is over for certain, and how it ended is known without it or
    /// has been asked for long enough.
    fn is_late(&self, now: u64) -> bool {
        self.dead_at.is_some_and(|at| self.killed || now >= at + ENGINE_GONE_MS)
    }

    fn ask(&mut self, now: u64) {
        match self.engine.ask("GET", &self.path("json"), Some(now + ENGINE_ANSWER_MS)) {
            Ok(exchange) => self.hearing = Hearing::Asking(exchange),
            Err(_) => self.broken(now),
        }
    }

    fn broken(&mut self, now: u64) {
        self.broke = true;
        self.pause(now);
    }

    fn pause(&mut self, now: u64) {
        self.hearing = Hearing::Pausing { until: now + self.pause_ms };
        self.pause_ms = (self.pause_ms * 2).min(ENGINE_RETRY_MAX_MS);
    }

    /// The wait is over: it was answered, or the engine broke off and is asked what is the case.
    fn waited(&mut self, now: u64, result: io::Result<Answer>) {
        match result {
            Ok(answer) if answer.json()["StatusCode"].is_i64() => {
                self.status = answer.json()["StatusCode"].as_i64();
                self.ask(now);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => self.ask(now),
            Ok(_) | Err(_) => self.broken(now),
        }
    }

    fn answered(&mut self, now: u64, result: io::Result<Answer>) {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return self.pause(now),
            Err(_) => return self.broken(now),
        };
        let state = answer.json()["State"].clone();
        let lives = self.init.is_some() && self.dead_at.is_none();
        match (answer.status, state["Running"].as_bool()) {
            (200, Some(true)) if self.dead_at.is_none() => self.wait_again(now),
            // An engine that lost sight of a container that lives is wrong; it is ended through its first process.
            (200, Some(false)) if !lives => self.hearing = Hearing::Told(Told::State(state)),
            (404, _) if !lives => self.hearing = Hearing::Told(Told::Removed),
            // It has not noticed the end yet, or it does not know what it should.
            _ => self.pause(now),
        }
    }

    /// The engine is back, and the container runs.
    fn wait_again(&mut self, now: u64) {
        if self.task.tty {
            match attach(&self.engine, &self.task, ENGINE_NOTICE_MS) {
                Ok(output) => self.output = Some(output),
                Err(_) => return self.broken(now),
            }
        }
        // Answered at once where it ended since.
        match self.engine.ask("POST", &self.path("wait?condition=not-running"), None) {
            Ok(exchange) => {
                self.hearing = Hearing::Waiting(exchange);
                self.pause_ms = RETRY_MS;
            }
            Err(_) => self.broken(now),
        }
    }

    fn signal(&mut self, signal: Signal, name: &str) {
        if self.init.as_ref().is_some_and(|init| init.signal(signal)) {
            return;
        }
        let until = Some(boot_now_ms() + ENGINE_ANSWER_MS);
        // An engine that cannot be reached now is asked again, as long as the container lives.
        self.order = self.engine.ask("POST", &self.path(&format!("kill?signal={name}")), until).ok();
    }

    fn out_of_memory(&self) -> Cause {
        let detail =
            format!("the kernel ended one of the container's processes: limit {} bytes", self.task.memory_bytes);
        Cause::new(CauseKind::OutOfMemory, detail)
    }

    fn end_of(&self, state: &Value) -> End {
        let status = state["ExitCode"].as_i64().and_then(|status| i32::try_from(status).ok());
        let out_of_memory = state["OOMKilled"] == true && status != Some(0);
        // What an engine that stops sends to its containers, and what it says of those that it lost.
        let engines_doing = self.broke && matches!(status, Some(137 | 143 | 255) | None);
        let cause = match status {
            _ if out_of_memory => Some(self.out_of_memory()),
            _ if engines_doing && !self.killed => {
                let status = status.map_or_else(|| "no status".to_owned(), |status| format!("status {status}"));
                Some(internal(format!(
                    "the container engine stopped while the job ran, and its container with {status}"
                )))
            }
            _ => None,
        };
        let (exit_status, signal) = if self.killed { (None, Some(9)) } else { (status, None) };
        End { exit_status, signal, cause, peak_memory_bytes: None }
    }
}

impl Container {
    fn collect_at(&mut self, now: u64) {
        if self.order.as_mut().is_some_and(|order| order.advance(now).is_some()) {
            self.order = None;
        }
        if self.dead_at.is_none() && self.init.as_ref().is_some_and(Init::ended) {
            self.dead_at = Some(now);
            self.pause_ms = RETRY_MS;
            if let Hearing::Waiting(exchange) = &mut self.hearing {
                exchange.limit(now + ENGINE_NOTICE_MS);
            }
        }
        while self.hear(now) {}
    }
}

impl Watched for Container {
    fn collect(&mut self) {
        self.collect_at(boot_now_ms());
    }

    fn main_ended(&self) -> bool {
        self.dead_at.is_some() || self.gone()
    }

    fn gone(&self) -> bool {
        // A container's processes end with its first one.
        matches!(self.hearing, Hearing::Told(_))
    }

    fn terminate(&mut self) {
        self.signal(Signal::TERM, "SIGTERM");
    }

    fn kill(&mut self) {
        let on_its_way = self.killed && self.order.is_some();
        if !self.main_ended() && !on_its_way {
            self.killed = true;
            self.signal(Signal::KILL, "SIGKILL");
        }
    }

    fn left(&self) -> Vec<u32> {
        let alive = self.init.as_ref().filter(|_| self.dead_at.is_none());
        alive.map(|init| init.record().pid.unsigned_abs()).into_iter().collect()
    }

    fn end(&mut self) -> End {
        match &self.hearing {
            Hearing::Told(Told::State(state)) => self.end_of(state),
            _ if self.killed => End { signal: Some(9), ..End::default() },
            Hearing::Told(Told::Removed) => {
                let cause = internal("somebody removed the container while the job ran".to_owned());
                End { cause: Some(cause), ..End::default() }
            }
            _ => match self.status {
                Some(status) => self.end_of(&serde_json::json!({ "ExitCode": status })),
                None => {
                    let detail = "the container engine went away while the job ran; the container's processes have \
                                  ended, and nobody can say with what status";
                    End { cause: Some(internal(detail.to_owned())), ..End::default() }
                }
            },
        }
    }

    fn clean(&mut self) -> bool {
        let doubtful = self.broke || matches!(self.hearing, Hearing::Told(Told::Nothing));
        let unwell = doubtful && self.engine.call("GET", "/_ping", ENGINE_REMOVE_UNWELL_MS).is_err();
        remove(&self.engine, &self.task, if unwell { ENGINE_REMOVE_UNWELL_MS } else { ENGINE_REMOVE_MS })
    }

    fn go(&mut self) {
        // It fits into an empty pipe; what is not taken is said again.
        self.word = self.word.filter(|word| rustix::io::write(&self.go, word.as_bytes()).is_err());
    }

    fn init(&self) -> Option<InitRecord> {
        self.init.as_ref().map(Init::record)
    }

    fn wakes(&self) -> Vec<BorrowedFd<'_>> {
        let heard = match &self.hearing {
            Hearing::Waiting(exchange) | Hearing::Asking(exchange) => Some(exchange.as_fd()),
            Hearing::Pausing { .. } | Hearing::Told(_) => None,
        };
        let order = self.order.as_ref().map(AsFd::as_fd);
        let init = self.init.as_ref().filter(|_| self.dead_at.is_none()).map(AsFd::as_fd);
        heard.into_iter().chain(order).chain(init).collect()
    }

    fn wake_at(&self) -> Option<u64> {
        let heard = match &self.hearing {
            Hearing::Waiting(exchange) | Hearing::Asking(exchange) => exchange.until(),
            Hearing::Pausing { until } => Some(*until),
            Hearing::Told(_) => return None,
        };
        let order = self.order.as_ref().and_then(Exchange::until);
        heard.into_iter().chain(order).chain(self.dead_at.map(|at| at + ENGINE_GONE_MS)).min()
    }

    fn output_again(&mut self) -> Option<OwnedFd> {
        self.output.take()
    }

    fn output_ends(&self) -> bool {
        self.task.tty
    }
}

fn attach(engine: &Engine, task: &ContainerTask, limit_ms: u64) -> io::Result<OwnedFd> {
    let path = format!("/containers/{}/attach?stream=1&stdout=1&stderr=1", task.container);
    engine.stream("POST", &path, limit_ms).map(OwnedFd::from)
}

fn open_output(places: &Places<'_>) -> io::Result<OwnedFd> {
    let output = open_fifo(places.output())?;
    // Not being allowed a larger pipe costs speed only.
    let _ = rustix::pipe::fcntl_setpipe_size(&output, PIPE_BYTES);
    Ok(output)
}

/// Both ends, so that the container never waits for us and its absence is not an end.
fn open_fifo(path: std::path::PathBuf) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

fn refused(answer: &Answer) -> Cause {
    internal(format!("the container did not start: {}", answer.message()))
}

fn internal(detail: String) -> Cause {
    Cause::new(CauseKind::Internal, detail)
}
