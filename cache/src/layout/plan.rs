//! Reads a whole tree and checks it, before anything is written.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use windlass_protocol::limits::{TREE_DEPTH_MAX, TREE_DIR_MAX_BYTES, TREE_MAX_ENTRIES};
use windlass_protocol::{Digest, Namespace};

use super::LayoutOptions;
use crate::error::{BadTree, Error, Rejected};
use crate::store::{Pins, Store};
use crate::tree::{Directory, Entry, Node};

/// A tree whose blobs are all there.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) root: Digest,
    /// Every directory that the tree names, once.
    pub(super) read: HashMap<Digest, Rc<Directory>>,
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) symlinks: usize,
    pub(super) directories: usize,
}

impl Plan {
    /// A directory of the tree; all of them were read.
    pub(super) fn directory(&self, digest: &Digest) -> Rc<Directory> {
        self.read.get(digest).cloned().unwrap_or_default()
    }
}

/// Reads the tree; its blobs stay while the pins live.
pub(super) fn read(
    store: &Store,
    namespace: &Namespace,
    root: Digest,
    options: &LayoutOptions,
) -> Result<(Plan, Pins), Error> {
    let mut plan = Plan { root, read: HashMap::new(), files: 0, bytes: 0, symlinks: 0, directories: 0 };
    let mut missing = BTreeSet::new();
    let mut blobs = BTreeSet::new();
    let mut wanted = vec![root];
    while let Some(digest) = wanted.pop() {
        if plan.read.contains_key(&digest) || missing.contains(&digest) {
            continue;
        }
        if plan.read.len() > TREE_MAX_ENTRIES {
            return Err(bad(Some(digest), BadTree::TooManyEntries));
        }
        let Some(directory) = read_directory(store, namespace, digest, options)? else {
            missing.insert(digest);
            continue;
        };
        for entry in directory.entries() {
            match &entry.node {
                Node::File { digest, .. } => {
                    blobs.insert(*digest);
                }
                Node::Directory { digest, .. } => wanted.push(*digest),
                Node::Symlink { .. } => {}
            }
        }
        blobs.insert(digest);
        plan.read.insert(digest, Rc::new(directory));
    }
    let blobs: Vec<Digest> = blobs.into_iter().collect();
    let pins = store.pin(&blobs);
    missing.extend(store.missing(namespace, &blobs));
    if !missing.is_empty() {
        return Err(Rejected::Missing { digests: missing.into_iter().collect() }.into());
    }
    count(&mut plan)?;
    if options.max_bytes.is_some_and(|max| plan.bytes > max) {
        return Err(bad(Some(root), BadTree::TooLarge));
    }
    Ok((plan, pins))
}

fn bad(digest: Option<Digest>, reason: BadTree) -> Error {
    Rejected::BadTree { digest, reason }.into()
}

fn read_directory(
    store: &Store,
    namespace: &Namespace,
    digest: Digest,
    options: &LayoutOptions,
) -> Result<Option<Directory>, Error> {
    let Some(blob) = store.get(namespace, &digest)? else { return Ok(None) };
    if blob.len() > TREE_DIR_MAX_BYTES {
        return Err(bad(Some(digest), BadTree::TooLarge));
    }
    let directory = Directory::decode(&blob.into_vec()?).map_err(|reason| bad(Some(digest), reason))?;
    if options.refuse_case_collisions {
        directory.refuse_case_collisions().map_err(|reason| bad(Some(digest), reason))?;
    }
    Ok(Some(directory))
}

/// What one directory comes to, with all below it.
#[derive(Clone, Copy, Default)]
struct Weight {
    files: usize,
    bytes: u64,
    symlinks: usize,
    directories: usize,
    depth: usize,
}

/// Counts what the tree comes to when it is laid out, where a directory that is named often counts often. Each directory
/// is weighed once, so that a few that name each other a thousand times over are found out at once.
fn count(plan: &mut Plan) -> Result<(), Error> {
    let mut weights: HashMap<Digest, Weight> = HashMap::new();
    // Each with the first entry that was not looked at: a directory with many others in it is gone through once.
    let mut path = vec![(plan.root, 0)];
    while let Some((digest, from)) = path.last().copied() {
        let directory = plan.directory(&digest);
        let below = |node: &Node| match node {
            Node::Directory { digest, .. } => Some(*digest),
            Node::File { .. } | Node::Symlink { .. } => None,
        };
        let mut rest = directory.entries().iter().enumerate().skip(from);
        let unweighed = |(at, entry): (usize, &Entry)| {
            let child = below(&entry.node).filter(|child| !weights.contains_key(child))?;
            Some((at, child))
        };
        if let Some((at, child)) = rest.find_map(unweighed) {
            // No directory can contain itself: that would be a collision of the hash.
            if path.len() > TREE_DEPTH_MAX {
                return Err(bad(Some(child), BadTree::TooDeep));
            }
            if let Some(last) = path.last_mut() {
                last.1 = at + 1;
            }
            path.push((child, 0));
            continue;
        }
        let weight = weigh(&directory, &weights);
        if weight.depth > TREE_DEPTH_MAX {
            return Err(bad(Some(digest), BadTree::TooDeep));
        }
        if weight.files.saturating_add(weight.symlinks).saturating_add(weight.directories) > TREE_MAX_ENTRIES {
            return Err(bad(Some(digest), BadTree::TooManyEntries));
        }
        weights.insert(digest, weight);
        path.pop();
    }
    let weight = weights.get(&plan.root).copied().unwrap_or_default();
    (plan.files, plan.bytes) = (weight.files, weight.bytes);
    (plan.symlinks, plan.directories) = (weight.symlinks, weight.directories);
    Ok(())
}

fn weigh(directory: &Directory, weights: &HashMap<Digest, Weight>) -> Weight {
    let mut sum = Weight::default();
    for entry in directory.entries() {
        match &entry.node {
            Node::File { len, .. } => {
                sum.files += 1;
                sum.bytes = sum.bytes.saturating_add(*len);
            }
            Node::Symlink { .. } => sum.symlinks += 1,
            Node::Directory { digest, .. } => {
                let below = weights.get(digest).copied().unwrap_or_default();
                sum.files = sum.files.saturating_add(below.files);
                sum.bytes = sum.bytes.saturating_add(below.bytes);
                sum.symlinks = sum.symlinks.saturating_add(below.symlinks);
                sum.directories = sum.directories.saturating_add(below.directories).saturating_add(1);
                sum.depth = sum.depth.max(below.depth + 1);
            }
        }
    }
    sum
}
