//! The store on a real disk: visibility, damage, eviction, many threads.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{Error, Fault, PackWriter, RealFs, Rejected, Store, StoreOptions, Unpack};
use windlass_protocol::{Digest, Namespace};

/// The file of the first large blob's chunks.
const FIRST_CHUNKS: &str = "chunks/0000000000000000";

fn durable(dir: &Path) -> Store {
    Store::open(Arc::new(RealFs), dir, StoreOptions::default()).unwrap()
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

#[test]
fn a_namespace_sees_its_own_and_an_overlay_its_projects_trusted_too_and_nobody_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let trusted = Namespace::trusted("p");
    let pr = Namespace::overlay("p", "pr:1");
    let other_pr = Namespace::overlay("p", "pr:2");
    let other = Namespace::trusted("q");
    let other_overlay = Namespace::overlay("q", "pr:1");
    let all = [&trusted, &pr, &other_pr, &other, &other_overlay];
    // (put by, seen by)
    let table: [(&Namespace, &[bool; 5]); 5] = [
        (&trusted, &[true, true, true, false, false]),
        (&pr, &[false, true, false, false, false]),
        (&other_pr, &[false, false, true, false, false]),
        (&other, &[false, false, false, true, true]),
        (&other_overlay, &[false, false, false, false, true]),
    ];
    for reopened in [false, true] {
        let store = durable(dir.path());
        for (row, (by, seen)) in table.iter().enumerate() {
            for len in [100, 100_000] {
                let blob = bytes(row, len);
                let digest = if reopened { Digest::of(&blob) } else { store.put(by, &blob).unwrap() };
                for (namespace, sees) in all.iter().zip(*seen) {
                    let got = store.get(namespace, &digest).unwrap().map(|b| b.into_vec().unwrap());
                    assert_eq!(got, sees.then(|| blob.clone()), "{namespace} of what {by} put");
                    assert_eq!(store.contains(namespace, &digest), *sees);
                    assert_eq!(store.missing(namespace, &[digest, digest]).is_empty(), *sees);
                }
            }
        }
        assert_eq!(store.stats().blobs, 10);
    }
}

#[test]
fn what_is_released_is_gone_with_its_last_namespace_and_what_was_used_meanwhile_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = durable(dir.path());
    let (one, two) = (Namespace::trusted("p/artifacts"), Namespace::overlay("p/artifacts", "pr:1"));
    let (small, large) = (bytes(1, 100), bytes(2, 100_000));
    let files = || std::fs::read_dir(dir.path().join("chunks")).unwrap().count();
    let mut digests = Vec::new();
    for blob in [&small, &large] {
        digests.push(store.put(&two, blob).unwrap());
        assert_eq!(store.put(&one, blob).unwrap(), digests[digests.len() - 1]);
    }
    let held = |namespace: &Namespace| {
        let mut held = store.held(|other| other == namespace);
        held.sort();
        held
    };
    let stale = held(&one);
    assert_eq!(stale.len(), 2);
    for digest in &digests {
        drop(store.get(&one, digest).unwrap());
    }
    assert_eq!(store.release(&stale).unwrap(), 0, "somebody asked for them since");
    let reading = store.get(&one, &digests[1]).unwrap().unwrap();
    assert_eq!(store.release(&held(&one)).unwrap(), 0, "the overlay has them too");
    assert_eq!((held(&one).len(), held(&two).len(), files()), (0, 2, 1));
    assert!(!store.contains(&one, &digests[0]) && store.contains(&two, &digests[0]));
    assert_eq!(store.stats().trusted_bytes, 0);
    assert_eq!(store.release(&held(&two)).unwrap(), 2);
    assert_eq!((store.stats().blobs, files()), (0, 1));
    assert_eq!(reading.into_vec().unwrap(), large, "who holds it reads it to its end");
    assert_eq!((store.release(&[]).unwrap(), files()), (0, 0), "and its bytes go after that");
    // It can come again, at once and after the next start.
    assert_eq!(store.put(&two, &large).unwrap(), digests[1]);
    drop(store);
    let store = durable(dir.path());
    assert!(store.contains(&two, &digests[1]) && !store.contains(&two, &digests[0]));
    assert_eq!(store.stats().blobs, 1);
}

#[test]
fn who_puts_while_others_release_has_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = durable(dir.path());
    let names: Vec<_> = (0..4).map(|n| Namespace::overlay("p/artifacts", &format!("{n}"))).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let store = store.clone();
            scope.spawn(move || {
                for round in 0..30 {
                    // The same few blobs in all namespaces, small and large.
                    let blob = bytes(round % 3, if round % 2 == 0 { 200 } else { 70_000 });
                    let digest = store.put(name, &blob).unwrap();
                    let got = store.get(name, &digest).unwrap().map(|blob| blob.into_vec().unwrap());
                    assert_eq!(got.as_deref(), Some(&blob[..]), "round {round}");
                    store.release(&store.held(|other| other == name)).unwrap();
                }
            });
        }
    });
    assert_eq!(store.verify().unwrap().damaged, []);
}

#[test]
fn bytes_are_stored_once_and_become_visible_by_upload_or_grant_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = durable(dir.path());
    let (a, b, c) = (Namespace::trusted("a"), Namespace::trusted("b"), Namespace::trusted("c"));
    for len in [1_000, 100_000] {
        let blob = bytes(0, len);
        let digest = store.put(&a, &blob).unwrap();
        let before = store.stats().disk_bytes;
        assert!(!store.contains(&b, &digest));
        store.put(&b, &blob).unwrap();
        let unknown = Digest::of(b"never stored");
        assert_eq!(store.grant(&c, &[digest, unknown]).unwrap(), [unknown]);
        assert!(store.contains(&b, &digest) && store.contains(&c, &digest));
        assert!(store.stats().disk_bytes - before < 600, "a record or two, no bytes");
    }
    drop(store);
    let store = durable(dir.path());
    assert!(store.contains(&b, &Digest::of(&bytes(0, 1_000))) && store.contains(&c, &Digest::of(&bytes(0, 100_000))));
}

#[test]
fn an_upload_of_other_bytes_than_announced_or_one_that_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = durable(dir.path());
    let namespace = Namespace::trusted("p");
    for len in [10, 200_000] {
        let mut upload = store.begin_put(&namespace, Some(Digest::of(b"other"))).unwrap();
        upload.write(&bytes(1, len)).unwrap();
        let error = upload.finish().unwrap_err();
        assert!(matches!(error, Error::Rejected(Rejected::WrongDigest { .. })), "{error}");
        let mut dropped = store.begin_put(&namespace, None).unwrap();
        dropped.write(&bytes(2, len)).unwrap();
        drop(dropped);
    }
    assert_eq!(store.stats().blobs, 0);
    assert_eq!(std::fs::read_dir(dir.path().join("chunks")).unwrap().count(), 0);
    let mut upload = store.begin_put(&namespace, Some(Digest::of(&bytes(3, 200_000)))).unwrap();
    for piece in bytes(3, 200_000).chunks(7_777) {
        upload.write(piece).unwrap();
    }
    let digest = upload.finish().unwrap();
    let mut back = Vec::new();
    store.get(&namespace, &digest).unwrap().unwrap().reader().read_to_end(&mut back).unwrap();
    assert_eq!(back, bytes(3, 200_000));
    let mut part = [0; 5];
    assert_eq!(store.get(&namespace, &digest).unwrap().unwrap().read_at(199_998, &mut part).unwrap(), 2);
}

#[test]
fn damaged_blobs_are_found_put_aside_never_served_and_can_be_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = Namespace::trusted("p");
    let (small, large, whole) = (bytes(1, 5_000), bytes(2, 100_000), bytes(3, 5_000));
    let store = durable(dir.path());
    let digests = [&small, &large, &whole].map(|blob| store.put(&namespace, blob).unwrap());
    drop(store);
    flip(&dir.path().join("segments/00000000.seg"), &small);
    flip(&dir.path().join(FIRST_CHUNKS), &large);
    let store = durable(dir.path());
    let mut reader = store.get(&namespace, &digests[1]).unwrap().unwrap().reader();
    assert!(reader.read_to_end(&mut Vec::new()).is_err());
    drop(reader);
    assert_eq!(store.verify().unwrap().damaged, [], "it was put aside when it was read");
    for digest in &digests[..2] {
        assert!(!store.contains(&namespace, digest) && store.get(&namespace, digest).unwrap().is_none());
    }
    assert_eq!(store.get(&namespace, &digests[2]).unwrap().unwrap().into_vec().unwrap(), whole);
    store.put(&namespace, &small).unwrap();
    store.put(&namespace, &large).unwrap();
    drop(store);
    let store = durable(dir.path());
    for (digest, blob) in digests.iter().zip([&small, &large, &whole]) {
        assert_eq!(&store.get(&namespace, digest).unwrap().unwrap().into_vec().unwrap(), blob);
    }
}

#[test]
fn verify_names_what_is_damaged_and_the_damage_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = Namespace::trusted("p");
    let (small, large) = (bytes(1, 5_000), bytes(2, 100_000));
    // Small segments: the damage lies in one that is no longer written, whose payloads are not checked at open.
    let options = StoreOptions { segment_bytes: 5_500, ..StoreOptions::default() };
    let open = || Store::open(Arc::new(RealFs), dir.path(), options).unwrap();
    let store = open();
    let mut digests = [&small, &large].map(|blob| store.put(&namespace, blob).unwrap());
    let whole = store.put(&namespace, &bytes(3, 5_000)).unwrap();
    flip(&dir.path().join("segments/00000000.seg"), &small);
    flip(&dir.path().join(FIRST_CHUNKS), &large);
    digests.sort();
    let report = store.verify().unwrap();
    assert_eq!((report.damaged.as_slice(), report.blobs, report.bytes), (&digests[..], 3, 110_000));
    assert_eq!(store.stats().blobs, 1);
    drop(store);
    let store = open();
    assert_eq!((store.stats().blobs, store.contains(&namespace, &whole)), (1, true));
}

/// Flips a bit in the middle of where `blob` lies in the file.
fn flip(path: &Path, blob: &[u8]) {
    let mut content = std::fs::read(path).unwrap();
    let at = content.windows(blob.len()).position(|window| window == blob).unwrap();
    content[at + blob.len() / 2] ^= 1;
    std::fs::write(path, content).unwrap();
}

#[test]
fn a_blob_that_holds_the_bytes_of_records_makes_none_even_where_what_is_around_it_is_torn() {
    let fs = RecordingFs::new();
    let namespace = Namespace::trusted("p");
    let open = |fs: &RecordingFs| Store::open(Arc::new(fs.clone()), Path::new("/s"), StoreOptions::default()).unwrap();
    let store = open(&fs);
    let secret = store.put(&namespace, b"secret").unwrap();
    let mallory = Namespace::overlay("p", "mallory");
    store.put(&mallory, b"mine").unwrap();
    let segment = Path::new("/s/segments/00000000.seg");
    let records = fs.live_image().files[segment].clone();
    let forged = store.put(&mallory, &records[128..]).unwrap();
    drop(store);
    let mut image = fs.live_image();
    let content = image.files.get_mut(segment).unwrap();
    let header = content.windows(32).rposition(|window| window == forged.as_bytes()).unwrap();
    content[header] ^= 1;
    let store = open(&RecordingFs::on(&image));
    assert!(!store.contains(&mallory, &forged));
    assert_eq!(store.stats().blobs, 2);
    assert_eq!(store.get(&namespace, &secret).unwrap().unwrap().into_vec().unwrap(), b"secret");
}

#[test]
fn a_lazy_store_stays_below_its_cap_and_keeps_what_is_used_or_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let cap = 20 << 20;
    let namespace = Namespace::trusted("p");
    let store = Store::open(Arc::new(RealFs), dir.path(), StoreOptions::lazy(cap)).unwrap();
    let used = store.put(&namespace, &bytes(1_000_000, 30_000)).unwrap();
    let used_large = store.put(&namespace, &bytes(1_000_001, 300_000)).unwrap();
    let pinned = [bytes(1_000_002, 30_000), bytes(1_000_003, 300_000)].map(|b| store.put(&namespace, &b).unwrap());
    let pins = store.pin(&pinned);
    let first = [bytes(0, 40_000), bytes(1, 200_000)].map(|b| store.put(&namespace, &b).unwrap());
    for round in 0..200 {
        store.put(&namespace, &bytes(2 * round + 2, 40_000)).unwrap();
        store.put(&namespace, &bytes(2 * round + 3, 200_000)).unwrap();
        assert!(
            store.get(&namespace, &used).unwrap().is_some() && store.get(&namespace, &used_large).unwrap().is_some()
        );
        assert!(store.stats().disk_bytes <= cap, "{:?}", store.stats());
    }
    assert!(first.iter().all(|digest| !store.contains(&namespace, digest)));
    assert!(pinned.iter().all(|digest| store.contains(&namespace, digest)));
    assert!(store.stats().evicted > 200);
    assert_eq!(store.verify().unwrap().damaged, []);
    let blobs = store.stats().blobs;
    drop((pins, store));
    let store = Store::open(Arc::new(RealFs), dir.path(), StoreOptions::lazy(cap)).unwrap();
    assert_eq!(store.stats().blobs, blobs);
    assert!(pinned.iter().chain([&used, &used_large]).all(|digest| store.contains(&namespace, digest)));
}

#[test]
fn many_threads_share_syncs_and_each_finds_what_it_was_told_is_there() {
    let fs = RecordingFs::new();
    let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), StoreOptions::default()).unwrap();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let namespace = Namespace::trusted("p");
                while let n @ 0..400 = next.fetch_add(1, Ordering::Relaxed) {
                    // Every blob is put by two, at about the same time.
                    let digest = store.put(&namespace, &bytes(n / 2, 1_000)).unwrap();
                    assert!(store.contains(&namespace, &digest));
                }
            });
        }
    });
    assert_eq!(store.stats().blobs, 200);
    drop(store);
    assert_eq!(Store::open(Arc::new(fs), Path::new("/s"), StoreOptions::default()).unwrap().stats().blobs, 200);
}

#[test]
fn a_store_is_open_once_and_takes_no_more_writes_after_a_failed_sync() {
    let fs = RecordingFs::new();
    let open = || Store::open(Arc::new(fs.clone()), Path::new("/s"), StoreOptions::default());
    let namespace = Namespace::trusted("p");
    let store = open().unwrap();
    assert!(matches!(open(), Err(Fault::InUse { .. })));
    let kept = store.put(&namespace, b"kept").unwrap();
    fs.fail_at(fs.op_count() + 1, std::io::ErrorKind::Other);
    assert!(matches!(store.put(&namespace, b"lost"), Err(Error::Fault(Fault::Io { .. }))));
    assert!(matches!(store.put(&namespace, b"more"), Err(Error::Fault(Fault::Poisoned { .. }))));
    assert!(store.contains(&namespace, &kept) && !store.contains(&namespace, &Digest::of(b"lost")));
    drop(store);
    assert!(open().unwrap().contains(&namespace, &kept));
}

#[test]
fn a_pack_goes_from_one_store_to_another_and_a_lie_in_it_is_refused() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (from, to) = (durable(dirs[0].path()), durable(dirs[1].path()));
    let namespace = Namespace::trusted("p");
    let blobs = [bytes(1, 10), bytes(2, 0), bytes(3, 65_536), bytes(4, 65_537), bytes(5, 300_000), bytes(6, 9)];
    let digests = from.put_many(&namespace, &blobs).unwrap();
    let mut writer = PackWriter::new(Vec::new()).unwrap();
    for digest in &digests {
        writer.add_blob(from.get(&namespace, digest).unwrap().unwrap()).unwrap();
    }
    let pack = writer.finish().unwrap();
    let unpack = |bytes: &[u8]| {
        let mut unpack = Unpack::new(&to, &namespace);
        bytes.chunks(10_007).try_for_each(|piece| unpack.push(piece))?;
        unpack.finish()
    };
    for at in [60, 70_000, 200_000] {
        let mut lie = pack.clone();
        lie[at] ^= 1;
        assert!(matches!(unpack(&lie), Err(Error::Rejected(Rejected::WrongDigest { .. }))), "at {at}");
    }
    assert!(matches!(unpack(&pack[..pack.len() - 1]), Err(Error::Rejected(Rejected::BadPack(_)))));
    assert_eq!(std::fs::read_dir(dirs[1].path().join("chunks")).unwrap().count(), 2, "no upload was left behind");
    assert_eq!(unpack(&pack).unwrap(), digests);
    for (digest, blob) in digests.iter().zip(&blobs) {
        assert_eq!(&to.get(&namespace, digest).unwrap().unwrap().into_vec().unwrap(), blob);
    }
}

/// Prints what a commit costs here; fails only where it is far from what the disk can do.
#[test]
fn many_small_blobs_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = durable(dir.path());
    let namespace = Namespace::trusted("p");
    let blobs: Vec<_> = (0..8_192).map(|n| bytes(n, 4_096)).collect();
    let began = std::time::Instant::now();
    for group in blobs.chunks(64) {
        store.put_many(&namespace, group).unwrap();
    }
    let groups = began.elapsed();
    let began = std::time::Instant::now();
    let other = Namespace::trusted("q");
    store.put_many(&other, &blobs).unwrap();
    let grants = began.elapsed();
    let rate = |took: std::time::Duration| 8_192.0 / took.as_secs_f64();
    println!("4 KiB blobs: {:.0}/s in groups of 64, {:.0}/s known ones granted", rate(groups), rate(grants));
    assert_eq!(store.stats().blobs, 8_192);
    assert!(store.stats().disk_bytes < 8_192 * (4_096 + 2 * 64) + 4_096, "each blob once");
}

#[test]
fn a_group_costs_one_sync_and_what_is_known_none() {
    let fs = RecordingFs::new();
    let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), StoreOptions::default()).unwrap();
    let namespace = Namespace::trusted("p");
    let blobs: Vec<_> = (0..100).map(|n| bytes(n, 100)).collect();
    store.put(&namespace, b"first").unwrap();
    let before = fs.sync_count();
    store.put_many(&namespace, &blobs).unwrap();
    assert_eq!(fs.sync_count() - before, 1);
    store.put_many(&namespace, &blobs).unwrap();
    store.put_many(&Namespace::overlay("p", "pr:1"), &blobs).unwrap();
    assert_eq!(fs.sync_count() - before, 1, "the overlay sees them already");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 400, ..Default::default() })]
    #[test]
    fn a_store_with_any_bytes_changed_opens_serves_nothing_wrong_and_shows_nothing_to_others(
        flips in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 0..8),
        cut in proptest::option::of(proptest::prelude::any::<proptest::sample::Index>()),
        copy in proptest::option::of(proptest::prelude::any::<[proptest::sample::Index; 3]>()),
        segment in 0_usize..3,
    ) {
        let options = StoreOptions { segment_bytes: 3_000, ..StoreOptions::default() };
        let fs = RecordingFs::new();
        let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap();
        let (mine, theirs) = (Namespace::trusted("p"), Namespace::overlay("q", "x"));
        let blobs: Vec<_> = (0..20).map(|n| bytes(n, 20 * n)).collect();
        store.put_many(&mine, &blobs[..15]).unwrap();
        store.put_many(&theirs, &blobs[10..]).unwrap();
        drop(store);
        let mut image = fs.live_image();
        let content = image.files.values_mut().nth(segment).unwrap();
        for (at, to) in flips {
            let at = at.index(content.len());
            content[at] = to;
        }
        if let Some([from, to, len]) = copy {
            let (from, to) = (from.index(content.len()), to.index(content.len()));
            let len = len.index(content.len() - from.max(to));
            content.copy_within(from..from + len, to);
        }
        if let Some(at) = cut {
            content.truncate(at.index(content.len()));
        }
        let store = Store::open(Arc::new(RecordingFs::on(&image)), Path::new("/s"), options).unwrap();
        for (n, blob) in blobs.iter().enumerate() {
            for (namespace, own) in [(&mine, 0..15), (&theirs, 10..20)] {
                if let Some(found) = store.get(namespace, &Digest::of(blob)).unwrap() {
                    proptest::prop_assert!(own.contains(&n));
                    proptest::prop_assert_eq!(&found.into_vec().unwrap(), blob);
                }
            }
        }
        let again = store.put(&mine, b"after").unwrap();
        proptest::prop_assert!(store.get(&mine, &again).unwrap().is_some());
    }
}

#[test]
fn opening_cuts_a_torn_tail_and_removes_uploads_that_never_ended() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = Namespace::trusted("p");
    let digest = durable(dir.path()).put(&namespace, &bytes(1, 1_000)).unwrap();
    let segment = dir.path().join("segments/00000000.seg");
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, [whole.clone(), whole[128..700].to_vec()].concat()).unwrap();
    let tmp = dir.path().join("chunks/tmp-7");
    std::fs::write(&tmp, b"half").unwrap();
    let store = durable(dir.path());
    assert_eq!(std::fs::read(&segment).unwrap(), whole);
    assert!(!tmp.exists());
    assert!(store.contains(&namespace, &digest));
}

#[test]
fn a_group_that_found_the_disk_full_is_not_there_after_a_restart_either() {
    let fs = RecordingFs::new();
    let open = || Store::open(Arc::new(fs.clone()), Path::new("/s"), StoreOptions::default()).unwrap();
    let namespace = Namespace::trusted("p");
    let store = open();
    store.put(&namespace, b"first").unwrap();
    let used: usize = fs.live_image().files.values().map(Vec::len).sum();
    fs.set_capacity(Some(used as u64 + 2_500));
    let blobs: Vec<_> = (0..5).map(|n| bytes(n, 1_000)).collect();
    let error = store.put_many(&namespace, &blobs).unwrap_err();
    assert!(matches!(error, Error::Fault(Fault::NoSpace { .. })), "{error}");
    fs.set_capacity(None);
    // Another program took what was promised.
    fs.fail_at(fs.op_count(), std::io::ErrorKind::StorageFull);
    let error = store.put_many(&namespace, &blobs).unwrap_err();
    assert!(matches!(error, Error::Fault(Fault::DiskFull { .. })), "{error}");
    drop(store);
    let store = open();
    assert_eq!(store.stats().blobs, 1);
    store.put_many(&namespace, &blobs).unwrap();
    assert_eq!(store.stats().blobs, 6);
}

#[test]
fn stats_tell_trusted_bytes_from_overlays_and_what_was_found_from_what_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let (trusted, pr) = (Namespace::trusted("p"), Namespace::overlay("p", "pr:1"));
    let (small, large) = (bytes(1, 1_000), bytes(2, 100_000));
    let (one, two) = (Digest::of(&small), Digest::of(&large));
    let store = durable(dir.path());
    store.put(&pr, &small).unwrap();
    store.put(&pr, &large).unwrap();
    assert_eq!((store.stats().blob_bytes, store.stats().trusted_bytes), (101_000, 0));
    store.put(&trusted, &small).unwrap();
    assert_eq!(store.stats().trusted_bytes, 1_000, "by an upload of what was there");
    store.grant(&trusted, &[one, two]).unwrap();
    store.grant(&Namespace::trusted("q"), &[two]).unwrap();
    assert_eq!((store.stats().blob_bytes, store.stats().trusted_bytes), (101_000, 101_000), "each once");
    let count = |store: &Store| (store.stats().hits, store.stats().misses);
    assert_eq!(count(&store), (0, 0), "putting and granting is no asking");
    let unknown = Digest::of(b"never stored");
    assert!(store.get(&trusted, &one).unwrap().is_some() && store.get(&trusted, &unknown).unwrap().is_none());
    assert_eq!(count(&store), (1, 1));
    assert!(store.contains(&trusted, &two) && !store.contains(&Namespace::trusted("r"), &two));
    assert_eq!(count(&store), (2, 2), "what one may not see is not there");
    assert_eq!(store.missing(&trusted, &[one, two, unknown]), [unknown]);
    assert_eq!(count(&store), (4, 3));
    drop(store);
    let store = durable(dir.path());
    assert_eq!((store.stats().trusted_bytes, count(&store)), (101_000, (0, 0)), "bytes last, counts begin anew");
    flip(&dir.path().join("segments/00000000.seg"), &small);
    assert!(store.get(&trusted, &one).unwrap().is_none());
    assert_eq!(store.stats().trusted_bytes, 100_000, "what is put aside counts no more");
}

#[test]
fn what_namespaces_see_by_themselves_grows_alike_whether_others_have_it_or_not() {
    let fs = RecordingFs::new();
    let store = Store::open(Arc::new(fs), Path::new("/s"), StoreOptions::default()).unwrap();
    let (vault, pr) = (Namespace::trusted("vault"), Namespace::overlay("p", "pr:1"));
    store.put(&vault, &[1; 1_000]).unwrap();
    let seen = |store: &Store| {
        let stats = store.stats();
        [stats.trusted, stats.overlays].map(|usage| (usage.blobs, usage.bytes))
    };
    assert_eq!(seen(&store), [(1, 1_000), (0, 0)]);
    store.put(&pr, &[1; 1_000]).unwrap();
    assert_eq!((seen(&store), store.stats().blobs), ([(1, 1_000), (1, 1_000)], 1), "stored once, counted twice");
    store.put(&pr, &[2; 1_000]).unwrap();
    assert_eq!((seen(&store), store.stats().blobs), ([(1, 1_000), (2, 2_000)], 2));
}
