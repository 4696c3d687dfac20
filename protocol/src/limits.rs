//! Every bound of the system, each with the reason for its number (I9), in a file for each topic.
//!
//! A limit that a pool, a pipeline or a flag can change has its default here and its maximum beside it. Here stands only
//! what has to hold between topics.

#[path = "limits/action.rs"]
mod action;
#[path = "limits/agent.rs"]
mod agent;
#[path = "limits/ahead.rs"]
mod ahead;
#[path = "limits/api.rs"]
mod api;
#[path = "limits/ask.rs"]
mod ask;
#[path = "limits/blob.rs"]
mod blob;
#[path = "limits/build.rs"]
mod build;
#[path = "limits/chunk.rs"]
mod chunk;
#[path = "limits/client.rs"]
mod client;
#[path = "limits/engine.rs"]
mod engine;
#[path = "limits/fleet.rs"]
mod fleet;
#[path = "limits/frame.rs"]
mod frame;
#[path = "limits/git.rs"]
mod git;
#[path = "limits/hands.rs"]
mod hands;
#[path = "limits/identity.rs"]
mod identity;
#[path = "limits/intake.rs"]
mod intake;
#[path = "limits/lease.rs"]
mod lease;
#[path = "limits/link.rs"]
mod link;
#[path = "limits/log.rs"]
mod log;
#[path = "limits/notify.rs"]
mod notify;
#[path = "limits/origin.rs"]
mod origin;
#[path = "limits/parts.rs"]
mod parts;
#[path = "limits/peer.rs"]
mod peer;
#[path = "limits/pin.rs"]
mod pin;
#[path = "limits/pipeline.rs"]
mod pipeline;
#[path = "limits/place.rs"]
mod place;
#[path = "limits/retention.rs"]
mod retention;
#[path = "limits/reuse.rs"]
mod reuse;
#[path = "limits/runner.rs"]
mod runner;
#[path = "limits/secret.rs"]
mod secret;
#[path = "limits/segment.rs"]
mod segment;
#[path = "limits/store.rs"]
mod store;
#[path = "limits/tree.rs"]
mod tree;
#[path = "limits/turn.rs"]
mod turn;

pub use self::action::*;
pub use self::agent::*;
pub use self::ahead::*;
pub use self::api::*;
pub use self::ask::*;
pub use self::blob::*;
pub use self::build::*;
pub use self::chunk::*;
pub use self::client::*;
pub use self::engine::*;
pub use self::fleet::*;
pub use self::frame::*;
pub use self::git::*;
pub use self::hands::*;
pub use self::identity::*;
pub use self::intake::*;
pub use self::lease::*;
pub use self::link::*;
pub use self::log::*;
pub use self::notify::*;
pub use self::origin::*;
pub use self::parts::*;
pub use self::peer::*;
pub use self::pin::*;
pub use self::pipeline::*;
pub use self::place::*;
pub use self::retention::*;
pub use self::reuse::*;
pub use self::runner::*;
pub use self::secret::*;
pub use self::segment::*;
pub use self::store::*;
pub use self::tree::*;
pub use self::turn::*;

const _: () = assert!(COMMAND_MAX_BYTES + ENV_MAX_BYTES < FRAME_MAX_BYTES as usize / 2 * 2, "an offer fits in a frame");
const _: () = assert!(LOG_CHUNK_MAX_BYTES < FRAME_MAX_BYTES as usize, "a log chunk fits in a frame");
const _: () = assert!(JOBS_PER_BUILD_MAX * 3 < COMMIT_MAX_CHANGES, "a submit fits in a commit");
const _: () = assert!(TOKENS_MAX * 2 < COMMIT_MAX_CHANGES, "the uses of all tokens fit in a commit");
const _: () = assert!(SLOTS_MAX * 2 <= LINK_STREAMS_MAX, "each slot's log has a stream, and the one before it too");
const _: () =
    assert!(EVIDENCE_MAX_BYTES + CSR_MAX_BYTES < LINK_ENROL_WINDOW_BYTES as usize / 2, "a request to join fits");
const _: () = assert!(
    ARTIFACTS_FOUND_MAX * (TREE_NAME_MAX_BYTES + URL_MAX_BYTES + NAME_MAX_BYTES + 256) < FRAME_MAX_BYTES as usize,
    "an answer with the longest paths fits a frame"
);
const _: () = assert!(STORE_MAX_BLOBS * 48 < FRAME_MAX_BYTES as usize, "an offer of blobs fits a frame");
const _: () = assert!(
    (BRING_BLOBS_MAX + BRING_TREES_MAX) * 32 + 4_096 < FRAME_MAX_BYTES as usize,
    "an order to bring fits a frame"
);
const _: () = assert!(META_DATA_MAX_BYTES + META_DATA_KEYS_MAX * 16 < FRAME_MAX_BYTES as usize, "all keys fit a frame");
const _: () = assert!(REDACTION_MAX_BYTES * 6 + 1_024 < SUPERVISOR_LINE_MAX_BYTES, "a value to mask fits a line");
