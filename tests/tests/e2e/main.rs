//! The whole from outside: the program, its processes, its API.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

mod access;
mod agents;
mod ahead;
mod artifacts;
mod builds;
mod caches;
mod checks;
mod cli;
mod hooks;
mod hostile;
mod https;
mod isolation;
mod jobs;
mod laptop;
mod logs;
mod metrics;
mod notes;
mod notifications;
mod oidc;
mod parts;
mod pins;
mod refusals;
mod renewal;
mod reuse;
mod secrets;
mod source;
mod strangers;
mod supersede;
mod triggers;
mod unprivileged;
