//! A pair of hands in a job: the in-job command is a tiny static program that does what its agent says (docs/design/016).
//!
//! The program connects to its job's socket, says how it was called, and obeys: write this, read that, exit so. It acts
//! as the job's user, in the job's mount namespace; the agent never opens a path that a job names. What a command means
//! is decided in the agent alone.
//!
//! | module | owns |
//! | --- | --- |
//! | [`wire`] | the frames between both, shared with the program as source |
//! | [`plan`] | what a job's bootstrap is to do, shared with the program as source |
//! | [`phases`] | in which order it does it, shared with the program as source |
//! | [`fuzz`] | the fuzz entries of its decoders |

use windlass_protocol::limits;

pub mod fuzz;
pub mod phases;
pub mod plan;
pub mod wire;

/// The program, as it is mounted into jobs.
pub static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hands"));

/// The names by which jobs call it.
pub const NAMES: [&str; 2] = ["buildkite-agent", "windlass"];

/// The name by which it is a job's bootstrap.
pub use plan::BOOTSTRAP;

/// The variable that names the job's socket.
pub const SOCKET_VARIABLE: &str = "WINDLASS_JOB_SOCKET";
