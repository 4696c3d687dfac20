//! One process of a test: its output goes to files, its end is waited for, its signals are sent by id.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::wait::{until, within};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// Of a status.
    #[must_use]
    pub fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}

/// A process that ends with the value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts it; stdout and stderr are appended to `NAME.out` and `NAME.err` in `logs`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command, logs: &Path, name: &str) -> Result<Self> {
        let (out, err) = (logs.join(format!("{name}.out")), logs.join(format!("{name}.err")));
        let open = |path: &Path| File::options().append(true).create(true).open(path);
        // What an earlier run of the same name said must not be taken for this one's.
        File::create(&out)?;
        command.stdin(Stdio::null()).stdout(open(&out)?).stderr(open(&err)?).kill_on_drop(true).process_group(0);
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("it has no process id")?;
        Ok(Self { child, pid, out, err })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// What it has written to stdout so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn stdout(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.out)?).into_owned())
    }

    /// What it, and earlier ones of its name, have written to stderr so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn stderr(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.err)?).into_owned())
    }

    /// The first whole line of stdout for which `pick` has a value.
    ///
    /// # Errors
    /// The process ended, or the deadline came, before there was one.
    pub async fn line<T>(&mut self, what: &str, deadline: Duration, pick: impl Fn(&str) -> Option<T>) -> Result<T> {
        until(what, deadline, async || {
            let ended = self.child.try_wait()?;
            let out = self.stdout()?;
            let whole = out.rsplit_once('\n').map_or("", |(whole, _)| whole);
            match (whole.lines().find_map(&pick), ended) {
                (Some(found), _) => Ok(Some(found)),
                (None, None) => Ok(None),
                (None, Some(status)) => Err(anyhow::anyhow!("it ended with {status}: {}", self.stderr()?)),
            }
        })
        .await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        anyhow::ensure!(self.child.id().is_some(), "it has ended already");
        kill_process(self.pid, signal).with_context(|| format!("signal {signal:?} to {:?}", self.pid))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The system does not say.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It runs beyond the deadline.
    pub async fn ended(&mut self, deadline: Duration) -> Result<Exit> {
        Ok(Exit::of(within("the process's end", deadline, self.child.wait()).await??))
    }

    /// Ends it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// It does not go.
    pub async fn kill9(&mut self) -> Result<()> {
        if self.runs()? {
            self.signal(Signal::KILL)?;
        }
        self.ended(Duration::from_secs(10)).await?;
        Ok(())
    }
}
