//! Of a tree in the cache only what is declared, as a tree of its own; and files put into a tree.
//!
//! What is selected is as git would have it: files are executable or not, directories are open, and one that holds nothing is not
//! there. So a clone in whatever place, with whatever `umask`, is the commit that it was made of.
//!
//! Directories are read one at a time with the eyes of the build's namespace (I12), and a stranger made them: their depth,
//! their number and what they name are bounded. No directory can contain itself: that would be a collision of the hash.

use std::collections::{BTreeMap, BTreeSet};

use windlass_cache::tree::{is_program, mode_of};
use windlass_cache::{Directory, Entry, Node, Store};
use windlass_protocol::limits::{
    REUSE_TREE_DIRS_MAX_BYTES, REUSE_TREE_ENTRIES_MAX, TREE_DEPTH_MAX, TREE_DIR_MAX_BYTES,
};
use windlass_protocol::{Digest, Namespace};

use super::select::{Selection, Take, TooCostly};

/// The mode of every directory.
const DIRECTORY_MODE: u16 = 0o755;

/// Files that are asked for at once.
const ASKED_AT_ONCE: usize = 10_000;

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    /// The namespace does not see it, or it is no directory.
    #[error("{what} {digest} of its source is not in the cache of this build")]
    Absent {
        /// A file, or a directory.
        what: &'static str,
        /// Its name.
        digest: Digest,
    },
    #[error("a directory of its source cannot be read: {0}")]
    Bad(windlass_cache::BadTree),
    #[error("its source has more than {REUSE_TREE_ENTRIES_MAX} files and directories")]
    TooMany,
    #[error("the directories of its source have more than {REUSE_TREE_DIRS_MAX_BYTES} bytes")]
    TooLarge,
    #[error("its source has directories more than {TREE_DEPTH_MAX} within one another")]
    TooDeep,
    #[error(transparent)]
    TooCostly(#[from] TooCostly),
    /// A file is to lie where it cannot.
    #[error("`{0}` cannot lie in its source: a file is where its directory would be, or the reverse")]
    InTheWay(String),
    /// A blob is to lie where a file does.
    #[error("the blob `{0}` cannot lie in its source: an input or an artifact lies there")]
    Taken(String),
    /// A blob that the namespace does not see.
    #[error("the blob `{path}`, {digest}, is not in the cache of this build")]
    Unnamed {
        /// Where it was to lie.
        path: String,
        /// As the step names it.
        digest: String,
    },
    #[error("the cache cannot be used: {0}")]
    Store(#[from] windlass_cache::Error),
}

impl From<windlass_cache::Fault> for TreeError {
    fn from(fault: windlass_cache::Fault) -> Self {
        Self::Store(fault.into())
    }
}

/// A tree of what is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pruned {
    /// Its root.
    pub(super) root: Digest,
    /// Globs that mean nothing of the whole.
    pub(super) unmatched: Vec<String>,
}

/// What files that are put into a tree may take the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Of files that lie there.
    Files,
    /// Of nothing.
    Nothing,
}

/// A file that is put into a tree.
#[derive(Debug, Clone, Copy)]
struct Laid<'a> {
    /// Where.
    path: &'a str,
    /// What of that is below the directory at hand.
    rest: &'a str,
    node: &'a Node,
}

/// What a namespace sees, and what may still be read of it.
#[derive(Debug)]
pub(super) struct Trees<'a> {
    store: &'a Store,
    namespace: &'a Namespace,
    entries_left: u64,
    bytes_left: u64,
    /// Directories that were read whole, so that one that is named a thousand times is read once; with what is taken of each.
    whole: BTreeMap<Digest, Option<Digest>>,
    /// Files that are to be there.
    files: BTreeSet<Digest>,
    /// Directories that were made.
    made: Vec<Vec<u8>>,
}

impl<'a> Trees<'a> {
    pub(super) const fn new(store: &'a Store, namespace: &'a Namespace) -> Self {
        Self {
            store,
            namespace,
            entries_left: REUSE_TREE_ENTRIES_MAX,
            bytes_left: REUSE_TREE_DIRS_MAX_BYTES,
            whole: BTreeMap::new(),
            files: BTreeSet::new(),
            made: Vec::new(),
        }
    }

    /// What is selected of a tree. All its files are there.
    pub(super) fn prune(&mut self, root: Digest, selection: &mut Selection) -> Result<Pruned, TreeError> {
        let pruned = match selection.directory("")? {
            Take::Whole => match self.see(root, ("", 0), selection)? {
                Some(root) => root,
                None => self.make(&Directory::default())?,
            },
            Take::Some | Take::Nothing => {
                let kept = self.some(root, ("", 0), selection)?.unwrap_or_default();
                self.make(&kept)?
            }
        };
        self.check_files()?;
        self.write()?;
        Ok(Pruned { root: pruned, unmatched: selection.unmatched() })
    }

    /// A tree with these files at these paths.
    pub(super) fn with_files(
        &mut self,
        root: Digest,
        files: &BTreeMap<String, Node>,
        over: Over,
    ) -> Result<Digest, TreeError> {
        if files.is_empty() {
            return Ok(root);
        }
        let files: Vec<Laid<'_>> = files.iter().map(|(path, node)| Laid { path, rest: path, node }).collect();
        let root = self.graft(Some(root), &files, (over, 0))?;
        self.write()?;
        Ok(root)
    }

    fn read(&mut self, digest: Digest) -> Result<Directory, TreeError> {
        let blob = self.store.get(self.namespace, &digest)?;
        let blob = blob.ok_or(TreeError::Absent { what: "the directory", digest })?;
        if blob.len() > TREE_DIR_MAX_BYTES {
            return Err(TreeError::Bad(windlass_cache::BadTree::TooLarge));
        }
        self.bytes_left = self.bytes_left.checked_sub(blob.len()).ok_or(TreeError::TooLarge)?;
        let directory = Directory::decode(&blob.into_vec()?).map_err(TreeError::Bad)?;
        let entries = directory.entries().len() as u64;
        self.entries_left = self.entries_left.checked_sub(entries + 1).ok_or(TreeError::TooMany)?;
        Ok(directory)
    }

    /// Notes all files of a tree that is taken whole; answers what it is, `None` where that is nothing.
    fn see(
        &mut self,
        digest: Digest,
        (path, depth): (&str, usize),
        selection: &mut Selection,
    ) -> Result<Option<Digest>, TreeError> {
        if depth > TREE_DEPTH_MAX {
            return Err(TreeError::TooDeep);
        }
        // Another place of the same directory may be what a glob means.
        if let Some(taken) = self.whole.get(&digest).filter(|_| selection.all_matched()) {
            return Ok(*taken);
        }
        let directory = self.read(digest)?;
        let mut kept = Vec::with_capacity(directory.entries().len());
        for Entry { name, node } in directory.entries() {
            let path = join(path, name);
            let node = match node {
                Node::Directory { digest, .. } => {
                    let Some(digest) = self.see(*digest, (&path, depth + 1), selection)? else { continue };
                    Node::Directory { digest, mode: DIRECTORY_MODE }
                }
                Node::File { digest, .. } => {
                    selection.within_whole(&path)?;
                    self.files.insert(*digest);
                    as_git_has(node)
                }
                Node::Symlink { .. } => {
                    selection.within_whole(&path)?;
                    node.clone()
                }
            };
            kept.push(Entry { name: name.clone(), node });
        }
        let taken = match kept.is_empty() {
            true => None,
            false if kept == directory.entries() => Some(digest),
            false => Some(self.make(&Directory::new(kept).map_err(TreeError::Bad)?)?),
        };
        self.whole.insert(digest, taken);
        Ok(taken)
    }

    /// What is selected of a directory; `None` where that is nothing.
    fn some(
        &mut self,
        digest: Digest,
        (path, depth): (&str, usize),
        selection: &mut Selection,
    ) -> Result<Option<Directory>, TreeError> {
        if depth > TREE_DEPTH_MAX {
            return Err(TreeError::TooDeep);
        }
        let directory = self.read(digest)?;
        let mut kept = Vec::new();
        for entry in directory.entries() {
            let path = join(path, &entry.name);
            match &entry.node {
                Node::Directory { digest, .. } => match selection.directory(&path)? {
                    Take::Whole => {
                        if let Some(digest) = self.see(*digest, (&path, depth + 1), selection)? {
                            let node = Node::Directory { digest, mode: DIRECTORY_MODE };
                            kept.push(Entry { name: entry.name.clone(), node });
                        }
                    }
                    Take::Some => {
                        if let Some(below) = self.some(*digest, (&path, depth + 1), selection)? {
                            let node = Node::Directory { digest: self.make(&below)?, mode: DIRECTORY_MODE };
                            kept.push(Entry { name: entry.name.clone(), node });
                        }
                    }
                    Take::Nothing => {}
                },
                Node::File { digest, .. } => {
                    if selection.file(&path)? {
                        self.files.insert(*digest);
                        kept.push(Entry { name: entry.name.clone(), node: as_git_has(&entry.node) });
                    }
                }
                Node::Symlink { .. } => {
                    if selection.file(&path)? {
                        kept.push(entry.clone());
                    }
                }
            }
        }
        if kept.is_empty() { Ok(None) } else { Directory::new(kept).map(Some).map_err(TreeError::Bad) }
    }

    /// A directory with files put into it; their paths are sorted, and from here on.
    fn graft(
        &mut self,
        digest: Option<Digest>,
        files: &[Laid<'_>],
        (over, depth): (Over, usize),
    ) -> Result<Digest, TreeError> {
        if depth > TREE_DEPTH_MAX {
            return Err(TreeError::TooDeep);
        }
        let old = match digest {
            Some(digest) => self.read(digest)?,
            None => Directory::default(),
        };
        let mut entries: BTreeMap<Vec<u8>, Node> =
            old.entries().iter().map(|entry| (entry.name.clone(), entry.node.clone())).collect();
        let mut below: BTreeMap<&str, Vec<Laid<'_>>> = BTreeMap::new();
        for file in files {
            match file.rest.split_once('/') {
                Some((name, rest)) => below.entry(name).or_default().push(Laid { rest, ..*file }),
                None => match (entries.insert(file.rest.as_bytes().to_vec(), file.node.clone()), over) {
                    (Some(Node::Directory { .. }), _) => return Err(TreeError::InTheWay(file.path.to_owned())),
                    (Some(Node::File { .. } | Node::Symlink { .. }), Over::Nothing) => {
                        return Err(TreeError::Taken(file.path.to_owned()));
                    }
                    (Some(Node::File { .. } | Node::Symlink { .. }), Over::Files) | (None, _) => {}
                },
            }
        }
        for (name, files) in below {
            let (digest, mode) = match entries.get(name.as_bytes()) {
                Some(Node::Directory { digest, mode }) => (Some(*digest), *mode),
                Some(Node::File { .. } | Node::Symlink { .. }) => {
                    let path = files.first().map_or(name, |file| file.path);
                    return Err(TreeError::InTheWay(path.to_owned()));
                }
                None => (None, DIRECTORY_MODE),
            };
            let digest = self.graft(digest, &files, (over, depth + 1))?;
            entries.insert(name.as_bytes().to_vec(), Node::Directory { digest, mode });
        }
        let entries = entries.into_iter().map(|(name, node)| Entry { name, node }).collect();
        let directory = Directory::new(entries).map_err(TreeError::Bad)?;
        self.make(&directory)
    }

    fn make(&mut self, directory: &Directory) -> Result<Digest, TreeError> {
        let bytes = directory.encode();
        self.bytes_left = self.bytes_left.checked_sub(bytes.len() as u64).ok_or(TreeError::TooLarge)?;
        let digest = Digest::of(&bytes);
        self.made.push(bytes);
        Ok(digest)
    }

    fn write(&mut self) -> Result<(), TreeError> {
        self.store.put_many(self.namespace, std::mem::take(&mut self.made))?;
        Ok(())
    }

    /// A tree that names what nobody here may see would be laid out nowhere.
    fn check_files(&mut self) -> Result<(), TreeError> {
        let files: Vec<Digest> = std::mem::take(&mut self.files).into_iter().collect();
        for piece in files.chunks(ASKED_AT_ONCE) {
            if let Some(digest) = self.store.missing(self.namespace, piece).first() {
                return Err(TreeError::Absent { what: "the file", digest: *digest });
            }
        }
        Ok(())
    }
}

/// A file is executable or is not.
fn as_git_has(node: &Node) -> Node {
    match node {
        Node::File { digest, len, mode } => {
            let mode = mode_of(is_program(u32::from(*mode)));
            Node::File { digest: *digest, len: *len, mode }
        }
        Node::Directory { .. } | Node::Symlink { .. } => node.clone(),
    }
}

/// A path below a directory, for globs: what is not UTF-8 is as it is shown.
pub(super) fn join(path: &str, name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") }
}

#[cfg(test)]
mod tests;
