//! Caches of jobs: found by those that may read them, and noted once their bytes are on the shelf (docs/design/026).

use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{AttemptRow, CacheRequest, CacheRow};
use windlass_protocol::job::Epoch;
use windlass_protocol::message::{AskRefused, CacheQuery, FoundCache, NewCache, Told};

use super::{CoreJobDesk, No, actor};

impl CoreJobDesk {
    /// The cache that a job may have.
    pub(super) async fn find_cache(&self, attempt: &AttemptRow, epoch: Epoch, query: CacheQuery) -> Result<Told, No> {
        let CacheQuery { scope, key, restore_keys } = query;
        self.ask_of_caches(attempt, CacheRequest::Find { attempt: attempt.id, epoch, scope, key, restore_keys }).await
    }

    /// Notes what a job has stored. Its blobs stay from before the look at them until the row is durable.
    pub(super) async fn save_cache(&self, attempt: &AttemptRow, epoch: Epoch, new: NewCache) -> Result<Told, No> {
        let rows = self.reader.some_jobs(attempt.build, Vec::new()).await?;
        let namespace =
            rows.ok_or_else(|| No(AskRefused::NotFound, "the build is no more".to_owned()))?.build.namespace;
        let NewCache { scope, key, manifest, manifest_bytes } = new;
        let (kept, files, bytes) = self.shelves.keep_cache(&namespace, (manifest, manifest_bytes)).await?;
        let request =
            CacheRequest::Save { attempt: attempt.id, epoch, scope, key, manifest, manifest_bytes, files, bytes };
        let told = self.ask_of_caches(attempt, request).await?;
        drop(kept);
        Ok(told)
    }

    async fn ask_of_caches(&self, attempt: &AttemptRow, request: CacheRequest) -> Result<Told, No> {
        match self.desk.request(actor(attempt), Request::Cache(Box::new(request))).await? {
            Reply::Cache(row) => Ok(Told::Cache(row.map(|row| Box::new(found(*row))))),
            Reply::Done
            | Reply::Secrets(_)
            | Reply::Submitted { .. }
            | Reply::Token { .. }
            | Reply::Joined { .. }
            | Reply::Pinned { .. }
            | Reply::Unpinned { .. }
            | Reply::Drained { .. } => Err(No(AskRefused::Unavailable, "the core answered something else".to_owned())),
        }
    }
}

fn found(row: CacheRow) -> FoundCache {
    let CacheRow { name, manifest, manifest_bytes, files, bytes, created_at, .. } = row;
    FoundCache { key: name.key, manifest, manifest_bytes, files, bytes, created_at }
}
