//! Writes a tree that was checked: one thread makes directories and symlinks, the others fill files. A file takes four calls
//! of the system (make, look, write, close) where neither owner nor umask want more.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use windlass_protocol::limits::{BLOB_SMALL_MAX_BYTES, TREE_THREADS_MAX};
use windlass_protocol::{Digest, Namespace};

use super::LayoutOptions;
use super::plan::Plan;
use crate::error::{BadTree, Error, Fault, OrFault as _, Rejected};
use crate::store::Store;
use crate::tree::{MODE_MASK, Node};

/// Files that one job of a worker holds: small enough to share a large directory, large enough to queue few jobs.
const FILES_PER_JOB: usize = 64;

/// Jobs that wait. Each may hold a directory open, so this bounds open files, too.
const JOBS_MAX: usize = 64;

/// Files to fill in one directory.
struct Job {
    dir: Arc<OwnedFd>,
    path: PathBuf,
    files: Vec<(Vec<u8>, Digest, u64, u16)>,
}

/// What all of a layout's threads need.
struct Context<'a> {
    store: &'a Store,
    namespace: &'a Namespace,
    owner: Option<(Uid, Gid)>,
}

pub(super) fn write(
    store: &Store,
    namespace: &Namespace,
    plan: &Plan,
    top: &OwnedFd,
    dest: &Path,
    options: &LayoutOptions,
) -> Result<(), Error> {
    let owner = options.owner.map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group)));
    let context = Context { store, namespace, owner };
    let top = Arc::new(top.as_fd().try_clone_to_owned().or_fault("opening", dest)?);
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(TREE_THREADS_MAX);
    let (jobs, queue) = sync_channel(JOBS_MAX);
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| fill(&context, &queue))).collect();
        let made = make(&context, plan, (Arc::clone(&top), dest.to_owned(), plan.root), &jobs);
        drop(jobs);
        let mut outcome = made;
        for worker in workers {
            let filled = worker.join().unwrap_or_else(|_| Err(Fault::Lost { doing: "writing files" }.into()));
            outcome = match (outcome, filled) {
                // A worker that failed may be why nobody took the next job.
                (Err(Error::Fault(Fault::Lost { .. })), Err(cause)) => Err(cause),
                (Ok(()), filled) => filled,
                (failed, _) => failed,
            };
        }
        outcome
    })?;
    // Last, because a directory that may not be written could not have been filled.
    finish(&context, plan, top.as_fd(), dest, plan.root)?;
    own(&context, top.as_fd(), dest)
}

/// Makes a directory's symlinks and directories, and hands its files to the workers; as deep as the tree, whose depth is
/// limited.
fn make(
    context: &Context<'_>,
    plan: &Plan,
    (dir, path, digest): (Arc<OwnedFd>, PathBuf, Digest),
    jobs: &SyncSender<Job>,
) -> Result<(), Error> {
    let mut files = Vec::new();
    let hand_over = |files: Vec<_>| {
        let job = Job { dir: Arc::clone(&dir), path: path.clone(), files };
        jobs.send(job).map_err(|_| Error::from(Fault::Lost { doing: "writing files" }))
    };
    for entry in plan.directory(&digest).entries() {
        let name = OsStr::from_bytes(&entry.name);
        let here = path.join(name);
        match &entry.node {
            Node::File { digest, len, mode } => {
                files.push((entry.name.clone(), *digest, *len, *mode));
                if files.len() == FILES_PER_JOB {
                    hand_over(std::mem::take(&mut files))?;
                }
            }
            Node::Symlink { target } => {
                let made = rustix::fs::symlinkat(OsStr::from_bytes(target), &*dir, name);
                made.map_err(|e| refused("linking", &here, e))?;
                if let Some((user, group)) = context.owner {
                    rustix::fs::chownat(&*dir, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
                        .or_fault("giving away", &here)?;
                }
            }
            Node::Directory { digest, .. } => {
                rustix::fs::mkdirat(&*dir, name, Mode::RWXU).map_err(|e| refused("making", &here, e))?;
                let child = open_directory(dir.as_fd(), name, &here)?;
                make(context, plan, (Arc::new(child), here, *digest), jobs)?;
            }
        }
    }
    if files.is_empty() { Ok(()) } else { hand_over(files) }
}

fn open_directory(dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).or_fault("opening", path)
}

/// What a name that the file system does not take, or takes for another one, says about the tree.
fn refused(doing: &'static str, path: &Path, error: Errno) -> Error {
    let reason = match error {
        Errno::NAMETOOLONG => BadTree::NameTooLong,
        // The destination was empty and names are unique, so this file system takes two names for one.
        Errno::EXIST => BadTree::CaseCollision,
        _ => return Fault::io(doing, path, error.into()).into(),
    };
    Rejected::BadTree { digest: None, reason }.into()
}

fn fill(context: &Context<'_>, queue: &Mutex<Receiver<Job>>) -> Result<(), Error> {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return Ok(()) };
        for (name, digest, len, mode) in job.files {
            let name = OsStr::from_bytes(&name);
            let filled = fill_one(context, &job.dir, name, &job.path, (digest, len, mode));
            if filled.is_err() {
                // Whoever makes directories must not wait for room in a queue that nobody empties.
                drain(queue);
            }
            filled?;
        }
    }
}

fn drain(queue: &Mutex<Receiver<Job>>) {
    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    while queue.recv().is_ok() {}
}

fn fill_one(
    context: &Context<'_>,
    dir: &OwnedFd,
    name: &OsStr,
    parent: &Path,
    (digest, len, mode): (Digest, u64, u16),
) -> Result<(), Error> {
    let path = parent.join(name);
    let blob = context.store.get(context.namespace, &digest)?;
    let blob = blob.ok_or_else(|| Rejected::Missing { digests: vec![digest] })?;
    if blob.len() != len {
        return Err(Rejected::BadTree { digest: Some(digest), reason: BadTree::Length }.into());
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let bits = Mode::from_raw_mode(u32::from(mode));
    let file = rustix::fs::openat(dir, name, flags, bits);
    let file = File::from(file.map_err(|e| refused("creating", &path, e))?);
    let mut at = 0;
    blob.copy_to(&mut |bytes| {
        if len > BLOB_SMALL_MAX_BYTES as u64 {
            write_sparse(&file, at, bytes).or_fault("writing", &path)?;
        } else {
            file.write_all_at(bytes, at).or_fault("writing", &path)?;
        }
        at += bytes.len() as u64;
        Ok(())
    })?;
    if len > BLOB_SMALL_MAX_BYTES as u64 {
        // It may end with a hole.
        file.set_len(len).or_fault("writing", &path)?;
    }
    own(context, file.as_fd(), &path)?;
    let made = rustix::fs::fstat(&file).or_fault("reading", &path)?;
    if made.st_mode & u32::from(MODE_MASK) != u32::from(mode) {
        rustix::fs::fchmod(&file, bits).or_fault("setting the mode of", &path)?;
    }
    Ok(())
}

/// What a hole is made of: the blocks of most file systems.
const BLOCK_BYTES: usize = 4 << 10;

/// Writes bytes at an offset of a new file; blocks that have nothing but zeros stay holes.
fn write_sparse(file: &File, mut at: u64, mut bytes: &[u8]) -> std::io::Result<()> {
    let is_hole = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    // Up to where blocks of the file begin; pieces of a blob begin anywhere.
    let head = usize::try_from(at.next_multiple_of(BLOCK_BYTES as u64) - at).unwrap_or(0).min(bytes.len());
    let mut next = head;
    while !bytes.is_empty() {
        let mut end = next;
        let mut blocks = bytes.get(next..).unwrap_or_default().chunks(BLOCK_BYTES);
        end += blocks.by_ref().take_while(|block| !is_hole(block)).map(<[u8]>::len).sum::<usize>();
        let (written, rest) = bytes.split_at(end);
        file.write_all_at(written, at)?;
        let hole: usize = rest.chunks(BLOCK_BYTES).take_while(|block| is_hole(block)).map(<[u8]>::len).sum();
        at += (written.len() + hole) as u64;
        bytes = rest.get(hole..).unwrap_or_default();
        next = 0;
    }
    Ok(())
}

/// Gives directories their modes and owners, the deepest first.
fn finish(context: &Context<'_>, plan: &Plan, dir: BorrowedFd<'_>, path: &Path, digest: Digest) -> Result<(), Error> {
    for entry in plan.directory(&digest).entries() {
        let Node::Directory { digest, mode } = &entry.node else { continue };
        let name = OsStr::from_bytes(&entry.name);
        let here = path.join(name);
        let child = open_directory(dir, name, &here)?;
        finish(context, plan, child.as_fd(), &here, *digest)?;
        own(context, child.as_fd(), &here)?;
        rustix::fs::fchmod(&child, Mode::from_raw_mode(u32::from(*mode))).or_fault("setting the mode of", &here)?;
    }
    Ok(())
}

fn own(context: &Context<'_>, file: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    let Some((user, group)) = context.owner else { return Ok(()) };
    Ok(rustix::fs::fchown(file, Some(user), Some(group)).or_fault("giving away", path)?)
}
