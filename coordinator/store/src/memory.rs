//! The double for tests: a store in memory with the same fence, the same numbering, and faults on demand.
//!
//! Clones share what is stored, so that a test can drop a store and open "the same disk" again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_coordinator_core::row::{
    AgentRow, Annotation, ArtifactRow, AttemptRow, AuditRow, BuildRow, BuildRows, CacheName, CacheRow, Change,
    EventRow, NotificationRow, PinRow, ReuseRow, Rows,
};
use windlass_protocol::{AnnotationId, ArtifactId, AttemptId, BuildId, Digest, JobId, Namespace, TokenId, limits};

use crate::fault::Fault;
use crate::store::{
    ArtifactFilter, BuildFilter, Cursor, EventSeq, Expired, History, Page, PinGround, Pinned, Retention, Seq, Space,
    Store, StoredEvent, WriterEpoch, in_order,
};

/// A store that forgets everything when its last clone is dropped.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    memory: Arc<Mutex<Memory>>,
}

/// Reads what a [`MemoryStore`] holds.
#[derive(Debug, Clone, Default)]
pub struct MemoryHistory {
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Clone, Default)]
struct Memory {
    /// Everything, finished builds and gone agents too.
    rows: Rows,
    /// Builds in the order of their submits.
    order: Vec<BuildId>,
    events: BTreeMap<(BuildId, EventSeq), StoredEvent>,
    /// Numbered, so that pages go on where they were although older lines are deleted.
    audit: Vec<(u64, AuditRow)>,
    audited: u64,
    definitions: BTreeMap<Digest, String>,
    /// Numbered, as the audit trail is.
    artifacts: Vec<(u64, ArtifactRow)>,
    added: u64,
    annotations: BTreeMap<AnnotationId, (BuildId, String)>,
    /// In the order of their making, those that are over too.
    notifications: Vec<NotificationRow>,
    /// Caches by the numbers of their rows.
    caches: BTreeMap<u64, CacheName>,
    saved: u64,
    /// Pins by the order of their making.
    pins: BTreeMap<u64, BuildId>,
    pinned: u64,
    /// Of attempts that are no more; somebody refers to their logs.
    kept_logs: BTreeSet<AttemptId>,
    seq: Seq,
    fence: WriterEpoch,
    low: bool,
    faults: VecDeque<Fault>,
    commits: Vec<usize>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the same rows.
    #[must_use]
    pub fn history(&self) -> MemoryHistory {
        MemoryHistory { memory: Arc::clone(&self.memory) }
    }

    /// The next call that writes or loads fails so, and changes nothing. More calls, more faults, in order.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// What [`Store::space`] answers.
    pub fn set_low(&self, low: bool) {
        self.lock().low = low;
    }

    /// How many changes each commit had, oldest first.
    #[must_use]
    pub fn commits(&self) -> Vec<usize> {
        self.lock().commits.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn fail(&mut self) -> Result<(), Fault> {
        self.faults.pop_front().map_or(Ok(()), Err)
    }

    fn fenced(&self, epoch: WriterEpoch) -> Result<(), Fault> {
        if epoch == self.fence { Ok(()) } else { Err(Fault::Fenced { held: self.fence, got: epoch }) }
    }

    fn put_pin(&mut self, row: &PinRow) {
        if self.rows.pins.insert(row.build, row.clone()).is_none() {
            self.pinned += 1;
            self.pins.insert(self.pinned, row.build);
        }
    }

    fn delete_pin(&mut self, build: BuildId) {
        self.rows.pins.remove(&build);
        self.rows.pinned_results.retain(|(of, _)| *of != build);
        self.pins.retain(|_, of| *of != build);
    }

    fn put_event(&mut self, row: &EventRow, place: &mut u32) {
        let seq = EventSeq::new(self.seq, *place);
        *place += 1;
        self.events.insert((row.build, seq), StoredEvent { seq, row: row.clone() });
    }

    fn pin_of(&self, build: BuildId) -> Option<Pinned> {
        let row = self.rows.pins.get(&build)?.clone();
        let results = self.rows.pinned_results.iter().filter(|(of, _)| *of == build).count() as u64;
        Some(Pinned { row, results })
    }

    /// An artifact as readers see it.
    fn held(&self, row: &ArtifactRow) -> ArtifactRow {
        row.clone().held_by(self.rows.pins.get(&row.build))
    }

    fn whole_build(&self, id: BuildId) -> Option<BuildRows> {
        let build = self.rows.builds.get(&id).cloned()?;
        let mut jobs: Vec<_> = self.rows.jobs.values().filter(|job| job.build == id).cloned().collect();
        jobs.sort_by_key(|job| job.index);
        let attempts = self.rows.attempts.values().filter(|attempt| attempt.build == id).cloned().collect();
        Some(BuildRows { build, jobs, attempts })
    }

    fn put_reuse(&mut self, row: &ReuseRow) {
        if row.from.fleet.is_some() {
            // No attempt of here has made it, whose going would ask for it.
            self.kept_logs.insert(row.from.attempt);
        }
        self.rows.reuse.insert(row.name.clone(), row.clone());
    }

    fn apply(&mut self, change: &Change, place: &mut u32) {
        match change {
            Change::Meta(row) => self.rows.meta = *row,
            Change::PipelineNumber { pipeline, last } => {
                self.rows.pipeline_numbers.insert(pipeline.clone(), *last);
            }
            Change::Pipeline(row) => {
                let before = self.rows.pipelines.insert(row.name.clone(), (**row).clone());
                if let Some(definition) = before.and_then(|before| before.definition) {
                    self.delete_definition(definition);
                }
            }
            Change::Build(row) => {
                if self.rows.builds.insert(row.id, (**row).clone()).is_none() {
                    self.order.push(row.id);
                }
            }
            Change::Job(row) => drop(self.rows.jobs.insert(row.id, (**row).clone())),
            Change::Attempt(row) => drop(self.rows.attempts.insert(row.id, (**row).clone())),
            Change::Pool(row) => drop(self.rows.pools.insert(row.name.clone(), (**row).clone())),
            Change::Agent(row) => drop(self.rows.agents.insert(row.id, (**row).clone())),
            Change::Token(row) => drop(self.rows.tokens.insert(row.id, (**row).clone())),
            Change::TokenOver(id) => drop(self.rows.tokens.remove(id)),
            Change::Pin(row) => self.put_pin(row),
            Change::PinResult { build, key } => drop(self.rows.pinned_results.insert((*build, *key))),
            Change::PinOver(build) => self.delete_pin(*build),
            Change::Hold(row) => drop(self.rows.holds.insert(row.job, row.clone())),
            Change::HoldOver(job) => drop(self.rows.holds.remove(job)),
            Change::Schedule(row) => drop(self.rows.schedules.insert(row.id, (**row).clone())),
            Change::ScheduleOver(id) => drop(self.rows.schedules.remove(id)),
            Change::Lineage(row) => drop(self.rows.lineages.insert(row.root, *row)),
            Change::LineageOver(root) => drop(self.rows.lineages.remove(root)),
            Change::Secret(row) => drop(self.rows.secrets.insert(row.name.clone(), (**row).clone())),
            Change::SecretGone(name) => drop(self.rows.secrets.remove(name)),
            Change::Cache(row) => {
                if self.rows.caches.insert(row.name.clone(), (**row).clone()).is_none() {
                    self.saved += 1;
                    self.caches.insert(self.saved, row.name.clone());
                }
            }
            Change::CacheGone(name) => {
                self.rows.caches.remove(name);
                self.caches.retain(|_, other| *other != **name);
            }
            Change::Reuse(row) => self.put_reuse(row),
            Change::ReuseOver(name) => drop(self.rows.reuse.remove(name)),
            Change::ReuseGone(row) => drop(self.rows.reuse_gone.insert(row.name.clone(), (**row).clone())),
            Change::ReuseGoneOver(name) => drop(self.rows.reuse_gone.remove(name)),
            Change::Idempotency(row) => drop(self.rows.idempotency.insert(row.key.clone(), row.clone())),
            Change::Audit(row) => {
                self.audited += 1;
                self.audit.push((self.audited, row.clone()));
            }
            Change::Event(row) => self.put_event(row, place),
            Change::Artifact(row) => {
                self.added += 1;
                self.artifacts.push((self.added, (**row).clone()));
            }
            Change::AnnotationText { annotation, build, text, append } => {
                self.put_text(*annotation, *build, text, *append);
            }
            Change::AnnotationGone(id) => drop(self.annotations.remove(id)),
            Change::Notification(row) => match self.notifications.iter_mut().find(|known| known.id == row.id) {
                Some(known) => known.clone_from(row),
                None => self.notifications.push((**row).clone()),
            },
            Change::Definition { digest, text } => {
                self.definitions.entry(*digest).or_insert_with(|| text.clone());
            }
        }
    }

    fn put_text(&mut self, annotation: AnnotationId, build: BuildId, text: &str, append: bool) {
        let (_, known) = self.annotations.entry(annotation).or_insert_with(|| (build, String::new()));
        if !append {
            known.clear();
        }
        known.push_str(text);
    }

    /// What a core needs: builds that have not ended, agents that are not gone.
    fn live(&self) -> Rows {
        let mut rows = self.rows.clone();
        rows.builds.retain(|_, build| !build.state.is_final());
        let Rows { builds, jobs, attempts, agents, .. } = &mut rows;
        jobs.retain(|_, job| builds.contains_key(&job.build));
        attempts.retain(|_, attempt| builds.contains_key(&attempt.build));
        agents.retain(|_, agent| agent.gone.is_none());
        let waiting = self.notifications.iter().filter(|row| row.finished_at.is_none());
        rows.notifications = waiting.map(|row| (row.id, row.clone())).collect();
        rows
    }

    fn delete_build(&mut self, id: BuildId, expired: &mut Expired) {
        let Some(build) = self.rows.builds.remove(&id) else { return };
        let attempts: Vec<_> = self.rows.attempts.extract_if(.., |_, attempt| attempt.build == id).collect();
        let (kept, gone): (Vec<_>, Vec<_>) =
            attempts.into_iter().map(|(id, _)| id).partition(|id| self.is_referred(*id));
        self.kept_logs.extend(kept);
        expired.attempts.extend(gone);
        self.order.retain(|other| *other != id);
        self.rows.jobs.retain(|_, job| job.build != id);
        self.events.retain(|(build, _), _| *build != id);
        self.artifacts.retain(|(_, row)| row.build != id);
        self.annotations.retain(|_, (build, _)| *build != id);
        self.notifications.retain(|row| row.build != id || row.finished_at.is_none());
        expired.builds.push(id);
        if self.delete_definition(build.definition) {
            expired.definitions.push(build.definition);
        }
    }

    /// Whether an entry or another attempt refers to an attempt's log.
    fn is_referred(&self, id: AttemptId) -> bool {
        let refers = |row: &AttemptRow| row.reused.as_ref().is_some_and(|from| from.attempt == id);
        self.rows.reuse.values().any(|row| row.from.attempt == id) || self.rows.attempts.values().any(refers)
    }

    /// Deletes a pipeline's text if nobody names it any more.
    fn delete_definition(&mut self, digest: Digest) -> bool {
        let named = self.rows.builds.values().any(|build| build.definition == digest)
            || self.rows.pipelines.values().any(|pipeline| pipeline.definition == Some(digest));
        !named && self.definitions.remove(&digest).is_some()
    }
}

impl Store for MemoryStore {
    fn claim(&mut self) -> Result<WriterEpoch, Fault> {
        let mut memory = self.lock();
        memory.fail()?;
        memory.fence = WriterEpoch(memory.fence.0 + 1);
        Ok(memory.fence)
    }

    fn load(&mut self) -> Result<Rows, Fault> {
        let mut memory = self.lock();
        memory.fail()?;
        Ok(memory.live())
    }

    fn seq(&mut self) -> Result<Seq, Fault> {
        Ok(self.lock().seq)
    }

    fn commit(&mut self, epoch: WriterEpoch, changes: &[Change]) -> Result<Seq, Fault> {
        let mut memory = self.lock();
        memory.fenced(epoch)?;
        if changes.is_empty() {
            return Ok(memory.seq);
        }
        memory.fail()?;
        memory.seq = Seq(memory.seq.0 + 1);
        let mut place = 0;
        for change in changes {
            memory.apply(change, &mut place);
        }
        memory.commits.push(changes.len());
        Ok(memory.seq)
    }

    fn expire(&mut self, epoch: WriterEpoch, retention: Retention) -> Result<Expired, Fault> {
        let mut memory = self.lock();
        memory.fenced(epoch)?;
        memory.fail()?;
        memory.rows.idempotency.retain(|_, row| row.at >= retention.idempotency_before);
        let (agents, audit, artifacts) = (memory.rows.agents.len(), memory.audit.len(), memory.artifacts.len());
        let Memory { artifacts: all, rows: Rows { pins, .. }, .. } = &mut *memory;
        all.retain(|(_, row)| row.expires_at > retention.artifacts_at || pins.contains_key(&row.build));
        memory.rows.agents.retain(|_, row| row.gone.is_none() || row.gone_since() >= retention.agents_before);
        memory.audit.retain(|(_, row)| row.at >= retention.audit_before);
        let notifications = memory.notifications.len();
        memory.notifications.retain(|row| row.finished_at.is_none_or(|at| at >= retention.notifications_before));
        let mut ended: Vec<_> = (memory.rows.builds.values())
            .filter(|build| build.state.is_final() && !memory.rows.pins.contains_key(&build.id))
            .filter_map(|build| Some((build.finished_at?, build.id)))
            .filter(|(finished_at, _)| *finished_at < retention.builds_before)
            .collect();
        ended.sort_unstable();
        let mut expired = Expired {
            agents: agents - memory.rows.agents.len(),
            audit_lines: audit - memory.audit.len(),
            artifacts: artifacts - memory.artifacts.len(),
            notifications: notifications - memory.notifications.len(),
            more: ended.len() > retention.max_builds,
            ..Expired::default()
        };
        let going: Vec<_> = memory.kept_logs.iter().copied().filter(|id| !memory.is_referred(*id)).collect();
        memory.kept_logs.retain(|id| !going.contains(id));
        expired.attempts.extend(going);
        for (_, id) in ended.into_iter().take(retention.max_builds) {
            memory.delete_build(id, &mut expired);
        }
        Ok(expired)
    }

    fn space(&mut self) -> Space {
        if self.lock().low { Space::Low } else { Space::Enough }
    }
}

impl MemoryHistory {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page of what is numbered from 1 in its order, newest first.
fn page<T>(newest_first: impl Iterator<Item = (u64, T)>, after: Option<Cursor>, limit: usize) -> Page<T> {
    let limit = limit.clamp(1, limits::PAGE_MAX_ITEMS);
    let from = after.map_or(u64::MAX, |cursor| cursor.0);
    let mut found: Vec<_> = newest_first.filter(|(number, _)| *number < from).take(limit + 1).collect();
    let more = found.len() > limit;
    found.truncate(limit);
    let next = if more { found.last().map(|(number, _)| Cursor(*number)) } else { None };
    Page { items: found.into_iter().map(|(_, item)| item).collect(), next }
}

impl History for MemoryHistory {
    fn seq(&self) -> Result<Seq, Fault> {
        Ok(self.lock().seq)
    }

    fn build(&self, id: BuildId) -> Result<Option<BuildRows>, Fault> {
        Ok(self.lock().whole_build(id))
    }

    fn some_jobs(&self, id: BuildId, jobs: &[JobId]) -> Result<Option<BuildRows>, Fault> {
        let memory = self.lock();
        let Some(build) = memory.rows.builds.get(&id).cloned() else { return Ok(None) };
        let asked: Vec<_> =
            jobs.iter().filter_map(|job| memory.rows.jobs.get(job)).filter(|job| job.build == id).collect();
        let needed: BTreeSet<u32> = asked.iter().flat_map(|job| &job.node.depends_on).map(|edge| edge.node).collect();
        let others = memory.rows.jobs.values().filter(|job| job.build == id && needed.contains(&job.index));
        let jobs: BTreeMap<_, _> = asked.iter().copied().chain(others).map(|job| (job.index, job.clone())).collect();
        let attempts: BTreeSet<_> = asked.iter().flat_map(|job| &job.attempts).collect();
        let attempts = attempts.into_iter().filter_map(|id| memory.rows.attempts.get(id)).cloned().collect();
        Ok(Some(BuildRows { build, jobs: jobs.into_values().collect(), attempts }))
    }

    fn build_by_number(&self, pipeline: &str, number: u64) -> Result<Option<BuildId>, Fault> {
        let memory = self.lock();
        let mut builds = memory.rows.builds.values();
        Ok(builds.find(|build| build.pipeline == pipeline && build.number == number).map(|build| build.id))
    }

    fn builds(&self, filter: &BuildFilter, after: Option<Cursor>, limit: usize) -> Result<Page<BuildRow>, Fault> {
        let memory = self.lock();
        let numbered = (1_u64..).zip(&memory.order).collect::<Vec<_>>();
        let found = numbered.into_iter().rev().filter_map(|(number, id)| {
            let build = memory.rows.builds.get(id).filter(|build| filter.matches(build))?;
            Some((number, build.clone()))
        });
        Ok(page(found, after, limit))
    }

    fn job_build(&self, job: JobId) -> Result<Option<BuildId>, Fault> {
        Ok(self.lock().rows.jobs.get(&job).map(|job| job.build))
    }

    fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, Fault> {
        Ok(self.lock().rows.attempts.get(&id).cloned())
    }

    fn events(&self, build: BuildId, after: EventSeq, limit: usize) -> Result<Vec<StoredEvent>, Fault> {
        let memory = self.lock();
        let from = (build, EventSeq(after.0.saturating_add(1)));
        let found = memory.events.range(from..=(build, EventSeq(u64::MAX))).map(|(_, event)| event.clone());
        Ok(found.take(limit.clamp(1, limits::WATCHER_BUFFER_MAX)).collect())
    }

    fn annotations(&self, id: BuildId) -> Result<Vec<(Annotation, String)>, Fault> {
        let memory = self.lock();
        let Some(build) = memory.rows.builds.get(&id).cloned() else { return Ok(Vec::new()) };
        let own = memory.annotations.iter().filter(|(_, (build, _))| *build == id);
        Ok(in_order(build, own.map(|(annotation, (_, text))| (*annotation, text.clone())).collect()))
    }

    fn audit(&self, after: Option<Cursor>, limit: usize) -> Result<Page<AuditRow>, Fault> {
        let memory = self.lock();
        Ok(page(memory.audit.iter().rev().cloned(), after, limit))
    }

    fn agents_of(&self, token: TokenId, limit: usize) -> Result<Vec<AgentRow>, Fault> {
        let memory = self.lock();
        let found = memory.rows.agents.values().rev().filter(|agent| agent.token == token).cloned();
        Ok(found.take(limit.clamp(1, limits::AGENTS_OF_TOKEN_MAX)).collect())
    }

    fn artifacts(
        &self,
        filter: &ArtifactFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<ArtifactRow>, Fault> {
        let memory = self.lock();
        let place = |id| memory.artifacts.iter().find(|(_, row)| row.id == id).map_or(0, |(number, _)| *number);
        let below = filter.before.map_or(u64::MAX, place);
        let all = memory.artifacts.iter().rev().map(|(number, row)| (*number, memory.held(row)));
        Ok(page(all.filter(|(number, row)| *number < below && filter.matches(row)), after, limit))
    }

    fn artifact(&self, id: ArtifactId) -> Result<Option<ArtifactRow>, Fault> {
        let memory = self.lock();
        Ok(memory.artifacts.iter().find(|(_, row)| row.id == id).map(|(_, row)| memory.held(row)))
    }

    fn notifications(
        &self,
        build: BuildId,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<NotificationRow>, Fault> {
        let memory = self.lock();
        let numbered: Vec<_> = (1_u64..).zip(memory.notifications.iter().cloned()).collect();
        Ok(page(numbered.into_iter().rev().filter(|(_, row)| row.build == build), after, limit))
    }

    fn naming(&self, digest: Digest) -> Result<BTreeSet<Namespace>, Fault> {
        let memory = self.lock();
        let naming = memory.artifacts.iter().filter(|(_, row)| row.digest == digest);
        let entries = memory.rows.reuse.values().filter(|row| row.outputs.iter().any(|it| it.digest == digest));
        let entries = entries.map(|row| row.name.namespace.clone());
        Ok(naming.map(|(_, row)| row.namespace.clone()).chain(entries).collect())
    }

    fn caches(&self, after: u64, limit: usize) -> Result<Vec<(u64, CacheRow)>, Fault> {
        let memory = self.lock();
        let numbered = memory.caches.range(after.saturating_add(1)..);
        let found = numbered.filter_map(|(number, name)| Some((*number, memory.rows.caches.get(name)?.clone())));
        Ok(found.take(limit.clamp(1, limits::PAGE_MAX_ITEMS)).collect())
    }

    fn newest_caches(
        &self,
        pipeline: Option<String>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<(u64, CacheRow)>, Fault> {
        let memory = self.lock();
        let named = memory.caches.iter().rev();
        let all = named.filter_map(|(number, name)| Some((*number, (*number, memory.rows.caches.get(name)?.clone()))));
        let of = |row: &CacheRow| pipeline.as_ref().is_none_or(|only| *only == row.name.namespace.project);
        Ok(page(all.filter(|(_, (_, row))| of(row)), after, limit))
    }

    fn cache(&self, number: u64) -> Result<Option<CacheRow>, Fault> {
        let memory = self.lock();
        Ok(memory.caches.get(&number).and_then(|name| memory.rows.caches.get(name)).cloned())
    }

    fn pins(&self, pipeline: Option<&str>, after: Option<Cursor>, limit: usize) -> Result<Page<Pinned>, Fault> {
        let memory = self.lock();
        let all = memory.pins.iter().rev().filter_map(|(number, build)| Some((*number, memory.pin_of(*build)?)));
        Ok(page(all.filter(|(_, pin)| pipeline.is_none_or(|only| only == pin.row.pipeline)), after, limit))
    }

    fn pin(&self, build: BuildId) -> Result<Option<Pinned>, Fault> {
        Ok(self.lock().pin_of(build))
    }

    fn pin_ground(&self, build: BuildId) -> Result<Option<PinGround>, Fault> {
        let memory = self.lock();
        let Some(rows) = memory.whole_build(build) else { return Ok(None) };
        let own = memory.artifacts.iter().filter(|(_, row)| row.build == build);
        let (files, bytes) = own.fold((0, 0), |(files, bytes), (_, row)| (files + 1, bytes + row.bytes));
        Ok(Some(PinGround { rows, files, bytes, pin: memory.pin_of(build) }))
    }

    fn definition(&self, digest: Digest) -> Result<Option<String>, Fault> {
        Ok(self.lock().definitions.get(&digest).cloned())
    }
}
