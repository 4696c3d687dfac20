//! The kit: real coordinators, agents and clients in a world of their own, which leaves nothing behind.
//!
//! | module | owns |
//! | --- | --- |
//! | [`world`] | a test's directory, its processes and their end |
//! | [`process`] | one process: its output, signals and exit |
//! | [`coordinator`] | a coordinator that can be killed and comes back on its port |
//! | [`agent`] | an agent that can be killed, stopped and continued |
//! | [`client`] | the HTTP API |
//! | [`build`] | what builds, jobs and attempts look like in answers |
//! | [`engine`] | container engines: the machine's, and a zone's own |
//! | [`bucket`] | an S3 server |
//! | [`exposition`] | metrics, read strictly |
//! | [`fleet`] | a coordinator and agents of one pool |
//! | [`net`] | networks of a test's own |
//! | [`receiver`] | an HTTP server that keeps what it is sent |
//! | [`git`] | a git server that asks for a password |
//! | [`pipeline`] | pipelines as values |
//! | [`registry`] | a registry of images |
//! | [`repository`] | git repositories that a test makes |
//! | [`sse`] | Server-Sent Events |
//! | [`chaos`] | killing things again and again |
//! | [`wait`] | waiting with a deadline |
//! | [`skip`] | the record of what could not run |

pub mod agent;
pub mod bucket;
pub mod build;
pub mod chaos;
pub mod client;
pub mod coordinator;
pub mod engine;
pub mod exposition;
pub mod fleet;
pub mod git;
pub mod net;
pub mod pipeline;
pub mod process;
pub mod receiver;
pub mod registry;
pub mod repository;
pub mod skip;
pub mod sse;
pub mod wait;
pub mod world;

pub use agent::{Agent, AgentOptions};
pub use build::{Attempt, Build, Job};
pub use client::{Answer, Client, JoinToken, Submit};
pub use coordinator::{Coordinator, CoordinatorOptions};
pub use fleet::Fleet;
pub use process::{Exit, Process};
pub use receiver::{Received, Receiver};
pub use wait::{DEADLINE, until, within};
pub use world::{Ran, World, test};
