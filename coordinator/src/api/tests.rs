//! The API over a real desk: a store in memory, logs and blobs in a directory, and an agent played by the test.

mod absent;
mod artifacts;
mod asks;
mod blobs;
mod builds;
mod caches;
mod document;
mod gates;
mod gc;
mod laptop;
mod pins;
mod pipelines;
mod refusals;
mod reuse;
mod scopes;
mod secrets;
mod streams;
mod tokens;
mod triggers;
mod trust;
mod uploads;
mod whole;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt as _;
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{RealFs, Store, StoreOptions, Vfs};
use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::{AgentEvent, ConnId, Input, Request};
use windlass_coordinator_core::row::{
    Actor, ActorKind, Joining, KeySubject, NewToken, OnUnreachable, PoolRow, Scope, TagPolicy, TokenGrant,
};
use windlass_coordinator_core::{Policy, Rejected};
use windlass_coordinator_logs::{LogStore, Options as LogOptions};
use windlass_coordinator_store::MemoryStore;
use windlass_protocol::host::now;
use windlass_protocol::identity::{ApiToken, secret_hash};
use windlass_protocol::job::{Epoch, JobSpec, Outcome, Resources};
use windlass_protocol::message::{CoordinatorMessage, Hello, RefuseCode};
use windlass_protocol::{AgentId, AttemptId, Digest, HostFacts, TokenId, Trust, WallMs};

use super::metric::Metrics;
use super::{Ground, router};
use crate::authority::Authority;
use crate::clock::SystemClock;
use crate::config::CachePolicies;
use crate::definitions::{self, Definitions};
use crate::desk::{self, Desk, Fleet, Ports, core_maker};
use crate::fleet::{self, Switchboard};
use crate::job_desk::CoreJobDesk;
use crate::logbook::Logbook;
use crate::vault::{KeySources, Vault};
use crate::views::{Offload, Reader, Views};
use crate::writer::Writer;

/// How long anything may take here.
const DEADLINE: Duration = Duration::from_secs(20);

const ONE_STEP: &str = "steps:\n  - command: make\n    key: one\n";

/// Hands offers to the agent that the test plays.
#[derive(Debug)]
struct Wire {
    offers: mpsc::UnboundedSender<(Epoch, JobSpec)>,
}

impl Fleet for Wire {
    fn send(&self, _: AgentId, _: ConnId, message: Box<CoordinatorMessage>) {
        if let CoordinatorMessage::Offer { epoch, job } = *message {
            let _ = self.offers.send((epoch, *job));
        }
    }

    fn disconnect(&self, _: AgentId, _: ConnId, _: RefuseCode, _: String) {}

    fn rejected(&self, _: AgentId, _: ConnId, rejected: Rejected) {
        panic!("the agent's message was rejected: {rejected}");
    }

    fn disconnect_all(&self, _: RefuseCode, _: String) {}
}

/// Hands questions for keys to the test, which answers them.
#[derive(Debug)]
struct Asking(mpsc::UnboundedSender<(u64, KeySubject)>);

impl desk::Keys for Asking {
    fn key(&self, ask: u64, subject: KeySubject) {
        let _ = self.0.send((ask, subject));
    }
}

pub(crate) struct Bench {
    router: Router,
    pub(crate) ground: Ground,
    memory: MemoryStore,
    /// A token with the scope `admin`.
    admin: String,
    offers: mpsc::UnboundedReceiver<(Epoch, JobSpec)>,
    /// Steps whose keys are asked for.
    asked: mpsc::UnboundedReceiver<(u64, KeySubject)>,
    agent: Option<AgentId>,
    _dir: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::on(Arc::new(RealFs)).await
    }

    /// With a cache in memory, whose time passes by hand.
    async fn timed() -> (Self, RecordingFs) {
        let fs = RecordingFs::new();
        (Self::on(Arc::new(fs.clone())).await, fs)
    }

    /// With other policies for what the cache lets go.
    fn set_policies(&mut self, policies: CachePolicies) {
        self.ground = self.ground.clone().with_policies(policies);
        self.router = router(self.ground.clone());
    }

    async fn on(disk: Arc<dyn Vfs>) -> Self {
        Self::over(disk, MemoryStore::new()).await
    }

    /// With rows that are there.
    async fn over(disk: Arc<dyn Vfs>, memory: MemoryStore) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (desk, inbox) = desk::channel();
        let logs = LogStore::open(Arc::new(RealFs), &dir.path().join("logs"), LogOptions::default()).unwrap();
        let store = Store::open(disk, &dir.path().join("cache"), StoreOptions::default()).unwrap();
        let views = Views::default();
        let metrics = Metrics::default();
        let (send, offers) = mpsc::unbounded_channel();
        let (ask, asked) = mpsc::unbounded_channel();
        let reader = Reader::new(views.clone(), Arc::new(memory.history()), Offload::Blocking);
        let definitions = definitions::Options {
            protocols: [windlass_git::Protocol::File].into_iter().collect(),
            ..definitions::Options::default()
        };
        let definitions = Definitions::new(dir.path().join("mirrors"), definitions);
        let ports = Ports {
            clock: Arc::new(SystemClock),
            fleet: Arc::new(Wire { offers: send }),
            logs: Arc::new(Logbook::new(logs.clone(), desk.clone())),
            deliveries: Arc::new(crate::desk::NoDeliveries),
            keys: Arc::new(Asking(ask)),
            orders: Arc::new(crate::orders::Filler::new(desk.clone(), reader.clone(), definitions.clone())),
            views: views.clone(),
            meter: Arc::new(metrics.clone()),
        };
        let (writer, loaded) = Writer::threaded(Box::new(memory.clone())).unwrap();
        tokio::spawn(Desk::new(inbox, writer, loaded, core_maker(Policy::default()).unwrap(), ports).run());
        let authority = Arc::new(Authority::open(dir.path(), &[], &[], crate::authority::Lives::default()).unwrap());
        let shelves = crate::shelf::Shelves::new(store.clone());
        let uploads = crate::uploads::Uploads::open(&store).unwrap();
        let url = "http://localhost:7070".to_owned();
        let vault = Arc::new(Vault::open(dir.path(), &KeySources::default(), [].iter()).unwrap());
        let issuer = Arc::new(crate::oidc::Issuer::open(dir.path(), "http://w".to_owned()).unwrap());
        let jobs = Arc::new(CoreJobDesk {
            desk: desk.clone(),
            reader: reader.clone(),
            shelves: shelves.clone(),
            url,
            vault: Arc::clone(&vault),
            issuer: Arc::clone(&issuer),
        });
        let fleet = fleet::Ground { desk, views, reader, logs, store, uploads, shelves, authority, jobs, vault };
        let ground =
            Ground::new(fleet, Switchboard::default(), "http://w".to_owned(), metrics, definitions, true, issuer);
        let router = router(ground.clone());
        let mut bench = Self { router, ground, memory, admin: String::new(), offers, asked, agent: None, _dir: dir };
        bench.admin = bench.token(&[Scope::Admin], None, None).await;
        bench
    }

    /// A token's text.
    async fn token(&self, scopes: &[Scope], pipeline: Option<&str>, branch: Option<&str>) -> String {
        let grant = TokenGrant::Api {
            scopes: scopes.to_vec(),
            pipeline: pipeline.map(str::to_owned),
            branch: branch.map(str::to_owned),
        };
        self.token_with(grant, None).await
    }

    async fn token_with(&self, grant: TokenGrant, expires_at: Option<WallMs>) -> String {
        let token = ApiToken::generate(super::token::new_id().unwrap()).unwrap();
        let pool = matches!(grant, TokenGrant::Join { .. }).then(pool);
        let secret_hash = secret_hash(&token.secret);
        let new = NewToken { id: token.id, secret_hash, grant, pool, note: "test".to_owned(), expires_at };
        self.ask(Request::CreateToken(Box::new(new))).await;
        token.expose()
    }

    async fn ask(&self, request: Request) -> Reply {
        let actor = Actor { kind: ActorKind::System, name: "test".to_owned() };
        self.ground.fleet.desk.request(actor, request).await.unwrap()
    }

    async fn send(&self, request: HttpRequest<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(DEADLINE, to_bytes(body, 64 << 20)).await.unwrap().unwrap_or_default();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        self.send(request(token, method, path).body(body.into()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(&self.admin, "GET", path, "").await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(&self.admin, "POST", path, body.to_string()).await
    }

    /// A build of one step.
    async fn build(&self) -> Value {
        self.post("/api/v1/builds", json!({ "pipeline": "web", "definition": ONE_STEP })).await.is(201).json()
    }

    /// An agent comes online.
    async fn agent(&mut self) -> AgentId {
        let grant = TokenGrant::join("local".to_owned(), None);
        let token: ApiToken = self.token_with(grant, None).await.parse().unwrap();
        let joining = Joining {
            token: token.id,
            secret_hash: secret_hash(&token.secret),
            key: Digest::of(b"key"),
            name: "worker".to_owned(),
            machine_id: "machine".to_owned(),
            tags: vec![],
            address: None,
        };
        let Reply::Joined { agent, .. } = self.ask(Request::Join(Box::new(joining))).await else { panic!("no agent") };
        let hello = Hello {
            name: "worker".to_owned(),
            version: "1.2.3".to_owned(),
            machine_id: "machine".to_owned(),
            boot_id: "boot".to_owned(),
            slots: 2,
            capacity: Resources { cpu_millis: 2_500, memory_bytes: 1 << 30 },
            tags: vec![],
            runs_images: false,
            capabilities: vec![],
            host: HostFacts { hooks: Some(Digest::of(b"hooks")), ..HostFacts::default() },
            held: vec![],
        };
        let input = Input::AgentHello { agent, key: Digest::of(b"key"), conn: ConnId(1), hello: Box::new(hello) };
        self.ground.fleet.desk.agent_input(input).await.unwrap();
        self.agent = Some(agent);
        agent
    }

    async fn offer(&mut self) -> (Epoch, JobSpec) {
        tokio::time::timeout(DEADLINE, self.offers.recv()).await.expect("an offer in time").unwrap()
    }

    async fn says(&self, event: AgentEvent) {
        let input = Input::Agent { agent: self.agent.unwrap(), conn: ConnId(1), event };
        self.ground.fleet.desk.agent_input(input).await.unwrap();
    }

    /// With an agent that runs the job of a build, and its right to it.
    async fn running() -> (Self, (AttemptId, Epoch)) {
        let mut bench = Self::new().await;
        bench.agent().await;
        bench.build().await;
        let right = bench.start().await;
        (bench, right)
    }

    async fn start(&mut self) -> (AttemptId, Epoch) {
        let (epoch, job) = self.offer().await;
        self.says(AgentEvent::Accepted(job.attempt, epoch)).await;
        self.says(AgentEvent::Started(job.attempt, epoch, now().wall)).await;
        (job.attempt, epoch)
    }

    async fn write(&self, (attempt, epoch): (AttemptId, Epoch), offset: u64, text: &[u8]) {
        let bytes = Bytes::copy_from_slice(text);
        self.ground.fleet.logs.append(attempt, epoch, offset, WallMs(1_700_000_000_123 + offset), bytes).await.unwrap();
    }

    async fn finish(&self, (attempt, epoch): (AttemptId, Epoch), status: i32, log: &[u8]) {
        let outcome = Outcome {
            exit_status: Some(status),
            signal: None,
            cause: None,
            started_at: Some(now().wall),
            finished_at: now().wall,
            log_bytes: log.len() as u64,
            log_digest: Digest::of(log),
            log_truncated: false,
            peak_memory_bytes: None,
        };
        self.says(AgentEvent::Finished(attempt, epoch, Box::new(outcome))).await;
    }

    /// Runs what is offered next, to this status.
    async fn run(&mut self, status: i32, log: &[u8]) -> AttemptId {
        let right = self.start().await;
        if !log.is_empty() {
            self.write(right, 0, log).await;
        }
        self.finish(right, status, log).await;
        right.0
    }

    /// Waits until a build has ended, as its watchers see it, and shows it.
    async fn ended(&self, id: &str) -> Value {
        let events = self.get(&format!("/api/v1/builds/{id}/events?until=finished")).await.is(200);
        assert!(String::from_utf8_lossy(&events.body).contains("event: end"));
        self.get(&format!("/api/v1/builds/{id}")).await.is(200).json()
    }
}

fn pool() -> PoolRow {
    PoolRow {
        name: "local".to_owned(),
        zone: "local".to_owned(),
        queues: vec!["default".to_owned()],
        trust: Trust::Trusted,
        tags: TagPolicy::Free(vec![]),
        lease_ms: 60_000,
        beat_ms: 5_000,
        paused: false,
        on_unreachable: OnUnreachable::Wait,
        created_at: WallMs(1),
    }
}

fn request(token: &str, method: &str, path: &str) -> axum::http::request::Builder {
    let builder = HttpRequest::builder().method(method).uri(path);
    if token.is_empty() { builder } else { builder.header("authorization", format!("Bearer {token}")) }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// As text, ids and times left out.
fn redacted(mut value: Value) -> String {
    fn walk(value: &mut Value) {
        match value {
            Value::String(text) if text.parse::<TokenId>().is_ok() => "[id]".clone_into(text),
            Value::String(text) if text.len() == 24 && text.ends_with('Z') => "[time]".clone_into(text),
            Value::String(text) => {
                let place = text.rsplit_once('/').filter(|(_, id)| id.parse::<TokenId>().is_ok());
                if let Some(redacted) = place.map(|(before, _)| format!("{before}/[id]")) {
                    *text = redacted;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Object(fields) => fields.values_mut().for_each(walk),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    walk(&mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

/// One event of a stream.
#[derive(Debug, Clone)]
struct Sent {
    event: String,
    id: Option<String>,
    data: Value,
}

/// A stream of events that is read while it goes on.
struct Events {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Events {
    async fn open(bench: &Bench, path: &str, last: Option<&str>) -> Self {
        let mut request = request(&bench.admin, "GET", path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = bench.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event; `None` at the stream's end.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    block.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
                };
                let sent = field("data").map(|data| Sent {
                    event: field("event").unwrap_or_default(),
                    id: field("id"),
                    data: serde_json::from_str(&data).unwrap(),
                });
                self.text = rest.to_owned();
                if sent.is_some() {
                    return sent;
                }
                continue;
            }
            let piece = tokio::time::timeout(DEADLINE, self.body.next()).await.expect("an event in time")?;
            self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
    }

    /// Everything up to an event of this name.
    async fn until(&mut self, event: &str) -> Vec<Sent> {
        let mut all = Vec::new();
        loop {
            let sent = self.next().await.unwrap_or_else(|| panic!("the stream ended before {event}: {all:?}"));
            let last = sent.event == event;
            all.push(sent);
            if last {
                return all;
            }
        }
    }
}

/// A token's id, from its text.
fn id_of(token: &str) -> TokenId {
    token.parse::<ApiToken>().unwrap().id
}
