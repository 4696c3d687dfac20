//! Deletes what is past its retention, whole builds in bounded pieces.

use rusqlite::{Connection, params};
use windlass_protocol::{AttemptId, BuildId, Digest, limits};

use super::encode::{fault_of, int};
use super::pin::{NEVER, let_go};
use super::reuse::{delete_replays, expire_logs, keeps_log};
use super::write::fenced_position;
use crate::fault::Fault;
use crate::store::{Expired, Retention, WriterEpoch};

/// One piece, within the caller's transaction.
pub(super) fn expire(conn: &Connection, epoch: WriterEpoch, retention: Retention) -> Result<Expired, Fault> {
    fenced_position(conn, epoch)?;
    let delete = || {
        let mut expired = Expired::default();
        let mut rows = expire_idempotency(conn, retention)?;
        expired.agents = expire_agents(conn, retention)?;
        expired.audit_lines = expire_audit(conn, retention)?;
        let (rows_of_artifacts, deleted) = expire_artifacts(conn, retention)?;
        (rows, expired.artifacts) = (rows + rows_of_artifacts, deleted);
        expired.notifications = expire_notifications(conn, retention)?;
        expired.attempts = expire_logs(conn)?;
        rows += expired.attempts.len();
        rows += expired.agents + expired.audit_lines + expired.notifications;
        expired.more = rows >= limits::EXPIRE_ROWS_MAX;
        for (build, definition) in ended(conn, retention)? {
            if rows >= limits::EXPIRE_ROWS_MAX || expired.builds.len() >= retention.max_builds {
                expired.more = true;
                break;
            }
            rows += delete_build(conn, build, &mut expired)?;
            if delete_definition(conn, definition)? {
                expired.definitions.push(Digest::from_bytes(definition));
            }
        }
        Ok(expired)
    };
    delete().map_err(|e| fault_of("delete what is past its retention", e))
}

fn expire_idempotency(conn: &Connection, retention: Retention) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM idempotency WHERE (token, key) IN
        (SELECT token, key FROM idempotency WHERE at < ?1 ORDER BY at LIMIT ?2)";
    let max = int(limits::EXPIRE_ROWS_MAX as u64);
    conn.prepare_cached(sql)?.execute(params![int(retention.idempotency_before.0), max])
}

fn expire_agents(conn: &Connection, retention: Retention) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM agents WHERE id IN
        (SELECT id FROM agents WHERE gone_at < ?1 ORDER BY gone_at LIMIT ?2)";
    let max = int(limits::EXPIRE_ROWS_MAX as u64);
    conn.prepare_cached(sql)?.execute(params![int(retention.agents_before.0), max])
}

/// Lines are written in the order of time, so the first ones are the oldest, and those alone are looked at.
fn expire_audit(conn: &Connection, retention: Retention) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM audit WHERE key IN
        (SELECT key FROM (SELECT key, at FROM audit ORDER BY key LIMIT ?2) WHERE at < ?1)";
    let max = int(limits::EXPIRE_ROWS_MAX as u64);
    conn.prepare_cached(sql)?.execute(params![int(retention.audit_before.0), max])
}

/// Deletes artifacts whose time is over, and moves those of pinned builds out of the way; so many rows, and those that it deleted.
fn expire_artifacts(conn: &Connection, retention: Retention) -> rusqlite::Result<(usize, usize)> {
    // Those that were moved stand after every moment.
    let (at, max) = (int(retention.artifacts_at.0).min(NEVER - 1), limits::EXPIRE_ROWS_MAX);
    let returned = let_go(conn, max)?;
    let left = |rows: usize| int(max.saturating_sub(rows) as u64);
    // By the keys of the piece, not by all that pinned builds have.
    let sql = "UPDATE artifacts SET expires_at = ?3 WHERE +build IN (SELECT build FROM pins) AND key IN
        (SELECT key FROM artifacts WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
    let moved = conn.prepare_cached(sql)?.execute(params![at, left(returned), NEVER])?;
    let sql = "DELETE FROM artifacts WHERE build NOT IN (SELECT build FROM pins) AND key IN
        (SELECT key FROM artifacts WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
    let deleted = conn.prepare_cached(sql)?.execute(params![at, left(returned + moved)])?;
    Ok((returned + moved + deleted, deleted))
}

fn expire_notifications(conn: &Connection, retention: Retention) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM notifications WHERE key IN
        (SELECT key FROM notifications WHERE finished_at < ?1 ORDER BY finished_at LIMIT ?2)";
    let max = int(limits::EXPIRE_ROWS_MAX as u64);
    conn.prepare_cached(sql)?.execute(params![int(retention.notifications_before.0), max])
}

/// The oldest builds that may go and that nobody has pinned, one more than the piece holds.
fn ended(conn: &Connection, retention: Retention) -> rusqlite::Result<Vec<([u8; 16], [u8; 32])>> {
    let sql = "SELECT id, definition FROM builds WHERE live = 0 AND finished_at < ?1 AND id NOT IN
        (SELECT build FROM pins) ORDER BY finished_at LIMIT ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let max = int(retention.max_builds as u64 + 1);
    let found = statement.query_map(params![int(retention.builds_before.0), max], |r| Ok((r.get(0)?, r.get(1)?)))?;
    found.collect()
}

/// Deletes a build with everything of it; how many rows that were.
fn delete_build(conn: &Connection, build: [u8; 16], expired: &mut Expired) -> rusqlite::Result<usize> {
    let mut statement = conn.prepare_cached("SELECT id FROM attempts WHERE build = ?1 ORDER BY key")?;
    let ids = statement.query_map([build], |row| row.get(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut rows = delete_replays(conn, BuildId::from_bytes(build))?;
    for id in ids.into_iter().map(AttemptId::from_bytes) {
        if !keeps_log(conn, id)? {
            expired.attempts.push(id);
        }
    }
    for sql in [
        "DELETE FROM events WHERE build = ?1",
        "DELETE FROM artifacts WHERE build = ?1",
        "DELETE FROM unpinned WHERE build = ?1",
        "DELETE FROM pinned_results WHERE build = ?1",
        "DELETE FROM annotations WHERE build = ?1",
        // One that still waits goes by its time, once it is over.
        "DELETE FROM notifications WHERE build = ?1 AND finished_at IS NOT NULL",
        "DELETE FROM attempts WHERE build = ?1",
        "DELETE FROM jobs WHERE build = ?1",
        "DELETE FROM builds WHERE id = ?1",
    ] {
        rows += conn.prepare_cached(sql)?.execute([build])?;
    }
    expired.builds.push(BuildId::from_bytes(build));
    Ok(rows)
}

/// Deletes a pipeline's text if neither a build nor a registered pipeline names it any more.
pub(super) fn delete_definition(conn: &Connection, digest: [u8; 32]) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM definitions WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM builds WHERE definition = ?1)
        AND NOT EXISTS (SELECT 1 FROM registry WHERE definition = ?1)";
    Ok(conn.prepare_cached(sql)?.execute([digest])? > 0)
}
