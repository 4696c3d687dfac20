//! From a directory to a tree to a directory: nothing is lost, nothing leaves its place.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use windlass_cache::snapshot::Options;
use windlass_cache::tree::{Directory, Entry, Node};
use windlass_cache::{
    BadTree, Error, LayoutOptions, RealFs, Rejected, Snapshot, Store, StoreOptions, layout, snapshot, wipe,
};
use windlass_protocol::{Digest, Namespace};

fn namespace() -> Namespace {
    Namespace::trusted("p")
}

fn lazy(dir: &Path) -> Store {
    Store::open(Arc::new(RealFs), &dir.join("store"), StoreOptions::lazy(1 << 30)).unwrap()
}

fn take(dir: &Path) -> Snapshot {
    snapshot(dir, &Options::default()).unwrap()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Every path of a tree in a store.
fn paths(store: &Store, root: Digest) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut left = vec![(PathBuf::new(), root)];
    while let Some((path, digest)) = left.pop() {
        let bytes = store.get(&namespace(), &digest).unwrap().unwrap().into_vec().unwrap();
        for entry in Directory::decode(&bytes).unwrap().entries() {
            let here = path.join(OsStr::from_bytes(&entry.name));
            if let Node::Directory { digest, .. } = entry.node {
                left.push((here.clone(), digest));
            }
            all.push(here);
        }
    }
    all.sort();
    all
}

#[test]
fn a_tree_comes_back_with_its_symlinks_modes_empty_directories_and_odd_names() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    write(&from, "src/main.rs", b"fn main() {}");
    write(&from, ".hidden/file", b"");
    write(&from, "large", &vec![7; 300_000]);
    write(&from, "run.sh", b"#!/bin/sh\n");
    fs::write(from.join(OsStr::from_bytes(b"not \xff utf-8 \n")), b"odd").unwrap();
    fs::create_dir_all(from.join("empty/inside")).unwrap();
    symlink("src/main.rs", from.join("link")).unwrap();
    symlink("/nowhere/at/all", from.join("dangling")).unwrap();
    symlink("..", from.join("src/up")).unwrap();
    mode(&from.join("run.sh"), 0o4751);
    mode(&from.join("large"), 0o400);
    mode(&from.join("empty"), 0o555);
    let store = lazy(dir.path());
    let snapshot = take(&from);
    assert_eq!((snapshot.files, snapshot.skipped.len()), (5, 0));
    snapshot.source.store(&store, &namespace()).unwrap();
    let laid = layout(&store, &namespace(), snapshot.root, &to, &LayoutOptions::default()).unwrap();
    assert_eq!((laid.files, laid.symlinks, laid.directories, laid.bytes), (5, 3, 4, snapshot.bytes));
    assert_eq!(take(&to).root, snapshot.root);
    assert_eq!(fs::metadata(to.join("run.sh")).unwrap().mode() & 0o7777, 0o751, "no set-user-id survives");
    assert_eq!(fs::metadata(to.join("empty")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::read_link(to.join("dangling")).unwrap(), Path::new("/nowhere/at/all"));

    // A job that changes its files changes nothing but them.
    mode(&to.join("large"), 0o600);
    fs::write(to.join("large"), b"changed").unwrap();
    assert_eq!(store.verify().unwrap().damaged, []);
    wipe(&to).unwrap();
    assert!(!to.exists());
}

#[test]
fn ignored_files_and_git_stay_out_in_a_repository_or_not_and_the_rest_stays_in() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repo");
    write(dir.path(), ".gitignore", b"kept-though-the-parent-ignores-it\n");
    write(&root, "kept-though-the-parent-ignores-it", b"");
    write(&root, ".gitignore", b"*.o\n/target/\n!keep.o\n");
    for name in ["a.o", "keep.o", "target/x", "sub/target/y", "sub/b.o", ".git/HEAD", "sub/.git", "secret.tmp"] {
        write(&root, name, b"");
    }
    write(&root, ".ignore", b"sub\n");
    let store = lazy(dir.path());
    let names = |options: &Options| {
        let snapshot = snapshot(&root, options).unwrap();
        snapshot.source.store(&store, &namespace()).unwrap();
        paths(&store, snapshot.root).iter().map(|p| p.display().to_string()).collect::<Vec<_>>()
    };
    let excludes = vec!["*.tmp".to_owned()];
    let ignored = names(&Options { excludes: excludes.clone(), ..Options::default() });
    let expected =
        [".gitignore", ".ignore", "keep.o", "kept-though-the-parent-ignores-it", "sub", "sub/target", "sub/target/y"];
    assert_eq!(ignored, expected);
    let all = names(&Options { respect_gitignore: false, excludes, ..Options::default() });
    assert_eq!(all.len(), 11, "{all:?}");
    assert!(!all.iter().any(|name| name.contains(".git/") || name.ends_with("/.git")));
}

#[test]
fn sockets_and_pipes_are_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "file", b"x");
    let before = take(dir.path()).root;
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let snapshot = take(dir.path());
    assert_eq!(snapshot.skipped, [PathBuf::from("pipe"), PathBuf::from("socket")]);
    assert_eq!(snapshot.root, before);
}

#[test]
fn a_file_that_changed_since_the_snapshot_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    for (name, then) in [("same-length", Some(b"11111")), ("gone", None)] {
        write(dir.path(), name, name.as_bytes());
        let snapshot = take(dir.path());
        let digest = Digest::of(name.as_bytes());
        assert_eq!(snapshot.source.read(&digest).unwrap().unwrap(), name.as_bytes());
        match then {
            Some(_) => fs::write(dir.path().join(name), vec![b'1'; name.len()]).unwrap(),
            None => fs::remove_file(dir.path().join(name)).unwrap(),
        }
        let error = snapshot.source.read(&digest).unwrap_err();
        assert!(matches!(error, Error::Rejected(Rejected::Changed { .. })), "{error}");
    }
}

#[test]
fn what_is_not_visible_is_named_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    write(&from, "a/b", b"one");
    write(&from, "a/c", b"two");
    let store = lazy(dir.path());
    let snapshot = take(&from);
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    for (digest, _) in snapshot.source.digests() {
        if digest != one && digest != two {
            store.put(&namespace(), &snapshot.source.read(&digest).unwrap().unwrap()).unwrap();
        }
    }
    let to = dir.path().join("to");
    let error = layout(&store, &namespace(), snapshot.root, &to, &LayoutOptions::default()).unwrap_err();
    let mut digests = vec![one, two];
    digests.sort();
    assert!(matches!(&error, Error::Rejected(Rejected::Missing { digests: d }) if *d == digests), "{error}");
    assert!(!to.exists());
    let elsewhere = Namespace::trusted("q");
    let error = layout(&store, &elsewhere, snapshot.root, &to, &LayoutOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Rejected(Rejected::Missing { digests }) if *digests == [snapshot.root]), "{error}");
}

fn put_directory(store: &Store, entries: Vec<Entry>) -> Digest {
    store.put(&namespace(), &Directory::new(entries).unwrap().encode()).unwrap()
}

fn entry(name: &str, node: Node) -> Entry {
    Entry { name: name.as_bytes().to_vec(), node }
}

#[test]
fn hostile_trees_are_refused_and_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = lazy(dir.path());
    let blob = store.put(&namespace(), b"payload").unwrap();
    let file = Node::File { digest: blob, len: 7, mode: 0o644 };
    let raw = |name: &[u8]| {
        // What `Directory::new` would refuse, by hand.
        let mut bytes = put_by_hand(name, b"WLDIR\x01\0\0\x01\0\0\0\x01");
        bytes.extend_from_slice(&[0xff, 1]);
        bytes.extend_from_slice(&7_u64.to_le_bytes());
        bytes.extend_from_slice(blob.as_bytes());
        store.put(&namespace(), &bytes).unwrap()
    };
    let mut deep = put_directory(&store, vec![entry("f", file.clone())]);
    for _ in 0..300 {
        deep = put_directory(&store, vec![entry("d", Node::Directory { digest: deep, mode: 0o755 })]);
    }
    let mut wide = put_directory(&store, vec![entry("f", file.clone())]);
    for _ in 0..8 {
        let name = |n: usize| entry(&n.to_string(), Node::Directory { digest: wide, mode: 0o755 });
        wide = put_directory(&store, (0..100).map(name).collect());
    }
    let wrong_length = put_directory(&store, vec![entry("f", Node::File { digest: blob, len: 8, mode: 0o644 })]);
    let long_name = put_directory(&store, vec![entry(&"n".repeat(300), file.clone())]);
    let cases = put_directory(&store, vec![entry("A", file.clone()), entry("a", file.clone())]);
    let bomb = (0..10).map(|n| entry(&n.to_string(), file.clone())).collect();
    let bomb = put_directory(&store, bomb);
    let table = [
        (raw(b"../escape"), BadTree::NameByte),
        (raw(b".."), BadTree::DotName),
        (raw(b"/etc/passwd"), BadTree::NameByte),
        (raw(b""), BadTree::EmptyName),
        (blob, BadTree::Version),
        (deep, BadTree::TooDeep),
        (wide, BadTree::TooManyEntries),
        (wrong_length, BadTree::Length),
        (long_name, BadTree::NameTooLong),
        (cases, BadTree::CaseCollision),
        (bomb, BadTree::TooLarge),
    ];
    let options = LayoutOptions { refuse_case_collisions: true, max_bytes: Some(50), ..LayoutOptions::default() };
    for (nth, (root, expected)) in table.into_iter().enumerate() {
        let to = dir.path().join(format!("to-{nth}"));
        let error = layout(&store, &namespace(), root, &to, &options).unwrap_err();
        let reason = match &error {
            Error::Rejected(Rejected::BadTree { reason, .. }) => *reason,
            _ => panic!("{expected:?}: {error}"),
        };
        assert_eq!(reason, expected);
        wipe(&to).unwrap();
    }
    assert!(!dir.path().join("escape").exists());
}

fn put_by_hand(name: &[u8], head: &[u8]) -> Vec<u8> {
    let len = u16::try_from(name.len()).unwrap().to_le_bytes();
    [head, &len, name].concat()
}

#[test]
fn a_destination_that_holds_something_or_is_a_symlink_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = lazy(dir.path());
    let root = put_directory(&store, Vec::new());
    write(dir.path(), "full/x", b"");
    symlink(dir.path(), dir.path().join("link")).unwrap();
    for name in ["full", "link", "full/x"] {
        let error = layout(&store, &namespace(), root, &dir.path().join(name), &LayoutOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Rejected(Rejected::BadPath { .. })), "{error}");
    }
}

#[test]
fn the_owner_is_given_to_everything_that_is_laid_out_and_to_no_target_of_a_symlink() {
    if !rustix::process::geteuid().is_root() {
        // Only root gives files away; elsewhere the same code runs without an owner.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (from, to, outside) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("outside"));
    write(&from, "sub/file", b"x");
    fs::write(&outside, b"mine").unwrap();
    symlink(&outside, from.join("link")).unwrap();
    let store = lazy(dir.path());
    let snapshot = take(&from);
    snapshot.source.store(&store, &namespace()).unwrap();
    let options = LayoutOptions { owner: Some((12_345, 23_456)), ..LayoutOptions::default() };
    layout(&store, &namespace(), snapshot.root, &to, &options).unwrap();
    for name in ["", "sub", "sub/file", "link"] {
        let meta = fs::symlink_metadata(to.join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (12_345, 23_456), "{name}");
    }
    assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
}

#[test]
fn wiping_takes_closed_and_very_deep_directories_and_follows_no_symlink() {
    let dir = tempfile::tempdir().unwrap();
    let (work, outside) = (dir.path().join("work"), dir.path().join("outside"));
    write(&outside, "precious", b"x");
    write(&work, "a/closed/file", b"x");
    symlink(&outside, work.join("a/link")).unwrap();
    mode(&work.join("a/closed"), 0);
    mode(&work.join("a"), 0o111);
    // Deeper than a path can name, or a stack can go.
    let mut at = rustix::fs::open(&work, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..40_000 {
        rustix::fs::mkdirat(&at, "deep", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "deep", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    wipe(&work).unwrap();
    assert!(!work.exists() && outside.join("precious").exists());
    wipe(&work).unwrap();
    symlink(&outside, &work).unwrap();
    wipe(&work).unwrap();
    assert!(fs::symlink_metadata(&work).is_err() && outside.join("precious").exists());
}

#[test]
fn wiping_enters_no_mounted_file_system_and_says_so() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
    let dir = tempfile::tempdir().unwrap();
    let (work, outside) = (dir.path().join("work"), dir.path().join("outside"));
    for name in ["before", "m-bind/x", "m-tmp/x", "z-after"] {
        write(&work, name, b"");
    }
    write(&outside, "precious", b"x");
    let (bind, tmp) = (work.join("m-bind"), work.join("m-tmp"));
    // Only root mounts, and not in every sandbox.
    if mount_bind(&outside, &bind).is_err() {
        return;
    }
    let second = mount("none", &tmp, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>);
    write(&tmp, "mounted", b"x");
    let error = wipe(&work).unwrap_err();
    let kept = (outside.join("precious").exists(), tmp.join("mounted").exists());
    if second.is_ok() {
        unmount(&tmp, UnmountFlags::DETACH).unwrap();
    }
    unmount(&bind, UnmountFlags::DETACH).unwrap();
    assert!(wipe::is_mounted(&error), "{error:?}");
    assert_eq!(kept, (true, true));
    assert!(!work.join("before").exists() && !work.join("z-after").exists(), "the rest is gone");
    wipe(&work).unwrap();
    assert!(!work.exists() && outside.join("precious").exists());
}

#[test]
fn an_unchanged_tree_is_not_read_again_and_a_changed_file_is() {
    const FILES: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    for n in 0..FILES {
        write(&root, &format!("dir-{}/sub-{}/file-{n}", n % 40, n % 7), format!("content {n}").as_bytes());
    }
    let options = Options { stat_cache: Some(dir.path().join("stat-cache")), ..Options::default() };
    settle(&root, dir.path());
    let timed = || {
        let began = Instant::now();
        (snapshot(&root, &options).unwrap(), began.elapsed())
    };
    let (first, cold) = timed();
    assert_eq!((first.files, first.hashed), (FILES, FILES));
    let (second, warm) = timed();
    assert_eq!((second.root, second.hashed), (first.root, 0));
    write(&root, "dir-1/sub-1/file-1", b"CONTENT 1");
    let (third, one_changed) = timed();
    assert_eq!(third.hashed, 1);
    assert_ne!(third.root, first.root);
    let known: Vec<_> = first.source.digests();
    let new: u64 = third.source.digests().iter().filter(|d| known.binary_search(d).is_err()).map(|(_, len)| len).sum();
    println!("{FILES} files: first {cold:?}, unchanged {warm:?}, one changed {one_changed:?}, {new} bytes to send");
    assert!(new < 16_000, "{new}");
    assert!(one_changed < Duration::from_secs(2), "{one_changed:?}");
}

/// Returns when the file system's clock has moved well past the last change in `root`.
pub(crate) fn settle(root: &Path, scratch: &Path) {
    let last = fs::metadata(root).unwrap().modified().unwrap().max(std::time::SystemTime::now());
    let deadline = Instant::now() + Duration::from_secs(10);
    let probe = scratch.join("probe");
    loop {
        fs::write(&probe, b"").unwrap();
        let now = fs::metadata(&probe).unwrap().modified().unwrap();
        if now.duration_since(last).is_ok_and(|age| age > Duration::from_millis(60)) {
            return;
        }
        assert!(Instant::now() < deadline, "the clock of the file system stands still");
    }
}

#[derive(Debug, Clone)]
enum Thing {
    File(Vec<u8>, u32),
    /// Bytes at an offset, and the file's length.
    Sparse(Vec<u8>, u64, u64),
    Link(Vec<u8>),
    Directory(Vec<(Vec<u8>, Self)>, u32),
}

fn any_thing() -> impl Strategy<Value = Thing> {
    let name = || proptest::collection::vec((1_u8..).prop_filter("no name", |b| !matches!(b, b'/' | b'.')), 1..12);
    let leaf = prop_oneof![
        (proptest::collection::vec(any::<u8>(), 0..200), 0_u32..0o1000).prop_map(|(b, m)| Thing::File(b, m | 0o400)),
        name().prop_map(Thing::Link),
        (proptest::collection::vec(any::<u8>(), 0..9_000), 0_u64..300_000, 70_000_u64..400_000)
            .prop_map(|(bytes, at, length)| Thing::Sparse(bytes, at, length)),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        (proptest::collection::vec((name(), inner), 0..6), 0_u32..0o1000)
            .prop_map(|(things, mode)| Thing::Directory(things, mode | 0o500))
    })
}

fn make(path: &Path, thing: &Thing) {
    match thing {
        Thing::File(bytes, bits) => {
            fs::write(path, bytes).unwrap();
            mode(path, *bits);
        }
        Thing::Sparse(bytes, at, length) => {
            let file = fs::File::create(path).unwrap();
            file.write_all_at(bytes, *at).unwrap();
            file.set_len(*length).unwrap();
        }
        Thing::Link(target) => symlink(OsStr::from_bytes(target), path).unwrap(),
        Thing::Directory(things, bits) => {
            fs::create_dir(path).unwrap();
            for (name, thing) in things {
                let here = path.join(OsStr::from_bytes(name));
                if fs::symlink_metadata(&here).is_err() {
                    make(&here, thing);
                }
            }
            mode(path, *bits);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_was_snapshot_and_laid_out_has_the_same_root(things in proptest::collection::vec(any_thing(), 0..5)) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        for (n, thing) in things.iter().enumerate() {
            make(&from.join(n.to_string()), thing);
        }
        let store = lazy(dir.path());
        let options = Options { respect_gitignore: false, ..Options::default() };
        let before = snapshot(&from, &options).unwrap();
        before.source.store(&store, &namespace()).unwrap();
        layout(&store, &namespace(), before.root, &to, &LayoutOptions::default()).unwrap();
        prop_assert_eq!(snapshot(&to, &options).unwrap().root, before.root);
        wipe(&to).unwrap();
        wipe(&from).unwrap();
        prop_assert!(!to.exists() && !from.exists());
    }
}
