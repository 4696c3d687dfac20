//! What the spawner is asked to start, and what of it stays on disk.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use windlass_protocol::id::AttemptId;
use windlass_protocol::job::Epoch;
use windlass_protocol::time::WallMs;

/// Who a job's processes run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id, its only group.
    pub gid: u32,
}

/// One job, for its supervisor. It holds the job's secrets and so is never written to disk.
#[derive(Clone, Serialize, Deserialize)]
pub struct Launch {
    /// The attempt.
    pub attempt: AttemptId,
    /// By which right.
    pub epoch: Epoch,
    /// The attempt's own directory, absolute.
    pub dir: PathBuf,
    /// What runs.
    pub task: Task,
    /// Values to mask, beside those of the environment's secret variables.
    pub secrets: Vec<String>,
    /// Written into the log before the job's own output.
    pub preamble: String,
    /// From the start of the command.
    pub timeout_ms: Option<u64>,
    /// Between the polite signal and the kill.
    pub grace_ms: u64,
    /// The job's processes end when this moment of `CLOCK_BOOTTIME` passes unrenewed (exclusive jobs, I3).
    pub lease_deadline_boot_ms: Option<u64>,
    /// Bytes of log after which it is cut.
    pub log_limit_bytes: u64,
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch").field("attempt", &self.attempt).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What a supervisor watches over.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A process of this machine and all that it starts.
    Process(ProcessTask),
    /// A container that exists and is not started.
    Container(ContainerTask),
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process(task) => f.debug_tuple("Process").field(&task.argv.first()).finish(),
            Self::Container(task) => f.debug_tuple("Container").field(&task.container).finish(),
        }
    }
}

/// A process of this machine.
#[derive(Clone, Serialize, Deserialize)]
pub struct ProcessTask {
    /// Absolute path of the program, then its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working directory, absolute.
    pub workspace: PathBuf,
    /// Who it runs as; `None` is who the agent is.
    pub user: Option<User>,
    /// Output through a pseudo-terminal.
    pub tty: bool,
    /// Bytes of memory, 0 for no limit.
    pub memory_bytes: u64,
    /// Thousandths of a processor as a weight, 0 for none.
    pub cpu_millis: u64,
    /// Use control groups where the machine has them; tests turn it off.
    pub cgroup: bool,
}

impl std::fmt::Debug for ProcessTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessTask").field("program", &self.argv.first()).finish_non_exhaustive()
    }
}

/// A container that exists and is not started. Its command waits for a word in the attempt's FIFO `go`, and without a
/// terminal writes into the FIFO `output`.
#[derive(Clone, Serialize, Deserialize)]
pub struct ContainerTask {
    /// Its id.
    pub container: String,
    /// Its network's id; both are removed at the end.
    pub network: Option<String>,
    /// The engine's socket.
    pub engine: PathBuf,
    /// The environment's secret values, for the mask.
    pub secrets: Vec<String>,
    /// The memory limit, for the cause.
    pub memory_bytes: u64,
    /// It has a terminal, and its output comes from the engine.
    pub tty: bool,
}

impl std::fmt::Debug for ContainerTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerTask").field("container", &self.container).finish_non_exhaustive()
    }
}

/// First line of `launch`: which attempt a directory belongs to, for an agent that starts again. The agent's note follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRecord {
    /// The attempt.
    pub attempt: AttemptId,
    /// By which right.
    pub epoch: Epoch,
    /// Its processes must end with its lease.
    pub exclusive: bool,
    /// The workspace, to be wiped after.
    pub workspace: PathBuf,
}

/// `started`: the command runs, or ran, or is about to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedRecord {
    /// Since when.
    pub at: WallMs,
    /// The control groups that hold its processes.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// Its container's first process, where it can be seen from here.
    #[serde(default)]
    pub init: Option<InitRecord>,
}

/// A process that can be told from a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitRecord {
    /// Its number.
    pub pid: i32,
    /// When it started, in the kernel's ticks since boot.
    pub started_ticks: u64,
}

/// `container.json`: there stands, or will stand, a container of this attempt. Written before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The engine's socket.
    pub engine: PathBuf,
    /// The name of the container and of its network.
    pub name: String,
}

/// The names in an attempt's directory.
#[derive(Debug, Clone)]
pub(crate) struct Places<'a>(pub(crate) &'a Path);

impl Places<'_> {
    pub(crate) fn launch(&self) -> PathBuf {
        self.0.join("launch")
    }

    pub(crate) fn started(&self) -> PathBuf {
        self.0.join("started")
    }

    /// Control groups that could not be removed.
    pub(crate) fn left(&self) -> PathBuf {
        self.0.join("groups.json")
    }

    pub(crate) fn outcome(&self) -> PathBuf {
        self.0.join("outcome.json")
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }

    pub(crate) fn container(&self) -> PathBuf {
        self.0.join("container.json")
    }

    /// What a container sees of the attempt's directory.
    pub(crate) fn shared(&self) -> PathBuf {
        self.0.join("io")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.shared().join("output")
    }

    pub(crate) fn go(&self) -> PathBuf {
        self.shared().join("go")
    }
}

/// The socket's name in an attempt's directory.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";

/// Up to so many bytes, a record says nothing: it is being written, a crash of the machine has emptied it, or it waits for a
/// next attempt, of which one byte is left (see [`blank`]).
pub(crate) const BLANK_BYTES: u64 = 1;

/// Whether a record says nothing. A crash of the machine may leave the length of what was written in place, and zeros for it.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.len() as u64 <= BLANK_BYTES || bytes.get(1) == Some(&0)
}

/// What one write into the page cache puts there at once, whatever becomes of the process that writes.
const ONE_WRITE_BYTES: usize = 4096;

/// Makes a file of `bytes` in one write, which no death of this process cuts, or fills one that says nothing. A reader may
/// find it saying nothing: until it is written, and after a crash of the machine.
///
/// # Errors
/// `AlreadyExists` where it says something; else those of the file system. (Two that fill it at once both succeed: that an
/// attempt is launched once is seen to by its control socket, which is bound before.)
pub(crate) fn write_first(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.len() > BLANK_BYTES {
        return Err(std::io::ErrorKind::AlreadyExists.into());
    }
    file.write_all(bytes)
}

/// As [`write_whole`]; where a file that says nothing waits under `path` and one write can fill it, it needs no other.
pub(crate) fn write_last(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let waits = std::fs::symlink_metadata(path).is_ok_and(|found| found.len() <= BLANK_BYTES);
    if waits && bytes.len() <= ONE_WRITE_BYTES {
        return write_first(path, bytes);
    }
    write_whole(path, bytes)
}

/// Empties a record for a next attempt, but for its first byte: to a file that was emptied whole and written again, ext4
/// gives its blocks as soon as it is closed (`auto_da_alloc`), which costs more than a new one.
pub(crate) fn blank(path: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path)?.set_len(BLANK_BYTES)
}

/// Writes `bytes` under `path` so that a reader sees all of them or none.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?.write_all(bytes)?;
    std::fs::rename(&fresh, path)
}
