//! Letting go by policy, promises, and the cap of a lazy store that keeps them; time passes by hand.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use proptest::prelude::*;
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::vfs::{DirItem, Held};
use windlass_cache::{
    Directory, Entry, Error, Fault, Node, Policy, RealFs, Roots, Space, Store, StoreOptions, Sweep, Swept, Vfs,
    VfsFile, WhyGone,
};
use windlass_protocol::limits::{EPOCH_MS, PROMISE_LAZY_MS, PROMISE_MS, SWEEP_RELEASE_MAX};
use windlass_protocol::{Digest, Namespace, WallMs};

use crate::chunks::noise;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

fn open(fs: &RecordingFs) -> Store {
    Store::open(Arc::new(fs.clone()), Path::new("/s"), StoreOptions::default()).unwrap()
}

fn p() -> Namespace {
    Namespace::trusted("p")
}

/// Time passes, and is seen to.
fn pass(store: &Store, fs: &RecordingFs, ms: u64) {
    fs.pass_ms(EPOCH_MS);
    store.note_epoch();
    fs.pass_ms(ms);
    store.note_epoch();
}

/// All of a sweep, by namespace and cause.
fn sweep(
    store: &Store,
    dry: bool,
    policy: impl Fn(&Namespace) -> Option<Policy>,
) -> BTreeMap<(Namespace, WhyGone), Swept> {
    let mut sweep = store.begin_sweep(WallMs(5), dry, policy);
    finish(store, &mut sweep)
}

fn finish(store: &Store, sweep: &mut Sweep) -> BTreeMap<(Namespace, WhyGone), Swept> {
    while store.sweep(sweep).unwrap() {}
    sweep.counts().swept.iter().map(|(key, swept)| (key.clone(), *swept)).collect()
}

fn of_age(max_age_ms: u64) -> impl Fn(&Namespace) -> Option<Policy> {
    move |_| Some(Policy { max_bytes: None, max_age_ms: Some(max_age_ms) })
}

fn of_bytes(max_bytes: u64) -> impl Fn(&Namespace) -> Option<Policy> {
    move |_| Some(Policy { max_bytes: Some(max_bytes), max_age_ms: None })
}

#[test]
fn what_nobody_used_for_long_goes_and_says_when_it_went_and_why() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let [old, used, large, shared] =
        [&b"old"[..], b"used", &noise(1, 200_000), b"shared"].map(|bytes| store.put(&p(), bytes).unwrap());
    let other = Namespace::overlay("q", "pr:1");
    store.grant(&other, &[shared]).unwrap();
    pass(&store, &fs, 10 * DAY);
    assert!(store.get(&p(), &used).unwrap().is_some());
    let young = store.put(&p(), b"young").unwrap();
    pass(&store, &fs, 2 * HOUR);
    let only_p =
        |namespace: &Namespace| (*namespace == p()).then_some(Policy { max_bytes: None, max_age_ms: Some(DAY) });
    let would = sweep(&store, true, only_p);
    assert!(store.contains(&Namespace::trusted("p"), &young) && store.stats().blobs == 5, "it only looked");
    let went = sweep(&store, false, only_p);
    assert_eq!(went, would);
    let swept = Swept { blobs: 3, bytes: 200_009, gone_blobs: 2, gone_bytes: 200_003 };
    assert_eq!(went, BTreeMap::from([((p(), WhyGone::Age), swept)]));
    let there = |digest| store.contains(&p(), digest);
    assert_eq!([&old, &used, &large, &shared, &young].map(there), [false, true, false, false, true]);
    assert!(store.contains(&other, &shared), "another's policy says nothing");
    let again = open(&RecordingFs::on(&fs.live_image()));
    for store in [store, again] {
        assert_eq!(store.gone(&p(), &old), Some((WhyGone::Age, WallMs(5))));
        assert_eq!(store.gone(&Namespace::overlay("p", "x"), &old), Some((WhyGone::Age, WallMs(5))), "who had read it");
        assert_eq!((store.gone(&other, &old), store.gone(&p(), &used)), (None, None));
        store.put(&p(), b"old").unwrap();
        assert_eq!(store.gone(&p(), &old), None, "it came again");
        sweep(&store, false, only_p);
        assert!(store.contains(&p(), &old));
        store.release(&store.held(|_| true).into_iter().filter(|held| held.digest == old).collect::<Vec<_>>()).unwrap();
    }
}

#[test]
fn beyond_its_bytes_a_namespace_loses_what_it_used_longest_ago_and_nobody_else_does() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let blobs: Vec<Digest> = (0..100).map(|n| store.put(&p(), &noise(n, 1_000)).unwrap()).collect();
    let small = Namespace::trusted("small");
    let kept = store.put(&small, &noise(1_000, 1_000)).unwrap();
    // The first ten are used again: the eleventh is the oldest.
    assert_eq!(store.missing(&p(), &blobs[..10]), []);
    pass(&store, &fs, PROMISE_MS + 1);
    store.put(&p(), b"new").unwrap();
    pass(&store, &fs, PROMISE_MS + 1);
    assert_eq!(sweep(&store, false, of_bytes(200_000)), BTreeMap::new());
    let went = sweep(&store, false, of_bytes(50_000));
    let swept = went[&(p(), WhyGone::Size)];
    assert_eq!(went.len(), 1);
    let left = store.usage(&p()).bytes;
    assert!((44_000..=45_000).contains(&left), "a tenth below: {left}, {swept:?}");
    let there: Vec<bool> = blobs.iter().map(|digest| store.blob_len(&p(), digest).is_some()).collect();
    assert!(there[..10].iter().all(|there| *there), "those that were used last");
    assert!(there[10..].is_sorted(), "the oldest went first: {there:?}");
    assert!(store.contains(&small, &kept));
}

#[test]
fn what_was_promised_is_marked_or_pinned_stays_and_so_does_what_is_used_while_the_sweep_runs() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let blobs: Vec<Digest> = (0..9).map(|n| store.put(&p(), &noise(n, 300)).unwrap()).collect();
    let [missing, contains, put, grant, get, promised, pinned, meanwhile, forgotten] = blobs[..] else { panic!() };
    pass(&store, &fs, DAY);
    assert_eq!(store.missing(&p(), &[missing]), []);
    assert!(store.contains(&p(), &contains));
    store.put(&p(), &noise(2, 300)).unwrap();
    store.grant(&p(), &[grant]).unwrap();
    drop(store.get(&p(), &get).unwrap());
    assert_eq!(store.promise(&[promised, Digest::of(b"absent")]), 1);
    let pins = store.pin(&[pinned]);
    fs.pass_ms(PROMISE_MS - 1);
    let mut begun = store.begin_sweep(WallMs(1), false, |_| Some(Policy { max_bytes: Some(0), max_age_ms: Some(0) }));
    store.promise(&[meanwhile]);
    finish(&store, &mut begun);
    for digest in [missing, contains, put, grant, get, promised, pinned, meanwhile] {
        assert!(store.blob_len(&p(), &digest).is_some(), "{:?}", blobs.iter().position(|blob| *blob == digest));
    }
    assert_eq!((store.blob_len(&p(), &forgotten), begun.counts().spared.pinned), (None, 1));
    drop(pins);
    pass(&store, &fs, 2 * PROMISE_MS);
    sweep(&store, false, of_age(0));
    assert_eq!(store.stats().blobs, 0, "a promise ends");
}

#[test]
fn after_a_start_everything_counts_as_used_just_now() {
    let fs = RecordingFs::new();
    let digest = open(&fs).put(&p(), b"old").unwrap();
    fs.pass_ms(30 * DAY);
    let store = open(&fs);
    fs.pass_ms(PROMISE_MS - 1);
    assert_eq!(sweep(&store, false, of_bytes(0)), BTreeMap::new(), "somebody may have been told before");
    fs.pass_ms(2);
    assert_eq!(sweep(&store, false, of_age(DAY)), BTreeMap::new());
    assert_eq!(sweep(&store, false, of_bytes(0)).len(), 1);
    assert_eq!(store.blob_len(&p(), &digest), None);
}

#[test]
fn a_tree_that_live_work_names_stays_whole_for_however_long() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let file = |name: &[u8], digest, len| Entry { name: name.to_vec(), node: Node::File { digest, len, mode: 0o644 } };
    let digest = |bytes: &[u8]| store.put(&p(), bytes).unwrap();
    let (deep, top, other) = (digest(b"deep"), digest(b"top"), digest(b"other"));
    let below = Directory::new(vec![file(b"f", deep, 4)]).unwrap();
    let below = digest(&below.encode());
    let entry = Entry { name: b"d".to_vec(), node: Node::Directory { digest: below, mode: 0o755 } };
    let root = digest(&Directory::new(vec![entry, file(b"top", top, 3)]).unwrap().encode());
    for week in 0..5 {
        pass(&store, &fs, 7 * DAY);
        let mut sweep = store.begin_sweep(WallMs(1), false, of_age(DAY));
        let mut roots = Roots::default();
        // Of an entry that names the same the directories alone; that is not all there is to mark of it.
        roots.tree(&store, &root, true).unwrap();
        roots.tree(&store, &root, false).unwrap();
        finish(&store, &mut sweep);
        let there = [deep, top, below, root, other].map(|digest| store.blob_len(&p(), &digest).is_some());
        assert_eq!(there, [true, true, true, true, false], "week {week}");
    }
    pass(&store, &fs, 7 * DAY);
    let mut begun = store.begin_sweep(WallMs(1), false, of_age(DAY));
    let mut roots = Roots::default();
    roots.tree(&store, &root, true).unwrap();
    finish(&store, &mut begun);
    let there = [deep, top, below, root].map(|digest| store.blob_len(&p(), &digest).is_some());
    assert_eq!((there, roots.absent()), ([false, false, true, true], 0));
    roots.tree(&store, &root, false).unwrap();
    assert_eq!(roots.absent(), 2);
}

#[test]
fn a_lazy_store_refuses_what_is_new_and_breaks_no_promise() {
    let fs = RecordingFs::new();
    let options = StoreOptions { promise_ms: PROMISE_LAZY_MS, ..StoreOptions::lazy(4 << 20) };
    let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap();
    let mut told: Vec<Digest> = Vec::new();
    let mut refused = 0;
    for n in 0..60 {
        let bytes = noise(n, if n % 2 == 0 { 200_000 } else { 20_000 });
        match store.put(&p(), &bytes) {
            Ok(digest) => {
                assert_eq!(store.missing(&p(), &[digest]), []);
                told.push(digest);
            }
            Err(Error::Fault(Fault::NoSpace { .. })) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        assert!(store.stats().disk_bytes <= 4 << 20, "{:?}", store.stats());
        assert!(told.iter().all(|digest| store.blob_len(&p(), digest).is_some()), "after {n}");
    }
    assert!(refused > 10 && told.len() > 20, "{refused} of {}", told.len());
    pass(&store, &fs, 2 * PROMISE_LAZY_MS);
    store.put(&p(), &noise(100, 200_000)).expect("promises end");
    assert!(store.stats().evicted > 0);
}

/// What SIGKILL leaves is one of the disks that a crash leaves; here each of them is looked at.
#[test]
fn a_crash_in_a_sweep_loses_nothing_that_stays() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let old: Vec<Digest> = (0..40).map(|n| store.put(&p(), &noise(n, 200)).unwrap()).collect();
    let large = store.put(&p(), &noise(100, 150_000)).unwrap();
    pass(&store, &fs, DAY);
    assert_eq!(store.missing(&p(), &old[..20]), []);
    fs.pass_ms(2);
    let before = fs.op_count();
    let mut sweep = store.begin_sweep(WallMs(1), false, of_age(HOUR));
    finish(&store, &mut sweep);
    store.compact(u64::MAX).unwrap();
    assert_eq!(store.stats().blobs, 20);
    for at in before..=fs.op_count() {
        for image in fs.crash_images(at) {
            let store = open(&RecordingFs::on(&image.image));
            assert_eq!(store.missing(&p(), &old[..20]), [], "{}", image.story);
            assert_eq!(store.verify().unwrap().damaged, [], "{}", image.story);
            let gone = store.blob_len(&p(), &large).is_none();
            assert!(!gone || at > before);
        }
    }
}

/// What can happen to a store whose namespace has a policy.
#[derive(Debug, Clone)]
enum Step {
    Put(usize),
    Ask(usize),
    Read(usize),
    Pass(u64),
    /// So many pieces of a sweep; one that was begun goes on.
    Sweep {
        max_bytes: u64,
        max_age_ms: u64,
        pieces: usize,
    },
    Compact,
    Crash {
        at: prop::sample::Index,
        image: prop::sample::Index,
    },
}

const BLOBS: usize = 8;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..BLOBS).prop_map(Step::Put),
        4 => (0..BLOBS).prop_map(Step::Ask),
        2 => (0..BLOBS).prop_map(Step::Read),
        4 => prop_oneof![Just(EPOCH_MS), Just(PROMISE_MS / 2), Just(PROMISE_MS), Just(DAY)].prop_map(Step::Pass),
        5 => (prop_oneof![Just(0), Just(70_000)], prop_oneof![Just(0), Just(HOUR), Just(DAY)], 1..4_usize)
            .prop_map(|(max_bytes, max_age_ms, pieces)| Step::Sweep { max_bytes, max_age_ms, pieces }),
        1 => Just(Step::Compact),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(at, image)| Step::Crash { at, image }),
    ];
    prop::collection::vec(step, 1..60)
}

/// Small ones and two large ones.
fn blob(n: usize) -> Vec<u8> {
    noise(n, if n < 2 { 70_000 } else { 300 + n })
}

struct World {
    fs: RecordingFs,
    store: Option<Store>,
    sweep: Option<Sweep>,
    now_ms: u64,
    /// Until when each stays, and after which operation somebody was told so.
    told: BTreeMap<usize, (u64, usize)>,
    since: usize,
}

impl World {
    fn on(fs: RecordingFs, now_ms: u64) -> Self {
        fs.pass_ms(now_ms);
        let options = StoreOptions { segment_bytes: 1_500, chunk_bytes: 8 << 10, ..StoreOptions::default() };
        let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap();
        let since = fs.op_count();
        Self { fs, store: Some(store), sweep: None, now_ms, told: BTreeMap::new(), since }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn tell(&mut self, n: usize) {
        self.told.insert(n, (self.now_ms + PROMISE_MS, self.fs.op_count()));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(n) => {
                self.store().put(&p(), &blob(*n)).unwrap();
                self.tell(*n);
            }
            Step::Ask(n) => {
                if self.store().missing(&p(), &[Digest::of(&blob(*n))]).is_empty() {
                    self.tell(*n);
                }
            }
            Step::Read(n) => {
                let read = self.store().get(&p(), &Digest::of(&blob(*n))).unwrap();
                assert!(read.is_none_or(|found| found.into_vec().unwrap() == blob(*n)));
            }
            Step::Pass(ms) => {
                self.fs.pass_ms(*ms);
                self.now_ms += ms;
                self.store().note_epoch();
            }
            Step::Sweep { max_bytes, max_age_ms, pieces } => {
                let policy = Policy { max_bytes: Some(*max_bytes), max_age_ms: Some(*max_age_ms) };
                let begun = self.sweep.take();
                let mut sweep = begun.unwrap_or_else(|| self.store().begin_sweep(WallMs(1), false, |_| Some(policy)));
                let more = (0..*pieces).all(|_| self.store().sweep(&mut sweep).unwrap());
                self.sweep = more.then_some(sweep);
            }
            Step::Compact => {
                self.store().compact(u64::MAX).unwrap();
            }
            Step::Crash { at, image } => {
                let at = self.since + at.index(self.fs.op_count() - self.since + 1);
                let images = self.fs.crash_images(at);
                let image = image.get(&images).image.clone();
                self.store = None;
                let told = std::mem::take(&mut self.told);
                *self = Self::on(RecordingFs::on(&image), self.now_ms);
                for (n, (until_ms, after)) in told {
                    let there = self.store().blob_len(&p(), &Digest::of(&blob(n))).is_some();
                    assert!(there || after > at || until_ms <= self.now_ms, "{n} was promised before the crash");
                    if there {
                        self.tell(n);
                    }
                }
            }
        }
    }

    fn check(&self) {
        for (n, (until_ms, _)) in &self.told {
            let found = self.store().peek(&Digest::of(&blob(*n)), u64::MAX).unwrap();
            assert!(found.is_some() || *until_ms <= self.now_ms, "{n} stays until {until_ms}, it is {}", self.now_ms);
            assert!(found.is_none_or(|found| found == blob(*n)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn nothing_that_was_promised_is_gone_whatever_is_swept_and_whatever_crashes_leave(steps in steps()) {
        let mut world = World::on(RecordingFs::new(), 0);
        for step in &steps {
            world.step(step);
            world.check();
        }
    }
}

/// A real disk, and a clock that is put on by hand.
#[derive(Debug, Default)]
struct Clocked(AtomicU64);

impl Vfs for Clocked {
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        RealFs.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        RealFs.open(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        RealFs.open_read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFs.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        RealFs.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        RealFs.space(dir)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Held>> {
        RealFs.lock(path)
    }
}

#[test]
fn ten_thousand_blobs_go_while_others_put_and_nobody_waits_long() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Clocked::default());
    let store = Store::open(clock.clone(), dir.path(), StoreOptions::default()).unwrap();
    store.put_many(&p(), (0..10_000_u32).map(|n| n.to_le_bytes())).unwrap();
    let live = Namespace::trusted("live");
    let stop = AtomicBool::new(false);
    let (longest_us, puts) = (AtomicU64::new(0), AtomicU64::new(0));
    let kept = std::thread::scope(|scope| {
        let putting = scope.spawn(|| {
            let mut kept = Vec::new();
            for n in 0_u64.. {
                let begun = Instant::now();
                kept.push(store.put(&live, &noise(usize::try_from(n).unwrap(), 300)).unwrap());
                longest_us.fetch_max(u64::try_from(begun.elapsed().as_micros()).unwrap(), Ordering::Relaxed);
                puts.fetch_add(1, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            kept
        });
        clock.0.store(DAY, Ordering::Relaxed);
        drop(store.begin_sweep(WallMs(1), true, |_| None));
        clock.0.store(2 * DAY, Ordering::Relaxed);
        let policy =
            |namespace: &Namespace| (*namespace == p()).then_some(Policy { max_bytes: Some(0), max_age_ms: None });
        let mut sweep = store.begin_sweep(WallMs(1), false, policy);
        let mut pieces = 0;
        while store.sweep(&mut sweep).unwrap() {
            pieces += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(pieces >= 10_000 / SWEEP_RELEASE_MAX, "{pieces}");
        putting.join().unwrap()
    });
    assert_eq!(store.usage(&p()).blobs, 0);
    assert!(kept.iter().all(|digest| store.blob_len(&live, digest).is_some()));
    let (longest, puts) = (longest_us.into_inner(), puts.into_inner());
    assert!(longest < 2_000_000, "of {puts} puts beside the sweep the longest took {longest} us");
}
