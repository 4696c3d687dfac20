//! Prints how fast blobs are cut and hashed here, and how much of a second version of an archive is new, for several lengths of
//! chunks. The figures in docs/design/029 come from it.
//!
//! ```text
//! cargo run --release -p windlass-cache --example chunk_ratios -- DIRECTORY [NEXT-VERSION]
//! ```
//! The archive is made in memory of the regular files below the directory, as `tar` would lay them out.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, reason = "a tool that prints figures")]

use std::collections::HashSet;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use windlass_cache::{Cutter, RealFs, Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

const ARCHIVE_MAX_BYTES: usize = 512 << 20;

fn main() {
    let roots: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let files: Vec<_> = roots.iter().map(|root| files(root)).collect();
    let first = archive(&files[0], "times of 2024", 0);
    println!("{} files\n", files[0].len());
    rates(&first);
    let shifted = [&[7; 512][..], &first].concat();
    share("512 bytes more in front", &first, &shifted);
    share("3% of the files replaced", &first, &archive(&files[0], "times of 2024", 33));
    if let Some(next) = files.get(1) {
        share("the next version", &first, &archive(next, "times of 2024", 0));
        share("the next version, all times new", &first, &archive(next, "times of 2025", 0));
    }
    stored(&first, &shifted);
    for next in files.get(1..).unwrap_or_default() {
        trees(&files[0], next);
    }
}

/// What of the next version crosses as a tree: files by their digests, large ones by their chunks. Its directories are not
/// counted: 50 bytes and a name for each entry of one in which something changed.
fn trees(first: &[(String, PathBuf)], second: &[(String, PathBuf)]) {
    let (mut known, mut all, mut new, mut whole) = (HashSet::new(), 0, 0, 0);
    let cutter = Cutter::new(128 << 10);
    for (is_second, (_, path)) in first.iter().map(|file| (false, file)).chain(second.iter().map(|file| (true, file))) {
        let bytes = std::fs::read(path).unwrap();
        let file_is_new = known.insert(Digest::of(&bytes));
        let blobs: Vec<&[u8]> = if bytes.len() > 64 << 10 { pieces(cutter, &bytes).collect() } else { vec![&bytes] };
        let is_one = blobs.len() == 1;
        let fresh: usize = blobs
            .iter()
            .filter(|blob| known.insert(Digest::of(blob)) || is_one && file_is_new)
            .map(|blob| blob.len())
            .sum();
        if is_second {
            all += bytes.len();
            whole += if file_is_new { bytes.len() } else { 0 };
            new += if file_is_new { fresh } else { 0 };
        }
    }
    println!(
        "| as trees: {} files, {} MB | {:.1}% in new files | {:.1}% in new chunks of them |",
        second.len(),
        all / 1_000_000,
        100.0 * whole as f64 / all as f64,
        100.0 * new as f64 / all as f64
    );
}

/// Regular files with their names below the directory, sorted.
fn files(root: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(path),
                Ok(kind) if kind.is_file() => {
                    found.push((path.strip_prefix(root).unwrap().display().to_string(), path));
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// A header of 512 bytes for each file, its bytes, and zeros up to the next 512. Every `nth` file is another one, a little
/// longer.
fn archive(files: &[(String, PathBuf)], times: &str, nth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, (name, path)) in files.iter().enumerate() {
        let Ok(mut bytes) = std::fs::read(path) else { continue };
        if nth > 0 && at % nth == nth / 2 {
            let other = Digest::of(&bytes).to_hex();
            bytes.splice(..0, other.bytes());
            bytes.iter_mut().step_by(50).for_each(|byte| *byte ^= 0x20);
        }
        let mut header = [0; 512];
        let text = format!("{name} {} {times}", bytes.len());
        let len = text.len().min(512);
        header[..len].copy_from_slice(&text.as_bytes()[..len]);
        out.extend_from_slice(&header);
        out.extend_from_slice(&bytes);
        out.resize(out.len().next_multiple_of(512), 0);
        if out.len() > ARCHIVE_MAX_BYTES {
            break;
        }
    }
    out
}

fn pieces(cutter: Cutter, mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (piece, rest) = bytes.split_at(cutter.first(bytes));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Megabytes a second, the best of three.
fn rate<T>(bytes: &[u8], mut work: impl FnMut() -> T) -> f64 {
    let mut once = || {
        let began = Instant::now();
        black_box(work());
        bytes.len() as f64 / 1e6 / began.elapsed().as_secs_f64()
    };
    (0..3).map(|_| once()).fold(0.0, f64::max)
}

fn rates(bytes: &[u8]) {
    println!("| {} MB, one thread | MB/s |\n| --- | --- |", bytes.len() / 1_000_000);
    println!("| BLAKE3 of the whole | {:.0} |", rate(bytes, || Digest::of(bytes)));
    for average in [64 << 10, 128 << 10, 256 << 10, 512 << 10] {
        let cutter = Cutter::new(average);
        println!("| cut at {} KiB | {:.0} |", average >> 10, rate(bytes, || pieces(cutter, bytes).count()));
    }
    let hashed = || pieces(Cutter::new(128 << 10), bytes).map(Digest::of).max();
    println!("| cut at 128 KiB, each chunk hashed | {:.0} |\n", rate(bytes, hashed));
}

fn share(what: &str, first: &[u8], second: &[u8]) {
    println!("| {what} | chunks | mean KiB | new bytes | new chunks |\n| --- | --- | --- | --- | --- |");
    for average in [64 << 10, 128 << 10, 256 << 10, 512 << 10] {
        let cutter = Cutter::new(average);
        let known: HashSet<Digest> = pieces(cutter, first).map(Digest::of).collect();
        let all = pieces(cutter, second).count();
        let new: Vec<usize> =
            pieces(cutter, second).filter(|piece| !known.contains(&Digest::of(piece))).map(<[u8]>::len).collect();
        let bytes: usize = new.iter().sum();
        println!(
            "| {} KiB | {all} | {:.0} | {:.2}% | {} |",
            average >> 10,
            second.len() as f64 / all as f64 / 1024.0,
            100.0 * bytes as f64 / second.len() as f64,
            new.len()
        );
    }
    println!();
}

/// Both into a store on this disk, and back.
fn stored(first: &[u8], second: &[u8]) {
    println!("| stored here | MB/s | MB on disk |\n| --- | --- | --- |");
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(RealFs), dir.path(), StoreOptions::default()).unwrap();
    let namespace = Namespace::trusted("p");
    let noise = {
        let mut out = vec![0; first.len().min(256 << 20)];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    };
    for (what, bytes) in
        [("put", first), ("put again", first), ("put shifted", second), ("put what does not compress", &noise)]
    {
        let before = store.stats().chunk_disk_bytes;
        let began = Instant::now();
        store.put(&namespace, bytes).unwrap();
        let took = began.elapsed().as_secs_f64();
        let disk = (store.stats().chunk_disk_bytes - before) as f64 / 1e6;
        println!("| {what} | {:.0} | {disk:.1} |", bytes.len() as f64 / 1e6 / took);
    }
    for (what, bytes) in [("get", first), ("get what did not compress", &noise)] {
        let blob = store.get(&namespace, &Digest::of(bytes)).unwrap().unwrap();
        let got = rate(bytes, || blob.copy_to(&mut |_| Ok(())).unwrap());
        println!("| {what} | {got:.0} | |");
    }
}
