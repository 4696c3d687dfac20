//! Reads all that a core needs to start.

use std::collections::BTreeMap;

use rusqlite::{Connection, Params};
use serde::de::DeserializeOwned;
use windlass_coordinator_core::row::{
    AgentRow, AttemptRow, BuildRow, CacheRow, HoldRow, IdempotencyRow, JobRow, LineageRow, NotificationRow, PinRow,
    PipelineRow, PoolRow, ReuseGone, ReuseRow, Rows, ScheduleRow, SecretRow, TokenRow,
};

use super::encode::{decode, fault_of, whole};
use super::pin::pinned_results;
use crate::fault::Fault;

/// The rows of everything that is not history, as of one commit.
pub(super) fn load(conn: &mut Connection) -> Result<Rows, Fault> {
    let transaction = conn.transaction().map_err(|e| fault_of("begin to load", e))?;
    let mut rows = Rows::default();
    let meta = transaction.query_row("SELECT json FROM meta WHERE id = 1", [], |row| row.get::<_, String>(0));
    rows.meta = decode("meta", &meta.map_err(|e| fault_of("load", e))?)?;
    rows.pipeline_numbers = pipeline_numbers(&transaction)?;
    let pipelines: Vec<PipelineRow> = json_rows(&transaction, "pipeline", "SELECT json FROM registry", [])?;
    rows.pipelines = pipelines.into_iter().map(|row| (row.name.clone(), row)).collect();
    let builds: Vec<BuildRow> = json_rows(&transaction, "build", "SELECT json FROM builds WHERE live = 1", [])?;
    rows.builds = builds.into_iter().map(|row| (row.id, row)).collect();
    let sql = "SELECT j.json FROM builds b JOIN jobs j ON j.build = b.id WHERE b.live = 1";
    let jobs: Vec<JobRow> = json_rows(&transaction, "job", sql, [])?;
    rows.jobs = jobs.into_iter().map(|row| (row.id, row)).collect();
    let sql = "SELECT a.json FROM builds b JOIN attempts a ON a.build = b.id WHERE b.live = 1";
    let attempts: Vec<AttemptRow> = json_rows(&transaction, "attempt", sql, [])?;
    rows.attempts = attempts.into_iter().map(|row| (row.id, row)).collect();
    let pools: Vec<PoolRow> = json_rows(&transaction, "pool", "SELECT json FROM pools", [])?;
    rows.pools = pools.into_iter().map(|row| (row.name.clone(), row)).collect();
    let agents: Vec<AgentRow> = json_rows(&transaction, "agent", "SELECT json FROM agents WHERE gone = 0", [])?;
    rows.agents = agents.into_iter().map(|row| (row.id, row)).collect();
    let tokens: Vec<TokenRow> = json_rows(&transaction, "token", "SELECT json FROM tokens", [])?;
    rows.tokens = tokens.into_iter().map(|row| (row.id, row)).collect();
    let holds: Vec<HoldRow> = json_rows(&transaction, "hold", "SELECT json FROM holds", [])?;
    rows.holds = holds.into_iter().map(|row| (row.job, row)).collect();
    let schedules: Vec<ScheduleRow> = json_rows(&transaction, "schedule", "SELECT json FROM schedules", [])?;
    rows.schedules = schedules.into_iter().map(|row| (row.id, row)).collect();
    let lineages: Vec<LineageRow> = json_rows(&transaction, "lineage", "SELECT json FROM lineages", [])?;
    rows.lineages = lineages.into_iter().map(|row| (row.root, row)).collect();
    let secrets: Vec<SecretRow> = json_rows(&transaction, "secret", "SELECT json FROM secrets", [])?;
    rows.secrets = secrets.into_iter().map(|row| (row.name.clone(), row)).collect();
    let sql = "SELECT json FROM notifications WHERE finished_at IS NULL";
    let waiting: Vec<NotificationRow> = json_rows(&transaction, "notification", sql, [])?;
    rows.notifications = waiting.into_iter().map(|row| (row.id, row)).collect();
    let caches: Vec<CacheRow> = json_rows(&transaction, "cache", "SELECT json FROM caches", [])?;
    rows.caches = caches.into_iter().map(|row| (row.name.clone(), row)).collect();
    let reuse: Vec<ReuseRow> = json_rows(&transaction, "result", "SELECT json FROM reuse", [])?;
    rows.reuse = reuse.into_iter().map(|row| (row.name.clone(), row)).collect();
    let gone: Vec<ReuseGone> = json_rows(&transaction, "result that went", "SELECT json FROM reuse_gone", [])?;
    rows.reuse_gone = gone.into_iter().map(|row| (row.name.clone(), row)).collect();
    let pins: Vec<PinRow> = json_rows(&transaction, "pin", "SELECT json FROM pins", [])?;
    rows.pins = pins.into_iter().map(|row| (row.build, row)).collect();
    rows.pinned_results = pinned_results(&transaction)?.into_iter().collect();
    let keys: Vec<IdempotencyRow> = json_rows(&transaction, "idempotency", "SELECT json FROM idempotency", [])?;
    rows.idempotency = keys.into_iter().map(|row| (row.key.clone(), row)).collect();
    Ok(rows)
}

fn pipeline_numbers(conn: &Connection) -> Result<BTreeMap<String, u64>, Fault> {
    let read = || {
        let mut statement = conn.prepare_cached("SELECT name, last FROM pipelines")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, whole(row.get(1)?))))?;
        rows.collect::<rusqlite::Result<BTreeMap<String, u64>>>()
    };
    read().map_err(|e| fault_of("load pipelines", e))
}

/// All rows whose JSON a query gives.
pub(crate) fn json_rows<T: DeserializeOwned>(
    conn: &Connection,
    what: &'static str,
    sql: &str,
    params: impl Params,
) -> Result<Vec<T>, Fault> {
    let fault = |e| fault_of("read rows", e);
    let mut statement = conn.prepare_cached(sql).map_err(fault)?;
    let mut found = statement.query(params).map_err(fault)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(fault)? {
        let json = row.get_ref(0).map_err(fault)?.as_str();
        rows.push(decode(what, json.map_err(|e| Fault::Corrupt { detail: e.to_string() })?)?);
    }
    Ok(rows)
}
