//! Small blobs in memory: what is read from there is right and for those alone who see it, and it has an end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_cache::vfs::recorded::{Image, RecordingFs};
use windlass_cache::{Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

use crate::chunks::noise;

fn p() -> Namespace {
    Namespace::trusted("p")
}

fn options(memory_bytes: u64) -> StoreOptions {
    StoreOptions { memory_bytes, ..StoreOptions::default() }
}

fn open(image: &Image, memory_bytes: u64) -> (RecordingFs, Store) {
    let fs = RecordingFs::on(image);
    let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), options(memory_bytes)).unwrap();
    (fs, store)
}

fn filled(blobs: usize) -> (Image, Vec<Digest>) {
    let fs = RecordingFs::new();
    let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), options(0)).unwrap();
    let digests = (0..blobs).map(|n| store.put(&p(), &noise(n, 1_000)).unwrap()).collect();
    drop(store);
    (fs.live_image(), digests)
}

fn read(store: &Store, digest: &Digest) -> Option<Vec<u8>> {
    Some(store.get(&p(), digest).unwrap()?.into_vec().unwrap())
}

/// All bits of the one segment are wrong from here on.
fn rot(fs: &RecordingFs) {
    let segment = PathBuf::from("/s/segments/00000000.seg");
    let bytes: Vec<u8> = fs.live_image().files[&segment].iter().map(|byte| !byte).collect();
    windlass_cache::Vfs::open(fs, &segment).unwrap().write_at(0, &bytes).unwrap();
}

#[test]
fn what_was_read_once_is_read_again_without_the_disk() {
    let (image, digests) = filled(10);
    let (fs, store) = open(&image, 1 << 20);
    for digest in &digests {
        read(&store, digest).unwrap();
    }
    rot(&fs);
    for (n, digest) in digests.iter().enumerate() {
        assert_eq!(read(&store, digest), Some(noise(n, 1_000)));
    }
    let used = store.stats().memory;
    assert_eq!((used.hits, used.misses), (10, 10));
    assert!(used.bytes >= 10_000);
}

#[test]
fn a_check_reads_the_disk_whatever_is_in_memory() {
    let (image, digests) = filled(10);
    let (fs, store) = open(&image, 1 << 20);
    digests.iter().for_each(|digest| drop(read(&store, digest)));
    let before = store.stats().memory;
    assert!(store.verify().unwrap().damaged.is_empty());
    assert_eq!(store.stats().memory, before, "nor does it count");
    let segment = PathBuf::from("/s/segments/00000000.seg");
    let bytes = fs.live_image().files[&segment].clone();
    let at = bytes.windows(1_000).position(|window| *window == noise(3, 1_000)).unwrap();
    windlass_cache::Vfs::open(&fs, &segment).unwrap().write_at(at as u64, &[!bytes[at]]).unwrap();
    assert_eq!(store.verify().unwrap().damaged, [digests[3]]);
    assert_eq!(read(&store, &digests[3]), None, "and what it found is put aside");
}

#[test]
fn a_store_that_keeps_nothing_in_memory_reads_the_disk_each_time() {
    let (image, digests) = filled(2);
    let (fs, store) = open(&image, 0);
    read(&store, &digests[0]).unwrap();
    rot(&fs);
    assert_eq!(read(&store, &digests[0]), None, "put aside, as its bytes are wrong");
    assert_eq!(store.stats().memory, windlass_cache::MemoryUse::default());
}

#[test]
fn bytes_that_are_wrong_are_never_kept() {
    let (image, digests) = filled(2);
    let (fs, store) = open(&image, 1 << 20);
    rot(&fs);
    assert_eq!(read(&store, &digests[0]), None);
    assert_eq!(store.stats().memory.bytes, 0);
}

#[test]
fn nobody_sees_a_blob_because_it_is_in_memory() {
    let (image, digests) = filled(1);
    let (_fs, store) = open(&image, 1 << 20);
    read(&store, &digests[0]).unwrap();
    let stranger = Namespace::trusted("q");
    assert!(store.get(&stranger, &digests[0]).unwrap().is_none());
    assert!(!store.contains(&stranger, &digests[0]));
    let held = store.held(|_| true);
    store.release(&held).unwrap();
    assert_eq!(read(&store, &digests[0]), None, "and it went with the blob");
    assert_eq!(store.stats().memory.hits, 0);
}

#[test]
fn it_takes_no_more_than_it_may_and_what_is_read_once_drives_out_nothing_that_is_asked_for_again() {
    let (image, digests) = filled(420);
    let most = 100_000;
    let (_fs, store) = open(&image, most);
    let (hot, cold) = digests.split_at(20);
    for _ in 0..2 {
        hot.iter().for_each(|digest| drop(read(&store, digest)));
    }
    let before = store.stats().memory.hits;
    assert_eq!(before, 20);
    for digest in cold {
        read(&store, digest).unwrap();
        assert!(store.stats().memory.bytes <= most, "{:?}", store.stats().memory);
    }
    assert_eq!(store.stats().memory.hits, before, "each of them was read for the first time");
    hot.iter().for_each(|digest| drop(read(&store, digest)));
    assert_eq!(store.stats().memory.hits, before + 20);
}
