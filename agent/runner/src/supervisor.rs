//! The small process beside each job. It owns the job from fork to outcome: output, limits, deadlines, the end of every
//! process. It holds the lease's deadline of exclusive jobs itself (I3), and it goes on while the agent is stopped,
//! killed or upgraded. When a job is over and nothing is left of it, it may be given a next one (docs/design/017).

mod clients;
mod container;
mod engine;
mod family;
mod init;
mod log;
mod post;
mod process;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, Itimerspec, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_settime};
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::job::Outcome;
use windlass_protocol::limits::{MASKS_WAITING_MAX, SPOOL_STUCK_MS, SUPERVISOR_JOBS_MAX, UNKILLABLE_MS};
use windlass_protocol::time::WallMs;

use crate::cgroup::{Cgroups, JobCgroup};
use crate::control::{CONTROL_VERSION, Report, Request};
use crate::launch::{InitRecord, Launch, Places, StartedRecord, Task, write_first, write_last, write_whole};
use crate::mask::{Masker, secrets_of};
use crate::relay;
use clients::Clients;
use container::Container;
pub(crate) use container::bury as bury_container;
use log::Log;
use post::Post;
use process::Process;

/// What a supervisor watches over: a family of processes, or a container.
trait Watched {
    /// Takes in what happened; called after every wake-up.
    fn collect(&mut self);
    /// Whether the command itself has ended.
    fn main_ended(&self) -> bool;
    /// Whether nothing of the job is left.
    fn gone(&self) -> bool;
    /// Asks it to end.
    fn terminate(&mut self);
    /// Ends it and everything that belongs to it.
    fn kill(&mut self);
    /// What is left of it, for people.
    fn left(&self) -> Vec<u32>;
    /// What came of it, once it is gone.
    fn end(&mut self) -> End;
    /// Removes what it leaves on the machine; says whether that is done.
    fn clean(&mut self) -> bool;
    /// Leaves what a next job may have of it: groups that nothing is in and that count nothing any more.
    fn keep(&mut self) -> Option<JobCgroup> {
        None
    }
    /// The control groups that could not be removed.
    fn cgroups(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    /// Lets a command start that waits for it; called while its lease allows it.
    fn go(&mut self) {}
    /// A container's first process.
    fn init(&self) -> Option<InitRecord> {
        None
    }
    /// What wakes the supervisor, beside signals, when the job changes.
    fn wakes(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
    /// When it is to be looked at whatever happens, by `CLOCK_BOOTTIME`.
    fn wake_at(&self) -> Option<u64> {
        None
    }
    /// Where output goes on that had broken off.
    fn output_again(&mut self) -> Option<OwnedFd> {
        None
    }
    /// Whether its output has an end of its own, which comes after the job's.
    fn output_ends(&self) -> bool {
        false
    }
}

/// How a job ended.
#[derive(Debug, Default)]
struct End {
    exit_status: Option<i32>,
    signal: Option<i32>,
    cause: Option<Cause>,
    peak_memory_bytes: Option<u64>,
}

/// How far the end of a job has come. Times are `CLOCK_BOOTTIME` in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// Asked to end; killed when the grace is over.
    Stopping {
        kill_at: u64,
    },
    /// Being killed, or its remains are.
    Killing {
        since: u64,
        again_at: u64,
        pause_ms: u64,
    },
    /// Nothing of it is left but output that is not yet written.
    Draining {
        give_up_at: u64,
    },
}

/// First wait for killed processes to be gone, and the longest one.
const KILL_PAUSE_MS: u64 = 2;
const KILL_PAUSE_MAX_MS: u64 = 250;
/// Written where a terminal's output broke off and goes on.
const OUTPUT_BROKE: &str =
    "\n[windlass: the container engine broke off; what the terminal showed meanwhile is missing]\n";
/// Between two tries to write to a disk that refuses.
const DISK_RETRY_MS: u64 = 200;
/// Tries to remove a control group whose last process is only just leaving, a millisecond apart.
const CLEAN_TRIES: u32 = 200;

/// Milliseconds of `CLOCK_BOOTTIME`: the clock of leases.
#[must_use]
pub fn boot_now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

pub(crate) fn wall_now() -> WallMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Runs one job to its outcome, and those that are handed over by `line` after it; the result is this process's exit status.
pub(crate) fn run(launch: Launch, listener: UnixListener, cgroups: &Cgroups, line: Option<UnixStream>) -> i32 {
    let Ok(mut post) = Post::take() else { return 1 };
    let ended = serve(launch, listener, cgroups, line.as_ref(), &mut post);
    post.leave();
    // Nobody reads a supervisor's words. Without an outcome the agent says that the supervisor was lost.
    i32::from(ended.is_err())
}

fn serve(
    mut launch: Launch,
    mut listener: UnixListener,
    cgroups: &Cgroups,
    line: Option<&UnixStream>,
    post: &mut Post,
) -> io::Result<()> {
    for served in 1..=SUPERVISOR_JOBS_MAX {
        let outcome = supervise(launch, listener, cgroups, post)?;
        // Who says that it waits has to take what it is handed.
        let Some(line) = line.filter(|_| outcome == Over::Clean && served < SUPERVISOR_JOBS_MAX) else { break };
        relay::wait(line, &post.kept.as_ref().map(JobCgroup::dirs).unwrap_or_default())?;
        match relay::next(line)? {
            Some(next) => (launch, listener) = next,
            None => break,
        }
    }
    Ok(())
}

/// What a job leaves of its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The job ended by itself with all that it had started, and nothing of it is left.
    Clean,
    /// It had to be ended, had a terminal or a container, or left what could not be cleaned up: the supervisor leaves too.
    Used,
}

fn supervise(launch: Launch, listener: UnixListener, cgroups: &Cgroups, post: &mut Post) -> io::Result<Over> {
    listener.set_nonblocking(true)?;
    let (masker, unmasked) = match Masker::new(secrets(&launch)) {
        Ok(masker) => (masker, None),
        Err(error) => (Masker::default(), Some(error)),
    };
    let mut log = Log::new(&Places(&launch.dir).spool(), masker, launch.log_limit_bytes);
    if let Some(error) = unmasked {
        let detail = format!("its secrets cannot be masked: {error}");
        return give_up(&launch, log, &listener, Cause::new(CauseKind::RefusedByPolicy, detail));
    }
    log.push(wall_now(), launch.preamble.as_bytes());
    let (started_at, started) = match &launch.task {
        Task::Process(task) => match process::groups(launch.attempt, task, cgroups, &mut post.kept) {
            Ok(cgroup) => {
                let started_at = record_groups(&launch, &cgroup)?;
                let started = Process::start(task, cgroup);
                (started_at, started.map(|(process, output)| (Box::new(process) as Box<dyn Watched>, output)))
            }
            Err(cause) => (wall_now(), Err(cause)),
        },
        Task::Container(task) => match Container::start(task, &Places(&launch.dir)) {
            Ok((container, output)) => {
                let started_at = record_start(&launch, Vec::new(), container.init())?;
                (started_at, Ok((Box::new(container) as Box<dyn Watched>, output)))
            }
            Err(cause) => (wall_now(), Err(cause)),
        },
    };
    let (task, output) = match started {
        Ok(started) => started,
        Err(cause) => return give_up(&launch, log, &listener, cause),
    };
    let deadline = launch.timeout_ms.map(|timeout| boot_now_ms().saturating_add(timeout));
    let supervisor = Supervisor {
        lease: launch.lease_deadline_boot_ms,
        launch,
        task,
        output: Some(output),
        log,
        clients: Clients::default(),
        listener,
        post,
        started_at,
        finished_at: None,
        deadline,
        stage: Stage::Running,
        verdict: None,
        told_bytes: 0,
        stuck_told: false,
        forced: false,
        masks: Vec::new(),
    };
    supervisor.watch()
}

/// [`record_start`], before anything is in the groups: whoever buries this attempt finds them whatever happens.
fn record_groups(launch: &Launch, cgroup: &JobCgroup) -> io::Result<WallMs> {
    record_start(launch, cgroup.dirs(), None).inspect_err(|_| {
        cgroup.clone().remove_now();
    })
}

/// Notes that the command starts, and where its processes will be found.
fn record_start(launch: &Launch, cgroups: Vec<PathBuf>, init: Option<InitRecord>) -> io::Result<WallMs> {
    let record = StartedRecord { at: wall_now(), cgroups, init };
    write_first(&Places(&launch.dir).started(), &serde_json::to_vec(&record)?)?;
    Ok(record.at)
}

fn secrets(launch: &Launch) -> Vec<String> {
    let mut values = launch.secrets.clone();
    match &launch.task {
        Task::Process(task) => {
            let env = task.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            values.extend(secrets_of(env).0.into_iter().map(str::to_owned));
        }
        Task::Container(task) => values.extend(task.secrets.iter().cloned()),
    }
    values
}

/// The command never started.
fn give_up(launch: &Launch, mut log: Log, listener: &UnixListener, cause: Cause) -> io::Result<Over> {
    log.finish();
    let outcome = Outcome {
        exit_status: None,
        signal: None,
        cause: Some(cause),
        started_at: None,
        finished_at: wall_now(),
        log_bytes: log.bytes(),
        log_digest: log.digest(),
        log_truncated: log.truncated(),
        peak_memory_bytes: None,
    };
    write_outcome(launch, &outcome)?;
    let mut clients = Clients::default();
    clients.accept(listener, &Report::Finished);
    Ok(Over::Used)
}

struct Supervisor<'a> {
    launch: Launch,
    task: Box<dyn Watched>,
    /// `None` once it has ended.
    output: Option<OwnedFd>,
    log: Log,
    clients: Clients,
    listener: UnixListener,
    post: &'a mut Post,
    started_at: WallMs,
    finished_at: Option<WallMs>,
    deadline: Option<u64>,
    lease: Option<u64>,
    stage: Stage,
    /// Why the job was ended by us; the first reason stands.
    verdict: Option<Cause>,
    /// The log's length that clients know.
    told_bytes: u64,
    stuck_told: bool,
    /// It was asked to end, or killed, or something that it had started was.
    forced: bool,
    /// Values that are to be masked and are not yet: who asked, and how many forms the log masks then.
    masks: Vec<(u64, usize)>,
}

/// What a wake-up was about.
#[derive(Debug, Default)]
struct Ready {
    output: bool,
    children: bool,
    timer: bool,
    door: bool,
    readable: Vec<usize>,
    writable: Vec<usize>,
}

impl Supervisor<'_> {
    fn watch(mut self) -> io::Result<Over> {
        if !self.lease_is_over(boot_now_ms()) {
            self.task.go();
        }
        self.clients.accept(&self.listener, &self.hello());
        loop {
            let now = boot_now_ms();
            self.set_timer(now)?;
            let ready = self.wait()?;
            if ready.output {
                self.read_output()?;
            }
            self.clear(&ready)?;
            self.task.collect();
            self.resume_output();
            self.serve(&ready);
            if self.advance(boot_now_ms())? {
                break;
            }
            self.tell_output();
        }
        self.conclude()
    }

    fn hello(&self) -> Report {
        Report::Hello {
            version: CONTROL_VERSION,
            attempt: self.launch.attempt,
            epoch: self.launch.epoch,
            supervisor: std::process::id(),
            started_at: self.started_at,
            log_bytes: self.log.bytes(),
        }
    }

    /// The earliest thing that time alone brings about.
    fn next_time(&self, now: u64) -> Option<u64> {
        let by_stage = match self.stage {
            Stage::Running => self.deadline,
            Stage::Stopping { kill_at } => Some(kill_at),
            Stage::Killing { again_at, .. } => Some(again_at),
            Stage::Draining { give_up_at } => Some(give_up_at),
        };
        let lease = self.lease.filter(|_| !self.is_ending());
        let disk = self.log.is_stuck().then_some(now + DISK_RETRY_MS);
        let step = self.log.is_building().then_some(now);
        by_stage.into_iter().chain(lease).chain(disk).chain(self.task.wake_at()).chain(step).min()
    }

    fn set_timer(&self, now: u64) -> io::Result<()> {
        // A time of zero would disarm the timer; one that has passed fires at once.
        let at = self.next_time(now).map_or(0, |at| at.max(1));
        let seconds = i64::try_from(at / 1_000).map_err(io::Error::other)?;
        let nanos = i64::try_from(at % 1_000 * 1_000_000).map_err(io::Error::other)?;
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Itimerspec { it_interval: never, it_value: Timespec { tv_sec: seconds, tv_nsec: nanos } };
        timerfd_settime(&self.post.timer, TimerfdTimerFlags::ABSTIME, &value)?;
        Ok(())
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::new(&self.post.children, PollFlags::IN),
            PollFd::new(&self.post.timer, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        for client in self.clients.iter() {
            let send = if client.wants_to_send() { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::new(&client.stream, PollFlags::IN | send));
        }
        let clients_end = fds.len();
        let output = self.output.as_ref().filter(|_| self.log.has_room());
        fds.extend(output.map(|output| PollFd::new(output, PollFlags::IN)));
        let wakes = self.task.wakes();
        fds.extend(wakes.iter().map(|wake| PollFd::new(wake, PollFlags::IN)));
        loop {
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        let is = |fd: &PollFd<'_>, flags: PollFlags| fd.revents().intersects(flags);
        let input = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let which = |flags: PollFlags| {
            let clients = fds[3..clients_end].iter().enumerate();
            clients.filter(|(_, fd)| is(fd, flags)).map(|(index, _)| index).collect()
        };
        Ok(Ready {
            output: output.is_some() && is(&fds[clients_end], input),
            children: is(&fds[0], input),
            timer: is(&fds[1], input),
            door: is(&fds[2], input),
            readable: which(input),
            writable: which(PollFlags::OUT),
        })
    }

    /// Empties the descriptors that only wake.
    fn clear(&self, ready: &Ready) -> io::Result<()> {
        let mut bytes = [0; 1_024];
        for (fd, is_ready) in [(&self.post.children, ready.children), (&self.post.timer, ready.timer)] {
            if is_ready {
                read_some(fd, &mut bytes)?;
            }
        }
        Ok(())
    }

    /// One read; a job that writes without end must not keep the supervisor from its other duties.
    fn read_output(&mut self) -> io::Result<Drained> {
        let Some(output) = &self.output else { return Ok(Drained::Ended) };
        match read_some(output, &mut self.post.buffer)? {
            Read::Bytes(count) => {
                self.log.push(wall_now(), &self.post.buffer[..count]);
                Ok(Drained::More)
            }
            Read::Nothing => Ok(Drained::Empty),
            Read::End => {
                self.output = None;
                Ok(Drained::Ended)
            }
        }
    }

    fn serve(&mut self, ready: &Ready) {
        // From the back, because a client that fails is removed and moves those behind it.
        let state = Report::Output { log_bytes: self.log.bytes() };
        for index in ready.writable.iter().rev().copied() {
            self.clients.catch_up(index, &state);
        }
        let mut masked = Vec::new();
        for index in ready.readable.iter().rev().copied() {
            for request in self.clients.requests(index) {
                match request {
                    Request::Mask { ticket, value } => masked.extend(self.mask(ticket, &value)),
                    other => self.obey(other),
                }
            }
        }
        masked.extend(self.build_mask());
        // Only now: telling may drop clients, which would move those still to be served.
        for report in masked {
            self.clients.report(&report);
        }
        if ready.door {
            let hello = self.hello();
            self.clients.accept(&self.listener, &hello);
        }
    }

    /// Takes a value to mask. It is answered once it is masked, or at once where it never will be.
    fn mask(&mut self, ticket: u64, value: &str) -> Option<Report> {
        let refused = if self.masks.len() >= MASKS_WAITING_MAX {
            format!("{MASKS_WAITING_MAX} values wait to be masked already")
        } else {
            match self.log.mask(value) {
                Ok(masks) => {
                    self.masks.push((ticket, masks));
                    return None;
                }
                Err(error) => error.to_string(),
            }
        };
        Some(Report::Masked { ticket, refused: Some(refused) })
    }

    /// Takes one step towards what is to be masked: neither a deadline nor a request waits for more than that. Those are
    /// answered whose values are.
    fn build_mask(&mut self) -> Vec<Report> {
        self.log.build();
        let masks = self.log.masks();
        let masked = self.masks.extract_if(.., |(_, needed)| *needed <= masks);
        masked.map(|(ticket, _)| Report::Masked { ticket, refused: None }).collect()
    }

    fn obey(&mut self, request: Request) {
        match request {
            // Taken by `serve`, which answers it.
            Request::Mask { ticket, value } => drop(self.mask(ticket, &value)),
            Request::Cancel { cause, grace_ms } => self.stop(cause, grace_ms),
            Request::Kill { cause } => {
                self.verdict.get_or_insert(cause);
                self.start_killing();
            }
            // A lease never becomes shorter by a message that was overtaken.
            Request::Lease { deadline_boot_ms } => {
                self.lease = self.lease.map(|lease| lease.max(deadline_boot_ms));
            }
            Request::Acked { offset } => self.log.acked(offset),
            Request::Redact { value } => {
                if let Err(error) = self.log.redact(&value) {
                    let cause = Cause::new(CauseKind::Internal, format!("a secret could not be masked: {error}"));
                    self.verdict.get_or_insert(cause);
                    self.start_killing();
                }
            }
            Request::Note { text } => self.log.push(wall_now(), text.as_bytes()),
        }
    }

    fn stop(&mut self, cause: Cause, grace_ms: u64) {
        let kill_at = boot_now_ms().saturating_add(grace_ms);
        match self.stage {
            Stage::Running => {
                self.verdict.get_or_insert(cause);
                self.forced = true;
                self.task.terminate();
                self.stage = Stage::Stopping { kill_at };
            }
            // A second wish may shorten the grace.
            Stage::Stopping { kill_at: earlier } => self.stage = Stage::Stopping { kill_at: earlier.min(kill_at) },
            Stage::Killing { .. } | Stage::Draining { .. } => {}
        }
    }

    fn lease_is_over(&self, now: u64) -> bool {
        self.lease.is_some_and(|lease| now >= lease)
    }

    /// Goes on with output that broke off, and says so where it may lack something.
    fn resume_output(&mut self) {
        if self.output.is_none()
            && let Some(output) = self.task.output_again()
        {
            self.log.push(wall_now(), OUTPUT_BROKE.as_bytes());
            self.output = Some(output);
        }
    }

    /// Whether it is past being asked.
    const fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Killing { .. } | Stage::Draining { .. })
    }

    fn start_killing(&mut self) {
        if self.is_ending() {
            return;
        }
        let now = boot_now_ms();
        self.stage = Stage::Killing { since: now, again_at: now + KILL_PAUSE_MS, pause_ms: KILL_PAUSE_MS };
        if !self.task.gone() {
            self.forced = true;
            self.task.kill();
            self.task.collect();
        }
    }

    /// Brings about what time or events ask for; says whether the job is over.
    fn advance(&mut self, now: u64) -> io::Result<bool> {
        if self.log.is_stuck() {
            self.log.retry();
        }
        if self.task.main_ended() {
            self.start_killing();
        }
        if !self.lease_is_over(now) && self.stage == Stage::Running {
            self.task.go();
        }
        if self.lease_is_over(now) && !self.is_ending() {
            let detail = "the lease was not renewed in time, so the job's processes were ended";
            self.verdict.get_or_insert_with(|| Cause::new(CauseKind::LeaseLost, detail));
            self.start_killing();
        }
        match self.stage {
            Stage::Running if self.deadline.is_some_and(|deadline| now >= deadline) => {
                let limit_ms = self.launch.timeout_ms.unwrap_or(0);
                let cause = Cause::new(CauseKind::Timeout, format!("ran longer than its timeout of {limit_ms} ms"));
                self.stop(cause, self.launch.grace_ms);
            }
            Stage::Stopping { kill_at } if now >= kill_at => self.start_killing(),
            Stage::Killing { since, again_at, pause_ms } => self.kill_again(now, since, again_at, pause_ms),
            Stage::Running | Stage::Stopping { .. } | Stage::Draining { .. } => {}
        }
        if self.is_ending() && self.task.gone() && !matches!(self.stage, Stage::Draining { .. }) {
            self.finished_at = Some(wall_now());
            self.stage = Stage::Draining { give_up_at: now + SPOOL_STUCK_MS };
        }
        match self.stage {
            Stage::Draining { give_up_at } => self.drain(now, give_up_at),
            Stage::Running | Stage::Stopping { .. } | Stage::Killing { .. } => Ok(false),
        }
    }

    fn kill_again(&mut self, now: u64, since: u64, again_at: u64, pause_ms: u64) {
        if self.task.gone() {
            return;
        }
        if now >= again_at {
            self.task.kill();
            self.task.collect();
            let pause_ms = (pause_ms * 2).min(KILL_PAUSE_MAX_MS);
            self.stage = Stage::Killing { since, again_at: now + pause_ms, pause_ms };
        }
        if now - since >= UNKILLABLE_MS && !self.stuck_told {
            // The attempt stays open: saying that it ended would let another agent start it beside these.
            self.stuck_told = true;
            let processes = self.task.left();
            self.clients.report(&Report::Stuck { processes });
        }
    }

    fn tell_output(&mut self) {
        let log_bytes = self.log.bytes();
        if log_bytes > self.told_bytes {
            self.told_bytes = log_bytes;
            self.clients.report(&Report::Output { log_bytes });
        }
    }

    /// All processes are gone. What they left in their pipe is taken, whatever the spool's bound says: it is at most
    /// the pipe's size, or what an engine keeps. Says whether all is written, or the disk refused for too long.
    fn drain(&mut self, now: u64, give_up_at: u64) -> io::Result<bool> {
        while !self.log.is_stuck() {
            let drained = self.read_output()?;
            if drained == Drained::Empty && self.task.output_ends() && now < give_up_at {
                // Its end wakes us.
                return Ok(false);
            }
            if drained != Drained::More {
                self.output = None;
                self.log.finish();
                return Ok(!self.log.is_stuck() || now >= give_up_at);
            }
        }
        Ok(now >= give_up_at)
    }

    /// Writes the outcome and leaves the attempt.
    fn conclude(mut self) -> io::Result<Over> {
        let end = self.task.end();
        let plain = !self.forced && matches!(&self.launch.task, Task::Process(task) if !task.tty);
        self.post.kept = if plain { self.task.keep() } else { None };
        let clean = self.post.kept.is_some() || self.clean()?;
        let outcome = Outcome {
            exit_status: end.exit_status,
            signal: end.signal,
            cause: self.verdict.take().or(end.cause),
            started_at: Some(self.started_at),
            finished_at: self.finished_at.unwrap_or_else(wall_now),
            log_bytes: self.log.bytes(),
            log_digest: self.log.digest(),
            log_truncated: self.log.truncated(),
            peak_memory_bytes: end.peak_memory_bytes,
        };
        write_outcome(&self.launch, &outcome)?;
        self.tell_output();
        self.clients.accept(&self.listener, &Report::Finished);
        self.clients.report(&Report::Finished);
        Ok(if plain && clean { Over::Clean } else { Over::Used })
    }

    /// Removes what the job leaves on the machine; what cannot be removed is noted for the agent.
    fn clean(&mut self) -> io::Result<bool> {
        for _ in 0..CLEAN_TRIES {
            if self.task.clean() {
                return Ok(true);
            }
            pause(1);
        }
        let left = self.task.cgroups();
        if !left.is_empty() {
            write_whole(&Places(&self.launch.dir).left(), &serde_json::to_vec(&left)?)?;
        }
        Ok(false)
    }
}

/// Writes the outcome, and tries for a while where the disk is full: without it the job would count as lost.
fn write_outcome(launch: &Launch, outcome: &Outcome) -> io::Result<()> {
    let bytes = serde_json::to_vec(outcome)?;
    let give_up_at = boot_now_ms() + SPOOL_STUCK_MS;
    loop {
        match write_last(&Places(&launch.dir).outcome(), &bytes) {
            Err(_) if boot_now_ms() < give_up_at => pause(DISK_RETRY_MS),
            other => return other,
        }
    }
}

/// What one read of the output came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drained {
    More,
    Empty,
    Ended,
}

/// What one read of a descriptor that does not block came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Bytes(usize),
    Nothing,
    End,
}

fn read_some(fd: impl AsFd, into: &mut [u8]) -> io::Result<Read> {
    loop {
        return match rustix::io::read(&fd, &mut *into) {
            // A pseudo-terminal that everybody left answers with EIO, and an engine that was killed before it had read all that
            // it was asked with a reset.
            Ok(0) | Err(rustix::io::Errno::IO | rustix::io::Errno::CONNRESET) => Ok(Read::End),
            Ok(count) => Ok(Read::Bytes(count)),
            Err(rustix::io::Errno::AGAIN) => Ok(Read::Nothing),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

fn pause(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn an_engine_that_was_killed_before_it_read_what_it_was_asked_is_the_end_of_its_output() {
        let (mut ours, engine) = UnixStream::pair().unwrap();
        ours.write_all(b"not read").unwrap();
        drop(engine);
        assert_eq!(read_some(&ours, &mut [0; 8]).unwrap(), Read::End);
    }
}
