//! Deletes what is past its retention, a bounded piece at a time: builds, their logs, idempotency keys.

use std::time::Duration;

use tokio::sync::watch;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Actor, ActorKind};
use windlass_coordinator_store::Retention;
use windlass_protocol::WallMs;
use windlass_protocol::host::now;
use windlass_protocol::limits::{IDEMPOTENCY_MS, RETENTION_EVERY_MS};

use crate::fleet::Ground;

/// Builds of one piece: a commit of this many is short.
const BUILDS_AT_ONCE: usize = 64;

/// Runs until `stop` turns true.
pub(crate) async fn run(ground: Ground, retention_ms: u64, mut stop: watch::Receiver<bool>) {
    loop {
        let rest = tokio::time::sleep(Duration::from_millis(RETENTION_EVERY_MS));
        tokio::select! {
            () = rest => {}
            () = crate::http::stopped(&mut stop) => return,
        }
        let at = now().wall;
        let builds_before = WallMs(at.0.saturating_sub(retention_ms));
        let idempotency_before = WallMs(at.0.saturating_sub(IDEMPOTENCY_MS));
        let actor = Actor { kind: ActorKind::System, name: "retention".to_owned() };
        if let Err(error) = ground.desk.request(actor, Request::Retain { idempotency_before }).await {
            tracing::warn!(%error, "retention_put_off");
            continue;
        }
        while let Ok(expired) =
            ground.desk.expire(Retention { builds_before, idempotency_before, max_builds: BUILDS_AT_ONCE }).await
        {
            tracing::info!(builds = expired.builds.len(), "builds_expired");
            if let Err(error) = ground.logs.delete(expired.attempts).await {
                tracing::error!(%error, "logs_not_deleted");
            }
            if !expired.more {
                break;
            }
        }
    }
}
