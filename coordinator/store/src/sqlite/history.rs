//! Reads finished and running builds, on connections of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use windlass_coordinator_core::row::{
    AgentRow, Annotation, ArtifactRow, AttemptRow, AuditRow, BuildRow, BuildRows, CacheRow, JobRow, NotificationRow,
};
use windlass_protocol::{AnnotationId, ArtifactId, AttemptId, BuildId, Digest, JobId, Namespace, TokenId, limits};

use super::encode::{decode, fault_of, int, name_of, whole};
use super::load::json_rows;
use super::pin::{artifacts_there, pin_of, pin_row, pins_where};
use super::{Target, seq_of};
use crate::fault::Fault;
use crate::store::{
    ArtifactFilter, BuildFilter, Cursor, EventSeq, History, Page, PinGround, Pinned, Seq, StoredEvent, in_order,
};

/// Reads what is stored; clones share a few connections.
#[derive(Debug, Clone)]
pub struct SqliteHistory {
    readers: Arc<Readers>,
}

#[derive(Debug)]
struct Readers {
    target: Target,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Connection>,
    /// Idle and in use.
    open: usize,
}

/// A connection that goes back when it is dropped.
struct Reader<'a> {
    readers: &'a Readers,
    conn: Option<Connection>,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut pool = self.readers.pool.lock().unwrap_or_else(PoisonError::into_inner);
        match self.conn.take() {
            Some(conn) => pool.idle.push(conn),
            None => pool.open -= 1,
        }
        self.readers.returned.notify_one();
    }
}

impl Readers {
    /// Takes an idle connection, opens one while there are few, or waits for one.
    fn take(&self) -> Result<Reader<'_>, Fault> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(conn) = pool.idle.pop() {
                return Ok(Reader { readers: self, conn: Some(conn) });
            }
            if pool.open < limits::HISTORY_READERS_MAX {
                pool.open += 1;
                drop(pool);
                // Counted first: dropping the reader takes it from the count again if it cannot be opened.
                let mut reader = Reader { readers: self, conn: None };
                reader.conn = Some(self.target.connect_to_read().map_err(|e| fault_of("open history", e))?);
                return Ok(reader);
            }
            pool = self.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl SqliteHistory {
    pub(super) fn new(target: Target) -> Self {
        Self { readers: Arc::new(Readers { target, pool: Mutex::default(), returned: Condvar::new() }) }
    }

    /// Reads as of one commit.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut reader = self.readers.take()?;
        let Some(conn) = reader.conn.as_mut() else {
            return Err(Fault::Io { doing: "read history", detail: "no connection".to_owned() });
        };
        let transaction = conn.transaction().map_err(|e| fault_of("begin to read", e))?;
        work(&transaction)
    }

    fn one<T>(
        &self,
        sql: &str,
        key: &[u8],
        of: fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Fault> {
        self.read(|conn| {
            let found = conn.prepare_cached(sql).and_then(|mut s| s.query_row([key], of).optional());
            found.map_err(|e| fault_of("read history", e))
        })
    }
}

/// A page of `limit` out of `limit + 1` rows found, each with its key.
fn page<T>(mut found: Vec<(u64, T)>, limit: usize) -> Page<T> {
    let more = found.len() > limit;
    found.truncate(limit);
    let next = if more { found.last().map(|(key, _)| Cursor(*key)) } else { None };
    Page { items: found.into_iter().map(|(_, row)| row).collect(), next }
}

/// What a caller may ask for at once.
fn bounded(limit: usize) -> usize {
    limit.clamp(1, limits::PAGE_MAX_ITEMS)
}

fn keyed_rows<T: serde::de::DeserializeOwned>(
    conn: &Connection,
    what: &'static str,
    sql: &str,
    params: &[Value],
) -> Result<Vec<(u64, T)>, Fault> {
    let fault = |e| fault_of("read a list", e);
    let mut statement = conn.prepare_cached(sql).map_err(fault)?;
    let mut rows = statement.query(params_from_iter(params)).map_err(fault)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(fault)? {
        let (key, json): (i64, String) = (row.get(0).map_err(fault)?, row.get(1).map_err(fault)?);
        found.push((whole(key), decode(what, &json)?));
    }
    Ok(found)
}

/// The query of a list of builds. Within one pipeline the order is by number, else by the order of submits: the same
/// thing, each with an index of its own.
fn builds_query(filter: &BuildFilter, after: Option<Cursor>, limit: usize) -> Result<(String, Vec<Value>), Fault> {
    let key = if filter.pipeline.is_some() { "number" } else { "key" };
    let mut params = Vec::new();
    let mut sql = format!("SELECT {key}, json FROM builds WHERE {key} < ?");
    params.push(Value::Integer(after.map_or(i64::MAX, |cursor| int(cursor.0))));
    if let Some(pipeline) = &filter.pipeline {
        sql.push_str(" AND pipeline = ?");
        params.push(Value::Text(pipeline.clone()));
    }
    if let Some(state) = filter.state {
        // The literal lets SQLite use the index of running or of finished builds.
        sql.push_str(if state.is_final() { " AND live = 0 AND state = ?" } else { " AND live = 1 AND state = ?" });
        params.push(Value::Text(name_of(state)?));
    }
    if filter.blocked {
        sql.push_str(" AND blocked = 1");
    }
    if let Some(branch) = &filter.branch {
        sql.push_str(" AND branch = ?");
        params.push(Value::Text(branch.clone()));
    }
    sql.push_str(&format!(" ORDER BY {key} DESC LIMIT ?"));
    params.push(Value::Integer(int(limit as u64 + 1)));
    Ok((sql, params))
}

fn whole_build(conn: &Connection, id: BuildId) -> Result<Option<BuildRows>, Fault> {
    let key = id.as_bytes();
    let found: Vec<BuildRow> = json_rows(conn, "build", "SELECT json FROM builds WHERE id = ?1", [key])?;
    let Some(build) = found.into_iter().next() else { return Ok(None) };
    let jobs = json_rows(conn, "job", "SELECT json FROM jobs WHERE build = ?1 ORDER BY place", [key])?;
    let sql = "SELECT json FROM attempts WHERE build = ?1 ORDER BY key";
    let attempts = json_rows(conn, "attempt", sql, [key])?;
    Ok(Some(BuildRows { build, jobs, attempts }))
}

/// Row by row by their keys: as many look-ups as rows, however large the build is.
fn some_jobs(conn: &Connection, id: BuildId, asked: &[JobId]) -> Result<Option<BuildRows>, Fault> {
    let found: Vec<BuildRow> = json_rows(conn, "build", "SELECT json FROM builds WHERE id = ?1", [id.as_bytes()])?;
    let Some(build) = found.into_iter().next() else { return Ok(None) };
    let (mut jobs, mut attempts) = (BTreeMap::<u32, JobRow>::new(), BTreeSet::new());
    let sql = "SELECT json FROM jobs WHERE id = ?1 AND build = ?2";
    for job in asked {
        let found: Vec<JobRow> = json_rows(conn, "job", sql, params![job.as_bytes(), id.as_bytes()])?;
        jobs.extend(found.into_iter().map(|job| (job.index, job)));
    }
    let edges = jobs.values().flat_map(|job| &job.node.depends_on).map(|edge| edge.node);
    let needed: BTreeSet<u32> = edges.filter(|node| !jobs.contains_key(node)).collect();
    attempts.extend(jobs.values().flat_map(|job| &job.attempts).copied());
    let sql = "SELECT json FROM jobs WHERE build = ?1 AND place = ?2";
    for place in needed {
        let found: Vec<JobRow> = json_rows(conn, "job", sql, params![id.as_bytes(), place])?;
        jobs.extend(found.into_iter().map(|job| (job.index, job)));
    }
    let mut rows = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        let sql = "SELECT json FROM attempts WHERE id = ?1";
        rows.extend(json_rows::<AttemptRow>(conn, "attempt", sql, [attempt.as_bytes()])?);
    }
    Ok(Some(BuildRows { build, jobs: jobs.into_values().collect(), attempts: rows }))
}

impl History for SqliteHistory {
    fn seq(&self) -> Result<Seq, Fault> {
        self.read(seq_of)
    }

    fn build(&self, id: BuildId) -> Result<Option<BuildRows>, Fault> {
        self.read(|conn| whole_build(conn, id))
    }

    fn some_jobs(&self, id: BuildId, jobs: &[JobId]) -> Result<Option<BuildRows>, Fault> {
        self.read(|conn| some_jobs(conn, id, jobs))
    }

    fn build_by_number(&self, pipeline: &str, number: u64) -> Result<Option<BuildId>, Fault> {
        let sql = "SELECT id FROM builds WHERE pipeline = ?1 AND number = ?2";
        self.read(|conn| {
            let statement = conn.prepare_cached(sql);
            let found =
                statement.and_then(|mut s| s.query_row(params![pipeline, int(number)], |r| r.get(0)).optional());
            found.map(|id| id.map(BuildId::from_bytes)).map_err(|e| fault_of("read history", e))
        })
    }

    fn builds(&self, filter: &BuildFilter, after: Option<Cursor>, limit: usize) -> Result<Page<BuildRow>, Fault> {
        let limit = bounded(limit);
        let (sql, params) = builds_query(filter, after, limit)?;
        self.read(|conn| Ok(page(keyed_rows(conn, "build", &sql, &params)?, limit)))
    }

    fn job_build(&self, job: JobId) -> Result<Option<BuildId>, Fault> {
        let found = self.one("SELECT build FROM jobs WHERE id = ?1", job.as_bytes(), |row| row.get(0));
        Ok(found?.map(BuildId::from_bytes))
    }

    fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, Fault> {
        let found = self.one("SELECT json FROM attempts WHERE id = ?1", id.as_bytes(), |row| row.get::<_, String>(0));
        found?.map(|json| decode("attempt", &json)).transpose()
    }

    fn events(&self, build: BuildId, after: EventSeq, limit: usize) -> Result<Vec<StoredEvent>, Fault> {
        let sql = "SELECT seq, json FROM events WHERE build = ? AND seq > ? ORDER BY seq LIMIT ?";
        let limit = limit.clamp(1, limits::WATCHER_BUFFER_MAX);
        let params =
            [Value::Blob(build.as_bytes().to_vec()), Value::Integer(int(after.0)), Value::Integer(int(limit as u64))];
        let found = self.read(|conn| keyed_rows(conn, "event", sql, &params))?;
        Ok(found.into_iter().map(|(seq, row)| StoredEvent { seq: EventSeq(seq), row }).collect())
    }

    fn annotations(&self, build: BuildId) -> Result<Vec<(Annotation, String)>, Fault> {
        self.read(|conn| {
            let key = build.as_bytes();
            let found: Vec<BuildRow> = json_rows(conn, "build", "SELECT json FROM builds WHERE id = ?1", [key])?;
            let Some(build) = found.into_iter().next() else { return Ok(Vec::new()) };
            let read = || {
                let mut statement = conn.prepare_cached("SELECT id, text FROM annotations WHERE build = ?1")?;
                let rows =
                    statement.query_map([key], |row| Ok((AnnotationId::from_bytes(row.get(0)?), row.get(1)?)))?;
                rows.collect::<rusqlite::Result<BTreeMap<AnnotationId, String>>>()
            };
            Ok(in_order(build, read().map_err(|e| fault_of("read annotations", e))?))
        })
    }

    fn audit(&self, after: Option<Cursor>, limit: usize) -> Result<Page<AuditRow>, Fault> {
        let limit = bounded(limit);
        let sql = "SELECT key, json FROM audit WHERE key < ? ORDER BY key DESC LIMIT ?";
        let from = after.map_or(i64::MAX, |cursor| int(cursor.0));
        let params = [Value::Integer(from), Value::Integer(int(limit as u64 + 1))];
        self.read(|conn| Ok(page(keyed_rows(conn, "audit", sql, &params)?, limit)))
    }

    fn agents_of(&self, token: TokenId, limit: usize) -> Result<Vec<AgentRow>, Fault> {
        // Ids are in the order of their making.
        let sql = "SELECT json FROM agents WHERE json_extract(json, '$.token') = ?1 ORDER BY id DESC LIMIT ?2";
        let limit = limit.clamp(1, limits::AGENTS_OF_TOKEN_MAX);
        self.read(|conn| json_rows(conn, "agent", sql, params![token.to_string(), int(limit as u64)]))
    }

    fn artifacts(
        &self,
        filter: &ArtifactFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<ArtifactRow>, Fault> {
        let limit = bounded(limit);
        self.read(|conn| {
            let pin = pin_row(conn, filter.build)?;
            let (mut found, mut from) = (Vec::new(), after.map_or(i64::MAX, |cursor| int(cursor.0)));
            if let Some(before) = filter.before {
                let statement = conn.prepare_cached("SELECT key FROM artifacts WHERE id = ?1");
                let key =
                    statement.and_then(|mut s| s.query_row([before.as_bytes()], |row| row.get::<_, i64>(0)).optional());
                from = from.min(key.map_err(|e| fault_of("read history", e))?.unwrap_or(0));
            }
            let sql = "SELECT key, json FROM artifacts WHERE build = ? AND key < ? ORDER BY key DESC LIMIT ?";
            loop {
                let build = Value::Blob(filter.build.as_bytes().to_vec());
                let params = [build, Value::Integer(from), Value::Integer(int(limits::PAGE_MAX_ITEMS as u64))];
                let rows = keyed_rows::<ArtifactRow>(conn, "artifact", sql, &params)?;
                let last = rows.last().map(|(key, _)| int(*key));
                let rows = rows.into_iter().map(|(key, row)| (key, row.held_by(pin.as_ref())));
                found.extend(rows.filter(|(_, row)| filter.matches(row)));
                match last {
                    Some(last) if found.len() <= limit => from = last,
                    _ => return Ok(page(found, limit)),
                }
            }
        })
    }

    fn artifact(&self, id: ArtifactId) -> Result<Option<ArtifactRow>, Fault> {
        self.read(|conn| {
            let sql = "SELECT json FROM artifacts WHERE id = ?1";
            let found: Vec<ArtifactRow> = json_rows(conn, "artifact", sql, [id.as_bytes()])?;
            let Some(row) = found.into_iter().next() else { return Ok(None) };
            let pin = pin_row(conn, row.build)?;
            Ok(Some(row.held_by(pin.as_ref())))
        })
    }

    fn notifications(
        &self,
        build: BuildId,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<NotificationRow>, Fault> {
        let limit = bounded(limit);
        let sql = "SELECT key, json FROM notifications WHERE build = ? AND key < ? ORDER BY key DESC LIMIT ?";
        let from = after.map_or(i64::MAX, |cursor| int(cursor.0));
        let build = Value::Blob(build.as_bytes().to_vec());
        let params = [build, Value::Integer(from), Value::Integer(int(limit as u64 + 1))];
        self.read(|conn| Ok(page(keyed_rows(conn, "notification", sql, &params)?, limit)))
    }

    fn naming(&self, digest: Digest) -> Result<BTreeSet<Namespace>, Fault> {
        // Of many rows that name the same blob the namespaces are what counts, and they are few.
        let sql = "SELECT DISTINCT json_extract(json, '$.namespace') FROM artifacts WHERE digest = ?1
            UNION SELECT namespace FROM reuse_outputs WHERE digest = ?1";
        self.read(|conn| Ok(json_rows(conn, "namespace", sql, [digest.as_bytes()])?.into_iter().collect()))
    }

    fn caches(&self, after: u64, limit: usize) -> Result<Vec<(u64, CacheRow)>, Fault> {
        let sql = "SELECT key, json FROM caches WHERE key > ? ORDER BY key LIMIT ?";
        let params = [Value::Integer(int(after)), Value::Integer(int(bounded(limit) as u64))];
        self.read(|conn| keyed_rows(conn, "cache", sql, &params))
    }

    fn newest_caches(
        &self,
        pipeline: Option<String>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<(u64, CacheRow)>, Fault> {
        let limit = bounded(limit);
        let sql = "SELECT key, json FROM caches WHERE key < ?1 AND (?2 IS NULL OR \
                   json_extract(json, '$.name.namespace.project') = ?2) ORDER BY key DESC LIMIT ?3";
        let from = after.map_or(i64::MAX, |cursor| int(cursor.0));
        let project = pipeline.map_or(Value::Null, Value::Text);
        let params = [Value::Integer(from), project, Value::Integer(int(limit as u64 + 1))];
        let found = self.read(|conn| keyed_rows(conn, "cache", sql, &params))?;
        Ok(page(found.into_iter().map(|(key, row)| (key, (key, row))).collect(), limit))
    }

    fn cache(&self, number: u64) -> Result<Option<CacheRow>, Fault> {
        let sql = "SELECT json FROM caches WHERE key = ?1";
        self.read(|conn| Ok(json_rows(conn, "cache", sql, [int(number)])?.into_iter().next()))
    }

    fn pins(&self, pipeline: Option<&str>, after: Option<Cursor>, limit: usize) -> Result<Page<Pinned>, Fault> {
        let limit = bounded(limit);
        let some = "key < ?1 AND (?2 IS NULL OR pipeline = ?2) ORDER BY key DESC LIMIT ?3";
        let from = Value::Integer(after.map_or(i64::MAX, |cursor| int(cursor.0)));
        let pipeline = pipeline.map_or(Value::Null, |pipeline| Value::Text(pipeline.to_owned()));
        let params = [from, pipeline, Value::Integer(int(limit as u64 + 1))];
        self.read(|conn| Ok(page(pins_where(conn, some, &params)?, limit)))
    }

    fn pin(&self, build: BuildId) -> Result<Option<Pinned>, Fault> {
        self.read(|conn| pin_of(conn, build))
    }

    fn pin_ground(&self, build: BuildId) -> Result<Option<PinGround>, Fault> {
        self.read(|conn| {
            let Some(rows) = whole_build(conn, build)? else { return Ok(None) };
            let (files, bytes) = artifacts_there(conn, build)?;
            Ok(Some(PinGround { rows, files, bytes, pin: pin_of(conn, build)? }))
        })
    }

    fn definition(&self, digest: Digest) -> Result<Option<String>, Fault> {
        self.one("SELECT text FROM definitions WHERE digest = ?1", digest.as_bytes(), |row| row.get(0))
    }
}
