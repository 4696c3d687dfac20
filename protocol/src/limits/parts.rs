//! Bounds of uploads that send only the chunks that are missing.

use super::{FRAME_MAX_BYTES, MANIFEST_MAX_BYTES};

/// The longest manifest that is taken of an upload: of some 14 GiB cut at the average length, and longer than any artifact has. One
/// that is longer costs its sender a whole upload; a hostile one costs no more memory than [`PARTS_MAX`] says.
pub const PARTS_MANIFEST_MAX_BYTES: usize = 4 << 20;

/// Chunks that such a manifest can name: their places fit a frame.
pub const PARTS_CHUNKS_MAX: usize = PARTS_MANIFEST_MAX_BYTES / 36;

/// How long an agent may take to read and cut a blob: 10 GiB at 20 MB/s. Before its manifest it holds nobody's place meanwhile; between two
/// chunks it holds its own.
pub const PARTS_CUT_MS: u64 = 600_000;

/// How long the chunks of one blob may come: it holds a place for as long.
pub const PARTS_BLOB_MS: u64 = 3_600_000;

/// Offers that an agent cuts at once; more are sent whole: each holds a stream of its connection, and names of chunks.
pub const PARTS_CUTS_MAX: usize = 4;

/// Of a blob of which less than this part is there all of it is sent: an upload that is sent whole can be gone on with to the byte, and
/// after a restart.
pub const PARTS_WORTH_PART: u64 = 8;

/// Times that an agent offers parts over a link that breaks, before it sends whole blobs.
pub const PARTS_TRIES_MAX: usize = 4;

/// Blobs that come in parts at once. One of an honest agent holds some 200 bytes for each of its chunks, and the worst manifest that fits
/// comes to 50 MB.
pub const PARTS_MAX: usize = 16;

/// Of them from agents that run what is not trusted: a job there may hold back its bytes.
pub const PARTS_UNTRUSTED_MAX: usize = 12;

/// Blobs of trusted builds whose chunks came in part and wait for their agent to come back, and as many of others; the one that has
/// waited longest goes for another. Each holds what it held while it came, and a file.
pub const PARTS_RESTING_MAX: usize = 4;

/// How long they wait: an agent comes back within seconds, or its coordinator has restarted.
pub const PARTS_REST_MS: u64 = 120_000;

/// Blobs that are looked into for the chunks of one that is offered: versions of one archive are found in the first.
pub const ALIKE_BLOBS_MAX: usize = 8;

/// One chunk of so many, by its name, stands in the table that finds alike blobs: one row for 8 MiB.
pub const ALIKE_SAMPLE: u64 = 64;

/// Of each blob the chunks with so many least names stand in it too: of a short one that has changed one will be the same.
pub const ALIKE_LEAST: usize = 4;

/// Rows of a half of that table, some 56 bytes each: as many as fit the places of a hash table of 2^18 before it doubles. It has four
/// halves, two of trusted content and two of overlays'. Who fills one with his own makes others of his kind send more, and no more.
pub const ALIKE_ROWS_MAX: usize = 7 << 15;

/// Namespaces of a half that it remembers to have rows of.
pub const ALIKE_NAMESPACES_MAX: usize = 100_000;

/// Blobs of a store whose manifests are read again after a start before others are let in.
pub const ALIKE_LEARN_BLOBS: usize = 1_000;

const _: () =
    assert!(PARTS_CHUNKS_MAX * 4 + 64 < FRAME_MAX_BYTES as usize && PARTS_MANIFEST_MAX_BYTES < MANIFEST_MAX_BYTES);
