//! What the agent uses: start a job, follow it, steer it, and find it again after a restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;
use windlass_protocol::cause::Cause;
use windlass_protocol::id::AttemptId;
use windlass_protocol::job::{Epoch, JobSpec, Outcome};
use windlass_protocol::time::WallMs;

use crate::attempts::{self, Blanks};
use crate::control::{Report, Request, to_line};
use crate::launch::{Launch, LaunchRecord, ProcessTask, Task, User};
use crate::shell::shell;
use crate::spawner::{LaunchError, Spawner};
use crate::spool::SpoolReader;

/// A place for one job on this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// From 0.
    pub index: u32,
    /// Who its jobs run as; `None` where the agent may not change users.
    pub user: Option<User>,
}

impl Slot {
    /// The slot's own user where the agent is root: `base` and the slot's number, which needs no entry in
    /// `/etc/passwd`.
    #[must_use]
    pub fn new(index: u32, base: u32) -> Self {
        let user = rustix::process::geteuid().is_root().then(|| User { uid: base + index, gid: base + index });
        Self { index, user }
    }
}

/// The first slot's user and group by default: above what distributions hand out.
pub const SLOT_USER_BASE: u32 = 64_000;

/// What the agent adds to a job to start it.
#[derive(Clone)]
pub struct Start<'a> {
    /// The job.
    pub job: &'a JobSpec,
    /// By which right.
    pub epoch: Epoch,
    /// Where.
    pub slot: Slot,
    /// Its files, laid out and belonging to the slot's user.
    pub workspace: &'a Path,
    /// The whole environment; the job's own `env` is not looked at.
    pub env: Vec<(String, String)>,
    /// What runs in place of the shell with the job's command: absolute path of a program, then its arguments.
    pub program: Option<Vec<String>>,
    /// Directories that a container sees at the same paths, and cannot change.
    pub shown: Vec<PathBuf>,
    /// Values to mask beside those of secret variables.
    pub secrets: Vec<String>,
    /// The log's first lines.
    pub preamble: String,
    /// When the lease of an exclusive job ends, by `CLOCK_BOOTTIME`.
    pub lease_deadline_boot_ms: u64,
}

impl std::fmt::Debug for Start<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("attempt", &self.job.attempt).field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// Why a job was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The attempt's directory could not be made.
    #[error("the attempt's directory could not be made")]
    Directory(#[source] io::Error),
    /// The spawner did not launch it.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Its supervisor could not be reached.
    #[error("the job's supervisor could not be reached")]
    Supervisor(#[source] io::Error),
}

impl StartError {
    /// Whether the job may run all the same: then only its supervisor, or the absence of one, can tell.
    #[must_use]
    pub const fn is_doubtful(&self) -> bool {
        match self {
            Self::Supervisor(_) | Self::Launch(LaunchError::Spawner(_)) => true,
            Self::Directory(_) | Self::Launch(LaunchError::TooLarge | LaunchError::Refused { .. }) => false,
        }
    }
}

/// Starts jobs as processes of this machine.
#[derive(Debug)]
pub struct Runner {
    spawner: Spawner,
    attempts: Blanks,
}

impl Runner {
    /// A runner that keeps its attempts below `jobs`, which must exist and be the agent's alone.
    #[must_use]
    pub const fn new(spawner: Spawner, jobs: PathBuf) -> Self {
        Self { spawner, attempts: Blanks::new(jobs) }
    }

    /// The directory of all attempts.
    #[must_use]
    pub fn jobs(&self) -> &Path {
        self.attempts.jobs()
    }

    /// Notes that an attempt is being prepared, so that an agent that starts again knows of it, and finds its note.
    /// [`Self::start`] does so itself, without a note, where this was not called.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn prepare(&self, job: &JobSpec, epoch: Epoch, workspace: &Path, note: &[u8]) -> io::Result<PathBuf> {
        let workspace = workspace.to_owned();
        let record = LaunchRecord { attempt: job.attempt, epoch, exclusive: job.exclusive, workspace };
        self.attempts.prepare(&record, note)
    }

    /// Removes an attempt's directory, and control groups that its supervisor could not. Only for one whose supervisor is done
    /// with it. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn forget(&self, attempt: AttemptId) -> io::Result<()> {
        self.attempts.put(&self.jobs().join(attempt.to_string()))
    }

    /// Starts a job as a process.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then. A command that cannot be started is an outcome, not an error.
    pub async fn start(&self, start: Start<'_>) -> Result<RunningJob, StartError> {
        let job = start.job;
        let task = Task::Process(ProcessTask {
            argv: start.program.clone().unwrap_or_else(|| shell(&job.command)),
            env: start.env.clone(),
            workspace: start.workspace.to_owned(),
            user: start.slot.user,
            tty: job.tty,
            memory_bytes: job.resources.memory_bytes,
            cpu_millis: job.resources.cpu_millis,
            cgroup: true,
        });
        self.launch(&start, task).await
    }

    /// Launches any task of this attempt.
    pub(crate) async fn launch(&self, start: &Start<'_>, task: Task) -> Result<RunningJob, StartError> {
        let job = start.job;
        let dir = self.jobs().join(job.attempt.to_string());
        if !dir.exists() {
            self.prepare(job, start.epoch, start.workspace, &[]).map_err(StartError::Directory)?;
        }
        let launch = Launch {
            attempt: job.attempt,
            epoch: start.epoch,
            dir: dir.clone(),
            task,
            secrets: start.secrets.clone(),
            preamble: start.preamble.clone(),
            timeout_ms: job.timeout_ms,
            grace_ms: job.grace_ms,
            lease_deadline_boot_ms: job.exclusive.then_some(start.lease_deadline_boot_ms),
            log_limit_bytes: job.log_limit_bytes,
        };
        self.spawner.launch(&launch).await?;
        RunningJob::attach(job.attempt, &dir).await.map_err(StartError::Supervisor)
    }
}

/// What a job's supervisor tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The command has started; first, unless it never did, and again after a connection that broke.
    Started {
        /// When.
        at: WallMs,
        /// The log's length when this was told.
        log_bytes: u64,
    },
    /// The log is this long now.
    Output {
        /// Its length.
        log_bytes: u64,
    },
    /// Killed processes are not gone: the machine is unwell (F26).
    Stuck {
        /// Some of them.
        processes: Vec<u32>,
    },
    /// A value that was to be masked is, or is refused.
    Masked {
        /// The request's.
        ticket: u64,
        /// Why not.
        refused: Option<String>,
    },
    /// It is over. Last.
    Finished(Outcome),
    /// Its supervisor is gone without an outcome: [`attempts::bury`] ends what is left. Last.
    SupervisorLost,
}

/// A job with a supervisor, started now or found again.
#[derive(Debug)]
pub struct RunningJob {
    attempt: AttemptId,
    dir: PathBuf,
    reports: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    steering: Steering,
}

impl RunningJob {
    /// Connects to the supervisor of an attempt. One that has finished meanwhile is told by the first event.
    ///
    /// # Errors
    /// Those of making a socket.
    pub async fn attach(attempt: AttemptId, dir: &Path) -> io::Result<Self> {
        let stream = match attempts::connect(dir) {
            Ok(stream) => stream,
            // It is gone: an outcome or its absence will tell. A pair whose other end is closed stands for it.
            Err(_) => std::os::unix::net::UnixStream::pair()?.0,
        };
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        let steering = Steering { socket: Arc::new(Mutex::new(write)) };
        Ok(Self { attempt, dir: dir.to_owned(), reports: BufReader::new(read), line: Vec::new(), steering })
    }

    /// Whose job it is.
    #[must_use]
    pub const fn attempt(&self) -> AttemptId {
        self.attempt
    }

    /// The attempt's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A reader of its log.
    #[must_use]
    pub fn log(&self) -> SpoolReader {
        attempts::spool(&self.dir)
    }

    /// What steers it, for any task.
    #[must_use]
    pub fn steering(&self) -> Steering {
        self.steering.clone()
    }

    /// The next event; cancel safe. Growth of the log is told once for many writes.
    ///
    /// # Errors
    /// An outcome that cannot be read.
    pub async fn next_event(&mut self) -> io::Result<Event> {
        loop {
            // A broken connection is the end, as a closed one is: the outcome, or its absence, tells the rest.
            let read = self.reports.read_until(b'\n', &mut self.line).await.unwrap_or(0);
            if read == 0 || self.line.last() != Some(&b'\n') {
                self.line.clear();
                match self.reconnect().await? {
                    Some(event) => return Ok(event),
                    None => continue,
                }
            }
            let report = serde_json::from_slice(&self.line);
            self.line.clear();
            match report {
                Ok(Report::Hello { started_at, log_bytes, .. }) => {
                    return Ok(Event::Started { at: started_at, log_bytes });
                }
                Ok(Report::Output { .. }) if self.reports.buffer().contains(&b'\n') => {}
                Ok(Report::Output { log_bytes }) => return Ok(Event::Output { log_bytes }),
                Ok(Report::Stuck { processes }) => return Ok(Event::Stuck { processes }),
                Ok(Report::Masked { ticket, refused }) => return Ok(Event::Masked { ticket, refused }),
                Ok(Report::Finished) => return self.last_event(),
                // A newer supervisor may say more than this agent knows.
                Err(_) => {}
            }
        }
    }

    /// The connection broke: the job is over, or its supervisor is gone, or it gave way to newer connections.
    async fn reconnect(&mut self) -> io::Result<Option<Event>> {
        if let Some(outcome) = attempts::outcome(&self.dir)? {
            return Ok(Some(Event::Finished(outcome)));
        }
        let stream = match attempts::connect(&self.dir) {
            Ok(stream) => stream,
            // Asked again: it may have left its outcome just before it went.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                return self.last_event().map(Some);
            }
            // Nothing was heard of it; it may well live.
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        self.reports = BufReader::new(read);
        *self.steering.socket.lock().await = write;
        Ok(None)
    }

    fn last_event(&self) -> io::Result<Event> {
        Ok(attempts::outcome(&self.dir)?.map_or(Event::SupervisorLost, Event::Finished))
    }
}

/// Steers one job. An error means that its supervisor is gone, which the job's events tell too.
#[derive(Debug, Clone)]
pub struct Steering {
    socket: Arc<Mutex<OwnedWriteHalf>>,
}

impl Steering {
    /// Sends any request.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn send(&self, request: &Request) -> io::Result<()> {
        self.socket.lock().await.write_all(&to_line(request)?).await
    }

    /// Asks it to end, and kills it after `grace_ms`.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn cancel(&self, cause: Cause, grace_ms: u64) -> io::Result<()> {
        self.send(&Request::Cancel { cause, grace_ms }).await
    }

    /// Kills it and everything that it started.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn kill(&self, cause: Cause) -> io::Result<()> {
        self.send(&Request::Kill { cause }).await
    }

    /// Moves the lease's end of an exclusive job (`CLOCK_BOOTTIME`), never backwards.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn renew(&self, deadline_boot_ms: u64) -> io::Result<()> {
        self.send(&Request::Lease { deadline_boot_ms }).await
    }

    /// Tells that the log is durable elsewhere below `offset`, which frees spool.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn acked(&self, offset: u64) -> io::Result<()> {
        self.send(&Request::Acked { offset }).await
    }

    /// Masks `value` from now on.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn redact(&self, value: &str) -> io::Result<()> {
        self.send(&Request::Redact { value: value.to_owned() }).await
    }

    /// Writes a line of the agent's own into the log.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn note(&self, text: &str) -> io::Result<()> {
        self.send(&Request::Note { text: text.to_owned() }).await
    }
}
