//! A short run of every fuzz entry: good bytes, changed by a seeded mutator. `FUZZ_ROUNDS` makes it longer, `FUZZ_SEED` starts
//! elsewhere. A failure prints the entry and the bytes.

use std::panic::catch_unwind;
use std::sync::Arc;

use windlass_cache::fuzz::ENTRIES;
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{About, Directory, Entry, Node, PackWriter, Partials, Store, StoreOptions};
use windlass_protocol::fuzz::Mutator;
use windlass_protocol::{Digest, Namespace, WallMs};

const ROUNDS: u64 = 20_000;

/// A manifest, a listing and a segment as a store writes them, a pack, a directory, a journal, a table's copy.
fn seeds() -> Vec<Vec<u8>> {
    let fs = RecordingFs::new();
    let options = StoreOptions { chunk_bytes: 16 << 10, ..StoreOptions::default() };
    let store = Store::open(Arc::new(fs.clone()), std::path::Path::new("/s"), options).unwrap();
    let namespace = Namespace::trusted("p");
    store.put(&namespace, b"small").unwrap();
    store.put(&namespace, &crate::chunks::noise(0, 70_000)).unwrap();
    let segment = fs.live_image().files[std::path::Path::new("/s/segments/00000000.seg")].clone();
    let manifest = segment.windows(8).position(|window| window == b"WLMAN\x01\0\0").unwrap();
    // Before the manifest stands its record's header, before that the listing.
    let magic: Vec<usize> =
        segment.windows(4).enumerate().filter(|(_, window)| *window == b"WREC").map(|(at, _)| at).collect();
    let listing = magic[magic.len() - 2] + 64;
    let mut pack = PackWriter::new(Vec::new()).unwrap();
    pack.add(&Digest::of(b"blob"), b"blob").unwrap();
    let file = Node::File { digest: Digest::of(b"a"), len: 1, mode: 0o644 };
    let directory = Directory::new(vec![Entry { name: b"a".to_vec(), node: file }]).unwrap();
    vec![
        segment[manifest..].to_vec(),
        segment[listing..manifest - 64].to_vec(),
        segment,
        pack.finish().unwrap(),
        directory.encode(),
        journal(),
        table(),
        woven(),
        crate::archive::archive(3, 1_700_000_000),
    ]
}

/// A store's table, of blobs small and large. Its chunk files are not there for an entry.
fn table() -> Vec<u8> {
    let fs = RecordingFs::new();
    let options = StoreOptions { sha256: true, ..StoreOptions::default() };
    let store = Store::open(Arc::new(fs.clone()), std::path::Path::new("/s"), options).unwrap();
    let (one, two) = (Namespace::trusted("p"), Namespace::overlay("p", "pr:1"));
    let digests = store.put_many(&one, [b"small".to_vec(), crate::chunks::noise(0, 70_000), b"gone".to_vec()]).unwrap();
    store.grant(&two, &digests[..2]).unwrap();
    let gone: Vec<_> = store.held(|_| true).into_iter().filter(|held| held.digest == digests[2]).collect();
    store.release(&gone).unwrap();
    store.copy_table().unwrap().unwrap();
    fs.live_image().files[std::path::Path::new("/s/table")].clone()
}

/// The manifest of an archive.
fn woven() -> Vec<u8> {
    let fs = RecordingFs::new();
    let store = Store::open(Arc::new(fs), std::path::Path::new("/s"), StoreOptions::default()).unwrap();
    let namespace = Namespace::trusted("p");
    let digest = store.put(&namespace, &crate::archive::archive(12, 1_700_000_000)).unwrap();
    let manifest = store.get(&namespace, &digest).unwrap().unwrap().manifest().unwrap().encode();
    assert!(manifest.starts_with(b"WLMAN\x02"));
    manifest
}

/// What an upload that waits has noted.
fn journal() -> Vec<u8> {
    let fs = RecordingFs::new();
    let store = Store::open(Arc::new(fs.clone()), std::path::Path::new("/s"), StoreOptions::default()).unwrap();
    let partials = Partials::open(&store, WallMs(0)).unwrap();
    let (owner, namespace, bytes) = ("me".to_owned(), Namespace::trusted("p"), 1 << 20);
    let id = partials.begin(About { owner, namespace, digest: Digest::of(b"blob"), bytes }, WallMs(0)).unwrap().id;
    let mut partial = partials.take("me", &id, WallMs(0)).unwrap().unwrap();
    partial.write(&crate::chunks::noise(1, 700_000), WallMs(0)).unwrap();
    drop(partial);
    fs.live_image().files[&std::path::PathBuf::from(format!("/s/uploads/{id}"))].clone()
}

#[test]
fn no_entry_panics_whatever_the_bytes_and_each_takes_some() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (rounds, seed) = (number("FUZZ_ROUNDS").unwrap_or(ROUNDS), number("FUZZ_SEED").unwrap_or(1));
    let seeds = seeds();
    for (name, entry) in ENTRIES {
        assert!(seeds.iter().any(|good| entry(good)), "{name} takes none of the good ones");
        let mut mutator = Mutator::new(seed);
        for _ in 0..rounds {
            let (good, other) = (mutator.below(seeds.len()), mutator.below(seeds.len()));
            let bytes = mutator.mutate(&seeds[good], &seeds[other]);
            if catch_unwind(|| entry(&bytes)).is_err() {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                panic!("{name} panicked on {hex}");
            }
        }
    }
}
