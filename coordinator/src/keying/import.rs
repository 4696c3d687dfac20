//! A commit of a repository becomes a tree of blobs: of what is declared, and of nothing else anything is read.
//!
//! Files are as the repository has them: no filter, no line ending of a checkout is applied. A pointer of large file storage
//! is the pointer's text.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use windlass_cache::tree::mode_of;
use windlass_cache::{Directory, Entry, Node, Store, Upload};
use windlass_protocol::limits::{
    BLOB_SMALL_MAX_BYTES, COMMIT_BUFFER_BYTES, REUSE_OBJECTS_KEPT_MAX, REUSE_TREE_ENTRIES_MAX, TREE_DEPTH_MAX,
    TREE_NAME_MAX_BYTES,
};
use windlass_protocol::{Digest, Namespace};

use super::prune::Pruned;
use super::remembered::Remembered;
use super::select::{Selection, Take};
use crate::definitions::import::Importer;
use crate::definitions::{Listed, ListedKind, Piece};

/// What blobs objects of repositories are, by the objects' names. They may not be stored any more, or not for everybody.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects(Arc<Mutex<Remembered<String, (Digest, u64)>>>);

impl Objects {
    fn get(&self, id: &String) -> Option<(Digest, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    fn put(&self, id: String, blob: (Digest, u64)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(id, blob, REUSE_OBJECTS_KEPT_MAX);
    }
}

/// Chooses what is declared of a commit, and stores it.
#[derive(Debug)]
pub(super) struct CommitImport {
    store: Store,
    namespace: Namespace,
    selection: Selection,
    objects: Objects,
    /// What was chosen, in the order of the commit's list.
    chosen: Vec<Listed>,
    /// What is known of each of them.
    nodes: Vec<Option<Node>>,
    /// Which of them are read, in this order.
    wanted: Vec<usize>,
    /// How many of those were begun.
    begun: usize,
    current: Option<Current>,
    /// Small files that wait for their common write.
    batch: Vec<Vec<u8>>,
    batch_bytes: usize,
}

#[derive(Debug)]
struct Current {
    /// Bytes still to come.
    left: u64,
    bytes: u64,
    into: Into,
}

#[derive(Debug)]
enum Into {
    Small(Vec<u8>),
    Large(Upload),
}

impl CommitImport {
    pub(super) fn new(store: &Store, namespace: &Namespace, selection: Selection, objects: &Objects) -> Self {
        Self {
            store: store.clone(),
            namespace: namespace.clone(),
            selection,
            objects: objects.clone(),
            chosen: Vec::new(),
            nodes: Vec::new(),
            wanted: Vec::new(),
            begun: 0,
            current: None,
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// The tree, once everything is there.
    pub(super) fn finish(mut self) -> Result<Pruned, String> {
        self.flush()?;
        let missing = || "the repository's files did not come whole".to_owned();
        if self.current.is_some() || self.begun < self.wanted.len() {
            return Err(missing());
        }
        let nodes: Vec<Node> = self.nodes.into_iter().collect::<Option<_>>().ok_or_else(missing)?;
        let mut root = Folder::default();
        for (listed, node) in self.chosen.iter().zip(nodes) {
            let names: Vec<&[u8]> = listed.path.split(|byte| *byte == b'/').collect();
            if names.len() > TREE_DEPTH_MAX {
                return Err(format!("its source has directories more than {TREE_DEPTH_MAX} within one another"));
            }
            root.put(&names, node);
        }
        let mut made = Vec::new();
        let digest = root.encode(&mut made)?;
        self.store.put_many(&self.namespace, made).map_err(|error| error.to_string())?;
        Ok(Pruned { root: digest, unmatched: self.selection.unmatched() })
    }

    fn is_taken(&mut self, path: &str, takes: &mut BTreeMap<String, Take>) -> Result<bool, String> {
        let costly = |error: super::select::TooCostly| error.to_string();
        for (at, _) in std::iter::once((0, "")).chain(path.match_indices('/')) {
            let folder = path.get(..at).unwrap_or_default();
            let take = match takes.get(folder) {
                Some(take) => *take,
                None => {
                    let take = self.selection.directory(folder).map_err(costly)?;
                    takes.insert(folder.to_owned(), take);
                    take
                }
            };
            match take {
                Take::Whole => {
                    self.selection.within_whole(path).map_err(costly)?;
                    return Ok(true);
                }
                Take::Some => {}
                Take::Nothing => return Ok(false),
            }
        }
        self.selection.file(path).map_err(costly)
    }

    /// What the object is known to be, for those who see the blob.
    fn known(&self, listed: &Listed) -> Option<Node> {
        let ListedKind::File { executable } = listed.kind else { return None };
        let (digest, len) = self.objects.get(&listed.id)?;
        let there = self.store.blob_len(&self.namespace, &digest) == Some(len);
        there.then(|| Node::File { digest, len, mode: mode_of(executable) })
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let at = self.begun.checked_sub(1).and_then(|last| self.wanted.get(last)).copied();
        let (Some(at), bytes) = (at, current.bytes) else { return Ok(()) };
        let (kind, id) = (self.chosen[at].kind, self.chosen[at].id.clone());
        let digest = match (current.into, kind) {
            (Into::Small(target), ListedKind::Symlink) => {
                self.nodes[at] = Some(Node::Symlink { target });
                return Ok(());
            }
            (Into::Small(text), ListedKind::File { .. } | ListedKind::Submodule) => {
                let digest = Digest::of(&text);
                self.batch_bytes += text.len();
                self.batch.push(text);
                if self.batch_bytes >= COMMIT_BUFFER_BYTES {
                    self.flush()?;
                }
                digest
            }
            (Into::Large(upload), ListedKind::File { .. } | ListedKind::Symlink | ListedKind::Submodule) => {
                upload.finish().map_err(|error| error.to_string())?
            }
        };
        let executable = matches!(kind, ListedKind::File { executable: true });
        self.nodes[at] = Some(Node::File { digest, len: bytes, mode: mode_of(executable) });
        self.objects.put(id, (digest, bytes));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.store.put_many(&self.namespace, batch).map(drop).map_err(|error| error.to_string())
    }
}

impl Importer for CommitImport {
    fn choose(&mut self, listed: Vec<Listed>) -> Result<Vec<String>, String> {
        if listed.len() as u64 > REUSE_TREE_ENTRIES_MAX {
            return Err(format!("its source has more than {REUSE_TREE_ENTRIES_MAX} files"));
        }
        let mut takes = BTreeMap::new();
        for entry in listed {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            if !self.is_taken(&path, &mut takes)? {
                continue;
            }
            match entry.kind {
                ListedKind::Submodule => {
                    return Err(format!(
                        "`{path}` of its source is a submodule, which is not read: leave it out of `inputs`"
                    ));
                }
                ListedKind::File { .. } | ListedKind::Symlink => {}
            }
            let known = self.known(&entry);
            if known.is_none() {
                self.wanted.push(self.chosen.len());
            }
            self.nodes.push(known);
            self.chosen.push(entry);
        }
        Ok(self.wanted.iter().map(|at| self.chosen[*at].id.clone()).collect())
    }

    fn take(&mut self, piece: Piece) -> Result<(), String> {
        match piece {
            Piece::Begin(bytes) => {
                self.end()?;
                let kind = self.wanted.get(self.begun).map(|at| self.chosen[*at].kind);
                self.begun += 1;
                let small = usize::try_from(bytes).ok().filter(|bytes| *bytes <= BLOB_SMALL_MAX_BYTES);
                let into = match (kind, small) {
                    (Some(ListedKind::Symlink), _) if bytes == 0 || bytes >= TREE_NAME_MAX_BYTES as u64 => {
                        return Err("a symbolic link of its source is too long".to_owned());
                    }
                    (_, Some(bytes)) => Into::Small(Vec::with_capacity(bytes)),
                    (_, None) => {
                        Into::Large(self.store.begin_put(&self.namespace, None).map_err(|error| error.to_string())?)
                    }
                };
                self.current = Some(Current { left: bytes, bytes, into });
            }
            Piece::Bytes(bytes) => {
                let current = self.current.as_mut().ok_or("bytes come that belong to no file")?;
                current.left = current.left.checked_sub(bytes.len() as u64).ok_or("a file is longer than it said")?;
                match &mut current.into {
                    Into::Small(gathered) => gathered.extend_from_slice(&bytes),
                    Into::Large(upload) => upload.write(&bytes).map_err(|error| error.to_string())?,
                }
            }
        }
        if self.current.as_ref().is_some_and(|current| current.left == 0) { self.end() } else { Ok(()) }
    }
}

/// A directory while it is put together.
#[derive(Debug, Default)]
struct Folder {
    leaves: BTreeMap<Vec<u8>, Node>,
    folders: BTreeMap<Vec<u8>, Self>,
}

impl Folder {
    /// Recursion ends at `TREE_DEPTH_MAX`.
    fn put(&mut self, names: &[&[u8]], node: Node) {
        match names {
            [] => {}
            [name] => {
                self.leaves.insert(name.to_vec(), node);
            }
            [name, rest @ ..] => self.folders.entry(name.to_vec()).or_default().put(rest, node),
        }
    }

    fn encode(self, made: &mut Vec<Vec<u8>>) -> Result<Digest, String> {
        let mut entries: Vec<Entry> = self.leaves.into_iter().map(|(name, node)| Entry { name, node }).collect();
        for (name, folder) in self.folders {
            let node = Node::Directory { digest: folder.encode(made)?, mode: 0o755 };
            entries.push(Entry { name, node });
        }
        let directory = Directory::new(entries);
        let bytes = directory.map_err(|bad| format!("its source is no tree that can be kept: {bad}"))?.encode();
        let digest = Digest::of(&bytes);
        made.push(bytes);
        Ok(digest)
    }
}
