//! What the coordinator's store holds, how often it was of use, and what crossed each zone's border, in one answer for people.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use windlass_cache::{Census, Kind, Stats};
use windlass_coordinator_core::Core;
use windlass_coordinator_core::amount::Amount;
use windlass_coordinator_core::row::Scope;
use windlass_protocol::limits::CACHE_LARGEST_TOLD;
use windlass_protocol::message::CacheUse;

use super::Ground;
use super::auth::Caller;
use super::blob::blocking;
use super::metric::ReuseCounts;
use super::problem::{self, Problem};

/// Numbers of the store, as they are now or since the coordinator started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CacheStats {
    /// Blobs.
    blobs: u64,
    /// Their bytes, each blob once.
    blob_bytes: u64,
    /// Their bytes, each as often as a namespace sees it: what is stored once for many.
    seen_bytes: u64,
    /// Those of them that are trusted content of some pipeline.
    trusted_bytes: u64,
    /// Bytes of the larger blobs, which are stored in chunks.
    chunked_bytes: u64,
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
    /// What was let go by policy, since the start.
    evicted: Vec<Evicted>,
    /// By what they are for and whose they are.
    kinds: Vec<KindStats>,
    /// The pipelines, and overlays of them, that see most bytes.
    largest: Vec<NamespaceStats>,
    /// Where what jobs wanted was found, since the start: an agent's own disk, another agent of its zone, or here; and how often
    /// that took no disk.
    tiers: Vec<TierStats>,
    /// Steps whose results were there, since the start.
    reuse: ReuseStats,
    /// What pins of builds hold.
    pins: PinStats,
    /// Bytes between the coordinator and each zone, since the start.
    zones: Vec<ZoneTraffic>,
}

/// What was let go.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheEvicted)]
pub(crate) struct Evicted {
    /// `size` or `age`.
    why: &'static str,
    blobs: u64,
    bytes: u64,
}

/// Namespaces of a kind.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheKind)]
pub(crate) struct KindStats {
    /// `sources`, `artifacts` or `caches`.
    holds: &'static str,
    /// `trusted` or `overlay`.
    of: &'static str,
    namespaces: u64,
    /// Each as often as one of these namespaces sees it.
    blobs: u64,
    bytes: u64,
    hits: u64,
    misses: u64,
}

/// A namespace.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheNamespace)]
pub(crate) struct NamespaceStats {
    pipeline: String,
    /// Null: of trusted builds; else of whom.
    overlay: Option<String>,
    /// `sources`, `artifacts` or `caches`.
    holds: &'static str,
    blobs: u64,
    bytes: u64,
}

/// A tier.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheTier)]
pub(crate) struct TierStats {
    /// `disk`, `peer`, `origin`, or `memory`: of small blobs that were read here, which needed no disk.
    tier: &'static str,
    hits: u64,
    misses: u64,
    /// Peers that were slow, gone or wrong, and passed over.
    failed: u64,
}

/// What reuse was worth.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheReuse)]
pub(crate) struct ReuseStats {
    hits: u64,
    misses: u64,
    /// Steps that asked for it and cannot be reused.
    unkeyed: u64,
    /// Results that were stored.
    stored: u64,
    /// Results that went.
    evicted: u64,
    /// Results that came out otherwise when they were run again.
    differs: u64,
    /// Milliseconds that the steps whose results were there had run for.
    saved_ms: u64,
    /// Results that are there now.
    entries: u64,
    /// Bytes of their files.
    entry_bytes: u64,
}

/// Builds of which all stays.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CachePins)]
pub(crate) struct PinStats {
    builds: u64,
    /// Artifacts.
    files: u64,
    /// Their bytes; those that several have alike are stored once.
    bytes: u64,
    /// Results of steps with `reuse`, each once.
    results: u64,
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

fn kinds(census: &Census) -> Vec<KindStats> {
    let mut sums: BTreeMap<Kind, (u64, u64, u64)> = BTreeMap::new();
    for (namespace, usage) in &census.namespaces {
        let (namespaces, blobs, bytes) = sums.entry(Kind::of(namespace)).or_default();
        (*namespaces, *blobs, *bytes) = (*namespaces + 1, *blobs + usage.blobs, *bytes + usage.bytes);
    }
    let shown = census.asked.iter().map(|(kind, asked)| {
        let (namespaces, blobs, bytes) = sums.get(kind).copied().unwrap_or_default();
        let (holds, of) = (kind.holds(), kind.trust());
        KindStats { holds, of, namespaces, blobs, bytes, hits: asked.hits, misses: asked.misses }
    });
    shown.collect()
}

fn largest(census: &Census) -> Vec<NamespaceStats> {
    let mut by_bytes: Vec<_> = census.namespaces.iter().collect();
    by_bytes.sort_by_key(|(namespace, usage)| (std::cmp::Reverse(usage.bytes), namespace));
    let shown = by_bytes.into_iter().take(CACHE_LARGEST_TOLD).map(|(namespace, usage)| {
        let owner = namespace.shelf().map_or_else(|| namespace.clone(), |(owner, _)| owner);
        NamespaceStats {
            pipeline: owner.project,
            overlay: owner.overlay,
            holds: Kind::of(namespace).holds(),
            blobs: usage.blobs,
            bytes: usage.bytes,
        }
    });
    shown.collect()
}

fn tiers(used: CacheUse, stats: &Stats) -> Vec<TierStats> {
    let Stats { hits, misses, memory, .. } = *stats;
    vec![
        TierStats { tier: "disk", hits: used.disk_hits, misses: used.disk_misses, failed: 0 },
        TierStats { tier: "peer", hits: used.peer_hits, misses: used.peer_misses, failed: used.peer_failures },
        TierStats { tier: "origin", hits, misses, failed: 0 },
        TierStats { tier: "memory", hits: memory.hits, misses: memory.misses, failed: 0 },
    ]
}

async fn reuse(ground: &Ground) -> Result<ReuseStats, Problem> {
    let Amount { count: entries, bytes: entry_bytes, .. } = ground.fleet.desk.look(Core::reuse_entries).await?;
    let ReuseCounts { hits, misses, unkeyed, stored, evicted, differs, saved_ms } = ground.metrics.reuse();
    Ok(ReuseStats { hits, misses, unkeyed, stored, evicted, differs, saved_ms, entries, entry_bytes })
}

async fn pins(ground: &Ground) -> Result<PinStats, Problem> {
    let (sum, results) = ground.fleet.desk.look(Core::pinned).await?;
    let Amount { count: builds, files, bytes } = sum;
    Ok(PinStats { builds, files, bytes, results: results as u64 })
}

/// What the store holds, how often it was of use, and what crossed each zone's border.
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
        return Err(Problem::new(problem::Kind::Forbidden, detail));
    }
    let store = ground.fleet.store.clone();
    let (stats, census) = blocking(move || (store.stats(), store.census())).await?;
    let zones = ground.board.zone_bytes().into_iter().map(|(zone, bytes)| ZoneTraffic {
        zone,
        into_bytes: bytes.into,
        out_of_bytes: bytes.out_of,
    });
    let evicted = ground.sweeper.totals().into_iter();
    Ok(Json(CacheStats {
        blobs: stats.blobs as u64,
        blob_bytes: stats.blob_bytes,
        seen_bytes: census.namespaces.iter().map(|(_, usage)| usage.bytes).sum(),
        trusted_bytes: stats.trusted_bytes,
        chunked_bytes: census.chunked_bytes,
        chunks: stats.chunks as u64,
        chunk_bytes: stats.chunk_bytes,
        chunk_disk_bytes: stats.chunk_disk_bytes,
        disk_bytes: stats.disk_bytes,
        namespaces: stats.namespaces as u64,
        hits: stats.hits,
        misses: stats.misses,
        damaged: stats.damaged,
        evicted: evicted.map(|(why, (blobs, bytes))| Evicted { why: why.name(), blobs, bytes }).collect(),
        kinds: kinds(&census),
        largest: largest(&census),
        tiers: tiers(ground.board.cache_use(), &stats),
        reuse: reuse(&ground).await?,
        pins: pins(&ground).await?,
        zones: zones.collect(),
    }))
}
