//! One commit: the fence, the changes in order, the new position.

use rusqlite::{Connection, OptionalExtension as _, ToSql, params};
use windlass_coordinator_core::row::{
    AgentRow, ArtifactRow, AttemptRow, AuditRow, BuildRow, CacheRow, Change, EventRow, IdempotencyRow, JobRow, MetaRow,
    NotificationRow, PipelineRow,
};
use windlass_protocol::Digest;

use super::encode::{encode, fault_of, int, name_of, whole};
use super::expire::delete_definition;
use super::pin::{delete_pin, write_pin, write_pinned_result};
use super::reuse::{delete_gone, delete_reuse, write_gone, write_replay, write_reuse};
use crate::fault::Fault;
use crate::store::{EventSeq, Seq, WriterEpoch};

/// Where the store stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    pub(super) seq: Seq,
    pub(super) fence: WriterEpoch,
}

/// Reads the last commit's number and the epoch that may commit.
pub(super) fn position(conn: &Connection) -> Result<Position, Fault> {
    let statement = conn.prepare_cached("SELECT seq, fence FROM meta WHERE id = 1");
    let read = statement.and_then(|mut s| s.query_row([], |row| Ok((row.get(0)?, row.get(1)?))));
    let (seq, fence) = read.map_err(|e| fault_of("read the store's position", e))?;
    Ok(Position { seq: Seq(whole(seq)), fence: WriterEpoch(whole(fence)) })
}

/// The position, for the writer that holds the store only.
pub(super) fn fenced_position(conn: &Connection, epoch: WriterEpoch) -> Result<Seq, Fault> {
    let at = position(conn)?;
    if at.fence == epoch { Ok(at.seq) } else { Err(Fault::Fenced { held: at.fence, got: epoch }) }
}

/// Writes all changes and the next number, within the caller's transaction.
pub(super) fn commit(conn: &Connection, epoch: WriterEpoch, changes: &[Change]) -> Result<Seq, Fault> {
    let seq = Seq(fenced_position(conn, epoch)?.0 + 1);
    let mut events = 0_u32;
    for change in changes {
        if let Change::Event(event) = change {
            if events as usize >= EventSeq::PER_COMMIT_MAX {
                return Err(Fault::TooLarge { events: events as usize + 1 });
            }
            write_event(conn, EventSeq::new(seq, events), event)?;
            events += 1;
        } else {
            apply(conn, change)?;
        }
    }
    execute(conn, "UPDATE meta SET seq = ?1 WHERE id = 1", params![int(seq.0)])?;
    Ok(seq)
}

const PUT_TEXT: &str = "INSERT INTO annotations (id, build, text) VALUES (?1, ?2, ?3)
    ON CONFLICT (id) DO UPDATE SET text = excluded.text";
const ADD_TEXT: &str = "INSERT INTO annotations (id, build, text) VALUES (?1, ?2, ?3)
    ON CONFLICT (id) DO UPDATE SET text = text || excluded.text";

fn execute(conn: &Connection, sql: &str, params: &[&dyn ToSql]) -> Result<(), Fault> {
    let done = conn.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
    done.map(|_| ()).map_err(|e| fault_of("write a row", e))
}

/// Events are numbered by [`commit`]; everything else is an insert or a replacement by key.
fn apply(conn: &Connection, change: &Change) -> Result<(), Fault> {
    match change {
        Change::Meta(row) => write_meta(conn, row),
        Change::PipelineNumber { pipeline, last } => {
            let sql = "INSERT INTO pipelines VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET last = excluded.last";
            execute(conn, sql, params![pipeline, int(*last)])
        }
        Change::Pipeline(row) => write_pipeline(conn, row),
        Change::Build(row) => write_build(conn, row),
        Change::Job(row) => write_job(conn, row),
        Change::Attempt(row) => write_attempt(conn, row),
        Change::Pool(row) => {
            let sql = "INSERT INTO pools VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET json = excluded.json";
            execute(conn, sql, params![row.name, encode(row)?])
        }
        Change::Agent(row) => write_agent(conn, row),
        Change::Token(row) => {
            let sql = "INSERT INTO tokens VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET json = excluded.json";
            execute(conn, sql, params![row.id.as_bytes(), encode(row)?])
        }
        Change::TokenOver(id) => execute(conn, "DELETE FROM tokens WHERE id = ?1", params![id.as_bytes()]),
        Change::Pin(row) => write_pin(conn, row),
        Change::PinResult { build, key } => write_pinned_result(conn, *build, *key),
        Change::PinOver(build) => delete_pin(conn, *build),
        Change::Hold(row) => {
            let sql = "INSERT INTO holds VALUES (?1, ?2) ON CONFLICT (job) DO UPDATE SET json = excluded.json";
            execute(conn, sql, params![row.job.as_bytes(), encode(row)?])
        }
        Change::HoldOver(job) => execute(conn, "DELETE FROM holds WHERE job = ?1", params![job.as_bytes()]),
        Change::Schedule(row) => {
            let sql = "INSERT INTO schedules VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET json = excluded.json";
            execute(conn, sql, params![row.id.as_bytes(), encode(row)?])
        }
        Change::ScheduleOver(id) => execute(conn, "DELETE FROM schedules WHERE id = ?1", params![id.as_bytes()]),
        Change::Lineage(row) => {
            let sql = "INSERT INTO lineages VALUES (?1, ?2) ON CONFLICT (root) DO UPDATE SET json = excluded.json";
            execute(conn, sql, params![row.root.as_bytes(), encode(row)?])
        }
        Change::LineageOver(root) => execute(conn, "DELETE FROM lineages WHERE root = ?1", params![root.as_bytes()]),
        Change::Secret(row) => {
            let sql = "INSERT INTO secrets VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET json = excluded.json";
            execute(conn, sql, params![encode(&row.name)?, encode(row)?])
        }
        Change::Cache(row) => write_cache(conn, row),
        Change::CacheGone(name) => execute(conn, "DELETE FROM caches WHERE name = ?1", params![encode(name)?]),
        Change::Reuse(row) => write_reuse(conn, row),
        Change::ReuseOver(name) => delete_reuse(conn, name),
        Change::ReuseGone(row) => write_gone(conn, row),
        Change::ReuseGoneOver(name) => delete_gone(conn, name),
        Change::SecretGone(name) => execute(conn, "DELETE FROM secrets WHERE name = ?1", params![encode(name)?]),
        Change::AnnotationText { annotation, build, text, append } => {
            let sql = if *append { ADD_TEXT } else { PUT_TEXT };
            execute(conn, sql, params![annotation.as_bytes(), build.as_bytes(), text])
        }
        Change::AnnotationGone(id) => execute(conn, "DELETE FROM annotations WHERE id = ?1", params![id.as_bytes()]),
        Change::Idempotency(row) => write_idempotency(conn, row),
        Change::Audit(row) => write_audit(conn, row),
        Change::Event(_) => Ok(()),
        Change::Artifact(row) => write_artifact(conn, row),
        Change::Notification(row) => write_notification(conn, row),
        Change::Definition { digest, text } => write_definition(conn, *digest, text),
    }
}

fn write_meta(conn: &Connection, row: &MetaRow) -> Result<(), Fault> {
    execute(conn, "UPDATE meta SET json = ?1 WHERE id = 1", params![encode(row)?])
}

/// The definition that it had before goes if nobody else names it.
fn write_pipeline(conn: &Connection, row: &PipelineRow) -> Result<(), Fault> {
    let held = "SELECT definition FROM registry WHERE name = ?1 AND definition IS NOT NULL";
    let read = conn.prepare_cached(held).and_then(|mut statement| statement.query_row([&row.name], |r| r.get(0)));
    let before: Option<[u8; 32]> = read.optional().map_err(|e| fault_of("read a row", e))?;
    let sql =
        "INSERT INTO registry VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE SET definition = excluded.definition,
        json = excluded.json";
    let definition = row.definition.map(|digest| *digest.as_bytes());
    execute(conn, sql, params![row.name, definition, encode(row)?])?;
    match before.filter(|before| definition != Some(*before)) {
        Some(before) => delete_definition(conn, before).map(drop).map_err(|e| fault_of("delete a row", e)),
        None => Ok(()),
    }
}

/// Only what changes is in the update, so that the indexes of what does not are left alone.
fn write_build(conn: &Connection, row: &BuildRow) -> Result<(), Fault> {
    const SQL: &str = "INSERT INTO builds (id, pipeline, number, branch, definition, state, live, finished_at, json,
        blocked) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO UPDATE SET state = excluded.state,
        live = excluded.live, finished_at = excluded.finished_at, json = excluded.json, blocked = excluded.blocked";
    let live = !row.state.is_final();
    let finished_at = row.finished_at.map(|at| int(at.0));
    let (state, json) = (name_of(row.state)?, encode(row)?);
    let (id, number, definition) = (row.id.as_bytes(), int(row.number), row.definition.as_bytes());
    let blocked = row.blocked.is_some();
    let (pipeline, branch) = (&row.pipeline, &row.branch);
    execute(conn, SQL, params![id, pipeline, number, branch, definition, state, live, finished_at, json, blocked])
}

fn write_job(conn: &Connection, row: &JobRow) -> Result<(), Fault> {
    const SQL: &str = "INSERT INTO jobs (id, build, place, json) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (id) DO UPDATE SET json = excluded.json";
    execute(conn, SQL, params![row.id.as_bytes(), row.build.as_bytes(), row.index, encode(row)?])
}

fn write_attempt(conn: &Connection, row: &AttemptRow) -> Result<(), Fault> {
    const SQL: &str = "INSERT INTO attempts (id, build, json) VALUES (?1, ?2, ?3)
        ON CONFLICT (id) DO UPDATE SET json = excluded.json";
    execute(conn, SQL, params![row.id.as_bytes(), row.build.as_bytes(), encode(row)?])?;
    write_replay(conn, row)
}

fn write_agent(conn: &Connection, row: &AgentRow) -> Result<(), Fault> {
    const SQL: &str = "INSERT INTO agents (id, gone, json, gone_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id)
        DO UPDATE SET gone = excluded.gone, json = excluded.json, gone_at = excluded.gone_at";
    let gone_at = row.gone.is_some().then(|| int(row.gone_since().0));
    execute(conn, SQL, params![row.id.as_bytes(), row.gone.is_some(), encode(row)?, gone_at])
}

fn write_idempotency(conn: &Connection, row: &IdempotencyRow) -> Result<(), Fault> {
    let (token, key) = &row.key;
    let sql = "INSERT OR REPLACE INTO idempotency VALUES (?1, ?2, ?3, ?4)";
    execute(conn, sql, params![token.as_bytes(), key, int(row.at.0), encode(row)?])
}

fn write_audit(conn: &Connection, row: &AuditRow) -> Result<(), Fault> {
    execute(conn, "INSERT INTO audit (at, json) VALUES (?1, ?2)", params![int(row.at.0), encode(row)?])
}

fn write_event(conn: &Connection, seq: EventSeq, row: &EventRow) -> Result<(), Fault> {
    let sql = "INSERT INTO events VALUES (?1, ?2, ?3)";
    execute(conn, sql, params![row.build.as_bytes(), int(seq.0), encode(row)?])
}

fn write_artifact(conn: &Connection, row: &ArtifactRow) -> Result<(), Fault> {
    let sql = "INSERT INTO artifacts (id, build, digest, expires_at, json) VALUES (?1, ?2, ?3, ?4, ?5)";
    let (id, build, digest) = (row.id.as_bytes(), row.build.as_bytes(), row.digest.as_bytes());
    execute(conn, sql, params![id, build, digest, int(row.expires_at.0), encode(row)?])
}

fn write_notification(conn: &Connection, row: &NotificationRow) -> Result<(), Fault> {
    let sql = "INSERT INTO notifications (id, build, finished_at, json) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (id) DO UPDATE SET finished_at = excluded.finished_at, json = excluded.json";
    let finished_at = row.finished_at.map(|at| int(at.0));
    execute(conn, sql, params![row.id.as_bytes(), row.build.as_bytes(), finished_at, encode(row)?])
}

/// The row keeps its number for as long as it is there, whatever changes in it.
fn write_cache(conn: &Connection, row: &CacheRow) -> Result<(), Fault> {
    let sql = "INSERT INTO caches (name, json) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET json = excluded.json";
    execute(conn, sql, params![encode(&row.name)?, encode(row)?])
}

fn write_definition(conn: &Connection, digest: Digest, text: &str) -> Result<(), Fault> {
    let sql = "INSERT INTO definitions (digest, text) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING";
    execute(conn, sql, params![digest.as_bytes(), text])
}
