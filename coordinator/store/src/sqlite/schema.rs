//! The schema, its version, and the way from older ones.
//!
//! Each table has the columns that filters and indexes need, and the whole row as JSON beside them. Tables with large
//! rows keep SQLite's own rising row number as their key (a large row in a `WITHOUT ROWID` tree spills at 1 KB).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::Target;
use super::encode::fault_of;
use crate::dir::{make_private, sync_dir};
use crate::fault::{Fault, OpenError};

/// One step from a schema to the next one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    /// The version that it makes.
    pub(super) to: u32,
    /// What it does; runs in a transaction that also writes the version.
    pub(super) up: fn(&Transaction<'_>) -> rusqlite::Result<()>,
}

/// All steps, from nothing to [`SCHEMA_VERSION`].
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { to: 1, up: |tx| tx.execute_batch(V1) },
    Migration { to: 2, up: |tx| tx.execute_batch(V2) },
    Migration { to: 3, up: |tx| tx.execute_batch(V3) },
    Migration { to: 4, up: |tx| tx.execute_batch(V4) },
    Migration { to: 5, up: |tx| tx.execute_batch(V5) },
    Migration { to: 6, up: |tx| tx.execute_batch(V6) },
    Migration { to: 7, up: |tx| tx.execute_batch(V7) },
    Migration { to: 8, up: |tx| tx.execute_batch(V8) },
    Migration { to: 9, up: |tx| tx.execute_batch(V9) },
    Migration { to: 10, up: |tx| tx.execute_batch(V10) },
    Migration { to: 11, up: |tx| tx.execute_batch(V11) },
    Migration { to: 12, up: |tx| tx.execute_batch(V12) },
];

/// The version that this Windlass writes.
pub(crate) const SCHEMA_VERSION: u32 = 12;

/// The version that has the tables of pins.
pub(crate) const SCHEMA_OF_PINS: u32 = 12;

const V1: &str = "
CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, fence INTEGER NOT NULL,
    json TEXT NOT NULL) STRICT;
INSERT INTO meta VALUES (1, 0, 0, '{\"last_epoch\":0}');

CREATE TABLE pipelines (name TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE builds (key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, pipeline TEXT NOT NULL, number INTEGER NOT NULL,
    branch TEXT NOT NULL, definition BLOB NOT NULL, state TEXT NOT NULL, live INTEGER NOT NULL, finished_at INTEGER,
    json TEXT NOT NULL, UNIQUE (pipeline, number)) STRICT;
CREATE INDEX builds_branch ON builds (branch);
CREATE INDEX builds_definition ON builds (definition);
CREATE INDEX builds_live ON builds (state) WHERE live = 1;
CREATE INDEX builds_ended ON builds (state) WHERE live = 0;
CREATE INDEX builds_finished ON builds (finished_at) WHERE live = 0;

CREATE TABLE jobs (key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, build BLOB NOT NULL, place INTEGER NOT NULL,
    json TEXT NOT NULL, UNIQUE (build, place)) STRICT;

CREATE TABLE attempts (key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, build BLOB NOT NULL, json TEXT NOT NULL) STRICT;
CREATE INDEX attempts_build ON attempts (build);

CREATE TABLE events (build BLOB NOT NULL, seq INTEGER NOT NULL, json TEXT NOT NULL, PRIMARY KEY (build, seq))
    STRICT, WITHOUT ROWID;

CREATE TABLE definitions (key INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, text TEXT NOT NULL) STRICT;
CREATE TABLE pools (name TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE agents (id BLOB PRIMARY KEY, gone INTEGER NOT NULL, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (id BLOB PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE idempotency (token BLOB NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL, json TEXT NOT NULL,
    PRIMARY KEY (token, key)) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_at ON idempotency (at);
CREATE TABLE audit (key INTEGER PRIMARY KEY, at INTEGER NOT NULL, json TEXT NOT NULL) STRICT;
";

/// The agents that a token admitted are found without reading those of all others; and since when an agent is gone is known,
/// so that its row can be deleted some day.
const V2: &str = "
CREATE INDEX agents_token ON agents (json_extract(json, '$.token'));
ALTER TABLE agents ADD COLUMN gone_at INTEGER;
UPDATE agents SET gone_at = coalesce(json_extract(json, '$.last_seen_at'), json_extract(json, '$.revoked_at'),
    json_extract(json, '$.joined_at')) WHERE gone = 1;
CREATE INDEX agents_gone ON agents (gone_at) WHERE gone_at IS NOT NULL;
";

/// Builds that wait at a gate are listed by an index of their own; `holds` are slots of concurrency groups that outlive
/// their jobs.
const V3: &str = "
ALTER TABLE builds ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0;
CREATE INDEX builds_blocked ON builds (key) WHERE blocked = 1;
CREATE TABLE holds (job BLOB PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Registered pipelines; `pipelines` has the last number of every name that ever had a build.
const V4: &str = "
CREATE TABLE registry (name TEXT PRIMARY KEY, definition BLOB, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX registry_definition ON registry (definition) WHERE definition IS NOT NULL;
";

/// How many builds were triggered below one, and schedules.
const V5: &str = "
CREATE TABLE lineages (root BLOB PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE schedules (id BLOB PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Artifacts: listed by build, found by id, let go by time; and by digest, so that a blob that a row names is never let go.
const V6: &str = "
CREATE TABLE artifacts (key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, build BLOB NOT NULL, digest BLOB NOT NULL,
    expires_at INTEGER NOT NULL, json TEXT NOT NULL) STRICT;
CREATE INDEX artifacts_build ON artifacts (build);
CREATE INDEX artifacts_digest ON artifacts (digest);
CREATE INDEX artifacts_expires ON artifacts (expires_at);
";

/// Secrets by the JSON of their names; their values are sealed under a key that is not here.
const V7: &str = "
CREATE TABLE secrets (name TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Texts of annotations; all else of them stands in their build's row.
const V8: &str = "
CREATE TABLE annotations (key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, build BLOB NOT NULL, text TEXT NOT NULL) STRICT;
CREATE INDEX annotations_build ON annotations (build);
";

/// Notifications: those that wait are loaded, the others are listed by build and let go by time.
const V9: &str = "
CREATE TABLE notifications (key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, build BLOB NOT NULL, finished_at INTEGER,
    json TEXT NOT NULL) STRICT;
CREATE INDEX notifications_build ON notifications (build);
CREATE INDEX notifications_waiting ON notifications (key) WHERE finished_at IS NULL;
CREATE INDEX notifications_finished ON notifications (finished_at) WHERE finished_at IS NOT NULL;
";

/// Caches by the JSON of their names. Numbers are given once: who has seen all up to one sees what is new after it.
const V10: &str = "
CREATE TABLE caches (key INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, json TEXT NOT NULL) STRICT;
";

/// Results that are used again, by the JSON of their names; which blobs they name, so that none of those is let go; those that
/// went; which attempts refer to the log of another one, and logs that are kept for them although their build is no more.
const V11: &str = "
CREATE TABLE reuse (key INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, source BLOB NOT NULL, json TEXT NOT NULL) STRICT;
CREATE INDEX reuse_source ON reuse (source);
CREATE TABLE reuse_outputs (name TEXT NOT NULL, digest BLOB NOT NULL, namespace TEXT NOT NULL, PRIMARY KEY (digest, name))
    STRICT, WITHOUT ROWID;
CREATE INDEX reuse_outputs_name ON reuse_outputs (name);
CREATE TABLE reuse_gone (name TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE replays (attempt BLOB PRIMARY KEY, source BLOB NOT NULL, build BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX replays_source ON replays (source);
CREATE INDEX replays_build ON replays (build);
CREATE TABLE kept_logs (attempt BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// Pins of builds, numbered as they were made, and the keys of the results that each of them holds.
const V12: &str = "
CREATE TABLE pins (key INTEGER PRIMARY KEY AUTOINCREMENT, build BLOB NOT NULL UNIQUE, pipeline TEXT NOT NULL,
    json TEXT NOT NULL) STRICT;
CREATE TABLE pinned_results (build BLOB NOT NULL, key BLOB NOT NULL, PRIMARY KEY (build, key)) STRICT, WITHOUT ROWID;
CREATE TABLE unpinned (build BLOB PRIMARY KEY, after INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Brings the file to the newest schema: refuses a newer one untouched, backs an older one up before it changes it.
pub(super) fn prepare(target: &Target, migrations: &[Migration]) -> Result<(), OpenError> {
    let known = migrations.last().map_or(0, |last| last.to);
    let fault = |e| fault_of("read the schema's version", e);
    // Version and emptiness are read before anything is changed, the journal's mode included.
    let mut conn = target.connect_to_write().map_err(fault)?;
    let found = version_of(&conn)?;
    if found > known {
        return Err(OpenError::NewerSchema { path: target.path.clone(), found, known });
    }
    let empty: bool = conn.query_row("SELECT count(*) = 0 FROM sqlite_master", [], |row| row.get(0)).map_err(fault)?;
    if found == known {
        return Ok(());
    }
    if !empty {
        if found == 0 {
            let detail = "an SQLite file without a schema version".to_owned();
            return Err(OpenError::Foreign { path: target.path.clone(), detail });
        }
        back_up(&conn, &target.path, found)?;
        tracing::info!(from = found, to = known, "store_migrating");
    }
    drop(conn);
    conn = super::writer_connection(target)?;
    for migration in migrations.iter().filter(|migration| migration.to > found) {
        migrate(&mut conn, *migration).map_err(|e| fault_of("migrate the store", e))?;
    }
    Ok(())
}

fn migrate(conn: &mut Connection, migration: Migration) -> rusqlite::Result<()> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    (migration.up)(&transaction)?;
    transaction.pragma_update(None, "user_version", migration.to)?;
    transaction.commit()
}

/// The schema's version; 0 in a file that is new.
pub(crate) fn version_of(conn: &Connection) -> Result<u32, Fault> {
    let read = conn.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let version = read.map_err(|e| fault_of("read the schema's version", e))?;
    u32::try_from(version).map_err(|_| Fault::Corrupt { detail: format!("schema version {version}") })
}

/// Copies the store as it is to `store.sqlite.v<N>.bak`, durably, before it is changed.
fn back_up(conn: &Connection, path: &Path, version: u32) -> Result<(), OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".v{version}.bak"));
    let kept = PathBuf::from(name);
    let unfinished = kept.with_extension("tmp");
    if unfinished.exists() {
        fs::remove_file(&unfinished).map_err(|e| OpenError::io("remove", &unfinished, e))?;
    }
    make_private(&unfinished).map_err(|e| OpenError::io("make", &unfinished, e))?;
    copy_into(conn, &unfinished).map_err(|e| fault_of("back the store up", e))?;
    let synced = File::open(&unfinished).and_then(|file| file.sync_all());
    synced.map_err(|e| OpenError::io("sync", &unfinished, e))?;
    fs::rename(&unfinished, &kept).map_err(|e| OpenError::io("rename", &unfinished, e))?;
    let dir = path.parent().unwrap_or(path);
    sync_dir(dir).map_err(|e| OpenError::io("sync", dir, e))
}

fn copy_into(conn: &Connection, path: &Path) -> rusqlite::Result<()> {
    /// Pages in one piece; nobody else uses the store while it is opened, so it may be large.
    const PAGES: i32 = 4_096;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut copy = Connection::open_with_flags(path, flags)?;
    Backup::new(conn, &mut copy)?.run_to_completion(PAGES, Duration::ZERO, None)?;
    copy.close().map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[Migration] = &[MIGRATIONS[0]];
    const NEXT: &[Migration] =
        &[MIGRATIONS[0], Migration { to: 2, up: |tx| tx.execute_batch("ALTER TABLE pools ADD COLUMN extra TEXT") }];

    fn target(dir: &Path) -> Target {
        Target { path: dir.join("store.sqlite"), vfs: None }
    }

    fn pools(path: &Path) -> (u32, i64, bool) {
        let conn = Connection::open(path).unwrap();
        let extra = conn.prepare("SELECT extra FROM pools").is_ok();
        (version_of(&conn).unwrap(), conn.query_row("SELECT count(*) FROM pools", [], |r| r.get(0)).unwrap(), extra)
    }

    #[test]
    fn an_older_schema_is_backed_up_and_then_migrated_with_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path());
        prepare(&target, FIRST).unwrap();
        Connection::open(&target.path).unwrap().execute_batch("INSERT INTO pools VALUES ('p', '{}')").unwrap();
        prepare(&target, NEXT).unwrap();
        assert_eq!(pools(&target.path), (2, 1, true));
        assert_eq!(pools(&dir.path().join("store.sqlite.v1.bak")), (1, 1, false));
    }

    #[test]
    fn a_store_of_the_first_schema_comes_to_the_newest_with_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path());
        prepare(&target, FIRST).unwrap();
        Connection::open(&target.path).unwrap().execute_batch("INSERT INTO pools VALUES ('p', '{}')").unwrap();
        prepare(&target, MIGRATIONS).unwrap();
        let (version, rows, _) = pools(&target.path);
        assert_eq!((version, rows), (SCHEMA_VERSION, 1));
        assert_eq!(pools(&dir.path().join("store.sqlite.v1.bak")), (1, 1, false));
    }

    #[test]
    fn a_newer_schema_is_refused_by_both_versions_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path());
        prepare(&target, NEXT).unwrap();
        let before = fs::read(&target.path).unwrap();
        match prepare(&target, FIRST) {
            Err(OpenError::NewerSchema { found: 2, known: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(&target.path).unwrap(), before);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_older_schema_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path());
        prepare(&target, FIRST).unwrap();
        let broken: &[Migration] = &[
            MIGRATIONS[0],
            Migration { to: 2, up: |tx| tx.execute_batch("ALTER TABLE pools ADD COLUMN extra TEXT; SELECT nonsense") },
        ];
        assert!(prepare(&target, broken).is_err());
        assert_eq!(pools(&target.path), (1, 0, false));
    }

    #[test]
    fn agents_that_left_before_their_time_of_leaving_was_kept_get_the_best_that_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path());
        prepare(&target, FIRST).unwrap();
        let conn = Connection::open(&target.path).unwrap();
        conn.execute_batch(
            r#"INSERT INTO agents VALUES (x'01', 1, '{"joined_at":1,"last_seen_at":7,"revoked_at":5}'),
                (x'02', 1, '{"joined_at":2,"last_seen_at":null}'), (x'03', 0, '{"joined_at":3,"last_seen_at":9}')"#,
        )
        .unwrap();
        drop(conn);
        prepare(&target, MIGRATIONS).unwrap();
        let conn = Connection::open(&target.path).unwrap();
        let mut statement = conn.prepare("SELECT gone_at FROM agents ORDER BY id").unwrap();
        let times =
            statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<Option<i64>>, _>>().unwrap();
        assert_eq!(times, [Some(7), Some(2), None]);
    }

    #[test]
    fn a_store_of_before_there_were_pins_is_backed_up_and_keeps_the_ends_of_its_artifacts() {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path());
        prepare(&target, &MIGRATIONS[..11]).unwrap();
        let conn = Connection::open(&target.path).unwrap();
        let sql = "INSERT INTO artifacts (id, build, digest, expires_at, json) VALUES (x'01', x'02', x'03', 7, '{}')";
        conn.execute_batch(sql).unwrap();
        drop(conn);
        prepare(&target, MIGRATIONS).unwrap();
        let conn = Connection::open(&target.path).unwrap();
        let one = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(one("SELECT expires_at FROM artifacts"), 7);
        assert_eq!(one("SELECT (SELECT count(*) FROM pins) + (SELECT count(*) FROM pinned_results)"), 0);
        let before = Connection::open(dir.path().join("store.sqlite.v11.bak")).unwrap();
        assert_eq!(version_of(&before).unwrap(), 11);
        assert!(before.prepare("SELECT * FROM pins").is_err());
    }

    #[test]
    fn somebody_elses_database_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path());
        Connection::open(&target.path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(matches!(prepare(&target, FIRST), Err(OpenError::Foreign { .. })));
    }

    #[test]
    fn the_list_of_migrations_ends_at_the_version_that_we_say() {
        let versions: Vec<u32> = MIGRATIONS.iter().map(|migration| migration.to).collect();
        assert_eq!(versions, (1..=SCHEMA_VERSION).collect::<Vec<u32>>());
    }
}
