//! Bounds on placement by bytes (docs/design/036).

/// Large inputs that an agent tells of: the largest ones. A beat's frame has room for them many times over.
pub const STOCK_INPUTS_MAX: usize = 64;

/// Inputs below this are told to nobody: to bring them costs less than to think of it.
pub const STOCK_MIN_BYTES: u64 = 16 << 20;

/// An input's length: what is more is no length of anything.
pub const STOCK_MAX_BYTES: u64 = 1 << 50;

/// Between two looks of an agent at what it has.
pub const STOCK_EVERY_MS: u64 = 30_000;

/// Agents of a pool that are compared for one job, the least busy ones: more would cost each assignment.
pub const PLACE_CANDIDATES_MAX: usize = 16;

/// Holders of an input that are looked at, to see whether waiting for one of them may pay.
pub const PLACE_HOLDERS_MAX: usize = 16;

/// Agents that are named of those that were weighed for a job: with its attempt's row they stay below 4 KiB.
pub const WEIGHED_MAX: usize = 8;

/// Agents that differ by less in what they still have to bring are alike.
pub const PLACE_STEP_MS: u64 = 250;

/// A job waits for no warmer agent where less time is to be won.
pub const PLACE_WAIT_MIN_MS: u64 = 1_000;

/// And never for longer: whoever is warm may be busy for hours.
pub const PLACE_WAIT_MAX_MS: u64 = 10_000;

/// Jobs that one freed agent leaves to warmer ones at once, before it takes what comes next.
pub const PLACE_PASSED_OVER_MAX: usize = 32;

/// What a zone's agents bring in a millisecond before any of them has told: 100 MB/s.
pub const ZONE_BYTES_PER_MS: u64 = 100_000;

/// Bytes from which on a new measurement of a zone counts: of less the round trips are measured.
pub const ZONE_RATE_MIN_BYTES: u64 = 8 << 20;
