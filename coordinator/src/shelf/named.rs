//! Which blobs the caches of all pipelines name: their manifests, and what stands in those.

use std::collections::{BTreeMap, HashSet};

use windlass_cache::{Fault, HeldBlob, Store, manifest};
use windlass_coordinator_core::row::{CacheName, CacheRow};
use windlass_protocol::limits::CACHE_PAGE_ROWS;
use windlass_protocol::{Digest, Namespace, Shelf};

use crate::views::Reader;

/// Blobs by the namespaces of the caches that name them.
#[derive(Debug, Default)]
pub(super) struct Named {
    by: BTreeMap<Namespace, HashSet<Digest>>,
    /// The number of the last row that was read.
    last: u64,
    /// Entries whose manifests cannot be read. They name nothing.
    damaged: Vec<(CacheName, Digest)>,
}

impl Named {
    /// Whether a cache names a blob where it is held. Asks only those that are served from there: one overlay, or all of a
    /// project for what is trusted.
    pub(super) fn needs(&self, held: &HeldBlob) -> bool {
        let Some((of, _)) = held.namespace.shelf() else { return true };
        if of.overlay.is_some() {
            return self.by.get(&of).is_some_and(|named| named.contains(&held.digest));
        }
        let readers = self.by.range(&of..).take_while(|(owner, _)| owner.project == of.project);
        readers.into_iter().any(|(_, named)| named.contains(&held.digest))
    }

    /// The entries whose manifests could not be read, since the last time.
    pub(super) fn damaged(&mut self) -> Vec<(CacheName, Digest)> {
        std::mem::take(&mut self.damaged)
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
                let (store, name, manifest) = (store.clone(), row.name.clone(), row.manifest);
                let digests = tokio::task::spawn_blocking(move || named_by(&store, &row));
                match digests.await.map_err(|error| error.to_string())? {
                    Ok(digests) => self.by.entry(name.namespace).or_default().extend(digests),
                    Err(Unread::Damaged(why)) => {
                        tracing::warn!(namespace = %name.namespace, key = name.key, %manifest, why, "cache_damaged");
                        self.damaged.push((name, manifest));
                    }
                    Err(Unread::NotNow(why)) => return Err(why),
                }
            }
        }
    }
}

/// Why it is not known what a cache names.
enum Unread {
    /// Its manifest is gone, or its bytes are none: nobody can be served it, today or later.
    Damaged(String),
    /// The machine cannot read anything for the moment.
    NotNow(String),
}

impl Unread {
    fn of(fault: &Fault) -> Self {
        const EIO: i32 = 5;
        match fault {
            // Of one file, and no matter of what the process has open: bad sectors, and bytes that are not what they were.
            Fault::Io { source, .. } if source.raw_os_error().is_none_or(|code| code == EIO) => {
                Self::Damaged(fault.to_string())
            }
            Fault::Damaged { .. } => Self::Damaged(fault.to_string()),
            Fault::Io { .. }
            | Fault::DiskFull { .. }
            | Fault::NoSpace { .. }
            | Fault::InUse { .. }
            | Fault::Poisoned { .. }
            | Fault::Unavailable { .. }
            | Fault::Lost { .. } => Self::NotNow(fault.to_string()),
        }
    }
}

/// What one cache names.
fn named_by(store: &Store, row: &CacheRow) -> Result<Vec<Digest>, Unread> {
    let (manifest, on) = (&row.manifest, row.name.namespace.on(Shelf::Caches));
    let blob = store.get(&on, manifest).map_err(|fault| Unread::of(&fault))?;
    let blob = blob.ok_or_else(|| Unread::Damaged("its manifest is gone".to_owned()))?;
    let text = blob.into_vec().map_err(|fault| Unread::of(&fault))?;
    let blobs = manifest::blobs(&text).map_err(|bad| Unread::Damaged(bad.to_string()))?;
    Ok(blobs.into_iter().map(|(digest, _)| digest).chain([*manifest]).collect())
}
