//! Runs jobs: spawner, supervisor, process and Docker runners, masking and the log spool.
//!
//! The agent starts a [`Spawner`] first. For each job it has a supervisor forked, which owns the job until its outcome
//! is on disk and which needs neither spawner nor agent to go on. What it leaves is a directory an attempt
//! ([`attempts`]): who it is, its log as a [`spool`], its outcome.
//!
//! - [`runner`], [`docker`]: what the agent uses. [`launch`], [`control`]: what it says to spawner and supervisor.
//! - [`shell`]: how a command becomes a program.
//! - `supervisor`: the loop beside a job; `sys`: fork, exec and signals, the only unsafe code.
//! - [`cgroup`]: limits and whole-job kills, where the machine has them. [`mask`]: secrets in a stream.

pub mod attempts;
pub mod cgroup;
pub mod control;
pub mod docker;
pub mod launch;
pub mod mask;
pub mod owner;
pub mod runner;
pub mod shell;
pub mod spawner;
pub mod spool;
mod supervisor;
mod sys;

pub use runner::{Event, Runner, RunningJob, Slot, Start, StartError, Steering};
pub use spawner::{Spawner, spawner_from_stdin, spawner_main};
pub use supervisor::boot_now_ms;
