//! Walks a directory on all cores and hashes what is not known.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ignore::overrides::OverrideBuilder;
use ignore::{DirEntry, WalkBuilder, WalkState};
use windlass_protocol::Digest;

use super::Options;
use super::stat_cache::{Stat, StatCache};
use crate::error::{Error, Fault, OrFault as _, Rejected};
use crate::tree::MODE_MASK;

/// How often a file that changes while it is read is read again.
const TRIES_MAX: usize = 3;

const PIECE_BYTES: usize = 128 << 10;

/// One name below the root.
#[derive(Debug)]
pub(super) struct Found {
    /// Relative to the root.
    pub(super) path: PathBuf,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    File(FoundFile),
    Symlink(Vec<u8>),
    /// With its mode.
    Directory(u16),
    Special,
}

#[derive(Debug)]
pub(super) struct FoundFile {
    pub(super) digest: Digest,
    pub(super) len: u64,
    pub(super) mode: u16,
    pub(super) stat: Stat,
    /// Whether its bytes were read.
    pub(super) hashed: bool,
}

pub(super) fn walk(root: &Path, options: &Options, cache: &StatCache) -> Result<Vec<Found>, Error> {
    let bad = |reason| Rejected::BadPath { path: root.to_owned(), reason };
    if !fs::metadata(root).or_fault("reading", root)?.is_dir() {
        return Err(bad("it is not a directory").into());
    }
    let mut overrides = OverrideBuilder::new(root);
    for pattern in &options.excludes {
        overrides.add(&format!("!{pattern}")).map_err(|_| bad("a pattern to leave out does not read"))?;
    }
    let overrides = overrides.build().map_err(|_| bad("the patterns to leave out do not read"))?;
    let walker = WalkBuilder::new(root)
        .standard_filters(false)
        .git_ignore(options.respect_gitignore)
        .git_exclude(options.respect_gitignore)
        .require_git(false)
        .follow_links(false)
        .overrides(overrides)
        .filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git")
        .threads(std::thread::available_parallelism().map_or(2, usize::from))
        .build_parallel();
    let sink = Sink { done: Mutex::default(), failed: Mutex::default() };
    let shared = &sink;
    walker.run(|| {
        let mut local = Local { sink: shared, found: Vec::new(), buffer: vec![0; PIECE_BYTES] };
        Box::new(move |entry| {
            let looked = entry.map_err(|e| unreadable(root, e)).and_then(|entry| local.look(root, cache, &entry));
            match looked {
                Ok(()) => WalkState::Continue,
                Err(error) => {
                    shared.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    WalkState::Quit
                }
            }
        })
    });
    match sink.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(sink.done.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Where the threads bring what they found.
struct Sink {
    done: Mutex<Vec<Found>>,
    failed: Mutex<Option<Error>>,
}

/// What one thread found.
struct Local<'a> {
    sink: &'a Sink,
    found: Vec<Found>,
    buffer: Vec<u8>,
}

impl Drop for Local<'_> {
    fn drop(&mut self) {
        self.sink.done.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.found);
    }
}

impl Local<'_> {
    fn look(&mut self, root: &Path, cache: &StatCache, entry: &DirEntry) -> Result<(), Error> {
        if entry.depth() == 0 {
            return Ok(());
        }
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path()).to_owned();
        match self.what(cache, entry.path(), &path) {
            Ok(what) => {
                self.found.push(Found { path, what });
                Ok(())
            }
            // Gone between being listed and being looked at: it was not there.
            Err(Error::Fault(Fault::Io { source, .. })) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn what(&mut self, cache: &StatCache, full: &Path, path: &Path) -> Result<What, Error> {
        let meta = fs::symlink_metadata(full).or_fault("reading", full)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            Ok(What::Directory(mode(&meta)))
        } else if kind.is_symlink() {
            Ok(What::Symlink(fs::read_link(full).or_fault("reading", full)?.into_os_string().into_vec()))
        } else if kind.is_file() {
            let stat = Stat::of(&meta);
            if let Some(digest) = cache.get(path, &stat) {
                return Ok(What::File(FoundFile { digest, len: meta.len(), mode: mode(&meta), stat, hashed: false }));
            }
            self.hash(full).map(What::File)
        } else {
            Ok(What::Special)
        }
    }

    fn hash(&mut self, path: &Path) -> Result<FoundFile, Error> {
        for _ in 0..TRIES_MAX {
            let mut file = open(path).or_fault("opening", path)?;
            let before = file.metadata().or_fault("reading", path)?;
            let mut hasher = blake3::Hasher::new();
            let mut len = 0;
            loop {
                let n = file.read(&mut self.buffer).or_fault("reading", path)?;
                let piece = self.buffer.get(..n).unwrap_or_default();
                if piece.is_empty() {
                    break;
                }
                hasher.update(piece);
                len += n as u64;
            }
            let after = file.metadata().or_fault("reading", path)?;
            let stat = Stat::of(&after);
            if Stat::of(&before) == stat && after.len() == len {
                let digest = Digest::from_hasher(&hasher);
                return Ok(FoundFile { digest, len, mode: mode(&after), stat, hashed: true });
            }
        }
        Err(Rejected::Changed { path: path.to_owned() }.into())
    }
}

/// Opens a regular file; what became a symlink or a pipe meanwhile is neither followed nor waited for.
pub(super) fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(path)
}

fn mode(meta: &Metadata) -> u16 {
    u16::try_from(meta.mode() & u32::from(MODE_MASK)).unwrap_or(MODE_MASK)
}

fn unreadable(root: &Path, error: ignore::Error) -> Error {
    let path = path_of(&error).unwrap_or(root).to_owned();
    let source = match error.io_error() {
        Some(e) => e.raw_os_error().map_or_else(|| io::Error::other(e.to_string()), io::Error::from_raw_os_error),
        None => io::Error::other(error),
    };
    Fault::io("reading", &path, source).into()
}

fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
        _ => None,
    }
}
