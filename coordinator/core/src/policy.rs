//! What an operator may choose, with a default for everything.

use windlass_protocol::limits;

/// The coordinator's settings as far as the core needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// For a step without a timeout of its own or of its pipeline.
    pub timeout_default_ms: u64,
    /// No step may ask for more.
    pub timeout_max_ms: u64,
    /// Between a job's polite signal and its kill.
    pub grace_ms: u64,
    /// Bytes of log after which it is cut.
    pub log_limit_bytes: u64,
    /// How long the jobs of an unreachable zone are held before they are lost (F15).
    pub zone_hold_ms: u64,
    /// From when on a large job that fits nowhere holds back smaller ones (F56).
    pub reserve_after_ms: u64,
    /// How long artifacts are kept.
    pub artifact_retention_ms: u64,
    /// What the rows of one build may hold.
    pub build_max_bytes: usize,
    /// Added to every job's environment after everything else: names and values that the server knows.
    pub env: Vec<(String, String)>,
    /// Deliberate bugs, for the simulation to catch; all off.
    #[doc(hidden)]
    pub bugs: Bugs,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout_default_ms: limits::TIMEOUT_DEFAULT_MS,
            timeout_max_ms: limits::TIMEOUT_MAX_MS,
            grace_ms: limits::CANCEL_GRACE_MS,
            log_limit_bytes: limits::LOG_DEFAULT_LIMIT_BYTES,
            zone_hold_ms: limits::ZONE_HOLD_MS,
            reserve_after_ms: limits::RESERVE_AFTER_MS,
            artifact_retention_ms: limits::ARTIFACT_RETENTION_MS,
            build_max_bytes: limits::BUILD_MAX_BYTES,
            env: Vec::new(),
            bugs: Bugs::default(),
        }
    }
}

/// Deliberate bugs, each of which a test switches on to see that an invariant catches it. Never on elsewhere.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own, thrown by one test")]
pub struct Bugs {
    /// I3: a result is taken whatever epoch it carries.
    pub skip_epoch_fence: bool,
    /// I2: a job stays in its queue when it is leased, so that two agents get it.
    pub lease_twice: bool,
    /// I2: the last epoch is not stored, so that a restart grants it again.
    pub forget_last_epoch: bool,
    /// I8: canceling a build leaves its waiting jobs alone.
    pub ignore_cancel: bool,
    /// I1: answers are released before the changes that they speak of.
    pub reply_before_commit: bool,
    /// I7: an agent gets jobs of any trust class and zone.
    pub ignore_trust_and_zone: bool,
    /// I7: a job starts though its last dependency is not done.
    pub forget_dependency: bool,
    /// I3: a lost exclusive job is leased again without waiting for the old one's end.
    pub skip_exclusive_fence: bool,
    /// I3: a slot of a concurrency group is free before what ran of its holder has surely ended.
    pub slot_before_fence: bool,
    /// I3: an upload that comes again is inserted again.
    pub upload_twice: bool,
    /// I3: an answer to an order makes a build as often as it comes.
    pub trigger_twice: bool,
    /// I3: a schedule's next time is the one that it has fired for.
    pub fire_twice: bool,
    /// I8: a build that a canceled job waited for goes on.
    pub orphan_triggered: bool,
    /// I3: what a job says is done as often as it comes.
    pub hear_twice: bool,
    /// I3: a job cancels its build whatever right it says so by.
    pub believe_stale_cancel: bool,
    /// I3: what an agent was given before its machine crashed is offered to it again, though it may have started.
    pub forget_reboot: bool,
    /// I13: notifications are kept in memory alone, so that a crash loses them.
    pub forget_notification: bool,
    /// I14: a job is leased though another one runs with its key.
    pub follow_nobody: bool,
    /// I12: an entry is read by whoever has its key.
    pub read_any_entry: bool,
    /// I15: results that pins hold make room for others, as if nobody held them.
    pub let_go_of_pinned: bool,
    /// I9: what an upload adds to its build is not counted.
    pub forget_bytes: bool,
    /// I10: leases get no deadline.
    pub drop_deadline: bool,
}
