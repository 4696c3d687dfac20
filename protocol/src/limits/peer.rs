//! Bounds of blobs between agents of one zone, and of chunks on their way.

use super::CHUNK_MAX_BYTES;

/// Chunks that one request names: 128 MiB of them, more than a link between continents has on its way.
pub const FETCH_MAX_CHUNKS: usize = 1_024;

/// Chunks in one request of an agent: 8 MiB, so that a link that breaks costs little and many agents take turns.
pub const FETCH_CHUNKS: usize = 64;

/// Requests for chunks that one blob has open at once with one source: while one is answered the next one is on its way.
pub const FETCH_CHUNK_STREAMS: usize = 2;

/// What is read at once of a large blob that is handed over while it comes, while as much as that is being taken.
pub const FOLLOWED_BYTES: usize = 512 << 10;

/// What handing over so may hold at once: what is being taken and what is read, each with what its last chunk has beyond
/// [`FOLLOWED_BYTES`].
pub const FOLLOWED_HELD_BYTES: usize = 2 * (FOLLOWED_BYTES + CHUNK_MAX_BYTES);

/// Agents of a zone that share what they fetch: the first by id. Others of a larger zone ask them.
pub const PEERS_MAX: usize = 64;

/// The address of a peer: the longest one of IPv6, with scope and port, has 64.
pub const PEER_ADDRESS_MAX_BYTES: usize = 64;

/// Between two looks at who is in which zone: a hundred agents that come at once are told of each other a few times.
pub const PEERS_TOLD_MS: u64 = 200;

/// How long a grant is good: as long as what one names may be read after its lease was taken away.
pub const GRANT_LIFE_MS: u64 = 300_000;

/// How far the clock of a peer may stand behind the coordinator's before it takes no grant that is still good.
pub const GRANT_SKEW_MS: u64 = 60_000;

/// A handshake between two machines of one zone. One that takes longer is passed over.
pub const PEER_CONNECT_MS: u64 = 1_000;

/// A peer that says nothing for so long is passed over: in a zone a chunk takes milliseconds, on a machine full of builds seconds.
/// With two seconds eight agents on two busy cores passed each other over, and a quarter of a file crossed twice.
pub const PEER_SILENCE_MS: u64 = 5_000;

/// How often a peer says that it still fetches what it was asked for: a few times before it would be passed over.
pub const PEER_WAITING_MS: u64 = 1_000;

/// How long a peer may fetch one chunk: 2 MiB at a megabit a second, with others. Then the next one is asked.
pub const PEER_PATIENCE_MS: u64 = 20_000;

/// How long nobody asks a peer again that was passed over: one that stays slow costs a sixth of the time at most.
pub const PEER_REST_MS: u64 = 30_000;

/// Requests of one peer that are answered at once.
pub const PEER_STREAMS_MAX: u32 = 64;

/// Connections of peers at once: each agent of a zone has one, and another one while its certificate is renewed.
pub const PEER_CONNECTIONS_MAX: usize = 256;

/// Large blobs that an agent is putting together at once, its own and those of peers; beyond, peers are sent elsewhere.
pub const GATHERINGS_MAX: usize = 64;

/// How long a blob that nobody asks for stays half put together: a job's other tries, and peers that come late.
pub const GATHERING_REST_MS: u64 = 120_000;

/// A blob up to this size travels whole: its chunks would be asked for one by one, and few of them are anywhere yet.
pub const PARTS_MIN_BYTES: u64 = 1 << 20;

/// Large blobs that one fetch puts together at once.
pub const GATHERED_AT_ONCE: usize = 4;

/// Pieces of blobs between the link and the disk, each as much as had come by then: what the link brings while a segment is written.
pub const FETCH_PIECES_MAX: usize = 16;

/// Tries of a fetch without a single blob or chunk more that reached the coordinator: it does not want to serve this.
pub const FETCH_REFUSALS_MAX: u32 = 10;

/// Requests of a fetch that are laid out before it is looked again at what is missing.
pub const FETCHES_IN_A_ROW_MAX: usize = 64;

/// What is kept for the bytes of a manifest before they have come.
pub const MANIFEST_TRUST_BYTES: u64 = 1 << 20;
