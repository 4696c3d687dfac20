//! Large blobs: cut, shared, read in parts, let go, damaged.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_cache::vfs::recorded::{Image, Op, RecordingFs};
use windlass_cache::{Error, Fault, RealFs, Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

/// Chunks of 4 to 64 KiB.
const OPTIONS: StoreOptions = StoreOptions {
    durability: windlass_cache::Durability::Durable,
    capacity_bytes: None,
    floor_bytes: 0,
    segment_bytes: 256 << 20,
    chunk_bytes: 16 << 10,
    sha256: false,
    scan: false,
    promise_ms: 0,
    memory_bytes: 0,
};

pub(crate) fn noise(seed: usize, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A blob of 300,000 bytes, and one that has a hundred more in front and others in the middle.
fn versions() -> [Vec<u8>; 2] {
    let one = noise(1, 300_000);
    let mut two = [noise(2, 100), one.clone()].concat();
    two[150_000..151_000].copy_from_slice(&noise(3, 1_000));
    [one, two]
}

fn on(fs: &RecordingFs) -> Store {
    Store::open(Arc::new(fs.clone()), Path::new("/s"), OPTIONS).unwrap()
}

fn p() -> Namespace {
    Namespace::trusted("p")
}

fn bytes_of(store: &Store, namespace: &Namespace, digest: &Digest) -> Option<Vec<u8>> {
    store.get(namespace, digest).unwrap()?.into_vec().ok()
}

fn release(store: &Store, digest: &Digest) -> usize {
    let held: Vec<_> = store.held(|_| true).into_iter().filter(|held| held.digest == *digest).collect();
    store.release(&held).unwrap()
}

fn chunk_files(image: &Image) -> Vec<(&PathBuf, &Vec<u8>)> {
    image.files.iter().filter(|(path, _)| path.starts_with("/s/chunks")).collect()
}

#[test]
fn versions_of_a_blob_share_chunks_and_each_survives_the_other() {
    for kept in [0, 1] {
        let fs = RecordingFs::new();
        let store = on(&fs);
        let versions = versions();
        let digests = versions.each_ref().map(|blob| store.put(&p(), blob).unwrap());
        let stats = store.stats();
        assert!(stats.chunk_bytes < 400_000 && stats.blob_bytes > 600_000, "{stats:?}");
        assert_eq!(chunk_files(&fs.live_image()).len(), 2);
        assert_eq!(release(&store, &digests[1 - kept]), 1);
        let after = store.stats();
        assert!(after.chunk_disk_bytes < stats.chunk_disk_bytes && after.chunks < stats.chunks, "{after:?}");
        assert_eq!(bytes_of(&store, &p(), &digests[kept]).as_ref(), Some(&versions[kept]));
        assert_eq!(after.chunk_bytes, versions[kept].len() as u64, "nothing of the other is left");
        drop(store);
        let store = on(&fs);
        let stats = store.stats();
        assert_eq!(
            (stats.chunks, stats.chunk_bytes, stats.chunk_disk_bytes),
            (after.chunks, after.chunk_bytes, after.chunk_disk_bytes)
        );
        assert_eq!(bytes_of(&store, &p(), &digests[kept]).as_ref(), Some(&versions[kept]));
        assert_eq!(release(&store, &digests[kept]), 1);
        assert_eq!((store.stats().chunks, store.stats().chunk_disk_bytes), (0, 0));
        assert_eq!(chunk_files(&fs.live_image()).len(), 0);
    }
}

#[test]
fn a_range_is_read_from_the_chunks_that_hold_it_and_is_checked() {
    let fs = RecordingFs::new();
    let store = on(&fs);
    // Compressible in its first half.
    let blob = [b"all work and no play ".repeat(10_000), noise(1, 200_000)].concat();
    let digest = store.put(&p(), &blob).unwrap();
    assert!(store.stats().chunk_disk_bytes < 230_000);
    let found = store.get(&p(), &digest).unwrap().unwrap();
    assert_eq!(found.len(), blob.len() as u64);
    for from in (0..blob.len()).step_by(7_001) {
        for len in [1, 100, 70_000] {
            let mut read = Vec::new();
            while read.len() < len && from + read.len() < blob.len() {
                let mut piece = vec![0; len - read.len()];
                let n = found.read_at((from + read.len()) as u64, &mut piece).unwrap();
                assert_ne!(n, 0);
                read.extend_from_slice(&piece[..n]);
            }
            assert_eq!(read, blob[from..blob.len().min(from + len)]);
        }
    }
    assert_eq!(found.read_at(blob.len() as u64, &mut [0; 5]).unwrap(), 0);
    assert_eq!(found.read_at(u64::MAX, &mut [0; 5]).unwrap(), 0);
    let mut back = Vec::new();
    found.reader().read_to_end(&mut back).unwrap();
    assert_eq!(back, blob);
    drop(store);

    let mut image = fs.live_image();
    let file = image.files.iter_mut().find(|(path, _)| path.starts_with("/s/chunks")).unwrap().1;
    let end = file.len() - 1;
    file[end] ^= 1;
    let store = on(&RecordingFs::on(&image));
    let found = store.get(&p(), &digest).unwrap().unwrap();
    assert!(found.read_at(0, &mut [0; 10]).is_ok(), "that chunk is right");
    let last = found.read_at(blob.len() as u64 - 5, &mut [0; 5]);
    assert!(matches!(last, Err(Fault::Damaged { digest: damaged }) if damaged == digest), "no wrong byte is given out");
    assert!(!store.contains(&p(), &digest));
}

/// Of the whole store, every hundredth byte and all of records' beginnings and ends.
#[test]
fn a_bit_that_flips_anywhere_is_found_and_never_served_and_what_is_sent_again_is_right_again() {
    let fs = RecordingFs::new();
    let store = on(&fs);
    let mut versions = versions().map(|blob| blob[..100_000].to_vec());
    versions[0].splice(..0, b"compressible ".repeat(3_000));
    let digests = versions.each_ref().map(|blob| store.put(&p(), blob).unwrap());
    store.put(&p(), b"small").unwrap();
    drop(store);
    let image = fs.live_image();
    let (mut lost, mut tried) = (0, 0);
    for (path, content) in &image.files {
        let in_segment = path.starts_with("/s/segments");
        let step = if in_segment { 3 } else { 499 };
        for at in (0..content.len()).step_by(step) {
            let mut image = image.clone();
            image.files.get_mut(path).unwrap()[at] ^= 1 << (at % 8);
            let fs = RecordingFs::on(&image);
            let store = on(&fs);
            tried += 1;
            let mut all = true;
            for (digest, blob) in digests.iter().zip(&versions) {
                if let Some(found) = store.get(&p(), digest).unwrap() {
                    let mut served = Vec::new();
                    match found.copy_to(&mut |bytes| {
                        served.extend_from_slice(bytes);
                        Ok(())
                    }) {
                        Ok(()) => assert_eq!(&served, blob, "{} at {at}", path.display()),
                        Err(Fault::Damaged { .. }) => all = false,
                        Err(other) => panic!("{other}"),
                    }
                    assert_eq!(served, blob[..served.len()], "{} at {at}", path.display());
                } else {
                    all = false;
                }
            }
            lost += usize::from(!all);
            for (digest, blob) in digests.iter().zip(&versions) {
                store.put(&p(), blob).unwrap();
                assert_eq!(bytes_of(&store, &p(), digest).as_ref(), Some(blob), "{} at {at}", path.display());
            }
            drop(store);
            let store = on(&fs);
            for (digest, blob) in digests.iter().zip(&versions) {
                assert_eq!(bytes_of(&store, &p(), digest).as_ref(), Some(blob), "{} at {at}", path.display());
            }
            assert_eq!(store.verify().unwrap().damaged, []);
        }
    }
    assert!(lost > tried / 2, "{lost} of {tried} were of these blobs");
}

/// A bit that flips in a shared chunk while the store is open: what is acknowledged after it was found is right, and so is
/// the other blob then.
#[test]
fn a_shared_chunk_that_is_damaged_comes_back_with_either_blob() {
    let dir = tempfile::tempdir().unwrap();
    let versions = versions();
    let open = || Store::open(Arc::new(RealFs), dir.path(), OPTIONS).unwrap();
    let store = open();
    let digests = versions.each_ref().map(|blob| store.put(&p(), blob).unwrap());
    let path = dir.path().join("chunks/0000000000000000");
    let mut content = std::fs::read(&path).unwrap();
    content[100_000] ^= 1;
    std::fs::write(&path, &content).unwrap();
    // The first is read and put aside; of the second nobody has seen it yet.
    assert_eq!(bytes_of(&store, &p(), &digests[0]), None);
    assert!(store.contains(&p(), &digests[1]) && !store.contains(&p(), &digests[0]));
    store.put(&p(), &versions[1]).unwrap();
    assert_eq!(bytes_of(&store, &p(), &digests[1]).as_ref(), Some(&versions[1]), "it was mended");
    store.put(&p(), &versions[0]).unwrap();
    let check = |store: &Store| {
        for (digest, blob) in digests.iter().zip(&versions) {
            assert_eq!(bytes_of(store, &p(), digest).as_ref(), Some(blob));
        }
        assert_eq!(store.verify().unwrap().damaged, []);
    };
    check(&store);
    drop(store);
    check(&open());
}

/// What lies there was right when the store was opened.
#[test]
fn a_manifest_that_rots_while_the_store_is_open_is_found_and_the_blob_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let blob = noise(1, 100_000);
    let store = Store::open(Arc::new(RealFs), dir.path(), OPTIONS).unwrap();
    let segment = dir.path().join("segments/00000000.seg");
    for round in 0_usize..7 {
        let digest = store.put(&p(), &blob).unwrap();
        let mut content = std::fs::read(&segment).unwrap();
        let at = content.windows(8).rposition(|window| window == b"WLMAN\x01\0\0").unwrap();
        // Magic, digest, length, count, a chunk's name and length; or two chunks in each other's place.
        match [0, 20, 40, 48, 60, 89].get(round) {
            Some(flipped) => content[at + flipped] ^= 1,
            None => content[at + 56..at + 56 + 72].rotate_left(36),
        }
        std::fs::write(&segment, content).unwrap();
        assert!(store.get(&p(), &digest).unwrap().is_none(), "round {round}");
        assert!(!store.contains(&p(), &digest));
        store.put(&p(), &blob).unwrap();
        assert_eq!(bytes_of(&store, &p(), &digest).as_ref(), Some(&blob));
    }
}

/// Nothing that this process has neither written nor read is counted on unseen.
#[test]
fn an_upload_after_a_restart_looks_at_the_chunks_that_it_counts_on() {
    let fs = RecordingFs::new();
    let versions = versions();
    on(&fs).put(&p(), &versions[0]).unwrap();
    let mut image = fs.live_image();
    for (path, content) in &mut image.files {
        if path.starts_with("/s/chunks") {
            content.fill(0);
        }
    }
    let fs = RecordingFs::on(&image);
    let store = on(&fs);
    let digest = store.put(&p(), &versions[1]).unwrap();
    assert_eq!(bytes_of(&store, &p(), &digest).as_ref(), Some(&versions[1]));
    drop(store);
    let store = on(&fs);
    assert_eq!(bytes_of(&store, &p(), &digest).as_ref(), Some(&versions[1]));
}

#[test]
fn who_reads_a_blob_that_is_let_go_reads_it_to_its_end_and_its_bytes_go_after_that() {
    let fs = RecordingFs::new();
    let store = on(&fs);
    let versions = versions();
    let digests = versions.each_ref().map(|blob| store.put(&p(), blob).unwrap());
    let reading = store.get(&p(), &digests[0]).unwrap().unwrap();
    for digest in &digests {
        assert_eq!(release(&store, digest), 1);
    }
    assert_eq!(store.stats().blobs, 0);
    assert!(store.stats().chunk_bytes == 300_000, "the other's chunks are gone");
    assert_eq!(reading.into_vec().unwrap(), versions[0]);
    store.put(&p(), &noise(9, 70_000)).unwrap();
    assert_eq!(store.stats().chunk_bytes, 70_000);
    assert_eq!(chunk_files(&fs.live_image()).len(), 1);
}

#[test]
fn uploads_of_one_blob_at_once_store_it_once_and_those_that_never_end_leave_nothing() {
    let fs = RecordingFs::new();
    let store = on(&fs);
    let blob = noise(1, 500_000);
    let namespaces: Vec<_> = (0..4).map(|n| Namespace::overlay("p", &format!("{n}"))).collect();
    for round in 0..25 {
        // All of them have written what nobody else had when the first one ends.
        let begin = |namespace: &Namespace| {
            let mut upload = store.begin_put(namespace, None).unwrap();
            upload.write(&blob[round..]).unwrap();
            upload
        };
        let uploads: Vec<_> = namespaces.iter().map(begin).collect();
        let mut never = store.begin_put(&namespaces[0], None).unwrap();
        never.write(&noise(100 + round, 300_000)).unwrap();
        let together = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for (upload, namespace) in uploads.into_iter().zip(&namespaces) {
                let (store, blob, together) = (&store, &blob, &together);
                scope.spawn(move || {
                    together.wait();
                    let digest = upload.finish().unwrap();
                    assert_eq!(bytes_of(store, namespace, &digest).as_deref(), Some(&blob[round..]));
                });
            }
        });
    }
    let stats = store.stats();
    assert_eq!((stats.blobs, stats.blob_bytes), (25, 12_500_000 - 300));
    assert!(stats.chunk_bytes < 500_000 + 25 * 64 * 1_024, "{stats:?}");
    assert_eq!(store.verify().unwrap().damaged, []);
    let held = store.held(|_| true);
    assert_eq!(held.len(), 100);
    store.release(&held).unwrap();
    let stats = store.stats();
    assert_eq!((stats.blobs, stats.chunks, stats.chunk_disk_bytes), (0, 0, 0));
    assert_eq!(chunk_files(&fs.live_image()).len(), 0);
}

#[test]
fn of_a_chunk_that_two_uploads_bring_at_once_one_copy_is_given_back() {
    let fs = RecordingFs::new();
    let store = on(&fs);
    let blobs = versions();
    let mut uploads = blobs.each_ref().map(|_| store.begin_put(&p(), None).unwrap());
    for (upload, blob) in uploads.iter_mut().zip(&blobs) {
        upload.write(blob).unwrap();
    }
    let digests = uploads.map(|upload| upload.finish().unwrap());
    let stats = store.stats();
    assert!(stats.chunk_bytes < 400_000, "{stats:?}");
    // Noise is not compressed.
    assert_eq!(stats.chunk_disk_bytes, stats.chunk_bytes);
    for store in [store, on(&RecordingFs::on(&fs.live_image()))] {
        for (digest, blob) in digests.iter().zip(&blobs) {
            assert_eq!(bytes_of(&store, &p(), digest).as_ref(), Some(blob));
        }
        assert_eq!(store.stats().chunk_disk_bytes, stats.chunk_bytes);
    }
}

#[test]
fn no_chunk_file_gets_a_number_that_was_given_before() {
    let fs = RecordingFs::new();
    let digest = on(&fs).put(&p(), &noise(1, 70_000)).unwrap();
    assert_eq!(release(&on(&fs), &digest), 1);
    assert_eq!(chunk_files(&fs.live_image()).len(), 0);
    on(&fs).put(&p(), &noise(2, 70_000)).unwrap();
    assert_eq!(chunk_files(&fs.live_image())[0].0, Path::new("/s/chunks/0000000000000001"));
}

#[test]
fn what_is_in_an_upload_that_is_under_way_is_not_let_go() {
    let store = on(&RecordingFs::new());
    let versions = versions();
    let digest = store.put(&p(), &versions[0]).unwrap();
    let mut upload = store.begin_put(&p(), None).unwrap();
    upload.write(&versions[1]).unwrap();
    assert_eq!(release(&store, &digest), 1);
    let digest = upload.finish().unwrap();
    assert_eq!(bytes_of(&store, &p(), &digest).as_ref(), Some(&versions[1]));
    assert_eq!(store.stats().chunk_bytes, versions[1].len() as u64);
}

#[test]
fn a_lazy_store_evicts_chunks_with_their_last_blob_and_knows_after_a_restart_what_is_left() {
    // Small ones fill segments, which leave with what they say of chunks; without them nothing is said again.
    for small in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let cap = 12 << 20;
        let options = StoreOptions { chunk_bytes: 16 << 10, ..StoreOptions::lazy(cap) };
        let open = || Store::open(Arc::new(RealFs), dir.path(), options).unwrap();
        let store = open();
        let pinned_blob = [noise(0, 200_000), noise(1_000, 100_000)].concat();
        let pinned = store.put(&p(), &pinned_blob).unwrap();
        let pins = store.pin(&[pinned]);
        // Each shares its first part with the pinned one and its second with twenty others, whose first one holds it.
        let blob = |n: usize| [noise(0, 200_000), noise(1 + n / 20, 300_000), noise(5_000 + n, 100_000)].concat();
        for n in 1..200 {
            let digest = store.put(&p(), &blob(n)).unwrap();
            assert_eq!(bytes_of(&store, &p(), &digest), Some(blob(n)));
            if small {
                store.put(&p(), &noise(9_000 + n, 30_000)).unwrap();
            }
            assert!(store.stats().disk_bytes <= cap, "{:?}", store.stats());
        }
        let stats = store.stats();
        assert!(stats.evicted > 80 && stats.blobs > 20, "{stats:?}");
        assert!(!store.contains(&p(), &Digest::of(&blob(1))));
        assert_eq!(bytes_of(&store, &p(), &pinned).as_ref(), Some(&pinned_blob));
        assert_eq!(store.verify().unwrap().damaged, []);
        drop((pins, store));
        let store = open();
        let again = store.stats();
        assert_eq!((again.blobs, again.chunks, again.chunk_bytes), (stats.blobs, stats.chunks, stats.chunk_bytes));
        assert_eq!(again.chunk_disk_bytes, stats.chunk_disk_bytes);
        assert_eq!(store.verify().unwrap().damaged, []);
        assert_eq!(bytes_of(&store, &p(), &pinned).as_ref(), Some(&pinned_blob));
    }
}

/// As a lazy store may lose it in a power failure.
#[test]
fn a_blob_whose_chunks_are_gone_is_absent_after_the_next_start() {
    let fs = RecordingFs::new();
    let versions = versions();
    let digests = {
        let store = on(&fs);
        versions.each_ref().map(|blob| store.put(&p(), blob).unwrap())
    };
    let mut image = fs.live_image();
    image.files.remove(Path::new("/s/chunks/0000000000000001"));
    let store = on(&RecordingFs::on(&image));
    assert_eq!(digests.map(|digest| store.contains(&p(), &digest)), [true, false]);
    assert_eq!(bytes_of(&store, &p(), &digests[0]).as_ref(), Some(&versions[0]));
    assert_eq!((store.stats().blobs, store.stats().chunk_bytes), (1, 300_000));
}

/// Written by the last version that stored large blobs whole: 70,000 sevens for two projects, 80,000 eights for an overlay.
#[test]
fn whole_files_of_older_versions_are_read_granted_put_aside_and_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let (sevens, eights) = (vec![7; 70_000], vec![8; 80_000]);
    let digests = [&sevens, &eights].map(|blob| Digest::of(blob));
    let path = |digest: &Digest| dir.path().join("large").join(digest.to_hex());
    for sub in ["segments", "large"] {
        std::fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let segment = include_bytes!("../fixtures/whole-files.seg");
    std::fs::write(dir.path().join("segments/00000000.seg"), segment).unwrap();
    std::fs::write(path(&digests[0]), &sevens).unwrap();
    std::fs::write(path(&digests[1]), &eights).unwrap();
    let open = || Store::open(Arc::new(RealFs), dir.path(), OPTIONS).unwrap();
    let store = open();
    let (q, pr) = (Namespace::trusted("q"), Namespace::overlay("p", "pr:1"));
    for (namespace, sees) in [(&p(), [true, false]), (&q, [true, false]), (&pr, [true, true])] {
        assert_eq!(digests.map(|digest| store.contains(namespace, &digest)), sees);
    }
    assert_eq!(bytes_of(&store, &q, &digests[0]).as_ref(), Some(&sevens));
    let mut back = Vec::new();
    store.get(&pr, &digests[1]).unwrap().unwrap().reader().read_to_end(&mut back).unwrap();
    assert_eq!(back, eights);
    let disk_bytes = store.stats().disk_bytes;
    store.put(&q, &eights).unwrap();
    assert!(store.stats().disk_bytes - disk_bytes < 300, "what is there is not stored again");
    assert_eq!((store.stats().chunks, std::fs::read_dir(dir.path().join("chunks")).unwrap().count()), (0, 0));
    assert_eq!(release(&store, &digests[0]), 1);
    assert!(!path(&digests[0]).exists() && path(&digests[1]).exists());
    drop(store);
    std::fs::write(path(&digests[1]), [vec![8; 79_999], vec![9]].concat()).unwrap();
    let store = open();
    assert_eq!(store.verify().unwrap().damaged, digests[1..]);
    assert!(!path(&digests[1]).exists());
    // Both come again, in chunks.
    for (digest, blob) in digests.iter().zip([&sevens, &eights]) {
        store.put(&p(), blob).unwrap();
        assert_eq!(bytes_of(&store, &p(), digest).as_ref(), Some(blob));
    }
    drop(store);
    let store = open();
    for (digest, blob) in digests.iter().zip([&sevens, &eights]) {
        assert_eq!(bytes_of(&store, &p(), digest).as_ref(), Some(blob));
    }
    assert!(store.stats().chunks > 0);
}

#[test]
fn an_upload_that_fails_at_any_call_is_said_so_and_leaves_nothing_that_counts() {
    let versions = versions();
    let begin = || {
        let fs = RecordingFs::new();
        on(&fs).put(&p(), &versions[0]).unwrap();
        RecordingFs::on(&fs.live_image())
    };
    let mut kinds = BTreeSet::new();
    for nth in 0.. {
        let fs = begin();
        let store = on(&fs);
        let before = store.stats();
        let at = fs.op_count() + nth;
        fs.fail_at(at, std::io::ErrorKind::StorageFull);
        let put = store.put(&p(), &versions[1]);
        if put.is_ok() {
            assert!(nth > 6, "only {nth} calls");
            break;
        }
        assert!(matches!(put, Err(Error::Fault(Fault::DiskFull { .. }))), "{put:?}");
        let poisoned = matches!(store.put(&p(), b"small"), Err(Error::Fault(Fault::Poisoned { .. })));
        kinds.insert(poisoned);
        if !poisoned {
            let after = store.stats();
            assert_eq!((after.chunks, after.chunk_disk_bytes), (before.chunks, before.chunk_disk_bytes), "call {nth}");
            assert_eq!(chunk_files(&fs.live_image()).len(), 1, "call {nth}");
            let digest = store.put(&p(), &versions[1]).unwrap();
            assert_eq!(bytes_of(&store, &p(), &digest).as_ref(), Some(&versions[1]));
        }
        drop(store);
        let store = on(&fs);
        assert_eq!(bytes_of(&store, &p(), &Digest::of(&versions[0])).as_ref(), Some(&versions[0]));
        assert_eq!(store.verify().unwrap().damaged, []);
    }
    assert_eq!(kinds, BTreeSet::from([false, true]), "also the sync of the records");
}

#[test]
fn a_blob_that_is_stored_costs_no_write_but_a_record() {
    let fs = RecordingFs::new();
    let store = on(&fs);
    let blob = noise(1, 300_000);
    store.put(&p(), &blob).unwrap();
    let before = fs.op_count();
    store.put(&p(), &blob).unwrap();
    assert_eq!(fs.op_count(), before);
    store.put(&Namespace::trusted("q"), &blob).unwrap();
    let ops = &fs.ops()[before..];
    assert!(matches!(ops, [Op::Write { bytes, .. }, Op::SyncData { .. }] if bytes.len() < 200), "{ops:?}");
}
