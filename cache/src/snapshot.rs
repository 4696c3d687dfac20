//! Snapshots: a directory on disk becomes a tree.
//!
//! What is in: regular files, symlinks (not followed), directories, empty ones too, hidden ones too, whatever bytes their
//! names have. What is out: anything called `.git`; with `respect_gitignore`, what `.gitignore` files inside the
//! directory (and its `.git/info/exclude`) say, in a repository or not; never the user's global ignore file, nor those of
//! directories above, so that the same directory gives the same tree for everybody. Files that git tracks although they
//! match a pattern are out as well. Sockets, pipes and devices cannot be kept: they are skipped and listed in
//! [`Snapshot::skipped`].

mod ignored;
mod listing;
mod source;
mod stat_cache;
mod walk;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use windlass_protocol::Digest;

use crate::error::{Error, Rejected};
use crate::tree::{Directory, Entry, Node};

use listing::Listing;
pub use source::{SnapshotSource, SourceReader};
use stat_cache::{Room, StatCache, StatCacheWriter};
use walk::Found;

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
    let cache = options.stat_cache.as_deref().map(|path| StatCache::load(path, taken_at_ns)).unwrap_or_default();
    let found = walk::walk(root, options, &cache)?;
    let room = cache.room();
    drop(cache);
    let hashed = found.iter().flatten().map(|found| found.listing.hashed).sum();
    // Files that went are no reason to write: nobody asks for them again.
    if let Some(path) = options.stat_cache.as_deref().filter(|_| hashed > 0) {
        remember(path, taken_at_ns, &found, room);
    }
    build(root, found, hashed)
}

/// Now, as file systems tell it.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Writes the stat cache, of what had to be read where there is room after what is there; where that fails the next snapshot takes
/// longer, and that is all.
fn remember(path: &Path, taken_at_ns: i64, found: &[Option<Found>], room: Option<Room>) {
    let all = || found.iter().flatten().map(|found| &found.listing);
    let added = room.and_then(|room| Some((written(taken_at_ns, all().filter(|listing| listing.hashed > 0))?, room)));
    if let Some((writer, room)) = added {
        match writer.add_to(path, room) {
            Ok(true) => return,
            Ok(false) => {}
            // It is written anew then.
            Err(error) => tracing::warn!(path = %path.display(), %error, "stat_cache_not_added_to"),
        }
    }
    match written(taken_at_ns, all()).map(|writer| writer.save(path)) {
        None => tracing::warn!(path = %path.display(), "stat_cache_too_large"),
        Some(Err(error)) => tracing::warn!(path = %path.display(), %error, "stat_cache_not_written"),
        Some(Ok(())) => {}
    }
}

/// A section of a stat cache; none where the format cannot hold it.
fn written<'l>(taken_at_ns: i64, listings: impl Iterator<Item = &'l Listing>) -> Option<StatCacheWriter> {
    let mut writer = StatCacheWriter::new(taken_at_ns);
    for listing in listings {
        let files = listing.entries.iter().filter_map(|entry| match &entry.node {
            Node::File { digest, .. } => Some((entry.name.as_slice(), *digest)),
            Node::Symlink { .. } | Node::Directory { .. } => None,
        });
        let files = files.zip(&listing.stats).map(|((name, digest), stat)| (name, stat, digest));
        writer.add(&listing.path, files)?;
    }
    Some(writer)
}

/// Makes directories out of what was found. Each comes after the one that it is in, so from the last on each is whole when
/// its turn comes.
fn build(root: &Path, found: Vec<Option<Found>>, hashed: usize) -> Result<Snapshot, Error> {
    let blobs = found.iter().flatten().map(|found| found.listing.entries.len() + 1).sum();
    let mut source = SnapshotSource::new(root, blobs);
    let (mut files, mut bytes, mut skipped) = (0, 0, Vec::new());
    let mut below: Vec<Vec<Entry>> = found.iter().map(|_| Vec::new()).collect();
    let mut last = Digest::of(&[]);
    for (place, found) in found.into_iter().enumerate().rev() {
        let Some(Found { listing, within }) = found else { continue };
        let Listing { path, mut entries, special, .. } = listing;
        for Entry { name, node } in &entries {
            if let Node::File { digest, len, .. } = node {
                files += 1;
                bytes += len;
                source.add_file(*digest, (&path, name), *len);
            }
        }
        let parent = Path::new(OsStr::from_bytes(&path));
        skipped.extend(special.iter().map(|name| parent.join(OsStr::from_bytes(name))));
        entries.append(&mut below.get_mut(place).map(std::mem::take).unwrap_or_default());
        let bad = |reason| Rejected::BadTree { digest: None, reason };
        let encoded = Directory::new(entries).map_err(bad)?.encode();
        last = Digest::of(&encoded);
        source.add_directory(last, encoded);
        if let Some((siblings, mode)) = within.and_then(|(parent, mode)| Some((below.get_mut(parent)?, mode))) {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
            siblings.push(Entry { name, node: Node::Directory { digest: last, mode } });
        }
    }
    skipped.sort();
    // The root comes last.
    Ok(Snapshot { root: last, files, bytes, hashed, skipped, source })
}
