//! Room that a lazy store leaves to others while these write.

use std::path::Path;
use std::sync::Arc;

use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{Store, StoreOptions, Vfs as _, VfsFile};
use windlass_protocol::{Digest, Namespace};

use crate::chunks::noise;

const MEBIBYTE: u64 = 1 << 20;
const DISK: u64 = 64 * MEBIBYTE;
const FLOOR: u64 = DISK / 20;

fn p() -> Namespace {
    Namespace::trusted("p")
}

fn open(fs: &RecordingFs, capacity_bytes: u64) -> Store {
    let options = StoreOptions { chunk_bytes: 16 << 10, ..StoreOptions::lazy(capacity_bytes) };
    Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap()
}

fn free(fs: &RecordingFs) -> u64 {
    fs.space(Path::new("/")).unwrap().free_bytes
}

/// What a job writes: it asks nobody.
struct Job {
    file: Box<dyn VfsFile>,
    end: u64,
}

impl Job {
    fn on(fs: &RecordingFs) -> Self {
        Self { file: fs.create(Path::new("/job")).unwrap(), end: 0 }
    }

    fn write(&mut self, bytes: u64) {
        self.file.write_at(self.end, &vec![1; usize::try_from(bytes).unwrap()]).unwrap();
        self.end += bytes;
    }
}

fn put(store: &Store, n: std::ops::Range<usize>, bytes: usize) -> Vec<Digest> {
    n.map(|n| store.put(&p(), &noise(n, bytes)).unwrap()).collect()
}

#[test]
fn while_a_job_writes_the_floor_is_kept_by_what_was_used_longest_ago_and_nothing_goes_while_there_is_room() {
    let fs = RecordingFs::new();
    fs.set_capacity(Some(DISK));
    let store = open(&fs, 1 << 40);
    let blobs = put(&store, 0..40, 1 << 20);
    assert!(store.get(&p(), &blobs[0]).unwrap().is_some(), "used again");
    let mut job = Job::on(&fs);
    let mut looks = Vec::new();
    while job.end < 40 * MEBIBYTE {
        job.write(MEBIBYTE);
        let before = free(&fs);
        let look = store.keep_floor().unwrap();
        assert!(free(&fs) >= FLOOR, "{} bytes are left after {} of the job", free(&fs), job.end);
        assert_eq!(look.headroom_bytes, before.saturating_sub(FLOOR + FLOOR / 2));
        assert_eq!(look.freed_bytes > 0, look.headroom_bytes == 0, "{look:?}");
        looks.push(look.freed_bytes);
    }
    assert!(looks[..10].iter().all(|freed| *freed == 0), "{looks:?}");
    assert!(looks.iter().filter(|freed| **freed > 0).count() < 15, "it gives way in steps: {looks:?}");
    let missing = store.missing(&p(), &blobs);
    assert!(missing.len() >= 15 && !missing.contains(&blobs[0]), "{}", missing.len());
    assert_eq!(missing, blobs[1..=missing.len()], "the oldest went");
    assert!(free(&fs) < 3 * FLOOR, "and no more than had to");
    // The job is over.
    fs.remove(Path::new("/job")).unwrap();
    assert_eq!(store.keep_floor().unwrap().freed_bytes, 0);
    put(&store, 0..40, 1 << 20);
    assert_eq!(store.missing(&p(), &blobs), []);
}

#[test]
fn small_blobs_go_with_the_segment_that_grows_and_what_is_pinned_stays() {
    let fs = RecordingFs::new();
    fs.set_capacity(Some(DISK));
    let store = open(&fs, 1 << 40);
    let blobs = put(&store, 0..640, 48 << 10);
    let pins = store.pin(&blobs[..10]);
    let mut job = Job::on(&fs);
    while job.end < 52 * MEBIBYTE {
        job.write(MEBIBYTE / 2);
        store.keep_floor().unwrap();
        assert!(free(&fs) >= FLOOR, "{} bytes are left after {} of the job", free(&fs), job.end);
    }
    assert_eq!(store.missing(&p(), &blobs[..10]), []);
    assert!(store.stats().blobs < 60, "{:?}", store.stats());
    drop(pins);
    assert_eq!(store.verify().unwrap().damaged, []);
    drop(store);
    let store = open(&fs, 1 << 40);
    assert_eq!(store.missing(&p(), &blobs[..10]), [], "nor does a start lose it");
}

#[test]
fn a_disk_that_was_filled_to_its_last_byte_gets_the_caches_bytes_all_the_same() {
    let fs = RecordingFs::new();
    fs.set_capacity(Some(DISK));
    let store = open(&fs, 1 << 40);
    let blobs = put(&store, 0..30, 1 << 20);
    let mut job = Job::on(&fs);
    job.write(free(&fs));
    assert_eq!(free(&fs), 0);
    let look = store.keep_floor().unwrap();
    assert!(look.freed_bytes >= 2 * FLOOR - MEBIBYTE && free(&fs) >= 2 * FLOOR - MEBIBYTE, "{look:?}");
    let left = store.missing(&p(), &blobs);
    drop(store);
    let store = open(&fs, 1 << 40);
    assert_eq!(store.missing(&p(), &blobs), left, "those that went do not come back without their bytes");
    assert_eq!(store.verify().unwrap().damaged, []);
}

#[test]
fn a_cap_that_was_lowered_while_the_store_was_closed_is_kept_from_the_first_look_on() {
    let fs = RecordingFs::new();
    fs.set_capacity(Some(DISK));
    let store = open(&fs, 1 << 40);
    put(&store, 0..40, 1 << 20);
    drop(store);
    let store = open(&fs, 16 * MEBIBYTE);
    let look = store.keep_floor().unwrap();
    assert!(!look.more && look.freed_bytes >= 24 * MEBIBYTE, "{look:?}");
    assert!(store.stats().disk_bytes <= 16 * MEBIBYTE, "{:?}", store.stats());
    assert_eq!(store.keep_floor().unwrap().freed_bytes, 0);
}

#[test]
fn a_durable_store_lets_go_of_nothing() {
    let fs = RecordingFs::new();
    fs.set_capacity(Some(8 * MEBIBYTE));
    let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), StoreOptions::default()).unwrap();
    let blobs = put(&store, 0..4, 1 << 20);
    Job::on(&fs).write(free(&fs));
    assert_eq!(store.keep_floor().unwrap().freed_bytes, 0);
    assert_eq!(store.missing(&p(), &blobs), []);
}

#[test]
fn what_an_upload_was_promised_counts_as_written() {
    let fs = RecordingFs::new();
    fs.set_capacity(Some(DISK));
    let store = open(&fs, 1 << 40);
    put(&store, 0..4, 1 << 20);
    let before = store.keep_floor().unwrap().headroom_bytes;
    let promised = store.reserve(8 * MEBIBYTE, 0).unwrap();
    assert!(store.keep_floor().unwrap().headroom_bytes <= before - 8 * MEBIBYTE);
    drop(promised);
    assert_eq!(store.keep_floor().unwrap().headroom_bytes, before);
}
