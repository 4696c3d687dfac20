//! Uploads that are gone on with: after a broken connection, after a killed process, after any crash; and never by others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_cache::vfs::recorded::{Image, RecordingFs};
use windlass_cache::{About, Error, Fault, Partial, PartialError, Partials, Rejected, Store, StoreOptions};
use windlass_protocol::limits::{UPLOAD_IDLE_MS, UPLOADS_PER_OWNER_MAX, UPLOADS_PER_OWNER_MAX_BYTES};
use windlass_protocol::{Digest, Namespace, WallMs};

use crate::chunks::noise;

const NOW: WallMs = WallMs(1_000_000_000);

fn p() -> Namespace {
    Namespace::trusted("p")
}

fn options() -> StoreOptions {
    StoreOptions { segment_bytes: 100_000, chunk_bytes: 16 << 10, floor_bytes: 0, ..StoreOptions::default() }
}

fn open(fs: &RecordingFs) -> (Store, Partials) {
    let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), options()).unwrap();
    let partials = Partials::open(&store, NOW).unwrap();
    (store, partials)
}

fn about(owner: &str, blob: &[u8]) -> About {
    About { owner: owner.to_owned(), namespace: p(), digest: Digest::of(blob), bytes: blob.len() as u64 }
}

fn begin(partials: &Partials, blob: &[u8]) -> String {
    partials.begin(about("me", blob), NOW).unwrap().id
}

fn take(partials: &Partials, id: &str) -> Partial {
    partials.take("me", id, NOW).unwrap().unwrap()
}

/// Sends up to `end`, in pieces.
fn send(partial: &mut Partial, blob: &[u8], end: usize) -> Result<(), PartialError> {
    let from = usize::try_from(partial.offset()).unwrap();
    blob[from..end].chunks(10_000).try_for_each(|piece| partial.write(piece, NOW))
}

fn bytes_of(store: &Store, blob: &[u8]) -> Option<Vec<u8>> {
    store.get(&p(), &Digest::of(blob)).unwrap().map(|blob| blob.into_vec().unwrap())
}

/// Files of uploads that did not end.
fn left(image: &Image) -> Vec<&PathBuf> {
    let of_upload = |path: &&PathBuf| path.starts_with("/s/uploads") || path.to_string_lossy().contains("chunks/part-");
    image.files.keys().filter(of_upload).collect()
}

#[test]
fn after_a_broken_connection_only_the_rest_is_sent() {
    let fs = RecordingFs::new();
    let (store, partials) = open(&fs);
    let blob = noise(1, 500_000);
    let id = begin(&partials, &blob);
    assert_eq!(begin(&partials, &blob), id, "who forgot its name finds it by its blob");
    for stop in [1, 40_000, 123_456, 499_999] {
        let mut partial = take(&partials, &id);
        send(&mut partial, &blob, stop).unwrap();
        drop(partial);
        assert_eq!(partials.state("me", &id).unwrap().offset, stop as u64, "to the byte");
        assert!(!store.contains(&p(), &Digest::of(&blob)), "what is not whole is not there");
        assert_eq!(store.stats().reserved_bytes, 0, "who is away keeps no room from others");
    }
    let mut partial = take(&partials, &id);
    send(&mut partial, &blob, blob.len()).unwrap();
    assert_eq!(partial.finish().unwrap(), Digest::of(&blob));
    assert_eq!(bytes_of(&store, &blob).as_ref(), Some(&blob));
    assert_eq!((partials.state("me", &id), partials.waiting()), (None, (0, 0)));
    assert_eq!(left(&fs.live_image()), [""; 0].map(Path::new));
}

#[test]
fn a_killed_process_goes_on_with_it_from_what_was_noted() {
    let fs = RecordingFs::new();
    let (_store, partials) = open(&fs);
    let blob = noise(1, 4 << 20);
    let id = begin(&partials, &blob);
    let mut partial = take(&partials, &id);
    send(&mut partial, &blob, 3 << 20).unwrap();
    // It is killed while bytes come.
    let fs = RecordingFs::on(&fs.live_image());
    let (store, partials) = open(&fs);
    let state = partials.state("me", &id).unwrap();
    let mut partial = take(&partials, &id);
    assert_eq!(partial.offset(), state.offset);
    assert!((1 << 20..=3 << 20).contains(&state.offset), "{}", state.offset);
    send(&mut partial, &blob, blob.len()).unwrap();
    partial.finish().unwrap();
    assert_eq!(bytes_of(&store, &blob).as_ref(), Some(&blob));
    assert_eq!(left(&fs.live_image()), [""; 0].map(Path::new));
    // One that ended in order says to the last chunk what it has.
    let other = noise(2, 1 << 20);
    let id = begin(&partials, &other);
    send(&mut take(&partials, &id), &other, 1_000_000).unwrap();
    drop((store, partials));
    let (store, partials) = open(&fs);
    assert!(partials.state("me", &id).unwrap().offset > 1_000_000 - (64 << 10));
    let mut partial = take(&partials, &id);
    send(&mut partial, &other, other.len()).unwrap();
    partial.finish().unwrap();
    assert_eq!(bytes_of(&store, &other), Some(other));
    assert_eq!(store.verify().unwrap().damaged, []);
}

/// Two uploads and a blob that shares chunks with one of them.
fn work(fs: &RecordingFs, blobs: &[Vec<u8>; 3]) -> Result<(), PartialError> {
    let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), options())?;
    let partials = Partials::open(&store, NOW)?;
    store.put(&p(), &blobs[0])?;
    for blob in &blobs[1..] {
        let id = partials.begin(about("me", blob), NOW)?.id;
        for stop in [70_000, 130_000] {
            let mut partial = partials.take("me", &id, NOW)?.unwrap();
            send(&mut partial, blob, stop)?;
        }
    }
    for blob in &blobs[1..] {
        let id = partials.begin(about("me", blob), NOW)?.id;
        let mut partial = partials.take("me", &id, NOW)?.unwrap();
        send(&mut partial, blob, blob.len())?;
        partial.finish().map_err(PartialError::from)?;
    }
    Ok(())
}

fn blobs() -> [Vec<u8>; 3] {
    let one = noise(1, 150_000);
    let two = [one[..100_000].to_vec(), noise(2, 80_000)].concat();
    [one, two, noise(3, 160_000)]
}

/// Goes on with whatever is there, to the end.
fn complete(fs: &RecordingFs, blobs: &[Vec<u8>; 3], story: &str) {
    let (store, partials) = open(fs);
    for blob in blobs {
        let id = begin(&partials, blob);
        let mut partial = take(&partials, &id);
        send(&mut partial, blob, blob.len()).unwrap();
        partial.finish().unwrap();
        assert!(bytes_of(&store, blob).as_ref() == Some(blob), "{story}");
    }
    assert_eq!(left(&fs.live_image()), [""; 0].map(Path::new), "{story}");
    drop((store, partials));
    let (store, _) = open(fs);
    for blob in blobs {
        assert!(bytes_of(&store, blob).as_ref() == Some(blob), "{story}, after another start");
    }
    assert_eq!(store.verify().unwrap().damaged, [], "{story}");
}

#[test]
fn whatever_a_crash_leaves_of_an_upload_it_ends_right() {
    let (fs, blobs) = (RecordingFs::new(), blobs());
    work(&fs, &blobs).unwrap();
    let mut images = 0;
    for at in 0..=fs.op_count() {
        for crash in fs.crash_images(at) {
            images += 1;
            complete(&RecordingFs::on(&crash.image), &blobs, &format!("after {at} operations, {}", crash.story));
        }
    }
    assert!(images > 200, "{images} images");
}

#[test]
fn whatever_fails_an_upload_goes_on_from_what_it_has() {
    let blobs = blobs();
    let whole = {
        let fs = RecordingFs::new();
        work(&fs, &blobs).unwrap();
        fs.op_count()
    };
    let mut failed = 0;
    for nth in 0..whole {
        let fs = RecordingFs::new();
        fs.fail_at(nth, std::io::ErrorKind::StorageFull);
        // Not each is an error: what cannot be noted is sent again, and a file that stays goes at the next start.
        if let Err(error) = work(&fs, &blobs) {
            failed += 1;
            assert!(matches!(&error, PartialError::Store(Error::Fault(fault)) if fault.is_full()), "{error:?}");
        }
        complete(&fs, &blobs, &format!("operation {nth} failed"));
    }
    assert!(failed > 40, "{failed} operations");
}

#[test]
fn bytes_that_rotted_or_left_the_store_meanwhile_are_asked_for_again() {
    let blob = noise(1, 500_000);
    let start = || {
        let fs = RecordingFs::new();
        let (store, partials) = open(&fs);
        // The beginning is there already, by another blob.
        store.put(&p(), &blob[..200_000]).unwrap();
        let id = begin(&partials, &blob);
        send(&mut take(&partials, &id), &blob, 400_000).unwrap();
        (RecordingFs::on(&fs.live_image()), id)
    };
    let part = |id: &str| PathBuf::from(format!("/s/chunks/part-{id}"));
    let (fs, id) = start();
    assert!(fs.live_image().files[&part(&id)].len() < 300_000, "what was there is not written again");
    let file = windlass_cache::Vfs::open(&fs, &part(&id)).unwrap();
    let flipped = fs.live_image().files[&part(&id)][90_000] ^ 1;
    file.write_at(90_000, &[flipped]).unwrap();
    let (store, partials) = open(&fs);
    let mut partial = take(&partials, &id);
    assert!((200_000..300_000).contains(&partial.offset()), "{}", partial.offset());
    send(&mut partial, &blob, blob.len()).unwrap();
    partial.finish().unwrap();
    assert_eq!(bytes_of(&store, &blob).as_ref(), Some(&blob));
    // The other blob is let go between two processes.
    let (fs, id) = start();
    let (store, partials) = open(&fs);
    store.release(&store.held(|_| true)).unwrap();
    let mut partial = take(&partials, &id);
    assert_eq!(partial.offset(), 0);
    send(&mut partial, &blob, 350_000).unwrap();
    drop(partial);
    drop((store, partials));
    let (store, partials) = open(&fs);
    let mut partial = take(&partials, &id);
    assert!(partial.offset() > 280_000, "what was noted anew counts: {}", partial.offset());
    send(&mut partial, &blob, blob.len()).unwrap();
    partial.finish().unwrap();
    assert_eq!(bytes_of(&store, &blob).as_ref(), Some(&blob));
}

#[test]
fn what_was_noted_after_a_chunk_that_rotted_is_forgotten_for_good() {
    let fs = RecordingFs::new();
    let (store, partials) = open(&fs);
    let blob = noise(1, 500_000);
    let id = begin(&partials, &blob);
    let part = PathBuf::from(format!("/s/chunks/part-{id}"));
    let written = || fs.live_image().files[&part].len();
    let mut ends = Vec::new();
    for stop in [150_000, 300_000, 450_000] {
        // Each is noted by itself when it is dropped.
        send(&mut take(&partials, &id), &blob, stop).unwrap();
        ends.push(written());
    }
    drop((store, partials));
    // The first chunk of the second note.
    let at = ends[0] + 10;
    let flipped = fs.live_image().files[&part][at] ^ 1;
    windlass_cache::Vfs::open(&fs, &part).unwrap().write_at(at as u64, &[flipped]).unwrap();
    let (store, partials) = open(&fs);
    let offset = take(&partials, &id).offset();
    assert!((1..=150_000).contains(&offset), "{offset}");
    assert_eq!(written(), ends[0], "what is not counted on leaves the disk");
    drop((store, partials));
    let (store, partials) = open(&fs);
    assert_eq!(partials.state("me", &id).unwrap().offset, offset, "as it will be when it is taken up");
    let mut partial = take(&partials, &id);
    send(&mut partial, &blob, blob.len()).unwrap();
    partial.finish().unwrap();
    assert_eq!(bytes_of(&store, &blob), Some(blob));
}

#[test]
fn an_upload_is_its_owner_s_alone_and_one_connection_s_at_a_time() {
    let fs = RecordingFs::new();
    let (_store, partials) = open(&fs);
    let blob = noise(1, 100_000);
    let id = begin(&partials, &blob);
    assert!(partials.state("you", &id).is_none());
    assert!(partials.take("you", &id, NOW).unwrap().is_none());
    assert!(!partials.discard("you", &id));
    assert_ne!(partials.begin(about("you", &blob), NOW).unwrap().id, id);
    let elsewhere = About { namespace: Namespace::trusted("q"), ..about("me", &blob) };
    assert_ne!(partials.begin(elsewhere, NOW).unwrap().id, id);
    let partial = take(&partials, &id);
    assert!(matches!(partials.take("me", &id, NOW), Err(PartialError::Busy)));
    assert!(!partials.discard("me", &id), "not under the hands of who sends");
    drop(partial);
    assert!(partials.discard("me", &id));
    assert!(partials.state("me", &id).is_none());
}

#[test]
fn bytes_other_than_announced_or_more_of_them_are_refused_and_leave_nothing() {
    let fs = RecordingFs::new();
    let (store, partials) = open(&fs);
    let (blob, other) = (noise(1, 100_000), noise(2, 100_000));
    let id = begin(&partials, &blob);
    let mut partial = take(&partials, &id);
    partial.write(&other, NOW).unwrap();
    assert!(matches!(partial.write(b"x", NOW), Err(PartialError::TooLong(100_000))));
    assert!(matches!(partial.finish(), Err(Error::Rejected(Rejected::WrongDigest { .. }))));
    assert_eq!(left(&fs.live_image()), [""; 0].map(Path::new));
    assert_eq!((store.stats().blobs, store.stats().chunks), (0, 0));
    assert!(matches!(partials.begin(about("me", b"small"), NOW), Err(PartialError::Small)));
    let huge = About { bytes: u64::MAX, ..about("me", &blob) };
    assert!(matches!(partials.begin(huge, NOW), Err(PartialError::Store(Error::Rejected(Rejected::BlobTooLarge)))));
}

#[test]
fn an_upload_that_never_comes_back_leaves_nothing_also_over_starts() {
    let fs = RecordingFs::new();
    let (store, partials) = open(&fs);
    let blob = noise(1, 300_000);
    let id = begin(&partials, &blob);
    send(&mut take(&partials, &id), &blob, 200_000).unwrap();
    assert_eq!(partials.state("me", &id).unwrap().expires_at, NOW.plus_ms(UPLOAD_IDLE_MS));
    assert_eq!(partials.expire(NOW.plus_ms(UPLOAD_IDLE_MS - 1)), 0);
    drop((store, partials));
    let (store, partials) = open(&fs);
    let busy = take(&partials, &id);
    assert_eq!(partials.expire(NOW.plus_ms(UPLOAD_IDLE_MS)), 0, "somebody sends");
    drop(busy);
    assert_eq!(partials.expire(NOW.plus_ms(UPLOAD_IDLE_MS)), 1);
    assert_eq!(left(&fs.live_image()), [""; 0].map(Path::new));
    assert_eq!(store.stats().chunks, 0);
    // A start finds it too old.
    let id = begin(&partials, &blob);
    send(&mut take(&partials, &id), &blob, 200_000).unwrap();
    drop(partials);
    let later = Partials::open(&store, NOW.plus_ms(UPLOAD_IDLE_MS)).unwrap();
    assert_eq!((later.waiting(), left(&fs.live_image())), ((0, 0), Vec::<&PathBuf>::new()));
    // One whose clock was put back is kept no longer than any other.
    let id = begin(&later, &blob);
    let past = WallMs(5_000);
    assert_eq!(later.expire(past), 0);
    assert_eq!(later.state("me", &id).unwrap().expires_at, past.plus_ms(UPLOAD_IDLE_MS));
}

#[test]
fn what_waits_is_bounded_for_each_and_what_was_left_longest_goes_first() {
    let fs = RecordingFs::new();
    let (_store, partials) = open(&fs);
    let blob = |n: usize| noise(n, 70_000);
    let ids: Vec<String> = (0..UPLOADS_PER_OWNER_MAX)
        .map(|n| partials.begin(about("me", &blob(n)), NOW.plus_ms(n as u64)).unwrap().id)
        .collect();
    let yours = partials.begin(about("you", &blob(0)), WallMs(0)).unwrap().id;
    let _busy = take(&partials, &ids[0]);
    partials.begin(about("me", &blob(99)), NOW).unwrap();
    assert!(partials.state("me", &ids[0]).is_some(), "somebody sends it");
    assert!(partials.state("me", &ids[1]).is_none(), "it was left longest");
    assert!(partials.state("you", &yours).is_some(), "another's stays");
    let half = About { bytes: UPLOADS_PER_OWNER_MAX_BYTES / 2, ..about("them", &blob(1)) };
    partials.begin(half.clone(), NOW).unwrap();
    partials.begin(About { digest: Digest::of(b"2"), ..half.clone() }, NOW).unwrap();
    partials.begin(About { digest: Digest::of(b"3"), ..half.clone() }, NOW.plus_ms(1)).unwrap();
    let of_them = |digest: Digest| About { digest, ..half.clone() };
    let sum = [half.digest, Digest::of(b"2"), Digest::of(b"3")].map(of_them);
    let offsets = sum.map(|about| partials.begin(about, NOW.plus_ms(2)).unwrap().id);
    assert_ne!(offsets[0], offsets[1]);
    assert_eq!(partials.waiting().0, UPLOADS_PER_OWNER_MAX + 1 + 2, "two of them fit");
}

#[test]
fn on_a_full_disk_what_waits_goes_for_what_comes_and_what_comes_is_refused_before_it_comes() {
    let fs = RecordingFs::new();
    fs.set_capacity(Some(4 << 20));
    let (store, partials) = open(&fs);
    let (one, two, three) = (noise(1, 3 << 20), noise(2, 3 << 20), noise(3, 5 << 20));
    let first = begin(&partials, &one);
    send(&mut take(&partials, &first), &one, 2 << 20).unwrap();
    let second = begin(&partials, &two);
    let mut partial = take(&partials, &second);
    assert!(partials.state("me", &first).is_none(), "it waited");
    send(&mut partial, &two, two.len()).unwrap();
    partial.finish().unwrap();
    let third = begin(&partials, &three);
    let refused = partials.take("me", &third, NOW);
    assert!(matches!(refused, Err(PartialError::Store(Error::Fault(Fault::NoSpace { .. })))), "{refused:?}");
    assert_eq!(partials.state("me", &third).unwrap().offset, 0, "it waits for room");
    assert_eq!(bytes_of(&store, &two), Some(two));
}

#[test]
fn what_somebody_else_stored_meanwhile_is_stored_once() {
    let fs = RecordingFs::new();
    let (store, partials) = open(&fs);
    let blob = noise(1, 400_000);
    let id = begin(&partials, &blob);
    send(&mut take(&partials, &id), &blob, 300_000).unwrap();
    store.put(&Namespace::trusted("q"), &blob).unwrap();
    let stored = store.stats();
    assert!(partials.state("me", &id).is_some(), "its owner has not shown that he has it");
    let mut partial = take(&partials, &id);
    send(&mut partial, &blob, blob.len()).unwrap();
    partial.finish().unwrap();
    let after = store.stats();
    assert_eq!((after.chunks, after.chunk_disk_bytes), (stored.chunks, stored.chunk_disk_bytes));
    assert_eq!(left(&fs.live_image()), [""; 0].map(Path::new));
    assert_eq!(fs.live_image().files.keys().filter(|path| path.starts_with("/s/chunks")).count(), 1);
    assert_eq!(bytes_of(&store, &blob), Some(blob));
}

#[test]
fn who_announces_more_than_the_disk_has_ends_no_upload_of_others() {
    let fs = RecordingFs::new();
    fs.set_capacity(Some(4 << 20));
    let (_store, partials) = open(&fs);
    let blob = noise(1, 1 << 20);
    let id = begin(&partials, &blob);
    let mut partial = take(&partials, &id);
    send(&mut partial, &blob, 700_000).unwrap();
    drop(partial);
    let huge = About { digest: Digest::of(b"huge"), bytes: 1 << 35, ..about("stranger", &blob) };
    let theirs = partials.begin(huge, NOW).unwrap().id;
    let refused = partials.take("stranger", &theirs, NOW);
    assert!(matches!(refused, Err(PartialError::Store(Error::Fault(Fault::NoSpace { .. })))), "{refused:?}");
    assert_eq!(partials.state("me", &id).unwrap().offset, 700_000, "it would not have helped");
    // Neither to look at it nor to give it up takes room.
    let partial = partials.take_roomless("stranger", &theirs, NOW).unwrap().unwrap();
    partial.give_up();
    assert_eq!(partials.waiting(), (1, 700_000));
}

#[test]
fn beginning_uploads_in_ever_new_places_leaves_nothing_in_memory() {
    let (store, partials) = open(&RecordingFs::new());
    let blob = noise(1, 200_000);
    let before = store.stats().namespaces;
    for n in 0..100 {
        let namespace = Namespace::trusted(&format!("made-up-{n}"));
        partials.begin(About { namespace, ..about("stranger", &blob) }, NOW).unwrap();
    }
    assert_eq!(store.stats().namespaces, before);
    assert_eq!(partials.waiting().0, UPLOADS_PER_OWNER_MAX);
    let long = Namespace::trusted(&"x".repeat(100_000));
    assert!(partials.begin(About { namespace: long, ..about("stranger", &blob) }, NOW).is_err());
}

#[test]
fn whatever_the_clock_does_an_upload_is_there_while_it_is_gone_on_with_and_goes_when_it_is_not() {
    const YEAR_MS: u64 = 365 * 86_400_000;
    let (_store, partials) = open(&RecordingFs::new());
    let blob = noise(1, 200_000);
    let later = |ms| NOW.plus_ms(ms);
    // It was begun while the clock stood a year ahead, and was put right.
    let id = partials.begin(about("me", &blob), later(YEAR_MS)).unwrap().id;
    assert_eq!(partials.expire(NOW), 0);
    assert_eq!(partials.expire(later(UPLOAD_IDLE_MS - 1)), 0, "16 hours from when it was seen");
    assert_eq!(partials.expire(later(UPLOAD_IDLE_MS)), 1, "and no year");
    assert_eq!(partials.state("me", &id), None);
    // Somebody sends while the clock jumps ahead, and back: it is his until he is done.
    let id = begin(&partials, &blob);
    let mut partial = take(&partials, &id);
    partial.write(&blob[..100_000], later(YEAR_MS)).unwrap();
    assert_eq!(partials.expire(later(2 * YEAR_MS)), 0);
    partial.write(&blob[100_000..], WallMs(0)).unwrap();
    assert_eq!(partials.expire(later(YEAR_MS)), 0);
    assert_eq!(partial.finish().unwrap(), Digest::of(&blob));
    // What was left when the clock stood at nought goes at the first look.
    let other = noise(2, 200_000);
    let id = begin(&partials, &other);
    drop(partials.take("me", &id, WallMs(0)).unwrap().unwrap());
    assert_eq!(partials.expire(NOW), 1);
}
