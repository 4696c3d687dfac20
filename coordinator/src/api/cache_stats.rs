//! What the coordinator's store holds and what crossed each zone's border, in one answer for people.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use windlass_coordinator_core::row::Scope;

use super::Ground;
use super::auth::Caller;
use super::problem::{Kind, Problem};

/// Numbers of the store, as they are now or since the coordinator started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CacheStats {
    /// Blobs.
    blobs: u64,
    /// Their bytes, each blob once.
    blob_bytes: u64,
    /// Those of them that are trusted content of some pipeline.
    trusted_bytes: u64,
    /// Chunks of larger blobs, each once.
    chunks: u64,
    /// Their bytes, before compression.
    chunk_bytes: u64,
    /// What they take on disk.
    chunk_disk_bytes: u64,
    /// What all of the store takes on disk.
    disk_bytes: u64,
    /// Namespaces that have something.
    namespaces: u64,
    /// Blobs that were found by their name, since the start.
    hits: u64,
    /// Blobs that were not.
    misses: u64,
    /// Blobs that were found damaged and put aside, since the start.
    damaged: u64,
    /// Bytes between the coordinator and each zone, since the start.
    zones: Vec<ZoneTraffic>,
}

/// Bytes of UDP, what was sent again included.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ZoneTraffic {
    zone: String,
    /// From the coordinator to the zone's agents.
    into_bytes: u64,
    /// From them to the coordinator.
    out_of_bytes: u64,
}

/// What the store holds, and what crossed each zone's border.
#[utoipa::path(
    get,
    path = "/api/v1/cache/stats",
    tag = "cache",
    operation_id = "cache_stats",
    responses((status = 200, description = "As it is now", body = CacheStats)),
)]
pub(crate) async fn show(State(ground): State<Ground>, caller: Caller) -> Result<Json<CacheStats>, Problem> {
    caller.need_everywhere(&[Scope::CacheRead])?;
    if !caller.sees_sums() {
        let detail = "what all have together is not for tokens that write without the scope `builds:trusted`";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    let stats = ground.fleet.store.stats();
    let zones = ground.board.zone_bytes().into_iter().map(|(zone, bytes)| ZoneTraffic {
        zone,
        into_bytes: bytes.into,
        out_of_bytes: bytes.out_of,
    });
    Ok(Json(CacheStats {
        blobs: stats.blobs as u64,
        blob_bytes: stats.blob_bytes,
        trusted_bytes: stats.trusted_bytes,
        chunks: stats.chunks as u64,
        chunk_bytes: stats.chunk_bytes,
        chunk_disk_bytes: stats.chunk_disk_bytes,
        disk_bytes: stats.disk_bytes,
        namespaces: stats.namespaces as u64,
        hits: stats.hits,
        misses: stats.misses,
        damaged: stats.damaged,
        zones: zones.collect(),
    }))
}
