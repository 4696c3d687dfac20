//! Room on the disk: kept before bytes are taken, given back when they are not, and never all of it.

use std::path::Path;
use std::sync::Arc;

use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{Error, Fault, Intake, Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

use crate::chunks::noise;

const MEBIBYTE: u64 = 1 << 20;

fn p() -> Namespace {
    Namespace::trusted("p")
}

/// A store on a disk of so many bytes, of which so many are left to others.
fn on(fs: &RecordingFs, capacity_bytes: u64, floor_bytes: u64) -> Store {
    fs.set_capacity(Some(capacity_bytes));
    let options = StoreOptions { floor_bytes, chunk_bytes: 16 << 10, ..StoreOptions::default() };
    Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap()
}

fn used(fs: &RecordingFs) -> u64 {
    fs.live_image().files.values().map(|bytes| bytes.len() as u64).sum()
}

fn is_no_space<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Fault(Fault::NoSpace { .. })))
}

#[test]
fn an_upload_of_known_length_has_its_room_before_its_first_byte_and_nobody_takes_it() {
    let fs = RecordingFs::new();
    let store = on(&fs, 4 * MEBIBYTE, 0);
    let blob = noise(1, 3 << 20);
    let space = store.reserve(blob.len() as u64, 0).unwrap();
    assert!(store.stats().reserved_bytes > blob.len() as u64, "manifest and listing too");
    let mut upload = store.begin_put_in(&p(), Some(Digest::of(&blob)), space).unwrap();
    assert!(store.reserve(MEBIBYTE, 0).is_err(), "there is no byte of it on the disk, and it is taken");
    for (nth, piece) in blob.chunks(100_000).enumerate() {
        upload.write(piece).unwrap();
        let other = store.put(&p(), &noise(100 + nth, 60_000));
        assert!(other.is_ok() || is_no_space(other));
    }
    assert!(is_no_space(store.put(&p(), &noise(99, 60_000))), "the others had what was left");
    upload.finish().unwrap();
    assert_eq!(store.stats().reserved_bytes, 0);
    assert_eq!(store.verify().unwrap().damaged, []);
}

#[test]
fn room_that_was_kept_for_nothing_is_free_again() {
    let fs = RecordingFs::new();
    let store = on(&fs, 4 * MEBIBYTE, 0);
    let mut upload = store.begin_put_in(&p(), None, store.reserve(3 * MEBIBYTE, 0).unwrap()).unwrap();
    upload.write(&noise(1, 1 << 20)).unwrap();
    drop(upload);
    let again = store.reserve(3 * MEBIBYTE, 0).unwrap();
    drop(again);
    assert_eq!(store.stats().reserved_bytes, 0);
    // What is there costs nothing, and what was kept for it comes back as it goes by.
    let blob = noise(2, 1 << 20);
    store.put(&p(), &blob).unwrap();
    let mut upload = store.begin_put_in(&p(), None, store.reserve(MEBIBYTE, 0).unwrap()).unwrap();
    upload.write(&blob).unwrap();
    assert!(store.stats().reserved_bytes < MEBIBYTE / 4, "{}", store.stats().reserved_bytes);
}

#[test]
fn an_upload_of_unknown_length_is_refused_when_it_would_touch_the_floor_and_leaves_nothing() {
    let fs = RecordingFs::new();
    let capacity = 64 * MEBIBYTE;
    let store = on(&fs, capacity, u64::MAX);
    let floor = capacity / 20;
    let kept = store.put(&p(), &noise(7, 200_000)).unwrap();
    let before = used(&fs);
    let mut upload = store.begin_put(&p(), None).unwrap();
    let refused = (0..).find_map(|nth| upload.write(&noise(nth, 1 << 20)).err().map(|error| (nth, error)));
    let (pieces, error) = refused.unwrap();
    assert!(matches!(error, Error::Fault(Fault::NoSpace { .. })), "{error}");
    assert!((59..61).contains(&pieces), "all that is above the floor can be had: {pieces} MiB");
    assert!(capacity - used(&fs) >= floor, "the floor is whole");
    drop(upload);
    assert!(used(&fs) <= before, "nothing is left of it");
    assert!(store.get(&p(), &kept).unwrap().is_some(), "nothing that was stored is lost");
    store.put(&p(), b"small").unwrap();
}

#[test]
fn what_lets_go_works_below_the_floor() {
    let fs = RecordingFs::new();
    let store = on(&fs, 4 * MEBIBYTE, 0);
    store.put(&p(), &noise(1, 2 << 20)).unwrap();
    drop(store);
    // By now others took all but a little.
    let store = on(&fs, used(&fs) + 4_096, u64::MAX);
    assert!(is_no_space(store.put(&p(), &noise(2, 60_000))));
    assert_eq!(store.release(&store.held(|_| true)).unwrap(), 1);
    store.put(&p(), &noise(2, 60_000)).unwrap();
}

#[test]
fn an_intake_takes_its_blobs_in_the_room_that_was_kept_for_all_of_them() {
    let fs = RecordingFs::new();
    let store = on(&fs, 4 * MEBIBYTE, 0);
    let blobs = [noise(1, 100), noise(2, 1 << 20), noise(3, 60_000), noise(4, 1 << 20)];
    let sum: u64 = blobs.iter().map(|blob| blob.len() as u64).sum();
    let mut intake = Intake::within(&store, &p(), store.reserve(sum, 0).unwrap());
    for blob in &blobs {
        intake.begin(Digest::of(blob), blob.len() as u64).unwrap();
        intake.push(blob).unwrap();
    }
    assert_eq!(intake.finish().unwrap().len(), 4);
    assert_eq!(store.stats().reserved_bytes, 0);
    // Without it each is asked for when it begins, whole.
    let mut intake = Intake::new(&store, &p());
    assert!(is_no_space(intake.begin(Digest::of(b"huge"), 3 * MEBIBYTE)));
    assert_eq!(store.stats().reserved_bytes, 0);
}

#[test]
fn a_lazy_store_lets_go_of_what_was_used_long_ago_where_the_disk_has_no_room() {
    let fs = RecordingFs::new();
    fs.set_capacity(Some(32 * MEBIBYTE));
    let options = StoreOptions { chunk_bytes: 16 << 10, ..StoreOptions::lazy(1 << 40) };
    let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap();
    for nth in 0..50 {
        store.put(&p(), &noise(nth, 1 << 20)).unwrap();
    }
    let stats = store.stats();
    assert!(stats.evicted >= 20 && stats.disk_bytes > 20 * MEBIBYTE, "{stats:?}");
    assert!(32 * MEBIBYTE - used(&fs) >= 2 * MEBIBYTE, "the floor is whole");
}
