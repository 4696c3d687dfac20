//! A process that is killed at any moment of puts, gets, letting go, eviction, compaction, checks and uploads in pieces: what it
//! acknowledged is there and right for the next one, every time (I5).
//!
//! The process is this very test, started again with [`CHILD`] set. `STORE_ROUNDS` makes it hundreds of rounds:
//! `STORE_ROUNDS=300 ./test killed` (and `STORE_SEED` another story).

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use windlass_cache::{About, Partials, RealFs, Store, StoreOptions};
use windlass_protocol::{Digest, Namespace, WallMs};

use crate::chunks::noise;

/// Where the child works, and as which of both stores.
const CHILD: &str = "WINDLASS_KILLED_IN";
const SEED: &str = "WINDLASS_KILLED_SEED";

const ROUNDS: u64 = 6;

/// What the lazy store may take: so little that it evicts all the time.
const CAPACITY_BYTES: u64 = 4 << 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Durable,
    Lazy,
}

impl Kind {
    fn open(self, dir: &Path) -> Store {
        let options = match self {
            Self::Durable => StoreOptions { segment_bytes: 100_000, ..StoreOptions::default() },
            Self::Lazy => StoreOptions::lazy(CAPACITY_BYTES),
        };
        let options = StoreOptions { chunk_bytes: 16 << 10, floor_bytes: 0, ..options };
        Store::open(Arc::new(RealFs), dir, options).unwrap()
    }
}

fn p() -> Namespace {
    Namespace::trusted("p")
}

/// A blob by its number: most are small; large ones share their beginnings, so that chunks are held by many.
fn blob(n: u64) -> Vec<u8> {
    let seed = usize::try_from(n).unwrap();
    match n % 8 {
        0 => [noise(seed % 5, 90_000), noise(seed, 40_000)].concat(),
        1 => noise(seed, 60_000),
        _ => noise(seed, 200 + seed % 7_000),
    }
}

/// Xorshift (Marsaglia), for what is done next.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below.max(1)
    }
}

/// What the child tells: a line each, which outlives it in the kernel's memory.
struct Told(Mutex<fs::File>);

impl Told {
    fn say(&self, what: &str, n: u64) {
        // One write: whole, or not there.
        self.0.lock().unwrap().write_all(format!("{what} {n}\n").as_bytes()).unwrap();
    }
}

/// Works until it is killed.
fn work(dir: &Path, kind: Kind, seed: u64) {
    let store = kind.open(&dir.join("store"));
    let told = Told(Mutex::new(OpenOptions::new().append(true).create(true).open(dir.join("told")).unwrap()));
    let next = AtomicU64::new(seed * 1_000_000);
    told.say("begun", 0);
    std::thread::scope(|scope| {
        for nth in 0..3 {
            let (store, told, next) = (&store, &told, &next);
            scope.spawn(move || puts(store, told, (next, Dice(seed * 10 + nth + 1))));
        }
        scope.spawn(|| uploads(&store, &told, seed));
        scope.spawn(|| again_and_again(|| assert!(store.compact(50_000).is_ok())));
        scope.spawn(|| again_and_again(|| assert_eq!(store.verify().unwrap().damaged, [])));
        if kind == Kind::Durable {
            scope.spawn(|| lets_go(&store, &told));
        }
    });
}

/// With a pause between, so that those who put come to something on two cores.
fn again_and_again(what: impl Fn()) {
    loop {
        what();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Puts blobs, and reads one of those before each.
fn puts(store: &Store, told: &Told, (next, mut dice): (&AtomicU64, Dice)) {
    let mut known = Vec::new();
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let bytes = blob(n);
        let digest = store.put(&p(), &bytes).unwrap();
        told.say("put", n);
        known.push((n, digest));
        let at = usize::try_from(dice.next(known.len() as u64)).unwrap();
        let (n, digest) = known[at];
        if let Some(found) = store.get(&p(), &digest).unwrap() {
            // One that goes meanwhile may be gone: never another.
            if let Ok(found) = found.into_vec() {
                assert!(found == blob(n), "blob {n} is another");
            }
        }
    }
}

/// A blob's name, as far as an account needs it.
fn name(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Lets go of some blobs, and says so before.
fn lets_go(store: &Store, told: &Told) {
    loop {
        let held = store.held(|namespace| *namespace == p());
        let going: Vec<_> = held.into_iter().filter(|held| name(&held.digest).is_multiple_of(4)).take(8).collect();
        for held in &going {
            told.say("leaving", name(&held.digest));
        }
        store.release(&going).unwrap();
    }
}

/// Uploads in pieces, which are dropped and gone on with.
fn uploads(store: &Store, told: &Told, seed: u64) {
    let partials = Partials::open(store, WallMs(1)).unwrap();
    let mut n = seed * 1_000_000 + 500_000;
    loop {
        // Of the large kind.
        n += 8;
        let bytes = [blob(n - n % 8), noise(usize::try_from(n).unwrap(), 100_000)].concat();
        let about =
            About { owner: "me".to_owned(), namespace: p(), digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
        let id = partials.begin(about, WallMs(2)).unwrap().id;
        loop {
            let mut partial = partials.take("me", &id, WallMs(3)).unwrap().unwrap();
            let from = usize::try_from(partial.offset()).unwrap();
            let end = (from + 70_000).min(bytes.len());
            partial.write(&bytes[from..end], WallMs(4)).unwrap();
            if end == bytes.len() {
                partial.finish().unwrap();
                told.say("uploaded", n);
                break;
            }
        }
    }
}

/// What the child has said, as far as lines are whole.
fn said(dir: &Path) -> Vec<(String, u64)> {
    let text = fs::read_to_string(dir.join("told")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line = |line: &str| line.split_once(' ').map(|(what, n)| (what.to_owned(), n.parse().unwrap()));
    whole.lines().filter_map(line).collect()
}

/// What was acknowledged is there and right, as far as it was not to go.
fn check(store: &Store, dir: &Path, kind: Kind, story: &str) -> usize {
    let said = said(dir);
    let leaving: BTreeSet<u64> = said.iter().filter(|(what, _)| what == "leaving").map(|(_, name)| *name).collect();
    let mut there = 0;
    for (what, n) in &said {
        let bytes = match what.as_str() {
            "put" => blob(*n),
            "uploaded" => [blob(n - n % 8), noise(usize::try_from(*n).unwrap(), 100_000)].concat(),
            _ => continue,
        };
        let digest = Digest::of(&bytes);
        let may_be_gone = kind == Kind::Lazy || leaving.contains(&name(&digest));
        match store.get(&p(), &digest).unwrap() {
            Some(found) => {
                assert!(found.into_vec().unwrap() == bytes, "{story}: blob {n} is another");
                there += 1;
            }
            None => assert!(may_be_gone, "{story}: blob {n} was acknowledged"),
        }
    }
    there
}

fn rounds(kind: Kind, test: &str) {
    if let Ok(dir) = std::env::var(CHILD) {
        return work(Path::new(&dir), kind, number(SEED).unwrap());
    }
    let (rounds, seed) = (number("STORE_ROUNDS").unwrap_or(ROUNDS), number("STORE_SEED").unwrap_or(41));
    let dir = tempfile::tempdir().unwrap();
    let (mut dice, mut there) = (Dice(seed), 0);
    for round in 0..rounds {
        let story = format!("round {round} of seed {seed}");
        // What was let go may be put again, and is another matter then: each round has its own account.
        let _ = fs::remove_file(dir.path().join("told"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([&format!("killed::{test}"), "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .env(SEED, (seed * 1_000 + round).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // After so much was done, and a moment more: however slow the machine is, there is something to lose.
        let enough = usize::try_from(4 + dice.next(60)).unwrap();
        while said(dir.path()).len() < enough {
            assert!(child.try_wait().unwrap().is_none(), "{story}: it ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(dice.next(5_000)));
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(ended.is_none(), "{story}: {}", String::from_utf8_lossy(&output.stderr));
        let store = kind.open(&dir.path().join("store"));
        let partials = Partials::open(&store, WallMs(5)).unwrap();
        there += check(&store, dir.path(), kind, &story);
        let report = store.verify().unwrap();
        assert!(report.complete && report.damaged.is_empty(), "{story}: {report:?}");
        assert_eq!(report.damaged_bytes, 0, "{story}");
        for entry in fs::read_dir(dir.path().join("store/chunks")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with("tmp-"), "{story}: {name} was left behind");
            let id = name.strip_prefix("part-");
            assert!(id.is_none_or(|id| partials.exists(id)), "{story}: {name} is nobody's");
        }
    }
    assert!(there as u64 > 5 * rounds, "only {there} blobs in {rounds} rounds: too few to lose one");
}

#[test]
fn a_durable_store_has_what_a_killed_process_acknowledged() {
    rounds(Kind::Durable, "a_durable_store_has_what_a_killed_process_acknowledged");
}

#[test]
fn a_lazy_store_that_evicts_has_nothing_that_is_wrong_after_a_kill() {
    rounds(Kind::Lazy, "a_lazy_store_that_evicts_has_nothing_that_is_wrong_after_a_kill");
}
