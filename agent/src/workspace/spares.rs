//! Workspaces in which a job left nothing, for the next job of their place: to make and to remove directories costs a short
//! job more than all that is written for it (docs/design/017).
//!
//! What the job's user may change of a directory is looked at, or set back, so that the next job finds one as new. Who was
//! given a descriptor of it by the job before is not let in by that, but could list names: so it goes only to jobs that read
//! and write the same content.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    CWD, FileType, IFlags, Mode, OFlags, RawDir, RenameFlags, Stat, Timespec, Timestamps, UTIME_NOW, fchmod,
    flistxattr, fstat, futimens, ioctl_getflags, openat, renameat_with,
};
use rustix::io::Errno;
use windlass_agent_runner::Slot;
use windlass_protocol::namespace::Namespace;

use super::{Workspace, wipe_now};

/// Before the name of one that waits, below `work`.
const SPARE: &str = ".spare-";

/// A directory that held more once is larger for ever, on file systems where it grows.
const SIZE_MAX_BYTES: i64 = 4096;

/// What a file system says of how it keeps a directory, and not what anybody wants of it: by extents, with an index, in its
/// inode (`linux/fs.h`).
const KEPT_AS: IFlags = IFlags::from_bits_retain(0x0008_0000 | 0x0000_1000 | 0x1000_0000);

/// Those that wait below one `work`, one for each place.
#[derive(Debug)]
pub(crate) struct Spares {
    work: PathBuf,
    /// Flags of `work`, which every directory made there begins with.
    usual: IFlags,
    /// By place, with whose content they held.
    waiting: Mutex<BTreeMap<u32, (Namespace, Workspace)>>,
}

impl Spares {
    /// Removes what an earlier run of the agent left.
    ///
    /// # Errors
    /// Those of reading `work`.
    pub(crate) fn new(work: PathBuf) -> io::Result<Self> {
        for entry in std::fs::read_dir(&work)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(SPARE)) {
                wipe_now(&entry.path());
            }
        }
        let usual = flags(openat(CWD, &work, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)?;
        Ok(Self { work, usual, waiting: Mutex::new(BTreeMap::new()) })
    }

    /// Gives the place's spare workspace to a job; says whether there was one.
    pub(crate) fn take(&self, slot: Slot, namespace: &Namespace, workspace: &Workspace) -> bool {
        let Some((whose, spare)) = self.lock().remove(&slot.index) else { return false };
        if whose != *namespace {
            wipe_now(&spare.root);
            return false;
        }
        let moved = renameat_with(CWD, &spare.root, CWD, &workspace.root, RenameFlags::NOREPLACE);
        if let Err(error) = moved {
            tracing::debug!(path = %spare.root.display(), %error, "workspace_not_used_again");
            wipe_now(&spare.root);
        }
        moved.is_ok()
    }

    /// Wipes a workspace, or keeps it for the place's next job where it is as new. Blocks.
    pub(crate) fn put(&self, slot: Slot, namespace: &Namespace, workspace: &Workspace) {
        let spare = Workspace::at(self.work.join(format!("{SPARE}{}", slot.index)));
        let kept = self.renew(slot, workspace).and_then(|as_new| {
            if as_new && !self.lock().contains_key(&slot.index) {
                renameat_with(CWD, &workspace.root, CWD, &spare.root, RenameFlags::NOREPLACE)?;
                self.lock().insert(slot.index, (namespace.clone(), spare));
                return Ok(true);
            }
            Ok(false)
        });
        match kept {
            Ok(true) => {}
            Ok(false) => wipe_now(&workspace.root),
            Err(error) => {
                tracing::debug!(path = %workspace.root.display(), %error, "workspace_not_kept_for_the_next_job");
                wipe_now(&workspace.root);
            }
        }
    }

    /// Whether nothing of a job is left in a workspace, after what can be set back was.
    fn renew(&self, slot: Slot, workspace: &Workspace) -> rustix::io::Result<bool> {
        let wanted = [
            (&workspace.checkout, &[][..]),
            (&workspace.home, &[][..]),
            (&workspace.root, &[c"checkout", c"home"][..]),
        ];
        for (path, names) in wanted {
            if !renew_dir(path, names, slot, self.usual)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, (Namespace, Workspace)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets a directory's mode and times back; `false` where it holds anything but `names`, or has what a new one has not.
fn renew_dir(path: &Path, names: &[&CStr], slot: Slot, usual: IFlags) -> rustix::io::Result<bool> {
    // Its owner may have shut it: the agent may open it all the same only where it is root.
    let how = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(CWD, path, how, Mode::empty())?;
    let found = fstat(&dir)?;
    if !is_owned(&found, slot) || found.st_size > SIZE_MAX_BYTES || flags(&dir)? != usual || has_attributes(&dir)? {
        return Ok(false);
    }
    if !holds_only(&dir, names)? {
        return Ok(false);
    }
    if Mode::from_raw_mode(found.st_mode) != Mode::RWXU {
        fchmod(&dir, Mode::RWXU)?;
    }
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    futimens(&dir, &Timestamps { last_access: now, last_modification: now })?;
    Ok(true)
}

fn is_owned(found: &Stat, slot: Slot) -> bool {
    let owner = slot.user.map_or_else(
        || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        |user| (user.uid, user.gid),
    );
    FileType::from_raw_mode(found.st_mode) == FileType::Directory && (found.st_uid, found.st_gid) == owner
}

/// Flags that `chattr` sets, as far as anybody can; none where the file system has none.
fn flags(dir: impl AsFd) -> rustix::io::Result<IFlags> {
    match ioctl_getflags(dir) {
        Ok(flags) => Ok(flags.difference(KEPT_AS)),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(IFlags::empty()),
        Err(error) => Err(error),
    }
}

/// Extended attributes, and with them access control lists, which would let others in.
fn has_attributes(dir: &OwnedFd) -> rustix::io::Result<bool> {
    match flistxattr(dir, &mut [0_u8; 1]) {
        Ok(bytes) => Ok(bytes > 0),
        Err(Errno::RANGE) => Ok(true),
        Err(Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

fn holds_only(dir: &OwnedFd, names: &[&CStr]) -> rustix::io::Result<bool> {
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if ![c".", c".."].contains(&name) && !names.contains(&name) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::process::Command;

    use windlass_protocol::job::Source;

    use super::*;

    const SLOT: Slot = Slot { index: 3, user: None };

    fn ours() -> Namespace {
        Namespace::trusted("ours")
    }

    fn workspace(work: &Path, name: &str) -> Workspace {
        Workspace::at(work.join(name))
    }

    fn inodes(workspace: &Workspace) -> [u64; 3] {
        [&workspace.root, &workspace.checkout, &workspace.home].map(|path| fs::metadata(path).unwrap().ino())
    }

    #[test]
    fn the_places_next_job_has_the_directories_of_one_that_left_nothing_as_new_and_no_other_place_has() {
        let work = tempfile::tempdir().unwrap();
        let spares = Spares::new(work.path().to_owned()).unwrap();
        let first = workspace(work.path(), "first");
        first.create(None, &Source::Empty).unwrap();
        let inodes_before = inodes(&first);
        for path in [&first.checkout, &first.home] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o2757)).unwrap();
            assert!(Command::new("touch").args(["-d", "2001-02-03"]).arg(path).status().unwrap().success());
        }
        spares.put(SLOT, &ours(), &first);
        assert!(!first.root.exists());
        let second = workspace(work.path(), "second");
        assert!(!spares.take(Slot { index: 2, user: None }, &ours(), &second));
        assert!(spares.take(SLOT, &ours(), &second));
        assert_eq!(inodes(&second), inodes_before);
        for path in [&second.root, &second.checkout, &second.home] {
            let found = fs::metadata(path).unwrap();
            assert_eq!(found.mode() & 0o7777, 0o700, "{path:?}");
            assert!(found.modified().unwrap().elapsed().unwrap().as_secs() < 60, "{path:?}");
        }
        assert!(!spares.take(SLOT, &ours(), &workspace(work.path(), "third")), "it waits for one job");
    }

    #[test]
    fn whatever_a_job_left_or_set_ends_its_workspace() {
        type Change = fn(&Workspace);
        let changes: [(&str, Change); 8] = [
            ("a file", |w| fs::write(w.checkout.join("f"), "").unwrap()),
            ("a hidden one at home", |w| fs::write(w.home.join(".f"), "").unwrap()),
            ("one beside them", |w| fs::write(w.root.join("f"), "").unwrap()),
            ("a directory that is missing", |w| fs::remove_dir(&w.home).unwrap()),
            ("a link in its place", |w| {
                fs::remove_dir(&w.home).unwrap();
                symlink("/", &w.home).unwrap();
            }),
            ("many names that are gone", |w| {
                let names: Vec<_> = (0..1_000).map(|n| w.checkout.join(format!("{n:0>100}"))).collect();
                names.iter().for_each(|name| fs::write(name, "").unwrap());
                names.iter().for_each(|name| fs::remove_file(name).unwrap());
            }),
            ("an attribute", |w| {
                let set = rustix::fs::setxattr(&w.checkout, "user.left", b"word", rustix::fs::XattrFlags::empty());
                set.unwrap();
            }),
            ("a flag", |w| {
                let dir = fs::File::open(&w.home).unwrap();
                let flags = ioctl_getflags(&dir).unwrap();
                rustix::fs::ioctl_setflags(&dir, flags | IFlags::NODUMP).unwrap();
            }),
        ];
        let work = tempfile::tempdir().unwrap();
        let spares = Spares::new(work.path().to_owned()).unwrap();
        for (what, change) in changes {
            let used = workspace(work.path(), "used");
            used.create(None, &Source::Empty).unwrap();
            change(&used);
            spares.put(SLOT, &ours(), &used);
            assert!(!used.root.exists(), "{what}");
            assert!(!spares.take(SLOT, &ours(), &workspace(work.path(), "next")), "{what}");
        }
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
    }

    #[test]
    fn jobs_of_other_content_get_none() {
        let work = tempfile::tempdir().unwrap();
        let spares = Spares::new(work.path().to_owned()).unwrap();
        for other in [Namespace::trusted("theirs"), Namespace::overlay("ours", "pr:1")] {
            let used = workspace(work.path(), "used");
            used.create(None, &Source::Empty).unwrap();
            spares.put(SLOT, &ours(), &used);
            assert!(!spares.take(SLOT, &other, &workspace(work.path(), "next")));
            assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0, "nor does it wait any longer");
        }
    }

    #[test]
    fn one_waits_for_each_place_and_none_outlives_the_agent() {
        let work = tempfile::tempdir().unwrap();
        let spares = Spares::new(work.path().to_owned()).unwrap();
        for name in ["a", "b"] {
            let used = workspace(work.path(), name);
            used.create(None, &Source::Empty).unwrap();
            spares.put(SLOT, &ours(), &used);
        }
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 1);
        let spares = Spares::new(work.path().to_owned()).unwrap();
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
        assert!(!spares.take(SLOT, &ours(), &workspace(work.path(), "c")));
    }
}
