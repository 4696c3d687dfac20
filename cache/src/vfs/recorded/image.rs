//! The disks that a crash could leave.
//!
//! An operation is *settled* by a sync that follows it: bytes by a sync of their file, names by a sync of their
//! directory. Settled ones are on the disk. Of the rest any may have reached it, in any order, and a write may have
//! reached it in part. All combinations would be too many; what is built is: all kept, all lost, bytes without names,
//! names without bytes, all writes torn (first half only; length without bytes; second half only), and for each
//! unsettled operation the disk where it alone is missing and the one where it alone arrived.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::{FileId, Op};

/// How many unsettled operations, counted from the last, get disks of their own.
const ALONE_MAX: usize = 64;

/// What a disk holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Image {
    /// Directories; the root is always there.
    pub dirs: BTreeSet<PathBuf>,
    /// Files and their bytes.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A disk after a crash, and how it came about.
#[derive(Debug, Clone)]
pub struct CrashImage {
    /// For messages: what happened to the operations that no sync had settled.
    pub story: String,
    /// The disk.
    pub image: Image,
}

/// What became of one unsettled operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    /// Of a write the first half; else as `Kept`.
    FirstHalf,
    /// Of a write the length, with zeros; else as `Kept`.
    Zeros,
    /// Of a write the second half, zeros before it; else as `Kept`.
    SecondHalf,
}

pub(super) fn crash_images(base: &Image, ops: &[Op], dropped: &BTreeSet<usize>) -> Vec<CrashImage> {
    let settled = settled(ops, dropped);
    let open: Vec<usize> = (0..ops.len()).filter(|i| settled.get(*i) == Some(&false) && !is_sync(ops, *i)).collect();
    let mut seen = HashSet::new();
    let mut images = Vec::new();
    let mut add = |story: String, fate: &dyn Fn(usize) -> Fate| {
        let fate = |i: usize| if settled.get(i) == Some(&true) { Fate::Kept } else { fate(i) };
        let image = replay(base, ops, &fate);
        if seen.insert(image.clone()) {
            images.push(CrashImage { story, image });
        }
    };
    let when = |condition: bool| if condition { Fate::Kept } else { Fate::Lost };
    add("all kept".to_owned(), &|_| Fate::Kept);
    add("all lost".to_owned(), &|_| Fate::Lost);
    add("bytes kept, names lost".to_owned(), &|i| when(is_data(ops, i)));
    add("names kept, bytes lost".to_owned(), &|i| when(!is_data(ops, i)));
    add("writes torn after half".to_owned(), &|_| Fate::FirstHalf);
    add("writes left zeros".to_owned(), &|_| Fate::Zeros);
    add("writes torn before half".to_owned(), &|_| Fate::SecondHalf);
    for &alone in open.iter().rev().take(ALONE_MAX) {
        add(format!("only operation {alone} lost"), &|i| when(i != alone));
        add(format!("only operation {alone} kept"), &|i| when(i == alone));
    }
    images
}

fn is_sync(ops: &[Op], i: usize) -> bool {
    matches!(ops.get(i), Some(Op::SyncData { .. } | Op::SyncDir { .. }))
}

fn is_data(ops: &[Op], i: usize) -> bool {
    matches!(ops.get(i), Some(Op::Write { .. } | Op::Truncate { .. } | Op::Punch { .. }))
}

/// For each operation whether a sync that was not dropped came after it.
///
/// A rename between directories is settled by both.
fn settled(ops: &[Op], dropped: &BTreeSet<usize>) -> Vec<bool> {
    let mut files: BTreeSet<FileId> = BTreeSet::new();
    let mut dirs: BTreeSet<&Path> = BTreeSet::new();
    let mut settled = vec![false; ops.len()];
    for (op, settled) in ops.iter().zip(&mut settled).rev() {
        let named = |path: &PathBuf| path.parent().is_some_and(|dir| dirs.contains(dir));
        *settled = match op {
            Op::SyncData { file, sync } => {
                if !dropped.contains(sync) {
                    files.insert(*file);
                }
                true
            }
            Op::SyncDir { path, sync } => {
                if !dropped.contains(sync) {
                    dirs.insert(path);
                }
                true
            }
            Op::Create { path, .. } | Op::CreateDir { path } | Op::Remove { path, .. } => named(path),
            Op::Rename { from, to, .. } => named(from) && named(to),
            Op::Write { file, .. } | Op::Truncate { file, .. } | Op::Punch { file, .. } => files.contains(file),
        };
    }
    settled
}

fn replay(base: &Image, ops: &[Op], fate: &dyn Fn(usize) -> Fate) -> Image {
    let mut contents: BTreeMap<FileId, Vec<u8>> = BTreeMap::new();
    let mut names: BTreeMap<&Path, FileId> = BTreeMap::new();
    let mut dirs: BTreeSet<PathBuf> = base.dirs.clone();
    for (id, (path, bytes)) in base.files.iter().enumerate() {
        names.insert(path, id);
        contents.insert(id, bytes.clone());
    }
    for (i, op) in ops.iter().enumerate() {
        let fate = fate(i);
        if fate == Fate::Lost {
            continue;
        }
        match op {
            Op::Create { path, file } => {
                names.insert(path, *file);
            }
            Op::CreateDir { path } => {
                dirs.insert(path.clone());
            }
            Op::Rename { from, to, file } => {
                if names.get(from.as_path()) == Some(file) {
                    names.remove(from.as_path());
                }
                names.insert(to, *file);
            }
            Op::Remove { path, file } => {
                if names.get(path.as_path()) == Some(file) {
                    names.remove(path.as_path());
                }
            }
            Op::Write { file, offset, bytes } => tear(contents.entry(*file).or_default(), *offset, bytes, fate),
            Op::Truncate { file, len } => truncate(contents.entry(*file).or_default(), *len),
            Op::Punch { file, offset, len } => punch(contents.entry(*file).or_default(), *offset, *len),
            Op::SyncData { .. } | Op::SyncDir { .. } => {}
        }
    }
    reachable(&dirs, &names, &contents)
}

/// Drops what lies in directories that did not make it.
fn reachable(dirs: &BTreeSet<PathBuf>, names: &BTreeMap<&Path, FileId>, contents: &BTreeMap<FileId, Vec<u8>>) -> Image {
    let mut image = Image::default();
    let there = |dirs: &BTreeSet<PathBuf>, path: &Path| {
        path.parent().is_none_or(|dir| dir.parent().is_none() || dirs.contains(dir))
    };
    for dir in dirs {
        if there(&image.dirs, dir) {
            image.dirs.insert(dir.clone());
        }
    }
    for (path, file) in names {
        if there(&image.dirs, path) {
            image.files.insert((*path).to_owned(), contents.get(file).cloned().unwrap_or_default());
        }
    }
    image
}

fn tear(content: &mut Vec<u8>, offset: u64, bytes: &[u8], fate: Fate) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    match fate {
        Fate::Kept => write(content, offset, bytes),
        Fate::FirstHalf => write(content, offset, first),
        Fate::Zeros => write(content, offset, &vec![0; bytes.len()]),
        Fate::SecondHalf => {
            write(content, offset, &vec![0; first.len()]);
            write(content, offset + first.len() as u64, second);
        }
        Fate::Lost => {}
    }
}

/// Lays bytes at an offset, with zeros before them where the file was shorter.
pub(super) fn write(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let Ok(start) = usize::try_from(offset) else { return };
    let end = start + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(range) = content.get_mut(start..end) {
        range.copy_from_slice(bytes);
    }
}

pub(super) fn truncate(content: &mut Vec<u8>, len: u64) {
    if let Ok(len) = usize::try_from(len) {
        content.resize(len, 0);
    }
}

pub(super) fn punch(content: &mut [u8], offset: u64, len: u64) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let end = usize::try_from(offset.saturating_add(len)).unwrap_or(usize::MAX).min(content.len());
    if let Some(range) = content.get_mut(start..end) {
        range.fill(0);
    }
}
