//! Snapshots: a directory on disk becomes a tree.
//!
//! What is in: regular files, symlinks (not followed), directories, empty ones too, hidden ones too, whatever bytes their
//! names have. What is out: anything called `.git`; with `respect_gitignore`, what `.gitignore` files inside the
//! directory (and its `.git/info/exclude`) say, in a repository or not; never the user's global ignore file, nor those of
//! directories above, so that the same directory gives the same tree for everybody. Files that git tracks although they
//! match a pattern are out as well. Sockets, pipes and devices cannot be kept: they are skipped and listed in
//! [`Snapshot::skipped`].

mod source;
mod stat_cache;
mod walk;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use windlass_protocol::Digest;
use windlass_protocol::limits::{TREE_DEPTH_MAX, TREE_MAX_ENTRIES};

use crate::error::{BadTree, Error, Rejected};
use crate::tree::{Directory, Entry, Node};

pub use source::{SnapshotSource, SourceReader};
use stat_cache::StatCache;
use walk::{Found, FoundFile, What};

/// What to leave out, and what to remember.
#[derive(Debug, Clone)]
pub struct Options {
    /// Leave out what `.gitignore` files say.
    pub respect_gitignore: bool,
    /// A file that remembers what files hashed to; it may lie inside the directory if `excludes` names it.
    pub stat_cache: Option<PathBuf>,
    /// Patterns, in the language of `.gitignore`, of what to leave out beside.
    pub excludes: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { respect_gitignore: true, stat_cache: None, excludes: Vec::new() }
    }
}

/// A directory as it was.
#[derive(Debug)]
pub struct Snapshot {
    /// The tree.
    pub root: Digest,
    /// Regular files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files whose bytes were read; the others were known from the stat cache.
    pub hashed: usize,
    /// Sockets, pipes and devices, relative to the root, sorted: they are not in the tree.
    pub skipped: Vec<PathBuf>,
    /// Where every blob of the tree can be read.
    pub source: SnapshotSource,
}

/// Takes a snapshot of a directory.
///
/// # Errors
/// [`Rejected::BadPath`] where it is not a directory or a pattern does not read, [`Rejected::Changed`] where a file does
/// not stand still, [`Rejected::BadTree`] past the limits, [`crate::Fault::Io`] where something cannot be read.
pub fn snapshot(root: &Path, options: &Options) -> Result<Snapshot, Error> {
    let taken_at_ns = now_ns();
    let cache = options.stat_cache.as_deref().map(StatCache::load).unwrap_or_default();
    let found = walk::walk(root, options, &cache)?;
    if found.len() > TREE_MAX_ENTRIES {
        return Err(Rejected::BadTree { digest: None, reason: BadTree::TooManyEntries }.into());
    }
    remember(options, &cache, taken_at_ns, &found);
    build(root, found)
}

/// Now, as file systems tell it.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Writes the stat cache; where that fails the next snapshot takes longer, and that is all.
fn remember(options: &Options, cache: &StatCache, taken_at_ns: i64, found: &[Found]) {
    let Some(path) = &options.stat_cache else { return };
    let files: Vec<_> = found
        .iter()
        .filter_map(|found| match &found.what {
            What::File(FoundFile { digest, stat, .. }) => Some((found.path.as_path(), stat, *digest)),
            What::Symlink(_) | What::Directory(_) | What::Special => None,
        })
        .collect();
    let all_known = found.iter().all(|found| !matches!(&found.what, What::File(file) if file.hashed));
    if all_known && files.len() == cache.len() {
        return;
    }
    if let Err(error) = StatCache::save(path, taken_at_ns, &mut files.into_iter()) {
        tracing::warn!(path = %path.display(), %error, "stat_cache_not_written");
    }
}

/// Makes directories out of what was found, the deepest first.
fn build(root: &Path, found: Vec<Found>) -> Result<Snapshot, Error> {
    let mut source = SnapshotSource::new(root);
    let (mut files, mut bytes, mut hashed, mut skipped) = (0, 0, 0, Vec::new());
    let mut children: HashMap<PathBuf, Vec<Entry>> = HashMap::new();
    let mut directories = vec![(0, PathBuf::new(), 0)];
    for Found { path, what } in found {
        let depth = path.components().count();
        let node = match what {
            What::File(file) => {
                files += 1;
                bytes += file.len;
                hashed += usize::from(file.hashed);
                source.add_file(file.digest, &path, file.len);
                Node::File { digest: file.digest, len: file.len, mode: file.mode }
            }
            What::Symlink(target) => Node::Symlink { target },
            What::Directory(mode) => {
                directories.push((depth, path, mode));
                continue;
            }
            What::Special => {
                skipped.push(path);
                continue;
            }
        };
        add(&mut children, &path, node);
    }
    directories.sort_by(|a, b| b.cmp(a));
    if directories.first().is_some_and(|(depth, ..)| *depth > TREE_DEPTH_MAX) {
        return Err(Rejected::BadTree { digest: None, reason: BadTree::TooDeep }.into());
    }
    let mut digest = Digest::of(&[]);
    for (_, path, mode) in directories {
        let bad = |reason| Rejected::BadTree { digest: None, reason };
        let encoded = Directory::new(children.remove(&path).unwrap_or_default()).map_err(bad)?.encode();
        digest = Digest::of(&encoded);
        source.add_directory(digest, encoded);
        if path != Path::new("") {
            add(&mut children, &path, Node::Directory { digest, mode });
        }
    }
    skipped.sort();
    // The root comes last: it is the least deep.
    Ok(Snapshot { root: digest, files, bytes, hashed, skipped, source })
}

fn add(children: &mut HashMap<PathBuf, Vec<Entry>>, path: &Path, node: Node) {
    let parent = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default().to_vec();
    match children.get_mut(parent) {
        Some(entries) => entries.push(Entry { name, node }),
        None => {
            children.insert(parent.to_owned(), vec![Entry { name, node }]);
        }
    }
}
