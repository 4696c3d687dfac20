//! What operators count and watch: Prometheus metrics, health and readiness.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use windlass_cache::OriginStats;
use windlass_coordinator_core::amount::Amount;
use windlass_coordinator_core::effect::{AgentState, ReuseNews};
use windlass_coordinator_core::outbox::OutboxView;
use windlass_coordinator_core::row::NotificationState;
use windlass_coordinator_core::view::QueueView;
use windlass_coordinator_store::{Fault, Space};
use windlass_protocol::WallMs;
use windlass_protocol::host::now;
use windlass_protocol::limits::METRIC_QUEUES_MAX;
use windlass_protocol::message::CacheUse;

use super::Ground;
use super::auth::Caller;
use super::problem::{Kind, Problem};
use crate::desk::Meter;

/// What is counted from the start on; clones share it.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    commit_seconds: Histogram,
    dispatch_seconds: Histogram,
    changes: Counter,
    commit_failures: Counter,
    space_low: AtomicU64,
    requests: Family<Answered, Counter>,
    /// Ready steps that ask for reuse, by what came of it.
    reuse: Family<Outcome, Counter>,
    reuse_stored: Counter,
    reuse_evicted: Counter,
    reuse_mismatch: Counter,
    reuse_saved_ms: AtomicU64,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        // 50 microseconds to 26 seconds.
        let commit_seconds = Histogram::new(exponential_buckets(0.000_05, 2.0, 20));
        // Milliseconds, which is what the clock of rows counts, to nine hours: a queue that nobody serves tells its age
        // elsewhere.
        let dispatch_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 26));
        let shared = Shared {
            commit_seconds,
            dispatch_seconds,
            changes: Counter::default(),
            commit_failures: Counter::default(),
            space_low: AtomicU64::new(0),
            requests: Family::default(),
            reuse: Family::default(),
            reuse_stored: Counter::default(),
            reuse_evicted: Counter::default(),
            reuse_mismatch: Counter::default(),
            reuse_saved_ms: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }
}

/// What came of steps that asked for reuse, since the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReuseCounts {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) unkeyed: u64,
    pub(super) stored: u64,
    pub(super) evicted: u64,
    pub(super) differs: u64,
    pub(super) saved_ms: u64,
}

impl Metrics {
    pub(super) fn reuse(&self) -> ReuseCounts {
        let shared = &self.shared;
        let count = |result| shared.reuse.get_or_create(&Outcome { result }).get();
        ReuseCounts {
            hits: count("hit"),
            misses: count("miss"),
            unkeyed: count("unkeyed"),
            stored: shared.reuse_stored.get(),
            evicted: shared.reuse_evicted.get(),
            differs: shared.reuse_mismatch.get(),
            saved_ms: shared.reuse_saved_ms.load(Ordering::Relaxed),
        }
    }

    fn space_is_low(&self) -> bool {
        self.shared.space_low.load(Ordering::Relaxed) != 0
    }
}

impl Meter for Metrics {
    fn committed(&self, changes: usize, took: Duration) {
        self.shared.commit_seconds.observe(took.as_secs_f64());
        self.shared.changes.inc_by(changes as u64);
    }

    fn commit_failed(&self, _fault: &Fault) {
        self.shared.commit_failures.inc();
    }

    fn dispatched(&self, waited: Duration) {
        self.shared.dispatch_seconds.observe(waited.as_secs_f64());
    }

    fn reused(&self, news: &ReuseNews) {
        let count = |result| {
            self.shared.reuse.get_or_create(&Outcome { result }).inc();
        };
        match news {
            ReuseNews::Hit { saved_ms } => {
                count("hit");
                self.shared.reuse_saved_ms.fetch_add(*saved_ms, Ordering::Relaxed);
            }
            ReuseNews::Miss => count("miss"),
            ReuseNews::Unkeyed => count("unkeyed"),
            ReuseNews::Stored => {
                self.shared.reuse_stored.inc();
            }
            ReuseNews::Evicted(entries) => {
                self.shared.reuse_evicted.inc_by(*entries as u64);
            }
            ReuseNews::Differs { .. } => {
                self.shared.reuse_mismatch.inc();
            }
            ReuseNews::NotStored | ReuseNews::Same => {}
        }
    }

    fn space(&self, space: Space) {
        self.shared.space_low.store(u64::from(space == Space::Low), Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct StatePool {
    state: &'static str,
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    service: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Held {
    tier: &'static str,
    namespace_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Looked {
    tier: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Evicted {
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Crossed {
    zone: String,
    direction: &'static str,
}

/// The tier that a coordinator is: the disk behind every agent's own.
const TIER: &str = "origin";

/// The tier behind that disk.
const BUCKET: &str = "bucket";

/// The queue under which those are summed up that are too many to be named; one of this name is summed up with them.
const OTHER_QUEUES: &str = "(other)";

/// Counts answers.
pub(super) async fn count(State(ground): State<Ground>, request: Request, next: Next) -> Response {
    // Methods of other people's making would make a series each.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "PUT" | "POST" | "DELETE" | "PATCH" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    let answered = Answered { method, status: response.status().as_u16() };
    ground.metrics.shared.requests.get_or_create(&answered).inc();
    response
}

/// The process runs.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    operation_id = "metric_healthy",
    security(()),
    responses((status = 200, description = "The process runs", body = String, content_type = "text/plain")),
)]
pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

/// The core is loaded and answers. Where space is low it still does, and says so: only new builds are refused.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    operation_id = "metric_ready",
    security(()),
    responses((status = 200, description = "The core answers", body = String, content_type = "text/plain")),
)]
pub(super) async fn ready(State(ground): State<Ground>) -> Result<&'static str, Problem> {
    let look = ground.fleet.desk.look(|_| ());
    match tokio::time::timeout(Duration::from_secs(5), look).await {
        Ok(Ok(())) if ground.metrics.space_is_low() => Ok("ok\nstore_space_low: new builds are refused\n"),
        Ok(Ok(())) => Ok("ok\n"),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Problem::new(Kind::Unavailable, "the coordinator does not answer")),
    }
}

/// What the core knows at this moment.
#[derive(Debug, Default)]
struct Moment {
    agents: BTreeMap<StatePool, i64>,
    running: BTreeMap<String, i64>,
    queues: BTreeMap<String, QueueView>,
    live_builds: usize,
    outbox: OutboxView,
    /// Results that may be used again, and the bytes of their files.
    results: Amount,
    pins: Amount,
}

const fn state_name(state: AgentState) -> &'static str {
    match state {
        AgentState::Joining => "joining",
        AgentState::Online => "online",
        AgentState::Suspect => "suspect",
        AgentState::Lost => "lost",
        AgentState::Draining => "draining",
        AgentState::Paused => "paused",
        AgentState::Quarantined => "quarantined",
        AgentState::Gone => "gone",
    }
}

fn moment(core: &windlass_coordinator_core::Core) -> Moment {
    let mut moment = Moment {
        queues: core.queues(),
        live_builds: core.live_builds(),
        outbox: core.outbox(),
        results: core.reuse_entries(),
        pins: core.pinned().0,
        ..Moment::default()
    };
    for agent in core.agents() {
        let labels = StatePool { state: state_name(agent.state), pool: agent.row.pool.clone() };
        *moment.agents.entry(labels).or_default() += 1;
        *moment.running.entry(agent.row.pool.clone()).or_default() += i64::from(agent.usage.slots_used);
    }
    moment
}

/// Everything, in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    operation_id = "metric_metrics",
    security(()),
    responses(
        (status = 200, description = "OpenMetrics", body = String, content_type = "application/openmetrics-text")
    ),
)]
pub(super) async fn metrics(
    State(ground): State<Ground>,
    caller: Result<Caller, Problem>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sums = match caller {
        Ok(caller) => caller.sees_sums(),
        // Who says who he is should hear that it is wrong.
        Err(problem) if headers.contains_key(AUTHORIZATION) => return Err(problem),
        Err(_) => false,
    };
    let moment = ground.fleet.desk.look(moment).await;
    let text = tokio::task::spawn_blocking(move || write(&ground, moment.ok().as_ref(), sums)).await;
    let text = text.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    let mut response = text.into_response();
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(content));
    Ok(response)
}

fn write(ground: &Ground, moment: Option<&Moment>, sums: bool) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("windlass");
    let counted = &ground.metrics.shared;
    let seconds = counted.commit_seconds.clone();
    registry.register_with_unit("store_commit", "Time of one commit of the store", Unit::Seconds, seconds);
    let waited = "Time from a job being ready to its lease being durable, once an attempt";
    registry.register_with_unit("dispatch", waited, Unit::Seconds, counted.dispatch_seconds.clone());
    registry.register("store_changes", "Changes that were committed", counted.changes.clone());
    registry.register("store_commit_failures", "Commits that failed", counted.commit_failures.clone());
    registry.register("http_requests", "Requests that were answered", counted.requests.clone());
    let low = i64::try_from(counted.space_low.load(Ordering::Relaxed)).unwrap_or(1);
    gauge(&mut registry, "store_space_low", "Whether new builds are refused for lack of space", low);
    gauge(&mut registry, "core_ready", "Whether the core is loaded", i64::from(moment.is_some()));
    let connections = i64::try_from(ground.board.connections()).unwrap_or(i64::MAX);
    gauge(&mut registry, "agent_connections", "Control connections of agents", connections);
    let refused = Counter::<u64>::default();
    refused.inc_by(ground.board.refused());
    registry.register("link_refused", "Handshakes, messages and streams of agents that were refused", refused);
    reuse(&mut registry, counted);
    if let Some(moment) = moment {
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        gauge(&mut registry, "reuse_entries", "Results that may be used again", count(moment.results.count));
        gauge(&mut registry, "reuse_entry_bytes", "Bytes of their files", count(moment.results.bytes));
        gauge(&mut registry, "pins", "Builds that are pinned", count(moment.pins.count));
        gauge(&mut registry, "pinned_bytes", "Bytes of their artifacts", count(moment.pins.bytes));
        fleet(&mut registry, moment, now().wall);
        notifications(&mut registry, &moment.outbox, now().wall);
    }
    logs(&mut registry, ground);
    let stats = ground.fleet.store.stats();
    cache(&mut registry, &stats, ground.board.cache_use(), ground.fleet.store.origin_stats());
    if sums {
        stored(&mut registry, &stats);
    }
    zones(&mut registry, ground);
    evicted(&mut registry, ground);
    shelves(&mut registry, ground);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn reuse(registry: &mut Registry, counted: &Shared) {
    registry.register("reuse", "Ready steps that asked for reuse, by what came of it", counted.reuse.clone());
    registry.register("reuse_stored", "Results that were stored to be used again", counted.reuse_stored.clone());
    registry.register("reuse_evicted", "Results that were let go", counted.reuse_evicted.clone());
    let differs = "Results that were there, and came to something else when their step was run again";
    registry.register("reuse_mismatch", differs, counted.reuse_mismatch.clone());
    let saved = Counter::<f64, AtomicU64>::default();
    saved.inc_by(Duration::from_millis(counted.reuse_saved_ms.load(Ordering::Relaxed)).as_secs_f64());
    registry.register_with_unit(
        "reuse_saved",
        "Time that steps had taken whose results were used again",
        Unit::Seconds,
        saved,
    );
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn fleet(registry: &mut Registry, moment: &Moment, at: WallMs) {
    let agents = Family::<StatePool, Gauge>::default();
    for (labels, count) in &moment.agents {
        agents.get_or_create(labels).set(*count);
    }
    registry.register("agents", "Agents that have joined", agents);
    let jobs = Family::<StatePool, Gauge>::default();
    for (pool, count) in &moment.running {
        jobs.get_or_create(&StatePool { state: "running", pool: pool.clone() }).set(*count);
    }
    let (waiting, oldest) = (Family::<Queue, Gauge>::default(), Family::<Queue, Gauge<f64, AtomicU64>>::default());
    let mut queued = 0;
    for (queue, view) in named(&moment.queues) {
        let labels = Queue { queue };
        let depth = i64::try_from(view.depth).unwrap_or(i64::MAX);
        queued += depth;
        waiting.get_or_create(&labels).set(depth);
        let waits_ms = view.oldest.map_or(0, |since| at.0.saturating_sub(since.0));
        oldest.get_or_create(&labels).set(Duration::from_millis(waits_ms).as_secs_f64());
    }
    jobs.get_or_create(&StatePool { state: "scheduled", pool: String::new() }).set(queued);
    registry.register("jobs", "Jobs that wait for an agent (no pool) or hold a slot", jobs);
    registry.register("queue_jobs", "Jobs that wait for an agent", waiting);
    registry.register_with_unit("queue_oldest", "How long the oldest of them waits", Unit::Seconds, oldest);
    gauge(registry, "builds_live", "Builds that have not ended", i64::try_from(moment.live_builds).unwrap_or(i64::MAX));
}

fn logs(registry: &mut Registry, ground: &Ground) {
    let stats = ground.fleet.logs.stats();
    let bytes = Counter::<u64>::default();
    bytes.inc_by(stats.appended_bytes);
    registry.register("log_bytes", "Log bytes that were accepted", bytes);
    let commits = Counter::<u64>::default();
    commits.inc_by(stats.commits);
    registry.register("log_commits", "Syncs that made log bytes durable", commits);
    gauge(registry, "logs_live", "Logs that are not sealed", i64::try_from(stats.live_logs).unwrap_or(i64::MAX));
    let queued = i64::try_from(stats.queued_bytes).unwrap_or(i64::MAX);
    gauge(registry, "log_queued_bytes", "Log bytes that wait to be durable", queued);
}

fn notifications(registry: &mut Registry, outbox: &OutboxView, at: WallMs) {
    let waiting = i64::try_from(outbox.waiting).unwrap_or(i64::MAX);
    gauge(registry, "notifications_waiting", "Notifications that wait or are on their way", waiting);
    let oldest = Gauge::<f64, AtomicU64>::default();
    let waited_ms = outbox.oldest.map_or(0, |oldest| at.0.saturating_sub(oldest.0));
    oldest.set(Duration::from_millis(waited_ms).as_secs_f64());
    let help = "How long the oldest of them has waited";
    registry.register_with_unit("notifications_oldest", help, Unit::Seconds, oldest);
    let over = Family::<Told, Counter>::default();
    for ((service, state), count) in &outbox.over {
        let result = match state {
            NotificationState::Pending => continue,
            NotificationState::Delivered => "delivered",
            NotificationState::Failed => "failed",
            NotificationState::Refused => "refused",
        };
        over.get_or_create(&Told { service: service.clone(), result }).inc_by(*count);
    }
    registry.register("notifications", "Notifications that are over, by what came of them", over);
}

/// The queues that are shown: those that wait longest by name, and the rest as one.
fn named(queues: &BTreeMap<String, QueueView>) -> BTreeMap<String, QueueView> {
    let mut by_age: Vec<_> = queues.iter().collect();
    by_age.sort_by_key(|(_, view)| view.oldest.unwrap_or(WallMs(u64::MAX)));
    let mut named: BTreeMap<String, QueueView> = BTreeMap::new();
    for (place, (queue, view)) in by_age.into_iter().enumerate() {
        let queue = if place < METRIC_QUEUES_MAX { queue.as_str() } else { OTHER_QUEUES };
        let sum = named.entry(queue.to_owned()).or_insert(QueueView { depth: 0, oldest: None });
        sum.depth += view.depth;
        sum.oldest = sum.oldest.into_iter().chain(view.oldest).min();
    }
    named
}

/// What the store holds of everybody's content together: each byte once.
fn stored(registry: &mut Registry, stats: &windlass_cache::Stats) {
    for (name, help, bytes) in [
        ("cache_stored", "Bytes of blobs, each once, whoever sees it", stats.blob_bytes),
        ("cache_disk", "Bytes of the cache's files", stats.disk_bytes),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        registry.register_with_unit(name, help, Unit::Bytes, gauge);
    }
    let compacted = Counter::<u64>::default();
    compacted.inc_by(stats.compacted_bytes);
    let help = "Bytes of segments that counted no more and were given back";
    registry.register_with_unit("cache_compacted", help, Unit::Bytes, compacted);
}

/// Nothing here says whether what one namespace has is there for another, too: whoever may write could ask by that (I12).
fn cache(registry: &mut Registry, stats: &windlass_cache::Stats, used: CacheUse, bucket: Option<OriginStats>) {
    let bytes = Family::<Held, Gauge>::default();
    let blobs = Family::<Held, Gauge>::default();
    for (namespace_kind, held) in [("trusted", stats.trusted), ("overlay", stats.overlays)] {
        let labels = Held { tier: TIER, namespace_kind };
        bytes.get_or_create(&labels).set(i64::try_from(held.bytes).unwrap_or(i64::MAX));
        blobs.get_or_create(&labels).set(i64::try_from(held.blobs).unwrap_or(i64::MAX));
    }
    if let Some(bucket) = bucket {
        // Objects are shared by those who see what is in them.
        for (namespace_kind, held) in [("copied", bucket.bytes - bucket.away_bytes), ("away", bucket.away_bytes)] {
            let labels = Held { tier: BUCKET, namespace_kind };
            bytes.get_or_create(&labels).set(i64::try_from(held).unwrap_or(i64::MAX));
        }
        let waiting = Gauge::<i64>::default();
        waiting.set(i64::try_from(bucket.waiting_bytes).unwrap_or(i64::MAX));
        let help = "Bytes of the cache that have no copy in its bucket yet";
        registry.register_with_unit("cache_bucket_waiting", help, Unit::Bytes, waiting);
        gauge(registry, "cache_bucket_down", "Whether the bucket's last request failed", i64::from(bucket.down));
    }
    let help = "Bytes of blobs that namespaces see by themselves, once for each of them; in the bucket, of files";
    registry.register_with_unit("cache", help, Unit::Bytes, bytes);
    registry.register("cache_blobs", "Those blobs, once for each namespace", blobs);
    let requests = Family::<Looked, Counter>::default();
    for (tier, result, count) in [
        (TIER, "hit", stats.hits),
        (TIER, "miss", stats.misses),
        ("disk", "hit", used.disk_hits),
        ("disk", "miss", used.disk_misses),
        ("peer", "hit", used.peer_hits),
        ("peer", "miss", used.peer_misses),
        ("peer", "failed", used.peer_failures),
    ] {
        requests.get_or_create(&Looked { tier, result }).inc_by(count);
    }
    for (result, count) in bucket.into_iter().flat_map(|bucket| {
        [("hit", bucket.fetched), ("memory", bucket.remembered), ("failed", bucket.failed), ("wrong", bucket.wrong)]
    }) {
        requests.get_or_create(&Looked { tier: BUCKET, result }).inc_by(count);
    }
    registry.register("cache_requests", "Blobs that were asked for by name", requests);
    let damaged = Counter::<u64>::default();
    damaged.inc_by(stats.damaged);
    registry.register("cache_damaged_blobs", "Blobs that were found damaged and put aside", damaged);
}

fn evicted(registry: &mut Registry, ground: &Ground) {
    let (blobs, bytes) = (Family::<Evicted, Counter>::default(), Family::<Evicted, Counter>::default());
    for (why, (went_blobs, went_bytes)) in ground.sweeper.totals() {
        let labels = Evicted { why: why.name() };
        blobs.get_or_create(&labels).inc_by(went_blobs);
        bytes.get_or_create(&labels).inc_by(went_bytes);
    }
    registry.register("cache_evicted_blobs", "Blobs that namespaces lost by policy", blobs);
    registry.register_with_unit("cache_evicted", "Bytes of blobs that namespaces lost by policy", Unit::Bytes, bytes);
}

fn shelves(registry: &mut Registry, ground: &Ground) {
    let counts = ground.fleet.shelves.counts();
    for (name, help, count) in [
        ("artifacts", "Artifacts that jobs have added", counts.kept),
        ("artifact_bytes", "Their bytes, whether they were sent or were there", counts.kept_bytes),
        ("shelf_released_blobs", "Blobs that were let go since nothing named them any more", counts.released),
    ] {
        let counter = Counter::<u64>::default();
        counter.inc_by(count);
        registry.register(name, help, counter);
    }
}

fn zones(registry: &mut Registry, ground: &Ground) {
    let bytes = Family::<Crossed, Counter>::default();
    for (zone, crossed) in ground.board.zone_bytes() {
        for (direction, count) in [("in", crossed.into), ("out", crossed.out_of)] {
            bytes.get_or_create(&Crossed { zone: zone.clone(), direction }).inc_by(count);
        }
    }
    let help = "Bytes of UDP between the coordinator and a zone's agents, into the zone and out of it";
    registry.register("zone_bytes", help, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_queues_pipelines_name_the_oldest_are_shown_and_the_rest_is_summed_up() {
        let view = |depth, oldest| QueueView { depth, oldest: Some(WallMs(oldest)) };
        let mut queues: BTreeMap<_, _> =
            (0..METRIC_QUEUES_MAX as u64 + 3).map(|n| (format!("q{n}"), view(2, 1_000 + n))).collect();
        queues.insert("newest".to_owned(), view(5, 1_000_000));
        let named = named(&queues);
        assert_eq!(named.len(), METRIC_QUEUES_MAX + 1);
        assert_eq!(named["q0"], view(2, 1_000));
        assert_eq!(named[OTHER_QUEUES], view(3 * 2 + 5, 1_000 + METRIC_QUEUES_MAX as u64));
    }
}
