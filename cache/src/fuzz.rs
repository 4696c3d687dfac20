//! Fuzz entries for every decoder of bytes that others wrote, or a disk kept.
//!
//! An entry takes any bytes and says whether they decode. It must not panic, whatever they are; where they decode, it asserts
//! that what came out is no more than the bytes carry, and that there is one encoding of it.

use std::collections::BTreeMap;
use std::convert::Infallible;

use windlass_protocol::fuzz::Entry;

use crate::chunk::listing::Listing;
use crate::chunk::manifest::ChunkManifest;
use crate::chunk::tar::{Lane, Part, Splitter};
use crate::copy::{self, read::Found};
use crate::error::BadPack;
use crate::index::ROW_BYTES;
use crate::pack::Decoder;
use crate::segment::{self, Check};
use crate::tree::Directory;
use crate::upload::journal::Journal;
use crate::vfs::Vfs as _;
use crate::vfs::recorded::RecordingFs;

/// Segments that there are for a copy of a table.
const FUZZED_SEGMENTS: u32 = 1;

/// All entries.
pub const ENTRIES: &[Entry] = &[
    ("manifest", manifest),
    ("listing", listing),
    ("segment", segment),
    ("pack", pack),
    ("directory", directory),
    ("journal", journal),
    ("table", table),
    ("table_blocks", table_blocks),
    ("archive", archive),
];

/// Which chunks a blob is made of.
pub fn manifest(bytes: &[u8]) -> bool {
    let Ok(manifest) = ChunkManifest::decode(bytes) else { return false };
    assert!(manifest.encode() == bytes, "a manifest has one encoding");
    let mut end = 0;
    for chunk in manifest.chunks() {
        assert!(chunk.end > end, "chunks follow one another");
        end = chunk.end;
    }
    assert!(manifest.blob_bytes() == end, "they are the blob");
    // Its spans are the blob, and each chunk once.
    let (mut at, mut read) = (0, vec![0; manifest.chunks().len()]);
    while let Some(span) = manifest.span(at) {
        assert!(span.bytes > 0 && read.get(span.nth) == Some(&span.at), "bytes of a chunk come in order");
        if let Some(read) = read.get_mut(span.nth) {
            *read += span.bytes;
        }
        at += span.bytes as u64;
    }
    assert!(at == end, "no byte is left out");
    let lengths = (0..read.len()).map(|nth| manifest.chunk_bytes(nth).unwrap_or_default());
    assert!(lengths.eq(read.iter().copied()), "all of each chunk is read");
    true
}

/// What a chunk file holds.
pub fn listing(bytes: &[u8]) -> bool {
    let Some(listing) = Listing::decode(bytes) else { return false };
    assert!(listing.encode() == bytes, "a listing has one encoding");
    let mut end = 0;
    for (_, place) in &listing.chunks {
        assert!(place.offset >= end, "chunks do not overlap");
        end = place.offset + u64::from(place.stored_bytes);
    }
    assert!(end <= listing.file_bytes, "no chunk reaches past its file");
    true
}

/// A segment, each record and what is between them.
pub fn segment(bytes: &[u8]) -> bool {
    let path = std::path::Path::new("/segment");
    let fs = RecordingFs::new();
    let Ok(file) = fs.create(path) else { return false };
    if file.write_at(0, bytes).is_err() {
        return false;
    }
    let Ok(Some(salt)) = segment::read_salt(&*file) else { return false };
    let mut records = 0;
    for check in [Check::Headers, Check::Everything] {
        let Ok(scanned) = segment::scan(&*file, &salt, check, &mut |_| records += 1) else { return false };
        assert!(scanned.end.max(bytes.len() as u64) == bytes.len() as u64 || records == 0, "within its bytes");
    }
    records > 0
}

/// Many blobs in one body, in pieces whose size comes from the bytes.
pub fn pack(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::default();
    let mut out = 0;
    for piece in bytes.chunks(bytes.first().map_or(1, |first| usize::from(*first) + 1)) {
        let taken = decoder.push::<BadPack>(piece, &mut |event| {
            if let crate::pack::Event::Bytes(bytes) = event {
                out += bytes.len();
            }
            Ok(())
        });
        if taken.is_err() {
            return false;
        }
    }
    assert!(out <= bytes.len(), "blobs hold no more than their pack");
    decoder.finish().is_ok()
}

/// What an upload that waits has noted.
pub fn journal(bytes: &[u8]) -> bool {
    let Some(journal) = Journal::decode(bytes) else { return false };
    assert!(journal.end <= bytes.len() as u64, "it ends within its bytes");
    assert!(journal.chunks.len() * 48 <= bytes.len(), "it notes no more than its bytes hold");
    let whole = bytes.get(..usize::try_from(journal.end).unwrap_or_default()).unwrap_or_default();
    assert!(Journal::decode(whole).as_ref() == Some(&journal), "what follows its end says nothing");
    true
}

/// A copy of a store's table: of which segments it is does not matter here.
pub fn table(bytes: &[u8]) -> bool {
    copied(bytes, false)
}

/// The same with all its hashes made right again, so that what the blocks hold is read.
pub fn table_blocks(bytes: &[u8]) -> bool {
    copied(bytes, true)
}

fn copied(bytes: &[u8], sealed: bool) -> bool {
    let fs = RecordingFs::new();
    let Ok(file) = fs.create(std::path::Path::new("/table")) else { return false };
    let bytes = if sealed { copy::sealed(bytes) } else { bytes.to_vec() };
    if file.write_at(0, &bytes).is_err() {
        return false;
    }
    let segments: Vec<u32> = (0..FUZZED_SEGMENTS).collect();
    let (large, chunk_files) = (BTreeMap::new(), BTreeMap::new());
    let found = Found { segments: &segments, large: &large, chunk_files: &chunk_files };
    let Ok(Some(loaded)) = copy::read::read(&*file, found) else { return false };
    let (blobs, ..) = loaded.index.totals();
    assert!(blobs * ROW_BYTES <= bytes.len(), "no more rows than there are bytes for");
    assert!(loaded.index.iter().all(|entry| !entry.seen_by().is_empty()), "somebody sees each blob");
    true
}

/// A blob that may be an archive, told apart at once and in pieces whose size comes from the bytes.
pub fn archive(bytes: &[u8]) -> bool {
    let told = |piece: usize| {
        let (mut runs, mut seen): (Vec<(Lane, usize)>, Vec<u8>) = (Vec::new(), Vec::new());
        let mut splitter = Splitter::default();
        let mut tell = |part: Part<'_>| {
            if let Part::Bytes(lane, bytes) = part {
                seen.extend_from_slice(bytes);
                match runs.last_mut().filter(|(last, _)| *last == lane) {
                    Some((_, sum)) => *sum += bytes.len(),
                    None => runs.push((lane, bytes.len())),
                }
            }
            Ok::<(), Infallible>(())
        };
        for piece in bytes.chunks(piece) {
            let Ok(()) = splitter.push(piece, &mut tell);
        }
        let Ok(()) = splitter.finish(&mut tell);
        assert!(seen == bytes, "every byte is told once, in order");
        runs
    };
    let runs = told(usize::MAX);
    assert!(told(bytes.first().map_or(1, |first| usize::from(*first) + 1)) == runs, "however they come");
    runs.len() > 1
}

/// A directory of a tree.
pub fn directory(bytes: &[u8]) -> bool {
    let Ok(directory) = Directory::decode(bytes) else { return false };
    assert!(directory.encode() == bytes, "a directory has one encoding");
    true
}
