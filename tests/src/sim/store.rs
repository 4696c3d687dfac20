//! The model store: rows that a commit changes all at once, and the history that a core does not load.

use std::collections::{BTreeMap, BTreeSet};

use windlass_coordinator_core::row::{ArtifactRow, AuditRow, BuildRows, Change, EventRow, NotificationRow, Rows};
use windlass_protocol::{AnnotationId, ArtifactId, BuildId, Digest, NotificationId, TokenId};

/// Everything that was committed, ever.
#[derive(Debug, Clone, Default)]
pub struct Store {
    /// Rows, those of ended builds too.
    pub rows: Rows,
    /// Events in the order of their commits.
    pub events: Vec<EventRow>,
    /// The audit trail.
    pub audits: Vec<AuditRow>,
    /// What jobs uploaded.
    pub artifacts: BTreeMap<ArtifactId, ArtifactRow>,
    /// Texts of annotations.
    pub annotations: BTreeMap<AnnotationId, String>,
    /// All notifications, as they were last.
    pub notifications: BTreeMap<NotificationId, NotificationRow>,
    /// Tokens that are over.
    pub forgotten: BTreeSet<TokenId>,
    /// How often each build was pinned.
    pub pinned: BTreeMap<BuildId, u64>,
    /// Builds whose last pins are over.
    pub unpinned: BTreeSet<BuildId>,
    /// Pipelines' texts.
    pub definitions: BTreeMap<Digest, String>,
}

impl Store {
    /// Applies one change of a commit.
    pub fn apply(&mut self, change: Change) {
        let rows = &mut self.rows;
        match change {
            Change::Meta(meta) => rows.meta = meta,
            Change::PipelineNumber { pipeline, last } => drop(rows.pipeline_numbers.insert(pipeline, last)),
            Change::Build(row) => drop(rows.builds.insert(row.id, *row)),
            Change::Job(row) => drop(rows.jobs.insert(row.id, *row)),
            Change::Attempt(row) => drop(rows.attempts.insert(row.id, *row)),
            Change::Pipeline(row) => drop(rows.pipelines.insert(row.name.clone(), *row)),
            Change::Pool(row) => drop(rows.pools.insert(row.name.clone(), *row)),
            Change::Agent(row) => drop(rows.agents.insert(row.id, *row)),
            Change::Token(row) => drop(rows.tokens.insert(row.id, *row)),
            Change::TokenOver(id) => {
                rows.tokens.remove(&id);
                self.forgotten.insert(id);
            }
            Change::Pin(row) => {
                self.unpinned.remove(&row.build);
                let build = row.build;
                if rows.pins.insert(build, *row).is_none() {
                    *self.pinned.entry(build).or_default() += 1;
                }
            }
            Change::PinResult { build, key } => drop(rows.pinned_results.insert((build, key))),
            Change::PinOver(build) => {
                rows.pins.remove(&build);
                rows.pinned_results.retain(|(of, _)| *of != build);
                self.unpinned.insert(build);
            }
            Change::Hold(row) => drop(rows.holds.insert(row.job, row)),
            Change::HoldOver(job) => drop(rows.holds.remove(&job)),
            Change::Schedule(row) => drop(rows.schedules.insert(row.id, *row)),
            Change::ScheduleOver(id) => drop(rows.schedules.remove(&id)),
            Change::Lineage(row) => drop(rows.lineages.insert(row.root, row)),
            Change::LineageOver(root) => drop(rows.lineages.remove(&root)),
            Change::Secret(row) => drop(rows.secrets.insert(row.name.clone(), *row)),
            Change::SecretGone(name) => drop(rows.secrets.remove(&*name)),
            Change::Cache(row) => drop(rows.caches.insert(row.name.clone(), *row)),
            Change::CacheGone(name) => drop(rows.caches.remove(&*name)),
            Change::Reuse(row) => drop(rows.reuse.insert(row.name.clone(), *row)),
            Change::ReuseOver(name) => drop(rows.reuse.remove(&*name)),
            Change::ReuseGone(row) => drop(rows.reuse_gone.insert(row.name.clone(), *row)),
            Change::ReuseGoneOver(name) => drop(rows.reuse_gone.remove(&*name)),
            Change::AnnotationText { annotation, text, append, build: _ } => {
                let known = self.annotations.entry(annotation).or_default();
                if !append {
                    known.clear();
                }
                known.push_str(&text);
            }
            Change::AnnotationGone(id) => drop(self.annotations.remove(&id)),
            Change::Idempotency(row) => drop(rows.idempotency.insert(row.key.clone(), row)),
            Change::Audit(row) => self.audits.push(row),
            Change::Event(row) => self.events.push(row),
            Change::Artifact(row) => drop(self.artifacts.insert(row.id, *row)),
            Change::Notification(row) => {
                if row.state.is_final() {
                    rows.notifications.remove(&row.id);
                } else {
                    rows.notifications.insert(row.id, (*row).clone());
                }
                self.notifications.insert(row.id, *row);
            }
            Change::Definition { digest, text } => drop(self.definitions.insert(digest, text)),
        }
    }

    /// What a core needs to start: everything but history.
    #[must_use]
    pub fn load(&self) -> Rows {
        let mut rows = self.rows.clone();
        rows.builds.retain(|_, build| !build.state.is_final());
        let live = &rows.builds;
        rows.jobs.retain(|_, job| live.contains_key(&job.build));
        rows.attempts.retain(|_, attempt| live.contains_key(&attempt.build));
        rows.agents.retain(|_, agent| agent.gone.is_none());
        rows
    }

    /// A build with everything of it.
    #[must_use]
    pub fn build(&self, id: BuildId) -> Option<BuildRows> {
        let build = self.rows.builds.get(&id)?.clone();
        let mut jobs: Vec<_> = self.rows.jobs.values().filter(|job| job.build == id).cloned().collect();
        jobs.sort_by_key(|job| job.index);
        let attempts = self.rows.attempts.values().filter(|attempt| attempt.build == id).cloned().collect();
        Some(BuildRows { build, jobs, attempts })
    }
}
