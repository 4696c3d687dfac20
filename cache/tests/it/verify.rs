//! A bit that flips anywhere on the disk: never served, named by a check, and mended by a repair; beside a map.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_cache::vfs::recorded::{Image, RecordingFs};
use windlass_cache::{Durability, Frozen, Report, Store, StoreOptions, Vfs};
use windlass_protocol::{Digest, Namespace};

use crate::chunks::noise;

/// Bits that are flipped, one store each; `VERIFY_ROUNDS` makes more of them, `VERIFY_SEED` others.
const ROUNDS: u64 = 400;

fn p() -> Namespace {
    Namespace::trusted("p")
}

fn q() -> Namespace {
    Namespace::overlay("p", "pr:1")
}

fn options() -> StoreOptions {
    StoreOptions { segment_bytes: 20_000, chunk_bytes: 8 << 10, memory_bytes: 0, ..StoreOptions::default() }
}

fn open(vfs: Arc<dyn Vfs>) -> Store {
    Store::open(vfs, Path::new("/s"), options()).unwrap()
}

/// Small ones, large ones that share chunks and compress, and whole files of older versions, over several segments.
fn filled() -> (Image, BTreeMap<Digest, Vec<u8>>) {
    let fs = RecordingFs::new();
    let sevens = vec![7; 70_000];
    let create = |path: &str, bytes: &[u8]| {
        fs.create(Path::new(path)).unwrap().write_at(0, bytes).unwrap();
    };
    for dir in ["/s", "/s/segments", "/s/large"] {
        fs.create_dir(Path::new(dir)).unwrap();
    }
    create("/s/segments/00000000.seg", include_bytes!("../fixtures/whole-files.seg"));
    create(&format!("/s/large/{}", Digest::of(&sevens).to_hex()), &sevens);
    let store = open(Arc::new(fs.clone()));
    let shared = noise(1, 60_000);
    let mut blobs: Vec<Vec<u8>> = (0..20).map(|n| noise(n, 2_500 + n * 10)).collect();
    blobs.push([shared.clone(), noise(2, 40_000)].concat());
    blobs.push([noise(3, 30_000), shared].concat());
    blobs.push(b"all work and no play ".repeat(8_000));
    blobs.push(Vec::new());
    store.put_many(&p(), &blobs).unwrap();
    store.grant(&q(), &[Digest::of(&blobs[3]), Digest::of(&blobs[20])]).unwrap();
    blobs.push(sevens);
    drop(store);
    (fs.live_image(), blobs.into_iter().map(|blob| (Digest::of(&blob), blob)).collect())
}

/// What the older version wrote beside the whole file: a small blob of another project.
const OTHERS: (usize, u64) = (1, 5);

/// What of the map is not there, or cannot be read; what is read is right, or this panics.
fn lost(store: &Store, blobs: &BTreeMap<Digest, Vec<u8>>, story: &str) -> Vec<Digest> {
    let gone = blobs.iter().filter(|(digest, blob)| {
        let Some(found) = store.get(&p(), digest).unwrap() else { return true };
        let Ok(bytes) = found.into_vec() else { return true };
        assert!(bytes == **blob, "wrong bytes were served: {story}");
        false
    });
    gone.map(|(digest, _)| *digest).collect()
}

fn flip(image: &Image, path: &PathBuf, bit: u64) -> Image {
    let mut image = image.clone();
    let file = image.files.get_mut(path).unwrap();
    file[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
    image
}

#[test]
fn a_flipped_bit_anywhere_is_never_served_is_named_and_is_mended() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (rounds, seed) = (number("VERIFY_ROUNDS").unwrap_or(ROUNDS), number("VERIFY_SEED").unwrap_or(1));
    let (image, blobs) = filled();
    let sound = open(Arc::new(Frozen::new(Arc::new(RecordingFs::on(&image))))).verify().unwrap();
    assert!(sound.is_sound() && sound.blobs == blobs.len() + OTHERS.0 && sound.complete, "{sound:?}");
    let files: Vec<PathBuf> =
        image.files.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(p, _)| p.clone()).collect();
    let mut dice = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut roll = |below: u64| {
        let mut bytes = [0; 8];
        dice.fill(&mut bytes);
        u64::from_le_bytes(bytes) % below
    };
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..rounds {
        let path = &files[usize::try_from(roll(files.len() as u64)).unwrap()];
        // The head and the tail of a file are as likely as all the rest.
        let bits = image.files[path].len() as u64 * 8;
        let bit = match roll(4) {
            0 => roll(bits.min(2_000)),
            1 => bits - 1 - roll(bits.min(2_000)),
            _ => roll(bits),
        };
        let story = format!("seed {seed}, round {round}: bit {bit} of {}", path.display());
        let flipped = flip(&image, path, bit);
        *found.entry(once(&flipped, &blobs, &story)).or_default() += 1;
    }
    assert!(found.len() == 3 && found.values().all(|n| *n > 3) || rounds < ROUNDS, "each kind was met: {found:?}");
}

/// Says what kind of damage it was.
fn once(image: &Image, blobs: &BTreeMap<Digest, Vec<u8>>, story: &str) -> &'static str {
    // A check alone changes no byte, and says what a repair would find.
    let fs = RecordingFs::on(image);
    let looked = open(Arc::new(Frozen::new(Arc::new(fs.clone())))).verify().unwrap();
    assert!(fs.live_image().files == image.files, "{story}");
    let fs = RecordingFs::on(image);
    let store = open(Arc::new(fs.clone()));
    let report = store.verify().unwrap();
    let essence = |report: &Report| (report.damaged.clone(), report.damaged_bytes, report.torn_bytes);
    assert_eq!(essence(&looked), essence(&report), "{story}");
    let gone = lost(&store, blobs, story);
    for digest in &report.damaged {
        assert!(gone.contains(digest), "what was named is not served: {story}");
    }
    let known = gone.iter().all(|digest| report.damaged.contains(digest));
    assert!(known || report.damaged_bytes + report.torn_bytes > 0, "nothing is lost in silence: {story}: {report:?}");
    assert!(!report.is_sound() || report.torn_bytes > 0 || gone.is_empty(), "{story}");
    drop(store);
    // The torn tail of the last segment was cut by the start, everything else is mended by the repair.
    let store = open(Arc::new(fs.clone()));
    store.mend().unwrap();
    drop(store);
    let store = open(Arc::new(fs));
    let mended = store.verify().unwrap();
    assert!(mended.is_sound(), "{story}: {mended:?}");
    assert_eq!(lost(&store, blobs, story), gone, "a mended store has lost no more: {story}");
    for (digest, blob) in blobs {
        assert_eq!(store.put(&p(), blob).unwrap(), *digest);
    }
    assert_eq!(lost(&store, blobs, story), [], "all can come again: {story}");
    assert!(store.verify().unwrap().is_sound(), "{story}");
    match (report.damaged_blobs, report.damaged_bytes) {
        (0, 0) => "harmless",
        (0, _) => "records",
        _ => "blobs",
    }
}

#[test]
fn a_check_tells_how_far_it_is_and_ends_when_it_is_asked_to() {
    let (image, blobs) = filled();
    let store = open(Arc::new(RecordingFs::on(&image)));
    let sum = blobs.values().map(|blob| blob.len() as u64).sum::<u64>() + OTHERS.1;
    let all = blobs.len() + OTHERS.0;
    let mut last = windlass_cache::Progress::default();
    let mut steps = 0;
    let report = store.verify_watched(&mut |progress| {
        assert!(progress.bytes >= last.bytes && progress.blobs >= last.blobs);
        (last, steps) = (*progress, steps + 1);
        ControlFlow::Continue(())
    });
    assert!(report.unwrap().complete && steps > all);
    assert_eq!((last.blobs, last.of_blobs, last.bytes, last.of_bytes), (all, all, sum, sum));
    let ended = store.verify_watched(&mut |progress| {
        if progress.bytes > 100_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let ended = ended.unwrap();
    assert!(!ended.complete && ended.is_sound() && ended.bytes < sum, "{ended:?}");
    assert_eq!(store.stats().damaged, 0, "what was not read to its end is not damaged");
}

#[test]
fn a_store_serves_and_takes_blobs_while_it_is_checked() {
    let (image, blobs) = filled();
    let fs = RecordingFs::on(&image);
    let store = open(Arc::new(fs.clone()));
    let mut nth = 1_000;
    let report = store.verify_watched(&mut |_| {
        nth += 1;
        store.put(&p(), &noise(nth, 3_000)).unwrap();
        let digest = Digest::of(&noise(nth - 1, 3_000));
        assert!(nth == 1_001 || store.get(&p(), &digest).unwrap().is_some());
        ControlFlow::Continue(())
    });
    assert!(report.unwrap().is_sound());
    assert_eq!(lost(&store, &blobs, "while it was checked"), []);
}

#[test]
fn a_crash_while_a_store_is_mended_leaves_one_that_can_be_mended() {
    let (image, blobs) = filled();
    // The header of a record in the middle of the second segment.
    let path = PathBuf::from("/s/segments/00000001.seg");
    let at = image.files[&path].windows(4).enumerate().filter(|(_, w)| *w == b"WREC").nth(3).unwrap().0;
    let fs = RecordingFs::on(&flip(&image, &path, at as u64 * 8 + 20));
    let lost_before = lost(&open(Arc::new(RecordingFs::on(&fs.live_image()))), &blobs, "before");
    assert_eq!(lost_before.len(), 1);
    let store = open(Arc::new(fs.clone()));
    let from = fs.op_count();
    assert!(store.mend().unwrap() > 2_500);
    drop(store);
    for at in from..=fs.op_count() {
        for crash in fs.crash_images(at) {
            let fs = RecordingFs::on(&crash.image);
            let store = open(Arc::new(fs.clone()));
            assert_eq!(lost(&store, &blobs, &crash.story), lost_before);
            store.mend().unwrap();
            drop(store);
            let store = open(Arc::new(fs));
            assert!(store.verify().unwrap().is_sound(), "{}", crash.story);
            assert_eq!(lost(&store, &blobs, &crash.story), lost_before);
        }
    }
    // Whoever heard that it is mended need not do it again.
    for crash in fs.crash_images(fs.op_count()) {
        let store = open(Arc::new(RecordingFs::on(&crash.image)));
        assert!(store.verify().unwrap().is_sound(), "{}", crash.story);
    }
}

#[test]
fn a_lazy_store_is_checked_too() {
    let options = StoreOptions { durability: Durability::Lazy, ..options() };
    let fs = RecordingFs::new();
    let store = Store::open(Arc::new(fs), Path::new("/s"), options).unwrap();
    store.put_many(&p(), (0..20).map(|n| noise(n, 3_000))).unwrap();
    let report = store.verify().unwrap();
    assert_eq!((report.blobs, report.is_sound(), store.mend().unwrap()), (20, true, 0));
}
