//! Caches: the real program and the real link, and a coordinator that the test plays.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use windlass_protocol::Digest;

use super::artifact::{Played, connected, put, serve};
use super::*;

const FILE: &str = "caches:
  - name: deps
    cache_key: [v1, {agent: os, fallback_limit: true}, {checksum: lock}, {env: BRANCH}]
    target_paths: [deps, ~/.tool/cache]
  - name: other
    cache_key: [other]
    target_paths: [other]
";

/// Runs `cache` with a home and a branch.
async fn cache(world: &mut World, played: &Played, line: &[&str], branch: &str) -> Ended {
    let mut command = world.command(&[&["buildkite-agent", "cache"], line].concat(), world.user);
    command.env("HOME", home(world)).env("BRANCH", branch);
    serve(world, played, command).await
}

/// The words of one that ends well.
async fn words(world: &mut World, played: &Played, line: &[&str]) -> String {
    let (status, output, errors) = cache(world, played, line, "a/b").await;
    assert_eq!((status, output.as_str()), (Some(0), ""), "{line:?}: {errors}");
    errors
}

fn home(world: &World) -> PathBuf {
    world.dir.path().join("checkout/home")
}

/// Lets the job change all that is in its directory.
fn give(world: &World) {
    fn each(path: &Path, user: User) {
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).unwrap();
        if path.symlink_metadata().unwrap().is_dir() {
            path.read_dir().unwrap().for_each(|entry| each(&entry.unwrap().path(), user));
        }
    }
    if let Some(user) = world.user {
        each(&world.dir.path().join("checkout"), user);
    }
}

/// A tree with all that is odd, in the places of the first cache.
fn odd_tree(world: &World) {
    let work = world.dir.path().join("checkout");
    put(&work, "lock", b"1");
    put(&work, "deps/bin/tool", b"#!/bin/sh\n");
    put(&work, "deps/large", &vec![7; 700_000]);
    put(&work, "deps/empty/.keep", b"");
    put(&work, "home/.tool/cache/file", b"of a home");
    let odd = work.join("deps").join(OsStr::from_bytes(b"odd \xff\n name"));
    fs::write(&odd, "odd").unwrap();
    let sparse = fs::File::create(work.join("deps/sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    symlink("../../etc/passwd", work.join("deps/link")).unwrap();
    symlink("bin", work.join("deps/bin-link")).unwrap();
    fs::set_permissions(work.join("deps/bin/tool"), fs::Permissions::from_mode(0o751)).unwrap();
    let long_ago = UNIX_EPOCH + Duration::from_nanos(1_500_000_000_123_456_789);
    fs::File::open(work.join("deps/bin/tool")).unwrap().set_modified(long_ago).unwrap();
    give(world);
    fs::set_permissions(work.join("deps/bin"), fs::Permissions::from_mode(0o555)).unwrap();
}

/// What there is below a path: kind, bytes or target, mode and time of change.
fn seen(path: &Path) -> Vec<(PathBuf, Kind, Vec<u8>, u32, i64)> {
    let found = path.symlink_metadata().unwrap();
    let changed = found.mtime() * 1_000_000_000 + found.mtime_nsec();
    let mode = found.mode() & 0o7777;
    if found.is_symlink() {
        let target = fs::read_link(path).unwrap().into_os_string();
        return vec![(path.to_owned(), Kind::Link, target.as_bytes().to_vec(), 0, 0)];
    }
    if found.is_file() {
        return vec![(path.to_owned(), Kind::File, fs::read(path).unwrap(), mode, changed)];
    }
    let mut all = vec![(path.to_owned(), Kind::Directory, Vec::new(), mode, changed)];
    let mut below: Vec<_> = path.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    below.sort();
    all.extend(below.iter().flat_map(|path| seen(path)));
    all
}

#[tokio::test]
async fn what_is_saved_is_restored_as_it_was_in_the_place_of_what_is_there() {
    let (mut world, played, work) = connected().await;
    put(&work, ".buildkite/cache.yml", FILE.as_bytes());
    odd_tree(&world);
    let before = (seen(&work.join("deps")), seen(&home(&world).join(".tool/cache")));
    let said = words(&mut world, &played, &["restore", "--name", "deps"]).await;
    assert!(said.contains("Cache \"deps\": there is none under \"v1/linux/"), "{said}");
    let said = words(&mut world, &played, &["save", "--name", "deps"]).await;
    assert!(said.contains("Saved cache \"deps\" under \"v1/linux/6b86b273ff34fce1"), "{said}");
    assert!(said.contains("/a%2Fb\": 6 files, "), "{said}");
    let sent = played.lock().sent;
    let said = words(&mut world, &played, &["save", "--name", "deps"]).await;
    assert!(said.contains("is there already"), "{said}");
    assert_eq!(played.lock().sent, sent, "nothing is sent again");
    fs::remove_dir_all(home(&world)).unwrap();
    fs::write(work.join("deps/large"), "other").unwrap();
    fs::write(work.join("deps/new"), "new").unwrap();
    give(&world);
    let said = words(&mut world, &played, &["restore"]).await;
    assert!(said.contains("Restored cache \"deps\" from \"v1/linux/"), "{said}");
    assert!(said.contains("Cache \"other\": there is none under \"other\""), "{said}");
    assert_eq!((seen(&work.join("deps")), seen(&home(&world).join(".tool/cache"))), before);
    let holes = work.join("deps/sparse").metadata().unwrap();
    assert!(holes.blocks() * 512 < holes.len(), "a hole takes no room");
    let left: Vec<_> =
        seen(&work).into_iter().filter(|(path, ..)| path.to_string_lossy().contains(".windlass-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_save_after_a_restore_reads_what_the_job_changed_and_not_all_of_it() {
    const FILES: usize = 3_000;
    let (mut world, played, work) = connected().await;
    put(&work, ".buildkite/cache.yml", FILE.as_bytes());
    put(&work, "lock", b"1");
    for n in 0..FILES {
        put(&work, &format!("deps/{}/{n}", n % 50), format!("file {n}").as_bytes());
    }
    put(&work, "deps/large", &vec![7; 700_000]);
    give(&world);
    let said = words(&mut world, &played, &["save", "--name", "deps"]).await;
    assert!(said.contains(&format!("{} of them read", FILES + 1)), "{said}");
    fs::remove_dir_all(work.join("deps")).unwrap();
    words(&mut world, &played, &["restore", "--name", "deps"]).await;
    // One changes and says that it did not, another comes.
    let path = work.join("deps/0/0");
    let was = path.metadata().unwrap().modified().unwrap();
    fs::write(&path, "FILE 0").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(was).unwrap();
    put(&work, "deps/new", b"new");
    put(&work, "lock", b"2");
    if let Some(user) = world.user {
        // Not of the others: to be given away touches a file.
        chown(work.join("deps/new"), Some(user.uid), Some(user.gid)).unwrap();
    }
    let expected = seen(&work.join("deps"));
    let sent = played.lock().sent;
    let said = words(&mut world, &played, &["save", "--name", "deps"]).await;
    let read: usize = said.split("; ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    // Those that were restored in the last tick of the clock are read, too.
    assert!((2..FILES).contains(&read), "{said}");
    println!("{read} of {FILES} files were read");
    assert_eq!(played.lock().sent - sent, 3, "two files and the manifest");
    fs::remove_dir_all(work.join("deps")).unwrap();
    words(&mut world, &played, &["restore", "--name", "deps"]).await;
    assert_eq!(seen(&work.join("deps")), expected);
}

#[tokio::test]
async fn another_key_does_in_place_of_one_that_is_not_there_if_it_agrees_far_enough() {
    let (mut world, played, work) = connected().await;
    put(&work, ".buildkite/cache.yaml", FILE.as_bytes());
    odd_tree(&world);
    words(&mut world, &played, &["save", "--name", "deps"]).await;
    put(&work, "lock", b"2");
    fs::write(work.join("deps/large"), "other").unwrap();
    let (status, _, said) = cache(&mut world, &played, &["restore", "--name", "deps"], "main").await;
    assert_eq!(status, Some(0));
    assert!(
        said.contains("Restored cache \"deps\" from \"v1/linux/6b86b273") && said.contains(" in place of "),
        "{said}"
    );
    assert_eq!(fs::read(work.join("deps/large")).unwrap(), vec![7; 700_000]);
    // Of another registry there is none.
    let said = words(&mut world, &played, &["restore", "--name", "deps", "--registry", "x"]).await;
    assert!(said.contains("there is none"), "{said}");
}

#[tokio::test]
async fn what_cannot_be_restored_changes_nothing_and_fails_nothing() {
    let (mut world, played, work) = connected().await;
    put(&work, ".buildkite/cache.yml", FILE.as_bytes());
    odd_tree(&world);
    words(&mut world, &played, &["save", "--name", "deps"]).await;
    let large = Digest::of(&vec![7; 700_000]);
    played.lock().blobs.remove(&large);
    // The agent's own cache has none of it: a save goes past it.
    fs::write(work.join("deps/mine"), "mine").unwrap();
    let said = words(&mut world, &played, &["restore", "--name", "deps"]).await;
    assert!(
        said.contains("warning: Cache \"deps\" was not restored: its bytes are not in the cache any more"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(work.join("deps/mine")).unwrap(), "mine");
    let manifest = played.lock().caches.values().next().unwrap().manifest;
    played.lock().blobs.insert(manifest, b"no manifest".to_vec());
    played.lock().full = true;
    put(&work, "other/file", b"of another");
    let said = words(&mut world, &played, &["save", "--name", "other"]).await;
    assert!(said.contains("Cache \"other\" was not saved: the coordinator's disk has no room"), "{said}");
    let names: Vec<_> = work.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with(".windlass-")), "{names:?}");
    assert_eq!(played.lock().caches.len(), 1);
}

#[tokio::test]
async fn what_changes_while_it_is_saved_is_not_saved() {
    let (mut world, played, work) = connected().await;
    put(&work, ".buildkite/cache.yml", FILE.as_bytes());
    put(&work, "other/large", &vec![1; 300_000]);
    give(&world);
    played.lock().rewrite = Some(work.join("other/large"));
    let said = words(&mut world, &played, &["save", "--name", "other"]).await;
    assert!(said.contains("other/large: it changed while it was uploaded"), "{said}");
    assert!(played.lock().caches.is_empty());
}

#[tokio::test]
async fn the_step_s_own_cache_keeps_the_key_that_it_was_looked_for_by() {
    let (mut world, played, work) = connected().await;
    put(&work, "lock", b"1");
    give(&world);
    let own = r#"{"paths":["deps"],"key":"k-{{ checksum \"lock\" }}","restore_keys":["k-"]}"#;
    world.env.push(("WINDLASS_CACHE".to_owned(), own.to_owned()));
    let said = words(&mut world, &played, &["restore", "--of-step"]).await;
    assert!(said.contains("there is none under \"k-6b86b273"), "{said}");
    // What the command does.
    put(&work, "lock", b"2");
    put(&work, "deps/a", b"a");
    give(&world);
    let said = words(&mut world, &played, &["save", "--of-step"]).await;
    assert!(said.contains("Saved cache \"deps\" under \"k-6b86b273"), "{said}");
    fs::remove_dir_all(work.join("deps")).unwrap();
    let said = words(&mut world, &played, &["restore", "--of-step"]).await;
    assert!(said.contains("from \"k-6b86b273") && said.contains("in place of \"k-d4735e3a"), "{said}");
    assert_eq!(fs::read_to_string(work.join("deps/a")).unwrap(), "a");
}

#[tokio::test]
async fn a_file_that_names_no_caches_fails_and_so_do_names_and_flags_that_are_not_there() {
    let (mut world, played, work) = connected().await;
    let mut fails = async |line: &[&str], why: &str| {
        let (status, _, errors) = cache(&mut world, &played, line, "").await;
        assert_eq!(status, Some(1), "{line:?}: {errors}");
        assert!(errors.contains(why), "{line:?}: {errors}");
    };
    fails(&["restore"], "there is no cache configuration").await;
    fails(&["save", "--of-step"], "the step has no cache").await;
    put(&work, ".buildkite/cache.yml", b"caches: x");
    fails(&["restore"], "`caches` is a list").await;
    put(&work, ".buildkite/cache.yaml", FILE.as_bytes());
    fails(&["restore"], "there are both").await;
    let file = ["--cache-config-file", ".buildkite/cache.yaml"];
    fails(&[&["restore", "--name", "none"], &file[..]].concat(), "cache names not found in configuration: none").await;
    fails(&["restore", "--nope"], "flag provided but not defined: -nope").await;
    fails(&["restore", "--concurrency", "x"], "invalid value").await;
    for path in [".", "~", "/", "..", "a/../..", "~/.."] {
        let text = format!("caches: [{{name: a, cache_key: [k], target_paths: ['{path}']}}]");
        put(&work, "bad.yml", text.as_bytes());
        fails(&["save", "--cache-config-file", "bad.yml"], "holds the whole home or working directory").await;
    }
    put(&work, "bad.yml", b"caches: [{name: a, cache_key: [k], target_paths: [a, a/b]}]");
    fails(&["save", "--cache-config-file", "bad.yml"], "lie within each other").await;
}
