//! The fake shell: it applies changes to rows of its own, keeps what was said, and checks every invariant each time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use windlass_coordinator_core::effect::AgentState;
use windlass_coordinator_core::input::{AgentEvent, ConnId, Input, ReplyTo, Request};
use windlass_coordinator_core::row::*;
use windlass_coordinator_core::{Broken, Bugs, Core, Effect, Policy, Rejected, Reply};
use windlass_pipeline::graph::{
    Command, Concurrency, Edge, Field, Gate, Graph, Method, Node, NodeKind, RetryRule, StatusMatch,
};
use windlass_protocol::job::{Epoch, JobSpec, Outcome, Phase, Resources, Source};
use windlass_protocol::message::{CoordinatorMessage, Health, Held, Hello, Verdict};
use windlass_protocol::{
    AgentId, AnnotationId, AttemptId, BuildId, Cause, CauseKind, Digest, IdSource, Instant64, JobId, Namespace,
    NotificationId, Now, TokenId, Trust, WallMs,
};

pub(crate) const LEASE_MS: u64 = 60_000;
pub(crate) const START: u64 = 1_800_000_000_000;

/// A core with a world around it.
pub(crate) struct Shell {
    pub(crate) core: Core,
    pub(crate) now: Now,
    /// What the store holds.
    pub(crate) rows: Rows,
    pub(crate) history: BTreeMap<BuildId, BuildRows>,
    pub(crate) events: Vec<BuildEvent>,
    pub(crate) audits: Vec<String>,
    /// What they say of it.
    pub(crate) audit_details: Vec<String>,
    pub(crate) artifacts: Vec<ArtifactRow>,
    /// All of them, as they were last.
    pub(crate) notifications: BTreeMap<NotificationId, NotificationRow>,
    /// Texts of annotations.
    pub(crate) texts: BTreeMap<AnnotationId, String>,
    /// All effects since the last `take`.
    pub(crate) effects: Vec<Effect>,
    pub(crate) told: BTreeMap<AgentId, Vec<CoordinatorMessage>>,
    pub(crate) policy: Policy,
    /// What a deliberate bug has broken.
    pub(crate) broken: Option<Broken>,
    /// Invariants are not checked after each input: in a large fleet that would cost its square.
    pub(crate) unchecked: bool,
    replies: BTreeMap<u64, Reply>,
    conns: BTreeMap<AgentId, ConnId>,
    next: u64,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self::with(Policy::default())
    }

    pub(crate) fn with(policy: Policy) -> Self {
        let now = Now { mono: Instant64(1_000_000), wall: WallMs(START) };
        let core = Core::load(now, Rows::default(), IdSource::from_seed([1; 32]), policy.clone());
        Self {
            core,
            now,
            rows: Rows::default(),
            history: BTreeMap::new(),
            events: Vec::new(),
            audits: Vec::new(),
            audit_details: Vec::new(),
            artifacts: Vec::new(),
            notifications: BTreeMap::new(),
            texts: BTreeMap::new(),
            effects: Vec::new(),
            told: BTreeMap::new(),
            policy,
            broken: None,
            unchecked: false,
            replies: BTreeMap::new(),
            conns: BTreeMap::new(),
            next: 1,
        }
    }

    /// The same rows, a new core, a new boot: connections are gone.
    pub(crate) fn restart(&mut self) {
        self.next += 1;
        let seed = [u8::try_from(self.next % 251).unwrap(); 32];
        self.now.mono = Instant64(self.now.mono.0 + 10);
        self.core = Core::load(self.now, self.rows.clone(), IdSource::from_seed(seed), self.policy.clone());
        self.conns.clear();
        self.drain();
    }

    pub(crate) fn input(&mut self, input: Input) -> Result<(), Rejected> {
        let result = self.core.handle(self.now, input);
        self.drain();
        result
    }

    /// Applies what the core wants done, and checks it.
    pub(crate) fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match &effect {
                Effect::Change(change) => self.apply(change.clone()),
                Effect::Reply { to, reply } => {
                    assert!(self.replies.insert(to.0, reply.clone()).is_none(), "answered twice");
                }
                Effect::Send { agent, message, .. } => {
                    self.told.entry(*agent).or_default().push((**message).clone());
                }
                Effect::Disconnect { agent, conn, .. } => {
                    if self.conns.get(agent) == Some(conn) {
                        self.conns.remove(agent);
                    }
                }
                Effect::Retired(build) => self.retire(*build),
                Effect::SettleLog { .. }
                | Effect::Obtain(_)
                | Effect::Deliver(_)
                | Effect::FenceLog { .. }
                | Effect::Dispatched { .. }
                | Effect::Key { .. }
                | Effect::Reuse(_)
                | Effect::Progress(_) => {}
            }
            self.effects.push(effect);
        }
        if self.broken.is_some() || self.unchecked {
            return;
        }
        if let Err(broken) = self.core.check() {
            assert!(self.policy.bugs != Bugs::default(), "{broken}");
            self.broken = Some(broken);
            return;
        }
        if self.policy.bugs == Bugs::default() {
            same_rows(&self.core.rows(), &self.rows);
        }
    }

    fn apply(&mut self, change: Change) {
        let rows = &mut self.rows;
        match change {
            Change::Meta(meta) => rows.meta = meta,
            Change::PipelineNumber { pipeline, last } => drop(rows.pipeline_numbers.insert(pipeline, last)),
            Change::Build(row) => {
                // A build that is run again: the store has had its other rows all the time.
                if let Some(old) = self.history.remove(&row.id) {
                    rows.jobs.extend(old.jobs.into_iter().map(|job| (job.id, job)));
                    rows.attempts.extend(old.attempts.into_iter().map(|row| (row.id, row)));
                }
                rows.builds.insert(row.id, *row);
            }
            Change::Job(row) => drop(rows.jobs.insert(row.id, *row)),
            Change::Attempt(row) => match self.history.get_mut(&row.build) {
                // Of a build that has left memory: a person adds an artifact.
                Some(old) => old.attempts.iter_mut().filter(|known| known.id == row.id).for_each(|known| {
                    known.clone_from(&row);
                }),
                None => drop(rows.attempts.insert(row.id, *row)),
            },
            Change::Pipeline(row) => drop(rows.pipelines.insert(row.name.clone(), *row)),
            Change::Pool(row) => drop(rows.pools.insert(row.name.clone(), *row)),
            Change::Agent(row) if row.gone.is_some() => drop(rows.agents.remove(&row.id)),
            Change::Agent(row) => drop(rows.agents.insert(row.id, *row)),
            Change::Token(row) => drop(rows.tokens.insert(row.id, *row)),
            Change::Idempotency(row) => drop(rows.idempotency.insert(row.key.clone(), row)),
            Change::Schedule(row) => drop(rows.schedules.insert(row.id, *row)),
            Change::ScheduleOver(id) => drop(rows.schedules.remove(&id)),
            Change::Lineage(row) => drop(rows.lineages.insert(row.root, row)),
            Change::LineageOver(root) => drop(rows.lineages.remove(&root)),
            Change::Pin(row) => drop(rows.pins.insert(row.build, *row)),
            Change::PinResult { build, key } => drop(rows.pinned_results.insert((build, key))),
            Change::PinOver(build) => {
                rows.pins.remove(&build);
                rows.pinned_results.retain(|(of, _)| *of != build);
            }
            Change::Hold(row) => drop(rows.holds.insert(row.job, row)),
            Change::TokenOver(id) => drop(rows.tokens.remove(&id)),
            Change::HoldOver(job) => drop(rows.holds.remove(&job)),
            Change::Secret(row) => drop(rows.secrets.insert(row.name.clone(), *row)),
            Change::SecretGone(name) => drop(rows.secrets.remove(&*name)),
            Change::Cache(row) => drop(rows.caches.insert(row.name.clone(), *row)),
            Change::CacheGone(name) => drop(rows.caches.remove(&*name)),
            Change::Reuse(row) => drop(rows.reuse.insert(row.name.clone(), *row)),
            Change::ReuseOver(name) => drop(rows.reuse.remove(&*name)),
            Change::ReuseGone(row) => drop(rows.reuse_gone.insert(row.name.clone(), *row)),
            Change::ReuseGoneOver(name) => drop(rows.reuse_gone.remove(&*name)),
            Change::AnnotationText { annotation, text, append, build: _ } => {
                let known = self.texts.entry(annotation).or_default();
                if !append {
                    known.clear();
                }
                known.push_str(&text);
            }
            Change::AnnotationGone(id) => drop(self.texts.remove(&id)),
            Change::Audit(row) => {
                self.audits.push(row.action);
                self.audit_details.push(row.detail);
            }
            Change::Event(row) => self.events.push(row.event),
            Change::Artifact(row) => self.artifacts.push(*row),
            Change::Notification(row) => {
                if row.state.is_final() {
                    rows.notifications.remove(&row.id);
                } else {
                    rows.notifications.insert(row.id, (*row).clone());
                }
                self.notifications.insert(row.id, *row);
            }
            Change::Definition { .. } => {}
        }
    }

    fn retire(&mut self, id: BuildId) {
        let build = self.rows.builds.remove(&id).expect("a retired build was stored");
        assert!(build.state.is_final());
        let jobs: Vec<_> = self.rows.jobs.extract_if(.., |_, job| job.build == id).map(|(_, job)| job).collect();
        let attempts: Vec<_> =
            self.rows.attempts.extract_if(.., |_, row| row.build == id).map(|(_, row)| row).collect();
        assert!(attempts.iter().all(|attempt| attempt.state.is_final()));
        self.history.insert(id, BuildRows { build, jobs, attempts });
    }

    pub(crate) fn request(&mut self, request: Request) -> Result<Reply, Rejected> {
        self.next += 1;
        let to = ReplyTo(self.next);
        self.input(Input::Request { reply: to, actor: actor(), request })?;
        Ok(self.replies.remove(&to.0).expect("an accepted request is answered"))
    }

    pub(crate) fn submit(&mut self, graph: Graph) -> BuildId {
        self.submit_with(graph, |_| {})
    }

    pub(crate) fn submit_with(&mut self, graph: Graph, change: impl FnOnce(&mut Submit)) -> BuildId {
        match self.request(Request::Submit(Box::new(submission(graph, change)))) {
            Ok(Reply::Submitted { build, .. }) => build,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn cancel(&mut self, build: BuildId) {
        let detail = "enough".to_owned();
        assert_eq!(self.request(Request::CancelBuild { build, detail }), Ok(Reply::Done));
    }

    /// Makes a pool of this shape, unless it exists, and a token for it.
    pub(crate) fn pool(&mut self, pool: PoolRow) -> TokenId {
        self.next += 1;
        let mut ids = IdSource::from_seed([9; 32]);
        let id = ids.token(WallMs(self.next));
        let grant = TokenGrant::join(pool.name.clone(), None);
        let (note, expires_at, pool) = (String::new(), None, Some(pool));
        let new = NewToken { id, secret_hash: Digest::of(b"secret"), grant, pool, note, expires_at };
        self.request(Request::CreateToken(Box::new(new))).unwrap();
        id
    }

    pub(crate) fn join(&mut self, token: TokenId, name: &str) -> AgentId {
        match self.request(Request::Join(Box::new(joining(token, name)))) {
            Ok(Reply::Joined { agent, .. }) => agent,
            other => panic!("{other:?}"),
        }
    }

    /// An agent of the default pool, connected.
    pub(crate) fn agent(&mut self, name: &str, slots: u32) -> AgentId {
        let token = self.pool(pool("main"));
        let agent = self.join(token, name);
        self.hello(agent, slots, Vec::new());
        agent
    }

    pub(crate) fn hello(&mut self, agent: AgentId, slots: u32, held: Vec<Held>) -> Vec<(AttemptId, Verdict)> {
        let name = self.rows.agents[&agent].name.clone();
        self.hello_with(agent, Hello { held, ..greeting(&name, slots) })
    }

    pub(crate) fn hello_with(&mut self, agent: AgentId, hello: Hello) -> Vec<(AttemptId, Verdict)> {
        self.next += 1;
        let conn = ConnId(self.next);
        let key = self.rows.agents[&agent].key;
        self.conns.insert(agent, conn);
        let from = self.told.get(&agent).map_or(0, Vec::len);
        self.input(Input::AgentHello { agent, key, conn, hello: Box::new(hello) }).unwrap();
        let new = &self.told[&agent][from..];
        match new.iter().find(|message| matches!(message, CoordinatorMessage::Welcome { .. })) {
            Some(CoordinatorMessage::Welcome { verdicts, .. }) => verdicts.clone(),
            _ => panic!("no welcome"),
        }
    }

    /// An agent that calls itself so, on a new connection.
    pub(crate) fn hello_as(&mut self, agent: AgentId, name: &str) -> Result<(), Rejected> {
        self.next += 1;
        let conn = ConnId(self.next);
        let key = self.rows.agents[&agent].key;
        let before = self.conns.insert(agent, conn);
        let said = self.input(Input::AgentHello { agent, key, conn, hello: Box::new(greeting(name, 1)) });
        if let (Err(_), Some(before)) = (&said, before) {
            self.conns.insert(agent, before);
        }
        said
    }

    pub(crate) fn says(&mut self, agent: AgentId, event: AgentEvent) -> Result<(), Rejected> {
        let conn = self.conn(agent);
        self.input(Input::Agent { agent, conn, event })
    }

    pub(crate) fn is_connected(&self, agent: AgentId) -> bool {
        self.conns.contains_key(&agent)
    }

    pub(crate) fn conn(&self, agent: AgentId) -> ConnId {
        self.conns.get(&agent).copied().unwrap_or(ConnId(0))
    }

    pub(crate) fn disconnect(&mut self, agent: AgentId) {
        let conn = self.conns.remove(&agent).unwrap();
        self.input(Input::AgentGone { agent, conn, detail: "connection_lost".to_owned() }).unwrap();
    }

    pub(crate) fn beat(&mut self, agent: AgentId, held: Vec<(AttemptId, Epoch)>) {
        self.next += 1;
        self.says(agent, AgentEvent::Beat { seq: self.next, health: Health::default(), held }).unwrap();
    }

    /// Lets time pass, with every deadline on the way.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now.mono.plus_ms(ms);
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            let step = due.since_ms(self.now.mono);
            self.now = Now { mono: self.now.mono.plus_ms(step), wall: self.now.wall.plus_ms(step) };
            self.core.handle_timeout(self.now);
            self.drain();
        }
        let step = end.since_ms(self.now.mono);
        self.now = Now { mono: end, wall: self.now.wall.plus_ms(step) };
    }

    /// The offers that an agent has got since the last time.
    pub(crate) fn offers(&mut self, agent: AgentId) -> Vec<(Epoch, JobSpec)> {
        let told = std::mem::take(self.told.entry(agent).or_default());
        let offers = told.into_iter().filter_map(|message| match message {
            CoordinatorMessage::Offer { epoch, job } => Some((epoch, *job)),
            _ => None,
        });
        offers.collect()
    }

    pub(crate) fn offer(&mut self, agent: AgentId) -> (AttemptId, Epoch) {
        let offers = self.offers(agent);
        assert_eq!(offers.len(), 1, "one offer: {offers:?}");
        (offers[0].1.attempt, offers[0].0)
    }

    pub(crate) fn accept(&mut self, agent: AgentId, (attempt, epoch): (AttemptId, Epoch)) {
        self.says(agent, AgentEvent::Accepted(attempt, epoch)).unwrap();
    }

    pub(crate) fn start(&mut self, agent: AgentId, (attempt, epoch): (AttemptId, Epoch)) {
        self.accept(agent, (attempt, epoch));
        let at = self.now.wall;
        self.says(agent, AgentEvent::Started(attempt, epoch, at)).unwrap();
    }

    pub(crate) fn report(&mut self, agent: AgentId, (attempt, epoch): (AttemptId, Epoch), outcome: Outcome) {
        self.says(agent, AgentEvent::Finished(attempt, epoch, Box::new(outcome))).unwrap();
    }

    pub(crate) fn settle(&mut self, (attempt, epoch): (AttemptId, Epoch)) {
        self.input(Input::LogSettled { attempt, epoch, settled: Ok(()) }).unwrap();
    }

    /// A whole run of an offered attempt.
    pub(crate) fn run(&mut self, agent: AgentId, offer: (AttemptId, Epoch), status: i32) {
        self.start(agent, offer);
        let outcome = self.exit(status);
        self.report(agent, offer, outcome);
        self.settle(offer);
    }

    pub(crate) fn exit(&self, status: i32) -> Outcome {
        Outcome {
            exit_status: Some(status),
            signal: None,
            cause: None,
            started_at: Some(self.now.wall),
            finished_at: self.now.wall,
            log_bytes: 3,
            log_digest: Digest::of(b"log"),
            log_truncated: false,
            peak_memory_bytes: None,
        }
    }

    pub(crate) fn ended_by(&self, kind: CauseKind) -> Outcome {
        Outcome { exit_status: None, cause: Some(Cause::new(kind, "so")), ..self.exit(0) }
    }

    /// A build's row, in memory or in history.
    pub(crate) fn build(&self, id: BuildId) -> &BuildRow {
        self.rows.builds.get(&id).unwrap_or_else(|| &self.history[&id].build)
    }

    pub(crate) fn jobs(&self, id: BuildId) -> Vec<&JobRow> {
        match self.history.get(&id) {
            Some(rows) if !self.rows.builds.contains_key(&id) => rows.jobs.iter().collect(),
            _ => self.rows.jobs.values().filter(|job| job.build == id).collect(),
        }
    }

    pub(crate) fn states(&self, id: BuildId) -> Vec<JobState> {
        let mut jobs = self.jobs(id);
        jobs.sort_by_key(|job| job.index);
        jobs.iter().map(|job| job.state).collect()
    }

    pub(crate) fn job(&self, id: BuildId, index: usize) -> &JobRow {
        self.jobs(id).into_iter().find(|job| job.index as usize == index).unwrap()
    }

    pub(crate) fn job_id(&self, id: BuildId, index: usize) -> JobId {
        self.job(id, index).id
    }

    pub(crate) fn attempts(&self, job: JobId) -> Vec<AttemptRow> {
        let past = self.history.values().flat_map(|rows| rows.attempts.iter());
        let mut all: Vec<_> = self.rows.attempts.values().chain(past).filter(|row| row.job == job).cloned().collect();
        all.sort_by_key(|row| row.number);
        all
    }

    pub(crate) fn state_of(&self, agent: AgentId) -> AgentState {
        self.core.agents().find(|view| view.id == agent).unwrap().state
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

/// Compares rows, and shows only what differs.
pub(crate) fn same_rows(core: &Rows, store: &Rows) {
    if core == store {
        return;
    }
    differ(&core.builds, &store.builds);
    differ(&core.jobs, &store.jobs);
    differ(&core.attempts, &store.attempts);
    differ(&core.agents, &store.agents);
    differ(&core.tokens, &store.tokens);
    differ(&core.holds, &store.holds);
    assert_eq!(core, store);
}

fn differ<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(core: &BTreeMap<K, V>, store: &BTreeMap<K, V>) {
    for (key, row) in core {
        assert_eq!(Some(row), store.get(key), "the core has {key:?} and the store has another");
    }
    for (key, row) in store {
        assert!(core.contains_key(key), "the store has {row:?} and the core has not");
    }
}

pub(crate) fn actor() -> Actor {
    Actor { kind: ActorKind::User, name: "ada".to_owned() }
}

pub(crate) fn held(offer: (AttemptId, Epoch), phase: Phase) -> Held {
    Held { attempt: offer.0, epoch: offer.1, phase, started_at: None }
}

pub(crate) fn pool(name: &str) -> PoolRow {
    PoolRow {
        name: name.to_owned(),
        zone: "corp".to_owned(),
        queues: vec!["default".to_owned()],
        trust: Trust::Trusted,
        tags: TagPolicy::Free(Vec::new()),
        lease_ms: LEASE_MS,
        beat_ms: 5_000,
        paused: false,
        on_unreachable: OnUnreachable::Wait,
        created_at: WallMs(START),
    }
}

pub(crate) fn joining(token: TokenId, name: &str) -> Joining {
    Joining {
        token,
        secret_hash: Digest::of(b"secret"),
        key: Digest::of(name.as_bytes()),
        name: name.to_owned(),
        machine_id: format!("machine of {name}"),
        tags: Vec::new(),
        address: None,
    }
}

pub(crate) fn greeting(name: &str, slots: u32) -> Hello {
    Hello {
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        machine_id: format!("machine of {name}"),
        boot_id: "first boot".to_owned(),
        slots,
        capacity: Resources { cpu_millis: u64::from(slots) * 1_000, memory_bytes: u64::from(slots) << 30 },
        tags: Vec::new(),
        runs_images: false,
        capabilities: Vec::new(),
        host: windlass_protocol::HostFacts::default(),
        held: Vec::new(),
    }
}

/// Ids that rise, as a shell's do.
fn next_build() -> BuildId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&LAST.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    BuildId::from_bytes(bytes)
}

pub(crate) fn submission(graph: Graph, change: impl FnOnce(&mut Submit)) -> Submit {
    let mut submit = Submit {
        id: next_build(),
        number: None,
        pipeline: "app".to_owned(),
        registration: None,
        definition: "steps: []".to_owned(),
        graph,
        branch: "main".to_owned(),
        commit: "HEAD".to_owned(),
        tag: None,
        message: "a change".to_owned(),
        origin: Source::Empty,
        source: BuildSource::Api,
        creator: actor(),
        namespace: Namespace::trusted("app"),
        env: Vec::new(),
        meta_data: BTreeMap::new(),
        keep_workspace: false,
        no_reuse: false,
        rebuilt_from: None,
        triggered_from: None,
        confined: None,
        untrusted: None,
        idempotency: None,
    };
    change(&mut submit);
    submit
}

pub(crate) fn graph(nodes: Vec<Node>) -> Graph {
    Graph { nodes, ..Graph::default() }
}

/// A command step on the default queue.
pub(crate) fn step(label: &str) -> Node {
    step_with(label, |_| {})
}

pub(crate) fn step_with(label: &str, change: impl FnOnce(&mut Command)) -> Node {
    let mut command = Command { command: label.to_owned(), queue: "default".to_owned(), ..Command::default() };
    change(&mut command);
    Node { key: Some(label.to_owned()), label: label.to_owned(), ..Node::new(NodeKind::Command(Box::new(command))) }
}

pub(crate) fn wait() -> Node {
    Node { key: None, label: "wait".to_owned(), kind: NodeKind::Wait { continue_on_failure: false }, ..step("wait") }
}

pub(crate) fn after(mut node: Node, before: &[u32]) -> Node {
    node.depends_on.extend(before.iter().map(|node| Edge { node: *node, allow_failure: false }));
    node
}

pub(crate) fn after_even_if(mut node: Node, before: &[u32]) -> Node {
    node.depends_on.extend(before.iter().map(|node| Edge { node: *node, allow_failure: true }));
    node
}

pub(crate) fn retry_on(exit_status: StatusMatch, limit: u32) -> RetryRule {
    RetryRule { exit_status, signal: None, cause: None, or_no_cause: false, limit }
}

pub(crate) fn retry_cause(kind: CauseKind, limit: u32) -> RetryRule {
    RetryRule { exit_status: StatusMatch::AnyFailure, signal: None, cause: Some(vec![kind]), or_no_cause: false, limit }
}

/// A block with these questions.
pub(crate) fn block(key: &str, fields: Vec<Field>) -> Node {
    let gate = Gate { fields, ..Gate::default() };
    Node { key: Some(key.to_owned()), label: key.to_owned(), ..Node::new(NodeKind::Block(Box::new(gate))) }
}

/// A command in a concurrency group.
pub(crate) fn limited(label: &str, group: &str, limit: u32) -> Node {
    step_with(label, |command| {
        let method = Method::Ordered;
        command.concurrency = Some(Concurrency { group: group.to_owned(), limit, method });
    })
}
