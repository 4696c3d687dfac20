//! Job logs at the coordinator: shared segments with group commit, sealed logs, live watchers.
//!
//! A log is bytes with offsets, and times beside them. While a job runs, its bytes go to a segment file that all
//! running logs share, so that one sync serves them all; what is durable is acknowledged ([`Acks`]), and watchers see
//! bytes a moment before that ([`Follower`]). When the log has ended, it is packed into a file of its own that can be
//! read from the middle, and the segments are removed once nobody needs them. Per attempt, bytes below the acknowledged
//! offset are the agent's: no gap, no duplicate, no reordering (I4).
//!
//! | module | owns |
//! | --- | --- |
//! | [`store`] | [`LogStore`], the handle |
//! | [`mod@record`] | the bytes of a segment |
//! | [`sealed`] | the bytes of a sealed log |
//! | `segment` | a segment's file, and walking through it |
//! | `log` | one log in memory: what is accepted, what is durable, who may write |
//! | `catalog` | which logs and segments there are, and who still needs which |
//! | `queue`, `writer` | the thread that makes bytes durable |
//! | `seal` | the thread that packs logs and removes segments |
//! | `delete` | the end of a log's retention |
//! | `recover` | opening a directory after whatever happened |
//! | [`read`](mod@read), [`follow`] | reading a range, watching a log grow |
//! | [`mod@check`] | verifying a directory that nobody has open |
//!
//! What waits, waits in bounds: pieces in the writer's queue (`LOG_QUEUE_MAX_BYTES`, and a share for each log), marks
//! (`LOG_CONTROL_QUEUE_MAX`), memory for watchers (`LOG_RING_BYTES` a watched log). A disk that refuses stops
//! acknowledgements, and by the queue appends; what was accepted stays in memory and is written when it takes bytes
//! again.

mod ack;
mod catalog;
pub mod check;
mod delete;
mod error;
pub mod follow;
mod log;
mod queue;
pub mod read;
pub mod record;
mod recover;
mod seal;
pub mod sealed;
mod segment;
mod shared;
pub mod store;
mod writer;

pub use ack::Acks;
pub use check::{LogSummary, Report, check};
pub use error::{Fault, Refused};
pub use follow::{Event, Follower};
pub use log::Piece;
pub use read::PieceReader;
pub use shared::{DiskState, Options};
pub use store::{Appended, LogLen, LogStore, Stats};
