//! The core simulation: the coordinator's core and several agents' cores in one thread, with virtual time and
//! everything between them made of chance.
//!
//! | module | owns |
//! | --- | --- |
//! | [`world`] | the clock, the events and the loop |
//! | [`coordinator`] | the coordinator's shell: commits, what waits for them, the log's ends |
//! | [`host`] | an agent's machine: its process, its state directory |
//! | [`jobs`], [`runner`] | what jobs do, and the supervisors that outlive an agent |
//! | [`transport`], [`network`] | connections, what they carry, and how they fail |
//! | [`store`], [`logs`] | what is durable |
//! | [`workload`], [`graphs`] | clients and what they submit |
//! | [`faults`] | what breaks |
//! | [`oracle`], [`judge`] | the invariants, after every event |
//! | [`coverage`] | what was reached |
//!
//! A run is decided by its seed alone. A seed that fails is played again, with every event printed, by
//! `WINDLASS_SIM_SEED=N cargo nextest run -p windlass-tests --test sim one_seed --no-capture`.

pub mod coordinator;
pub mod coverage;
pub mod faults;
pub mod graphs;
pub mod host;
pub mod jobs;
pub mod judge;
pub mod logs;
pub mod network;
pub mod oracle;
pub mod random;
pub mod receiver;
mod reuse;
pub mod runner;
pub mod store;
pub mod transport;
pub mod workload;
pub mod world;

pub use world::{Report, Setup, Violation, World};
