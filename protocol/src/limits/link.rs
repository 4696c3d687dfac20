//! Bounds of the QUIC link, and of who waits at it.

/// Messages that wait for one agent's control stream at the coordinator; more, and the connection is ended.
pub const CONTROL_OUTBOX_MAX: usize = 4_096;

/// From a connection's handshake to its hello.
pub const HELLO_MS: u64 = 10_000;

/// Handshakes that a coordinator takes through at once; others wait in QUIC's own queue.
pub const HANDSHAKES_MAX: usize = 256;

/// Fetches of blobs that one agent may have open at once.
pub const FETCHES_PER_AGENT_MAX: usize = 16;

/// Fetches of all agents that are being answered at once: each holds a thread for blocking work, of which there are 512.
pub const FETCHES_MAX: usize = 128;

/// An agent that takes nothing of a fetch for this long is not waited for: others want its thread.
pub const FETCH_STALL_MS: u64 = 20_000;

/// Connections without a certificate that are open at once: each lives at most [`HELLO_MS`].
pub const ENROLLING_MAX: usize = 512;

/// A connection on which nothing was heard for this long is given up: two keep-alives and some may be lost.
pub const LINK_IDLE_MS: u32 = 20_000;

/// How often a quiet connection is kept alive; also keeps the state of firewalls on the way.
pub const LINK_KEEP_ALIVE_MS: u64 = 6_000;

/// A handshake, both ways; a slow link between continents needs one second.
pub const LINK_HANDSHAKE_MS: u64 = 10_000;

/// Handshakes that wait to be taken up; beyond, packets are dropped and clients try again.
pub const LINK_INCOMING_MAX: usize = 4_096;

/// Bytes in flight on one connection: 300 MB/s over 100 ms.
pub const LINK_WINDOW_BYTES: u32 = 32 << 20;

/// Bytes in flight on one stream: one stream may use half of its connection.
pub const LINK_STREAM_WINDOW_BYTES: u32 = 16 << 20;

/// Bytes in flight from somebody who is not known yet: one request to join.
pub const LINK_ENROL_WINDOW_BYTES: u32 = 64 << 10;

/// Streams of each kind at once on one connection: a log for each slot, twice.
pub const LINK_STREAMS_MAX: u32 = 1_024;

/// A receiver acknowledges after so many packets. Medians on loopback: 897 MB/s with every second packet, 922 with 10,
/// 822 with 24, 287 with BBR; between continents fewer acknowledgements spare the way back.
pub const LINK_ACK_EVERY: u32 = 10;

/// The largest packet that is tried for. Networks of clouds take 8,900 and more (jumbo frames), loopback 65,535; of each
/// connection it is found out what its way takes. Ten of them are handed to the kernel at once, which takes 65,507 bytes.
/// Of a gibibyte both ends' QUIC cost 0.83 s of processor time so, and 2.1 to 2.3 s with 1,452 bytes (docs/design/044).
pub const LINK_MTU_MAX_BYTES: u16 = 6_500;

/// Bytes that a new connection may have on its way before anything is acknowledged: ten of the largest packets. RFC 9002 (section 7.2)
/// recommends 14,720 bytes at most, which are two of them: then a close is held back behind one packet that is not acknowledged yet,
/// and was never sent in 2 of 100 connections that were closed at once. They leave at a pace, not in one burst.
pub const LINK_FIRST_WINDOW_BYTES: u64 = 10 * LINK_MTU_MAX_BYTES as u64;

/// Packets that QUIC hands to the kernel at once (`MAX_TRANSMIT_SEGMENTS` of quinn 0.11).
const LINK_PACKETS_AT_ONCE: u16 = 10;

/// The kernel's buffers of a UDP socket: some 20 ms at 300 MB/s.
pub const LINK_SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// A blob is read from disk in such pieces, and what has come of one is taken off the link in them.
pub const LINK_BLOB_PIECE_BYTES: usize = 256 << 10;

/// How long a read waits until what it saw is published; longer means that the loop stands still.
pub const PUBLISH_WAIT_MS: u64 = 5_000;

const _: () =
    assert!(LINK_MTU_MAX_BYTES <= 65_507 / LINK_PACKETS_AT_ONCE, "what is more at once is dropped without a word");
const _: () = assert!(LINK_KEEP_ALIVE_MS * 3 < LINK_IDLE_MS as u64, "two lost keep-alives end no connection");
