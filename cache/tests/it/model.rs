//! The store beside a map, with crashes at any operation that leave any disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

use crate::chunks::noise;

#[derive(Debug, Clone)]
enum Step {
    Put {
        namespace: usize,
        blob: usize,
    },
    /// An upload that is given up.
    Abandon {
        blob: usize,
    },
    Release {
        namespace: usize,
        blob: usize,
    },
    /// What one namespace sees, another does too.
    Grant {
        from: usize,
        to: usize,
        blob: usize,
    },
    /// Looks through so many bytes of segments.
    Compact {
        budget_bytes: u64,
    },
    /// Writes the table's copy.
    Copy,
    Reopen,
    /// After this share of the operations since the last one, with one of the disks that it could leave.
    Crash {
        at: prop::sample::Index,
        image: prop::sample::Index,
    },
}

const NAMESPACES: usize = 3;
const BLOBS: usize = 12;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (namespace, blob) = (0..NAMESPACES, 0..BLOBS);
    let step = prop_oneof![
        6 => (namespace.clone(), blob.clone()).prop_map(|(namespace, blob)| Step::Put { namespace, blob }),
        1 => blob.clone().prop_map(|blob| Step::Abandon { blob }),
        5 => (namespace.clone(), blob.clone()).prop_map(|(namespace, blob)| Step::Release { namespace, blob }),
        2 => (namespace.clone(), namespace, blob).prop_map(|(from, to, blob)| Step::Grant { from, to, blob }),
        3 => prop_oneof![Just(1), Just(1_500), Just(100_000)].prop_map(|budget_bytes| Step::Compact { budget_bytes }),
        2 => Just(Step::Copy),
        1 => Just(Step::Reopen),
        3 => (any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(at, image)| Step::Crash { at, image }),
    ];
    prop::collection::vec(step, 1..40)
}

fn namespace(n: usize) -> Namespace {
    Namespace::trusted(&format!("p{n}"))
}

/// Six large ones out of the same few parts, and small ones.
fn blob(n: usize) -> Vec<u8> {
    let part = |n: usize| noise(n, 20_000);
    match n {
        0 => b"small".to_vec(),
        1 => [part(1), part(2), part(3), part(4)].concat(),
        2 => [part(2), part(3), part(4), part(1)].concat(),
        3 => [part(1), vec![0; 50_000], part(4)].concat(),
        4 => [part(5), part(5), part(5), part(5)].concat(),
        5 => [part(5), part(2), part(3), part(6)].concat(),
        6 => noise(7, 70_000),
        n => noise(n, 400),
    }
}

/// What was done to a blob in a namespace, and between which operations.
#[derive(Debug, Clone, Copy)]
struct Event {
    stored: bool,
    began: usize,
    ended: usize,
}

struct World {
    fs: RecordingFs,
    store: Option<Store>,
    events: BTreeMap<(usize, usize), Vec<Event>>,
    since: usize,
}

impl World {
    fn on(fs: RecordingFs) -> Self {
        let mut world = Self { fs, store: None, events: BTreeMap::new(), since: 0 };
        world.open();
        world
    }

    fn open(&mut self) {
        self.store = None;
        let options = StoreOptions { segment_bytes: 1_500, chunk_bytes: 8 << 10, ..StoreOptions::default() };
        self.store = Some(Store::open(Arc::new(self.fs.clone()), Path::new("/s"), options).unwrap());
        self.since = self.fs.op_count();
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn note(&mut self, at: (usize, usize), stored: bool, began: usize) {
        let ended = self.fs.op_count();
        self.events.entry(at).or_default().push(Event { stored, began, ended });
    }

    fn step(&mut self, step: &Step) {
        let began = self.fs.op_count();
        match step {
            Step::Put { namespace: n, blob: b } => {
                self.store().put(&namespace(*n), &blob(*b)).unwrap();
                self.note((*n, *b), true, began);
            }
            Step::Grant { from, to, blob: b } => {
                let digest = Digest::of(&blob(*b));
                if self.store().contains(&namespace(*from), &digest) {
                    assert_eq!(self.store().grant(&namespace(*to), &[digest]).unwrap(), []);
                    self.note((*to, *b), true, began);
                }
            }
            Step::Compact { budget_bytes } => {
                self.store().compact(*budget_bytes).unwrap();
            }
            Step::Abandon { blob: b } => {
                let mut upload = self.store().begin_put(&namespace(0), None).unwrap();
                upload.write(&blob(*b)).unwrap();
            }
            Step::Release { namespace: n, blob: b } => {
                let digest = Digest::of(&blob(*b));
                let mut held = self.store().held(|other| *other == namespace(*n));
                held.retain(|held| held.digest == digest);
                self.store().release(&held).unwrap();
                self.note((*n, *b), false, began);
            }
            Step::Copy => {
                self.store().copy_table().unwrap();
            }
            Step::Reopen => self.open(),
            Step::Crash { at, image } => {
                let at = self.since + at.index(self.fs.op_count() - self.since + 1);
                let images = self.fs.crash_images(at);
                let image = image.get(&images);
                self.store = None;
                let events = std::mem::take(&mut self.events);
                *self = Self::on(RecordingFs::on(&image.image));
                self.recovered(&events, at, &image.story);
            }
        }
    }

    /// What had ended by then holds; what had begun may; the rest does not. The map goes on with what is there.
    fn recovered(&mut self, events: &BTreeMap<(usize, usize), Vec<Event>>, at: usize, story: &str) {
        for n in 0..NAMESPACES {
            for b in 0..BLOBS {
                let here = events.get(&(n, b)).map(Vec::as_slice).unwrap_or_default();
                let settled = here.iter().rfind(|event| event.ended <= at).is_some_and(|event| event.stored);
                let mut may = vec![settled];
                may.extend(here.iter().filter(|event| event.began < at && event.ended > at).map(|event| event.stored));
                let there = self.store().contains(&namespace(n), &Digest::of(&blob(b)));
                assert!(may.contains(&there), "{n} {b} is there: {there}, after {at}, {story}: {here:?}");
                if there {
                    self.events.insert((n, b), vec![Event { stored: true, began: 0, ended: 0 }]);
                }
            }
        }
        self.check();
    }

    /// Everything that is there is right, and nothing else is.
    fn check(&self) {
        for n in 0..NAMESPACES {
            let stored =
                |b: &usize| self.events.get(&(n, *b)).and_then(|events| events.last()).is_some_and(|e| e.stored);
            let seen: Vec<u64> = (0..BLOBS).filter(stored).map(|b| blob(b).len() as u64).collect();
            let usage = self.store().usage(&namespace(n));
            assert_eq!((usage.blobs, usage.bytes), (seen.len() as u64, seen.iter().sum()), "of {n}");
            for b in 0..BLOBS {
                let bytes = blob(b);
                let stored =
                    self.events.get(&(n, b)).and_then(|events| events.last()).is_some_and(|event| event.stored);
                let found = self.store().get(&namespace(n), &Digest::of(&bytes)).unwrap();
                assert_eq!(found.map(|blob| blob.into_vec().unwrap()), stored.then_some(bytes), "{n} {b}");
            }
        }
    }

    /// When everything is let go, everything is gone.
    fn empty(&mut self) {
        let held = self.store().held(|_| true);
        self.store().release(&held).unwrap();
        let stats = self.store().stats();
        if stats.damaged_bytes > 0 {
            // A crash left a whole record behind one that is torn: then nothing is removed that a lost record may have named.
            return;
        }
        assert_eq!((stats.blobs, stats.chunks, stats.chunk_bytes, stats.chunk_disk_bytes), (0, 0, 0, 0));
        for round in 0.. {
            assert!(round < 1_000, "compaction comes to an end");
            if !self.store().compact(1).unwrap().more {
                break;
            }
        }
        assert!(self.store().stats().segments <= 1, "only the last one: {:?}", self.store().stats());
        let image = self.fs.live_image();
        assert_eq!(image.files.keys().filter(|path| path.starts_with("/s/chunks")).count(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn a_store_is_the_map_that_was_put_into_it_whatever_crashes_leave(steps in steps()) {
        let mut world = World::on(RecordingFs::new());
        for step in &steps {
            world.step(step);
        }
        world.check();
        world.open();
        world.check();
        world.empty();
    }
}
