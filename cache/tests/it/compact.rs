//! Segments give back what counts no more, and nothing else: not after any crash, not while others read and write.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_cache::vfs::recorded::{Image, Op, RecordingFs};
use windlass_cache::{HeldBlob, RealFs, Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

use crate::chunks::noise;

const DIR: &str = "/s";

fn options(segment_bytes: u64) -> StoreOptions {
    StoreOptions { segment_bytes, chunk_bytes: 8 << 10, ..StoreOptions::default() }
}

fn open(fs: &RecordingFs) -> Store {
    Store::open(Arc::new(fs.clone()), Path::new(DIR), options(1_500)).unwrap()
}

fn name(n: usize) -> Namespace {
    Namespace::trusted(&format!("p{n}"))
}

fn held(store: &Store, namespace: &Namespace, blobs: &[&[u8]]) -> Vec<HeldBlob> {
    let mut held = store.held(|other| other == namespace);
    held.retain(|held| blobs.iter().any(|blob| Digest::of(blob) == held.digest));
    assert_eq!(held.len(), blobs.len());
    held
}

fn release(store: &Store, namespace: &Namespace, blobs: &[&[u8]]) {
    store.release(&held(store, namespace, blobs)).unwrap();
}

fn compact(store: &Store) -> u64 {
    let mut freed_bytes = 0;
    for _ in 0..10_000 {
        let compacted = store.compact(1).unwrap();
        freed_bytes += compacted.freed_bytes;
        if !compacted.more {
            return freed_bytes;
        }
    }
    panic!("compaction does not come to an end")
}

fn numbers(fs: &RecordingFs) -> Vec<String> {
    let image = fs.live_image();
    let segments = image.files.keys().filter(|path| path.extension().is_some_and(|end| end == "seg"));
    segments.map(|path| path.file_stem().unwrap().to_str().unwrap().trim_start_matches('0').to_owned()).collect()
}

#[test]
fn what_was_let_go_gives_its_space_back_and_the_rest_stays_with_all_who_see_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(Arc::new(RealFs), dir.path(), options(100_000)).unwrap();
    let store = open();
    let blobs: Vec<Vec<u8>> = (0..400).map(|n| noise(n, 4_000)).collect();
    let large: Vec<Vec<u8>> = (0..20).map(|n| noise(1_000 + n, 70_000)).collect();
    store.put_many(&name(0), &blobs).unwrap();
    store.put_many(&name(0), &large).unwrap();
    let stay: Vec<_> = blobs.iter().step_by(10).chain(large.iter().step_by(10)).map(Vec::as_slice).collect();
    let digests: Vec<_> = stay.iter().map(|blob| Digest::of(blob)).collect();
    assert_eq!(store.grant(&name(1), &digests).unwrap(), []);
    assert_eq!(store.grant(&Namespace::overlay("p2", "pr:1"), &digests[..5]).unwrap(), []);
    assert_eq!(compact(&store), 0, "everything counts");
    let going: Vec<_> = store.held(|_| true).into_iter().filter(|held| !digests.contains(&held.digest)).collect();
    store.release(&going).unwrap();
    // Of what stays, one who saw it first, and one who saw it last.
    release(&store, &name(0), &stay[..3]);
    release(&store, &name(1), &stay[3..6]);
    let before = store.stats();
    let freed_bytes = compact(&store);
    let check = |store: &Store| {
        for (nth, blob) in stay.iter().enumerate() {
            let sees = [!(0..3).contains(&nth), !(3..6).contains(&nth)];
            for (n, sees) in sees.into_iter().enumerate() {
                let got = store.get(&name(n), &Digest::of(blob)).unwrap().map(|blob| blob.into_vec().unwrap());
                assert_eq!(got.as_deref(), sees.then_some(*blob), "{n} of {nth}");
            }
            assert_eq!(store.contains(&Namespace::overlay("p2", "pr:1"), &Digest::of(blob)), nth < 5);
        }
        assert_eq!(store.stats().blobs, stay.len());
        assert_eq!(store.verify().unwrap().damaged, []);
    };
    check(&store);
    let after = store.stats();
    let counts: usize = stay.iter().map(|blob| blob.len().min(4_000)).sum();
    assert!(after.disk_bytes - after.chunk_disk_bytes < 3 * counts as u64, "{before:?} {after:?}");
    assert_eq!(after.compacted_bytes, freed_bytes);
    assert!(freed_bytes > 1_000_000 && compact(&store) == 0);
    drop(store);
    check(&open());
}

/// A release takes a blob away that lies in a segment which stays; the segment that says so goes.
#[test]
fn what_was_let_go_does_not_come_back_when_the_segment_goes_that_says_so() {
    let fs = RecordingFs::new();
    let open = |fs: &RecordingFs| Store::open(Arc::new(fs.clone()), Path::new(DIR), options(4_000)).unwrap();
    let store = open(&fs);
    let fill = |n: usize, len| store.put(&name(0), &noise(100 + n, len)).unwrap();
    // Segment 0: a small blob that goes, and so much that stays that it is not worth compacting.
    store.put(&name(0), &noise(1, 10)).unwrap();
    store.grant(&name(1), &[Digest::of(&noise(1, 10))]).unwrap();
    fill(0, 3_200);
    // Segment 1: the release, and what makes it worth it.
    fill(1, 2_000);
    release(&store, &name(0), &[&noise(1, 10)]);
    release(&store, &name(1), &[&noise(1, 10)]);
    fill(2, 3_200);
    assert_eq!(numbers(&fs).len(), 3, "{:?}", numbers(&fs));
    release(&store, &name(0), &[&noise(101, 2_000)]);
    fill(3, 3_200);
    let before = numbers(&fs);
    compact(&store);
    assert!(numbers(&fs).contains(&before[0]) && numbers(&fs) != before, "{before:?} {:?}", numbers(&fs));
    drop(store);
    let store = open(&fs);
    for n in 0..2 {
        assert!(!store.contains(&name(n), &Digest::of(&noise(1, 10))), "it was let go");
    }
    compact(&store);
    // Put again, and the old release moves: it is not undone by that.
    store.put(&name(1), &noise(1, 10)).unwrap();
    for n in 0..8 {
        store.put(&name(0), &noise(200 + n, 3_000)).unwrap();
        release(&store, &name(0), &[&noise(200 + n, 3_000)]);
        compact(&store);
    }
    drop(store);
    let store = open(&fs);
    assert!(store.contains(&name(1), &Digest::of(&noise(1, 10))));
    assert!(!store.contains(&name(0), &Digest::of(&noise(1, 10))), "who let it go does not see it again");
}

/// What must hold from some operation on up to another: whether a namespace sees a blob.
#[derive(Debug, Clone, Copy)]
struct Promise {
    since: usize,
    until: usize,
    namespace: usize,
    blob: (usize, usize),
    sees: bool,
}

/// Puts, grants, releases and compaction in small pieces. Answers what holds when it is over.
fn work(fs: &RecordingFs) -> (usize, Vec<Promise>) {
    let store = open(fs);
    let blobs: Vec<(usize, usize)> = (0..6).map(|n| (n, 300)).chain([(6, 66_000), (7, 66_000)]).collect();
    for blob in &blobs {
        store.put(&name(0), &noise(blob.0, blob.1)).unwrap();
    }
    let digest = |blob: (usize, usize)| Digest::of(&noise(blob.0, blob.1));
    store.grant(&name(1), &[digest(blobs[0]), digest(blobs[3]), digest(blobs[6])]).unwrap();
    for blob in [0, 1, 2, 4, 7] {
        release(&store, &name(0), &[&noise(blobs[blob].0, blobs[blob].1)]);
    }
    // One that comes again in another namespace than the one that let it go.
    store.put(&name(1), &noise(1, 300)).unwrap();
    for n in 0..4 {
        store.put(&name(2), &noise(50 + n, 500)).unwrap();
    }
    release(&store, &name(2), &[&noise(50, 500), &noise(52, 500)]);
    store.put(&name(2), &noise(60, 1_200)).unwrap();
    let since = fs.op_count();
    let always = usize::MAX;
    let sees = |store: &Store| {
        let mut promises = Vec::new();
        let more = (0..4).map(|n| (50 + n, 500)).chain([(60, 1_200)]);
        for blob in blobs.iter().copied().chain(more) {
            for namespace in 0..3 {
                let sees = store.contains(&name(namespace), &digest(blob));
                promises.push(Promise { since, until: always, namespace, blob, sees });
            }
        }
        promises
    };
    let mut promises = sees(&store);
    assert_eq!(promises.iter().filter(|promise| promise.sees).count(), 10);
    compact(&store);
    // What is said again is let go in its turn.
    for (namespace, blob) in [(1, (1, 300)), (2, (70, 900)), (2, (71, 900)), (2, (72, 900))] {
        let (bytes, blob_name) = (noise(blob.0, blob.1), name(namespace));
        if blob.0 > 1 {
            store.put(&blob_name, &bytes).unwrap();
            promises.push(Promise { since: fs.op_count(), until: always, namespace, blob, sees: true });
        }
        let until = fs.op_count();
        release(&store, &blob_name, &[&bytes]);
        let same = |promise: &&mut Promise| (promise.namespace, promise.blob) == (namespace, blob);
        promises.iter_mut().filter(same).for_each(|promise| promise.until = until);
        promises.push(Promise { since: fs.op_count(), until: always, namespace, blob, sees: false });
    }
    compact(&store);
    (since, promises)
}

fn broken(image: &Image, at: usize, promises: &[Promise]) -> Option<String> {
    let store = open(&RecordingFs::on(image));
    for promise in promises.iter().filter(|promise| (promise.since..=promise.until).contains(&at)) {
        let Promise { namespace, blob, sees, .. } = *promise;
        let bytes = noise(blob.0, blob.1);
        let got = match store.get(&name(namespace), &Digest::of(&bytes)).unwrap().map(|blob| blob.into_vec()) {
            Some(Ok(got)) => Some(got),
            Some(Err(error)) => return Some(format!("{blob:?}: {error}")),
            None => None,
        };
        if got != sees.then_some(bytes) {
            return Some(format!("{namespace} sees {blob:?}: {}, should: {sees}", !sees));
        }
    }
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
fn a_crash_at_any_point_of_compaction_loses_nothing_and_brings_nothing_back() {
    let fs = RecordingFs::new();
    let (since, promises) = work(&fs);
    let removed = fs.ops()[since..].iter().filter(|op| matches!(op, Op::Remove { .. })).count();
    assert!(removed > 5, "{removed} segments went");
    assert_eq!(first_broken(&fs, since, &promises), None);
}

#[test]
fn taking_away_any_single_sync_of_compaction_breaks_a_promise() {
    let fs = RecordingFs::new();
    let (since, promises) = work(&fs);
    let ops = fs.ops();
    let (mut unneeded, mut settled) = (Vec::new(), 0);
    for (at, op) in ops.iter().enumerate().skip(since) {
        let (Op::SyncData { sync, .. } | Op::SyncDir { sync, .. }) = op else { continue };
        fs.drop_sync(*sync);
        let names = |op: &&Op| matches!(op, Op::SyncDir { .. } | Op::Remove { .. });
        let again = ops[at + 1..].iter().find(names).is_some_and(|next| matches!(next, Op::SyncDir { .. }));
        let settles = ops[..at].iter().rfind(|op| matches!(op, Op::Create { .. } | Op::SyncDir { .. }));
        if again && matches!((op, settles), (Op::SyncDir { .. }, Some(Op::SyncDir { .. }))) {
            // Of removals, and a new segment made the same sure before anything else went: the next test is about it.
            settled += 1;
        } else if first_broken(&fs, at, &promises).is_none() {
            unneeded.push(op.clone());
        }
        fs.restore_syncs();
    }
    assert!(unneeded.is_empty() && settled < 3, "{unneeded:?}, {settled} in {:#?}", &ops[since..]);
}

/// What says that blobs are gone goes when no older segment says otherwise: not before those are gone for good.
#[test]
fn a_segment_that_was_removed_and_comes_back_with_a_crash_brings_nothing_back() {
    let fs = RecordingFs::new();
    let store = Store::open(Arc::new(fs.clone()), Path::new(DIR), options(4_000)).unwrap();
    let few: Vec<Vec<u8>> = (0..12).map(|n| noise(n, 10)).collect();
    let few: Vec<&[u8]> = few.iter().map(Vec::as_slice).collect();
    store.put_many(&name(0), &few).unwrap();
    store.put(&name(0), &noise(100, 2_500)).unwrap();
    store.put(&name(0), &noise(101, 2_200)).unwrap();
    release(&store, &name(0), &few);
    store.put(&name(0), &noise(102, 1_300)).unwrap();
    release(&store, &name(0), &[&noise(100, 2_500)]);
    assert_eq!(numbers(&fs), ["", "1", "2"]);
    let since = fs.op_count();
    compact(&store);
    assert_eq!(numbers(&fs), ["2"]);
    drop(store);
    let comes_back = || {
        (since..=fs.op_count()).any(|at| {
            fs.crash_images(at).iter().any(|crash| {
                let store = open(&RecordingFs::on(&crash.image));
                few.iter().any(|blob| store.contains(&name(0), &Digest::of(blob)))
            })
        })
    };
    assert!(!comes_back());
    let names = |op: &Op| if let Op::SyncDir { sync, .. } = op { Some(*sync) } else { None };
    let syncs: Vec<usize> = fs.ops()[since..].iter().filter_map(names).collect();
    assert_eq!(syncs.len(), 1);
    fs.drop_sync(syncs[0]);
    assert!(comes_back(), "the sync of names is needed");
}

#[test]
fn readers_and_writers_go_on_while_segments_are_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(RealFs), dir.path(), options(20_000)).unwrap();
    let stays: Vec<Vec<u8>> = (0..40).map(|n| noise(n, if n % 8 == 0 { 70_000 } else { 700 })).collect();
    for blob in &stays {
        store.put(&name(0), blob).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 1..3 {
            let store = store.clone();
            let done = &done;
            scope.spawn(move || {
                for round in 0..60 {
                    let blob = noise(thread * 1_000 + round, 900);
                    let digest = store.put(&name(thread), &blob).unwrap();
                    store
                        .grant(
                            &name(thread),
                            &[Digest::of(&noise(round % 40, if round % 8 == 0 { 70_000 } else { 700 }))],
                        )
                        .unwrap();
                    assert_eq!(store.get(&name(thread), &digest).unwrap().unwrap().into_vec().unwrap(), blob);
                    store.release(&store.held(|other| *other == name(thread))).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for blob in &stays {
                    let got = store.get(&name(0), &Digest::of(blob)).unwrap().expect("it stays");
                    assert_eq!(&got.into_vec().unwrap(), blob);
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.compact(10_000).unwrap();
            }
        });
    });
    for thread in 1..3 {
        // What was read meanwhile stayed.
        store.release(&store.held(|other| *other == name(thread))).unwrap();
    }
    compact(&store);
    assert_eq!((store.stats().blobs, store.stats().damaged), (40, 0));
    drop(store);
    let store = Store::open(Arc::new(RealFs), dir.path(), options(20_000)).unwrap();
    assert_eq!(store.held(|_| true).len(), 40, "each is seen by whoever kept it");
    assert!(store.verify().unwrap().damaged.is_empty() && store.stats().damaged_bytes == 0);
}

#[test]
fn a_segment_with_damaged_bytes_is_left_alone() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    for n in 0..8 {
        store.put(&name(0), &noise(n, 600)).unwrap();
    }
    let going: Vec<_> = (0..6).map(|n| noise(n, 600)).collect();
    release(&store, &name(0), &going.iter().map(Vec::as_slice).collect::<Vec<_>>());
    drop(store);
    let mut image = fs.live_image();
    let first = image.files.get_mut(Path::new("/s/segments/00000000.seg")).unwrap();
    first[140] ^= 1;
    let fs = RecordingFs::on(&image);
    let store = open(&fs);
    assert!(store.stats().damaged_bytes > 0);
    assert!(compact(&store) > 0);
    assert!(fs.live_image().files.contains_key(Path::new("/s/segments/00000000.seg")), "somebody may mend it");
}
