//! Layouts that something comes in between of, and files with holes.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_cache::snapshot::Options;
use windlass_cache::tree::{Directory, Entry, Node};
use windlass_cache::{BadTree, Error, LayoutOptions, RealFs, Rejected, Store, StoreOptions, layout, snapshot, wipe};
use windlass_protocol::{Digest, Namespace};

fn namespace() -> Namespace {
    Namespace::trusted("p")
}

fn lazy(dir: &Path, capacity_bytes: u64) -> Store {
    Store::open(Arc::new(RealFs), &dir.join("store"), StoreOptions::lazy(capacity_bytes)).unwrap()
}

#[test]
fn a_hole_costs_nothing_in_the_store_nor_where_it_is_laid_out_again() {
    const HOLE_BYTES: u64 = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    let file = File::create(from.join("sparse")).unwrap();
    // Text at odd places, a hole at the end.
    for (at, length) in [(0, 5_000), (HOLE_BYTES / 3 + 17, 100_000), (HOLE_BYTES / 2, 3)] {
        file.write_all_at(&vec![b'x'; length], at).unwrap();
    }
    file.set_len(HOLE_BYTES).unwrap();
    fs::write(from.join("zeros"), vec![0; 300_000]).unwrap();
    fs::write(from.join("dense"), vec![b'y'; 300_000]).unwrap();
    let store = lazy(dir.path(), 1 << 30);
    let taken = snapshot(&from, &Options::default()).unwrap();
    taken.source.store(&store, &namespace()).unwrap();
    assert!(store.stats().disk_bytes < 1 << 20, "{:?}", store.stats());
    let to = dir.path().join("to");
    layout(&store, &namespace(), taken.root, &to, &LayoutOptions::default()).unwrap();
    assert_eq!(snapshot(&to, &Options::default()).unwrap().root, taken.root);
    let blocks = |name: &str| fs::metadata(to.join(name)).unwrap().blocks() * 512;
    assert!(blocks("sparse") < 1 << 20, "{} bytes", blocks("sparse"));
    assert!(blocks("zeros") < 100_000 && blocks("dense") >= 300_000);
}

#[test]
fn modes_are_kept_whatever_the_umask_takes_away() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    for mode in [0o777, 0o666, 0o600, 0o444, 0o022, 0] {
        let path = from.join(format!("{mode:o}"));
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let store = lazy(dir.path(), 1 << 30);
    let entries = fs::read_dir(&from).unwrap().flatten().map(|entry| {
        let mode = u16::try_from(entry.metadata().unwrap().mode() & 0o777).unwrap();
        let node = Node::File { digest: Digest::of(b"x"), len: 1, mode };
        Entry { name: entry.file_name().into_encoded_bytes(), node }
    });
    let tree = Directory::new(entries.collect()).unwrap();
    store.put(&namespace(), b"x").unwrap();
    let root = store.put(&namespace(), &tree.encode()).unwrap();
    let to = dir.path().join("to");
    layout(&store, &namespace(), root, &to, &LayoutOptions::default()).unwrap();
    for entry in fs::read_dir(&to).unwrap().flatten() {
        let mode = entry.metadata().unwrap().mode() & 0o777;
        assert_eq!(format!("{mode:o}"), entry.file_name().to_str().unwrap());
    }
}

#[test]
fn a_layout_that_broke_off_is_never_gone_on_with_nor_taken_for_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = lazy(dir.path(), 1 << 30);
    let blob = store.put(&namespace(), b"payload").unwrap();
    let file = |n: usize, len| Entry {
        name: format!("{n:04}").into_bytes(),
        node: Node::File { digest: blob, len, mode: 0o644 },
    };
    let tree = |last| {
        let files = (0..1_000).map(|n| file(n, 7)).chain([file(1_000, last)]).collect();
        store.put(&namespace(), &Directory::new(files).unwrap().encode()).unwrap()
    };
    let (broken, whole) = (tree(8), tree(7));
    let to = dir.path().join("to");
    let lay = |root| layout(&store, &namespace(), root, &to, &LayoutOptions::default());
    let error = lay(broken).unwrap_err();
    assert!(matches!(error, Error::Rejected(Rejected::BadTree { reason: BadTree::Length, .. })), "{error}");
    assert!(fs::read_dir(&to).unwrap().count() > 0, "some of it is there");
    let error = lay(whole).unwrap_err();
    assert!(matches!(error, Error::Rejected(Rejected::BadPath { .. })), "{error}");
    wipe(&to).unwrap();
    assert_eq!(lay(whole).unwrap().files, 1_001);
}

#[test]
fn what_is_laid_out_while_the_store_evicts_is_whole_or_refused_before_a_byte_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    for n in 0..200_u32 {
        fs::write(from.join(n.to_string()), n.to_le_bytes().repeat(2_000)).unwrap();
    }
    let store = lazy(dir.path(), 8 << 20);
    let taken = snapshot(&from, &Options::default()).unwrap();
    let over = AtomicBool::new(false);
    let whole = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_u64;
            while !over.load(Ordering::Relaxed) {
                n += 1;
                let mut noise = vec![0; 60_000];
                blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut noise);
                store.put(&Namespace::trusted("q"), &noise).unwrap();
            }
        });
        let whole = (0..10).filter(|round| {
            taken.source.store(&store, &namespace()).unwrap();
            let to = dir.path().join(format!("to-{round}"));
            match layout(&store, &namespace(), taken.root, &to, &LayoutOptions::default()) {
                Ok(laid) => {
                    assert_eq!((laid.files, snapshot(&to, &Options::default()).unwrap().root), (200, taken.root));
                    true
                }
                Err(Error::Rejected(Rejected::Missing { .. })) => {
                    assert!(!to.exists());
                    false
                }
                Err(error) => panic!("{error}"),
            }
        });
        let whole = whole.count();
        over.store(true, Ordering::Relaxed);
        whole
    });
    assert!(store.stats().evicted > 0 && whole > 0, "{whole} whole, {:?}", store.stats());
}

#[test]
fn a_directory_with_very_many_others_in_it_is_gone_through_once() {
    const MANY: usize = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let store = lazy(dir.path(), 1 << 30);
    let file = store.put(&namespace(), b"x").unwrap();
    let folder = |nth: usize| {
        let node = Node::File { digest: file, len: 1, mode: 0o644 };
        Directory::new(vec![Entry { name: format!("f{nth}").into_bytes(), node }]).unwrap().encode()
    };
    let folders = store.put_many(&namespace(), (0..MANY).map(folder)).unwrap();
    let entry =
        |(nth, digest)| Entry { name: format!("d{nth}").into_bytes(), node: Node::Directory { digest, mode: 0o755 } };
    let root = Directory::new(folders.into_iter().enumerate().map(entry).collect()).unwrap().encode();
    let root = store.put(&namespace(), &root).unwrap();
    let options = LayoutOptions { max_bytes: Some(MANY as u64 - 1), ..LayoutOptions::default() };
    let begun = std::time::Instant::now();
    let refused = layout(&store, &namespace(), root, &dir.path().join("to"), &options);
    assert!(
        matches!(&refused, Err(Error::Rejected(Rejected::BadTree { reason: BadTree::TooLarge, .. }))),
        "{refused:?}"
    );
    // Each entry again for each directory took a minute.
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
}
