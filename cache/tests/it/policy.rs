//! What a sweep spares, bounds and tells: each rule by itself; time passes by hand.

use std::path::Path;
use std::sync::Arc;

use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{Directory, Entry, Node, Policy, Roots, Store, StoreOptions, SweepCounts, WhyGone};
use windlass_protocol::limits::{
    EPOCH_MS, PROMISE_MS, SWEEP_LOOK_ROWS, SWEEP_OVER_MAX, SWEEP_PARTS, SWEEP_RELEASE_LARGE_MAX, SWEEP_ROWS,
};
use windlass_protocol::{Digest, Namespace, WallMs};

use crate::chunks::noise;

fn open(fs: &RecordingFs) -> Store {
    Store::open(Arc::new(fs.clone()), Path::new("/s"), StoreOptions::default()).unwrap()
}

fn p() -> Namespace {
    Namespace::trusted("p")
}

/// What was promised till now is not any more.
fn pass(store: &Store, fs: &RecordingFs) {
    for ms in [EPOCH_MS, PROMISE_MS + 1] {
        fs.pass_ms(ms);
        store.note_epoch();
    }
}

fn sweep(store: &Store, dry: bool, policy: impl Fn(&Namespace) -> Option<Policy>) -> SweepCounts {
    let mut sweep = store.begin_sweep(WallMs(5), dry, policy);
    while store.sweep(&mut sweep).unwrap() {}
    sweep.counts().clone()
}

const fn of_bytes(max_bytes: u64) -> Option<Policy> {
    Some(Policy { max_bytes: Some(max_bytes), max_age_ms: None })
}

const OLD: Option<Policy> = Some(Policy { max_bytes: None, max_age_ms: Some(1) });

#[test]
fn of_blobs_that_were_used_close_together_no_more_go_than_are_too_many() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let old: Vec<Digest> = (0..40).map(|n| store.put(&p(), &noise(n, 1_000)).unwrap()).collect();
    // So many uses later that those forty are all of one part of them.
    let often = store.put(&p(), &noise(100, 1_000)).unwrap();
    for _ in 0..SWEEP_PARTS * 64 {
        assert_eq!(store.missing(&p(), &[often]), []);
    }
    pass(&store, &fs);
    let swept = sweep(&store, false, |_| of_bytes(40_000)).swept[&(p(), WhyGone::Size)];
    assert_eq!((swept.blobs, store.usage(&p()).bytes), (5, 36_000), "down to a tenth below what it may have");
    let left = old.iter().filter(|digest| store.blob_len(&p(), digest).is_some()).count();
    assert_eq!(left, 35);
}

#[test]
fn so_many_namespaces_past_their_bytes_are_dealt_with_at_once_and_the_others_next() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let digest = store.put(&p(), b"of everybody").unwrap();
    for n in 0..SWEEP_OVER_MAX + 3 {
        store.grant(&Namespace::trusted(&format!("q{n}")), &[digest]).unwrap();
    }
    pass(&store, &fs);
    let others = |namespace: &Namespace| if *namespace == p() { None } else { of_bytes(0) };
    assert_eq!(sweep(&store, false, others).swept.len(), SWEEP_OVER_MAX);
    assert_eq!(sweep(&store, false, others).swept.len(), 3);
    assert!(store.blob_len(&p(), &digest).is_some());
}

#[test]
fn a_piece_of_a_sweep_is_bounded_whether_much_goes_or_nothing() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let large = Namespace::trusted("large");
    for n in 0..60 {
        store.put(&large, &noise(n, 66_000)).unwrap();
    }
    pass(&store, &fs);
    let mut begun = store.begin_sweep(WallMs(1), false, |namespace| (*namespace == large).then_some(OLD).flatten());
    let (mut gone, mut pieces) = (0, 0);
    loop {
        let more = store.sweep(&mut begun).unwrap();
        let went = begun.counts().swept.values().map(|swept| swept.blobs).sum::<u64>();
        assert!(went - gone <= (SWEEP_RELEASE_LARGE_MAX + SWEEP_LOOK_ROWS) as u64, "{} blobs", went - gone);
        (gone, pieces) = (went, pieces + 1);
        if !more {
            break;
        }
    }
    assert_eq!((begun.counts().rows, gone), (60, 60));
    assert!(pieces > 2, "{pieces}");
    // Nothing goes: what was used just now stays, and all of it is looked at.
    store.put_many(&p(), (0..2 * SWEEP_ROWS).map(|n| n.to_le_bytes())).unwrap();
    store.put(&large, b"young").unwrap();
    let mut begun = store.begin_sweep(WallMs(1), false, |namespace| (*namespace == large).then_some(OLD).flatten());
    assert!(store.sweep(&mut begun).unwrap());
    assert!(begun.counts().rows <= (SWEEP_ROWS + SWEEP_LOOK_ROWS) as u64, "{:?}", begun.counts());
}

#[test]
fn a_sweep_that_only_looks_says_of_what_others_see_that_it_stays() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let other = Namespace::trusted("other");
    let shared = store.put(&other, b"shared").unwrap();
    store.grant(&p(), &[shared]).unwrap();
    store.put(&p(), b"alone").unwrap();
    pass(&store, &fs);
    let only_p = |namespace: &Namespace| (*namespace == p()).then_some(OLD).flatten();
    let would = sweep(&store, true, only_p).swept;
    assert_eq!((would[&(p(), WhyGone::Age)].blobs, would[&(p(), WhyGone::Age)].gone_blobs), (2, 1));
    assert_eq!(sweep(&store, false, only_p).swept, would);
}

#[test]
fn for_who_does_not_see_a_tree_nothing_below_it_is_looked_at() {
    let fs = RecordingFs::new();
    let store = open(&fs);
    let file = store.put(&p(), b"file").unwrap();
    let node = Node::File { digest: file, len: 4, mode: 0o644 };
    let tree = Directory::new(vec![Entry { name: b"f".to_vec(), node }]).unwrap().encode();
    let root = store.put(&p(), &tree).unwrap();
    let of = |namespace: &Namespace| {
        let mut roots = Roots::seen_by(namespace);
        roots.tree(&store, &root, false).unwrap();
        (roots.marked(), roots.absent())
    };
    let stranger = Namespace::trusted("stranger");
    assert_eq!((of(&p()), of(&stranger)), ((2, 0), (0, 1)));
    // He has the file, which says nothing of the tree.
    store.put(&stranger, b"file").unwrap();
    assert_eq!(of(&stranger), (0, 1));
}

#[test]
fn what_is_longer_than_who_looks_can_take_is_not_read() {
    let store = open(&RecordingFs::new());
    let digest = store.put(&p(), b"12345").unwrap();
    assert_eq!(store.peek(&digest, 4).unwrap(), None);
    assert_eq!(store.peek(&digest, 5).unwrap().as_deref(), Some(&b"12345"[..]));
}
