//! Archives: cut along their structure, whole again whatever they hold, and shared whatever their times.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{About, ChunkManifest, Partials, Store, StoreOptions};
use windlass_protocol::limits::RESUMABLE_MIN_BYTES;
use windlass_protocol::{Digest, Namespace, WallMs};

use crate::chunks::noise;

fn p() -> Namespace {
    Namespace::trusted("p")
}

fn memory() -> Store {
    let options = StoreOptions { chunk_bytes: 16 << 10, ..StoreOptions::default() };
    Store::open(Arc::new(RecordingFs::new()), Path::new("/s"), options).unwrap()
}

/// A member as GNU tar writes it.
pub(crate) fn member(kind: u8, name: &str, time: u64, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..124].copy_from_slice(b"0000644\x000001750\x000001750\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[136..148].copy_from_slice(format!("{time:011o}\0").as_bytes());
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar  \0");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

/// Files of up to 20,000 bytes, and a large one; each byte of a content from its number, each time from `time`.
pub(crate) fn archive(files: usize, time: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..files {
        let len = if n % 50 == 49 { 200_000 } else { n * 7_919 % 20_000 };
        out.extend(member(b'0', &format!("usr/share/{n}"), time + n as u64 * 3, &noise(n, len)));
    }
    out.resize(out.len() + 1_024, 0);
    out
}

fn manifest_of(store: &Store, digest: &Digest) -> ChunkManifest {
    store.get(&p(), digest).unwrap().unwrap().manifest().unwrap().clone()
}

#[test]
fn an_archive_with_all_times_new_shares_its_files_and_reads_back_in_any_part() {
    let store = memory();
    let (one, two) = (archive(200, 1_700_000_000), archive(200, 1_760_000_000));
    store.put(&p(), &one).unwrap();
    let before = store.stats().chunk_bytes;
    let digest = store.put(&p(), &two).unwrap();
    let new = store.stats().chunk_bytes - before;
    assert!(new * 100 < two.len() as u64, "{new} of {}", two.len());
    let manifest = manifest_of(&store, &digest);
    assert!(manifest.is_woven());
    assert_eq!(ChunkManifest::decode(&manifest.encode()).as_ref(), Ok(&manifest));
    let blob = store.get(&p(), &digest).unwrap().unwrap();
    for (at, len) in [(0, 3_000), (100, 60), (two.len() - 700, 700), (1_000_000, 400_000), (two.len() - 1, 5)] {
        let mut part = vec![0; len];
        let read = blob.read_at(at as u64, &mut part).unwrap();
        assert_eq!(read, len.min(two.len() - at), "filled, unless the blob ends");
        assert!(part[..read] == two[at..at + read], "{len} at {at}");
    }
    assert_eq!(blob.read_at(two.len() as u64, &mut [0; 10]).unwrap(), 0);
    let mut pieces = 0;
    blob.copy_to(&mut |_| {
        pieces += 1;
        Ok(())
    })
    .unwrap();
    assert!(pieces < 150, "{pieces} pieces");
    assert!(store.get(&p(), &digest).unwrap().unwrap().into_vec().unwrap() == two);
    assert_eq!(store.verify().unwrap().damaged, []);
}

#[test]
fn a_file_that_grows_and_one_that_goes_change_little_of_the_others() {
    let store = memory();
    let one = archive(200, 1_700_000_000);
    store.put(&p(), &one).unwrap();
    let before = store.stats().chunk_bytes;
    let first = member(b'0', "usr/share/another", 5, &noise(999, 3_000));
    let two = [&first[..], &archive(200, 1_760_000_000)].concat();
    store.put(&p(), &two).unwrap();
    let new = store.stats().chunk_bytes - before;
    assert!(new < 120_000, "{new} of {}", two.len());
}

#[test]
fn an_archive_is_put_together_from_its_chunks_in_any_order() {
    let origin = memory();
    let blob = archive(120, 1_700_000_000);
    let digest = origin.put(&p(), &blob).unwrap();
    let stored = origin.get(&p(), &digest).unwrap().unwrap();
    let manifest = stored.manifest().unwrap().clone();
    let store = memory();
    let assembly = store.assemble(manifest.clone()).unwrap();
    for nth in (0..u32::try_from(manifest.chunks().len()).unwrap()).rev() {
        assembly.put(nth, &stored.chunk(nth as usize).unwrap().unwrap()).unwrap();
    }
    assembly.finish(&p()).unwrap();
    assert!(store.get(&p(), &digest).unwrap().unwrap().into_vec().unwrap() == blob);
    assert_eq!(manifest_of(&store, &digest), manifest);
    // The same is cut alike where it comes whole.
    let again = memory();
    again.put(&p(), &blob).unwrap();
    assert_eq!(manifest_of(&again, &digest), manifest);
}

#[test]
fn an_upload_of_an_archive_goes_on_where_a_connection_broke() {
    let store = memory();
    let blob = archive(900, 1_700_000_000);
    assert!(blob.len() as u64 > RESUMABLE_MIN_BYTES);
    let partials = Partials::open(&store, WallMs(0)).unwrap();
    let (owner, namespace, digest) = ("me".to_owned(), p(), Digest::of(&blob));
    let about = About { owner, namespace, digest, bytes: blob.len() as u64 };
    let id = partials.begin(about, WallMs(0)).unwrap().id;
    for until in [1, 700, 3_000_001, 8_000_000, blob.len()] {
        let mut partial = partials.take("me", &id, WallMs(1)).unwrap().unwrap();
        let from = usize::try_from(partial.offset()).unwrap();
        partial.write(&blob[from..until], WallMs(1)).unwrap();
        drop(partial);
    }
    partials.take("me", &id, WallMs(2)).unwrap().unwrap().finish().unwrap();
    let whole = memory();
    whole.put(&p(), &blob).unwrap();
    assert_eq!(manifest_of(&store, &digest), manifest_of(&whole, &digest), "however it came");
    assert!(store.get(&p(), &digest).unwrap().unwrap().into_vec().unwrap() == blob);
}

#[test]
fn an_upload_of_an_archive_begins_anew_in_another_process_and_ends_whole() {
    let fs = RecordingFs::new();
    let open = || {
        let options = StoreOptions { chunk_bytes: 16 << 10, ..StoreOptions::default() };
        Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap()
    };
    let blob = archive(900, 1_700_000_000);
    let digest = Digest::of(&blob);
    let about = About { owner: "me".to_owned(), namespace: p(), digest, bytes: blob.len() as u64 };
    let store = open();
    let partials = Partials::open(&store, WallMs(0)).unwrap();
    let id = partials.begin(about, WallMs(0)).unwrap().id;
    partials.take("me", &id, WallMs(1)).unwrap().unwrap().write(&blob[..6_000_000], WallMs(1)).unwrap();
    drop((partials, store));
    let store = open();
    let partials = Partials::open(&store, WallMs(2)).unwrap();
    let mut partial = partials.take("me", &id, WallMs(3)).unwrap().unwrap();
    let from = usize::try_from(partial.offset()).unwrap();
    partial.write(&blob[from..], WallMs(3)).unwrap();
    partial.finish().unwrap();
    assert!(store.get(&p(), &digest).unwrap().unwrap().into_vec().unwrap() == blob);
    assert_eq!(store.verify().unwrap().damaged, []);
}

/// A member of any kind that there is, with what may be behind it.
fn members() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(b"0\x00125xgLKS7VD".to_vec());
    let len = prop_oneof![Just(0), 1_usize..2_000, 5_000_usize..60_000, Just(150_000)];
    (kind, len, any::<u16>(), 0_u64..1 << 33).prop_map(|(kind, len, seed, time)| match kind {
        b'x' | b'g' => member(
            kind,
            "pax",
            time,
            b"20 mtime=1700000.25\n11 path=ab\n14 size=12345\n".get(..31 + 14 * (len % 2)).unwrap(),
        ),
        b'1' | b'2' | b'5' => member(kind, "link", time, b""),
        _ => member(kind, "file", time, &noise(seed.into(), len)),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_archive_and_what_is_left_of_it_comes_back_byte_by_byte(
        members in proptest::collection::vec(members(), 1..20),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        taken in proptest::option::of((any::<prop::sample::Index>(), 1_usize..3_000)),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        pieces in 1_usize..200_000,
        at in any::<prop::sample::Index>(),
    ) {
        let mut blob = [members.concat(), noise(5, 70_000)].concat();
        for (at, byte) in flips {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        if let Some((at, len)) = taken {
            let at = at.index(blob.len());
            blob.drain(at..blob.len().min(at + len));
        }
        if let Some(cut) = cut {
            let keep = 65_537.max(cut.index(blob.len()));
            blob.truncate(keep);
        }
        let store = memory();
        let digest = Digest::of(&blob);
        let mut upload = store.begin_put(&p(), Some(digest)).unwrap();
        for piece in blob.chunks(pieces) {
            upload.write(piece).unwrap();
        }
        upload.finish().unwrap();
        let stored = store.get(&p(), &digest).unwrap().unwrap();
        let manifest = stored.manifest().unwrap().clone();
        prop_assert_eq!(ChunkManifest::decode(&manifest.encode()), Ok(manifest.clone()));
        let mut part = vec![0; 5_000];
        let at = at.index(blob.len());
        let read = stored.read_at(at as u64, &mut part).unwrap();
        prop_assert!(part[..read] == blob[at..blob.len().min(at + 5_000)]);
        prop_assert!(stored.into_vec().unwrap() == blob);
        let again = memory();
        again.put(&p(), &blob).unwrap();
        prop_assert_eq!(manifest_of(&again, &digest), manifest, "however it came");
    }
}
