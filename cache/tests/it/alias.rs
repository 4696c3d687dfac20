//! Blobs by their SHA-256: who may see them, and after whatever happens to their segments.

use std::path::Path;
use std::sync::Arc;

use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{Sha256Digest, Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

use crate::chunks::noise;

fn open(fs: &RecordingFs, sha256: bool) -> Store {
    let options = StoreOptions { segment_bytes: 2_000, chunk_bytes: 8 << 10, sha256, ..StoreOptions::default() };
    Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap()
}

fn compact(store: &Store) {
    for _ in 0..1_000 {
        if !store.compact(1).unwrap().more {
            return;
        }
    }
    panic!("compaction does not come to an end");
}

#[test]
fn a_sha256_is_the_one_that_everybody_knows() {
    let hex = |digest: Sha256Digest| digest.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(Sha256Digest::of(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn a_blob_is_found_by_its_sha256_by_whoever_sees_it_and_by_nobody_else_whatever_segments_go() {
    let fs = RecordingFs::new();
    let (one, two, overlay) = (Namespace::trusted("one"), Namespace::trusted("two"), Namespace::overlay("one", "pr:1"));
    let store = open(&fs, true);
    let blobs: Vec<Vec<u8>> = (0..10).map(|n| noise(n, 500)).chain([noise(10, 70_000), Vec::new()]).collect();
    store.put(&one, &blobs[0]).unwrap();
    store.put_many(&one, &blobs[1..9]).unwrap();
    let mut upload = store.begin_put(&one, None).unwrap();
    upload.write(&blobs[9][..100]).unwrap();
    upload.write(&blobs[9][100..]).unwrap();
    upload.finish().unwrap();
    store.put(&one, &blobs[10]).unwrap();
    store.grant(&two, &[Digest::of(&blobs[2])]).unwrap();
    let check = |store: &Store, gone: &[usize]| {
        for (n, blob) in blobs.iter().enumerate() {
            let (alias, digest) = (Sha256Digest::of(blob), Digest::of(blob));
            let there = |sees: bool| (blob.is_empty() || sees && !gone.contains(&n)).then_some(digest);
            assert_eq!(store.by_sha256(&one, &alias), there(true), "{n}");
            assert_eq!(store.by_sha256(&overlay, &alias), there(true), "{n}");
            assert_eq!(store.by_sha256(&two, &alias), there(n == 2), "{n}");
        }
    };
    check(&store, &[]);
    let mut going = store.held(|name| *name == one);
    going.retain(|held| [0, 1, 3, 5, 6].map(|n| Digest::of(&blobs[n])).contains(&held.digest));
    store.release(&going).unwrap();
    check(&store, &[0, 1, 3, 5, 6]);
    compact(&store);
    check(&store, &[0, 1, 3, 5, 6]);
    store.put(&one, &blobs[3]).unwrap();
    store.put(&one, &blobs[0]).unwrap();
    check(&store, &[1, 5, 6]);
    drop(store);
    // Whoever opens it without keeps what there is.
    let store = open(&fs, false);
    check(&store, &[1, 5, 6]);
    for n in 0..8 {
        store.put(&two, &noise(100 + n, 1_500)).unwrap();
        store.release(&store.held(|name| *name == two)[..1]).unwrap();
        compact(&store);
    }
    assert_eq!(store.by_sha256(&one, &Sha256Digest::of(&blobs[4])), Some(Digest::of(&blobs[4])));
    store.put(&one, &noise(99, 500)).unwrap();
    assert_eq!(store.by_sha256(&one, &Sha256Digest::of(&noise(99, 500))), None, "it was not computed");
    drop(store);
    let store = open(&fs, true);
    store.put(&one, &noise(99, 500)).unwrap();
    assert!(
        store.by_sha256(&one, &Sha256Digest::of(&noise(99, 500))).is_some(),
        "what is stored gets its alias with the next put"
    );
}

#[test]
fn what_was_acknowledged_is_found_by_its_sha256_after_a_crash_at_any_point() {
    let fs = RecordingFs::new();
    let name = Namespace::trusted("p");
    let mut promises = Vec::new();
    let store = open(&fs, true);
    for blob in [noise(1, 300), noise(2, 66_000), noise(3, 900), noise(5, 100), noise(4, 900)] {
        store.put(&name, &blob).unwrap();
        promises.push((fs.op_count(), blob));
    }
    let mut going = store.held(|_| true);
    going.retain(|held| held.digest == Digest::of(&noise(3, 900)));
    promises.remove(2);
    let released = fs.op_count();
    store.release(&going).unwrap();
    compact(&store);
    drop(store);
    let broken = |from: usize| {
        (from..=fs.op_count()).find_map(|at| {
            fs.crash_images(at).into_iter().find_map(|crash| {
                let store = open(&RecordingFs::on(&crash.image), true);
                let lost = promises.iter().find(|(since, blob)| {
                    *since <= at && store.by_sha256(&name, &Sha256Digest::of(blob)) != Some(Digest::of(blob))
                });
                lost.map(|(_, blob)| format!("{} bytes after {at}, {}", blob.len(), crash.story))
            })
        })
    };
    assert!(fs.op_count() > released + 4, "a segment went");
    assert_eq!(broken(0), None);
}
