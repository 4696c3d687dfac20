//! What one input changed: rows that must be written, each once however often it changed, and what may be said after.

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{AgentId, AttemptId, BuildId, Digest, JobId, ScheduleId, TokenId};

use crate::effect::Effect;
use crate::row::{
    ArtifactRow, AttemptRow, AuditRow, CacheName, Change, EventRow, IdempotencyRow, NotificationRow, ReuseName,
    SecretName,
};
use crate::standing::StepTally;
use crate::state::Core;
use crate::subject::Subject;

/// Collected while an input is handled, emptied into effects at its end.
#[derive(Debug, Default)]
pub(crate) struct Logbook {
    pub(crate) definitions: Vec<(Digest, String)>,
    pub(crate) numbers: BTreeSet<String>,
    pub(crate) pipelines: BTreeSet<String>,
    pub(crate) pools: BTreeSet<String>,
    pub(crate) tokens: BTreeSet<TokenId>,
    pub(crate) agents: BTreeSet<AgentId>,
    pub(crate) builds: BTreeSet<BuildId>,
    pub(crate) jobs: BTreeSet<JobId>,
    pub(crate) attempts: BTreeSet<AttemptId>,
    pub(crate) holds: BTreeSet<JobId>,
    pub(crate) schedules: BTreeSet<ScheduleId>,
    pub(crate) lineages: BTreeSet<BuildId>,
    pub(crate) secrets: BTreeSet<SecretName>,
    pub(crate) caches: BTreeSet<CacheName>,
    pub(crate) reuse: BTreeSet<ReuseName>,
    pub(crate) reuse_gone: BTreeSet<ReuseName>,
    pub(crate) pins: BTreeSet<BuildId>,
    /// Results that pins hold from now on.
    pub(crate) pinned_results: BTreeSet<(BuildId, Digest)>,
    pub(crate) meta: bool,
    /// Texts of annotations, in order.
    pub(crate) texts: Vec<Change>,
    pub(crate) idempotency: Vec<IdempotencyRow>,
    pub(crate) audits: Vec<AuditRow>,
    pub(crate) events: Vec<EventRow>,
    pub(crate) artifacts: Vec<ArtifactRow>,
    /// In the order of their making; one that changed stands there again.
    pub(crate) notifications: Vec<NotificationRow>,
    /// Steps and groups that somebody hears of, with what the sum of their jobs was before.
    pub(crate) subjects: BTreeMap<(BuildId, Subject), StepTally>,
    /// Rows of attempts whose builds have left memory.
    pub(crate) old_attempts: Vec<AttemptRow>,
    /// Builds that may have changed state.
    pub(crate) touched: BTreeSet<BuildId>,
    /// Builds that have ended and leave memory.
    pub(crate) ended: BTreeSet<BuildId>,
    /// Agents that left for good.
    pub(crate) departed: BTreeSet<AgentId>,
    /// What is said once the changes are durable.
    pub(crate) out: Vec<Effect>,
}

impl Core {
    /// Turns the logbook into effects: first every change, then what speaks of them (I1).
    pub(crate) fn flush(&mut self) {
        let book = std::mem::take(&mut self.book);
        let mut changes: Vec<Change> = Vec::new();
        changes.extend(book.definitions.into_iter().map(|(digest, text)| Change::Definition { digest, text }));
        for pipeline in book.numbers {
            let last = self.numbers.get(&pipeline).copied().unwrap_or_default();
            changes.push(Change::PipelineNumber { pipeline, last });
        }
        let pipelines = book.pipelines.iter().filter_map(|name| self.pipelines.get(name));
        changes.extend(pipelines.map(|row| Change::Pipeline(Box::new(row.clone()))));
        let pools = book.pools.iter().filter_map(|name| self.pools.get(name));
        changes.extend(pools.map(|row| Change::Pool(Box::new(row.clone()))));
        changes.extend(book.tokens.iter().map(|id| match self.tokens.get(id) {
            Some(row) => Change::Token(Box::new(row.clone())),
            None => Change::TokenOver(*id),
        }));
        let agents = book.agents.iter().filter_map(|id| self.agents.get(id));
        changes.extend(agents.map(|agent| Change::Agent(Box::new(agent.row.clone()))));
        let builds = book.builds.iter().filter_map(|id| self.builds.get(id));
        changes.extend(builds.map(|build| Change::Build(Box::new(build.row.clone()))));
        let jobs = book.jobs.iter().filter_map(|id| self.jobs.get(id));
        changes.extend(jobs.map(|job| Change::Job(Box::new(job.row.clone()))));
        let attempts = book.attempts.iter().filter_map(|id| self.attempts.get(id));
        changes.extend(attempts.map(|row| Change::Attempt(Box::new(row.clone()))));
        changes.extend(book.old_attempts.into_iter().map(|row| Change::Attempt(Box::new(row))));
        changes.extend(book.holds.iter().map(|id| match self.holds.get(id) {
            Some(row) => Change::Hold(row.clone()),
            None => Change::HoldOver(*id),
        }));
        changes.extend(book.schedules.iter().map(|id| match self.schedules.rows.get(id) {
            Some(row) => Change::Schedule(Box::new(row.clone())),
            None => Change::ScheduleOver(*id),
        }));
        changes.extend(book.lineages.iter().map(|root| match self.lineages.get(root) {
            Some(row) => Change::Lineage(*row),
            None => Change::LineageOver(*root),
        }));
        // What no pin holds any more may go in the same commit.
        changes.extend(self.changes_of_pins(&book.pins, book.pinned_results));
        changes.extend(self.changes_by_name(book.secrets, book.caches, (book.reuse, book.reuse_gone)));
        if book.meta {
            changes.push(Change::Meta(self.meta));
        }
        changes.extend(book.texts);
        changes.extend(book.idempotency.into_iter().map(Change::Idempotency));
        changes.extend(book.audits.into_iter().map(Change::Audit));
        changes.extend(book.events.into_iter().map(Change::Event));
        changes.extend(book.artifacts.into_iter().map(|row| Change::Artifact(Box::new(row))));
        if !self.policy.bugs.forget_notification {
            changes.extend(book.notifications.into_iter().map(|row| Change::Notification(Box::new(row))));
        }
        let changes = changes.into_iter().map(Effect::Change);
        if self.policy.bugs.reply_before_commit {
            self.effects.extend(book.out);
            self.effects.extend(changes);
        } else {
            self.effects.extend(changes);
            self.effects.extend(book.out);
        }
        for build in book.ended {
            self.forget_build(build);
            self.effects.push_back(Effect::Retired(build));
        }
        for agent in book.departed {
            self.forget_agent(agent);
        }
    }

    /// Rows whose names say where they stand: secrets, caches, results.
    fn changes_by_name(
        &self,
        secrets: BTreeSet<SecretName>,
        caches: BTreeSet<CacheName>,
        (results, gone): (BTreeSet<ReuseName>, BTreeSet<ReuseName>),
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(secrets.into_iter().map(|name| match self.secrets.get(&name) {
            Some(row) => Change::Secret(Box::new(row.clone())),
            None => Change::SecretGone(Box::new(name)),
        }));
        changes.extend(caches.into_iter().map(|name| match self.caches.get(&name) {
            Some(row) => Change::Cache(Box::new(row.clone())),
            None => Change::CacheGone(Box::new(name)),
        }));
        changes.extend(results.into_iter().map(|name| match self.reuse.entries.get(&name) {
            Some(row) => Change::Reuse(Box::new(row.clone())),
            None => Change::ReuseOver(Box::new(name)),
        }));
        changes.extend(gone.into_iter().map(|name| match self.reuse.gone.get(&name) {
            Some(row) => Change::ReuseGone(Box::new(row.clone())),
            None => Change::ReuseGoneOver(Box::new(name)),
        }));
        changes
    }
}
