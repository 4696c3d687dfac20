//! Large blobs that are put together from chunks which come in any order.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{ChunkManifest, Error, Rejected, Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

use crate::chunks::noise;

fn on(fs: &RecordingFs) -> Store {
    let options = StoreOptions { chunk_bytes: 16 << 10, ..StoreOptions::default() };
    Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap()
}

fn p() -> Namespace {
    Namespace::trusted("p")
}

/// A blob, with its manifest and its chunks.
fn origin(blob: &[u8]) -> (ChunkManifest, Vec<Vec<u8>>) {
    let store = on(&RecordingFs::new());
    let digest = store.put(&p(), blob).unwrap();
    let stored = store.get(&p(), &digest).unwrap().unwrap();
    let manifest = stored.manifest().unwrap().clone();
    let chunks: Vec<_> = (0..manifest.chunks().len()).map(|nth| stored.chunk(nth).unwrap().unwrap()).collect();
    assert_eq!(stored.chunk(chunks.len()).unwrap(), None);
    assert_eq!(chunks.concat(), blob);
    (manifest, chunks)
}

/// A manifest that is well formed, and names chunks that do not make its blob.
fn lying(manifest: &ChunkManifest) -> ChunkManifest {
    let mut bytes = manifest.encode();
    bytes[8] ^= 1;
    let body = bytes.len() - 32;
    let check = Digest::of(&bytes[..body]);
    bytes[body..].copy_from_slice(check.as_bytes());
    ChunkManifest::decode(&bytes).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whoever_reads_chunks_meanwhile_the_blob_is_stored_if_all_its_bytes_in_their_order_make_it_and_else_not(
        places in proptest::collection::vec(any::<prop::sample::Index>(), 40),
        reads in proptest::collection::vec(any::<prop::sample::Index>(), 0..80),
        in_order in any::<bool>(),
        lies in any::<bool>(),
    ) {
        let blob = noise(7, 200_000);
        let (manifest, chunks) = origin(&blob);
        let count = u32::try_from(chunks.len()).unwrap();
        let place = |index: &prop::sample::Index| u32::try_from(index.index(chunks.len())).unwrap();
        let store = on(&RecordingFs::new());
        let assembly = store.assemble(if lies { lying(&manifest) } else { manifest }).unwrap();
        let mut reads = reads.iter().map(place);
        for nth in places.iter().map(place).chain(0..count) {
            assembly.put(nth, &chunks[nth as usize]).unwrap();
            for read in reads.by_ref().take(2) {
                let got = assembly.chunk(read).unwrap();
                prop_assert!(got.is_none_or(|got| got == chunks[read as usize]));
            }
        }
        if in_order {
            for nth in 0..count {
                assembly.chunk(nth).unwrap();
            }
        }
        let finished = assembly.finish(&p());
        prop_assert_eq!(finished.is_ok(), !lies, "{:?}", finished);
        let got = store.get(&p(), &Digest::of(&blob)).unwrap();
        prop_assert_eq!(got.map(|got| got.into_vec().unwrap()), (!lies).then_some(blob));
    }
}

#[test]
fn a_blob_is_put_together_from_its_chunks_in_any_order_and_outlives_a_restart() {
    let blob = noise(7, 400_000);
    let (manifest, chunks) = origin(&blob);
    let fs = RecordingFs::new();
    let store = on(&fs);
    let assembly = store.assemble(manifest.clone()).unwrap();
    assert_eq!(assembly.missing().len(), chunks.len());
    assert_eq!(assembly.missing_bytes(), 400_000);
    for (nth, chunk) in (0..).zip(&chunks).collect::<Vec<(u32, _)>>().into_iter().rev() {
        assert_eq!(assembly.chunk(nth).unwrap(), None, "it has not come");
        assembly.put(nth, chunk).unwrap();
        assembly.put(nth, chunk).unwrap();
        assert_eq!(assembly.chunk(nth).unwrap().as_ref(), Some(chunk), "it can be handed on at once");
        assert!(assembly.has(nth));
    }
    assert_eq!((assembly.missing(), assembly.missing_bytes()), (vec![], 0));
    assert!(!store.contains(&p(), &manifest.digest()), "not before its end");
    assert_eq!(assembly.finish(&p()).unwrap(), Digest::of(&blob));
    drop((assembly, store));
    let store = on(&fs);
    assert_eq!(store.get(&p(), &manifest.digest()).unwrap().unwrap().into_vec().unwrap(), blob);
    assert!(!store.contains(&Namespace::trusted("q"), &manifest.digest()), "it is seen where it was brought alone");
}

#[test]
fn chunks_that_are_stored_need_not_come_and_one_that_was_given_up_leaves_nothing() {
    let blob = noise(7, 400_000);
    let newer = [noise(8, 50), blob.clone()].concat();
    let fs = RecordingFs::new();
    let store = on(&fs);
    let first = store.put(&p(), &blob).unwrap();
    let before = store.stats();
    let (manifest, chunks) = origin(&newer);
    let assembly = store.assemble(manifest.clone()).unwrap();
    let missing = assembly.missing();
    assert!(missing.len() < 4 && !missing.is_empty(), "{missing:?}");
    for nth in &missing {
        assembly.put(*nth, &chunks[*nth as usize]).unwrap();
    }
    drop(assembly);
    assert_eq!(store.stats(), before);
    let held = store.assemble(manifest).unwrap();
    let of_first: Vec<_> = store.held(|_| true).into_iter().filter(|held| held.digest == first).collect();
    store.release(&of_first).unwrap();
    assert_eq!(held.missing(), missing, "what it counts on stays");
    for nth in missing {
        held.put(nth, &chunks[nth as usize]).unwrap();
    }
    held.finish(&p()).unwrap();
    assert_eq!(store.get(&p(), &Digest::of(&newer)).unwrap().unwrap().into_vec().unwrap(), newer);
    assert_eq!(store.stats().chunk_bytes, newer.len() as u64, "what only the other had is gone");
}

#[test]
fn wrong_chunks_and_wrong_manifests_are_refused() {
    let (manifest, chunks) = origin(&noise(7, 200_000));
    let store = on(&RecordingFs::new());
    let assembly = store.assemble(manifest.clone()).unwrap();
    let refused = |error| matches!(error, Err(Error::Rejected(Rejected::WrongDigest { .. })));
    assert!(refused(assembly.put(0, &chunks[1])), "another chunk");
    assert!(refused(assembly.put(u32::MAX, &chunks[0])), "a place that is not there");
    assert!(refused(assembly.put(0, &[])));
    assembly.put(0, &chunks[0]).unwrap();
    let lacking = assembly.finish(&p());
    assert!(
        matches!(lacking, Err(Error::Rejected(Rejected::Missing { digests })) if digests.len() == chunks.len() - 1)
    );

    let lying = lying(&manifest);
    let wrong = lying.digest();
    let assembly = store.assemble(lying).unwrap();
    for (nth, chunk) in (0..).zip(&chunks) {
        assembly.put(nth, chunk).unwrap();
    }
    assert!(refused(assembly.finish(&p()).map(drop)));
    assert!(!store.contains(&p(), &wrong));
    drop(assembly);
    assert_eq!(store.stats().chunks, 0);
}

#[test]
fn a_blob_that_another_namespace_has_is_seen_by_one_more_and_no_chunk_comes() {
    let blob = noise(7, 200_000);
    let (manifest, _) = origin(&blob);
    let store = on(&RecordingFs::new());
    store.put(&p(), &blob).unwrap();
    let assembly = store.assemble(manifest.clone()).unwrap();
    assert!(assembly.missing().is_empty());
    let q = Namespace::trusted("q");
    assembly.finish(&q).unwrap();
    assert_eq!(store.get(&q, &manifest.digest()).unwrap().unwrap().into_vec().unwrap(), blob);
}
