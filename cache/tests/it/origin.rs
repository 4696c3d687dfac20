//! A bucket behind the store: what moves there, how it is read, and what happens when it does not do what it should.

mod crash;
mod greeting;
mod model;
mod rebuild;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};

use windlass_cache::remote::memory::{MemoryRemote, TROUBLES, Trouble};
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{Fault, Origin, Remote, RemoteError, RemoteObject, Store, StoreOptions};
use windlass_protocol::limits::{ORIGIN_TICK_BYTES, ORIGIN_TICK_DELETES};
use windlass_protocol::{Digest, Namespace};

use crate::archive::archive;
use crate::chunks::noise;

const DIR: &str = "/s";

/// Segments of a few blobs, chunks of 4 to 64 KiB.
const OPTIONS: StoreOptions = StoreOptions {
    durability: windlass_cache::Durability::Durable,
    capacity_bytes: None,
    floor_bytes: 0,
    segment_bytes: 4_200,
    chunk_bytes: 16 << 10,
    sha256: false,
    scan: false,
    promise_ms: 0,
    memory_bytes: 0,
};

/// What somebody does while the bucket does not answer.
type Work<'a> = Box<dyn Fn() + Send + Sync + 'a>;

fn p() -> Namespace {
    Namespace::trusted("p")
}

/// Nothing that can be in the bucket stays on the disk.
fn behind(remote: impl Remote + 'static) -> Origin {
    Origin { pause_ms: 0, ..Origin::new(Arc::new(remote), 0) }
}

fn open(fs: &RecordingFs, remote: &MemoryRemote) -> Result<Store, Fault> {
    Store::open_before(Arc::new(fs.clone()), Path::new(DIR), OPTIONS, Some(behind(remote.clone())))
}

fn tend(store: &Store) -> Result<(), Fault> {
    // A bound of its own: what has no end is a defect.
    for _ in 0..1_000 {
        if !store.tend_origin(ORIGIN_TICK_BYTES)?.more {
            return Ok(());
        }
    }
    panic!("tending does not come to an end");
}

fn read(store: &Store, bytes: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    match store.get(&p(), &Digest::of(bytes))? {
        Some(blob) => blob.into_vec().map(Some),
        None => Ok(None),
    }
}

fn release(store: &Store, bytes: &[u8]) -> usize {
    let digest = Digest::of(bytes);
    let held: Vec<_> = store.held(|_| true).into_iter().filter(|held| held.digest == digest).collect();
    store.release(&held).unwrap()
}

/// Twelve small blobs over several segments, two large ones.
fn blobs() -> Vec<Vec<u8>> {
    (0..12).map(|n| noise(n, 900)).chain([noise(20, 150_000), noise(21, 300_000)]).collect()
}

fn names(fs: &RecordingFs, end: &str) -> Vec<String> {
    fs.live_image()
        .files
        .keys()
        .filter_map(|path| path.to_str())
        .filter(|p| p.ends_with(end))
        .map(str::to_owned)
        .collect()
}

fn chunk_files(fs: &RecordingFs) -> usize {
    fs.live_image().files.keys().filter(|path| path.starts_with("/s/chunks")).count()
}

/// A store with all that can be away being away.
fn moved() -> (RecordingFs, MemoryRemote, Store) {
    let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
    let store = open(&fs, &remote).unwrap();
    for blob in blobs() {
        store.put(&p(), &blob).unwrap();
    }
    tend(&store).unwrap();
    (fs, remote, store)
}

#[test]
fn what_the_disk_has_no_room_for_is_in_the_bucket_and_is_read_from_there() {
    let (fs, remote, store) = moved();
    assert_eq!((chunk_files(&fs), names(&fs, ".seg").len()), (0, 1), "the segment that grows stays");
    assert!(names(&fs, ".bones").len() > 2);
    let stats = store.origin_stats().unwrap();
    assert_eq!(stats.objects + 1, remote.objects().len(), "and whose they are");
    assert_eq!((stats.waiting_bytes, stats.away_bytes), (0, stats.bytes));
    assert!(store.stats().disk_bytes < 20_000, "{:?}", store.stats());
    drop(store);
    let calls = remote.calls();
    let store = open(&RecordingFs::on(&fs.live_image()), &remote).unwrap();
    for blob in blobs() {
        assert!(store.contains(&p(), &Digest::of(&blob)));
    }
    assert_eq!(remote.calls(), calls, "neither opening nor looking asks the bucket");
    for blob in blobs() {
        assert!(read(&store, &blob).unwrap() == Some(blob));
    }
    assert_eq!((store.stats().damaged, store.origin_stats().unwrap().failed), (0, 0));
}

#[test]
fn a_blob_read_in_order_takes_few_requests_and_a_chunk_its_own_range() {
    let (fs, remote, store) = moved();
    let large = noise(21, 300_000);
    let gets = |remote: &MemoryRemote| remote.log().iter().filter(|line| line.starts_with("get")).count();
    let before = gets(&remote);
    assert!(read(&store, &large).unwrap().as_deref() == Some(&large[..]));
    assert_eq!(gets(&remote) - before, 1, "all of it by one range");
    assert!(read(&store, &large).unwrap().as_deref() == Some(&large[..]));
    assert_eq!(gets(&remote) - before, 1, "and that is remembered");
    drop(store);
    let store = open(&RecordingFs::on(&fs.live_image()), &remote).unwrap();
    let blob = store.get(&p(), &Digest::of(&large)).unwrap().unwrap();
    let (before, nth) = (gets(&remote), 7);
    let bytes = blob.manifest().unwrap().chunk_bytes(nth).unwrap();
    let start = usize::try_from(blob.manifest().unwrap().chunks()[nth - 1].end).unwrap();
    assert_eq!(blob.chunk(nth).unwrap().unwrap(), large[start..start + bytes]);
    assert_eq!(gets(&remote) - before, 1);
    assert_eq!(store.origin_stats().unwrap().fetched_bytes, bytes as u64, "noise lies as it is");
    // Whoever goes on gets more at once.
    for nth in nth + 1..blob.manifest().unwrap().chunks().len() {
        blob.chunk(nth).unwrap().unwrap();
    }
    assert!(gets(&remote) - before < 6, "{}", gets(&remote) - before);
}

#[test]
fn an_archive_is_read_from_the_bucket_in_any_part_and_whole_by_few_requests() {
    let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
    let store = open(&fs, &remote).unwrap();
    let tar = archive(120, 1_700_000_000);
    let digest = store.put(&p(), &tar).unwrap();
    // Its manifest is in a segment that is away, too.
    for n in 0..12 {
        store.put(&p(), &noise(n, 900)).unwrap();
    }
    tend(&store).unwrap();
    drop(store);
    assert_eq!((chunk_files(&fs), names(&fs, ".seg").len()), (0, 1));
    let store = open(&RecordingFs::on(&fs.live_image()), &remote).unwrap();
    let blob = store.get(&p(), &digest).unwrap().unwrap();
    assert!(blob.manifest().unwrap().is_woven());
    let mut part = vec![0; 5_000];
    assert_eq!(blob.read_at(700_000, &mut part).unwrap(), 5_000);
    assert!(part == tar[700_000..705_000]);
    drop((blob, store));
    let store = open(&RecordingFs::on(&fs.live_image()), &remote).unwrap();
    let gets = |remote: &MemoryRemote| remote.log().iter().filter(|line| line.starts_with("get")).count();
    let before = gets(&remote);
    assert!(read(&store, &tar).unwrap().as_deref() == Some(&tar[..]));
    let asked = gets(&remote) - before;
    assert!(asked < 12, "{asked} requests for {} bytes", tar.len());
    let fetched = store.origin_stats().unwrap().fetched_bytes;
    assert!(fetched < 3 * tar.len() as u64, "{fetched} of {}", tar.len());
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_bucket_that_does_not_answer_makes_reads_fail_and_loses_nothing() {
    for trouble in TROUBLES {
        let (_, remote, store) = moved();
        remote.fail_always(Some(trouble));
        for blob in blobs() {
            match read(&store, &blob) {
                Err(Fault::Unavailable { .. }) => {}
                // The segment that grows is on the disk.
                Ok(Some(found)) => assert!(found == blob && blob.len() < 1_000),
                other => panic!("{trouble:?}: {other:?}"),
            }
            assert!(store.contains(&p(), &Digest::of(&blob)), "{trouble:?}: it is there all the same");
        }
        // Puts go on, of what is there too, and letting go.
        store.put(&p(), &noise(40, 900)).unwrap();
        store.put(&p(), &noise(41, 200_000)).unwrap();
        assert!(read(&store, &noise(41, 200_000)).unwrap().is_some());
        assert_eq!(release(&store, &noise(3, 900)), 1);
        assert_eq!(release(&store, &noise(20, 150_000)), 1);
        assert!(matches!(store.tend_origin(ORIGIN_TICK_BYTES), Err(Fault::Unavailable { .. })), "{trouble:?}");
        let report = store.verify().unwrap();
        assert_eq!((report.damaged_blobs, report.complete), (0, false), "{trouble:?}");
        // Where one byte is wrong the other blobs of that range are right.
        let least = if trouble == Trouble::Wrong { 1 } else { 6 };
        assert!(report.unreachable_blobs >= least, "{trouble:?}: {report:?}");
        remote.fail_always(None);
        for blob in blobs().iter().filter(|blob| **blob != noise(3, 900) && **blob != noise(20, 150_000)) {
            assert!(read(&store, blob).unwrap().as_ref() == Some(blob), "{trouble:?}: it came back");
        }
        assert_eq!(store.stats().damaged, 0, "{trouble:?}");
        tend(&store).unwrap();
        assert!(store.verify().unwrap().is_sound());
    }
}

#[test]
fn what_nobody_reaches_may_be_brought_again_and_is_served_then() {
    let (fs, remote, store) = moved();
    drop(store);
    // Nothing of it was read in this process.
    let store = open(&fs, &remote).unwrap();
    remote.fail_always(Some(Trouble::Down));
    let digests: Vec<Digest> = blobs().iter().map(|blob| Digest::of(blob)).collect();
    assert_eq!(store.missing(&p(), &digests), [], "nobody has asked the bucket yet");
    let shares = [noise(21, 300_000), noise(90, 1_000)].concat();
    store.put(&p(), &shares).unwrap();
    assert!(
        read(&store, &shares).unwrap().as_ref() == Some(&shares),
        "no chunk of it is counted on that is not reached"
    );
    let missing = store.missing(&p(), &digests);
    assert!(missing.len() >= 12 && missing.len() < digests.len() + 1, "{}", missing.len());
    for blob in blobs() {
        store.put(&p(), &blob).unwrap();
        assert!(read(&store, &blob).unwrap() == Some(blob));
    }
    assert_eq!(store.missing(&p(), &digests), []);
    remote.fail_always(None);
    drop(store);
    let store = open(&RecordingFs::on(&fs.live_image()), &remote).unwrap();
    settle(&store);
    assert!(blobs().iter().all(|blob| read(&store, blob).unwrap().as_ref() == Some(blob)));
    assert_eq!(store.origin_stats().unwrap().objects + 1, remote.objects().len());
    assert_eq!(store.stats().damaged, 0);
}

#[test]
fn a_bucket_that_is_another_makes_nothing_absent() {
    let (fs, remote, store) = moved();
    drop(store);
    let other = MemoryRemote::default();
    let store = open(&fs, &other).unwrap();
    for blob in blobs() {
        assert!(matches!(read(&store, &blob), Err(Fault::Unavailable { .. }) | Ok(Some(_))));
    }
    assert!(matches!(store.tend_origin(ORIGIN_TICK_BYTES), Err(Fault::Unavailable { .. })));
    assert!(other.objects().is_empty(), "nothing is written to it either");
    drop(store);
    let store = open(&fs, &remote).unwrap();
    assert!(blobs().iter().all(|blob| read(&store, blob).unwrap().as_ref() == Some(blob)));
}

#[test]
fn without_its_bucket_a_store_opens_and_says_so() {
    let (fs, _, store) = moved();
    assert!(!store.lacks_its_bucket());
    drop(store);
    let store = Store::open(Arc::new(fs), Path::new(DIR), OPTIONS).unwrap();
    assert!(store.lacks_its_bucket());
    assert!(matches!(read(&store, &blobs()[0]), Err(Fault::Unavailable { .. })));
    assert!(store.contains(&p(), &Digest::of(&blobs()[0])));
}

#[test]
fn an_object_that_rotted_or_is_gone_is_found_and_its_blobs_can_come_again() {
    for gone in [false, true] {
        let (_, remote, store) = moved();
        for (key, bytes) in remote.objects().into_iter().filter(|(key, _)| !key.ends_with("/store")) {
            let mut bytes = bytes.to_vec();
            bytes.iter_mut().skip(192).step_by(100).for_each(|byte| *byte ^= 1);
            remote.set(&key, (!gone).then_some(&bytes));
        }
        let report = store.verify().unwrap();
        assert!(report.damaged_blobs > 8 && report.complete, "{report:?}");
        for blob in blobs() {
            assert!(read(&store, &blob).unwrap().is_none_or(|found| found == blob), "never a wrong byte");
            store.put(&p(), &blob).unwrap();
            assert!(read(&store, &blob).unwrap() == Some(blob));
        }
    }
}

#[test]
fn a_copy_that_is_not_what_was_sent_is_not_counted_on() {
    for trouble in [Trouble::Wrong, Trouble::Short] {
        let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
        let store = open(&fs, &remote).unwrap();
        store.tend_origin(1).unwrap();
        let blob = noise(1, 200_000);
        store.put(&p(), &blob).unwrap();
        remote.fail_at(remote.calls(), trouble);
        // What is read back is not what went there, so that the file stays and is copied again.
        let _ = tend(&store);
        assert_eq!(chunk_files(&fs), 1, "{trouble:?}");
        assert!(read(&store, &blob).unwrap().as_ref() == Some(&blob));
        tend(&store).unwrap_or_else(|_| tend(&store).unwrap());
        tend(&store).unwrap();
        assert_eq!(chunk_files(&fs), 0, "{trouble:?}");
        assert!(read(&store, &blob).unwrap().as_ref() == Some(&blob));
    }
}

#[test]
fn what_counts_no_more_leaves_the_bucket_and_what_counts_of_it_comes_back() {
    let (fs, remote, store) = moved();
    for n in (0..12).filter(|n| n % 4 != 0) {
        assert_eq!(release(&store, &noise(n, 900)), 1);
    }
    assert_eq!(release(&store, &noise(20, 150_000)), 1);
    for n in 50..60 {
        store.put(&p(), &noise(n, 900)).unwrap();
    }
    let before = remote.objects().len();
    while store.compact(1 << 20).unwrap().more {}
    tend(&store).unwrap();
    assert!(names(&fs, ".bones").len() < before, "segments went");
    let kept: Vec<_> = (0..12).filter(|n| n % 4 == 0).map(|n| noise(n, 900)).chain([noise(21, 300_000)]).collect();
    let stats = store.origin_stats().unwrap();
    drop(store);
    let store = open(&RecordingFs::on(&fs.live_image()), &remote).unwrap();
    for blob in &kept {
        assert!(read(&store, blob).unwrap().as_ref() == Some(blob));
    }
    assert!(!store.contains(&p(), &Digest::of(&noise(1, 900))), "nothing comes back");
    for n in 0..4 {
        // The copies of segments that are gone stay until what was said of them again has one, too.
        store.put(&p(), &noise(70 + n, 3_000)).unwrap();
        tend(&store).unwrap();
    }
    assert_eq!(store.origin_stats().unwrap().objects + 1, remote.objects().len(), "{stats:?}");
    assert!(!remote.objects().keys().any(|key| key.contains("/segments/00000000-")), "the first is gone");
    let large = remote.objects().keys().filter(|key| key.contains("/chunks/")).count();
    assert_eq!(large, 1, "of two large blobs one is left");
}

#[test]
fn what_is_no_record_of_ours_is_deleted_and_what_is_others_stays() {
    let (fs, remote, store) = moved();
    let name = store.origin_name().unwrap().to_owned();
    drop(store);
    let orphan = format!("{name}/chunks/{:016x}-{}", 99, Digest::of(b"x").to_hex());
    let others =
        ["0123456789abcdef0123456789abcdef/chunks/0000000000000001-aa", "readme", &format!("{name}/notes/1-2")];
    remote.set(&orphan, Some(b"x"));
    for key in others {
        remote.set(key, Some(b"theirs"));
    }
    let store = open(&fs, &remote).unwrap();
    tend(&store).unwrap();
    assert!(!remote.objects().contains_key(&orphan));
    assert!(others.iter().all(|key| remote.objects().contains_key(*key)));
}

#[test]
fn a_damaged_record_of_the_bucket_or_of_a_segment_is_made_anew() {
    let (fs, remote, store) = moved();
    drop(store);
    let image = fs.live_image();
    let damage = |end: &str, at: usize| {
        let mut image = image.clone();
        let path = image.files.keys().find(|path| path.to_str().unwrap().ends_with(end)).unwrap().clone();
        let bytes = image.files.get_mut(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 4;
        RecordingFs::on(&image)
    };
    for (end, at) in
        [("journal", 0), ("journal", 150), ("journal", 64), (".bones", 130), (".bones", 0), (".bones", 180)]
    {
        let fs = damage(end, at);
        remote.fail_always(Some(Trouble::Down));
        let down = open(&fs, &remote);
        assert!(matches!(down, Ok(_) | Err(Fault::Unavailable { .. })), "{end} at {at}: {down:?}");
        drop(down);
        remote.fail_always(None);
        let store = open(&fs, &remote).unwrap();
        tend(&store).unwrap();
        for blob in blobs() {
            assert!(read(&store, &blob).unwrap() == Some(blob), "{end} at {at}");
        }
        drop(store);
        let store = open(&fs, &MemoryRemote::default()).unwrap();
        assert!(store.contains(&p(), &Digest::of(&blobs()[0])), "it was mended for good");
    }
}

#[test]
fn a_new_disk_has_all_that_was_copied() {
    let (fs, remote, store) = moved();
    let name = store.origin_name().unwrap().to_owned();
    drop(store);
    let origin = behind(remote.clone());
    let again = Store::rebuild(&fs, Path::new(DIR), &origin, &name);
    assert!(matches!(again, Err(Fault::InUse { .. })), "over no store: {again:?}");
    let new = RecordingFs::new();
    let other = "f".repeat(32);
    assert!(matches!(Store::rebuild(&new, Path::new(DIR), &origin, &other), Err(Fault::Unavailable { .. })));
    assert!(Store::rebuild(&new, Path::new(DIR), &origin, "../x").is_err());
    assert!(Store::rebuild(&new, Path::new(DIR), &origin, &name).unwrap() > 4);
    let store = open(&new, &remote).unwrap();
    let there = blobs().iter().filter(|blob| read(&store, blob).unwrap().as_ref() == Some(*blob)).count();
    assert!(there >= blobs().len() - 4, "less what the last segment said: {there}");
    let more = store.put(&p(), &noise(80, 900)).unwrap();
    tend(&store).unwrap();
    assert!(store.contains(&p(), &more));
    assert_eq!(store.verify().unwrap().damaged_blobs, 0);
}

/// Answers when it is told to.
#[derive(Debug)]
struct Slow {
    remote: MemoryRemote,
    asked: Mutex<mpsc::Sender<String>>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Slow {
    fn wait(&self, what: &str) {
        self.asked.lock().unwrap().send(what.to_owned()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
    }
}

impl Remote for Slow {
    fn put(
        &self,
        key: &str,
        bytes: u64,
        next: &mut dyn FnMut() -> std::io::Result<Vec<u8>>,
    ) -> Result<(), RemoteError> {
        self.wait("put");
        self.remote.put(key, bytes, next)
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, RemoteError> {
        self.wait("get");
        self.remote.get(key, range)
    }

    fn delete(&self, key: &str) -> Result<(), RemoteError> {
        self.wait("delete");
        self.remote.delete(key)
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<RemoteObject>, RemoteError> {
        self.wait("list");
        self.remote.list(prefix, after)
    }
}

#[test]
fn whoever_waits_for_the_bucket_holds_nobody_up() {
    let (fs, remote, store) = moved();
    for n in (0..12).filter(|n| n % 4 != 0) {
        release(&store, &noise(n, 900));
    }
    store.put(&p(), &noise(30, 200_000)).unwrap();
    drop(store);
    let ((asked, asks), (goes, go_on)) = (mpsc::channel(), mpsc::channel());
    let slow = Slow { remote, asked: Mutex::new(asked), go_on: Mutex::new(go_on) };
    let store = Store::open_before(Arc::new(fs), Path::new(DIR), OPTIONS, Some(behind(slow))).unwrap();
    let mut kinds = BTreeMap::new();
    let work: [(&str, Work<'_>); 4] = [
        ("read", Box::new(|| drop(read(&store, &noise(21, 300_000)).unwrap()))),
        ("small", Box::new(|| drop(read(&store, &noise(0, 900)).unwrap()))),
        ("compact", Box::new(|| while store.compact(1 << 20).unwrap().more {})),
        ("tend", Box::new(|| tend(&store).unwrap())),
    ];
    let mut seed = 100;
    for (name, work) in &work {
        std::thread::scope(|scope| {
            let done = scope.spawn(work);
            loop {
                // Each time the bucket is asked, everybody else goes on.
                match asks.recv_timeout(std::time::Duration::from_millis(20)) {
                    Ok(what) => *kinds.entry((*name, what)).or_insert(0) += 1,
                    Err(_) if done.is_finished() => break,
                    Err(_) => continue,
                }
                seed += 1;
                let (small, large) = (noise(seed, 600), noise(seed, 70_000));
                store.put(&p(), &small).unwrap();
                store.put(&p(), &large).unwrap();
                assert!(read(&store, &large).unwrap().is_some() && store.contains(&p(), &Digest::of(&small)));
                assert_eq!(release(&store, &large), 1);
                assert!(store.stats().blobs > 0);
                goes.send(()).unwrap();
            }
        });
    }
    for wanted in
        [("read", "get"), ("small", "get"), ("compact", "get"), ("tend", "list"), ("tend", "put"), ("tend", "get")]
    {
        assert!(kinds.contains_key(&(wanted.0, wanted.1.to_owned())), "{wanted:?} did not happen: {kinds:?}");
    }
}

/// Puts, copies, drops, reads, lets go, compacts, starts again: whatever fails, it goes on.
fn work(fs: &RecordingFs, remote: &MemoryRemote) {
    let available = |result: Result<(), Fault>| match result {
        Ok(()) | Err(Fault::Unavailable { .. }) => {}
        Err(other) => panic!("{other:?}"),
    };
    for round in 0..2 {
        let store = open(fs, remote).unwrap();
        for n in 0..6 {
            store.put(&p(), &noise(100 * round + n, 900)).unwrap();
        }
        store.put(&p(), &noise(100 * round + 50, 100_000)).unwrap();
        available(tend(&store));
        available(tend(&store));
        for n in [0, 3, 50] {
            let blob = noise(100 * round + n, if n == 50 { 100_000 } else { 900 });
            match read(&store, &blob) {
                Ok(Some(found)) => assert!(found == blob),
                Err(Fault::Unavailable { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        for n in 1..6 {
            assert_eq!(release(&store, &noise(100 * round + n, 900)), 1);
        }
        available(store.compact(1 << 20).map(|_| ()));
        available(tend(&store));
    }
}

#[test]
fn whatever_call_goes_wrong_and_however_nothing_is_lost_and_nothing_leaks() {
    let calls = {
        let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
        work(&fs, &remote);
        remote.calls()
    };
    assert!(calls > 20, "{calls}");
    for (call, trouble) in (0..calls).flat_map(|call| TROUBLES.map(|trouble| (call, trouble))) {
        let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
        remote.fail_at(call, trouble);
        work(&fs, &remote);
        let store = open(&fs, &remote).unwrap();
        settle(&store);
        for round in 0..2 {
            for (n, len) in [(0, 900), (50, 100_000)] {
                let blob = noise(100 * round + n, len);
                let found = read(&store, &blob).unwrap();
                assert!(found.as_ref() == Some(&blob), "{trouble:?} at {call}: {n} of {round}");
            }
            assert!(!store.contains(&p(), &Digest::of(&noise(100 * round + 1, 900))));
        }
        assert_eq!(store.stats().damaged, 0, "{trouble:?} at {call}");
        assert_eq!(store.origin_stats().unwrap().objects + 1, remote.objects().len(), "{trouble:?} at {call}");
    }
}

/// Until all is where it belongs: a copy that is found wrong is made again.
fn settle(store: &Store) {
    for _ in 0..3 {
        tend(store).unwrap();
    }
}

#[test]
fn many_objects_are_deleted_a_bounded_number_at_a_time() {
    let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
    let store = open(&fs, &remote).unwrap();
    let many = ORIGIN_TICK_DELETES + 5;
    for n in 0..many {
        store.put(&p(), &noise(n, 66_000)).unwrap();
    }
    tend(&store).unwrap();
    for n in 0..many {
        release(&store, &noise(n, 66_000));
    }
    let tended = store.tend_origin(ORIGIN_TICK_BYTES).unwrap();
    assert_eq!((tended.deleted, tended.more), (ORIGIN_TICK_DELETES, true));
    tend(&store).unwrap();
    assert!(!remote.objects().keys().any(|key| key.contains("/chunks/")));
}
