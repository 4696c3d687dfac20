//! Reads for the API: rows from the store, never newer than what is published, with volatile progress laid over them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use windlass_coordinator_core::row::{
    AgentRow, Annotation, ArtifactRow, AttemptRow, AuditRow, BuildRow, BuildRows, CacheRow, NotificationRow,
};
use windlass_coordinator_store::{
    ArtifactFilter, BuildFilter, Cursor, EventSeq, Fault, History, Page, PinGround, Pinned, Seq, StoredEvent,
};
use windlass_protocol::{ArtifactId, AttemptId, BuildId, Digest, JobId, Namespace, TokenId, limits};

use super::{Views, Watch};

/// Why a read gave nothing. Trying again may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// What was read is not yet published: the coordinator is loading its store again.
    #[error("the coordinator cannot answer now")]
    Unavailable,
}

/// Where blocking reads run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// On the runtime's threads for blocking work.
    #[default]
    Blocking,
    /// Here, at once: for simulations, which have one thread.
    Here,
}

/// Reads builds, running and finished alike; clones share everything.
#[derive(Debug, Clone)]
pub struct Reader {
    views: Views,
    history: Arc<dyn History>,
    offload: Offload,
}

impl Reader {
    /// Reads `history` as far as `views` has published it.
    #[must_use]
    pub fn new(views: Views, history: Arc<dyn History>, offload: Offload) -> Self {
        Self { views, history, offload }
    }

    /// Agents, pools and tokens.
    #[must_use]
    pub const fn views(&self) -> &Views {
        &self.views
    }

    /// A build with its jobs and attempts, and a commit that it is no older than: a [`Watch`] from the end of that one
    /// misses nothing, though it may repeat what is in the rows already.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn build(&self, id: BuildId) -> Result<Option<(Seq, BuildRows)>, ReadError> {
        let (seq, mut found) = self.read(move |history| history.build(id)).await?;
        if let Some(rows) = &mut found {
            self.views.read().overlay.lay_over(rows);
        }
        Ok(found.map(|rows| (seq, rows)))
    }

    /// Some jobs of a build, with what they depend on and their own attempts; without any, the build alone. What it costs
    /// does not grow with the build.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn some_jobs(&self, id: BuildId, jobs: Vec<JobId>) -> Result<Option<BuildRows>, ReadError> {
        let (_, mut found) = self.read(move |history| history.some_jobs(id, &jobs)).await?;
        if let Some(rows) = &mut found {
            self.views.read().overlay.lay_over(rows);
        }
        Ok(found)
    }

    /// A build as it is stored, without volatile progress: what a retry of a build that has left memory needs.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn stored_build(&self, id: BuildId) -> Result<Option<BuildRows>, ReadError> {
        Ok(self.read(move |history| history.build(id)).await?.1)
    }

    /// A build by its number.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn build_by_number(&self, pipeline: &str, number: u64) -> Result<Option<BuildId>, ReadError> {
        let pipeline = pipeline.to_owned();
        Ok(self.read(move |history| history.build_by_number(&pipeline, number)).await?.1)
    }

    /// Builds, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn builds(
        &self,
        filter: BuildFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<BuildRow>, ReadError> {
        Ok(self.read(move |history| history.builds(&filter, after, limit)).await?.1)
    }

    /// The build that a job belongs to.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn job_build(&self, job: JobId) -> Result<Option<BuildId>, ReadError> {
        Ok(self.read(move |history| history.job_build(job)).await?.1)
    }

    /// One attempt, without volatile progress.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, ReadError> {
        Ok(self.read(move |history| history.attempt(id)).await?.1)
    }

    /// A build's events after a number, oldest first, a bounded number of them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn events_since(&self, build: BuildId, after: EventSeq) -> Result<Vec<StoredEvent>, ReadError> {
        let limit = limits::WATCHER_BUFFER_MAX;
        Ok(self.read(move |history| history.events(build, after, limit)).await?.1)
    }

    /// A build's annotations with their texts, in the order in which they are shown.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn annotations(&self, build: BuildId) -> Result<Vec<(Annotation, String)>, ReadError> {
        Ok(self.read(move |history| history.annotations(build)).await?.1)
    }

    /// The audit trail, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn audit(&self, after: Option<Cursor>, limit: usize) -> Result<Page<AuditRow>, ReadError> {
        Ok(self.read(move |history| history.audit(after, limit)).await?.1)
    }

    /// Agents that a token admitted, newest first, those that are gone among them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn agents_of(&self, token: TokenId, limit: usize) -> Result<Vec<AgentRow>, ReadError> {
        Ok(self.read(move |history| history.agents_of(token, limit)).await?.1)
    }

    /// A build's artifacts, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn artifacts(
        &self,
        filter: ArtifactFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<ArtifactRow>, ReadError> {
        Ok(self.read(move |history| history.artifacts(&filter, after, limit)).await?.1)
    }

    /// One artifact.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn artifact(&self, id: ArtifactId) -> Result<Option<ArtifactRow>, ReadError> {
        Ok(self.read(move |history| history.artifact(id)).await?.1)
    }

    /// A build's notifications, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn notifications(
        &self,
        build: BuildId,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<NotificationRow>, ReadError> {
        Ok(self.read(move |history| history.notifications(build, after, limit)).await?.1)
    }

    /// Whose artifacts name each of these blobs.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn naming(&self, digests: Vec<Digest>) -> Result<Vec<BTreeSet<Namespace>>, ReadError> {
        let all = move |history: &dyn History| digests.iter().map(|digest| history.naming(*digest)).collect();
        Ok(self.read(all).await?.1)
    }

    /// Caches that were saved after a number, each with its own, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn caches(&self, after: u64, limit: usize) -> Result<Vec<(u64, CacheRow)>, ReadError> {
        Ok(self.read(move |history| history.caches(after, limit)).await?.1)
    }

    /// Caches of a pipeline, or of all, each with its number, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn newest_caches(
        &self,
        pipeline: Option<String>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<(u64, CacheRow)>, ReadError> {
        Ok(self.read(move |history| history.newest_caches(pipeline, after, limit)).await?.1)
    }

    /// A cache by its number.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn cache(&self, number: u64) -> Result<Option<CacheRow>, ReadError> {
        Ok(self.read(move |history| history.cache(number)).await?.1)
    }

    /// Pins of a pipeline, or of all, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn pins(
        &self,
        pipeline: Option<String>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Pinned>, ReadError> {
        Ok(self.read(move |history| history.pins(pipeline.as_deref(), after, limit)).await?.1)
    }

    /// A build's pin.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn pin(&self, build: BuildId) -> Result<Option<Pinned>, ReadError> {
        Ok(self.read(move |history| history.pin(build)).await?.1)
    }

    /// What a build has that a pin would hold, without volatile progress.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn pin_ground(&self, build: BuildId) -> Result<Option<PinGround>, ReadError> {
        Ok(self.read(move |history| history.pin_ground(build)).await?.1)
    }

    /// A pipeline's text by its digest.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn definition(&self, digest: Digest) -> Result<Option<String>, ReadError> {
        Ok(self.read(move |history| history.definition(digest)).await?.1)
    }

    /// Follows a build's events after a number, without gap or repetition, with its volatile progress between them.
    #[must_use]
    pub fn watch(&self, build: BuildId, after: EventSeq) -> Watch {
        let (_, receiver) = self.views.subscribe(build);
        Watch::new(self.clone(), build, after, receiver)
    }

    /// Reads, then waits until everything that the read can have seen is published.
    async fn read<T, W>(&self, work: W) -> Result<(Seq, T), ReadError>
    where
        T: Send + 'static,
        W: FnOnce(&dyn History) -> Result<T, Fault> + Send + 'static,
    {
        let history = Arc::clone(&self.history);
        let before = self.views.published();
        let both = move || {
            let value = work(&*history)?;
            Ok::<_, Fault>((history.seq()?, value))
        };
        let (seen, value) = match self.offload {
            Offload::Here => both()?,
            // The task fails only if the store panicked.
            Offload::Blocking => tokio::task::spawn_blocking(both).await.map_err(|_| ReadError::Unavailable)??,
        };
        self.published(seen).await?;
        Ok((before, value))
    }

    async fn published(&self, seen: Seq) -> Result<(), ReadError> {
        let mut published = self.views.published.subscribe();
        let wait = published.wait_for(|published| *published >= seen);
        match tokio::time::timeout(Duration::from_millis(limits::PUBLISH_WAIT_MS), wait).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ReadError::Unavailable),
        }
    }
}
