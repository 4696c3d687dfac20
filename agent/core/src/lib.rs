//! The agent's pure state machine: it decides what runs, by which right and for how long, and owns no socket, file,
//! clock or process.
//!
//! | module | owns |
//! | --- | --- |
//! | [`config`] | what an agent is told when it starts |
//! | [`input`] | everything that can happen |
//! | [`effect`] | everything that it wants done |
//! | [`error`] | why it refuses |
//! | `state` | the machine: one table of holdings, one link, one drain |
//! | `slot` | an attempt that the agent holds, and the room that it takes |
//! | `renew` | beats, and the rights that their answers extend |
//! | `link` | the connection, and the pauses between two |
//! | `spool` | how far an attempt's log is written, sent and durable |
//! | `drain` | taking nothing more, and leaving (F19, F21) |
//! | `invariant` | what holds after every event |
//!
//! **Rights.** A right lasts `lease_ms` from when the beat (or hello) that the coordinator answered was *sent*, on a
//! clock that counts suspend: so it ends here before it ends there, whatever the delay (F13). At its end an attempt
//! whose command has not started is dropped, an exclusive one is killed, and an ordinary one goes on and waits for the
//! coordinator's verdict.

pub mod config;
mod drain;
pub mod effect;
pub mod error;
pub mod input;
mod invariant;
mod jitter;
mod link;
mod renew;
mod slot;
mod spool;
mod state;

pub use config::{AgentConfig, Bugs};
pub use effect::{Effect, Exit};
pub use error::{Broken, Rejected};
pub use input::{ConnId, Found, Input, Signal, Terms};
pub use state::{AgentCore, StageName};
