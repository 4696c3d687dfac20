//! The seam between decisions and disks: [`Store`] makes changes durable, [`History`] reads what left memory.
//!
//! Both are blocking: a thread of its own calls the store, blocking tasks call history. History may be ahead of what has
//! been published by a moment; [`History::seq`], asked after a read, bounds how far.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use windlass_coordinator_core::row::{
    AgentRow, Annotation, ArtifactRow, AttemptRow, AuditRow, BuildRow, BuildRows, BuildState, CacheRow, Change,
    EventRow, NotificationRow, PinRow, Rows,
};
use windlass_pipeline::glob::PathQuery;
use windlass_protocol::{
    AnnotationId, ArtifactId, AttemptId, BuildId, Digest, JobId, Namespace, TokenId, WallMs, limits,
};

use crate::fault::Fault;

/// Which writer: rises each time a coordinator takes the store over. Only the last one may commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WriterEpoch(pub u64);

/// The number of a commit, from 1, without gaps. 0 is "nothing yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// The number of an event: its commit, and its place among that commit's events.
///
/// As one number it is what clients give back as `Last-Event-ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventSeq(pub u64);

/// Bits of an [`EventSeq`] that hold the place; the commit has the 43 above them (the sign stays free for SQL).
const PLACE_BITS: u32 = 20;

const _: () = assert!(limits::COMMIT_MAX_CHANGES * 2 < 1 << PLACE_BITS, "every event of a commit has a number");

impl EventSeq {
    /// Events that one commit can number.
    pub const PER_COMMIT_MAX: usize = 1 << PLACE_BITS;

    /// The number of the `place`th event (from 0) of commit `seq`.
    #[must_use]
    pub const fn new(seq: Seq, place: u32) -> Self {
        Self((seq.0 << PLACE_BITS) | place as u64)
    }

    /// The commit that holds it.
    #[must_use]
    pub const fn commit(self) -> Seq {
        Seq(self.0 >> PLACE_BITS)
    }

    /// After every event of commit `seq` and before those of the next.
    #[must_use]
    pub const fn end_of(seq: Seq) -> Self {
        Self(((seq.0 + 1) << PLACE_BITS) - 1)
    }
}

impl fmt::Display for EventSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for EventSeq {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// How much room is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Space {
    /// Enough.
    #[default]
    Enough,
    /// Running builds can still commit; new ones are to be refused.
    Low,
}

/// What may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Builds that ended before this.
    pub builds_before: WallMs,
    /// Idempotency keys made before this.
    pub idempotency_before: WallMs,
    /// Agents that have been gone since before this.
    pub agents_before: WallMs,
    /// Lines of the audit trail written before this.
    pub audit_before: WallMs,
    /// Artifacts whose time is over by then.
    pub artifacts_at: WallMs,
    /// Notifications that were over before this.
    pub notifications_before: WallMs,
    /// Builds in one piece, at most.
    pub max_builds: usize,
}

/// What one piece of retention has deleted; the logs of these attempts are the caller's to delete.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expired {
    /// Builds that are no more.
    pub builds: Vec<BuildId>,
    /// Their attempts.
    pub attempts: Vec<AttemptId>,
    /// Pipeline texts that no build names any more.
    pub definitions: Vec<Digest>,
    /// How many rows of agents that are gone.
    pub agents: usize,
    /// How many lines of the audit trail.
    pub audit_lines: usize,
    /// How many artifacts whose time was over; those of builds that are no more are not counted.
    pub artifacts: usize,
    /// How many notifications; those of builds that are no more are not counted.
    pub notifications: usize,
    /// There is more to delete: call again.
    pub more: bool,
}

/// What makes decisions durable. One thread owns it.
pub trait Store: Send + fmt::Debug {
    /// Takes the store over: from now on only the epoch returned may commit.
    ///
    /// # Errors
    /// [`Fault`]; then nobody's right has changed.
    fn claim(&mut self) -> Result<WriterEpoch, Fault>;

    /// Everything that is not history. Also the way to go on after a fault: what was refused is not in it.
    ///
    /// # Errors
    /// [`Fault`].
    fn load(&mut self) -> Result<Rows, Fault>;

    /// The number of the last commit.
    ///
    /// # Errors
    /// [`Fault`].
    fn seq(&mut self) -> Result<Seq, Fault>;

    /// Makes `changes` durable, in order, all or nothing. An empty list commits nothing and gives the last number.
    ///
    /// # Errors
    /// [`Fault::Fenced`] for any epoch but the one that claimed last; others of [`Fault`], and nothing is committed.
    fn commit(&mut self, epoch: WriterEpoch, changes: &[Change]) -> Result<Seq, Fault>;

    /// Deletes a bounded piece of what is past its retention.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn expire(&mut self, epoch: WriterEpoch, retention: Retention) -> Result<Expired, Fault>;

    /// How much room is left; also makes the reserve again where there is room.
    fn space(&mut self) -> Space;
}

/// Which builds to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildFilter {
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// In this state.
    pub state: Option<BuildState>,
    /// Of this branch.
    pub branch: Option<String>,
    /// Only those that wait at a gate.
    pub blocked: bool,
}

impl BuildFilter {
    /// Whether a build is listed.
    #[must_use]
    pub fn matches(&self, build: &BuildRow) -> bool {
        self.pipeline.as_ref().is_none_or(|pipeline| *pipeline == build.pipeline)
            && self.state.is_none_or(|state| state == build.state)
            && (!self.blocked || build.blocked.is_some())
            && self.branch.as_ref().is_none_or(|branch| *branch == build.branch)
    }
}

/// Which artifacts to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFilter {
    /// Of this build.
    pub build: BuildId,
    /// Only of these attempts.
    pub attempts: Option<BTreeSet<AttemptId>>,
    /// Only those whose path this describes (reference 20.3).
    pub path: Option<PathQuery>,
    /// Only those whose time is not over by then.
    pub at: WallMs,
    /// Only those that were added before this one; none where it is no more.
    pub before: Option<ArtifactId>,
}

impl ArtifactFilter {
    /// Whether an artifact is listed, as far as it says so itself.
    #[must_use]
    pub fn matches(&self, row: &ArtifactRow) -> bool {
        row.build == self.build
            && row.expires_at > self.at
            && self.attempts.as_ref().is_none_or(|attempts| attempts.contains(&row.attempt))
            && self.path.as_ref().is_none_or(|path| path.matches(&row.path))
    }
}

/// Where a list goes on; opaque, and good only for the same filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub(crate) u64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Cursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// One page of a list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as were asked for, and never more than `limits::PAGE_MAX_ITEMS`.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A pin, with what else is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Its row.
    pub row: PinRow,
    /// Results that it holds.
    pub results: u64,
}

/// What a build has that a pin would hold, all as of one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinGround {
    /// Its rows.
    pub rows: BuildRows,
    /// Its artifacts that are there.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Its pin, if it has one.
    pub pin: Option<Pinned>,
}

/// An event with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number.
    pub seq: EventSeq,
    /// Itself.
    pub row: EventRow,
}

/// Reads everything that is stored, finished builds included. Any thread may ask; calls block on the disk.
pub trait History: Send + Sync + fmt::Debug {
    /// The number of the last commit that a read started before this call can have seen.
    ///
    /// # Errors
    /// [`Fault`].
    fn seq(&self) -> Result<Seq, Fault>;

    /// A build with its jobs (by index) and attempts (oldest first), all as of one commit.
    ///
    /// # Errors
    /// [`Fault`].
    fn build(&self, id: BuildId) -> Result<Option<BuildRows>, Fault>;

    /// Some jobs of a build, with what they depend on and their own attempts (oldest first), all as of one commit. The jobs
    /// are in the order of their indexes and have gaps between them; ids of no job of the build are passed over, and
    /// without any id the build comes alone. What a job costs here does not grow with its build.
    ///
    /// # Errors
    /// [`Fault`].
    fn some_jobs(&self, id: BuildId, jobs: &[JobId]) -> Result<Option<BuildRows>, Fault>;

    /// Which build of a pipeline has this number.
    ///
    /// # Errors
    /// [`Fault`].
    fn build_by_number(&self, pipeline: &str, number: u64) -> Result<Option<BuildId>, Fault>;

    /// Builds, newest first.
    ///
    /// # Errors
    /// [`Fault`].
    fn builds(&self, filter: &BuildFilter, after: Option<Cursor>, limit: usize) -> Result<Page<BuildRow>, Fault>;

    /// The build that a job belongs to.
    ///
    /// # Errors
    /// [`Fault`].
    fn job_build(&self, job: JobId) -> Result<Option<BuildId>, Fault>;

    /// One attempt.
    ///
    /// # Errors
    /// [`Fault`].
    fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, Fault>;

    /// A build's events after a number, oldest first.
    ///
    /// # Errors
    /// [`Fault`].
    fn events(&self, build: BuildId, after: EventSeq, limit: usize) -> Result<Vec<StoredEvent>, Fault>;

    /// A build's annotations with their texts, in the order in which they are shown, all as of one commit.
    ///
    /// # Errors
    /// [`Fault`].
    fn annotations(&self, build: BuildId) -> Result<Vec<(Annotation, String)>, Fault>;

    /// The audit trail, newest first.
    ///
    /// # Errors
    /// [`Fault`].
    fn audit(&self, after: Option<Cursor>, limit: usize) -> Result<Page<AuditRow>, Fault>;

    /// Agents that a token admitted, newest first, those that are gone among them.
    ///
    /// # Errors
    /// [`Fault`].
    fn agents_of(&self, token: TokenId, limit: usize) -> Result<Vec<AgentRow>, Fault>;

    /// A build's artifacts, newest first; of a pinned build none ends before its pin.
    ///
    /// # Errors
    /// [`Fault`].
    fn artifacts(
        &self,
        filter: &ArtifactFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<ArtifactRow>, Fault>;

    /// One artifact; of a pinned build it does not end before its pin.
    ///
    /// # Errors
    /// [`Fault`].
    fn artifact(&self, id: ArtifactId) -> Result<Option<ArtifactRow>, Fault>;

    /// A build's notifications, newest first.
    ///
    /// # Errors
    /// [`Fault`].
    fn notifications(
        &self,
        build: BuildId,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<NotificationRow>, Fault>;

    /// Whose artifacts name a blob: each namespace once.
    ///
    /// # Errors
    /// [`Fault`].
    fn naming(&self, digest: Digest) -> Result<BTreeSet<Namespace>, Fault>;

    /// Caches that were saved after a number, each with its own, oldest first: those that are there still.
    ///
    /// # Errors
    /// [`Fault`].
    fn caches(&self, after: u64, limit: usize) -> Result<Vec<(u64, CacheRow)>, Fault>;

    /// Caches of a pipeline, or of all, each with its number, newest first.
    ///
    /// # Errors
    /// [`Fault`].
    fn newest_caches(
        &self,
        pipeline: Option<String>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<(u64, CacheRow)>, Fault>;

    /// A cache by its number.
    ///
    /// # Errors
    /// [`Fault`].
    fn cache(&self, number: u64) -> Result<Option<CacheRow>, Fault>;

    /// Pins of a pipeline, or of all, newest first.
    ///
    /// # Errors
    /// [`Fault`].
    fn pins(&self, pipeline: Option<&str>, after: Option<Cursor>, limit: usize) -> Result<Page<Pinned>, Fault>;

    /// A build's pin.
    ///
    /// # Errors
    /// [`Fault`].
    fn pin(&self, build: BuildId) -> Result<Option<Pinned>, Fault>;

    /// What a build has that a pin would hold, or holds. `None` where there is no such build.
    ///
    /// # Errors
    /// [`Fault`].
    fn pin_ground(&self, build: BuildId) -> Result<Option<PinGround>, Fault>;

    /// A pipeline's text by its digest.
    ///
    /// # Errors
    /// [`Fault`].
    fn definition(&self, digest: Digest) -> Result<Option<String>, Fault>;
}

/// A build's annotations as they are shown: by priority, then by age.
pub(crate) fn in_order(build: BuildRow, mut texts: BTreeMap<AnnotationId, String>) -> Vec<(Annotation, String)> {
    let mut all = build.annotations;
    // Stable: they stand in the order of their making.
    all.sort_by_key(|annotation| Reverse(annotation.priority));
    let with_text = |annotation: Annotation| {
        let text = texts.remove(&annotation.id).unwrap_or_default();
        (annotation, text)
    };
    all.into_iter().map(with_text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_numbers_rise_over_places_and_commits_and_name_their_commit() {
        let last = EventSeq::new(Seq(7), (1 << PLACE_BITS) - 1);
        assert!(EventSeq::new(Seq(7), 0) < last && last < EventSeq::new(Seq(8), 0));
        assert_eq!((last.commit(), EventSeq::end_of(Seq(7))), (Seq(7), last));
        assert_eq!(last.to_string().parse(), Ok(last));
    }
}
