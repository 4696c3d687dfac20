//! Reads one directory: its names, what each is, and the bytes of what is not known.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;
use windlass_protocol::Digest;

use super::ignored::{Ignored, Rules};
use super::stat_cache::{Known, Stat, StatCache};
use crate::error::{Error, OrFault as _, Rejected};
use crate::tree::{Entry, MODE_MASK, Node};

/// How often a file that changes while it is read is read again.
const TRIES_MAX: usize = 3;

const PIECE_BYTES: usize = 128 << 10;

/// Names are asked of the kernel in pieces of this size.
const NAMES_BYTES: usize = 32 << 10;

/// A directory as it was, without what is below its directories.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Relative to the root; nothing for the root itself.
    pub(super) path: Vec<u8>,
    /// Symlinks and files, sorted.
    pub(super) entries: Vec<Entry>,
    /// What the files among them were, in this order.
    pub(super) stats: Vec<Stat>,
    /// How many of the files were read.
    pub(super) hashed: usize,
    /// Names of sockets, pipes and devices.
    pub(super) special: Vec<Vec<u8>>,
    /// Directories in it, with their modes.
    pub(super) below: Vec<(Vec<u8>, u16)>,
    /// What rules hold in those.
    pub(super) rules: Rules,
}

/// What one thread needs to read directories.
pub(super) struct Lister<'a> {
    root: &'a Path,
    ignored: &'a Ignored,
    cache: &'a StatCache,
    names: Vec<u8>,
    piece: Vec<u8>,
}

impl<'a> Lister<'a> {
    pub(super) fn new(root: &'a Path, ignored: &'a Ignored, cache: &'a StatCache) -> Self {
        Self { root, ignored, cache, names: Vec::with_capacity(NAMES_BYTES), piece: vec![0; PIECE_BYTES] }
    }

    /// Reads the open directory that lies at `path`.
    pub(super) fn list(&mut self, dir: &OwnedFd, path: Vec<u8>, outer: &Rules) -> Result<Listing, Error> {
        let full = self.root.join(OsStr::from_bytes(&path));
        let mut names = self.names(dir, &full)?;
        names.sort_unstable();
        let rules = self.ignored.enter(&full, outer, names.iter().map(|name| name.to_bytes()));
        let takes_all = self.ignored.takes_all(&rules);
        let mut known = self.cache.directory(&path);
        let mut listing = Listing { path, rules, ..Listing::default() };
        for name in names {
            if name.to_bytes() == b".git" {
                continue;
            }
            let here = || full.join(OsStr::from_bytes(name.to_bytes()));
            let stat = match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                // Gone between being listed and being looked at: it was not there.
                Err(Errno::NOENT) => continue,
                stat => stat.or_fault("reading", &here())?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if !takes_all && self.ignored.leaves_out(&listing.rules, &here(), kind == FileType::Directory) {
                continue;
            }
            match kind {
                FileType::Directory => listing.below.push((name.into_bytes(), mode(&stat))),
                FileType::RegularFile => self.file(dir, &name, (&stat, &mut known), &here, &mut listing)?,
                FileType::Symlink => {
                    let target = match rustix::fs::readlinkat(dir, &name, Vec::new()) {
                        Err(Errno::NOENT) => continue,
                        target => target.or_fault("reading", &here())?,
                    };
                    let node = Node::Symlink { target: target.into_bytes() };
                    listing.entries.push(Entry { name: name.into_bytes(), node });
                }
                _ => listing.special.push(name.into_bytes()),
            }
        }
        Ok(listing)
    }

    fn names(&mut self, dir: &OwnedFd, full: &Path) -> Result<Vec<CString>, Error> {
        let mut names = Vec::new();
        let mut entries = RawDir::new(dir, self.names.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.or_fault("reading", full)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        Ok(names)
    }

    /// Takes a file in, read or known.
    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        (found, known): (&rustix::fs::Stat, &mut Known<'_>),
        here: &dyn Fn() -> PathBuf,
        listing: &mut Listing,
    ) -> Result<(), Error> {
        let mut stat = Stat::of(found);
        let mut node =
            known.digest(name.to_bytes(), &stat).map(|digest| Node::File { digest, len: stat.size, mode: mode(found) });
        if node.is_none() {
            let Some(read) = self.hash(dir.as_fd(), name, here)? else { return Ok(()) };
            listing.hashed += 1;
            stat = read.0;
            node = Some(read.1);
        }
        listing.entries.extend(node.map(|node| Entry { name: name.to_bytes().to_vec(), node }));
        listing.stats.push(stat);
        Ok(())
    }

    /// Reads a file that stands still meanwhile; nothing where it is gone.
    fn hash(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        here: &dyn Fn() -> PathBuf,
    ) -> Result<Option<(Stat, Node)>, Error> {
        for _ in 0..TRIES_MAX {
            let mut file = match rustix::fs::openat(dir, name, OPEN, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(None),
                // It became a link meanwhile.
                Err(Errno::LOOP) => break,
                file => File::from(file.or_fault("opening", &here())?),
            };
            let before = rustix::fs::fstat(&file).or_fault("reading", &here())?;
            if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
                break;
            }
            let stat = Stat::of(&before);
            let (mut hasher, mut len) = (blake3::Hasher::new(), 0);
            while len < stat.size {
                let n = file.read(&mut self.piece).or_fault("reading", &here())?;
                let piece = self.piece.get(..n).unwrap_or_default();
                if piece.is_empty() {
                    break;
                }
                hasher.update(piece);
                len += n as u64;
            }
            let after = rustix::fs::fstat(&file).or_fault("reading", &here())?;
            if Stat::of(&after) == stat && stat.size == len {
                let digest = Digest::from_hasher(&hasher);
                return Ok(Some((stat, Node::File { digest, len, mode: mode(&after) })));
            }
        }
        Err(Rejected::Changed { path: here() }.into())
    }
}

/// What became a symlink or a pipe meanwhile is neither followed nor waited for.
pub(super) const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

fn mode(stat: &rustix::fs::Stat) -> u16 {
    u16::try_from(stat.st_mode & u32::from(MODE_MASK)).unwrap_or(MODE_MASK)
}
