//! A store that is opened from its copy is the one that is opened from its segments; and no copy is believed that is not of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_protocol::{Digest, Namespace};

use super::*;
use crate::store::{Durability, StoreOptions};
use crate::vfs::recorded::{Image, RecordingFs};

fn options() -> StoreOptions {
    StoreOptions { segment_bytes: 4_000, chunk_bytes: 8 << 10, sha256: true, ..StoreOptions::default() }
}

fn open_as(fs: &RecordingFs, options: StoreOptions) -> Store {
    Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap()
}

fn open(fs: &RecordingFs) -> Store {
    open_as(fs, options())
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn p(n: usize) -> Namespace {
    if n < 2 { Namespace::trusted(&format!("p{n}")) } else { Namespace::overlay("p0", &format!("pr:{n}")) }
}

/// Small ones, and large ones that share parts.
fn blob(n: u64) -> Vec<u8> {
    match n % 4 {
        0 => [noise(1_000 + n % 3, 40_000), noise(n, 30_000)].concat(),
        _ => noise(n, 100 + usize::try_from(n % 7).unwrap() * 90),
    }
}

fn put_noise(store: &Store, seeds: std::ops::Range<u64>, len: usize) {
    for seed in seeds {
        store.put(&p(0), &noise(seed, len)).unwrap();
    }
}

/// Everything that a store has in memory.
fn describe(store: &Store) -> Vec<String> {
    let mut lines = store.shared.index().describe();
    lines.extend(store.shared.chunks.table().describe());
    lines
}

fn table() -> PathBuf {
    PathBuf::from("/s/table")
}

/// Opens what lies on a disk both ways, and compares everything; says how it came by its table.
fn same_both_ways(image: &Image, options: StoreOptions, story: &str) -> Opened {
    let scanned = open_as(&RecordingFs::on(image), StoreOptions { scan: true, ..options });
    let copied = open_as(&RecordingFs::on(image), options);
    let (right, found) = (describe(&scanned), describe(&copied));
    assert!(!scanned.opened().from_copy);
    if right != found {
        let differ =
            |a: &[String], b: &[String]| a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>();
        panic!("{story}: scanned {:#?}\ncopied {:#?}", differ(&right, &found), differ(&found, &right));
    }
    copied.opened()
}

/// Puts, grants and releases of some blobs, and compaction.
fn churn(store: &Store, from: u64, to: u64) {
    for n in from..to {
        let digest = store.put(&p(usize::try_from(n % 4).unwrap()), &blob(n)).unwrap();
        if n % 3 == 0 {
            store.grant(&p(usize::try_from((n + 1) % 4).unwrap()), &[digest]).unwrap();
        }
        if n % 5 == 4 {
            let gone = Digest::of(&blob(n - 3));
            let held: Vec<_> = store.held(|_| true).into_iter().filter(|held| held.digest == gone).collect();
            store.release(&held[..held.len().min(1 + usize::try_from(n % 2).unwrap())]).unwrap();
        }
        if n % 11 == 10 {
            store.compact(3_000).unwrap();
        }
    }
}

#[test]
fn a_start_reads_the_copy_and_only_what_follows_it() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    churn(&store, 0, 40);
    let copied = store.copy_table().unwrap().expect("nothing hinders it");
    assert_eq!(copied.rows, store.stats().blobs);
    assert_eq!(store.copy_table().unwrap(), None, "nothing changed");
    let before = describe(&store);
    drop(store);
    let opened = same_both_ways(&fs.live_image(), options(), "with nothing after it");
    assert_eq!(opened, Opened { from_copy: true, records: 0, recounted: false });
    let store = open(&fs);
    assert_eq!(describe(&store), before, "also what it was when it was copied");
    churn(&store, 40, 44);
    drop(store);
    let opened = same_both_ways(&fs.live_image(), options(), "with a few records after it");
    assert!(opened.from_copy && (1..40).contains(&opened.records) && !opened.recounted, "{opened:?}");
    let store = open(&fs);
    for n in 0..44 {
        let (digest, bytes) = (Digest::of(&blob(n)), blob(n));
        for namespace in (0..4).map(p).filter(|namespace| store.contains(namespace, &digest)) {
            assert_eq!(store.get(&namespace, &digest).unwrap().unwrap().into_vec().unwrap(), bytes);
            assert_eq!(store.by_sha256(&namespace, &crate::Sha256Digest::of(&bytes)), Some(digest));
        }
    }
}

#[test]
fn a_copy_may_be_made_of_whatever_a_crash_during_the_first_put_leaves() {
    for durability in [Durability::Durable, Durability::Lazy] {
        let options = StoreOptions { durability, ..options() };
        let fs = RecordingFs::new();
        churn(&open_as(&fs, options), 5, 6);
        for at in 0..=fs.op_count() {
            for crash in fs.crash_images(at) {
                let fs = RecordingFs::on(&crash.image);
                let store = open_as(&fs, options);
                store.copy_table().unwrap();
                drop(store);
                same_both_ways(&fs.live_image(), options, &crash.story);
            }
        }
    }
}

#[test]
fn compaction_releases_and_damage_after_the_copy_change_nothing_of_what_a_start_finds() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    churn(&store, 0, 30);
    store.copy_table().unwrap().unwrap();
    let mut from_copy = 0;
    for n in 0..30 {
        churn(&store, 30 + n * 5, 35 + n * 5);
        let opened = same_both_ways(&fs.live_image(), options(), &format!("after {n}"));
        from_copy += usize::from(opened.from_copy);
    }
    assert!(from_copy > 5, "{from_copy} from the copy");
    store.copy_table().unwrap().unwrap();
    let held = store.held(|_| true);
    store.release(&held).unwrap();
    while store.compact(1 << 20).unwrap().more {}
    same_both_ways(&fs.live_image(), options(), "everything is gone");
}

/// A disk with a copy and records after it.
fn filled() -> RecordingFs {
    let fs = RecordingFs::new();
    let store = open(&fs);
    churn(&store, 0, 30);
    store.copy_table().unwrap().unwrap();
    churn(&store, 30, 33);
    drop(store);
    fs
}

fn changed(image: &Image, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Image {
    let mut image = image.clone();
    change(image.files.get_mut(path).unwrap());
    image
}

#[test]
fn a_bit_that_flips_anywhere_in_the_copy_or_a_cut_makes_it_none() {
    let image = filled().live_image();
    assert!(same_both_ways(&image, options(), "as it is").from_copy);
    let bytes = image.files[&table()].clone();
    let mut blocks = vec![];
    let mut at = 40;
    while at < bytes.len() {
        blocks.push(at);
        at += 40 + u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    }
    assert_eq!((blocks.len(), at), (block::Kind::ALL.len(), bytes.len()), "one block of each kind");
    // All of the head and of each block's head, and of what a block holds a bit here and there.
    let heads = (0..40).chain(blocks.iter().flat_map(|block| *block..block + 40));
    let inside = blocks.iter().flat_map(|block| [block + 41, block + 53, block + 90, block + 111]);
    let everywhere = (0..bytes.len()).step_by(1_997);
    for byte in heads.chain(inside).chain(everywhere).filter(|byte| *byte < bytes.len()) {
        let flipped = changed(&image, &table(), |bytes| bytes[byte] ^= 1 << (byte % 8));
        let store = open(&RecordingFs::on(&flipped));
        assert!(!store.opened().from_copy, "byte {byte}");
    }
    for len in (0..bytes.len()).step_by(1_211).chain(blocks.iter().copied()).chain([bytes.len() - 1]) {
        let cut = changed(&image, &table(), |bytes| bytes.truncate(len));
        assert!(!open(&RecordingFs::on(&cut)).opened().from_copy, "cut at {len}");
    }
    let longer = changed(&image, &table(), |bytes| bytes.push(0));
    assert!(!same_both_ways(&longer, options(), "one byte more").from_copy);
    // Two blocks that changed places.
    let (first, second, third) = (blocks[3], blocks[4], blocks[5]);
    let swapped = [&bytes[..first], &bytes[second..third], &bytes[first..second], &bytes[third..]].concat();
    let swapped = changed(&image, &table(), |bytes| *bytes = swapped);
    assert!(!same_both_ways(&swapped, options(), "blocks in another order").from_copy);
}

#[test]
fn a_copy_of_other_segments_is_not_believed() {
    // Nothing is compacted after the copy.
    let appended = || {
        let fs = RecordingFs::new();
        let store = open(&fs);
        churn(&store, 0, 30);
        store.copy_table().unwrap().unwrap();
        put_noise(&store, 500..503, 300);
        fs
    };
    let (fs, other) = (appended(), appended());
    let (image, foreign) = (fs.live_image(), other.live_image());
    let theirs = foreign.files[&table()].clone();
    let mixed = changed(&image, &table(), |bytes| *bytes = theirs);
    assert!(!same_both_ways(&mixed, options(), "of another store").from_copy);
    // A segment in which something changed that the copy has read.
    let segments: Vec<PathBuf> = image.files.keys().filter(|path| path.starts_with("/s/segments")).cloned().collect();
    for path in &segments {
        let mut gone = image.clone();
        gone.files.remove(path);
        // Nobody but compaction takes one away, which says again what it said. What is there is right all the same.
        let store = open(&RecordingFs::on(&gone));
        for held in store.held(|_| true) {
            let found = store.get(&held.namespace, &held.digest).unwrap();
            assert!(found.is_none_or(|blob| blob.into_vec().map_or(true, |bytes| Digest::of(&bytes) == held.digest)));
        }
        let shorter = changed(&image, path, |bytes| bytes.truncate(bytes.len() - 200));
        same_both_ways(&shorter, options(), "a segment is shorter");
        let other = foreign.files.get(path).cloned().unwrap_or_default();
        let replaced = changed(&image, path, |bytes| *bytes = other);
        same_both_ways(&replaced, options(), "a segment of another store");
    }
}

/// Whoever reads all segments and writes no copy is a version that knows of none.
#[test]
fn what_a_version_wrote_that_knows_no_copy_is_noticed() {
    let fs = filled();
    for round in 0..6 {
        let store = open_as(&fs, StoreOptions { scan: true, ..options() });
        churn(&store, 100 + round * 6, 106 + round * 6);
        drop(store);
        same_both_ways(&fs.live_image(), options(), "after a version that knows no copy");
    }
    // The last record rotted, that version cut it, and wrote others of the same lengths in its place.
    let fs = RecordingFs::new();
    let big = StoreOptions { segment_bytes: 1 << 20, ..options() };
    let store = open_as(&fs, big);
    put_noise(&store, 0..8, 300);
    store.copy_table().unwrap().unwrap();
    drop(store);
    let path = crate::segment::path(Path::new("/s/segments"), 0);
    let rotten = changed(&fs.live_image(), &path, |bytes| {
        let at = bytes.len() - 1_000;
        bytes[at..].iter_mut().for_each(|byte| *byte = 0);
    });
    let fs = RecordingFs::on(&rotten);
    let store = open_as(&fs, StoreOptions { scan: true, ..big });
    put_noise(&store, 20..28, 300);
    drop(store);
    assert!(!same_both_ways(&fs.live_image(), big, "cut and written on").from_copy);
}

#[test]
fn a_store_with_damage_has_no_copy_until_it_is_mended_and_the_mended_hole_is_read() {
    let fs = filled();
    let path = fs.live_image().files.keys().find(|path| path.starts_with("/s/segments")).unwrap().clone();
    let rotten = changed(&fs.live_image(), &path, |bytes| bytes[300..700].fill(0xaa));
    let fs = RecordingFs::on(&rotten);
    let store = open_as(&fs, StoreOptions { scan: true, ..options() });
    assert!(store.stats().damaged_bytes > 0);
    assert_eq!(store.copy_table().unwrap(), None);
    assert!(!store.verify().unwrap().is_sound());
    store.mend().unwrap();
    drop(store);
    assert!(!fs.live_image().files.contains_key(&table()), "what it says was before the damage");
    let store = open(&fs);
    assert_eq!(store.stats().damaged_bytes, 0);
    churn(&store, 200, 203);
    store.copy_table().unwrap().expect("there is no damage any more");
    drop(store);
    assert!(same_both_ways(&fs.live_image(), options(), "mended").from_copy);
}

#[test]
fn chunks_are_counted_anew_where_a_manifest_is_gone_that_the_copy_counted() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let blobs: Vec<Vec<u8>> = (0..4).map(|n| blob(n * 4)).collect();
    store.put_many(&p(0), &blobs).unwrap();
    put_noise(&store, 30..60, 500);
    store.copy_table().unwrap().unwrap();
    let gone = Digest::of(&blobs[1]);
    let held: Vec<_> = store.held(|_| true).into_iter().filter(|held| held.digest == gone).collect();
    store.release(&held).unwrap();
    drop(store);
    let opened = same_both_ways(&fs.live_image(), options(), "its manifest is there");
    assert!(opened.from_copy && !opened.recounted, "{opened:?}");
    let store = open(&fs);
    let mut large: Vec<_> = (0..4).map(|n| Digest::of(&blobs[n])).collect();
    large.extend((30..40).map(|n| Digest::of(&noise(n, 500))));
    let held: Vec<_> = store.held(|_| true).into_iter().filter(|held| large.contains(&held.digest)).collect();
    store.release(&held).unwrap();
    while store.compact(1 << 20).unwrap().more {}
    drop(store);
    let opened = same_both_ways(&fs.live_image(), options(), "segments are gone");
    assert!(opened.from_copy && opened.recounted, "{opened:?}");
}

/// What others hold while the copy is made is not counted in it.
#[test]
fn an_upload_under_way_and_a_reader_of_what_is_gone_leave_nothing_behind() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let (shared_parts, other) = (blob(0), blob(12));
    let digest = store.put(&p(0), &shared_parts).unwrap();
    let mut upload = store.begin_put(&p(1), None).unwrap();
    upload.write(&other).unwrap();
    let reader = store.get(&p(0), &digest).unwrap().unwrap();
    store.release(&store.held(|_| true)).unwrap();
    assert!(store.stats().chunks > 0, "they are held");
    store.copy_table().unwrap().unwrap();
    let image = fs.live_image();
    let opened = same_both_ways(&image, options(), "while they are held");
    assert!(opened.from_copy && !opened.recounted);
    let again = RecordingFs::on(&image);
    let store = open(&again);
    assert_eq!((store.stats().chunks, store.stats().chunk_disk_bytes), (0, 0));
    assert!(!again.live_image().files.keys().any(|path| path.starts_with("/s/chunks")));
    drop((upload, reader));
}

/// Everything that is done, with a copy before, between and after.
fn work(fs: &RecordingFs, options: StoreOptions) {
    let store = open_as(fs, options);
    churn(&store, 0, 9);
    store.copy_table().unwrap().unwrap();
    churn(&store, 9, 18);
    store.copy_table().unwrap();
    churn(&store, 18, 24);
    while store.compact(1 << 20).unwrap().more {}
    store.copy_table().unwrap();
    store.verify().unwrap();
    churn(&store, 24, 26);
}

#[test]
fn a_crash_at_any_operation_leaves_a_disk_that_opens_the_same_both_ways() {
    let lazy = StoreOptions { durability: Durability::Lazy, ..options() };
    for options in [options(), lazy] {
        let fs = RecordingFs::new();
        work(&fs, options);
        let (mut from_copy, mut scanned) = (0, 0);
        for at in 0..=fs.op_count() {
            // All disks of all operations take minutes: near the copies some of every fifth, else one of every 17th.
            let near = fs.ops()[at.saturating_sub(6)..(at + 6).min(fs.op_count())]
                .iter()
                .any(|op| format!("{op:?}").contains("/s/table"));
            if at % if near { 5 } else { 17 } > 0 {
                continue;
            }
            let images = fs.crash_images(at);
            let (step, first) = if near { (6, at % 6) } else { (images.len(), at % images.len()) };
            for crash in images.into_iter().skip(first).step_by(step) {
                let opened = same_both_ways(&crash.image, options, &format!("after {at}, {}", crash.story));
                *(if opened.from_copy { &mut from_copy } else { &mut scanned }) += 1;
            }
        }
        assert!(from_copy > 5 && scanned > 2, "{from_copy} from the copy, {scanned} scanned");
    }
}

/// The copy promises a fast start, and no more than what is there: without any of its syncs one of the two does not hold.
#[test]
fn each_sync_of_a_copy_is_needed() {
    let lazy = StoreOptions { durability: Durability::Lazy, ..options() };
    for options in [options(), lazy] {
        let fs = RecordingFs::new();
        let store = open_as(&fs, options);
        churn(&store, 0, 12);
        let began = fs.op_count();
        store.copy_table().unwrap().unwrap();
        let ended = fs.op_count();
        let fast = |fs: &RecordingFs| {
            fs.crash_images(ended)
                .iter()
                .all(|crash| open_as(&RecordingFs::on(&crash.image), options).opened().from_copy)
        };
        assert!(fast(&fs));
        let syncs: Vec<usize> = fs.ops()[began..ended]
            .iter()
            .filter_map(|op| match op {
                crate::vfs::recorded::Op::SyncData { sync, .. } | crate::vfs::recorded::Op::SyncDir { sync, .. } => {
                    Some(*sync)
                }
                _ => None,
            })
            .collect();
        assert!(syncs.len() >= 2, "{syncs:?}");
        for sync in syncs {
            fs.drop_sync(sync);
            assert!(!fast(&fs), "sync {sync} is not needed: {:#?}", &fs.ops()[began..ended]);
            fs.restore_syncs();
        }
    }
}

#[test]
fn a_full_disk_leaves_the_last_copy_and_nothing_else() {
    let fs = filled();
    let before = fs.live_image().files[&table()].clone();
    let store = open(&fs);
    churn(&store, 40, 44);
    let ops = fs.op_count();
    let mut failed = 0;
    for nth in 0.. {
        fs.fail_at(fs.op_count() + nth, io::ErrorKind::StorageFull);
        if store.copy_table().is_ok() {
            break;
        }
        failed += 1;
        let files = fs.live_image().files;
        // The last one that fails is the sync of the name, which is the new one's then.
        assert!(files[&table()] == before || nth > 10, "{nth}");
        assert!(!files.contains_key(Path::new("/s/table.tmp")), "{nth}");
    }
    assert!(failed > 3 && fs.op_count() > ops, "{failed}");
    drop(store);
    same_both_ways(&fs.live_image(), options(), "after a full disk");
}

mod model {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Churn(u64, u64),
        Copy,
        Compact(u64),
        Release(prop::sample::Index),
        Crash(prop::sample::Index, prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = (bool, Vec<Step>)> {
        let index = any::<prop::sample::Index>;
        let step = prop_oneof![
            4 => (0..60_u64, 1..5_u64).prop_map(|(from, n)| Step::Churn(from, from + n)),
            3 => Just(Step::Copy),
            2 => prop_oneof![Just(1), Just(100_000)].prop_map(Step::Compact),
            3 => index().prop_map(Step::Release),
            3 => (index(), index()).prop_map(|(at, image)| Step::Crash(at, image)),
        ];
        (any::<bool>(), prop::collection::vec(step, 1..25))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn a_store_is_the_same_from_its_copy_and_from_its_segments_whatever_crashes_leave((lazy, steps) in steps()) {
            let durability = if lazy { Durability::Lazy } else { Durability::Durable };
            let options = StoreOptions { durability, ..options() };
            let mut fs = RecordingFs::new();
            let mut store = open_as(&fs, options);
            for step in &steps {
                match step {
                    Step::Churn(from, to) => churn(&store, *from, *to),
                    Step::Copy => {
                        store.copy_table().unwrap();
                    }
                    Step::Compact(budget) => {
                        store.compact(*budget).unwrap();
                    }
                    Step::Release(which) => {
                        let held = store.held(|_| true);
                        if !held.is_empty() {
                            store.release(std::slice::from_ref(which.get(&held))).unwrap();
                        }
                    }
                    Step::Crash(at, image) => {
                        let at = at.index(fs.op_count() + 1);
                        let images = fs.crash_images(at);
                        let crash = image.get(&images);
                        same_both_ways(&crash.image, options, &crash.story);
                        drop(store);
                        fs = RecordingFs::on(&crash.image);
                        store = open_as(&fs, options);
                    }
                }
            }
            drop(store);
            same_both_ways(&fs.live_image(), options, "at the end");
        }
    }
}
