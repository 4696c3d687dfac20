//! A disk that a job fills, and the cache on it that gives way.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::fs::statvfs;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::vfs::{DirItem, Held, Space};
use windlass_cache::{RealFs, StoreOptions, Vfs, VfsFile};
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
    assert_eq!(pace.after(look(0, 0, false)), min);
    assert_eq!(pace.after(None), min * 2, "nothing to let go of is no try in vain");
    assert_eq!(pace.after(look(0, 0, true)), min * 4, "a disk that failed and one that gives nothing are alike");
}

/// A disk in memory that tells when its room was looked at, and may fail.
#[derive(Debug, Clone)]
struct Disk {
    fs: RecordingFs,
    looks: mpsc::UnboundedSender<tokio::time::Instant>,
    fails: Arc<AtomicBool>,
}

impl Disk {
    fn of(bytes: u64) -> (Self, mpsc::UnboundedReceiver<tokio::time::Instant>) {
        let (looks, looked) = mpsc::unbounded_channel();
        let fs = RecordingFs::new();
        fs.set_capacity(Some(bytes));
        (Self { fs, looks, fails: Arc::default() }, looked)
    }

    fn store(&self) -> Store {
        Store::open(Arc::new(self.clone()), Path::new("/s"), StoreOptions::lazy(1 << 40)).unwrap()
    }

    fn free(&self) -> u64 {
        self.fs.space(Path::new("/")).unwrap().free_bytes
    }
}

impl Vfs for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.fs.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.fs.open(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.fs.open_read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.fs.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        self.fs.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.fs.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let space = self.fs.space(dir);
        let space = if self.fails.load(Ordering::Relaxed) { Err(io::ErrorKind::Other.into()) } else { space };
        // Whoever hears of it may change the disk for the next look.
        let _ = self.looks.send(tokio::time::Instant::now());
        space
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Held>> {
        self.fs.lock(path)
    }
}

#[tokio::test(start_paused = true)]
async fn the_disk_is_looked_at_at_once_and_then_when_its_room_may_be_gone_whether_or_not_it_fails_until_the_loop_ends()
{
    let (disk, mut looks) = Disk::of(20 << 30);
    let store = disk.store();
    let room_ms = store.keep_floor().unwrap().headroom_bytes / FLOOR_FILL_BYTES_PER_MS;
    assert!((FLOOR_LOOK_MIN_MS + 1..FLOOR_LOOK_MAX_MS).contains(&room_ms), "{room_ms}");
    while looks.try_recv().is_ok() {}
    let mut last = tokio::time::Instant::now();
    let (feed, mut inputs) = mpsc::channel(1);
    let watching = tokio::spawn(watch(store, feed));
    let mut waited = async || {
        let look = tokio::time::timeout(Duration::from_secs(60), looks.recv()).await.unwrap().unwrap();
        // The clock of timers counts whole milliseconds.
        let ms = u64::try_from(look.duration_since(last).as_micros().div_ceil(1_000)).unwrap();
        last = look;
        ms
    };
    let about = |ms: u64| ms.saturating_sub(1)..=ms + 1;
    assert_eq!(waited().await, 0);
    for expected in [room_ms, room_ms] {
        let ms = waited().await;
        assert!(about(expected).contains(&ms), "{ms} ms, not {expected}");
    }
    disk.fails.store(true, Ordering::Relaxed);
    for expected in [room_ms, 2 * FLOOR_LOOK_MIN_MS, 4 * FLOOR_LOOK_MIN_MS, 8 * FLOOR_LOOK_MIN_MS] {
        let ms = waited().await;
        assert!(about(expected).contains(&ms), "{ms} ms, not {expected}, of a disk that fails");
    }
    disk.fails.store(false, Ordering::Relaxed);
    disk.fs.set_capacity(None);
    for expected in [16 * FLOOR_LOOK_MIN_MS, FLOOR_LOOK_MAX_MS] {
        let ms = waited().await;
        assert!(about(expected).contains(&ms), "{ms} ms, not {expected}, of a disk that is well again");
    }
    inputs.close();
    watching.await.unwrap();
    assert!(last.elapsed() < Duration::from_millis(FLOOR_LOOK_MIN_MS), "who is not heard looks no more");
}

#[tokio::test(start_paused = true)]
async fn while_a_job_writes_no_faster_than_is_looked_the_floor_is_kept_and_what_is_pinned_stays() {
    const DISK: u64 = 64 * MEBIBYTE;
    let (disk, _looks) = Disk::of(DISK);
    let store = disk.store();
    let blobs = store_some(&store, 30);
    let pins = store.pin(&blobs[..2]);
    let (feed, _inputs) = mpsc::channel(1);
    tokio::spawn(watch(store.clone(), feed));
    let job = disk.fs.create(Path::new("/job")).unwrap();
    let piece = vec![7; MEBIBYTE_LEN / 4];
    for nth in 0..54 * 4 {
        job.write_at(nth * piece.len() as u64, &piece).unwrap();
        tokio::time::sleep(Duration::from_millis(FLOOR_LOOK_MIN_MS / 3)).await;
        assert!(disk.free() >= DISK / CACHE_FLOOR_PART, "{} bytes are left after {nth} pieces", disk.free());
    }
    assert_eq!(store.missing(&Namespace::trusted("p"), &blobs[..2]), []);
    drop(pins);
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
    if let Err(why) = mount("none", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()) {
        return skipped(&format!("no tmpfs can be mounted: {why}"));
    }
    let disk = dir.path().to_owned();
    let ran = tokio::spawn(async move { filled(&disk, DISK).await }).await;
    unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    ran.unwrap();
}

/// Leaves a record of what could not run, where the record is collected.
fn skipped(why: &str) {
    let line = format!("room: {why}\n");
    io::stderr().write_all(format!("skipped: {line}").as_bytes()).unwrap();
    if let Some(path) = std::env::var_os("WINDLASS_SKIPS") {
        let mut record = File::options().append(true).create(true).open(path).unwrap();
        record.write_all(line.as_bytes()).unwrap();
    }
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
