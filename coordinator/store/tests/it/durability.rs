//! What a crash of the machine leaves: every acknowledged commit, on a disk that keeps only what was synced (I1).
//!
//! SIGKILL cannot show this, since the page cache outlives a process. Here SQLite writes through a recording VFS, and
//! the disk is built anew from the record as it may have been at any moment.

use windlass_coordinator_store::{Options, Store, check, open};

use crate::rows::{build_id, fleet, submit};
use crate::shim::{Op, Recording, Shim};

const COMMITS: u64 = 24;

/// A new store, and [`COMMITS`] builds, each acknowledged when its commit returns.
fn record(name: &str) -> Recording {
    record_with(name, Options::default())
}

fn record_with(name: &str, options: Options) -> Recording {
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::register(name);
    let options = Options { reserve_bytes: 4_096, low_bytes: 0, vfs: Some(shim.name()), ..options };
    let (mut store, history) = open(dir.path(), &options).unwrap();
    let epoch = store.claim().unwrap();
    store.commit(epoch, &fleet()).unwrap();
    for n in 1..=COMMITS {
        store.commit(epoch, &submit(n)).unwrap();
        shim.acknowledged(n);
    }
    let recording = shim.recording();
    drop((store, history));
    recording
}

/// Opens the disk that a crash after `ops` operations leaves; what is missing or broken on it.
fn lost_at(recording: &Recording, ops: usize, survives: impl FnMut() -> bool) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = recording.image_at(ops, dir.path(), survives);
    let options = Options { reserve_bytes: 4_096, low_bytes: 0, ..Options::default() };
    let (mut store, history) = open(dir.path(), &options).map_err(|e| format!("not opened: {e}"))?;
    let rows = store.load().map_err(|e| format!("not loaded: {e}"))?;
    drop((store, history));
    for n in 1..=acknowledged.unwrap_or(0) {
        if !rows.builds.contains_key(&build_id(n)) {
            return Err(format!("build {n} was acknowledged and is gone"));
        }
    }
    let findings = check(dir.path()).map_err(|e| e.to_string())?.findings;
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

/// Places right after each acknowledgement.
fn acknowledgements(recording: &Recording) -> Vec<usize> {
    let marks = recording.ops.iter().enumerate().filter(|(_, op)| matches!(op, Op::Acknowledged(_)));
    marks.map(|(place, _)| place + 1).collect()
}

/// A small seeded generator (xorshift64*), so that a failing case can be run again.
fn generator(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }
}

#[test]
fn an_acknowledged_build_survives_a_crash_that_takes_everything_not_synced() {
    let recording = record("crash-strict");
    let places = acknowledgements(&recording);
    assert_eq!(places.len() as u64, COMMITS);
    for place in places {
        assert_eq!(lost_at(&recording, place, || false), Ok(()), "crash after operation {place}");
    }
}

#[test]
fn at_any_moment_and_with_any_part_of_the_loose_writes_the_store_opens_sound_and_complete() {
    let recording = record("crash-torn");
    for seed in 0..60 {
        let mut random = generator(seed);
        let place = usize::try_from(random()).unwrap() % recording.ops.len() + 1;
        let found = lost_at(&recording, place, || random().is_multiple_of(2));
        assert_eq!(found, Ok(()), "seed {seed}, crash after operation {place}");
    }
}

#[test]
fn a_crash_amid_checkpoints_and_restarts_of_the_log_loses_nothing() {
    for (name, wal_restart_bytes) in [("crash-checkpoint", u64::MAX), ("crash-cut", 0), ("crash-restart", 16 << 10)] {
        let recording = record_with(name, Options { checkpoint_commits: 1, wal_restart_bytes, ..Options::default() });
        let in_store = |op: &Op| matches!(op, Op::Write { path, .. } if path.ends_with("store.sqlite"));
        let last = acknowledgements(&recording).pop().unwrap();
        let copied = recording.ops[..last].iter().filter(|op| in_store(op)).count();
        assert!(copied > 20, "checkpoints ran beside the commits: {copied} pages were copied back");
        for place in acknowledgements(&recording) {
            assert_eq!(lost_at(&recording, place, || false), Ok(()), "{name}: crash after operation {place}");
        }
        for seed in 0..40 {
            let mut random = generator(seed);
            let place = usize::try_from(random()).unwrap() % recording.ops.len() + 1;
            let found = lost_at(&recording, place, || random().is_multiple_of(2));
            assert_eq!(found, Ok(()), "{name}: seed {seed}, crash after operation {place}");
        }
    }
}

#[test]
fn on_a_disk_whose_syncs_do_nothing_the_same_check_finds_builds_lost() {
    let recording = record("crash-lying").without_syncs();
    let places = acknowledgements(&recording);
    let lost = places.iter().filter(|place| lost_at(&recording, **place, || false).is_err()).count();
    assert_eq!(lost, places.len(), "every crash loses what was never synced");
}
