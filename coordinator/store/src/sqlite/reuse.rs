//! Results that are used again: their rows, which blobs they name, and which logs are kept for whoever refers to them.
//!
//! A log is its attempt's, and goes with its build; but for as long as an entry or another attempt refers to it, it stays.

use rusqlite::{Connection, OptionalExtension as _, params};
use windlass_coordinator_core::row::{AttemptRow, ReuseGone, ReuseName, ReuseRow};
use windlass_protocol::{AttemptId, BuildId, limits};

use super::encode::{encode, fault_of, int};
use crate::fault::Fault;

/// Whether an entry or another attempt refers to an attempt's log.
const REFERRED: &str =
    "EXISTS (SELECT 1 FROM reuse WHERE source = ?1) OR EXISTS (SELECT 1 FROM replays WHERE source = ?1)";

fn failed(error: rusqlite::Error) -> Fault {
    fault_of("write a row", error)
}

/// Writes an entry. What it names is written once: of an entry that is only used, nothing else changes.
pub(super) fn write_reuse(conn: &Connection, row: &ReuseRow) -> Result<(), Fault> {
    let (name, source) = (encode(&row.name)?, row.from.attempt.as_bytes());
    let json = encode(row)?;
    let known = conn
        .prepare_cached("SELECT source FROM reuse WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([&name], |found| found.get::<_, [u8; 16]>(0)).optional());
    let same = known.map_err(failed)?.is_some_and(|known| known == *source);
    let namespace = encode(&row.name.namespace)?;
    let write = || {
        let sql = "INSERT INTO reuse (name, source, json) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE SET
            source = excluded.source, json = excluded.json";
        conn.prepare_cached(sql)?.execute(params![name, source, json])?;
        if same {
            return Ok(());
        }
        if row.from.fleet.is_some() {
            // No attempt of here has made it, whose going would ask for it.
            conn.prepare_cached("INSERT OR IGNORE INTO kept_logs (attempt) VALUES (?1)")?.execute([source])?;
        }
        conn.prepare_cached("DELETE FROM reuse_outputs WHERE name = ?1")?.execute([&name])?;
        let sql = "INSERT OR IGNORE INTO reuse_outputs (name, digest, namespace) VALUES (?1, ?2, ?3)";
        let mut statement = conn.prepare_cached(sql)?;
        for output in &row.outputs {
            statement.execute(params![name, output.digest.as_bytes(), namespace])?;
        }
        Ok(())
    };
    write().map_err(failed)
}

/// Deletes an entry; its blobs and its log go when nobody else names them.
pub(super) fn delete_reuse(conn: &Connection, name: &ReuseName) -> Result<(), Fault> {
    let name = encode(name)?;
    let delete = || {
        conn.prepare_cached("DELETE FROM reuse_outputs WHERE name = ?1")?.execute([&name])?;
        conn.prepare_cached("DELETE FROM reuse WHERE name = ?1")?.execute([&name]).map(drop)
    };
    delete().map_err(failed)
}

pub(super) fn write_gone(conn: &Connection, row: &ReuseGone) -> Result<(), Fault> {
    let sql = "INSERT INTO reuse_gone VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET json = excluded.json";
    let (name, json) = (encode(&row.name)?, encode(row)?);
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(params![name, json])).map(drop).map_err(failed)
}

pub(super) fn delete_gone(conn: &Connection, name: &ReuseName) -> Result<(), Fault> {
    let (sql, name) = ("DELETE FROM reuse_gone WHERE name = ?1", encode(name)?);
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute([&name])).map(drop).map_err(failed)
}

/// An attempt that is another one's result refers to its log.
pub(super) fn write_replay(conn: &Connection, row: &AttemptRow) -> Result<(), Fault> {
    let Some(from) = &row.reused else { return Ok(()) };
    let sql = "INSERT OR IGNORE INTO replays (attempt, source, build) VALUES (?1, ?2, ?3)";
    let params = params![row.id.as_bytes(), from.attempt.as_bytes(), row.build.as_bytes()];
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(params)).map(drop).map_err(failed)
}

/// A build goes: it refers to no log any more. How many rows that were.
pub(super) fn delete_replays(conn: &Connection, build: BuildId) -> rusqlite::Result<usize> {
    conn.prepare_cached("DELETE FROM replays WHERE build = ?1")?.execute([build.as_bytes()])
}

/// Whether the log of an attempt that goes stays, because somebody refers to it; then that is noted.
pub(super) fn keeps_log(conn: &Connection, attempt: AttemptId) -> rusqlite::Result<bool> {
    let sql = format!("INSERT OR IGNORE INTO kept_logs (attempt) SELECT ?1 WHERE {REFERRED}");
    Ok(conn.prepare_cached(&sql)?.execute([attempt.as_bytes()])? > 0)
}

/// Logs that were kept, and to which nobody refers any more: they go now.
pub(super) fn expire_logs(conn: &Connection) -> rusqlite::Result<Vec<AttemptId>> {
    let sql = "SELECT attempt FROM kept_logs AS kept WHERE NOT EXISTS (SELECT 1 FROM reuse WHERE source = kept.attempt)
        AND NOT EXISTS (SELECT 1 FROM replays WHERE source = kept.attempt) LIMIT ?1";
    let mut statement = conn.prepare_cached(sql)?;
    let found = statement.query_map([int(limits::EXPIRE_ROWS_MAX as u64)], |row| row.get::<_, [u8; 16]>(0))?;
    let going = found.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut statement = conn.prepare_cached("DELETE FROM kept_logs WHERE attempt = ?1")?;
    for attempt in &going {
        statement.execute([attempt])?;
    }
    Ok(going.into_iter().map(AttemptId::from_bytes).collect())
}
