//! Why the core refuses an input, and what it says of itself if it is broken.

use windlass_protocol::AttemptId;
use windlass_protocol::job::Epoch;

use crate::input::ConnId;

/// The input made no sense now; nothing has changed but what time alone changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The agent has left.
    #[error("the agent has left")]
    Left,
    /// It belongs to a connection that is over, or not the one that is dialled.
    #[error("connection {} is not the current one", .0.0)]
    VoidConnection(ConnId),
    /// It may not come before the welcome, or only once.
    #[error("{0} is out of turn")]
    OutOfTurn(&'static str),
    /// The attempt is not held.
    #[error("attempt {0} is not held")]
    NotHeld(AttemptId),
    /// A right older than the one held.
    #[error("attempt {attempt} is held at epoch {}, the message carries {}", held.0, got.0)]
    StaleEpoch {
        /// Which.
        attempt: AttemptId,
        /// The right it has.
        held: Epoch,
        /// The right in the message.
        got: Epoch,
    },
    /// Log bytes that were never written are said to be durable.
    #[error("attempt {attempt}: offset {offset} is beyond the log's end {end}")]
    BeyondLog {
        /// Which.
        attempt: AttemptId,
        /// As said.
        offset: u64,
        /// As written.
        end: u64,
    },
    /// A runner's word that does not fit the attempt's stage.
    #[error("attempt {attempt}: {what} does not fit its stage")]
    OutOfStage {
        /// Which.
        attempt: AttemptId,
        /// What was said.
        what: &'static str,
    },
}

/// An invariant of the core does not hold: a bug of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Broken {
    /// Its number in DESIGN.md, such as `I9`.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}
