//! Every disk that a crash could leave: what was acknowledged is there and right, and every sync is needed for that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use windlass_cache::vfs::recorded::{Image, Op, RecordingFs};
use windlass_cache::{Error, Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

const DIR: &str = "/store";

/// What was promised: from this count of operations on, this namespace sees these bytes.
#[derive(Debug, Clone)]
struct Promise {
    since: usize,
    namespace: Namespace,
    bytes: Vec<u8>,
}

fn open(fs: &RecordingFs) -> Result<Store, Error> {
    let options = StoreOptions { segment_bytes: 2_000, chunk_bytes: 16 << 10, ..StoreOptions::default() };
    Ok(Store::open(Arc::new(fs.clone()), Path::new(DIR), options)?)
}

fn trusted() -> Namespace {
    Namespace::trusted("p")
}

fn overlay() -> Namespace {
    Namespace::overlay("p", "pr:1")
}

fn small(seed: u8) -> Vec<u8> {
    vec![seed; 300]
}

/// Of those most chunks are the same.
fn large(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; 66_000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes[50_000..51_000].fill(seed);
    bytes
}

/// Blobs small and large, alone and in groups, over several segments.
fn work(fs: &RecordingFs, promises: &mut Vec<Promise>) -> Result<(), Error> {
    let store = open(fs)?;
    let mut promise = |namespace: Namespace, blobs: &[Vec<u8>]| {
        let since = fs.op_count();
        promises.extend(blobs.iter().map(|b| Promise { since, namespace: namespace.clone(), bytes: b.clone() }));
    };
    store.put(&trusted(), &small(1))?;
    promise(trusted(), &[small(1)]);
    // Each group begins in one segment and ends in the next.
    for group in [2..6, 6..10] {
        let many: Vec<_> = group.map(small).collect();
        store.put_many(&overlay(), &many)?;
        promise(overlay(), &many);
    }
    store.put(&trusted(), &large(1))?;
    promise(trusted(), &[large(1)]);
    assert_eq!(store.grant(&trusted(), &[Digest::of(&small(2))])?, []);
    promise(trusted(), &[small(2)]);
    store.put(&overlay(), &large(2))?;
    promise(overlay(), &[large(2)]);
    let stats = store.stats();
    assert!(stats.blobs < 12 || stats.chunks > 5 && stats.chunk_bytes < 100_000, "most of it is shared: {stats:?}");
    store.put(&overlay(), b"")?;
    promise(overlay(), &[Vec::new()]);
    Ok(())
}

/// What of the promises made by operation `at` this disk breaks; whatever else it shows must be right too.
fn broken(image: &Image, at: usize, promises: &[Promise]) -> Option<String> {
    let store = match open(&RecordingFs::on(image)) {
        Ok(store) => store,
        Err(e) => return Some(format!("does not open: {e}")),
    };
    for promise in promises {
        let digest = Digest::of(&promise.bytes);
        let visible = store.contains(&promise.namespace, &digest);
        let found = store.get(&promise.namespace, &digest).unwrap().map(|blob| blob.into_vec());
        match found {
            Some(Err(_)) | None if visible => return Some(format!("{digest} is visible and cannot be read")),
            Some(Ok(bytes)) => assert!(bytes == promise.bytes, "bytes that are not what their name says"),
            Some(Err(e)) if promise.since <= at => return Some(format!("{e}")),
            None if promise.since <= at => return Some(format!("{digest} is gone from {}", promise.namespace)),
            Some(Err(_)) | None => {}
        }
    }
    let report = store.verify().unwrap();
    if !report.damaged.is_empty() || report.damaged_bytes > 0 && promises.is_empty() {
        return Some(format!("serves what is damaged: {report:?}"));
    }
    let again = store.put(&overlay(), b"after the crash").unwrap();
    assert!(store.get(&overlay(), &again).unwrap().is_some(), "a recovered store takes blobs");
    None
}

fn first_broken(fs: &RecordingFs, from: usize, promises: &[Promise]) -> Option<String> {
    (from..=fs.op_count()).find_map(|at| {
        fs.crash_images(at).into_iter().find_map(|crash| {
            broken(&crash.image, at, promises).map(|why| format!("after {at} operations, {}: {why}", crash.story))
        })
    })
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_at_any_point() {
    let fs = RecordingFs::new();
    let mut promises = Vec::new();
    work(&fs, &mut promises).unwrap();
    assert_eq!(promises.len(), 13);
    assert_eq!(first_broken(&fs, 0, &promises), None);
}

#[test]
fn taking_away_any_single_sync_breaks_a_promise() {
    let fs = RecordingFs::new();
    let mut promises = Vec::new();
    work(&fs, &mut promises).unwrap();
    assert!(fs.sync_count() > 10, "{} syncs", fs.sync_count());
    for sync in 0..fs.sync_count() {
        fs.drop_sync(sync);
        let broken = first_broken(&fs, 0, &promises);
        assert!(broken.is_some(), "sync {sync} is not needed: {:#?}", fs.ops());
        fs.restore_syncs();
    }
}

/// What a killed process wrote and did not sync is served by the next one, so it must be made durable at open.
#[test]
fn what_is_served_after_a_killed_process_survives_a_power_failure_too_and_needs_each_sync_of_open() {
    let length = {
        let fs = RecordingFs::new();
        work(&fs, &mut Vec::new()).unwrap();
        fs.op_count()
    };
    let mut needed: BTreeMap<String, bool> = BTreeMap::new();
    for killed_at in 0..length {
        let fs = RecordingFs::new();
        fs.fail_at(killed_at, std::io::ErrorKind::Other);
        let mut promises = Vec::new();
        work(&fs, &mut promises).unwrap_err();
        let before_open = fs.op_count();
        let store = open(&fs).unwrap();
        let after_open = fs.op_count();
        let everything = [(1..10).map(small).collect(), vec![large(1), large(2), Vec::new()]].concat();
        for namespace in [trusted(), overlay()] {
            for bytes in &everything {
                if store.contains(&namespace, &Digest::of(bytes)) {
                    let bytes = bytes.clone();
                    promises.push(Promise { since: after_open, namespace: namespace.clone(), bytes });
                }
            }
        }
        store.put(&trusted(), &small(99)).unwrap();
        promises.push(Promise { since: fs.op_count(), namespace: trusted(), bytes: small(99) });
        drop(store);
        assert_eq!(first_broken(&fs, before_open, &promises), None, "killed at {killed_at}");
        for op in &fs.ops()[before_open..after_open] {
            let (label, sync) = match op {
                Op::SyncData { sync, .. } => ("bytes".to_owned(), *sync),
                Op::SyncDir { path, sync } => (path.display().to_string(), *sync),
                _ => continue,
            };
            fs.drop_sync(sync);
            *needed.entry(label).or_default() |= first_broken(&fs, after_open, &promises).is_some();
            fs.restore_syncs();
        }
    }
    let expected = ["/", DIR, "bytes"].map(|label| (label.to_owned(), true));
    assert_eq!(needed, BTreeMap::from(expected));
}

/// What others see stays, whatever a crash leaves of a release; what was released is right or gone.
#[test]
fn a_release_takes_nothing_from_anybody_else_at_any_point_of_a_crash() {
    let fs = RecordingFs::new();
    let mut promises = Vec::new();
    work(&fs, &mut promises).unwrap();
    let from = fs.op_count();
    let store = open(&fs).unwrap();
    let gone = [small(3), large(1), small(2)];
    let of = |namespace: &Namespace| {
        let held = store.held(|other| other == namespace);
        let wanted = gone.iter().map(|bytes| Digest::of(bytes)).collect::<Vec<_>>();
        held.into_iter().filter(|held| wanted.contains(&held.digest)).collect::<Vec<_>>()
    };
    // `small(2)` is the overlay's and, by a grant, the trusted one's: it stays with the latter.
    assert_eq!(store.release(&of(&overlay())).unwrap(), 1, "small(3) was the overlay's alone");
    let large_one: Vec<_> = of(&trusted()).into_iter().filter(|held| held.digest == Digest::of(&large(1))).collect();
    assert_eq!(store.release(&large_one).unwrap(), 1);
    store.put(&overlay(), &large(1)).unwrap();
    promises.retain(|promise| promise.bytes != small(3) && promise.bytes != large(1));
    promises.retain(|promise| promise.bytes != small(2) || promise.namespace == trusted());
    promises.push(Promise { since: fs.op_count(), namespace: overlay(), bytes: large(1) });
    assert_eq!(store.get(&trusted(), &Digest::of(&large(1))).unwrap().map(|_| ()), None);
    assert!(store.contains(&overlay(), &Digest::of(&small(2))), "an overlay reads what is trusted");
    drop(store);
    assert_eq!(first_broken(&fs, from, &promises), None);
    let again = open(&fs).unwrap();
    for bytes in [small(3), large(1)] {
        assert!(!again.contains(&trusted(), &Digest::of(&bytes)), "it was released");
    }
}

#[test]
fn a_full_disk_is_said_so_and_leaves_nothing_half_visible() {
    let whole = {
        let fs = RecordingFs::new();
        work(&fs, &mut Vec::new()).unwrap();
        fs.live_image().files.values().map(|bytes| bytes.len() as u64).sum::<u64>()
    };
    let mut reached = BTreeSet::new();
    for capacity in (0..whole).step_by(97) {
        let fs = RecordingFs::new();
        fs.set_capacity(Some(capacity));
        let mut promises = Vec::new();
        let error = work(&fs, &mut promises).unwrap_err();
        assert!(matches!(&error, Error::Fault(fault) if fault.is_full()), "{error:?}");
        reached.insert(promises.len());
        fs.set_capacity(None);
        assert_eq!(broken(&fs.live_image(), fs.op_count(), &promises), None, "with {capacity} bytes");
    }
    assert!(reached.len() > 3, "the disk filled up at different points: {reached:?}");
}

/// The account is of this store alone: whoever else writes to the disk may fill it under any write.
#[test]
fn a_disk_that_others_fill_under_any_write_loses_nothing_that_was_acknowledged() {
    let mut failed = 0;
    for nth in 0.. {
        let fs = RecordingFs::new();
        fs.fail_at(nth, std::io::ErrorKind::StorageFull);
        let mut promises = Vec::new();
        let Err(error) = work(&fs, &mut promises) else { break };
        failed += 1;
        assert!(matches!(&error, Error::Fault(fault) if fault.is_full()), "{error:?}");
        assert_eq!(broken(&fs.live_image(), fs.op_count(), &promises), None, "at operation {nth}");
    }
    assert!(failed > 20, "{failed} operations");
}
