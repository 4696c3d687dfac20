//! A disk that a job fills, and the cache on it that gives way.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::statvfs;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use windlass_cache::{RealFs, StoreOptions};
use windlass_protocol::limits::CACHE_FLOOR_PART;
use windlass_protocol::{Digest, Namespace};

use super::*;

const MEBIBYTE_LEN: usize = 1 << 20;
const MEBIBYTE: u64 = MEBIBYTE_LEN as u64;

const fn look(headroom_bytes: u64, freed_bytes: u64, more: bool) -> Option<Look> {
    Some(Look { headroom_bytes, freed_bytes, more })
}

#[test]
fn the_less_room_there_is_the_sooner_it_is_looked_again_and_what_gives_nothing_is_tried_ever_more_seldom() {
    let mut pace = Pace::default();
    let (min, max) = (Duration::from_millis(FLOOR_LOOK_MIN_MS), Duration::from_millis(FLOOR_LOOK_MAX_MS));
    assert_eq!(pace.after(look(u64::MAX, 0, false)), max);
    assert_eq!(pace.after(look(FLOOR_FILL_BYTES_PER_MS * 1_234, 0, false)), Duration::from_millis(1_234));
    assert_eq!(pace.after(look(0, 0, false)), min, "nothing to let go of costs a look and no work");
    assert_eq!(pace.after(look(u64::MAX, 1, true)), min);
    let fruitless: Vec<_> = (0..80).map(|_| pace.after(look(0, 0, true))).collect();
    assert!(fruitless.is_sorted() && fruitless[0] == min * 2 && fruitless[79] == max, "{fruitless:?}");
    assert_eq!(pace.after(look(0, 1, true)), min);
    assert_eq!(pace.after(None), min * 2);
}

/// Writes to a file until the disk has so little that the cache must have gone; says how little was free at the least.
fn fill(path: &Path, bytes: u64) -> u64 {
    let mut file = File::create(path).unwrap();
    let mut least = u64::MAX;
    let piece = vec![7; MEBIBYTE_LEN];
    let slowly_from = (bytes / MEBIBYTE).saturating_sub(150);
    for nth in 0..bytes / MEBIBYTE {
        file.write_all(&piece).unwrap();
        let disk = statvfs(path).unwrap();
        least = least.min(disk.f_bavail * disk.f_frsize);
        if nth >= slowly_from {
            // A job's rate: what is tested is that the cache gives way, not how fast this machine writes to memory.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    least
}

fn noise(n: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// Stores so many mebibytes, large blobs and small ones.
fn store_some(store: &Store, mebibytes: u64) -> Vec<Digest> {
    let namespace = Namespace::trusted("p");
    let large = (0..mebibytes / 2).map(|n| noise(n, MEBIBYTE_LEN));
    let small = (0..mebibytes / 2 * 32).map(|n| noise(1_000_000 + n, 32 << 10));
    large.chain(small).map(|blob| store.put(&namespace, &blob).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fills_the_disk_finds_the_cache_gone_before_its_floor_is_touched_and_the_cache_comes_back_to_use() {
    // Half a floor, which is how far ahead of it the cache begins, is half a second of the job's.
    const DISK: u64 = 1_024 * MEBIBYTE;
    let dir = tempfile::tempdir().unwrap();
    let options = std::ffi::CString::new(format!("size={DISK}")).unwrap();
    // Only root mounts, and not in every sandbox.
    if mount("none", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()).is_err() {
        return;
    }
    let disk = dir.path().to_owned();
    let ran = tokio::spawn(async move { filled(&disk, DISK).await }).await;
    unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    ran.unwrap();
}

async fn filled(disk: &Path, bytes: u64) {
    let store = Store::open(Arc::new(RealFs), &disk.join("cache"), StoreOptions::lazy(1 << 40)).unwrap();
    let before = store_some(&store, 120);
    let pins = store.pin(&before[..4]);
    let (feed, mut inputs) = mpsc::channel(1);
    let watching = tokio::spawn(watch(store.clone(), feed));
    let (job, floor) = (disk.join("job"), bytes / CACHE_FLOOR_PART);
    let least = tokio::task::spawn_blocking({
        let job = job.clone();
        move || fill(&job, 900 * MEBIBYTE)
    });
    let least = least.await.unwrap();
    assert!(least >= floor, "{least} bytes were left, not {floor}");
    let namespace = Namespace::trusted("p");
    assert_eq!(store.missing(&namespace, &before[..4]), [], "what is pinned stays");
    assert!(store.stats().disk_bytes < 30 * MEBIBYTE, "{:?}", store.stats());
    drop(pins);
    // The job is over: the cache is of use again, and nothing goes any more.
    std::fs::remove_file(&job).unwrap();
    let after = store_some(&store, 60);
    let evicted = store.stats().evicted;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(4 * FLOOR_LOOK_MIN_MS) {
        tokio::time::sleep(Duration::from_millis(FLOOR_LOOK_MIN_MS)).await;
    }
    assert_eq!((store.missing(&namespace, &after), store.stats().evicted), (vec![], evicted));
    inputs.close();
    watching.await.unwrap();
    assert_eq!(store.verify().unwrap().damaged, []);
}
