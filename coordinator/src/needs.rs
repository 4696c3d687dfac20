//! What the jobs of a build need of the cache: its source, the inputs of its steps, its artifacts, and the directories that were
//! in use while it ran. Looked at by its namespace alone (I12), and promised: what was found stays for a while.

use std::collections::BTreeSet;

use windlass_cache::{BadTree, Directory, Node, Store, manifest};
use windlass_coordinator_core::row::{BuildRows, JobReuse};
use windlass_coordinator_store::ArtifactFilter;
use windlass_protocol::host::now;
use windlass_protocol::job::Source;
use windlass_protocol::limits::{
    AHEAD_BLOBS_MAX, AHEAD_CACHES_LOOKED_AT, AHEAD_CACHES_MAX, BRING_BLOBS_MAX, BRING_ENTRIES_MAX, BRING_MAX_BYTES,
    BRING_TREES_MAX, PAGE_MAX_ITEMS,
};
use windlass_protocol::{Digest, Namespace, Shelf};

use crate::fleet::{Order, Part};
use crate::job_desk::attempts_of;
use crate::views::{ReadError, Reader};

/// How exactly the time of an entry's last use is known.
const USE_MS: u64 = 3_600_000;

/// What a build needs.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Root directories.
    trees: Vec<Digest>,
    /// Other blobs.
    blobs: Vec<Digest>,
    /// All of it, each blob once.
    pub(crate) count: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// What is named and not here any more.
    pub(crate) gone: u64,
    /// What people should hear.
    pub(crate) notes: Vec<String>,
}

/// Why it cannot be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unknown {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Fault(#[from] windlass_cache::Fault),
    #[error("{0} is no directory: {1}")]
    BadTree(Digest, BadTree),
    #[error("the build needs too many {what}: at most {most} are brought")]
    TooMuch { what: &'static str, most: u64 },
    #[error("the coordinator is stopping")]
    Stopping,
}

impl Needs {
    /// Finds out what a build needs.
    pub(crate) async fn of(rows: &BuildRows, reader: &Reader, store: &Store) -> Result<Self, Unknown> {
        let mut needs = Self::default();
        let (build, namespace) = (&rows.build, rows.build.namespace.clone());
        let keyed = rows.jobs.iter().filter_map(|job| job.reuse.as_ref().and_then(JobReuse::keyed));
        let sources = std::iter::once(&build.origin).chain(keyed.map(|keyed| &keyed.keyed.source));
        let trees: BTreeSet<Digest> = sources.filter_map(tree).collect();
        if let Source::Git { .. } = &build.origin {
            needs.notes.push("its source is a commit: agents fetch it with git, and it is not brought".to_owned());
        }
        let (artifacts, caches) = (artifacts(rows, reader).await?, caches(rows, reader, &mut needs).await?);
        let store = store.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let mut look = Look { store: &store, namespace, seen: BTreeSet::new(), needs };
            look.trees(trees.into_iter().collect())?;
            artifacts.iter().for_each(|digest| look.blob(digest));
            caches.iter().try_for_each(|digest| look.cache(digest))?;
            look.finish()
        });
        looking.await.map_err(|_| Unknown::Stopping)?
    }

    /// As agents are told it.
    pub(crate) fn order(&self, namespace: &Namespace) -> Order {
        let mut parts: Vec<Part> = Vec::new();
        // One tree at a time: an agent tells of each that it has it.
        parts.extend(self.trees.iter().map(|tree| Part { trees: vec![*tree], blobs: vec![] }));
        parts.extend(self.blobs.chunks(BRING_BLOBS_MAX).map(|blobs| Part { trees: vec![], blobs: blobs.to_vec() }));
        Order { namespace: namespace.clone(), parts, bytes: self.bytes }
    }
}

const fn tree(source: &Source) -> Option<Digest> {
    match source {
        Source::Tree { digest } => Some(*digest),
        Source::Empty | Source::Git { .. } => None,
    }
}

/// Blobs of artifacts of the last attempts; those of results that were used again are among them.
async fn artifacts(rows: &BuildRows, reader: &Reader) -> Result<BTreeSet<Digest>, Unknown> {
    let filter = ArtifactFilter {
        build: rows.build.id,
        attempts: attempts_of(rows, "", false).flatten(),
        path: None,
        at: now().wall,
        before: None,
    };
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let page = reader.artifacts(filter.clone(), after, PAGE_MAX_ITEMS).await?;
        found.extend(page.items.iter().map(|row| row.digest));
        if found.len() > AHEAD_BLOBS_MAX {
            return Err(Unknown::TooMuch { what: "artifacts", most: AHEAD_BLOBS_MAX as u64 });
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

/// Manifests of directories by key that the build saved, or that were in use by its readers while it ran: which of them its jobs
/// will restore their agents find out, from files.
async fn caches(rows: &BuildRows, reader: &Reader, needs: &mut Needs) -> Result<Vec<Digest>, Unknown> {
    let build = &rows.build;
    let from = build.started_at.unwrap_or(build.created_at).0.saturating_sub(USE_MS);
    let (mut found, mut after, mut looked) = (Vec::new(), None, 0);
    while looked < AHEAD_CACHES_LOOKED_AT {
        let page = reader.newest_caches(Some(build.pipeline.clone()), after, PAGE_MAX_ITEMS).await?;
        looked += page.items.len();
        let used = page.items.into_iter().map(|(_, row)| row).filter(|row| {
            build.namespace.reads(&row.name.namespace) && (row.build == build.id || row.used_at.0 >= from)
        });
        found.extend(used.map(|row| row.manifest));
        match page.next {
            Some(next) if found.len() < AHEAD_CACHES_MAX => after = Some(next),
            Some(_) | None => break,
        }
    }
    if found.len() > AHEAD_CACHES_MAX {
        found.truncate(AHEAD_CACHES_MAX);
        needs.notes.push(format!("of the saved directories the newest {AHEAD_CACHES_MAX} are brought"));
    }
    Ok(found)
}

/// What was looked at.
struct Look<'a> {
    store: &'a Store,
    namespace: Namespace,
    seen: BTreeSet<Digest>,
    needs: Needs,
}

impl Look<'_> {
    /// Where the namespace sees a blob, and its length.
    fn find(&self, digest: &Digest) -> Option<(Namespace, u64)> {
        let shelves = Shelf::ALL.map(|shelf| self.namespace.on(shelf));
        let mut places = std::iter::once(self.namespace.clone()).chain(shelves);
        places.find_map(|place| self.store.blob_len(&place, digest).map(|len| (place, len)))
    }

    /// Counts a blob, once; whether it is here and was not counted before.
    fn count(&mut self, digest: &Digest) -> bool {
        if !self.seen.insert(*digest) {
            return false;
        }
        let found = self.find(digest);
        match &found {
            Some((_, len)) => {
                self.needs.count += 1;
                self.needs.bytes = self.needs.bytes.saturating_add(*len);
            }
            None => self.needs.gone += 1,
        }
        found.is_some()
    }

    fn blob(&mut self, digest: &Digest) {
        if self.count(digest) {
            self.needs.blobs.push(*digest);
        }
    }

    fn trees(&mut self, roots: Vec<Digest>) -> Result<(), Unknown> {
        if roots.len() > BRING_TREES_MAX {
            return Err(Unknown::TooMuch { what: "trees", most: BRING_TREES_MAX as u64 });
        }
        for root in roots {
            if self.find(&root).is_some() {
                self.needs.trees.push(root);
            }
            let mut left = vec![root];
            while let Some(digest) = left.pop() {
                if !self.count(&digest) {
                    continue;
                }
                let Some(bytes) = self.bytes_of(&digest)? else { continue };
                let directory = Directory::decode(&bytes).map_err(|bad| Unknown::BadTree(digest, bad))?;
                for entry in directory.entries() {
                    match &entry.node {
                        Node::Directory { digest, .. } => left.push(*digest),
                        Node::File { digest, .. } => {
                            self.count(digest);
                        }
                        Node::Symlink { .. } => {}
                    }
                }
                if self.seen.len() + left.len() > BRING_ENTRIES_MAX {
                    let what = "directories and files";
                    return Err(Unknown::TooMuch { what, most: BRING_ENTRIES_MAX as u64 });
                }
            }
        }
        Ok(())
    }

    fn cache(&mut self, digest: &Digest) -> Result<(), Unknown> {
        if !self.count(digest) {
            return Ok(());
        }
        self.needs.blobs.push(*digest);
        let Some(bytes) = self.bytes_of(digest)? else { return Ok(()) };
        match manifest::blobs(&bytes) {
            Ok(blobs) => blobs.iter().for_each(|(digest, _)| self.blob(digest)),
            Err(error) => tracing::warn!(%digest, %error, "manifest_unreadable"),
        }
        Ok(())
    }

    fn bytes_of(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Unknown> {
        let Some((place, _)) = self.find(digest) else { return Ok(None) };
        let Some(blob) = self.store.get(&place, digest)? else { return Ok(None) };
        Ok(Some(blob.into_vec()?))
    }

    fn finish(self) -> Result<Needs, Unknown> {
        let Self { store, seen, needs, .. } = self;
        if needs.bytes > BRING_MAX_BYTES {
            return Err(Unknown::TooMuch { what: "bytes", most: BRING_MAX_BYTES });
        }
        if needs.blobs.len() > AHEAD_BLOBS_MAX {
            return Err(Unknown::TooMuch { what: "blobs", most: AHEAD_BLOBS_MAX as u64 });
        }
        store.promise(&seen.into_iter().collect::<Vec<_>>());
        Ok(needs)
    }
}
