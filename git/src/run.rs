//! One git, and all that it starts: nobody is asked, it has its time, and it ends with whoever waits for it.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use windlass_protocol::limits::GIT_SAID_MAX_BYTES;

use crate::dir_cache::Held;

/// Characters of what git said that are told on: its first lines say what is wrong.
const TOLD_MAX_CHARS: usize = 1_000;

/// What a git may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long it may run; `None` where whoever waits has a clock of his own.
    pub deadline: Option<Duration>,
    /// Bytes that it may print.
    pub output_max_bytes: u64,
}

impl Bounds {
    /// For what prints nothing, in whatever time.
    pub const SILENT: Self = Self { deadline: None, output_max_bytes: 0 };
}

/// Why git did not do it.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It cannot be run, or not be listened to.
    #[error("git cannot be run: {0}")]
    NotRun(#[from] io::Error),
    /// It says no.
    #[error("git {verb}: {said}")]
    Refused {
        /// Its command.
        verb: String,
        /// Its exit status; none where a signal ended it.
        status: Option<i32>,
        /// What it said, cut. May name what must not be told on: see [`crate::credentials::without_secrets`].
        said: String,
    },
    /// It prints more than it may.
    #[error("git {verb} prints more than {max_bytes} bytes")]
    TooMuch {
        /// Its command.
        verb: String,
        /// What it may.
        max_bytes: u64,
    },
    /// Its time is over; it was killed.
    #[error("git {verb} took longer than {} s", .after.as_secs())]
    TimedOut {
        /// Its command.
        verb: String,
        /// Its time.
        after: Duration,
    },
}

/// The process group of a running git: ended with all that it started when nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // One that ended meanwhile is what was wanted.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs git to its end, gives what it printed. No hook runs, and nobody is asked anything.
///
/// # Errors
/// [`GitError`].
pub async fn run(command: Command, arguments: &[&str], bounds: Bounds) -> Result<Vec<u8>, GitError> {
    run_with(Stdio::null(), command, arguments, bounds).await
}

/// As [`run`], in what is locked: git has the lock too, so that nobody else has it while this git lives.
///
/// # Errors
/// [`GitError`].
pub async fn run_holding(
    held: &Held,
    command: Command,
    arguments: &[&str],
    bounds: Bounds,
) -> Result<Vec<u8>, GitError> {
    run_with(held.as_input()?, command, arguments, bounds).await
}

async fn run_with(input: Stdio, mut command: Command, arguments: &[&str], bounds: Bounds) -> Result<Vec<u8>, GitError> {
    let verb = arguments.first().copied().unwrap_or_default().to_owned();
    let output = if bounds.output_max_bytes == 0 { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .args(["-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut group = Group(child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)));
    let ended = match bounds.deadline {
        None => listen(&mut child, &verb, bounds.output_max_bytes).await,
        Some(after) => tokio::time::timeout(after, listen(&mut child, &verb, bounds.output_max_bytes))
            .await
            .unwrap_or(Err(GitError::TimedOut { verb, after })),
    };
    if !matches!(ended, Err(GitError::TimedOut { .. } | GitError::TooMuch { .. } | GitError::NotRun(_))) {
        group.0 = None;
    }
    ended
}

async fn listen(child: &mut Child, verb: &str, output_max_bytes: u64) -> Result<Vec<u8>, GitError> {
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let printed = async {
        let mut printed = Vec::new();
        if let Some(output) = output {
            output.take(output_max_bytes + 1).read_to_end(&mut printed).await?;
        }
        if printed.len() as u64 > output_max_bytes {
            return Err(GitError::TooMuch { verb: verb.to_owned(), max_bytes: output_max_bytes });
        }
        Ok(printed)
    };
    let said = async {
        let mut said = Vec::new();
        if let Some(mut errors) = errors {
            (&mut errors).take(GIT_SAID_MAX_BYTES).read_to_end(&mut said).await?;
            // The rest is read and dropped: git must not wait for us.
            tokio::io::copy(&mut errors, &mut tokio::io::sink()).await?;
        }
        Ok(said)
    };
    let (printed, said) = tokio::try_join!(printed, said)?;
    let status = child.wait().await?;
    if status.success() {
        return Ok(printed);
    }
    let said = String::from_utf8_lossy(&said).trim().chars().take(TOLD_MAX_CHARS).collect();
    Err(GitError::Refused { verb: verb.to_owned(), status: status.code(), said })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands in for git: what it is given after the options is a script.
    fn sh() -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"shift; shift; eval "$1""#, "sh"]);
        command
    }

    const SOON: Bounds = Bounds { deadline: Some(Duration::from_millis(300)), output_max_bytes: 8 };

    #[tokio::test]
    async fn output_and_errors_are_told_and_bounded() {
        assert_eq!(run(sh(), &["printf 12345678"], SOON).await.unwrap(), b"12345678");
        let much = run(sh(), &["printf 123456789; exec sleep 60"], Bounds { deadline: None, ..SOON }).await;
        assert!(matches!(much, Err(GitError::TooMuch { max_bytes: 8, .. })), "{much:?}");
        let refused = run(sh(), &["echo no >&2; exit 3"], SOON).await.unwrap_err();
        assert!(matches!(&refused, GitError::Refused { status: Some(3), said, .. } if said == "no"), "{refused:?}");
        let long = run(sh(), &["head -c 300000 /dev/zero | tr '\\0' e >&2; exit 1"], Bounds::SILENT).await.unwrap_err();
        assert!(matches!(&long, GitError::Refused { said, .. } if said.len() == 1_000), "{long:?}");
    }

    #[tokio::test]
    async fn past_its_time_nothing_of_it_runs_on() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exec sleep 60' & wait", pid.display());
        let late = run(sh(), &[&script], SOON).await;
        assert!(matches!(late, Err(GitError::TimedOut { .. })), "{late:?}");
        let child: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        // A zombie that its new parent has not seen yet has ended.
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(std::time::Instant::now() < deadline, "the child runs on: {}", state());
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_git_that_outlives_whoever_started_it_keeps_its_lock() {
        use std::os::unix::process::CommandExt as _;

        use crate::dir_cache::{DirCache, Limits, Mode};

        let dir = tempfile::tempdir().unwrap();
        let cache = DirCache::new(dir.path().to_owned(), Limits { bytes: 0, count: 0 }, |name| name == "e");
        let held = cache.lock("e", Mode::Exclusive).await.unwrap();
        let bounds = Bounds { deadline: None, output_max_bytes: 1_000 };
        let input = run_holding(&held, sh(), &["readlink /proc/self/fd/0"], bounds).await.unwrap();
        assert_eq!(String::from_utf8(input).unwrap().trim(), dir.path().join(".lock-e").to_str().unwrap());
        // What is left when an agent is killed: the child, and nobody who waits for it.
        let mut sleep = std::process::Command::new("sleep");
        let mut left = sleep.arg("60").stdin(held.as_input().unwrap()).process_group(0).spawn().unwrap();
        drop((held, sleep));
        std::fs::create_dir(cache.place("e")).unwrap();
        assert!(cache.trim().unwrap().is_empty(), "it is in use");
        left.kill().unwrap();
        left.wait().unwrap();
        assert_eq!(cache.trim().unwrap().len(), 1);
    }
}
