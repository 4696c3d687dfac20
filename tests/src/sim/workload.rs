//! Clients: what they ask for, how they ask again after a crash, and the pools and tokens that agents join by.

use std::collections::{BTreeMap, BTreeSet};

use windlass_coordinator_core::input::ReplyTo;
use windlass_coordinator_core::row::{
    Actor, ActorKind, Anew, Annotate, AnnotationStyle, BuildSource, CacheRequest, JobRow, JobState, Joining, NewPin,
    NewSchedule, NewToken, OnDeadline, OnUnreachable, Output, PinGone, PinRequest, PipelineChange, PipelineRow,
    PoolRow, PutArtifact, ReuseRequest, Said, Sealed, SecretName, SecretRequest, Speech, StepChange, Submit, TagPolicy,
    TokenGrant, Upload,
};
use windlass_coordinator_core::selector::{DrainMany, Selector};
use windlass_coordinator_core::{Input, Rejected, Reply, Request};
use windlass_pipeline::graph::NodeKind;
use windlass_protocol::job::{Epoch, Source};
use windlass_protocol::limits::{BUILD_EXPIRY_MS, LEASE_DEFAULT_MS};
use windlass_protocol::{AttemptId, BuildId, Digest, JobId, Namespace, PipelineId, ScheduleId, TokenId, Trust, WallMs};

use super::graphs;
use super::host::Host;
use super::network::Link;
use super::world::{Event, WALL_MS, World};

/// When the last new work comes, and things stop to break soon after.
pub const WORK_MS: u64 = 150_000;

/// From then on nothing breaks.
pub const MEND_MS: u64 = 200_000;

/// After the mending every build ends within this: a preparation that hangs, a log that does not settle, a zone that
/// is held, and some retries, one after the other.
pub const END_MS: u64 = MEND_MS + 4 * 3_600_000;

/// What somebody does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Make the token of a pool (and the pool with it).
    MakeToken(usize),
    /// A machine joins.
    Join(usize),
    /// Submit this one.
    Submit(usize),
    /// Register a pipeline, or change one.
    Register,
    /// Make a schedule.
    Schedule,
    /// Take all schedules away.
    Unschedule,
    /// Let what is past go.
    Forget,
    /// Any of the smaller things.
    Meddle,
    /// An agent that left is started again.
    Revive(usize),
    /// Somebody looks after the fleet.
    Care,
}

/// A request that waits for its answer.
#[derive(Debug, Clone)]
pub enum Asked {
    /// See [`Action`].
    Again(Action),
    /// Nobody asks again; with the request, if its build's rows may be wanted.
    Once(Option<(BuildId, Option<JobId>)>),
    /// Nobody asks again; the right by which it is asked was over before, for what was committed says so.
    Stale,
}

/// A build that a client wants.
#[derive(Debug, Clone)]
pub struct Intent {
    submit: Submit,
    /// Which build it became.
    pub build: Option<BuildId>,
}

/// All clients.
#[derive(Debug, Default)]
pub struct Workload {
    /// Requests that wait, by the number of their reply.
    asked: BTreeMap<u64, Asked>,
    last: u64,
    lost: Vec<Action>,
    soon: Vec<(BuildId, Option<JobId>)>,
    /// Join tokens, by pool.
    pub tokens: Vec<TokenId>,
    /// Builds that are wanted.
    pub intents: Vec<Intent>,
    /// Every build that was committed.
    pub builds: BTreeSet<BuildId>,
    /// Some job of this run can be served by nobody.
    pub hopeless: bool,
    /// Nothing is asked for any more, and the agents were told to leave.
    pub closing: bool,
}

/// The pools of a world: two zones and two trust classes.
#[must_use]
pub fn pools() -> Vec<PoolRow> {
    let pool = |name: &str, zone: &str, queues: &[&str], trust, lease_ms| PoolRow {
        name: name.to_owned(),
        zone: zone.to_owned(),
        queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
        trust,
        tags: TagPolicy::Free(vec![("os".to_owned(), "linux".to_owned())]),
        lease_ms,
        beat_ms: lease_ms / 4,
        paused: false,
        on_unreachable: if name == "west" { OnUnreachable::Replace } else { OnUnreachable::Wait },
        created_at: WallMs(WALL_MS),
    };
    vec![
        pool("east", "east", &["default", "deploy"], Trust::Trusted, 20_000),
        pool("west", "west", &["default", "west"], Trust::Trusted, LEASE_DEFAULT_MS / 2),
        pool("open", "east", &["default"], Trust::Untrusted, 12_000),
    ]
}

fn secret(token: TokenId) -> Digest {
    Digest::of(token.as_bytes())
}

/// The one tree that agents tell of.
fn tree() -> Source {
    Source::Tree { digest: Digest::of(b"source") }
}

fn somebody() -> Actor {
    Actor { kind: ActorKind::User, name: "ada".to_owned() }
}

impl Workload {
    /// The coordinator is gone: nobody will answer.
    pub fn lose_requests(&mut self) {
        for (_, asked) in std::mem::take(&mut self.asked) {
            match asked {
                Asked::Again(action) => self.lost.push(action),
                Asked::Once(_) | Asked::Stale => {}
            }
        }
    }
}

impl World {
    /// What happens in this run, as far as it is planned before.
    pub fn plan_work(&mut self) {
        let count = pools().len();
        for pool in 0..count {
            let token = TokenId::from_bytes(self.sixteen());
            self.work.tokens.push(token);
            self.after(pool as u64, Event::Act(Box::new(Action::MakeToken(pool))));
        }
        let hosts = 4 + self.random.below(2);
        for index in 0..usize::try_from(hosts).unwrap_or(4) {
            let pool = index % count;
            let key = Digest::of(&self.random.number().to_le_bytes());
            let clock = self.random.below(1 << 40);
            let slots = u32::try_from(self.random.between(1, 3)).unwrap_or(1);
            let mut host = Host::new(pool, key, self.work.tokens[pool], clock, slots);
            host.once = index > 2 && self.random.thousandth(60);
            self.hosts.push(host);
            let latency_ms = self.random.between(1, 40);
            self.network.links.push(Link { latency_ms, ..Link::default() });
            self.after(100 + 7 * index as u64, Event::Act(Box::new(Action::Join(index))));
        }
        self.work.hopeless = self.random.thousandth(20);
        let builds = self.random.between(2, 6);
        for index in 0..usize::try_from(builds).unwrap_or(2) {
            let submit = self.new_submit(index);
            self.work.intents.push(Intent { submit, build: None });
            let at = self.random.between(300, WORK_MS * 2 / 3);
            self.after(at, Event::Act(Box::new(Action::Submit(index))));
        }
        for _ in 0..2 {
            let at = self.random.between(50, 5_000);
            self.after(at, Event::Act(Box::new(Action::Register)));
        }
        if self.random.thousandth(300) {
            let at = self.random.between(5_500, WORK_MS / 2);
            self.after(at, Event::Act(Box::new(Action::Schedule)));
        }
        self.after(MEND_MS + 1, Event::Act(Box::new(Action::Unschedule)));
        for _ in 0..self.random.between(3, 14) {
            let at = self.random.between(2_000, WORK_MS);
            self.after(at, Event::Act(Box::new(Action::Meddle)));
        }
        let first = self.random.between(1_000, 20_000);
        self.after(first, Event::Trouble);
        self.after(MEND_MS, Event::Mend);
    }

    pub(super) fn sixteen(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.random.number().to_le_bytes());
        bytes[8..].copy_from_slice(&self.random.number().to_le_bytes());
        bytes
    }

    fn new_submit(&mut self, index: usize) -> Submit {
        let trusted = !self.random.thousandth(300);
        let pipeline = if self.random.thousandth(500) { "app" } else { "web" };
        let namespace = if trusted { Namespace::trusted(pipeline) } else { Namespace::overlay(pipeline, "pr:7") };
        let hopeless = self.work.hopeless && index == 0;
        let key = (TokenId::from_bytes([1; 16]), format!("submit-{index}"));
        Submit {
            id: BuildId::from_bytes(self.sixteen()),
            number: None,
            pipeline: pipeline.to_owned(),
            registration: None,
            definition: format!("steps: {index}"),
            graph: graphs::graph(&mut self.random, trusted, hopeless),
            branch: if self.random.thousandth(700) { "main".to_owned() } else { String::new() },
            commit: "HEAD".to_owned(),
            tag: None,
            message: String::new(),
            origin: if self.random.thousandth(300) { tree() } else { Source::Empty },
            source: BuildSource::Api,
            creator: somebody(),
            namespace,
            env: Vec::new(),
            meta_data: BTreeMap::new(),
            keep_workspace: false,
            no_reuse: self.random.thousandth(60),
            rebuilt_from: None,
            triggered_from: None,
            confined: None,
            untrusted: None,
            idempotency: Some((key, Digest::of(&[0]))),
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        if self.work.closing {
            return;
        }
        if !self.coordinator.is_up() {
            let ms = self.random.between(500, 3_000);
            self.after(ms, Event::Act(Box::new(action)));
            return;
        }
        match action {
            Action::MakeToken(pool) => self.make_token(pool),
            Action::Join(host) => self.join(host),
            Action::Submit(index) => {
                let submit = self.work.intents[index].submit.clone();
                self.ask(Request::Submit(Box::new(submit)), Asked::Again(Action::Submit(index)));
            }
            Action::Register => self.register_something(),
            Action::Schedule => self.add_schedule(),
            Action::Unschedule => self.remove_schedules(),
            Action::Forget => self.forget_what_is_past(),
            Action::Meddle => self.meddle(),
            Action::Revive(host) => self.revive(host),
            Action::Care => self.care(),
        }
    }

    /// Asks the core.
    pub fn ask(&mut self, request: Request, asked: Asked) {
        self.work.last += 1;
        let reply = ReplyTo(self.work.last);
        self.work.asked.insert(reply.0, asked);
        self.feed(Input::Request { reply, actor: somebody(), request });
    }

    fn make_token(&mut self, pool: usize) {
        let id = self.work.tokens[pool];
        if self.store.rows.tokens.contains_key(&id) {
            return;
        }
        let row = pools().swap_remove(pool);
        let grant = TokenGrant::join(row.name.clone(), None);
        let token =
            NewToken { id, secret_hash: secret(id), grant, pool: Some(row), note: "join".to_owned(), expires_at: None };
        self.ask(Request::CreateToken(Box::new(token)), Asked::Again(Action::MakeToken(pool)));
    }

    fn join(&mut self, index: usize) {
        let host = &self.hosts[index];
        if host.id.is_some() {
            return;
        }
        let joining = Joining {
            token: self.work.tokens[host.pool],
            secret_hash: secret(self.work.tokens[host.pool]),
            key: host.key,
            name: format!("agent-{index}"),
            machine_id: format!("machine-{index}"),
            tags: Vec::new(),
            address: None,
        };
        self.ask(Request::Join(Box::new(joining)), Asked::Again(Action::Join(index)));
    }

    /// An answer is there.
    pub(super) fn answered(&mut self, number: u64, answer: Result<Reply, Rejected>) {
        let Some(asked) = self.work.asked.remove(&number) else {
            self.violate("I1", format!("request {number} is answered twice"));
            return;
        };
        match (asked, answer) {
            (Asked::Again(Action::Submit(index)), Ok(Reply::Submitted { build, .. })) => {
                let known = self.work.intents[index].build.replace(build);
                if known.is_some_and(|known| known != build) {
                    self.violate("I1", format!("one idempotency key made {known:?} and {build}"));
                }
                if self.random.thousandth(150) {
                    let ms = self.random.between(10, 30_000);
                    self.after(ms, Event::Act(Box::new(Action::Submit(index))));
                }
            }
            (Asked::Again(Action::Join(index)), Ok(Reply::Joined { agent, .. })) => {
                // The machine may have been wiped while its request was on the way.
                let key = self.store.rows.agents.get(&agent).map(|row| row.key);
                if self.hosts[index].id.is_none() && key == Some(self.hosts[index].key) {
                    self.hosts[index].id = Some(agent);
                    self.after(5, Event::AgentStarts { host: index });
                }
            }
            (Asked::Again(Action::Join(index)), Err(_)) => {
                let pool = self.hosts[index].pool;
                self.renew_token(pool);
                let ms = self.random.between(1_000, 5_000);
                self.after(ms, Event::Act(Box::new(Action::Join(index))));
            }
            (Asked::Once(Some((build, job))), Err(Rejected::NotInMemory(_) | Rejected::JobNotInMemory(_))) => {
                self.retry_with_rows(build, job);
            }
            (Asked::Stale, Ok(_)) => {
                self.violate("I3", format!("request {number} was believed by a right that is over"));
            }
            (Asked::Again(_) | Asked::Once(_) | Asked::Stale, _) => {}
        }
    }

    /// A token that admits nobody any more is replaced by another.
    pub fn renew_token(&mut self, pool: usize) {
        let stored = self.store.rows.tokens.get(&self.work.tokens[pool]);
        if stored.is_some_and(|token| token.revoked_at.is_some()) {
            self.work.tokens[pool] = TokenId::from_bytes(self.sixteen());
        }
        self.after(1, Event::Act(Box::new(Action::MakeToken(pool))));
    }

    /// Clients whose request was lost ask again.
    pub(super) fn retry_requests(&mut self) {
        for action in std::mem::take(&mut self.work.lost) {
            let ms = self.random.between(200, 4_000);
            self.after(ms, Event::Act(Box::new(action)));
        }
    }

    /// The build has left memory: the request comes again with its rows, as the shell does it.
    fn retry_with_rows(&mut self, build: BuildId, job: Option<JobId>) {
        self.work.soon.push((build, job));
        self.after(0, Event::Act(Box::new(Action::Meddle)));
    }

    /// Rows are read and handed over in one turn, and only while nothing is on its way to the store: older ones would
    /// take back what the build has come to since.
    fn retry_from_store(&mut self, build: BuildId, job: Option<JobId>) {
        if !self.coordinator.is_settled() {
            self.work.soon.push((build, job));
            self.after(5, Event::Act(Box::new(Action::Meddle)));
            return;
        }
        let Some(rows) = self.store.build(build).filter(|rows| rows.build.state.is_final()) else { return };
        let rows = Some(Box::new(rows));
        let request = match job {
            Some(job) => Request::RetryJob { job, rows },
            None => Request::RetryBuild { build, rows },
        };
        self.ask(request, Asked::Once(None));
    }

    /// Somebody does something, at random.
    fn meddle(&mut self) {
        if let Some((build, job)) = self.work.soon.pop() {
            self.retry_from_store(build, job);
            return;
        }
        if !self.troubled {
            return;
        }
        let builds: Vec<BuildId> = self.work.builds.iter().copied().collect();
        let jobs: Vec<JobId> = self.store.rows.jobs.keys().copied().collect();
        let (build, job) = (self.random.pick(&builds), self.random.pick(&jobs));
        let of_job = job.and_then(|job| Some((self.store.rows.jobs.get(&job)?.build, Some(job))));
        match (self.random.below(25), build, job) {
            (0, Some(build), _) => {
                self.ask(Request::CancelBuild { build, detail: "why not".to_owned() }, Asked::Once(None));
            }
            (1, _, Some(job)) => self.ask(Request::CancelJob { job, grace_ms: None }, Asked::Once(None)),
            (2 | 3, Some(build), _) => {
                self.ask(Request::RetryBuild { build, rows: None }, Asked::Once(Some((build, None))));
            }
            (4 | 5, _, Some(job)) => self.ask(Request::RetryJob { job, rows: None }, Asked::Once(of_job)),
            (6, ..) => self.meddle_with_tokens(),
            (7 | 8, ..) => self.drain_some(),
            (9, ..) => self.resume_one(),
            (10, ..) => self.revoke_one(),
            (11, ..) => {
                if self.random.thousandth(300) {
                    self.take_back_a_token();
                }
                self.forget_what_is_past();
            }
            (12, ..) => self.ask_nonsense(),
            (13 | 14, ..) => self.open_gates(false),
            (15..=17, ..) => self.upload_something(),
            (18, ..) => self.say_something(),
            (22 | 23, ..) => {
                self.keep_secrets();
                self.use_caches();
            }
            (19, Some(build), _) => {
                let value = if self.random.thousandth(300) { " " } else { "v" };
                let values = [("key".to_owned(), value.to_owned())].into();
                self.ask(Request::SetMetaData { build, values }, Asked::Once(None));
            }
            (21, ..) => self.register_something(),
            (20, ..) => {
                let uses = self.work.tokens.iter().map(|token| (*token, WallMs(WALL_MS + self.now))).collect();
                self.ask(Request::NoteUses(uses), Asked::Once(None));
            }
            (24, Some(build), _) => self.pin_something(build),
            _ => {}
        }
    }

    /// Somebody pins a build, for a while or for good, says something else of its pin, or undoes it.
    fn pin_something(&mut self, build: BuildId) {
        if self.random.thousandth(200) {
            self.ask(Request::Pin(PinRequest::Unpin { build }), Asked::Once(None));
            return;
        }
        let until = match self.random.below(3) {
            0 => Anew::AsBefore,
            1 => Anew::Nothing,
            _ => Anew::This(WallMs(WALL_MS + self.now + self.random.between(0, 40_000))),
        };
        let named = self.random.thousandth(300).then(|| format!("v{}", self.random.below(3)));
        let name = named.map_or(Anew::AsBefore, Anew::This);
        let rows = self.store.build(build).map(Box::new);
        let (gone, room_bytes) = (PinGone::default(), u64::MAX);
        let new = NewPin { build, name, until, gone, room_bytes, again: false, rows };
        self.ask(Request::Pin(PinRequest::Pin(Box::new(new))), Asked::Once(None));
        if self.random.thousandth(300) {
            // Nobody uses any of it, and all that is held stays.
            let forget = ReuseRequest::Forget { unused_since: WallMs(u64::MAX) };
            self.ask(Request::Reuse(forget), Asked::Once(None));
        }
    }

    /// Some job says something about its build; its right may have ended.
    fn say_something(&mut self) {
        let attempts: Vec<_> = self.store.rows.attempts.values().map(|row| (row.build, row.id, row.epoch)).collect();
        let Some((build, attempt, mut epoch)) = self.random.pick(&attempts) else { return };
        if self.random.thousandth(100) {
            epoch = Epoch(epoch.0.saturating_sub(1));
        }
        let number = self.random.below(1 << 40);
        let what = match self.random.below(20) {
            0..=4 => {
                let artifact = self.an_artifact();
                if self.random.thousandth(300) {
                    // A person adds the same file, if the build is still in memory.
                    let put = PutArtifact { build, attempt, artifact: artifact.clone(), rows: None };
                    self.ask(Request::PutArtifact(Box::new(put)), Asked::Once(None));
                }
                Said::AddArtifacts(vec![artifact])
            }
            5..=9 => Said::SetMetaData([("said".to_owned(), number.to_string())].into()),
            10 if self.random.thousandth(300) => Said::CancelBuild,
            10 | 11 => {
                let jobs = self.store.rows.jobs.values().filter(|job| job.build == build).map(|job| job.id);
                let jobs: Vec<JobId> = jobs.collect();
                let grace_ms = self.random.thousandth(300).then_some(1_000);
                Said::CancelJobs { jobs: self.random.pick(&jobs).into_iter().collect(), grace_ms }
            }
            _ => self.said(build, number),
        };
        let speech = Speech { attempt, epoch, call: self.sixteen(), what };
        let again = self.random.thousandth(400).then(|| speech.clone());
        let after = match &speech.what {
            Said::Annotate(note) if self.random.thousandth(200) => {
                Some(Said::RemoveAnnotation { context: note.context.clone(), own: note.own })
            }
            // What is said again comes after what was set meanwhile.
            Said::SetMetaData(_) if again.is_some() => {
                Some(Said::SetMetaData([("said".to_owned(), format!("{number} meanwhile"))].into()))
            }
            _ => None,
        };
        self.speak(speech);
        if let Some(what) = after {
            let call = self.sixteen();
            self.speak(Speech { attempt, epoch, call, what });
        }
        if let Some(speech) = again {
            self.speak(speech);
        }
    }

    /// Says it. Where it is committed that the attempt has ended, or has a newer right, nobody may believe it.
    fn speak(&mut self, speech: Speech) {
        let row = self.store.rows.attempts.get(&speech.attempt);
        let stale = row.is_none_or(|row| row.state.is_final() || row.epoch > speech.epoch);
        // A lost attempt may be adopted in a commit that is on its way, by a newer right than the one that is said.
        let asked = if stale { Asked::Stale } else { Asked::Once(None) };
        self.ask(Request::Speak(Box::new(speech)), asked);
    }

    /// What a job says: texts have a mark of their own, by which the judge counts them.
    fn said(&mut self, build: BuildId, number: u64) -> Said {
        let own = self.random.thousandth(300);
        let context = format!("context-{}", self.random.below(2));
        match self.random.below(8) {
            0 => Said::RemoveAnnotation { context, own },
            kind @ 1..=3 => {
                let jobs: Vec<JobId> =
                    self.store.rows.jobs.values().filter(|job| job.build == build).map(|job| job.id).collect();
                let job = self.random.pick(&jobs).unwrap_or(JobId::from_bytes([0; 16]));
                let change = match kind {
                    1 => StepChange::Label { text: format!("label {number}"), append: false },
                    2 => StepChange::Priority(i64::try_from(self.random.below(5)).unwrap_or(0)),
                    _ => StepChange::Parallelism(u32::try_from(self.random.between(1, 3)).unwrap_or(1)),
                };
                Said::UpdateStep { job, change }
            }
            _ => Said::Annotate(Annotate {
                context,
                own,
                style: self.random.thousandth(300).then_some(AnnotationStyle::Info),
                priority: None,
                text: (!self.random.thousandth(100)).then(|| format!("<{number}>")),
                append: self.random.thousandth(700),
            }),
        }
    }

    /// Somebody sets or removes a secret, or a job asks for one; its right may have ended, and there may be none.
    fn keep_secrets(&mut self) {
        let zone = self.random.thousandth(300).then(|| "elsewhere".to_owned());
        let name = SecretName { key: "KEY".to_owned(), pipeline: None, branch: None, zone };
        let attempts: Vec<_> = self.store.rows.attempts.values().map(|row| (row.id, row.epoch)).collect();
        let request = match (self.random.below(4), self.random.pick(&attempts)) {
            (0, _) => SecretRequest::Remove { name },
            (1 | 2, Some((attempt, epoch))) => SecretRequest::Read { attempt, epoch, keys: vec!["key".to_owned()] },
            _ => {
                let sealed = Sealed { key_id: "k".to_owned(), nonce: "00".to_owned(), bytes: "00".to_owned() };
                SecretRequest::Set { name, sealed }
            }
        };
        self.ask(Request::Secret(Box::new(request)), Asked::Once(None));
    }

    /// A job saves a cache, and looks for one; its right may have ended. Now and then all that is there goes.
    fn use_caches(&mut self) {
        let live = self.store.rows.attempts.values().filter(|row| !row.state.is_final() || row.number > 1);
        let attempts: Vec<_> = live.map(|row| (row.id, row.epoch)).collect();
        let (scope, key) = (Digest::of(b"paths"), format!("k{}", self.random.below(3)));
        if let Some((attempt, epoch)) = self.random.pick(&attempts) {
            let manifest = Digest::of(key.as_bytes());
            let found = (key.clone(), vec!["k".to_owned()]);
            let save =
                CacheRequest::Save { attempt, epoch, scope, key, manifest, manifest_bytes: 1, files: 1, bytes: 1 };
            self.ask(Request::Cache(Box::new(save)), Asked::Once(None));
            let (key, restore_keys) = found;
            let find = CacheRequest::Find { attempt, epoch, scope, key, restore_keys };
            self.ask(Request::Cache(Box::new(find)), Asked::Once(None));
        }
        if let Some((attempt, epoch)) = self.random.pick(&attempts).filter(|_| self.random.thousandth(100)) {
            let spoil = ReuseRequest::Spoil { attempt, epoch, why: "it was told something" };
            self.ask(Request::Reuse(spoil), Asked::Once(None));
        }
        if self.random.thousandth(100) {
            let forget = ReuseRequest::Forget { unused_since: WallMs(u64::MAX) };
            self.ask(Request::Reuse(forget), Asked::Once(None));
        }
        let names: Vec<_> = self.store.rows.reuse.keys().collect();
        if let Some(name) = self.random.pick(&names).cloned() {
            self.ask(Request::Reuse(ReuseRequest::Use(name)), Asked::Once(None));
        }
        if self.random.thousandth(400) {
            let forget = CacheRequest::Forget { unused_since: WallMs(u64::MAX) };
            self.ask(Request::Cache(Box::new(forget)), Asked::Once(None));
        }
    }

    /// Somebody registers a pipeline, or changes one.
    fn register_something(&mut self) {
        let name = if self.random.thousandth(500) { "app" } else { "web" }.to_owned();
        let change = Box::new(PipelineChange {
            default_branch: Some(if self.random.thousandth(200) { "-x" } else { "trunk" }.to_owned()),
            env: vec![("FROM".to_owned(), Some("registry".to_owned()))],
            ..PipelineChange::default()
        });
        let request = if self.random.thousandth(500) {
            Request::CreatePipeline { id: PipelineId::from_bytes(self.sixteen()), name, change }
        } else {
            Request::UpdatePipeline { name, change }
        };
        self.ask(request, Asked::Once(None));
    }

    /// A build a minute.
    fn add_schedule(&mut self) {
        let new = NewSchedule {
            id: ScheduleId::from_bytes(self.sixteen()),
            pipeline: if self.random.thousandth(500) { "app" } else { "web" }.to_owned(),
            cron: "* * * * *".to_owned(),
            timezone: "UTC".to_owned(),
            branch: None,
            commit: "HEAD".to_owned(),
            message: "a minute is over".to_owned(),
            env: Vec::new(),
            trusted: self.random.thousandth(700),
            confined: None,
        };
        self.ask(Request::AddSchedule(Box::new(new)), Asked::Once(None));
    }

    /// The last builds come to their end only where none follow.
    fn remove_schedules(&mut self) {
        let all: Vec<ScheduleId> = self.store.rows.schedules.keys().copied().collect();
        for schedule in all {
            self.ask(Request::RemoveSchedule { schedule }, Asked::Once(None));
            self.ask(Request::RemoveSchedule { schedule }, Asked::Once(None));
        }
    }

    /// A file that some job has uploaded, by a name of its own.
    fn an_artifact(&mut self) -> Output {
        let name = Digest::of(&self.sixteen());
        Output {
            path: name.to_hex(),
            bytes: self.random.below(1 << 20),
            digest: name,
            sha1: "01".repeat(20),
            sha256: "02".repeat(32),
            content_type: "text/plain".to_owned(),
            executable: name.as_bytes()[0] & 1 == 1,
        }
    }

    fn meddle_with_tokens(&mut self) {
        let pool = self.random.place(self.work.tokens.len());
        let token = self.work.tokens[pool];
        let and_agents = self.random.thousandth(150);
        self.ask(Request::RevokeToken { token, and_agents }, Asked::Once(None));
    }

    /// Somebody opens some of the gates at which builds wait, or all; sometimes with an answer that is none.
    pub(super) fn open_gates(&mut self, all: bool) {
        let blocked = |job: &&JobRow| job.state == JobState::Blocked;
        let gates: Vec<JobId> = self.store.rows.jobs.values().filter(blocked).map(|job| job.id).collect();
        for job in gates {
            if !all && !self.random.thousandth(600) {
                continue;
            }
            let asks = match &self.store.rows.jobs[&job].node.kind {
                NodeKind::Block(gate) | NodeKind::Input(gate) => !gate.fields.is_empty(),
                NodeKind::Command(_) | NodeKind::Wait { .. } | NodeKind::Trigger(_) => false,
            };
            let wrong = !all && self.random.thousandth(200);
            let value = if wrong { "seven" } else { "v7" };
            let answers = if asks || wrong { vec![("version".to_owned(), vec![value.to_owned()])] } else { Vec::new() };
            self.ask(Request::Unblock { job, answers: answers.into_iter().collect() }, Asked::Once(None));
        }
    }

    /// A job that runs adds steps to its build; now and then its request comes twice.
    fn upload_something(&mut self) {
        let live = self.store.rows.attempts.values().filter(|row| !row.state.is_final());
        let live: Vec<_> = live.map(|row| (row.id, row.build, row.epoch)).collect();
        let Some((attempt, build, epoch)) = self.random.pick(&live) else { return };
        let trusted = self.store.rows.builds.get(&build).is_some_and(|row| row.namespace.trust() == Trust::Trusted);
        let number = self.random.below(1 << 40);
        let upload = Upload {
            attempt,
            epoch: self.random.thousandth(500).then_some(epoch),
            id: format!("upload-{number}"),
            definition: format!("steps: {number}"),
            graph: graphs::upload(&mut self.random, trusted),
            replace: self.random.thousandth(200),
        };
        if self.random.thousandth(400) {
            self.ask(Request::Upload(Box::new(upload.clone())), Asked::Once(None));
        }
        self.ask(Request::Upload(Box::new(upload)), Asked::Once(None));
    }

    fn drain_some(&mut self) {
        let all: Vec<_> = self.hosts.iter().filter_map(|host| host.id).collect();
        let agents: Vec<_> = all.into_iter().filter(|_| self.random.thousandth(400)).collect();
        let deadline_ms = self.random.thousandth(500).then(|| self.random.between(0, 30_000));
        let on_deadline = [OnDeadline::Requeue, OnDeadline::Cancel, OnDeadline::Wait][self.random.place(3)];
        if self.random.thousandth(500) {
            self.ask(Request::DrainAgents { agents, deadline_ms, on_deadline }, Asked::Once(None));
            return;
        }
        let pool = pools().swap_remove(self.random.place(3)).name;
        let selector = Selector { pool: Some(pool), ..Selector::default() };
        let max_unavailable = self.random.thousandth(700).then_some(1);
        let many = DrainMany { selector, deadline_ms, on_deadline, max_unavailable };
        self.ask(Request::DrainMany(Box::new(many)), Asked::Once(None));
    }

    fn resume_one(&mut self) {
        let place = self.random.place(self.hosts.len());
        if let Some(agent) = self.hosts[place].id {
            self.ask(Request::ResumeAgent { agent }, Asked::Once(None));
        }
    }

    fn revoke_one(&mut self) {
        let place = self.random.place(self.hosts.len());
        if let Some(agent) = self.hosts[place].id.filter(|_| self.random.thousandth(300)) {
            self.ask(Request::RevokeAgent { agent }, Asked::Once(None));
        }
    }

    /// Requests that a sound core refuses.
    fn ask_nonsense(&mut self) {
        match self.random.below(8) {
            6 => {
                let mut submit = self.work.intents[0].submit.clone();
                (submit.idempotency, submit.number) = (None, Some(1_000_000));
                self.ask(Request::Submit(Box::new(submit.clone())), Asked::Once(None));
                // And one that was decided by a registration that nobody made.
                if let Some(row) = self.store.rows.pipelines.values().next() {
                    let row = PipelineRow { description: "another".repeat(3), ..row.clone() };
                    submit.registration = Some(Box::new(row));
                    self.ask(Request::Submit(Box::new(submit)), Asked::Once(None));
                }
            }
            7 => {
                // One that has left memory cannot be told from a new one: ids are made once, by their makers' promise.
                let id = self.work.intents[0].submit.id;
                if self.coordinator.core.as_ref().is_some_and(|core| core.rows().builds.contains_key(&id)) {
                    let mut submit = self.work.intents[0].submit.clone();
                    submit.idempotency = None;
                    self.ask(Request::Submit(Box::new(submit)), Asked::Once(None));
                }
            }
            0 => {
                let mut submit = self.work.intents[0].submit.clone();
                submit.idempotency = submit.idempotency.map(|(key, _)| (key, Digest::of(&[9])));
                if self.work.intents[0].build.is_some() {
                    self.ask(Request::Submit(Box::new(submit)), Asked::Once(None));
                }
            }
            1 => {
                let mut submit = self.work.intents[0].submit.clone();
                submit.idempotency = None;
                submit.graph = graphs::circle();
                self.ask(Request::Submit(Box::new(submit)), Asked::Once(None));
            }
            2 => {
                let mut submit = self.work.intents[0].submit.clone();
                (submit.idempotency, submit.branch) = (None, "b".repeat(10_000));
                self.ask(Request::Submit(Box::new(submit)), Asked::Once(None));
            }
            3 => self.contradict_pool(),
            4 => {
                let token = TokenId::from_bytes([7; 16]);
                self.ask(Request::RevokeToken { token, and_agents: false }, Asked::Once(None));
            }
            _ => {
                let agent = windlass_protocol::AgentId::from_bytes([7; 16]);
                self.ask(Request::ResumeAgent { agent }, Asked::Once(None));
            }
        }
    }

    /// What is past goes at once: 90 days are not reached here.
    fn forget_what_is_past(&mut self) {
        let tokens_before = WallMs(WALL_MS + self.now);
        self.ask(Request::Retain { idempotency_before: WallMs(1), tokens_before }, Asked::Once(None));
    }

    /// A token that nobody came by, made and taken back.
    fn take_back_a_token(&mut self) {
        let id = TokenId::from_bytes(self.sixteen());
        let pool = Some(pools().swap_remove(0));
        let grant = TokenGrant::join(pools().swap_remove(0).name, Some(1));
        let token = NewToken { id, secret_hash: secret(id), grant, pool, note: String::new(), expires_at: None };
        self.ask(Request::CreateToken(Box::new(token)), Asked::Once(None));
        self.ask(Request::RevokeToken { token: id, and_agents: false }, Asked::Once(None));
        // Time has to go on until what was taken back is past.
        let soon = self.random.between(1, 50);
        self.after(soon, Event::Act(Box::new(Action::Forget)));
    }

    fn contradict_pool(&mut self) {
        let id = TokenId::from_bytes(self.sixteen());
        let mut pool = pools().swap_remove(0);
        pool.zone = "elsewhere".to_owned();
        let missing = self.random.thousandth(500);
        let name = if missing { "nowhere".to_owned() } else { pool.name.clone() };
        let token = NewToken {
            id,
            secret_hash: secret(id),
            grant: TokenGrant::join(name, Some(1)),
            pool: (!missing).then_some(pool),
            note: String::new(),
            expires_at: None,
        };
        self.ask(Request::CreateToken(Box::new(token)), Asked::Once(None));
    }

    /// Whether the run is over: nothing breaks any more and every build has ended, or the time for that is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        if self.troubled || !self.coordinator.is_settled() {
            return false;
        }
        let wanted = self.work.intents.iter().all(|intent| intent.build.is_some());
        let ended = self.store.rows.builds.values().all(|build| build.state.is_final());
        let idle = self.hosts.iter().all(|host| host.records.is_empty());
        let end_ms = if self.work.closing { END_MS + BUILD_EXPIRY_MS } else { END_MS };
        let told = self.store.rows.notifications.is_empty();
        (wanted && ended && idle && told) || self.now > end_ms
    }

    /// Whether every job that is left waits for a queue that no pool serves, or for such a job.
    pub(super) fn only_the_hopeless_wait(&self) -> bool {
        let rows = &self.store.rows;
        let live = |job: &&JobRow| rows.builds.get(&job.build).is_some_and(|build| !build.state.is_final());
        let mut open = rows.jobs.values().filter(live).filter(|job| !job.state.is_final()).peekable();
        let idle = self.hosts.iter().all(|host| host.records.is_empty());
        open.peek().is_some()
            && idle
            && open.all(|job| match &job.node.kind {
                NodeKind::Command(command) => {
                    // Who waits for a slot waits for what holds it.
                    command.queue == "nobody" || matches!(job.state, JobState::Waiting | JobState::Limited)
                }
                NodeKind::Block(_) | NodeKind::Input(_) => job.state != JobState::Blocked,
                NodeKind::Wait { .. } | NodeKind::Trigger(_) => true,
            })
    }

    /// After the last event.
    pub(super) fn judge_end(&mut self) {
        let open = self.store.rows.builds.values().find(|build| !build.state.is_final()).map(|build| build.id);
        if let Some(build) = open {
            let jobs = self.store.rows.jobs.values().filter(|job| job.build == build && !job.state.is_final());
            let jobs: Vec<String> = jobs.map(|job| format!("{} {:?}", job.id, job.state)).collect();
            self.violate("I10", format!("build {build} has not ended: {}", jobs.join(", ")));
        }
        if self.work.intents.iter().any(|intent| intent.build.is_none()) {
            self.violate("I10", "a submit was never answered");
        }
        if let Some((index, attempt)) = self.held_record() {
            self.violate("I8", format!("host {index} still has attempt {attempt}, everything has ended"));
        }
        let judged = self.oracle.judge_end(&self.store, &self.logs).and_then(|()| self.receiver.judge_end(&self.store));
        if let Err((invariant, detail)) = judged {
            self.violate(invariant, detail);
        }
    }

    fn held_record(&self) -> Option<(usize, AttemptId)> {
        let held = self.hosts.iter().enumerate();
        held.filter_map(|(index, host)| Some((index, *host.records.keys().next()?))).next()
    }
}
