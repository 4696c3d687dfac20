//! What coordinator, agent and clients say to each other.
//!
//! | module | owns |
//! | --- | --- |
//! | [`id`] | typed UUIDv7 ids and the source that makes them |
//! | [`digest`] | BLAKE3 names of bytes |
//! | [`hex`] | bytes as digits |
//! | [`time`] | monotonic and wall-clock milliseconds as plain numbers |
//! | [`limits`] | every bound of the system, with its reason |
//! | [`version`] | protocol versions and their ALPN names |
//! | [`frame`] | length-prefixed, checksummed frames, without I/O |
//! | [`fuzz`] | every decoder of foreign bytes, to be fed nonsense |
//! | [`message`] | the messages of `windlass/1` |
//! | [`call`] | numbers of what jobs ask, by which it is done once |
//! | [`cause`] | why something ended without a result of its own |
//! | [`host_facts`] | what an agent says of its machine |
//! | [`job`] | what an agent is given to run, and what it answers |
//! | [`namespace`] | who can see a blob |
//! | [`secret`] | values that never print themselves |
//! | `identity` (feature) | the CA, keys, certificates, tokens and TLS |
//! | `link` (feature) | frames, messages and blobs on QUIC |
//!
//! Nothing here does I/O unless the feature `link` is on.

pub mod call;
pub mod cause;
pub mod digest;
pub mod frame;
pub mod fuzz;
pub mod hex;
#[cfg(feature = "host")]
pub mod host;
pub mod host_facts;
pub mod id;
#[cfg(feature = "identity")]
pub mod identity;
pub mod job;
pub mod limits;
#[cfg(feature = "link")]
pub mod link;
pub mod message;
pub mod namespace;
pub mod secret;
pub mod stock;
pub mod time;
pub mod version;

pub use cause::{Cause, CauseKind};
pub use digest::Digest;
pub use host_facts::HostFacts;
pub use id::{
    AgentId, AnnotationId, ArtifactId, AttemptId, BuildId, IdSource, JobId, NotificationId, PipelineId, ScheduleId,
    TokenId,
};
pub use namespace::{Namespace, Shelf, Trust};
pub use secret::Secret;
pub use time::{Instant64, Now, WallMs};
