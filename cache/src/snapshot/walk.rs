//! Walks a directory on a few threads. Directories wait in one stack; a thread takes one, reads it, and adds those in it.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use windlass_protocol::limits::{TREE_DEPTH_MAX, TREE_MAX_ENTRIES, TREE_THREADS_MAX};

use super::Options;
use super::ignored::{Ignored, Rules};
use super::listing::{Lister, Listing};
use super::stat_cache::StatCache;
use crate::error::{BadTree, Error, Fault, OrFault as _, Rejected};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// A directory that was read. The first is the root; every other comes after the one that it is in.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) listing: Listing,
    /// The place of the directory that it is in, and its own mode; of the root, nothing.
    pub(super) within: Option<(usize, u16)>,
}

/// A directory that waits to be read.
struct Waiting {
    path: Vec<u8>,
    place: usize,
    within: Option<(usize, u16)>,
    depth: usize,
    rules: Rules,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    /// Threads that read a directory just now.
    busy: usize,
    /// Threads that wait for one.
    idle: usize,
    /// Places that were given away.
    places: usize,
    entries: usize,
    failed: Option<Error>,
}

struct Walk<'a> {
    top: OwnedFd,
    root: &'a Path,
    state: Mutex<State>,
    more: Condvar,
}

/// Every directory below `root`, by their places; those that went meanwhile are missing.
pub(super) fn walk(root: &Path, options: &Options, cache: &StatCache) -> Result<Vec<Option<Found>>, Error> {
    let ignored = Ignored::new(root, options)?;
    // The root itself may be a link.
    let top = match rustix::fs::openat(CWD, root, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty()) {
        Err(Errno::NOTDIR) => {
            return Err(Rejected::BadPath { path: root.to_owned(), reason: "it is not a directory" }.into());
        }
        top => top.or_fault("reading", root)?,
    };
    let first = Waiting { path: Vec::new(), place: 0, within: None, depth: 0, rules: None };
    let state = Mutex::new(State { waiting: vec![first], places: 1, ..State::default() });
    let walk = Walk { top, root, state, more: Condvar::new() };
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(TREE_THREADS_MAX);
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| walk.run(Lister::new(root, &ignored, cache)))).collect();
        let mut found = Vec::new();
        for thread in threads {
            let part = thread.join().map_err(|_| Error::from(Fault::Lost { doing: "reading directories" }))?;
            found.extend(part);
        }
        Ok::<_, Error>(found)
    })?;
    let State { places, failed, .. } = walk.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = failed {
        return Err(error);
    }
    let mut all: Vec<Option<Found>> = (0..places).map(|_| None).collect();
    for (place, one) in found {
        if let Some(slot) = all.get_mut(place) {
            *slot = Some(one);
        }
    }
    Ok(all)
}

impl Walk<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut lister: Lister<'_>) -> Vec<(usize, Found)> {
        let _leaving = Leaving(self);
        let mut found = Vec::new();
        while let Some(Waiting { path, place, within, depth, rules }) = self.next() {
            match self.read(&mut lister, path, &rules) {
                Ok(Some(listing)) => {
                    self.done(place, depth, &listing);
                    found.push((place, Found { listing, within }));
                }
                Ok(None) => self.state().busy -= 1,
                Err(error) => self.fail(error),
            }
        }
        found
    }

    /// The next directory, once there is one; nothing at the end.
    fn next(&self) -> Option<Waiting> {
        let mut state = self.state();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(waiting) = state.waiting.pop() {
                state.busy += 1;
                return Some(waiting);
            }
            if state.busy == 0 {
                return None;
            }
            state.idle += 1;
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn read(&self, lister: &mut Lister<'_>, path: Vec<u8>, rules: &Rules) -> Result<Option<Listing>, Error> {
        let full = || self.root.join(OsStr::from_bytes(&path));
        let opened = if path.is_empty() {
            // A descriptor of its own, for its place in the directory is shared otherwise.
            open_below(self.top.as_fd(), Path::new("."))
        } else {
            open_below(self.top.as_fd(), Path::new(OsStr::from_bytes(&path)))
        };
        let dir = match opened {
            // Gone between being listed and being opened, or a directory in the way became something else.
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Err(Rejected::Changed { path: full() }.into()),
            opened => opened.or_fault("reading", &full())?,
        };
        lister.list(&dir, path, rules).map(Some)
    }

    fn done(&self, place: usize, depth: usize, listing: &Listing) {
        let mut state = self.state();
        state.busy -= 1;
        state.entries += listing.entries.len() + listing.below.len();
        let bad = if state.entries > TREE_MAX_ENTRIES {
            Some(BadTree::TooManyEntries)
        } else if depth >= TREE_DEPTH_MAX && !listing.below.is_empty() {
            Some(BadTree::TooDeep)
        } else {
            None
        };
        if let Some(reason) = bad {
            state.failed.get_or_insert(Rejected::BadTree { digest: None, reason }.into());
            return;
        }
        for (name, mode) in &listing.below {
            let path = if listing.path.is_empty() { name.clone() } else { [&listing.path, &b"/"[..], name].concat() };
            let (within, rules) = (Some((place, *mode)), listing.rules.clone());
            let place = state.places;
            state.places += 1;
            state.waiting.push(Waiting { path, place, within, depth: depth + 1, rules });
        }
        if state.idle > 0 && listing.below.len() > 1 {
            drop(state);
            self.more.notify_all();
        }
    }

    fn fail(&self, error: Error) {
        let mut state = self.state();
        state.busy -= 1;
        state.failed.get_or_insert(error);
    }
}

/// A thread that ends, however that comes: whoever waits sees that nobody is at work any more.
struct Leaving<'a>(&'a Walk<'a>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state().failed.get_or_insert(Fault::Lost { doing: "reading directories" }.into());
        }
        self.0.more.notify_all();
    }
}

/// Opens a directory below another, through no symlink.
fn open_below(top: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(top, path, DIRECTORY, Mode::empty(), resolve) {
        // Old kernels and some sandboxes have no openat2: the last name alone is known to be no symlink then.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(top, path, DIRECTORY, Mode::empty()),
        opened => opened,
    }
}
