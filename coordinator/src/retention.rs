//! Deletes what is past its retention, a bounded piece at a time: builds, their logs, idempotency keys, rows of agents that
//! are gone, tokens that can do nothing more, the audit trail, notifications that are over.

use std::time::Duration;

use tokio::sync::watch;
use windlass_cache::{Compacted, Store, TableCopy, Tended};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Actor, ActorKind, CacheRequest, ReuseRequest};
use windlass_coordinator_store::{Expired, Retention};
use windlass_protocol::WallMs;
use windlass_protocol::host::now;
use windlass_protocol::limits::{
    AUDIT_MS, CACHE_UNUSED_MS, COMPACT_EVERY_MS, COMPACT_MORE_MS, COMPACT_TICK_BYTES, GONE_AGENTS_MS, IDEMPOTENCY_MS,
    NOTIFICATIONS_KEPT_MS, ORIGIN_EVERY_MS, ORIGIN_MORE_MS, ORIGIN_TICK_BYTES, PAST_TOKENS_MS,
    RETENTION_BUILDS_AT_ONCE, RETENTION_EVERY_MS, REUSE_UNUSED_MS,
};

use crate::desk::DeskError;
use crate::fleet::Ground;
use crate::leap::Leaps;

fn retention(at: WallMs, builds_ms: u64) -> Retention {
    let before = |kept_ms| WallMs(at.0.saturating_sub(kept_ms));
    Retention {
        builds_before: before(builds_ms),
        idempotency_before: before(IDEMPOTENCY_MS),
        agents_before: before(GONE_AGENTS_MS),
        audit_before: before(AUDIT_MS),
        artifacts_at: at,
        notifications_before: before(NOTIFICATIONS_KEPT_MS),
        max_builds: RETENTION_BUILDS_AT_ONCE,
    }
}

/// What the core may forget.
fn forgotten(at: WallMs) -> Request {
    let before = |kept_ms| WallMs(at.0.saturating_sub(kept_ms));
    Request::Retain { idempotency_before: before(IDEMPOTENCY_MS), tokens_before: before(PAST_TOKENS_MS) }
}

/// Caches that nobody has used for long.
fn unused_caches(at: WallMs) -> Request {
    let unused_since = WallMs(at.0.saturating_sub(CACHE_UNUSED_MS));
    Request::Cache(Box::new(CacheRequest::Forget { unused_since }))
}

/// Results that nobody has used for long.
fn unused_results(at: WallMs) -> Request {
    Request::Reuse(ReuseRequest::Forget { unused_since: WallMs(at.0.saturating_sub(REUSE_UNUSED_MS)) })
}

/// Runs until `stop` turns true: rows go, then the blobs that none of them names any more, and then the bytes of those.
pub(crate) async fn run(ground: Ground, retention_ms: u64, stop: watch::Receiver<bool>) {
    let tidying = ground.shelves.clone().tidy((ground.reader.clone(), ground.desk.clone()), stop.clone());
    let compacting = compact(ground.store.clone(), stop.clone());
    let moving = tend_bucket(ground.store.clone(), stop.clone());
    tokio::join!(tidying, compacting, moving, expire(ground, retention_ms, stop));
}

/// Writes the copy of the blob store's table, from which the next start begins: when everybody else has stopped.
pub(crate) async fn leave_copy(store: Store) {
    if let Err(error) = tokio::task::spawn_blocking(move || told_copy(store.copy_table())).await {
        tracing::error!(%error, "table_not_copied");
    }
}

/// Without a copy the next start takes longer, and is right all the same.
fn told_copy(copied: Result<Option<TableCopy>, windlass_cache::Fault>) {
    match copied {
        Ok(Some(TableCopy { rows, bytes, longest_pause, .. })) => {
            tracing::info!(rows, bytes, longest_pause_us = longest_pause.as_micros(), "table_copied");
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "table_not_copied"),
    }
}

/// Gives back what the blob store's segments hold that counts no more, a piece at a time, and copies its table where that is due.
async fn compact(store: Store, mut stop: watch::Receiver<bool>) {
    let mut rest_ms = COMPACT_EVERY_MS;
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(rest_ms)) => {}
            () = crate::http::stopped(&mut stop) => return,
        }
        let store = store.clone();
        let compacted = tokio::task::spawn_blocking(move || {
            told_copy(store.copy_table_when_due());
            store.compact(COMPACT_TICK_BYTES)
        })
        .await;
        rest_ms = match compacted {
            Ok(Ok(compacted)) => {
                if compacted.segments > 0 {
                    let Compacted { segments, freed_bytes, copied_bytes, .. } = compacted;
                    tracing::info!(segments, freed_bytes, copied_bytes, "segments_compacted");
                }
                if compacted.more { COMPACT_MORE_MS } else { COMPACT_EVERY_MS }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "compaction_put_off");
                COMPACT_EVERY_MS
            }
            Err(error) => {
                tracing::error!(%error, "compaction_put_off");
                COMPACT_EVERY_MS
            }
        };
    }
}

/// Copies blobs to the bucket behind the cache, a piece at a time, and keeps the disk small.
async fn tend_bucket(store: Store, mut stop: watch::Receiver<bool>) {
    if store.origin_name().is_none() {
        return;
    }
    let mut rest_ms = ORIGIN_MORE_MS;
    let mut told = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(rest_ms)) => {}
            () = crate::http::stopped(&mut stop) => return,
        }
        let store = store.clone();
        let tended = tokio::task::spawn_blocking(move || store.tend_origin(ORIGIN_TICK_BYTES)).await;
        rest_ms = match tended {
            Ok(Ok(tended)) => {
                if std::mem::take(&mut told) {
                    tracing::info!("cache_bucket_answers");
                }
                let Tended { copied, copied_bytes, dropped, dropped_bytes, deleted, .. } = tended;
                if copied + dropped + deleted > 0 {
                    tracing::info!(copied, copied_bytes, dropped, dropped_bytes, deleted, "cache_bucket_tended");
                }
                if tended.more { ORIGIN_MORE_MS } else { ORIGIN_EVERY_MS }
            }
            Ok(Err(error)) => {
                // Once, and not with each try.
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "cache_bucket_put_off");
                }
                ORIGIN_EVERY_MS
            }
            Err(error) => {
                tracing::error!(%error, "cache_bucket_put_off");
                ORIGIN_EVERY_MS
            }
        };
    }
}

async fn expire(ground: Ground, retention_ms: u64, mut stop: watch::Receiver<bool>) {
    let mut leaps = Leaps::default();
    loop {
        let rest = tokio::time::sleep(Duration::from_millis(RETENTION_EVERY_MS));
        tokio::select! {
            () = rest => {}
            () = crate::http::stopped(&mut stop) => return,
        }
        let now = now();
        if !leaps.look(now) {
            continue;
        }
        if let Err(error) = expire_now(&ground, now.wall, retention_ms).await {
            tracing::warn!(%error, "retention_put_off");
        }
    }
}

/// Deletes all that is past its time by then.
///
/// # Errors
/// Where the desk or the store fails: the rest of it goes the next time.
pub(crate) async fn expire_now(ground: &Ground, at: WallMs, retention_ms: u64) -> Result<(), DeskError> {
    let retention = retention(at, retention_ms);
    for request in [forgotten(at), unused_caches(at), unused_results(at)] {
        let actor = Actor { kind: ActorKind::System, name: "retention".to_owned() };
        ground.desk.request(actor, request).await?;
    }
    loop {
        let expired = ground.desk.expire(retention).await?;
        let Expired { agents, audit_lines, artifacts, notifications, .. } = expired;
        let builds = expired.builds.len();
        tracing::info!(builds, agents, audit_lines, artifacts, notifications, "rows_expired");
        if let Err(error) = ground.logs.delete(expired.attempts).await {
            tracing::error!(%error, "logs_not_deleted");
        }
        if !expired.more {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_kept_for_as_long_as_its_limit_says() {
        let at = WallMs(AUDIT_MS + 5);
        let retention = retention(at, 7);
        assert_eq!((retention.builds_before, retention.audit_before), (WallMs(AUDIT_MS - 2), WallMs(5)));
        assert_eq!(retention.agents_before, WallMs(AUDIT_MS + 5 - GONE_AGENTS_MS));
        assert_eq!(retention.artifacts_at, at, "artifacts say themselves when their time is over");
        assert_eq!(retention.notifications_before, WallMs(AUDIT_MS + 5 - NOTIFICATIONS_KEPT_MS));
        assert_eq!(retention.idempotency_before, WallMs(AUDIT_MS + 5 - IDEMPOTENCY_MS));
        let (idempotency_before, tokens_before) = (retention.idempotency_before, WallMs(AUDIT_MS + 5 - PAST_TOKENS_MS));
        assert_eq!(forgotten(at), Request::Retain { idempotency_before, tokens_before });
    }
}
