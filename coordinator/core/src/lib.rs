//! The coordinator's pure state machine: it decides which agent runs what, and owns no socket, file, clock or thread.
//!
//! | module | owns |
//! | --- | --- |
//! | [`row`] | what is durable, and the changes that make it |
//! | [`input`] | everything that can happen |
//! | [`effect`] | everything that it wants done |
//! | [`error`] | why it refuses |

pub mod effect;
pub mod error;
pub mod input;
pub mod row;

pub use effect::{Effect, Reply};
pub use error::Rejected;
pub use input::{Input, Request};
