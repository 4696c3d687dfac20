//! What a store makes of its bucket when it sees it for the first time after a start, where one of both has lost something.

use windlass_cache::Vfs as _;

use super::*;

/// The store's files with a bit of one flipped: that whose name ends so, at that byte.
fn flipped(fs: &RecordingFs, end: &str, at: impl Fn(usize) -> usize) -> RecordingFs {
    let mut image = fs.live_image();
    let path = image.files.keys().find(|path| path.to_str().unwrap().ends_with(end)).unwrap().clone();
    let bytes = image.files.get_mut(&path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 4;
    RecordingFs::on(&image)
}

/// The last record of the journal rots, which looks as if a crash had torn it; what it says has left the disk.
#[test]
fn what_the_last_record_said_is_found_in_the_bucket_however_often_the_store_was_opened_without_it() {
    let (fs, remote, store) = moved();
    let objects = remote.objects();
    drop(store);
    let fs = flipped(&fs, "journal", |len| len - 30);
    remote.fail_always(Some(Trouble::Down));
    for _ in 0..2 {
        // Without its bucket it may not open at all: it is asked for what is not on the disk.
        let down = open(&fs, &remote);
        assert!(down.as_ref().map_or(true, |store| tend(store).is_err()), "{down:?}");
    }
    remote.fail_always(None);
    let store = open(&fs, &remote).unwrap();
    tend(&store).unwrap();
    assert_eq!(remote.objects(), objects, "none is taken for one that nobody needs");
    drop(store);
    let store = open(&fs, &remote).unwrap();
    tend(&store).unwrap();
    for blob in blobs() {
        assert!(read(&store, &blob).unwrap() == Some(blob));
    }
}

#[test]
fn an_object_that_is_missing_is_looked_for_again_and_may_come_back() {
    let (fs, remote, store) = moved();
    let recorded = store.origin_stats().unwrap().objects;
    drop(store);
    let (key, bytes) = remote.objects().into_iter().find(|(key, _)| key.contains("/chunks/")).unwrap();
    remote.set(&key, None);
    let store = open(&fs, &remote).unwrap();
    tend(&store).unwrap();
    assert_eq!(store.origin_stats().unwrap().objects, recorded, "its file is nowhere else");
    remote.set(&key, Some(&bytes));
    for blob in blobs() {
        assert!(read(&store, &blob).unwrap() == Some(blob));
    }
}

#[test]
fn of_a_store_with_damage_nothing_is_deleted_and_no_damaged_segment_is_copied() {
    let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
    let store = open(&fs, &remote).unwrap();
    for blob in blobs() {
        store.put(&p(), &blob).unwrap();
    }
    // So that the bucket is the store's.
    tend(&store).unwrap();
    for n in 30..45 {
        store.put(&p(), &noise(n, 900)).unwrap();
    }
    release(&store, &noise(20, 150_000));
    let name = store.origin_name().unwrap().to_owned();
    drop(store);
    let sealed = names(&fs, ".seg").into_iter().min().unwrap();
    // In the header of its first record.
    let fs = flipped(&fs, &sealed, |_| 150);
    let orphan = format!("{name}/segments/{:08x}-{}", 0x99, Digest::of(b"x").to_hex());
    remote.set(&orphan, Some(b"x"));
    let before = remote.objects();
    let store = open(&fs, &remote).unwrap();
    assert!(store.verify().unwrap().damaged_bytes > 0);
    tend(&store).unwrap();
    let after = remote.objects();
    assert!(before.keys().all(|key| after.contains_key(key)), "what was lost may have said that it counts");
    let number = sealed.trim_start_matches("/s/segments/").trim_end_matches(".seg").parse::<u32>().unwrap();
    let copied = |number: u32| after.keys().any(|key| key.contains(&format!("/segments/{number:08x}-")));
    assert!(!copied(number) && copied(number + 1), "{:?}", after.keys());
}

#[test]
fn what_is_here_of_a_segment_is_made_anew_wherever_it_was_cut() {
    let (fs, remote, store) = moved();
    drop(store);
    let image = fs.live_image();
    let path = image.files.keys().find(|path| path.extension().is_some_and(|end| end == "bones")).unwrap().clone();
    for len in 0..image.files[&path].len() {
        let mut image = image.clone();
        image.files.get_mut(&path).unwrap().truncate(len);
        let store = open(&RecordingFs::on(&image), &remote).unwrap();
        for blob in &blobs()[..12] {
            assert!(store.contains(&p(), &Digest::of(blob)), "cut at {len}");
        }
    }
}

/// What a segment said that is compacted is said again in the one that grows, which has no copy yet.
#[test]
fn the_copy_of_a_segment_stays_until_what_it_said_has_another() {
    let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
    let store = open(&fs, &remote).unwrap();
    let kept = noise(1, 900);
    for n in 0..8 {
        store.put(&p(), &noise(n, 900)).unwrap();
    }
    tend(&store).unwrap();
    let first = remote.objects().into_keys().find(|key| key.contains("/segments/00000000-")).unwrap();
    for n in [0, 2, 3] {
        release(&store, &noise(n, 900));
    }
    while store.compact(1 << 20).unwrap().more {}
    assert!(names(&fs, "00000000.bones").is_empty(), "it was compacted");
    let lost_disk = |story: &str| {
        let (new, bucket) = (RecordingFs::new(), MemoryRemote::holding(remote.objects()));
        let name = store.origin_name().unwrap();
        Store::rebuild(&new, Path::new(DIR), &behind(bucket.clone()), name).unwrap();
        let again = open(&new, &bucket).unwrap();
        assert!(read(&again, &kept).unwrap().as_ref() == Some(&kept), "{story}");
    };
    tend(&store).unwrap();
    lost_disk("it is said again in the segment that grows");
    for n in 20..28 {
        store.put(&p(), &noise(n, 900)).unwrap();
    }
    // Nothing may be copied: it is said again in a segment that is sealed, and is not there.
    store.tend_origin(0).unwrap();
    lost_disk("it is said again in a segment that has no copy");
    settle(&store);
    lost_disk("it is said again in the bucket");
    assert!(!remote.objects().contains_key(&first), "and then it goes");
}

#[test]
fn a_bucket_that_is_back_is_noticed_though_nothing_is_to_be_done() {
    let (_fs, remote, store) = moved();
    remote.fail_always(Some(Trouble::Down));
    assert!(read(&store, &blobs()[0]).is_err() && store.origin_stats().unwrap().down);
    remote.fail_always(None);
    tend(&store).unwrap();
    assert!(!store.origin_stats().unwrap().down);
}

#[test]
fn no_more_is_copied_or_read_back_at_once_than_was_asked_for() {
    let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
    let large = Origin { disk_bytes: 1 << 40, ..behind(remote.clone()) };
    let store = Store::open_before(Arc::new(fs.clone()), Path::new(DIR), OPTIONS, Some(large)).unwrap();
    for blob in blobs() {
        store.put(&p(), &blob).unwrap();
    }
    let tended = store.tend_origin(1).unwrap();
    assert_eq!((tended.copied, tended.dropped, tended.more), (1, 0, true));
    tend(&store).unwrap();
    drop(store);
    let store = open(&fs, &remote).unwrap();
    let tended = store.tend_origin(1).unwrap();
    assert_eq!((tended.copied, tended.dropped, tended.more), (0, 1, true));
}

/// Of the disk's room others need something, too: twice the floor is kept.
#[test]
fn files_leave_a_disk_that_others_fill_though_the_store_has_no_more_than_it_may() {
    let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
    let options = StoreOptions { floor_bytes: 100_000, ..OPTIONS };
    let large = Origin { disk_bytes: 1 << 40, ..behind(remote.clone()) };
    let store = Store::open_before(Arc::new(fs.clone()), Path::new(DIR), options, Some(large)).unwrap();
    for blob in blobs() {
        store.put(&p(), &blob).unwrap();
    }
    tend(&store).unwrap();
    assert_eq!(store.origin_stats().unwrap().away_bytes, 0);
    let used: usize = fs.live_image().files.values().map(Vec::len).sum();
    // An eighth of it is more than two floors.
    fs.set_capacity(Some(1_700_000));
    let job = 1_700_000 - used - 120_000;
    fs.create(Path::new("/job")).unwrap().write_at(0, &vec![1; job]).unwrap();
    tend(&store).unwrap();
    assert!(store.origin_stats().unwrap().away_bytes >= 80_000, "{:?}", store.origin_stats());
}

/// Gives a range of a file back while that is sent, once.
struct Meddler {
    inner: MemoryRemote,
    work: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Meddler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddler")
    }
}

impl Remote for Meddler {
    fn put(&self, key: &str, bytes: u64, next: Next<'_>) -> Result<(), RemoteError> {
        let work = key.contains("/chunks/").then(|| self.work.lock().unwrap().take()).flatten();
        work.into_iter().for_each(|work| work());
        self.inner.put(key, bytes, next)
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, RemoteError> {
        self.inner.get(key, range)
    }

    fn delete(&self, key: &str) -> Result<(), RemoteError> {
        self.inner.delete(key)
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<RemoteObject>, RemoteError> {
        self.inner.list(prefix, after)
    }
}

type Next<'a> = &'a mut dyn FnMut() -> std::io::Result<Vec<u8>>;

#[test]
fn a_file_that_changes_while_it_is_sent_is_not_said_to_be_there() {
    let (fs, inner) = (RecordingFs::new(), MemoryRemote::default());
    let meddler = Arc::new(Meddler { inner: inner.clone(), work: Mutex::new(None) });
    let origin = Origin { pause_ms: 0, ..Origin::new(meddler.clone(), 1 << 40) };
    let store = Store::open_before(Arc::new(fs), Path::new(DIR), OPTIONS, Some(origin)).unwrap();
    let (common, own) = (noise(30, 200_000), noise(31, 200_000));
    let both = [common.clone(), own].concat();
    store.put(&p(), &both).unwrap();
    store.put(&p(), &common).unwrap();
    let other = store.clone();
    *meddler.work.lock().unwrap() = Some(Box::new(move || assert_eq!(release(&other, &both), 1)));
    settle(&store);
    for (key, bytes) in inner.objects() {
        let named = key.rsplit_once('-').is_none_or(|(_, hex)| Digest::of(&bytes).to_hex() == hex);
        assert!(named, "{key} holds other bytes");
    }
    assert!(read(&store, &common).unwrap() == Some(common));
}
