//! Prints how fast trees are laid out and snapshot here, each figure beside its limit, measured in the same run. The figures
//! in docs/design/034 come from it.
//!
//! ```text
//! cargo run --release -p windlass-cache --example tree_speed -- [FILES [ROUNDS]]
//! ```
//! It works in a directory that it makes where it is called, and removes at the end.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, reason = "a tool that prints figures")]

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use windlass_cache::snapshot::Options;
use windlass_cache::{LayoutOptions, RealFs, Snapshot, Store, StoreOptions, layout, snapshot, wipe};
use windlass_protocol::{Digest, Namespace};

/// Files of one directory.
const FILES_A_DIRECTORY: usize = 16;

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|word| word.parse().unwrap()).collect();
    let files = numbers.first().copied().unwrap_or(20_000);
    let rounds = numbers.get(1).copied().unwrap_or(7);
    let dir = tempfile::tempdir_in(".").unwrap();
    let bench = Bench::new(dir.path(), files);
    println!("| {files} files, {} MB | median | limit | ratio | target |", bench.first.bytes / 1_000_000);
    println!("| --- | --- | --- | --- | --- |");
    bench.layout(rounds);
    bench.again(rounds);
    bench.wipes(rounds);
    wipe(dir.path()).unwrap();
}

struct Bench {
    dir: PathBuf,
    tree: PathBuf,
    store: Store,
    namespace: Namespace,
    options: Options,
    first: Snapshot,
}

impl Bench {
    fn new(dir: &Path, files: usize) -> Self {
        let dir = dir.canonicalize().unwrap();
        let tree = dir.join("tree");
        for n in 0..files {
            let folder = n / FILES_A_DIRECTORY;
            let folder = tree.join(format!("package-{}/lib/part-{}", folder / 8, folder % 8));
            if n % FILES_A_DIRECTORY == 0 {
                fs::create_dir_all(&folder).unwrap();
            }
            fs::write(folder.join(format!("some-module-{n}.js")), content(n)).unwrap();
        }
        let store = Store::open(Arc::new(RealFs), &dir.join("store"), StoreOptions::lazy(16 << 30)).unwrap();
        let options = Options { stat_cache: Some(dir.join("stat")), ..Options::default() };
        // What was written in this tick of the clock would be read again.
        std::thread::sleep(Duration::from_millis(100));
        let namespace = Namespace::trusted("p");
        let first = snapshot(&tree, &options).unwrap();
        first.source.store(&store, &namespace).unwrap();
        Self { dir, tree, store, namespace, options, first }
    }

    fn layout(&self, rounds: usize) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let root = self.first.root;
        for n in 0..rounds {
            let (to, copy) = (self.dir.join(format!("laid-{n}")), self.dir.join(format!("copy-{n}")));
            // Each goes first every other time; neither pays for what the other has left to be written.
            for is_ours in [n % 2 == 0, n % 2 != 0] {
                self.settle();
                if is_ours {
                    ours.push(timed(|| self.lay_out(&to)));
                } else {
                    theirs.push(timed(|| run(Command::new("cp").arg("-r").arg(&self.tree).arg(&copy))));
                }
            }
            if n == 0 {
                assert_eq!(snapshot(&to, &Options::default()).unwrap().root, root);
            }
        }
        row("layout / cp -r", (ours, theirs), 1.3);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for n in 0..rounds.min(3) {
            let (to, copy) = (self.dir.join(format!("cold-{n}")), self.dir.join(format!("cold-copy-{n}")));
            self.settle();
            forget(&self.dir.join("store"));
            ours.push(timed(|| self.lay_out(&to)));
            self.settle();
            forget(&self.tree);
            theirs.push(timed(|| run(Command::new("cp").arg("-r").arg(&self.tree).arg(&copy))));
        }
        row("layout / cp -r, from the disk", (ours, theirs), 1.3);
    }

    fn lay_out(&self, to: &Path) {
        layout(&self.store, &self.namespace, self.first.root, to, &LayoutOptions::default()).unwrap();
    }

    /// Returns when what was written here is on the disk.
    fn settle(&self) {
        rustix::fs::syncfs(fs::File::open(&self.dir).unwrap()).unwrap();
    }

    fn again(&self, rounds: usize) {
        let (mut unchanged, mut changed, mut stats) = (Vec::new(), Vec::new(), Vec::new());
        let known = self.first.source.digests();
        let mut sent = 0;
        for n in 0..rounds {
            stats.push(timed(|| stat_walk(&self.tree)));
            unchanged.push(timed(|| assert_eq!(snapshot(&self.tree, &self.options).unwrap().hashed, n.min(1))));
            let one = self.tree.join("package-1/lib/part-1").join(format!("some-module-{}.js", 9 * FILES_A_DIRECTORY));
            fs::write(one, format!("another {n}")).unwrap();
            let mut taken = None;
            changed.push(timed(|| taken = Some(snapshot(&self.tree, &self.options).unwrap())));
            let taken = taken.unwrap();
            assert!(taken.hashed >= 1 && taken.hashed <= 2, "{}", taken.hashed);
            let all = taken.source.digests();
            sent = all.iter().filter(|blob| known.binary_search(blob).is_err()).map(|(_, len)| *len).sum::<u64>();
            std::thread::sleep(Duration::from_millis(100));
        }
        row("snapshot, nothing changed / parallel stat walk", (unchanged, stats.clone()), 2.0);
        row("snapshot, one file changed / parallel stat walk", (changed, stats), 2.0);
        println!("| bytes to send of it, its directories with it | {sent} | 262144 | | |");
    }

    fn wipes(&self, rounds: usize) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for n in 0..rounds {
            self.settle();
            ours.push(timed(|| wipe(&self.dir.join(format!("laid-{n}"))).unwrap()));
            self.settle();
            theirs.push(timed(|| run(Command::new("rm").arg("-rf").arg(self.dir.join(format!("copy-{n}"))))));
        }
        row("wipe / rm -rf", (ours, theirs), 1.0);
    }
}

/// Bytes of the `n`th file: mostly some kilobytes, sometimes more, as in packages of source.
fn content(n: usize) -> Vec<u8> {
    let seed = Digest::of(&n.to_le_bytes());
    let [a, b, c, ..] = seed.as_bytes();
    let length = match a {
        0..200 => 200 + usize::from(*b) * 24,
        200..250 => 6_000 + usize::from(*b) * 64,
        250.. => 20_000 + usize::from(*b) * 400,
    } + usize::from(*c);
    let mut out = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut out);
    out.iter_mut().for_each(|byte| *byte = b' ' + (*byte & 63));
    out
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    std::hint::black_box(work());
    began.elapsed()
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success());
}

fn row(what: &str, (mut ours, mut limit): (Vec<Duration>, Vec<Duration>), target: f64) {
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    let least = ours.iter().min().unwrap().as_secs_f64() / limit.iter().min().unwrap().as_secs_f64();
    let (ours, limit) = (median(&mut ours), median(&mut limit));
    println!("| {what} | {ours:.1} ms | {limit:.1} ms | {:.2} (best of each: {least:.2}) | {target} |", ours / limit);
}

/// Takes the files below out of the page cache.
fn forget(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            forget(&entry.path());
        } else if let Ok(file) = fs::File::open(entry.path()) {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

/// The limit of any snapshot: every name below is looked at once, on as many threads as there are cores.
fn stat_walk(root: &Path) -> usize {
    let open = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, root, open, Mode::empty()).unwrap();
    // Directories that wait, how many are being read, and how many names were seen.
    let state = Mutex::new((vec![top], 0_usize, 0_usize));
    let more = Condvar::new();
    let walk = || loop {
        let mut waiting = state.lock().unwrap();
        let dir: OwnedFd = loop {
            match waiting.0.pop() {
                Some(dir) => break dir,
                None if waiting.1 == 0 => return,
                None => waiting = more.wait(waiting).unwrap(),
            }
        };
        waiting.1 += 1;
        drop(waiting);
        let (mut found, mut seen) = (Vec::new(), 0);
        for entry in Dir::read_from(&dir).unwrap().flatten() {
            let name: CString = entry.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            seen += 1;
            let stat = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                found.push(rustix::fs::openat(&dir, &name, open, Mode::empty()).unwrap());
            }
        }
        let mut waiting = state.lock().unwrap();
        waiting.0.append(&mut found);
        waiting.1 -= 1;
        waiting.2 += seen;
        more.notify_all();
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(walk);
        }
    });
    state.into_inner().unwrap().2
}
