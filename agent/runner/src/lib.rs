//! Runs jobs: spawner, supervisor, process and Docker runners, masking and the log spool.
//!
//! The agent starts a [`Spawner`] first, which finds a supervisor for each job. It owns the job until its outcome is on
//! disk and needs neither spawner nor agent to go on; then it waits for a next one, or leaves. What it leaves is a directory an attempt
//! ([`attempts`]): who it is, its log as a [`spool`], its outcome.
//!
//! - [`runner`], [`docker`]: what the agent uses. [`launch`], [`control`]: what it says to spawner and supervisor.
//! - [`shell`]: how a command becomes a program.
//! - `supervisor`: the loop beside a job; `relay`: how it is given a next one; `sys`: fork, exec and signals, the only unsafe code.
//! - [`cgroup`]: limits and whole-job kills, where the machine has them. [`mask`]: secrets in a stream.

pub mod attempts;
pub mod cgroup;
pub mod control;
pub mod docker;
pub mod launch;
pub mod mask;
pub mod owner;
mod relay;
pub mod runner;
pub mod shell;
pub mod spawner;
pub mod spool;
mod supervisor;
mod sys;

pub use runner::{Event, Runner, RunningJob, Slot, Start, StartError, Steering};
pub use spawner::{Spawner, spawner_from_stdin, spawner_main};
pub use supervisor::boot_now_ms;
