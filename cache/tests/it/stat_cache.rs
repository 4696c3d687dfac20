//! What the stat cache of a snapshot must notice, whatever was done so that it does not.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use windlass_cache::snapshot;
use windlass_cache::snapshot::Options;
use windlass_protocol::Digest;

use crate::tree::settle;

/// The time that every file says it was changed at, whatever was done to it.
fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789)
}

fn disguise(path: &Path) {
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(long_ago())).unwrap();
}

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    disguise(path);
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// Something that is done to the directories `a` and `b`, each with the files `one` and `two`, all of one size and time.
type Trick = (&'static str, fn(&Path));

const TRICKS: [Trick; 11] = [
    ("written in place, its time set back", |dir| put(&dir.join("a/one"), "other")),
    ("another file renamed over it", |dir| {
        put(&dir.join("new"), "other");
        fs::rename(dir.join("new"), dir.join("a/one")).unwrap();
    }),
    ("removed and made again, perhaps with its inode", |dir| {
        fs::remove_file(dir.join("a/one")).unwrap();
        put(&dir.join("a/one"), "other");
    }),
    ("two files change places", |dir| exchange(&dir.join("a/one"), &dir.join("a/two"))),
    ("two directories change places, their files untouched", |dir| exchange(&dir.join("a"), &dir.join("b"))),
    ("another name of another file put in its place", |dir| {
        fs::remove_file(dir.join("a/one")).unwrap();
        fs::hard_link(dir.join("b/two"), dir.join("a/one")).unwrap();
    }),
    ("cut and written again", |dir| {
        let file = File::options().write(true).open(dir.join("a/one")).unwrap();
        file.set_len(0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"other", 0).unwrap();
        disguise(&dir.join("a/one"));
    }),
    ("a link put in its place", |dir| {
        fs::remove_file(dir.join("a/one")).unwrap();
        symlink("two", dir.join("a/one")).unwrap();
    }),
    ("its mode changed", |dir| fs::set_permissions(dir.join("a/one"), fs::Permissions::from_mode(0o755)).unwrap()),
    ("written in place, its time set to come", |dir| {
        fs::write(dir.join("a/one"), "other").unwrap();
        let to_come = FileTimes::new().set_modified(SystemTime::now() + Duration::from_secs(9_999));
        File::options().write(true).open(dir.join("a/one")).unwrap().set_times(to_come).unwrap();
    }),
    ("a file gone and one come", |dir| fs::rename(dir.join("a/one"), dir.join("a/zero")).unwrap()),
];

fn roots(dir: &Path, stat_cache: &Path) -> (Digest, Digest) {
    let options = Options { stat_cache: Some(stat_cache.to_owned()), ..Options::default() };
    let root = |options: &Options| snapshot(dir, options).unwrap().root;
    (root(&options), root(&Options::default()))
}

#[test]
fn no_trick_that_keeps_size_and_time_hides_a_change() {
    for (what, trick) in TRICKS {
        let dir = tempfile::tempdir().unwrap();
        let (tree, cache) = (dir.path().join("tree"), dir.path().join("cache"));
        for (n, name) in ["a/one", "a/two", "b/one", "b/two"].into_iter().enumerate() {
            fs::create_dir_all(tree.join(name).parent().unwrap()).unwrap();
            put(&tree.join(name), &format!("text{n}"));
        }
        settle(&tree, dir.path());
        let before = roots(&tree, &cache);
        assert_eq!(before.0, before.1, "{what}");
        let options = Options { stat_cache: Some(cache.clone()), ..Options::default() };
        assert_eq!(snapshot(&tree, &options).unwrap().hashed, 0, "{what}: nothing is read again before it");
        trick(&tree);
        let after = roots(&tree, &cache);
        assert_eq!(after.0, after.1, "{what}");
        assert_ne!(after.0, before.0, "{what}: there is something to see");
    }
}

#[test]
fn a_file_that_is_written_in_the_tick_of_the_clock_in_which_it_was_read_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, cache) = (dir.path().join("tree"), dir.path().join("cache"));
    fs::create_dir(&tree).unwrap();
    for round in 0..100 {
        fs::write(tree.join("file"), format!("{round:06}")).unwrap();
        let (known, fresh) = roots(&tree, &cache);
        assert_eq!(known, fresh, "round {round}");
    }
}
