//! Bounds of a job's way through the fleet: beats, leases, retries, and how long each state may last.

/// Beats between agent and coordinator; the coordinator may tell larger ones as the fleet grows (F10, F12).
pub const BEAT_MS: u64 = 5_000;

/// Beats a second that one coordinator is to hear: with more agents each beats less often, down to a quarter of its lease
/// (F12). One beat costs it some 20 microseconds.
pub const BEATS_PER_SECOND_MAX: u64 = 1_000;

/// A lease's default length: suspect after a quarter, lost at the end (F10).
pub const LEASE_DEFAULT_MS: u64 = 60_000;

/// The shortest lease that a pool may ask for. Shorter ones would lose agents to a busy disk.
pub const LEASE_MIN_MS: u64 = 1_000;

/// The longest lease that a pool may ask for (F10).
pub const LEASE_MAX_MS: u64 = 24 * 3_600_000;

/// An offer that is neither accepted nor refused within this long is taken back (F16).
pub const OFFER_MS: u64 = 5_000;

/// From accepting to starting: workspace and image (F16: 60 s and the image's time).
pub const PREPARE_MS: u64 = 600_000;

/// From asking an agent to end an attempt to giving up on its answer, beside the job's own grace.
pub const STOP_ANSWER_MS: u64 = 30_000;

/// Between a job's polite signal and its kill, by default (Buildkite's `cancel-grace-period`).
pub const CANCEL_GRACE_MS: u64 = 10_000;

/// The longest grace that a step may ask for: an hour tears down a large test environment, and a cancel still ends (I8).
pub const STEP_GRACE_MAX_MS: u64 = 3_600_000;

/// How long a job waits for an agent before it expires: 30 days (buildkite.md 10.5).
pub const JOB_EXPIRY_MS: u64 = 30 * 86_400_000;

/// How long a build may exist in all, whatever else happens; every state has a deadline (I10).
pub const BUILD_EXPIRY_MS: u64 = 60 * 86_400_000;

/// A job without a timeout of its own or of its pipeline.
pub const TIMEOUT_DEFAULT_MS: u64 = 24 * 3_600_000;

/// The longest timeout that a step may ask for.
pub const TIMEOUT_MAX_MS: u64 = 7 * 86_400_000;

/// An agent that is not heard of for this long, and holds nothing, is forgotten: longer than a machine is off over a
/// holiday, and about when the grace of its certificate ends.
pub const AGENT_FORGET_MS: u64 = 7 * 86_400_000;

/// How often a job whose command had not started moves to another agent by itself.
pub const REQUEUE_MAX: u32 = 10;

/// How often one retry rule may retry (buildkite.md 10.1).
pub const RETRY_RULE_LIMIT_MAX: u32 = 10;

/// A step that has lost this many agents is suspected of killing them and is not retried (F17).
pub const AGENTS_LOST_MAX: u32 = 3;

/// How often it is looked whether room must be kept for large jobs, while some wait.
pub const RESERVE_CHECK_MS: u64 = 30_000;

/// Fewer silent agents say nothing about their zone: two machines may well fail together (F15).
pub const ZONE_SILENT_MIN: usize = 3;

/// How long the jobs of a zone whose agents fell silent together are held before they are lost (F15).
pub const ZONE_HOLD_MS: u64 = 600_000;

/// From when on a large job that fits nowhere holds back smaller ones (F56).
pub const RESERVE_AFTER_MS: u64 = 120_000;

/// Attempts that an agent may hold for each of its slots, those included whose commands have ended and whose logs are
/// not yet durable: enough to hide one sync, few enough to bound its spools.
pub const HELD_PER_SLOT_MAX: usize = 4;

/// Attempts of one job in all, by rules and by hand.
pub const ATTEMPTS_PER_JOB_MAX: usize = 100;

const _: () = assert!(3 * BEAT_MS < LEASE_DEFAULT_MS, "an agent is suspect before it is lost");
const _: () = assert!(LEASE_MIN_MS <= LEASE_DEFAULT_MS && LEASE_DEFAULT_MS <= LEASE_MAX_MS);
