//! Uploads of what a namespace has alike: which chunks count as there, and for whom.

use std::path::Path;
use std::sync::Arc;

use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{ChunkManifest, Error, Outline, Rejected, Store, StoreOptions};
use windlass_protocol::{Digest, Namespace, Shelf};

use crate::archive::archive;
use crate::chunks::noise;

fn on(fs: &RecordingFs) -> Store {
    Store::open(Arc::new(fs.clone()), Path::new("/s"), StoreOptions::default()).unwrap()
}

fn learnt() -> Store {
    let store = on(&RecordingFs::new());
    store.learn_alike().unwrap();
    store
}

fn p() -> Namespace {
    Namespace::trusted("p")
}

/// As whoever uploads it cuts it, with its chunks by their places.
fn outlined(blob: &[u8]) -> (ChunkManifest, Vec<Vec<u8>>) {
    let (mut outline, mut cut) = (Outline::default(), Vec::new());
    let mut show = |lane, nth, digest, plain: &[u8]| {
        cut.push((lane, nth, digest, plain.to_vec()));
        Ok(())
    };
    for piece in blob.chunks(70_001) {
        outline.push(piece, &mut show).unwrap();
    }
    outline.end(&mut show).unwrap();
    let manifest = outline.manifest(Digest::of(blob));
    let mut chunks = vec![Vec::new(); manifest.chunks().len()];
    for (lane, nth, digest, plain) in cut {
        let place = manifest.place(lane, nth).unwrap() as usize;
        assert_eq!(manifest.chunks()[place].digest, digest);
        chunks[place] = plain;
    }
    (manifest, chunks)
}

/// A version in which some bytes in the middle are others, and one has come before all.
fn next(blob: &[u8]) -> Vec<u8> {
    let mut next = [b"!", blob].concat();
    let middle = next.len() / 2;
    next[middle..middle + 100].copy_from_slice(&noise(99, 100));
    next
}

/// Which chunks of a blob are not found for those who see these namespaces.
fn lacking(store: &Store, seen: &[Namespace], blob: &[u8]) -> (usize, usize) {
    let (manifest, chunks) = outlined(blob);
    let had = store.alike_chunks(seen, &manifest).unwrap();
    let missing = store.assemble_of(manifest, &had).unwrap().missing().len();
    assert_eq!(missing, chunks.len() - had.len(), "what is had is held");
    (missing, chunks.len())
}

#[test]
fn who_uploads_cuts_as_the_store_does() {
    let store = on(&RecordingFs::new());
    for blob in [noise(1, 3 << 20), archive(200, 1_700_000_000)] {
        let digest = store.put(&p(), &blob).unwrap();
        let (manifest, chunks) = outlined(&blob);
        assert_eq!(store.get(&p(), &digest).unwrap().unwrap().manifest(), Some(&manifest));
        let found = (0..chunks.len()).all(|nth| {
            store.get(&p(), &digest).unwrap().unwrap().chunk(nth).unwrap().as_deref()
                == chunks.get(nth).map(Vec::as_slice)
        });
        assert!(found);
    }
}

#[test]
fn of_a_next_version_the_change_alone_is_lacking_and_to_strangers_all_of_it() {
    let store = learnt();
    let blob = noise(1, 24 << 20);
    store.put(&p().on(Shelf::Artifacts), &blob).unwrap();
    let newer = next(&blob);
    let seen = [p().on(Shelf::Artifacts), p()];
    let (missing, chunks) = lacking(&store, &seen, &newer);
    assert!(chunks > 100 && missing <= 4, "{missing} of {chunks}");
    // An overlay sees what is trusted, and not the reverse.
    let (one, two) = (Namespace::overlay("p", "1"), Namespace::overlay("p", "2"));
    assert_eq!(lacking(&store, &[one.on(Shelf::Artifacts)], &newer), (missing, chunks));
    let own = noise(2, 24 << 20);
    store.put(&one, &own).unwrap();
    let (of_one, of_chunks) = lacking(&store, std::slice::from_ref(&one), &next(&own));
    assert!(of_one <= 4, "{of_one} of {of_chunks}");
    for stranger in [p(), two, Namespace::trusted("q"), one.on(Shelf::Caches)] {
        let (missing, chunks) = lacking(&store, std::slice::from_ref(&stranger), &next(&own));
        assert_eq!(missing, chunks, "{stranger} learns nothing");
    }
    assert!(!store.knows_alike(&[Namespace::trusted("q")]) && store.knows_alike(&seen));
}

#[test]
fn a_blob_that_went_is_alike_to_nothing_and_a_start_learns_what_is_there() {
    let fs = RecordingFs::new();
    let blob = noise(1, 24 << 20);
    let newer = next(&blob);
    let seen = [p()];
    {
        let store = on(&fs);
        store.put(&p(), &blob).unwrap();
        assert!(!store.knows_alike(&seen), "it was not asked to");
    }
    let store = on(&fs);
    store.learn_alike().unwrap();
    let (missing, chunks) = lacking(&store, &seen, &newer);
    assert!(missing <= 4, "{missing} of {chunks}");
    // Others may still have it.
    store.put(&Namespace::trusted("q"), &blob).unwrap();
    store.release(&store.held(|namespace| *namespace == p())).unwrap();
    assert_eq!(lacking(&store, &seen, &newer), (chunks, chunks));
}

#[test]
fn a_chunk_that_only_strangers_have_has_to_come_and_to_be_right_and_is_stored_once() {
    let store = learnt();
    let blob = noise(1, 4 << 20);
    store.put(&p(), &blob).unwrap();
    let q = Namespace::trusted("q");
    let before = store.stats();
    let (manifest, chunks) = outlined(&blob);
    let had = store.alike_chunks(std::slice::from_ref(&q), &manifest).unwrap();
    let assembly = store.assemble_of(manifest.clone(), &had).unwrap();
    assert_eq!(assembly.missing().len(), chunks.len());
    let wrong = assembly.put(0, &noise(3, chunks[0].len())).unwrap_err();
    assert!(matches!(wrong, Error::Rejected(Rejected::WrongDigest { .. })), "{wrong}");
    let early = assembly.finish(&q).unwrap_err();
    assert!(matches!(early, Error::Rejected(Rejected::Missing { .. })), "{early}");
    for (nth, chunk) in (0..).zip(&chunks) {
        assembly.put(nth, chunk).unwrap();
    }
    assembly.finish(&q).unwrap();
    let after = store.stats();
    assert_eq!((after.chunks, after.chunk_disk_bytes), (before.chunks, before.chunk_disk_bytes));
    // Each of the two keeps it by itself.
    let of_p: Vec<_> = store.held(|namespace| *namespace == p());
    store.release(&of_p).unwrap();
    assert_eq!(store.get(&q, &manifest.digest()).unwrap().unwrap().into_vec().unwrap(), blob);
    store.release(&store.held(|_| true)).unwrap();
    assert_eq!(store.stats().chunks, 0, "nobody counts on any");
}

#[test]
fn a_chunk_that_stands_twice_in_a_blob_comes_once_whoever_has_it() {
    let store = learnt();
    let part = noise(1, 4 << 20);
    let blob = [part.clone(), noise(2, 1 << 20), part.clone()].concat();
    store.put(&Namespace::trusted("q"), &part).unwrap();
    let (manifest, chunks) = outlined(&blob);
    let assembly = store.assemble_of(manifest.clone(), &store.alike_chunks(&[p()], &manifest).unwrap()).unwrap();
    let missing = assembly.missing();
    assert!(missing.len() + 20 < chunks.len(), "{} of {}", missing.len(), chunks.len());
    for nth in missing {
        assembly.put(nth, &chunks[nth as usize]).unwrap();
    }
    assembly.finish(&p()).unwrap();
    drop(assembly);
    store.release(&store.held(|namespace| *namespace != p())).unwrap();
    assert_eq!(store.get(&p(), &manifest.digest()).unwrap().unwrap().into_vec().unwrap(), blob);
    store.release(&store.held(|_| true)).unwrap();
    assert_eq!(store.stats().chunks, 0, "nobody counts on any");
}
