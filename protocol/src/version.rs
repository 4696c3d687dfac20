//! Protocol versions: ALPN names a protocol and its version; each version's messages are frozen.

/// Control and logs of an enrolled agent: mutual TLS.
pub const ALPN_AGENT: &[u8] = b"windlass/1";

/// Bulk blobs of an enrolled agent, on a connection of their own: mutual TLS.
pub const ALPN_BULK: &[u8] = b"windlass-bulk/1";

/// Joining with a token: the server is authenticated by the CA's fingerprint in the token, the client by the token.
pub const ALPN_ENROL: &[u8] = b"windlass-enrol/1";

/// Blobs between two agents of one zone: mutual TLS, each believes the certificates of the fleet's CA.
pub const ALPN_PEER: &[u8] = b"windlass-peer/1";

/// The ability, told in an agent's hello, to take manifests of archives and chunks as they are stored
/// ([`crate::message::BlobHeader::Packed`]). To others blobs of that kind are given whole, and chunks plain.
pub const CHUNKS_2: &str = "chunks-2";

/// The ability to store large blobs by their chunks ([`crate::message::BulkAsk::Parts`]): told in an agent's hello, and to who told it
/// in [`crate::message::CoordinatorMessage::Knows`]. Between others blobs are sent whole.
pub const PARTS_1: &str = "parts-1";

/// The ability, told in an agent's hello, to bring blobs ahead of jobs when the coordinator opens a stream and says so
/// ([`crate::message::Bring`]).
pub const BRING_1: &str = "bring-1";

/// All that a coordinator offers, preferred first.
pub const ALPN_SERVER: &[&[u8]] = &[ALPN_AGENT, ALPN_BULK, ALPN_ENROL];
