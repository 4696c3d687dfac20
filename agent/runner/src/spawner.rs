//! The agent's end of the spawner: a small process, started before the agent's memory grows, that finds a supervisor
//! for each job: one that is done with another, or one that it forks. (A fork from a grown agent costs forty times as much.)

mod crew;
mod serve;

pub use serve::{spawner_from_stdin, spawner_main};

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use windlass_protocol::limits::LAUNCH_MAX_BYTES;

use crate::launch::Launch;

/// What the spawner answers to a launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Launched { supervisor: u32 },
    Failed { what: String },
}

/// A job's supervisor runs; its control socket accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launched {
    /// Its process id.
    pub supervisor_pid: u32,
}

/// Why a job was not launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The spawner is gone or does not speak our language; it has to be started again.
    #[error("the spawner cannot be reached")]
    Spawner(#[from] io::Error),
    /// The launch is larger than any job's may be.
    #[error("the job's environment and command are larger than {LAUNCH_MAX_BYTES} bytes together")]
    TooLarge,
    /// The spawner could not make the supervisor.
    #[error("the job's supervisor could not be started: {what}")]
    Refused {
        /// What it told.
        what: String,
    },
}

/// A running spawner. Dropping it ends the spawner, not the jobs.
#[derive(Debug)]
pub struct Spawner {
    stream: Mutex<UnixStream>,
    process: std::sync::Mutex<Child>,
}

impl Spawner {
    /// Starts `exe args…`, which must call [`spawner_from_stdin`] before it starts any thread.
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn start(exe: &Path, args: &[&str]) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let process = Command::new(exe).args(args).stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        Ok(Self { stream: Mutex::new(UnixStream::from_std(ours)?), process: std::sync::Mutex::new(process) })
    }

    /// Has a supervisor made for this job. The attempt's directory must exist.
    ///
    /// # Errors
    /// [`LaunchError`]; the job does not run then.
    pub async fn launch(&self, launch: &Launch) -> Result<Launched, LaunchError> {
        let body = serde_json::to_vec(launch).map_err(io::Error::from)?;
        let length = u32::try_from(body.len()).map_err(|_| LaunchError::TooLarge)?;
        if body.len() > LAUNCH_MAX_BYTES {
            return Err(LaunchError::TooLarge);
        }
        let mut request = Vec::with_capacity(4 + body.len());
        request.extend_from_slice(&length.to_le_bytes());
        request.extend_from_slice(&body);
        let mut stream = self.stream.lock().await;
        stream.write_all(&request).await?;
        let length = stream.read_u32_le().await? as usize;
        if length > LAUNCH_MAX_BYTES {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        match serde_json::from_slice(&body).map_err(io::Error::from)? {
            Answer::Launched { supervisor } => Ok(Launched { supervisor_pid: supervisor }),
            Answer::Failed { what } => Err(LaunchError::Refused { what }),
        }
    }

    /// The spawner's process id, for health.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.lock().map_or_else(|poisoned| poisoned.into_inner().id(), |process| process.id())
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // The socket's end tells it to leave; the kill is for one that is stopped. Either may find it gone.
        let process = self.process.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(process.kill());
        drop(process.wait());
    }
}
