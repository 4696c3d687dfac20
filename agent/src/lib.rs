//! The agent: one process a machine, which dials out to the coordinator and runs what it is offered.
//!
//! The core decides (`windlass-agent-core`); here is the shell around it.
//!
//! | module | owns |
//! | --- | --- |
//! | [`config`] | what an operator says: flags and TOML |
//! | [`home`] | the data directory and its lock |
//! | [`identity`] | key and certificate: joining with a token, renewing |
//! | [`run`] | the loop around the core |
//! | `session` | one connection: control stream, and who writes to it |
//! | `logs` | sending spools |
//! | `bounded` | what is kept between jobs, and goes when it is too much |
//! | `bulk` | fetching blobs |
//! | `peer` | agents of the same zone that share what they fetch |
//! | `workspace` | a job's files, and its wiping |
//! | `phases` | which jobs run in phases, and their plans |
//! | `hooks` | the agent's own hooks |
//! | `plugins` | the plugins of jobs, cloned |
//! | `git` | fetching as the agent, checking out as the job |
//! | `engine` | whether the machine's container engine is there |
//! | `environment` | a job's variables |
//! | `preparing` | stopping the making of a workspace |
//! | `right` | the right to an attempt, and its record |
//! | `secrets` | what a job may know and its log may not show |
//! | `job_api` | what jobs ask: their sockets and the in-job command |
//! | `jobs` | attempts between core and runners |
//! | `host` | how the machine does |
//! | `fingerprint` | what it is to a step's result |

mod ahead;
mod bounded;
mod bulk;
pub mod config;
mod engine;
mod environment;
pub mod error;
mod fingerprint;
mod git;
pub mod home;
mod hooks;
mod host;
pub mod identity;
mod job_api;
mod jobs;
pub mod kept;
mod leftovers;
#[cfg(test)]
mod link_kit;
mod logs;
mod peer;
mod phases;
mod plugins;
mod preparing;
mod right;
mod room;
pub mod run;
mod secrets;
mod session;
mod stock;
mod workspace;

pub use config::Config;
pub use error::Fault;
pub use plugins::PluginCredentials;
pub use run::{Ended, run};
