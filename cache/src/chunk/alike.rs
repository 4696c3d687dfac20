//! Which large blobs of a namespace are alike: found by a sample of their chunks' names (Lillibridge et al., "Sparse Indexing",
//! FAST 2009; the least names of Broder, "On the resemblance and containment of documents").
//!
//! A row says in which blob a namespace has a chunk of that name, the last one that was stored. It is a hint and no proof: whoever
//! uses it asks the index whether the namespace sees that blob (I12), and takes the blob's manifest as what it has. So what is in
//! the table of others' can neither be learnt nor used, and a row may be lost, or be of a blob that went.
//!
//! The table is in memory, of bounded length: a half that is full becomes the old one, and what is asked for in the old one
//! moves to the young one. Trusted content and that of overlays have halves of their own, so that neither drives out the other's.
//! After a start the manifests are read again, in the background ([`Store::learn_alike`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use windlass_protocol::limits::{
    ALIKE_BLOBS_MAX, ALIKE_LEARN_BLOBS, ALIKE_LEAST, ALIKE_NAMESPACES_MAX, ALIKE_ROWS_MAX, ALIKE_SAMPLE,
    PARTS_MANIFEST_MAX_BYTES,
};
use windlass_protocol::{Digest, Namespace};

use super::manifest::ChunkManifest;
use crate::error::Fault;
use crate::index::{NamespaceNo, Place, Walk};
use crate::store::Store;

/// A chunk's name, as far as it is looked for.
type Short = u64;

/// The table; it holds nothing until it is wanted.
#[derive(Debug, Default)]
pub(crate) struct Alikes {
    wanted: AtomicBool,
    trusted: Mutex<Halves>,
    overlays: Mutex<Halves>,
}

#[derive(Debug, Default)]
struct Halves {
    young: Half,
    old: Half,
}

#[derive(Debug, Default)]
struct Half {
    rows: HashMap<(NamespaceNo, Short), Digest>,
    namespaces: HashSet<NamespaceNo>,
}

impl Alikes {
    fn side(&self, trusted: bool) -> MutexGuard<'_, Halves> {
        let side = if trusted { &self.trusted } else { &self.overlays };
        side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A namespace has a blob of this manifest.
    pub(crate) fn note(&self, (namespace, trusted): (NamespaceNo, bool), manifest: &ChunkManifest) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let sample = sample(manifest);
        let mut side = self.side(trusted);
        for short in sample {
            side.put((namespace, short), manifest.digest());
        }
    }
}

impl Halves {
    fn put(&mut self, key: (NamespaceNo, Short), blob: Digest) {
        let full = self.young.rows.len() >= ALIKE_ROWS_MAX || self.young.namespaces.len() >= ALIKE_NAMESPACES_MAX;
        if full && !self.young.rows.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.namespaces.insert(key.0);
        self.young.rows.insert(key, blob);
    }

    fn get(&mut self, key: (NamespaceNo, Short)) -> Option<Digest> {
        if let Some(blob) = self.young.rows.get(&key) {
            return Some(*blob);
        }
        let blob = self.old.rows.remove(&key)?;
        self.put(key, blob);
        Some(blob)
    }

    fn knows(&self, namespace: NamespaceNo) -> bool {
        self.young.namespaces.contains(&namespace) || self.old.namespaces.contains(&namespace)
    }
}

fn short(digest: &Digest) -> Short {
    let (first, _) = digest.as_bytes().split_at(size_of::<Short>());
    first.try_into().map_or(0, Short::from_le_bytes)
}

/// The names by which a blob is found: one of so many, and the least ones.
fn sample(manifest: &ChunkManifest) -> Vec<Short> {
    let mut least: Vec<Short> = Vec::with_capacity(ALIKE_LEAST + 1);
    let mut sampled = Vec::new();
    for chunk in manifest.chunks() {
        let short = short(&chunk.digest);
        if short.is_multiple_of(ALIKE_SAMPLE) {
            sampled.push(short);
        } else if let Err(at) = least.binary_search(&short)
            && at < ALIKE_LEAST
        {
            least.insert(at, short);
            least.truncate(ALIKE_LEAST);
        }
    }
    sampled.append(&mut least);
    sampled.sort_unstable();
    sampled.dedup();
    sampled
}

impl Store {
    /// From now on it is noted which large blobs are alike; what is stored already is read in a walk that lets others in between.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails; what was read until then is known.
    pub fn learn_alike(&self) -> Result<(), Fault> {
        self.shared.chunks.alikes().wanted.store(true, Ordering::Relaxed);
        let mut cursor = Walk::default();
        loop {
            let mut found = Vec::new();
            let more = {
                let index = self.shared.index();
                index.walk(&mut cursor, ALIKE_LEARN_BLOBS, |entry| {
                    if let Place::Chunked { segment, offset, .. } = entry.place {
                        found.push((entry.digest(), segment, offset, entry.seen_by().to_vec()));
                    }
                })
            };
            for (digest, segment, offset, seen_by) in found {
                // Gone, or moved by compaction meanwhile: a hint less.
                let Some(manifest) = self.shared.read_manifest(&digest, segment, offset)? else { continue };
                for number in seen_by {
                    let trusted = self.shared.index().name(number).is_some_and(|name| name.overlay.is_none());
                    self.shared.chunks.alikes().note((number, trusted), &manifest);
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Who may have blobs that one of these namespaces sees, with whether that is trusted content.
    fn owners(&self, namespaces: &[Namespace]) -> Vec<(NamespaceNo, bool)> {
        let index = self.shared.index();
        let mut owners = Vec::new();
        for namespace in namespaces {
            let viewer = index.viewer(namespace);
            owners.extend(viewer.own.map(|number| (number, namespace.overlay.is_none())));
            owners.extend(viewer.trusted.map(|number| (number, true)));
        }
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// Whether one of the namespaces sees large blobs at all that others may be alike to.
    #[must_use]
    pub fn knows_alike(&self, namespaces: &[Namespace]) -> bool {
        let owners = self.owners(namespaces);
        owners.iter().any(|(number, trusted)| self.shared.chunks.alikes().side(*trusted).knows(*number))
    }

    /// Those of a manifest's chunks that blobs hold which one of the namespaces sees, by the manifests of at most
    /// [`ALIKE_BLOBS_MAX`] blobs that seem the most alike. What others have changes neither the answer nor what is read for it.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn alike_chunks(&self, namespaces: &[Namespace], manifest: &ChunkManifest) -> Result<HashSet<Digest>, Fault> {
        let owners = self.owners(namespaces);
        let mut hits: BTreeMap<Digest, usize> = BTreeMap::new();
        for short in sample(manifest) {
            for (number, trusted) in &owners {
                let blob = self.shared.chunks.alikes().side(*trusted).get((*number, short));
                if let Some(blob) = blob {
                    *hits.entry(blob).or_default() += 1;
                }
            }
        }
        let mut ranked: Vec<(Digest, usize)> = hits.into_iter().collect();
        ranked.sort_by_key(|(_, hits)| std::cmp::Reverse(*hits));
        let offered: HashSet<Digest> = manifest.chunks().iter().map(|chunk| chunk.digest).collect();
        let mut there = HashSet::new();
        for (blob, _) in ranked.into_iter().take(ALIKE_BLOBS_MAX) {
            if let Some(seen) = self.seen_manifest(namespaces, &blob)? {
                there.extend(seen.chunks().iter().map(|chunk| chunk.digest).filter(|chunk| offered.contains(chunk)));
            }
        }
        Ok(there)
    }

    /// The manifest of a large blob, if one of the namespaces sees it, and if it is no longer than one that is offered. It counts as no use of the blob.
    fn seen_manifest(&self, namespaces: &[Namespace], blob: &Digest) -> Result<Option<ChunkManifest>, Fault> {
        let place = {
            let index = self.shared.index();
            namespaces.iter().find_map(|namespace| index.visible(namespace, blob)).map(|entry| entry.place)
        };
        match place {
            Some(Place::Chunked { segment, offset, manifest_bytes, .. })
                if manifest_bytes as usize <= PARTS_MANIFEST_MAX_BYTES =>
            {
                self.shared.read_manifest(blob, segment, offset)
            }
            Some(Place::Chunked { .. } | Place::Small { .. } | Place::Large { .. }) | None => Ok(None),
        }
    }
}
