//! Which blobs the caches of all pipelines name: their manifests, and what stands in those.

use std::collections::{BTreeMap, HashSet};

use windlass_cache::{HeldBlob, Store, manifest};
use windlass_coordinator_core::row::CacheRow;
use windlass_protocol::limits::CACHE_PAGE_ROWS;
use windlass_protocol::{Digest, Namespace, Shelf};

use super::needs;
use crate::views::Reader;

/// Blobs by the namespaces of the caches that name them.
#[derive(Debug, Default)]
pub(super) struct Named {
    by: BTreeMap<Namespace, HashSet<Digest>>,
    /// The number of the last row that was read.
    last: u64,
}

impl Named {
    /// Whether a cache names a blob where it is held.
    pub(super) fn needs(&self, held: &HeldBlob) -> bool {
        let naming = self.by.iter().filter(|(_, named)| named.contains(&held.digest));
        naming.into_iter().any(|(owner, _)| needs(owner, &held.namespace))
    }

    /// Reads the manifests of caches that were saved since the last time. Those that are let go meanwhile name their blobs
    /// until the next look.
    ///
    /// # Errors
    /// In words: then nothing may be let go.
    pub(super) async fn read_new(&mut self, store: &Store, reader: &Reader) -> Result<(), String> {
        loop {
            let rows = reader.caches(self.last, CACHE_PAGE_ROWS).await.map_err(|error| error.to_string())?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            self.last = *last;
            for (_, row) in rows {
                let (store, owner) = (store.clone(), row.name.namespace.clone());
                let digests = tokio::task::spawn_blocking(move || named_by(&store, &row));
                let digests = digests.await.map_err(|error| error.to_string())??;
                self.by.entry(owner).or_default().extend(digests);
            }
        }
    }
}

/// What one cache names. Nobody can be served one whose manifest is gone: it names nothing more.
fn named_by(store: &Store, row: &CacheRow) -> Result<Vec<Digest>, String> {
    let (CacheRow { name, manifest, .. }, on) = (row, row.name.namespace.on(Shelf::Caches));
    let Some(blob) = store.get(&on, manifest).map_err(|error| error.to_string())? else {
        tracing::warn!(namespace = %name.namespace, key = name.key, %manifest, "cache_without_manifest");
        return Ok(Vec::new());
    };
    let text = blob.into_vec().map_err(|error| error.to_string())?;
    let blobs = manifest::blobs(&text).map_err(|error| format!("{manifest}: {error}"))?;
    Ok(blobs.into_iter().map(|(digest, _)| digest).chain([*manifest]).collect())
}
