//! Bounds of what is brought to agents ahead of their jobs.

/// Blobs that one order names beside its trees, each by 32 bytes: as many as one question for what is missing.
pub const BRING_BLOBS_MAX: usize = 10_000;

/// Trees that one order names: a build has its source, and one for each of its steps that declares inputs.
pub const BRING_TREES_MAX: usize = 1_024;

/// Directories and files of an order's trees that are looked at: as many as the source of a step may name.
pub const BRING_ENTRIES_MAX: usize = 500_000;

/// Bytes that are brought for one build: more than the caches of most agents hold.
pub const BRING_MAX_BYTES: u64 = 256 << 30;

/// Blobs that are brought for one build beside its trees: ten orders, one after the other.
pub const AHEAD_BLOBS_MAX: usize = 100_000;

/// Saved directories of one build: as many as a build of many steps restores.
pub const AHEAD_CACHES_MAX: usize = 64;

/// Entries of saved directories that are looked through for those: some pages, newest first.
pub const AHEAD_CACHES_LOOKED_AT: usize = 5_000;

/// Agents of one request: a zone's peers, and then some. Each has a stream of its own.
pub const AHEAD_AGENTS_MAX: usize = 256;

/// Requests at once: each may hold a stream to every agent.
pub const AHEAD_AT_ONCE: usize = 4;

/// Orders that an agent carries out at once: what it brings ahead takes the link from its jobs.
pub const BRINGS_PER_AGENT: usize = 1;

/// Blobs that an agent asks for together: it tells how far it is between two groups.
pub const BRING_GROUP_BLOBS: usize = 1_000;

/// How often an agent tells how far it is.
pub const BROUGHT_EVERY_MS: u64 = 500;

/// An agent that says nothing of an order for so long has lost it.
pub const BROUGHT_SILENCE_MS: u64 = 30_000;

/// How long it takes an agent to take an order at all.
pub const BRING_TAKEN_MS: u64 = 10_000;
