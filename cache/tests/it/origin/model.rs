//! The store and its bucket beside a map, with crashes at any operation that leave any disk, and a bucket that comes and goes.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Put(usize),
    Read(usize),
    Release(usize),
    Compact,
    /// With a bucket that does so from now on.
    Bucket(Option<usize>),
    Tend,
    Reopen,
    /// After this share of the operations since the last one, with one of the disks that it could leave.
    Crash(prop::sample::Index, prop::sample::Index, prop::sample::Index),
}

const BLOBS: usize = 12;

fn blob(n: usize) -> Vec<u8> {
    noise(n, if n % 4 == 3 { 70_000 } else { 900 })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..BLOBS).prop_map(Step::Put),
        3 => (0..BLOBS).prop_map(Step::Read),
        4 => (0..BLOBS).prop_map(Step::Release),
        2 => Just(Step::Compact),
        4 => Just(Step::Tend),
        1 => prop_oneof![Just(None), Just(None), (0..TROUBLES.len()).prop_map(Some)].prop_map(Step::Bucket),
        1 => Just(Step::Reopen),
        3 => (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(at, image, bucket)| Step::Crash(at, image, bucket)),
    ];
    proptest::collection::vec(step, 1..40)
}

fn watched(fs: &RecordingFs, remote: &MemoryRemote) {
    let clock = fs.clone();
    remote.remember_by(move || clock.op_count());
}

/// What may be there of each blob: a crash may undo what was done since `at` operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    There,
    Gone,
    Either,
}

struct Model {
    fs: RecordingFs,
    remote: MemoryRemote,
    store: Option<Store>,
    /// What was acknowledged since the last crash: after how many operations, of which blob, and whether it is there.
    history: Vec<(usize, usize, bool)>,
    before: [Known; BLOBS],
    trouble: Option<Trouble>,
}

impl Model {
    fn new() -> Self {
        let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
        watched(&fs, &remote);
        let store = Some(open(&fs, &remote).unwrap());
        Self { fs, remote, store, history: Vec::new(), before: [Known::Gone; BLOBS], trouble: None }
    }

    fn known(&self, n: usize) -> Known {
        let last = self.history.iter().rev().find(|(_, blob, _)| *blob == n);
        last.map_or(self.before[n], |(_, _, there)| if *there { Known::There } else { Known::Gone })
    }

    fn step(&mut self, step: Step) {
        let store = self.store.as_ref().unwrap();
        match step {
            Step::Put(n) => {
                store.put(&p(), &blob(n)).unwrap_or_else(|e| panic!("a put waits for no bucket: {e}"));
                self.history.push((self.fs.op_count(), n, true));
            }
            Step::Release(n) => {
                release(store, &blob(n));
                self.history.push((self.fs.op_count(), n, false));
            }
            Step::Read(n) => match (read(store, &blob(n)), self.known(n)) {
                (Ok(Some(found)), Known::There | Known::Either) => assert!(found == blob(n)),
                (Ok(None), Known::Gone | Known::Either) => {}
                (Err(Fault::Unavailable { .. }), _) => {
                    assert!(self.trouble.is_some(), "a bucket that answers is available");
                }
                (other, known) => panic!("{other:?} of a blob that is {known:?}"),
            },
            Step::Compact => self.done(store.compact(1 << 20).map(|_| ())),
            Step::Tend => self.done(tend(store)),
            Step::Bucket(how) => {
                let how = how.map(|how| TROUBLES[how]);
                // What goes wrong each time, and always in the same way, is damage.
                self.trouble = how.filter(|how| !matches!(how, Trouble::Wrong | Trouble::Short));
                self.remote.fail_always(self.trouble);
            }
            Step::Reopen => self.reopen(),
            Step::Crash(at, image, bucket) => self.crash(at, image, bucket),
        }
    }

    fn done(&self, done: Result<(), Fault>) {
        match done {
            Ok(()) => {}
            Err(Fault::Unavailable { .. }) => assert!(self.trouble.is_some()),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn reopen(&mut self) {
        drop(self.store.take());
        self.store = Some(open(&self.fs, &self.remote).unwrap());
    }

    fn crash(&mut self, at: prop::sample::Index, image: prop::sample::Index, bucket: prop::sample::Index) {
        drop(self.store.take());
        let at = at.index(self.fs.op_count() + 1);
        let (images, buckets) = (self.fs.crash_images(at), self.remote.held_at(at));
        let image = images[image.index(images.len())].image.clone();
        let held = buckets[bucket.index(buckets.len())].clone();
        for n in 0..BLOBS {
            let then: Vec<_> = self.history.iter().filter(|(_, blob, _)| *blob == n).collect();
            let last = then.iter().rev().find(|(since, ..)| *since <= at);
            let certain = last.map_or(self.before[n], |(_, _, there)| if *there { Known::There } else { Known::Gone });
            // What was under way or not begun then may be done or not.
            let later = then.iter().any(|(since, ..)| *since > at);
            self.before[n] = if later { Known::Either } else { certain };
        }
        self.history.clear();
        (self.fs, self.remote) = (RecordingFs::on(&image), MemoryRemote::holding(held));
        watched(&self.fs, &self.remote);
        self.remote.begin_history();
        self.remote.fail_always(self.trouble);
        self.reopen();
        for n in 0..BLOBS {
            let there = self.store.as_ref().unwrap().contains(&p(), &Digest::of(&blob(n)));
            match self.before[n] {
                Known::There => assert!(there, "blob {n} is lost"),
                Known::Gone => assert!(!there, "blob {n} came back"),
                Known::Either => self.before[n] = if there { Known::There } else { Known::Gone },
            }
        }
    }

    /// When the bucket answers all is right, and it holds what is recorded.
    fn end(mut self) {
        self.remote.fail_always(None);
        self.reopen();
        let store = self.store.as_ref().unwrap();
        settle(store);
        for n in 0..BLOBS {
            let found = read(store, &blob(n)).unwrap();
            match self.known(n) {
                Known::There => assert!(found == Some(blob(n)), "blob {n}"),
                Known::Gone => assert!(found.is_none(), "blob {n}"),
                Known::Either => {}
            }
        }
        assert_eq!(store.stats().damaged, 0);
        assert_eq!(store.origin_stats().unwrap().objects + 1, self.remote.objects().len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_and_its_bucket_are_what_a_map_is(steps in steps()) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.end();
    }
}
