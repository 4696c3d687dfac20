//! Builds that are made at set times.

use serde::{Deserialize, Serialize};
use windlass_protocol::{BuildId, Cause, ScheduleId, WallMs};

use super::{Actor, Confined};

/// A schedule of a registered pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRow {
    /// Its id.
    pub id: ScheduleId,
    /// The pipeline's name.
    pub pipeline: String,
    /// Five fields, or a word such as `@daily`.
    pub cron: String,
    /// The IANA time zone that the fields are meant in.
    pub timezone: String,
    /// `None`: the pipeline's default branch.
    #[serde(default)]
    pub branch: Option<String>,
    /// A full commit id, or `HEAD` of the branch.
    pub commit: String,
    /// Of its builds.
    pub message: String,
    /// Of its builds.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Who made it may make trusted builds.
    #[serde(default)]
    pub trusted: bool,
    /// What its builds may trigger, if its maker's token is restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confined: Option<Confined>,
    /// Who made it, and is said to make its builds.
    pub created_by: Actor,
    /// When.
    pub created_at: WallMs,
    /// When it fires next; only ever later than it fired last. `None`: never again.
    pub next_at: Option<WallMs>,
    /// The build that it is making.
    #[serde(default)]
    pub firing: Option<Firing>,
    /// What came of the last time.
    #[serde(default)]
    pub last: Option<Fired>,
}

/// A build that a schedule is making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    /// Its id, which is settled before it is made: it is made once.
    pub build: BuildId,
    /// For which of the schedule's times.
    pub at: WallMs,
}

/// What came of one of a schedule's times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Which.
    pub at: WallMs,
    /// The build.
    pub build: BuildId,
    /// Its number; `None`: it could not be made.
    #[serde(default)]
    pub number: Option<u64>,
    /// Why it could not be made.
    #[serde(default)]
    pub cause: Option<Cause>,
}

/// A schedule to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSchedule {
    /// Made by the shell.
    pub id: ScheduleId,
    /// As in [`ScheduleRow`].
    pub pipeline: String,
    /// As in [`ScheduleRow`].
    pub cron: String,
    /// As in [`ScheduleRow`].
    pub timezone: String,
    /// As in [`ScheduleRow`].
    pub branch: Option<String>,
    /// As in [`ScheduleRow`].
    pub commit: String,
    /// As in [`ScheduleRow`].
    pub message: String,
    /// As in [`ScheduleRow`].
    pub env: Vec<(String, String)>,
    /// As in [`ScheduleRow`].
    pub trusted: bool,
    /// As in [`ScheduleRow`].
    pub confined: Option<Confined>,
}
