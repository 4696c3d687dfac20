//! Bringing ahead of jobs: trees and blobs that the coordinator has ordered, as far as it gives them (docs/design/047).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use windlass_cache::{Directory, Node, Pins};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::limits::{BRING_ENTRIES_MAX, BRING_GROUP_BLOBS};
use windlass_protocol::message::{BroughtSoFar, SignedGrant};
use windlass_protocol::{Cause, Digest, Namespace};

use super::fetch::{Wish, siblings};
use super::{Bulk, blocking, internal, stored};

/// By what right an order is carried out: the coordinator gives a newer grant before one ends.
#[derive(Debug)]
pub(crate) struct Warrant {
    namespace: Namespace,
    grant: Mutex<Arc<SignedGrant>>,
}

impl Warrant {
    pub(crate) fn new(grant: SignedGrant) -> Self {
        Self { namespace: grant.grant.namespace.clone(), grant: Mutex::new(Arc::new(grant)) }
    }

    /// A newer grant; one for another namespace is none of this order's, and says so.
    pub(crate) fn renew(&self, grant: SignedGrant) -> bool {
        let same = grant.grant.namespace == self.namespace;
        if same {
            *self.grant.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(grant);
        }
        same
    }

    pub(crate) fn grant(&self) -> Arc<SignedGrant> {
        Arc::clone(&self.grant.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is brought together; what has come stays until it is dropped.
struct Bringing<'a> {
    bulk: &'a Bulk,
    wish: Wish<'a>,
    told: &'a watch::Sender<BroughtSoFar>,
    seen: BTreeSet<Digest>,
    held: Vec<Pins>,
}

impl Bulk {
    /// Brings trees and blobs, and tells how far it is. What nobody gives is counted, and everything else comes.
    pub(crate) async fn bring(
        &self,
        warrant: &Warrant,
        (trees, blobs): (&[Digest], &[Digest]),
        told: &watch::Sender<BroughtSoFar>,
    ) -> Result<BroughtSoFar, Cause> {
        let wish = Wish::of_order(warrant, &warrant.namespace);
        let mut bringing = Bringing { bulk: self, wish, told, seen: BTreeSet::new(), held: Vec::new() };
        let mut level: Vec<Digest> = trees.to_vec();
        let mut files = blobs.to_vec();
        while !level.is_empty() {
            let here = bringing.group(level).await?;
            level = Vec::new();
            for directory in self.directories_here(&warrant.namespace, here).await? {
                for entry in directory.entries() {
                    match &entry.node {
                        Node::File { digest, .. } => files.push(*digest),
                        Node::Directory { digest, .. } => level.push(*digest),
                        Node::Symlink { .. } => {}
                    }
                }
            }
            if files.len() + level.len() + bringing.seen.len() > BRING_ENTRIES_MAX {
                return Err(internal(&format!("its trees have more than {BRING_ENTRIES_MAX} entries")));
            }
        }
        for group in files.chunks(BRING_GROUP_BLOBS) {
            bringing.group(group.to_vec()).await?;
        }
        Ok(bringing.so_far())
    }

    /// Those of the blobs that are directories; one that is none is a fault of whoever named it.
    async fn directories_here(&self, base: &Namespace, digests: Vec<Digest>) -> Result<Vec<Directory>, Cause> {
        let (store, base) = (self.store.clone(), base.clone());
        blocking(move || {
            let mut directories = Vec::new();
            for digest in digests {
                // What went meanwhile is counted as here: jobs fetch it again.
                let Some(blob) = store.get(&base, &digest).map_err(|e| stored(&e.into()))? else { continue };
                let bytes = blob.into_vec().map_err(|e| internal(&e))?;
                let bad = |e| Cause::new(CauseKind::SourceMissing, format!("{digest} is no directory: {e}"));
                directories.push(Directory::decode(&bytes).map_err(bad)?);
            }
            Ok(directories)
        })
        .await
    }
}

impl Bringing<'_> {
    /// Brings blobs that were not brought before, each once; answers which of them are here.
    async fn group(&mut self, mut digests: Vec<Digest>) -> Result<Vec<Digest>, Cause> {
        digests.retain(|digest| self.seen.insert(*digest));
        if digests.is_empty() {
            return Ok(digests);
        }
        let missing = self.bulk.missing(&self.wish, digests.clone()).await?;
        self.bulk.fetch_wish(&self.wish, missing).await?;
        let (store, base) = (self.bulk.store.clone(), self.wish.base.clone());
        let (pins, here) = blocking(move || {
            let pins = store.pin(&digests);
            let len = |digest: &Digest| siblings(&base).find_map(|sibling| store.blob_len(&sibling, digest));
            let here: Vec<_> = digests.into_iter().map(|digest| (digest, len(&digest))).collect();
            Ok((pins, here))
        })
        .await?;
        self.held.push(pins);
        let came = self.wish.came();
        self.told.send_modify(|so_far| {
            so_far.came = came;
            for (_, len) in &here {
                match len {
                    Some(len) => (so_far.blobs, so_far.bytes) = (so_far.blobs + 1, so_far.bytes.saturating_add(*len)),
                    None => so_far.absent += 1,
                }
            }
        });
        Ok(here.into_iter().filter_map(|(digest, len)| len.map(|_| digest)).collect())
    }

    fn so_far(&self) -> BroughtSoFar {
        *self.told.borrow()
    }
}
