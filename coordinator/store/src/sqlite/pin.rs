//! Pins of builds: their rows, and that nothing of a pinned build goes by its age.
//!
//! A pin is one row, and its end is one: retention moves the artifacts, a piece at a time. One of a pinned build whose time is over
//! is moved past the end of the index that retention goes through, once, so that it costs nothing for as long as it is pinned; its
//! own end stays in its row. A build whose pin is over stands among `unpinned` until all of its artifacts are back at their own ends
//! and the results that the pin held are out of the table.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use windlass_coordinator_core::row::PinRow;
use windlass_protocol::{BuildId, Digest};

use super::encode::{decode, encode, fault_of, int, whole};
use crate::fault::Fault;
use crate::store::Pinned;

/// Where artifacts of pinned builds stand: after every moment.
pub(crate) const NEVER: i64 = i64::MAX;

fn failed(error: rusqlite::Error) -> Fault {
    fault_of("write a pin", error)
}

/// The end that an artifact's row itself has.
pub(crate) const OWN_END: &str = "CAST(json_extract(json, '$.expires_at') AS INTEGER)";

/// Writes a pin. A new one takes over what an earlier one has moved, and nothing of what that held.
pub(super) fn write_pin(conn: &Connection, row: &PinRow) -> Result<(), Fault> {
    let (build, json) = (row.build.as_bytes(), encode(row)?);
    let write = || {
        let sql = "UPDATE pins SET json = ?2 WHERE build = ?1";
        if conn.prepare_cached(sql)?.execute(params![build, json])? > 0 {
            return Ok(());
        }
        conn.prepare_cached("DELETE FROM unpinned WHERE build = ?1")?.execute([build])?;
        conn.prepare_cached("DELETE FROM pinned_results WHERE build = ?1")?.execute([build])?;
        let sql = "INSERT INTO pins (build, pipeline, json) VALUES (?1, ?2, ?3)";
        conn.prepare_cached(sql)?.execute(params![build, row.pipeline, json]).map(drop)
    };
    write().map_err(failed)
}

/// Writes that a pin holds a result.
pub(super) fn write_pinned_result(conn: &Connection, build: BuildId, key: Digest) -> Result<(), Fault> {
    let sql = "INSERT OR IGNORE INTO pinned_results (build, key) VALUES (?1, ?2)";
    let written =
        conn.prepare_cached(sql).and_then(|mut statement| statement.execute(params![build.as_bytes(), key.as_bytes()]));
    written.map(drop).map_err(failed)
}

/// Deletes a pin; what it has moved comes back with retention ([`let_go`]).
pub(super) fn delete_pin(conn: &Connection, build: BuildId) -> Result<(), Fault> {
    let build = build.as_bytes();
    let delete = || {
        if conn.prepare_cached("DELETE FROM pins WHERE build = ?1")?.execute([build])? == 0 {
            return Ok(());
        }
        conn.prepare_cached("INSERT OR REPLACE INTO unpinned (build, after) VALUES (?1, 0)")?.execute([build]).map(drop)
    };
    delete().map_err(failed)
}

/// Brings artifacts whose pins are over back to their own ends, and lets go of the results of those pins: a piece of so many rows.
/// How many that were.
pub(super) fn let_go(conn: &Connection, max: usize) -> rusqlite::Result<usize> {
    let mut rows = 0;
    while rows < max {
        let mut statement = conn.prepare_cached("SELECT build, after FROM unpinned LIMIT 1")?;
        let found =
            statement.query_row([], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?))).optional()?;
        let Some((build, after)) = found else { break };
        let sql = "DELETE FROM pinned_results WHERE build = ?1 AND key IN
            (SELECT key FROM pinned_results WHERE build = ?1 LIMIT ?2)";
        rows += conn.prepare_cached(sql)?.execute(params![build, int((max - rows) as u64)])?;
        let left = max.saturating_sub(rows);
        let (looked, last) = return_artifacts(conn, build, after, left)?;
        if looked < left {
            rows += conn.prepare_cached("DELETE FROM unpinned WHERE build = ?1")?.execute([build])?;
        } else {
            conn.prepare_cached("UPDATE unpinned SET after = ?2 WHERE build = ?1")?.execute(params![build, last])?;
        }
        rows += looked;
    }
    Ok(rows)
}

/// Brings a piece of a build's artifacts, after this one, back to their own ends: how many it looked at, and the last of them.
fn return_artifacts(conn: &Connection, build: [u8; 16], after: i64, max: usize) -> rusqlite::Result<(usize, i64)> {
    let sql = "SELECT count(*), coalesce(max(key), ?2) FROM
        (SELECT key FROM artifacts WHERE build = ?1 AND key > ?2 ORDER BY key LIMIT ?3)";
    let (looked, last): (i64, i64) = (conn.prepare_cached(sql)?)
        .query_row(params![build, after, int(max as u64)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // By the build's index: past the other's end stand those of all pinned builds.
    let sql = format!(
        "UPDATE artifacts SET expires_at = {OWN_END} WHERE build = ?1 AND key > ?2 AND key <= ?3 AND +expires_at = ?4"
    );
    conn.prepare_cached(&sql)?.execute(params![build, after, last, NEVER])?;
    Ok((usize::try_from(looked).unwrap_or(max), last))
}

/// All keys of results that pins hold; those of pins that are over are left out.
pub(super) fn pinned_results(conn: &Connection) -> Result<Vec<(BuildId, Digest)>, Fault> {
    let read = || {
        let mut statement =
            conn.prepare_cached("SELECT build, key FROM pinned_results WHERE build IN (SELECT build FROM pins)")?;
        let rows =
            statement.query_map([], |row| Ok((BuildId::from_bytes(row.get(0)?), Digest::from_bytes(row.get(1)?))))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().map_err(|e| fault_of("load pins", e))
}

/// A build's pin.
pub(super) fn pin_row(conn: &Connection, build: BuildId) -> Result<Option<PinRow>, Fault> {
    let found = conn
        .prepare_cached("SELECT json FROM pins WHERE build = ?1")
        .and_then(|mut statement| statement.query_row([build.as_bytes()], |row| row.get::<_, String>(0)).optional());
    found.map_err(|e| fault_of("read a pin", e))?.map(|json| decode("pin", &json)).transpose()
}

/// Pins that a condition names, newest first, with how many results each holds, and with the keys of their rows.
pub(super) fn pins_where(
    conn: &Connection,
    condition: &'static str,
    params: &[Value],
) -> Result<Vec<(u64, Pinned)>, Fault> {
    let sql = format!(
        "SELECT key, json, (SELECT count(*) FROM pinned_results AS held WHERE held.build = pins.build) FROM pins
            WHERE {condition}"
    );
    let read = || {
        let mut statement = conn.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(params), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let rows = read().map_err(|e| fault_of("read pins", e))?;
    let pinned = |(key, json, results): (i64, String, i64)| {
        Ok((whole(key), Pinned { row: decode("pin", &json)?, results: whole(results) }))
    };
    rows.into_iter().map(pinned).collect()
}

/// A build's pin, with how many results it holds.
pub(super) fn pin_of(conn: &Connection, build: BuildId) -> Result<Option<Pinned>, Fault> {
    let found = pins_where(conn, "build = ?1", &[Value::Blob(build.as_bytes().to_vec())])?;
    Ok(found.into_iter().next().map(|(_, pin)| pin))
}

/// Artifacts of a build that are there, and their bytes.
pub(super) fn artifacts_there(conn: &Connection, build: BuildId) -> Result<(u64, u64), Fault> {
    let sql = "SELECT count(*), coalesce(sum(json_extract(json, '$.bytes')), 0) FROM artifacts WHERE build = ?1";
    let found = conn.prepare_cached(sql).and_then(|mut statement| {
        statement.query_row([build.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
    });
    let (files, bytes) = found.map_err(|e| fault_of("count artifacts", e))?;
    Ok((whole(files), whole(bytes)))
}
