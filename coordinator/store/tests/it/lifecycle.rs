//! Opening, refusing, checking a data directory, and a disk that fills up.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use windlass_coordinator_core::row::{AttemptState, Change};
use windlass_coordinator_store::{Fault, History, OpenError, Options, Retention, Seq, Space, Store, check, open};
use windlass_protocol::{WallMs, limits};

use crate::rows::{artifact, attempt, attempt_id, build_id, finish, fleet, job, pin, submit};
use crate::shim::Shim;

fn small() -> Options {
    Options { reserve_bytes: 64 << 10, low_bytes: 0, ..Options::default() }
}

/// A directory with three builds, one of them finished.
fn filled(dir: &Path) {
    let (mut store, _history) = open(dir, &small()).unwrap();
    let epoch = store.claim().unwrap();
    store.commit(epoch, &fleet()).unwrap();
    for n in 1..=3 {
        store.commit(epoch, &submit(n)).unwrap();
    }
    store.commit(epoch, &finish(2)).unwrap();
}

#[test]
fn a_second_store_on_one_directory_is_refused_while_the_first_lives() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), &small()).unwrap();
    match open(dir.path(), &small()) {
        Err(error @ OpenError::InUse { pid: Some(pid), .. }) => {
            assert_eq!(pid, std::process::id());
            assert!(error.to_string().contains(&pid.to_string()) && error.hint().is_some());
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(check(dir.path()), Err(OpenError::InUse { .. })));
    drop(first);
    open(dir.path(), &small()).unwrap();
}

#[test]
fn nobody_else_can_read_a_file_of_the_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (mut store, history) = open(dir.path(), &small()).unwrap();
    let epoch = store.claim().unwrap();
    store.commit(epoch, &fleet()).unwrap();
    assert!(history.seq().unwrap() > Seq(0));
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(files.iter().any(|file| file.file_name() == "store.sqlite-shm"), "{files:?}");
    for file in files.iter().filter(|file| file.file_name().to_string_lossy().starts_with("store")) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{file:?}");
    }
}

/// What a crash of the process would leave: copies of the files of an open store.
fn crash_image(of: &Path) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    for name in ["store.sqlite", "store.sqlite-wal"] {
        std::fs::copy(of.join(name), image.path().join(name)).unwrap();
    }
    image
}

#[test]
fn the_log_has_its_size_from_the_beginning_and_a_crash_at_any_fill_of_it_loses_nothing() {
    const LOG_BYTES: u64 = 64 << 10;
    let dir = tempfile::tempdir().unwrap();
    let options = Options { wal_restart_bytes: LOG_BYTES / limits::WAL_BYTES_FACTOR, checkpoint_commits: 2, ..small() };
    let (mut store, _history) = open(dir.path(), &options).unwrap();
    let log_bytes = || std::fs::metadata(dir.path().join("store.sqlite-wal")).unwrap().len();
    assert_eq!(log_bytes(), LOG_BYTES, "before the first commit");
    let epoch = store.claim().unwrap();
    store.commit(epoch, &fleet()).unwrap();
    for n in 1..=40 {
        store.commit(epoch, &submit(n)).unwrap();
        assert_eq!(check(crash_image(dir.path()).path()).unwrap().builds, n, "after {n} commits");
    }
    assert!(log_bytes() >= LOG_BYTES, "it is written over, not cut");
}

#[test]
fn a_store_of_a_newer_schema_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let conn = rusqlite::Connection::open(dir.path().join("store.sqlite")).unwrap();
    conn.pragma_update(None, "user_version", 20).unwrap();
    drop(conn);
    for refused in [open(dir.path(), &small()).map(drop), check(dir.path()).map(drop)] {
        match refused {
            Err(OpenError::NewerSchema { found: 20, known: 12, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_sound_directory_is_found_sound_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let before = std::fs::read(dir.path().join("store.sqlite")).unwrap();
    let report = check(dir.path()).unwrap();
    assert_eq!(report.findings, [""; 0]);
    assert_eq!((report.schema, report.builds, report.jobs, report.attempts), (12, 3, 3, 3));
    assert_eq!(std::fs::read(dir.path().join("store.sqlite")).unwrap(), before);
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(check(nothing.path()), Err(OpenError::NotThere { .. })));
    assert_eq!(std::fs::read_dir(nothing.path()).unwrap().count(), 0, "a check makes no files");
}

#[test]
fn every_kind_of_damage_is_found() {
    let stray = |sql: &str| {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let conn = rusqlite::Connection::open(dir.path().join("store.sqlite")).unwrap();
        conn.execute_batch(sql).unwrap();
        drop(conn);
        check(dir.path()).unwrap().findings.join("\n")
    };
    let cases = [
        (format!("DELETE FROM builds WHERE id = x'{}'", hex(build_id(1).as_bytes())), "does not exist"),
        ("DELETE FROM attempts".to_owned(), "named by a job, but does not exist"),
        ("UPDATE meta SET json = '{\"last_epoch\":2}'".to_owned(), "was never granted"),
        ("DELETE FROM definitions".to_owned(), "pipeline text is missing"),
        ("UPDATE pipelines SET last = 1".to_owned(), "above their pipeline's last"),
        ("UPDATE jobs SET json = '{}'".to_owned(), "cannot be read"),
        ("DELETE FROM builds".to_owned(), "events of builds that do not exist"),
    ];
    for (sql, expected) in cases {
        let found = stray(&sql);
        assert!(found.contains(expected), "{sql}: {found}");
    }
}

#[test]
fn two_leases_of_one_job_and_one_epoch_twice_are_found() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (mut store, history) = open(dir.path(), &small()).unwrap();
    let epoch = store.claim().unwrap();
    let mut second = attempt(9, 1, 1, AttemptState::Assigned);
    second.epoch = windlass_protocol::job::Epoch(3);
    store.commit(epoch, &[Change::Attempt(Box::new(second)), Change::Job(Box::new(job(1, 1, 0, &[1, 9])))]).unwrap();
    drop((store, history));
    let found = check(dir.path()).unwrap().findings.join("\n");
    assert!(found.contains("both hold a lease") && found.contains("the same epoch 3"), "{found}");
    assert!(found.contains(&attempt_id(9).to_string()));
}

#[test]
fn pins_that_do_not_agree_with_what_they_hold_are_found() {
    let stray = |sql: &str| {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let (mut store, history) = open(dir.path(), &small()).unwrap();
        let epoch = store.claim().unwrap();
        let artifacts = (1..=4).map(|n| Change::Artifact(Box::new(artifact(n, 1 + n % 2))));
        store.commit(epoch, &artifacts.collect::<Vec<_>>()).unwrap();
        let key = windlass_protocol::Digest::of(b"key");
        let pinned = [Change::Pin(Box::new(pin(2, None))), Change::PinResult { build: build_id(2), key }];
        store.commit(epoch, &pinned).unwrap();
        let over = Retention { artifacts_at: WallMs(u64::MAX - 1), ..nothing() };
        assert_eq!(store.expire(epoch, over).unwrap().artifacts, 2);
        drop((store, history));
        rusqlite::Connection::open(dir.path().join("store.sqlite")).unwrap().execute_batch(sql).unwrap();
        check(dir.path()).unwrap().findings.join("\n")
    };
    assert_eq!(stray(""), "");
    for (sql, expected) in [
        ("UPDATE pins SET build = x'00'", "1 pins of builds that do not exist"),
        ("DELETE FROM pins", "1 results that are held by no pin"),
        ("DELETE FROM pins", "2 artifacts that stay, and whose builds have no pin"),
        ("UPDATE artifacts SET expires_at = 7", "2 artifacts that go at a time which is not theirs"),
        ("INSERT INTO unpinned SELECT build, 0 FROM pins", "1 ends of pins that are not over"),
        ("INSERT INTO unpinned VALUES (x'00', 0)", "1 ends of pins of builds that do not exist"),
        ("UPDATE pins SET json = '{}'", "pin row cannot be read"),
        ("UPDATE pins SET json = json_set(json, '$.namespace.overlay', 'pr:1')", "it is not trusted"),
    ] {
        let found = stray(sql);
        assert!(found.contains(expected), "{sql}: {found}");
    }
}

#[test]
fn a_pin_and_its_end_are_one_row_each_and_pieces_bring_artifacts_back_whatever_crash_comes_between() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let piece = limits::EXPIRE_ROWS_MAX as u64;
    let (mut store, history) = open(dir.path(), &small()).unwrap();
    let epoch = store.claim().unwrap();
    let artifacts = (1..=2 * piece + 5).map(|n| Change::Artifact(Box::new(artifact(n, 2))));
    store.commit(epoch, &artifacts.collect::<Vec<_>>()).unwrap();
    drop((store, history));
    let moved = || {
        let conn = rusqlite::Connection::open(dir.path().join("store.sqlite")).unwrap();
        let sql = "SELECT count(*) FROM artifacts WHERE expires_at = ?1";
        conn.query_row(sql, [i64::MAX], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
    };
    // Each step by a coordinator of its own, and what it leaves is sound.
    let step = |changes: &[Change], retention: Option<Retention>| {
        let (mut store, history) = open(dir.path(), &small()).unwrap();
        let epoch = store.claim().unwrap();
        store.commit(epoch, changes).unwrap();
        let expired = retention.map(|retention| store.expire(epoch, retention).unwrap()).unwrap_or_default();
        drop((store, history));
        assert_eq!(check(dir.path()).unwrap().findings, [""; 0]);
        (expired.artifacts as u64, expired.more, moved())
    };
    let key = windlass_protocol::Digest::of(b"key");
    let pin = [Change::Pin(Box::new(pin(2, None))), Change::PinResult { build: build_id(2), key }];
    let over = Some(Retention { artifacts_at: WallMs(u64::MAX), ..nothing() });
    assert_eq!(step(&pin, None), (0, false, 0));
    assert_eq!(step(&[], over), (0, true, piece));
    assert_eq!(step(&[], over), (0, true, 2 * piece));
    assert_eq!(step(&[], over), (0, false, 2 * piece + 5));
    assert_eq!(step(&[Change::PinOver(build_id(2))], None), (0, false, 2 * piece + 5));
    assert_eq!(step(&[], Some(nothing())), (0, true, piece + 6), "a row of a piece is the result's");
    assert_eq!(step(&pin, None), (0, false, piece + 6));
    assert_eq!(step(&[], over), (0, false, 2 * piece + 5));
    assert_eq!(step(&[Change::PinOver(build_id(2))], over), (0, true, piece + 6));
    assert_eq!(step(&[], over), (0, true, 6));
    assert_eq!(step(&[], over), (piece - 7, true, 0));
    assert_eq!(step(&[], over), (piece, true, 0));
    assert_eq!(step(&[], over), (12, false, 0));
}

/// Retention for which the time of nothing is over.
fn nothing() -> Retention {
    let never = WallMs(0);
    Retention {
        builds_before: never,
        idempotency_before: never,
        agents_before: never,
        audit_before: never,
        artifacts_at: never,
        notifications_before: never,
        max_builds: 9,
    }
}

#[test]
fn a_damaged_page_is_found_and_does_not_end_the_check() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let path = dir.path().join("store.sqlite");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[4_096 * 3..end].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    assert!(!check(dir.path()).unwrap().is_sound());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the store is told about free space in the test below.
static FREE: AtomicU64 = AtomicU64::new(u64::MAX);

#[test]
fn a_full_disk_is_met_from_the_reserve_reported_as_low_and_mended_when_space_returns() {
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::register("full-disk");
    let options = Options {
        reserve_bytes: 1 << 20,
        low_bytes: 1 << 20,
        free_bytes: |_| Ok(FREE.load(Ordering::SeqCst)),
        vfs: Some(shim.name()),
        ..Options::default()
    };
    let (mut store, _history) = open(dir.path(), &options).unwrap();
    let epoch = store.claim().unwrap();
    store.commit(epoch, &submit(1)).unwrap();
    assert_eq!(store.space(), Space::Enough);

    // The disk is full as long as the reserve is there: its release is what lets the next commit through.
    let reserve = dir.path().join("reserve");
    assert!(reserve.exists());
    FREE.store(0, Ordering::SeqCst);
    shim.fail_writes_while(Some(reserve.clone()));
    store.commit(epoch, &finish(1)).unwrap();
    assert!(!reserve.exists());
    assert_eq!(store.space(), Space::Low);

    // With the reserve gone, too, a commit is refused whole, and what was there stays.
    let before = store.load().unwrap();
    shim.fail_writes_while(Some(dir.path().to_owned()));
    assert_eq!(store.commit(epoch, &submit(2)), Err(Fault::DiskFull));
    assert_eq!(store.load().unwrap(), before);

    // Room for the reserve alone is not enough, room beside it is.
    shim.fail_writes_while(None);
    FREE.store((2 << 20) - 1, Ordering::SeqCst);
    assert_eq!(store.space(), Space::Low);
    FREE.store(2 << 20, Ordering::SeqCst);
    assert_eq!(store.space(), Space::Enough);
    assert!(reserve.exists());
    store.commit(epoch, &submit(2)).unwrap();
}
