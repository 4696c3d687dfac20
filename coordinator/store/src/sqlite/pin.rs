//! Pins of builds: their rows, and that nothing of a pinned build goes by its age.
//!
//! A pinned artifact stands past the end of the index that retention goes through, so that it costs nothing for as long as it is
//! pinned; its own end stays in its row, and comes back when the pin is over.

use rusqlite::{Connection, OptionalExtension as _, params};
use windlass_coordinator_core::row::{ArtifactRow, PinRow};
use windlass_protocol::{BuildId, Digest, WallMs};

use super::encode::{decode, encode, fault_of};
use crate::fault::Fault;
use crate::store::Pinned;

/// Where artifacts of pinned builds stand: after every moment.
pub(super) const NEVER: i64 = i64::MAX;

fn failed(error: rusqlite::Error) -> Fault {
    fault_of("write a pin", error)
}

/// Writes a pin; with a new one the build's artifacts stay.
pub(super) fn write_pin(conn: &Connection, row: &PinRow) -> Result<(), Fault> {
    let (build, json) = (row.build.as_bytes(), encode(row)?);
    let write = || {
        let sql = "UPDATE pins SET json = ?2 WHERE build = ?1";
        if conn.prepare_cached(sql)?.execute(params![build, json])? > 0 {
            return Ok(());
        }
        let sql = "INSERT INTO pins (build, pipeline, json) VALUES (?1, ?2, ?3)";
        conn.prepare_cached(sql)?.execute(params![build, row.pipeline, json])?;
        let sql = "UPDATE artifacts SET expires_at = ?2 WHERE build = ?1";
        conn.prepare_cached(sql)?.execute(params![build, NEVER]).map(drop)
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

/// Deletes a pin; the build's artifacts end as their rows say.
pub(super) fn delete_pin(conn: &Connection, build: BuildId) -> Result<(), Fault> {
    let build = build.as_bytes();
    let delete = || {
        conn.prepare_cached("DELETE FROM pinned_results WHERE build = ?1")?.execute([build])?;
        if conn.prepare_cached("DELETE FROM pins WHERE build = ?1")?.execute([build])? == 0 {
            return Ok(());
        }
        let sql =
            "UPDATE artifacts SET expires_at = CAST(json_extract(json, '$.expires_at') AS INTEGER) WHERE build = ?1";
        conn.prepare_cached(sql)?.execute([build]).map(drop)
    };
    delete().map_err(failed)
}

/// All keys of results that pins hold.
pub(super) fn pinned_results(conn: &Connection) -> Result<Vec<(BuildId, Digest)>, Fault> {
    let read = || {
        let mut statement = conn.prepare_cached("SELECT build, key FROM pinned_results")?;
        let rows =
            statement.query_map([], |row| Ok((BuildId::from_bytes(row.get(0)?), Digest::from_bytes(row.get(1)?))))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().map_err(|e| fault_of("load pins", e))
}

/// A build's pin, with how many results it holds.
pub(super) fn pin_of(conn: &Connection, build: BuildId) -> Result<Option<Pinned>, Fault> {
    let sql = "SELECT json, (SELECT count(*) FROM pinned_results AS held WHERE held.build = pins.build)
        FROM pins WHERE build = ?1";
    let found = conn.prepare_cached(sql).and_then(|mut statement| {
        statement.query_row([build.as_bytes()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?))).optional()
    });
    let found = found.map_err(|e| fault_of("read a pin", e))?;
    found.map(|(json, results)| Ok(Pinned { row: decode("pin", &json)?, results: results.into() })).transpose()
}

/// An artifact goes when its time is over, and not before its build's pin ends.
pub(super) fn stay(mut row: ArtifactRow, pin_ends: Option<WallMs>) -> ArtifactRow {
    row.expires_at = row.expires_at.max(pin_ends.unwrap_or(WallMs(0)));
    row
}

/// Artifacts of a build that are there, and their bytes.
pub(super) fn artifacts_there(conn: &Connection, build: BuildId) -> Result<(u64, u64), Fault> {
    let sql = "SELECT count(*), coalesce(sum(json_extract(json, '$.bytes')), 0) FROM artifacts WHERE build = ?1";
    let found = conn.prepare_cached(sql).and_then(|mut statement| {
        statement.query_row([build.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
    });
    let (files, bytes) = found.map_err(|e| fault_of("count artifacts", e))?;
    Ok((super::encode::whole(files), super::encode::whole(bytes)))
}
